"""Gantt charts with plotly: planned against actual, machine states, batches, transport, curves of the site below.

    figure = gantt_figure(bars(problem, plan), states=bands(problem, plan), unit="h", strips=site_strips(problem, plan))
    figure = gantt_figure(planned, actual, machines=[…], unit="")          # times as datetimes

Times are floats (of `unit`) or datetimes, the same kind throughout one figure. Operations that share machine, start and
end are a batch and share the height of the row.
"""

from __future__ import annotations

import html
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]
from plotly.subplots import make_subplots  # type: ignore[import-untyped, unused-ignore]

from messages.plan import Plan
from messages.problem import Problem
from shoal.strips import Strip, When, span

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
MOST_SHUT = 5_000
"""Closed times drawn."""
ROW_PX = 34
STRIP_PX = 90


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


@dataclass(frozen=True)
class Carried:
    """A job on its way from one machine to another."""

    job: str
    machines: tuple[str, str]
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


def shut(problem: Problem, plan: Plan) -> list[Band]:
    """When machines are closed while the plan lasts; of very many windows the first `MOST_SHUT`."""
    begin, end = span(problem, plan)
    found = [
        Band(machine.id, "closed", problem.in_unit(max(begin, one.start)), problem.in_unit(min(end, one.end)))
        for machine in problem.machines
        for one in machine.unavailable
        if one.reason == "closed" and one.start < end and one.end > begin
    ]
    return found[:MOST_SHUT]


def carried(problem: Problem, plan: Plan) -> list[Carried]:
    """A plan's transport in the problem's unit."""
    unit = problem.in_unit
    return [Carried(one.job, (one.from_, one.to), unit(one.start), unit(one.end)) for one in plan.moves]


def stretch(problem: Problem, *plans: Plan) -> tuple[float, float]:
    """The time axis on which all of them fit, in the problem's unit, with a little room."""
    ends = [span(problem, plan) for plan in plans]
    begin, end = problem.in_unit(min(a for a, _ in ends)), problem.in_unit(max(b for _, b in ends))
    return begin - 0.01 * (end - begin), end + 0.01 * (end - begin)


def gantt_figure(
    planned: Sequence[Bar],
    actual: Sequence[Bar] = (),
    *,
    states: Sequence[Band] = (),
    machines: Sequence[str] | None = None,
    unit: str = "h",
    title: str = "",
    moves: Sequence[Carried] = (),
    strips: Sequence[Strip] = (),
    marked: Collection[tuple[str, int]] = (),
    names: tuple[str, str] = ("planned", "actual"),
    shown: tuple[When, When] | None = None,
    closed: Sequence[Band] = (),
) -> go.Figure:
    """Machines as rows; planned above actual where both are given, states as a thin band below.

    marked  (job, op) with a dark frame: the critical path, or what moved
    shown   from when to when the time axis goes; none: as far as anything is drawn
    """
    named: list[Bar | Band] = [*planned, *actual, *states]
    order = list(machines) if machines is not None else list(dict.fromkeys(one.machine for one in named))
    row = {machine: index for index, machine in enumerate(order)}
    rows_px = max(ROW_PX * (2 if actual else 1) * max(1, len(order)), STRIP_PX if strips else 0)
    figure = _sheet(rows_px, strips)
    height = 0.34 if actual else 0.66
    _add_closed(figure, [one for one in closed if one.machine in row], row)
    if states:
        _add_states(figure, [one for one in states if one.machine in row], row)
    mine = [one for one in planned if one.machine in row]
    _add_bars(figure, mine, row, names[0], -0.22 if actual else -0.05, height, marked)
    if actual:
        _add_bars(figure, [one for one in actual if one.machine in row], row, names[1], 0.14, height, marked)
    _add_moves(figure, [one for one in moves if set(one.machines) <= row.keys()], row)
    dates = any(isinstance(one.start, datetime) for one in named)
    figure.update_layout(
        title=title,
        barmode="overlay",
        height=200 + rows_px + STRIP_PX * len(strips),
        template="plotly_white",
        xaxis={"type": "date" if dates else "linear", "showticklabels": True},
        yaxis={"tickvals": list(range(len(order))), "ticktext": order, "autorange": "reversed", "zeroline": False},
        margin={"t": 50, "b": 110},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
    )
    last = "xaxis" if not strips else f"xaxis{len(strips) + 1}"
    if shown is not None:
        figure.update_xaxes(range=list(shown))
    if not dates and any(one.start < 0 for one in named):  # type: ignore[operator]
        figure.add_vline(x=0, line={"color": "#555", "width": 1, "dash": "dot"})
    figure.update_layout({last: {"title": "" if dates else f"time ({unit})" if unit else "time"}})
    return figure


