"""The light, read-mostly client for the command line, the console and examples.

    async with observe("127.0.0.1", 1883) as watcher:
        async for seen in watcher.messages(LATEST, site="s1"):
            print(seen.ids["device"], seen.message)

It reconnects by itself and forgets what it missed: its session ends with the connection, and messages are
acknowledged before they are looked at. What must not be missed goes through `messages.bus`. Each iteration
buffers at most BUFFERED messages; a slow reader loses the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
import structlog

from messages.errors import BadMessage, BusLost, UsageError
from messages.message import Message
from messages.route import Route

BUFFERED = 10_000
"""Messages one iteration may have waiting."""

log = structlog.get_logger("observe")


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as an observer sees it; `message` is None without a route, cleared, or broken (`bad` says why)."""

    topic: str
    payload: bytes
    retained: bool = False
    ids: dict[str, str] = field(default_factory=dict)
    message: Any = None
    bad: str | None = None


@contextlib.asynccontextmanager
async def observe(
    host: str,
    port: int = 1883,
    *,
    username: str | None = None,
    password: str | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 5.0,
    retry_s: float = 1.0,
) -> AsyncIterator[Watcher]:
    """A Watcher of this broker; UsageError with the cure when there is none or it does not want us."""

    def fresh() -> aiomqtt.Client:
        return aiomqtt.Client(
            host,
            port,
            username=username,
            password=password,
            tls_context=tls,
            timeout=timeout_s,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            max_queued_incoming_messages=BUFFERED,
        )

    try:
        async with fresh():
            pass
        _end_if_cancelled()
    except aiomqtt.MqttError as error:
        _end_if_cancelled()
        raise UsageError(_cure(host, port, error)) from error
    yield Watcher(fresh, retry_s)


class Watcher:
    """What `observe` gives: read by route or filter, and publish simple messages.

    Every iteration has a connection of its own, because a broker sends one copy per overlapping subscription.
    """

    def __init__(self, fresh: Callable[[], aiomqtt.Client], retry_s: float) -> None:
        self.reconnects = 0
        self._fresh = fresh
        self._retry_s = retry_s

    async def messages(self, what: Route | str, **ids: str) -> AsyncIterator[Seen]:
        """Messages of a route (levels in `ids` fixed) or of any MQTT filter, over reconnects, without end."""
        name = what if isinstance(what, str) else what.filter(**ids)
        while True:
            try:
                async with self._fresh() as client:
                    await client.subscribe(name, qos=1)
                    _end_if_cancelled()
                    async for message in client.messages:
                        raw = message.payload
                        payload = raw if isinstance(raw, bytes) else bytes(raw or b"")
                        yield _seen(what, str(message.topic), payload, bool(message.retain))
            except aiomqtt.MqttError as error:
                _end_if_cancelled()
                log.warning("observe.lost", error=str(error), retry_s=self._retry_s)
            await asyncio.sleep(self._retry_s)
            self.reconnects += 1

    async def publish(
        self, route: Route, message: Message | None = None, *, payload: bytes | None = None, **ids: str
    ) -> None:
        """Send once and wait for the broker's PUBACK (QoS 1); BusLost when it did not get there.

        This client does not tell a refusal by access rules from success: services publish with the Bus.
        """
        if payload is None:
            if not isinstance(message, route.message):
                raise UsageError(f"route {route.name} carries {route.message.__name__}, not {type(message).__name__}")
            payload = message.encode()
        topic = route.topic(**ids)
        # One short connection per message: an idle one would notice its loss with nobody there to be told.
        try:
            async with self._fresh() as client:
                await client.publish(topic, payload, qos=min(route.qos, 1), retain=route.retained)
        except aiomqtt.MqttError as error:
            _end_if_cancelled()
            raise BusLost(f"{topic} was not sent: {error}") from error
        _end_if_cancelled()


def _end_if_cancelled() -> None:
    """The client waits with `asyncio.wait_for`, which forgets a cancellation that comes in the moment of the answer
    (Python 3.11); and one that comes while it takes its leave may end as an error of MQTT."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _seen(what: Route | str, topic: str, payload: bytes, retained: bool) -> Seen:
    if isinstance(what, str):
        return Seen(topic, payload, retained)
    ids: dict[str, str] = {}
    try:
        ids = what.ids(topic)
        if not payload and what.retained:
            return Seen(topic, payload, retained, ids)  # cleared
        return Seen(topic, payload, retained, ids, what.message.decode(payload))
    except BadMessage as error:
        return Seen(topic, payload, retained, ids, bad=str(error))


def _cure(host: str, port: int, error: Exception) -> str:
    text = str(error)
    if isinstance(error, aiomqtt.MqttCodeError):  # it answered, and said no
        return f"the MQTT broker at {host}:{port} refused us: {text}; check --username, password or certificate"
    return f"no MQTT broker at {host}:{port} ({text}); start one with `mosquitto -p {port}` or pass --host and --port"
