"""Every service of compose.yaml as a plain process, with its shipped settings and made secrets.

Readings flow, and strangers do not get in. The store is the InfluxDB 1.x of the system's packages; Grafana is tested by
its queries (test_dashboards.py).
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from conftest import eventually
from dashboard_rig import ask
from deploy_rig import ROOT, Stack, credentials, services, with_secrets
from paho.mqtt.enums import CallbackAPIVersion
from servers import Influx

from messages.broker import answers, free_port
from messages.plant import load_plant

SERVICES = ("cloud", "carbon", "edge-forming", "edge-drying", "edge-glazing", "edge-firing", "sim")


@pytest.fixture
def influx(tmp_path: Path) -> Iterator[Influx]:
    with Influx(tmp_path / "influx") as server:
        yield server


@pytest.fixture
def stack(tmp_path: Path, influx: Influx) -> Iterator[Stack]:
    checkout = with_secrets(tmp_path / "checkout")
    plant = checkout / "deploy" / "run" / "plant.toml"
    fast = re.sub(r"^(sample|burst)_s = .*", r"\1_s = 1", plant.read_text(), flags=re.M)
    plant.write_text(fast)
    made = Stack(checkout, free_port(), f'kind = "influx1"\nurl = "{influx.url}"')
    made.start_broker()
    yield made
    made.stop()


@pytest.mark.timeout(600)
async def test_the_services_of_compose_yaml_come_up_and_a_reading_of_every_machine_reaches_the_store(
    stack: Stack, influx: Influx
) -> None:
    assert {*SERVICES, "store-init", "mosquitto", "influxdb", "grafana"} == set(services())
    await eventually(lambda: answers(stack.mqtt_port))
    stack.start("store-init")  # ends; whoever depends on it waits for that
    assert await eventually(lambda: stack.processes["store-init"].poll() is not None)
    for name in SERVICES:
        stack.start(name)
    plant = load_plant(stack.checkout / "deploy" / "run" / "plant.toml")

    def stored(query: str, label: str) -> set[str]:
        for name, process in stack.processes.items():
            runs = None if name != "store-init" else 0
            assert process.poll() == runs, f"{name} ended: {stack.log_of(name).read_text()[-2000:]}"
        return {curve.labels[label] for curve in ask(influx.url, query) if curve.values}

    machines = 'SELECT last("value") FROM "power_kw" GROUP BY "device"'
    await eventually(lambda: stored(machines, "device") == set(plant.machines), 120)
    healths = 'SELECT last("readings") FROM "health" GROUP BY "node"'
    await eventually(lambda: stored(healths, "node") == {*plant.nodes, "cloud"}, 120)
    await eventually(lambda: stored('SELECT last("value") FROM "signal" GROUP BY "name"', "name") == {"carbon"})
    await eventually(lambda: stored('SELECT last("jobs") FROM "progress" GROUP BY "site"', "site") == {plant.site}, 120)

    assert healthy(stack)
    codes = stack.stop()
    assert set(codes.values()) == {0}, codes
    assert not healthy(stack)


async def test_the_broker_lets_nobody_in_without_a_password_and_everyone_only_where_they_belong(stack: Stack) -> None:
    await eventually(lambda: answers(stack.mqtt_port))
    words = credentials(stack.checkout)
    base = "shoal/v1/ceramic"
    assert connects(stack, None, None) is False
    assert connects(stack, "ceramic/firing", "guess") is False
    for user, topic, allowed in (
        ("ceramic/firing", f"{base}/firing/up/health", True),
        ("ceramic/firing", f"{base}/drying/up/health", False),
        ("ceramic/firing/firing-1", f"{base}/firing/raw/firing-1", True),
        ("ceramic/firing/firing-1", f"{base}/firing/raw/firing-2", False),
        ("role.sim", f"{base}/drying/raw/drying-1", True),
        ("role.sim", f"{base}/site/up/order", True),
        ("role.sim", f"{base}/drying/up/health", False),
        ("role.sim", f"{base}/all/down/plan", False),
        ("role.operator", f"{base}/site/down/signal/carbon", True),
        ("role.operator", f"{base}/all/down/plan", False),
        ("role.cloud", f"{base}/all/down/plan", True),
        ("role.integrator", f"{base}/firing/up/health", False),
        ("role.integrator", "anything/else", False),
    ):
        assert may_write(stack, user, words[user], topic) is allowed, (user, topic)


def healthy(stack: Stack) -> bool:
    """The images' health check, with the port of this run."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found = re.search(r"^HEALTHCHECK .* CMD (.*)$", text, re.M)
    assert found
    return subprocess.run(["sh", "-c", found[1].replace("075B", f"{stack.mqtt_port:04X}")]).returncode == 0


def connected(stack: Stack, user: str | None, password: str | None) -> tuple[mqtt.Client, bool]:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    if user is not None:
        client.username_pw_set(user, password)
    answered, failed = threading.Event(), []

    def on_connect(_c: Any, _u: Any, _f: Any, code: Any, _p: Any) -> None:
        failed.append(code.is_failure)
        answered.set()

    client.on_connect = on_connect
    client.connect("127.0.0.1", stack.mqtt_port)
    client.loop_start()
    assert answered.wait(60)
    return client, not failed[0]


def connects(stack: Stack, user: str | None, password: str | None) -> bool:
    client, good = connected(stack, user, password)
    client.disconnect()
    client.loop_stop()
    return good


def may_write(stack: Stack, user: str, password: str, topic: str) -> bool:
    """Whether the broker takes a QoS 1 message: MQTT 5 says why not."""
    client, good = connected(stack, user, password)
    assert good, user
    answered, codes = threading.Event(), []

    def on_publish(_c: Any, _u: Any, _m: Any, code: Any, _p: Any) -> None:
        codes.append(code)
        answered.set()

    client.on_publish = on_publish
    client.publish(topic, b"{}", qos=1)
    assert answered.wait(60)
    client.disconnect()
    client.loop_stop()
    return not codes[0].is_failure
