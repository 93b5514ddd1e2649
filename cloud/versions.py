"""Versions of models as they are kept: what they are, what became of them, who was told, and what operators wish."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from messages.contracts import Envelope, External, Id, Micros, Seq, Word
from messages.learning import Artefact, Interface, Release
from messages.message import Message
from messages.network import Network

Stage = Literal[
    "candidate", "validated", "refused", "canary", "fleet", "rolled_back", "inconclusive", "superseded", "former"
]
"""candidate → validated → canary → fleet → former; the others end it."""
Kind = Literal["release", "try", "canary", "rollback", "pin", "unpin", "rebase", "lift", "put_away"]
"""`try`: through simulation and canaries; `canary`: through canaries alone."""
ROUND_KINDS = frozenset({"rebase", "lift", "put_away"})
"""Wishes of rounds; the others are of releases."""


class Draft(Message):
    """A version to be."""

    model: Id
    graph: bytes
    parameters: bytes | None = None
    network: Network | None = None
    interface: Interface
    shared: int = 0
    parent: Seq | None = None
    origin: External = Field(description="where it comes from: `round 7`, or the name of a file")
    note: str = Field("", max_length=500)


class Version(Message):
    """A version as it is kept."""

    model: Id
    version: Seq
    parent: Seq | None = None
    graph: Artefact
    parameters: Artefact | None = None
    network: Network | None = None
    interface: Interface
    shared: int = 0
    origin: External
    note: str = ""
    made_at: Micros
    metrics: dict[Word, float] = Field(default={}, description="of its validation in simulation")
    stage: str = "candidate"

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """What a node needs to run it."""
        return (self.graph,) if self.parameters is None else (self.graph, self.parameters)


class Event(NamedTuple):
    """A line of history."""

    at: int
    model: str
    version: int
    what: str
    by: str
    why: str


class Wish(NamedTuple):
    """What an operator asked for, and what came of it."""

    id: int
    model: str
    kind: Kind
    version: int | None
    node: str | None
    by: str
    why: str
    answer: str | None


class Told(BaseModel):
    """The release a node was last told, as it is on the bus."""

    model_config = ConfigDict(frozen=True)

    node: str
    version: int
    stage: str
    counter: int
    until: int
    instead_of: int | None = None
    payload: bytes

    @property
    def envelope(self) -> Envelope[Release]:
        """What the payload says."""
        return Envelope[Release].decode(self.payload)
