"""A node's file of an older version becomes one of this version, wholly or not at all, and loses nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import eventually
from edge_rig import DEVICE, EdgeProcess, Machine, Store
from test_retire import running

from edge import migrate
from edge.disk import Disk
from edge.intake import Heard
from edge.migrate import SCHEMA, TABLES
from edge.outbox import Outbox
from messages.broker import Broker
from messages.contracts import Batch, Evicted, LaneStored, Series, StoredThrough
from messages.errors import StoreDown

NOW = 1_750_000_000_000_000
OLD = "0123456789abcdef"

TABLES_1 = """
CREATE TABLE inbox   (id INTEGER PRIMARY KEY, device TEXT NOT NULL, payload BLOB NOT NULL, readings INTEGER NOT NULL);
CREATE TABLE heard   (device TEXT NOT NULL, boot TEXT NOT NULL, nth INTEGER NOT NULL, state TEXT NOT NULL,
                      PRIMARY KEY (device, boot)) WITHOUT ROWID;
CREATE TABLE refused (device TEXT NOT NULL, reason TEXT NOT NULL, messages INTEGER NOT NULL, readings INTEGER NOT NULL,
                      at INTEGER NOT NULL, sample TEXT, PRIMARY KEY (device, reason)) WITHOUT ROWID;
CREATE TABLE epochs  (nth INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE);
CREATE TABLE lanes   (epoch TEXT NOT NULL, lane TEXT NOT NULL, next_seq INTEGER NOT NULL,
                      PRIMARY KEY (epoch, lane)) WITHOUT ROWID;
CREATE TABLE outbox  (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL,
                      readings INTEGER NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL,
                      UNIQUE (epoch, lane, seq));
CREATE INDEX outbox_lane ON outbox (lane, id, epoch, bytes);
CREATE TABLE evicted (epoch TEXT NOT NULL, lane TEXT NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
                      readings INTEGER NOT NULL, carrier_epoch TEXT, carrier_seq INTEGER);
