"""The private broker: starts where it says, comes back with what it kept, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
import pytest
from conftest import eventually

from messages.broker import Broker, BrokerFailed, answers, free_port
from messages.errors import UsageError

REPO = Path(__file__).parents[1]


def keep(port: int, topic: str, payload: str) -> None:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def kept(port: int, topic: str) -> list[str]:
    found: list[str] = []
    done: list[bool] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = lambda c, u, m: done.append(True) if m.topic == "end" else found.append(m.payload.decode())
    client.connect("127.0.0.1", port)
    client.subscribe([(topic, 1), ("end", 1)])
    client.publish("end", "", qos=1)
    for _ in range(500):
        client.loop(0.02)
        if done:
            break
    client.disconnect()
    assert done
    return found


def test_it_listens_on_the_loopback_only_and_is_gone_after_stop() -> None:
    with Broker(persistence=False) as broker:
        assert answers(broker.port)
        assert broker.pid is not None
        listening = [one for one in psutil.Process(broker.pid).net_connections() if one.status == "LISTEN"]
        assert [one.laddr.ip for one in listening] == ["127.0.0.1"]
        directory, port, pid = broker.directory, broker.port, broker.pid
    assert not answers(port)
    assert not psutil.pid_exists(pid)
    assert not directory.exists(), "its temporary directory goes with it"


def test_what_was_retained_is_there_after_a_clean_restart_on_the_same_port(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "b") as broker:
        port = broker.port
        keep(port, "a/b", "state")
        broker.shut_down()
        assert not broker.running
        broker.start()
        assert broker.port == port
        assert kept(port, "a/b") == ["state"]


def test_it_comes_back_on_the_same_port_after_a_kill(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "b") as broker:
        port = broker.port
        for _ in range(3):
            broker.kill()
            assert not answers(port)
            broker.start()
            assert broker.port == port
            assert answers(port)


def test_a_port_in_use_is_said_with_its_cure() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UsageError, match="in use: stop what listens"):
            Broker(port=other.getsockname()[1], persistence=False).start()


def test_a_missing_mosquitto_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("messages.broker._PLACES", ())
    with pytest.raises(UsageError, match="sudo apt-get install mosquitto"):
        Broker().start()


def test_a_configuration_mosquitto_refuses_is_shown_in_its_own_words() -> None:
    broker = Broker(extra="no_such_setting 1", persistence=False)
    try:
        with pytest.raises(BrokerFailed, match="no_such_setting"):
            broker.start()
    finally:
        broker.stop()


def test_only_named_users_enter_when_there_are_passwords(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "b", passwords={"s1/press-4": "word"}, persistence=False) as broker:
        codes = []
        for user, word in (("s1/press-4", "word"), ("s1/press-4", "other"), (None, None)):
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
            if user:
                client.username_pw_set(user, word)
            client.on_connect = lambda c, u, f, code, p: codes.append(code.is_failure)
            client.connect(broker.host, broker.port)
            before = len(codes)
            for _ in range(500):
                client.loop(0.02)
                if len(codes) > before:
                    break
        assert codes == [False, True, True]
        assert "word" not in (broker.directory / "passwords").read_text(), "passwords are kept hashed"
        assert (broker.directory / "passwords").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
async def test_it_dies_with_the_process_that_started_it_however_that_ended() -> None:
    program = """
        import sys, time
        from messages.broker import Broker
        broker = Broker(persistence=False).start()
        print(broker.pid, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", textwrap.dedent(program)], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    def gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    await eventually(gone)


def test_a_free_port_is_one_nobody_listens_at_and_where_there_is_none_that_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"from {port} to {port} can be had"):
            free_port(range(port, port + 1))
    assert free_port(range(20_000, 20_100)) in range(20_000, 20_100)
