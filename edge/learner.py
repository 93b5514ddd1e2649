"""Double DQN at the edge, in numpy on one flat vector: what a cell did becomes a policy, without a framework.

    learner = Learner.fresh(network, settings, rng)
    action = act(learner, state, epsilon, rng)
    remember(learner, state, action, reward, cost, after)
    pull(learner, base)                            # begin where the others are, with what is shared
    loss = learn(learner, rng)                     # one optimiser step on a batch of what is remembered
    delta = learner.theta[:network.shared] - base  # what a round sends

Double Q-learning (van Hasselt et al., 2016, arXiv:1509.06461) with replay, a target network that follows by Polyak
averaging, Huber loss, gradient clipping by norm and Adam (Kingma & Ba, 2015, arXiv:1412.6980). The reward of a
transition is `reward - multiplier · cost`, put together when it is learned from, so that a multiplier that moves counts
for all that is remembered; `dual` moves it (Lagrange; Tessler et al., 2019, arXiv:1805.11074).
Dimensions: B batch, S inputs, A outputs, P parameters, M remembered. All memory is allocated once: M transitions of
2 S + 3 numbers, five vectors of P, and a batch's activations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.layers import F32, Layers
from edge.learning import LearnerSettings as LearnerSettings
from messages.initial import initial
from messages.network import Network


@dataclass
class Memory:
    """A ring of transitions."""

    states: F32
    """(M, S)"""
    after: F32
    """(M, S)"""
    actions: NDArray[np.intp]
    rewards: F32
    costs: F32
    count: int = 0
    """ever remembered"""

    @classmethod
    def of(cls, size: int, inputs: int) -> Memory:
        """Empty."""
        return cls(
            np.zeros((size, inputs), np.float32),
            np.zeros((size, inputs), np.float32),
            np.zeros(size, np.intp),
            np.zeros(size, np.float32),
            np.zeros(size, np.float32),
        )

    def __len__(self) -> int:
        return min(self.count, len(self.actions))


@dataclass
class Learner:
    """All that a learner knows. `theta`: the parameters, (P,)."""

    network: Network
    settings: LearnerSettings
    theta: F32
    target: F32
    first: F32
    """Adam's first moment, (P,)"""
    second: F32
    memory: Memory
    steps: int = 0
    """optimiser steps ever"""
    multiplier: float = 0.0
    body_steps: int = 0
    """Adam's steps on the body since its moments began,"""
    head_steps: int = 0
    """and on the head"""
    _work: _Work = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._work = _Work(self.network, self.theta, self.target, self.settings.batch)

    @classmethod
    def fresh(cls, network: Network, settings: LearnerSettings, rng: np.random.Generator) -> Learner:
        """Knows nothing."""
        theta = initial(network, rng)
        return cls(
            network,
            settings,
            theta,
            theta.copy(),
            np.zeros_like(theta),
            np.zeros_like(theta),
            Memory.of(settings.remembered, network.inputs),
        )


def act(learner: Learner, state: F32, epsilon: float, rng: np.random.Generator) -> int:
    """The index of the action: greedy, or any one with probability `epsilon`. `state`: (S,)."""
    if epsilon and rng.random() < epsilon:
        return int(rng.integers(learner.network.outputs))
    return int(values(learner, state).argmax())


def values(learner: Learner, state: F32) -> F32:
    """Q of every action, (A,)."""
    return learner._work.online.one(state)


def remember(learner: Learner, state: F32, action: int, reward: float, cost: float, after: F32) -> None:
    """Keep a transition; the oldest one goes when memory is full."""
    memory = learner.memory
    k = memory.count % len(memory.actions)
    memory.states[k] = state
    memory.after[k] = after
    memory.actions[k] = action
    memory.rewards[k] = reward
    memory.costs[k] = cost
    memory.count += 1


def dual(learner: Learner, cost: float, decisions: int = 1) -> None:
    """Move the multiplier: up while `decisions` cost more than the limit allows, down while less, never below 0."""
    limit = learner.settings.limit
    if limit is not None:
        learner.multiplier = max(0.0, learner.multiplier + learner.settings.dual_rate * (cost - limit * decisions))


