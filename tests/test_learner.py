"""Double DQN on one flat vector: gradients as finite differences say, a small task learned, a limit on cost kept."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from edge.learner import Learner, LearnerSettings, act, dual, learn, learn_from, remember, values
from messages.initial import initial
from messages.network import Network


def mind_of(network: Network, seed: int = 0, **settings: float) -> Learner:
    return Learner.fresh(network, LearnerSettings.model_validate(settings), np.random.default_rng(seed))


def filled(learner: Learner, count: int, seed: int = 1) -> Learner:
    rng, net = np.random.default_rng(seed), learner.network
    for _ in range(count):
        before, after = rng.random((2, net.inputs), np.float32)
        remember(learner, before, int(rng.integers(net.outputs)), rng.normal() * 2, rng.random(), after)
    return learner


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (6, 5)])
def test_the_gradient_is_what_finite_differences_say(dueling: bool, hidden: tuple[int, ...]) -> None:
    net = Network(inputs=3, hidden=hidden, outputs=4, dueling=dueling)
    learner = filled(mind_of(net, batch=8, remembered=100, gamma=0.9), 50)
    learner.theta += np.random.default_rng(2).normal(0, 0.4, net.size).astype(np.float32)
    chosen = np.arange(8)

    def loss() -> float:
        return learner._work.gradient(learner.memory, chosen, 0.3, learner.settings)

    loss()
    said, step = learner._work.flat.copy(), 1e-3
    # The target side is a constant to the gradient: with the target network fixed and its choice of action unmoved.
    off = 0
    for k in range(net.size):
        was = learner.theta[k]
        learner.theta[k] = was + step
        up = loss()
        learner.theta[k] = was - step
        down = loss()
        learner.theta[k] = was
        off += abs((up - down) / (2 * step) - said[k]) > 2e-3 + 0.02 * abs(said[k])
    assert np.abs(said).max() > 0.01
    assert off <= 0.02 * net.size, "but for a kink of ReLU, Huber or argmax here and there"


def walk(learner: Learner, cost_of_right: float, steps: int, seed: int) -> Learner:
    """A corridor of five places: to the right is money at its end, and every step to the right costs."""
    rng, place, spent = np.random.default_rng(seed), 0, 0.0
    eye = np.eye(5, dtype=np.float32)
    for n in range(steps):
        action = act(learner, eye[place], 0.3, rng)
        there = min(4, place + 1) if action else max(0, place - 1)
        reward, cost = float(there == 4), cost_of_right * action
        remember(learner, eye[place], action, reward, cost, eye[there])
        place, spent = there, spent + cost
        learn(learner, rng)
        if n % 50 == 49:
            dual(learner, spent, 50)
            spent = 0.0
    return learner


@pytest.mark.parametrize("dueling", [False, True])
def test_it_learns_to_walk_to_the_money(dueling: bool) -> None:
    learner = walk(
        mind_of(Network(inputs=5, hidden=(16,), outputs=2, dueling=dueling), gamma=0.9, tau=0.05), 0.0, 2_000, 3
    )
    q = np.array([values(learner, place).copy() for place in np.eye(5, dtype=np.float32)])
    assert (q.argmax(axis=1) == 1).all()
    assert q[4, 1] == pytest.approx(10, rel=0.25), "1 / (1 - gamma)"


def test_a_limit_on_cost_raises_the_multiplier_until_it_is_kept_and_it_is_never_negative() -> None:
    net = Network(inputs=5, hidden=(16,), outputs=2)
    free = walk(mind_of(net, gamma=0.9), 1.0, 2_000, 3)
    bound = walk(mind_of(net, gamma=0.9, limit=0.2, dual_rate=0.01), 1.0, 4_000, 3)
    assert free.multiplier == 0 and bound.multiplier > 0.5
    dual(bound, -1e9)
    assert bound.multiplier == 0


def test_the_same_seed_learns_the_same_to_the_bit() -> None:
    net = Network(inputs=5, hidden=(16,), outputs=2)
    one, two = (walk(mind_of(net), 0.0, 300, 3) for _ in range(2))
    assert one.theta.tobytes() == two.theta.tobytes()


def test_memory_is_a_ring_and_too_little_of_it_teaches_nothing() -> None:
    learner = filled(mind_of(Network(inputs=2, hidden=(4,), outputs=2), remembered=100, batch=32), 31)
    before = learner.theta.copy()
    assert learn(learner, np.random.default_rng(0)) == 0 and (learner.theta == before).all()
    assert len(filled(learner, 500).memory) == 100 == len(learner.memory.states)
    with pytest.raises(ValueError, match="a batch has 32 transitions, not 3"):
        learn_from(learner, np.arange(3))


def test_the_layers_are_views_so_what_is_put_into_the_vector_decides() -> None:
    net = Network(inputs=3, hidden=(8, 8), outputs=4)
    learner, state = mind_of(net), np.ones(3, np.float32)
    before = values(learner, state).copy()
    learner.theta[:] = initial(net, np.random.default_rng(9))
    assert (values(learner, state) != before).any()


def test_proximal_steps_stay_nearer_to_their_anchor() -> None:
    net = Network(inputs=5, hidden=(16,), outputs=2)
    far = []
    for mu in (0.0, 10.0):
        learner = filled(mind_of(net), 200)
        anchor, rng = learner.theta[: net.shared].copy(), np.random.default_rng(4)
        for _ in range(200):
            learn(learner, rng, anchor=anchor, mu=mu)
        far.append(float(np.linalg.norm(learner.theta[: net.shared] - anchor)))
    assert far[1] < 0.7 * far[0]


def test_steps_allocate_nothing_that_grows() -> None:
    learner = filled(mind_of(Network(inputs=12, hidden=(128, 128), outputs=5)), 500)
    rng = np.random.default_rng(0)
    learn(learner, rng)
    tracemalloc.start()
    try:
        for _ in range(20):
            learn(learner, rng)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * learner.network.size * 4, "less than a few vectors at any time"
