"""The planner: orders and the floor become a problem, a solver answers, judges agree, the plan goes out.

    planner = Planner(settings, plant, book=PlanBook(…), store=store, bus=bus)
    bus.on(ORDER, planner.on_order, site=…); bus.on(PLAN_ACK, planner.on_ack, site=…); bus.on_connect(planner.republish)
    await planner.get_ready()       # beside the others: machine code, before it is needed
    await clock.drive(planner.on_tick, phase="cloud")

On every tick it reads the new records, asks the monitor whether the plan still stands, and if not plans again: a plan
at once (the one in force, repaired), published as soon as it is checked, then what the portfolio finds within its time
box, published if it is better. Both start no operation before `frozen_until`, which lies past the time box; so no node
starts work by a plan that is about to be replaced (it may call a part or warm a machine by it), and what began
meanwhile is history to both. Beside the plan it says which alternatives there were; an operator may choose one, and
plans are chosen by that preference from then on.
News that the search does not know of ends it: an order, a choice, a disturbance on the floor. What it found is dropped,
the plan at once stands, and the next tick plans again. Cancelled, the planner ends within seconds and plans again when
it is started again.
No plan goes out with a violation.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog
from pydantic import ValidationError

from cloud.handover import without
from cloud.intake import Intake
from cloud.metering import EnergyMeter
from cloud.monitor import planned_energy_kwh
from cloud.planbook import PlanBook
from cloud.planning import alternatives, at_once, chosen, front_of, in_ticks_of, measures_of
from cloud.preference import preference_for
from cloud.released import Occasion, Released
from cloud.settings import PlannerSettings
from cloud.standing import progress_of, same_news
from cloud.stores import Store
from cloud.warming import make_ready
from cloud.watch import Watch
from cloud.working import in_thread
from messages.bus import Bus, Received
from messages.contracts import Choice, Order, OrderedJob, PlanAck, Progress, Signal
from messages.errors import BadMessage, BusLost, UsageError
from messages.floor import SECOND, Floor, problem_of
from messages.plan import Plan
from messages.plant import Plant
from messages.problem import Problem
from messages.routes import PROGRESS

log = structlog.get_logger("planner")

PROGRESS_PAUSE_S = 0.5
"""Progress is published at most this often (real time), and once more after the last change."""
HOLD_S = 40.0
"""A tick of a plant whose time waits for the planner is held at most so long while kernels are compiled, less than its
clock has patience; they are waited for until `cloud.warming.MOST_S` are over."""
JOBS_TO_COMPILE = 3
"""Jobs of the problem that kernels are compiled for."""


@dataclass
class Planner:
    """One site's planner. State that must survive is in the book and the store; `now` is plant time."""

    settings: PlannerSettings
    plant: Plant
    book: PlanBook
    store: Store
    bus: Bus
    now: Callable[[], int]
    accelerated: bool = False
    """plant time waits for the planner"""
    refused: int = 0
    out: Released = field(init=False)
    watch: Watch = field(init=False)
    intake: Intake = field(init=False)
    wanted: str | None = field(init=False)
    """why the next tick is to plan"""
    _disturbance: bool = False
    _stop: threading.Event | None = None
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _not_before: int = 0
    _said_at: float = -1e9
    _said: Progress | None = None
    _meter: EnergyMeter = field(init=False)

    def __post_init__(self) -> None:
        scrapping = [one.name for one in self.plant.workshops if one.machines and one.on_breakdown == "scrap"]
        if scrapping:
            raise UsageError(
                f'workshop {scrapping[0]!r}: on_breakdown = "scrap" cannot be planned: its job would have to begin '
                "anew, and nodes start an operation once; use restart or resume, and order a lost piece as a new job"
            )
        self._meter = EnergyMeter(self.store, self.plant)
        self.out = Released(self.settings, self.plant, self.book, self.bus, self.now)
        self.watch = Watch(self.store, self.settings, self.out, self.plant.site)
        self.intake = Intake(
            self.plant, self.book, self.watch, lambda jobs, signals: self._problem(jobs, self.now(), signals)
        )
        self.wanted = self.out.state.planning
        self._ready.set()
        body = self.out.body
        if self.wanted is None and body is None and self.jobs:
            self.wanted = "orders are waiting"
        elif self.wanted is None and body and {one.job for one in body.plan.assignments} != set(self.jobs):
            self.wanted = "orders changed before the planner stopped"

    @property
    def floor(self) -> Floor:
        """The floor as its records tell it."""
        return self.watch.floor

    @property
    def jobs(self) -> dict[str, OrderedJob]:
        """Jobs of all open orders."""
        return self.intake.jobs

    async def get_ready(self) -> None:
        """Have kernels compiled by another process; until then plans wait, unless that fails."""
        self._ready.clear()
        try:
            names = (self.plant.products * JOBS_TO_COMPILE)[:JOBS_TO_COMPILE]
            jobs = {str(n): OrderedJob(job=str(n), product=name) for n, name in enumerate(names)}
            now = self.now()
            problem = problem_of(self.plant, jobs, Floor(), t0=now, now=now, signals=self.intake.signals)
            await make_ready(problem, measures_of(problem, self.settings), self._ready.set)
        finally:
            self._ready.set()

    # --- what comes in --------------------------------------------------------------------------

    async def on_order(self, received: Received) -> None:
        """Keep an order; BadMessage says why one cannot be made."""
        order: Order = received.message
        if self.intake.order(order, first=self._want):
            log.info("order.placed", order=order.order, revision=order.revision, jobs=len(order.jobs))

    async def on_signal(self, received: Received) -> None:
        """A forecast: kept, and used by the next plan."""
        self.intake.signal(received.message, received.ids["signal"])

    async def on_choice(self, received: Received) -> None:
        """An operator prefers another alternative: from now on plans are chosen by that preference."""
        choice: Choice = received.message
        offered, values = self.out.state.choices, self.out.state.values
        if offered is None or choice.revision != offered.revision or choice.choice >= len(values):
            there = "none" if offered is None else f"revision {offered.revision} with {len(values)}"
            raise BadMessage(
                f"choice {choice.choice} of revision {choice.revision}: the choices on offer are {there}; "
                "look at up/choices and choose again"
            )
        self.out.change(preference=preference_for(values, offered.objectives, choice.choice, choice.by))
        self._want(f"choice of {choice.by or 'an operator'}")
        log.info("plan.chosen", revision=choice.revision, choice=choice.choice, by=choice.by)

    async def on_bad(self, topic: str, payload: bytes, reason: str) -> None:
        """An order, signal or answer nobody can act on: said, counted, acknowledged."""
        self.refused += 1
        log.warning("planner.refused", topic=topic[:200], reason=reason[:500], refused=self.refused)

    async def on_ack(self, received: Received) -> None:
        """A node's answer: from now on it obeys this revision, so what was granted it before is void.

        What it says it began stays with it: nobody starts that until its record has come, or it has run out.
        """
        ack: PlanAck = received.message
        envelope, node = self.out.envelope, received.ids["node"]
        if not ack.accepted:
            log.warning("plan.refused", node=node, revision=ack.revision, counter=ack.counter, reason=ack.reason)
            if envelope and ack.held is not None and ack.held >= envelope.counter:
                # Somebody else's plan, or ours from before a loss, stands above this one: top it.
                await self.out.put(envelope.body, above=ack.held)
            return
        state = self.out.state
        if envelope is None or ack.counter < state.first_counter or ack.revision != envelope.body.plan.revision:
            return
        claimed = [key for key in ack.started if key not in envelope.body.started and key[0] in self.jobs]
        self.watch.claim(claimed, self.now())
        self.out.change(granted=without(state.granted, node))
        left = [hold for hold in envelope.body.holds if hold.owner != node]
        if claimed or len(left) < len(envelope.body.holds):
            started = [*envelope.body.started, *claimed]
            await self.out.put(envelope.body.model_copy(update={"holds": left, "started": started}))

    async def republish(self) -> None:
        """The owner of a retained topic says it again after every reconnect."""
        self._said = None
        await self.out.republish()

    async def on_tick(self, now: int) -> None:
        """Read what happened, plan if that calls for it, renew the lease, say how things stand."""
        self.watch.read()
        if self.wanted is None and now >= self._not_before and not self.intake.all_done:
            reason = self.watch.disturbed(now)
            if reason is not None:
                self._want(reason, disturbance=True)
            elif reason := self.watch.forecast(now, self.intake.signals):
                self._want(reason)
        if self.wanted is not None and now >= self._not_before and await self._can_plan():
            await self._plan(now)
        elif self.out.body and not self.intake.all_done and self.out.lease_runs_out(now):
            await self.out.renew()
        await self._say_progress(now)

    def _want(self, reason: str, *, disturbance: bool = False) -> None:
        """The next tick plans; a search that is under way ends. Kept, so that a restart plans as well."""
        self.wanted = reason
        self._disturbance |= disturbance
        self.out.remember(planning=reason)
        if self._stop is not None:
            self._stop.set()

    # --- planning -------------------------------------------------------------------------------

    async def _can_plan(self) -> bool:
        """Kernels are compiled. Where plant time waits it is held for a while; elsewhere a later tick asks again."""
        if not self._ready.is_set() and self.accelerated:
            with suppress(TimeoutError):
                async with asyncio.timeout(HOLD_S):  # `wait_for` may forget that it was cancelled, in Python 3.11
                    await self._ready.wait()
        return self._ready.is_set()

    async def _plan(self, now: int) -> None:
        reason, disturbance = self.wanted or "", self._disturbance
        occasion = self._occasion(reason, now)
        if occasion is None:
            return
        self.wanted, self._disturbance = None, False  # what comes while we plan is wanted again
        self._stop = stop = threading.Event()
        try:
            await self._answer(occasion, now, disturbance, stop)
        finally:
            self._stop = None

    def _occasion(self, reason: str, now: int) -> Occasion | None:
        margin_us = self.plant.tick_us
        if not self.accelerated:  # plant time goes on while the solver works
            margin_us += round(self.settings.budget_s * 1.5 * SECOND)
        t0, frozen_until = self._t0(now + margin_us), now + margin_us
        jobs = dict(self.jobs)
        try:
            problem = self._problem(jobs, frozen_until, self.intake.signals)
        except ValidationError as error:
            # The floor's records contradict each other. The plan in force stays; a person must look.
            log.error("plan.impossible", why=reason, error=str(error.errors()[0]["msg"])[:500])
            self._not_before = now + round(self.settings.pause_s * SECOND)
            return None
        signals = {name: one.revision for name, one in self.intake.signals.items()}
        begun = frozenset(self.floor.begun)
        return Occasion(problem, jobs, signals, begun, self._before(problem, t0), t0, frozen_until, reason)

    async def _answer(self, occasion: Occasion, now: int, disturbance: bool, stop: threading.Event) -> None:
        began, state, problem, before = time.monotonic(), self.out.state, occasion.problem, occasion.before
        down: dict[str, int | None] = {machine: self.floor.machines[machine].repair_at for machine in self.floor.down}
        spent = planned_energy_kwh(self.out.body, self.plant, state.planned_at, now) if self.out.body else 0
        first = await in_thread(partial(at_once, problem, before), stop)
        if stop.is_set():  # by something that this plan does not know of
            self._disturbance |= disturbance
            return
        self.out.change(
            planned_at=now,
            planned_down=down,
            energy_before_kwh=state.energy_before_kwh + spent,
            replans=self.out.state.replans + disturbance,
        )
        released = await self._release(occasion, first, disturbance)
        search = partial(alternatives, problem, first, before, self.settings, stop)
        found = await in_thread(search, stop, look=self._look if released and not self.accelerated else None)
        if stop.is_set():
            log.info("plan.overtaken", why=occasion.why, by=self.wanted)
            return
        measures = measures_of(problem, self.settings)
        best = found[chosen(found, measures, self.settings, self.out.state.preference, before)]
        if best is not first or not released:
            released |= await self._release(occasion, best, disturbance and not released)
        if not released:
            self.out.remember(planning=self.wanted)
            self._not_before = now + round(self.settings.pause_s * SECOND)
            return
        await self.out.offer(occasion, front_of(found, measures), best, planning=self.wanted)
        log.info(
            "plan.made",
            why=occasion.why,
            revision=self.out.revision,
            makespan_h=round(problem.in_unit(best.objectives["makespan"]), 2),
            solver=best.solver,
            status=best.status,
            took_s=round(time.monotonic() - began, 2),
        )

    async def _release(self, occasion: Occasion, plan: Plan, disturbance: bool) -> bool:
        """In force, unless it breaks a rule; what began since the problem was made is started by nobody else."""
        begun = self.floor.begun
        since = [key for key in begun if key not in occasion.begun and key[0] in self.jobs]
        return await self.out.release(
            occasion, plan, started=[*self.watch.claims, *since], begun=begun, jobs=self.jobs, disturbance=disturbance
        )

    def _look(self) -> None:
        """While a search is under way: what happened on the floor may overtake it."""
        if self.wanted is None:
            self.watch.read()
            if reason := self.watch.disturbed(self.now()):
                self._want(reason, disturbance=True)

    def _problem(self, jobs: Mapping[str, OrderedJob], now: int, signals: Mapping[str, Signal]) -> Problem:
        return problem_of(self.plant, jobs, self.floor, t0=self._t0(now), now=now, signals=signals)

    def _before(self, problem: Problem, t0: int) -> Plan | None:
        """What was released, in the ticks of `problem`, if it speaks of jobs that are open."""
        body = self.out.body
        if body is None or body.plan.t0 is None:
            return None
        open_jobs = {job.id for job in problem.jobs}
        if not any(one.job in open_jobs for one in body.plan.assignments):
            return None
        return in_ticks_of(body.plan, round((t0 - body.plan.t0) / SECOND / body.tick_s))

    def _t0(self, now: int) -> int:
        """Tick 0 stays as long as a job that began under it is open."""
        body = self.out.body
        if body and body.plan.t0 is not None and not self.jobs.keys().isdisjoint(self.floor.runs()):
            return body.plan.t0
        return now

    async def _say_progress(self, now: int) -> None:
        body, state = self.out.body, self.out.state
        if time.monotonic() - self._said_at < PROGRESS_PAUSE_S or body is None:
            return
        progress = progress_of(
            body,
            self.plant,
            self.jobs,
            self.floor,
            now,
            replans=state.replans,
            planned_at=state.planned_at,
            energy_before_kwh=state.energy_before_kwh,
            metered_kwh=self._meter.kwh(),
        )
        self._said_at = time.monotonic()
        if same_news(progress, self._said):
            return
        self._said = progress
        try:
            await self.bus.publish(PROGRESS, progress, site=self.plant.site)
        except BusLost:
            self._said = None
