"""The problem: jobs, machines, what has happened already. One model for solvers, execution and simulation.

    Problem(machines=(Machine(id="kiln", preheat=2),),
            jobs=(Job(id="1", operations=(Operation(op=0, alternatives={"kiln": 4}),)),))

Times are integer ticks of `tick_s` seconds; `ticks` and `in_unit` convert from and to the unit of the file.
Intervals are half-open. A zero-length operation keeps its precedence, conflicts with nothing and needs no
powered machine.

Replanning: `now` is set, `history` holds what finished, runs or was interrupted, and nothing new begins (nor
preheats) before `now`. A machine that works at `now` is warm when it finishes; `warm_from` says so of one that
idles or preheats; every other machine is cold. `open_jobs` says what is left to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from messages.errors import UsageError
from messages.message import Message
from messages.plan import MAX_TICK, AnyTick, Assignment, State, Tick
from messages.plan import Measure as Measure

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Kw = Annotated[float, Field(ge=0, le=1e9)]
Family = Annotated[str, StringConstraints(max_length=128)]
CARRIER = r"^[a-z][a-z0-9_]{0,31}$"
CURVES = ("carbon", "tariff", "generation", "base_load")
"""Fields of a problem that hold a curve per carrier."""
TIMES: tuple[Measure, ...] = ("makespan", "tardiness")
"""Measures in ticks."""
UNIT_S = {"h": 3600, "min": 60, "s": 1, "": 1}
"""Seconds per time unit; an instance without a unit counts its unit as one second."""


class Window(Message):
    """A machine is not available. Closed: it may stay warm and preheat. Breakdown: it goes cold."""

    start: Tick
    end: Tick
    reason: Literal["closed", "breakdown"] = "closed"

    @model_validator(mode="after")
    def _not_empty(self) -> Window:
        if self.end <= self.start:
            raise ValueError(f"window {self.start}..{self.end} is empty; let it end after its start")
        return self


class Curve(Message):
    """Something over time, a step function: a tariff, the carbon of a carrier, what the sun gives.

    Before its start the first value holds. After its end a periodic curve begins again; any other keeps its last value,
    and is refused where a stated `horizon` lies beyond it.
    """

    start: AnyTick = Field(default=0, description="tick at which the first value begins")
    step: int = Field(ge=1, le=MAX_TICK, description="ticks per value")
    values: tuple[float, ...] = Field(min_length=1, max_length=100_000)
    periodic: bool = Field(default=False, description="begins again after its end (and before its start)")

    @property
    def end(self) -> int:
        """Tick at which its last value ends."""
        return self.start + self.step * len(self.values)

    def at(self, tick: int) -> float:
        """The value in force from `tick` on."""
        return self.values[self._place(tick)]

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, float]]:
        """The steps within [start, end): (from, until, value), without holes, equal neighbours not joined."""
        at = start
        while at < end:
            until = min(end, self._until(at))
            yield at, until, self.values[self._place(at)]
            at = until

    def over(self, start: int, end: int) -> float:
        """The integral from `start` to `end`, in values · ticks.

        >>> Curve(start=0, step=10, values=(1.0, 2.0)).over(5, 25)
        35.0
        >>> Curve(start=0, step=10, values=(1.0, 2.0), periodic=True).over(5, 25)
        30.0
        """
        return sum(value * (until - at) for at, until, value in self.pieces(start, end))

    def _place(self, tick: int) -> int:
        place = (tick - self.start) // self.step
        if self.periodic:
            return place % len(self.values)
        return min(max(place, 0), len(self.values) - 1)

    def _until(self, tick: int) -> int:
        place = (tick - self.start) // self.step
        if self.periodic:
            return self.start + (place + 1) * self.step
        if place >= len(self.values) - 1:
            return MAX_TICK
        return self.start + (max(place, 0) + 1) * self.step


class Power(Message):
    """kW drawn in each state."""

    work: Kw = 0.0
    idle: Kw = 0.0
    preheat: Kw = 0.0
    off: Kw = 0.0
    setup: Kw = 0.0
    down: Kw = 0.0

    def of(self, state: State) -> float:
        """kW in `state`."""
        return float(getattr(self, state))


class Machine(Message):
    """One machine; an unused one draws nothing, and after its last operation it is off."""

    id: Id
    carrier: str = Field(default="electricity", pattern=CARRIER, description="energy carrier")
    power_kw: Power = Power()
    preheat: Tick = Field(default=0, description="ticks of preheating before work after being off")
    unavailable: tuple[Window, ...] = ()
    warm_from: Tick | None = Field(
        default=None, description="warm from here until `now` at least, or preheated by then; none: cold"
    )
    on_breakdown: Literal["resume", "restart", "scrap"] = Field(
        default="restart",
        description="an interrupted operation: the rest is done, it is done again, or its whole job is",
    )
    setup: dict[Family, dict[Family, Tick]] = Field(
        default_factory=dict,
        description="family before → family after → ticks of set-up right before work, powered; a pair not there: none",
    )
    family: Family = Field(default="", description="what it is set up for as the problem begins")
    batch: int = Field(default=1, ge=1, le=1000, description="operations of one family it can do together, by size")


class Operation(Message):
    """One step of a job and the machines that can do it."""

    op: int = Field(ge=0, description="its number within the job")
    alternatives: dict[Id, Tick] = Field(min_length=1, description="machine → ticks")
    work_kw: dict[Id, Kw] = Field(default_factory=dict, description="machine → kW, if not its own")
    name: str = ""
    family: Family = Field(default="", description="set-ups depend on it, and only one family shares a batch")
    size: int = Field(default=1, ge=1, le=1000, description="places it takes in a batch")
    wait_min: Tick = Field(default=0, description="least ticks from the end of its predecessor to its start")
    wait_max: Tick | None = Field(default=None, description="most ticks from the end of its predecessor to its start")
    crew: dict[Id, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="crew → people needed while it is set up for and done"
    )


class Job(Message):
    """One order: its operations in sequence."""

    id: Id
    operations: tuple[Operation, ...] = Field(min_length=1)
    release: Tick = 0
    due: Tick | None = None
    part_of: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="the order it is a lot of: lots are late together, by their last"
    )


class Transport(Message):
    """Carrying a job from the machine of one operation to that of the next; begins when the first ends."""

    ticks: dict[Id, dict[Id, Tick]] = Field(
        default_factory=dict, description="from machine → to machine → ticks; a pair not there, or one machine: none"
    )
    carrier: str = Field(default="electricity", pattern=CARRIER)
    power_kw: Kw = Field(default=0.0, description="drawn while something is carried")

    def between(self, before: str | None, after: str) -> int:
        """Ticks from one machine to another; None: it was nowhere yet."""
        return 0 if before is None or before == after else self.ticks.get(before, {}).get(after, 0)


class Problem(Message):
    """What is to be planned. Everything is checked here, so that nobody checks it again."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    schema_: Literal["shoal/problem/1"] = Field(default="shoal/problem/1", alias="schema")
    name: str = ""
    time_unit: Literal["h", "min", "s", ""] = Field(default="s", description="unit of times shown to people")
    tick_s: float = Field(default=1.0, gt=0, le=1e7, description="seconds per tick")
    machines: tuple[Machine, ...] = ()
    jobs: tuple[Job, ...] = ()
    now: Tick | None = Field(default=None, description="nothing new begins earlier; none: a fresh plan")
    history: tuple[Assignment, ...] = Field(default=(), description="finished, running (its end foreseen), interrupted")
    kgce_per_kwh: float = Field(default=0.1229, ge=0)
    transport: Transport = Transport()
    crews: dict[Id, Annotated[int, Field(ge=1)]] = Field(default_factory=dict, description="crew → people on duty")
    carbon: dict[str, Curve] = Field(default_factory=dict, description="energy carrier → kg CO2e per kWh")
    tariff: dict[str, Curve] = Field(default_factory=dict, description="energy carrier → money per kWh")
    generation: dict[str, Curve] = Field(default_factory=dict, description="energy carrier → kW generated on site")
    base_load: dict[str, Curve] = Field(default_factory=dict, description="energy carrier → kW of everything else")
    capture_kg: float = Field(default=0.0, ge=0, description="kg CO2e captured within the horizon, as metered")
    export_kg_per_kwh: float = Field(default=0.0, ge=0, description="credit for generation that nobody here uses")
    horizon: Tick | None = Field(
        default=None, description="all work ends by then, and base load and exports count from 0 to then"
    )
    limits: dict[Measure, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="measure → most that a plan may reach; times in ticks"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Problem:
        _refuse_repeated((machine.id for machine in self.machines), "machines")
        _refuse_repeated((job.id for job in self.jobs), "jobs")
        known = {one.id for one in self.machines}
        for job in self.jobs:
            _refuse_repeated((step.op for step in job.operations), f"jobs.{job.id}.operations")
            for step in job.operations:
                for name in (*step.alternatives, *step.work_kw):
                    if name not in known:
                        raise ValueError(
                            f"jobs.{job.id}.operations.{step.op}: machine {name!r} is not in `machines`; "
                            "add it there or correct the id"
                        )
        for machine in self.machines:
            if self.now is None and machine.warm_from:
                raise ValueError(
                    f"machines.{machine.id}.warm_from: a fresh plan starts at 0: say 0 or nothing, or state `now`"
                )
        _check_history(self)
        _check_preheating(self)
        _check_shop(self)
        _check_curves(self)
        return self

    @cached_property
    def machine(self) -> dict[str, Machine]:
        """Machines by id."""
        return {machine.id: machine for machine in self.machines}

    @cached_property
    def operation(self) -> dict[tuple[str, int], Operation]:
        """Operations by (job, op)."""
        return {(job.id, step.op): step for job in self.jobs for step in job.operations}

    @cached_property
    def sha256(self) -> str:
        """Of the canonical JSON (sorted keys, no white space, defaults left out)."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def start_floor(self) -> int:
        """The earliest tick at which anything new may begin."""
        return self.now or 0

    def work_kw(self, job: str, op: int, machine: str) -> float:
        """kW while this operation runs on this machine."""
        own = self.operation[job, op].work_kw.get(machine)
        return self.machine[machine].power_kw.work if own is None else own

    def ticks(self, value: float, where: str) -> int:
        """`value` of the time unit in ticks; UsageError naming `where` if it is off the grid."""
        exact = Fraction(str(value)) * UNIT_S[self.time_unit] / Fraction(str(self.tick_s))
        if exact.denominator != 1:
            raise UsageError(
                f"{where}: {value} {self.time_unit} is off the grid of {self.tick_s} s per tick; "
                "correct the value or choose a tick that divides it"
            )
        return int(exact)

    def in_unit(self, ticks: float) -> float:
        """`ticks` in the time unit."""
        return float(Fraction(str(ticks)) * Fraction(str(self.tick_s)) / UNIT_S[self.time_unit])

    def finer(self, factor: int) -> Problem:
        """The same problem with each tick cut into `factor`."""
        document = self.model_dump(exclude={"schema_"})
        document["tick_s"] = float(Fraction(str(self.tick_s)) / factor)
        if document["now"] is not None:
            document["now"] *= factor
        for machine in document["machines"]:
            machine["preheat"] *= factor
            if machine["warm_from"] is not None:
                machine["warm_from"] *= factor
            for after in machine["setup"].values():
                after.update({family: ticks * factor for family, ticks in after.items()})
        for curves in (document[kind] for kind in CURVES):
            for curve in curves.values():
                curve["start"] *= factor
                curve["step"] *= factor
        for after in document["transport"]["ticks"].values():
            after.update({machine: ticks * factor for machine, ticks in after.items()})
        if document["horizon"] is not None:
            document["horizon"] *= factor
        for timed in TIMES:
            if timed in document["limits"]:
                document["limits"][timed] *= factor
        for timed in (*document["history"], *(w for m in document["machines"] for w in m["unavailable"])):
            timed["start"] *= factor
            timed["end"] *= factor
        for job in document["jobs"]:
            job["release"] *= factor
            if job["due"] is not None:
                job["due"] *= factor
            for step in job["operations"]:
                step["alternatives"] = {key: ticks * factor for key, ticks in step["alternatives"].items()}
                step["wait_min"] *= factor
                if step["wait_max"] is not None:
                    step["wait_max"] *= factor
        return Problem.model_validate(document)


@dataclass(frozen=True, slots=True)
class OpenOperation:
    """An operation still to be done, and what is left of it on each machine."""

    job: str
    op: int
    alternatives: dict[str, int]


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that is not finished: what remains, and from when on it can go on."""

    id: str
    ready: int
    due: int | None
    operations: tuple[OpenOperation, ...]


def open_jobs(problem: Problem) -> tuple[OpenJob, ...]:
    """What history leaves to do, in the order of the file.

    Finished and running operations are done with. An interrupted one is done again from the start (`restart`),
    or the share that is missing, on whichever machine (`resume`, at least one tick), or all of its job is
    (`scrap`).
    """
    told: dict[str, list[Assignment]] = {}
    for past in problem.history:
        told.setdefault(past.job, []).append(past)
    found = []
    for job in problem.jobs:
        events = told.get(job.id, [])
        counts = _after_scrap(problem, events)
        done = {one.op for one in counts if not one.interrupted}
        rest = tuple(
            OpenOperation(job.id, step.op, _left(problem, step, [one for one in counts if one.op == step.op]))
            for step in job.operations
            if step.op not in done
        )
        if rest:
            ready = max(job.release, problem.start_floor, *(one.end for one in events), 0)
            found.append(OpenJob(job.id, ready, job.due, rest))
    return tuple(found)


def _after_scrap(problem: Problem, past: Sequence[Assignment]) -> list[Assignment]:
    """What still counts of a job's history: all of it, or what began after its piece was last scrapped."""
    lost = [one.end for one in past if one.interrupted and problem.machine[one.machine].on_breakdown == "scrap"]
    return [one for one in past if not lost or one.start >= max(lost)]


def _left(problem: Problem, step: Operation, segments: Sequence[Assignment]) -> dict[str, int]:
    if not segments:
        return dict(step.alternatives)
    share = Fraction(1)
    for one in segments:
        whole = step.alternatives[one.machine]
        if one.interrupted and whole and problem.machine[one.machine].on_breakdown == "resume":
            share -= Fraction(one.end - one.start, whole)
    return {machine: max(1, ceil(whole * share)) if whole else 0 for machine, whole in step.alternatives.items()}


def missing(problem: Problem, measure: Measure) -> str:
    """What `problem` must say before its plans can be judged by `measure`; "" when it says it.

    >>> missing(Problem(), "cost")
    'no energy carrier has a tariff; add `tariff`: carrier → money per kWh'
    """
    if measure in ("carbon", "ledger") and not problem.carbon:
        return "no energy carrier has a carbon curve; add `carbon`: carrier → kg CO2e per kWh"
    if measure == "cost" and not problem.tariff:
        return "no energy carrier has a tariff; add `tariff`: carrier → money per kWh"
    return ""


def _refuse_repeated(ids: Iterable[object], where: str) -> None:
    seen: set[object] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"{where}: {one!r} stands there twice; ids must differ")
        seen.add(one)


