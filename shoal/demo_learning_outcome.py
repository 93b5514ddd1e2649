"""What came of cells that learn, as the disk of the cloud says, and what speaks against it.

learned = learned_of(files.cloud, view, cells)
learned.failures, learned.ended(version), learned.course(version), learned.refused()
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.registry import FILE, Registry
from cloud.release_state import State
from cloud.releases import OURSELVES
from cloud.roundbook import RoundBook
from cloud.site_learning import ROUNDS_FILE
from cloud.versions import Event, Version
from messages.learning import Closed
from shoal.demo_learning import MODEL, STRANGER
from shoal.demo_learning_view import REACH, LearningView

ROUNDS_LEAST = 4
"""Rounds that must have made a version."""
REACHED = ("fleet", "former")
UNDONE = ("rolled_back", "inconclusive")


@dataclass(frozen=True)
class Learned:
    """The figures of a run."""

    rounds: Mapping[int, Closed]
    returns: Mapping[int, float]
    """round → mean return per decision of its honest nodes, since the round before"""
    costs: Mapping[int, float]
    """the same of carbon, kg"""
    spoilt: frozenset[int]
    """rounds before which the bad release decided, too"""
    versions: tuple[Version, ...]
    history: tuple[Event, ...]
    fleet: int | None
    before: int | None
    """what the fleet ran before: a node may still do so at the end"""
    trial: int | None
    running: Mapping[str, int | None]
    """node → version"""
    evidence: Mapping[str, tuple[str, ...]]
    """node in quarantine → what is held against it"""
    bad: int | None
    cells: Mapping[str, Mapping[str, Any]]
    """as the simulator counted"""

    @property
    def failures(self) -> tuple[str, ...]:
        """What speaks against it, in words for people."""
        return (*self._of_rounds(), *self._of_the_stranger(), *self._of_the_bad_release(), *self._of_nodes())

    def refused(self) -> dict[str, str]:
        """Node → the rounds in which it was refused, by reason, with what was said first."""
        found: dict[str, dict[str, tuple[str, list[int]]]] = {}
        for number, one in self.rounds.items():
            for node, why in one.refused.items():
                _, rounds = found.setdefault(node, {}).setdefault(why.partition(":")[0], (why, []))
                rounds.append(number)
        return {
            node: "; ".join(f"round {', '.join(map(str, rounds))}: {why}" for why, rounds in reasons.values())
            for node, reasons in found.items()
        }

    def ended(self, version: int | None) -> Event | None:
        """How its trial ended, if it was undone."""
        undone = [one for one in self.history if one.version == version and one.what in UNDONE]
        return undone[-1] if undone else None

    def tried_on(self, version: int) -> str:
        """Where it was tried."""
        tried = [one.why for one in self.history if one.version == version and one.what == "canary"]
        return tried[-1] if tried else ""

    def why_of(self, version: int) -> str:
        """Its last line of history."""
        lines = [one.why for one in self.history if one.version == version]
        return lines[-1] if lines else ""

    def course(self, version: Version) -> str:
        """Its stages, and why the last one."""
        lines = [one for one in self.history if one.version == version.version]
        return f"{' → '.join(one.what for one in lines)} ({lines[-1].why})" if lines else version.stage

    # --- private ----------------------------------------------------------------------------------

    def _of_rounds(self) -> list[str]:
        made = sum(one.version is not None for one in self.rounds.values())
        found = []
        if made < ROUNDS_LEAST:
            found.append(f"{made} rounds of learning made a version; {ROUNDS_LEAST} should have")
        reached = [one.version for one in self.versions if one.origin.startswith("round ") and one.stage in REACHED]
        if len(reached) < REACH:
            found.append(f"{len(reached)} versions that were learned reached all; {REACH} should have")
        course = [self.returns[number] for number in sorted(self.returns) if number not in self.spoilt]
        later = course[1:][-2:]  # one round is a day of the cells, and days differ
        if not later or sum(later) / len(later) <= course[0]:
            said = ", ".join(f"{value:+.1f}" for value in course) or "nothing"
            found.append(f"the cells learned nothing: earned per decision by round {said}")
        return found

    def _of_the_stranger(self) -> list[str]:
        found = [
            f"round {number} took the poisoned update of {STRANGER}"
            for number, one in self.rounds.items()
            if STRANGER in one.taken
        ]
        if not any(STRANGER in one.refused for one in self.rounds.values()):
            found.append(f"no update of {STRANGER} was refused, though all of them were poisoned")
        if STRANGER not in self.evidence:
            found.append(f"{STRANGER} is not in quarantine")
        found += [f"{node} is in quarantine, and is honest" for node in self.evidence if node != STRANGER]
        return found

    def _of_the_bad_release(self) -> list[str]:
        if self.bad is None:
            return ["no bad release was tried"]
        ended = self.ended(self.bad)
        if any(one.version == self.bad and one.what == "fleet" for one in self.history):
            return [f"version {self.bad} is bad, and was released to all"]
        if ended is None or ended.what != "rolled_back":
            return [f"version {self.bad} is bad, and was not rolled back: {self.why_of(self.bad) or 'not tried'}"]
        return [] if ended.by == OURSELVES else [f"version {self.bad} was not rolled back by itself, but by {ended.by}"]

    def _of_nodes(self) -> list[str]:
        allowed = {self.fleet, self.before, self.trial}
        return [
            f"{node} runs version {number}, and {self.fleet} is released to all"
            for node, number in self.running.items()
            if number not in allowed
        ]


def learned_of(cloud: Path, view: LearningView, cells: Mapping[str, Mapping[str, Any]]) -> Learned:
    """Read what a run left; `cells`: the simulator's counters."""
    evidence: dict[str, tuple[str, ...]] = {}
    if (cloud / ROUNDS_FILE).exists():
        with closing(RoundBook(cloud / ROUNDS_FILE)) as book:
            gate = book.state().gate
            evidence = {
                node: tuple(f"round {line.round}, {line.reason}: {line.text}" for line in gate.nodes[node].evidence)
                for node in gate.quarantined
            }
    versions: list[Version] = []
    history: list[Event] = []
    state = State()
    if (cloud / FILE).exists():
        with closing(Registry(cloud / FILE, make=False)) as registry:
            versions, history = registry.versions(MODEL), registry.history(MODEL, None, 10_000)
            raw = registry.state(MODEL)
            state = State.model_validate_json(raw) if raw else state
    return Learned(
        rounds={number: one.closed for number, one in sorted(view.rounds.items()) if one.closed is not None},
        returns=view.returns,
        costs=view.costs,
        spoilt=frozenset(view.spoilt),
        versions=tuple(versions),
        history=tuple(history),
        fleet=state.fleet,
        before=state.before,
        trial=state.trial.version if state.trial else None,
        running={node: view.reports[node].running for node in sorted(view.reports) if node in view.learns},
        evidence=evidence,
        bad=view.bad,
        cells=cells,
    )
