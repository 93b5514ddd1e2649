"""When a machine can work: stretches of time between breakdowns, each beginning warm or cold.

    stretches(problem, machine)   [Stretch(start=0, end=None, ready=0, warm=None)]

Solvers place work by stretches; the judges know nothing of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from messages.problem import Machine, Problem, Window


@dataclass(frozen=True)
class Stretch:
    """From `start` to `end` (None: for ever) no breakdown; work can begin at `ready`.

    warm  powered since then, so that a gap before the first work costs like any gap; None: cold, it is preheated
    """

    start: int
    end: int | None
    ready: int
    warm: int | None


def stretches(problem: Problem, machine: Machine) -> list[Stretch]:
    """The stretches in which new work may be placed, in time order; never empty (the last is open)."""
    start, ready, warm = _present(problem, machine)
    found = []
    for window in _breakdowns(machine):
        if window.end <= start:
            continue
        if window.start > start:
            found.append(Stretch(start, window.start, ready, warm))
        start, warm = window.end, None
        ready = start + machine.preheat
    found.append(Stretch(start, None, ready, warm))
    return found


def closed(machine: Machine) -> list[Window]:
    """Closed times in order."""
    return sorted((one for one in machine.unavailable if one.reason == "closed"), key=lambda one: one.start)


def _breakdowns(machine: Machine) -> list[Window]:
    return sorted((one for one in machine.unavailable if one.reason == "breakdown"), key=lambda one: one.start)


def _present(problem: Problem, machine: Machine) -> tuple[int, int, int | None]:
    """(free from, work can begin at, warm since or None) as the problem begins."""
    if problem.now is None:
        return 0, 0, machine.warm_from
    now = problem.now
    last = max((one.end for one in problem.history if one.machine == machine.id and one.end > one.start), default=-1)
    free = max(now, last)
    warm = [last] if last >= now else []
    if machine.warm_from is not None:
        warm.append(max(machine.warm_from, now))
    if warm:
        return free, max(warm), max(warm)
    return free, now + machine.preheat, None
