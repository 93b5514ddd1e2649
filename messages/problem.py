"""The problem: jobs, machines, what has happened already. One model for solvers, execution and simulation.

    Problem(machines=(Machine(id="kiln", preheat=2),),
            jobs=(Job(id="1", operations=(Operation(op=0, alternatives={"kiln": 4}),)),))

Times are integer ticks of `tick_s` seconds; `ticks` and `in_unit` convert from and to the unit of the file.
Intervals are half-open. A zero-length operation keeps its precedence, conflicts with nothing and needs no
powered machine.

Replanning: `now` is set, `history` holds what finished, runs or was interrupted, and nothing new begins (nor
preheats) before `now`. A machine that works at `now` is warm when it finishes; `warm_from` says so of one that
idles or preheats; every other machine is cold. `open_jobs` says what is left to do.

Logistics: places are machines and `Transport.stores`. Where vehicles, buffers, stores or `Job.at` are stated, a plan
states every move, also of a part that is handed on (`messages.carrying` says what must hold). At `now` a part lies
where its last operation was, and vehicles stand at home.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from messages.checks import (
    check_curves,
    check_history,
    check_places,
    check_preheating,
    check_shop,
    check_times,
    refuse_repeated,
)
from messages.curve import CURVES, Curve
from messages.errors import UsageError
from messages.message import Message
from messages.plan import Assignment, Measure, State, Tick

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Kw = Annotated[float, Field(ge=0, le=1e9)]
Family = Annotated[str, StringConstraints(max_length=128)]
CARRIER = r"^[a-z][a-z0-9_]{0,31}$"
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


class Buffer(Message):
    """Places before and behind a machine, beside the one in it; absent: any number."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    in_: int | None = Field(default=None, ge=1, le=1000, alias="in", description="for parts that wait for it")
    out: int | None = Field(default=None, ge=0, le=1000, description="for finished parts that wait to be fetched")
    policy: Literal["block", "hold"] = Field(
        default="block",
        description="where `out` is full: it works on, and the next finished part stays in it; or it begins nothing",
    )

    @model_validator(mode="after")
    def _holds_somewhere(self) -> Buffer:
        if self.policy == "hold" and not self.out:
            raise ValueError("who holds needs a place for what is finished; state `out`, 1 or more")
        return self


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
    buffer: Buffer = Buffer()


class Operation(Message):
    """One step of a job and the machines that can do it."""

    op: int = Field(ge=0, description="its number within the job")
    alternatives: dict[Id, Tick] = Field(min_length=1, description="machine → ticks")
    work_kw: dict[Id, Kw] = Field(default_factory=dict, description="machine → kW, if not its own")
    name: str = ""
    family: Family = Field(default="", description="set-ups depend on it, and only one family shares a batch")
    size: int = Field(default=1, ge=1, le=1000, description="places it takes in a batch")
    wait_min: Tick = Field(
        default=0,
        description="least ticks from the end of its predecessor to its start; with logistics, until it is moved",
    )
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
    at: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="machine or store where its part lies at first; empty: it is brought from nowhere"
    )


