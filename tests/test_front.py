"""Fronts: what others found is taken over, own points are told at once, and what is said to be complete is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.scheduling.front import front, non_dominated
from cloud.scheduling.seam import KEY, Budget, Exchange, Goal
from messages.curve import Curve
from messages.instances import load_problem
from messages.judge import violations
from messages.plan import Measure
from messages.problem import Job, Machine, Operation, Power, Problem

CERAMIC = Path(__file__).parent.parent / "examples" / "ceramic.json"
STEP = (Operation(op=0, alternatives={"m": 2, "n": 3}),)
SITE = Problem(
    machines=(
        Machine(id="m", preheat=1, power_kw=Power(work=9, idle=2, preheat=4)),
        Machine(id="n", power_kw=Power(work=4, idle=1)),
    ),
    jobs=tuple(Job(id=one, operations=STEP, due=3) for one in "abc"),
    carbon={"electricity": Curve(step=3, values=(1.0, 0.6, 0.2, 0.1))},
    horizon=12,
    tick_s=3600,
)


@pytest.mark.parametrize("measures", [("makespan", "carbon"), ("tardiness", "energy"), ("makespan", "peak")])
def test_a_front_that_is_called_optimal_has_the_best_plan_under_every_limit(measures: tuple[Measure, ...]) -> None:
    from cloud.scheduling.cpsat import CpSat

    found = front(SITE, measures=measures, budget=Budget(30, workers=2), seed=1)
    assert found.status == "optimal", found.reason
    first, second = measures
    values = [(one.objectives[KEY[first]], one.objectives[KEY[second]]) for one in found.plans]
    for limit in range(13):
        result = CpSat().solve(SITE, goal=Goal((second,), limits={first: limit}), budget=Budget(10))
        able = [y for x, y in values if x <= limit]
        assert (result.status == "optimal") == bool(able)
        if able:
            assert result.objective[KEY[second]] == pytest.approx(min(able))
    for plan in found.plans:
        assert violations(SITE, plan) == []


def test_what_others_put_on_the_exchange_is_taken_over_and_own_points_are_there_at_once() -> None:
    measures: tuple[Measure, ...] = ("makespan", "energy")
    whole = front(SITE, measures=measures, budget=Budget(30), seed=1)
    run = Exchange(SITE, Goal(measures, front=True), Budget(0.0))  # no time for a search of its own
    for plan in whole.plans:
        run.offer(plan.model_copy(update={"ideal": None, "nadir": None}))
    given = front(SITE, measures=measures, exchange=run)
    assert [one.objectives for one in given.plans] == [one.objectives for one in whole.plans]
    told = Exchange(SITE, Goal(measures, front=True), Budget(30))
    own = front(SITE, measures=measures, exchange=told, seed=1)
    assert non_dominated(told.front, measures) == told.front
    assert [one.objectives for one in told.front] == [one.objectives for one in own.plans]
    assert told.over  # it is proved: nobody else needs to go on


def test_three_measures_are_the_fronts_of_all_pairs_and_never_called_complete() -> None:
    found = front(SITE, measures=("makespan", "energy", "carbon"), budget=Budget(20), seed=1)
    assert found.status == "feasible"
    assert len(found.plans) >= 2


def test_a_measure_the_problem_does_not_know_is_a_reason() -> None:
    problem = load_problem(CERAMIC)
    assert "add `carbon`" in front(problem, measures=("makespan", "carbon"), budget=Budget(1)).reason


def test_points_between_the_steps_of_the_grid_are_found_or_the_front_is_not_called_complete() -> None:
    machine = Machine(id="m", preheat=20, power_kw=Power(work=1, idle=10, preheat=1000))
    step = (Operation(op=0, alternatives={"m": 2}),)
    jobs = (Job(id="a", due=2, operations=step), Job(id="b", release=10, operations=step))
    even = Problem(machines=(machine,), jobs=jobs, tick_s=3600)
    found = front(even, measures=("tardiness", "energy"), budget=Budget(20, workers=1), seed=1)
    values = [(one.objectives["tardiness"], one.objectives["energy_kwh"]) for one in found.plans]
    assert (found.status, values) == ("optimal", [(float(late), 20084.0 - 10 * late) for late in range(9)])


def test_limits_of_the_exchange_hold_at_every_point_and_none_within_them_is_said_to_be_infeasible() -> None:
    measures: tuple[Measure, ...] = ("makespan", "energy")
    for late in (3, 8):
        goal = Goal(measures, limits={"tardiness": late}, front=True)
        found = front(SITE, measures=measures, exchange=Exchange(SITE, goal, Budget(20)), seed=1)
        asked = SITE.model_copy(update={"limits": {"tardiness": late}})
        same = front(asked, measures=measures, budget=Budget(20), seed=1)
        assert found.status == same.status == "optimal", found.reason
        assert [one.objectives["energy_kwh"] for one in found.plans] == pytest.approx(
            [one.objectives["energy_kwh"] for one in same.plans]
        )
    never = Exchange(SITE, Goal(measures, limits={"energy": 1.0}, front=True), Budget(20))
    result = front(SITE, measures=measures, exchange=never, seed=1)
    assert (result.status, result.plans) == ("infeasible", ())
    assert "energy" in result.reason