CREATE TABLE state   (key TEXT PRIMARY KEY, blob BLOB NOT NULL) WITHOUT ROWID;
"""
"""As version 1 made them."""


class FileOfVersion1:
    """Batches held, others evicted and told, one burst not cleaned, and what was heard of its device."""

    def __init__(self, folder: Path, *, live: int = 6, evicted: tuple[int, ...] = (1, 2)) -> None:
        folder.mkdir(parents=True)
        self.machine = Machine(1)
        self.db = sqlite3.connect(folder / "node.db", isolation_level=None)
        self.db.executescript(f"PRAGMA journal_mode = WAL; BEGIN; {TABLES_1} PRAGMA user_version = 1; COMMIT")
        self.db.execute("INSERT INTO epochs (epoch) VALUES (?)", (OLD,))
        heard = Heard()
        for seq in range(live):
            burst = self.machine.make(keep=False)
            heard.take(burst)
            rows = [
                Series(device=DEVICE, metric=metric, unit=burst.units[metric], t0=burst.t0, at=burst.at, value=column,
                       quality=192)
                for metric, column in burst.columns.items()
            ]  # fmt: skip
            if seq not in evicted:
                self.keep(Batch(epoch=OLD, lane="live", seq=seq, floor=0, made_at=NOW, series=rows))
        self.evicted_readings = 10 * len(evicted)
        ranges = [(seq, seq) for seq in evicted]
        told = Evicted(at=NOW, epoch=OLD, lane="live", ranges=ranges, readings=self.evicted_readings)
        self.keep(Batch(epoch=OLD, lane="record", seq=0, floor=0, made_at=NOW + 7, records=[told] if evicted else []))
        self.db.executemany(
            "INSERT INTO evicted VALUES (?, 'live', ?, ?, 10, ?, 0)", [(OLD, seq, seq, OLD) for seq in evicted]
        )
        waits = self.machine.make(keep=False)
        heard.take(waits)
        self.db.execute(
            "INSERT INTO inbox (device, payload, readings) VALUES (?, ?, ?)", (DEVICE, waits.encode(), waits.readings)
        )
        self.db.execute("INSERT INTO heard VALUES (?, ?, 1, ?)", (DEVICE, waits.boot, heard.encode()))
        self.db.executemany("INSERT INTO lanes VALUES (?, ?, ?)", [(OLD, "live", live), (OLD, "record", 1)])
        self.db.execute("INSERT INTO refused VALUES ('stranger', 'unknown_device', 2, 9, ?, '?')", (NOW,))
        self.db.execute("INSERT INTO state VALUES ('out', ?)", (json.dumps([[OLD, "live", 0]]).encode(),))

    def keep(self, batch: Batch) -> None:
        payload = batch.encode()
        self.db.execute(
            "INSERT INTO outbox (epoch, lane, seq, readings, bytes, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (batch.epoch, batch.lane, batch.seq, batch.readings, len(payload), payload),
        )

    def close(self) -> None:
        self.db.close()


def everything(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = {
        "outbox": "id, epoch, lane, seq, readings, bytes, payload",
        "evicted": "epoch, lane, low, high, readings, carrier_epoch, carrier_seq",
        **dict.fromkeys(("inbox", "heard", "refused", "epochs", "lanes", "state"), "*"),
    }
    return {name: sorted(db.execute(f"SELECT {columns} FROM {name}")) for name, columns in tables.items()}


def shape(db: sqlite3.Connection) -> set[tuple[str, str, tuple[object, ...]]]:
    """Tables and indexes with their columns, whatever the text that made them."""
    names = db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    return {
        (
            kind,
            name,
            tuple(db.execute(f"SELECT * FROM pragma_{'table' if kind == 'table' else 'index'}_info('{name}')")),
        )
        for kind, name in names
    }


def test_a_migrated_file_has_the_same_tables_as_a_new_one_and_holds_all_it_held(tmp_path: Path) -> None:
    old = FileOfVersion1(tmp_path / "old")
    before = everything(old.db)
    old.close()
    with closing(Disk.open(tmp_path / "old")) as disk, closing(sqlite3.connect(":memory:")) as new:
        new.executescript(TABLES)
        assert shape(disk.db) == shape(new)
        assert everything(disk.db) == before
        assert disk.db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert disk.db.execute("SELECT DISTINCT at FROM evicted").fetchall() == [(NOW + 7,)]
    with closing(Disk.open(tmp_path / "old")) as disk:
        assert everything(disk.db) == before, "once is enough"


def test_numbers_go_on_and_what_was_told_before_is_told_again_when_its_carrier_goes(tmp_path: Path) -> None:
    FileOfVersion1(tmp_path / "old").close()
    with closing(Disk.open(tmp_path / "old")) as disk:
        outbox = Outbox.open(disk, budget_bytes=1 << 20)
        assert outbox._next_seq(OLD, "live") == 6
        assert outbox.oldest_epoch("live") == OLD
        with disk.transaction():
            lanes = {"live": LaneStored(through=5), "record": LaneStored(through=-1)}
            outbox.free(StoredThrough.model_validate({"revision": 1, "epochs": {OLD: lanes}}))
            assert outbox.held["live"] == 0 and not outbox.empty
            outbox.budget_bytes = 1
            outbox.put("live", made_at=NOW + 9, series=[])
            outbox._evict(NOW + 9)
            outbox.budget_bytes = 1 << 20
            assert outbox.tell({}) == 2, "of the old epoch, and the record that told of it"
        told = [
            one
            for held in outbox.pending("record", outbox.epoch, limit=9)
            for one in Batch.decode(held.payload).records
            if isinstance(one, Evicted) and one.lane == "live"
        ]
        assert [(one.epoch, one.ranges, one.readings, one.at) for one in told] == [(OLD, [(1, 2)], 20, NOW + 7)]


async def test_everything_a_file_of_version_1_held_is_sent_once(tmp_path: Path, broker: Broker) -> None:
    edge = EdgeProcess(tmp_path / "edge", broker.port)
    old = FileOfVersion1(edge.data)
    old.close()
    store = Store(broker.port)
    async with running(store.run):
        await store.bus.wait_connected(60)
        with edge:
            made = old.machine.readings
            await eventually(lambda: sum(store.rows().values()) == made - old.evicted_readings)
            await eventually(lambda: sum(one.readings for one in store.records(Evicted)) == old.evicted_readings)
            assert set(store.rows().values()) == {1} and not store.forks
            assert edge.stop() == 0, edge.said()


@pytest.mark.parametrize("step", range(16))
def test_a_power_cut_while_it_migrates_leaves_the_old_file_or_the_new_one(tmp_path: Path, step: int) -> None:
    """The files as they are before the n-th statement are what the next start finds."""
    old = FileOfVersion1(tmp_path / "old", live=40, evicted=tuple(range(0, 40, 3)))
    before = everything(old.db)
    old.close()

    def files_now() -> None:
        (tmp_path / "cut").mkdir()
        for path in (tmp_path / "old").glob("node.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, tmp_path / "cut" / path.name)

    class Counting(sqlite3.Connection):
        left = -1

        def execute(self, *what: object) -> sqlite3.Cursor:
            if self.left == 0:
                files_now()
            self.left -= 1
            return super().execute(*what)  # type: ignore[arg-type]

    counting = sqlite3.connect(tmp_path / "old" / "node.db", isolation_level=None, factory=Counting)
    counting.execute("PRAGMA cache_size = 5")  # so that pages reach the files before the commit
    counting.left = step
    migrate.migrate(counting, 1)
    if counting.left >= 0:
        files_now()
    counting.close()
    with closing(sqlite3.connect(tmp_path / "cut" / "node.db")) as found:
        assert found.execute("PRAGMA user_version").fetchone()[0] == (1 if counting.left < 0 else SCHEMA)
        assert everything(found) == before
    with closing(Disk.open(tmp_path / "cut")) as disk:
        assert everything(disk.db) == before


def test_a_process_killed_while_it_migrates_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    old = FileOfVersion1(tmp_path / "old", live=2_000, evicted=tuple(range(0, 1_900, 2)))
    before = everything(old.db)
    old.close()
    script = """
