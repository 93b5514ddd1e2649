"""CP-SAT: exact, time-boxed, interruptible. Proves every measure, one after the other or their weighted sum.

    CpSat().solve(problem, goal=Goal(("makespan", "energy")), budget=Budget(seconds=10, workers=2))

A rule's plan (or `start`, or the exchange's best) is the first incumbent and the hint; `exchange.over` ends the search
within a tenth of a second with the best so far. `bound` is proved for the goal's first measure. With `slice_s` the
search is cut into slices: between two of them it takes the exchange's incumbent as hint and cut.

With `Budget.evaluations` one worker counts deterministic time, `EVALUATION` each; the clock ends it if it
is spent first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ortools.sat.python import cp_model
from pydantic import Field

from cloud.scheduling.cpmodel import Keep, Model, TooLarge, on_grid
from cloud.scheduling.cpmodel_hint import hint
from cloud.scheduling.cpreach import paid_to_wait, patient_horizon
from cloud.scheduling.cpsolver import EVALUATION, LEAST_SLICE_S, is_too_late, plan_from, stopping
from cloud.scheduling.cpwhy import why
from cloud.scheduling.dispatch import Rule, drafted
from cloud.scheduling.seam import KEY, NEAR, Budget, Exchange, Goal, Result, Strategy, judged, nothing_to_do
from cloud.scheduling.shop import FAR, assignments_of, draft_of, shop_of
from messages.errors import BrokenInvariant
from messages.judge import objective, violations
from messages.plan import Measure, Plan
from messages.problem import TIMES, Problem

NEAR_SHARE = 0.6
"""Share of a measure's time that is spent within a near horizon."""
STAGE_SHARE = 0.6
"""Share of the time left that a measure may use while others follow it."""
OFFER_S = 0.2
"""A better plan is judged and offered not sooner than this after the last; the best always at the end."""
WHY_S = 5.0
"""Most time to find by how much an infeasible limit is too tight."""
FINE = 50_000
"""Up to this many starts, tick by tick, loads over time are modelled on the finest grid where limits ask for it."""
FEW_OPERATIONS = 1_000
"""Up to this many operations every rule is tried for the first incumbent; beyond, only FIFO."""

Found = float | Literal["infeasible", "unknown"]


