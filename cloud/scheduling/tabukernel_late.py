"""Tabu search for little tardiness, compiled: the same moves as for the makespan, on the paths that make orders late.

One iteration draws one late order, the later the likelier, and walks the path that makes it so late. Up to `TRIES`
moves of operations on it, drawn from those within their intervals (see `tabukernel`), are tried one by one: the whole
plan is laid out with each, since one move may help one order and hurt ten. Time per iteration: TRIES times O.
"""

from __future__ import annotations

from typing import NamedTuple

from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import FAR, Indices, Ints
from cloud.scheduling.tabukernel import move
from cloud.scheduling.tabukernel_line import (
    behind_r,
    cut,
    draw,
    first_in_l,
    forward,
    put_back,
    settle,
    take_out,
    way_to,
)
from cloud.scheduling.tabunet import Line, Net

TRIES = 40


class Late(NamedTuple):
    """What makes orders late, and room to work."""

    job_last: Indices  # (J,) last operation
    job_lot: Indices  # (J,)
    lot_due: Ints  # (L,) FAR: none
    lot_past: Ints  # (L,) when the last of its finished jobs ended
    lot_end: Ints  # (L,)
    lot_from: Indices  # (L,) the operation that ends it, -1: history
    order: Indices  # (O,) while a move is tried
    tries: Ints  # (TRIES, 3) operation, alternative, position


@compiled
def lateness(line: Line, late: Late) -> int:
    """Tardiness of the open orders in a plan that is laid out."""
    late.lot_end[:] = late.lot_past
    late.lot_from[:] = -1
    for j in range(len(late.job_last)):
        lot = late.job_lot[j]
        end = line.end[line.place[late.job_last[j]]]
        if end > late.lot_end[lot]:
            late.lot_end[lot] = end
            late.lot_from[lot] = late.job_last[j]
    total = 0
    for lot in range(len(late.lot_due)):
        total += max(0, int(late.lot_end[lot] - late.lot_due[lot]))
    return total


@compiled
def late_path(line: Line, late: Late, total: int) -> int:
    """The path to the end of a late order, drawn by tardiness, last first into `path`; its length, 0: no path."""
    ticket = draw(line.seed, min(total, 2**30))
    for lot in range(len(late.lot_due)):
        ticket -= max(0, int(late.lot_end[lot] - late.lot_due[lot]))
        if ticket < 0:
            o = late.lot_from[lot]
            return way_to(line, int(line.place[o])) if o >= 0 else 0
    return 0


@compiled
def listed(net: Net, line: Line, late: Late, length: int, longest: int) -> int:
    """Moves of what is on the path, into `tries`; of more than fit a random choice. How many."""
    count, seen = len(line.order), 0
    for k in range(length):
        i = line.path[k]
        o = line.order[i]
        own_lag, lag_behind = take_out(net, line, i)
        low, high = cut(line, i, longest)
        for a in range(net.alt_first[o], net.alt_first[o + 1]):
            m = net.alt_machine[a]
            same = a == line.choice[o]
            own = line.slot[i] if same and line.slot[i] >= 0 else count
            first, last = 0, 0
            if net.alt_ticks[a] > 0:
                queued = line.queued[m] - (1 if own != count else 0)
                f = first_in_l(line.queue, net.room[m], own, queued, line.end_cut, line.end_cut[i])
                r = behind_r(line.queue, net.room[m], own, queued, line.due_cut, line.due_cut[i])
                first, last = min(f, r), max(f, r)
            elif same:
                continue
            for position in range(first, last + 1):
                if same and position == own:
                    continue
                seen += 1
                slot = seen - 1 if seen <= len(late.tries) else draw(line.seed, seen)
                if slot < len(late.tries):
                    late.tries[slot, 0] = o
                    late.tries[slot, 1] = a
                    late.tries[slot, 2] = position
        put_back(net, line, i, own_lag, lag_behind)
        line.end_cut[i : high + 1] = line.end[i : high + 1]
        line.due_cut[low : i + 1] = line.due[low : i + 1]
    return min(seen, len(late.tries))


@compiled
def search_late(
    net: Net,
    line: Line,
    late: Late,
    best_choice: Indices,
    best_order: Indices,
    best: int,
    begin: int,
    end: int,
    found: int,
    patience: int,
    target: int,
    spread: int,
) -> tuple[int, int, int]:
    """As `tabukernel.search`, for tardiness."""
    t = begin
    while t < end and t - found < patience and best > target:
        longest = settle(net, line)
        total = lateness(line, late)
        if total < best:
            best, found = total, t
            best_choice[:] = line.choice
            best_order[:] = line.order
            continue
        t += 1
        length = late_path(line, late, total)
        tries = listed(net, line, late, length, longest)
        late.order[:] = line.order
        value, chosen, ties = FAR, -1, 0
        for k in range(tries):
            o, a = late.tries[k, 0], late.tries[k, 1]
            old = line.choice[o]
            move(net, line, o, a, late.tries[k, 2])
            forward(net, line)
            v = lateness(line, late)
            line.choice[o] = old
            line.order[:] = late.order
            forward(net, line)
            if line.tabu[a] > t and v >= best:
                continue
            if v < value:
                value, chosen, ties = v, k, 1
            elif v == value:
                ties += 1
                if draw(line.seed, ties) == 0:
                    chosen = k
        if chosen < 0 and tries > 0:
            chosen = draw(line.seed, tries)
        if chosen >= 0:
            o, a = late.tries[chosen, 0], late.tries[chosen, 1]
            line.tabu[line.choice[o]] = t + 2 + length // 2 + draw(line.seed, spread)
            move(net, line, o, a, late.tries[chosen, 2])
    settle(net, line)
    total = lateness(line, late)
    if total < best:
        best, found = total, t
        best_choice[:] = line.choice
        best_order[:] = line.order
    return best, t, found
