"""Start times: never worse, always possible, and where it says so the best there is; and the search that uses them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from shops import ALL, random_shop, some_plan

from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.gridbound import grid_bound
from cloud.scheduling.seam import KEY, Budget, Event, Exchange, Goal, judged
from cloud.scheduling.shifting import Shift
from cloud.scheduling.shop import FAR, Draft, Names, Shop, draft_of, durations, plan_of, shop_of
from cloud.scheduling.timing import retime, value_of
from cloud.scheduling.timingkernel import cheapest_starts, tighten
from messages.curve import Curve
from messages.errors import UsageError
from messages.instances import load_problem
from messages.judge import violations
from messages.plan import Measure
from messages.problem import Job, Machine, Operation, Power, Problem

CERAMIC = Path(__file__).parent.parent / "examples" / "ceramic.json"
WEIGHTS: tuple[dict[Measure, float], ...] = (
    {"carbon": 1.0},
    {"cost": 1.0, "makespan": 0.3},
    {"energy": 1.0, "tardiness": 2.0},
    {"carbon": 1.0, "energy": 0.1, "tardiness": 0.5, "makespan": 0.1},
    {"ledger": 1.0, "cost": 0.2},
)
DAY = tuple(round(0.3 - 0.12 * np.sin((hour - 6) / 12 * np.pi), 4) for hour in range(24))


def green(problem: Problem, horizon: int) -> Problem:
    """With a day's carbon for electricity, and gas."""
    carbon = {
        "electricity": Curve(step=2, values=DAY, periodic=True),
        "gas": Curve(step=1, values=(0.202,), periodic=True),
    }
    return problem.model_copy(update={"carbon": carbon, "horizon": horizon})


def weighed(problem: Problem, objectives: Mapping[str, float], weights: Mapping[Measure, float]) -> float:
    return sum(weight * objectives.get(KEY[name], 0.0) for name, weight in weights.items())


@pytest.mark.parametrize("seed", range(40))
def test_the_cut_finds_the_cheapest_starts_there_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(-2, 3, 4)
    high = low + rng.integers(1, 6, 4)
    tail, head, lag = [], [], []
    for _ in range(4):
        i, j = sorted(rng.choice(4, 2, replace=False).tolist())
        tail.append(i)
        head.append(j)
        lag.append(int(rng.integers(-1, 3)))
        if rng.random() < 0.3:  # a greatest wait
            tail.append(j)
            head.append(i)
            lag.append(-lag[-1] - int(rng.integers(0, 4)))
    arcs = (np.array(tail, np.int32), np.array(head, np.int32), np.array(lag, np.int64))
    every = [
        one
        for one in product(*(range(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)))
        if all(one[h] >= one[t] + g for t, h, g in zip(*arcs, strict=True))
    ]
    if not tighten(low, high, *arcs):
        assert not every
        return
    first = np.concatenate([[0], np.cumsum(high - low + 1)]).astype(np.int64)
    cost = rng.random(first[-1]) * 10 * (rng.random(first[-1]) < 0.7)
    starts = cheapest_starts(first, cost, low, high, *arcs)
    assert (starts[arcs[1]] >= starts[arcs[0]] + arcs[2]).all()

    def price(one: tuple[int, ...]) -> float:
        return sum(float(cost[first[i] + s - low[i]]) for i, s in enumerate(one))

    assert price(tuple(starts.tolist())) == pytest.approx(min(map(price, every)), abs=1e-8)


def drafted(seed: int, features: frozenset[str]) -> tuple[Problem, Shop, Names, Draft] | None:
    problem = random_shop(seed, jobs=2, machines=2, features=features, operations=2, longest=3)
    shop, names = shop_of(problem)
    if not shop.operations:
        return None
    plan = judged(problem, some_plan(problem, seed), solver="any")
    assert violations(problem, plan) == []
    return problem, shop, names, draft_of(shop, names, plan)


@pytest.mark.parametrize("seed", range(60))
def test_a_retimed_plan_can_be_carried_out_and_is_never_worse(seed: int) -> None:
    made = drafted(seed, ALL)
    if made is None:
        return
    problem, shop, names, draft = made
    weights = WEIGHTS[seed % len(WEIGHTS)]
    end = int((draft.start + durations(shop, draft)).max())
    found = retime(shop, draft, weights, latest=min(end + 3, int(shop.horizon)), nodes=50)
    plan = plan_of(problem, shop, names, found.draft, solver="retime")
    assert violations(problem, plan) == []
    assert found.value == pytest.approx(weighed(problem, plan.objectives, weights), rel=1e-9, abs=1e-9)
    assert found.value <= value_of(shop, draft, weights) + 1e-9
    if found.exact:
        assert found.bound == pytest.approx(found.value, rel=1e-9, abs=1e-9)


