"""A deciding node in lock step: a tick ends when what it decided is out, and learning depends on plant time alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agent_rig import (
    NET,
    NODE,
    SECOND,
    SITE,
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

from edge.policy import F32
from edge.service import run
from edge.settings import EdgeSettings
from messages.broker import Broker
from messages.clock import ClockService
from messages.learning import Update
from messages.routes import BURST
from messages.signing import SigningKey, public_key
from messages.updates import delta_of, signer

STEP = 900 * SECOND


class Floor:
    """One cell, its node, a cloud, and the clock of all."""

    def __init__(self, clock: ClockService, cell: LiveCell, teacher: Teacher) -> None:
        self.clock, self.cell, self.teacher = clock, cell, teacher
        self.at = clock.now
        """of the cell's last step; ticks in between are short"""

    @property
    def now(self) -> int:
        return self.clock.now

    async def step(self, steps: int = 1) -> list[str]:
        """So many steps of the cell and ticks of all; what the cell was told in them."""
        before = len(self.cell.actions)
        for _ in range(steps):
            self.at += STEP
            await self.cell.step(self.at)
            await self.clock.step(to=self.at)
            await self.heard()
        return [action.kind for action in self.cell.actions[before:]]

    async def tick(self) -> None:
        """Time passes, and nothing happens at the cell."""
        await self.clock.step(to=self.now + SECOND)

    async def heard(self) -> None:
        """What the broker had for the cell when the tick ended comes before the answer to this."""
        await self.cell.bus.publish(BURST, payload=b"{}", site=SITE, node="nobody", device="nobody")
        await eventually(lambda: not self.cell.bus.waiting)

    async def learn(self, number: int, base: F32, **facts: Any) -> Update:
        """A round is opened; what the node sends for it."""
        await self.open(number, base, **facts)
        return await self.update(number)

    async def open(self, number: int, base: F32, *, key: SigningKey | None = None, **facts: Any) -> None:
        await self.teacher.artefact(base.astype("<f4").tobytes())
        await self.teacher.say(asked(number, base, now=self.now, **facts), key=key)

    async def update(self, number: int) -> Update:
        """Time passes until it is there."""
        async with asyncio.timeout(30):
            while not self.updates(number):
                await self.tick()
        return self.updates(number)[0]

    def updates(self, number: int) -> list[Update]:
        return [one for one in self.teacher.updates if one.head.round == number]

    async def counted(self, name: str, least: float) -> None:
        """Until the node's health says so."""
        await eventually(lambda: self.teacher.health.get(name, -1) >= least, 30, f"{name} {self.teacher.health}")


@asynccontextmanager
async def floor(folder: Path, broker: Broker, **learning: Any) -> AsyncIterator[Floor]:
    plant_file(folder)
    async with ClockService(start=T0) as clock, asyncio.TaskGroup() as tg:
        cell, teacher = LiveCell(broker.port), Teacher(broker.port)
        settings = EdgeSettings.model_validate(
            settings_of(folder, broker.port, clock=f"127.0.0.1:{clock.port}", **learning)
        )
        tasks = [tg.create_task(one) for one in (run(settings), cell.bus.run(), teacher.bus.run())]
        await cell.bus.wait_connected(30)
        await teacher.bus.wait_connected(30)
        await clock.gather({NODE}, timeout_s=60)
        await clock.step(to=T0)  # now the node knows what time it is
        yield Floor(clock, cell, teacher)
        for task in tasks:
            task.cancel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


async def test_when_a_tick_ends_the_action_for_its_burst_is_out_also_before_anything_is_released(
    folder: Path, broker: Broker
) -> None:
    async with floor(folder, broker, explore=0.0) as one:
        assert await one.step(3) == ["wait"] * 3
        await one.teacher.release(1, wanting("reroute"), counter=5)
        await eventually(lambda: one.teacher.reports[-1].running == 1)
        assert await one.step(4) == ["reroute"] * 4
        assert one.cell.missed == 0 and one.cell.did == [3, 3, 3, 3, 2, 2, 2]


async def test_a_released_version_is_taken_up_and_neither_an_older_counter_nor_another_signer_changes_it(
    folder: Path, broker: Broker
) -> None:
    async with floor(folder, broker, explore=0.0) as one:
        await one.teacher.release(2, wanting("reroute"), counter=5)
        await eventually(lambda: one.teacher.reports[-1].running == 2)
        for version, counter in ((3, 4), (4, 5)):
            await one.teacher.release(version, wanting("service"), counter=counter)
            await eventually(lambda counter=counter: f"{counter} is not newer" in str(one.teacher.reports[-1].refused))
        one.teacher.key = SigningKey.generate()
        await one.teacher.release(5, wanting("service"), counter=9)
        await eventually(lambda: "not signed by" in str(one.teacher.reports[-1].refused))
        assert await one.step(2) == ["reroute", "reroute"]
    async with floor(folder, broker, explore=0.0) as one:  # and after a restart
        assert await one.step(2) == ["reroute", "reroute"]
        await one.teacher.release(6, wanting("service"), counter=5)
        await eventually(lambda: any("5 is not newer" in str(report.refused) for report in one.teacher.reports))
        assert await one.step(1) == ["reroute"]


