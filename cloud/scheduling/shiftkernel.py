"""Compiled: a plan as a board that jobs are taken off and put back on where they cost least; and the search over it.

    board, desk = empty_board(shop), desk_of(shop, latest)
    value = refine(shop, rates, rules, board, best, desk, rounds=1000, hot=3.0, cold=0.1, seed=7)

`put` places all operations of one job at once: a dynamic programme over (operation, machine, start) with what each
start would cost between the work that stands there already, idling or off in the gaps on both sides included. With
rates that are `linear` it is the least there is for this job, given all others; under generation what two operations
of one job draw at the same time (idling, preheating) is only counted when they stand. `refine` takes a few jobs off,
puts them back in random order, and keeps the result as simulated annealing does (after Christiaens and Vanden Berghe,
Transportation Science 54(2), 2020).

A line is a stretch of a machine between breakdowns; its order is kept by start. Dimensions as in `shop`; L lines, T
ticks from `rates.low`. Two operations never share a batch here. Being off or down between two lines costs nothing here.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.rates import Rates
from cloud.scheduling.shiftboard import Board, Desk, Rules
from cloud.scheduling.shop import FAR, IDLE, OFF, PREHEAT, SETUP, Floats, Indices, Ints, Shop

NEVER = 1e300
"""The cost of what cannot be."""
TIE = 1e-9
"""Relative difference below which idling is preferred to being off (as the judge does)."""


# --- what is drawn ------------------------------------------------------------------------------------


@compiled
def _draw(rates: Rates, rules: Rules, board: Board, k: int, begin: int, end: int, kw: float) -> None:
    """`kw` more (or less) of carrier `k` in [begin, end)."""
    a, b = max(begin, rates.low) - rates.low, min(end, rates.high) - rates.low
    if b <= a or kw == 0.0:
        return
    money = kw * (rates.before[k, b] - rates.before[k, a])
    if rules.tracked[k]:
        for t in range(a, b):
            old = board.load[k, t]
            new = old + kw
            if rates.net[k]:
                room = rates.room[k, t]
                money += rates.buy[k, t] * (max(0.0, new - room) - max(0.0, old - room))
                money -= rates.sell[k, t] * (max(0.0, room - new) - max(0.0, room - old))
            board.load[k, t] = new
    board.money[0] += money


@compiled
def _marginal(rates: Rates, board: Board, k: int, begin: int, end: int, kw: float) -> float:
    """What `kw` more of carrier `k` in [begin, end) would cost."""
    a, b = max(begin, rates.low) - rates.low, min(end, rates.high) - rates.low
    if b <= a or kw == 0.0:
        return 0.0
    money = kw * (rates.before[k, b] - rates.before[k, a])
    if rates.net[k]:
        for t in range(a, b):
            old, room = board.load[k, t], rates.room[k, t]
            money += rates.buy[k, t] * (max(0.0, old + kw - room) - max(0.0, old - room))
            money -= rates.sell[k, t] * (max(0.0, room - old - kw) - max(0.0, room - old))
    return money


@compiled
def _family_before(shop: Shop, desk: Desk, board: Board, line: int, left: int) -> int:
    """What the machine is set up for behind operation `left`, -1: as this line begins."""
    m = desk.machine_of_line[line]
    return shop.family[left] if left >= 0 else shop.machine_family[m]


@compiled
def _setup(shop: Shop, m: int, before: int, after: int) -> int:
    table = shop.setup_table[m]
    return 0 if table < 0 else shop.setup[table, before, after]


@compiled
def _since(shop: Shop, board: Board, line: int, left: int) -> int:
    """When the gap behind `left` begins; FAR: the machine is cold."""
    if left >= 0:
        return board.start[left] + shop.alt_ticks[board.alt[left]]
    warm = shop.stretch_warm[line]
    return warm if warm >= 0 else FAR


@compiled
def _gap(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, line: int, left: int, right: int, sign: float
) -> None:
    """What the machine and its crew do between `left` and the work of `right`, added (1) or taken away (-1)."""
    if right < 0:
        return
    m = desk.machine_of_line[line]
    k, heat = shop.carrier[m], shop.preheat[m]
    setup = _setup(shop, m, _family_before(shop, desk, board, line, left), shop.family[right])
    begin = board.start[right]
    ready = begin - setup
    since = _since(shop, board, line, left)
    if since == FAR:
        _draw(rates, rules, board, k, ready - heat, ready, sign * shop.power[m, PREHEAT])
    elif ready > since:
        if sign > 0:
            board.off[right] = False
            if ready - since >= heat:
                idle = _marginal(rates, board, k, since, ready, shop.power[m, IDLE])
                off = _marginal(rates, board, k, since, ready - heat, shop.power[m, OFF])
                off += _marginal(rates, board, k, ready - heat, ready, shop.power[m, PREHEAT])
                board.off[right] = idle > off + TIE * max(abs(idle), abs(off))
        if board.off[right]:
            _draw(rates, rules, board, k, since, ready - heat, sign * shop.power[m, OFF])
            _draw(rates, rules, board, k, ready - heat, ready, sign * shop.power[m, PREHEAT])
        else:
            _draw(rates, rules, board, k, since, ready, sign * shop.power[m, IDLE])
    _draw(rates, rules, board, k, ready, begin, sign * shop.power[m, SETUP])
    if setup:
        _people(shop, rates, board, right, ready, begin, 1 if sign > 0 else -1)


@compiled
def _people(shop: Shop, rates: Rates, board: Board, o: int, begin: int, end: int, sign: int) -> None:
    for c in range(len(shop.crew_count)):
        need = shop.crew_need[o, c]
        if need:
            for t in range(max(begin, rates.low) - rates.low, min(end, rates.high) - rates.low):
                board.busy[c, t] += sign * need


@compiled
def _work(shop: Shop, rates: Rates, rules: Rules, board: Board, o: int, sign: float) -> None:
    a = board.alt[o]
    begin, end = board.start[o], board.start[o] + shop.alt_ticks[a]
    _draw(rates, rules, board, shop.carrier[shop.alt_machine[a]], begin, end, sign * shop.alt_kw[a])
    _people(shop, rates, board, o, begin, end, 1 if sign > 0 else -1)


@compiled
def _moves(shop: Shop, rates: Rates, rules: Rules, board: Board, j: int, sign: float) -> None:
    """What carrying job `j` draws; all of it is placed."""
    if shop.transport_kw == 0.0:
        return
    at, left = shop.job_at[j], shop.job_left[j]
    for o in range(shop.job_first[j], shop.job_first[j + 1]):
        a = board.alt[o]
        m = shop.alt_machine[a]
        if at >= 0 and shop.transport[at, m] > 0:
            _draw(
                rates, rules, board, shop.transport_carrier, left, left + shop.transport[at, m], sign * shop.transport_kw
            )
        at, left = m, board.start[o] + shop.alt_ticks[a]


# --- one operation ------------------------------------------------------------------------------------


@compiled
def _place_in(board: Board, line: int, start: int) -> int:
    """Its place in the order."""
    low, high = 0, board.count[line]
    while low < high:
        middle = (low + high) // 2
        if board.start[board.order[line, middle]] < start:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _insert(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, o: int, a: int, line: int, start: int
) -> bool:
    """Place an operation; False, and nothing done, where there is no room."""
    ticks = shop.alt_ticks[a]
    if ticks == 0:
        board.alt[o], board.line[o], board.start[o] = a, -1, start
        return True
    m = desk.machine_of_line[line]
    place = _place_in(board, line, start)
    left = board.order[line, place - 1] if place > 0 else -1
    right = board.order[line, place] if place < board.count[line] else -1
    setup = _setup(shop, m, _family_before(shop, desk, board, line, left), shop.family[o])
    since = _since(shop, board, line, left)
    if since != FAR and start - setup < since:
        return False
    if left < 0 and not _may_begin(shop, line, start, setup):
        return False
    if start + ticks > min(rules.latest, shop.stretch_end[line]):
        return False
    if right >= 0:
        next_setup = _setup(shop, m, shop.family[o], shop.family[right])
        if start + ticks + next_setup > board.start[right]:
            return False
        if next_setup and _shut(desk, rates, m, board.start[right] - next_setup, board.start[right]):
            return False
    if _shut(desk, rates, m, start - setup, start + ticks):
        return False
    _gap(shop, rates, rules, desk, board, line, left, right, -1.0)
    for i in range(board.count[line], place, -1):
        board.order[line, i] = board.order[line, i - 1]
    board.order[line, place] = o
    board.count[line] += 1
    board.alt[o], board.line[o], board.start[o] = a, line, start
    _work(shop, rates, rules, board, o, 1.0)
    _gap(shop, rates, rules, desk, board, line, left, o, 1.0)
    _gap(shop, rates, rules, desk, board, line, o, right, 1.0)
    return True


@compiled
def _remove(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, o: int) -> None:
    line = board.line[o]
    if line >= 0:
        place = _place_in(board, line, board.start[o])
        while board.order[line, place] != o:
            place += 1
        left = board.order[line, place - 1] if place > 0 else -1
        right = board.order[line, place + 1] if place + 1 < board.count[line] else -1
        _gap(shop, rates, rules, desk, board, line, left, o, -1.0)
        _gap(shop, rates, rules, desk, board, line, o, right, -1.0)
        _work(shop, rates, rules, board, o, -1.0)
        board.count[line] -= 1
        for i in range(place, board.count[line]):
            board.order[line, i] = board.order[line, i + 1]
        _gap(shop, rates, rules, desk, board, line, left, right, 1.0)
    board.alt[o], board.line[o] = -1, -1


@compiled
def _may_begin(shop: Shop, line: int, start: int, setup: int) -> bool:
    """Whether the first work of a line may start there; the first set-up of a fresh plan may lie before tick 0."""
    return start >= shop.stretch_ready[line] and (setup == 0 or start - setup >= shop.stretch_setup[line])


@compiled
def _shut(desk: Desk, rates: Rates, m: int, begin: int, end: int) -> bool:
    a, b = max(begin - rates.low, 0), end - rates.low
    return b > a and desk.shut[m, b] > desk.shut[m, a]


@compiled
def take_off(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, j: int) -> None:
    """Take all operations of job `j` off the board."""
    _moves(shop, rates, rules, board, j, -1.0)
    for o in range(shop.job_first[j], shop.job_first[j + 1]):
        _remove(shop, rates, rules, desk, board, o)
    board.ends[j] = -1


# --- one job ------------------------------------------------------------------------------------------


@compiled
def put(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, j: int, blink: float) -> bool:
    """Place all of job `j` where it costs least, passing a gap over with probability `blink`. False: no room (then
    some of it may stand; the caller has a copy)."""
    first, last = shop.job_first[j], shop.job_first[j + 1]
    ticks = rates.high - rates.low
    tail = 0
    for o in range(first + 1, last):
        tail += _shortest(shop, o) + shop.wait_min[o]
    head = shop.job_ready[j]
    for o in range(first, last):
        step = o - first
        _cells(shop, rates, rules, desk, board, o, step, head, rules.latest - tail, blink)
        if step == 0:
            _from_release(shop, rates, desk, j, o)
        else:
            _from_before(shop, rates, desk, o, step)
        head += _shortest(shop, o)
        if o + 1 < last:
            head += shop.wait_min[o + 1]
            tail -= _shortest(shop, o + 1) + shop.wait_min[o + 1]
    option, start = _cheapest_end(shop, rates, rules, desk, board, j, last - 1)
    if option < 0:
        return False
    _read_back(shop, rates, desk, board, j, option, start)
    for o in range(first, last):
        a, line = board.alt[o], board.line[o]
        board.alt[o], board.line[o] = -1, -1
        if not _insert(shop, rates, rules, desk, board, o, a, line, board.start[o]):
            return False
    board.ends[j] = board.start[last - 1] + shop.alt_ticks[board.alt[last - 1]]
    _moves(shop, rates, rules, board, j, 1.0)
    return ticks > 0


@compiled
def _shortest(shop: Shop, o: int) -> int:
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
        for place in range(board.count[line] + 1):
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
    right = board.order[line, place] if place < board.count[line] else -1
    since = _since(shop, board, line, left)
    before = _family_before(shop, desk, board, line, left)
    setup = _setup(shop, m, before, shop.family[o])
    low = max(head, shop.stretch_ready[line])
    if since != FAR:
        low = max(low, since + setup)
    if left < 0 and setup:
        low = max(low, shop.stretch_setup[line] + setup)
    high = min(until, shop.stretch_end[line]) - length  # the last start
    old_setup, next_setup = 0, 0
    if right >= 0:
        old_setup = _setup(shop, m, before, shop.family[right])
        next_setup = _setup(shop, m, shop.family[o], shop.family[right])
        high = min(high, board.start[right] - next_setup - length)
    if low > high:
        return
    if next_setup and _shut(desk, rates, m, board.start[right] - next_setup, board.start[right]):
        return
    _gap(shop, rates, rules, desk, board, line, left, right, -1.0)  # the gap as if nobody used it
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
    _gap(shop, rates, rules, desk, board, line, left, right, 1.0)
    after -= board.money[0] - money  # the gap that would be no more
    if right >= 0:
        board.off[right] = was_off
    for start in range(low, high + 1):
        s = start - zero
        ready = s - setup
        if desk.tight[s + length] > desk.tight[s]:
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
                    idling = min(
                        idling, off[gap_end - heat] - off[s + length] + warm[gap_end] - warm[gap_end - heat]
                    )
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
def _cheapest_end(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, j: int, o: int
) -> tuple[int, int]:
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


# --- the whole ----------------------------------------------------------------------------------------


@compiled
def value_of(shop: Shop, rates: Rates, board: Board) -> float:
    """The weighted sum of a full board (but for what no choice changes)."""
    makespan, late = shop.past_makespan, shop.past_tardiness
    lots = shop.lot_past.copy()
    for j in range(len(board.ends)):
        makespan = max(makespan, board.ends[j])
        lots[shop.job_lot[j]] = max(lots[shop.job_lot[j]], board.ends[j])
    for lot in range(len(lots)):
        late += max(0, lots[lot] - shop.lot_due[lot])
    return board.money[0] + rates.work * makespan + rates.late * late


@compiled
def keeps(shop: Shop, rules: Rules, board: Board) -> bool:
    """Whether people, power and the limit of tardiness suffice."""
    for c in range(len(shop.crew_count)):
        for t in range(board.busy.shape[1]):
            if board.busy[c, t] > shop.crew_count[c]:
                return False
    if rules.crowded >= 0:
        for t in range(len(rules.headroom)):
            if board.load[rules.crowded, t] > rules.headroom[t] * (1 + 1e-9) + 1e-9:
                return False
    late = shop.past_tardiness
    lots = shop.lot_past.copy()
    for j in range(len(board.ends)):
        lots[shop.job_lot[j]] = max(lots[shop.job_lot[j]], board.ends[j])
    for lot in range(len(lots)):
        late += max(0, lots[lot] - shop.lot_due[lot])
    return late <= rules.tardiness


@compiled
def copy(source: Board, target: Board) -> None:
    """`target` becomes equal to `source`."""
    for o in range(len(source.alt)):
        target.alt[o], target.line[o] = source.alt[o], source.line[o]
        target.start[o], target.off[o] = source.start[o], source.off[o]
    for line in range(len(source.count)):
        target.count[line] = source.count[line]
        for i in range(source.count[line]):
            target.order[line, i] = source.order[line, i]
    for j in range(len(source.ends)):
        target.ends[j] = source.ends[j]
    for t in range(source.load.shape[1]):
        for k in range(source.load.shape[0]):
            target.load[k, t] = source.load[k, t]
        for c in range(source.busy.shape[0]):
            target.busy[c, t] = source.busy[c, t]
    target.money[0] = source.money[0]


@compiled
def fill(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, jobs: Indices) -> bool:
    """Put these jobs on the board, one after the other; False where one finds no room."""
    for j in jobs:
        if not put(shop, rates, rules, desk, board, j, 0.0):
            return False
    return keeps(shop, rules, board)


@compiled
def load_board(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, alts: Indices, starts: Ints, order: Indices
) -> bool:
    """A whole plan onto an empty board, operations in `order` of start; False where it does not fit (batches)."""
    for o in order:
        a = alts[o]
        m = shop.alt_machine[a]
        line = shop.stretch_first[m + 1] - 1
        while line > shop.stretch_first[m] and starts[o] < shop.stretch_start[line]:
            line -= 1
        if not _insert(shop, rates, rules, desk, board, o, a, line, starts[o]):
            return False
    for j in range(len(board.ends)):
        o = shop.job_first[j + 1] - 1
        board.ends[j] = board.start[o] + shop.alt_ticks[board.alt[o]]
        _moves(shop, rates, rules, board, j, 1.0)
    return keeps(shop, rules, board)


@compiled
def _choose(shop: Shop, desk: Desk, board: Board, most: int) -> int:
    """Jobs to take off, into desk.out: at random, or neighbours on machines of a first one."""
    jobs = len(board.ends)
    count = min(jobs, 1 + np.random.randint(most))
    for j in range(jobs):
        desk.mark[j] = False
    first = np.random.randint(jobs)
    desk.out[0], desk.mark[first] = first, True
    n, tries = 1, 0
    near = np.random.random() < 0.5
    while n < count and tries < 10 * count:
        tries += 1
        j = np.random.randint(jobs)
        if near:
            of = desk.out[np.random.randint(n)]
            o = shop.job_first[of] + np.random.randint(shop.job_first[of + 1] - shop.job_first[of])
            line = board.line[o]
            if line >= 0:
                place = _place_in(board, line, board.start[o]) + np.random.randint(-2, 3)
                if 0 <= place < board.count[line]:
                    j = shop.op_job[board.order[line, place]]
        if not desk.mark[j]:
            desk.out[n], desk.mark[j] = j, True
            n += 1
    return n


@compiled
def refine(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, trial: Board, best: Board, rounds: int,
    hot: float, cold: float, most: int, blink: float, seed: int,
) -> float:  # fmt: skip
    """`rounds` times: take up to `most` jobs off, put them back, keep it or not; temperatures fall from `hot` to
    `cold`. `best` holds the best board so far, its value comes back; `trial` is room for one board."""
    np.random.seed(seed)
    value, top = value_of(shop, rates, board), value_of(shop, rates, best)
    copy(board, trial)
    for turn in range(rounds):
        heat = hot * (cold / hot) ** (turn / rounds)
        n = _choose(shop, desk, trial, most)
        for i in range(n):
            take_off(shop, rates, rules, desk, trial, desk.out[i])
        for i in range(n - 1, 0, -1):
            other = np.random.randint(i + 1)
            desk.out[i], desk.out[other] = desk.out[other], desk.out[i]
        whole = True
        for i in range(n):
            if not put(shop, rates, rules, desk, trial, desk.out[i], blink):
                whole = False
                break
        if whole and keeps(shop, rules, trial):
            new = value_of(shop, rates, trial)
            if new < value - heat * np.log(1.0 - np.random.random()):
                value = new
                copy(trial, board)
                if new < top - 1e-12 * abs(top):
                    top = new
                    copy(trial, best)
                continue
        copy(board, trial)
    return top
