"""Start times: machines and sequences stay, work moves into cheap or clean hours, and every gap idles or is off.

    better = retime(shop, draft, {"carbon": 1.0}, latest=96)
    better.draft, better.value, better.bound, better.exact

Least weighted sum of energy, carbon, cost, ledger, makespan and tardiness over all start times of this machine choice
and these sequences, by the deadline, within releases, transport, waits, set-ups, calendars, and, if tardiness is
limited, no order later than it is. Batches stay together.

* For given gaps (idle or off) the sum is one of functions of single starts, and a minimum cut finds the best starts
  (`timingkernel`): exactly. Gaps are then chosen anew for these starts, and so on until nothing changes.
* `nodes` > 0: branch and bound over the gaps, so many cuts at most. A gap not yet decided costs at least its cheapest
  power, tick by tick. If it ends in time, no other start times of these sequences are better: `exact`.
* Under on-site generation a kW is not worth the same everywhere: prices are taken at the present load, the result is
  judged as it is, and kept only if it is better. Crews: who worked after somebody goes on doing so. Both are not exact.
* Work stays between the breakdowns where it is; a plan around breakdowns is not called exact.

Bounds: a grid of more than `MAX_NODES` (operation, tick) pairs is refused with `UsageError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cloud.scheduling.measure import measures
from cloud.scheduling.rates import Rates, rates_of
from cloud.scheduling.seam import MEASURES, NEAR
from cloud.scheduling.shop import DOWN, FAR, IDLE, OFF, PREHEAT, SETUP, Draft, Floats, Indices, Ints, Shop, durations
from cloud.scheduling.timingkernel import cheapest_starts, tighten
from messages.errors import UsageError
from messages.plan import Measure

MAX_NODES = 4_000_000
"""Of the cut; it takes about 1 µs each, and 100 bytes."""
ROUNDS = 20
"""Cuts at most until gaps and starts agree."""
PEOPLE = 2_000
"""Operations with crews, at most: their order is kept pair by pair."""


@dataclass(frozen=True, eq=False)
class Retimed:
    """`value` is the weighted sum of the measures; no start times of these sequences are below `bound`, if known."""

    draft: Draft
    value: float
    bound: float | None
    exact: bool


def retime(
    shop: Shop,
    draft: Draft,
    weights: Mapping[Measure, float],
    *,
    latest: int | None = None,
    limits: Mapping[Measure, float] | None = None,
    nodes: int = 0,
) -> Retimed:
    """The draft with better start times and gaps, never worse; the draft itself if none keep the limits.

    latest  all work ends by then; none: the horizon, or the limit of makespan, or the end of the draft
    """
    limits = limits or {}
    if weights.get("peak"):
        raise UsageError("retime: peak power is no sum over start times; limit it instead")
    now = value_of(shop, draft, weights)
    if not shop.operations:
        return Retimed(draft, now, now, True)
    ticks = durations(shop, draft)
    end = int((draft.start + ticks).max())
    deadline = min(shop.horizon, int(limits.get("makespan", FAR)), FAR if latest is None else latest)
    if deadline == FAR:
        deadline = end
    if end > deadline:
        raise UsageError(f"retime: the draft ends at {end}, after {deadline}; give a later deadline")
    rates = rates_of(shop, weights, latest=deadline)
    plain = not bool(rates.net.any())
    task = _Task(shop, draft, ticks, rates if plain else _priced(shop, draft, ticks, rates), deadline, limits)
    best, bound, closed = task.search(nodes)
    found = replace(draft, start=best.start, off=best.off)
    value = value_of(shop, found, weights)
    within = all(
        measured <= limits[name] + NEAR * max(1.0, abs(limits[name]))
        for name, measured in zip(MEASURES, measures(shop, found.machine, found.start, found.off), strict=True)
        if name in limits
    )
    exact = closed and plain and task.exact and within
    if not within or value > now:
        found, value = draft, now
    constant = value - best.value if exact else 0.0
    return Retimed(found, value, bound + constant if exact else None, exact)


def value_of(shop: Shop, draft: Draft, weights: Mapping[Measure, float]) -> float:
    """The weighted sum of a draft's measures."""
    found = measures(shop, draft.machine, draft.start, draft.off)
    return float(sum(weights.get(name, 0.0) * one for name, one in zip(MEASURES, found, strict=True)))


