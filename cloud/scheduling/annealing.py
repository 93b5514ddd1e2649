"""Annealing of many plans at once, quantum-inspired: any goal, any feature the decoder knows, fronts too.

    Annealing().solve(problem, goal=Goal(("carbon",)), budget=Budget(seconds=10))
    Annealing().solve(problem, goal=Goal(("makespan", "energy"), front=True)).plans

    state = Annealing().begin(desk, seed=1, start=None)     # in steps, for a portfolio
    Annealing().step(state, 1000)

`mode` says how the plans help each other: `quantum` couples them as slices of imaginary time (Suzuki-Trotter), with a
transverse field that falls and steps in which a slice takes over a machine's line from its neighbour; `exchange` has
them at different temperatures and lets them change places; `plain` leaves them alone. docs/decisions/annealing.md has
what that is worth. A front is searched by `cloud.scheduling.searchfront`. One thread, without the GIL; about 40 bytes
per plan and operation. It proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from cloud.scheduling.seam import Exchange, Result, Strategy
from cloud.scheduling.search import Desk, first_orders, put_draft, run_search
from cloud.scheduling.searchfront import FrontSearch, front_search, stepped
from cloud.scheduling.searchwalk import Pool, Terms, begun, walked
from cloud.scheduling.shop import Draft, Floats
from messages.plan import Plan
from messages.problem import Problem

Mode = Literal["quantum", "exchange", "plain"]
SLICES_HEAT = 0.35
"""Slices stay at this place between `hot` and `cold` (on a logarithmic scale); their field falls instead."""
FIELD = (3.0, 0.05)
"""Transverse field at the beginning and at the end, in units of the slices' temperature."""


class Annealing(Strategy):
    """Simulated annealing of many plans, coupled or exchanged."""

    kind: Literal["annealing"] = "annealing"
    mode: Mode = Field(default="exchange", description="quantum, exchange or plain")
    replicas: int = Field(default=16, ge=2, le=1024, description="plans annealed at once")
    hot: float = Field(default=0.01, gt=0, description="first temperature, as a share of the goal's value")
    cold: float = Field(default=0.0003, gt=0, description="last temperature")

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The best plan, or a front."""
        return run_search(
            problem,
            run,
            start,
            begin=lambda desk, draft: self.begin(desk, seed, draft),
            step=self.step,
            solver="annealing",
        )

    def begin(self, desk: Desk, seed: int = 0, start: Draft | None = None) -> AnnealingState | FrontSearch:
        """Plans of rules, and `start`."""
        if desk.goal.front:
            return front_search(desk, seed, start, self.replicas)
        pool = first_orders(desk.shop, np.random.default_rng(seed), self.replicas, start)
        limit = np.tile(desk.hard, (self.replicas, 1))
        desk.measure_scale(pool, desk.terms(np.ones((self.replicas, 7)), limit, exchange=False))
        weight = np.tile(desk.weights(), (self.replicas, 1))
        pool.cost[:] = 1e300
        desk.best.cost[0] = 1e300
        state = AnnealingState(desk, seed, pool, desk.terms(weight, limit, exchange=self.mode == "exchange"))
        state.evaluations += begun(
            desk.packed_shop, desk.scratch, desk.room, pool, desk.best, state.terms, desk.archive, desk.trial
        )
        return state

    def step(self, state: AnnealingState | FrontSearch, n: int) -> AnnealingState | FrontSearch:
        """About `n` evaluations more; the same state, changed."""
        if isinstance(state, FrontSearch):
            return stepped(state, n)
        until = state.evaluations + n
        desk = state.desk
        while state.evaluations < until:
            state.turn += 1
            heat, coupling = self._heat(state)
            state.evaluations += max(1, walked(
                desk.packed_shop, desk.scratch, desk.room, state.pool, desk.best, state.terms, desk.archive,
                desk.trial, heat, coupling, 1, (state.seed * 1_000_003 + state.turn * 7919) % 2**31,
            ))  # fmt: skip
            if desk.over():
                break
        return state

    def _heat(self, state: AnnealingState) -> tuple[Floats, float]:
        """Temperature of each plan, and how strongly slices are coupled."""
        plans, share = self.replicas, state.progress
        whole = state.whole
        if self.mode == "plain":
            return np.full(plans, whole * self.hot * (self.cold / self.hot) ** share), 0.0
        if self.mode == "exchange":
            # A ladder of temperatures that comes down as a whole: at the end the warmest is lukewarm.
            spread = np.linspace(0.0, 1.0, plans)
            return whole * self.cold * (self.hot / self.cold) ** (spread * (1.0 - 0.5 * share)), 0.0
        gamma = FIELD[0] * (FIELD[1] / FIELD[0]) ** share
        coupling = 0.5 * float(np.log(1.0 / np.tanh(gamma)))
        heat = whole * self.hot * (self.cold / self.hot) ** (SLICES_HEAT + (1.0 - SLICES_HEAT) * share)
        return np.full(plans, heat), coupling


@dataclass(eq=False)
class AnnealingState:
    """What a run of annealing knows."""

    desk: Desk
    seed: int
    pool: Pool
    terms: Terms
    evaluations: int = 0
    progress: float = 0.0
    turn: int = 0

    @property
    def whole(self) -> float:
        """What the goal's value is like."""
        return float((self.terms.weight[0] * self.desk.scale).sum()) or 1.0

    def adopt(self, draft: Draft, values: Floats) -> None:
        """A plan of somebody else takes the place of the worst."""
        worst = int(np.argmax(self.pool.cost))
        put_draft(self.desk.shop, self.pool, worst, draft)
        desk = self.desk
        begun(desk.packed_shop, desk.scratch, desk.room, self.pool, desk.best, self.terms, desk.archive, desk.trial)
