"""Who takes part in a portfolio: lanes of solvers for a problem, a goal and a number of threads.

What decides: the first measure of the goal, whether a front is wanted, the number of operations, and which features a
search knows. Measured on the public instances (`benchmarks/scheduling.py`); where two members are near, both stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from cloud.scheduling.annealing import Annealing
from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.dispatch import Rule
from cloud.scheduling.front import front
from cloud.scheduling.large import Large
from cloud.scheduling.lns import Lns
from cloud.scheduling.seam import Budget, Exchange, Goal, Result, Strategy
from cloud.scheduling.shiftfront import PRICED
from cloud.scheduling.shifting import Shift
from cloud.scheduling.shop import Shop, shop_of
from cloud.scheduling.tabu import Tabu
from cloud.scheduling.tabu import knows as tabu_knows
from messages.plan import Plan
from messages.problem import TIMES, Problem

LARGE = 3_000
"""From so many open operations on, no exact model of the whole is built."""
FEW_FRONT = 120
"""Up to so many open operations exact searches at every limit beat a search for the whole front."""
EXACT_SHARE, ENDS_SHARE = 0.5, 0.15
"""Of one worker's time, for exact searches beside a sweep of a front: where they can prove it, and where not."""
SLICE_S = 2.0
"""CP-SAT looks for others' plans after so long, then less and less often."""
FEW = 2_000
"""Up to so many operations every rule is tried for the first plan; beyond, those two that are best as a rule."""


@dataclass(frozen=True)
class Part:
    """One solver in a lane. `share` is its part of the time; `counts`: it counts evaluations, so it can be repeated."""

    solver: Strategy
    share: float = 1.0
    workers: int = 1
    counts: bool = True


def rules_for(problem: Problem) -> tuple[Rule, ...]:
    """Rules that make the first plans."""
    return get_args(Rule) if len(problem.operation) <= FEW else ("mwkr", "fifo")


def lanes(problem: Problem, goal: Goal, budget: Budget, *, begun: bool) -> list[list[Part]]:
    """Rows of parts; the threads of all lanes together are at most `budget.workers`, but at least one.

    A solver that does not know what the problem has says so at once; the next in its lane has its time. `begun`: some
    plan keeps the limits already; if not, CP-SAT has half of the threads, since it can also prove that none does.
    """
    shop, _ = shop_of(problem)
    if shop.operations > LARGE:
        return [[Part(Large(), 0.9), Part(Lns(), 0.1)] for _ in range(budget.workers)]
    if goal.front and set(goal.order) & set(PRICED):
        return _swept(goal, budget)
    if goal.front and len(goal.order) == 2 and set(goal.order) & set(TIMES) and shop.operations <= FEW_FRONT:
        return [[Part(_EpsilonFront(), 1.0, budget.workers, counts=False), Part(Annealing(), 0.01)]]
    first = goal.order[0]
    rated = {"carbon", "cost", "ledger", "energy"}
    by_shift = not goal.front and (first in rated or (goal.weights is not None and rated & set(goal.order)))
    if by_shift and begun:
        rest = [Part(CpSat(), 0.1, budget.workers, counts=False), Part(Lns(), 0.1)]
        return [[Part(Shift(), 0.9, budget.workers), *rest]]
    search, exact = [Part(Shift())] if by_shift else _searches(shop, goal), _exact(goal)
    if budget.workers == 1:
        return [[*search, *exact]]
    rows = [search for _ in range(budget.workers // 2)]
    left = budget.workers - len(rows)
    return [*rows, [Part(one.solver, one.share, left, one.counts) for one in exact]]


def _swept(goal: Goal, budget: Budget) -> list[list[Part]]:
    """A front for which hours count: short runs under many weights and limits find most of it, whatever the number of
    measures. Exact searches prove where a limit of time makes points countable, else they look at the ends."""
    countable = len(goal.order) == 2 and bool(set(goal.order) & set(TIMES))
    share = EXACT_SHARE if countable else ENDS_SHARE
    exact = Part(_EpsilonFront(), share, counts=False)
    return [
        [*([exact] if worker == budget.workers - 1 else []), Part(Annealing(), 1.0 - share)]
        for worker in range(budget.workers)
    ]


def _searches(shop: Shop, goal: Goal) -> list[Part]:
    """One thread that looks for plans."""
    by_tabu = not tabu_knows(shop) and goal.weights is None and goal.order[0] in TIMES
    if by_tabu and len(goal.order) == 1:
        return [Part(Tabu())]
    if goal.front:
        return [Part(Annealing())]
    return [*([Part(Tabu(), 0.2)] if by_tabu else []), Part(Annealing(), 0.5), Part(Lns(), 0.3)]


def _exact(goal: Goal) -> list[Part]:
    """CP-SAT, however many threads."""
    if goal.front:
        return [Part(_EpsilonFront(), counts=False)]
    return [Part(CpSat(slice_s=SLICE_S), counts=False)]


class _EpsilonFront(Strategy):
    """The exact front, as a part."""

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        return front(problem, measures=run.goal.order, seed=seed, start=start, exchange=run)
