"""A foreign publisher, a real broker, a real edge process: readings arrive in our units, once, whoever is killed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from conftest import eventually
from edge_rig import NODE, SITE, T0, EdgeProcess, Store

from edge.decoding import Decoder
from edge.disk import Disk
from edge.foreign import HURRY, Foreign
from edge.intake import Intake
from edge.mapping import Mapping
from edge.outbox import Outbox
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import WallClock
from messages.contracts import Gap, Health, Rejected, Series
from messages.routes import HEALTH
from messages.settings import load

MAPPING = """
every_s = 0.05

[[device]]
device = "plug"
[device.metrics]
power_kw = { unit = "kW", low = 0, high = 4 }

[[device]]
device = "hall"
[device.metrics]
temperature_degc = { unit = "degC", low = -20, high = 60 }

[[map]]
topic = "tele/{device}/SENSOR"
devices = { "Tasmota_1" = "plug" }
time = { path = "Time", format = "unix_s" }
value = [{ path = "ENERGY.Power", metric = "power_kw", unit = "W" }]

[[map]]
topic = "plant/hall/temp"
device = "hall"
payload = "text"
value = [{ metric = "temperature_degc", unit = "degC", decimal = "," }]
"""
TELE = "tele/Tasmota_1/SENSOR"


class Publisher:
    """Plain paho, MQTT 3.1.1, as plugs and gateways speak."""

    def __init__(self, port: int) -> None:
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def send(self, topic: str, payload: str | bytes, **more: Any) -> None:
        self.client.publish(topic, payload, qos=1, **more).wait_for_publish(10)

    def power(self, n: int) -> None:
        self.send(TELE, json.dumps({"Time": T0 / 1e6 + n, "ENERGY": {"Power": 1000 + n}}))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@asynccontextmanager
async def mapped(
    tmp_path: Path, broker: Broker, text: str = MAPPING
) -> AsyncIterator[tuple[EdgeProcess, Store, Publisher]]:
    (tmp_path / "mapping.toml").write_text(text)
    edge, store = EdgeProcess(tmp_path / "edge", broker.port), Store(broker.port)
    config = edge.folder / "node.toml"
    config.write_text(f'mapping = "{tmp_path / "mapping.toml"}"\n' + config.read_text())
    publisher = Publisher(broker.port)
    listening = asyncio.create_task(store.run())
    try:
        with edge:
            await connected(edge, 1)
            await store.bus.wait_connected(60)
            yield edge, store, publisher
            assert edge.process is not None and edge.process.poll() is None, edge.said()
    finally:
        publisher.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def connected(edge: EdgeProcess, starts: int) -> None:
    """It listens to either kind of message for the so-manieth time."""
    log = edge.folder / "log"

    def listens(kind: str) -> bool:
        lines = log.read_text(errors="replace").splitlines()
        return sum("bus.connected" in line and f"-{kind}" in line for line in lines) >= starts

    await eventually(lambda: listens("timed") and listens("untimed"))


def series(store: Store, device: str) -> list[Series]:
    return [one for batch in store.batches.values() for one in batch.series if one.device == device]


def values(store: Store, device: str) -> list[float]:
    return [value for one in series(store, device) for value in one.value]


async def test_foreign_messages_arrive_as_readings_in_our_units_and_what_cannot_be_read_is_a_record(
    tmp_path: Path, broker: Broker
) -> None:
    health: list[Health] = []

    async def on_health(received: Received) -> None:
        health.append(received.message)

    listener = Bus("127.0.0.1", broker.port, client_id="listener")
    listener.on(HEALTH, on_health, site=SITE, node=NODE)
    hearing = asyncio.create_task(listener.run())
    stored = Publisher(broker.port)
    await asyncio.to_thread(stored.send, "plant/hall/temp", "99", retain=True)
    stored.close()
    async with mapped(tmp_path, broker) as (_, store, publisher):
        for n in range(3):
            await asyncio.to_thread(publisher.power, n)
        for text in ("23,5 °C", "68 °F", "warm", "24.1"):
            await asyncio.to_thread(publisher.send, "plant/hall/temp", text)
        await asyncio.to_thread(publisher.send, TELE, b"{broken")
        await eventually(lambda: sum(store.rows().values()) == 5 and len(store.records(Rejected)) == 3)
        await eventually(lambda: health and health[-1].counters["mapped_messages"] == 9)
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    assert values(store, "plug") == [1.0, 1.001, 1.002] and {one.unit for one in series(store, "plug")} == {"kW"}
    assert sorted(store.rows())[-3:] == [("plug", "power_kw", T0 + n * 1_000_000) for n in range(3)]
    assert values(store, "hall") == pytest.approx([23.5, 20.0])
    said = {(one.device, one.reason, one.readings): one.sample for one in store.records(Rejected)}
    assert said.keys() == {("hall", "unreadable", 1), ("plug", "malformed", 0)}
    assert "{broken" in str(said["plug", "malformed", 0])
    counters = health[-1].counters
    assert (counters["mapped_readings"], counters["mapped_refused"], counters["mapped_skipped"]) == (5, 3, 1)


async def test_messages_that_say_their_time_come_in_once_though_the_node_is_killed_again_and_again(
    tmp_path: Path, broker: Broker
) -> None:
    async with mapped(tmp_path, broker) as (edge, store, publisher):
        sent = 0
        for starts, pause in enumerate((0.0, 0.06, 0.12), 1):
            await connected(edge, starts)
            for _ in range(20):
                await asyncio.to_thread(publisher.power, sent)
                sent += 1
            await asyncio.sleep(pause)
            edge.kill()
            for _ in range(5):  # nobody is there: the broker keeps them
                await asyncio.to_thread(publisher.power, sent)
                sent += 1
            edge.start()
        wanted = {("plug", "power_kw", T0 + n * 1_000_000) for n in range(sent)}
        await eventually(lambda: store.rows().keys() == wanted)
        assert max(store.rows().values()) == 1
        assert not store.records(Gap)
        assert sorted(values(store, "plug")) == pytest.approx([1 + n / 1000 for n in range(sent)])


async def test_messages_without_a_time_are_not_lost_when_the_node_is_killed_and_soon_back(
    tmp_path: Path, broker: Broker
) -> None:
    async with mapped(tmp_path, broker) as (edge, store, publisher):
        sent = []
        for starts in (1, 2, 3):
            await connected(edge, starts)
            for n in range(10):
                sent.append(starts + n / 100)
                await asyncio.to_thread(publisher.send, "plant/hall/temp", str(sent[-1]).replace(".", ","))
            edge.kill()
            edge.start()
        # One that was committed and not yet acknowledged comes again: it has no time by which it could be known.
        await eventually(lambda: set(values(store, "hall")) == set(sent))


async def test_what_waited_at_the_broker_is_taken_if_it_says_its_time_and_else_only_for_a_while(
    tmp_path: Path, broker: Broker
) -> None:
    text = MAPPING.replace("every_s = 0.05", "every_s = 0.05\nwait_s = 0")
    async with mapped(tmp_path, broker, text) as (edge, store, publisher):
        edge.kill()
        await asyncio.to_thread(publisher.send, "plant/hall/temp", "21")
        await asyncio.to_thread(publisher.power, 1)
        edge.start()
        await connected(edge, 2)
        await asyncio.to_thread(publisher.send, "plant/hall/temp", "22")
        await eventually(lambda: values(store, "plug") == [1.001] and 22 in values(store, "hall"))
        assert values(store, "hall") == [22], "the time at which 21 came at last would have been wrong"


async def test_gathering_ends_when_many_messages_wait_or_the_node_is_stopped(tmp_path: Path, broker: Broker) -> None:
    async with mapped(tmp_path, broker, MAPPING.replace("every_s = 0.05", "every_s = 60")) as (edge, store, publisher):
        await asyncio.to_thread(publisher.power, HURRY + 60)
        assert edge.stop() == 0, edge.said()
        edge.start()
        await connected(edge, 2)
        for n in range(HURRY + 50):
            publisher.client.publish(TELE, json.dumps({"Time": T0 / 1e6 + n, "ENERGY": {"Power": n}}), qos=1)
        await eventually(lambda: len(store.rows()) >= HURRY, 40, what="long before the minute is over")


class Taken:
    """What the node's intake did with the jobs it was given."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.commits = 0

    async def __call__(self, job: Callable[[int], None]) -> None:
        self.commits += 1
        await self.disk.write(lambda: job(T0))


