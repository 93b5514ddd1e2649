"""Lot splitting: one order as several smaller ones, so that its steps overlap and machines share it.

    smaller = split(problem, {"17": 3})       # job 17 becomes 17/1, 17/2, 17/3, all `part_of` order 17
    joined(smaller, plan)                     # per order and operation: which machines, from when to when

Every lot has its share of the ticks, rounded up, so that the lots together never take less than the whole; places in a
batch likewise. Set-up families, crews, waits and powers stay: what is set up for or waited for once per order now is
once per lot, which is what splitting costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from messages.errors import UsageError
from messages.plan import Plan
from messages.problem import Job, Operation, Problem

MOST_LOTS = 100
"""Of one job."""


@dataclass(frozen=True)
class Joined:
    """One operation of an order, over all its lots."""

    order: str
    op: int
    lots: int
    machines: tuple[str, ...]
    start: int
    end: int


def split(problem: Problem, lots: Mapping[str, int]) -> Problem:
    """The problem with each job of `lots` cut into so many; UsageError names the job that cannot be, and the cure."""
    known = {job.id for job in problem.jobs}
    begun = {one.job for one in problem.history}
    for name, count in lots.items():
        if name not in known:
            raise UsageError(f"split {name}={count}: there is no job {name!r}; correct the id")
        if not 1 <= count <= MOST_LOTS:
            raise UsageError(f"split {name}={count}: give 1 to {MOST_LOTS} lots")
        if name in begun:
            raise UsageError(f"split {name}={count}: job {name!r} has begun; split a job that has not")
        taken = [lot for lot in _names(name, count) if lot in known and count > 1]
        if taken:
            raise UsageError(f"split {name}={count}: there is a job {taken[0]!r} already; rename it")
    jobs = []
    for job in problem.jobs:
        count = lots.get(job.id, 1)
        jobs += [job] if count == 1 else [_lot(job, name, count) for name in _names(job.id, count)]
    try:
        return Problem.model_validate({**dict(problem), "jobs": tuple(jobs)})
    except ValidationError as error:
        raise UsageError(f"split: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def orders(problem: Problem) -> dict[str, str]:
    """Job → the order it belongs to."""
    return {job.id: job.part_of or job.id for job in problem.jobs}


def joined(problem: Problem, plan: Plan) -> tuple[Joined, ...]:
    """The plan by order and operation, in order of start."""
    order_of = orders(problem)
    found: dict[tuple[str, int], Joined] = {}
    for one in plan.assignments:
        key = (order_of[one.job], one.op)
        so_far = found.get(key) or Joined(*key, lots=0, machines=(), start=one.start, end=one.end)
        found[key] = Joined(
            *key,
            lots=so_far.lots + 1,
            machines=tuple(dict.fromkeys((*so_far.machines, one.machine))),
            start=min(so_far.start, one.start),
            end=max(so_far.end, one.end),
        )
    return tuple(sorted(found.values(), key=lambda one: (one.start, one.end, one.order, one.op)))


def _names(job: str, count: int) -> list[str]:
    return [f"{job}/{number}" for number in range(1, count + 1)]


def _lot(job: Job, name: str, count: int) -> Job:
    steps = tuple(_share(step, count) for step in job.operations)
    return job.model_copy(update={"id": name, "operations": steps, "part_of": job.part_of or job.id})


def _share(step: Operation, count: int) -> Operation:
    ticks = {machine: -(-whole // count) for machine, whole in step.alternatives.items()}
    return step.model_copy(update={"alternatives": ticks, "size": -(-step.size // count)})
