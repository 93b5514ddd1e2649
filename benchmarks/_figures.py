"""Statistics of paired trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2_000


def ratio_interval(part: Sequence[float], whole: Sequence[float]) -> tuple[float, float, float]:
    """Σ part / Σ whole in percent, and its 95 % interval by bootstrap over trials (seeded)."""
    a, b = np.array(part, np.float64), np.array(whole, np.float64)
    draw = np.random.default_rng(1).integers(0, len(a), (RESAMPLES, len(a)))
    shares = 100 * a[draw].sum(axis=1) / np.maximum(b[draw].sum(axis=1), 1e-12)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(100 * a.sum() / max(b.sum(), 1e-12)), float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % interval by bootstrap over trials (seeded)."""
    one = np.array(values, np.float64)
    draw = np.random.default_rng(1).integers(0, len(one), (RESAMPLES, len(one)))
    low, high = np.percentile(one[draw].mean(axis=1), [2.5, 97.5])
    return float(one.mean()), float(low), float(high)
