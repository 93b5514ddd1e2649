"""Two plans compared, in words and pictures: `shoal schedule FILE --compare a.json b.json`, and what-if.

told(problem, compare(problem, first, second))      # sections for terminal and report
figures(problem, first, second, found)              # both Gantt charts, what moved with a dark frame
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]

from cloud.scheduling.compare import Comparison
from cloud.scheduling.seam import KEY, MEASURES
from messages.judge import missing
from messages.plan import Plan
from messages.problem import Problem
from shoal.gantt import bands, bars, carried, gantt_figure, shut, stretch
from shoal.report import Section
from shoal.schedule_figures import said, shown, unit_of
from shoal.strips import site_strips

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_MOVED = 200
"""Moved operations told one by one; of more those that moved farthest."""


def told(problem: Problem, found: Comparison, names: tuple[str, str] = ("first", "second")) -> list[Section]:
    """Objectives side by side, nervousness, what moved."""
    return [_objectives(problem, found, names), _nervousness(problem, found, names), *_moved(problem, found)]


def figures(
    problem: Problem, first: Plan, second: Plan, found: Comparison, names: tuple[str, str] = ("first", "second")
) -> list[go.Figure]:
    """One Gantt chart with both, then each alone with machine states and the site's curves."""
    machines = [machine.id for machine in problem.machines]
    moved = {(one.job, one.op) for one in found.moved} | {*found.only_first, *found.only_second}
    axis = stretch(problem, first, second)
    both = gantt_figure(
        bars(problem, first),
        bars(problem, second),
        machines=machines,
        unit=problem.time_unit,
        title=f"{names[0]} (above) and {names[1]} (below); what moved has a dark frame",
        marked=moved,
        names=names,
        shown=axis,
    )
    alone = [
        gantt_figure(
            bars(problem, plan),
            states=bands(problem, plan),
            machines=machines,
            unit=problem.time_unit,
            title=name,
            moves=carried(problem, plan),
            strips=site_strips(problem, plan),
            marked=moved,
            shown=axis,
            closed=shut(problem, plan),
        )
        for name, plan in zip(names, (first, second), strict=True)
    ]
    return [both, *alone]


def _objectives(problem: Problem, found: Comparison, names: tuple[str, str]) -> Section:
    rows: list[tuple[str, ...]] = [("objective", *names, "change")]
    for name in MEASURES:
        if KEY[name] in found.values and not missing(problem, name):
            a, b = found.values[KEY[name]]
            if name == "tardiness" and all(job.due is None for job in problem.jobs):
                continue
            change = f"{shown(problem, name, b - a):+,.6g} {unit_of(problem, name)}".rstrip()
            share = f" ({(b - a) / a:+.1%})" if a > 0 else ""
            rows.append(
                (name, said(problem, name, a), said(problem, name, b), f"{change}{share}" if b != a else "same")
            )
    return Section("Objectives", (), rows)


def _nervousness(problem: Problem, found: Comparison, names: tuple[str, str]) -> Section:
    both = len(found.moved) + found.same
    mean = said(problem, "makespan", round(found.mean_shift, 3))
    text = [
        f"{len(found.moved)} of {both} operations moved ({found.share_moved:.1%}), {found.share_elsewhere:.1%} to "
        f"another machine; mean shift {mean} over all of them."
    ]
    for name, only in zip(names, (found.only_first, found.only_second), strict=True):
        if only:
            text.append(f"Only {name} has {len(only)}: {_listed(only)}.")
    return Section("Nervousness", text)


def _listed(keys: Sequence[tuple[str, int]]) -> str:
    jobs = list(dict.fromkeys(job for job, _ in keys))
    return "operations of job " + ", ".join(jobs[:20]) + (", …" if len(jobs) > 20 else "")


def _moved(problem: Problem, found: Comparison) -> list[Section]:
    if not found.moved:
        return []
    rows: list[tuple[str, ...]] = [("job", "operation", "machine", "start", "shift")]
    for one in found.moved[:MOST_MOVED]:
        machine = one.machines[0] if one.machines[0] == one.machines[1] else " → ".join(one.machines)
        starts = [f"{problem.in_unit(at):g}" for at in one.starts]
        start = starts[0] if one.shift == 0 else " → ".join(starts)
        rows.append((one.job, str(one.op), machine, start, f"{problem.in_unit(one.shift):+g}"))
    more = len(found.moved) - MOST_MOVED
    return [Section("What moved", [f"The farthest first; {more} more."] if more > 0 else (), rows)]
