"""How noisy each series is, learned as it goes: a plant file seldom knows, and noise may follow the load.

The yardstick is the second difference x[i-1] - 2 x[i] + x[i+1], which neither a level nor a ramp moves; of white noise
its absolute value has the median `MEDIAN` standard deviations. Per call the share of new differences above the median
expected so far moves the estimate (a Newton step on the quantile, Robbins & Monro 1951), at most threefold. Zeros, from
a sensor that stands still, say nothing. What the plant file states, or else a thousandth of the range, is the least
that cleaning goes by.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MEDIAN = 0.6745 * 6**0.5
"""Of the absolute second difference of white noise, in standard deviations."""
STEP = 2.33
"""Change of ln(estimate) per share of differences too many: 1 / density of ln |normal| at its median."""
MEMORY = 20
"""Differences whose weight equals that of everything learned before."""


def learned(values: Floats, bounds: Ints, first: Ints, new: Ints, scale: Floats) -> Floats:
    """(S,) standard deviation of each series' noise, by its values and what was known before.

    values (V,) of all series, one behind the other · bounds (S + 1,) · first (S,) where a series' own values begin ·
    new (S,) where those begin that have not been learned from · scale (S,)
    """
    if len(values) < 3:
        return scale
    difference = np.abs(values[1:-1] * 2.0 - values[:-2] - values[2:])
    low = np.minimum(np.maximum(new - 2, first), len(difference))
    high = np.maximum(bounds[1:] - 2, low)
    limit = (MEDIAN * scale).repeat(bounds[1:] - bounds[:-1])
    above = _counts(difference > limit[:-2], low, high)
    moved = high - low if np.count_nonzero(difference) == len(difference) else _counts(difference > 0, low, high)
    excess = above / np.maximum(moved, 1) - 0.5
    return scale * np.exp(STEP * excess * (moved / (moved + MEMORY)))


def _counts(marked: npt.NDArray[np.bool_], low: Ints, high: Ints) -> Ints:
    """(S,) how many of `marked[low : high]` there are in each series."""
    until = np.zeros(len(marked) + 1, np.int64)
    marked.cumsum(out=until[1:])
    return until[high] - until[low]
