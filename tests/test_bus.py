"""The durable bus on a real Mosquitto: what is acknowledged, what comes again, what is said and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import structlog
from conftest import eventually

from messages.broker import Broker
from messages.bus import Bus, Received
from messages.errors import BadMessage, BrokenInvariant, BusLost, UsageError
from messages.message import MAX_BYTES, Message
from messages.route import Route

REPO = Path(__file__).parents[1]


class Note(Message):
    n: int
    text: str = ""


EVENT = Route("event", "up/event/{device}", Note, qos=1)
OTHER = Route("other", "up/other/{device}", Note, qos=1)
GAUGE = Route("gauge", "up/gauge/{device}", Note, qos=0)
STATE = Route("state", "up/state", Note, qos=1, retained=True)
ME = {"site": "s1", "node": "press-4"}


def make(broker: Broker, client_id: str, **more: Any) -> Bus:
    more.setdefault("rng", random.Random(1))
    more.setdefault("backoff_s", (0.05, 0.5))
    return Bus(broker.host, broker.port, client_id=client_id, **more)


@contextlib.asynccontextmanager
async def running(*buses: Bus) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The buses run and are connected; on leaving they stop cleanly."""
    tasks = [asyncio.create_task(bus.run()) for bus in buses]
    try:
        for bus in buses:
            await bus.wait_connected(20)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def forget(_: Received) -> None:
    """A handler for tests that look elsewhere."""


