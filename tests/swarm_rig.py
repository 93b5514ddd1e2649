"""A small plant that is produced by awards alone: broker, clock, simulator, edge nodes and judge as processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.settings import CloudSettings
from cloud.stores import SqliteStore
from edge.settings import EdgeSettings
from firmware_sim.settings import SimSettings
from messages.bus import Bus, Received
from messages.clock import SECOND
from messages.connect import BrokerSettings
from messages.contracts import Order, OrderedJob, Record
from messages.negotiation import Delegation, ShopView, Workpiece
from messages.plant import load_plant
from messages.routes import AWARD, DELEGATION, JUDGE, ORDER, SHOP, WORKPIECE
from messages.settings import Settings
from shoal.stage import Stage

T0 = 1_750_000_000_000_000
PRODUCTS = ("a", "b", "c")
OPERATIONS = 2

PLANT = """
site = "s1"
tick_s = 60
sample_s = 60
burst_s = 600
transport_s = 120
products = ["a", "b", "c"]

[[workshops]]
name = "turning"
node = "cell-1"
  [[workshops.machines]]
  id = "lathe-1"
  work_kw = 10
  idle_kw = 2
  preheat_kw = 0
  preheat_h = 0
  time_h = [0.5, 0.75, 0.5]
  [[workshops.machines]]
  id = "lathe-2"
  node = "cell-2"
  work_kw = 12
  idle_kw = 2
  preheat_kw = 0
  preheat_h = 0
  time_h = [0.75, 0.5, 0.75]

[[workshops]]
name = "curing"
node = "ovens"
  [[workshops.machines]]
  id = "oven-1"
  work_kw = 30
  idle_kw = 8
  preheat_kw = 20
  preheat_h = 0.25
  time_h = [0.5, 0.5, 1]
"""


@dataclass
class Floor:
    """A stage, and what somebody who listens at its broker hears."""

    stage: Stage
    bus: Bus
    store: Path
    batons: dict[str, list[Workpiece]] = field(default_factory=dict)
    views: list[ShopView] = field(default_factory=list)
    awards: dict[str, object] = field(default_factory=dict)
    """topic → what the broker retains of it"""
    terms: list[int] = field(default_factory=list)
    told: dict[str, Delegation] = field(default_factory=dict)
    """node → what it would go on with"""

    async def order(self, *jobs: str, name: str = "o1", revision: int = 0) -> None:
        order = Order(
            order=name,
            revision=revision,
            placed_at=self.stage.clock.now,
            jobs=[OrderedJob(job=job, product=job.split("-")[0]) for job in jobs],
        )
        await self.bus.publish(ORDER, order, site="s1")

    async def cancel(self, name: str, *, revision: int = 1) -> None:
        await self.order(name=name, revision=revision)

    def states(self) -> dict[str, str]:
        return {job: batons[-1].state for job, batons in self.batons.items()}

    async def run(self, until: Any, *, hours: float = 24.0) -> None:
        """Plant time goes on until `until()`; AssertionError when it does not come to that."""
        last = self.stage.clock.now + round(hours * 3600 * SECOND)
        while not until():
            assert self.stage.clock.now < last, self.states()
            await self.stage.step()

    def records(self, kind: str) -> list[Record]:
        with SqliteStore(path=self.store).open(read_only=True) as store:
            return [row.record for row in store.records(limit=100_000, kinds=[kind])]

    def made(self) -> Counter[tuple[str, int]]:
        """How often each operation was done, by the records in the store."""
        return Counter((one.job, one.op) for one in self.records("finished"))  # type: ignore[union-attr]

    async def _on_baton(self, received: Received) -> None:
        self.batons.setdefault(received.message.job, []).append(received.message)

    async def _on_view(self, received: Received) -> None:
        self.views.append(received.message)

    async def _on_award(self, received: Received) -> None:
        self.awards[received.topic] = received.message

    async def _on_award_cleared(self, ids: dict[str, str]) -> None:
        self.awards.pop(AWARD.topic(**ids), None)

    async def _on_delegation(self, received: Received) -> None:
        self.told[received.ids["node"]] = received.message

    async def _on_judge(self, received: Received) -> None:
        self.terms.append(received.message.body.term)


@asynccontextmanager
async def floor(tmp_path: Path, *, judge: Mapping[str, Any] | None = None, **swarm: Any) -> AsyncIterator[Floor]:
    """Everything runs; nothing is ordered yet."""
    plant_file = tmp_path / "plant.toml"
    plant_file.write_text(PLANT)
    plant = load_plant(plant_file)

    def cast(port: int, clock: str) -> Mapping[str, tuple[str, Settings]]:
        broker = BrokerSettings(port=port)
        cast: dict[str, tuple[str, Settings]] = {
            "sim": (
                "sim",
                SimSettings(plant=plant_file, broker=broker, clock=clock, start=T0, seed=1, order_feed=False),
            )
        }
        for node in plant.nodes:
            settings = {"site": "s1", "node": node, "plant": plant_file, "local": broker, "clock": clock}
            cast[node] = ("edge", EdgeSettings.model_validate({**settings, "data": tmp_path / node}))
        cast["cloud"] = (
            "cloud",
            CloudSettings.model_validate(
                {
                    "sites": ("s1",),
                    "broker": broker,
                    "clock": clock,
                    "data": tmp_path / "cloud",
                    "plant": plant_file,
                    "swarm": {"judge": judge or {"kind": "mcts", "iterations": 50}, "offer_s": 300, **swarm},
                }
            ),
        )
        return cast

    stage = Stage(tmp_path / "stage", plant, T0, cast)
    async with stage:
        bus = Bus("127.0.0.1", stage.broker.port, client_id="watcher", session_expiry_s=0)
        found = Floor(stage, bus, tmp_path / "cloud" / "shoal.db")
        bus.on(WORKPIECE, found._on_baton, site="s1")
        bus.on(SHOP, found._on_view, site="s1")
        bus.on(AWARD, found._on_award, on_cleared=found._on_award_cleared, site="s1")
        bus.on(DELEGATION, found._on_delegation, site="s1")
        bus.on(JUDGE, found._on_judge, site="s1")
        running = asyncio.ensure_future(bus.run())
        try:
            await bus.wait_connected(20)
            await stage.up()
            while not found.terms:  # whoever places an order before anybody listens for the first time is not heard
                await stage.step()
            yield found
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
