"""What history leaves to do: jobs that are not finished, and of each what remains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from messages.plan import Assignment

if TYPE_CHECKING:
    from messages.problem import Operation, Problem


class OpenOperation(NamedTuple):
    """An operation still to be done, and what is left of it on each machine."""

    job: str
    op: int
    alternatives: Mapping[str, int]


class OpenJob(NamedTuple):
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
    found, floor = [], max(problem.start_floor, 0)
    for job in problem.jobs:
        events = told.get(job.id)
        if not events:
            whole = tuple([OpenOperation(job.id, step.op, step.alternatives) for step in job.operations])
            found.append(OpenJob(job.id, max(job.release, floor), job.due, whole))
            continue
        counts = after_scrap(problem, events)
        done = {one.op for one in counts if not one.interrupted}
        rest = tuple(
            OpenOperation(job.id, step.op, _left(problem, step, [one for one in counts if one.op == step.op]))
            for step in job.operations
            if step.op not in done
        )
        if rest:
            ready = max(job.release, floor, *(one.end for one in events))
            found.append(OpenJob(job.id, ready, job.due, rest))
    return tuple(found)


def after_scrap(problem: Problem, past: Sequence[Assignment]) -> list[Assignment]:
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
