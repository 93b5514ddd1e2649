"""The durable bus of services: handlers by route, acknowledged when they return, reconnecting for ever.

    bus = Bus("127.0.0.1", 1883, client_id="s1-press-4")
    bus.on(OFFER, node.on_offer, site="s1", node="press-4")         # before run: a resumed session delivers at once
    bus.on(RAW, node.on_bursts, batch=True, site="s1", node="press-4")
    bus.on_raw(["tele/+/SENSOR"], foreign.on_messages)              # topics that are nobody's route: bytes, in lists
    bus.on_connect(node.republish_state)                            # after every (re)connect
    await bus.run()                                                 # until cancelled

Promises: one handler runs at a time, in the order of arrival (a batch handler gets all messages of its route
that wait); a message is acknowledged after its handler returned, so a crash means *again*; a message the
handler refuses (BadMessage) is dead-lettered, counted and acknowledged; any other exception ends `run`.
Nothing is published while disconnected, and nothing is acknowledged on another connection than it came by.
Bounds: a batch has at most `receive_maximum` messages; when twice as many wait, QoS 0 is dropped and counted,
and the socket is left unread (except while we wait for an answer of the broker).
A handler may publish, but must not wait for another message of this bus: the next one comes after it returns.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, overload

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from messages.connection import Connection, Endpoint
from messages.errors import BadMessage, BrokenInvariant, BusLost, BusRefused, UsageError
from messages.logs import get_logger
from messages.message import Message
from messages.route import Route

STOP_S = 2.0
"""Each step of a clean stop (handler, last words, goodbye) may take this long."""

STEADY_S = 5.0
"""A connection that lived so long is steady; shorter ones make the next attempt wait longer."""

TOPICS_REMEMBERED = 10_000
"""Topics whose handler is remembered; beyond that the memory starts again."""

log = get_logger("bus")

Will = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Received:
    """One message as a handler sees it."""

    topic: str
    ids: dict[str, str]
    message: Any  # an instance of the route's message; Any, so that handlers may name their contract
    payload: bytes
    retained: bool = False  # stored state sent because we subscribed, not news
    content_type: str | None = None
    arrived_s: float = 0.0  # monotonic; of raw messages, which may say no time of their own


@dataclass(slots=True)
class Counts:
    """What happened since start; goes out as health figures."""

    connects: int = 0
    reconnects: int = 0
    received: int = 0
    handled: int = 0
    bad: int = 0
    unrouted: int = 0
    cleared: int = 0
    dropped: int = 0
    published: int = 0


Handler = Callable[[Received], Awaitable[None]]
BatchHandler = Callable[[list[Received]], Awaitable[None]]
OnCleared = Callable[[dict[str, str]], Awaitable[None]]
OnBad = Callable[[str, bytes, str], Awaitable[None]]


def tls_context(ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS that verifies the broker (by `ca`, or the system's), with our own certificate when given."""
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(str(path) for path in (ca, cert, key) if path is not None)
        raise UsageError(f"cannot use the TLS files {named}: {error}") from error
    return context