def by_hand(problem: Problem, shop: Shop, names: Names, draft: Draft, weights: Mapping[Measure, float], latest: int):  # type: ignore[no-untyped-def]
    """The least weighted sum over all starts and gaps of these sequences."""
    ticks, best = durations(shop, draft), np.inf
    lines = [np.flatnonzero((draft.machine == m) & (ticks > 0)) for m in range(len(names.machines))]
    lines = [line[np.argsort(draft.start[line])] for line in lines]
    for starts in product(*(range(latest - int(one) + 1) for one in ticks)):
        at = np.array(starts, np.int64)
        if any((at[line[1:]] < at[line[:-1]] + ticks[line[:-1]]).any() for line in lines):
            continue
        for off in product((False, True), repeat=len(ticks)):
            one = Draft(draft.machine, at, np.array(off))
            value = value_of(shop, one, weights)
            if value < best - 1e-9 and not violations(problem, plan_of(problem, shop, names, one, solver="hand")):
                best = value
    return best


def test_what_is_called_exact_is_the_best_of_all_start_times_there_are() -> None:
    features = ALL - {"generation", "batch", "crews", "history", "breakdowns"}
    proved = 0
    for seed in range(200):
        made = drafted(seed, features)
        if made is None or made[1].operations > 2:
            continue
        problem, shop, names, draft = made
        end = int((draft.start + durations(shop, draft)).max())
        if end > 12:
            continue
        weights = WEIGHTS[seed % len(WEIGHTS)]
        found = retime(shop, draft, weights, latest=end + 1, nodes=200)
        assert found.exact
        assert found.value == pytest.approx(by_hand(problem, shop, names, draft, weights, end + 1), rel=1e-6, abs=1e-6)
        proved += 1
        if proved == 8:
            break
    assert proved == 8


def test_a_job_moves_into_the_clean_hours_and_its_machine_is_off_until_then() -> None:
    machine = Machine(id="m", preheat=1, power_kw=Power(work=10, idle=4, preheat=5))
    jobs = tuple(Job(id=name, operations=(Operation(op=0, alternatives={"m": 2}),)) for name in "ab")
    problem = Problem(
        machines=(machine,),
        jobs=jobs,
        tick_s=3600,
        carbon={"electricity": Curve(step=1, values=(0.1,) * 2 + (0.5,) * 6 + (0.1,) * 4)},
        horizon=12,
    )
    shop, names = shop_of(problem)
    draft = Draft(np.zeros(2, np.int32), np.array([0, 2]), np.zeros(2, np.bool_))
    found = retime(shop, draft, {"carbon": 1.0}, nodes=10)
    assert found.exact and found.draft.start[0] == 0 and found.draft.start[1] in (9, 10)
    assert found.draft.off[1]
    assert found.value == pytest.approx(10 * 4 * 0.1 + 2 * 5 * 0.1)
    plan = plan_of(problem, shop, names, found.draft, solver="retime")
    assert [one.state for one in plan.machine_states] == ["preheat", "work", "off", "preheat", "work"]


def test_a_deadline_before_the_end_of_the_draft_names_the_cure() -> None:
    made = drafted(1, ALL - {"generation"})
    assert made is not None
    _, shop, _, draft = made
    with pytest.raises(UsageError, match="later deadline"):
        retime(shop, draft, {"carbon": 1.0}, latest=1)


@pytest.mark.parametrize("seed", range(25))
def test_shift_gives_a_plan_that_can_be_carried_out_on_any_problem_or_says_why_not(seed: int) -> None:
    problem = random_shop(seed, jobs=3, machines=3, features=ALL, operations=3, longest=5)
    goals = (
        Goal(("carbon",)),
        Goal(("cost", "makespan")),
        Goal(("energy", "tardiness"), weights={"energy": 1.0, "tardiness": 5.0}),
        Goal(("ledger",)),
    )
    result = Shift().solve(problem, goal=goals[seed % 4], budget=Budget(600, evaluations=40), seed=seed)
    assert result.plans or "use cpsat" in result.reason or "; add `carbon`" in result.reason
    for plan in result.plans:
        assert violations(problem, plan) == []
        assert plan.objectives == result.objective