def pull(learner: Learner, base: F32) -> None:
    """Take over `base` as the first part of P. What is known beside it stays, as far as it is still true.

    Adam's moments of the body begin anew, at zero and with their own bias correction: they were of another point. So do
    the head's if any of it was taken over; else they go on. The target network becomes what theta is now. Replay and
    multiplier are the cell's own.
    """
    body = learner.network.shared
    learner.theta[: len(base)] = base
    anew = learner.network.size if len(base) > body else body
    learner.first[:anew] = 0
    learner.second[:anew] = 0
    learner.body_steps = 0
    if anew > body:
        learner.head_steps = 0
    np.copyto(learner.target, learner.theta)


def learn(learner: Learner, rng: np.random.Generator, *, anchor: F32 | None = None, mu: float = 0.0) -> float:
    """One step on a batch drawn at random; the mean loss. FedProx: pulled to `anchor`, the first part of P, by `mu`."""
    known = len(learner.memory)
    if known < learner.settings.batch:
        return 0.0
    return learn_from(learner, rng.integers(known, size=learner.settings.batch), anchor=anchor, mu=mu)


def learn_from(
    learner: Learner,
    chosen: NDArray[np.intp],
    *,
    anchor: F32 | None = None,
    mu: float = 0.0,
) -> float:
    """One step on these remembered transitions, (B,)."""
    work, settings = learner._work, learner.settings
    loss = work.gradient(learner.memory, chosen, learner.multiplier, settings)
    gradient = work.flat
    if anchor is not None and mu:
        gradient[: len(anchor)] += mu * (learner.theta[: len(anchor)] - anchor)
    norm = float(np.sqrt(gradient @ gradient))
    if norm > settings.clip:
        gradient *= np.float32(settings.clip / norm)
    learner.steps += 1
    learner.head_steps += 1
    learner.body_steps += 1
    _adam(learner)
    work.follow(learner.target, learner.theta, settings.tau)
    return loss


