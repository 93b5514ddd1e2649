"""Compiled: the search over start times, machines and sequences at once.

    value = refine(shop, rates, rules, desk, board, trial, best, 1000, 3.0, 0.1, 4, 0.01, 7)

A few jobs are taken off the board and put back in random order, each where it costs least (`jobkernel`); the result is
kept as simulated annealing does (after Christiaens and Vanden Berghe, Transportation Science 54(2), 2020).
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.boardkernel import copy, keeps, place_in, take_off, value_of
from cloud.scheduling.compiled import compiled
from cloud.scheduling.jobkernel import put
from cloud.scheduling.rates import Rates
from cloud.scheduling.shiftboard import Board, Desk, Rules
from cloud.scheduling.shop import Indices, Shop

TURNS = 10
"""Tries for one job of a first plan; from the second on a third of all gaps is passed over."""


@compiled
def fill(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, jobs: Indices) -> bool:
    """Put these jobs on the board, one after the other; False where one finds no room in several tries."""
    np.random.seed(len(jobs))
    for j in jobs:
        placed = False
        for turn in range(TURNS):
            if put(shop, rates, rules, desk, board, j, 0.0 if turn == 0 else 0.3):
                placed = keeps(shop, rules, board)
                if placed:
                    break
                take_off(shop, rates, rules, desk, board, j)
        if not placed:
            return False
    return True


@compiled
def _choose(shop: Shop, desk: Desk, board: Board, most: int) -> int:
    """Jobs to take off, into desk.out: at random, or neighbours on machines of a first one."""
    jobs = len(board.ends)
    count = min(jobs, 1 + np.random.randint(most))
    for j in range(jobs):
        desk.mark[j] = False
    first = np.random.randint(jobs)
    desk.out[0], desk.mark[first] = first, True
    n, tries = 1, 0
    near = np.random.random() < 0.5
    while n < count and tries < 10 * count:
        tries += 1
        j = np.random.randint(jobs)
        if near:
            of = desk.out[np.random.randint(n)]
            o = shop.job_first[of] + np.random.randint(shop.job_first[of + 1] - shop.job_first[of])
            line = board.line[o]
            if line >= 0:
                place = place_in(board, line, board.start[o]) + np.random.randint(-2, 3)
                if 0 <= place < board.placed[line]:
                    j = shop.op_job[board.order[line, place]]
        if not desk.mark[j]:
            desk.out[n], desk.mark[j] = j, True
            n += 1
    return n


@compiled
def refine(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, trial: Board, best: Board, rounds: int,
    hot: float, cold: float, most: int, blink: float, seed: int,
) -> float:  # fmt: skip
    """`rounds` times: take up to `most` jobs off, put them back, keep it or not; temperatures fall from `hot` to
    `cold`. `best` holds the best board so far, its value comes back; `trial` is room for one board."""
    np.random.seed(seed)
    value, top = value_of(shop, rates, board), value_of(shop, rates, best)
    copy(board, trial)
    for turn in range(rounds):
        heat = hot * (cold / hot) ** (turn / rounds)
        n = _choose(shop, desk, trial, most)
        for i in range(n):
            take_off(shop, rates, rules, desk, trial, desk.out[i])
        for i in range(n - 1, 0, -1):
            other = np.random.randint(i + 1)
            desk.out[i], desk.out[other] = desk.out[other], desk.out[i]
        whole = True
        for i in range(n):
            if not put(shop, rates, rules, desk, trial, desk.out[i], blink):
                whole = False
                break
        if whole and keeps(shop, rules, trial):
            new = value_of(shop, rates, trial)
            if new < value - heat * np.log(1.0 - np.random.random()):
                value = new
                copy(trial, board)
                if new < top - 1e-12 * abs(top):
                    top = new
                    copy(trial, best)
                continue
        copy(board, trial)
    return top