def _sheet(rows_px: int, strips: Sequence[Strip]) -> go.Figure:
    """One plot, or one above the strips; bars go to the first."""
    if not strips:
        return go.Figure()
    figure = make_subplots(
        rows=1 + len(strips),
        shared_xaxes=True,
        vertical_spacing=min(0.04, 0.5 / (1 + len(strips))),
        row_heights=[rows_px, *(STRIP_PX for _ in strips)],
    )
    for number, strip in enumerate(strips, 2):
        for place, (name, steps) in enumerate(strip.curves.items()):
            colour = COLOURS[(3 * number + place) % len(COLOURS)]
            figure.add_scatter(
                x=[at for at, _ in steps],
                y=[value for _, value in steps],
                name=name,
                mode="lines",
                line={"shape": "hv", "width": 1.5, "color": colour},
                fill="tozeroy",
                fillcolor=f"rgba{(*(int(colour[k : k + 2], 16) for k in (1, 3, 5)), 0.15)}",
                row=number,
                col=1,
            )
        figure.update_yaxes(title_text=strip.title, title_font_size=12, row=number, col=1)
    return figure


def _lanes(shown: Sequence[Bar]) -> list[tuple[int, int]]:
    """Each bar's place in its batch and how many share it."""
    count = Counter((one.machine, one.start, one.end) for one in shown)
    place: Counter[tuple[str, When, When]] = Counter()
    found = []
    for one in shown:
        key = (one.machine, one.start, one.end)
        found.append((place[key], count[key]))
        place[key] += 1
    return found


def _add_moves(figure: go.Figure, shown: Sequence[Carried], row: dict[str, int]) -> None:
    if not shown:
        return
    figure.add_scatter(
        x=[x for one in shown for x in (one.start, one.end, None)],
        y=[y for one in shown for y in (row[one.machines[0]], row[one.machines[1]], None)],
        text=[text for one in shown for text in (f"job {html.escape(one.job)} is carried",) * 3],
        hoverinfo="text",
        mode="lines",
        line={"color": "#555", "width": 1, "dash": "dot"},
        name="transport",
    )


def colour_of(job: str) -> str:
    """The same colour for the same order (lots are ORDER/1, ORDER/2, …) in every figure and run."""
    order, _, lot = job.rpartition("/")
    name = order if lot.isdecimal() and order else job
    return COLOURS[(int(name) if name.isdecimal() else zlib.crc32(name.encode())) % len(COLOURS)]


def _length(start: When, end: When) -> float:
    """Bar lengths on a date axis are milliseconds."""
    if isinstance(start, datetime) and isinstance(end, datetime):
        return (end - start).total_seconds() * 1000
    return float(end) - float(start)  # type: ignore[arg-type]


def _add_bars(
    figure: go.Figure,
    shown: Sequence[Bar],
    row: dict[str, int],
    name: str,
    shift: float,
    height: float,
    marked: Collection[tuple[str, int]],
) -> None:
    text: list[Any] = [
        f"{name}<br>job {html.escape(one.job)}, operation {one.op} {html.escape(one.note)}"
        f"<br>{html.escape(one.machine)}<br>{one.start} … {one.end}"
        for one in shown
    ]
    lanes = _lanes(shown)
    framed = [(one.job, one.op) in marked for one in shown]
    figure.add_bar(
        orientation="h",
        base=[one.start for one in shown],
        x=[_length(one.start, one.end) for one in shown],
        y=[
            row[one.machine] + shift + height * ((lane + 0.5) / of - 0.5)
            for one, (lane, of) in zip(shown, lanes, strict=True)
        ],
        width=[height / of for _, of in lanes],
        text=[html.escape(one.job) for one in shown],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        hovertext=text,
        hoverinfo="text",
        marker={
            "color": [colour_of(one.job) for one in shown],
            "opacity": 0.55 if shift < -0.1 else 0.95,
            "line": {"color": ["#111" if one else "white" for one in framed], "width": [2 if o else 1 for o in framed]},
        },
        name=name,
        showlegend=False,
    )


def _add_closed(figure: go.Figure, shown: Sequence[Band], row: dict[str, int]) -> None:
    if not shown:
        return
    figure.add_bar(
        orientation="h",
        base=[one.start for one in shown],
        x=[_length(one.start, one.end) for one in shown],
        y=[row[one.machine] for one in shown],
        width=0.9,
        marker={"color": "#f1f3f5", "line": {"width": 0}, "pattern": {"shape": "/", "fgcolor": "#ced4da", "size": 6}},
        name="closed",
        hovertext=[f"{html.escape(one.machine)} closed<br>{one.start} … {one.end}" for one in shown],
        hoverinfo="text",
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
