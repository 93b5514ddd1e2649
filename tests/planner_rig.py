"""A planner on a real bus for tests, and what a node and an ERP would see and say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.planbook import PlanBook
from cloud.planner import Planner
from cloud.settings import PlannerSettings
from cloud.stores import BatchKey, SqliteStore, StoredBatch
from cloud.stores.sqlite import SqliteConnection
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import SECOND
from messages.contracts import Batch, Choices, Envelope, Order, OrderedJob, PlanInForce, Progress, Record
from messages.plant import Plant
from messages.routes import CHOICE, CHOICES, ORDER, PLAN, PLAN_ACK, PROGRESS, SIGNAL

T0 = 1_700_000_000 * SECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
EPOCH = "0123456789abcdef"


def two_node_plant() -> Plant:
    """One stage whose two ovens belong to different nodes, so that replanning moves work between nodes."""
    oven = {"work_kw": 100, "idle_kw": 20, "preheat_kw": 50, "preheat_h": 0.5, "time_h": [4, 4]}
    return Plant.model_validate(
        {
            "site": "s1",
            "products": ["a", "b"],
            "workshops": [
                {"name": "press", "node": "press", "machines": [{**oven, "id": "press-1", "preheat_h": 0}]},
                {"name": "ovens", "node": "ovens", "machines": [{**oven, "id": "oven-1"}]},
            ],
        }
    )


def one_stage_plant() -> Plant:
    """As above, but both machines can do the same stage: `oven-2` stands in the node `annex`."""
    plant = two_node_plant().model_dump()
    plant["workshops"] = [plant["workshops"][1]]
    second = {**plant["workshops"][0]["machines"][0], "id": "oven-2"}
    plant["workshops"][0]["machines"] = [plant["workshops"][0]["machines"][0], second]
    return Plant.model_validate(plant)


@dataclass
class Rig:
    """A planner with its bus, and what a node and an ERP would see and say."""

    planner: Planner
    store: SqliteConnection
    bus: Bus
    plans: list[Envelope[PlanInForce]]
    progress: list[Progress]
    choices: list[Choices]
    refused: list[str]
    clock: list[int]
    seq: int = 0

    async def tick(self, at: int) -> None:
        """Plant time comes to `at`."""
        self.clock[0] = at
        await self.planner.on_tick(at)

    def record(self, *records: Record) -> None:
        """What the floor did, as ingest would store it."""
        batch = Batch(epoch=EPOCH, lane="record", seq=self.seq, floor=0, made_at=T0, records=list(records))
        self.store.append([StoredBatch(BatchKey("s1", "ovens", EPOCH, "record", self.seq), batch)])
        self.seq += 1

    def split(self) -> None:
        """Every machine belongs to a node of its own."""
        split: Any = Split(self.planner.plant)
        self.planner.plant = self.planner.out.plant = split

    async def order(self, *jobs: str, name: str = "o1", revision: int = 0) -> None:
        order = Order(
            order=name,
            revision=revision,
            placed_at=T0,
            jobs=[OrderedJob(job=job, product=job.split("-")[0]) for job in jobs],
        )
        await self.bus.publish(ORDER, order, site="s1")


@asynccontextmanager
async def rig(
    broker: Broker, where: Path, plant: Plant, *, accelerated: bool = True, seq: int = 0, **settings: Any
) -> AsyncIterator[Rig]:
    plans: list[Envelope[PlanInForce]] = []
    progress: list[Progress] = []
    choices: list[Choices] = []
    refused: list[str] = []
    clock = [T0]

    async def on_plan(received: Received) -> None:
        plans.append(received.message)

    async def on_progress(received: Received) -> None:
        progress.append(received.message)

    async def on_choices(received: Received) -> None:
        choices.append(received.message)

    ours = Bus(broker.host, broker.port, client_id="planner")
    theirs = Bus(broker.host, broker.port, client_id="floor", session_expiry_s=0)
    book = PlanBook(where / "planner.db")
    with SqliteStore(path=where / "store.db").open() as store:
        planner = Planner(
            PlannerSettings.model_validate({"budget_s": 0.5, "seed": 1, **settings}),
            plant,
            book,
            store,
            ours,
            now=lambda: clock[0],
            accelerated=accelerated,
        )

        async def on_bad(topic: str, payload: bytes, reason: str) -> None:
            refused.append(reason)

        ours.on(ORDER, planner.on_order, site="s1")
        ours.on(PLAN_ACK, planner.on_ack, site="s1")
        ours.on(SIGNAL, planner.on_signal, site="s1")
        ours.on(CHOICE, planner.on_choice, site="s1")
        ours.on_bad(on_bad)
        ours.on_connect(planner.republish)
        theirs.on(PLAN, on_plan, site="s1")
        theirs.on(PROGRESS, on_progress, site="s1")
        theirs.on(CHOICES, on_choices, site="s1")
        tasks = [asyncio.create_task(bus.run()) for bus in (ours, theirs)]
        await ours.wait_connected()
        await theirs.wait_connected()
        try:
            yield Rig(planner, store, theirs, plans, progress, choices, refused, clock, seq)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            book.close()


class Split:
    """A plant whose machines stand in one node each."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def __getattr__(self, name: str) -> object:
        return getattr(self._plant, name)

    def node_of(self, machine: str) -> str:
        return f"{machine}-node"
