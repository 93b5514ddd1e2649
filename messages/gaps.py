"""What a machine does between its operations when the plan does not say: whatever needs least energy.

The gap rule: a machine is preheated right before its first work (which may lie before tick 0 in a fresh plan),
idles in a gap or is off and preheated again where the gap is long enough, and is off after its last work. Ties go
to idling. A breakdown cools it. An unused machine draws nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from messages.plan import Assignment, MachineState, Move, State
from messages.problem import Machine, Problem

TIE = 1e-9
"""Relative difference below which two energies are equal, so that rounding of kW never decides."""


Key = tuple[str, int]


def energy_minimal_states(problem: Problem, assignments: Iterable[Assignment]) -> tuple[MachineState, ...]:
    """The states that need least energy for these operations."""
    return machine_states(problem, assignments)


def moves(problem: Problem, assignments: Iterable[Assignment]) -> tuple[Move, ...]:
    """What is carried when: each job from machine to machine, as soon as an operation ends."""
    found = []
    by_job: dict[str, list[Assignment]] = {}
    if not problem.transport.ticks:
        return ()
    for one in assignments:
        by_job.setdefault(one.job, []).append(one)
    for line in by_job.values():
        line.sort(key=lambda one: (one.start, one.end, one.op))
        for before, after in pairwise(line):
            ticks = problem.transport.between(before.machine, after.machine)
            if ticks:
                found.append(
                    Move(
                        job=before.job, from_=before.machine, to=after.machine, start=before.end, end=before.end + ticks
                    )
                )
    return tuple(sorted(found, key=lambda one: (one.start, one.job)))


def machine_states(
    problem: Problem, assignments: Iterable[Assignment], off: Collection[Key] | None = None
) -> tuple[MachineState, ...]:
    """The states of every machine for these operations, machine by machine in time order.

    off  (job, op) of the operations before which their machine is switched off; in all other gaps it idles if it can.
         None: whichever needs least energy, ties to idling

    Every machine is covered without holes from its first preheating to its last work. Where no valid choice exists
    (work too early on a cold machine) preheating is put where it would have to be, and `violations` says so.
    """
    work: dict[str, list[tuple[int, int, bool | None]]] = {}
    for one in assignments:
        if one.end > one.start:
            cold = None if off is None else (one.job, one.op) in off
            work.setdefault(one.machine, []).append((one.start, one.end, cold))
    states: list[MachineState] = []
    for machine in problem.machines:
        states += _Line(problem, machine).states(sorted(work.get(machine.id, []), key=lambda one: one[:2]))
    return tuple(states)


class _Line:
    """One machine's time line, built from left to right."""

    def __init__(self, problem: Problem, machine: Machine) -> None:
        self.machine = machine
        self.now = problem.now
        self.made: list[MachineState] = []

    def states(self, work: Sequence[tuple[int, int, bool | None]]) -> list[MachineState]:
        since: int | None = None  # powered up to here; None: not powered so far
        warm = self._known_warm()
        for start, end, off in work:
            if warm and warm[0] <= start:
                since = self._pass_warm(since, warm)
                warm = None
            self._bridge(since, start, off)
            self._put("work", max(start, since) if since is not None else start, end)
            since = end if since is None else max(since, end)
        if warm and since is not None:
            self._pass_warm(since, warm)
        return self.made

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
            heat = max(since, begin - self.machine.preheat)
            self._put("off", since, heat)
            self._put("preheat", heat, begin)
        elif begin > since:
            self._bridge(since, begin)
        self._put("idle", max(begin, since), end)
        return max(since, end)

    def _bridge(self, since: int | None, start: int, switched_off: bool | None = None) -> None:
        """From `since` (powered) to work at `start`, by whichever way needs less or as it is said."""
        machine, power = self.machine, self.machine.power_kw
        if since is None:
            self._put("preheat", start - machine.preheat, start)
            return
        gap = start - since
        if gap <= 0:
            return
        broken = [w for w in machine.unavailable if w.reason == "breakdown" and w.start < start and w.end > since]
        gone_cold = self._gone_cold(since, start)
        idle = power.idle * gap
        off = power.off * (gap - machine.preheat) + power.preheat * machine.preheat
        cheaper = idle <= off + TIE * max(idle, off) if switched_off is None else not switched_off
        if not broken and not gone_cold and (gap < machine.preheat or cheaper):
            self._put("idle", since, start)
            return
        cursor = since
        heat = max(since, start - machine.preheat)
        for window in sorted(broken, key=lambda one: one.start):
            self._put("off", cursor, min(window.start, heat))
            self._put("down", max(cursor, window.start), min(window.end, heat))
            cursor = max(cursor, min(window.end, heat))
        self._put("off", cursor, heat)
        self._put("preheat", heat, start)

    def _gone_cold(self, since: int, start: int) -> bool:
        """Its last work ended before `now`, and it is not known to be warm: it was switched off."""
        return self.now is not None and since < self.now <= start and self.machine.warm_from is None

    def _put(self, state: State, start: int, end: int) -> None:
        if end > start:
            self.made.append(MachineState(machine=self.machine.id, state=state, start=start, end=end))
