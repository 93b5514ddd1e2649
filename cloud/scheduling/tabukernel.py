"""Tabu search on the critical path of a flexible job shop, compiled: one move per iteration, each judged exactly.

A plan is `choice` (the alternative of each operation) and `order` (all operations, each behind its predecessors of job
and machine); every operation starts as early as these allow. One iteration walks one critical path. Each operation v
on it is taken out; heads and tails of what remains are computed, and v is tried on each of its machines k within the
interval of Mastrolilli and Gambardella (2000), which holds a best place: behind all of R - L and before all of L - R,

    L = {x on k: head(x) + ticks(x) > head(v)}        R = {x on k: tail(x) + ticks(x) > tail(v)}.

Heads before v and tails behind v do not depend on v, so head + ticks + tail is the longest path through v as it will
be, not an estimate. (With set-ups it is an upper bound, and the interval need not hold the best.) The best move that
is not tabu is made, or one to a better plan than the best; of equal ones that with the shorter work, as what is saved
there others may use. Having left an alternative, v may not come back for a while.

Dimensions: O operations, A alternatives, M machines. Arrays of `Line` go by place in `order`; place O is nobody: it
ends at 0 and nothing follows from it. Time per iteration: operations on the path times O.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import FAR, Indices
from cloud.scheduling.tabukernel_line import (
    behind_r,
    critical_path,
    cut,
    draw,
    first_in_l,
    job_lag,
    last_end,
    machine_lag,
    put_back,
    queue_at,
    settle,
    take_out,
)
from cloud.scheduling.tabunet import Line, Net


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
            low = max(low, queue_at(line.queue, net.room[m], own, position - 1))
        if position < length:
            next_on = queue_at(line.queue, net.room[m], own, position)
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
        value, value_ticks, ties = np.int64(FAR), np.int64(FAR), 0
        chosen, chosen_alt, chosen_position = -1, -1, 0
        spares = 0
        spare_op, spare_alt, spare_position = -1, -1, 0
        for k in range(length):
            i = line.path[k]
            o = line.order[i]
            if net.alt_first[o + 1] - net.alt_first[o] == 1 and line.queued[line.machine[i]] == 1:
                continue
            own_lag, lag_behind = take_out(net, line, i)
            low, high = cut(line, i, longest)
            rest = -1
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
                    f = first_in_l(line.queue, net.room[m], own, queued, line.end_cut, head0)
                    r = behind_r(line.queue, net.room[m], own, queued, line.due_cut, tail0)
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
                            x = queue_at(line.queue, net.room[m], own, position - 1)
                            lag = machine_lag(net, m, line.order[x], o) if net.setups else 0
                            head = max(head, line.end_cut[x] + lag)
                        elif net.setups:
                            head = max(head, machine_lag(net, m, count, o))
                        if position < queued:
                            x = queue_at(line.queue, net.room[m], own, position)
                            lag = machine_lag(net, m, o, line.order[x]) if net.setups else 0
                            tail = max(tail, line.due_cut[x] + lag)
                    v = head + ticks + tail
                    if is_tabu and v < best and rest < 0:
                        rest = last_end(line, i)
                    if is_tabu and max(v, rest) >= best:
                        spares += 1
                        if draw(line.seed, spares) == 0:
                            spare_op, spare_alt, spare_position = o, a, position
                        continue
                    if v < value or (v == value and ticks < value_ticks):
                        value, value_ticks, ties = v, ticks, 1
                        chosen, chosen_alt, chosen_position = o, a, position
                    elif v == value and ticks == value_ticks:
                        ties += 1
                        if draw(line.seed, ties) == 0:
                            chosen, chosen_alt, chosen_position = o, a, position
            put_back(net, line, i, own_lag, lag_behind)
            line.end_cut[i : high + 1] = line.end[i : high + 1]
            line.due_cut[low : i + 1] = line.due[low : i + 1]
        line.moved[0], line.moved[1] = chosen, value
        if chosen < 0:
            chosen, chosen_alt, chosen_position = spare_op, spare_alt, spare_position
        if chosen < 0:
            return best, t, found  # no operation on this path can go anywhere
        old = line.choice[chosen]
        alts = net.alt_first[chosen + 1] - net.alt_first[chosen]
        line.tabu[old] = t + length + alts + draw(line.seed, spread)
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
