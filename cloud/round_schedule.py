"""When a round opens, what is said of it, and the version that it makes.

    schedule = RoundSchedule(settings, site="s1", registry=registry, roster=roster, book=book, key=key)
    schedule.on_time(now)                    # opens and closes rounds: what to say
    schedule.on_updates(came, now)           # closes with the last one that it waits for

The first version is made of the seed; every round begins with the newest learned one that
neither simulation nor canaries found worse, or with one that an operator chose. A round opens when enough nodes
are there whose key is known, `SETTLE` looks later at most while others are still coming. What it makes is a candidate
of the registry, once. Pure but for the books.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from cloud.learning_settings import LearningSettings
from cloud.registry import Registry
from cloud.releases import OURSELVES
from cloud.roster import Roster
from cloud.round_wishes import judged_worse, take_up
from cloud.roundbook import RoundBook
from cloud.rounds import Candidate, Rounds
from cloud.saying import SIGNER, Out
from cloud.versions import Draft, Version
from messages.clock import SECOND
from messages.contracts import Envelope
from messages.errors import BadMessage
from messages.initial import initial
from messages.learning import Interface, Round, Update
from messages.logs import get_logger
from messages.network import Network
from messages.routes import ROUND
from messages.signing import SigningKey, public_key, sign, verify
from messages.updates import Vector

CLOSED_S = 30 * 86_400
"""What came of a round may be read for so long."""
SETTLE = 10
"""A round waits at most so many looks for nodes that are still coming: a closed one did not hear who came late."""

log = get_logger("learning")


class RoundSchedule:
    """Rounds of one model at one site."""

    def __init__(
        self,
        settings: LearningSettings,
        *,
        site: str,
        registry: Registry,
        roster: Roster,
        book: RoundBook,
        key: SigningKey,
    ) -> None:
        """Goes on where the book says it was."""
        self.settings, self.site = settings, site
        self.interface = settings.read_interface()
        self.network = settings.network(self.interface)
        self._registry, self._roster, self._key = registry, roster, key
        self.rounds = Rounds(settings.rounds, book, keys=roster.keys, register=self._register, model=settings.model)
        self._able: set[str] = set()
        last = self.rounds.current
        self._late = set(last.closed.late) if last and last.closed else set()
        self._looks = 0
        self.made = 0
        """versions that rounds made since the start"""
        self.taken = 0
        """updates that were taken in them,"""
        self.refused = 0
        """and that were not"""

    def on_time(self, now: int) -> list[Out]:
        """A round may close, or the next one open."""
        model, network = self.settings.model, self.network
        take_up(self._registry, self.rounds, self._roster.keys, model=model, network=network, now=now)
        if not self.rounds.is_open:
            self._begin(now)
        return self._close(now) or self._next_round(now)

    def on_updates(self, came: Sequence[tuple[str, int, Update]], now: int) -> list[Out]:
        """What nodes learned; the round closes with the last one that it waits for."""
        self.rounds.on_updates(came, now)
        return self._close(now) if not self.rounds.waited_for else []

    def on_said(self, payload: bytes) -> None:
        """A round on the bus: after a backup was put back it may be one that this cloud does not know it has said."""
        with suppress(BadMessage):
            verify(payload, {SIGNER: public_key(self._key.public)})
            body = Envelope[Round].decode(payload).body
            if body.model == self.settings.model:
                self.rounds.passed(body.round)

    def all(self) -> list[Out]:
        """What should be on the bus."""
        return [] if self.rounds.current is None else [self._said(self.rounds.current)]

    def waits(self, until: int) -> bool:
        """Would a round that is open close at `until` without nodes that are there, and were not late last time?"""
        due = self.rounds.due
        return due is not None and until >= due and bool(self.rounds.waited_for & self._roster.online - self._late)

    def figures(self) -> dict[str, float]:
        """How things stand."""
        current = self.rounds.current
        return {
            "learning_round": float(current.round if current else 0),
            "learning_open": float(self.rounds.is_open),
            "learning_versions_made": float(self.made),
            "learning_taken": float(self.taken),
            "learning_refused": float(self.refused),
            "learning_quarantined": float(len(self.rounds.quarantined)),
            "learning_strangers": float(self.rounds.strangers),
        }

    # --- inside ---------------------------------------------------------------------------------

    def _begin(self, now: int) -> None:
        """Rounds begin with a version: the newest that was learned for this network, else one made of the seed."""
        if self.rounds.parameters == self.network.size:
            return
        learned = [one for one in self._registry.versions(self.settings.model) if self._continues(one)]
        newest = learned[-1] if learned else self._first(now)
        assert newest.parameters is not None
        self.rounds.rebase(np.frombuffer(self._registry.data(newest.parameters.sha256), "<f4"), version=newest.version)
        log.info("learning.begins", model=newest.model, version=newest.version, origin=newest.origin)

    def _leave_worse(self) -> None:
        """What was made last and found worse is not gone on from. Where nothing else is left, it is."""
        kept = {one.version: one for one in self._registry.versions(self.settings.model)}
        base = kept.get(self.rounds.base_version)
        if base is None or not judged_worse(base):
            return
        fine = [one for one in kept.values() if self._continues(one) and not judged_worse(one)]
        if fine and fine[-1].parameters is not None:
            theta = np.frombuffer(self._registry.data(fine[-1].parameters.sha256), "<f4")
            self.rounds.rebase(theta, version=fine[-1].version)
            log.info("learning.left_worse", model=base.model, version=base.version, base=fine[-1].version)

    def _continues(self, one: Version) -> bool:
        learned = one.origin.startswith(("round ", "seed "))
        return learned and one.network == self.network and one.interface == self.interface

    def _first(self, now: int) -> Version:
        seed = self.settings.seed
        theta = initial(self.network, np.random.default_rng(seed))
        draft = self._draft(theta, f"seed {seed}", self.network, self.interface)
        return self._registry.add(draft, now=now, by=OURSELVES)

    def _next_round(self, now: int) -> list[Out]:
        able = self._roster.able - set(self.rounds.quarantined)
        coming = able != self._able
        self._able = able
        current = self.rounds.current
        closed = current.closed if current else None
        rested = closed is None or not closed.at <= now < closed.at + self._pause  # before it: the clock was ahead
        if self.rounds.is_open or not rested or len(able) < self.settings.rounds.quorum:
            self._looks = 0
            return []
        self._looks += 1
        if coming and self._looks < SETTLE:
            return []
        self._looks = 0
        self._leave_worse()
        taken = closed.taken.keys() if closed else set[str]()
        expected = sorted(self._roster.able - (self._roster.doubted - taken))  # heard in any case, if not waited for
        asked = self.rounds.open(now, network=self.network, interface=self.interface, expected=expected)
        log.info("round.opened", round=asked.round, base=asked.base_version, nodes=len(able))
        return [self._said(asked)]

    @property
    def _pause(self) -> int:
        return round(self.settings.pause_s * SECOND)

    def _close(self, now: int) -> list[Out]:
        done = self.rounds.on_time(now)
        if done is None or done.closed is None:
            return []
        closed = done.closed
        self._late = set(closed.late)
        self.made += closed.version is not None
        self.taken += len(closed.taken)
        self.refused += len(closed.refused)
        log.info(
            "round.closed",
            round=done.round,
            version=closed.version,
            taken=len(closed.taken),
            late=len(closed.late),
            refused=dict(list(closed.refused.items())[:20]),
            quarantined=closed.quarantined[:20],
        )
        return [self._said(done)]

    def _register(self, made: Candidate) -> int:
        """What a round made is a candidate; the same again is the version it was."""
        draft = self._draft(made.parameters, f"round {made.round}", made.network, made.interface).model_copy(
            update={
                "shared": made.shared,
                "parent": made.parent or None,
                "note": f"by {len(made.taken)} nodes",
            }
        )
        return self._registry.add(draft, now=made.at, by=OURSELVES).version

    def _draft(self, theta: Vector, origin: str, network: Network, interface: Interface) -> Draft:
        return Draft(
            model=self.settings.model,
            graph=self._graph(network),
            parameters=theta.astype("<f4").tobytes(),
            network=network,
            interface=interface,
            shared=network.size if self.settings.rounds.whole else network.shared,
            origin=origin,
        )

    def _graph(self, network: Network) -> bytes:
        """The one that is kept, where there is one: making it takes a library that is large."""
        for one in reversed(self._registry.versions(self.settings.model)):
            if one.network == network and one.parameters is not None:
                return self._registry.data(one.graph.sha256)
        from cloud.graphs import graph_of

        return graph_of(network)

    def _said(self, asked: Round) -> Out:
        """A round as it goes out: for the whole site, signed; the same bytes whenever it is said."""
        closed = asked.closed
        until = asked.deadline if closed is None else closed.at + CLOSED_S * SECOND
        envelope = Envelope[Round](
            key=asked.model, target=f"{self.site}/all", counter=self.rounds.counter, valid_until=until, body=asked
        )
        payload = sign(envelope, self._key, name=SIGNER)
        return Out(ROUND, {"site": self.site}, payload, () if closed else (asked.base,))
