"""The floor as it really is: machines, parts and what breaks, in plant time.

    factory = Factory(plant, start=t0, seed=1)
    factory.act("firing-1", action, at=now)      # what the node asked
    factory.advance(now)                         # everything that happens until now, in order of time
    factory.drain("firing-1")                    # the events that machine's firmware saw since
    factory.next_event()                         # when something will happen by itself

Deterministic: the same calls give the same floor. An operation takes its nominal time × a factor drawn from
(seed, machine, job, op, attempt), in whole seconds, or finer where the plant's ticks are. Actions are idempotent by
id: a repeated one is answered with the same event again; the last ANSWERS ids per machine are remembered. What
happens costs the same however many machines there are.
"""

from __future__ import annotations

import heapq
import math
import zlib
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from firmware_sim.bins import Bins
from firmware_sim.logistics import Call, Logistics, Told
from firmware_sim.machine import SECOND, MachineModel
from firmware_sim.settings import Breakdown, Variation
from messages.circular import number_of
from messages.contracts import Action, MachineEvent
from messages.plant import Plant

ANSWERS = 256
REMEMBERED = 10_000
"""Operations kept in `Factory.done`, the last ones."""


@dataclass(frozen=True, slots=True)
class Done:
    """An operation as it was really done."""

    machine: str
    job: str
    op: int
    started_at: int
    finished_at: int
    energy_kwh: float


@dataclass
class _Trouble:
    machines: tuple[str, ...]
    at: int
    repair_us: int
    only_at_work: bool


@dataclass
class _Floor:
    """Bookkeeping of one machine beside its physics."""

    place: int
    stage: int
    timer: int | None = None
    events: list[MachineEvent] = field(default_factory=list)
    answers: OrderedDict[str, MachineEvent | None] = field(default_factory=OrderedDict)


