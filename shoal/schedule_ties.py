"""Among plans equal in the one measure asked for, the one that ends sooner: as far as moving starts alone brings it.

Machines and sequences stay. Shops of more than `MOST` operations times ticks are left as they are: it would take long.
"""

from __future__ import annotations

from dataclasses import replace

from cloud.scheduling import Result
from cloud.scheduling.seam import KEY, NEAR, Goal
from cloud.scheduling.shop import draft_of, plan_of, shop_of
from cloud.scheduling.timing import retime
from messages.judge import violations
from messages.problem import Problem

MOST = 50_000
TIMED = ("energy", "carbon", "cost", "ledger", "tardiness")
"""Measures that starts can be moved for."""


def sooner(problem: Problem, goal: Goal, result: Result) -> Result:
    """The result, its plan ending sooner where that loses nothing of the measure and breaks nothing."""
    if len(result.plans) != 1 or len(goal.order) != 1 or goal.order[0] not in TIMED:
        return result
    plan, first = result.plans[0], goal.order[0]
    shop, names = shop_of(problem)
    span = plan.objectives["makespan"]
    if not shop.operations or shop.operations * (span - problem.start_floor) > MOST:
        return result
    # All of the makespan weighs less than two values of the measure must differ to count as different.
    tie = NEAR * max(1.0, abs(plan.objectives[KEY[first]])) / max(1.0, span) / 2
    limits = {**problem.limits, **goal.limits}
    found = retime(shop, draft_of(shop, names, plan), {first: 1.0, "makespan": tie}, limits=limits)
    other = plan_of(problem, shop, names, found.draft, solver=plan.solver)
    if (
        other.objectives["makespan"] >= span
        or goal.better(plan.objectives, other.objectives)
        or not goal.within(problem, other.objectives)
        or violations(problem, other)
    ):
        return result
    kept = {"bound": plan.bound, "bound_of": plan.bound_of, "status": plan.status, "runtime_s": plan.runtime_s}
    return replace(result, plans=(other.model_copy(update=kept),), objective=other.objectives)
