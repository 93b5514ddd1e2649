"""Decisions become times that can be carried out, whatever is decided; rules say what they promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.dispatch.check import faults
from messages.dispatch.commit import due
from messages.dispatch.decode import Schedule, Weights, decode, measures
from messages.dispatch.rules import RULES, revised, run
from messages.dispatch.shop import Shop, Shut, Station, Step, Work, shop_from
from messages.dispatch.state import Bid, begin
from messages.errors import UsageError
from messages.problem import Job, Machine, Operation, Power, Problem, Transport
from tests.dispatching import plain, shop_like, some_sequence, some_state

SEEDS = st.integers(0, 10**9)
QUICK = settings(max_examples=150, deadline=None)


@QUICK
@given(seed=SEEDS)
def test_whatever_is_decided_can_be_carried_out(seed: int) -> None:
    state = begin(shop_like(seed))
    schedule = decode(state, some_sequence(state, seed))
    assert schedule.faults or faults(state.shop, schedule.bids) == []


@QUICK
@given(seed=SEEDS, rule=st.sampled_from(sorted(RULES)))
def test_whatever_a_rule_decides_can_be_carried_out_and_decodes_to_the_same(seed: int, rule: str) -> None:
    state = begin(shop_like(seed))
    schedule = run(state, RULES[rule], Weights(waiting=0.5, energy=0.1, carbon=0.1))
    assert schedule.faults or faults(state.shop, schedule.bids) == []
    assert decode(state, schedule.sequence) == schedule


@QUICK
@given(seed=SEEDS)
def test_decoding_in_two_parts_is_decoding_at_once(seed: int) -> None:
    state = some_state(shop_like(seed), seed)
    whole = decode(state, some_sequence(state, seed))
    first = decode(state, whole.sequence[:3])
    second = decode(first.end, whole.sequence[3:])
    assert plain(second.end) == plain(whole.end)
    assert first.bids + second.bids == whole.bids


def by_step(bid: Bid) -> tuple[str, int]:
    return bid.job, bid.op


@QUICK
@given(seed=SEEDS)
def test_what_is_due_now_goes_first_and_nothing_changes(seed: int) -> None:
    state = some_state(shop_like(seed, detours=False), seed)
    whole = decode(state, some_sequence(state, seed))
    if whole.faults:
        return
    now = sorted(bid.must_begin for bid in whole.bids)[len(whole.bids) // 2] if whole.bids else 0
    awards, again_at = due(whole, now)
    rest = [bid for bid in whole.bids if bid not in awards]
    assert all(bid.must_begin > now for bid in rest)
    assert again_at == min((bid.must_begin for bid in rest), default=None)
    parts = decode(state, [(bid.job, bid.machine) for bid in (*awards, *rest)])
    assert sorted(parts.bids, key=by_step) == sorted(whole.bids, key=by_step)


def test_what_is_due_takes_with_it_what_is_earlier_on_its_machine_and_on_the_vehicle_of_that() -> None:
    places = {"near": 0, "b": 2, "a": 3, "far": 50}
    shop = Shop(
        machines={"a": Station(), "b": Station()},
        jobs={
            "far": Work((Step({"a": 5}),), release=50, at="far"),
            "first": Work((Step({"b": 5}),), release=5, at="near"),
            "then": Work((Step({"a": 5}),), release=8, at="b"),
        },
        ticks={a: {b: abs(x - y) for b, y in places.items() if a != b} for a, x in places.items()},
        vehicles=2,
        home="near",
    )
    schedule = decode(begin(shop), [("first", "b"), ("then", "a"), ("far", "a")])
    assert [(bid.job, bid.vehicle, bid.must_begin) for bid in schedule.bids] == [
        ("first", 0, 5), ("then", 0, 8), ("far", 1, 0)
    ]  # fmt: skip
    assert due(schedule, 0) == (schedule.bids, None)


@QUICK
@given(seed=SEEDS)
def test_an_older_sequence_is_revised_to_all_that_is_open(seed: int) -> None:
    shop = shop_like(seed)
    older = some_sequence(begin(shop), seed)
    state = some_state(shop, seed)
    found = revised(state, [*older, ("gone", "m0")])
    schedule = decode(state, found)
    assert not list(schedule.end.open())
    assert sorted(schedule.sequence) == sorted(found)


def two_vehicles() -> Shop:
    return Shop(
        machines={"a": Station(), "b": Station()},
        jobs={"1": Work((Step({"a": 5}), Step({"b": 4})), at="raw"), "2": Work((Step({"a": 3}),), at="raw")},
        ticks={"raw": {"a": 6, "b": 9}, "a": {"raw": 6, "b": 2}, "b": {"raw": 9, "a": 2}},
        vehicles=2,
        home="a",
        loading=1,
        unloading=2,
    )


def test_a_carry_is_an_empty_trip_then_loading_the_way_and_unloading() -> None:
    schedule = decode(begin(two_vehicles()), [("1", "a"), ("2", "a"), ("1", "b")])
    first, second, onward = schedule.bids
    assert (first.vehicle, first.departs, first.loads, first.leaves, first.arrives) == (0, 0, 6, 7, 15)
    assert (second.vehicle, second.arrives, second.start, second.end) == (1, 15, 20, 23)
    assert (first.start, first.end) == (15, 20)
    assert (onward.vehicle, onward.departs, onward.loads, onward.arrives, onward.end) == (0, 20, 20, 25, 29)
    assert measures(schedule).makespan == 29
    assert measures(schedule).waiting == (6 + 6 + 5) / 2  # the way to the raw store, and that of 2 in the queue
    assert measures(schedule).utilisation == (8 / 29 + 4 / 29) / 2


FULL = Shop(
    machines={"a": Station(buffer_in=1, buffer_out=0, shut=(Shut(40, 50),)), "b": Station()},
    jobs={name: Work((Step({"a": 10}), Step({"b": 6}, lag=1)), at="raw") for name in "12"},
    ticks={"raw": {"a": 2, "b": 2}, "a": {"b": 3, "raw": 2}, "b": {"a": 3, "raw": 2}},
    vehicles=2,
    home="raw",
    loading=1,
)


@pytest.mark.parametrize(
    ("job", "op", "changes", "says"),
    [
        ("1", 0, {"job": "2"}, "not each of 2 once"),
        ("1", 0, {"machine": "b"}, "b cannot do it"),
        ("1", 1, {"loads": 12}, "leaves at 12, is free at 14"),
        ("1", 1, {"arrives": 17}, "carried from 14 to 17"),
        ("1", 1, {"vehicle": -1}, "carried by nothing"),
        ("1", 1, {"start": 17, "end": 23}, "begins at 17, arrives at 18"),
        ("2", 0, {"start": 12, "end": 22}, "it is free at 13"),
        ("2", 0, {"start": 41, "end": 51}, "while it is shut"),
        ("2", 0, {"end": 24}, "takes 9, not 10"),
        ("2", 0, {"vehicle": 0, "loads": 1}, "vehicle 0: loads 2 at 1, can be there at 5"),
        ("2", 0, {"start": 14, "end": 24}, "when 1 finished parts are there"),
    ],
)
def test_the_checker_finds_what_cannot_be(job: str, op: int, changes: dict[str, Any], says: str) -> None:
    schedule = decode(begin(FULL), [("1", "a"), ("2", "a"), ("1", "b"), ("2", "b")])
    assert faults(FULL, schedule.bids) == []
    wrong = [replace(bid, **changes) if (bid.job, bid.op) == (job, op) else bid for bid in schedule.bids]
    found = faults(FULL, wrong)
    assert any(says in one for one in found), (found, schedule.bids)


def test_the_checker_counts_parts_before_a_machine() -> None:
    shop = Shop({"a": Station(buffer_in=1)}, {name: Work((Step({"a": 10}),), at="raw") for name in "123"})
    shop = replace(shop, ticks={"raw": {"a": 2}})
    bids = decode(begin(shop), [("1", "a"), ("2", "a"), ("3", "a")]).bids
    assert faults(shop, bids) == []
    assert faults(shop, [*bids[:2], replace(bids[2], loads=0, leaves=0, arrives=2)]) == [
        "a: 2 parts wait before it, there are 1 places"
    ]


def test_a_full_in_buffer_makes_the_carry_wait() -> None:
    shop = Shop(
        machines={"a": Station(buffer_in=1)},
        jobs={name: Work((Step({"a": 10}),), at="raw") for name in "123"},
        ticks={"raw": {"a": 2}},
    )
    schedule = decode(begin(shop), [("1", "a"), ("2", "a"), ("3", "a")])
    assert [bid.arrives for bid in schedule.bids] == [2, 2, 12]
    assert [bid.start for bid in schedule.bids] == [2, 12, 22]


@pytest.mark.parametrize(("hold", "places", "begins"), [(False, 0, 15), (False, 1, 5), (True, 1, 15)])
def test_finished_parts_in_the_way_delay_what_is_next(hold: bool, places: int, begins: int) -> None:
    shop = Shop(
        machines={"a": Station(buffer_out=places, hold=hold), "b": Station(buffer_in=1)},
        jobs={
            "0": Work((Step({"b": 15}),)),
            "1": Work((Step({"b": 15}),)),
            "2": Work((Step({"a": 5}), Step({"b": 1}))),
            "3": Work((Step({"a": 5}),)),
        },
    )
    schedule = decode(begin(shop), [("0", "b"), ("1", "b"), ("2", "a"), ("3", "a"), ("2", "b")])
    assert schedule.faults == 0
    assert next(bid.start for bid in schedule.bids if bid.job == "3") == begins


def test_parts_that_block_each_other_for_good_are_a_fault() -> None:
    swap = Shop(
        machines={"a": Station(buffer_out=0), "b": Station(buffer_out=0)},
        jobs={
            "1": Work((Step({"a": 5}), Step({"b": 5}))),
            "2": Work((Step({"b": 5}), Step({"a": 5}))),
        },
    )
    assert decode(begin(swap), [("1", "a"), ("2", "b"), ("1", "b"), ("2", "a")]).faults == 1
    assert decode(begin(swap), [("1", "a"), ("1", "b"), ("2", "b"), ("2", "a")]).faults == 0


def by_rule(rule: str, shop: Shop) -> Schedule:
    return run(begin(shop), RULES[rule], Weights())


def test_rules_take_the_first_the_shortest_and_the_longest() -> None:
    shop = Shop(
        machines={"a": Station()},
        jobs={
            "late": Work((Step({"a": 9}),), release=1),
            "long": Work((Step({"a": 8}),)),
            "short": Work((Step({"a": 2}),)),
            "longest": Work((Step({"a": 12}),)),
        },
    )
    order = {rule: [bid.job for bid in by_rule(rule, shop).bids] for rule in RULES}
    assert order["fifo"] == ["long", "short", "longest", "late"] == order["eq11"]
    assert order["sjf"] == ["short", "long", "late", "longest"]
    assert order["ljf"] == ["longest", "late", "long", "short"]
    assert order["greedy"] == ["short", "long", "late", "longest"]


def test_eq11_weighs_the_way_against_the_load() -> None:
    near = Shop(
        machines={"far": Station(), "near": Station()},
        jobs={name: Work((Step({"far": 10, "near": 10}),), at="raw") for name in "123"},
        ticks={"raw": {"far": 4, "near": 1}},
    )
    # 1: near 1 + 10 · 10/10 = 11, far 14. 2: near 1 + 10 · 21/21 = 11, far 4 + 10 · 10/21 = 8.8.
    assert [bid.machine for bid in by_rule("eq11", near).bids] == ["near", "far", "near"]


def test_a_problem_becomes_a_shop_and_what_dispatching_does_not_know_is_refused() -> None:
    machines = (Machine(id="a", power_kw=Power(work=3.0, idle=1.0)), Machine(id="b"))
    jobs = (Job(id="1", operations=(Operation(op=0, alternatives={"a": 3}), Operation(op=1, alternatives={"b": 2}))),)
    problem = Problem(machines=machines, jobs=jobs, transport=Transport(ticks={"a": {"b": 4}}))
    schedule = by_rule("fifo", shop_from(problem))
    assert [(bid.start, bid.end) for bid in schedule.bids] == [(0, 3), (7, 9)]
    assert measures(schedule).energy_kwh == pytest.approx(3 * 3 / 3600)
    batches = Problem(machines=(Machine(id="a", batch=2), Machine(id="b")), jobs=jobs)
    with pytest.raises(UsageError, match="batches"):
        shop_from(batches)


def test_a_shop_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="buffer in"):
        Shop(machines={"a": Station(buffer_in=0)}, jobs={})
    with pytest.raises(UsageError, match="who holds"):
        Shop(machines={"a": Station(buffer_out=0, hold=True)}, jobs={})
    with pytest.raises(UsageError, match="no machine here"):
        Shop(machines={}, jobs={"1": Work((Step({"a": 1}),))})
