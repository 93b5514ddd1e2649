"""The seam of solvers: what is asked (`Goal`, `Budget`), where solvers meet (`Exchange`), what comes back (`Result`).

    result = CpSat().solve(problem, goal=Goal(("makespan", "energy")), budget=Budget(seconds=10, workers=2))
    result.plans[0], result.status, result.bound

A solver is a frozen settings model with one method `solve`; the union `Solver` in `cloud.scheduling` is the registry.
Every plan it returns was judged by `messages.judge`, never by the solver itself. An infeasible or empty-handed result
says why in `reason`. While it runs, it says every better plan and bound on the exchange, takes over what others said
there, and ends soon after `exchange.over` turns true, with the best so far.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from messages.checks import beyond_solvers
from messages.gaps import machine_states, moves, works
from messages.judge import KEY as KEY
from messages.judge import missing, objective, violations
from messages.plan import Assignment, Measure, Plan, Status
from messages.problem import TIMES, Problem
from messages.uncollected import uncollected

MEASURES: tuple[Measure, ...] = ("makespan", "tardiness", "energy", "carbon", "cost", "peak", "ledger")
IN_ORDER = attrgetter("start", "end", "machine", "job", "op")
"""What orders the assignments of a plan."""
NEAR = 1e-6
"""Relative difference of two values of a measure that counts as none."""


@dataclass(frozen=True)
class Goal:
    """What is to be minimised, within `limits` (inclusive; those of the problem hold as well).

    Without `weights`: the first measure of `order`, then the next without losing any of it, and so on. With them: the
    sum of weight · value over `order`, values as in `KEY`. `floors` are lower bounds that somebody has proved already:
    a solver may stop where it reaches one. A front asks for all plans that no other beats in every measure of `order`.
    """

    order: tuple[Measure, ...] = ("makespan",)
    weights: Mapping[Measure, float] | None = None
    limits: Mapping[Measure, float] = field(default_factory=dict)
    floors: Mapping[Measure, float] = field(default_factory=dict)
    front: bool = False

    def __post_init__(self) -> None:
        if not self.order or len(set(self.order)) != len(self.order):
            raise ValueError("Goal.order: one or more different measures")
        if self.weights is not None and (set(self.weights) != set(self.order) or min(self.weights.values()) < 0):
            raise ValueError("Goal.weights: one from 0 on for each measure of order")
        if self.front and len(self.order) < 2:
            raise ValueError("Goal.front: a front needs two measures or more")

    def value(self, objectives: Mapping[str, float]) -> tuple[float, ...]:
        """What is compared: smaller is better."""
        if self.weights is not None:
            return (sum(self.weights[one] * objectives[KEY[one]] for one in self.order),)
        return tuple(objectives[KEY[one]] for one in self.order)

    def better(self, a: Mapping[str, float], b: Mapping[str, float]) -> bool:
        """Whether plan values `a` are better than `b` by more than rounding."""
        for x, y in zip(self.value(a), self.value(b), strict=True):
            if abs(x - y) > NEAR * max(1.0, abs(x), abs(y)):
                return x < y
        return False

    def within(self, problem: Problem, objectives: Mapping[str, float]) -> bool:
        """Whether these values keep every limit."""
        limits = [*self.limits.items(), *problem.limits.items()]
        return all(objectives[KEY[name]] <= limit + NEAR * max(1.0, abs(limit)) for name, limit in limits)


@dataclass(frozen=True)
class Budget:
    """How long a solver may go on: until the first of the two is spent. `workers` threads in all.

    With `evaluations` and one seed the result is the same every time, however fast the machine is.
    """

    seconds: float = 10.0
    evaluations: int | None = None
    workers: int = 2


@dataclass(frozen=True)
class Event:
    """News on the way: a better plan's value, or a better bound."""

    at_s: float
    kind: Literal["incumbent", "bound"]
    measure: Measure
    value: float
    solver: str = ""


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """What a solver found. `plans` is empty, one plan, or a front sorted by its first measure. `refused`: it cannot
    plan a problem or a goal like this one, whatever its budget; `reason` says what it lacks, and what to use."""

    plans: tuple[Plan, ...] = ()
    objective: dict[str, float] = field(default_factory=dict)
    bound: float | None = None
    status: Status = "unknown"
    runtime_s: float = 0.0
    history: tuple[Event, ...] = ()
    reason: str = ""
    evaluations: int = 0
    refused: bool = False


class _Board:
    """What all slices of an exchange share."""

    def __init__(self, on_event: OnEvent | None, stop: threading.Event | None) -> None:
        self.started = time.monotonic()
        self.events: list[Event] = []
        self.bounds: dict[Measure, float] = {}
        self.best: Plan | None = None
        self.front: list[Plan] = []
        self.faults: dict[str, str] = {}
        self.version = 0
        self.tell, self.stop, self.done = on_event, stop or threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.whole: Exchange | None = None


