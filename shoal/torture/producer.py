"""Devices of one node, as a process outside the system under test: `python -m shoal.torture.producer FILE`.

Cooperative devices keep every burst until it is `Taken`, and send it again after a reconnect. `forgetful` ones send
once at QoS 1 and keep nothing. Every burst is in the oracle before it is sent. Sensors lie as in the simulator;
beside that they repeat a time with another value, use a unit and a metric nobody knows, and break the contract of a
whole burst. `tellers` also tell of events: numbered, of three kinds in turn, and each becomes a record.

SIGTERM ends production: what is held is sent until all of it is taken, and a forgetful device goes on measuring until
one of its bursts got through, because nobody can count what is lost after the last burst. At most `finish_s`, then it
says so. Status is a small JSON file, replaced as a whole: `heard` (every device was taken once), `done`, `gave_up`,
counters.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from firmware_sim.device import Cut, Firmware, Held
from firmware_sim.faults import Liar, Sent
from firmware_sim.link import Callbacks, Link
from firmware_sim.settings import Faults
from firmware_sim.signals import Floats, Ints
from messages.connect import BrokerSettings
from messages.contracts import MachineEvent, Taken
from messages.errors import BadMessage, BrokenInvariant
from messages.logs import configure
from messages.plant import Device, MetricSpec, load_plant
from messages.process import run_until_stopped
from messages.routes import BURST, TAKEN
from shoal.torture.oracle import ROWS, Oracle, Produced, Told

TURN_S = 0.02
STATUS_S = 0.2
CLOSING_S = 1.5
"""A forgetful device's last burst has this long to get through before it sends another."""
SECOND = 1_000_000


class ProducerSettings(BaseModel):
    """One producer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plant: Path
    site: str
    node: str
    port: int
    oracle: Path
    status: Path
    seed: int
    sample_s: float
    burst_s: float
    faults: Faults
    second_value: float = 0.0
    """per burst: a time occurs twice, with different values"""
    strange_unit: float = 0.0
    """per burst: one column in a unit that cannot be converted"""
    strange_metric: float = 0.0
    """per burst: one column the plant file does not know"""
    malformed: float = 0.0
    """per burst of a cooperative device: it breaks its contract. Of others nobody outside knows whether it came"""
    event: float = 0.0
    """per burst of a teller: something happened"""
    tellers: tuple[str, ...] = ()
    """machines of the plant file; of others nobody records events"""
    forgetful: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    """devices the plant file does not know"""
    max_held: int = 24
    resend_s: float = 1.0
    finish_s: float = 60.0


@dataclass
class Status:
    """What the producer says about itself."""

    heard: bool = False
    done: bool = False
    gave_up: bool = False
    bursts: int = 0
    readings: int = 0
    sent: int = 0
    held: int = 0

    def write(self, path: Path) -> None:
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(self.__dict__), encoding="utf-8")
        os.replace(draft, path)  # noqa: PTH105 - the point is the atomic replacement

    @classmethod
    def read(cls, path: Path) -> Status:
        """As last written; a fresh one before that."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls()


class Stutterer(Liar):
    """A liar that also repeats a time with another value, and speaks of units and metrics nobody knows."""

    def __init__(self, device: Device, settings: ProducerSettings, rng: np.random.Generator) -> None:
        super().__init__(device, settings.faults, rng)
        self._more = settings

    def distort(self, at: Ints, healthy: dict[str, Floats]) -> Sent:
        sent = super().distort(at, healthy)
        if not len(sent.at):
            return sent
        if self.rng.random() < self._more.second_value:
            index = int(self.rng.integers(len(sent.at)))
            sent.at = np.insert(sent.at, index + 1, sent.at[index])
            sent.picked = np.insert(sent.picked, index + 1, sent.picked[index])
            for metric, column in sent.columns.items():
                spec, value = self.device.metrics[metric], column[index]
                other = value is None or spec.code or spec.counter
                column.insert(index + 1, value if other else round((value or 0.0) + 0.001, 4))
        if self.rng.random() < self._more.strange_unit:
            sent.units[str(self.rng.choice(sorted(sent.units)))] = "furlong"
        if self.rng.random() < self._more.strange_metric:
            sent.columns["mood"], sent.units["mood"] = [1.0] * len(sent.at), "1"
        return sent


def sampler(device: Device, rng: np.random.Generator) -> dict[str, tuple[MetricSpec, Floats]]:
    """Per metric its limits and (phase, period in s, level) of a smooth signal."""
    return {metric: (spec, rng.uniform((0, 5, 0.3), (6, 60, 0.6))) for metric, spec in device.metrics.items()}


