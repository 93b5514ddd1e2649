"""Loads over time: what the hours cost, and what every machine does in each step.

Every choice has one literal per start. Each machine is a flow of one unit through time: cold, preheating, at work,
idle (only between work and work), cold again; so its states follow from begins and ends by linear lines. Where nothing
is generated on site, carbon and cost are sums over literals. Where generation exceeds base load and history, a
variable says what is drawn from outside in each piece of constant conditions; the peak is above the load of each.

Exact for plans whose starts, preheatings and set-ups lie on the grid of `Model.grain` ticks; curves and history may
change in between.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from cloud.scheduling.cpmodel import CELLS, Choice, Model, Task, Term, TooLarge
from cloud.scheduling.shop import FAR
from messages.curve import Curve
from messages.plan import Measure

if TYPE_CHECKING:
    from collections.abc import Iterable

LinearExpr = cp_model.LinearExpr
KW_UNIT = 1e-3
"""Loads are counted in this fraction of a kW, rounded down so that bounds stay true."""


@dataclass(frozen=True)
class _Piece:
    """Part of a step with constant conditions: `outside` = base load + history − generation."""

    hours: float
    outside: float
    carbon: float
    tariff: float
    counted: bool  # exports count here


@dataclass
class _Line:
    """One machine's literals by step: when choices begin (with their set-up) and end, preheating, idling, off."""

    begins: dict[int, list[Any]]
    ends: dict[int, list[Any]]
    preheats: dict[int, Any]
    idles: dict[int, Any]
    offs: dict[int, Any]


