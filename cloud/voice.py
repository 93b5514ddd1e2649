"""What a judge says, in order: queued when it is on the disk, sent by one task as fast as the broker takes it.

    voice = Voice(bus, site="s1")
    voice.say(OFFER, offer, node="cell-1", task="b07-0"); voice.latest(WORKPIECE, baton, workpiece="b07")
    await voice.run()                   # until cancelled
    await voice.said(1.0)               # everything so far is with the broker

What is said while there is no connection is dropped: whoever speaks says its retained state again on every connect,
and everything else is repeated or runs out. Bounds: `QUEUED` messages wait, further ones are dropped and counted as
`unsaid`; of what only its latest state matters one per topic waits, sent when nothing else does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from messages.bus import Bus
from messages.errors import BusLost
from messages.message import Message
from messages.route import Route

QUEUED = 50_000
"""Messages that may wait."""


@dataclass(frozen=True, slots=True)
class _Word:
    route: Route
    ids: dict[str, str]
    message: Message | None  # None: the topic is cleared
    expiry_s: int | None = None
    then: Callable[[], None] | None = None


@dataclass
class Voice:
    """One site's judge on one connection."""

    bus: Bus
    site: str
    unsaid: int = 0
    _queue: deque[_Word] = field(default_factory=deque)
    _latest: dict[str, _Word] = field(default_factory=dict)
    _sent: set[asyncio.Future[None]] = field(default_factory=set)
    _some: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, route: Route, message: Message, *, expiry_s: int | None = None, **ids: str) -> None:
        """In its turn."""
        self._put(_Word(route, {"site": self.site, **ids}, message, expiry_s))

    def clear(self, route: Route, *, then: Callable[[], None] | None = None, **ids: str) -> None:
        """Take what is retained back, in its turn; `then` is called once the broker has done so."""
        self._put(_Word(route, {"site": self.site, **ids}, None, None, then))

    def latest(
        self, route: Route, message: Message | None, *, then: Callable[[], None] | None = None, **ids: str
    ) -> None:
        """When there is time; what was not sent yet of the same topic is left out. None: cleared."""
        word = _Word(route, {"site": self.site, **ids}, message, None, then)
        self._latest[route.topic(**word.ids)] = word
        self._wake()

    async def run(self) -> None:
        """Send, until cancelled."""
        while True:
            while self._queue or self._latest:
                await self._send(self._queue.popleft() if self._queue else self._latest.pop(next(iter(self._latest))))
            if not self._sent:
                self._idle.set()
            self._some.clear()
            await self._some.wait()

    async def said(self, timeout_s: float) -> bool:
        """Whether everything said so far reached the broker within this real time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                return True
        return False

    def _put(self, word: _Word) -> None:
        if len(self._queue) >= QUEUED:
            self.unsaid += 1
            return
        self._queue.append(word)
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._some.set()

    async def _send(self, word: _Word) -> None:
        payload = b"" if word.message is None else None
        while True:
            try:
                sent = self.bus.publish_nowait(
                    word.route, word.message, expiry_s=word.expiry_s, payload=payload, **word.ids
                )
            except BusLost:
                if not self._sent:  # no connection, or it is ours that is not answered: nothing to wait for
                    self.unsaid += 1
                    return
                await asyncio.wait(self._sent, return_when=asyncio.FIRST_COMPLETED)
                continue
            break
        self._sent.add(sent)
        sent.add_done_callback(lambda done: self._look(done, word))

    def _look(self, done: asyncio.Future[None], word: _Word) -> None:
        self._sent.discard(done)
        if not done.cancelled():
            error = done.exception()
            if error is None:
                if word.then is not None:
                    word.then()
            elif isinstance(error, BusLost):
                self.unsaid += 1
        if not self._sent:
            self._some.set()  # perhaps all is said
