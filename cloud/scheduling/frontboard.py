"""What the searches for a front share that work on boards: which shops a board holds, a board, a plan that is kept.

reason = no_board(shop, latest, most_cells=8_000_000)           # empty, or why there is none
board = Pair.of(shop, rates)
keep(packed_shop, scratch, archive, hard, wanted, board.plain.alt, board.plain.start, board.plain.off)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloud.scheduling.archive import Archive, archived
from cloud.scheduling.compiled import compiled
from cloud.scheduling.measure import choose, measure
from cloud.scheduling.rates import Rates
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.shiftboard import Board, board_of, desk_cells, packed_board
from cloud.scheduling.shop import Bools, Floats, Indices, Ints, Shop


@dataclass(eq=False)
class Pair:
    """The same arrays of a board twice: for Python and for kernels."""

    plain: Board
    packed: Any

    @classmethod
    def of(cls, shop: Shop, rates: Rates) -> Pair:
        """Nothing placed."""
        plain = board_of(shop, rates)
        return cls(plain, packed_board(plain))


def no_board(shop: Shop, latest: int, *, most_cells: int) -> str:
    """Empty, or why plans of this shop that end by `latest` are not put on boards. `most_cells`: numbers in the room
    the placing of a job needs, at most."""
    if (shop.batch > 1).any():
        return "batches are not shared on a board"
    if ((np.diff(shop.stretch_first) > 1) & (shop.setup_table >= 0)).any():
        return "a board knows no set-ups on machines that break down"
    if not shop.operations or desk_cells(shop, latest + 2) > most_cells:
        return "nothing to place, or too much"
    return ""


@compiled
def keep(
    shop: Shop, scratch: Scratch, archive: Archive, hard: Floats, wanted: int, alt: Indices, start: Ints, off: Bools
) -> None:  # fmt: skip
    """Into the archive, if it keeps the limits `hard` (7,); and with every gap as needs least energy, if that differs.
    `wanted`: measures that are counted, one bit each."""
    machine = shop.alt_machine[alt]
    values = np.empty(len(archive.values[0]))
    measure(shop, scratch, machine, start, off, wanted, values)
    if _within(values, hard):
        archived(archive, values, machine, start, off)
    other = np.empty(len(off), np.bool_)
    choose(shop, scratch, machine, start, np.array([1.0, 0.0, 0.0]), other)
    if (other != off).any():
        measure(shop, scratch, machine, start, other, wanted, values)
        if _within(values, hard):
            archived(archive, values, machine, start, other)


@compiled
def _within(values: Floats, hard: Floats) -> bool:
    for k in range(len(values)):
        if values[k] > hard[k] + 1e-9 * max(1.0, abs(hard[k])) and hard[k] < np.inf:
            return False
    return True
