"""Learning together, and running what was learned: rounds, updates, releases, and what nodes say of their models.

A *model* has a name, versions, an interface (what it reads and decides), a network and one flat float32 vector. The
learner of a node begins a round with the base vector, trains on what its cell did, and sends what changed; what is
averaged becomes the next version. A node *runs* a version only by a release that is meant for it and signed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from messages.contracts import External, Id, Metric, Micros, Mint, Seq, Word
from messages.errors import BadMessage
from messages.message import MAX_BYTES, Message
from messages.network import Network

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Codec = Literal["float32", "float16", "int8"]
"""Of what changed since the base; what they are: `messages.updates`."""

MAX_FEATURES = 256
MAX_ACTIONS = 256
MAX_ARTEFACT = 16 * 1024 * 1024
"""Bytes of a graph or of parameters; larger ones are refused before they are gathered."""
PART_BYTES = 256 * 1024
"""An artefact travels in parts of this size, the last one shorter."""
MAX_HEADER = 4096
"""Bytes of the header of an update's file."""
MAX_ARMS = 4
"""Versions a node speaks of: the one it runs, a candidate beside it, and what was before."""


class Feature(Message):
    """One number a model reads: the newest value of a metric, scaled to 0…1 between `low` and `high`, clipped."""

    metric: Metric
    low: float
    high: float
    device: Id | None = Field(None, description="whose; absent: the device the model decides for")
    stale_s: float = Field(60.0, gt=0, description="an older value decides nothing: the safe action is taken")

    @model_validator(mode="after")
    def _wide(self) -> Feature:
        if self.low >= self.high:
            raise ValueError(f"feature {self.metric}: low must be below high")
        return self


class Interface(Message):
    """What a model reads and what it decides. The index of the largest output is the action."""

    features: list[Feature] = Field(min_length=1, max_length=MAX_FEATURES)
    actions: list[Word] = Field(min_length=1, max_length=MAX_ACTIONS)


