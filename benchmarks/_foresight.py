"""What no policy can surpass: the remanufacturing cell with all chance known beforehand, as a linear programme.

    found = bound(spec, chance, days, price=6.1)       # found.worth ≥ money - price · kg of any course of decisions
    found.worth + price * budget                       # ≥ money of any course that emits `budget` kg at most

Every course of decisions of `Cell` is a point of the programme, with money and carbon no worse; so its optimum is a
bound:

- fractions of a step, of a piece, of a load may be decided; a share of a load costs that share of the fare;
- products may be turned away, components and materials thrown away, sales left out at will: the cell does it when it
  must;
- the robot never fails. Where it does, the cell pays for a repair, is still for `repair_steps` and has no wear; here it
  works on, and may be serviced in the first of those steps for no more;
- *wear* is known by zones only. A step's pieces count for the zones their wear falls in, in shares; in a zone their
  yield and energy are those at its lower end less the wear of one step, which is no more than what they truly had.
  From one service to the next no zone can take more wear than it is wide (the last one: any);
- the goods among n pieces, by luck and yield, may be mixed over n.

A bound of several episodes under one budget: their `worth` at one price, added (Lagrange; any price ≥ 0 is valid).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from ortools.linear_solver import pywraplp

from firmware_sim.cell import COMPONENTS_MOST, DAY, MATERIALS_MOST, PRODUCTS_MOST, CellSpec, Chance

ZONES = (0.0, 0.06, 0.12, 0.2, 0.3, 0.42, 0.6)
"""Where zones of wear begin."""


class Bound(NamedTuple):
    """What is attained at most by somebody who knows all chance."""

    worth: float
    """money - price · kg, all days"""
    kg: float
    """carbon of that solution"""


class _Mode(NamedTuple):
    """Work of one step in one zone of wear."""

    column: int
    a: bool
    zone: int
    pieces: int
    good: int


@dataclass
class _Programme:
    """Columns and rows of a sparse linear programme as they come."""

    money: list[float] = field(default_factory=list)
    kg: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    rows: list[list[tuple[int, float]]] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)

    def column(self, money: float = 0.0, *, kg: float = 0.0, most: float = math.inf) -> int:
        self.money.append(money)
        self.kg.append(kg)
        self.most.append(most)
        return len(self.money) - 1

    def row(self, entries: list[tuple[int, float]], right: float, *, equal: bool = False) -> None:
        """Σ entries ≤ right, or = right."""
        self.rows.append(entries)
        self.right.append(right)
        self.equal.append(equal)

    def solved(self, price: float) -> tuple[float, float]:
        """(the largest money - price · kg, its kg)"""
        solver = pywraplp.Solver.CreateSolver("GLOP")
        columns = [solver.NumVar(0.0, most, "") for most in self.most]
        for entries, right, equal in zip(self.rows, self.right, self.equal, strict=True):
            row = solver.Constraint(right if equal else -math.inf, right)
            for column, factor in entries:
                row.SetCoefficient(columns[column], row.GetCoefficient(columns[column]) + factor)
        for column, money, kg in zip(columns, self.money, self.kg, strict=True):
            solver.Objective().SetCoefficient(column, money - price * kg)
        solver.Objective().SetMaximization()
        if solver.Solve() != pywraplp.Solver.OPTIMAL:
            raise RuntimeError("the bound was not found")
        return solver.Objective().Value(), sum(
            kg * one.solution_value() for kg, one in zip(self.kg, columns, strict=True)
        )


def bound(spec: CellSpec, chance: Chance, steps: int, *, price: float = 0.0) -> Bound:
    """Of a cell that begins empty and new."""
    if spec.kg_b < 1 or spec.repair_cost < spec.service_cost:
        raise ValueError("goods are no advantage, or failing is: what is proved above does not hold for this cell")
    programme, idle = _Programme(), 0.0
    stock: list[int] = []  # columns of a, b, components, materials after the last step
    left: list[int] = []  # wear each zone but the last still takes until the next service
    widths = [high - low for low, high in pairwise(ZONES)]
    for t in range(steps):
        idle += spec.idle_kwh * chance.carbon[t]
        modes = _modes(programme, spec, chance, t)
        service = programme.column(-spec.service_cost)
        fare = programme.column(-spec.transport_cost, kg=spec.transport_kg)
        programme.row([*((one.column, 1.0) for one in modes), (service, 1.0), (fare, 1.0)], 1.0)
        stock = _flows(programme, spec, chance, t, modes, fare, stock)
        left = _wears(programme, spec, modes, service, widths, left)
    worth, kg = programme.solved(price)
    return Bound(worth - price * idle, kg + idle)


def joint(spec: CellSpec, chances: list[Chance], days: int, *, looks: int = 6) -> tuple[float, float]:
    """Money of all episodes under one budget of `limit_kg` a day, at most; and the price it was found at.

    The price is looked for on the first episode; what is returned is a bound whatever the price.
    """
    budget, low, high = spec.limit_kg * days, 0.0, 40.0
    for _ in range(looks):
        price = (low + high) / 2
        if bound(spec, chances[0], days * DAY, price=price).kg > budget:
            low = price
        else:
            high = price
    price = (low + high) / 2
    worth = sum(bound(spec, one, days * DAY, price=price).worth for one in chances)
    return worth + price * budget * len(chances), price


def _modes(programme: _Programme, spec: CellSpec, chance: Chance, t: int) -> list[_Mode]:
    """What can be worked on in step t. A number of pieces that gives no more per piece than the largest is left out."""
    whole = int(spec.pieces)
    most = whole + (chance.extra[t] < spec.pieces - whole)
    one_step = (whole + (spec.pieces > whole)) * max(spec.wear_a, spec.wear_b)
    harm = max(0.0, chance.humidity[t] - 0.5)
    found = []
    for a in (True, False):
        fresh = spec.yield_a - spec.humid_harm_a * harm if a else spec.yield_b - spec.humid_harm_b * harm
        for zone, begins in enumerate(ZONES):
            wear = max(0.0, begins - one_step)
            chance_good = fresh - spec.wear_harm * wear
            goods = [sum(luck < chance_good for luck in chance.luck[t][:n]) for n in range(most + 1)]
            kwh = (spec.energy_a_kwh if a else spec.energy_b_kwh) * (1 + 0.5 * wear)
            for n in range(1, most + 1):
                if n == most or goods[n] * most > goods[most] * n:
                    column = programme.column(kg=n * kwh * chance.carbon[t])
                    found.append(_Mode(column, a, zone, n, goods[n]))
    return found


def _flows(
    programme: _Programme, spec: CellSpec, chance: Chance, t: int, modes: list[_Mode], fare: int, stock: list[int]
) -> list[int]:
    """Products, components and materials from step to step."""
    column, row = programme.column, programme.row
    before = [[(one, -1.0)] for one in stock] if stock else [[], [], [], []]
    after = [column(most=float(most)) for most in (PRODUCTS_MOST, PRODUCTS_MOST, COMPONENTS_MOST, MATERIALS_MOST)]
    for k, arrived in enumerate((chance.arrive_a[t], chance.arrive_b[t])):
        taken = [(one.column, float(one.pieces)) for one in modes if one.a == (k == 0)]
        away = column(-spec.turned_away_cost, most=float(arrived))
        row([*taken, *before[k]], 0.0)  # what came in this step is worked on in the next
        row([(after[k], 1.0), *before[k], *taken, (away, 1.0)], float(arrived), equal=True)
    kept, load, spilt = column(), column(spec.price_kg), column()
    sold = column(spec.price_a, most=float(chance.asked[t]))
    row([(kept, 1.0), *((one.column, -float(one.good)) for one in modes if one.a)], 0.0)
    row([(kept, 1.0), *((j, 1.0) for j, _ in before[2])], float(COMPONENTS_MOST))
    row([(after[2], 1.0), *before[2], (kept, -1.0), (sold, 1.0)], 0.0, equal=True)
    gives = [(one.column, -(one.pieces + (0.0 if one.a else one.good * (spec.kg_b - 1)))) for one in modes]
    row([(after[3], 1.0), *before[3], *gives, (kept, 1.0), (load, 1.0), (spilt, 1.0)], 0.0, equal=True)
    row([(load, 1.0), *before[3]], 0.0)
    row([(load, 1.0), (fare, -float(MATERIALS_MOST))], 0.0)
    return after


def _wears(
    programme: _Programme, spec: CellSpec, modes: list[_Mode], service: int, widths: list[float], left: list[int]
) -> list[int]:
    """What each zone still takes: less by what is worked in it, whole again after a service."""
    after = [programme.column(most=width) for width in widths]
    for zone, width in enumerate(widths):
        worn = [(one.column, one.pieces * (spec.wear_a if one.a else spec.wear_b)) for one in modes if one.zone == zone]
        earlier = [(left[zone], -1.0)] if left else []
        programme.row([(after[zone], 1.0), *earlier, (service, -width), *worn], 0.0 if left else width)
    return after
