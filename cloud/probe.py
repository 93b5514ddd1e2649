"""What a delta makes of the decisions: how values of actions change on states that are always the same.

    probe = Probe.of(network, base)
    probe(delta)                 # (STATES · outputs,) float32: change of Q(s, a) - mean over a of Q(s, ·)

Two deltas may be far apart and mean the same, or near and mean opposite things: a node whose reward was turned round
learns the same features and opposite values. The states are uniform in [0, 1]^inputs, drawn once from a fixed seed.
Nodes that keep their heads began with that of the base: of their first update it says most. 0.1 ms for 2 × 128 units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from messages.network import Network
from messages.updates import Vector

STATES = 64
_SEED = 20_817


@dataclass(frozen=True)
class Probe:
    """Of one base."""

    network: Network
    base: Vector
    """(P,)"""
    states: NDArray[np.float32]
    """(STATES, inputs)"""
    before: NDArray[np.float32]
    """(STATES, outputs)"""

    @classmethod
    def of(cls, network: Network, base: Vector) -> Probe:
        """For deltas of `base`, or of its first part."""
        states = np.random.default_rng(_SEED).random((STATES, network.inputs), dtype=np.float32)
        return cls(network, base, states, _advantages(network, base, states))

    def __call__(self, delta: Vector) -> Vector:
        """What changes, (STATES · outputs,)."""
        theta = self.base.copy()
        theta[: len(delta)] += delta
        return (_advantages(self.network, theta, self.states) - self.before).reshape(-1)


def _advantages(network: Network, theta: Vector, x: NDArray[np.float32]) -> NDArray[np.float32]:
    part = {one.name: theta[one.start : one.stop].reshape(one.shape) for one in network.slices}
    for k in range(len(network.hidden)):
        x = np.maximum(x @ part[f"body.{k}.weight"] + part[f"body.{k}.bias"], 0)
    name = "advantage" if network.dueling else "head"
    values = x @ part[f"{name}.weight"] + part[f"{name}.bias"]
    return np.asarray(values - values.mean(axis=1, keepdims=True), np.float32)
