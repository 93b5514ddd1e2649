"""Where the parts are: where they began, on the way, at a machine's input, in work, at its output, off the floor.

    logistics = Logistics(plant)
    logistics.call(at, "b01", Call("a1", "press-1", op=0, valid_until=until))
    logistics.settle(at)                    # sends off what can leave, unloads what has arrived; says who saw it

A call brings a part to a machine once its earlier operations are finished. The newest call for an operation wins and
older ones lapse, as does a call whose `valid_until` has passed before the part could leave. A plant without a layout
brings a part in `transport_s`; one with a layout in the time of loading, way and unloading. A limited number of
vehicles carries one part each: when a part can leave, it gets the vehicle that can load it earliest (ties: the lowest
number), at one moment in the order of the calls. A vehicle that was free when the call came has set off then. What a
vehicle carries it takes to where it was called first, and only from there to where it was called since.

Places: a machine with b of them before it has no more than b parts at its input. Where places behind it are counted,
too, it has no more than b there or called for; a call beyond is refused. Elsewhere the machine surely works on: a part
that comes to a full input is set down, and read when there is a place. So no vehicle ever stands loaded before a full
input, and vehicles cannot block each other. An interrupted part
is put aside, and so is one that its machine drops, at its input or at its output: they take none of these places. A
finished part stays behind its machine until it is loaded; a machine with k places there begins its next work when at
most k parts lie there.

Bounds: `MAX_PARTS` parts, of which those off the floor are forgotten first; one waiting call per operation; `CARRIED`
ways and `MAX_PARTS` products of jobs remembered.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from messages.clock import SECOND
from messages.contracts import MachineEvent
from messages.plant import Plant

MAX_PARTS = 10_000
CARRIED = 10_000

Place = Literal["store", "moving", "input", "work", "output", "finished", "scrapped"]


@dataclass(slots=True)
class Call:
    """Who wants a part, for which operation. `number`: the order of the calls; `at`: when it came."""

    action: str
    machine: str
    op: int
    valid_until: int
    number: int = 0
    at: int = 0


@dataclass(slots=True)
class Trip:
    """One part carried once. Times in µs; `departs` on the empty way, if there is a vehicle."""

    job: str
    call: Call
    origin: str | None
    vehicle: int | None
    departs: int
    loads_at: int
    loaded_at: int
    arrives_at: int


@dataclass(slots=True)
class Part:
    """One job's part: `done` operations are finished; `at` is where it is, on the way where it is heading."""

    job: str
    at: str | None = None
    done: int = 0
    place: Place = "store"
    aside: bool = False
    last: bool = False
    trip: Trip | None = None
    calls: dict[int, Call] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    """How often each operation was started."""


@dataclass(slots=True)
class Dock:
    """Places before and behind one machine; None: any number, then nobody counts."""

    inputs: int | None
    outputs: int | None
    called: dict[tuple[str, int], Call] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Vehicle:
    """Where a vehicle is, and from when, once it has done what it was told."""

    at: str
    free_at: int = 0


@dataclass(slots=True)
class Told:
    """An event and the machine that sees it."""

    machine: str
    event: MachineEvent


