"""What learns, in one place: rounds, registry, releases and roster of one site. What comes in, and what to say then.

    core = SiteLearning(settings, site="s1", data=Path("cloud-data"), key=key)
    for out in core.on_time(now): …              # opens and closes rounds, takes up wishes; also on_updates, …
    core.all()                                    # everything that should be on the bus, after every connect
    core.questions(), core.on_validated(…)      # a candidate that waits for the simulation

No bus, no clock, no thread: whoever calls brings the time, and says what is returned, artefacts first. It is on the
disk before it is returned. All calls come from one thread, the one it was made in (SQLite's connections are bound to
it). Every version that a round made is a candidate, once, whatever crashes in between; what a round begins with is the
newest learned version, what decides at machines changes by a release only. Other models of the registry (imported ones)
are released beside it. Bounds: `MODELS` models; those of rounds, registry, roster and releases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from cloud.early_reports import MOST_BYTES, EarlyReports
from cloud.learning_settings import LearningSettings
from cloud.registry import FILE, Registry
from cloud.releases import Releases
from cloud.report_gate import ReportGate
from cloud.roster import Roster
from cloud.round_schedule import RoundSchedule
from cloud.round_wishes import refuse
from cloud.roundbook import RoundBook
from cloud.saying import SIGNER, Out, Say
from cloud.validation import Outcome, Question
from messages.clock import SECOND
from messages.errors import BadMessage
from messages.learning import Artefact, ModelReport, Update
from messages.logs import get_logger
from messages.routes import MODEL
from messages.signing import SigningKey

ROUNDS_FILE, NODES_FILE = "rounds.db", "nodes.db"
"""In the cloud's data directory, beside the registry."""
FILES = FILE, ROUNDS_FILE, NODES_FILE
MODELS = 64
UNKNOWN_S = 60
"""A report waits so long for its node's key before it is told that none is known."""

log = get_logger("learning")


