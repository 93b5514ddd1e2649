"""A foreign publisher, a real broker, a real edge process: readings arrive in our units, once, whoever is killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from conftest import eventually
from edge_rig import NODE, SITE, T0, EdgeProcess, Store

from messages.broker import Broker
from messages.bus import Bus, Received
from messages.contracts import Gap, Health, Rejected, Series
from messages.routes import HEALTH

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
async def mapped(tmp_path: Path, broker: Broker) -> AsyncIterator[tuple[EdgeProcess, Store, Publisher]]:
    (tmp_path / "mapping.toml").write_text(MAPPING)
    edge, store = EdgeProcess(tmp_path / "edge", broker.port), Store(broker.port)
    config = edge.folder / "node.toml"
    config.write_text(f'mapping = "{tmp_path / "mapping.toml"}"\n' + config.read_text())
    publisher = Publisher(broker.port)
    listening = asyncio.create_task(store.run())
    try:
        with edge:
            await connected(edge, 1)
            await store.bus.wait_connected(10)
            yield edge, store, publisher
            assert edge.process is not None and edge.process.poll() is None, edge.said()
    finally:
        publisher.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def connected(edge: EdgeProcess, starts: int) -> None:
    """It has its own connection, and one per kind of message, for the so-manieth time."""
    log = edge.folder / "log"
    await eventually(lambda: log.read_text(errors="replace").count("bus.connected") >= 3 * starts)


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
