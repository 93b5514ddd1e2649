"""The simulated floor: physics of machines and meters, parts on the way, obedience, breakdowns."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware_sim.factory import Factory
from firmware_sim.machine import SECOND, MachineModel
from firmware_sim.meters import MeterModel
from firmware_sim.settings import Breakdown, Variation
from firmware_sim.signals import FLAT, PREHEAT, WORK
from messages.contracts import Action, MachineEvent
from messages.plant import Plant, load_plant

CERAMIC = Path(__file__).parents[1] / "firmware_sim" / "plants" / "ceramic.toml"
T0 = 1_800_000_000 * SECOND
HOUR = 3600 * SECOND
EXACT = Variation(sigma=0)


@pytest.fixture(scope="module")
def ceramic() -> Plant:
    return load_plant(CERAMIC)


def small(**workshop: Any) -> Plant:
    """Two cold presses, then two kilns that must be heated for an hour."""
    press = {"work_kw": 40, "idle_kw": 5, "preheat_kw": 0, "preheat_h": 0, "time_h": [1, 1]}
    kiln = {"work_kw": 200, "idle_kw": 60, "preheat_kw": 120, "preheat_h": 1, "time_h": [2, 2]}
    second = {"name": "kilns", "node": "heat", "work_degc": 900, "carrier": "gas", **workshop}
    return Plant.model_validate(
        {
            "site": "small",
            "products": ["a", "b"],
            "workshops": [
                {"name": "presses", "node": "press", "machines": [{"id": f"press-{n}", **press} for n in (1, 2)]},
                {**second, "machines": [{"id": f"kiln-{n}", **kiln} for n in (1, 2)]},
            ],
        }
    )


class Hand:
    """A node's hand on the floor: asks, waits, and remembers what it saw."""

    def __init__(self, plant: Plant, **settings: Any) -> None:
        self.factory = Factory(plant, **{"start": T0, "seed": 3, "variation": EXACT, **settings})
        self.seen: dict[str, list[MachineEvent]] = {machine: [] for machine in plant.machines}
        self.asked = 0

    def ask(self, machine: str, kind: str, *part: Any, id: str | None = None, valid_h: float = 100) -> str:
        self.asked += 1
        job, op, hours = (*part, None, None, None)[:3]
        name = id or f"a{self.asked}"
        action = Action.model_validate(
            {
                "id": name,
                "kind": kind,
                "job": job,
                "op": op,
                "duration_s": None if hours is None else hours * 3600,
                "valid_until": self.factory.now + round(valid_h * HOUR),
            }
        )
        self.factory.act(machine, action, self.factory.now)
        self.look()
        return name

    def wait(self, hours: float) -> None:
        self.factory.advance(self.factory.now + round(hours * HOUR))
        self.look()

    def look(self) -> None:
        for machine, events in self.seen.items():
            events += self.factory.drain(machine)

    def kinds(self, machine: str) -> list[str]:
        return [event.kind for event in self.seen[machine] if event.kind != "state"]

    def work(self, machine: str, job: str, op: int, hours: float) -> None:
        self.ask(machine, "call", job, op)
        self.wait(0.1)
        self.ask(machine, "start", job, op, hours)


# --- physics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [FLAT, PREHEAT, WORK])
def test_a_load_profile_has_mean_one_and_its_area_is_its_integral(profile: Any) -> None:
    x = np.linspace(0, 1, 20_001)
    load, area = profile.load(x), profile.area(x)
    assert area[-1] == pytest.approx(1.0, abs=1e-12)
    assert np.allclose(np.cumsum((load[1:] + load[:-1]) / 2) / 20_000, area[1:], atol=1e-8)


def test_energy_counted_is_the_integral_of_power_through_a_whole_day(ceramic: Plant) -> None:
    hand = Hand(ceramic)
    hand.ask("forming-1", "preheat")
    hand.wait(0.7)
    hand.work("forming-1", "b03", 0, 4)
    hand.wait(5)
    hand.ask("forming-1", "off")
    hand.wait(2)
    at = np.arange(T0, hand.factory.now, SECOND, dtype=np.int64)
    seen = hand.factory.machines["forming-1"].sample(at)
    power, counter = seen["power_kw"], seen["energy_kwh"]
    assert counter[-1] == pytest.approx(np.sum(power) / 3600, rel=0.01)
    assert (np.diff(counter) >= 0).all()
    (done,) = hand.factory.done
    assert done.energy_kwh == pytest.approx(80 * 4, rel=1e-4), "the operation's energy is its power × its time"


