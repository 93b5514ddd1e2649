"""A deciding node as a process: nothing delays it, no crash makes it say two things, without its cloud it goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agent_rig import (
    NODE,
    SECOND,
    T0,
    LiveCell,
    Teacher,
    asked,
    plant_file,
    settings_of,
    vector,
    wanting,
)
from conftest import eventually
from edge_rig import node_process
from typer.testing import CliRunner

from edge.cells import KEY_FILE
from edge.endings import retire
from edge.service import run
from edge.settings import EdgeSettings
from messages.broker import Broker
from messages.clock import ClockService
from messages.settings import describe
from messages.signing import SigningKey
from shoal.__main__ import app

STEP = 900 * SECOND
ROOT = Path(__file__).resolve().parent.parent


class NodeProcess:
    """A real node in its own process."""

    def __init__(self, folder: Path, settings: EdgeSettings) -> None:
        self.folder, self.data = folder, settings.data
        (folder / "node.toml").write_text(describe(settings))

    def __enter__(self) -> NodeProcess:
        self.process = node_process(self.folder)
        return self

    def kill(self) -> None:
        assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


@asynccontextmanager
async def running(*buses: Any) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tg:
        tasks = [tg.create_task(one.bus.run()) for one in buses]
        for one in buses:
            await one.bus.wait_connected(30)
        yield
        for task in tasks:
            task.cancel()


async def test_killed_between_keeping_and_sending_an_update_it_sends_the_very_same_bytes(
    folder: Path, broker: Broker, tmp_path: Path
) -> None:
    plant_file(folder)
    async with ClockService(start=T0, patience_s=30) as clock:
        at = T0
        with Broker(directory=tmp_path / "uplink") as uplink:
            given = settings_of(
                folder, broker.port, clock=f"127.0.0.1:{clock.port}", uplink={"port": uplink.port}, explore_first=1.0
            )
            settings = EdgeSettings.model_validate(given)
            cell, teacher = LiveCell(broker.port), Teacher(uplink.port)
            envelope = asked(1, vector(1), now=T0)
            async with running(cell, teacher):
                with NodeProcess(folder, settings) as node:
                    await clock.gather({NODE}, timeout_s=60)
                    await clock.step(to=at)
                    await teacher.artefact(vector(1).tobytes())
                    await teacher.say(envelope)
                    await eventually(lambda: "edge.round" in (folder / "log").read_text())
                    uplink.kill()  # it has the base, and nothing yet to learn from
                    kept = node.data / "learning" / "cell" / "update.safetensors"
                    for _ in range(8):
                        at += STEP
                        await cell.step(at)
                        await clock.step(to=at)
                    await eventually(kept.exists)
                    assert teacher.updates == []
                    node.kill()
                await clock.step(to=at)  # it is missed
                first = kept.read_bytes()
                cell.rng.random(10)  # what it learns from here on is not what it learned
                uplink.start()
                await teacher.bus.wait_connected(30)
                with NodeProcess(folder, settings):
                    await clock.gather({NODE}, timeout_s=60)
                    for _ in range(2):
                        at += STEP
                        await clock.step(to=at)
                        await cell.step(at)
                    await teacher.say(envelope)
                    await eventually(lambda: teacher.updates)
                assert {update.data for update in teacher.updates} == {first} == {kept.read_bytes()}


async def test_without_its_cloud_a_node_decides_by_what_was_released_also_after_a_restart(
    folder: Path, broker: Broker, tmp_path: Path
) -> None:
    plant_file(folder, step_s=3600.0)
    with Broker(directory=tmp_path / "uplink") as uplink:
        settings = EdgeSettings.model_validate(
            settings_of(folder, broker.port, uplink={"port": uplink.port}, explore=0.0)
        )
        cell, teacher = LiveCell(broker.port), Teacher(uplink.port)
        async with running(cell, teacher):
            with NodeProcess(folder, settings) as node:
                await teacher.release(1, wanting("reroute"), counter=1)
                await eventually(lambda: teacher.reports and teacher.reports[-1].running == 1)
                uplink.kill()
                await decided(cell, 3)
                node.kill()
            with NodeProcess(folder, settings):
                await decided(cell, 3)
        assert {action.kind for action in cell.actions} == {"reroute"}
        assert len({action.id for action in cell.actions}) >= 6


async def decided(cell: LiveCell, count: int) -> None:
    """So many more decisions, one after the other; a sample is sent again until it is answered, as devices do."""
    for _ in range(count):
        before, burst = len(cell.actions), cell.burst(time.time_ns() // 1000)

        async def answered(before: int = before, burst: Any = burst) -> bool:
            await cell.send(burst)
            async with asyncio.timeout(60):
                while len(cell.actions) == before and burst.seq not in cell.taken:
                    cell.news.clear()
                    await asyncio.wait_for(cell.news.wait(), 60)
            return len(cell.actions) > before

        await eventually(answered)


async def test_decisions_come_while_a_round_is_learned(folder: Path, broker: Broker) -> None:
    plant_file(folder, step_s=3600.0)
    settings = EdgeSettings.model_validate(settings_of(folder, broker.port, explore_first=1.0))
    cell, teacher = LiveCell(broker.port, step_us=3600 * SECOND), Teacher(broker.port)
    async with running(cell, teacher):
        with NodeProcess(folder, settings):
            await eventually(lambda: teacher.capability)
            past = time.time_ns() // 1000 - 20 * 3600 * SECOND  # what it did before: learned from, too late to decide
            for k in range(8):
                await cell.step(past + k * 3600 * SECOND)
            assert cell.actions == []
            await teacher.artefact(vector(1).tobytes())
            await teacher.say(asked(1, vector(1), now=time.time_ns() // 1000, steps=1_000_000))
            await eventually(lambda: teacher.health["learner_steps"] > 0)
            await decided(cell, 20)
            steps = teacher.health["learner_steps"]
            await eventually(lambda: teacher.health["learner_steps"] > steps, what="it goes on learning")
            assert len(cell.actions) == 20 and steps < 1_000_000 and not teacher.updates


async def test_decisions_do_not_wait_for_the_disk(folder: Path, broker: Broker) -> None:
    """Readings may wait ten seconds here to share a commit; what they say is decided at once."""
    plant_file(folder, step_s=3600.0)
    settings = EdgeSettings.model_validate(settings_of(folder, broker.port, explore=0.0, commit_s=10.0))
    cell, teacher = LiveCell(broker.port), Teacher(broker.port)
    async with running(cell, teacher):
        with NodeProcess(folder, settings):
            await teacher.release(1, wanting("service"), counter=1)
            await eventually(lambda: teacher.reports and teacher.reports[-1].running == 1)
            await decided(cell, 1)
            for n in range(2, 8):
                await cell.send(cell.burst(time.time_ns() // 1000))
                await eventually(lambda n=n: len(cell.actions) == n)
            assert len(cell.taken) < 4, "the disk has hardly any of them yet"
            assert {action.kind for action in cell.actions} == {"service"}


async def test_a_node_shows_its_key_and_check_says_what_is_needed(folder: Path, broker: Broker) -> None:
    plant_file(folder)
    settings = EdgeSettings.model_validate(settings_of(folder, broker.port))
    (folder / "node.toml").write_text(describe(settings))
    said = CliRunner().invoke(app, ["edge", "--check", "--config", str(folder / "node.toml")])
    key = SigningKey.at(settings.data / KEY_FILE).public
    assert said.exit_code == 0, said.output
    for text in (key, "cell robot-1: decided by model cell, every 900 s", "open rounds: cloud"):
        assert text in said.output
    (folder / "again.toml").write_text(said.output)
    again = CliRunner().invoke(app, ["edge", "--check", "--config", str(folder / "again.toml")])
    assert again.output == said.output, "what it says can be read again"
    teacher = Teacher(broker.port)
    async with running(teacher), asyncio.TaskGroup() as tg:
        node = tg.create_task(run(settings))
        await eventually(lambda: teacher.capability)
        assert teacher.capability is not None and teacher.capability.public_key == key
        assert {one.device: one.kind for one in teacher.capability.devices}["robot-1"] == "cell"
        node.cancel()


async def test_a_node_that_retires_takes_back_what_it_said_of_its_models(folder: Path, broker: Broker) -> None:
    plant_file(folder)
    settings = EdgeSettings.model_validate(settings_of(folder, broker.port))
    teacher = Teacher(broker.port)
    async with running(teacher):
        node = asyncio.create_task(run(settings))
        await eventually(lambda: teacher.reports)
        node.cancel()
        await asyncio.gather(node, return_exceptions=True)
        leaving = asyncio.create_task(retire(settings))
        await eventually(lambda: teacher.cleared)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


def test_a_node_without_learning_loads_nothing_of_it(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from contextlib import suppress; from pathlib import Path\n"
        "from edge.service import run; from edge.settings import EdgeSettings; from messages.settings import load\n"
        "async def main():\n"
        "    with suppress(TimeoutError):\n"
        "        async with asyncio.timeout(0.5):\n"
        "            await run(load(EdgeSettings, Path(sys.argv[1])))\n"
        "asyncio.run(main())\n"
        "heavy = {'edge.agents', 'edge.learner', 'edge.models', 'edge.training', 'edge.checkpoint', 'edge.cells',\n"
        "         'onnxruntime', 'cryptography', 'safetensors', 'messages.updates', 'messages.signing'}\n"
        "print('loaded:', *sorted(heavy & set(sys.modules)))"
    )
    loaded = {}
    for learning in (True, False):
        folder = tmp_path / str(learning)
        plant_file(folder)
        given = settings_of(folder, 9)
        if not learning:
            del given["learning"]
        (folder / "node.toml").write_text(describe(EdgeSettings.model_validate(given)))
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder / "node.toml")],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        loaded[learning] = done.stdout.split("loaded:")[1].split()
    assert loaded[False] == []
    assert {"edge.learner", "cryptography"} <= set(loaded[True]), "or this test cannot fail"
    assert "onnxruntime" not in loaded[True], "fifty megabytes that nothing needed yet"
