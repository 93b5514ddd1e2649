"""What stands in a foreign payload: places in JSON, numbers as people write them, times. Pure.

    find(parse_path("params.switch:0.apower"), body)      # the value there, or ABSENT
    find(parse_path("samples[*].p"), body)                # a list, one entry per element
    parse_number("23,5 °C", decimal=",")                  # (23.5, "°C")
    Stamp("iso", zone="Europe/Berlin").micros("2026-01-01T00:00:00", near=arrival)

What cannot be read is an Unreadable that says what stands there. Nothing is guessed: a decimal comma, a zone and a
format are stated, because 1,234 and a local time have two meanings.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from pydantic_core import from_json

from messages.message import MAX_BYTES


class Absent(Enum):
    """Nothing stands at the place."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

EARLIEST_US = 946_684_800_000_000
"""2000-01-01: a device that says an earlier time has not set its clock."""
LATEST_US = 2**53 - 1

Step = str | int | tuple[str, str] | None
"""A key, an index, the element whose key has a value, or None for every element."""


class Unreadable(ValueError):
    """What stands there is not what was described."""


def read_json(payload: bytes) -> object:
    """The JSON in `payload`; NaN and infinities are read, as firmware writes them."""
    if len(payload) > MAX_BYTES:
        raise Unreadable(f"{len(payload)} bytes, at most {MAX_BYTES} are read")
    try:
        return from_json(payload.removeprefix(BOM_UTF8))
    except ValueError as error:
        raise Unreadable(f"not JSON: {error}") from None


def read_text(payload: bytes) -> str:
    """The text in `payload`, without white space around it."""
    if len(payload) > MAX_BYTES:
        raise Unreadable(f"{len(payload)} bytes, at most {MAX_BYTES} are read")
    try:
        return payload.removeprefix(BOM_UTF8).decode().strip()
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start}") from None


# --- places -----------------------------------------------------------------------------------------

_KEY = re.compile(r'"((?:[^"\\]|\\["\\])+)"|([^."\[\]]+)')
_INDEX = re.compile(r"\[(\*|[0-9]{1,6})\]")
_WHERE = re.compile(r'\[([^=\[\]"]+)=(?:"([^"]*)"|([^"\[\]]*))\]')


def parse_path(text: str) -> tuple[Step, ...]:
    """Steps of `a.b[0].c` or `values[id=pump 1].v`; keys with dots stand in double quotes. ValueError with the cure.

    >>> parse_path('samples[*]."a.b"')
    ('samples', None, 'a.b')
    """
    steps: list[Step] = []
    at = 0
    while at < len(text) or not steps:
        if index := _INDEX.match(text, at):
            steps.append(None if index[1] == "*" else int(index[1]))
            at = index.end()
            continue
        if where := _WHERE.match(text, at):
            steps.append((where[1], where[2] if where[2] is not None else where[3]))
            at = where.end()
            continue
        key = _KEY.match(text, at + 1 if steps else 0)
        if key is None or (steps and text[at] != "."):
            cure = 'write a.b[0].c, [*] for each element, [id=x] for one of them, "a.b" for a key with a dot'
            raise ValueError(f"path {text!r} breaks off at {text[at:]!r}: {cure}")
        steps.append(re.sub(r"\\(.)", r"\1", key[1]) if key[1] else key[2])
        at = key.end()
    if steps.count(None) > 1:
        raise ValueError(f"path {text!r}: [*] once at most")
    return tuple(steps)


def find(steps: tuple[Step, ...], body: object) -> object:
    """What stands at the place: a list for `[*]` (ABSENT where an element lacks the rest), ABSENT if nothing does."""
    for n, step in enumerate(steps):
        if isinstance(step, str):
            if not isinstance(body, dict) or step not in body:
                return ABSENT
            body = body[step]
            continue
        if not isinstance(body, list):
            return ABSENT
        if step is None:
            rest = steps[n + 1 :]
            return [find(rest, one) for one in body] if rest else body
        if isinstance(step, int):
            body = body[step] if step < len(body) else ABSENT
        else:
            key, value = step
            body = next((one for one in body if isinstance(one, dict) and str(one.get(key)) == value), ABSENT)
    return body


