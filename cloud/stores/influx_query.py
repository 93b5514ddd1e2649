"""Questions of the seam, asked in InfluxQL and answered in columns.

Windows are aggregated by InfluxDB; their grades come from the distinct qualities in each. Series that are not in the
dictionary (another partition's, or somebody else's) are left aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.stores.chunks import LATEST_TIME, Qualities, Times, Values
from cloud.stores.influxql import InfluxQl, name, string
from cloud.stores.seam import Answer, Query, SeriesInfo
from cloud.stores.sqlite import MAX_ROWS
from messages.errors import UsageError
from messages.quality import GRADE_MASK, Why

ALL_ROWS = 2**62
"""No bound: an audit reads everything, series by series."""
_TAGS = ("site", "node", "device")
_BY_TAGS = ", ".join(map(name, _TAGS))

Part = tuple[Times, Values, Qualities, NDArray[np.int64], Values]
Rows = dict[tuple[str, ...], list[list[Any]]]


def answer(ql: InfluxQl, query: Query, infos: Sequence[SeriesInfo]) -> Answer:
    """Readings or windows of `infos`, in their order."""
    if query.every_s is not None and query.every_s < 1e-6:
        raise UsageError(f"every_s={query.every_s}: windows last at least a microsecond")
    parts = _raw(ql, query) if query.every_s is None else _windows(ql, query, round(query.every_s * 1e6))
    shown = [(info, parts[key]) for info in infos if (key := (info.site, info.node, info.device)) in parts]
    if not shown:
        none = np.empty(0, np.int64)
        return Answer((), np.empty(0, np.int32), none, np.empty(0), np.empty(0, np.int32), none, np.empty(0))
    which = np.repeat(np.arange(len(shown), dtype=np.int32), [len(part[0]) for _, part in shown])
    columns = map(np.concatenate, zip(*(part for _, part in shown), strict=True))
    return Answer(tuple(info for info, _ in shown), which, *columns)


def times_of(ql: InfluxQl, info: SeriesInfo) -> Times:
    """The times of all rows of one series, ascending."""
    query = Query(info.metric, info.site, info.node, info.device)
    found = [np.array([row[0] for row in rows], np.int64)
             for _, rows in _pieces(ql, f"SELECT {name('value')} FROM {_from(query)}", ALL_ROWS)]  # fmt: skip
    return np.concatenate(found) if found else np.empty(0, np.int64)


def count_of(ql: InfluxQl, metric: str, infos: Sequence[SeriesInfo]) -> int:
    """Rows of these series of one metric."""
    known = {info[:3] for info in infos}
    counts = _pieces(ql, f"SELECT count({name('value')}) FROM {_from(Query(metric))} GROUP BY {_BY_TAGS}", MAX_ROWS)
    return sum(int(row[1]) for key, rows in counts if key in known for row in rows)


# -- private -----------------------------------------------------------------------------------------------


def _raw(ql: InfluxQl, query: Query) -> dict[tuple[str, ...], Part]:
    source = _from(query)
    asked = sum(int(row[1]) for _, rows in _pieces(ql, f"SELECT count({name('value')}) FROM {source}", 10)
                for row in rows)  # fmt: skip
    if asked > MAX_ROWS:
        raise UsageError(f"{asked:,} readings, an answer has at most {MAX_ROWS:,}: ask for windows or less time")
    wanted = ", ".join(map(name, ("value", "quality", "raw")))
    found = _by_series(_pieces(ql, f"SELECT {wanted} FROM {source} GROUP BY {_BY_TAGS}", MAX_ROWS))
    return {key: _readings(rows) for key, rows in found.items()}


def _readings(rows: list[list[Any]]) -> Part:
    times, values, quality, raw = zip(*rows, strict=True)
    value, said = np.array(values, np.float64), np.array(raw, np.float64)  # null becomes NaN
    grades = np.array([one or 0 for one in quality], np.int32)
    said = np.where(np.isnan(said) & ((grades & int(Why.MISSING)) == 0), value, said)
    return np.array(times, np.int64), value, grades, np.ones(len(value), np.int64), said


def _windows(ql: InfluxQl, query: Query, every_us: int) -> dict[tuple[str, ...], Part]:
    source = f"{_from(query)} GROUP BY time({every_us}u), {_BY_TAGS} fill(none)"
    value = name("value")
    values = _by_series(_pieces(ql, f"SELECT {query.agg}({value}), count({value}) FROM {source}", MAX_ROWS))
    grades = _by_series(_pieces(ql, f"SELECT distinct({name('quality')}) FROM {source}", MAX_ROWS))
    parts: dict[tuple[str, ...], Part] = {}
    for key, rows in values.items():
        times, numbers, counts = zip(*rows, strict=True)
        at, number = np.array(times, np.int64), np.array(numbers, np.float64)
        quality = _worst(at, grades.get(key, []))
        parts[key] = (at, number, quality, np.array(counts, np.int64), number)
    return parts


def _worst(at: Times, rows: list[list[Any]]) -> Qualities:
    """Per window, its worst grade and all its reasons."""
    reasons = np.zeros(len(at), np.int32)
    grade = np.full(len(at), GRADE_MASK, np.int32)
    if rows:
        times, distinct = (
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] or 0 for row in rows], np.int32),
        )
        place = np.searchsorted(at, times)
        inside = (place < len(at)) & (at[np.minimum(place, len(at) - 1)] == times)
        np.bitwise_or.at(reasons, place[inside], distinct[inside] & ~GRADE_MASK)
        np.minimum.at(grade, place[inside], distinct[inside] & GRADE_MASK)
    return grade | reasons


def _by_series(pieces: Iterator[tuple[tuple[str, ...], list[list[Any]]]]) -> Rows:
    found: Rows = {}
    for key, rows in pieces:
        found.setdefault(key, []).extend(rows)
    return found


def _pieces(ql: InfluxQl, text: str, most: int) -> Iterator[tuple[tuple[str, ...], list[list[Any]]]]:
    for piece in ql.ask(text, most=most):
        yield tuple(piece.tags.get(tag, "") for tag in _TAGS), piece.rows


def _from(query: Query) -> str:
    """Measurement and range; both ends are said, as InfluxQL ends windows without an end at its own clock."""
    start = query.start or 0
    end = LATEST_TIME + 1 if query.end is None else min(query.end, LATEST_TIME + 1)
    where = [f"time >= {max(start, 0)}u", f"time < {max(end, 0)}u"]
    where += [f"{name(tag)} = {string(wanted)}" for tag in _TAGS if (wanted := getattr(query, tag)) is not None]
    return f"{name(query.metric)} WHERE {' AND '.join(where)}"
