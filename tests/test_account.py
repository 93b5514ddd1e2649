"""What is said of a run afterwards: what was cancelled too late, what nobody knows, and what never befell it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from messages.contracts import OrderedJob
from messages.dispatch.judge import ByRule, Mcts
from messages.instances import load_problem
from messages.negotiation import Step, Workpiece
from messages.plant import load_plant
from messages.workshop import plant_of
from shoal.swarm import report
from shoal.swarm.account import excuses
from shoal.swarm.disturb import Happening, Scenario
from shoal.swarm.outcome import Swarm
from shoal.swarm.sim import simulate

REPO = Path(__file__).parent.parent
CERAMIC = load_plant(REPO / "firmware_sim" / "plants" / "ceramic.toml")
SWARM = Swarm(CERAMIC, tuple(OrderedJob(job=name, product=name) for name in ("b01", "b02")), ByRule(kind="fifo"))


def test_a_cancellation_that_came_when_all_was_done_is_not_said_to_have_spared_anything() -> None:
    late = 1.5 * simulate(SWARM).figures.makespan_s
    outcome = simulate(replace(SWARM, scenario=Scenario(happenings=(Happening(kind="cancel", job="b01", at_s=late),))))
    assert outcome.holds and not outcome.excused
    assert [one.answer for one in outcome.troubles] == ["all of its operations had been begun"]


def test_what_was_to_befall_a_run_after_its_end_is_said_not_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.swarm.limit.EVENTS_PER_TASK", 1_000)
    happening = Happening(kind="rush", job="urgent", product="b03", at_s=900_000_000, lasts_s=9)
    outcome = simulate(replace(SWARM, scenario=Scenario(happenings=(happening,))))
    assert outcome.holds, outcome.faults
    [trouble] = outcome.troubles
    assert (trouble.kind, trouble.what) == ("rush", "urgent") and trouble.answer.startswith("not reached")


def test_a_baton_that_knows_nothing_of_one_operation_excuses_nobody_from_those_before_it() -> None:
    step = Step(op=0, machine="press-1", start_at=1, end_at=2)
    common = {"revision": 1, "at": 3, "product": "b01", "place": "press-1"}
    batons = {
        "b01": Workpiece(job="b01", state="unknown", op=1, steps=[step], why="its node is away", **common),
        "own": Workpiece(job="own", state="cancelled", op=None, steps=[], why="not needed", **common),
    }
    keys = [(job, op) for job in ("b01", "own", "b02") for op in range(3)]
    found = dict(excuses(keys, batons, cancelled={"b02"}, own={"own"}))
    assert {key for key in found if key[0] == "b01"} == {("b01", 1), ("b01", 2)}
    assert found["b01", 1] == "unknown: its node is away"
    assert found["own", 0] == "cancelled: not needed" and found["b02", 2] == "cancelled"


def test_where_no_powers_are_stated_no_energy_is_compared() -> None:
    plant, jobs = plant_of(load_problem(REPO / "examples" / "workshop_lag.json"), t0=Swarm.start)
    outcome = simulate(Swarm(plant, tuple(jobs), ByRule(kind="fifo")))
    lines = report.compared({"sjf": outcome.figures}, outcome)
    assert "energy" not in lines[0] and not any("kWh" in cell for line in lines for cell in line)
    lines = report.compared({}, simulate(SWARM))
    assert "energy" in lines[0] and any("kWh" in cell for cell in lines[1])


def test_a_swarm_that_does_not_rely_on_tags_keeps_every_promise_all_the_same() -> None:
    plant, jobs = plant_of(load_problem(REPO / "examples" / "workshop_vehicles.json"), t0=Swarm.start)
    scenario = Scenario(happenings=(Happening(kind="node", node=plant.nodes[0], at_s=60, lasts_s=90),), lose=0.1)
    swarm = Swarm(plant, tuple(jobs), Mcts(iterations=20), scenario=scenario)
    outcomes = [simulate(replace(swarm, tags=tags)) for tags in (True, False)]
    assert [one.faults for one in outcomes] == [(), ()]
    assert outcomes[0].runs != outcomes[1].runs, "it makes a difference"
