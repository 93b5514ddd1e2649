"""What may take its time: learning, checkpoints, and what is released. For one worker thread, beside who decides.

    worker = LearningWorker(models, {"cell": learner}, now_s=time.monotonic)
    said = worker.on_round(envelope, payload, now)      # whose signature was looked at
    said = worker.on_release("cell", payload, now)
    said = worker.on_part(digest, part, data, now)      # of one of `said.wanted`
    worker.note("cell", transitions)                    # from any thread
    said = worker.work(20, now)                         # said.busy: there is more to do at once

Everything but `note` is called by one thread at a time, and returns what has to be said: reports and updates. Nothing
here decides, so a slow disk or a long round delays no decision; slices are short, so that releases need not wait for a
round. A round's counter never goes back, also not over a restart: the newest round is on the disk before it is obeyed.
What a cell did is remembered when the next slice begins, never in the middle of one.

Bounds: `INBOX` transitions per model wait (then the oldest go, counted), one round per model, its base while it comes
(at most `MAX_ARTEFACT`), and what `edge.models` bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edge.adaptation import Adaptation
from edge.agent import Transition
from edge.checkpoint import Checkpoint
from edge.files import Files
from edge.gathering import Gathering
from edge.learner import dual, remember
from edge.learning import LearningSettings
from edge.models import Models
from edge.policy import F32
from edge.training import Trainer
from messages.cells import INTERFACE
from messages.contracts import Envelope
from messages.errors import BadMessage
from messages.learning import Artefact, ModelReport, Release, Round, Update
from messages.logs import get_logger
from messages.updates import CODECS

INBOX = 4_096
ROUND = "round.json"
"""The newest round that was obeyed, as it came."""

log = get_logger("edge")


@dataclass(frozen=True)
class Said:
    """What has to go out, and whether there is more to do."""

    reports: tuple[ModelReport, ...] = ()
    updates: tuple[Update, ...] = ()
    wanted: tuple[Artefact, ...] = ()
    """artefacts whose parts should be subscribed to, now"""
    busy: bool = False


class ModelLearner:
    """The learner of one model on this node, and its files."""

    def __init__(
        self,
        files: Files,
        checkpoint: Checkpoint,
        trainer: Trainer,
        *,
        rng: np.random.Generator,
        settings: LearningSettings,
    ) -> None:
        self.trainer = trainer
        self.rounds = 0
        """updates made"""
        self.lost = 0
        """transitions that waited too long"""
        self.waiting: Round | None = None
        """a round whose base is on its way"""
        self._files, self._checkpoint, self._rng = files, checkpoint, rng
        self._settings = settings
        self._inbox: deque[Transition] = deque(maxlen=INBOX)
        """whoever learns takes from it alone, so what was counted there is there"""
        self._kept_s, self._kept = -1e18, self._state
        newest = files.get(ROUND)
        self._newest = newest or b""
        self._counter = _counter(newest)

    def note(self, transitions: Iterable[Transition]) -> None:
        """What the cell did; from the thread that decides."""
        came = list(transitions)
        self.lost += max(0, len(self._inbox) + len(came) - INBOX)
        self._inbox.extend(came)

    def is_new(self, envelope: Envelope[Round], payload: bytes) -> bool:
        """Newer than all before, or the newest again; what is new is on the disk when this returns."""
        if envelope.counter < self._counter or (envelope.counter == self._counter and payload != self._newest):
            return False
        if payload != self._newest:
            self._files.put(ROUND, payload)
            self._counter, self._newest = envelope.counter, payload
        return True

    def remember(self) -> None:
        """What waited."""
        learner = self.trainer.learner
        for _ in range(len(self._inbox)):
            one = self._inbox.popleft()
            remember(learner, one.state, one.action, one.reward, one.cost, one.after)
            dual(learner, one.cost)
            self.trainer.note(one.reward, one.cost)

    def keep(self, now_s: float, *, at_once: bool = False) -> None:
        """A checkpoint, if there is news and the last one is old enough."""
        if self._kept != self._state and (at_once or now_s - self._kept_s >= self._settings.checkpoint_s):
            self._checkpoint.keep(self.trainer.learner)
            self._kept_s, self._kept = now_s, self._state

    def adaptation(self, release: Release, parameters: F32, known: int) -> Adaptation | None:
        """Begin to make a release the cell's own; None if it is not one of ours, or too little is known that was not.

        Twice as many transitions as `known` are wanted, so that a version is adapted a few times, and not for ever.
        """
        learner, settings = self.trainer.learner, self._settings
        network, enough = learner.network, max(learner.settings.batch, 2 * known)
        if release.network != network or release.interface != INTERFACE or not settings.adapt_steps:
            return None
        if release.shared not in (network.shared, network.size) or len(learner.memory) < enough:
            return None
        version = parameters[: release.shared]  # a head beside a body is one that nobody learned
        return Adaptation(learner, version, self._rng, steps=settings.adapt_steps, half=settings.adapt_half)

    @property
    def _state(self) -> tuple[int, int]:
        learner = self.trainer.learner
        return learner.steps, learner.memory.count


@dataclass
class LearningWorker:
    """All models of a node."""

    models: Models
    learners: Mapping[str, ModelLearner]
    now_s: Callable[[], float]
    """monotonic"""
    refused: int = 0
    """rounds that were older than one obeyed, or that this node cannot take part in"""
    _gathering: Gathering = field(default_factory=Gathering)

    def note(self, model: str, transitions: Iterable[Transition]) -> None:
        """What a cell did; from the thread that decides."""
        self.learners[model].note(transitions)

    def on_round(self, envelope: Envelope[Round], payload: bytes, now: int) -> Said:
        """A round was opened, closed, or said again."""
        asked = envelope.body
        learner = self.learners.get(asked.model)
        if learner is None:
            return self._said(now)
        if not learner.is_new(envelope, payload):
            self._refuse(asked, f"its counter {envelope.counter} is not newer than one before")
            return self._said(now)
        if learner.trainer.wants(asked, now):
            return self._begin(learner, asked, now)
        if learner.waiting is not None and (learner.waiting.round < asked.round or asked.closed is not None):
            learner.waiting = None
            self._tidy()
        again = learner.trainer.on_round(asked, None, now)
        return self._said(now, updates=[again] if again is not None else [])

    def on_release(self, model: str, payload: bytes, now: int) -> Said:
        """What came under `down/model/{model}`."""
        self._remember()
        return self._said(now, self.models.on_release(model, payload, now))

    def on_part(self, digest: str, part: int, data: bytes, now: int) -> Said:
        """A part of an artefact that a round or a release names."""
        self._remember()
        reports = self.models.on_part(digest, part, data, now)
        try:
            base = self._gathering.on_part(digest, part, data)
        except BadMessage as error:
            log.warning("edge.base_broken", why=str(error))
            base = None
        if base is not None:
            for learner in self.learners.values():
                asked, learner.waiting = learner.waiting, None if _names(learner.waiting, digest) else learner.waiting
                if asked is not None and _names(asked, digest):
                    self._take_up(learner, asked, base, now)
        return self._said(now, reports)

    def work(self, steps: int, now: int) -> Said:
        """A slice: what waited is remembered, at most `steps` optimiser steps for each model, what is due is kept."""
        self._remember()
        updates = []
        for learner in self.learners.values():
            update = learner.trainer.work(steps, now)
            if update is not None:
                learner.rounds += 1
                updates.append(update)
                log.info("edge.learned", model=learner.trainer.model, round=update.head.round, bytes=len(update.data))
            learner.keep(self.now_s(), at_once=update is not None)
            if learner.waiting is not None and now > learner.waiting.deadline:
                learner.waiting = None
                self._tidy()
        making = self.models.adapting
        self.models.adapt(steps)
        reports = self.models.on_time(now)
        if making and not self.models.adapting:
            log.info("edge.adapted", running=[report.running for report in reports])
        return self._said(now, reports, updates)

    # --- private -----------------------------------------------------------------------------------

    def _begin(self, learner: ModelLearner, asked: Round, now: int) -> Said:
        """The base is gathered first, if the round is one for us."""
        network = learner.trainer.learner.network
        if asked.interface != INTERFACE or asked.network != network:
            return self._refused(asked, "it is of another interface or network than this node learns", now)
        if asked.base.size not in (4 * asked.shared, 4 * network.size):
            return self._refused(asked, f"its base of {asked.base.size} bytes does not fit its network", now)
        if asked.codec not in CODECS:
            return self._refused(
                asked, f"its codec {asked.codec!r} is not known here; there are {', '.join(CODECS)}", now
            )
        learner.waiting = asked
        self._tidy()
        try:
            self._gathering.want(asked.base)
        except BadMessage as error:
            learner.waiting = None
            return self._refused(asked, str(error), now)
        return self._said(now)

    def _take_up(self, learner: ModelLearner, asked: Round, base: bytes, now: int) -> None:
        try:
            learner.trainer.on_round(asked, base, now)
        except BadMessage as error:
            self._refuse(asked, str(error))
        else:
            log.info("edge.round", model=asked.model, round=asked.round, steps=asked.training.steps)

    def _remember(self) -> None:
        for learner in self.learners.values():
            learner.remember()

    def _tidy(self) -> None:
        self._gathering.keep({one.waiting.base.digest for one in self.learners.values() if one.waiting is not None})

    def _refuse(self, asked: Round, why: str) -> None:
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            log.warning("edge.round_refused", model=asked.model, round=asked.round, why=why[:500], refused=self.refused)

    def _refused(self, asked: Round, why: str, now: int) -> Said:
        self._refuse(asked, why)
        return self._said(now)

    def _said(self, now: int, reports: Iterable[ModelReport] = (), updates: Iterable[Update] = ()) -> Said:
        wanted = {one.digest: one for one in (*self._gathering.wanted, *self.models.wanted)}
        busy = any(one.trainer.busy for one in self.learners.values())
        return Said(tuple(reports), tuple(updates), tuple(wanted.values()), busy or self.models.adapting)


def _names(asked: Round | None, digest: str) -> bool:
    return asked is not None and asked.base.digest == digest


def _counter(payload: bytes | None) -> int:
    try:
        return Envelope[Round].decode(payload).counter if payload else -1
    except BadMessage:
        return -1
