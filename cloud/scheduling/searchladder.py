"""A front as a ladder: one limit of the time per rung, and on each rung the least of the other measures.

    ladder = ladder_of(shop, ("makespan", "energy"), least=54, most=118, grain=2)
    ladder.load(draft)                                     # a plan from elsewhere, onto every rung it keeps
    ladder.climb(archive, rung, direction, rounds=100, heat=60.0, seed=1)

Rungs are annealed by taking jobs off and putting them back where they cost least (`cloud.scheduling.shiftkernel`); what
is good under a tight limit is taken over by all looser ones. With three measures each rung has several directions
(weights of the last two). `knows` says what lies beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloud.scheduling.archive import Archive
from cloud.scheduling.boardkernel import copy, load_board, value_of
from cloud.scheduling.frontboard import Pair, keep, no_board
from cloud.scheduling.packed import packed, scratch_of
from cloud.scheduling.rates import RATED, Rates, rates_of
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shiftboard import Desk, Rules, desk_of, packed_desk, packed_rates, packed_rules
from cloud.scheduling.shiftkernel import refine
from cloud.scheduling.shop import FAR, Draft, Floats, Shop, alternatives_of
from messages.plan import Measure

RUNGS = 32
"""At most so many limits of the time."""
MOST_CELLS = 4_000_000
"""Numbers in the room the placing of a job needs: beyond that a step takes too long."""
JOBS = 5
"""At most so many jobs are taken off at once."""
BLINK = 0.02
"""Share of places that are overlooked, so that not the same is found again."""
ALL = 127
"""Every measure is counted."""
NO_LIMITS = np.full(7, np.inf)


def knows(shop: Shop, order: Sequence[Measure], latest: int) -> str:
    """Empty, or why there is no ladder for these measures."""
    if order[0] != "makespan":
        return "a ladder limits the makespan"
    if not all(one in RATED for one in order[1:]):
        return "a ladder sums energy, carbon, cost and ledger only"
    return no_board(shop, latest, most_cells=MOST_CELLS)


@dataclass(eq=False)
class _Direction:
    """Weights of the rated measures, and how they are counted."""

    plain: Rates
    rates: Any  # packed


@dataclass(eq=False)
class Ladder:
    """Rungs times directions, one board each. One thread."""

    shop: Shop
    packed_shop: Shop
    scratch: Scratch
    limits: list[int]
    directions: list[_Direction]
    rules: list[Any]
    boards: list[list[Pair]]  # the best of each rung and direction
    walking: list[list[Any]]  # where annealing is
    values: Floats  # (rungs, directions) of the best, inf: nothing there yet
    at: Floats  # (rungs, directions) of where annealing is
    desk: Any
    spare: Any  # room for a board

    def climb(self, archive: Archive, rung: int, direction: int, *, rounds: int, heat: float, seed: int) -> bool:
        """Anneal one board for so many rounds at one temperature; False where it has no plan to begin with."""
        best, now = self.boards[rung][direction], self.walking[rung][direction]
        if not self._take_over(rung, direction):
            return False
        rates, rules = self.directions[direction].rates, self.rules[rung]
        value = refine(
            self.packed_shop,
            rates,
            rules,
            self.desk,
            now,
            self.spare,
            best.packed,
            rounds,
            heat,
            heat,
            JOBS,
            BLINK,
            seed,
        )
        self.at[rung, direction] = value_of(self.packed_shop, rates, now)
        if value < self.values[rung, direction] - 1e-9 * abs(value):
            self.values[rung, direction] = value
            made = best.plain
            keep(self.packed_shop, self.scratch, archive, NO_LIMITS, ALL, made.alt, made.start, made.off)
        return True

    def load(self, draft: Draft, makespan: float) -> None:
        """A plan from elsewhere, onto the tightest rung it keeps, if it is better there; it spreads from there."""
        rung = next((r for r, limit in enumerate(self.limits) if limit >= makespan), None)
        if rung is None:
            return
        alts = alternatives_of(self.shop, draft.machine)
        order = np.lexsort((np.arange(len(alts)), draft.start)).astype(np.int32)
        for d, direction in enumerate(self.directions):
            board = Pair.of(self.shop, direction.plain)
            if not load_board(
                self.packed_shop, direction.rates, self.rules[rung], self.desk, board.packed, alts, draft.start, order
            ):
                continue
            value = value_of(self.packed_shop, direction.rates, board.packed)
            if value < self.values[rung, d]:
                self.values[rung, d] = self.at[rung, d] = value
                copy(board.packed, self.boards[rung][d].packed)
                copy(board.packed, self.walking[rung][d])

    def _take_over(self, rung: int, direction: int) -> bool:
        """From a tighter rung, what is better than where this one is; False where there is nothing at all."""
        below = int(np.argmin(self.values[: rung + 1, direction]))
        best = float(self.values[below, direction])
        if not np.isfinite(best):
            return False
        if best < self.values[rung, direction]:
            self.values[rung, direction] = best
            copy(self.boards[below][direction].packed, self.boards[rung][direction].packed)
        near = max(0, rung - 1)
        if self.at[near, direction] < self.at[rung, direction]:
            self.at[rung, direction] = self.at[near, direction]
            copy(self.walking[near][direction], self.walking[rung][direction])
        elif not np.isfinite(self.at[rung, direction]):
            self.at[rung, direction] = best
            copy(self.boards[rung][direction].packed, self.walking[rung][direction])
        return True


def ladder_of(
    shop: Shop, order: Sequence[Measure], *, least: int, most: int, grain: int, scale: Sequence[float]
) -> Ladder:
    """Empty boards for limits from `least` to `most`. `scale`: what one is worth of each measure after the first."""
    steps = max(1, (most - least) // grain)
    places = np.unique((np.arange(RUNGS) * max(1.0, steps / (RUNGS - 1))).astype(np.int64))
    limits = [least + grain * int(one) for one in places if one <= steps] if len(order) == 2 else []
    if not limits:
        limits = sorted({least + grain * round(steps * share * share) for share in np.linspace(0.0, 1.0, 10)})
    pack = packed(shop)
    late = FAR
    directions = []
    for shares in _shares(len(order) - 1):
        weights = {one: share / value for one, share, value in zip(order[1:], shares, scale, strict=True)}
        rates = rates_of(shop, weights, latest=limits[-1] + 1)
        directions.append(_Direction(rates, packed_rates(rates)))
    free = np.zeros(0)
    tracked = directions[0].plain.net.copy()
    rules = [packed_rules(Rules(limit, late, free, -1, tracked)) for limit in limits]
    boards = [[Pair.of(shop, direction.plain) for direction in directions] for _ in limits]
    walking = [[Pair.of(shop, direction.plain).packed for direction in directions] for _ in limits]
    first = directions[0].plain
    desk: Desk = packed_desk(desk_of(shop, first))
    values = np.full((len(limits), len(directions)), np.inf)
    spare = Pair.of(shop, first).packed
    return Ladder(
        shop, pack, scratch_of(shop), limits, directions, rules, boards, walking, values, values.copy(), desk, spare
    )


def _shares(measures: int) -> list[tuple[float, ...]]:
    """Weights of the measures after the first."""
    if measures == 1:
        return [(1.0,)]
    if measures == 2:
        return [(1.0, 0.001), (0.7, 0.3), (0.4, 0.6), (0.15, 0.85), (0.001, 1.0)]
    even = tuple(1 / measures for _ in range(measures))
    return [even, *(tuple(0.7 if i == k else 0.3 / (measures - 1) for i in range(measures)) for k in range(measures))]
