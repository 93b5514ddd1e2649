"""The embedded store: one SQLite file, columns in chunks, readable while it is written.

Promises: what `append` (or the end of `atomic`) confirmed survives a power cut (WAL, `synchronous=FULL`); a
batch is stored once whatever happens (its key is a row of its own, which compaction does not touch); one
process writes, any number read. Rows land as they come, in `chunk`, and are merged in the background into `packed`
(see compact.py). Bounds: `max_series` in the dictionary, `quarantine_mb` in quarantine, `retention_days` of rows,
`MAX_ROWS` per answer.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, TypeAdapter

from cloud.stores.chunks import Times, cut, decode, encode, join, pack
from cloud.stores.compact import DAY_US, Waiting, step
from cloud.stores.file import connect, lock_beside, sqlite_errors
from cloud.stores.quarantine import Entry, QuarantineMb, put_aside
from cloud.stores.reading import MAX_ROWS, answer, times_of
from cloud.stores.retention import expire, retained_from
from cloud.stores.seam import (
    Answer,
    Appended,
    BatchKey,
    Observation,
    Pushed,
    Quarantined,
    QuarantineKind,
    Query,
    SeriesInfo,
    StoredBatch,
    StoredRecord,
)
from messages.contracts import Batch, Record, Series
from messages.errors import BadRows, StoreDown
from messages.logs import get_logger
from messages.settings import Section

SHARE = 0.25
"""Of one processor, for merging what landed."""
REST_S = 1.0
"""Between two looks for something to merge."""

__all__ = ["MAX_ROWS", "QuarantineMb", "SqliteConnection", "SqliteStore", "sqlite_errors"]

log = get_logger("store")

_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


class SqliteStore(Section):
    """One file on this computer: needs no service, good for a plant's telemetry."""

    kind: Literal["sqlite"] = Field("sqlite", description="the embedded store")
    path: Path = Field(Path("shoal.db"), description="the file; relative to the data directory")
    retention_days: float = Field(0, ge=0, description="older readings and records are dropped daily; 0: never")
    max_series: int = Field(100_000, ge=1, description="device × metric; readings of further ones go to quarantine")
    quarantine_mb: QuarantineMb = Field(64, description="room for what could not be stored; the oldest go first")

    def below(self, directory: Path) -> SqliteStore:
        """The same store with its file below `directory`, unless its path is absolute."""
        return self.model_copy(update={"path": directory / self.path})

    def open(self, *, read_only: bool = False) -> SqliteConnection:
        """Open, creating the file unless `read_only`. UsageError: no such store, or another process writes it."""
        return SqliteConnection(self, read_only=read_only)


