"""Both variants of the grey wolf give plans that can be carried out and repeat themselves; ours is the better one."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from shops import problems, random_shop

from cloud.scheduling.front import non_dominated
from cloud.scheduling.gwo import GreyWolf
from cloud.scheduling.seam import Budget, Goal
from messages.judge import objective, violations
from messages.problem import Problem

Variant = Literal["paper", "shoal"]
VARIANTS: tuple[Variant, ...] = ("paper", "shoal")
FEW = Budget(seconds=600.0, evaluations=400, workers=1)
FRONT = Goal(("makespan", "energy"), front=True)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems())
def test_every_plan_can_be_carried_out_and_costs_what_is_said(variant: Variant, problem: Problem) -> None:
    for goal in (Goal(("tardiness", "cost")), FRONT):
        result = GreyWolf(variant=variant, wolves=10).solve(problem, goal=goal, budget=FEW, seed=3)
        assert result.plans or result.reason
        for plan in result.plans:
            assert violations(problem, plan) == []
            assert plan.objectives == pytest.approx(objective(problem, plan))


@pytest.mark.parametrize("seed", [8, 24, 26, 30])
def test_in_a_plain_shop_no_job_begins_before_its_release(seed: int) -> None:
    problem = random_shop(seed, jobs=4, machines=2, features={"tardiness", "operation_power"}, longest=5)
    assert any(job.release for job in problem.jobs)
    energetic = [Goal(order) for order in (("energy",), ("makespan", "energy"), ("tardiness", "energy"))]
    for goal in (*energetic, FRONT, Goal(("tardiness", "energy"), front=True)):
        for plan in GreyWolf().solve(problem, goal=goal, budget=FEW, seed=seed).plans:
            assert violations(problem, plan) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("goal", [Goal(("energy",)), FRONT])
def test_one_seed_gives_one_result(variant: Variant, goal: Goal) -> None:
    problem = random_shop(seed=5, jobs=6, machines=3)
    wolf = GreyWolf(variant=variant, wolves=10)
    one, *others = (wolf.solve(problem, goal=goal, budget=FEW, seed=7) for _ in range(10))
    for two in others:
        assert [plan.assignments for plan in one.plans] == [plan.assignments for plan in two.plans]
    assert len(non_dominated(one.plans, goal.order)) == len(one.plans) > 0


def test_with_equal_budgets_ours_is_better_than_the_paper_s() -> None:
    problem = random_shop(seed=8, jobs=20, machines=4, features={"operation_power"})
    budget = Budget(seconds=600.0, evaluations=20_000, workers=1)
    paper, ours = (GreyWolf(variant=one).solve(problem, budget=budget, seed=1) for one in VARIANTS)
    assert ours.objective["makespan"] < paper.objective["makespan"]


def test_a_given_plan_is_one_of_the_wolves() -> None:
    problem = random_shop(seed=10, jobs=12, machines=4, features={"operation_power"})
    good = GreyWolf().solve(problem, budget=Budget(600.0, evaluations=20_000), seed=1).plans[0]
    after = GreyWolf().solve(problem, budget=Budget(600.0, evaluations=60), seed=2, start=good)
    assert after.objective["makespan"] <= good.objectives["makespan"]
