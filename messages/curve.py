"""Something over time, a step function: a tariff, the carbon of a carrier, what the sun gives."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from messages.message import Message
from messages.plan import MAX_TICK, AnyTick

CURVES = ("carbon", "tariff", "generation", "base_load")
"""Fields of a problem that hold a curve per carrier."""


class Curve(Message):
    """Something over time, a step function: a tariff, the carbon of a carrier, what the sun gives.

    Before its start the first value holds. After its end a periodic curve begins again; any other keeps its last value,
    and is refused where a stated `horizon` lies beyond it.
    """

    start: AnyTick = Field(default=0, description="tick at which the first value begins")
    step: int = Field(ge=1, le=MAX_TICK, description="ticks per value")
    values: tuple[float, ...] = Field(min_length=1, max_length=100_000)
    periodic: bool = Field(default=False, description="begins again after its end (and before its start)")

    @property
    def end(self) -> int:
        """Tick at which its last value ends."""
        return self.start + self.step * len(self.values)

    def at(self, tick: int) -> float:
        """The value in force from `tick` on."""
        return self.values[self._place(tick)]

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, float]]:
        """The steps within [start, end): (from, until, value), without holes, equal neighbours not joined."""
        at = start
        while at < end:
            until = min(end, self._until(at))
            yield at, until, self.values[self._place(at)]
            at = until

    def over(self, start: int, end: int) -> float:
        """The integral from `start` to `end`, in values · ticks.

        >>> Curve(start=0, step=10, values=(1.0, 2.0)).over(5, 25)
        35.0
        >>> Curve(start=0, step=10, values=(1.0, 2.0), periodic=True).over(5, 25)
        30.0
        """
        return sum(value * (until - at) for at, until, value in self.pieces(start, end))

    def _place(self, tick: int) -> int:
        place = (tick - self.start) // self.step
        if self.periodic:
            return place % len(self.values)
        return min(max(place, 0), len(self.values) - 1)

    def _until(self, tick: int) -> int:
        place = (tick - self.start) // self.step
        if self.periodic:
            return self.start + (place + 1) * self.step
        if place >= len(self.values) - 1:
            return MAX_TICK
        return self.start + (max(place, 0) + 1) * self.step
