"""Where one operation can go next to what is placed already, compiled: windows, set-ups, batches, crews, transport.

    clear(shop, scratch)
    a, start, end, prev, leader = best(shop, scratch, o, choice, active)
    commit(shop, scratch, o, a, start, end, prev, leader)
    undo(shop, scratch, o)                                 # the last one committed

The scratch then holds `on`, `begin` and `end` of what is placed, the line of each machine and the crews at work.
"""

from __future__ import annotations

from cloud.scheduling.arrays import fill
from cloud.scheduling.compiled import compiled
from cloud.scheduling.lines import set_up
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import FAR, Shop


@compiled
def clear(shop: Shop, scratch: Scratch) -> None:
    """Nothing is placed."""
    fill(scratch.placed, False)
    fill(scratch.job_next, 0)
    fill(scratch.low, -FAR)
    fill(scratch.head, -1)
    fill(scratch.tail, -1)
    for c in range(len(shop.crew_count)):
        scratch.crew_count[c] = 1
        scratch.crew_at[c, 0], scratch.crew_busy[c, 0] = -2 * FAR, 0
    for p in range(len(shop.crew_past)):
        _people(scratch, shop.crew_past[p, 0], shop.crew_past[p, 1], shop.crew_past[p, 2], shop.crew_past[p, 3])


@compiled
def best(shop: Shop, scratch: Scratch, o: int, choice: int, active: bool) -> tuple[int, int, int, int, int]:
    """(alternative, start, end, behind whom on the machine, whose batch) of operation `o`; -1: nobody."""
    first = shop.alt_first[o]
    if choice >= 0 and (not scratch.chained or _able(shop, scratch, o, first + choice)):
        start, end, prev, leader = find(shop, scratch, o, first + choice, active)
        return first + choice, start, end, prev, leader
    found = (first, FAR, FAR, -1, -1)
    least, sure = 0.0, False
    for a in range(first, shop.alt_first[o + 1]):
        able = not scratch.chained or _able(shop, scratch, o, a)
        if sure and not able:
            continue
        start, end, prev, leader = find(shop, scratch, o, a, active)
        energy = shop.alt_kw[a] * shop.alt_ticks[a]
        if able > sure or end < found[2] or (end == found[2] and energy < least):
            found, least, sure = (a, start, end, prev, leader), energy, able
    return found


@compiled
def find(shop: Shop, scratch: Scratch, o: int, a: int, active: bool) -> tuple[int, int, int, int]:
    """(start, end, behind whom, whose batch) of operation `o` on alternative `a`."""
    m, ticks = shop.alt_machine[a], shop.alt_ticks[a]
    ready = ready_at(shop, scratch, o, m)
    if ticks == 0:
        return ready, ready, -1, -1
    for c in range(len(shop.crew_count)):
        scratch.crew_ask[c] = shop.crew_need[o, c]
    leader = _batch_for(shop, scratch, o, m, ready, ticks) if shop.batch[m] > 1 else -1
    if leader >= 0:
        found = (scratch.begin[leader], scratch.end[leader], -1, leader)
    else:
        start, prev = _alone(shop, scratch, o, m, ready, ticks, active)
        found = (start, start + ticks, prev, -1)
    if shop.batch[m] > 1:
        held = _held(shop, scratch, o, m, ready, ticks, found[1])
        if held[3] >= 0:
            return held
    return found


@compiled
def _alone(shop: Shop, scratch: Scratch, o: int, m: int, ready: int, ticks: int, active: bool) -> tuple[int, int]:
    """(start, behind whom) of `o` in no batch."""
    last = scratch.tail[m]
    start = _behind(shop, scratch, o, m, last, ready, ticks)
    prev = last
    n = last if active else -1
    while n >= 0 and scratch.begin[n] - scratch.setup_ticks[n] > ready:
        p = scratch.before[n]
        limit = scratch.begin[n] - set_up(shop, m, shop.family[o], shop.family[n])
        if limit - ticks >= ready and _next_can(shop, scratch, m, n, limit):
            inside = _behind(shop, scratch, o, m, p, ready, ticks)
            if inside + ticks <= limit:
                start, prev = inside, p
        n = p
    return start, prev


@compiled
def ready_at(shop: Shop, scratch: Scratch, o: int, m: int) -> int:
    """The earliest start of `o` on machine `m` but for the machine: its predecessor, wait and transport."""
    j = shop.op_job[o]
    ready: int = scratch.low[o]
    if o > shop.job_first[j]:
        lag = max(shop.wait_min[o], shop.transport[scratch.on[o - 1], m])
        ready = max(ready, scratch.end[o - 1] + lag)
    else:
        ready = max(ready, shop.job_ready[j])
    if o == shop.job_first[j] and shop.job_left[j] >= 0:
        ready = max(ready, shop.job_left[j] + max(shop.wait_min[o], shop.transport[shop.job_at[j], m]))
    return ready


