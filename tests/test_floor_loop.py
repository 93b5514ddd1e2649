"""Machines, executors, floor and rule together, no bus: whatever dies or gets lost, every operation runs once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from cloud.monitor import Tolerance, reason_to_replan
from cloud.scheduling import Dispatch
from edge.executor import Executor, Out
from edge.orders import InForce
from firmware_sim.factory import Factory
from firmware_sim.settings import Breakdown, Variation
from messages.clock import SECOND
from messages.contracts import MachineEvent, OrderedJob, PlanInForce, Record
from messages.floor import Floor, problem_of
from messages.judge import violations
from messages.plant import load_plant
from messages.problem import Problem

PLANT = load_plant(Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml")
JOBS = {name: OrderedJob(job=name, product=name) for name in PLANT.products}
T0 = 1_700_000_000 * SECOND
STEP = 300 * SECOND
LONGEST = 100 * 3600 * SECOND


class Node:
    """An executor as the edge process keeps it: decisions and their snapshot are one, what is sent may be lost."""

    def __init__(self, name: str, factory: Factory, rng: random.Random) -> None:
        self.name, self.factory, self.rng = name, factory, rng
        self.executor = Executor(PLANT, name)
        self.kept = self.executor.snapshot()
        self.waiting: list[tuple[str, MachineEvent]] = []
        self.records: list[Record] = []
        self.dead_until = 0

    def tick(self, now: int, plan: InForce | None) -> None:
        """One step of a living node; a dead one only lets events pile up (its devices keep them)."""
        if now < self.dead_until:
            return
        if self.rng.random() < 0.01:
            self.dead_until = now + self.rng.randrange(1, 20) * STEP
            self.executor = Executor(PLANT, self.name, self.kept)
            return
        if plan is not None:
            self._do(self.executor.on_plan(plan, now), now)
        events, self.waiting = self.waiting, []
        for device, event in events:
            self._do(self.executor.on_events(device, [event], now), now)
        if self.rng.random() < 0.05:  # the connection was gone for a moment
            self._do(self.executor.on_connect(now), now)
        self._do(self.executor.on_time(now), now)

    def _do(self, out: Out, now: int) -> None:
        self.records += out.records
        self.kept = self.executor.snapshot()
        for device, action in out.actions:
            for _ in range(self.rng.choice((0, 1, 1, 1, 2))):  # lost, sent, sent twice
                self.factory.act(device, action, now)


class Planner:
    """The planner's decisions, with the rule as its only solver."""

    def __init__(self) -> None:
        self.floor = Floor()
        self.envelope: InForce | None = None
        self.planned_at = T0
        self.down: dict[str, int | None] = {}
        self.plans = 0

    def tick(self, now: int) -> None:
        body = self.envelope.body if self.envelope else None
        reason: str | None = "orders"
        if body is not None:
            reason = reason_to_replan(
                body, self.floor, now, planned_at=self.planned_at, planned_down=self.down, tolerance=Tolerance()
            )
        if reason is None:
            return
        problem = problem_of(PLANT, JOBS, self.floor, t0=T0, now=now + 60 * SECOND)
        plan = Dispatch().solve(problem).plans[0]
        assert violations(problem, plan) == [], reason
        self.plans += 1
        self.planned_at, self.down = now, {name: self.floor.machines[name].repair_at for name in self.floor.down}
        self.envelope = self._release(problem, plan.model_copy(update={"t0": T0, "revision": self.plans}), now)

    def _release(self, problem: Problem, plan: object, now: int) -> InForce:
        body = PlanInForce.model_validate(
            {
                "plan": plan,
                "tick_s": problem.tick_s,
                "frozen_until": now,
                "started": [(one.job, one.op) for one in problem.history if not one.interrupted],
            }
        )
        return InForce(key="plan", target="ceramic/all", counter=self.plans, valid_until=now + LONGEST, body=body)


def delivered(records: Iterable[Record], rng: random.Random) -> list[Record]:
    """Records in the order the store got them: lanes and resent batches overtake each other a little."""
    return [record for _, record in sorted((place + rng.random() * 3, record) for place, record in enumerate(records))]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_dies_or_gets_lost_every_operation_is_done_once_and_by_the_rules(seed: int) -> None:
    rng = random.Random(seed)
    scenario = tuple(
        Breakdown(workshop=rng.choice(["drying", "firing", "glazing"]), at_h=rng.uniform(2, 20), repair_h=4)
        for _ in range(seed % 3)
    )
    factory = Factory(PLANT, start=T0, seed=seed, variation=Variation(), scenario=scenario)
    planner = Planner()
    nodes = {name: Node(name, factory, random.Random(seed * 31 + n)) for n, name in enumerate(PLANT.nodes)}
    now = T0
    while len({one.job for one in planner.floor.segments if one.op == 3 and not one.interrupted}) < len(JOBS):
        now += STEP
        assert now < T0 + LONGEST, "not done after a hundred hours"
        factory.advance(now)
        for machine in PLANT.machines:
            nodes[PLANT.node_of(machine)].waiting += [(machine, event) for event in factory.drain(machine)]
        planner.tick(now)
        fresh: list[Record] = []
        for node in nodes.values():
            node.tick(now, planner.envelope)
            fresh += node.records
            node.records = []
        for record in delivered(fresh, rng):
            planner.floor.apply(record)
    runs = Counter((one.job, one.op) for one in planner.floor.segments if not one.interrupted)
    assert runs == {(job, op): 1 for job in JOBS for op in range(4)}
    assert planner.plans < 60, "replanning ends"
    ended: dict[tuple[str, int], int] = {(one.job, one.op): one.end or 0 for one in planner.floor.segments}
    for one in planner.floor.segments:
        assert one.op == 0 or ended[one.job, one.op - 1] <= one.start
        for other in planner.floor.segments:
            if other is not one and other.machine == one.machine:
                assert other.start >= (one.end or 0) or one.start >= (other.end or 0)