def _adam(learner: Learner, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
    gradient, work = learner._work.flat, learner._work.spare
    m, v = learner.first, learner.second
    m *= np.float32(beta1)
    np.multiply(gradient, np.float32(1 - beta1), out=work)
    m += work
    v *= np.float32(beta2)
    np.multiply(gradient, gradient, out=work)
    work *= np.float32(1 - beta2)
    v += work
    np.sqrt(v, out=work)
    work += np.float32(epsilon)
    np.divide(m, work, out=work)
    body = learner.network.shared
    for part, steps in ((work[:body], learner.body_steps), (work[body:], learner.head_steps)):
        if len(part):
            part *= np.float32(learner.settings.rate * np.sqrt(1 - beta2**steps) / (1 - beta1**steps))
    learner.theta -= work


class _Net:
    """Layers as views of one vector, with room for a batch."""

    def __init__(self, network: Network, theta: F32, rows: int) -> None:
        part = {one.name: theta[one.start : one.stop].reshape(one.shape) for one in network.slices}
        self.dueling = network.dueling
        self.body = [(part[f"body.{k}.weight"], part[f"body.{k}.bias"]) for k in range(len(network.hidden))]
        names = ("value", "advantage") if network.dueling else ("head",)
        self.heads = [(part[f"{name}.weight"], part[f"{name}.bias"]) for name in names]
        self.hidden = [np.zeros((rows, width), np.float32) for width in network.hidden]
        self.out = np.zeros((rows, network.outputs), np.float32)
        self.value = np.zeros((rows, 1), np.float32)
        self.state = np.zeros(network.inputs, np.float32)
        self._one = Layers(network, theta, self.state)

    def one(self, x: F32) -> F32:
        """(S,) → (A,), valid until the next call."""
        self.state[:] = x
        return self._one()

    def __call__(self, x: F32, rows: int) -> F32:
        """(rows, S) → (rows, A), valid until the next call."""
        for (weight, bias), room in zip(self.body, self.hidden, strict=True):
            there = room[:rows]
            np.matmul(x, weight, out=there)
            there += bias
            x = np.maximum(there, 0, out=there)
        weight, bias = self.heads[-1]
        out = np.matmul(x, weight, out=self.out[:rows])
        out += bias
        if self.dueling:
            value, offset = self.heads[0]
            there = np.matmul(x, value, out=self.value[:rows])
            there += offset
            out += there - out.mean(axis=1, keepdims=True)
        return out


class _Work:
    """Room for one step, allocated once."""

    def __init__(self, network: Network, theta: F32, target: F32, batch: int) -> None:
        self.flat = np.zeros(network.size, np.float32)
        self.spare = np.zeros(network.size, np.float32)
        self.online = _Net(network, theta, 2 * batch)
        self.target = _Net(network, target, batch)
        part = {one.name: self.flat[one.start : one.stop].reshape(one.shape) for one in network.slices}
        self.body = [(part[f"body.{k}.weight"], part[f"body.{k}.bias"]) for k in range(len(network.hidden))]
        names = ("value", "advantage") if network.dueling else ("head",)
        self.heads = [(part[f"{name}.weight"], part[f"{name}.bias"]) for name in names]
        self.both = np.zeros((2 * batch, network.inputs), np.float32)
        self.error = np.zeros((batch, network.outputs), np.float32)
        self.back = [np.zeros((batch, width), np.float32) for width in network.hidden]
        self.rows = np.arange(batch)

    def follow(self, target: F32, theta: F32, tau: float) -> None:
        """target += tau (theta - target)"""
        off = self.spare
        np.subtract(theta, target, out=off)
        off *= np.float32(tau)
        target += off

    def gradient(self, memory: Memory, chosen: NDArray[np.intp], multiplier: float, settings: LearnerSettings) -> float:
        """Into `flat`: of the mean Huber loss of the batch, which is returned."""
        size = len(chosen)
        if size != len(self.rows):
            raise ValueError(f"a batch has {len(self.rows)} transitions, not {size}")
        np.take(memory.states, chosen, axis=0, out=self.both[:size])
        np.take(memory.after, chosen, axis=0, out=self.both[size:])
        rows, actions = self.rows, memory.actions[chosen]
        wanted = memory.rewards[chosen] - np.float32(multiplier) * memory.costs[chosen]
        wanted /= np.float32(settings.scale)
        q = self.online(self.both, 2 * size)
        best = q[size:].argmax(axis=1)
        wanted += np.float32(settings.gamma) * self.target(self.both[size:], size)[rows, best]
        off = q[rows, actions] - wanted
        slope = np.clip(off, -1, 1)
        loss = float((slope * (off - 0.5 * slope)).mean())
        self.error.fill(0)
        self.error[rows, actions] = slope / np.float32(size)
        self._back(size)
        return loss

    def _back(self, size: int) -> None:
        online, error = self.online, self.error
        last = online.hidden[-1][:size] if online.hidden else self.both[:size]
        heads = [error]
        if online.dueling:  # Q = V + A - mean(A)
            total = error.sum(axis=1, keepdims=True)
            heads = [total, error - total / error.shape[1]]
        upstream = self.back[-1] if self.back else None
        for n, (at, (weight, _), (to_weight, to_bias)) in enumerate(zip(heads, online.heads, self.heads, strict=True)):
            np.matmul(last.T, at, out=to_weight)
            np.sum(at, axis=0, out=to_bias)
            if upstream is not None:
                if n:
                    upstream += at @ weight.T
                else:
                    np.matmul(at, weight.T, out=upstream)
        for k in range(len(self.body) - 1, -1, -1):
            at = self.back[k]
            at *= online.hidden[k][:size] > 0
            before = online.hidden[k - 1][:size] if k else self.both[:size]
            np.matmul(before.T, at, out=self.body[k][0])
            np.sum(at, axis=0, out=self.body[k][1])
            if k:
                np.matmul(at, online.body[k][0].T, out=self.back[k - 1])
