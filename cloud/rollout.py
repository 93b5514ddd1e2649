"""The nodes of a model: what each says it runs, what each was told, and when it is told again. A pure core.

    rollout = Rollout(registry, "cell", key=key, signer="cloud", lease_s=30 * 86_400.0)
    rollout.on_report("s1/humid", report, now)
    for say in rollout.tell({"s1/humid": Aim(7, "fleet")}, now): …      # what this node was not told yet
    for say in rollout.all(): …                                         # after every connect

What is told is on disk before it is returned, with a counter above every one that was told or answered. A node is told
again when half of the lease is over, when it runs a higher version that the cloud did not know of, and when it refused
what the fleet runs, as most reasons pass (a broken part, a full disk, a clock that was wrong): after `AGAIN_S`, then
after twice as long each time, up to `AGAIN_MOST_S`, until it runs it. How often it was told so is forgotten when the
cloud restarts: it begins at `AGAIN_S` then.

Bounds: `NODES` nodes, of each one report, one release and one refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cloud.registry import NODES, Registry
from cloud.saying import Say, signed
from cloud.versions import Told
from messages.clock import SECOND
from messages.errors import BadMessage
from messages.learning import Artefact, ModelReport
from messages.signing import SigningKey

AGAIN_S, AGAIN_MOST_S = 3_600, 86_400
AHEAD_S = 30 * 86_400
"""Counters are the time, so what a node says that it answered is believed up to so far ahead: a node may lie, and above
the highest number there is none that it would take."""


class Aim(NamedTuple):
    """What a node should run."""

    version: int
    stage: str


class _Refusal(NamedTuple):
    """Of what a node was told."""

    version: int
    counter: int
    at: int
    wait_s: int

    def over(self, now: int) -> bool:
        """Is it time to tell it again? A clock that was set back is no reason to wait longer."""
        return not self.at <= now < self.at + self.wait_s * SECOND


class Rollout:
    """Of one model."""

    def __init__(self, registry: Registry, model: str, *, key: SigningKey, signer: str, lease_s: float) -> None:
        """Goes on where the registry's file says it was."""
        self.model, self.lease_s = model, lease_s
        self._registry, self._key, self._signer = registry, key, signer
        self._told = registry.told(model)
        self._heard: dict[str, ModelReport] = {}
        self._refusals: dict[str, _Refusal] = {}

    @property
    def nodes(self) -> list[str]:
        """Who said something of the model, or was told."""
        return sorted({*self._told, *self._heard})

    def run(self, version: int) -> list[str]:
        """Nodes that say they run it."""
        return [node for node, report in self._heard.items() if report.running == version]

    def counter(self, node: str, version: int) -> int | None:
        """Of the release a node was told, if that is of this version."""
        told = self._told.get(node)
        return told.counter if told is not None and told.version == version else None

    def on_report(self, node: str, report: ModelReport, now: int) -> ModelReport | None:
        """What a node says; None if it said something later. BadMessage beyond `NODES` nodes."""
        last = self._heard.get(node)
        if last is not None and report.seq < last.seq:
            return None
        if last is None and node not in self._told and len({*self._heard, *self._told}) >= NODES:
            raise BadMessage(f"{node}: {NODES} nodes have {self.model}; release it under another name to more of them")
        self._heard[node] = report
        self._weigh_refusal(node, report, now)
        return report

    def forget(self, node: str) -> None:
        """A node that is no more. What it was told is to be cleared."""
        self._heard.pop(node, None)
        self._refusals.pop(node, None)
        if self._told.pop(node, None) is not None:
            self._registry.untell(self.model, node)

    def tell(self, aims: Mapping[str, Aim], now: int) -> list[Say]:
        """What these nodes should run, to those who were not told, or are to be told again."""
        found: list[Say] = []
        for node, aim in aims.items():
            told = self._next(node, aim, now)
            if told is not None:
                self._registry.tell(self.model, told)
                self._told[node] = told
                found.append(Say(self.model, node, told.payload, self._artefacts(told.version)))
        return found

    def all(self) -> list[Say]:
        """Everything that should be on the bus."""
        artefacts = {version: self._artefacts(version) for version in self._versions}
        return [Say(self.model, told.node, told.payload, artefacts[told.version]) for told in self._told.values()]

    def artefacts(self) -> set[Artefact]:
        """Those that should be; others may be cleared."""
        return {one for version in self._versions for one in self._artefacts(version)}

    # --- private ----------------------------------------------------------------------------------

    def _next(self, node: str, aim: Aim, now: int) -> Told | None:
        """What to tell a node; None if it was told."""
        told, report, over = self._told.get(node), self._heard.get(node), self._over(node)
        instead_of = over if over > aim.version else None
        if told is not None and (told.version, told.stage) == aim:
            behind = aim.stage == "fleet" and instead_of not in (None, told.instead_of)  # it runs what we did not know
            refusal = self._refusals.get(node)
            again = refusal is not None and refusal.counter == told.counter and refusal.over(now)
            if not behind and not again and now < told.until - self.lease_s * 5e5:
                return None
        answered = min(report.counter, now + AHEAD_S * SECOND) if report else 0
        counter = 1 + max(now - 1, told.counter if told else 0, answered)
        until = now + int(self.lease_s * 1e6)
        return signed(
            *(self._registry.version(self.model, aim.version), node, self._key, self._signer, aim.stage),
            counter=counter,
            until=until,
            instead_of=instead_of,
        )

    def _over(self, node: str) -> int:
        """The highest version the node may run: what it said, and if it did not answer yet, also what it was told."""
        told, report = self._told.get(node), self._heard.get(node)
        runs = (report.running or 0) if report else 0
        if told is None or (report and report.counter >= told.counter and told.stage == "fleet"):
            return runs
        return max(runs, told.version)

    def _weigh_refusal(self, node: str, report: ModelReport, now: int) -> None:
        """Of a report that answers what the node was told. A canary that refuses is told the incumbent at once, as its
        trial ends: there is nothing to tell again."""
        told, last = self._told.get(node), self._refusals.get(node)
        if told is None or report.counter != told.counter:
            return
        if not report.refused:
            self._refusals.pop(node, None)
        elif last is None or last.version != told.version:
            self._refusals[node] = _Refusal(told.version, told.counter, now, AGAIN_S)
        elif last.counter != told.counter:
            self._refusals[node] = _Refusal(told.version, told.counter, now, min(2 * last.wait_s, AGAIN_MOST_S))

    @property
    def _versions(self) -> set[int]:
        return {told.version for told in self._told.values()}

    def _artefacts(self, version: int) -> tuple[Artefact, ...]:
        return self._registry.version(self.model, version).artefacts
