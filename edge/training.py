"""A node's side of a round: begin where the others are, learn from what the own cell did, say once what changed.

    trainer = Trainer("cell", learner, key, name="press-4", rng=rng, keep=kept.keep_update, sent=kept.update())
    again = trainer.on_round(asked, base, now)     # a Round whose envelope was verified, and the bytes of its base
    trainer.note(reward, carbon)                   # what the cell did, for the report of the round
    update = trainer.work(20, now)                 # 20 optimiser steps at most, so that deciding is not kept waiting

What happens on a pull: the shared part of theta becomes the base's; a head that is not shared stays the node's own, and
so do Adam's moments of it. Those of the shared part begin at zero, with a bias correction of their own (they were of
another point). The target network becomes what theta then is. Multiplier and replay are the cell's own and stay. Who
never learned a step takes all of the base, also where only bodies are shared: first updates begin alike, and can be
compared (`cloud.probe`).

A newer round while training: what was learned in this one is abandoned, the new one begins with its base. A round that
was closed: training for it ends, what was learned stays until the next pull. A restart begins the open round again,
unless its update is on the disk already: that one is sent again. An update is on the disk (`keep`) before it is handed
out, so that a node never sends two different ones for a round. Parameters that are no numbers are never sent: the
learner goes back to what it was when the round began, and waits for the next one. FedProx (Li et al., 2020,
arXiv:1812.06127): `training.mu` pulls towards the base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.layers import F32
from edge.learner import Learner, learn, pull
from messages.errors import BadMessage
from messages.learning import Artefact, Round, Update, UpdateHead
from messages.signing import SigningKey
from messages.updates import signed


@dataclass
class _Course:
    """A round that is being learned."""

    asked: Round
    anchor: F32
    """the shared part of the base"""
    before: F32
    """theta when it began, (P,)"""
    left: int
    """optimiser steps"""


class Trainer:
    """The rounds of one model on one node."""

    def __init__(
        self,
        model: str,
        learner: Learner,
        key: SigningKey,
        *,
        name: str,
        rng: np.random.Generator,
        keep: Callable[[Update], None],
        sent: Update | None = None,
    ) -> None:
        self.model = model
        self.learner = learner
        self.name = name
        self.sent = sent if sent is not None and sent.head.model == model else None
        """the last update handed out"""
        self.failed = 0
        """rounds in which learning ended in numbers that are none"""
        self._key = key
        self._rng = rng
        self._keep = keep
        self._course: _Course | None = None
        self._newest = self.sent.head.round if self.sent else 0
        self._decisions, self._reward, self._cost = 0, 0.0, 0.0

    @property
    def training(self) -> Round | None:
        """The round that is being learned now."""
        return self._course.asked if self._course else None

    @property
    def left(self) -> int:
        """Optimiser steps until its update."""
        return self._course.left if self._course else 0

    @property
    def able(self) -> bool:
        """Has the cell shown enough to make a step?"""
        return len(self.learner.memory) >= self.learner.settings.batch

    @property
    def busy(self) -> bool:
        """Is there a step of its round to make, and as much experience as that asks for?"""
        course, known = self._course, len(self.learner.memory)
        return course is not None and course.left > 0 and self.able and known >= course.asked.experience

    @property
    def learned_round(self) -> int | None:
        """The last round there is an update for."""
        return self.sent.head.round if self.sent else None

    def wants(self, asked: Round, now: int) -> bool:
        """Would `on_round` begin to learn, so that the base must be gathered?"""
        return (
            asked.model == self.model and asked.closed is None and now <= asked.deadline and asked.round > self._newest
        )

    def on_round(self, asked: Round, base: bytes | None, now: int) -> Update | None:
        """A round was opened, closed, or said again. Returns an update that has to be sent again.

        `base` may be absent where `wants` says no. BadMessage: this node cannot take part, and why.
        """
        if asked.model != self.model or asked.round < self._newest:
            return None
        if asked.closed is not None:
            if self._course is not None:
                self._course = None
                self._newest = asked.round
            return None
        if self.sent is not None and self.sent.head.round == asked.round and now <= asked.deadline:
            return self.sent if self.sent.head.base == asked.base.sha256 else None
        if not self.wants(asked, now):
            return None
        vector = self._vector(asked, base)
        self._newest = asked.round
        anchor = vector[: asked.shared]
        pull(self.learner, vector if len(vector) == self.learner.network.size and not self.learner.steps else anchor)
        self._course = _Course(asked, anchor, self.learner.theta.copy(), asked.training.steps)
        return None

    def note(self, reward: float, cost: float) -> None:
        """One decision's outcome: the means since the last update go into the next one's head."""
        self._decisions += 1
        self._reward += reward
        self._cost += cost

    def work(self, steps: int, now: int) -> Update | None:
        """At most `steps` optimiser steps; the update, once, when they are all done.

        Nothing is done while the cell has shown less than a batch or than the round asks for, or when none is open.
        """
        course, learner = self._course, self.learner
        if course is None:
            return None
        if self.busy:
            for _ in range(min(steps, course.left)):
                learn(learner, self._rng, anchor=course.anchor, mu=course.asked.training.mu)
                course.left -= 1
        return None if course.left else self._done(course, now)

    def _done(self, course: _Course, now: int) -> Update | None:
        learner, asked = self.learner, course.asked
        delta = learner.theta[: asked.shared] - course.anchor
        if not (np.isfinite(learner.theta).all() and np.isfinite(learner.second).all()):
            self.failed += 1
            self._course = None
            pull(learner, course.before)
            return None
        head = UpdateHead(
            model=self.model,
            round=asked.round,
            base=asked.base.sha256,
            at=now,
            codec=asked.codec,
            samples=max(1, len(learner.memory)),
            steps=asked.training.steps,
            mean_return=self._reward / self._decisions if self._decisions else None,
            mean_cost=self._cost / self._decisions if self._decisions else None,
        )
        update = signed(head, delta, self._key, name=self.name)
        self._keep(update)  # on a full disk it is tried again
        self._course = None
        self.sent = update
        self._decisions, self._reward, self._cost = 0, 0.0, 0.0
        return update

    def _vector(self, asked: Round, base: bytes | None) -> F32:
        """The base, checked; BadMessage says what does not fit."""
        if asked.network != self.learner.network:
            raise BadMessage(f"round {asked.round}: of a network {asked.network.hidden}; this node learns another one")
        if base is None or Artefact.of(base) != asked.base:
            raise BadMessage(f"round {asked.round}: these bytes are not its base")
        if asked.experience > self.learner.settings.remembered:
            raise BadMessage(
                f"round {asked.round}: asks for {asked.experience} transitions, this node keeps "
                f"{self.learner.settings.remembered}; raise `remembered` in its [learning.learner]"
            )
        if asked.shared > self.learner.network.size or len(base) not in (
            4 * asked.shared,
            4 * self.learner.network.size,
        ):
            raise BadMessage(f"round {asked.round}: a base of {len(base)} bytes for {asked.shared} shared parameters")
        vector = np.frombuffer(base, "<f4").astype(np.float32)
        if not np.isfinite(vector).all():
            raise BadMessage(f"round {asked.round}: its base has numbers that are none")
        return vector