def _check_history(problem: Problem) -> None:
    if problem.history and problem.now is None:
        raise ValueError("history: state `now` as well, the tick from which on the future may be planned")
    by_job: dict[str, list[Assignment]] = {}
    for past in problem.history:
        where = f"history: job {past.job!r} op {past.op}"
        step = problem.operation.get((past.job, past.op))
        if step is None:
            raise ValueError(f"{where} is not in `jobs`; correct the ids")
        if past.machine not in step.alternatives:
            able = ", ".join(step.alternatives)
            raise ValueError(f"{where}: {past.machine!r} cannot do it; use one of {able}")
        if problem.now is not None and past.start > problem.now:
            raise ValueError(f"{where} starts at {past.start}, after now ({problem.now}): not yet history")
        by_job.setdefault(past.job, []).append(past)
    for job in problem.jobs:
        counts = _after_scrap(problem, by_job.get(job.id, []))
        done = [one.op for one in counts if not one.interrupted]
        _refuse_repeated(done, f"history: finished operations of job {job.id!r}")
        expected = [step.op for step in job.operations][: len(done)]
        if sorted(done) != sorted(expected):
            raise ValueError(f"history: job {job.id!r} did {done} but begins {expected}; add what is missing")


def _check_preheating(problem: Problem) -> None:
    """A machine that is being preheated at `now` began that by now, and neither works nor is broken down meanwhile."""
    for machine in problem.machines:
        if machine.warm_from is None or problem.now is None or machine.warm_from <= problem.now:
            continue
        begun = machine.warm_from - machine.preheat
        where = f"machines.{machine.id}.warm_from: {machine.warm_from}"
        if begun > problem.now:
            raise ValueError(
                f"{where} lies {machine.warm_from - problem.now} after now, but preheating takes {machine.preheat}: it "
                "has not begun; leave it out"
            )
        for window in machine.unavailable:
            if window.reason == "breakdown" and window.start < machine.warm_from and begun < window.end:
                raise ValueError(
                    f"{where}: it is broken down {window.start}..{window.end}, so it does not preheat; leave it out"
                )
        for past in problem.history:
            if past.machine == machine.id and past.end > begun and past.end > past.start:
                raise ValueError(
                    f"machines.{machine.id}.warm_from: preheating to {machine.warm_from} began at {begun}, but history "
                    f"has it at work until {past.end}; correct one of the two"
                )


