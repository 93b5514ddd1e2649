"""A node that means harm, for demonstrations and tests: it enrols, and what it sends to rounds is poison.

    poisoned = Poisoned(host, port, site="s1", name="stranger", seed=1)
    await poisoned.run()                    # until cancelled; poisoned.sent says what it sent

It has a key of its own and signs properly, so that only what it sends can betray it: in turns an update that is no
number, and one a hundred times as long as an honest one. It is an actor of its own; no node of the product can be set
to this. Bounds: one update per round, `REMEMBERED` rounds.
"""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from messages.bus import Bus, Received
from messages.contracts import Capability, Presence
from messages.errors import BusLost
from messages.learning import Round, UpdateHead
from messages.routes import CAPABILITY, PRESENCE, ROUND, UPDATE
from messages.signing import SigningKey
from messages.updates import Vector, signed

REMEMBERED = 1_000
SAMPLES = 5_000
"""It claims to have learned from as many transitions as weigh most."""
LONG = 10.0
"""Standard deviation of its numbers; those of honest nodes change by about a hundredth of this in a round."""
SESSION = "bad0bad0"


class Poisoned:
    """One of them."""

    def __init__(self, host: str, port: int, *, site: str, name: str, seed: int) -> None:
        self.site, self.name = site, name
        self.key = SigningKey.generate()
        self.sent: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)
        """(round, what)"""
        self._rng = np.random.default_rng(seed)
        will = (PRESENCE.topic(site=site, node=name), Presence(online=False, session=SESSION).encode())
        self._bus = Bus(host, port, client_id=f"{site}-{name}", will=will, session_expiry_s=0, backoff_s=(0.1, 1.0))
        self._bus.on(ROUND, self._on_round, site=site)
        self._bus.on_connect(self._enrol)

    async def run(self) -> None:
        """Until cancelled."""
        await self._bus.run()

    async def _enrol(self) -> None:
        at = time.time_ns() // 1000
        shown = Capability(revision=at, software="poisoned", devices=[], public_key=self.key.public)
        await self._bus.publish(CAPABILITY, shown, site=self.site, node=self.name)
        await self._bus.publish(PRESENCE, Presence(online=True, session=SESSION, at=at), site=self.site, node=self.name)

    async def _on_round(self, received: Received) -> None:
        asked: Round = received.message.body
        if asked.closed is not None or (self.sent and asked.round <= self.sent[-1][0]):
            return
        what, delta = self._poison(asked)
        head = UpdateHead(
            model=asked.model,
            round=asked.round,
            base=asked.base.sha256,
            at=asked.opened_at,
            codec=asked.codec,
            samples=SAMPLES,
            steps=asked.training.steps,
        )
        update = signed(head, delta, self.key, name=self.name)
        try:
            await self._bus.publish(UPDATE, update, site=self.site, node=self.name, round=str(asked.round))
        except BusLost:
            return  # the round is said again after the next connect
        self.sent.append((asked.round, what))

    def _poison(self, asked: Round) -> tuple[str, Vector]:
        if len(self.sent) % 2 == 0:
            return "numbers that are none", np.full(asked.shared, np.nan, np.float32)
        long = self._rng.standard_normal(asked.shared) * LONG
        return "a hundred times as long as others", long.astype(np.float32)
