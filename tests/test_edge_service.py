"""A real edge process on a real broker: whatever is killed, nothing is lost and nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from conftest import eventually
from edge_rig import DEVICE, NODE, PLANT, SITE, T0, EdgeProcess, Machine, Store
from paho.mqtt import publish

from edge.disk import Disk
from edge.outbox import Outbox
from edge.service import run
from edge.settings import EdgeSettings
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import ClockService
from messages.contracts import (
    Capability,
    Envelope,
    Evicted,
    Gap,
    Health,
    Interrupted,
    Latest,
    MachineEvent,
    PartIdentified,
    PlanAck,
    PlanInForce,
    Presence,
    Rejected,
    StateChanged,
)
from messages.errors import ConfigError, UsageError
from messages.plan import Assignment, Plan
from messages.routes import BURST, CAPABILITY, HEALTH, LATEST, PLAN, PLAN_ACK, PRESENCE
from messages.settings import describe, load

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "edge.md"


@asynccontextmanager
async def running(*coroutines: Callable[[], object]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one()) for one in coroutines]  # type: ignore[arg-type]
    try:
        yield
    finally:
        failed = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in failed:
            task.result()


def exactly_once(store: Store, machine: Machine) -> bool:
    rows = store.rows()
    assert not store.forks
    assert not rows or max(rows.values()) == 1, "a reading is stored twice"
    return store.counted() == machine.readings and not machine.held


def count(edge: EdgeProcess, table: str) -> int:
    """Rows of a table; none before the node has made its file and its tables."""
    if not (edge.data / "node.db").exists():
        return 0
    db = sqlite3.connect(f"file:{edge.data / 'node.db'}?mode=ro", uri=True, timeout=5)
    try:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return 0
        return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
    finally:
        db.close()


async def test_a_broker_killed_with_batches_in_flight_loses_nothing_and_doubles_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.silent = True
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            for round_ in range(3):
                for _ in range(10):
                    machine.send(machine.make())
                    await asyncio.sleep(0.002)
                if round_ < 2:
                    broker.kill()
                    machine.send(machine.make())
                    broker.start()
                    await machine.bus.wait_connected(60)
            await eventually(lambda: len(store.batches) >= 1)
            assert count(edge, "outbox") > 0, "the store was silent, so nothing may be freed"
            await store.bus.wait_connected(60)
            await store.speak()
            await eventually(lambda: exactly_once(store, machine))
            await eventually(lambda: count(edge, "outbox") == 0 and count(edge, "inbox") == 0)
        assert edge.stop() == 0, edge.said()


async def test_an_edge_killed_again_and_again_continues_from_its_disk(tmp_path: Path, broker: Broker) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.silent = True
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            for pause in (0.0, 0.03, 0.1):
                for _ in range(15):
                    machine.send(machine.make())
                before = len(machine.held)
                await eventually(lambda before=before: len(machine.held) < before)
                await asyncio.sleep(pause)
                edge.kill()
                assert count(edge, "outbox") + count(edge, "inbox") > 0
                edge.start()
            await store.speak()
            await eventually(lambda: exactly_once(store, machine))
            await eventually(lambda: count(edge, "outbox") == 0)


async def test_a_store_that_lost_what_the_broker_acknowledged_gets_it_again_without_a_reconnect(
    tmp_path: Path, broker: Broker
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.deaf = True
    health: list[Health] = []

    async def on_health(received: Received) -> None:
        health.append(received.message)

    listener = Bus("127.0.0.1", broker.port, client_id="listener")
    listener.on(HEALTH, on_health, site=SITE)
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run, listener.run):
            await store.bus.wait_connected(60)
            await machine.bus.wait_connected(60)
            for _ in range(5):
                machine.send(machine.make())
            await eventually(lambda: len(store.arrived) >= 1 and not machine.held)
            store.deaf = False
            await eventually(lambda: exactly_once(store, machine))
            await eventually(lambda: count(edge, "outbox") == 0)
            await eventually(lambda: health and health[-1].counters["freed"] == health[-1].counters["batches"])
    last = health[-1].counters
    described = re.findall(r"`([a-z_]+)`", GUIDE.read_text())
    assert [name for name in last if name not in described] == [], "the guide names every counter"
    assert last["resent"] > 0 and last["reconnects"] == 0 and last["evicted"] == 0
    assert last["bursts"] == 5 and last["readings"] == machine.readings


async def test_a_hole_left_by_eviction_is_recorded_and_does_not_block_the_lane(tmp_path: Path, broker: Broker) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.deaf = True
    with EdgeProcess(tmp_path / "edge", broker.port, budget_mb=0.064, batch_kb=16.0, window=2) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            await store.bus.wait_connected(60)
            while count(edge, "evicted") == 0:
                machine.send(machine.make(60))
                await eventually(lambda: len(machine.held) < 5)
            store.deaf = False
            for _ in range(5):
                machine.send(machine.make(60))
            await eventually(lambda: exactly_once(store, machine))
            evicted = store.records(Evicted)
            assert evicted and {one.lane for one in evicted} == {"live"}
            await eventually(lambda: count(edge, "outbox") == 0 and count(edge, "evicted") == 0)


async def test_what_the_store_has_unsaid_is_not_evicted_and_so_not_counted_twice(
    tmp_path: Path, broker: Broker
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.silent = True  # it keeps what it hears
    with EdgeProcess(tmp_path / "edge", broker.port, budget_mb=0.064, batch_kb=16.0, window=2) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            await store.bus.wait_connected(60)
            while count(edge, "evicted") < 5:
                machine.send(machine.make(60))
                await eventually(lambda: len(machine.held) < 2)
            await store.speak()
            await eventually(lambda: exactly_once(store, machine))
            await eventually(lambda: count(edge, "outbox") == 0)
            assert store.records(Evicted)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The data folder of an edge in `tmp_path / "edge"`, on a disk of 2 MB."""
    folder = tmp_path / "edge" / "data"
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_ends_the_node_with_the_cure_and_it_continues_once_there_is_room(
    tmp_path: Path, broker: Broker, small_disk: Path
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.deaf = True
    cure = f"shoal: data={str(small_disk)!r} cannot be written: "

    def ended() -> bool:
        assert edge.process is not None
        return edge.process.poll() is not None

    ballast = small_disk / "somebody's film"
    ballast.write_bytes(bytes(1_200_000))
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            while not ended() and machine.seq < 1_000:
                if len(machine.held) < 10:
                    machine.send(machine.make(200))
                await asyncio.sleep(0.002)
            assert ended() and edge.process is not None
            assert edge.process.returncode == 1 and cure in edge.said()
            assert machine.held, "what did not fit was not said to be taken"
            with ballast.open("ab", buffering=0) as more, suppress(OSError):
                while True:
                    more.write(bytes(4096))
            edge.start()  # somebody restarts it, and there is still no room
            await eventually(ended)
            assert edge.process.returncode == 1 and edge.said().count(cure) >= 2
            assert "Traceback" not in (edge.folder / "log").read_text()
            ballast.unlink()
            edge.start()
            store.deaf = False
            await eventually(lambda: exactly_once(store, machine))
            await eventually(lambda: count(edge, "outbox") == 0)
            assert store.records(Gap) == [] and store.records(Evicted) == []


async def test_a_fresh_disk_hears_what_is_stored_of_the_old_one_and_frees_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            for _ in range(5):
                machine.send(machine.make())
            await eventually(lambda: exactly_once(store, machine))
            edge.kill()
            shutil.rmtree(edge.data)
            store.silent = True  # what it said last is retained at the broker
            machine.boot, machine.seq, machine.readings = "b002b002", 0, 0
            before = len(store.batches)
            edge.start()
            for _ in range(5):
                machine.send(machine.make())
            await eventually(lambda: not machine.held)
            await eventually(lambda: len(store.batches) > before)
            assert count(edge, "outbox") > 0
            await store.speak()
            await eventually(lambda: count(edge, "outbox") == 0)
            assert len(store.rows()) == 50


async def test_broken_bytes_strangers_and_gaps_are_recorded_and_nothing_dies(tmp_path: Path, broker: Broker) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    topic = {"site": SITE, "node": NODE}
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            await eventually(lambda: (edge.data / "node.db").exists())
            # The session is there once the edge takes a burst: what is published earlier is nobody's.
            machine.send(machine.make())
            await eventually(lambda: not machine.held)
            good = machine.make(keep=False)
            for payload in (
                b"",
                b"{",
                b'{"boot": NaN}',
                b"\xff\xfe",
                b"[" * 100_000,
                good.encode().replace(b'"seq":', b'"no":'),
            ):
                await machine.bus.publish(BURST, payload=payload, device=DEVICE, **topic)
            # Larger than the edge told the broker it takes: not even delivered.
            huge = {"payload": b"7" * 5_000_000, "qos": 1, "hostname": "127.0.0.1", "port": broker.port}
            await asyncio.to_thread(publish.single, BURST.topic(device=DEVICE, **topic), **huge)
            await machine.bus.publish(BURST, good, device="stranger", **topic)
            machine.held = {}
            machine.send(machine.make())  # its floor is its own seq: what lies between is lost
            await eventually(lambda: store.records(Gap))
            # The stranger's readings are counted as well, as rejected.
            await eventually(lambda: store.counted() == machine.readings + good.readings)
            rejected = store.records(Rejected)
            assert [one.reason for one in rejected].count("malformed") == 6
            stranger = next(one for one in rejected if one.device == "stranger")
            assert (stranger.reason, stranger.readings) == ("unknown_device", good.readings)
            [gap] = store.records(Gap)
            assert (gap.bursts, gap.readings) == ((1, 1), good.readings)
        assert edge.stop() == 0, edge.said()


async def test_a_broken_burst_and_a_stranger_are_taken_and_counted_once_so_that_their_devices_can_forget(
    tmp_path: Path, broker: Broker
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    stranger = Machine(broker.port, device="stranger", boot="b0b0b0b0")
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, stranger.run, store.run):
            await machine.bus.wait_connected(60)
            await stranger.bus.wait_connected(60)
            for n in range(8):
                burst = machine.make()
                if n in (1, 4):  # one value too few, and a column that is no list
                    fields = json.loads(burst.encode())
                    fields["columns"]["power_kw"] = fields["columns"]["power_kw"][:-1] if n == 1 else 7
                    machine.spoilt[n] = json.dumps(fields).encode()
                machine.send(burst)
            for _ in range(3):
                stranger.send(stranger.make())
            await eventually(lambda: not machine.held and not stranger.held)
            await eventually(lambda: store.counted() == machine.readings + stranger.readings)
            assert sum(store.rows().values()) == 6 * 10
            edge.kill()
            edge.start()
            stranger.held = {0: stranger.make(keep=False).model_copy(update={"seq": 0, "first": 0})}
            await eventually(lambda: not stranger.held, what="a repeat is taken too")
            machine.send(machine.make())
            await eventually(lambda: not machine.held)
            await eventually(lambda: sum(store.rows().values()) == 7 * 10)
            assert sum(one.readings for one in store.records(Rejected) if one.device == "stranger") == 30
        assert edge.stop() == 0, edge.said()


async def test_a_disk_lost_within_a_boot_makes_no_gap_of_what_the_store_holds(tmp_path: Path, broker: Broker) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            for _ in range(5):
                machine.send(machine.make())
            await eventually(lambda: not machine.held)
            # Sent only once, and taken: behind it no repeat is on its way, which the fresh disk would take as new.
            await machine.bus.publish(BURST, machine.make(keep=False), site=SITE, node=NODE, device=DEVICE)
            await eventually(lambda: exactly_once(store, machine))
            edge.kill()
            shutil.rmtree(edge.data)
            edge.start()
            for _ in range(5):
                machine.send(machine.make())
            await eventually(lambda: not machine.held)
            await eventually(lambda: exactly_once(store, machine))
            await asyncio.sleep(0.5)  # longer than the grace: what is not a gap by then never becomes one
            assert store.records(Gap) == []


async def test_presence_capability_and_latest_survive_a_broker_that_forgets(tmp_path: Path, broker: Broker) -> None:
    seen: list[tuple[str, object]] = []

    async def note(received: Received) -> None:
        seen.append((type(received.message).__name__, received.message))

    listener = Bus("127.0.0.1", broker.port, client_id="listener", session_expiry_s=0, backoff_s=(0.05, 0.2))
    for route in (PRESENCE, CAPABILITY, LATEST):
        listener.on(route, note, site=SITE)
    machine = Machine(broker.port)

    def last(kind: type) -> object | None:
        return next((message for _, message in reversed(seen) if isinstance(message, kind)), None)

    def is_online(value: bool) -> Callable[[], bool]:
        def check() -> bool:
            presence = last(Presence)
            return isinstance(presence, Presence) and presence.online is value

        return check

    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, listener.run):
            await machine.bus.wait_connected(60)
            for _ in range(5):
                machine.send(machine.make())
            await eventually(is_online(True))
            await eventually(lambda: last(Latest))
            capability = last(Capability)
            assert isinstance(capability, Capability)
            assert DEVICE in [device.device for device in capability.devices]
            broker.kill()
            shutil.rmtree(broker.directory)
            seen.clear()
            broker.start()
            await eventually(is_online(True))
            await eventually(lambda: last(Capability) == capability and last(Latest))
            latest = last(Latest)
            assert isinstance(latest, Latest) and latest.values["power_kw"].unit == "kW"
            edge.kill()
            await eventually(is_online(False), what="the will speaks")
            edge.start()
            await eventually(is_online(True))
            assert edge.stop() == 0
            await eventually(is_online(False), what="a clean stop says so")


