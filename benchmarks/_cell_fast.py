"""The remanufacturing cell in machine code, for searches that need millions of days: the same numbers, to the bit.

    days = drawn(spec, [(1, k) for k in range(60)])      # chance of so many episodes, as `Cell` would draw it
    money, kg = by_rule(spec, thresholds, days)          # (E, D), as `played` finds with the rule of these thresholds

`step` is `firmware_sim.cell.Cell.step` once more; a test runs both side by side, over cells of every kind. `decide` is
the one text of the rule: `_cell_rules.Rule` calls it uncompiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from firmware_sim.cell import COMPONENTS_MOST, DAY, MATERIALS_MOST, PRODUCTS_MOST, REROUTE, SERVICE, WAIT, A, B, Cell
from firmware_sim.cell import CellSpec as CellSpec

F64: TypeAlias = NDArray[np.float64]

EPISODE = 10
"""Days from an empty cell, so that episodes owe each other nothing."""


class Constants(NamedTuple):
    """What `step` reads of a `CellSpec`."""

    pieces: float
    yield_a: float
    yield_b: float
    humid_harm_a: float
    humid_harm_b: float
    wear_harm: float
    wear_a: float
    wear_b: float
    energy_a_kwh: float
    energy_b_kwh: float
    idle_kwh: float
    price_a: float
    price_kg: float
    kg_b: float
    service_cost: float
    repair_cost: float
    repair_steps: float
    transport_cost: float
    transport_kg: float
    turned_away_cost: float
    limit_kg: float


class Drawn(NamedTuple):
    """Chance of E episodes of T steps, (E, T); luck is (E, T, pieces)."""

    arrive_a: NDArray[np.int64]
    arrive_b: NDArray[np.int64]
    asked: NDArray[np.int64]
    humidity: F64
    carbon: F64
    in_1h: F64
    in_4h: F64
    luck: F64
    hold: F64
    extra: F64


class State(NamedTuple):
    """Of the cell, between steps."""

    a: int
    b: int
    components: int
    materials: float
    repair: int
    wear: float


EMPTY = State(0, 0, 0, 0.0, 0, 0.0)


def constants(spec: CellSpec) -> Constants:
    """As plain numbers."""
    return Constants(*(float(getattr(spec, name)) for name in Constants._fields))


def drawn(spec: CellSpec, seeds: Sequence[tuple[int, ...]], days: int = EPISODE) -> Drawn:
    """One episode per seed, the same chance as a new `Cell` of this seed has."""
    chances = [Cell(spec, np.random.default_rng(seed), days=days).chance for seed in seeds]
    return Drawn(
        *(np.stack([np.asarray(getattr(one, name))[: days * DAY] for one in chances]) for name in Drawn._fields)
    )


def some(days: Drawn, which: Any) -> Drawn:
    """These episodes of them."""
    return Drawn(*(part[which] for part in days))


def by_rule(spec: CellSpec, thresholds: F64, days: Drawn) -> tuple[F64, F64]:
    """Money and kg of every day, (E, D)."""
    return _by_rule(constants(spec), thresholds, days)


def decide(
    rule: Any, a: float, b: float, components: float, materials: float, wear: float,
    humidity: float, carbon: float, in_4h: float, used: float, day: float,
) -> int:  # fmt: skip
    """By the thresholds of `_cell_rules.Rule`, in its order."""
    (service, load, full, over, margin, least, most, humid) = rule[:8]
    (dear_a, lift_a, drop_a, dear_b, lift_b, prefer, service_idle, load_idle) = rule[8:]
    if wear > service:
        return SERVICE
    if materials > load:
        return REROUTE
    free = used <= day + over and carbon <= in_4h + margin
    do_a = a >= least and components < most
    do_a = do_a and (a >= full or (free and humidity < humid and carbon < dear_a + lift_a * a - drop_a * components))
    do_b = b >= least and (b >= full or (free and carbon < dear_b + lift_b * b))
    if do_a and (not do_b or a * prefer >= b):
        return A
    if do_b:
        return B
    if wear > service_idle:
        return SERVICE
    return REROUTE if materials > load_idle else WAIT


_decide = njit(decide, cache=True)


@njit(cache=True)
def step(p: Constants, s: State, action: int, days: Drawn, e: int, t: int) -> tuple[State, float, float]:
    """(the state after it, money, kg of carbon)"""
    a, b, components, materials, repair, wear = s
    money, energy, carbon = 0.0, p.idle_kwh, 0.0
    if repair:
        repair -= 1
    elif action in (A, B):
        whole = int(p.pieces)
        pieces = whole + (1 if days.extra[e, t] < p.pieces - whole else 0)
        pieces = min(pieces, a if action == A else b)
        harm = max(0.0, days.humidity[e, t] - 0.5)
        if action == A:
            chance = p.yield_a - p.humid_harm_a * harm - p.wear_harm * wear
            a -= pieces
        else:
            chance = p.yield_b - p.humid_harm_b * harm - p.wear_harm * wear
            b -= pieces
        good = 0
        for k in range(pieces):
            good += 1 if days.luck[e, t, k] < chance else 0
        if action == A:
            kept = min(good, COMPONENTS_MOST - components)
            components += kept
            kg = float(pieces - kept)
        else:
            kg = good * p.kg_b + (pieces - good)
        materials = min(float(MATERIALS_MOST), materials + kg)
        energy = pieces * (p.energy_a_kwh if action == A else p.energy_b_kwh) * (1 + 0.5 * wear) + p.idle_kwh
        wear = min(1.0, wear + pieces * (p.wear_a if action == A else p.wear_b))
        if pieces and days.hold[e, t] < 0.002 + 0.08 * wear**2:
            repair, wear, money = int(p.repair_steps), 0.0, -p.repair_cost
    elif action == REROUTE:
        money = materials * p.price_kg - p.transport_cost
        carbon = p.transport_kg
        materials = 0.0
    elif action == SERVICE:
        money, wear = -p.service_cost, 0.0
    carbon += energy * days.carbon[e, t]
    sold = min(components, days.asked[e, t])
    components -= sold
    money += sold * p.price_a
    more_a, more_b = a + days.arrive_a[e, t], b + days.arrive_b[e, t]
    a, b = min(more_a, PRODUCTS_MOST), min(more_b, PRODUCTS_MOST)
    money -= (more_a - a + more_b - b) * p.turned_away_cost
    return State(a, b, components, materials, repair, wear), money, carbon


@njit(cache=True)
def _by_rule(p: Constants, rule: F64, days: Drawn) -> tuple[F64, F64]:
    episodes, steps = days.asked.shape
    money, kg = np.zeros((episodes, steps // DAY)), np.zeros((episodes, steps // DAY))
    thresholds = (rule[0], rule[1], rule[2], rule[3], rule[4], rule[5], rule[6], rule[7], rule[8], rule[9],
                  rule[10], rule[11], rule[12], rule[13], rule[14], rule[15])  # fmt: skip
    for e in range(episodes):
        s, emitted = EMPTY, 0.0
        for t in range(steps):
            if t % DAY == 0:
                emitted = 0.0
            used, day = min(2.0, emitted / p.limit_kg), (t % DAY) / DAY
            now = days.humidity[e, t], days.carbon[e, t], days.in_4h[e, t]
            action = _decide(thresholds, s.a, s.b, s.components, s.materials, s.wear, now[0], now[1], now[2], used, day)
            s, earned, emits = step(p, s, action, days, e, t)
            emitted += emits
            money[e, t // DAY] += earned
            kg[e, t // DAY] += emits
    return money, kg
