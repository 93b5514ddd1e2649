"""Rules for the remanufacturing cell: as a person writes them, as a search finds them; and days to judge by.

    best = max(by_hand(spec), key=lambda one: one.money)    # the best rule written by hand, by days of training
    found = searched(spec, rng)                     # the best rule a search found, and the days it took
    days = played(spec, found.rule, episodes)       # money and kg of every day, (E, D)

A rule is a list of thresholds, each of which can be said in a sentence: service at this wear, reroute at this load,
hold back when more of the allowance is used than of the day, or when a kWh emits more than this (more is borne the
fuller the store) or than is forecast; this product before that one.

*The best hand-written rule* is the best of `IDEAS`, of each idea in its best form, by days of training. An idea is what
an engineer of the plant would think of and can be told in a sentence. It has one threshold of its own, which is set so
that the limit of carbon is just kept on days of training; what else it needs is read from the data sheet or tried in a
coarse table: service at a wear of 0.2, 0.3, 0.4 or 0.5, and A, B or the fuller store first.

*The rule found by search* is none of these: 16 thresholds moved by the cross-entropy method (Rubinstein, 1999) over
hundreds of thousands of simulated days is policy search, a way of learning of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from _cell_fast import EPISODE, F64, Drawn, by_rule, decide, drawn, some

from firmware_sim.cell import DAY, Cell, CellSpec

Decide: TypeAlias = Callable[[tuple[float, ...]], int]
"""Values of the state, in units of METRICS → index of the action."""

PENALTY = 40.0
"""Money a kg above the limit counts in the search; several times what a kg can earn."""
TRAINING = 60
"""Episodes of training that rules written by hand are set on."""


@dataclass(frozen=True)
class Rule:
    """Thresholds, in the order in which they are looked at."""

    service: float = 0.5
    """service at this wear"""
    load: float = 45.0
    """reroute at this many kg"""
    full: float = 20.0
    """with so many products in store work whatever it costs"""
    over: float = 0.3
    """hold back when the share of the allowance used is above the share of the day by this"""
    margin: float = 0.1
    """hold back when carbon is above its 4 h forecast by this, kg/kWh"""
    least: float = 1.0
    """begin with so many products"""
    most: float = 18.0
    """no A with so many components in stock"""
    humid: float = 0.7
    """no A in damper air"""
    dear_a: float = 0.4
    """no A at more carbon than this, kg/kWh,"""
    lift_a: float = 0.01
    """plus this per product in store,"""
    drop_a: float = 0.0
    """less this per component in stock"""
    dear_b: float = 0.4
    lift_b: float = 0.01
    prefer: float = 1.0
    """A first where its store, times this, is not below B's"""
    service_idle: float = 0.3
    """service at this wear where the robot would wait"""
    load_idle: float = 30.0
    """reroute at this many kg where it would wait"""

    def __call__(self, values: tuple[float, ...]) -> int:
        a, b, components, materials, _, wear, humidity, carbon, _, in_4h, used, day = values
        return decide(astuple(self), a, b, components, materials, wear, humidity, carbon, in_4h, used, day)


LEAST = Rule(0.15, 25, 14, -0.1, -0.1, 1, 4, 0.4, 0.05, -0.01, -0.01, 0.05, -0.01, 0.2, 0.05, 15)
MOST = Rule(0.8, 58, 25, 1.0, 0.3, 3, 20, 1.2, 0.7, 0.03, 0.03, 0.8, 0.03, 5, 0.6, 50)
"""Where `searched` looks."""


class Tuned(NamedTuple):
    """What was found, and how it did on the last training days."""

    name: str
    rule: Rule
    money: float
    """per day"""
    kg: float
    days: int
    """simulated in all"""


class Days(NamedTuple):
    """What came of each day, (episodes, days)."""

    money: F64
    kg: F64


def played(spec: CellSpec, decide: Decide, episodes: Sequence[tuple[int, ...]], days: int = EPISODE) -> Days:
    """One episode per seed, each in a new cell; chance is the same whatever is decided."""
    money, kg = np.zeros((2, len(episodes), days))
    for e, seed in enumerate(episodes):
        cell = Cell(spec, np.random.default_rng(seed), days=days)
        for d in range(days):
            for _ in range(DAY):
                earned, emitted = cell.step(decide(cell.values()))
                money[e, d] += earned
                kg[e, d] += emitted
    return Days(money, kg)


def within_limit(spec: CellSpec, money: float, kg: float) -> float:
    """What is to be as large as possible: money a day, less a penalty for what is above the limit on average."""
    return money - PENALTY * max(0.0, kg - spec.limit_kg)


class Idea(NamedTuple):
    """One way to spend an allowance: a threshold of its own, the more of it the more is emitted, and a coarse table."""

    name: str
    low: float
    high: float
    rule: Callable[[CellSpec, float, dict[str, float]], Rule]