@compiled
def commit(shop: Shop, scratch: Scratch, o: int, a: int, start: int, end: int, prev: int, leader: int) -> None:
    """Place `o` where `best` found it could go."""
    m = shop.alt_machine[a]
    scratch.placed[o] = True
    scratch.on[o], scratch.begin[o], scratch.end[o] = m, start, end
    scratch.leader[o] = leader
    scratch.setup_ticks[o] = 0
    if shop.alt_ticks[a] == 0:
        return
    if leader >= 0:
        scratch.was_begin[o], scratch.was_end[o] = scratch.begin[leader], scratch.end[leader]
        scratch.mate[o], scratch.mate[leader] = scratch.mate[leader], o
        _hold(shop, scratch, leader, start, end)
        scratch.filled[leader] += shop.size[o]
        _send(shop, scratch, o, leader)
    else:
        scratch.leader[o], scratch.mate[o] = o, -1
        scratch.filled[o] = shop.size[o]
        following = scratch.after[prev] if prev >= 0 else scratch.head[m]
        _link(scratch, m, prev, o)
        _link(scratch, m, o, following)
        _renew_setup(shop, scratch, m, o)
        _renew_setup(shop, scratch, m, following)
        scratch.crew_led[o] = 0
        _send(shop, scratch, o, o)


@compiled
def undo(shop: Shop, scratch: Scratch, o: int) -> None:
    """Take away `o`, the last operation that was committed."""
    m, leader = scratch.on[o], scratch.leader[o]
    scratch.placed[o] = False
    if leader < 0:
        return
    _call_back(shop, scratch, o, leader)
    if leader != o:
        scratch.filled[leader] -= shop.size[o]
        scratch.mate[leader] = scratch.mate[o]
        _hold(shop, scratch, leader, scratch.was_begin[o], scratch.was_end[o])
    else:
        following = scratch.after[o]
        _link(scratch, m, scratch.before[o], following)
        _renew_setup(shop, scratch, m, following)


@compiled
def _able(shop: Shop, scratch: Scratch, o: int, a: int) -> bool:
    """Whether greatest waits leave this alternative at all."""
    if shop.alt_dead[a]:
        return False
    if shop.wait_max[o] == FAR or o == shop.job_first[shop.op_job[o]]:
        return True
    m, at = shop.alt_machine[a], scratch.on[o - 1]
    again = 0
    if at == m and shop.alt_ticks[a] > 0 and scratch.leader[o - 1] >= 0:
        again = set_up(shop, m, shop.family[o - 1], shop.family[o])
    return bool(max(again, shop.transport[at, m]) <= shop.wait_max[o])


@compiled
def _batch_for(shop: Shop, scratch: Scratch, o: int, m: int, ready: int, ticks: int) -> int:
    """The first batch that `o` can join as it is, -1: none."""
    found = -1
    b = scratch.tail[m]
    while b >= 0 and scratch.begin[b] >= ready:
        fits = shop.family[b] == shop.family[o] and scratch.filled[b] + shop.size[o] <= shop.batch[m]
        start, end = scratch.begin[b], scratch.end[b]
        if fits and ticks <= end - start and _crews_join(shop, scratch, o, b):
            found = b
        b = scratch.before[b]
    return found


@compiled
def _held(shop: Shop, scratch: Scratch, o: int, m: int, ready: int, ticks: int, end: int) -> tuple[int, int, int, int]:
    """(start, end, -1, whose batch) of `o` with the first batch that had better begin later or last longer for it: `o`
    would else end at `end`, and gains at least what all of the batch lose together. Nobody's, -1, if there is none."""
    found = (0, 0, -1, -1)
    b = scratch.tail[m]
    while b >= 0 and scratch.end[b] > ready:
        if shop.family[b] == shop.family[o] and scratch.filled[b] + shop.size[o] <= shop.batch[m]:
            long = max(ticks, scratch.end[b] - scratch.begin[b])
            start = _later(shop, scratch, o, b, m, ready, long)
            gain = end - start - long
            if gain > 0 and gain >= _members(scratch, b) * (start + long - scratch.end[b]):
                found = (start, start + long, -1, b)
        b = scratch.before[b]
    return found


@compiled
def _members(scratch: Scratch, leader: int) -> int:
    """How many are in its batch."""
    count, x = 0, leader
    while x >= 0:
        count += 1
        x = scratch.mate[x]
    return count


