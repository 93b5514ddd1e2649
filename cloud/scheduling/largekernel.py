"""First plans for large shops, compiled: who does what by prices and loads, then in which order.

    alt = assigned(frame, prices)            each operation where its work costs least
    balanced(frame, alt, room, …)            so that no machine gets more than it has room for
    start = listed(frame, alt, rank, pull)   every machine takes, of what is there, what ranks first

All take a `Frame` (calendars, waits and transport included) and give starts that can be carried out. Time grows with
operations · (machines + length of queues); 10,000 operations on 100 machines take 2 to 5 ms per list.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.frame import Frame, lag, opening
from cloud.scheduling.shop import FAR, Floats, Indices, Ints

LEAN = 1e-3
"""Weight of plain working time beside prices, so that machines that cost nothing are used well too."""


@compiled
def roll(dice: Ints, sides: int) -> int:
    """A number from 0 to `sides` - 1; `dice` (1,) is the state of the generator (splitmix64)."""
    dice[0] += np.int64(-7046029254386353131)
    z = np.uint64(dice[0])
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return int(np.int64(z % np.uint64(sides)))


@compiled
def assigned(frame: Frame, prices: Floats) -> Indices:
    """(O,) the alternative of each operation whose work costs least."""
    alt = np.empty(len(frame.op_job), np.int32)
    lean = LEAN / max(1, len(prices))
    for o in range(len(alt)):
        best = np.inf
        for a in range(frame.alt_first[o], frame.alt_first[o + 1]):
            cost = (prices[frame.alt_machine[a]] + lean) * frame.alt_ticks[a]
            if cost < best:
                best = cost
                alt[o] = a
    return alt


@compiled
def balanced(frame: Frame, alt: Indices, room: Floats, prices: Floats, steps: int, seed: int) -> Indices:
    """`alt` annealed so that as little work as possible lies beyond the room (M,) of the machines.

    What counts is the sum of squares beyond, and the price of the work with a weight of 20 mean operations.
    """
    dice = np.array([seed], np.int64)
    alt = alt.copy()
    load = np.empty(len(room), np.float64)
    for m in range(len(room)):
        load[m] = -room[m]
    mean = 0.0
    for a in alt:
        load[frame.alt_machine[a]] += frame.alt_ticks[a]
        mean += frame.alt_ticks[a]
    mean /= max(1, len(alt))
    weight = 20.0 * mean * len(prices)
    beyond = 0.0
    for x in load:
        beyond += max(0.0, x) ** 2
    best, best_alt = beyond, alt.copy()
    for i in range(steps):
        if best <= 0.0:
            break
        heat = 0.4 * mean * mean * (1.0 - i / steps) + 1e-3
        o = roll(dice, len(alt))
        first = frame.alt_first[o]
        a, b = alt[o], first + roll(dice, frame.alt_first[o + 1] - first)
        if a == b:
            continue
        m, n = frame.alt_machine[a], frame.alt_machine[b]
        p, q = frame.alt_ticks[a], frame.alt_ticks[b]
        more = max(0.0, load[m] - p) ** 2 - max(0.0, load[m]) ** 2
        more += max(0.0, load[n] + q) ** 2 - max(0.0, load[n]) ** 2
        cost = more + weight * (prices[n] * q - prices[m] * p)
        if cost <= 0.0 or roll(dice, 1 << 30) < np.exp(-cost / heat) * (1 << 30):
            alt[o] = b
            load[m] -= p
            load[n] += q
            beyond += more
            if beyond < best:
                best = beyond
                for place in range(len(alt)):
                    best_alt[place] = alt[place]
    return best_alt


@compiled
def remaining(frame: Frame, alt: Indices, hop: float) -> Floats:
    """(O,) ticks of its job from an operation on, it included, and `hop` more for each operation."""
    left = np.zeros(len(alt), np.float64)
    for o in range(len(alt) - 1, -1, -1):
        left[o] = frame.alt_ticks[alt[o]] + hop
        if o + 1 < frame.job_first[frame.op_job[o] + 1]:
            left[o] += left[o + 1]
    return left


@compiled
def tournament(machines: int) -> Indices:
    """Of machines, pair by pair: at place i the one that wakes before the other of places 2i and 2i + 1; -1: nobody."""
    size = 1
    while size < machines:
        size *= 2
    least = np.full(2 * size, -1, np.int32)
    for m in range(machines):
        least[size + m] = m
    for i in range(size - 1, 0, -1):
        least[i] = least[2 * i]  # all wake alike as yet: the first
    return least


@compiled
def play(wake: Ints, least: Indices, m: int) -> None:
    """Machine `m` wakes at another time: its matches are played again."""
    i = (len(least) // 2 + m) // 2
    while i > 0:
        a, b = least[2 * i], least[2 * i + 1]
        least[i] = b if b >= 0 and wake[b] < wake[a] else a
        i //= 2


@compiled
def listed(frame: Frame, alt: Indices, rank: Floats, pull: float) -> Ints:
    """(O,) starts: whenever a machine can begin something, it takes what has the greatest rank, less `pull` times the
    work that waits at the machine where its job goes next."""
    operations, machines = len(alt), len(frame.calendar)
    start = np.full(operations, FAR, np.int64)
    ready = np.zeros(operations, np.int64)
    first = np.zeros(machines + 1, np.int64)
    for a in alt:
        first[frame.alt_machine[a] + 1] += 1
    for m in range(machines):
        first[m + 1] += first[m]
    queue = np.empty(operations, np.int32)
    count = np.zeros(machines, np.int64)
    waiting = np.zeros(machines, np.float64)
    free = np.zeros(machines, np.int64)
    wake = np.full(machines, FAR, np.int64)
    least = tournament(machines)
    coming = np.empty(operations, np.int32)  # operations whose predecessor is placed
    comings = 0
    for j in range(len(frame.job_first) - 1):
        o = frame.job_first[j]
        ready[o] = frame.alt_ready[alt[o]]
        coming[comings] = o
        comings += 1
    while True:
        while comings > 0:
            comings -= 1
            o = coming[comings]
            m, ticks = frame.alt_machine[alt[o]], frame.alt_ticks[alt[o]]
            if ticks > 0:
                queue[first[m] + count[m]] = o
                count[m] += 1
                waiting[m] += ticks
                wake[m] = min(wake[m], max(free[m], ready[o]))
                play(wake, least, m)
                continue
            start[o] = ready[o]  # no work: it waits for nobody
            if o + 1 < frame.job_first[frame.op_job[o] + 1]:
                ready[o + 1] = start[o] + lag(frame, o + 1, m, frame.alt_machine[alt[o + 1]])
                coming[comings] = o + 1
                comings += 1
        m = least[1]
        now = wake[m]
        if now == FAR:
            return start
        soonest, best, at = FAR, -np.inf, -1
        for i in range(first[m], first[m] + count[m]):
            o = queue[i]
            begin = opening(frame, m, max(now, ready[o]), frame.alt_ticks[alt[o]])
            soonest = min(soonest, begin)
            if begin > now:
                continue
            value = rank[o]
            if pull > 0.0 and o + 1 < frame.job_first[frame.op_job[o] + 1]:
                n = frame.alt_machine[alt[o + 1]]
                value -= pull * (waiting[n] + max(0, free[n] - now))
            if value > best:
                best, at = value, i
        if soonest > now:
            wake[m] = soonest  # FAR: nothing waits here
            play(wake, least, m)
            continue
        o = queue[at]
        count[m] -= 1
        queue[at] = queue[first[m] + count[m]]
        ticks = frame.alt_ticks[alt[o]]
        waiting[m] -= ticks
        start[o], free[m], wake[m] = now, now + ticks, now + ticks
        play(wake, least, m)
        if o + 1 < frame.job_first[frame.op_job[o] + 1]:
            ready[o + 1] = now + ticks + lag(frame, o + 1, m, frame.alt_machine[alt[o + 1]])
            coming[comings] = o + 1
            comings += 1


@compiled
def ends_of(frame: Frame, alt: Indices, start: Ints) -> tuple[int, int]:
    """(makespan, tardiness) in ticks, history included."""
    makespan, tardiness = frame.past_makespan, frame.past_tardiness
    last = frame.lot_past.copy()
    for j in range(len(frame.job_first) - 1):
        o = frame.job_first[j + 1] - 1
        end = start[o] + frame.alt_ticks[alt[o]]
        makespan = max(makespan, end)
        last[frame.job_lot[j]] = max(last[frame.job_lot[j]], end)
    for lot in range(len(last)):
        if frame.lot_due[lot] < FAR:
            tardiness += max(0, last[lot] - frame.lot_due[lot])
    return makespan, tardiness
