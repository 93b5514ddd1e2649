"""Which plan of a front goes in force: by the order of the measures, or by what an operator once preferred.

    values = [plan.objectives for plan in front]
    preference = preference_for(values, ("makespan", "energy"), choice=3, by="eva")
    best = preferred(values, ("makespan", "energy"), preference, moved=[0.0, 0.1, …], stay=0.02)

A preference is a weight per measure; the plan with the least greatest weighted regret is taken (augmented Chebyshev,
Steuer & Choo 1983), regrets being normalised by the front's ideal and nadir. An operator's choice sets the weights so
that exactly the chosen plan is taken from that front; later fronts are judged by the same weights. Moving what was
released costs `stay` per share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from cloud.scheduling import KEY
from messages.contracts import MAX_ALTERNATIVES, Alternative, Choices
from messages.plan import Measure

Values = Mapping[str, float]
"""A plan's objectives."""

LEAST_REGRET = 0.01
"""A chosen plan's regret counts as at least this, so that no weight becomes infinite."""
AUGMENT = 1e-3
"""Weight of the sum of regrets, which decides between plans of one greatest regret."""


class Preference(BaseModel):
    """Weights of normalised regrets; they sum to 1."""

    model_config = ConfigDict(frozen=True)

    weights: dict[Measure, float]
    by: str = ""


def preference_for(values: Sequence[Values], measures: Sequence[Measure], choice: int, by: str = "") -> Preference:
    """The preference by which the plan of `values[choice]` is taken from this front."""
    found = [max(one, LEAST_REGRET) for one in regrets(values, measures)[choice]]
    total = sum(1 / one for one in found)
    return Preference(weights={name: 1 / one / total for name, one in zip(measures, found, strict=True)}, by=by)


def preferred(
    values: Sequence[Values],
    measures: Sequence[Measure],
    preference: Preference | None,
    *,
    moved: Sequence[float],
    stay: float,
    front: Sequence[Values] = (),
) -> int:
    """The place of the plan to put in force; without a preference the first measure decides, then the next.

    moved  share of the released operations that each plan moves
    front  those of `values` that no other beats: they say what is best and worst; all, if none are given
    """
    if preference is None:
        best = min(one[KEY[measures[0]]] for one in values)
        scale = max(abs(best), 1e-9)

        def rank(place: int) -> tuple[float, ...]:
            row = [values[place][KEY[name]] for name in measures]
            return (round(row[0] / scale + stay * moved[place], 9), *row[1:])

        return min(range(len(values)), key=rank)
    weights, rows = preference.weights, regrets(values, measures, front or values)

    def cost(place: int) -> float:
        weighed = [weights.get(name, 0.0) * one for name, one in zip(measures, rows[place], strict=True)]
        return max(weighed) + AUGMENT * sum(weighed) + stay * moved[place]

    return min(range(len(values)), key=cost)


def regrets(values: Sequence[Values], measures: Sequence[Measure], front: Sequence[Values] = ()) -> list[list[float]]:
    """Of each plan, per measure: 0 at the best of the front, 1 at its worst; without one `values` are the front."""
    keys = [KEY[name] for name in measures]
    ideal = {key: min(one[key] for one in front or values) for key in keys}
    width = {key: max(one[key] for one in front or values) - ideal[key] for key in keys}
    return [[(one[key] - ideal[key]) / width[key] if width[key] > 0 else 0.0 for key in keys] for one in values]


def choices_of(
    values: Sequence[Values],
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
        alternatives=[_alternative(place, one, when, tick_s) for place, one in enumerate(values[:MAX_ALTERNATIVES])],
    )


def _alternative(place: int, values: Values, when: Callable[[float], int], tick_s: float) -> Alternative:
    known = {key: round(values[key], 3) for key in ("energy_kwh", "carbon_kg", "cost", "peak_kw") if key in values}
    return Alternative(
        choice=place,
        ends_at=when(values["makespan"]),
        tardiness_s=round(values["tardiness"] * tick_s, 3),
        **known,
    )
