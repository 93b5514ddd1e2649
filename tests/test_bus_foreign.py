"""Topics that are nobody's route, on a real Mosquitto: bytes in lists, acknowledged after the handler."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import paho.mqtt.client as mqtt
import pytest
from conftest import eventually

from messages.broker import Broker
from messages.bus import Bus, Received
from messages.errors import UsageError
from messages.message import Message
from messages.route import Route


class Note(Message):
    n: int


EVENT = Route("event", "up/event/{device}", Note, qos=1)


async def forget(_: object) -> None:
    """A handler for tests that look elsewhere."""


def make(broker: Broker) -> Bus:
    return Bus(broker.host, broker.port, client_id="reader", backoff_s=(0.05, 0.2))


@contextlib.asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(bus.run())
    try:
        await bus.wait_connected(20)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def publish(broker: Broker, *messages: tuple[str, bytes], retain: bool = False) -> None:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)  # MQTT 3.1.1, as plugs and gateways speak
    client.connect(broker.host, broker.port)
    client.loop_start()
    for topic, payload in messages:
        client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


async def test_foreign_messages_come_as_bytes_with_topic_and_arrival_beside_the_routes(broker: Broker) -> None:
    seen: list[Received] = []
    notes: list[int] = []

    async def keep(received: list[Received]) -> None:
        seen.extend(received)

    async def note(received: Received) -> None:
        notes.append(received.message.n)

    bus = make(broker)
    bus.on(EVENT, note, site="s1", node="n1")
    bus.on_raw(["tele/+/SENSOR", "zigbee2mqtt/hall 2/press"], keep)
    before = time.monotonic()
    async with running(bus):
        topics = ["tele/plug 1/SENSOR", "zigbee2mqtt/hall 2/press", "tele/plug/STATE", "shoal/v1/s1/n1/up/event/ram"]
        payloads = [b"\xff not json", b"", b"nobody's", b'{"n": 7}']
        await asyncio.to_thread(publish, broker, *zip(topics, payloads, strict=True))
        await eventually(lambda: notes and len(seen) >= 2)
    assert [(one.topic, one.payload) for one in seen] == list(zip(topics, payloads, strict=True))[:2]
    assert all(one.message is None and one.ids == {} and not one.retained for one in seen)
    assert before <= seen[0].arrived_s <= seen[1].arrived_s <= time.monotonic()
    assert notes == [7] and bus.counts.bad == 0


async def test_a_stored_message_is_told_from_news(broker: Broker) -> None:
    seen: list[Received] = []

    async def keep(received: list[Received]) -> None:
        seen.extend(received)

    await asyncio.to_thread(publish, broker, ("plant/kiln1/temp", b"20"), retain=True)
    bus = make(broker)
    bus.on_raw(["plant/+/temp"], keep)
    async with running(bus):
        await eventually(lambda: seen)
        await asyncio.to_thread(publish, broker, ("plant/kiln1/temp", b"21"), retain=True)
        await eventually(lambda: len(seen) == 2)
    assert [(one.payload, one.retained) for one in seen] == [(b"20", True), (b"21", False)]


async def test_a_foreign_message_is_acknowledged_only_after_its_handler_returned(broker: Broker) -> None:
    seen: list[bytes] = []

    async def fail_once(received: list[Received]) -> None:
        seen.extend(one.payload for one in received)
        if len(seen) == 1:
            raise RuntimeError("the disk is gone")

    bus = make(broker)
    bus.on_raw(["plant/+/temp"], fail_once)
    async with running(bus) as task:
        await asyncio.to_thread(publish, broker, ("plant/kiln1/temp", b"20"))
        await asyncio.wait({task}, timeout=10)
        assert isinstance(task.exception(), RuntimeError)
    again = make(broker)
    again.on_raw(["plant/+/temp"], fail_once)
    async with running(again):
        await eventually(lambda: seen == [b"20", b"20"], what="the message comes again to the next process")


@pytest.mark.parametrize("wrong", ["", "tele/#", "$SYS/broker/load", "tele/dev+/SENSOR", "a\0b"])
def test_a_filter_that_cannot_be_is_refused_with_the_cure(wrong: str) -> None:
    with pytest.raises(UsageError, match="topic filter"):
        Bus("127.0.0.1", 1, client_id="c").on_raw([wrong], forget)


@pytest.mark.parametrize(
    "filters", [["a/+", "a/b"], ["a/b", "a/b"], ["shoal/v1/+/+/up/event/+"], ["+/+/+/+/+/+/+"], ["x/y"]]
)
def test_overlapping_filters_are_refused_because_every_message_has_one_handler(filters: list[str]) -> None:
    bus = Bus("127.0.0.1", 1, client_id="c")
    bus.on(EVENT, forget, site="s1")
    bus.on_raw(["x/+"], forget)
    with pytest.raises(UsageError, match="overlap"):
        bus.on_raw(filters, forget)
