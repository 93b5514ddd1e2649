"""Krum and Multi-Krum: the deltas that are nearest to their neighbours (Blanchard et al., 2017)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cloud.aggregation.seam import Stack, Strategy, Vector, Weights, sound


class Krum(Strategy):
    """For alike cells of which a known share may be hostile: whole deltas are chosen, weights do not count.

    K nodes can outvote at most (K - 3) / 2; a larger share is taken as that. Costs K² P multiplications.
    """

    kind: Literal["krum"] = "krum"
    hostile: float = Field(0.2, ge=0, lt=0.5, description="share of nodes that may be hostile, rounded up")
    chosen: int | None = Field(None, ge=1, description="deltas that are averaged; 1: Krum; absent: all not hostile")

    def __call__(self, updates: Stack, weights: Weights) -> Vector:
        """The mean of the deltas with the best scores."""
        nodes = len(updates)
        hostile = max(0, min(int(np.ceil(self.hostile * nodes)), (nodes - 3) // 2))
        lengths = sound(updates, weights)
        return krum(updates, lengths, hostile, min(nodes, self.chosen or nodes - hostile))


def krum(updates: Stack, lengths: NDArray[np.float32], hostile: int, chosen: int) -> Vector:
    """Mean of the `chosen` rows with the least Σ |u_i - u_j|² over their K - f - 2 nearest others, (P,).

    NeurIPS 2017, "Machine learning with adversaries", section 4. Distances come of |a|² + |b|² - 2 a·b: about 1e-6 of
    the squared lengths is noise. Equal scores: the shorter delta is better, so that the order of nodes decides nothing.

    >>> rows = np.float32([[1, 0], [1.1, 0], [0.9, 0], [1, 0.1], [900, 0]])
    >>> krum(rows, np.float32([1, 1.1, 0.9, 1.005, 900]), hostile=1, chosen=1).tolist()
    [1.0, 0.0]
    """
    nodes = len(updates)
    square = lengths.astype(np.float64) ** 2
    apart = square[:, None] + square - 2 * (updates @ updates.T).astype(np.float64)  # (K, K)
    np.fill_diagonal(apart, np.inf)
    near = min(nodes - 1, max(1, nodes - hostile - 2))
    score = np.maximum(np.sort(apart, axis=1)[:, :near], 0).sum(axis=1)
    best = np.lexsort((lengths, score))[:chosen]
    return np.asarray(updates[np.sort(best)].mean(axis=0), np.float32)
