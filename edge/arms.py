"""How well versions do on this node: each in its turn, in blocks of decisions, and what their blocks brought.

    arms = Arms(CanarySettings(), seed=7); arms.enter([3, 4])      # the incumbent, and the candidate beside it
    turn = arms.turn()                                             # turn.version decides now
    arms.outcome(turn, reward, cost)                               # when it is known, in any order

Blocks come in pairs, one of each version, and which of the two comes first is drawn at random: a drift of the day falls
on both alike. The first `washout` decisions of a block are not counted, for they still live with what the other version
left. A block counts as one observation, the mean of its decisions, because decisions within it depend on each other.
Means are Welford's (1962), so that what two nodes report can be put together. A block whose outcomes do not all come
counts nothing. Bounds: `OPEN` blocks wait for outcomes, `MAX_ARMS` versions are remembered, the oldest goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from messages.learning import MAX_ARMS, Arm

OPEN = 4


class CanarySettings(BaseModel):
    """How two versions take turns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: int = Field(20, ge=1, le=100_000, description="decisions of one version before the other's turn")
    washout: int = Field(4, ge=0, description="first decisions of a block that are not counted")

    @model_validator(mode="after")
    def _counts_something(self) -> CanarySettings:
        if self.washout >= self.block:
            raise ValueError("washout must be below block")
        return self


class Turn(NamedTuple):
    """One decision: whose, in which block, and whether its outcome counts."""

    version: int
    block: int
    counts: bool


@dataclass(slots=True)
class _Tally:
    decisions: int = 0
    blocks: int = 0
    mean: float = 0.0
    m2: float = 0.0
    cost: float = 0.0
    trips: int = 0
    non_finite: int = 0

    def add(self, reward: float, cost: float) -> None:
        self.blocks += 1
        off = reward - self.mean
        self.mean += off / self.blocks
        self.m2 += off * (reward - self.mean)
        self.cost += (cost - self.cost) / self.blocks


@dataclass(slots=True)
class _Block:
    version: int
    left: int
    reward: float = 0.0
    cost: float = 0.0


class Arms:
    """The versions of one model on this node."""

    def __init__(self, settings: CanarySettings, *, seed: int) -> None:
        self.settings = settings
        self._rng = np.random.default_rng(seed)
        self._tallies: dict[int, _Tally] = {}
        self._open: dict[int, _Block] = {}
        self._versions: tuple[int, ...] = ()
        self._ahead: list[int] = []
        self._block = 0
        self._made = 0
        self._now = 0

    def enter(self, versions: Sequence[int]) -> None:
        """From now on these take turns, in new blocks; what is known of a version stays known. None: nothing runs."""
        self._versions = tuple(versions)
        self._ahead.clear()
        self._made = 0
        for version in versions:
            self._tallies[version] = self._tallies.pop(version, _Tally())
        for version in list(self._tallies)[:-MAX_ARMS]:
            del self._tallies[version]

    def turn(self) -> Turn | None:
        """The next decision's; None if nothing runs."""
        if not self._versions:
            return None
        if self._made % self.settings.block == 0:
            self._begin()
        self._made += 1
        self._tallies[self._now].decisions += 1
        return Turn(self._now, self._block, self._made > self.settings.washout)

    def outcome(self, turn: Turn, reward: float, cost: float) -> None:
        """What a decision brought; one that is no number spoils its block."""
        if not (isfinite(reward) and isfinite(cost)):
            self._open.pop(turn.block, None)
        block = self._open.get(turn.block)
        if block is None or not turn.counts:
            return
        block.reward += reward
        block.cost += cost
        block.left -= 1
        if not block.left:
            del self._open[turn.block]
            counted = self.settings.block - self.settings.washout
            if block.version in self._tallies:
                self._tallies[block.version].add(block.reward / counted, block.cost / counted)

    def went_wrong(self, turn: Turn, *, trip: bool, non_finite: bool) -> None:
        """A decision that safety did not let pass, or an answer that was no number."""
        tally = self._tallies.get(turn.version)
        if tally is not None:
            tally.trips += trip
            tally.non_finite += non_finite

    def report(self) -> list[Arm]:
        """As nodes say it, the one entered last being last."""
        return [
            Arm(
                version=version,
                decisions=one.decisions,
                blocks=one.blocks,
                mean=one.mean,
                m2=one.m2,
                cost=one.cost,
                trips=one.trips,
                non_finite=one.non_finite,
            )
            for version, one in self._tallies.items()
        ]

    def _begin(self) -> None:
        if not self._ahead:
            self._ahead = [self._versions[k] for k in self._rng.permutation(len(self._versions))]
        self._now = self._ahead.pop()
        self._made = 0
        self._block += 1
        self._open[self._block] = _Block(self._now, self.settings.block - self.settings.washout)
        if len(self._open) > OPEN:
            del self._open[next(iter(self._open))]
