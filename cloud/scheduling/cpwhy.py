"""Why no plan keeps the limits: by how much each is too tight, and what would meet it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from cloud.scheduling.seam import NEAR
from messages.plan import Measure
from messages.problem import TIMES, Problem

Least = Callable[[Measure, Problem], tuple[float | None, bool]]
"""The least value of a measure in a problem, or a bound, if any; whether it is proved to be the least."""


def why(
    problem: Problem, limits: Mapping[Measure, float], least_of: Least, *, sure: bool
) -> tuple[Literal["infeasible", "unknown"], str]:
    """What was proved, and by how much the limits are too tight. `sure`: not only for plans on a coarse grid."""
    horizon = problem.horizon
    if not limits:
        if horizon is None:
            return "infeasible", "proved: no plan exists; see to waits, calendars and transport"
        least, proved = least_of("makespan", problem.model_copy(update={"limits": {}, "horizon": None}))
        cure = "raise it"
        if least is not None and least > horizon:
            cure = f"raise it to {_said(problem, 'makespan', least)}{'' if proved else ' or more'}"
        return "infeasible", f"proved: no plan ends by the horizon {_said(problem, 'makespan', horizon)}; {cure}"
    stated = ", ".join(f"{name} <= {_said(problem, name, value)}" for name, value in limits.items())
    alone = []
    for name, value in limits.items():
        least, proved = least_of(name, problem.model_copy(update={"limits": {}}))
        if least is not None and least > value + NEAR * max(1.0, abs(value)):
            said = _said(problem, name, least)
            word = f"least {name} is {said} (proved)" if proved else f"{name} is at least {said}"
            alone.append(f"{word}: {_cure(problem, name, least - value)}")
            sure = True
    if not sure:
        return "unknown", f"no plan on a grid of whole steps keeps {stated}; relax one or allow a finer grid"
    if not alone and len(limits) > 1:
        alone.append("each limit alone might be kept, but not all of them together; relax one")
    return "infeasible", "; ".join([f"proved: no plan keeps {stated}", *(alone or ["relax a limit"])])


def _said(problem: Problem, measure: Measure, value: float) -> str:
    """A value for people: times in the problem's unit."""
    return f"{problem.in_unit(value):g} {problem.time_unit}".rstrip() if measure in TIMES else f"{value:g}"


def _cure(problem: Problem, measure: Measure, over: float) -> str:
    """What would meet a limit that is `over` too low."""
    if measure == "ledger":
        return f"raise capture_kg by {over:g}, or the horizon, or the limit"
    return f"raise the limit by {_said(problem, measure, over)}"