FREE = Rule(
    full=99.0, over=9.0, margin=9.0, most=20.0, humid=2.0, dear_a=9.0, lift_a=0.0, drop_a=0.0, dear_b=9.0, lift_b=0.0,
    service_idle=2.0, load_idle=99.0,
)  # fmt: skip
"""Works whenever there is something to work on; reroutes at three quarters of what the box holds."""
TABLE = [{"service": service, "prefer": prefer} for service in (0.2, 0.3, 0.4, 0.5) for prefer in (0.01, 1.0, 100.0)]


def _worth_it(spec: CellSpec, share: float) -> dict[str, float]:
    """Highest carbon at which a product earns so much a kg, all from the data sheet; kg per money = `share`."""
    return {
        "dear_a": share * spec.price_a * spec.yield_a / spec.energy_a_kwh,
        "dear_b": share * spec.price_kg * spec.kg_b * spec.yield_b / spec.energy_b_kwh,
    }


IDEAS = (
    Idea("evenly over the day", -1.0, 1.0, lambda _, x, more: replace(FREE, over=x, **more)),
    Idea("when cleaner than forecast", -0.4, 0.4, lambda _, x, more: replace(FREE, margin=x, **more)),
    Idea("in clean hours", 0.0, 0.8, lambda _, x, more: replace(FREE, dear_a=x, dear_b=x, **more)),
    Idea(
        "evenly, in clean hours, not before cleaner ones, not in damp air",
        -0.4, 0.4, lambda _, x, more: replace(Rule(full=25.0), dear_a=0.4 + x, dear_b=0.4 + x, **more),
    ),
    Idea("what earns enough a kg", 0.0, 1.0, lambda spec, x, more: replace(FREE, **_worth_it(spec, x), **more)),
    Idea(
        "what earns enough a kg, with full loads and room in stock",
        0.0, 1.0, lambda spec, x, more: replace(FREE, load=54.0, most=18.0, **_worth_it(spec, x), **more),
    ),
)  # fmt: skip
"""The fuller of the ideas are combinations. A full load is 54 of 60 kg: what a step adds still fits."""


def by_hand(spec: CellSpec, *, episodes: int = TRAINING) -> Iterator[Tuned]:
    """First one as it was written down before anything was tried; then each idea in its best form."""
    days, looks = drawn(spec, [(1, k) for k in range(episodes)]), 12
    for idea in (IDEAS[3]._replace(name="as first written"), *IDEAS):
        results = []
        table = [{}] if idea.name == "as first written" else TABLE
        for more in table:
            low, high = idea.low, idea.high
            for _ in range(looks):
                middle = (low + high) / 2
                _, kg = by_rule(spec, vector(idea.rule(spec, middle, more)), days)
                low, high = (low, middle) if kg.mean() > spec.limit_kg else (middle, high)
            rule = idea.rule(spec, low, more)
            money, kg = by_rule(spec, vector(rule), days)
            results.append((float(money.mean()), float(kg.mean()), rule))
        money, kg, rule = max(results, key=lambda one: within_limit(spec, one[0], one[1]))
        yield Tuned(idea.name, rule, money, kg, len(table) * (looks + 1) * episodes * EPISODE)


def searched(spec: CellSpec, rng: np.random.Generator, *, effort: float = 1.0) -> Tuned:
    """The best rule found; `effort` 1 simulates about 1.6 million days, in some 20 s."""
    low, high = vector(LEAST), vector(MOST)
    pool = drawn(spec, [(1, 1, k) for k in range(max(10, round(1_000 * effort)))])
    used = 0

    def best(found: list[F64], episodes: int, count: int) -> list[F64]:
        nonlocal used
        days = _any(pool, rng, episodes)
        used += len(found) * episodes * EPISODE
        worths = [within_limit(spec, *_means(by_rule(spec, one, days))) for one in found]
        return [found[k] for k in np.argsort(worths)[::-1][:count]]

    kept = best(list(rng.uniform(low, high, (round(4_000 * effort), len(low)))), 4, 40)
    middle, spread = np.mean(kept, axis=0), np.std(kept, axis=0)
    for generation in range(40):
        near = np.clip(rng.normal(middle, spread, (round(200 * effort), len(low))), low, high)
        kept = best([*kept[:5], *near], 8 if generation < 20 else 30, 25)
        middle = 0.3 * middle + 0.7 * np.mean(kept, axis=0)
        spread = 0.3 * spread + 0.7 * np.std(kept, axis=0) + 0.005 * (1 - generation / 40) * (high - low)
    last = _any(pool, rng, max(10, round(300 * effort)))
    results = []
    for one in [middle, *kept[:10]]:
        money, kg = _means(by_rule(spec, one, last))
        results.append((within_limit(spec, money, kg), money, kg, one))
    used += len(results) * len(last.asked) * EPISODE
    _, money, kg, one = max(results, key=lambda found: found[0])
    return Tuned("found by search", Rule(*(float(x) for x in one)), money, kg, used)


def vector(rule: Rule) -> F64:
    """(16,)"""
    return np.array(astuple(rule), np.float64)


def _any(pool: Drawn, rng: np.random.Generator, episodes: int) -> Drawn:
    return some(pool, rng.integers(len(pool.asked), size=episodes))


def _means(days: tuple[F64, F64]) -> tuple[float, float]:
    return float(days[0].mean()), float(days[1].mean())
