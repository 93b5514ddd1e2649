"""The plan in force and the choices beside it: kept on disk, then said on the bus, with a counter that only rises.

    out = Released(settings, plant, book, bus, now=clock.now)
    await out.release(occasion, plan, started=…, begun=…)     # False: it breaks a rule, nothing was published
    await out.renew()                                         # the same plan, with a new lease

What a plan is made for is an `Occasion`: the problem with everything that plan must name. `violations()` stands before
the bus. `state` is what must survive beside the plan; it is kept in one transaction with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from pydantic import BaseModel

from cloud.handover import Grant, granted, holds
from cloud.planbook import InForce, PlanBook
from cloud.planning import measures_of, policy
from cloud.preference import Preference, choices_of
from cloud.scheduling.replan import moved_share
from cloud.settings import PlannerSettings
from messages.bus import Bus
from messages.contracts import MAX_ALTERNATIVES, Choices, OrderedJob, PlanInForce
from messages.errors import BusLost
from messages.floor import SECOND, Key
from messages.judge import violations
from messages.plan import Plan
from messages.plant import Plant
from messages.problem import Problem
from messages.routes import CHOICES, PLAN

log = structlog.get_logger("planner")


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
    """why a plan is wanted or being made; still there after a restart if that was not finished"""
    claims: list[tuple[str, int, int]] = []
    """(job, op, when) that nodes said they began, and of which no record has come"""
    values: list[dict[str, float]] = []
    """objectives of the alternatives, as the planner's measures count them"""


@dataclass(frozen=True)
class Occasion:
    """What a plan is made for, as it was when planning began; what came later is for the next plan."""

    problem: Problem
    jobs: Mapping[str, OrderedJob]
    signals: Mapping[str, int]
    """name → revision of the forecasts in the problem"""
    begun: frozenset[Key]
    """operations that had begun"""
    before: Plan | None
    """what was released, in the ticks of the problem"""
    t0: int
    frozen_until: int
    why: str


@dataclass
class Released:
    """What the planner said last, and how it says it."""

    settings: PlannerSettings
    plant: Plant
    book: PlanBook
    bus: Bus
    now: Callable[[], int]
    wall_us: Callable[[], int] = lambda: time.time_ns() // 1000
    state: PlannerState = field(init=False)
    envelope: InForce | None = field(init=False)

    def __post_init__(self) -> None:
        self.envelope = self.book.in_force()
        self.state = self.book.state(PlannerState)

    @property
    def body(self) -> PlanInForce | None:
        """The plan in force, if any."""
        return self.envelope.body if self.envelope else None

    @property
    def revision(self) -> int:
        """Of the plan in force; 0 before the first."""
        return self.envelope.body.plan.revision if self.envelope else 0

    def change(self, **facts: object) -> None:
        """Other facts, kept with the next plan."""
        self.state = self.state.model_copy(update=facts)

    def remember(self, **facts: object) -> None:
        """Other facts, kept now."""
        self.change(**facts)
        self.book.keep_state(self.state)

    async def release(
        self,
        occasion: Occasion,
        plan: Plan,
        *,
        started: Iterable[Key],
        begun: Container[Key],
        jobs: Container[str],
        disturbance: bool = False,
    ) -> bool:
        """Put a plan in force unless it breaks a rule.

        started  operations that began as some node or record says, beyond the history of the problem
        begun    operations of which a record says so: nobody holds them any more
        jobs     of all open orders
        """
        faults = violations(occasion.problem, plan)
        if faults:
            # A solver that breaks a rule is a defect of ours: nothing is released, the plan in force stays.
            log.error("plan.violates", solver=plan.solver, first=faults[0], count=len(faults))
            return False
        history = [(one.job, one.op) for one in occasion.problem.history if not one.interrupted]
        held, node_of, before = self.envelope, self.plant.node_of, occasion.before
        if held:
            still = granted(
                self.state.granted,
                held.body.plan,
                node_of,
                until=held.valid_until,
                now=self.now(),
                over=begun,
                jobs=jobs,
            )
            self.change(granted=still)
        body = PlanInForce(
            plan=plan.model_copy(update={"t0": occasion.t0, "revision": self.revision + 1}),
            tick_s=occasion.problem.tick_s,
            frozen_until=occasion.frozen_until,
            started=list(dict.fromkeys((*history, *started))),
            holds=holds(self.state.granted, plan, node_of, skew_us=round(self.settings.skew_s * SECOND)),
            why=occasion.why[:500],
            policy=policy(measures_of(occasion.problem, self.settings), self.state.preference),
            signals=dict(occasion.signals),
            moved=None if before is None else round(moved_share(before, plan), 4),
        )
        await self.put(body, new=True, disturbance=disturbance)
        return True

    async def put(self, body: PlanInForce, *, new: bool = False, disturbance: bool = False, above: int = 0) -> None:
        """Keep and say it, under a counter above every earlier one and `above`."""
        held = self.envelope
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
            self.change(first_counter=counter)
        self.book.keep(envelope, answers_disturbance=disturbance, state=self.state)
        self.envelope = envelope
        await self._publish()

    async def renew(self) -> None:
        """The same plan with a new lease."""
        if self.envelope:
            await self.put(self.envelope.body)

    def lease_runs_out(self, now: int) -> bool:
        """Less than half of it is left."""
        return bool(self.envelope and self.envelope.valid_until - now < self.settings.lease_s * SECOND / 2)

    async def offer(self, occasion: Occasion, front: list[Plan], best: Plan, *, planning: str | None) -> None:
        """Say which plans there were to choose from."""
        grid, preference = occasion.problem.tick_s * SECOND, self.state.preference
        values = [plan.objectives for plan in front][:MAX_ALTERNATIVES]
        said = choices_of(
            values,
            measures_of(occasion.problem, self.settings),
            in_force=next((place for place, plan in enumerate(front) if plan is best), None),
            revision=self.revision,
            at=self.now(),
            chosen_by=preference.by if preference else "",
            when=lambda tick: occasion.t0 + round(tick * grid),
            tick_s=occasion.problem.tick_s,
        )
        self.remember(choices=said, values=values, planning=planning)
        await self._publish_choices()

    async def republish(self) -> None:
        """Say all again: the owner of a retained topic does so after every reconnect."""
        await self._publish()
        await self._publish_choices()

    async def _publish(self) -> None:
        if self.envelope:
            try:
                await self.bus.publish(PLAN, self.envelope, site=self.plant.site)
            except BusLost:
                return  # said again by `republish` after the reconnect

    async def _publish_choices(self) -> None:
        if self.state.choices:
            try:
                await self.bus.publish(CHOICES, self.state.choices, site=self.plant.site)
            except BusLost:
                return  # said again by `republish` after the reconnect
