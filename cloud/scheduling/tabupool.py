"""A tabu search under way: runs of the kernel one after the other, and the pool of plans they leave behind.

    state = begun(shop, rules, seed=1)
    stepped(state, 1000)                 # so many iterations; the same whether in one go or in many
    adopted(state, draft)                # a plan from elsewhere is improved next
    state.value, state.draft()

A run improves one plan until nothing better came for `patience` iterations. The first runs begin with plans of rules,
the later ones with a cross of two plans of the pool: each operation takes its machine from either, and the order lies
half-way between the two (any mean of two orders keeps the order of each job, so it needs no repair).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cloud.scheduling.shop import FAR, Draft, Indices, Ints, Shop
from cloud.scheduling.tabukernel import place_by, search
from cloud.scheduling.tabukernel_late import TRIES, Late, lateness, search_late
from cloud.scheduling.tabukernel_line import settle
from cloud.scheduling.tabunet import Line, Net, line_of, net_of

STUCK = 20
"""After so many runs in a row that cannot move a single operation there is nothing to search."""

DEEP = 10
"""Half of the iterations go to runs of so much more patience: some shops want many starts, others a long breath."""


class Rules(NamedTuple):
    """How to search."""

    pool: int
    patience: int
    tenure: int


@dataclass(frozen=True, eq=False)
class Member:
    """A plan: alternatives, an order in which nothing stands before its predecessors, and its value in ticks."""

    choice: Indices
    order: Indices
    value: int

    def rank(self) -> Ints:
        """(O,) place of each operation."""
        rank = np.empty(len(self.order), np.int64)
        rank[self.order] = np.arange(len(self.order))
        return rank

    def same(self, other: Member) -> bool:
        """Whether they are one plan."""
        return (
            self.value == other.value
            and np.array_equal(self.choice, other.choice)
            and np.array_equal(self.order, other.order)
        )


@dataclass(eq=False)
class TabuState:
    """A search under way."""

    shop: Shop
    rules: Rules
    net: Net
    line: Line
    spare: Line
    rng: np.random.Generator
    late: Late | None = None
    """What is minimised is tardiness; None: the makespan."""
    target: int = 0
    """Nothing can be below: the search stops there."""
    pool: list[Member] = field(default_factory=list)
    waiting: list[Member] = field(default_factory=list)
    """Plans to be improved next."""
    best: Member | None = None
    run: Member | None = None
    """The best of the present run; None: a new one is to begin."""
    iteration: int = 0
    found: int = 0
    """The iteration in which the present run found its best."""
    begun: int = 0
    """Runs begun."""
    deep: bool = False
    """Whether the present run is one of the long ones."""
    spent: list[int] = field(default_factory=lambda: [0, 0])
    """Iterations of short and of long runs."""
    stuck: int = 0
    """Runs in a row that could move no operation."""

    @property
    def value(self) -> int:
        """Of the best plan, history included: ticks."""
        if self.best is None:
            return FAR
        if self.late is not None:
            return self.best.value + self.shop.past_tardiness
        return max(self.best.value, self.shop.past_makespan)

    @property
    def done(self) -> bool:
        """Nothing better can be found, or nothing can be moved."""
        return self.value <= self.target or self.stuck >= STUCK

    def settle(self, line: Line) -> int:
        """Lay out (choice, order) and say what it is worth."""
        longest = settle(self.net, line)
        return longest if self.late is None else lateness(line, self.late)

    def draft(self) -> Draft:
        """The best plan; in gaps machines idle."""
        if self.best is None:
            raise ValueError("no plan yet: take a step first")
        line, best = self.spare, self.best
        line.choice[:], line.order[:] = best.choice, best.order
        settle(self.net, line)
        start = np.empty(len(line.order), np.int64)
        start[line.order] = (line.end - line.ticks)[:-1]  # settling put it in order of starts
        return Draft(self.net.alt_machine[best.choice], start, np.zeros(len(start), np.bool_))


def begun(shop: Shop, rules: Rules, *, seed: int, target: int = 0, tardiness: bool = False) -> TabuState:
    """A search of which nothing is done yet."""
    net, rng = net_of(shop), np.random.default_rng(seed)
    line, late = line_of(net, int(rng.integers(1, 2**63))), _late(shop) if tardiness else None
    return TabuState(shop, rules, net, line, line_of(net), rng, late, target)


def stepped(state: TabuState, n: int) -> None:
    """So many iterations more; less where nothing better can be found."""
    end = state.iteration + n
    while state.iteration < end and not state.done:
        if state.run is None:
            _begin_run(state)
        _go_on(state, end)


def _late(shop: Shop) -> Late:
    return Late(
        job_last=shop.job_first[1:] - np.int32(1),
        job_lot=shop.job_lot,
        lot_due=shop.lot_due,
        lot_past=shop.lot_past,
        lot_end=np.zeros(len(shop.lot_due), np.int64),
        lot_from=np.zeros(len(shop.lot_due), np.int32),
        order=np.zeros(shop.operations, np.int32),
        tries=np.zeros((TRIES, 3), np.int64),
    )


def adopted(state: TabuState, draft: Draft) -> None:
    """A plan from elsewhere: improved next, and the best if nothing better is known."""
    shop, line = state.shop, state.spare
    of = np.repeat(np.arange(shop.operations), np.diff(shop.alt_first))
    used = np.flatnonzero(shop.alt_machine == draft.machine[of])
    line.choice[of[used]] = used
    end = draft.start + shop.alt_ticks[line.choice]
    line.order[:] = np.lexsort((np.arange(shop.operations), end, draft.start))
    member = Member(line.choice.copy(), line.order.copy(), state.settle(line))
    state.waiting.append(member)
    _end_run(state)
    _keep(state, member)


def _begin_run(state: TabuState) -> None:
    if state.waiting:
        begin = state.waiting.pop(0)
    elif state.begun < state.rules.pool:
        begin = _from_rule(state)
    else:
        begin = _cross(state)
    line = state.line
    line.choice[:], line.order[:], line.tabu[:] = begin.choice, begin.order, 0
    state.run = Member(begin.choice.copy(), begin.order.copy(), state.settle(line))
    state.begun += 1
    state.deep = state.spent[True] <= state.spent[False]
    state.found = state.iteration
    _keep(state, state.run)


def _go_on(state: TabuState, end: int) -> None:
    run, rules = state.run, state.rules
    if run is None:
        return
    patience = rules.patience * (DEEP if state.deep else 1)
    before = state.iteration
    todo = (run.choice, run.order, run.value, state.iteration, end, state.found, patience)
    target = state.target - (0 if state.late is None else state.shop.past_tardiness)
    if state.late is None:
        value, reached, found = search(state.net, state.line, *todo, target, rules.tenure)
    else:
        value, reached, found = search_late(state.net, state.line, state.late, *todo, target, rules.tenure)
    nowhere = reached < min(end, found + patience) and value > target
    state.stuck = state.stuck + 1 if nowhere else 0
    state.iteration, state.found = reached, found
    state.spent[state.deep] += reached - before
    state.run = Member(run.choice, run.order, value)
    _keep(state, state.run)
    if nowhere or reached - found >= patience:
        _end_run(state)


def _end_run(state: TabuState) -> None:
    """What it found goes into the pool; of too many the worst goes."""
    run, state.run = state.run, None
    if run is None or any(one.same(run) for one in state.pool):
        return
    state.pool.append(run)
    if len(state.pool) > state.rules.pool:
        state.pool.remove(max(state.pool, key=lambda one: one.value))


def _keep(state: TabuState, member: Member) -> None:
    if state.best is None or member.value < state.best.value:
        state.best = Member(member.choice.copy(), member.order.copy(), member.value)


def _cross(state: TabuState) -> Member:
    pool = state.pool
    a = pool[int(state.rng.integers(len(pool)))]
    b = pool[int(state.rng.integers(len(pool)))]
    take = state.rng.random(len(a.choice)) < 0.5
    order = np.argsort(a.rank() + b.rank(), kind="stable").astype(np.int32)
    return Member(np.where(take, b.choice, a.choice), order, FAR)


def _from_rule(state: TabuState) -> Member:
    """Most work left first, first come first served, by due dates; later the same with ever more chance."""
    shop, number = state.shop, state.begun
    job, starts = shop.op_job, shop.alt_first[:-1]
    mean = np.add.reduceat(shop.alt_ticks, starts) / np.diff(shop.alt_first)
    sums = np.concatenate([[0.0], np.cumsum(mean)])
    head = sums[:-1] - sums[shop.job_first[job]] + shop.job_ready[job]
    tail = sums[shop.job_first[job + 1]] - sums[:-1]
    due = np.where(shop.job_due < FAR, shop.job_due, shop.job_ready + tail.max())[job]
    key = (-tail, head, due - tail)[number % 3]
    if number >= 3:
        width = float(np.ptp(key)) or 1.0
        chance = state.rng.random(len(shop.job_first) - 1) * min(1.0, 0.1 * (number // 3))
        key = key + width * chance[job]
    order = np.lexsort((np.arange(len(key)), key)).astype(np.int32)
    place_by(state.net, state.line, order)
    return Member(state.line.choice.copy(), order, FAR)
