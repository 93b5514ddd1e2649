"""Retention: what is older than the limit is not answered from the moment on, and goes in short steps.

First the limit is written down; every read begins there, so that a chunk that reaches over it shows only its younger
rows, and what comes in older than it is not kept. Then chunks that lie wholly before it are dropped, those that reach
over it are cut, and records and quarantine follow. Keys of batches go last, and only those whose newest row or record
is older than the limit: whoever sends such a batch again brings nothing that would be kept, so that nothing is ever
seen twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from cloud.stores.chunks import cut, decode, join, pack
from cloud.stores.quarantine import forget

_AT_ONCE = 2_000
"""Chunks dropped, or keys, records and entries looked at, in one transaction."""
_CUT_AT_ONCE = 100
_SERIES_AT_ONCE = 200
"""Series looked at before others get a turn, whether or not they have anything to drop."""

Atomic = Callable[[], AbstractContextManager[None]]


def retained_from(db: sqlite3.Connection) -> int:
    """The time before which nothing is answered."""
    row = db.execute("SELECT n FROM counter WHERE name = 'retained_from'").fetchone()
    return 0 if row is None else int(row[0])


def expire(db: sqlite3.Connection, atomic: Atomic, before: int | None) -> Iterator[int]:
    """Drop what is older than `before`, None: nothing; yields the readings dropped after each short transaction."""
    if (before or 0) != retained_from(db):
        with atomic():
            db.execute("INSERT OR REPLACE INTO counter VALUES ('retained_from', ?)", (max(before or 0, 0),))
    if before is None or before <= 0:
        return
    yield 0
    for seen, (series,) in enumerate(db.execute("SELECT id FROM series").fetchall(), 1):
        for table in ("packed", "chunk"):
            yield from _drop(db, atomic, table, series, before)
            yield from _cut(db, atomic, table, series, before)
        if seen % _SERIES_AT_ONCE == 0:
            yield 0
    for table in ("record", "quarantine"):
        yield from _expire_numbered(db, atomic, table, before)
    yield from _expire_keys(db, atomic, before)


def _drop(db: sqlite3.Connection, atomic: Atomic, table: str, series: int, before: int) -> Iterator[int]:
    """Chunks that end before the limit."""
    while old := db.execute(
        f"SELECT id, rows FROM {table} WHERE series = ? AND t_max < ? LIMIT ?", (series, before, _AT_ONCE)
    ).fetchall():
        with atomic():
            db.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number, _ in old])
        yield sum(rows for _, rows in old)


def _cut(db: sqlite3.Connection, atomic: Atomic, table: str, series: int, before: int) -> Iterator[int]:
    """Chunks that reach over the limit keep what is younger; both kinds of table hold packed chunks as well."""
    while over := db.execute(
        f"SELECT id, rows, data FROM {table} WHERE series = ? AND t_max >= ? AND t_min < ? LIMIT ?",
        (series, before, before, _CUT_AT_ONCE),
    ).fetchall():
        dropped = 0
        with atomic():
            for number, rows, data in over:
                column = cut(join([decode(data)]), before, None)
                dropped += rows - len(column)
                db.execute(
                    f"UPDATE {table} SET t_min = ?, rows = ?, data = ? WHERE id = ?",
                    (int(column.times[0]), len(column), pack(column), number),
                )
        yield dropped


def _expire_numbered(db: sqlite3.Connection, atomic: Atomic, table: str, before: int) -> Iterator[int]:
    low, high = db.execute(f"SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM {table}").fetchone()
    for first in range(low, high + 1, _AT_ONCE):
        with atomic():
            if table == "quarantine":
                forget(db, first, first + _AT_ONCE, before)
            else:
                db.execute("DELETE FROM record WHERE id >= ? AND id < ? AND at < ?", (first, first + _AT_ONCE, before))
        yield 0


def _expire_keys(db: sqlite3.Connection, atomic: Atomic, before: int) -> Iterator[int]:
    for (stream,) in db.execute("SELECT id FROM stream").fetchall():
        low = -1
        while True:
            seqs = db.execute(
                "SELECT seq FROM batch WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?", (stream, low, _AT_ONCE)
            ).fetchall()
            if not seqs:
                break
            with atomic():
                db.execute(
                    "DELETE FROM batch WHERE stream = ? AND seq > ? AND seq <= ? AND at < ?",
                    (stream, low, seqs[-1][0], before),
                )
            low = seqs[-1][0]
            yield 0
