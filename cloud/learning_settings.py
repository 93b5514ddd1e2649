"""What is learned here, and how: settings of rounds, their gate, releases and the simulation that validates them.

`[learning]` of a cloud's settings. It is read before anything that learns is loaded, so nothing is imported here that
a cloud which only stores telemetry would not have.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from cloud.aggregation import Aggregator, ClippedMean
from cloud.trials import YEAR_S, ReleaseSettings
from messages.cells import INTERFACE
from messages.contracts import Id
from messages.errors import UsageError
from messages.learning import Codec, Interface, Training
from messages.network import MAX_PARAMETERS, Network
from messages.settings import Section

MOST_BYTES = 1024 * 1024
"""Largest interface file read."""


class GateSettings(Section):
    """What is let through."""

    samples_cap: int = Field(5_000, ge=1, description="an update weighs its samples, at most this")
    samples_most: int = Field(1_000_000, ge=1, description="more samples than a node can have: refused")
    far: float = Field(5.0, gt=1, description="largest norm of a delta, in medians of all norms")
    skew_s: float = Field(60.0, ge=0, le=86_400, description="how far a node's clock may be off")
    strikes: int = Field(3, ge=1, description="strikes that quarantine a node")
    lifted_after: int = Field(10, ge=1, description="clean rounds in a row that end a quarantine")


class RoundSettings(Section):
    """How rounds go."""

    deadline_s: float = Field(300.0, gt=0, le=YEAR_S, description="a round is open for so long, at most (plant time)")
    quorum: int = Field(2, ge=1, le=10_000, description="good updates that make a version")
    late: Literal["drop", "next"] = Field(
        "next", description="updates of the round before: refused, or taken into the next"
    )
    discount: float = Field(0.5, gt=0, le=1, description="of the weight of a late update")
    training: Training = Field(Training(), description="what every node does in a round")
    experience: int = Field(
        192, ge=0, le=1_000_000, description="transitions of its own a node must have to take part in rounds that train"
    )
    codec: Codec = Field("float16", description="of updates on the wire")
    whole: bool = Field(True, description="learn everything together; else the body alone: every node keeps a head")
    aggregate: Aggregator = Field(ClippedMean(), description="how the deltas of many nodes become one")
    rate: float = Field(1.0, gt=0, le=10, description="the aggregate is multiplied by it")
    gate: GateSettings = Field(GateSettings(), description="which updates are let through")

    @field_validator("training", mode="before")
    @classmethod
    def _no_stranger(cls, given: object) -> object:
        """On the wire a newer peer may say more; in settings it is a slip."""
        odd = sorted(given.keys() - Training.model_fields.keys()) if isinstance(given, dict) else []
        if odd:
            raise ValueError(f"unknown key {odd[0]}; known: {', '.join(Training.model_fields)}")
        return given


class SimulationSettings(Section):
    """What a candidate and its incumbent go through, alike, before any node tries it."""

    cells: tuple[int, ...] = Field(
        (9_001, 9_002, 9_003, 9_004, 9_005, 9_006), min_length=1, max_length=64, description="their numbers"
    )
    heterogeneity: float = Field(0.3, ge=0, le=3, description="how unlike the cells are")
    known_days: int = Field(4, ge=1, le=365, description="days a cell decides by the version, to adapt it to itself")
    adapt_steps: int = Field(300, ge=0, le=100_000, description="optimiser steps of that, every evening; as nodes do")
    explore: float = Field(0.2, ge=0, le=1, description="share of decisions that are thrown in those days")
    price: float = Field(1.0, ge=0, description="of a kg of carbon, in money, where a version is adapted")
    days: int = Field(10, ge=1, le=365, description="days it is then judged by, per cell")
    seed: int = Field(1, ge=0, description="of all chance; the same for every version")
    most_s: float = Field(300.0, gt=0, le=86_400, description="real time after which it is ended, and says so")


class LearningSettings(Section):
    """What is learned together at one site, and how it comes to the nodes."""

    site: Id | None = Field(None, description="whose nodes learn; absent: the plant's, or the only one of `sites`")
    model: Id = Field("cell", description="name of what is learned")
    interface: Path | None = Field(
        None, description="file that says what it reads and decides, TOML or JSON; absent: that of a robot cell"
    )
    hidden: tuple[int, ...] = Field((128, 128), max_length=8, description="widths of the network's hidden layers")
    dueling: bool = Field(False, description="the head is a value and an advantage")
    seed: int = Field(1, ge=0, description="of the first version, where there is none")
    pause_s: float = Field(5.0, ge=0, le=YEAR_S, description="from the close of a round to the next (plant time)")
    enrol: Literal["settings", "first"] = Field(
        "settings", description="nodes' keys: those in `keys` alone, or also the first one that a node shows"
    )
    keys: dict[Id, str] = Field({}, max_length=10_000, description="node → its public key, as its --check prints it")
    rounds: RoundSettings = Field(RoundSettings(), description="how rounds go")
    releases: ReleaseSettings = Field(ReleaseSettings(), description="how versions come to the nodes")
    simulation: SimulationSettings = Field(SimulationSettings(), description="what validates a candidate")

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, given: dict[str, str]) -> dict[str, str]:
        if given:
            from messages.signing import public_key  # cryptography need not be there where nobody learns

            for node, text in given.items():
                try:
                    public_key(text)
                except ValueError as error:
                    raise ValueError(f"key of {node}: {error}; `shoal edge --check` on the node prints it") from None
        return given

    def read_interface(self) -> Interface:
        """What is read and decided; UsageError names what is wrong in the file."""
        return INTERFACE if self.interface is None else read_interface(self.interface)

    def network(self, interface: Interface) -> Network:
        """The network that is learned; UsageError if it is too large."""
        try:
            found = Network(
                inputs=len(interface.features),
                hidden=self.hidden,
                outputs=len(interface.actions),
                dueling=self.dueling,
            )
        except ValidationError as error:
            raise UsageError(f"learning.hidden: {first_of(error)}") from None
        if found.size > MAX_PARAMETERS:
            raise UsageError(
                f"learning.hidden: {found.size} parameters, at most {MAX_PARAMETERS}; take narrower layers"
            )
        return found


def read_interface(path: Path) -> Interface:
    """The interface in a file; UsageError names what is wrong in it."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if len(text) > MOST_BYTES:
        raise UsageError(f"{path}: more than {MOST_BYTES} bytes; is this an interface?")
    try:
        found: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text.decode())
        return Interface.model_validate(found)
    except ValidationError as error:
        raise UsageError(f"{path}: {first_of(error)}") from None
    except ValueError as error:  # neither JSON nor TOML, or not UTF-8
        raise UsageError(
            f"{path}: {error}; write [[features]] with metric, low and high, and actions = [...]"
        ) from None


def first_of(error: ValidationError) -> str:
    """The first thing that is wrong, in a line."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
