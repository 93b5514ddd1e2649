"""What machines promise: when they would begin, what that would cost, and when they say nothing or no."""

from __future__ import annotations

from typing import Any

import pytest

from edge.bidding import Bidding
from edge.duties import REMEMBERED
from edge.executor import Executor
from messages.clock import SECOND
from messages.contracts import Envelope, MachineEvent, PlanInForce, Signal
from messages.errors import ConfigError
from messages.negotiation import Agenda, Award, Bid, MachineBid, Offer, task_of
from messages.plant import Plant

T0 = 1_800_000_000 * SECOND
HOUR = 3600 * SECOND
KILN = {"work_kw": 200, "idle_kw": 60, "preheat_kw": 120, "preheat_h": 1, "off_kw": 2, "time_h": [2]}
PRESS = {"work_kw": 40, "idle_kw": 5, "preheat_kw": 0, "preheat_h": 0, "time_h": [1]}
PLANT = Plant.model_validate(
    {
        "site": "s1",
        "products": ["a"],
        "workshops": [
            {"name": "heat", "node": "heat", "machines": [{"id": "kiln-1", **KILN}, {"id": "press-1", **PRESS}]},
            {"name": "gas", "node": "heat", "carrier": "gas", "machines": [{"id": "gas-1", **KILN}]},
            {"name": "elsewhere", "node": "far", "machines": [{"id": "far-1", **PRESS}]},
        ],
    }
)
JUDGE: dict[str, Any] = {"term": 1, "session": "0000000a", "round": 1}


class Node:
    """An executor and its bids."""

    def __init__(self, **signals: Signal) -> None:
        self.executor = Executor(PLANT, "heat")
        self.bidding = Bidding(self.executor, dict(signals))
        self.counter = 0

    def state(self, machine: str, state: str, at: int = T0) -> None:
        self.executor.on_events(machine, [MachineEvent(at=at, kind="state", state=state)], at)

    def award(self, job: str, machine: str, hours: float, *, start: int = 0, now: int = T0) -> None:
        self.counter += 1
        body = Award(**JUDGE, job=job, op=0, machine=machine, seconds=hours * 3600, not_before=start)
        envelope = Envelope[Award](
            key=task_of(job, 0), target="s1/heat", counter=self.counter, valid_until=now + 1000 * HOUR, body=body
        )
        (ack,) = self.executor.on_award(envelope, now).award_acks
        assert ack.accepted and (ack.term, ack.session) == (1, "0000000a")

    def run(self, machine: str, job: str, at: int) -> None:
        self.executor.on_events(machine, [MachineEvent(at=at, kind="started", job=job, op=0)], at)

    def ask(self, now: int = T0, *, arrives: int | None = None, **hours: float) -> Bid | None:
        seconds = {name.replace("_", "-"): one * 3600 for name, one in hours.items()}
        there = {} if arrives is None else dict.fromkeys(seconds, arrives)
        offer = Offer(**JUDGE, job="new", op=0, deadline=now + HOUR, seconds=seconds, arrives_at=there)
        return self.bidding.bid(offer, now)

    def one(self, now: int = T0, *, arrives: int | None = None, **hours: float) -> MachineBid:
        bid = self.ask(now, arrives=arrives, **hours)
        assert bid is not None and not bid.declined
        (found,) = bid.bids
        return found


