"""What sequences come to in sampled futures, compiled: what `messages.dispatch.outlook.come_to` says.

    Outlook(wide).come_to(sequence, futures)

Bounded: arrays of each future that was asked for, of at most `messages.dispatch.outlook.FUTURES`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud.dispatch.floor import (
    FAR,
    NEXT,
    READY,
    TICKS,
    Board,
    Floats,
    Floor,
    Ints,
    board_of,
    draft_of,
    floor_of,
    packed_board,
    packed_floor,
    weights_of,
)
from cloud.dispatch.kernel import SEQUENCE, SJF, advance, worth
from cloud.scheduling.arrays import paste
from cloud.scheduling.compiled import compiled
from messages.dispatch.decode import Choice
from messages.dispatch.outlook import Future, Wide


class Outlook:
    """The futures of one state."""

    def __init__(self, wide: Wide) -> None:
        self._wide = wide
        self._floor, self._names = floor_of(wide.state.shop)
        self._after = packed_board(board_of(self._floor, self._names, wide.state))
        self._made = np.zeros((len(self._floor.lag), 5), np.int64)
        self._of_step = np.repeat(np.arange(len(self._floor.lag)), np.diff(self._floor.alt_first))
        self._begun: dict[int, tuple[Future, Floor, Board, int, Floats]] = {}

    def come_to(self, sequence: Sequence[Choice], futures: Sequence[Future]) -> float:
        """The sum."""
        first, alt = draft_of(self._floor, self._names, self._wide.state, sequence)
        total = 0.0
        for future in futures:
            floor, begin, steps, weights = self._future(future)
            order = np.zeros(steps, np.int64)
            order[: len(first)] = first
            total += _followed(floor, begin, self._after, order, alt, self._made, len(first), weights)
        return total

    def _future(self, future: Future) -> tuple[Floor, Board, int, Floats]:
        known = self._begun.get(id(future))
        if known is None:
            known = self._begun[id(future)] = (future, *self._of(future))
        return known[1:]

    def _of(self, future: Future) -> tuple[Floor, Board, int, Floats]:
        floor, state = self._floor, self._wide.state
        by = np.array([by for row in future.thousandths for by in row], np.int64)[self._of_step]
        alternative, ticks = floor.alternative.copy(), floor.alternative[:, TICKS]
        alternative[:, TICKS] = np.where(ticks > 0, np.maximum(1, ticks * by // 1000), 0)
        due, board = floor.due.copy(), board_of(floor, self._names, state)
        for name, release in zip(self._wide.newcomers, future.comes, strict=True):
            if release >= 0:
                j, work = self._names.job[name], state.shop.jobs[name]
                board.part[j, NEXT], board.part[j, READY] = 0, release
                due[j] = FAR if work.due is None else work.due - work.release + release
        steps = int((np.diff(floor.step_first) - board.part[:, NEXT]).sum())
        packed = packed_floor(floor._replace(alternative=alternative, due=due))
        return packed, packed_board(board), steps, weights_of(future.weights)


@compiled
def _followed(
    floor: Floor, begin: Board, after: Board, order: Ints, alt: Ints, made: Ints, planned: int, weights: Floats
) -> float:
    """The first `planned` of `order` as they stand, the rest by rule."""
    paste(begin.all, after.all)
    advance(floor, after, order[:planned], alt, made, SEQUENCE, weights)
    advance(floor, after, order[planned:], alt, made, SJF, weights)
    return worth(floor, begin, after, order, made, weights)