async def test_two_brokers_keep_raw_data_at_the_site(tmp_path: Path, broker: Broker) -> None:
    with Broker(directory=tmp_path / "cloud-broker") as cloud_broker:
        machine, store = Machine(broker.port), Store(cloud_broker.port)
        raw: list[str] = []

        async def on_raw(received: Received) -> None:
            raw.append(received.topic)

        spy = Bus("127.0.0.1", cloud_broker.port, client_id="spy")
        spy.on(BURST, on_raw)
        with EdgeProcess(tmp_path / "edge", broker.port, uplink_port=cloud_broker.port) as edge:
            async with running(machine.run, store.run, spy.run):
                await machine.bus.wait_connected(60)
                machine.send(machine.make())
                await eventually(lambda: store.counted() > 0)
                cloud_broker.kill()  # the site goes on without the cloud
                for _ in range(5):
                    machine.send(machine.make())
                await eventually(lambda: not machine.held)
                cloud_broker.start()
                await eventually(lambda: exactly_once(store, machine))
            assert edge.stop() == 0
        assert raw == []


async def test_a_breakdown_goes_out_on_the_alarm_lane_once_though_the_edge_dies(tmp_path: Path, broker: Broker) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.silent = True
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            interrupted = MachineEvent(at=T0, kind="interrupted", job="b01", op=3)
            breakdown = MachineEvent(at=T0, kind="breakdown", repair_at=T0 + 10)
            machine.send(machine.make(events=[interrupted, breakdown]))
            await eventually(lambda: not machine.held)
            edge.kill()
            edge.start()
            await store.speak()
            await eventually(lambda: exactly_once(store, machine))
            await eventually(lambda: count(edge, "outbox") == 0)
    [alarms] = [batch.records for key, batch in store.batches.items() if key[1] == "alarm"]
    assert alarms == [
        Interrupted(at=T0, machine=DEVICE, job="b01", op=3, started_at=T0),
        StateChanged(at=T0, machine=DEVICE, state="down", repair_at=T0 + 10),
    ], "what was interrupted, and why, in one batch"


