"""Who is killed, and when: only with something at stake, and whoever ends by itself is reported."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import eventually

from messages.contracts import Batch, Series
from messages.routes import BATCH
from shoal.processes import ProcessFailed
from shoal.torture import executioner
from shoal.torture.executioner import Executioner
from shoal.torture.stage import BROKER, INGEST, Stage
from shoal.torture.witness import Witness

NAMES = ("press", "oven", INGEST, BROKER)
VICTIMS = {"edge": ("press", "oven"), "ingest": (INGEST,), "broker": (BROKER,)}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Four processes that only wait."""
    with Stage(tmp_path) as found:
        for name in NAMES:
            found.commands[name] = [sys.executable, "-c", "import time; time.sleep(60)"]
            found.start(name)
        yield found


def at_stake(witness: Witness, node: str) -> None:
    """A batch of this node was handed over."""
    one = Series(device="d", metric="m", unit="kW", t0=1, at=[0], value=[1.0], quality=192)
    batch = Batch(epoch="0123456789abcdef", lane="live", seq=0, floor=0, made_at=1, series=[one])
    witness.look(BATCH.topic(site=witness.site, node=node, lane="live"), batch.encode())


def states(stage: Stage) -> dict[str, str]:
    return {name: psutil.Process(stage.processes[name].pid).status() for name in NAMES}


async def test_every_kind_is_killed_as_often_as_asked_each_with_something_at_stake(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executioner, "DOWN_S", (0.0, 0.1))
    monkeypatch.setattr(executioner, "PAUSED_S", (0.0, 0.1))
    witness = Witness("torture")
    at_stake(witness, "press")
    at_stake(witness, "oven")
    before = {name: process.pid for name, process in stage.processes.items()}
    one = Executioner(stage, witness, VICTIMS, random.Random(3))
    for _ in range(20):  # it ends after twice its seconds, on a busy computer before it is through
        await one.work(wanted=2, seconds=1.0, tell=lambda: None)
        if all(one.counts[kind] >= 2 for kind in VICTIMS):
            break
    assert all(one.counts[kind] >= 2 for kind in VICTIMS) and not one.spared
    assert all(kill.unconfirmed >= 1 for kill in one.kills)
    assert all(process.pid != before[name] for name, process in stage.processes.items() if name != "press")
    stage.check()
    await eventually(lambda: "stopped" not in states(stage).values(), what="whoever was frozen goes on")


async def test_who_has_nothing_at_stake_is_spared_and_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executioner, "PATIENCE_S", 0.3)
    witness = Witness("torture")
    at_stake(witness, "press")
    one = Executioner(stage, witness, {"edge": ("oven",)}, random.Random(1))
    began = time.monotonic()
    await one.work(wanted=1, seconds=1.0, tell=lambda: None)
    assert one.spared >= 1 and not one.kills and time.monotonic() - began < 10
    await eventually(lambda: "stopped" not in states(stage).values(), what="it goes on, and so does ingest")


async def test_a_frozen_process_stands_still_and_a_killed_one_is_dead_until_it_is_started(stage: Stage) -> None:
    stage.freeze("press")
    await eventually(lambda: states(stage)["press"] == "stopped")
    stage.kill("press")
    stage.check()
    assert stage.processes["press"].returncode == -9
    stage.start("press")
    assert stage.processes["press"].poll() is None


async def test_a_process_that_nobody_killed_and_that_ended_is_reported_with_its_last_words(stage: Stage) -> None:
    stage.commands["oven"] = [sys.executable, "-c", "raise SystemExit('shoal: the disk is full')"]
    stage.kill("oven")
    stage.start("oven")
    await eventually(lambda: stage.processes["oven"].poll() is not None)
    with pytest.raises(ProcessFailed, match=r"oven ended with code 1.*the disk is full"):
        stage.check()
