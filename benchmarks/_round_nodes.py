"""Nodes that take part in rounds of no steps, for `round.py`: `python _round_nodes.py PORT COUNT CLOUD_KEY`.

Each has a session of its own, checks the round's signature, gathers the base, takes it over, signs what changed
(nothing) and sends it: everything of a round but the learning. They share one process.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from edge.learner import Learner
from edge.learning import LearnerSettings
from edge.training import Trainer
from messages.bus import Bus, Received
from messages.cells import NETWORK
from messages.clock import WallClock
from messages.contracts import Capability, Presence
from messages.learning import Artefact, Round
from messages.routes import ARTEFACT, CAPABILITY, PRESENCE, ROUND, UPDATE
from messages.signing import SigningKey, public_key, verify

SITE = "bench"


class ModelLearner:
    """One node."""

    def __init__(self, port: int, number: int, cloud: str) -> None:
        self.name, self.keys = f"node-{number}", {"cloud": public_key(cloud)}
        self.key = SigningKey.from_seed(number.to_bytes(32, "big"))
        rng = np.random.default_rng(number)
        learner = Learner.fresh(NETWORK, LearnerSettings(remembered=100), rng)
        self.trainer = Trainer("cell", learner, self.key, name=self.name, rng=rng, keep=lambda update: None)
        self.parts: dict[str, bytes] = {}
        self.asked: Round | None = None
        self.bus = Bus("127.0.0.1", port, client_id=f"learner-{number}", session_expiry_s=0)
        self.bus.on(ROUND, self.on_round, site=SITE)
        self.bus.on(ARTEFACT, self.on_part, on_cleared=self.on_cleared, site=SITE)
        self.bus.on_connect(self.hello)

    async def hello(self) -> None:
        shown = Capability(revision=1, software="bench", devices=[], public_key=self.key.public)
        await self.bus.publish(CAPABILITY, shown, site=SITE, node=self.name)
        await self.bus.publish(PRESENCE, Presence(online=True, session="0" * 8), site=SITE, node=self.name)

    async def on_round(self, received: Received) -> None:
        verify(received.payload, self.keys)
        asked: Round = received.message.body
        self.asked = asked if self.trainer.wants(asked, WallClock().now()) else None
        await self.learn()

    async def on_part(self, received: Received) -> None:
        self.parts[received.ids["digest"]] = received.payload
        await self.learn()

    async def on_cleared(self, ids: dict[str, str]) -> None:
        self.parts.pop(ids["digest"], None)

    async def learn(self) -> None:
        base = self.parts.get(self.asked.base.digest) if self.asked else None
        if self.asked is None or base is None or Artefact.of(base) != self.asked.base:
            return
        asked, self.asked, now = self.asked, None, WallClock().now()
        self.trainer.on_round(asked, base, now)
        update = self.trainer.work(0, now)
        assert update is not None
        await self.bus.publish(UPDATE, update, site=SITE, node=self.name, round=str(asked.round))


async def main(port: int, count: int, cloud: str) -> None:
    async with asyncio.TaskGroup() as tg:
        for number in range(count):
            tg.create_task(ModelLearner(port, number, cloud).bus.run())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
