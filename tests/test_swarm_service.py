"""A plant is produced by awards alone: judge, nodes and simulator as processes on a real broker, on one plant clock."""

from __future__ import annotations

from pathlib import Path

from conftest import eventually
from swarm_rig import OPERATIONS, floor


async def test_a_plant_is_produced_by_awards_and_every_workpiece_carries_its_history(tmp_path: Path) -> None:
    async with floor(tmp_path) as plant:
        await plant.order("a-1", "b-1", "c-1")
        await plant.run(lambda: len(plant.batons) == 3 and set(plant.states().values()) == {"done"})
        jobs = ("a-1", "b-1", "c-1")
        await eventually(lambda: plant.made() == {(job, op): 1 for job in jobs for op in range(OPERATIONS)})
