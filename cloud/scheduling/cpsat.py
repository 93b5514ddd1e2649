"""CP-SAT: exact, time-boxed, interruptible. Proves makespan, energy and tardiness, one after the other.

    CpSat(workers=2).solve(problem, budget_s=10, goal=Goal(("makespan", "energy")))

A rule's plan (or `start`) is the first incumbent and the hint, so there is a plan whatever happens; setting `stop` or
Ctrl-C in the main thread ends the search with the best so far. `bound` is proved for the goal's first measure.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from ortools.sat.python import cp_model
from pydantic import Field

from cloud.scheduling.cpmodel import Model
from cloud.scheduling.dispatch import Rule, dispatched
from cloud.scheduling.seam import KEY, NEAR, Budget, Exchange, Goal, Result, Strategy, judged
from messages.errors import BrokenInvariant
from messages.judge import objective, violations
from messages.plan import Assignment, Plan
from messages.problem import Measure, Problem, open_jobs

NEAR_SHARE = 0.6
"""Share of a measure's time that is spent within a near horizon."""
STAGE_SHARE = 0.6
"""Share of the time left that a measure may use while others follow it."""
LEAST_SLICE_S = 0.05
FEW_OPERATIONS = 1_000
"""Up to this many operations every rule is tried for the first incumbent; beyond, only FIFO."""


class CpSat(Strategy):
    """Exact search with OR-Tools CP-SAT."""

    kind: Literal["cpsat"] = "cpsat"
    redundant: bool = Field(default=True, description="load and stage lines; off only to see what they are worth")

    def solve(
        self,
        problem: Problem,
        *,
        goal: Goal | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        start: Plan | None = None,
        exchange: Exchange | None = None,
    ) -> Result:
        """The best plan for `goal` within `budget`, and what was proved about it."""
        run = exchange or Exchange(problem, goal or Goal(), budget or Budget())
        return _Search(self, problem, run.goal, run, seed).run(start)


def plan_with_energy(
    problem: Problem,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    start: Plan | None = None,
    exchange: Exchange | None = None,
) -> Result:
    """Shortest makespan, and the least energy that keeps it: what the planner service asks for."""
    goal = Goal(("makespan", "energy"))
    return CpSat().solve(problem, goal=goal, budget=budget, seed=seed, start=start, exchange=exchange)


def patient_horizon(problem: Problem) -> int:
    """A tick by which some best plan ends, whatever the goal: beyond the last fixed event something always works
    or preheats, since a time when nothing does could be cut out."""
    fixed = [problem.start_floor, *(one.end for one in problem.history)]
    work = 0
    for machine in problem.machines:
        fixed += [window.end for window in machine.unavailable]
        fixed.append(machine.warm_from or 0)
    for job in open_jobs(problem):
        fixed.append(job.ready)
        for step in job.operations:
            work += max(ticks + problem.machine[name].preheat for name, ticks in step.alternatives.items())
    return max(fixed) + work


