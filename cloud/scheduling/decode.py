"""From an order of operations to a schedule, compiled: serial schedule generation.

    shop, room = packed(shop), scratch_of(shop)
    key_order(keys, shop.job_first, order)                               # random keys to an order
    faults = decode(shop, room, order, choice, machine_out, start_out)   # 0: a plan

The k-th occurrence of a job in `order` is its k-th open
operation, so every order can be carried out. Each operation goes to `choice` (place among its alternatives, -1: the
earliest completion, ties to less energy, then to the first) behind what stands there already; `decode_active` looks
into earlier gaps as well. `messages.reference` says the same in plain Python, and the tests hold the two together.

On machines that batch, an operation joins the first batch it is ready for, if family, size and ticks fit; and a batch
begins later or lasts longer for it while nothing that follows is placed, if the operation gains at least what all of
the batch lose together. So an order says which batches wait: whoever is to come along stands before what follows.
Operations tied by a greatest wait are placed together; when the wait is missed their predecessor begins later, at most
`TRIES` times, then the chain is put behind everything else. A fault is a wait that was missed even so, or an end after
the horizon.
"""

from __future__ import annotations

from cloud.scheduling.arrays import fill, paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.place import best, clear, commit, undo
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shift import shift_right
from cloud.scheduling.shop import FAR, Floats, Indices, Ints, Shop
from cloud.scheduling.sorting import key_order

__all__ = ["decode", "decode_active", "key_order", "shift_right"]

TRIES = 64
"""So often a chain's operations are moved for one of its waits before it goes behind everything else."""


@compiled
def decode(shop: Shop, scratch: Scratch, order: Indices, choice: Indices, machine_out: Indices, start_out: Ints) -> int:
    """Every operation behind what stands on its machine already. How many faults; 0: a plan."""
    if scratch.plain:
        return _plain(shop, scratch, order, choice, machine_out, start_out)
    return _general(shop, scratch, order, choice, machine_out, start_out, False)


@compiled
def decode_active(
    shop: Shop, scratch: Scratch, order: Indices, choice: Indices, machine_out: Indices, start_out: Ints
) -> int:
    """Every operation as early as it can be without moving another. How many faults; 0: a plan."""
    return _general(shop, scratch, order, choice, machine_out, start_out, True)


@compiled
def _plain(shop: Shop, scratch: Scratch, order: Indices, choice: Indices, machine_out: Indices, start_out: Ints) -> int:
    """Nothing but machines and times."""
    free, job_time, job_next, job_first = scratch.free, scratch.job_time, scratch.job_next, shop.job_first
    alt_first, alt_machine, alt_ticks, alt_kw = shop.alt_first, shop.alt_machine, shop.alt_ticks, shop.alt_kw
    ready, first, horizon = shop.stretch_ready, shop.stretch_first, shop.horizon
    for m in range(len(free)):
        free[m] = ready[first[m]]
    paste(shop.job_ready, job_time)
    fill(job_next, 0)
    faults = 0
    for i in range(len(order)):
        j = order[i]
        o = job_first[j] + job_next[j]
        job_next[j] += 1
        now = job_time[j]
        a = soonest(alt_first, alt_machine, alt_ticks, alt_kw, free, o, choice[o], now)
        m = alt_machine[a]
        if alt_ticks[a]:
            now = max(now, free[m])
            free[m] = now + alt_ticks[a]
        machine_out[o], start_out[o] = m, now
        job_time[j] = now + alt_ticks[a]
        faults += job_time[j] > horizon
    return faults


@compiled
def soonest(
    alt_first: Indices,
    alt_machine: Indices,
    alt_ticks: Ints,
    alt_kw: Floats,
    free: Ints,
    o: int,
    choice: int,
    now: int,
) -> int:
    """The alternative of `o` that is chosen, or completes it earliest behind what stands there already."""
    first = alt_first[o]
    if choice >= 0:
        return int(first + choice)
    a, best_end, least = first, FAR, 0.0
    for b in range(first, alt_first[o + 1]):
        ticks = alt_ticks[b]
        end = ticks + (max(now, free[alt_machine[b]]) if ticks else now)
        if end <= best_end:
            energy = alt_kw[b] * ticks
            if end < best_end or energy < least:
                a, best_end, least = b, end, energy
    return int(a)


@compiled
def _general(
    shop: Shop,
    scratch: Scratch,
    order: Indices,
    choice: Indices,
    machine_out: Indices,
    start_out: Ints,
    active: bool,
) -> int:
    clear(shop, scratch)
    job_first, job_next, wait_max, placed = shop.job_first, scratch.job_next, shop.wait_max, scratch.placed
    faults = 0
    for i in range(len(order)):
        j = order[i]
        o = job_first[j] + job_next[j]
        job_next[j] += 1
        if not placed[o]:
            last = o
            while last + 1 < job_first[j + 1] and wait_max[last + 1] < FAR:
                last += 1
            faults += place_chain(shop, scratch, o, last, choice, active)
    for o in range(len(order)):
        machine_out[o], start_out[o] = scratch.on[o], scratch.begin[o]
        faults += scratch.end[o] > shop.horizon
    return faults


@compiled
def place_chain(shop: Shop, scratch: Scratch, first: int, last: int, choice: Indices, active: bool) -> int:
    """Operations `first` to `last` of a job, tied by greatest waits; how many of these were missed."""
    begin, end, low = scratch.begin, scratch.end, scratch.low
    tries, late, faults = 0, False, 0
    limit = TRIES * (last - first + 1)
    k = first
    while k <= last:
        a, start, finish, prev, leader = best(shop, scratch, k, choice[k], active)
        need = _needed(shop, scratch, k, start)
        if k > first and need > end[k - 1] and tries <= limit:
            tries += 1
            low[k - 1] = begin[k - 1] + need - end[k - 1]
            k -= 1
            undo(shop, scratch, k)
            if tries == limit and not late:
                late, tries = True, 0
                while k > first:
                    k -= 1
                    undo(shop, scratch, k)
                for i in range(first, last + 1):
                    low[i] = -FAR
                low[first] = _everything_ends(shop, scratch)
            continue
        faults += need > -FAR and need > (end[k - 1] if k > shop.job_first[shop.op_job[k]] else need)
        commit(shop, scratch, k, a, start, finish, prev, leader)
        k += 1
    return faults


@compiled
def _needed(shop: Shop, scratch: Scratch, o: int, start: int) -> int:
    """The earliest end of its predecessor with which `o` may begin at `start`."""
    return start - shop.wait_max[o] if shop.wait_max[o] < FAR else -FAR


@compiled
def _everything_ends(shop: Shop, scratch: Scratch) -> int:
    """From here on nothing is in the way."""
    time = shop.floor
    for m in range(len(shop.preheat)):
        if scratch.tail[m] >= 0:
            time = max(time, scratch.end[scratch.tail[m]])
        time = max(time, shop.stretch_ready[shop.stretch_first[m + 1] - 1])
        if shop.closed_first[m + 1] > shop.closed_first[m]:
            time = max(time, shop.closed_end[shop.closed_first[m + 1] - 1])
    for c in range(len(shop.crew_count)):
        time = max(time, scratch.crew_at[c, scratch.crew_count[c] - 1])
    return time