class CpSat(Strategy):
    """Exact search with OR-Tools CP-SAT."""

    kind: Literal["cpsat"] = "cpsat"
    redundant: bool = Field(default=True, description="load and stage lines; off only to see what they are worth")
    slice_s: float | None = Field(
        default=None, gt=0, description="look for others' plans so often, each slice half as long again; none: never"
    )

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The best plan for `goal` within `budget`, and what was proved about it."""
        return Search(self, problem, run, seed).run(start)


@dataclass
class Search:
    """One run: stages in the order of the goal, each within what the earlier ones reached."""

    settings: CpSat
    problem: Problem
    exchange: Exchange
    seed: int
    best: Plan | None = None
    interrupted: bool = False
    note: str = ""
    sound: Plan | None = None  # the last plan that the exchange took, and so checked

    def prepare(self) -> None:
        """What all models share."""
        self.shop, self.names = shop_of(self.problem)
        self.sunk = judged(self.problem, (), solver="cpsat").objectives
        self.limits: dict[Measure, float] = dict(self.problem.limits)
        for name, value in self.exchange.goal.limits.items():
            self.limits[name] = min(value, self.limits.get(name, value))
        self.due_lots = {lot for lot in self.shop.job_lot.tolist() if self.shop.lot_due[lot] < FAR}

    def loose(self, limits: Mapping[Measure, float]) -> bool:
        """Whether the best plan within these limits may lie off every grid coarser than a tick.

        A limit on the makespan, on one order's tardiness, or on none being late is a latest end: a mark of the grid.
        One on a sum lets several things move together by any part of a step.
        """
        room = limits.get("tardiness", 0.0) - self.shop.past_tardiness
        return bool(set(limits) - set(TIMES)) or (room > 0 and len(self.due_lots) > 1)

    def marks(self, limits: Mapping[Measure, float]) -> list[float]:
        """The latest ends that these limits are."""
        found = [limits["makespan"]] if "makespan" in limits else []
        if "tardiness" in limits and len(self.due_lots) == 1:
            (lot,) = self.due_lots
            found.append(float(self.shop.lot_due[lot]) + max(0.0, limits["tardiness"] - self.shop.past_tardiness))
        return found

    def is_small(self, measures: Collection[Measure], horizon: int) -> bool:
        """Whether a model on the finest grid is not too large."""
        return not on_grid(self.problem, measures) or (horizon - self.shop.floor) * len(self.shop.alt_ticks) <= FINE

    def run(self, start: Plan | None) -> Result:
        """All stages."""
        run, goal = self.exchange, self.exchange.goal
        self.prepare()
        if not self.names.operations:
            return nothing_to_do(self.problem, run, "cpsat")
        self.start = self.first(start)
        if goal.weights is not None:
            stages: list[dict[Measure, float]] = [{one: goal.weights[one] for one in goal.order}]
        else:
            stages = [{one: 1.0} for one in goal.order]
        limits, proved = dict(self.limits), True
        bound: float | None = None
        for position, weights in enumerate(stages):
            left = run.left_s
            if self.interrupted or left <= 0:
                proved = False
                break
            last = position == len(stages) - 1
            try:
                found = self._stage(weights, limits, left if last else left * STAGE_SHARE, leads=position == 0)
            except TooLarge as error:
                self.note, proved = f"cpsat: {error}", False
                break
            if found == "infeasible" and position == 0 and self.best is None:
                return self._empty(*why(self.problem, self.limits, self._least, sure=not self.note))
            if position == 0 and not isinstance(found, str):
                bound = found
            if self.best is None:
                proved = False
                break
            reached = sum(weight * self.best.objectives[KEY[one]] for one, weight in weights.items())
            proved = proved and not isinstance(found, str) and found >= reached - NEAR * max(1.0, abs(reached))
            if goal.weights is None:
                measure = goal.order[position]
                limits[measure] = min(reached, limits.get(measure, reached))
        if self.best is None:
            text = f"no plan within the limits was found in {run.budget.seconds:g} s; allow more time"
            return self._empty("unknown", self.note or text, bound)
        if self.best is not self.sound and (faults := violations(self.problem, self.best)):
            raise BrokenInvariant(f"cpsat made a plan that cannot be carried out: {faults[0]}")
        status: Literal["optimal", "feasible"] = "optimal" if proved else "feasible"
        took, first = run.elapsed_s, goal.order[0]
        stated = bound if goal.weights is None else None
        facts = {"bound": stated, "bound_of": first, "status": status, "runtime_s": round(took, 3)}
        plan = self.best.model_copy(update=facts)
        return Result((plan,), plan.objectives, bound, status, took, tuple(run.events), self.note)

    def _empty(self, status: Literal["infeasible", "unknown"], reason: str, bound: float | None = None) -> Result:
        run = self.exchange
        return Result((), {}, bound, status, run.elapsed_s, tuple(run.events), reason)

    def first(self, start: Plan | None) -> Plan | None:
        """What to begin with: the exchange's best, `start`, or a rule's plan; those that can be carried out compete."""
        problem, hint_plan = self.problem, start
        if self.exchange.best is not None and self.exchange.budget.evaluations is None:
            self.offer(self.exchange.best)
        if start is not None and start.problem_sha256 in ("", problem.sha256):
            known = start.problem_sha256 and start.objectives
            if known or not violations(problem, start):
                own = start.objectives if known else objective(problem, start)
                self.offer(start.model_copy(update={"objectives": own, "problem_sha256": problem.sha256}))
        self.reach = int(self.best.objectives["makespan"]) if self.best is not None else 0
        if self.best is None or start is None:
            small = len(problem.operation) <= FEW_OPERATIONS
            for rule in get_args(Rule) if small else ("fifo",):
                draft, faults = drafted(self.shop, rule)
                plan = judged(problem, assignments_of(self.shop, self.names, draft), solver=rule)
                self.reach = max(self.reach, int(plan.objectives["makespan"]))
                hint_plan = hint_plan or plan
                if not faults:
                    self.offer(plan)
                if self.exchange.over and self.best is not None and len(problem.operation) > FEW_OPERATIONS // 10:
                    break
        return hint_plan

    def offer(self, plan: Plan) -> None:
        """Keep `plan` if it is within the limits and better in the order of the goal."""
        goal = self.exchange.goal
        if not goal.within(self.problem, plan.objectives):
            return
        if self.best is None or goal.better(plan.objectives, self.best.objectives):
            self.best = plan
        if self.exchange.offer(plan):
            self.sound = plan

    # --- one stage ------------------------------------------------------------------------------

    def _stage(
        self, weights: dict[Measure, float], limits: dict[Measure, float], budget_s: float, leads: bool
    ) -> Found:
        """Minimise within the shortest horizon that is enough, so that searching stays easy.

        Only makespan has a natural end: for others a near horizon finds good plans, the far one proves them.
        """
        far = patient_horizon(self.problem, self.shop, limits.get("makespan", FAR))
        if "makespan" in limits:
            return self._within(weights, limits, far, budget_s, leads)
        if list(weights) == ["makespan"] and self.best is not None:
            return self._within(weights, limits, int(self.best.objectives["makespan"]), budget_s, leads)
        near = self.reach + (self.reach - self.problem.start_floor)
        before_s = self.exchange.elapsed_s
        if near < far:
            self._within(weights, limits, near, budget_s * NEAR_SHARE, leads, proving=False)
            if self.interrupted or self.exchange.over:
                return "unknown"
        left_s = budget_s - (self.exchange.elapsed_s - before_s)
        pays = paid_to_wait(self.problem, self.shop, {*weights, *limits})
        try:
            found = self._within(weights, limits, far, left_s, leads, proving=not pays)
            if pays:
                self.note = pays
            return "unknown" if pays else found
        except TooLarge as error:
            if near >= far:
                raise
            self.note = f"nothing is proved of plans that end after {near}: {error}"
            return "unknown"

    def _within(
        self,
        weights: dict[Measure, float],
        limits: Mapping[Measure, float],
        horizon: int,
        budget_s: float,
        leads: bool,
        *,
        proving: bool = True,
    ) -> Found:
        """Minimise in slices; the proved bound, or why there is none."""
        run, goal = self.exchange, self.exchange.goal
        deadline_s = run.elapsed_s + budget_s
        loose = self.loose(self.limits)  # what an earlier measure reached and proved is no such limit
        measures = {*weights, *limits}
        began_s = run.elapsed_s
        model = self.model(measures, limits, horizon, weights, fine=loose and self.is_small(measures, horizon))
        made_s = run.elapsed_s - began_s
        single = next(iter(weights)) if len(weights) == 1 else None
        exact = model.grain == 1 or not loose
        if not exact:
            self.note = f"proved for plans on a grid of {model.grain} ticks only"
        if single is not None and single in goal.floors:
            model.floor(goal.floors[single] * weights[single])
        tells = single if proving and leads and exact else None
        past = self.shop.past_makespan if single == "makespan" else float("-inf")

        def bound_of(units: float) -> float:
            return max(past, model.natural(units))

        length_s = self.settings.slice_s or budget_s
        while True:
            if run.budget.evaluations is None and is_too_late(deadline_s - run.elapsed_s, made_s):
                raise TooLarge("time was over before the exact model was searched; allow more, or use the portfolio")
            self.adopt()
            value = None if self.best is None else sum(w * self.best.objectives[KEY[one]] for one, w in weights.items())
            if value is not None:
                model.cut(value)
            known = self.best or self.start
            if known is not None:
                self.hint(model, known)
            model.look()
            slice_s = min(length_s, deadline_s - run.elapsed_s)
            status, units, ended = self._search(model, slice_s, single, tells, bound_of)
            bound = bound_of(units)
            if status == cp_model.INFEASIBLE:
                if not proving or (self.best is not None and value is not None):
                    return "infeasible" if value is None or not exact else value  # nothing below what is known
                return "infeasible"
            if status == cp_model.OPTIMAL or ended:
                break
            if self.best is not None and value is not None and proving:
                reached = sum(w * self.best.objectives[KEY[one]] for one, w in weights.items())
                if bound >= reached - NEAR * max(1.0, abs(reached)):
                    break
            if run.over or run.budget.evaluations is not None or deadline_s - run.elapsed_s < LEAST_SLICE_S:
                break
            length_s *= 1.5
        return bound if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) and exact else "unknown"

    def model(
        self,
        measures: set[Measure],
        limits: Mapping[Measure, float],
        horizon: int,
        weights: dict[Measure, float],
        keep: Keep | None = None,
        fine: bool = False,
    ) -> Model:
        """The exact model with these limits; `keep`: all but a neighbourhood stays."""
        model = Model(
            self.problem,
            self.shop,
            self.names,
            horizon=horizon,
            sunk=self.sunk,
            measures=measures,
            marks=[self.shop.floor + 1] if fine else self.marks(limits),
            redundant=self.settings.redundant and keep is None,
            keep=keep,
            over=lambda: self.exchange.over,
        )
        for name, value in limits.items():
            model.limit(name, value)
        model.minimise(weights)
        return model

    def adopt(self) -> None:
        """Take over the exchange's best."""
        if self.exchange.best is not None and self.exchange.budget.evaluations is None:
            self.offer(self.exchange.best)

    def hint(self, model: Model, plan: Plan) -> None:
        """Begin the search at a plan."""
        try:
            hint(model, draft_of(self.shop, self.names, plan))
        except ValueError:
            return  # a plan of a problem like this one lacks what came later: nothing to begin with

    def _search(
        self,
        model: Model,
        seconds: float,
        measure: Measure | None,
        tells: Measure | None,
        bound_of: Callable[[float], float],
    ) -> tuple[cp_model.CpSolverStatus, float, bool]:
        """One slice: status, bound in units, and whether somebody stopped it."""
        run = self.exchange
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.random_seed = self.seed % 2**31
        if run.budget.evaluations is not None:
            parameters.num_workers = 1
            parameters.max_deterministic_time = run.budget.evaluations * EVALUATION / len(run.goal.order)
            parameters.max_time_in_seconds = max(LEAST_SLICE_S, run.left_s)
        else:
            parameters.num_workers = run.budget.workers
            parameters.max_time_in_seconds = max(LEAST_SLICE_S, seconds)
        parameters.catch_sigint_signal = threading.current_thread() is threading.main_thread()
        if tells is not None:  # a bound within a near horizon is none for all plans
            solver.best_bound_callback = lambda units: run.raise_bound(tells, bound_of(units), "cpsat")
        before_s = run.elapsed_s
        hear = _Hear(self, model, measure, bound_of)
        with stopping(solver, run):
            status = solver.solve(model.cp, hear)
        took_s = run.elapsed_s - before_s
        if status == cp_model.MODEL_INVALID:
            raise BrokenInvariant(f"cpsat refused its model: {model.cp.validate()[:300]}")
        ended = run.over
        unfinished = status in (cp_model.FEASIBLE, cp_model.UNKNOWN)
        if unfinished and run.budget.evaluations is None and took_s < 0.9 * seconds - LEAST_SLICE_S:
            self.interrupted = ended = True  # Ctrl-C reached the solver, or it ended early by `stop`
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            plan = self.plan(model, solver)
            self.offer(plan)
            if tells is not None:
                run.raise_bound(tells, bound_of(solver.best_objective_bound), "cpsat")
            return status, solver.best_objective_bound, ended
        return status, 0.0, ended

    def plan(self, model: Model, solver: cp_model.CpSolver | cp_model.CpSolverSolutionCallback) -> Plan:
        """The judged plan of a solution."""
        return plan_from(self.problem, self.shop, self.names, model, solver, "cpsat")

    def _least(self, measure: Measure, free: Problem) -> tuple[float | None, bool]:
        """The least value of a measure in a problem without limits, or a bound; whether it is proved."""
        run = self.exchange
        seconds = min(WHY_S, run.left_s / max(1, len(self.limits)))
        if seconds < LEAST_SLICE_S:
            return None, False
        part = Exchange(free, Goal((measure,)), Budget(seconds, run.budget.evaluations, run.budget.workers))
        result = CpSat(redundant=self.settings.redundant).solve(free, seed=self.seed, exchange=part)
        if result.status == "optimal" and result.objective:
            return result.objective[KEY[measure]], True
        return result.bound, False


class _Hear(cp_model.CpSolverSolutionCallback):
    """Offers better plans while the search goes on."""

    def __init__(
        self, search: Search, model: Model, measure: Measure | None, bound_of: Callable[[float], float]
    ) -> None:
        super().__init__()
        self._search, self._model, self._measure, self._value_of = search, model, measure, bound_of
        self._last_s = float("-inf")

    def on_solution_callback(self) -> None:
        run = self._search.exchange
        if self._measure is not None:
            run.say("incumbent", self._measure, self._value_of(self.objective_value), "cpsat")
        if run.elapsed_s >= self._last_s + OFFER_S:
            self._search.offer(self._search.plan(self._model, self))
            self._last_s = run.elapsed_s
