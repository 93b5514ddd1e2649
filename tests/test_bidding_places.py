"""Places before and behind a machine, and what they allow it to promise."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bidding import Bidding
from edge.executor import Executor
from messages.clock import SECOND
from messages.contracts import Envelope, MachineEvent
from messages.negotiation import Award, MachineBid, Offer, task_of
from messages.plant import Plant

T0 = 1_800_000_000 * SECOND
WAY_S = 100
JUDGE: dict[str, Any] = {"term": 1, "session": "0000000a", "round": 1}
MACHINE = {"work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0, "time_h": [1]}


class Node:
    """One node with one machine that has so many places."""

    def __init__(self, *, before: int | None = None, behind: int | None = None, **more: Any) -> None:
        buffer = {key: value for key, value in (("in", before), ("out", behind)) if value is not None}
        self.plant = Plant.model_validate(
            {
                "site": "s1",
                "products": ["a"],
                "transport_s": WAY_S,
                "workshops": [{"name": "w", "node": "n", "machines": [{"id": "m", **MACHINE, "buffer": buffer}]}],
                **more,
            }
        )
        self.executor = Executor(self.plant, "n")
        self.bidding = Bidding(self.executor)

    def award(self, job: str, seconds: float, *, now: int = T0) -> None:
        body = Award(**JUDGE, job=job, op=0, machine="m", seconds=seconds)
        envelope = Envelope[Award](
            key=task_of(job, 0), target="s1/n", counter=1, valid_until=now + 10**6 * SECOND, body=body
        )
        (ack,) = self.executor.on_award(envelope, now).award_acks
        assert ack.accepted

    def say(self, kind: str, job: str, *, now: int = T0) -> None:
        self.executor.on_events("m", [MachineEvent(at=now, kind=kind, job=job, op=0)], now)

    def ask(self, job: str = "new", *, op: int = 0, now: int = T0, seconds: float = 60) -> MachineBid:
        offer = Offer(**JUDGE, job=job, op=op, deadline=now + 60 * SECOND, seconds={"m": seconds})
        bid = self.bidding.bid(offer, now)
        assert bid is not None
        return bid.bids[0]

    def begins_s(self, job: str = "new", *, op: int = 0) -> float:
        return (self.ask(job, op=op).start_at - T0) / SECOND


def test_a_part_that_is_not_there_comes_by_its_way_and_one_that_is_or_may_be_at_once() -> None:
    node = Node()
    assert node.begins_s() == WAY_S
    node.say("part_identified", "b1")
    assert node.begins_s("b1") == 0
    node.award("b2", 10)
    assert "b2" in node.executor.machines["m"].parts.called and node.bidding.free_at("m", T0) == T0 + 10 * SECOND


@pytest.mark.parametrize(
    ("places", "free_s", "begins_s"),
    [
        (1, 210, 300),  # each part is called when the one before it is begun
        (2, 110, 110),  # b1 was called at once, b2 is when b0 begins, the new one when b1 does
        (3, 30, 100),  # b2 was called as well
        (None, 210, 300),  # one part is called at a time
    ],
)
def test_a_part_comes_when_a_place_before_the_machine_is_free_for_it(
    places: int | None, free_s: int, begins_s: int
) -> None:
    node = Node(before=places)
    node.say("part_identified", "b0")
    for job in ("b0", "b1", "b2"):
        node.award(job, 10)
    assert (node.bidding.free_at("m", T0) - T0) / SECOND == free_s
    assert node.begins_s() == begins_s


def test_a_bid_says_how_many_places_are_free_and_a_machine_that_cannot_put_down_its_part_says_0() -> None:
    assert (Node().ask().places_in, Node().ask().places_out) == (None, None)
    node = Node(before=2, behind=1)
    assert (node.ask().places_in, node.ask().places_out) == (2, 2)
    node.say("part_identified", "b1")
    node.award("b1", 10)
    node.award("b2", 10)
    assert node.ask().places_in == 0, "one is there, one was called"
    for n, job in enumerate(("b1", "b2"), 1):
        node.say("started", job, now=T0 + n)
        node.say("finished", job, now=T0 + n)
        assert node.ask().places_out == 2 - n
    node.say("part_left", "b1", now=T0 + 9)
    assert node.ask().places_out == 1


WAYS: dict[str, Any] = {"raw": {"m": 30, "o": 1}, "o": {"m": 20, "o": 1}, "m": {"o": 5}}
STEPS: list[Any] = [{"time_h": {"m": 1, "o": 1}}, {"time_h": {"m": 1}}]
FLOOR: dict[str, Any] = {
    "products": ["a", "b"],
    "routes": {"a": [*STEPS, STEPS[1]], "b": STEPS},
    "workshops": [
        {"name": "w", "node": "n", "machines": [{"id": name, **MACHINE, "time_h": [1, 1]} for name in ("m", "o")]}
    ],
    "layout": {
        "ways_s": WAYS,
        "stores": ["raw", "far"],
        "at": {"a": "raw", "b": "raw"},
        "loading_s": 2,
        "unloading_s": 3,
    },
}


def test_where_ways_are_stated_no_part_comes_faster_than_by_the_shortest_of_its_route() -> None:
    def begins_s(op: int, **layout: Any) -> float:
        return Node(**FLOOR | {"layout": FLOOR["layout"] | layout}).begins_s(op=op)

    assert begins_s(0) == 35, "from the store"
    assert begins_s(0, at={"a": "raw"}) == 0, "parts of b come from nowhere"
    far = {"far": {"m": 10}}
    assert begins_s(0, at={"a": "raw", "b": "far"}, ways_s=WAYS | far) == 15, "parts of b are nearer"
    assert begins_s(1) == 0, "it may be here"
    assert begins_s(2) == 0, "it is here"
    assert begins_s(3) == 0, "no part of this plant has such an operation"


def test_a_machine_that_is_fed_by_others_only_waits_for_the_nearest() -> None:
    routes = {"a": [{"time_h": {"o": 1}}, STEPS[1]], "b": [{"time_h": {"o": 1}}, STEPS[1]]}
    assert Node(**FLOOR | {"routes": routes}).begins_s(op=1) == 25


@pytest.mark.parametrize(("vehicles", "begins_s"), [(None, 70), (1, 45)])
def test_a_vehicle_may_set_out_before_the_place_is_free(vehicles: int | None, begins_s: float) -> None:
    layout = FLOOR["layout"] | {"vehicles": vehicles, "home": "raw"}
    node = Node(**FLOOR | {"layout": layout})
    node.say("part_identified", "b0")
    for job in ("b0", "b1"):
        node.award(job, 10)
    assert node.begins_s() == begins_s


WORK = st.lists(st.integers(0, 300), max_size=6)


@given(queue=WORK, more=st.integers(0, 300), places=st.integers(1, 4), there=st.sets(st.integers(0, 6)))
def test_a_longer_queue_and_fewer_places_never_let_a_bid_begin_earlier(
    queue: list[int], more: int, places: int, there: set[int]
) -> None:
    def begins_s(places: int, queue: list[int]) -> float:
        node = Node(before=places)
        for number in there:
            node.say("part_identified", f"b{number}")
        for number, seconds in enumerate(queue):
            node.award(f"b{number}", seconds)
        return node.begins_s()

    assert begins_s(places, [*queue, more]) >= begins_s(places, queue)
    starts = [begins_s(count, queue) for count in range(1, 5)]
    assert all(fewer >= more for fewer, more in pairwise(starts))
