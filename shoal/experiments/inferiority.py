"""Is it not worse, by more than a margin, than the best of others? Paired over seeds, stated before it is looked at.

    rows = judged({"mean, 0.3": ({"local": (20,), "fedavg": (20,)}, (20,))}, margin=0.05)

For a rival with returns y and ours x on the same seeds: d = (x - y) / mean(y), a *relative difference* whose
denominator is one number for all seeds, so that a seed of small returns does not count more. H0: mean d <= -margin,
Student's t on the d, one-sided. Not inferior to the best of the rivals means: not to any of them, so a row's p is the
largest of its rivals' (an intersection-union test, Berger 1982: no level is lost by it, and none is won by choosing
a rival after the fact). Rows are held against alpha by Holm's procedure (1979). `lower` is the one-sided bound of d at
the row's Holm level: a row holds if the bound lies above -margin for every rival, and no row before it in Holm's order
failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Returns = NDArray[np.float64]
"""(seeds,)"""


@dataclass(frozen=True)
class Against:
    """Ours against one rival."""

    rival: str
    difference: float
    """mean relative difference"""
    error: float
    """its standard error"""
    p: float
    lower: float
    """one-sided bound at the level of its row"""
    lower_95: float
    """one-sided bound at 95 %, without regard to other rows"""


@dataclass(frozen=True)
class Row:
    """A claim and what came of it."""

    name: str
    level: float
    """by Holm"""
    p: float
    holds: bool
    best: str
    """the rival with the largest mean"""
    against: tuple[Against, ...]

    @property
    def lower(self) -> float:
        """The least bound of its rivals."""
        return min(one.lower for one in self.against)

    def to(self, rival: str) -> Against:
        """Against this one."""
        return next(one for one in self.against if one.rival == rival)


def judged(
    rows: Mapping[str, tuple[Mapping[str, Returns], Returns]], *, margin: float, alpha: float = 0.05
) -> list[Row]:
    """Every row: (rival → returns, ours). `margin` 0 and one rival: is ours better?"""
    found = {
        name: {rival: relative(ours, theirs) for rival, theirs in rivals.items()}
        for name, (rivals, ours) in rows.items()
    }
    p = {name: max(_p(d, margin) for d in each.values()) for name, each in found.items()}
    levels, holds = holm(list(p.values()), alpha)
    made = []
    for (name, each), level, one_holds in zip(found.items(), levels, holds, strict=True):
        rivals = rows[name][0]
        against = tuple(
            Against(rival, float(d.mean()), _error(d), _p(d, margin), lower_bound(d, level), lower_bound(d, alpha))
            for rival, d in each.items()
        )
        best = max(rivals, key=lambda rival: float(rivals[rival].mean()))
        made.append(Row(name, level, p[name], one_holds, best, against))
    return made


def relative(ours: Returns, theirs: Returns) -> Returns:
    """(x - y) / |mean y|, (seeds,)."""
    return np.asarray((ours - theirs) / abs(float(theirs.mean())), np.float64)


def holm(p: Sequence[float], alpha: float) -> tuple[list[float], list[bool]]:
    """The level of every p, and whether its hypothesis is rejected: the least is held against alpha / m, the next
    against alpha / (m - 1), …, until one fails; all after it fail."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    levels, holds, going = [0.0] * len(p), [False] * len(p), True
    for place, k in enumerate(order):
        levels[k] = alpha / (len(p) - place)
        going = going and p[k] <= levels[k]
        holds[k] = going
    return levels, holds


def lower_bound(d: Returns, level: float) -> float:
    """Of the mean, one-sided, at this level. Fewer than two seeds say nothing: minus infinity."""
    return float(d.mean()) - quantile(1 - level, len(d) - 1) * _error(d) if len(d) > 1 else -math.inf


def _p(d: Returns, margin: float) -> float:
    if len(d) < 2:
        return 1.0
    error, above = _error(d), float(d.mean()) + margin
    if error == 0:
        return 0.0 if above > 0 else 1.0
    return upper_tail(above / error, len(d) - 1)


def _error(d: Returns) -> float:
    return float(d.std(ddof=1)) / math.sqrt(len(d)) if len(d) > 1 else math.inf


# --- Student's t ---


def upper_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's t."""
    half = 0.5 * _beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return half if t >= 0 else 1 - half


def quantile(share: float, freedom: int) -> float:
    """t with P(T <= t) = share, 0.5 <= share < 1."""
    low, high = 0.0, 1.0
    while upper_tail(high, freedom) > 1 - share:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, freedom) > 1 - share else (low, middle)
    return (low + high) / 2


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction (Press et al., 2007, section 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    total = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            total *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * total
