"""Statistics of readings in windows of time, mergeable: `merge([a, b])` equals the windows of both together.

So a year is aggregated in slices of bounded size. Windows are half-open and counted from 1970; empty ones do
not exist. The grade of a window is its worst, its reasons are all that occurred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.stores.chunks import Column, Qualities, Times, Values
from messages.quality import GRADE_MASK


@dataclass(frozen=True)
class Windows:
    """w windows, ascending by start; every array has shape (w,)."""

    start: Times
    count: NDArray[np.int64]
    total: Values
    low: Values
    high: Values
    last_at: Times
    last: Values
    grade: Qualities
    reasons: Qualities

    def __len__(self) -> int:
        return len(self.start)

    def values(self, agg: str) -> Values:
        """One value per window."""
        if agg == "mean":
            return self.total / self.count
        if agg == "count":
            return self.count.astype(np.float64)
        return {"min": self.low, "max": self.high, "sum": self.total, "last": self.last}[agg]

    @property
    def quality(self) -> Qualities:
        return self.grade | self.reasons


def windows(column: Column, every_us: int) -> Windows:
    """The windows of a column whose times ascend."""
    grade = column.quality & GRADE_MASK
    one = np.ones(len(column), np.int64)
    start = column.times // every_us * every_us
    values = column.values
    return _reduce(
        Windows(start, one, values, values, values, column.times, values, grade, column.quality & ~GRADE_MASK)
    )


def merge(parts: list[Windows]) -> Windows:
    """The windows of all parts together; of equal last times the later part's value stays."""

    if not parts:
        none, nan, bits = np.empty(0, np.int64), np.empty(0), np.empty(0, np.int32)
        return Windows(none, none, nan, nan, nan, none, nan, bits, bits)

    def joined(pick: Callable[[Windows], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([pick(part) for part in parts])

    whole = Windows(
        joined(lambda part: part.start),
        joined(lambda part: part.count),
        joined(lambda part: part.total),
        joined(lambda part: part.low),
        joined(lambda part: part.high),
        joined(lambda part: part.last_at),
        joined(lambda part: part.last),
        joined(lambda part: part.grade),
        joined(lambda part: part.reasons),
    )
    order = np.lexsort((whole.last_at, whole.start))  # stable: ends each window with its latest value
    return _reduce(Windows(*(getattr(whole, name)[order] for name in Windows.__dataclass_fields__)))


def _reduce(rows: Windows) -> Windows:
    """Rows of equal start, which stand together in order of `last_at`, become one."""
    if not len(rows):
        return rows
    begins = np.flatnonzero(np.concatenate([[True], rows.start[1:] != rows.start[:-1]]))
    ends = np.append(begins[1:], len(rows)) - 1
    return Windows(
        rows.start[begins],
        np.add.reduceat(rows.count, begins),
        np.add.reduceat(rows.total, begins),
        np.minimum.reduceat(rows.low, begins),
        np.maximum.reduceat(rows.high, begins),
        rows.last_at[ends],
        rows.last[ends],
        np.minimum.reduceat(rows.grade, begins),
        np.bitwise_or.reduceat(rows.reasons, begins),
    )
