"""Decoding and rules, compiled: what `messages.dispatch` says, to the tick.

    paste(begin.all, board.all)
    advance(floor, board, order, alt, made, SEQUENCE, weights)
    value = worth(floor, begin, board, order, made, weights)

One loop for both, so that they cannot disagree: at each turn the next decision is made, out of one job and machine (of
the sequence) or out of all there are (by a rule), and its times are those of an award.
"""

from __future__ import annotations

from cloud.dispatch.floor import (
    ARRIVES,
    AT,
    CARRIER,
    CHOSEN,
    END,
    ENDED,
    FAR,
    FAULTS,
    FREE,
    HEAT_KW,
    HOLDS,
    IDLE_KW,
    KEPT,
    LAST,
    LIMIT,
    LOADS,
    MACHINE,
    NEXT,
    NOW,
    OFF_KW,
    PLACES,
    PREHEAT,
    QUEUED,
    READY,
    SEEN,
    START,
    TAIL,
    TICKS,
    WAITED,
    Board,
    Floats,
    Floor,
    Ints,
)
from cloud.scheduling.compiled import compiled

SEQUENCE, FIFO, SJF, LJF, EQ11, GREEDY = range(-1, 5)
"""Where decisions come from; the rules in the order of `messages.dispatch.rules.RULES`."""
FAULT = 1e12
"""As in `messages.dispatch.decode`."""