def test_a_cold_machine_is_heated_in_time_for_the_part_and_that_is_charged() -> None:
    node = Node()
    bid = node.one(kiln_1=2)
    assert (bid.start_at, bid.end_at, bid.energy_kwh) == (T0 + HOUR, T0 + 3 * HOUR, 400 + 120)
    late = node.one(kiln_1=2, arrives=T0 + 5 * HOUR)
    assert (late.start_at, late.energy_kwh) == (T0 + 5 * HOUR, 400 + 120)
    node.state("kiln-1", "preheat", T0)
    half = node.one(T0 + HOUR // 2, kiln_1=2)
    assert (half.start_at, half.energy_kwh) == (T0 + HOUR, 400), "its heating goes on whoever comes"


@pytest.mark.parametrize(
    ("gap_h", "kwh"),
    [
        (0, 0),
        (0.5, 30),  # too short to heat again
        (1.5, 90),  # idling is less than heating again
        (4, 120 + 3 * 2),  # off, then heated again
    ],
)
def test_a_bid_is_charged_with_the_gap_before_it_idle_or_off_whichever_is_less(gap_h: float, kwh: float) -> None:
    node = Node()
    node.state("kiln-1", "idle")
    node.award("b1", "kiln-1", 2)
    node.run("kiln-1", "b1", T0)
    node.award("b2", "kiln-1", 1)  # waits its turn
    bid = node.one(T0 + HOUR, kiln_1=2, arrives=T0 + round((3 + gap_h) * HOUR))
    assert (bid.start_at, bid.waiting, bid.load_s) == (T0 + round((3 + gap_h) * HOUR), 1, (2 + 1 + 2) * 3600)
    assert bid.energy_kwh == pytest.approx(400 + kwh)


def test_a_queue_of_a_cold_machine_begins_when_it_is_warm() -> None:
    node = Node()
    node.award("b1", "kiln-1", 2)
    node.award("b2", "kiln-1", 2, start=T0 + 4 * HOUR)
    assert node.bidding.free_at("kiln-1", T0) == T0 + 6 * HOUR
    assert node.one(kiln_1=1).start_at == T0 + 6 * HOUR


def test_carbon_and_money_follow_the_hours_in_which_they_are_drawn_and_are_not_guessed_for_gas() -> None:
    forecast = Signal(name="carbon", revision=1, unit="kg/kWh", start=T0, step_s=3600, values=[0.1, 0.5, 0.2])
    price = Signal(name="tariff", revision=1, unit="EUR/kWh", start=T0, step_s=3600, values=[0.3])
    node = Node(carbon=forecast, tariff=price)
    bid = node.one(kiln_1=2)
    assert bid.carbon_kg == pytest.approx(120 * 0.1 + 200 * 0.5 + 200 * 0.2)
    assert bid.cost == pytest.approx(520 * 0.3)
    gas = node.one(gas_1=2)
    assert (gas.carbon_kg, gas.cost, gas.energy_kwh) == (None, None, 520)


def test_machines_of_other_nodes_are_passed_over_and_an_offer_for_them_alone_is_not_answered() -> None:
    node = Node()
    both = node.ask(kiln_1=2, far_1=1)
    assert both is not None and [one.machine for one in both.bids] == ["kiln-1"] and both.declined == {}
    assert node.ask(far_1=1) is None


def test_who_is_down_or_in_an_unknown_state_declines_and_says_why() -> None:
    node = Node()
    node.executor.on_events("kiln-1", [MachineEvent(at=T0, kind="breakdown", state="down")], T0)
    node.state("press-1", "calibrating")
    bid = node.ask(kiln_1=2, press_1=1)
    assert bid is not None and bid.bids == []
    assert bid.declined == {"kiln-1": "down", "press-1": "its state 'calibrating' is not known here"}


def test_an_agenda_names_the_machines_that_could_begin_at_once() -> None:
    node = Node()
    node.award("b1", "gas-1", 1)

    def warm() -> list[str]:
        agenda = node.bidding.agenda(T0)
        assert agenda is not None
        return agenda.warm

    assert warm() == ["press-1"], "it needs no heating"
    node.state("kiln-1", "preheat")
    assert warm() == ["press-1"]
    node.state("kiln-1", "idle", T0 + 1)
    node.run("gas-1", "b1", T0)
    assert warm() == ["kiln-1", "press-1", "gas-1"]
    node.executor.on_events("press-1", [MachineEvent(at=T0, kind="breakdown", state="down")], T0)
    assert warm() == ["kiln-1", "gas-1"]


def test_an_award_for_another_node_can_be_told_apart() -> None:
    node = Node()
    body = Award(**JUDGE, job="b1", op=0, machine="far-1")
    envelope = Envelope[Award](key=task_of("b1", 0), target="s1/far", counter=1, valid_until=T0 + HOUR, body=body)
    assert not node.executor.is_mine(envelope)
    assert node.executor.is_mine(envelope.model_copy(update={"target": "s1/heat"}))


def test_a_snapshot_of_another_version_is_refused_with_the_cure_or_read_with_defaults() -> None:
    with pytest.raises(ConfigError, match=r"another version .* first at machines.*empty data folder"):
        Executor(PLANT, "heat", b'{"machines": {"kiln-1": {"running": 7}}}')
    old = b'{"machines": {"kiln-1": {"state": "idle", "part": "b1", "part_op": 0, "pending": null}}, "begun": []}'
    assert Executor(PLANT, "heat", old).machines["kiln-1"].state == "idle"


def test_a_part_that_is_said_to_be_there_after_its_work_was_is_not_there() -> None:
    node = Node()
    node.award("j", "press-1", 1)
    identified = MachineEvent(at=T0, kind="part_identified", job="j", op=0)
    work = [MachineEvent(at=T0 + n, kind=kind, job="j", op=0) for n, kind in enumerate(("started", "finished"), 1)]
    node.executor.on_events("press-1", [*work, identified], T0 + HOUR)
    assert not node.executor.machines["press-1"].parts.waiting


def test_a_node_remembers_so_many_operations_beside_those_of_its_plan_and_its_snapshot_grows_no_further() -> None:
    node = Node()
    assignments = [
        {"job": f"p{n}", "op": 0, "machine": "press-1", "start": n, "end": n + 1, "power_kw": 1} for n in range(3)
    ]
    body = PlanInForce.model_validate(
        {
            "tick_s": 60,
            "frozen_until": 0,
            "plan": {"revision": 1, "t0": T0, "assignments": assignments, "objective": {}},
        }
    )
    node.executor.on_plan(
        Envelope[PlanInForce](key="plan", target="s1/all", counter=1, valid_until=T0 + 9 * HOUR, body=body), T0
    )

    def work(job: str) -> None:
        kinds = ("started", "finished")
        events = [MachineEvent(at=T0, kind=kind, job=job, op=0) for kind in kinds]  # type: ignore[arg-type]
        node.executor.on_events("press-1", events, T0)

    for job in ("p0", "p1"):
        work(job)
    sizes = []
    for n in range(2 * REMEMBERED):
        work(f"j{n:05}")
        sizes.append(len(node.executor.snapshot()) if n % 100 == 99 else 0)
    assert [order.job for order in node.executor.queue("press-1")] == ["p2"]
    assert max(sizes) < 1.1 * sizes[REMEMBERED - 1]
    again = Executor(PLANT, "heat", node.executor.snapshot())
    assert [order.job for order in again.queue("press-1")] == ["p2"], (
        "what the plan gave is begun once, however long ago"
    )


def test_what_cannot_be_told_is_declined_or_told_as_far_as_it_can_and_never_ends_a_node() -> None:
    node = Node()
    node.award("long", "press-1", 2)
    node.run("press-1", "long", T0)
    assert node.one(press_1=1e9 / 3600).load_s == 1e9, "and the two hours before"
    for late in (2**53 - 1, 2**53 - HOUR):
        bid = node.ask(press_1=1, arrives=late)
        assert bid is not None and not bid.bids and "later than any time" in bid.declined["press-1"]
    node.award("never", "kiln-1", 2, start=2**53 - 1)
    agenda = node.bidding.agenda(T0)
    assert agenda is not None and agenda.free_at["kiln-1"] == 2**53 - 1
    assert Agenda.decode(agenda.encode()) == agenda
