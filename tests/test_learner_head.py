"""Adam after a pull: what was taken over begins anew, and a head that stayed goes on, each with a count of its own."""

from __future__ import annotations

import numpy as np
import pytest

from edge.learner import Learner, LearnerSettings, learn, learn_from, pull, remember
from messages.network import Network

NET = Network(inputs=4, hidden=(16, 12), outputs=3)


def lived(*, steps: int, seed: int = 1) -> Learner:
    rng = np.random.default_rng(seed)
    learner = Learner.fresh(NET, LearnerSettings(gamma=0.0, rate=1e-2), rng)
    for _ in range(200):
        state, after = rng.random((2, NET.inputs), dtype=np.float32)
        action = int(rng.integers(NET.outputs))
        remember(learner, state, action, float(action == 1) + state[0], 0.1, after)
    for _ in range(steps):
        learn(learner, rng)
    return learner


@pytest.mark.parametrize("taken", [NET.shared, NET.size], ids=["body", "whole"])
def test_adam_counts_what_was_taken_over_anew_and_a_head_that_stayed_goes_on(taken: int) -> None:
    """As written by Kingma & Ba for every parameter."""
    learner, rng = lived(steps=5), np.random.default_rng(5)
    pull(learner, np.random.default_rng(6).normal(0, 0.3, taken).astype(np.float32))
    theta, first, second = (getattr(learner, name).astype(float) for name in ("theta", "first", "second"))
    count = np.where(np.arange(NET.size) < taken, 0, 5)
    for _ in range(4):
        learn_from(learner, rng.integers(200, size=32))
        gradient, count = learner._work.flat.astype(float), count + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = learner.settings.rate * np.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        theta -= rate * first / (np.sqrt(second) + 1e-8)
        assert np.allclose(learner.theta, theta, rtol=1e-4, atol=1e-5)
    assert (learner.body_steps, learner.head_steps) == (4, 9 if taken == NET.shared else 4)