@compiled
def advance(floor: Floor, board: Board, order: Ints, alt: Ints, made: Ints, rule: int, weights: Floats) -> None:
    """Award everything that is open. By a rule `order` (N,) is written; by sequence it is read, and becomes that in
    which nothing is put off, and `alt` (O,) says which alternative to take, -1: that of the earliest end. `made` (O, 5)
    gets the times and alternatives."""
    step_first, lag, alt_first, alternative = floor.step_first, floor.lag, floor.alt_first, floor.alternative
    station, shut_first, shut, carried, empty = floor.station, floor.shut_first, floor.shut, floor.carried, floor.empty
    machine, part, vehicle, clock = board.machine, board.part, board.vehicle, board.clock
    loading, vehicles, ring, alt_kw, power = floor.loading, floor.vehicles, floor.ring, floor.alt_kw, floor.power
    jobs, count, machines = len(part), len(order), len(station)
    now, last, faults = clock[NOW], clock[LAST], clock[FAULTS]
    tail = TAIL + ring
    several = rule >= 0 or floor.limited
    for j in range(jobs if several else 0):
        part[j, SEEN] = -1
    for p in range(count):
        # the best so far: which, how good, its times
        best_j = best_a = best_o = best_m = best_v = best_q = best_carry = 0
        best_blocked, best_x, best_y = 2, 0.0, 0.0
        best_loads = best_arrives = best_start = best_end = 0
        for q in range(p, count) if rule < 0 else range(jobs):
            j = order[q] if rule < 0 else q
            o = step_first[j] + part[j, NEXT]
            if several:
                if o >= step_first[j + 1] or part[j, SEEN] == p:
                    continue
                part[j, SEEN] = p
            at, since = part[j, AT], part[j, READY] + lag[o]
            if rule >= 0 and best_blocked == 0:  # it could not be better however soon it were done
                if rule <= LJF and rule != FIFO:
                    if max(since, now) > best_x:
                        continue
                elif rule != GREEDY and since >= best_x:
                    continue
            low, high = alt_first[o], alt_first[o + 1]
            load = 0
            if rule < 0:
                if alt[o] >= 0:
                    low, high = alt[o], alt[o] + 1
            elif rule == EQ11:
                for a in range(low, high):
                    m = alternative[a, MACHINE]
                    if m < machines:
                        load += max(0, machine[m, FREE] - now)
            own_blocked, own_cost = 2, 0.0
            own_a = own_m = own_v = own_carry = own_loads = own_arrives = own_start = own_end = 0
            for a in range(low, high):
                m, ticks = alternative[a, MACHINE], alternative[a, TICKS]
                ready = max(since, now)
                carry = carried[at, m] if at != m else -1
                floor_at = 0
                if ticks and station[m, PLACES] and machine[m, QUEUED] >= station[m, PLACES]:
                    floor_at = machine[m, TAIL + (machine[m, QUEUED] - station[m, PLACES]) % ring]
                v = -1
                if carry < 0:
                    carry = 0
                    loads = max(ready, floor_at)
                elif vehicles < 0:
                    loads = max(ready, floor_at - carry)
                else:
                    ready = max(ready, floor_at - carry)
                    loads = FAR
                    for w in range(vehicles):
                        there = max(ready, max(vehicle[w, 1], now) + empty[vehicle[w, 0], at])
                        if there < loads:
                            loads, v = there, w
                arrives = loads + carry
                start = end = arrives
                blocked = 0
                if ticks:
                    start = max(start, machine[m, FREE])
                    if machine[m, ENDED] < 0:
                        start = max(start, now + station[m, PREHEAT])
                    if station[m, LIMIT] >= 0:
                        spare = station[m, LIMIT] - machine[m, KEPT]
                        if part[j, HOLDS] and at == m:
                            spare += 1
                        if spare < 0:
                            blocked, spare = 1, 0
                        if tail + spare < machine.shape[1]:
                            start = max(start, machine[m, tail + spare])
                    end = start + ticks
                    for w in range(shut_first[m], shut_first[m + 1]):
                        if shut[w, 1] <= start:
                            continue
                        if shut[w, 0] >= end:
                            break
                        if shut[w, 0] <= start or not shut[w, 2]:
                            start = shut[w, 1]
                            end = start + ticks
                        else:
                            end += shut[w, 1] - shut[w, 0]
                cost = float(end)
                if rule == EQ11:
                    cost = carry + ticks * (_queue(machine, machines, m, now) + ticks) / max(1, load + ticks)
                elif rule == GREEDY:
                    cost = (weights[0] + weights[2]) * end + weights[1] * (start - since - carry)
                    if weights[3] != 0.0 or weights[4] != 0.0:
                        cost += weights[3] * (alt_kw[a] * (end - start) / floor.hour_ticks)
                        if m < machines:
                            cost += weights[4] * kg_of(floor, int(power[m, CARRIER]), alt_kw[a], start, end)
                if blocked < own_blocked or (blocked == own_blocked and cost < own_cost):
                    own_blocked, own_cost, own_a, own_m, own_v, own_carry = blocked, cost, a, m, v, carry
                    own_loads, own_arrives, own_start, own_end = loads, arrives, start, end
            x = y = 0.0
            if rule in (FIFO, EQ11):
                x = float(since)
            elif rule == GREEDY:
                x = own_cost
            elif rule >= 0:
                x = float(own_start)
                y = float(own_end - own_start) if rule == SJF else float(own_start - own_end)
            if own_blocked < best_blocked or (
                own_blocked == best_blocked and (x < best_x or (x == best_x and y < best_y))
            ):
                best_blocked, best_x, best_y, best_j, best_o, best_q = own_blocked, x, y, j, o, q
                best_a, best_m, best_v, best_carry = own_a, own_m, own_v, own_carry
                best_loads, best_arrives, best_start, best_end = own_loads, own_arrives, own_start, own_end
            if rule < 0 and (not several or own_blocked == 0):
                break
        # the award
        j, o, m, ticks = best_j, best_o, best_m, alternative[best_a, TICKS]
        if rule >= 0:
            order[p] = j
        elif several:
            for q in range(best_q, p, -1):
                order[q] = order[q - 1]
            order[p] = j
        if part[j, HOLDS]:
            before = part[j, AT]
            machine[before, KEPT] -= 1
            place = tail
            until = min(tail + station[before, LIMIT] + 1, machine.shape[1])
            leaves = best_loads + loading if best_carry else best_loads
            while place < until:
                if machine[before, place] < leaves:
                    machine[before, place], leaves = leaves, machine[before, place]
                place += 1
        if best_v >= 0:
            vehicle[best_v, 0], vehicle[best_v, 1] = m, best_arrives
        part[j, WAITED] += best_start - part[j, READY] - lag[o] - best_carry
        part[j, NEXT] += 1
        part[j, AT], part[j, READY], part[j, HOLDS] = m, best_end, 0
        if ticks:
            machine[m, FREE] = machine[m, ENDED] = best_end
            if ring:
                machine[m, TAIL + machine[m, QUEUED] % ring] = best_start
            machine[m, QUEUED] += 1
            if station[m, LIMIT] >= 0 and o + 1 < step_first[j + 1]:
                part[j, HOLDS] = 1
                machine[m, KEPT] += 1
        last = max(last, best_end)
        faults += best_blocked
        made[o, START], made[o, END], made[o, CHOSEN] = best_start, best_end, best_a
        made[o, LOADS], made[o, ARRIVES] = best_loads, best_arrives
    clock[LAST], clock[FAULTS] = last, faults


