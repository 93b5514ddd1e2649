"""The firmware process on a real broker: bursts kept until taken, a dead broker, orders, lock step, bad input."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.publish import multiple
from structlog.testing import capture_logs

from firmware_sim.service import Sim, run
from firmware_sim.settings import SimSettings
from firmware_sim.truth import read_truth
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import SECOND, ClockService, LockStepClock
from messages.contracts import Action, Burst, Order, Taken
from messages.errors import BusLost, ConfigError
from messages.plant import load_plant
from messages.routes import ACTION, BURST, ORDER, TAKEN
from tests.conftest import eventually

T0 = 1_800_000_000 * SECOND
PLANT = """
site = "tiny"
products = ["a"]
transport_s = 60
[[workshops]]
name = "presses"
node = "press"
  [[workshops.machines]]
  id = "press-1"
  work_kw = 40
  idle_kw = 5
  preheat_kw = 0
  preheat_h = 0
  time_h = [1]
"""
DEVICES = ("press-1", "meter-presses")


class Node:
    """The other side: takes every burst in (unless told to be deaf) and says so."""

    def __init__(self, port: int) -> None:
        self.bursts: dict[str, dict[int, bytes]] = {device: {} for device in DEVICES}
        self.copies: list[tuple[str, int]] = []
        self.forked = 0
        self.orders: list[Order] = []
        self.deaf = False
        self.bus = Bus("127.0.0.1", port, client_id="node", backoff_s=(0.05, 0.2))
        self.bus.on(BURST, self._on_burst, site="tiny", node="press")
        self.bus.on(ORDER, self._on_order, site="tiny")

    def events(self, kind: str) -> list[Any]:
        found = [Burst.decode(one) for _, one in sorted(self.bursts["press-1"].items())]
        return [event for burst in found for event in burst.events if event.kind == kind]

    async def act(self, kind: str, name: str, **more: Any) -> None:
        action = Action.model_validate({"id": name, "kind": kind, "valid_until": T0 * 2, **more})
        await self.bus.publish(ACTION, action, site="tiny", node="press", device="press-1")

    async def _on_burst(self, got: Received) -> None:
        device, burst = got.ids["device"], got.message
        self.copies.append((device, burst.seq))
        if self.deaf:
            return
        self.forked += self.bursts[device].setdefault(burst.seq, got.payload) != got.payload
        taken = Taken(boot=burst.boot, ranges=[(burst.seq, burst.seq)])
        with contextlib.suppress(BusLost):  # the device sends it again
            await self.bus.publish(TAKEN, taken, site="tiny", node="press", device=device)

    async def _on_order(self, got: Received) -> None:
        self.orders.append(got.message)


@asynccontextmanager
async def floor(broker: Broker, tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Sim, Node, ClockService]]:
    """A clock, the devices and a node, connected; ends them all."""
    path = tmp_path / "tiny.toml"
    path.write_text(PLANT)
    async with ClockService(start=T0, patience_s=60) as clock:
        settings = SimSettings.model_validate(
            {
                "plant": path,
                "broker": {"port": broker.port},
                "clock": f"127.0.0.1:{clock.port}",
                "truth": tmp_path / "truth.jsonl",
                "variation": {"sigma": 0},
                "patience_s": 15.0,
                "resend_s": 0.2,
                **more,
            }
        )
        time = LockStepClock("127.0.0.1", clock.port, name="sim")
        sim = Sim(settings, load_plant(path), time, boot="0011223344556677")
        node = Node(broker.port)
        tasks = [asyncio.create_task(node.bus.run()), asyncio.create_task(sim.run())]
        try:
            await clock.gather({"sim"}, timeout_s=60)
            await eventually(lambda: sim.link.up and node.bus.connected.is_set())
            yield sim, node, clock
        finally:
            for task in reversed(tasks):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def steps(clock: ClockService, count: int, step_s: int = 60) -> None:
    for _ in range(count):
        await clock.step(to=clock.now + step_s * SECOND)


def produced(tmp_path: Path) -> dict[str, dict[int, bytes]]:
    found: dict[str, dict[int, bytes]] = {device: {} for device in DEVICES}
    for one in read_truth(tmp_path / "truth.jsonl"):
        found[one.device][one.burst.seq] = one.burst.encode()
    return found


async def test_a_part_is_made_from_call_to_finish_and_every_reading_arrives(broker: Broker, tmp_path: Path) -> None:
    async with floor(broker, tmp_path) as (sim, node, clock):
        await steps(clock, 1)
        await eventually(lambda: node.orders)
        assert [(one.order, [job.job for job in one.jobs]) for one in node.orders] == [("order-1", ["a"])]
        await node.act("call", "c1", job="a", op=0)
        await eventually(lambda: sim.fleet and sim.fleet.actions)
        await steps(clock, 3)
        await node.act("start", "s1", job="a", op=0, duration_s=3600)
        await eventually(lambda: sim.fleet and sim.fleet.actions)
        await steps(clock, 62)
        assert [event.action for event in node.events("part_identified")] == ["c1"]
        (finished,) = node.events("finished")
        (started,) = node.events("started")
        assert (started.action, finished.at - started.at) == ("s1", 3600 * SECOND)
        assert node.bursts == produced(tmp_path), "what was taken is what was produced, byte by byte"
        assert not any(one.held for one in (sim.fleet.firmwares.values() if sim.fleet else ()))
    summary = json.loads((tmp_path / "truth.summary.json").read_text())
    assert summary["parts_finished"] == 1 and summary["truth_complete"] is True
    readings = [one.burst.readings for one in read_truth(tmp_path / "truth.jsonl")]
    assert summary["readings_produced_total"] == sum(readings) > 500
    assert summary["energy_kwh"]["press-1"] == pytest.approx(40, abs=1)


async def test_bursts_are_kept_through_a_dead_broker_and_a_deaf_node(broker: Broker, tmp_path: Path) -> None:
    async with floor(broker, tmp_path, patience_s=0.05) as (sim, node, clock):
        await steps(clock, 10)
        await eventually(lambda: sim.fleet and not any(one.held for one in sim.fleet.firmwares.values()))
        assert all(len(one) == 2 for one in node.bursts.values())
        broker.kill()
        await eventually(lambda: not sim.link.up)
        await steps(clock, 15)
        assert sim.fleet and all(len(one.held) == 3 for one in sim.fleet.firmwares.values())
        broker.start()
        await eventually(lambda: node.bursts == produced(tmp_path), what="the held bursts arrive by themselves")
        node.deaf = True
        node.copies.clear()
        await steps(clock, 5)
        await eventually(lambda: node.copies.count(("press-1", 5)) >= 3, what="sent again without a reconnect")
        node.deaf = False
        await eventually(lambda: not any(one.held for one in sim.fleet.firmwares.values()) if sim.fleet else False)
        assert node.bursts == produced(tmp_path) and node.forked == 0
        assert sim.counts["bursts_resent"] >= 2


async def test_plant_time_stands_while_a_device_is_full_and_then_it_goes_on_without_a_loss(
    broker: Broker, tmp_path: Path
) -> None:
    async with floor(broker, tmp_path, patience_s=0.02, max_held=2, hold_s=1.0) as (sim, node, clock):
        node.deaf = True
        begun = asyncio.get_running_loop().time()
        await steps(clock, 40)
        assert 0.9 < asyncio.get_running_loop().time() - begun < 15, "held once, not at every tick"
        assert sim.fleet and all(len(one.held) == 2 for one in sim.fleet.firmwares.values())
        node.deaf = False
        await eventually(lambda: not any(one.held for one in sim.fleet.firmwares.values()) if sim.fleet else False)
        await steps(clock, 5)
        await eventually(lambda: node.bursts == produced(tmp_path))
        bursts = [Burst.decode(one) for _, one in sorted(node.bursts["press-1"].items())]
        at = [one.t0 + offset for one in bursts for offset in one.at]
        assert at == list(range(T0 + 90 * SECOND, clock.now + 1, 30 * SECOND)), "no sample is missing"


async def test_a_forgetful_device_loses_what_it_sent_to_nobody_and_the_gap_can_be_counted(
    broker: Broker, tmp_path: Path
) -> None:
    async with floor(broker, tmp_path, patience_s=0.05, forgetful=["meter-presses"]) as (sim, node, clock):
        await steps(clock, 10)
        await eventually(lambda: all(len(one) == 2 for one in node.bursts.values()))
        broker.kill()
        await eventually(lambda: not sim.link.up)
        await steps(clock, 10)
        broker.start()
        await eventually(lambda: sim.link.up and node.bus.connected.is_set())
        await steps(clock, 5)
        await eventually(lambda: 4 in node.bursts["meter-presses"] and len(node.bursts["press-1"]) == 5)
        meter = {seq: Burst.decode(one) for seq, one in node.bursts["meter-presses"].items()}
        assert sorted(meter) == [0, 1, 4] and all(one.floor is None for one in meter.values())
        lost = meter[4].first - meter[1].first - meter[1].readings
        truth = [one for one in read_truth(tmp_path / "truth.jsonl") if one.device == "meter-presses"]
        assert lost == sum(one.burst.readings for one in truth if one.burst.seq in (2, 3)) > 0
        assert sim.counts["bursts_lost"] == 2


async def test_bad_bytes_on_the_devices_topics_are_counted_and_nothing_dies(broker: Broker, tmp_path: Path) -> None:
    async with floor(broker, tmp_path) as (sim, node, clock):
        await steps(clock, 1)
        topic = ACTION.topic(site="tiny", node="press", device="press-1")
        bad = [b"", b"{", b'{"id": NaN}', b"[" * 100_000]
        messages: list[Any] = [(topic, payload, 1, False) for payload in bad]
        await asyncio.to_thread(multiple, messages, hostname="127.0.0.1", port=broker.port)
        await eventually(lambda: sim.counts["bad_messages"] == 4)
        await node.act("explode", "e1")  # a word of a newer node: no bad message, and nothing this machine can do
        await node.act("idle", "i1")
        await eventually(lambda: sim.fleet and len(sim.fleet.actions) >= 2)
        await steps(clock, 1)
        await eventually(lambda: [event.action for event in node.events("state")] == ["i1"])
        assert [event.action for event in node.events("refused")] == ["e1"]


async def test_two_simulations_of_one_site_are_told_apart_from_a_broken_broker(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(PLANT)
    settings = SimSettings.model_validate({"plant": path, "broker": {"port": broker.port}})
    with capture_logs() as said:
        tasks = [asyncio.create_task(run(settings)) for _ in range(2)]
        try:
            flapping = await eventually(lambda: [one for one in said if one["event"] == "broker.flapping"])
            assert "another simulation of this site runs: stop one" in flapping[0]["cure"]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_settings_that_name_what_the_plant_does_not_have_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(PLANT)
    for more, cure in (
        ({"forgetful": ["press-2"]}, "forgetful: plant 'tiny' has no 'press-2'; did you mean 'press-1'"),
        ({"scenario": [{"workshop": "press", "at_h": 1, "repair_h": 1}]}, "did you mean 'presses'"),
        ({"faults": {"clock_skew_s": {"metre": 3}}}, "faults.clock_skew_s"),
    ):
        with pytest.raises(ConfigError, match=cure):
            await run(SimSettings.model_validate({"plant": path, **more}))
