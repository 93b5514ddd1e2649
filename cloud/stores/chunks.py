"""One column of readings as bytes: a landed chunk of one series of one batch, or a packed one of many.

    blob, first, last = encode(series)  # as it lands, fast: 100 readings at even steps take 0.8 kB
    column = decode(blob)               # times int64 µs, values float64, quality int32, what was replaced
    blob = pack(join(columns))          # for good, small: 3,600 readings of a usual sensor take 1 to 2 bytes each

A chunk is little-endian on every machine: a header (version, flags, rows, first time, step), then times
(nothing when evenly spaced, else uint32 offsets, else int64), values (float64), quality (one number when all
are alike, else int32) and, sparse, the raw values that cleaning replaced. In a packed chunk (version 2) times and
values are as `packed` makes them and mixed quality is zlib. `encode` refuses with BadRows what cannot be a row;
`decode` answers StoreError to a damaged chunk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cloud.stores.packed import pack_floats, pack_ints, unpack_floats, unpack_ints
from messages.contracts import Series
from messages.errors import BadRows, StoreError

Times = NDArray[np.int64]
Values = NDArray[np.float64]
Qualities = NDArray[np.int32]

LATEST_TIME = 2**53 - 1
"""Largest time, µs since 1970 UTC: beyond it, floats and other stores lose microseconds."""

_HEADER = struct.Struct("<BBxxIqq")  # version, flags, rows, first time, step
_ONE_QUALITY = struct.Struct("<i")
_RAW_COUNT = struct.Struct("<I")
_LANDED, _PACKED = 1, 2
_EVEN, _OFFSETS, _ONE, _RAW = 1, 2, 4, 8
_PLAIN = bytes([_LANDED, _EVEN | _ONE])
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

    def rows(self, begin: int, end: int) -> Column:
        """The rows begin to end, end outside."""
        if begin == 0 and end == len(self):
            return self
        inside = (self.replaced >= begin) & (self.replaced < end)
        return Column(
            self.times[begin:end],
            self.values[begin:end],
            self.quality[begin:end],
            self.replaced[inside] - begin,
            self.raw[inside],
        )


def encode(series: Series) -> tuple[bytes, int, int]:
    """The chunk of `series`, its first and its last time; BadRows says which rule its rows break."""
    at, n = series.at, len(series.at)
    first, last = series.t0 + at[0], series.t0 + at[-1]
    if first < 0 or last > LATEST_TIME:
        raise BadRows(f"times {first} to {last} µs are outside 1970 to 2255")
    quality = series.quality
    some = (quality,) if isinstance(quality, int) else set(quality)
    least, worst = min(some), max(some)
    if least < 0 or worst >= _QUALITY_LIMIT:
        raise BadRows(f"quality {least if least < 0 else worst} is outside 0 to 2^31-1")
    # Packed from lists by `struct`: numpy takes three times as long at this length.
    flags, step, parts = 0, 0, [b""]
    if n == 1 or _even(at):
        flags |= _EVEN
        step = at[1] - at[0] if n > 1 else 0
    elif last - first < 2**32:
        flags |= _OFFSETS
        parts.append(_many("I", n).pack(*(at if at[0] == 0 else [one - at[0] for one in at])))
    else:
        parts.append(_many("q", n).pack(*[series.t0 + one for one in at]))
    parts.append(_many("d", n).pack(*series.value))
    if least == worst:
        flags |= _ONE
        parts.append(_ONE_QUALITY.pack(worst))
    else:
        parts.append(_many("i", n).pack(*quality))  # type: ignore[misc]
    if series.raw:
        flags |= _RAW
        replaced = sorted(series.raw)
        said = [np.nan if series.raw[index] is None else series.raw[index] for index in replaced]
        k = len(replaced)
        parts += [_RAW_COUNT.pack(k), _many("I", k).pack(*replaced), _many("d", k).pack(*said)]
    parts[0] = _HEADER.pack(_LANDED, flags, n, first, step)
    return b"".join(parts), first, last


def pack(column: Column) -> bytes:
    """The packed chunk of a column whose times ascend, at least one row; `decode` gives every bit of it back."""
    times, n = column.times, len(column)
    flags, step, parts = 0, 0, [b""]
    steps = times[1:] - times[:-1]
    if n == 1 or (steps == steps[0]).all():
        flags |= _EVEN
        step = int(steps[0]) if n > 1 else 0
    else:
        step = int(np.gcd.reduce(steps))  # of the clock: what the offsets are multiples of
        parts.append(pack_ints((times - times[0]) // step))
    parts.append(pack_floats(column.values))
    if (column.quality == column.quality[0]).all():
        flags |= _ONE
        parts.append(_ONE_QUALITY.pack(column.quality[0]))
    else:
        shut = zlib.compress(column.quality.astype("<i4").tobytes(), 1)
        parts += [_RAW_COUNT.pack(len(shut)), shut]
    if len(column.replaced):
        flags |= _RAW
        parts += [
            _RAW_COUNT.pack(len(column.replaced)),
            column.replaced.astype("<u4").tobytes(),
            column.raw.astype("<f8").tobytes(),
        ]
    parts[0] = _HEADER.pack(_PACKED, flags, n, int(times[0]), step)
    return b"".join(parts)


def decode(blob: bytes) -> Column:
    """The column in `blob`; its arrays may share the blob's memory and are not to be written to."""
    try:
        version, flags, n, first, step = _HEADER.unpack_from(blob)
        if version == _LANDED:
            times, values, quality, place = _landed(blob, flags, n, first, step)
        elif version == _PACKED:
            times, values, quality, place = _unpacked(blob, flags, n, first, step)
        else:
            raise StoreError(f"a chunk of version {version}: this Shoal reads {_LANDED} and {_PACKED}; use a newer one")
        replaced, raw = np.empty(0, np.int64), np.empty(0, np.float64)
        if flags & _RAW:
            (k,) = _RAW_COUNT.unpack_from(blob, place)
            replaced = np.frombuffer(blob, "<u4", k, place + 4).astype(np.int64)
            raw = np.frombuffer(blob, "<f8", k, place + 4 + 4 * k).astype(np.float64, copy=False)
    except (struct.error, ValueError, zlib.error) as error:
        raise StoreError(f"a chunk is damaged ({error}): restore the store from a copy") from None
    return Column(times, values, quality, replaced, raw)


