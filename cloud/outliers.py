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

What updates of the whole vector do to decisions (`Probe.along`) is tested likewise: does it go along with the base as
far as most do, or lie `BACK` spreads behind them and take back what all have learned? A node whose reward is turned
round sends deltas nearly at right angles to the others', but they undo the base; also if it began honestly.

What first updates do to decisions (`probe`) is compared with `turned_first`, once for each node, so that no sum is kept
and one look must do. There the others' direction is that of the half that lies closest together, looked for again with
its own direction: six of twenty that were turned bend the sum of all, and widen its spread, so far that few are named.
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
BACK, TAKEN_BACK, LEAST_LAG = 4.0, 0.5, 0.08
"""Spreads behind most; share of the base's decisions that must be taken back at least; least spread.

Cells of heterogeneity 1.5 take back up to 0.4 in rounds in which most others take back nothing, for they are unlike;
six of twenty whose rewards were turned round after some honest rounds 0.5 to 1.3, as long as nobody names them."""
LOOKS = 3
"""Times that the direction of the closest half is looked for."""
FIRST_AGREEMENT, FIRST_TURNED = 0.4, -0.15
"""Cosine of first updates with the others': where the middle is lower nothing is tested, what is lower is accused.

Between the two kinds, as 20 cells at work for 1 to 4 days show them (seeds 11 to 20): honest ones 0.1 and more, even at
heterogeneity 1.5, those whose reward was turned round -0.2 and less; and below 0, where something of one's own lies."""


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


def taken_back(along: F64, among: Mask) -> F64:
    """Log-likelihood ratio of taking back what was learned against being as most are, (K,), half of CAP to -CAP.

    While a base knows little, honest nodes do so now and then for some rounds: it takes four of them to prove it.

    >>> taken_back(np.array([0.1, 0.2, 0.2, 0.3, 0.2, -0.9]), np.ones(6, bool)).tolist()
    [-3.0, -3.0, -3.0, -3.0, -3.0, 1.5]
    """
    if among.sum() < LEAST_NODES:
        return np.zeros(len(along))
    middle, spread = densest_half(along[among])
    behind = (along - middle) / max(LEAST_LAG, spread)
    found = np.clip(-BACK * (behind + BACK / 2), -CAP, CAP / 2)
    return np.asarray(np.where(along < -TAKEN_BACK, found, np.minimum(found, 0.0)))


def turned_first(updates: Stack, lengths: NDArray[np.float32], among: Mask) -> tuple[F64, Mask]:
    """Cosine of each row with the direction of most of `among`, (K,), and which of them are turned against it.

    >>> rows = np.float32([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [-1, 0.1]])
    >>> turned_first(rows, np.linalg.norm(rows, axis=1), np.ones(5, bool))[1].tolist()
    [False, False, False, False, True]
    """
    nobody = np.zeros(len(lengths), bool)
    if among.sum() < LEAST_NODES:
        return np.zeros(len(lengths)), nobody
    core = among
    for _ in range(LOOKS):
        cosines = agreement(updates, lengths, core)
        low, high = _densest(np.sort(cosines[among]))
        core = among & (cosines >= low) & (cosines <= high)
    agreed = densest_half(cosines[among])[0] >= FIRST_AGREEMENT
    return cosines, among & (cosines < FIRST_TURNED) if agreed else nobody


def densest_half(values: F64) -> tuple[float, float]:
    """Middle and standard deviation of the half of the values that lie closest together (two or more of them).

    Rousseeuw (1984), doi 10.1080/01621459.1984.10477105: unlike the median, it does not move towards a minority.

    >>> densest_half(np.array([0.5, 0.6, 0.7, -0.9, -0.8]))[0]
    0.6
    """
    low, high = _densest(np.sort(values))
    few = 1 + 5 / (len(values) - 1)  # the closest half of a few lies closer than half of many
    return (low + high) / 2, max(LEAST_SPREAD, 1.4826 * few * (high - low) / 2)


def _densest(order: F64) -> tuple[float, float]:
    """The ends of the shortest stretch that holds more than half of these values, which are in order."""
    half = len(order) // 2 + 1
    at = int((order[half - 1 :] - order[: len(order) - half + 1]).argmin())
    return float(order[at]), float(order[at + half - 1])


def suspicion(before: F64, gained: F64) -> F64:
    """The sums after a round, (K,): never below 0."""
    return np.maximum(0.0, before + gained)
