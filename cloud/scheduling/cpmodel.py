"""The exact model in CP-SAT: choice of machine, order, start, set-up, batch, and what each machine does in its gaps.

Times are divided by their greatest common divisor and counted from the first tick that may be planned. Every way to do
an operation is a `Choice` of fixed length: machine, stretch between breakdowns, set-up before it, and in a batch how
long the batch takes and whether it leads or joins it; so all the rest is linear in choices. Redundant lines that make
it fast: per machine `Cmax ≥ Σ assigned durations` (between the least head and tail), and per set of like machines a
cumulative resource.

Parts: `cpmodel_shop` (set-ups, batches, crews), `cpmodel_span` (energy of gaps, where no hour costs more than another),
`cpmodel_grid` (loads over time: carbon, cost, peak, ledger). Not modelled exactly but refused (`TooLarge`): more than
`CHOICES` choices, `PAIRS` pairs of operations on machines with set-ups or batches, `CELLS` starts on the time grid.

Dimensions: ticks of the problem are T, model steps are S = (T − origin) / grain; operations o, machines m as in `Shop`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import ceil, floor, gcd
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from cloud.scheduling.seam import KEY
from cloud.scheduling.shop import FAR, Draft, Names, Shop
from messages.curve import CURVES
from messages.plan import Measure
from messages.problem import Problem

LIKE_SETS = 12
"""Cumulative lines are drawn for at most this many different machine sets."""
CHOICES, PAIRS, CELLS = 300_000, 150_000, 400_000
DECIMALS = 10**6
"""Powers are exact to this fraction of a kW."""
RESOLUTION = 1e-8
"""Of the greatest coefficient, where coefficients are no round numbers; rounding down keeps bounds true."""

Term = tuple[float, Any]


class TooLarge(Exception):
    """An exact model would be too large; the text says what and which bound."""


@dataclass(slots=True)
class Choice:
    """One way to do an operation. Times in steps; `kw` while at work, of a batch its greatest."""

    machine: int
    stretch: int
    size: int
    setup: int
    kw: float
    joins: bool
    chosen: Any
    interval: Any = None


@dataclass(slots=True)
class Task:
    """One operation: its variables and choices."""

    o: int
    start: Any
    end: Any
    interval: Any
    head: int
    tail: int
    choices: list[Choice] = field(default_factory=list)
    on: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Keep:
    """What a neighbourhood leaves alone: machines (-1: free), starts in ticks (-1: free), and who comes before whom."""

    machine: Sequence[int]
    start: Sequence[int]
    order: Sequence[tuple[int, int]] = ()


def on_grid(problem: Problem, measures: Collection[Measure]) -> bool:
    """Whether one of these measures depends on when energy is drawn."""
    return any(_timed(problem, measure) for measure in measures)


def _timed(problem: Problem, measure: Measure) -> bool:
    if measure in ("makespan", "tardiness", "energy"):
        return False
    if measure == "peak":
        return True
    prices = problem.tariff if measure == "cost" else problem.carbon
    uneven = any(len(set(curve.values)) > 1 or min(curve.values) < 0 for curve in prices.values())
    exports = measure == "ledger" and problem.export_kg_per_kwh > 0
    given = any(max(one.values) > 0 and (exports or carrier in prices) for carrier, one in problem.generation.items())
    return uneven or given


def grain(problem: Problem, shop: Shop, measures: Collection[Measure], marks: Iterable[float] = ()) -> int:
    """Ticks per model step: divides all durations and every time that matters.

    Between fixed events the cost of a gap is concave in its length (idling and being off are two lines), so some
    best plan lies on this grain even if preheating does not; where preheating draws less than idling it is not
    concave, and preheating joins in. Where hours differ, their edges and preheating count as well.
    """
    origin = shop.floor
    times = [*shop.alt_ticks.tolist(), *shop.wait_min.tolist(), *np.unique(shop.setup).tolist()]
    times += [wait for wait in shop.wait_max.tolist() if wait < FAR]
    times += [mark - origin for mark in (*shop.job_ready.tolist(), *shop.stretch_start.tolist())]
    times += [mark - origin for mark in shop.stretch_ready.tolist()]
    times += [mark - origin for mark in shop.stretch_end.tolist() if mark < FAR]
    times += [mark - origin for mark in shop.stretch_warm.tolist() if mark >= 0]
    times += [mark - origin for mark in (*shop.closed_start.tolist(), *shop.closed_end.tolist())]
    times += [end - origin for *_, end in shop.crew_past.tolist()]
    times += [floor(mark) - origin for mark in marks if mark < FAR]
    times += np.unique(shop.transport).tolist()
    if shop.transport.any() or shop.wait_min.any() or (shop.wait_max < FAR).any():
        times += [left - origin for left in shop.job_left.tolist() if left >= 0]
    if "tardiness" in measures:
        times += [due - origin for due in (*shop.lot_due.tolist(), *shop.lot_past.tolist()) if due < FAR]
    timed = on_grid(problem, measures)
    if timed:
        for kind in CURVES:
            for curve in getattr(problem, kind).values():
                times += [curve.step, curve.start - origin] if len(set(curve.values)) > 1 else []
        times += [since - origin for since in shop.machine_since.tolist() if since >= 0]
        times += [*(shop.past_end - origin).tolist(), shop.horizon - origin if shop.horizon < FAR else 0]
    for m in range(len(shop.preheat)):
        _, idle, preheat, off, *_ = shop.power[m].tolist()
        if timed or preheat < max(idle, off):
            times.append(int(shop.preheat[m]))
    return reduce(gcd, (abs(int(one)) for one in times), 0) or 1


class Model:
    """`horizon` in ticks bounds everything. `measures`: all that are minimised or limited.

    `sunk`: objectives of the plan without new work. `over`: asked while it is made, some milliseconds apart.
    """

    def __init__(
        self,
        problem: Problem,
        shop: Shop,
        names: Names,
        *,
        horizon: int,
        sunk: Mapping[str, float],
        measures: Collection[Measure],
        marks: Iterable[float] = (),
        redundant: bool = True,
        keep: Keep | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        from cloud.scheduling.cpmodel_grid import Grid
        from cloud.scheduling.cpmodel_shop import add_shop, lead_options, prepared
        from cloud.scheduling.cpmodel_span import Spans

        self.problem, self.shop, self.names, self.keep, self._over = problem, shop, names, keep, over
        self.origin = shop.floor
        self.timed = on_grid(problem, measures)
        self.grain = grain(problem, shop, measures, (*marks, shop.horizon))
        self.horizon = max(0, (min(horizon, shop.horizon) - self.origin) // self.grain)
        self.cp = cp_model.CpModel()
        self.tasks: list[Task] = []
        self.makespan = self.cp.new_int_var(0, self.horizon, "makespan")
        self.options, self._ways = prepared(self), lead_options
        self.by_machine: list[list[tuple[Task, Choice]]] = [[] for _ in range(len(shop.preheat))]
        self._count = 0
        self.moves: list[
            tuple[Task | None, int, int, Any]
        ] = []  # from the end of a task (None: a tick), ticks, literal
        for j in range(len(shop.job_ready)):
            self.look()
            self._job(j)
        self.look()
        self._no_overlaps()
        if keep is not None:
            for before, after in keep.order:
                self.cp.add(self.tasks[after].start >= self.tasks[before].end)
        self.shop_lines = add_shop(self)
        if redundant:
            self._loads()
            self.look()
            self._like_machines()
        self.terms: dict[Measure, list[Term]] = {"makespan": [(float(self.grain), self.makespan)]}
        self.fixed: dict[Measure, float] = {"makespan": float(self.origin), "tardiness": float(shop.past_tardiness)}
        self.energy: Grid | Spans | None = None
        if "tardiness" in measures:
            self.terms["tardiness"] = self._tardiness()
        powered = [one for one in measures if one not in ("makespan", "tardiness")]
        if powered:
            self.energy = Grid(self, powered) if self.timed else Spans(self)
            for measure in powered:
                self.look()
                self.fixed[measure] = sunk[KEY[measure]]
                self.terms[measure] = self.energy.terms(measure)
        self.unit = 1.0
        self.constant = 0.0

    # --- what solvers ask for -------------------------------------------------------------------

    def minimise(self, weights: dict[Measure, float]) -> None:
        """Make the weighted sum of these measures the objective."""
        terms = [(weight * c, e) for measure, weight in weights.items() for c, e in self.terms[measure] if weight]
        expression, self.unit = self._scaled(terms)
        self.constant = sum(weight * self.fixed[measure] for measure, weight in weights.items())
        self.objective = expression
        self.cp.minimize(expression)

    def natural(self, units: float) -> float:
        """A value of the objective in the measures' own units."""
        return self.constant + self.unit * units

    def cut(self, value: float) -> None:
        """The objective is to be no more than this."""
        self.cp.add(self.objective <= floor((value - self.constant) / self.unit + 1e-6))

    def floor(self, value: float) -> None:
        """The objective is known to be at least this."""
        self.cp.add(self.objective >= floor((value - self.constant) / self.unit - 1e-6))

    def limit(self, measure: Measure, value: float) -> None:
        """The measure may not exceed `value`."""
        if measure == "makespan":
            self.cp.add(self.makespan <= int((value - self.origin) // self.grain))
            return
        expression, unit = self._scaled(self.terms[measure])
        self.cp.add(expression <= floor((value - self.fixed[measure]) / unit + 1e-6))

    def draft(self, solver: cp_model.CpSolver | cp_model.CpSolverSolutionCallback) -> Draft:
        """The best solution; `off` says nothing where energy alone decides."""
        count = len(self.tasks)
        draft = Draft(np.zeros(count, np.int32), np.zeros(count, np.int64), np.zeros(count, np.bool_))
        for task in self.tasks:
            choice = next(one for one in task.choices if solver.boolean_value(one.chosen))
            draft.machine[task.o] = choice.machine
            draft.start[task.o] = self.origin + self.grain * solver.value(task.start)
            if self.timed and self.energy is not None and choice.size and not choice.joins:
                draft.off[task.o] = self.energy.is_off(task, choice, solver)
        return draft

    # --- building -------------------------------------------------------------------------------

    def look(self) -> None:
        """Give up where the time is over before the model is made."""
        if self._over():
            raise TooLarge("time was over before the exact model was made; allow more, or use the portfolio")

    def steps(self, ticks: int) -> int:
        """Ticks since the problem began as steps, from 0 on."""
        return max(0, (int(ticks) - self.origin) // self.grain)

    def _scaled(self, terms: Sequence[Term]) -> tuple[Any, float]:
        """A whole-numbered expression and what one unit of it is worth; never more than the terms are."""
        terms = [(c, e) for c, e in terms if c]
        if not terms:
            return self.cp.new_constant(0), 1.0
        base = self.problem.tick_s / 3600 if self.energy is not None else 1.0
        for scale in _powers(DECIMALS):
            whole = [c / base * scale for c, _ in terms]
            if all(abs(c - round(c)) < 1e-7 for c in whole) and max(map(abs, whole)) < 1e11:
                rounded = [round(c) for c in whole]
                common = reduce(gcd, rounded, 0) or 1
                unit = common / scale * base
                rounded = [c // common for c in rounded]
                break
        else:
            unit = max(abs(c) for c, _ in terms) * RESOLUTION
            rounded = [floor(c / unit + 1e-9) for c, _ in terms]
        return cp_model.LinearExpr.weighted_sum([e for _, e in terms], rounded), unit

    def _job(self, j: int) -> None:
        shop = self.shop
        first, last = int(shop.job_first[j]), int(shop.job_first[j + 1])
        ticks = [shop.alt_ticks[shop.alt_first[o] : shop.alt_first[o + 1]] for o in range(first, last)]
        least = [int(one.min()) // self.grain for one in ticks]
        lags = [self._lags(o - 1, o) for o in range(first + 1, last)]
        between = [min(one.values()) if one else self.horizon + 1 for one in lags] + [0]
        heads = [self.steps(shop.job_ready[j])]
        for k in range(last - first - 1):
            heads.append(heads[-1] + least[k] + between[k])
        tails = [0]
        for k in range(last - first - 1, 0, -1):
            tails.append(tails[-1] + least[k] + between[k - 1])
        tails.reverse()
        for k, o in enumerate(range(first, last)):
            self._task(o, heads[k], tails[k], least[k])
            if k:
                self._after(self.tasks[o - 1], self.tasks[o], lags[k - 1], between[k - 1])
        if shop.job_left[j] >= 0:
            self._after_history(self.tasks[first], int(shop.job_left[j]), int(shop.job_at[j]))
        self.cp.add(self.makespan >= self.tasks[last - 1].end)

    def _machines_of(self, o: int) -> list[int]:
        return self.shop.alt_machine[self.shop.alt_first[o] : self.shop.alt_first[o + 1]].tolist()  # type: ignore[no-any-return]

    def _lags(self, before: int, after: int) -> dict[tuple[int, int], int]:
        """Steps between two operations of a job, by their machines; pairs that `wait_max` forbids are left out."""
        shop, least = self.shop, int(self.shop.wait_min[after])
        found = {}
        for a in self._machines_of(before):
            for b in self._machines_of(after):
                lag = max(least, int(shop.transport[a, b]))
                if lag <= shop.wait_max[after]:
                    found[a, b] = lag // self.grain
        return found

    def _task(self, o: int, head: int, tail: int, least: int) -> None:
        cp, shop, keep = self.cp, self.shop, self.keep
        fixed = -1 if keep is None or keep.start[o] < 0 else (keep.start[o] - self.origin) // self.grain
        low, high = (head, self.horizon - tail - least) if fixed < 0 else (fixed, fixed)
        if low > high:  # a head beyond the horizon: no plan keeps the limits
            cp.add_bool_or([])
        start = cp.new_int_var(low, max(low, high), "")
        ways: list[Choice] = []
        for a in range(shop.alt_first[o], shop.alt_first[o + 1]):
            m = int(shop.alt_machine[a])
            if keep is None or keep.machine[o] < 0 or keep.machine[o] == m:
                ways += self._ways(self, o, a, low, high)
        self._count += len(ways)
        if self._count > CHOICES:
            raise TooLarge(
                f"an exact model has more than {CHOICES} choices; use the portfolio, or a part of the orders"
            )
        task = Task(o, start, None, None, head, tail, ways)
        for way in ways:
            way.chosen = cp.new_bool_var("")
        cp.add_exactly_one([one.chosen for one in ways])
        sizes = {one.size for one in ways}
        if len(sizes) == 1:
            task.end = start + sizes.pop()
        else:
            first = low + min(sizes, default=0)
            task.end = cp.new_int_var(first, max(first, self.horizon - tail, fixed + max(sizes, default=0)), "")
        for way in ways:
            self._choice(task, way)
        groups: dict[int, list[Any]] = defaultdict(list)
        for way in ways:
            groups[way.machine].append(way.chosen)
        for m, literals in groups.items():
            task.on[m] = literals[0] if len(literals) == 1 else cp.new_bool_var("")
            if len(literals) > 1:
                cp.add(sum(literals) == task.on[m])
        if len({one.size for one in ways}) > 1:
            cp.add(task.end == start + sum(one.size * one.chosen for one in ways))
        self.tasks.append(task)

    def _choice(self, task: Task, way: Choice) -> None:
        cp, shop = self.cp, self.shop
        if not way.size:
            return
        whole = way.size + way.setup
        way.interval = cp.new_optional_fixed_size_interval_var(task.start - way.setup, whole, way.chosen, "")
        low = self.earliest(way)
        if low > task.head:
            cp.add(task.start >= low).only_enforce_if(way.chosen)
        if shop.stretch_end[way.stretch] < FAR:
            cp.add(task.start + way.size <= self.steps(shop.stretch_end[way.stretch])).only_enforce_if(way.chosen)
        self.by_machine[way.machine].append((task, way))

    def earliest(self, way: Choice) -> int:
        """The first step at which its stretch lets it start; a fresh plan may set up before tick 0."""
        ready = self.steps(self.shop.stretch_ready[way.stretch])
        fresh = self.problem.now is None and self.shop.stretch_start[way.stretch] == 0
        return ready if fresh else ready + way.setup

    def _after(self, a: Task, b: Task, lags: dict[tuple[int, int], int], least: int) -> None:
        cp, shop = self.cp, self.shop
        cp.add(b.start >= a.end + least)
        if shop.wait_max[b.o] < FAR:
            cp.add(b.start <= a.end + int(shop.wait_max[b.o]) // self.grain)
        for ma, literal in a.on.items():
            for mb, other in b.on.items():
                lag = lags.get((ma, mb))
                if lag is None:
                    cp.add_bool_or(~literal, ~other)
                elif lag > least:
                    cp.add(b.start >= a.end + lag).only_enforce_if(literal, other)
        if shop.transport_kw and shop.transport.any():
            self._carried(a, b)

    def _carried(self, a: Task, b: Task) -> None:
        """Literals of what is carried from the machine of `a` to that of `b`, by how long it takes."""
        cp, by_ticks = self.cp, defaultdict[int, list[Any]](list)
        for ma, literal in a.on.items():
            for mb, other in b.on.items():
                ticks = int(self.shop.transport[ma, mb])
                if ticks:
                    both = cp.new_bool_var("")
                    cp.add_bool_or(~literal, ~other, both)
                    cp.add_implication(both, literal)
                    cp.add_implication(both, other)
                    by_ticks[ticks].append(both)
        for ticks, literals in by_ticks.items():
            self.moves.append((a, ticks, 0, literals[0] if len(literals) == 1 else sum(literals)))

    def _after_history(self, task: Task, left: int, at: int) -> None:
        shop, cp = self.shop, self.cp
        wait, most = int(shop.wait_min[task.o]), int(shop.wait_max[task.o])
        for m, literal in task.on.items():
            lag = max(wait, int(shop.transport[at, m]))
            if left + lag > self.origin:
                cp.add(task.start >= -(-(left + lag - self.origin) // self.grain)).only_enforce_if(literal)
            if shop.transport_kw and shop.transport[at, m]:
                self.moves.append((None, int(shop.transport[at, m]), left, literal))
        if most < FAR:
            cp.add(task.start <= (left + most - self.origin) // self.grain)

    def leads(self, m: int, stretch: int | None = None) -> list[tuple[Task, Choice]]:
        """Choices that occupy this machine: all but those that join a batch."""
        return [
            (task, way)
            for task, way in self.by_machine[m]
            if not way.joins and (stretch is None or way.stretch == stretch)
        ]

    def _no_overlaps(self) -> None:
        shop = self.shop
        for m in range(len(self.by_machine)):
            intervals = [way.interval for _, way in self.leads(m)]
            for w in range(shop.closed_first[m], shop.closed_first[m + 1]):
                low, high = self.steps(shop.closed_start[w]), self.steps(shop.closed_end[w])
                if shop.closed_start[w] < self.origin:
                    low = 0
                if high > low and intervals:
                    intervals.append(self.cp.new_fixed_size_interval_var(low, high - low, ""))
            if len(intervals) > 1:
                self.cp.add_no_overlap(intervals)

    def _loads(self) -> None:
        """Per machine: the least head, its load, and the least tail fit below the makespan."""
        for m in range(len(self.by_machine)):
            on = self.leads(m)
            if on:
                head, tail = min(task.head for task, _ in on), min(task.tail for task, _ in on)
                self.cp.add(self.makespan >= head + tail + sum(way.size * way.chosen for _, way in on))

    def _like_machines(self) -> None:
        """Per set of machines: what can go nowhere else needs no more of them than there are."""
        plain = {m for m in range(len(self.by_machine)) if self.shop.batch[m] == 1}
        able = {
            task.o: frozenset(task.on)
            for task in self.tasks
            if task.choices and all(way.size for way in task.choices) and plain.issuperset(task.on)
        }
        sets = sorted({one for one in able.values() if len(one) > 1}, key=sorted)
        if len(sets) > LIKE_SETS:
            return
        for one in sets:
            inside = [self.tasks[o] for o, machines in able.items() if machines <= one]
            if len(inside) > len(one):
                for task in inside:
                    task.interval = task.interval or self._whole(task)
                self.cp.add_cumulative([task.interval for task in inside], [1] * len(inside), len(one))

    def _whole(self, task: Task) -> Any:
        sizes = {way.size for way in task.choices}
        size = sizes.pop() if len(sizes) == 1 else self.cp.new_int_var(min(sizes), max(sizes), "")
        return self.cp.new_interval_var(task.start, size, task.end, "")

    def _tardiness(self) -> list[Term]:
        shop, late = self.shop, dict[int, Any]()
        for j, lot in enumerate(shop.job_lot.tolist()):
            if shop.lot_due[lot] < FAR:
                due = (int(shop.lot_due[lot]) - self.origin) // self.grain
                if lot not in late:
                    past = max(0, (int(shop.lot_past[lot]) - int(shop.lot_due[lot])) // self.grain)
                    late[lot] = self.cp.new_int_var(past, max(past, self.horizon - due), "")
                self.cp.add(late[lot] >= self.tasks[int(shop.job_first[j + 1]) - 1].end - due)
        return [(float(self.grain), one) for one in late.values()]


def least_off(shop: Shop, m: int, step: int) -> int | None:
    """The shortest gap (steps) in which being off needs less than idling, not shorter than preheating; None: never."""
    _, idle, preheat, off, *_ = shop.power[m].tolist()
    ticks = int(shop.preheat[m])
    if idle <= off and preheat >= idle:
        return None
    least = max(1, ceil(ticks / step))
    if idle > off:
        return max(least, int((preheat - off) * ticks / (idle - off) / step * (1 - 1e-12)) + 1)
    return least


def _powers(top: int) -> Iterable[int]:
    scale = 1
    while scale <= top:
        yield scale
        scale *= 10
