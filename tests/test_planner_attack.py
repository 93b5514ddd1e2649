"""Whatever is hurled at the planner over a real broker, what it publishes holds: judged by who only reads the bus.

The floor here is played: machines follow the plan in force with durations of their own, break down, and their records
come late, twice and out of turn. Beside them orders come, change and go, forecasts change, operators choose, and the
planner dies in the middle. After every step all plans that were published are held against what was known.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import eventually
from planner_rig import HOUR, MINUTE, T0, Rig, rig
from structlog.testing import capture_logs

from messages.broker import Broker
from messages.clock import SECOND
from messages.contracts import (
    Choice,
    Finished,
    Interrupted,
    Order,
    OrderedJob,
    PlanInForce,
    Record,
    Signal,
    Started,
    StateChanged,
)
from messages.floor import Floor, Segment, problem_of
from messages.judge import violations
from messages.plant import Plant
from messages.routes import CHOICE, ORDER, SIGNAL

TICK = 60 * SECOND
SETTINGS: dict[str, Any] = {
    "budget_s": 0.06,
    "pause_s": 600,
    "late_s": 900,
    "objectives": ("makespan", "energy", "carbon"),
}


def plant(policy: str) -> Plant:
    oven = {"work_kw": 100, "idle_kw": 20, "preheat_kw": 50, "preheat_h": 0.5, "time_h": [2, 3]}
    press = {**oven, "preheat_h": 0, "time_h": [1, 0.5]}
    return Plant.model_validate(
        {
            "site": "s1",
            "products": ["a", "b"],
            "workshops": [
                {"name": name, "node": name, "on_breakdown": policy, "machines": [{**kind, "id": f"{name}-{n}"}]}
                | {"machines": [{**kind, "id": f"{name}-{n}"} for n in (1, 2)]}
                for name, kind, n in (("press", press, 1), ("oven", oven, 1))
            ],
        }
    )


@dataclass
class Play:
    """The played floor and the one who hurls things at the planner."""

    plant: Plant
    rng: np.random.Generator
    now: int = T0
    floor: Floor = field(default_factory=Floor)
    """what records told the planner so far"""
    kept_back: list[Record] = field(default_factory=list)
    running: dict[str, Segment] = field(default_factory=dict)
    lasts: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    """operations of each job that are done"""
    orders: dict[str, Order] = field(default_factory=dict)
    signals: dict[tuple[str, int], Signal] = field(default_factory=dict)
    seen: int = 0
    """the highest counter looked at"""
    revision: int = 0
    body: PlanInForce | None = None

    def machines(self, until: int) -> list[Record]:
        """What the machines do by the plan in force until then, as records in the order they are made."""
        records: list[Record] = []
        while self.now < until:
            self.now = min(until, self.now + 10 * MINUTE)
            for machine, run in list(self.running.items()):
                if self.now >= run.start + self.lasts[machine]:
                    del self.running[machine]
                    self.done[run.job] = run.op + 1
                    end = run.start + self.lasts[machine]
                    records += [
                        Finished(at=end, machine=machine, job=run.job, op=run.op, started_at=run.start),
                        StateChanged(at=end, machine=machine, state="idle"),
                    ]
            for machine, back in list(self.down.items()):
                if self.now >= back:
                    del self.down[machine]
                    records.append(StateChanged(at=self.now, machine=machine, state="off"))
            records += self._starts()
        return records

    def _starts(self) -> list[Record]:
        records: list[Record] = []
        if self.body is None:
            return records
        t0 = self.body.plan.t0 or 0
        told = {tuple(key) for key in self.body.started}
        for one in self.body.plan.assignments:
            due = t0 + one.start * TICK <= self.now and not one.interrupted and (one.job, one.op) not in told
            free = one.machine not in self.running and one.machine not in self.down
            next_is = self.done.get(one.job, 0) == one.op and all(run.job != one.job for run in self.running.values())
            if due and free and next_is:
                product = next(
                    job.product for order in self.orders.values() for job in order.jobs if job.job == one.job
                )
                hours = dict(self.plant.route(product)[one.op][1])[one.machine]
                self.lasts[one.machine] = round(hours * HOUR * self.rng.uniform(0.7, 1.5))
                self.running[one.machine] = Segment(one.job, one.op, one.machine, self.now)
                records += [
                    Started(at=self.now, machine=one.machine, job=one.job, op=one.op, plan_revision=self.revision),
                    StateChanged(at=self.now, machine=one.machine, state="work"),
                ]
        return records

    def breaks_down(self) -> list[Record]:
        up = [machine for machine in self.plant.machines if machine not in self.down]
        machine = str(self.rng.choice(up)) if up else None
        if machine is None:
            return []
        back = self.now + int(self.rng.integers(1, 12)) * HOUR
        self.down[machine] = back
        said = back if self.rng.random() < 0.7 else None
        records: list[Record] = [StateChanged(at=self.now, machine=machine, state="down", repair_at=said)]
        run = self.running.pop(machine, None)
        if run is not None:
            records.append(Interrupted(at=self.now, machine=machine, job=run.job, op=run.op, started_at=run.start))
        return records

    def deliver(self, it: Rig, records: list[Record]) -> None:
        """Some records come late, some twice, some in the wrong order."""
        now = [*self.kept_back, *records]
        late = [one for one in records if self.rng.random() < 0.15]
        self.kept_back = late
        told = [one for one in now if one not in late]
        if told and self.rng.random() < 0.3:
            told.append(told[int(self.rng.integers(len(told)))])
        if self.rng.random() < 0.3:
            told = [told[k] for k in self.rng.permutation(len(told))]
        if told:
            it.record(*told)
            for one in told:
                self.floor.apply(one)

    def look(self, it: Rig) -> None:
        """Hold every plan that is new against what was known when it was made."""
        for envelope in it.plans:
            body, plan = envelope.body, envelope.body.plan
            if envelope.counter <= self.seen:
                assert envelope.counter == self.seen, "said again after a reconnect: the newest, never an older one"
                continue
            self.seen = envelope.counter
            assert plan.revision >= self.revision
            if plan.revision == self.revision:
                assert self.body is not None and plan == self.body.plan
                self.body = body
                continue
            signals = {name: self.signals[name, revision] for name, revision in body.signals.items()}
            jobs = it.planner.jobs
            problem = problem_of(self.plant, jobs, self.floor, t0=plan.t0 or 0, now=body.frozen_until, signals=signals)
            assert plan.problem_sha256 == problem.sha256, "made for something else than what was known"
            assert violations(problem, plan) == []
            assert set(problem.history) <= set(plan.assignments)
            assert {(one.job, one.op) for one in problem.history if not one.interrupted} <= set(body.started)
            for (job, op), run in self.floor.begun.items():
                if job in jobs:
                    (there,) = (
                        one for one in plan.assignments if (one.job, one.op) == (job, op) and not one.interrupted
                    )
                    ran_on = {one.machine for one in self.floor.runs()[job] if one.op == op}
                    assert there.machine in ran_on and (run.job, run.op) in body.started
            if plan.revision == self.revision + 1:  # else one went out that a dying planner only kept
                before = self.body is not None and any(one.job in jobs for one in self.body.plan.assignments)
                assert (body.moved is not None) == before, "nervousness is stated where something was released"
            assert body.why and ("by eva" in body.policy or body.policy.startswith("makespan, then energy"))
            assert {"makespan", "energy_kwh"} <= set(plan.objectives) and plan.solver
            assert ("carbon_kg" in plan.objectives) == ("carbon" in body.signals)
            self.body, self.revision = body, plan.revision
        it.plans.clear()


async def hurl(it: Rig, play: Play, step: int) -> None:
    """One disturbance from outside."""
    rng, kind = play.rng, int(play.rng.integers(7))
    names = list(play.orders)
    if kind == 0 or not names:
        order = Order(
            order=f"o{step}",
            placed_at=play.now,
            jobs=[
                OrderedJob(
                    job=f"{step}-{n}",
                    product=str(rng.choice(["a", "b"])),
                    due_at=play.now + int(rng.integers(1, 30)) * HOUR if rng.random() < 0.5 else None,
                )
                for n in range(int(rng.integers(1, 4)))
            ],
        )
        play.orders[order.order] = order
    elif kind in (1, 2):  # withdrawn, or due at another time; what has begun stays
        old = play.orders[str(rng.choice(names))]
        stay = {run.job for run in play.running.values()} | set(play.done)
        jobs = [job for job in old.jobs if kind == 2 or job.job in stay]
        jobs = [job.model_copy(update={"due_at": play.now + int(rng.integers(1, 20)) * HOUR}) for job in jobs]
        order = old.model_copy(update={"revision": old.revision + 1, "jobs": jobs})
    elif kind == 3:
        name = str(rng.choice(["carbon", "tariff", "generation"]))
        revision = max((r for n, r in play.signals if n == name), default=0) + 1
        for said in (revision, max(1, revision - 1)):  # the second is stale, or the same again
            signal = play.signals.get((name, said)) or Signal(
                name=name,
                revision=said,
                unit={"carbon": "kg/kWh", "tariff": "1/kWh", "generation": "kW"}[name],
                start=play.now - 2 * HOUR,
                step_s=3600,
                values=[round(float(one), 3) for one in rng.uniform(0.1, 0.9, 48)],
            )
            play.signals[name, said] = signal
            await it.bus.publish(SIGNAL, signal, site="s1", signal=name)
        return
    elif kind == 4 and it.choices:
        offered = it.choices[-1]
        choice = int(rng.integers(len(offered.alternatives)))
        await it.bus.publish(CHOICE, Choice(revision=offered.revision, choice=choice, by="eva"), site="s1")
        refused = len(it.refused)
        await it.bus.publish(CHOICE, Choice(revision=offered.revision + 50, choice=0, by="eva"), site="s1")
        await eventually(lambda: len(it.refused) > refused)
        return
    else:
        return
    play.orders[order.order] = order
    await it.bus.publish(ORDER, order, site="s1")


async def settled(it: Rig) -> None:
    """Everything said so far has come to the planner: an order that is refused follows it."""
    refused = len(it.refused)
    await it.bus.publish(ORDER, Order(order="none", placed_at=T0, jobs=[]), site="s1")
    await eventually(lambda: len(it.refused) > refused)


def all_seen(it: Rig, play: Play) -> bool:
    """The plan in force has come over the bus."""
    counter = it.planner.out.envelope.counter if it.planner.out.envelope else 0
    return counter <= play.seen or any(one.counter == counter for one in it.plans)


async def live(broker: Broker, where: Path, play: Play, life: int, seq: int) -> int:
    """One life of the planner, from its start to its death in the middle of planning."""
    async with AsyncExitStack() as opened:
        it = await opened.enter_async_context(rig(broker, where, play.plant, seq=seq, **SETTINGS))
        it.clock[0] = play.now
        await eventually(partial(all_seen, it, play))  # what the one before sent while it died comes first
        play.look(it)
        for step in range(12):
            records = play.machines(play.now + int(play.rng.integers(1, 10)) * 10 * MINUTE)
            if play.rng.random() < 0.25:
                records += play.breaks_down()
            play.deliver(it, records)
            await hurl(it, play, 100 * life + step)
            await settled(it)
            await it.tick(play.now)
            await eventually(partial(all_seen, it, play))
            play.look(it)
        # It dies in the middle: what it was about to do is done after the restart.
        order = Order(order=f"last-{life}", placed_at=play.now, jobs=[OrderedJob(job=f"last-{life}", product="a")])
        play.orders[order.order] = order
        await it.bus.publish(ORDER, order, site="s1")
        await settled(it)
        ticking = asyncio.create_task(it.tick(play.now))
        await asyncio.sleep(float(play.rng.uniform(0, 0.1)))
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        play.look(it)
    return it.seq


@pytest.mark.parametrize(("seed", "policy"), [(1, "restart"), (2, "resume"), (3, "restart")])
async def test_whatever_happens_every_plan_that_goes_out_holds(
    broker: Broker, tmp_path: Path, seed: int, policy: str
) -> None:
    play = Play(plant(policy), np.random.default_rng(seed))
    seq = 0
    with capture_logs() as said:
        for life in range(3):
            seq = await live(broker, tmp_path, play, life, seq)
    assert play.revision > 10 and play.done
    assert [one for one in said if one["log_level"] == "error"] == []
