"""The coordinate-wise median (Yin et al., 2018). Weights do not count: they are what a node says of itself."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cloud.aggregation.seam import Stack, Strategy, Vector, Weights, by_columns, sound


class Median(Strategy):
    """For a fleet of which anything below one half may be hostile; loses much where cells are unlike."""

    kind: Literal["median"] = "median"

    def __call__(self, updates: Stack, weights: Weights) -> Vector:
        """The median of each column."""
        sound(updates, weights)
        return median(updates)


def median(updates: Stack) -> Vector:
    """The middle of each column, (P,), or the mean of the middle two (arXiv:1803.01498, definition 1).

    >>> median(np.float32([[1, 0], [2, 9], [900, 1]])).tolist()
    [2.0, 1.0]
    """
    low, high = (len(updates) - 1) // 2, len(updates) // 2

    def middle(columns: NDArray[np.float32]) -> NDArray[np.float32]:
        columns.partition(high, axis=1)
        if low == high:
            return np.asarray(columns[:, high])
        below = columns[:, :high].max(axis=1)  # the partition put everything smaller before `high`
        return np.asarray(below + (columns[:, high] - below) / np.float32(2))

    return by_columns(updates, middle)
