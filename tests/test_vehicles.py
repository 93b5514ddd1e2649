"""Parts, places and vehicles of the simulated floor, and the executor that calls for parts: whatever is asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.executor import Executor, Out
from firmware_sim.factory import Factory
from firmware_sim.settings import Breakdown, Variation
from messages.clock import SECOND
from messages.contracts import Action, Envelope, MachineEvent
from messages.negotiation import Award, task_of
from messages.plant import Plant

T0 = 1_800_000_000 * SECOND
HOUR = 3600 * SECOND
EXACT = Variation(sigma=0)
WAYS = {"raw": {"m1": 30, "m2": 50}, "m1": {"raw": 30, "m2": 20}, "m2": {"raw": 50, "m1": 20}}


def shop(**more: Any) -> Plant:
    """Two machines of one node; `a` goes over both, `b` the other way round. Ways in seconds, work in minutes."""
    layout = {"ways_s": WAYS, "stores": ["raw"], "at": {"a": "raw", "b": "raw"}, "home": "raw", "vehicles": 1}
    layout |= {"loading_s": 5, "unloading_s": 5} | more.pop("layout", {})
    buffers = more.pop("buffers", {})
    power = {"work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0}
    machines = [{"id": name, **power, "buffer": buffers.get(name, {})} for name in ("m1", "m2")]
    minute = 1 / 60
    return Plant.model_validate(
        {
            "site": "shop",
            "tick_s": 1,
            "products": ["a", "b"],
            "routes": {
                "a": [{"time_h": {"m1": 10 * minute}}, {"time_h": {"m2": 10 * minute}}],
                "b": [{"time_h": {"m2": 10 * minute}}, {"time_h": {"m1": 10 * minute}}],
            },
            "layout": layout,
            "workshops": [{"name": "shop", "node": "cell", "machines": machines}],
        }
        | more
    )


class Watcher:
    """Knows where every part is by what the machines say, and objects to what cannot be."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.inputs: dict[str, list[str]] = {name: [] for name in plant.machines}
        self.outputs: dict[str, list[str]] = {name: [] for name in plant.machines}
        self.work: dict[str, str | None] = dict.fromkeys(plant.machines)
        self.started: dict[str, list[tuple[str, int]]] = {name: [] for name in plant.machines}
        self.arrived: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.aside: set[str] = set()

    def see(self, machine: str, event: MachineEvent) -> None:
        job = event.job or ""
        match event.kind:
            case "part_identified" if job not in self.inputs[machine]:
                assert not self._places(job), f"{job} came to {machine} and is at {self._places(job)}"
                self.inputs[machine].append(job)
                self.arrived[machine] += 1
                places = self.plant.machines[machine][1].buffer.in_
                assert places is None or len(set(self.inputs[machine]) - self.aside) <= places, machine
            case "part_removed" if event.action is None:
                self.inputs[machine].remove(job)
                self.aside.discard(job)
            case "part_removed" if job in self.inputs[machine]:
                self.aside.add(job)  # dropped
            case "started":
                assert self.work[machine] is None
                places = self.plant.machines[machine][1].buffer.out
                assert places is None or len(self.outputs[machine]) <= places, "it began though its output is full"
                self.inputs[machine].remove(job)
                self.aside.discard(job)
                self.work[machine] = job
                self.started[machine].append((job, event.op or 0))
            case "finished":
                self.work[machine] = None
                if self.plant.machines[machine][1].buffer.out is not None:
                    self.outputs[machine].append(job)
            case "part_left":
                self.outputs[machine].remove(job)
            case "interrupted":
                self.work[machine] = None
                self.inputs[machine].append(job)
                self.aside.add(job)

    def _places(self, job: str) -> list[str]:
        here = [name for name, jobs in self.inputs.items() if job in jobs]
        here += [name for name, at_work in self.work.items() if at_work == job]
        return here + [name for name, jobs in self.outputs.items() if job in jobs]


