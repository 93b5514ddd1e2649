"""One SQLite file is all a node remembers: WAL, synchronous=FULL, one process, one writer thread, group commit.

    disk = Disk.open(Path("data/press-4"))
    seqs = await disk.write(lambda: outbox.put(...))     # returns when it is on the disk
    disk.close()

Jobs that wait together commit together, in the order in which they were given. A transaction that fails
spoils the disk object: every later use raises, the process ends, and the next open continues from what was
committed: a stop, a crash and a power cut are alike. Two processes cannot open one node's disk. A full disk is
a StoreDown that names the folder and the cure, at every use and at every start until there is room.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from messages.errors import BrokenInvariant, ConfigError, StoreDown

T = TypeVar("T")

SCHEMA = 1
"""Version of the tables, in `user_version`."""

GROUP = 64
"""Jobs per commit, at most."""

_TABLES = """
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

_Job = tuple[Callable[[], object], asyncio.AbstractEventLoop, "asyncio.Future[object]"]


class Disk:
    """The node's file. `transaction` is for the thread that owns it; coroutines use `write`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: IO[str]) -> None:
        self.path = path
        self.db = connection
        self.commits = 0
        self._lock = lock
        self._spoilt: BaseException | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None

    @classmethod
    def open(cls, folder: Path) -> Disk:
        """Open or make `folder/node.db`; ConfigError when it is another process's, newer, or cannot be written,
        StoreDown when the disk is full."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "node.lock").open("a+")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room(folder, error) from error
            raise ConfigError(f"data={str(folder)!r} cannot be written ({error}); name a writable folder") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read(20).strip() or "another one"
            lock.close()
            raise ConfigError(
                f"data={str(folder)!r} is in use by process {holder}: stop it, or give this node its own folder"
            ) from None
        with suppress(OSError):  # it locks as well without our number in it, on a full disk
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        try:
            connection = _connect(folder / "node.db")
        except BaseException:
            lock.close()
            raise
        return cls(folder / "node.db", connection, lock)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All inside is committed, durably, or nothing is and this object is of no more use."""
        self._check()
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")
            self.commits += 1
        except BaseException as error:
            down = _no_room(self.path.parent, error) if isinstance(error, sqlite3.OperationalError) else None
            self._spoilt = down or error
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            if down is not None:
                raise down from error
            raise

    async def write(self, job: Callable[[], T]) -> T:
        """Run `job` in the writer thread and return its result once it is committed, with others in one commit."""
        self._check()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        if self._writer is None:
            self._writer = threading.Thread(target=self._work, name="disk", daemon=True)
            self._writer.start()
        self._jobs.put((job, loop, done))
        return await done  # type: ignore[return-value]

    def close(self) -> None:
        """Finish what is queued and let go of the file; doing so twice changes nothing."""
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join()
            self._writer = None
        if self._lock.closed:
            return
        self._spoilt = self._spoilt or BrokenInvariant("it is closed")
        self.db.close()
        self._lock.close()

    def state(self, key: str) -> bytes | None:
        """A blob that `keep` kept; from the owning thread or before the first `write`."""
        row = self.db.execute("SELECT blob FROM state WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep(self, key: str, blob: bytes) -> None:
        """Keep a blob; inside a transaction."""
        self.db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, blob))

    @property
    def bytes(self) -> int:
        """Size of the file and its write-ahead log."""
        total = 0
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _check(self) -> None:
        if isinstance(self._spoilt, StoreDown):  # whoever comes next says the same, not that we are broken
            raise StoreDown(str(self._spoilt)) from self._spoilt
        if self._spoilt is not None:
            raise BrokenInvariant(f"{self.path} is of no more use ({self._spoilt}); restart to continue") from (
                self._spoilt
            )

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            group = [job]
            stop = False
            while len(group) < GROUP and not stop:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                else:
                    group.append(following)
            self._commit(group)
            if stop:
                return

    def _commit(self, group: list[_Job]) -> None:
        results: list[object] = []
        failure: BaseException | None = None
        try:
            with self.transaction():
                for job, _, _ in group:
                    results.append(job())
        except BaseException as error:  # handed to every waiter: each of them ends
            failure = error
        for n, (_, loop, done) in enumerate(group):
            # The loop may be gone already when the process stops; what is committed stays committed.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, done, None if failure else results[n], failure)


def _settle(done: asyncio.Future[object], result: object, failure: BaseException | None) -> None:
    if done.done():
        return  # its waiter was cancelled
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(failure)


_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""What SQLite says when its files cannot grow or be made; the extended codes have these as their last byte."""


def _no_room(folder: Path, error: Exception) -> StoreDown:
    return StoreDown(
        f"data={str(folder)!r} cannot be written: {error}. What did not fit was not acknowledged. Free some space on "
        "that disk (budget_mb bounds only the outbox) or replace it, then restart: the node continues where it was"
    )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise ConfigError(
                f"{path} was written by a newer version (tables {version}, this one knows {SCHEMA}): "
                "install that version again, or let it empty its outbox first and then move the file away"
            )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=1000",
            "journal_size_limit=16777216",
            "cache_size=-4096",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if version == 0:
            # user_version is part of the transaction: tables are there whole, or not at all.
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
    except sqlite3.Error as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM:
            raise _no_room(path.parent, error) from error
        raise ConfigError(
            f"{path}: {error}; it is not a sound node file, or its disk fails: move it away to begin with an empty one"
        ) from None
    except ConfigError:
        connection.close()
        raise
    return connection
