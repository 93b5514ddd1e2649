"""Readings that do not become rows: counted by device, metric and reason, the first of each kept as a sample."""

from __future__ import annotations

from collections.abc import Sequence

from messages.contracts import Rejected


class Refusals:
    """The refusals of one call; `names` are (device, metric) by number of series."""

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        self._names = names
        self._counts: dict[tuple[str, str | None, str], int] = {}
        self._samples: dict[tuple[str, str | None, str], str | None] = {}

    def add(self, device: str, metric: str | None, reason: str, readings: int, sample: str | None = None) -> None:
        """Count `readings` of one device; `sample` shows what they were like."""
        key = (device, metric, reason)
        self._counts[key] = self._counts.get(key, 0) + readings
        self._samples.setdefault(key, sample)

    def add_cells(self, series: list[int], reason: str, samples: list[str] | None = None) -> None:
        """Count one reading per entry of `series`, the numbers of the series they belong to."""
        for i, one in enumerate(series):
            device, metric = self._names[one]
            self.add(device, metric, reason, 1, samples[i] if samples else None)

    def records(self, now: int) -> list[Rejected]:
        """One record per device, metric and reason, in the order of their first refusal."""
        return [
            Rejected(at=now, device=device, metric=metric, reason=reason, readings=count, sample=self._samples[key])
            for key, count in self._counts.items()
            if count
            for device, metric, reason in (key,)
        ]
