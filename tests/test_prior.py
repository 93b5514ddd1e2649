"""A plan made ahead: whatever state a shop is in, it is a sequence of what is open; a judge begins with it."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.prior import prior, problem_of
from cloud.scheduling import Budget
from messages.dispatch.decode import Weights, decode, measures
from messages.dispatch.judge import Mcts
from messages.dispatch.rules import RULES, run
from messages.dispatch.state import begin
from tests.dispatching import shop_like, some_state

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from _workshops import workshop


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_whatever_a_shop_is_like_what_is_open_of_it_is_a_problem(seed: int) -> None:
    state = some_state(shop_like(seed), seed)
    problem = problem_of(state)
    work = {
        (job, op)
        for job in state.open()
        for op, step in enumerate(state.shop.route[job])
        if op >= state.jobs[job].next and set(step.ticks) <= set(state.machines)
    }
    assert {key for key in problem.operation if not key[0].startswith("busy ")} == work


def test_a_plan_made_ahead_is_where_the_judge_begins() -> None:
    state = begin(workshop(3, jobs=12))
    plan = prior(state, Budget(120, evaluations=20_000), seed=1)
    assert len(plan) == 36
    planned = measures(decode(state, plan)).makespan
    by_rules = min(measures(run(state, rule, Weights())).makespan for rule in RULES.values())
    judge = Mcts(iterations=0)
    assert planned < by_rules == measures(judge.decide(state).schedule).makespan
    assert measures(judge.decide(state, plan=plan).schedule).makespan == planned


def test_where_nothing_is_open_nothing_is_planned() -> None:
    state = begin(workshop(3, jobs=2))
    for job in list(state.jobs):
        while state.jobs[job].next < len(state.shop.route[job]):
            state.take(state.bids(job)[0])
    assert prior(state, Budget(2)) == ()