class Grid:
    """All draws of the planned part, and when they are."""

    def __init__(self, model: Model, measures: Iterable[Measure]) -> None:
        self.model, self.measures = model, set(measures)
        shop = model.shop
        self.starts: dict[tuple[int, int], dict[int, Any]] = {}  # (o, place of the choice) → step → literal
        self.draws: list[tuple[int, float, int, int, Any]] = []  # carrier, kW, from step, until step, variable
        tables = [0 if t < 0 else int(shop.setup[t].max(initial=0)) for t in shop.setup_table.tolist()]
        early = [heat + setup for heat, setup in zip(shop.preheat.tolist(), tables, strict=True)]
        fresh = model.problem.now is None
        past = [left for task, _, left, _ in model.moves if task is None]
        past += [int(since) for m, since in enumerate(shop.machine_since) if since >= 0 and self._costs_off(m)]
        self.low = -ceil(max(early, default=0) / model.grain) if fresh else 0
        self.low = min([self.low, *((left - model.origin) // model.grain for left in past)])
        self.high = model.horizon + 1
        count = sum(
            max(0, model.horizon - task.head - task.tail + 1) * len(task.choices)
            for task in model.tasks
            if model.keep is None or model.keep.start[task.o] < 0
        )
        count += (self.high - self.low) * len(model.by_machine)
        if count > CELLS:
            raise TooLarge(
                f"carbon, cost or peak in steps of {model.grain} ticks needs {count} starts and states, at most "
                f"{CELLS} fit an exact model; use the portfolio, a nearer horizon, or times on a coarser grid"
            )
        for task in model.tasks:
            model.look()
            self._starts(task)
        self.lines = [self._line(m) for m in range(len(model.by_machine))]
        model.look()
        self._moves()
        self._loads: dict[int, list[tuple[Any, int]]] = {}
        self.pieces = [self._conditions(carrier) for carrier in model.names.carriers]

    # --- states ---------------------------------------------------------------------------------

    def _starts(self, task: Task) -> None:
        model, cp, shop = self.model, self.model.cp, self.model.shop
        low, high = task.head, model.horizon - task.tail
        if model.keep is not None and model.keep.start[task.o] >= 0:
            low = (model.keep.start[task.o] - model.origin) // model.grain
            high = low + max((way.size for way in task.choices), default=0)
        chosen_at: list[tuple[int, Any]] = []
        for place, way in enumerate(task.choices):
            first, last = low, high - way.size
            if way.size:
                end = int(shop.stretch_end[way.stretch])
                last = min(last, last if end >= FAR else model.steps(end) - way.size)
                first = max(first, model.earliest(way))
            times = [t for t in range(first, last + 1) if not way.size or self._open(way, t)]
            if len(times) == 1:
                literals = {times[0]: way.chosen}
            else:
                literals = {t: cp.new_bool_var("") for t in times}
                cp.add(LinearExpr.sum(list(literals.values())) == way.chosen)
            self.starts[task.o, place] = literals
            chosen_at += literals.items()
            carrier, kw_setup = int(shop.carrier[way.machine]), float(shop.power[way.machine, 4])
            if way.size and not way.joins:
                for t, literal in literals.items():
                    self._draw(carrier, way.kw, t, t + way.size, literal)
                    self._draw(carrier, kw_setup, t - way.setup, t, literal)
        if chosen_at:
            cp.add(LinearExpr.weighted_sum([one for _, one in chosen_at], [t for t, _ in chosen_at]) == task.start)

    def _open(self, way: Choice, t: int) -> bool:
        model, shop, m = self.model, self.model.shop, way.machine
        for w in range(shop.closed_first[m], shop.closed_first[m + 1]):
            if (
                t - way.setup < (shop.closed_end[w] - model.origin) // model.grain
                and t + way.size > (shop.closed_start[w] - model.origin) // model.grain
            ):
                return False
        return True

    def _costs_off(self, m: int) -> bool:
        return bool(self.model.shop.power[m, 3] or self.model.shop.power[m, 5])

    def _broken(self, m: int, step: int) -> bool:
        model, shop = self.model, self.model.shop
        at = model.origin + step * model.grain
        rows = range(shop.down_first[m], shop.down_first[m + 1])
        return any(shop.down_start[w] <= at < shop.down_end[w] for w in rows)

    def _line(self, m: int) -> _Line:
        """The flow of one machine: what may follow what."""
        model, cp, shop = self.model, self.model.cp, self.model.shop
        model.look()
        line = _Line(defaultdict(list), defaultdict(list), {}, {}, {})
        by_task = {(task.o, id(way)) for task, way in model.leads(m)}
        if not by_task:
            return line
        fresh = model.problem.now is None
        first = int(shop.stretch_first[m])
        warm = int(shop.stretch_warm[first])
        warm_step = model.steps(warm) if warm >= 0 else 0
        early: list[Any] = []  # begin before tick 0 on a machine that is warm then
        for task in model.tasks:
            for place, way in enumerate(task.choices):
                if way.machine == m and way.size and not way.joins:
                    for t, literal in self.starts[task.o, place].items():
                        line.ends[t + way.size].append(literal)
                        if fresh and warm >= 0 and t - way.setup < 0:
                            early.append(literal)
                        else:
                            line.begins[t - way.setup].append(literal)
        _, idle, preheat, off, _, down = shop.power[m].tolist()
        heat, carrier = int(shop.preheat[m]) // model.grain, int(shop.carrier[m])
        low = min([self.low if fresh else 0, *line.begins])
        broken = {t: self._broken(m, t) for t in range(low, self.high)}
        for t in range(low, self.high):
            if 0 <= t < model.horizon and not broken[t]:
                line.idles[t] = cp.new_bool_var("")
                self._draw(carrier, idle, t, t + 1, line.idles[t])
            after = t + heat
            if heat and after in line.begins and not any(broken.get(one, False) for one in range(t, after)):
                line.preheats[t] = cp.new_bool_var("")
                self._draw(carrier, preheat, t, after, line.preheats[t])
        cold: Any = 0 if warm >= 0 else 1
        off_before: Any = None
        if self._costs_off(m):
            off_before = self._off_from_the_past(m, line, warm)
        for t in range(low, self.high):
            begins = line.begins.get(t, [])
            ends = list(line.ends.get(t, []))
            given: Any = LinearExpr.sum(ends) if ends else 0
            if warm >= 0 and t == warm_step:
                given = given + 1 - LinearExpr.sum(early)
            idled, idles = line.idles.get(t - 1, 0), line.idles.get(t, 0)
            heated, heats = line.preheats.get(t - heat, 0) if heat else 0, line.preheats.get(t, 0)
            begun: Any = LinearExpr.sum(begins) if begins else 0
            cp.add(idles - idled - given <= 0)
            cp.add(idled + heated - idles - begun <= 0)
            if heat:
                cp.add(begun - given - idled - heated <= 0)
            after_cold = cp.new_bool_var("")
            cp.add(after_cold == cold + given + idled + heated - begun - idles - heats)
            if off_before is not None:
                off_before = self._off_step(m, line, t, after_cold, off_before, given, heats if heat else begun, cold)
                if model.origin + t * model.grain >= shop.machine_since[m]:  # what runs till then is no gap
                    self._draw(carrier, down if broken[t] else off, t, t + 1, off_before[0])
            cold = after_cold
        return line

    def _off_from_the_past(self, m: int, line: _Line, warm: int) -> tuple[Any, Any]:
        """(off: it was powered and will be again, not begun yet) before the first step."""
        model, cp, shop = self.model, self.model.cp, self.model.shop
        since = int(shop.machine_since[m])
        if warm >= 0:
            return 0, 0
        if since < 0:
            return 0, 1
        again = cp.new_bool_var("")
        _, _, _, off, _, down = shop.power[m].tolist()
        for t in range((since - model.origin) // model.grain, 0):
            self._draw(int(shop.carrier[m]), down if self._broken(m, t) else off, t, t + 1, again)
        return again, 0

    def _off_step(
        self, m: int, line: _Line, t: int, cold: Any, before: tuple[Any, Any], given: Any, goes_on: Any, was_cold: Any
    ) -> tuple[Any, Any]:
        """Cold is one of: not begun yet, off between work and work, done."""
        cp = self.model.cp
        was_off, was_new = before
        off, new, done = cp.new_bool_var(""), cp.new_bool_var(""), cp.new_bool_var("")
        line.offs[t] = off
        cp.add(off + new + done == cold)
        cp.add(new <= was_new)
        cp.add(off <= (was_off + given if t < self.model.horizon else 0))
        cp.add(was_off <= off + goes_on)
        cp.add(done >= was_cold - was_off - was_new)
        return off, new

    def _moves(self) -> None:
        """What carrying draws, from the end of an operation on."""
        model, cp, shop = self.model, self.model.cp, self.model.shop
        by_task: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        for task, ticks, left, literal in model.moves:
            if task is None:
                at = (left - model.origin) // model.grain
                self._draw(shop.transport_carrier, shop.transport_kw, at, at + ticks // model.grain, literal)
            else:
                by_task[task.o].append((ticks // model.grain, literal))
        for o, rows in by_task.items():
            task = model.tasks[o]
            ends: dict[int, list[Any]] = defaultdict(list)
            for place, way in enumerate(task.choices):
                for t, literal in self.starts[o, place].items():
                    ends[t + way.size].append(literal)
            parts: dict[int, list[Any]] = defaultdict(list)
            for ticks, literal in rows:
                here = {t: cp.new_bool_var("") for t in ends}
                cp.add(LinearExpr.sum(list(here.values())) == literal)
                for t, one in here.items():
                    parts[t].append(one)
                    self._draw(shop.transport_carrier, shop.transport_kw, t, t + ticks, one)
            for t, some in parts.items():
                cp.add(LinearExpr.sum(some) <= LinearExpr.sum(ends[t]))

    def _draw(self, carrier: int, kw: float, start: int, end: int, variable: Any) -> None:
        if kw and end > start and not isinstance(variable, int):
            self.draws.append((int(carrier), kw, start, end, variable))

    def is_off(self, task: Task, choice: Choice, solver: cp_model.CpSolver | cp_model.CpSolverSolutionCallback) -> bool:
        """Whether the machine is switched off in the gap before this operation."""
        line, model = self.lines[choice.machine], self.model
        begin = solver.value(task.start) - choice.setup
        heat = int(model.shop.preheat[choice.machine]) // model.grain
        if heat:
            literal = line.preheats.get(begin - heat)
            return literal is not None and solver.boolean_value(literal)
        literal = line.idles.get(begin - 1)
        return literal is None or not solver.boolean_value(literal)

    # --- conditions and measures ----------------------------------------------------------------

    def _conditions(self, carrier: str) -> list[list[_Piece]]:
        """Per step from `low` on: pieces in which no curve and no draw of the past changes."""
        model, problem, shop = self.model, self.model.problem, self.model.shop
        begin, end = (model.origin + step * model.grain for step in (self.low, self.high + self._longest_move()))
        horizon = problem.horizon or 0
        k = model.names.carriers.index(carrier)
        edges = {begin, end, *range(begin, end + 1, model.grain)}
        curves = [getattr(problem, kind).get(carrier) for kind in ("carbon", "tariff", "generation", "base_load")]
        for curve in curves:
            if curve is not None:
                edges |= {at for at, _, _ in curve.pieces(begin, end)}
        edges |= {at for at in (0, horizon) if begin < at < end}
        past = [
            (float(kw), int(a), int(b))
            for c, kw, a, b in zip(shop.past_carrier, shop.past_kw, shop.past_start, shop.past_end, strict=True)
            if c == k and b > begin and a < end
        ]
        for _, a, b in past:
            edges |= {at for at in (a, b) if begin < at < end}
        marks = sorted(edges)
        found: list[list[_Piece]] = [[] for _ in range((end - begin) // model.grain)]
        carbon, tariff, generation, base = (_reader(curve) for curve in curves)
        load = _load(past)
        for a, b in pairwise(marks):
            there = 0 <= a < horizon
            outside = (base(a) if there else 0.0) + load(a) - generation(a)
            hours = (b - a) * problem.tick_s / 3600
            found[(a - begin) // model.grain].append(_Piece(hours, outside, carbon(a), tariff(a), there))
        return found

    def _longest_move(self) -> int:
        return max((ticks // self.model.grain for _, ticks, _, _ in self.model.moves), default=0)

    def terms(self, measure: Measure) -> list[Term]:
        """The measure as a sum over variables; what the past comes to is in `Model.fixed`."""
        if measure == "peak":
            return self._peak()
        count = len(self.pieces[0]) if self.pieces else 0
        price = np.zeros((len(self.pieces), count))
        outside: list[Term] = []
        for k, steps in enumerate(self.pieces):
            for t, pieces in enumerate(steps):
                for piece in pieces:
                    value = _price(measure, piece)
                    if measure == "energy" or piece.outside >= 0:
                        price[k, t] += value * piece.hours
                        continue
                    credit = self.model.problem.export_kg_per_kwh if measure == "ledger" and piece.counted else 0.0
                    price[k, t] += credit * piece.hours
                    if value - credit:
                        taken = self._taken(k, t, piece, exact=value < credit)
                        if taken is not None:
                            outside.append(((value - credit) * piece.hours * KW_UNIT, taken))
        total = np.concatenate([np.zeros((len(price), 1)), price.cumsum(axis=1)], axis=1)
        found: list[Term] = []
        for k, kw, start, end, variable in self.draws:
            cost = kw * float(total[k, min(end - self.low, count)] - total[k, start - self.low])
            if abs(cost) > 1e-12:
                found.append((cost, variable))
        return found + outside

    def _taken(self, k: int, t: int, piece: _Piece, *, exact: bool) -> Any:
        """max(0, load − what is left over), in KW_UNIT; None: nothing ever draws that much."""
        load, most = self._load_of(k)[t]
        spare = ceil(-piece.outside / KW_UNIT - 1e-9)
        if load is None or most <= spare:
            return None
        cp = self.model.cp
        taken = cp.new_int_var(0, most - spare, "")
        if exact:
            cp.add_max_equality(taken, [load - spare, 0])
        else:
            cp.add(taken >= load - spare)
        return taken

    def _peak(self) -> list[Term]:
        """Above every load; what the past alone reaches is a constant and enters as a lower bound."""
        model, cp = self.model, self.model.cp
        known = model.fixed["peak"]
        base = floor(known / KW_UNIT + 1e-9)
        most = base + sum(one for _, one in self._load_of(model.shop.electricity)) if model.shop.electricity >= 0 else 0
        peak = cp.new_int_var(0, max(0, most), "")
        if model.shop.electricity >= 0:
            model.look()
            for t, (load, _) in enumerate(self._load_of(model.shop.electricity)):
                if load is None:
                    continue
                worst = max(piece.outside for piece in self.pieces[model.shop.electricity][t])
                cp.add(peak + base >= load + floor(worst / KW_UNIT + 1e-9))
        return [(KW_UNIT, peak)]

    def _load_of(self, k: int) -> list[tuple[Any, int]]:
        """Per step the load of a carrier in KW_UNIT and the most it can be; None: nothing draws."""
        if k in self._loads:
            return self._loads[k]
        cp, count = self.model.cp, len(self.pieces[k])
        on: dict[int, list[tuple[Any, int]]] = defaultdict(list)
        least: npt.NDArray[np.int64] = np.zeros(count + 1, np.int64)
        for carrier, kw, start, end, variable in self.draws:
            if carrier == k:
                units = floor(kw / KW_UNIT + 1e-9)
                a, b = start - self.low, min(end - self.low, count)
                on[a].append((variable, units))
                on[b].append((variable, -units))
                least[a:b] += units
        made: list[tuple[Any, int]] = []
        before: Any = None
        for t in range(count):
            if on.get(t):
                top = int(least[t])
                change = LinearExpr.weighted_sum([one for one, _ in on[t]], [units for _, units in on[t]])
                load = cp.new_int_var(0, top, "")
                cp.add(load == change + (0 if before is None else before))
                before = load if top else None
            made.append((before, int(least[t])))
        self._loads[k] = made
        return made


def _price(measure: Measure, piece: _Piece) -> float:
    if measure == "energy":
        return 1.0
    return piece.tariff if measure == "cost" else piece.carbon


def _reader(curve: Curve | None) -> Any:
    return (lambda at: 0.0) if curve is None else curve.at


def _load(past: list[tuple[float, int, int]]) -> Any:
    return lambda at: sum(kw for kw, a, b in past if a <= at < b)
