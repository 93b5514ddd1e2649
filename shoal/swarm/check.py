"""Whether a run kept its promises, from what really happened: every task once, histories whole, nothing stuck.

    faults = check(plant, jobs, chronicle, excused=…, histories=…, quiet=…, start=t0, ended=now)

Written apart from the agents: it reads what machines and vehicles did. A fault is a sentence; none means the run holds.
Bound: `MOST` faults of a kind are told, the rest is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from messages.clock import SECOND
from messages.contracts import OrderedJob
from messages.plant import Plant
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.outcome import Carry, Key, Run

MOST = 10
Span = tuple[int, int]
History = Mapping[Key, tuple[str, int, int]]
"""Done operation → machine, start, end, as the agents remember it."""


def check(
    plant: Plant,
    jobs: Iterable[OrderedJob],
    chronicle: Chronicle,
    *,
    excused: Mapping[Key, str],
    history: History,
    waiting: Sequence[Span],
    longest_s: float,
    start: int,
    ended: int,
) -> tuple[str, ...]:
    """`waiting`: spans in which there was a reason to stand still; `longest_s`: how long a lease may last."""
    orders = list(jobs)
    done = [run for run in chronicle.runs if not run.interrupted]
    kinds = (
        _once(plant, orders, done, excused),
        _in_order(done),
        _remembered(done, history),
        _apart(chronicle.all_runs()),
        _vehicles(plant, chronicle.carries),
        _places(plant, chronicle, orders),
        _still(chronicle, waiting, round(longest_s * SECOND), start, ended) if _left(plant, orders, done) else (),
    )
    return tuple(fault for kind in kinds for fault in _some(kind))


def _left(plant: Plant, jobs: Sequence[OrderedJob], done: Sequence[Run]) -> bool:
    return len({(run.job, run.op) for run in done}) < sum(len(plant.route(job.product)) for job in jobs)


def _once(plant: Plant, jobs: Sequence[OrderedJob], done: Sequence[Run], excused: Mapping[Key, str]) -> Iterator[str]:
    times = Counter((run.job, run.op) for run in done)
    for job in jobs:
        for op in range(len(plant.route(job.product))):
            count = times.pop((job.job, op), 0)
            if count > 1:
                yield f"{job.job} op {op} was done {count} times"
            elif not count and (job.job, op) not in excused:
                yield f"{job.job} op {op} was not done, and nobody says why"
    for (name, op), _ in times.items():
        yield f"{name} op {op} was done, and nobody ordered it"


def _in_order(done: Sequence[Run]) -> Iterator[str]:
    by_job: dict[str, list[Run]] = {}
    for run in done:
        by_job.setdefault(run.job, []).append(run)
    for name, runs in by_job.items():
        for before, after in pairwise(sorted(runs, key=lambda run: run.op)):
            if after.op == before.op + 1 and after.start < before.end:
                yield f"{name} op {after.op} began before op {before.op} had ended"


def _remembered(done: Sequence[Run], history: History) -> Iterator[str]:
    truth = {(run.job, run.op): (run.machine, run.start, run.end) for run in done}
    for key, what in truth.items():
        if history.get(key) != what:
            told = history.get(key)
            why = "is missing" if told is None else f"says {told[0]} at {told[1]}, it was {what[0]} at {what[1]}"
            yield f"history of {key[0]}: op {key[1]} {why}"
    for job, op in history.keys() - truth.keys():
        yield f"history of {job}: op {op} is told and never was"


def _apart(runs: Iterable[Run]) -> Iterator[str]:
    """A machine does one thing at a time."""
    by_machine: dict[str, list[Run]] = {}
    for run in runs:
        by_machine.setdefault(run.machine, []).append(run)
    for name, mine in by_machine.items():
        for before, after in pairwise(sorted(mine, key=lambda run: (run.start, run.end))):
            if after.start < before.end:
                yield f"{name} worked on {before.job} and {after.job} at once"


def _vehicles(plant: Plant, carries: Iterable[Carry]) -> Iterator[str]:
    """Each vehicle carries one part at a time, and is where it was."""
    layout = plant.layout
    if layout is None or layout.vehicles is None:
        return
    by_vehicle: dict[int, list[Carry]] = {}
    for carry in carries:
        if carry.vehicle >= layout.vehicles:
            yield f"vehicle {carry.vehicle} carried {carry.job}; there are {layout.vehicles}"
        if carry.vehicle >= 0:
            by_vehicle.setdefault(carry.vehicle, []).append(carry)
    for number, mine in by_vehicle.items():
        at, free = layout.home or "", 0
        for carry in sorted(mine, key=lambda one: one.loads):
            empty_us = round(layout.empty_s(at, carry.from_) * SECOND)
            if carry.departs < free or carry.loads < max(free, carry.departs) + empty_us:
                yield f"vehicle {number} loaded {carry.job} at {carry.from_} before it could be there"
            carried_us = round((layout.carried_s(carry.from_, carry.to) or 0.0) * SECOND)
            if carry.arrives - carry.loads < carried_us:
                yield f"vehicle {number} brought {carry.job} to {carry.to} faster than it can drive"
            at, free = carry.to, carry.arrives


def _places(plant: Plant, chronicle: Chronicle, jobs: Sequence[OrderedJob]) -> Iterator[str]:
    """No more parts before a machine, and none begun with more parts behind it, than there are places."""
    last = {job.job: len(plant.route(job.product)) - 1 for job in jobs}
    for name, (_, spec) in plant.machines.items():
        if spec.buffer.in_ is not None:
            yield from _before(name, spec.buffer.in_, chronicle)
        if spec.buffer.out is not None:
            yield from _behind(name, spec.buffer.out, chronicle, last)


def _before(name: str, places: int, chronicle: Chronicle) -> Iterator[str]:
    steps = [(at, 1, job) for (job, _), at in chronicle.came.get(name, {}).items()]
    steps += [(at, -1, job) for (job, _), at in chronicle.went_in.get(name, {}).items()]
    waiting = 0
    for at, step, job in sorted(steps):
        waiting += step
        if waiting > places:
            yield f"{waiting} parts waited before {name}, which has {places} places, when {job} came at {at}"


def _behind(name: str, places: int, chronicle: Chronicle, last: Mapping[str, int]) -> Iterator[str]:
    mine = [run for run in chronicle.runs if run.machine == name]
    finished = [run for run in mine if not run.interrupted and run.op != last.get(run.job)]
    for run in mine:
        left = [
            one
            for one in finished
            if one.end <= run.start and one is not run and chronicle.gone_at(one, run) > run.start
        ]
        if len(left) > places:
            yield f"{name} began {run.job} with {len(left)} finished parts behind it; it has {places} places"


def _still(chronicle: Chronicle, waiting: Sequence[Span], longest_us: int, start: int, ended: int) -> Iterator[str]:
    """Something ran, was carried or broken all the time, or there was a reason; else not for longer than a lease."""
    spans: list[Span] = [(run.start, run.end) for run in chronicle.all_runs()]
    spans += [(one.departs, one.arrives) for one in chronicle.carries]
    spans += [(one.start, one.end) for one in chronicle.all_downs()]
    at = start
    for begin, end in sorted([*spans, *waiting, (ended, ended)]):
        if begin - at > longest_us:
            yield f"nothing moved for {(begin - at) / SECOND:.0f} s from {(at - start) / SECOND:.0f} s on"
        at = max(at, end)


def _some(faults: Iterable[str]) -> list[str]:
    found = list(faults)
    return found if len(found) <= MOST else [*found[:MOST], f"… and {len(found) - MOST} more like that"]
