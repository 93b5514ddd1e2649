"""The time line of one machine in a plan: its runs, its closed times, and from when on something could begin on it.

    line = timelines(problem, assignments, states)["kiln-1"]
    line.runs                      # works and batches in order, each with its set-up
    line.fit(9, length=4)          # the earliest begin from 9 on that touches nothing closed or broken

For telling people why; solvers have their own arrays (`cloud.scheduling.shop`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cloud.scheduling.availability import closed, stretches
from messages.gaps import Work, machine_states, works
from messages.plan import Assignment, MachineState
from messages.problem import Machine, Problem

Kind = Literal[
    "begin", "release", "now", "history", "work", "setup", "transport", "wait", "queue", "closed", "breakdown",
    "preheat", "crew", "batch", "held", "short", "cheap", "clean",
]  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One piece of a chain, [start, end) in ticks; a reason (begin, release, now) has no length.

    queue: its machine works for others; batch: those it shares a batch with are not there yet; short: the machine was
    free, but closed or broke down before it would have ended; held: nothing kept it, the plan begins it later; cheap,
    clean: the same, and begun sooner it would cost or emit more
    """

    kind: Kind
    start: int
    end: int
    job: str = ""
    op: int = 0
    machine: str = ""
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One stay of work on a machine: an operation, or a batch of them; its set-up lies right before `start`."""

    members: tuple[Assignment, ...]
    start: int
    end: int
    setup: int
    before: Assignment | None
    """Of the run before it on the machine, one that ends last."""

    @property
    def begin(self) -> int:
        """When it takes the machine: with its set-up."""
        return self.start - self.setup


class Timeline:
    """One machine."""

    def __init__(
        self, problem: Problem, machine: Machine, line: Sequence[Work], states: Sequence[MachineState]
    ) -> None:
        self.machine, self.states = machine, states
        self.runs = _runs(line)
        self._closed = [(one.start, one.end) for one in closed(machine)]
        self._stretches = stretches(problem, machine)

    def fit(self, ready: int, length: int) -> int:
        """The earliest begin from `ready` on of so many ticks that touch nothing closed or broken."""
        for stretch in self._stretches:
            begin = max(ready, stretch.ready)
            for start, end in self._closed:
                if begin < end and start < begin + length:
                    begin = end
            if stretch.end is None or begin + length <= stretch.end:
                return begin
        raise AssertionError("the last stretch is open")

    def barred(self, start: int, end: int, run: Run, one: Assignment) -> list[Piece]:
        """Why `run` does not begin at `start` but at `end`, though the machine does nothing else meanwhile."""
        if end <= start:
            return []
        free = min(self.fit(start, run.end - run.begin), end)
        where = (one.job, one.op, one.machine)
        found = []
        if free > start:
            kind = self._barrier(start, free)
            shuts = self._shuts(start, free) if kind in ("closed", "breakdown") else start
            if shuts > start:
                why = "before the breakdown" if kind == "breakdown" else "before it closes"
                found.append(Piece("short", start, shuts, *where, why))
            if free > shuts:
                found.append(Piece(kind, shuts, free, *where))
        if end > free:
            found.append(Piece("held", free, end, *where))
        return found

    def _shuts(self, start: int, end: int) -> int:
        """When it is first closed or broken within [start, end); `start` where nothing is."""
        touched = [one.start for one in self.machine.unavailable if one.start < end and one.end > start]
        return max(start, min(touched, default=start))

    def ticks(self, start: int, end: int) -> dict[str, int]:
        """State → ticks of it within [start, end)."""
        found: dict[str, int] = {}
        for one in self.states:
            inside = min(one.end, end) - max(one.start, start)
            if inside > 0:
                found[one.state] = found.get(one.state, 0) + inside
        return found

    def _barrier(self, start: int, end: int) -> Kind:
        """What lies between: a breakdown or a closed time that is touched, else heating up."""
        touched = {window.reason for window in self.machine.unavailable if window.start < end and window.end > start}
        return "breakdown" if "breakdown" in touched else "closed" if touched else "preheat"


def timelines(problem: Problem, work: Sequence[Assignment], states: Sequence[MachineState] = ()) -> dict[str, Timeline]:
    """Every machine's; without `states` those that need least energy."""
    states = states or machine_states(problem, work)
    lines = works(problem, work)
    in_state: dict[str, list[MachineState]] = {}
    for state in states:
        in_state.setdefault(state.machine, []).append(state)
    return {one.id: Timeline(problem, one, lines.get(one.id, ()), in_state.get(one.id, ())) for one in problem.machines}


def _runs(line: Iterable[Work]) -> tuple[Run, ...]:
    found: list[Run] = []
    last: Assignment | None = None
    for work in line:
        found.append(Run(work.members, work.start, work.end, work.setup, last))
        last = max((*work.members, *([last] if last else [])), key=lambda one: one.end)
    return tuple(found)
