"""Lower bounds that hold for every plan, in milliseconds: what no search can beat.

    bound = makespan_bound(frame_of(shop))
    bound.value, bound.prices

Makespan is the greatest of three:

* history, and each job alone: its shortest way through machines, waits and transport, and through their calendars;
* the load: whatever the assignment, work of each machine m lies behind the least head r_m and before the least tail q_m
  of the operations it can do. With any prices λ >= 0 of machine time, a plan of makespan C needs

      sum_o min_a λ(machine of a) load(a)  <=  sum_m λ_m · (ticks in which m can work within [r_m, C - q_m]),

  and the least C that keeps this is a bound. This is the dual of the linear program that spreads the work over the
  machines; the best prices are sought by multiplicative weights, and whatever they are, the bound is valid;
* each machine alone with the operations only it can do: the preemptive one-machine schedule with heads and tails.

Tardiness: each order ends with the last of its jobs, each of them alone. Set-ups, crews, maximum waits, the horizon and
limits are left out, which only makes bounds smaller. Sums are float64; `ROUNDING` is given away for their errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.frame import Frame, lag, opening
from cloud.scheduling.shop import FAR, Floats, Ints

ROUNDS = 400
"""Price changes in each of three passes; one costs about 2 ns per alternative."""
PASSES = 3
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Bound:
    """No plan's makespan is below `value` ticks."""

    value: int
    prices: Floats  # (M,) of machine time, sum 1: where it is scarce
    taken: Floats  # (M,) ticks up to `value` in which a machine cannot do any of its work
    jobs: int  # the bound by jobs alone
    load: int  # the bound by the load
    alone: int  # the bound by machines one by one


def makespan_bound(frame: Frame, rounds: int = ROUNDS) -> Bound:
    """The greatest bound known for the makespan. 10,000 operations on 100 machines: about 0.1 s, few rounds: less."""
    head, tail, end = ways(frame)
    machines = len(frame.calendar)
    jobs = max(frame.past_makespan, int(end.max(initial=0)))
    low, high = _reach(frame, head, tail)
    prices = np.full(machines, 1.0 / max(1, machines))
    load = jobs
    for _ in range(PASSES if rounds and len(frame.op_job) else 0):
        taken = _taken(frame, low, high, load)
        prices = priced(frame, taken, prices, rounds)
        found = _least(frame, low, high, prices, jobs)
        if found <= load:
            break
        load = found
    alone = _alone(frame, head, tail) if len(frame.op_job) else 0
    value = max(jobs, load, alone)
    return Bound(value, prices, _taken(frame, low, high, value), jobs, load, alone)


def tardiness_bound(frame: Frame) -> int:
    """No plan's tardiness is below this."""
    end = ways(frame)[2]
    last = frame.lot_past.copy()
    np.maximum.at(last, frame.job_lot, end)
    return frame.past_tardiness + int(np.maximum(last - frame.lot_due, 0)[frame.lot_due < FAR].sum())


@compiled
def ways(frame: Frame) -> tuple[Ints, Ints, Ints]:
    """head (A,): earliest start; tail (A,): least ticks from its end to that of its job; end (J,): each job alone."""
    head = np.zeros(len(frame.alt_machine), np.int64)
    tail = np.zeros(len(frame.alt_machine), np.int64)
    end = np.zeros(len(frame.job_first) - 1, np.int64)
    for j in range(len(end)):
        first, last = frame.job_first[j], frame.job_first[j + 1] - 1
        for o in range(first, last + 1):
            for a in range(frame.alt_first[o], frame.alt_first[o + 1]):
                ready = frame.alt_ready[a]
                if o > first:
                    ready = FAR
                    for b in range(frame.alt_first[o - 1], frame.alt_first[o]):
                        gap = lag(frame, o, frame.alt_machine[b], frame.alt_machine[a])
                        ready = min(ready, head[b] + frame.alt_ticks[b] + gap)
                head[a] = opening(frame, frame.alt_machine[a], ready, frame.alt_ticks[a])
        for o in range(last - 1, first - 1, -1):
            for a in range(frame.alt_first[o], frame.alt_first[o + 1]):
                least = FAR
                for b in range(frame.alt_first[o + 1], frame.alt_first[o + 2]):
                    gap = lag(frame, o + 1, frame.alt_machine[a], frame.alt_machine[b])
                    least = min(least, gap + frame.alt_ticks[b] + tail[b])
                tail[a] = least
        end[j] = FAR
        for a in range(frame.alt_first[last], frame.alt_first[last + 1]):
            end[j] = min(end[j], head[a] + frame.alt_ticks[a])
    return head, tail, end


@compiled
def _reach(frame: Frame, head: Ints, tail: Ints) -> tuple[Ints, Ints]:
    """(M,) least head and tail of the work each machine can do; of a machine without work FAR and 0."""
    low = np.full(len(frame.calendar), FAR, np.int64)
    high = np.full(len(frame.calendar), FAR, np.int64)
    for a in range(len(head)):
        if frame.alt_ticks[a] > 0:
            m = frame.alt_machine[a]
            low[m] = min(low[m], head[a])
            high[m] = min(high[m], tail[a])
    for m in range(len(low)):
        if low[m] == FAR:
            high[m] = 0
    return low, high


