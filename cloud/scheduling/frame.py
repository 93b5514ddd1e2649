"""What of a shop decides when work can be done, without set-ups, crews and batches: a small tuple for compiled kernels.

    frame = frame_of(shop)
    opening(frame, m, ready, ticks)     the earliest start of so much work on machine m, were it alone there

Dimensions as in `cloud.scheduling.shop`: J jobs, O operations, A alternatives, M machines, L orders.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import FAR, Bools, Floats, Indices, Ints, Shop


class Frame(NamedTuple):
    """Never written to."""

    job_first: Indices  # (J + 1,)
    op_job: Indices  # (O,)
    job_lot: Indices  # (J,)
    lot_due: Ints  # (L,) FAR: none
    lot_past: Ints  # (L,)
    alt_first: Indices  # (O + 1,)
    alt_machine: Indices  # (A,)
    alt_ticks: Ints  # (A,)
    alt_load: Floats  # (A,) its share of the machine's time, in ticks: on a batch machine by its size
    alt_ready: Ints  # (A,) of first operations: not earlier there; 0 of others
    wait: Ints  # (O,) least ticks behind the operation before
    transport: Ints  # (M, M)
    lags: bool  # whether there are waits or transport
    calendar: Bools  # (M,) whether it is not simply there from tick 0 on
    stretch_first: Indices  # (M + 1,)
    stretch_ready: Ints  # (S,)
    stretch_end: Ints  # (S,)
    closed_first: Indices  # (M + 1,)
    closed_start: Ints  # (W,)
    closed_end: Ints  # (W,)
    past_makespan: int
    past_tardiness: int


def frame_of(shop: Shop) -> Frame:
    """The frame of `shop`; what it has beyond, a frame says nothing of."""
    of_op = np.repeat(np.arange(shop.operations, dtype=np.int32), np.diff(shop.alt_first))
    ready = np.zeros(len(of_op), np.int64)
    job = shop.op_job[of_op]
    first = shop.job_first[job] == of_op
    ready[first] = shop.job_ready[job[first]]
    carried = first & (shop.job_at[job] >= 0)
    lag = np.maximum(
        shop.wait_min[of_op[carried]], shop.transport[shop.job_at[job[carried]], shop.alt_machine[carried]]
    )
    ready[carried] = np.maximum(ready[carried], shop.job_left[job[carried]] + lag)
    there = np.diff(shop.closed_first) > 0
    there |= np.diff(shop.stretch_first) > 1
    there |= shop.stretch_ready[shop.stretch_first[:-1]] > 0
    return Frame(
        job_first=shop.job_first,
        op_job=shop.op_job,
        job_lot=shop.job_lot,
        lot_due=shop.lot_due,
        lot_past=shop.lot_past,
        alt_first=shop.alt_first,
        alt_machine=shop.alt_machine,
        alt_ticks=shop.alt_ticks,
        alt_load=shop.alt_ticks * shop.size[of_op] / shop.batch[shop.alt_machine],
        alt_ready=ready,
        wait=shop.wait_min,
        transport=shop.transport,
        lags=bool(shop.wait_min.any() or shop.transport.any()),
        calendar=there,
        stretch_first=shop.stretch_first,
        stretch_ready=shop.stretch_ready,
        stretch_end=shop.stretch_end,
        closed_first=shop.closed_first,
        closed_start=shop.closed_start,
        closed_end=shop.closed_end,
        past_makespan=int(shop.past_makespan),
        past_tardiness=int(shop.past_tardiness),
    )


@compiled
def opening(frame: Frame, m: int, ready: int, ticks: int) -> int:
    """The earliest start from `ready` on of `ticks` of work on machine `m`; of no work, `ready`."""
    if ticks == 0 or not frame.calendar[m]:
        return ready
    for s in range(frame.stretch_first[m], frame.stretch_first[m + 1]):
        begin: int = max(ready, frame.stretch_ready[s])
        for w in range(frame.closed_first[m], frame.closed_first[m + 1]):
            if begin < frame.closed_end[w] and frame.closed_start[w] < begin + ticks:
                begin = frame.closed_end[w]
        if begin + ticks <= frame.stretch_end[s]:
            return begin
    return FAR  # never: the last stretch is open


@compiled
def lag(frame: Frame, o: int, before: int, after: int) -> int:
    """Least ticks from the end of the operation before `o`, on machine `before`, to the start of `o` on `after`."""
    ticks: int = max(frame.wait[o], frame.transport[before, after])
    return ticks
