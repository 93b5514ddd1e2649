"""What can still be read of a burst that breaks its contract: enough to count it once and to say `Taken`.

    name = Name.of(payload)          # None: nobody can say which burst this was

A device that keeps its bursts would send a broken one for ever if nobody told it that it may forget it. Only
`boot` and `seq` are needed for that. The cells are counted where they can be, and never more than the device can
have meant; the rest is told by the count (`first`) of the burst that follows. Bytes that end too early are read as
far as they go, apart from their last field, whose value may be cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from messages.contracts import Burst, Count, Mint, Seq
from messages.message import MAX_BYTES

_MINT: TypeAdapter[str] = TypeAdapter(Mint)
_SEQ: TypeAdapter[int] = TypeAdapter(Seq)
_MOST: int = TypeAdapter(Count).json_schema()["maximum"]


@dataclass(frozen=True)
class Name:
    """Which burst of which boot, what the device counted before it, and how many readings are in it."""

    boot: str
    seq: int
    floor: int | None
    first: int | None
    readings: int

    @classmethod
    def of(cls, payload: bytes) -> Name | None:
        """Of bytes that are no Burst; None where boot or seq cannot be read."""
        found = _object(payload)
        try:
            boot, seq = _MINT.validate_python(found.get("boot")), _SEQ.validate_python(found.get("seq"))
        except ValidationError:
            return None
        floor = _number(found.get("floor"))
        # A floor above the burst itself would declare lost what the device still holds.
        floor = None if floor is None else min(floor, seq)
        return cls(boot, seq, floor, _number(found.get("first")), _cells(found))

    @classmethod
    def of_burst(cls, burst: Burst) -> Name:
        """Of a sound burst that nobody here wants."""
        return cls(burst.boot, burst.seq, burst.floor, burst.first, burst.readings)


def _object(payload: bytes) -> dict[str, object]:
    if len(payload) > MAX_BYTES:
        return {}
    text = payload.decode(errors="replace")
    try:
        found = from_json(text)
    except ValueError:
        try:
            found = from_json(text, allow_partial=True)
        except ValueError:
            return {}
        if isinstance(found, dict) and found:
            found.popitem()
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int | None:
    try:
        return _SEQ.validate_python(value)
    except ValidationError:
        return None


def _cells(found: dict[str, object]) -> int:
    """Values that are there, and no more than samples × columns: a device counts the one or the other."""
    columns, at = found.get("columns"), found.get("at")
    if not isinstance(columns, dict):
        return 0
    there = sum(len(column) for column in columns.values() if isinstance(column, list))
    return min(there, _MOST, len(at) * len(columns) if isinstance(at, list) else there)