def raw_publish(broker: Broker, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
    """A peer that is not ours and need not keep the contract."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect(broker.host, broker.port)
    client.loop_start()
    client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


async def test_what_is_published_arrives_with_its_ids_and_content_type(broker: Broker) -> None:
    seen: list[Received] = []

    async def keep(received: Received) -> None:
        seen.append(received)

    reader, writer = make(broker, "reader"), make(broker, "writer")
    reader.on(EVENT, keep, site="s1")
    async with running(reader, writer):
        await writer.publish(EVENT, Note(n=7), **ME, device="ram")
        await eventually(lambda: seen)
    assert seen[0].message == Note(n=7)
    assert seen[0].ids == {**ME, "device": "ram"}
    assert seen[0].content_type == "application/json"
    assert not seen[0].retained
    assert seen[0].payload == Note(n=7).encode()


async def test_five_thousand_events_arrive_in_order_and_none_is_missing(broker: Broker) -> None:
    seen: list[int] = []

    async def keep(batch: list[Received]) -> None:
        seen.extend(one.message.n for one in batch)
        await asyncio.sleep(0)

    reader, writer = make(broker, "reader", receive_maximum=100), make(broker, "writer", send_window=50)
    reader.on(EVENT, keep, batch=True, site="s1")
    async with running(reader, writer):
        async with asyncio.TaskGroup() as group:
            for n in range(5000):
                group.create_task(writer.publish(EVENT, Note(n=n), **ME, device="ram"))
        await eventually(lambda: len(seen) >= 5000, 60)
    assert seen == list(range(5000))
    assert reader.counts.handled == 5000


async def test_a_batch_is_acknowledged_only_after_its_handler_returned(broker: Broker) -> None:
    batches: list[list[int]] = []
    go_on = asyncio.Event()

    async def hold(batch: list[Received]) -> None:
        batches.append([one.message.n for one in batch])
        await go_on.wait()

    reader, writer = make(broker, "reader", receive_maximum=10), make(broker, "writer")
    reader.on(EVENT, hold, batch=True, site="s1")
    async with running(reader, writer):
        for n in range(40):
            await writer.publish(EVENT, Note(n=n), **ME, device="ram")
        await eventually(lambda: reader.counts.received == 10)
        await asyncio.sleep(0.2)  # time for an eleventh, which must not come: none is acknowledged
        assert reader.counts.received == 10
        assert len(batches) == 1
        go_on.set()
        await eventually(lambda: reader.counts.handled == 40)
    assert [n for batch in batches for n in batch] == list(range(40))


async def test_a_backlog_stays_at_the_broker_while_a_handler_is_slow(broker: Broker) -> None:
    """Mosquitto 2.0.11 frees a whole receive window per acknowledgement; memory here stays bounded all the same."""
    seen: list[int] = []
    waiting: list[int] = []

    async def slow(received: Received) -> None:
        waiting.append(reader.counts.received - reader.counts.handled)
        seen.append(received.message.n)
        if len(seen) == 990:  # far into the backlog: must not hang on unread bytes
            await reader.publish(OTHER, received.message, **ME, device="ram")
        await asyncio.sleep(0)

    reader, writer = make(broker, "reader", receive_maximum=10), make(broker, "writer")
    reader.on(EVENT, slow, site="s1")
    async with running(reader):
        pass
    async with running(writer):
        burst = [writer.publish_nowait(EVENT, Note(n=n), **ME, device="ram") for n in range(1000)]
        await asyncio.gather(*burst)
    async with running(reader):
        await eventually(lambda: len(seen) >= 1000, 60)
    assert seen == list(range(1000))
    assert max(waiting) <= 50, f"{max(waiting)} waited in memory"


async def test_a_crash_in_a_handler_ends_the_bus_and_the_message_comes_again(broker: Broker) -> None:
    async def crash(received: Received) -> None:
        if received.message.n == 2:
            raise BrokenInvariant("the disk is full of lies")
        seen.append(received.message.n)

    seen: list[int] = []
    first, writer = make(broker, "reader"), make(broker, "writer")
    first.on(EVENT, crash, site="s1")
    async with running(writer):
        run = asyncio.create_task(first.run())
        await first.wait_connected(20)
        for n in range(5):
            await writer.publish(EVENT, Note(n=n), **ME, device="ram")
        with pytest.raises(BrokenInvariant, match="full of lies"):
            await asyncio.wait_for(run, 20)
        assert seen == [0, 1]

        async def keep(received: Received) -> None:
            again.append(received.message.n)

        again: list[int] = []
        second = make(broker, "reader")
        second.on(EVENT, keep, site="s1")
        async with running(second):
            await eventually(lambda: 4 in again)
    assert set(again) >= {2, 3, 4}
    assert list(dict.fromkeys(again)) == sorted(set(again)), "redelivery keeps the order"


async def test_a_resumed_session_finds_its_handlers(broker: Broker) -> None:
    seen: list[int] = []

    async def keep(received: Received) -> None:
        seen.append(received.message.n)

    writer = make(broker, "writer")
    early = make(broker, "reader")
    early.on(EVENT, keep, site="s1")
    async with running(early):
        pass
    async with running(writer):
        for n in range(20):
            await writer.publish(EVENT, Note(n=n), **ME, device="ram")
        late = make(broker, "reader")
        late.on(EVENT, keep, site="s1")
        async with running(late):
            await eventually(lambda: len(seen) >= 20)
    assert seen == list(range(20))
    assert late.counts.unrouted == 0


@pytest.mark.parametrize("batch", [False, True])
async def test_poison_is_dead_lettered_with_its_reason_and_the_rest_goes_on(broker: Broker, batch: bool) -> None:
    seen: list[int] = []
    dead: list[tuple[str, bytes, str]] = []

    async def one(received: Received) -> None:
        if received.message.n == 3:
            raise BadMessage("n=3 is not for this plant")
        seen.append(received.message.n)

    async def many(received: list[Received]) -> None:
        for item in received:
            await one(item)

    async def bury(topic: str, payload: bytes, reason: str) -> None:
        dead.append((topic, payload, reason))

    reader = make(broker, "reader")
    if batch:
        reader.on(EVENT, many, batch=True, site="s1")
    else:
        reader.on(EVENT, one, site="s1")
    reader.on_bad(bury)
    poison = [b"", b"{", b'{"n": NaN}', b'{"n": "many"}', b"\xff\xfe", b"[" * 100_000, b'{"n": 3}']
    async with running(reader):
        for n, payload in enumerate(poison):
            raw_publish(broker, "shoal/v1/s1/press-4/up/event/ram", payload)
            raw_publish(broker, "shoal/v1/s1/press-4/up/event/ram", Note(n=100 + n).encode())
        raw_publish(broker, "shoal/v1/s1/PRESS 4/up/event/ram", Note(n=1).encode())
        raw_publish(broker, "shoal/v1/s1/press-4/up/event/ram", Note(n=200).encode())
        await eventually(lambda: 200 in seen)
    assert list(dict.fromkeys(seen)) == [*range(100, 107), 200]
    assert [payload for _, payload, _ in dead] == [*poison, Note(n=1).encode()]
    assert all(reason for _, _, reason in dead)
    assert "PRESS 4" in dead[-1][2]
    assert reader.counts.bad == len(poison) + 1

    # Nothing of it is waiting any more: a new process of this name gets none of it.
    async def nothing(received: Received) -> None:
        seen.append(-1)

    heir = make(broker, "reader")
    heir.on(EVENT, nothing, site="s1")
    async with running(heir):
        raw_publish(broker, "shoal/v1/s1/press-4/up/other/ram", b"{}")
        await asyncio.sleep(0.1)
    assert -1 not in seen


async def test_clearing_a_retained_topic_is_no_bad_message(broker: Broker) -> None:
    seen: list[int] = []
    cleared: list[dict[str, str]] = []

    async def keep(received: Received) -> None:
        seen.append(received.message.n)

    async def gone(ids: dict[str, str]) -> None:
        cleared.append(ids)

    reader, writer = make(broker, "reader"), make(broker, "writer")
    reader.on(STATE, keep, on_cleared=gone, site="s1")
    async with running(reader, writer):
        await writer.publish(STATE, Note(n=1), **ME)
        await writer.clear(STATE, **ME)
        await writer.publish(STATE, Note(n=2), **ME)
        await eventually(lambda: seen == [1, 2])
    assert cleared == [ME]
    assert (reader.counts.bad, reader.counts.cleared) == (0, 1)
    with pytest.raises(UsageError, match="not retained"):
        await writer.clear(EVENT, **ME, device="ram")


async def test_a_subscriber_learns_retained_state_and_knows_it_is_not_news(broker: Broker) -> None:
    seen: list[Received] = []

    async def keep(received: Received) -> None:
        seen.append(received)

    writer, reader = make(broker, "writer"), make(broker, "reader")
    reader.on(STATE, keep, site="s1")
    async with running(writer):
        await writer.publish(STATE, Note(n=1), **ME)
        async with running(reader):
            await eventually(lambda: len(seen) == 1)
            await writer.publish(STATE, Note(n=2), **ME)
            await eventually(lambda: len(seen) == 2)
    assert [(one.message.n, one.retained) for one in seen] == [(1, True), (2, False)]


async def test_owners_republish_after_the_broker_lost_everything(broker: Broker) -> None:
    seen: list[int] = []
    revision = 0

    async def keep(received: Received) -> None:
        seen.append(received.message.n)

    owner, reader = make(broker, "owner"), make(broker, "reader")

    async def republish() -> None:
        nonlocal revision
        revision += 1
        await owner.publish(STATE, Note(n=revision), **ME)

    owner.on_connect(republish)
    reader.on(STATE, keep, site="s1")
    async with running(owner, reader):
        await eventually(lambda: seen == [1])
        broker.kill()
        for left in broker.directory.glob("mosquitto.db*"):
            left.unlink()
        broker.start()
        await eventually(lambda: 2 in seen)
    assert owner.counts.reconnects >= 1


async def test_publishing_is_refused_while_disconnected_and_works_after_the_broker_is_back(broker: Broker) -> None:
    seen: list[int] = []

    async def keep(received: Received) -> None:
        seen.append(received.message.n)

    reader, writer = make(broker, "reader"), make(broker, "writer")
    reader.on(EVENT, keep, site="s1")
    with pytest.raises(BusLost):
        await writer.publish(EVENT, Note(n=0), **ME, device="ram")
    async with running(reader, writer):
        await writer.publish(EVENT, Note(n=1), **ME, device="ram")
        await eventually(lambda: seen == [1])
        broker.kill()
        await eventually(lambda: not writer.connected.is_set() and not reader.connected.is_set())
        with pytest.raises(BusLost):
            await writer.publish(EVENT, Note(n=2), **ME, device="ram")
        with pytest.raises(BusLost):
            writer.publish_nowait(EVENT, Note(n=2), **ME, device="ram")
        broker.start()
        await reader.wait_connected(20)
        await writer.wait_connected(20)
        await writer.publish(EVENT, Note(n=3), **ME, device="ram")
        await eventually(lambda: 3 in seen)
    assert 2 not in seen, "what was refused must not be sent late"


async def test_a_publish_without_an_answer_fails_when_the_connection_goes(broker: Broker) -> None:
    writer = make(broker, "writer")
    async with running(writer):
        assert broker.pid is not None
        stopped = broker.pid
        os.kill(stopped, signal.SIGSTOP)  # it accepts bytes and never answers
        pending = writer.publish_nowait(EVENT, Note(n=1), **ME, device="ram")
        done, _ = await asyncio.wait({pending}, timeout=0.2)
        assert not done
        broker.kill()
        with pytest.raises(BusLost, match="before an answer"):
            await asyncio.wait_for(pending, 20)


async def test_nothing_is_acknowledged_on_another_connection_than_it_came_by(broker: Broker) -> None:
    """The handler holds a message while the broker dies; its return must not acknowledge a stranger."""
    seen: list[int] = []
    release = asyncio.Event()

    async def slow(received: Received) -> None:
        seen.append(received.message.n)
        if len(seen) == 1:
            await release.wait()

    reader, writer = make(broker, "reader", receive_maximum=5), make(broker, "writer")
    reader.on(EVENT, slow, site="s1")
    async with running(reader, writer):
        for n in range(5):
            await writer.publish(EVENT, Note(n=n), **ME, device="ram")
        await eventually(lambda: reader.counts.received == 5)
        broker.shut_down()  # saves the session
        await eventually(lambda: not reader.connected.is_set())
        broker.start()
        await reader.wait_connected(20)
        await eventually(lambda: reader.counts.received >= 10, what="redelivered")
        release.set()
        await eventually(lambda: set(seen) == {0, 1, 2, 3, 4})
        await eventually(lambda: seen.count(0) == 2, what="the held one comes again")


async def test_a_handler_may_publish_and_is_not_slow(broker: Broker) -> None:
    answers: list[int] = []
    node, asker = make(broker, "node"), make(broker, "asker")

    async def answer(received: Received) -> None:
        await node.publish(OTHER, received.message, **ME, device="ram")

    async def keep(received: Received) -> None:
        answers.append(received.message.n)

    node.on(EVENT, answer, site="s1")
    asker.on(OTHER, keep, site="s1")
    async with running(node, asker):
        for bus in (node, asker):  # without it 22 messages a second, on any machine: each waits for the kernel's timer
            assert bus._link is not None and bus._link._client is not None
            sock = bus._link._client.socket()
            assert sock is not None and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for n in range(300):
            await asker.wait_connected()
            asker.publish_nowait(EVENT, Note(n=n), **ME, device="ram")
        await eventually(lambda: len(answers) >= 300, 60)
    assert answers == list(range(300))


async def test_what_the_broker_takes_only_smaller_is_refused_here_not_by_a_hang_up(broker: Broker) -> None:
    writer = make(broker, "writer")
    async with running(writer):
        with pytest.raises(BadMessage, match="smaller"):
            await writer.publish(EVENT, payload=b"x" * (MAX_BYTES + 1), **ME, device="ram")
        await writer.publish(EVENT, payload=b"x" * MAX_BYTES, **ME, device="ram")
        assert writer.counts.reconnects == 0


async def test_a_huge_message_of_a_stranger_neither_arrives_nor_blocks(broker: Broker) -> None:
    seen: list[int] = []

    async def keep(received: Received) -> None:
        seen.append(received.message.n)

    reader = make(broker, "reader")
    reader.on(EVENT, keep, site="s1")
    async with running(reader):
        raw_publish(broker, "shoal/v1/s1/press-4/up/event/ram", b"x" * (MAX_BYTES + 200_000))
        raw_publish(broker, "shoal/v1/s1/press-4/up/event/ram", Note(n=5).encode())
        await eventually(lambda: seen == [5])
        assert reader.counts.reconnects == 0


async def test_best_effort_messages_beyond_the_bound_are_dropped_and_counted(broker: Broker) -> None:
    release = asyncio.Event()

    async def hold(received: Received) -> None:
        await release.wait()

    reader, writer = make(broker, "reader", receive_maximum=10), make(broker, "writer")
    reader.on(GAUGE, hold, site="s1")
    async with running(reader, writer):
        for n in range(200):
            await writer.publish(GAUGE, Note(n=n), **ME, device="ram")
        await eventually(lambda: reader.counts.received == 200)
        assert reader.counts.dropped >= 200 - 2 * 10 - 1
        release.set()
        await eventually(lambda: reader.counts.handled == 200 - reader.counts.dropped)


async def test_a_full_send_window_is_said_and_waiting_for_room_works(broker: Broker) -> None:
    writer = make(broker, "writer", send_window=5)
    async with running(writer):
        burst = [writer.publish_nowait(EVENT, Note(n=n), **ME, device="ram") for n in range(5)]
        with pytest.raises(BusLost, match="unanswered"):
            writer.publish_nowait(EVENT, Note(n=6), **ME, device="ram")
        await writer.publish(EVENT, Note(n=7), **ME, device="ram")
        await asyncio.gather(*burst)


async def test_a_clean_stop_says_offline_itself_and_within_bounded_time(broker: Broker) -> None:
    seen: list[int] = []

    async def keep(received: Received) -> None:
        seen.append(received.message.n)

    watcher = make(broker, "watcher")
    watcher.on(STATE, keep, site="s1")
    node = make(broker, "node", will=(STATE.topic(**ME), Note(n=0).encode()))

    async def online() -> None:
        await node.publish(STATE, Note(n=1), **ME)

    node.on_connect(online)
    async with running(watcher):
        async with running(node):
            await eventually(lambda: seen == [1])
            began = time.monotonic()
        assert time.monotonic() - began < 20
        await eventually(lambda: seen == [1, 0])
        await asyncio.sleep(0.1)
        assert seen == [1, 0], "the will must not speak as well"


async def test_stopping_is_bounded_when_the_broker_hangs(broker: Broker) -> None:
    node = make(broker, "node", will=(STATE.topic(**ME), Note(n=0).encode()))
    run = asyncio.create_task(node.run())
    await node.wait_connected(20)
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    began = time.monotonic()
    run.cancel()
    await asyncio.wait({run}, timeout=60)
    assert run.cancelled()
    assert time.monotonic() - began < 30  # a few seconds; for ever, if it were not bounded


NODE = """
    import asyncio, sys
    from messages.bus import Bus
    from messages.errors import BrokenInvariant
    from messages.message import Message
    from messages.route import Route

    class Note(Message):
        n: int

    STATE = Route("state", "up/state", Note, qos=1, retained=True)
    EVENT = Route("event", "up/event/{device}", Note, qos=1)
    ME = dict(site="s1", node="press-4")
    bus = Bus("127.0.0.1", int(sys.argv[1]), client_id="node", will=(STATE.topic(**ME), Note(n=0).encode()))

    async def online():
        await bus.publish(STATE, Note(n=1), **ME)

    async def crash(received):
        raise BrokenInvariant("no")

    bus.on(EVENT, crash, site="s1")
    bus.on_connect(online)
    asyncio.run(bus.run())
"""


@pytest.mark.parametrize("end", ["sigkill", "crash"])
async def test_the_will_speaks_when_a_node_is_killed_or_crashes(broker: Broker, end: str) -> None:
    seen: list[int] = []

    async def keep(received: Received) -> None:
        seen.append(received.message.n)

    watcher = make(broker, "watcher")
    watcher.on(STATE, keep, site="s1")
    async with running(watcher):
        command = [sys.executable, "-c", textwrap.dedent(NODE), str(broker.port)]
        node = subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
        try:
            await eventually(lambda: seen == [1], 40)
            if end == "sigkill":
                node.kill()
            else:
                await watcher.publish(EVENT, Note(n=1), **ME, device="ram")
            await eventually(lambda: seen == [1, 0])
            code = await asyncio.to_thread(node.wait, 20)
            assert code != 0
        finally:
            node.kill()
            node.wait()


async def test_two_processes_of_one_name_are_noticed(broker: Broker) -> None:
    first, second = make(broker, "twin"), make(broker, "twin")
    with structlog.testing.capture_logs() as logs:
        runs = [asyncio.create_task(first.run()), asyncio.create_task(second.run())]

        def noticed() -> bool:
            return any(run.done() for run in runs) or any(one["event"] == "bus.flapping" for one in logs)

        try:
            await eventually(noticed)
        finally:
            for run in runs:
                run.cancel()
            ends = await asyncio.gather(*runs, return_exceptions=True)
    for end in ends:  # brokers that name a takeover end the older process; Mosquitto 2.0.11 does not name it
        assert isinstance(end, asyncio.CancelledError | BrokenInvariant)


async def test_a_missing_broker_is_said_once_with_its_cure_and_waited_for(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "b") as broker:
        broker.shut_down()
        with structlog.testing.capture_logs() as logs:
            bus = make(broker, "early", backoff_s=(0.01, 0.02))
            with pytest.raises(BusLost, match="not connected"):
                await bus.wait_connected(0.01)
            run = asyncio.create_task(bus.run())
            try:
                await eventually(lambda: any(one["event"] == "bus.unreachable" for one in logs))
                await asyncio.sleep(0.3)  # several more attempts
                warnings = [one for one in logs if one["event"] == "bus.unreachable"]
                assert len(warnings) == 1
                assert warnings[0]["port"] == broker.port
                assert "start a broker" in warnings[0]["cure"]
                broker.start()
                await bus.wait_connected(20)
            finally:
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)


async def test_a_port_that_answers_but_does_not_speak_mqtt_is_no_connection() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        bus = Bus("127.0.0.1", deaf.getsockname()[1], client_id="a", connect_timeout_s=0.3)
        run = asyncio.create_task(bus.run())
        await asyncio.sleep(0.5)
        assert not bus.connected.is_set()
        assert not run.done()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_handlers_are_registered_before_running_and_never_overlap(broker: Broker) -> None:
    bus = make(broker, "a")
    bus.on(EVENT, forget, site="s1")
    with pytest.raises(UsageError, match="overlap"):
        bus.on(EVENT, forget, node="press-4")
    bus.on(EVENT, forget, site="s2")
    async with running(bus):
        with pytest.raises(UsageError, match="before run"):
            bus.on(OTHER, forget)
        with pytest.raises(UsageError, match="runs already"):
            await bus.run()


@pytest.mark.parametrize(
    "wrong", [{"host": ""}, {"port": 0}, {"port": 70000}, {"client_id": ""}, {"receive_maximum": 0}]
)
def test_impossible_settings_are_refused_with_their_cure(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Bus(**{"host": "localhost", "port": 1883, "client_id": "a", **wrong})


async def test_a_message_of_another_contract_is_refused(broker: Broker) -> None:
    class Stranger(Message):
        n: int

    bus = make(broker, "a")
    async with running(bus):
        with pytest.raises(UsageError, match="carries Note"):
            await bus.publish(EVENT, Stranger(n=1), **ME, device="ram")
        with pytest.raises(UsageError, match="topic level"):
            await bus.publish(EVENT, Note(n=1), **ME, device="+")
