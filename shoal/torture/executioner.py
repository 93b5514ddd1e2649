"""Whom to kill, when, and that something was at stake: seeded, and every kill follows one rule.

The victim is frozen (SIGSTOP), and with an edge node ingest too, so that nobody confirms anything meanwhile. What was
under way on the bus comes to rest, and the witness looks: if at least one batch that was handed over (by this node,
where an edge is the victim) is not confirmed, the frozen process is killed (SIGKILL): whatever it had not done by
then it never does. Else all go on, and it is tried again a moment later, for at most `PATIENCE_S`. So every kill
counted here happened with an unconfirmed batch, and is as sudden as a kill at the moment of the freeze.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shoal.torture.stage import INGEST, Stage
from shoal.torture.witness import Witness

SETTLE_S = 0.06
"""So long what was sent before the freeze may take to reach the witness."""
AGAIN_S = (0.02, 0.12)
PATIENCE_S = 10.0
DOWN_S = (0.05, 1.5)
"""Time between a death and the next start."""
BOTH = 0.15
"""Share of strikes that take two kinds of victims at once."""
BLACKOUT = 0.05
"""Share of strikes that take one victim of every kind at once, after ingest has stood still for `PAUSED_S`: what was
handed over meanwhile is nowhere but on a node's disk."""
PAUSE = 0.1
"""Share of strikes that only freeze a victim for a while."""
PAUSED_S = (0.3, 1.5)


@dataclass(frozen=True)
class Kill:
    """One death."""

    at_s: float
    victim: str
    name: str
    unconfirmed: int
    """Batches handed over and not confirmed, at the least."""


@dataclass
class Executioner:
    """`victims`: kind → processes, of which one is chosen."""

    stage: Stage
    witness: Witness
    victims: Mapping[str, Sequence[str]]
    rng: random.Random
    blackout: float = BLACKOUT
    kills: list[Kill] = field(default_factory=list)
    spared: int = 0
    """Strikes given up because nothing was at stake."""
    pauses: int = 0
    _bag: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """Kills per kind of victim."""
        return Counter(kill.victim for kill in self.kills)

    async def work(self, *, wanted: int, seconds: float, tell: Callable[[], None]) -> None:
        """At least `wanted` kills of every kind, spread over `seconds`; twice as long at most."""
        began = time.monotonic()
        while True:
            gone = time.monotonic() - began
            missing = sum(max(0, wanted - self.counts[kind]) for kind in self.victims)
            if (gone >= seconds and not missing) or gone >= 2 * seconds:
                return
            # What is left of the time, shared by what is left to do; the strike itself takes some of it.
            share = max(0.0, seconds - gone) / max(1, missing) - sum(DOWN_S) / 2 - SETTLE_S
            until = time.monotonic() + max(0.1, self.rng.uniform(0.6, 1.4) * share)
            while time.monotonic() < until:
                await asyncio.sleep(0.05)
                self.stage.check()
                tell()
            await self._strike(self._choose(), began)
            tell()

    # --- private ----------------------------------------------------------------------------------

    def _choose(self) -> list[tuple[str, str]]:
        """(kind, process) of whom to strike: every kind in turn, in a random order."""
        if self.rng.random() < self.blackout:
            return [(kind, self.rng.choice(names)) for kind, names in self.victims.items()]
        chosen: dict[str, str] = {}
        for _ in range(2 if self.rng.random() < BOTH else 1):
            if not self._bag:
                self._bag = self.rng.sample(sorted(self.victims), len(self.victims))
            kind = self._bag.pop()
            chosen.setdefault(kind, self.rng.choice(self.victims[kind]))
        return list(chosen.items())

    async def _strike(self, chosen: list[tuple[str, str]], began: float) -> None:
        if len(chosen) == len(self.victims) > 2:
            self.stage.freeze(INGEST)
            await asyncio.sleep(self.rng.uniform(*PAUSED_S))
        elif len(chosen) == 1 and self.rng.random() < PAUSE:
            self.stage.freeze(chosen[0][1])
            self.pauses += 1
            await asyncio.sleep(self.rng.uniform(*PAUSED_S))
            self.stage.thaw(chosen[0][1])
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.stage.check()
            frozen = {name for _, name in chosen} | ({INGEST} if any(kind == "edge" for kind, _ in chosen) else set())
            for name in sorted(frozen, key=lambda name: name == INGEST):
                self.stage.freeze(name)
            await asyncio.sleep(SETTLE_S)
            stakes = {name: self.witness.unconfirmed(name if kind == "edge" else None) for kind, name in chosen}
            if all(stakes.values()):
                for kind, name in chosen:
                    await asyncio.to_thread(self.stage.kill, name)
                    self.kills.append(Kill(time.monotonic() - began, kind, name, stakes[name]))
                for name in frozen - {name for _, name in chosen}:
                    self.stage.thaw(name)
                for _, name in chosen:
                    await asyncio.sleep(self.rng.uniform(*DOWN_S) / len(chosen))
                    self.stage.start(name)
                return
            for name in frozen:
                self.stage.thaw(name)
            await asyncio.sleep(self.rng.uniform(*AGAIN_S))
        self.spared += 1
