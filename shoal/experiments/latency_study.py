"""What `shoal experiment latency` runs, and the figures made of it. Named before the first run; see the guide.

    study = run_study(seeds=20, duration_s=600)
    study.improvement("cloud")           # Share(value, low, high): throughput on the edge over that, less one
    study.crossing(RATES)                # where along a curve the improvement reaches CLAIM

Intervals are 95 %, by bootstrap over seeds: the resampled seeds are the same for both halves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite

import numpy as np

from firmware_sim.two_arms import F64, ArmsSpec
from shoal.experiments.remote import CLOUD, EDGE, Case, Latency, Outcome, simulate

CLAIM = 0.4
"""What the source says."""
RESAMPLES = 2_000

_SPEC = ArmsSpec()
VARIANTS: Mapping[str, ArmsSpec] = {
    "reach ± 10 mm": replace(_SPEC, reach=0.01),
    "reach ± 20 mm": replace(_SPEC, reach=0.02),
    "stop of 5 s": replace(_SPEC, stop_s=5.0),
    "stop of 30 s": replace(_SPEC, stop_s=30.0),
    "arms 0.25 m/s fast": replace(_SPEC, fast=0.25),
    "arms 1 m/s fast": replace(_SPEC, fast=1.0),
    "waiting place 150 mm": replace(_SPEC, wait=0.15),
    "waiting place 250 mm": replace(_SPEC, wait=0.25),
    "seams 270 mm apart": replace(_SPEC, pitch=0.27),
    "seams 400 mm apart": replace(_SPEC, pitch=0.4),
}
"""One figure of the cell changed, in both halves."""

_OVERTAKING = replace(CLOUD, overtaking=True)
LINES: Mapping[str, Case] = {
    "edge": Case(EDGE),
    "nothing added": Case(replace(CLOUD, base_ms=EDGE.base_ms, spike_ms=EDGE.base_ms)),
    "no spikes": Case(Latency(CLOUD.base_ms)),
    "steady": Case(Latency(100.0)),
    "cloud": Case(CLOUD),
    "overtaking": Case(_OVERTAKING),
    "episodes": Case(replace(CLOUD, episode_ms=500.0)),
    "cautious": Case(CLOUD, allowed_s=0.3),
}
"""Lines to the frozen cell."""
ABOUT: Mapping[str, str] = {
    "edge": "edge: 10 ms",
    "nothing added": "cloud, nothing added",
    "no spikes": "cloud: 30 ms",
    "steady": "cloud: 100 ms",
    "cloud": "cloud, 10 % of 300 ms",
    "overtaking": "… that overtake",
    "episodes": "… in episodes of 500 ms",
    "cautious": "… rule brakes for 300 ms",
}

Curve = tuple[tuple[float, str], ...]
"""(x, name of the case), ascending."""
_RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
_SIZES = (60.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 500.0, 700.0, 1000.0)
MAP_RATES = (0.02, 0.05, 0.1, 0.2, 0.3)
MAP_SIZES = (100.0, 200.0, 300.0, 400.0, 500.0, 700.0, 1000.0)


def _named(rate: float, size_ms: float, overtaking: bool = False) -> str:
    if not rate or size_ms <= CLOUD.base_ms:
        return "no spikes"
    if (rate, size_ms) == (CLOUD.rate, CLOUD.spike_ms):
        return "overtaking" if overtaking else "cloud"
    return f"{100 * rate:g} % of {size_ms:g} ms{', overtaking' if overtaking else ''}"


def _by_rate(overtaking: bool = False) -> Curve:
    return tuple((rate, _named(rate, CLOUD.spike_ms, overtaking)) for rate in (0.0, *_RATES))


def _by_size(overtaking: bool = False) -> Curve:
    return tuple((size, _named(CLOUD.rate, size, overtaking)) for size in (CLOUD.base_ms, *_SIZES))


RATES, SIZES = _by_rate(), _by_size()
RATES_OVERTAKING, SIZES_OVERTAKING = _by_rate(True), _by_size(True)


@dataclass(frozen=True)
class Share:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Study:
    """Every case with every seed."""

    names: tuple[str, ...]
    outcome: Outcome
    seeds: int

    def at(self, name: str) -> int:
        """Which row of the outcome."""
        return self.names.index(name)

    def per_hour(self, name: str) -> float:
        """Components recovered, mean over seeds."""
        return float(self.outcome.per_hour[self.at(name)].mean())

    def missed(self, name: str) -> Share:
        """Share of the steps that were missed."""
        row = self.at(name)
        missed, passed = self.outcome.missed[row], self.outcome.passed[row]
        return _share(missed.sum() / passed.sum(), missed[self._draws].sum(1) / passed[self._draws].sum(1))

    def collisions_h(self, name: str) -> Share:
        """Collisions per hour."""
        per_h = self.outcome.collisions[self.at(name)] / self.outcome.hours
        return _share(per_h.mean(), per_h[self._draws].mean(1))

    def improvement(self, name: str, against: str = "edge") -> Share:
        """Throughput of `against` over that of `name`, less one."""
        better, worse = self.outcome.recovered[self.at(against)], self.outcome.recovered[self.at(name)]
        return _share(better.sum() / worse.sum() - 1 if worse.sum() else inf, self._improvements(name, against))

    def crossing(self, curve: Curve) -> Share | None:
        """Where the improvement first reaches CLAIM, along straight lines; None: it does not. A bound of the interval
        is infinite where too many resamples do not reach it."""
        x = np.array([at for at, _ in curve])
        value = _first(x, np.array([[self.improvement(name).value] for _, name in curve]))[0]
        drawn = _first(x, np.stack([self._improvements(name, "edge") for _, name in curve]))
        return _share(value, drawn) if isfinite(value) else None

    @cached_property
    def _draws(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return np.random.default_rng(1).integers(0, self.seeds, (RESAMPLES, self.seeds))

    def _improvements(self, name: str, against: str) -> F64:
        """(RESAMPLES,)"""
        better, worse = self.outcome.recovered[self.at(against)], self.outcome.recovered[self.at(name)]
        drawn: F64 = better[self._draws].sum(1) / np.maximum(worse[self._draws].sum(1), 1) - 1.0
        return drawn


def cases() -> dict[str, Case]:
    """All that is run, by name."""
    found = dict(LINES)
    for name, spec in VARIANTS.items():
        found[f"edge, {name}"], found[f"cloud, {name}"] = Case(EDGE, spec), Case(CLOUD, spec)
    points = [(rate, CLOUD.spike_ms, way) for rate in _RATES for way in (False, True)]
    points += [(CLOUD.rate, size, way) for size in _SIZES for way in (False, True)]
    points += [(rate, size, False) for rate in MAP_RATES for size in MAP_SIZES]
    for rate, size, way in points:
        found.setdefault(_named(rate, size, way), Case(replace(CLOUD, rate=rate, spike_ms=size, overtaking=way)))
    return found


def map_name(rate: float, size_ms: float) -> str:
    """The case at a point of the map."""
    return _named(rate, size_ms)


def run_study(*, seeds: int, duration_s: float, progress: Callable[[float], None] | None = None) -> Study:
    """Everything; deterministic."""
    every = cases()
    outcome = simulate(list(every.values()), seeds=range(seeds), duration_s=duration_s, progress=progress)
    return Study(tuple(every), outcome, seeds)


def _first(x: F64, y: F64) -> F64:
    """(R,) where each column of `y` (points, R) first reaches CLAIM; inf: nowhere."""
    found = np.full(y.shape[1], inf)
    for k in range(len(x) - 1, 0, -1):
        rises = (y[k - 1] < CLAIM) & (y[k] >= CLAIM)
        step = (CLAIM - y[k - 1]) / np.where(rises, y[k] - y[k - 1], 1.0)
        found = np.where(rises, x[k - 1] + step * (x[k] - x[k - 1]), found)
    return np.where(y[0] >= CLAIM, x[0], found)


def _share(value: float, drawn: F64) -> Share:
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")  # no mean of a number and infinity
    return Share(float(value), float(low), float(high))


def spans(study: Study, curve: Curve) -> Sequence[Share]:
    """The improvement at every point of a curve."""
    return [study.improvement(name) for _, name in curve]
