"""Tree search and rules, compiled: from a state to a sequence of all that is open.

    found = look_ahead(state, Weights(waiting=0.5), seconds=0.1, seed=1)

Bounded: one sequence per node, at most `NODES` nodes, at most `CELLS` numbers in all; a full tree grows no more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from cloud.dispatch.award import committed
from cloud.dispatch.floor import (
    CHOSEN,
    FAULTS,
    Board,
    Floor,
    Names,
    board_of,
    copied,
    draft_of,
    floor_of,
    packed_board,
    packed_floor,
    sequence_of,
    weights_of,
)
from cloud.dispatch.kernel import SEQUENCE, advance, worth
from cloud.dispatch.treekernel import BEST, Tree, packed_tree, plant, search
from messages.dispatch.decode import Choice, Weights
from messages.dispatch.rules import RULES
from messages.dispatch.state import State
from messages.dispatch.tree import COLD, HOT, NODES, Found

CELLS = 4_000_000
FIRST, CHUNK_S = 64, 0.004
"""Iterations before the first look at the clock, and about how long it is between two."""


def look_ahead(
    state: State,
    weights: Weights,
    iterations: int | None = None,
    seconds: float = 0.1,
    *,
    seeds: Iterable[Sequence[Choice]] = (),
    seed: int = 0,
) -> Found:
    """The best sequence of all that is open; `iterations`, where stated, count instead of seconds, in which there
    are some at least."""
    began = time.monotonic()
    floor, names = floor_of(state.shop)
    first = board_of(floor, names, state)
    board = copied(first)
    _, alt = draft_of(floor, names, state, ())
    count = sum(len(state.shop.route[job]) - part.next for job, part in state.jobs.items())
    tree = _room(count, len(alt), seed)
    tree.alt[:] = alt
    packed, begin, after, inner, by = (
        packed_floor(floor),
        packed_board(first),
        packed_board(board),
        packed_tree(tree),
        weights_of(weights),
    )
    for rule in range(len(RULES)):
        plant(packed, begin, after, inner, rule, by)
    for one in seeds:
        tree.order[:], tree.alt[:] = draft_of(floor, names, state, one)
        plant(packed, begin, after, inner, SEQUENCE, by)
    done = 0
    if count > 1 and iterations is not None:
        search(packed, begin, after, inner, by, iterations, 0.0, 1.0, HOT, COLD)
        done = iterations
    elif count > 1:
        spent, size = (time.monotonic() - began) / seconds, FIRST
        while spent < 1.0 or not done:
            at, spent = time.monotonic(), min(spent, 1.0)
            left = max(began + seconds - at, 0.0)
            search(packed, begin, after, inner, by, size, spent, min(1.0, spent + CHUNK_S / seconds), HOT, COLD)
            done += size
            took = max(time.monotonic() - at, 1e-6)
            size = max(1, int(size / took * min(CHUNK_S, left)))
            spent = (time.monotonic() - began) / seconds
    sequence = sequence_of(floor, names, state, tree.best_order, tree.best_chosen)
    tree.order[:], tree.alt[:] = tree.best_order, tree.best_chosen
    board.all[:] = first.all
    advance(packed, after, tree.order, tree.alt, tree.made, SEQUENCE, by)
    award = partial(committed, floor, names, first, tree.order, tree.made)
    return Found(tuple(sequence), float(tree.value[BEST]), done, award)


def by_rule(state: State, kind: str, weights: Weights, seeds: Iterable[Sequence[Choice]] = ()) -> Found:
    """What a rule of `messages.dispatch.rules` does; where parts would block each other, the first of `seeds` by which
    they do not, if there is one."""
    floor, names = floor_of(state.shop)
    first = board_of(floor, names, state)
    rules_own = _made(floor, names, state, first, (), list(RULES).index(kind), weights)
    found, faults = rules_own
    if faults:
        made = (_made(floor, names, state, first, one, SEQUENCE, weights) for one in seeds)
        found, _ = next((one for one in made if not one[1]), rules_own)
    return found


def _made(
    floor: Floor, names: Names, state: State, first: Board, seed: Sequence[Choice], rule: int, weights: Weights
) -> tuple[Found, int]:
    """A sequence of all that is open, and its faults."""
    board = copied(first)
    order, alt = draft_of(floor, names, state, seed)
    if rule != SEQUENCE:
        order = np.zeros(sum(len(state.shop.route[job]) - part.next for job, part in state.jobs.items()), np.int64)
    made = np.zeros((len(alt), 5), np.int64)
    packed, after, by = packed_floor(floor), packed_board(board), weights_of(weights)
    advance(packed, after, order, alt, made, rule, by)
    value = worth(packed, packed_board(first), after, order, made, by)
    sequence = sequence_of(floor, names, state, order, made[:, CHOSEN])
    found = Found(tuple(sequence), float(value), 0, partial(committed, floor, names, first, order, made))
    return found, int(board.clock[FAULTS]) - state.faults


def _room(steps: int, every: int, seed: int) -> Tree:
    nodes = max(2, min(NODES, CELLS // max(1, steps + every)))
    return Tree(
        child=np.full(nodes, -1, np.int64),
        sibling=np.full(nodes, -1, np.int64),
        job=np.zeros(nodes, np.int64),
        alternative=np.zeros(nodes, np.int64),
        visits=np.zeros(nodes, np.int64),
        reward=np.zeros(nodes),
        walk_value=np.zeros(nodes),
        walk_order=np.empty((nodes, steps), np.int64),
        walk_alt=np.empty((nodes, every), np.int64),
        order=np.zeros(steps, np.int64),
        alt=np.zeros(every, np.int64),
        best_order=np.zeros(steps, np.int64),
        best_chosen=np.zeros(every, np.int64),
        made=np.zeros((every, 5), np.int64),
        value=np.array([np.inf, np.inf, np.inf]),
        size=np.zeros(2, np.int64),
        dice=np.array([2 * seed + 1], np.uint64),
    )
