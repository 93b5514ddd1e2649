"""The connection that brings artefacts: it is there while some are wanted, and hears only these.

    fetching = ArtefactFetching(connect, on_part, site="s1")
    fetching.want(said.wanted)                   # whenever that may have changed
    await fetching.run()                         # until cancelled
    await fetching.settled(10.0)                 # everything has come, or nothing more is to be waited for

So nothing else waits behind megabytes. What is retained comes once for a subscription: what left the list and is wanted
again is asked for on a connection of its own. Bounds: one connection at a time, as many subscriptions as artefacts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from messages.bus import Bus, Received
from messages.learning import Artefact
from messages.logs import get_logger
from messages.routes import ARTEFACT

log = get_logger("edge")


class ArtefactFetching:
    """Of one node."""

    def __init__(
        self, connect: Callable[[], Bus], on_part: Callable[[Received], Awaitable[None]], *, site: str
    ) -> None:
        """`connect`: a new connection to the cloud's broker."""
        self._connect, self._on_part, self._site = connect, on_part, site
        self.wanted: tuple[Artefact, ...] = ()
        self._owed: set[str] = set()
        """digests that this connection has yet to bring"""
        self._missed: set[str] = set()
        self._changed = asyncio.Event()
        self._fetched = asyncio.Event()
        self._fetched.set()

    def want(self, wanted: tuple[Artefact, ...]) -> None:
        """These, and no others."""
        self.wanted = wanted
        self._owed &= self._digests
        self._changed.set()
        if not wanted:
            self._fetched.set()
        else:
            self._fetched.clear()

    async def settled(self, timeout_s: float) -> None:
        """Nothing is wanted any more, or the time is over: what did not come then is not waited for twice."""
        if self._digests == self._missed:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._fetched.wait()
        except TimeoutError:
            self._missed = self._digests
            log.warning("edge.not_fetched", wanted=sorted(self._missed), why="plant time goes on without them")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while not self.wanted:
                self._changed.clear()
                await self._changed.wait()
            self._owed = self._digests
            bus = self._connect()
            for digest in sorted(self._owed):
                bus.on(ARTEFACT, self._on_part, site=self._site, digest=digest)
            running = asyncio.create_task(bus.run(), name="artefacts bus")
            try:
                while self.wanted and self._digests <= self._owed:
                    self._changed.clear()
                    looking = asyncio.create_task(self._changed.wait())
                    await asyncio.wait({looking, running}, return_when=asyncio.FIRST_COMPLETED)
                    looking.cancel()
                    if running.done():
                        await running
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    @property
    def _digests(self) -> set[str]:
        return {one.digest for one in self.wanted}
