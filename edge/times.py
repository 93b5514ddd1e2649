"""The times of a block: which bursts are missing, which clocks are behind, and every series in ascending order.

The many devices whose times are as they should be cost a few comparisons of whole arrays; each of the others is
handed to `edge.ordering`, which has the exact rules.
"""

from __future__ import annotations

import numpy as np

from edge.arrangement import Group
from edge.block import TIME, Block, Bools
from edge.catalogue import Catalogue
from edge.memory import NEVER, Memory
from edge.ordering import AHEAD_US, ALIVE, LAST_TIME, REFUSALS, settle
from edge.refusals import Refusals

BEHIND_US, BEHIND_SPREAD_US, BEHIND_SEEN = 300_000_000, 60_000_000, 8
"""A clock is behind when its newest sample is older than this, by the same amount, so many bursts in a row."""


def follow_sequence(groups: list[Group], memory: Memory, catalogue: Catalogue) -> None:
    """Boots and bursts by number: counters may start again with a boot, a missing burst leaves a gap."""
    for group in groups:
        device = group.device
        mine = list(catalogue.series_of[device].values())
        if memory.boot[device] != group.boot:
            memory.boot[device], memory.seq[device] = group.boot, -1
            memory.good_at[[series for series in mine if catalogue.counter[series]]] = NEVER
        last = int(memory.seq[device])
        for i, burst in enumerate(group.bursts):
            if burst.seq > last + 1:
                newest = max(int(memory.time[mine, -1].max()), int(memory.floor[mine].max()), -1)
                newest = max([newest, *(max(one.at) + one.t0 for one in group.bursts[:i])])
                memory.add_gap(device, newest, min(burst.at) + burst.t0)
            last = max(last, burst.seq)
        memory.seq[device] = last


def flag_clocks_behind(block: Block, memory: Memory, now: int) -> None:
    """Flag the rows of devices whose clock is behind; those of clocks ahead are seen row by row, in `settle_times`."""
    devices = np.array([group.device for group in block.groups])
    lag = now - np.maximum.reduceat(block.sampled, block.group_bounds[:-1])
    same = (lag > BEHIND_US) & (np.abs(lag - memory.lag[devices]) <= BEHIND_SPREAD_US)
    memory.lag_seen[devices] = np.where(same, memory.lag_seen[devices] + 1, lag > BEHIND_US)
    memory.lag[devices] = np.where(same, memory.lag[devices], lag)
    behind = memory.lag_seen[devices] >= BEHIND_SEEN
    if behind.any():
        block.quality[behind[block.group][block.segment]] |= TIME


def settle_times(block: Block, memory: Memory, now: int, refusals: Refusals) -> None:
    """Put every series in ascending order of times that are its own; rows that cannot have one are refused."""
    block.rough = _rough(block, memory, now)
    if not block.rough.any():
        return
    fates = np.zeros(len(block.value), np.int8)
    for g in block.rough.nonzero()[0].tolist():
        group = block.groups[g]
        one, m = int(block.group_first[g]), len(group.layout.series)
        cells = slice(int(block.bounds[one]), int(block.bounds[one + m]))
        times = block.sampled[int(block.group_bounds[g]) : int(block.group_bounds[g + 1])]
        table = block.value[cells].reshape(m, group.count)
        settled, flags, fate = settle(memory, group.device, group.layout.series, times, table, now)
        block.time[cells] = settled.ravel()
        block.quality[cells] |= flags.ravel()
        fates[cells] = fate.ravel()
        if group.device in memory.gaps:
            memory.fill_gaps(group.device, np.sort(settled[fate == ALIVE]))
    if not fates.any():
        return
    for fate_code, reason in REFUSALS.items():
        dead = (fates == fate_code).nonzero()[0]
        shown = [str(time) for time in block.time[dead].tolist()]
        refusals.add_cells(block.series[block.segment[dead]].tolist(), reason, shown)
    block.keep(fates == ALIVE)


def _rough(block: Block, memory: Memory, now: int) -> Bools:
    """(G,) whether anything is unusual in the times of a group."""
    sampled, first = block.sampled, block.group_bounds[:-1]
    rough = np.zeros(len(block.groups), np.bool_)
    back = (sampled[1:] <= sampled[:-1]).nonzero()[0] + 1
    at = first.searchsorted(back, "right") - 1
    rough[at[back != first[at]]] = True
    newest = np.maximum.reduceat(memory.time[block.series, -1], block.group_first)
    final = sampled[block.group_bounds[1:] - 1]
    rough |= (sampled[first] <= newest) | (sampled[first] < 0) | (final > min(now + AHEAD_US, LAST_TIME))
    if memory.ahead:
        touched = np.array([series in memory.ahead for series in block.series.tolist()])
        rough |= np.logical_or.reduceat(touched, block.group_first)
    for g, group in enumerate(block.groups) if memory.gaps else ():
        gaps = memory.gaps.get(group.device)
        rough[g] |= gaps is not None and bool(sampled[first[g]] < gaps[-1][1])
    return rough
