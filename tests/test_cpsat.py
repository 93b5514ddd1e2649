"""The exact model against every plan there is, on problems small enough to look at all of them."""

from __future__ import annotations

import threading
import time
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from shops import ALL, Impatience, problems, random_shop

from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.lns import Lns
from cloud.scheduling.seam import KEY, MEASURES, Budget, Exchange, Goal, judged
from messages.curve import Curve
from messages.instances import load_problem
from messages.judge import missing, objective, violations
from messages.openjobs import open_jobs
from messages.plan import Assignment, Measure, Plan
from messages.problem import Job, Machine, Operation, Power, Problem, Transport

CERAMIC = Path(__file__).parent.parent / "examples" / "ceramic.json"
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEATURES = sorted(ALL - {"tardiness", "curves", "history"})


def every_plan(problem: Problem, latest: int) -> list[Plan]:
    """Every choice of machine, start and off there is up to `latest`, the slow way."""
    jobs = open_jobs(problem)
    steps = [(job.ready, step) for job in jobs for step in job.operations]
    choices = [
        [(m, ticks, start) for m, ticks in step.alternatives.items() for start in range(ready, latest - ticks + 1)]
        for ready, step in steps
    ]
    keys = [(step.job, step.op) for _, step in steps]
    after = [(a, b) for a, b in pairwise(range(len(keys))) if keys[a][0] == keys[b][0]]
    family = [problem.operation[key].family for key in keys]
    found = []
    for chosen in product(*choices):
        if any(chosen[b][2] < chosen[a][2] + chosen[a][1] for a, b in after):
            continue
        made = []
        for key, kind, (m, ticks, start) in zip(keys, family, chosen, strict=True):
            if ticks and problem.machine[m].batch > 1:
                ticks = max(
                    t for (n, t, s), k in zip(chosen, family, strict=True) if t and (n, s, k) == (m, start, kind)
                )
            made.append(Assignment(job=key[0], op=key[1], machine=m, start=start, end=start + ticks))
        if max(one.end for one in made) > latest or violations(problem, judged(problem, made, solver="", off=())):
            continue
        for bits in range(2 ** len(keys)):
            plan = judged(problem, made, solver="", off={key for place, key in enumerate(keys) if bits >> place & 1})
            if not violations(problem, plan):
                found.append(plan)
    return found


