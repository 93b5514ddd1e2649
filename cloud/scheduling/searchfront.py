"""The search for a front: short plans by tabu, many levels annealed together, then a ladder; all into one archive.

    state = front_search(desk, seed=1, start=None, replicas=16)
    stepped(state, 1000)                    # about so many plans laid out, or jobs taken off and put back

First the shortest plan (tabu search, where it knows the shop). Then plans with one limit of the first measure each and
weights of the others are annealed and change places. Where the first measure is the makespan and the others are sums
over ticks, a ladder of limits (`cloud.scheduling.searchladder`) has most of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from cloud.scheduling import searchladder, shiftfront, tabunet
from cloud.scheduling.archive import archived
from cloud.scheduling.measure import choose
from cloud.scheduling.search import Desk, first_orders, put_draft
from cloud.scheduling.searchladder import Ladder, ladder_of
from cloud.scheduling.searchwalk import INNER, Pool, Terms, begun, walked
from cloud.scheduling.shiftfront import PRICED, Sweep, sweep_of
from cloud.scheduling.shop import Draft, Floats, durations
from cloud.scheduling.tabu import Tabu

WALK = 0.3
"""Share of the budget after which the ladder takes over."""
LONGEST = 2.2
"""The loosest limit, in shortest makespans."""
HOT, COLD = 0.002, 0.0003
"""Temperatures of the walk, as shares of the goal."""
LADDER_HOT, LADDER_COLD = 0.002, 0.00015
TABU = 30_000
"""At most so many iterations for the shortest plan; it ends earlier where that is proved."""
ROUNDS = 60
"""Of one rung, before the next has its turn."""
WALK_PRICED = 0.1
"""Share of the budget after which the sweep takes over."""
LONGER_H = 24.0
"""So long after the last known end clean hours are looked for, where nothing limits it."""


@dataclass(eq=False)
class FrontSearch:
    """The state."""

    desk: Desk
    seed: int
    pool: Pool
    terms: Terms
    evaluations: int = 0
    progress: float = 0.0
    turn: int = 0
    ladder: Ladder | None = None
    sweep: Sweep | None = None
    tried: bool = False

    @property
    def priced(self) -> bool:
        """Whether it matters for a measure when power is drawn."""
        return bool(set(self.desk.goal.order) & set(PRICED))

    @property
    def walk(self) -> float:
        """Share of the budget for the walk."""
        return WALK_PRICED if self.priced else WALK

    def adopt(self, draft: Draft, values: Floats) -> None:
        """A plan of somebody else: into the archive and onto the ladder."""
        archived(self.desk.archive, values, draft.machine, draft.start, draft.off)
        if self.ladder is not None:
            self.ladder.load(draft, values[0])


def front_search(desk: Desk, seed: int, start: Draft | None, replicas: int) -> FrontSearch:
    """Plans to begin with."""
    rng = np.random.default_rng(seed)
    pool = first_orders(desk.shop, rng, replicas, start)
    free = np.full((replicas, 7), np.inf)
    free[:] = desk.hard
    desk.measure_scale(pool, desk.terms(np.ones((replicas, 7)), free, exchange=False))
    shortest = _shortest(desk, seed, pool, replicas)
    weight, limit = np.zeros((replicas, 7)), free.copy()
    first, others = desk.places[0], desk.places[1:]
    tilt = rng.dirichlet(np.ones(len(others)), replicas) if len(others) > 1 else np.ones((replicas, 1))
    weight[:, others] = tilt / desk.scale[others]
    weight[:, first] = 1e-3 / desk.scale[first]
    least = shortest if first == 0 else float(desk.best.values[0, first])
    top = max(LONGEST * least, float(desk.scale[first]))
    levels = least + (top - least) * np.linspace(0.0, 1.0, replicas) ** 1.5
    limit[:, first] = np.minimum(limit[:, first], np.ceil(levels - 1e-9) if first < 2 else levels)
    pool.cost[:] = 1e300
    return FrontSearch(desk, seed, pool, desk.terms(weight, limit, exchange=True))


def stepped(state: FrontSearch, n: int) -> FrontSearch:
    """About `n` evaluations more."""
    until = state.evaluations + n
    while state.evaluations < until:
        state.turn += 1
        if state.progress >= state.walk and not state.tried:
            state.tried = True
            _begin_sweep(state) if state.priced else _begin_ladder(state)
        if state.sweep is not None:
            _sweep(state, state.sweep)
        elif state.ladder is not None:
            _climb(state, state.ladder)
        else:
            _walk(state)
        if state.desk.over():
            break
    return state


def _walk(state: FrontSearch) -> None:
    desk, pool = state.desk, state.pool
    share = min(1.0, state.progress / state.walk) if not state.tried else state.progress
    heat = np.full(len(pool.cost), HOT * (COLD / HOT) ** share)
    if state.turn == 1:
        state.evaluations += begun(
            desk.packed_shop, desk.scratch, desk.room, pool, desk.best, state.terms, desk.archive, desk.trial
        )
    state.evaluations += walked(
        desk.packed_shop, desk.scratch, desk.room, pool, desk.best, state.terms, desk.archive, desk.trial,
        heat, 0.0, 1, _dice(state),
    )  # fmt: skip


def _climb(state: FrontSearch, ladder: Ladder) -> None:
    share = (state.progress - WALK) / (1.0 - WALK)
    rungs, directions = ladder.values.shape
    place = state.turn % (rungs * directions)
    heat = LADDER_HOT * (LADDER_COLD / LADDER_HOT) ** share
    ladder.climb(
        state.desk.archive, place // directions, place % directions, rounds=ROUNDS, heat=heat, seed=_dice(state)
    )
    state.evaluations += ROUNDS


def _sweep(state: FrontSearch, sweep: Sweep) -> None:
    share = (state.progress - state.walk) / (1.0 - state.walk)
    state.evaluations += 1 + sweep.turn(state.desk.archive, share=share, seed=_dice(state))


def _begin_sweep(state: FrontSearch) -> None:
    desk, archive = state.desk, state.desk.archive
    taken = int(archive.taken[0])
    if not taken:
        return
    shop, order = desk.shop, desk.goal.order
    known = archive.values[:taken, 0]
    latest = int(max(LONGEST * known.min(), known.max() + LONGER_H * shop.hour_ticks))
    latest = int(min(latest, desk.hard[0], shop.horizon))
    if shiftfront.knows(shop, order, latest):
        return
    state.sweep = sweep_of(shop, order, desk.hard, desk.wanted, latest=latest)


def _begin_ladder(state: FrontSearch) -> None:
    desk, archive = state.desk, state.desk.archive
    taken = int(archive.taken[0])
    if not taken:
        return
    shop, order = desk.shop, desk.goal.order
    least = int(archive.values[:taken, 0].min())
    most = min(int(LONGEST * least), int(min(desk.hard[0], shop.horizon)))
    if most < least or searchladder.knows(shop, order, most) or np.isfinite(desk.hard[1:]).any():
        return
    scale = [float(desk.scale[k]) for k in desk.places[1:]]
    state.ladder = ladder_of(shop, order, least=least, most=most, grain=_grain(desk), scale=scale)
    for i in np.argsort(archive.values[:taken, 0]).tolist():
        draft = Draft(archive.machine[i].copy(), archive.start[i].copy(), archive.off[i].copy())
        state.ladder.load(draft, float(archive.values[i, 0]))


def _grain(desk: Desk) -> int:
    """Makespans lie on multiples of this, as a rule."""
    shop = desk.shop
    times = [
        *shop.alt_ticks.tolist(),
        *shop.job_ready.tolist(),
        *shop.stretch_ready.tolist(),
        *shop.closed_end.tolist(),
    ]
    times += [*shop.transport.ravel().tolist(), *shop.wait_min.tolist(), *shop.setup.ravel().tolist()]
    return max(1, gcd(*(int(one) for one in times)))


def _shortest(desk: Desk, seed: int, pool: Pool, replicas: int) -> float:
    """The shortest makespan that is known; a plan of tabu search joins the pool, where it knows the shop."""
    if desk.places[0] != 0 or tabunet.knows(desk.shop):
        return float(desk.best.values[0, 0]) if desk.best.cost[0] < 1e300 else float(desk.scale[0])
    state = Tabu().begin(desk.shop, seed)
    left, part = min(TABU, max(1_000, 2_000_000 // desk.shop.operations)), max(1, TABU // desk.shop.operations)
    while left > 0 and not state.done:
        Tabu().step(state, min(part, left))
        left -= part
        if desk.over():
            break
    draft = state.draft()
    off = draft.off.copy()
    choose(desk.packed_shop, desk.scratch, draft.machine, draft.start, np.array([1.0, 0.0, 0.0]), off)
    draft = Draft(draft.machine, draft.start, off)
    values = desk.plan_values(draft)
    ends = draft.start + durations(desk.shop, draft)
    if (values <= desk.hard + 1e-9).all() and ends.max() <= desk.shop.horizon:
        archived(desk.archive, values, draft.machine, draft.start, draft.off)
    for r in range(max(1, replicas // 4)):
        put_draft(desk.shop, pool, r, draft)
    return float(values[0])


def _dice(state: FrontSearch) -> int:
    return (state.seed * 1_000_003 + state.turn * 7919) % (2**31)


__all__ = ["INNER", "FrontSearch", "front_search", "stepped"]
