"""Compiled: many annealed plans at once, apart, exchanged between temperatures, or coupled as slices of imaginary time.

    walked(shop, scratch, room, pool, best, terms, archive, trial, heat, coupling, rounds, seed)

Coupling is the path integral of quantum annealing (Suzuki-Trotter): the R plans are slices in a ring, and a slice that
agrees with its two neighbours (machines, and who stands before whom) is `coupling` · heat cheaper per agreement. With
it goes the tunnelling step: a slice takes over the whole line of a machine from a neighbour. Dimensions as in
`cloud.scheduling.searchkernel`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.scheduling.archive import Archive, archived
from cloud.scheduling.arrays import fill, paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.searchkernel import NEVER, STAY, Room, Rule, Trial, by_start, change, cost_of, lay_out
from cloud.scheduling.shop import Bools, Floats, Indices, Ints, Shop

INNER = 20
"""Steps of one plan before the next plan has its turn."""
REACH = 4
"""A step to another machine moves the operation at most so many places."""
TUNNEL = 0.05
"""Share of steps that take over a machine's line from a neighbouring slice."""
SLACK = 8.0
"""A step changes at most about so many agreements; beyond that a plan is given up before it is measured in full."""


class Pool(NamedTuple):
    """R plans. Written to."""

    order: Indices  # (R, O)
    choice: Indices  # (R, O)
    machine: Indices  # (R, O)
    before: Indices  # (R, O)
    start: Ints  # (R, O)
    off: Bools  # (R, O)
    values: Floats  # (R, 7)
    cost: Floats  # (R,) NEVER: not laid out yet


class Terms(NamedTuple):
    """What each plan is judged by, and all of them. Never written to."""

    weight: Floats  # (R, 7)
    limit: Floats  # (R, 7) inf: none
    excess: Floats  # (R, 7)
    hard: Floats  # (7,) limits that a plan of the result must keep
    places: Indices  # measures in order of importance
    summed: bool  # the best plan is that of least cost, else the first in this order
    wanted: int
    timed: bool
    right: bool
    keep: bool  # every plan goes to the archive
    exchange: bool  # plans change places between temperatures (or between terms)


def pool_of(shop: Shop, plans: int) -> Pool:
    """Room for so many plans."""
    shape = (plans, len(shop.op_job))
    return Pool(
        np.zeros(shape, np.int32),
        np.full(shape, -1, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.bool_),
        np.zeros((plans, 7)),
        np.full(plans, NEVER),
    )


@compiled
def member(pool: Pool, r: int) -> Trial:
    """Plan `r` of the pool, not copied."""
    return Trial(
        pool.order[r],
        pool.choice[r],
        pool.machine[r],
        pool.before[r],
        pool.start[r],
        pool.off[r],
        pool.values[r],
    )


@compiled
def rule_for(terms: Terms, r: int) -> Rule:
    """What plan `r` is judged by."""
    return Rule(terms.weight[r], terms.limit[r], terms.excess[r], terms.wanted, terms.timed, terms.right)


@compiled
def copied(source: Trial, target: Trial) -> None:
    """Plan for plan."""
    paste(source.order, target.order)
    paste(source.choice, target.choice)
    paste(source.machine, target.machine)
    paste(source.before, target.before)
    paste(source.start, target.start)
    paste(source.off, target.off)
    paste(source.values, target.values)


@compiled
def taken(terms: Terms, archive: Archive, best: Pool, trial: Trial, cost: float) -> bool:
    """Keep the plan as the best or in the archive, if it is one; whether it is the best now."""
    for k in range(7):
        if trial.values[k] > terms.hard[k] + 1e-9 * max(1.0, abs(terms.hard[k])):
            return False
    if terms.keep:
        archived(archive, trial.values, trial.machine, trial.start, trial.off)
    better = bool(best.cost[0] >= NEVER)
    if not better and terms.summed:
        better = bool(cost < best.cost[0] - 1e-9 * max(1.0, abs(cost)))
    elif not better:
        for i in range(len(terms.places)):
            a, b = trial.values[terms.places[i]], best.values[0, terms.places[i]]
            if abs(a - b) > 1e-9 * max(1.0, abs(b)):
                better = bool(a < b)
                break
    if better:
        copied(trial, member(best, 0))
        best.cost[0] = cost
    return better


@compiled
def begun(
    shop: Shop, scratch: Scratch, room: Room, pool: Pool, best: Pool, terms: Terms, archive: Archive, trial: Trial
) -> int:
    """Lay out the plans whose cost is not known; how many."""
    count = 0
    for r in range(len(pool.cost)):
        if pool.cost[r] >= NEVER:
            now = member(pool, r)
            pool.cost[r] = lay_out(shop, scratch, room, rule_for(terms, r), now, NEVER)
            count += 1
            if pool.cost[r] < 1e8:
                taken(terms, archive, best, now, pool.cost[r])
    return count


