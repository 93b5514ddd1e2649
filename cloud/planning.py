"""From a problem to the plan that goes out: one at once, then alternatives, then which of them.

    first = at_once(problem, before)                     # milliseconds
    found = alternatives(problem, first, before, settings, stop)
    plan = found[chosen(found, measures, settings, preference, before)]

`before` is the plan in force, in the ticks of `problem`; what it released moves only where that pays
(`cloud.scheduling.replan`). Pure but for the time it takes, and for what a cluster says. Once `stop` is set a search
ends with what it has.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import structlog

from cloud.preference import Preference, preferred
from cloud.scheduling import KEY, Budget, Dispatch, Goal, Portfolio
from cloud.scheduling.cast import rules_for
from cloud.scheduling.executor import Local, Task, executor_of
from cloud.scheduling.front import non_dominated
from cloud.scheduling.replan import moved_share, repair, replan
from cloud.scheduling.seam import Exchange, Result
from cloud.settings import PlannerSettings
from messages.checks import missing
from messages.errors import UsageError
from messages.judge import violations
from messages.plan import Measure, Plan
from messages.problem import Problem

log = structlog.get_logger("planner")

REPLAN_SHARE, REPLAN_MOST_S = 0.3, 1.0
"""Of the time box for planning near what was released, and the most of it."""

SPEAKS_OF: Mapping[str, frozenset[Measure]] = {
    "carbon": frozenset({"carbon", "ledger"}),
    "tariff": frozenset({"cost"}),
    "generation": frozenset({"carbon", "ledger", "cost", "peak"}),
}
"""Forecasts, and the measures that change with them."""


def measures_of(problem: Problem, settings: PlannerSettings) -> tuple[Measure, ...]:
    """The objectives that this problem can be judged by; makespan, if none."""
    return tuple(name for name in settings.objectives if not missing(problem, name)) or ("makespan",)


def speaks_of(signal: str, settings: PlannerSettings) -> bool:
    """Whether plans for these objectives are others when this forecast is another."""
    return not SPEAKS_OF.get(signal, frozenset()).isdisjoint(settings.objectives)


def in_ticks_of(plan: Plan, ticks: int) -> Plan:
    """What `plan` gives to whom and in which turn, counted from `ticks` later; nothing else of it holds then."""
    if ticks == 0:
        return plan
    moved = [
        one.model_copy(update={"start": max(0, one.start - ticks), "end": max(0, one.end - ticks)})
        for one in plan.assignments
    ]
    return Plan(assignments=tuple(moved), revision=plan.revision)


def at_once(problem: Problem, before: Plan | None) -> Plan:
    """The plan in force repaired, or else the best of the rules by makespan."""
    if before is not None:
        return repair(problem, before)
    plans = [Dispatch(rule=rule).solve(problem).plans[0] for rule in rules_for(problem)]
    return min(plans, key=lambda plan: (plan.objectives["makespan"], plan.objectives["energy_kwh"]))


def alternatives(
    problem: Problem, first: Plan, before: Plan | None, settings: PlannerSettings, stop: threading.Event
) -> list[Plan]:
    """`first`, and whatever the time box yields: a front of the objectives, and a plan near the one in force."""
    measures = measures_of(problem, settings)
    left_s = settings.budget_s
    found = [first]
    if before is not None:
        near_s = min(REPLAN_MOST_S, REPLAN_SHARE * left_s)
        near = Exchange(problem, Goal(measures), Budget(near_s, workers=settings.workers), stop=stop)
        found.append(replan(problem, before, stay=settings.stay, seed=settings.seed, exchange=near).plan)
        left_s -= near_s
    goal = Goal(measures, front=len(measures) > 1)
    task = Task(
        Portfolio(), problem, goal, Budget(left_s, workers=settings.workers), seed=settings.seed, start=found[-1]
    )
    result = _solved(task, settings.ray, stop)
    return [plan for plan in (*found, *result.plans) if not violations(problem, plan)] or [first]


def _solved(task: Task, ray: str | None, stop: threading.Event) -> Result:
    """By the cluster, if there is one and it can; else here."""
    if ray is not None:
        try:
            (result,) = executor_of(ray, at_once=1).run([task], stop)
            return result
        except UsageError as error:
            log.warning("plan.no_cluster", why=str(error)[:500], then="it is planned on this machine")
    (result,) = Local(at_once=1).run([task], stop)
    return result


def chosen(
    found: Sequence[Plan],
    measures: Sequence[Measure],
    settings: PlannerSettings,
    preference: Preference | None,
    before: Plan | None,
) -> int:
    """The place of the plan to put in force."""
    moved = [0.0 if before is None else moved_share(before, plan) for plan in found]
    front = [plan.objectives for plan in front_of(found, measures)]
    values = [plan.objectives for plan in found]
    return preferred(values, measures, preference, moved=moved, stay=settings.stay, front=front)


def policy(measures: Sequence[Measure], preference: Preference | None) -> str:
    """What a plan was made for, in words for people."""
    if preference is None:
        return ", then ".join(measures)
    shares = ", ".join(f"{name} {preference.weights.get(name, 0.0):.2f}" for name in measures)
    return f"{shares} by {preference.by or 'a choice'}"


def front_of(found: Sequence[Plan], measures: Sequence[Measure]) -> list[Plan]:
    """Those that no other beats, sorted by the first measure."""
    kept = non_dominated(found, measures)
    return sorted(kept, key=lambda plan: [plan.objectives[KEY[name]] for name in measures])
