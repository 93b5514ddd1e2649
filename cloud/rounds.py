"""Rounds of learning together: a base goes out, updates come in until the deadline, together they make a version.

    rounds = Rounds(settings, book, keys=keys, register=registry.candidate)
    rounds.rebase(vector, version=0)                        # once; later the book knows
    asked = rounds.open(now, network=…, interface=…, expected=nodes)   # publish it, retained, with `base_bytes`
    verdicts = rounds.on_updates([(node, number, update)], now)   # on the disk when this returns
    closed = rounds.on_time(now)                            # a Round with `closed`, once: publish it, retained

A round closes at its deadline, or when everybody expected has been heard. Fewer than `quorum` good updates: the base
stays. Its result is `base + rate · aggregate(deltas)` in the shared part, given to `register(candidate)`, which returns
the number of the version; it is called again for the same round after a crash and then answers the same.

An update of the round before (`late`): with policy `drop` it is refused; with `next` it counts in the next round, its
weight times `discount`, unless the node sends one for that round, too (a stale delta is of an older base: Xie et al.,
2019, arXiv:1903.03934). Older ones are stale, always. The same bytes again get the same answer; other bytes for the
same round are refused and a strike: the first ones count.

Whatever was answered is on the disk: a crash resumes the open round with what came for it. `current` and `base` are
what a retained topic says, to be said again after every reconnect. Bounds: one update per node whose key is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from cloud.aggregation import Aggregator, ClippedMean, Stack, Weights
from cloud.gate import Gate, GateSettings, Sifted, Taken, Verdict
from cloud.probe import Probe
from cloud.quarantine import GateState, Refused
from cloud.roundbook import Arrival, RoundBook
from cloud.rows import Rows
from messages.errors import BrokenInvariant, UsageError
from messages.learning import Artefact, Closed, Interface, Round, Training, Update
from messages.network import Network
from messages.updates import Codec, Vector


class RoundSettings(BaseModel):
    """How rounds go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("cell", description="name of the model that is learned")
    deadline_s: float = Field(300.0, gt=0, description="a round is open for so long, at most")
    quorum: int = Field(2, ge=1, le=10_000, description="good updates that make a version")
    late: Literal["drop", "next"] = Field(
        "next", description="updates of the round before: refused, or taken into the next"
    )
    discount: float = Field(0.5, gt=0, le=1, description="of the weight of a late update")
    training: Training = Training()
    codec: Codec = Field("float16", description="of updates on the wire")
    whole: bool = Field(False, description="learn the head together as well; else every node keeps its own")
    aggregate: Aggregator = ClippedMean()
    rate: float = Field(1.0, gt=0, le=10, description="the aggregate is multiplied by it")
    gate: GateSettings = GateSettings()


@dataclass(frozen=True)
class Candidate:
    """What a round made. `parent` is the version its base was."""

    model: str
    round: int
    parent: int
    parameters: Vector
    """(P,)"""
    taken: Mapping[str, float]


@dataclass(frozen=True)
class _Heard:
    """A node's update for the open round, or what was wrong with it."""

    digest: str
    verdict: Verdict
    late: bool = False
    changed: Refused | None = None
    """it sent another one afterwards"""

    @property
    def final(self) -> bool:
        """Is this the node's own word for the round, so that nothing else of it counts?"""
        return not self.late and (isinstance(self.verdict, Taken) or self.verdict.strike)


