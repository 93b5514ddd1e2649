"""The floor as it really is: machines, parts and what breaks, in plant time.

    factory = Factory(plant, start=t0, seed=1)
    factory.act("firing-1", action, at=now)      # what the node asked
    factory.advance(now)                         # everything that happens until now, in order of time
    factory.drain("firing-1")                    # the events that machine's firmware saw since

Deterministic: the same calls give the same floor. An operation takes its nominal time × a factor drawn from
(seed, machine, job, op, attempt), in whole seconds. Actions are idempotent by id: a repeated one is answered
with the same event again; the last ANSWERS ids per machine are remembered.
"""

from __future__ import annotations

import math
import zlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from firmware_sim.logistics import Call, Logistics, Told
from firmware_sim.machine import SECOND, MachineModel
from firmware_sim.settings import Breakdown, Variation
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

    stage: int
    events: list[MachineEvent] = field(default_factory=list)
    answers: OrderedDict[str, MachineEvent | None] = field(default_factory=OrderedDict)


class Factory:
    """All machines of a plant, off and cold at `start`; the parts are in the store."""

    def __init__(
        self,
        plant: Plant,
        *,
        start: int,
        seed: int = 0,
        variation: Variation | None = None,
        scenario: tuple[Breakdown, ...] = (),
    ) -> None:
        self.plant, self.seed, self.now = plant, seed, start
        self.variation = variation or Variation()
        stages = [workshop for workshop in plant.workshops if workshop.machines]
        self.machines = {
            machine.id: MachineModel(machine, workshop, ambient_degc=plant.ambient_degc, start=start)
            for workshop in stages
            for machine in workshop.machines
        }
        self.logistics = Logistics(len(stages), round(plant.transport_s * SECOND))
        self.done: deque[Done] = deque(maxlen=REMEMBERED)
        self._floors = {
            machine.id: _Floor(stage) for stage, workshop in enumerate(stages) for machine in workshop.machines
        }
        self._troubles = sorted((_trouble(plant, one, start) for one in scenario), key=lambda one: one.at)

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
            return
        floor.answers[action.id] = None
        if len(floor.answers) > ANSWERS:
            floor.answers.popitem(last=False)
        result = self._obey(device, action, self.now)
        if isinstance(result, str):
            detail = f"{action.kind}: {result}"
            result = [Told(device, MachineEvent(at=self.now, kind="refused", action=action.id, detail=detail))]
        self._tell(result)
        self._break_due()

    def advance(self, now: int) -> None:
        """Let everything happen that happens until `now`, now included."""
        while (due := self._next()) is not None and due <= now:
            self.now = max(self.now, due)
            for name, machine in self.machines.items():
                if machine.next_timer is not None and machine.next_timer <= due:
                    self._timer(name, machine, machine.next_timer)
            self._tell(self.logistics.arrive(due))
            self._break_due()
        self.now = max(self.now, now)

    def drain(self, device: str) -> list[MachineEvent]:
        """Events of this machine since the last call, in order."""
        floor = self._floors.get(device)
        if floor is None or not floor.events:
            return []
        events, floor.events = floor.events, []
        return events

    # --- private ----------------------------------------------------------------------------------

    def _next(self) -> int | None:
        """The next moment at which something happens by itself."""
        times = [machine.next_timer for machine in self.machines.values() if machine.next_timer is not None]
        arrival = self.logistics.next_arrival()
        if arrival is not None:
            times.append(arrival)
        times += [one.at for one in self._troubles if one.at > self.now or not one.only_at_work]
        return min(times, default=None)

    def _timer(self, name: str, machine: MachineModel, at: int) -> None:
        work = machine.work
        events = machine.on_timer(at)
        self._tell([Told(name, event) for event in events])
        if work and events and events[0].kind == "finished":
            energy = events[0].energy_kwh or 0.0
            self.done.append(Done(name, work.job, work.op, work.started_at, at, energy))
            self._tell(self.logistics.finished(at, work.job))

    def _obey(self, device: str, action: Action, at: int) -> list[Told] | str:
        if action.valid_until < at:
            return "expired: its valid_until has passed"
        machine, stage = self.machines[device], self._floors[device].stage
        if action.kind in ("call", "start") and (action.job is None or action.op is None):
            return "needs job and op"
        if action.kind in ("call", "start") and action.op != stage:
            return f"this machine does op {stage}"
        if action.kind == "call":
            call = Call(action.id, device, action.op or 0, action.valid_until)
            return self.logistics.call(at, action.job or "", call)
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
        why_not = self.logistics.ready(device, job, op)
        if why_not:
            return why_not
        attempt = self.logistics.parts[job].starts.get(op, 0)
        duration_s = round(action.duration_s * self._factor(device, job, op, attempt))
        result = machine.start(at, job, op, duration_s, action.id)
        if isinstance(result, list):
            self.logistics.started(job, op)
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

    def _break_due(self) -> None:
        for trouble in [one for one in self._troubles if one.at <= self.now]:
            names: list[str] = [name for name in trouble.machines if self.machines[name].state != "down"]
            if trouble.only_at_work:
                working = {name: work for name in names if (work := self.machines[name].work)}
                if not working:
                    continue
                names = [max(working, key=lambda name: working[name].ends_at)]
            self._troubles.remove(trouble)
            for name in names:
                self._break(name, self.now + trouble.repair_us)

    def _break(self, name: str, repair_at: int) -> None:
        machine = self.machines[name]
        work = machine.work
        self._tell(_told(name, machine.break_down(self.now, repair_at)))
        if work:
            scrap = machine.workshop.on_breakdown == "scrap"
            self._tell(self.logistics.interrupted(self.now, work.job, scrap=scrap))

    def _tell(self, told: list[Told] | str) -> None:
        for one in told if isinstance(told, list) else ():
            floor = self._floors[one.machine]
            floor.events.append(one.event)
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
