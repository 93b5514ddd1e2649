"""Large shops: who does what by prices of machine time, the order by lists, then local search on the whole plan.

    Large().solve(problem, budget=Budget(seconds=60))

    state = Large().begin(shop, seed=1)          # in steps, for a portfolio
    Large().step(state, 1000)                    # so many moves, each one plan laid out exactly
    state.draft(), state.value, state.floor

First the load bound (`cloud.scheduling.bounds`) and its prices; then plans by rules with earliest completion and by
lists over the priced and balanced assignment, the best of which is said at once: 10,000 operations on 100 machines take
about 0.6 s from the problem to the judged plan. What is left of the time goes to `cloud.scheduling.largesearch`, one
search per worker. Makespan or tardiness, with calendars, breakdowns, history, releases, transport and least waits;
`knows` says what lies beyond it. Memory per worker: about 200 bytes per operation and 12 per alternative.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from pydantic import Field

from cloud.scheduling.bounds import Bound, makespan_bound, tardiness_bound
from cloud.scheduling.dispatch import Rule, drafted
from cloud.scheduling.frame import Frame, frame_of
from cloud.scheduling.largekernel import assigned, balanced, ends_of, listed, remaining
from cloud.scheduling.largeplan import BEST, COST, MOVES, SINCE, Search, laid
from cloud.scheduling.largesearch import drift, walk
from cloud.scheduling.seam import KEY, NEAR, Exchange, Result, Strategy, judged, nothing_to_do, one_time, refusal
from cloud.scheduling.shop import (
    FAR,
    Draft,
    Indices,
    Ints,
    Names,
    Shop,
    alternatives_of,
    assignments_of,
    draft_of,
    shop_of,
)
from messages.errors import BrokenInvariant
from messages.plan import Measure, Plan, Status
from messages.problem import Problem
from messages.uncollected import uncollected

LOOK_S = 0.03
"""The search looks at the exchange about this often, and `LOOK` moves where these are the budget."""
LOOK = 50
OFFER_S, OFFER_SHARE = 0.2, 0.1
"""A better plan is judged and said at most this often, and for at most this share of the time."""
ROUNDS = 100
"""Price changes in each pass for the bound."""
ANNEALED, MOST_ANNEALED = 100, 4_000_000
"""Steps of balancing per operation, and in all."""
WARMTH = 0.3
"""Tardiness that is readily given away as the search begins, in mean operations; it falls to none."""
RULES: tuple[Rule, ...] = ("fifo", "spt", "lpt", "mwkr", "lwkr")
LATE_RULES: tuple[Rule, ...] = ("edd", "slack")
"""Rules that are tried, and those where due dates count."""
MANY = 20_000
"""Beyond so many operations only one rule is tried: least due date, or most work left."""
HOPS, PULLS = (0.0, 1.0, 8.0), (0.3, 1.0)
"""Lists that are tried: mean operations that each operation left counts more, and weight of the next queue."""


class Large(Strategy):
    """Prices, lists and local search for thousands of operations."""

    kind: Literal["large"] = "large"
    patience: int = Field(default=3000, ge=10, description="moves without a better plan before it returns to the best")

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The best plan for the first measure of the goal."""
        reason = one_time(problem, run.goal, "large")
        if not reason:
            shop, names = shop_of(problem)
            reason = knows(shop)
        if reason:
            return refusal(run, reason)
        if not shop.operations:
            return nothing_to_do(problem, run, "large")
        state = self.begin(shop, seed, tardy=run.goal.order[0] == "tardiness")
        return _Solve(self, problem, names, run, state, seed).run(start)

    def begin(self, shop: Shop, seed: int = 0, start: Draft | None = None, *, tardy: bool = False) -> LargeState:
        """The best of the first plans and of `start`, with a search laid out from it."""
        frame = frame_of(shop)
        bound = makespan_bound(frame, ROUNDS)
        plans = first_plans(shop, frame, bound, seed, tardy=tardy)
        alt, begin = min(plans, key=lambda one: ends_of(frame, *one)[tardy])
        floor = tardiness_bound(frame) if tardy else bound.value
        state = LargeState(shop, frame, floor, len(plans), laid(frame, alt, begin, tardy=tardy, seed=seed))
        return state if start is None else self.adopt(state, start)

    def step(self, state: LargeState, n: int, heat: float = 0.0) -> LargeState:
        """So many moves more, less where the floor is reached; the same state, changed.

        heat  ticks of tardiness that are readily given away; 0: next to none
        """
        search = state.search
        if search.tardy:
            drift(state.frame, search, n, state.floor, max(heat, 1e-3))
        else:
            walk(state.frame, search, n, state.floor)
        if search.told[SINCE] > self.patience:
            self.adopt(state, state.draft())
        return state

    def adopt(self, state: LargeState, draft: Draft) -> LargeState:
        """Go on with this plan, laid out anew, unless what is known is better; the same state, changed."""
        old = state.search
        alt = alternatives_of(state.shop, draft.machine)
        if len(alt) != state.shop.operations:
            return state  # of another problem: a machine cannot do its operation
        new = laid(state.frame, alt, draft.start, tardy=old.tardy, seed=int(old.dice[0] >> 8) + 1)
        if 0 <= new.told[COST] <= old.told[BEST]:  # below: its starts put an operation before its predecessor
            new.told[MOVES] = old.told[MOVES]
            state.search = new
        return state


