"""How the releases of one model stand: what the fleet runs, what is tried and where, and so what each node should run.

    state = State.model_validate_json(registry.state("cell"))
    state.aim("s1/press-4")            # Aim(version=7, stage="canary"), or None
    state.needed                       # versions that must not be pruned

A value: `cloud.releases` says what follows what.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from cloud.rollout import Aim
from cloud.trials import Trial


class State(BaseModel):
    """What is remembered of one model's releases."""

    model_config = ConfigDict(frozen=True)

    fleet: int | None = None
    before: int | None = None
    """what the fleet ran before: `rollback` goes there"""
    looked: int = 0
    """candidates up to here were taken up"""
    checking: int | None = None
    """in validation"""
    waiting: int | None = None
    """validated, waits for canaries"""
    trial: Trial | None = None
    pins: dict[str, int] = {}

    @property
    def under_way(self) -> set[int]:
        """Versions that are checked, wait, or are tried."""
        found = {self.checking, self.waiting, self.trial.version if self.trial else None}
        return {version for version in found if version is not None}

    @property
    def needed(self) -> set[int]:
        """Versions that must not be pruned."""
        stay = {version for version in (self.fleet, self.before) if version is not None}
        return stay | self.under_way | set(self.pins.values())

    def aim(self, node: str) -> Aim | None:
        """What a node should run; None while there is nothing for the fleet."""
        if self.trial is not None and node in self.trial.tallies:
            return Aim(self.pins.get(node, self.trial.version), "canary")
        number = self.pins.get(node, self.fleet)
        return None if number is None else Aim(number, "fleet")