class Bus:
    """A service's connection to one broker. Handlers first, then `run`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        client_id: str,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        will: Will | Callable[[], Will] | None = None,
        receive_maximum: int = 1000,
        send_window: int = 1000,
        session_expiry_s: int = 7 * 24 * 3600,
        keepalive_s: int = 20,
        connect_timeout_s: float = 5.0,
        backoff_s: tuple[float, float] = (0.2, 10.0),
        rng: random.Random | None = None,
    ) -> None:
        if not host or not 0 < port < 65536:
            raise UsageError(f"host={host!r}, port={port}: name a broker, port 1-65535")
        if not client_id:
            raise UsageError("client_id is empty: a persistent session needs a name that stays")
        if not 0 < receive_maximum < 65536 or not 0 < send_window < 65536:
            raise UsageError("receive_maximum and send_window: 1-65535")
        self._endpoint = Endpoint(
            host=host,
            port=port,
            client_id=client_id,
            username=username,
            password=password,
            tls=tls,
            keepalive_s=keepalive_s,
            connect_timeout_s=connect_timeout_s,
            session_expiry_s=session_expiry_s,
            receive_maximum=receive_maximum,
            send_window=send_window,
        )
        self._will = will
        self._backoff_s = backoff_s
        self._rng = rng or random.Random()
        self._table: list[_Entry] = []
        self._known: dict[str, tuple[_Entry, dict[str, str]] | str] = {}
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self._on_bad: OnBad | None = None
        self._queue: deque[tuple[Connection, MQTTMessage]] = deque()
        self._work = asyncio.Event()
        self._link: Connection | None = None
        self._spoken_will: Will | None = None
        self._running = False
        self._warned_at = -1e9
        self.connected = asyncio.Event()
        self.counts = Counts()

    # -- before run -----------------------------------------------------------------------------------

    @overload
    def on(
        self,
        route: Route,
        handler: Handler,
        *,
        batch: Literal[False] = False,
        on_cleared: OnCleared | None = None,
        **ids: str,
    ) -> None: ...
    @overload
    def on(
        self,
        route: Route,
        handler: BatchHandler,
        *,
        batch: Literal[True],
        on_cleared: OnCleared | None = None,
        **ids: str,
    ) -> None: ...
    def on(
        self,
        route: Route,
        handler: Handler | BatchHandler,
        *,
        batch: bool = False,
        on_cleared: OnCleared | None = None,
        **ids: str,
    ) -> None:
        """Give messages of `route` (levels in `ids` fixed) to `handler`; with `batch` all that wait, as a list."""
        self._enter(_Entry(route, (route.filter(**ids),), handler, batch, on_cleared))

    def on_raw(self, filters: Sequence[str], handler: BatchHandler) -> None:
        """Give messages of foreign topics to `handler`: lists of all that wait, `message` None, cleared ones too.

        Filters may have levels `+`, not `#`; none may overlap another or a route's. QoS 1.
        """
        for one in filters:
            if not 0 < len(one.encode()) < 65536 or "#" in one or "\0" in one or one.startswith("$"):
                raise UsageError(f"topic filter {one!r}: give levels and `+`, no `#`, not beginning with `$`")
            if any("+" in level and level != "+" for level in one.split("/")):
                raise UsageError(f"topic filter {one!r}: `+` stands for a whole level")
        self._enter(_Entry(None, tuple(filters), handler, True))

    def _enter(self, entry: _Entry) -> None:
        if self._running:
            raise UsageError("register handlers before run(): a resumed session delivers at once")
        taken = [one for other in self._table for one in other.filters]
        for one in entry.filters:
            for other in taken:
                if _overlap(one, other):
                    raise UsageError(f"{one} and {other} overlap: every message has one handler")
            taken.append(one)
        self._table.append(entry)

    def on_connect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """After every (re)connect and subscription: owners republish their retained state here."""
        self._on_connect.append(callback)

    def on_bad(self, callback: OnBad) -> None:
        """Called with (topic, payload, reason) before a broken message is acknowledged: the dead-letter box."""
        self._on_bad = callback

    # -- publishing -----------------------------------------------------------------------------------

    async def publish(
        self,
        route: Route,
        message: Message | None = None,
        *,
        expiry_s: int | None = None,
        payload: bytes | None = None,
        **ids: str,
    ) -> None:
        """Send and, at QoS 1, wait for PUBACK (which is not delivery). BusLost when it cannot be known to be sent.

        `payload` replaces the encoding of `message`, for bytes that were fixed earlier. Waits while the send
        window is full.
        """
        sent = route.topic(**ids), _payload(route, message, payload)
        link = self._live()
        await link.wait_room(route.qos)
        await self._send(link, route, *sent, expiry_s)

    def publish_nowait(
        self,
        route: Route,
        message: Message | None = None,
        *,
        expiry_s: int | None = None,
        payload: bytes | None = None,
        **ids: str,
    ) -> asyncio.Future[None]:
        """Send at once; the future is done at PUBACK. BusLost when disconnected or the send window is full."""
        return self._send(self._live(), route, route.topic(**ids), _payload(route, message, payload), expiry_s)

    async def clear(self, route: Route, **ids: str) -> None:
        """Remove the retained message of these ids."""
        if not route.retained:
            raise UsageError(f"route {route.name} is not retained: there is nothing to clear")
        link = self._live()
        await link.wait_room(1)
        await link.publish(route.topic(**ids), b"", qos=1, retain=True)

    @property
    def waiting(self) -> int:
        """Messages that have come and are not handled yet."""
        return len(self._queue)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Return when connected, subscribed and greeted; BusLost after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self.connected.wait()
        except TimeoutError:
            raise BusLost(f"not connected to {self._endpoint.host}:{self._endpoint.port} within {timeout} s") from None

    # -- running --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, deliver, reconnect, until cancelled (clean goodbye) or until a handler fails (no goodbye)."""
        if self._running:
            raise UsageError("this bus runs already")
        self._running = True
        worker = asyncio.create_task(self._deliver_for_ever(), name="bus-deliver")
        keeper = asyncio.create_task(self._stay_connected(), name="bus-connect")
        clean = False
        try:
            await asyncio.wait({worker, keeper}, return_when=asyncio.FIRST_COMPLETED)
            await (worker if worker.done() else keeper)  # raises what ended it
        except asyncio.CancelledError:
            clean = True
            raise
        finally:
            worker.cancel()
            keeper.cancel()
            try:
                await asyncio.wait({worker, keeper}, timeout=STOP_S)
                if clean and self._link is not None:
                    await self._say_goodbye(self._link)
            finally:
                self._forget_link()
                self._running = False

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            try:
                await self._connect()
                assert self._link is not None
                since = asyncio.get_running_loop().time()
                reason = await self._link.lost
                if self._link.taken_over:
                    raise BrokenInvariant(
                        f"another process connected with our client id {self._endpoint.client_id!r}: "
                        "run each service once, or give it another id"
                    )
                log.warning("bus.lost", reason=reason, **self._where())
                if asyncio.get_running_loop().time() - since > STEADY_S:
                    attempt = 0
                elif attempt == 3:  # Mosquitto 2.0 does not say that a session was taken over
                    cure = "if the broker is not restarting, another process uses our client id: run it once"
                    log.warning("bus.flapping", cure=cure, **self._where())
            except BusLost as error:
                self._warn(error)
            finally:
                self.connected.clear()
            self._forget_link()
            await asyncio.sleep(self._delay_s(attempt))
            attempt += 1

    async def _connect(self) -> None:
        self._spoken_will = self._will() if callable(self._will) else self._will
        self._link = link = Connection(self._endpoint, self._arrived, self._spoken_will)
        await link.open()
        await link.subscribe([(one, entry.qos) for entry in self._table for one in entry.filters])
        for callback in self._on_connect:
            await callback()
        if link.lost.done():
            raise BusLost("the connection went while it was greeted")
        self.counts.connects += 1
        self.counts.reconnects = self.counts.connects - 1
        self._warned_at = -1e9
        self.connected.set()
        log.info("bus.connected", resumed=link.session_present, **self._where())

    async def _say_goodbye(self, link: Connection) -> None:
        """Presence is said, not left to the will: a clean DISCONNECT makes the broker forget the will."""
        try:
            async with asyncio.timeout(STOP_S):
                if self._spoken_will is not None and not link.lost.done():
                    topic, payload = self._spoken_will
                    await link.wait_room(1)
                    await link.publish(topic, payload, qos=1, retain=True)
        except (BusLost, TimeoutError):
            return  # the socket is closed next, without a goodbye: the will speaks
        await link.goodbye(STOP_S)

    def _forget_link(self) -> None:
        self.connected.clear()
        self._queue.clear()  # unacknowledged: the broker delivers them again
        if self._link is not None:
            self._link.close()
            self._link = None

    # -- receiving ------------------------------------------------------------------------------------

    def _arrived(self, link: Connection, message: MQTTMessage) -> None:
        self.counts.received += 1
        if len(self._queue) >= 2 * self._endpoint.receive_maximum:
            if message.qos == 0:
                self.counts.dropped += 1
                return
            link.pause()
        self._queue.append((link, message))
        self._work.set()

    async def _deliver_for_ever(self) -> None:
        while True:
            while not self._queue:
                self._work.clear()
                await self._work.wait()
            link, message = self._queue.popleft()
            if len(self._queue) <= self._endpoint.receive_maximum:
                link.resume()
            found = self._find(message)
            if found is None:
                self.counts.unrouted += 1  # left over from an older subscription of this session
            elif isinstance(found, str):
                await self._bad(_topic(message), bytes(message.payload), found)
            else:
                entry, ids = found
                taken = [(link, message, ids)]
                if entry.batch:
                    taken += self._take_waiting(entry)
                await self._handle(entry, taken)
                continue
            link.ack(message)

    def _take_waiting(self, entry: _Entry) -> list[_Taken]:
        """All waiting messages of `entry`, in order; the others keep their places."""
        taken: list[_Taken] = []
        left: deque[tuple[Connection, MQTTMessage]] = deque()
        for link, message in self._queue:
            found = self._find(message)
            full = len(taken) + 1 >= self._endpoint.receive_maximum
            if not full and isinstance(found, tuple) and found[0] is entry:
                taken.append((link, message, found[1]))
            else:
                left.append((link, message))
        self._queue = left
        return taken

    async def _handle(self, entry: _Entry, taken: list[_Taken]) -> None:
        """Decode, hand over, then acknowledge all; the acknowledgement comes last whatever was in between."""
        ready: list[Received] = []
        for n, (_, message, ids) in enumerate(taken):
            if entry.route is None:
                mine = bytes(message.payload)
                ready.append(Received(message.topic, {}, None, mine, bool(message.retain), None, message.timestamp))
                continue
            if not message.payload and entry.route.retained:
                await self._hand_over(entry, ready)  # a clear comes after what was said before it
                ready = []
                self.counts.cleared += 1
                if entry.on_cleared is not None:
                    await entry.on_cleared(dict(ids))
                continue
            payload = bytes(message.payload)
            try:
                decoded = entry.route.message.decode(payload)
            except BadMessage as error:
                await self._bad(message.topic, payload, str(error))
                continue
            kind = getattr(message.properties, "ContentType", None)
            ready.append(Received(message.topic, dict(ids), decoded, payload, bool(message.retain), kind))
            if n % 64 == 63:
                await asyncio.sleep(0)  # let the socket be served during a long batch
        await self._hand_over(entry, ready)
        for link, message, _ in taken:
            link.ack(message)

    async def _hand_over(self, entry: _Entry, ready: list[Received]) -> None:
        if not ready:
            return
        try:
            await entry.handler(ready if entry.batch else ready[0])  # type: ignore[arg-type]
        except BadMessage as error:
            if len(ready) > 1:  # one of them is poison: find it by going one by one
                for one in ready:
                    await self._hand_over(entry, [one])
                return
            await self._bad(ready[0].topic, ready[0].payload, str(error))
        else:
            self.counts.handled += len(ready)

    async def _bad(self, topic: str, payload: bytes, reason: str) -> None:
        self.counts.bad += 1
        if self._on_bad is not None:
            await self._on_bad(topic, payload, reason)
        elif self.counts.bad & (self.counts.bad - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            log.warning("bus.bad_message", topic=topic, reason=reason, bad=self.counts.bad)

    def _find(self, message: MQTTMessage) -> tuple[_Entry, dict[str, str]] | str | None:
        """Who handles this topic, with its ids; a reason when the topic is broken; None when nobody does."""
        topic = _topic(message)
        known = self._known.get(topic)
        if known is not None:
            return known
        for entry in self._table:
            if not any(_overlap(one, topic) for one in entry.filters):
                continue
            found: tuple[_Entry, dict[str, str]] | str
            try:
                found = entry, entry.route.ids(topic) if entry.route else {}
            except BadMessage as error:
                found = str(error)
            if len(self._known) >= TOPICS_REMEMBERED:
                self._known.clear()
            self._known[topic] = found
            return found
        return None

    # -- private --------------------------------------------------------------------------------------

    def _live(self) -> Connection:
        link = self._link
        if link is None or not link.ready:
            raise BusLost(f"not connected to {self._endpoint.host}:{self._endpoint.port}")
        return link

    def _send(
        self, link: Connection, route: Route, topic: str, payload: bytes, expiry_s: int | None
    ) -> asyncio.Future[None]:
        properties = _properties(route.message.content_type, expiry_s)
        future = link.publish(topic, payload, qos=min(route.qos, 1), retain=route.retained, properties=properties)
        self.counts.published += 1
        return future

    def _delay_s(self, attempt: int) -> float:
        first, most = self._backoff_s
        return self._rng.uniform(0.5, 1.0) * float(min(most, first * 2 ** min(attempt, 20)))

    def _where(self) -> dict[str, Any]:
        return {"host": self._endpoint.host, "port": self._endpoint.port, "client_id": self._endpoint.client_id}

    def _warn(self, error: BusLost) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned_at < 60:
            return
        self._warned_at = now
        if isinstance(error, BusRefused):
            cure = "check user, password or certificate, and the broker's access rules; trying again"
            log.warning("bus.refused", error=str(error), cure=cure, **self._where())
        else:
            cure = "start a broker there (mosquitto) or correct host and port; trying again"
            log.warning("bus.unreachable", error=str(error), cure=cure, **self._where())


@dataclass(frozen=True, eq=False)
class _Entry:
    route: Route | None  # None: foreign topics
    filters: tuple[str, ...]
    handler: Handler | BatchHandler
    batch: bool
    on_cleared: OnCleared | None = field(default=None)

    @property
    def qos(self) -> int:
        return 1 if self.route is None else min(self.route.qos, 1)


_Taken = tuple[Connection, MQTTMessage, dict[str, str]]


def _payload(route: Route, message: Message | None, payload: bytes | None) -> bytes:
    if payload is not None:
        return payload
    if not isinstance(message, route.message):
        raise UsageError(f"route {route.name} carries {route.message.__name__}, not {type(message).__name__}")
    return message.encode()


@lru_cache(maxsize=256)
def _properties(content_type: str, expiry_s: int | None) -> Properties:
    """MQTT 5 properties of a publish; kept, because making them costs paho as much as sending them."""
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = content_type
    if expiry_s is not None:
        properties.MessageExpiryInterval = max(1, expiry_s)
    packed = properties.pack()
    properties.__dict__["pack"] = lambda: packed  # they never change, and packing them is a search through all names
    return cast(Properties, properties)


def _overlap(one: str, other: str) -> bool:
    """Whether two filters (or a filter and a topic) of fixed depth can match the same topic."""
    a, b = one.split("/"), other.split("/")
    return len(a) == len(b) and all(x == y or "+" in (x, y) for x, y in zip(a, b, strict=True))


def _topic(message: MQTTMessage) -> str:
    try:
        return message.topic
    except UnicodeDecodeError:
        return "(a topic that is not UTF-8)"
