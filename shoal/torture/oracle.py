"""The oracle: what devices produced, written by the producers before they send it. The system never sees this file.

One JSON array per line and burst:

    ["press-1", "press", "0a1b2c3d", 7, "rows", [t, …], {"power_kw": ["kW", [1.5, null, …]], …}, [[t, "part", "tag-3"]]]

device, node, boot, seq; what must become of it (`rows`, or the reason it must be rejected with); the device's own
times in µs since 1970; per metric the unit and the values as sent; its events, as time, kind of the record that must
come of it, and what that must say. About 14 bytes per reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

ROWS = "rows"
"""Sound bursts: each of their readings becomes a row or is rejected by cleaning with a reason."""

Column = tuple[str, list[float | None]]
"""unit, values"""
Told = tuple[int, str, str]
"""time, kind of the record, what it says"""


@dataclass(frozen=True, slots=True)
class Produced:
    """One burst as its device meant it."""

    device: str
    node: str
    boot: str
    seq: int
    fate: str
    at: list[int]
    columns: dict[str, Column]
    events: list[Told] = field(default_factory=list)

    @property
    def readings(self) -> int:
        """Cells of all columns."""
        return len(self.at) * len(self.columns)


class Oracle:
    """Appends to one producer's file. Producers are no victims, so what the operating system has is safe."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, one: Produced) -> None:
        """Append one burst; before it is sent it must be flushed."""
        fields = [one.device, one.node, one.boot, one.seq, one.fate, one.at, one.columns, one.events]
        self._file.write(json.dumps(fields, separators=(",", ":")).encode() + b"\n")

    def flush(self) -> None:
        """Hand it to the operating system."""
        self._file.flush()


def read(path: Path) -> Iterator[Produced]:
    """The bursts of one file, in the order in which they were cut."""
    with path.open("rb") as lines:
        for line in lines:
            yield Produced(*json.loads(line))
