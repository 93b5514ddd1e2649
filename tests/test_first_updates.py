"""A cell whose reward was turned round is told by its first update, through the whole way: cell, trainer, rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud.learning_settings import RoundSettings
from cloud.roundbook import RoundBook
from cloud.rounds import Rounds
from edge.learner import Learner, LearnerSettings, act, remember
from edge.training import Trainer
from firmware_sim.cell import Cell, cell_of
from messages.cells import HIGH, INTERFACE, NETWORK
from messages.initial import initial
from messages.learning import Training
from messages.signing import SigningKey, public_key

NODES = [f"cell-{k}" for k in range(10)]
SECRET = {node: SigningKey.from_seed(bytes([k]) * 32) for k, node in enumerate(NODES)}
SCALE = np.array(HIGH, np.float32)
SECOND = 1_000_000


def learned(trainer: Trainer, cell: Cell, rng: np.random.Generator, *, sign: float) -> None:
    """As much work as a round asks for before it hears a cell."""
    state = cell.state / SCALE
    for _ in range(RoundSettings().experience):
        action = act(trainer.learner, state, 0.2, rng)
        reward, carbon = cell.step(action)
        after = cell.state / SCALE
        remember(trainer.learner, state, action, sign * reward, carbon, after)
        state = after


@pytest.mark.parametrize(("heterogeneity", "turned", "told"), [(0.3, (2, 7, 9), 3), (1.5, (2, 7, 9), 2), (1.5, (), 0)])
def test_cells_whose_reward_is_turned_round_are_told_by_their_first_update_and_no_other_is(
    heterogeneity: float, turned: tuple[int, ...], told: int, tmp_path: Path
) -> None:
    keys = {node: public_key(key.public) for node, key in SECRET.items()}
    rounds = Rounds(
        RoundSettings(training=Training(steps=120)), RoundBook(tmp_path / "r.db"), keys=keys, register=lambda one: 1
    )
    rounds.rebase(initial(NETWORK, np.random.default_rng(5)), version=0)
    asked = rounds.open(1_000 * SECOND, network=NETWORK, interface=INTERFACE, expected=NODES)
    for k, node in enumerate(NODES):
        rng = np.random.default_rng((31, k))
        learner = Learner.fresh(NETWORK, LearnerSettings(scale=20.0, remembered=1_000), rng)
        trainer = Trainer("cell", learner, SECRET[node], name=node, rng=rng, keep=lambda update: None)
        trainer.on_round(asked, rounds.base_bytes, 1_001 * SECOND)
        learned(trainer, Cell(cell_of(40 + k, heterogeneity), rng), rng, sign=-1.0 if k in turned else 1.0)
        update = trainer.work(trainer.left, 1_002 * SECOND)
        assert update is not None
        rounds.on_updates([(node, asked.round, update)], 1_002 * SECOND)
    done = rounds.on_time(asked.deadline)
    assert done is not None and done.closed is not None
    found = done.closed.quarantined
    assert len(found) >= told and set(found) <= {NODES[k] for k in turned}  # unlike cells agree less: not all are told
    assert all(done.closed.refused[node].startswith("decisions") for node in found)
    assert set(done.closed.taken) == set(NODES) - set(found)
