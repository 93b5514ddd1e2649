"""Compiled: all operations of one job put where they cost least, at once.

    put(shop, rates, rules, desk, board, j, 0.0)

A dynamic programme over (operation, machine, start), with what each start would cost between the work that stands there
already, idling or off in the gaps on both sides included. With rates that are linear it is the least there is for this
job, given all others; under generation, what two operations of one job draw at the same time (idling, preheating) is
only counted when they stand. Options of an operation are its alternatives on each line of their machines.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.boardkernel import (
    bridge,
    carry,
    family_before,
    insert,
    is_shut,
    remove,
    setup_ticks,
    since_of,
)
from cloud.scheduling.compiled import compiled
from cloud.scheduling.rates import Rates
from cloud.scheduling.shiftboard import Board, Desk, Rules
from cloud.scheduling.shop import FAR, IDLE, OFF, PREHEAT, SETUP, Floats, Shop

NEVER = 1e300
"""The cost of what cannot be."""


@compiled
def put(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, j: int, blink: float) -> bool:
    """Place all of job `j` where it costs least, passing a gap over with probability `blink`. False: no room, and
    nothing is placed."""
    first, last = shop.job_first[j], shop.job_first[j + 1]
    ticks = rates.high - rates.low
    tail = 0
    for o in range(first + 1, last):
        tail += shortest(shop, o) + shop.wait_min[o]
    head = shop.job_ready[j]
    for o in range(first, last):
        step = o - first
        _cells(shop, rates, rules, desk, board, o, step, head, rules.latest - tail, blink)
        if step == 0:
            _from_release(shop, rates, desk, j, o)
        else:
            _from_before(shop, rates, desk, o, step)
        head += shortest(shop, o)
        if o + 1 < last:
            head += shop.wait_min[o + 1]
            tail -= shortest(shop, o + 1) + shop.wait_min[o + 1]
    option, start = _cheapest_end(shop, rates, rules, desk, board, j, last - 1)
    if option < 0:
        return False
    _read_back(shop, rates, desk, board, j, option, start)
    for o in range(first, last):
        a, line = board.alt[o], board.line[o]
        board.alt[o], board.line[o] = -1, -1
        if not insert(shop, rates, rules, desk, board, o, a, line, board.start[o]):
            for later in range(o, last):
                board.alt[later], board.line[later] = -1, -1
            for earlier in range(first, o):
                remove(shop, rates, rules, desk, board, earlier)
            return False
    board.ends[j] = board.start[last - 1] + shop.alt_ticks[board.alt[last - 1]]
    carry(shop, rates, rules, board, j, 1.0)
    return ticks > 0


@compiled
def shortest(shop: Shop, o: int) -> int:
    least = FAR
    for a in range(shop.alt_first[o], shop.alt_first[o + 1]):
        least = min(least, shop.alt_ticks[a])
    return least


@compiled
def _options(shop: Shop, desk: Desk, o: int) -> int:
    """Fill the options of an operation: each alternative on each line of its machine; how many."""
    n = 0
    for a in range(shop.alt_first[o], shop.alt_first[o + 1]):
        m = shop.alt_machine[a]
        if shop.alt_ticks[a] == 0:
            desk.option_alt[n], desk.option_line[n] = a, -1
            n += 1
            continue
        for line in range(shop.stretch_first[m], shop.stretch_first[m + 1]):
            desk.option_alt[n], desk.option_line[n] = a, line
            n += 1
    return n


@compiled
def _cells(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, o: int, step: int, head: int, until: int,
    blink: float,
) -> None:  # fmt: skip
    """desk.cost[step]: what each start of operation `o` on each option would cost by itself."""
    ticks = rates.high - rates.low
    for i in range(_options(shop, desk, o)):
        a, line = desk.option_alt[i], desk.option_line[i]
        cost = desk.cost[step, i]
        for t in range(ticks):
            cost[t] = NEVER
        if line < 0:
            for t in range(head - rates.low, until - rates.low + 1):
                cost[t] = 0.0
            continue
        _scarce(shop, rates, rules, desk, board, o, a)
        for place in range(board.placed[line] + 1):
            if blink > 0.0 and np.random.random() < blink:
                continue
            _between(shop, rates, rules, desk, board, o, a, line, place, head, until, cost)


@compiled
def _scarce(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, o: int, a: int) -> None:
    """desk.tight: ticks before, in which people or power do not suffice for this operation."""
    ticks = rates.high - rates.low
    crowded = rules.crowded >= 0 and shop.carrier[shop.alt_machine[a]] == rules.crowded
    count = 0
    for t in range(ticks):
        short = crowded and board.load[rules.crowded, t] + shop.alt_kw[a] > rules.headroom[t]
        for c in range(len(shop.crew_count)):
            if shop.crew_need[o, c] and board.busy[c, t] + shop.crew_need[o, c] > shop.crew_count[c]:
                short = True
        count += short
        desk.tight[t + 1] = count


@compiled
def _sums(rates: Rates, board: Board, sums: Floats, k: int, kw: float, a: int, b: int) -> None:
    """sums[t] (places from a to b): what `kw` more from place a on would have cost before t."""
    total = 0.0
    sums[a] = 0.0
    if rates.net[k]:
        for t in range(a, b):
            old, room = board.load[k, t], rates.room[k, t]
            total += rates.linear[k, t] * kw
            total += rates.buy[k, t] * (max(0.0, old + kw - room) - max(0.0, old - room))
            total -= rates.sell[k, t] * (max(0.0, room - old - kw) - max(0.0, room - old))
            sums[t + 1] = total
    else:
        for t in range(a, b + 1):
            sums[t] = rates.before[k, t] * kw


@compiled
def _between(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, o: int, a: int, line: int, place: int, head: int,
    until: int, cost: Floats,
) -> None:  # fmt: skip
    """Costs of all starts of operation `o` in the gap before the `place`-th work of a line."""
    m, length = desk.machine_of_line[line], shop.alt_ticks[a]
    left = board.order[line, place - 1] if place > 0 else -1
    right = board.order[line, place] if place < board.placed[line] else -1
    since = since_of(shop, board, line, left)
    before = family_before(shop, desk, board, line, left)
    setup = setup_ticks(shop, m, before, shop.family[o])
    low = max(head, shop.stretch_ready[line])
    if left >= 0:
        low = max(low, since + setup)
    if left < 0 and setup:
        low = max(low, shop.stretch_setup[line] + setup)
    high = min(until, shop.stretch_end[line]) - length  # the last start
    next_setup = 0
    if right >= 0:
        next_setup = setup_ticks(shop, m, shop.family[o], shop.family[right])
        high = min(high, board.start[right] - next_setup - length)
    if low > high:
        return
    if next_setup and is_shut(desk, rates, m, board.start[right] - next_setup, board.start[right]):
        return
    bridge(shop, rates, rules, desk, board, line, left, right, -1.0)  # the gap as if nobody used it
    was_off = right >= 0 and board.off[right]
    money = board.money[0]
    k, heat, zero = shop.carrier[m], shop.preheat[m], rates.low
    begin = low - setup - heat if since == FAR else min(since, low - setup - heat)
    begin = max(begin - zero, 0)
    end = (board.start[right] if right >= 0 else high + length) - zero
    work, idle, warm, off, change = desk.sums[0], desk.sums[1], desk.sums[2], desk.sums[3], desk.sums[4]
    _sums(rates, board, work, k, shop.alt_kw[a], begin, end)
    _sums(rates, board, idle, k, shop.power[m, IDLE], begin, end)
    _sums(rates, board, warm, k, shop.power[m, PREHEAT], begin, end)
    _sums(rates, board, off, k, shop.power[m, OFF], begin, end)
    if setup or next_setup:
        _sums(rates, board, change, k, shop.power[m, SETUP], begin, end)
    gap_end = (board.start[right] - next_setup - zero) if right >= 0 else 0
    after = (change[gap_end + next_setup] - change[gap_end]) if next_setup else 0.0
    bridge(shop, rates, rules, desk, board, line, left, right, 1.0)
    after -= board.money[0] - money  # the gap that would be no more
    if right >= 0:
        board.off[right] = was_off
    for start in range(low, high + 1):
        s = start - zero
        ready = s - setup
        if desk.tight[s + length] > desk.tight[max(ready, 0)]:
            continue
        if desk.shut[m, s + length] > desk.shut[m, max(ready, 0)]:
            continue
        money = work[s + length] - work[s] + after
        if setup:
            money += change[s] - change[max(ready, 0)]
        if since == FAR:
            money += warm[ready] - warm[max(ready - heat, 0)]
        else:
            gap = start - setup - since
            if gap > 0:
                idling = idle[ready] - idle[since - zero]
                if gap >= heat:
                    idling = min(idling, off[ready - heat] - off[since - zero] + warm[ready] - warm[ready - heat])
                money += idling
        if right >= 0:
            gap = gap_end - s - length
            if gap > 0:
                idling = idle[gap_end] - idle[s + length]
                if gap >= heat:
                    idling = min(idling, off[gap_end - heat] - off[s + length] + warm[gap_end] - warm[gap_end - heat])
                money += idling
        if money < cost[s]:
            cost[s] = money


@compiled
def _from_release(shop: Shop, rates: Rates, desk: Desk, j: int, o: int) -> None:
    """The first operation: as soon as the job is free, and carried there."""
    for i in range(_options(shop, desk, o)):
        a = desk.option_alt[i]
        m = shop.alt_machine[a]
        free, until, extra = shop.job_ready[j], FAR, 0.0
        if shop.job_at[j] >= 0:
            lag = shop.transport[shop.job_at[j], m]
            left = shop.job_left[j]
            free = max(free, left + max(lag, shop.wait_min[o]))
            if shop.wait_max[o] < FAR:
                until = left + shop.wait_max[o]
            x, y = max(left - rates.low, 0), max(left + lag - rates.low, 0)
            top = rates.high - rates.low
            extra = shop.transport_kw * (
                rates.before[shop.transport_carrier, min(y, top)] - rates.before[shop.transport_carrier, min(x, top)]
            )
        cost = desk.cost[0, i]
        for t in range(len(cost)):
            if t + rates.low < free or t + rates.low > until:
                cost[t] = NEVER
            elif cost[t] < NEVER:
                cost[t] += extra


@compiled
def _from_before(shop: Shop, rates: Rates, desk: Desk, o: int, step: int) -> None:
    """Join operation `o` to the one before it, whose options and costs stand in the step before."""
    ticks = rates.high - rates.low
    still = shop.transport.max() == 0
    count = _options(shop, desk, o - 1)
    before_alt = desk.option_alt[:count].copy()
    if still:
        _forget(desk.reach)
        _forget(desk.ends)
        for i in range(count):
            _ends(desk, step, i, shop.alt_ticks[before_alt[i]], ticks)
        _window(desk, shop.wait_min[o], shop.wait_max[o], ticks)
    done = -1
    for i in range(_options(shop, desk, o)):
        m = shop.alt_machine[desk.option_alt[i]]
        if not still and m != done:
            _forget(desk.reach)
            for b in range(count):
                n = shop.alt_machine[before_alt[b]]
                lag = shop.transport[n, m]
                _forget(desk.ends)
                _ends(desk, step, b, shop.alt_ticks[before_alt[b]], ticks)
                if lag and shop.transport_kw > 0.0:
                    line = rates.before[shop.transport_carrier]
                    for e in range(ticks):
                        desk.ends[e] += shop.transport_kw * (line[min(e + lag, ticks)] - line[e])
                _window(desk, max(lag, shop.wait_min[o]), shop.wait_max[o], ticks)
            done = m
        cost, source = desk.cost[step, i], desk.source[step, i]
        for t in range(ticks):
            if cost[t] < NEVER:
                if desk.reach[t] < NEVER:
                    cost[t] += desk.reach[t]
                    source[t] = desk.reach_from[t]
                else:
                    cost[t] = NEVER


@compiled
def _forget(values: Floats) -> None:
    for t in range(len(values)):
        values[t] = NEVER


@compiled
def _ends(desk: Desk, step: int, i: int, length: int, ticks: int) -> None:
    """Into desk.ends: least cost of the operation before, by its end."""
    cost = desk.cost[step - 1, i]
    for t in range(ticks - length):
        if cost[t] < desk.ends[t + length]:
            desk.ends[t + length] = cost[t]
            desk.ends_from[t + length] = i * ticks + t


@compiled
def _window(desk: Desk, least: int, most: int, ticks: int) -> None:
    """Into desk.reach: the least of desk.ends between `least` and `most` ticks ago."""
    if most >= ticks:
        best, source = NEVER, 0
        for t in range(least, ticks):
            if desk.ends[t - least] < best:
                best, source = desk.ends[t - least], desk.ends_from[t - least]
            if best < desk.reach[t]:
                desk.reach[t], desk.reach_from[t] = best, source
        return
    if least > most:
        return
    front, back = 0, 0
    for t in range(least, ticks):
        e = t - least
        while back > front and desk.ends[desk.queue[back - 1]] >= desk.ends[e]:
            back -= 1
        desk.queue[back] = e
        back += 1
        while desk.queue[front] < t - most:
            front += 1
        e = desk.queue[front]
        if desk.ends[e] < desk.reach[t]:
            desk.reach[t], desk.reach_from[t] = desk.ends[e], desk.ends_from[e]


@compiled
def _others(shop: Shop, board: Board, j: int) -> tuple[int, int, int]:
    """(makespan, tardiness, when the last other lot of its order ends) without job `j`."""
    makespan, late, lot_end = shop.past_makespan, shop.past_tardiness, shop.lot_past[shop.job_lot[j]]
    lots = shop.lot_past.copy()
    for other in range(len(board.ends)):
        if other != j and board.ends[other] >= 0:
            makespan = max(makespan, board.ends[other])
            lots[shop.job_lot[other]] = max(lots[shop.job_lot[other]], board.ends[other])
    for lot in range(len(lots)):
        if lot != shop.job_lot[j] and lots[lot] > shop.lot_due[lot]:
            late += lots[lot] - shop.lot_due[lot]
    return makespan, late, max(lot_end, lots[shop.job_lot[j]])


@compiled
def _cheapest_end(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, j: int, o: int) -> tuple[int, int]:
    """(option, place) of the last operation's best start; option -1: there is none."""
    makespan, late, lot_end = _others(shop, board, j)
    due = shop.lot_due[shop.job_lot[j]]
    step = o - shop.job_first[j]
    best, option, place = NEVER, -1, 0
    for i in range(_options(shop, desk, o)):
        cost, length = desk.cost[step, i], shop.alt_ticks[desk.option_alt[i]]
        for t in range(len(cost)):
            if cost[t] >= best:
                continue
            end = t + rates.low + length
            delay = max(end, lot_end) - due
            if delay > 0 and late + delay > rules.tardiness:
                continue
            money = cost[t] + rates.work * max(0, end - makespan) + rates.late * max(0, delay)
            if money < best:
                best, option, place = money, i, t
    return option, place


@compiled
def _read_back(shop: Shop, rates: Rates, desk: Desk, board: Board, j: int, option: int, place: int) -> None:
    """The job's alternatives, lines and starts onto the board (not yet into the lines)."""
    ticks = rates.high - rates.low
    for o in range(shop.job_first[j + 1] - 1, shop.job_first[j] - 1, -1):
        _options(shop, desk, o)
        board.alt[o], board.line[o] = desk.option_alt[option], desk.option_line[option]
        board.start[o] = place + rates.low
        source = desk.source[o - shop.job_first[j], option, place]
        option, place = source // ticks, source % ticks
