"""A front as a sweep over clean and cheap hours: many weights and limits, each begun at the best plan there is for it.

    sweep = sweep_of(shop, ("makespan", "energy", "carbon"), hard, wanted, latest=140)
    sweep.turn(archive, share=0.4, seed=1)           # one weight and limit; what is found goes into the archive

Each turn has a limit of every time (and of the peak) between the least and the most of the archive, and weights of the
measures that are sums over ticks. The plan of the archive that is best under these has jobs taken off and put back
where they cost least, as `cloud.scheduling.shifting` does; what comes out goes into the archive. So every turn is a
short run of `Shift` with limits and weights, begun at what the turns around it have found. `knows` says what lies
beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import comb
from typing import Any

import numpy as np

from cloud.scheduling.archive import Archive
from cloud.scheduling.boardkernel import copy, load_board
from cloud.scheduling.frontboard import Pair, keep, no_board
from cloud.scheduling.packed import packed, scratch_of
from cloud.scheduling.rates import RATED, curve_values, rates_of
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.seam import MEASURES
from cloud.scheduling.shiftboard import Rules, desk_of, packed_desk, packed_rates, packed_rules
from cloud.scheduling.shiftkernel import refine
from cloud.scheduling.shop import BASE_LOAD, FAR, GENERATION, Bools, Floats, Shop, alternatives_of
from messages.plan import Measure

PRICED: tuple[Measure, ...] = ("carbon", "cost", "ledger")
"""Measures for which it matters when power is drawn."""
MOST_CELLS = 8_000_000
"""Numbers in the room the placing of a job needs: beyond that a step takes too long."""
JOBS = 4
"""At most so many jobs are taken off at once."""
BLINK = 0.01
"""Share of places that are overlooked, so that not the same is found again."""
HOT, COLD = 0.05, 0.001
"""First and last temperature, as shares of what one job costs."""
NARROW = 0.02
"""A measure's range on the front counts as this share of its value at least, when weights are drawn."""
TIE = 1e-4
"""Weight of a limited measure, so that of equal plans the shorter one is found."""
CELLS = 64
"""Weights and limits, about so many."""
LEAST = 0.001
"""Of a measure that a direction does not care for."""
MEMBER = 0.25
"""Share of turns that begin at any plan of the archive, with its times (and peak) as limits."""
JITTER = 0.3
"""How much weights differ from turn to turn (of their logarithm)."""
FIRST_ROUNDS = 60
"""Rounds of a turn at most, until every direction had its turn."""
ROUNDS, LEAST_ROUNDS, WORK = 300, 20, 54_000
"""Rounds of a turn, at most and at least; rounds times operations at most (some 50 ms)."""
TIMES, PEAK = (0, 1), 5


def knows(shop: Shop, order: Sequence[Measure], latest: int) -> str:
    """Empty, or why these measures are not swept."""
    if not any(one in RATED for one in order):
        return "a sweep sums energy, carbon, cost and ledger"
    return no_board(shop, latest, most_cells=MOST_CELLS)


@dataclass(frozen=True, eq=False)
class _Cell:
    """A direction: limits and weights."""

    levels: dict[int, float]  # of times and peak: its square is the share of the front's range; 1: no limit
    step: float  # between two levels
    shares: Floats  # (7,)