@dataclass(frozen=True, eq=False)
class _Found:
    """Starts, gaps, and their value (without what no start time changes)."""

    start: Ints
    off: np.ndarray[tuple[int], np.dtype[np.bool_]]
    value: float


@dataclass(frozen=True)
class _Gap:
    """Between two works of one machine, or from when it is known to be warm."""

    machine: int
    left: int  # variable, -1: none
    right: int
    since: int  # where left is -1
    setup: int
    ticks: int  # of the left work
    may_idle: bool


@dataclass
class _Task:
    """One sequence: variables (operations, batches, the makespan, orders), arcs, costs of each start, gaps."""

    shop: Shop
    draft: Draft
    ticks: Ints
    rates: Rates
    deadline: int
    limits: Mapping[Measure, float]
    exact: bool = True
    arcs: list[tuple[int, int, int]] = field(default_factory=list)
    gaps: list[_Gap] = field(default_factory=list)
    least: dict[int, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shop, draft = self.shop, self.draft
        self.alt = np.array(
            [
                next(a for a in range(shop.alt_first[o], shop.alt_first[o + 1]) if shop.alt_machine[a] == m)
                for o, m in enumerate(draft.machine.tolist())
            ],
            np.int64,
        )
        self.variable = np.arange(shop.operations)
        self._batches()
        count = shop.operations
        self.low: list[int] = [shop.floor] * count
        self.high: list[int] = (self.deadline - self.ticks).tolist()
        for j in range(len(shop.job_ready)):
            self._job(j)
        self._machines()
        self._people()
        self._ends()
        low, high = np.array(self.low, np.int64), np.array(self.high, np.int64)
        tail, head, lag = self._arrays(self.arcs)
        if not tighten(low, high, tail, head, lag):
            raise UsageError(
                "retime: the draft breaks a rule of the problem, or a deadline; check it with violations()"
            )
        self.windows = (low, high)
        if int((high - low + 1).sum()) > MAX_NODES:
            raise UsageError(
                f"retime: {shop.operations} operations by {int((high - low).max()) + 1} ticks are more than "
                f"{MAX_NODES} pairs; give an earlier deadline or a coarser tick"
            )
        self.costs = [self._cost(i, np.arange(low[i], high[i] + 1)) for i in range(len(low))]
        self._add_work()

    # --- what holds -----------------------------------------------------------------------------------

    def _batches(self) -> None:
        together: dict[tuple[int, int], int] = {}
        for o, (m, start) in enumerate(zip(self.draft.machine.tolist(), self.draft.start.tolist(), strict=True)):
            if self.shop.batch[m] > 1 and self.ticks[o]:
                self.variable[o] = together.setdefault((m, start), o)
        self.exact = len(set(self.variable.tolist())) == self.shop.operations

    def _arc(self, tail: int, head: int, lag: int) -> None:
        tail, head = int(self.variable[tail]), int(self.variable[head])
        if tail != head:
            self.arcs.append((tail, head, int(lag)))

    def _job(self, j: int) -> None:
        shop, before = self.shop, -1
        for o in range(shop.job_first[j], shop.job_first[j + 1]):
            m, i = self.draft.machine[o], int(self.variable[o])
            if before < 0:
                self.low[i] = max(self.low[i], int(shop.job_ready[j]))
                if shop.job_at[j] >= 0:
                    left = int(shop.job_left[j])
                    lag = max(int(shop.transport[shop.job_at[j], m]), int(shop.wait_min[o]))
                    self.low[i] = max(self.low[i], left + lag)
                    self.high[i] = min(self.high[i], left + int(shop.wait_max[o]))
            else:
                lag = max(shop.transport[self.draft.machine[before], m], shop.wait_min[o])
                self._arc(before, o, self.ticks[before] + lag)
                if shop.wait_max[o] < FAR:
                    self._arc(o, before, -self.ticks[before] - shop.wait_max[o])
            before = o

    def _machines(self) -> None:
        shop = self.shop
        for m in range(len(shop.preheat)):
            mine = [
                o for o in np.flatnonzero(self.draft.machine == m).tolist() if self.ticks[o] and self.variable[o] == o
            ]
            mine.sort(key=lambda o: int(self.draft.start[o]))
            family, before = int(shop.machine_family[m]), -1
            lines = list(range(shop.stretch_first[m], shop.stretch_first[m + 1]))
            for o in mine:
                line = max(one for one in lines if shop.stretch_start[one] <= self.draft.start[o] or one == lines[0])
                table = shop.setup_table[m]
                setup = 0 if table < 0 else int(shop.setup[table, family, shop.family[o]])
                same = before >= 0 and self.draft.start[before] >= shop.stretch_start[line]
                self._behind(m, before if same else -1, o, line, setup)
                self.high[o] = min(self.high[o], int(shop.stretch_end[line]) - int(self.ticks[o]))
                family, before = int(shop.family[o]), o
            past = shop.machine_since[m] >= 0 and shop.stretch_warm[lines[0]] < 0
            if mine and (len(lines) > 1 or (past and (shop.power[m, OFF] or shop.power[m, DOWN]))):
                self.exact = False

    def _behind(self, m: int, left: int, o: int, line: int, setup: int) -> None:
        """Operation `o` comes after `left` on machine `m`, or first in a stretch."""
        shop = self.shop
        if left >= 0:
            self._arc(left, o, self.ticks[left] + setup)
            self.gaps.append(_Gap(m, left, o, 0, setup, int(self.ticks[left]), True))
            return
        self.low[o] = max(self.low[o], int(shop.stretch_ready[line]))
        if setup:
            self.low[o] = max(self.low[o], int(shop.stretch_setup[line]) + setup)
        since = int(shop.stretch_warm[line])
        if since >= 0:
            self.gaps.append(_Gap(m, -1, o, since, setup, 0, True))
        else:
            self.gaps.append(_Gap(m, -1, o, -1, setup, 0, False))

    def _people(self) -> None:
        """Operations that need one crew and did not overlap keep their order."""
        shop = self.shop
        setup = np.zeros(shop.operations, np.int64)
        for gap in self.gaps:
            setup[gap.right] = gap.setup
        for c in range(len(shop.crew_count)):
            mine = np.flatnonzero((shop.crew_need[:, c] > 0) & (self.ticks > 0))
            if len(mine) > PEOPLE:
                raise UsageError(f"retime: {len(mine)} operations share one crew, at most {PEOPLE}")
            if len(mine):
                self.exact = False
            for a in mine.tolist():
                for b in mine.tolist():
                    if self.draft.start[a] + self.ticks[a] <= self.draft.start[b] - setup[b]:
                        self._arc(a, b, int(self.ticks[a] + setup[b]))
            for _, _, _, end in shop.crew_past[shop.crew_past[:, 0] == c].tolist():
                for b in mine.tolist():
                    if self.draft.start[b] - setup[b] >= end:
                        self.low[int(self.variable[b])] = max(self.low[int(self.variable[b])], end + int(setup[b]))

    def _ends(self) -> None:
        """Variables for the makespan and for orders with a due date, where they count."""
        shop = self.shop
        last = shop.job_first[1:] - 1
        ends = self.draft.start + self.ticks
        if self.rates.work:
            self.low.append(max(shop.past_makespan, shop.floor))
            self.high.append(max(self.deadline, self.low[-1]))
            self.makespan = len(self.low) - 1
            self.variable = np.append(self.variable, self.makespan)
            for o in last.tolist():
                self._arc(o, self.makespan, self.ticks[o])
        else:
            self.makespan = -1
        self.orders: dict[int, int] = {}
        bound = "tardiness" in self.limits
        for lot, due in enumerate(shop.lot_due.tolist()):
            mine = [int(o) for o, of in zip(last, shop.job_lot, strict=True) if of == lot]
            if due >= FAR:
                continue
            if bound:
                reached = max([due, int(shop.lot_past[lot]), *(int(ends[o]) for o in mine)])
                self.exact = self.exact and self.limits["tardiness"] <= 0
                for o in mine:
                    i = int(self.variable[o])
                    self.high[i] = min(self.high[i], reached - int(self.ticks[o]))
            if self.rates.late:
                self.low.append(max(int(shop.lot_past[lot]), shop.floor))
                self.high.append(max(self.deadline, self.low[-1]))
                self.orders[len(self.low) - 1] = due
                self.variable = np.append(self.variable, len(self.low) - 1)
                for o in mine:
                    self._arc(o, len(self.low) - 1, self.ticks[o])

    # --- what it costs --------------------------------------------------------------------------------

    def _cost(self, i: int, at: Ints) -> Floats:
        if i == self.makespan:
            return self.rates.work * at.astype(np.float64)
        if i in self.orders:
            return self.rates.late * np.maximum(0, at - self.orders[i]).astype(np.float64)
        return np.zeros(len(at))

    def _at(self, i: int) -> Ints:
        """All starts of a variable."""
        return np.arange(self.windows[0][i], self.windows[1][i] + 1)

    def _over(self, carrier: int, begin: Ints, end: Ints) -> Floats:
        """What a kW costs from each `begin` to each `end`."""
        top = self.rates.high - self.rates.low
        sums = self.rates.before[carrier]
        low = np.clip(begin - self.rates.low, 0, top)
        found: Floats = sums[np.clip(end - self.rates.low, 0, top)] - sums[low]
        return found

    def _add_work(self) -> None:
        shop = self.shop
        kw = np.zeros(shop.operations)
        np.maximum.at(kw, self.variable[: shop.operations], shop.alt_kw[self.alt])
        for o in range(shop.operations):
            i = int(self.variable[o])
            at, m = self._at(i), self.draft.machine[o]
            if i == o and self.ticks[o]:
                self.costs[i] = self.costs[i] + kw[o] * self._over(shop.carrier[m], at, at + self.ticks[o])
            if shop.transport_kw and o + 1 < shop.operations and shop.op_job[o + 1] == shop.op_job[o]:
                lag = shop.transport[m, self.draft.machine[o + 1]]
                end = at + self.ticks[o]
                self.costs[i] = self.costs[i] + shop.transport_kw * self._over(shop.transport_carrier, end, end + lag)
        for gap in self.gaps:
            at = self._at(gap.right)
            carrier = shop.carrier[gap.machine]
            change = shop.power[gap.machine, SETUP] * self._over(carrier, at - gap.setup, at)
            self.costs[gap.right] = self.costs[gap.right] + change
            shut = np.zeros(len(at), np.bool_)
            for w in range(shop.closed_first[gap.machine], shop.closed_first[gap.machine + 1]):
                shut |= (at - gap.setup < shop.closed_end[w]) & (at + self.ticks[gap.right] > shop.closed_start[w])
            self.costs[gap.right] = np.where(shut, np.inf, self.costs[gap.right])

    def _gap_over(self, m: int, choice: int, begin: Ints, end: Ints) -> Floats:
        """What machine `m` costs from `begin` to `end`: idle 0, off 1, not decided 2 (then at least so much)."""
        shop, k = self.shop, self.shop.carrier[m]
        if choice < 2:
            kw: Floats = shop.power[m, OFF if choice else IDLE] * self._over(k, begin, end)
            return kw
        if m not in self.least:
            power = shop.power[m, [IDLE, OFF, PREHEAT]] if shop.preheat[m] else shop.power[m, [IDLE, OFF]]
            price = self.rates.linear[k]
            self.least[m] = np.concatenate([[0.0], np.cumsum(np.minimum(price * power.min(), price * power.max()))])
        sums, top = self.least[m], self.rates.high - self.rates.low
        found: Floats = sums[np.clip(end - self.rates.low, 0, top)] - sums[np.clip(begin - self.rates.low, 0, top)]
        return found

    def _parts(self, gap: _Gap, choice: int) -> tuple[Floats, Floats, float]:
        """(by starts of the left work, by starts of the right work, constant) for idle 0, off 1, not decided 2."""
        m = gap.machine
        heat = int(self.shop.preheat[m])
        ready = np.maximum(self._at(gap.right) - gap.setup, self._powered(gap))
        warming = self._warming(m, ready)
        if gap.left < 0 and gap.since < 0:
            return np.zeros(0), warming, 0.0
        zero = np.full(1, self.rates.low)
        right = self._gap_over(m, choice, zero, ready - heat if choice == 1 else ready)
        if choice == 1:
            right = right + warming
        if gap.left < 0:
            return np.zeros(0), right, -float(self._gap_over(m, choice, zero, np.full(1, gap.since))[0])
        return -self._gap_over(m, choice, zero, self._at(gap.left) + gap.ticks), right, 0.0

    def _powered(self, gap: _Gap) -> int:
        """No gap before this: a first set-up may reach back beyond the time from which the machine is warm."""
        return gap.since if gap.left < 0 <= gap.since else self.rates.low - int(self.shop.preheat[gap.machine])

    def _warming(self, m: int, ready: Ints) -> Floats:
        found: Floats = self.shop.power[m, PREHEAT] * self._over(
            self.shop.carrier[m], ready - self.shop.preheat[m], ready
        )
        return found

    # --- search ---------------------------------------------------------------------------------------

    def search(self, nodes: int) -> tuple[_Found, float, bool]:
        """(the best found, a bound, whether it is proved best)."""
        fixed = self._present()
        best = self._judge(self.draft.start)
        for _ in range(ROUNDS):
            solved = self._solve(fixed)
            if solved is None:
                break
            found = self._judge(solved[0])
            if found.value < best.value - 1e-12 * abs(best.value):
                best = found
            chosen = [1 if found.off[gap.right] else 0 for gap in self.gaps]
            if chosen == fixed:
                break
            fixed = chosen
        if not nodes:
            return best, -np.inf, False
        return self._branch(best, nodes)

    def _branch(self, best: _Found, nodes: int) -> tuple[_Found, float, bool]:
        """Branch and bound over idle or off in every gap."""
        start = [2 if gap.may_idle else 1 for gap in self.gaps]
        stack = [start]
        slack = 1e-9 * max(1.0, abs(best.value))
        while stack:
            if nodes <= 0:
                return best, -np.inf, False
            choice = stack.pop()
            nodes -= 1
            solved = self._solve(choice)
            if solved is None or solved[1] >= best.value - slack:
                continue
            found = self._judge(solved[0])
            if found.value < best.value:
                best = found
            if solved[1] >= best.value - slack:
                continue
            losses = [
                (
                    self._gap_cost(gap, solved[0], 1 if found.off[gap.right] else 0)
                    - self._gap_cost(gap, solved[0], 2),
                    g,
                )
                for g, gap in enumerate(self.gaps)
                if choice[g] == 2
            ]
            if not losses:
                continue
            _, g = max(losses)
            taken = 1 if found.off[self.gaps[g].right] else 0
            stack.append([1 - taken if i == g else one for i, one in enumerate(choice)])
            stack.append([taken if i == g else one for i, one in enumerate(choice)])
        return best, best.value, True

    def _present(self) -> list[int]:
        """The gaps as the draft has them."""
        off = self.draft.off
        chosen = []
        for gap in self.gaps:
            heat = int(self.shop.preheat[gap.machine])
            room = int(self.draft.start[gap.right]) - gap.setup
            room -= int(self.draft.start[gap.left]) + gap.ticks if gap.left >= 0 else gap.since
            chosen.append(1 if not gap.may_idle or (off[gap.right] and room >= heat) else 0)
        return chosen

    def _arrays(self, arcs: Sequence[tuple[int, int, int]]) -> tuple[Indices, Indices, Ints]:
        rows = np.array(arcs, np.int64).reshape(-1, 3)
        return rows[:, 0].astype(np.int32), rows[:, 1].astype(np.int32), rows[:, 2].copy()

    def _solve(self, choice: Sequence[int]) -> tuple[Ints, float] | None:
        """The best starts for these gaps, and their cost; None: they do not fit."""
        costs = list(self.costs)
        arcs = list(self.arcs)
        low, high = (one.copy() for one in self.windows)
        constant = 0.0
        for gap, one in zip(self.gaps, choice, strict=True):
            left, right, more = self._parts(gap, one)
            constant += more
            costs[gap.right] = costs[gap.right] + right
            if gap.left >= 0:
                costs[gap.left] = costs[gap.left] + left
            if one == 1 and gap.may_idle:
                heat = int(self.shop.preheat[gap.machine])
                if gap.left >= 0:
                    arcs.append((gap.left, gap.right, gap.ticks + gap.setup + heat))
                else:
                    low[gap.right] = max(low[gap.right], gap.since + gap.setup + heat)
        tail, head, lag = self._arrays(arcs)
        if (low > high).any() or not tighten(low, high, tail, head, lag):
            return None
        first = np.concatenate([[0], np.cumsum(high - low + 1)]).astype(np.int64)
        shown = [costs[i][low[i] - self.windows[0][i] : high[i] + 1 - self.windows[0][i]] for i in range(len(low))]
        least = [float(one.min()) for one in shown]
        if not np.isfinite(least).all():
            return None
        spread = sum(float((one[np.isfinite(one)]).max()) - bottom for one, bottom in zip(shown, least, strict=True))
        flat = np.concatenate([one - bottom for one, bottom in zip(shown, least, strict=True)])
        flat = np.where(np.isfinite(flat), flat, 2 * spread + 1.0)
        starts = cheapest_starts(first, flat, low, high, tail, head, lag)
        paid = sum(float(one[s - a]) for one, s, a in zip(shown, starts.tolist(), low.tolist(), strict=True))
        return (starts, paid + constant) if np.isfinite(paid) else None

    def _judge(self, starts: Ints) -> _Found:
        """These starts with the best choice in every gap."""
        count = self.shop.operations
        if len(starts) == count:
            starts = np.concatenate([starts, self._least_ends(starts)])
        off = np.zeros(count, np.bool_)
        value = 0.0
        for i, one in enumerate(self.costs):
            if i >= count or self.variable[i] == i:
                value += float(one[starts[i] - self.windows[0][i]])
        for gap in self.gaps:
            heat = int(self.shop.preheat[gap.machine])
            begin = int(starts[gap.left]) + gap.ticks if gap.left >= 0 else gap.since
            idle = self._gap_cost(gap, starts, 0) if gap.may_idle else np.inf
            fits = not gap.may_idle or int(starts[gap.right]) - gap.setup - begin >= max(heat, 1)
            out = self._gap_cost(gap, starts, 1) if fits else np.inf
            off[gap.right] = out < idle - 1e-9 * max(abs(idle), abs(out)) if gap.may_idle else True
            value += min(idle, out)
        for o in range(count):
            off[o] = off[self.variable[o]]
        return _Found(starts[self.variable[:count]], off, value)

    def _least_ends(self, starts: Ints) -> Ints:
        """Makespan and orders for given starts of operations."""
        found = np.array(self.windows[0][self.shop.operations :])
        for tail, head, lag in self.arcs:
            if head >= self.shop.operations:
                place = head - self.shop.operations
                found[place] = max(found[place], starts[tail] + lag)
        return found

    def _gap_cost(self, gap: _Gap, starts: Ints, choice: int) -> float:
        m = gap.machine
        ready = np.array([max(int(starts[gap.right]) - gap.setup, self._powered(gap))])
        if gap.left < 0 and gap.since < 0:
            return float(self._warming(m, ready)[0])
        begin = np.array([int(starts[gap.left]) + gap.ticks if gap.left >= 0 else gap.since])
        if choice != 1:
            return float(self._gap_over(m, choice, begin, ready)[0])
        return float((self._gap_over(m, 1, begin, ready - self.shop.preheat[m]) + self._warming(m, ready))[0])


def _priced(shop: Shop, draft: Draft, ticks: Ints, rates: Rates) -> Rates:
    """Linear rates that hold near the present load: a kW costs what it is bought for, or what its sale would bring."""
    load = np.zeros_like(rates.linear)
    for o, (m, start) in enumerate(zip(draft.machine.tolist(), draft.start.tolist(), strict=True)):
        a = next(one for one in range(shop.alt_first[o], shop.alt_first[o + 1]) if shop.alt_machine[one] == m)
        load[shop.carrier[m], max(start - rates.low, 0) : max(start + ticks[o] - rates.low, 0)] += shop.alt_kw[a]
    typical = float(shop.alt_kw.mean()) if len(shop.alt_kw) else 0.0
    share = np.clip((load + typical - rates.room) / max(typical, 1e-9), 0.0, 1.0)
    linear = rates.linear + np.where(rates.net[:, None], share * rates.buy + (1 - share) * rates.sell, 0.0)
    before = np.concatenate([np.zeros((len(linear), 1)), np.cumsum(linear, axis=1)], axis=1)
    return rates._replace(linear=linear, before=before, net=np.zeros_like(rates.net))
