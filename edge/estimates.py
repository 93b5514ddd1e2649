"""What stands in for a value that is missing or wrong.

Between two trusted values a straight line, beside one its value, if the nearer is at most `HOLD_US` away. Codes hold
the value before them and are never averaged. What cannot be estimated is refused, unless it may be right after all.
"""

from __future__ import annotations

import numpy as np

from edge.block import MISSING, RANGE, RATE, SPIKE, Block, Bools, Floats, Ints
from edge.catalogue import Catalogue
from edge.memory import NEVER, LastGood
from edge.refusals import Refusals

HOLD_US = 900_000_000
"""A value may stand in for a missing one for 15 min, not longer."""
_HUGE = float(np.finfo(np.float64).max)


def fill(block: Block, holes: Ints, sources: Ints, catalogue: Catalogue, prior: LastGood, refusals: Refusals) -> None:
    """Estimate each of `holes` (ascending cells) from `sources` (ascending cells) and what was good before the block.

    A hole without a flag yet is missing or impossible; it becomes a row only if there is an estimate.
    """
    if not len(holes):
        return
    raw = block.value[holes]
    missing = np.isnan(raw)
    impossible = ~missing & (block.quality[holes] & (SPIKE | RATE) == 0)
    block.quality[holes] |= np.where(missing, MISSING, np.where(impossible, RANGE, 0)).astype(np.int32)
    filled = _estimates(block, holes, sources, catalogue.code[block.series], prior)
    unknown = ~np.isfinite(filled)
    gone = unknown & (missing | impossible)
    lost = np.count_nonzero(gone)
    if lost:
        series = block.series[block.segment[holes]]
        refusals.add_cells(series[gone & missing].tolist(), "no_value")
        shown = [repr(value) for value in raw[gone & impossible].tolist()]
        refusals.add_cells(series[gone & impossible].tolist(), "out_of_range", shown)
    done = ~unknown
    value = block.value.copy()
    value[holes[done]] = filled[done]
    block.value, block.replaced = value, holes[done]
    block.raw = np.minimum(np.maximum(raw, -_HUGE), _HUGE)[done]
    if lost:
        keep = np.ones(len(value), np.bool_)
        keep[holes[gone]] = False
        block.keep(keep)


def _estimates(block: Block, holes: Ints, sources: Ints, whole: Bools, prior: LastGood) -> Floats:
    """(H,) a value for each of `holes`, NaN where nothing near enough is known.

    Series that are `whole` (S,) numbers look at nothing after them.
    """
    segment, values, times = block.segment, block.value, block.time
    seg, t = segment[holes], times[holes]
    left_at, left_value = prior.at[seg], prior.value[seg]
    if not len(sources):
        right_age, right_value = np.full(len(holes), np.inf), left_value
    else:
        after = sources.searchsorted(holes)
        left, right = sources[after - 1], sources.take(after, mode="clip")
        # Beyond the first and last source both are one from the other side.
        before = (left < holes) & (segment[left] == seg)
        left_at, left_value = np.where(before, times[left], left_at), np.where(before, values[left], left_value)
        has_right = (right > holes) & (segment[right] == seg) & ~whole[seg]
        right_age, right_value = np.where(has_right, times[right] - t, np.inf), values[right]
    left_age = np.where((left_at > NEVER) & (left_at <= t), t - left_at, np.inf)
    weight = np.where(left_age < np.inf, left_age / (left_age + right_age), 1.0)
    # 0 · inf would be NaN; sources are finite, so both products are.
    line = left_value * (1.0 - weight) + right_value * weight
    return np.where(np.minimum(left_age, right_age) <= HOLD_US, line, np.nan)
