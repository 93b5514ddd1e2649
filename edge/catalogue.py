"""The series of a node by number: their names and what the plant file says of each, as arrays.

Dimensions: S series (device × metric), in the order of the plant file; D devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from messages.plant import Device

FLOOR_SHARE = 1e-3
"""Assumed noise, as a share of [low, high], of a metric whose noise is not stated."""
DOUBT = 1.2
"""Weight of the deviation in a window itself, where no noise is stated: it may follow the load."""
BELIEVED = 1.5
"""Stated noise is believed until what is learned is so many times as much."""
HALF_OF_ALL = float(np.finfo(np.float64).max) / 2


class Catalogue:
    """Names to numbers (`device`, `series_of[device][metric]`), numbers to names, units and limits (S,)."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.names = [(device.device, metric) for device in devices for metric in device.metrics]
        self.device = {device.device: i for i, device in enumerate(devices)}
        self._number = {name: i for i, name in enumerate(self.names)}
        self.series_of = [{m: self._number[device.device, m] for m in device.metrics} for device in devices]

        specs = [spec for device in devices for spec in device.metrics.values()]
        self.unit = [spec.unit for spec in specs]
        self.full_names = [(*name, unit) for name, unit in zip(self.names, self.unit, strict=True)]
        self.low: npt.NDArray[np.float64] = np.array([spec.low for spec in specs], np.float64)
        self.high: npt.NDArray[np.float64] = np.array([spec.high for spec in specs], np.float64)
        self.stated_noise: npt.NDArray[np.float64] = np.array([spec.noise for spec in specs], np.float64)
        width = np.minimum((self.high / 2 - self.low / 2), HALF_OF_ALL) * 2
        noise = np.where(self.stated_noise > 0, self.stated_noise, FLOOR_SHARE * width)
        self.doubt: npt.NDArray[np.float64] = np.where(self.stated_noise > 0, 0.0, DOUBT)
        self.believed: npt.NDArray[np.float64] = BELIEVED * self.stated_noise
        self.counter: npt.NDArray[np.bool_] = np.array([spec.counter for spec in specs], np.bool_)
        self.code: npt.NDArray[np.bool_] = np.array([spec.code for spec in specs], np.bool_)
        # Counters and codes have no noise: nothing in them sticks out, and nothing is learned.
        analog = ~(self.counter | self.code)
        self.noise: npt.NDArray[np.float64] = np.where(analog, noise, np.inf)
        self.most_noise: npt.NDArray[np.float64] = np.where(analog, width, 0.0)
        # A code may jump and may rest: neither says anything about the sensor.
        rate = np.array([spec.max_rate_per_s or np.inf for spec in specs], np.float64)
        self.rate_per_s: npt.NDArray[np.float64] = np.where(self.code, np.inf, rate)
        self.limited: npt.NDArray[np.bool_] = np.isfinite(self.rate_per_s)
        stuck_us = np.array([round((spec.stuck_after_s or 0) * 1e6) for spec in specs], np.int64)
        self.stuck_us: npt.NDArray[np.int64] = np.where(self.code, 0, stuck_us)

    def number(self, device: str, metric: str) -> int | None:
        """The series of this name, None when the node has none."""
        return self._number.get((device, metric))
