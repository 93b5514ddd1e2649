"""One connection's life: a paho client driven by asyncio through its socket callbacks.

A Connection is opened once, used, lost once, and thrown away: nothing of it (unanswered publishes, message
ids, acknowledgements) can leak into the next one, where it would mean something else. No thread is involved
after the dial; every callback runs in the event loop. Bounds: `send_window` publishes without an answer
(fewer when the broker says so), `receive_maximum` messages without our acknowledgement. Mosquitto 2.0 breaks the
latter (each acknowledgement frees a whole window), hence `pause`: unread bytes wait at the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from messages.errors import BadMessage, BusLost, BusRefused
from messages.message import MAX_BYTES
from messages.properties import share_property_tables

PACKET_OVERHEAD = 64 * 1024
"""Room for topic and properties beside a payload of MAX_BYTES."""

READS_PER_TURN = 200
"""Packets taken from the socket before other tasks get their turn."""

_TAKEN_OVER = 0x8E


@dataclass(frozen=True)
class Endpoint:
    """Which broker, as whom, and how much may be under way."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    keepalive_s: int = 20
    connect_timeout_s: float = 5.0
    session_expiry_s: int = 7 * 24 * 3600
    receive_maximum: int = 1000
    send_window: int = 1000


class Connection:
    """One paho client from dial to loss; `lost` is done when it is over, with the reason."""

    def __init__(
        self,
        endpoint: Endpoint,
        on_message: Callable[[Connection, MQTTMessage], None],
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.taken_over = False
        self.session_present = False
        self._acked: asyncio.Future[None] = self._loop.create_future()
        self._unanswered: dict[int, tuple[asyncio.Future[None], str, int]] = {}
        self._in_flight = 0  # QoS 1 publishes without PUBACK
        self._subscribing: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._room_waiters: deque[asyncio.Future[None]] = deque()
        self._send_window = endpoint.send_window
        self._max_packet = MAX_BYTES + PACKET_OVERHEAD
        self._progress = 0
        self._abandoned = False
        self._paused_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        share_property_tables()
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=endpoint.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = endpoint.connect_timeout_s
        client.max_inflight_messages_set(0)  # the window is ours: paho would queue, and send late
        if endpoint.username is not None:
            client.username_pw_set(endpoint.username, endpoint.password)
        if endpoint.tls is not None:
            client.tls_set_context(endpoint.tls)
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_publish = self._answered
        client.on_subscribe = self._subscribed

    async def open(self) -> None:
        """Dial, say CONNECT, wait for CONNACK; BusLost when nobody is there, BusRefused when not wanted."""
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        try:
            await asyncio.to_thread(self._dial)
        except asyncio.CancelledError:
            self._abandoned = True
            raise
        except (OSError, ValueError) as error:
            raise BusLost(f"no MQTT broker at {where}: {error}") from error
        client = self._client
        sock = client.socket()
        if sock is None:
            raise BusLost(f"{where} closed the connection at once")
        if isinstance(sock, socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # From here on the loop drives the client. Set after the dial, which ran in a thread.
        client.on_socket_close = self._socket_closed
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._unwant_write
        self._loop.add_reader(sock.fileno(), self._readable)
        if client.want_write():
            self._loop.add_writer(sock.fileno(), client.loop_write)
        self._timer = self._loop.call_later(1.0, self._tick)
        try:
            async with asyncio.timeout(self._endpoint.connect_timeout_s):
                await self._acked
        except TimeoutError:
            raise BusLost(f"{where} accepted the connection but did not answer MQTT") from None

    @property
    def ready(self) -> bool:
        """Whether the broker said yes and the connection still stands."""
        return self._acked.done() and not self.lost.done()

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        """Subscribe to (filter, qos) pairs; BusRefused if one is not granted."""
        if not filters:
            return
        self._check_alive()
        granted: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        rc, mid = self._client.subscribe([(name, SubscribeOptions(qos=qos)) for name, qos in filters])
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise BusLost(f"could not subscribe: {rc}")
        self._subscribing[mid] = granted
        async with _answer_within(10.0, "SUBSCRIBE"):
            codes = await granted
        for (name, _), code in zip(filters, codes, strict=True):
            if code.is_failure:
                raise BusRefused(f"the broker refused the subscription {name}: {code}; check its access rules")

    def room(self, qos: int) -> bool:
        """Whether one more publish may be under way now."""
        if qos == 0:
            return len(self._unanswered) - self._in_flight < self._endpoint.send_window
        return self._in_flight < self._send_window

    async def wait_room(self, qos: int) -> None:
        """Return when `room`; BusLost if the connection goes first."""
        while not self.room(qos):
            self._check_alive()
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._room_waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # our turn, but we are leaving: pass it on
                raise

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Properties | None = None
    ) -> asyncio.Future[None]:
        """Send now; the future is done at PUBACK (QoS 1) or when written to the socket (QoS 0)."""
        self._check_alive()
        if not self.room(qos):
            raise BusLost(f"{self._send_window} publishes are unanswered already; wait for one of them")
        if len(payload) > MAX_BYTES or len(payload) + len(topic) + 1024 > self._max_packet:
            limit = min(MAX_BYTES, self._max_packet - 1024)
            raise BadMessage(f"{topic}: {len(payload)} bytes, the bus takes at most {limit}; send smaller pieces")
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise BusLost(f"{topic} was not sent: {info.rc.name}")
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(_looked_at)
        self._unanswered[info.mid] = (future, topic, qos)
        self.resume()
        self._in_flight += qos > 0
        return future

    def ack(self, message: MQTTMessage) -> None:
        """Acknowledge; does nothing when this connection is gone (the broker delivers again)."""
        if message.qos and not self.lost.done():
            self._client.ack(message.mid, message.qos)

    def pause(self) -> None:
        """Read no more until `resume` or until we wait for an answer; refused while one is outstanding.

        Never for longer than half the keepalive, or the answer to a ping would stay unread.
        """
        if self._unanswered or self._subscribing or self._paused_at is not None or not self.ready:
            return
        sock = self._client.socket()
        if sock is not None:
            self._paused_at = self._loop.time()
            self._loop.remove_reader(sock.fileno())

    def resume(self) -> None:
        """Read on. Safe to repeat."""
        if self._paused_at is None:
            return
        self._paused_at = None
        sock = self._client.socket()
        if sock is not None and not self.lost.done():
            self._loop.add_reader(sock.fileno(), self._readable)
            self._loop.call_soon(self._readable)  # TLS may hold decrypted bytes already

    async def goodbye(self, timeout_s: float) -> None:
        """Send what is queued, then DISCONNECT: the broker drops the will."""
        if self.lost.done() or not self._acked.done():
            return
        self.resume()
        self._client.disconnect()
        await asyncio.wait({self.lost}, timeout=timeout_s)

    def close(self) -> None:
        """Let go of the socket without a goodbye, so that the broker speaks our will. Safe to repeat."""
        self._abandoned = True
        self._over("closed here")
        client = self._client
        sock = client.socket()
        client.on_socket_close = client.on_socket_register_write = client.on_socket_unregister_write = None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()

    # -- in the dialling thread -----------------------------------------------------------------------

    def _dial(self) -> None:
        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._endpoint.session_expiry_s
        properties.ReceiveMaximum = self._endpoint.receive_maximum
        properties.MaximumPacketSize = MAX_BYTES + PACKET_OVERHEAD
        self._client.connect(
            self._endpoint.host,
            self._endpoint.port,
            self._endpoint.keepalive_s,
            clean_start=False,
            properties=properties,
        )
        if self._abandoned:  # cancelled while dialling
            self._client.disconnect()

    # -- called by paho, in the loop ------------------------------------------------------------------

    def _connected(
        self, _c: Client, _u: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if self._acked.done():
            return
        if code.is_failure:
            who = f"client id {self._endpoint.client_id!r}, user {self._endpoint.username!r}"
            self._acked.set_exception(
                BusRefused(f"{self._endpoint.host}:{self._endpoint.port} refused us ({who}): {code}")
            )
            return
        self.session_present = flags.session_present
        self._send_window = min(self._send_window, getattr(properties, "ReceiveMaximum", 65535))
        self._max_packet = min(self._max_packet, getattr(properties, "MaximumPacketSize", self._max_packet))
        self._acked.set_result(None)

    def _disconnected(
        self, _c: Client, _u: Any, flags: DisconnectFlags, code: ReasonCode, _p: Properties | None
    ) -> None:
        self.taken_over = flags.is_disconnect_packet_from_server and code.value == _TAKEN_OVER
        self._over(str(code))

    def _message(self, _c: Client, _u: Any, message: MQTTMessage) -> None:
        self._progress += 1
        if not self.lost.done():
            self._on_message(self, message)

    def _answered(self, _c: Client, _u: Any, mid: int, code: ReasonCode, _p: Properties | None) -> None:
        self._progress += 1
        entry = self._unanswered.pop(mid, None)
        if entry is None:
            return
        future, topic, qos = entry
        self._in_flight -= qos > 0
        self._wake_one()
        if future.done():
            return
        if code.is_failure:
            future.set_exception(BusRefused(f"the broker refused {topic}: {code}; check its access rules and quotas"))
        else:
            future.set_result(None)

    def _subscribed(self, _c: Client, _u: Any, mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        granted = self._subscribing.pop(mid, None)
        if granted is not None and not granted.done():
            granted.set_result(codes)

    def _want_write(self, client: Client, _u: Any, sock: Any) -> None:
        self._loop.add_writer(sock.fileno(), client.loop_write)

    def _unwant_write(self, _c: Client, _u: Any, sock: Any) -> None:
        self._loop.remove_writer(sock.fileno())

    def _socket_closed(self, _c: Client, _u: Any, sock: Any) -> None:
        self._loop.remove_reader(sock.fileno())
        self._loop.remove_writer(sock.fileno())

    # -- called by the loop ---------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(READS_PER_TURN):
            if self.lost.done() or self._paused_at is not None:
                return
            before = self._progress
            self._client.loop_read()
            sock = self._client.socket()
            buffered = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
            if self._progress == before and not buffered:
                return
        sock = self._client.socket()
        if isinstance(sock, ssl.SSLSocket) and sock.pending():  # no event will come for decrypted bytes
            self._loop.call_soon(self._readable)

    def _tick(self) -> None:
        if self._paused_at is not None and self._loop.time() - self._paused_at > self._endpoint.keepalive_s / 2:
            self.resume()
        self._client.loop_misc()
        if not self.lost.done():
            self._timer = self._loop.call_later(1.0, self._tick)

    # -- private --------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self.lost.done():
            raise BusLost(f"the connection to {self._endpoint.host}:{self._endpoint.port} is gone")

    def _wake_one(self) -> None:
        while self._room_waiters:
            waiter = self._room_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _over(self, reason: str) -> None:
        """The one place where a connection ends: everybody who waits for it learns so."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()
        gone = f"the connection to {self._endpoint.host}:{self._endpoint.port} was lost ({reason})"
        waiting: list[asyncio.Future[Any]] = [self._acked, *self._subscribing.values(), *self._room_waiters]
        waiting += [future for future, _, _ in self._unanswered.values()]
        for future in waiting:
            if not future.done():
                future.add_done_callback(_looked_at)
                future.set_exception(BusLost(f"{gone} before an answer came"))
        self._subscribing.clear()
        self._room_waiters.clear()
        self._unanswered.clear()
        self._in_flight = 0


@contextlib.asynccontextmanager
async def _answer_within(seconds: float, what: str) -> Any:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise BusLost(f"the broker did not answer {what} within {seconds:g} s") from None


def _looked_at(future: asyncio.Future[Any]) -> None:
    """A failed publish nobody awaits is the caller's choice, not a stray traceback."""
    if not future.cancelled():
        future.exception()
