"""A cell as a device: told on a grid of steps, heard once per step, the same by its seed; and over a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware_sim.cell import Cell, CellSpec, cell_of
from firmware_sim.device import Cut
from firmware_sim.fleet import Fleet
from firmware_sim.robot import KEPT, Robot
from firmware_sim.service import Sim
from firmware_sim.settings import SimSettings
from firmware_sim.truth import read_truth
from messages import cells
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import SECOND, ClockService, LockStepClock, WallClock
from messages.contracts import Action, Burst, Taken
from messages.errors import BusLost, ConfigError
from messages.plant import load_plant
from messages.routes import ACTION, BURST, TAKEN
from tests.conftest import eventually

T0 = 1_800_000_000 * SECOND
STEP_S = 60
STEP = STEP_S * SECOND
PLANT = """
site = "robots"
tick_s = 20
products = []
[[workshops]]
name = "robots"
node = "robot-1"
  [[workshops.cells]]
  id = "cell-a"
  step_s = 60
  [[workshops.cells]]
  id = "cell-b"
  node = "robot-2"
  step_s = 60
"""


@pytest.fixture
def plant_file(tmp_path: Path) -> Path:
    path = tmp_path / "robots.toml"
    path.write_text(PLANT)
    return path


@pytest.fixture
def fast_plant_file(plant_file: Path) -> Path:
    plant_file.write_text(PLANT.replace("step_s = 60", "step_s = 1").replace("tick_s = 20", "tick_s = 1"))
    return plant_file


def fleet_of(plant_file: Path, start: int = T0, **more: Any) -> Fleet:
    settings = SimSettings.model_validate({"plant": plant_file, "seed": 5, **more})
    return Fleet(load_plant(plant_file), settings, boot="0011223344556677", start=start)


def order(kind: str, name: str, until: int) -> Action:
    return Action(id=name, kind=kind, valid_until=until)


def of(cuts: list[Cut], device: str = "cell-a") -> list[Burst]:
    return [Burst.decode(cut.held.payload) for cut in cuts if cut.held.device == device]


def taken(fleet: Fleet) -> None:
    for firmware in fleet.firmwares.values():
        firmware.held.clear()


def day(fleet: Fleet, choose: Any, steps: int = 96) -> list[Burst]:
    """`steps` points of the grid, each answered by `choose(k)`."""
    said: list[Burst] = []
    for k in range(steps):
        now = T0 + (k + 1) * STEP
        said += of(fleet.tick(now))
        taken(fleet)
        kind = choose(k)
        if kind:
            fleet.act("cell-a", order(kind, f"a{k}", now + STEP), at=now)
    return said


# --- the plant file ---------------------------------------------------------------------------------


def test_a_workshop_of_cells_has_devices_with_limits_and_nodes_and_no_machines(plant_file: Path) -> None:
    plant = load_plant(plant_file)
    assert plant.nodes == ("robot-1", "robot-2") and list(plant.cells) == ["cell-a", "cell-b"] and not plant.machines
    (device,) = plant.devices("robot-2")
    assert device.kind == "cell" and list(device.metrics) == [*cells.METRICS, "earned", "emitted_kg", "did"]
    assert device.metrics["emitted_kg"].counter and device.metrics["did"].code and device.metrics["earned"].low < 0
    assert not device.metrics["earned"].counter, "money may be lost"
    assert {one.device for one in plant.devices("robot-1")} == {"cell-a", "meter-robots"}


@pytest.mark.parametrize(
    ("old", "new", "cure"),
    [
        ("step_s = 60", "step_s = 50", "give 40, or a shorter tick_s"),
        ("step_s = 60", "step_s = 5", "give 20, or a shorter tick_s"),
        ("step_s = 60", "step_s = 0", "greater than 0"),
        ("step_s = 60", "steps_s = 60", "did you mean 'step_s'"),
        ('id = "cell-b"', 'id = "cell-a"', "twice"),
        ('id = "cell-b"', 'id = "meter-robots"', "twice"),
        ('node = "robot-2"', 'node = "all"', "reserved"),
    ],
)
def test_a_bad_cell_is_refused_with_the_cure(plant_file: Path, old: str, new: str, cure: str) -> None:
    assert old in PLANT
    plant_file.write_text(PLANT.replace(old, new, 1))
    with pytest.raises(ConfigError, match=cure):
        load_plant(plant_file)


def test_settings_that_liken_a_cell_the_plant_has_not_are_refused(plant_file: Path) -> None:
    settings = SimSettings.model_validate({"plant": plant_file, "cells": {"cell-c": {"number": 1}}})
    with pytest.raises(ConfigError, match="no 'cell-c'; did you mean"):
        settings.read_plant()


# --- the device -------------------------------------------------------------------------------------


def test_every_step_says_one_sample_and_does_what_it_was_told_in_between(plant_file: Path) -> None:
    fleet = fleet_of(plant_file)
    kinds = [cells.ACTIONS[k * 7 % 5] for k in range(95)]
    said = day(fleet, lambda k: kinds[k] if k < 95 else None)
    assert len(said) == 96 and all(len(burst.at) == 1 and len(burst.columns) == 15 for burst in said)
    assert [burst.t0 for burst in said] == [T0 + (k + 1) * STEP for k in range(96)]
    assert [cells.ACTIONS[round(burst.columns["did"][0] or 0)] for burst in said[1:]] == kinds
    twin = fleet_of(plant_file).robots["cell-a"].cell  # the same chance, told directly
    earned = emitted = 0.0
    for burst, kind in zip(said[1:], kinds, strict=True):
        money, kg = twin.step(cells.ACTIONS.index(kind))
        earned, emitted = earned + money, emitted + kg
        assert [burst.columns[metric][0] for metric in cells.METRICS] == pytest.approx(list(twin.values()), abs=1e-4)
        assert burst.columns["earned"][0] == pytest.approx(earned, abs=1e-4)
        assert burst.columns["emitted_kg"][0] == pytest.approx(emitted, abs=1e-4)
    summary = fleet.summary()["cells"]["cell-a"]
    assert summary["missed"] == 0 and summary["steps"] == 95 and sum(summary["done"].values()) == 95


def test_without_a_valid_answer_it_waits_and_counts_the_step_as_missed(plant_file: Path) -> None:
    fleet = fleet_of(plant_file)
    fleet.tick(T0 + STEP)
    fleet.act("cell-a", order("service", "late", T0 + STEP), at=T0 + STEP + 1)
    fleet.tick(T0 + 2 * STEP)
    fleet.act("cell-a", order("service", "over", T0 + 3 * STEP - 1), at=T0 + 2 * STEP)
    (burst,) = of(fleet.tick(T0 + 3 * STEP))
    assert burst.columns["did"] == [cells.ACTIONS.index("wait")]
    summary = fleet.summary()["cells"]["cell-a"]
    assert summary["missed"] == 2 and summary["late"] == 1 and summary["done"] == {"wait": 2}


def test_the_newest_action_counts_and_each_is_done_once(plant_file: Path) -> None:
    fleet = fleet_of(plant_file)
    fleet.tick(T0 + STEP)
    until = T0 + 9 * STEP
    for kind, name in (("service", "one"), ("reroute", "two"), ("service", "one")):  # the last is a repeat
        fleet.act("cell-a", order(kind, name, until), at=T0 + STEP)
    (first,) = of(fleet.tick(T0 + 2 * STEP))
    fleet.act("cell-a", order("reroute", "two", until), at=T0 + 2 * STEP)
    (second,) = of(fleet.tick(T0 + 3 * STEP))
    assert [cells.ACTIONS[round(one.columns["did"][0] or 0)] for one in (first, second)] == ["reroute", "wait"]


def test_an_unknown_action_is_refused_once_and_changes_nothing(plant_file: Path) -> None:
    fleet = fleet_of(plant_file)
    fleet.tick(T0 + STEP)
    for _ in range(2):
        fleet.act("cell-a", order("start", "what", T0 + 2 * STEP), at=T0 + STEP)
    (burst,) = of(fleet.tick(T0 + STEP + SECOND))
    assert [(event.kind, event.action) for event in burst.events] == [("refused", "what")] and not burst.at
    assert "disassemble_a" in (burst.events[0].detail or "")
    fleet.act("cell-a", order("service", "known", T0 + 2 * STEP), at=T0 + STEP + SECOND)
    (burst,) = of(fleet.tick(T0 + 2 * STEP))
    assert burst.columns["did"] == [cells.ACTIONS.index("service")] and not burst.events
    assert fleet.summary()["cells"]["cell-a"]["refused"] == fleet.summary()["actions_refused"] == 1


def test_a_tick_over_many_steps_says_each_in_a_burst_and_a_full_device_says_the_rest_in_one(plant_file: Path) -> None:
    fleet = fleet_of(plant_file, max_held=4)
    bursts = of(fleet.tick(T0 + 10 * STEP))
    assert [burst.t0 for burst in bursts] == [T0 + k * STEP for k in range(1, 5)]
    taken(fleet)
    (burst,) = of(fleet.tick(T0 + 11 * STEP))
    assert [burst.t0 + at for at in burst.at] == [T0 + k * STEP for k in range(5, 12)]
    assert fleet.summary()["cells"]["cell-a"]["missed"] == 10


def test_an_action_for_a_tick_that_never_came_is_done_in_its_step_and_every_step_is_said(plant_file: Path) -> None:
    """In real time an action may come after a step's point and before the device has looked."""
    fleet = fleet_of(plant_file)
    fleet.tick(T0 + STEP)
    fleet.act("cell-a", order("service", "in-time", T0 + 3 * STEP), at=T0 + 2 * STEP + SECOND)
    bursts = of(fleet.tick(T0 + 3 * STEP + SECOND))
    assert [burst.t0 for burst in bursts] == [T0 + 2 * STEP, T0 + 3 * STEP]
    assert [cells.ACTIONS[round(burst.columns["did"][0] or 0)] for burst in bursts] == ["wait", "service"]


