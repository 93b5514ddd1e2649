"""The observer on a real Mosquitto: what it sees, what it survives, and how it says that nobody is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import eventually

from messages.broker import Broker
from messages.errors import BusLost, UsageError
from messages.message import Message
from messages.observe import Seen, Watcher, observe
from messages.route import Route


class Note(Message):
    n: int


EVENT = Route("event", "up/event/{device}", Note, qos=1)
STATE = Route("state", "up/state", Note, qos=1, retained=True)
ME = {"site": "s1", "node": "press-4"}


async def collect(stream: AsyncIterator[Seen], into: list[Seen]) -> None:
    async for seen in stream:
        into.append(seen)


def watch(watcher: Watcher, what: Route | str, into: list[Seen], **ids: str) -> asyncio.Task[None]:
    return asyncio.create_task(collect(watcher.messages(what, **ids), into))


async def ready(watcher: Watcher, seen: list[Seen]) -> None:
    """Published until the subscription is in place, which the broker does not tell twice."""

    async def there() -> bool:
        await watcher.publish(EVENT, Note(n=-1), **ME, device="probe")
        await asyncio.sleep(0.02)
        return bool(seen)

    await eventually(there)


async def test_a_route_gives_messages_and_a_filter_gives_bytes(broker: Broker) -> None:
    typed: list[Seen] = []
    plain: list[Seen] = []
    async with observe(broker.host, broker.port) as watcher:
        tasks = [watch(watcher, EVENT, typed, site="s1"), watch(watcher, "shoal/#", plain)]
        await ready(watcher, typed)
        await ready(watcher, plain)
        await watcher.publish(EVENT, Note(n=5), **ME, device="ram")
        await watcher.publish(EVENT, payload=b'{"n": "many"}', **ME, device="ram")
        await eventually(lambda: sum(one.ids.get("device") == "ram" for one in typed) == 2)
        await eventually(lambda: sum(one.topic.endswith("/ram") for one in plain) >= 2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    good, bad = [one for one in typed if one.ids["device"] == "ram"]
    assert (good.message, good.ids, good.bad) == (Note(n=5), {**ME, "device": "ram"}, None)
    assert bad.message is None
    assert bad.bad is not None and "Note.n" in bad.bad
    assert all(one.message is None and one.bad is None for one in plain)


async def test_retained_state_is_there_at_once_and_a_clear_is_not_broken(broker: Broker) -> None:
    seen: list[Seen] = []
    async with observe(broker.host, broker.port) as watcher:
        await watcher.publish(STATE, Note(n=1), **ME)
        task = watch(watcher, STATE, seen)
        await eventually(lambda: len(seen) == 1)
        await watcher.publish(STATE, payload=b"", **ME)
        await eventually(lambda: len(seen) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert seen[0].retained and seen[0].message == Note(n=1)
    assert (seen[1].payload, seen[1].message, seen[1].bad) == (b"", None, None)


async def test_it_goes_on_after_the_broker_came_back(broker: Broker) -> None:
    seen: list[Seen] = []
    async with observe(broker.host, broker.port, retry_s=0.05, timeout_s=1) as watcher:
        task = watch(watcher, EVENT, seen)
        await ready(watcher, seen)
        broker.kill()

        async def refused() -> bool:
            try:
                await watcher.publish(EVENT, Note(n=0), **ME, device="ram")
            except BusLost:
                return True
            return False

        await eventually(refused)
        broker.start()

        async def news() -> bool:
            with suppress(BusLost):  # it may not be there yet
                await watcher.publish(EVENT, Note(n=9), **ME, device="ram")
            await asyncio.sleep(0.02)
            return any(one.message == Note(n=9) for one in seen)

        await eventually(news)
        assert watcher.reconnects >= 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_missing_broker_is_said_with_its_cure(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "b", persistence=False) as broker:
        port = broker.port
    with pytest.raises(UsageError, match=rf"no MQTT broker at 127.0.0.1:{port}.*start one"):
        async with observe("127.0.0.1", port, timeout_s=2):
            raise AssertionError("nobody is there")


async def test_a_wrong_password_is_said_as_such(tmp_path: Path) -> None:
    with (
        Broker(directory=tmp_path / "b", passwords={"ann": "right"}, persistence=False) as broker,
        pytest.raises(UsageError, match=r"refused us.*password"),
    ):
        async with observe(broker.host, broker.port, username="ann", password="wrong"):
            raise AssertionError("should not be let in")


async def test_a_message_of_another_contract_is_refused(broker: Broker) -> None:
    class Stranger(Message):
        n: int

    async with observe(broker.host, broker.port) as watcher:
        with pytest.raises(UsageError, match="carries Note"):
            await watcher.publish(EVENT, Stranger(n=1), **ME, device="ram")


def block() -> None:
    time.sleep(0.02)


@pytest.mark.parametrize("what", ["watch", "publish"])
async def test_who_is_cancelled_in_the_moment_of_an_answer_ends_all_the_same(broker: Broker, what: str) -> None:
    """Blocked so long that both are there at once, at every step of a connection."""
    async with observe("127.0.0.1", broker.port, retry_s=0.1) as watcher:
        ended = list[str]()

        async def go() -> None:
            if what == "watch":
                await collect(watcher.messages("x/#"), [])
            else:
                await watcher.publish(EVENT, Note(n=1), **ME, device="d1")
            ended.append("as if nobody had cancelled it")

        for steps in range(30):
            task = asyncio.create_task(go())
            for _ in range(steps):
                await asyncio.sleep(0)
            block()
            before = task.done()
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=10)
            assert done, f"it goes on after {steps} steps"
            assert before or not ended, f"after {steps} steps it ended {ended}"
            ended.clear()
