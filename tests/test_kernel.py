"""Compiled kernels say what the plain judge says, and make plans that can be carried out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.scheduling import KEY, MEASURES
from cloud.scheduling.decode import decode, decode_active, key_order
from cloud.scheduling.measure import choose_off, measures, packed, scratch_of
from cloud.scheduling.seam import judged
from cloud.scheduling.shop import Draft, Shop, draft_of, plan_of, shop_of
from messages.judge import violations
from messages.problem import Problem
from tests.shops import ALL, problems, some_plan

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def agree(problem: Problem, values: np.ndarray, objectives: dict[str, float]) -> None:
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


def orders(shop: Shop, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    order = np.empty(shop.operations, np.int32)
    key_order(rng.random(shop.operations), shop.job_first, order)
    choice = rng.integers(-1, 3, shop.operations).astype(np.int32)
    return order, np.minimum(choice, np.diff(shop.alt_first) - 1).astype(np.int32)


@QUICK
@given(problem=problems(), seed=st.integers(0, 9), active=st.booleans())
def test_every_order_becomes_a_plan_that_can_be_carried_out(problem: Problem, seed: int, active: bool) -> None:
    shop, names = shop_of(problem)
    order, choice = orders(shop, seed)
    machine, start = np.empty(shop.operations, np.int32), np.empty(shop.operations, np.int64)
    place = decode_active if active else decode
    faults = place(packed(shop), scratch_of(shop), order, choice, machine, start)
    off = np.zeros(shop.operations, np.bool_)
    plan = plan_of(problem, shop, names, Draft(machine, start, off), solver="kernel")
    found = violations(problem, plan)
    assert (faults == 0) == (not found), (faults, found)
    assert not found
    assert ALL
