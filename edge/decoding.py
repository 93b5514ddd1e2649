"""From a foreign message to samples of our devices, by the mapping. Pure, apart from counting what it found.

    decoder = Decoder(mapping, devices)
    decoded = decoder.decode(topic, payload, arrived_us=…)
    decoded.samples, decoded.problems, decoded.skipped

Promise: whatever the bytes, nothing is raised. Every mapped value that is there becomes a cell, in the unit of its
device's metric, or a problem that says what stood there; a message without one says why it was skipped. An element of
an array that cannot be read becomes a missing cell, so that the column keeps its length.
Bounds: `TOPICS` topics whose device is remembered (then the memory starts again), the payload (4 MiB).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.mapping import Mapping, MapRule, ValueRule
from edge.payload import ABSENT, Stamp, Step, Unreadable, find, parse_number, parse_path, read_json, read_text, shown
from edge.units import conversion
from messages.contracts import MAX_SAMPLES
from messages.errors import ConfigError
from messages.plant import Device, near
from messages.route import topic_id

TOPICS = 10_000
SILENT_AFTER = 100
"""Messages without a trace of a mapped value, after which it is worth a warning."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Values of one device at some times; columns as in a Burst."""

    device: str
    at: list[int]
    """µs since 1970 UTC"""
    columns: dict[str, list[float | None]]
    units: dict[str, str]

    @property
    def readings(self) -> int:
        """Cells."""
        return len(self.at) * len(self.columns)


@dataclass(frozen=True, slots=True)
class Problem:
    """Readings that could not be made; `readings` 0: their number is unknown, or they are missing cells."""

    device: str
    reason: str
    readings: int
    why: str


@dataclass(slots=True)
class Decoded:
    """What became of one message."""

    samples: list[Samples] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: str = ""
    """why it holds no reading at all, when that is nobody's fault"""


@dataclass(slots=True)
class _Column:
    """A value rule made ready for one device."""

    rule: ValueRule
    metric: str
    steps: tuple[Step, ...]
    many: bool
    unit: str
    gain: float
    bias: float
    """number × gain + bias is in the metric's unit"""
    words: dict[str, float]
    missing: frozenset[str]
    missing_numbers: frozenset[float]
    found: int = 0

    def value(self, given: object) -> float | None:
        """In the metric's unit; None when the sensor gave none."""
        gain, bias = self.gain, self.bias
        if isinstance(given, str):
            word = given.strip().casefold()
            if word in self.missing:
                return None
            if word in self.words:
                number = self.words[word]
            else:
                number, unit = parse_number(given, self.rule.decimal)
                if unit and unit != self.rule.unit:
                    gain, bias = self._from(unit, given)
        elif isinstance(given, bool):
            number = self.words.get("true" if given else "false", float(given))
        elif isinstance(given, int | float):
            try:
                number = float(given)
            except OverflowError:
                raise Unreadable(f"{shown(given)} is too large") from None
            if not math.isfinite(number):
                return None
        elif given is None:
            return None
        else:
            kind = (
                "an array: name an element, [0] or [*]" if isinstance(given, list) else "an object: name a field in it"
            )
            raise Unreadable(f"it is {kind}")
        if number in self.missing_numbers:
            return None
        number = _change(number, gain, bias)
        if not math.isfinite(number):
            raise Unreadable(f"{shown(given)} is too large")
        return number

    def _from(self, unit: str, given: str) -> tuple[float, float]:
        """The payload's own word for its unit goes before the file's."""
        change = conversion(unit, self.unit)
        if change is None:
            raise Unreadable(f"{shown(given)}: no way from {unit!r} to {self.unit!r}")
        return self.rule.scale * change[0], self.rule.offset * change[0] + change[1]


@dataclass(slots=True)
class _Target:
    """What is made of messages of one topic."""

    rule: MapRule
    device: str
    columns: list[_Column]
    unknown: list[ValueRule]
    """values whose metric this device does not have; only where devices are derived from the topic"""
    time: tuple[Step, ...]
    stamp: Stamp | None
    stranger: str = ""
    """why nothing is made of it: nobody knows the device"""
    messages: int = 0
    warned: bool = False


