"""Compiled: plans as an order of jobs and a machine for each operation; what they cost, and the steps between them.

    cost = lay_out(shop, room, rule, order, choice, latest, trial)     # decode, shift right, idle or off, measure
    change(shop, trial, ...)                                           # a neighbour of a plan

Works with everything the decoder knows. Where machines have no calendar, transport, set-ups or crews (the decoder's
plain shop), operations are moved right as far as nothing is delayed, and then together, so that gaps on machines
close. Dimensions as in `cloud.scheduling.shop`; R plans of a pool.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.scheduling.arrays import fill, paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.decode import decode
from cloud.scheduling.measure import choose, measure
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import FAR, Bools, Floats, Indices, Ints, Shop

NEVER = 1e300
"""The cost of what is no plan."""
FAULT = 1e9
"""A fault of the decoder (a missed wait, an end after the horizon) weighs so much."""
STAY, MOVE, MACHINE, SWAP, EMPTY = range(5)
"""Kinds of steps: none, along the line of its machine, to another machine, two operations change places, a machine is
given up."""


class Rule(NamedTuple):
    """What one plan of a pool is judged by. Never written to. (7,) each, as in `seam.MEASURES`."""

    weight: Floats
    limit: Floats  # inf: none
    excess: Floats  # cost of one unit beyond the limit
    wanted: int  # measures to be computed, as bits
    timed: bool  # curves count: as early as possible may be better than as late as possible
    right: bool  # shift right


class Trial(NamedTuple):
    """One plan, laid out. Written to."""

    order: Indices  # (O,) jobs
    choice: Indices  # (O,) place among its alternatives
    machine: Indices  # (O,)
    before: Indices  # (O,) operation before it on its machine, -1: none
    start: Ints  # (O,)
    off: Bools  # (O,)
    values: Floats  # (7,)


class Room(NamedTuple):
    """To work in."""

    at: Indices  # (O,) operation at each place of the order
    seen: Indices  # (J,)
    free: Ints  # (M,)
    last: Indices  # (M,)
    early: Ints  # (O,) starts, as decoded
    end: Ints  # (O,)
    ticks: Ints  # (O,)
    values: Floats  # (7,)
    off: Bools  # (O,)
    gaps: Floats  # (3,) weights of energy, carbon and cost
    items: Indices  # (O,)
    spare: Indices  # (O,)


def trial_of(shop: Shop) -> Trial:
    """Room for one plan."""
    operations = len(shop.op_job)
    return Trial(
        np.zeros(operations, np.int32),
        np.zeros(operations, np.int32),
        np.zeros(operations, np.int32),
        np.zeros(operations, np.int32),
        np.zeros(operations, np.int64),
        np.zeros(operations, np.bool_),
        np.zeros(7),
    )


def room_of(shop: Shop) -> Room:
    """Room for one thread."""
    operations, jobs, machines = len(shop.op_job), len(shop.job_ready), len(shop.preheat)
    return Room(
        np.zeros(operations, np.int32),
        np.zeros(jobs, np.int32),
        np.zeros(machines, np.int64),
        np.zeros(machines, np.int32),
        np.zeros(operations, np.int64),
        np.zeros(operations, np.int64),
        np.zeros(operations, np.int64),
        np.zeros(7),
        np.zeros(operations, np.bool_),
        np.zeros(3),
        np.zeros(operations, np.int32),
        np.zeros(operations, np.int32),
    )


@compiled
def lay_out(shop: Shop, scratch: Scratch, room: Room, rule: Rule, trial: Trial, hopeless: float) -> float:
    """Fill `machine`, `start`, `off`, `before` and `values` from `order` and `choice`; the cost comes back. It need
    not be exact where it is more than `hopeless`."""
    if scratch.plain and rule.weight[2] > 0.0 and not rule.wanted & ~7:
        work: float = rule.weight[2] * _work_kwh(shop, trial)
        if work > hopeless:
            return work
    faults = decode(shop, scratch, trial.order, trial.choice, trial.machine, trial.start)
    _places(shop, room, trial)
    if not scratch.plain:
        for o in range(len(room.ticks)):
            room.ticks[o] = scratch.end[o] - scratch.begin[o]  # of a batch, of its longest
    makespan, late = _times(shop, room, trial)
    cost = faults * FAULT + _part(rule, 0, makespan) + _part(rule, 1, late)
    if cost > hopeless or not rule.wanted & ~3:
        fill(trial.values, 0.0)
        trial.values[0], trial.values[1] = makespan, late
        fill(trial.off, False)
        return cost
    room.gaps[0] = rule.weight[2] + rule.excess[2]
    room.gaps[1] = rule.weight[3] + rule.weight[6] + rule.excess[3] + rule.excess[6]
    room.gaps[2] = rule.weight[4] + rule.excess[4]
    if room.gaps.sum() == 0.0:
        room.gaps[0] = 1.0
    if rule.right and scratch.plain:
        paste(trial.start, room.early)
        _shift_right(shop, room, rule, trial, makespan)
        cost = faults * FAULT + _measured(shop, scratch, room, rule, trial)
        if not rule.timed:
            return cost
        paste(trial.values, room.values)
        paste(trial.off, room.off)
        for o in range(len(room.end)):
            room.end[o], trial.start[o] = trial.start[o], room.early[o]
        early = faults * FAULT + _measured(shop, scratch, room, rule, trial)
        if early <= cost:
            return early
        paste(room.end, trial.start)
        paste(room.off, trial.off)
        paste(room.values, trial.values)
        return cost
    return faults * FAULT + _measured(shop, scratch, room, rule, trial)


@compiled
def _work_kwh(shop: Shop, trial: Trial) -> float:
    """What the chosen machines need for the work alone: no plan with them needs less."""
    kwh = 0.0
    for o in range(len(trial.choice)):
        if trial.choice[o] >= 0:
            a = shop.alt_first[o] + trial.choice[o]
            kwh += shop.alt_kw[a] * shop.alt_ticks[a]
    return kwh / shop.hour_ticks


@compiled
def cost_of(rule: Rule, values: Floats) -> float:
    """Of measures: the weighted sum, and what limits are exceeded by."""
    cost = 0.0
    for k in range(7):
        cost += _part(rule, k, values[k])
    return cost


@compiled
def _part(rule: Rule, k: int, value: float) -> float:
    cost: float = rule.weight[k] * value
    return cost + rule.excess[k] * (value - rule.limit[k]) if value > rule.limit[k] else cost


@compiled
def _measured(shop: Shop, scratch: Scratch, room: Room, rule: Rule, trial: Trial) -> float:
    choose(shop, scratch, trial.machine, trial.start, room.gaps, trial.off)
    measure(shop, scratch, trial.machine, trial.start, trial.off, rule.wanted, trial.values)
    return cost_of(rule, trial.values)


@compiled
def _places(shop: Shop, room: Room, trial: Trial) -> None:
    """Which operation stands at which place of the order, its ticks, and which stands before it on its machine."""
    fill(room.seen, 0)
    fill(room.last, -1)
    for i in range(len(trial.order)):
        j = trial.order[i]
        o = shop.job_first[j] + room.seen[j]
        room.seen[j] += 1
        room.at[i] = o
        m = trial.machine[o]
        trial.before[o] = room.last[m]
        room.last[m] = o
        a = shop.alt_first[o]
        while shop.alt_machine[a] != m:
            a += 1
        trial.choice[o] = a - shop.alt_first[o]
        room.ticks[o] = shop.alt_ticks[a]


@compiled
def _times(shop: Shop, room: Room, trial: Trial) -> tuple[float, float]:
    """Makespan and tardiness."""
    last = shop.past_makespan
    for o in range(len(trial.start)):
        last = max(last, trial.start[o] + room.ticks[o])
    late = shop.past_tardiness
    jobs = len(shop.job_ready)
    lots = len(shop.lot_due)
    if lots == jobs:  # nothing is split
        for j in range(jobs):
            o = shop.job_first[j + 1] - 1
            due = shop.lot_due[shop.job_lot[j]]
            late += max(0, max(shop.lot_past[shop.job_lot[j]], trial.start[o] + room.ticks[o]) - due)
        return float(last), float(late)
    for lot in range(lots):
        end = shop.lot_past[lot]
        for j in range(jobs):
            if shop.job_lot[j] == lot:
                o = shop.job_first[j + 1] - 1
                end = max(end, trial.start[o] + room.ticks[o])
        late += max(0, end - shop.lot_due[lot])
    return float(last), float(late)


@compiled
def _shift_right(shop: Shop, room: Room, rule: Rule, trial: Trial, makespan: float) -> None:
    """As late as the limit of the makespan allows, then left again behind each machine's first: gaps close."""
    cap = int(makespan)
    if rule.limit[0] > cap:
        if rule.limit[0] < FAR:
            cap = int(rule.limit[0])
        cap = min(cap, shop.horizon)
    late = rule.weight[1] > 0.0 or rule.limit[1] < FAR
    fill(room.free, FAR)
    for i in range(len(room.at) - 1, -1, -1):
        o = room.at[i]
        m = trial.machine[o]
        j = shop.op_job[o]
        ticks = room.ticks[o]
        latest = cap
        if o + 1 < shop.job_first[j + 1]:
            latest = trial.start[o + 1]
        elif late:
            latest = max(trial.start[o] + ticks, min(latest, shop.lot_due[shop.job_lot[j]]))
        if ticks:
            latest = min(latest, room.free[m])
        trial.start[o] = latest - ticks
        if ticks:
            room.free[m] = trial.start[o]
    for i in range(len(room.at)):
        o = room.at[i]
        m = trial.machine[o]
        ticks = room.ticks[o]
        j = shop.op_job[o]
        begin = room.free[m] if ticks else room.early[o]
        if o > shop.job_first[j]:
            begin = max(begin, trial.start[o - 1] + room.ticks[o - 1])
        else:
            begin = max(begin, shop.job_ready[j])
        trial.start[o] = begin
        if ticks:
            room.free[m] = begin + ticks


