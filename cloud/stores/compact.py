"""Compaction: what landed in small chunks becomes packed chunks of about `FULL` rows, the same rows to the bit.

    for rows in store.compact():        # one short transaction each; ingest goes on between them
        await asyncio.sleep(…)

A step reads landed chunks of a few series, joins each series' rows with small packed chunks of the same UTC days,
cuts them at midnight and into pieces of `FULL` to twice as many rows, writes these and deletes what they came from, in
one commit: a crash leaves all of it or nothing, a reader sees every row once. Batch keys are rows of their own and are
not touched. Late rows that land in a day long packed are merged with what is small there, else they stand beside it.
Bounds: a step takes `STEP_ROWS` landed rows, `STEP_CHUNKS` chunks and `STEP_DAYS` chunk days, or one chunk where that
is more, and for every day at most twice `FULL` packed rows: about 6 ms of CPU and one wait for the disk. A
small chunk is only taken by rows of at least a quarter of its own, so that each row is rewritten a few times at most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from cloud.stores.chunks import Column, decode, gather, join, pack
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
        found = db.execute(
            "SELECT id, rows, t_max / :day - t_min / :day + 1 FROM chunk WHERE series = :series "
            "ORDER BY t_max, t_min, rows, id LIMIT :most",
            {"series": series, "day": DAY_US, "most": STEP_CHUNKS + 1},
        ).fetchall()
        weight = sum([size for _, size, _ in found]) + _CHUNK_WEIGHT * len(found)
        if not found or (weight < _RIPE and not everything):
            waiting.is_now(series, weight)
            continue
        taken: list[int] = []
        merged = 0
        for number, size, spans in found:
            full = rows + size > STEP_ROWS or chunks >= STEP_CHUNKS or days + spans > STEP_DAYS
            if full and chunks:
                break
            taken.append(number)
            merged, rows, chunks, days = merged + size, rows + size, chunks + 1, days + spans
        try:
            if taken:
                _merge(db, series, taken)
        except StoreError as error:  # the rows stay where they are, and reading them says the same
            log.error("store.damaged_chunk", series=series, error=str(error))
            waiting.leave_out(series)
            rows -= merged
            continue
        waiting.is_now(series, weight - merged - _CHUNK_WEIGHT * len(taken))
        if len(taken) < len(found):
            waiting.look_at([series])
            return rows
    return rows


def pieces(column: Column) -> Iterator[Column]:
    """A column whose times ascend, cut at midnight and into `FULL` to twice as many rows; the same rows together."""
    for _, part in _days(column):
        count = max(1, len(part) // FULL)
        for begin, end in pairwise([len(part) * k // count for k in range(count + 1)]):
            yield part.rows(begin, end)


def put_packed(db: sqlite3.Connection, series: int, columns: Iterable[Column]) -> None:
    """Write packed chunks."""
    db.executemany(
        "INSERT INTO packed (series, t_min, t_max, rows, data) VALUES (?, ?, ?, ?, ?)",
        [(series, int(one.times[0]), int(one.times[-1]), len(one), pack(one)) for one in columns],
    )


def _merge(db: sqlite3.Connection, series: int, taken: list[int]) -> None:
    found = db.execute(
        "SELECT data FROM chunk WHERE series = ? ORDER BY t_max, t_min, rows, id LIMIT ?", (series, len(taken))
    )
    fresh = gather([blob for (blob,) in found])
    absorbed: list[int] = []
    done: list[Column] = []
    for day, part in _days(fresh):
        small = dict(_small(db, series, day, len(part)))
        absorbed += small
        # What was packed comes first: of equal times, what was stored later stays later.
        done += pieces(join([*map(decode, small.values()), part]) if small else part)
    db.executemany("DELETE FROM packed WHERE id = ?", [(one,) for one in absorbed])
    db.executemany("DELETE FROM chunk WHERE id = ?", [(one,) for one in taken])
    put_packed(db, series, done)


def _days(column: Column) -> Iterator[tuple[int, Column]]:
    """The days of a column whose times ascend, and the rows of each."""
    begin = 0
    while begin < len(column):
        day = int(column.times[begin]) // DAY_US
        end = int(np.searchsorted(column.times, (day + 1) * DAY_US))
        yield day, column.rows(begin, end)
        begin = end


def _small(db: sqlite3.Connection, series: int, day: int, rows: int) -> Iterator[tuple[int, bytes]]:
    """Packed chunks of that day that `rows` more may take in, the smallest first, until they are full together."""
    for number, size in db.execute(
        "SELECT id, rows FROM packed WHERE series = ? AND t_max >= ? AND t_max < ? AND rows < ? ORDER BY rows LIMIT ?",
        (series, day * DAY_US, (day + 1) * DAY_US, FULL, _SMALL),
    ).fetchall():
        if rows >= FULL or size > _RATIO * rows:
            return
        rows += size
        yield number, db.execute("SELECT data FROM packed WHERE id = ?", (number,)).fetchone()[0]
