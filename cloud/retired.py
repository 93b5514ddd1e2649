"""A node that retired: it cleared its presence, so the cloud takes back what it said to it.

    retired = Retired(ledger, bus, ingest)
    retired.listen(settings.sites, settings.nodes)         # before bus.run

Only the node itself may write its presence, and it clears it after everything it held is stored. What the store holds
stays; the ledger forgets the node, and `down/stored` is cleared. Should it speak again, the ledger begins anew by the
`floor` of its batches, and nothing is doubled, because the store knows them. The message is acknowledged when all that
is done, so that it comes again after a crash or a lost connection; a store that is down is waited out.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.ingest import Ingest
from cloud.ledger import Ledger
from messages.bus import Bus, Received
from messages.errors import BusLost, BusRefused
from messages.logs import get_logger
from messages.routes import PRESENCE, STORED

log = get_logger("ingest")


class Retired:
    """Hears presences being cleared."""

    def __init__(self, ledger: Ledger, bus: Bus, ingest: Ingest) -> None:
        """`ingest` knows how to wait for the store."""
        self._ledger, self._bus, self._ingest = ledger, bus, ingest

    def listen(self, sites: Sequence[str], nodes: Sequence[str] = ()) -> None:
        """Whose presence is heard; no nodes: all."""
        for site in sites:
            if not nodes:
                self._bus.on(PRESENCE, self.on_presence, on_cleared=self.on_cleared, site=site)
            for node in nodes:
                self._bus.on(PRESENCE, self.on_presence, on_cleared=self.on_cleared, site=site, node=node)

    async def on_presence(self, received: Received) -> None:
        """A node that is there, or will be again: nothing to do."""

    async def on_cleared(self, ids: dict[str, str]) -> None:
        """A node that will not be again."""

        async def step() -> None:
            changes = self._ledger.all_of(**ids)
            self._ledger.write(changes)
            self._ledger.apply(changes)

        await self._ingest.until_stored(step)
        try:
            await self._bus.clear(STORED, **ids)
        except BusRefused as error:
            log.warning("ingest.not_cleared", **ids, error=str(error))
        except BusLost:
            pass  # this message is not acknowledged either, and comes again
        else:
            log.info("ingest.node_retired", **ids)
