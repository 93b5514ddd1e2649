"""Dispatching rules, compiled: the next operation is chosen by a rule and placed behind what stands there already.

    faults = dispatch(shop, scratch, FIFO, choice, order_out, machine_out, start_out)

FIFO takes the operation that has waited longest; the other rules take, of those that could begin next, the one of
least rank. One heap of jobs by the earliest they could begin, which only ever gets later; then by rank.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.decode import place_chain, soonest
from cloud.scheduling.place import best, clear
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import FAR, Floats, Indices, Ints, Shop
from cloud.scheduling.sorting import sort_by

FIFO, SPT, LPT, MWKR, LWKR, EDD, SLACK = range(7)
PLACES, LATEST = 22, 2**40
"""Bits of a place in the order of a rule: 4 million operations; the latest tick that a heap can tell from others."""


@compiled
def dispatch(
    shop: Shop,
    scratch: Scratch,
    rule: int,
    choice: Indices,
    order_out: Indices,
    machine_out: Indices,
    start_out: Ints,
) -> int:
    """The plan of `rule`, each operation on its `choice` (-1: earliest completion); `order_out` decodes to the same.

    returns  how many faults, as `decode` counts them
    """
    jobs, operations = len(shop.job_ready), len(shop.op_job)
    job_first, following, begin, end, on = shop.job_first, scratch.job_next, scratch.begin, scratch.end, scratch.on
    place, taken = _places(shop, scratch, rule)  # of each operation in the order of the rule, and back
    heap = np.empty(jobs, np.int64)  # (tick, place) of each job's next operation
    clear(shop, scratch)
    for m in range(len(scratch.free)):
        scratch.free[m] = shop.stretch_ready[shop.stretch_first[m]]
    size = jobs
    for j in range(jobs):
        heap[j] = _key(shop.job_ready[j], place[job_first[j]])
        _lift(heap, j)
    placed, faults = 0, 0
    while size:
        at = heap[0] >> PLACES
        j = shop.op_job[taken[heap[0] & (2**PLACES - 1)]]
        o = job_first[j] + following[j]
        last = o
        if scratch.plain:
            now = shop.job_ready[j] if following[j] == 0 else end[o - 1]
            a = soonest(shop.alt_first, shop.alt_machine, shop.alt_ticks, shop.alt_kw, scratch.free, o, choice[o], now)
            m, ticks = shop.alt_machine[a], shop.alt_ticks[a]
            start = max(now, scratch.free[m]) if ticks else now
        else:
            start = best(shop, scratch, o, choice[o], False)[1]
        if rule != FIFO and start > at:
            heap[0] = _key(start, place[o])  # it only ever gets later: right when it comes first again
            _sink(heap, size)
            continue
        if scratch.plain:
            on[o], begin[o], end[o] = m, start, start + ticks
            if ticks:
                scratch.free[m] = end[o]
        else:
            while last + 1 < job_first[j + 1] and shop.wait_max[last + 1] < FAR:
                last += 1
            faults += place_chain(shop, scratch, o, last, choice, False)
        while o <= last:
            order_out[placed] = j
            placed += 1
            o += 1
        following[j] = o - job_first[j]
        if o < job_first[j + 1]:
            heap[0] = _key(end[last], place[o])
        else:
            size -= 1
            heap[0] = heap[size]
        _sink(heap, size)
    for o in range(operations):
        machine_out[o], start_out[o] = on[o], begin[o]
        faults += end[o] > shop.horizon
    return faults


@compiled
def _key(tick: int, place: int) -> int:
    return (min(tick, LATEST) << PLACES) | place


@compiled
def _places(shop: Shop, scratch: Scratch, rule: int) -> tuple[Indices, Indices]:
    """(O,) place of each operation in the order of the rule, and the operation at each place."""
    operations = len(shop.op_job)
    taken, place = np.empty(operations, np.int32), np.empty(operations, np.int32)
    for o in range(operations):
        taken[o] = o
    if rule != FIFO:
        sort_by(_ranks(shop, rule), taken, 0, operations, scratch.spare)
    for i in range(operations):
        place[taken[i]] = i
    return place, taken


@compiled
def _ranks(shop: Shop, rule: int) -> Floats:
    """(O,) what the rule takes least of."""
    rank = np.zeros(len(shop.op_job))
    for j in range(len(shop.job_ready)):
        left = 0.0
        for o in range(shop.job_first[j + 1] - 1, shop.job_first[j] - 1, -1):
            ticks = 0
            for a in range(shop.alt_first[o], shop.alt_first[o + 1]):
                ticks += shop.alt_ticks[a]
            work = ticks / (shop.alt_first[o + 1] - shop.alt_first[o])
            left += work
            due = float(shop.job_due[j])
            if rule == SPT:
                rank[o] = work
            elif rule == LPT:
                rank[o] = -work
            elif rule == MWKR:
                rank[o] = -left
            elif rule == LWKR:
                rank[o] = left
            elif rule == EDD:
                rank[o] = due
            else:
                rank[o] = due - left
    return rank


@compiled
def _lift(heap: Ints, i: int) -> None:
    """Move entry `i` up to where it belongs."""
    key = heap[i]
    while i > 0 and key < heap[(i - 1) // 2]:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    heap[i] = key


@compiled
def _sink(heap: Ints, size: int) -> None:
    """Move the first entry down to where it belongs."""
    key, i = heap[0], 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if key <= heap[child]:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = key
