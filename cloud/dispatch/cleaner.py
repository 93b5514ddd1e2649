"""What sequences come to where some jobs wait, compiled: what `messages.dispatch.cleaner.worth_of` says.

worth = worth_of(state, weights); worth({"T1": 120}, sequence)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cloud.dispatch.floor import (
    READY,
    WAITED,
    board_of,
    copied,
    draft_of,
    floor_of,
    packed_board,
    packed_floor,
    weights_of,
)
from cloud.dispatch.kernel import SEQUENCE, advance, worth
from messages.dispatch.cleaner import Worth
from messages.dispatch.decode import Choice, Weights
from messages.dispatch.state import State


def worth_of(state: State, weights: Weights) -> Worth:
    """One set of arrays for all that is asked of it."""
    floor, names = floor_of(state.shop)
    begun = board_of(floor, names, state)
    begin, after = copied(begun), copied(begun)
    packed, before, behind, by = packed_floor(floor), packed_board(begin), packed_board(after), weights_of(weights)
    made = np.zeros((len(floor.lag), 5), np.int64)

    def worth_at(floors: Mapping[str, int], sequence: Sequence[Choice]) -> float:
        begin.all[:] = begun.all
        for job, tick in floors.items():
            more = max(0, tick - state.since(job))
            begin.part[names.job[job], READY] += more
            begin.part[names.job[job], WAITED] += more
        after.all[:] = begin.all
        order, alt = draft_of(floor, names, state, sequence)
        advance(packed, behind, order, alt, made, SEQUENCE, by)
        return float(worth(packed, before, behind, order, made, by))

    return worth_at
