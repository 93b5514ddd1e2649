"""An order judged in one pass, compiled: makespan, tardiness and energy, every gap idle or off as needs less.

    faults = evaluate(shop, scratch, order, choice, machine_out, start_out, out)    # out (3,)

Energy is that of the default rule (`messages.gaps`); `choose` says which gaps are off where somebody wants to know.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.arrays import paste, paste_part
from cloud.scheduling.compiled import compiled
from cloud.scheduling.decode import decode, soonest
from cloud.scheduling.lines import choose
from cloud.scheduling.measure import CHEAP, measure
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import IDLE, OFF, PREHEAT, Floats, Indices, Ints, Shop
from messages.gaps import TIE


@compiled
def evaluate(
    shop: Shop,
    scratch: Scratch,
    order: Indices,
    choice: Indices,
    machine_out: Indices,
    start_out: Ints,
    out: Floats,
) -> int:
    """Decode `order`; its makespan, tardiness and energy into `out`. How many faults; 0: a plan."""
    if scratch.steady:
        return _in_one(shop, scratch, order, choice, machine_out, start_out, out)
    faults = decode(shop, scratch, order, choice, machine_out, start_out)
    weights, values, off = np.zeros(3), np.empty(7), np.empty(len(order), np.bool_)
    weights[0] = 1.0
    choose(shop, scratch, machine_out, start_out, weights, off)
    measure(shop, scratch, machine_out, start_out, off, CHEAP, values)
    paste_part(values, out, 0, 3)
    return faults


@compiled
def _in_one(
    shop: Shop,
    scratch: Scratch,
    order: Indices,
    choice: Indices,
    machine_out: Indices,
    start_out: Ints,
    out: Floats,
) -> int:
    """`decode` without anything rare, summing energy up on the way."""
    free, since, job_time, job_next = scratch.free, scratch.since, scratch.job_time, scratch.job_next
    alt_first, alt_machine, alt_ticks, alt_kw = shop.alt_first, shop.alt_machine, shop.alt_ticks, shop.alt_kw
    job_first, horizon, power, preheats = shop.job_first, shop.horizon, shop.power, shop.preheat
    ready, first, known = shop.stretch_ready, shop.stretch_first, shop.machine_since
    for m in range(len(free)):
        free[m], since[m] = ready[first[m]], known[m]
    job_ready = shop.job_ready
    for j in range(len(job_time)):
        job_time[j], job_next[j] = job_ready[j], job_first[j]
    faults, energy = 0, 0.0
    for i in range(len(order)):
        j = order[i]
        o = job_next[j]
        job_next[j] = o + 1
        now = job_time[j]
        a = soonest(alt_first, alt_machine, alt_ticks, alt_kw, free, o, choice[o], now)
        m, ticks = alt_machine[a], alt_ticks[a]
        if ticks:
            now = max(now, free[m])
            preheat = preheats[m]
            if since[m] < 0:
                energy += power[m, PREHEAT] * preheat
            elif now > since[m]:
                gap = now - since[m]
                idle = power[m, IDLE] * gap
                if gap >= preheat:
                    off = power[m, OFF] * (gap - preheat) + power[m, PREHEAT] * preheat
                    if idle > off + TIE * max(idle, off):
                        idle = off
                energy += idle
            energy += alt_kw[a] * ticks
            since[m] = free[m] = now + ticks
        machine_out[o], start_out[o] = m, now
        job_time[j] = now + ticks
        faults += now + ticks > horizon
    _late(shop, scratch, out)
    out[2] = shop.fixed_kwh + energy / shop.hour_ticks
    return faults


@compiled
def _late(shop: Shop, scratch: Scratch, out: Floats) -> None:
    """Makespan and tardiness from the ends of the jobs."""
    job_time, lot_end, job_lot = scratch.job_time, scratch.lot_end, shop.job_lot
    paste(shop.lot_past, lot_end)
    last, late = shop.past_makespan, shop.past_tardiness
    for j in range(len(job_time)):
        last = max(last, job_time[j])
        lot_end[job_lot[j]] = max(lot_end[job_lot[j]], job_time[j])
    for lot in range(len(lot_end)):
        late += max(0, lot_end[lot] - shop.lot_due[lot])
    out[0], out[1] = last, late
