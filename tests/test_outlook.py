"""Awards held against futures: the plain and the compiled judge agree, promises stay, and what may come is weighed."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloud.dispatch
import messages.dispatch.judge
from cloud.dispatch.outlook import Outlook
from messages.dispatch import outlook
from messages.dispatch.check import faults
from messages.dispatch.commit import due
from messages.dispatch.decode import Choice, Weights, decode
from messages.dispatch.judge import ByRule
from messages.dispatch.outlook import come_to, settled, widened
from messages.dispatch.rules import RULES, run
from messages.dispatch.shop import Shop, Station, Step, Work
from messages.dispatch.simulate import Course, simulate
from messages.dispatch.state import State, begin
from tests.dispatching import shop_like, some_sequence, some_state

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from dispatch_online import WEIGHTS as ONLINE
from dispatch_online import course

SEEDS = st.integers(0, 10**9)
QUICK = settings(max_examples=15, deadline=None)
WEIGHTS = Weights(waiting=0.5, tardiness=0.2)


def arrived(state: State) -> State:
    """As if all the jobs of the shop had come unannounced, one after the other, up to now."""
    every = list(state.shop.jobs.values())
    came = [replace(work, release=state.now - 7 * (len(every) - n)) for n, work in enumerate(every)]
    return replace(state.copy(), shop=replace(state.shop, came=tuple(came)))


def some(seed: int) -> State:
    return arrived(some_state(replace(shop_like(seed, jobs=6), carbon={}), seed))


@QUICK
@given(seed=SEEDS)
def test_plain_and_compiled_judge_decide_the_same_when_jobs_come_unannounced(seed: int) -> None:
    state = some(seed)
    with pytest.MonkeyPatch.context() as fewer:  # plain futures take their time
        fewer.setattr(outlook, "FUTURES", 4)
        plain = messages.dispatch.judge.Mcts(iterations=10).decide(state, WEIGHTS, seed=seed)
        compiled = cloud.dispatch.Mcts(iterations=10).decide(state, WEIGHTS, seed=seed)
    assert (compiled.awards, compiled.memory, compiled.again_at) == (plain.awards, plain.memory, plain.again_at)


@QUICK
@given(seed=SEEDS)
def test_a_sequence_comes_to_the_same_in_every_future_plain_and_compiled(seed: int) -> None:
    state = some(seed)
    wide = widened(state)
    if wide is None:
        return
    weights = replace(WEIGHTS, energy=0.3)
    futures = outlook.futures(wide, weights, state.now + 200, seed)[:4]
    sequence = some_sequence(state, seed)
    for part in (sequence, sequence[: len(sequence) // 2], ()):
        assert Outlook(wide).come_to(part, futures) == pytest.approx(come_to(wide, part, futures), rel=1e-9)


@QUICK
@given(seed=SEEDS)
def test_what_is_settled_is_a_sequence_of_all_that_is_open_without_new_faults(seed: int) -> None:
    state = some(seed)
    wide = widened(state)
    if wide is None:
        return
    plan = run(state, RULES["fifo"], WEIGHTS).sequence
    found = settled(state, WEIGHTS, plan, wide, Outlook(wide).come_to, seed=seed)
    assert sorted(job for job, _ in found) == sorted(job for job, _ in plan)
    assert decode(state, found).faults <= decode(state, plan).faults


def test_nothing_is_thought_of_the_future_before_jobs_came_one_by_one() -> None:
    state = some(3)
    assert widened(state) is not None
    assert widened(replace(state, shop=replace(state.shop, came=()))) is None
    together = tuple(replace(work, release=0) for work in state.shop.came)
    assert widened(replace(state, shop=replace(state.shop, came=together))) is None
    twice = (together[0], replace(together[0], release=1))
    assert widened(replace(state, shop=replace(state.shop, came=twice))) is None
    assert widened(replace(state, shop=replace(state.shop, came=(*twice, replace(together[0], release=2))))) is not None


def one_machine(gap: int, quiet: int = 0, came: int = 8) -> State:
    """A long job and, while short ones keep coming, a part that is about to arrive."""
    short, long = Work((Step({"m": 10}),)), Work((Step({"m": 200}),))
    now = gap * came + quiet
    shop = Shop(
        machines={"m": Station()},
        jobs={"long": replace(long, release=now)},
        came=(*(replace(short, release=gap * n) for n in range(came)), replace(long, release=gap * came)),
    )
    return begin(shop, now)


def test_jobs_come_at_the_rate_at_which_they_came_and_hardly_when_none_has_come_for_long() -> None:
    busy, quiet = widened(one_machine(20)), widened(one_machine(20, quiet=60))
    assert busy is not None and quiet is not None
    assert busy.rate == quiet.rate == pytest.approx(1 / 20)
    assert busy.still == pytest.approx(8 / 9) and 0.2 < quiet.still < 0.4
    assert widened(one_machine(20, quiet=100)) is None
    until = busy.state.now + 200
    coming = [sum(at >= 0 for at in one.comes) for one in outlook.futures(busy, WEIGHTS, until, 1)]
    assert 3 < sum(coming) / len(coming) < 8
    times = [at for one in outlook.futures(busy, WEIGHTS, until, 1) for at in one.comes if at >= 0]
    assert busy.state.now <= min(times) and max(times) <= until
    some_come = [max(one.comes) >= 0 for one in outlook.futures(quiet, WEIGHTS, until + 60, 1)]
    assert 0.1 < sum(some_come) / len(some_come) < 0.5


def test_newcomers_are_not_let_wait_where_the_plan_of_what_is_known_would() -> None:
    """Two machines can do the long job, the slow one hardly slower; short ones keep coming to the fast one alone."""
    short, long = Work((Step({"fast": 10}),)), Work((Step({"fast": 100, "slow": 110}),))
    shop = Shop(
        machines={"fast": Station(), "slow": Station()},
        jobs={"long": replace(long, release=160)},
        came=(*(replace(short, release=20 * n) for n in range(8)), replace(long, release=160)),
    )
    state, weights = begin(shop, 160), Weights(makespan=0.1, waiting=10)
    for judge in (cloud.dispatch.Mcts(iterations=50), messages.dispatch.judge.Mcts(iterations=5)):
        (award,) = judge.decide(state, weights).awards
        assert award.machine == "slow"
        (blind,) = judge.decide(begin(replace(shop, came=()), 160), weights).awards
        assert blind.machine == "fast"


def test_a_machine_waits_for_a_short_part_that_is_about_to_arrive() -> None:
    """A work of 300 is there; in 5, a job of 10 arrives. Only an award that begins later makes it wait its turn."""
    came = tuple(Work((Step({"m": 10}),), release=n * 3000) for n in range(4))
    shop = Shop(
        machines={"m": Station()},
        jobs={"long": Work((Step({"m": 300}),), release=9000), "short": Work((Step({"m": 100}),), release=9005)},
        came=came,
    )
    state = begin(shop, 9000)
    plan: list[Choice] = [("long", "m"), ("short", "m")]
    wide = widened(state)
    assert wide is not None
    weights = Weights(makespan=0.0, waiting=10)
    found = settled(state, weights, plan, wide, partial(come_to, wide), seed=1)
    assert found[0] == ("short", "m")
    assert due(decode(state, found), state.now)[0] == ()


def test_time_that_is_over_leaves_the_plan_but_for_the_first_award() -> None:
    state = some(3)
    wide = widened(state)
    assert wide is not None
    asked: list[int] = []

    def counted(sequence: object, futures: object) -> float:
        asked.append(len(futures))  # type: ignore[arg-type]
        return 0.0

    plan = run(state, RULES["fifo"], WEIGHTS).sequence
    settled(state, WEIGHTS, plan, wide, counted, seed=1, until=time.monotonic() - 1)
    assert set(asked) <= {outlook.BLOCK}


def test_the_same_shop_twice_is_the_same_twice_and_can_be_carried_out() -> None:
    one, judge = course(200, 10), cloud.dispatch.Mcts(iterations=100)
    first, second = (simulate(one, judge, ONLINE, seed=1) for _ in range(2))
    assert first.bids == second.bids
    assert faults(one.actual, first.bids) == []


def test_a_course_tells_the_judge_who_came_and_nothing_of_who_will() -> None:
    seen: list[State] = []

    class Watching(ByRule):
        def plan(self, state, weights, seeds, seed):  # type: ignore[no-untyped-def]
            seen.append(state)
            return super().plan(state, weights, seeds, seed)

    one = course(200, 8)
    simulate(Course(one.foreseen, one.actual), Watching(kind="fifo"), ONLINE)
    for state in seen:
        assert [work.release for work in state.shop.came] == sorted(
            work.release for work in one.foreseen.jobs.values() if work.release <= state.now
        )
        foreseen = [work.steps for work in one.foreseen.jobs.values()]
        assert all(work.steps in foreseen for work in state.shop.came)