class Artefact(Message):
    """Bytes by their digest: `all/down/artefact/{digest}/{part}` has them in parts of `PART_BYTES`."""

    sha256: Sha256
    size: int = Field(ge=1, le=MAX_ARTEFACT)

    @classmethod
    def of(cls, data: bytes) -> Artefact:
        """What names these bytes."""
        return cls(sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    @property
    def digest(self) -> str:
        """As a topic level: the first 128 bits."""
        return self.sha256[:32]

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.size // PART_BYTES)


class ArtefactPart(Message):
    """Some bytes of an artefact, as they are."""

    content_type: ClassVar[str] = "application/octet-stream"

    data: bytes = Field(min_length=1, max_length=PART_BYTES)

    def encode(self) -> bytes:
        """The bytes."""
        return self.data

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """BadMessage if there are none, or more than a part has."""
        if not 0 < len(payload) <= PART_BYTES:
            raise BadMessage(f"part of an artefact: {len(payload)} bytes; it has 1 to {PART_BYTES}")
        return cls(data=payload)


# --- rounds -------------------------------------------------------------------------------------


class Training(Message):
    """What every node does in a round."""

    steps: int = Field(500, ge=0, le=1_000_000, description="optimiser steps")
    mu: float = Field(0.0, ge=0, le=100, description="FedProx: weight of the pull towards the base; 0: FedAvg")


class Closed(Message):
    """What a round came to."""

    at: Micros
    version: Seq | None = Field(None, description="made of it; absent: too few took part, the base stays")
    taken: dict[Id, float] = Field(default={}, max_length=10_000, description="node → its weight")
    late: list[Id] = Field(default=[], max_length=10_000)
    refused: dict[Id, str] = Field(default={}, max_length=10_000, description="node → why its update was not taken")
    quarantined: list[Id] = Field(default=[], max_length=10_000, description="nodes whose updates are not taken")


class Round(Message):
    """A round of learning together; the newest is retained. Without `closed` it is open until `deadline`."""

    model: Id
    round: Seq
    base_version: Seq
    base: Artefact = Field(description="the vector, float32 little-endian, that training begins with")
    network: Network
    interface: Interface
    shared: int = Field(ge=1, description="parameters before this index are learned together, the rest stay local")
    training: Training = Training()
    codec: Word = Field("float16", description="of updates: float32, float16 or int8")
    opened_at: Micros
    deadline: Micros
    quorum: int = Field(1, ge=1, le=10_000)
    experience: int = Field(0, ge=0, description="transitions a node must have to take part")
    closed: Closed | None = None


class UpdateHead(Message):
    """What a node says of its update, in the header of the file; who it is says the topic."""

    model: Id
    round: Seq
    base: Sha256
    at: Micros
    codec: Word
    samples: int = Field(description="transitions it learned from; a weight, capped by the cloud")
    steps: int = Field(0, ge=0)
    mean_return: float | None = Field(None, description="per decision, of what its cell did since the last round")
    mean_cost: float | None = Field(None, description="carbon per decision, kg")


class Update(Message):
    """What a node learned in a round: a safetensors file whose metadata hold `update` (the head) and `sig`.

    What is in it and how it is signed: `messages.updates`. Here only the head is read.
    """

    content_type: ClassVar[str] = "application/vnd.safetensors"

    head: UpdateHead
    data: bytes = Field(max_length=MAX_BYTES)

    def encode(self) -> bytes:
        """The file."""
        return self.data

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """BadMessage if it is no such file, or larger than is read."""
        if len(payload) > MAX_BYTES:
            raise BadMessage(f"Update: {len(payload)} bytes, at most {MAX_BYTES} are read")
        try:
            text = json.loads(header_of(payload))["__metadata__"]["update"].encode()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BadMessage(f"Update: the file's header has no `update` ({type(error).__name__})") from None
        return cls(head=UpdateHead.decode(text), data=payload)


def header_of(payload: bytes) -> bytes:
    """The JSON at the head of a safetensors file; BadMessage if there is none, or one that is too long."""
    size = int.from_bytes(payload[:8], "little")
    if len(payload) < 8 or size > min(MAX_HEADER, len(payload) - 8):
        raise BadMessage(f"Update: no safetensors file, or its header is longer than {MAX_HEADER} bytes")
    return payload[8 : 8 + size]


# --- releases -----------------------------------------------------------------------------------


class Release(Message):
    """A version a node is to run. Its envelope is signed; parameters and graph are bytes named by their digest."""

    model: Id
    version: Seq
    parent: Seq | None = None
    stage: Word = Field(description="canary: beside the version before, in turns; fleet: it alone")
    instead_of: Seq | None = Field(
        None, description="a version that is taken back by this lower one; else lower versions are refused"
    )
    interface: Interface
    network: Network | None = Field(None, description="absent: only the graph says what the model computes")
    shared: int = Field(
        0,
        ge=0,
        description="a node adapts the version to its cell, beginning with the parameters before this index and, "
        "where they are not all, a head of its own; 0: it decides as it is",
    )
    graph: Artefact = Field(description="ONNX; inputs `state` (1, features) and, with a network, `parameters` (size,)")
    parameters: Artefact | None = None
    made_at: Micros
    metrics: dict[Word, float] = Field(default={}, max_length=64, description="of its validation in simulation")
    note: str = Field("", max_length=500)


class Arm(Message):
    """How well one version did on a node, since it runs there. `mean` and `m2` are of blocks of decisions."""

    version: Seq
    decisions: int = Field(0, ge=0)
    blocks: int = Field(0, ge=0)
    mean: float = Field(0.0, description="of the blocks' mean returns per decision")
    m2: float = Field(0.0, ge=0, description="sum of squared deviations from it (Welford)")
    cost: float = Field(0.0, description="mean carbon per decision, kg")
    trips: int = Field(0, ge=0, description="decisions that safety did not let pass")
    non_finite: int = Field(0, ge=0, description="outputs that were no numbers")


class Paired(Message):
    """A candidate against the incumbent on a node, in this session. Blocks of decisions of equal length come in pairs,
    one of each version, in an order thrown by a fair coin for every pair; only whole pairs count.
    """

    version: Seq
    against: Seq
    pairs: int = Field(0, ge=0)
    mean: float = Field(0.0, description="of the differences of block means, return per decision: version - against")
    m2: float = Field(0.0, ge=0, description="sum of squared deviations from it (Welford)")
    cost: float = Field(0.0, description="of the differences of block means, carbon per decision, kg")
    cost_m2: float = Field(0.0, ge=0, description="sum of squared deviations from it")


class ModelReport(Message):
    """What runs on a node, how well, and why not what was released; signed by the node, as releases follow from it.

    `sig` comes last in the bytes, and covers them as that of an envelope does (`messages.signing`).
    """

    model: Id
    at: Micros
    session: Mint
    counter: Seq = Field(0, description="of the release it last answered")
    running: Seq | None = None
    sha256: Sha256 | None = Field(None, description="of the parameters, or of the graph alone")
    refused: External | None = Field(None, description="why the release with this counter is not run here")
    arms: list[Arm] = Field(default=[], max_length=MAX_ARMS)
    pairs: list[Paired] = Field(default=[], max_length=MAX_ARMS, description="of a canary: what decides on its release")
    cost_limit: float | None = Field(None, ge=0, description="carbon allowed per decision here, kg; absent: no limit")
    learned_round: Seq | None = Field(None, description="the last round it sent an update for")
    seq: Seq = Field(0, description="rises from report to report of a node, over restarts too; a lower one is old")
    sig: str = Field("", max_length=128, description="`<node>:` and its signature; a report without is not believed")
