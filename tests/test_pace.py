"""The patience of a plant follows from how long its work takes, but no message is expected faster than it can come."""

from __future__ import annotations

import pytest

from messages.pace import IN_A_LEASE, LEAST_LEASE_S, PATIENT, pace_of
from messages.plant import Plant


def plant(seconds: float) -> Plant:
    machine = {"id": "m1", "work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0, "time_h": [seconds / 3600]}
    workshop = {"name": "w", "node": "n", "machines": [machine]}
    return Plant.model_validate(
        {"site": "s", "products": ["a"], "tick_s": 0.001, "transport_s": 0, "workshops": [workshop]}
    )


@pytest.mark.parametrize(
    ("seconds", "lease_s"),
    [(0.01, LEAST_LEASE_S), (0.2, LEAST_LEASE_S), (60, IN_A_LEASE * 60), (36_000, PATIENT.lease_s)],
)
def test_a_lease_is_so_many_typical_times_but_never_so_short_that_no_award_could_arrive_in_it(
    seconds: float, lease_s: float
) -> None:
    assert pace_of(plant(seconds)).lease_s == lease_s