class Factory:
    """All machines of a plant, off and cold at `start`; the parts are in the store.

    `products`: what the jobs make, as far as it is known; more may be told by `expect`.
    """

    def __init__(
        self,
        plant: Plant,
        *,
        start: int,
        seed: int = 0,
        variation: Variation | None = None,
        scenario: tuple[Breakdown, ...] = (),
        products: Mapping[str, str] | None = None,
    ) -> None:
        self.plant, self.seed, self.now = plant, seed, start
        self.variation = variation or Variation()
        stages = [workshop for workshop in plant.workshops if workshop.machines]
        self.machines = {
            machine.id: MachineModel(machine, workshop, ambient_degc=plant.ambient_degc, start=start)
            for workshop in stages
            for machine in workshop.machines
        }
        self.logistics, self.bins = Logistics(plant), Bins(plant, seed=seed)
        for job, product in (products or {}).items():
            self.expect(job, product)
        self.done: deque[Done] = deque(maxlen=REMEMBERED)
        self._names = list(self.machines)
        stage_of = {machine.id: stage for stage, workshop in enumerate(stages) for machine in workshop.machines}
        self._floors = {name: _Floor(place, stage_of[name]) for place, name in enumerate(self._names)}
        self._grid_us = math.gcd(SECOND, plant.tick_us)
        self._timers: list[tuple[int, int]] = []
        self._talking: dict[str, None] = {}
        self._troubles = sorted((_trouble(plant, one, start) for one in scenario), key=lambda one: one.at)
        self._overdue: list[_Trouble] = []

    def expect(self, job: str, product: str) -> None:
        """Learn what a job makes: where its part lies at first, and how many operations it gets."""
        self.logistics.expect(job, product)
        self.bins.know(job, product)

    def act(self, device: str, action: Action, at: int) -> None:
        """Obey, or answer `refused`; unknown devices have nobody who could answer."""
        self.advance(max(at, self.now))
        floor = self._floors.get(device)
        if floor is None:
            return
        if action.id in floor.answers:
            answer = floor.answers[action.id]
            if answer is not None:
                floor.events.append(answer)
                self._talking[device] = None
            return
        own = number_of(action.job or "")
        if own and own[0] in self.plant.products:
            self.expect(action.job or "", own[0])  # a job the plant began itself
        floor.answers[action.id] = None
        if len(floor.answers) > ANSWERS:
            floor.answers.popitem(last=False)
        result = self._obey(device, action, self.now)
        if isinstance(result, str):
            detail = f"{action.kind}: {result}"
            result = [Told(device, MachineEvent(at=self.now, kind="refused", action=action.id, detail=detail))]
        self._tell(result)
        self._time(device)
        if action.kind == "start":
            self._break_overdue()
        self.advance(self.now)

    def advance(self, now: int) -> None:
        """Let everything happen that happens until `now`, now included."""
        self._tell(self.logistics.settle(self.now))
        while (due := self.next_event()) is not None and due <= now:
            self.now = max(self.now, due)
            while self._timers and self._timers[0][0] <= due:
                at, place = heapq.heappop(self._timers)
                name = self._names[place]
                self._floors[name].timer = None
                if self.machines[name].next_timer == at:
                    self._timer(name, self.machines[name], at)
            self._tell(self.logistics.settle(self.now))
            while self._troubles and self._troubles[0].at <= self.now:
                self._overdue.append(self._troubles.pop(0))
                self._break_overdue()
        self.now = max(self.now, now)

    def next_event(self) -> int | None:
        """The next moment at which something happens by itself, if nobody asks for anything before."""
        while self._timers and self.machines[self._names[self._timers[0][1]]].next_timer != self._timers[0][0]:
            self._floors[self._names[heapq.heappop(self._timers)[1]]].timer = None
        due = self.logistics.next_due()
        times = [] if due is None else [due]
        times += [at for at, _ in self._timers[:1]]
        times += [one.at for one in self._troubles[:1]]
        return min(times, default=None)

    def talking(self) -> list[str]:
        """Machines with events that nobody drained."""
        return list(self._talking)

    def drain(self, device: str) -> list[MachineEvent]:
        """Events of this machine since the last call, in order."""
        self._talking.pop(device, None)
        floor = self._floors.get(device)
        if floor is None or not floor.events:
            return []
        events, floor.events = floor.events, []
        return events

    # --- private ----------------------------------------------------------------------------------

    def _time(self, name: str) -> None:
        """Note when this machine wants to be called."""
        timer, floor = self.machines[name].next_timer, self._floors[name]
        if timer is not None and timer != floor.timer:
            floor.timer = timer
            heapq.heappush(self._timers, (timer, floor.place))

    def _timer(self, name: str, machine: MachineModel, at: int) -> None:
        work = machine.work
        events = machine.on_timer(at)
        self._time(name)
        if work and events and events[0].kind == "finished":
            recovered = self.bins.yields(name, work.job, work.op)
            if recovered is not None:
                events[0] = events[0].model_copy(update={"recovered": recovered})
        self._tell([Told(name, event) for event in events])
        if work and events and events[0].kind == "finished":
            energy = events[0].energy_kwh or 0.0
            self.done.append(Done(name, work.job, work.op, work.started_at, at, energy))
            self._tell(self.logistics.finished(at, work.job))

    def _obey(self, device: str, action: Action, at: int) -> list[Told] | str:
        if action.valid_until < at:
            return "expired: its valid_until has passed"
        machine, stage = self.machines[device], self._floors[device].stage
        if action.kind in ("call", "drop", "start") and (action.job is None or action.op is None):
            return "needs job and op"
        if action.kind in ("call", "start") and action.op != stage and not self.plant.routes:
            return f"this machine does op {stage}"
        if action.kind == "call":
            call = Call(action.id, device, action.op or 0, action.valid_until)
            return self.logistics.call(at, action.job or "", call)
        if action.kind == "drop":
            return self.logistics.drop(at, device, action.job or "", action.op or 0, action.id)
        if action.kind == "start":
            return self._start(device, machine, action, at)
        order = {"preheat": machine.preheat, "idle": machine.idle, "off": machine.off}.get(action.kind)
        if order is None:
            return "this machine does not know that"
        return _told(device, order(at, action.id))

    def _start(self, device: str, machine: MachineModel, action: Action, at: int) -> list[Told] | str:
        job, op = action.job or "", action.op or 0
        if machine.work and (machine.work.job, machine.work.op) == (job, op):
            begun = machine.work.started_at  # asked under another id for what it does already
            return [Told(device, MachineEvent(at=begun, kind="started", job=job, op=op, action=action.id))]
        if action.duration_s is None:
            return "needs duration_s"
        why_not = self.logistics.why_not(device, job, op) or self.bins.why_not(job, op)
        if why_not:
            return why_not
        attempt = self.logistics.parts[job].starts.get(op, 0)
        ticks = round(action.duration_s * self._factor(device, job, op, attempt) * SECOND / self._grid_us)
        result = machine.start(at, job, op, ticks * self._grid_us, action.id)
        if isinstance(result, list):
            self.logistics.started(job, op, last=action.last)
            self.bins.take(job, op)
        return _told(device, result)

    def _factor(self, device: str, job: str, op: int, attempt: int) -> float:
        vary = self.variation
        if vary.sigma == 0:
            return 1.0
        if self.machines[device].workshop.on_breakdown == "resume":
            attempt = 0  # the same work goes on
        rng = np.random.default_rng([self.seed, zlib.crc32(f"{device}/{job}/{op}/{attempt}".encode())])
        factor = math.exp(vary.sigma * rng.standard_normal())
        return min(max(factor, 1 - vary.limit), 1 + vary.limit)

    def _break_overdue(self) -> None:
        """Break what should be broken by now; what breaks only at work waits for a start."""
        for trouble in list(self._overdue):
            names = [name for name in trouble.machines if self.machines[name].state != "down"]
            if trouble.only_at_work:
                working = {name: work for name in names if (work := self.machines[name].work)}
                if not working:
                    continue
                names = [max(working, key=lambda name: working[name].ends_at)]
            self._overdue.remove(trouble)
            for name in names:
                self._break(name, self.now + trouble.repair_us)

    def _break(self, name: str, repair_at: int) -> None:
        machine = self.machines[name]
        work = machine.work
        self._tell(_told(name, machine.break_down(self.now, repair_at)))
        self._time(name)
        if work:
            self.logistics.interrupted(self.now, work.job, scrap=machine.workshop.on_breakdown == "scrap")
            self._tell(self.logistics.settle(self.now))

    def _tell(self, told: list[Told] | str) -> None:
        for one in told if isinstance(told, list) else ():
            floor = self._floors[one.machine]
            floor.events.append(one.event)
            self._talking[one.machine] = None
            if one.event.action in floor.answers:
                floor.answers[one.event.action or ""] = one.event


def _told(device: str, result: list[MachineEvent] | str) -> list[Told] | str:
    return result if isinstance(result, str) else [Told(device, event) for event in result]


def _trouble(plant: Plant, one: Breakdown, start: int) -> _Trouble:
    machines: tuple[str, ...]
    if one.machine is not None:
        machines = (one.machine,)
    else:
        machines = tuple(m.id for w in plant.workshops if w.name == one.workshop for m in w.machines)
    return _Trouble(machines, start + one.at_us, round(one.repair_h * 3600 * SECOND), one.machine is None)
