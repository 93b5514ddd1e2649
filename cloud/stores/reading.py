"""Readings from the tables of the embedded store: the chunks that overlap a range, joined, cut and put into windows.

Packed chunks come before landed ones, as they are older. The chunks of a series are found by one statement, hence as of
one moment: whatever is being merged meanwhile, every row is there once. Nothing older than the retention is read.
Bounds: `MAX_ROWS` of an answer without windows; windows are made of about `SLICE_ROWS` at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.stores.chunks import Column, Qualities, Times, Values, cut, decode, join
from cloud.stores.compact import DAY_US
from cloud.stores.retention import retained_from
from cloud.stores.seam import Answer, Query, SeriesInfo
from cloud.stores.windows import merge, windows
from messages.errors import UsageError

MAX_ROWS = 10_000_000
"""Rows of one answer without windows."""
SLICE_ROWS = 500_000
"""Rows aggregated at a time."""

_EVER = 2**62


def answer(db: sqlite3.Connection, found: Sequence[tuple[int, SeriesInfo]], query: Query) -> Answer:
    """What `query` asks of the series `found`, in their order."""
    if query.every_s is not None and query.every_s < 1e-6:
        raise UsageError(f"every_s={query.every_s}: windows last at least a microsecond")
    start = max(query.start or 0, retained_from(db))
    end = _EVER if query.end is None else query.end
    if query.every_s is None:
        asked = sum(_rows(db, number, start, end) for number, _ in found)
        if asked > MAX_ROWS:
            raise UsageError(f"{asked:,} readings, an answer has at most {MAX_ROWS:,}: ask for windows or less time")
    infos: list[SeriesInfo] = []
    parts: list[tuple[Times, Values, Qualities, NDArray[np.int64], Values]] = []
    for number, info in found:
        if query.every_s is None:
            pieces = [column for piece in _slices(db, number, start, end) for column in piece]
            column = cut(join(pieces), start, end)
            raw = column.values.copy()
            raw[column.replaced] = column.raw
            part = (column.times, column.values, column.quality, np.ones(len(column), np.int64), raw)
        else:
            every = round(query.every_s * 1e6)
            whole = merge([windows(cut(join(piece), start, end), every) for piece in _slices(db, number, start, end)])
            values = whole.values(query.agg)
            part = (whole.start, values, whole.quality, whole.count, values)
        if len(part[0]):
            infos.append(info)
            parts.append(part)
    if not parts:
        none = np.empty(0, np.int64)
        return Answer((), np.empty(0, np.int32), none, np.empty(0), np.empty(0, np.int32), none, np.empty(0))
    which = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part[0]) for part in parts])
    return Answer(tuple(infos), which, *map(np.concatenate, zip(*parts, strict=True)))


def times_of(db: sqlite3.Connection, series: int) -> Times:
    """The times of all rows of a series, ascending."""
    start = retained_from(db)
    pieces = [column for piece in _slices(db, series, start, _EVER) for column in piece]
    return cut(join(pieces), start, None).times


def _rows(db: sqlite3.Connection, series: int, start: int, end: int) -> int:
    """Rows of the chunks that overlap the range."""
    found = db.execute(f"SELECT coalesce(sum(rows), 0) FROM ({_overlapping('rows')})", _range(series, start, end))
    return int(found.fetchone()[0])


def _slices(db: sqlite3.Connection, series: int, start: int, end: int) -> Iterator[list[Column]]:
    """The chunks that overlap the range, about SLICE_ROWS rows together."""
    columns: list[Column] = []
    rows = 0
    for (blob,) in db.execute(_overlapping("data"), _range(series, start, end)):
        columns.append(decode(blob))
        rows += len(columns[-1])
        if rows >= SLICE_ROWS:
            yield columns
            columns, rows = [], 0
    if columns:
        yield columns


def _overlapping(what: str) -> str:
    """The chunks of a series that overlap a range. A packed one ends on the day it begins, a landed one may not."""
    return (
        f"SELECT {what} FROM packed WHERE series = ? AND t_max >= ? AND t_max < ? AND t_min < ? "
        f"UNION ALL SELECT {what} FROM chunk WHERE series = ? AND t_max >= ? AND t_min < ?"
    )


def _range(series: int, start: int, end: int) -> tuple[int, ...]:
    return (series, start, -(-end // DAY_US) * DAY_US, end, series, start, end)
