"""Pareto fronts by ε-constraint: the first measure is limited, the second minimised, and so on from the ends inwards.

    result = front(problem, measures=("makespan", "energy"), budget=Budget(60))
    result.plans        # no plan dominates another, sorted by the first measure
    result.status       # "optimal": every point is proved and none is missing

For two measures the front is exact when time suffices: a limit between two neighbours with one value needs no
solving. Three measures: the fronts of all pairs, judged in three dimensions; then some points may be missing.
Whatever was found when time ends, or `stop` is set, is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

from cloud.scheduling.cpmodel import grain
from cloud.scheduling.cpsat import LEAST_SLICE_S, CpSat
from cloud.scheduling.seam import KEY, NEAR, Budget, Exchange, Goal, Result
from messages.plan import Plan, Status
from messages.problem import Measure, Problem

ENDS_SHARE = 0.25
"""Share of the budget for each of the two ends."""
SLICE_S = 1.0
"""A point gets at least this long before the next one is tried, if so much is left."""


def front(
    problem: Problem,
    *,
    measures: Sequence[Measure],
    budget: Budget | None = None,
    seed: int = 0,
    start: Plan | None = None,
    exchange: Exchange | None = None,
) -> Result:
    """The non-dominated plans over two or three measures."""
    if len(measures) < 2:
        raise ValueError("front: give at least two measures")
    run = exchange or Exchange(problem, Goal(tuple(measures), front=True), budget or Budget(60.0))
    pairs = [_in_order(pair) for pair in combinations(measures, 2)]
    found: list[Plan] = []
    exact = True
    for position, (first, second) in enumerate(pairs):
        share_s = run.left_s / (len(pairs) - position)
        sweep = _Sweep(problem, first, second, run, run.elapsed_s + share_s, seed)
        exact = sweep.run(start) and exact
        found += sweep.plans()
    kept = non_dominated(found, measures)
    kept.sort(key=lambda plan: [plan.objectives[KEY[name]] for name in measures])
    ideal, nadir = corners(kept, measures)
    status: Status = "unknown"
    if kept:
        status = "optimal" if exact and len(pairs) == 1 else "feasible"
    kept = [plan.model_copy(update={"ideal": ideal, "nadir": nadir}) for plan in kept]
    reason = "" if kept else "no time was left for a single plan; allow more"
    best = kept[0].objectives if kept else {}
    bound = kept[0].objectives[KEY[measures[0]]] if status == "optimal" else None
    return Result(tuple(kept), best, bound, status, run.elapsed_s, tuple(run.events), reason)


def non_dominated(plans: Sequence[Plan], measures: Sequence[Measure]) -> list[Plan]:
    """Plans that no other beats; of equal ones the first."""
    rows = [[round(plan.objectives[KEY[name]], 6) for name in measures] for plan in plans]
    kept = []
    for i, row in enumerate(rows):
        beaten = any(
            all(a <= b for a, b in zip(other, row, strict=True)) and (other != row or j < i)
            for j, other in enumerate(rows)
            if j != i
        )
        if not beaten:
            kept.append(plans[i])
    return kept


def corners(plans: Sequence[Plan], measures: Sequence[Measure]) -> tuple[dict[str, float], dict[str, float]]:
    """(ideal, nadir): the best and the worst of each measure over a front."""
    columns = {KEY[name]: [plan.objectives[KEY[name]] for plan in plans] for name in measures}
    return (
        {key: min(column) for key, column in columns.items() if column},
        {key: max(column) for key, column in columns.items() if column},
    )


def choose(plans: Sequence[Plan], measures: Sequence[Measure], weights: Mapping[Measure, float] | None = None) -> Plan:
    """Of a front, the plan with the least maximum normalised regret; with `weights`, the least weighted sum."""
    ideal, nadir = corners(plans, measures)

    def regrets(plan: Plan) -> list[float]:
        return [_regret(plan.objectives[KEY[name]], ideal[KEY[name]], nadir[KEY[name]]) for name in measures]

    def cost(plan: Plan) -> tuple[float, float]:
        found = regrets(plan)
        if weights is None:
            return max(found), sum(found)
        return sum(weights.get(name, 0.0) * one for name, one in zip(measures, found, strict=True)), sum(found)

    return min(plans, key=cost)


def _regret(value: float, ideal: float, nadir: float) -> float:
    return (value - ideal) / (nadir - ideal) if nadir > ideal else 0.0


def _in_order(pair: Sequence[Measure]) -> tuple[Measure, Measure]:
    """Times first: they lie on a grid, so there are finitely many limits; energy is minimised under them."""
    grid: tuple[Measure, ...] = ("makespan", "tardiness", "energy")
    first, second = sorted(pair, key=grid.index)
    return first, second


@dataclass(frozen=True)
class _Point:
    """The best second measure under every limit of the first from `low` (what the plan reaches) to `high`."""

    low: int
    high: int
    plan: Plan
    proved: bool


@dataclass
class _Sweep:
    """Two measures, limits on the first from both ends inwards, the widest unknown gap first."""

    problem: Problem
    first: Measure
    second: Measure
    exchange: Exchange
    deadline_s: float
    seed: int
    points: list[_Point] = field(default_factory=list)

    def run(self, start: Plan | None) -> bool:
        """Fill `points`; True if the front is complete and proved."""
        self.step = grain(self.problem, tardiness=True)
        whole_s = self._left_s()
        low = self._solve(Goal((self.first, self.second)), whole_s * ENDS_SHARE, start)
        if low is None:
            return False
        high = self._solve(Goal((self.second, self.first)), whole_s * ENDS_SHARE, low.plan)
        if high is None:
            return False
        self._take_ends(low, high)
        while self._going() and len(self.points) == 1 and not (low.proved and high.proved):
            # Both ends fell on one plan for want of time: without two ends there is nothing to sweep between.
            low = self._solve(Goal((self.first, self.second)), self._left_s() * ENDS_SHARE, low.plan) or low
            high = self._solve(Goal((self.second, self.first)), self._left_s() * 0.5, high.plan) or high
            self._take_ends(low, high)
        while self._going() and (gap := self._widest()):
            self._between(*gap)
        while self._going() and (open_points := [one for one in self.points if not one.proved]):
            for point in open_points:
                self._again(point, self._left_s() / len(open_points))
        return self._widest() is None and all(point.proved for point in self.points)

    def _take_ends(self, low: _Point, high: _Point) -> None:
        better = low.low < high.low and self._y(high.plan) < self._y(low.plan)
        if better:
            self.points = [low, high]
        else:  # one of them is at least as good in both
            self.points = [low if self._y(low.plan) <= self._y(high.plan) and low.low <= high.low else high]

    def plans(self) -> list[Plan]:
        """What was found, the best first measure first."""
        return [point.plan for point in self.points]

    def _left_s(self) -> float:
        return self.deadline_s - self.exchange.elapsed_s

    def _going(self) -> bool:
        return self._left_s() > LEAST_SLICE_S and not self.exchange.interrupted

    def _x(self, plan: Plan) -> int:
        return round(plan.objectives[KEY[self.first]])

    def _y(self, plan: Plan) -> float:
        return plan.objectives[KEY[self.second]]

    def _gap(self, left: _Point, right: _Point) -> int:
        """Limits between two points of which nothing is known yet."""
        if self._y(left.plan) <= self._y(right.plan) * (1 + NEAR):
            return 0
        return max(0, -(-(right.low - left.high) // self.step) - 1)

    def _widest(self) -> tuple[_Point, _Point] | None:
        pairs = [pair for pair in pairwise(self.points) if self._gap(*pair)]
        return max(pairs, key=lambda pair: self._gap(*pair), default=None)

    def _between(self, left: _Point, right: _Point) -> None:
        limit = left.high + self.step * ((self._gap(left, right) + 1) // 2)
        unknown = sum(self._gap(*pair) for pair in pairwise(self.points))
        slice_s = max(SLICE_S, 1.5 * self._left_s() / unknown)
        self._put(self._under(limit, left.plan, slice_s, right))

    def _again(self, point: _Point, slice_s: float) -> None:
        after = next((one for one in self.points if one.low > point.high), None)
        self._put(self._under(point.high, point.plan, slice_s, after))

    def _under(self, limit: int, start: Plan, slice_s: float, right: _Point | None) -> _Point:
        """Minimise the second measure under a limit of the first; `start` keeps it, `right` bounds it from below."""
        goal = Goal(
            (self.second,),
            limits={self.first: limit, self.second: self._y(start)},
            floors={self.second: self._y(right.plan)} if right and right.proved else {},
        )
        found = self._solve(goal, slice_s, start)
        if found is None:
            return _Point(self._x(start), limit, start, False)
        return _Point(found.low, limit, found.plan, found.proved)

    def _solve(self, goal: Goal, budget_s: float, start: Plan | None) -> _Point | None:
        part = self.exchange.part(goal, max(LEAST_SLICE_S, min(budget_s, self._left_s())))
        result = CpSat().solve(self.problem, seed=self.seed, start=start, exchange=part)
        if not result.plans:
            return None
        plan = result.plans[0]
        self.exchange.offer(plan)
        return _Point(self._x(plan), self._x(plan), plan, result.status == "optimal")

    def _put(self, point: _Point) -> None:
        """Take a point in; those it makes superfluous go, those with the same limits are replaced."""
        kept = [
            one
            for one in self.points
            if not (point.low <= one.low and one.high <= point.high and self._y(point.plan) <= self._y(one.plan))
        ]
        self.points = sorted([*kept, point], key=lambda one: (one.low, one.high))
