"""One sequence decoded and valued again and again, compiled."""

from __future__ import annotations

from cloud.dispatch.floor import Board, Floats, Floor, Ints
from cloud.dispatch.kernel import SEQUENCE, advance, worth
from cloud.scheduling.arrays import paste
from cloud.scheduling.compiled import compiled


@compiled
def rollouts(
    floor: Floor, begin: Board, board: Board, order: Ints, alt: Ints, made: Ints, weights: Floats, count: int
) -> float:
    """Values of `count` rollouts, summed."""
    total = 0.0
    for _ in range(count):
        paste(begin.all, board.all)
        advance(floor, board, order, alt, made, SEQUENCE, weights)
        total += worth(floor, begin, board, order, made, weights)
    return total
