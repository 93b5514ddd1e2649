"""What the tasks of `shoal schedule` share: plans read, chosen, written; why there is none; what to warn of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from cloud.scheduling import KEY
from cloud.scheduling.explain import Explanation, explain
from cloud.scheduling.front import choose, corners
from cloud.scheduling.relax import Price, price_of_less, unmet
from messages.curve import CURVES
from messages.errors import ConfigError, ShoalError, UsageError
from messages.instances import plan_document, problem_text
from messages.judge import missing, violations
from messages.plan import Measure, Plan
from messages.problem import UNIT_S, Problem
from shoal import schedule_options as options
from shoal.report import Section
from shoal.schedule_explain import told, unmet_told
from shoal.schedule_figures import said
from shoal.schedule_options import Wanted
from shoal.schedule_run import Found, asker
from shoal.schedule_show import write, write_text
from shoal.schedule_table import plan_csv

Measures = tuple[Measure, ...]
EXPLAIN_S = 10.0
"""At most so long is searched for a shorter plan, and for what would meet limits; less with a smaller --budget."""


@dataclass(frozen=True)
class Task:
    """What to do with which problem, and where it goes."""

    problem: Problem
    wanted: Wanted
    limits: Mapping[Measure, float]
    console: Console
    out: Path | None
    front: Path | None
    report: Path | None
    explain: bool
    problem_out: Path | None = None
    stay: float | None = None
    csv: Path | None = None
    table: bool = False
    take: int | None = None
    t0: int | None = None
    """UTC microseconds of tick 0, as --begins says."""


def plain(error: Exception) -> str:
    """For a console that reads markup."""
    return str(error).replace("[", r"\[")


def held(task: Task, problem: Problem, *plans: Plan) -> None:
    """Warn of curves that end before a plan does; with a stated horizon they are refused."""
    end = max(int(plan.objectives["makespan"]) for plan in plans)
    if problem.horizon is not None:
        return
    for kind in CURVES:
        for carrier, curve in getattr(problem, kind).items():
            if len(curve.values) > 1 and not curve.periodic and curve.end < end:  # one value is meant to hold for good
                since, until = (f"{problem.in_unit(at):g} {problem.time_unit}".rstrip() for at in (curve.end, end))
                task.console.print(
                    f"warning: {kind}.{carrier} ends at {since}, the plan at {until}: from {since} on its last value, "
                    f"{curve.values[-1]:g}, was held; give more values, say `periodic`, or state a horizon",
                    soft_wrap=True,
                    highlight=False,
                    markup=False,
                )


def read_sound(task: Task, problem: Problem, path: Path, take: int | None = None) -> Plan:
    """A plan of a file; what speaks against it is said, and it is looked at all the same."""
    return _sound(task, problem, path, options.read_plan(problem, path, take))


def read_front(task: Task, problem: Problem, path: Path, take: int | None) -> tuple[list[Plan], int, Measures]:
    """The plans of a file, the place of the one that was taken, and of what they are a front: as several --objectives
    say, else as the file does."""
    plans, named = options.read_plans(problem, path)
    at = options.taken(path, len(plans), take)
    _sound(task, problem, path, plans[at])
    measures = task.wanted.measures
    if named and not any(missing(problem, name) for name in named):
        ideal, nadir = corners(plans, named)
        plans = [plan.model_copy(update={"ideal": ideal, "nadir": nadir}) for plan in plans]
        measures = measures if len(measures) > 1 else named
    return plans, at, measures


def _sound(task: Task, problem: Problem, path: Path, plan: Plan) -> Plan:
    faults = violations(problem, plan)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        task.console.print(f"{path}: this plan does not hold: {plain(ShoalError(faults[0]))}{more}", soft_wrap=True)
    return plan


def read_compared(task: Task, path: Path, *, changed: bool = False) -> Plan:
    """A plan beside another; one of another problem is looked at as far as it can be, and that is said.

    changed  FILE is the problem of the other plan, so that this one need not keep its rules
    """
    cure = "give as FILE the problem that --problem-out wrote beside --what-if or --split"
    try:
        plan = options.read_plan(task.problem, path)
    except ConfigError as error:
        raise ConfigError(f"{error}; after a change {cure}") from None
    if plan.problem_sha256 not in ("", task.problem.sha256):
        more = "counted as FILE counts" if changed else f"if it was changed, {cure}"
        task.console.print(f"{path}: made for another problem than FILE; {more}", soft_wrap=True)
        if changed:
            return plan
    return _sound(task, task.problem, path, plan)


def write_problem(path: Path, problem: Problem) -> None:
    """As `load_problem` reads it."""
    write_text(path, problem_text(problem))


def relaxed(task: Task, found: Found) -> Found:
    """Why there is no plan; where limits are the reason, by how much and what would meet them."""
    result = found.result
    limits = {**task.problem.limits, **task.limits}
    reason = result.reason
    if limits and result.status == "infeasible":
        kept = ", ".join(f"{name} <= {said(task.problem, name, value)}" for name, value in limits.items())
        reason = f"proved: no plan keeps {kept}"
    task.console.print(f"[bold red]{result.status}:[/] {plain(ShoalError(reason))}", soft_wrap=True)
    if not limits or not task.problem.jobs:
        return found
    seconds = min(EXPLAIN_S, task.wanted.budget_s)
    ask = asker(task.wanted, task.console, "what would do")
    missed = unmet(task.problem, found.goal, ask, seconds=seconds)
    if missed.plan is not None:
        task.console.print("a plan within the limits was found after all, while looking at one limit at a time")
        plans = (missed.plan,)
        return replace(found, result=replace(result, plans=plans, status="feasible", reason=""))
    for line in unmet_told(task.problem, missed, proved=result.status == "infeasible"):
        task.console.print(line, markup=False, highlight=False, soft_wrap=True)
    return found


def why(task: Task, problem: Problem, plan: Plan, known: Sequence[Plan] = ()) -> tuple[Explanation, list[Section]]:
    """What binds a plan, and that in words."""
    found = explain(problem, plan, task.limits)
    return found, told(problem, found, _price(task, problem, plan, known))


def _price(task: Task, problem: Problem, plan: Plan, known: Sequence[Plan]) -> Price | None:
    """Of a plan that ends an hour, minute or second sooner, as the file counts."""
    if not plan.assignments or violations(problem, plan):
        return None
    less = max(1, round(UNIT_S[problem.time_unit] / problem.tick_s))
    wanted = next((one for one in task.wanted.measures if one not in ("makespan", "tardiness")), None)
    ask = asker(task.wanted, task.console, "price of less")
    seconds = min(EXPLAIN_S, task.wanted.budget_s)
    return price_of_less(problem, plan, ask, less=less, seconds=seconds, wanted=wanted, limits=task.limits, known=known)


def chosen(found: Found, wanted: Wanted, take: int | None = None) -> Plan:
    """The plan of that number, else the one that weights, the order of objectives or the least regret choose."""
    plans = found.result.plans
    if take is not None:
        if not 1 <= take <= len(plans):
            raise UsageError(f"--take {take}: the front has {len(plans)}; give a number from 1 to {len(plans)}")
        return plans[take - 1]
    if len(wanted.measures) == 1 or len(plans) == 1:
        return plans[0]
    if wanted.lex:
        return min(plans, key=lambda plan: [round(plan.objectives[KEY[m]], 6) for m in wanted.measures])
    return choose(plans, wanted.measures, wanted.weights)


def dated(task: Task, found: Found) -> Found:
    """Its plans say when tick 0 is, where that was said."""
    if task.t0 is None:
        return found
    plans = tuple(plan.model_copy(update={"t0": task.t0}) for plan in found.result.plans)
    return replace(found, result=replace(found.result, plans=plans))


def write_front(task: Task, problem: Problem, plans: Sequence[Plan]) -> None:
    """Before one is chosen: a wrong number loses nothing."""
    if task.front:
        write(task.front, [plan_document(problem, plan) for plan in plans])


def write_plan(task: Task, problem: Problem, best: Plan) -> None:
    """As JSON, or as a table where the name says .csv."""
    for path in filter(None, (task.out, task.csv)):
        if path is task.csv or path.suffix.lower() == ".csv":
            write_text(path, plan_csv(problem, best))
        else:
            write(path, plan_document(problem, best))
