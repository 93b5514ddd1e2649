"""Curves in compiled kernels: their value and their integral between two ticks in constant time."""

from __future__ import annotations

from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import Shop


@compiled
def integral(shop: Shop, kind: int, carrier: int, start: int, end: int) -> float:
    """Of a curve from `start` to `end`, in values · ticks; 0 without a curve."""
    if end <= start or shop.curve_count[kind, carrier] == 0:
        return 0.0
    return _until(shop, kind, carrier, end) - _until(shop, kind, carrier, start)


@compiled
def value_at(shop: Shop, kind: int, carrier: int, tick: int) -> float:
    """The value in force from `tick` on; 0 without a curve."""
    count = shop.curve_count[kind, carrier]
    if count == 0:
        return 0.0
    place = (tick - shop.curve_start[kind, carrier]) // shop.curve_step[kind, carrier]
    place = place % count if shop.curve_periodic[kind, carrier] else min(max(place, 0), count - 1)
    value: float = shop.curve_value[shop.curve_first[kind, carrier] + place]
    return value


@compiled
def next_step(shop: Shop, kind: int, carrier: int, tick: int, never: int) -> int:
    """The first tick after `tick` at which the curve may change."""
    count = shop.curve_count[kind, carrier]
    if count == 0:
        return never
    start, step = shop.curve_start[kind, carrier], shop.curve_step[kind, carrier]
    place = (tick - start) // step
    if not shop.curve_periodic[kind, carrier]:
        if place >= count - 1:
            return never
        place = max(place, 0)
    following: int = start + (place + 1) * step
    return following


@compiled
def _until(shop: Shop, kind: int, carrier: int, tick: int) -> float:
    """The integral from the start of the curve to `tick`."""
    first, count = shop.curve_first[kind, carrier], shop.curve_count[kind, carrier]
    start, step = shop.curve_start[kind, carrier], shop.curve_step[kind, carrier]
    place = (tick - start) // step
    whole = 0.0
    if shop.curve_periodic[kind, carrier]:
        rounds = place // count
        last = first + count - 1
        whole = rounds * (shop.curve_sum[last] + shop.curve_value[last] * step)
        place -= rounds * count
        start += rounds * count * step
    else:
        place = min(max(place, 0), count - 1)
    part: float = shop.curve_sum[first + place] + shop.curve_value[first + place] * (tick - start - place * step)
    return whole + part