@dataclass
class _Search:
    """One run: stages in the order of the goal, each within what the earlier ones reached."""

    settings: CpSat
    problem: Problem
    goal: Goal
    exchange: Exchange
    seed: int
    best: Plan | None = None
    interrupted: bool = False

    def run(self, start: Plan | None) -> Result:
        self.sunk_kwh = objective(self.problem, judged(self.problem, (), solver="")).get("energy_kwh", 0.0)
        self.hint = self._first(start)
        if not open_jobs(self.problem):
            plan = judged(self.problem, (), solver="cpsat", status="optimal")
            return self._result(plan.model_copy(update={"bound": plan.objectives[KEY[self.goal.order[0]]]}))
        limits: dict[Measure, float] = dict(self.goal.limits)
        bound: float | None = None
        proved = True
        for position, measure in enumerate(self.goal.order):
            left = self.exchange.left_s
            if self.interrupted or left <= 0:
                proved = False
                break
            last = position == len(self.goal.order) - 1
            found = self._measure(measure, limits, left if last else left * STAGE_SHARE)
            if found == "infeasible" and position == 0:
                return Result(
                    status="infeasible",
                    runtime_s=self.exchange.elapsed_s,
                    history=tuple(self.exchange.events),
                    reason=self._why_infeasible(),
                )
            if position == 0:
                bound = None if isinstance(found, str) else found
            if self.best is None:
                proved = False
                break
            reached = self.best.objectives[KEY[measure]]
            proved = proved and not isinstance(found, str) and found >= reached - NEAR * max(1.0, reached)
            limits[measure] = min(reached, limits.get(measure, reached))
        if self.best is None:
            reason = f"no plan within the limits was found in {self.exchange.budget.seconds:g} s; allow more time"
            return Result((), {}, bound, "unknown", self.exchange.elapsed_s, tuple(self.exchange.events), reason=reason)
        status: Literal["optimal", "feasible"] = "optimal" if proved else "feasible"
        return self._result(self.best.model_copy(update={"bound": bound, "status": status}))

    def _result(self, plan: Plan) -> Result:
        took = self.exchange.elapsed_s
        plan = plan.model_copy(update={"runtime_s": round(took, 3), "bound_of": self.goal.order[0]})
        faults = violations(self.problem, plan)
        if faults:
            raise BrokenInvariant(f"cpsat made a plan that cannot be carried out: {faults[0]}")
        return Result((plan,), plan.objectives, plan.bound, plan.status, took, tuple(self.exchange.events))

    def _first(self, start: Plan | None) -> tuple[Assignment, ...]:
        """The first incumbent: `start` where it is a plan for this problem, or a rule's; its assignments hint."""
        small = len(self.problem.operation) <= FEW_OPERATIONS
        rules = [
            judged(self.problem, dispatched(self.problem, rule), solver=rule)
            for rule in (get_args(Rule) if small else ("fifo",))
        ]
        for plan in rules:
            self.offer(plan)
        hint = rules[0].assignments
        if start is not None:
            hint = start.assignments
            same = start.problem_sha256 in ("", self.problem.sha256)
            if same and not violations(self.problem, start):
                own = objective(self.problem, start)
                self.offer(start.model_copy(update={"objectives": own, "problem_sha256": self.problem.sha256}))
        self.reach = max(int(plan.objectives["makespan"]) for plan in (*rules, self.best or rules[0]))
        return hint if self.best is None else self.best.assignments

    def offer(self, plan: Plan) -> None:
        """Keep `plan` if it is within the limits and better in the order of the goal."""
        values = plan.objectives
        for measure, limit in self.goal.limits.items():
            if values[KEY[measure]] > limit + NEAR * max(1.0, abs(limit)):
                return
        if self.best is None or self._rank(values) < self._rank(self.best.objectives):
            self.best = plan
            self.exchange.offer(plan)

    def _rank(self, values: dict[str, float]) -> tuple[float, ...]:
        return tuple(round(values[KEY[measure]], 6) for measure in self.goal.order)

    def _measure(
        self, measure: Measure, limits: dict[Measure, float], budget_s: float
    ) -> float | Literal["infeasible", "unknown"]:
        """Minimise one measure within the shortest horizon that is enough, so that searching stays easy.

        Energy and tardiness alone have no natural end: a near horizon finds good plans, the far one proves them.
        """
        if "makespan" in limits:
            return self._stage(measure, limits, int(limits["makespan"]), budget_s)
        if measure == "makespan" and self.best is not None:
            return self._stage(measure, limits, int(self.best.objectives["makespan"]), budget_s)
        far = max(patient_horizon(self.problem), self.reach)
        near = self.reach + (self.reach - self.problem.start_floor)
        before_s = self.exchange.elapsed_s
        if near < far:
            self._stage(measure, limits, near, budget_s * NEAR_SHARE, proving=False)
            if self.interrupted or self.exchange.interrupted:
                return "unknown"
        return self._stage(measure, limits, far, budget_s - (self.exchange.elapsed_s - before_s))

    def _stage(
        self,
        measure: Measure,
        limits: dict[Measure, float],
        horizon: int,
        budget_s: float,
        *,
        proving: bool = True,
    ) -> float | Literal["infeasible", "unknown"]:
        """Minimise one measure; the proved bound in ticks or kWh, or why there is none."""
        model = Model(
            self.problem,
            horizon=horizon,
            energy="energy" in (measure, *limits),
            tardiness="tardiness" in (measure, *limits),
            redundant=self.settings.redundant,
        )
        for name, value in limits.items():
            model.limit(name, value - self.sunk_kwh if name == "energy" else value)
        for name, value in self.goal.floors.items():
            if name == measure:
                model.floor(name, value - self.sunk_kwh if name == "energy" else value)
        model.minimise(measure)
        model.hint(self.best.assignments if self.best is not None else self.hint)
        sunk = self.sunk_kwh if measure == "energy" else 0.0
        past = max((one.end for one in self.problem.history), default=0) if measure == "makespan" else 0
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = self.exchange.budget.workers
        solver.parameters.random_seed = self.seed % 2**31
        solver.parameters.max_time_in_seconds = max(LEAST_SLICE_S, budget_s)
        solver.parameters.catch_sigint_signal = threading.current_thread() is threading.main_thread()

        def bound_of(units: float) -> float:
            return max(past, model.natural(measure, units) + sunk)

        if proving:  # a bound within a near horizon is none for all plans
            solver.best_bound_callback = lambda units: self.exchange.say("bound", measure, bound_of(units), "cpsat")
        before_s = self.exchange.elapsed_s
        with _stopping(solver, self.exchange):
            status = solver.solve(model.cp, _Say(self.exchange, measure, bound_of))
        took_s = self.exchange.elapsed_s - before_s
        if status == cp_model.MODEL_INVALID:
            raise BrokenInvariant(f"cpsat refused its model: {model.cp.validate()[:300]}")
        if status in (cp_model.FEASIBLE, cp_model.UNKNOWN) and took_s < 0.9 * budget_s - LEAST_SLICE_S:
            self.interrupted = True  # Ctrl-C reached the solver, or it ended early by `stop`
        if status == cp_model.INFEASIBLE:
            return "infeasible"
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self.offer(judged(self.problem, model.assignments(solver), solver="cpsat"))
            return bound_of(solver.best_objective_bound)
        return "unknown"

    def _why_infeasible(self) -> str:
        if not self.goal.limits:
            return "no plan exists"
        limits = ", ".join(f"{name} <= {value:g}" for name, value in self.goal.limits.items())
        return f"proved: no plan keeps {limits}; relax a limit"


class _Say(cp_model.CpSolverSolutionCallback):
    """Tells of every better plan."""

    def __init__(self, run: Exchange, measure: Measure, value_of: object) -> None:
        super().__init__()
        self._run, self._measure, self._value_of = run, measure, value_of

    def on_solution_callback(self) -> None:
        value = self._value_of(self.objective_value)  # type: ignore[operator]
        self._run.say("incumbent", self._measure, value, "cpsat")


@contextmanager
def _stopping(solver: cp_model.CpSolver, run: Exchange) -> Iterator[None]:
    """While inside, an interruption ends the search; said again until it heard, as it may not have begun yet."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            if run.interrupted:
                solver.stop_search()

    watcher = threading.Thread(target=watch, name="stop-cpsat", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
