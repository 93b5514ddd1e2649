"""What speaks against the moves of a plan where a problem states vehicles, buffers, stores or where parts lie.

Each step of a job (and being brought to the store of finished parts, where there is one) begins with a move from where
the part lies: not before its release or the end of the operation before and the wait after it; for exactly as long as
loading, way and unloading take, by a vehicle where there are any; over before the operation begins. Where no way is
stated the part is handed on, at a time; if nothing is said of that, when the operation begins. A part from nowhere is
there when it is needed. A vehicle carries one part at a time and drives to it empty, from home at first.

Before a machine a part takes a place from the end of its move to the begin of the work; behind it, from the end of the
work until it is loaded, or handed on. A machine begins work when no more finished parts are there than `buffer.out`
(one fewer where it holds); a last part without a store to go to is gone at once. Operations of no length take no place.

What began before `now` is exempt, and tells nothing: then parts lie where their last operation was, vehicles at home.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from messages.openjobs import IN_TURN, OpenJob, lies_at, open_jobs
from messages.plan import Assignment, Move
from messages.problem import Machine, Problem


@dataclass(slots=True)
class _Stay:
    """A part at a machine: there from `arrives`, worked on, gone at `leaves`."""

    job: str
    number: int
    """Of the step within what is open of the job; -1: history."""
    machine: str
    arrives: int
    start: int
    end: int
    leaves: int


def carry_faults(problem: Problem, moves: Iterable[Move], work: Sequence[Assignment]) -> list[str]:
    """What is wrong with `moves`, given the new operations of a plan, each of which is there once."""
    floor = problem.start_floor
    own: dict[str, list[Move]] = {}
    for move in sorted(moves, key=lambda one: one.start):
        if move.start >= floor:
            own.setdefault(move.job, []).append(move)
    planned = {(one.job, one.op): one for one in work}
    found, stays = list[str](), list[_Stay]()
    for job in open_jobs(problem):
        line = own.pop(job.id, [])
        found += _job(problem, job, planned, line, stays)
        found += (f"{_named(move)}: no operation needs it; leave it out" for move in line)
    found += (f"{_named(move)}: the job is not open; leave it out" for line in own.values() for move in line)
    found += _vehicles(problem, (move for move in moves if move.start >= floor))
    for machine in problem.machines:
        found += _buffers(machine, [stay for stay in stays if stay.machine == machine.id])
    return found


def _job(
    problem: Problem,
    job: OpenJob,
    planned: dict[tuple[str, int], Assignment],
    line: list[Move],
    stays: list[_Stay],
) -> Iterator[str]:
    """One job from place to place; what of `line` it needs is taken out, and where it stays put to `stays`."""
    carry = problem.transport
    past = problem.past_of.get(job.id, ())
    place, free, before = lies_at(problem, job.id), job.ready, None
    if past:
        last = max(past, key=IN_TURN)
        if last.machine == place and last.end > last.start and not last.interrupted:
            before = _Stay(job.id, -1, place, last.start, last.start, last.end, last.end)
            stays.append(before)
    steps: list[tuple[str, int, int, int]] = []
    for n, step in enumerate(job.operations):
        one = planned[step.job, step.op]
        wait = problem.operation[step.job, step.op].wait_min if n or past else 0
        steps.append((one.machine, one.start, one.end, wait))
    for n, (machine, start, end, wait) in enumerate(steps):
        what = f"job {job.id!r} op {job.operations[n].op}"
        arrives = leaves = start
        if place:
            move = _taken(line, place, machine)
            if move is not None:
                yield from _move(problem, move, free + wait)
                arrives, leaves = move.end, _gone(problem, move)
                if start < arrives:
                    yield f"{what}: starts at {start}, but its part arrives at {arrives}"
            elif carry.carried(place, machine) is not None:
                yield f"{what}: its part lies at {place!r}; state the move to {machine!r}"
        if before is not None:
            before.leaves = leaves
        before = _Stay(job.id, n, machine, arrives, start, end, end) if end > start else None
        if before is not None:
            stays.append(before)
        place, free = machine, end
    if carry.finished:
        move = _taken(line, place, carry.finished)
        if move is not None:
            yield from _move(problem, move, free)
            if before is not None:
                before.leaves = _gone(problem, move)
        elif carry.carried(place, carry.finished) is not None:
            yield f"job {job.id!r}: its part is done at {place!r}; state the move to {carry.finished!r}"


def _taken(line: list[Move], place: str, to: str) -> Move | None:
    """The job's next move, if it is this way."""
    if line and (line[0].from_, line[0].to) == (place, to):
        return line.pop(0)
    return None


def _move(problem: Problem, move: Move, earliest: int) -> Iterator[str]:
    """What is wrong with one move as such."""
    carry = problem.transport
    if move.start < earliest:
        yield f"{_named(move)}: its part is free at {earliest}"
    ticks = carry.carried(move.from_, move.to)
    if move.end - move.start != (ticks or 0):
        yield f"{_named(move)}: takes {ticks or 0}"
    if ticks is None or carry.vehicles is None:
        if move.vehicle is not None:
            yield f"{_named(move)}: needs no vehicle"
    elif move.vehicle not in _names(problem):
        yield f"{_named(move)}: by vehicle {move.vehicle!r}; they are 1 to {carry.vehicles}"


def _vehicles(problem: Problem, moves: Iterable[Move]) -> Iterator[str]:
    """One thing at a time, and there before it loads."""
    carry, of = problem.transport, dict[str | None, list[Move]]()
    for move in moves:
        of.setdefault(move.vehicle, []).append(move)
    for name in _names(problem):
        place, free = carry.home, problem.start_floor
        for move in sorted(of.get(name, []), key=lambda one: one.start):
            there = free + carry.between(place, move.from_)
            if move.start < there:
                yield f"{_named(move)}: vehicle {name} can be there at {there}"
            place, free = move.to, move.end


def _buffers(machine: Machine, stays: Sequence[_Stay]) -> Iterator[str]:
    """Never more parts before or behind it than places."""
    buffer, fresh = machine.buffer, [stay for stay in stays if stay.number >= 0]
    if buffer.in_ is not None:
        changes = sorted(
            change for stay in fresh if stay.arrives < stay.start for change in ((stay.arrives, 1), (stay.start, -1))
        )
        there = 0
        for at, change in changes:
            there += change
            if there > buffer.in_:
                yield f"{machine.id}: {there} parts wait before it at {at}, there are {buffer.in_} places"
                break
    if buffer.out is None:
        return
    most = buffer.out - (buffer.policy == "hold")
    for stay in fresh:
        kept = [other for other in stays if other.end <= stay.start < other.leaves and other is not stay]
        kept = [other for other in kept if not (other.job == stay.job and _next(other, stays) is stay)]
        if len(kept) > most:
            yield (
                f"{machine.id}: job {stay.job!r} starts at {stay.start} when {len(kept)} finished parts are there, "
                f"places for {most}"
            )


def _next(stay: _Stay, stays: Sequence[_Stay]) -> _Stay | None:
    """Where the same part is worked on next, if here."""
    return next((one for one in stays if (one.job, one.number) == (stay.job, stay.number + 1)), None)


def _gone(problem: Problem, move: Move) -> int:
    """When the part is not there any more."""
    carried = problem.transport.carried(move.from_, move.to)
    return move.start if carried is None else move.start + problem.transport.loading


def _names(problem: Problem) -> list[str]:
    return [str(number + 1) for number in range(problem.transport.vehicles or 0)]


def _named(move: Move) -> str:
    return f"move of job {move.job!r} from {move.from_} to {move.to} {move.start}..{move.end}"
