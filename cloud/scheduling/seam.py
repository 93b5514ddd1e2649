"""The seam of solvers: what is asked (`Goal`), what is said on the way (`Event`), what comes back (`Result`).

    result = CpSat(workers=2).solve(problem, budget_s=10, goal=Goal(("makespan", "energy")))
    result.plans[0], result.status, result.bound

A solver is a frozen settings model with one method `solve`; the union `Solver` in `cloud.scheduling` is the registry.
Every plan it returns was judged by `messages.judge`, never by the solver itself. An infeasible or empty-handed result
says why in `reason`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from threading import Event as Flag
from typing import Literal

from pydantic import BaseModel, ConfigDict

from messages.judge import energy_minimal_states, objective
from messages.plan import Assignment, Plan, Status
from messages.problem import Problem

Measure = Literal["makespan", "energy", "tardiness"]
MEASURES: tuple[Measure, ...] = ("makespan", "energy", "tardiness")
KEY: dict[str, str] = {"makespan": "makespan", "energy": "energy_kwh", "tardiness": "tardiness"}
"""Where `objective()` keeps each measure: ticks, kWh, ticks."""


@dataclass(frozen=True)
class Goal:
    """Minimise the first measure, then the next without losing any of it, and so on; within `limits` (inclusive).

    `floors` are lower bounds that somebody has proved already: a solver may stop where it reaches one.
    """

    order: tuple[Measure, ...] = ("makespan",)
    limits: dict[Measure, float] = field(default_factory=dict)
    floors: dict[Measure, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.order or len(set(self.order)) != len(self.order):
            raise ValueError("Goal.order: one or more different measures")


@dataclass(frozen=True)
class Event:
    """News on the way: a better plan's value, or a better bound."""

    at_s: float
    kind: Literal["incumbent", "bound"]
    measure: Measure
    value: float


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """What a solver found. `plans` is empty, one plan, or a front sorted by its first measure."""

    plans: tuple[Plan, ...] = ()
    objective: dict[str, float] = field(default_factory=dict)
    bound: float | None = None
    status: Status = "unknown"
    runtime_s: float = 0.0
    history: tuple[Event, ...] = ()
    reason: str = ""


class Strategy(BaseModel):
    """Base of solver settings: frozen and strict."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Log:
    """Events of one run with their time since its start, handed on as they come. Bounded: the first `LIMIT` stay."""

    LIMIT = 10_000

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self.started = time.monotonic()
        self.events: list[Event] = []
        self._tell = on_event

    @property
    def elapsed_s(self) -> float:
        """Since the start of the run."""
        return time.monotonic() - self.started

    def say(self, kind: Literal["incumbent", "bound"], measure: Measure, value: float) -> None:
        """Note and hand on one event of now."""
        self.pass_on(Event(self.elapsed_s, kind, measure, value))

    def pass_on(self, news: Event) -> None:
        """Note and hand on what a solver within this run said, with the time of this run."""
        event = replace(news, at_s=self.elapsed_s)
        if len(self.events) < self.LIMIT:
            self.events.append(event)
        if self._tell:
            self._tell(event)


def is_set(stop: Flag | None) -> bool:
    """Whether somebody asked to stop."""
    return stop is not None and stop.is_set()


def judged(
    problem: Problem,
    new: Iterable[Assignment],
    *,
    solver: str,
    status: Status = "feasible",
    bound: float | None = None,
    runtime_s: float = 0.0,
) -> Plan:
    """A whole plan from the new assignments: history, states and objectives are added here."""
    assignments = tuple(
        sorted((*problem.history, *new), key=lambda one: (one.start, one.end, one.machine, one.job, one.op))
    )
    plan = Plan(
        problem_sha256=problem.sha256,
        assignments=assignments,
        machine_states=energy_minimal_states(problem, assignments),
        solver=solver,
        status=status,
        bound=bound,
        runtime_s=round(runtime_s, 3),
    )
    return plan.model_copy(update={"objectives": objective(problem, plan)})
