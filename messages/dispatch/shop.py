"""What can be dispatched: machines with buffers, jobs with routes, places, vehicles. Times are integer ticks.

    Shop(machines={"lathe": Station(buffer_in=2)}, jobs={"T1": Work((Step({"lathe": 12}),), at="raw")},
         ticks={"raw": {"lathe": 7}, "lathe": {"raw": 7}}, vehicles=2, home="lathe", loading=1, unloading=1)

The order of machines and jobs is that of ties. Places are machines and whatever else `ticks` names. Where a way is not
stated, a part is handed on directly and at once, without a vehicle; a vehicle goes an unstated way in no time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from messages.curve import Curve
from messages.errors import UsageError
from messages.openjobs import lies_at, open_jobs
from messages.problem import Machine, Problem


@dataclass(frozen=True, slots=True)
class Shut:
    """No work begins in [start, end). Closed: it ends before, too. Broken: what was begun before goes on afterwards."""

    start: int
    end: int
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Station:
    """One machine. Buffers count places beside the one in the machine; None: any number."""

    buffer_in: int | None = None
    buffer_out: int | None = None
    hold: bool = False  # begins only when its out-buffer has a place left; otherwise the machine itself is the last one
    shut: tuple[Shut, ...] = ()  # in time order, not overlapping
    preheat: int = 0  # ticks before work when cold
    idle_kw: float = 0.0
    preheat_kw: float = 0.0
    off_kw: float = 0.0
    carrier: str = "electricity"

    @property
    def limit(self) -> int | None:
        """How many finished parts may still be there when the next work begins."""
        return None if self.buffer_out is None else self.buffer_out - self.hold


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: machine → ticks. One of 0 ticks needs no machine and takes no place."""

    ticks: Mapping[str, int]
    kw: Mapping[str, float] = field(default_factory=dict)  # machine → drawn while it works
    lag: int = 0  # ticks from the end of the step before (the release) until it can be carried, or begin

    def draws_kw(self, machine: str) -> float:
        """kW of the work on `machine`."""
        return self.kw.get(machine, 0.0)


@dataclass(frozen=True, slots=True)
class Work:
    """One job: its steps in order. Its part lies `at` a place at first; "": nowhere, it needs no way."""

    steps: tuple[Step, ...]
    release: int = 0
    due: int | None = None
    at: str = ""


@dataclass(frozen=True)
class Shop:
    """Everything that does not change while decisions are made."""

    machines: Mapping[str, Station]
    jobs: Mapping[str, Work]
    ticks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # place → place → ticks
    vehicles: int | None = None  # None: any number, carrying is a mere lag
    home: str = ""  # where idle vehicles begin
    loading: int = 0
    unloading: int = 0
    finished: str = ""  # store that finished parts are carried to; "": they leave at once
    carry_kw: float = 0.0  # drawn while a part is carried
    carry_carrier: str = "electricity"
    hour_ticks: float = 3600.0
    carbon: Mapping[str, Curve] = field(default_factory=dict)  # carrier → kg CO2e per kWh
    came: tuple[Work, ...] = ()  # jobs nobody had announced, in the order in which they came (`release`), done ones too

    def __post_init__(self) -> None:
        for name, station in self.machines.items():
            if station.buffer_in is not None and station.buffer_in < 1:
                raise UsageError(f"machine {name!r}: buffer in {station.buffer_in}: 1 or more places, or none stated")
            if station.limit is not None and station.limit < 0:
                raise UsageError(
                    f"machine {name!r}: who holds needs a place for what is finished: buffer out 1 or more"
                )
        machines = self.machines.keys()
        for name, work in self.jobs.items():
            if not all(step.ticks and step.ticks.keys() <= machines for step in work.steps):
                unknown = {machine for step in work.steps for machine in step.ticks} - machines
                raise UsageError(
                    f"job {name!r}: {sorted(unknown) or 'a step'} has no machine here; add it or correct it"
                )

    @cached_property
    def route(self) -> dict[str, tuple[Step, ...]]:
        """Steps of each job; where there is a store of finished parts, being brought there is the last."""
        last = (Step({self.finished: 0}),) if self.finished else ()
        return {name: (*work.steps, *last) for name, work in self.jobs.items()}

    def carried(self, before: str, after: str) -> int | None:
        """Ticks from the begin of loading to the end of unloading; None: it is not carried."""
        if not before or before == after:
            return None
        way = self.ticks.get(before, {}).get(after)
        return None if way is None else self.loading + way + self.unloading

    def empty(self, before: str, after: str) -> int:
        """Ticks of a vehicle without a part."""
        return 0 if before == after else self.ticks.get(before, {}).get(after, 0)

    def kg(self, carrier: str, kw: float, start: int, end: int) -> float:
        """CO2e of drawing `kw` in [start, end)."""
        curve = self.carbon.get(carrier)
        return 0.0 if curve is None or not kw else kw * curve.over(start, end) / self.hour_ticks


def shop_from(problem: Problem) -> Shop:
    """What is left to do of `problem`, as a shop: parts lie where their last operation was. UsageError where it states
    what dispatching does not know. What machines are doing at `now` is in `messages.dispatch.state.state_from`."""
    unknown = {
        "set-ups": any(machine.setup for machine in problem.machines),
        "batches": any(machine.batch > 1 for machine in problem.machines),
        "crews": bool(problem.crews),
        "a greatest wait": any(step.wait_max is not None for step in problem.operation.values()),
    }
    for what, there in unknown.items():
        if there:
            raise UsageError(f"dispatching knows no {what}: plan this problem with `shoal schedule`")
    carry = problem.transport
    begun = {one.job for one in problem.history}
    jobs = {}
    for job in open_jobs(problem):
        steps = tuple(
            Step(
                dict(step.alternatives),
                {name: problem.work_kw(step.job, step.op, name) for name in step.alternatives},
                problem.operation[step.job, step.op].wait_min if n or job.id in begun else 0,
            )
            for n, step in enumerate(job.operations)
        )
        jobs[job.id] = Work(steps, job.ready, job.due, lies_at(problem, job.id))
    return Shop(
        machines={
            one.id: Station(
                buffer_in=one.buffer.in_,
                buffer_out=one.buffer.out,
                hold=one.buffer.policy == "hold",
                shut=_joined(_closings(problem, one)),
                preheat=one.preheat,
                idle_kw=one.power_kw.idle,
                preheat_kw=one.power_kw.preheat,
                off_kw=one.power_kw.off,
                carrier=one.carrier,
            )
            for one in problem.machines
        },
        jobs=jobs,
        ticks=carry.ticks,
        vehicles=carry.vehicles,
        home=carry.home,
        loading=carry.loading,
        unloading=carry.unloading,
        finished=carry.finished,
        carry_kw=carry.power_kw,
        carry_carrier=carry.carrier,
        hour_ticks=3600 / problem.tick_s,
        carbon=problem.carbon,
    )


def _closings(problem: Problem, machine: Machine) -> list[tuple[int, int]]:
    """When no work may be there: closed or broken, and being preheated after it was broken."""
    return [
        (shut.start, shut.end + (machine.preheat if shut.reason == "breakdown" else 0))
        for shut in machine.unavailable
        if shut.end > problem.start_floor
    ]


def _joined(times: list[tuple[int, int]]) -> tuple[Shut, ...]:
    found: list[Shut] = []
    for start, end in sorted(times):
        if found and start <= found[-1].end:
            found[-1] = Shut(found[-1].start, max(end, found[-1].end))
        else:
            found.append(Shut(start, end))
    return tuple(found)
