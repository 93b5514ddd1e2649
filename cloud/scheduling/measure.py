"""What a draft costs, compiled: the measures of `messages.judge`, in the order of `cloud.scheduling.seam.MEASURES`.

    values = measures(shop, machine, start, off)               # (7,)
    measure(packed(shop), scratch, machine, start, off, CHEAP, out)    # in hot loops: nothing is allocated
    choose_off(shop, machine, start, weights, off_out)         # idle or off in every gap

Carriers without generation on site are summed draw by draw (integrals of curves take constant time); for the others,
and for the peak, the load is swept in time order.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.arrays import fill, paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.curves import integral, next_step, value_at
from cloud.scheduling.lines import choose, draw, line_up
from cloud.scheduling.packed import packed, scratch_of
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import BASE_LOAD, CARBON, FAR, GENERATION, TARIFF, Bools, Floats, Indices, Ints, Shop
from cloud.scheduling.sorting import sort_by

__all__ = ["ALL", "CHEAP", "Scratch", "choose", "choose_off", "measure", "measures", "packed", "scratch_of"]

MAKESPAN, TARDINESS, ENERGY, CARBON_KG, COST, PEAK, LEDGER = (1 << place for place in range(7))
CHEAP = MAKESPAN | TARDINESS | ENERGY
"""No curves, no net load."""
ALL = 127


def measures(shop: Shop, machine: Indices, start: Ints, off: Bools) -> Floats:
    """(7,) all measures of a draft."""
    out = np.empty(7)
    measure(packed(shop), scratch_of(shop), machine, start, off, ALL, out)
    return out


def choose_off(shop: Shop, machine: Indices, start: Ints, weights: Floats, off_out: Bools) -> None:
    """Idle or off in every gap by weights (3,) of energy, carbon and cost; see `lines.choose`."""
    choose(packed(shop), scratch_of(shop), machine, start, weights, off_out)


@compiled
def measure(shop: Shop, scratch: Scratch, machine: Indices, start: Ints, off: Bools, wanted: int, out: Floats) -> None:
    """The wanted measures of a draft into `out` (7,); the others become 0."""
    fill(out, 0.0)
    line_up(shop, scratch, machine, start)
    _times(shop, scratch, start, out)
    if not wanted & ~(MAKESPAN | TARDINESS):
        return
    n = draw(shop, scratch, machine, start, off)
    ticks = 0.0
    for i in range(n):
        ticks += scratch.draw_kw[i] * (scratch.draw_end[i] - scratch.draw_start[i])
    out[2] = shop.fixed_kwh + ticks / shop.hour_ticks
    if wanted & ~CHEAP:
        _net(shop, scratch, n, wanted, out)


@compiled
def _times(shop: Shop, scratch: Scratch, start: Ints, out: Floats) -> None:
    lot_end, ticks = scratch.lot_end, scratch.ticks
    paste(shop.lot_past, lot_end)
    last = shop.past_makespan
    for o in range(len(start)):
        end = start[o] + ticks[o]
        last = max(last, end)
        lot = shop.job_lot[shop.op_job[o]]
        lot_end[lot] = max(lot_end[lot], end)
    late = shop.past_tardiness
    for lot in range(len(lot_end)):
        late += max(0, lot_end[lot] - shop.lot_due[lot])
    out[0], out[1] = last, late


@compiled
def _net(shop: Shop, scratch: Scratch, n: int, wanted: int, out: Floats) -> None:
    """Carbon, cost, peak, ledger."""
    exported = 0.0
    for k in range(shop.curve_count.shape[1]):
        generated = shop.curve_count[GENERATION, k] > 0
        if not generated:
            kg, cost = 0.0, 0.0
            for i in range(n):
                if scratch.draw_carrier[i] == k:
                    begin, end, kw = scratch.draw_start[i], scratch.draw_end[i], scratch.draw_kw[i]
                    kg += kw * integral(shop, CARBON, k, begin, end)
                    if wanted & COST:
                        cost += kw * integral(shop, TARIFF, k, begin, end)
            out[3] += shop.fixed_kg[k] + kg / shop.hour_ticks
            out[4] += shop.fixed_cost[k] + cost / shop.hour_ticks
        if generated or (k == shop.electricity and wanted & PEAK):
            kg, cost, peak, surplus = _sweep(shop, scratch, n, k)
            if generated:
                out[3] += kg / shop.hour_ticks
                out[4] += cost / shop.hour_ticks
                exported += surplus / shop.hour_ticks
            if k == shop.electricity:
                out[5] = peak
    out[6] = out[3] - shop.capture_kg - shop.export_kg_per_kwh * exported


@compiled
def _sweep(shop: Shop, scratch: Scratch, n: int, carrier: int) -> tuple[float, float, float, float]:
    """Of one carrier, in ticks: carbon, cost, peak and what is left over of generation within the horizon."""
    at, event = scratch.event_at, scratch.event
    count = _events(shop, scratch, n, carrier)
    t, last = 0, 0 if shop.horizon == FAR else shop.horizon
    if count:
        sort_by(at, event, 0, count, scratch.spare)
        t, last = min(t, at[event[0]]), max(last, at[event[count - 1]])
    has_base = shop.curve_count[BASE_LOAD, carrier] > 0
    kg, cost, peak, surplus, load = 0.0, 0.0, 0.0, 0.0, 0.0
    e = 0
    while t < last:
        while e < count and at[event[e]] <= t:
            load += scratch.event_kw[event[e]]
            e += 1
        until = last if e == count else min(last, at[event[e]])
        inside = 0 <= t < shop.horizon < FAR
        until = min(until, next_step(shop, GENERATION, carrier, t, last))
        if t < 0:
            until = min(until, 0)
        elif inside:
            until = min(until, shop.horizon)
        base = 0.0
        if has_base and inside:
            base = value_at(shop, BASE_LOAD, carrier, t)
            until = min(until, next_step(shop, BASE_LOAD, carrier, t, last))
        net = base + load - value_at(shop, GENERATION, carrier, t)
        if net > 0.0:
            kg += net * integral(shop, CARBON, carrier, t, until)
            cost += net * integral(shop, TARIFF, carrier, t, until)
            peak = max(peak, net)
        elif inside:
            surplus -= net * (until - t)
        t = until
    return kg, cost, peak, surplus


@compiled
def _events(shop: Shop, scratch: Scratch, n: int, carrier: int) -> int:
    """Rises and falls of a carrier's load, past included, not yet in order; how many."""
    at, kw, event = scratch.event_at, scratch.event_kw, scratch.event
    count = 0
    for i in range(n + len(shop.past_kw)):
        p = i - n
        if (scratch.draw_carrier[i] if p < 0 else shop.past_carrier[p]) != carrier:
            continue
        power = scratch.draw_kw[i] if p < 0 else shop.past_kw[p]
        begin = scratch.draw_start[i] if p < 0 else shop.past_start[p]
        end = scratch.draw_end[i] if p < 0 else shop.past_end[p]
        if power == 0.0 or end <= begin:
            continue
        at[count], kw[count], event[count] = begin, power, count
        at[count + 1], kw[count + 1], event[count + 1] = end, -power, count + 1
        count += 2
    return count
