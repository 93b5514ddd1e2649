"""Planning again with little nervousness: what was released moves only where that pays.

    again = replan(problem, before, goal=Goal(("makespan", "energy")), budget=Budget(0.9), stay=0.02)
    again.plan, again.moved, again.shift

`problem` holds what happened as history and what broke as windows; `before` is the plan that was in force. It is
repaired at once: every operation stays on its machine and in its turn, and begins when it can. Then CP-SAT and a walk
from the repaired plan search side by side. Of all that is found the plan with the least score wins:

    score = sum of weight · value / value of the repaired plan  +  stay · share of released operations that move

An operation moves when its machine changes; later measures of an order weigh `STEP` of the one before. With
`budget.evaluations` only the walk searches, and one seed gives one result.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.packed import packed, scratch_of
from cloud.scheduling.replankernel import Walk, Wish, score, steps, walk_from
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.seam import KEY, MEASURES, Budget, Exchange, Goal
from cloud.scheduling.shop import Draft, Indices, Names, Shop, plan_of, shop_of
from messages.judge import violations
from messages.plan import Plan
from messages.problem import Problem

STEP = 0.02
"""Weight of the second measure of an order against the first, of the third against the second, …"""
HOT, COLD = 0.01, 1e-4
"""Heat at the beginning and end of a walk, as a share of the repaired plan's score."""
CHUNK_S = 0.02
"""A walk looks up this often."""


@dataclass(frozen=True)
class Again:
    """A plan after a disturbance, and what it changes."""

    plan: Plan
    repaired: Plan
    moved: float
    """share of the released operations that are on another machine, 0 to 1"""
    shift: float
    """mean change of start of the released operations, ticks"""
    runtime_s: float


def replan(
    problem: Problem,
    before: Plan,
    *,
    goal: Goal | None = None,
    budget: Budget | None = None,
    stay: float = 0.02,
    seed: int = 0,
    exchange: Exchange | None = None,
) -> Again:
    """The plan with the least score within the budget; it keeps the limits of `goal` if any plan found does."""
    run = exchange or Exchange(problem, goal or Goal(), budget or Budget(1.0))
    shop, names = shop_of(problem)
    room = scratch_of(shop)
    order, choice, released = turns(shop, names, before)
    wish = _wish(problem, run.goal, released, stay)
    start = walk_from(order, choice, seed)
    score(packed(shop), room, wish, start, order, choice)
    repaired = _plan(problem, shop, names, start, "repair")
    wish = _scaled(wish, run.goal, repaired)
    run.offer(repaired)
    found = [repaired]
    if len(names.operations) and not run.over:
        helper = None
        broken: list[BaseException] = []
        if run.budget.evaluations is None and run.budget.workers > 1:
            helper = threading.Thread(
                target=_exact, args=(problem, run, repaired, seed, broken), name="replan", daemon=True
            )
            helper.start()
        found += _walked(problem, run, shop, names, room, wish, (order, choice), seed)
        if helper is not None:
            helper.join()
        if broken:
            raise broken[0]
        if run.best is not None:
            found.append(run.best)
    # The horizon or a greatest wait may be missed: such plans count only where nothing better is known.
    valid = [plan for plan in found if not violations(problem, plan)] or found
    kept = [plan for plan in valid if run.goal.within(problem, plan.objectives)] or valid
    best = min(kept, key=lambda plan: _score_of(plan, wish, names, released, run.goal))
    return Again(best, repaired, *nervousness(names, before, released, best), run.elapsed_s)


def repair(problem: Problem, before: Plan) -> Plan:
    """Every operation of `before` on its machine and in its turn, beginning when it can; what is new comes last."""
    shop, names = shop_of(problem)
    order, choice, released = turns(shop, names, before)
    walk = walk_from(order, choice, 0)
    score(packed(shop), scratch_of(shop), _wish(problem, Goal(), released, 0.0), walk, order, choice)
    return _plan(problem, shop, names, walk, "repair")


def moved_share(before: Plan, after: Plan) -> float:
    """Of the operations that both plan and that are not interrupted, the share on another machine."""
    old = {(one.job, one.op): one.machine for one in before.assignments if not one.interrupted}
    both = [
        old[one.job, one.op] != one.machine
        for one in after.assignments
        if not one.interrupted and (one.job, one.op) in old
    ]
    return sum(both) / len(both) if both else 0.0


def turns(shop: Shop, names: Names, before: Plan) -> tuple[Indices, Indices, Indices]:
    """How `before` reads for this problem: (order, choice, machine it was released to), each (O,).

    What it does not know comes last, in the order of release, wherever it is done earliest.
    """
    old = {(one.job, one.op): one for one in before.assignments if not one.interrupted}
    machines = {machine: m for m, machine in enumerate(names.machines)}
    count = len(names.operations)
    released, choice = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
    known = np.zeros(count, np.bool_)
    begin = shop.job_ready[shop.op_job].copy()
    for o, key in enumerate(names.operations):
        one = old.get(key)
        if one is not None and one.machine in machines:
            able = shop.alt_machine[shop.alt_first[o] : shop.alt_first[o + 1]].tolist()
            m = machines[one.machine]
            if m in able:
                released[o], choice[o] = m, able.index(m)
            known[o], begin[o] = True, one.start
    ranked = np.lexsort((np.arange(count), begin, ~known))
    return shop.op_job[ranked].astype(np.int32), choice, released


