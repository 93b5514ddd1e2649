"""Lone outliers of a block: the filter of `edge.hampel` on the new values, behind the six remembered before them.

Distances are in the noise of the series, as learned (`edge.spread`). Counters and codes are not filtered. The last value of a series has no neighbour after it: it is only suspected, and
not even that when the machine itself says that something happened.
"""

from __future__ import annotations

import numpy as np

from edge.block import NO_CELLS, Block, Bools, Ints, bounds_of
from edge.catalogue import Catalogue
from edge.hampel import WINDOW, lone_outliers
from edge.memory import NEVER, Memory
from edge.spread import learned


def outliers(block: Block, possible: Bools, catalogue: Catalogue, memory: Memory) -> tuple[Ints, Ints]:
    """Cells of lone outliers, to be replaced, and of last values that only may be one; among the `possible` (N,)."""
    segment = block.segment
    analog = ~(catalogue.counter | catalogue.code)[block.series]
    cells = (possible & analog[segment]).nonzero()[0]
    if not len(cells):
        return NO_CELLS, NO_CELLS
    tail = memory.value[block.series, 1 - WINDOW :]
    low, high = catalogue.low[block.series][:, None], catalogue.high[block.series][:, None]
    first = block.time[np.minimum(block.bounds[:-1], len(block.time) - 1)]
    # Rows that came late are judged by their own kind: what is remembered is not what was before them.
    earlier = memory.time[block.series, 1 - WINDOW :] < first[:, None]
    usable = (tail >= low) & (tail <= high) & analog[:, None] & earlier
    before = usable.sum(axis=1)
    of = segment[cells]
    # Ragged again: of each series its usable tail, then its cells.
    start = bounds_of(before + np.bincount(of, minlength=len(before)))
    place = np.arange(len(cells)) + before.cumsum()[of]
    values = np.empty(int(start[-1]))
    remembered = np.ones(len(values), np.bool_)
    remembered[place] = False
    values[place] = block.value[cells]
    values[remembered] = tail[usable]
    lengths = start[1:] - start[:-1]
    floor = catalogue.noise[block.series]
    scale = learned(values, start, start[:-1] + before, np.maximum(memory.spread[block.series], floor))
    scale = memory.spread[block.series] = np.minimum(np.maximum(scale, floor), catalogue.width[block.series])
    at, last = lone_outliers(values, start[:-1].repeat(lengths), start[1:].repeat(lengths), scale.repeat(lengths))
    mine = ~remembered[at]
    at, last = at[mine], last[mine]
    found = cells[place.searchsorted(at)]
    suspects = [cell for cell in found[last].tolist() if not _stirred(block, int(segment[cell]), catalogue, memory)]
    return found[~last], np.array(suspects, np.int64)


def _stirred(block: Block, segment: int, catalogue: Catalogue, memory: Memory) -> bool:
    """Whether the device of `segment` says that something happened: an event, or another code (state)."""
    group = block.groups[int(block.group[segment])]
    if any(burst.events for burst in group.bursts):
        return True
    for other, series in enumerate(group.layout.series, int(block.group_first[block.group[segment]])):
        if catalogue.code[series]:
            values = block.value[block.bounds[other] : block.bounds[other + 1]]
            values = values[~np.isnan(values)]
            known = memory.good_at[series] > NEVER
            if len(values) and (values.min() != values.max() or (known and values[0] != memory.good[series])):
                return True
    return False
