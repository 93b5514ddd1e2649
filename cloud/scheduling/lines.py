"""What every machine does in a draft, compiled: lines of work, gaps bridged idle or off, and each draw of power.

    line_up(shop, scratch, machine, start)                # who works when, batches joined
    n = draw(shop, scratch, machine, start, off)          # scratch.draw_*[:n]: set-ups, gaps, work and transport
    choose(shop, scratch, machine, start, weights, off)   # idle or off, whichever weighs least

The rules are those of `messages.gaps`; the tests hold the two together.
"""

from __future__ import annotations

from cloud.scheduling.arrays import fill
from cloud.scheduling.compiled import compiled
from cloud.scheduling.curves import integral
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import CARBON, DOWN, IDLE, OFF, PREHEAT, SETUP, TARIFF, Bools, Floats, Indices, Ints, Shop
from cloud.scheduling.sorting import sort_by
from messages.gaps import TIE


@compiled
def line_up(shop: Shop, scratch: Scratch, machine: Indices, start: Ints) -> None:
    """Fill `line`, `line_first`, `ticks` and `kw` of the scratch from a draft."""
    first, line, ticks, kw = scratch.line_first, scratch.line, scratch.ticks, scratch.kw
    alt_first, alt_machine, alt_ticks, alt_kw = shop.alt_first, shop.alt_machine, shop.alt_ticks, shop.alt_kw
    machines, operations = len(shop.preheat), len(start)
    fill(first, 0)
    for o in range(operations):
        m = machine[o]
        a = alt_first[o]
        while alt_machine[a] != m:
            a += 1
        ticks[o] = alt_ticks[a]
        kw[o] = alt_kw[a]
        if ticks[o] > 0:
            first[m + 1] += 1
    for m in range(machines):
        first[m + 1] += first[m]
    for o in range(operations - 1, -1, -1):  # backwards, so that `first` ends where each line begins
        if ticks[o] > 0:
            m = machine[o] + 1
            first[m] -= 1
            line[first[m]] = o
    # each entry now stands one place too far to the left
    count = 0
    for o in range(operations):
        count += ticks[o] > 0
    for m in range(machines):
        first[m] = first[m + 1]
    first[machines] = count
    for m in range(machines):
        sort_by(start, line, first[m], first[m + 1], scratch.spare)
        if shop.batch[m] > 1:
            _join_batches(scratch, start, first[m], first[m + 1])


@compiled
def _join_batches(scratch: Scratch, start: Ints, low: int, high: int) -> None:
    line, ticks, kw = scratch.line, scratch.ticks, scratch.kw
    i = low
    while i < high:
        leader = line[i]
        longest, most = ticks[leader], kw[leader]
        k = i + 1
        while k < high and start[line[k]] == start[leader]:
            longest = max(longest, ticks[line[k]])
            most = max(most, kw[line[k]])
            k += 1
        for member in line[i:k]:
            ticks[member] = longest
            kw[member] = 0.0
        kw[leader] = most
        i = k


@compiled
def set_up(shop: Shop, m: int, before: int, after: int) -> int:
    """Ticks to set machine `m` up for family `after`."""
    table = shop.setup_table[m]
    return shop.setup[table, before, after] if table >= 0 else 0


@compiled
def forced_cold(shop: Shop, m: int, since: int, ready: int) -> bool:
    """A machine powered until `since` cannot stay so until `ready`: it had gone cold, or breaks down between."""
    if since < shop.floor:
        return True
    for w in range(shop.down_first[m], shop.down_first[m + 1]):
        if shop.down_start[w] < ready and shop.down_end[w] > since:
            return True
    return False


@compiled
def draw(shop: Shop, scratch: Scratch, machine: Indices, start: Ints, off: Bools) -> int:
    """After `line_up`: every draw of power of the draft into `draw_*`; how many."""
    line, first, ticks = scratch.line, scratch.line_first, scratch.ticks
    n = 0
    for m in range(len(shop.preheat)):
        since, family, carrier = shop.machine_since[m], shop.machine_family[m], shop.carrier[m]
        i = first[m]
        while i < first[m + 1]:
            o = line[i]
            begin, is_off = start[o], off[o]
            i += 1
            while i < first[m + 1] and start[line[i]] == begin:  # its batch
                is_off |= off[line[i]]
                i += 1
            ready = begin - set_up(shop, m, family, shop.family[o])
            n = _bridge(shop, scratch, n, m, since, ready, is_off)
            if ready < begin:
                n = _put(scratch, n, carrier, shop.power[m, SETUP], ready, begin)
            n = _put(scratch, n, carrier, scratch.kw[o], begin, begin + ticks[o])
            since, family = begin + ticks[o], shop.family[o]
    if shop.transport_kw > 0:
        n = _carry(shop, scratch, n, machine, start)
    return n


