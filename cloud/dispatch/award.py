"""What of a sequence that was just made is awarded now: `messages.dispatch.commit`, compiled.

    advance(floor, board, order, alt, made, SEQUENCE, weights)
    found = committed(floor, names, begin, order, made, until)

The sequence is walked through once more from the begin with the times in `made`; only what is awarded becomes a `Bid`.
"""

from __future__ import annotations

import numpy as np

from cloud.dispatch.floor import (
    ARRIVES,
    AT,
    CHOSEN,
    END,
    ENDED,
    FAR,
    HOLDS,
    KEPT,
    LIMIT,
    LOADS,
    MACHINE,
    NEXT,
    NOW,
    PREHEAT,
    READY,
    START,
    TICKS,
    Board,
    Floor,
    Ints,
    Names,
    copied,
    packed_board,
    packed_floor,
)
from cloud.scheduling.compiled import compiled
from messages.dispatch.commit import Committed
from messages.dispatch.state import Bid

FREE_AT = 1
"""Column of `vehicle`."""
JOB, OP, TO, FROM, VEHICLE, SINCE, DEPARTS, LOADED, LEAVES, COMES, BEGINS, ENDS, MUST, BLOCKED, TAKEN = range(15)
"""Columns of what `follow` writes."""


def committed(floor: Floor, names: Names, begin: Board, order: Ints, made: Ints, until: int) -> Committed:
    """The same as the plain one."""
    rows = np.zeros((len(order), 15), np.int64)
    again = follow(packed_floor(floor), packed_board(copied(begin)), order, made, rows, until)
    jobs, places = names.jobs, names.places
    awards, stuck = list[Bid](), list[str]()
    blocked = rows[:, BLOCKED]
    if blocked.any():
        stuck = [jobs[j] for j in rows[blocked > 0, JOB].tolist()]
    for j, op, m, at, v, since, departs, loads, leaves, arrives, start, end, must, _, _ in rows[
        rows[:, TAKEN] > 0
    ].tolist():
        awards.append(
            Bid(jobs[j], op, places[m], places[at], v, since, departs, loads, leaves, arrives, start, end, must)
        )
    left = rows[rows[:, TAKEN] == 0]
    rest = zip(left[:, JOB].tolist(), left[:, TO].tolist(), strict=True)
    later = tuple([(jobs[j], places[m]) for j, m in rest])
    return Committed(tuple(awards), None if again == FAR else int(again), later, tuple(stuck))


@compiled
def follow(floor: Floor, board: Board, order: Ints, made: Ints, rows: Ints, until: int) -> int:
    """Write what each award comes to, and which are to be made by `until`; when the rest must begin, `FAR`: never."""
    station, alternative, step_first = floor.station, floor.alternative, floor.step_first
    machine, part, vehicle, now = board.machine, board.part, board.vehicle, board.clock[NOW]
    machines, first = len(station), len(order)
    makes_room = np.zeros(len(order), np.int64)
    for p in range(len(order)):
        j = order[p]
        op = part[j, NEXT]
        o = step_first[j] + op
        a, start, end, loads, arrives = made[o, CHOSEN], made[o, START], made[o, END], made[o, LOADS], made[o, ARRIVES]
        m, ticks, at = alternative[a, MACHINE], alternative[a, TICKS], part[j, AT]
        carry = floor.carried[at, m] if at != m else -1
        v, departs = -1, loads
        if carry >= 0 and floor.vehicles >= 0:
            for w in range(floor.vehicles):
                empty = floor.empty[vehicle[w, 0], at]
                if max(vehicle[w, FREE_AT], now) + empty <= loads:
                    v, departs = w, loads - empty
                    break
        if v >= 0:
            must = departs
        elif carry >= 0:
            must = loads if part[j, HOLDS] else start - carry
        else:
            must = arrives if part[j, HOLDS] else start
        blocked = 0
        if ticks:
            must = min(must, start - (station[m, PREHEAT] if machine[m, ENDED] < 0 else 0))
            if station[m, LIMIT] >= 0:
                own = part[j, HOLDS] and at == m
                blocked = 1 if station[m, LIMIT] - machine[m, KEPT] + (1 if own else 0) < 0 else 0
        if blocked and first == len(order):
            first = p
        rows[p, JOB], rows[p, OP], rows[p, TO], rows[p, FROM], rows[p, VEHICLE] = j, op, m, at, v
        rows[p, SINCE], rows[p, DEPARTS], rows[p, LOADED] = part[j, READY] + floor.lag[o], departs, loads
        rows[p, LEAVES] = loads + floor.loading if carry >= 0 else loads
        rows[p, COMES], rows[p, BEGINS], rows[p, ENDS], rows[p, MUST] = arrives, start, end, must
        rows[p, BLOCKED] = blocked
        makes_room[p] = part[j, HOLDS]
        if part[j, HOLDS]:
            machine[at, KEPT] -= 1
        if v >= 0:
            vehicle[v, 0], vehicle[v, FREE_AT] = m, arrives
        part[j, NEXT] += 1
        part[j, AT], part[j, READY], part[j, HOLDS] = m, end, 0
        if ticks:
            machine[m, ENDED] = end
            if station[m, LIMIT] >= 0 and o + 1 < step_first[j + 1]:
                part[j, HOLDS] = 1
                machine[m, KEPT] += 1
    again = FAR
    jobs, places = np.zeros(len(part), np.int64), np.zeros(len(floor.empty), np.int64)
    vehicles = np.zeros(len(vehicle), np.int64)
    for p in range(first - 1, -1, -1):
        j, m, v, at = rows[p, JOB], rows[p, TO], rows[p, VEHICLE], rows[p, FROM]
        wanted = rows[p, MUST] <= until or jobs[j] or places[m] or (makes_room[p] and places[at])
        if wanted or (v >= 0 and vehicles[v]):
            rows[p, TAKEN] = jobs[j] = 1
            if m < machines:
                places[m] = 1
            if v >= 0:
                vehicles[v] = 1
        else:
            again = min(again, rows[p, MUST])
    return again
