"""Planning again: valid at once, history untouched, and what was released moves only where that pays."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from cloud.scheduling import Budget, Dispatch, Goal
from cloud.scheduling.replan import nervousness, replan, turns
from cloud.scheduling.shop import shop_of
from cloud.scheduling.whatif import Add, Down, Rush, apply, freeze
from messages.instances import load_problem
from messages.judge import objective, violations
from messages.plan import Plan
from messages.problem import Problem

GOAL = Goal(("makespan", "energy"))
COUNTED = Budget(600.0, evaluations=3_000, workers=1)


@pytest.fixture(scope="module")
def line() -> tuple[Problem, Plan]:
    problem = load_problem(Path(__file__).parent.parent / "examples" / "ceramic.json")
    return problem, Dispatch(rule="spt").solve(problem).plans[0]


def disturbed(problem: Problem, plan: Plan, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    now = int(rng.integers(1, int(plan.objectives["makespan"])))
    frozen = freeze(problem, plan, now)
    job = problem.jobs[int(rng.integers(len(problem.jobs)))]
    changes = (
        Down(problem.machines[int(rng.integers(len(problem.machines)))].id, now, now + int(rng.integers(1, 30))),
        Rush(job.id, now + 12),
        Add((job.model_copy(update={"id": "new", "release": now}),)),
    )
    return apply(frozen, changes[seed % 3])


@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_the_plan_holds_and_the_past_stays(line: tuple[Problem, Plan], seed: int) -> None:
    problem = disturbed(*line, seed)
    again = replan(problem, line[1], goal=GOAL, budget=COUNTED, seed=seed)
    assert violations(problem, again.plan) == []
    assert violations(problem, again.repaired) == []
    assert set(problem.history) <= set(again.plan.assignments)
    assert objective(problem, again.plan) == again.plan.objectives
    assert 0 <= again.moved <= 1


def test_the_repaired_plan_keeps_every_machine_that_still_can(line: tuple[Problem, Plan]) -> None:
    problem, plan = line
    again = replan(apply(freeze(problem, plan, 20), Down("firing-2", 20, 40)), plan, goal=GOAL, budget=COUNTED)
    on = {(one.job, one.op): one.machine for one in plan.assignments}
    new = [one for one in again.repaired.assignments if not one.interrupted]
    assert all(on[one.job, one.op] == one.machine for one in new)
    assert again.plan.objectives["makespan"] < again.repaired.objectives["makespan"]


def test_a_high_price_on_moving_keeps_everything_and_a_low_one_does_not(line: tuple[Problem, Plan]) -> None:
    problem, plan = line
    broken = apply(freeze(problem, plan, 20), Down("firing-2", 20, 40))
    calm = replan(broken, plan, goal=GOAL, budget=COUNTED, stay=100.0)
    free = replan(broken, plan, goal=GOAL, budget=COUNTED, stay=0.0)
    assert calm.moved == 0 < free.moved
    assert free.plan.objectives["makespan"] <= calm.plan.objectives["makespan"]


def test_one_seed_and_count_give_one_plan(line: tuple[Problem, Plan]) -> None:
    problem = disturbed(*line, 3)
    first, second = (replan(problem, line[1], goal=GOAL, budget=COUNTED, seed=5).plan for _ in range(2))
    assert first.assignments == second.assignments


def test_by_the_clock_it_ends_in_time(line: tuple[Problem, Plan]) -> None:
    problem = disturbed(*line, 6)
    replan(problem, line[1], goal=GOAL, budget=COUNTED)  # compiled by now
    began = time.monotonic()
    again = replan(problem, line[1], goal=GOAL, budget=Budget(0.5, workers=2))
    assert violations(problem, again.plan) == []
    assert time.monotonic() - began < 30  # a busy machine; benchmarks/schedule_replan.py measures


def test_nothing_left_to_plan_is_a_plan(line: tuple[Problem, Plan]) -> None:
    problem, plan = line
    over = freeze(problem, plan, int(plan.objectives["makespan"]) + 1)
    again = replan(over, plan, goal=GOAL, budget=COUNTED)
    assert violations(over, again.plan) == []
    assert (again.moved, again.shift) == (0.0, 0.0)


def test_nervousness_counts_only_what_was_released(line: tuple[Problem, Plan]) -> None:
    problem, plan = line
    frozen = freeze(problem, plan, 10)
    shop, names = shop_of(frozen)
    _, _, released = turns(shop, names, plan)
    assert nervousness(names, plan, released, plan) == (0.0, 0.0)
    later = plan.model_copy(
        update={
            "assignments": tuple(
                one.model_copy(update={"start": one.start + 2, "end": one.end + 2}) for one in plan.assignments
            )
        }
    )
    assert nervousness(names, plan, released, later) == (0.0, 2.0)
