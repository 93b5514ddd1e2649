"""A disassembly cell that does not exist: one robot, two kinds of used products, a grid that is now clean and now not.

    spec = cell_of(3, heterogeneity=1.0)               # cells differ: humid, dry, worn, slow
    cell = Cell(spec, rng)                             # all chance of the day is drawn beforehand, whatever is decided
    state = cell.state                                 # (12,) float32, as `messages.cells.METRICS` names them
    reward, carbon_kg = cell.step(ACTIONS.index("disassemble_a"))

A step is 15 min, a day 96 of them. Products of kind A (alternators) give a component that is sold from stock when it is
asked for; products of kind B (starters) give material that is paid for when a load of it is rerouted to the smelter. A
robot that works wears; wear and humid air spoil the recovery, worn robots fail, a service makes them as new.
*Reward* is money: what was sold less transport, service, repair and products that had to be turned away.
*Carbon* is what energy and transport emit, kg. It is a constraint (`limit_kg` a day), no part of the reward: nothing
that can be done lowers the account, so it cannot be farmed. Every figure is invented and only plausible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

STEP_S = 900
DAY = 96
"""Steps of a day."""
A, B, REROUTE, WAIT, SERVICE = range(5)
PRODUCTS_MOST, COMPONENTS_MOST, MATERIALS_MOST = 24, 20, 60
PIECES_MOST = 6
"""Pieces of one step, at most."""
FORECAST_1H, FORECAST_4H = 4, 16


@dataclass(frozen=True)
class CellSpec:
    """What one cell is like. Only `humid` and the grid can be seen; the rest an agent finds out."""

    number: int = 0
    arrive_a: float = 0.85
    """products per step, mean over the day"""
    arrive_b: float = 0.85
    demand: float = 0.8
    """components asked for per step"""
    pieces: float = 2.0
    """worked on per step"""
    yield_a: float = 0.92
    yield_b: float = 0.95
    humid: float = 0.45
    """mean relative humidity"""
    humid_harm_a: float = 0.9
    """loss of yield per humidity above one half"""
    humid_harm_b: float = 0.2
    wear_harm: float = 0.35
    """loss of yield at full wear"""
    wear_a: float = 0.012
    """per piece"""
    wear_b: float = 0.006
    energy_a_kwh: float = 9.0
    energy_b_kwh: float = 3.0
    idle_kwh: float = 0.4
    price_a: float = 30.0
    """of a component"""
    price_kg: float = 4.0
    """of material"""
    kg_b: float = 3.0
    """material of a good B; everything else gives 1 kg"""
    service_cost: float = 40.0
    repair_cost: float = 60.0
    repair_steps: int = 8
    transport_cost: float = 15.0
    transport_kg: float = 4.0
    """carbon of one load"""
    turned_away_cost: float = 4.0
    limit_kg: float = 230.0
    """carbon allowed a day"""


_VARY = {
    "arrive_a": 0.25, "arrive_b": 0.25, "demand": 0.2, "pieces": 0.25,
    "humid": 0.4, "humid_harm_a": 0.5, "humid_harm_b": 0.5, "wear_harm": 0.4, "wear_a": 0.5, "wear_b": 0.5,
    "energy_a_kwh": 0.25, "energy_b_kwh": 0.25, "price_a": 0.25, "kg_b": 0.25,
}  # fmt: skip
"""Standard deviation of each parameter's logarithm at heterogeneity 1."""


def cell_of(number: int, heterogeneity: float) -> CellSpec:
    """Cell `number` of a fleet: its parameters times exp(heterogeneity · σ · z), z standard normal by its number."""
    rng = np.random.default_rng((number, 20_817))
    base = CellSpec(number=number)
    found = {
        name: getattr(base, name) * math.exp(heterogeneity * sigma * rng.standard_normal())
        for name, sigma in _VARY.items()
    }
    found["humid"] = min(0.9, found["humid"])
    found["pieces"] = min(float(PIECES_MOST - 1), max(1.0, found["pieces"]))
    return replace(base, **found)


@dataclass(frozen=True)
class Chance:
    """Everything of `steps` steps that nobody decides. The same whatever is done: policies are compared pairwise."""

    arrive_a: list[int]
    arrive_b: list[int]
    asked: list[int]
    humidity: list[float]
    carbon: list[float]
    """kg/kWh; longer than `steps` by what a forecast looks ahead"""
    in_1h: list[float]
    in_4h: list[float]
    luck: list[list[float]]
    """uniform, per step and piece: good if below the yield"""
    hold: list[float]
    """uniform, per step: the robot fails if below its chance"""
    extra: list[float]
    """uniform, per step: a piece more if below the fraction of `pieces`"""

    @classmethod
    def drawn(cls, spec: CellSpec, steps: int, rng: np.random.Generator) -> Chance:
        """Of one cell, from the first step of a day."""
        ahead = steps + FORECAST_4H
        share = (np.arange(ahead) % DAY) / DAY
        shift = 1 + 0.8 * np.sin(2 * np.pi * (share - 0.25))  # products come by day
        grid = 0.38 - 0.16 * np.exp(-(((share - 0.54) / 0.09) ** 2)) + 0.1 * np.exp(-(((share - 0.8) / 0.07) ** 2))
        wind = _drift(ahead, 0.97, 0.03, rng)
        carbon = np.clip(grid + wind, 0.05, 0.8)
        damp = np.clip(
            spec.humid + 0.12 * np.cos(2 * np.pi * (share - 0.2)) + _drift(ahead, 0.95, 0.03, rng), 0.05, 1.0
        )
        noise = rng.standard_normal((2, steps)) * 0.02
        mean_1h = _means(carbon, FORECAST_1H)[:steps] + noise[0]
        mean_4h = _means(carbon, FORECAST_4H)[:steps] + noise[1]
        return cls(
            arrive_a=rng.poisson(spec.arrive_a * shift[:steps]).tolist(),
            arrive_b=rng.poisson(spec.arrive_b * shift[:steps]).tolist(),
            asked=rng.poisson(spec.demand, steps).tolist(),
            humidity=damp[:steps].tolist(),
            carbon=carbon.tolist(),
            in_1h=np.clip(mean_1h, 0.0, 0.8).tolist(),
            in_4h=np.clip(mean_4h, 0.0, 0.8).tolist(),
            luck=rng.random((steps, PIECES_MOST)).tolist(),
            hold=rng.random(steps).tolist(),
            extra=rng.random(steps).tolist(),
        )


