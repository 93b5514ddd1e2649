"""How the deltas of many nodes become one. Adding one: a class in a file of its own, and one word in the union.

    aggregate = Median()                          # or from settings: {"kind": "trimmed_mean", "trim": 0.3}
    step = aggregate(updates, weights)            # (K, P) float32, (K,) > 0  →  (P,) float32

What each promises when f of K nodes are hostile and nothing else stops them (the gate does, first):

mean          nothing: one node moves the result anywhere, as far as the gate's bound on norms lets it
clipped_mean  the result is no longer than the bound; f nodes turn it by at most their share of the weight
median        f < K / 2: each number lies among the honest ones
trimmed_mean  f ≤ trim · K: each number lies among the honest ones
krum          2 f + 2 < K: what is chosen is near K - f - 2 others
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from cloud.aggregation.clipped_mean import ClippedMean, clipped_mean
from cloud.aggregation.krum import Krum, krum
from cloud.aggregation.mean import Mean, mean
from cloud.aggregation.median import Median, median
from cloud.aggregation.seam import Stack, Strategy, Vector, Weights, norms
from cloud.aggregation.trimmed_mean import TrimmedMean, trimmed_mean

Aggregator: TypeAlias = Annotated[Mean | ClippedMean | Median | TrimmedMean | Krum, Field(discriminator="kind")]

__all__ = [
    "Aggregator",
    "ClippedMean",
    "Krum",
    "Mean",
    "Median",
    "Stack",
    "Strategy",
    "TrimmedMean",
    "Vector",
    "Weights",
    "clipped_mean",
    "krum",
    "mean",
    "median",
    "norms",
    "trimmed_mean",
]
