"""A plan: who does what when, in which state every machine is meanwhile, and what that was judged to cost.

    Plan(assignments=(Assignment(job="1", op=0, machine="kiln", start=0, end=4),))

Times are integer ticks of the problem it answers (`problem_sha256`); `t0` says when tick 0 was. A plan states
everything it is judged by; without `machine_states` the energy-minimal gap rule applies (`messages.judge`).
History travels in the plan word for word, so one document shows past and future.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from messages.message import Message

MAX_TICK = 10**12
"""Largest tick anywhere: sums of a million of them still fit 64 bits."""

Tick = Annotated[int, Field(ge=0, le=MAX_TICK)]
"""A point in time or a duration, in ticks from 0 on."""

AnyTick = Annotated[int, Field(ge=-MAX_TICK, le=MAX_TICK)]
"""A point in time that may lie before 0: preheating before the first operation does."""

Name = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]
"""Of a job or a machine, as in the file or order it comes from."""

State = Literal["work", "idle", "preheat", "off", "setup", "down"]
Measure = Literal["makespan", "tardiness", "energy", "carbon", "cost", "peak", "ledger"]
"""What a plan is judged by; `messages.judge` defines each."""
Status = Literal["optimal", "feasible", "infeasible", "unknown"]


class Assignment(Message):
    """One operation on one machine from `start` to `end` (half-open)."""

    job: Name
    op: int = Field(ge=0, description="the operation's number within its job")
    machine: Name
    start: Tick
    end: Tick
    interrupted: bool = Field(
        default=False, description="history only: a breakdown ended it early, it did not finish the operation"
    )

    @model_validator(mode="after")
    def _ends_after_start(self) -> Assignment:
        if self.end < self.start:
            raise ValueError(f"job {self.job!r} op {self.op}: end {self.end} lies before start {self.start}")
        return self


class MachineState(Message):
    """What a machine does from `start` to `end` (half-open)."""

    machine: Name
    state: State
    start: AnyTick
    end: AnyTick

    @model_validator(mode="after")
    def _ends_after_start(self) -> MachineState:
        if self.end < self.start:
            raise ValueError(f"{self.machine} {self.state}: end {self.end} lies before start {self.start}")
        return self


class Move(Message):
    """One job carried from one place to another, from the begin of loading to the end of unloading; or handed on, at a
    time, where the problem states no way between them."""

    job: Name
    from_: Name = Field(alias="from")
    to: Name
    vehicle: str | None = Field(default=None, description="1, 2, … of those the problem states; absent: none is needed")
    start: Tick
    end: Tick

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class Plan(Message):
    """A whole plan. `bound` was proved for the measure that the solver minimised first."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    schema_: Literal["shoal/plan/1"] = Field(default="shoal/plan/1", alias="schema")
    problem_sha256: str = Field(default="", description="the problem it answers; empty: not stated")
    t0: int | None = Field(default=None, description="UTC microseconds of tick 0; none: no calendar")
    revision: int = Field(default=0, ge=0)
    assignments: tuple[Assignment, ...] = ()
    machine_states: tuple[MachineState, ...] = ()
    moves: tuple[Move, ...] = ()
    objectives: dict[str, float] = Field(default_factory=dict, description="as `objective()` computed them")
    bound: float | None = Field(default=None, description="no plan can do better than this in `bound_of`")
    bound_of: Measure = Field(default="makespan", description="what `bound` is about")
    status: Status = "unknown"
    solver: str = ""
    runtime_s: float = Field(default=0.0, ge=0)
    ideal: dict[str, float] | None = Field(default=None, description="best of each objective over the front")
    nadir: dict[str, float] | None = Field(default=None, description="worst of each objective over the front")
