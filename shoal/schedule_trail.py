"""How a search went: every objective over time for the convergence picture, and the news for the progress bar."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from cloud.scheduling import KEY, Event, Exchange, Goal, Result
from messages.plan import Measure, Plan
from messages.problem import Problem
from shoal.schedule_figures import said


class Trail:
    """By looking now and then, and by what is said meanwhile, in whatever thread.

    At most `MOST` points per line: of a longer search the later ones are dropped, but for the last.
    """

    MOST = 5_000

    def __init__(self, problem: Problem, goal: Goal) -> None:
        self._problem, self._goal, self._version = problem, goal, -1
        self._best: dict[Measure, list[tuple[float, float]]] = {name: [] for name in goal.order}
        self._bound: dict[Measure, list[tuple[float, float]]] = {name: [] for name in goal.order}
        self._last: dict[str, Event] = {}
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        """News from the search, in its threads. Of a front's parts only plans count: their bounds hold under limits."""
        first = event.measure == self._goal.order[0]
        with self._lock:
            self._last[event.kind] = event
            if event.kind == "incumbent" and (first or self._goal.front):
                self._lower(event.measure, event.at_s, event.value)
            elif event.kind == "bound" and not self._goal.front:
                self._raise(event.measure, event.at_s, event.value)

    def look(self, run: Exchange) -> None:
        """At the best so far, in every measure."""
        with self._lock:
            for name, value in dict(run.bounds).items():
                self._raise(name, run.elapsed_s, value)
            if run.version == self._version:
                return
            self._version = run.version
            self._take(list(run.front) if self._goal.front else [run.best] if run.best else [], run.elapsed_s)

    def end(self, result: Result) -> None:
        """The last points."""
        with self._lock:
            self._take(result.plans, result.runtime_s)
            if result.bound is not None:
                self._raise(self._goal.order[0], result.runtime_s, result.bound)

    def lines(self) -> dict[Measure, dict[str, list[tuple[float, float]]]]:
        """For the picture; measures of which nothing is known are left out."""
        found: dict[Measure, dict[str, list[tuple[float, float]]]] = {}
        for name in self._goal.order:
            own = {"best so far": self._best[name], "bound": self._bound[name]}
            found[name] = {line: sorted(points, key=_time) for line, points in own.items() if points}
        return {name: own for name, own in found.items() if own}

    def text(self, run: Exchange) -> str:
        """For the progress bar."""
        told = []
        with self._lock:
            last = sorted(self._last.items(), reverse=True)
        for kind, event in last:
            told.append(f"{kind} {event.measure} {said(self._problem, event.measure, event.value)}")
        if self._goal.front and run.front:
            told.append(f"front {len(run.front)} plans")
        return "  ".join(told)

    def _take(self, plans: Iterable[Plan], at_s: float) -> None:
        rows = [plan.objectives for plan in plans]
        for name in self._goal.order if rows else ():
            value = min(row[KEY[name]] for row in rows)
            if self._goal.front or name == self._goal.order[0]:
                self._lower(name, at_s, value)
            else:  # of the best plan so far: what comes later in the order may rise
                self._put(self._best[name], at_s, value)

    def _lower(self, name: Measure, at_s: float, value: float) -> None:
        line = self._best.get(name)
        if line is not None and (not line or value < min(line[-1][1], line[0][1])):
            self._put(line, at_s, value)

    def _raise(self, name: Measure, at_s: float, value: float) -> None:
        line = self._bound.get(name)
        if line is not None and (not line or value > line[-1][1]):
            self._put(line, at_s, value)

    def _put(self, line: list[tuple[float, float]], at_s: float, value: float) -> None:
        if line and line[-1][1] == value:
            return
        if len(line) >= self.MOST:
            line.pop()
        line.append((round(at_s, 3), value))


def _time(point: tuple[float, float]) -> float:
    return point[0]
