"""What nodes handed over and the store has not confirmed, as anyone may see it on the bus.

    witness = Witness("torture")
    task = asyncio.create_task(witness.follow(watcher))
    witness.unconfirmed("press")            # batches published whose number no StoredThrough covers

It asks the system nothing. It may miss batches (its session ends with its connection), so it sees too few, never too
many; StoredThrough says everything again, and is retained.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from messages.contracts import Batch, Health, LaneStored, Presence, StoredThrough
from messages.errors import BadMessage
from messages.observe import Watcher
from messages.routes import BATCH, HEALTH, PRESENCE, STORED

Key = tuple[str, str]
"""epoch, lane"""


@dataclass
class Witness:
    """Follows one site's bus."""

    site: str
    online: set[str] = field(default_factory=set)
    """nodes whose presence says so"""
    health: dict[str, tuple[float, Health]] = field(default_factory=dict)
    """node → when it last spoke of its counters (monotonic s), and they"""
    _out: dict[str, set[tuple[Key, int]]] = field(default_factory=dict)
    _stored: dict[str, dict[Key, LaneStored]] = field(default_factory=dict)

    async def follow(self, watcher: Watcher) -> None:
        """Look at every message of the site, until cancelled."""
        async for seen in watcher.messages(f"shoal/v1/{self.site}/#"):
            self.look(seen.topic, seen.payload)

    def look(self, topic: str, payload: bytes) -> None:
        """One message."""
        try:
            if BATCH.matches(topic):
                self._batch(BATCH.ids(topic)["node"], Batch.decode(payload))
            elif STORED.matches(topic):
                self._said(STORED.ids(topic)["node"], StoredThrough.decode(payload))
            elif HEALTH.matches(topic):
                node, health = HEALTH.ids(topic)["node"], Health.decode(payload)
                self.health[node] = (time.monotonic(), health)
            elif PRESENCE.matches(topic):
                self._presence(PRESENCE.ids(topic)["node"], Presence.decode(payload))
        except BadMessage:
            return  # what breaks a contract is not ours to judge

    def unconfirmed(self, node: str | None = None) -> int:
        """Batches (of one node) that were published and are not confirmed."""
        return sum(len(out) for name, out in self._out.items() if node in (None, name))

    # --- private ----------------------------------------------------------------------------------

    def _batch(self, node: str, batch: Batch) -> None:
        key = (batch.epoch, batch.lane)
        number = (key, batch.seq)
        stored = self._stored.get(node, {}).get(key)
        if stored is None or not _covers(stored, batch.seq):
            self._out.setdefault(node, set()).add(number)

    def _said(self, node: str, said: StoredThrough) -> None:
        stored = self._stored.setdefault(node, {})
        for epoch, lanes in said.epochs.items():
            for lane, what in lanes.items():
                stored[epoch, lane] = what
        out = self._out.get(node, set())
        out -= {(key, seq) for key, seq in out if key in stored and _covers(stored[key], seq)}

    def _presence(self, node: str, presence: Presence) -> None:
        if presence.online:
            self.online.add(node)
        else:
            self.online.discard(node)


def _covers(stored: LaneStored, seq: int) -> bool:
    return seq <= stored.through or any(low <= seq <= high for low, high in stored.ranges)