@compiled
def _put(scratch: Scratch, n: int, carrier: int, kw: float, start: int, end: int) -> int:
    if end <= start or kw == 0.0:
        return n
    scratch.draw_carrier[n] = carrier
    scratch.draw_kw[n] = kw
    scratch.draw_start[n] = start
    scratch.draw_end[n] = end
    return n + 1


@compiled
def _bridge(shop: Shop, scratch: Scratch, n: int, m: int, since: int, ready: int, is_off: bool) -> int:
    """From `since` (powered, -1: it was not so far) to set-up or work at `ready`."""
    carrier, preheat = shop.carrier[m], shop.preheat[m]
    if since < 0:
        return _put(scratch, n, carrier, shop.power[m, PREHEAT], ready - preheat, ready)
    if ready <= since:
        return n
    cold = forced_cold(shop, m, since, ready)
    if not cold and (not is_off or ready - since < preheat):
        return _put(scratch, n, carrier, shop.power[m, IDLE], since, ready)
    heat = max(since, ready - preheat)
    cursor = since
    if cold:
        for w in range(shop.down_first[m], shop.down_first[m + 1]):
            begin, end = shop.down_start[w], shop.down_end[w]
            if begin < ready and end > since:
                n = _put(scratch, n, carrier, shop.power[m, OFF], cursor, min(begin, heat))
                n = _put(scratch, n, carrier, shop.power[m, DOWN], max(cursor, begin), min(end, heat))
                cursor = max(cursor, min(end, heat))
    n = _put(scratch, n, carrier, shop.power[m, OFF], cursor, heat)
    return _put(scratch, n, carrier, shop.power[m, PREHEAT], heat, ready)


@compiled
def _carry(shop: Shop, scratch: Scratch, n: int, machine: Indices, start: Ints) -> int:
    for j in range(len(shop.job_ready)):
        at, left = shop.job_at[j], shop.job_left[j]
        for o in range(shop.job_first[j], shop.job_first[j + 1]):
            m = machine[o]
            if at >= 0:
                there = left + shop.transport[at, m]
                n = _put(scratch, n, shop.transport_carrier, shop.transport_kw, left, there)
            at, left = m, start[o] + scratch.ticks[o]
    return n


@compiled
def choose(shop: Shop, scratch: Scratch, machine: Indices, start: Ints, weights: Floats, off_out: Bools) -> None:
    """Idle or off in every gap, whichever has the least weights · (energy, carbon, cost); ties to idle.

    Carbon and cost are those of what is drawn, before generation on site. False where there is nothing to choose.
    """
    line_up(shop, scratch, machine, start)
    line, first = scratch.line, scratch.line_first
    fill(off_out, False)
    for m in range(len(shop.preheat)):
        since, family, preheat = shop.machine_since[m], shop.machine_family[m], shop.preheat[m]
        i = first[m]
        while i < first[m + 1]:
            o = line[i]
            k = i + 1
            while k < first[m + 1] and start[line[k]] == start[o]:
                k += 1
            ready = start[o] - set_up(shop, m, family, shop.family[o])
            gap = ready - since
            if since >= 0 and gap > 0 and gap >= preheat and not forced_cold(shop, m, since, ready):
                idle = _weight(shop, m, IDLE, since, ready, weights)
                off = _weight(shop, m, OFF, since, ready - preheat, weights)
                off += _weight(shop, m, PREHEAT, ready - preheat, ready, weights)
                if idle > off + TIE * max(abs(idle), abs(off)):
                    for member in line[i:k]:
                        off_out[member] = True
            since, family = start[o] + scratch.ticks[o], shop.family[o]
            i = k


@compiled
def _weight(shop: Shop, m: int, state: int, start: int, end: int, weights: Floats) -> float:
    """Of being in `state`, per kilowatt-hour: hours cancel out of the comparison, so ticks stay."""
    kw = shop.power[m, state]
    if kw == 0.0:
        return 0.0
    total: float = weights[0] * (kw * (end - start))
    if weights[1] != 0.0:
        total += weights[1] * kw * integral(shop, CARBON, shop.carrier[m], start, end)
    if weights[2] != 0.0:
        total += weights[2] * kw * integral(shop, TARIFF, shop.carrier[m], start, end)
    return total
