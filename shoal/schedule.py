"""`shoal schedule FILE`: plan a problem for time, energy, carbon, cost; explain, compare and disturb its plans.

    shoal schedule FILE --objectives makespan,energy --out plan.json --report plan.html
    shoal schedule FILE --plan plan.json --explain
    shoal schedule FILE --plan plan.json --what-if "down kiln-1 10h 14h"
    shoal schedule FILE --compare a.json b.json

Exit codes: 0 done (also when Ctrl-C ended the search: the best so far counts), 1 no plan was found, 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from messages.curve import CURVES
from messages.errors import ConfigError, ShoalError, UsageError
from messages.instances import load_problem, plan_document, problem_text
from messages.judge import violations
from messages.plan import Measure, Plan
from messages.problem import UNIT_S, Problem
from shoal import schedule_modes as modes
from shoal import schedule_options as options
from shoal.schedule_options import Wanted

if TYPE_CHECKING:  # ortools, numba and plotly take a moment: they are loaded when a problem was read
    from cloud.scheduling.explain import Explanation
    from cloud.scheduling.relax import Price
    from shoal.report import Section
    from shoal.schedule_run import Found

EXPLAIN_S = 10.0
"""At most so long is searched for a shorter plan, and for what would meet limits; less with a smaller --budget."""


def schedule(
    file: Annotated[Path, typer.Argument(help="problem in JSON, or an .fjs instance", metavar="FILE")],
    objectives: Annotated[
        str, typer.Option(help=f"one or several of {','.join(options.MEASURES)}; several give a front")
    ] = "makespan",
    budget: Annotated[str, typer.Option(help="seconds to search", metavar="SECONDS")] = "10",
    limit: Annotated[
        list[str] | None,
        typer.Option(help="most that a plan may reach, in the unit of the file; again for more", metavar="NAME=VALUE"),
    ] = None,
    max_evaluations: Annotated[
        int | None, typer.Option(help="end after so many: one seed then gives one result on any machine", min=1)
    ] = None,
    workers: Annotated[int, typer.Option(help="threads", min=1, max=64)] = 2,
    seed: Annotated[int, typer.Option(help="of the search", min=0)] = 1,
    solver: Annotated[str, typer.Option(help="by name, else the best there is; a wrong name lists them")] = "",
    replicas: Annotated[
        int, typer.Option(help="independent searches with different seeds; the best of all counts", min=1, max=1000)
    ] = 1,
    ray: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster that searches; needs shoal\\[ray]", metavar="ADDRESS")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="begin the search with this plan (JSON)")] = None,
    out: Annotated[Path | None, typer.Option(help="write the plan here (JSON)")] = None,
    front: Annotated[Path | None, typer.Option(help="write the list of plans here (JSON)")] = None,
    report: Annotated[Path | None, typer.Option(help="write Gantt, front and convergence here (HTML)")] = None,
    weights: Annotated[
        str | None, typer.Option(help="choose from the front by weights: makespan=0.7,energy=0.3 or 0.7,0.3")
    ] = None,
    lex: Annotated[
        bool, typer.Option("--lex", help="choose by the order of --objectives: the first counts most")
    ] = False,
    split: Annotated[
        list[str] | None, typer.Option(help="cut a job into so many lots; again for more", metavar="JOB=LOTS")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="say what binds: critical path, bottleneck, price of less, late orders")
    ] = False,
    plan: Annotated[Path | None, typer.Option(help="the plan that --explain or --what-if is about (JSON)")] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(help='"down MACHINE FROM TO", "rush JOB due TIME" or "add FILE", with --plan; again for more'),
    ] = None,
    now: Annotated[str | None, typer.Option(help="of --what-if: what began earlier is frozen", metavar="TIME")] = None,
    stay: Annotated[
        float | None,
        typer.Option(
            help="of --what-if: price of moving every operation to another machine, as a share of the objective; 0.02",
            metavar="SHARE",
        ),
    ] = None,
    problem_out: Annotated[
        Path | None, typer.Option(help="write the problem that --what-if or --split made here (JSON)", metavar="FILE")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="two plans side by side; nothing is searched", metavar="A B")
    ] = None,
) -> None:
    """Plan a problem: fast, provably, and with the energy it takes."""
    console = Console(stderr=True)
    try:
        for path in (out, front, report, problem_out):
            options.writable(path)
        wanted = options.wanted(
            objectives,
            budget,
            evaluations=max_evaluations,
            workers=workers,
            seed=seed,
            solver=solver,
            weights=weights,
            lex=lex,
            many=bool(front or report),
            replicas=replicas,
            ray=ray,
        )
        modes.together(compare, what_if, plan, explain, now, start)
        modes.nothing_ignored(compare, what_if, plan, split, out, front, problem_out)
        modes.price(stay, what_if, alone=not (solver or weights or replicas > 1 or ray))
        problem = load_problem(file)
        if split:
            from cloud.scheduling.lots import split as cut

            problem = cut(problem, options.split_into(split))
            if problem_out and not what_if:
                _write_problem(problem_out, problem)
        limits = options.limits(limit or (), problem)
        task = _Task(problem, wanted, limits, console, out, front, report, explain, problem_out, stay)
        if compare is not None:
            code = _compare(task, compare)
        else:
            options.check(problem, file, [*wanted.measures, *limits])
            if what_if and plan is not None:
                code = _what_if(task, plan, what_if, now)
            elif plan is not None:
                code = _explain(task, plan)
            else:
                code = _search(task, start)
    except UsageError as error:
        console.print(f"shoal: {_plain(error)}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from None
    except ShoalError as error:
        console.print(f"shoal: {_plain(error)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True)
class _Task:
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


def _plain(error: Exception) -> str:
    return str(error).replace("[", r"\[")


# --- what can be asked for ---------------------------------------------------------------------------


def _search(task: _Task, start: Path | None) -> int:
    from shoal.schedule_run import search
    from shoal.schedule_show import plan_figures, print_rows, print_sections, report, summary
    from shoal.schedule_ties import sooner

    problem, wanted = task.problem, task.wanted
    first = None if start is None else options.read_plan(problem, start)
    found = search(problem, wanted, task.console, limits=task.limits, start=first)
    if not found.result.plans:
        found = _relaxed(task, found)
    if not found.result.plans:
        return 1
    if not wanted.solver:
        found = replace(found, result=sooner(problem, found.goal, found.result))
    best = _chosen(found, wanted)
    _held(task, problem, *found.result.plans)
    _write_plans(task, problem, found, best)
    rows = summary(problem, found.result, best, wanted.measures)
    print_rows(rows)
    why, sections = _why(task, problem, best, found.result.plans) if task.explain else (None, [])
    print_sections(sections)
    if task.report:
        figures = plan_figures(problem, found, best, wanted.measures, why)
        report(task.report, problem, best, figures, rows, sections)
    return 0


def _explain(task: _Task, path: Path) -> int:
    """A plan as it is: nothing is searched but the price of less."""
    from shoal.schedule_show import gantt, print_sections, report

    plan = _read_sound(task, task.problem, path)
    _held(task, task.problem, plan)
    why, sections = _why(task, task.problem, plan)
    print_sections(sections)
    if task.report:
        report(task.report, task.problem, plan, [gantt(task.problem, plan, task.wanted.measures, why)], (), sections)
    return 0


def _compare(task: _Task, paths: tuple[Path, Path]) -> int:
    from cloud.scheduling.compare import compare
    from shoal.compare import figures, told
    from shoal.schedule_show import print_sections, report

    second = _read_compared(task, paths[1])
    first = _read_compared(task, paths[0], changed=second.problem_sha256 == task.problem.sha256)
    _held(task, task.problem, first, second)
    found = compare(task.problem, first, second)
    names = (paths[0].stem, paths[1].stem) if paths[0].stem != paths[1].stem else (str(paths[0]), str(paths[1]))
    sections = told(task.problem, found, names)
    print_sections(sections)
    if task.report:
        shown = figures(task.problem, first, second, found, names)
        report(task.report, task.problem, second, shown, (), sections)
    return 0


def _what_if(task: _Task, path: Path, texts: list[str], now: str | None) -> int:
    """Freeze the plan, change one thing, plan what is left, and say what that changes."""
    from cloud.scheduling.compare import compare
    from shoal.compare import figures, told
    from shoal.schedule_run import search
    from shoal.schedule_show import print_rows, print_sections, report, summary
    from shoal.schedule_stay import STAY, Replan
    from shoal.schedule_whatif import changed, order

    old = _read_sound(task, task.problem, path)
    problem, changes = changed(task.problem, old, texts, now)
    if task.problem_out:
        _write_problem(task.problem_out, problem)
    measures = order(changes, task.wanted.measures)
    wanted = replace(task.wanted, measures=measures, lex=task.wanted.lex or task.wanted.weights is None, many=False)
    again = replace(task, problem=problem, wanted=wanted)
    free = wanted.solver or wanted.weights or wanted.replicas > 1 or wanted.ray
    stay = None if free else Replan(stay=STAY if task.stay is None else task.stay)
    found = search(problem, wanted, task.console, limits=task.limits, start=old, title="planning anew", solver=stay)
    if not found.result.plans:
        found = _relaxed(again, found)
    if not found.result.plans:
        return 1
    best = _chosen(found, wanted)
    _held(task, problem, *found.result.plans)
    _write_plans(again, problem, found, best)
    rows = summary(problem, found.result, best, measures)
    difference = compare(problem, old, best, before=task.problem)
    if stay is not None:
        rows.append(("moved", f"{difference.share_elsewhere:.1%} to another machine, at --stay {stay.stay:g}"))
    print_rows(rows)
    sections = told(problem, difference, ("plan", "what if"))
    if task.explain:
        sections += _why(again, problem, best)[1]
    print_sections(sections)
    if task.report:
        shown = figures(problem, old, best, difference, ("plan", "what if"))
        report(task.report, problem, best, shown, rows, sections)
    return 0


# --- their parts -------------------------------------------------------------------------------------


def _held(task: _Task, problem: Problem, *plans: Plan) -> None:
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


def _read_sound(task: _Task, problem: Problem, path: Path) -> Plan:
    """A plan of a file; what speaks against it is said, and it is looked at all the same."""
    return _sound(task, problem, path, options.read_plan(problem, path))


def _sound(task: _Task, problem: Problem, path: Path, plan: Plan) -> Plan:
    faults = violations(problem, plan)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        task.console.print(f"{path}: this plan does not hold: {_plain(ShoalError(faults[0]))}{more}", soft_wrap=True)
    return plan


def _read_compared(task: _Task, path: Path, *, changed: bool = False) -> Plan:
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


def _write_problem(path: Path, problem: Problem) -> None:
    try:
        path.write_text(problem_text(problem), encoding="utf-8")
    except OSError as error:
        raise ShoalError(f"cannot be written: {error}; choose another file") from None


def _relaxed(task: _Task, found: Found) -> Found:
    """Why there is no plan; where limits are the reason, by how much and what would meet them."""
    from cloud.scheduling.relax import unmet
    from shoal.schedule_explain import unmet_told
    from shoal.schedule_figures import said
    from shoal.schedule_run import asker

    result = found.result
    limits = {**task.problem.limits, **task.limits}
    reason = result.reason
    if limits and result.status == "infeasible":
        kept = ", ".join(f"{name} <= {said(task.problem, name, value)}" for name, value in limits.items())
        reason = f"proved: no plan keeps {kept}"
    task.console.print(f"[bold red]{result.status}:[/] {_plain(ShoalError(reason))}", soft_wrap=True)
    if not limits or not task.problem.jobs:
        return found
    seconds = min(EXPLAIN_S, task.wanted.budget_s)
    ask = asker(task.wanted, task.console, "what would do")
    relaxed = unmet(task.problem, found.goal, ask, seconds=seconds)
    if relaxed.plan is not None:
        task.console.print("a plan within the limits was found after all, while looking at one limit at a time")
        plans = (relaxed.plan,)
        return replace(found, result=replace(result, plans=plans, status="feasible", reason=""))
    for line in unmet_told(task.problem, relaxed, proved=result.status == "infeasible"):
        task.console.print(line, markup=False, highlight=False, soft_wrap=True)
    return found


def _why(task: _Task, problem: Problem, plan: Plan, known: Sequence[Plan] = ()) -> tuple[Explanation, list[Section]]:
    from cloud.scheduling.explain import explain
    from shoal.schedule_explain import told

    found = explain(problem, plan, task.limits)
    return found, told(problem, found, _price(task, problem, plan, known))


def _price(task: _Task, problem: Problem, plan: Plan, known: Sequence[Plan]) -> Price | None:
    """Of a plan that ends an hour, minute or second sooner, as the file counts."""
    from cloud.scheduling.relax import price_of_less
    from shoal.schedule_run import asker

    if not plan.assignments or violations(problem, plan):
        return None
    less = max(1, round(UNIT_S[problem.time_unit] / problem.tick_s))
    wanted = next((one for one in task.wanted.measures if one not in ("makespan", "tardiness")), None)
    ask = asker(task.wanted, task.console, "price of less")
    seconds = min(EXPLAIN_S, task.wanted.budget_s)
    return price_of_less(problem, plan, ask, less=less, seconds=seconds, wanted=wanted, limits=task.limits, known=known)


def _chosen(found: Found, wanted: Wanted) -> Plan:
    from cloud.scheduling import KEY
    from cloud.scheduling.front import choose

    plans = found.result.plans
    if len(wanted.measures) == 1 or len(plans) == 1:
        return plans[0]
    if wanted.lex:
        return min(plans, key=lambda plan: [round(plan.objectives[KEY[m]], 6) for m in wanted.measures])
    return choose(plans, wanted.measures, wanted.weights)


def _write_plans(task: _Task, problem: Problem, found: Found, best: Plan) -> None:
    from shoal.schedule_show import write

    if task.out:
        write(task.out, plan_document(problem, best))
    if task.front:
        write(task.front, [plan_document(problem, plan) for plan in found.result.plans])
