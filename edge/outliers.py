"""Lone outliers of a block: the filter of `edge.hampel` on the new values, behind the six remembered before them.

Distances are in the noise of the series, as learned (`edge.spread`). Counters and codes are not filtered. The last
value of a series has no neighbour after it: it is only suspected, and not even that when the machine itself says
that something happened.
"""

from __future__ import annotations

import numpy as np

from edge.block import NO_CELLS, Block, Ints, Trace
from edge.catalogue import Catalogue
from edge.hampel import lone_outliers
from edge.memory import NEVER, TAIL, Memory
from edge.spread import learned

_PLACES, _BACKWARDS = np.arange(TAIL), np.arange(TAIL, 0, -1)


def outliers(block: Block, trace: Trace, catalogue: Catalogue, memory: Memory) -> tuple[Ints, Ints]:
    """Cells of lone outliers, to be replaced, and of last values that only may be one; among those of `trace`."""
    of = trace.full
    if not len(of):
        return NO_CELLS, NO_CELLS
    series, low, high = block.series[of], trace.bounds[of], trace.bounds[of + 1]
    # Each series with `TAIL` places before its cells, the last of them filled with what is remembered.
    start = TAIL * np.arange(len(of) + 1)
    start[:-1] += low
    start[-1] += len(trace.cell)
    new = high - low
    place = np.arange(len(trace.cell)) + (TAIL * np.arange(1, len(of) + 1)).repeat(new)
    values = np.empty(int(start[-1]))
    values[place] = trace.value
    tail, known = memory.tail[series], memory.tail_known[series]
    # Rows that came late are judged by their own kind: what is remembered is not what was before them.
    newest = memory.time[series, -1]
    known = np.where(block.time[trace.cell[low]] > newest, known, 0)
    values[start[:-1, None] + _PLACES] = tail
    first = start[:-1] + TAIL - known

    floor = catalogue.noise[series]
    scale = learned(values, start, first, start[:-1] + TAIL, np.maximum(memory.spread[series], floor))
    memory.spread[series] = np.minimum(scale, catalogue.most_noise[series])
    # What is stated holds until it is clearly wrong: what is learned wavers by a fifth.
    scale = np.where(scale < catalogue.believed[series], floor, np.maximum(scale, floor))
    at, last = lone_outliers(values, start, first, scale, catalogue.doubt[series])

    newer = block.time[trace.cell[high - 1]] > newest
    memory.tail[series[newer]] = values[(start[1:, None] - _BACKWARDS)[newer]]
    memory.tail_known[series[newer]] = np.minimum(known + new, TAIL)[newer]
    if not len(at):
        return NO_CELLS, NO_CELLS
    nth = np.minimum(place.searchsorted(at), len(place) - 1)
    fresh = place[nth] == at  # what is remembered has its row already
    found, last = trace.cell[nth[fresh]], last[fresh]
    suspects = [
        cell for cell in found[last].tolist() if not _stirred(block, int(block.segment[cell]), catalogue, memory)
    ]
    return found[~last], np.array(suspects, np.int64)


def _stirred(block: Block, segment: int, catalogue: Catalogue, memory: Memory) -> bool:
    """Whether the device of `segment` says that something happened: an event, or another code (state)."""
    group = block.groups[int(block.group[segment])]
    if any(burst.events for burst in group.bursts):
        return True
    for other, series in enumerate(group.layout.series.tolist(), int(block.group_first[block.group[segment]])):
        if catalogue.code[series]:
            values = block.value[block.bounds[other] : block.bounds[other + 1]]
            values = values[~np.isnan(values)]
            known = memory.good_at[series] > NEVER
            if len(values) and (values.min() != values.max() or (known and values[0] != memory.good[series])):
                return True
    return False
