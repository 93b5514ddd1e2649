"""Large shops: bounds that hold for every plan, first plans by rules and prices, and a search that improves on them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from shops import ALL, problems, random_shop

from cloud.scheduling import Budget, Dispatch, Exchange, Goal, Result
from cloud.scheduling.bounds import makespan_bound, priced, tardiness_bound
from cloud.scheduling.frame import frame_of
from cloud.scheduling.large import Large, first_plans, knows
from cloud.scheduling.largekernel import assigned, balanced, ends_of, roll
from cloud.scheduling.largeplan import BEST, COST, laid
from cloud.scheduling.largesearch import walk
from cloud.scheduling.shop import shop_of
from messages.judge import objective, violations
from messages.plan import Plan
from messages.problem import Job, Machine, Operation, Problem, Window

PLAIN = {"calendars", "breakdowns", "history", "transport", "wait_min", "lots", "tardiness"}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEW = Budget(evaluations=120, seconds=600, workers=2)


def sound(problem: Problem, result: Result) -> Plan:
    assert result.plans, result.reason
    plan = result.plans[0]
    assert violations(problem, plan) == []
    assert objective(problem, plan) == plan.objectives == result.objective
    return plan


def least(problem: Problem, measure: str) -> float:
    """The optimum, as CP-SAT proves it; it knows nothing of these bounds."""
    from cloud.scheduling import CpSat

    result = CpSat().solve(problem, goal=Goal((measure,)), budget=Budget(100, workers=2), seed=1)  # type: ignore[arg-type]
    assert result.status == "optimal", result.reason
    return result.plans[0].objectives[measure]


@QUICK
@given(problem=problems(features=PLAIN))
def test_plans_can_be_carried_out_and_none_is_below_its_bound(problem: Problem) -> None:
    for measure in ("makespan", "tardiness"):
        result = Large().solve(problem, goal=Goal((measure,)), budget=FEW, seed=1)  # type: ignore[arg-type]
        plan = sound(problem, result)
        assert result.bound is not None
        assert result.bound <= plan.objectives[measure]


@QUICK
@given(problem=problems(features=ALL))
def test_what_it_does_not_know_it_says(problem: Problem) -> None:
    shop, _ = shop_of(problem)
    result = Large().solve(problem, budget=Budget(evaluations=40), seed=1)
    if knows(shop):
        assert not result.plans
        assert "use the portfolio" in result.reason
    elif result.plans:
        sound(problem, result)


@settings(parent=QUICK, max_examples=40)
@given(problem=problems(features=ALL - {"curves", "generation"}))
def test_no_plan_of_any_problem_is_below_the_bounds(problem: Problem) -> None:
    """Also with set-ups, crews, batches and greatest waits, which bounds leave out."""
    frame = frame_of(shop_of(problem)[0])
    assert makespan_bound(frame).value <= least(problem, "makespan")
    if any(job.due is not None for job in problem.jobs):
        assert tardiness_bound(frame) <= least(problem, "tardiness")


def test_the_load_bound_counts_only_the_time_in_which_a_machine_can_work() -> None:
    """50 ticks of work from 6 on; on machine a none of it can end before it closes: (C - 20) + (C - 6) >= 50."""
    machines = (Machine(id="a", unavailable=(Window(start=10, end=20),)), Machine(id="b"))
    jobs = tuple(
        Job(id=str(j), release=6, operations=(Operation(op=0, alternatives={"a": 5, "b": 5}),)) for j in range(10)
    )
    bound = makespan_bound(frame_of(shop_of(Problem(machines=machines, jobs=jobs))[0]))
    assert bound.load == bound.value == 38


def test_a_machine_without_alternative_bounds_by_heads_and_tails() -> None:
    jobs = tuple(
        Job(
            id=str(j),
            release=2 * j,
            operations=(Operation(op=0, alternatives={"a": 4}), Operation(op=1, alternatives={"b": tail})),
        )
        for j, tail in enumerate((1, 9, 20))
    )
    bound = makespan_bound(frame_of(shop_of(Problem(machines=(Machine(id="a"), Machine(id="b")), jobs=jobs))[0]))
    assert (bound.jobs, bound.load, bound.alone, bound.value) == (28, 34, 35, 35)


def test_any_prices_give_a_valid_bound_and_better_ones_a_better() -> None:
    shop, _ = shop_of(random_shop(seed=3, jobs=60, machines=6, features=set()))
    frame = frame_of(shop)
    few, many = makespan_bound(frame, 1), makespan_bound(frame, 300)
    assert few.value <= many.value <= ends_of(frame, *first_plans(shop, frame, many, 1)[0])[0]
    assert many.prices.sum() == pytest.approx(1.0)
    even = np.full(6, 1 / 6)
    assert priced(frame, np.zeros(6), even, 200).shape == (6,)


@QUICK
@given(problem=problems(features=PLAIN))
def test_no_plan_is_worse_than_that_of_a_rule(problem: Problem) -> None:
    ours = Large().solve(problem, budget=Budget(evaluations=1, seconds=600), seed=1).objective["makespan"]
    for rule in ("fifo", "spt", "lpt", "mwkr", "lwkr"):
        assert ours <= Dispatch(rule=rule).solve(problem).objective["makespan"]  # type: ignore[arg-type]


def shop_with_speeds(jobs: int = 120, machines: int = 12, seed: int = 5) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem(
        machines=tuple(Machine(id=f"m{m}") for m in range(machines)),
        jobs=tuple(
            Job(
                id=str(j),
                due=int(rng.integers(100, 600)),
                operations=tuple(
                    Operation(
                        op=k,
                        alternatives={
                            f"m{m}": int(rng.integers(10, 100)) for m in rng.choice(machines, 3, replace=False).tolist()
                        },
                    )
                    for k in range(5)
                ),
            )
            for j in range(jobs)
        ),
    )


def test_most_of_what_rules_leave_to_the_bound_is_closed() -> None:
    problem = shop_with_speeds()
    rules = ("fifo", "spt", "lpt", "mwkr", "lwkr")
    rule = min(Dispatch(rule=one).solve(problem).plans[0].objectives["makespan"] for one in rules)  # type: ignore[arg-type]
    result = Large().solve(problem, budget=Budget(evaluations=1500, seconds=600), seed=1)
    plan = sound(problem, result)
    assert result.bound is not None
    assert (rule - plan.objectives["makespan"]) / (rule - result.bound) > 0.8


def test_tardiness_falls_below_that_of_rules() -> None:
    problem = shop_with_speeds(jobs=40)
    rule = min(Dispatch(rule=one).solve(problem).plans[0].objectives["tardiness"] for one in ("edd", "spt"))  # type: ignore[arg-type]
    goal = Goal(("tardiness",))
    first = sound(
        problem, Large().solve(problem, goal=goal, budget=Budget(evaluations=1, seconds=600, workers=1), seed=1)
    )
    later = sound(problem, Large().solve(problem, goal=goal, budget=Budget(evaluations=3000, seconds=600), seed=1))
    assert later.objectives["tardiness"] < 0.9 * first.objectives["tardiness"]
    assert first.objectives["tardiness"] <= rule


def test_one_seed_and_so_many_evaluations_give_one_plan() -> None:
    problem = shop_with_speeds(jobs=40)
    budget = Budget(evaluations=700, seconds=600, workers=2)
    one, same, other = (Large().solve(problem, budget=budget, seed=seed) for seed in (7, 7, 8))
    assert one.plans[0].assignments == same.plans[0].assignments
    assert one.plans[0].assignments != other.plans[0].assignments
    assert one.evaluations <= 700


def test_heads_of_the_search_are_those_of_a_plan_laid_out_anew() -> None:
    """After many moves what is known step by step agrees with the queues."""
    shop, _ = shop_of(shop_with_speeds(jobs=30))
    frame = frame_of(shop)
    alt, start = first_plans(shop, frame, makespan_bound(frame, 20), 1)[0]
    search = laid(frame, alt, start, tardy=False, seed=1)
    walk(frame, search, 300, 0)
    again = laid(frame, search.best_alt, search.best_start, tardy=False, seed=1)
    assert again.told[COST] == search.told[BEST] == ends_of(frame, search.best_alt, search.best_start)[0]
    assert np.array_equal(np.sort(search.order), np.arange(len(alt)))
    working = frame.alt_ticks[search.alt] > 0
    assert (search.length.sum() == working.sum()) and (search.place[working] >= 0).all()


def test_balancing_takes_work_off_machines_that_have_too_much() -> None:
    frame = frame_of(shop_of(shop_with_speeds())[0])
    bound = makespan_bound(frame)
    alt = assigned(frame, bound.prices)
    room = np.full(12, float(bound.value))

    def beyond(alt: np.ndarray) -> float:
        load = np.bincount(frame.alt_machine[alt], weights=frame.alt_ticks[alt], minlength=12)
        return float((np.maximum(load - room, 0) ** 2).sum())

    assert beyond(balanced(frame, alt, room, bound.prices, 100_000, 1)) < 0.3 * beyond(alt)


def test_dice_are_fair() -> None:
    dice = np.array([1], np.int64)
    seen = np.bincount([roll(dice, 5) for _ in range(5000)], minlength=5)
    assert len(seen) == 5
    assert abs(seen - 1000).max() < 150


def test_it_goes_on_with_the_plan_of_somebody_else_and_ends_when_told_to() -> None:
    problem = shop_with_speeds()
    good = Large().solve(problem, budget=Budget(evaluations=2000, seconds=600), seed=3).plans[0]
    stop = threading.Event()
    stop.set()
    run = Exchange(problem, Goal(), Budget(60), stop=stop)
    result = Large().solve(problem, exchange=run, start=good, seed=1)
    assert sound(problem, result).objectives["makespan"] <= good.objectives["makespan"]
    assert run.elapsed_s < 30


@pytest.mark.parametrize(
    ("goal", "word"),
    [
        (Goal(("energy",)), "makespan or tardiness"),
        (Goal(("makespan", "energy"), front=True), "front"),
        (Goal(limits={"energy": 3.0}), "limit of energy"),
    ],
)
def test_goals_it_does_not_know_are_refused_with_a_cure(goal: Goal, word: str) -> None:
    result = Large().solve(shop_with_speeds(jobs=2), goal=goal)
    assert not result.plans
    assert result.refused
    assert word in result.reason
    assert "use the portfolio" in result.reason


def test_nothing_to_do_is_an_optimal_plan() -> None:
    result = Large().solve(Problem(machines=(Machine(id="m"),)), budget=Budget(1))
    assert sound(Problem(machines=(Machine(id="m"),)), result).assignments == ()
    assert result.status == "optimal"
