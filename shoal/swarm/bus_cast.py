"""Who plays when a swarm runs over real brokers: the floor, a process per node, the cloud; and their files.

Two brokers: the site's, where machines and peers speak, and the cloud's, the uplink of every node. So the cloud can be
cut off while the site goes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cloud.settings import CloudSettings, SwarmSettings, SwarmWeights
from cloud.stores import SqliteStore
from edge.settings import EdgeSettings
from firmware_sim.settings import Breakdown, Ordered, OrderSpec, SimSettings, Variation
from messages.clock import SECOND
from messages.connect import BrokerSettings
from messages.contracts import OrderedJob
from messages.plant import Plant
from messages.settings import Settings
from shoal.swarm.outcome import Swarm

STEPS_PER_WORK = 20
"""Steps in the shortest operation, at least."""


@dataclass(frozen=True)
class Files:
    """Where a run keeps what."""

    directory: Path

    @property
    def plant(self) -> Path:
        """The plant, as every process reads it."""
        return self.directory / "plant.json"

    @property
    def truth(self) -> Path:
        """What machines really said, event by event."""
        return self.directory / "truth.jsonl"

    @property
    def summary(self) -> Path:
        """What the floor counted."""
        return self.directory / "truth.summary.json"

    @property
    def cloud(self) -> Path:
        """The cloud's store and book."""
        return self.directory / "cloud"

    def write_plant(self, swarm: Swarm) -> None:
        """For all who play."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.plant.write_text(json.dumps(swarm.plant.model_dump(mode="json", by_alias=True, exclude_none=True)))


def order_of(job: str) -> str:
    """Every job is an order of its own, so that it can be cancelled by itself."""
    return f"order {job}"


def rushed(swarm: Swarm) -> dict[str, tuple[int, OrderedJob]]:
    """Rush orders of the scenario: job → when it is placed, and what it is."""
    found = {}
    for one in swarm.scenario.happenings:
        if one.kind == "rush" and one.job is not None:
            at = swarm.start + one.at_us
            due = at + one.lasts_us if one.lasts_us else None
            found[one.job] = (at, OrderedJob(job=one.job, product=one.product or one.job, due_at=due))
    return found


def step_us(plant: Plant) -> int:
    """Plant time between two looks at everything."""
    hours = [hours for product in plant.products for _, able in plant.route(product) for hours in able.values()]
    shortest = min((one for one in hours if one > 0), default=0.0) * 3600 * SECOND
    return max(plant.tick_us, int(shortest / STEPS_PER_WORK) // plant.tick_us * plant.tick_us)


def cast_of(
    swarm: Swarm, files: Files, *, site_port: int, cloud_port: int, clock: str, ahead_s: float
) -> dict[str, tuple[str, Settings]]:
    """Every process by name, with its settings. `ahead_s`: plant time that an award is under way."""
    site, cloud = BrokerSettings(port=site_port), BrokerSettings(port=cloud_port)
    cast: dict[str, tuple[str, Settings]] = {"sim": ("sim", _floor(swarm, files, site, clock))}
    for node in swarm.plant.nodes:
        edge = {
            "site": swarm.plant.site,
            "node": node,
            "plant": files.plant,
            "local": site,
            "uplink": cloud,
            "data": files.directory / node,
            "clock": clock,
            "tags": swarm.tags,
        }
        cast[node] = ("edge", EdgeSettings.model_validate(edge))
    judge = {
        "judge": swarm.judge.model_dump(),
        "weights": {name: getattr(swarm.weights, name) for name in SwarmWeights.model_fields},
        "delegates": swarm.delegates,
        "tags": swarm.tags,
        "ahead_s": ahead_s,
        "seed": swarm.seed,
    }
    cast["cloud"] = (
        "cloud",
        CloudSettings(
            sites=(swarm.plant.site,),
            broker=cloud,
            clock=clock,
            data=files.cloud,
            store=SqliteStore(),
            plant=files.plant,
            swarm=SwarmSettings.model_validate(judge),
        ),
    )
    return cast


def _floor(swarm: Swarm, files: Files, broker: BrokerSettings, clock: str) -> SimSettings:
    """The simulated floor. It hears of every job beforehand, as the tags of parts tell what they become."""
    jobs = [*swarm.jobs, *(job for _, job in rushed(swarm).values())]
    orders = tuple(
        OrderSpec(
            order=order_of(job.job), jobs=(Ordered(job=job.job, product=job.product, release_h=None, due_h=None),)
        )
        for job in jobs
    )
    return SimSettings(
        plant=files.plant,
        broker=broker,
        clock=clock,
        start=swarm.start,
        seed=swarm.seed,
        variation=Variation(sigma=swarm.sigma),
        orders=orders,
        truth=files.truth,
        scenario=tuple(
            Breakdown(machine=one.machine, at_s=one.at_s, repair_h=max(one.lasts_us, SECOND) / SECOND / 3600)
            for one in swarm.scenario.happenings
            if one.kind == "breakdown"
        ),
    )
