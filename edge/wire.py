"""Protocol Buffers read by hand: the fields of one message, strictly, without a parser and without copies.

    fields = read(view, MODEL, "model")     # {"graph": [<memoryview>], "ir_version": [8], …}

A schema says which field numbers a message may have, of which kind, and how often. What is not in it is refused, and so
is what two parsers could read differently: a single field given twice, groups, numbers spelt longer than they need to
be, a length that ends beyond the message. Bounds: `times` per field and message, `MAX_TEXT` bytes of a text; the depth
is that of the caller's schemas, for nothing here calls itself.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from messages.errors import BadMessage

MAX_TEXT = 4096
"""Bytes of a name or a note."""

Value: TypeAlias = int | float | str | memoryview
Fields: TypeAlias = dict[str, list[Value]]


class Field(NamedTuple):
    """One field that is read: an integer, a 32-bit float, a text, bytes, or numbers packed into bytes.

    One that is `never` read has, for its name, what to tell whoever made the file.
    """

    name: str
    kind: Literal["int", "float", "text", "bytes", "ints", "floats", "never"]
    times: int = 1


_WIRE = {"int": 0, "float": 5, "text": 2, "bytes": 2, "ints": 2, "floats": 2}


def read(data: memoryview, schema: Mapping[int, Field], what: str) -> Fields:
    """The fields of a message; BadMessage if it has others, or too many, or ends within one.

    Repeated numbers (`ints`, `floats`) may come one by one or packed; `times` bounds them together.
    """
    found: Fields = {field.name: [] for field in schema.values() if field.kind != "never"}
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at, what)
        field = schema.get(key >> 3)
        if field is None:
            raise BadMessage(f"{what}: field {key >> 3} is not read here; export it without")
        if field.kind == "never":
            raise BadMessage(f"{what}: {field.name}")
        values, wire = found[field.name], key & 7
        if wire == 0 and field.kind in ("int", "ints"):
            number, at = _varint(data, at, what)
            values.append(_signed(number))
        elif wire == 5 and field.kind in ("float", "floats"):
            if end - at < 4:
                raise BadMessage(f"{what}.{field.name}: cut short")
            values.append(struct.unpack_from("<f", data, at)[0])
            at += 4
        elif wire == 2 == _WIRE[field.kind]:
            size, at = _varint(data, at, what)
            if size > end - at:
                raise BadMessage(f"{what}.{field.name}: ends {size - (end - at)} bytes beyond the message")
            values.extend(_inside(data[at : at + size], field, what))
            at += size
        else:
            raise BadMessage(f"{what}.{field.name}: wire type {wire} does not fit")
        if len(values) > field.times:
            raise BadMessage(f"{what}.{field.name}: given more than {field.times} times")
    return found


def _inside(data: memoryview, field: Field, what: str) -> list[Value]:
    if field.kind == "bytes":
        return [data]
    if field.kind == "text":
        if len(data) > MAX_TEXT:
            raise BadMessage(f"{what}.{field.name}: {len(data)} bytes, at most {MAX_TEXT}")
        try:
            return [str(data, "utf-8")]
        except UnicodeDecodeError:
            raise BadMessage(f"{what}.{field.name}: not UTF-8") from None
    if field.kind == "floats":
        if len(data) % 4 or len(data) // 4 > field.times:
            raise BadMessage(f"{what}.{field.name}: {len(data)} bytes are not up to {field.times} floats")
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    if len(data) > 10 * field.times:
        raise BadMessage(f"{what}.{field.name}: more than {field.times} numbers")
    numbers: list[Value] = []
    at = 0
    while at < len(data):
        number, at = _varint(data, at, what)
        numbers.append(_signed(number))
    return numbers


def _varint(data: memoryview, at: int, what: str) -> tuple[int, int]:
    number = 0
    for k in range(10):
        if at >= len(data):
            raise BadMessage(f"{what}: cut short")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            if (k and not byte) or number >= 1 << 64:
                break
            return number, at
    raise BadMessage(f"{what}: a number is spelt longer than 64 bits need")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