@compiled
def worth(floor: Floor, begin: Board, board: Board, order: Ints, made: Ints, weights: Floats) -> float:
    """What `messages.dispatch.decode.Measures.value` says of the schedule just made."""
    part, due = board.part, floor.due
    jobs = max(1, len(part))
    waited = late = 0
    for j in range(len(part)):
        waited += part[j, WAITED]
        late += max(0, part[j, READY] - due[j])
    value = weights[0] * board.clock[LAST] + weights[1] * (waited / jobs) + weights[2] * (late / jobs)
    if weights[3] != 0.0 or weights[4] != 0.0:
        kwh, kg = rated(floor, begin, board, order, made)
        value += weights[3] * kwh + weights[4] * kg
    return float(value + FAULT * (board.clock[FAULTS] - begin.clock[FAULTS]))


@compiled
def rated(floor: Floor, begin: Board, board: Board, order: Ints, made: Ints) -> tuple[float, float]:
    """kWh and kg CO2e of the schedule just made; columns SEEN and ENDED of `board` are used up and put right again."""
    part, machine, power, station = board.part, board.machine, floor.power, floor.station
    kw_ticks = kg = 0.0
    for j in range(len(part)):
        part[j, SEEN] = begin.part[j, NEXT]
    for m in range(len(machine)):
        machine[m, ENDED] = begin.machine[m, ENDED]
    for p in range(len(order)):
        j = order[p]
        o = floor.step_first[j] + part[j, SEEN]
        part[j, SEEN] += 1
        a = made[o, CHOSEN]
        m, ticks = floor.alternative[a, MACHINE], floor.alternative[a, TICKS]
        start, end = made[o, START], made[o, END]
        if made[o, ARRIVES] > made[o, LOADS]:
            kw_ticks += floor.carry_kw * (made[o, ARRIVES] - made[o, LOADS])
            kg += kg_of(floor, floor.carry_carrier, floor.carry_kw, made[o, LOADS], made[o, ARRIVES])
        if not ticks:
            continue
        carrier, hot = int(power[m, CARRIER]), start - station[m, PREHEAT]
        kw_ticks += floor.alt_kw[a] * (end - start)
        kg += kg_of(floor, carrier, floor.alt_kw[a], start, end)
        gap = start - machine[m, ENDED]
        off = power[m, OFF_KW] * (gap - station[m, PREHEAT]) + power[m, HEAT_KW] * station[m, PREHEAT]
        if machine[m, ENDED] < 0 or (gap > station[m, PREHEAT] and off < power[m, IDLE_KW] * gap):
            if machine[m, ENDED] >= 0:
                kw_ticks += power[m, OFF_KW] * (hot - machine[m, ENDED])
                kg += kg_of(floor, carrier, power[m, OFF_KW], machine[m, ENDED], hot)
            kw_ticks += power[m, HEAT_KW] * (start - hot)
            kg += kg_of(floor, carrier, power[m, HEAT_KW], hot, start)
        else:
            kw_ticks += power[m, IDLE_KW] * gap
            kg += kg_of(floor, carrier, power[m, IDLE_KW], machine[m, ENDED], start)
        machine[m, ENDED] = end
    return kw_ticks / floor.hour_ticks, kg


@compiled
def kg_of(floor: Floor, carrier: int, kw: float, start: int, end: int) -> float:
    """CO2e of drawing `kw` in [start, end)."""
    if kw == 0.0 or floor.curve[carrier, 1] == 0:
        return 0.0
    return kw * (_integral(floor, carrier, end) - _integral(floor, carrier, start)) / floor.hour_ticks


@compiled
def _integral(floor: Floor, carrier: int, tick: int) -> float:
    """Of the carrier's curve from its begin on, in values · ticks; negative before."""
    first, values, begin, step = floor.curve[carrier]
    place = (tick - begin) // step
    rounds = 0.0
    if floor.periodic[carrier]:
        whole = floor.curve_sum[first + values - 1] + floor.curve_value[first + values - 1] * step
        rounds = whole * (place // values)
        tick -= (place // values) * values * step
        place %= values
    place = min(max(place, 0), values - 1)
    return float(
        rounds + floor.curve_sum[first + place] + floor.curve_value[first + place] * (tick - begin - place * step)
    )


@compiled
def _queue(machine: Ints, machines: int, m: int, now: int) -> int:
    """Ticks of work in the queue of a machine; of a store 0."""
    return max(0, machine[m, FREE] - now) if m < machines else 0
