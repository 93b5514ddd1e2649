"""The planner: orders and the floor become a problem, a solver answers, judges agree, the plan goes out.

    planner = Planner(settings, plant, book=PlanBook(…), store=store, bus=bus)
    bus.on(ORDER, planner.on_order, site=…); bus.on(PLAN_ACK, planner.on_ack, site=…); bus.on_connect(planner.republish)
    await clock.drive(planner.on_tick, phase="cloud")

On every tick it reads the new records, asks the monitor whether the plan still stands, and if not plans again: a
rule at once, published as soon as it is checked, then CP-SAT within its time box, published if it is better. Both
start nothing before `frozen_until`, which lies past the time box; so the nodes never act on a plan that is about to
be replaced, and what they begin meanwhile is history to both. No plan goes out with a violation.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

import structlog

from cloud.floor import SECOND, Floor, problem_of
from cloud.monitor import Tolerance, deviation, planned_energy_kwh, reason_to_replan
from cloud.planbook import InForce, PlanBook
from cloud.scheduling import Dispatch, plan_with_energy
from cloud.settings import PlannerSettings
from cloud.stores import Query, Store
from messages.bus import Bus, Received
from messages.contracts import Hold, Order, OrderedJob, PlanAck, PlanInForce, Progress
from messages.errors import BadMessage, BusLost, UsageError
from messages.judge import objective, violations
from messages.plan import Plan
from messages.plant import Plant
from messages.problem import Problem
from messages.routes import PLAN, PROGRESS

log = structlog.get_logger("planner")

READ_AT_ONCE = 1_000
"""Records read per step; a longer backlog is read in several."""
METER_WINDOW_S = 3600.0
"""Energy counters are read again from the start of the last window of this length."""
PROGRESS_PAUSE_S = 0.5
"""Progress is published at most this often (real time), and once more after the last change."""


@dataclass
class Planner:
    """One site's planner. State that must survive is in the book and the store."""

    settings: PlannerSettings
    plant: Plant
    book: PlanBook
    store: Store
    bus: Bus
    accelerated: bool = False
    floor: Floor = field(default_factory=Floor)
    replans: int = 0
    refused: int = 0
    _cursor: int = 0
    _jobs: dict[str, OrderedJob] = field(default_factory=dict)
    _in_force: InForce | None = None
    _planned_at: int = 0
    _planned_down: dict[str, int | None] = field(default_factory=dict)
    _wanted: str | None = None
    _energy_before_kwh: float = 0.0
    _said_at: float = -1e9
    _said: Progress | None = None
    _counters: dict[str, tuple[float, float]] = field(default_factory=dict)
    _metered_to: int | None = None

    def __post_init__(self) -> None:
        self._jobs = self.book.jobs()
        self._in_force = self.book.in_force()
        self.replans = self.book.replans()
        if self._in_force:
            self._planned_at = self._in_force.body.frozen_until
            if {one.job for one in self._in_force.body.plan.assignments} != set(self._jobs):
                self._wanted = "orders changed before the planner stopped"
        elif self._jobs:
            self._wanted = "orders are waiting"

    # --- what comes in --------------------------------------------------------------------------

    async def on_order(self, received: Received) -> None:
        """Keep an order; BadMessage says why one cannot be made."""
        order: Order = received.message
        for job in order.jobs:
            try:
                self.plant.route(job.product)
            except UsageError as error:
                raise BadMessage(f"order {order.order!r}, job {job.job!r}: {error}") from None
        self._close_finished_orders()
        if self.book.place(order, begun={job for job, _ in self.floor.begun}):
            self._jobs = self.book.jobs()
            self._wanted = f"order {order.order}"
            log.info("order.placed", order=order.order, jobs=len(order.jobs))

    async def on_signal(self, received: Received) -> None:
        """A forecast: kept, and used by the next plan. An older revision changes nothing."""
        self.book.signal(received.message)

    async def on_bad(self, topic: str, payload: bytes, reason: str) -> None:
        """An order or answer nobody can act on: said, counted, acknowledged."""
        self.refused += 1
        log.warning("planner.refused", topic=topic[:200], reason=reason[:500], refused=self.refused)

    async def on_ack(self, received: Received) -> None:
        """A node's answer: it ends that node's holds, or shows that the plan rests on an old picture."""
        ack: PlanAck = received.message
        envelope = self._in_force
        if envelope is None or ack.revision != envelope.body.plan.revision:
            return
        node = received.ids["node"]
        if not ack.accepted:
            log.warning("plan.refused", node=node, revision=ack.revision, reason=ack.reason)
            return
        left = [hold for hold in envelope.body.holds if hold.owner != node]
        if len(left) < len(envelope.body.holds):
            body = envelope.body.model_copy(update={"holds": left})
            await self._put_in_force(body, ack.at, disturbance=False)

    async def republish(self) -> None:
        """The owner of a retained topic says it again after every reconnect."""
        await self._publish()

    async def on_tick(self, now: int) -> None:
        """Read what happened, plan if that calls for it, renew the lease, say how things stand."""
        self._read()
        reason, disturbance = self._wanted, False
        self._wanted = None  # what comes while we plan is wanted again
        if reason is None and not self._all_done():
            reason = reason_to_replan(
                self._in_force.body if self._in_force else None,
                self.floor,
                now,
                planned_at=self._planned_at,
                planned_down=self._planned_down,
                tolerance=Tolerance(self.settings.late_s, self.settings.pause_s),
            )
            disturbance = reason is not None
        if reason:
            await self._plan(reason, now, disturbance=disturbance)
        elif self._in_force and not self._all_done() and self._lease_runs_out(now):
            await self._put_in_force(self._in_force.body, now, disturbance=False)
        await self._say_progress(now)

    # --- planning -------------------------------------------------------------------------------

    async def _plan(self, reason: str, now: int, *, disturbance: bool) -> None:
        margin_us = self.plant.tick_s * SECOND
        if not self.accelerated:  # plant time goes on while the solver works
            margin_us += round(self.settings.budget_s * 1.5 * SECOND)
        frozen_until = now + margin_us
        t0 = self._t0(frozen_until)
        problem = problem_of(self.plant, self._jobs, self.floor, t0=t0, now=frozen_until, signals=self.book.signals())
        down: dict[str, int | None] = {machine: self.floor.machines[machine].repair_at for machine in self.floor.down}
        started = time.monotonic()
        first = await asyncio.to_thread(_by_rule, problem)
        if self._in_force:
            self._energy_before_kwh += planned_energy_kwh(self._in_force.body, self.plant, self._planned_at, now)
        revision = self._revision() + 1
        await self._release(problem, first, t0, frozen_until, revision, reason, now, disturbance)
        better = await asyncio.to_thread(_by_solver, problem, self.settings.budget_s, self.settings.seed, first)
        if better is not None and _cost(problem, better) < _cost(problem, first):
            await self._release(problem, better, t0, frozen_until, revision + 1, reason, now, False)
        else:
            better = first
        self.replans += disturbance
        self._planned_at, self._planned_down = now, down
        log.info(
            "plan.made",
            why=reason,
            revision=self._revision(),
            makespan_h=round(problem.in_unit(objective(problem, better)["makespan"]), 2),
            solver=better.solver,
            status=better.status,
            took_s=round(time.monotonic() - started, 2),
        )

    async def _release(
        self,
        problem: Problem,
        plan: Plan,
        t0: int,
        frozen_until: int,
        revision: int,
        reason: str,
        now: int,
        disturbance: bool,
    ) -> None:
        faults = violations(problem, plan)
        if faults:
            # A solver that breaks a rule is a defect of ours: nothing is released, the plan in force stays.
            log.error("plan.violates", solver=plan.solver, first=faults[0], count=len(faults))
            return
        body = PlanInForce(
            plan=plan.model_copy(update={"t0": t0, "revision": revision}),
            tick_s=problem.tick_s,
            frozen_until=frozen_until,
            started=[(one.job, one.op) for one in problem.history if not one.interrupted],
            holds=self._holds(plan),
            why=reason[:500],
        )
        await self._put_in_force(body, now, disturbance=disturbance)

    def _holds(self, plan: Plan) -> list[Hold]:
        """Operations that go to another node than the plan in force gave them."""
        if self._in_force is None:
            return []
        begun = self.floor.begun
        owners = {
            (one.job, one.op): self.plant.node_of(one.machine)
            for one in self._in_force.body.plan.assignments
            if not one.interrupted and (one.job, one.op) not in begun
        }
        owners |= {(hold.job, hold.op): hold.owner for hold in self._in_force.body.holds}
        until = self._in_force.valid_until
        return [
            Hold(job=one.job, op=one.op, owner=owners[one.job, one.op], until=until)
            for one in plan.assignments
            if owners.get((one.job, one.op), self.plant.node_of(one.machine)) != self.plant.node_of(one.machine)
        ]

    async def _put_in_force(self, body: PlanInForce, now: int, *, disturbance: bool) -> None:
        envelope = InForce(
            key="plan",
            target=f"{self.plant.site}/all",
            counter=(self._in_force.counter if self._in_force else 0) + 1,
            valid_until=now + round(self.settings.lease_s * SECOND),
            body=body,
        )
        self.book.keep(envelope, answers_disturbance=disturbance)
        self._in_force = envelope
        await self._publish()

    async def _publish(self) -> None:
        if self._in_force:
            try:
                await self.bus.publish(PLAN, self._in_force, site=self.plant.site)
            except BusLost:
                return  # said again by `republish` after the reconnect

    def _t0(self, frozen_until: int) -> int:
        """Tick 0 stays as long as a job that began under it is open."""
        if self._in_force and self._in_force.body.plan.t0 is not None and self.floor.begun:
            return self._in_force.body.plan.t0
        return frozen_until

    def _revision(self) -> int:
        return self._in_force.body.plan.revision if self._in_force else 0

    def _lease_runs_out(self, now: int) -> bool:
        return bool(self._in_force and self._in_force.valid_until - now < self.settings.lease_s * SECOND / 2)

    # --- the floor ------------------------------------------------------------------------------

    def _read(self) -> None:
        while rows := self.store.records(after=self._cursor, limit=READ_AT_ONCE):
            for row in rows:
                if row.site == self.plant.site:
                    self.floor.apply(row.record)
                self._cursor = row.cursor

    def _done(self) -> tuple[int, int]:
        """Operations and jobs that are done."""
        done = {key for key, segment in self.floor.begun.items() if segment.end is not None and key[0] in self._jobs}
        steps = {job: len(self.plant.route(ordered.product)) for job, ordered in self._jobs.items()}
        jobs = sum(all((job, op) in done for op in range(count)) for job, count in steps.items())
        return len(done), jobs

    def _all_done(self) -> bool:
        return self._done()[1] == len(self._jobs)

    def _close_finished_orders(self) -> None:
        """Orders that are done leave the plan when the next one comes."""
        if not self._jobs or not self._all_done():
            return
        for order in self.book.orders():
            self.book.close_order(order.order)
        self.floor.forget(self._jobs)
        self._jobs = {}

    async def _say_progress(self, now: int) -> None:
        if time.monotonic() - self._said_at < PROGRESS_PAUSE_S or self._in_force is None:
            return
        body = self._in_force.body
        found = deviation(body, self.floor, now)
        operations, jobs = self._done()
        progress = Progress(
            at=now,
            revision=body.plan.revision,
            why=body.why,
            solver=body.plan.solver,
            replans=self.replans,
            operations_done=operations,
            operations=sum(len(self.plant.route(job.product)) for job in self._jobs.values()),
            jobs_done=jobs,
            jobs=len(self._jobs),
            planned_end=found.planned_end,
            expected_end=found.expected_end,
            late_s=found.late_s,
            energy_planned_kwh=round(
                self._energy_before_kwh + planned_energy_kwh(body, self.plant, self._planned_at, now), 3
            ),
            energy_metered_kwh=round(self._metered_kwh(), 3),
            down=self.floor.down,
        )
        self._said_at = time.monotonic()
        if self._said and _as_of(progress, self._said.at) == self._said:
            return
        self._said = progress
        try:
            await self.bus.publish(PROGRESS, progress, site=self.plant.site)
        except BusLost:
            self._said = None

    def _metered_kwh(self) -> float:
        """By the machines' own counters, as stored so far: the last value less the first. Reads only what is new."""
        if not self._counters:
            for device, at, value in self._energy(None, "min"):
                self._counters.setdefault(device, (value, value))
                self._metered_to = min(self._metered_to or at, at)
        for device, at, value in self._energy(self._metered_to, "last"):
            first, _ = self._counters.setdefault(device, (value, value))
            self._counters[device] = (first, value)
            self._metered_to = max(self._metered_to or at, at)
        return sum(last - first for first, last in self._counters.values())

    def _energy(self, start: int | None, agg: Literal["min", "last"]) -> list[tuple[str, int, float]]:
        answer = self.store.query(
            Query(metric="energy_kwh", site=self.plant.site, start=start, every_s=METER_WINDOW_S, agg=agg)
        )
        rows = zip(answer.which.tolist(), answer.times.tolist(), answer.values.tolist(), strict=True)
        return [
            (answer.series[which].device, at, value)
            for which, at, value in rows
            if answer.series[which].device in self.plant.machines
        ]


def _as_of(progress: Progress, at: int) -> Progress:
    """The same progress as of another time: what is equal then is no news."""
    return progress.model_copy(update={"at": at})


def _by_rule(problem: Problem) -> Plan:
    return Dispatch().solve(problem).plans[0]


def _by_solver(problem: Problem, budget_s: float, seed: int, start: Plan) -> Plan | None:
    result = plan_with_energy(problem, budget_s=budget_s, seed=seed, start=start)
    return result.plans[0] if result.plans else None


def _cost(problem: Problem, plan: Plan) -> tuple[float, float]:
    found = objective(problem, plan)
    return found["makespan"], found["energy_kwh"]
