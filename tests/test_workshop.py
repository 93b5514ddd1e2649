"""A problem becomes a plant that means the same; what the swarm does not know is refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from messages.errors import UsageError
from messages.floor import Floor, problem_of
from messages.problem import Problem
from messages.workshop import names_of, plant_of

T0 = 1_700_000_000_000_000
MACHINES = (
    {
        "id": "Lathe 1",
        "preheat": 3,
        "power_kw": {"work": 9, "idle": 2, "preheat": 4, "off": 0.1},
        "buffer": {"in": 2, "out": 2, "policy": "hold"},
        "on_breakdown": "resume",
    },
    {"id": "mill", "carrier": "gas", "buffer": {"out": 1}},
    {"id": "saw", "carrier": "gas"},
)
JOBS = (
    {"id": "PO/1", "at": "raw", "release": 7, "operations": [{"op": 0, "alternatives": {"Lathe 1": 5, "mill": 6}}]},
    {"id": "2", "at": "raw", "due": 90, "operations": [{"op": 0, "alternatives": {"Lathe 1": 5, "mill": 6}}]},
    {
        "id": "3",
        "operations": [
            {"op": 10, "alternatives": {"mill": 4}, "name": "first", "work_kw": {"mill": 3.5}},
            {"op": 20, "alternatives": {"saw": 1}, "wait_min": 3},
        ],
    },
)
CARRY = {
    "ticks": {"raw": {"Lathe 1": 4, "mill": 5}, "Lathe 1": {"raw": 4}},
    "stores": ["raw"],
    "vehicles": 2,
    "home": "Lathe 1",
    "loading": 1,
    "unloading": 2,
    "power_kw": 1.5,
}
WHOLE: dict[str, Any] = {"tick_s": 0.1, "machines": MACHINES, "jobs": JOBS, "transport": CARRY}


def test_a_problem_becomes_a_plant_that_means_the_same() -> None:
    problem = Problem.model_validate(WHOLE)
    plant, orders = plant_of(problem, t0=T0)
    back = names_of(problem)
    assert [back[name] for name in plant.machines] == ["Lathe 1", "mill", "saw"] and back["raw"] == "raw"
    assert plant.nodes == ("cell-1", "cell-2") and [one.name for one in plant.workshops][:2] == ["cell-1", "cell-1-2"]
    again = problem_of(plant, {one.job: one for one in orders}, Floor(), t0=T0, now=T0)
    assert again.tick_s == problem.tick_s
    for ours, theirs in zip(again.machines, problem.machines, strict=True):
        assert (back[ours.id], ours.preheat, ours.power_kw) == (theirs.id, theirs.preheat, theirs.power_kw)
        assert (ours.carrier, ours.on_breakdown) == (theirs.carrier, theirs.on_breakdown)
    for mine, yours in zip(again.jobs, problem.jobs, strict=True):
        assert (mine.id, mine.release, mine.due) == (yours.id, yours.release, yours.due)
        for step, asked in zip(mine.operations, yours.operations, strict=True):
            assert {back[name]: ticks for name, ticks in step.alternatives.items()} == asked.alternatives
    assert orders[0].product == orders[1].product != orders[2].product
    stages = plant.routes[orders[2].product]
    assert [(one.name, one.wait_s) for one in stages] == [("first", 0.0), ("", pytest.approx(0.3))]
    assert stages[0].kw == {"mill": 3.5}


def test_layout_vehicles_and_buffers_go_along() -> None:
    plant, orders = plant_of(Problem.model_validate(WHOLE))
    layout, lathe = plant.layout, next(iter(plant.machines))
    assert layout is not None and layout.vehicles == 2 and layout.home == lathe and layout.power_kw == 1.5
    assert layout.carried_s("raw", lathe) == pytest.approx(0.7) and layout.carried_s(lathe, "mill") is None
    assert layout.at == {orders[0].product: "raw"}
    places = {name: (machine.buffer.in_, machine.buffer.out) for name, (_, machine) in plant.machines.items()}
    assert list(places.values()) == [(2, 1), (None, 1), (None, None)], "to hold with 2 places is to block with 1"


def test_machines_go_to_the_nodes_that_are_named() -> None:
    problem = Problem.model_validate(WHOLE)
    plant, _ = plant_of(problem, nodes={"Lathe 1": "north", "mill": "south", "saw": "north"})
    assert [plant.node_of(name) for name in plant.machines] == ["north", "south", "north"]
    with pytest.raises(UsageError, match="'saw' has no node"):
        plant_of(problem, nodes={"Lathe 1": "north", "mill": "south"})
    with pytest.raises(UsageError, match="reserved"):
        plant_of(problem, nodes=dict.fromkeys(problem.machine, "all"))
    with pytest.raises(UsageError, match="no plant can be made"):
        plant_of(problem, nodes=dict.fromkeys(problem.machine, "North"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machines": [{**one, "setup": {"a": {"b": 1}}} for one in MACHINES]}, "set-ups"),
        ({"machines": [{**one, "batch": 2} for one in MACHINES]}, "batches"),
        ({"machines": [{**one, "carrier": "steam"} for one in MACHINES]}, "carriers"),
        ({"machines": [{**one, "warm_from": 0} for one in MACHINES]}, "warm"),
        ({"machines": [{**one, "unavailable": [{"start": 1, "end": 2}]} for one in MACHINES]}, "closed times"),
        ({"machines": [{**one, "power_kw": {"down": 1}} for one in MACHINES]}, "broken machines draw"),
        ({"crews": {"a": 1}}, "crews"),
        ({"now": 3}, "under way"),
        ({"limits": {"makespan": 9}}, "limits"),
        ({"transport": {**CARRY, "finished": "raw"}}, "finished parts"),
        ({"transport": {**CARRY, "carrier": "gas"}}, "anything but electricity"),
        ({"tick_s": 1e-7}, "whole microseconds"),
        ({"machines": [], "jobs": [], "transport": {}}, "without machines"),
    ],
)
def test_what_the_swarm_does_not_know_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plant_of(Problem.model_validate(WHOLE | change))