def test_a_kiln_heats_without_falling_back_and_is_hot_exactly_after_its_preheating_time(ceramic: Plant) -> None:
    hand = Hand(ceramic)
    hand.ask("firing-1", "preheat")
    hand.wait(2.1)
    states = [(event.state, event.at - T0) for event in hand.seen["firing-1"]]
    assert states == [("preheat", 0), ("idle", 2 * HOUR)]
    at = np.arange(T0, T0 + 2 * HOUR + 1, 30 * SECOND, dtype=np.int64)
    degc = hand.factory.machines["firing-1"].sample(at)["temperature_degc"]
    assert (np.diff(degc) > 0).all()
    assert degc[0] == pytest.approx(20) and degc[-1] == pytest.approx(1220, abs=0.01)
    spec = next(d for d in ceramic.devices() if d.device == "firing-1").metrics["temperature_degc"]
    assert np.diff(degc).max() / 30 < (spec.max_rate_per_s or 0) / 2, "no healthy kiln looks like a fault"


def test_every_state_draws_its_power_and_a_machine_switched_off_cools(ceramic: Plant) -> None:
    hand = Hand(ceramic)
    hand.ask("drying-1", "preheat")
    hand.wait(2)
    hand.ask("drying-1", "off")
    hand.wait(9)
    at = T0 + np.array([0.5, 1.5, 2.5, 10.9]) * HOUR
    seen = hand.factory.machines["drying-1"].sample(at.astype(np.int64))
    assert seen["power_kw"] == pytest.approx([89, 30, 0, 0], abs=0.5)
    assert seen["state"].tolist() == [1, 2, 0, 0]
    assert seen["temperature_degc"][1] > seen["temperature_degc"][2] > seen["temperature_degc"][3] > 20
    assert seen["temperature_degc"][3] < 25


def test_the_main_meter_holds_its_machines_and_the_gas_meter_only_the_kilns(ceramic: Plant) -> None:
    hand = Hand(ceramic)
    for machine in ("drying-1", "drying-2", "firing-2"):
        hand.ask(machine, "preheat")
    hand.wait(3)
    at = np.arange(T0, hand.factory.now, 30 * SECOND, dtype=np.int64)
    for name in ("drying", "firing"):
        workshop = next(one for one in ceramic.workshops if one.name == name)
        machines = tuple(hand.factory.machines[one.id] for one in workshop.machines)
        meter = MeterModel(workshop, machines, gas_kwh_per_m3=10, start=T0, seed=1).sample(at)
        power = sum(one.sample(at)["power_kw"] for one in machines)
        rest = meter["electricity_kw"] - (power if name == "drying" else 0)
        assert rest.min() > 0.92 * workshop.base_kw and rest.max() < 1.08 * workshop.base_kw
        counted = meter["electricity_kwh"][-1]
        assert counted == pytest.approx(meter["electricity_kw"].sum() / 120, rel=0.01)
        if name == "firing":
            assert meter["gas_m3_h"] == pytest.approx(power / 10)
            assert meter["gas_m3"][-1] == pytest.approx(meter["gas_m3_h"].sum() / 120, rel=0.01)
        else:
            assert "gas_m3_h" not in meter


def test_samples_do_not_depend_on_how_the_time_was_cut_up(ceramic: Plant) -> None:
    workshop, spec = ceramic.machines["firing-1"]
    one = MachineModel(spec, workshop, ambient_degc=20, start=T0)
    one.preheat(T0 + 7 * SECOND)
    one.on_timer(one.next_timer or 0)
    at = np.arange(T0, T0 + 3 * HOUR, 30 * SECOND, dtype=np.int64)
    whole = one.sample(at)
    parts = [one.sample(at[i : i + 7]) for i in range(0, len(at), 7)]
    for metric, column in whole.items():
        assert np.array_equal(column, np.concatenate([part[metric] for part in parts]))
    one.forget(int(at[-10]))
    assert np.array_equal(one.sample(at[-10:])["energy_kwh"], whole["energy_kwh"][-10:])


