"""Pictures of plans with plotly: Gantt (planned against actual, machine states), Pareto front, convergence.

    figure = gantt_figure(bars(problem, plan), states=bands(problem, plan), unit="h")
    figure = gantt_figure(planned, actual, machines=[…], unit="")          # times as datetimes
    write_report(Path("report.html"), "Ceramic", [figure])

Times are floats (of `unit`) or datetimes, the same kind throughout one figure. The report is one HTML file that
needs no network.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]

from messages.plan import Plan
from messages.problem import Problem

When = float | datetime

COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#997700", "#5566aa",
    "#cc6633", "#44aa99", "#882255", "#999933", "#6699cc", "#cc79a7", "#117733",
)  # fmt: skip
STATE_COLOURS = {
    "work": "#9aa5b1",
    "idle": "#f2c14e",
    "preheat": "#e4572e",
    "off": "#e9ecef",
    "setup": "#7b68a6",
    "down": "#212529",
}
ROW_PX = 34


@dataclass(frozen=True)
class Bar:
    """One operation on one machine."""

    machine: str
    job: str
    op: int
    start: When
    end: When
    note: str = ""


@dataclass(frozen=True)
class Band:
    """One machine state."""

    machine: str
    state: str
    start: When
    end: When


def bars(problem: Problem, plan: Plan) -> list[Bar]:
    """A plan's operations in the problem's unit."""
    unit = problem.in_unit
    return [
        Bar(
            one.machine,
            one.job,
            one.op,
            unit(one.start),
            unit(one.end),
            "interrupted" if one.interrupted else problem.operation[one.job, one.op].name,
        )
        for one in plan.assignments
        if one.end > one.start
    ]


def bands(problem: Problem, plan: Plan) -> list[Band]:
    """A plan's machine states in the problem's unit."""
    unit = problem.in_unit
    return [Band(one.machine, one.state, unit(one.start), unit(one.end)) for one in plan.machine_states]


def gantt_figure(
    planned: Sequence[Bar],
    actual: Sequence[Bar] = (),
    *,
    states: Sequence[Band] = (),
    machines: Sequence[str] | None = None,
    unit: str = "h",
    title: str = "",
) -> go.Figure:
    """Machines as rows; planned above actual where both are given, states as a thin band below."""
    named: list[Bar | Band] = [*planned, *actual, *states]
    order = list(machines) if machines is not None else list(dict.fromkeys(one.machine for one in named))
    row = {machine: index for index, machine in enumerate(order)}
    figure = go.Figure()
    height = 0.34 if actual else 0.66
    if states:
        _add_states(figure, [one for one in states if one.machine in row], row)
    _add_bars(
        figure, [one for one in planned if one.machine in row], row, "planned", -0.22 if actual else -0.05, height
    )
    if actual:
        _add_bars(figure, [one for one in actual if one.machine in row], row, "actual", 0.14, height)
    dates = any(isinstance(one.start, datetime) for one in named)
    figure.update_layout(
        title=title,
        barmode="overlay",
        height=140 + ROW_PX * (2 if actual else 1) * max(1, len(order)),
        template="plotly_white",
        xaxis={"title": "" if dates else f"time ({unit})" if unit else "time", "type": "date" if dates else "linear"},
        yaxis={"tickvals": list(range(len(order))), "ticktext": order, "autorange": "reversed", "zeroline": False},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    return figure


def pareto_figure(problem: Problem, plans: Sequence[Plan], chosen: Plan | None, keys: Sequence[str]) -> go.Figure:
    """The front over the first two of `keys` (names of `objective()`); the chosen plan stands out."""
    x, y = keys[0], keys[1]
    shown = sorted(plans, key=lambda plan: plan.objectives[x])
    figure = go.Figure(
        go.Scatter(
            x=[_shown(problem, x, plan) for plan in shown],
            y=[_shown(problem, y, plan) for plan in shown],
            mode="lines+markers",
            line={"shape": "hv", "dash": "dot"},
            name="front",
            text=[plan.status for plan in shown],
        )
    )
    if chosen is not None:
        figure.add_scatter(
            x=[_shown(problem, x, chosen)],
            y=[_shown(problem, y, chosen)],
            mode="markers",
            marker={"size": 14, "symbol": "star"},
            name="chosen",
        )
    figure.update_layout(
        title="Front", template="plotly_white", xaxis_title=_axis(problem, x), yaxis_title=_axis(problem, y)
    )
    return figure


def convergence_figure(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], title: str = "Convergence"
) -> go.Figure:
    """Named step lines of (seconds, value)."""
    figure = go.Figure()
    for name, points in lines:
        figure.add_scatter(
            x=[at for at, _ in points],
            y=[value for _, value in points],
            mode="lines+markers",
            line={"shape": "hv"},
            name=name,
        )
    figure.update_layout(title=title, template="plotly_white", xaxis_title="run time (s)")
    return figure


def _shown(problem: Problem, key: str, plan: Plan) -> float:
    value = plan.objectives[key]
    return problem.in_unit(value) if key in ("makespan", "tardiness") else value


def _axis(problem: Problem, key: str) -> str:
    if key in ("makespan", "tardiness"):
        return f"{key} ({problem.time_unit})" if problem.time_unit else key
    return "energy (kWh)" if key == "energy_kwh" else key


def _colour(job: str) -> str:
    """The same colour for the same job in every figure and run."""
    return COLOURS[(int(job) if job.isdecimal() else zlib.crc32(job.encode())) % len(COLOURS)]


def _length(start: When, end: When) -> float:
    """Bar lengths on a date axis are milliseconds."""
    if isinstance(start, datetime) and isinstance(end, datetime):
        return (end - start).total_seconds() * 1000
    return float(end) - float(start)  # type: ignore[arg-type]


def _add_bars(
    figure: go.Figure, shown: Sequence[Bar], row: dict[str, int], name: str, shift: float, height: float
) -> None:
    text: list[Any] = [
        f"{name}<br>job {html.escape(one.job)}, operation {one.op} {html.escape(one.note)}"
        f"<br>{html.escape(one.machine)}<br>{one.start} … {one.end}"
        for one in shown
    ]
    figure.add_bar(
        orientation="h",
        base=[one.start for one in shown],
        x=[_length(one.start, one.end) for one in shown],
        y=[row[one.machine] + shift for one in shown],
        width=height,
        text=[one.job for one in shown],
        textposition="inside",
        insidetextanchor="middle",
        hovertext=text,
        hoverinfo="text",
        marker={
            "color": [_colour(one.job) for one in shown],
            "opacity": 0.55 if name == "planned" and height < 0.5 else 0.95,
            "line": {"color": "white", "width": 1},
        },
        name=name,
        showlegend=False,
    )


def _add_states(figure: go.Figure, shown: Sequence[Band], row: dict[str, int]) -> None:
    for state, colour in STATE_COLOURS.items():
        mine = [one for one in shown if one.state == state]
        if not mine:
            continue
        figure.add_bar(
            orientation="h",
            base=[one.start for one in mine],
            x=[_length(one.start, one.end) for one in mine],
            y=[row[one.machine] + 0.42 for one in mine],
            width=0.12,
            marker={"color": colour},
            name=state,
            hovertext=[f"{html.escape(one.machine)} {state}<br>{one.start} … {one.end}" for one in mine],
            hoverinfo="text",
        )
