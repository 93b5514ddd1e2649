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

Who was told what, and when again, is in `cloud.rollout`. Bounds: its nodes; one trial at a time, its pairs and its time
bounded; of candidates that wait only the newest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

from cloud.registry import Registry
from cloud.release_state import State
from cloud.rollout import Rollout
from cloud.saying import Say
from cloud.trials import Ended, ReleaseSettings, Trial, canaries
from cloud.validation import MAX_METRICS, Outcome, Question, objection
from cloud.versions import ROUND_KINDS, Event, Stage, Version, Wish
from messages.errors import UsageError
from messages.learning import Artefact, ModelReport
from messages.logs import get_logger
from messages.signing import SigningKey

log = get_logger("learning")

OURSELVES = "shoal"
"""Who decides where no operator does."""


class Releases:
    """Of one model."""

    def __init__(
        self,
        registry: Registry,
        model: str,
        settings: ReleaseSettings,
        *,
        key: SigningKey,
        signer: str = "cloud",
        there: Callable[[str], bool] = lambda _: True,
        quarantined: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Goes on where the registry's file says it was. `there`: is this node's connection up? `quarantined`:
        nodes that run what they are told, but whose word decides nothing."""
        self.model, self.settings = model, settings
        self._registry, self._there, self._quarantined = registry, there, quarantined
        kept = registry.state(model)
        self.state = registry.whole(State, kept, table="model", row=model) if kept else State()
        self._waits_for: int | None = None
        """version of which it was said that it has no canary"""
        self._rollout = Rollout(registry, model, key=key, signer=signer, lease_s=settings.lease_s)

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
                sound = {name: value for name, value in outcome.metrics.items() if math.isfinite(value)}
                self._mark(number, "refused", now, why, dict(list(sound.items())[:MAX_METRICS]))
                return self._settle(now, checking=None)
            older = self.state.waiting
            if older is not None:
                self._mark(older, "superseded", now, f"version {number} is newer")
            self._mark(number, "validated", now, _scores(outcome, self.settings.validation.score), outcome.metrics)
            return self._settle(now, checking=None, waiting=number)

    def on_report(self, node: str, report: ModelReport, now: int) -> list[Say]:
        """What a node says; by its first report it asks for the model. BadMessage beyond the nodes of a rollout."""
        heard = self._rollout.on_report(node, report, now) if report.model == self.model else None
        if heard is None:
            return []
        with self._registry.together():
            self._registry.lift(self.model, heard.running or 0)
            trial = self.state.trial
            if trial is not None and node in trial.tallies:
                if node in self._quarantined():
                    return self._without(trial, [node], now)
                return self._weigh(trial, node, heard, now)
            if self.state.waiting is not None:
                return self._settle(now)
            return self._tell([node], now)

    def on_time(self, now: int) -> list[Say]:
        """Wishes are taken up, candidates looked for, leases renewed, trials ended that took too long."""
        found: list[Say] = []
        wishes = [one for one in self._registry.wishes(self.model) if one.kind not in ROUND_KINDS]
        for wish in wishes:
            with self._registry.together():
                try:
                    found += self._obey(wish, now)
                    self._registry.answer(wish.id, "done")
                except UsageError as error:
                    self._registry.answer(wish.id, f"refused: {error}")
        with self._registry.together():
            trial = self.state.trial
            out = sorted(set(self._quarantined()) & trial.tallies.keys()) if trial is not None else []
            if trial is not None and out:
                return found + self._without(trial, out, now)
            late = trial.late(self.settings, now) if trial is not None else None
            if trial is not None and late is not None:
                return found + self._end(trial, late, now)
            if trial is None and self.state.checking is None:
                return found + self._look(now)
            return found + self._tell(self._rollout.nodes, now)

    def forget(self, node: str, now: int) -> list[Say]:
        """A node that is no more: nobody waits for what it would say. What it was told is to be cleared."""
        self._rollout.forget(node)
        state = self.state
        trial = state.trial.without(node) if state.trial else None
        pins = {one: version for one, version in state.pins.items() if one != node}
        with self._registry.together():
            if trial is not None and not trial.tallies:
                self.state = state.model_copy(update={"pins": pins})
                return self._end(trial, trial.unclear(self.settings, "its last canary was retired"), now)
            if (trial, pins) != (state.trial, state.pins):
                self._keep(trial=trial, pins=pins)
        return []

    # --- what goes out --------------------------------------------------------------------------

    def all(self) -> list[Say]:
        """Everything that should be on the bus."""
        return self._rollout.all()

    def artefacts(self) -> set[Artefact]:
        """Those that should be; others may be cleared."""
        return self._rollout.artefacts()

    # --- trials ---------------------------------------------------------------------------------

    def _weigh(self, trial: Trial, node: str, report: ModelReport, now: int) -> list[Say]:
        """A canary has spoken."""
        before, trial = trial, trial.having(node, report, now)
        if trial is before:
            return []  # said before something we heard: it comes again
        told = self._rollout.counter(node, trial.version)
        ended = trial.ended(node, report, self.settings, now, told=told)
        if ended is not None:
            return self._end(trial, ended, now)
        self._keep(trial=trial)
        return self._tell([node], now)

    def _without(self, trial: Trial, nodes: Iterable[str], now: int) -> list[Say]:
        """Canaries whose word decides nothing any more: what they said does not count, and they get the incumbent."""
        why = "is in quarantine: what it says does not count"
        for node in nodes:
            trial = trial.without(node)
            self._registry.note(Event(now, self.model, trial.version, "canary_left", OURSELVES, f"{node} {why}"))
        if not trial.tallies:
            return self._end(trial, Ended("inconclusive", f"inconclusive, its last canary {why}"), now)
        return self._settle(now, trial=trial)

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
        for other in sorted(state.under_way - {number}):
            self._mark(other, "superseded", now, f"version {number} was released", by=by)
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
        pins = self.state.pins
        out = {*pins, *self._quarantined()}
        able = [node for node in self._rollout.run(fleet) if node not in out and self._there(node)]
        chosen = canaries(number, able, self.settings)
        if not chosen and self.settings.named and self._waits_for != number:
            self._waits_for = number
            named = ", ".join(self.settings.named[:5])
            why = f"for {named} to run version {fleet}, not pinned, not in quarantine; there {'are' if able else 'is'} "
            why += f"{', '.join(able[:5]) or 'none'}: correct releases.named, unpin, or lift"
            log.warning("release.waits", model=self.model, version=number, why=why)
            self._registry.note(Event(now, self.model, number, "waits", OURSELVES, why))
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
        if wish.kind == "canary":
            if state.waiting not in (None, wish.version):
                self._mark(int(state.waiting or 0), "superseded", now, f"version {wish.version} is wanted", by=by)
            self._mark(wish.version, "validated", now, f"without simulation: {why}", by=by)
            return self._settle(now, checking=None, waiting=wish.version)
        self._mark(wish.version, "candidate", now, why, by=by)
        return self._settle(now, checking=wish.version)

    def _pin(self, wish: Wish, now: int) -> list[Say]:
        node, pins, trial = wish.node, dict(self.state.pins), self.state.trial
        nodes = self._rollout.nodes
        if node is None or node not in nodes:
            raise UsageError(f"no node {node!r} has {self.model}; there are: {', '.join(nodes) or 'none'}")
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
        return self._tell(self._rollout.nodes, now)

    def _keep(self, **changed: object) -> None:
        self.state = self.state.model_copy(update=changed)
        self._registry.keep_state(self.model, self.state, needed=self.state.needed)

    def _tell(self, nodes: Iterable[str], now: int) -> list[Say]:
        aims = {node: aim for node in nodes if (aim := self.state.aim(node)) is not None}
        return self._rollout.tell(aims, now)

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