def check_trips(factory: Factory) -> None:
    """Each vehicle carries one part at a time, from where it is, in the time the ways take."""
    layout = factory.plant.layout
    assert layout is not None
    free = dict.fromkeys(range(layout.vehicles or 0), (layout.home or "", T0))
    parts: dict[str, int] = {}
    for trip in sorted(factory.logistics.carried, key=lambda one: one.loads_at):
        assert parts.get(trip.job, T0) <= trip.loads_at, "a part is carried once at a time"
        parts[trip.job] = trip.arrives_at
        carried_s = layout.carried_s(trip.origin, trip.call.machine)
        assert trip.arrives_at - trip.loads_at == round((carried_s or 0) * SECOND)
        if carried_s is None or layout.vehicles is None:
            assert trip.vehicle is None
            continue
        assert trip.vehicle is not None
        place, at = free[trip.vehicle]
        assert trip.departs >= at and trip.loads_at >= trip.departs + layout.empty_s(place, trip.origin or "") * SECOND
        free[trip.vehicle] = (trip.call.machine, trip.arrives_at)


def act(factory: Factory, machine: str, kind: str, job: str, op: int, number: int, **more: Any) -> None:
    action = {"id": f"x{number}", "kind": kind, "job": job, "op": op, "valid_until": factory.now + 100 * HOUR, **more}
    factory.act(machine, Action.model_validate(action), factory.now)


# --- the floor alone ------------------------------------------------------------------------------