def sample(signals: dict[str, tuple[MetricSpec, Floats]], at: Ints, start: int) -> dict[str, Floats]:
    """True values at times `at`: counters grow, codes step, all others swing inside their range."""
    seconds = (at - start) / SECOND
    found: dict[str, Floats] = {}
    for metric, (spec, (phase, period, level)) in signals.items():
        if spec.counter:
            found[metric] = 1000 + level * seconds
        elif spec.code:
            found[metric] = np.floor(seconds / period) % 4
        else:
            span = spec.high - spec.low
            found[metric] = spec.low + span * (level + 0.1 * np.sin(phase + 2 * np.pi * seconds / period))
    return found


@dataclass
class _Device:
    """One device and what is known of its bursts on the way."""

    firmware: Firmware
    topic: str
    node: str
    stranger: bool
    rng: np.random.Generator
    happened: int = 0
    last_taken: int = -1
    closing_seq: int | None = None
    closing_at: float = 0.0
    closed: bool = False


@dataclass
class Producer:
    """All devices of one node on one connection."""

    settings: ProducerSettings
    oracle: Oracle
    status: Status = field(default_factory=Status)

    def __post_init__(self) -> None:
        wall, mono = time.time_ns() // 1000, time.monotonic_ns() // 1000
        self._wall_less_mono = wall - mono
        start = self._now()
        site, node = self.settings.site, self.settings.node
        self.devices = {one.device: self._device(one, start) for one in self._devices()}
        self.link = Link(
            BrokerSettings(port=self.settings.port),
            client_id=f"devices-of-{node}",
            filters=[TAKEN.filter(site=site, node=node)],
            callbacks=Callbacks(self._on_message, self._on_answer, self._on_connect, self._on_fatal),
        )
        self._in_hand: dict[int, tuple[Firmware, Held]] = {}
        self._stopping = asyncio.Event()
        self._fatal: str | None = None

    async def run(self) -> None:
        """Produce until told to stop, then bring home what is on its way."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        self.link.start()
        told_s = 0.0
        try:
            while not self._stopping.is_set():
                if self.link.connects:  # what is lost before a device was ever heard, nobody can count
                    self._produce()
                told_s = self._tell(told_s)
                await asyncio.sleep(TURN_S)
            deadline = time.monotonic() + self.settings.finish_s
            while not self._finish() and time.monotonic() < deadline:
                told_s = self._tell(told_s)
                await asyncio.sleep(TURN_S)
            self.status.done, self.status.gave_up = True, not self._finish()
        finally:
            self.link.stop()
            self._tell(0.0)

    # --- private ----------------------------------------------------------------------------------

    def _now(self) -> int:
        """Plant time: the wall clock at the start, then never back."""
        return time.monotonic_ns() // 1000 + self._wall_less_mono

    def _devices(self) -> list[Device]:
        found = list(load_plant(self.settings.plant).devices(self.settings.node))
        like = found[0]
        return found + [like.model_copy(update={"device": name}) for name in self.settings.strangers]

    def _device(self, device: Device, start: int) -> _Device:
        settings, name = self.settings, device.device
        seed = [settings.seed, zlib.crc32(name.encode())]
        signals = sampler(device, np.random.default_rng([*seed, 0]))
        firmware = Firmware(
            device=device,
            sampler=lambda at: sample(signals, at, start),
            liar=Stutterer(device, settings, np.random.default_rng([*seed, 1])),
            boot=secrets.token_hex(8),
            start=start,
            sample_us=round(settings.sample_s * SECOND),
            burst_us=round(settings.burst_s * SECOND),
            rng=np.random.default_rng([*seed, 2]),
            skew_us=round(settings.faults.clock_skew_s.get(name, 0.0) * SECOND),
            forgetful=name in settings.forgetful,
            max_held=settings.max_held,
            resend_s=settings.resend_s,
        )
        topic = BURST.topic(site=settings.site, node=settings.node, device=name)
        stranger = name in settings.strangers
        return _Device(firmware, topic, settings.node, stranger, np.random.default_rng([*seed, 3]))

    def _produce(self) -> None:
        now, mono_s = self._now(), time.monotonic()
        for one in self.devices.values():
            if one.firmware.is_due(now) and not one.firmware.full:
                self._cut(one, now)
        self.oracle.flush()
        for one in self.devices.values():
            self._send_due(one, mono_s)

    def _cut(self, one: _Device, now: int) -> int | None:
        """The next burst, in the oracle before it can be sent; its seq."""
        told, events = self._event(one, now)
        cut = one.firmware.cut(now, events)
        if cut is None:
            return None
        fate = "unknown_device" if one.stranger else ROWS
        if fate == ROWS and not one.firmware.forgetful and one.rng.random() < self.settings.malformed:
            # The same cells, but no contract has such a field: the one it needs is missing.
            cut.held.payload = cut.held.payload.replace(b'"units":', b'"onits":', 1)
            fate = "malformed"
        made = _produced(one, cut, fate, told)
        self.oracle.write(made)
        self.status.bursts += 1
        self.status.readings += made.readings
        return cut.held.seq

    def _event(self, one: _Device, now: int) -> tuple[list[Told], list[MachineEvent]]:
        """What the oracle and the node hear of the next event, if there is one. Every word of it occurs once."""
        name = one.firmware.device.device
        if name not in self.settings.tellers or one.rng.random() >= self.settings.event:
            return [], []
        one.happened += 1
        number, at = one.happened, now + one.firmware.skew_us
        match number % 3:
            case 0:  # on the lane of alarms
                event = MachineEvent(at=now, kind="breakdown", repair_at=now + number * SECOND)
                return [(at, "state", f"down {at + number * SECOND}")], [event]
            case 1:
                return [(at, "part", f"tag-{number}")], [
                    MachineEvent(at=now, kind="part_identified", job=f"tag-{number}")
                ]
            case _:  # a state nobody knows yet is entered like any other
                return [(at, "state", f"step_{number}")], [MachineEvent(at=now, kind="state", state=f"step_{number}")]

    def _send_due(self, one: _Device, mono_s: float) -> None:
        if not self.link.up and not one.firmware.forgetful:
            return
        for held in one.firmware.due(mono_s):
            mid = self.link.publish(one.topic, held.payload)
            if mid is None and not one.firmware.forgetful:
                return
            if mid is not None:
                self._in_hand[mid] = (one.firmware, held)
                self.status.sent += 1
                if held.copies > 1 and not held.tries:
                    self.link.publish(one.topic, held.payload)
            one.firmware.on_sent(held, mono_s, in_hand=mid is not None)

    def _finish(self) -> bool:
        """Send what is left; whether nothing is."""
        now, mono_s = self._now(), time.monotonic()
        for one in self.devices.values():
            self._close(one, now, mono_s)
        self.oracle.flush()
        for one in self.devices.values():
            one.firmware.hurry(mono_s)
            self._send_due(one, mono_s)
        return all(one.closed for one in self.devices.values())

    def _close(self, one: _Device, now: int, mono_s: float) -> None:
        if one.closed:
            return
        if one.closing_seq is not None and one.last_taken >= one.closing_seq and not one.firmware.held:
            one.closed = True
            return
        again = one.firmware.forgetful and mono_s - one.closing_at > CLOSING_S
        if (one.closing_seq is None or again) and self.link.up and not one.firmware.full:
            one.closing_seq, one.closing_at = self._cut(one, now), mono_s

    def _tell(self, told_s: float) -> float:
        now_s = time.monotonic()
        if self._fatal is not None:
            raise BrokenInvariant(self._fatal)
        if now_s - told_s < STATUS_S:
            return told_s
        self.status.heard = all(one.last_taken >= 0 for one in self.devices.values())
        self.status.held = sum(len(one.firmware.held) for one in self.devices.values())
        self.status.write(self.settings.status)
        return now_s

    # --- callbacks of the link ----------------------------------------------------------------------

    def _on_message(self, topic: str, payload: bytes) -> None:
        try:
            one = self.devices.get(TAKEN.ids(topic)["device"])
            taken = Taken.decode(payload)
        except BadMessage as error:
            self._fatal = f"a node answered what no contract allows: {error}"
            return
        if one is not None and taken.boot == one.firmware.boot:
            one.last_taken = max([one.last_taken, *(high for _, high in taken.ranges)])
            one.firmware.on_taken(taken)

    def _on_answer(self, mid: int, _taken: bool) -> None:
        entry = self._in_hand.pop(mid, None)
        if entry:
            entry[0].on_answer(entry[1], time.monotonic())

    def _on_connect(self) -> None:
        for one in self.devices.values():
            one.firmware.on_connect(time.monotonic())

    def _on_fatal(self, text: str) -> None:
        self._fatal = text


def _produced(one: _Device, cut: Cut, fate: str, told: list[Told]) -> Produced:
    at = (cut.sent.at + cut.skew_us).tolist()
    columns = {metric: (cut.sent.units[metric], column) for metric, column in cut.sent.columns.items()}
    return Produced(one.firmware.device.device, one.node, one.firmware.boot, cut.held.seq, fate, at, columns, told)


async def run(settings: ProducerSettings) -> None:
    """One producer from its settings."""
    with settings.oracle.open("ab") as file:
        await Producer(settings, Oracle(file)).run()


def main() -> int:
    """`python -m shoal.torture.producer FILE`."""
    settings = ProducerSettings.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    configure("producer", site=settings.site, node=settings.node)
    return run_until_stopped(run(settings))


if __name__ == "__main__":
    raise SystemExit(main())
