"""How good a value is: one integer, after the OPC quality byte, with the reasons above it.

`quality = grade | reasons`. The low byte is the grade, so `quality & 0xC0` sorts as OPC clients expect:
192 good, 64 uncertain, 0 bad. From bit 8 up stands why; several reasons may be set.
"""

from __future__ import annotations

from enum import IntFlag

GOOD = 192
UNCERTAIN = 64
BAD = 0
GRADE_MASK = 0xC0


class Why(IntFlag):
    """Reasons for a grade below good, or for a value that was replaced or converted."""

    MISSING = 1 << 8
    """The sensor gave no value; `value` is an estimate."""
    RANGE = 1 << 9
    """Outside what the sensor can measure."""
    SPIKE = 1 << 10
    """A lone outlier against its neighbours (Hampel)."""
    RATE = 1 << 11
    """Changed faster than the process can."""
    STUCK = 1 << 12
    """Has not moved though a live sensor would."""
    INCONSISTENT = 1 << 13
    """Disagrees with other sensors, e.g. sub-meters with the main meter."""
    UNIT = 1 << 14
    """Converted from another unit."""
    TIME = 1 << 15
    """The device's clock is off, or the time was moved to keep it unique in its series."""
    LATE = 1 << 16
    """Arrived out of order."""


def grade(quality: int) -> str:
    """`good`, `uncertain` or `bad`."""
    return {GOOD: "good", UNCERTAIN: "uncertain"}.get(quality & GRADE_MASK, "bad")


def reasons(quality: int) -> list[str]:
    """Names of the reasons, lower case, in bit order.

    >>> grade(UNCERTAIN | Why.SPIKE), reasons(UNCERTAIN | Why.SPIKE)
    ('uncertain', ['spike'])
    """
    return [why.name.lower() for why in Why if quality & why and why.name]
