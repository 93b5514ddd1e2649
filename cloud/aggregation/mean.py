"""The weighted mean: of deltas with numbers of samples as weights, this is FedAvg (McMahan et al., 2017)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cloud.aggregation.seam import Stack, Strategy, Vector, Weights, sound


class Mean(Strategy):
    """For a fleet whose nodes are all honest, or behind a gate: uses everything, promises nothing."""

    kind: Literal["mean"] = "mean"

    def __call__(self, updates: Stack, weights: Weights) -> Vector:
        """Σ w_k u_k / Σ w_k"""
        sound(updates, weights)
        return mean(updates, weights)


def mean(updates: Stack, weights: Weights) -> Vector:
    """Σ w_k u_k / Σ w_k, (P,) (arXiv:1602.05629, algorithm 1).

    >>> mean(np.float32([[1, 0], [4, 3]]), np.float32([2, 1])).tolist()
    [2.0, 1.0]
    """
    share = weights.astype(np.float64)
    return np.asarray((share / share.sum()).astype(np.float32) @ updates, np.float32)
