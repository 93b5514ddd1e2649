"""Tabu search on the critical path of a flexible job shop, compiled: one move per iteration, each judged exactly.

A plan is `choice` (the alternative of each operation) and `order` (all operations, each behind its predecessors of job
and machine); every operation starts as early as these allow. One iteration walks one critical path. Each operation v
on it is taken out; heads and tails of what remains are computed, and v is tried on each of its machines k within the
interval of Mastrolilli and Gambardella (2000), which holds a best place: behind all of R - L and before all of L - R,

    L = {x on k: head(x) + ticks(x) > head(v)}        R = {x on k: tail(x) + ticks(x) > tail(v)}.

Heads before v and tails behind v do not depend on v, so head + ticks + tail is the longest path through v as it will
be, not an estimate. (With set-ups it is an upper bound, and the interval need not hold the best.) The best move that is
not tabu is made, or one to a better plan than the best. Having left an alternative, v may not come back for a while.

Dimensions: O operations, A alternatives, M machines. Arrays of `Line` go by place in `order`; place O is nobody: it
ends at 0 and nothing follows from it. Time per iteration: operations on the path times O.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import FAR, Indices
from cloud.scheduling.tabunet import Line, Net


@compiled
def draw(line: Line, below: int) -> int:
    """A number from 0 to below - 1."""
    x = line.seed[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    line.seed[0] = x
    return int((x >> np.uint64(33)) % np.uint64(below))


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
def settle(net: Net, line: Line) -> int:
    """Lay out (choice, order): neighbours, heads, tails. The makespan."""
    count = len(line.order)
    line.queued[:] = 0
    line.last[:] = count
    line.js[:] = count
    line.ms[:] = count
    longest = 0
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
    for i in range(count - 1, -1, -1):
        j, p = line.js[i], line.ms[i]
        line.due[i] = line.ticks[i] + max(line.due[j] + line.jl[j], line.due[p] + line.ml[p])
    return longest


@compiled
def critical_path(line: Line, longest: int) -> int:
    """Places of one critical path, chosen at random, last first into `path`; how many."""
    count = len(line.order)
    ends = 0
    at = 0
    for i in range(count):
        if line.end[i] == longest:
            ends += 1
            if draw(line, ends) == 0:
                at = i
    length = 0
    while at != count:
        line.path[length] = at
        length += 1
        start = line.end[at] - line.ticks[at]
        j, p = line.jp[at], line.mp[at]
        by_job = j != count and line.end[j] + line.jl[at] == start
        by_machine = p != count and line.end[p] + line.ml[at] == start
        if by_job and by_machine:
            at = j if draw(line, 2) == 0 else p
        elif by_job:
            at = j
        elif by_machine:
            at = p
        else:
            at = count
    return length


@compiled
def cut_out(net: Net, line: Line, i: int, restore: int) -> int:
    """Heads and tails without the operation at place i (its job still goes through it, in no time); the last end.

    Cuts are made from the end of the path to its begin; `restore` is the place of the one before, O at first.
    """
    count = len(line.order)
    a, b = line.mp[i], line.ms[i]
    behind = line.js[i]
    lag_behind, lag = line.jl[behind], line.ml[b]
    for x in range(i, min(restore + 1, count)):
        line.due_cut[x] = line.due[x]
    line.ms[a] = b
    line.mp[b] = a
    if net.setups and b != count:
        line.ml[b] = machine_lag(net, line.machine[b], line.order[a] if a != count else count, line.order[b])
    line.jl[behind] = 0
    own_lag = line.jl[i]
    line.jl[i] = 0
    before = line.jp[i]
    line.end_cut[i] = line.end[before] if before != count else line.ready[i]
    longest = 0
    for x in range(i + 1, count):
        end = line.ticks[x] + max(
            line.ready[x],
            max(line.end_cut[line.jp[x]] + line.jl[x], line.end_cut[line.mp[x]] + line.ml[x]),
        )
        line.end_cut[x] = end
        longest = max(longest, int(end))
    line.due_cut[i] = line.due[behind]
    for x in range(i - 1, -1, -1):
        j, p = line.js[x], line.ms[x]
        line.due_cut[x] = line.ticks[x] + max(line.due_cut[j] + line.jl[j], line.due_cut[p] + line.ml[p])
    line.jl[i] = own_lag
    line.jl[behind] = lag_behind
    line.ml[b] = lag
    line.ms[a] = i
    line.mp[b] = i
    line.ms[count] = count
    line.mp[count] = count
    return longest


@compiled
def queue_at(net: Net, line: Line, m: int, own: int, k: int) -> int:
    """Place of the k-th operation in the queue of m, the one at slot `own` left out."""
    return int(line.queue[net.room[m] + (k if k < own else k + 1)])


@compiled
def interval(net: Net, line: Line, m: int, own: int, length: int, head: int, tail: int) -> tuple[int, int]:
    """(first of L, one behind the last of R) in the queue of m without the one at slot `own`."""
    low, high = 0, length
    while low < high:
        mid = (low + high) >> 1
        if line.end_cut[queue_at(net, line, m, own, mid)] > head:
            high = mid
        else:
            low = mid + 1
    first = low
    low, high = 0, length
    while low < high:
        mid = (low + high) >> 1
        if line.due_cut[queue_at(net, line, m, own, mid)] > tail:
            low = mid + 1
        else:
            high = mid
    return first, low


@compiled
def move(net: Net, line: Line, o: int, a: int, position: int) -> None:
    """Operation o to alternative a, at `position` in the queue of its machine (without o). `order` follows."""
    count = len(line.order)
    i = line.place[o]
    m = net.alt_machine[a]
    own = count
    if line.slot[i] >= 0 and line.machine[i] == m:
        own = line.slot[i]
    before, behind = line.jp[i], line.js[i]
    low = before if before != count else -1
    high = behind
    next_on = count
    if net.alt_ticks[a] > 0:
        length = line.queued[m] - (1 if own != count else 0)
        if position > 0:
            low = max(low, queue_at(net, line, m, own, position - 1))
        if position < length:
            next_on = queue_at(net, line, m, own, position)
            high = min(high, next_on)
    line.choice[o] = a
    if low < high:
        if i < low:
            for x in range(i, low):
                line.order[x] = line.order[x + 1]
            line.order[low] = o
        elif i > high:
            for x in range(i, high, -1):
                line.order[x] = line.order[x - 1]
            line.order[high] = o
        return
    # what follows from `behind` or `next_on` up to `low` goes behind o, the rest before it
    p, b = line.mp[i], line.ms[i]
    line.mp[b] = p
    line.marked[:] = False
    if behind != count:
        line.marked[behind] = True
    if next_on != count:
        line.marked[next_on] = True
    shifted = 0
    at = min(high, i)
    last = max(low, i)
    for x in range(at, last + 1):
        if x == i:
            continue
        if not line.marked[x]:
            before_x = line.jp[x]
            if before_x != count and line.marked[before_x] and before_x != i:
                line.marked[x] = True
            before_x = line.mp[x]
            if before_x != count and line.marked[before_x]:
                line.marked[x] = True
        if line.marked[x] and x <= last:
            line.shift[shifted] = line.order[x]
            shifted += 1
        else:
            line.order[at] = line.order[x]
            at += 1
    line.order[at] = o
    for x in range(shifted):
        line.order[at + 1 + x] = line.shift[x]


@compiled
def search(
    net: Net,
    line: Line,
    best_choice: Indices,
    best_order: Indices,
    best: int,
    begin: int,
    end: int,
    found: int,
    patience: int,
    target: int,
    spread: int,
) -> tuple[int, int, int]:
    """Iterations from `begin` up to `end`, or until none was better for `patience` of them, or `target` is reached.

    (best makespan so far, its plan in `best_choice` and `best_order`; iterations reached; iteration of the best)
    """
    count = len(line.order)
    longest = settle(net, line)
    if longest < best:
        best = longest
        best_choice[:] = line.choice
        best_order[:] = line.order
    t = begin
    while t < end and t - found < patience and best > target:
        t += 1
        length = critical_path(line, longest)
        value, ties = np.int64(FAR), 0
        chosen, chosen_alt, chosen_position = -1, -1, 0
        spares = 0
        spare_op, spare_alt, spare_position = -1, -1, 0
        restore = count
        line.end_cut[:] = line.end
        line.due_cut[:] = line.due
        for k in range(length):
            i = line.path[k]
            o = line.order[i]
            if net.alt_first[o + 1] - net.alt_first[o] == 1 and line.queued[line.machine[i]] == 1:
                continue
            rest = cut_out(net, line, i, restore)
            restore = i
            before, behind = line.jp[i], line.js[i]
            head0, tail0 = line.end_cut[i], line.due_cut[i]
            for a in range(net.alt_first[o], net.alt_first[o + 1]):
                m = net.alt_machine[a]
                ticks = net.alt_ticks[a]
                head_j = net.alt_ready[a]
                if before != count:
                    head_j = max(
                        head_j,
                        line.end[before] + (job_lag(net, line.machine[before], o, m) if net.lags else 0),
                    )
                tail_j = line.due[behind]
                if net.lags and behind != count:
                    tail_j += job_lag(net, m, line.order[behind], line.machine[behind])
                own = count
                same = a == line.choice[o]
                if same and line.slot[i] >= 0:
                    own = line.slot[i]
                first, last = 0, 0
                queued = line.queued[m] - (1 if own != count else 0)
                if ticks > 0:
                    f, r = interval(net, line, m, own, queued, head0, tail0)
                    first, last = min(f, r), max(f, r)
                elif same:
                    continue
                is_tabu = line.tabu[a] > t
                for position in range(first, last + 1):
                    if same and position == own:
                        continue
                    head, tail = head_j, tail_j
                    if ticks > 0:
                        if position > 0:
                            x = queue_at(net, line, m, own, position - 1)
                            lag = machine_lag(net, m, line.order[x], o) if net.setups else 0
                            head = max(head, line.end_cut[x] + lag)
                        elif net.setups:
                            head = max(head, machine_lag(net, m, count, o))
                        if position < queued:
                            x = queue_at(net, line, m, own, position)
                            lag = machine_lag(net, m, o, line.order[x]) if net.setups else 0
                            tail = max(tail, line.due_cut[x] + lag)
                    v = head + ticks + tail
                    if is_tabu and max(v, rest) >= best:
                        spares += 1
                        if draw(line, spares) == 0:
                            spare_op, spare_alt, spare_position = o, a, position
                        continue
                    if v < value:
                        value, ties = v, 1
                        chosen, chosen_alt, chosen_position = o, a, position
                    elif v == value:
                        ties += 1
                        if draw(line, ties) == 0:
                            chosen, chosen_alt, chosen_position = o, a, position
        if chosen < 0:
            chosen, chosen_alt, chosen_position = spare_op, spare_alt, spare_position
        if chosen < 0:
            return best, t, found  # no operation on this path can go anywhere
        old = line.choice[chosen]
        alts = net.alt_first[chosen + 1] - net.alt_first[chosen]
        line.tabu[old] = t + length + alts + draw(line, spread)
        move(net, line, chosen, chosen_alt, chosen_position)
        longest = settle(net, line)
        if longest < best:
            best, found = longest, t
            best_choice[:] = line.choice
            best_order[:] = line.order
    return best, t, found


@compiled
def place_by(net: Net, line: Line, order: Indices) -> None:
    """Operations in `order`, each behind what stands on the machine that ends it first: a rule's plan, into `line`."""
    count = len(order)
    line.last[:] = count
    line.order[:] = order
    for o in order:
        least, chosen = np.int64(FAR), net.alt_first[o]
        j = net.before[o]
        for a in range(net.alt_first[o], net.alt_first[o + 1]):
            m, ticks = net.alt_machine[a], net.alt_ticks[a]
            end = net.alt_ready[a]
            if j != count:
                end = max(end, line.end[j] + job_lag(net, net.alt_machine[line.choice[j]], o, m))
            if ticks > 0:
                p = line.last[m]
                end = max(end, line.end[p] + machine_lag(net, m, p, o))
            end += ticks
            if end < least:
                least, chosen = end, a
        line.choice[o] = chosen
        line.end[o] = least
        if net.alt_ticks[chosen] > 0:
            line.last[net.alt_machine[chosen]] = o
    settle(net, line)
