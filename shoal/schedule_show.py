"""What `shoal schedule` shows and writes: the summary on the terminal, and the report with its three pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]
from rich.console import Console
from rich.table import Table

from cloud.scheduling import KEY, MEASURES, Result
from cloud.scheduling.explain import Explanation
from messages.errors import ShoalError
from messages.judge import missing
from messages.plan import Measure, Plan
from messages.problem import Problem
from shoal.gantt import bands, bars, carried, gantt_figure, shut, stretch
from shoal.report import Section, write_report
from shoal.schedule_explain import lines
from shoal.schedule_figures import convergence_figure, pareto_figure, said
from shoal.schedule_run import Found
from shoal.schedule_table import at, gap
from shoal.strips import site_strips


def summary(problem: Problem, result: Result | None, best: Plan, measures: Sequence[Measure]) -> list[tuple[str, str]]:
    """The chosen plan in a few rows: what was asked for first, then what else it comes to.

    result  of the search that found it; none: a plan of a file, whose word is not taken for a bound
    """
    rows: list[tuple[str, str]] = []
    alone = result is not None and len(result.plans) == 1
    for name in measures:
        sure = gap(problem, best, name) if alone else ""
        rows.append((name, f"{said(problem, name, best.objectives[KEY[name]])}{sure and f'  ({sure})'}"))
    for name in MEASURES:
        value = best.objectives.get(KEY[name], 0.0)
        if name == "ledger" and not (problem.capture_kg or problem.export_kg_per_kwh):
            continue  # it is the carbon above
        if name not in measures and value and not missing(problem, name):
            rows.append((name, said(problem, name, value)))
    if best.objectives.get("energy_kgce"):
        rows.append(("energy_kgce", f"{best.objectives['energy_kgce']:,.6g} kgce"))
    if best.t0 is not None and best.assignments:
        first, last = (
            at(problem, best, tick)
            for tick in (min(one.start for one in best.assignments), max(one.end for one in best.assignments))
        )
        rows.append(("calendar", f"{first:%a %d %b %Y %H:%M} … {last:%a %d %b %Y %H:%M} {last:%Z}"))
    if result is None:
        return rows
    if alone and best.bound is not None and best.bound_of not in measures:
        rows.append((f"bound of {best.bound_of}", said(problem, best.bound_of, best.bound)))
    rows.append(("status", f"{result.status} by {best.solver} in {result.runtime_s:.2f} s"))
    if len(result.plans) > 1:
        number = next(k for k, plan in enumerate(result.plans, 1) if plan is best)
        rows.append(("front", f"plan {number} of {len(result.plans)}"))
    if result.reason:
        rows.append(("note", result.reason))
    return rows


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """On standard output."""
    table = Table(show_header=False, box=None)
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table, highlight=False)


def print_sections(sections: Sequence[Section]) -> None:
    """On standard output, lines as long as they are."""
    for line in lines(sections):
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


def plan_figures(
    problem: Problem, found: Found, best: Plan, measures: Sequence[Measure], why: Explanation | None
) -> list[go.Figure]:
    """Gantt, front where several measures were asked for, convergence."""
    figures = [gantt(problem, best, measures, why)]
    if len(measures) > 1:
        figures.append(pareto_figure(problem, found.result.plans, best, measures))
    if found.trail:
        figures.append(convergence_figure(problem, found.trail))
    return figures


def gantt(problem: Problem, plan: Plan, measures: Sequence[Measure], why: Explanation | None) -> go.Figure:
    """The plan with machine states and the site's curves; the critical path framed where it was asked for."""
    marked = {(one.job, one.op) for one in why.critical if one.kind == "work"} if why else set()
    return gantt_figure(
        bars(problem, plan),
        states=bands(problem, plan),
        machines=[machine.id for machine in problem.machines],
        unit=problem.time_unit,
        title="Plan; the critical path has a dark frame" if marked else "Plan",
        moves=carried(problem, plan),
        strips=site_strips(problem, plan, power="peak" in measures),
        marked=marked,
        shown=stretch(problem, plan),
        closed=shut(problem, plan),
    )


def report(
    path: Path,
    problem: Problem,
    best: Plan,
    figures: Sequence[go.Figure],
    rows: Sequence[tuple[str, str]] = (),
    sections: Sequence[Section] = (),
) -> None:
    """One HTML file."""
    end = said(problem, "makespan", best.objectives["makespan"])
    title = f"{problem.name or 'plan'}: {end}"
    try:
        write_report(path, title=title, figures=figures, tables=[rows] if rows else (), sections=sections)
    except OSError as error:
        raise _unwritten(error) from None


def write(path: Path, document: Any) -> None:
    """JSON."""
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """ShoalError says what to do where that fails."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritten(error) from None


def _unwritten(error: OSError) -> ShoalError:
    return ShoalError(f"cannot be written: {error}; choose another file")
