"""A full disk under what is learned and released: the node decides on, and takes up both when there is room."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from agent_rig import KEY, NET, SECOND, T0, LiveCell, Teacher, asked, plant_file, settings_of, vector, wanting
from conftest import eventually
from test_agent_live import decided, running

from edge.files import Files
from edge.learner import Learner
from edge.learning import LearnerSettings
from edge.service import run
from edge.settings import EdgeSettings
from edge.training import Trainer
from messages.broker import Broker
from messages.errors import StoreDown
from messages.learning import Update


async def test_on_a_full_disk_a_node_decides_on_and_learns_and_takes_releases_when_there_is_room(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_file(tmp_path / "node", step_s=3600.0)
    given = settings_of(tmp_path / "node", broker.port, explore=0.0, checkpoint_s=0.001)
    cell, teacher = LiveCell(broker.port, step_us=3600 * SECOND), Teacher(broker.port)
    full, write = False, Files.write

    def written(files: Files, name: str, data: bytes) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write(files, name, data)

    monkeypatch.setattr(Files, "write", written)
    monkeypatch.setattr("edge.agents.IDLE_S", 0.2)
    async with running(cell, teacher):
        node = asyncio.create_task(run(EdgeSettings.model_validate(given)))
        await teacher.release(1, wanting("reroute"), counter=1)
        await eventually(lambda: teacher.reports and teacher.reports[-1].running == 1)
        full = True
        past = time.time_ns() // 1000 - 20 * 3600 * SECOND
        for k in range(8):
            await cell.step(past + k * 3600 * SECOND)
        await teacher.artefact(vector(1).tobytes())
        await teacher.say(asked(1, vector(1), now=time.time_ns() // 1000))
        await teacher.release(2, wanting("service"), counter=2)
        await decided(cell, 3)
        await eventually(lambda: teacher.health["learning_not_kept"] > 3)
        await decided(cell, 3)
        assert {action.kind for action in cell.actions} == {"reroute"} and not teacher.updates and not node.done()
        full = False
        await eventually(lambda: teacher.reports[-1].running == 2)
        await decided(cell, 1)
        assert cell.actions[-1].kind == "service"
        await teacher.say(asked(1, vector(1), now=time.time_ns() // 1000))
        await teacher.say(asked(2, vector(1), now=time.time_ns() // 1000))
        await eventually(lambda: teacher.updates)
        node.cancel()
        await asyncio.gather(node, return_exceptions=True)


def test_an_update_that_found_no_room_is_handed_out_when_there_is_some() -> None:
    kept: list[Update] = []
    room = False

    def keep(update: Update) -> None:
        if not room:
            raise StoreDown("no space left; make room on that disk")
        kept.append(update)

    rng = np.random.default_rng(1)
    learner = Learner.fresh(NET, LearnerSettings(batch=4, remembered=100), rng)
    trainer = Trainer("cell", learner, KEY, name="north", rng=rng, keep=keep)
    trainer.on_round(asked(1, vector(1), now=T0, steps=0).body, vector(1).astype("<f4").tobytes(), T0)
    for _ in range(2):
        with pytest.raises(StoreDown):
            trainer.work(10, T0)
        assert trainer.sent is None
    room = True
    assert trainer.work(10, T0) is kept[0] is trainer.sent and trainer.work(10, T0) is None
