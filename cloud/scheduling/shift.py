"""Later where that saves energy, compiled: operations move right into the gaps behind them.

    saved = shift_right(shop, scratch, machine, start, limit_makespan)    # `start` is changed

From the last operation to the first, each moves as far right as its successor, its machine, closed times, its greatest
wait, due dates and the limit let it, unless its machine's gaps then need more energy. Gaps cost less the longer they
are in one piece, and none is paid before the first work, so what moves closes gaps. Machine, sequence, set-ups,
makespan and tardiness stay; operations that need a crew or share a batch stay where they are. If nothing is saved in
the end, nothing is changed.
"""

from __future__ import annotations

from cloud.scheduling.arrays import paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.lines import forced_cold, line_up, set_up
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import FAR, IDLE, OFF, PREHEAT, Indices, Ints, Shop
from cloud.scheduling.sorting import sort_by
from messages.gaps import TIE


@compiled
def shift_right(shop: Shop, scratch: Scratch, machine: Indices, start: Ints, limit_makespan: int) -> float:
    """Move operations right, none to end after `limit_makespan` that did not before. kWh saved, 0: nothing moved.
    Operations that need a crew, and those that share a batch, stay where they are."""
    line_up(shop, scratch, machine, start)
    line, first, before, after = scratch.line, scratch.line_first, scratch.before, scratch.after
    setup, old, by_start = scratch.setup_ticks, scratch.begin, scratch.on
    operations = len(start)
    for o in range(operations):
        before[o] = after[o] = -1
        setup[o], old[o], by_start[o] = 0, start[o], o
    for m in range(len(shop.preheat)):
        family = shop.machine_family[m]
        for i in range(first[m], first[m + 1]):
            o = line[i]
            setup[o] = set_up(shop, m, family, shop.family[o])
            family = shop.family[o]
            if i > first[m]:
                before[o], after[line[i - 1]] = line[i - 1], o
    _lots(shop, scratch, start)
    sort_by(start, by_start, 0, operations, scratch.spare)
    saved = 0.0
    for i in range(operations - 1, -1, -1):
        o = by_start[i]
        latest = _latest(shop, scratch, machine, start, o, limit_makespan)
        if latest > start[o]:
            saved += _move(shop, scratch, machine[o], start, o, latest)
    if saved <= TIE:
        paste(old, start)
        return 0.0
    return saved / shop.hour_ticks


@compiled
def _lots(shop: Shop, scratch: Scratch, start: Ints) -> None:
    """Until when each order may end: its due date, or its end as it is."""
    paste(shop.lot_past, scratch.lot_end)
    for o in range(len(start)):
        lot = shop.job_lot[shop.op_job[o]]
        scratch.lot_end[lot] = max(scratch.lot_end[lot], start[o] + scratch.ticks[o])
    for lot in range(len(shop.lot_due)):
        scratch.lot_end[lot] = max(scratch.lot_end[lot], shop.lot_due[lot])


@compiled
def _latest(shop: Shop, scratch: Scratch, machine: Indices, start: Ints, o: int, limit: int) -> int:
    """The latest start of `o` with everything else where it is; its own, if it cannot move."""
    j, m, ticks, begin = shop.op_job[o], machine[o], scratch.ticks[o], start[o]
    for c in range(len(shop.crew_count)):
        if shop.crew_need[o, c]:
            return int(begin)
    end = min(limit, shop.horizon, scratch.lot_end[shop.job_lot[j]])
    if o + 1 < shop.job_first[j + 1]:
        lag = max(shop.wait_min[o + 1], shop.transport[m, machine[o + 1]])
        end = min(end, start[o + 1] - lag)
    prev, following = scratch.before[o], scratch.after[o]
    if following >= 0:
        if start[following] == begin:
            return int(begin)  # of one batch
        end = min(end, start[following] - scratch.setup_ticks[following])
    if prev >= 0 and start[prev] == begin:
        return int(begin)
    latest = end - ticks
    if shop.wait_max[o] < FAR:
        left = start[o - 1] + scratch.ticks[o - 1] if o > shop.job_first[j] else shop.job_left[j]
        latest = min(latest, left + shop.wait_max[o])
    if ticks == 0 or latest <= begin:
        return int(max(begin, latest))
    return _open_until(shop, m, begin, latest, scratch.setup_ticks[o], ticks)


@compiled
def _open_until(shop: Shop, m: int, begin: int, latest: int, setup: int, ticks: int) -> int:
    """The latest start from `begin` to `latest` outside closed times, in the stretch between breakdowns it is in."""
    for s in range(shop.stretch_first[m], shop.stretch_first[m + 1]):
        if shop.stretch_start[s] <= begin < shop.stretch_end[s]:
            latest = min(latest, shop.stretch_end[s] - ticks)
    for w in range(shop.closed_first[m + 1] - 1, shop.closed_first[m] - 1, -1):
        if shop.closed_end[w] <= begin - setup:
            break
        if latest - setup < shop.closed_end[w] and shop.closed_start[w] < latest + ticks:
            latest = shop.closed_start[w] - ticks
    return max(begin, latest)


@compiled
def _move(shop: Shop, scratch: Scratch, m: int, start: Ints, o: int, latest: int) -> float:
    """Move `o` if its gaps then need no more energy; kW · ticks saved."""
    begin, ticks = start[o], scratch.ticks[o]
    if ticks == 0:
        start[o] = latest
        return 0.0
    prev, following, setup = scratch.before[o], scratch.after[o], scratch.setup_ticks[o]
    since = start[prev] + scratch.ticks[prev] if prev >= 0 else shop.machine_since[m]
    now = _gap(shop, m, since, begin - setup)
    then = _gap(shop, m, since, latest - setup)
    if following >= 0:
        ready = start[following] - scratch.setup_ticks[following]
        now += _gap(shop, m, begin + ticks, ready)
        then += _gap(shop, m, latest + ticks, ready)
    if then > now + TIE * now:
        return 0.0
    start[o] = latest
    return float(now - then)


@compiled
def _gap(shop: Shop, m: int, since: int, ready: int) -> float:
    """kW · ticks from being powered until `since` (-1: it was not so far) to `ready`, whichever way needs less."""
    preheat = shop.preheat[m]
    heat: float = shop.power[m, PREHEAT] * preheat
    if since < 0:
        return heat
    if ready <= since:
        return 0.0
    gap = ready - since
    idle: float = shop.power[m, IDLE] * gap
    if forced_cold(shop, m, since, ready):
        return float(heat + shop.power[m, OFF] * max(0, gap - preheat))
    if gap < preheat:
        return idle
    return float(min(idle, heat + shop.power[m, OFF] * (gap - preheat)))
