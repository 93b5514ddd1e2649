"""Order and uniqueness of times: each row of a series gets a time no other row of it has, and ascends.

Rows keep the device's own times. What came out of order is sorted and flagged LATE; an exact repeat (or a null at a
known time) is a duplicate; a second value at a known time moves on by as many µs as it needs (usually one) and is
flagged TIME, as are rows of a clock that runs ahead. Rows at or below a series' `floor` could repeat a forgotten time
and are refused as `too_late`, unless they lie in a gap that missing bursts left: nothing was written there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.memory import NEVER, Ahead, Memory
from messages.quality import Why

AHEAD_US = 60_000_000
"""A device time this far beyond its arrival proves that the device's clock is ahead."""
LAST_TIME = 2**53 - 1
ALIVE, DUPLICATE, TOO_LATE, CLOCK = 0, 1, 2, 3
REFUSALS = {DUPLICATE: "duplicate", TOO_LATE: "too_late", CLOCK: "clock"}

_LATE, _TIME, _NONE = np.int32(Why.LATE), np.int32(Why.TIME), np.int32(0)

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.int32]
Fates = npt.NDArray[np.int8]


def settle(
    memory: Memory, device: int, series: list[int], times: Times, cells: Floats, now: int
) -> tuple[Times, Flags, Fates]:
    """Sort `cells` (m metrics, n samples) of one device by time, in place; their times, flags and fates, each (m, n).

    times (n,) as sampled. Only fates ALIVE may be used; among them times ascend strictly and are new to the memory.
    """
    m, n = cells.shape
    order = np.argsort(times, kind="stable")
    newest = int(memory.time[series, -1].max())
    # What a clock that ran ahead wrote does not make the rows of a good clock late.
    newest_true = newest if newest <= now + AHEAD_US or times.max() > now + AHEAD_US else NEVER
    seen = np.maximum.accumulate(np.concatenate(([newest_true], times)))[:-1]
    flags = np.where(times < seen, _LATE, _NONE)[order]
    times = times[order]
    is_ahead = times > now + AHEAD_US
    flags[is_ahead] |= _TIME
    cells[:] = cells[:, order]
    fates = np.zeros((m, n), np.int8)
    fates[:, (times < 0) | (times > LAST_TIME)] = CLOCK
    all_flags = np.repeat(flags[None, :], m, axis=0)
    all_times = np.repeat(times[None, :], m, axis=0)
    simple = times[0] > newest and not fates.any() and not is_ahead.any() and memory.ahead.keys().isdisjoint(series)
    if simple:
        again = np.flatnonzero(times[1:] == times[:-1])
        if not len(again):
            return all_times, all_flags, fates
        later, earlier = cells[:, again + 1], cells[:, again]
        if bool(((later == earlier) | np.isnan(later)).all()):
            fates[:, again + 1] = DUPLICATE
            return all_times, all_flags, fates
    for row, one in enumerate(series):
        _settle_series(memory, device, one, all_times[row], cells[row], all_flags[row], fates[row], now)
    return all_times, all_flags, fates


def _settle_series(
    memory: Memory, device: int, series: int, times: Times, values: Floats, flags: Flags, fates: Fates, now: int
) -> None:
    """One series, row by row: the exact rules, for the few that need them."""
    ahead = memory.ahead.get(series)
    newest, limit = int(memory.time[series, -1]), now + AHEAD_US
    if int(times[-1]) > limit:
        if ahead is None:
            ahead = memory.ahead[series] = Ahead(LAST_TIME, 0, 0, before=newest)
        elif not ahead.running:
            ahead.running, ahead.before = True, newest
    elif ahead is not None and ahead.running and newest > limit:
        memory.forget_times(series, ahead.before)
        memory.gaps.pop(device, None)
        ahead.running, ahead.shared = False, True
    known = {int(t): float(v) for t, v in zip(memory.time[series], memory.value[series], strict=True)}
    floor = int(memory.floor[series])
    gaps = memory.gaps.get(device, [])
    last = -1
    group_time, group_values = -1, set[float]()
    for i, (time, value) in enumerate(zip(times.tolist(), values.tolist(), strict=True)):
        if fates[i]:
            continue
        if time <= floor and not any(low < time < high for low, high in gaps):
            fates[i] = TOO_LATE
            continue
        missing = value != value
        if time != group_time:
            group_time, group_values = time, set()
            step = time
            while step in known:
                group_values.add(known[step])
                step += 1
        if (missing and group_values) or value in group_values:
            fates[i] = DUPLICATE
            continue
        free = max(time, last + 1)
        # 64 steps try every residue and len(known) every remembered row, so more would not help.
        for _ in range(64 + len(known)):
            if free not in known and not (ahead and ahead.shared and _taken_ahead(ahead, free)):
                break
            free += 1
        else:
            free = LAST_TIME + 1
        if free > LAST_TIME:
            fates[i] = CLOCK
            continue
        if free > time and free <= floor and not any(low < free < high for low, high in gaps):
            fates[i] = TOO_LATE
            continue
        if free != time:
            times[i] = free
            flags[i] |= _TIME
        last = free
        group_values.add(value)
    if ahead is not None:
        _note_ahead(memory, series, ahead, times[fates == ALIVE])


def _taken_ahead(ahead: Ahead, time: int) -> bool:
    return ahead.low <= time <= ahead.high and bool(ahead.residues >> (time & 63) & 1)


def _note_ahead(memory: Memory, series: int, ahead: Ahead, written: Times) -> None:
    if ahead.running and len(written):
        ahead.low, ahead.high = min(ahead.low, int(written[0])), max(ahead.high, int(written[-1]))
        ahead.residues |= int(np.bitwise_or.reduce(np.uint64(1) << (written & 63).astype(np.uint64)))
    if not ahead.running and memory.floor[series] >= ahead.high:
        del memory.ahead[series]
