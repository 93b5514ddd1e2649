"""A fleet of cells that learn together while some of them attack: the product's own trainer, gate and rounds.

An attacker knows what it wants: it trains like everybody, then changes what it sends (`turned`, `times_100`, …), or
learns from a reward that was turned round. `alie` and `inner_product` know every honest delta and collude.

Rounds open from the first day on; a cell answers from the experience on that the product asks for. What a base is worth
to a cell: a copy of its learner takes it up as the product does, and decides greedily on days that nobody learned from.
One base is worth some percent more or less than the next, so it is the mean of the last `JUDGED` of them. Where all
that is hostile is refused, the bases are the same to the byte whatever the attack: they are judged once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloud.learning_settings import RoundSettings
from edge.learner import LearnerSettings
from firmware_sim.cell import DAY, Cell, cell_of
from messages.cells import NETWORK
from messages.clock import SECOND
from messages.errors import BadMessage
from messages.initial import initial
from messages.learning import Round, Update, UpdateHead
from messages.updates import delta_of, signed
from shoal.experiments.fleet import F32, Federation, Member

CELLS, HOSTILE = 20, 6
LEARNER = LearnerSettings(scale=20.0, remembered=5_000)
EXPLORE, EVALUATED = 0.15, 6
"""Random decisions; days a cell is judged by. It works a day between rounds."""
JUDGED = 5
"""Bases that are judged."""
LATER = 5
"""Round from which `reward_later` turns what it earns."""

Deltas = np.ndarray
"""(K, P)"""


@dataclass(frozen=True)
class Attack:
    """`delta` of (own, honest deltas, rng); `head`: what it claims. `found`: the gate promises to name it.

    `turned`: its reward is, from this round on.
    """

    delta: Callable[[np.ndarray, Deltas, np.random.Generator], np.ndarray] = lambda own, honest, rng: own
    head: dict[str, int] = field(default_factory=dict)
    replay: bool = False
    turned: int | None = None
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
    "reward": Attack(turned=1),
    # honest first updates, then not: what shows it is what shows any delta that goes against the others
    "reward_later": Attack(turned=LATER, found=False),
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
    """per decision, of the honest cells; NaN where nothing was judged"""
    untrained: float
    """the same of what all began with, taken up alike"""
    named: dict[str, set[str]]
    """hostile node → reasons"""
    accused_honest: list[tuple[int, str]]
    """round, node: left out or quarantined from then on; rounds in a quarantine are counted once"""
    all_quarantined: int | None
    """after this round all hostile nodes were in quarantine"""
    update_bytes: float
    """an honest update's, mean"""
    error: float
    """|delta as the cloud reads it - delta| / |delta| of an honest update, mean"""


