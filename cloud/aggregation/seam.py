"""The seam of aggregators: a frozen settings model that is called with what the nodes sent.

Dimensions: K nodes, P parameters. Whatever is called never changes its inputs, does not depend on the order of the
nodes (beyond rounding), and raises BrokenInvariant for what the gate must have kept out: a number that is none (or so
large that its square is none), a weight that is not above zero, no node at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from messages.errors import BrokenInvariant

Stack: TypeAlias = NDArray[np.float32]
"""(K, P): one row per node, what changed of its parameters"""
Weights: TypeAlias = NDArray[np.float32]
"""(K,): above zero; how much each counts"""
Vector: TypeAlias = NDArray[np.float32]
"""(P,)"""

BLOCK_BYTES = 1 << 20
"""Columns are worked on in blocks that fit a core's cache."""


class Strategy(BaseModel, ABC):
    """One way to aggregate, with its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def __call__(self, updates: Stack, weights: Weights) -> Vector:
        """The aggregate, (P,)."""


def norms(updates: Stack) -> NDArray[np.float32]:
    """Length of each row, (K,), in one pass; of a row with a number that is none it is none, too.

    >>> norms(np.float32([[3, 4], [np.nan, 0]])).tolist()
    [5.0, nan]
    """
    return np.asarray(np.sqrt(np.einsum("kp,kp->k", updates, updates)), np.float32)


def sound(updates: Stack, weights: Weights) -> NDArray[np.float32]:
    """The rows' lengths, (K,); BrokenInvariant for what can never be averaged."""
    if updates.ndim != 2 or not len(updates) or weights.shape != (len(updates),):
        raise BrokenInvariant(f"aggregation: updates {updates.shape} with weights {weights.shape}; (K, P) and (K,)")
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise BrokenInvariant("aggregation: a weight that is not above zero came past the gate")
    length = norms(updates)
    if not np.isfinite(length).all():
        raise BrokenInvariant("aggregation: numbers that are none came past the gate")
    return length


def by_columns(updates: Stack, work: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Vector:
    """`work` of some columns at a time, each contiguous: (columns, K), its to spoil → (columns,). Together (P,)."""
    out = np.empty(updates.shape[1], np.float32)
    for part in _blocks(*updates.shape):
        out[part] = work(np.array(updates[:, part].T, order="C"))  # a copy even where none would be needed
    return out


def _blocks(nodes: int, parameters: int) -> Iterator[slice]:
    width = max(1, BLOCK_BYTES // (4 * nodes))
    return (slice(at, min(at + width, parameters)) for at in range(0, parameters, width))
