"""What if: a plan frozen where it stands, one thing changed, and a problem of what is left to plan.

    frozen = freeze(problem, plan, now=24)
    frozen = apply(frozen, Down("kiln-1", 24, 32))      # a machine breaks down
    frozen = apply(frozen, Rush("7", due=40))           # an order must be ready by then
    frozen = apply(frozen, Add((Job(...),)))            # orders come in

Pure: nothing given is changed. What began before `now` is history, as the plan has it, and what was set up for by then;
a set-up that is under way is begun again. A breakdown interrupts what runs on the machine, and what the plan put there
since it began was not done.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from messages.errors import UsageError
from messages.gaps import machine_states
from messages.plan import Assignment, MachineState, Plan
from messages.problem import Job, Machine, Problem, Window


@dataclass(frozen=True)
class Down:
    """A machine is broken from `start` to `end`."""

    machine: str
    start: int
    end: int


@dataclass(frozen=True)
class Rush:
    """A job, or all lots of an order, must be ready by `due`."""

    job: str
    due: int


@dataclass(frozen=True)
class Add:
    """More jobs."""

    jobs: tuple[Job, ...]


Change = Down | Rush | Add


def freeze(problem: Problem, plan: Plan, now: int) -> Problem:
    """The problem of a plan carried out until `now`: begun work is history, powered machines are warm."""
    if problem.now is not None and now < problem.now:
        raise UsageError(f"now: {now} lies before the problem's own ({problem.now}); the past cannot be changed")
    begun = set(problem.history)
    states = plan.machine_states or machine_states(problem, plan.assignments)
    set_up = {one.machine for one in states if one.state == "setup" and one.start < now == one.end}
    at_once = {one.job for one in plan.assignments if one.start == now < one.end and one.machine in set_up}
    past = tuple(
        one for one in plan.assignments if one.start < now or one in begun or (one.start == now and one.job in at_once)
    )
    if begun - set(past):
        raise UsageError(
            f"plan: it lacks job {min(begun - set(past), key=_key).job!r}, which has begun; give a newer one"
        )
    return _at(problem, past, states, now)


def apply(problem: Problem, change: Change) -> Problem:
    """The frozen problem with one thing changed; UsageError says what cannot be and the cure."""
    if isinstance(change, Down):
        return _down(problem, change)
    if isinstance(change, Rush):
        hit = [job.id for job in problem.jobs if change.job in (job.id, job.part_of)]
        if not hit:
            raise UsageError(f"rush {change.job}: there is no such job or order; correct the id")
        orders = {job.part_of for job in problem.jobs if job.id in hit and job.part_of}
        jobs = tuple(
            job.model_copy(update={"due": change.due}) if job.id in hit or job.part_of in orders else job
            for job in problem.jobs
        )
        return _changed(problem, jobs=jobs)
    taken = {job.id for job in problem.jobs}
    for job in change.jobs:
        if job.id in taken:
            raise UsageError(f"add: there is a job {job.id!r} already; give it another id")
        taken.add(job.id)
    return _changed(problem, jobs=(*problem.jobs, *change.jobs))


def _key(one: Assignment) -> tuple[str, int]:
    return one.job, one.op


def _at(problem: Problem, past: tuple[Assignment, ...], states: Collection[MachineState], now: int) -> Problem:
    machines = tuple(
        machine
        if now == problem.start_floor or (machine.warm_from or 0) > now
        else machine.model_copy(update={"warm_from": _warm_from(machine, past, states, now)})
        for machine in problem.machines
    )
    return _changed(problem, now=now, history=past, machines=machines)


def _warm_from(
    machine: Machine, past: Collection[Assignment], states: Collection[MachineState], now: int
) -> int | None:
    """Since when it is powered and not at work at `now`, or when its preheating ends; None: cold, or history tells."""
    if any(one.machine == machine.id and one.start < now <= one.end for one in past if one.end > one.start):
        return None
    since: int | None = None
    for one in sorted((one for one in states if one.machine == machine.id), key=lambda one: one.start):
        if one.start > now:
            break
        if one.state == "preheat" and one.start < now <= one.end:
            return one.end
        if one.state not in ("idle", "setup") or one.end < now:
            since = None if one.end < now or one.start < now else since
        elif since is None:
            since = max(0, one.start)
    return since


def _down(problem: Problem, change: Down) -> Problem:
    if change.machine not in problem.machine:
        known = ", ".join(machine.id for machine in problem.machines[:20])
        raise UsageError(f"down {change.machine}: there is no such machine; there are {known}")
    if change.end <= change.start:
        raise UsageError(f"down {change.machine}: it must end after it begins; correct the times")
    if problem.now is not None and change.end <= problem.now:
        raise UsageError(f"down {change.machine}: it is over before now; nothing would be planned anew")
    window = Window(start=change.start, end=change.end, reason="breakdown")
    machine = problem.machine[change.machine]
    warm = machine.warm_from
    if warm is not None and change.start <= max(warm, problem.start_floor):
        warm = None
    broken = machine.model_copy(update={"unavailable": (*machine.unavailable, window), "warm_from": warm})
    machines = tuple(broken if one.id == machine.id else one for one in problem.machines)
    return _changed(problem, machines=machines, history=_interrupted(problem, change))


def _interrupted(problem: Problem, change: Down) -> tuple[Assignment, ...]:
    """History as it was with the breakdown: cut short what ran, and what the plan had begun since was not."""
    undone: dict[str, int] = {}
    kept = []
    for one in sorted(problem.history, key=lambda one: (one.start, one.end, one.op)):
        hit = one.machine == change.machine and one.end > one.start
        if one.start >= undone.get(one.job, one.start + 1):
            continue
        if hit and one.start < change.start < one.end and not one.interrupted:
            one = one.model_copy(update={"end": change.start, "interrupted": True})
            undone[one.job] = change.start
        elif hit and change.start <= one.start < change.end and not one.interrupted:
            undone[one.job] = one.start
            continue
        kept.append(one)
    return tuple(kept)


def _changed(problem: Problem, **fields: object) -> Problem:
    return Problem.model_validate({**dict(problem), **fields})
