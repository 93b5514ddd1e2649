"""How long readings wait to share a commit: while more comes. Pure.

    patience = Patience(commit_s)
    patience.came(bursts, now_s)                         # at every list of bursts
    waiting = patience.begin(size, now_s)
    while not waiting.over(size, now_s): …               # look again after `patience.pause_s`

Waiting pays while it gathers company. When `ENOUGH` bytes are there, pages are full and it pays no longer. And when
nothing came for a tenth of `commit_s`, and for `LONG` times the usual gap between two bursts, the devices are waiting
for us: they have sent all they may before they hear `Taken`. To wait on would only slow them down. So a load that
comes by the clock is committed every `commit_s`, and one that comes as fast as it may at full speed. Bound: devices
that may send fewer than `LONG` bursts together, and less than `ENOUGH`, get what they may send once per `commit_s`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ENOUGH = 64 * 1024
LONG = 15.0
_KEPT = 0.98
"""Of the usual gap, at each burst."""


@dataclass
class Waiting:
    """One list of bursts that waits for company."""

    silence_s: float
    size: int
    since_s: float

    def over(self, size: int, now_s: float) -> bool:
        """Whether to wait no longer; `size`: bytes that are here by now."""
        if size > self.size:
            self.size, self.since_s = size, now_s
        return size >= ENOUGH or now_s - self.since_s >= self.silence_s


@dataclass
class Patience:
    """The usual gap between two bursts, and what follows from it."""

    commit_s: float
    gap_s: float = field(init=False)
    _came_s: float | None = None

    def __post_init__(self) -> None:
        self.gap_s = self.commit_s

    def came(self, bursts: int, now_s: float) -> None:
        """So many bursts came together."""
        if self._came_s is not None:
            gap_s = min((now_s - self._came_s) / bursts, 10 * self.commit_s)
            self.gap_s = gap_s + (self.gap_s - gap_s) * _KEPT**bursts
        self._came_s = now_s

    def begin(self, size: int, now_s: float) -> Waiting:
        """Bursts of so many bytes begin to wait."""
        return Waiting(max(self.commit_s / 10, LONG * self.gap_s), size, now_s)

    @property
    def pause_s(self) -> float:
        """Between two looks."""
        return min(0.02, max(0.001, self.commit_s / 40))
