"""Time in jumps from event to event, and messages under way. Deterministic: the same seed gives the same course.

    world = World(start)
    world.at(start + SECOND, DELIVERY, lambda: …)
    while world.step(): …

What happens at one instant goes by rank: first what befalls the plant, then the floor, messages, nodes, and the judge
last, so that it decides when everything of that instant is known. Bound: `MOST_AT_ONCE` events at one instant; beyond
it somebody talks to himself, and that is a BrokenInvariant.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from messages.clock import SECOND
from messages.errors import BrokenInvariant
from shoal.swarm.disturb import Scenario

HAPPENING, FLOOR, DELIVERY, NODE, JUDGE = range(5)
"""Ranks."""
MOST_AT_ONCE = 200_000
OVERTAKEN_S = 5.0
"""A message that is overtaken comes up to this much later, or five times the greatest delay if that is more."""

Call = Callable[[], None]


class World:
    """What is to happen, in order of time, rank, and being said."""

    def __init__(self, start: int) -> None:
        self.now = start
        self.events = 0
        self._order = 0
        self._at_once = 0
        self._heap: list[tuple[int, int, int, Call]] = []

    def at(self, when: int, rank: int, what: Call) -> None:
        """Let it happen then; what is past happens now."""
        self._order += 1
        heapq.heappush(self._heap, (max(when, self.now), rank, self._order, what))

    def step(self) -> bool:
        """The next event; False: nothing is to happen any more."""
        if not self._heap:
            return False
        when, _, _, what = heapq.heappop(self._heap)
        if when > self.now:
            self.now, self._at_once = when, 0
        self._at_once += 1
        if self._at_once > MOST_AT_ONCE:
            raise BrokenInvariant(f"{MOST_AT_ONCE} events at one instant of the simulation, the last of {what}")
        self.events += 1
        what()
        return True


class Alarm:
    """Rings at the time it was last set to, once."""

    __slots__ = ("rank", "ring", "when", "world")

    def __init__(self, world: World, rank: int, ring: Call) -> None:
        self.world, self.rank, self.ring = world, rank, ring
        self.when: int | None = None

    def set(self, when: int | None) -> None:
        """Ring then and at no other time; None: not at all."""
        if when is not None:
            when = max(when, self.world.now)
        if when != self.when:
            self.when = when
            if when is not None:
                self.world.at(when, self.rank, partial(self._ring, when))

    def _ring(self, when: int) -> None:
        if self.when == when:
            self.when = None
            self.ring()


class Wire:
    """Messages under way, lost, doubled, delayed and overtaken at the rates of a scenario."""

    def __init__(self, world: World, scenario: Scenario, rng: random.Random) -> None:
        self.world, self.scenario, self.rng = world, scenario, rng
        self.counts: Counter[str] = Counter()
        self.lost = self.doubled = self.overtaken = 0
        self.calm = not (scenario.lose or scenario.double or scenario.delay or scenario.reorder)

    def send(self, kind: str, deliver: Callable[[Any], None], message: Any, *, rank: int = DELIVERY) -> None:
        """On its way; it may be lost, or come twice."""
        self.counts[kind] += 1
        if self.calm:
            self.world.at(self.world.now, rank, partial(deliver, message))
            return
        rng, scenario = self.rng, self.scenario
        copies = 1
        if rng.random() < scenario.lose:
            copies, self.lost = 0, self.lost + 1
        elif rng.random() < scenario.double:
            copies, self.doubled = 2, self.doubled + 1
        for _ in range(copies):
            late_s = rng.random() * scenario.delay
            if rng.random() < scenario.reorder:
                late_s += rng.random() * max(OVERTAKEN_S, 5 * scenario.delay)
                self.overtaken += 1
            self.world.at(self.world.now + round(late_s * SECOND), rank, partial(deliver, message))

    def late_us(self) -> int:
        """How long something takes that is repeated until it has arrived."""
        return 0 if self.calm else round(self.rng.random() * self.scenario.delay * SECOND)