@compiled
def _room(frame: Frame, m: int, start: int, end: int) -> int:
    """Ticks within [start, end) in which machine `m` can work."""
    if end <= start:
        return 0
    if not frame.calendar[m]:
        return end - start
    found = 0
    for s in range(frame.stretch_first[m], frame.stretch_first[m + 1]):
        x, y = max(start, frame.stretch_ready[s]), min(end, frame.stretch_end[s])
        if y <= x:
            continue
        found += y - x
        for w in range(frame.closed_first[m], frame.closed_first[m + 1]):
            found -= max(0, min(y, frame.closed_end[w]) - max(x, frame.closed_start[w]))
    return found


@compiled
def _taken(frame: Frame, low: Ints, high: Ints, makespan: int) -> Floats:
    """(M,) ticks up to `makespan` in which a machine cannot do any of its work."""
    taken = np.zeros(len(low), np.float64)
    for m in range(len(low)):
        taken[m] = makespan - _room(frame, m, low[m], makespan - high[m])
    return taken


@compiled
def _value(frame: Frame, prices: Floats, load: Floats) -> float:
    """What all work costs where it is cheapest; `load` rises by what each machine gets."""
    value = 0.0
    for o in range(len(frame.op_job)):
        best = np.inf
        at = 0
        for a in range(frame.alt_first[o], frame.alt_first[o + 1]):
            cost = prices[frame.alt_machine[a]] * frame.alt_load[a]
            if cost < best:
                best, at = cost, a
        value += best
        load[frame.alt_machine[at]] += frame.alt_load[at]
    return value


@compiled
def priced(frame: Frame, taken: Floats, prices: Floats, rounds: int) -> Floats:
    """Prices (M,) that make the work as dear as they can: those of overloaded machines rise, those of others fall.

    taken  (M,) ticks of each machine that are gone before any work is given to it
    """
    prices, best = prices.copy(), prices.copy()
    most = -np.inf
    load = np.empty(len(prices), np.float64)
    for i in range(rounds):
        value = 0.0
        for m in range(len(prices)):
            load[m] = taken[m]
            value += prices[m] * taken[m]
        value += _value(frame, prices, load)
        if value > most:
            most = value
            for m in range(len(prices)):
                best[m] = prices[m]
        if value <= 0.0:
            break
        step = 0.5 / np.sqrt(1.0 + i)
        total = 0.0
        for m in range(len(prices)):
            prices[m] *= np.exp(min(20.0, step * (load[m] - value) / value))
            total += prices[m]
        for m in range(len(prices)):
            prices[m] /= total
    return best


@compiled
def _least(frame: Frame, low: Ints, high: Ints, prices: Floats, floor: int) -> int:
    """The least makespan from `floor` on in which there is room for what the work costs."""
    need = _value(frame, prices, np.zeros(len(prices), np.float64)) * (1.0 - ROUNDING)
    below, enough = floor - 1, max(1, floor)
    while _worth(frame, low, high, prices, enough) < need:
        below, enough = enough, 2 * enough
    while enough - below > 1:
        middle = (below + enough) // 2
        if _worth(frame, low, high, prices, middle) < need:
            below = middle
        else:
            enough = middle
    return enough


@compiled
def _worth(frame: Frame, low: Ints, high: Ints, prices: Floats, makespan: int) -> float:
    worth = 0.0
    for m in range(len(low)):
        if low[m] < FAR:
            worth += prices[m] * _room(frame, m, low[m], makespan - high[m])
    return worth


def _alone(frame: Frame, head: Ints, tail: Ints) -> int:
    """The greatest preemptive one-machine schedule of operations that have no other machine."""
    only = frame.alt_first[:-1][np.diff(frame.alt_first) == 1]
    # on a batch machine several go at once
    only = only[(frame.alt_ticks[only] > 0) & (frame.alt_load[only] == frame.alt_ticks[only])]
    only = only[np.lexsort((head[only], frame.alt_machine[only]))]
    places = np.searchsorted(frame.alt_machine[only], np.arange(len(frame.calendar) + 1))
    lines = [only[begin:end] for begin, end in pairwise(places.tolist()) if end > begin]
    return max((_preempted(frame.alt_ticks[line], head[line], tail[line]) for line in lines), default=0)


@compiled
def _preempted(left: Ints, head: Ints, tail: Ints) -> int:
    """Always the work with the longest tail of what is there (Jackson); sorted by head, `left` is used up."""
    bound, now, done = 0, 0, 0
    while done < len(left):
        pick, until = -1, FAR
        for i in range(len(left)):
            if left[i] == 0:
                continue
            if head[i] > now:
                until = head[i]
                break
            if pick < 0 or tail[i] > tail[pick]:
                pick = i
        if pick < 0:
            now = until
            continue
        spent = min(left[pick], until - now)
        now += spent
        left[pick] -= spent
        if left[pick] == 0:
            done += 1
            bound = max(bound, now + tail[pick])
    return bound
