"""Plans with vehicles and buffers: what was dispatched can be carried out, and what cannot is found by both judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from messages.dispatch.check import faults
from messages.dispatch.decode import Schedule, Weights, decode, measures
from messages.dispatch.planned import plan_of
from messages.dispatch.rules import RULES, run
from messages.dispatch.shop import shop_from
from messages.dispatch.state import Bid, state_from
from messages.judge import violations
from messages.plan import Assignment
from messages.problem import Problem
from tests.dispatching import some_sequence
from tests.logistics import problem_like

SEEDS = st.integers(0, 10**9)
QUICK = settings(max_examples=150, deadline=None)


def by_rule(problem: Problem, seed: int) -> Schedule:
    return run(state_from(problem), RULES[sorted(RULES)[seed % len(RULES)]], Weights())


@QUICK
@given(seed=SEEDS)
def test_what_was_dispatched_is_a_plan_that_nothing_speaks_against(seed: int) -> None:
    problem = problem_like(seed)
    state = state_from(problem)
    for schedule in (by_rule(problem, seed), decode(state, some_sequence(state, seed))):
        assume(not schedule.faults)
        plan = plan_of(problem, schedule.bids)
        assert violations(problem, plan) == []
        assert plan.objectives["makespan"] == measures(schedule).makespan


@QUICK
@given(seed=SEEDS, share=st.floats(0, 1))
def test_planning_anew_from_the_middle_is_a_plan_as_well(seed: int, share: float) -> None:
    problem = problem_like(seed)
    schedule = by_rule(problem, seed)
    assume(not schedule.faults)
    now = round(share * schedule.end.last)
    done = [one for one in plan_of(problem, schedule.bids).assignments if one.start < now]
    later = replan(problem, now, done)
    again = by_rule(later, seed)
    assume(not again.faults)
    assert violations(later, plan_of(later, again.bids)) == []


def replan(problem: Problem, now: int, history: list[Assignment]) -> Problem:
    """The problem as it is at `now`; machines that had worked before are cold."""
    return Problem.model_validate(problem.model_dump() | {"now": now, "history": history})


@settings(max_examples=400, deadline=None)
@given(seed=SEEDS)
def test_a_planted_fault_is_found_by_both_judges_or_is_none(seed: int) -> None:
    problem = problem_like(seed, cold=False)
    shop = shop_from(problem)
    schedule = by_rule(problem, seed)
    assume(not schedule.faults)
    wrong = spoilt(problem, list(schedule.bids), np.random.default_rng(seed))
    found = violations(problem, plan_of(problem, wrong))
    assert bool(found) == bool(faults(shop, wrong)), (found, faults(shop, wrong))


def spoilt(problem: Problem, bids: list[Bid], rng: np.random.Generator) -> list[Bid]:
    """One award with other times, or another vehicle. What a plan does not state (when a part from nowhere arrives;
    that the way to the store of finished parts is a step) is as it would be judged."""
    at = int(rng.integers(len(bids)))
    bid, by = bids[at], int(rng.integers(1, 9)) * (-1 if rng.random() < 0.7 else 1)
    kind = rng.choice(["all", "work", "way", "longer", "vehicle"])
    if kind in ("all", "way"):
        bid = replace(bid, loads=bid.loads + by, leaves=bid.leaves + by, arrives=bid.arrives + by)
    if kind in ("all", "work"):
        bid = replace(bid, start=bid.start + by, end=bid.end + by)
    if kind == "longer":
        bid = replace(bid, end=max(bid.start, bid.end + by))
    if kind == "vehicle" and bid.vehicle >= 0:
        bid = replace(bid, vehicle=int(rng.integers(0, problem.transport.vehicles or 1)))
    assume(min(bid.loads, bid.start) >= 0)
    bids[at] = bid if bid.machine in problem.machine else replace(bid, start=bid.arrives, end=bid.arrives)
    return [
        one if one.came_from else replace(one, loads=one.start, leaves=one.start, arrives=one.start) for one in bids
    ]
