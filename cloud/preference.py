"""Which plan of a front goes in force: by the order of the measures, or by what an operator once preferred.

    preference = preference_for(plans, ("makespan", "energy"), choice=3, by="eva")
    best = preferred(plans, ("makespan", "energy"), preference, moved=[0.0, 0.1, …], stay=0.02)

A preference is a weight per measure; the plan with the least greatest weighted regret is taken (augmented Chebyshev,
Steuer & Choo 1983), regrets being normalised by the front's ideal and nadir. An operator's choice sets the weights so
that exactly the chosen plan is taken from that front; later fronts are judged by the same weights. Moving what was
released costs `stay` per share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from cloud.scheduling import KEY
from cloud.scheduling.front import corners
from messages.contracts import MAX_ALTERNATIVES, Alternative, Choices
from messages.plan import Measure, Plan

LEAST_REGRET = 0.01
"""A chosen plan's regret counts as at least this, so that no weight becomes infinite."""
AUGMENT = 1e-3
"""Weight of the sum of regrets, which decides between plans of one greatest regret."""


class Preference(BaseModel):
    """Weights of normalised regrets; they sum to 1."""

    model_config = ConfigDict(frozen=True)

    weights: dict[Measure, float]
    by: str = ""


def preference_for(plans: Sequence[Plan], measures: Sequence[Measure], choice: int, by: str = "") -> Preference:
    """The preference by which `plans[choice]` is taken from this front."""
    found = [max(one, LEAST_REGRET) for one in regrets(plans, measures)[choice]]
    total = sum(1 / one for one in found)
    return Preference(weights={name: 1 / one / total for name, one in zip(measures, found, strict=True)}, by=by)


def preferred(
    plans: Sequence[Plan],
    measures: Sequence[Measure],
    preference: Preference | None,
    *,
    moved: Sequence[float],
    stay: float,
) -> int:
    """The place of the plan to put in force; without a preference the first measure decides, then the next.

    moved  share of the released operations that each plan moves
    """
    if preference is None:
        best = min(plan.objectives[KEY[measures[0]]] for plan in plans)
        scale = max(abs(best), 1e-9)

        def rank(place: int) -> tuple[float, ...]:
            values = [plans[place].objectives[KEY[name]] for name in measures]
            return (round(values[0] / scale + stay * moved[place], 9), *values[1:])

        return min(range(len(plans)), key=rank)
    weights, rows = preference.weights, regrets(plans, measures)

    def cost(place: int) -> float:
        weighed = [weights.get(name, 0.0) * one for name, one in zip(measures, rows[place], strict=True)]
        return max(weighed) + AUGMENT * sum(weighed) + stay * moved[place]

    return min(range(len(plans)), key=cost)


def regrets(plans: Sequence[Plan], measures: Sequence[Measure]) -> list[list[float]]:
    """Of each plan, per measure: 0 at the best of the front, 1 at the worst."""
    ideal, nadir = corners(plans, measures)

    def regret(plan: Plan, key: str) -> float:
        width = nadir[key] - ideal[key]
        return (plan.objectives[key] - ideal[key]) / width if width > 0 else 0.0

    return [[regret(plan, KEY[name]) for name in measures] for plan in plans]


def choices_of(
    plans: Sequence[Plan],
    measures: Sequence[Measure],
    *,
    in_force: int | None,
    revision: int,
    at: int,
    chosen_by: str,
    when: Callable[[float], int],
    tick_s: float,
) -> Choices:
    """The front as a message; `when` turns a tick into µs. Of more than fit the first are offered."""
    return Choices(
        revision=revision,
        at=at,
        objectives=list(measures),
        in_force=in_force if in_force is not None and in_force < MAX_ALTERNATIVES else None,
        chosen_by=chosen_by,
        alternatives=[
            _alternative(place, plan.objectives, when, tick_s) for place, plan in enumerate(plans[:MAX_ALTERNATIVES])
        ],
    )


def _alternative(place: int, values: Mapping[str, float], when: Callable[[float], int], tick_s: float) -> Alternative:
    known = {key: round(values[key], 3) for key in ("energy_kwh", "carbon_kg", "cost", "peak_kw") if key in values}
    return Alternative(
        choice=place,
        ends_at=when(values["makespan"]),
        tardiness_s=round(values["tardiness"] * tick_s, 3),
        **known,
    )
