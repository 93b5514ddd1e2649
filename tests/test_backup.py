"""A copy made while the cloud runs is whole, comes back as it was or not at all, and what an older copy means."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import eventually

from cloud.backup import MANIFEST, Manifest, back_up, opened, restore
from cloud.ingest import STATUS, Ingest
from cloud.ledger import LaneKey, Ledger, read_lanes
from cloud.planbook import PlanBook
from cloud.service import listen
from cloud.settings import CloudSettings
from cloud.stores import Query
from cloud.stores.sqlite import SqliteConnection
from cloud.swarmbook import SwarmBook
from cloud.unsaid import take_back
from edge.assembly import buses
from edge.disk import Disk
from edge.outbox import Held, Outbox
from edge.settings import EdgeSettings
from edge.uplink import Uplink
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.connect import BrokerSettings, bus_to
from messages.contracts import Batch, Series, StoredThrough
from messages.errors import BusLost, StoreError, UsageError
from messages.routes import BATCH, PRESENCE, STORED
from messages.settings import load

ROOT = Path(__file__).resolve().parents[1]
T0 = 1_700_000_000_000_000
SECOND = 1_000_000
NOW = datetime(2026, 5, 1, 6, tzinfo=UTC)
KEYS = ("broker.ca", "broker.cert", "broker.key")
EPOCH = "0123456789abcdef"


def reading(n: int, *, rows: int = 5) -> Series:
    return Series(
        device="kiln-1", metric="power_kw", unit="kW", t0=T0 + n * 100 * SECOND,
        at=[k * SECOND for k in range(rows)], value=[float(n)] * rows, quality=192,
    )  # fmt: skip


def batch(seq: int) -> Received:
    made = Batch(epoch=EPOCH, lane="live", seq=seq, floor=0, made_at=T0, series=[reading(seq)])
    return as_received(made.encode())


def as_received(payload: bytes) -> Received:
    message = Batch.decode(payload)
    ids = {"site": "ceramic", "node": "firing", "lane": message.lane}
    return Received(BATCH.topic(**ids), ids, message, payload)


@contextmanager
def cloud(settings: CloudSettings, wall_us: int = 1) -> Iterator[tuple[SqliteConnection, Ledger, Ingest]]:
    """What writes in a cloud process."""
    with settings.store_file.open() as store:
        assert isinstance(store, SqliteConnection)
        ledger = Ledger(store.connection, wall_us=wall_us, path=settings.store_file.path)
        yield store, ledger, Ingest(store, ledger, now=lambda: T0)


def lane_of(ledger: Ledger, epoch: str = EPOCH) -> tuple[int, tuple[tuple[int, int], ...]]:
    found = ledger.lane(LaneKey("ceramic", "firing", epoch, "live"))
    return found.through, found.ranges


def settings_in(folder: Path) -> CloudSettings:
    secrets = folder / "secrets"
    return CloudSettings(
        sites=("ceramic",),
        data=folder / "data",
        broker=BrokerSettings(ca=secrets / "ca.pem", cert=secrets / "cloud.pem", key=secrets / "cloud.key"),
    )


@pytest.fixture
def settings(tmp_path: Path) -> CloudSettings:
    """A cloud that has run: ten batches, a planner's book, keys."""
    made = settings_in(tmp_path / "plant")
    for path, mode in ((made.broker.ca, 0o644), (made.broker.cert, 0o640), (made.broker.key, 0o600)):
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name} of a plant")
        path.chmod(mode)
    with cloud(made) as (_, _, ingest):
        ingest.take([batch(n) for n in range(10)])
    with closing(PlanBook(made.data / "planner.db")), closing(SwarmBook(made.data / "judge.db")):
        pass
    return made


def count(settings: CloudSettings) -> int:
    with settings.store_file.open(read_only=True) as store:
        return store.count_rows()


