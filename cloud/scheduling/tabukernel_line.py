"""A plan laid out for tabu search, compiled: when what begins and ends, what is critical, what is left without one.

longest = settle(net, line)                   # heads, tails, queues of (line.choice, line.order)
length = critical_path(line, longest)         # one of them, into line.path
lag, lag_behind = take_out(net, line, i)      # and heads and tails around the place i that is left:
low, high = cut(line, i, longest)
put_back(net, line, i, lag, lag_behind)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import Indices, Ints
from cloud.scheduling.tabunet import Line, Net, Seeds

F = TypeVar("F", bound=Callable[..., Any])


def inlined(function: F) -> F:
    """Compiled into its callers: to hand over a net and a line costs as much as the little that these do."""
    return cast(F, numba.njit(cache=True, nogil=True, inline="always")(function))


@compiled
def draw(seed: Seeds, below: int) -> int:
    """A number from 0 to below - 1."""
    x = seed[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    seed[0] = x
    return int(np.int64(((x >> np.uint64(33)) * np.uint64(below)) >> np.uint64(31)))


@compiled
def job_lag(net: Net, machine_before: int, o: int, machine: int) -> int:
    """Ticks between an operation and its predecessor in the job."""
    return int(max(net.wait[o], net.transport[machine_before, machine]))


@compiled
def machine_lag(net: Net, machine: int, before: int, o: int) -> int:
    """Ticks of set-up for o behind `before` on a machine; nobody: its earliest start as the first there."""
    table = net.setup_table[machine]
    if table < 0:
        return 0
    if before == len(net.before) - 1:
        return int(net.setup_ready[machine] + net.setup[table, net.first_family[machine], net.family[o]])
    return int(net.setup[table, net.family[before], net.family[o]])


@compiled
def forward(net: Net, line: Line) -> int:
    """Neighbours and heads."""
    count = len(line.order)
    line.queued[:] = 0
    line.last[:] = count
    line.js[:] = count
    line.ms[:] = count
    longest, most = 0, 0
    for i in range(count):
        o = line.order[i]
        line.place[o] = i
        a = line.choice[o]
        m = net.alt_machine[a]
        ticks = net.alt_ticks[a]
        line.machine[i], line.ticks[i], line.ready[i] = m, ticks, net.alt_ready[a]
        j = line.place[net.before[o]]
        line.jp[i] = j
        head = net.alt_ready[a]
        lag = 0
        if j != count:
            line.js[j] = i
            if net.lags:
                lag = job_lag(net, line.machine[j], o, m)
            head = max(head, line.end[j] + lag)
        line.jl[i] = lag
        lag = 0
        p = count
        line.slot[i] = -1
        if ticks > 0:
            p = line.last[m]
            line.last[m] = i
            if net.setups:
                lag = machine_lag(net, m, line.order[p] if p != count else count, o)
            if p != count:
                line.ms[p] = i
            head = max(head, line.end[p] + lag)
            line.slot[i] = line.queued[m]
            line.queue[net.room[m] + line.queued[m]] = i
            line.queued[m] += 1
        line.mp[i] = p
        line.ml[i] = lag
        line.end[i] = head + ticks
        longest = max(longest, int(head + ticks))
        most = max(most, int(ticks))
    line.most[0] = most
    return longest


@compiled
def by_start(line: Line) -> bool:
    """Sort `order` by start, by insertion: it nearly is. Equal starts stay: the one before may be of no length, and a
    predecessor. Whether anything changed."""
    changed = False
    start, order = line.due, line.order
    start[0] = line.end[0] - line.ticks[0]
    for i in range(1, len(order)):
        own, o, k = line.end[i] - line.ticks[i], order[i], i
        while k > 0 and start[k - 1] > own:
            start[k] = start[k - 1]
            order[k] = order[k - 1]
            k -= 1
        start[k] = own
        if k != i:
            order[k] = o
            changed = True
    return changed


@compiled
def settle(net: Net, line: Line) -> int:
    """Lay out (choice, order), bring `order` into the order of starts: neighbours, heads, tails. The makespan."""
    longest = forward(net, line)
    if by_start(line):
        longest = forward(net, line)
    for i in range(len(line.order) - 1, -1, -1):
        j, p = line.js[i], line.ms[i]
        line.due[i] = line.ticks[i] + max(line.due[j] + line.jl[j], line.due[p] + line.ml[p])
    line.end_cut[:] = line.end
    line.due_cut[:] = line.due
    return longest


@compiled
def way_to(line: Line, at: int) -> int:
    """Places of one path that lets place `at` end when it does, ties by chance, last first into `path`; how many."""
    count = len(line.order)
    length = 0
    while at != count:
        line.path[length] = at
        length += 1
        start = line.end[at] - line.ticks[at]
        j, p = line.jp[at], line.mp[at]
        by_job = j != count and line.end[j] + line.jl[at] == start
        by_machine = p != count and line.end[p] + line.ml[at] == start
        if by_job and by_machine:
            at = j if draw(line.seed, 2) == 0 else p
        elif by_job:
            at = j
        elif by_machine:
            at = p
        else:
            at = count
    return length


@compiled
def critical_path(line: Line, longest: int) -> int:
    """Places of one critical path, chosen at random, last first into `path`; how many."""
    count = len(line.order)
    ends = 0
    at = 0
    for i in range(count):
        if line.end[i] == longest:
            ends += 1
            if draw(line.seed, ends) == 0:
                at = i
    return way_to(line, at)


@inlined
def take_out(net: Net, line: Line, i: int) -> tuple[int, int]:
    """Take place i off its machine and let its job pass it in no time; (its lag, the lag of who follows in the job)."""
    count = len(line.order)
    a, b, behind = line.mp[i], line.ms[i], line.js[i]
    lags = line.jl[i], line.jl[behind]
    line.ms[a] = b
    line.mp[b] = a
    if net.setups and b != count:
        line.ml[b] = machine_lag(net, line.machine[b], line.order[a] if a != count else count, line.order[b])
    line.jl[behind] = 0
    line.jl[i] = 0
    return lags


@inlined
def put_back(net: Net, line: Line, i: int, lag: int, lag_behind: int) -> None:
    """Undo `take_out`."""
    count = len(line.order)
    a, b = line.mp[i], line.ms[i]
    line.ms[a] = i
    line.mp[b] = i
    line.ms[count] = count
    line.mp[count] = count
    if net.setups and b != count:
        line.ml[b] = machine_lag(net, line.machine[b], line.order[i], line.order[b])
    line.jl[i] = lag
    line.jl[line.js[i]] = lag_behind


@inlined
def cut(line: Line, i: int, longest: int) -> tuple[int, int]:
    """Heads and tails around place i, taken out, as far as they can matter; (first, last) place that changed.

    After i only what may be in R: due > tail(i), so it starts before longest - tail(i). Before i only what may be in L:
    end > head(i). Whoever is not computed is outside of R or L all the same.
    """
    count = len(line.order)
    before, behind = line.jp[i], line.js[i]
    head = line.end[before] if before != count else line.ready[i]
    tail = line.due[behind]
    line.end_cut[i] = head
    line.due_cut[i] = tail
    last = i
    until = longest - tail
    while last + 1 < count and line.end[last + 1] - line.ticks[last + 1] < until:
        last += 1
        line.end_cut[last] = line.ticks[last] + max(
            line.ready[last],
            max(line.end_cut[line.jp[last]] + line.jl[last], line.end_cut[line.mp[last]] + line.ml[last]),
        )
    first = i
    since = head - line.most[0]
    while first > 0 and line.end[first - 1] - line.ticks[first - 1] > since:
        first -= 1
        if line.end[first] > head:
            j, p = line.js[first], line.ms[first]
            line.due_cut[first] = line.ticks[first] + max(line.due_cut[j] + line.jl[j], line.due_cut[p] + line.ml[p])
    return first, last


@compiled
def last_end(line: Line, i: int) -> int:
    """When everything ends with place i taken out, it being nobody."""
    longest = 0
    for x in range(i):
        longest = max(longest, int(line.end[x]))
    line.whole[: i + 1] = line.end[: i + 1]
    before = line.jp[i]
    line.whole[i] = line.end[before] if before != len(line.order) else line.ready[i]
    for x in range(i + 1, len(line.order)):
        end = line.ticks[x] + max(
            line.ready[x], max(line.whole[line.jp[x]] + line.jl[x], line.whole[line.mp[x]] + line.ml[x])
        )
        line.whole[x] = end
        longest = max(longest, int(end))
    return longest


@compiled
def queue_at(queue: Indices, room: int, own: int, k: int) -> int:
    """Place of the k-th operation in the queue that begins at `room`, the one at slot `own` left out."""
    return int(queue[room + (k if k < own else k + 1)])


@compiled
def first_in_l(queue: Indices, room: int, own: int, length: int, end: Ints, head: int) -> int:
    """Slot of the first operation that ends after `head`; `length` if none does."""
    low, high = 0, length
    while low < high:
        mid = (low + high) >> 1
        if end[queue_at(queue, room, own, mid)] > head:
            high = mid
        else:
            low = mid + 1
    return low


@compiled
def behind_r(queue: Indices, room: int, own: int, length: int, due: Ints, tail: int) -> int:
    """Slot behind the last operation with more than `tail` from its start to the end of everything."""
    low, high = 0, length
    while low < high:
        mid = (low + high) >> 1
        if due[queue_at(queue, room, own, mid)] > tail:
            low = mid + 1
        else:
            high = mid
    return low