class Decoder:
    """Decodes the messages of `mapping` for `devices`; ConfigError where they do not fit each other."""

    def __init__(self, mapping: Mapping, devices: Sequence[Device]) -> None:
        self._devices = {one.device: one for one in devices}
        self._exact: dict[str, _Target] = {}
        self._derived: list[MapRule] = []
        self._known: dict[str, _Target] = {}
        for rule in mapping.map:
            if not rule.device and not rule.devices:
                self._derived.append(rule)
                self._check_derived(rule)
            for topic, (_, device) in rule.exact.items():
                self._exact[topic] = self._target(rule, device, strict=True)

    def decode(self, topic: str, payload: bytes, *, arrived_us: int, retained: bool = False) -> Decoded:
        """What the mapping makes of one message."""
        target = self._find(topic)
        if target is None:
            return Decoded(skipped="no [[map]] is for this topic")
        if not payload:
            return Decoded(skipped="empty: a stored value was removed")
        if retained and not target.rule.retained:
            return Decoded(skipped="stored by the broker, and so of unknown age; see `retained`")
        target.messages += 1
        try:
            if target.rule.payload == "text":
                body: object = read_text(payload)
            else:
                body = read_json(payload)
        except Unreadable as error:
            return Decoded(problems=[Problem(target.device, "malformed", 0, str(error))])
        if target.stranger:
            there = sum(find(value.steps, body) is not ABSENT for value in target.unknown)
            if not there:
                return Decoded(skipped="none of the mapped values is in it")
            return Decoded(problems=[Problem(target.device, "unknown_device", there, target.stranger)])
        return _read(target, body, arrived_us)

    def hears(self, topic: str) -> bool:
        """Whether the mapping is about this topic."""
        return self._find(topic) is not None

    def silent(self, after: int = SILENT_AFTER) -> list[tuple[str, str]]:
        """(topic, path) never found though `after` messages came on the topic; each is told once."""
        told: list[tuple[str, str]] = []
        for topic, target in (*self._exact.items(), *self._known.items()):
            if target.messages >= after and not target.warned:
                target.warned = True
                told += [(topic, one.rule.path or "") for one in target.columns if not one.found]
        return told

    def _find(self, topic: str) -> _Target | None:
        target = self._exact.get(topic) or self._known.get(topic)
        if target is not None:
            return target
        for rule in self._derived:
            name = rule.foreign_name(topic)
            if name is not None:
                if len(self._known) >= TOPICS:
                    self._known.clear()
                target = self._known[topic] = self._target(rule, topic_id(name), strict=False, foreign=name)
                return target
        return None

    def _target(self, rule: MapRule, name: str, *, strict: bool, foreign: str = "") -> _Target:
        time, stamp = (parse_path(rule.time.path), rule.time.stamp) if rule.time else ((), None)
        device = self._devices.get(name)
        if device is None:
            cure = f"declare it under [[device]]{near(name, self._devices)}"
            if strict:
                raise ConfigError(f"topic {rule.topic!r}: no device {name!r} at this node: {cure}")
            why = f"{foreign!r} is our {name!r}, which this node does not have: {cure}, or list the `devices` to take"
            return _Target(rule, name, [], list(rule.value), time, stamp, stranger=why)
        columns, unknown = [], []
        for value in rule.value:
            spec = device.metrics.get(value.metric)
            if spec is None:
                if strict:
                    raise ConfigError(
                        f"topic {rule.topic!r}: device {name!r} has no metric {value.metric!r}"
                        f"{near(value.metric, device.metrics)}"
                    )
                unknown.append(value)
                continue
            columns.append(_column(rule, value, spec.unit))
        return _Target(rule, name, columns, unknown, time, stamp)

    def _check_derived(self, rule: MapRule) -> None:
        """Each metric must be some device's, and its unit must lead to that device's."""
        for value in rule.value:
            specs = [one.metrics[value.metric] for one in self._devices.values() if value.metric in one.metrics]
            if not specs:
                raise ConfigError(f"topic {rule.topic!r}: no device of this node has a metric {value.metric!r}")
            if not any(conversion(value.unit, spec.unit) for spec in specs):
                _column(rule, value, specs[0].unit)


def _change(number: float, gain: float, bias: float) -> float:
    """number × gain + bias; divided where that is exact, so that 1001 W is 1.001 kW and not 1.0010000000000001.

    >>> _change(1001, 0.001, 0)
    1.001
    """
    parts = round(1 / gain) if 1e-12 < abs(gain) < 1 else 0
    return (number / parts if parts and gain == 1 / parts else number * gain) + bias


