"""Who runs which version of a model: candidate → validated → canary nodes → fleet, or back. A pure core.

    releases = Releases(registry, "cell", ReleaseSettings(), key=key)
    question = releases.to_validate()                     # a candidate of the registry, beside the incumbent
    releases.on_validated(question, answer(question, simulate), now)     # `answer` may run in a thread
    for say in releases.on_report("s1/humid", report, now): …            # also on_time, on_validated
    for say in releases.all(): …                          # after every connect

A *say* is a signed release for one node, and the artefacts that must be on the bus before it. It is on disk before it
is returned; so after a crash the same bytes are said again, and a counter is never used twice. The newest candidate is
validated in simulation (not worse than the incumbent, limits kept), then runs beside the incumbent on a few nodes
(`cloud.canary`); at the end all nodes get it, or its canaries get the incumbent back. Safety trips, numbers that are
none and refusals end it at once. The first version has nothing beside it: validated, it is the fleet's. Operators'
wishes come from the registry's file. Pinned nodes keep their version, whatever the fleet does.

Bounds: `NODES` nodes; one trial at a time, its pairs and its time bounded; of candidates that wait only the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from cloud.registry import NODES, Registry
from cloud.saying import Say, signed
from cloud.trials import Ended, ReleaseSettings, Trial, canaries
from cloud.validation import Outcome, Question, objection
from cloud.versions import Event, Stage, Told, Version, Wish
from messages.errors import BadMessage, UsageError
from messages.learning import Artefact, ModelReport
from messages.signing import SigningKey

OURSELVES = "shoal"
"""Who decides where no operator does."""


class State(BaseModel):
    """What is remembered of one model's releases."""

    model_config = ConfigDict(frozen=True)

    fleet: int | None = None
    before: int | None = None
    """what the fleet ran before: `rollback` goes there"""
    looked: int = 0
    """candidates up to here were taken up"""
    checking: int | None = None
    """in validation"""
    waiting: int | None = None
    """validated, waits for canaries"""
    trial: Trial | None = None
    pins: dict[str, int] = {}

    @property
    def needed(self) -> set[int]:
        """Versions that must not be pruned."""
        one = self.trial
        named = [
            self.fleet,
            self.before,
            self.checking,
            self.waiting,
            one.version if one else None,
            *self.pins.values(),
        ]
        return {version for version in named if version is not None}


