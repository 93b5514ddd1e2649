"""What came for a round: every update judged on arrival, kept, and judged alike again after a crash.

    updates = RoundUpdates(settings, book, gate)
    updates.state = state                                  # the round that is open, and the one before
    updates.begin(asked, base)
    verdict = updates.on_update("press-4", 7, update, now) # Taken or Refused; on the disk with the book's commit
    updates.taken, updates.refused, updates.changed, updates.final

A node's own word for a round is final; what anybody could have sent in its name, or what is of the round before, is
not. Bounds: one update per node whose key is known; `LOOKS` updates of a node are looked at in a round, none longer
than its numbers and `HEAD_BYTES`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace

from cloud.gate import Gate, Taken, Verdict
from cloud.learning_settings import RoundSettings
from cloud.probe import LEAST_DIMENSIONS, Probe
from cloud.quarantine import Refused
from cloud.roundbook import Arrival, RoundBook, RoundsState
from cloud.rows import Rows
from messages.errors import BrokenInvariant
from messages.learning import Closed, Round, Update
from messages.updates import Vector

LOOKS = 256
"""Updates of one node that are looked at in a round; further ones cost nothing."""
HEAD_BYTES = 65_536
"""An update may be longer than its numbers by so much."""


@dataclass(frozen=True)
class Heard:
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


class RoundUpdates:
    """Of the open round; between rounds what came late, for the next one."""

    def __init__(self, settings: RoundSettings, book: RoundBook, gate: Gate, state: RoundsState) -> None:
        self.settings = settings
        self.state = state
        self._book, self._gate = book, gate
        self._heard: dict[str, Heard] = {}
        self.rows = Rows(state.current.shared if state.current else 0)
        """deltas of those that were taken"""
        self._probe: Probe | None = None
        self._looks: Counter[str] = Counter()
        """updates of a node since the last close"""
        self.strangers = 0
        """updates from nodes whose key is not known"""

    @property
    def taken(self) -> dict[str, Taken]:
        """node → what counts, if nothing in the others speaks against it."""
        return {node: one.verdict for node, one in self._heard.items() if isinstance(one.verdict, Taken)}

    @property
    def refused(self) -> dict[str, Refused]:
        """node → why not."""
        return {node: one.verdict for node, one in self._heard.items() if isinstance(one.verdict, Refused)}

    @property
    def changed(self) -> dict[str, Refused]:
        """Nodes whose update is taken and that sent another one afterwards."""
        return {node: one.changed for node, one in self._heard.items() if one.changed}

    @property
    def final(self) -> set[str]:
        """Nodes that nothing more is waited for from."""
        return {node for node, one in self._heard.items() if one.final}

    @property
    def is_open(self) -> bool:
        """Are updates waited for?"""
        return self.state.current is not None and self.state.current.closed is None

    def begin(self, asked: Round, base: Vector) -> None:
        """A round is open: what came late counts in it, if it fits."""
        self._probe = Probe.of(asked.network, base, asked.shared)
        self._heard = {
            node: replace(one, verdict=self._probed(node, one.verdict))
            for node, one in self._heard.items()
            if isinstance(one.verdict, Refused) or len(one.verdict.delta) == asked.shared
        }
        if self.rows.parameters != asked.shared:
            self.rows = Rows(asked.shared)

    def end(self, done: Round) -> None:
        """It is over, and what came for it is counted."""
        self._heard, self.rows = {}, Rows(done.shared)
        self._looks.clear()

    def on_update(self, node: str, number: int, update: Update, now: int) -> Verdict:
        """Node and round as its topic says; what is answered is in the book."""
        if node not in self._gate.keys:
            self.strangers += 1
            return Refused("stranger", f"{node}: no key of this node is known; tell the cloud its public key")
        asked = self._asked(number)
        heard = self._heard.get(node)
        self._looks[node] += 1
        if self._looks[node] > LOOKS:
            return Refused("rate", f"{self._looks[node]} updates of this node in one round; {LOOKS} are looked at")
        if isinstance(asked, Refused):
            if heard is None:
                self._hear(node, Heard("", asked, late=True), now)
            return asked
        most = 4 * asked.shared + HEAD_BYTES
        if len(update.data) > most:
            return Refused("size", f"{len(update.data)} bytes; {asked.shared} numbers take {most} at most")
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
            self._hear(node, Heard(digest, verdict), now, payload=update.data)
            return self._heard[node].verdict
        return verdict

    def on_bad(self, node: str, why: str, now: int) -> None:
        """Bytes that are no update came on the topic of this node. Anybody may have sent them: no strike."""
        if self.is_open and node in self._gate.keys and node not in self._heard:
            self._hear(node, Heard("", Refused("undecodable", why[:200])), now)

    def _asked(self, number: int) -> Round | Refused:
        """The round that an update of this number is judged by: the open one, or the one before."""
        current, previous = self.state.current, self.state.previous
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
        if isinstance(verdict, Taken) and not self._fits(verdict):
            return Refused("stale", f"{len(verdict.delta)} numbers, as were shared in the round before; no longer")
        if isinstance(verdict, Taken):
            verdict = self._probed(node, replace(verdict, weight=verdict.weight * self.settings.discount))
        if isinstance(verdict, Taken) or heard is None:
            self._hear(node, Heard(digest, verdict, late=True), now, payload=update.data)
        return verdict

    def _fits(self, one: Taken) -> bool:
        """Has it as many numbers as are shared now? Between rounds `begin` will say."""
        return not self.is_open or self.state.current is None or len(one.delta) == self.state.current.shared

    def _probed(self, node: str, verdict: Verdict) -> Verdict:
        probe = self._probe
        if isinstance(verdict, Refused) or probe is None or not self.is_open:
            return verdict
        new = node not in self.state.gate.seen and probe.dimensions >= LEAST_DIMENSIONS
        whole = probe.shared == probe.network.size
        return replace(
            verdict,
            behaviour=probe(verdict.delta) if new else None,
            along=probe.along(verdict.delta) if whole else None,
        )

    def _hear(self, node: str, heard: Heard, now: int, *, payload: bytes | None = None) -> None:
        """What a node sent, on the disk and here."""
        self._heard[node] = self._in_rows(node, heard)
        taken = isinstance(heard.verdict, Taken)
        why = heard.verdict if isinstance(heard.verdict, Refused) else None
        number = self.state.current.round if self.state.current else 0
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

    def _in_rows(self, node: str, heard: Heard) -> Heard:
        if isinstance(heard.verdict, Refused):
            return heard
        return replace(heard, verdict=replace(heard.verdict, delta=self.rows.put(node, heard.verdict.delta)))

    def resume(self, current: Round, base: Vector) -> None:
        """What came before the crash is judged again as it was then."""
        if self.is_open:
            self._probe = Probe.of(current.network, base, current.shared)
        for one in self._book.arrivals():
            why = Refused(one.reason, one.evidence) if one.reason else None
            verdict: Verdict | None = why
            if one.payload is not None:
                asked = (self.state.previous if self.is_open else current) if one.late else current
                if asked is None:
                    raise BrokenInvariant(f"an update of {one.node} is late, and no round was before")
                update = Update.decode(one.payload)
                verdict = self._gate.judge(one.node, update, asked, now=one.at, late=one.late)
                if one.late and isinstance(verdict, Taken):
                    if not self._fits(verdict):
                        continue  # as `begin` dropped it
                    verdict = replace(verdict, weight=verdict.weight * self.settings.discount)
            if verdict is None:
                raise BrokenInvariant(f"an arrival of {one.node} has neither bytes nor a reason")
            changed = why if one.payload is not None else None
            heard = Heard(one.digest, self._probed(one.node, verdict), late=one.late, changed=changed)
            self._heard[one.node] = self._in_rows(one.node, heard)
