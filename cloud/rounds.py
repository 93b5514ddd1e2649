"""Rounds of learning together: a base goes out, updates come in until the deadline, together they make a version.

    rounds = Rounds(settings, book, keys=keys, register=registry.candidate)
    rounds.rebase(vector, version=0)                        # once; later the book knows
    asked = rounds.open(now, network=…, interface=…, expected=nodes)   # publish it, retained, with `base_bytes`
    verdicts = rounds.on_updates([(node, number, update)], now)   # on the disk when this returns
    closed = rounds.on_time(now)                            # a Round with `closed`, once: publish it, retained

A round closes at its deadline, or when everybody expected has been heard. Fewer than `quorum` good updates: the base
stays. What it comes to (`cloud.round_result`) is given to `register(candidate)`, which returns the number of the
version; after a crash in between it is called again with the very same bytes.

An update of the round before (`late`): with policy `drop` it is refused; with `next` it counts in the next round, its
weight times `discount`, unless the node sends one for that round, too (a stale delta is of an older base: Xie et al.,
2019, arXiv:1903.03934). Older ones are stale, always. The same bytes again get the same answer; other bytes for the
same round are refused and a strike: the first ones count.

Whatever was answered is on the disk: a crash resumes the open round with what came for it. `current` and `base` are
what a retained topic says, to be said again after every reconnect. Bounds: one update per node whose key is known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.gate import Gate, Verdict
from cloud.learning_settings import RoundSettings
from cloud.quarantine import GateState
from cloud.round_result import result_of
from cloud.round_updates import RoundUpdates
from cloud.roundbook import RoundBook, RoundsState
from messages.errors import BrokenInvariant, UsageError
from messages.learning import Artefact, Interface, Round, Update
from messages.network import Network
from messages.updates import Vector


@dataclass(frozen=True)
class Candidate:
    """What a round made. `parent` is the version its base was."""

    model: str
    round: int
    parent: int
    parameters: Vector
    """(P,)"""
    taken: Mapping[str, float]
    at: int
    """when the round closed"""
    network: Network
    interface: Interface
    shared: int


class Rounds:
    """The rounds of one model."""

    def __init__(
        self,
        settings: RoundSettings,
        book: RoundBook,
        *,
        keys: Mapping[str, Ed25519PublicKey],
        register: Callable[[Candidate], int],
        model: str = "cell",
    ) -> None:
        """`keys` may change: a node is known from then on. UsageError if the book is of another model."""
        self.settings, self.model = settings, model
        self._book = book
        self._register = register
        self._gate = Gate(settings.gate, keys)
        self._base = book.base()
        self._updates = RoundUpdates(settings, book, self._gate, book.state())
        if self.current is not None and self.current.model != model:
            raise UsageError(
                f"rounds of {self.current.model!r} were kept here, not of {model!r}: name that model again"
            )
        closing = book.closing()
        if closing is not None:
            self._finish(*closing)
        if self._base is not None and self.current is not None:
            self._updates.resume(self.current, self._base)

    # --- what there is ---

    @property
    def _state(self) -> RoundsState:
        return self._updates.state

    @_state.setter
    def _state(self, state: RoundsState) -> None:
        self._updates.state = state

    @property
    def strangers(self) -> int:
        """Updates from nodes whose key is not known."""
        return self._updates.strangers

    @property
    def current(self) -> Round | None:
        """The open round, or the one closed last."""
        return self._state.current

    @property
    def is_open(self) -> bool:
        """Are updates waited for?"""
        return self._updates.is_open

    @property
    def counter(self) -> int:
        """Of the envelope that `current` goes out in: opening and closing each raise it."""
        return 0 if self.current is None else 2 * self.current.round + int(self.current.closed is not None)

    @property
    def base_version(self) -> int:
        """The version that the base is; 0: there is none yet."""
        return self._state.base_version

    @property
    def parameters(self) -> int:
        """Of the base; 0: there is none yet."""
        return 0 if self._base is None else len(self._base)

    @property
    def base(self) -> Vector:
        """What the next round begins with, (P,)."""
        if self._base is None:
            raise UsageError("no base yet: rounds begin with a version of the model; register one")
        return self._base

    @property
    def base_bytes(self) -> bytes:
        """The same, as the artefact that a round names."""
        return self.base.astype("<f4").tobytes()

    @property
    def waited_for(self) -> set[str]:
        """Nodes that are expected and not yet heard, while a round is open."""
        if not self.is_open:
            return set()
        return set(self._state.expected) - self._updates.final - set(self.quarantined)

    @property
    def quarantined(self) -> list[str]:
        """Whose updates are not taken."""
        return self._state.gate.quarantined

    @property
    def due(self) -> int | None:
        """When `on_time` has something to do, µs."""
        return self.current.deadline if self.current is not None and self.is_open else None

    def evidence(self, node: str) -> list[str]:
        """What is held against a node, oldest first."""
        record = self._state.gate.nodes.get(node)
        return [f"round {one.round}, {one.reason}: {one.text}" for one in record.evidence] if record else []

    # --- what happens ---

    def rebase(self, base: Vector, *, version: int) -> None:
        """Rounds go on from this vector, (P,): the first version, or one that somebody chose. Not in an open round."""
        if self.is_open:
            raise UsageError("a round is open; another base can be set when it is closed")
        self._base = base.astype(np.float32)
        self._state = self._state.model_copy(update={"base_version": version})
        self._book.keep(self._state, base=self._base)

    def passed(self, number: int) -> None:
        """A round of this number was said before, by the cloud whose backup this is: nodes heed higher ones alone."""
        if self.current is None or number > self.current.round:
            self._state = self._state.model_copy(update={"least": max(self._state.least, number + 1)})
            self._book.keep(self._state)

    def open(self, now: int, *, network: Network, interface: Interface, expected: Collection[str] = ()) -> Round:
        """The next round, open from now on. UsageError while one is."""
        if self.is_open:
            raise UsageError(f"round {self.current.round if self.current else 0} is open")
        base, settings = self.base, self.settings
        if len(base) != network.size:
            raise UsageError(f"the base has {len(base)} parameters, the network {network.size}")
        asked = Round(
            model=self.model,
            round=max(self.current.round + 1 if self.current else 1, self._state.least),
            base_version=self._state.base_version,
            base=Artefact.of(self.base_bytes),
            network=network,
            interface=interface,
            shared=network.size if settings.whole else network.shared,
            training=settings.training,
            codec=settings.codec,
            opened_at=now,
            deadline=now + round(settings.deadline_s * 1e6),
            quorum=settings.quorum,
            experience=settings.experience if settings.training.steps else 0,
        )
        self._state = self._state.model_copy(
            update={"current": asked, "previous": self.current, "expected": sorted(expected)}
        )
        self._book.keep(self._state)
        self._updates.begin(asked, base)
        return asked

    def on_updates(self, came: Iterable[tuple[str, int, Update]], now: int) -> list[Verdict]:
        """Updates: node and round as the topic says. What is answered is on the disk when this returns."""
        with self._book.together():
            return [self._updates.on_update(node, number, update, now) for node, number, update in came]

    def on_bad(self, node: str, why: str, now: int) -> None:
        """Bytes that are no update came on the topic of this node. Anybody may have sent them: no strike."""
        self._updates.on_bad(node, why, now)

    def on_time(self, now: int) -> Round | None:
        """The round, closed, if it is time, or nobody is waited for any more; once.

        One that was opened by a clock that was ahead is closed, too: until its time came nobody could take part.
        """
        asked = self.current
        if asked is None or not self.is_open:
            return None
        ahead = now < asked.opened_at - round(self.settings.gate.skew_s * 1e6)
        if not ahead and now < asked.deadline and (self.waited_for or not self._state.expected):
            return None
        return self._closed(asked, now, late=sorted(self.waited_for))

    def dismiss(self, node: str) -> None:
        """Nobody waits for this node in the open round any more."""
        if self.is_open and node in self._state.expected:
            left = [one for one in self._state.expected if one != node]
            self._state = self._state.model_copy(update={"expected": left})
            self._book.keep(self._state)

    def lift(self, node: str) -> None:
        """End a quarantine by hand."""
        self._remember(self._state.gate.lifted(node))

    def put_away(self, node: str, *, why: str) -> None:
        """Quarantine a node by hand, from the close of this round on."""
        self._remember(self._state.gate.put_away(node, round=self.current.round if self.current else 0, why=why))

    # --- inside ---

    def _remember(self, gate: GateState) -> None:
        self._state = self._state.model_copy(update={"gate": gate})
        self._book.keep(self._state)

    def _closed(self, asked: Round, now: int, *, late: list[str]) -> Round:
        result = result_of(
            asked, self.base, self._updates, self._gate, self._state.gate, self.settings, now=now, late=late
        )
        done = asked.model_copy(update={"closed": result.closed})
        state = self._state.model_copy(update={"current": done, "gate": result.gate, "expected": []})
        if result.base is not None:
            self._book.close_with(state, result.base)
        return self._finish(state, result.base)

    def _finish(self, state: RoundsState, base: Vector | None) -> Round:
        """What was made is registered, and the round over. After a crash in between: the very same again."""
        done = state.current
        if done is None or done.closed is None:
            raise BrokenInvariant("a round ends when it is closed")
        if base is not None:
            made = Candidate(
                *(done.model, done.round, done.base_version, base, done.closed.taken, done.closed.at),
                *(done.network, done.interface, done.shared),
            )
            version = self._register(made)
            done = done.model_copy(update={"closed": done.closed.model_copy(update={"version": version})})
            state = state.model_copy(update={"current": done, "base_version": version})
            self._base = base
        self._state = state
        self._book.end(state, base=base)
        self._updates.end(done)
        return done
