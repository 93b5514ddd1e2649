"""Sensors with faults in known cells, for the cleaning benchmark: what was true, what was sent, what is wrong with it.

    data = Data(devices=16, samples=4000, per_burst=100, seed=101, faults=FAULTS)
    for bursts, now in data.calls(): ...            # a burst of every device, late ones after their successor
    data.labels["spike"], data.truth, data.sent     # (device, metric, sample)

Four metrics at 1 Hz, whose shapes are
    temp_degc       smooth heating and cooling between set points, first order, at most 0.4 K/s; noise 0.2 K, stated
    power_kw        steps between off, idle and loads of 20 to 110 kW, 300 s apart on average; noise 0.5 kW, stated
    vibration_mm_s  noise that follows the load (12 % of 0.5 to 6 mm/s, log-normal); noise not stated: learned
    energy_kwh      a counter: the power added up

The faults are those of `firmware_sim.faults.Liar`, with magnitudes from the ranges of `FAULTS`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from firmware_sim.faults import Liar
from firmware_sim.settings import Faults
from messages.contracts import Burst
from messages.plant import Device, MetricSpec

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
METRICS = {
    "temp_degc": MetricSpec(unit="degC", low=-20, high=300, noise=0.2, max_rate_per_s=0.5, stuck_after_s=5),
    "power_kw": MetricSpec(unit="kW", low=0, high=200, noise=0.5, stuck_after_s=5),
    "vibration_mm_s": MetricSpec(unit="mm/s", low=0, high=50, stuck_after_s=5),
    "energy_kwh": MetricSpec(unit="kWh", low=0, high=1e9, counter=True),
}
TEMP, POWER, VIBRATION, ENERGY = range(4)
UNITS = {metric: spec.unit for metric, spec in METRICS.items()}
VIBRATION_NOISE = 0.12
"""Share of the level; the smallest (0.06 mm/s, at 0.5) is above what is assumed where nothing is stated."""
SPIKE_SIGMAS = (4.0, 100.0)
FAULTS = Faults(
    missing=0.01,
    spike=0.01,
    spike_sigmas=SPIKE_SIGMAS,
    out_of_range=0.005,
    beyond_share=(0.001, 1.0),
    stuck=0.0003,
    stuck_s=10,
    stuck_to_s=120,
    duplicate=0.05,
    out_of_order=0.05,
    out_of_order_burst=0.01,
)
KINDS = ("missing", "out_of_range", "spike", "stuck", "drift", "wrong_unit")


class Data:
    """Signals of D devices × 4 metrics × T samples, distorted burst by burst as they are asked for."""

    def __init__(self, devices: int, samples: int, per_burst: int, seed: int, faults: Faults) -> None:
        self.rng = np.random.default_rng(seed)
        self.per_burst, self.samples, self.faults = per_burst, samples, faults
        self.devices = [
            Device(device=f"d{d}", node="n", kind="machine", workshop="w", metrics=METRICS) for d in range(devices)
        ]
        shape = self.shape = (devices, len(METRICS), samples)
        self.truth, self.sigma = np.empty(shape), np.empty(shape)
        for d in range(devices):
            self._signals(d)
        noise = self.rng.normal(size=shape)
        self.healthy = self.truth + self.sigma * noise
        wobble = np.exp(VIBRATION_NOISE * noise[:, VIBRATION] - VIBRATION_NOISE**2 / 2)
        self.healthy[:, VIBRATION] = self.truth[:, VIBRATION] * wobble
        self.healthy[:, POWER] = np.maximum(self.healthy[:, POWER], 0)
        self.healthy = np.round(self.healthy, 4)
        self.sent = np.full(shape, np.nan)
        self.labels = {kind: np.zeros(shape, np.bool_) for kind in KINDS}
        self.late = np.zeros(shape, np.bool_)
        self.readings = self.repeated = 0

    def _signals(self, d: int) -> None:
        rng, n = self.rng, self.samples
        second = np.arange(n)
        switch = np.maximum.accumulate(np.where(rng.random(n) < 1 / 300, second, 0))
        level = np.where(rng.random(n) < 0.3, rng.choice([0.0, 8.0], n), rng.uniform(20, 110, n))[switch]
        self.truth[d, POWER], self.sigma[d, POWER] = level, METRICS["power_kw"].noise
        goal = rng.uniform(40, 180, n)[np.maximum.accumulate(np.where(rng.random(n) < 1 / 900, second, 0))]
        temp = goal[0]
        tau_s = rng.uniform(350, 900)
        for i in range(n):
            temp += (goal[i] - temp) / tau_s
            self.truth[d, TEMP, i] = temp
        self.sigma[d, TEMP] = METRICS["temp_degc"].noise
        self.truth[d, VIBRATION] = 0.5 + level / 20
        self.sigma[d, VIBRATION] = VIBRATION_NOISE * self.truth[d, VIBRATION]
        self.truth[d, ENERGY] = 5000 + np.cumsum(level) / 3600
        self.sigma[d, ENERGY] = 0.0

    def calls(self) -> Iterator[tuple[list[tuple[str, Burst]], int]]:
        """Bursts in their order of arrival, and when they arrive."""
        # Faults of vibration are drawn in its noise at an average load, which its plant file does not state.
        told = {**METRICS, "vibration_mm_s": METRICS["vibration_mm_s"].model_copy(update={"noise": 0.35})}
        liars = [
            Liar(device.model_copy(update={"metrics": told}), self.faults, np.random.default_rng([d, self.samples]))
            for d, device in enumerate(self.devices)
        ]
        for liar in liars:
            liar.rng = np.random.default_rng(self.rng.integers(2**63))
        held: dict[int, Burst] = {}
        for seq, first in enumerate(range(0, self.samples, self.per_burst)):
            call = list[tuple[str, Burst]]()
            for d, liar in enumerate(liars):
                burst, after_next = self._burst(d, liar, seq, first)
                if d in held:
                    call += [(f"d{d}", burst), (f"d{d}", held.pop(d))]
                elif after_next:
                    held[d] = burst
                    self.late[d, :, first : first + self.per_burst] = True
                else:
                    call.append((f"d{d}", burst))
            yield call, T0 + (first + self.per_burst) * SECOND
        if held:
            yield [(f"d{d}", burst) for d, burst in held.items()], T0 + (self.samples + self.per_burst) * SECOND

    def _burst(self, d: int, liar: Liar, seq: int, first: int) -> tuple[Burst, bool]:
        picked = np.arange(first, min(first + self.per_burst, self.samples))
        healthy = {metric: self.healthy[d, m, picked] for m, metric in enumerate(METRICS)}
        sent = liar.distort(T0 + picked * SECOND, healthy)
        sample = ((sent.at - T0) // SECOND).astype(int)
        for m, metric in enumerate(METRICS):
            column = sent.columns[metric]
            self.sent[d, m, sample] = [np.nan if value is None else value for value in column]
            for kind, places in sent.labels.get(metric, {}).items():
                self.labels[kind][d, m, sample[places]] = True
        after_next = sent.send_after_next and first + self.per_burst < self.samples
        # Of a sample that is there twice the first one counts, and the other is a repeat.
        once = sample[np.sort(np.unique(sample, return_index=True)[1])]
        self.late[d, :, once[once < np.maximum.accumulate(once)]] = True
        self.repeated += len(METRICS) * (len(sample) - len(set(sample.tolist())))
        self.readings += len(METRICS) * len(sample)
        burst = Burst.model_construct(
            boot="00000000",
            seq=seq,
            floor=None,
            first=0,
            t0=T0,
            at=(sent.at - T0).tolist(),
            columns=sent.columns,
            units=sent.units,
            events=[],
        )
        return burst, after_next
