"""The learning service is killed, stopped, cut off, hurried: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import eventually
from learning_rig import Heard, Node, cloud, running, settings

from cloud.registry import FILE, Registry
from messages.broker import Broker
from messages.clock import SECOND, ClockService, LockStepClock

NAMES = ("dry", "humid", "worn")
HERE = Path(__file__).parent


@pytest.mark.parametrize("step", ["registered", "closed"])
async def test_a_cloud_killed_before_a_round_is_said_to_be_closed_makes_its_version_once(
    broker: Broker, tmp_path: Path, step: str
) -> None:
    heard = Heard(broker)
    async with running(heard, *(Node(broker, name) for name in NAMES)):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, str(HERE / "learning_dies.py"), str(tmp_path), str(broker.port), step), cwd=HERE.parent
        )
        try:
            async with asyncio.timeout(60):
                assert await child.wait() == -signal.SIGKILL
        finally:
            if child.returncode is None:
                child.kill()
        await eventually(lambda: heard.rounds)
        assert {one.body.round for one in heard.rounds} == {1} and not heard.closed
        with closing(Registry(tmp_path / FILE)) as registry:
            (made,) = [one for one in registry.versions("cell") if one.origin == "round 1"]
            async with running(cloud(broker, tmp_path, settings(tmp_path, pause_s=3600.0))):
                done = await eventually(lambda: heard.closed)
            assert done[0].closed and done[0].closed.version == made.version == 2
            assert [one.origin for one in registry.versions("cell")] == ["seed 1", "round 1"]
            assert [one.what for one in registry.history("cell", 2)].count("candidate") == 1


async def test_a_cloud_that_was_away_goes_on_with_the_open_round_and_what_came_meanwhile(
    broker: Broker, tmp_path: Path
) -> None:
    heard = Heard(broker)
    wanted = settings(tmp_path, pause_s=3600.0, rounds={"deadline_s": 3600.0})
    async with running(heard):
        silent = Node(broker, "worn")
        silent.trainer.wants = lambda asked, now: False  # type: ignore[method-assign]  # there, but slow
        async with running(cloud(broker, tmp_path, wanted), Node(broker, "dry"), silent):
            await eventually(lambda: [one for one in heard.rounds if one.body.closed is None])
            await asyncio.sleep(0)
        late = Node(broker, "worn")
        async with running(late):
            await eventually(lambda: late.sent, what="an update while the cloud is away")
            async with running(cloud(broker, tmp_path, wanted)):
                done = await eventually(lambda: heard.closed)
    closed = done[0].closed
    assert closed and done[0].round == 1 and {"worn"} <= set(closed.taken)


async def test_after_a_broker_that_forgot_everything_all_of_it_is_said_again(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "broker", persistence=False) as broker:
        nodes = [Node(broker, name) for name in NAMES]
        first = Heard(broker)
        async with running(cloud(broker, tmp_path, settings(tmp_path, pause_s=3600.0)), *nodes):
            async with running(first):
                await eventually(lambda: first.closed and all(node.runs == 2 for node in nodes))
            broker.kill()
            broker.start()
            again = Heard(broker)
            async with running(again):
                await eventually(lambda: again.closed)
                await eventually(lambda: {node for node, _ in again.releases} == set(NAMES))
                released = again.releases[0][1].body
                assert released.version == 2 and released.parameters
                wanted = {released.graph.digest, released.parameters.digest}
                await eventually(lambda: {digest for digest, _ in again.parts} == wanted)
    assert again.closed[-1] == first.closed[-1]


async def test_bases_that_nobody_needs_any_more_are_taken_back_from_the_broker(broker: Broker, tmp_path: Path) -> None:
    heard = Heard(broker)
    nobody = {"named": ["s1/nobody"]}  # version 1 stays the fleet's
    async with running(heard, *(Node(broker, name) for name in NAMES)):
        async with running(cloud(broker, tmp_path, settings(tmp_path, releases=nobody))):
            await eventually(lambda: len(heard.closed) >= 6)
        # Also those of a cloud that was stopped before it could: it takes them back when it is there again.
        async with running(cloud(broker, tmp_path, settings(tmp_path, releases=nobody, pause_s=3600.0))):
            with closing(Registry(tmp_path / FILE)) as registry:
                first = registry.version("cell", 1)
            needed = {one.digest for one in first.artefacts}
            await eventually(lambda: {digest for digest, _ in heard.parts} == needed)


async def test_where_plant_time_waits_no_round_ends_before_its_nodes_were_heard(broker: Broker, tmp_path: Path) -> None:
    """Every step is longer than a round may take: without waiting, nobody would ever be in time."""
    heard = Heard(broker)
    async with ClockService(start=1_700_000_000 * SECOND) as service:
        clock = LockStepClock("127.0.0.1", service.port, name="learning")
        wanted = settings(tmp_path, rounds={"deadline_s": 600.0})
        learning = cloud(broker, tmp_path, wanted, now=clock.now, accelerated=True)
        nodes = [Node(broker, name, now=lambda: service.now) for name in NAMES]
        async with running(heard, *nodes):
            task = asyncio.create_task(learning.run(clock))
            try:
                await service.gather({"learning"}, timeout_s=20)
                for _ in range(200):
                    await service.step(to=service.now + 900 * SECOND)
                    if len(heard.closed) >= 4:
                        break
                    await asyncio.sleep(0.01)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    done = [one.closed for one in heard.closed[1:4]]
    assert len(done) == 3
    assert all(one and set(one.taken) == set(NAMES) and not one.late for one in done)


async def test_a_cloud_whose_backup_is_older_than_what_it_said_goes_on_above_it(broker: Broker, tmp_path: Path) -> None:
    """Nodes heed higher rounds alone: counted from the backup on, none would be heard for long."""
    heard, wanted = Heard(broker), settings(tmp_path)
    async with running(heard, *(Node(broker, name) for name in NAMES)):
        async with running(cloud(broker, tmp_path, wanted)):
            await eventually(lambda: len(heard.closed) >= 5)
        for name in ("rounds.db", "rounds.db-wal", "rounds.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        said = max(one.body.round for one in heard.rounds)
        async with running(cloud(broker, tmp_path, wanted)):
            await eventually(lambda: len([one for one in heard.closed if one.round > said]) >= 2)
    done = [one for one in heard.closed if one.round > said][-1]
    assert done.closed and set(done.closed.taken) == set(NAMES)
    with closing(Registry(tmp_path / FILE)) as registry:
        first = next(one for one in heard.closed if one.round > said)
        origin = registry.version("cell", first.base_version).origin
    assert origin.startswith("round "), "it begins with the newest version that was learned, not with a new one"
