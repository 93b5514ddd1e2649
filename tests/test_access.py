"""The access rules on a real Mosquitto: each role, each route, read and write, exactly as the plane table says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import typer
from typer.testing import CliRunner

from messages.access import CLOUD, INTEGRATOR, OPERATOR, acl, device_user
from messages.broker import Broker
from messages.errors import UsageError
from messages.message import Message
from messages.route import Route
from messages.routes import ROUTES
from shoal.topics import topics as topics_command

PLANT = {"s1": {"press-4": ["ram", "mould"], "oven-1": ["fan"]}, "s2": {"press-4": ["ram"]}}
USERS = (
    "s1/press-4",
    "s1/oven-1",
    "s2/press-4",
    "s1/press-4/ram",
    "s1/press-4/mould",
    "s2/press-4/ram",
    CLOUD,
    OPERATOR,
    INTEGRATOR,
)
ADMIN = "test.admin"


def topics() -> list[tuple[str, Route, dict[str, str]]]:
    """Every route spoken at every place of the plant, and a few topics that are nobody's."""
    found = []
    for route in ROUTES:
        for site, nodes in PLANT.items():
            for node in [route.node] if route.node else [*nodes, "cloud"]:
                for device in ("ram", "mould") if "device" in route.keys else ("",):
                    ids = {
                        "site": site,
                        "node": node,
                        "device": device,
                        "lane": "live",
                        "signal": "carbon",
                        "task": "b07-1",
                        "workpiece": "b07",
                        "round": "7",
                        "model": "cell",
                        "digest": "0a1b",
                        "part": "0",
                    }
                    topic = route.topic(**{key: ids[key] for key in route.keys})
                    found.append((topic, route, ids))
    return found


def may_write(user: str, route: Route, ids: dict[str, str]) -> bool:
    """ARCHITECTURE's table, said a second time and differently: by who the user is."""
    plane, place = route.plane, f"{ids['site']}/{ids['node']}"
    if user == CLOUD:
        return plane == "down" or (plane == "up" and ids["node"] == "cloud")
    if user == OPERATOR:
        return route.node == "site"
    if user == INTEGRATOR:
        return False
    if user.count("/") == 2:
        return plane == "raw" and user == f"{place}/{ids['device']}"
    return plane in ("act", "peer", "up") and user == place


def may_read(user: str, route: Route, ids: dict[str, str]) -> bool:
    plane, place = route.plane, f"{ids['site']}/{ids['node']}"
    if user in (CLOUD, OPERATOR):
        return plane in ("up", "down")
    if user == INTEGRATOR:
        return plane == "up"
    if user.count("/") == 2:
        return plane == "act" and user == f"{place}/{ids['device']}"
    own_site = user.split("/")[0] == ids["site"]
    if plane == "peer":
        return own_site
    if plane == "down":
        return user == place or (own_site and ids["node"] in ("all", "site"))
    return plane == "raw" and user == place


