"""Reports: one HTML file that needs no network. The page, and the figures only the demo draws."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from numpy.typing import NDArray

from shoal.view import utc

Column = NDArray[Any]
MAX_POINTS = 5_000
"""Points per curve; longer ones are thinned evenly."""
MAX_ROWS = 1_000
"""Rows of a section; the rest is counted, not shown."""


@dataclass(frozen=True)
class Section:
    """A heading with sentences and a table below; the first row of `rows` names the columns."""

    title: str
    text: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def power_figure(curves: Mapping[str, tuple[Column, Column]]) -> go.Figure:
    """Mean power of each workshop over time; curves give (µs, kW)."""
    figure = go.Figure()
    for name, (times, values) in curves.items():
        figure.add_scatter(x=[utc(int(at)) for at in times], y=values, name=name, mode="lines")
    figure.update_layout(title="Power by workshop (ten-minute means)", yaxis_title="kW", height=420)
    return figure


def cleaning_figure(title: str, unit: str, sent: tuple[Column, Column], stored: tuple[Column, Column]) -> go.Figure:
    """One series as the sensor sent it and as it was stored."""
    figure = go.Figure()
    for name, (times, values), style in (
        ("as sent", sent, {"color": "#d62728", "size": 4}),
        ("stored", stored, {"color": "#1f77b4", "size": 3}),
    ):
        step = max(1, len(times) // MAX_POINTS)
        figure.add_scatter(
            x=[utc(int(at)) for at in times[::step]],
            y=values[::step],
            name=name,
            mode="markers" if name == "as sent" else "lines+markers",
            marker=style,
        )
    figure.update_layout(title=f"Cleaning: {title}", yaxis_title=unit, height=420)
    return figure


def write_report(
    path: Path,
    *,
    title: str,
    figures: Sequence[go.Figure],
    tables: Sequence[Sequence[tuple[str, str]]] = (),
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> None:
    """One HTML file: tables, figures, sections, notes. Plotly's script is inside, once, so it opens anywhere."""
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if index == 0 else False)
        for index, figure in enumerate(figures)
    ]
    path.write_text(
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body{{font-family:system-ui,sans-serif;max-width:1200px;margin:2rem auto;padding:0 1rem;color:#222}}
table{{border-collapse:collapse;margin:1rem 0}}td{{padding:.25rem .8rem;border-bottom:1px solid #ddd}}
th{{text-align:left;padding:.25rem .8rem;border-bottom:2px solid #bbb}}
td:last-child{{font-variant-numeric:tabular-nums}}.two{{display:flex;gap:3rem;flex-wrap:wrap}}</style></head><body>
<h1>{html.escape(title)}</h1><div class="two">{"".join(_table(rows) for rows in tables)}</div>
{"".join(parts)}
{"".join(_section(one) for one in sections)}
<ul>{"".join(f"<li>{html.escape(note)}</li>" for note in notes)}</ul></body></html>
""",
        encoding="utf-8",
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = (f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{''.join(cells)}</table>"


def _section(one: Section) -> str:
    head, *rows = one.rows or [[]]
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows[:MAX_ROWS])
    more = f"<p>… and {len(rows) - MAX_ROWS} more</p>" if len(rows) > MAX_ROWS else ""
    text = "".join(f"<p>{html.escape(line)}</p>" for line in one.text)
    table = f"<table><tr>{cells}</tr>{body}</table>" if head else ""
    return f"<h2>{html.escape(one.title)}</h2>{text}{table}{more}"