class Turned:
    """A cell that says it lost what it earned."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    @property
    def state(self) -> F32:
        """As it is."""
        return self.cell.state

    def step(self, action: int) -> tuple[float, float]:
        """Its money, turned round, and kg."""
        money, emitted = self.cell.step(action)
        return -money, emitted


class Fleet:
    """`attack`: a word of ATTACKS, or None; then nobody is hostile. Everything is drawn from `seed`.

    `known`: what bases are worth, by all that came before them; given to fleets that differ in their attack alone.
    """

    def __init__(
        self,
        settings: RoundSettings,
        *,
        heterogeneity: float,
        seed: int,
        attack: str | None = None,
        cells: int = CELLS,
        known: dict[str, float] | None = None,
    ) -> None:
        self.settings = settings
        self.known = {} if known is None else known
        self.past = hashlib.sha256(f"{seed} {heterogeneity} {cells} {settings}".encode())
        self.attack = ATTACKS[attack] if attack else None
        self.start = initial(NETWORK, np.random.default_rng((seed, 4)))
        self.members = [
            Member.of(
                f"cell-{k}",
                cell_of(seed * 100 + k, heterogeneity),
                seed=seed,
                number=k,
                settings=LEARNER,
                start=self.start,
                price=0.0,
            )
            for k in range(cells)
        ]
        names = [one.name for one in self.members]
        self.hostile = set(names[-HOSTILE:]) if attack else set()
        self.honest = self.members[:-HOSTILE] if cells > HOSTILE else self.members
        """who is judged: the same cells with an attack and without"""
        self.rng = np.random.default_rng((seed, 5))
        self.sent: dict[str, Update] = {}
        self.sizes: list[int] = []
        self.errors: list[float] = []

    def learn(self, rounds: int, *, judged: bool = True) -> Outcome:
        """So many rounds, with a day of work before each."""
        named: dict[str, set[str]] = {}
        accused, all_in, returns = [], None, []
        before: set[str] = set()
        untrained = math.nan
        with Federation.of(self.settings, self.members, start=self.start) as federation:
            for number in range(1, rounds + 1):
                closed = self._round(federation).closed
                assert closed
                self.past.update(federation.rounds.base_bytes)
                for name, why in closed.refused.items():
                    if name in self.hostile:
                        named.setdefault(name, set()).add(why.partition(":")[0])
                for name in self.hostile & set(closed.quarantined):
                    named.setdefault(name, set()).add("quarantined")
                blamed = {*closed.refused, *closed.quarantined} - self.hostile
                accused += [(number, name) for name in sorted(blamed - before)]
                before = blamed
                if all_in is None and self.hostile and self.hostile <= set(closed.quarantined):
                    all_in = number
                if judged and number == 1:
                    untrained = self._worth(self.start)
                if judged and number > rounds - JUDGED:
                    returns.append(self._worth(federation.base))
        return Outcome(
            honest_return=float(np.mean(returns)) if returns else math.nan,
            untrained=untrained,
            named=named,
            accused_honest=accused,
            all_quarantined=all_in,
            update_bytes=float(np.mean(self.sizes)),
            error=float(np.mean(self.errors)),
        )

    def _round(self, federation: Federation) -> Round:
        asked = federation.open()
        base = federation.rounds.base_bytes
        for one in self.members:
            one.trainer.on_round(asked, base, asked.opened_at)
        came = {one.name: self._learned(one, asked, base) for one in self.members}
        updates = {name: update for name, update in came.items() if update is not None}
        good = np.array([delta_of(update) for name, update in updates.items() if name not in self.hostile])
        decoded = []
        for name, update in updates.items():
            number, sent = self._changed(name, update, good) if name in self.hostile else (asked.round, update)
            self.sent[name] = update
            try:
                decoded.append((name, number, Update.decode(sent.encode())))
            except BadMessage as error:
                federation.rounds.on_bad(name, str(error), asked.opened_at)
        federation.rounds.on_updates(decoded, asked.opened_at + SECOND)
        return federation.close({})

    def _learned(self, one: Member, asked: Round, base: bytes) -> Update | None:
        """A day of work and what was learned; None from who has too little experience to answer."""
        since = self.attack.turned if self.attack and one.name in self.hostile else None
        if since is not None and asked.round >= since and not isinstance(one.cell, Turned):
            one.cell = Turned(one.cell)
        one.live(DAY, explore=EXPLORE)
        update = one.trainer.work(one.trainer.left, asked.opened_at)
        if update is not None and one in self.honest:
            learned = one.learner.theta[: asked.shared] - np.frombuffer(base, "<f4")[: asked.shared]
            self.sizes.append(len(update.encode()))
            self.errors.append(float(np.linalg.norm(delta_of(update) - learned) / np.linalg.norm(learned)))
        return update

    def _changed(self, name: str, update: Update, honest: Deltas) -> tuple[int, Update]:
        """The round it is sent for, and what is sent instead."""
        attack, number = self.attack, update.head.round
        assert attack
        if attack.replay and name in self.sent:
            return number, self.sent[name]
        delta = attack.delta(delta_of(update), honest, self.rng)
        claims = update.head.model_dump() | attack.head
        claims["round"] = max(0, number + attack.head.get("round", 0))
        head = UpdateHead.model_construct(**claims)
        key = next(one.key for one in self.members if one.name == name)
        return claims["round"], signed(head, delta.astype(np.float32), key, name=name)

    def _worth(self, base: F32) -> float:
        """Mean return per decision of the honest cells with this base."""
        past = self.past.hexdigest()
        if past not in self.known:
            taken = base if self.settings.whole else base[: NETWORK.shared]
            earned = [one.judged(one.adapted(taken), EVALUATED)[0] / DAY for one in self.honest]
            self.known[past] = float(np.mean(earned))
        return self.known[past]


def mean(values: Sequence[float]) -> float:
    """Of some."""
    return float(np.mean(values))
