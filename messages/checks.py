"""What must hold between the parts of a problem; each refusal is a ValueError that names place and cure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from messages.curve import CURVES
from messages.openjobs import after_scrap
from messages.plan import MAX_TICK, Assignment, Measure

if TYPE_CHECKING:
    from messages.problem import Problem


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


def beyond_solvers(problem: Problem) -> str:
    """Why `problem` can only be dispatched, not solved; "" when it can be solved.

    >>> from messages.problem import Problem, Transport
    >>> beyond_solvers(Problem(transport=Transport(stores=("raw",), vehicles=2, home="raw")))
    'solvers know no vehicles, no stores: use `shoal swarm FILE`'
    """
    unknown = ", no ".join(problem.logistics)
    return f"solvers know no {unknown}: use `shoal swarm FILE`" if unknown else ""


def refuse_repeated(ids: Iterable[object], where: str) -> None:
    seen: set[object] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"{where}: {one!r} stands there twice; ids must differ")
        seen.add(one)


def check_history(problem: Problem) -> None:
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
        counts = after_scrap(problem, by_job.get(job.id, []))
        done = [one.op for one in counts if not one.interrupted]
        refuse_repeated(done, f"history: finished operations of job {job.id!r}")
        expected = [step.op for step in job.operations][: len(done)]
        if sorted(done) != sorted(expected):
            raise ValueError(f"history: job {job.id!r} did {done} but begins {expected}; add what is missing")


def check_preheating(problem: Problem) -> None:
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


def check_shop(problem: Problem) -> None:
    """Crews and batches speak of what there is, and every operation can be done by somebody."""
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


def check_places(problem: Problem) -> None:
    """Ways, homes and parts are at places that there are."""
    carry = problem.transport
    refuse_repeated((*problem.machine, *carry.stores), "transport.stores, with the machines")
    named = [("transport.ticks", place) for before, row in carry.ticks.items() for place in (before, *row)]
    named += [("transport.home", carry.home)] if carry.home else []
    named += [(f"jobs.{job.id}.at", job.at) for job in problem.jobs if job.at]
    stores = set(carry.stores)
    for where, place in named:
        if place not in problem.machine and place not in stores:
            cure = "add it to `machines` or `transport.stores`, or correct the id"
            raise ValueError(f"{where}: there is no place {place!r}; {cure}")
    if carry.finished and carry.finished not in stores:
        raise ValueError(f"transport.finished: there is no store {carry.finished!r}; add it to `transport.stores`")
    if carry.vehicles is not None and not carry.home:
        raise ValueError("transport.home: vehicles begin somewhere; name a machine or a store")


def check_times(problem: Problem) -> None:
    """All work one after the other, after the last time stated, still ends within the ticks there are."""
    begin, where = problem.start_floor, "now"
    stated = [(f"jobs.{job.id}.release", job.release) for job in problem.jobs]
    stated += [(f"history: job {one.job!r} op {one.op}", one.end) for one in problem.history]
    for machine in problem.machines:
        stated += [(f"machines.{machine.id}.unavailable", window.end) for window in machine.unavailable]
        stated.append((f"machines.{machine.id}.warm_from", machine.warm_from or 0))
    for place, tick in stated:
        if tick > begin:
            begin, where = tick, place
    ready = {
        machine.id: machine.preheat + max((max(row.values(), default=0) for row in machine.setup.values()), default=0)
        for machine in problem.machines
    }
    carry = problem.transport
    way = max((max(row.values(), default=0) for row in carry.ticks.values()), default=0)
    moved = carry.loading + carry.unloading + (2 * way if problem.logistics else 0)  # there and back
    end = greatest = begin
    for job in problem.jobs:
        for position, step in enumerate(job.operations):
            ticks = max(work + ready[machine] for machine, work in step.alternatives.items())
            ticks += max(step.wait_min, way) if position and not problem.logistics else 0
            ticks += step.wait_min + moved if problem.logistics else 0
            end += ticks
            if ticks > greatest:
                greatest, where = ticks, f"jobs.{job.id}.operations.{step.op}"
        end += moved if carry.finished else 0
    if problem.jobs and end > MAX_TICK:
        raise ValueError(
            f"{where}: {greatest} ticks; with it the work of all jobs, one after the other with preheating, "
            f"set-ups, waits and transport, could end at {end}, beyond tick {MAX_TICK}; correct it, or state times in "
            "a larger tick (`tick_s`, `time_unit`)"
        )


def check_curves(problem: Problem) -> None:
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