def shown(value: object) -> str:
    """A value in an error text."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# --- numbers ----------------------------------------------------------------------------------------


def _number_with(mark: str) -> re.Pattern[str]:
    digits = rf"[0-9]+(?:{re.escape(mark)}[0-9]*)?|{re.escape(mark)}[0-9]+"
    return re.compile(rf"([+-]?(?:{digits})(?:[eE][+-]?[0-9]+)?)\s*((?:[^0-9\s.,].*)?)")


_NUMBER = {mark: _number_with(mark) for mark in ".,"}


def parse_number(text: str, decimal: str) -> tuple[float, str]:
    """The number at the beginning of `text` and the unit after it, which may be empty.

    >>> parse_number("-1,5 kW", ",")
    (-1.5, 'kW')
    """
    found = _NUMBER[decimal].fullmatch(text.strip().replace("−", "-"))
    if found is None:
        other = "." if decimal == "," else ","
        cure = f"; give decimal = {other!r}" if _NUMBER[other].fullmatch(text.strip()) else ""
        raise Unreadable(f"{shown(text)} is no number{cure}")
    return float(found[1].replace(",", ".")), found[2].strip()


# --- times ------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_PER_UNIT = {"unix_s": 1e6, "unix_ms": 1e3, "unix_us": 1.0}
_TRIED = datetime(2024, 10, 23, 17, 38, tzinfo=UTC)


@dataclass(frozen=True)
class Stamp:
    """How a payload writes its times: `iso`, `unix_s`, `unix_ms`, `unix_us`, or a strptime format."""

    format: str
    zone: str | None = None

    def check(self) -> None:
        """ValueError with the cure when no time could be read this way."""
        if self.zone is not None:
            _zone(self.zone)
        if self.format in _PER_UNIT:
            if self.zone is not None:
                raise ValueError(f"zone={self.zone!r}: {self.format} is UTC by itself; leave the zone out")
        elif self.format != "iso":
            cure = "use iso, unix_s, unix_ms, unix_us or a pattern such as %Y-%m-%d %H:%M:%S"
            if "%" not in self.format:
                raise ValueError(f"format={self.format!r}: {cure}")
            try:
                again = datetime.strptime(_TRIED.strftime(self.format), self.format)
            except ValueError as error:
                raise ValueError(f"format={self.format!r}: {error}; {cure}") from None
            if again.replace(tzinfo=UTC, second=0) != _TRIED:
                raise ValueError(f"format={self.format!r} does not say day, hour and minute; {cure}")

    def micros(self, value: object, near: int) -> int:
        """µs since 1970 UTC; a local time that the clock showed twice is the one closer to `near`."""
        scale = _PER_UNIT.get(self.format)
        at = self._from_text(value, near) if scale is None else self._from_number(value, scale)
        if at < EARLIEST_US:
            raise Unreadable(f"{shown(value)} lies before 2000: its clock is not set; set it, or leave `time` out")
        if at > LATEST_US:
            raise Unreadable(f"{shown(value)} lies after 2255: is the format {self.format!r} right?")
        return at

    def _from_number(self, value: object, scale: float) -> int:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise Unreadable(f"{shown(value)} is no {self.format} time") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unreadable(f"{shown(value)} is no {self.format} time")
        try:
            return round(value * scale)
        except (OverflowError, ValueError):  # infinite, or not a number
            raise Unreadable(f"{shown(value)} is no {self.format} time") from None

    def _from_text(self, value: object, near: int) -> int:
        if not isinstance(value, str):
            raise Unreadable(f"{shown(value)} is no text, as format {self.format!r} has it; unix_s or unix_ms?")
        try:
            when = datetime.fromisoformat(value) if self.format == "iso" else datetime.strptime(value, self.format)
        except ValueError:
            raise Unreadable(f"{shown(value)} is no {self.format} time") from None
        if self.format == "iso" and len(value) <= 10:
            raise Unreadable(f"{shown(value)} says a day, not a time")
        if when.tzinfo is not None:
            return (when - _EPOCH) // _US
        if self.zone is None:
            raise Unreadable(f'{shown(value)} does not say its zone: give zone = "Europe/Berlin" or "UTC"')
        both = [(when.replace(tzinfo=_zone(self.zone), fold=fold) - _EPOCH) // _US for fold in (0, 1)]
        return min(both, key=lambda at: abs(at - near))


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # also where no table of zones is installed
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        cure = 'write one as in "Europe/Berlin", or "UTC"; where none is known, install tzdata'
        raise ValueError(f"zone={name!r} is not known here: {cure}") from None
