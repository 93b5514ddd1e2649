"""A candidate beside the incumbent on a few nodes: what counts, and what ends it. Pure.

    trial = Trial.of(5, against=4, nodes=canaries(5, able, settings), began=now)
    trial = trial.having("s1/humid", report, now)
    trial.ended("s1/humid", report, settings, now)    # None, or how and why

A safety trip, an output that is no number, and a refusal end it at once, on whichever canary; else `cloud.canary` says
when enough was seen. A canary that never spoke, or fell silent, lets nothing through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cloud.canary import CanaryTest, Carbon, Tally, decide, judge, tally_of
from cloud.validation import ValidationSettings
from messages.learning import Arm, ModelReport
from messages.settings import Section

YEAR_S = 365 * 86_400.0
NodeOfSite = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}/[a-z0-9][a-z0-9_-]{0,31}$")]
How = Literal["rolled_back", "as_good", "inconclusive"]


class ReleaseSettings(Section):
    """How versions come to the nodes."""

    canaries: int = Field(2, ge=1, le=1_000, description="nodes that try a candidate first, drawn by its number")
    named: tuple[NodeOfSite, ...] = Field(
        (), max_length=1_000, description="the canaries, `<site>/<node>`; empty: drawn"
    )
    validation: ValidationSettings = Field(ValidationSettings(), description="what must hold in simulation")
    test: CanaryTest = Field(CanaryTest(), description="how long canaries are watched")
    trial_s: float = Field(30 * 86_400.0, gt=0, le=YEAR_S, description="then a trial is inconclusive (plant time)")
    silent_s: float = Field(
        86_400.0, gt=0, le=YEAR_S, description="a canary that said nothing for so long lets nothing through"
    )
    inconclusive: Literal["keep", "promote"] = Field("keep", description="keep the incumbent, or take the candidate")
    lease_s: float = Field(
        30 * 86_400.0, gt=0, le=YEAR_S, description="a release may be taken up so long; renewed at half of it"
    )


class Ended(NamedTuple):
    """What became of a trial."""

    how: How
    why: str


class Trial(BaseModel):
    """As it is kept."""

    model_config = ConfigDict(frozen=True)

    version: int
    against: int
    began: int
    tallies: dict[str, Tally]
    heard: dict[str, int] = {}
    """node → number of its last report: what has a lower one comes again, and says nothing"""
    spoke: dict[str, int] = {}
    """node → when that came: whether it fell silent"""
    decisions: dict[str, int] = {}

    @classmethod
    def of(cls, version: int, *, against: int, nodes: Iterable[str], began: int) -> Trial:
        """Nothing was heard yet."""
        return cls(version=version, against=against, began=began, tallies=dict.fromkeys(nodes, Tally()))

    def without(self, node: str) -> Trial:
        """One canary less: it will not be again."""
        return self.model_copy(
            update={
                name: {one: value for one, value in getattr(self, name).items() if one != node}
                for name in ("tallies", "heard", "spoke", "decisions")
            }
        )

    def having(self, node: str, report: ModelReport, now: int) -> Trial:
        """With what a canary says; nothing new if it said so before, or something later."""
        if report.seq < self.heard.get(node, 0):
            return self
        arms = {arm.version: arm for arm in report.arms}
        mine, other = (arms.get(one, Arm(version=one)) for one in (self.version, self.against))
        tallies, limit = dict(self.tallies), report.cost_limit
        carbon = None if limit is None else Carbon(limit, other.cost, mine.cost)
        for paired in report.pairs:
            if (paired.version, paired.against) == (self.version, self.against):
                known, level = tallies[node], other.mean
                tallies[node] = tally_of(known, paired, level=level, session=report.session, carbon=carbon)
        return self.model_copy(
            update={
                "tallies": tallies,
                "heard": {**self.heard, node: report.seq},
                "spoke": {**self.spoke, node: now},
                "decisions": {**self.decisions, node: mine.decisions + other.decisions},
            }
        )

    def ended(
        self, node: str, report: ModelReport, settings: ReleaseSettings, now: int, *, told: int | None
    ) -> Ended | None:
        """What this report, which is counted already, ends. `told`: counter of the node's canary release."""
        if report.refused and report.counter == told:
            return Ended("rolled_back", f"{node}: {report.refused}")
        for arm in report.arms:
            if arm.version == self.version and arm.non_finite:
                return Ended("rolled_back", f"{node}: its output was no number")
            if arm.version == self.version and arm.trips:
                return Ended("rolled_back", f"{node}: safety did not let {arm.trips} of its decisions pass")
        decision = decide(self.tallies, settings.test)
        if decision == "worse":
            return Ended("rolled_back", f"worse: {self.figures(settings.test)}")
        if decision == "emits_more":
            return Ended("rolled_back", f"emits more: {self.carbon()}")
        silent = any(now - at > settings.silent_s * 1e6 for at in self.spoke.values())
        if decision == "as_good" and not silent:
            return Ended("as_good", f"as good: {self.figures(settings.test)}")
        return self.unclear(settings, "enough was seen") if decision == "inconclusive" else None

    def late(self, settings: ReleaseSettings, now: int) -> Ended | None:
        """Whether its time is over, or a canary is silent: one that is gone must not hold up all other releases."""
        silent = [node for node in self.tallies if now - self.spoke.get(node, self.began) > settings.silent_s * 1e6]
        if silent:
            why = f"{', '.join(silent[:5])} said nothing for {settings.silent_s:g} s"
            return Ended("inconclusive", f"inconclusive, {why}: {self.figures(settings.test)}")
        over = now - self.began >= settings.trial_s * 1e6
        return self.unclear(settings, "its time is over") if over else None

    def unclear(self, settings: ReleaseSettings, why: str) -> Ended:
        """By the declared policy."""
        how: How = "as_good" if settings.inconclusive == "promote" else "inconclusive"
        return Ended(how, f"inconclusive, {why}: {self.figures(settings.test)}")

    def carbon(self) -> str:
        """What canaries that are beyond their limit emit, in a line."""
        found = [
            f"{node} {one.emits:.3g} kg per decision, {-one.saved.mean:.3g} more than the incumbent, "
            f"allowed {one.limit:.3g}"
            for node, one in self.tallies.items()
            if one.beyond and one.saved is not None
        ]
        return "; ".join(found[:3])

    def figures(self, test: CanaryTest) -> str:
        """What was seen, in a line."""
        seen = judge(self.tallies, test)
        text = f"{seen.pairs} pairs, {sum(self.decisions.values())} decisions"
        if seen.difference is None:
            return text
        low, high = ("?" if one is None else f"{one:+.1%}" for one in (seen.low, seen.high))
        return f"{text}, {seen.difference:+.1%} of the incumbent's return ({low} … {high})"


def canaries(version: int, able: Iterable[str], settings: ReleaseSettings) -> list[str]:
    """Those of the nodes that try this version: the named ones, or some drawn by its number."""
    found = sorted(node for node in able if not settings.named or node in settings.named)
    if settings.named:
        return found
    found.sort(key=lambda node: hashlib.sha256(f"{version} {node}".encode()).digest())
    return sorted(found[: settings.canaries])