@compiled
def by_start(room: Room, shop: Shop, trial: Trial) -> None:
    """Put the order into that of starts, so that neighbours in it are neighbours in time. Valid where the decoder is
    plain; operations that begin together stay in order."""
    count = len(room.at)
    for i in range(1, count):  # nearly sorted already
        o = room.at[i]
        k = i - 1
        while k >= 0 and trial.start[room.at[k]] > trial.start[o]:
            room.at[k + 1] = room.at[k]
            k -= 1
        room.at[k + 1] = o
    for i in range(count):
        trial.order[i] = shop.op_job[room.at[i]]


@compiled
def change(shop: Shop, room: Room, now: Trial, trial: Trial, reach: int) -> int:
    """Make `trial` (its order and choice) a neighbour of `now`; which kind of step it is."""
    count = len(now.order)
    paste(now.order, trial.order)
    paste(now.choice, trial.choice)
    fill(room.seen, 0)
    for i in range(count):
        j = now.order[i]
        room.at[i] = shop.job_first[j] + room.seen[j]
        room.seen[j] += 1
    dice = np.random.random()
    i = np.random.randint(count)
    o = room.at[i]
    m = now.machine[o]
    if dice < 0.4:
        step = 1 if np.random.random() < 0.5 else -1
        to, q = i, i + step
        while 0 <= q < count and now.order[q] != now.order[i]:
            if now.machine[room.at[q]] == m:
                to = q
                if np.random.random() < 0.5:
                    break
            q += step
        if to == i:
            to = min(count - 1, max(0, i + step * (1 + np.random.randint(reach))))
        _insert(trial.order, i, to)
        return MOVE
    if dice < 0.74:
        trial.choice[o] = np.random.randint(shop.alt_first[o + 1] - shop.alt_first[o])
        if np.random.random() < 0.7:
            _insert(trial.order, i, min(count - 1, max(0, i + np.random.randint(-reach, reach + 1))))
        return MACHINE
    if dice < 0.98:
        for _ in range(20):
            q = np.random.randint(count)
            p = room.at[q]
            w = now.machine[p]
            if w == m:
                continue
            a, b = _place(shop, o, w), _place(shop, p, m)
            if a >= 0 and b >= 0:
                trial.choice[o], trial.choice[p] = a, b
                if np.random.random() < 0.5:
                    trial.order[i], trial.order[q] = trial.order[q], trial.order[i]
                return SWAP
        return STAY
    m = np.random.randint(len(shop.preheat))
    for o in range(count):
        options = shop.alt_first[o + 1] - shop.alt_first[o]
        if now.machine[o] == m and options > 1:
            a = np.random.randint(options - 1)
            trial.choice[o] = a if a < now.choice[o] else a + 1
    return EMPTY


@compiled
def _place(shop: Shop, o: int, m: int) -> int:
    """Which alternative of `o` machine `m` is, -1: none."""
    for a in range(shop.alt_first[o], shop.alt_first[o + 1]):
        if shop.alt_machine[a] == m:
            return int(a - shop.alt_first[o])
    return -1


@compiled
def _insert(order: Indices, i: int, to: int) -> None:
    job = order[i]
    if to > i:
        for q in range(i, to):
            order[q] = order[q + 1]
    else:
        for q in range(i, to, -1):
            order[q] = order[q - 1]
    order[to] = job