class Peer:
    """A connected user: publishes with the broker's answer, and keeps what it is given."""

    def __init__(self, broker: Broker, user: str, password: str | None = None) -> None:
        self.user = user
        self.got: set[str] = set()
        self.sentinel = threading.Event()
        self._answers: dict[int, int] = {}
        self._answered = threading.Condition()
        self._ready = threading.Event()
        self.client = client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.username_pw_set(user, password or f"pw of {user}")
        client.max_inflight_messages_set(1000)
        client.on_connect = lambda c, u, f, code, p: self._ready.set() if not code.is_failure else None
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.connect(broker.host, broker.port)
        client.loop_start()
        assert self._ready.wait(60), f"{user} was not let in"
        self._ready.clear()

    def subscribe(self) -> None:
        self.client.subscribe([("shoal/#", mqtt.SubscribeOptions(1)), ("test/#", mqtt.SubscribeOptions(1))])
        assert self._ready.wait(60)

    def publish(self, topic: str) -> int:
        info = self.client.publish(topic, b"{}", qos=1)
        with self._answered:
            assert self._answered.wait_for(lambda: info.mid in self._answers, 60)
            return self._answers[info.mid]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_publish(self, _c: Any, _u: Any, mid: int, code: Any, _p: Any) -> None:
        with self._answered:
            self._answers[mid] = code.value
            self._answered.notify_all()

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == f"test/{self.user}":
            self.sentinel.set()
        else:
            self.got.add(message.topic)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with the generated rules, one password per user, and an administrator for the test."""
    rules = acl(ROUTES, PLANT) + f"\npattern read test/%u\n\nuser {ADMIN}\ntopic readwrite #\n"
    words = {user: f"pw of {user}" for user in (*USERS, ADMIN)}
    with Broker(directory=tmp_path_factory.mktemp("guarded"), acl=rules, passwords=words, persistence=False) as broker:
        yield broker


@pytest.mark.parametrize("user", USERS)
def test_each_role_writes_exactly_what_the_table_allows(guarded: Broker, user: str) -> None:
    peer = Peer(guarded, user)
    try:
        wrong = []
        for topic, route, ids in topics():
            code = peer.publish(topic)
            allowed = code < 0x80
            if allowed != may_write(user, route, ids):
                wrong.append((topic, "allowed" if allowed else "denied"))
            assert allowed or code == 0x87
        assert wrong == []
        for nowhere in ("shoal", "shoal/v1/s1", "shoal/v1/s1/press-4", "shoal/v2/s1/press-4/up/health", "$SYS/x", "a"):
            assert peer.publish(nowhere) >= 0x80, nowhere
    finally:
        peer.close()


def test_each_role_reads_exactly_what_the_table_allows(guarded: Broker) -> None:
    admin = Peer(guarded, ADMIN)
    peers = [Peer(guarded, user) for user in USERS]
    try:
        for peer in peers:
            peer.subscribe()
        for topic, _, _ in topics():
            assert admin.publish(topic) < 0x80
        for peer in peers:  # one publisher, in order: who has this has had all
            admin.publish(f"test/{peer.user}")
        for peer in peers:
            assert peer.sentinel.wait(60), peer.user
            expected = {topic for topic, route, ids in topics() if may_read(peer.user, route, ids)}
            assert peer.got == expected, peer.user
    finally:
        for peer in [admin, *peers]:
            peer.close()


def test_the_table_gives_every_route_a_writer_and_a_reader() -> None:
    for route in ROUTES:
        at_home = {"site": "s1", "node": route.node or "press-4", "device": "ram"}
        assert any(may_write(user, route, at_home) for user in USERS), route.name
        assert any(may_read(user, route, at_home) for user in USERS), route.name


def test_strangers_and_wrong_passwords_stay_outside(guarded: Broker) -> None:
    refused = threading.Event()
    for user, word in (("s1/press-4", "guess"), ("s1/ghost", "x"), (None, None)):
        refused.clear()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        if user:
            client.username_pw_set(user, word)
        client.on_connect = lambda c, u, f, code, p: refused.set() if code.is_failure else None
        client.connect(guarded.host, guarded.port)
        client.loop_start()
        assert refused.wait(60), user
        client.loop_stop()


def test_wildcards_in_a_user_name_open_nothing(tmp_path: Path) -> None:
    words = {"+/+": "x", "s1/#": "x"}
    rules = acl(ROUTES, PLANT)
    with Broker(directory=tmp_path / "b", acl=rules, passwords=words, persistence=False) as broker:
        for user in words:
            peer = Peer(broker, user, "x")
            try:
                assert peer.publish("shoal/v1/s1/press-4/up/health") == 0x87
            finally:
                peer.close()


@pytest.mark.parametrize("device", ["up", "raw", "act", "peer", "down", "Ram", "a/b", "+", ""])
def test_a_device_may_not_be_named_like_a_plane_or_a_wildcard(device: str) -> None:
    with pytest.raises(UsageError):
        device_user("s1", "press-4", device)
    with pytest.raises(UsageError):
        acl(ROUTES, {"s1": {"press-4": [device]}})


@pytest.mark.parametrize("node", ["all", "site", "cloud", "#"])
def test_no_node_may_take_a_reserved_name(node: str) -> None:
    with pytest.raises(UsageError):
        acl(ROUTES, {"s1": {node: []}})


def test_a_route_outside_the_planes_has_no_rules_and_is_refused() -> None:
    with pytest.raises(UsageError, match="no plane"):
        acl([Route("odd", "sideways/x", Message, qos=1)], {})


def test_the_command_prints_the_rules_of_a_plant() -> None:
    plant = Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml"
    printed = CliRunner().invoke(_app(), ["--acl", str(plant)])
    assert printed.exit_code == 0
    for line in (
        "user ceramic/firing/firing-1\ntopic write shoal/v1/ceramic/firing/raw/firing-1",
        "pattern write shoal/v1/%u/up/#",
        "topic read shoal/v1/ceramic/all/down/#",
    ):
        assert line in printed.output


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(topics_command)
    return app
