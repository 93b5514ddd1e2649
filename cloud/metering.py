"""Energy as the machines' own counters tell it, read from the store piece by piece."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from cloud.stores import Query, Store
from messages.errors import StoreDown
from messages.plant import Plant

WINDOW_S = 3600.0
"""Counters are read again from the start of the last window of this length."""

AGAIN_S = 15.0
"""A store that was down is not asked again for so long: asking one that hangs holds up whoever plans."""


@dataclass
class EnergyMeter:
    """kWh of a site's machines since the first reading stored; each call reads only what is new.

    While the store is down, what was read last.
    """

    store: Store
    plant: Plant
    monotonic: Callable[[], float] = time.monotonic
    _not_before: float = float("-inf")
    _spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    _read_to: int | None = None

    def kwh(self) -> float:
        """The last value of every counter less its first."""
        if self.monotonic() >= self._not_before:
            try:
                self._read()
            except StoreDown:
                self._not_before = self.monotonic() + AGAIN_S
        return sum(last - first for first, last in self._spans.values())

    def _read(self) -> None:
        if not self._spans:
            for device, at, value in self._counters(None, "min"):
                self._spans.setdefault(device, (value, value))
                self._read_to = min(self._read_to or at, at)
        for device, at, value in self._counters(self._read_to, "last"):
            first, _ = self._spans.setdefault(device, (value, value))
            self._spans[device] = (first, value)
            self._read_to = max(self._read_to or at, at)

    def _counters(self, start: int | None, agg: Literal["min", "last"]) -> list[tuple[str, int, float]]:
        answer = self.store.query(
            Query(metric="energy_kwh", site=self.plant.site, start=start, every_s=WINDOW_S, agg=agg)
        )
        rows = zip(answer.which.tolist(), answer.times.tolist(), answer.values.tolist(), strict=True)
        return [
            (answer.series[which].device, at, value)
            for which, at, value in rows
            if answer.series[which].device in self.plant.machines
        ]
