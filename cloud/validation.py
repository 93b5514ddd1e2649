"""Whether a candidate may leave the simulation: it runs there beside the incumbent, by a callable that is handed in.

outcome = answer(question, simulate)              # simulate(version) -> metrics; may take long, and may run apart
objection(outcome, ValidationSettings())          # None, or why the candidate is refused
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from pydantic import Field

from cloud.versions import Version
from messages.contracts import Word
from messages.errors import ShoalError
from messages.settings import Section

Simulate: TypeAlias = Callable[[Version], Mapping[str, float]]
"""Metrics of a version; the same course of events for every version. A ShoalError says why it cannot run."""
MAX_METRICS = 64


class ValidationSettings(Section):
    """What a candidate must be in simulation."""

    score: Word = Field("mean_return", description="metric that must not fall; more is better")
    worse: float = Field(0.05, ge=0, le=1, description="share of the incumbent's score a candidate may lose")
    over: Word = Field("over_limit", description="metric that says by which share a limit is not kept on the mean")
    most_over: float = Field(1.0, ge=0, description="more of that is refused, unless the incumbent has as much")
    limits: dict[Word, float] = Field({}, max_length=MAX_METRICS, description="metric → its largest value allowed")


class Question(NamedTuple):
    """A candidate, and what it must not be worse than."""

    candidate: Version
    incumbent: Version | None


class Outcome(NamedTuple):
    """Metrics of both, or why there are none."""

    metrics: Mapping[str, float]
    incumbent: Mapping[str, float]
    error: str | None = None


def answer(question: Question, simulate: Simulate) -> Outcome:
    """Run both. What goes wrong with the candidate is an outcome; with the incumbent it is an error of the caller."""
    try:
        metrics = dict(simulate(question.candidate))
    except ShoalError as error:
        return Outcome({}, {}, str(error))
    return Outcome(metrics, dict(simulate(question.incumbent)) if question.incumbent else {})


def objection(outcome: Outcome, wanted: ValidationSettings) -> str | None:
    """Why this candidate is refused."""
    if outcome.error is not None:
        return outcome.error
    odd = [name for name, value in outcome.metrics.items() if not math.isfinite(value)]
    if odd:
        return f"{odd[0]} is no number"
    if len(outcome.metrics) > MAX_METRICS:
        return f"{len(outcome.metrics)} metrics; at most {MAX_METRICS} are kept"
    score = outcome.metrics.get(wanted.score)
    if score is None:
        return f"the simulation gives no {wanted.score}; it gives {', '.join(outcome.metrics) or 'nothing'}"
    for name, most in wanted.limits.items():
        value = outcome.metrics.get(name)
        if value is None or value > most:
            return f"{name} is {'not given' if value is None else format(value, '.4g')}; at most {most:.4g} is allowed"
    before = outcome.incumbent.get(wanted.score)
    if before is not None and math.isfinite(before) and score < before - wanted.worse * abs(before):
        return f"{wanted.score} {score:.4g}, the incumbent has {before:.4g}; it may lose {wanted.worse:.0%}"
    over, as_now = outcome.metrics.get(wanted.over, 0.0), outcome.incumbent.get(wanted.over)
    if as_now is not None and over > max(wanted.most_over, as_now):
        return f"{wanted.over} {over:.4g}, the incumbent has {as_now:.4g}; at most {wanted.most_over:.4g} is allowed"
    return None
