"""A lower bound of carbon, cost or energy over all plans on the grid of ticks: a time-indexed linear program.

    bound = grid_bound(shop, {"carbon": 1.0}, latest=96, seconds=30)
    bound.value        # no plan that ends by `latest` is below; None, and `reason`, where it cannot be had

Every machine is a flow of one unit through (off, on) x ticks: preheating leads from off to on, idling and work from on
to on; the start of every operation on every machine at every tick is a share of that flow. Between two operations of a
job shares wait in a buffer, so that the later one never runs ahead. A machine is preheated at least as much as any of
its operations is done there: without this line the bound is ten times as far away.

Left out, which only makes the bound smaller: set-up times, crews, greatest waits, transport between all but the nearest
machines, being off or down. Refused: batch machines, on-site generation, and more than `MAX_VARIABLES`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cloud.scheduling.linear import Program, solve
from cloud.scheduling.rates import Rates, rates_of
from cloud.scheduling.shop import DOWN, FAR, IDLE, OFF, PREHEAT, SETUP, Shop
from messages.plan import Measure

MAX_VARIABLES = 200_000
"""About 10 µs each to build, and 1 kB."""
TRIED_S = 2e-5
"""Seconds per variable below which the program is not even begun: solving alone takes twice as long."""
SHAVED = 1e-7
"""Relative tolerance of the linear solver, given away."""


@dataclass(frozen=True)
class GridBound:
    """The bound of the weighted sum, or why there is none."""

    value: float | None
    reason: str = ""
    variables: int = 0


def grid_bound(
    shop: Shop,
    weights: Mapping[Measure, float],
    *,
    latest: int,
    seconds: float,
    tardiness: float | None = None,
    over: Callable[[], bool] = lambda: False,
) -> GridBound:
    """No plan that ends by `latest`, and whose tardiness is at most `tardiness`, has a smaller weighted sum.
    Given up two seconds after `seconds`, or soon after `over` turns true."""
    until_s = time.monotonic() + seconds

    def late() -> bool:
        return over() or time.monotonic() >= until_s

    rates = rates_of(shop, weights, latest=latest)
    refusal = _refusal(shop, weights, rates)
    if refusal:
        return GridBound(None, refusal)
    program = _Program(shop, rates, latest, tardiness)
    if program.size() > MAX_VARIABLES:
        return GridBound(None, f"{program.size()} variables, at most {MAX_VARIABLES}: take coarser ticks")
    if seconds < TRIED_S * program.size():
        return GridBound(None, f"{seconds:.1f} s are too few for {program.size()} variables")
    if not program.build(late):
        return GridBound(None, "there was no time to make the linear program")
    value, reason = solve(program.linear, seconds=until_s - time.monotonic(), over=late)
    if value is None:
        return GridBound(None, reason)
    return GridBound(value - SHAVED * abs(value) + _fixed(shop, weights), variables=len(program.linear.cost))


def _refusal(shop: Shop, weights: Mapping[Measure, float], rates: Rates) -> str:
    if weights.get("peak"):
        return "peak power is no sum over ticks"
    if rates.net.any():
        return "on-site generation: a kW is not worth the same in all cases"
    if (shop.batch > 1).any():
        return "batch machines"
    if (rates.linear < 0).any() and shop.power[:, [OFF, DOWN]].any():
        return "negative prices for machines that draw power while off"
    return ""


def _fixed(shop: Shop, weights: Mapping[Measure, float]) -> float:
    """What the past and the base load cost, whatever is planned."""
    green = weights.get("carbon", 0.0) + weights.get("ledger", 0.0)
    return float(
        weights.get("energy", 0.0) * shop.fixed_kwh
        + green * shop.fixed_kg.sum()
        + weights.get("cost", 0.0) * shop.fixed_cost.sum()
        - weights.get("ledger", 0.0) * shop.capture_kg
    )


@dataclass
class _Program:
    """Rows by name: a list of (coefficient, variable)."""

    shop: Shop
    rates: Rates
    latest: int
    tardiness: float | None
    linear: Program = field(default_factory=Program)

    def size(self) -> int:
        """About how many variables there will be."""
        ticks = self.latest - self.rates.low
        return int((len(self.shop.alt_machine) + 3 * len(self.shop.preheat)) * ticks)

    def build(self, late: Callable[[], bool]) -> bool:
        """Fill the program; False: given up, as it is too late."""
        self.flow: dict[tuple[str, int, int], list[tuple[float, int]]] = defaultdict(list)
        self.heats: dict[int, list[int]] = defaultdict(list)  # by line
        for m in range(len(self.shop.preheat)):
            if late():
                return False
            self._machine(m)
        self.ends: list[list[tuple[float, int]]] = []
        for j in range(len(self.shop.job_ready)):
            if late():
                return False
            self._job(j)
        for place, row in enumerate(self.flow.values()):
            if place % 1000 == 0 and late():
                return False
            self._row(row, 0.0, 0.0)
        self._times()
        return True

    def _row(self, row: list[tuple[float, int]], low: float, high: float) -> None:
        self.linear.row(row, low, high)

    def _share(self, price: float) -> int:
        return self.linear.variable(price)

    def _over(self, carrier: int, begin: int, end: int) -> float:
        """What a kW costs from `begin` to `end`."""
        sums, top = self.rates.before[carrier], self.rates.high - self.rates.low
        low, high = (min(max(one - self.rates.low, 0), top) for one in (begin, end))
        return float(sums[high] - sums[low])

    def _machine(self, m: int) -> None:
        """Preheating, idling, switching off, and being off from the first tick to the last."""
        shop, low = self.shop, self.rates.low
        power, heat, k = shop.power[m], int(shop.preheat[m]), int(shop.carrier[m])
        waiting = [power[IDLE], power[SETUP]] if shop.setup_table[m] >= 0 else [power[IDLE]]
        for line in range(shop.stretch_first[m], shop.stretch_first[m + 1]):
            first = line == shop.stretch_first[m]
            begin = low if first else int(shop.stretch_start[line])
            end = min(self.latest, int(shop.stretch_end[line]))
            for t in range(begin, end + 1):
                off = self._share(0.0)
                self.flow["on", m, t].append((-1.0, off))
                self.flow["off", m, t].append((1.0, off))
                if t < end:
                    price = self._over(k, t, t + 1)
                    idle = self._share(min(kw * price for kw in waiting))
                    self.flow["on", m, t].append((-1.0, idle))
                    self.flow["on", m, t + 1].append((1.0, idle))
                if t + heat <= end:
                    warming = self._share(float(power[PREHEAT]) * self._over(k, t, t + heat))
                    self.flow["off", m, t].append((-1.0, warming))
                    self.flow["on", m, t + heat].append((1.0, warming))
                    self.heats[line].append(warming)
            if shop.stretch_warm[line] >= 0:
                warm = self._share(0.0)
                self.flow["on", m, max(int(shop.stretch_warm[line]), low)].append((1.0, warm))
                self.flow["off", m, low].append((-1.0, warm))
        source = self._share(0.0)
        self.flow["off", m, low].append((1.0, source))
        for t in range(low, self.latest):
            rest = self._share(0.0)
            self.flow["off", m, t].append((-1.0, rest))
            self.flow["off", m, t + 1].append((1.0, rest))
        sink = self._share(0.0)
        self.flow["off", m, self.latest].append((-1.0, sink))

    def _job(self, j: int) -> None:
        """Shares of its operations' starts, and the buffers between them."""
        shop = self.shop
        operations = range(shop.job_first[j], shop.job_first[j + 1])
        shortest = {o: int(shop.alt_ticks[shop.alt_first[o] : shop.alt_first[o + 1]].min()) for o in operations}
        head = int(shop.job_ready[j])
        tail = sum(shortest[o] + int(shop.wait_min[o]) for o in operations if o > operations[0])
        buffer: dict[int, list[tuple[float, int]]] = defaultdict(list)
        for o in operations:
            if o > operations[0]:
                tail -= shortest[o] + int(shop.wait_min[o])
                head += int(shop.wait_min[o])
            following = o + 1 if o + 1 in operations else None
            once, ends = [], []
            leaving: dict[int, list[tuple[float, int]]] = defaultdict(list)
            for a in range(shop.alt_first[o], shop.alt_first[o + 1]):
                m, ticks = int(shop.alt_machine[a]), int(shop.alt_ticks[a])
                lag, carried = self._carried(m, following)
                by_line: dict[int, list[int]] = defaultdict(list)
                for t in range(head, self.latest - tail - ticks + 1):
                    line = self._line(m, t, ticks)
                    if line is None:
                        continue
                    price = float(shop.alt_kw[a]) * self._over(int(shop.carrier[m]), t, t + ticks)
                    price += min(
                        (kw * self._over(shop.transport_carrier, t + ticks, t + ticks + c) for c, kw in carried),
                        default=0.0,
                    )
                    share = self._share(price)
                    once.append((1.0, share))
                    ends.append((float(t + ticks), share))
                    if ticks:
                        by_line[line].append(share)
                        self.flow["on", m, t].append((-1.0, share))
                        self.flow["on", m, t + ticks].append((1.0, share))
                    if o > operations[0]:
                        buffer[t].append((-1.0, share))
                    if following is not None:
                        leaving[t + ticks + lag].append((1.0, share))
                for line, shares in by_line.items():
                    if shop.stretch_warm[line] < 0:
                        self._row(
                            [(1.0, one) for one in self.heats[line]] + [(-1.0, one) for one in shares], 0.0, np.inf
                        )
            self._row(once, 1.0, 1.0)
            self._buffer(buffer)
            buffer = leaving
            head += shortest[o]
        self.ends.append(ends)

    def _carried(self, m: int, following: int | None) -> tuple[int, list[tuple[int, float]]]:
        """(least lag to the next operation, [(ticks, kW) of carrying it to each of its machines])."""
        shop = self.shop
        if following is None:
            return 0, []
        targets = shop.alt_machine[shop.alt_first[following] : shop.alt_first[following + 1]]
        ticks = [int(shop.transport[m, n]) for n in targets]
        lag = max(min(ticks), int(shop.wait_min[following]))
        return lag, [(one, shop.transport_kw) for one in ticks] if shop.transport_kw else []

    def _line(self, m: int, start: int, ticks: int) -> int | None:
        """The stretch in which work can be there; None: closed, broken or not warm so early."""
        shop = self.shop
        if not ticks:
            return int(shop.stretch_first[m])
        for w in range(shop.closed_first[m], shop.closed_first[m + 1]):
            if start < shop.closed_end[w] and shop.closed_start[w] < start + ticks:
                return None
        for line in range(shop.stretch_first[m], shop.stretch_first[m + 1]):
            if shop.stretch_ready[line] <= start and start + ticks <= shop.stretch_end[line]:
                return line
        return None

    def _buffer(self, buffer: dict[int, list[tuple[float, int]]]) -> None:
        """What came in and did not go on waits until the next event."""
        before = None
        events = sorted(buffer)
        for position, t in enumerate(events):
            row = list(buffer[t])
            if before is not None:
                row.append((1.0, before))
            if position + 1 < len(events):
                before = self._share(0.0)
                row.append((-1.0, before))
            self._row(row, 0.0, 0.0)

    def _times(self) -> None:
        """Makespan and tardiness, where they count."""
        shop = self.shop
        if self.rates.work:
            makespan = self.linear.variable(self.rates.work, float(shop.past_makespan), np.inf)
            for row in self.ends:
                self._row([(1.0, makespan), *((-end, share) for end, share in row)], 0.0, np.inf)
        if not self.rates.late and self.tardiness is None:
            return
        late = []
        for lot, due in enumerate(shop.lot_due.tolist()):
            if due >= FAR:
                continue
            one = self.linear.variable(self.rates.late, float(max(0, int(shop.lot_past[lot]) - due)), np.inf)
            late.append((1.0, one))
            for row, of in zip(self.ends, shop.job_lot, strict=True):
                if of == lot:
                    self._row([(1.0, one), *((-end, share) for end, share in row)], -float(due), np.inf)
        if self.rates.late and shop.past_tardiness:
            self.linear.variable(self.rates.late, float(shop.past_tardiness), float(shop.past_tardiness))
        if self.tardiness is not None and late:
            self._row(late, 0.0, float(self.tardiness) - shop.past_tardiness)
