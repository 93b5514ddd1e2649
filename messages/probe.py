"""What a broker promises, found out by trying: MQTT 5, retained messages, and a queue for who is away.

    found = probe("127.0.0.1", 1883)
    found.kept, found.sent        # QoS 1 messages that reached a client who had been offline, of those acknowledged

Mosquitto drops QoS 1 beyond `max_queued_messages` after acknowledging it (1000 by default; with 0 some
versions drop everything), so the broker's word is not enough. The probe sends PROBED messages below one
topic of its own and leaves nothing behind: no session, no retained message.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from messages.errors import UsageError

PROBED = 1_500
"""Messages sent to an absent client: more than Mosquitto's default queue of 1000."""

_SESSION_S = 60
"""The probe's session ends by itself after this, should the probe be killed."""


@dataclass(frozen=True)
class Found:
    """What the broker did."""

    sent: int
    kept: int
    retains: bool
    round_trip_s: float
    receive_maximum: int
    max_packet_bytes: int | None


def probe(
    host: str,
    port: int,
    *,
    username: str | None = None,
    password: str | None = None,
    site: str = "doctor",
    messages: int = PROBED,
    timeout_s: float = 10.0,
) -> Found:
    """Try the broker; UsageError with the cure when it cannot be reached, refuses us, or lets us wait."""
    name = f"probe-{secrets.token_hex(6)}"
    topic = f"shoal/v1/{site}/{name}/up/probe"
    deadline_s = time.monotonic() + timeout_s
    seat = _Seat(name, host, port, username, password, deadline_s)
    sender = _Seat(f"{name}-s", host, port, username, password, deadline_s)
    try:
        limits = seat.connect(session_s=_SESSION_S)
        seat.subscribe(topic)
        seat.subscribe(f"{topic}/state")
        seat.leave()
        sender.connect()
        started_s = time.monotonic()
        sender.send(topic, b"0")
        round_trip_s = time.monotonic() - started_s
        sent = 1 + sender.send_all(topic, [str(number).encode() for number in range(1, messages)])
        sender.send(f"{topic}/state", b"here", retain=True)
        seat.connect(session_s=0, resume=True)
        kept = seat.collect(sent)
        seat.leave()
        # A retained message is state for newcomers, so a new session must be given it.
        seat.connect(session_s=0)
        seat.subscribe(f"{topic}/state")
        retains = seat.collect(1) == 1
        sender.send(f"{topic}/state", b"", retain=True)
        return Found(
            sent=sent,
            kept=kept,
            retains=retains,
            round_trip_s=round_trip_s,
            receive_maximum=int(getattr(limits, "ReceiveMaximum", 65_535)),
            max_packet_bytes=getattr(limits, "MaximumPacketSize", None),
        )
    finally:
        seat.leave()
        sender.leave()


class _Seat:
    """One client id at the broker, with blocking calls that all end at the deadline."""

    def __init__(
        self, name: str, host: str, port: int, username: str | None, password: str | None, deadline_s: float
    ) -> None:
        self._name, self._host, self._port = name, host, port
        self._username, self._password, self._deadline_s = username, password, deadline_s
        self._client: Client | None = None
        self._answers: queue.Queue[tuple[ReasonCode, Properties | None]] = queue.Queue()
        self._heard: set[bytes] = set()
        self._more = threading.Condition()

    def connect(self, *, session_s: int = 0, resume: bool = False) -> Properties | None:
        client = Client(CallbackAPIVersion.VERSION2, client_id=self._name, protocol=MQTTProtocolVersion.MQTTv5)
        if self._username is not None:
            client.username_pw_set(self._username, self._password)
        self._heard.clear()
        client.on_connect = lambda _c, _u, _f, code, properties: self._answers.put((code, properties))
        client.on_subscribe = lambda _c, _u, _m, codes, properties: self._answers.put((codes[0], properties))
        client.on_message = lambda _c, _u, message: self._hear(message)
        wanted: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wanted.SessionExpiryInterval = session_s
        try:
            client.connect(self._host, self._port, clean_start=not resume, properties=wanted)
        except OSError as error:
            raise UsageError(
                f"no MQTT broker at {self._host}:{self._port} ({error}); start one with "
                f"`mosquitto -p {self._port}` or pass --host and --port"
            ) from None
        self._client = client
        client.loop_start()
        return self._answer("connecting")

    def subscribe(self, topic: str) -> None:
        assert self._client is not None
        self._client.subscribe(topic, qos=1)
        self._answer(f"subscribing to {topic}")

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        assert self._client is not None
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(max(self._deadline_s - time.monotonic(), 0.0))
        if not info.is_published():
            raise UsageError(f"the broker at {self._host}:{self._port} did not acknowledge {topic} in time")

    def send_all(self, topic: str, payloads: list[bytes]) -> int:
        """All in flight at once, as many as the client's window allows; how many were acknowledged."""
        assert self._client is not None
        waiting = [self._client.publish(topic, payload, qos=1) for payload in payloads]
        for info in waiting:
            info.wait_for_publish(max(self._deadline_s - time.monotonic(), 0.0))
        return sum(info.is_published() for info in waiting)

    def collect(self, wanted: int) -> int:
        """Different messages heard, until `wanted` or a second of silence."""
        with self._more:
            while len(self._heard) < wanted and time.monotonic() < self._deadline_s:
                if not self._more.wait(timeout=1.0):
                    break
            return len(self._heard - {b"here"}) if wanted > 1 else len(self._heard)

    def leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _hear(self, message: MQTTMessage) -> None:
        with self._more:
            self._heard.add(bytes(message.payload))
            self._more.notify_all()

    def _answer(self, doing: str) -> Properties | None:
        try:
            code, properties = self._answers.get(timeout=max(self._deadline_s - time.monotonic(), 0.01))
        except queue.Empty:
            raise UsageError(
                f"the broker at {self._host}:{self._port} did not answer {doing}; does it speak MQTT 5?"
            ) from None
        if code.is_failure:
            raise UsageError(
                f"the broker at {self._host}:{self._port} refused {doing}: {code}; check user, password, access rules"
            )
        return properties
