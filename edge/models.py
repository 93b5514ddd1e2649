"""The models of a node: what was released to it, what runs, and how well. On the disk, whole at every instant.

    models = Models(Shelf(Files(folder)), targets={"s1/press-4", "s1/all"}, keys=keys, session=session)
    reports = models.load(now)                              # what ran before; publish the reports
    reports = models.on_release("cell", payload, now)       # then subscribe to the parts of `models.wanted`
    reports = models.on_part(digest, part, data, now)       # the last one missing makes it run

    turn = models.turn("cell")                              # None: nothing runs, take the safe action
    choice = turn.policy.choose(latest, now, device="cell")
    reports = models.decided(turn, now, trip=verdict.trip)
    models.outcome(turn, reward, cost)                      # when it is known
    models.adapt(10)                                        # a slice of making versions the node's own

A release runs only if it was signed by a pinned key, is meant for this node, newer, in time, and sound in every byte
(`edge.released`); whatever is wrong is said in the report, and what runs goes on. `valid_until` bounds when it may
begin to run, not how long: a node without its cloud goes on deciding. A *canary* runs beside the version before, in
turns (`edge.arms`); when safety does not let its decision pass, or its answer is no number, the version before is alone
again, at once and for good: only a newer release brings it back.

A release with `shared` is made the node's own by `adapt`, in slices, before it decides for the first time, and again
when twice as much is known, or a trial against it begins; what decides meanwhile goes on. What was made is kept with
its version, over a restart and from its trial to the fleet. Where too little is known yet, or its answers would be no
numbers, the release decides as it is.

Disk: artefacts and documents under their digests, and an index that names what runs; files first, the index last, so a
power cut leaves the old state or the new one. When files of the running version turn out broken, the version before
runs, and the release is taken when it comes again. Bounds: `MAX_MODELS`, `IN_FLIGHT` (`edge.flights`), three versions
of a model on the disk. Figures of arms are a session's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.active import Active, Adapt, loaded, standing
from edge.arms import Arms, CanarySettings, Turn
from edge.flights import Flight, Flights
from edge.policy import Policy
from edge.released import Released, opened, permitted, sha256_of, sound
from edge.shelf import Kept, Own, Shelf
from messages.errors import BadMessage
from messages.learning import Artefact, ModelReport

MAX_MODELS = 16
_SAID = 128
"""Characters of a reason."""


class ModelTurn(NamedTuple):
    """One decision of a model: which policy makes it."""

    model: str
    policy: Policy
    turn: Turn
    non_finite: int
    """answers of the policy that were no numbers, before this one"""


class _Pair(NamedTuple):
    running: Active | None = None
    candidate: Active | None = None


@dataclass
class _Model:
    arms: Arms
    kept: Kept = field(default_factory=Kept)
    pair: _Pair = field(default_factory=_Pair)
    in_turns: _Pair | None = None
    """what the arms know of; when it is not `pair`, they are told before the next decision"""
    counter: int = 0
    """of the newest release that was answered"""
    refused: str = ""
    """why that one does not run"""
    tripped: tuple[str, str] | None = None
    """a candidate's document, and why it was taken back; not on the disk yet"""