class Releases:
    """Of one model."""

    def __init__(
        self, registry: Registry, model: str, settings: ReleaseSettings, *, key: SigningKey, signer: str = "cloud"
    ) -> None:
        """Goes on where the registry's file says it was."""
        self.model, self.settings = model, settings
        self._registry, self._key, self._signer = registry, key, signer
        kept = registry.state(model)
        self.state = State.model_validate_json(kept) if kept else State()
        self._told = registry.told(model)
        self._heard: dict[str, ModelReport] = {}  # every node's newest

    # --- what comes in --------------------------------------------------------------------------

    def to_validate(self) -> Question | None:
        """What waits for the simulation; the same until it is answered."""
        if self.state.checking is None:
            return None
        return Question(self._version(self.state.checking), self._incumbent())

    def on_validated(self, question: Question, outcome: Outcome, now: int) -> list[Say]:
        """The simulation has answered. One that nobody waits for any more changes nothing."""
        number = question.candidate.version
        if self.state.checking != number or _number(question.incumbent) != self.state.fleet:
            return []
        why = objection(outcome, self.settings.validation)
        with self._registry.together():
            if why is not None:
                self._mark(number, "refused", now, why)
                return self._settle(now, checking=None)
            older = self.state.waiting
            if older is not None:
                self._mark(older, "superseded", now, f"version {number} is newer")
            self._mark(number, "validated", now, _scores(outcome, self.settings.validation.score), outcome.metrics)
            return self._settle(now, checking=None, waiting=number)

    def on_report(self, node: str, report: ModelReport, now: int) -> list[Say]:
        """What a node says; by its first report it asks for the model. BadMessage beyond `NODES` nodes."""
        last = self._heard.get(node)
        if report.model != self.model or (last is not None and report.at < last.at):
            return []
        if last is None and node not in self._told and len({*self._heard, *self._told}) >= NODES:
            raise BadMessage(f"{node}: {NODES} nodes have {self.model}; release it under another name to more of them")
        self._heard[node] = report
        with self._registry.together():
            self._registry.lift(self.model, report.running or 0)
            trial = self.state.trial
            if trial is not None and node in trial.tallies:
                return self._weigh(trial, node, report, now)
            if self.state.waiting is not None:
                return self._settle(now)
            return self._tell([node], now)

    def on_time(self, now: int) -> list[Say]:
        """Wishes are taken up, candidates looked for, leases renewed, trials ended that took too long."""
        found: list[Say] = []
        for wish in self._registry.wishes(self.model):
            with self._registry.together():
                try:
                    found += self._obey(wish, now)
                    self._registry.answer(wish.id, "done")
                except UsageError as error:
                    self._registry.answer(wish.id, f"refused: {error}")
        with self._registry.together():
            trial = self.state.trial
            late = trial.late(self.settings, now) if trial is not None else None
            if trial is not None and late is not None:
                return found + self._end(trial, late, now)
            if trial is None and self.state.checking is None:
                return found + self._look(now)
            return found + self._tell(self._nodes, now)

    def forget(self, node: str) -> None:
        """A node that is no more; what it was told is to be cleared."""
        self._heard.pop(node, None)
        if self._told.pop(node, None) is not None:
            self._registry.untell(self.model, node)

    # --- what goes out --------------------------------------------------------------------------

    def all(self) -> list[Say]:
        """Everything that should be on the bus."""
        versions = {told.version for told in self._told.values()}
        artefacts = {number: self._version(number).artefacts for number in versions}
        return [Say(self.model, told.node, told.payload, artefacts[told.version]) for told in self._told.values()]

    def artefacts(self) -> set[Artefact]:
        """Those that should be; others may be cleared."""
        versions = {told.version for told in self._told.values()}
        return {one for number in versions for one in self._version(number).artefacts}

    # --- trials ---------------------------------------------------------------------------------

    def _weigh(self, trial: Trial, node: str, report: ModelReport, now: int) -> list[Say]:
        """A canary has spoken."""
        trial, told = trial.having(node, report), self._told.get(node)
        counter = told.counter if told and told.version == trial.version else None
        ended = trial.ended(node, report, self.settings, now, told=counter)
        if ended is not None:
            return self._end(trial, ended, now)
        self._keep(trial=trial)
        return self._tell([node], now)

    def _end(self, trial: Trial, ended: Ended, now: int, by: str = OURSELVES) -> list[Say]:
        """All nodes get the candidate, or its canaries the incumbent."""
        if ended.how == "as_good":
            return self._promote(trial.version, now, by, ended.why, before=trial.against)
        self._mark(trial.version, ended.how, now, ended.why, by=by)
        return self._settle(now, trial=None)

    def _promote(
        self, number: int, now: int, by: str, why: str, *, leaves: Stage = "former", before: int | None = None
    ) -> list[Say]:
        """The fleet gets this version; whatever else was under way ends. The one it ran goes to stage `leaves`."""
        state = self.state
        under_way = {state.waiting, state.checking, state.trial.version if state.trial else None}
        for other in under_way - {None, number}:
            self._mark(int(other or 0), "superseded", now, f"version {number} was released", by=by)
        if state.fleet is not None and state.fleet != number:
            self._mark(state.fleet, leaves, now, why if leaves == "rolled_back" else f"{number} follows", by=by)
        self._mark(number, "fleet", now, why, by=by)
        return self._settle(now, fleet=number, before=before, waiting=None, checking=None, trial=None)

    def _look(self, now: int) -> list[Say]:
        """Take up the newest candidate."""
        if self._registry.newest(self.model) <= self.state.looked:
            return self._settle(now)
        rows = self._registry.versions(self.model)
        new = [one.version for one in rows if one.version > self.state.looked and one.stage == "candidate"]
        for one in new[:-1]:
            self._mark(one, "superseded", now, f"version {new[-1]} is newer")
        return self._settle(now, looked=rows[-1].version, checking=new[-1] if new else None)

    def _begin(self, now: int) -> None:
        """A validated version goes to its canaries, as soon as there are some; the first one to all."""
        number, fleet = self.state.waiting, self.state.fleet
        if number is None or self.state.trial is not None:
            return
        if fleet is None or number == fleet:
            self._mark(number, "fleet", now, "the first one: there is nothing to compare it with")
            self.state = self.state.model_copy(update={"fleet": number, "waiting": None})
            return
        able = [node for node, one in self._heard.items() if one.running == fleet and node not in self.state.pins]
        chosen = canaries(number, able, self.settings)
        if chosen:
            self._mark(number, "canary", now, f"beside version {fleet} on {', '.join(chosen)}")
            trial = Trial.of(number, against=fleet, nodes=chosen, began=now)
            self.state = self.state.model_copy(update={"waiting": None, "trial": trial})

    # --- operators ------------------------------------------------------------------------------

    def _obey(self, wish: Wish, now: int) -> list[Say]:
        state, by, why = self.state, wish.by, wish.why
        if wish.version is not None:
            self._version(wish.version)
        if wish.kind in ("pin", "unpin"):
            return self._pin(wish, now)
        if wish.kind == "rollback" and wish.version is None and state.trial is not None:
            return self._end(state.trial, Ended("rolled_back", why), now, by)
        if wish.kind == "rollback":
            target = state.before if wish.version is None else wish.version
            if target is None or target == state.fleet or state.fleet is None:
                raise UsageError("there is no version before it; name one that is kept, see shoal models list")
            return self._promote(target, now, by, why, leaves="rolled_back")
        if wish.version is None:
            raise UsageError(f"{wish.kind} needs a version")
        if wish.kind == "release":
            before = state.before if wish.version == state.fleet else state.fleet
            return self._promote(wish.version, now, by, why, before=before)
        if state.trial is not None:
            raise UsageError(f"version {state.trial.version} is being tried; roll it back first, or wait")
        if wish.version <= (state.fleet or 0):
            raise UsageError(f"the fleet runs version {state.fleet}; only a higher one is tried: release or import it")
        if state.checking not in (None, wish.version):
            self._mark(int(state.checking or 0), "superseded", now, f"version {wish.version} is wanted", by=by)
        self._mark(wish.version, "candidate", now, why, by=by)
        return self._settle(now, checking=wish.version)

    def _pin(self, wish: Wish, now: int) -> list[Say]:
        node, pins, trial = wish.node, dict(self.state.pins), self.state.trial
        if node is None or node not in self._nodes:
            raise UsageError(f"no node {node!r} has {self.model}; there are: {', '.join(self._nodes) or 'none'}")
        if wish.kind == "unpin" and node not in pins:
            raise UsageError(f"{node} is not pinned; pinned are: {', '.join(pins) or 'none'}")
        if trial is not None and node in trial.tallies:
            raise UsageError(f"{node} tries version {trial.version}; roll that back first, or wait")
        version = pins.pop(node) if wish.kind == "unpin" else wish.version
        if version is None:
            raise UsageError("pin needs a version")
        if wish.kind == "pin":
            pins[node] = version
        self._registry.note(Event(now, self.model, version, f"{wish.kind}ned", wish.by, f"{node}: {wish.why}"))
        return self._settle(now, pins=pins)

    # --- keeping and saying ---------------------------------------------------------------------

    def _settle(self, now: int, **changed: object) -> list[Say]:
        """Other facts, and what follows from them for every node."""
        before, self.state = self.state, self.state.model_copy(update=changed)
        self._begin(now)
        if self.state != before:
            self._keep()
        return self._tell(self._nodes, now)

    def _keep(self, **changed: object) -> None:
        self.state = self.state.model_copy(update=changed)
        self._registry.keep_state(self.model, self.state, needed=self.state.needed)

    def _tell(self, nodes: Iterable[str], now: int) -> list[Say]:
        found: list[Say] = []
        for node in nodes:
            told = self._next(node, now)
            if told is not None:
                self._registry.tell(self.model, told)
                self._told[node] = told
                found.append(self._say(told))
        return found

    def _next(self, node: str, now: int) -> Told | None:
        """What to tell a node; None if it was told."""
        state, told, report = self.state, self._told.get(node), self._heard.get(node)
        tries = state.trial is not None and node in state.trial.tallies
        number = state.pins.get(node, state.trial.version if state.trial and tries else state.fleet)
        if number is None:
            return None
        stage, over = ("canary" if tries else "fleet"), self._over(node)
        instead_of = over if over > number else None
        if told is not None and (told.version, told.stage) == (number, stage):
            behind = stage == "fleet" and instead_of not in (None, told.instead_of)  # it runs what we did not know of
            if not behind and now < told.until - self.settings.lease_s * 5e5:
                return None
        counter = 1 + max(now - 1, told.counter if told else 0, report.counter if report else 0)
        until = now + int(self.settings.lease_s * 1e6)
        version = self._version(number)
        return signed(
            version, node, self._key, self._signer, stage, counter=counter, until=until, instead_of=instead_of
        )

    def _over(self, node: str) -> int:
        """The highest version the node may run: what it said, and if it did not answer yet, also what it was told."""
        told, report = self._told.get(node), self._heard.get(node)
        runs = (report.running or 0) if report else 0
        if told is None or (report and report.counter >= told.counter and told.stage == "fleet"):
            return runs
        return max(runs, told.version)

    def _say(self, told: Told) -> Say:
        return Say(self.model, told.node, told.payload, self._version(told.version).artefacts)

    @property
    def _nodes(self) -> list[str]:
        return sorted({*self._told, *self._heard})

    def _version(self, number: int) -> Version:
        return self._registry.version(self.model, number)

    def _incumbent(self) -> Version | None:
        return None if self.state.fleet is None else self._version(self.state.fleet)

    def _mark(
        self,
        number: int,
        stage: Stage,
        now: int,
        why: str,
        metrics: Mapping[str, float] | None = None,
        by: str = OURSELVES,
    ) -> None:
        self._registry.mark(self._version(number), stage, now=now, by=by, why=why, metrics=metrics or {})


def _number(version: Version | None) -> int | None:
    return version.version if version else None


def _scores(outcome: Outcome, score: str) -> str:
    before = outcome.incumbent.get(score)
    return f"{score} {outcome.metrics[score]:.4g}" + ("" if before is None else f", the incumbent has {before:.4g}")
