"""What a node knows of its machines and what it is told to do with them, as it stands on the node's disk.

Bounds: those of `edge.parts` and `edge.awards`; events, boots and operations begun as `edge.happenings` and
`edge.duties` say.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from edge.awards import Awards
from edge.orders import InForce, Key
from edge.parts import Parts, Pending
from edge.wear import Wear
from messages.errors import ConfigError


class Machine(BaseModel):
    """What the node knows of one machine."""

    state: str = "off"
    since: int = Field(0, description="when it entered that state, as it says")
    repair_at: int | None = Field(None, description="of a breakdown: when it should run again, if anybody knows")
    parts: Parts = Parts()
    running: tuple[str, int, int] | None = Field(None, description="job, op, started at")
    ends_at: int = Field(0, description="of what runs: when it should end")
    worked_s: float = Field(0.0, description="working time done and begun here")
    wear: Wear = Wear()
    pending: Pending | None = Field(None, description="the command that is out; calls for parts are apart")
    not_before: int = 0
    no_call_before: int = 0
    boots: list[str] = Field([], description="the last boots heard of")
    heard: list[str] = Field([], description="the last events, as what tells them apart")


class Kept(BaseModel):
    """All that a node keeps of its machines."""

    envelope: InForce | None = None
    machines: dict[str, Machine]
    begun: list[Key] = []
    interrupted: list[Key] = Field([], description="since the plan in force was made: they wait for the next one")
    awards: Awards = Awards()
    attempts: int = 0


def restored(state: bytes) -> Kept:
    """From what was on the disk; ConfigError where that is of another version."""
    try:
        kept = Kept.model_validate_json(state)
    except ValidationError as error:
        raise ConfigError(
            "what this node kept of its machines is of another version and cannot be read "
            f"({error.error_count()} errors, the first at {'.'.join(map(str, error.errors()[0]['loc']))}); "
            "go back to that version, or let its machines end their work and start with an empty data folder"
        ) from None
    for machine in kept.machines.values():
        if machine.pending is not None and machine.pending.action.kind == "call":
            machine.pending = None  # calls are kept apart; this one is made again
    return kept
