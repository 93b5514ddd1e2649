"""A node's side of a round, and its checkpoint: what a pull keeps, one update per round, whole after a power cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.checkpoint import LEARNER, Checkpoint, read, written
from edge.files import Files
from edge.learner import Learner, LearnerSettings, learn, pull, remember, values
from edge.training import Trainer
from messages.errors import BadMessage
from messages.learning import Artefact, Closed, Feature, Interface, Round, Training, Update
from messages.network import Network
from messages.signing import SigningKey, public_key
from messages.updates import delta_of, signer

NET = Network(inputs=4, hidden=(16, 16), outputs=3)
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work", "service"])
SETTINGS = LearnerSettings(batch=8, remembered=200, rate=1e-2)
KEY = SigningKey.from_seed(bytes(32))
SECOND = 1_000_000
NOW = 1_000 * SECOND


def vector(seed: int, size: int = NET.size) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, size).astype(np.float32)


def asked(number: int = 1, *, base: np.ndarray, steps: int = 30, mu: float = 0.0, **facts: object) -> Round:
    one = Round(
        model="cell",
        round=number,
        base_version=number - 1,
        base=Artefact.of(base.tobytes()),
        network=NET,
        interface=FACE,
        shared=NET.shared,
        training=Training(steps=steps, mu=mu),
        codec="float32",
        opened_at=NOW,
        deadline=NOW + 100 * SECOND,
    )
    return one.model_copy(update=facts)


def lived(learner: Learner, transitions: int = 60, seed: int = 1) -> Learner:
    """A learner that has seen a cell in which action 1 pays."""
    rng = np.random.default_rng(seed)
    for _ in range(transitions):
        state, after = rng.random((2, 4), dtype=np.float32)
        action = int(rng.integers(3))
        remember(learner, state, action, float(action == 1), 0.1, after)
    return learner


class Node:
    """A trainer whose updates are kept in a list, as on a disk."""

    def __init__(self, *, transitions: int = 60, sent: Update | None = None, fresh: bool = False) -> None:
        self.kept: list[Update] = []
        self.learner = lived(Learner.fresh(NET, SETTINGS, np.random.default_rng(2)), transitions)
        if not fresh:
            for _ in range(20):
                learn(self.learner, np.random.default_rng(3))
        self.trainer = Trainer(
            "cell",
            self.learner,
            KEY,
            name="press-4",
            rng=np.random.default_rng(4),
            keep=self.kept.append,
            sent=sent,
        )

    def learn(self, round: Round, base: np.ndarray, *, by: int = 10) -> Update | None:
        self.trainer.on_round(round, base.tobytes(), NOW)
        found = None
        for _ in range(100):
            found = found or self.trainer.work(by, NOW + SECOND)
        return found


# --- what a pull does -----------------------------------------------------------------------------------


def test_a_pull_takes_the_body_keeps_the_head_and_what_the_cell_taught() -> None:
    node, base = Node(), vector(9)
    learner = node.learner
    learner.multiplier = 0.7
    head, first, second, remembered = (
        learner.theta[NET.shared :].copy(),
        learner.first.copy(),
        learner.second.copy(),
        learner.memory.count,
    )
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    assert (learner.theta[: NET.shared] == base[: NET.shared]).all() and (learner.theta[NET.shared :] == head).all()
    assert not learner.first[: NET.shared].any() and not learner.second[: NET.shared].any()
    assert (learner.first[NET.shared :] == first[NET.shared :]).all() and first[NET.shared :].any()
    assert (learner.second[NET.shared :] == second[NET.shared :]).all()
    assert (learner.target == learner.theta).all()
    assert learner.multiplier == 0.7 and learner.memory.count == remembered


def test_who_never_learned_begins_with_the_head_of_the_base_too() -> None:
    node, base = Node(fresh=True), vector(9)
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    assert (node.learner.theta == base).all()


def test_a_base_without_a_head_is_enough() -> None:
    node = Node(fresh=True)
    head, base = node.learner.theta[NET.shared :].copy(), vector(9, NET.shared)
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    assert (node.learner.theta[: NET.shared] == base).all() and (node.learner.theta[NET.shared :] == head).all()


def test_the_first_step_after_a_pull_is_as_long_as_adams_first_step_is() -> None:
    learner = Node().learner
    pull(learner, vector(9, NET.shared))
    before = learner.theta.copy()
    learn(learner, np.random.default_rng(5))
    moved = np.abs(learner.theta - before)[: NET.shared]
    assert moved.max() == pytest.approx(SETTINGS.rate, rel=1e-2)  # and not 3.2 times that, as with the head's count


def test_parts_that_were_and_were_not_pulled_follow_adam_each_with_its_own_count() -> None:
    learner = Node().learner
    pull(learner, vector(9, NET.shared))
    theta, first, second = learner.theta.astype(float), learner.first.astype(float), learner.second.astype(float)
    began = learner.steps
    rng = np.random.default_rng(5)
    for step in range(1, 6):
        learn(learner, rng)
        gradient = learner._work.flat.astype(float)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        count = np.where(np.arange(NET.size) < NET.shared, step, began + step)
        rate = SETTINGS.rate * np.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        theta = theta - rate * first / (np.sqrt(second) + 1e-8)
        assert np.allclose(learner.theta, theta, rtol=1e-4, atol=1e-5)


# --- a round --------------------------------------------------------------------------------------------


def test_a_round_ends_in_one_signed_update_of_the_shared_part_alone() -> None:
    node, base = Node(), vector(9)
    node.trainer.note(2.0, 0.5)
    node.trainer.note(4.0, 0.1)
    update = node.learn(asked(base=base), base)
    assert update is not None
    assert signer(update, {"press-4": public_key(KEY.public)}) == "press-4"
    delta = delta_of(update)
    assert np.allclose(delta, node.learner.theta[: NET.shared] - base[: NET.shared], atol=1e-6) and delta.any()
    head = update.head
    assert (head.model, head.round, head.base, head.codec) == ("cell", 1, asked(base=base).base.sha256, "float32")
    assert (head.samples, head.steps, head.mean_return, head.mean_cost) == (60, 30, 3.0, pytest.approx(0.3))
    assert node.trainer.learned_round == 1 and node.trainer.training is None
    assert node.trainer.work(10, NOW) is None


def test_training_is_done_in_slices_that_change_nothing_of_it() -> None:
    base = vector(9)
    updates = [Node().learn(asked(base=base), base, by=by) for by in (1, 7, 1_000)]
    assert len({delta_of(one).tobytes() for one in updates if one}) == 1 and all(updates)
    node = Node()
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    before = node.learner.steps
    node.trainer.work(7, NOW)
    assert node.learner.steps == before + 7 and node.trainer.left == 23


def test_fedprox_stays_nearer_to_the_base() -> None:
    base = vector(9)
    free, held = (Node().learn(asked(base=base, mu=mu), base) for mu in (0.0, 5.0))
    assert free and held
    assert np.linalg.norm(delta_of(held)) < np.linalg.norm(delta_of(free))


def test_an_update_is_on_the_disk_before_it_is_handed_out() -> None:
    node, base = Node(), vector(9)

    def full(update: Update) -> None:
        raise OSError("disk full")

    node.trainer._keep = full
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    with pytest.raises(OSError, match="full"):
        node.trainer.work(1_000, NOW)
    assert node.trainer.sent is None


def test_a_newer_round_abandons_the_one_being_learned_and_begins_with_its_own_base() -> None:
    node, old, new = Node(), vector(9), vector(10)
    node.trainer.on_round(asked(1, base=old), old.tobytes(), NOW)
    node.trainer.work(7, NOW)
    update = node.learn(asked(2, base=new), new)
    assert update and update.head.round == 2
    assert np.allclose(delta_of(update), node.learner.theta[: NET.shared] - new[: NET.shared], atol=1e-6)
    assert len(node.kept) == 1


def test_a_round_that_is_said_again_while_it_is_learned_changes_nothing() -> None:
    node, base = Node(), vector(9)
    one = asked(base=base)
    node.trainer.on_round(one, base.tobytes(), NOW)
    node.trainer.work(7, NOW)
    assert not node.trainer.wants(one, NOW)
    assert node.trainer.on_round(one, None, NOW) is None and node.trainer.left == 23


def test_a_restart_begins_the_open_round_again_or_sends_the_very_update_it_had() -> None:
    base = vector(9)
    one = asked(base=base)
    before = Node()
    before.trainer.on_round(one, base.tobytes(), NOW)
    before.trainer.work(7, NOW)
    again = Node(sent=None).learn(one, base)
    assert again
    after = Node(transitions=100, sent=again)
    assert after.trainer.on_round(one, base.tobytes(), NOW) is again
    assert after.trainer.training is None and not after.kept
    other = vector(10)
    assert after.trainer.on_round(asked(base=other), other.tobytes(), NOW) is None  # never two for one round
    assert after.learn(asked(2, base=other), other)


def test_a_closed_round_ends_the_training_for_it_and_keeps_what_was_learned() -> None:
    node, base = Node(), vector(9)
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    node.trainer.work(7, NOW)
    theta = node.learner.theta.copy()
    node.trainer.on_round(asked(base=base, closed=Closed(at=NOW)), None, NOW)
    assert node.trainer.training is None and (node.learner.theta == theta).all()
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)  # an old word, repeated
    assert node.trainer.training is None


@pytest.mark.parametrize("case", ["over", "older", "other model"])
def test_rounds_that_are_not_to_be_learned_are_left_alone(case: str) -> None:
    node, base = Node(), vector(9)
    if case == "older":
        node.learn(asked(5, base=base), base)
    theta = node.learner.theta.copy()
    one = asked(4, base=vector(10), model="other" if case == "other model" else "cell")
    later = NOW + 101 * SECOND if case == "over" else NOW
    assert not node.trainer.wants(one, later)
    assert node.trainer.on_round(one, None, later) is None
    assert node.trainer.training is None and (node.learner.theta == theta).all()


def test_a_cell_that_has_shown_less_than_a_batch_waits_until_there_is_one() -> None:
    node, base = Node(transitions=SETTINGS.batch - 1, fresh=True), vector(9)
    assert node.learn(asked(base=base), base) is None and node.trainer.left == 30
    lived(node.learner, 1)
    assert node.trainer.work(1_000, NOW)


def test_a_cell_with_less_experience_than_the_round_asks_for_waits_and_then_answers() -> None:
    node, base = Node(transitions=99), vector(1)
    node.trainer.on_round(asked(base=base, experience=100), base.tobytes(), NOW)
    assert node.trainer.left and not node.trainer.busy
    assert node.trainer.work(1_000, NOW) is None and (node.learner.theta[: NET.shared] == base[: NET.shared]).all()
    lived(node.learner, 1)
    assert node.trainer.busy
    update = node.trainer.work(1_000, NOW)
    assert update is not None and update.head.samples == 100 and not node.trainer.busy


def test_a_node_that_keeps_less_than_a_round_asks_for_is_told_what_to_set() -> None:
    node, base = Node(), vector(1)
    with pytest.raises(BadMessage, match="raise `remembered`"):
        node.trainer.on_round(asked(base=base, experience=201), base.tobytes(), NOW)
    assert not node.trainer.left


def test_a_round_without_steps_is_answered_with_no_change() -> None:
    node, base = Node(transitions=0, fresh=True), vector(9)
    update = node.learn(asked(base=base, steps=0), base)
    assert update and not delta_of(update).any() and update.head.samples == 1


def test_learning_that_ends_in_no_numbers_is_not_sent_and_taken_back() -> None:
    node, base = Node(), vector(9)
    node.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    began = node.learner.theta.copy()
    node.trainer.work(7, NOW)
    remember(node.learner, np.full(4, np.nan, np.float32), 0, 0.0, 0.0, np.zeros(4, np.float32))
    node.learner.memory.states[:] = np.nan
    assert node.trainer.work(1_000, NOW) is None
    assert node.trainer.failed == 1 and not node.kept and node.trainer.training is None
    assert (node.learner.theta == began).all() and np.isfinite(node.learner.second).all()


@pytest.mark.parametrize(
    ("facts", "base", "why"),
    [
        ({"network": Network(inputs=4, hidden=(8,), outputs=3)}, vector(9), "learns another one"),
        ({"base": Artefact.of(b"other")}, vector(9), "not its base"),
        ({}, vector(9, 7), "28 bytes"),
        ({"shared": NET.size + 1}, vector(9), "shared"),
        ({}, np.full(NET.size, np.nan, np.float32), "numbers that are none"),
    ],
)
def test_a_round_that_does_not_fit_is_refused_and_changes_nothing(
    facts: dict[str, object], base: np.ndarray, why: str
) -> None:
    node = Node()
    theta = node.learner.theta.copy()
    with pytest.raises(BadMessage, match=why):
        node.trainer.on_round(asked(base=base).model_copy(update=facts), base.tobytes(), NOW)
    assert (node.learner.theta == theta).all() and node.trainer.training is None


# --- checkpoint -----------------------------------------------------------------------------------------


def same(a: Learner, b: Learner) -> bool:
    return (
        all((getattr(a, name) == getattr(b, name)).all() for name in ("theta", "target", "first", "second"))
        and all(
            (getattr(a.memory, name)[: len(a.memory)] == getattr(b.memory, name)[: len(b.memory)]).all()
            for name in ("states", "after", "actions", "rewards", "costs")
        )
        and (a.steps, a.multiplier, a.memory.count, a.body_steps, a.head_steps)
        == (b.steps, b.multiplier, b.memory.count, b.body_steps, b.head_steps)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 450), st.integers(0, 2**31))
def test_what_is_read_again_learns_on_exactly_as_if_nothing_had_been(transitions: int, seed: int) -> None:
    learner = lived(Learner.fresh(NET, SETTINGS, np.random.default_rng(seed)), transitions)
    learner.multiplier = 0.25
    pull(learner, vector(seed, NET.shared))
    again = read(written(learner), NET, SETTINGS)
    assert same(learner, again)
    for one in (learner, again):
        rng = np.random.default_rng(1)
        lived(one, 5, seed=seed)
        for _ in range(3):
            learn(one, rng)
    assert same(learner, again)
    assert (values(learner, np.ones(4, np.float32)) == values(again, np.ones(4, np.float32))).all()


@pytest.mark.parametrize(("transitions", "size"), [(150, 120), (330, 120), (330, 300), (10, 120)])
def test_another_size_of_memory_keeps_the_newest(transitions: int, size: int) -> None:
    learner = Learner.fresh(NET, SETTINGS, np.random.default_rng(1))
    for k in range(transitions):
        remember(learner, np.zeros(4, np.float32), 0, float(k), 0.0, np.zeros(4, np.float32))
    again = read(written(learner), NET, SETTINGS.model_copy(update={"remembered": size}))
    room = len(again.memory.actions)
    kept = sorted(again.memory.rewards[: len(again.memory)].tolist())
    assert kept == [float(k) for k in range(transitions)][-min(room, SETTINGS.remembered) :]
    remember(again, np.zeros(4, np.float32), 0, 1e6, 0.0, np.zeros(4, np.float32))
    left = sorted(again.memory.rewards[: len(again.memory)].tolist())
    assert left == [*kept, 1e6][-room:]  # it is the oldest that goes


def test_no_byte_of_a_checkpoint_can_be_broken_unnoticed() -> None:
    small = Network(inputs=1, hidden=(2,), outputs=1)
    learner = Learner.fresh(small, SETTINGS, np.random.default_rng(1))
    remember(learner, np.ones(1, np.float32), 0, 1.0, 1.0, np.ones(1, np.float32))
    data = written(learner)
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        try:
            assert same(read(bytes(spoilt), small, SETTINGS), learner)  # JSON's blanks mean nothing
        except BadMessage as error:
            assert "learning begins anew" in str(error)
    with pytest.raises(BadMessage, match="another network"):
        read(data, NET, SETTINGS)


class PowerCut(Exception):
    pass


class Fragile(Files):
    """The power fails before this step."""

    fails_at = ""

    def _step(self, name: str) -> None:
        if name == self.fails_at:
            raise PowerCut

    def write(self, name: str, data: bytes) -> None:
        self._step("write")
        super().write(name, data[: len(data) // 2] if self.fails_at == "torn" else data)
        self._step("torn")

    def sync(self, name: str) -> None:
        self._step("sync")
        super().sync(name)

    def rename(self, name: str, to: str) -> None:
        self._step("rename")
        super().rename(name, to)

    def sync_folder(self) -> None:
        self._step("sync_folder")
        super().sync_folder()


@pytest.mark.parametrize("step", ["write", "torn", "sync", "rename", "sync_folder"])
def test_a_power_cut_while_writing_leaves_the_old_or_the_new_one_whole(tmp_path: Path, step: str) -> None:
    old, new = (lived(Learner.fresh(NET, SETTINGS, np.random.default_rng(seed)), 30, seed) for seed in (1, 2))
    files = Fragile(tmp_path)
    Checkpoint(files).keep(old)
    files.fails_at = step
    with pytest.raises(PowerCut):
        Checkpoint(files).keep(new)
    found, why = Checkpoint(Files(tmp_path)).load(NET, SETTINGS)
    assert found is not None and not why
    assert same(found, old) or same(found, new)


def test_what_is_not_there_or_broken_is_said_and_learning_can_begin_anew(tmp_path: Path) -> None:
    kept = Checkpoint(Files(tmp_path))
    assert kept.load(NET, SETTINGS) == (None, "nothing is kept") and kept.update() is None
    (tmp_path / LEARNER).write_bytes(b"\xff" * 100)
    found, why = kept.load(NET, SETTINGS)
    assert found is None and "broken" in why


def test_the_update_of_a_round_is_sent_again_from_the_disk_byte_for_byte(tmp_path: Path) -> None:
    kept, base = Checkpoint(Files(tmp_path)), vector(9)
    node = Node()
    node.trainer._keep = kept.keep_update
    update = node.learn(asked(base=base), base)
    after = Node(sent=kept.update())
    again = after.trainer.on_round(asked(base=base), base.tobytes(), NOW)
    assert update and again and again.encode() == update.encode()