async def test_a_plan_is_obeyed_in_plant_time_and_a_killed_node_goes_on_where_it_was(
    tmp_path: Path, broker: Broker
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    acks: list[PlanAck] = []

    async def on_ack(received: Received) -> None:
        acks.append(received.message)

    minute = 60 * 1_000_000
    planner = Bus("127.0.0.1", broker.port, client_id="planner")
    planner.on(PLAN_ACK, on_ack, site=SITE)
    plan = Plan(t0=T0, revision=7, assignments=(Assignment(job="b01", op=3, machine=DEVICE, start=60, end=120),))
    body = PlanInForce(plan=plan, tick_s=60, frozen_until=T0)
    envelope = Envelope[PlanInForce](
        key="plan", target=f"{SITE}/all", counter=7, valid_until=T0 + 2_000 * minute, body=body
    )
    async with ClockService(start=T0) as clock:  # a node killed in its lock step knows no time until the next tick
        with EdgeProcess(tmp_path / "edge", broker.port, clock=f"127.0.0.1:{clock.port}") as edge:
            async with running(machine.run, store.run, planner.run):
                await machine.bus.wait_connected(60)
                await planner.wait_connected(60)
                await clock.gather({NODE}, timeout_s=60)
                await clock.step(to=T0 + minute)
                await planner.publish(PLAN, envelope, site=SITE)
                await eventually(lambda: acks)
                assert (acks[0].revision, acks[0].accepted) == (7, True)
                await clock.step(to=T0 + 30 * minute)
                assert not [one for one in machine.actions if one.kind == "call"]
                await clock.step(to=T0 + 58 * minute)
                await eventually(lambda: machine.actions)
                [call] = machine.actions
                assert (call.kind, call.job) == ("call", "b01")

                edge.kill()
                await clock.step(to=clock.now)  # it is missed
                assert NODE not in clock.members
                machine.actions.clear()
                acks.clear()
                edge.start()
                await eventually(lambda: machine.actions, what="what is unanswered is asked again, unchanged")
                assert machine.actions[0] == call
                await eventually(lambda: acks and acks[-1].revision == 7)
                identified = MachineEvent(at=clock.now, kind="part_identified", job="b01", action=call.id)
                machine.send(machine.make(events=[identified]))
                await clock.gather({NODE}, timeout_s=60)
                await clock.step(to=T0 + 59 * minute)  # only now it knows what time it is
                await eventually(lambda: not machine.held)
                await clock.step(to=T0 + 60 * minute)  # answered once all that had arrived is worked through
                assert count(edge, "inbox") == 0
                await eventually(lambda: machine.actions[-1].kind in ("preheat", "start"))
                await eventually(lambda: exactly_once(store, machine))
                assert all(batch.made_at >= T0 for batch in store.batches.values())
                assert store.records(PartIdentified) == [PartIdentified(at=T0 + 58 * minute, machine=DEVICE, job="b01")]


async def test_a_second_process_on_one_disk_ends_with_the_cure(tmp_path: Path, broker: Broker) -> None:
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        await eventually(lambda: (edge.data / "node.db").exists())
        second = EdgeProcess(tmp_path / "second", broker.port)
        (second.folder / "node.toml").write_text((edge.folder / "node.toml").read_text())
        second.start()
        assert second.process is not None
        assert await asyncio.to_thread(second.process.wait, 60) == 2
        assert "stop it, or give this node its own folder" in second.said()


async def test_wrong_settings_end_at_once_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"site='elsewhere', but .* describes 'ceramic'"):
        await run(EdgeSettings(site="elsewhere", node=NODE, plant=PLANT, data=tmp_path))
    with pytest.raises(UsageError, match="no node 'fireing'; did you mean 'firing'"):
        await run(EdgeSettings(site=SITE, node="fireing", plant=PLANT, data=tmp_path))


