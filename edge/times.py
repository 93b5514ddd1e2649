"""The times of a block: which bursts are missing, which clocks are behind, and every series in ascending order.

The many devices whose times are as they should be cost a few comparisons of whole arrays. Bursts that are only mixed up
in themselves are sorted together; each of the others is handed to `edge.ordering`, which has the exact rules.
"""

from __future__ import annotations

import numpy as np

from edge.arrangement import Group
from edge.block import LATE, TIME, Block, Bools, Ints
from edge.catalogue import Catalogue
from edge.memory import NEVER, Memory
from edge.ordering import AHEAD_US, ALIVE, DUPLICATE, LAST_TIME, REFUSALS, Fates, settle
from edge.refusals import Refusals

BEHIND_US, BEHIND_SPREAD_US, BEHIND_SEEN = 300_000_000, 60_000_000, 8
"""A clock is behind when its newest sample is older than this, by the same amount, so many bursts in a row."""


def follow_sequence(groups: list[Group], memory: Memory, catalogue: Catalogue) -> None:
    """Boots and bursts by number: counters may start again with a boot, a missing burst leaves a gap."""
    lasts = memory.seq[[group.device for group in groups]].tolist()
    for nth, (group, last) in enumerate(zip(groups, lasts, strict=True)):
        device = group.device
        if memory.boot[device] == group.boot and len(group.bursts) == 1 and group.bursts[0].seq == last + 1:
            lasts[nth] = last + 1
            continue
        mine = list(catalogue.series_of[device].values())
        if memory.boot[device] != group.boot:
            memory.boot[device], last = group.boot, -1
            memory.good_at[[series for series in mine if catalogue.counter[series]]] = NEVER
        for i, burst in enumerate(group.bursts):
            if burst.seq > last + 1:
                newest = max(int(memory.time[mine, -1].max()), int(memory.floor[mine].max()), -1)
                newest = max([newest, *(max(one.at) + one.t0 for one in group.bursts[:i])])
                memory.add_gap(device, newest, min(burst.at) + burst.t0)
            last = max(last, burst.seq)
        lasts[nth] = last
    memory.seq[[group.device for group in groups]] = lasts


def flag_clocks_behind(block: Block, memory: Memory, now: int) -> None:
    """Flag the rows of devices whose clock is behind; those of clocks ahead are seen row by row, in `settle_times`."""
    devices = np.array([group.device for group in block.groups])
    lag = now - np.maximum.reduceat(block.sampled, block.group_bounds[:-1])
    if lag.max() <= BEHIND_US:
        memory.lag[devices], memory.lag_seen[devices] = lag, 0
        return
    same = (lag > BEHIND_US) & (np.abs(lag - memory.lag[devices]) <= BEHIND_SPREAD_US)
    memory.lag_seen[devices] = np.where(same, memory.lag_seen[devices] + 1, lag > BEHIND_US)
    memory.lag[devices] = np.where(same, memory.lag[devices], lag)
    behind = memory.lag_seen[devices] >= BEHIND_SEEN
    if np.count_nonzero(behind):
        block.quality[behind[block.group][block.segment]] |= TIME


def settle_times(block: Block, memory: Memory, now: int, refusals: Refusals) -> None:
    """Put every series in ascending order of times that are its own; rows that cannot have one are refused."""
    block.rough, hard = _rough(block, memory, now)
    if not np.count_nonzero(block.rough):
        return
    fates = np.zeros(len(block.value), np.int8)
    mixed = (block.rough & ~hard).nonzero()[0]
    if len(mixed):
        hard[_sort(block, mixed, fates)] = True
    for g in hard.nonzero()[0].tolist():
        group = block.groups[g]
        one, m = int(block.group_first[g]), len(group.layout.metrics)
        cells = slice(int(block.bounds[one]), int(block.bounds[one + m]))
        times = block.sampled[int(block.group_bounds[g]) : int(block.group_bounds[g + 1])]
        table = block.value[cells].reshape(m, group.count)
        settled, flags, fate = settle(memory, group.device, group.layout.series.tolist(), times, table, now)
        block.time[cells] = settled.ravel()
        block.quality[cells] |= flags.ravel()
        fates[cells] = fate.ravel()
        if group.device in memory.gaps:
            _fill_gaps(group, np.sort(settled[fate == ALIVE]), memory)
    if not np.count_nonzero(fates):
        return
    for fate_code, reason in REFUSALS.items():
        dead = (fates == fate_code).nonzero()[0]
        shown = [str(time) for time in block.time[dead].tolist()]
        refusals.add_cells(block.series[block.segment[dead]].tolist(), reason, shown)
    block.keep(fates == ALIVE)


