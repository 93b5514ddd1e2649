"""What a run found: counts of readings and events, and the first that are not as they should be, by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

SHOWN = 20
"""Offenders that are named; all are counted."""
TIME_REASONS = ("too_late", "clock")
"""Rejections that judge the time: a run says how many there were also when there were none."""


class Offender(NamedTuple):
    """One reading, or event, that is not as it should be."""

    what: str
    device: str
    metric: str
    at: int
    seq: int | None
    detail: str

    def __str__(self) -> str:
        seq = "" if self.seq is None else f" burst {self.seq}"
        return f"{self.what}: {self.device} {self.metric} at {self.at}{seq}: {self.detail}"


@dataclass
class Verdict:
    """Counts of readings, and of events where it says so; what is wrong counts both."""

    produced: int = 0
    stored: int = 0
    rejected: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(TIME_REASONS, 0)))
    """reason → readings"""
    gaps: int = 0
    gaps_cooperative: int = 0
    """of these, of devices that keep what they send: must be none"""
    events: int = 0
    """produced"""
    events_stored: int = 0
    events_refused: int = 0
    """of bursts that had to be refused as a whole"""
    events_gaps: int = 0
    """of bursts within a gap"""
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    unexplained: int = 0
    moved: int = 0
    converted: int = 0
    replaced: int = 0
    offenders: list[Offender] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Exactly once, to the reading and to the value."""
        wrong = self.lost + self.duplicates + self.corrupt + self.unexplained + self.gaps_cooperative
        readings = self.stored + sum(self.rejected.values()) + self.gaps
        events = self.events_stored + self.events_refused + self.events_gaps
        return wrong == 0 and self.produced == readings and self.events == events

    def accuse(self, *offender: str | int | None) -> None:
        """Name one, while there is room."""
        if len(self.offenders) < SHOWN:
            self.offenders.append(Offender(*offender))  # type: ignore[arg-type]