async def test_messages_of_one_list_are_one_commit_and_keep_their_own_times_of_arrival(tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text(MAPPING)
    mapping = load(Mapping, tmp_path / "mapping.toml", {})
    with closing(Disk.open(tmp_path / "disk")) as disk:
        outbox = Outbox.open(disk, budget_bytes=10**8, batch_bytes=10**5)
        intake, take_in = Intake.open(disk, outbox, devices=["plug", "hall"]), Taken(disk)
        clock = WallClock()
        foreign = Foreign(Decoder(mapping, mapping.declared("n")), intake, take_in, clock, every_s=0.05)
        quiet = Bus("127.0.0.1", 1, client_id="quiet")
        before, ticks = clock.now(), time.monotonic()
        ages = [30.0, 29.0, 0.5]
        texts = [b"20", b"21", b"22"]
        received = [
            Received("plant/hall/temp", {}, None, text, arrived_s=ticks - age)
            for age, text in zip(ages, texts, strict=True)
        ]
        await foreign.on_messages(quiet, received)
        await foreign.on_messages(quiet, [Received("plant/hall/temp", {}, None, b"23", arrived_s=time.monotonic())])
        await foreign.on_messages(quiet, [Received("plant/hall/temp", {}, None, b"")])
        assert take_in.commits == 2, "one per list that has anything to keep"
        waiting = await disk.write(lambda: intake.unprocessed(bursts=10, readings=100))
    bursts = [one.burst for one in waiting]
    assert [(one.seq, one.first, one.columns) for one in bursts] == [
        (0, 0, {"temperature_degc": [20, 21, 22]}),
        (1, 3, {"temperature_degc": [23]}),
    ]
    for age, at in zip(ages, bursts[0].at, strict=True):
        assert (bursts[0].t0 + at - before) / 1e6 == pytest.approx(-age, abs=0.45)
    assert asdict(foreign.counts) == {"messages": 5, "readings": 4, "refused": 0, "skipped": 1}