@dataclass(eq=False)
class LargeState:
    """One search between steps."""

    shop: Shop
    frame: Frame
    floor: int
    """No plan can be below."""
    tried: int
    """Plans laid out before the search."""
    search: Search

    @property
    def value(self) -> int:
        """Of the best plan."""
        return int(self.search.told[BEST])

    @property
    def evaluations(self) -> int:
        """Plans laid out."""
        return self.tried + int(self.search.told[MOVES])

    def draft(self) -> Draft:
        """The best plan."""
        alt = self.search.best_alt
        return Draft(self.shop.alt_machine[alt], self.search.best_start.copy(), np.zeros(len(alt), np.bool_))


def knows(shop: Shop) -> str:
    """What of this problem the search does not know, and what to use; "" if it knows everything."""
    lacks = []
    if (shop.setup_table[shop.alt_machine] >= 0).any():
        lacks.append("set-ups")
    follows = np.ones(shop.operations, np.bool_)
    follows[shop.job_first[:-1][shop.job_left < 0]] = False
    if (shop.wait_max[follows] < FAR).any():
        lacks.append("greatest waits")
    if (shop.batch[shop.alt_machine] > 1).any():
        lacks.append("batches")
    if shop.crew_need.any():
        lacks.append("crews")
    return f"large knows no {', no '.join(lacks)}: use the portfolio" if lacks else ""


def first_plans(
    shop: Shop, frame: Frame, bound: Bound, seed: int, *, tardy: bool = False
) -> list[tuple[Indices, Ints]]:
    """(alternatives, starts) by rules with earliest completion and by lists over the priced assignment."""
    operations = len(frame.op_job)
    if operations == 0:
        return [(np.zeros(0, np.int32), np.zeros(0, np.int64))]
    due = frame.lot_due[frame.job_lot][frame.op_job].astype(np.float64)
    rules = (*RULES, *LATE_RULES) if tardy else RULES
    if operations > MANY:
        rules = LATE_RULES[:1] if tardy else RULES[3:4]
    drafts = [drafted(shop, rule)[0] for rule in rules]
    plans = [(alternatives_of(shop, draft.machine), draft.start) for draft in drafts]
    room = bound.value - bound.taken
    steps = min(ANNEALED * operations, MOST_ANNEALED)
    alt = balanced(frame, assigned(frame, bound.prices), room, bound.prices, steps, seed)
    mean = float(frame.alt_ticks[alt].mean())
    for hop in HOPS:
        rank = remaining(frame, alt, hop * mean)
        for pull in PULLS:
            plans.append((alt, listed(frame, alt, rank, pull)))
            if tardy:
                plans.append((alt, listed(frame, alt, rank - due, pull)))
    return plans


