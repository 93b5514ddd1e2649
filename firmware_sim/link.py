"""The fleet's MQTT connection, as firmware would have it: paho-mqtt 2 with its own thread, MQTT 5, TCP_NODELAY.

Reconnects for ever by itself. What it was given and the broker has not answered it sends again after a
reconnect; nothing is taken while disconnected, the firmware keeps it. Callbacks arrive in the event loop.
Bound: MAX_UNANSWERED publishes.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from messages.bus import tls_context
from messages.connect import BrokerSettings

MAX_UNANSWERED = 5_000
RECONNECT_S = 0.25
STEADY_S = 5.0
"""A connection that lasted this long was a good one."""
_TAKEN_OVER = 0x8E

log = structlog.get_logger("firmware")


@dataclass(frozen=True)
class Callbacks:
    """Whom to tell, in the event loop."""

    on_message: Callable[[str, bytes], None]
    on_answer: Callable[[int, bool], None]
    """(message id, whether somebody was there to take it)"""
    on_connect: Callable[[], None]
    on_fatal: Callable[[str], None]


class Link:
    """One client for the fleet; `up` once its subscriptions are granted."""

    def __init__(
        self,
        broker: BrokerSettings,
        *,
        client_id: str,
        filters: list[str],
        callbacks: Callbacks,
    ) -> None:
        self.host, self.port, self.filters, self.up = broker.host, broker.port, filters, False
        self.connects = 0
        self._since_s, self._short = 0.0, 0
        self._tell = callbacks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.max_queued_messages_set(MAX_UNANSWERED)
        client.reconnect_delay_set(RECONNECT_S, 5)  # type: ignore[arg-type]  # it takes fractions
        client.connect_timeout = 3.0
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password.get_secret_value() if broker.password else None)
        if broker.ca:
            client.tls_set_context(tls_context(broker.ca, broker.cert, broker.key))
        client.on_socket_open = _no_delay
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_publish = self._answered
        client.on_connect_fail = self._nobody_there

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self.host, self.port, keepalive=20)
        self._client.loop_start()

    def stop(self) -> None:
        """Say goodbye and end the thread."""
        self.up = False
        self._client.disconnect()
        self._client.loop_stop()
        self._loop = None

    def publish(self, topic: str, payload: bytes) -> int | None:
        """Message id of a QoS 1 publish; None when it was not taken."""
        if not self.up:
            return None
        info = self._client.publish(topic, payload, qos=1)
        # NO_CONN: the client has kept it all the same and sends it after the reconnect.
        return info.mid if info.rc in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN) else None

    # --- in paho's thread -------------------------------------------------------------------------

    def _connected(self, c: Client, _u: Any, _f: ConnectFlags, code: ReasonCode, _p: Properties | None) -> None:
        if code.is_failure:
            log.warning("broker.refused", host=self.host, port=self.port, reason=str(code))
            return
        c.subscribe([(name, 1) for name in self.filters])

    def _subscribed(self, _c: Client, _u: Any, _m: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        for name, code in zip(self.filters, codes, strict=False):
            if code.is_failure:
                text = f"the broker refused the subscription {name}: {code}; check its access rules"
                self._in_loop(self._tell.on_fatal, text)
                return
        self._in_loop(self._is_up)

    def _disconnected(self, _c: Client, _u: Any, _f: DisconnectFlags, code: ReasonCode, _p: Properties | None) -> None:
        self._in_loop(self._is_down, str(code))
        if code.value == _TAKEN_OVER:
            self._in_loop(self._tell.on_fatal, "another simulation of this site took the connection over; stop one")

    def _nobody_there(self, _c: Client, _u: Any) -> None:
        log.warning("broker.unreachable", host=self.host, port=self.port, retry_s=RECONNECT_S)

    def _message(self, _c: Client, _u: Any, message: MQTTMessage) -> None:
        self._in_loop(self._tell.on_message, message.topic, bytes(message.payload))

    def _answered(self, _c: Client, _u: Any, mid: int, code: ReasonCode, _p: Properties | None) -> None:
        self._in_loop(self._tell.on_answer, mid, code.value == 0)

    def _in_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    # --- in the event loop ------------------------------------------------------------------------

    def _is_up(self) -> None:
        self.up = True
        self.connects += 1
        self._since_s = time.monotonic()
        log.info("broker.connected", host=self.host, port=self.port, connects=self.connects)
        self._tell.on_connect()

    def _is_down(self, reason: str) -> None:
        if self.up:
            log.warning("broker.lost", host=self.host, port=self.port, reason=reason)
            self._short = 0 if time.monotonic() - self._since_s > STEADY_S else self._short + 1
            if self._short == 3:  # Mosquitto 2.0 does not say that a session was taken over
                cure = "if the broker is not restarting, another simulation of this site runs: stop one"
                log.warning("broker.flapping", host=self.host, port=self.port, cure=cure)
        self.up = False


def _no_delay(_client: Client, _userdata: Any, sock: Any) -> None:
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
