"""From a problem to the plan that goes out: one at once, then alternatives, then which of them.

    first = at_once(problem, before)                     # milliseconds
    found = alternatives(problem, first, before, settings)
    plan = found[chosen(found, settings, preference, before)]

`before` is the plan in force, in the ticks of `problem`; what it released moves only where that pays
(`cloud.scheduling.replan`). Pure but for the time it takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.preference import Preference, preferred
from cloud.scheduling import KEY, Budget, Dispatch, Goal, Portfolio
from cloud.scheduling.cast import rules_for
from cloud.scheduling.executor import Task, executor_of
from cloud.scheduling.front import non_dominated
from cloud.scheduling.replan import moved_share, repair, replan
from cloud.settings import PlannerSettings
from messages.checks import missing
from messages.judge import violations
from messages.plan import Measure, Plan
from messages.problem import Problem

REPLAN_SHARE, REPLAN_MOST_S = 0.3, 1.0
"""Of the time box for planning near what was released, and the most of it."""


def measures_of(problem: Problem, settings: PlannerSettings) -> tuple[Measure, ...]:
    """The objectives that this problem can be judged by; makespan, if none."""
    return tuple(name for name in settings.objectives if not missing(problem, name)) or ("makespan",)


def at_once(problem: Problem, before: Plan | None) -> Plan:
    """The plan in force repaired, or else the best of the rules by makespan."""
    if before is not None:
        return repair(problem, before)
    plans = [Dispatch(rule=rule).solve(problem).plans[0] for rule in rules_for(problem)]
    return min(plans, key=lambda plan: (plan.objectives["makespan"], plan.objectives["energy_kwh"]))


def alternatives(problem: Problem, first: Plan, before: Plan | None, settings: PlannerSettings) -> list[Plan]:
    """`first`, and whatever the time box yields: a front of the objectives, and a plan near the one in force."""
    measures = measures_of(problem, settings)
    left_s = settings.budget_s
    found = [first]
    if before is not None:
        near_s = min(REPLAN_MOST_S, REPLAN_SHARE * left_s)
        near = Budget(near_s, workers=settings.workers)
        found.append(
            replan(problem, before, goal=Goal(measures), budget=near, stay=settings.stay, seed=settings.seed).plan
        )
        left_s -= near_s
    goal = Goal(measures, front=len(measures) > 1)
    task = Task(
        Portfolio(), problem, goal, Budget(left_s, workers=settings.workers), seed=settings.seed, start=found[-1]
    )
    (result,) = executor_of(settings.ray, at_once=1).run([task])
    return [plan for plan in (*found, *result.plans) if not violations(problem, plan)] or [first]


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
    if preference is None or set(preference.weights) != set(measures):
        return ", then ".join(measures)
    shares = ", ".join(f"{name} {preference.weights[name]:.2f}" for name in measures)
    return f"{shares} by {preference.by or 'a choice'}"


def front_of(found: Sequence[Plan], measures: Sequence[Measure]) -> list[Plan]:
    """Those that no other beats, sorted by the first measure."""
    kept = non_dominated(found, measures)
    return sorted(kept, key=lambda plan: [plan.objectives[KEY[name]] for name in measures])
