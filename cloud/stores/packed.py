"""Numbers in few bytes, exactly: what sensors say has few decimals, and clocks tick evenly.

    blob = pack_floats(values)                 # about 2 bytes per value with 3 decimals, 1 with fewer; never wrong
    values, place = unpack_floats(blob, 0, n)  # the same bits
    blob = pack_ints(numbers)                  # int64, as offsets or steps of the least width

Floats that are decimals of at most `DECIMALS` places, up to `ODD` of them excepted, are kept as integers; those a
single-precision sensor sent take 4 bytes; all others stay as they are. Numbers of which most repeat their neighbour
(states, steps of a clock) go through zlib; on noise that would cost five times all the rest and gain nothing.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECIMALS = 9
"""Most decimal places looked for."""
ODD = 8
"""One value in so many may be no such decimal and is kept beside the others."""

_RAW, _SINGLE, _DECIMAL = 0, 1, 2
_FLOATS = struct.Struct("<BBI")  # kind, decimals, odd ones
_INTS = struct.Struct("<BBIqq")  # width in bytes, steps or offsets and zlib or not, bytes, first number, least
_STEPS, _ZLIB = 1, 2
_SAMPLE = 64
_EXACT = 2.0**53
_TENS = [10.0**k for k in range(DECIMALS + 1)]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def pack_floats(values: Floats) -> bytes:
    """`values` (n,), at least one, as bytes."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not the same and stays as it is
        return _packed(values)


def unpack_floats(blob: bytes, place: int, n: int) -> tuple[Floats, int]:
    """The n floats that begin at `place`, and where they end."""
    kind, places, odd = _FLOATS.unpack_from(blob, place)
    place += _FLOATS.size
    if kind == _RAW:
        return np.frombuffer(blob, "<f8", n, place).astype(np.float64, copy=False), place + 8 * n
    if kind == _SINGLE:
        return np.frombuffer(blob, "<f4", n, place).astype(np.float64), place + 4 * n
    if kind != _DECIMAL or places > DECIMALS:
        raise ValueError(f"floats of kind {kind}")
    numbers, place = unpack_ints(blob, place, n)
    values = numbers / _TENS[places]
    if odd:
        where = np.frombuffer(blob, "<u4", odd, place)
        place += 4 * odd
        if int(where.max()) >= n:
            raise ValueError("an exception beyond the end")
        values[where] = np.frombuffer(blob, "<f8", odd, place)
        place += 8 * odd
    return values, place


def pack_ints(numbers: Ints) -> bytes:
    """`numbers` (n,), at least one, as bytes. They lie within ±2^53."""
    low = int(numbers.min())
    width, flags = _width(int(numbers.max()) - low), 0
    above = numbers - low
    if width > 1 and len(numbers) > 1:
        steps = numbers[1:] - numbers[:-1]
        least = int(steps.min())
        narrow = _width(int(steps.max()) - least)
        if narrow < width:
            width, flags, low, above = narrow, _STEPS, least, steps - least
    body = above.astype(f"<u{width}").tobytes() if width else b""
    if len(above) > _SAMPLE and 2 * np.count_nonzero(above[1:] == above[:-1]) > len(above):
        body, flags = zlib.compress(body, 1), flags | _ZLIB
    return _INTS.pack(width, flags, len(body), int(numbers[0]), low) + body


def unpack_ints(blob: bytes, place: int, n: int) -> tuple[Ints, int]:
    """The n numbers that begin at `place`, and where they end."""
    width, flags, size, first, low = _INTS.unpack_from(blob, place)
    place += _INTS.size
    end = place + size
    count = n - 1 if flags & _STEPS else n
    body: Any = memoryview(blob)[place:end]
    if flags & _ZLIB:
        inflate = zlib.decompressobj()
        body = inflate.decompress(body, width * count + 1)
    if len(body) != width * count or width not in (0, 1, 2, 4, 8):
        raise ValueError("numbers of another length")
    above = np.frombuffer(body, f"<u{width}").astype(np.int64) if width else np.zeros(count, np.int64)
    above += low
    if not flags & _STEPS:
        return above, end
    numbers = np.empty(n, np.int64)
    numbers[0] = first
    np.cumsum(above, out=numbers[1:])
    numbers[1:] += first
    return numbers, end


def _packed(values: Floats) -> bytes:
    places = _places(values)
    if places is not None:
        scaled = np.rint(values * _TENS[places]) + 0.0  # never -0.0, which no integer is
        odd = np.flatnonzero(~_same(scaled / _TENS[places], values) | ~(np.abs(scaled) < _EXACT))
        if len(odd) <= len(values) // ODD:
            if len(odd):
                sound = np.ones(len(values), bool)
                sound[odd] = False
                scaled[odd] = scaled[np.argmax(sound)]
            body = pack_ints(scaled.astype(np.int64))
            beside = odd.astype("<u4").tobytes() + values[odd].astype("<f8").tobytes()
            return _FLOATS.pack(_DECIMAL, places, len(odd)) + body + beside
    single = values.astype("<f4")
    if _same(single.astype(np.float64), values).all():
        return _FLOATS.pack(_SINGLE, 0, 0) + single.tobytes()
    return _FLOATS.pack(_RAW, 0, 0) + values.astype("<f8", copy=False).tobytes()


def _places(values: Floats) -> int | None:
    """The fewest decimal places that nearly all of a sample have."""
    sample = values[:: max(1, len(values) // _SAMPLE)]
    enough = len(sample) - len(sample) // ODD
    for places, ten in enumerate(_TENS):
        scaled = np.rint(sample * ten) + 0.0
        if np.count_nonzero(_same(scaled / ten, sample) & (np.abs(scaled) < _EXACT)) >= enough:
            return places
    return None


def _same(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Which are equal to the bit: -0.0 is not 0.0, and NaN is NaN."""
    same: NDArray[np.bool_] = a.view(np.int64) == b.view(np.int64)
    return same


def _width(span: int) -> int:
    """Bytes that hold 0 to `span`."""
    return 0 if span == 0 else 1 if span < 2**8 else 2 if span < 2**16 else 4 if span < 2**32 else 8
