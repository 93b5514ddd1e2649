"""What history leaves to do: jobs that are not finished, of each what remains, and where its part lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from messages.plan import Assignment

if TYPE_CHECKING:
    from messages.problem import Operation, Problem

IN_TURN = attrgetter("end", "start")
"""What orders what happened to one part."""


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
    found, floor = [], max(problem.start_floor, 0)
    for job in problem.jobs:
        events = problem.past_of.get(job.id)
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


def lies_at(problem: Problem, job: str) -> str:
    """Where the part of a job lies as planning begins: where its last operation was; at first, and when its piece was
    scrapped and nothing of it has begun again, at `Job.at`; "": nowhere."""
    at: str = problem.job[job].at
    events = problem.past_of.get(job, ())
    counts = after_scrap(problem, events) if at else events
    return max(counts, key=IN_TURN).machine if counts else at


def _left(problem: Problem, step: Operation, segments: Sequence[Assignment]) -> dict[str, int]:
    if not segments:
        return dict(step.alternatives)
    share = Fraction(1)
    for one in segments:
        whole = step.alternatives[one.machine]
        if one.interrupted and whole and problem.machine[one.machine].on_breakdown == "resume":
            share -= Fraction(one.end - one.start, whole)
    return {machine: max(1, ceil(whole * share)) if whole else 0 for machine, whole in step.alternatives.items()}
