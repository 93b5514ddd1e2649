"""Tabu search on the critical path, with a pool of good plans that are crossed: the fastest way to a short makespan.

    Tabu().solve(problem, budget=Budget(seconds=10))

    state = Tabu().begin(shop, seed=1, start=draft)      # in steps, for a portfolio
    while not over:
        Tabu().step(state, 1000)                         # so many iterations, each one plan laid out exactly
    state.draft(), state.value

Makespan or tardiness, with release dates, transport, least waits, set-ups and history; `knows` says what lies beyond
it. One thread, without the GIL. It stops where it reaches a bound, its own (`cloud.scheduling.bounds`) or another's;
plans of others that are better than its own it goes on with. Memory: about 300 bytes per operation and 8 per operation
and plan of the pool, which has at most `pool` plans.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from typing import Literal

from pydantic import Field

from cloud.scheduling.bounds import makespan_bound, tardiness_bound
from cloud.scheduling.frame import frame_of
from cloud.scheduling.seam import KEY, NEAR, Exchange, Result, Strategy, judged, nothing_to_do, one_time, refusal
from cloud.scheduling.shop import FAR, Draft, Names, Shop, draft_from, draft_of, durations, shop_of
from cloud.scheduling.tabunet import knows
from cloud.scheduling.tabupool import Rules, TabuState, adopted, begun, stepped
from messages.errors import BrokenInvariant
from messages.plan import Assignment, Measure, Plan, Status
from messages.problem import Problem

__all__ = ["Tabu", "TabuState", "knows"]

LOOK_S = 0.03
"""The search looks at the exchange about this often."""
LOOK = 500
"""Where iterations are the budget: it looks after so many."""
OFFER_S = 0.2
"""A better plan is judged and said at most this often; where iterations are the budget, at every look: which of the
plans on the way keep the horizon must not hang on the clock."""


class Tabu(Strategy):
    """Tabu search on the critical path; exact moves, one thread."""

    kind: Literal["tabu"] = "tabu"
    pool: int = Field(default=16, ge=2, le=1000, description="plans kept to be crossed")
    patience: int = Field(default=1000, ge=10, description="iterations without a better plan that end a run")
    tenure: int = Field(default=10, ge=1, description="spread of the time for which a move back is forbidden")

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The best plan for the first measure of the goal; the rest of the goal decides between plans of others."""
        reason = one_time(problem, run.goal, "tabu")
        if not reason:
            shop, names = shop_of(problem)
            reason = knows(shop)
        if reason:
            return refusal(run, reason)
        if not shop.operations:
            return nothing_to_do(problem, run, "tabu")
        late = run.goal.order[0] == "tardiness"
        state = self.begin(shop, seed, draft_from(shop, names, start), tardiness=late)
        return _Solve(self, problem, names, run, state).run()

    def begin(
        self, shop: Shop, seed: int = 0, start: Draft | None = None, target: int = 0, *, tardiness: bool = False
    ) -> TabuState:
        """A search that begins with `start` and with plans of rules; it stops where `target` is reached."""
        state = begun(shop, Rules(self.pool, self.patience, self.tenure), seed=seed, target=target, tardiness=tardiness)
        if start is not None:
            self.adopt(state, start)
        return state

    def step(self, state: TabuState, n: int) -> TabuState:
        """So many iterations more, less where nothing better can be found; the same state, changed."""
        stepped(state, n)
        return state

    def adopt(self, state: TabuState, draft: Draft) -> TabuState:
        """Go on with a plan from elsewhere."""
        adopted(state, draft)
        return state


@dataclass(eq=False)
class _Solve:
    """One run of the solver."""

    tabu: Tabu
    problem: Problem
    names: Names
    exchange: Exchange
    state: TabuState
    best: Plan | None = None
    said: int = FAR
    offered_s: float = -OFFER_S

    def run(self) -> Result:
        self.measure: Measure = self.exchange.goal.order[0]
        frame = frame_of(self.state.shop)
        self.own_bound = tardiness_bound(frame) if self.measure == "tardiness" else makespan_bound(frame).value
        self.exchange.raise_bound(self.measure, self.own_bound, "tabu")
        self._offer()  # `start`: what is better may end after the horizon
        self.offered_s = -OFFER_S
        self._search()
        self._offer()
        run, spent = self.exchange, self.state.iteration
        if self.best is None:
            reason = "tabu found no plan within horizon and limits: use cpsat or allow more time"
            return Result(reason=reason, runtime_s=run.elapsed_s, history=tuple(run.events), evaluations=spent)
        proved = self.best.objectives[KEY[self.measure]] <= self._target()
        status: Status = "optimal" if proved and len(run.goal.order) == 1 else "feasible"
        if status == "optimal":
            run.finish()
        bound = float(self._target())
        changed = {"status": status, "bound": bound, "bound_of": self.measure, "runtime_s": round(run.elapsed_s, 3)}
        plan = self.best.model_copy(update=changed)
        return Result((plan,), plan.objectives, bound, status, run.elapsed_s, tuple(run.events), evaluations=spent)

    def _search(self) -> None:
        most, run, state = self.exchange.budget.evaluations, self.exchange, self.state
        seen, n = -1, 1
        state.target = self._target()
        while not state.done and not (run.over and state.best is not None):
            if most is not None:
                n = min(LOOK, most - state.iteration)
                if n <= 0 and state.best is not None:
                    return
            elif run.version != seen:
                seen = run.version
                self._adopt(run.best)
            began_s = time.perf_counter()
            stepped(state, max(1, n))
            if most is not None or run.elapsed_s >= self.offered_s + OFFER_S:
                self._offer()
            if most is None:
                took_s = time.perf_counter() - began_s
                n = max(1, min(2 * n, int(n * LOOK_S / max(took_s, 1e-6))))
                state.target = self._target()

    def _adopt(self, plan: Plan | None) -> None:
        if plan is not None and plan is not self.best and plan.objectives[KEY[self.measure]] < self.state.value:
            adopted(self.state, draft_of(self.state.shop, self.names, plan))

    def _target(self) -> int:
        """What nobody can beat, as far as it is known."""
        run = self.exchange
        known = max(run.bounds.get(self.measure, 0.0), run.goal.floors.get(self.measure, 0.0))
        return max(self.own_bound, ceil(known - NEAR * max(1.0, known)))

    def _offer(self) -> None:
        """Judge and say the best plan, if it is new and within horizon and limits."""
        state, run = self.state, self.exchange
        if state.best is None or state.value >= self.said:
            return
        self.said = state.value
        new = self._assignments()
        if any(one.end > state.shop.horizon for one in new):
            return
        plan = judged(self.problem, new, solver="tabu", runtime_s=run.elapsed_s)
        if plan.objectives[KEY[self.measure]] != state.value:
            raise BrokenInvariant(f"tabu counts {state.value} ticks, the judge {plan.objectives[KEY[self.measure]]:g}")
        if run.goal.within(self.problem, plan.objectives):
            self.best = plan
            run.offer(plan)
        self.offered_s = run.elapsed_s

    def _assignments(self) -> list[Assignment]:
        shop, names, draft = self.state.shop, self.names, self.state.draft()
        ends = draft.start + durations(shop, draft)
        rows = zip(names.operations, draft.machine.tolist(), draft.start.tolist(), ends.tolist(), strict=True)
        return [
            Assignment(job=job, op=op, machine=names.machines[m], start=start, end=end)
            for (job, op), m, start, end in rows
        ]
