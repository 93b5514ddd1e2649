"""How well versions do on this node: each in its turn, in blocks of decisions, and what their blocks brought.

    arms = Arms(CanarySettings(), seed=7); arms.enter([3, 4])     # the incumbent, and the candidate beside it
    turn = arms.turn()                                             # turn.version decides now
    arms.outcome(turn, reward, cost)                               # when it is known, in any order

Blocks come in pairs, one of each version, and which of the two comes first is drawn at random: a drift of the day falls
on both alike. The first `washout` decisions of a block are not counted, for they still live with what the other version
left. A block counts as one observation, the mean of its decisions, because decisions within it depend on each other;
so does a pair, the difference of its two blocks, in money and in carbon. Means are Welford's (1962), so that what two
nodes report can be put together. A block whose outcomes do not all come counts nothing, nor does its pair. A version
that comes again begins anew. Bounds: `OPEN` blocks wait for outcomes, `MAX_ARMS` versions and pairs of them are
remembered, the oldest goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from messages.learning import MAX_ARMS, Arm, Paired

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
class _Mean:
    """Welford's."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.m2 += off * (value - self.mean)


@dataclass(slots=True)
class _Tally:
    decisions: int = 0
    reward: _Mean = field(default_factory=_Mean)
    cost: _Mean = field(default_factory=_Mean)
    trips: int = 0
    non_finite: int = 0


@dataclass(slots=True)
class _Difference:
    """Of a candidate's blocks and the incumbent's."""

    reward: _Mean = field(default_factory=_Mean)
    cost: _Mean = field(default_factory=_Mean)


@dataclass(slots=True)
class _Both:
    """A pair of blocks."""

    difference: _Difference
    candidate: int
    means: dict[int, tuple[float, float]] = field(default_factory=dict)

    def add(self, version: int, reward: float, cost: float) -> None:
        self.means[version] = reward, cost
        if len(self.means) == 2:
            signed = [(1 if who == self.candidate else -1, one) for who, one in self.means.items()]
            self.difference.reward.add(sum(sign * one[0] for sign, one in signed))
            self.difference.cost.add(sum(sign * one[1] for sign, one in signed))


@dataclass(slots=True)
class _Block:
    version: int
    left: int
    tally: _Tally
    both: _Both
    reward: float = 0.0
    cost: float = 0.0


class Arms:
    """The versions of one model on this node."""

    def __init__(self, settings: CanarySettings, *, seed: int) -> None:
        self.settings = settings
        self._rng = np.random.default_rng(seed)
        self._tallies: dict[int, _Tally] = {}
        self._pairs: dict[tuple[int, int], _Difference] = {}
        self._open: dict[int, _Block] = {}
        self._versions: tuple[int, ...] = ()
        self._ahead: list[int] = []
        self._current: _Block | None = None
        self._both = _Both(_Difference(), 0)
        self._block = 0
        self._made = 0

    def enter(self, versions: Sequence[int]) -> None:
        """From now on these take turns: the incumbent, then a candidate. None: nothing runs."""
        if tuple(versions) == self._versions:
            return
        before, self._versions = self._versions, tuple(versions)
        self._ahead.clear()
        self._current = None
        self._made = 0
        for version in versions:
            known = self._tallies.pop(version, None)
            self._tallies[version] = known if known is not None and version in before else _Tally()
        if len(versions) > 1:
            self._pairs.pop((versions[1], versions[0]), None)
            self._pairs[versions[1], versions[0]] = _Difference()
        for old in list(self._tallies)[:-MAX_ARMS]:
            del self._tallies[old]
        for pair in list(self._pairs)[:-MAX_ARMS]:
            del self._pairs[pair]

    def turn(self) -> Turn | None:
        """The next decision's; None if nothing runs."""
        if not self._versions:
            return None
        block = self._current
        if block is None or self._made == self.settings.block:
            block = self._begin()
        self._made += 1
        block.tally.decisions += 1
        return Turn(block.version, self._block, self._made > self.settings.washout)

    def outcome(self, turn: Turn, reward: float, cost: float) -> None:
        """What a decision brought; one that is no number spoils its block."""
        block = self._open.get(turn.block) if turn.counts else None
        if block is None:
            return
        if not (isfinite(reward) and isfinite(cost)):
            del self._open[turn.block]
            return
        block.reward += reward
        block.cost += cost
        block.left -= 1
        if not block.left:
            del self._open[turn.block]
            self._close(block)

    def went_wrong(self, turn: Turn, *, trip: bool, non_finite: bool) -> None:
        """A decision that safety did not let pass, or an answer that was no number."""
        tally = self._tallies.get(turn.version)
        if tally is not None:
            tally.trips += trip
            tally.non_finite += non_finite

    def report(self) -> list[Arm]:
        """How well each did; those that take turns now come last."""
        return [
            Arm(
                version=version,
                decisions=one.decisions,
                blocks=one.reward.count,
                mean=one.reward.mean,
                m2=one.reward.m2,
                cost=one.cost.mean,
                trips=one.trips,
                non_finite=one.non_finite,
            )
            for version, one in list(self._tallies.items())
        ]

    def paired(self) -> list[Paired]:
        """How the pairs of blocks differ, the newest candidate last."""
        return [
            Paired(
                version=version,
                against=against,
                pairs=one.reward.count,
                mean=one.reward.mean,
                m2=one.reward.m2,
                cost=one.cost.mean,
                cost_m2=one.cost.m2,
            )
            for (version, against), one in list(self._pairs.items())
        ]

    def _begin(self) -> _Block:
        if not self._ahead:
            self._ahead = [self._versions[k] for k in self._rng.permutation(len(self._versions))]
            candidate = self._versions[-1]
            self._both = _Both(self._pairs.get((candidate, self._versions[0]), _Difference()), candidate)
        version = self._ahead.pop()
        self._made = 0
        self._block += 1
        counted = self.settings.block - self.settings.washout
        block = _Block(version, counted, self._tallies[version], self._both)
        self._open[self._block] = self._current = block
        if len(self._open) > OPEN:
            del self._open[next(iter(self._open))]
        return block

    def _close(self, block: _Block) -> None:
        counted = self.settings.block - self.settings.washout
        block.tally.reward.add(block.reward / counted)
        block.tally.cost.add(block.cost / counted)
        block.both.add(block.version, block.reward / counted, block.cost / counted)
