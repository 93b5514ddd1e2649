"""What population searches have in common: terms from a goal, first plans, the loop that meets the others.

    run_search(problem, run, seed, start, begin=..., step=..., solver="annealing")

A search holds its plans as flat arrays and knows nothing of exchanges; the loop here steps it, tells it how much of the
budget is spent (temperatures follow that), judges what it finds, says it, and hands it what others said. With a
budget of evaluations nobody looks at others, and at the clock only for whether the time is over, so that evaluations
alone give one result with one seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from cloud.scheduling.archive import Archive, archive_of
from cloud.scheduling.front import corners, non_dominated
from cloud.scheduling.measure import measures
from cloud.scheduling.packed import packed, scratch_of
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.seam import KEY, MEASURES, Exchange, Goal, Result, nothing_to_do
from cloud.scheduling.searchkernel import NEVER, Room, Trial, room_of, trial_of
from cloud.scheduling.searchwalk import Pool, Terms, begun, pool_of
from cloud.scheduling.shop import Draft, Floats, Names, Shop, draft_from, draft_of, plan_of, shop_of
from messages.plan import Measure, Plan
from messages.problem import Problem

LOOK_S = 0.04
"""The search looks at the exchange about this often."""
OFFER_S = 0.2
"""A better plan is judged and said at most this often; of a front a few more."""
FRONT_OFFERS = 16
"""Plans of a front that are judged in one look, at most; the others wait for the next."""
LAST_S = 0.1
"""For so long plans of a front are judged when the run is over; those that are left are lost."""
ARCHIVE = 1_000
"""Places of the archive of a front."""
TRADE = 0.3
"""In an order of measures each weighs so much of the one before, both as shares of their first values; the best plan is
still chosen by the order itself."""
EXCESS = 3.0
"""A limit that is exceeded by a share costs so many times this share of the goal."""


S = TypeVar("S", bound="Search")


class Search(Protocol):
    """The state of a search."""

    evaluations: int
    progress: float  # share of the budget that is spent
    desk: Desk

    def adopt(self, draft: Draft, values: Floats) -> None:
        """Go on with a plan from elsewhere."""


@dataclass(eq=False)
class Desk:
    """A shop, what a search is asked for, and what it found."""

    shop: Shop
    packed_shop: Shop
    scratch: Scratch
    room: Room
    trial: Trial
    best: Pool  # one plan
    archive: Archive
    goal: Goal
    hard: Floats  # (7,) limits of goal and problem
    places: list[int]
    wanted: int
    scale: Floats = field(default_factory=lambda: np.ones(7))  # of each measure, what a first plan has
    over: Callable[[], bool] = lambda: False  # looked at between sweeps of a step; a step is one sweep at least

    @classmethod
    def of(cls, shop: Shop, goal: Goal, hard: Floats) -> Desk:
        """An empty desk."""
        places = [MEASURES.index(one) for one in goal.order]
        limited = [k for k in range(7) if np.isfinite(hard[k])]
        wanted = sum(1 << k for k in {*places, *limited})
        if wanted & (1 << MEASURES.index("ledger")):
            wanted |= 1 << MEASURES.index("carbon")
        archive = archive_of(shop, places, ARCHIVE if goal.front else 8)
        room, trial, best = room_of(shop), trial_of(shop), pool_of(shop, 1)
        return cls(shop, packed(shop), scratch_of(shop), room, trial, best, archive, goal, hard, places, wanted)

    @property
    def timed(self) -> bool:
        """Whether it matters when power is drawn."""
        return bool(self.wanted >= 8)

    def terms(self, weight: Floats, limit: Floats, *, exchange: bool) -> Terms:
        """For R plans with weights and limits (R, 7) each."""
        excess = np.zeros_like(weight)
        whole = (weight * self.scale).sum(axis=1)
        for k in range(7):
            excess[:, k] = np.where(np.isfinite(limit[:, k]), EXCESS * whole / self.scale[k], 0.0)
        return Terms(
            weight,
            limit,
            excess,
            self.hard,
            np.array(self.places, np.int32),
            self.goal.weights is not None,
            self.wanted,
            self.timed,
            True,
            self.goal.front,
            exchange,
        )

    def weights(self) -> Floats:
        """(7,) of the goal: those it states, or falling by its order."""
        weight = np.zeros(7)
        for i, (k, name) in enumerate(zip(self.places, self.goal.order, strict=True)):
            weight[k] = self.goal.weights[name] if self.goal.weights is not None else TRADE**i / self.scale[k]
        return weight

    def measure_scale(self, pool: Pool, terms: Terms) -> None:
        """What the measures are like: the mean of the pool's, with terms for each of its plans."""
        if len(terms.weight) != len(pool.cost):
            raise ValueError("measure_scale: one row of terms for each plan; compiled code would read beyond them")
        begun(self.packed_shop, self.scratch, self.room, pool, self.best, terms, self.archive, self.trial)
        values = np.abs(pool.values).mean(axis=0)
        self.scale = np.where(values > 1e-9, values, 1.0)

    def plan_values(self, draft: Draft) -> Floats:
        """(7,) measures of a draft."""
        return measures(self.shop, draft.machine, draft.start, draft.off)


