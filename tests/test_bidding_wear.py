"""How worn a machine is: what counts, what takes it back, who sees it, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.bidding import Bidding
from edge.executor import Executor, Out
from edge.happenings import LONGEST
from edge.wear import MOST_US, Wear
from messages.clock import SECOND
from messages.contracts import KINDS, Batch, Envelope, MachineEvent, OrderedJob, Serviced, Signal
from messages.dispatch.judge import ByRule, Mcts
from messages.dispatch.monitoring import Monitor
from messages.dispatch.tenders import Tenders
from messages.negotiation import Authority, Award, Bid, MachineBid, Offer, task_of
from messages.plant import Plant
from shoal.swarm.outcome import Swarm
from shoal.swarm.sim import simulate

T0 = 1_800_000_000 * SECOND
HOUR = 3600 * SECOND
JUDGE: dict[str, Any] = {"term": 1, "session": "0000000a", "round": 1}
MACHINE: dict[str, Any] = {"work_kw": 40, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0, "time_h": [1]}
PRICE = Signal(name="tariff", revision=1, unit="EUR/kWh", start=T0, step_s=3600, values=[0.25])


def plant(**press: Any) -> Plant:
    """A press with these fields, one that says nothing of services, and one that burns gas."""
    machines = [{"id": "press-1", **MACHINE, **press}, {"id": "press-2", **MACHINE}]
    gas = [{"id": "gas-1", **MACHINE, "service_h": 100, "service_cost": 500}]
    return Plant.model_validate(
        {
            "site": "s1",
            "products": ["a"],
            "workshops": [
                {"name": "pressing", "node": "press", "machines": machines},
                {"name": "gas", "node": "press", "carrier": "gas", "machines": gas},
            ],
        }
    )


SERVICED = plant(service_h=10, service_cost=300)


class Node:
    """One node, fed with what its machines say."""

    def __init__(self, of: Plant = SERVICED, **signals: Signal) -> None:
        self.executor = Executor(of, "press")
        self.signals = signals
        self.begun = 0

    @property
    def bidding(self) -> Bidding:
        return Bidding(self.executor, dict(self.signals))

    def say(self, kind: str, at: int, machine: str = "press-1", **more: Any) -> Out:
        return self.executor.on_events(machine, [MachineEvent(at=at, kind=kind, **more)], at)

    def work(self, begins: int, ends: int, kind: str = "finished", machine: str = "press-1", hours: float = 1) -> None:
        """An operation of nominally so many hours, awarded, begun then and ended then."""
        self.begun += 1
        job = f"j{self.begun}"
        body = Award(**JUDGE, job=job, op=0, machine=machine, seconds=hours * 3600)
        key = task_of(job, 0)
        envelope = Envelope[Award](key=key, target="s1/press", counter=1, valid_until=ends + HOUR, body=body)
        self.executor.on_award(envelope, begins)
        for at, what in ((begins, "started"), (ends, kind)):
            self.say(what, at, machine, job=job, op=0)

    def restart(self) -> None:
        self.executor = Executor(self.executor.plant, "press", self.executor.snapshot())

    def ask(self, machine: str = "press-1", hours: float = 1, now: int = T0) -> MachineBid:
        offer = Offer(**JUDGE, job="new", op=0, deadline=now + HOUR, seconds={machine: hours * 3600})
        bid = self.bidding.bid(offer, now)
        assert bid is not None and not bid.declined
        return bid.bids[0]


def test_the_time_a_machine_worked_is_its_wear_as_it_was_not_as_it_should_have_been() -> None:
    node = Node()
    assert node.ask().wear == 0
    node.work(T0, T0 + 2 * HOUR, hours=1)
    assert node.ask(now=T0 + 9 * HOUR).wear == pytest.approx(0.2), "it idled since"
    node.work(T0 + 10 * HOUR, T0 + 11 * HOUR, "interrupted", hours=3)
    assert node.ask().wear == pytest.approx(0.3)
    assert node.ask("press-2").wear is None, "its plant states no interval"


def test_what_was_cut_off_by_a_new_boot_counts_for_no_longer_than_it_should_have_taken() -> None:
    node = Node()
    node.executor.on_boot("press-1", "00000001", T0)
    node.work(T0, T0 + HOUR, "state", hours=2)
    node.executor.on_boot("press-1", "00000002", T0 + 50 * HOUR)
    assert node.ask().wear == pytest.approx(0.2)


def test_a_clock_that_is_set_right_during_work_adds_no_years() -> None:
    node = Node()
    node.work(T0 - 30 * 365 * 24 * HOUR, T0, hours=2)
    assert node.ask().wear == pytest.approx(LONGEST * 0.2)
    node.work(T0, T0 + 5 * HOUR, hours=0)
    assert node.ask().wear == pytest.approx(LONGEST * 0.2 + 0.5), "nobody said how long it should take"


def test_only_a_service_takes_wear_back_and_it_is_kept_as_a_record() -> None:
    node = Node()
    node.work(T0, T0 + 4 * HOUR)
    at = T0 + 5 * HOUR
    node.say("breakdown", at, state="down")
    node.say("repaired", at + 1, state="off")
    node.executor.on_boot("press-1", "00000001", at + 2)
    node.executor.on_boot("press-1", "00000002", at + 3)
    node.say("state", at + 4, state="idle")
    node.restart()
    assert node.ask(now=at + 4).wear == pytest.approx(0.4)
    records = node.say("serviced", at + 5).records
    assert records == (Serviced(at=at + 5, machine="press-1", worked_s=4 * 3600),)
    assert node.ask(now=at + 5).wear == 0
    node.work(at + 6, at + 6 + HOUR)
    assert not node.say("serviced", at + 5).records, "said again, it is no second one"
    assert node.ask(now=at + 5).wear == pytest.approx(0.1)


def test_the_record_of_a_service_is_known_to_whoever_reads_records() -> None:
    record = Serviced(at=T0, machine="press-1", worked_s=7)
    batch = Batch(epoch="00000001", lane="record", seq=1, floor=1, made_at=T0, records=[record])
    assert Batch.decode(batch.encode()).records == [record] and record.kind in KINDS


def test_a_machine_beyond_its_interval_bids_and_everybody_sees_it() -> None:
    node = Node()
    node.work(T0, T0 + 12 * HOUR)
    assert node.ask(now=T0 + 12 * HOUR).wear == pytest.approx(1.2)
    agenda = node.bidding.agenda(T0 + 12 * HOUR)
    assert agenda is not None and agenda.wear == {"press-1": pytest.approx(1.2), "gas-1": 0}
    nodes = dict.fromkeys(SERVICED.machines, "press")
    book = Tenders(Authority(1, "0000000a"), site="s1", judge="cloud", machines=nodes)
    book.on_presence("press", online=True)
    book.on_agenda("press", agenda)
    view = Monitor(nodes).view(book, batons={}, now=T0 + 12 * HOUR)
    assert view is not None
    assert {name: one.wear for name, one in view.machines.items()} == {"press-2": None, **agenda.wear}


def test_a_bid_costs_its_energy_and_the_share_of_a_service_that_the_work_uses_up() -> None:
    node = Node(tariff=PRICE)
    energy = 40 * 2 * 0.25
    assert node.ask(hours=2).cost == pytest.approx(energy + 2 / 10 * 300)
    assert node.ask("press-2", hours=2).cost == pytest.approx(energy)
    assert node.ask("gas-1", hours=2).cost is None, "what its gas costs is not known"


def test_where_nobody_told_a_tariff_a_bid_costs_its_wear_or_it_is_not_known() -> None:
    node = Node()
    assert node.ask(hours=2).cost == pytest.approx(60) and node.ask("press-2").cost is None
    assert Node(plant(service_h=10)).ask().cost is None, "nobody says what a service costs"
    assert Node(plant(service_h=10, service_cost=0), tariff=PRICE).ask().cost == pytest.approx(10)


def test_a_cost_of_services_without_their_interval_is_refused_with_the_cure() -> None:
    with pytest.raises(ValidationError, match=r"press-1.*give service_h"):
        plant(service_cost=300)


def test_wear_stays_at_a_bound_that_a_clock_which_leaps_cannot_pass() -> None:
    wear = Wear()
    wear.worked(0, 10 * MOST_US)
    wear.worked(5, 0)
    assert wear.worked_us == MOST_US and Wear.model_validate_json(wear.model_dump_json()) == wear


@pytest.mark.parametrize("kind", ["fifo", "sjf", "ljf", "eq11", "greedy", "mcts"])
def test_machines_that_do_as_well_are_worn_alike_and_a_dear_service_comes_last(kind: str) -> None:
    def worked(*machines: dict[str, Any]) -> list[int]:
        line = [{"id": f"m{n}", **MACHINE, **more} for n, more in enumerate(machines)]
        workshops = [{"name": "w", "node": "n", "machines": line}]
        floor = Plant.model_validate({"site": "s", "products": ["a"], "workshops": workshops})
        jobs = tuple(OrderedJob(job=f"j{n}", product="a", release_at=Swarm.start + 2 * n * HOUR) for n in range(6))
        judge = Mcts(iterations=8) if kind == "mcts" else ByRule.model_validate({"kind": kind})
        outcome = simulate(Swarm(floor, jobs, judge))
        assert outcome.holds and len(outcome.runs) == 6
        return [sum(one.machine == name for one in outcome.runs) for name in floor.machines]

    same: dict[str, Any] = {"service_h": 100}
    assert worked(same, same, same) == [2, 2, 2]
    assert worked({}, {}, {}) == [6, 0, 0], "who says nothing of wear is taken in turn"
    assert worked({"service_cost": 9, **same}, {"service_cost": 5, **same}) == [0, 6]
    assert worked({"service_cost": 9, **same}, {**same}) == [3, 3], "costs are compared where all are known"


STEPS = st.one_of(
    st.tuples(st.just("finished"), st.integers(0, 5 * HOUR)),
    st.tuples(st.just("interrupted"), st.integers(0, 5 * HOUR)),
    st.tuples(st.sampled_from(["repaired", "breakdown", "refused", "boot", "restart", "serviced"]), st.just(0)),
)


@given(st.lists(STEPS, max_size=12))
def test_wear_never_falls_but_by_a_service_whatever_happens_and_however_often_the_node_dies(
    steps: list[tuple[str, int]],
) -> None:
    node, now, before = Node(), T0, 0.0
    for kind, took in steps:
        now += 1
        if kind == "restart":
            node.restart()
        elif kind == "boot":
            node.executor.on_boot("press-1", f"{now % 2**32:08x}", now)
        elif took or kind in ("finished", "interrupted"):
            node.say("repaired", now, state="idle")
            node.work(now, now + took, kind, hours=2)
            now += took
        else:
            node.say(kind, now, state="down" if kind == "breakdown" else "off")
        wear = node.bidding.wear("press-1")
        assert wear is not None
        assert wear == 0 if kind == "serviced" else wear >= before
        before = wear


@given(
    seconds=st.floats(0, 1e6),
    more=st.floats(0, 1e6),
    interval_h=st.floats(0.01, 1e5),
    shorter=st.floats(0.01, 1),
    price=st.floats(0, 1e5),
    dearer=st.floats(0, 1e5),
)
def test_more_work_shorter_intervals_and_dearer_services_never_cost_less(
    seconds: float, more: float, interval_h: float, shorter: float, price: float, dearer: float
) -> None:
    def cost(seconds: float, interval_h: float, price: float) -> float:
        node = Node(plant(service_h=interval_h, service_cost=price), tariff=PRICE)
        found = node.ask(hours=seconds / 3600).cost
        assert found is not None
        return found

    least = cost(seconds, interval_h, price) - 1e-5
    assert cost(seconds + more, interval_h, price) >= least
    assert cost(seconds, interval_h * shorter, price) >= least
    assert cost(seconds, interval_h, price + dearer) >= least


def test_a_bid_of_a_node_that_knows_no_wear_and_no_places_is_read() -> None:
    said = {"machine": "press-1", "start_at": 1, "end_at": 2, "energy_kwh": 3.0}
    bid = Bid(**JUDGE, job="a", op=0, at=1, valid_until=2, bids=[MachineBid.model_validate(said)])
    (one,) = Bid.decode(bid.encode()).bids
    assert (one.wear, one.places_in, one.places_out) == (None, None, None)
