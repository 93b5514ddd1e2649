"""Compaction: what landed in small chunks becomes packed chunks of about `FULL` rows, the same rows to the bit.

    for rows in store.compact():        # one short transaction each; ingest goes on between them
        await asyncio.sleep(…)

A step reads landed chunks of a few series, joins each series' rows with small packed chunks of the same UTC days,
cuts them at midnight and into pieces of `FULL` to twice as many rows, writes these and deletes what they came from, in
one commit: a crash leaves all of it or nothing, a reader sees every row once. Batch keys are rows of their own and are
not touched. Late rows that land in a day long packed are merged with what is small there, else they stand beside it.
Bounds: a step takes `STEP_ROWS` landed rows, `STEP_CHUNKS` chunks and `STEP_DAYS` chunk days, or one chunk where that
is more, and for every day at most twice `FULL` packed rows: 10 to 30 ms on a small computer. A small chunk is only
taken by rows of at least a quarter of its own, so that each row is rewritten a few times in its life.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cloud.stores.chunks import Column, cut, decode, join, pack
from messages.errors import StoreError
from messages.logs import get_logger

DAY_US = 86_400_000_000
"""No packed chunk reaches over midnight UTC, so the chunks of a range are found without looking at others."""
FULL = 3_600
"""Rows from which a packed chunk is left alone."""
STEP_ROWS, STEP_CHUNKS, STEP_DAYS = 36_000, 512, 256
"""Most landed rows, chunks and days of chunks of one step."""

_CHUNK_WEIGHT = 100
"""A chunk costs a reader about as much as so many rows."""
_RIPE = FULL + 36 * _CHUNK_WEIGHT
"""Weight of landed chunks that is worth merging: 36 chunks of 100 rows, or 71 of one."""
_RATIO = 4
_LOOKS = 200
"""Series looked at in one step, whether or not they have anything to merge."""
_SMALL = 64
"""Small packed chunks of one day that are considered at a time."""

log = get_logger("store")


class Waiting:
    """Which series have enough landed rows to be merged: kept in memory, looked up again where it is not known."""

    def __init__(self) -> None:
        self._weight: dict[int, int] = {}
        self._ripe: dict[int, None] = {}
        self._damaged: set[int] = set()

    def landed(self, series: int, rows: int) -> None:
        """A chunk of `rows` has landed."""
        weight = self._weight.get(series, 0) + rows + _CHUNK_WEIGHT
        self._weight[series] = weight
        if weight >= _RIPE:
            self._ripe[series] = None

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._ripe)

    def look_at(self, series: Iterable[int]) -> None:
        """What has landed of these is not known."""
        self._ripe.update(dict.fromkeys(series))

    def next(self) -> int | None:
        """A series to look at, which is then no longer to be looked at."""
        while self._ripe:
            series = next(iter(self._ripe))
            del self._ripe[series]
            if series not in self._damaged:
                return series
        return None

    def is_now(self, series: int, weight: int) -> None:
        """What is left of a series that was looked at."""
        self._weight[series] = weight

    def leave_out(self, series: int) -> None:
        """A chunk of it cannot be read: its rows stay as they are while this process lives."""
        self._damaged.add(series)


class _Landed(NamedTuple):
    id: int
    t_min: int
    t_max: int
    rows: int

    @property
    def days(self) -> int:
        return self.t_max // DAY_US - self.t_min // DAY_US + 1


def step(db: sqlite3.Connection, waiting: Waiting, *, everything: bool = False) -> int:
    """Merge some of what waits, inside the open transaction; how many rows.

    `everything` merges whatever has landed, were it one row.
    """
    rows = chunks = days = looks = 0
    while looks < _LOOKS:
        series = waiting.next()
        if series is None:
            return rows
        looks += 1
        found = [
            _Landed(*row)
            for row in db.execute(
                "SELECT id, t_min, t_max, rows FROM chunk WHERE series = ? ORDER BY t_max, t_min, rows, id LIMIT ?",
                (series, STEP_CHUNKS + 1),
            )
        ]
        weight = sum(one.rows + _CHUNK_WEIGHT for one in found)
        if not found or (weight < _RIPE and not everything):
            waiting.is_now(series, weight)
            continue
        taken: list[_Landed] = []
        for one in found:
            full = rows + one.rows > STEP_ROWS or chunks >= STEP_CHUNKS or days + one.days > STEP_DAYS
            if full and chunks:
                break
            taken.append(one)
            rows, chunks, days = rows + one.rows, chunks + 1, days + one.days
        try:
            if taken:
                _merge(db, series, taken)
        except StoreError as error:  # the rows stay where they are, and reading them says the same
            log.error("store.damaged_chunk", series=series, error=str(error))
            waiting.leave_out(series)
            rows -= sum(one.rows for one in taken)
            continue
        waiting.is_now(series, weight - sum(one.rows + _CHUNK_WEIGHT for one in taken))
        if len(taken) < len(found):
            waiting.look_at([series])
            return rows
    return rows


def pieces(column: Column) -> Iterator[Column]:
    """A column whose times ascend, cut at midnight and into `FULL` to twice as many rows; the same rows together."""
    days = column.times // DAY_US
    edges = [0, *(np.flatnonzero(days[1:] != days[:-1]) + 1).tolist(), len(column)]
    for low, high in pairwise(edges):
        parts = max(1, (high - low) // FULL)
        bounds = np.linspace(low, high, parts + 1).astype(int).tolist()
        for begin, end in pairwise(bounds):
            yield column.rows(begin, end)


def put_packed(db: sqlite3.Connection, series: int, columns: Iterable[Column]) -> None:
    """Write packed chunks."""
    db.executemany(
        "INSERT INTO packed (series, t_min, t_max, rows, data) VALUES (?, ?, ?, ?, ?)",
        [(series, int(one.times[0]), int(one.times[-1]), len(one), pack(one)) for one in columns],
    )


def _merge(db: sqlite3.Connection, series: int, taken: list[_Landed]) -> None:
    fresh = join([decode(_data(db, "chunk", one.id)) for one in taken])
    absorbed: list[int] = []
    done: list[Column] = []
    for day in np.unique(fresh.times // DAY_US).tolist():
        part = cut(fresh, day * DAY_US, (day + 1) * DAY_US)
        small = list(_small(db, series, day, len(part)))
        absorbed += small
        # What was packed comes first: of equal times, what was stored later stays later.
        done += pieces(join([*(decode(_data(db, "packed", one)) for one in small), part]))
    db.executemany("DELETE FROM packed WHERE id = ?", [(one,) for one in absorbed])
    db.executemany("DELETE FROM chunk WHERE id = ?", [(one.id,) for one in taken])
    put_packed(db, series, done)


def _small(db: sqlite3.Connection, series: int, day: int, rows: int) -> Iterator[int]:
    """Packed chunks of that day that `rows` more may take in, the smallest first, until they are full together."""
    for number, size in db.execute(
        "SELECT id, rows FROM packed WHERE series = ? AND t_max >= ? AND t_max < ? AND rows < ? ORDER BY rows LIMIT ?",
        (series, day * DAY_US, (day + 1) * DAY_US, FULL, _SMALL),
    ).fetchall():
        if rows >= FULL or size > _RATIO * rows:
            return
        rows += size
        yield number


def _data(db: sqlite3.Connection, table: str, number: int) -> bytes:
    blob: bytes = db.execute(f"SELECT data FROM {table} WHERE id = ?", (number,)).fetchone()[0]
    return blob
