"""Carbon of energy: kWh by carrier and hour, times what a kWh emits then.

The grid's intensity comes as a Signal (kg CO2e per kWh, a step function); natural gas emits the same at any hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from messages.contracts import Signal
from messages.curve import Curve

GAS_KG_PER_KWH = 0.202
"""Natural gas, lower heating value: 56.1 kg CO2 per GJ (IPCC 2006 Guidelines, vol. 2, table 1.4) · 0.0036 GJ/kWh."""
SECOND = 1_000_000


def intensity_at(signal: Signal, at: int) -> float:
    """The value in force at `at` (µs); before the first and after the last, the nearest one."""
    step = int((at - signal.start) // (signal.step_s * SECOND))
    return signal.values[min(max(step, 0), len(signal.values) - 1)]


def curve_of(signal: Signal | None, t0: int, grid: int) -> Curve | None:
    """A forecast on the grid of ticks, of which the first begins at `t0` (both µs); none: nothing is said of it."""
    if signal is None:
        return None
    step = max(1, round(signal.step_s * SECOND / grid))
    return Curve(start=round((signal.start - t0) / grid), step=step, values=tuple(signal.values))


def emissions_kg(hours: Sequence[tuple[int, float]], signal: Signal | None, carrier: str) -> float:
    """kg CO2e of `(start µs, kWh)` pieces, each short against the signal's step.

    >>> emissions_kg([(0, 10.0), (3_600_000_000, 5.0)], None, "gas")
    3.03
    """
    if carrier == "gas":
        return round(math.fsum(kwh for _, kwh in hours) * GAS_KG_PER_KWH, 6)
    if signal is None:
        return 0.0
    return round(math.fsum(kwh * intensity_at(signal, at) for at, kwh in hours), 6)


def day_of_carbon(start: int, days: int = 7) -> Signal:
    """A made-up grid for the demo: 0.42 kg/kWh at night, 0.18 at noon, hour by hour from `start`. Simulated."""
    values = [round(0.30 - 0.12 * math.sin(math.pi * ((hour % 24) - 6) / 12), 4) for hour in range(24 * days)]
    return Signal(name="carbon", revision=1, unit="kg/kWh", start=start, step_s=3600, values=values)
