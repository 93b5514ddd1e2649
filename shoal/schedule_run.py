"""One search of `shoal schedule`: a solver by name, in a thread of its own, with a progress bar and Ctrl-C.

    found = search(problem, wanted, console, limits={"makespan": 96}, start=None)
    found.result.plans, found.trail         # measure → line → (seconds, value), for the convergence picture

Ctrl-C ends the search with the best so far; a second one ends the command.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from time import monotonic
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cloud.scheduling import KEY, Budget, CpSat, Dispatch, Exchange, Goal, Result, Solver, warm
from cloud.scheduling.executor import Task, executor_of, merged
from cloud.scheduling.front import corners, front, non_dominated
from cloud.scheduling.seam import NEAR, Strategy
from messages.errors import BrokenInvariant, UsageError
from messages.judge import objective, violations
from messages.plan import Measure, Plan, Status
from messages.problem import TIMES, Problem
from shoal.schedule_leave import Left
from shoal.schedule_options import Wanted
from shoal.schedule_trail import Trail

LOOK_S = 0.1
COMPILE_TOLD_S = 2.0
"""Getting ready for longer is told on a pipe; a terminal shows a bar at once."""
PREFERRED = ("portfolio", "cpsat")
"""The default is the first of these there is."""
_READY: set[tuple[str, tuple[Measure, ...], bool]] = set()
"""Solver and measures whose machine code this process has compiled, or read from the cache, before a clock started."""
T = TypeVar("T")


def solvers() -> tuple[str, ...]:
    """Every name `--solver` takes: the kinds of the registry, and each rule of dispatching."""
    kinds: list[str] = []
    for kind in get_args(get_args(Solver)[0]) or (get_args(Solver)[0],):
        rules = get_args(kind.model_fields["rule"].annotation) if kind is Dispatch else ()
        kinds += rules or (kind.model_fields["kind"].default,)
    return tuple(sorted(kinds, key=lambda name: (name not in PREFERRED, kinds.index(name))))


def solver_of(name: str) -> Strategy:
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
        return TypeAdapter[Strategy](Solver).validate_python({"kind": kind, **settings, **own})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        text = f"{first['msg']}; correct the setting"
        if first["type"] == "extra_forbidden":
            text = f"unknown; correct the setting, {kind} has {', '.join(_settings_of(kind)) or 'none'}"
        raise UsageError(f"--solver {name}: {place}: {text}") from None


def _settings_of(kind: str) -> list[str]:
    """What a solver of the registry can be told; a rule of dispatching nothing."""
    members = (one for one in get_args(get_args(Solver)[0]) if one.model_fields["kind"].default == kind)
    return [name for member in members for name in member.model_fields if name not in ("kind", "rule")]


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
    solver: Strategy | None = None,
) -> Found:
    """The front or the best plan, with its progress shown; what was returned holds, or BrokenInvariant is raised.

    solver  in the place of the one that `wanted` names
    """
    goal = Goal(wanted.measures, limits=limits or {}, front=wanted.front and bool(problem.jobs))
    solver = solver or solver_of(wanted.solver)
    budget = Budget(wanted.budget_s, wanted.evaluations, wanted.workers)
    stop, trail = threading.Event(), Trail(problem, goal)
    with _InterruptSets(stop), _bar(console) as progress:
        if problem.jobs and (wanted.solver, goal.order, goal.front) not in _READY:
            _get_ready(problem, goal, solver, console, progress, stop)
            _READY.add((wanted.solver, goal.order, goal.front))
        task = progress.add_task(title, total=wanted.budget_s, news="")
        run = Exchange(problem, goal, budget, on_event=trail.hear, stop=stop)

        def look() -> None:
            trail.look(run)
            text = trail.text(run) + ("  stopping" if stop.is_set() else "")
            progress.update(task, completed=min(run.elapsed_s, wanted.budget_s), news=text)

        if wanted.replicas > 1 or wanted.ray:
            solved = _aside(lambda: _replicas(problem, solver, goal, budget, wanted, start, stop), look)
        else:
            solved = _aside(lambda: _solved(problem, solver, run, seed=wanted.seed, start=start), look)
    if solved is None:
        raise BrokenInvariant("the search ended without a word")
    result = _checked(problem, goal, solved, run)
    if wanted.solver and result.refused and not result.plans:
        name = wanted.solver.partition(":")[0]
        raise UsageError(f"--solver {wanted.solver}: {result.reason.removeprefix(name).strip()}")
    trail.end(result)
    return Found(result, goal, trail.lines())


def _get_ready(
    problem: Problem, goal: Goal, solver: Strategy, console: Console, progress: Progress, stop: threading.Event
) -> None:
    """Machine code made, or read from the cache; where that takes a while it is said, also into a pipe."""
    task = progress.add_task("getting ready", total=None, news="machine code is made on the first run")
    began, told = monotonic(), False

    def look() -> None:
        nonlocal told
        if not told and not console.is_terminal and monotonic() - began > COMPILE_TOLD_S:
            text = "getting ready: machine code is made on the first run, which can take a minute; it is kept"
            console.print(text, soft_wrap=True, highlight=False)
            told = True

    _aside(lambda: warm(problem, goal=goal, solver=solver), look, stop)
    progress.remove_task(task)
    if stop.is_set():
        raise Left("interrupted while getting ready, before the search began; nothing was found yet")
    if told:
        console.print(f"ready after {monotonic() - began:.0f} s: the search begins", highlight=False)


def asker(wanted: Wanted, console: Console, title: str) -> Callable[[Problem, Goal, float, Plan | None], Result]:
    """The default solver as `cloud.scheduling.relax` asks it: one plan, its own time."""

    def ask(problem: Problem, goal: Goal, seconds: float, start: Plan | None) -> Result:
        own = replace(wanted, measures=goal.order, budget_s=seconds, evaluations=None, solver="", lex=True, many=False)
        return search(problem, own, console, limits=goal.limits, start=start, title=title).result

    return ask


def _aside(work: Callable[[], T], look: Callable[[], None], stop: threading.Event | None = None) -> T | None:
    """`work` in a thread, with a look now and then, so that Ctrl-C is heard at once. Its errors are raised here.

    stop  do not wait for its end once this is set: then None may come back
    """
    box: list[T] = []
    broken: list[BaseException] = []

    def run() -> None:
        try:
            box.append(work())
        except BaseException as error:
            broken.append(error)  # raised again in the main thread

    thread = threading.Thread(target=run, name="solve", daemon=True)
    thread.start()
    while thread.is_alive() and not (stop and stop.is_set()):
        thread.join(LOOK_S)
        look()
    if broken:
        raise broken[0]
    return box[0] if box else None


def _solved(problem: Problem, solver: Strategy, run: Exchange, *, seed: int, start: Plan | None) -> Result:
    if run.goal.front and isinstance(solver, CpSat):  # exact, from both ends
        return front(problem, measures=run.goal.order, seed=seed, start=start, exchange=run)
    return solver.solve(problem, seed=seed, start=start, exchange=run)


def _replicas(
    problem: Problem,
    solver: Strategy,
    goal: Goal,
    budget: Budget,
    wanted: Wanted,
    start: Plan | None,
    stop: threading.Event,
) -> Result:
    """Several searches that know nothing of each other: side by side here, one thread each, or on a cluster."""
    own = budget if wanted.ray else replace(budget, workers=1)
    tasks = [Task(solver, problem, goal, own, seed=wanted.seed + nth, start=start) for nth in range(wanted.replicas)]
    return merged(executor_of(wanted.ray, at_once=wanted.workers).run(tasks, stop), goal)


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
        of_all: dict[str, object] = {"ideal": ideal, "nadir": nadir}
        of_all |= {"status": status} if status == "optimal" else {}
        kept = [plan.model_copy(update=of_all) for plan in kept]
        return replace(result, plans=tuple(kept), status=status)
    bound = result.bound
    if bound is not None and goal.order[0] in TIMES:
        bound = float(ceil(bound - NEAR))  # times are whole ticks
    # Whoever found the plan: what the whole search proved is about it.
    own = {"bound": bound, "bound_of": goal.order[0], "status": status}
    return replace(result, plans=(kept[0].model_copy(update=own),), status=status, bound=bound)


class _InterruptSets:
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