def _column(rule: MapRule, value: ValueRule, unit: str) -> _Column:
    change = conversion(value.unit, unit)
    if change is None:
        raise ConfigError(f"topic {rule.topic!r}: {value.metric} has no way from {value.unit!r} to {unit!r}")
    return _Column(
        rule=value,
        metric=value.metric,
        steps=value.steps,
        many=value.many,
        unit=unit,
        gain=value.scale * change[0],
        bias=value.offset * change[0] + change[1],
        words={word.casefold(): number for word, number in value.words.items()},
        missing=frozenset(one.strip().casefold() for one in value.missing if isinstance(one, str)),
        missing_numbers=frozenset(float(one) for one in value.missing if not isinstance(one, str)),
    )


def _read(target: _Target, body: object, arrived_us: int) -> Decoded:
    """Cells of one message: single values and, where there are arrays, a column each."""
    decoded = Decoded()
    single: dict[str, list[float | None]] = {}
    arrays: dict[str, list[float | None]] = {}
    units: dict[str, str] = {}
    for value in target.unknown:
        if find(value.steps, body) is not ABSENT:
            why = (
                f"{value.path or 'payload'}: device {target.device!r} has no metric {value.metric!r}: declare it there"
            )
            decoded.problems.append(Problem(target.device, "unknown_metric", 1, why))
    for column in target.columns:
        given = find(column.steps, body)
        if given is ABSENT:
            if column.rule.required and not column.many:
                single[column.metric], units[column.metric] = [None], column.unit
            continue
        column.found += 1
        if column.many:
            if given:
                cells = _cells(target, column, given, decoded)
                if cells is not None:
                    arrays[column.metric], units[column.metric] = cells, column.unit
            continue
        try:
            single[column.metric], units[column.metric] = [column.value(given)], column.unit
        except Unreadable as error:
            why = f"{column.rule.path or 'payload'}: {error}"
            decoded.problems.append(Problem(target.device, "unreadable", 1, why))
    if not single and not arrays:
        if not decoded.problems:
            decoded.skipped = "none of the mapped values is in it"
        return decoded
    try:
        times = _times(target, body, arrays, arrived_us)
    except Unreadable as error:
        readings = len(single) + sum(map(len, arrays.values()))
        decoded.problems.append(Problem(target.device, "clock", readings, f"time: {error}"))
        return decoded
    for at, columns in ((times, arrays), (times[-1:], single)):
        if columns:
            decoded.samples.append(Samples(target.device, at, columns, {metric: units[metric] for metric in columns}))
    return decoded


def _cells(target: _Target, column: _Column, given: object, decoded: Decoded) -> list[float | None] | None:
    assert isinstance(given, list)  # what `find` gives for [*]
    if len(given) > MAX_SAMPLES:
        why = f"{column.rule.path}: {len(given)} values in one message, at most {MAX_SAMPLES} are read"
        decoded.problems.append(Problem(target.device, "malformed", len(given), why))
        return None
    cells: list[float | None] = []
    wrong: list[str] = []
    for one in given:
        try:
            cells.append(None if one is ABSENT else column.value(one))
        except Unreadable as error:
            cells.append(None)
            wrong.append(str(error))
    if wrong:
        why = f"{column.rule.path}: {len(wrong)} of {len(given)} become missing: {wrong[0]}"
        decoded.problems.append(Problem(target.device, "unreadable", 0, why))
    return cells


def _times(target: _Target, body: object, arrays: dict[str, list[float | None]], arrived_us: int) -> list[int]:
    """One time per element of the arrays, or one; never none."""
    rule, stamp = target.rule.time, target.stamp
    if rule is None or stamp is None:
        return [arrived_us]
    given = find(target.time, body)
    if given is ABSENT or given is None:
        if arrays or not rule.arrival_if_absent:
            cure = "" if arrays else "; arrival_if_absent = true takes the time of arrival"
            raise Unreadable(f"{rule.path} is absent{cure}")
        return [arrived_us]
    lengths = sorted({len(column) for column in arrays.values()})
    if len(lengths) > 1:
        raise Unreadable(f"arrays of {' and '.join(map(str, lengths))} values in one message")
    if None not in target.time:
        first, step = stamp.micros(given, arrived_us), (rule.step_s or 0) * 1e6
        return [first + round(step * n) for n in range(lengths[0] if lengths else 1)]
    times = given if isinstance(given, list) else []
    if not times or (lengths and lengths[0] != len(times)):
        raise Unreadable(f"{rule.path}: {len(times)} times for {lengths[0] if lengths else 1} values")
    return [stamp.micros(one, arrived_us) for one in (times if lengths else times[-1:])]
