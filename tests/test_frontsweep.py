"""Fronts for which hours count: no single run for one of the measures is far better than all of the front."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import problems

from cloud.scheduling import KEY, Annealing, Budget, Goal, Portfolio
from cloud.scheduling.shifting import Shift
from messages.curve import Curve
from messages.instances import load_problem
from messages.judge import missing, objective, violations
from messages.plan import Measure
from messages.problem import Problem

CERAMIC = Path(__file__).parent.parent / "examples" / "ceramic.json"
PRICED: tuple[Measure, ...] = ("carbon", "cost", "ledger")
OTHERS: tuple[Measure, ...] = ("makespan", "tardiness", "energy", "peak", *PRICED)
MARGIN = 0.05
"""By how much a single run may be better, at most."""
COUNT, SINGLE = 20_000, 3_000
"""Evaluations of a whole front, and of each single run against it."""


def curved() -> Problem:
    """Nine batches of the ceramic line under a grid that is clean at noon and cheap at night."""
    line = load_problem(CERAMIC)
    clean = (0.30, 0.28, 0.24, 0.16, 0.10, 0.10, 0.16, 0.24, 0.30, 0.34, 0.34, 0.32)
    cheap = (0.08, 0.08, 0.10, 0.16, 0.20, 0.20, 0.18, 0.20, 0.28, 0.26, 0.14, 0.10)
    return line.model_copy(
        update={
            "jobs": line.jobs[:9],
            "horizon": 84,
            "carbon": {"electricity": Curve(step=4, values=clean), "gas": Curve(step=1, values=(0.2,))},
            "tariff": {"electricity": Curve(step=4, values=cheap), "gas": Curve(step=1, values=(0.05,))},
        }
    )


@pytest.mark.parametrize("measures", [("makespan", "energy", "carbon"), ("energy", "carbon", "cost")])
def test_no_single_run_is_better_in_every_measure_than_all_of_the_front_by_more_than_the_margin(
    measures: tuple[Measure, ...],
) -> None:
    problem = curved()
    goal = Goal(measures, front=True)
    found = Portfolio().solve(problem, goal=goal, budget=Budget(600, evaluations=COUNT, workers=1), seed=1)
    assert len(found.plans) >= 15
    assert (found.status, "none of them proved" in found.reason) == ("feasible", True)
    middle = found.plans[len(found.plans) // 2]
    limited: list[dict[Measure, float]] = [{}, {one: middle.objectives[KEY[one]] for one in measures[:1]}]
    rated = [one for one in measures if one != "makespan"]
    for first, limits in product(rated, limited):
        order = (first, *(one for one in measures if one != first))
        budget = Budget(600, evaluations=SINGLE)
        for single in Shift().solve(problem, goal=Goal(order, limits=limits), budget=budget, seed=2).plans:
            worse = [max(plan.objectives[KEY[k]] / single.objectives[KEY[k]] for k in measures) for plan in found.plans]
            assert min(worse) <= 1 + MARGIN, (first, limits)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(), priced=st.sampled_from(PRICED), other=st.sampled_from(OTHERS))
def test_any_problem_with_curves_gets_a_front_within_its_limits_in_which_no_plan_beats_another(
    problem: Problem, priced: Measure, other: Measure
) -> None:
    measures = (priced, other) if other != priced else (priced, "energy")
    if any(missing(problem, one) for one in measures):
        measures = ("makespan", "energy")
    goal = Goal(measures, front=True)
    result = Annealing().solve(problem, goal=goal, budget=Budget(600, evaluations=1_500), seed=1)
    assert result.plans or result.reason
    for plan in result.plans:
        assert violations(problem, plan) == []
        assert objective(problem, plan) == pytest.approx(plan.objectives)
        assert goal.within(problem, plan.objectives)
    rows = [[plan.objectives[KEY[one]] for one in measures] for plan in result.plans]
    for a in rows:
        assert not any(b is not a and all(x < y - 1e-6 for x, y in zip(b, a, strict=True)) for b in rows)


def test_one_seed_and_count_give_one_front() -> None:
    goal = Goal(("energy", "carbon", "cost"), front=True)
    first, second = (
        Portfolio().solve(curved(), goal=goal, budget=Budget(600, evaluations=3_000), seed=3).plans for _ in range(2)
    )
    assert [one.assignments for one in first] == [one.assignments for one in second]