@dataclass(eq=False)
class _Solve:
    """One run of the solver: a search per worker, in rounds of about `LOOK_S`."""

    large: Large
    problem: Problem
    names: Names
    exchange: Exchange
    state: LargeState
    seed: int
    best: Plan | None = None
    said: int = FAR
    next_offer_s: float = 0.0

    def run(self, start: Plan | None) -> Result:
        run = self.exchange
        self.measure: Measure = run.goal.order[0]
        run.raise_bound(self.measure, self.state.floor, "large")
        self._offer()
        if start is not None:
            self._adopt([self.state], start)
        states = [self.state, *(self._another(k) for k in range(1, self._workers()))]
        self._search(states)
        self._offer()
        spent = self.state.tried + sum(one.evaluations - one.tried for one in states)
        if self.best is None:
            reason = "large found no plan within horizon and limits: use cpsat or allow more time"
            return Result(reason=reason, runtime_s=run.elapsed_s, history=tuple(run.events), evaluations=spent)
        proved = self.best.objectives[KEY[self.measure]] <= self.state.floor
        status: Status = "optimal" if proved and len(run.goal.order) == 1 else "feasible"
        if status == "optimal":
            run.finish()
        bound = float(self.state.floor)
        changed = {"status": status, "bound": bound, "bound_of": self.measure, "runtime_s": round(run.elapsed_s, 3)}
        plan = self.best.model_copy(update=changed)
        return Result((plan,), plan.objectives, bound, status, run.elapsed_s, tuple(run.events), evaluations=spent)

    def _workers(self) -> int:
        return 1 if self.exchange.over else max(1, self.exchange.budget.workers)

    def _another(self, k: int) -> LargeState:
        """The same plan searched with other dice."""
        one = self.state
        search = laid(
            one.frame,
            one.search.best_alt,
            one.search.best_start,
            tardy=one.search.tardy,
            seed=self.seed + 1_000_003 * k,
        )
        return LargeState(one.shop, one.frame, one.floor, one.tried, search)

    def _search(self, states: list[LargeState]) -> None:
        run, most = self.exchange, self.exchange.budget.evaluations
        seen, n, warm = run.version, 1, WARMTH * float(self.state.frame.alt_ticks.mean())
        left = None if most is None else most - self.state.evaluations
        whole = left
        with ThreadPoolExecutor(len(states)) as pool:
            while min(one.value for one in states) > self._floor() and not run.over:
                if left is not None and whole is not None:
                    n = min(LOOK, left // len(states))
                    left -= n * len(states)
                    if n <= 0:
                        break
                    heat = warm * left / whole
                else:
                    heat = warm * (run.left_s / max(run.budget.seconds, 1e-9))
                    if run.version != seen:
                        seen = run.version
                        self._adopt(states, run.best)
                began_s = time.perf_counter()
                list(pool.map(lambda one: self.large.step(one, n, heat), states))  # noqa: B023 (done within the round)
                if most is None:
                    took_s = time.perf_counter() - began_s
                    n = max(1, min(2 * n, int(n * LOOK_S / max(took_s, 1e-6))))
                self.state = min(states, key=lambda one: one.value)
                if self.state.value < self.said and run.elapsed_s >= self.next_offer_s:
                    self._offer()
                self._share(states)

    def _share(self, states: list[LargeState]) -> None:
        """A search that is far behind goes on with the best plan."""
        for one in states:
            if one.search.told[SINCE] > self.large.patience // 2 and one.value > self.state.value:
                self.large.adopt(one, self.state.draft())

    def _floor(self) -> int:
        """What nobody can beat, as far as it is known."""
        run = self.exchange
        known = max(run.bounds.get(self.measure, 0.0), run.goal.floors.get(self.measure, 0.0))
        return max(self.state.floor, ceil(known - NEAR * max(1.0, known)))

    def _adopt(self, states: list[LargeState], plan: Plan | None) -> None:
        """Go on with a plan from elsewhere where it is better."""
        if plan is None or plan is self.best:
            return
        try:
            draft = draft_of(states[0].shop, self.names, plan)
        except (KeyError, ValueError):
            return  # of a problem like this one: a machine or operations are missing
        self.large.adopt(max(states, key=lambda one: one.value), draft)
        self.state = min(states, key=lambda one: one.value)

    @uncollected
    def _offer(self) -> None:
        """Judge and say the best plan, if it is new and within horizon and limits."""
        run, value = self.exchange, self.state.value
        if value >= self.said:
            return
        began_s, self.said = run.elapsed_s, value
        search, shop = self.state.search, self.state.shop
        if (search.best_start + shop.alt_ticks[search.best_alt]).max(initial=0) <= shop.horizon:
            new = assignments_of(shop, self.names, self.state.draft())
            plan = judged(self.problem, new, solver="large", runtime_s=run.elapsed_s)
            if plan.objectives[KEY[self.measure]] != value:
                raise BrokenInvariant(f"large counts {value} ticks, the judge {plan.objectives[KEY[self.measure]]:g}")
            if run.goal.within(self.problem, plan.objectives):
                self.best = plan
                run.offer(plan)
        took_s = run.elapsed_s - began_s
        self.next_offer_s = run.elapsed_s + max(OFFER_S, took_s / OFFER_SHARE)
