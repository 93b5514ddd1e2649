"""The report of the federation experiment: what every arm earned round by round, how far the default is from each."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]
from plotly.subplots import make_subplots  # type: ignore[import-untyped, unused-ignore]

from shoal.experiments.arms import ARMS, DEFAULT, Pace
from shoal.experiments.federation import BEGINNINGS, MARGIN, TITLES, Found
from shoal.report import Section, write_report

COLOURS = {
    "local": "#7f7f7f",
    "fedavg": "#1f77b4",
    "tuned": "#2ca02c",
    "longer": "#bcbd22",
    "own": "#17becf",
    "body": "#ff7f0e",
    "adapted": "#d62728",
    "pooled": "#9467bd",
}


def write(path: Path, found: Found, pace: Pace) -> None:
    """One HTML file that needs no network."""
    write_report(
        path,
        title="Learning together: shared and adapted to every cell, against the alternatives",
        figures=[_curves(found), _forest(found), _new(found)],
        tables=[
            [
                ("seeds", str(found.seeds)),
                ("cells", str(pace.cells)),
                ("rounds", f"{pace.rounds} of {pace.days} days"),
                ("optimiser steps of a round and cell", f"{pace.steps}"),
                (
                    "at take-up, on a copy",
                    f"{pace.tuned_steps} where tuned; {pace.adapt_steps} where tuned longer or adapted",
                ),
                ("half of the way is gone at", f"{pace.adapt_half} transitions"),
                ("price of carbon", f"{pace.price:g} money per kg"),
                ("judged", f"{pace.judged_days} days that nobody learned from"),
            ],
        ],
        sections=[_means(found), _rows(found)],
        notes=[
            "Objective: money less price times kg of carbon, a day. All arms: the same cells, chance and beginnings.",
            "Relative difference: ours less theirs, per seed, over the mean of theirs over all seeds.",
            f"Not inferior: one-sided bound above -{100 * MARGIN:g} % against every other arm but the pooled one, at "
            "the level that Holm's procedure gives to the row.",
        ],
    )


def _curves(found: Found) -> go.Figure:
    figure = make_subplots(
        rows=1,
        cols=len(found.degrees),
        shared_yaxes=True,
        subplot_titles=[f"heterogeneity {degree:g}" for degree in found.degrees],
    )
    for column, degree in enumerate(found.degrees, 1):
        for arm in ARMS:
            rounds, mean, error = found.curve(degree, arm)
            figure.add_scatter(
                x=rounds,
                y=mean,
                error_y={"array": error, "thickness": 1, "width": 0},
                name=TITLES[arm],
                legendgroup=arm,
                showlegend=column == 1,
                line={"color": COLOURS[arm], "width": 3 if arm == DEFAULT else 1.5},
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text="round", row=1, col=column)
    figure.update_yaxes(title_text="objective a day, mean of the cells", row=1, col=1)
    figure.update_layout(title="Round by round (mean over seeds, one standard error)", height=460)
    return figure


def _forest(found: Found) -> go.Figure:
    figure, rows = go.Figure(), found.claims
    names = [row.name for row in rows]
    rivals = [one.rival for one in rows[0].against]
    for place, rival in enumerate(rivals):
        against = [row.to(rival) for row in rows]
        figure.add_scatter(
            x=[100 * one.difference for one in against],
            y=[k + 0.12 * (place - (len(rivals) - 1) / 2) for k in range(len(names))],
            error_x={
                "array": [0.0] * len(names),
                "arrayminus": [100 * (one.difference - one.lower) for one in against],
            },
            mode="markers",
            marker={"color": COLOURS[rival], "size": 8},
            name=f"against {TITLES[rival]}",
        )
    figure.add_vline(x=-100 * MARGIN, line={"color": "#d62728", "dash": "dash"})
    figure.add_vline(x=0, line={"color": "#222", "width": 1})
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    figure.update_layout(
        title=f"{TITLES[DEFAULT].capitalize()} less the others, with the lower bound at the row's level",
        xaxis_title="% of the other's mean",
        height=120 + 60 * len(names),
    )
    return figure


def _new(found: Found) -> go.Figure:
    figure = go.Figure()
    for how, name in BEGINNINGS.items():
        values = [found.new_cell(degree, how) for degree in found.degrees]
        figure.add_bar(
            x=[f"{degree:g}" for degree in found.degrees],
            y=[one.mean() for one in values],
            error_y={"array": [one.std(ddof=1) / len(one) ** 0.5 for one in values]},
            name=name,
        )
    figure.update_layout(
        title="The first days of a new cell, as lived (mean over seeds, one standard error)",
        xaxis_title="heterogeneity",
        yaxis_title="objective a day",
        height=380,
    )
    return figure


def _means(found: Found) -> Section:
    head = ("heterogeneity", "of the cells", *(TITLES[arm] for arm in ARMS))
    rows = [
        (f"{degree:g}", what, *(f"{found.returns(degree, arm, what).mean():,.0f}" for arm in ARMS))
        for degree in found.degrees
        for what in ("mean", "worst")
    ]
    return Section("Objective a day", (), [head, *rows])


def _rows(found: Found) -> Section:
    head = ("row", "against", "difference", "lower bound", "level", "p", "holds")
    rows = [
        (
            row.name,
            TITLES.get(one.rival, one.rival),
            f"{100 * one.difference:+.2f} %",
            f"{100 * one.lower:+.2f} %",
            f"{row.level:.4f}",
            f"{one.p:.2g}",
            "yes" if row.holds else "no",
        )
        for row in (*found.claims, *found.new)
        for one in row.against
    ]
    return Section("Every comparison", (), [head, *rows])