def test_the_guides_settings_file_is_read_and_what_check_prints_reads_back_the_same(tmp_path: Path) -> None:
    example, *_ = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.S)
    (tmp_path / "node.toml").write_text(example)
    settings = load(EdgeSettings, tmp_path / "node.toml", {"SHOAL_EDGE_UPLINK__PASSWORD": "secret"})
    assert settings.uplink is not None and settings.uplink.password is not None
    assert settings.cloud_broker.port == 8883
    printed = describe(settings)
    assert "secret" not in printed
    (tmp_path / "again.toml").write_text(printed)
    again = load(EdgeSettings, tmp_path / "again.toml", {"SHOAL_EDGE_UPLINK__PASSWORD": "secret"})
    assert again == settings


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("budget_mb = 0.1", "budget_mb holds fewer than four batches"),
        ('node = "all"', "reserved"),
        ("windw = 3", "did you mean window"),
        ("resend_most_s = 0.5", "resend_most_s is below resend_first_s"),
        ('local = {password = "x"}', "password without username: give both"),
        ('local = {cert = "c"}', "give cert and key, both or neither"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_cure(tmp_path: Path, line: str, cure: str) -> None:
    given = {"site": '"s1"', "node": '"n1"', "plant": '"p.toml"'}
    key, _, value = line.partition(" = ")
    given[key] = value
    (tmp_path / "node.toml").write_text("\n".join(f"{key} = {value}" for key, value in given.items()))
    with pytest.raises(ConfigError, match=re.escape(cure)):
        load(EdgeSettings, tmp_path / "node.toml", {})


def cpu_s(script: str) -> float:
    """The least that a process of its own needs for this, of three times."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        took.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
        assert done.returncode == 0, done.stderr
    return min(took)


def test_an_edge_node_starts_not_much_later_than_its_libraries_and_loads_only_what_a_small_computer_has() -> None:
    script = (
        "import sys, edge.service, edge.settings, messages.settings, messages.process;"
        "bad = [m for m in ('ortools', 'numba', 'plotly', 'aiomqtt', 'rich', 'typer', 'cloud', 'firmware_sim')"
        " if m in sys.modules]; sys.exit(', '.join(bad) or 0)"
    )
    assert cpu_s(script) < 5 * cpu_s(
        "import numpy, pydantic, structlog, paho.mqtt.client"
    )  # two and a half times, usually: half of it is what the contracts are made of


@pytest.mark.parametrize("first_page", [2, 6])
async def test_a_damaged_node_file_is_named_with_the_cure(tmp_path: Path, first_page: int) -> None:
    settings = EdgeSettings(site=SITE, node=NODE, plant=PLANT, data=tmp_path)
    with closing(Disk.open(tmp_path)) as disk:
        outbox = Outbox.open(disk, budget_bytes=1 << 20)
        with disk.transaction():
            for n in range(200):
                outbox.put(
                    "record", made_at=n, records=[Rejected(at=n, device="firing-1", reason="x" * 100, readings=1)]
                )
            disk.keep("cleaner", bytes(20_000))
    file = tmp_path / "node.db"
    whole = file.read_bytes()
    rng = random.Random(1)
    file.write_bytes(whole[: 4096 * (first_page - 1)] + rng.randbytes(len(whole) - 4096 * (first_page - 1)))
    with pytest.raises(ConfigError, match=r"node\.db: .*move it away to begin with an empty one"):
        await run(settings)