# --- parts and actions --------------------------------------------------------------------------


def test_a_part_called_early_comes_when_its_earlier_stage_is_finished_and_the_way_is_done() -> None:
    hand = Hand(small())
    hand.ask("kiln-1", "call", "a", 1)
    hand.ask("kiln-1", "preheat")
    hand.ask("press-1", "call", "a", 0)
    hand.wait(120 / 3600)
    assert hand.kinds("press-1") == ["part_identified"]
    hand.ask("press-1", "start", "a", 0, 1)
    hand.wait(1)
    assert hand.kinds("press-1") == ["part_identified", "started", "finished"]
    assert hand.kinds("kiln-1") == [], "the part is on its way"
    hand.wait(120 / 3600)
    (came,) = [event for event in hand.seen["kiln-1"] if event.kind == "part_identified"]
    assert (came.job, came.action, came.at - T0) == ("a", "a1", HOUR + 240 * SECOND)
    hand.ask("kiln-1", "start", "a", 1, 2)
    hand.wait(2)
    assert hand.factory.logistics.parts["a"].place == "finished"
    assert [(one.machine, one.job, one.op) for one in hand.factory.done] == [("press-1", "a", 0), ("kiln-1", "a", 1)]


def test_an_action_repeated_is_answered_with_the_same_event_and_not_done_again() -> None:
    hand = Hand(small())
    hand.work("press-1", "a", 0, 1)
    (started,) = [event for event in hand.seen["press-1"] if event.kind == "started"]
    hand.wait(0.5)
    hand.ask("press-1", "start", "a", 0, 1, id=started.action)
    assert [event for event in hand.seen["press-1"] if event.kind == "started"] == [started, started]
    hand.ask("press-1", "start", "a", 0, 1, id="another-id")
    assert hand.seen["press-1"][-1] == started.model_copy(update={"action": "another-id"})
    hand.wait(1)
    assert len(hand.factory.done) == 1
    assert hand.factory.done[0].finished_at == started.at + HOUR
    hand.ask("press-1", "start", "a", 0, 1, id=started.action)
    assert hand.factory.machines["press-1"].state == "idle", "an old start does not start anything"


def test_a_machine_refuses_what_cannot_be_and_says_why() -> None:
    hand = Hand(small())
    hand.ask("kiln-1", "start", "a", 1, 2)
    hand.ask("kiln-1", "idle")
    hand.ask("kiln-1", "call", "a", 0)
    hand.ask("kiln-1", "preheat", valid_h=-0.1)
    hand.ask("press-1", "start", "a", 0)
    hand.ask("press-1", "call", "a", 0)
    hand.wait(0.1)
    hand.ask("press-2", "start", "a", 0, 1)
    hand.ask("press-1", "start", "a", 0, 1)
    hand.ask("press-1", "off")
    hand.ask("press-2", "call", "a", 0)
    refused = [(m, e.action, e.detail) for m, es in hand.seen.items() for e in es if e.kind == "refused"]
    assert refused == [
        ("press-1", "a5", "start: needs duration_s"),
        ("press-1", "a9", "off: at work on a op 0"),
        ("press-2", "a7", "start: the part is not identified at this machine"),
        ("press-2", "a10", "call: the part is in work at press-1"),
        ("kiln-1", "a1", "start: the part is not identified at this machine"),
        ("kiln-1", "a2", "idle: cold: preheat first"),
        ("kiln-1", "a3", "call: this machine does op 1"),
        ("kiln-1", "a4", "preheat: expired: its valid_until has passed"),
    ]
    hand.factory.act("nobody", Action(id="x", kind="off", valid_until=T0 * 2), T0)


def test_a_part_in_an_input_can_be_called_away_and_the_newest_call_wins() -> None:
    hand = Hand(small())
    hand.ask("press-1", "call", "a", 0)
    hand.wait(0.1)
    hand.ask("press-2", "call", "a", 0)
    assert hand.kinds("press-1") == ["part_identified", "part_removed"]
    hand.ask("press-1", "call", "a", 0)  # turned round on the way
    hand.wait(0.1)
    assert hand.kinds("press-1") == ["part_identified", "part_removed", "part_identified"]
    assert hand.kinds("press-2") == []
    hand.ask("press-1", "call", "a", 0)
    assert hand.seen["press-1"][-1].action == "a4", "a part that is there is identified at once"