@pytest.mark.parametrize("to", ["copy", "copy.tar"])
def test_a_copy_made_beside_the_running_cloud_comes_back_elsewhere(
    settings: CloudSettings, tmp_path: Path, to: str
) -> None:
    with cloud(settings) as (store, _, ingest):
        manifest = back_up(settings, tmp_path / to, config=None, now=NOW, shoal="1.2")
        ingest.take([batch(10)])  # the cloud goes on
        assert store.count_rows() == 55
    assert [one.role for one in manifest.files] == ["planner", "judge", "store", *KEYS]
    assert (tmp_path / to).stat().st_mode & 0o077 == 0
    other = settings_in(tmp_path / "new")
    with opened(tmp_path / to) as backup:
        written, skipped = restore(backup, other, force=False)
    assert (len(written), skipped) == (6, [])
    with cloud(other) as (store, ledger, ingest):
        assert store.count_rows() == store.distinct_rows() == 50
        assert lane_of(ledger) == (9, ())
        assert ingest.counts.readings == 50
        ingest.take([batch(n) for n in range(12)])
        assert (store.count_rows(), lane_of(ledger), ingest.counts.repeats) == (60, (11, ()), 10)
    for name in ("ca", "cert", "key"):
        old, new = getattr(settings.broker, name), getattr(other.broker, name)
        assert (new.read_bytes(), new.stat().st_mode) == (old.read_bytes(), old.stat().st_mode)
    assert (other.data / "planner.db").is_file()
    assert (other.data / "judge.db").is_file()
    assert not [path for path in (tmp_path / "new").rglob("*") if path.suffix in (".restoring", ".replaced")]


def test_every_copy_made_while_batches_pour_in_is_of_one_moment(settings: CloudSettings, tmp_path: Path) -> None:
    stop, seq = threading.Event(), [10]

    def pour(ingest: Ingest) -> None:
        while not stop.is_set():
            ingest.take([batch(seq[0]), batch(seq[0] + 1)])
            seq[0] += 2

    with cloud(settings) as (_, _, ingest):
        writer = threading.Thread(target=pour, args=(ingest,))
        writer.start()
        try:
            throughs = []
            for n in range(4):
                since = seq[0]
                while seq[0] == since and writer.is_alive():
                    time.sleep(0.001)
                back_up(settings, tmp_path / str(n), config=None, now=NOW, shoal="1.2")
                with closing(sqlite3.connect(tmp_path / str(n) / "store.db")) as copy:
                    (lane,) = read_lanes(copy).values()
                    keys = {found for (found,) in copy.execute("SELECT seq FROM batch")}
                    (rows,) = copy.execute("SELECT sum(rows) FROM chunk").fetchone()
                    (status,) = copy.execute("SELECT text FROM kept WHERE name = ?", (STATUS,)).fetchone()
                assert keys == set(range(lane.through + 1))
                assert rows == 5 * len(keys) == json.loads(status)["readings"]
                throughs.append(lane.through)
        finally:
            stop.set()
            writer.join()
    assert throughs == sorted(set(throughs))
    assert throughs[0] > 9