def nervousness(names: Names, before: Plan, released: Indices, after: Plan) -> tuple[float, float]:
    """(share of released operations on another machine, mean change of their start in ticks)."""
    old = {(one.job, one.op): one for one in before.assignments if not one.interrupted}
    new = {(one.job, one.op): one for one in after.assignments if not one.interrupted}
    pairs = [(old[key], new[key]) for key, m in zip(names.operations, released.tolist(), strict=True) if m >= 0]
    if not pairs:
        return 0.0, 0.0
    moved = sum(a.machine != b.machine for a, b in pairs) / len(pairs)
    return moved, sum(abs(a.start - b.start) for a, b in pairs) / len(pairs)


def _wish(problem: Problem, goal: Goal, released: Indices, stay: float) -> Wish:
    """Weights not yet scaled to the repaired plan."""
    weights, limits = np.zeros(len(MEASURES)), np.full(len(MEASURES), np.inf)
    for position, name in enumerate(goal.order):
        weights[MEASURES.index(name)] = STEP**position if goal.weights is None else goal.weights[name]
    for name, limit in (*problem.limits.items(), *goal.limits.items()):
        limits[MEASURES.index(name)] = min(limit, limits[MEASURES.index(name)])
    used = (weights > 0) | (limits < np.inf)
    gaps = np.array([weights[MEASURES.index(name)] for name in ("energy", "carbon", "cost")])
    gaps[0] = gaps[0] if gaps.any() else 1.0
    return Wish(released, weights, limits, gaps, int(sum(1 << k for k in used.nonzero()[0].tolist())), stay)


def _scaled(wish: Wish, goal: Goal, repaired: Plan) -> Wish:
    values = np.array([repaired.objectives.get(KEY[name], 0.0) for name in MEASURES])
    if goal.weights is None:
        return wish._replace(weights=wish.weights / np.maximum(np.abs(values), 1e-9))
    total = float(wish.weights @ values)
    return wish._replace(weights=wish.weights / max(abs(total), 1e-9))


def _walked(
    problem: Problem,
    run: Exchange,
    shop: Shop,
    names: Names,
    room: Scratch,
    wish: Wish,
    begin: tuple[Indices, Indices],
    seed: int,
) -> list[Plan]:
    """The best of the walks: from the repaired plan, and from what others found meanwhile."""
    walks = [walk_from(*begin, seed)]
    if run.budget.evaluations is not None:
        steps(packed(shop), room, wish, walks[0], run.budget.evaluations, HOT, COLD)
        return [_best(problem, shop, names, room, wish, walks[0])]
    fast, count, seen, adopted = packed(shop), 50, run.version, False
    while not run.over:
        hot = max(COLD, HOT * (COLD / HOT) ** min(1.0, run.elapsed_s / run.budget.seconds))
        chunk_s = run.elapsed_s
        for walk in walks:
            steps(fast, room, wish, walk, count, hot, hot)
        spent_s = max(run.elapsed_s - chunk_s, 1e-6)
        count = max(1, min(100_000, round(count * CHUNK_S / spent_s)))
        if run.version != seen and run.best is not None and run.elapsed_s > run.budget.seconds / 2 and not adopted:
            seen, adopted = run.version, True
            order, choice, _ = turns(shop, names, run.best)
            walks = [min(walks, key=lambda one: float(one.score[1])), walk_from(order, choice, seed + 1)]
    return [_best(problem, shop, names, room, wish, walk) for walk in walks]


def _best(problem: Problem, shop: Shop, names: Names, room: Scratch, wish: Wish, walk: Walk) -> Plan:
    score(packed(shop), room, wish, walk, walk.best_order, walk.best_choice)
    return _plan(problem, shop, names, walk, "replan")


def _plan(problem: Problem, shop: Shop, names: Names, walk: Walk, solver: str) -> Plan:
    draft = Draft(walk.machine.copy(), walk.start.copy(), walk.off.copy())
    return plan_of(problem, shop, names, draft, solver=solver)


def _exact(problem: Problem, run: Exchange, start: Plan, seed: int, broken: list[BaseException]) -> None:
    try:
        own = run.slice(run.left_s, workers=run.budget.workers - 1)
        CpSat().solve(problem, seed=seed, start=start, exchange=own)
    except BaseException as error:
        broken.append(error)  # raised again by the caller


def _score_of(plan: Plan, wish: Wish, names: Names, released: Indices, goal: Goal) -> float:
    values = sum(wish.weights[MEASURES.index(name)] * plan.objectives[KEY[name]] for name in goal.order)
    on = {(one.job, one.op): one.machine for one in plan.assignments if not one.interrupted}
    machines = [on[key] for key in names.operations]
    told = [names.machines[m] if m >= 0 else None for m in released.tolist()]
    moved = [a != b for a, b in zip(machines, told, strict=True) if b is not None]
    return float(values + wish.stay * sum(moved) / max(len(moved), 1))