class SiteLearning:
    """Of one site."""

    def __init__(self, settings: LearningSettings, *, site: str, data: Path, key: SigningKey) -> None:
        """Goes on where the files in `data` say it was."""
        self.settings, self.site = settings, site
        self._key = key
        self._open = ExitStack()
        self.registry = self._open.enter_context(closing(Registry(data / FILE)))
        self.roster = self._open.enter_context(
            closing(Roster(data / NODES_FILE, told=settings.keys, enrol=settings.enrol))
        )
        self.reports = self._open.enter_context(closing(ReportGate(data / NODES_FILE, self.roster)))
        book = self._open.enter_context(closing(RoundBook(data / ROUNDS_FILE)))
        self.schedule = RoundSchedule(
            settings, site=site, registry=self.registry, roster=self.roster, book=book, key=key
        )
        self._early = EarlyReports()
        self._releases: dict[str, Releases] = {}
        for model in self.registry.models():
            self._of(model)

    def close(self) -> None:
        """Let go of the files."""
        self._open.close()

    # --- what comes in --------------------------------------------------------------------------

    def on_presence(self, node: str, *, online: bool) -> None:
        """A node is there, or not."""
        self.roster.on_presence(node, online=online)

    def on_capability(self, node: str, shown: str | None, now: int) -> None:
        """The key that a node shows."""
        known = node in self.roster.keys
        why = self.roster.on_capability(node, shown, now)
        if why is not None:
            log.error("learning.key_refused", node=node, why=why)
            self.schedule.rounds.dismiss(node)
        elif not known and node in self.roster.keys:
            log.info("learning.node_known", node=node, by="the first key it showed")

    def on_retired(self, node: str, now: int) -> list[Out]:
        """A node that will not be again: what was retained for it is taken back."""
        self.roster.forget(node)
        self.schedule.rounds.dismiss(node)
        self._early.forget(node)
        self.reports.forget(node)
        found: list[Out] = []
        for model, releases in self._releases.items():
            found += _outs(releases.forget(f"{self.site}/{node}", now))
            found.append(Out(MODEL, {"site": self.site, "node": node, "model": model}, None))
        return found

    def on_said(self, payload: bytes) -> None:
        """A round, as it is retained on the bus."""
        self.schedule.on_said(payload)

    def on_updates(self, came: Sequence[tuple[str, int, Update]], now: int) -> list[Out]:
        """What nodes learned; the round closes with the last one that it waits for."""
        return self.schedule.on_updates(came, now)

    def on_bad(self, node: str, why: str, now: int) -> None:
        """What came as an update of this node was none."""
        self.schedule.rounds.on_bad(node, why, now)

    def on_reports(self, came: Iterable[tuple[str, ModelReport, bytes]], now: int) -> list[Out]:
        """What nodes say of the models they run, and its very bytes."""
        found: list[Out] = []
        with self.reports.together(), self.registry.together():
            for node, report, payload in came:
                releases = self._of(report.model)
                if len(payload) > MOST_BYTES:
                    self.reports.refuse(node, "size", f"{len(payload)} bytes; {MOST_BYTES} are read")
                elif releases is None or node not in self.roster.keys:
                    self._early.keep(node, report, payload, now)
                else:
                    found += self._reported(releases, node, report, payload, now)
        return found

    def on_time(self, now: int) -> list[Out]:
        """Rounds open and close, wishes are taken up, leases renewed."""
        for node in self.roster.on_time(now):
            log.info("learning.node_known", node=node, by="the first key it showed")
        found = self.schedule.on_time(now)
        for model in self.registry.models():
            if model != self.settings.model:
                refuse(self.registry, model=model, learned=self.settings.model)
            releases = self._of(model)
            if releases is None:
                continue
            early = self._early.take(model, self.roster.keys)
            if early:
                with self.reports.together(), self.registry.together():
                    for node, one in early:
                        found += self._reported(releases, node, one.report, one.payload, now)
            found += _outs(releases.on_time(now))
        self._tell_unknown(now)
        return found

    def questions(self) -> Iterator[tuple[str, Question]]:
        """Candidates that wait for the simulation."""
        for model, releases in self._releases.items():
            question = releases.to_validate()
            if question is not None:
                yield model, question

    def on_validated(self, model: str, question: Question, outcome: Outcome, now: int) -> list[Out]:
        """The simulation has answered."""
        return _outs(self._releases[model].on_validated(question, outcome, now))

    # --- what there is --------------------------------------------------------------------------

    def all(self) -> list[Out]:
        """Everything that should be on the bus."""
        found = self.schedule.all()
        for releases in self._releases.values():
            found += _outs(releases.all())
        return found

    def artefacts(self) -> set[Artefact]:
        """Those that should be there; others may be taken back."""
        found = {one for releases in self._releases.values() for one in releases.artefacts()}
        return found | {one for out in self.schedule.all() for one in out.artefacts}

    def data(self, artefact: Artefact) -> bytes:
        """Its bytes."""
        rounds = self.schedule.rounds
        if rounds.is_open and rounds.current is not None and artefact == rounds.current.base:
            return rounds.base_bytes
        return self.registry.data(artefact.sha256)

    def waits(self, until: int) -> bool:
        """Would a round that is open close at `until` without nodes that are there, and were not late last time?"""
        return self.schedule.waits(until)

    def figures(self) -> dict[str, float]:
        """How things stand."""
        releases = self._releases.get(self.settings.model)
        state = releases.state if releases is not None else None
        return {
            **self.schedule.figures(),
            "learning_nodes": float(len(self.roster.able)),
            "learning_known": float(len(self.roster.keys)),
            "learning_reports_refused": float(self.reports.refused),
            "learning_fleet": float((state.fleet if state else None) or 0),
            "learning_trial": float(state.trial.version if state and state.trial else 0),
        }

    # --- releases -------------------------------------------------------------------------------

    def _reported(self, releases: Releases, node: str, report: ModelReport, payload: bytes, now: int) -> list[Out]:
        if not self.reports.believes(node, report, payload):
            return []
        self._early.drop(node, report.model)
        try:
            return _outs(releases.on_report(f"{self.site}/{node}", report, now))
        except BadMessage as error:
            self.reports.refuse(node, "nodes", str(error))
            return []

    def _tell_unknown(self, now: int) -> None:
        for node in self._early.unknown(self.roster.keys, now - UNKNOWN_S * SECOND):
            key = f'[learning.keys] "{node}", as shoal edge --check prints it there'
            self.reports.unknown(node, f"no key of it is known; name it in the cloud's settings: {key}")

    def _quarantined(self) -> set[str]:
        return {f"{self.site}/{node}" for node in self.schedule.rounds.quarantined}

    def _of(self, model: str) -> Releases | None:
        """Those of a model of the registry; None if it has no version of it."""
        known = self._releases.get(model)
        if known is None and len(self._releases) < MODELS and model in self.registry.models():
            settings, prefix = self.settings.releases, f"{self.site}/"
            known = Releases(
                *(self.registry, model, settings),
                key=self._key,
                signer=SIGNER,
                there=lambda node: node.removeprefix(prefix) in self.roster.online,
                quarantined=self._quarantined,
            )
            self._releases[model] = known
        return known


def _outs(says: Iterable[Say]) -> list[Out]:
    return [Out(MODEL, say.ids, say.payload, say.artefacts) for say in says]