@pytest.mark.parametrize("ahead_s", [-300.0, 300.0])
def test_a_device_whose_clock_is_off_judges_by_that_clock(plant_file: Path, ahead_s: float) -> None:
    fleet = fleet_of(plant_file, faults={"clock_skew_s": {"cell-a": ahead_s}})
    for k in range(1, 6):
        for burst in of(fleet.tick(T0 + k * STEP)):
            fleet.act("cell-a", order("service", f"{k}", burst.t0 + STEP), at=T0 + k * STEP + 1)
    summary = fleet.summary()["cells"]["cell-a"]
    assert summary["missed"] == summary["late"] == 0 and summary["done"] == {"service": 4}


def test_what_happens_depends_on_the_seed_alone_and_cells_are_what_the_settings_say(plant_file: Path) -> None:
    def choose(k: int) -> str:
        return cells.ACTIONS[k % 3]

    one, two = day(fleet_of(plant_file), choose), day(fleet_of(plant_file), choose)
    assert [burst.encode() for burst in one] == [burst.encode() for burst in two]
    assert [burst.columns for burst in day(fleet_of(plant_file, seed=6), choose)] != [burst.columns for burst in one]
    unlike = fleet_of(plant_file, cells={"cell-a": {"number": 7, "heterogeneity": 1.0}})
    assert unlike.robots["cell-a"].cell.spec == cell_of(7, 1.0) and unlike.robots["cell-b"].cell.spec == cell_of(1, 0)


