"""Pareto fronts by ε-constraint: the first measure is limited, the second minimised, at many limits at once.

    result = front(problem, measures=("makespan", "energy"), budget=Budget(60, workers=2))
    result.plans        # no plan dominates another, sorted by the first measure
    result.status       # "optimal": every point is proved and none is missing

One exact search per worker, each at the limit of which least is known; what one proves at a limit bounds all tighter
limits. Plans that others put on the exchange are taken over at once as cuts and hints, and own ones put there at once.

For two measures of which one is a time the front is exact when time suffices, on the grid of the model (`grain`).
Three measures: the fronts of all pairs, judged in three dimensions; then some points may be missing, as between two
measures neither of which is a time: there `STEPS` limits are tried. What was found when time ends is returned.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from ortools.sat.python import cp_model

from cloud.scheduling.cpmodel import TooLarge, grain
from cloud.scheduling.cpreach import paid_to_wait, patient_horizon
from cloud.scheduling.cpsat import CpSat, Search
from cloud.scheduling.cpsolver import EVALUATION, LEAST_SLICE_S, exact_solver, is_too_late, stopping
from cloud.scheduling.seam import KEY, NEAR, Budget, Exchange, Goal, Result, refusal
from cloud.scheduling.shop import FAR
from messages.judge import missing
from messages.plan import Measure, Plan, Status
from messages.problem import TIMES, Problem

ENDS_SHARE = 0.2
"""Share of the budget, at most, for the shortest plan."""
SLICES = 20
"""The first search at a limit lasts this part of all workers' time, `SLICE_S` bounds it; each next one is longer."""
SLICE_S = (0.5, 10.0)
ENDS = 1
"""Slices that an end may take before the limits between both ends come first: with 3, a far end that is hard to prove
left nothing of 10 s for what lies between on one seed in ten."""
STEPS = 24
"""Limits between two measures neither of which is a time."""
MAX_LIMITS = 2_000
"""More limits than this between both ends are thinned out, and the front is no longer called exact."""


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
    reasons = [text for one in measures if (text := missing(problem, one))]
    if reasons:
        return refusal(run, reasons[0])
    pairs = [_in_order(pair) for pair in combinations(measures, 2)]
    found: list[Plan] = []
    exact, notes = True, []
    for position, (first, second) in enumerate(pairs):
        if run.over and (found or run.best is not None):
            exact = False
            notes.append(f"no time was left for the front of {first} and {second}")
            continue
        share_s = run.left_s / (len(pairs) - position)
        sweep = _Sweep(problem, first, second, run, run.elapsed_s + share_s, seed)
        try:
            exact = sweep.run(start) and exact
        except TooLarge as error:
            exact = False
            notes.append(f"front of {first} and {second}: {error}")
        if sweep.never:
            return Result((), {}, None, "infeasible", run.elapsed_s, tuple(run.events), sweep.never)
        notes += [sweep.note] if sweep.note else []
        found += sweep.plans()
    kept = non_dominated([*found, *run.front], measures)
    kept.sort(key=lambda plan: [plan.objectives[KEY[name]] for name in measures])
    ideal, nadir = corners(kept, measures)
    status: Status = "unknown"
    if kept:
        status = "optimal" if exact and len(pairs) == 1 else "feasible"
    kept = [plan.model_copy(update={"ideal": ideal, "nadir": nadir}) for plan in kept]
    reason = "; ".join(dict.fromkeys(notes)) or ("" if kept else "no time was left for a single plan; allow more")
    best = kept[0].objectives if kept else {}
    bound = kept[0].objectives[KEY[measures[0]]] if status == "optimal" else None
    if status == "optimal" and run.goal.front and not set(run.goal.order) - set(measures):
        run.finish()
    return Result(tuple(kept), best, bound, status, run.elapsed_s, tuple(run.events), reason)


def non_dominated(plans: Sequence[Plan], measures: Sequence[Measure]) -> list[Plan]:
    """Plans that no other beats; of equal ones the first."""
    rows = np.array([[plan.objectives[KEY[name]] for name in measures] for plan in plans]).round(6)
    kept = []
    for i, row in enumerate(rows):
        no_worse = (rows <= row).all(axis=1)
        if not (no_worse & (rows < row).any(axis=1)).any() and not no_worse[:i].any():
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
    """Times first: they lie on a grid, so there are finitely many limits; the other is minimised under them."""
    grid: tuple[Measure, ...] = ("makespan", "tardiness", "energy", "carbon", "cost", "ledger", "peak")
    first, second = sorted(pair, key=grid.index)
    return first, second


