"""A plant is produced by awards alone: judge, nodes and simulator as processes on a real broker, on one plant clock."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from conftest import eventually
from swarm_rig import OPERATIONS, Floor, floor

from messages.negotiation import Workpiece

STAY, GO = ("a-1", "b-1", "c-1"), ("a-2", "b-2", "c-2")


async def test_a_judge_that_is_killed_goes_on_and_a_cancelled_order_is_not_made(tmp_path: Path) -> None:
    async with floor(tmp_path) as plant:
        await plant.order(*STAY)
        await plant.order(*GO, name="o2")
        await plant.run(lambda: "working" in plant.states().values())
        await plant.cancel("o2")
        await eventually(lambda: "cancelled" in plant.states().values())
        assert {job.job for told in plant.told.values() for job in told.jobs} >= set(STAY)
        assert set(plant.told) == {"cell-1", "cell-2", "ovens"}, "all nodes are delegates"

        await plant.run(lambda: any(one.steps and one.steps[-1].end_at for one in latest(plant)))
        assert plant.awards, "somebody holds work when the judge dies"
        plant.stage.kill("cloud")
        for _ in range(20):
            await plant.stage.step()
        plant.stage.start("cloud")
        await plant.stage.clock.gather({"cloud"}, timeout_s=60)
        await plant.run(lambda: set(plant.states().values()) == {"done", "cancelled"})

        await eventually(lambda: plant.made().keys() >= {(job, op) for job in STAY for op in range(OPERATIONS)})
        made = plant.made()
        assert set(made.values()) == {1}, "nothing twice"
        assert {job for job, state in plant.states().items() if state == "done"} == {job for job, op in made if op == 1}
        assert {job for job, op in made if op == 1} < {*STAY, *GO}, "of the cancelled order something was not made"
        assert plant.terms == sorted(plant.terms) and len(set(plant.terms)) == 2, "a delegate may have judged meanwhile"
        await eventually(lambda: not plant.awards, what="no award is retained when its work is done")
        await eventually(lambda: plant.views[-1].jobs.get("done") == len(STAY))
        assert all(plant.views[-1].nodes.values())
        check_histories(plant)
        await check_command(plant, "a-1")


def latest(plant: Floor) -> list[Workpiece]:
    return [batons[-1] for batons in plant.batons.values()]


def check_histories(plant: Floor) -> None:
    """Every baton tells what the records tell, and revisions only rise."""
    done = {(one.job, one.op, one.machine, one.started_at, one.at) for one in plant.records("finished")}  # type: ignore[union-attr]
    told = {(one.job, step.op, step.machine, step.start_at, step.end_at) for one in latest(plant) for step in one.steps}
    assert told == done
    for batons in plant.batons.values():
        revisions = [one.revision for one in batons]
        assert revisions == sorted(set(revisions))


async def check_command(plant: Floor, job: str) -> None:
    """`shoal workpiece` says the same, from the bus and from the store."""
    port, data = str(plant.stage.broker.port), str(plant.store.parent)
    command = [sys.executable, "-m", "shoal", "workpiece", job, "--json"]
    baton, history = await asyncio.gather(
        asyncio.to_thread(subprocess.run, [*command, "--port", port], capture_output=True, timeout=60),
        asyncio.to_thread(subprocess.run, [*command, "--data", data], capture_output=True, timeout=60),
    )
    assert (baton.returncode, history.returncode) == (0, 0), (baton.stderr, history.stderr)
    assert Workpiece.decode(baton.stdout) == plant.batons[job][-1]
    assert json.loads(history.stdout)["steps"] == json.loads(baton.stdout)["steps"]
