"""Updates on their way to the broker: each goes out until the broker has it, or its round is over.

    posting = Posting(bus, site="s1", node="press-4")
    posting.put(update)
    posting.over("cell", 7)                      # that round is closed
    await posting.run()                          # until cancelled

Bound: one update for each model, the newest. One that is larger than the broker takes is said and dropped.
"""

from __future__ import annotations

import asyncio

from messages.bus import Bus
from messages.errors import BadMessage, BusLost
from messages.learning import Update
from messages.logs import get_logger
from messages.routes import UPDATE

AGAIN_S = 1.0
"""Between two attempts, while the connection stands."""

log = get_logger("edge")


class Posting:
    """Of one node."""

    def __init__(self, bus: Bus, *, site: str, node: str) -> None:
        self._bus, self._site, self._node = bus, site, node
        self._waiting: dict[str, Update] = {}
        """by model: not yet with the broker"""
        self._mail = asyncio.Event()

    def put(self, update: Update) -> None:
        """To be sent, in place of one before."""
        self._waiting[update.head.model] = update
        self._mail.set()

    def over(self, model: str, number: int) -> None:
        """This round is closed: nobody takes an update for it any more."""
        unsent = self._waiting.get(model)
        if unsent is not None and unsent.head.round <= number:
            del self._waiting[model]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._mail.wait()
            self._mail.clear()
            await self._bus.connected.wait()
            for model, update in list(self._waiting.items()):
                number = str(update.head.round)
                try:
                    await self._bus.publish(UPDATE, update, site=self._site, node=self._node, round=number)
                except BusLost:
                    self._mail.set()
                    continue
                except BadMessage as error:  # larger than the broker takes
                    log.error("edge.update_not_sent", why=str(error), cure="open rounds with the codec float16 or int8")
                if self._waiting.get(model) is update:
                    del self._waiting[model]
            if self._mail.is_set():
                await asyncio.sleep(AGAIN_S)
