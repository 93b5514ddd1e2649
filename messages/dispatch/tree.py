"""Monte Carlo tree search over decisions in plain Python: for judges at the edge, and what the compiled is held to.

    found = look_ahead(state, Weights(waiting=0.5), iterations=100, seed=1)

A node is a state of the shop, reached by the decisions on the way to it. It keeps a walk: a whole sequence that begins
with those decisions. One iteration:

selection       from the root, with even chances, stay or go to the child of the highest Q/N + c · √(ln N_parent / N);
                c falls from 1 to 0.16 when 80 % of the budget is spent, and is 0 from then on
rollout         the node's walk with a step on another machine (or on whichever is done earliest), or a job at another
                place of the order, behind the node's own decisions; decoded, it goes on from there where it is better
                or, the more rarely the less is left of the budget, worse (annealing)
backpropagation along the decisions of what was tried: visits, rewards (1: much better than the best seed, 0: much
                worse), better walks, and where the tree ends, one node more

It begins with what every rule would do, and whatever else it is given, so that it is never worse than they are. The
generator of chances is a linear congruence of 64 bits, the same in machine code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt

from messages.dispatch.commit import Committed
from messages.dispatch.decode import Choice, Weights, decode_order, measures, split
from messages.dispatch.rules import RULES, run
from messages.dispatch.state import Bid, State

HOT, COLD = 0.02, 0.001
"""Temperatures of annealing at first and at last, as shares of the value of the best seed."""
EARLIEST = ("fifo", "sjf", "ljf")
"""Rules that send every step where it is done earliest."""
NODES = 4_096
"""Of a tree, at most."""
ALIKE = 0.02
"""Share of the value of the best seed by which seeds differ at least, as far as rewards go."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best sequence, what it is worth by the weights, and after how many iterations."""

    sequence: tuple[Choice, ...]
    value: float
    iterations: int
    committed: Callable[[int], Committed] | None = field(default=None, compare=False, repr=False)
    """what of it must be begun by then, where that is known without decoding it again"""


@dataclass(slots=True)
class _Try:
    """A whole sequence: the order of jobs, the machine of some steps; the others go where they are done earliest."""

    order: list[str]
    wish: dict[tuple[str, int], str]

    def copy(self) -> _Try:
        return _Try(self.order.copy(), self.wish.copy())


@dataclass(slots=True)
class _Node:
    walk: _Try
    value: float
    reward: float
    visits: int = 1
    children: dict[Choice, _Node] = field(default_factory=dict)


def look_ahead(
    state: State,
    weights: Weights,
    iterations: int | None = None,
    seconds: float = 0.1,
    *,
    seeds: Iterable[Sequence[Choice]] = (),
    seed: int = 0,
) -> Found:
    """The best sequence found of all that is open; `iterations`, where stated, count instead of seconds, in which there
    is one at least."""
    began = time.monotonic()
    tree = _Tree(state, weights, seed)
    for name, rule in RULES.items():
        bids = run(state, rule, weights).bids
        tree.plant(_Try([bid.job for bid in bids], {} if name in EARLIEST else _machines(bids)))
    for sequence in seeds:
        tree.plant(_Try(*split(state, sequence)))
    done = 0
    while tree.steps > 1:
        spent = (time.monotonic() - began) / seconds if iterations is None else done / iterations if iterations else 1.0
        if spent >= 1.0 and (done or iterations is not None):
            break
        tree.iterate(min(1.0, spent))
        done += 1
    return Found(tuple((bid.job, bid.machine) for bid in tree.best), tree.value, done)


class _Tree:
    def __init__(self, state: State, weights: Weights, seed: int) -> None:
        self.state, self.weights, self.dice = state, weights, Dice(seed)
        self.root: _Node | None = None
        self.nodes, self.value, self.best = 0, float("inf"), tuple[Bid, ...]()
        self.first, self.worst = float("inf"), float("-inf")
        self.steps = sum(len(state.shop.route[job]) - state.jobs[job].next for job in state.open())

    def plant(self, one: _Try) -> None:
        """A sequence to begin with."""
        value, bids = self._tried(one)
        self.first, self.worst = min(self.first, value), max(self.worst, value)
        if self.root is None:
            self.root, self.nodes = _Node(one.copy(), value, 0.0, 0), 1
        self._keep_best(one, value, bids)
        self._learn(one, bids, value, 0.5)

    def iterate(self, spent: float) -> None:
        """Selection, rollout, backpropagation."""
        assert self.root is not None
        curious = 1.0 - 1.05 * spent if spent < 0.8 else 0.0
        scale = max(self.first, 1.0)
        spread = max(self.worst - self.first, ALIKE * scale)
        heat = scale * HOT * (COLD / HOT) ** spent
        node, depth = self.root, 0
        while node.children and depth + 1 < self.steps and self.dice.below(2) == 0:
            node, depth = _chosen(node, curious), depth + 1
        one = node.walk.copy()
        self._change(one, depth)
        value, bids = self._tried(one)
        rise = value - node.value
        if rise <= 0.0 or self.dice.below(1 << 30) < exp(-rise / heat) * (1 << 30):
            node.walk, node.value = one.copy(), value
        self._keep_best(one, value, bids)
        self._learn(one, bids, value, min(1.0, max(0.0, (self.first + spread - value) / (2.0 * spread))))

    def _tried(self, one: _Try) -> tuple[float, tuple[Bid, ...]]:
        """What a sequence comes to; its order becomes that in which nothing is put off."""
        schedule = decode_order(self.state, one.order, one.wish)
        one.order = [bid.job for bid in schedule.bids]
        return measures(schedule).value(self.weights), schedule.bids

    def _keep_best(self, one: _Try, value: float, bids: tuple[Bid, ...]) -> None:
        assert self.root is not None
        if value < self.value:
            self.value, self.best = value, bids
            self.root.walk, self.root.value = one.copy(), value

    def _change(self, one: _Try, depth: int) -> None:
        order, dice, behind = one.order, self.dice, self.steps - depth
        kind = dice.below(4)
        if kind <= 1:
            p = depth + dice.below(behind)
            op = self.state.jobs[order[p]].next + order[:p].count(order[p])
            able = list(self.state.shop.route[order[p]][op].ticks)
            if len(able) > 1:
                n = dice.below(len(able) + 1)
                one.wish.pop((order[p], op), None)
                if n:
                    one.wish[order[p], op] = able[n - 1]
        if kind >= 1:
            p, q = depth + dice.below(behind), depth + dice.below(behind)
            order.insert(q, order.pop(p))

    def _learn(self, one: _Try, bids: tuple[Bid, ...], value: float, reward: float) -> None:
        assert self.root is not None
        node = self.root
        node.visits += 1
        node.reward += reward
        for bid in bids:
            child = node.children.get((bid.job, bid.machine))
            if child is None:
                if self.nodes < NODES:
                    node.children[bid.job, bid.machine] = _Node(one.copy(), value, reward)
                    self.nodes += 1
                return
            child.visits += 1
            child.reward += reward
            if value < child.value:
                child.walk, child.value = one.copy(), value
            node = child


def _chosen(node: _Node, curious: float) -> _Node:
    """The child of the highest upper confidence bound; ties: the oldest."""
    much = log(node.visits)
    return max(node.children.values(), key=lambda one: one.reward / one.visits + curious * sqrt(much / one.visits))


def _machines(bids: Iterable[Bid]) -> dict[tuple[str, int], str]:
    return {(bid.job, bid.op): bid.machine for bid in bids}


class Dice:
    """Chances from a seed."""

    def __init__(self, seed: int) -> None:
        self.state = 2 * seed + 1

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % limit
