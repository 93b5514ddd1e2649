"""What `shoal schedule` can be asked for: search, look at a plan, take one of a front, compare two, what if.

Each prints to standard output, writes what it was asked to write, and returns the exit code.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cloud.scheduling.compare import compare
from messages.plan import Plan
from messages.problem import Problem
from shoal.compare import figures, told
from shoal.report import Section
from shoal.schedule_figures import pareto_figure
from shoal.schedule_options import read_plan
from shoal.schedule_parts import (
    Task,
    chosen,
    dated,
    held,
    read_compared,
    read_front,
    read_sound,
    relaxed,
    why,
    write_front,
    write_plan,
    write_problem,
)
from shoal.schedule_run import Found, search
from shoal.schedule_show import gantt, plan_figures, print_rows, print_sections, report, summary
from shoal.schedule_stay import STAY, Replan
from shoal.schedule_table import SHOWN, front_section, plan_section
from shoal.schedule_ties import sooner
from shoal.schedule_whatif import changed, order


def run_search(task: Task, start: Path | None) -> int:
    """Search, choose, write, tell."""
    problem, wanted = task.problem, task.wanted
    first = None if start is None else read_plan(problem, start)
    found = search(problem, wanted, task.console, limits=task.limits, start=first)
    if not found.result.plans:
        found = relaxed(task, found)
    if not found.result.plans:
        return 1
    if not wanted.solver:
        found = replace(found, result=sooner(problem, found.goal, found.result))
    found = dated(task, found)
    held(task, problem, *found.result.plans)
    write_front(task, problem, found.result.plans)
    if task.take is not None and not 1 <= task.take <= len(found.result.plans):
        print_sections([_front(task, found, None)])
    best = chosen(found, wanted, task.take)
    write_plan(task, problem, best)
    front = [_front(task, found, best)] if wanted.front and problem.jobs else []
    _print_plan(task, problem, best)
    print_sections(front)
    rows = summary(problem, found.result, best, wanted.measures)
    print_rows(rows)
    reasons, sections = why(task, problem, best, found.result.plans) if task.explain else (None, [])
    print_sections(sections)
    if task.report:
        shown = plan_figures(problem, found, best, wanted.measures, reasons)
        report(task.report, problem, best, shown, rows, [*front, *sections, plan_section(problem, best)])
    return 0


def run_explain(task: Task, path: Path) -> int:
    """A plan as it is: nothing is searched but the price of less."""
    problem = task.problem
    plan = _dated(task, read_sound(task, problem, path, task.take))
    held(task, problem, plan)
    write_plan(task, problem, plan)
    if task.table:
        print_sections([plan_section(problem, plan)])
    reasons, sections = why(task, problem, plan)
    print_sections(sections)
    if task.report:
        figure = gantt(problem, plan, task.wanted.measures, reasons)
        report(task.report, problem, plan, [figure], (), [*sections, plan_section(problem, plan)])
    return 0


def run_take(task: Task, path: Path) -> int:
    """One plan of a front that was written before, or the one plan of a file, as it is: nothing is searched."""
    problem = task.problem
    plans, number, measures = read_front(task, problem, path, task.take)
    plans = [_dated(task, plan) for plan in plans]
    plan = plans[number]
    held(task, problem, plan)
    write_plan(task, problem, plan)
    front = []
    if len(plans) > 1:
        proved = all(one.status == "optimal" for one in plans)
        front = [front_section(problem, plans, measures, plan, proved=proved)]
    _print_plan(task, problem, plan)
    print_sections(front)
    rows = summary(problem, None, plan, measures)
    print_rows(rows)
    if task.report:
        shown = [gantt(problem, plan, measures, None)]
        if front and len(measures) > 1:
            shown.append(pareto_figure(problem, plans, plan, measures))
        report(task.report, problem, plan, shown, rows, [*front, plan_section(problem, plan)])
    return 0


def run_compare(task: Task, paths: tuple[Path, Path]) -> int:
    """Two plans side by side."""
    second = read_compared(task, paths[1])
    first = read_compared(task, paths[0], changed=second.problem_sha256 == task.problem.sha256)
    held(task, task.problem, first, second)
    found = compare(task.problem, first, second)
    names = (paths[0].stem, paths[1].stem) if paths[0].stem != paths[1].stem else (str(paths[0]), str(paths[1]))
    sections = told(task.problem, found, names)
    print_sections(sections)
    if task.report:
        shown = figures(task.problem, first, second, found, names)
        report(task.report, task.problem, second, shown, (), sections)
    return 0


def run_what_if(task: Task, path: Path, texts: list[str], now: str | None) -> int:
    """Freeze the plan, change one thing, plan what is left, and say what that changes."""
    old = read_sound(task, task.problem, path, task.take)
    task = replace(task, t0=task.t0 if task.t0 is not None else old.t0)
    problem, changes = changed(task.problem, old, texts, now)
    if task.problem_out:
        write_problem(task.problem_out, problem)
    measures = order(changes, task.wanted.measures)
    wanted = replace(task.wanted, measures=measures, lex=task.wanted.lex or task.wanted.weights is None, many=False)
    again = replace(task, problem=problem, wanted=wanted)
    free = wanted.solver or wanted.weights or wanted.replicas > 1 or wanted.ray
    stay = None if free else Replan(stay=STAY if task.stay is None else task.stay)
    found = search(problem, wanted, task.console, limits=task.limits, start=old, title="planning anew", solver=stay)
    if not found.result.plans:
        found = relaxed(again, found)
    if not found.result.plans:
        return 1
    found = dated(task, found)
    held(task, problem, *found.result.plans)
    write_front(again, problem, found.result.plans)
    best = chosen(found, wanted)
    write_plan(again, problem, best)
    if task.table:
        print_sections([plan_section(problem, best)])
    rows = summary(problem, found.result, best, measures)
    difference = compare(problem, old, best, before=task.problem)
    if stay is not None:
        rows.append(("moved", f"{difference.share_elsewhere:.1%} to another machine, at --stay {stay.stay:g}"))
    print_rows(rows)
    sections = told(problem, difference, ("plan", "what if"))
    if task.explain:
        sections += why(again, problem, best)[1]
    print_sections(sections)
    if task.report:
        shown = figures(problem, old, best, difference, ("plan", "what if"))
        report(task.report, problem, best, shown, rows, [*sections, plan_section(problem, best)])
    return 0


def _front(task: Task, found: Found, best: Plan | None) -> Section:
    proved = found.result.status == "optimal"
    return front_section(task.problem, found.result.plans, task.wanted.measures, best, proved=proved)


def _print_plan(task: Task, problem: Problem, plan: Plan) -> None:
    if plan.assignments:
        print_sections([plan_section(problem, plan, most=None if task.table else SHOWN)])


def _dated(task: Task, plan: Plan) -> Plan:
    return plan if task.t0 is None else plan.model_copy(update={"t0": task.t0})