def test_what_is_older_than_it_remembers_has_no_value() -> None:
    robot = Robot(Cell(CellSpec(), np.random.default_rng(1)), step_us=STEP, start=T0)
    robot.advance(T0 + (KEPT + 2) * STEP)
    wear = robot.sample(T0 + STEP * np.arange(1, KEPT + 3))["wear"]
    assert np.isnan(wear[:2]).all() and not np.isnan(wear[2:]).any()


# --- on the bus -------------------------------------------------------------------------------------


class Node:
    """Answers each burst of a cell with an action, then says that it has it."""

    def __init__(self, port: int, step_us: int) -> None:
        self.step_us = step_us
        self.seen: list[Burst] = []
        self.bus = Bus("127.0.0.1", port, client_id="node", backoff_s=(0.05, 0.2))
        self.bus.on(BURST, self._on_burst, site="robots")

    async def _on_burst(self, got: Received) -> None:
        burst, me = got.message, {"site": "robots", "node": got.ids["node"], "device": got.ids["device"]}
        with contextlib.suppress(BusLost):  # the device sends it again
            if burst.at and me["device"] == "cell-a" and burst.seq not in {one.seq for one in self.seen}:
                self.seen.append(burst)
                kind = cells.ACTIONS[burst.seq % 2]
                action = order(kind, f"{burst.boot}-{burst.seq}", burst.t0 + burst.at[-1] + self.step_us)
                await self.bus.publish(ACTION, action, **me)
            await self.bus.publish(TAKEN, Taken(boot=burst.boot, ranges=[(burst.seq, burst.seq)]), **me)


