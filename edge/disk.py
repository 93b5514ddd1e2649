"""One SQLite file is all a node remembers: WAL, synchronous=FULL, one process, one writer thread, group commit.

    disk = Disk.open(Path("data/press-4"), commit_s=0.05)
    seqs = await disk.write(lambda: outbox.put(...))     # returns when it is on the disk
    await disk.write_soon(job, size=len(payload))        # the same, but it may wait for company, up to commit_s
    found = await disk.read(lambda: outbox.pending(...))  # at once, and changes nothing
    disk.close()

Jobs that wait together commit together, in the order in which they were given. A job of `write_soon` waits until
`commit_s` after the commit before, unless one of `write` comes, or `ENOUGH` bytes wait, or somebody says `hurry`
(`patience.py`): so cards that wear are written less often, and a lone job does not wait. A transaction that fails
spoils the disk object: every later use raises, the process ends, and the next open continues from what was
committed: a stop, a crash and a power cut are alike. Two processes cannot open one node's disk. A full disk is
a StoreDown that names the folder and the cure, at every use and at every start until there is room.
The file of an older version is brought up to date at the open (`migrate.py`).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from edge.migrate import SCHEMA, TABLES, migrate
from edge.patience import ENOUGH
from messages.errors import BrokenInvariant, ConfigError, ShoalError, StoreDown

T = TypeVar("T")

GROUP = 64
"""Jobs per commit, at most."""


@dataclass(frozen=True, slots=True)
class _Job:
    """`size` is None for what must not wait; a job that only reads changes nothing and is done out of turn."""

    do: Callable[[], object]
    size: int | None
    reads: bool
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[object]


class Disk:
    """The node's file. `transaction` is for the thread that owns it; coroutines use `write`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: IO[str], commit_s: float = 0.0) -> None:
        self.path = path
        self.db = connection
        self.commit_s = commit_s
        self.commits = 0
        """Transactions that changed something."""
        self._committed_at = -1e9
        self._lock = lock
        self._spoilt: BaseException | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None

    @classmethod
    def open(cls, folder: Path, *, commit_s: float = 0.0) -> Disk:
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
        return cls(folder / "node.db", connection, lock, commit_s)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All inside is committed, durably, or nothing is and this object is of no more use."""
        self._check()
        try:
            before = self.db.total_changes
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")
            self.commits += self.db.total_changes > before
        except BaseException as error:
            ours = self._in_our_words(error)
            self._spoilt = ours or error
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            if ours is not None:
                raise ours from error
            raise

    async def write(self, job: Callable[[], T]) -> T:
        """Run `job` in the writer thread and return its result once it is committed, with others in one commit."""
        return await self._ask(job, None)

    async def write_soon(self, job: Callable[[], T], *, size: int) -> T:
        """The same for what may wait up to `commit_s` for company; `size`: the bytes it will write, roughly."""
        return await self._ask(job, size)

    async def read(self, job: Callable[[], T]) -> T:
        """Run `job`, which only reads, in the writer thread; what waits to be committed it does not see yet."""
        return await self._ask(job, None, reads=True)

    def hurry(self) -> None:
        """What waits for company waits no longer."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        done.add_done_callback(lambda one: one.cancelled() or one.exception())  # nobody waits: those who do are told
        self._jobs.put(_Job(_nothing, None, False, loop, done))

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
        with self.damage_named():
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

    @contextmanager
    def damage_named(self) -> Iterator[None]:
        """What reads outside of transactions: a file that turns out to be damaged is a ConfigError with the cure."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            ours = self._in_our_words(error)
            if ours is None:
                raise
            raise ours from error

    def _in_our_words(self, error: BaseException) -> ShoalError | None:
        if isinstance(error, sqlite3.OperationalError):
            return _no_room(self.path.parent, error)
        if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            return ConfigError(f"{self.path}: {error}; {_UNSOUND}")
        return None

    def _check(self) -> None:
        if isinstance(
            self._spoilt, StoreDown | ConfigError
        ):  # whoever comes next says the same, not that we are broken
            raise type(self._spoilt)(str(self._spoilt)) from self._spoilt
        if self._spoilt is not None:
            raise BrokenInvariant(f"{self.path} is of no more use ({self._spoilt}); restart to continue") from (
                self._spoilt
            )

    async def _ask(self, job: Callable[[], T], size: int | None, *, reads: bool = False) -> T:
        self._check()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        if self._writer is None:
            self._writer = threading.Thread(target=self._work, name="disk", daemon=True)
            self._writer.start()
        self._jobs.put(_Job(job, size, reads, loop, done))
        return await done  # type: ignore[return-value]

    def _work(self) -> None:
        stop = False
        while not stop:
            group, stop = self._gather()
            if group:
                self._commit(group)
                self._committed_at = time.monotonic()

    def _gather(self) -> tuple[list[_Job], bool]:
        """The jobs of the next commit; and whether it is the last."""
        group: list[_Job] = []
        size, hurry = 0, False
        while len(group) < GROUP:
            try:
                job = self._jobs.get(timeout=self._patience_s(group, hurry or size >= ENOUGH))
            except queue.Empty:
                break
            if job is None:
                return group, True
            if job.reads:
                self._answer(job)
                continue
            group.append(job)
            size += job.size or 0
            hurry = hurry or job.size is None
        return group, False

    def _patience_s(self, group: list[_Job], hurry: bool) -> float | None:
        """How long to wait for the next job: for ever for the first, not at all when there is a hurry."""
        if not group:
            return None
        return 0.0 if hurry else max(0.0, self._committed_at + self.commit_s - time.monotonic())

    def _answer(self, job: _Job) -> None:
        result: object = None
        failure: BaseException | None = None
        try:
            self._check()
            with self.damage_named():
                result = job.do()
        except BaseException as error:  # handed to its waiter
            failure = error
        _tell(job, result, failure)

    def _commit(self, group: list[_Job]) -> None:
        results: list[object] = []
        failure: BaseException | None = None
        try:
            with self.transaction():
                for job in group:
                    results.append(job.do())
        except BaseException as error:  # handed to every waiter: each of them ends
            failure = error
        for n, job in enumerate(group):
            _tell(job, None if failure else results[n], failure)


def _nothing() -> None:
    """A job that only hurries the others."""


def _tell(job: _Job, result: object, failure: BaseException | None) -> None:
    # The loop may be gone already when the process stops; what is committed stays committed.
    with suppress(RuntimeError):
        job.loop.call_soon_threadsafe(_settle, job.done, result, failure)


def _settle(done: asyncio.Future[object], result: object, failure: BaseException | None) -> None:
    if done.done():
        return  # its waiter was cancelled
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(failure)


_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""What SQLite says when its files cannot grow or be made; the extended codes have these as their last byte."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNSOUND = "it is not a sound node file, or its disk fails: move it away to begin with an empty one"


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
            connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        else:
            migrate(connection, version)
    except sqlite3.Error as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM:
            raise _no_room(path.parent, error) from error
        raise ConfigError(f"{path}: {error}; {_UNSOUND}") from None
    except ConfigError:
        connection.close()
        raise
    return connection