class SqliteConnection:
    """An opened SqliteStore."""

    durable_on_ack = True
    idempotent = True

    def __init__(self, settings: SqliteStore, *, read_only: bool) -> None:
        self.settings = settings
        self._lock = None if read_only else lock_beside(settings.path)
        try:
            self.connection = connect(settings.path, read_only=read_only)
        except BaseException:
            self._unlock()
            raise
        self._streams: dict[tuple[str, str, str, str], int] = {}
        self._series: dict[tuple[str, str, str, str], tuple[int, str]] = {}
        self._waiting = Waiting()
        self._said_full = False
        self._load()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was confirmed is in it."""
        self.connection.close()
        self._unlock()

    # -- writing --------------------------------------------------------------------------------------

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """One transaction; inside another one it is part of that."""
        if self.connection.in_transaction:
            yield
            return
        with sqlite_errors(self.settings.path):
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # SQLite may have rolled back by itself
                    with suppress(sqlite3.Error):
                        self.connection.execute("ROLLBACK")
                self._load()  # the dictionaries may name rows that never came to be
                raise

    async def push(self, batches: Sequence[StoredBatch]) -> Pushed | None:
        """Nothing: `append` writes all."""
        return None

    def append(self, batches: Sequence[StoredBatch], pushed: Pushed | None = None) -> Appended:
        """Store what is not there yet, in the order given; of what is past the retention only that it was here."""
        new: list[bool] = []
        chunks: list[tuple[int, int, int, int, int, int, bytes]] = []
        records: list[tuple[int, int, int, str, int, str]] = []
        readings = bad = 0
        with self.atomic():
            since = retained_from(self.connection)
            for key, batch in ((one.key, one.batch) for one in batches):
                stream = self._stream(key)
                done = self.connection.execute(
                    "INSERT OR IGNORE INTO batch VALUES (?, ?, ?)", (stream, key.seq, _newest(batch))
                )
                new.append(done.rowcount == 1)
                if not new[-1]:
                    continue
                for series in batch.series:
                    if 0 <= series.t0 + series.at[-1] < since:
                        continue
                    try:
                        number = self._series_id(key, series)
                        blob, first, last = encode(series)
                    except BadRows as error:
                        bad += len(series.at)
                        self._put_aside(
                            at=batch.made_at,
                            kind="rows",
                            topic="/".join(map(str, key)),
                            reason=f"{series.device} {series.metric}: {error}",
                            readings=len(series.at),
                            payload=series.encode(),
                        )
                        continue
                    rows = len(series.at)
                    if first < since:
                        column = cut(join([decode(blob)]), since, None)
                        blob, first, rows = pack(column), int(column.times[0]), len(column)
                    chunks.append((number, stream, key.seq, first, last, rows, blob))
                    self._waiting.landed(number, rows)
                    readings += rows
                for place, record in enumerate(batch.records):
                    if record.at < since:
                        continue
                    body = record.model_dump_json(exclude_none=True)
                    records.append((stream, key.seq, place, record.kind, record.at, body))
            self.connection.executemany(
                "INSERT INTO chunk (series, stream, seq, t_min, t_max, rows, data) VALUES (?, ?, ?, ?, ?, ?, ?)", chunks
            )
            self.connection.executemany(
                "INSERT INTO record (stream, seq, place, kind, at, body) VALUES (?, ?, ?, ?, ?, ?)", records
            )
        return Appended(tuple(new), readings, len(records), bad)

    def quarantine(self, *, at: int, kind: QuarantineKind, topic: str, reason: str, payload: bytes) -> None:
        """Keep a message that is not to be stored as rows; the oldest entries go when the room is used up."""
        with self.atomic():
            self._put_aside(at=at, kind=kind, topic=topic, reason=reason, readings=0, payload=payload)

    def keep(self, name: str, text: str) -> None:
        """Keep a small named document."""
        with self.atomic():
            self.connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, text))

    def observe(self, seen: Sequence[Observation]) -> None:
        """Keep the newest of each, as JSON, under `measurement/site/…`."""
        newest = {(one.measurement, *(value for _, value in one.tags)): one for one in seen}
        with self.atomic():
            for name, one in newest.items():
                self.keep("/".join(name), json.dumps({"at": one.at, **one.fields}))

    async def run(self) -> None:
        """Merge what landed, for ever, in short steps that together take at most `SHARE` of the time."""
        while True:
            began = time.monotonic()
            try:
                for _ in self.compact():
                    await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
                    began = time.monotonic()
            except StoreDown as error:  # nothing was changed; who appends waits for the disk just so
                log.warning("store.not_compacted", error=str(error))
            await asyncio.sleep(REST_S)

    def expire(self, now: int) -> Iterator[int]:
        """Drop what is older than the retention; yields rows dropped after each short transaction."""
        days = self.settings.retention_days
        with sqlite_errors(self.settings.path):
            yield from expire(self.connection, self.atomic, now - int(days * DAY_US) if days else None)

    def compact(self, *, everything: bool = False) -> Iterator[int]:
        """Merge what landed; yields rows merged after each short transaction. `everything`: were it one row."""
        if everything:
            self._waiting.look_at(number for (number,) in self._all("SELECT id FROM series"))
        while self._waiting:
            with self.atomic():
                rows = step(self.connection, self._waiting, everything=everything)
            yield rows

    # -- reading --------------------------------------------------------------------------------------

    def query(self, query: Query) -> Answer:
        """Readings or their windows, by series, then by time; only chunks that overlap the range are read."""
        with sqlite_errors(self.settings.path):
            return answer(self.connection, self._find_series(query), query)

    def records(
        self, after: int = 0, limit: int = 1000, kinds: Sequence[str] | None = None, newest: bool = False
    ) -> list[StoredRecord]:
        """Records stored after `after`, in the order of storage."""
        wanted = "" if kinds is None else f"AND kind IN ({', '.join('?' * len(kinds))})"
        rows = self._all(
            "SELECT record.id, site, node, epoch, lane, seq, place, body FROM record "
            "JOIN stream ON stream.id = record.stream "
            f"WHERE record.id > ? AND record.at >= ? {wanted} ORDER BY record.id {'DESC' if newest else ''} LIMIT ?",
            (after, self._since(), *(kinds or ()), limit),
        )
        return [
            StoredRecord(cursor, site, node, f"{epoch}/{lane}/{seq}/{place}", _RECORD.validate_json(body))
            for cursor, site, node, epoch, lane, seq, place, body in (reversed(rows) if newest else rows)
        ]

    def series(self) -> list[SeriesInfo]:
        """The series dictionary, by site, node, device, metric."""
        rows = self._all("SELECT site, node, device, metric, unit FROM series ORDER BY site, node, device, metric")
        return [SeriesInfo(*row) for row in rows]

    def quarantined(self, limit: int = 100) -> list[Quarantined]:
        """The newest entries of the quarantine, newest first."""
        rows = self._all(
            "SELECT id, at, kind, topic, reason, readings, size, payload FROM quarantine ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Quarantined(*row) for row in rows]

    def times(self) -> Iterator[tuple[SeriesInfo, Times]]:
        """Every series with the times of all its rows, ascending."""
        with sqlite_errors(self.settings.path):
            for number, info in self._find_series(None):
                yield info, times_of(self.connection, number)

    def count_rows(self) -> int:
        return self._one(
            "SELECT (SELECT coalesce(sum(rows), 0) FROM chunk) + (SELECT coalesce(sum(rows), 0) FROM packed)"
        )

    def distinct_rows(self) -> int:
        return sum(len(np.unique(times)) for _, times in self.times())

    def quarantined_rows(self) -> int:
        return self._one("SELECT coalesce(max(n), 0) FROM counter WHERE name = 'quarantined_readings'")

    def quarantine_dropped(self) -> int:
        return self._one("SELECT coalesce(max(n), 0) FROM counter WHERE name = 'quarantine_dropped'")

    def sums(self) -> dict[str, dict[str, int]]:
        since = self._since()
        rejected = self._all(
            "SELECT json_extract(body, '$.reason') AS why, sum(json_extract(body, '$.readings')) "
            "FROM record WHERE kind = 'rejected' AND at >= ? GROUP BY why ORDER BY why",
            (since,),
        )
        found: dict[str, dict[str, int]] = {"rejected": dict(rejected)}
        for kind in ("gap", "evicted"):
            found[kind] = {
                kind: self._one(
                    "SELECT coalesce(sum(json_extract(body, '$.readings')), 0) FROM record WHERE kind = ? AND at >= ?",
                    (kind, since),
                )
            }
        return found

    def kept(self, name: str) -> str | None:
        rows = self._all("SELECT text FROM kept WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    # -- private --------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._streams = {row[:4]: row[4] for row in self._all("SELECT site, node, epoch, lane, id FROM stream")}
        self._series = {
            row[:4]: (row[4], row[5]) for row in self._all("SELECT site, node, device, metric, id, unit FROM series")
        }
        self._waiting.look_at(number for number, _ in self._series.values())

    def _stream(self, key: BatchKey) -> int:
        name = key[:4]
        number = self._streams.get(name)
        if number is None:
            done = self.connection.execute("INSERT INTO stream (site, node, epoch, lane) VALUES (?, ?, ?, ?)", name)
            number = self._streams[name] = int(done.lastrowid or 0)
        return number

    def _series_id(self, key: BatchKey, series: Series) -> int:
        name = (key.site, key.node, series.device, series.metric)
        known = self._series.get(name)
        if known is None:
            if len(self._series) >= self.settings.max_series:
                raise BadRows(f"a new series beyond max_series={self.settings.max_series}: raise it if it is right")
            done = self.connection.execute(
                "INSERT INTO series (site, node, device, metric, unit) VALUES (?, ?, ?, ?, ?)", (*name, series.unit)
            )
            known = self._series[name] = (int(done.lastrowid or 0), series.unit)
        if known[1] != series.unit:
            raise BadRows(f"in {series.unit!r}, but the series is in {known[1]!r}")
        return known[0]

    def _put_aside(
        self, *, at: int, kind: QuarantineKind, topic: str, reason: str, readings: int, payload: bytes
    ) -> None:
        entry = Entry(at, kind, topic, reason, readings, payload)
        dropped = put_aside(self.connection, entry, room_mb=self.settings.quarantine_mb)
        if dropped and not self._said_full:
            self._said_full = True  # once per run: the count goes on in the status
            cure = "see `shoal query quarantine`; raise quarantine_mb to keep more"
            log.warning("store.quarantine_full", dropped=dropped, quarantine_mb=self.settings.quarantine_mb, cure=cure)

    def _since(self) -> int:
        with sqlite_errors(self.settings.path):
            return retained_from(self.connection)

    def _find_series(self, query: Query | None) -> list[tuple[int, SeriesInfo]]:
        where, values = ["1"], []
        if query is not None:
            for name in ("metric", "site", "node", "device"):
                if getattr(query, name) is not None:
                    where.append(f"{name} = ?")
                    values.append(getattr(query, name))
        rows = self._all(
            f"SELECT id, site, node, device, metric, unit FROM series WHERE {' AND '.join(where)} "
            "ORDER BY site, node, device, metric",
            tuple(values),
        )
        return [(row[0], SeriesInfo(*row[1:])) for row in rows]

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with sqlite_errors(self.settings.path):
            return self.connection.execute(sql, values).fetchall()

    def _one(self, sql: str, values: tuple[object, ...] = ()) -> int:
        return int(self._all(sql, values)[0][0])

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()  # gives the lock back
            self._lock = None


def _newest(batch: Batch) -> int:
    """The time up to which a batch's key is needed: that of its newest row, record, or of its making."""
    newest = [series.t0 + series.at[-1] for series in batch.series]
    return max([batch.made_at, *newest, *[record.at for record in batch.records]])