class Logistics:
    """All parts of a plant. How many operations a part gets is known from its product, else from `Action.last`."""

    def __init__(self, plant: Plant) -> None:
        self.layout, self.transport_us = plant.layout, _us(plant.transport_s)
        self.docks = {name: Dock(spec.buffer.in_, spec.buffer.out) for name, (_, spec) in plant.machines.items()}
        layout = plant.layout
        self.vehicles = [Vehicle(layout.home or "") for _ in range(layout.vehicles or 0)] if layout else []
        self.parts: dict[str, Part] = {}
        self.carried: deque[Trip] = deque(maxlen=CARRIED)
        self._products: dict[str, str] = {}
        self._lengths = {product: len(plant.route(product)) for product in plant.products}
        self._stages = None if plant.routes else sum(bool(workshop.machines) for workshop in plant.workshops)
        self._gone: deque[str] = deque()
        self._leaving: list[tuple[Part, Call]] = []
        self._due: list[tuple[int, int, Trip]] = []
        self._early: list[Trip] = []
        self._calls = self._pushed = 0

    def expect(self, job: str, product: str) -> None:
        """Learn what a job makes, and so where its part lies at first and how many operations it gets."""
        self._products[job] = product
        if len(self._products) > MAX_PARTS:
            del self._products[next(iter(self._products))]

    def call(self, at: int, job: str, call: Call) -> list[Told] | str:
        """Bring `job` to a machine: what was seen at once, or a text why not."""
        part = self.parts.get(job) or self._new(job)
        if part is None:
            return f"the floor holds {MAX_PARTS} parts at most"
        if part.place == "scrapped":
            return "the part was scrapped"
        if part.done > call.op:
            return f"op {call.op} of this part is done"
        if part.place == "finished":
            return "the part has left the floor"
        if part.done == call.op and part.at == call.machine and part.place in ("input", "work") and not part.trip:
            return [_identified(at, part, call.action)]
        if part.done == call.op and part.place == "work":
            return f"the part is in work at {part.at}"
        dock = self.docks[call.machine]
        if dock.inputs is not None and dock.outputs is not None and (job, call.op) not in dock.called:
            taken = self._taken(dock, at)
            if taken >= dock.inputs:
                return f"no place: {taken} parts are at its input or called for, it has {dock.inputs} places"
        self._lapse(part, call.op)
        self._calls += 1
        call.number, call.at = self._calls, at
        part.calls[call.op] = call
        if dock.inputs is not None:
            dock.called[job, call.op] = call
        self._leave(at, part)
        return []

    def drop(self, at: int, machine: str, job: str, op: int, action: str) -> list[Told]:
        """Take a call back: the part is not brought there, unless it is on its way; if it is there, it is put aside."""
        part = self.parts.get(job)
        if part is not None:
            if part.trip and part.trip.call.machine == machine:
                return []  # it is identified when it arrives
            call = part.calls.get(op)
            if call is not None and call.machine == machine:
                self._lapse(part, op)
            if part.at == machine and part.place == "input":
                part.aside = True
                self.docks[machine].waiting.discard(job)
            elif part.at == machine and job in self.docks[machine].finished and op == part.done:
                part.aside = True  # a drop of an operation that is done means a place it has left already
                self.docks[machine].finished.discard(job)
                return [_left(at, machine, part, action)]
        return [Told(machine, MachineEvent(at=at, kind="part_removed", job=job, op=op, action=action))]

    def why_not(self, machine: str, job: str, op: int) -> str | None:
        """None if `op` of this part can start at `machine`, else a text."""
        part, dock = self.parts.get(job), self.docks[machine]
        if part is None or part.at != machine or part.place != "input":
            return "the part is not identified at this machine"
        if part.trip:
            return f"the part is being fetched for {part.trip.call.machine}"
        if part.done != op:
            return f"the part is ready for op {part.done}, not for op {op}"
        if dock.outputs is not None and len(dock.finished) > dock.outputs:
            return f"its output is full: {len(dock.finished)} finished parts wait there, it has {dock.outputs} places"
        return None

    def started(self, job: str, op: int, *, last: bool = False) -> None:
        """The part went from the input into the machine; `last`: it leaves the floor when this is done."""
        part = self.parts[job]
        part.place, part.aside, part.last = "work", False, last
        part.starts[op] = part.starts.get(op, 0) + 1
        self.docks[part.at or ""].waiting.discard(job)

    def finished(self, at: int, job: str) -> list[Told]:
        """The part lies at the machine's output until it is fetched for its next operation, or leaves the floor."""
        part = self.parts[job]
        machine = part.at or ""
        dock = self.docks[machine]
        part.done += 1
        total = self._lengths.get(self._products.get(job, ""), self._stages)
        if part.last or (total is not None and part.done >= total):
            self._settle_down(part, "finished")
            return [_left(at, machine, part)] if dock.outputs is not None else []
        part.place = "output"
        if dock.outputs is not None:
            dock.finished.add(job)
        self._leave(at, part)
        return []

    def interrupted(self, at: int, job: str, *, scrap: bool) -> None:
        """The part lies aside, at the machine's input, or is lost."""
        part = self.parts[job]
        if scrap:
            self._settle_down(part, "scrapped")
        else:
            part.place, part.aside = "input", True
            self._leave(at, part)

    def next_due(self) -> int | None:
        """When the next part is loaded or arrives somewhere."""
        while self._due and self.parts.get(self._due[0][2].job, _NOBODY).trip is not self._due[0][2]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def settle(self, at: int) -> list[Told]:
        """What happens to parts by `at`: those that can leave get their vehicle, others are loaded or arrive."""
        told: list[Told] = []
        while True:
            for part, call in sorted(self._leaving, key=lambda one: one[1].number):
                self._send_off(at, part, call)
            self._leaving.clear()
            told += self._let_in(at)
            due = self.next_due()
            if due is None or due > at:
                return told
            trip = heapq.heappop(self._due)[2]
            is_loaded = self.parts[trip.job].place == "moving"
            told += self._unloaded(at, trip) if is_loaded else self._loaded(trip)

    # --- private ----------------------------------------------------------------------------------

    def _new(self, job: str) -> Part | None:
        if len(self.parts) >= MAX_PARTS:
            if not self._gone:
                return None
            del self.parts[self._gone.popleft()]
        at = self.layout.at.get(self._products.get(job, "")) if self.layout else None
        part = self.parts[job] = Part(job, at)
        return part

    def _settle_down(self, part: Part, place: Place) -> None:
        """It will not move again."""
        for op in list(part.calls):
            self._lapse(part, op)
        part.place, part.at = place, None
        self._gone.append(part.job)

    def _taken(self, dock: Dock, at: int) -> int:
        """Places of an input that are not free: parts there, and parts called for."""
        for (job, op), call in list(dock.called.items()):
            part = self.parts.get(job)
            if part is None or (call.valid_until < at and part.calls.get(op) is call):
                del dock.called[job, op]
        return len(dock.waiting) + len(dock.called)

    def _lapse(self, part: Part, op: int) -> None:
        call = part.calls.pop(op, None)
        if call is not None:
            self.docks[call.machine].called.pop((part.job, op), None)

    def _leave(self, at: int, part: Part) -> None:
        """Note it to be sent off, if its next operation was called for and it can move."""
        call = part.calls.get(part.done)
        if call is None or part.place in ("work", "finished", "scrapped"):
            return
        trip = part.trip
        if trip and trip.call.machine == call.machine:
            del part.calls[call.op]
            trip.call = call  # the same way under a new action id
            return
        if trip and trip.vehicle is not None:
            return
        if at > call.valid_until:
            self._lapse(part, call.op)
            return
        del part.calls[call.op]
        if trip:
            self.docks[trip.call.machine].called.pop((part.job, call.op), None)
        self._leaving.append((part, call))

    def _send_off(self, at: int, part: Part, call: Call) -> None:
        origin = part.trip.origin if part.trip else part.at
        trip = Trip(part.job, call, origin, None, at, at, at, at)  # a vehicle sets off when it is called
        carried_s = self.layout.carried_s(origin, call.machine) if self.layout else None
        if self.layout is None:
            trip.arrives_at = at + self.transport_us
        elif carried_s is not None:
            if self.vehicles:
                loads = [
                    (max(at, max(call.at, one.free_at) + _us(self.layout.empty_s(one.at, origin or ""))), number)
                    for number, one in enumerate(self.vehicles)
                ]
                trip.loads_at, trip.vehicle = min(loads)
                trip.departs = max(call.at, self.vehicles[trip.vehicle].free_at)
            trip.loaded_at = trip.loads_at + _us(self.layout.loading_s)
            trip.arrives_at = trip.loads_at + _us(carried_s)
            if trip.vehicle is not None:
                self.vehicles[trip.vehicle] = Vehicle(call.machine, trip.arrives_at)
        part.trip = trip
        if part.place == "moving":  # turned round
            part.at = call.machine
            self._push(trip.arrives_at, trip)
        else:
            self._push(trip.loaded_at, trip)

    def _push(self, at: int, trip: Trip) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (at, self._pushed, trip))

    def _loaded(self, trip: Trip) -> list[Told]:
        part = self.parts[trip.job]
        told: list[Told] = []
        dock = self.docks.get(part.at or "")
        if dock is not None and part.place == "input":
            dock.waiting.discard(part.job)
            event = MachineEvent(at=trip.loaded_at, kind="part_removed", job=part.job, op=part.done)
            told.append(Told(part.at or "", event))
        elif dock is not None and part.job in dock.finished:
            dock.finished.discard(part.job)
            told.append(_left(trip.loaded_at, part.at or "", part))
        part.place, part.aside, part.at = "moving", False, trip.call.machine
        self._push(trip.arrives_at, trip)
        return told

    def _let_in(self, at: int) -> list[Told]:
        """Parts that were set down, where a place is free now."""
        told: list[Told] = []
        early, self._early = self._early, []
        for trip in early:
            if self.parts.get(trip.job, _NOBODY).trip is trip:  # else it was called away
                told += self._unloaded(at, trip)
        return told

    def _unloaded(self, at: int, trip: Trip) -> list[Told]:
        part, dock = self.parts[trip.job], self.docks[trip.call.machine]
        if dock.inputs is not None and len(dock.waiting) >= dock.inputs:
            self._early.append(trip)
            return []
        part.place, part.at, part.trip = "input", trip.call.machine, None
        if dock.inputs is not None:
            dock.called.pop((part.job, trip.call.op), None)
            dock.waiting.add(part.job)
        self.carried.append(trip)
        seen = _identified(at, part, trip.call.action)
        self._leave(at, part)
        return [seen]


_NOBODY = Part("")


def _identified(at: int, part: Part, action: str | None) -> Told:
    event = MachineEvent(at=at, kind="part_identified", job=part.job, op=part.done, action=action)
    return Told(part.at or "", event)


def _left(at: int, machine: str, part: Part, action: str | None = None) -> Told:
    return Told(machine, MachineEvent(at=at, kind="part_left", job=part.job, op=part.done - 1, action=action))


def _us(seconds: float) -> int:
    return round(seconds * SECOND)
