"""A node is replaced or retired: its old disk is emptied beside the new node, and brokers keep nothing of it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from edge_rig import NODE, PLANT, SITE, EdgeProcess, Machine, Store
from structlog.testing import capture_logs

from cloud.ingest import Ingest
from cloud.ledger import Ledger, Stored
from cloud.retired import Retired
from cloud.stores import BatchKey, SqliteStore
from edge.disk import Disk
from edge.endings import drain, retire, unretire
from edge.intake import Incoming, Intake
from edge.outbox import Outbox
from edge.retire import mark_retired, refuse_retired, unmark
from edge.settings import EdgeSettings
from messages.broker import Broker
from messages.bus import Bus
from messages.contracts import Evicted, StoredThrough
from messages.errors import ConfigError, UsageError
from messages.negotiation import Agenda
from messages.routes import AGENDA, BURST, PEER_AGENDA, STORED

ROOT = Path(__file__).parent.parent


def shoal(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "shoal", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def ended(process: subprocess.Popen[str], timeout_s: float = 90.0) -> tuple[int, str]:
    said, _ = await asyncio.to_thread(process.communicate, timeout=timeout_s)
    return process.returncode, said


async def line_with(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    while word not in (line := await asyncio.to_thread(process.stdout.readline)):
        assert line, f"it ended without {word}"


@asynccontextmanager
async def running(*loops: Callable[[], Awaitable[None]]) -> Any:
    tasks = [asyncio.ensure_future(loop()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def retained(port: int) -> dict[str, bytes]:
    """What a new subscriber finds of the node."""
    import aiomqtt

    found: dict[str, bytes] = {}
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"shoal/v1/{SITE}/{NODE}/#", qos=1)
        try:
            async with asyncio.timeout(0.5):
                async for message in client.messages:
                    if message.retain:
                        found[str(message.topic)] = bytes(message.payload)
        except TimeoutError:
            return found
    return found


def cloud_config(folder: Path, port: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'sites = ["{SITE}"]', f'data = "{folder / "data"}"', "[broker]", f"port = {port}"]
    (folder / "cloud.toml").write_text("\n".join(lines) + "\n")
    return folder / "cloud.toml"


async def test_after_it_retired_a_new_subscriber_finds_nothing_of_the_node(tmp_path: Path, broker: Broker) -> None:
    machine = Machine(broker.port)
    cloud = shoal("cloud", "--config", cloud_config(tmp_path / "cloud", broker.port))
    try:
        with EdgeProcess(tmp_path / "edge", broker.port) as edge:
            async with running(machine.run):
                await machine.bus.wait_connected(60)
                for _ in range(5):
                    machine.send(machine.make())
                base = f"shoal/v1/{SITE}/{NODE}"
                items = ("up/presence", "up/capability", "up/latest/firing-1", "up/agenda", "peer/agenda")
                expected = {f"{base}/{item}" for item in items}
                agenda = Agenda(term=1, session="0000000a", revision=1, at=1)  # as it says when there is a judge
                for route in (AGENDA, PEER_AGENDA):
                    await machine.bus.publish(route, agenda, site=SITE, node=NODE)

                async def all_there() -> bool:
                    return expected | {f"{base}/down/stored"} <= set(await retained(broker.port))

                await eventually(all_there)
                assert edge.stop() == 0
            config = edge.folder / "node.toml"
            code, said = await ended(shoal("edge", "--config", config, "--retire"))
            assert code == 0, said
            assert "edge.retired" in said and "edge.not_forgotten" not in said
            assert await retained(broker.port) == {}
            await line_with(cloud, "ingest.node_retired")
            broker.kill()
            shutil.rmtree(broker.directory)  # else what it last wrote to disk may be from before the node retired
            broker.start()
            await line_with(cloud, "bus.connected")
            await asyncio.sleep(0.3)  # it says again what it knows, and knows nothing of this node any more
            assert await retained(broker.port) == {}
            cloud.send_signal(signal.SIGTERM)
            code, said = await ended(cloud)
            assert code == 0
            cloud = shoal("cloud", "--config", cloud_config(tmp_path / "cloud", broker.port))
            await line_with(cloud, "bus.connected")
            await asyncio.sleep(0.3)
            assert await retained(broker.port) == {}

            code, said = await ended(shoal("edge", "--config", config))
            assert code == 2 and "`shoal edge --unretire` with the same settings takes the mark away" in said
            code, said = await ended(shoal("edge", "--config", config, "--unretire"))
            assert code == 0 and "edge.unretired" in said
            (edge.folder / "log").write_text("")
            edge.start()
            await eventually(lambda: "bus.connected" in edge.said())
            assert edge.stop() == 0
    finally:
        cloud.kill()
        cloud.communicate()


async def test_a_store_that_is_locked_for_a_while_is_waited_for_and_nothing_is_said_that_was_not_done(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.ingest.RETRY_S", (0.01, 0.02))
    path, key = tmp_path / "s.db", BatchKey(SITE, NODE, "0123456789abcdef", "live", 0)
    bus = Bus("127.0.0.1", broker.port, client_id="cloud", backoff_s=(0.05, 0.2))
    with SqliteStore(path=path).open() as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        store.connection.execute("PRAGMA busy_timeout = 1")
        ledger = Ledger(store.connection, wall_us=1, path=path)
        ingest = Ingest(store, ledger, now=lambda: 1)
        retired = Retired(ledger, bus, ingest)

        def known() -> None:
            changes = ledger.changes([Stored(key, 0, b"x" * 16)])
            ledger.write(changes)
            ledger.apply(changes)

        known()
        other.execute("BEGIN IMMEDIATE")
        with capture_logs() as said:
            cleared = asyncio.create_task(retired.on_cleared({"site": SITE, "node": NODE}))
            await eventually(lambda: ingest.waits > 2 or cleared.done())
            assert not cleared.done() and ledger.nodes == {(SITE, NODE)}
            other.execute("ROLLBACK")
            await cleared
            assert ledger.nodes == set()
            assert "ingest.node_retired" not in [one["event"] for one in said], "the bus was not there to clear by"
            known()
            async with running(bus.run):
                await bus.wait_connected(60)
                await bus.publish(STORED, StoredThrough(revision=1, epochs={}), site=SITE, node=NODE)
                await retired.on_cleared({"site": SITE, "node": NODE})
                assert await retained(broker.port) == {}
            assert [one["event"] for one in said].count("ingest.node_retired") == 1
            assert ledger.nodes == set()


async def test_an_old_disk_found_again_is_emptied_beside_the_node_that_took_its_place(
    tmp_path: Path, broker: Broker
) -> None:
    machine, store = Machine(broker.port), Store(broker.port)
    store.deaf = True
    with EdgeProcess(tmp_path / "old", broker.port) as old, EdgeProcess(tmp_path / "new", broker.port) as new:
        new.stop()
        async with running(machine.run, store.run):
            await machine.bus.wait_connected(60)
            first = [machine.make() for _ in range(20)]
            for burst in first:
                machine.send(burst)
            await eventually(lambda: not machine.held)
            for _ in range(2):  # taken after all that was sent again before; then what was taken is acknowledged, too
                machine.send(machine.make())
                await eventually(lambda: not machine.held)
            old.freeze()
            for burst in first[-3:]:  # sent again before it was known that they are taken; now they wait at the broker
                await machine.bus.publish(BURST, burst, site=SITE, node=NODE, device=machine.device)
            old.kill()  # its computer died; a new one with an empty disk has its name, and takes what waits
            new.start()
            for _ in range(5):
                machine.send(machine.make())
            await eventually(lambda: not machine.held)
            await store.speak()
            await eventually(lambda: store.rows().keys() >= set(machine.produced[-50:]))
            assert not store.rows().keys() & set(machine.produced[:170]), "the old disk alone has them"
            drain = shoal("edge", "--config", old.folder / "node.toml", "--drain")
            machine.send(machine.make())
            code, said = await ended(drain)
            assert code == 0, said
            assert "edge.drained" in said
            await eventually(lambda: store.rows().keys() == set(machine.produced))
            from_new, *begun = store.by_epoch()  # both have what was sent again: one row of a store by series and time
            from_old = sum(begun, Counter())  # of its own process, and of the one that emptied it
            assert {*from_new.values(), *from_old.values()} == {1} and not store.forks
            assert from_old.keys() == set(machine.produced[:220])
            code, said = await ended(shoal("edge", "--config", old.folder / "node.toml", "--drain"))
            assert code == 0, "an empty disk is done at once"
            assert "bus.lost" not in new.said(), "it was left in peace"
        assert new.stop() == 0


async def test_bursts_that_were_taken_but_not_yet_cleaned_are_handed_over_too(tmp_path: Path, broker: Broker) -> None:
    store = Store(broker.port)
    edge = EdgeProcess(tmp_path / "edge", broker.port)
    machine = Machine(broker.port)
    with closing(Disk.open(edge.data)) as disk:
        outbox = Outbox.open(disk, budget_bytes=1 << 24)
        intake = Intake.open(disk, outbox, devices={machine.device})
        with disk.transaction():
            bursts = [machine.make(keep=False) for _ in range(6)]
            intake.take_now([Incoming(machine.device, one.encode(), one) for one in bursts if one.seq != 3], 0, 0.0)
            intake.samples = 0
            intake.refuse_now("stranger", "unknown_device", 7, b"?", 0, 1.0)
    async with running(store.run):
        await store.bus.wait_connected(60)
        code, said = await ended(shoal("edge", "--config", edge.folder / "node.toml", "--drain"))
        assert code == 0, said
        assert sum(store.rows().values()) == 5 * 10
        assert store.counted() == machine.readings + 7, "with the gap, and the refusal that was held back"


async def test_an_interrupted_drain_says_what_is_left_and_goes_on_later(tmp_path: Path, broker: Broker) -> None:
    edge = EdgeProcess(tmp_path / "edge", broker.port)
    machine = Machine(broker.port)
    with closing(Disk.open(edge.data)) as disk:
        outbox = Outbox.open(disk, budget_bytes=1 << 24)
        intake = Intake.open(disk, outbox, devices={machine.device})
        with disk.transaction():
            for _ in range(4):
                one = machine.make(keep=False)
                intake.take_now([Incoming(machine.device, one.encode(), one)], 0, 0.0)
    config = edge.folder / "node.toml"
    drain = shoal("edge", "--config", config, "--retire")
    await line_with(drain, "handing_over")
    drain.send_signal(signal.SIGINT)
    code, said = await ended(drain)
    assert code == 1, said
    assert "are left on this disk; the same command goes on from here" in said
    code, said = await ended(shoal("edge", "--config", config))
    assert code == 2, "it is on its way out already"
    store = Store(broker.port)
    async with running(store.run):
        code, said = await ended(shoal("edge", "--config", config, "--drain"))
        assert code == 0, said
        assert sum(store.rows().values()) == machine.readings
        assert not store.records(Evicted)


async def test_options_that_exclude_each_other_are_wrong_usage(tmp_path: Path, broker: Broker) -> None:
    edge = EdgeProcess(tmp_path / "edge", broker.port)
    code, said = await ended(shoal("edge", "--config", edge.folder / "node.toml", "--drain", "--retire"))
    assert (code, "each stand alone" in said) == (2, True)


def test_the_mark_is_on_the_disk_and_can_be_taken_away(tmp_path: Path) -> None:
    with closing(Disk.open(tmp_path)) as disk:
        refuse_retired(disk, tmp_path)
        mark_retired(disk, 1)
    with closing(Disk.open(tmp_path)) as disk:
        with pytest.raises(ConfigError, match="--unretire"):
            refuse_retired(disk, tmp_path)
        assert unmark(disk) and not unmark(disk)
        refuse_retired(disk, tmp_path)


@pytest.mark.parametrize("what", [drain, retire, unretire])
def test_a_folder_that_is_not_there_does_not_pass_for_an_empty_disk(
    tmp_path: Path, what: Callable[[EdgeSettings], Coroutine[Any, Any, None]]
) -> None:
    settings = EdgeSettings(site=SITE, node=NODE, plant=PLANT, data=tmp_path / "not" / "mounted")
    with pytest.raises(UsageError, match=r"holds no node\.db: mount the disk"):
        asyncio.run(what(settings))
    assert list(tmp_path.iterdir()) == []