@compiled
def walked(
    shop: Shop, scratch: Scratch, room: Room, pool: Pool, best: Pool, terms: Terms, archive: Archive, trial: Trial,
    heat: Floats, coupling: float, rounds: int, seed: int,
) -> int:  # fmt: skip
    """`rounds` times INNER steps of every plan. heat (R,) temperatures. How many plans were laid out."""
    np.random.seed(seed)
    plans = len(pool.cost)
    count = 0
    for _ in range(rounds):
        for r in range(plans):
            now, rule = member(pool, r), rule_for(terms, r)
            one, two = (r + 1) % plans, (r + plans - 1) % plans
            for _ in range(INNER):
                if coupling > 0.0 and np.random.random() < TUNNEL:
                    other = member(pool, one if np.random.random() < 0.5 else two)
                    _tunnel(shop, room, now, other, trial)
                elif change(shop, room, now, trial, REACH) == STAY:
                    continue
                luck = -np.log(1.0 - np.random.random())
                most = pool.cost[r] + heat[r] * (luck + coupling * SLACK)
                cost = lay_out(shop, scratch, room, rule, trial, most)
                count += 1
                if cost > most:
                    continue
                if cost < 1e8:
                    taken(terms, archive, best, trial, cost)
                if coupling > 0.0:
                    gain = _agreement(trial, pool, one, two) - _agreement(now, pool, one, two)
                    if cost > pool.cost[r] + heat[r] * (luck + coupling * gain):
                        continue
                if scratch.plain:
                    by_start(room, shop, trial)
                copied(trial, now)
                pool.cost[r] = cost
        if terms.exchange:
            for r in range(plans - 1):
                _exchange(pool, terms, heat, r)
    return count


@compiled
def _exchange(pool: Pool, terms: Terms, heat: Floats, r: int) -> None:
    """Two neighbouring plans change places as Metropolis allows; each is judged by the rule of its new place."""
    s = r + 1
    low, high = cost_of(rule_for(terms, r), pool.values[s]), cost_of(rule_for(terms, s), pool.values[r])
    if max(pool.cost[r], pool.cost[s]) >= 1e8:
        low, high = pool.cost[s], pool.cost[r]
    loss = (low - pool.cost[r]) / heat[r] + (high - pool.cost[s]) / heat[s]
    if loss > 0.0 and np.random.random() >= np.exp(-loss):
        return
    for o in range(pool.order.shape[1]):
        pool.order[r, o], pool.order[s, o] = pool.order[s, o], pool.order[r, o]
        pool.choice[r, o], pool.choice[s, o] = pool.choice[s, o], pool.choice[r, o]
        pool.machine[r, o], pool.machine[s, o] = pool.machine[s, o], pool.machine[r, o]
        pool.before[r, o], pool.before[s, o] = pool.before[s, o], pool.before[r, o]
        pool.start[r, o], pool.start[s, o] = pool.start[s, o], pool.start[r, o]
        pool.off[r, o], pool.off[s, o] = pool.off[s, o], pool.off[r, o]
    for k in range(7):
        pool.values[r, k], pool.values[s, k] = pool.values[s, k], pool.values[r, k]
    pool.cost[r], pool.cost[s] = low, high


@compiled
def _agreement(one: Trial, pool: Pool, a: int, b: int) -> int:
    """In how many machines and neighbours on them it agrees with two plans."""
    same = 0
    for o in range(len(one.machine)):
        m, p = one.machine[o], one.before[o]
        same += pool.machine[a, o] == m
        same += pool.machine[b, o] == m
        same += pool.before[a, o] == p
        same += pool.before[b, o] == p
    return same


@compiled
def _tunnel(shop: Shop, room: Room, now: Trial, other: Trial, trial: Trial) -> None:
    """`now` with the line of one machine as `other` has it: the same operations in the same order."""
    paste(now.order, trial.order)
    paste(now.choice, trial.choice)
    m = other.machine[np.random.randint(len(other.machine))]
    for o in range(len(now.machine)):
        if other.machine[o] == m:
            trial.choice[o] = other.choice[o]
    taken_jobs = 0  # jobs with an operation there, in the order of `other`
    fill(room.seen, 0)
    for i in range(len(other.order)):
        j = other.order[i]
        o = shop.job_first[j] + room.seen[j]
        room.seen[j] += 1
        if other.machine[o] == m:
            room.items[taken_jobs] = o
            taken_jobs += 1
    fill(room.seen, 0)
    places = 0  # where these operations stand in `now`
    for i in range(len(now.order)):
        j = now.order[i]
        o = shop.job_first[j] + room.seen[j]
        room.seen[j] += 1
        if other.machine[o] == m:
            room.spare[places] = i
            places += 1
    for i in range(taken_jobs):
        trial.order[room.spare[i]] = shop.op_job[room.items[i]]
