"""The planner: orders and the floor become a problem, a solver answers, judges agree, the plan goes out.

    planner = Planner(settings, plant, book=PlanBook(…), store=store, bus=bus)
    bus.on(ORDER, planner.on_order, site=…); bus.on(PLAN_ACK, planner.on_ack, site=…); bus.on_connect(planner.republish)
    await clock.drive(planner.on_tick, phase="cloud")

On every tick it reads the new records, asks the monitor whether the plan still stands, and if not plans again: a plan
at once (the one in force, repaired), published as soon as it is checked, then what the portfolio finds within its time
box, published if it is better. Both start no operation before `frozen_until`, which lies past the time box; so no node
starts work by a plan that is about to be replaced (it may call a part or warm a machine by it), and what began
meanwhile is history to both. Beside the plan it says which alternatives there were; an operator may choose one, and
plans are chosen by that preference from then on.
No plan goes out with a violation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from pydantic import BaseModel, ValidationError

from cloud.floor import SECOND, Floor, Key, problem_of
from cloud.handover import Grant, granted, holds, without
from cloud.metering import EnergyMeter
from cloud.monitor import Tolerance, deviation, planned_energy_kwh, reason_to_replan
from cloud.planbook import InForce, PlanBook
from cloud.planning import alternatives, at_once, chosen, front_of, measures_of, policy
from cloud.preference import Preference, choices_of, preference_for
from cloud.scheduling.replan import moved_share
from cloud.settings import PlannerSettings
from cloud.stores import Store
from messages.bus import Bus, Received
from messages.contracts import (
    MAX_ALTERNATIVES,
    Choice,
    Choices,
    Order,
    OrderedJob,
    PlanAck,
    PlanInForce,
    Progress,
    Signal,
)
from messages.errors import BadMessage, BusLost, UsageError
from messages.judge import violations
from messages.plan import Measure, Plan
from messages.plant import Plant
from messages.problem import Problem
from messages.routes import CHOICES, PLAN, PROGRESS

log = structlog.get_logger("planner")

READ_AT_ONCE = 1_000
"""Records read per step; a longer backlog is read in several."""
CLAIM_S = 2 * 3600.0
"""An operation a node said it began, of which no record comes for this long (plant time), may be planned again."""
PROGRESS_PAUSE_S = 0.5
"""Progress is published at most this often (real time), and once more after the last change."""


class PlannerState(BaseModel):
    """What the planner knows beside the plan in force; kept with it."""

    planned_at: int = 0
    planned_down: dict[str, int | None] = {}
    energy_before_kwh: float = 0.0
    replans: int = 0
    first_counter: int = 0
    """counter under which the revision in force was first published"""
    granted: list[Grant] = []
    preference: Preference | None = None
    """what an operator chose; none: the order of the objectives"""
    choices: Choices | None = None
    planning: str | None = None
    """why a plan is being made; still there after a restart if that was not finished"""
    values: list[dict[str, float]] = []
    """objectives of the alternatives, as the planner's measures count them"""


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
    wall_us: Callable[[], int] = lambda: time.time_ns() // 1000
    floor: Floor = field(default_factory=Floor)
    refused: int = 0
    state: PlannerState = field(default_factory=PlannerState)
    _cursor: int = 0
    _jobs: dict[str, OrderedJob] = field(default_factory=dict)
    _in_force: InForce | None = None
    _claims: dict[Key, int] = field(default_factory=dict)
    _wanted: str | None = None
    _not_before: int = 0
    _said_at: float = -1e9
    _said: Progress | None = None
    _meter: EnergyMeter = field(init=False)

    def __post_init__(self) -> None:
        scrapping = [one.name for one in self.plant.workshops if one.machines and one.on_breakdown == "scrap"]
        if scrapping:
            raise UsageError(
                f'workshop {scrapping[0]!r}: on_breakdown = "scrap" cannot be planned yet; use restart or resume'
            )
        self._meter = EnergyMeter(self.store, self.plant)
        self._jobs = self.book.jobs()
        self._in_force = self.book.in_force()
        kept = self.book.state()
        self.state = PlannerState.model_validate_json(kept) if kept else PlannerState()
        if self.state.planning:
            self._wanted = self.state.planning
        elif self._in_force:
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
        self._read()
        begun = {job for job, _ in self.floor.begun}
        if self.book.changes(order, begun=begun) is None:
            return
        self._close_finished_orders()  # they make room for it
        jobs = self.book.changes(order, begun=begun)
        if jobs is None:
            return
        try:
            self._problem(jobs, self.now(), self.book.signals())
        except ValidationError as error:
            raise BadMessage(f"order {order.order!r} cannot be planned: {error.errors()[0]['msg']}") from None
        self.book.place(order, begun=begun)
        self._jobs = self.book.jobs()
        self._wanted = f"order {order.order}"
        log.info("order.placed", order=order.order, revision=order.revision, jobs=len(order.jobs))

    async def on_signal(self, received: Received) -> None:
        """A forecast: kept, and used by the next plan. An older revision changes nothing."""
        signal: Signal = received.message
        if received.ids["signal"] != signal.name:
            raise BadMessage(f"signal {signal.name!r} came on the topic of {received.ids['signal']!r}; correct one")
        try:
            self._problem(self._jobs, self.now(), {**self.book.signals(), signal.name: signal})
        except ValidationError as error:
            raise BadMessage(f"signal {signal.name!r} cannot be used: {error.errors()[0]['msg']}") from None
        self.book.signal(signal)

    async def on_choice(self, received: Received) -> None:
        """An operator prefers another alternative: from now on plans are chosen by that preference."""
        choice: Choice = received.message
        offered = self.state.choices
        if offered is None or choice.revision != offered.revision or choice.choice >= len(self.state.values):
            there = "none" if offered is None else f"revision {offered.revision} with {len(self.state.values)}"
            raise BadMessage(
                f"choice {choice.choice} of revision {choice.revision}: the choices on offer are {there}; "
                "look at up/choices and choose again"
            )
        preference = preference_for(self.state.values, offered.objectives, choice.choice, choice.by)
        self.state = self.state.model_copy(update={"preference": preference})
        self.book.keep_state(self.state)
        self._wanted = f"choice of {choice.by or 'an operator'}"
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
        envelope, node = self._in_force, received.ids["node"]
        if not ack.accepted:
            log.warning("plan.refused", node=node, revision=ack.revision, counter=ack.counter, reason=ack.reason)
            if envelope and ack.held is not None and ack.held >= envelope.counter:
                # Somebody else's plan, or ours from before a loss, stands above this one: top it.
                await self._put_in_force(envelope.body, above=ack.held)
            return
        if envelope is None or ack.counter < self.state.first_counter or ack.revision != envelope.body.plan.revision:
            return
        claimed = [key for key in ack.started if key not in envelope.body.started and key not in self.floor.begun]
        for key in claimed:
            self._claims[key] = self.now()
        self.state.granted = without(self.state.granted, node)
        left = [hold for hold in envelope.body.holds if hold.owner != node]
        if claimed or len(left) < len(envelope.body.holds):
            started = [*envelope.body.started, *claimed]
            await self._put_in_force(envelope.body.model_copy(update={"holds": left, "started": started}))

    async def republish(self) -> None:
        """The owner of a retained topic says it again after every reconnect."""
        self._said = None
        await self._publish()
        await self._publish_choices()

    async def on_tick(self, now: int) -> None:
        """Read what happened, plan if that calls for it, renew the lease, say how things stand."""
        self._read()
        reason, disturbance = self._wanted, False
        if reason is None and now >= self._not_before and not self._all_done():
            reason = self._disturbed(now)
            disturbance = reason is not None
        if reason and now >= self._not_before:
            self._wanted = None  # what comes while we plan is wanted again
            await self._plan(reason, now, disturbance=disturbance)
        elif self._in_force and not self._all_done() and self._lease_runs_out(now):
            await self._put_in_force(self._in_force.body)
        await self._say_progress(now)

    def _disturbed(self, now: int) -> str | None:
        begun = self.floor.begun
        for key, at in list(self._claims.items()):
            if key in begun:
                del self._claims[key]
                return f"job {key[0]} operation {key[1]} had begun elsewhere than planned"
            if now > at + CLAIM_S * SECOND:
                del self._claims[key]  # its start ran out unanswered: it may be planned again
        return reason_to_replan(
            self._in_force.body if self._in_force else None,
            self.floor,
            now,
            planned_at=self.state.planned_at,
            planned_down=self.state.planned_down,
            tolerance=Tolerance(self.settings.late_s, self.settings.pause_s),
            claimed=self._claims,
        )

    # --- planning -------------------------------------------------------------------------------

    async def _plan(self, reason: str, now: int, *, disturbance: bool) -> None:
        margin_us = self.plant.tick_s * SECOND
        if not self.accelerated:  # plant time goes on while the solver works
            margin_us += round(self.settings.budget_s * 1.5 * SECOND)
        frozen_until = now + margin_us
        try:
            t0 = self._t0(frozen_until)
            problem = self._problem(self._jobs, frozen_until, self.book.signals())
        except ValidationError as error:
            # The floor's records contradict each other. The plan in force stays; a person must look.
            log.error("plan.impossible", why=reason, error=str(error.errors()[0]["msg"])[:500])
            self._wanted, self._not_before = reason, now + round(self.settings.pause_s * SECOND)
            return
        down: dict[str, int | None] = {machine: self.floor.machines[machine].repair_at for machine in self.floor.down}
        started, jobs = time.monotonic(), set(self._jobs)
        before = self._before(problem)
        first = await asyncio.to_thread(at_once, problem, before)
        spent = planned_energy_kwh(self._in_force.body, self.plant, self.state.planned_at, now) if self._in_force else 0
        self.state = self.state.model_copy(
            update={
                "planned_at": now,
                "planned_down": down,
                "energy_before_kwh": self.state.energy_before_kwh + spent,
                "replans": self.state.replans + disturbance,
                "planning": reason,
            }
        )
        released = await self._release(problem, first, t0, frozen_until, reason, disturbance, before)
        found = await asyncio.to_thread(alternatives, problem, first, before, self.settings)
        if set(self._jobs) != jobs:
            return  # orders came or went meanwhile, and are wanted: what was found is about others
        measures = measures_of(problem, self.settings)
        best = found[chosen(found, measures, self.settings, self.state.preference, before)]
        if best is not first or not released:
            released |= await self._release(problem, best, t0, frozen_until, reason, False, before)
        if released:
            await self._offer(problem, front_of(found, measures), best, measures, t0)
        else:
            self.state = self.state.model_copy(update={"planning": None})
            self._not_before = now + round(self.settings.pause_s * SECOND)
            return
        log.info(
            "plan.made",
            why=reason,
            revision=self._revision(),
            makespan_h=round(problem.in_unit(best.objectives["makespan"]), 2),
            solver=best.solver,
            status=best.status,
            took_s=round(time.monotonic() - started, 2),
        )

    def _problem(self, jobs: Mapping[str, OrderedJob], now: int, signals: Mapping[str, Signal]) -> Problem:
        return problem_of(self.plant, jobs, self.floor, t0=self._t0(now), now=now, signals=signals)

    def _before(self, problem: Problem) -> Plan | None:
        """The plan in force, if it speaks of jobs that are open and counts the same ticks."""
        if self._in_force is None or self._in_force.body.plan.t0 != self._t0(self.now()):
            return None
        plan, jobs = self._in_force.body.plan, {job.id for job in problem.jobs}
        return plan if any(one.job in jobs for one in plan.assignments) else None

    async def _release(
        self,
        problem: Problem,
        plan: Plan,
        t0: int,
        frozen_until: int,
        reason: str,
        disturbance: bool,
        before: Plan | None,
    ) -> bool:
        """Put a plan in force unless it breaks a rule."""
        faults = violations(problem, plan)
        if faults:
            # A solver that breaks a rule is a defect of ours: nothing is released, the plan in force stays.
            log.error("plan.violates", solver=plan.solver, first=faults[0], count=len(faults))
            return False
        history = [(one.job, one.op) for one in problem.history if not one.interrupted]
        claimed = [key for key in self._claims if key not in history]
        held, node_of = self._in_force, self.plant.node_of
        if held:
            self.state.granted = granted(
                self.state.granted,
                held.body.plan,
                node_of,
                until=held.valid_until,
                now=self.now(),
                over=self.floor.begun,
                jobs=self._jobs,
            )
        body = PlanInForce(
            plan=plan.model_copy(update={"t0": t0, "revision": self._revision() + 1}),
            tick_s=problem.tick_s,
            frozen_until=frozen_until,
            started=[*history, *claimed],
            holds=holds(self.state.granted, plan, node_of, skew_us=round(self.settings.skew_s * SECOND)),
            why=reason[:500],
            policy=policy(measures_of(problem, self.settings), self.state.preference),
            signals={name: signal.revision for name, signal in self.book.signals().items()},
            moved=None if before is None else round(moved_share(before, plan), 4),
        )
        await self._put_in_force(body, new=True, disturbance=disturbance)
        return True

    async def _offer(
        self, problem: Problem, front: list[Plan], best: Plan, measures: tuple[Measure, ...], t0: int
    ) -> None:
        """Say which plans there were to choose from."""
        grid = problem.tick_s * SECOND
        preference = self.state.preference
        values = [plan.objectives for plan in front][:MAX_ALTERNATIVES]
        said = choices_of(
            values,
            measures,
            in_force=next((place for place, plan in enumerate(front) if plan is best), None),
            revision=self._revision(),
            at=self.now(),
            chosen_by=preference.by if preference else "",
            when=lambda tick: t0 + round(tick * grid),
            tick_s=problem.tick_s,
        )
        self.state = self.state.model_copy(update={"choices": said, "values": values, "planning": None})
        self.book.keep_state(self.state)
        await self._publish_choices()

    async def _publish_choices(self) -> None:
        if self.state.choices:
            try:
                await self.bus.publish(CHOICES, self.state.choices, site=self.plant.site)
            except BusLost:
                return  # said again by `republish` after the reconnect

    async def _put_in_force(
        self, body: PlanInForce, *, new: bool = False, disturbance: bool = False, above: int = 0
    ) -> None:
        held = self._in_force
        # Above the wall clock, so that a lost or restored book never falls behind what the nodes have seen.
        counter = max(held.counter + 1 if held else 0, self.wall_us(), above + 1)
        lease_end = self.now() + round(self.settings.lease_s * SECOND)
        envelope = InForce(
            key="plan",
            target=f"{self.plant.site}/all",
            counter=counter,
            valid_until=max(lease_end, held.valid_until if held else 0),
            body=body,
        )
        if new:
            self.state = self.state.model_copy(update={"first_counter": counter})
        self.book.keep(envelope, answers_disturbance=disturbance, state=self.state)
        self._in_force = envelope
        await self._publish()

    async def _publish(self) -> None:
        if self._in_force:
            try:
                await self.bus.publish(PLAN, self._in_force, site=self.plant.site)
            except BusLost:
                return  # said again by `republish` after the reconnect

    def _t0(self, now: int) -> int:
        """Tick 0 stays as long as a job that began under it is open."""
        open_now = any(job in self._jobs for job, _ in self.floor.begun)
        if self._in_force and self._in_force.body.plan.t0 is not None and open_now:
            return self._in_force.body.plan.t0
        return now

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

    def _done(self) -> tuple[int, set[str]]:
        """Operations that are done, and jobs of which all are."""
        begun, furthest = self.floor.begun, self.floor.furthest()
        operations, jobs = 0, set()
        for job, ordered in self._jobs.items():
            steps = len(self.plant.route(ordered.product))
            last = furthest.get(job, -1)
            ended = last >= 0 and begun[job, last].end is not None
            done = last + 1 if ended else max(last, 0)
            operations += done
            if done == steps:
                jobs.add(job)
        return operations, jobs

    def _all_done(self) -> bool:
        return len(self._done()[1]) == len(self._jobs)

    def _close_finished_orders(self) -> None:
        """Orders that are done leave the plan when another comes."""
        done = self._done()[1]
        for order in self.book.orders():
            if all(job.job in done for job in order.jobs):
                self.book.close_order(order)
                self.floor.forget(job.job for job in order.jobs)
        self._jobs = self.book.jobs()

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
            replans=self.state.replans,
            operations_done=operations,
            operations=sum(len(self.plant.route(job.product)) for job in self._jobs.values()),
            jobs_done=len(jobs),
            jobs=len(self._jobs),
            planned_end=found.planned_end,
            expected_end=found.expected_end,
            late_s=found.late_s,
            energy_planned_kwh=round(
                self.state.energy_before_kwh + planned_energy_kwh(body, self.plant, self.state.planned_at, now), 3
            ),
            energy_metered_kwh=round(self._meter.kwh(), 3),
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


def _as_of(progress: Progress, at: int) -> Progress:
    """The same progress as of another time: what is equal then is no news."""
    return progress.model_copy(update={"at": at})
