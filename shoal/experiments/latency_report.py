"""The report of `shoal experiment latency`: curves with their intervals, the map, the tables. One HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from shoal.experiments.latency import conclusion, said
from shoal.experiments.latency_study import (
    ABOUT,
    CLAIM,
    LINES,
    MAP_RATES,
    MAP_SIZES,
    RATES,
    RATES_OVERTAKING,
    SIZES,
    SIZES_OVERTAKING,
    VARIANTS,
    Curve,
    Study,
    map_name,
    spans,
)
from shoal.report import Section, write_report

MOST = 2.0
"""An improvement above this is drawn as this: a cell that hardly works at all says nothing in percent."""


def write(path: Path, study: Study, found: Sequence[dict[str, Any]]) -> None:
    """The whole report."""
    figures = [
        curve_figure(study, "By share of late messages, 300 ms each", "% late", 100.0, RATES, RATES_OVERTAKING),
        curve_figure(study, "By latency of the late ones, 10 % of all", "ms", 1.0, SIZES, SIZES_OVERTAKING),
        map_figure(study),
    ]
    head = ("recovered/h", "missed %", "collisions/h", "edge is better by %")
    bus = [(one["figure"], f"{one['value']} {one['unit']}") for one in found if one.get("over") == "bus"]
    sections = [
        Section("Lines to the same cell", (), [("line", *head), *(_row(study, n, ABOUT[n], "edge") for n in LINES)]),
        Section(
            "One figure of the cell changed, in both halves",
            ("A cell whose edge half misses steps, too, does not work with this figure; its percentage says little.",),
            [("cell", *head, "missed at the edge %"), *(_variant(study, name) for name in VARIANTS)],
        ),
    ]
    if bus:
        sections.append(Section("Over a real broker", (), [("figure", "value"), *bus]))
    notes = [
        f"Simulated: {study.seeds} seeds of {60 * study.outcome.hours:g} min, products and luck alike in both halves.",
        "Every figure of the cell is invented; model and figures were fixed before the cloud's half was first run.",
        f"Intervals: 95 %, bootstrap over seeds. Above {100 * MOST:g} % curves and map are drawn at {100 * MOST:g} %.",
    ]
    write_report(
        path, title="Edge instead of cloud", figures=figures, sections=[Section("Found", conclusion(study)), *sections],
        notes=notes,
    )  # fmt: skip


def curve_figure(study: Study, title: str, axis: str, scale: float, ordered: Curve, overtaking: Curve) -> go.Figure:
    """The improvement along a curve, with its interval, in order and overtaking."""
    figure = go.Figure()
    for name, curve, colour in (("in order", ordered, "#1f77b4"), ("overtaking", overtaking, "#2ca02c")):
        found = spans(study, curve)
        figure.add_scatter(
            x=[scale * at for at, _ in curve],
            y=[100 * min(one.value, MOST) for one in found],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [100 * max(0.0, min(one.high, MOST) - min(one.value, MOST)) for one in found],
                "arrayminus": [100 * max(0.0, min(one.value, MOST) - min(one.low, MOST)) for one in found],
            },
            name=name,
            mode="lines+markers",
            line={"color": colour},
        )
    figure.add_hline(y=100 * CLAIM, line_dash="dash", annotation_text="the source's 40 %")
    crossed = study.crossing(ordered)
    if crossed is not None:
        figure.add_vline(x=scale * crossed.value, line_dash="dot", annotation_text=f"{said(crossed, scale)} {axis}")
    figure.update_layout(title=title, xaxis_title=axis, yaxis_title="edge is better by %", height=420)
    return figure


def map_figure(study: Study) -> go.Figure:
    """The improvement by share and latency of late messages, and the line of CLAIM on it."""
    z = [[100 * min(study.improvement(map_name(rate, size)).value, MOST) for size in MAP_SIZES] for rate in MAP_RATES]
    x, y = [f"{size:g}" for size in MAP_SIZES], [f"{100 * rate:g}" for rate in MAP_RATES]
    figure = go.Figure(go.Heatmap(x=x, y=y, z=z, zmin=0, zmax=100 * MOST, colorscale="YlOrRd", texttemplate="%{z:.0f}"))
    at = list(range(len(x))), list(range(len(y)))
    figure.add_contour(
        x=[x[k] for k in at[0]], y=[y[k] for k in at[1]], z=z, showscale=False, name="40 %",
        contours={"start": 100 * CLAIM, "end": 100 * CLAIM, "size": 1, "coloring": "none"}, line={"width": 3},
    )  # fmt: skip
    figure.update_layout(
        title="Edge is better by %, in order; the line is 40 %",
        xaxis={"title": "ms of a late message", "type": "category"},
        yaxis={"title": "% late", "type": "category"},
        height=420,
    )
    return figure


def _row(study: Study, name: str, about: str, against: str) -> tuple[str, ...]:
    return (
        about,
        f"{study.per_hour(name):,.0f}",
        said(study.missed(name)),
        said(study.collisions_h(name), 1.0),
        said(study.improvement(name, against)),
    )


def _variant(study: Study, name: str) -> tuple[str, ...]:
    return (*_row(study, f"cloud, {name}", name, f"edge, {name}"), said(study.missed(f"edge, {name}")))