class Rounds:
    """The rounds of one model."""

    def __init__(
        self,
        settings: RoundSettings,
        book: RoundBook,
        *,
        keys: Mapping[str, Ed25519PublicKey],
        register: Callable[[Candidate], int],
    ) -> None:
        self.settings = settings
        self._book = book
        self._register = register
        self._gate = Gate(settings.gate, keys)
        self._state = book.state()
        self._base = book.base()
        self._heard: dict[str, _Heard] = {}
        """of the open round; between rounds: late ones, for the next"""
        self._rows = Rows(self.current.shared if self.current else 0)
        """their deltas"""
        self._probe: Probe | None = None
        self.strangers = 0
        """updates from nodes whose key is not known"""
        if self._base is not None and self.current is not None:
            self._resume()

    # --- what there is ---

    @property
    def current(self) -> Round | None:
        """The open round, or the one closed last."""
        return self._state.current

    @property
    def is_open(self) -> bool:
        """Are updates waited for?"""
        return self.current is not None and self.current.closed is None

    @property
    def counter(self) -> int:
        """Of the envelope that `current` goes out in: opening and closing each raise it."""
        return 0 if self.current is None else 2 * self.current.round + int(self.current.closed is not None)

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

    def open(self, now: int, *, network: Network, interface: Interface, expected: Collection[str] = ()) -> Round:
        """The next round, open from now on. UsageError while one is."""
        if self.is_open:
            raise UsageError(f"round {self.current.round if self.current else 0} is open")
        base, settings = self.base, self.settings
        if len(base) != network.size:
            raise UsageError(f"the base has {len(base)} parameters, the network {network.size}")
        asked = Round(
            model=settings.model,
            round=self.current.round + 1 if self.current else 1,
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
        )
        self._state = self._state.model_copy(
            update={"current": asked, "previous": self.current, "expected": sorted(expected)}
        )
        self._book.keep(self._state)
        self._probe = Probe.of(network, base)
        self._heard = {
            node: replace(one, verdict=self._probed(node, one.verdict))
            for node, one in self._heard.items()
            if isinstance(one.verdict, Refused) or len(one.verdict.delta) == asked.shared
        }
        if self._rows.parameters != asked.shared:
            self._rows = Rows(asked.shared)
        return asked

    def on_updates(self, came: Iterable[tuple[str, int, Update]], now: int) -> list[Verdict]:
        """Updates: node and round as the topic says. What is answered is on the disk when this returns."""
        with self._book.together():
            return [self._on_update(node, number, update, now) for node, number, update in came]

    def on_bad(self, node: str, why: str, now: int) -> None:
        """Bytes that are no update came on the topic of this node. Anybody may have sent them: no strike."""
        if self.is_open and node in self._gate.keys and node not in self._heard:
            self._hear(node, _Heard("", Refused("undecodable", why[:200])), now)

    def on_time(self, now: int) -> Round | None:
        """The round, closed, if it is time, or nobody is waited for any more; once."""
        asked = self.current
        if asked is None or not self.is_open:
            return None
        final = {node for node, one in self._heard.items() if one.final}
        waited_for = set(self._state.expected) - final - set(self.quarantined)
        if now < asked.deadline and (waited_for or not self._state.expected):
            return None
        return self._closed(asked, now, late=sorted(waited_for))

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

    def _on_update(self, node: str, number: int, update: Update, now: int) -> Verdict:
        if node not in self._gate.keys:
            self.strangers += 1
            return Refused("stranger", f"{node}: no key of this node is known; tell the cloud its public key")
        asked = self._asked(number)
        heard = self._heard.get(node)
        if isinstance(asked, Refused):
            if heard is None:
                self._hear(node, _Heard("", asked, late=True), now)
            return asked
        digest = hashlib.sha256(update.data).hexdigest()
        if heard is not None and heard.digest == digest:
            return heard.verdict
        verdict = self._gate.judge(node, update, asked, now=now, late=asked.closed is not None)
        if asked.closed is not None:
            return self._late(node, asked.closed, digest, verdict, update, now)
        if heard is not None and heard.final:
            if isinstance(verdict, Refused) and not verdict.strike:
                return verdict  # anybody may have sent it
            again = Refused("changed", f"a second update for round {number}, {digest[:12]}; the first one counts")
            if isinstance(heard.verdict, Taken):
                self._heard[node] = replace(heard, changed=again)
                self._book.changed(node, number, again.reason, again.evidence)
            return again
        verdict = self._probed(node, verdict)
        if isinstance(verdict, Taken) or verdict.strike or heard is None:
            self._hear(node, _Heard(digest, verdict), now, payload=update.data)
            return self._heard[node].verdict
        return verdict

    def _asked(self, number: int) -> Round | Refused:
        """The round that an update of this number is judged by: the open one, or the one before."""
        current, previous = self.current, self._state.previous
        if current is None or number > current.round:
            return Refused("unknown", f"round {number} was not opened")
        if number == current.round and self.is_open:
            return current
        before = previous if self.is_open else current
        if before is None or number != before.round or self.settings.late == "drop":
            return Refused("stale", f"of round {number}; {current.round} is the newest")
        return before

    def _late(self, node: str, closed: Closed, digest: str, verdict: Verdict, update: Update, now: int) -> Verdict:
        """For the round before: it counts in the next one, once, and less."""
        heard = self._heard.get(node)
        if node in closed.taken or (heard is not None and (heard.final or isinstance(heard.verdict, Taken))):
            return Refused("counted", "an update of this node is counted already")
        if isinstance(verdict, Taken):
            verdict = self._probed(node, replace(verdict, weight=verdict.weight * self.settings.discount))
        if isinstance(verdict, Taken) or heard is None:
            self._hear(node, _Heard(digest, verdict, late=True), now, payload=update.data)
        return verdict

    def _probed(self, node: str, verdict: Verdict) -> Verdict:
        if isinstance(verdict, Refused) or self._probe is None or not self.is_open or node in self._state.gate.seen:
            return verdict
        return replace(verdict, behaviour=self._probe(verdict.delta))

    def _hear(self, node: str, heard: _Heard, now: int, *, payload: bytes | None = None) -> None:
        """What a node sent, on the disk and here."""
        self._heard[node] = self._in_rows(node, heard)
        taken = isinstance(heard.verdict, Taken)
        why = heard.verdict if isinstance(heard.verdict, Refused) else None
        number = self.current.round if self.current else 0
        self._book.arrived(
            Arrival(
                node=node,
                round=number if self.is_open else number + 1,
                at=now,
                digest=heard.digest,
                late=heard.late,
                payload=payload if taken else None,
                reason=why.reason if why else "",
                evidence=why.evidence if why else "",
            )
        )

    def _in_rows(self, node: str, heard: _Heard) -> _Heard:
        if isinstance(heard.verdict, Refused):
            return heard
        return replace(heard, verdict=replace(heard.verdict, delta=self._rows.put(node, heard.verdict.delta)))

    def _resume(self) -> None:
        """What came before the crash is judged again as it was then."""
        current = self.current
        if current is None:
            raise BrokenInvariant("nothing to resume")
        if self.is_open:
            self._probe = Probe.of(current.network, self.base)
        for one in self._book.arrivals():
            why = Refused(one.reason, one.evidence) if one.reason else None
            verdict: Verdict | None = why
            if one.payload is not None:
                asked = (self._state.previous if self.is_open else current) if one.late else current
                if asked is None:
                    raise BrokenInvariant(f"an update of {one.node} is late, and no round was before")
                update = Update.decode(one.payload)
                verdict = self._gate.judge(one.node, update, asked, now=one.at, late=one.late)
                if one.late and isinstance(verdict, Taken):
                    verdict = replace(verdict, weight=verdict.weight * self.settings.discount)
            if verdict is None:
                raise BrokenInvariant(f"an arrival of {one.node} has neither bytes nor a reason")
            changed = why if one.payload is not None else None
            heard = _Heard(one.digest, self._probed(one.node, verdict), late=one.late, changed=changed)
            self._heard[one.node] = self._in_rows(one.node, heard)

    def _closed(self, asked: Round, now: int, *, late: list[str]) -> Round:
        taken = {node: one.verdict for node, one in self._heard.items() if isinstance(one.verdict, Taken)}
        names = [name for name in self._rows.names if name in taken]
        refused = {node: one.verdict for node, one in self._heard.items() if isinstance(one.verdict, Refused)}
        changed = {node: one.changed for node, one in self._heard.items() if one.changed}
        updates = self._rows.of(names)
        doings = {name: one.behaviour for name, one in taken.items() if one.behaviour is not None}
        sifted, gate = self._gate.sift(
            self._state.gate,
            round=asked.round,
            steps=asked.training.steps,
            names=names,
            updates=updates,
            lengths=np.array([taken[name].length for name in names], np.float32),
            behaviour=_together(names, doings),
            refused={**refused, **changed},
        )
        counted = {name: taken[name].weight for name, kept in zip(names, sifted.kept, strict=True) if kept}
        base, version = self._base, self._state.base_version
        if len(counted) >= asked.quorum:
            rows = updates if len(counted) == len(names) else updates[sifted.kept]
            base = self._stepped(rows, np.array(list(counted.values()), np.float32))
            version = self._register(Candidate(asked.model, asked.round, asked.base_version, base, counted))
        closed = Closed(
            at=now,
            version=version if base is not self._base else None,
            taken=counted,
            late=late,
            refused={name: str(one) for name, one in {**refused, **changed, **_said(sifted)}.items()},
            quarantined=gate.quarantined,
        )
        done = asked.model_copy(update={"closed": closed})
        self._state = self._state.model_copy(
            update={"current": done, "gate": gate, "base_version": version, "expected": []}
        )
        self._book.end(self._state, base=base if base is not self._base else None)
        self._base, self._heard, self._rows = base, {}, Rows(asked.shared)
        return done

    def _stepped(self, updates: Stack, weights: Weights) -> Vector:
        """The base, further on by what the nodes learned, (P,)."""
        step = self.settings.aggregate(updates, weights)
        base = self.base.copy()
        base[: len(step)] += np.float32(self.settings.rate) * step
        return base


def _together(names: list[str], doings: Mapping[str, Vector]) -> Stack | None:
    """What the probe said, (K, D); zeros of those it was not asked about."""
    if not doings:
        return None
    nothing = np.zeros_like(next(iter(doings.values())))
    return np.array([doings.get(name, nothing) for name in names], np.float32)


def _said(sifted: Sifted) -> dict[str, Refused]:
    return {**{name: Refused("quarantined", why) for name, why in sifted.accused.items()}, **sifted.refused}
