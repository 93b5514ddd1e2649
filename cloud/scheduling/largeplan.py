"""A plan of a large shop as queues of machines, compiled: every start exactly, and operations moved.

    search = laid(frame, alt, start, tardy=False, seed=1)
    forward(frame, search)      starts, as early as queues, jobs and calendars allow; the cost, -1: a circle
    backward(frame, search)     what follows each operation
    take(search, m, o)          out of the queue of machine m
    put(search, n, o, k)        into that of machine n, at place k

Each pass goes once over all operations in an order that puts everything behind what it waits for: 10,000 take about
0.15 ms forward and 0.1 ms backward.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.scheduling.arrays import paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.frame import Frame, lag, opening
from cloud.scheduling.shop import FAR, Indices, Ints

COST, BEST, MOVES, REFUSED, SINCE = range(5)
"""Columns of `told`: value now, the best, moves made, circles met, moves since the best."""


class Search(NamedTuple):
    """A plan and what is known of it; the search writes to it. About 170 bytes per operation, 12 per alternative."""

    alt: Indices  # (O,)
    first: Ints  # (M + 1,) where the queue of a machine begins
    length: Ints  # (M,) of its queue
    queue: Indices  # (A,) operations with work, machine by machine, in order
    place: Ints  # (O,) in its queue, -1: has no work
    head: Ints  # (O,) start
    tail: Ints  # (O,) from its end to the end of all that waits for it
    job_head: Ints  # (O,) when its job lets it begin
    job_tail: Ints  # (O,) what its job asks after it
    order: Indices  # (O,) everything behind what it waits for
    missing: Indices  # (O,)
    tabu: Ints  # (A,) until this move
    path: Indices  # (O,)
    kept: Ints  # (2, O) head and job_head before a move that may be taken back
    best_alt: Indices  # (O,)
    best_start: Ints  # (O,)
    told: Ints  # (5,)
    dice: Ints  # (1,)
    tardy: bool


def laid(frame: Frame, alt: Indices, start: Ints, *, tardy: bool, seed: int) -> Search:
    """A search from this plan; queues in the order of its starts."""
    operations = len(alt)
    first = np.zeros(len(frame.calendar) + 1, np.int64)
    np.cumsum(np.bincount(frame.alt_machine, minlength=len(frame.calendar)), out=first[1:])
    search = Search(
        alt=alt.copy(),
        first=first,
        length=np.zeros(len(frame.calendar), np.int64),
        queue=np.zeros(len(frame.alt_machine), np.int32),
        place=np.full(operations, -1, np.int64),
        head=start.copy(),
        tail=np.zeros(operations, np.int64),
        job_head=np.zeros(operations, np.int64),
        job_tail=np.zeros(operations, np.int64),
        order=np.zeros(operations, np.int32),
        missing=np.zeros(operations, np.int32),
        tabu=np.zeros(len(frame.alt_machine), np.int64),
        path=np.zeros(operations, np.int32),
        kept=np.zeros((2, operations), np.int64),
        best_alt=alt.copy(),
        best_start=start.copy(),
        told=np.zeros(5, np.int64),
        dice=np.array([seed], np.int64),
        tardy=tardy,
    )
    _line_up(frame, search, np.argsort(start, kind="stable"))
    return search


@compiled
def _line_up(frame: Frame, search: Search, order: Ints) -> None:
    for o in order:
        if frame.alt_ticks[search.alt[o]] > 0:
            m = frame.alt_machine[search.alt[o]]
            search.place[o] = search.length[m]
            search.queue[search.first[m] + search.length[m]] = o
            search.length[m] += 1
    search.told[COST] = forward(frame, search)
    search.told[BEST] = search.told[COST]
    paste(search.head, search.best_start)
    backward(frame, search)


@compiled
def forward(frame: Frame, search: Search) -> int:
    """Every start, as early as it can be, and what the plan costs; -1: somebody waits for himself."""
    alt, head, order, missing, place, queue = (
        search.alt,
        search.head,
        search.order,
        search.missing,
        search.place,
        search.queue,
    )
    operations = len(alt)
    found = 0
    for j in range(len(frame.job_first) - 1):
        begin = frame.job_first[j]
        for o in range(begin, frame.job_first[j + 1]):
            missing[o] = (o > begin) + (place[o] > 0)
        if missing[begin] == 0:
            order[found] = begin
            found += 1
    i = 0
    while i < found:
        o = order[i]
        i += 1
        a = alt[o]
        j, m, ticks, k = frame.op_job[o], frame.alt_machine[a], frame.alt_ticks[a], place[o]
        if o == frame.job_first[j]:
            ready = frame.alt_ready[a]
        else:
            ready = head[o - 1] + frame.alt_ticks[alt[o - 1]]
            if frame.lags:
                ready += lag(frame, o, frame.alt_machine[alt[o - 1]], m)
        search.job_head[o] = ready
        if k > 0:
            x = queue[search.first[m] + k - 1]
            ready = max(ready, head[x] + frame.alt_ticks[alt[x]])
        head[o] = opening(frame, m, ready, ticks) if frame.calendar[m] else ready
        if o + 1 < frame.job_first[j + 1]:
            missing[o + 1] -= 1
            if missing[o + 1] == 0:
                order[found] = o + 1
                found += 1
        if k >= 0 and k + 1 < search.length[m]:
            x = queue[search.first[m] + k + 1]
            missing[x] -= 1
            if missing[x] == 0:
                order[found] = x
                found += 1
    return cost_of(frame, search) if found == operations else -1


@compiled
def cost_of(frame: Frame, search: Search) -> int:
    """What is to be less: the makespan, or the tardiness."""
    most = frame.past_makespan
    if not search.tardy:
        for j in range(len(frame.job_first) - 1):
            o = frame.job_first[j + 1] - 1
            most = max(most, search.head[o] + frame.alt_ticks[search.alt[o]])
        return most
    late = frame.past_tardiness
    last = frame.lot_past.copy()
    for j in range(len(frame.job_first) - 1):
        o = frame.job_first[j + 1] - 1
        lot = frame.job_lot[j]
        last[lot] = max(last[lot], search.head[o] + frame.alt_ticks[search.alt[o]])
    for lot in range(len(last)):
        if frame.lot_due[lot] < FAR:
            late += max(0, last[lot] - frame.lot_due[lot])
    return late


@compiled
def backward(frame: Frame, search: Search) -> None:
    """Every tail; calendars are left out of it."""
    alt, tail, place, queue = search.alt, search.tail, search.place, search.queue
    for i in range(len(alt) - 1, -1, -1):
        o = search.order[i]
        a = alt[o]
        m, k = frame.alt_machine[a], place[o]
        after = 0
        if o + 1 < frame.job_first[frame.op_job[o] + 1]:
            after = tail[o + 1] + frame.alt_ticks[alt[o + 1]]
            if frame.lags:
                after += lag(frame, o + 1, m, frame.alt_machine[alt[o + 1]])
        search.job_tail[o] = after
        if k >= 0 and k + 1 < search.length[m]:
            x = queue[search.first[m] + k + 1]
            after = max(after, tail[x] + frame.alt_ticks[alt[x]])
        tail[o] = after


@compiled
def take(search: Search, m: int, o: int) -> int:
    """Out of its queue; where it stood, -1: nowhere."""
    k: int = search.place[o]
    if k < 0:
        return k
    search.length[m] -= 1
    for i in range(search.first[m] + k, search.first[m] + search.length[m]):
        x = search.queue[i + 1]
        search.queue[i] = x
        search.place[x] -= 1
    search.place[o] = -1
    return k


@compiled
def put(search: Search, m: int, o: int, k: int) -> None:
    """Into the queue of machine `m` at place `k`, -1: nowhere."""
    if k < 0:
        return
    begin = search.first[m]
    for i in range(begin + search.length[m], begin + k, -1):
        x = search.queue[i - 1]
        search.queue[i] = x
        search.place[x] += 1
    search.queue[begin + k] = o
    search.place[o] = k
    search.length[m] += 1
