"""A fleet of cells that learn together while some of them attack: the product's own trainer, gate and rounds.

An attacker knows what it wants: it trains like everybody, then changes what it sends (`turned`, `times_100`, …), or
learns from a reward that was turned round. `alie` and `inner_product` know every honest delta and collude.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cloud.aggregation import ClippedMean, Strategy
from cloud.roundbook import RoundBook
from cloud.rounds import Rounds, RoundSettings
from edge.learner import LearnerSettings, Mind, act, initial, pull, remember, values
from edge.training import Trainer
from firmware_sim.cell import ACTIONS, DAY, HIGH, METRICS, Cell, cell_of
from messages.errors import BadMessage
from messages.learning import Feature, Interface, Training, Update, UpdateHead
from messages.network import Network
from messages.signing import SigningKey, public_key
from messages.updates import delta_of, signed

CELLS, HOSTILE = 20, 6
NET = Network(inputs=len(METRICS), hidden=(128, 128), outputs=len(ACTIONS))
FACE = Interface(
    features=[Feature(metric=name, low=0, high=high) for name, high in zip(METRICS, HIGH, strict=True)],
    actions=list(ACTIONS),
)
LEARNER = LearnerSettings(scale=20.0, remembered=5_000)
SCALE = np.array(HIGH, np.float32)
SECOND = 1_000_000
EXPLORE, DAYS, EVALUATED = 0.15, 2, 8
"""Random decisions, days a cell works between rounds, days it is judged by."""

Deltas = np.ndarray
"""(K, P)"""


@dataclass(frozen=True)
class Attack:
    """`delta` of (own, honest deltas, rng); `head`: what it claims. `found`: the gate promises to name it."""

    delta: Callable[[np.ndarray, Deltas, np.random.Generator], np.ndarray] = lambda own, honest, rng: own
    head: dict[str, int] = field(default_factory=dict)
    replay: bool = False
    reward: float = 1.0
    found: bool = True


def _with(value: float) -> Callable[[np.ndarray, Deltas, np.random.Generator], np.ndarray]:
    def spoil(own: np.ndarray, honest: Deltas, rng: np.random.Generator) -> np.ndarray:
        found = own.copy()
        found[rng.integers(len(own), size=3)] = value
        return found

    return spoil


ATTACKS = {
    "not_finite": Attack(_with(np.nan)),
    "infinite": Attack(_with(np.inf)),
    "shape": Attack(lambda own, honest, rng: own[:-1]),
    "stale": Attack(head={"round": -2}),
    "replay": Attack(replay=True),
    "samples_1e12": Attack(head={"samples": 10**12}),
    "samples_-30": Attack(head={"samples": -30}),
    "times_100": Attack(lambda own, honest, rng: 100 * own),
    "turned": Attack(lambda own, honest, rng: -own),
    "reward": Attack(reward=-1.0),
    # Baruch et al. (2019): within the honest spread; z for 14 honest and 6 hostile of 20
    "alie": Attack(lambda own, honest, rng: honest.mean(axis=0) - 0.5 * honest.std(axis=0), found=False),
    # Xie et al. (2020): a little against the mean of the honest
    "inner_product": Attack(lambda own, honest, rng: -0.1 * honest.mean(axis=0), found=False),
}
"""Word → attack."""


@dataclass(frozen=True)
class Outcome:
    """What came of some rounds."""

    honest_return: float
    """per decision, of the honest cells on days that nobody learned from"""
    named: dict[str, set[str]]
    """hostile node → reasons"""
    accused_honest: list[tuple[int, str]]
    """round, node: left out or quarantined"""
    all_quarantined: int | None
    """after this round all hostile nodes were in quarantine"""


class Fleet:
    """`attack`: a word of ATTACKS, or None. Everything is drawn from `seed`."""

    def __init__(
        self, *, heterogeneity: float, seed: int, attack: str | None, aggregate: Strategy | None = None
    ) -> None:
        self.attack = ATTACKS[attack] if attack else None
        self.names = [f"cell-{k}" for k in range(CELLS)]
        self.hostile = set(self.names[-HOSTILE:]) if attack else set()
        self.seed = seed
        self.aggregate = aggregate or ClippedMean()
        self.secret = {name: SigningKey.from_seed(k.to_bytes(32, "big")) for k, name in enumerate(self.names)}
        self.specs = {name: cell_of(seed * 100 + k, heterogeneity) for k, name in enumerate(self.names)}
        self.cells, self.trainers, self.rng = {}, {}, {}
        for k, name in enumerate(self.names):
            self.cells[name] = Cell(self.specs[name], np.random.default_rng((seed, k, 1)))
            self.rng[name] = np.random.default_rng((seed, k, 2))
            self.trainers[name] = Trainer(
                "cell",
                Mind.fresh(NET, LEARNER, np.random.default_rng((seed, k, 3))),
                self.secret[name],
                name=name,
                rng=self.rng[name],
                keep=lambda update: None,
            )

    def learn(self, rounds: int, steps: int) -> Outcome:
        """Rounds of so many optimiser steps each."""
        with tempfile.TemporaryDirectory() as folder:
            return self._learn(Path(folder) / "rounds.db", rounds, steps)

    def _learn(self, path: Path, rounds: int, steps: int) -> Outcome:
        settings = RoundSettings(training=Training(steps=steps), aggregate=self.aggregate)
        keys = {name: public_key(key.public) for name, key in self.secret.items()}
        cloud = Rounds(settings, RoundBook(path), keys=keys, register=lambda candidate: candidate.round)
        cloud.rebase(initial(NET, np.random.default_rng((self.seed, 4))), version=0)
        named: dict[str, set[str]] = {}
        accused, all_in = [], None
        before: dict[str, Update] = {}
        for number in range(1, rounds + 1):
            now = number * 1_000 * SECOND
            asked = cloud.open(now, network=NET, interface=FACE, expected=self.names)
            base = cloud.base_bytes
            updates = {name: self._round(name, asked, base, now) for name in self.names}
            honest = np.array([delta_of(one) for name, one in updates.items() if name not in self.hostile])
            for name, update in updates.items():
                sent = self._changed(name, update, honest, before.get(name)) if name in self.hostile else update
                before[name] = update
                try:
                    came = Update.decode(sent.encode())
                except BadMessage as error:
                    cloud.on_bad(name, str(error), now)
                    continue
                topic = asked.round + (self.attack.head.get("round", 0) if self.attack and name in self.hostile else 0)
                cloud.on_updates([(name, max(topic, 0), came)], now + SECOND)
            done = cloud.on_time(asked.deadline)
            assert done and done.closed
            for name, why in done.closed.refused.items():
                if name in self.hostile:
                    named.setdefault(name, set()).add(why.partition(":")[0])
            for name in done.closed.quarantined:
                named.setdefault(name, set()).add("quarantined") if name in self.hostile else None
            accused += [(number, name) for name in {*done.closed.refused, *done.closed.quarantined} - self.hostile]
            if all_in is None and self.hostile and self.hostile <= set(done.closed.quarantined):
                all_in = number
        honest_return = float(
            np.mean([self._judged(name, cloud.base[: NET.shared]) for name in self.names if name not in self.hostile])
        )
        return Outcome(honest_return, named, accused, all_in)

    def _round(self, name: str, asked: object, base: bytes, now: int) -> Update:
        trainer, cell, rng = self.trainers[name], self.cells[name], self.rng[name]
        trainer.on_round(asked, base, now)
        sign = self.attack.reward if self.attack and name in self.hostile else 1.0
        state = cell.state / SCALE
        for _ in range(DAYS * DAY):
            action = act(trainer.mind, state, EXPLORE, rng)
            reward, carbon = cell.step(action)
            after = cell.state / SCALE
            remember(trainer.mind, state, action, sign * reward, carbon, after)
            trainer.note(sign * reward, carbon)
            state = after
        update = trainer.work(asked.training.steps, now)
        assert update
        return update

    def _changed(self, name: str, update: Update, honest: Deltas, before: Update | None) -> Update:
        attack = self.attack
        if attack.replay and before is not None:
            return before
        delta = attack.delta(delta_of(update), honest, self.rng[name])
        claims = update.head.model_dump()
        if "samples" in attack.head:
            claims["samples"] = attack.head["samples"]
        claims["round"] = max(0, claims["round"] + attack.head.get("round", 0))
        head = UpdateHead.model_construct(**claims)
        return signed(head, delta.astype(np.float32), self.secret[name], name=name)

    def _judged(self, name: str, body: np.ndarray) -> float:
        """Mean return per decision with the last base and the own head, deciding greedily."""
        mind = self.trainers[name].mind
        pull(mind, body)
        cell = Cell(self.specs[name], np.random.default_rng((self.seed, 99)), days=EVALUATED)
        total = 0.0
        for _ in range(EVALUATED * DAY):
            total += cell.step(int(values(mind, cell.state / SCALE).argmax()))[0]
        return total / (EVALUATED * DAY)
