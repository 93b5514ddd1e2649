"""Readings, records and observations as InfluxDB line protocol: the schema of dashboards.

    data = Writer().series(("ceramic", "firing"), series)   # a line per reading, µs; 0.1 to 0.2 µs of CPU each
    text = event(stored_record)                             # one line, ns
    text = observation(seen)                                # one line, µs

The schema is a stable face: docs/guides/store.md. Column-wise, with few Python operations per reading: numbers
become text in one call per column, and a series is one join. Every field has one type for ever (`value` is a
float even when whole), because InfluxDB refuses another one later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic_core import to_json

from cloud.stores.chunks import LATEST_TIME
from cloud.stores.seam import Observation, StoredRecord
from messages.contracts import Finished, Series
from messages.errors import BadRows
from messages.message import Message

QUALITY_LIMIT = 2**31
"""Quality is below: answers carry it as int32."""
INTEGER_LIMIT = 2**63
TEXT_LIMIT = 500
"""Characters of an event's line for people."""
SLOTS = 1_000
"""Nanoseconds of a microsecond: so many events of equal time are told apart."""

STRINGS = ("job", "state", "reason", "detail", "action", "lane", "metric")
INTEGERS = ("op", "plan_revision", "readings", "started_at", "repair_at")
FLOATS = ("energy_kwh",)
"""Fields of an event beside `kind`, `device` and `text`, by their type."""


class Writer:
    """Lines of series. Remembers the text of the last times: the metrics of a device share them."""

    def __init__(self) -> None:
        self._at: list[int] | None = None
        self._t0 = 0
        self._times: list[bytes] = []

    def series(self, place: tuple[str, str], series: Series) -> bytes:
        """A line per reading, each ended by a newline; `place` is site and node. Check the rows with `check` first."""
        n = len(series.at)
        tags = (("device", series.device), ("node", place[1]), ("site", place[0]))
        head = f"\n{_tagged(series.metric, tags)} value=".encode()
        quality = series.quality
        parts = [head] * (4 * n)
        parts[0] = head[1:]
        parts[1::4] = _texts(series.value)
        if isinstance(quality, int):
            parts[2::4] = [b",quality=%di " % quality] * n
        else:
            said = {one: b",quality=%di " % one for one in set(quality)}
            parts[2::4] = [said[one] for one in quality]
        for index, raw in series.raw.items():
            if raw is not None:
                parts[4 * index + 2] = b"%b,raw=%b " % (parts[4 * index + 2][:-1], repr(raw).encode())
        if series.at is not self._at or series.t0 != self._t0:
            t0 = series.t0
            self._times = _texts([t0 + at for at in series.at])
            self._at, self._t0 = series.at, t0
        parts[3::4] = self._times
        parts.append(b"\n")
        return b"".join(parts)


def check(series: Series) -> None:
    """BadRows says which rule of every store the rows of `series` break."""
    first, last = series.t0 + series.at[0], series.t0 + series.at[-1]
    if first < 0 or last > LATEST_TIME:
        raise BadRows(f"times {first} to {last} µs are outside 1970 to 2255")
    quality = (series.quality,) if isinstance(series.quality, int) else series.quality
    least, worst = min(quality), max(quality)
    if least < 0 or worst >= QUALITY_LIMIT:
        raise BadRows(f"quality {least if least < 0 else worst} is outside 0 to 2^31-1")


def event(stored: StoredRecord) -> str:
    """One line of measurement `event`, its time in nanoseconds: the record's, told apart by its place in the store."""
    body = stored.record.model_dump()
    fields: dict[str, str | int | float] = {"kind": stored.record.kind}
    device = body.get("machine") or body.get("device")
    if isinstance(device, str):
        fields["device"] = device
    fields |= {name: body[name] for name in STRINGS if isinstance(body.get(name), str)}
    fields |= {name: body[name] for name in INTEGERS if _is_int(body.get(name))}
    fields |= {name: float(body[name]) for name in FLOATS if isinstance(body.get(name), int | float)}
    fields["text"] = _for_people(stored.record, fields)
    at = stored.record.at * 1_000 + stored.cursor % SLOTS
    return f"{_tagged('event', (('node', stored.node), ('site', stored.site)))} {_fields(fields)} {at}\n"


def observation(seen: Observation) -> str:
    """One line, its time in µs; empty when nothing in it can be stored."""
    fields = {name: float(value) for name, value in seen.fields.items() if name and name != "time"}
    fields = {name: value for name, value in fields.items() if math.isfinite(value)}
    if not fields or not 0 <= seen.at <= LATEST_TIME:
        return ""
    return f"{_tagged(seen.measurement, seen.tags)} {_fields(fields)} {seen.at}\n"


# -- private -----------------------------------------------------------------------------------------------


def _texts(numbers: list[float] | list[int]) -> list[bytes]:
    """The shortest text of each number that is read back as the same: several times as fast as `repr`."""
    return to_json(numbers)[1:-1].split(b",")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -INTEGER_LIMIT <= value < INTEGER_LIMIT


def _tagged(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    """Names here are ids and metrics, which the contracts keep to `[a-z0-9_-]`; others are escaped."""
    named = "".join(f",{_name(key)}={_name(value)}" for key, value in sorted(tags))
    return _name(measurement) + named


def _fields(fields: Mapping[str, str | int | float]) -> str:
    return ",".join(f"{_name(name)}={_value(value)}" for name, value in fields.items())


def _value(value: str | int | float) -> str:
    if isinstance(value, str):
        escaped = value.replace("\n", " ").replace("\\", "\\\\").replace('"', '\\"')  # a row is a line
        return f'"{escaped}"'
    return f"{value}i" if isinstance(value, int) else repr(value)


def _name(name: str) -> str:
    """A measurement, tag or field name, or a tag's value. Backslashes and newlines cannot be said: replaced."""
    if name.isascii() and name.replace("_", "").replace("-", "").isalnum():
        return name
    name = "".join("_" if char in "\\\n\r" else char for char in name) or "_"
    return name.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def _for_people(record: Message, fields: Mapping[str, str | int | float]) -> str:
    """`finished b07 op 2 at firing-1`."""
    words = [str(fields["kind"])]
    if "state" in fields:
        words.append(str(fields["state"]))
    if "job" in fields:
        words.append(str(fields["job"]))
    if "op" in fields:
        words.append(f"op {fields['op']}")
    if "readings" in fields:
        words.append(f"{fields['readings']} readings")
    if "device" in fields:
        words.append(f"at {fields['device']}")
    if isinstance(record, Finished) and record.recovered:
        words.append("with " + ", ".join(f"{pieces} {name}" for name, pieces in record.recovered.items()))
    why = fields.get("reason") or fields.get("detail")
    if why:
        words.append(f"({why})")
    return " ".join(words)[:TEXT_LIMIT]
