"""What the tests of cleaning share: a press, bursts of it, and the promise that holds for every call."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from edge.cleaning import Cleaned, Cleaner
from messages.contracts import Burst, Series
from messages.plant import Device, MetricSpec
from messages.quality import GRADE_MASK, Why

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
NOW = T0 + 200 * SECOND

PRESS = Device(
    device="press",
    node="n",
    kind="machine",
    workshop="w",
    metrics={
        "power_kw": MetricSpec(unit="kW", low=0, high=200, noise=0.5),
        "temp_degc": MetricSpec(unit="degC", low=-20, high=300, noise=0.1, max_rate_per_s=1, stuck_after_s=10),
        "energy_kwh": MetricSpec(unit="kWh", low=0, high=1e9, counter=True),
        "state": MetricSpec(unit="code", low=0, high=5, code=True),
    },
)
UNITS = {metric: spec.unit for metric, spec in PRESS.metrics.items()}


def burst(columns, *, t0=T0, at=None, units=None, boot="0000beef", seq=0, events=()):
    n = len(next(iter(columns.values())))
    return Burst(
        boot=boot,
        seq=seq,
        first=0,
        t0=t0,
        at=[i * SECOND for i in range(n)] if at is None else at,
        columns=columns,
        units={**UNITS, **(units or {})},
        events=list(events),
    )


def clean(*bursts, cleaner=None, now=NOW, device="press", devices=(PRESS,)):
    cleaner = cleaner or Cleaner(devices)
    return checked(cleaner.clean([(device, one) for one in bursts], now), [(device, one) for one in bursts])


def checked(cleaned: Cleaned, bursts) -> Cleaned:
    """The promise that holds for every call whatever came in."""
    assert cleaned.rows + sum(r.readings for r in cleaned.rejected) == sum(one.readings for _, one in bursts)
    written = Counter()
    for one in cleaned.series:
        assert Series.decode(one.encode()) == one  # the contract: finite, rectangular, ascending
        assert all(map(math.isfinite, one.value))
        written.update((one.device, one.metric, one.t0 + at) for at in one.at)
    assert not written or max(written.values()) == 1
    return cleaned


def of(cleaned, metric="power_kw"):
    [series] = [one for one in cleaned.series if one.metric == metric]
    return series


def quality(series):
    return series.quality if isinstance(series.quality, list) else [series.quality] * len(series.at)


def why(series, index):
    return Why(quality(series)[index] & ~GRADE_MASK)


def rejections(cleaned):
    return {(r.metric, r.reason): r.readings for r in cleaned.rejected}


def noisy(n, level=50.0, sigma=0.5, seed=1):
    return (level + sigma * np.random.default_rng(seed).normal(size=n)).tolist()
