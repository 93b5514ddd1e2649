"""What was released becomes a cell's own: part of the way to what it learns on, and nothing of the learner changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.adaptation import Adaptation, adapted
from edge.learner import Learner, LearnerSettings, learn, pull, remember, values
from messages.network import Network

NET = Network(inputs=4, hidden=(16, 12), outputs=3)


def lived(*, pays: int = 1, transitions: int = 200, steps: int = 40, seed: int = 1) -> Learner:
    """A learner of a cell in which one action pays, and what it does next counts for nothing."""
    rng = np.random.default_rng(seed)
    learner = Learner.fresh(NET, LearnerSettings(gamma=0.0, rate=1e-2), rng)
    for _ in range(transitions):
        state, after = rng.random((2, NET.inputs), dtype=np.float32)
        action = int(rng.integers(NET.outputs))
        remember(learner, state, action, float(action == pays) + state[0], 0.1, after)
    for _ in range(steps):
        learn(learner, rng)
    return learner


def rng() -> np.random.Generator:
    return np.random.default_rng(2)


VERSION = lived(pays=0, steps=300, seed=7).theta


def learned_on(learner: Learner, version: np.ndarray, steps: int) -> np.ndarray:
    """Theta after every step, as the learner itself would go there, (steps, P)."""
    pull(learner, version)
    learner.first[:] = learner.second[:] = 0
    learner.head_steps = 0
    chance, found = rng(), []
    for _ in range(steps):
        learn(learner, chance)
        found.append(learner.theta.astype(float))
    return np.array(found)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_it_goes_as_far_towards_the_mean_of_the_last_half_as_the_cell_knows(steps: int) -> None:
    for transitions, half, share in ((200, 200, 0.5), (200, 600, 0.25), (200, 0, 1.0), (50, 150, 0.25)):
        own = adapted(lived(transitions=transitions), VERSION, rng(), steps=steps, half=half)
        mean = learned_on(lived(transitions=transitions), VERSION, steps)[steps // 2 :].mean(axis=0)
        assert np.allclose(own, VERSION + share * (mean - VERSION), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_under_a_body_alone_the_own_head_is_adapted_with_it_and_all_of_the_way(steps: int) -> None:
    body, learner = VERSION[: NET.shared], lived()
    own = adapted(learner, body, rng(), steps=steps, half=200)
    mean = learned_on(lived(), body, steps)[steps // 2 :].mean(axis=0)
    assert np.allclose(own, mean, atol=1e-5)
    begun = adapted(learner, body, rng(), steps=0, half=200)
    assert (begun == np.concatenate((body, learner.theta[NET.shared :]))).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_slices_change_nothing(slices: list[int]) -> None:
    making = Adaptation(lived(), VERSION, rng(), steps=20, half=100)
    for steps in [*slices, 20]:
        making.work(steps)
    assert making.left == 0
    assert making.vector.tobytes() == adapted(lived(), VERSION, rng(), steps=20, half=100).tobytes()


def test_the_learner_stays_as_it_is_to_the_byte() -> None:
    learner = lived()
    names = ("theta", "target", "first", "second")
    before = {name: getattr(learner, name).tobytes() for name in names}
    counts = learner.steps, learner.body_steps, learner.head_steps, learner.memory.count, learner.multiplier
    adapted(learner, VERSION, rng(), steps=20, half=100)
    adapted(learner, VERSION[: NET.shared], rng(), steps=20, half=100)
    assert {name: getattr(learner, name).tobytes() for name in names} == before
    assert (
        learner.steps, learner.body_steps, learner.head_steps, learner.memory.count, learner.multiplier,
    ) == counts  # fmt: skip


def test_who_knows_less_than_a_batch_or_makes_no_steps_decides_by_the_version() -> None:
    for transitions, steps in ((31, 20), (0, 20), (200, 0)):
        making = Adaptation(lived(transitions=transitions, steps=0), VERSION, rng(), steps=steps, half=0)
        assert making.left == 0 and making.vector.tobytes() == VERSION.tobytes()


def test_a_version_of_cells_that_are_paid_for_something_else_comes_to_do_what_pays_here() -> None:
    states = np.random.default_rng(8).random((50, NET.inputs), dtype=np.float32)

    def does(theta: np.ndarray) -> set[int]:
        decides = lived(steps=0)
        decides.theta[:] = theta
        return {int(values(decides, state).argmax()) for state in states}

    assert does(VERSION) == {0}
    assert does(adapted(lived(), VERSION, rng(), steps=300, half=10)) == {1}
    assert does(adapted(lived(), VERSION, rng(), steps=300, half=10**9)) == {0}, "who trusts nothing of its own"
