"""Lone outliers in many short series at once: Hampel's filter of 7, by a sorting network over shifted arrays.

Dimensions: V values of all series, one behind the other (*ragged*); `start`, `end` (V,) the bounds of each value's own
series in it. A value is an outlier when it sticks out from both neighbours and is further from the median of its window
than `k` robust standard deviations, never less than `k` times `noise`. Edges live: after a step the value agrees with
its next neighbour, on a ramp it lies between both. At the ends of a series the window is moved inwards, not shrunk, so
the last value is judged by the six before it.

Hampel, "The influence curve and its role in robust estimation", JASA 69 (1974); network of 13 exchanges: Devillard,
"Fast median search" (1998).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

WINDOW = 7
HALF = WINDOW // 2
MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def median7(columns: Sequence[Floats]) -> Floats:
    """The median of seven arrays, place by place.

    >>> median7([np.array([float(v)]) for v in (9, 1, 8, 2, 7, 3, 5)]).tolist()
    [5.0]
    """
    a, b, c, d, e, f, g = columns
    lows = np.minimum(a, b), np.minimum(c, d), np.minimum(e, f)
    return _median7(*lows, np.maximum(a, b), np.maximum(c, d), np.maximum(e, f), g)


def running_median7(values: Floats) -> Floats:
    """The medians of `values[i : i + 7]`; windows share their sorted pairs."""
    low, high = np.minimum(values[:-1], values[1:]), np.maximum(values[:-1], values[1:])
    n = len(values) - WINDOW + 1
    return _median7(low[:n], low[2:][:n], low[4:][:n], high[:n], high[2:][:n], high[4:][:n], values[6:])


def _median7(p0: Floats, p1: Floats, p2: Floats, p5: Floats, p6: Floats, p4: Floats, p3: Floats) -> Floats:
    # Pairs (0, 5), (1, 6), (2, 4) are sorted already; of each exchange only what is used later is computed.
    low, high = np.minimum, np.maximum
    p0, p3 = low(p0, p3), high(p0, p3)
    p1 = high(p0, p1)
    p3, p5 = low(p3, p5), high(p3, p5)
    p2, p6 = low(p2, p6), high(p2, p6)
    p3 = low(high(p2, p3), p6)
    p4 = low(p4, p5)
    p1, p4 = low(p1, p4), high(p1, p4)
    return low(high(p1, p3), p4)


def lone_outliers(values: Floats, start: Ints, end: Ints, noise: Floats, *, k: float) -> tuple[Ints, Bools]:
    """Places of lone outliers, and which of them are the last of their series, where nothing can pardon them.

    values (V,) finite · start, end (V,) bounds of each value's series · noise (V,) standard deviation of the sensor
    """
    if len(values) < WINDOW:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    middles = running_median7(values)
    here = np.arange(len(values))
    # A series shorter than the window gets no verdict; its window start only has to be a legal index.
    window = np.minimum(np.maximum(np.minimum(here - HALF, end - WINDOW), start), len(middles) - 1)
    off = np.abs(values - middles[window])
    # Most values are within the noise: the spread is computed for the few that are not.
    at = ((off > k * noise) & (end - start >= WINDOW)).nonzero()[0]
    if not len(at):
        return at, np.empty(0, np.bool_)
    window, off, value = window[at], off[at], values[at]
    middle = middles[window]
    spread = median7([np.abs(values[window + j] - middle) for j in range(WINDOW)])
    limit = np.maximum(k * MAD_TO_SIGMA * spread, k * noise[at])
    first, last = at == start[at], at == end[at] - 1
    before = value - values[np.where(first, at + 1, at - 1)]
    after = value - values[np.where(last, at - 1, at + 1)]
    sticks_out = (np.sign(before) * np.sign(after) > 0) & (np.abs(before) > limit) & (np.abs(after) > limit)
    lone = sticks_out & (off > limit)
    return at[lone], last[lone]