def test_a_vehicle_drives_empty_loads_drives_and_unloads_and_only_then_is_the_part_seen() -> None:
    factory = Factory(shop(), start=T0, variation=EXACT, products={"j1": "a", "j2": "b"})
    act(factory, "m1", "call", "j1", 0, 1)
    act(factory, "m2", "call", "j2", 0, 2)  # the only vehicle comes for it when it is back
    times: dict[tuple[str, str, str | None], int] = {}
    for _ in range(4):
        due = factory.next_event()
        if due is None:
            break
        factory.advance(due)
        for machine in factory.talking():
            times |= {(machine, one.kind, one.job): (one.at - T0) // SECOND for one in factory.drain(machine)}
    first, second = 5 + 30 + 5, 40 + 30 + 5 + 50 + 5
    assert times == {("m1", "part_identified", "j1"): first, ("m2", "part_identified", "j2"): second}
    check_trips(factory)


def test_two_parts_that_are_ready_at_once_are_fetched_in_the_order_of_their_calls() -> None:
    factory = Factory(shop(layout={"at": {}}), start=T0, variation=EXACT, products={"j1": "a", "j2": "b"})
    act(factory, "m1", "call", "j1", 0, 1)
    act(factory, "m2", "call", "j2", 0, 2)
    act(factory, "m1", "start", "j1", 0, 3, duration_s=600)
    act(factory, "m2", "start", "j2", 0, 4, duration_s=600)
    act(factory, "m1", "call", "j2", 1, 5)
    act(factory, "m2", "call", "j1", 1, 6)
    factory.advance(T0 + HOUR)
    assert [(one.job, (one.arrives_at - T0) // SECOND) for one in factory.logistics.carried if one.vehicle == 0] == [
        ("j2", 600 + 5 + 20 + 5),  # called long ago: the vehicle is there
        ("j1", 630 + 5 + 20 + 5),
    ]


def test_without_vehicles_a_way_is_a_delay_and_parts_from_nowhere_are_there_at_once() -> None:
    factory = Factory(shop(layout={"vehicles": None}), start=T0, variation=EXACT, products={"j1": "a"})
    act(factory, "m1", "call", "j1", 0, 1)
    act(factory, "m2", "call", "unknown", 0, 2)
    assert [one.job for one in factory.drain("m2")] == ["unknown"]
    factory.advance(T0 + 39 * SECOND)
    assert factory.drain("m1") == []
    factory.advance(T0 + 40 * SECOND)
    assert [one.kind for one in factory.drain("m1")] == ["part_identified"]


def test_a_call_beyond_the_places_is_refused_until_one_is_free_or_a_call_is_taken_back() -> None:
    plant = shop(buffers={"m1": {"in": 1, "out": 9}}, layout={"at": {}})
    factory = Factory(plant, start=T0, variation=EXACT, products={"j1": "a", "j2": "a", "j3": "b"})
    act(factory, "m1", "call", "j3", 1, 1)  # its first operation is not done yet, its place is kept
    act(factory, "m1", "call", "j1", 0, 2)
    (refused,) = factory.drain("m1")
    assert (refused.kind, refused.detail) == (
        "refused",
        "call: no place: 1 parts are at its input or called for, it has 1 places",
    )
    act(factory, "m1", "drop", "j3", 1, 3)
    act(factory, "m1", "call", "j1", 0, 4)
    assert [one.kind for one in factory.drain("m1")] == ["part_removed", "part_identified"]
    act(factory, "m1", "start", "j1", 0, 5, duration_s=60)
    act(factory, "m1", "call", "j2", 0, 6)
    assert [one.kind for one in factory.drain("m1") if one.kind != "state"] == ["started", "part_identified"]


def test_a_part_that_comes_before_its_place_is_free_is_read_when_it_is() -> None:
    plant = shop(buffers={"m1": {"in": 1}}, layout={"at": {}})
    factory = Factory(plant, start=T0, variation=EXACT, products={"j1": "a", "j2": "a"})
    act(factory, "m1", "call", "j1", 0, 1)
    act(factory, "m1", "call", "j2", 0, 2)  # nobody counts places behind the machine: it surely begins
    assert [(one.kind, one.job) for one in factory.drain("m1")] == [("part_identified", "j1")]
    factory.advance(T0 + 30 * SECOND)
    act(factory, "m1", "start", "j1", 0, 3, duration_s=60)
    seen = [(one.kind, one.job, (one.at - T0) // SECOND) for one in factory.drain("m1") if one.kind != "state"]
    assert seen == [("started", "j1", 30), ("part_identified", "j2", 30)]


def test_a_machine_does_not_begin_while_more_finished_parts_lie_there_than_it_has_places() -> None:
    plant = shop(buffers={"m1": {"out": 0}}, layout={"at": {}})
    factory = Factory(plant, start=T0, variation=EXACT, products={"j1": "a", "j2": "a", "j3": "a"})
    for number, job in enumerate(("j1", "j2", "j3")):
        act(factory, "m1", "call", job, 0, number)
    act(factory, "m1", "start", "j1", 0, 10, duration_s=60)
    factory.advance(T0 + 60 * SECOND)
    act(factory, "m1", "start", "j2", 0, 11, duration_s=60)
    assert "its output is full: 1 finished parts wait there, it has 0 places" in (factory.drain("m1")[-1].detail or "")
    act(factory, "m2", "call", "j1", 1, 12)
    factory.advance(T0 + (60 + 30 + 5) * SECOND)  # the vehicle came and loaded it
    (left,) = factory.drain("m1")
    assert (left.kind, left.job, left.op) == ("part_left", "j1", 0)
    act(factory, "m1", "start", "j2", 0, 13, duration_s=60, last=True)
    factory.advance(T0 + HOUR)
    kinds = [one.kind for one in factory.drain("m1") if one.kind != "state"]
    assert kinds == ["started", "finished", "part_left"], "the last work of a part: it leaves by itself"
    assert factory.logistics.parts["j2"].place == "finished"


def test_a_drop_that_comes_too_late_leaves_the_finished_part_where_it_is() -> None:
    factory = Factory(shop(buffers={"m1": {"out": 1}}), start=T0, variation=EXACT, products={"j1": "a"})
    act(factory, "m1", "call", "j1", 0, 1)
    factory.advance(T0 + HOUR)
    act(factory, "m1", "start", "j1", 0, 2, duration_s=60)
    factory.advance(T0 + 2 * HOUR)
    act(factory, "m1", "drop", "j1", 0, 3)  # meant while it lay at the input
    assert not factory.logistics.parts["j1"].aside
    act(factory, "m1", "drop", "j1", 1, 4)
    assert factory.logistics.parts["j1"].aside


def test_a_part_that_a_vehicle_is_coming_for_is_not_worked_on() -> None:
    factory = Factory(shop(layout={"at": {}}), start=T0, variation=EXACT, products={"j1": "a"})
    act(factory, "m1", "call", "j1", 0, 1)
    act(factory, "m2", "call", "j1", 0, 2)
    act(factory, "m1", "start", "j1", 0, 3, duration_s=60)
    assert factory.drain("m1")[-1].detail == "start: the part is being fetched for m2"
    act(factory, "m1", "call", "j1", 0, 4)  # called back: it is brought there first
    factory.advance(T0 + HOUR)
    assert [one.kind for one in factory.drain("m2")] == ["part_identified", "part_removed"]
    assert [one.kind for one in factory.drain("m1")] == ["part_removed", "part_identified"]
    check_trips(factory)


@st.composite
def shops(draw: st.DrawFn) -> Plant:
    place = st.one_of(st.none(), st.integers(1, 2))
    buffers = {name: {"in": draw(place), "out": draw(st.one_of(st.none(), st.integers(0, 1)))} for name in ("m1", "m2")}
    way = st.integers(0, 90)
    names = ("raw", "m1", "m2")
    ways = {a: {b: draw(way) for b in names if b != a and draw(st.integers(0, 9))} for a in names}
    layout = {
        "ways_s": ways,
        "vehicles": draw(st.one_of(st.none(), st.integers(1, 3))),
        "loading_s": draw(st.integers(0, 9)),
        "unloading_s": draw(st.integers(0, 9)),
        "at": draw(st.sampled_from([{"a": "raw", "b": "raw"}, {"a": "raw"}, {"a": "m2"}])),
    }
    return shop(buffers=buffers, layout=layout)


ASK = st.tuples(
    st.sampled_from(["call", "call", "start", "start", "drop", "wait"]),
    st.sampled_from(["m1", "m2"]),
    st.sampled_from(["j1", "j2", "j3", "j4"]),
    st.integers(0, 1),
    st.integers(1, 200),
)


@settings(max_examples=150)
@given(shops(), st.lists(ASK, max_size=60), st.sampled_from([None, "m1", "m2"]))
def test_whatever_is_asked_parts_are_in_one_place_and_never_more_than_there_are_places(
    plant: Plant, asked: list[tuple[str, str, str, int, int]], breaks: str | None
) -> None:
    scenario = (Breakdown(machine=breaks, at_s=300, repair_h=0.1),) if breaks else ()
    products = {"j1": "a", "j2": "a", "j3": "b"}
    factory, watcher = Factory(plant, start=T0, variation=EXACT, products=products, scenario=scenario), Watcher(plant)
    for number, (kind, machine, job, op, seconds) in enumerate(asked):
        if kind == "wait":
            factory.advance(factory.now + seconds * SECOND)
        else:
            act(factory, machine, kind, job, op, number, duration_s=seconds)
        for name in factory.talking():
            for event in factory.drain(name):
                watcher.see(name, event)
    check_trips(factory)


# --- the executor on this floor -------------------------------------------------------------------


class Cell:
    """One node and its floor, in jumps to what happens next, or looked at every second."""

    def __init__(self, plant: Plant, products: dict[str, str], **floor: Any) -> None:
        self.plant, self.products = plant, products
        self.factory = Factory(plant, **{"start": T0, "variation": EXACT, "products": products, **floor})
        self.executor, self.watcher = Executor(plant, "cell"), Watcher(plant)
        self.actions: list[tuple[int, str, str, str | None, int | None]] = []
        self.refused: list[str] = []
        self.lose: list[str] = []
        self.counter = 0

    @property
    def now(self) -> int:
        return self.factory.now

    def award(
        self, job: str, op: int, machine: str | None, lease_h: float = 50, *, cancelled: bool = False, **more: int
    ) -> None:
        self.counter += 1
        route = self.plant.route(self.products[job])
        seconds = route[op][1][machine] * 3600 if machine else 0.0
        body = Award(
            term=1, session="0000000a", job=job, op=op, round=1, machine=machine, seconds=seconds,
            last=op + 1 == len(route), cancelled=cancelled, **more,
        )  # fmt: skip
        until = self.now + round(lease_h * HOUR)
        envelope = Envelope[Award](
            key=task_of(job, op), target="shop/cell", counter=self.counter, valid_until=until, body=body
        )
        out = self.executor.on_award(envelope, self.now)
        assert out.award_acks[0].accepted, out.award_acks[0].reason
        self._do(out)
        self._listen()

    def run(self, until: int, *, every: int | None = None) -> None:
        """Until then; `every`: looked at so often, else only when something is due."""
        while self.now < until:
            ahead = [self.factory.next_event(), self.executor.next_due(self.now)]
            due = min((at for at in ahead if at is not None), default=until)
            due = self.now + every if every else max(due, self.now + 1)
            self.factory.advance(min(due, until))
            self._listen()
            self._do(self.executor.on_time(self.now))
            self._listen()

    def _listen(self) -> None:
        while machines := self.factory.talking():
            for machine in machines:
                events = self.factory.drain(machine)
                for event in events:
                    self.watcher.see(machine, event)
                    self.refused += [event.detail or ""] if event.kind == "refused" else []
                self._do(self.executor.on_events(machine, events, self.now))

    def _do(self, out: Out) -> None:
        for machine, action in out.actions:
            self.actions.append((self.now, machine, action.kind, action.job, action.op))
            if action.kind in self.lose:
                self.lose.remove(action.kind)
                continue
            self.factory.act(machine, action, self.now)


@st.composite
def orders(draw: st.DrawFn) -> tuple[Plant, dict[str, str], list[tuple[str, int]]]:
    """A shop, jobs, and an order of awards that can be kept: free where outputs are, else job by job."""
    plant = draw(shops())
    products = {f"j{n}": draw(st.sampled_from(["a", "b"])) for n in range(draw(st.integers(1, 5)))}
    jobs = list(products)
    if any(spec.buffer.out is not None for _, spec in plant.machines.values()):
        return plant, products, [(job, op) for job in jobs for op in range(2)]
    names = draw(st.permutations([job for job in jobs for _ in range(2)]))
    seen: Counter[str] = Counter()
    order = []
    for job in names:
        order.append((job, seen[job]))
        seen[job] += 1
    return plant, products, order


@settings(max_examples=80)
@given(orders(), st.integers(0, 2**16))
def test_everything_awarded_in_an_order_that_can_be_kept_is_called_arrives_and_is_done_in_that_order(
    made: tuple[Plant, dict[str, str], list[tuple[str, int]]], seed: int
) -> None:
    plant, products, order = made
    cell = Cell(plant, products, seed=seed, variation=Variation(sigma=0.1))
    queues: dict[str, list[tuple[str, int]]] = {name: [] for name in plant.machines}
    for job, op in order:
        (machine,) = plant.route(products[job])[op][1]
        queues[machine].append((job, op))
        cell.award(job, op, machine)
    cell.run(T0 + 10 * HOUR)
    assert cell.watcher.started == queues
    assert {(one.job, one.op) for one in cell.factory.done} == set(order)
    assert cell.refused == [], "it never calls for more than there are places"
    check_trips(cell.factory)


def test_of_parts_that_are_not_ready_one_has_a_place_and_what_is_ready_comes_meanwhile() -> None:
    cell = Cell(shop(buffers={"m1": {"in": 2}}, layout={"at": {}}), {"j1": "a", "j2": "b", "j3": "b"})
    cell.award("j2", 1, "m1", ahead=1)
    cell.award("j3", 1, "m1", ahead=1)
    cell.award("j1", 0, "m1")
    assert [(job, op) for _, _, kind, job, op in cell.actions if kind == "call"] == [("j2", 1), ("j1", 0)]
    for job in ("j2", "j3"):
        cell.award(job, 0, "m2")
    cell.run(T0 + HOUR)
    assert cell.watcher.started == {"m1": [("j2", 1), ("j3", 1), ("j1", 0)], "m2": [("j2", 0), ("j3", 0)]}
    assert cell.refused == []


def test_a_part_that_must_set_out_is_called_though_places_are_taken_and_never_kept_from_who_is_first() -> None:
    cell = Cell(shop(buffers={"m1": {"in": 1}}, layout={"at": {}}), {"j1": "b", "j2": "a"})
    cell.award("j1", 1, "m1", ahead=1)
    cell.award("j2", 0, "m1", fetch_at=T0 + 20 * SECOND)
    cell.run(T0 + 19 * SECOND)
    assert [job for _, _, kind, job, _ in cell.actions if kind == "call"] == ["j1"]
    cell.run(T0 + 20 * SECOND)
    assert [job for _, _, kind, job, _ in cell.actions if kind == "call"] == ["j1", "j2"]
    cell.award("j1", 0, "m2")  # it comes when the only place before m1 is taken: that is made free for it
    cell.run(T0 + HOUR)
    assert cell.watcher.started == {"m1": [("j1", 1), ("j2", 0)], "m2": [("j1", 0)]}


def test_awarded_ahead_is_not_begun_on_a_part_whose_tag_says_that_the_operation_before_is_not_done() -> None:
    cell = Cell(shop(layout={"at": {}}), {"j1": "b"})
    act(cell.factory, "m1", "call", "j1", 0, 1)
    cell._listen()
    cell.award("j1", 1, "m1", ahead=1)
    cell.run(T0 + 60 * SECOND)
    assert [kind for _, _, kind, _, _ in cell.actions if kind == "start"] == []
    cell.award("j1", 0, "m2")
    cell.run(T0 + HOUR)
    assert cell.watcher.started == {"m2": [("j1", 0)], "m1": [("j1", 1)]}


@settings(max_examples=15)
@given(orders(), st.sampled_from([None, "m1", "m2"]))
def test_to_be_woken_when_due_is_as_good_as_being_asked_every_second(
    made: tuple[Plant, dict[str, str], list[tuple[str, int]]], breaks: str | None
) -> None:
    plant, products, order = made
    scenario = (Breakdown(machine=breaks, at_s=700, repair_h=0.1),) if breaks else ()
    seen = []
    for every in (None, SECOND):
        cell = Cell(plant, products, scenario=scenario)
        for job, op in order:
            (machine,) = plant.route(products[job])[op][1]
            cell.award(job, op, machine, lease_h=0.4)
        cell.run(T0 + HOUR, every=every)
        seen.append(cell.actions)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("lost", [0, 2])
def test_a_withdrawn_award_frees_its_place_and_the_part_goes_where_it_is_wanted(lost: int) -> None:
    cell = Cell(shop(buffers={"m1": {"in": 1}, "m2": {"in": 1}}), {"j1": "a", "j2": "b", "j3": "a"})
    cell.award("j2", 1, "m1")  # called for; its first operation is nobody's yet
    cell.award("j1", 0, "m1")
    cell.run(T0 + HOUR)
    assert cell.watcher.started["m1"] == []
    cell.lose = ["drop"] * lost
    cell.award("j2", 1, None)
    cell.run(T0 + 2 * HOUR)
    assert cell.watcher.started["m1"] == [("j1", 0)] and cell.refused == []
    asked = [kind for _, _, kind, job, _ in cell.actions if job == "j2"]
    assert list(dict.fromkeys(asked)) == ["call", "drop"] and asked.count("drop") == 1 + lost


def test_a_part_nobody_works_on_any_more_is_put_aside_where_it_is_in_the_way() -> None:
    cell = Cell(shop(buffers={"m1": {"in": 1}}), {"j1": "a", "j2": "a"})
    cell.award("j1", 0, "m1", lease_h=0.005)  # it comes too late to be begun
    cell.run(T0 + 30 * SECOND)
    cell.award("j2", 0, "m1")
    cell.run(T0 + HOUR)
    assert cell.watcher.started["m1"] == [("j2", 0)] and cell.watcher.inputs["m1"] == ["j1"]
    cell.award("j1", 0, "m1")
    cell.run(T0 + 2 * HOUR)
    assert cell.watcher.started["m1"] == [("j2", 0), ("j1", 0)] and cell.refused == []


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize("inputs", [None, 1])
def test_a_finished_part_of_a_cancelled_job_is_put_aside_and_blocks_nobody(inputs: int | None, lost: int) -> None:
    cell = Cell(shop(buffers={"m1": {"in": inputs, "out": 0}}), {"j1": "a", "j2": "a", "j3": "a"})
    cell.award("j1", 0, "m1")
    cell.award("j2", 0, "m1")
    cell.run(T0 + HOUR)
    assert cell.watcher.started["m1"] == [("j1", 0)] and cell.watcher.outputs["m1"] == ["j1"]
    cell.award("j3", 1, None, cancelled=True)  # its part is not here
    cell.award("j1", 1, None)  # withdrawn for another reason: it keeps its place
    cell.run(T0 + 2 * HOUR)
    assert cell.watcher.started["m1"] == [("j1", 0)]
    cell.lose = ["drop"] * lost
    cell.award("j1", 1, None, cancelled=True)
    cell.run(T0 + 3 * HOUR)
    assert cell.watcher.started["m1"] == [("j1", 0), ("j2", 0)] and cell.refused == []
    assert cell.watcher.outputs["m1"] == ["j2"]
    assert [kind for _, _, kind, job, _ in cell.actions if job == "j1"].count("drop") == 1 + lost
    cell.award("j1", 1, "m2")  # wanted after all: it can be fetched from where it was put
    cell.run(T0 + 4 * HOUR)
    assert cell.watcher.started["m2"] == [("j1", 1)]


def test_a_start_nobody_answered_is_not_given_up_before_the_machine_says_whether_it_began() -> None:
    cell = Cell(shop(), {"j1": "a"})
    cell.award("j1", 0, "m1", lease_h=0.5)
    cell.lose = ["start"] * 10_000
    cell.run(T0 + 3 * HOUR)  # the lease is over, and so is the time for which actions are good
    assert [one.state for one in cell.executor.awards.agenda()] == ["held"], "it may have begun"
    cell.lose = []
    cell.run(T0 + 4 * HOUR)
    assert cell.watcher.started["m1"] == [] and cell.refused == ["start: expired: its valid_until has passed"]
    assert cell.executor.awards.agenda() == []


def test_parts_for_later_are_put_aside_so_that_the_order_of_the_queue_is_kept() -> None:
    cell = Cell(shop(buffers={"m1": {"in": 1}}), {"j1": "a", "j2": "a", "j3": "a"})
    cell.award("j3", 0, "m1")
    cell.run(T0 + 300 * SECOND)  # j3 is at work
    cell.award("j1", 0, "m1")
    cell.run(T0 + 500 * SECOND)  # j1 waits at the input
    cell.award("j1", 0, None)
    cell.award("j2", 0, "m1")
    cell.award("j1", 0, "m1")
    cell.run(T0 + 3 * HOUR)
    assert cell.watcher.started["m1"] == [("j3", 0), ("j2", 0), ("j1", 0)] and cell.refused == []


def test_what_waits_at_a_broken_machine_can_be_called_away() -> None:
    both = {"time_h": {"m1": 0.5, "m2": 0.5}}
    plant = shop(routes={"a": [both], "b": [both]}, buffers={"m1": {"in": 1}, "m2": {"in": 1}})
    cell = Cell(plant, {"j1": "a", "j2": "a"}, scenario=(Breakdown(machine="m1", at_s=600, repair_h=100),))
    cell.award("j1", 0, "m1")
    cell.award("j2", 0, "m1")
    cell.run(T0 + HOUR)
    assert cell.watcher.inputs["m1"] == ["j2", "j1"], "one interrupted, one waiting"
    for job in ("j1", "j2"):
        cell.award(job, 0, None)
        cell.award(job, 0, "m2")
    cell.run(T0 + 3 * HOUR)
    assert cell.watcher.started["m2"] == [("j1", 0), ("j2", 0)] and cell.watcher.inputs["m1"] == []


@pytest.mark.parametrize("at_us", range(0, 2000 * SECOND, 97 * SECOND))
def test_a_node_that_dies_goes_on_where_it_was(at_us: int) -> None:
    buffers = {"m1": {"in": 2, "out": 0}, "m2": {"in": 1, "out": 1}}
    products = {"j1": "a", "j2": "a", "j3": "a"}

    def course(dies: bool) -> dict[str, list[tuple[str, int]]]:
        cell = Cell(shop(buffers=buffers), products)
        for op, machine in enumerate(("m1", "m2")):
            for job in products:
                cell.award(job, op, machine)
        cell.run(T0 + at_us)
        if dies:
            cell.executor = Executor(cell.plant, "cell", cell.executor.snapshot())
            cell._do(cell.executor.on_connect(cell.now))
            cell._listen()
        cell.run(T0 + 3 * HOUR)
        assert cell.refused == []
        return cell.watcher.started

    assert course(True) == course(False) == {
        "m1": [("j1", 0), ("j2", 0), ("j3", 0)],
        "m2": [("j1", 1), ("j2", 1), ("j3", 1)],
    }  # fmt: skip


def test_a_thousand_machines_cost_an_event_no_more_than_ten_do() -> None:
    def looked_at(count: int) -> int:
        """How often a machine is asked for its time while one of them works a hundred times."""
        asked = 0
        spec = {"work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0, "time_h": [1]}
        machines = [{"id": f"m{n}", **spec} for n in range(count)]
        workshops = [{"name": "hall", "node": "cell", "machines": machines}]
        plant = Plant.model_validate({"site": "s", "products": ["a"], "workshops": workshops})
        factory = Factory(plant, start=T0, variation=EXACT)

        class Asked(type(factory.machines["m0"])):  # type: ignore[misc]
            def __getattribute__(self, name: str) -> Any:
                nonlocal asked
                asked += name == "next_timer"
                return super().__getattribute__(name)

        for machine in factory.machines.values():
            machine.__class__ = Asked
        for n in range(100):
            act(factory, "m3", "call", f"j{n}", 0, 2 * n)
            factory.advance(factory.now + 120 * SECOND)
            act(factory, "m3", "start", f"j{n}", 0, 2 * n + 1, duration_s=60)
            factory.advance(factory.now + 60 * SECOND)
        assert len(factory.done) == 100
        return asked

    assert looked_at(1000) == looked_at(10)