async def test_a_round_is_learned_in_plant_time_alone_so_that_two_runs_send_the_same(tmp_path: Path) -> None:
    found = []
    for k in range(2):
        with Broker(directory=tmp_path / f"broker-{k}") as broker:
            async with floor(tmp_path / f"node-{k}", broker, explore_first=1.0) as one:
                told = await one.step(12)
                first = await one.learn(1, vector(1), steps=120)
                told += await one.step(6)
                second = await one.learn(2, vector(2), steps=120)
                key = public_key(one.teacher.capability.public_key)  # type: ignore[union-attr, arg-type]
                assert [signer(update, {NODE: key}) for update in (first, second)] == [NODE, NODE]
                found.append((told, [(one.head.samples, delta_of(one).tobytes()) for one in (first, second)]))
    assert found[0] == found[1]
    assert [samples for samples, _ in found[0][1]] == [11, 17]
    assert len(set(found[0][0])) > 2


async def test_a_round_that_nobody_we_know_signed_or_an_older_one_is_ignored(folder: Path, broker: Broker) -> None:
    async with floor(folder, broker, explore_first=1.0) as one:
        await one.step(8)
        await one.open(7, vector(1), key=SigningKey.generate())
        await one.counted("rounds_refused", 1)
        await one.tick()
        await one.tick()
        assert one.updates(7) == []
        await one.learn(3, vector(1))
        await one.open(2, vector(2))
        await one.counted("rounds_refused", 2)
        await one.open(9, vector(2), counter=6)  # a newer round under a counter that was used
        await one.counted("rounds_refused", 3)
        await one.tick()
        assert one.updates(2) == one.updates(9) == []
    async with floor(folder, broker) as one:  # the retained one was the forged one: it is refused again
        await one.counted("rounds_refused", 1)
        await one.open(2, vector(2))
        await one.counted("rounds_refused", 2)
        await one.step(1)
        assert one.updates(2) == []


async def test_an_update_is_said_again_with_its_open_round_until_that_closes(folder: Path, broker: Broker) -> None:
    async with floor(folder, broker, explore_first=1.0) as one:
        await one.step(8)
        envelope = asked(1, vector(1), now=one.now)
        update = await one.learn(1, vector(1))
        await one.teacher.say(envelope)  # the cloud says the round again: it may not have the update
        await eventually(lambda: len(one.updates(1)) == 2)
        assert {again.data for again in one.updates(1)} == {update.data}
        await one.teacher.say(asked(1, vector(1), now=one.now, closed=True))
        await one.teacher.say(envelope)  # a replay
        await one.counted("rounds_refused", 1)
        assert len(one.updates(1)) == 2


async def test_plant_time_waits_once_for_a_base_that_does_not_come_and_learns_when_it_does(
    folder: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge.agents.FETCH_S", 0.3)
    said = ""
    async with floor(folder, broker, explore_first=1.0) as one:
        await one.step(8)
        envelope = asked(1, vector(1), now=one.now)
        await one.teacher.say(envelope)
        async with asyncio.timeout(30):
            while "edge.not_fetched" not in said:
                await one.tick()
                said += capsys.readouterr().out
        for _ in range(10):
            await one.tick()
        said += capsys.readouterr().out
        assert said.count("edge.not_fetched") == 1
        await one.teacher.artefact(vector(1).astype("<f4").tobytes())
        assert (await one.update(1)).head.steps == 20


@pytest.mark.parametrize("shared", [NET.shared, NET.size], ids=["body", "whole"])
async def test_what_is_released_decides_as_this_cell_made_it_its_own(folder: Path, broker: Broker, shared: int) -> None:
    """Of the body that is released nothing can be told of the state: only what was adapted can know what pays here."""
    released = wanting("reroute")
    released[NET.slices[3].start : NET.slices[3].stop] = 1.0  # the last hidden layer says 1 whatever it hears
    async with floor(
        folder,
        broker,
        explore=0.0,
        explore_first=1.0,
        adapt_steps=1_000,
        adapt_half=0,
        learner={"batch": 16, "rate": 1e-2, "gamma": 0.0},
    ) as one:
        told = await one.step(25)
        assert len(set(told)) == 5
        await one.teacher.release(1, released, counter=1, shared=shared)
        async with asyncio.timeout(30):
            while one.teacher.reports[-1].running != 1:  # it is made in slices, while what ran goes on
                await one.tick()
        assert set(await one.step(3)) == {"service"}, "what this cell pays most for"
    async with floor(folder, broker, explore=0.0) as one:
        assert await one.step(1) == ["service"], "it is kept with the version"


async def test_reports_come_when_something_changes_and_figures_now_and_then(folder: Path, broker: Broker) -> None:
    async with floor(folder, broker, explore=0.0, report_s=3 * 900.0) as one:
        await one.teacher.release(1, wanting("reroute"), counter=1)
        await eventually(lambda: one.teacher.reports[-1].running == 1)
        before = len(one.teacher.reports)
        await one.step(12)
        reports = one.teacher.reports[before:]
        assert 2 <= len(reports) <= 5, "every third step"
        assert [report.at for report in reports] == sorted(report.at for report in reports)
        assert reports[-1].arms[0].decisions > reports[0].arms[0].decisions
