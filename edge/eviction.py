"""Who goes first when the outbox is at its disk budget: the declared policy, one class each; the union is the registry.

A policy gives every batch of readings its `grade` when it is made: the outbox drops the lowest grade first, and the
oldest of a grade first; all of `backlog` before any of `live`, then records, last alarms. Records and alarms have no
grades: they go oldest first.

    grade = settings.eviction.grade(made_at)

`thin` keeps a coarser but complete history instead of a hole: time is cut into slots, whole slots go, and what remains
is spread over all the time. Slots meet in pairs and one of two goes on, the winners meet in pairs again, and so forth;
the grade is the number of meetings a slot wins. So of every 2ⁿ successive slots exactly one has a grade of n or
more, and the hole between two that are kept is less than 2ⁿ⁺¹ slots. Who wins is drawn (from the slot's number alone,
so always alike): a device that speaks every sixth slot is thinned like all others, and not silenced altogether.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from messages.contracts import Lane
from messages.settings import Section

EVICTION_ORDER: tuple[Lane, ...] = ("backlog", "live", "record", "alarm")
GRADES = 24
"""Highest grade: one slot of 16 million, that is of five years with slots of ten seconds."""


class Thin(Section):
    """The whole time, more coarsely: every second slot of the oldest time goes, then again."""

    kind: Literal["thin"] = Field("thin", description="a coarser but complete history")
    slot_s: float = Field(
        10.0,
        ge=0.001,
        le=86_400,
        description="kept or dropped together, s; not less than a device's time between bursts",
    )

    def grade(self, made_at: int) -> int:
        """Of a batch made at that time, µs."""
        return meetings_won(int(made_at / (self.slot_s * 1e6)))


class Oldest(Section):
    """The newest time in full, and nothing of what was before."""

    kind: Literal["oldest"] = Field("oldest", description="the oldest goes first")

    def grade(self, made_at: int) -> int:
        """All alike: then age decides."""
        return 0


Eviction = Annotated[Thin | Oldest, Field(discriminator="kind")]


def meetings_won(slot: int) -> int:
    """How many rounds this slot stays in: of every 2ⁿ aligned slots, one wins n or more.

    >>> [sum(meetings_won(slot) >= n for slot in range(64)) for n in range(5)]
    [64, 32, 16, 8, 4]
    """
    won = 0
    while won < GRADES and _drawn(won, slot >> 1) == slot & 1:
        won += 1
        slot >>= 1
    return won


def _drawn(turn: int, pair: int) -> int:
    """0 or 1, as good as by chance (splitmix64)."""
    mixed = (pair * 32 + turn + 0x9E3779B97F4A7C15) & _ALL
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _ALL
    return (mixed ^ (mixed >> 31)) & 1


_ALL = 2**64 - 1