class Exchange:
    """Where the solvers of one run meet: the best plan, the front, proved bounds, and whether it is over. Thread-safe.

    Bounded: one best plan, `FRONT` plans of a front (of a fuller one the most crowded go), the first `EVENTS` events.
    """

    EVENTS, FRONT = 10_000, 1_000

    def __init__(
        self,
        problem: Problem,
        goal: Goal,
        budget: Budget,
        *,
        on_event: OnEvent | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.problem, self.goal, self.budget = problem, goal, budget
        self._board = _Board(on_event, stop)
        self._began_s = 0.0

    @property
    def best(self) -> Plan | None:
        """The best plan within the limits so far."""
        return self._board.best

    @property
    def front(self) -> list[Plan]:
        """Where a front is asked for: the plans that no other beats, sorted by the first measure."""
        return self._board.front

    @property
    def bounds(self) -> dict[Measure, float]:
        """What was proved: no plan within the limits of the goal is below."""
        return self._board.bounds

    @property
    def events(self) -> list[Event]:
        """What was said, in order."""
        return self._board.events

    @property
    def faults(self) -> dict[str, str]:
        """Solvers that offered plans which cannot be carried out, and why not: defects of ours."""
        return self._board.faults

    @property
    def version(self) -> int:
        """Rises with every better plan, so that a look costs little."""
        return self._board.version

    @property
    def elapsed_s(self) -> float:
        """Since the start of the run, or of this slice of it."""
        return time.monotonic() - self._board.started - self._began_s

    @property
    def left_s(self) -> float:
        """Of the budget; 0 when it is over."""
        return 0.0 if self.interrupted else max(0.0, self.budget.seconds - self.elapsed_s)

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked to stop, or nothing better can be found."""
        board = self._board
        return board.stop.is_set() or board.done.is_set() or (board.whole is not None and board.whole.interrupted)

    @property
    def over(self) -> bool:
        """Whether to end now, with the best so far."""
        return self.interrupted or self.elapsed_s >= self.budget.seconds

    def wait(self, seconds: float) -> bool:
        """Sleep so long, less when the run is interrupted; whether it is over."""
        self._board.stop.wait(min(seconds, self.left_s))
        return self.over

    def finish(self) -> None:
        """Nothing better can be found: everybody may stop."""
        self._board.done.set()

    def offer(self, plan: Plan) -> bool:
        """A judged plan of the whole problem. Taken, True, if it keeps the limits and is better than the best so far,
        or belongs to the front. What would be taken is checked by `violations`: one wrong plan would keep out every
        right one, so it is refused, and `faults` says whose it was."""
        if not self.goal.within(self.problem, plan.objectives) or not self._is_news(plan):
            return False
        board = self._board
        if found := violations(self.problem, plan):
            with board.lock:
                board.faults[plan.solver] = found[0]
            return False
        with board.lock:
            better = board.best is None or self.goal.better(plan.objectives, board.best.objectives)
            if better:
                board.best = plan
                board.version += 1
            new = self.goal.front and self._into_front(plan)
        if better:
            first = self.goal.order[0]
            self.say("incumbent", first, plan.objectives[KEY[first]], plan.solver)
        return better or new

    def raise_bound(self, measure: Measure, value: float, solver: str = "") -> None:
        """No plan within the limits of the goal can be below `value` in this measure: proved."""
        with self._board.lock:
            known = self.bounds.get(measure)
            higher = known is None or value > known + NEAR * max(1.0, abs(value))
            if higher:
                self.bounds[measure] = value
        if higher:
            self.say("bound", measure, value, solver)

    def say(self, kind: Literal["incumbent", "bound"], measure: Measure, value: float, solver: str = "") -> None:
        """Hand on news of now."""
        board = self._board
        event = Event(time.monotonic() - board.started, kind, measure, value, solver)
        with board.lock:
            if len(board.events) < self.EVENTS:
                board.events.append(event)
        if board.tell:
            board.tell(event)

    def slice(self, seconds: float, *, workers: int | None = None) -> Exchange:
        """The same exchange for a solver that is to end earlier, or with fewer threads."""
        own = copy(self)
        own._began_s = self._began_s + self.elapsed_s
        own.budget = replace(
            self.budget, seconds=min(seconds, self.left_s), workers=self.budget.workers if workers is None else workers
        )
        return own

    def part(self, goal: Goal, seconds: float) -> Exchange:
        """An exchange of its own for a part of this run: what is said there is handed on, and it ends with this one."""
        left = replace(self.budget, seconds=min(seconds, self.left_s))

        def hand_on(event: Event) -> None:
            self.say(event.kind, event.measure, event.value, event.solver)

        own = Exchange(self.problem, goal, left, on_event=hand_on, stop=self._board.stop)
        own._board.whole = self
        return own

    def _is_news(self, plan: Plan) -> bool:
        best = self.best
        if best is None or self.goal.better(plan.objectives, best.objectives):
            return True
        if not self.goal.front:
            return False
        row = [plan.objectives[KEY[one]] for one in self.goal.order]
        rows = ([other.objectives[KEY[one]] for one in self.goal.order] for other in self.front)
        return not any(_no_worse(theirs, row) for theirs in rows)

    def _into_front(self, plan: Plan) -> bool:
        board = self._board
        row = [plan.objectives[KEY[one]] for one in self.goal.order]
        kept = []
        for other in board.front:
            theirs = [other.objectives[KEY[one]] for one in self.goal.order]
            if _no_worse(theirs, row):
                return False
            if not _no_worse(row, theirs):
                kept.append(other)
        kept.append(plan)
        if len(kept) > self.FRONT:
            kept.remove(_most_crowded(kept, self.goal.order))
        kept.sort(key=lambda one: [one.objectives[KEY[measure]] for measure in self.goal.order])
        board.front = kept
        board.version += 1
        return True


class Strategy(BaseModel, ABC):
    """Base of solvers: settings, frozen and strict, and `solve`; a solver says in `run` how it searches."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    default: ClassVar[Goal] = Goal()

    def solve(
        self,
        problem: Problem,
        *,
        goal: Goal | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        start: Plan | None = None,
        exchange: Exchange | None = None,
    ) -> Result:
        """The best for `goal` within `budget`. `start` is a plan to begin with, for this problem or one like it.
        With an `exchange` its goal and budget hold, and others may be at work on the same problem. Refused where the
        problem does not state what the goal counts, or states vehicles, buffers or where parts lie."""
        run = exchange or Exchange(problem, goal or self.default, budget or Budget())
        lacks = [missing(problem, one) for one in (*run.goal.order, *run.goal.limits)]
        reason = beyond_solvers(problem) or next(filter(None, lacks), "")
        return refusal(run, reason) if reason else self.run(problem, run, seed, start)

    @abstractmethod
    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """Search until `run.over`, offering every better plan and bound there."""


def one_time(problem: Problem, goal: Goal, solver: str) -> str:
    """Why a search that minimises makespan or tardiness, and looks at nothing else, cannot help; "" if it can."""
    if goal.front:
        return f"{solver} finds one plan, not a front: use the portfolio"
    if goal.order[0] not in TIMES or (goal.weights is not None and len(goal.order) > 1):
        return f"{solver} minimises makespan or tardiness alone: use the portfolio"
    others = {*goal.limits, *problem.limits} - {goal.order[0]}
    return f"{solver} knows no limit of {', '.join(sorted(others))}: use the portfolio" if others else ""


@uncollected
def judged(
    problem: Problem,
    new: Iterable[Assignment],
    *,
    solver: str,
    status: Status = "feasible",
    bound: float | None = None,
    runtime_s: float = 0.0,
    off: Collection[tuple[str, int]] | None = None,
) -> Plan:
    """A whole plan from the new assignments: history, states, moves and objectives are added here.

    off  operations before which their machine is switched off, in other gaps it idles; None: as needs least energy
    """
    assignments = tuple(sorted((*problem.history, *new), key=IN_ORDER))
    lines = works(problem, assignments)
    plan = Plan(
        problem_sha256=problem.sha256,
        assignments=assignments,
        machine_states=machine_states(problem, assignments, off, lines),
        moves=moves(problem, assignments),
        solver=solver,
        status=status,
        bound=bound,
        runtime_s=round(runtime_s, 3),
    )
    return plan.model_copy(update={"objectives": objective(problem, plan, lines)})


def _no_worse(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is nowhere worse than `b` by more than rounding."""
    return all(x <= y + NEAR * max(1.0, abs(y)) for x, y in zip(a, b, strict=True))


def refusal(run: Exchange, reason: str) -> Result:
    """Of a solver that cannot plan this at all."""
    return Result(runtime_s=run.elapsed_s, history=tuple(run.events), reason=reason, refused=True)


def nothing_to_do(problem: Problem, run: Exchange, solver: str) -> Result:
    """Of a problem with no open operation: the one plan there is, or that what happened exceeds a limit."""
    first = run.goal.order[0]
    plan = judged(problem, (), solver=solver, status="optimal")
    if not run.goal.within(problem, plan.objectives):
        reason = f"{solver}: nothing is left to plan, and what happened exceeds a limit"
        return Result(status="infeasible", reason=reason, runtime_s=run.elapsed_s, history=tuple(run.events))
    plan = plan.model_copy(update={"bound": plan.objectives[KEY[first]], "bound_of": first})
    run.offer(plan)
    return Result((plan,), plan.objectives, plan.bound, "optimal", run.elapsed_s, tuple(run.events))


def _most_crowded(front: list[Plan], measures: tuple[Measure, ...]) -> Plan:
    """The plan nearest to another in normalised measures; never one that is best in a measure."""
    rows = [[plan.objectives[KEY[one]] for one in measures] for plan in front]
    low = [min(column) for column in zip(*rows, strict=True)]
    width = [max(max(column) - least, 1e-12) for column, least in zip(zip(*rows, strict=True), low, strict=True)]
    points = [[(x - a) / w for x, a, w in zip(row, low, width, strict=True)] for row in rows]

    def room(i: int) -> float:
        if min(points[i]) == 0.0:
            return float("inf")
        gaps = [sum(abs(x - y) for x, y in zip(points[i], p, strict=True)) for j, p in enumerate(points) if j != i]
        return float(min(gaps))

    return front[min(range(len(front)), key=room)]