def _check_shop(problem: Problem) -> None:
    """Transport, crews and batches speak of what there is, and every operation can be done by somebody."""
    for before, row in problem.transport.ticks.items():
        for name in (before, *row):
            if name not in problem.machine:
                raise ValueError(f"transport.ticks: machine {name!r} is not in `machines`; add it or correct the id")
    due_of: dict[str, int | None] = {}
    for job in problem.jobs:
        if job.part_of and due_of.setdefault(job.part_of, job.due) != job.due:
            raise ValueError(f"jobs.{job.id}.due: the lots of order {job.part_of!r} have one due date; correct one")
        for position, step in enumerate(job.operations):
            where = f"jobs.{job.id}.operations.{step.op}"
            for crew, people in step.crew.items():
                there = problem.crews.get(crew, 0)
                if people > there:
                    raise ValueError(
                        f"{where}.crew: needs {people} of {crew!r}, there are {there}; add them to `crews`"
                    )
            if step.wait_max is not None and step.wait_max < step.wait_min:
                raise ValueError(
                    f"{where}: wait_max {step.wait_max} is less than wait_min {step.wait_min}; correct one"
                )
            if position == 0 and (step.wait_min or step.wait_max is not None):
                raise ValueError(f"{where}: the first operation waits for nothing; use the job's `release`")
            too_small = [name for name in step.alternatives if 1 < step.size > problem.machine[name].batch]
            if too_small:
                raise ValueError(f"{where}.size: {step.size} does not fit {too_small[0]!r}; raise its `batch`")


