"""Main meters of a workshop: what its machines draw together, and a base load that wanders within ± 7 %.

The electricity meter of a gas workshop sees only the base load; its gas meter sees the machines. True values
in closed form, as in `signals`; sensor noise is added by the device.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from firmware_sim.machine import MachineModel
from firmware_sim.signals import HOUR_US, Floats, Ints
from messages.contracts import STATE_CODES
from messages.plant import Workshop

SWINGS = ((0.05, 24.0), (0.02, 1.7))
"""(share, period in h) of the base load's swings; together inside the ± 10 % the plant file promises."""


class MeterModel:
    """The meter of one workshop; its counters are 0 at `start`."""

    def __init__(
        self,
        workshop: Workshop,
        machines: tuple[MachineModel, ...],
        *,
        gas_kwh_per_m3: float,
        start: int,
        seed: int,
    ) -> None:
        self.workshop, self.machines = workshop, machines
        self.gas_kwh_per_m3, self.start = gas_kwh_per_m3, start
        rng = np.random.default_rng([seed, zlib.crc32(workshop.name.encode())])
        self._phases = tuple(float(phase) for phase in rng.uniform(0, 2 * math.pi, len(SWINGS)))

    def sample(self, at: Ints) -> dict[str, Floats]:
        """True values at ascending times not before what the machines still remember."""
        seen = [machine.sample(at) for machine in self.machines]
        kw: Floats = np.zeros(len(at)) + sum(one["power_kw"] for one in seen)
        kwh: Floats = np.zeros(len(at)) + sum(one["energy_kwh"] for one in seen)
        hours: Floats = (at - self.start) / HOUR_US
        electricity_kw, electricity_kwh = self._base(hours)
        values: dict[str, Floats] = {}
        if self.workshop.carrier == "electricity":
            electricity_kw, electricity_kwh = electricity_kw + kw, electricity_kwh + kwh
        else:
            values = {"gas_m3_h": kw / self.gas_kwh_per_m3, "gas_m3": kwh / self.gas_kwh_per_m3}
        values |= {"electricity_kw": electricity_kw, "electricity_kwh": electricity_kwh}
        if self.workshop.water_m3_h:
            working: Floats = np.ones(len(at))
            if self.machines:
                working = np.zeros(len(at)) + sum(one["state"] == STATE_CODES["work"] for one in seen)
            values["water_m3_h"] = self.workshop.water_m3_h * working
        return values

    def _base(self, hours: Floats) -> tuple[Floats, Floats]:
        """Base load in kW and its counter in kWh."""
        kw, kwh = np.ones_like(hours), hours.copy()
        for (share, period_h), phase in zip(SWINGS, self._phases, strict=True):
            turn = 2 * math.pi / period_h
            kw += share * np.sin(turn * hours + phase)
            kwh += share * (math.cos(phase) - np.cos(turn * hours + phase)) / turn
        return self.workshop.base_kw * kw, self.workshop.base_kw * kwh