@dataclass(eq=False)
class Sweep:
    """Boards to work on. One thread."""

    shop: Shop
    packed_shop: Shop
    scratch: Scratch
    hard: Floats  # (7,)
    wanted: int  # measures that are counted, one bit each
    latest: int
    crowded: int  # the carrier whose peak counts, -1: none
    room: Floats  # (T,) kW of it that others than the machines leave
    tracked: Bools
    bounded: Bools  # (7,) which measures are limited, not weighed
    desk: Any
    empty: Pair
    now: Pair
    spare: Pair
    best: Pair
    cells: list[_Cell]
    turns: int = 0

    def turn(self, archive: Archive, *, share: float, seed: int) -> int:
        """One cell, once; `share` of the budget is spent. Rounds done."""
        count = int(archive.taken[0])
        rng = np.random.default_rng(seed)
        if self.turns % len(self.cells) == 0:
            self.cells = [self.cells[i] for i in rng.permutation(len(self.cells))]
        cell = self.cells[self.turns % len(self.cells)]
        self.turns += 1
        values = archive.values[:count]
        low, high = values.min(axis=0), values.max(axis=0)
        limit, weight = self._limits(cell, low, high, rng), self._weights(cell, low, high, rng)
        able = np.flatnonzero((values <= limit * (1 + 1e-9) + 1e-9).all(axis=1))
        if not len(able):
            return 0
        first = able[np.argmin(values[able] @ weight)]
        if rng.random() < MEMBER:
            first = int(rng.integers(count))
            limit = np.where(self.bounded, values[first], self.hard)
        rules = packed_rules(self._rules(limit))
        rates = packed_rates(
            rates_of(self.shop, {one: weight[k] for k, one in enumerate(MEASURES) if weight[k]}, latest=self.latest)
        )
        args = (self.packed_shop, rates, rules, self.desk)
        alts, starts = alternatives_of(self.shop, archive.machine[first]), archive.start[first].copy()
        order = np.lexsort((np.arange(len(starts)), starts)).astype(np.int32)
        copy(self.empty.packed, self.now.packed)
        if not load_board(*args, self.now.packed, alts, starts, order):
            return 0
        copy(self.now.packed, self.best.packed)
        most = ROUNDS if self.turns > len(self.cells) else FIRST_ROUNDS
        rounds = max(LEAST_ROUNDS, min(most, WORK // len(starts)))
        heat = abs(float(values[first] @ weight)) / max(1, len(self.shop.job_ready)) * HOT * (COLD / HOT) ** share
        refine(
            *args, self.now.packed, self.spare.packed, self.best.packed, rounds, heat, heat, JOBS, BLINK, seed % 2**31
        )
        for board in (self.best.plain, self.now.plain):
            keep(self.packed_shop, self.scratch, archive, self.hard, self.wanted, board.alt, board.start, board.off)
        return rounds

    def _limits(self, cell: _Cell, low: Floats, high: Floats, rng: np.random.Generator) -> Floats:
        """(7,) about those of a direction; inf: none."""
        limit = self.hard.copy()
        for k, level in cell.levels.items():
            near = max(0.0, level + cell.step * (rng.random() - 0.5))
            if near < 1.0:
                most = low[k] + (high[k] - low[k]) * near * near
                limit[k] = min(limit[k], np.floor(most + 1e-9) if k in TIMES else most)
        for k, name in enumerate(MEASURES):
            if name in RATED:
                limit[k] = np.inf  # weights must do
        return limit

    def _weights(self, cell: _Cell, low: Floats, high: Floats, rng: np.random.Generator) -> Floats:
        """(7,) of a direction, about."""
        unit = np.maximum(high - low, NARROW * np.maximum(np.abs(low), np.abs(high)))
        weight: Floats = cell.shares * np.exp(JITTER * rng.standard_normal(7)) / np.where(unit > 1e-9, unit, 1.0)
        return weight

    def _rules(self, limit: Floats) -> Rules:
        crowd = self.crowded if np.isfinite(limit[PEAK]) else -1
        headroom = self.room + limit[PEAK] if crowd >= 0 else np.zeros(0)
        return Rules(int(min(limit[0], self.latest)), int(min(limit[1], FAR)), headroom, crowd, self.tracked)


def sweep_of(shop: Shop, order: Sequence[Measure], hard: Floats, wanted: int, *, latest: int) -> Sweep:
    """Empty boards for work until `latest`."""
    first = rates_of(shop, {}, latest=latest)
    crowded, room, tracked = -1, np.zeros(0), first.net.copy()
    if ("peak" in order or np.isfinite(hard[PEAK])) and shop.electricity >= 0:
        crowded = shop.electricity
        ticks = np.arange(first.low, first.high, dtype=np.int64)
        inside = (ticks >= 0) & (ticks < shop.horizon)
        room = curve_values(shop, GENERATION, crowded, ticks) - curve_values(shop, BASE_LOAD, crowded, ticks) * inside
        tracked[crowded] = True
    bounded = np.array([one in order and one not in RATED for one in MEASURES])
    empty, now, spare, best = (Pair.of(shop, first) for _ in range(4))
    return Sweep(
        shop, packed(shop), scratch_of(shop), hard, wanted, latest, crowded, room, tracked, bounded,
        packed_desk(desk_of(shop, first)), empty, now, spare, best, _cells_of(order, hard),
    )  # fmt: skip


def _cells_of(order: Sequence[Measure], hard: Floats) -> list[_Cell]:
    """Limits times weights, at most about `CELLS`."""
    rated = [k for k, one in enumerate(MEASURES) if one in RATED and (one in order or np.isfinite(hard[k]))]
    limited = [k for k, one in enumerate(MEASURES) if one in order and one not in RATED]
    parts, most = 0, CELLS ** ((len(rated) - 1) / max(1, len(rated) - 1 + len(limited)))
    while len(rated) > 1 and comb(parts + len(rated), len(rated) - 1) <= max(len(rated), most):
        parts += 1
    directions = [one for one in product(range(parts + 1), repeat=len(rated)) if sum(one) == parts] if parts else [(1,)]
    each = max(2, round((CELLS / len(directions)) ** (1 / max(1, len(limited)))))
    levels = [one / (each - 1) for one in range(each)]
    cells = []
    for shares in directions:
        weight = np.zeros(7)
        weight[[k for k in limited if k in TIMES]] = TIE
        weight[rated] = np.maximum(np.array(shares) / max(1, parts), LEAST)
        for one in product(levels, repeat=len(limited)):
            cells.append(_Cell(dict(zip(limited, one, strict=True)), 1 / (each - 1), weight))
    return cells