@dataclass
class _Point:
    """One limit of the first measure: what is proved of the second below it, and how long was searched."""

    limit: float
    bound: float = float("-inf")
    slice_s: float = SLICE_S[0]
    spent_s: float = 0.0
    busy: bool = False


@dataclass
class _Sweep:
    """Two measures: the second is minimised under limits of the first, by all workers at once."""

    problem: Problem
    first: Measure
    second: Measure
    exchange: Exchange
    deadline_s: float
    seed: int
    points: list[_Point] = field(default_factory=list)
    best: list[Plan] = field(default_factory=list)
    note: str = ""
    never: str = ""
    low: float = 0.0
    coarse: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = -1
        self._failed: BaseException | None = None
        self._closed = False  # the far end is proved
        self._listed = False  # and so every limit between both ends is on the list
        self._alone = self.exchange.budget.evaluations is not None

    def run(self, start: Plan | None) -> bool:
        """Fill `points`; True if the front is complete and proved."""
        if start is not None:
            self._take(start)
        low = self._end(start)
        if low is None:
            return False
        self.low = low
        if self._left_s() <= LEAST_SLICE_S or self.exchange.interrupted:
            self.note = self.note or f"no time was left for limits of {self.first}"
            return False
        goal = Goal((self.second,), limits=dict(self.exchange.goal.limits))
        self.search = Search(CpSat(), self.problem, self.exchange.part(goal, self._left_s()), self.seed)
        self.search.prepare()
        if not self.search.names.operations:
            return True
        far = patient_horizon(self.problem, self.search.shop, self.search.limits.get("makespan", FAR))
        shop, measures = self.search.shop, (self.first, self.second, *self.search.limits)
        self.step = grain(self.problem, shop, measures, (shop.horizon, low, *self.search.marks(self.search.limits)))
        loose = self.search.loose({**self.search.limits, self.first: float("inf")})
        self.pays = paid_to_wait(self.problem, shop, measures)
        if self.pays and "makespan" not in self.search.limits:
            self.note = self.pays
        self.fine = loose and self.search.is_small(measures, far)
        self.every = 1 if self.fine or not loose else self.step
        count = 1 if self._alone else max(1, self.exchange.budget.workers)
        self.slice_s = min(max(self._left_s() * count / SLICES, SLICE_S[0]), SLICE_S[1])
        top = float(far) if self.first == "makespan" else float("inf")
        self.points = [_Point(low, slice_s=self.slice_s), _Point(top, slice_s=self.slice_s)]
        self.near = max(int(2 * self._x(plan)) for plan in self.plans()) if self.first == "makespan" else None
        threads = [threading.Thread(target=self._work, name=f"front-{one}") for one in range(1, count)]
        for one in threads:
            one.start()
        self._work()
        for one in threads:
            one.join()
        if self._failed is not None:
            raise self._failed
        if self.first not in TIMES:
            self.note = f"{STEPS} limits of {self.first} were tried; there may be points between them"
            return False
        done = self._listed and all(self._is_proved(one) for one in self.points if self._is_on_grid(one))
        if done and not self.note and (self.every > 1 or not all(self._is_proved(one) for one in self.points)):
            self.note = f"complete on a grid of {self.step} ticks; there may be points between"
        return done and not self.note

    def plans(self) -> list[Plan]:
        """What was found, the best first measure first."""
        return sorted(non_dominated(self.best, (self.first, self.second)), key=self._x)

    # --- what is known --------------------------------------------------------------------------

    def _left_s(self) -> float:
        return self.deadline_s - self.exchange.elapsed_s

    def _x(self, plan: Plan) -> float:
        return plan.objectives[KEY[self.first]]

    def _y(self, plan: Plan) -> float:
        return plan.objectives[KEY[self.second]]

    def _take(self, plan: Plan) -> None:
        """A plan of anybody's."""
        if not self.exchange.goal.within(self.problem, plan.objectives):
            return
        with self._lock:
            self.best = non_dominated([*self.best, plan], (self.first, self.second))

    def _adopt(self) -> None:
        if self._alone or self.exchange.version == self._seen:
            return
        self._seen = self.exchange.version
        for plan in (*self.exchange.front, *([self.exchange.best] if self.exchange.best is not None else [])):
            self._take(plan)

    def _under(self, limit: float) -> Plan | None:
        """The best plan that keeps a limit."""
        able = [plan for plan in self.best if self._x(plan) <= limit + NEAR * max(1.0, abs(limit))]
        return min(able, key=self._y, default=None)

    def _is_on_grid(self, point: _Point) -> bool:
        """Whether its limit is an end or on the grid of the model."""
        return point is self.points[0] or point is self.points[-1] or not (point.limit - self.low) % self.step

    def _bound(self, limit: float) -> float:
        """What is proved at a wider limit holds at a tighter one."""
        return max((one.bound for one in self.points if one.limit >= limit), default=float("-inf"))

    def _is_proved(self, point: _Point) -> bool:
        plan = self._under(point.limit)
        return plan is not None and self._bound(point.limit) >= self._y(plan) - NEAR * max(1.0, abs(self._y(plan)))

    # --- the search -----------------------------------------------------------------------------

    def _end(self, start: Plan | None) -> float | None:
        """The least first measure, as proved or found."""
        self._adopt()
        for again in (False, True):  # others may have found a plan where this search did not
            if again and self.exchange.over:
                break
            goal = Goal((self.first,), limits=dict(self.exchange.goal.limits))
            known = min(self.best, key=self._x, default=start)
            part = self.exchange.part(goal, max(LEAST_SLICE_S, self._left_s() * ENDS_SHARE))
            result = CpSat().solve(self.problem, seed=self.seed, start=known, exchange=part)
            for plan in (*result.plans, *([part.best] if part.best is not None else [])):
                self._take(plan)
                self.exchange.offer(plan)
            if result.bound is not None and result.status == "optimal":
                return self._x(result.plans[0])
            self._adopt()
            if result.status == "infeasible" and not self.best:
                self.never = result.reason
                return None
            if result.plans or self.best:
                self.note = f"the least {self.first} is not proved"
                return min(self._x(plan) for plan in self.best)
        return None

    def _limits(self) -> None:
        """Once both ends are known: every limit between them, on the grid."""
        high = self._under(float("inf"))
        if high is None or self._listed:
            return
        self._listed = self._closed
        low, top = self.points[0].limit, self._x(high)
        if self.first in TIMES:
            if top - low > MAX_LIMITS:
                self.every = self.step
            count = max(0, round((top - low) / self.every) - 1)
            thin = -(-count // MAX_LIMITS) if count > MAX_LIMITS else 1
            wanted = [low + self.every * thin * (one + 1) for one in range(count // thin)]
            if thin > 1:
                self.note = f"{count} limits are too many; every {thin}th was tried"
        else:
            wanted = [low + (top - low) * (one + 1) / STEPS for one in range(STEPS - 1)]
        known = {one.limit for one in self.points}
        new = [_Point(one, slice_s=self.slice_s) for one in wanted if one not in known]
        self.points = sorted([*self.points, *new], key=lambda one: one.limit)  # others read the list as it was

    def _next(self) -> _Point | None:
        """The ends before all others; then the limit searched least, of these where most is unknown, in the middle."""
        open_points = [one for one in self.points if not one.busy and not self._is_proved(one)]
        for one in (self.points[-1], self.points[0]):
            if one in open_points and one.spent_s < ENDS * self.slice_s:
                return one
        told = [one.limit for one in self.points if one.busy or one.spent_s]
        if self.coarse or any(self._is_on_grid(one) for one in open_points):  # between its steps when they are done
            open_points = [one for one in open_points if self._is_on_grid(one)]

        def order(one: _Point) -> tuple[float, float, float]:
            plan = self._under(one.limit)
            unknown = float("inf") if plan is None else self._y(plan) - self._bound(one.limit)
            return one.spent_s // self.slice_s, -unknown, -min((abs(one.limit - other) for other in told), default=0.0)

        return min(open_points, key=order, default=None)

    def _work(self) -> None:
        try:
            while self._left_s() > LEAST_SLICE_S and not self.exchange.interrupted:
                self._adopt()
                with self._lock:
                    end = self.points[-1]
                    self._closed = self._is_proved(end)
                    if self._closed or end.spent_s >= ENDS * self.slice_s:
                        self._limits()
                    point = self._next()
                    if point is not None:
                        point.busy = True
                if point is None:
                    if not any(one.busy for one in self.points) or self.exchange.wait(0.02):
                        return
                    continue
                try:
                    if not self._at(point):
                        return
                except TooLarge:
                    if self._left_s() <= 0 or self.exchange.interrupted:
                        return  # it was given up, whatever its size
                    if self._is_on_grid(point):
                        raise
                    self.coarse = True  # as fine as that it is too large: the grid must do
                finally:
                    point.busy = False
        except BaseException as error:  # told by the thread that began all this
            self._failed = error
            self.exchange.finish()

    def _at(self, point: _Point) -> bool:
        """One slice of exact search at a limit; False: too late for that."""
        search, run = self.search, self.exchange
        began_s, known = run.elapsed_s, self._under(point.limit)
        floor = self._bound(point.limit)
        limits: dict[Measure, float] = {**search.limits}
        if point.limit < float("inf"):
            limits[self.first] = min(point.limit, limits.get(self.first, point.limit))
        horizon, proving = self._horizon(point)
        model = search.model({self.first, self.second, *limits}, limits, horizon, {self.second: 1.0}, fine=self.fine)
        if not self._alone and is_too_late(self._left_s(), run.elapsed_s - began_s):
            return False
        if known is not None:
            model.cut(self._y(known))
            search.hint(model, known)
            model.look()
        if floor > float("-inf"):
            model.floor(floor)
        solver = exact_solver(self.seed)
        if self._alone:
            solver.parameters.max_deterministic_time = (run.budget.evaluations or 1) * EVALUATION / STEPS
            solver.parameters.max_time_in_seconds = max(LEAST_SLICE_S, self._left_s())
        else:
            solver.parameters.max_time_in_seconds = max(LEAST_SLICE_S, min(point.slice_s, self._left_s()))
        with stopping(solver, run):
            status = solver.solve(model.cp, _Offer(self, model))
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self._found(search.plan(model, solver))
        value = float("-inf")
        if status == cp_model.INFEASIBLE:  # no better than what is known there, if anything is
            value = self._y(known) if known is not None else float("inf")
        elif status in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.UNKNOWN):
            value = model.natural(solver.best_objective_bound)
        if proving and value > point.bound:
            point.bound = value
        point.slice_s *= 1.5
        point.spent_s += max(run.elapsed_s - began_s, LEAST_SLICE_S)
        return True

    def _horizon(self, point: _Point) -> tuple[int, bool]:
        """How far to look, and whether what is proved there holds for all plans."""
        own = point.limit if self.first == "makespan" else float(FAR)
        far = patient_horizon(self.problem, self.search.shop, min(own, self.search.limits.get("makespan", FAR)))
        if self.first == "makespan":
            near = self.near if point is self.points[-1] and point.spent_s == 0 and self.near is not None else far
            sure = not self.pays or point is not self.points[-1] or "makespan" in self.search.limits
            return min(far, int(point.limit), near), sure and near >= min(far, int(point.limit))
        reach = max((int(plan.objectives["makespan"]) for plan in self.best), default=far)
        sure = not self.pays or "makespan" in self.search.limits
        return (min(far, 2 * reach), sure and 2 * reach >= far) if point.spent_s == 0 else (far, sure)

    def _found(self, plan: Plan) -> None:
        self._take(plan)
        if self.exchange.offer(plan):
            self.exchange.say("incumbent", self.second, self._y(plan), plan.solver)


class _Offer(cp_model.CpSolverSolutionCallback):
    """Puts better plans on the exchange while the search goes on, at most a few times a second."""

    def __init__(self, sweep: _Sweep, model: object) -> None:
        super().__init__()
        self._sweep, self._model, self._last_s = sweep, model, float("-inf")

    def on_solution_callback(self) -> None:
        run = self._sweep.exchange
        if run.elapsed_s >= self._last_s + 0.2:
            self._last_s = run.elapsed_s
            self._sweep._found(self._sweep.search.plan(self._model, self))  # type: ignore[arg-type]
