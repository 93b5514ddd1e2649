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

_EXCHANGES = (
    (0, 5),
    (0, 3),
    (1, 6),
    (2, 4),
    (0, 1),
    (3, 5),
    (2, 6),
    (2, 3),
    (3, 6),
    (4, 5),
    (1, 4),
    (1, 3),
    (3, 4),
)


def median7(columns: Sequence[Floats]) -> Floats:
    """The median of seven arrays, place by place.

    >>> median7([np.array([float(v)]) for v in (9, 1, 8, 2, 7, 3, 5)]).tolist()
    [5.0]
    """
    p = list(columns)
    for a, b in _EXCHANGES:
        p[a], p[b] = np.minimum(p[a], p[b]), np.maximum(p[a], p[b])
    return p[HALF]


def lone_outliers(values: Floats, start: Ints, end: Ints, noise: Floats, *, k: float) -> tuple[Ints, Bools]:
    """Places of lone outliers, and which of them are the last of their series, where nothing can pardon them.

    values (V,) finite · start, end (V,) bounds of each value's series · noise (V,) standard deviation of the sensor
    """
    if len(values) < WINDOW:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    middles = median7([values[j : len(values) - WINDOW + 1 + j] for j in range(WINDOW)])
    here = np.arange(len(values))
    # A series shorter than the window gets no verdict; its window start only has to be a legal index.
    window = np.clip(here - HALF, start, np.maximum(end - WINDOW, start))
    np.minimum(window, len(middles) - 1, out=window)
    off = np.abs(values - middles[window])
    # Most values are within the noise: the spread is computed for the few that are not.
    at = np.flatnonzero((off > k * noise) & (end - start >= WINDOW))
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
