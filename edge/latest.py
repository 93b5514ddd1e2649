"""Last known values of every device, for integrators: retained, at most once a second of real time each. Pure.

    latest.update(cleaned.series)
    for device, message in latest.due(monotonic_s): ...        # publish; what could not be sent: latest.again(device)

Values are kept in memory only: the broker holds what was last said, and after a restart the next burst says more.
Bound: the devices and metrics of the plant file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from messages.contracts import Latest, LatestValue, Series


@dataclass
class LatestValues:
    """The newest value per device and metric, and which devices have news."""

    every_s: float = 1.0
    _values: dict[str, dict[str, tuple[int, float, int, str]]] = field(default_factory=dict)
    """at, value, quality and unit; messages are made when they are due, not for every batch"""
    _news: set[str] = field(default_factory=set)
    _said: dict[str, float] = field(default_factory=dict)

    def update(self, series: Iterable[Series]) -> None:
        """Take over the last row of each series, unless a newer one is known."""
        for one in series:
            at = one.t0 + one.at[-1]
            values = self._values.setdefault(one.device, {})
            known = values.get(one.metric)
            if known is not None and known[0] > at:
                continue
            quality = one.quality if isinstance(one.quality, int) else one.quality[-1]
            values[one.metric] = (at, one.value[-1], quality, one.unit)
            self._news.add(one.device)

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