class Models:
    """All models of a node.

    Two threads may use it: one that decides (`turn`, `decided`, `outcome`, `report`), and one that keeps
    (`on_release`, `on_part`, `on_time`, `adapt`), for which a disk may take its time.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        targets: Collection[str],
        keys: Mapping[str, Ed25519PublicKey],
        session: str,
        canary: CanarySettings | None = None,
        seed: int = 0,
        adapt: Adapt | None = None,
    ) -> None:
        """`targets`: what this node is called in envelopes; `keys`: who may release; `seed`: of the canaries' turns."""
        self._shelf = shelf
        self._targets = targets
        self._keys = keys
        self._session = session
        self._canary = canary or CanarySettings()
        self._seed = seed
        self._models: dict[str, _Model] = {}
        self._adapt = adapt
        self._flights = Flights(shelf.artefact)
        self._unsaved = False
        self._swap = threading.Lock()
        """held for a few assignments, never for the disk"""

    # --- what is released ---

    def load(self, now: int) -> list[ModelReport]:
        """Take up what ran when this node stopped; once, before anything else."""
        index = self._shelf.index()
        for name, kept in index.items():
            one = self._models[name] = _Model(self._arms(name), kept, refused=kept.taken_back, counter=kept.counter)
            running = loaded(self._shelf, kept.running, self._keys)
            candidate = loaded(self._shelf, kept.candidate, self._keys)
            if kept.running and running is None:
                running = loaded(self._shelf, kept.before, self._keys)
                then = f"version {running.version} runs" if running else "nothing runs"
                one.refused = f"files of what ran are broken, {then}; release it again"
                one.kept = kept.model_copy(update={"running": running and running.sha256, "before": None})
            if kept.candidate and candidate is None:
                one.refused = "files of the candidate are broken; release it again"
                one.kept = one.kept.model_copy(update={"candidate": None})
            one.pair = _Pair(running, candidate)
        if self._index() != index:
            self._shelf.keep(self._index())
        self._shelf.tidy()
        return [self.report(name, now) for name in self._models]

    @property
    def wanted(self) -> list[Artefact]:
        """Artefacts whose parts should be subscribed to, now."""
        return self._flights.wanted

    def on_release(self, model: str, payload: bytes, now: int) -> list[ModelReport]:
        """What came under `down/model/{model}`. The reports say what became of it; none: its artefacts are awaited."""
        self._settle()
        one, flight = self._models.get(model), self._flights.of(model)
        kept = one.kept if one else Kept()
        sha256 = hashlib.sha256(payload).hexdigest()
        if flight is not None and flight.sha256 == sha256:
            return self._install(model, now)
        again = sha256 == kept.answered
        if again and (kept.taken_back or sha256 in (kept.running, kept.candidate)):
            return [self.report(model, now)]
        envelope = None
        try:
            envelope = opened(payload, self._keys)
            if one is None and len(self._models) >= MAX_MODELS:
                raise BadMessage(f"{MAX_MODELS} models run here already; give this one to another node")
            self._permit(model, envelope, now, again=again)
            if flight is not None and flight.envelope.counter >= envelope.counter:
                raise BadMessage(f"release {envelope.counter} is not newer than {flight.envelope.counter}, on its way")
            displaced = self._flights.begin(model, Flight(sha256, payload, envelope))
        except BadMessage as error:
            return [self._refuse(model, str(error), now, envelope)]
        reports = []
        if displaced is not None:
            gone, why = displaced.envelope, "gave way to newer releases; release it again"
            reports.append(self._refuse(gone.key, why, now, gone))
        return reports + self._install(model, now)

    def on_part(self, digest: str, part: int, data: bytes, now: int) -> list[ModelReport]:
        """What came under `down/artefact/{digest}/{part}`."""
        self._settle()
        try:
            models = self._flights.on_part(digest, part, data)
        except BadMessage as error:
            return [self._give_up(name, str(error), now) for name in self._flights.awaiting(digest)]
        return [report for name in models for report in self._install(name, now)]

    def on_time(self, now: int) -> list[ModelReport]:
        """Now and then, and after a report of `decided`: keeps what was taken back, gives up what came too late."""
        self._settle()
        why = "its artefacts did not come in time; publish them, and release it again"
        reports = [self._give_up(name, why, now) for name in self._flights.late(now)]
        return reports + [report for name in self._flights.models for report in self._install(name, now)]

    def adapt(self, steps: int) -> None:
        """A slice, of so many optimiser steps for each version that is being made the node's own."""
        for flight in map(self._flights.of, self._flights.models):
            if flight is not None and flight.making is not None:
                flight.making.work(steps)
        for one in self._models.values():
            for active in one.pair:
                if active is not None:
                    active.adapt(self._adapt, steps, self._shelf)

    @property
    def adapting(self) -> bool:
        """Is there more of that to do?"""
        flights = map(self._flights.of, self._flights.models)
        actives = (active for one in self._models.values() for active in one.pair)
        return any(one is not None and one.making is not None for one in (*flights, *actives))

    # --- who decides ---

    def turn(self, model: str) -> ModelTurn | None:
        """The next decision's; None: nothing runs."""
        one = self._models.get(model)
        if one is None:
            return None
        pair = one.pair
        if pair is not one.in_turns:
            one.arms.enter([active.version for active in pair if active is not None])
            one.in_turns = pair
        turn = one.arms.turn()
        if turn is None:
            return None
        candidate = pair.candidate
        active = candidate if candidate is not None and candidate.version == turn.version else pair.running
        assert active is not None
        policy = active.policy  # once: another thread may put one with a head in its place
        return ModelTurn(model, policy, turn, policy.non_finite)

    def decided(self, turn: ModelTurn, now: int, *, trip: bool) -> list[ModelReport]:
        """After the decision; `trip`: safety did not let it pass. A candidate is taken back at once, and reported."""
        non_finite = turn.policy.non_finite > turn.non_finite
        if not (trip or non_finite):
            return []
        one = self._models[turn.model]
        one.arms.went_wrong(turn.turn, trip=trip, non_finite=non_finite)
        with self._swap:
            running, candidate = one.pair
            if candidate is None or candidate.version != turn.turn.version:
                return []
            why = "its answer was not a number" if non_finite else "safety did not let its decision pass"
            one.refused = f"version {candidate.version} was taken back: {why}"
            one.tripped = candidate.sha256, one.refused
            one.pair = _Pair(running, None)
        return [self.report(turn.model, now)]

    def outcome(self, turn: ModelTurn, reward: float, cost: float) -> None:
        """What the decision brought, and its carbon, kg."""
        self._models[turn.model].arms.outcome(turn.turn, reward, cost)

    def report(self, model: str, now: int) -> ModelReport:
        """What runs, how well, and why not what was released."""
        one = self._models.get(model) or _Model(self._arms(model))
        running = one.pair.running
        return ModelReport(
            model=model,
            at=now,
            session=self._session,
            counter=one.counter,
            running=running.version if running else None,
            sha256=sha256_of(running.envelope.body) if running else None,
            refused=_line(one.refused) or None,
            arms=one.arms.report(),
            pairs=one.arms.paired(),
        )

    # --- the rest ---

    def _permit(self, model: str, envelope: Released, now: int, *, again: bool) -> None:
        one = self._models.get(model)
        counter = one.kept.counter - again if one else 0
        known = standing(one.pair.running if one else None, counter)
        permitted(envelope, known, model=model, targets=self._targets, now=now)

    def _install(self, model: str, now: int) -> list[ModelReport]:
        """If nothing is missing: the disk first, then one assignment."""
        flight = self._flights.whole(model)
        if flight is None:
            return []
        body = flight.envelope.body
        one = self._models.get(model) or _Model(self._arms(model))
        old = one.kept
        try:
            self._permit(model, flight.envelope, now, again=flight.sha256 == old.answered)
            parameters = flight.have[body.parameters.digest] if body.parameters else None
            here = [(other.envelope.body.graph, other.envelope.body.network) for other in one.pair if other is not None]
            compare = (body.graph, body.network) not in here  # it was, and the runtime need not be loaded for it
            policy = flight.policy or sound(body, flight.have[body.graph.digest], parameters, compare=compare)
        except BadMessage as error:
            return [self._give_up(model, str(error), now)]
        running = one.pair.running
        same = running is not None and running.version == body.version
        beside = body.stage == "canary" and not same
        back = running is not None and body.version < running.version  # then what ran is not one to fall back to
        kept = Kept(
            counter=flight.envelope.counter,
            answered=flight.sha256,
            running=old.running if beside else flight.sha256,
            candidate=flight.sha256 if beside else None,
            before=old.before if beside or same or back else old.running,
        )
        active = Active(flight.sha256, flight.envelope, policy, self._worn(one, body.version))
        if active.own is None and flight.policy is None:
            flight.policy, flight.making = policy, active.begin(self._adapt)
        if flight.making is not None:
            if flight.making.left:
                return []  # what runs goes on until it is made
            active.wear(Own(flight.making.vector, flight.making.known))
        if beside and running is not None:
            running.known = 0  # made again of what is known now: a trial compares versions, not what was known when
            running.making = running.begin(self._adapt)
        self._shelf.put(flight.payload, flight.have.values())
        if active.own is not None:
            self._shelf.put_own(flight.sha256, active.own)
        self._shelf.keep({**self._index(), model: kept})
        with self._swap:
            one.kept, one.counter, one.refused, one.tripped = kept, kept.counter, "", None
            one.pair = _Pair(running, active) if beside else _Pair(active, None)
            self._models[model] = one
        self._shelf.tidy()
        self._flights.land(model)
        return [self.report(model, now)]

    @staticmethod
    def _worn(one: _Model, version: int) -> Own | None:
        """What was made of this version already: a trial and the fleet's release are two documents."""
        return next((other.own for other in one.pair if other is not None and other.version == version), None)

    def _settle(self) -> None:
        """What was taken back is on the disk, so that it stays so after a restart."""
        for one in self._models.values():
            with self._swap:
                tripped, one.tripped = one.tripped, None
            if tripped is not None and one.kept.candidate == tripped[0]:
                one.kept = one.kept.model_copy(update={"candidate": None, "taken_back": tripped[1]})
                self._unsaved = True
        if self._unsaved:
            self._shelf.keep(self._index())
            self._unsaved = False

    def _give_up(self, model: str, why: str, now: int) -> ModelReport:
        flight = self._flights.of(model)
        self._flights.land(model)
        return self._refuse(model, why, now, flight.envelope if flight else None)

    def _refuse(self, model: str, why: str, now: int, envelope: Released | None = None) -> ModelReport:
        """`envelope`: if its signature was good; else the report answers nothing, and its counter is 0.

        What is older than what was answered is refused in this one report; the next one speaks of the newest again.
        """
        one = self._models.get(model)
        counter = 0 if envelope is None or envelope.target not in self._targets else envelope.counter
        if one is not None and counter > one.counter:
            one.counter, one.refused = counter, why
        return self.report(model, now).model_copy(update={"refused": _line(why), "counter": counter})

    def _index(self) -> dict[str, Kept]:
        return {name: one.kept for name, one in self._models.items()}

    def _arms(self, model: str) -> Arms:
        return Arms(self._canary, seed=int.from_bytes(hashlib.sha256(f"{self._seed}:{model}".encode()).digest()[:8]))


def _line(text: str) -> str | None:
    """As a report says it: one line, not too long."""
    shown = "".join(one if one.isprintable() else " " for one in text)
    return shown if len(shown) <= _SAID else f"{shown[: _SAID - 1]}…"