def _fill_gaps(group: Group, times: Ints, memory: Memory) -> None:
    """`times` (ascending) of `group` were written. Bursts in a row leave no room between them; where one is still
    missing there is room for it."""
    bursts = sorted(group.bursts, key=lambda one: one.seq)
    begin = 0
    for end in range(1, len(bursts) + 1):
        if end == len(bursts) or bursts[end].seq > bursts[end - 1].seq + 1:
            row = bursts[begin:end]
            low, high = min(min(one.at) + one.t0 for one in row), max(max(one.at) + one.t0 for one in row)
            # Rows that were moved to keep their time unique lie a few µs behind it.
            memory.fill_gaps(group.device, times[times.searchsorted(low) : times.searchsorted(high + 64, "right")])
            begin = end


def _rough(block: Block, memory: Memory, now: int) -> tuple[Bools, Bools]:
    """(G,) whether anything is unusual in the times of a group, and whether it is more than its own order."""
    sampled, first = block.sampled, block.group_bounds[:-1]
    hard = np.zeros(len(block.groups), np.bool_)
    if memory.ahead:
        touched = np.array([series in memory.ahead for series in block.series.tolist()])
        hard |= np.logical_or.reduceat(touched, block.group_first)
    oldest, latest = sampled[first], sampled[block.group_bounds[1:] - 1]
    back = (sampled[1:] <= sampled[:-1]).nonzero()[0] + 1
    rough = hard
    if len(back):
        at = first.searchsorted(back, "right") - 1
        rough = hard.copy()
        rough[at[back != first[at]]] = True
        oldest, latest = np.minimum.reduceat(sampled, first), np.maximum.reduceat(sampled, first)
    newest = np.maximum.reduceat(memory.time[block.series, -1], block.group_first)
    hard |= (oldest <= newest) | (oldest < 0) | (latest > min(now + AHEAD_US, LAST_TIME))
    for g, group in enumerate(block.groups) if memory.gaps else ():
        gaps = memory.gaps.get(group.device)
        hard[g] |= gaps is not None and bool(oldest[g] < gaps[-1][1])
    return rough | hard, hard


def _sort(block: Block, groups: Ints, fates: Fates) -> list[int]:
    """Sort the cells of `groups`, whose times are new to the memory but not in order: the common case, for all at once.

    Late samples are flagged, exact repeats get their fate. Groups with a second value at a time are left as they are
    and returned: they are for `edge.ordering`.
    """
    counts = (block.group_bounds[1:] - block.group_bounds[:-1])[groups]
    begin = counts.cumsum() - counts
    of = np.arange(len(groups)).repeat(counts)
    times = block.sampled[np.arange(len(of)) + (block.group_bounds[groups] - begin)[of]]
    order = np.lexsort((times, of))
    place = np.empty(len(of), np.int64)
    place[order] = np.arange(len(of))
    # A sample is late when its place is before that of an earlier one; equal times keep their order.
    late = (place < np.maximum.accumulate(place))[order]
    times = times[order]
    repeat = np.zeros(len(of), np.bool_)
    repeat[1:] = (times[1:] == times[:-1]) & (of[1:] == of[:-1])
    # The same for the cells. The metrics of a group are segments of its length, one behind the other.
    widths = np.array([len(block.groups[g].layout.metrics) for g in groups.tolist()])
    owner = np.arange(len(groups)).repeat(widths)
    segments = np.arange(len(owner)) + (block.group_first[groups] - widths.cumsum() + widths)[owner]
    lengths = counts[owner]
    part = np.arange(len(owner)).repeat(lengths)
    nth = np.arange(len(part)) - (lengths.cumsum() - lengths)[part]
    sample, base = nth + begin[owner][part], block.bounds[segments][part]
    cells, value = base + nth, block.value[base + order[sample] - begin[owner][part]]
    twice = repeat[sample]
    left = list[int]()
    if np.count_nonzero(twice):
        again = twice.nonzero()[0]
        second = again[(value[again] != value[again - 1]) & ~np.isnan(value[again])]
        if len(second):
            keep = np.ones(len(groups), np.bool_)
            keep[owner[part[second]]] = False
            left = groups[~keep].tolist()
            kept = keep[owner[part]]
            cells, value, sample, twice = cells[kept], value[kept], sample[kept], twice[kept]
        fates[cells[twice]] = DUPLICATE
    block.value[cells], block.time[cells] = value, times[sample]
    block.quality[cells[late[sample]]] |= LATE
    return left
