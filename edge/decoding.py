"""From a foreign message to samples of our devices, by the mapping. Pure, apart from counting what it found.

    decoder = Decoder(mapping, devices)
    decoded = decoder.decode(topic, payload, arrived_us=…)
    decoded.samples, decoded.problems, decoded.skipped

Promise: whatever the bytes, nothing is raised. Every mapped value that is there becomes a cell, in the unit of its
device's metric, or a problem that says what stood there; a message without one says why it was skipped. An element of
an array that cannot be read becomes a missing cell, so that the column keeps its length.
Bounds: `TOPICS` topics whose device is remembered (then the memory starts again), the payload (4 MiB), `MAX_SAMPLES`
values per array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.columns import Column
from edge.mapping import Mapping, MapRule, ValueRule
from edge.payload import ABSENT, Stamp, Step, Unreadable, find, parse_path, read_json, read_text
from messages.contracts import MAX_SAMPLES
from messages.errors import ConfigError
from messages.plant import Device, near
from messages.route import topic_id

TOPICS = 10_000
SILENT_AFTER = 100
"""Messages without a trace of a mapped value, after which it is worth a warning."""

Cells = list[float | None]


@dataclass(frozen=True, slots=True)
class Samples:
    """Values of one device at some times; columns as in a Burst."""

    device: str
    at: list[int]
    """µs since 1970 UTC"""
    columns: dict[str, Cells]
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
class _Target:
    """What is made of the messages of one topic."""

    rule: MapRule
    device: str
    columns: list[Column]
    unfit: list[tuple[ValueRule, str, str]]
    """values that are no metric of the device, with reason and cure; only where devices are derived from the topic"""
    time: tuple[Step, ...] = ()
    stamp: Stamp | None = None
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
            if not rule.exact:
                self._derived.append(rule)
                self._check_derived(rule)
            for topic, (_, device) in rule.exact.items():
                target = self._exact[topic] = self._target(rule, device)
                for _, reason, why in target.unfit:
                    raise ConfigError(f"topic {rule.topic!r}: {reason}: {why}")

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
            body = read_text(payload) if target.rule.payload == "text" else read_json(payload)
        except Unreadable as error:
            return Decoded(problems=[Problem(target.device, "malformed", 0, str(error))])
        decoded = _Reading(target, body, arrived_us).decoded
        if not decoded.samples and not decoded.problems:
            decoded.skipped = "none of the mapped values is in it"
        return decoded

    def hears(self, topic: str) -> bool:
        """Whether the mapping is about this topic."""
        return self._find(topic) is not None

    def silent(self, after: int = SILENT_AFTER) -> list[tuple[str, str]]:
        """(topic, path) never found though `after` messages came on the topic; each is told once."""
        told: list[tuple[str, str]] = []
        for topic, target in (*self._exact.items(), *self._known.items()):
            if target.messages >= after and not target.warned:
                target.warned = True
                told += [(topic, one.rule.path or "the payload") for one in target.columns if not one.found]
        return told

    def unheard(self) -> list[str]:
        """Topics of the mapping from which nothing has come; with `+` where ids are derived."""
        derived = {id(target.rule) for target in self._known.values()}
        topics = [topic for topic, target in self._exact.items() if not target.messages]
        return topics + [one for rule in self._derived if id(rule) not in derived for one in rule.filters]

    def _find(self, topic: str) -> _Target | None:
        target = self._exact.get(topic) or self._known.get(topic)
        if target is not None:
            return target
        for rule in self._derived:
            name = rule.foreign_name(topic)
            if name is not None:
                if len(self._known) >= TOPICS:
                    self._known.clear()
                target = self._known[topic] = self._target(rule, topic_id(name), foreign=name)
                return target
        return None

    def _target(self, rule: MapRule, device: str, foreign: str = "") -> _Target:
        target = _Target(rule, device or rule.value[0].device or "", [], [])
        if rule.time:
            target.time, target.stamp = parse_path(rule.time.path), rule.time.stamp
        for value in rule.value:
            owner = value.device or device
            known = self._devices.get(owner)
            spec = known.metrics.get(value.metric) if known else None
            column = Column.of(value, owner, spec.unit) if spec else None
            if known is None:
                said = f"{foreign!r} is our {owner!r}, which" if foreign else f"{owner!r}"
                cure = "; or list the `devices` to take" if foreign else ""
                why = f"{said} is no device of this node: declare it under [[device]]{near(owner, self._devices)}{cure}"
                target.unfit.append((value, "unknown_device", why))
            elif spec is None:
                why = f"device {owner!r} has no metric {value.metric!r}{near(value.metric, known.metrics)}"
                target.unfit.append((value, "unknown_metric", why))
            elif column is None:
                why = f"{value.metric} of {owner!r}: no way from {value.unit!r} to {spec.unit!r}"
                target.unfit.append((value, "unit", why))
            else:
                target.columns.append(column)
        return target

    def _check_derived(self, rule: MapRule) -> None:
        """Each value must fit some device: which ones there are, the topics will say."""
        for value in rule.value:
            specs = [one.metrics[value.metric] for one in self._devices.values() if value.metric in one.metrics]
            if not any(Column.of(value, "", spec.unit) for spec in specs):
                has = f"takes {value.unit!r} for {value.metric!r}" if specs else f"has a metric {value.metric!r}"
                raise ConfigError(f"topic {rule.topic!r}: no device of this node {has}: declare it under [[device]]")


class _Reading:
    """One message read: single values and, where there are arrays, a column each."""

    def __init__(self, target: _Target, body: object, arrived_us: int) -> None:
        self.decoded = Decoded()
        self._target, self._body, self._arrived_us = target, body, arrived_us
        self._single: list[tuple[Column, Cells]] = []
        self._arrays: list[tuple[Column, Cells]] = []
        for value, reason, why in target.unfit:
            if find(value.steps, body) is not ABSENT:
                self._problem(target.device, reason, 1, f"{value.path or 'payload'}: {why}")
        for column in target.columns:
            self._read(column)
        self._stamp()

    def _read(self, column: Column) -> None:
        given = find(column.steps, self._body)
        if given is ABSENT:
            if column.rule.required and not column.many:
                self._single.append((column, [None]))
            return
        column.found += 1
        place = column.rule.path or "payload"
        try:
            stated = column.stated_unit(self._body)
            if not column.many:
                self._single.append((column, [column.value(given, stated)]))
                return
        except Unreadable as error:
            count = len(given) if column.many and isinstance(given, list) else 1
            self._problem(column.device, "unreadable", count, f"{place}: {error}")
            return
        if isinstance(given, list) and given:
            self._read_each(column, given, stated, place)

    def _read_each(self, column: Column, given: list[object], stated: str, place: str) -> None:
        if len(given) > MAX_SAMPLES:
            why = f"{place}: {len(given)} values in one message, at most {MAX_SAMPLES} are read"
            self._problem(column.device, "malformed", len(given), why)
            return
        cells: Cells = []
        wrong: list[str] = []
        for one in given:
            try:
                cells.append(None if one is ABSENT else column.value(one, stated))
            except Unreadable as error:
                cells.append(None)
                wrong.append(str(error))
        if wrong:
            why = f"{place}: {len(wrong)} of {len(given)} become missing: {wrong[0]}"
            self._problem(column.device, "unreadable", 0, why)
        self._arrays.append((column, cells))

    def _stamp(self) -> None:
        """Give what was read its times; what is single belongs to the last of them."""
        if not self._single and not self._arrays:
            return
        try:
            times = self._times()
        except Unreadable as error:
            for column, cells in (*self._arrays, *self._single):
                self._problem(column.device, "clock", len(cells), f"time of {column.metric}: {error}")
            return
        for at, columns in ((times, self._arrays), (times[-1:], self._single)):
            for device in dict.fromkeys(column.device for column, _ in columns):
                mine = [(column, cells) for column, cells in columns if column.device == device]
                self.decoded.samples.append(
                    Samples(
                        device,
                        at,
                        {column.metric: cells for column, cells in mine},
                        {column.metric: column.unit for column, _ in mine},
                    )
                )

    def _times(self) -> list[int]:
        """One per element of the arrays, or one; never none."""
        rule, stamp, steps, near_us = self._target.rule.time, self._target.stamp, self._target.time, self._arrived_us
        if rule is None or stamp is None:
            return [near_us]
        lengths = sorted({len(cells) for _, cells in self._arrays})
        given = find(steps, self._body)
        if given is ABSENT or given is None:
            if lengths or not rule.arrival_if_absent:
                cure = "" if lengths else "; arrival_if_absent = true takes the time of arrival"
                raise Unreadable(f"{rule.path} is absent{cure}")
            return [near_us]
        if len(lengths) > 1:
            raise Unreadable(f"arrays of {' and '.join(map(str, lengths))} values in one message")
        if None not in steps:
            first, step_us = stamp.micros(given, near_us), (rule.step_s or 0) * 1e6
            return [first + round(step_us * n) for n in range(lengths[0] if lengths else 1)]
        times = given if isinstance(given, list) else []
        if not times or (lengths and lengths[0] != len(times)):
            raise Unreadable(f"{rule.path}: {len(times)} times for {lengths[0] if lengths else 1} values")
        return [stamp.micros(one, near_us) for one in (times if lengths else times[-1:])]

    def _problem(self, device: str, reason: str, readings: int, why: str) -> None:
        self.decoded.problems.append(Problem(device, reason, readings, why))