def small_shops(features: set[str], count: int, room: int) -> list[Problem]:
    """Problems with two open operations, or one, by seed."""
    found, seed = list[Problem](), 0
    while len(found) < count:
        problem = random_shop(seed, 1 + seed % 2, 1 + seed // 2 % 2, features, operations=1 + seed // 4 % 2, longest=3)
        seed += 1
        if 1 <= sum(len(job.operations) for job in open_jobs(problem)) <= room:
            found.append(problem)
    return found


@pytest.mark.parametrize("feature", [*FEATURES, "all"])
def test_every_measure_is_proved_to_be_that_of_the_best_of_all_plans(feature: str) -> None:
    with_it = set(ALL) if feature == "all" else {feature, "tardiness", "curves", "history"}
    for problem in small_shops(with_it, 3 if feature == "all" else 2, 2):
        latest = max(problem.start_floor, *(job.ready for job in open_jobs(problem))) + 9
        plans = every_plan(problem, latest)
        for measure in MEASURES:
            if missing(problem, measure):
                continue
            goal = Goal((measure,), limits={"makespan": latest})
            result = CpSat().solve(problem, goal=goal, budget=Budget(20, workers=1), seed=1)
            if not plans:
                assert result.status == "infeasible", (problem.sha256, measure)
                continue
            best = min(plan.objectives[KEY[measure]] for plan in plans)
            assert result.plans, (measure, result.reason)
            assert violations(problem, result.plans[0]) == []
            assert objective(problem, result.plans[0]) == result.objective
            assert result.objective[KEY[measure]] == pytest.approx(best, rel=1e-6, abs=1e-6), measure
            assert result.bound is not None
            assert result.bound <= best + 1e-6 * max(1.0, abs(best)), measure
            assert result.status == "optimal", measure
            assert result.bound == pytest.approx(best, rel=1e-5, abs=1e-5), measure


@settings(QUICK, max_examples=8)  # each is half a second of search
@given(problem=problems())
def test_a_plan_of_any_problem_can_be_carried_out_or_there_is_a_reason(problem: Problem) -> None:
    measures: tuple[Measure, ...] = tuple(one for one in ("carbon", "energy") if not missing(problem, one))
    result = CpSat().solve(problem, goal=Goal(measures), budget=Budget(0.5, workers=1), seed=1)
    assert result.plans or result.reason
    for plan in result.plans:
        assert violations(problem, plan) == []
        assert objective(problem, plan) == plan.objectives
        assert result.bound is None or result.bound <= plan.objectives[KEY[measures[0]]] + 1e-5
    again = Lns(slice_s=0.1).solve(problem, goal=Goal(measures), budget=Budget(5, evaluations=500, workers=1), seed=1)
    assert again.plans or again.reason
    for plan in again.plans:
        assert violations(problem, plan) == []


STEP = (Operation(op=0, alternatives={"m": 4}),)
SUNNY = Problem(
    machines=(Machine(id="m", power_kw=Power(work=10)),),
    jobs=(Job(id="a", operations=STEP), Job(id="b", operations=STEP)),
    carbon={"electricity": Curve(step=4, values=(1.0, 0.5, 0.1, 0.5, 1.0))},
    tariff={"electricity": Curve(step=4, values=(0.1, 0.2, 0.5, 0.2, 0.1))},
    horizon=20,
    tick_s=3600,
)


def test_clean_hours_are_used_and_weights_choose_between_clean_and_early() -> None:
    clean = CpSat().solve(SUNNY, goal=Goal(("carbon",)), budget=Budget(5))
    assert clean.status == "optimal"
    assert clean.objective["carbon_kg"] == pytest.approx(24.0)
    weights: dict[Measure, float] = {"carbon": 1.0, "makespan": 100.0}
    early = CpSat().solve(SUNNY, goal=Goal(("carbon", "makespan"), weights=weights), budget=Budget(5))
    assert (early.objective["makespan"], early.status) == (8.0, "optimal")
    assert early.bound == pytest.approx(860.0)


def test_a_limit_that_cannot_be_kept_is_proved_and_says_by_how_much_and_what_would_do() -> None:
    ledger = Problem.model_validate({**SUNNY.model_dump(), "limits": {"ledger": 11.7}})
    never = CpSat().solve(ledger, goal=Goal(("cost",)), budget=Budget(10))
    assert never.status == "infeasible"
    assert "least ledger is 24 (proved): raise capture_kg by 12.3, or the horizon, or the limit" in never.reason
    enough = Problem.model_validate({**ledger.model_dump(), "capture_kg": 12.3})
    held = CpSat().solve(enough, goal=Goal(("cost",)), budget=Budget(10))
    assert held.status == "optimal"
    assert held.objective["ledger_kg"] <= 11.7 + 1e-6
    peak = CpSat().solve(SUNNY, goal=Goal(("makespan",), limits={"peak": 8.0}), budget=Budget(10))
    assert "least peak is 10 (proved): raise the limit by 2" in peak.reason


def test_what_a_problem_does_not_say_is_a_reason() -> None:
    plain = Problem(machines=(Machine(id="m"),), jobs=(Job(id="a", operations=STEP),))
    for solver in (CpSat(), Lns()):
        assert "add `tariff`" in solver.solve(plain, goal=Goal(("cost",)), budget=Budget(1)).reason


def test_a_measure_too_large_for_the_grid_is_refused_with_the_bound() -> None:
    jobs = [Job(id=str(j), operations=(Operation(op=0, alternatives={"m": 7}),)) for j in range(40)]
    sun = Curve(step=1, values=(1.0, 0.5) * 50_000)
    document = {**SUNNY.model_dump(), "jobs": jobs, "horizon": 100_000, "carbon": {"electricity": sun}}
    long = Problem.model_validate(document | {"tariff": {}})
    result = CpSat().solve(long, goal=Goal(("carbon",), limits={"makespan": 90_000}), budget=Budget(60))
    assert "at most 400000" in result.reason
    assert result.bound is None


def test_slices_take_over_what_others_found_and_stop_when_it_is_over() -> None:
    problem = load_problem(CERAMIC)
    run = Exchange(problem, Goal(("energy",), limits={"makespan": 60}), Budget(60, workers=1))
    run.offer(Dispatch(rule="spt").solve(problem).plans[0])
    given = Lns().solve(problem, goal=run.goal, budget=Budget(600, evaluations=1_000), seed=1).plans[0]
    done = threading.Event()

    def search() -> None:
        CpSat(slice_s=0.3).solve(problem, exchange=run, seed=1)
        done.set()

    thread = threading.Thread(target=search)
    thread.start()
    run.offer(given)
    assert not done.wait(1.0)
    run.finish()
    assert done.wait(60)
    thread.join()
    assert run.best is not None
    assert run.best.objectives["energy_kwh"] <= given.objectives["energy_kwh"]


def test_over_is_obeyed_while_a_search_runs() -> None:
    problem = load_problem(CERAMIC)
    run = Exchange(problem, Goal(("energy",)), Budget(60, workers=1))
    ends: list[float] = []

    def search() -> None:
        CpSat().solve(problem, exchange=run, seed=1)
        ends.append(time.monotonic())

    thread = threading.Thread(target=search)
    thread.start()
    run.wait(1.0)
    run.finish()
    told = time.monotonic()
    thread.join(40)
    assert ends
    assert ends[0] - told < 20  # a tenth of a second alone; the machine may be shared


def test_a_neighbourhood_search_improves_on_a_rule_and_one_seed_gives_one_result() -> None:
    problem = load_problem(CERAMIC)
    rule = Dispatch(rule="spt").solve(problem).plans[0]
    goal = Goal(("energy",), limits={"makespan": 66})
    first, again = (
        Lns().solve(problem, goal=goal, budget=Budget(600, evaluations=4_000), seed=3, start=rule) for _ in range(2)
    )
    assert first.objective["energy_kwh"] < 0.95 * rule.objectives["energy_kwh"]
    assert first.plans[0].assignments == again.plans[0].assignments
    assert violations(problem, first.plans[0]) == []


def test_neighbourhoods_shift_work_into_clean_hours_with_set_ups_batches_and_carrying() -> None:
    machines = (
        Machine(
            id="oven",
            preheat=1,
            batch=2,
            power_kw=Power(work=20, idle=4, preheat=6, setup=2),
            setup={"red": {"blue": 1}, "blue": {"red": 1}},
        ),
        Machine(id="press", power_kw=Power(work=5)),
    )
    jobs = tuple(
        Job(
            id=str(j),
            operations=(
                Operation(op=0, alternatives={"press": 2}),
                Operation(op=1, alternatives={"oven": 3}, family="red" if j % 2 else "blue"),
            ),
        )
        for j in range(6)
    )
    problem = Problem(
        machines=machines,
        jobs=jobs,
        transport=Transport(ticks={"press": {"oven": 1}}, power_kw=1.0),
        carbon={"electricity": Curve(step=6, values=(1.0, 0.8, 0.3, 0.1, 0.1, 0.5))},
        horizon=36,
        tick_s=3600,
    )
    rule = Dispatch().solve(problem).plans[0]
    result = Lns().solve(problem, goal=Goal(("carbon",)), budget=Budget(600, evaluations=4_000), seed=1, start=rule)
    assert violations(problem, result.plans[0]) == []
    assert result.objective["carbon_kg"] < 0.6 * rule.objectives["carbon_kg"]


def changed(problem: Problem, **fields: object) -> Problem:
    """The problem with other fields, made anew: a copy would keep what was looked up before."""
    return Problem.model_validate({**problem.model_dump(exclude={"schema_"}), **fields})


COLD = Problem(
    machines=(Machine(id="m", preheat=20, power_kw=Power(work=1, idle=10, preheat=1000)),),
    jobs=(
        Job(id="a", due=2, operations=(Operation(op=0, alternatives={"m": 2}),)),
        Job(id="b", release=10, operations=(Operation(op=0, alternatives={"m": 2}),)),
    ),
    tick_s=3600,
)
"""All times even; each tick that `a` is later saves a tick of idling."""


def test_a_limit_off_the_grid_of_all_durations_is_used_to_the_last_tick() -> None:
    for problem, limits in ((COLD, {"tardiness": 3}), (changed(COLD, limits={"tardiness": 3.5}), {})):
        result = CpSat().solve(problem, goal=Goal(("energy",), limits=limits), budget=Budget(10))
        assert (result.status, result.objective["energy_kwh"], result.bound) == ("optimal", 20054.0, 20054.0)


def test_two_late_orders_share_a_limit_off_the_grid_and_later_measures_keep_the_exact_rule() -> None:
    late = [job.model_copy(update={"due": due}) for job, due in zip(COLD.jobs, (0, 10), strict=True)]
    both = changed(COLD, jobs=tuple(late))
    result = CpSat().solve(both, goal=Goal(("energy",), limits={"tardiness": 7}), budget=Budget(10))
    assert (result.status, result.objective["energy_kwh"]) == ("optimal", 20054.0)
    goal = Goal(("makespan", "tardiness"), limits={"energy": 20059.0})
    second = CpSat().solve(both, goal=goal, budget=Budget(10))
    assert (second.status, second.objective["tardiness"]) == ("optimal", 7.0)


def test_a_neighbourhood_search_ends_when_its_evaluations_or_its_seconds_are_spent_whichever_is_first() -> None:
    problem = load_problem(CERAMIC)
    rule = Dispatch(rule="spt").solve(problem).plans[0]
    for budget, most_s in ((Budget(600, evaluations=1_500), 50.0), (Budget(0.5, evaluations=10**9), 40.0)):
        began = time.monotonic()
        result = Lns().solve(problem, goal=Goal(("energy",)), budget=budget, seed=1, start=rule)
        assert time.monotonic() - began < most_s
        assert 0 < result.evaluations < 50_000


def test_where_prices_are_below_zero_nothing_is_proved_without_a_latest_end() -> None:
    tariff = {"electricity": Curve(step=40, values=(-0.1,))}
    machine = Machine(id="m", power_kw=Power(work=10, idle=1))
    paid = changed(SUNNY, machines=(machine,), tariff=tariff, carbon={}, horizon=None)
    goal = Goal(("cost",))
    endless = CpSat().solve(paid, goal=goal, budget=Budget(10, workers=1))
    assert (endless.status, endless.bound) == ("feasible", None)
    assert "horizon" in endless.reason
    ended = CpSat().solve(changed(paid, horizon=40), goal=goal, budget=Budget(10, workers=1))
    assert ended.status == "optimal"
    assert ended.objective["cost"] == pytest.approx(-8 - 3.2)  # idle from the first work to the last
    within = CpSat().solve(paid, goal=Goal(("cost",), limits={"makespan": 20}), budget=Budget(10, workers=1))
    assert (within.status, within.objective["cost"]) == ("optimal", pytest.approx(-8 - 1.2))


@pytest.mark.parametrize("looks", [12, 50, 100])
def test_a_model_that_is_not_made_in_time_is_given_up_and_the_best_plan_so_far_is_there(looks: int) -> None:
    problem, goal, budget = load_problem(CERAMIC), Goal(("peak",)), Budget(100)
    exchange = Exchange(problem, goal, budget, stop=Impatience(looks))
    began = time.monotonic()
    result = CpSat().solve(problem, goal=goal, budget=budget, seed=1, exchange=exchange)
    assert time.monotonic() - began < 50  # half the budget, though nothing else could end the search
    assert "time was over" in result.reason
    assert violations(problem, result.plans[0]) == []
