"""Local search in a large shop, compiled: cheap estimates choose, one exact pass judges each move.

    search = laid(frame, alt, start, tardy=False, seed=1)      cloud.scheduling.largeplan
    walk(frame, search, moves, floor)          makespan: tabu search; search.told has the values
    drift(frame, search, moves, floor, heat)   tardiness: annealing

A plan is a queue per machine; every operation starts as early as its queue, its job and the calendars allow. One move
of `walk` goes one critical path back from its end and tries each operation v on it on each of its machines, behind
everything there that ends before v can begin and before everything whose tail is shorter than v's, and in between
(Mastrolilli and Gambardella 2000), at most `REACH` places on; on its own machine only out of its block. Heads and tails
are those of the plan as it is, so a value is an estimate; the best goes, unless it is tabu and promises no record. A
move that would close a circle is found by the exact pass and taken back. One move of `drift` puts any operation on the
path of a late order, the later the likelier, to a place where it begins earlier. Time per move grows with the
operations: 10,000 take about 0.8 ms and 0.4 ms.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.arrays import fill, paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.frame import Frame, lag
from cloud.scheduling.largekernel import roll
from cloud.scheduling.largeplan import BEST, COST, MOVES, REFUSED, SINCE, Search, backward, forward, put, take
from cloud.scheduling.shop import FAR

REACH = 8
"""Places of a queue that are tried around the best one."""
TENURE = 10
"""Least moves for which an operation does not come back to a machine; up to the length of the path more."""


@compiled
def _last_of_all(frame: Frame, search: Search) -> int:
    """The last operation of a job that ends last, or of an order that is late; any of them, by chance; -1: none."""
    chosen, seen = -1, 0
    for j in range(len(frame.job_first) - 1):
        o = frame.job_first[j + 1] - 1
        end = search.head[o] + frame.alt_ticks[search.alt[o]]
        weight = 1 if end == search.told[COST] else 0
        if search.tardy:
            due = frame.lot_due[frame.job_lot[j]]
            weight = int(max(0, end - due)) if due < FAR else 0
        if weight > 0:
            seen += weight
            if roll(search.dice, seen) < weight:
                chosen = o
    return chosen


@compiled
def _walk_back(frame: Frame, search: Search) -> int:
    """What holds the end up, one of the chains if there are several, into `path`; its length."""
    o = _last_of_all(frame, search)
    length = 0
    while o >= 0:
        search.path[length] = o
        length += 1
        m, k = frame.alt_machine[search.alt[o]], search.place[o]
        by_job = search.job_head[o]
        by_queue, x = -1, -1
        if k > 0:
            x = search.queue[search.first[m] + k - 1]
            by_queue = search.head[x] + frame.alt_ticks[search.alt[x]]
        if by_queue > by_job or (by_queue == by_job and roll(search.dice, 2) == 0):
            o = x
        elif frame.job_first[frame.op_job[o]] < o:
            o -= 1
        elif by_queue == by_job:
            o = x
        else:
            o = -1
    return length


@compiled
def _ways(frame: Frame, search: Search, v: int, b: int) -> tuple[int, int]:
    """(when its job lets `v` begin on alternative `b`, what its job asks after it there)."""
    if not frame.lags or b == search.alt[v]:
        ready = search.job_head[v] if v > frame.job_first[frame.op_job[v]] else frame.alt_ready[b]
        return ready, search.job_tail[v]
    m = frame.alt_machine[b]
    ready, after = frame.alt_ready[b], 0
    if v > frame.job_first[frame.op_job[v]]:
        c = search.alt[v - 1]
        ready = search.head[v - 1] + frame.alt_ticks[c] + lag(frame, v, frame.alt_machine[c], m)
    if v + 1 < frame.job_first[frame.op_job[v] + 1]:
        c = search.alt[v + 1]
        after = search.tail[v + 1] + frame.alt_ticks[c] + lag(frame, v + 1, m, frame.alt_machine[c])
    return ready, after


@compiled
def _interval(frame: Frame, search: Search, m: int, ready: int, after: int) -> tuple[int, int]:
    """Places of the queue outside of which none is better: from the first to the last, both included."""
    begin = search.first[m]
    low, high = 0, search.length[m]
    while low < high:
        middle = (low + high) >> 1
        x = search.queue[begin + middle]
        if search.head[x] + frame.alt_ticks[search.alt[x]] > ready:
            high = middle
        else:
            low = middle + 1
    first = low
    low, high = first, search.length[m]
    while low < high:
        middle = (low + high) >> 1
        x = search.queue[begin + middle]
        if search.tail[x] + frame.alt_ticks[search.alt[x]] <= after:
            high = middle
        else:
            low = middle + 1
    return first, low


@compiled
def _elsewhere(frame: Frame, search: Search, m: int, k: int, ready: int, ticks: int, after: int) -> int:
    """The path through an operation put at place `k` of a queue that it does not stand in."""
    begin = search.first[m]
    if k > 0:
        x = search.queue[begin + k - 1]
        ready = max(ready, search.head[x] + frame.alt_ticks[search.alt[x]])
    if k < search.length[m]:
        x = search.queue[begin + k]
        after = max(after, search.tail[x] + frame.alt_ticks[search.alt[x]])
    return ready + ticks + after


@compiled
def _earlier(frame: Frame, search: Search, m: int, v: int, k: int, ready: int, after: int, most: int) -> int:
    """The longest path through an operation moved forward to place `k`, and those it passes; cut off at `most`."""
    begin, at = search.first[m], search.place[v]
    end = ready
    if k > 0:
        x = search.queue[begin + k - 1]
        end = max(end, search.head[x] + frame.alt_ticks[search.alt[x]])
    end += frame.alt_ticks[search.alt[v]]
    worst: int = end + after
    for i in range(begin + k, begin + at):
        x = search.queue[i]
        end = max(end, search.job_head[x]) + frame.alt_ticks[search.alt[x]]
        worst = max(worst, end + search.job_tail[x])
        if worst >= most:
            return worst
    if at + 1 < search.length[m]:
        x = search.queue[begin + at + 1]
        worst = max(worst, end + search.tail[x] + frame.alt_ticks[search.alt[x]])
    return worst


@compiled
def _later(frame: Frame, search: Search, m: int, v: int, k: int, ready: int, after: int, most: int) -> int:
    """The same moved back, before what stands at place `k`."""
    begin, at = search.first[m], search.place[v]
    end, worst = 0, 0
    if at > 0:
        x = search.queue[begin + at - 1]
        end = search.head[x] + frame.alt_ticks[search.alt[x]]
    for i in range(begin + at + 1, begin + k):
        x = search.queue[i]
        end = max(end, search.job_head[x]) + frame.alt_ticks[search.alt[x]]
        worst = max(worst, end + search.job_tail[x])
        if worst >= most:
            return most
    if k < search.length[m]:
        x = search.queue[begin + k]
        after = max(after, search.tail[x] + frame.alt_ticks[search.alt[x]])
    whole: int = max(worst, max(end, ready) + frame.alt_ticks[search.alt[v]] + after)
    return whole


@compiled
def _choose(frame: Frame, search: Search, length: int) -> tuple[int, int, int]:
    """(operation, alternative, place) of the best move for this path, -1: all are tabu."""
    move, best, ties = (-1, -1, -1), FAR, 0
    upto = -1  # the path to here is one block: neighbours in one queue
    bottom, top = 0, 0  # first and last place of the block
    for i in range(length):
        v = search.path[i]
        here = search.place[v]
        if i > upto:
            upto, top = _block(frame, search, i, length), here
            bottom = search.place[search.path[upto]]
        for b in range(frame.alt_first[v], frame.alt_first[v + 1]):
            m, ticks = frame.alt_machine[b], frame.alt_ticks[b]
            own = b == search.alt[v]
            ready, after = _ways(frame, search, v, b)
            if ready + ticks + after > best or (own and here < 0):
                continue
            record = search.told[BEST] if search.tabu[b] > search.told[MOVES] else FAR
            first, last = -1, -1
            if ticks > 0:
                first, last = _interval(frame, search, m, ready, after)
                last = min(last, first + REACH)
            k = first - 1
            while k < last:
                k += 1
                if ticks == 0:
                    value = ready + after
                elif not own:
                    value = _elsewhere(frame, search, m, k, ready, ticks, after)
                elif k <= bottom and k < here:
                    value = _earlier(frame, search, m, v, k, ready, after, best + 1)
                elif k > top and k > here + 1:
                    value = _later(frame, search, m, v, k, ready, after, best + 1)
                else:
                    k = max(k, top)  # within its block it changes nothing
                    continue
                if value > best or value >= record:
                    continue
                ties = ties + 1 if value == best else 1
                best = value
                if roll(search.dice, ties) == 0:
                    move = (v, b, k)
    return move


@compiled
def _block(frame: Frame, search: Search, i: int, length: int) -> int:
    """The last of the path from `i` on that stands in one queue without holes."""
    m = frame.alt_machine[search.alt[search.path[i]]]
    while i + 1 < length:
        here, before = search.path[i], search.path[i + 1]
        same = frame.alt_machine[search.alt[before]] == m and search.place[before] >= 0
        if not same or search.place[before] != search.place[here] - 1:
            return i
        i += 1
    return i


@compiled
def walk(frame: Frame, search: Search, moves: int, floor: int) -> None:
    """So many moves; less when nothing below `floor` is possible and it is reached."""
    told = search.told
    for _ in range(moves):
        if told[BEST] <= floor:
            return
        told[MOVES] += 1
        told[SINCE] += 1
        length = _walk_back(frame, search)
        v, b, k = _choose(frame, search, length)
        if v < 0:
            fill(search.tabu, 0)
            continue
        a = search.alt[v]
        m, n = frame.alt_machine[a], frame.alt_machine[b]
        at = take(search, m, v)
        if a == b and k > at:
            k -= 1
        put(search, n, v, k)
        search.alt[v] = b
        cost = forward(frame, search)
        if cost < 0:
            take(search, n, v)
            put(search, m, v, at)
            search.alt[v] = a
            forward(frame, search)
            search.tabu[b] = told[MOVES] + 2 * TENURE
            told[REFUSED] += 1
            continue
        search.tabu[a] = told[MOVES] + TENURE + roll(search.dice, length)
        told[COST] = cost
        backward(frame, search)
        if cost < told[BEST]:
            told[BEST] = cost
            told[SINCE] = 0
            paste(search.alt, search.best_alt)
            paste(search.head, search.best_start)


@compiled
def drift(frame: Frame, search: Search, moves: int, floor: int, heat: float) -> None:
    """So many moves against tardiness; one that costs x ticks more is kept with probability exp(-x / heat)."""
    told = search.told
    for _ in range(moves):
        if told[BEST] <= floor:
            return
        told[MOVES] += 1
        told[SINCE] += 1
        length = _walk_back(frame, search)
        if length == 0:
            return
        v = search.path[roll(search.dice, length)]
        a = search.alt[v]
        b = frame.alt_first[v] + roll(search.dice, frame.alt_first[v + 1] - frame.alt_first[v])
        m, n = frame.alt_machine[a], frame.alt_machine[b]
        ready, after = _ways(frame, search, v, b)
        k = -1
        if frame.alt_ticks[b] > 0:
            k = _interval(frame, search, n, ready, after)[0] + roll(search.dice, 3)
            k = min(k, search.place[v] - 1 if a == b else search.length[n])
        if k < 0 and (a == b or frame.alt_ticks[b] > 0):
            continue
        search.kept[0] = search.head
        search.kept[1] = search.job_head
        at = take(search, m, v)
        put(search, n, v, k)
        search.alt[v] = b
        cost = forward(frame, search)
        worse = cost - told[COST]
        if cost < 0 or (worse > 0 and roll(search.dice, 1 << 30) >= np.exp(-worse / heat) * (1 << 30)):
            take(search, n, v)
            put(search, m, v, at)
            search.alt[v] = a
            paste(search.kept[0], search.head)
            paste(search.kept[1], search.job_head)
            told[REFUSED] += cost < 0
            continue
        told[COST] = cost
        if cost < told[BEST]:
            told[BEST] = cost
            told[SINCE] = 0
            paste(search.alt, search.best_alt)
            paste(search.head, search.best_start)