def _drift(steps: int, keep: float, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A first-order autoregressive course around 0."""
    found = rng.standard_normal(steps) * sigma
    for k in range(1, steps):
        found[k] += keep * found[k - 1]
    return found


def _means(values: NDArray[np.float64], ahead: int) -> NDArray[np.float64]:
    """Of the next `ahead` values, at each place that has so many."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((total[ahead:] - total[:-ahead]) / ahead)


@dataclass
class Cell:
    """One cell at work. `days` of chance are drawn at a time; then it goes on with new ones."""

    spec: CellSpec
    rng: np.random.Generator
    days: int = 1
    a: int = 0
    b: int = 0
    components: int = 0
    materials: float = 0.0
    repair: int = 0
    wear: float = 0.0
    emitted: float = 0.0
    """kg since the day began"""
    at: int = 0
    """step since the last draw"""
    sold: int = 0
    worked: int = 0
    """pieces, since the cell began"""
    chance: Chance = field(init=False)

    def __post_init__(self) -> None:
        self.chance = Chance.drawn(self.spec, self.days * DAY, self.rng)

    @property
    def state(self) -> NDArray[np.float32]:
        """(12,) in units of `METRICS`."""
        return np.array(self.values(), np.float32)

    def values(self) -> tuple[float, ...]:
        """The same as plain numbers."""
        now, at, spec = self.chance, self.at, self.spec
        return (
            self.a, self.b, self.components, self.materials, self.repair / spec.repair_steps, self.wear,
            now.humidity[at], now.carbon[at], now.in_1h[at], now.in_4h[at],
            min(2.0, self.emitted / spec.limit_kg), (at % DAY) / DAY,
        )  # fmt: skip

    def step(self, action: int) -> tuple[float, float]:
        """Decide for 15 min: (money, kg of carbon). A robot under repair does nothing, whatever is decided."""
        spec, now, at = self.spec, self.chance, self.at
        money, energy, carbon = 0.0, spec.idle_kwh, 0.0
        if self.repair:
            self.repair -= 1
        elif action in (A, B):
            money, energy = self._work(action, at)
        elif action == REROUTE:
            money = self.materials * spec.price_kg - spec.transport_cost
            carbon = spec.transport_kg
            self.materials = 0.0
        elif action == SERVICE:
            money, self.wear = -spec.service_cost, 0.0
        carbon += energy * now.carbon[at]
        sold = min(self.components, now.asked[at])
        self.components -= sold
        self.sold += sold
        money += sold * spec.price_a
        a, b = self.a + now.arrive_a[at], self.b + now.arrive_b[at]
        self.a, self.b = min(a, PRODUCTS_MOST), min(b, PRODUCTS_MOST)
        money -= (a - self.a + b - self.b) * spec.turned_away_cost
        self.emitted += carbon
        self._tick()
        return money, carbon

    def _work(self, action: int, at: int) -> tuple[float, float]:
        spec, now = self.spec, self.chance
        whole = int(spec.pieces)
        pieces = whole + (now.extra[at] < spec.pieces - whole)
        pieces = min(pieces, self.a if action == A else self.b)
        harm = max(0.0, now.humidity[at] - 0.5)
        if action == A:
            chance = spec.yield_a - spec.humid_harm_a * harm - spec.wear_harm * self.wear
            self.a -= pieces
        else:
            chance = spec.yield_b - spec.humid_harm_b * harm - spec.wear_harm * self.wear
            self.b -= pieces
        good = sum(1 for k in range(pieces) if now.luck[at][k] < chance)
        if action == A:
            kept = min(good, COMPONENTS_MOST - self.components)
            self.components += kept
            kg = float(pieces - kept)
        else:
            kg = good * spec.kg_b + (pieces - good)
        self.materials = min(float(MATERIALS_MOST), self.materials + kg)
        energy = pieces * (spec.energy_a_kwh if action == A else spec.energy_b_kwh) * (1 + 0.5 * self.wear)
        self.wear = min(1.0, self.wear + pieces * (spec.wear_a if action == A else spec.wear_b))
        self.worked += pieces
        money = 0.0
        if pieces and now.hold[at] < 0.002 + 0.08 * self.wear**2:
            self.repair, self.wear, money = spec.repair_steps, 0.0, -spec.repair_cost
        return money, energy + spec.idle_kwh

    def _tick(self) -> None:
        self.at += 1
        if self.at % DAY == 0:
            self.emitted = 0.0
        if self.at == self.days * DAY:
            self.chance, self.at = Chance.drawn(self.spec, self.days * DAY, self.rng), 0