@compiled
def _later(shop: Shop, scratch: Scratch, o: int, leader: int, m: int, ready: int, ticks: int) -> int:
    """When the batch of `leader` could begin with `o` in it, so many ticks long. FAR if it has to stay as it is: what
    follows one of its operations is placed already, or a greatest wait, the next work or the horizon is in the way."""
    latest, x = shop.horizon - ticks, leader
    while x >= 0:
        j = shop.op_job[x]
        if x + 1 < shop.job_first[j + 1] and scratch.placed[x + 1]:
            return FAR
        if shop.wait_max[x] < FAR:
            if x > shop.job_first[j]:
                latest = min(latest, scratch.end[x - 1] + shop.wait_max[x])
            elif shop.job_left[j] >= 0:
                latest = min(latest, shop.job_left[j] + shop.wait_max[x])
        x = scratch.mate[x]
    following = scratch.after[leader]
    if following >= 0:
        latest = min(latest, scratch.begin[following] - scratch.setup_ticks[following] - ticks)
    ready = max(ready, scratch.begin[leader])
    if ready > latest:
        return FAR
    for c in range(len(shop.crew_count)):
        scratch.crew_ask[c] = max(shop.crew_need[o, c], scratch.crew_led[leader, c])
    _staff(shop, scratch, leader, -1)
    start = _behind(shop, scratch, o, m, scratch.before[leader], ready, ticks)
    _staff(shop, scratch, leader, 1)
    return start if start <= latest else FAR


@compiled
def _hold(shop: Shop, scratch: Scratch, leader: int, start: int, end: int) -> None:
    """All of a batch from `start` to `end`."""
    if start == scratch.begin[leader] and end == scratch.end[leader]:
        return
    _staff(shop, scratch, leader, -1)
    x = leader
    while x >= 0:
        scratch.begin[x], scratch.end[x] = start, end
        x = scratch.mate[x]
    _staff(shop, scratch, leader, 1)


@compiled
def _staff(shop: Shop, scratch: Scratch, leader: int, sign: int) -> None:
    """The people of a batch go to work (1), or do not (-1)."""
    for c in range(len(shop.crew_count)):
        people = sign * scratch.crew_led[leader, c]
        if people:
            _people(scratch, c, people, scratch.begin[leader] - scratch.setup_ticks[leader], scratch.end[leader])


@compiled
def _behind(shop: Shop, scratch: Scratch, o: int, m: int, prev: int, ready: int, ticks: int) -> int:
    """The earliest start of `o` behind `prev` on machine `m`."""
    after, family = -FAR, shop.machine_family[m]
    if prev >= 0:
        after, family = scratch.end[prev], shop.family[prev]
    setup = set_up(shop, m, family, shop.family[o])
    s, last = shop.stretch_first[m], shop.stretch_first[m + 1] - 1
    while s < last and shop.stretch_end[s] < ready + ticks:
        s += 1
    while True:
        start = max(ready, shop.stretch_ready[s], max(after, shop.stretch_setup[s]) + setup)
        start = _open_from(shop, scratch, o, m, start, setup, ticks)
        if s == last or start + ticks <= shop.stretch_end[s]:
            return start
        s += 1


@compiled
def _open_from(shop: Shop, scratch: Scratch, o: int, m: int, start: int, setup: int, ticks: int) -> int:
    """From `start` on, when neither closed times nor crews are in the way of set-up and work."""
    first, last = shop.closed_first[m], shop.closed_first[m + 1]
    while True:
        w, high = first, last
        while w < high:  # the first window that ends after the set-up begins
            middle = (w + high) // 2
            if shop.closed_end[middle] > start - setup:
                high = middle
            else:
                w = middle + 1
        while w < last and shop.closed_start[w] < start + ticks:
            start = shop.closed_end[w] + setup
            w += 1
        moved = _crews_from(shop, scratch, o, start, setup, ticks)
        if moved == start:
            return start
        start = moved


@compiled
def _next_can(shop: Shop, scratch: Scratch, m: int, n: int, ready: int) -> bool:
    """Whether the set-up before `n`, placed already, may begin at `ready` instead."""
    start = scratch.begin[n]
    old = start - scratch.setup_ticks[n]
    if ready == old:
        return True
    if len(shop.crew_count):
        return False
    if ready > old:
        return True
    for w in range(shop.closed_first[m], shop.closed_first[m + 1]):
        if shop.closed_start[w] < start and ready < shop.closed_end[w]:
            return False
    s = shop.stretch_first[m + 1] - 1
    while shop.stretch_start[s] > start:
        s -= 1
    return bool(ready >= shop.stretch_setup[s])


