"""What really happened on the floor, from the events of the machines: runs, breakdowns, carried parts.

    chronicle.on_event("press-4", event); chronicle.look(now)

An event that a machine says again is no second one. Bounded by the floor: one run per operation begun.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from firmware_sim.logistics import Trip
from messages.clock import SECOND
from messages.contracts import MachineEvent, OrderedJob
from messages.plant import Plant
from shoal.swarm.outcome import Carry, Down, Key, Run


class Chronicle:
    """Fed with every event of every machine, in the order of each machine."""

    def __init__(self, plant: Plant, jobs: Iterable[OrderedJob]) -> None:
        self.plant = plant
        self.seconds: dict[Key, dict[str, float]] = {}
        self.runs: list[Run] = []
        self.done = 0
        """Runs that were not interrupted."""
        self.downs: list[Down] = []
        self.carries: list[Carry] = []
        self.running: dict[str, Run] = {}
        self.broken: dict[str, Down] = {}
        self.states: dict[str, list[tuple[int, str]]] = {}
        self.came: dict[str, dict[Key, int]] = {}
        """machine → operation → when its part was identified there"""
        self.went_in: dict[str, dict[Key, int]] = {}
        """machine → operation → when its part left the input, for work or elsewhere; interrupted, it is put aside"""
        self.left: dict[str, dict[Key, int]] = {}
        """machine → operation → when its part was gone from the output: loaded, handed on, or put aside"""
        self._told: set[tuple[str, str, int, int]] = set()
        for job in jobs:
            self.add(job)

    def add(self, job: OrderedJob) -> None:
        """An order: how long its operations should take."""
        for op, (_, able) in enumerate(self.plant.route(job.product)):
            self.seconds[job.job, op] = {machine: hours * 3600 for machine, hours in able.items()}

    def on_event(self, machine: str, event: MachineEvent) -> None:
        """One event, perhaps told before."""
        match event.kind:
            case "started" if event.job is not None and event.op is not None:
                told = (machine, event.job, event.op, event.at)
                if told not in self._told:
                    self._told.add(told)
                    seconds = self.seconds.get((event.job, event.op), {}).get(machine, 0.0)
                    end = event.at + round(seconds * SECOND)
                    self.running[machine] = Run(machine, event.job, event.op, event.at, end, running=True)
                    self._went(machine, (event.job, event.op), event.at)
            case "finished" | "interrupted":
                run = self.running.get(machine)
                if run is not None and (run.job, run.op) == (event.job, event.op):
                    del self.running[machine]
                    broken = event.kind == "interrupted"
                    self.done += not broken
                    self.runs.append(replace(run, end=event.at, running=False, interrupted=broken))
            case "part_identified" if event.job is not None and event.op is not None:
                self.came.setdefault(machine, {}).setdefault((event.job, event.op), event.at)
            case "part_removed" if event.job is not None and event.op is not None:
                self._went(machine, (event.job, event.op), event.at)
            case "part_left" if event.job is not None and event.op is not None:
                self.left.setdefault(machine, {}).setdefault((event.job, event.op), event.at)
            case "state" if event.state is not None:
                self.states.setdefault(machine, []).append((event.at, event.state))
            case "breakdown":
                self.broken.setdefault(machine, Down(machine, event.at, event.repair_at or event.at))
            case "repaired":
                down = self.broken.pop(machine, None)
                if down is not None:
                    self.downs.append(replace(down, end=event.at))

    def on_trip(self, trip: Trip) -> None:
        """A part was carried; handed on directly, it was not."""
        if trip.arrives_at > trip.loads_at and trip.origin is not None:
            number = -1 if trip.vehicle is None else trip.vehicle
            to = trip.call.machine
            self.carries.append(Carry(number, trip.job, trip.origin, to, trip.departs, trip.loads_at, trip.arrives_at))

    def all_runs(self) -> tuple[Run, ...]:
        """Ended ones, then what runs."""
        return (*self.runs, *self.running.values())

    def all_downs(self) -> tuple[Down, ...]:
        """Repaired ones, then what is broken."""
        return (*self.downs, *self.broken.values())

    def gone_at(self, run: Run, by: Run) -> int:
        """When the part of a finished run left its machine; that it never did counts as `by`'s end."""
        following = (run.job, run.op + 1)
        left = self.left.get(run.machine, {}).get((run.job, run.op))
        if left is not None and run.end <= left < by.start:
            return left  # put aside, perhaps; a vehicle that came for it later finds it there
        came = min((seen[following] for seen in self.came.values() if following in seen), default=None)
        loads = [one.loads for one in self.carries if one.job == run.job and one.from_ == run.machine]
        after = [at for at in loads if run.end <= at and (came is None or at <= came)]
        if after:
            loading_s = self.plant.layout.loading_s if self.plant.layout else 0.0
            return min(after) + round(loading_s * SECOND)
        return by.end if came is None else came

    def _went(self, machine: str, key: Key, at: int) -> None:
        """The first time after it came: a machine may say that a part is gone which was only called for."""
        came, went = self.came.get(machine, {}).get(key), self.went_in.setdefault(machine, {})
        if key not in went or (came is not None and went[key] < came):
            went[key] = at
