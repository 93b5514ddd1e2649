"""The portfolio: on whatever problem and goal it gives a plan that can be carried out, or says why there is none."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import problems

from cloud.scheduling import KEY, Budget, CpSat, Exchange, Goal, Portfolio
from cloud.scheduling.cast import Part
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.portfolio import _lane, _Told
from cloud.scheduling.seam import Result, Strategy
from messages.instances import load_problem
from messages.judge import missing, objective, violations
from messages.plan import Measure, Plan
from messages.problem import Job, Machine, Operation, Problem

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
MEASURES: tuple[Measure, ...] = ("makespan", "tardiness", "energy", "carbon", "cost", "peak", "ledger")
CERAMIC = Path(__file__).parent.parent / "examples" / "ceramic.json"


def sound(problem: Problem, plans: tuple[Plan, ...]) -> None:
    for plan in plans:
        assert violations(problem, plan) == []
        assert objective(problem, plan) == pytest.approx(plan.objectives)


@QUICK
@given(problem=problems(), measures=st.lists(st.sampled_from(MEASURES), min_size=1, max_size=2, unique=True))
def test_any_problem_gets_a_plan_or_a_reason(problem: Problem, measures: list[Measure]) -> None:
    goal = Goal(tuple(one for one in measures if not missing(problem, one)) or ("makespan",))
    result = Portfolio().solve(problem, goal=goal, budget=Budget(0.3, workers=2), seed=1)
    sound(problem, result.plans)
    assert result.plans or result.reason
    if result.plans and result.bound is not None:
        assert result.bound <= result.objective[KEY[goal.order[0]]] + 1e-6


@QUICK
@given(problem=problems())
def test_any_problem_gets_a_front_in_which_no_plan_beats_another(problem: Problem) -> None:
    goal = Goal(("makespan", "energy"), front=True)
    result = Portfolio().solve(problem, goal=goal, budget=Budget(0.3, workers=2), seed=1)
    sound(problem, result.plans)
    assert result.plans or result.reason
    points = [(one.objectives["makespan"], one.objectives["energy_kwh"]) for one in result.plans]
    assert points == sorted(points)
    assert all(a[1] > b[1] - 1e-9 for a, b in pairwise(points))


def test_the_ceramic_line_is_proved_in_time_with_two_threads() -> None:
    problem = load_problem(CERAMIC)
    result = Portfolio().solve(problem, goal=Goal(), budget=Budget(100, workers=2), seed=1)
    sound(problem, result.plans)
    assert (result.status, result.bound, problem.in_unit(result.objective["makespan"])) == ("optimal", 54, 27)
    assert result.runtime_s < 90  # it ends with the proof, not with the budget


def test_one_seed_and_count_give_one_plan() -> None:
    problem = load_problem(CERAMIC)
    budget = Budget(600, evaluations=2_000, workers=2)
    first, second = (Portfolio().solve(problem, goal=Goal(), budget=budget, seed=3).plans[0] for _ in range(2))
    assert first.assignments == second.assignments


def test_stopping_ends_every_lane_with_the_best_so_far() -> None:
    problem, stop = load_problem(CERAMIC), threading.Event()
    run = Exchange(problem, Goal(("makespan", "energy")), Budget(60), stop=stop)
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    result = Portfolio().solve(problem, exchange=run)
    sound(problem, result.plans)
    assert result.plans and time.monotonic() - began < 40


def test_limits_that_no_plan_keeps_are_said_to_be_infeasible() -> None:
    problem = load_problem(CERAMIC)
    goal = Goal(("energy",), limits={"makespan": 50})
    result = Portfolio().solve(problem, goal=goal, budget=Budget(60), seed=1)
    assert not result.plans and "makespan" in result.reason


def test_a_plan_that_cannot_be_carried_out_never_becomes_the_best() -> None:
    problem = load_problem(CERAMIC)
    right = CpSat().solve(problem, budget=Budget(3), seed=1).plans[0]
    early = tuple(one.model_copy(update={"start": 0, "end": one.end - one.start}) for one in right.assignments)
    wrong = right.model_copy(update={"assignments": early, "solver": "dreamer", "objectives": {**right.objectives}})
    wrong = wrong.model_copy(update={"objectives": {**right.objectives, "makespan": 1.0}})
    run = Exchange(problem, Goal(), Budget(1))
    assert not run.offer(wrong) and run.best is None and "dreamer" in run.faults
    assert run.offer(right) and run.best is right


def test_a_start_is_never_lost() -> None:
    problem = load_problem(CERAMIC)
    start = CpSat().solve(problem, budget=Budget(5), seed=1).plans[0]
    result = Portfolio().solve(problem, budget=Budget(0.05), start=start)
    assert result.objective["makespan"] <= start.objectives["makespan"]


def test_no_orders_are_an_empty_plan() -> None:
    problem = Problem(machines=(Machine(id="m"),))
    assert Portfolio().solve(problem).status == "optimal"
    one = Problem(
        machines=(Machine(id="m"),), jobs=(Job(id="1", operations=(Operation(op=0, alternatives={"m": 0}),)),)
    )
    assert Portfolio().solve(one, budget=Budget(1)).objective["makespan"] == 0


class _Denies(Strategy):
    """A solver that is wrong."""

    kind: Literal["denies"] = "denies"

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        return Result((), {}, None, "infeasible", 0.0, (), "there is none")


def test_a_solver_that_finds_no_plan_where_there_is_one_ends_nobody_elses_search() -> None:
    problem = load_problem(CERAMIC)
    run, told = Exchange(problem, Goal(), Budget(30)), _Told()
    _lane(problem, run, [Part(Dispatch(rule="fifo")), Part(_Denies()), Part(Dispatch(rule="spt"))], 1, told)
    assert [one.status for one in told.results] == ["feasible", "infeasible", "feasible"]
    assert not run.over