def test_a_call_that_ran_out_before_its_part_could_leave_lapses() -> None:
    hand = Hand(small())
    hand.ask("kiln-1", "call", "a", 1, valid_h=1)
    hand.work("press-1", "a", 0, 1)
    hand.wait(2)
    assert hand.kinds("kiln-1") == []
    hand.ask("kiln-1", "call", "a", 1)
    hand.wait(0.1)
    assert hand.kinds("kiln-1") == ["part_identified"]


def test_a_floor_with_all_the_parts_it_can_hold_forgets_finished_ones_and_refuses_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("firmware_sim.logistics.MAX_PARTS", 2)
    hand = Hand(small())
    hand.ask("kiln-1", "preheat")
    hand.ask("press-2", "call", "b", 0)
    hand.work("press-1", "a", 0, 1)
    hand.ask("press-2", "call", "c", 0)
    assert "parts at most" in (hand.seen["press-2"][-1].detail or "")
    hand.wait(1)
    hand.work("kiln-1", "a", 1, 2)
    hand.wait(2)
    hand.ask("press-2", "call", "c", 0)
    hand.wait(0.1)
    assert hand.seen["press-2"][-1].job == "c" and set(hand.factory.logistics.parts) == {"b", "c"}


def test_real_durations_vary_by_the_seed_within_their_limit() -> None:
    def durations(seed: int) -> list[float]:
        plant = small()
        hand = Hand(plant, seed=seed, variation=Variation(sigma=0.05, limit=0.06))
        for index in range(40):
            hand.work("press-1", f"job {index}", 0, 1)
            hand.wait(1.2)
        return [(one.finished_at - one.started_at) / HOUR for one in hand.factory.done]

    first = durations(1)
    assert first == durations(1) and first != durations(2)
    assert len(first) == 40 and min(first) >= 0.94 - 1e-3 and max(first) <= 1.06 + 1e-3
    assert 0.02 < np.std(first) < 0.06 and np.mean(first) == pytest.approx(1, abs=0.02)
    assert all(math.isclose(one * 3600, round(one * 3600)) for one in first), "whole seconds"


def test_one_step_over_a_day_gives_the_same_floor_as_many_small_ones(ceramic: Plant) -> None:
    def day(step_h: float) -> tuple[Any, ...]:
        hand = Hand(ceramic, scenario=(Breakdown(workshop="forming", at_h=3, repair_h=1),), variation=Variation())
        for machine, job in (("forming-1", "b03"), ("forming-2", "b07"), ("forming-3", "b11")):
            hand.ask(machine, "preheat")
            hand.ask(machine, "call", job, 0)
        hand.wait(1)
        for machine, job in (("forming-1", "b03"), ("forming-2", "b07"), ("forming-3", "b11")):
            hand.ask(machine, "start", job, 0, 4)
        for _ in range(round(8 / step_h)):
            hand.wait(step_h)
        return hand.seen, hand.factory.done

    assert day(8) == day(1 / 60)


# --- breakdowns ---------------------------------------------------------------------------------


def test_restart_the_broken_kilns_part_must_be_fired_again_and_may_go_elsewhere() -> None:
    hand = Hand(small(), scenario=(Breakdown(machine="kiln-1", at_h=3, repair_h=2),))
    hand.ask("kiln-1", "preheat")
    hand.ask("kiln-2", "preheat")
    hand.work("press-1", "a", 0, 1)
    hand.wait(1)
    hand.work("kiln-1", "a", 1, 2)
    hand.wait(1.9)
    kinds = ["part_identified", "started", "breakdown", "interrupted"]
    assert hand.kinds("kiln-1") == kinds
    broke, cut = (next(e for e in hand.seen["kiln-1"] if e.kind == kind) for kind in kinds[2:])
    assert (broke.at, broke.repair_at) == (T0 + 3 * HOUR, T0 + 5 * HOUR)
    started = next(e for e in hand.seen["kiln-1"] if e.kind == "started")
    assert cut.energy_kwh == pytest.approx(200 * (cut.at - started.at) / HOUR, rel=0.1)
    hand.ask("kiln-1", "preheat")
    assert hand.seen["kiln-1"][-1].detail == "preheat: down: broken, wait for the repair"
    hand.work("kiln-2", "a", 1, 2)
    assert hand.kinds("kiln-1")[-1] == "part_removed"
    hand.wait(2)
    assert hand.factory.done[-1].machine == "kiln-2"
    assert hand.factory.done[-1].finished_at - hand.factory.done[-1].started_at == 2 * HOUR
    repaired = [e for e in hand.seen["kiln-1"] if e.kind == "repaired"]
    assert [e.at for e in repaired] == [T0 + 5 * HOUR] and hand.factory.machines["kiln-1"].state == "off"