def limits_of(problem: Problem, goal: Goal) -> Floats:
    """(7,) the tighter of the limits of goal and problem; inf: none."""
    hard = np.full(7, np.inf)
    for limits in (goal.limits, problem.limits):
        for name, value in limits.items():
            k = MEASURES.index(name)
            hard[k] = min(hard[k], value)
    return hard


def first_orders(shop: Shop, rng: np.random.Generator, plans: int, start: Draft | None) -> Pool:
    """A pool whose plans take the earliest completion: by release and due date, by most work, then at random; the
    first is `start`, if there is one."""
    pool = pool_of(shop, plans)
    jobs = np.asarray(shop.op_job, np.int32)
    ticks = np.array([shop.alt_ticks[a:b].min() for a, b in zip(shop.alt_first[:-1], shop.alt_first[1:], strict=True)])
    after = ticks.copy()
    for o in range(len(jobs) - 2, -1, -1):
        if jobs[o] == jobs[o + 1]:
            after[o] += after[o + 1]
    due = shop.job_due[jobs].astype(np.float64)
    rules = [-after.astype(np.float64), np.where(due < 2**59, due, 1e15) - after, shop.job_ready[jobs] - 1e-3 * after]
    for r in range(plans):
        keys = rules[r % 3] if r < 3 else rules[r % 3] + rng.normal(0.0, after.mean() * rng.random() * 2, len(jobs))
        pool.order[r] = jobs[np.argsort(keys, kind="stable")]
    if start is not None:
        put_draft(shop, pool, 0, start)
    return pool


def put_draft(shop: Shop, pool: Pool, r: int, draft: Draft) -> None:
    """A plan from elsewhere as plan `r`: its order of starts and its machines; it is laid out anew."""
    order = np.lexsort((np.arange(len(draft.start)), draft.start))
    pool.order[r] = shop.op_job[order]
    for o, m in enumerate(draft.machine.tolist()):
        machines = shop.alt_machine[shop.alt_first[o] : shop.alt_first[o + 1]]
        pool.choice[r, o] = int(np.flatnonzero(machines == m)[0])
    pool.cost[r] = NEVER


