"""A course of learning at one simulated cell: the product's learner, its settings frozen, the best of what it was kept.

    found = learned(spec, seed=1, course=Course())       # parameters to decide by, greedily

Exploration falls, then the learning rate; the multiplier moves once a day, the slower the later. A mean of the
parameters over the last days is kept twenty times in the second half; the one that did best within the limit, on more
days of training, is handed out.

What counts is the mean day, and a learner that discounts is impatient: products that wait for cleaner power are worth
less to it than they are. Two things mend most of it without a longer horizon, which is hard to learn:

- Rewards are shaped by a potential *that is not discounted*: what lies in store and stock is worth about what it will
  bring, and wear what services cost. Over a long time the sum of its differences is nothing, so the best mean day stays
  what it was (Ng, Harada & Russell, 1999, for the discounted kind); a decision shows its worth at once.
- Rewards are centred: money less its mean of late, kg less the allowance (Naik et al., 2024, arXiv:2405.09999). Else
  every state's worth would move whenever the multiplier does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from _cell_fast import EPISODE
from _cell_rules import Decide, played, within_limit
from numpy.typing import NDArray

from edge.layers import F32, Layers
from edge.learner import Learner, act, dual, learn, remember
from edge.learning import LearnerSettings
from firmware_sim.cell import DAY, Cell, CellSpec
from messages.cells import HIGH, NETWORK

SCALE = 1 / np.array(HIGH, np.float32)


SETTINGS = LearnerSettings(batch=64, remembered=150_000, rate=1e-3, gamma=0.98, tau=0.01, scale=20.0, dual_rate=3e-4)


@dataclass(frozen=True)
class Course:
    """How it is learned."""

    days: int = 4_000
    every: int = 3
    """decisions from one optimiser step to the next"""
    settings: LearnerSettings = SETTINGS
    multiplier: float = 7.0
    """to begin with, money per kg"""
    usual: float = 15.0
    """money a step, to begin with,"""
    usual_days: float = 50.0
    """and over how many days its mean is taken"""
    explore: tuple[float, float] = (0.3, 0.02)
    steady: float = 0.4
    """share of the days until exploration is at its least and the rates begin to fall,"""
    least: float = 0.03
    """to this share of what they were"""
    mean_days: float = 30.0
    """over which parameters are averaged"""
    kept: int = 20
    """means that are kept in the second half"""


class Learned(NamedTuple):
    """What a course came to."""

    theta: F32
    multiplier: float
    days: int
    """simulated in all: learned from, and to choose by"""


def learned(spec: CellSpec, *, seed: int, course: Course) -> Learned:
    """One course; the same seed, the same parameters."""
    rng = np.random.default_rng((seed, 11))
    settings = course.settings.model_copy(update={"limit": spec.limit_kg / DAY})
    learner = Learner.fresh(NETWORK, settings, rng)
    learner.multiplier = course.multiplier
    cell = Cell(spec, np.random.default_rng((seed, 12)), days=EPISODE)
    values = cell.values()
    state, worth = scaled(values), _worth(spec, values)
    mean, kept, steps, usual = learner.theta.copy(), [], 0, course.usual
    for day in range(course.days):
        at = day / course.days
        first, last = course.explore
        epsilon = max(last, first * (1 - at / course.steady))
        pace = min(1.0, max(course.least, (1 - at) / (1 - course.steady)))
        learner.settings = settings.model_copy(
            update={"rate": settings.rate * pace, "dual_rate": settings.dual_rate * pace}
        )
        emitted = earned = 0.0
        for _ in range(DAY):
            action = act(learner, state, epsilon, rng)
            money, kg = cell.step(action)
            values = cell.values()
            after, then = scaled(values), _worth(spec, values)
            remember(learner, state, action, money - usual + then - worth, kg - spec.limit_kg / DAY, after)
            state, worth = after, then
            emitted += kg
            earned += money
            steps += 1
            if steps % course.every == 0:
                learn(learner, rng)
        dual(learner, emitted, DAY)
        usual += (earned / DAY - usual) / course.usual_days
        mean += (learner.theta - mean) / np.float32(min(day + 1, course.mean_days))
        if 2 * day >= course.days and (day + 1) % max(1, course.days // (2 * course.kept)) == 0:
            kept.append(mean.copy())
    theta, days = _best(spec, kept, seed)
    return Learned(theta, learner.multiplier, course.days + days)


def greedy(theta: F32) -> Decide:
    """Decide by these parameters."""
    state = np.zeros(NETWORK.inputs, np.float32)
    run = Layers(NETWORK, theta, state)

    def decide(values: tuple[float, ...]) -> int:
        np.multiply(values, SCALE, out=state, casting="unsafe")
        return int(run().argmax())

    return decide


def scaled(values: tuple[float, ...]) -> F32:
    """As the interface of a model does it."""
    return np.asarray(values, np.float32) * SCALE


def _worth(spec: CellSpec, values: tuple[float, ...]) -> float:
    """Of store, stock and robot: the potential that shapes the reward. A product: what it brings less carbon, about."""
    a, b, components, materials, _, wear = values[:6]
    waiting = spec.price_a * a / 3 + spec.price_kg * spec.kg_b * b * 0.4
    return waiting + 0.93 * spec.price_a * components + spec.price_kg * materials - 2.5 * spec.service_cost * wear


def _best(spec: CellSpec, kept: list[NDArray[np.float32]], seed: int) -> tuple[F32, int]:
    """The one that does best within the limit: all on 16 episodes, the best four of them on 60."""
    days = 0
    for count, left in ((16, 4), (60, 1)):
        episodes = [(2, seed, count, k) for k in range(count)]
        tried = [played(spec, greedy(theta), episodes) for theta in kept]
        worths = [within_limit(spec, float(one.money.mean()), float(one.kg.mean())) for one in tried]
        days += len(kept) * count * EPISODE
        kept = [kept[k] for k in np.argsort(worths)[::-1][:left]]
    return kept[0], days
