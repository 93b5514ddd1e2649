"""One search of `shoal schedule`: a solver by name, in a thread of its own, with a progress bar and Ctrl-C.

    found = search(problem, wanted, console, limits={"makespan": 96}, start=None)
    found.result.plans, found.trail         # measure → line → (seconds, value), for the convergence picture

Ctrl-C ends the search with the best so far; a second one ends the command.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cloud.scheduling import KEY, Budget, CpSat, Dispatch, Event, Exchange, Goal, Result, Solver
from cloud.scheduling.front import corners, front, non_dominated
from cloud.scheduling.seam import Solves
from messages.errors import BrokenInvariant, UsageError
from messages.judge import objective, violations
from messages.plan import Plan, Status
from messages.problem import Measure, Problem
from shoal.schedule_figures import said
from shoal.schedule_options import Wanted

LOOK_S = 0.1
PREFERRED = ("portfolio", "cpsat")
"""The default is the first of these there is."""


def solvers() -> tuple[str, ...]:
    """Every name `--solver` takes: the kinds of the registry, and each rule of dispatching."""
    kinds: list[str] = []
    for kind in get_args(get_args(Solver)[0]) or (get_args(Solver)[0],):
        rules = get_args(kind.model_fields["rule"].annotation) if kind is Dispatch else ()
        kinds += rules or (kind.model_fields["kind"].default,)
    return tuple(sorted(kinds, key=lambda name: (name not in PREFERRED, kinds.index(name))))


def solver_of(name: str) -> Solves:
    """The solver of a name, "" for the default; `gwo:variant=paper,pack=40` sets what it can be told."""
    kind, _, rest = name.partition(":")
    known = solvers()
    kind = kind or next(one for one in PREFERRED if one in known)
    if kind not in known:
        raise UsageError(f"--solver {kind}: unknown; use one of {', '.join(known)}")
    settings: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"--solver {name}: give settings as NAME:KEY=VALUE,KEY=VALUE")
        settings[key.strip()] = value.strip()
    own = {"kind": "dispatch", "rule": kind} if kind in get_args(Dispatch.model_fields["rule"].annotation) else {}
    try:
        return TypeAdapter[Solves](Solver).validate_python({"kind": kind, **settings, **own})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        raise UsageError(f"--solver {name}: {place}: {first['msg']}; correct the setting") from None


@dataclass
class Found:
    """What a search brought."""

    result: Result
    goal: Goal
    trail: dict[Measure, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)


def search(
    problem: Problem,
    wanted: Wanted,
    console: Console,
    *,
    limits: Mapping[Measure, float] | None = None,
    start: Plan | None = None,
    title: str = "solving",
) -> Found:
    """The front or the best plan, with its progress shown; what was returned holds, or BrokenInvariant is raised."""
    goal = Goal(wanted.measures, limits=limits or {}, front=wanted.front and bool(problem.jobs))
    solver = solver_of(wanted.solver)
    budget = Budget(wanted.budget_s, wanted.evaluations, wanted.workers)
    stop, trail = threading.Event(), _Trail(problem, goal)
    run = Exchange(problem, goal, budget, on_event=trail.hear, stop=stop)
    box: list[Result] = []
    broken: list[BaseException] = []

    def work() -> None:
        try:
            box.append(_solved(problem, solver, run, seed=wanted.seed, start=start))
        except BaseException as error:
            broken.append(error)  # raised again in the main thread

    thread = threading.Thread(target=work, name="solve", daemon=True)
    with _interrupt_sets(stop), _bar(console) as progress:
        task = progress.add_task(title, total=wanted.budget_s, news="")
        started = time.monotonic()
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_S)
            trail.look(run)
            text = trail.text(run) + ("  stopping" if stop.is_set() else "")
            progress.update(task, completed=min(time.monotonic() - started, wanted.budget_s), news=text)
    if broken:
        raise broken[0]
    result = _checked(problem, goal, box[0], run)
    trail.end(result)
    return Found(result, goal, trail.lines())


def asker(wanted: Wanted, console: Console, title: str) -> Callable[[Problem, Goal, float, Plan | None], Result]:
    """The default solver as `cloud.scheduling.relax` asks it: one plan, its own time."""

    def ask(problem: Problem, goal: Goal, seconds: float, start: Plan | None) -> Result:
        own = replace(wanted, measures=goal.order, budget_s=seconds, evaluations=None, solver="", lex=True, many=False)
        return search(problem, own, console, limits=goal.limits, start=start, title=title).result

    return ask


def _solved(problem: Problem, solver: Solves, run: Exchange, *, seed: int, start: Plan | None) -> Result:
    if run.goal.front and isinstance(solver, CpSat):  # exact, from both ends
        return front(problem, measures=run.goal.order, seed=seed, start=start, exchange=run)
    return solver.solve(problem, seed=seed, start=start, exchange=run)


def _checked(problem: Problem, goal: Goal, result: Result, run: Exchange) -> Result:
    """Only plans that hold: judged again, apart from the solver, and within the limits."""
    plans = list(result.plans)
    if goal.front:
        plans = non_dominated([*plans, *run.front], goal.order)
        plans.sort(key=lambda plan: [plan.objectives[KEY[name]] for name in goal.order])
    if not plans and run.best is not None and result.status != "infeasible":
        plans = [run.best]
    kept = [plan for plan in plans if goal.within(problem, plan.objectives)]
    for plan in kept:
        faults = violations(problem, plan)
        if faults or objective(problem, plan) != plan.objectives:
            raise BrokenInvariant(f"the solver's plan does not hold: {(faults or ['its objectives'])[0]}")
    if not kept:
        return replace(result, plans=(), reason=result.reason or "no plan within the limits was found; allow more time")
    status: Status = "feasible" if result.status in ("unknown", "infeasible") else result.status
    if goal.front:
        ideal, nadir = corners(kept, goal.order)
        kept = [plan.model_copy(update={"ideal": ideal, "nadir": nadir}) for plan in kept]
    else:  # whoever found it, what the whole search proved is about it
        kept = [kept[0].model_copy(update={"bound": result.bound, "bound_of": goal.order[0], "status": status})]
    return replace(result, plans=tuple(kept), status=status)


class _Trail:
    """How the objectives came down, by looking now and then; and what the progress bar says. Bounded by `MOST` points
    per line: of a longer search the later ones are dropped, but for the last."""

    MOST = 5_000

    def __init__(self, problem: Problem, goal: Goal) -> None:
        self._problem, self._goal, self._version = problem, goal, -1
        self._best: dict[Measure, list[tuple[float, float]]] = {name: [] for name in goal.order}
        self._bound: dict[Measure, list[tuple[float, float]]] = {name: [] for name in goal.order}
        self._last: dict[str, Event] = {}

    def hear(self, event: Event) -> None:
        """News from the search, in its threads. Of a front's parts only plans count: their bounds hold under limits."""
        self._last = {**self._last, event.kind: event}
        first = event.measure == self._goal.order[0]
        if event.kind == "incumbent" and (first or self._goal.front):
            self._lower(event.measure, event.at_s, event.value)
        elif event.kind == "bound" and not self._goal.front:
            self._raise(event.measure, event.at_s, event.value)

    def look(self, run: Exchange) -> None:
        """At the best so far, in every measure."""
        if run.version == self._version:
            return
        self._version = run.version
        plans = list(run.front) if self._goal.front else [run.best] if run.best else []
        self._take(plans, run.elapsed_s)
        for name, value in dict(run.bounds).items():
            self._raise(name, run.elapsed_s, value)

    def end(self, result: Result) -> None:
        """The last points."""
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
        for kind, event in sorted(self._last.items(), reverse=True):
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


class _interrupt_sets:
    """Ctrl-C sets a flag; a second one interrupts for good. Only in the main thread, where signals arrive."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._before: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._heard)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _heard(self, *_: object) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[news]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
