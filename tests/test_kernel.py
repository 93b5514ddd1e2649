"""Compiled kernels say what the plain judge says, and make plans that can be carried out."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.scheduling import KEY, MEASURES
from cloud.scheduling.decode import decode, decode_active, key_order
from cloud.scheduling.dispatch import Dispatch, Rule
from cloud.scheduling.evaluate import evaluate
from cloud.scheduling.measure import choose_off, measures, packed, scratch_of
from cloud.scheduling.seam import judged
from cloud.scheduling.shift import shift_right
from cloud.scheduling.shop import Draft, Floats, Indices, Shop, assignments_of, draft_of, plan_of, shop_of
from messages.judge import violations
from messages.openjobs import open_jobs
from messages.problem import Job, Machine, Operation, Problem
from messages.reference import schedule
from tests.shops import problems, random_shop, some_plan

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def agree(problem: Problem, values: Floats, objectives: dict[str, float]) -> None:
    for value, measure in zip(values, MEASURES, strict=True):
        if KEY[measure] in objectives:
            assert value == pytest.approx(objectives[KEY[measure]], rel=1e-9, abs=1e-9), measure


@QUICK
@given(problem=problems(), seed=st.integers(0, 9), switch=st.booleans())
def test_every_measure_of_a_draft_is_what_the_judge_says_of_its_plan(problem: Problem, seed: int, switch: bool) -> None:
    shop, names = shop_of(problem)
    plan = judged(problem, some_plan(problem, seed), solver="some")
    assert violations(problem, plan) == []
    draft = draft_of(shop, names, plan)
    agree(problem, measures(shop, draft.machine, draft.start, draft.off), plan.objectives)
    off = np.random.default_rng(seed).random(shop.operations) < 0.5 if switch else np.ones(shop.operations, np.bool_)
    plan = plan_of(problem, shop, names, Draft(draft.machine, draft.start, off), solver="some")
    agree(problem, measures(shop, draft.machine, draft.start, off), plan.objectives)
    choose_off(shop, draft.machine, draft.start, np.array([1.0, 0.0, 0.0]), off)
    least = plan_of(problem, shop, names, Draft(draft.machine, draft.start, off), solver="some")
    rule = judged(problem, [one for one in plan.assignments if one not in problem.history], solver="some")
    assert least.machine_states == rule.machine_states


def orders(shop: Shop, seed: int) -> tuple[Indices, Indices]:
    rng = np.random.default_rng(seed)
    order = np.empty(shop.operations, np.int32)
    key_order(rng.random(shop.operations), shop.job_first, order)
    choice = rng.integers(-1, 3, shop.operations).astype(np.int32)
    return order, np.minimum(choice, np.diff(shop.alt_first) - 1).astype(np.int32)


def by_hand(
    problem: Problem, shop: Shop, order: Indices, choice: Indices, *, active: bool
) -> tuple[int, list[int], list[int]]:
    jobs = open_jobs(problem)
    steps = [step for job in jobs for step in job.operations]
    chosen = {
        (step.job, step.op): list(step.alternatives)[k]
        for step, k in zip(steps, choice.tolist(), strict=True)
        if k >= 0
    }
    new, faults = schedule(problem, [jobs[j].id for j in order.tolist()], chosen, active=active)
    machines = [one.id for one in problem.machines]
    return faults, [machines.index(one.machine) for one in new], [one.start for one in new]


KILNS = frozenset({"batch", "crews", "setup", "wait_min", "wait_max", "calendars"})


@QUICK
@given(
    problem=problems() | problems(features=KILNS, most_jobs=6) | problems(features={"batch"}, most_jobs=8),
    seed=st.integers(0, 9),
    active=st.booleans(),
)
def test_every_order_becomes_a_plan_that_can_be_carried_out(problem: Problem, seed: int, active: bool) -> None:
    shop, names = shop_of(problem)
    order, choice = orders(shop, seed)
    machine, start = np.empty(shop.operations, np.int32), np.empty(shop.operations, np.int64)
    place = decode_active if active else decode
    faults = place(packed(shop), scratch_of(shop), order, choice, machine, start)
    assert (faults, machine.tolist(), start.tolist()) == by_hand(problem, shop, order, choice, active=active)
    off = np.zeros(shop.operations, np.bool_)
    plan = plan_of(problem, shop, names, Draft(machine, start, off), solver="kernel")
    found = violations(problem, plan)
    assert (faults == 0) == (not found), (faults, found)
    assert not found


def test_kilns_of_many_jobs_with_crews_are_filled_as_the_plain_reference_fills_them() -> None:
    for seed in range(40):
        features = KILNS if seed % 2 else KILNS - {"crews"}
        problem = random_shop(seed, jobs=8, machines=2, features=features, longest=8)
        shop, _ = shop_of(problem)
        order, choice = orders(shop, seed)
        machine, start = np.empty(shop.operations, np.int32), np.empty(shop.operations, np.int64)
        faults = decode(packed(shop), scratch_of(shop), order, choice, machine, start)
        assert (faults, machine.tolist(), start.tolist()) == by_hand(problem, shop, order, choice, active=False), seed


def kiln(*releases: int, ticks: tuple[int, ...] = ()) -> Problem:
    """A job for each release: fired together or not, then packed."""
    jobs = []
    for j, release in enumerate(releases):
        fire = Operation(op=0, alternatives={"kiln": ticks[j] if ticks else 10})
        pack = Operation(op=1, alternatives={f"pack{j}": 1})
        jobs.append(Job(id=str(j), release=release, operations=(fire, pack)))
    packers = tuple(Machine(id=f"pack{j}") for j in range(len(releases)))
    return Problem(machines=(Machine(id="kiln", batch=3), *packers), jobs=tuple(jobs))


def fired(problem: Problem, order: list[int]) -> list[int]:
    """When each job is fired."""
    shop, _ = shop_of(problem)
    machine, start = np.empty(shop.operations, np.int32), np.empty(shop.operations, np.int64)
    anywhere = np.full(shop.operations, -1, np.int32)
    assert decode(packed(shop), scratch_of(shop), np.array(order, np.int32), anywhere, machine, start) == 0
    return [int(one) for one in start[::2]]


def test_a_batch_waits_and_lasts_longer_for_whom_it_gains_more_than_the_others_lose() -> None:
    assert fired(kiln(0, 5), [0, 1, 0, 1]) == [5, 5]  # 5 lost, 5 gained
    assert fired(kiln(0, 6), [0, 1, 0, 1]) == [0, 10]
    assert fired(kiln(0, 3, 4), [0, 1, 2, 0, 1, 2]) == [4, 4, 4]
    assert fired(kiln(0, 3, 7), [0, 1, 2, 0, 1, 2]) == [3, 3, 13]  # twice 4 lost, 6 gained
    assert fired(kiln(0, 0, ticks=(10, 15)), [0, 1, 0, 1]) == [0, 0]
    assert fired(kiln(0, 0, ticks=(4, 15)), [0, 1, 0, 1]) == [0, 4]


@pytest.mark.parametrize(("most", "fires"), [(None, [5, 5]), (4, [5, 5]), (3, [1, 11])])
def test_a_batch_waits_no_longer_than_a_greatest_wait_allows(most: int | None, fires: list[int]) -> None:
    jobs = []
    for j, release in enumerate((0, 4)):
        form = Operation(op=0, alternatives={f"press{j}": 1})
        jobs.append(
            Job(
                id=str(j),
                release=release,
                operations=(form, Operation(op=1, alternatives={"kiln": 10}, wait_max=most if j == 0 else None)),
            )
        )
    machines = (Machine(id="kiln", batch=3), Machine(id="press0"), Machine(id="press1"))
    problem = Problem(machines=machines, jobs=tuple(jobs))
    new, faults = schedule(problem, ["0", "0", "1", "1"])
    assert (faults, [one.start for one in new if one.op]) == (0, fires)
    shop, _ = shop_of(problem)
    machine, start = np.empty(4, np.int32), np.empty(4, np.int64)
    order, anywhere = np.array([0, 0, 1, 1], np.int32), np.full(4, -1, np.int32)
    assert decode(packed(shop), scratch_of(shop), order, anywhere, machine, start) == 0
    assert start[1::2].tolist() == fires


def test_an_order_says_which_batches_wait() -> None:
    assert fired(kiln(0, 5), [0, 0, 1, 1]) == [0, 10]  # who is packed has been fired


@QUICK
@given(problem=problems(), seed=st.integers(0, 9))
def test_judging_an_order_in_one_pass_says_what_the_judge_says_of_its_plan(problem: Problem, seed: int) -> None:
    shop, names = shop_of(problem)
    order, choice = orders(shop, seed)
    machine, start, out = np.empty(shop.operations, np.int32), np.empty(shop.operations, np.int64), np.empty(3)
    evaluate(packed(shop), scratch_of(shop), order, choice, machine, start, out)
    draft = Draft(machine, start, np.zeros(shop.operations, np.bool_))
    plan = judged(problem, assignments_of(shop, names, draft), solver="kernel")
    agree(problem, np.concatenate([out, np.zeros(4)]), {KEY[one]: plan.objectives[KEY[one]] for one in MEASURES[:3]})


@QUICK
@given(problem=problems(), seed=st.integers(0, 9))
def test_moving_right_saves_what_it_says_and_delays_nobody(problem: Problem, seed: int) -> None:
    shop, names = shop_of(problem)
    before = judged(problem, some_plan(problem, seed), solver="some")
    draft = draft_of(shop, names, before)
    old = draft.start.copy()
    saved = shift_right(packed(shop), scratch_of(shop), draft.machine, draft.start, int(before.objectives["makespan"]))
    after = judged(problem, assignments_of(shop, names, draft), solver="shifted")
    assert violations(problem, after) == []
    assert after.objectives["makespan"] <= before.objectives["makespan"]
    assert after.objectives["tardiness"] <= before.objectives["tardiness"]
    assert before.objectives["energy_kwh"] - after.objectives["energy_kwh"] == pytest.approx(saved, abs=1e-6)
    assert saved > 0 or (draft.start == old).all()


@QUICK
@given(keys=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.5]), max_size=80), seed=st.integers(0, 9))
def test_random_keys_become_the_order_of_their_ranks(keys: list[float], seed: int) -> None:
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(keys) + 1, 3))
    job_first = np.array([0, *cuts, len(keys)], np.int32)
    order = np.empty(len(keys), np.int32)
    key_order(np.array(keys), job_first, order)
    job = np.repeat(np.arange(4), np.diff(job_first))
    assert order.tolist() == job[np.argsort(keys, kind="stable")].tolist()


@pytest.mark.parametrize("rule", get_args(Rule))
@QUICK
@given(problem=problems())
def test_every_rule_makes_a_plan_of_everything_the_problem_knows(rule: Rule, problem: Problem) -> None:
    result = Dispatch(rule=rule).solve(problem)
    assert result.plans, result.reason
    assert violations(problem, result.plans[0]) == []


def test_a_rule_that_cannot_keep_the_horizon_says_so() -> None:
    job = Job(id="1", operations=(Operation(op=0, alternatives={"m": 5}),))
    problem = Problem(machines=(Machine(id="m"),), jobs=(job,), horizon=4)
    result = Dispatch().solve(problem)
    assert result.plans == ()
    assert "the horizon (4)" in result.reason
