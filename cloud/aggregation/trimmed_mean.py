"""The coordinate-wise trimmed mean (Yin et al., 2018). Weights do not count: they are what a node says of itself."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cloud.aggregation.seam import Stack, Strategy, Vector, Weights, by_columns, sound


class TrimmedMean(Strategy):
    """For a fleet with a few broken or hostile nodes; uses more of what honest ones learned than the median does."""

    kind: Literal["trimmed_mean"] = "trimmed_mean"
    trim: float = Field(0.2, ge=0, lt=0.5, description="share of nodes left out at each end, of every number")

    def __call__(self, updates: Stack, weights: Weights) -> Vector:
        """The mean of each column without its ends."""
        sound(updates, weights)
        return trimmed_mean(updates, self.trim)


def trimmed_mean(updates: Stack, trim: float) -> Vector:
    """Mean of each column without its lowest and highest `trim` of K, rounded down, (P,) (arXiv:1803.01498, def. 2).

    >>> trimmed_mean(np.float32([[1, 0], [2, 0], [900, 0]]), trim=0.34).tolist()
    [2.0, 0.0]
    """
    nodes = len(updates)
    cut = int(trim * nodes)  # K - 2 cut > 0, as trim < 1/2

    def inner(columns: NDArray[np.float32]) -> NDArray[np.float32]:
        columns.sort(axis=1)  # vectorised; quicker than a partition at two places
        return np.asarray(columns[:, cut : nodes - cut].mean(axis=1), np.float32)

    return by_columns(updates, inner)
