"""Every judge, plain or compiled, brings every shop to its end; tree search is never worse than what it began with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import cloud.dispatch
import cloud.dispatch.search
import messages.dispatch.judge
import messages.dispatch.tree
from cloud.dispatch import AnyJudge
from messages.dispatch.check import faults
from messages.dispatch.decode import Weights, decode, measures
from messages.dispatch.judge import ByRule, Judge
from messages.dispatch.rules import RULES, revised, run
from messages.dispatch.shop import Shop, Shut, Station, Step, Work
from messages.dispatch.simulate import Course, simulate
from messages.dispatch.state import begin
from messages.errors import UsageError
from tests.dispatching import shop_like, some_sequence, some_state, with_ticks

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from _workshops import OPTIMA_S, TICK_S, readings, workshop

SEEDS = st.integers(0, 10**9)
QUICK = settings(max_examples=40, deadline=None)
JUDGES: dict[str, Judge] = {
    **{kind: ByRule.model_validate({"kind": kind}) for kind in RULES},
    "plain": messages.dispatch.judge.Mcts(iterations=20),
    **{f"{kind} compiled": cloud.dispatch.ByRule.model_validate({"kind": kind}) for kind in ("sjf", "eq11")},
    "compiled": cloud.dispatch.Mcts(iterations=200),
}
WEIGHTS = Weights(waiting=0.5, tardiness=0.2)


def course_of(shop: Shop, seed: int) -> Course:
    """Durations up to a fifth off, breakdowns that nobody foresees."""
    rng = np.random.default_rng(seed)
    foreseen = replace(
        shop,
        machines={
            name: replace(one, shut=tuple(shut for shut in one.shut if not shut.broken))
            for name, one in shop.machines.items()
        },
    )
    ticks = {}
    for name, work in shop.jobs.items():
        for op, step in enumerate(work.steps):
            longest = max(step.ticks.values())
            ticks[name, op] = max(1, round(longest * rng.uniform(0.8, 1.2)))
    return Course(foreseen, with_ticks(shop, ticks), repair=5)


@pytest.mark.parametrize("judge", JUDGES)
@QUICK
@given(seed=SEEDS)
def test_every_judge_brings_every_shop_to_its_end_whatever_comes(judge: str, seed: int) -> None:
    course = course_of(shop_like(seed), seed)
    outcome = simulate(course, JUDGES[judge], WEIGHTS, seed=seed)
    assert faults(course.actual, outcome.bids) == []
    assert outcome.measures.faults == 0


@pytest.mark.parametrize("judge", ["fifo", "greedy", "compiled"])
@QUICK
@given(seed=SEEDS)
def test_parts_never_block_each_other_for_good(judge: str, seed: int) -> None:
    shop = shop_like(seed, jobs=8)
    tight = replace(
        shop,
        machines={name: replace(one, buffer_in=1, buffer_out=int(one.hold)) for name, one in shop.machines.items()},
    )
    course = course_of(tight, seed)
    assert simulate(course, JUDGES[judge], WEIGHTS, seed=seed).measures.faults == 0


@QUICK
@given(seed=SEEDS)
def test_plain_and_compiled_search_find_the_same(seed: int) -> None:
    state = some_state(replace(shop_like(seed, jobs=6), carbon={}), seed)
    seeds = [revised(state, some_sequence(state, seed))]
    plain = messages.dispatch.tree.look_ahead(state, WEIGHTS, 30, seeds=seeds, seed=seed)
    assert cloud.dispatch.search.look_ahead(state, WEIGHTS, 30, seeds=seeds, seed=seed) == plain


@QUICK
@given(seed=SEEDS, kind=st.sampled_from([kind for kind in RULES if kind != "greedy"]))
def test_plain_and_compiled_rules_decide_the_same(seed: int, kind: str) -> None:
    state = some_state(shop_like(seed, jobs=6), seed)
    plain = JUDGES[kind].decide(state, WEIGHTS)
    compiled = cloud.dispatch.ByRule.model_validate({"kind": kind}).decide(state, WEIGHTS)
    assert (compiled.awards, compiled.memory) == (plain.awards, plain.memory)
    assert compiled.value == pytest.approx(plain.value, rel=1e-12)


@QUICK
@given(seed=SEEDS)
def test_search_is_no_worse_than_any_rule_and_any_seed_and_says_what_it_is_worth(seed: int) -> None:
    state = some_state(shop_like(seed, jobs=6), seed)
    weights = replace(WEIGHTS, energy=0.3, carbon=0.3)
    older = some_sequence(state, seed)
    found = cloud.dispatch.search.look_ahead(state, weights, 50, seeds=[older], seed=seed)
    others = [decode(state, older), *(run(state, rule, weights) for rule in RULES.values())]
    least = min(measures(one).value(weights) for one in others)
    assert found.value <= least + 1e-9 * abs(least)
    assert found.value == pytest.approx(measures(decode(state, found.sequence)).value(weights), rel=1e-9)


def test_more_iterations_find_more() -> None:
    state = begin(workshop(1, jobs=12))
    few, many = (cloud.dispatch.search.look_ahead(state, Weights(), n, seed=1).value for n in (0, 20_000))
    assert many < 0.9 * few


def test_a_budget_in_seconds_finds_something_too() -> None:
    state = begin(workshop(1, jobs=6))
    for search in (cloud.dispatch.search.look_ahead, messages.dispatch.tree.look_ahead):
        found = search(state, Weights(), None, 0.02)
        assert found.iterations > 0
        assert found.value == decode(state, found.sequence).end.last


def test_a_full_tree_grows_no_more_and_the_search_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    state = begin(workshop(1, jobs=6))
    monkeypatch.setattr(messages.dispatch.tree, "NODES", 8)
    monkeypatch.setattr(cloud.dispatch.search, "NODES", 8)
    plain = messages.dispatch.tree.look_ahead(state, WEIGHTS, 60, seed=3)
    assert cloud.dispatch.search.look_ahead(state, WEIGHTS, 60, seed=3) == plain
    assert plain.value < messages.dispatch.tree.look_ahead(state, WEIGHTS, 0, seed=3).value


def test_what_was_meant_is_done_when_everything_comes_as_foreseen() -> None:
    shop = workshop(2, jobs=12)
    judge = cloud.dispatch.Mcts(iterations=300)
    first = judge.decide(begin(shop), WEIGHTS, seed=1)
    outcome = simulate(Course(shop, shop), judge, WEIGHTS, seed=1)
    assert outcome.measures.value(WEIGHTS) <= first.value


def test_only_what_must_begin_now_is_awarded() -> None:
    shop = workshop(2, jobs=12)
    decision = cloud.dispatch.Mcts(iterations=100).decide(begin(shop))
    assert 1 <= len(decision.awards) <= len(shop.machines)
    assert {bid.start for bid in decision.awards} == {0}
    assert len(decision.awards) + len(decision.memory) == 36
    assert decision.again_at is not None and decision.again_at > 0
    ahead = cloud.dispatch.Mcts(iterations=100).decide(begin(shop), ahead=decision.again_at)
    assert ahead.schedule == decision.schedule
    assert len(ahead.awards) > len(decision.awards)


@pytest.mark.parametrize("judge", ["plain", "compiled"])
def test_the_plan_of_somebody_else_is_followed_where_it_is_better(judge: str) -> None:
    state = begin(workshop(3, jobs=12))
    plan = cloud.dispatch.search.look_ahead(state, Weights(), 20_000, seed=1)
    decision = JUDGES[judge].model_copy(update={"iterations": 0}).decide(state, plan=plan.sequence)
    assert decision.schedule.end.last == plan.value


def test_parts_that_block_each_other_already_are_said_to() -> None:
    shop = Shop(
        machines={"a": Station(buffer_out=0), "b": Station(buffer_out=0)},
        jobs={"1": Work((Step({"a": 5}), Step({"b": 5}))), "2": Work((Step({"b": 5}), Step({"a": 5})))},
    )
    state = begin(shop)
    for job, machine in (("1", "a"), ("2", "b")):
        state.take(state.bid(job, machine))
    for judge in JUDGES.values():
        decision = judge.decide(state)
        assert decision.awards == ()
        assert decision.stuck == ("1",)


def test_simulation_says_who_blocks_whom_when_a_judge_lets_it_come_to_that() -> None:
    class Blind(ByRule):
        def decide(self, state, weights=None, *, seed=0, memory=(), plan=(), ahead=0):  # type: ignore[no-untyped-def]
            decision = super().decide(state, weights, seed=seed, memory=memory, plan=plan)
            if state.now:
                return decision
            swap = [state.bid("1", "a"), state.bid("2", "b")]
            return replace(decision, awards=tuple(swap), again_at=1)

    shop = Shop(
        machines={"a": Station(buffer_out=0), "b": Station(buffer_out=0)},
        jobs={"1": Work((Step({"a": 5}), Step({"b": 5}))), "2": Work((Step({"b": 5}), Step({"a": 5})))},
    )
    with pytest.raises(UsageError, match="clear a machine by hand"):
        simulate(Course(shop, shop), Blind(kind="fifo"))


def test_a_job_is_known_from_its_release_on() -> None:
    known: list[tuple[int, list[str]]] = []

    class Listening(ByRule):
        def plan(self, state, weights, seeds, seed):  # type: ignore[no-untyped-def]
            known.append((state.now, list(state.jobs)))
            return super().plan(state, weights, seeds, seed)

    shop = Shop({"a": Station()}, {"1": Work((Step({"a": 10}),)), "2": Work((Step({"a": 10}),), release=3)})
    simulate(Course(shop, shop), Listening(kind="fifo"))
    assert known[0] == (0, ["1"])
    assert known[1] == (3, ["1", "2"])


def test_a_breakdown_is_known_when_it_begins_and_its_end_when_it_is_over() -> None:
    jobs = {name: Work((Step({"a": 10, "b": 12}),), release=at) for name, at in {"1": 0, "2": 5}.items()}
    calm = Shop({"a": Station(), "b": Station()}, jobs)
    broken = replace(calm, machines={"a": Station(shut=(Shut(4, 104, broken=True),)), "b": Station()})
    outcome = simulate(Course(calm, broken, repair=20), JUDGES["fifo"])
    assert [(bid.machine, bid.start, bid.end) for bid in outcome.bids] == [("a", 0, 110), ("b", 5, 17)]


def test_how_long_a_step_takes_is_known_when_it_has_ended() -> None:
    def shop(first: int) -> Shop:
        second = Work((Step({"a": 5, "b": 20}),), release=5)
        return Shop({"a": Station(), "b": Station()}, {"1": Work((Step({"a": first}),)), "2": second})

    outcome = simulate(Course(shop(10), shop(30)), JUDGES["fifo"])
    assert [(bid.machine, bid.start, bid.end) for bid in outcome.bids] == [("a", 0, 30), ("a", 30, 35)]


def test_what_nobody_knows_yet_changes_nothing_yet() -> None:
    calm = Shop({"a": Station()}, {"1": Work((Step({"a": 10}),)), "2": Work((Step({"a": 10}),), release=3)})
    broken = replace(calm, machines={"a": Station(shut=(Shut(4, 9, broken=True),))})
    outcome = simulate(Course(calm, broken, repair=2), JUDGES["fifo"])
    assert [(bid.start, bid.end) for bid in outcome.bids] == [(0, 15), (15, 25)]


@pytest.mark.parametrize("reading", OPTIMA_S)
def test_the_published_cell_reaches_its_proved_optimum_under_every_reading(reading: str) -> None:
    shop = readings()[reading]
    outcome = simulate(Course(shop, shop), cloud.dispatch.Mcts(iterations=2_000), seed=1)
    assert faults(shop, outcome.bids) == []
    assert outcome.measures.makespan * TICK_S == pytest.approx(OPTIMA_S[reading])


def test_a_judge_is_read_from_settings_and_a_misspelt_one_refused() -> None:
    read = TypeAdapter[Judge](AnyJudge).validate_python
    assert read({"kind": "mcts", "iterations": 5}) == cloud.dispatch.Mcts(iterations=5)
    assert read({"kind": "eq11"}) == JUDGES["eq11 compiled"]
    for wrong in ({"kind": "best"}, {"kind": "fifo", "iterations": 5}):
        with pytest.raises(ValidationError):
            read(wrong)
