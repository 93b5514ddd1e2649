"""Which plan of a front goes in force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud.preference import Preference, choices_of, preference_for, preferred, regrets
from messages.plan import Measure

TWO: tuple[Measure, ...] = ("makespan", "energy")


def front(points: list[tuple[int, float]]) -> list[dict[str, float]]:
    return [{"makespan": float(x), "energy_kwh": y, "tardiness": 0.0} for x, y in points]


FRONTS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=12).map(
    lambda steps: [
        (sum(x for x, _ in steps[: i + 1]), 1000.0 - sum(y for _, y in steps[: i + 1])) for i in range(len(steps))
    ]
)


def test_without_a_preference_the_first_measure_decides_and_then_the_next() -> None:
    plans = front([(27, 100.0), (27, 90.0), (28, 80.0)])
    assert preferred(plans, TWO, None, moved=[0, 0, 0], stay=0.02) == 1


def test_moving_everything_weighs_like_its_price_in_the_first_measure() -> None:
    plans = front([(100, 50.0), (101, 50.0), (103, 50.0)])
    assert preferred(plans, TWO, None, moved=[1.0, 0.0, 0.0], stay=0.02) == 1
    assert preferred(plans, TWO, None, moved=[1.0, 0.0, 0.0], stay=0.005) == 0


@given(FRONTS, st.data())
def test_exactly_the_chosen_plan_is_taken_from_its_own_front(
    points: list[tuple[int, float]], data: st.DataObject
) -> None:
    plans = front(points)
    choice = data.draw(st.integers(0, len(plans) - 1))
    preference = preference_for(plans, TWO, choice, by="eva")
    assert abs(sum(preference.weights.values()) - 1) < 1e-9
    taken = preferred(plans, TWO, preference, moved=[0.0] * len(plans), stay=0.0)
    mine, theirs = regrets(plans, TWO)[taken], regrets(plans, TWO)[choice]
    assert taken == choice or max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) <= 0.02


@given(FRONTS, st.floats(0, 1))
def test_whatever_is_preferred_is_one_of_the_front(points: list[tuple[int, float]], weight: float) -> None:
    plans = front(points)
    preference = Preference(weights={"makespan": weight, "energy": 1 - weight})
    assert 0 <= preferred(plans, TWO, preference, moved=[0.5] * len(plans), stay=0.02) < len(plans)


def test_the_choices_say_when_each_plan_ends_and_what_it_costs() -> None:
    said = choices_of(
        front([(27, 100.0), (30, 90.0)]),
        TWO,
        in_force=1,
        revision=4,
        at=7,
        chosen_by="eva",
        when=lambda tick: round(tick) * 1_000_000,
        tick_s=1.0,
    )
    assert [one.ends_at for one in said.alternatives] == [27_000_000, 30_000_000]
    assert (said.in_force, said.alternatives[1].energy_kwh, said.alternatives[1].cost) == (1, 90.0, None)


def test_plans_that_others_beat_do_not_change_what_is_chosen() -> None:
    values = front([(10, 100.0), (12, 80.0), (16, 60.0)])
    preference = preference_for(values, TWO, 1, by="eva")
    beaten = [*values, *front([(17, 1000.0)])]
    assert preferred(beaten, TWO, preference, moved=[0.0] * 4, stay=0.0, front=values) == 1
    assert preferred(beaten, TWO, preference, moved=[0.0] * 4, stay=0.0) != 1
