"""Annealing gives plans that can be carried out, keeps limits, repeats itself, and becomes better with more budget."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from shops import problems, random_shop

from cloud.scheduling.annealing import Annealing, Mode
from cloud.scheduling.front import non_dominated
from cloud.scheduling.seam import KEY, Budget, Exchange, Goal
from messages.judge import objective, violations
from messages.problem import Problem

FEW = Budget(seconds=600.0, evaluations=400, workers=1)
FRONT = Goal(("makespan", "energy"), front=True)
PLAIN = (
    Goal(("energy",)),
    Goal(("makespan", "energy")),
    Goal(("tardiness", "energy")),
    FRONT,
    Goal(("tardiness", "energy"), front=True),
)
"""Goals with energy, for shops in which operations are moved right."""


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems())
def test_every_plan_can_be_carried_out_and_costs_what_is_said(problem: Problem) -> None:
    for goal in (Goal(("carbon", "makespan")), Goal(("makespan", "energy", "peak"), front=True)):
        result = Annealing(replicas=4).solve(problem, goal=goal, budget=FEW, seed=3)
        assert result.plans or result.reason
        for plan in result.plans:
            assert violations(problem, plan) == []
            assert plan.objectives == pytest.approx(objective(problem, plan))


@pytest.mark.parametrize("seed", [8, 24, 26, 30])
def test_in_a_plain_shop_no_job_begins_before_its_release(seed: int) -> None:
    problem = random_shop(seed, jobs=4, machines=2, features={"tardiness", "operation_power"}, longest=5)
    assert any(job.release for job in problem.jobs)
    for goal in PLAIN:
        for plan in Annealing().solve(problem, goal=goal, budget=FEW, seed=seed).plans:
            assert violations(problem, plan) == []


def test_no_plan_of_a_front_ends_after_the_horizon() -> None:
    problem = random_shop(seed=6, jobs=6, machines=3, features={"transport", "operation_power"})
    least = Annealing().solve(problem, budget=FEW, seed=1).objective["makespan"]
    short = problem.model_copy(update={"horizon": int(least * 0.7)})
    result = Annealing().solve(short, goal=FRONT, budget=FEW, seed=1)
    assert [violations(short, plan) for plan in result.plans] == []
    assert "horizon" in result.reason


@pytest.mark.parametrize("seed", [6, 42, 44])
def test_nothing_is_offered_that_forgets_a_set_up_across_a_breakdown(seed: int) -> None:
    problem = random_shop(seed, jobs=6, machines=3, features={"setup", "breakdowns", "calendars"}, longest=8)
    run = Exchange(problem, FRONT, Budget(600, evaluations=6_000, workers=1))
    assert Annealing().solve(problem, seed=seed, exchange=run).plans
    assert run.faults == {}


@pytest.mark.parametrize("mode", get_args(Mode))
def test_one_seed_gives_one_result(mode: Mode) -> None:
    problem = random_shop(seed=5, jobs=6, machines=3)
    one, two = (Annealing(mode=mode).solve(problem, goal=Goal(("energy",)), budget=FEW, seed=7) for _ in range(2))
    assert one.plans[0].assignments == two.plans[0].assignments
    assert one.evaluations == two.evaluations


def test_a_front_of_one_seed_is_one_front_and_no_plan_of_it_is_beaten() -> None:
    problem = random_shop(seed=6, jobs=6, machines=3, features={"transport", "operation_power"})
    one, two = (Annealing().solve(problem, goal=FRONT, budget=FEW, seed=7) for _ in range(2))
    assert [plan.objectives for plan in one.plans] == [plan.objectives for plan in two.plans]
    assert len(one.plans) > 1
    assert len(non_dominated(one.plans, FRONT.order)) == len(one.plans)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_more_steps_are_better(mode: Mode) -> None:
    problem = random_shop(seed=8, jobs=15, machines=4, features={"operation_power"})
    values = [
        Annealing(mode=mode)
        .solve(problem, budget=Budget(seconds=600.0, evaluations=most, workers=1), seed=1)
        .objective["makespan"]
        for most in (16, 30_000)
    ]
    assert values[1] < values[0]


def test_limits_are_kept_or_it_is_said_that_no_plan_was_found() -> None:
    problem = random_shop(seed=9, jobs=6, machines=3, features={"tardiness", "operation_power"})
    free = Annealing().solve(problem, goal=Goal(("energy",)), budget=FEW, seed=1).objective
    fast = Annealing().solve(problem, goal=Goal(("makespan",)), budget=FEW, seed=1).objective
    limit = (free["makespan"] + fast["makespan"]) // 2
    goal = Goal(("energy",), limits={"makespan": limit})
    within = Annealing().solve(problem, goal=goal, budget=Budget(600.0, evaluations=4_000), seed=1)
    assert within.objective["makespan"] <= limit
    never = Annealing().solve(problem, goal=Goal(("energy",), limits={"makespan": 1}), budget=FEW, seed=1)
    assert not never.plans
    assert "limits" in never.reason


def test_it_goes_on_with_a_plan_it_is_given_and_says_what_it_finds() -> None:
    problem = random_shop(seed=10, jobs=12, machines=4, features={"operation_power"})
    goal = Goal(("makespan",))
    good = Annealing().solve(problem, goal=goal, budget=Budget(600.0, evaluations=40_000), seed=1).plans[0]
    run = Exchange(problem, goal, Budget(600.0, evaluations=16))
    after = Annealing().solve(problem, seed=2, start=good, exchange=run)
    assert after.objective["makespan"] <= good.objectives["makespan"]
    assert run.best is not None
    assert run.best.objectives[KEY["makespan"]] == after.objective["makespan"]
