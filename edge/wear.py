"""How worn a machine is: its working time since its last service, counted from what it said of begins and ends.

Pure; a part of the executor's state, so it survives a restart as that does. An operation counts when it ends, or is
interrupted. Nothing but a service takes wear back: not a repair, not a new boot. It is no rule: a machine beyond its
interval goes on bidding, and everybody sees it; what stops a machine for its safety is its plant's own.
Bound: one number, which stays at `MOST_US`.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from messages.clock import SECOND
from messages.plant import Machine

MOST_US = 10**15
"""About thirty years of work without a service."""


class Wear(BaseModel):
    """Working time of one machine since its last service."""

    worked_us: int = Field(0, ge=0, le=MOST_US)

    def worked(self, began_at: int, ended_at: int) -> None:
        """It worked from then until then."""
        self.worked_us = min(MOST_US, self.worked_us + max(0, ended_at - began_at))

    def serviced(self) -> float:
        """The interval begins anew; the seconds it had worked before."""
        before, self.worked_us = self.worked_us, 0
        return before / SECOND

    def share(self, spec: Machine) -> float | None:
        """Of the interval between two services; None: the plant states none."""
        return None if spec.service_h is None else round(self.worked_us / (spec.service_h * 3600 * SECOND), 6)


def worn_cost(spec: Machine, seconds: float) -> float | None:
    """What so much work uses up of a service; None: the plant states no cost of one."""
    if spec.service_h is None or spec.service_cost is None:
        return None
    return spec.service_cost * seconds / (spec.service_h * 3600)
