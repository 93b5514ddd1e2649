"""What follows from the operations of a plan: works and batches, set-ups, what machines do in gaps, what is carried.

    works(problem, assignments)            machine → what it does in one go, with the set-up before it
    machine_states(problem, assignments)   work, idle, preheat, off, setup, down of every machine
    moves(problem, assignments)            each job from machine to machine, as soon as an operation ends

The gap rule: a machine is preheated right before its first set-up or work (which may lie before tick 0 in a fresh
plan), idles in a gap or is off and preheated again where the gap is long enough, and is off after its last work. Ties
go to idling. A set-up lies right before its work and is no part of the gap. A breakdown cools the machine. An unused
machine draws nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from messages.plan import MAX_TICK, Assignment, MachineState, Move, State
from messages.problem import Machine, Problem

TIE = 1e-9
"""Relative difference below which two energies are equal, so that rounding of kW never decides."""
IN_TIME = attrgetter("start", "end", "job", "op")
"""What orders the assignments of one machine."""

Key = tuple[str, int]


class Work(NamedTuple):
    """What a machine does in one go: an operation of positive length, or a batch of them."""

    start: int
    end: int
    family: str
    setup: int
    """Ticks of set-up right before `start`."""
    members: tuple[Assignment, ...]

    @property
    def ready(self) -> int:
        """When its set-up begins."""
        return self.start - self.setup


Lines = dict[str, list[Work]]


def works(problem: Problem, assignments: Iterable[Assignment]) -> Lines:
    """What each machine does, in time order.

    On a machine with `batch` > 1, operations of one family that start and end together are one batch.
    """
    lines: dict[str, list[Assignment]] = {}
    for one in assignments:
        if one.end > one.start:
            if one.machine in lines:
                lines[one.machine].append(one)
            else:
                lines[one.machine] = [one]
    return {name: _line(problem, problem.machine[name], line) for name, line in lines.items()}


def _line(problem: Problem, machine: Machine, those: list[Assignment]) -> list[Work]:
    families = problem.operation
    groups: Iterable[Sequence[Assignment]]
    if machine.batch == 1:
        groups = zip(sorted(those, key=IN_TIME), strict=True)
    else:
        batches: dict[tuple[int, int, str], list[Assignment]] = {}
        for one in those:
            batches.setdefault((one.start, one.end, families[one.job, one.op].family), []).append(one)
        groups = sorted(batches.values(), key=lambda batch: IN_TIME(batch[0]))
    setup, before = machine.setup, machine.family
    done, latest = 0, 0
    found = []
    for members in groups:
        first = members[0]
        start, end, family = first.start, first.end, families[first.job, first.op].family
        ticks = setup.get(before, {}).get(family, 0) if setup else 0
        found.append(Work(start, end, family, ticks, tuple(members)))
        if end > done or (end == done and start >= latest):
            before, done, latest = family, end, start
    return found


def set_up_for(problem: Problem) -> dict[str, str]:
    """The family each machine stands set up for as planning begins: that of its last work in history, else its own."""
    found = {machine.id: machine.family for machine in problem.machines}
    for name, done in works(problem, problem.history).items():
        latest = max((one.end, one.start) for one in done)
        found[name] = next(one.family for one in reversed(done) if (one.end, one.start) == latest)
    return found


def energy_minimal_states(problem: Problem, assignments: Iterable[Assignment]) -> tuple[MachineState, ...]:
    """The states that need least energy for these operations."""
    return machine_states(problem, assignments)


def moves(problem: Problem, assignments: Iterable[Assignment]) -> tuple[Move, ...]:
    """What is carried when: each job from machine to machine, as soon as an operation ends. With logistics nothing
    follows from the operations alone: a plan states it."""
    if not problem.transport.ticks or problem.logistics:
        return ()
    by_job: dict[str, list[Assignment]] = {}
    for one in assignments:
        by_job.setdefault(one.job, []).append(one)
    found = []
    for job in problem.jobs:
        place = {step.op: position for position, step in enumerate(job.operations)}
        line = sorted(by_job.get(job.id, ()), key=lambda one: (one.start, one.end, place[one.op]))
        for before, after in pairwise(line):
            ticks = problem.transport.between(before.machine, after.machine)
            if ticks:
                end = min(before.end + ticks, MAX_TICK)  # no operation can follow that late
                found.append(Move(job=job.id, from_=before.machine, to=after.machine, start=before.end, end=end))
    return tuple(sorted(found, key=lambda one: one.start))


def machine_states(
    problem: Problem,
    assignments: Iterable[Assignment],
    off: Collection[Key] | None = None,
    lines: Lines | None = None,
) -> tuple[MachineState, ...]:
    """The states of every machine for these operations, machine by machine in time order. `lines`: their works, where
    they are known.

    off  (job, op) of the new operations before which their machine is switched off (of a batch: of any member); in
         all other gaps it idles if it can. None, and in history: whichever needs least energy, ties to idling

    Every machine is covered without holes from its first preheating to its last work. Where no valid choice exists
    (work too early on a cold machine, no room for a set-up) preheating is put where it would have to be and a set-up
    gets the room there is, and `violations` says so. In history as well, where what happened is not known better.
    """
    lines = works(problem, assignments) if lines is None else lines
    past = set(problem.history) if off is not None else set()
    states: list[MachineState] = []
    for machine in problem.machines:
        states += _Line(problem, machine, off, past).states(lines.get(machine.id, []))
    return tuple(states)


class _Line:
    """One machine's time line, built from left to right."""

    def __init__(self, problem: Problem, machine: Machine, off: Collection[Key] | None, past: Set[Assignment]) -> None:
        self.machine = machine
        self.now = problem.now
        self.off = off
        self.past = past
        self.made: list[MachineState] = []

    def states(self, line: Sequence[Work]) -> list[MachineState]:
        since: int | None = None  # powered up to here; None: not powered so far
        warm = self._known_warm()
        for one in line:
            if warm and (self.now is None or warm[0] <= one.ready):
                since = self._pass_warm(since, warm)
                warm = None
            ready = one.ready
            if since is not None and (self.made or self.now is not None):  # warm at 0 is warm before 0 as well
                ready = max(ready, since)
            self._bridge(since, ready, self._switched_off(one))
            self._put("setup", ready, one.start)
            self._put("work", max(one.start, since) if since is not None else one.start, one.end)
            since = one.end if since is None else max(since, one.end)
        if warm and since is not None:
            self._pass_warm(since, warm)
        return self.made

    def _switched_off(self, work: Work) -> bool | None:
        if self.off is None or (self.past and not self.past.isdisjoint(work.members)):
            return None
        return any((one.job, one.op) in self.off for one in work.members)

    def _known_warm(self) -> tuple[int, int] | None:
        if self.machine.warm_from is None:
            return None
        return self.machine.warm_from, max(self.machine.warm_from, self.now or 0)

    def _pass_warm(self, since: int | None, warm: tuple[int, int]) -> int:
        """Through the time the machine is known to be warm, which nobody can change any more."""
        begin, end = warm
        if since is None:
            return end  # its heat was paid for before this problem began
        if begin > max(since, self.now or 0):  # it is being preheated right now
            self._put_off_and_heat(since, begin)
        elif begin > since:
            self._bridge(since, begin)
        self._put("idle", max(begin, since), end)
        return max(since, end)

    def _bridge(self, since: int | None, start: int, switched_off: bool | None = None) -> None:
        """From `since` (powered) to set-up or work at `start`, by whichever way needs less or as it is said."""
        machine, power = self.machine, self.machine.power_kw
        if since is None:
            self._put("preheat", start - machine.preheat, start)
            return
        gap = start - since
        if gap <= 0:
            return
        broken = any(w.reason == "breakdown" and w.start < start and w.end > since for w in machine.unavailable)
        gone_cold = self._gone_cold(since, start)
        idle = power.idle * gap
        off = power.off * (gap - machine.preheat) + power.preheat * machine.preheat
        cheaper = idle <= off + TIE * max(idle, off) if switched_off is None else not switched_off
        if not broken and not gone_cold and (gap < machine.preheat or cheaper):
            self._put("idle", since, start)
            return
        self._put_off_and_heat(since, start)

    def _put_off_and_heat(self, since: int, start: int) -> None:
        """Off, down where it is broken, preheated by `start`."""
        heat = max(since, start - self.machine.preheat)
        cursor = since
        for window in sorted(self.machine.unavailable, key=lambda one: one.start):
            if window.reason == "breakdown" and window.end > cursor and window.start < heat:
                self._put("off", cursor, window.start)
                self._put("down", max(cursor, window.start), min(window.end, heat))
                cursor = min(window.end, heat)
        self._put("off", cursor, heat)
        self._put("preheat", heat, start)

    def _gone_cold(self, since: int, start: int) -> bool:
        """Its last work ended before `now`, and it is not known to be warm: it was switched off."""
        return self.now is not None and since < self.now <= start and self.machine.warm_from is None

    def _put(self, state: State, start: int, end: int) -> None:
        if end > start:
            self.made.append(MachineState(machine=self.machine.id, state=state, start=start, end=end))