def test_one_seed_and_as_many_evaluations_give_one_plan() -> None:
    problem = green(load_problem(CERAMIC), 96)
    found = [Shift().solve(problem, budget=Budget(600, evaluations=300), seed=5) for _ in range(2)]
    assert found[0].plans[0].assignments == found[1].plans[0].assignments
    assert found[0].evaluations == 300
    assert found[0].objective["carbon_kg"] < 6_500


def test_shift_and_its_bound_close_in_on_the_best_plan_there_is() -> None:
    problem = green(random_shop(3, jobs=3, machines=2, features=frozenset(), operations=2, longest=4), 20)
    shop, _ = shop_of(problem)
    bound = grid_bound(shop, {"energy": 1.0}, latest=20, seconds=20)
    best = CpSat().solve(problem, goal=Goal(("energy",)), budget=Budget(20), seed=1)
    mine = Shift().solve(problem, goal=Goal(("energy",)), budget=Budget(600, evaluations=300), seed=1)
    assert best.status == "optimal" and bound.value is not None
    assert mine.objective["energy_kwh"] == pytest.approx(best.objective["energy_kwh"])
    assert bound.value <= best.objective["energy_kwh"] + 1e-6


@pytest.mark.parametrize("seed", range(12))
def test_no_plan_is_below_the_grid_bound(seed: int) -> None:
    features = ALL - {"generation", "batch"}
    problem = random_shop(seed, jobs=3, machines=3, features=features, operations=3, longest=4)
    shop, names = shop_of(problem)
    plans = [judged(problem, some_plan(problem, one), solver="any") for one in range(3)]
    latest = max(int(plan.objectives["makespan"]) for plan in plans)
    for weights in WEIGHTS:
        bound = grid_bound(shop, weights, latest=latest, seconds=20)
        for plan in plans:
            if bound.value is None or not shop.operations:
                assert bound.reason or not shop.operations
                continue
            draft = draft_of(shop, names, plan)
            found = retime(shop, draft, weights, latest=latest)
            assert bound.value <= found.value + 1e-6 * max(1.0, abs(found.value))


def test_limits_of_time_and_power_are_kept_and_what_shift_cannot_do_it_says() -> None:
    problem = green(load_problem(CERAMIC), 96)
    limits: dict[Measure, float] = {"makespan": 70, "peak": 700}
    goal = Goal(("carbon",), limits=limits)
    result = Shift().solve(problem, goal=goal, budget=Budget(600, evaluations=200), seed=1)
    assert result.objective["makespan"] <= 70 and result.objective["peak_kw"] <= 700
    dear = Goal(("energy",), limits={"carbon": 6_500})
    result = Shift().solve(problem, goal=dear, budget=Budget(600, evaluations=2_000), seed=1)
    assert result.objective["carbon_kg"] <= 6_500
    assert "put one of" in Shift().solve(problem, goal=Goal(("makespan",))).reason
    assert "limit it" in Shift().solve(problem, goal=Goal(("peak",))).reason
    tight = Goal(("carbon",), limits={"makespan": 5})
    assert "allow more" in Shift().solve(problem, goal=tight, budget=Budget(5, evaluations=10)).reason


def test_a_stopped_search_returns_the_best_so_far() -> None:
    problem, stop = green(load_problem(CERAMIC), 96), threading.Event()
    goal, budget = Goal(("carbon",)), Budget(60, workers=2)
    heard: list[float] = []

    def hear(event: Event) -> None:
        heard.append(event.value)
        stop.set()

    run = Exchange(problem, goal, budget, on_event=hear, stop=stop)
    result = Shift().solve(problem, exchange=run, seed=2)
    assert heard and violations(problem, result.plans[0]) == []
    assert result.runtime_s < 30


def test_without_a_horizon_nothing_is_proved_and_with_one_nothing_is_later() -> None:
    problem = green(load_problem(CERAMIC), 80)
    result = Shift().solve(problem, budget=Budget(600, evaluations=20), seed=1)
    assert result.objective["makespan"] <= 80
    free = problem.model_copy(update={"horizon": None})
    result = Shift().solve(free, budget=Budget(600, evaluations=20), seed=1)
    assert result.plans and result.bound is None
    assert shop_of(free)[0].horizon == FAR
