"""What a kW costs by carrier and tick: the weighted sum of energy, carbon, cost and ledger as one number.

    rates = rates_of(shop, {"carbon": 1.0}, latest=96)
    rates.linear[k, t - rates.low] * kw        # of one tick, where every kW counts alike

Dimensions: K carriers, T ticks from `low` (preheating and set-ups of a fresh plan may begin before 0) to `latest`.
Where a carrier has generation, carbon and cost count what is drawn beyond it only, so a kW is not worth the same in
all cases: `net` says so, and then a tick costs linear · load + buy · max(0, load − room) − sell · max(0, room − load).
Peak is no sum over ticks and has no rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cloud.scheduling.shop import BASE_LOAD, CARBON, FAR, GENERATION, TARIFF, Bools, Floats, Ints, Shop
from messages.plan import Measure

RATED: tuple[Measure, ...] = ("energy", "carbon", "cost", "ledger")
"""Measures that are a sum over ticks."""


class Rates(NamedTuple):
    """Never written to."""

    low: int  # tick of the first column
    high: int  # tick after the last column, so that `latest` has one
    linear: Floats  # (K, T) of a kW
    before: Floats  # (K, T + 1) sum of `linear` before a tick
    net: Bools  # (K,) whether the next three count
    room: Floats  # (K, T) kW generated and not needed by the base load
    buy: Floats  # (K, T) of a kW beyond the room
    sell: Floats  # (K, T) of a kW of room that is left
    work: float  # weight of a tick of makespan
    late: float  # weight of a tick of tardiness


def rates_of(shop: Shop, weights: Mapping[Measure, float], *, latest: int) -> Rates:
    """Rates of the weighted sum of measures, for ticks until `latest`."""
    low = earliest_draw(shop)
    carriers = shop.curve_first.shape[1]
    ticks = np.arange(low, latest + 1, dtype=np.int64)
    shape = (carriers, len(ticks))
    linear, room = np.zeros(shape), np.zeros(shape)
    buy, sell = np.zeros(shape), np.zeros(shape)
    net = np.zeros(carriers, np.bool_)
    hours = 1.0 / shop.hour_ticks
    greens = weights.get("carbon", 0.0) + weights.get("ledger", 0.0)
    for k in range(carriers):
        price = (
            greens * curve_values(shop, CARBON, k, ticks)
            + weights.get("cost", 0.0) * curve_values(shop, TARIFF, k, ticks)
        ) * hours
        linear[k] = weights.get("energy", 0.0) * hours
        if shop.curve_count[GENERATION, k]:
            inside = (ticks >= 0) & (ticks < shop.horizon)
            room[k] = curve_values(shop, GENERATION, k, ticks) - curve_values(shop, BASE_LOAD, k, ticks) * inside
            net[k], buy[k] = True, price
            sell[k] = weights.get("ledger", 0.0) * shop.export_kg_per_kwh * hours
        else:
            linear[k] += price
    before = np.concatenate([np.zeros((carriers, 1)), np.cumsum(linear, axis=1)], axis=1)
    return Rates(
        low,
        latest + 1,
        linear,
        before,
        net,
        room,
        buy,
        sell,
        weights.get("makespan", 0.0),
        weights.get("tardiness", 0.0),
    )


def earliest_draw(shop: Shop) -> int:
    """Nothing that is still to be decided draws power before this tick."""
    if shop.floor > 0:
        return shop.floor
    heat = int(shop.preheat.max(initial=0))
    return -heat - int(shop.setup.max(initial=0))


def longest(shop: Shop) -> int:
    """Ticks that everything takes one after another, on the slowest machines, after the last fixed event."""
    fixed = [shop.floor, shop.past_makespan, int(shop.closed_end.max(initial=0)), int(shop.job_ready.max(initial=0))]
    fixed += [int(one) for one in (shop.stretch_ready, shop.stretch_start) for one in one[one < FAR]]
    work = sum(
        int(shop.alt_ticks[shop.alt_first[o] : shop.alt_first[o + 1]].max(initial=0)) for o in range(shop.operations)
    )
    rest = int(shop.wait_min.sum()) + shop.operations * (
        int(shop.setup.max(initial=0)) + int(shop.preheat.max(initial=0)) + int(shop.transport.max(initial=0))
    )
    return max(fixed) + work + rest


def curve_values(shop: Shop, kind: int, k: int, ticks: Ints) -> Floats:
    """(T,) a curve at these ticks; without one 0."""
    count = int(shop.curve_count[kind, k])
    if not count:
        return np.zeros(len(ticks))
    place = (ticks - shop.curve_start[kind, k]) // shop.curve_step[kind, k]
    place = place % count if shop.curve_periodic[kind, k] else np.clip(place, 0, count - 1)
    values: Floats = shop.curve_value[shop.curve_first[kind, k] + place]
    return values
