"""What the site offers while a plan is carried out, for drawing below its Gantt: carbon, tariff, power.

site_strips(problem, plan)      # no strip for what the problem does not know
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from messages.curve import Curve
from messages.judge import draws
from messages.plan import Plan
from messages.problem import Problem

When = float | datetime

STRIP_POINTS = 5_000
"""Steps drawn per curve; a longer one is drawn up to there."""


@dataclass(frozen=True)
class Strip:
    """Curves below the machines, on the same time axis: name → steps (from, value); the last step ends the curve."""

    title: str
    unit: str
    curves: dict[str, list[tuple[When, float]]]


def span(problem: Problem, plan: Plan) -> tuple[int, int]:
    """What a picture of it shows, in ticks: from the first preheating to the horizon, else to where the last thing,
    carried or worked, ends."""
    ends = [one.end for one in plan.assignments] + [one.end for one in plan.machine_states]
    ends += [one.end for one in plan.moves] + [1 if problem.horizon is None else problem.horizon]
    return min([0, *(one.start for one in plan.machine_states)]), max(ends)


def site_strips(problem: Problem, plan: Plan, *, power: bool = False) -> list[Strip]:
    """What the plan was to make use of: carbon, tariff, and the power drawn (if asked for, or there is generation)."""
    begin, end = span(problem, plan)
    found = []
    for title, unit, kind in (("carbon", "kg CO2e/kWh", problem.carbon), ("tariff", "per kWh", problem.tariff)):
        curves = {f"{title} {name} ({unit})": _steps(problem, curve, begin, end) for name, curve in kind.items()}
        if curves:
            found.append(Strip(title, unit, curves))
    if power or problem.generation:
        curves = {"load (kW)": _load(problem, plan, "electricity")}
        for name, of in (("generation (kW)", problem.generation), ("base load (kW)", problem.base_load)):
            if "electricity" in of:
                curves[name] = _steps(problem, of["electricity"], begin, end)
        found.append(Strip("power", "kW", curves))
    return found


def _steps(problem: Problem, curve: Curve, begin: int, end: int) -> list[tuple[When, float]]:
    found: list[tuple[When, float]] = []
    for start, until, value in curve.pieces(begin, end):
        if len(found) == STRIP_POINTS:
            break
        found.append((problem.in_unit(start), value))
        last = (problem.in_unit(until), value)
    return [*found, last] if found else []


def _load(problem: Problem, plan: Plan, carrier: str) -> list[tuple[When, float]]:
    """kW drawn over time."""
    change: dict[int, float] = defaultdict(float)
    for of, kw, start, end in draws(problem, plan):
        if of == carrier and end > start:
            change[start] += kw
            change[end] -= kw
    found: list[tuple[When, float]] = []
    level = 0.0
    for at in sorted(change)[:STRIP_POINTS]:
        level += change[at]
        found.append((problem.in_unit(at), round(level, 6)))
    return found
