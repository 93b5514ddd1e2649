"""Foreign devices on this node: their messages become bursts, and enter as those of our own firmware do.

    foreign = Foreign(decoder, intake, node.take_in, clock, every_s=1.0)
    bus.on_raw(mapping.filters(timed=True), partial(foreign.on_messages, bus))
    tg.create_task(foreign.watch())

Messages are gathered for `every_s` and committed together, a burst per device and set of metrics, with every refusal
in the same commit; only then are they acknowledged. A foreign device numbers nothing, so the node does it on its
behalf: one boot for ever (`BOOT`), a seq per burst that goes on where the disk says. So a restart of the node is no
restart of the device, and what is lost before it is here cannot be counted.
Bound: one list of the bus, its receive window (1,000 messages); when `HURRY` messages wait, gathering ends at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol

from edge.decoding import Decoded, Decoder, Problem, Samples
from edge.intake import Incoming, Intake
from messages.bus import Received
from messages.clock import Clock, LockStepClock
from messages.contracts import MAX_SAMPLES, Burst
from messages.logs import get_logger

BOOT = "f0e1f0e1f0e1f0e1"
"""The boot of every device that has none of its own."""
HURRY = 500
"""When so many wait they are held back no longer: the bus would fill, and drop QoS 0."""
LOOK_S = 0.05
WATCH_S = 60.0
UNHEARD_S = 600.0
"""Topics that are silent so long after the start are worth one warning."""

log = get_logger("edge")


class Source(Protocol):
    """Where the messages come from: how many wait there."""

    @property
    def waiting(self) -> int: ...


class TakeIn(Protocol):
    """Runs an intake job in one commit; it is given the time."""

    def __call__(self, job: Callable[[int], None]) -> Awaitable[None]: ...


@dataclass
class Counts:
    """Since the node started."""

    messages: int = 0
    readings: int = 0
    refused: int = 0
    skipped: int = 0


@dataclass
class Foreign:
    """The handler of foreign topics."""

    decoder: Decoder
    intake: Intake
    take_in: TakeIn
    clock: Clock
    every_s: float = 1.0
    monotonic: Callable[[], float] = time.monotonic
    counts: Counts = field(default_factory=Counts)
    _numbers: dict[str, tuple[int, int]] = field(default_factory=dict)

    async def on_messages(self, source: Source, received: list[Received]) -> None:
        """On the disk when this returns, as readings or as refusals; then MQTT acknowledges."""
        if isinstance(self.clock, LockStepClock):
            await self.clock.started.wait()
        arrived = self._arrivals(received)
        await self._gather(source, len(received))
        samples: list[Samples] = []
        problems: list[tuple[Problem, bytes]] = []
        for one, at in zip(received, arrived, strict=True):
            decoded = self.decoder.decode(one.topic, one.payload, arrived_us=at, retained=one.retained)
            samples += decoded.samples
            problems += [(problem, _sample(problem, one)) for problem in decoded.problems]
            self._count(decoded)
        if samples or problems:
            await self.take_in(lambda now: self._take_now(samples, problems, now))

    async def watch(self) -> None:
        """Say what the mapping names and no message has: a misspelt path, or a topic we may not read, is silent."""
        begun, told = self.monotonic(), False
        while True:
            await asyncio.sleep(WATCH_S)
            if not told and self.monotonic() - begun >= UNHEARD_S:
                told = True
                if topics := self.decoder.unheard():
                    cure = "is the device on, the topic right, and may this node's user read it (shoal topics --acl)?"
                    log.warning("edge.mapping_unheard", topics=topics[:20], more=max(0, len(topics) - 20), cure=cure)
            for topic, path in self.decoder.silent():
                cure = (
                    "correct the path, or leave the value out; shoal edge --check-mapping shows what a message becomes"
                )
                log.warning("edge.mapping_silent", topic=topic, path=path, cure=cure)

    def counters(self) -> dict[str, float]:
        """For `up/health`."""
        counts = self.counts
        return {
            "mapped_messages": counts.messages,
            "mapped_readings": counts.readings,
            "mapped_refused": counts.refused,
            "mapped_skipped": counts.skipped,
        }

    async def _gather(self, source: Source, count: int) -> None:
        """Let more come, which the next list will have, for `every_s` or until they are many."""
        looks = math.ceil(self.every_s / LOOK_S)
        for _ in range(looks):
            if count + source.waiting >= HURRY:
                return
            await asyncio.sleep(self.every_s / looks)

    def _arrivals(self, received: Sequence[Received]) -> list[int]:
        """When each came, µs: the list waited for the one before it."""
        now, ticks = self.clock.now(), self.monotonic()
        return [now - max(0, round((ticks - one.arrived_s) * 1e6)) for one in received]

    def _count(self, decoded: Decoded) -> None:
        self.counts.messages += 1
        self.counts.readings += sum(one.readings for one in decoded.samples)
        self.counts.refused += len(decoded.problems)
        self.counts.skipped += bool(decoded.skipped)

    def _take_now(self, samples: list[Samples], problems: list[tuple[Problem, bytes]], now: int) -> None:
        """In the disk's thread, inside the transaction: numbers go on only with what is committed."""
        bursts = bursts_of(samples, self._number)
        incoming = [Incoming(device, burst.encode(), burst) for device, burst in bursts]
        ticks = self.monotonic()
        self.intake.take_now(incoming, now, ticks)
        for problem, sample in problems:
            self.intake.refuse_now(problem.device, problem.reason, problem.readings, sample, now, ticks)

    def _number(self, device: str, readings: int) -> tuple[int, int]:
        seq, first = self._numbers.get(device) or self.intake.goes_on(device, BOOT)
        self._numbers[device] = seq + 1, first + readings
        return seq, first


Number = Callable[[str, int], tuple[int, int]]
"""Seq and first of the next burst of a device, which has so many readings."""


def bursts_of(samples: Iterable[Samples], number: Number) -> Iterator[tuple[str, Burst]]:
    """Samples of one device and the same metrics as one burst each, in order.

    First one burst of every device, then the second of every device, …: so cleaning can take many devices at once.
    """
    devices: dict[str, dict[tuple[str, ...], list[list[Samples]]]] = {}
    for one in samples:
        parts = devices.setdefault(one.device, {}).setdefault(tuple(one.columns), [[]])
        if sum(len(part.at) for part in parts[-1]) + len(one.at) > MAX_SAMPLES:
            parts.append([])
        parts[-1].append(one)
    by_device = [[part for parts in kinds.values() for part in parts] for kinds in devices.values()]
    for together in zip_longest(*by_device):
        yield from ((part[0].device, _burst(part, number)) for part in together if part)


def _burst(part: list[Samples], number: Number) -> Burst:
    """Not validated again: numbers are finite, times in range and columns of one length by their making."""
    device, t0, columns = part[0].device, part[0].at[0], part[0].columns
    at = [at - t0 for one in part for at in one.at]
    if len(part) > 1:
        columns = {metric: [value for one in part for value in one.columns[metric]] for metric in columns}
    seq, first = number(device, len(at) * len(columns))
    return Burst.model_construct(
        boot=BOOT, seq=seq, floor=None, first=first, t0=t0, at=at, columns=columns, units=part[0].units, events=[]
    )


def _sample(problem: Problem, one: Received) -> bytes:
    return f"{problem.why[:150]} | {one.topic} ".encode() + one.payload[:200]