import os, signal, sqlite3, sys
from pathlib import Path
from edge.disk import Disk

class Mortal(sqlite3.Connection):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.set_progress_handler(lambda: os.kill(os.getpid(), signal.SIGKILL), int(sys.argv[2]))

connect = sqlite3.connect
sqlite3.connect = lambda *args, **more: connect(*args, **more, factory=Mortal)
Disk.open(Path(sys.argv[1]))
"""
    versions = []
    for n in range(8):  # within a statement, at its so-manieth step: no machine is too fast or too slow for it
        folder = tmp_path / f"try-{n}"
        shutil.copytree(tmp_path / "old", folder)
        subprocess.run([sys.executable, "-c", script, str(folder), str(100 * 4**n)], check=False, timeout=60)
        with closing(sqlite3.connect(folder / "node.db")) as found:
            versions.append(found.execute("PRAGMA user_version").fetchone()[0])
            assert versions[-1] in (1, SCHEMA)
            assert everything(found) == before
        with closing(Disk.open(folder)) as disk:
            assert everything(disk.db) == before
    assert {*versions} == {1, SCHEMA}, "some were killed before it was done, and the last had no step so late"


def test_a_disk_too_full_to_migrate_says_so_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = FileOfVersion1(tmp_path / "old", live=200, evicted=())
    before = everything(old.db)
    pages = old.db.execute("PRAGMA page_count").fetchone()[0]
    old.close()

    def without_room(connection: sqlite3.Connection, version: int) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")
        migrate.migrate(connection, version)

    monkeypatch.setattr("edge.disk.migrate", without_room)
    with pytest.raises(StoreDown, match="Free some space"):
        Disk.open(tmp_path / "old")
    monkeypatch.undo()
    with closing(Disk.open(tmp_path / "old")) as disk:
        assert everything(disk.db) == before
