"""Monte Carlo tree search over decisions, compiled: what `messages.dispatch.tree` does, with the same dice.

See there for the algorithm. Nodes are numbers, 0 the root; a node's walk is a whole sequence (order and alternatives).
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.experimental import structref

from cloud.dispatch.floor import CHOSEN, NEXT, Board, Floats, Floor, Ints
from cloud.dispatch.kernel import FIFO, LJF, SEQUENCE, SJF, advance, worth
from cloud.scheduling.arrays import paste
from cloud.scheduling.compiled import compiled

BEST, FIRST, WORST = range(3)
"""Places of `value`: of the best sequence so far, of the best and the worst of the seeds."""
GROWN, SEEDS = range(2)
"""Places of `count`."""


class Tree(NamedTuple):
    """Room for one search: T nodes, N open steps, O steps."""

    child: Ints  # (T,) the first, -1: none
    sibling: Ints  # (T,) the next child of its parent, -1: none
    job: Ints  # (T,) what was decided last
    alternative: Ints  # (T,)
    visits: Ints  # (T,)
    reward: Floats  # (T,) sum
    walk_value: Floats  # (T,)
    walk_order: Ints  # (T, N)
    walk_alt: Ints  # (T, O)
    order: Ints  # (N,) being tried
    alt: Ints  # (O,)
    best_order: Ints  # (N,)
    best_chosen: Ints  # (O,)
    made: Ints  # (O, 5)
    value: Floats  # (3,)
    size: Ints  # (2,) nodes, seeds
    dice: npt.NDArray[np.uint64]  # (1,)


@structref.register
class TreeType(types.StructRef):
    """Of a packed tree."""


class PackedTree(structref.StructRefProxy):
    """A `Tree` as kernels take it."""


structref.define_proxy(PackedTree, TreeType, list(Tree._fields))  # type: ignore[no-untyped-call]


def packed_tree(tree: Tree) -> Tree:
    """Behind one pointer; the arrays are shared, for type checkers a `Tree`."""
    return cast(Tree, _pack(tree))


@compiled
def _pack(tree: Tree) -> PackedTree:
    return PackedTree(*tree)  # type: ignore[no-untyped-call]


@compiled
def plant(floor: Floor, begin: Board, board: Board, tree: Tree, rule: int, weights: Floats) -> float:
    """A seed: the sequence of `rule`, or that in `order` and `alt` of the tree; its value."""
    value = _tried(floor, begin, board, tree, rule, weights)
    for o in range(len(tree.alt)):
        tree.alt[o] = -1 if rule in (FIFO, SJF, LJF) else tree.made[o, CHOSEN]
    if tree.size[SEEDS] == 0 or value < tree.value[FIRST]:
        tree.value[FIRST] = value
    tree.value[WORST] = value if tree.size[SEEDS] == 0 else max(value, tree.value[WORST])
    if tree.size[GROWN] == 0:
        _grow(tree, -1, 0, 0, value, 0.0)
        tree.visits[0] = 0
    _keep_best(tree, value)
    tree.size[SEEDS] += 1
    _learn(floor, begin, tree, value, 0.5)
    return value


@compiled
def search(
    floor: Floor,
    begin: Board,
    board: Board,
    tree: Tree,
    weights: Floats,
    iterations: int,
    low: float,
    high: float,
    hot: float,
    cold: float,
) -> None:
    """So many iterations, in which the share of the budget that is spent rises from `low` to `high`."""
    count, value, dice = len(tree.order), tree.value, tree.dice
    scale = max(value[FIRST], 1.0)
    spread = max(value[WORST] - value[FIRST], 0.02 * scale)
    for n in range(iterations):
        spent = low + (high - low) * n / iterations
        curious = 1.0 - 1.05 * spent if spent < 0.8 else 0.0
        heat = scale * hot * (cold / hot) ** spent
        node = depth = 0
        while tree.child[node] >= 0 and depth + 1 < count and _below(dice, 2) == 0:
            node = _chosen(tree, node, curious)
            depth += 1
        paste(tree.walk_order[node], tree.order)
        paste(tree.walk_alt[node], tree.alt)
        _change(floor, begin, tree, depth)
        found = _tried(floor, begin, board, tree, SEQUENCE, weights)
        rise = found - tree.walk_value[node]
        if rise <= 0.0 or _below(dice, 1 << 30) < exp(-rise / heat) * (1 << 30):
            _walk_on(tree, node, found)
        _keep_best(tree, found)
        _learn(floor, begin, tree, found, min(1.0, max(0.0, (value[FIRST] + spread - found) / (2.0 * spread))))


@compiled
def _tried(floor: Floor, begin: Board, board: Board, tree: Tree, rule: int, weights: Floats) -> float:
    paste(begin.all, board.all)
    advance(floor, board, tree.order, tree.alt, tree.made, rule, weights)
    return worth(floor, begin, board, tree.order, tree.made, weights)


@compiled
def _chosen(tree: Tree, node: int, curious: float) -> int:
    """The child of the highest upper confidence bound; ties: the oldest."""
    best, most = -1, -1.0
    much = log(tree.visits[node])
    one = tree.child[node]
    while one >= 0:
        visits = tree.visits[one]
        bound = tree.reward[one] / visits + curious * sqrt(much / visits)
        if bound > most:
            best, most = one, bound
        one = tree.sibling[one]
    return best


@compiled
def _change(floor: Floor, begin: Board, tree: Tree, depth: int) -> None:
    """Another machine for a step, or another place in the order for a job, from `depth` on."""
    order, alt, dice, count = tree.order, tree.alt, tree.dice, len(tree.order)
    kind = _below(dice, 4)
    if kind <= 1:
        _reassign(floor, begin, order, alt, depth + _below(dice, count - depth), dice)
    if kind >= 1:
        p = depth + _below(dice, count - depth)
        q = depth + _below(dice, count - depth)
        job = order[p]
        while p < q:
            order[p] = order[p + 1]
            p += 1
        while p > q:
            order[p] = order[p - 1]
            p -= 1
        order[q] = job


@compiled
def _reassign(floor: Floor, begin: Board, order: Ints, alt: Ints, p: int, dice: npt.NDArray[np.uint64]) -> None:
    j = order[p]
    o = floor.step_first[j] + begin.part[j, NEXT]
    for q in range(p):
        if order[q] == j:
            o += 1
    options = floor.alt_first[o + 1] - floor.alt_first[o]
    if options > 1:
        other = floor.alt_first[o] - 1 + _below(dice, options + 1)
        alt[o] = -1 if other < floor.alt_first[o] else other


@compiled
def _learn(floor: Floor, begin: Board, tree: Tree, value: float, reward: float) -> None:
    """The tree along the sequence just tried: visits, rewards, better walks, and one node more."""
    node = 0
    tree.visits[0] += 1
    tree.reward[0] += reward
    for p in range(len(tree.order)):
        j = tree.order[p]
        o = floor.step_first[j] + begin.part[j, NEXT]
        for q in range(p):
            if tree.order[q] == j:
                o += 1
        a = tree.made[o, CHOSEN]
        last, one = -1, tree.child[node]
        while one >= 0 and (tree.job[one] != j or tree.alternative[one] != a):
            last, one = one, tree.sibling[one]
        if one < 0:
            if tree.size[GROWN] < len(tree.child):
                new = _grow(tree, last, j, a, value, reward)
                if last < 0:
                    tree.child[node] = new
            return
        tree.visits[one] += 1
        tree.reward[one] += reward
        if value < tree.walk_value[one]:
            _walk_on(tree, one, value)
        node = one


@compiled
def _grow(tree: Tree, before: int, j: int, a: int, value: float, reward: float) -> int:
    new = int(tree.size[GROWN])
    tree.size[GROWN] += 1
    tree.child[new] = tree.sibling[new] = -1
    tree.job[new], tree.alternative[new], tree.visits[new], tree.reward[new] = j, a, 1, reward
    if before >= 0:
        tree.sibling[before] = new
    _walk_on(tree, new, value)
    return new


@compiled
def _walk_on(tree: Tree, node: int, value: float) -> None:
    paste(tree.order, tree.walk_order[node])
    paste(tree.alt, tree.walk_alt[node])
    tree.walk_value[node] = value


@compiled
def _keep_best(tree: Tree, value: float) -> None:
    if value < tree.value[BEST]:
        tree.value[BEST] = value
        paste(tree.order, tree.best_order)
        paste(tree.made[:, CHOSEN], tree.best_chosen)
        _walk_on(tree, 0, value)


@compiled
def _below(dice: npt.NDArray[np.uint64], limit: int) -> int:
    """A number from 0 to `limit` - 1."""
    dice[0] = dice[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return int(np.int64(dice[0] >> np.uint64(33)) % np.int64(limit))
