"""Settings of a node that decides by models and learns: the table `learning`. Without it nothing of this is imported.

[learning]
explore = 0.05
[learning.keys]
cloud = "…"                     # public key of who may release versions and open rounds: `shoal cloud --check`
[learning.cells.robot-1]        # without this table: every cell of this node, each by the model `cell`
model = "cell"
limits.interlocks = [{ action = "disassemble_a", metric = "wear", above = 0.9 }]
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edge.arms import CanarySettings
from edge.safety import Limits
from messages.cells import ACTIONS, NETWORK, SAFE
from messages.contracts import Id
from messages.network import MAX_PARAMETERS, Network
from messages.settings import Section


class LearnerSettings(BaseModel):
    """How a node learns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int = Field(32, ge=1, le=4_096, description="transitions of one step")
    remembered: int = Field(20_000, ge=100, le=1_000_000, description="transitions kept; then the oldest are replaced")
    rate: float = Field(1e-3, gt=0, le=1, description="Adam's learning rate")
    gamma: float = Field(0.99, ge=0, lt=1, description="discount per decision")
    tau: float = Field(0.005, gt=0, le=1, description="share by which the target network follows in a step")
    clip: float = Field(10.0, gt=0, description="largest norm of a gradient")
    scale: float = Field(1.0, gt=0, description="rewards are divided by it")
    limit: float | None = Field(None, ge=0, description="cost allowed per decision; absent: cost counts nothing")
    dual_rate: float = Field(0.01, ge=0, description="how fast the multiplier follows, per decision and unit of excess")

    @model_validator(mode="after")
    def _a_batch_can_be_remembered(self) -> LearnerSettings:
        if self.batch > self.remembered:
            raise ValueError(f"batch: {self.batch} of {self.remembered} remembered; nothing would ever be learned")
        return self


_ANY: dict[str, Any] = {"safe": SAFE, "actions": ACTIONS, "changes": 1_000, "per_s": 1.0}
"""Limits that let through whatever a cell can do, once a step."""


class CellSettings(Section):
    """Who decides for a cell, and what may go out to it."""

    model: Id = Field("cell", description="name of the model; every cell of a node has one of its own")
    limits: Limits = Field(
        Limits(**_ANY), description="the last word, whatever was learned; what is not given lets all actions through"
    )

    @field_validator("limits", mode="before")
    @classmethod
    def _given_in_part(cls, limits: Any) -> Any:
        return {**_ANY, **limits} if isinstance(limits, dict) else limits


class LearningSettings(Section):
    """How this node decides for its cells, and how it learns."""

    keys: dict[Id, str] = Field(
        {}, max_length=16, description="who may release versions and open rounds: name → public key"
    )
    cells: dict[Id, CellSettings] = Field(
        {}, max_length=16, description="cell → its model and limits; none named: all of this node"
    )
    explore: float = Field(0.05, ge=0, le=1, description="share of decisions that are thrown, so that there is news")
    explore_first: float | None = Field(
        None, ge=0, le=1, description="the same while nothing is released here; absent: as `explore`"
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=4_096)], ...] = Field(
        NETWORK.hidden, max_length=8, description="widths of the network that is learned"
    )
    dueling: bool = Field(NETWORK.dueling, description="its head is a value and an advantage")
    learner: LearnerSettings = Field(LearnerSettings(), description="how it learns")
    adapt_steps: int = Field(
        300,
        ge=0,
        le=100_000,
        description="optimiser steps that adapt a released version to this cell; 0: it decides as it is",
    )
    adapt_half: int = Field(
        2_000, ge=0, description="transitions remembered at which half of the way to what they made of it is gone"
    )
    canary: CanarySettings = Field(CanarySettings(), description="how two versions take turns")
    report_s: float = Field(60.0, gt=0, le=86_400, description="between two reports of figures alone, plant time")
    checkpoint_s: float = Field(300.0, gt=0, le=86_400, description="between two checkpoints, real time")
    seed: int = Field(0, ge=0, description="of what is thrown; every cell of every node draws from its own")

    @model_validator(mode="after")
    def _bounded(self) -> LearningSettings:
        if self.network.size > MAX_PARAMETERS:
            raise ValueError(f"hidden: {self.network.size} parameters, at most {MAX_PARAMETERS}; give smaller widths")
        return self

    @property
    def network(self) -> Network:
        """What is learned."""
        return Network(inputs=NETWORK.inputs, hidden=self.hidden, outputs=NETWORK.outputs, dueling=self.dueling)

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: dict[str, str]) -> dict[str, str]:
        from messages.signing import public_key  # only where there is something to verify

        for name, text in keys.items():
            try:
                public_key(text)
            except ValueError:
                raise ValueError(
                    f"{name}: not a public key; give the 43 characters that `shoal cloud --check` prints"
                ) from None
        return keys
