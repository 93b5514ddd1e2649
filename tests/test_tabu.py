"""Tabu search: its plans can be carried out, it counts as the judge counts, and it knows what it does not know."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from shops import problems, random_shop

from cloud.scheduling import Solver
from cloud.scheduling import tabu as tabu_module
from cloud.scheduling.annealing import Annealing
from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.gwo import GreyWolf
from cloud.scheduling.large import Large
from cloud.scheduling.portfolio import Portfolio
from cloud.scheduling.seam import KEY, Budget, Exchange, Goal, Result, judged
from cloud.scheduling.shifting import Shift
from cloud.scheduling.shop import FAR, draft_of, plan_of, shop_of
from cloud.scheduling.tabu import Tabu, knows
from messages.judge import objective, violations
from messages.plan import Assignment, Measure, Plan
from messages.problem import Job, Machine, Operation, Power, Problem, Window

KNOWN = frozenset({"history", "transport", "setup", "wait_min", "curves", "lots", "tardiness", "operation_power"})
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SHORT = Budget(600, evaluations=300)


def sound(problem: Problem, result: Result) -> Plan:
    assert result.plans, result.reason
    plan = result.plans[0]
    assert violations(problem, plan) == []
    assert objective(problem, plan) == plan.objectives
    assert result.bound is not None and result.bound <= plan.objectives["makespan"]
    return plan


@FEW
@given(problem=problems(features=KNOWN))
def test_a_plan_can_be_carried_out_and_is_never_worse_than_a_start(problem: Problem) -> None:
    assert knows(shop_of(problem)[0]) == ""
    start = Dispatch(rule="lpt").solve(problem).plans
    result = Tabu().solve(problem, budget=SHORT, seed=1, start=start[0] if start else None)
    plan = sound(problem, result)
    if start and violations(problem, start[0]) == []:
        assert plan.objectives["makespan"] <= start[0].objectives["makespan"]


@FEW
@given(problem=problems(features=KNOWN, most_jobs=4))
def test_every_plan_on_the_way_lasts_as_long_as_the_judge_says(problem: Problem) -> None:
    shop, names = shop_of(problem)
    tabu = Tabu(patience=20)
    state = tabu.begin(shop, seed=3)
    for _ in range(30 if shop.operations else 0):
        tabu.step(state, 1)
        plan = plan_of(problem, shop, names, state.draft(), solver="tabu")
        assert violations(problem, plan) == []
        assert plan.objectives["makespan"] == state.value


def test_a_long_walk_through_large_shops_stays_exact() -> None:
    for seed, features in enumerate((frozenset(), KNOWN, frozenset({"setup"}), frozenset({"transport", "wait_min"}))):
        problem = random_shop(seed=seed, jobs=30, machines=6, features=features, operations=6)
        shop, names = shop_of(problem)
        tabu = Tabu(patience=100)
        state = tabu.begin(shop, seed=seed)
        for _ in range(20):
            tabu.step(state, 77)
            assert state.run is not None or state.best is not None
            plan = plan_of(problem, shop, names, state.draft(), solver="tabu")
            assert violations(problem, plan) == []
            assert plan.objectives["makespan"] == state.value


@pytest.mark.parametrize("features", [frozenset(), frozenset({"transport", "wait_min", "history"})])
def test_a_move_comes_to_what_was_foreseen(features: frozenset[str]) -> None:
    problem = random_shop(seed=3, jobs=20, machines=5, features=features, operations=6)
    tabu = Tabu(patience=50)
    state = tabu.begin(shop_of(problem)[0], seed=1)
    seen = 0
    for _ in range(500):
        state.line.moved[:] = -1
        tabu.step(state, 1)
        o, foreseen = state.line.moved.tolist()
        if o >= 0:
            i = state.line.place[o]
            assert state.line.end[i] - state.line.ticks[i] + state.line.due[i] == foreseen
            seen += 1
    assert seen > 400


@FEW
@given(problem=problems(features=KNOWN, most_jobs=4))
def test_tardiness_is_counted_as_the_judge_counts_it(problem: Problem) -> None:
    goal = Goal(("tardiness",))
    result = Tabu(patience=20).solve(problem, goal=goal, budget=Budget(600, evaluations=40), seed=1)
    plan = result.plans[0]
    assert violations(problem, plan) == []
    assert result.bound is not None and result.bound <= plan.objectives["tardiness"]
    shop, names = shop_of(problem)
    state = Tabu(patience=20).begin(shop, seed=2, tardiness=True)
    for _ in range(10 if shop.operations else 0):
        Tabu(patience=20).step(state, 3)
        plan = plan_of(problem, shop, names, state.draft(), solver="tabu")
        assert plan.objectives["tardiness"] == state.value


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_least_tardiness_of_small_shops(seed: int) -> None:
    problem = random_shop(seed=seed, jobs=5, machines=3, features=frozenset({"tardiness"}))
    exact = CpSat().solve(problem, goal=Goal(("tardiness",)), budget=Budget(20, workers=1), seed=1)
    assert exact.status == "optimal"
    result = Tabu().solve(problem, goal=Goal(("tardiness",)), budget=Budget(600, evaluations=3_000), seed=seed)
    assert result.objective["tardiness"] == exact.objective["tardiness"]


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_what_is_proved_to_be_the_shortest(seed: int) -> None:
    features = frozenset({"transport", "wait_min"}) if seed % 2 else frozenset()
    problem = random_shop(seed=seed, jobs=5, machines=3, features=features)
    exact = CpSat().solve(problem, budget=Budget(20, workers=1), seed=1)
    assert exact.status == "optimal"
    plan = sound(problem, Tabu().solve(problem, budget=Budget(600, evaluations=5_000), seed=seed))
    assert plan.objectives["makespan"] == exact.objective["makespan"]


def test_one_seed_and_one_number_of_iterations_give_one_result() -> None:
    problem = random_shop(seed=5, jobs=12, machines=4, features=frozenset())
    budget = Budget(600, evaluations=3_000)
    first, again = (Tabu(patience=100).solve(problem, budget=budget, seed=7) for _ in range(2))
    assert first.plans[0].assignments == again.plans[0].assignments
    assert first.evaluations == again.evaluations
    shop, _ = shop_of(problem)
    tabu = Tabu(patience=100)
    whole, parts = tabu.begin(shop, seed=7), tabu.begin(shop, seed=7)
    tabu.step(whole, 2_000)
    for _ in range(20):
        tabu.step(parts, 100)
    assert (whole.draft().start == parts.draft().start).all()
    assert whole.iteration == parts.iteration == 2_000


class Slow(Exchange):
    """No time passes."""

    @property
    def elapsed_s(self) -> float:
        return 0.0


class Fast(Exchange):
    """Every look at the clock takes a second."""

    looks = 0.0

    @property
    def elapsed_s(self) -> float:
        self.looks += 1.0
        return self.looks


def test_which_plans_on_the_way_keep_the_horizon_does_not_hang_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabu_module, "LOOK", 1)
    steps = {"long": (("m1", 40), ("m2", 60)), "early": (("m1", 20),)}  # early in time: the long one ends at 120
    due = {"early": 20}
    for k in range(8):
        steps[str(k)] = tuple((f"m{3 + (k + i) % 2}", 1 + (7 * k + 3 * i) % 5) for i in range(3))
        due[str(k)] = 5 + 5 * k % 13
    jobs = tuple(
        Job(
            id=name,
            due=due.get(name),
            operations=tuple(Operation(op=k, alternatives={m: t}) for k, (m, t) in enumerate(row)),
        )
        for name, row in steps.items()
    )
    problem = Problem(machines=tuple(Machine(id=f"m{k}") for k in (1, 2, 3, 4)), jobs=jobs, horizon=100)
    start = Tabu().solve(problem, budget=Budget(60, evaluations=100), seed=1).plans[0]
    for seed in range(3):
        slow, fast = (
            Tabu(patience=50).solve(
                problem,
                seed=seed,
                start=start,
                exchange=clock(problem, Goal(("tardiness",)), Budget(1e9, evaluations=500)),
            )
            for clock in (Slow, Fast)
        )
        assert slow.plans[0].assignments == fast.plans[0].assignments
        assert slow.objective["tardiness"] < start.objectives["tardiness"]


def test_it_goes_on_with_a_better_plan_of_another_solver() -> None:
    problem = random_shop(seed=8, jobs=20, machines=4, features=frozenset())
    shop, names = shop_of(problem)
    better = Tabu().solve(problem, budget=Budget(600, evaluations=5_000), seed=1).plans[0]
    lazy = Tabu(patience=10)
    state = lazy.begin(shop, seed=2)
    lazy.step(state, 1)
    assert state.value > better.objectives["makespan"]
    lazy.adopt(state, draft_of(shop, names, better))
    assert state.value == better.objectives["makespan"]

    exchange = Exchange(problem, Goal(), Budget(0.3))
    exchange.offer(better)
    assert lazy.solve(problem, seed=2, exchange=exchange).objective["makespan"] <= better.objectives["makespan"]


def test_it_stops_at_a_bound_that_somebody_has_proved() -> None:
    problem = random_shop(seed=5, jobs=5, machines=3, features=frozenset())
    best = CpSat().solve(problem, budget=Budget(20, workers=1), seed=1).objective["makespan"]
    exchange = Exchange(problem, Goal(), Budget(60))
    exchange.raise_bound("makespan", best)
    result = Tabu().solve(problem, seed=1, exchange=exchange)
    assert result.status == "optimal" and result.bound == best == result.objective["makespan"]
    assert result.runtime_s < 30 and exchange.over


def test_it_stops_when_it_is_told_to() -> None:
    problem = random_shop(seed=9, jobs=20, machines=4, features=frozenset())
    stop = threading.Event()
    stop.set()
    result = Tabu().solve(problem, exchange=Exchange(problem, Goal(), Budget(60), stop=stop))
    sound(problem, result)
    assert result.runtime_s < 30


@pytest.mark.parametrize("budget", [Budget(600, evaluations=500), Budget(1.0)])
def test_what_ends_after_the_horizon_proves_nothing_of_the_plan_that_is_given(budget: Budget) -> None:
    steps = {"long": (("m1", 4), ("m2", 6)), "early": (("m1", 2),), "free": (("m3", 8),), "first": (("m3", 1),)}
    due = {"early": 2, "first": 1}
    problem = Problem(
        machines=tuple(Machine(id=name) for name in ("m1", "m2", "m3")),
        jobs=tuple(
            Job(
                id=name,
                due=due.get(name),
                operations=tuple(Operation(op=k, alternatives={m: t}) for k, (m, t) in enumerate(row)),
            )
            for name, row in steps.items()
        ),
        horizon=10,  # whoever is in time makes the long one end at 12
    )
    rows = [("long", 0, "m1", 0, 4), ("long", 1, "m2", 4, 10), ("early", 0, "m1", 4, 6)]
    rows += [("free", 0, "m3", 0, 8), ("first", 0, "m3", 8, 9)]
    new = [Assignment(job=j, op=o, machine=m, start=s, end=e) for j, o, m, s, e in rows]
    start = judged(problem, new, solver="any")
    result = Tabu().solve(problem, goal=Goal(("tardiness",)), budget=budget, start=start, seed=1)
    assert (result.status, result.bound) == ("feasible", 0.0)
    assert violations(problem, result.plans[0]) == []


def test_nothing_to_do_is_done() -> None:
    result = Tabu().solve(Problem(machines=(Machine(id="m"),)))
    assert result.status == "optimal" and result.plans[0].assignments == ()


EVERY = (Annealing(), GreyWolf(), Shift(), Large(), Tabu(), Portfolio())


@pytest.mark.parametrize("solver", EVERY, ids=[one.kind for one in EVERY])
def test_where_nothing_is_left_to_do_a_limit_that_is_exceeded_already_is_said(solver: Solver) -> None:
    done = Assignment(job="1", op=0, machine="m", start=0, end=9)
    job = Job(id="1", operations=(Operation(op=0, alternatives={"m": 9}),))
    problem = Problem(machines=(Machine(id="m", power_kw=Power(work=6)),), jobs=(job,), history=(done,), now=9)
    measure: Measure = "energy" if isinstance(solver, Shift) else "makespan"
    goal = Goal((measure,))
    free = solver.solve(problem, goal=goal)
    assert (free.status, free.plans[0].assignments, free.reason) == ("optimal", (done,), "")
    limit = free.objective[KEY[measure]] / 2
    result = solver.solve(problem, goal=Goal((measure,), limits={measure: limit}))
    assert (result.status, result.plans) == ("infeasible", ())
    assert "exceeds a limit" in result.reason


ENDED = [(one, front) for one in EVERY[:5] for front in (False, True) if not front or one.kind in ("annealing", "gwo")]


@pytest.mark.parametrize(("solver", "front"), ENDED, ids=[f"{one.kind}-{front}" for one, front in ENDED])
def test_time_ends_a_search_whose_evaluations_are_not_spent(solver: Solver, front: bool) -> None:
    problem = random_shop(seed=2, jobs=30, machines=6, features=frozenset({"operation_power"}), operations=4)
    order: tuple[Measure, ...] = ("energy",) if isinstance(solver, Shift) else ("makespan",)
    goal = Goal(("makespan", "energy"), front=True) if front else Goal(order)
    solver.solve(problem, goal=goal, budget=Budget(600, evaluations=64, workers=1))  # compiles
    result = solver.solve(problem, goal=goal, budget=Budget(0.2, evaluations=50_000_000, workers=1))
    assert result.plans and (result.runtime_s < 30 or result.status == "optimal")
    assert result.evaluations < 50_000_000


def one_job(machine: Machine, **more: object) -> Problem:
    steps = tuple(Operation(op=k, alternatives={machine.id: 2}, **(more if k else {})) for k in range(2))
    return Problem(machines=(machine,), jobs=(Job(id="1", operations=steps, due=3),), crews={"fitter": 1})


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (one_job(Machine(id="m", unavailable=(Window(start=1, end=2),))), "closed times"),
        (one_job(Machine(id="m", unavailable=(Window(start=1, end=2, reason="breakdown"),))), "breakdowns to come"),
        (one_job(Machine(id="m", batch=2)), "batches"),
        (one_job(Machine(id="m"), wait_max=1), "greatest waits"),
        (one_job(Machine(id="m"), crew={"fitter": 1}), "crews"),
    ],
)
def test_what_it_does_not_know_it_refuses_and_names_another(problem: Problem, words: str) -> None:
    result = Tabu().solve(problem)
    assert result.plans == () and result.refused and words in result.reason and "portfolio" in result.reason


@pytest.mark.parametrize(
    "goal",
    [
        Goal(("energy",)),
        Goal(("makespan", "energy"), front=True),
        Goal(limits={"energy": 5.0}),
        Goal(("makespan", "energy"), weights={"makespan": 1.0, "energy": 1.0}),
    ],
)
def test_a_goal_it_cannot_minimise_is_refused(goal: Goal) -> None:
    result = Tabu().solve(one_job(Machine(id="m")), goal=goal)
    assert result.plans == () and result.refused and "portfolio" in result.reason


def test_a_limit_or_horizon_out_of_reach_gives_a_reason_and_no_plan() -> None:
    free = one_job(Machine(id="m"))
    short = free.model_copy(update={"horizon": 3})
    for result in (Tabu().solve(free, goal=Goal(limits={"makespan": 3.0})), Tabu().solve(short)):
        assert result.plans == () and not result.refused and "no plan within" in result.reason
    assert shop_of(free)[0].horizon == FAR