@dataclass(eq=False)
class _Meeting:
    """One search among others."""

    problem: Problem
    names: Names
    run: Exchange
    state: Search
    solver: str
    said_cost: float = np.inf
    said_values: tuple[float, ...] = ()
    said_born: int = 0
    seen: int = -1
    known: set[int] = field(default_factory=set)
    plans: list[Plan] = field(default_factory=list)

    def offer(self, most: int) -> None:
        """Judge and say what is new; once the run is over, for `LAST_S` at most."""
        desk, until_s = self.state.desk, self.run.elapsed_s + LAST_S
        if desk.goal.front:
            archive = desk.archive
            taken = int(archive.taken[0])
            new = [i for i in np.argsort(archive.born[:taken]).tolist() if archive.born[i] > self.said_born]
            for i in new[:most]:
                if self.plans and self.run.over and self.run.elapsed_s > until_s:
                    return
                self.said_born = int(archive.born[i])
                draft = Draft(archive.machine[i].copy(), archive.start[i].copy(), archive.off[i].copy())
                self._say(draft)
        elif desk.best.cost[0] < NEVER:
            values = tuple(desk.best.values[0, desk.places].tolist())
            if values != self.said_values:
                self.said_values = values
                best = desk.best
                self._say(Draft(best.machine[0].copy(), best.start[0].copy(), best.off[0].copy()))

    def _say(self, draft: Draft) -> None:
        plan = plan_of(
            self.problem, self.state.desk.shop, self.names, draft, solver=self.solver, runtime_s=self.run.elapsed_s
        )
        if self.run.goal.within(self.problem, plan.objectives):
            self.known.add(id(plan))
            self.run.offer(plan)
            self.plans = non_dominated([*self.plans, plan], self.run.goal.order) if self.run.goal.front else [plan]

    def adopt(self) -> None:
        """Take over what others found since the last look."""
        if self.run.version == self.seen:
            return
        self.seen = self.run.version
        theirs = list(self.run.front) if self.run.goal.front else [self.run.best]
        for plan in theirs:
            if plan is None or id(plan) in self.known:
                continue
            self.known.add(id(plan))
            self.plans.append(plan) if self.run.goal.front else None
            values = np.array([plan.objectives.get(KEY[one], 0.0) for one in MEASURES])
            self.state.adopt(draft_of(self.state.desk.shop, self.names, plan), values)


def run_search(
    problem: Problem,
    run: Exchange,
    start: Plan | None,
    *,
    begin: Callable[[Desk, Draft | None], S],
    step: Callable[[S, int], S],
    solver: str,
) -> Result:
    """Step the search until the budget is spent; the best plan or the front."""
    shop, names = shop_of(problem)
    if not shop.operations:
        return nothing_to_do(problem, run, solver)
    desk = Desk.of(shop, run.goal, limits_of(problem, run.goal))
    desk.over = lambda: run.over
    state = begin(desk, draft_from(shop, names, start))
    meeting = _Meeting(problem, names, run, state, solver)
    most, n, offered_s = run.budget.evaluations, 1, -OFFER_S
    while state.evaluations < (most or np.inf):
        if run.over:
            break
        if most is not None:
            state.progress = state.evaluations / most
            n = most - state.evaluations
        else:
            state.progress = min(1.0, run.elapsed_s / max(run.budget.seconds, 1e-3))
            meeting.adopt()
        before, began_s = state.evaluations, time.perf_counter()
        step(state, min(n, 2_000) if most is not None else n)
        if most is None:
            took_s = time.perf_counter() - began_s
            done = max(1, state.evaluations - before)
            n = max(1, min(4 * n, int(done * LOOK_S / max(took_s, 1e-6))))
            if run.elapsed_s > offered_s + OFFER_S:
                meeting.offer(FRONT_OFFERS)
                offered_s = run.elapsed_s
    meeting.offer(ARCHIVE)
    return _result(problem, run, meeting, state)


def _result(problem: Problem, run: Exchange, meeting: _Meeting, state: Search) -> Result:
    history = tuple(run.events)
    if not meeting.plans:
        reason = f"{meeting.solver} found no plan within waits, horizon and limits: allow more time, or use cpsat"
        return Result(reason=reason, runtime_s=run.elapsed_s, history=history, evaluations=state.evaluations)
    order: tuple[Measure, ...] = run.goal.order
    plans = meeting.plans
    if run.goal.front:
        plans = sorted(non_dominated(plans, order), key=lambda plan: [plan.objectives[KEY[one]] for one in order])
        ideal, nadir = corners(plans, order)
        plans = [plan.model_copy(update={"ideal": ideal, "nadir": nadir}) for plan in plans]
    best = plans[0].objectives
    return Result(tuple(plans), best, None, "feasible", run.elapsed_s, history, evaluations=state.evaluations)
