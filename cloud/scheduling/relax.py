"""What a limit costs: the price of a shorter plan, and what would meet limits that no plan keeps.

    price = price_of_less(problem, plan, ask, less=2, seconds=10)     # a makespan 2 ticks shorter
    price.values["energy"]                                            # (31779.7, 31920.4) kWh: before and after
    for one in unmet(problem, goal, ask, seconds=10):                 # after a search that found nothing
        one.least, one.limit                                          # 54.0, 48.0: the other limits kept

`ask` is any solver behind the seam, bound to its seed and threads. Both answer within about `seconds`, and say what was
proved and what was only not found in that time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloud.scheduling.seam import KEY, MEASURES, NEAR, Goal, Result
from messages.judge import missing
from messages.plan import Measure, Plan
from messages.problem import Problem

PRICED: tuple[Measure, ...] = ("cost", "carbon", "energy")
"""What a shorter plan is to save next: the first of these that the problem knows and nobody named another."""


Ask = Callable[[Problem, Goal, float, Plan | None], Result]
"""A search: what, for what, seconds, and a plan to begin with."""


@dataclass(frozen=True)
class Price:
    """What a makespan of at most `to` costs; times in ticks."""

    to: int
    measure: Measure
    """What was minimised within both makespans."""
    values: dict[Measure, tuple[float, float]] = field(default_factory=dict)
    """Best found within the plan's own makespan, and within the shorter one; empty: there is no shorter plan, or none
    was found."""
    proved: bool = False
    """Without values: no shorter plan exists. With them: both are optimal."""
    seconds: float = 0.0
    """Searched for so long, about."""


@dataclass(frozen=True)
class Unmet:
    """A limit that cannot be kept together with the others."""

    measure: Measure
    limit: float
    least: float | None
    """Least value found while the other limits are kept; None: none was found."""
    alone: float | None
    """Least value found without the other limits; None: not asked for, or none was found."""
    bound: float | None
    """No plan that keeps the others can be below."""


@dataclass(frozen=True)
class Relaxed:
    """Why no plan keeps the limits; `plan` is one that does after all."""

    unmet: tuple[Unmet, ...]
    plan: Plan | None = None


def price_of_less(
    problem: Problem,
    plan: Plan,
    ask: Ask,
    *,
    less: int,
    seconds: float,
    wanted: Measure | None = None,
    limits: Mapping[Measure, float] | None = None,
    known: Sequence[Plan] = (),
) -> Price:
    """What a plan costs that ends at least `less` ticks sooner, against the best one that ends no later than this.

    known  plans within the limits that were found before: a front
    """
    now = int(plan.objectives["makespan"])
    measure = wanted if wanted not in (None, "makespan") else priced(problem)
    price = Price(now - less, measure, seconds=seconds)
    proved = plan.bound is not None and plan.bound_of == "makespan" and plan.bound > price.to
    if proved or price.to < 0:
        return replace(price, proved=True)

    def best(found: Result, by: int) -> Plan | None:
        plans = [one for one in (plan, *known, *found.plans) if one.objectives["makespan"] <= by]
        return min(plans, key=lambda one: one.objectives[KEY[measure]], default=None)

    shorter = ask(problem, _within(measure, limits, price.to), seconds / 2, None)
    after = best(shorter, price.to)
    if after is None:
        return replace(price, proved=shorter.status == "infeasible")
    same = ask(problem, _within(measure, limits, now), seconds / 2, plan)
    # A shorter plan keeps the plan's own makespan too, so that less never seems to cost less than nothing.
    before = best(replace(same, plans=(*same.plans, after)), now) or plan
    shown = [name for name in MEASURES if name != "makespan" and not missing(problem, name)]
    values: dict[Measure, tuple[float, float]] = {
        name: (before.objectives[KEY[name]], after.objectives[KEY[name]]) for name in shown
    }
    return replace(price, values=values, proved=shorter.status == same.status == "optimal")


def unmet(problem: Problem, goal: Goal, ask: Ask, *, seconds: float) -> Relaxed:
    """After a search that found no plan: for each limit, what could be kept instead."""
    limits: dict[Measure, float] = {**problem.limits}
    for name, value in goal.limits.items():
        limits[name] = min(value, limits.get(name, value))
    bare = Problem.model_validate({**dict(problem), "limits": {}})
    found = []
    for name, limit in limits.items():
        others = {other: value for other, value in limits.items() if other != name}
        slice_s = seconds / len(limits) / (2 if others else 1)
        result = ask(bare, Goal((name,), limits=others), slice_s, None)
        least = result.plans[0].objectives[KEY[name]] if result.plans else None
        bound = least if result.status == "optimal" else result.bound
        if least is not None and least <= limit + NEAR * max(1.0, abs(limit)):
            return Relaxed(
                (), result.plans[0].model_copy(update={"problem_sha256": problem.sha256, "status": "feasible"})
            )
        alone = least
        if least is None and others:
            result = ask(bare, Goal((name,)), slice_s, None)
            alone = result.plans[0].objectives[KEY[name]] if result.plans else None
        found.append(Unmet(name, limit, least, alone, bound if least is not None else None))
    return Relaxed(tuple(found))


def priced(problem: Problem) -> Measure:
    """What a shorter plan costs, where nobody says."""
    return next(one for one in PRICED if not missing(problem, one))


def _within(measure: Measure, limits: Mapping[Measure, float] | None, makespan: int) -> Goal:
    return Goal((measure,), limits={**(limits or {}), "makespan": float(makespan)})
