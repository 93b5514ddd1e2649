"""One column of readings as bytes: what the store keeps for one series of one batch.

    blob = encode(series)              # 100 readings at even steps: about 0.9 kB
    column = decode(blob)              # times int64 µs, values float64, quality int32, what was replaced

A chunk is little-endian on every machine: a header (version, flags, rows, first time, step), then times
(nothing when evenly spaced, else uint32 offsets, else int64), values (float64), quality (nothing when all
are alike, else int32) and, sparse, the raw values that cleaning replaced. `encode` refuses with BadRows what
cannot be a row; `decode` answers StoreError to a damaged chunk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from messages.contracts import Series
from messages.errors import BadRows, StoreError

Times = NDArray[np.int64]
Values = NDArray[np.float64]
Qualities = NDArray[np.int32]

LATEST_TIME = 2**53 - 1
"""Largest time, µs since 1970 UTC: beyond it, floats and other stores lose microseconds."""

_HEADER = struct.Struct("<BBxxIqq")  # version, flags, rows, first time, step or the one quality's companion
_ONE_QUALITY = struct.Struct("<i")
_RAW_COUNT = struct.Struct("<I")
_VERSION = 1
_EVEN, _OFFSETS, _ONE, _RAW = 1, 2, 4, 8
_QUALITY_LIMIT = 2**31


@dataclass(frozen=True)
class Column:
    """Readings of one series, n rows."""

    times: Times
    """(n,) µs since 1970 UTC, ascending within a chunk"""
    values: Values
    """(n,) in the unit of the series"""
    quality: Qualities
    """(n,) see messages.quality"""
    replaced: NDArray[np.int64]
    """(k,) rows whose value cleaning replaced"""
    raw: Values
    """(k,) what the sensor said there; NaN: nothing"""

    def __len__(self) -> int:
        return len(self.times)


def encode(series: Series) -> tuple[bytes, int, int]:
    """The chunk of `series`, its first and its last time; BadRows says which rule its rows break."""
    at, n = series.at, len(series.at)
    first, last = series.t0 + at[0], series.t0 + at[-1]
    if first < 0 or last > LATEST_TIME:
        raise BadRows(f"times {first} to {last} µs are outside 1970 to 2255")
    quality = series.quality
    worst = quality if isinstance(quality, int) else max(quality)
    least = quality if isinstance(quality, int) else min(quality)
    if least < 0 or worst >= _QUALITY_LIMIT:
        raise BadRows(f"quality {least if least < 0 else worst} is outside 0 to 2^31-1")
    flags, step = 0, 0
    parts = [b""]
    if n == 1 or _even(at):
        flags |= _EVEN
        step = at[1] - at[0] if n > 1 else 0
    elif last - first < 2**32:
        flags |= _OFFSETS
        parts.append((np.array(at, "<i8") - at[0]).astype("<u4").tobytes())
    else:
        parts.append((np.array(at, "<i8") + series.t0).tobytes())
    parts.append(np.array(series.value, "<f8").tobytes())
    if least == worst:
        flags |= _ONE
        parts.append(_ONE_QUALITY.pack(worst))
    else:
        parts.append(np.array(quality, "<i4").tobytes())
    if series.raw:
        flags |= _RAW
        replaced = sorted(series.raw.items())
        said = [np.nan if value is None else value for _, value in replaced]
        parts += [
            _RAW_COUNT.pack(len(replaced)),
            np.array([index for index, _ in replaced], "<u4").tobytes(),
            np.array(said, "<f8").tobytes(),
        ]
    parts[0] = _HEADER.pack(_VERSION, flags, n, first, step)
    return b"".join(parts), first, last


def decode(blob: bytes) -> Column:
    """The column in `blob`; its arrays may share the blob's memory and are not to be written to."""
    try:
        version, flags, n, first, step = _HEADER.unpack_from(blob)
        if version != _VERSION:
            raise StoreError(f"a chunk of version {version}: this Shoal reads {_VERSION}; use a newer one")
        place = _HEADER.size
        if flags & _EVEN:
            times = first + step * np.arange(n, dtype=np.int64)
        elif flags & _OFFSETS:
            times = first + np.frombuffer(blob, "<u4", n, place).astype(np.int64)
            place += 4 * n
        else:
            times = np.frombuffer(blob, "<i8", n, place).astype(np.int64, copy=False)
            place += 8 * n
        values = np.frombuffer(blob, "<f8", n, place).astype(np.float64, copy=False)
        place += 8 * n
        if flags & _ONE:
            quality = np.full(n, _ONE_QUALITY.unpack_from(blob, place)[0], np.int32)
            place += 4
        else:
            quality = np.frombuffer(blob, "<i4", n, place).astype(np.int32, copy=False)
            place += 4 * n
        replaced, raw = np.empty(0, np.int64), np.empty(0, np.float64)
        if flags & _RAW:
            (k,) = _RAW_COUNT.unpack_from(blob, place)
            replaced = np.frombuffer(blob, "<u4", k, place + 4).astype(np.int64)
            raw = np.frombuffer(blob, "<f8", k, place + 4 + 4 * k).astype(np.float64, copy=False)
    except (struct.error, ValueError) as error:
        raise StoreError(f"a chunk is damaged ({error}): restore the store from a copy") from None
    return Column(times, values, quality, replaced, raw)


def join(columns: list[Column]) -> Column:
    """All rows of `columns` by time; of equal times, in the order given."""
    if len(columns) == 1 and _ascending(columns[0].times):
        return columns[0]
    if not columns:
        return Column(
            np.empty(0, np.int64), np.empty(0), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float64)
        )
    starts = np.cumsum([0, *(len(column) for column in columns[:-1])])
    times = np.concatenate([column.times for column in columns])
    values = np.concatenate([column.values for column in columns])
    quality = np.concatenate([column.quality for column in columns])
    replaced = np.concatenate([column.replaced + start for column, start in zip(columns, starts, strict=True)])
    raw = np.concatenate([column.raw for column in columns])
    if not _ascending(times):
        order = np.argsort(times, kind="stable")
        times, values, quality = times[order], values[order], quality[order]
        if len(replaced):
            new_place = np.empty(len(order), np.int64)
            new_place[order] = np.arange(len(order))
            replaced = new_place[replaced]
            by_place = np.argsort(replaced)
            replaced, raw = replaced[by_place], raw[by_place]
    return Column(times, values, quality, replaced, raw)


def cut(column: Column, start: int | None, end: int | None) -> Column:
    """The rows with start ≤ time < end of a column whose times ascend."""
    low = 0 if start is None else int(np.searchsorted(column.times, start, "left"))
    high = len(column) if end is None else int(np.searchsorted(column.times, end, "left"))
    if low == 0 and high == len(column):
        return column
    high = max(low, high)
    inside = (column.replaced >= low) & (column.replaced < high)
    return Column(
        column.times[low:high],
        column.values[low:high],
        column.quality[low:high],
        column.replaced[inside] - low,
        column.raw[inside],
    )


def _even(at: list[int]) -> bool:
    """Whether the offsets are evenly spaced; plain Python is the fastest way from a list, and says no early."""
    step = at[1] - at[0]
    return at[-1] - at[0] == step * (len(at) - 1) and at == list(range(at[0], at[-1] + 1, step))


def _ascending(times: Times) -> bool:
    return bool(np.all(times[1:] >= times[:-1]))
