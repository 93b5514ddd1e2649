"""What a judge sees of a floor: work in progress, parts under way, broken and warm machines, buffers, bids, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from messages.clock import SECOND
from messages.contracts import Finished, OrderedJob, Signal, Started, StateChanged
from messages.dispatch.ground import OUTSIDE, Ground
from messages.dispatch.judge import ByRule
from messages.dispatch.shop import Shop, Shut, Station, Step, Work
from messages.dispatch.situation import UNKNOWN_REPAIR_S, situation, wanted
from messages.dispatch.state import State, Vehicle, begin
from messages.dispatch.task import Carried, Task
from messages.dispatch.tenders import Tenders
from messages.negotiation import Agenda, Authority, Bid, Held, MachineBid
from messages.plant import Plant

T0 = 1000 * SECOND
ME = Authority(1, "0000000a")


def plant(**more: Any) -> Plant:
    machine = {"work_kw": 2.0, "idle_kw": 1.0, "preheat_kw": 3.0, "preheat_h": 0}
    return Plant.model_validate(
        {
            "site": "s",
            "tick_s": 0.5,
            "transport_s": 0.0,
            "products": ["p", "q"],
            "routes": {
                "p": [
                    {"time_h": {"a": 20 / 3600, "b": 30 / 3600}},
                    {"time_h": {"c": 10 / 3600}, "kw": {"c": 7.5}, "wait_s": 3.2},
                ],
                "q": [{"time_h": {"c": 15 / 3600}}],
            },
            "workshops": [
                {"name": f"w{name}", "node": f"n{name}", "machines": [machine | {"id": name} | more.pop(name, {})]}
                for name in "abc"
            ],
        }
        | more
    )


LAYOUT = {
    "ways_s": {
        "raw": {"a": 4, "b": 6, "c": 8},
        "a": {"raw": 4, "c": 5},
        "b": {"raw": 6, "c": 5},
        "c": {"raw": 8, "a": 5, "b": 5},
    },
    "stores": ["raw"],
    "at": {"p": "raw", "q": "raw"},
    "vehicles": 2,
    "home": "raw",
    "loading_s": 1,
    "unloading_s": 0.5,
    "power_kw": 1.5,
}


class Floor:
    """A book with everybody there, and its orders."""

    def __init__(self, plant: Plant, jobs: dict[str, str], **more: Any) -> None:
        self.plant, self.ground = plant, Ground(plant, T0, more.pop("signals", {}))
        node_of = {name: plant.node_of(name) for name in plant.machines}
        self.book = Tenders(ME, site="s", judge="cloud", machines=node_of)
        self.jobs = {name: OrderedJob(job=name, product=product, **more) for name, product in jobs.items()}
        for job in self.jobs.values():
            for op, (_, able) in enumerate(plant.route(job.product)):
                seconds = {name: hours * 3600 for name, hours in able.items()}
                self.book.add(Task(job=job.job, op=op, seconds=seconds))
        self.revision = 0
        for node in plant.nodes:
            self.book.on_presence(node, True)
            self.agenda(node, 0)
        self.book.begin(T0)

    def agenda(self, node: str, at: float, **more: Any) -> None:
        self.revision += 1
        at_us = T0 + round(at * SECOND)
        self.book.on_agenda(node, Agenda(term=1, session=ME.session, revision=self.revision, at=at_us, **more))

    def started(self, job: str, op: int, machine: str, at: float) -> None:
        at_us = T0 + round(at * SECOND)
        self.book.on_record(Started(at=at_us, machine=machine, job=job, op=op, plan_revision=0))

    def finished(self, job: str, op: int, machine: str, at: float) -> None:
        at_us = T0 + round(at * SECOND)
        self.book.on_record(Finished(at=at_us, machine=machine, job=job, op=op, started_at=T0))

    def bid(self, job: str, op: int, at: float, **seconds: float) -> None:
        now = T0 + round(at * SECOND)
        self.book.open((job, op))
        for send in self.book.offer((job, op), now):
            bids = [
                MachineBid(machine=name, start_at=now, end_at=now + round(seconds[name] * SECOND), energy_kwh=0)
                for name in send.message.seconds  # type: ignore[attr-defined]
                if name in seconds
            ]
            self.book.on_bid(
                send.node,
                Bid(term=1, session=ME.session, job=job, op=op, round=self.book.tasks[job, op].round, at=now,
                    valid_until=now + 600 * SECOND, bids=bids),
            )  # fmt: skip

    def award(self, job: str, op: int, machine: str, at: float, carried: Carried | None = None) -> None:
        self.bid(job, op, at, **self.book.tasks[job, op].seconds)
        assert self.book.award((job, op), machine, T0 + round(at * SECOND), carried=carried)

    def at(self, at: float, **more: Any) -> tuple[State, dict[str, int]]:
        return situation(self.ground, self.jobs, self.book, now=T0 + round(at * SECOND), **more)


def test_at_first_it_is_the_whole_plant_on_its_grid() -> None:
    signal = Signal(name="carbon", revision=1, unit="kg/kWh", start=T0 + 5 * SECOND, step_s=10, values=[0.5, 0.1])
    floor = Floor(
        plant(layout=LAYOUT, a={"buffer": {"in": 2, "out": 3}, "preheat_h": 60 / 3600}),
        {"T1": "p", "T2": "q"},
        release_at=T0 + 2_600_000,
        due_at=T0 + 100 * SECOND,
        signals={"carbon": signal},
    )
    state, first = floor.at(0)
    sound = {"idle_kw": 1.0, "preheat_kw": 3.0}
    curves = floor.ground.carbon
    assert curves["electricity"].over(0, 40) == 0.5 * 30 + 0.1 * 10
    assert state.shop == Shop(
        machines={
            "a": Station(buffer_in=2, buffer_out=3, preheat=120, **sound),  # type: ignore[arg-type]
            "b": Station(**sound),  # type: ignore[arg-type]
            "c": Station(**sound),  # type: ignore[arg-type]
        },
        jobs={
            "T1": Work((Step({"a": 40, "b": 60}, {"a": 2.0, "b": 2.0}), Step({"c": 20}, {"c": 7.5}, 7)), 6, 200, "raw"),
            "T2": Work((Step({"c": 30}, {"c": 2.0}),), 6, 200, "raw"),
        },
        ticks={place: {to: 2 * way for to, way in row.items()} for place, row in LAYOUT["ways_s"].items()},  # type: ignore
        vehicles=2,
        home="raw",
        loading=2,
        unloading=1,
        carry_kw=1.5,
        hour_ticks=7200.0,
        carbon=curves,
    )
    assert first == {"T1": 0, "T2": 0}
    assert state == begin(state.shop, 0)


def test_work_in_progress_is_its_machine_s_busy_time_and_its_part_is_ready_at_the_end_foreseen() -> None:
    floor = Floor(plant(), {"T1": "p", "T2": "q"})
    floor.started("T1", 0, "a", 3.2)
    state, first = floor.at(10)
    assert first == {"T1": 1, "T2": 0}
    assert state.machines["a"].free == state.machines["a"].ended == 47  # 23.2 s, rounded up
    assert state.jobs["T1"].ready == 47
    assert len(state.shop.route["T1"]) == 1
    assert state.bid("T1", "c").start == 47 + 7
    assert floor.at(60)[0].machines["a"].free == 121  # late: any moment now
    floor.finished("T1", 0, "a", 61.1)
    state, _ = floor.at(62)
    assert (state.jobs["T1"].ready, state.machines["a"].free) == (123, 0)
    assert state.machines["a"].ended == 124  # warm


def test_a_job_whose_last_work_goes_on_or_is_done_is_no_more_to_decide_on() -> None:
    floor = Floor(plant(), {"T1": "q", "T2": "q"})
    floor.started("T1", 0, "c", 0)
    state, first = floor.at(1)
    assert (list(state.jobs), first, state.machines["c"].free) == (["T2"], {"T2": 0}, 30)


def test_awards_stand_in_the_order_of_their_counters_and_withdrawn_ones_do_not() -> None:
    floor = Floor(plant(), {"T1": "q", "T2": "q", "T3": "q"})
    for job in ("T2", "T3", "T1"):
        floor.award(job, 0, "c", 0)
    state, _ = floor.at(0)
    assert [state.jobs[job].ready for job in ("T1", "T2", "T3")] == [90, 30, 60]
    assert list(state.open()) == []
    floor.book.withdraw(("T2", 0), T0, "not there")
    state, _ = floor.at(0)
    assert [state.jobs[job].ready for job in ("T1", "T3")] == [60, 30]
    assert list(state.open()) == ["T2"]


def test_a_part_lies_where_it_was_last_worked_on_and_without_a_layout_the_way_takes_the_same_from_anywhere() -> None:
    far = Floor(plant(transport_s=4.0), {"T1": "p", "T2": "p"})
    far.finished("T1", 0, "b", 30)
    state, _ = far.at(30)
    assert (state.jobs["T1"].at, state.jobs["T2"].at) == ("b", OUTSIDE)
    bid = state.bid("T1", "c")
    assert (bid.vehicle, bid.loads, bid.arrives, bid.start) == (-1, 67, 75, 75)
    assert state.bid("T2", "a").arrives == 60 + 8
    laid = Floor(plant(layout=LAYOUT), {"T1": "p", "T2": "p"})
    laid.finished("T1", 0, "b", 30)
    state, _ = laid.at(30)
    assert (state.jobs["T1"].at, state.jobs["T2"].at) == ("b", "raw")
    assert state.bid("T1", "c").loads == max(67, 60 + 12)  # the empty way from home first


def test_a_part_under_way_arrives_as_was_foreseen_with_its_vehicle_and_leaves_room_where_it_was() -> None:
    floor = Floor(plant(layout=LAYOUT, a={"buffer": {"out": 1}}), {"T1": "p", "T2": "p", "T3": "q"})
    floor.finished("T1", 0, "a", 20)
    state, _ = floor.at(20)
    assert (state.machines["a"].kept, state.jobs["T1"].holds) == (1, True)
    ways = Carried(vehicle=1, departs_at=T0 + 20 * SECOND, leaves_at=T0 + 25 * SECOND, arrives_at=T0 + 31 * SECOND)
    floor.award("T1", 1, "c", 20, carried=ways)
    state, _ = floor.at(22)
    assert (state.machines["a"].kept, state.machines["a"].leaves) == (0, (50,))
    assert state.vehicles == [Vehicle("raw", 0), Vehicle("c", 62)]
    assert state.machines["c"].free == 62 + 20
    floor.started("T1", 1, "c", 32)
    state, _ = floor.at(33)
    assert state.vehicles[1] == Vehicle("c", 62)
    assert state.machines["c"].free == 64 + 20


def test_a_vehicle_that_has_not_set_out_is_reckoned_with_anew() -> None:
    floor = Floor(plant(layout=LAYOUT), {"T1": "p"})
    ways = Carried(vehicle=0, departs_at=T0 + 50 * SECOND, leaves_at=T0 + 51 * SECOND, arrives_at=T0 + 56 * SECOND)
    floor.award("T1", 0, "a", 1, carried=ways)
    state, _ = floor.at(2)
    assert state.vehicles[0] == Vehicle("a", 4 + 2 + 8 + 1)


@pytest.mark.parametrize(("repair_s", "back"), [(300.0, 600), (None, 40 + round(UNKNOWN_REPAIR_S * 2)), (1.0, 41)])
def test_a_broken_machine_begins_nothing_before_it_is_back(repair_s: float | None, back: int) -> None:
    floor = Floor(plant(), {"T1": "p"})
    repair_at = None if repair_s is None else T0 + round(repair_s * SECOND)
    floor.agenda("na", 20, down={"a": repair_at})
    state, _ = floor.at(20)
    assert state.shop.machines["a"].shut == (Shut(40, back, broken=True),)
    assert state.shop.machines["b"].shut == ()
    floor.book.on_record(StateChanged(at=T0 + 30 * SECOND, machine="a", state="off"))
    assert floor.at(30)[0].shop.machines["a"].shut == ()


def test_machines_are_warm_heating_or_cold_as_agendas_and_records_say() -> None:
    hot = {name: {"preheat_h": 60 / 3600} for name in "abc"}
    floor = Floor(plant(**hot), {"T1": "p", "T2": "q"})
    floor.agenda("na", 10, warm=["a"], free_at={"a": T0})
    floor.book.on_record(StateChanged(at=T0 + 10 * SECOND, machine="b", state="preheat"))
    state, _ = floor.at(20)
    assert [state.machines[name].ended for name in "abc"] == [40, 140, None]
    assert [state.bid("T1", name).start for name in "ab"] == [40, 140]
    assert state.bid("T2", "c").start == 40 + 120
    floor.agenda("na", 30, free_at={"a": T0})
    assert floor.at(30)[0].machines["a"].ended is None


def test_a_node_busy_with_what_no_award_gave_it_says_until_when() -> None:
    floor = Floor(plant(), {"T1": "q"})
    floor.agenda("nc", 0, free_at={"c": T0 + 77 * SECOND})
    assert floor.at(1)[0].machines["c"].free == 154


def test_a_task_with_bids_takes_what_they_say_on_who_bid_and_others_are_left_to_who_is_there() -> None:
    floor = Floor(plant(), {"T1": "p", "T2": "p"})
    floor.bid("T1", 0, 0, b=33.3)
    floor.book.on_presence("na", False)
    state, _ = floor.at(0)
    assert state.shop.route["T1"][0].ticks == {"b": 67}
    assert state.shop.route["T2"][0].ticks == {"b": 60}
    floor.book.on_presence("nb", False)
    assert floor.at(0)[0].shop.route["T2"][0].ticks == {"a": 40, "b": 60}


def test_of_a_cancelled_job_only_what_a_machine_holds_counts() -> None:
    floor = Floor(plant(), {"T1": "p", "T2": "p", "T3": "p"})
    floor.award("T1", 0, "a", 0)
    for job in ("T1", "T2"):
        for op in (0, 1):
            floor.book.cancel((job, op), T0)
    floor.started("T3", 0, "b", 0)
    floor.book.cancel(("T3", 1), T0)
    state, _ = floor.at(0)
    assert list(state.open()) == []
    assert state.machines["b"].free == 60


def test_no_more_jobs_are_looked_at_than_was_said_those_first_that_have_bids_and_are_due() -> None:
    floor = Floor(plant(), {f"T{n}": "q" for n in range(40)})
    for n in (7, 5, 30):
        floor.bid(f"T{n}", 0, n / 10, c=15.0)
    floor.jobs["T30"] = OrderedJob(job="T30", product="q", due_at=T0 + 9 * SECOND)
    floor.award("T20", 0, "c", 0)
    floor.started("T21", 0, "c", 0)
    state, _ = floor.at(4, look=3)
    assert set(state.open()) == {"T30", "T5", "T7"}
    assert state.machines["c"].free == 30 + 30  # what runs, and what is awarded, of jobs not looked at
    state, first = floor.at(4, look=100)
    assert len(list(state.open())) == 38
    decision = ByRule(kind="fifo").decide(state)
    assert all(key[0] in first for key, _ in wanted(decision, first))


def test_an_operation_before_one_that_is_done_is_done_whoever_did_it() -> None:
    floor = Floor(plant(layout=LAYOUT), {"T1": "p"})
    one = Held(job="T1", op=1, machine="c", counter=5, state="held", at=T0, valid_until=T0 + 9**9)
    floor.agenda("nc", 5, awards=[one])
    state, first = floor.at(6)
    assert first == {"T1": 1}
    assert (state.jobs["T1"].next, state.machines["c"].free) == (1, 12 + 20)  # nobody knows where it was: no way
