"""Lone outliers in many short series at once: Hampel's filter of 7, by a sorting network over shifted arrays.

Dimensions: V values of S series, one behind the other (*ragged*). Distances are in `scale`, the standard deviation of
the series' noise. A value is an outlier when it is

    further than `LEVEL` from the median of its window,
    further than `SIDES` from the levels on either side of it (medians of 3), beyond both, and
    further than `NEIGHBOUR` from both its neighbours.

The first finds it; the others let edges live: after a step a value agrees with what follows, on a ramp it lies between
the levels, in a pulse of two it has a neighbour. Hampel's own yardstick, the median absolute deviation of seven values,
is so uncertain itself (a third) that it would cost half of the small spikes; the scale is learned instead
(`edge.spread`). At the ends of a series the window is moved inwards, not shrunk, so the last value is judged by the six
before it; there, where the level of one side is not known, the absolute deviation counts too.

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
LEVEL, SIDES, NEIGHBOUR = 4.0, 3.0, 2.2
"""Least distances of an outlier, in standard deviations of the noise: see above."""
ENDS = 3.0
"""Least distance from the median, in standard deviations by the window alone, of a value near the end of a series."""
NOTHING: tuple[Ints, Bools] = (np.empty(0, np.int64), np.empty(0, np.bool_))
MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_AROUND = np.arange(-HALF, HALF + 1)[:, None]


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


def lone_outliers(values: Floats, bounds: Ints, first: Ints, scale: Floats, share: Floats) -> tuple[Ints, Bools]:
    """Places of lone outliers, in no order, and which are the last of their series, where nothing can pardon them.

    values (V,) of all series, one behind the other · bounds (S + 1,) of the series · first (S,) where each series' own
    values begin: what lies before is void · scale (S,) standard deviation of the noise · share (S,) weight of the
    deviation in the window itself, 0 where the scale is certain
    """
    if len(values) < WINDOW:
        return NOTHING
    last = bounds[1:] - 1
    middles = running_median7(values)
    lengths = bounds[1:] - bounds[:-1]
    # A window that would leave its series, or reach the void, is moved inwards. Too short a series has none.
    earliest, latest = first.repeat(lengths), np.maximum(last - WINDOW + 1, 0).repeat(lengths)
    moved = np.minimum(np.maximum(np.arange(-HALF, len(values) - HALF), earliest), latest)
    at = (np.abs(values - middles[moved]) > (LEVEL * scale).repeat(lengths)).nonzero()[0]
    of = bounds.searchsorted(at, "right") - 1
    judged = ((at >= first[of]) & (last - first >= WINDOW - 1)[of]).nonzero()[0]
    if not len(judged):
        return NOTHING
    at, of = at[judged], of[judged]
    window = moved[at]
    value, middle, first, last = values[at], middles[window], first[of], last[of]
    # Of few values sorting is one call where the network is twenty.
    deviations = np.abs(values[window + HALF + _AROUND] - middle)
    deviations.sort(axis=0)
    deviation = MAD_TO_SIGMA * deviations[HALF]
    scale = np.maximum(scale[of], share[of] * deviation)
    # Beyond its ends a series is mirrored.
    near = values[last - np.abs(last - first - np.abs(at + _AROUND - first))]  # (7, candidates)
    left, right = _median3(near[0], near[1], near[2]), _median3(near[4], near[5], near[6])
    sides = np.maximum(value - np.maximum(left, right), np.minimum(left, right) - value)
    neighbours = np.maximum(value - np.maximum(near[2], near[4]), np.minimum(near[2], near[4]) - value)
    # Near an end one level is not known: a ramp would pass for an outlier, but for the deviations in its window.
    limit = np.where(
        (at < first + HALF) | (at > last - HALF), np.maximum(LEVEL * scale, ENDS * deviation), LEVEL * scale
    )
    lone = (sides > SIDES * scale) & (neighbours > NEIGHBOUR * scale) & (np.abs(value - middle) > limit)
    found = lone.nonzero()[0]
    at = at[found]
    return at, at == last[found]


def _median3(a: Floats, b: Floats, c: Floats) -> Floats:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