def gather(blobs: Sequence[bytes]) -> Column:
    """The same as joining what `decode` makes of each; landed chunks of the plainest kind are read together."""
    columns: list[Column] = []
    plain: list[bytes] = []
    for blob in blobs:
        if blob[:2] == _PLAIN and len(blob) >= _HEADER.size:
            plain.append(blob)
        else:
            if plain:
                columns.append(_together(plain))
                plain = []
            columns.append(decode(blob))
    if plain:
        columns.append(_together(plain))
    return join(columns)


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
    return column.rows(low, max(low, high))


def _together(blobs: list[bytes]) -> Column:
    """Landed chunks with even times, one quality and nothing replaced, one after the other."""
    heads = np.array([_HEADER.unpack_from(blob)[2:] for blob in blobs], np.int64)
    n, first, step = heads.T
    if any(len(blob) != _HEADER.size + 8 * rows + 4 for blob, rows in zip(blobs, n.tolist(), strict=True)):
        raise StoreError("a chunk is damaged (its length): restore the store from a copy")
    begins = np.cumsum(n) - n
    within = np.arange(int(n.sum())) - np.repeat(begins, n)
    values = np.frombuffer(b"".join([blob[_HEADER.size : -4] for blob in blobs]), "<f8")
    quality = np.frombuffer(b"".join([blob[-4:] for blob in blobs]), "<i4")
    return Column(
        np.repeat(first, n) + np.repeat(step, n) * within,
        values.astype(np.float64, copy=False),
        np.repeat(quality.astype(np.int32, copy=False), n),
        np.empty(0, np.int64),
        np.empty(0, np.float64),
    )


def _landed(blob: bytes, flags: int, n: int, first: int, step: int) -> tuple[Times, Values, Qualities, int]:
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
        return times, values, np.full(n, _ONE_QUALITY.unpack_from(blob, place)[0], np.int32), place + 4
    return times, values, np.frombuffer(blob, "<i4", n, place).astype(np.int32, copy=False), place + 4 * n


def _unpacked(blob: bytes, flags: int, n: int, first: int, step: int) -> tuple[Times, Values, Qualities, int]:
    place = _HEADER.size
    if flags & _EVEN:
        times = first + step * np.arange(n, dtype=np.int64)
    else:
        offsets, place = unpack_ints(blob, place, n)
        times = first + step * offsets
    values, place = unpack_floats(blob, place, n)
    if flags & _ONE:
        return times, values, np.full(n, _ONE_QUALITY.unpack_from(blob, place)[0], np.int32), place + 4
    (size,) = _RAW_COUNT.unpack_from(blob, place)
    place += 4
    quality = np.frombuffer(zlib.decompressobj().decompress(blob[place : place + size], 4 * n + 1), "<i4")
    if len(quality) != n:
        raise ValueError("quality of another length")
    return times, values, quality.astype(np.int32, copy=False), place + size


def _even(at: list[int]) -> bool:
    """Whether the offsets are evenly spaced. To compare with a list that is at hand costs least, and says no early."""
    n, begin = len(at), at[0]
    step = at[1] - begin
    if at[-1] - begin != step * (n - 1):
        return False
    return at == (_ticks(n, step) if begin == 0 else list(range(begin, at[-1] + 1, step)))


@lru_cache(maxsize=16)
def _ticks(n: int, step: int) -> list[int]:
    return list(range(0, n * step, step))


@lru_cache(maxsize=1024)
def _many(code: str, n: int) -> struct.Struct:
    return struct.Struct(f"<{n}{code}")


def _ascending(times: Times) -> bool:
    return bool(np.all(times[1:] >= times[:-1]))
