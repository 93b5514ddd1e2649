"""Who goes against the others, and how sure that is: agreement of directions, and a sum of evidence over rounds.

    found = agreement(updates, norms(updates), among)  # (K,) cosine of each delta with all others' directions together
    doubt = suspicion(doubt, evidence(found, among))   # (K,) Page's cumulative sum; an honest node's stays near 0

Every node has one vote of length 1, so that neither a large delta nor a large weight says what the others' direction
is; while hostile nodes are fewer than half, it is the honest ones'. What is tested (Wald's log-likelihood ratio, summed
as by Page, 1954, doi 10.1093/biomet/41.1-2.100): is the cosine spread around -m, as of a delta that was turned round,
or around 0, as of an honest node that learned something quite unlike the others; m and the spread s are of the half of
the cosines that lie closest together. A round adds at most `CAP` to the sum and takes at most that off it.

Power: a turned delta gains 0.5 m²/s² a round: where nodes agree (m > 2.5 s), two rounds prove it. Where they hardly
agree (m < s or `LEAST_AGREEMENT`: cells too unlike, or learning that is over) nothing is tested, nobody accused. What
stays within the honest spread (ALIE, Baruch et al., 2019, arXiv:1902.06156) is not found by this or any such test. An
honest node whose deltas point steadily against the others by more than m / 2 is accused: it does not gain by sharing.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloud.aggregation.seam import Stack

F64: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

LEAST_NODES = 5
"""Fewer say nothing of each other."""
LEAST_AGREEMENT = 0.15
LEAST_SPREAD = 0.05
CAP = 3.0
PROVED = 5.5
"""Sum of evidence that accuses: two clear rounds, never one alone."""


def agreement(updates: Stack, lengths: NDArray[np.float32], among: Mask) -> F64:
    """Cosine of each row with the sum of the directions of `among`, itself left out, (K,); 0 for a row of zeros.

    >>> rows = np.float32([[1, 0], [2, 0], [-1, 0], [0, 0]])
    >>> agreement(rows, np.float32([1, 2, 1, 0]), np.array([True, True, False, False])).tolist()
    [1.0, 1.0, -1.0, 0.0]
    """
    inverse = np.divide(1.0, lengths, out=np.zeros(len(lengths)), where=lengths > 0)  # (K,)
    total = np.where(among, inverse, 0).astype(np.float32) @ updates  # (P,)
    along = (updates @ total) * inverse  # direction of k · total, (K,)
    own = ((inverse > 0) & among).astype(np.float64)
    others = np.maximum(float(total @ total) - 2 * along * own + own, 0)  # |total - own direction|²
    return np.divide(along - own, np.sqrt(others), out=np.zeros(len(lengths)), where=others > 1e-9)


def evidence(cosines: F64, among: Mask) -> F64:
    """Log-likelihood ratio of being turned round against being unlike, (K,), at most CAP either way."""
    middle, spread = densest_half(cosines[among]) if among.sum() >= LEAST_NODES else (0.0, 1.0)
    if middle < max(LEAST_AGREEMENT, spread):
        return np.zeros(len(cosines))
    return np.asarray(np.clip(-middle * (cosines + middle / 2) / spread**2, -CAP, CAP))


def densest_half(values: F64) -> tuple[float, float]:
    """Middle and standard deviation of the half of the values that lie closest together (two or more of them).

    Rousseeuw (1984), doi 10.1080/01621459.1984.10477105: unlike the median, it does not move towards a minority.

    >>> densest_half(np.array([0.5, 0.6, 0.7, -0.9, -0.8]))[0]
    0.6
    """
    order = np.sort(values)
    half = len(order) // 2 + 1
    width = order[half - 1 :] - order[: len(order) - half + 1]
    at = int(width.argmin())
    few = 1 + 5 / (len(order) - 1)  # the closest half of a few lies closer than half of many
    spread = 1.4826 * few * float(width[at]) / 2
    return float(order[at] + order[at + half - 1]) / 2, max(LEAST_SPREAD, spread)


def suspicion(before: F64, gained: F64) -> F64:
    """The sums after a round, (K,): never below 0."""
    return np.maximum(0.0, before + gained)