@compiled
def _link(scratch: Scratch, m: int, a: int, b: int) -> None:
    """`b` directly behind `a` in the line of machine `m`; -1: its ends."""
    if a >= 0:
        scratch.after[a] = b
    else:
        scratch.head[m] = b
    if b >= 0:
        scratch.before[b] = a
    else:
        scratch.tail[m] = a


@compiled
def _renew_setup(shop: Shop, scratch: Scratch, m: int, o: int) -> None:
    if o >= 0:
        p = scratch.before[o]
        family = shop.family[p] if p >= 0 else shop.machine_family[m]
        scratch.setup_ticks[o] = set_up(shop, m, family, shop.family[o])


@compiled
def _send(shop: Shop, scratch: Scratch, o: int, leader: int) -> None:
    """The people that `o` needs beyond those of its batch: a batch needs those of its most demanding operation."""
    for c in range(len(shop.crew_count)):
        more = max(0, shop.crew_need[o, c] - scratch.crew_led[leader, c])
        scratch.crew_more[o, c] = more
        if more:
            scratch.crew_led[leader, c] += more
            _people(scratch, c, more, scratch.begin[leader] - scratch.setup_ticks[leader], scratch.end[leader])


@compiled
def _call_back(shop: Shop, scratch: Scratch, o: int, leader: int) -> None:
    for c in range(len(shop.crew_count)):
        more = scratch.crew_more[o, c]
        if more:
            scratch.crew_led[leader, c] -= more
            _people(scratch, c, -more, scratch.begin[leader] - scratch.setup_ticks[leader], scratch.end[leader])


@compiled
def _crews_join(shop: Shop, scratch: Scratch, o: int, leader: int) -> bool:
    """Whether the crews have what `o` needs beyond its batch."""
    for c in range(len(shop.crew_count)):
        more = shop.crew_need[o, c] - scratch.crew_led[leader, c]
        if more > 0:
            i = _step(scratch, c, scratch.begin[leader] - scratch.setup_ticks[leader])
            while i < scratch.crew_count[c] and scratch.crew_at[c, i] < scratch.end[leader]:
                if scratch.crew_busy[c, i] + more > shop.crew_count[c]:
                    return False
                i += 1
    return True


@compiled
def _crews_from(shop: Shop, scratch: Scratch, o: int, start: int, setup: int, ticks: int) -> int:
    """From `start` on, when every crew has enough people for set-up and work."""
    c, quiet = 0, 0
    crews = len(shop.crew_count)
    while quiet < crews:  # until no crew moves it any more
        people = shop.crew_count[c] - scratch.crew_ask[c]
        moved = start
        if scratch.crew_ask[c]:
            i = _step(scratch, c, start - setup)
            while i < scratch.crew_count[c] and scratch.crew_at[c, i] < start + ticks:
                if scratch.crew_busy[c, i] > people:
                    start = scratch.crew_at[c, i + 1] + setup
                i += 1
        quiet = quiet + 1 if moved == start else 1
        c = (c + 1) % crews
    return start


@compiled
def _step(scratch: Scratch, c: int, time: int) -> int:
    """The step of crew `c` in force at `time`."""
    low, high = 0, scratch.crew_count[c]
    while high - low > 1:
        middle = (low + high) // 2
        if scratch.crew_at[c, middle] <= time:
            low = middle
        else:
            high = middle
    return low


@compiled
def _people(scratch: Scratch, c: int, people: int, start: int, end: int) -> None:
    """More (or fewer) of crew `c` at work from `start` to `end`."""
    i = _cut(scratch, c, start)
    k = _cut(scratch, c, end)
    for step in range(i, k):
        scratch.crew_busy[c, step] += people
    _heal(scratch, c, k)
    _heal(scratch, c, i)


@compiled
def _cut(scratch: Scratch, c: int, time: int) -> int:
    """A step of crew `c` that begins at `time`."""
    at, busy = scratch.crew_at, scratch.crew_busy
    i = _step(scratch, c, time)
    if at[c, i] == time:
        return i
    count = scratch.crew_count[c]
    for k in range(count, i + 1, -1):
        at[c, k], busy[c, k] = at[c, k - 1], busy[c, k - 1]
    at[c, i + 1], busy[c, i + 1] = time, busy[c, i]
    scratch.crew_count[c] = count + 1
    return i + 1


@compiled
def _heal(scratch: Scratch, c: int, i: int) -> None:
    """Forget step `i` where it changes nothing."""
    at, busy = scratch.crew_at, scratch.crew_busy
    if i > 0 and busy[c, i] == busy[c, i - 1]:
        count = scratch.crew_count[c] - 1
        for k in range(i, count):
            at[c, k], busy[c, k] = at[c, k + 1], busy[c, k + 1]
        scratch.crew_count[c] = count
