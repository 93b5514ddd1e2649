"""The weighted mean of deltas none of which is longer than a bound (Sun et al., 2019; McMahan et al., 2018)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cloud.aggregation.seam import Stack, Strategy, Vector, Weights, sound


class ClippedMean(Strategy):
    """For unlike cells with a hostile few: everybody's direction counts, nobody's length beyond the bound."""

    kind: Literal["clipped_mean"] = "clipped_mean"
    bound: float | None = Field(None, gt=0, description="of a delta's norm; absent: the median of this round's norms")

    def __call__(self, updates: Stack, weights: Weights) -> Vector:
        """The mean of u_k · min(1, bound / |u_k|)."""
        return clipped_mean(updates, weights, sound(updates, weights), self.bound)


def clipped_mean(updates: Stack, weights: Weights, lengths: NDArray[np.float32], bound: float | None = None) -> Vector:
    """Weighted mean of u_k · min(1, bound / |u_k|), (P,) (arXiv:1911.07963, section 4); `lengths`: |u_k|, (K,).

    >>> clipped_mean(np.float32([[4, 3], [0, 900]]), np.ones(2, np.float32), np.float32([5, 900]), bound=5.0).tolist()
    [2.0, 4.0]
    """
    most = float(np.median(lengths)) if bound is None else bound
    shrunk = np.minimum(1, most / np.maximum(lengths.astype(np.float64), 1e-30))  # (K,)
    total = weights.astype(np.float64).sum()
    return np.asarray((weights * shrunk / total).astype(np.float32) @ updates, np.float32)
