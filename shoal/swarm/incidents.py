"""What comes from outside while a swarm runs over brokers: orders, cancellations, and processes that are killed.

    incidents = Incidents(swarm, stage, uplink, watcher, follower)
    await incidents.begin(kills); await incidents.befall()          # once per step

An order is sent until its baton is seen; a cancellation until its baton says so. A process that comes back is waited
for: it takes real time to start, and plant time stands meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from messages.broker import Broker
from messages.clock import SECOND
from messages.contracts import Order, OrderedJob
from messages.errors import BusLost
from messages.observe import Watcher
from messages.routes import ORDER, SIGNAL
from shoal.processes import ProcessFailed
from shoal.stage import Stage, in_thread
from shoal.swarm.bus_cast import order_of, rushed
from shoal.swarm.disturb import Happening
from shoal.swarm.follow import Follower
from shoal.swarm.outcome import Swarm, Trouble

AGAIN_S = 1.0
"""Real time after which an order that nobody took up is sent again."""
BROKER_DOWN_S = 0.3
"""A broker that is killed in passing comes back after so much real time."""
START_S = 30.0
"""Real time in which a process should be back."""


@dataclass(frozen=True)
class Kill:
    """A process that is killed (SIGKILL) and comes back with what is on its disk."""

    at_s: float
    who: str
    """a node's name, `judge` (the cloud's process), `broker` (the site's), or `uplink` (the cloud's broker)"""
    lasts_s: float = 0.0
    """Plant time; a broker comes back at once where this is 0."""


@dataclass
class Incidents:
    """Everything that was ordered and has befallen so far."""

    swarm: Swarm
    stage: Stage
    uplink: Broker
    cloud: Watcher
    follower: Follower
    troubles: list[tuple[Trouble, Happening | None]] = field(default_factory=list)
    """with the happening it is, or is like; None: a broker was killed in passing"""
    cancelled: dict[str, int] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    _placed: dict[str, Order] = field(default_factory=dict)
    _todo: list[tuple[int, int, Callable[[], Awaitable[None]]]] = field(default_factory=list)
    _count: int = 0
    _again_s: float = 0.0

    def __post_init__(self) -> None:
        self.jobs = [*self.swarm.jobs, *(job for _, job in rushed(self.swarm).values())]

    @property
    def to_come(self) -> int | None:
        """When the last of what is planned happens; None: nothing more will."""
        return max((when for when, _, _ in self._todo), default=None)

    async def begin(self, kills: Sequence[Kill] = ()) -> None:
        """First orders and forecasts; plant time begins when they are heard. Everything else is planned."""
        await self.stage.clock.step(to=self.stage.clock.now)  # now the cloud knows what time it is, and begins to hear
        await self._tell_signals()
        for job in self.swarm.jobs:
            await self._send(Order(order=order_of(job.job), placed_at=self.swarm.start, jobs=[job]))
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s and not all(job.job in self.follower.batons for job in self.swarm.jobs):
            await asyncio.sleep(0.02)
            await self._say_again()
        rush = rushed(self.swarm)
        for happening in self.swarm.scenario.happenings:
            self._plan(happening, rush)
        for kill in kills:
            self._at(self.swarm.start + round(kill.at_s * SECOND), partial(self._kill, kill.who, kill.lasts_s))

    async def befall(self) -> None:
        """What is due by now, in order of time."""
        now = self.stage.clock.now
        for one in sorted(one for one in self._todo if one[0] <= now):
            self._todo.remove(one)
            await one[2]()
        await self._say_again()

    def check(self) -> None:
        """ProcessFailed if a broker ended that nobody killed on purpose: without it nothing would move any more."""
        for who, whose in (("broker", "the site's"), ("uplink", "the cloud's")):
            broker = self._broker(who)
            if who not in self.away and not broker.running:
                raise ProcessFailed(f"{whose} broker ended by itself; its log: {broker.log_file}")

    # --- private --------------------------------------------------------------------------------------

    def _at(self, when: int, what: Callable[[], Awaitable[None]]) -> None:
        self._count += 1
        self._todo.append((when, self._count, what))

    def _plan(self, one: Happening, rush: Mapping[str, tuple[int, OrderedJob]]) -> None:
        """What happens to machines is the floor's affair, and only told."""
        at = self.swarm.start + one.at_us
        who = {"node": one.node or "", "judge": "judge", "cloud": "uplink"}.get(one.kind)
        if who is not None:
            self._at(at, partial(self._kill, who, one.lasts_s))
        elif one.kind == "breakdown":
            self._at(at, partial(self._note, one))
        elif one.kind == "cancel" and one.job is not None:
            self._at(at, partial(self._cancel, one, one.job))
        elif one.kind == "rush" and one.job is not None:
            self._at(at, partial(self._rush, one, *rush[one.job]))

    async def _note(self, one: Happening) -> None:
        self.troubles.append((Trouble(self.stage.clock.now, one.kind, one.what), one))

    async def _rush(self, one: Happening, at: int, job: OrderedJob) -> None:
        await self._note(one)
        await self._send(Order(order=order_of(job.job), placed_at=at, jobs=[job]))

    async def _cancel(self, one: Happening, job: str) -> None:
        await self._note(one)
        self.cancelled[job] = now = self.stage.clock.now
        await self._send(Order(order=order_of(job), revision=1, placed_at=now, jobs=[]))

    async def _send(self, order: Order) -> None:
        self._placed[order.order] = order
        with suppress(BusLost):
            await self.cloud.publish(ORDER, order, site=self.swarm.plant.site)

    async def _say_again(self) -> None:
        """Orders that the cloud has not taken up: it was away, or its broker died with them."""
        if time.monotonic() < self._again_s or self.away & {"judge", "uplink"}:
            return
        self._again_s = time.monotonic() + AGAIN_S
        for job in self.jobs:
            order, baton = self._placed.get(order_of(job.job)), self.follower.batons.get(job.job)
            if order is None:
                continue
            if baton is None or (not order.jobs and baton.state not in ("cancelled", "done")):
                await self._send(order)

    async def _tell_signals(self) -> None:
        for signal in self.swarm.signals.values():
            with suppress(BusLost):
                await self.cloud.publish(SIGNAL, signal, site=self.swarm.plant.site, signal=signal.name)

    async def _kill(self, who: str, lasts_s: float) -> None:
        if who in self.away:
            return
        self._tell(who, lasts_s)
        self.away.add(who)
        if who in ("broker", "uplink"):
            await in_thread(self._broker(who).kill)
        else:
            await in_thread(partial(self.stage.kill, _process(who)))
        if lasts_s:
            self._at(self.stage.clock.now + round(lasts_s * SECOND), partial(self._back, who))
        else:
            await asyncio.sleep(BROKER_DOWN_S)
            await self._back(who)

    def _tell(self, who: str, lasts_s: float) -> None:
        now = self.stage.clock.now
        if not lasts_s:
            self.troubles.append((Trouble(now, "broker", "the site's" if who == "broker" else "the cloud's"), None))
            return
        kind = {"judge": "judge", "uplink": "cloud"}.get(who, "node")
        like = {"kind": kind, "at_s": (now - self.swarm.start) / SECOND, "lasts_s": lasts_s}
        one = Happening.model_validate(like | ({"node": who} if kind == "node" else {}))
        self.troubles.append((Trouble(now, one.kind, one.what), one))

    async def _back(self, who: str) -> None:
        if who == "judge" and "uplink" in self.away:  # without its broker it could not begin
            self._at(self.stage.clock.now + 1, partial(self._back, who))
            return
        self.away.discard(who)
        if who in ("broker", "uplink"):
            await in_thread(self._broker(who).start)
            if who == "uplink":  # it may have forgotten what it retained
                await self._tell_signals()
            return
        self.stage.start(_process(who))
        if "broker" not in self.away:  # it takes part in the clock when it is connected
            with suppress(TimeoutError):
                await self.stage.clock.gather({_process(who)}, timeout_s=START_S)

    def _broker(self, who: str) -> Broker:
        return self.stage.broker if who == "broker" else self.uplink


def _process(who: str) -> str:
    return "cloud" if who == "judge" else who