def test_what_is_there_is_not_replaced_unless_forced(settings: CloudSettings, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    with cloud(settings) as (_, _, ingest):
        ingest.take([batch(n) for n in range(10, 20)])
    with opened(tmp_path / "copy") as backup:
        with pytest.raises(UsageError, match=r"shoal.db would be replaced.*--force"):
            restore(backup, settings, force=False)
        assert count(settings) == 100
        restore(backup, settings, force=True)
    assert count(settings) == 50
    with pytest.raises(UsageError, match="exists: name a new"):
        back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")


def test_the_log_of_the_replaced_database_never_meets_the_restored_one(settings: CloudSettings, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    path = settings.store_file.path
    with cloud(settings) as (_, _, ingest):  # killed: its log stays
        ingest.take([batch(n) for n in range(10, 300)])
        wal = path.with_name(path.name + "-wal")
        shutil.copy(wal, tmp_path / "wal")
    shutil.copy(tmp_path / "wal", wal)
    with opened(tmp_path / "copy") as backup:
        restore(backup, settings, force=True)
    assert count(settings) == 50
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_while_a_cloud_writes_nothing_is_restored(settings: CloudSettings, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    refused = pytest.raises(UsageError, match="another process writes the store")
    with cloud(settings), opened(tmp_path / "copy") as backup, refused:
        restore(backup, settings, force=True)
    assert count(settings) == 50


@pytest.mark.parametrize("broken", ["store.db", "broker.key-cloud.key", "planner.db"])
def test_a_damaged_or_incomplete_copy_changes_nothing(settings: CloudSettings, tmp_path: Path, broken: str) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    data = bytearray((tmp_path / "copy" / broken).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "copy" / broken).write_bytes(data)
    before = {path: path.read_bytes() for path in (tmp_path / "plant").rglob("*") if path.is_file()}
    other = settings_in(tmp_path / "new")
    for target, force in ((settings, True), (other, False)):
        if broken.startswith("broker"):
            assert settings.broker.key is not None
            settings.broker.key.write_text("another key")
            before[settings.broker.key] = b"another key"
        with opened(tmp_path / "copy") as backup, pytest.raises(StoreError, match=r"sha256 differs\); nothing"):
            restore(backup, target, force=force)
    (tmp_path / "copy" / broken).unlink()
    with opened(tmp_path / "copy") as backup, pytest.raises(StoreError, match="nothing was changed"):
        restore(backup, settings, force=True)
    assert {path: path.read_bytes() for path in (tmp_path / "plant").rglob("*") if path.is_file()} == before
    assert [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()] == ["shoal.db.lock"]


def test_a_restore_that_fails_in_the_middle_puts_everything_back(settings: CloudSettings, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    with cloud(settings) as (_, _, ingest):
        ingest.take([batch(10)])
    assert settings.broker.key is not None
    settings.broker.key.write_text("renewed")
    in_the_way = settings.data / "shoal.db.replaced"
    (in_the_way / "full").mkdir(parents=True)  # the store, moved last, cannot be moved away
    with opened(tmp_path / "copy") as backup:
        with pytest.raises(StoreError, match="nothing was changed"):
            restore(backup, settings, force=True)
        assert (count(settings), settings.broker.key.read_text()) == (55, "renewed")
        assert (settings.data / "planner.db").is_file()
        shutil.rmtree(in_the_way)
        restore(backup, settings, force=True)
    assert (count(settings), settings.broker.key.read_text()) == (50, "cloud.key of a plant")


def test_a_restore_that_was_cut_off_must_be_finished_before_the_cloud_starts(
    settings: CloudSettings, tmp_path: Path
) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    (settings.data / "shoal.db").rename(settings.data / "shoal.db.replaced")  # as a power cut leaves it
    (settings.data / "shoal.db.restoring").write_bytes(b"half")
    with pytest.raises(UsageError, match=r"restore .* was cut off"):
        settings.store_file.open()
    with opened(tmp_path / "copy") as backup:
        restore(backup, settings, force=True)
    assert count(settings) == 50


def test_what_is_no_backup_is_said_to_be_none(settings: CloudSettings, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "text", tmp_path / "empty"):
        with pytest.raises(UsageError, match="is no backup"), opened(path):
            pass
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    manifest = tmp_path / "copy" / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"format": 1', '"format": 9').replace('"format":1', '"format":9'))
    with pytest.raises(UsageError, match="newer Shoal"), opened(tmp_path / "copy"):
        pass
    manifest.write_text(text.replace('"store.db"', '"../store.db"'))
    with pytest.raises(UsageError, match="is no backup"), opened(tmp_path / "copy"):
        pass
    assert len(Manifest.decode(text.encode()).files) == 6


def test_a_backup_that_was_cut_off_leaves_nothing_under_its_name(settings: CloudSettings, tmp_path: Path) -> None:
    (tmp_path / ".copy.partial").mkdir()
    (tmp_path / ".copy.partial" / "store.db").write_text("half")
    (settings.data / "planner.db").write_text("no database at all, but long enough to be looked at " * 100)
    with pytest.raises(StoreError, match=r"planner\.db"):
        back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    assert not (tmp_path / "copy").exists() and not (tmp_path / ".copy.partial").exists()


# --- what an older copy means -------------------------------------------------------------------------------


@contextmanager
def edge(folder: Path) -> Iterator[Outbox]:
    with closing(Disk.open(folder)) as disk:
        yield Outbox.open(disk, budget_bytes=1 << 24)


def seal(outbox: Outbox, *numbers: int) -> None:
    with outbox.disk.transaction():
        for n in numbers:
            outbox.put("live", series=[reading(n)], made_at=T0)


def held(outbox: Outbox) -> list[Held]:
    epochs = [epoch for (epoch,) in outbox.disk.db.execute("SELECT epoch FROM epochs")]
    return [one for epoch in epochs for one in outbox.pending("live", epoch, limit=1000)]


def hand_over(outbox: Outbox, ingest: Ingest, ledger: Ledger, *, seqs: Sequence[int] | None = None) -> int:
    """Everything held (or only `seqs`) to the store, and the store's word back; how many batches were freed."""
    sent = [one for one in held(outbox) if seqs is None or one.seq in seqs]
    ingest.take([as_received(one.payload) for one in sent])
    with outbox.disk.transaction():
        return sum(outbox.free(said) for said in ledger.documents("ceramic", "firing", {one.epoch for one in sent}))


def values(store: SqliteConnection) -> list[int]:
    """Which batches' readings are in the store, as `reading` numbered them."""
    answer = store.query(Query("power_kw"))
    assert store.count_rows() == store.distinct_rows()
    return sorted({int(value) for value in answer.values})


def test_an_older_store_receives_what_nodes_still_hold_and_claims_nothing_it_lacks(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "plant")
    with edge(tmp_path / "node") as outbox:
        with cloud(settings, wall_us=1000) as (_, ledger, ingest):
            seal(outbox, *range(5))
            assert hand_over(outbox, ingest, ledger) == 5
            back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
            seal(outbox, *range(5, 10))
            assert hand_over(outbox, ingest, ledger, seqs=[5, 6]) == 2  # stored after the copy, and freed
            before = revision(ledger)
        shutil.rmtree(settings.data)  # the disk dies
        with opened(tmp_path / "copy") as backup:
            restore(backup, settings, force=False)
        with cloud(settings, wall_us=1_000_000) as (store, ledger, ingest):
            assert lane_of(ledger, outbox.epoch) == (4, ())
            with outbox.disk.transaction():
                assert sum(outbox.free(said) for said in ledger.documents("ceramic", "firing")) == 0
            assert revision(ledger) > before  # so nodes listen
            assert [one.seq for one in held(outbox)] == [7, 8, 9]
            assert hand_over(outbox, ingest, ledger) == 3
            seal(outbox, 10)  # its floor says that 5 and 6 are not to be waited for
            assert hand_over(outbox, ingest, ledger) == 1
            assert held(outbox) == []
            assert lane_of(ledger, outbox.epoch) == (10, ())
            assert outbox.counts.foreign == 0
            assert values(store) == [0, 1, 2, 3, 4, 7, 8, 9, 10]  # 5 and 6 went with the disk
            assert ingest.counts.forks == 0


def revision(ledger: Ledger) -> int:
    said: StoredThrough = ledger.documents("ceramic", "firing")[-1]
    return said.revision


def test_an_older_copy_of_a_nodes_folder_frees_nothing_wrongly_and_stores_nothing_twice(tmp_path: Path) -> None:
    """It goes on under a new epoch; of the former one the store claims more than this disk ever made."""
    settings = settings_in(tmp_path / "plant")
    with cloud(settings) as (store, ledger, ingest):
        with edge(tmp_path / "node") as outbox:
            seal(outbox, *range(3))
            assert hand_over(outbox, ingest, ledger, seqs=[0]) == 1
        shutil.copytree(tmp_path / "node", tmp_path / "older")
        with edge(tmp_path / "node") as outbox:
            seal(outbox, *range(3, 8))
            assert hand_over(outbox, ingest, ledger) == 7
        shutil.rmtree(tmp_path / "node")
        with edge(tmp_path / "older") as outbox:
            assert [one.seq for one in held(outbox)] == [1, 2]
            seal(outbox, *range(20, 24))  # numbered anew, in an epoch nobody has seen
            assert {one.seq for one in held(outbox)} == {0, 1, 2, 3}
            hand_over(outbox, ingest, ledger)
            assert [one for one in held(outbox) if one.epoch == outbox.epoch] == []
            assert values(store) == [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22, 23]
            assert (ingest.counts.forks, ingest.counts.repeats) == (0, 2)


# --- what the cloud had said after the copy ---------------------------------------------------------------------


@asynccontextmanager
async def running(*loops: Coroutine[None, None, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def cloud_on_bus(settings: CloudSettings) -> AsyncIterator[tuple[SqliteConnection, Bus]]:
    with cloud(settings, wall_us=1_000_000) as (store, _, ingest):
        bus = bus_to(settings.broker, "shoal-ingest-0")
        listen(bus, ingest, settings)
        async with running(bus.run(), ingest.announce(bus)):
            await bus.wait_connected(60)
            yield store, bus


@asynccontextmanager
async def node_on_bus(outbox: Outbox, port: int) -> AsyncIterator[Uplink]:
    """With the session that the process has."""
    settings = EdgeSettings(site="ceramic", node="firing", plant=Path("none"), local=BrokerSettings(port=port))
    bus = buses(settings, (PRESENCE.topic(site="ceramic", node="firing"), b""))[1]
    uplink = Uplink(outbox.disk, outbox, bus, site="ceramic", node="firing", rng=random.Random(1))
    bus.on(STORED, uplink.on_stored, site="ceramic", node="firing")
    bus.on_connect(uplink.on_connect)
    async with running(bus.run(), uplink.run()):
        await bus.wait_connected(60)
        yield uplink


@asynccontextmanager
async def words_at(port: int) -> AsyncIterator[list[Received]]:
    """What the cloud says, retained or not."""
    heard: list[Received] = []

    async def hear(received: Received) -> None:
        heard.append(received)

    bus = Bus("127.0.0.1", port, client_id="looker", session_expiry_s=0)
    bus.on(STORED, hear, site="ceramic")
    async with running(bus.run()):
        await bus.wait_connected(60)
        yield heard


async def test_a_node_that_was_away_frees_nothing_by_a_word_from_before_the_restore(
    settings: CloudSettings, tmp_path: Path, broker: Broker
) -> None:
    settings = settings.model_copy(update={"broker": BrokerSettings(port=broker.port)})
    (tmp_path / "cloud.toml").write_text(
        f'sites = ["ceramic"]\ndata = "{settings.data}"\n[broker]\nport = {broker.port}\n'
    )
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    async with AsyncExitStack() as stack:
        outbox = stack.enter_context(edge(tmp_path / "node"))
        async with cloud_on_bus(settings):
            pass  # its session waits for batches
        seal(outbox, 20)
        async with node_on_bus(outbox, broker.port) as uplink:
            await eventually(
                lambda: uplink.counts.sent == 1 and sum(w.unacknowledged for w in uplink._streams.values()) == 0
            )
        async with words_at(broker.port) as heard, cloud_on_bus(settings) as (store, _):  # the node is away
            await eventually(lambda: any(outbox.epoch in one.message.epochs for one in heard))
            assert store.count_rows() == 55
        done = await asyncio.to_thread(
            shoal, "restore", "--from", "copy", "--config", "cloud.toml", "--force", folder=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 node(s) were told" in done.stdout
        assert count(settings) == 50
        async with node_on_bus(outbox, broker.port) as uplink:
            await eventually(lambda: uplink.counts.sent >= 1)
            assert len(held(outbox)) == 1
            async with cloud_on_bus(settings) as (store, _):
                await eventually(lambda: store.count_rows() == 55 and held(outbox) == [])
                assert 20 in values(store)


async def test_words_are_taken_back_of_this_clouds_nodes_alone_even_unreadable_ones(broker: Broker) -> None:
    here = BrokerSettings(port=broker.port)
    word = StoredThrough(revision=1, epochs={})
    bus = bus_to(here, "cloud", session_expiry_s=0)
    async with running(bus.run()):
        await bus.wait_connected(60)
        for site, node in (("ceramic", "firing"), ("ceramic", "glazing"), ("other", "firing")):
            await bus.publish(STORED, word, site=site, node=node)
        await bus.publish(STORED, payload=b"of another version", site="ceramic", node="pressing")
    assert await asyncio.to_thread(take_back, here, ["ceramic"], ["glazing"]) == 1
    assert await asyncio.to_thread(take_back, here, ["ceramic"]) == 2
    assert await asyncio.to_thread(take_back, here, ["ceramic"]) == 0
    assert await asyncio.to_thread(take_back, here, ["ceramic", "other"]) == 1


def test_without_its_broker_nothing_is_restored_unless_asked_for(
    settings: CloudSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    with cloud(settings) as (_, _, ingest):
        ingest.take([batch(10)])
    monkeypatch.setattr("cloud.unsaid.CONNECT_S", 0.3)
    nobody = settings.model_copy(update={"broker": BrokerSettings(port=1)})
    refused = pytest.raises(BusLost, match=r"start the broker .*--without-broker. Nothing was replaced")
    with opened(tmp_path / "copy") as backup, refused:
        restore(backup, nobody, force=True, before=lambda broker: _no_answer(take_back(broker, ["ceramic"])))
    assert count(settings) == 55
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".restoring", ".replaced")]
    (tmp_path / "cloud.toml").write_text(f'sites = ["ceramic"]\ndata = "{settings.data}"\n[broker]\nport = 1\n')
    words = ("restore", "--from", "copy", "--config", "cloud.toml", "--force", "--without-broker")
    done = shoal(*words, folder=tmp_path)
    assert done.returncode == 0 and "may free what this copy lacks" in done.stderr
    assert count(settings) == 50


def _no_answer(_words: int) -> None:
    """What was taken back is of no interest."""


def test_on_a_new_computer_the_broker_is_asked_with_the_certificates_of_the_backup(
    settings: CloudSettings, tmp_path: Path
) -> None:
    back_up(settings, tmp_path / "copy", config=None, now=NOW, shoal="1.2")
    seen: list[str] = []

    def before(broker: BrokerSettings) -> None:
        seen.extend(path.read_text() for path in (broker.ca, broker.cert, broker.key) if path is not None)

    with opened(tmp_path / "copy") as backup:
        restore(backup, settings_in(tmp_path / "new"), force=False, before=before)
    assert seen == [f"{name} of a plant" for name in ("ca.pem", "cloud.pem", "cloud.key")]


# --- the command --------------------------------------------------------------------------------------------


def shoal(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", *map(str, words)],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_commands_bring_a_whole_plant_back_settings_and_all(settings: CloudSettings, tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    text = 'sites = ["ceramic"]\ndata = "data"\n[broker]\nca = "secrets/ca.pem"\nusername = "u"\npassword = "hush"\n'
    (folder / "cloud.toml").write_text(text)
    done = shoal("backup", "--config", "cloud.toml", "--to", tmp_path / "b.tar", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hush" not in done.stdout
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert {one.name for one in tar} == {
            MANIFEST, "planner.db", "judge.db", "store.db", "broker.ca-ca.pem", "config-cloud.toml",
        }  # fmt: skip
    new = tmp_path / "new"
    new.mkdir()
    done = shoal("restore", "--from", tmp_path / "b.tar", "--config", "cloud.toml", "--without-broker", folder=new)
    assert (done.returncode, "warning" in done.stderr) == (0, True)
    assert (new / "cloud.toml").stat().st_mode & 0o777 == 0o600
    assert (new / "cloud.toml").read_text() == text
    assert count(load(CloudSettings, new / "cloud.toml").model_copy(update={"data": new / "data"})) == 50
    assert (new / "secrets" / "ca.pem").read_text() == "ca.pem of a plant"
    refused = shoal("restore", "--from", tmp_path / "b.tar", "--config", "cloud.toml", folder=new)
    assert refused.returncode == 2 and "--force" in refused.stderr and "Traceback" not in refused.stderr
    wrong = shoal("restore", "--from", "none.tar", "--config", "cloud.toml", folder=new)
    assert wrong.returncode == 2 and "no backup" in wrong.stderr and "Traceback" not in wrong.stderr
