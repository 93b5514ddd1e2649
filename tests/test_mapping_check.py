"""`shoal edge --check-mapping` shows what a message becomes, what is wrong with it, and what the broker must allow."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from conftest import eventually

from edge.mapping import Mapping
from messages.access import acl
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.errors import ConfigError, UsageError
from messages.routes import ROUTES
from messages.settings import load
from shoal.mapping import check_mapping
from shoal.topics import topics

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "mappings"
PLANT = ROOT / "firmware_sim" / "plants" / "ceramic.toml"
TASMOTA = EXAMPLES / "tasmota.toml"
PLUG = "tele/tasmota_5A9AE8/SENSOR"
GOOD = '{"Time":"2026-01-15T10:00:00","ENERGY":{"Power":1234,"Total":5,"Voltage":231}}'


def check(
    capsys: pytest.CaptureFixture[str],
    file: Path = TASMOTA,
    *,
    config: Path | None = None,
    topic: str | None = None,
    payload: str | None = None,
    sample: Path | None = None,
) -> tuple[int, list[str]]:
    code = check_mapping(file, config, topic, payload, sample)
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_passes_with_its_messages(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(capsys, path, sample=path.with_suffix(".txt"))
    assert code == 0, lines
    assert not [line for line in lines if line.startswith("problem")]


def test_a_message_is_shown_as_the_rows_it_becomes(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(capsys, topic=PLUG, payload=GOOD)
    assert code == 0
    assert lines[0].split("\t") == [
        PLUG,
        "kiln-1-plug",
        "power_kw",
        "1.234",
        "kW",
        "2026-01-15T09:00:00.000+00:00",
        "good",
    ]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ('{"Time":"2026-01-15T10:00:00","ENERGY":{"Power":"high"}}', "problem: * ENERGY.Power: 'high' is no number"),
        ('{"Time":"1970-01-01T00:01:00","ENERGY":{"Power":5}}', "problem: * its clock is not set"),
        ("{", "problem: * not JSON"),
        ('{"Time":"2026-01-15T10:00:00"}', "problem: no reading came out of it"),
        ('{"Time":"2026-01-15T10:00:00"}', "note: * none of the mapped values is in it"),
        ('{"Time":"2026-01-15T10:00:00","ENERGY":{"Power":5}}', "note: * ENERGY.Total is in none of its messages"),
        ('{"Time":"2026-01-15T10:00:00","ENERGY":{"Power":9000}}', "problem: * power_kw: out_of_range (1 readings)"),
    ],
)
def test_what_is_wrong_with_a_message_is_said(payload: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(capsys, topic=PLUG, payload=payload)
    kind, _, what = said.partition(": ")
    assert [line for line in lines if line.startswith(kind) and what.removeprefix("* ") in line], lines
    assert code == (0 if "Total" in said else 1)


def test_a_topic_that_nobody_maps_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(capsys, topic="tele/other/SENSOR", payload=GOOD)
    assert (code, lines[0]) == (1, "note: tele/other/SENSOR: no reading: no [[map]] is for this topic")


def test_a_long_array_is_shown_by_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    times = [1768467600000 + n for n in range(500)]
    body = f'{{"data":{{"ts":{times},"values":{[0.002] * 500}}}}}'
    code, lines = check(capsys, EXAMPLES / "vendor.toml", topic="acme/v2/SN-004711/burst", payload=body)
    assert code == 0
    assert lines[20].split("\t")[3] == "… 480 more" and len(lines) == 22


def test_a_payload_comes_from_standard_input_or_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "payload").write_text(GOOD + "\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode() + b"\n")))
    assert check(capsys, topic=PLUG) == check(capsys, topic=PLUG, sample=tmp_path / "payload")


def test_topics_with_blanks_are_told_from_their_payloads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    payload = '{"last_seen":"2026-01-15T10:00:00Z","temperature": 20}'
    for mark in (" ", "\t"):
        (tmp_path / "sample").write_text(f"zigbee2mqtt/drying/hall 2{mark}{payload}\n\n# a remark\n")
        code, lines = check(capsys, EXAMPLES / "zigbee2mqtt.toml", sample=tmp_path / "sample")
        assert code == 0 and lines[0].startswith("zigbee2mqtt/drying/hall 2\tdrying-air\ttemperature_degc\t20\t")


def test_without_a_message_it_lists_what_it_hears_and_what_the_broker_must_allow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines = check(capsys, EXAMPLES / "plain.toml")
    assert code == 0
    assert lines[:2] == [
        "plant/kiln1/temp\tkiln-1-shell\ttemperature_degc\tthe payload\tdegC\tof arrival",
        "plant/+/gas\t(device)\tgas_m3_h\tthe payload\tl/min\tof arrival",
    ]
    assert [line.strip() for line in lines[-2:]] == ["topic read plant/kiln1/temp", "topic read plant/+/gas"]


def test_the_access_rules_of_the_plant_take_the_topics_of_a_mapping(capsys: pytest.CaptureFixture[str]) -> None:
    topics(write=False, acl=PLANT, mapping=[f"firing={EXAMPLES / 'plain.toml'}"])
    rules = capsys.readouterr().out
    mine = rules.partition("user ceramic/firing\n")[2].partition("\nuser ")[0]
    assert "topic read plant/kiln1/temp\n" in mine and "topic read plant/+/gas\n" in mine
    assert rules.count("plant/") == 2
    for wrong in (["fireing=x"], ["firing"]):
        with pytest.raises(UsageError, match=r"did you mean 'firing'|name the node and its file"):
            topics(write=False, acl=PLANT, mapping=wrong)
    with pytest.raises(UsageError, match="--acl"):
        topics(write=False, acl=None, mapping=["firing=x"])


async def test_the_broker_lets_a_node_hear_exactly_the_foreign_topics_of_its_mapping(tmp_path: Path) -> None:
    filters = load(Mapping, EXAMPLES / "plain.toml", {}).filters(timed=False)
    last = "plant/last"
    may = {"s1/n1": [*filters, last], "s1/n2": [last]}
    rules = acl(ROUTES, {"s1": {"n1": [], "n2": []}}, may) + "\nuser admin\ntopic readwrite #\n"
    heard: dict[str, list[str]] = {user: [] for user in may}

    def listener(broker: Broker, user: str) -> Bus:
        async def note(received: list[Received]) -> None:
            heard[user] += [one.topic for one in received]

        bus = Bus(broker.host, broker.port, client_id=user, username=user, password="pw")
        bus.on_raw([*filters, "plant/secret", last], note)
        return bus

    with Broker(directory=tmp_path / "b", acl=rules, passwords=dict.fromkeys((*may, "admin"), "pw")) as broker:
        buses = [listener(broker, user) for user in may]
        tasks = [asyncio.create_task(bus.run()) for bus in buses]
        for bus in buses:
            await bus.wait_connected(60)  # a subscription that the rules do not allow is granted all the same
        admin = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        admin.username_pw_set("admin", "pw")
        admin.connect(broker.host, broker.port)
        admin.loop_start()
        for topic in ("plant/secret", "plant/kiln2/gas", "plant/kiln2/gas/x", "plant/kiln1/temp", last):
            admin.publish(topic, b"1", qos=1)
        await eventually(lambda: all(last in topics_heard for topics_heard in heard.values()))
        admin.disconnect()
        admin.loop_stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert heard == {"s1/n1": ["plant/kiln2/gas", "plant/kiln1/temp", last], "s1/n2": [last]}


def node(tmp_path: Path, mapping: Path) -> Path:
    config = tmp_path / "node.toml"
    config.write_text(f'site = "ceramic"\nnode = "firing"\nplant = "{PLANT}"\nmapping = "{mapping}"\n')
    return config


def test_with_the_nodes_settings_devices_of_the_plant_may_be_mapped_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mapping.toml"
    rule = '[[map]]\ntopic = "kiln"\ndevice = "firing-1"\nvalue = [{ path = "p", metric = "power_kw", unit = "W" }]\n'
    file.write_text(rule)
    code, lines = check(capsys, file, config=node(tmp_path, file), topic="kiln", payload='{"p":50000}')
    assert code == 0 and lines[0].split("\t")[:4] == ["kiln", "firing-1", "power_kw", "50"]
    code, lines = check(capsys, file, topic="kiln", payload='{"p":50000}')
    assert code == 0 and lines[0].startswith("note: firing-1 is not declared"), (
        "and without them it says what it assumes"
    )
    file.write_text(rule.replace("firing-1", "firing-9"))
    with pytest.raises(ConfigError, match=r"mapping.toml: .*'firing-9' is no device of this node"):
        check(capsys, file, config=node(tmp_path, file))


def shoal(*args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "shoal", *args]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def test_the_command_ends_with_0_1_or_2(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('[[map]]\ntopics = "x"\n')
    file = str(TASMOTA)
    for code, args, said in (
        (0, ["--check-mapping", file, "--topic", PLUG, "--payload", GOOD], "1.234"),
        (1, ["--check-mapping", file, "--topic", PLUG, "--payload", "{"], "not JSON"),
        (2, ["--check-mapping", str(tmp_path / "bad.toml")], "did you mean topic?"),
        (2, ["--check-mapping", str(tmp_path / "none.toml")], "no such mapping file"),
        (2, ["--check-mapping", file, "--payload", "5"], "--payload goes with --topic"),
        (2, ["--topic", "x"], "go with --check-mapping"),
    ):
        done = shoal("edge", *args)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_check_reads_the_mapping_file_too(tmp_path: Path) -> None:
    file = tmp_path / "mapping.toml"
    file.write_text(
        '[[map]]\ntopic = "x"\ndevice = "plug"\nvalue = [{ path = "p", metric = "power_kw", unit = "W" }]\n'
    )
    done = shoal("edge", "--config", str(node(tmp_path, file)), "--check")
    assert done.returncode == 2 and f"{file}: topic 'x': unknown_device: 'plug' is no device" in done.stderr
