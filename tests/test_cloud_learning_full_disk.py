"""A full disk under the cloud's learning: telemetry and the rest go on, and learning does when there is room."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from conftest import beside, eventually
from full_disk_rig import FullDisk
from learning_rig import Heard, Node, always, running, settings

from cloud.roundbook import RoundBook
from cloud.service import run
from cloud.settings import KEY_FILE, CloudSettings
from messages.broker import Broker
from messages.connect import BrokerSettings
from messages.signing import SigningKey


async def test_on_a_full_disk_learning_waits_alone_and_begins_again_when_there_is_room(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = FullDisk(RoundBook, monkeypatch)
    wanted = settings(tmp_path / "cloud", hidden=(64, 64), pause_s=0.0)
    cloud = CloudSettings(
        sites=("s1",), data=tmp_path / "cloud", broker=BrokerSettings(port=broker.port), learning=wanted
    )
    monkeypatch.setattr("learning_rig.CLOUD", SigningKey.at(cloud.data / KEY_FILE))
    heard, process = Heard(broker), asyncio.ensure_future(run(cloud, always(1.0)))
    async with beside(process), running(heard):
        await eventually(lambda: disk.opened >= 3, what="it tries again")
        assert not process.done() and not heard.rounds
        assert "learning.disk_full" in capsys.readouterr().out
        disk.full = False
        async with running(*(Node(broker, name) for name in ("dry", "worn"))):
            await eventually(lambda: heard.rounds, what="a round")
