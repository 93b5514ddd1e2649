"""Last known values of every device, for integrators: retained, at most once a second of real time each. Pure.

    latest.update(cleaned.tables)
    for device, message in latest.due(monotonic_s): ...        # publish; what could not be sent: latest.again(device)

Values are kept in memory only: the broker holds what was last said, and after a restart the next burst says more.
Bound: the devices and metrics of the plant file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from edge.table import Table
from messages.contracts import Latest, LatestValue


@dataclass
class LatestValues:
    """The newest value per device and metric, and which devices have news."""

    every_s: float = 1.0
    _values: dict[str, dict[str, tuple[int, float, int, str]]] = field(default_factory=dict)
    """at, value, quality and unit; messages are made when they are due, not for every batch"""
    _news: set[str] = field(default_factory=set)
    _said: dict[str, float] = field(default_factory=dict)

    def update(self, tables: Iterable[Table]) -> None:
        """Take over the last row of each series, unless a newer one is known."""
        for table in tables:
            last = np.array(table.bounds[1:]) - 1
            rows = zip(
                table.names,
                table.time[last].tolist(),
                table.value[last].tolist(),
                table.quality[last].tolist(),
                strict=True,
            )
            for (device, metric, unit), at, value, quality in rows:
                values = self._values.setdefault(device, {})
                known = values.get(metric)
                if known is None or known[0] <= at:
                    values[metric] = (at, value, quality, unit)
                    self._news.add(device)

    def due(self, monotonic_s: float) -> list[tuple[str, Latest]]:
        """Devices with news that were silent for `every_s`; they are taken as said now."""
        ready = [device for device in sorted(self._news) if monotonic_s - self._said.get(device, -1e18) >= self.every_s]
        for device in ready:
            self._said[device] = monotonic_s
            self._news.discard(device)
        return [(device, self._latest(device)) for device in ready]

    def again(self, *devices: str) -> None:
        """Say these again (none given: all), because the broker may not have them."""
        self._news.update(devices or self._values)

    def _latest(self, device: str) -> Latest:
        return Latest(
            values={
                metric: LatestValue(at=at, value=value, quality=quality, unit=unit)
                for metric, (at, value, quality, unit) in self._values[device].items()
            }
        )
