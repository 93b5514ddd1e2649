"""What a cell did waits for the learner, within bounds, while one thread decides and another one learns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from agent_rig import KEY, NET

from edge.agent import Transition
from edge.checkpoint import Checkpoint
from edge.files import Files
from edge.learner import Learner, LearnerSettings
from edge.learning import LearningSettings
from edge.learning_worker import ModelLearner
from edge.training import Trainer

STATE = np.zeros(NET.inputs, np.float32)


def learner(folder: Path) -> ModelLearner:
    rng = np.random.default_rng(1)
    files = Files(folder)
    checkpoint = Checkpoint(files)
    made = Learner.fresh(NET, LearnerSettings(remembered=1_000), rng)
    trainer = Trainer("cell", made, KEY, name="north", rng=rng, keep=checkpoint.keep_update)
    return ModelLearner(files, checkpoint, trainer, rng=rng, settings=LearningSettings())


def done(reward: float) -> Transition:
    return Transition(STATE, 0, reward, 0.0, STATE)


def test_what_waits_too_long_goes_oldest_first_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.learning_worker.INBOX", 4)
    one = learner(tmp_path)
    one.note(done(float(k)) for k in range(3))
    one.note(done(float(k)) for k in range(3, 10))
    one.remember()
    assert one.lost == 6 and one.trainer.learner.memory.rewards[:4].tolist() == [6.0, 7.0, 8.0, 9.0]
    assert len(one.trainer.learner.memory) == 4


def test_a_learner_that_takes_what_is_there_while_more_comes_than_fits_ends_with_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner looks how much there is in the very moment in which more comes than there is room for."""
    monkeypatch.setattr("edge.learning_worker.INBOX", 4)
    one, began, go_on, wrong = learner(tmp_path), threading.Event(), threading.Event(), list[BaseException]()

    def slowly(*_: object) -> None:
        began.set()
        assert go_on.wait(10)

    def learn() -> None:
        try:
            one.remember()
        except BaseException as error:
            wrong.append(error)

    learning = threading.Thread(target=learn)

    def coming() -> Iterator[Transition]:
        for k in range(6):
            yield done(float(k))
        learning.start()
        while learning.is_alive() and not began.wait(0.01):
            pass

    monkeypatch.setattr("edge.learning_worker.remember", slowly)
    one.note(coming())
    go_on.set()
    learning.join(10)
    assert wrong == [] and one.lost == 2
