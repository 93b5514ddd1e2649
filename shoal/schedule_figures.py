"""Pictures of a search with plotly: the front, and how every objective came down.

    pareto_figure(problem, plans, chosen, ("makespan", "energy", "carbon"))
    convergence_figure(problem, trail)          # measure → name of a line → (seconds, value)

A front of two measures is one plot, of three three (each pair, the third as colour); of more, every plan is a line
across one axis per measure, its best at the bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]
from plotly.colors import sample_colorscale  # type: ignore[import-untyped, unused-ignore]
from plotly.subplots import make_subplots  # type: ignore[import-untyped, unused-ignore]

from cloud.scheduling.seam import KEY
from messages.plan import Measure, Plan
from messages.problem import TIMES, Problem

UNITS: dict[Measure, str] = {"energy": "kWh", "carbon": "kg CO2e", "peak": "kW", "ledger": "kg CO2e"}
CHOSEN = "#ee6677"
MOST_LINES = 300
"""Plans drawn as lines where there are more than three measures; the chosen one always is."""
Points = Sequence[tuple[float, float]]
Trail = Mapping[Measure, Mapping[str, Points]]


def unit_of(problem: Problem, measure: Measure) -> str:
    """What its value is shown in; money has none."""
    return problem.time_unit if measure in TIMES else UNITS.get(measure, "")


def shown(problem: Problem, measure: Measure, value: float) -> float:
    """A value for people: times in the unit of the file."""
    return problem.in_unit(value) if measure in TIMES else value


def said(problem: Problem, measure: Measure, value: float) -> str:
    """A value with its unit."""
    return f"{shown(problem, measure, value):,.6g} {unit_of(problem, measure)}".rstrip()


def axis(problem: Problem, measure: Measure) -> str:
    """What stands at an axis or above a column."""
    unit = unit_of(problem, measure)
    return f"{measure} ({unit})" if unit else measure


def pareto_figure(
    problem: Problem, plans: Sequence[Plan], chosen: Plan | None, measures: Sequence[Measure]
) -> go.Figure:
    """The front over `measures`, two or more; the chosen plan is a star, of more than three a thick line."""
    if len(measures) > 3:
        return _parallel_figure(problem, plans, chosen, measures)
    pairs = list(combinations(measures, 2))
    number_of = {id(plan): number for number, plan in enumerate(plans, 1)}
    figure = make_subplots(cols=len(pairs), horizontal_spacing=0.25 / len(pairs))
    for number, (x, y) in enumerate(pairs, 1):
        third = next((one for one in measures if one not in (x, y)), None) if len(measures) == 3 else None
        line = sorted(plans, key=lambda plan: (plan.objectives[KEY[x]], plan.objectives[KEY[y]]))
        marker: dict[str, object] = {"size": 8, "color": "#4477aa"}
        if third:
            marker |= {
                "color": [_value(problem, third, plan) for plan in line],
                "colorscale": "Viridis",
            }
        figure.add_scatter(
            x=[_value(problem, x, plan) for plan in line],
            y=[_value(problem, y, plan) for plan in line],
            mode="lines+markers" if len(measures) == 2 else "markers",
            line={"shape": "hv", "dash": "dot"},
            marker=marker,
            name=f"front (colour: {third})" if third else "front",
            showlegend=number == 1 or third is not None,
            text=[_told(problem, measures, plan, number_of[id(plan)]) for plan in line],
            hoverinfo="text",
            row=1,
            col=number,
        )
        if chosen is not None:
            figure.add_scatter(
                x=[_value(problem, x, chosen)],
                y=[_value(problem, y, chosen)],
                mode="markers",
                marker={"size": 16, "symbol": "star", "color": CHOSEN, "line": {"width": 1, "color": "white"}},
                name="chosen",
                showlegend=number == 1,
                row=1,
                col=number,
            )
        figure.update_xaxes(title_text=axis(problem, x), row=1, col=number)
        figure.update_yaxes(title_text=axis(problem, y), row=1, col=number)
    figure.update_layout(title=_title(plans, chosen), template="plotly_white", height=460)
    return figure


def convergence_figure(problem: Problem, trail: Trail) -> go.Figure:
    """How every objective came down while the search went on, with what was proved about it."""
    figure = make_subplots(cols=max(1, len(trail)), horizontal_spacing=0.25 / max(1, len(trail)))
    styles = {"bound": ("#228833", "dash"), "best": ("#4477aa", "solid")}
    for number, (measure, lines) in enumerate(trail.items(), 1):
        for name, points in lines.items():
            colour, dash = styles["bound" if name.startswith("bound") else "best"]
            figure.add_scatter(
                x=[at for at, _ in points],
                y=[shown(problem, measure, value) for _, value in points],
                mode="lines+markers",
                line={"shape": "hv", "color": colour, "dash": dash},
                name=name,
                showlegend=number == 1,
                row=1,
                col=number,
            )
        figure.update_xaxes(title_text="run time (s)", row=1, col=number)
        figure.update_yaxes(title_text=axis(problem, measure), row=1, col=number)
    figure.update_layout(title="Convergence", template="plotly_white", height=380)
    return figure


def _value(problem: Problem, measure: Measure, plan: Plan) -> float:
    return shown(problem, measure, plan.objectives[KEY[measure]])


def _told(problem: Problem, measures: Sequence[Measure], plan: Plan, number: int) -> str:
    values = (f"{one} {said(problem, one, plan.objectives[KEY[one]])}" for one in measures)
    return "<br>".join((f"plan {number}", *values))


def _title(plans: Sequence[Plan], chosen: Plan | None) -> str:
    number = next((k for k, plan in enumerate(plans, 1) if plan is chosen), None)
    return f"Pareto front: {len(plans)} plan{'s' * (len(plans) != 1)}" + (f"; {number} is taken" if number else "")


def _parallel_figure(
    problem: Problem, plans: Sequence[Plan], chosen: Plan | None, measures: Sequence[Measure]
) -> go.Figure:
    """Each axis from the least (bottom) to the greatest of the front; the colour tells the first measure."""
    columns = {name: [_value(problem, name, plan) for plan in plans] for name in measures}
    low, high = ({name: bound(column) for name, column in columns.items()} for bound in (min, max))

    def heights(plan: Plan) -> list[float]:
        return [
            (_value(problem, name, plan) - low[name]) / (high[name] - low[name]) if high[name] > low[name] else 0.5
            for name in measures
        ]

    places, figure = list(range(len(measures))), go.Figure()
    shown_plans = [(k, plan) for k, plan in enumerate(plans, 1) if k <= MOST_LINES or plan is chosen]
    for number, plan in sorted(shown_plans, key=lambda pair: pair[1] is chosen):  # the chosen one on top
        taken, up = plan is chosen, heights(plan)
        figure.add_scatter(
            x=places,
            y=up,
            mode="lines+markers",
            line={
                "color": CHOSEN if taken else sample_colorscale("Viridis", [0.85 * up[0]])[0],
                "width": 4 if taken else 1.5,
            },
            marker={"size": 9 if taken else 5},
            opacity=1.0 if taken else 0.65,
            text=[_told(problem, measures, plan, number)] * len(measures),
            hoverinfo="text",
            name="taken" if taken else f"plan {number}",
            showlegend=taken,
        )
    for place, name in enumerate(measures):
        figure.add_vline(x=place, line={"color": "#999", "width": 1}, layer="below")
        for height, value, anchor, shift in ((0.0, low[name], "top", -6), (1.0, high[name], "bottom", 6)):
            figure.add_annotation(
                x=place, y=height, text=f"{value:,.6g}", showarrow=False, yanchor=anchor, yshift=shift
            )
    figure.update_layout(
        title=f"{_title(plans, chosen)}; every line is a plan, the best of each measure at the bottom",
        template="plotly_white",
        height=460,
        xaxis={
            "tickvals": places,
            "ticktext": [axis(problem, name) for name in measures],
            "side": "top",
            "showgrid": False,
            "zeroline": False,
            "range": [-0.3, len(measures) - 0.7],
        },
        yaxis={"visible": False, "range": [-0.12, 1.12]},
        margin={"t": 110},
    )
    return figure
