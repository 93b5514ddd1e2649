"""What a delta makes of the decisions: how values of actions change on states that are always the same.

    probe = Probe.of(network, base, shared)
    if probe.dimensions >= LEAST_DIMENSIONS:
        probe(delta)             # (STATES · outputs,) float32: what changes of which action is better in which state
    probe.along(delta)           # 1: decided as before, twice as surely; 0: nothing of it changes; -1: all taken back

Two deltas may be far apart and mean the same, or near and mean opposite things: a node whose reward was turned round
learns the same features and opposite values. Of the change of Q(s, a) its mean over the actions and then its mean over
the states is taken away: the first decides nothing, the second is mostly which actions a node happened to try first.
The states are uniform in [0, 1]^inputs, drawn once from a fixed seed. Nodes that keep their heads began with that of
the base: of their first update it says most. 0.4 ms for 2 × 128 units, and `CHANGES` times that for each base that new
nodes begin with. What goes *along* with the base needs fewer states; it is asked of every update of the whole vector.

How much a likeness means depends on how many ways there are to be unlike. A small network with two actions has few:
what unrelated updates do to it lies along the same few lines, some of it one way and some the other, and looks like two
parties. So it is measured by changes at random: *dimensions* are 1 / mean cos² of what two of them do. Where all
updates are unrelated, somebody is accused in a third of the rounds with 4 dimensions, in a tenth with 8, in less than
2 % with `LEAST_DIMENSIONS`, however many nodes; with fewer the probe should not be asked. A robot cell's has 65.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from messages.network import Network
from messages.updates import Vector

STATES = 256
ALONG = 96
"""The first of them, which `along` looks at."""
CHANGES = 48
LEAST_DIMENSIONS = 20.0
_SEED = 20_817
_SMALL = 0.03
"""Length of a change at random, in those of the base."""


@dataclass(frozen=True)
class Probe:
    """Of one base."""

    network: Network
    base: Vector
    """(P,)"""
    shared: int
    """parameters that may change: the first ones"""
    states: NDArray[np.float32]
    """(STATES, inputs)"""
    before: NDArray[np.float32]
    """(STATES, outputs)"""

    @classmethod
    def of(cls, network: Network, base: Vector, shared: int) -> Probe:
        """For deltas of the first `shared` parameters of `base`."""
        states = np.random.default_rng(_SEED).random((STATES, network.inputs), dtype=np.float32)
        return cls(network, base, shared, states, _advantages(network, base, states))

    def __call__(self, delta: Vector) -> Vector:
        """What changes, (STATES · outputs,)."""
        theta = self.base.copy()
        theta[: len(delta)] += delta
        change = _advantages(self.network, theta, self.states) - self.before
        return np.asarray(_centred(change), np.float32).reshape(-1)

    def along(self, delta: Vector) -> float:
        """How far it goes with what the base decides, or against it: the change's projection on it, in its length."""
        before = _centred(self.before[:ALONG])
        theta = self.base.copy()
        theta[: len(delta)] += delta
        after = _centred(_advantages(self.network, theta, self.states[:ALONG]))
        length = float((before * before).sum())
        found = float(((after - before) * before).sum()) / length if length > 0 else 0.0
        return found if np.isfinite(found) else 0.0

    @cached_property
    def dimensions(self) -> float:
        """In how many ways decisions can change, as changes at random show; 0: in none."""
        rng = np.random.default_rng((_SEED, 1))
        scale = _SMALL * float(np.linalg.norm(self.base)) / np.sqrt(self.shared)
        found = np.array([self(rng.normal(0, scale, self.shared).astype(np.float32)) for _ in range(CHANGES)])
        lengths = np.linalg.norm(found, axis=1)
        if not (lengths > 0).all():  # not so for numbers that are none, either
            return 0.0
        cosines = (found / lengths[:, None]) @ (found / lengths[:, None]).T
        return float(1 / np.mean(cosines[np.triu_indices(CHANGES, 1)] ** 2))


def _centred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what is the same in all states."""
    return np.asarray(values - values.mean(axis=0), np.float32)


def _advantages(network: Network, theta: Vector, x: NDArray[np.float32]) -> NDArray[np.float32]:
    part = {one.name: theta[one.start : one.stop].reshape(one.shape) for one in network.slices}
    for k in range(len(network.hidden)):
        x = np.maximum(x @ part[f"body.{k}.weight"] + part[f"body.{k}.bias"], 0)
    name = "advantage" if network.dueling else "head"
    values = x @ part[f"{name}.weight"] + part[f"{name}.bias"]
    return np.asarray(values - values.mean(axis=1, keepdims=True), np.float32)
