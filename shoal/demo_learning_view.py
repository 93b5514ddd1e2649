"""What the demo shows of cells that learn: rounds, returns, what runs where, who was refused. From the bus alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from messages.clock import SECOND
from messages.contracts import Envelope
from messages.learning import ModelReport, Release, Round, Update
from messages.observe import Watcher
from messages.routes import MODEL, MODEL_REPORT, ROUND, UPDATE
from shoal.shop_view import SwarmView

ROUNDS = 5
"""Rounds that make a version, before the demo may end."""
REACH = 2
"""Versions that rounds made and that were released to all, before the demo may end."""
LONGEST_H = 14.0
"""Plant hours after which the demo waits for learning no longer."""
SHOWN = 6
"""Rounds whose returns are drawn, the last ones."""


@dataclass
class LearningView(SwarmView):
    """`learns`: nodes that decide for cells. `stranger`: one of the demo's own that sends poison."""

    learns: frozenset[str] = frozenset()
    stranger: str = ""
    rounds: dict[int, Round] = field(default_factory=dict)
    """closed ones by number"""
    open: Round | None = None
    updates: dict[int, dict[str, Update]] = field(default_factory=dict)
    """round → node → what it sent, without the bytes"""
    reports: dict[str, ModelReport] = field(default_factory=dict)
    tried: dict[int, set[str]] = field(default_factory=dict)
    """version → its canaries"""
    fleet: int | None = None
    for_all: set[int] = field(default_factory=set)
    """versions that were"""
    taken_back: set[int] = field(default_factory=set)
    bad: int | None = None
    """the version that an operator imported"""
    spoilt: set[int] = field(default_factory=set)
    """rounds whose cells were also decided for by it"""
    _over: bool = False
    """it was taken back when the last round was closed"""

    @property
    def finished(self) -> bool:
        """The shop is done, and everything that was to be shown has happened, or has had its time."""
        late = self.now - self.start_at > LONGEST_H * 3600 * SECOND
        return super().finished and (late or self.taught)

    @property
    def taught(self) -> bool:
        """Rounds were learned, what they made reached all, the stranger is locked out, the bad release taken back."""
        closed = [one.closed for one in self.rounds.values() if one.closed is not None]
        made = [one.version for one in closed if one.version is not None]
        return (
            len(made) >= ROUNDS and len(self.for_all.intersection(made)) >= REACH
            and self.stranger in self.quarantined and self.bad is not None
            and self.bad in self.taken_back
        )  # fmt: skip

    @property
    def quarantined(self) -> list[str]:
        """By the last round that was closed."""
        closed = self.rounds[max(self.rounds)].closed if self.rounds else None
        return closed.quarantined if closed else []

    @property
    def returns(self) -> dict[int, float]:
        """Round → mean return per decision that its honest nodes had since the one before."""
        return self._means("mean_return")

    @property
    def costs(self) -> dict[int, float]:
        """The same of carbon, kg."""
        return self._means("mean_cost")

    def _means(self, name: str) -> dict[int, float]:
        found = {}
        for number, sent in sorted(self.updates.items()):
            values = [getattr(one.head, name) for node, one in sent.items() if node in self.learns]
            known = [value for value in values if value is not None]
            if known:
                found[number] = sum(known) / len(known)
        return found

    async def follow(self, watcher: Watcher) -> None:
        """Take in what the bus says, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().follow(watcher))
            group.create_task(self._rounds(watcher))
            group.create_task(self._updates(watcher))
            group.create_task(self._releases(watcher))
            group.create_task(self._reports(watcher))

    async def _rounds(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(ROUND, site=self.plant.site):
            said: Envelope[Round] | None = seen.message
            if said is not None:
                self.on_round(said.body)

    async def _updates(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(UPDATE, site=self.plant.site):
            update: Update | None = seen.message
            if update is not None:
                small = update.model_copy(update={"data": b""})
                self.updates.setdefault(update.head.round, {}).setdefault(seen.ids["node"], small)

    async def _releases(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(MODEL, site=self.plant.site):
            said: Envelope[Release] | None = seen.message
            if said is not None:
                self.on_release(seen.ids["node"], said.body)

    async def _reports(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(MODEL_REPORT, site=self.plant.site):
            report: ModelReport | None = seen.message
            if report is not None:
                node = seen.ids["node"]
                before = self.reports.get(node)
                if report.refused and (before is None or before.refused != report.refused):
                    self.say(f"{node} refuses a release: {report.refused}", "bold red")
                self.reports[node] = report

    def on_round(self, asked: Round) -> None:
        """A round was opened or closed."""
        closed, before = asked.closed, self.quarantined
        if closed is None:
            if self.open is None or self.open.round < asked.round:
                self.say(f"round {asked.round} of learning begins with version {asked.base_version}", "magenta")
            self.open = asked
            return
        if asked.round in self.rounds:
            return
        self.rounds[asked.round], self.open = asked, None
        if self.bad in self.tried and not self._over:
            self.spoilt.add(asked.round)
            self._over = self.bad in self.taken_back
        made = "too few took part" if closed.version is None else f"version {closed.version}"
        earned = self.returns.get(asked.round)
        text = "" if earned is None else f"; a decision earned {earned:+.1f}"
        self.say(f"round {asked.round}: {made} by {len(closed.taken)} nodes{text}", "magenta")
        for node, why in closed.refused.items():
            self.say(f"round {asked.round}: {node} refused, {why}", "yellow")
        for node in sorted(set(closed.quarantined).difference(before)):
            self.say(f"{node} is in quarantine", "bold red")

    def on_release(self, node: str, release: Release) -> None:
        """A node was told what to run."""
        number = release.version
        if release.stage == "canary":
            if number not in self.tried:
                self.say(f"version {number} is tried beside the one that runs", "cyan")
            self.tried.setdefault(number, set()).add(node)
            return
        over = release.instead_of
        if over is not None and over not in self.taken_back:
            self.taken_back.add(over)
            self.say(f"version {over} is taken back, version {number} runs again", "bold red")
        if self.fleet is None or (over is None and number > self.fleet):
            self.fleet = number
            self.for_all.add(number)
            self.say(f"version {number} is for all", "green")

    def draw(self) -> RenderableType:
        """The whole screen."""
        return Group(self._head(), self._learning(), self._machines(), self._nodes(), self._news())

    def _learning(self) -> RenderableType:
        table = Table.grid(padding=(0, 3))
        last = list(self.returns.items())[-SHOWN:]
        course = "  ".join(f"{number}: {value:+.1f}" for number, value in last) or "no round yet"
        where = "  ".join(f"{node} {_runs(self.reports.get(node), self.tried, node)}" for node in sorted(self.learns))
        state = f"round {self.open.round} is open" if self.open else f"{len(self.rounds)} rounds closed"
        table.add_row(
            f"learning: {state}\nfor all: version {self.fleet or '-'}",
            f"earned per decision, by round\n{course}",
            f"runs (+: tried beside it)\n{where}",
            f"in quarantine\n{', '.join(self.quarantined) or 'nobody'}",
        )
        return Panel(table)


def _runs(report: ModelReport | None, tried: Mapping[int, set[str]], node: str) -> str:
    if report is None or report.running is None:
        return "-"
    beside = [version for version, nodes in tried.items() if node in nodes and version > report.running]
    paired = [one.version for one in report.pairs]
    return f"{report.running}" + "".join(f"+{one}" for one in beside if one in paired and one == max(beside))
