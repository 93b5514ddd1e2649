"""The demo of a plant that takes things apart: judged task by task, with yields nobody knows before.

Ordered are assemblies alone. What they need and is not in stock, the plant begins itself: cores are stripped, what is
good is refurbished, what cannot be recovered is bought. On purpose and in view: a disassembly cell breaks down and the
parts before it go to the other; an edge node is killed; the judge is killed, a node judges until it is back.
Where the plant has cells that learn, they do, beside a poisoned node and a bad release: `shoal.demo_learning`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cloud.settings import CloudSettings, SwarmSettings, SwarmWeights
from edge.settings import EdgeSettings
from firmware_sim.settings import Breakdown, Faults, Ordered, OrderSpec, SimSettings, Variation
from messages.connect import BrokerSettings
from messages.contracts import OrderedJob, Signal
from messages.dispatch.judge import Mcts
from messages.plant import Plant
from messages.settings import Settings
from shoal.demo_learning import STRANGER, DemoLearning
from shoal.demo_learning_outcome import learned_of
from shoal.demo_learning_report import Both, figure, sections
from shoal.demo_learning_view import LearningView
from shoal.outcome import Files, write_outcome
from shoal.recovered import recovered_of
from shoal.script import Incident, Script, Tell, Verdict
from shoal.shop_view import SwarmView
from shoal.stage import Stage, in_thread
from shoal.view import View

PIECES = 2
"""Ordered of every product that is ordered; of the first one more."""
BREAKS_H = 1.5
REPAIR_H = 2.0
NODE_DIES_H = 3.0
JUDGE_DIES_H = 5.0
DOWN_S = 1.0
"""Real time that what was killed stays down."""
THINKS_S = 0.03
"""Real time of a decision."""
VARY = Variation(sigma=0.03)


def orders_of(plant: Plant) -> dict[str, OrderedJob]:
    """What is ordered: some of every product that only is built."""
    found = {}
    for place, product in enumerate(plant.ordered):
        for number in range(1, PIECES + 1 + (place == 0)):
            found[f"{product}-{number}"] = OrderedJob(job=f"{product}-{number}", product=product)
    return found


@dataclass
class Play:
    """One run of such a plant."""

    files: Files
    plant_file: Path
    plant: Plant
    seed: int
    start_at: int
    carbon: Signal
    faults: Faults

    def script(self) -> Script:
        """As the demo plays it."""
        orders = frozenset(orders_of(self.plant))
        incidents: list[tuple[float, Incident]] = [(NODE_DIES_H, self._node_dies), (JUDGE_DIES_H, self._judge_dies)]
        view = SwarmView(self.plant, self.start_at, orders=orders)
        if self.learning is not None:
            view = LearningView(
                self.plant,
                self.start_at,
                orders=orders,
                learns=frozenset(self.learning.nodes),
                stranger=STRANGER,
            )
            incidents += self.learning.incidents
        return Script(
            view=view,
            cast=self._cast,
            incidents=tuple(sorted(incidents, key=lambda one: one[0])),
            measure=partial(self._measure, view),
        )

    @property
    def learning(self) -> DemoLearning | None:
        """What cells learn, where there are some."""
        return DemoLearning(self.files, self.plant, self.seed) if self.plant.cells else None

    def _cast(self, port: int, clock: str) -> Mapping[str, tuple[str, Settings]]:
        plant, broker, learning = self.plant, BrokerSettings(port=port), self.learning
        makers = {plant.node_of(machine) for machine in plant.machines}
        orders = tuple(
            Ordered(job=job.job, product=job.product, release_h=None, due_h=None) for job in orders_of(plant).values()
        )
        cast: dict[str, tuple[str, Settings]] = {
            "sim": (
                "sim",
                SimSettings(
                    plant=self.plant_file,
                    broker=broker,
                    clock=clock,
                    start=self.start_at,
                    seed=self.seed,
                    truth=self.files.truth,
                    faults=self.faults,
                    variation=VARY,
                    cells=learning.cells if learning else {},
                    orders=(OrderSpec(order="order-1", at_h=0, jobs=orders),),
                    scenario=(Breakdown(workshop=_apart(plant), at_h=BREAKS_H, repair_h=REPAIR_H),),
                ),
            )
        }
        for node in plant.nodes:
            edge = {"site": plant.site, "node": node, "plant": self.plant_file, "local": broker, "clock": clock}
            own = {
                "data": self.files.directory / node,
                "delegate": node in makers,
                "learning": learning.edge(node) if learning else None,
            }
            cast[node] = ("edge", EdgeSettings.model_validate(edge | own))
        cast["cloud"] = (
            "cloud",
            CloudSettings(
                sites=(plant.site,),
                broker=broker,
                clock=clock,
                data=self.files.cloud,
                store=self.files.telemetry,
                plant=self.plant_file,
                learning=learning.cloud if learning else None,
                swarm=SwarmSettings(
                    delegates=tuple(node for node in plant.nodes if node in makers),
                    judge=Mcts(seconds=THINKS_S),
                    weights=SwarmWeights(makespan=1.0, waiting=1.0, carbon=1.0),
                    ahead_s=plant.tick_s,
                    seed=self.seed,
                ),
            ),
        )
        return cast

    async def _node_dies(self, stage: Stage, view: View, tell: Tell) -> None:
        node = self.plant.nodes[min(1, len(self.plant.nodes) - 1)]
        await _dies(stage, view, node, f"edge node {node}")

    async def _judge_dies(self, stage: Stage, view: View, tell: Tell) -> None:
        await _dies(stage, view, "cloud", "the cloud, and the judge in it,")

    def _measure(self, view: SwarmView, seconds: float, given_up: str) -> tuple[Verdict, Path]:
        recovered = recovered_of(
            self.files,
            self.plant,
            self.carbon,
            orders_of(self.plant),
            batons=view.batons,
            terms=view.judges,
            seconds=seconds,
            stopped=given_up,
        )
        told = list(view.told)
        if not isinstance(view, LearningView):
            return recovered, write_outcome(self.files, self.plant, recovered, told)
        counted = self.files.truth.with_suffix(".summary.json")
        cells = json.loads(counted.read_text(encoding="utf-8")).get("cells", {}) if counted.exists() else {}
        learned = learned_of(self.files.cloud, view, cells)
        both = Both(recovered, learned)
        report = write_outcome(self.files, self.plant, both, told, also=[figure(learned)], sections=sections(learned))
        return both, report


def _apart(plant: Plant) -> str:
    """The workshop that takes apart: what works there breaks."""
    recovers = plant.circular.recovers if plant.circular else {}
    machine = next(machine for product in recovers for machine in plant.route(product)[0][1])
    return plant.machines[machine][0].name


async def _dies(stage: Stage, view: View, process: str, named: str) -> None:
    view.say(f"{named} is killed (SIGKILL)", "bold red")
    await in_thread(partial(stage.kill, process))
    await asyncio.sleep(DOWN_S)
    stage.start(process)
    view.say(f"{named} is started again", "green")
