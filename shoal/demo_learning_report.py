"""What came of cells that learn, for programs and for people: JSON, a table, a chart, sections of the report.

as_json(learned), table(learned), figure(learned), sections(learned)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from rich.console import Console

from shoal.demo_learning import LIMIT_KG
from shoal.demo_learning_outcome import Learned
from shoal.recovered import Recovered, show
from shoal.report import Section


@dataclass(frozen=True)
class Both:
    """A run of a plant that recovers components and whose cells learn: the verdict is on both."""

    recovered: Recovered
    learned: Learned

    @property
    def good(self) -> bool:
        """Nothing speaks against either."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Of both, in words for people."""
        return (*self.recovered.failures, *self.learned.failures)

    def as_json(self) -> dict[str, Any]:
        """The last line of `shoal demo --json`."""
        return {**self.recovered.as_json(), **as_json(self.learned), "failures": list(self.failures)}

    def table(self) -> list[tuple[str, str]]:
        """The same for people."""
        return self.recovered.table() + table(self.learned)

    def show(self, console: Console) -> None:
        """The report in the terminal."""
        self.recovered.show(console)
        show("what the cells learned", table(self.learned), console)


def as_json(learned: Learned) -> dict[str, Any]:
    """Beside what the rest of the run says."""
    undone = learned.ended(learned.bad)
    return {
        "rounds": [
            {
                "round": number,
                "version": one.version,
                "taken": sorted(one.taken),
                "refused": dict(one.refused),
                "quarantined": list(one.quarantined),
                "mean_return": _rounded(learned.returns.get(number)),
                "mean_carbon_kg": _rounded(learned.costs.get(number)),
                "bad_release_tried": number in learned.spoilt,
            }
            for number, one in learned.rounds.items()
        ],
        "return_by_round": [_rounded(learned.returns[number]) for number in sorted(learned.returns)],
        "versions": [
            {"version": one.version, "from": one.origin, "stage": one.stage, "why": learned.why_of(one.version)}
            for one in learned.versions
        ],
        "nodes_quarantined": {node: list(lines) for node, lines in learned.evidence.items()},
        "rolled_back": None
        if undone is None
        else {
            "version": undone.version,
            "by": undone.by,
            "why": undone.why,
            "tried_on": learned.tried_on(undone.version),
        },
        "running": dict(learned.running),
        "decisions": {name: one["steps"] for name, one in learned.cells.items()},
        "missed_steps": {name: one["missed"] for name, one in learned.cells.items()},
    }


def table(learned: Learned) -> list[tuple[str, str]]:
    """The same for people."""
    made = [one.version for one in learned.rounds.values() if one.version is not None]
    course = "  ".join(
        f"{value:+.1f}{' (bad release tried)' if number in learned.spoilt else ''}"
        for number, value in sorted(learned.returns.items())
    )
    carbon = "  ".join(f"{value:.2f}" for _, value in sorted(learned.costs.items()))
    steps = sum(one["steps"] for one in learned.cells.values())
    missed = sum(one["missed"] for one in learned.cells.values())
    undone = learned.ended(learned.bad)
    return [
        ("rounds of learning", f"{len(learned.rounds)}, of which {len(made)} made a version"),
        ("earned per decision, by round (simulated money)", course or "nothing"),
        ("carbon per decision, by round", f"{carbon} kg; allowed are {LIMIT_KG:g}" if carbon else "nothing"),
        ("decisions of the cells", f"{steps:,}, of which {missed:,} without an answer in time"),
        *((f"refused: {node}", text) for node, text in learned.refused().items()),
        ("in quarantine", "; ".join(f"{node}: {lines[-1]}" for node, lines in learned.evidence.items()) or "nobody"),
        *((f"version {one.version}, from {one.origin}", learned.course(one)) for one in learned.versions),
        ("bad release", "not tried" if undone is None else f"version {undone.version} {undone.what}: {undone.why}"),
        ("runs", ", ".join(f"{node}: {number}" for node, number in learned.running.items())),
    ]


def figure(learned: Learned) -> go.Figure:
    """Return and carbon per decision by round."""
    figure = go.Figure()
    for name, values, axis in (("earned", learned.returns, "y"), ("carbon, kg", learned.costs, "y2")):
        numbers = sorted(values)
        figure.add_scatter(
            x=numbers, y=[values[number] for number in numbers], name=name, mode="lines+markers", yaxis=axis
        )
    figure.add_scatter(
        x=[min(learned.rounds, default=0), max(learned.rounds, default=0)],
        y=[LIMIT_KG, LIMIT_KG],
        name="carbon allowed, kg",
        mode="lines",
        line={"dash": "dot"},
        yaxis="y2",
    )
    for number, one in learned.rounds.items():
        words = [f"{node} refused" for node in one.refused] + ["bad release tried"] * (number in learned.spoilt)
        if words:
            figure.add_annotation(x=number, y=1.04, yref="paper", text="<br>".join(words), showarrow=False)
    figure.update_layout(
        title="Learning together: what a decision earned and emitted, mean of all cells since the round before",
        xaxis={"title": "round", "dtick": 1},
        yaxis_title="money per decision",
        yaxis2={
            "title": "kg per decision",
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "showgrid": False,
            "tickformat": ".1f",
        },
        height=420,
    )
    return figure


def sections(learned: Learned) -> list[Section]:
    """For the report: every round, every version, who did what."""
    rounds = [
        (
            str(number),
            str(one.version or "none"),
            ", ".join(sorted(one.taken)),
            _number(learned.returns.get(number)),
            "; ".join(f"{node}: {why}" for node, why in one.refused.items()),
            ", ".join(one.quarantined),
        )
        for number, one in learned.rounds.items()
    ]
    events = [(str(one.version), one.what, one.by, one.why) for one in learned.history]
    return [
        Section(
            "Rounds of learning",
            ["Return is in simulated money per decision, of what the cells did since the round before."],
            [("round", "version", "taken", "return", "refused, and why", "in quarantine"), *rounds],
        ),
        Section(
            "Versions",
            ["Every version of the model and what became of it, from the cloud's registry."],
            [("version", "what", "by", "why"), *events],
        ),
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
