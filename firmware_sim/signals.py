"""What a machine draws and how hot it is, as closed formulas of time: any number of samples in one go.

Every load profile has mean 1 over its operation, so that an operation's energy is its power times its
duration, and comes with its exact integral, so that counters need no small steps. Arrays are (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HOUR_US = 3_600_000_000
STEEPNESS = 3.0
"""Time constants that pass while a machine heats up: 95 % of a first-order step."""


@dataclass(frozen=True, slots=True)
class Profile:
    """1 + Σ a·sin(kπx) + Σ b·cos(kπx) over x in [0, 1], with mean 1."""

    sines: tuple[tuple[float, int], ...] = ()
    cosines: tuple[tuple[float, int], ...] = ()

    def load(self, x: Floats) -> Floats:
        """Power at x as a multiple of the state's power."""
        y = np.ones_like(x)
        for a, k in self.sines:
            y += a * np.sin(k * math.pi * x)
        for b, k in self.cosines:
            y += b * np.cos(k * math.pi * x)
        return y

    def area(self, x: Floats) -> Floats:
        """∫ load from 0 to x; 1 at x = 1."""
        y = x.copy()
        for a, k in self.sines:
            y += a * (1 - np.cos(k * math.pi * x)) / (k * math.pi)
        for b, k in self.cosines:
            y += b * np.sin(k * math.pi * x) / (k * math.pi)
        return y


FLAT = Profile()
WORK = Profile(sines=((0.12, 2), (0.04, 6)))
"""Runs in, works hard, runs out; even multiples of π leave the mean at 1."""
PREHEAT = Profile(cosines=((0.25, 1),))
"""Most power into the cold machine."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time in one state: power `kw`·profile, temperature on its way from `from_degc` to `to_degc`.

    `x0` is the profile's place at `start`, `span_us` the time of the whole profile.
    """

    start: int
    code: int
    kw: float
    profile: Profile
    x0: float
    span_us: float
    from_degc: float
    to_degc: float
    tau_us: float
    energy_kwh: float

    def power_kw(self, at: Ints) -> Floats:
        """True power at times `at` of this segment."""
        if self.profile is FLAT:
            return np.full(len(at), self.kw)
        return self.kw * self.profile.load(self._x(at))

    def energy_at_kwh(self, at: Ints) -> Floats:
        """True counter at times `at`."""
        if self.profile is FLAT:
            flat: Floats = self.energy_kwh + self.kw * ((at - self.start) / HOUR_US)
            return flat
        before = self.profile.area(np.array([self.x0]))[0]
        hours = self.span_us / HOUR_US
        kwh: Floats = self.energy_kwh + self.kw * hours * (self.profile.area(self._x(at)) - before)
        return kwh

    def temperature_degc(self, at: Ints) -> Floats:
        """First-order approach."""
        decay: Floats = np.exp(-(at - self.start) / self.tau_us)
        degc: Floats = self.to_degc + (self.from_degc - self.to_degc) * decay
        return degc

    def _x(self, at: Ints) -> Floats:
        x: Floats = self.x0 + (at - self.start) / self.span_us
        return np.clip(x, 0.0, 1.0)


def overshoot_degc(from_degc: float, work_degc: float) -> float:
    """Where a heater must aim so that, after STEEPNESS time constants, the machine has exactly `work_degc`."""
    return from_degc + (work_degc - from_degc) / (1 - math.exp(-STEEPNESS))
