"""The mapping file: which foreign topics become which readings. A settings model, read strictly.

    mapping = load(Mapping, Path("tasmota.toml"))
    devices = plant.devices("firing") + mapping.devices(plant, "firing")      # those it declares
    decoder = Decoder(mapping, devices)                            # edge/decoding.py

    [[map]]
    topic = "tele/{device}/SENSOR"
    devices = { "tasmota_5A9AE8" = "kiln-1-plug" }
    time = { path = "Time", zone = "Europe/Berlin" }
    [[map.value]]
    path = "ENERGY.Power"
    metric = "power_kw"
    unit = "W"

Levels in braces name the foreign device (several are joined by `/`). A table `devices` gives our id of each and only
their topics are subscribed; without it every topic that fits is, and our id is `topic_id` of the foreign name. Without
braces, `device` says whose the topic is. Units become those of the device's metrics; see `docs/guides/mapping.md`.
Bounds: 256 maps, 64 values each, 1,000 topics, 1,000 devices.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, field_validator, model_validator

from edge.payload import Stamp, Step, parse_path
from messages.contracts import MAX_COLUMNS, Id, Metric
from messages.errors import ConfigError
from messages.plant import Device, MetricSpec, Plant, near
from messages.route import ROOT
from messages.settings import Section

MAX_TOPICS = 1_000

_NAME = re.compile(r"\{[a-z][a-z0-9_]*\}")

Unit = Annotated[str, Field(min_length=1, max_length=16)]


def _path(text: str) -> str:
    parse_path(text)
    return text


Place = Annotated[str, AfterValidator(_path)]


class TimeRule(Section):
    """When the values were measured, by the payload itself."""

    path: Place = Field(description="place of the time in the payload; with [*], one per sample")
    format: str = Field("iso", description="iso, unix_s, unix_ms, unix_us, or a strptime pattern")
    zone: str | None = Field(None, description="of times that do not say it, e.g. Europe/Berlin or UTC")
    step_s: float | None = Field(
        None, gt=0, le=86_400, description="between samples of [*] values; the time is that of the first, s"
    )
    arrival_if_absent: bool = Field(False, description="a message without it is given its time of arrival")

    @model_validator(mode="after")
    def _sound(self) -> TimeRule:
        self.stamp.check()
        if self.step_s is not None and None in parse_path(self.path):
            raise ValueError("step_s beside a time per sample ([*]): give one of the two")
        return self

    @property
    def stamp(self) -> Stamp:
        """How its times are written."""
        return Stamp(self.format, self.zone)


class ValueRule(Section):
    """One value of the payload and the metric it becomes."""

    path: Place | None = Field(None, description="place in the JSON: a.b[0].c, [*] for each; absent in payload = text")
    metric: Metric = Field(description="of the device, as the plant file or [[device]] declares it")
    unit: Unit = Field(description="of the payload's value, after scale and offset; one written beside it goes first")
    unit_path: Place | None = Field(None, description="place of the unit in the JSON, where it says it; goes first")
    device: Id | None = Field(None, description="whose it is, where one message speaks of several of our devices")
    scale: float = Field(1.0, description="value × scale + offset is in `unit`")
    offset: float = Field(0.0, description="value × scale + offset is in `unit`")
    decimal: Literal[".", ","] = Field(".", description="decimal mark of numbers written as text")
    words: dict[str, float] = Field({}, description="words that stand for numbers, e.g. {ON = 1, OFF = 0}")
    missing: tuple[str | float, ...] = Field(
        (), description='what says that the sensor gave none, e.g. ["unavailable", -127]; null and NaN always do'
    )
    required: bool = Field(False, description="absent in a message: the sensor gave none (else: no reading)")

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("every value would become 0")
        return scale

    @field_validator("words")
    @classmethod
    def _different(cls, words: dict[str, float]) -> dict[str, float]:
        if len({word.casefold() for word in words}) < len(words):
            raise ValueError("two words differ only in case; words are compared without it")
        return words

    @property
    def steps(self) -> tuple[Step, ...]:
        """The path, parsed."""
        return parse_path(self.path) if self.path else ()

    @property
    def unit_steps(self) -> tuple[Step, ...]:
        """The path of the unit, parsed."""
        return parse_path(self.unit_path) if self.unit_path else ()

    @property
    def many(self) -> bool:
        """Whether it gives a value per sample of an array."""
        return None in self.steps


class MapRule(Section):
    """One kind of foreign topic."""

    topic: str = Field(min_length=1, max_length=1_000, description="levels in braces name the device: tele/{device}/X")
    device: Id | None = Field(None, description="our device, when the topic has no braces")
    devices: Annotated[dict[str, Id], Field(max_length=MAX_TOPICS)] = Field(
        {}, description="foreign name → our device; absent: every topic that fits, our id derived from the name"
    )
    payload: Literal["json", "text"] = Field("json", description="text: the whole payload is one value")
    retained: bool = Field(False, description="take the value the broker stored, too; it may be old")
    time: TimeRule | None = Field(None, description="absent: time of arrival at this node")
    value: Annotated[tuple[ValueRule, ...], Field(min_length=1, max_length=64)] = Field(description="what it measures")

    @field_validator("topic")
    @classmethod
    def _levels(cls, topic: str) -> str:
        named: list[str] = []
        for level in topic.split("/"):
            if _NAME.fullmatch(level):
                named.append(level)
            elif any(mark in level for mark in "{}+#\0"):
                raise ValueError(
                    f"level {level!r}: a name in braces stands for a whole level, e.g. {{device}}; no + or #"
                )
        if topic.startswith(("$", f"{ROOT}/")):
            raise ValueError(f"topics below $ and {ROOT}/ are not foreign")
        if len(set(named)) < len(named):
            raise ValueError("two levels have one name")
        return topic

    @model_validator(mode="after")
    def _sound(self) -> MapRule:
        if self.names:
            if self.device or any(value.device for value in self.value):
                raise ValueError(f"topic {self.topic!r} names its device by a level in braces: leave `device` out")
        elif self.devices:
            raise ValueError(f"topic {self.topic!r} has no level in braces, so `devices` has no use")
        elif not self.device and not all(value.device for value in self.value):
            raise ValueError(f"topic {self.topic!r}: give `device`, or name a level {{device}}")
        for name in self.devices:
            if self._fill(name) is None:
                names = "/".join(self.names)
                raise ValueError(f"devices: {name!r} must have one level each for {names}, without + and #")
        made = [(value.device, value.metric) for value in self.value]
        if len(set(made)) < len(made):
            raise ValueError("two values of one message become one metric of one device")
        return self._sound_payload()

    def _sound_payload(self) -> MapRule:
        if self.payload == "text":
            one = self.value[0]
            if len(self.value) > 1 or one.path or one.unit_path or self.time:
                raise ValueError('payload = "text" is one value: one [[map.value]] without path, no time')
            return self
        if any(value.path is None for value in self.value):
            raise ValueError('every value needs a path; for a payload that is the bare value give payload = "text"')
        many = [value.metric for value in self.value if value.many]
        timed = self.time is not None and (None in parse_path(self.time.path) or self.time.step_s is not None)
        if many and not timed:
            raise ValueError(f"{many[0]} has a value per sample ([*]): give time with [*], or with step_s")
        if timed and not many:
            raise ValueError("time is one per sample ([*] or step_s), but no value is")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels that name the device."""
        return tuple(level[1:-1] for level in self.topic.split("/") if _NAME.fullmatch(level))

    @property
    def timed(self) -> bool:
        """Whether each message says its time."""
        return self.time is not None and not self.time.arrival_if_absent

    @property
    def exact(self) -> dict[str, tuple[str, Id]]:
        """Topics that are known beforehand: topic → foreign name, our device (empty: its values name theirs)."""
        if not self.names:
            return {self.topic: (self.topic, self.device or "")}
        return {cast(str, self._fill(name)): (name, device) for name, device in self.devices.items()}

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to."""
        return tuple(self.exact) or (_NAME.sub("+", self.topic),)

    def foreign_name(self, topic: str) -> str | None:
        """The name a topic that fits gives its device; None when it does not fit."""
        levels, given = self.topic.split("/"), topic.split("/")
        if len(levels) != len(given):
            return None
        pairs = list(zip(levels, given, strict=True))
        if any(level != part for level, part in pairs if not _NAME.fullmatch(level)):
            return None
        return "/".join(part for level, part in pairs if _NAME.fullmatch(level))

    def _fill(self, name: str) -> str | None:
        """The topic of this foreign name; a single name may have several levels (`hall/press`)."""
        parts = [name] if len(self.names) == 1 else name.split("/")
        if len(parts) != len(self.names) or not all(parts) or any(mark in name for mark in "+#\0"):
            return None
        left = iter(parts)
        return _NAME.sub(lambda _: next(left), self.topic)


class DeviceRule(Section):
    """A meter or sensor that the plant file does not know, or several alike."""

    device: Id | None = Field(None, description="its id here: unique in the plant")
    devices: Annotated[tuple[Id, ...], Field(max_length=MAX_TOPICS)] = Field((), description="ids of several alike")
    workshop: Id | None = Field(None, description="where it is, one of the plant's workshops")
    metrics: Annotated[dict[Metric, MetricSpec], Field(min_length=1, max_length=MAX_COLUMNS)] = Field(
        description="metric → unit, low, high, and what else cleaning may know (as in docs/guides/cleaning.md)"
    )

    @model_validator(mode="after")
    def _named(self) -> DeviceRule:
        if bool(self.device) == bool(self.devices):
            raise ValueError("give `device`, or `devices` for several alike")
        return self

    @property
    def ids(self) -> tuple[Id, ...]:
        """Whom it declares."""
        return (self.device,) if self.device else self.devices

    @field_validator("metrics")
    @classmethod
    def _limits(cls, metrics: dict[str, MetricSpec]) -> dict[str, MetricSpec]:
        for metric, spec in metrics.items():
            if not spec.low < spec.high:
                raise ValueError(f"{metric}: low must be below high")
            if not 0 < len(spec.unit) <= 16:
                raise ValueError(f"{metric}: unit={spec.unit!r} has 1-16 characters")
        return metrics


class Mapping(Section):
    """All foreign topics of one node."""

    every_s: float = Field(1.0, ge=0, le=60, description="messages are gathered so long and committed together, s")
    wait_s: int = Field(
        10, ge=0, le=86_400, description="messages without a time may wait so long at the broker while we are away, s"
    )
    device: Annotated[tuple[DeviceRule, ...], Field(max_length=1_000)] = Field(
        (), description="devices not of the plant"
    )
    map: Annotated[tuple[MapRule, ...], Field(min_length=1, max_length=256)] = Field(
        description="one per kind of topic"
    )

    @model_validator(mode="after")
    def _apart(self) -> Mapping:
        filters = [one for rule in self.map for one in rule.filters]
        if len(filters) > MAX_TOPICS:
            raise ValueError(
                f"{len(filters)} topics, at most {MAX_TOPICS}: leave `devices` out where ids may be derived"
            )
        wild = [one.split("/") for one in filters if "+" in one.split("/")]
        seen: set[str] = set()
        for one in filters:
            levels = one.split("/")
            if one in seen or any(_overlap(levels, other) for other in wild if other != levels):
                raise ValueError(
                    f"topic {one!r} is mapped twice: put its values into one [[map]], or name the `devices`"
                )
            seen.add(one)
        names = [name for one in self.device for name in one.ids]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"device {twice[0]!r} is declared twice")
        if len(names) > MAX_TOPICS:
            raise ValueError(f"{len(names)} devices, at most {MAX_TOPICS}")
        return self

    def filters(self, *, timed: bool) -> tuple[str, ...]:
        """What to subscribe to: of messages that always say their time, or of the others."""
        return tuple(one for rule in self.map if rule.timed is timed for one in rule.filters)

    def declared(self, node: str) -> tuple[Device, ...]:
        """The devices declared here, as devices of `node`."""
        return tuple(
            Device(device=name, node=node, kind="meter", workshop=one.workshop or "unassigned", metrics=one.metrics)
            for one in self.device
            for name in one.ids
        )

    def devices(self, plant: Plant, node: str) -> tuple[Device, ...]:
        """The same; ConfigError where they clash with the plant."""
        known = {one.device for one in plant.devices()}
        workshops = [workshop.name for workshop in plant.workshops]
        for one in self.device:
            for name in one.ids:
                if name in known:
                    raise ConfigError(
                        f"[[device]] {name!r} is in the plant file: map to it there, or choose another id"
                    )
            if one.workshop is not None and one.workshop not in workshops:
                raise ConfigError(
                    f"[[device]] {one.ids[0]!r}: no workshop {one.workshop!r}{near(one.workshop, workshops)}"
                )
        return self.declared(node)

    def access(self) -> list[str]:
        """Lines for the section of this node's user in Mosquitto's ACL: without them its topics stay silent."""
        return [f"topic read {one}" for rule in self.map for one in rule.filters]


def _overlap(one: list[str], other: list[str]) -> bool:
    """Whether one topic can fit both of these filters."""
    return len(one) == len(other) and all(a == b or "+" in (a, b) for a, b in zip(one, other, strict=True))