def _check_curves(problem: Problem) -> None:
    """Curves that cannot be negative are not, and none ends before the horizon."""
    for kind in CURVES:
        for carrier, curve in getattr(problem, kind).items():
            where = f"{kind}.{carrier}"
            if kind != "tariff" and min(curve.values) < 0:
                raise ValueError(f"{where}.values: {min(curve.values)} is negative; only a tariff may be")
            if problem.horizon is not None and not curve.periodic and curve.end < problem.horizon:
                raise ValueError(
                    f"{where}: ends at {curve.end}, before the horizon ({problem.horizon}); "
                    "give more values, say `periodic`, or lower the horizon"
                )
            if problem.horizon is not None and not curve.periodic and curve.start > problem.start_floor:
                raise ValueError(f"{where}: begins at {curve.start}, after {problem.start_floor}; give earlier values")
    if problem.horizon is None and (problem.base_load or problem.export_kg_per_kwh or problem.capture_kg):
        raise ValueError("horizon: base load, exports and capture count over a fixed time; state `horizon`")
    if problem.horizon is not None and problem.horizon < problem.start_floor:
        raise ValueError(f"horizon: {problem.horizon} lies before now ({problem.start_floor}); raise it")
    for measure in problem.limits:
        if cure := missing(problem, measure):
            raise ValueError(f"limits.{measure}: {cure}, or drop the limit")
    if "tardiness" in problem.limits and all(job.due is None for job in problem.jobs) and problem.jobs:
        raise ValueError("limits.tardiness: no job has a due date; add `due` or drop the limit")