def test_resume_only_the_rest_is_done_as_the_node_asks() -> None:
    hand = Hand(small(on_breakdown="resume"), scenario=(Breakdown(machine="kiln-1", at_s=3 * 3600, repair_h=1),))
    hand.ask("kiln-1", "preheat")
    hand.work("press-1", "a", 0, 1)
    hand.wait(1)
    hand.work("kiln-1", "a", 1, 2)
    started = next(e.at for e in hand.seen["kiln-1"] if e.kind == "started")
    hand.wait(3)
    hand.ask("kiln-1", "preheat")
    hand.wait(2)
    hand.ask("kiln-1", "start", "a", 1, 2 - (T0 + 3 * HOUR - started) / HOUR)
    hand.wait(2)
    done = hand.factory.done[-1]
    assert done.machine == "kiln-1"
    assert (done.finished_at - done.started_at) + (T0 + 3 * HOUR - started) == pytest.approx(2 * HOUR, abs=SECOND)
    first = next(e.energy_kwh or 0 for e in hand.seen["kiln-1"] if e.kind == "interrupted")
    assert first + done.energy_kwh == pytest.approx(400, rel=0.02), "together about the energy of one operation"


def test_scrap_the_part_is_gone_for_good() -> None:
    hand = Hand(small(on_breakdown="scrap"), scenario=(Breakdown(machine="kiln-1", at_h=3, repair_h=1),))
    hand.ask("kiln-1", "preheat")
    hand.ask("kiln-2", "preheat")
    hand.work("press-1", "a", 0, 1)
    hand.wait(1)
    hand.work("kiln-1", "a", 1, 2)
    hand.wait(2)
    assert "the part is lost" in (next(e.detail for e in hand.seen["kiln-1"] if e.kind == "interrupted") or "")
    hand.ask("kiln-2", "call", "a", 1)
    assert hand.seen["kiln-2"][-1].detail == "call: the part was scrapped"


def test_a_workshops_breakdown_waits_for_work_and_takes_the_machine_with_most_of_it() -> None:
    hand = Hand(small(), scenario=(Breakdown(workshop="presses", at_h=2, repair_h=0.5),))
    hand.wait(3)
    assert all(not events for events in hand.seen.values()), "nothing works, nothing breaks"
    hand.ask("press-2", "call", "b", 0)
    hand.work("press-1", "a", 0, 1)
    assert hand.kinds("press-1")[-2:] == ["breakdown", "interrupted"]
    two = Hand(small(), scenario=(Breakdown(workshop="presses", at_h=2, repair_h=0.5),))
    two.wait(1.4)
    two.work("press-1", "a", 0, 1)
    two.work("press-2", "b", 0, 1)
    two.wait(1)
    assert "breakdown" not in two.kinds("press-1")
    assert [e.at for e in two.seen["press-2"] if e.kind == "breakdown"] == [T0 + 2 * HOUR]


def test_every_events_time_is_in_order_at_every_machine(ceramic: Plant) -> None:
    hand = Hand(ceramic, scenario=tuple(Breakdown(machine=m, at_h=2.5, repair_h=1) for m in ceramic.machines))
    for machine in ceramic.machines:
        hand.ask(machine, "preheat")
    for _ in range(50):
        hand.wait(0.1)
    assert all(a.at <= b.at for events in hand.seen.values() for a, b in pairwise(events))
    assert all(hand.factory.machines[m].state == "off" for m in ceramic.machines)
