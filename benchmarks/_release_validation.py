"""How noisy validation is: what equal candidates come to in simulation, and what the product's own rule says of them.

Parameters that are off by a hundredth, at random, are worth the same, but what is made of them in the simulation takes
another course with every draw: equal candidates. Every pair of their results, as incumbent and candidate, is put to
`cloud.validation.objection`, with the settings that are the default. One that is so much worse is an equal one that
earns so much less in every decision; beside it versions that are worse in truth, an untrained one and one that knows
nothing and learns little. Rounds are honest ones: four cells that learn, averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.learning_settings import SimulationSettings
from cloud.validation import Outcome, ValidationSettings, objection
from edge.learner import Learner, act, learn, pull, remember
from edge.learning import LearnerSettings
from firmware_sim.cell import DAY, Cell, cell_of
from messages.cells import INTERFACE, NETWORK
from messages.initial import initial
from shoal.simulated import metrics_of

CELLS, DAYS, STEPS, SHARE = 4, 2, 250, 0.2
"""That learn; days of each between two rounds; optimiser steps of a round; share of decisions that are thrown."""
ROUNDS = 12
WORSE = (0.1, 0.2, 0.5)
OFF = 0.01
"""Share by which every parameter of an equal version is off."""
HELD = 5.0
"""% of equal candidates that may be refused."""

SCORE = ValidationSettings().score
F32 = NDArray[np.float32]
Line = dict[str, Any]
Metrics = dict[str, float]
Pairs = Sequence[tuple[Metrics, Metrics]]
"""(incumbent, candidate)"""


def validation(quick: bool) -> Iterator[Line]:
    """False refusals, and what passes."""
    equals, neighbours, worse = (3, 2, 1) if quick else (6, 2, 1)
    settings = SimulationSettings()
    if quick:
        settings = settings.model_copy(update={"cells": settings.cells[:2]})
    rounds = versions(ROUNDS)
    rng = np.random.default_rng(5)
    equal = [simulated(nearly(rounds[-1], rng), settings) for _ in range(equals)]
    pairs = list(permutations(equal, 2))
    returns = [one[SCORE] for one in equal]
    spread = 100 * float(np.std(returns, ddof=1)) / float(np.mean(returns))
    yield {
        "figure": "validation_noise",
        "value": round(spread, 2),
        "unit": "% of the mean return",
        "target": None,
        "holds": None,
        "note": f"standard deviation of {equals} results of equal versions (mean {np.mean(returns):.2f}, trained for "
        f"{ROUNDS} rounds) in {len(settings.cells)} cells; refused is what loses more than "
        f"{100 * ValidationSettings().worse:.0f} %",
    }
    yield _refused("validation_false_refusals", pairs, HELD, f"all pairs of those {equals} results")
    course = [simulated(one, settings) for one in rounds[-neighbours:]]
    said = ", ".join(f"{one[SCORE]:.1f}" for one in course)
    yield _refused("validation_refused_next_round", list(pairwise(course)), None, f"the last rounds in order: {said}")
    for share in WORSE:
        less = [(incumbent, {**candidate, SCORE: (1 - share) * candidate[SCORE]}) for incumbent, candidate in pairs]
        yield _passed(f"validation_passes_{100 * share:.0f}_percent_worse", less, "equal ones that earn so much less")
    for name, theta in (("untrained", rounds[0]), ("knows_nothing", np.zeros_like(rounds[0]))):
        found = [simulated(nearly(theta, rng), settings) for _ in range(worse)]
        less = [(incumbent, candidate) for incumbent in equal for candidate in found]
        by = 100 * (1 - float(np.mean([one[SCORE] for one in found])) / float(np.mean(returns)))
        yield _passed(f"validation_passes_{name}", less, f"{len(found)} that earn {by:.0f} % less")


def simulated(theta: F32, settings: SimulationSettings) -> Metrics:
    """As the product validates a version that was learned whole."""
    return metrics_of(NETWORK, theta, INTERFACE, settings, shared=NETWORK.size)


def nearly(theta: F32, rng: np.random.Generator) -> F32:
    """Too little off to be worth more or less."""
    return np.asarray(theta * (1 + OFF * rng.standard_normal(len(theta))), np.float32)


def versions(rounds: int) -> list[F32]:
    """What each of so many honest rounds made, after what they began with."""
    base = initial(NETWORK, np.random.default_rng(1))
    found, settings = [base], LearnerSettings(scale=20.0, remembered=5_000)
    members = []
    for number in range(CELLS):
        rng = np.random.default_rng((1, number))
        learner = Learner.fresh(NETWORK, settings, rng)
        learner.multiplier = SimulationSettings().price
        members.append((learner, Cell(cell_of(number + 1, 0.3), np.random.default_rng((1, number, 1)), days=60), rng))
    for _ in range(rounds):
        made = []
        for learner, cell, rng in members:
            _live(learner, cell, rng)
            pull(learner, base)
            for _ in range(STEPS):
                learn(learner, rng)
            made.append(learner.theta.copy())
        base = np.mean(made, axis=0).astype(np.float32)
        found.append(base)
    return found


def _live(learner: Learner, cell: Cell, rng: np.random.Generator) -> None:
    state = _seen(cell)
    for _ in range(DAYS * DAY):
        action = act(learner, state, SHARE, rng)
        money, carbon = cell.step(action)
        after = _seen(cell)
        remember(learner, state, action, money, carbon, after)
        state = after


def _seen(cell: Cell) -> F32:
    low = np.array([one.low for one in INTERFACE.features], np.float32)
    wide = np.array([one.high - one.low for one in INTERFACE.features], np.float32)
    return np.asarray(np.clip((cell.state - low) / wide, 0, 1), np.float32)


def _share(pairs: Pairs) -> float:
    """% that are refused."""
    said = [objection(Outcome(new, old), ValidationSettings()) for old, new in pairs]
    return 100 * sum(one is not None for one in said) / len(pairs)


def _refused(figure: str, pairs: Pairs, most: float | None, note: str) -> Line:
    share = round(_share(pairs), 2)
    target, holds = (None, None) if most is None else (f"<= {most:g}", share <= most)
    return {
        "figure": figure,
        "value": share,
        "unit": f"% of {len(pairs)}",
        "target": target,
        "holds": holds,
        "note": note,
    }


def _passed(figure: str, pairs: Pairs, note: str) -> Line:
    return {
        "figure": figure,
        "value": round(100 - _share(pairs), 2),
        "unit": f"% of {len(pairs)}",
        "target": None,
        "holds": None,
        "note": note,
    }
