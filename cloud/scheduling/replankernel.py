"""A walk among schedules near one that was released, compiled: annealing on (order, choice) with a price on moving.

The order is a job number per operation, the choice an alternative per operation (see `cloud.scheduling.decode`). A step
swaps two neighbours of different jobs, takes one job's turn a little elsewhere, or gives an operation another machine
or whichever does it earliest; it is accepted by Metropolis' rule (J. Chem. Phys. 21, 1953) at a heat that falls
geometrically within the call.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.scheduling.arrays import paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.decode import decode
from cloud.scheduling.lines import choose
from cloud.scheduling.measure import measure
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shop import Bools, Floats, Indices, Ints, Shop

FAULT = 1e6
"""Score of a schedule that misses a greatest wait or the horizon, per fault."""
REACH = 24
"""A turn is taken at most so many places from where it was."""
EXCESS = 1e3
"""Score per limit exceeded by all of it."""


class Wish(NamedTuple):
    """What is minimised."""

    released: Indices  # (O,) machine each operation was released to, -1: it was not
    weights: Floats  # (7,) per unit of each measure
    limits: Floats  # (7,) inf: none
    gaps: Floats  # (3,) weights of energy, carbon and cost by which gaps are idled or switched off
    wanted: int  # measures with a weight or a limit, as bits
    stay: float  # price of moving all that was released


class Walk(NamedTuple):
    """Where it stands, and the best it saw. Written to."""

    order: Indices  # (O,)
    choice: Indices  # (O,)
    best_order: Indices  # (O,)
    best_choice: Indices  # (O,)
    score: Floats  # (2,) here, best
    machine: Indices  # (O,) of the last schedule looked at
    start: Ints  # (O,)
    off: Bools  # (O,)
    values: Floats  # (7,)
    random: npt.NDArray[np.uint64]  # (1,)


def walk_from(order: Indices, choice: Indices, seed: int) -> Walk:
    """Room for a walk that begins there."""
    n = len(order)
    return Walk(
        order.copy(),
        choice.copy(),
        order.copy(),
        choice.copy(),
        np.array([np.inf, np.inf]),
        np.zeros(n, np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, np.bool_),
        np.zeros(7),
        np.array([seed * 2 + 1], np.uint64),
    )


@compiled
def score(shop: Shop, room: Scratch, wish: Wish, walk: Walk, order: Indices, choice: Indices) -> float:
    """Of one schedule; leaves it in `walk.machine`, `start`, `off` and `values`."""
    faults = decode(shop, room, order, choice, walk.machine, walk.start)
    choose(shop, room, walk.machine, walk.start, wish.gaps, walk.off)
    measure(shop, room, walk.machine, walk.start, walk.off, wish.wanted, walk.values)
    total, released, moved = FAULT * faults, 0, 0
    for k in range(7):
        total += wish.weights[k] * walk.values[k]
        if walk.values[k] > wish.limits[k]:
            total += EXCESS * (walk.values[k] - wish.limits[k]) / max(abs(wish.limits[k]), 1.0)
    for o in range(len(order)):
        if wish.released[o] >= 0:
            released += 1
            moved += walk.machine[o] != wish.released[o]
    return total + wish.stay * moved / max(released, 1)


@compiled
def steps(shop: Shop, room: Scratch, wish: Wish, walk: Walk, count: int, hot: float, cold: float) -> None:
    """`count` steps, from heat `hot` to `cold` in units of the score."""
    order, choice, n = walk.order, walk.choice, len(walk.order)
    if walk.score[0] == np.inf:
        walk.score[0] = score(shop, room, wish, walk, order, choice)
        walk.score[1] = walk.score[0]
    cooling = (cold / hot) ** (1.0 / max(count, 1))
    heat = hot
    for _ in range(count):
        heat *= cooling
        kind = _below(walk.random, 4)
        i, j, was = _below(walk.random, n), 0, 0
        if kind == 0:  # another machine for one operation
            alternatives = shop.alt_first[i + 1] - shop.alt_first[i]
            if alternatives < 2:
                continue
            was = choice[i]
            choice[i] = _below(walk.random, alternatives + 2)
            if choice[i] >= alternatives:
                choice[i] = -1  # wherever it is done earliest
            if choice[i] == was:
                continue
        elif kind == 1:  # one turn elsewhere
            j = min(n - 1, max(0, i + _below(walk.random, 2 * REACH + 1) - REACH))
            if order[i] == order[j]:
                continue
            _turn(order, i, j)
        else:  # two neighbours, or nearly, the other way round
            j = min(n - 1, i + 1 + _below(walk.random, 6))
            if order[i] == order[j]:
                continue
            order[i], order[j] = order[j], order[i]
        there = score(shop, room, wish, walk, order, choice)
        rise = there - walk.score[0]
        if rise <= 0 or _below(walk.random, 1 << 30) < exp(-rise / heat) * (1 << 30):
            walk.score[0] = there
            if there < walk.score[1]:
                walk.score[1] = there
                paste(order, walk.best_order)
                paste(choice, walk.best_choice)
        elif kind == 0:
            choice[i] = was
        elif kind == 1:
            _turn(order, j, i)
        else:
            order[i], order[j] = order[j], order[i]


@compiled
def _turn(order: Indices, i: int, j: int) -> None:
    """Take out place i and put it in at place j."""
    job = order[i]
    if i < j:
        for k in range(i, j):
            order[k] = order[k + 1]
    else:
        for k in range(i, j, -1):
            order[k] = order[k - 1]
    order[j] = job


@compiled
def _below(state: npt.NDArray[np.uint64], limit: int) -> int:
    """A number from 0 to limit - 1: a linear congruential generator (Knuth's MMIX), its upper bits."""
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return int(np.int64(state[0] >> np.uint64(33)) % np.int64(limit))