class Transport(Message):
    """Carrying a job from the machine of one operation to that of the next; begins when the first ends, with logistics
    then or later. A way that is not stated takes no time; with logistics the part is handed on, without a vehicle.
    """

    ticks: dict[Id, dict[Id, Tick]] = Field(
        default_factory=dict, description="from place → to place → ticks; a pair not there, or one place: none"
    )
    stores: tuple[Id, ...] = Field(default=(), max_length=10_000, description="places that are no machines")
    vehicles: int | None = Field(
        default=None, ge=1, le=1000, description="each carries one part at a time; none: carrying is a mere delay"
    )
    home: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="place where vehicles begin, needed when there are any"
    )
    loading: Tick = Field(default=0, description="ticks at the begin of carrying, the part is gone when they are over")
    unloading: Tick = Field(default=0, description="ticks at its end, the part is there when they are over")
    finished: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="store that finished parts are moved to, which ends the job; empty: they leave at once"
    )
    carrier: str = Field(default="electricity", pattern=CARRIER)
    power_kw: Kw = Field(default=0.0, description="drawn while something is carried")

    def between(self, before: str | None, after: str) -> int:
        """Ticks from one machine to another; None: it was nowhere yet."""
        return 0 if before is None or before == after else self.ticks.get(before, {}).get(after, 0)

    def carried(self, before: str, after: str) -> int | None:
        """Ticks from the begin of loading to the end of unloading; None: handed on, which takes no time."""
        way = None if before == after else self.ticks.get(before, {}).get(after)
        return None if way is None else self.loading + way + self.unloading


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
        refuse_repeated((machine.id for machine in self.machines), "machines")
        refuse_repeated((job.id for job in self.jobs), "jobs")
        known = {one.id for one in self.machines}
        for job in self.jobs:
            refuse_repeated((step.op for step in job.operations), f"jobs.{job.id}.operations")
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
        check_history(self)
        check_preheating(self)
        check_shop(self)
        check_places(self)
        check_times(self)
        check_curves(self)
        return self

    @cached_property
    def machine(self) -> dict[str, Machine]:
        """Machines by id."""
        return {machine.id: machine for machine in self.machines}

    @cached_property
    def job(self) -> dict[str, Job]:
        """Jobs by id."""
        return {job.id: job for job in self.jobs}

    @cached_property
    def operation(self) -> dict[tuple[str, int], Operation]:
        """Operations by (job, op)."""
        return {(job.id, step.op): step for job in self.jobs for step in job.operations}

    @cached_property
    def logistics(self) -> tuple[str, ...]:
        """What it states of places, vehicles and buffers, in words; empty: carrying is at most a delay."""
        carry = self.transport
        stated = {
            "vehicles": carry.vehicles is not None,
            "buffers": any(machine.buffer != Buffer() for machine in self.machines),
            "stores": bool(carry.stores),
            "place where a part lies (`at`)": any(job.at for job in self.jobs),
            "loading": bool(carry.loading or carry.unloading),
        }
        return tuple(what for what, there in stated.items() if there)

    @cached_property
    def apart_kw(self) -> dict[str, dict[tuple[str, int], float]]:
        """Machine → (job, op) → kW of its work, where it is not what the machine usually needs."""
        found: dict[str, dict[tuple[str, int], float]] = {}
        for key, step in self.operation.items():
            for name, kw in step.work_kw.items():
                found.setdefault(name, {})[key] = kw
        return found

    @cached_property
    def past(self) -> dict[str, tuple[Assignment, ...]]:
        """History by machine, in its order; machines without any are not there."""
        found: dict[str, list[Assignment]] = {}
        for one in self.history:
            found.setdefault(one.machine, []).append(one)
        return {name: tuple(those) for name, those in found.items()}

    @cached_property
    def past_of(self) -> dict[str, tuple[Assignment, ...]]:
        """History by job, in its order; jobs without any are not there."""
        found: dict[str, list[Assignment]] = {}
        for one in self.history:
            found.setdefault(one.job, []).append(one)
        return {name: tuple(those) for name, those in found.items()}

    @cached_property
    def sha256(self) -> str:
        """Of the canonical JSON (sorted keys, no white space, defaults left out)."""
        document = self.model_dump(mode="json", exclude_defaults=True, exclude={"jobs"})
        parts = {key: _canonical(value) for key, value in document.items()}
        if self.jobs:  # one by one: the documents of 10,000 at once would be ten times the problem
            jobs = (_canonical(job.model_dump(mode="json", exclude_defaults=True)) for job in self.jobs)
            parts["jobs"] = f"[{','.join(jobs)}]"
        text = "{" + ",".join(f"{_canonical(key)}:{parts[key]}" for key in sorted(parts)) + "}"
        return hashlib.sha256(text.encode()).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy that knows nothing of what was worked out from the original: hash and look-ups are made anew."""
        copied = super().model_copy(update=update, deep=deep)
        for derived in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[derived]
        return copied

    @property
    def start_floor(self) -> int:
        """The earliest tick at which anything new may begin."""
        return self.now or 0

    def work_kw(self, job: str, op: int, machine: str) -> float:
        """kW while this operation runs on this machine."""
        return self.operation[job, op].work_kw.get(machine, self.machine[machine].power_kw.work)

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
        for word in ("loading", "unloading"):
            document["transport"][word] *= factor
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


def _canonical(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
