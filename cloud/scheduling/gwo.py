"""Grey wolf optimiser: as published for ceramics, and ours.

    GreyWolf(variant="paper").solve(problem, goal=Goal(("makespan", "energy"), front=True))

    state = GreyWolf().begin(desk, seed=1, start=None)     # in steps, for a portfolio
    GreyWolf().step(state, 1000)

`paper` (doi 10.11809/bqzbgcxb2024.08.024): random keys, ranked order value, a machine among the operation's
alternatives, α β δ by fitness, A = 2a·r1 - a, C = 2·r2, a from 2 to 0 within `iterations`; each candidate against its
uniform crossover with a wolf of the pack, the better one takes the wolf's place; an external Pareto archive. The paper
prints no size of its pack and no fitness of two objectives: here it is the mean of both as shares of first values.
While budget is left, a new pack begins and the archive stays.

`shoal`: half of the machines by earliest completion, shifted right, a wolf is never replaced by a worse one, local
search from the best, `a` falls over the whole budget; for a front the weights of the fitness turn with every
iteration. One thread. It proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from cloud.scheduling.archive import archived
from cloud.scheduling.seam import Exchange, Result, Strategy
from cloud.scheduling.search import Desk, first_orders, run_search
from cloud.scheduling.searchkernel import Trial, trial_of
from cloud.scheduling.searchwalk import Terms
from cloud.scheduling.searchwolves import Pack, hunted, pack_of
from cloud.scheduling.shop import Draft, Floats
from messages.plan import Plan
from messages.problem import Problem

FIRST = 3
"""Plans of rules, to see what the measures are like."""


class GreyWolf(Strategy):
    """A pack of grey wolves over random keys."""

    kind: Literal["gwo"] = "gwo"
    variant: Literal["paper", "shoal"] = Field(default="shoal", description="as published, or ours")
    wolves: int = Field(default=60, ge=4, le=10_000, description="size of the pack")
    iterations: int = Field(default=50, ge=1, description="of the paper's variant, before a new pack begins")

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The best plan, or a front."""
        return run_search(
            problem,
            run,
            start,
            begin=lambda desk, draft: self.begin(desk, seed, draft),
            step=self.step,
            solver=f"gwo-{self.variant}",
        )

    def begin(self, desk: Desk, seed: int = 0, start: Draft | None = None) -> GreyWolfState:
        """A pack anywhere; `start` is one of its wolves."""
        rng = np.random.default_rng(seed)
        first = first_orders(desk.shop, rng, FIRST, start)
        limit = np.tile(desk.hard, (FIRST, 1))
        desk.measure_scale(first, desk.terms(np.ones((FIRST, 7)), limit, exchange=False))
        desk.best.cost[0] = 1e300
        pack = pack_of(desk.shop, self.wolves, rng)
        state = GreyWolfState(desk, seed, rng, pack, trial_of(desk.shop), self._terms(desk, rng))
        if start is not None:
            state.adopt(start, desk.plan_values(start))
        return state

    def step(self, state: GreyWolfState, n: int) -> GreyWolfState:
        """Iterations for about `n` evaluations; the same state, changed."""
        desk, ours = state.desk, self.variant == "shoal"
        until = state.evaluations + n
        while state.evaluations < until:
            if ours:
                a = 2.0 * (1.0 - min(1.0, state.progress))
                if desk.goal.front:
                    state.terms = self._terms(desk, state.rng)
                    state.pack.cost[:] = 1e300
            else:
                a = 2.0 * (1.0 - state.turn % self.iterations / self.iterations)
                if state.turn and state.turn % self.iterations == 0:
                    state.pack = pack_of(desk.shop, self.wolves, state.rng)
            state.evaluations += hunted(
                desk.packed_shop, desk.scratch, desk.room, state.pack, desk.best, state.terms, desk.archive,
                state.now, desk.trial, a, ours, (state.seed * 1_000_003 + state.turn * 7919) % 2**31,
            )  # fmt: skip
            state.turn += 1
            if desk.over():
                break
        return state

    def _terms(self, desk: Desk, rng: np.random.Generator) -> Terms:
        """What a wolf is judged by: the goal; for a front the measures as shares, with turning weights in ours."""
        weight = desk.weights()
        if desk.goal.front:
            shares = rng.dirichlet(np.ones(len(desk.places))) if self.variant == "shoal" else np.ones(len(desk.places))
            weight[desk.places] = shares / desk.scale[desk.places]
        terms = desk.terms(weight[None, :], desk.hard[None, :].copy(), exchange=False)
        return terms._replace(right=self.variant == "shoal")


@dataclass(eq=False)
class GreyWolfState:
    """What a hunt knows."""

    desk: Desk
    seed: int
    rng: np.random.Generator
    pack: Pack
    now: Trial
    terms: Terms
    evaluations: int = 0
    progress: float = 0.0
    turn: int = 0

    def adopt(self, draft: Draft, values: Floats) -> None:
        """A plan of somebody else: into the archive, and the last wolf becomes it."""
        desk, shop = self.desk, self.desk.shop
        if desk.goal.front and (values <= desk.hard + 1e-9).all():
            archived(desk.archive, values, draft.machine, draft.start, draft.off)
        keys, count = self.pack.keys[-1], len(draft.start)
        order = np.lexsort((np.arange(count), draft.start))
        keys[order] = (np.arange(count) + 0.5) / count
        for o, m in enumerate(draft.machine.tolist()):
            machines = shop.alt_machine[shop.alt_first[o] : shop.alt_first[o + 1]]
            share = (int(np.flatnonzero(machines == m)[0]) + 0.5) / len(machines)
            keys[count + o] = share if not self.terms.right else 0.5 + share / 2
        self.pack.cost[-1] = 1e300
