"""Cells that learn together in one process: the product's own learner, trainer, gate and rounds, without a bus.

    member = Member.of("cell-3", cell_of(3, 0.3), seed=7, number=3, settings=learner, start=vector, price=1.0)
    member.live(DAY, explore=0.1)                       # decides, is paid, remembers
    member.judged(member.learner, days=8)                  # greedily, on days that nobody learns from
    with Federation.of(settings, members, start=vector) as federation:
        federation.round(learn, members)                   # learn(member, asked) -> what it sends

All chance comes from a seed and a number: what happens to a cell, what it explores, which transitions are drawn. It is
the same whatever is learned, so that ways to learn are compared in pairs. A round's clock is invented; nothing waits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.learning_settings import RoundSettings
from cloud.roundbook import RoundBook
from cloud.rounds import Rounds
from edge.adaptation import adapted
from edge.learner import Learner, act, learn, pull, remember, values
from edge.learning import LearnerSettings, LearningSettings
from edge.training import Trainer
from firmware_sim.cell import DAY, Cell, CellSpec
from messages.cells import HIGH, INTERFACE, NETWORK
from messages.clock import SECOND
from messages.errors import BrokenInvariant
from messages.learning import Round, Update
from messages.signing import SigningKey, public_key

F32 = NDArray[np.float32]

SCALE = np.array(HIGH, np.float32)
ADAPT_STEPS, ADAPT_HALF = (LearningSettings.model_fields[name].default for name in ("adapt_steps", "adapt_half"))
_LIFE, _EXPLORE, _LEARN, _JUDGED = 1, 2, 3, 99
"""What a seed is used for, so that no two uses share their chance."""


@dataclass
class Member:
    """One cell and what decides for it."""

    name: str
    number: int
    spec: CellSpec
    seed: int
    cell: Cell
    learner: Learner
    explores: np.random.Generator
    learns: np.random.Generator
    key: SigningKey
    trainer: Trainer

    @classmethod
    def of(
        cls,
        name: str,
        spec: CellSpec,
        *,
        seed: int,
        number: int,
        settings: LearnerSettings,
        start: F32,
        price: float,
    ) -> Member:
        """Begins with `start`, (P,), as the others do. `price` of a kg: the multiplier, which does not move."""
        learns = np.random.default_rng((seed, number, _LEARN))
        learner = Learner.fresh(NETWORK, settings, learns)
        pull(learner, start)
        learner.multiplier = price
        key = SigningKey.from_seed(number.to_bytes(32, "big"))
        return cls(
            name,
            number,
            spec,
            seed,
            Cell(spec, np.random.default_rng((seed, number, _LIFE))),
            learner,
            np.random.default_rng((seed, number, _EXPLORE)),
            learns,
            key,
            Trainer("cell", learner, key, name=name, rng=learns, keep=lambda update: None),
        )

    def live(self, decisions: int, *, explore: float, by: Learner | None = None) -> tuple[float, float]:
        """Decide so often and remember what came of it: (money, kg). `by`: another learner that decides."""
        learner, cell, rng = self.learner, self.cell, self.explores
        decides = by or learner
        money, emitted = 0.0, 0.0
        state = cell.state / SCALE
        for _ in range(decisions):
            action = act(decides, state, explore, rng)
            reward, carbon = cell.step(action)
            after = cell.state / SCALE
            remember(learner, state, action, reward, carbon, after)
            self.trainer.note(reward, carbon)
            money, emitted = money + reward, emitted + carbon
            state = after
        return money, emitted

    @property
    def apart(self) -> np.random.Generator:
        """Chance for what is only tried: it takes none from what comes after."""
        return np.random.default_rng((self.seed, self.number, _JUDGED, 1))

    def copy(self) -> Learner:
        """What it knows, to try something with; the memory is shared."""
        learner = self.learner
        return replace(
            learner,
            theta=learner.theta.copy(),
            target=learner.target.copy(),
            first=learner.first.copy(),
            second=learner.second.copy(),
        )

    def adapted(self, base: F32, *, steps: int = ADAPT_STEPS, half: int = ADAPT_HALF) -> Learner:
        """What it decides by after taking up this version, (P,), or a body alone: what the product makes of it."""
        learner = self.copy()
        learner.theta[:] = adapted(self.learner, base, self.apart, steps=steps, half=half)
        return learner

    def tuned(self, base: F32, steps: int) -> Learner:
        """What it decides by when it takes over everything and learns so many steps alone."""
        learner, rng = self.copy(), self.apart
        pull(learner, base)
        for _ in range(steps):
            learn(learner, rng)
        return settled(learner) if steps else learner

    def judged(self, learner: Learner, days: int) -> tuple[float, float]:
        """Money and kg a day, decided greedily, on days nobody learns from; the same days for whatever decides."""
        cell = Cell(self.spec, np.random.default_rng((self.seed, self.number, _JUDGED)), days=days)
        money, emitted = 0.0, 0.0
        for _ in range(days * DAY):
            reward, carbon = cell.step(int(values(learner, cell.state / SCALE).argmax()))
            money, emitted = money + reward, emitted + carbon
        return money / days, emitted / days


def settled(learner: Learner) -> Learner:
    """It decides by its target network from now on: the running mean of its parameters, without their last noise."""
    learner.theta[:] = learner.target
    return learner


class Federation:
    """The cloud's side of learning together: rounds, opened and closed as the members have answered."""

    def __init__(self, rounds: Rounds, names: Sequence[str]) -> None:
        """Use `of`."""
        self.rounds = rounds
        self._names = list(names)

    @classmethod
    @contextmanager
    def of(cls, settings: RoundSettings, members: Sequence[Member], *, start: F32) -> Iterator[Federation]:
        """Its book is in a temporary folder for as long as this is entered."""
        keys = {one.name: public_key(one.key.public) for one in members}
        with tempfile.TemporaryDirectory() as folder:
            book = RoundBook(Path(folder) / "rounds.db")
            try:
                rounds = Rounds(settings, book, keys=keys, register=lambda candidate: candidate.round)
                rounds.rebase(start, version=0)
                yield cls(rounds, [one.name for one in members])
            finally:
                book.close()

    @property
    def base(self) -> F32:
        """What was learned together so far, (P,)."""
        return self.rounds.base

    def open(self) -> Round:
        """The next round."""
        number = self.rounds.current.round + 1 if self.rounds.current else 1
        return self.rounds.open(number * 1_000 * SECOND, network=NETWORK, interface=INTERFACE, expected=self._names)

    def close(self, updates: Mapping[str, Update]) -> Round:
        """What the members sent, taken in; the round, closed."""
        asked = self.rounds.current
        if asked is None:
            raise BrokenInvariant("no round is open")
        self.rounds.on_updates([(name, asked.round, one) for name, one in updates.items()], asked.opened_at + SECOND)
        done = self.rounds.on_time(asked.deadline)
        if done is None:
            raise BrokenInvariant(f"round {asked.round} did not close at its deadline")
        return done

    def round(self, learn: Callable[[Member, Round], Update], members: Sequence[Member]) -> Round:
        """One round: every member begins with the base, does as `learn` says, and what it sends is taken in."""
        asked = self.open()
        base = self.rounds.base_bytes
        for one in members:
            one.trainer.on_round(asked, base, asked.opened_at)
        return self.close({one.name: learn(one, asked) for one in members})