@asynccontextmanager
async def floor(
    broker: Broker, plant_file: Path, clock: ClockService | None, step_us: int = STEP, **more: Any
) -> AsyncIterator[Any]:
    settings = SimSettings.model_validate(
        {
            "plant": plant_file,
            "broker": {"port": broker.port},
            "truth": plant_file.parent / "truth.jsonl",
            "patience_s": 15.0,
            "resend_s": 0.2,
            **more,
        }
    )
    time = LockStepClock("127.0.0.1", clock.port, name="sim") if clock else WallClock()
    sim, node = Sim(settings, load_plant(plant_file), time, boot="0011223344556677"), Node(broker.port, step_us)
    tasks = [asyncio.create_task(node.bus.run()), asyncio.create_task(sim.run())]
    try:
        await eventually(lambda: sim.link.up and node.bus.connected.is_set())
        yield sim, node
    finally:
        for task in reversed(tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_over_a_broker_in_lock_step_every_step_is_answered_and_the_truth_says_what_was_sent(
    broker: Broker, plant_file: Path
) -> None:
    async with ClockService(start=T0, patience_s=60) as clock, floor(broker, plant_file, clock) as (sim, node):
        await clock.gather({"sim"}, timeout_s=60)
        for _ in range(60):
            await clock.step(to=clock.now + 20 * SECOND)
        summary = sim.fleet.summary()["cells"]
    assert summary["cell-a"]["missed"] == 0 and summary["cell-a"]["steps"] == 19
    assert set(summary["cell-a"]["done"]) == {"disassemble_a", "disassemble_b"}
    assert summary["cell-b"]["missed"] == 19, "nobody told the other"
    truth = [one for one in read_truth(plant_file.parent / "truth.jsonl") if one.device == "cell-a"]
    assert [one.burst.encode() for one in truth] == [one.encode() for one in node.seen]
    assert truth[3].node == "robot-1" and len(truth[3].true["earned"]) == 1
    on_disk = json.loads((plant_file.parent / "truth.summary.json").read_text())
    assert on_disk["cells"]["cell-a"] == summary["cell-a"]


async def test_over_a_broker_in_real_time_a_fast_cell_is_answered_in_time(
    broker: Broker, fast_plant_file: Path
) -> None:
    async with floor(broker, fast_plant_file, None, step_us=SECOND) as (sim, node):
        await eventually(lambda: len(node.seen) >= 4)
        summary = sim.fleet.summary()["cells"]["cell-a"]
    assert sum(summary["done"].get(kind, 0) for kind in ("disassemble_a", "disassemble_b")) >= 2
    assert all(burst.t0 % SECOND == 0 for burst in node.seen)


async def test_lost_and_disordered_bursts_cost_steps_and_no_money(broker: Broker, plant_file: Path) -> None:
    faults = {"duplicate_burst": 0.3, "out_of_order_burst": 0.3, "duplicate": 0.3}
    async with (
        ClockService(start=T0, patience_s=60) as clock,
        floor(broker, plant_file, clock, faults=faults) as (sim, node),
    ):
        await clock.gather({"sim"}, timeout_s=60)
        for _ in range(90):
            await clock.step(to=clock.now + 20 * SECOND)
        await eventually(lambda: len(node.seen) >= 29)
        robot = sim.fleet.robots["cell-a"]
    last = max(node.seen, key=lambda burst: burst.t0)
    assert 0 < robot.missed < 29
    assert last.columns["earned"][-1] == pytest.approx(robot.earned, abs=1e-3)
    totals = [burst.columns["emitted_kg"][0] or 0.0 for burst in sorted(node.seen, key=lambda burst: burst.t0)]
    assert totals == sorted(totals)
