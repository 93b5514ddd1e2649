"""What the demo shows while it runs: machines, nodes, plan, incidents. State from the bus, drawn with rich.

`Floor view` is fed by topics anyone may subscribe to; nothing here is known from inside the processes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from messages.clock import SECOND
from messages.contracts import STATE_CODES, Action, Health, Latest, PlanInForce, Presence, Progress
from messages.observe import Watcher
from messages.plant import Plant
from messages.routes import ACTION, HEALTH, LATEST, PLAN, PRESENCE, PROGRESS

STATES = {code: name for name, code in STATE_CODES.items()}
COLOURS = {"work": "green", "idle": "yellow", "preheat": "magenta", "off": "dim", "down": "bold red"}
LANES = ("alarm", "record", "live", "backlog")
TOLD = 1_000
NEWS = 8
"""Incidents shown; older ones scroll away."""


@dataclass
class View:
    """The last known state of a site, and how to draw it."""

    plant: Plant
    start_at: int
    now: int = 0
    latest: dict[str, Latest] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    online: dict[str, bool] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    """machine → the job it was last asked to start: what it works on when it works"""
    progress: Progress | None = None
    plan: PlanInForce | None = None
    plans: list[PlanInForce] = field(default_factory=list)
    news: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=NEWS))
    phase: str = "starting"
    elapsed_s: float = 0.0
    told: list[tuple[str, str]] = field(default_factory=list)
    """Everything said, as (plant hour, text), for the report; at most TOLD."""

    def say(self, text: str, colour: str = "white") -> None:
        """An incident, with the plant hour."""
        hour = self._hour(self.now) if self.now else "--:--"
        self.news.append((f"[{colour}]{text}[/]", hour))
        if len(self.told) < TOLD:
            self.told.append((hour, text))

    @property
    def finished(self) -> bool:
        """All batches are made, by the monitor's word."""
        return self.progress is not None and 0 < self.progress.jobs == self.progress.jobs_done

    async def follow(self, watcher: Watcher) -> None:
        """Take in what the bus says, for ever."""
        async with asyncio.TaskGroup() as group:
            for task in (
                self._latest(watcher),
                self._health(watcher),
                self._presence(watcher),
                self._progress(watcher),
                self._plans(watcher),
                self._actions(watcher),
            ):
                group.create_task(task)

    async def _latest(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(LATEST, site=self.plant.site):
            if seen.message:
                self.latest[seen.ids["device"]] = seen.message

    async def _health(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(HEALTH, site=self.plant.site):
            if seen.message:
                self.health[seen.ids["node"]] = seen.message

    async def _presence(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(PRESENCE, site=self.plant.site):
            presence: Presence | None = seen.message
            if presence:
                node = seen.ids["node"]
                before = self.online.get(node)
                self.online[node] = presence.online
                if before is not None and before != presence.online:
                    self.say(
                        f"node {node} is {'online' if presence.online else 'offline'}",
                        "green" if presence.online else "red",
                    )

    async def _progress(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(PROGRESS, site=self.plant.site):
            progress: Progress | None = seen.message
            if progress:
                for machine in set(progress.down) - set(self.progress.down if self.progress else ()):
                    self.say(f"{machine} broke down", "bold red")
                self.progress = progress

    async def _plans(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(PLAN, site=self.plant.site):
            if seen.message:
                body: PlanInForce = seen.message.body
                if self.plan is None or body.plan.revision > self.plan.plan.revision:
                    self.plans.append(body)
                    hours = body.plan.objectives.get("makespan", 0) * body.tick_s / 3600
                    self.say(f"plan {body.plan.revision} by {body.plan.solver}: {hours:.1f} h ({body.why})", "cyan")
                self.plan = body

    async def _actions(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(ACTION, site=self.plant.site):
            action: Action | None = seen.message
            if action and action.kind == "start" and action.job:
                self.asked[seen.ids["device"]] = action.job

    # --- drawing --------------------------------------------------------------------------------

    def draw(self) -> RenderableType:
        """The whole screen."""
        return Group(self._head(), self._machines(), self._nodes(), self._news())

    def _head(self) -> RenderableType:
        done = self.progress
        line = Text.assemble(
            ("Shoal demo · ", "bold"),
            (self.plant.site, "bold cyan"),
            f" · plant time {self._hour(self.now)} (simulated machines, lock step) · {self.elapsed_s:.0f} s real · ",
            (self.phase, "bold"),
        )
        if done is None:
            return Panel(line)
        table = Table.grid(padding=(0, 3))
        table.add_row(
            ProgressBar(total=max(1, done.operations), completed=done.operations_done, width=24),
            f"operations {done.operations_done}/{done.operations}\nbatches {done.jobs_done}/{done.jobs}",
            f"plan {done.revision} ({done.solver})\nlate {done.late_s / 60:.0f} min, replans {done.replans}",
            f"energy metered {done.energy_metered_kwh:,.0f} kWh\nplanned so far {done.energy_planned_kwh:,.0f} kWh",
        )
        return Panel(Group(line, table))

    def _machines(self) -> RenderableType:
        table = Table(expand=True, padding=(0, 1))
        for column in ("machine", "state", "kW", "°C", "job", "machine", "state", "kW", "°C", "job"):
            table.add_column(column, justify="right" if column in ("kW", "°C") else "left")
        cells = [self._machine(machine) for machine in self.plant.machines]
        half = (len(cells) + 1) // 2
        for left, right in zip(cells[:half], [*cells[half:], *[[""] * 5] * half], strict=False):
            table.add_row(*left, *right)
        return table

    def _machine(self, machine: str) -> list[str]:
        values = self.latest[machine].values if machine in self.latest else {}
        state = STATES.get(round(values["state"].value), "?") if "state" in values else "?"
        job = ""
        if state == "work":
            job = self.asked.get(machine, "")
        colour = COLOURS.get(state, "white")
        power = f"{values['power_kw'].value:.0f}" if "power_kw" in values else ""
        heat = f"{values['temperature_degc'].value:.0f}" if "temperature_degc" in values else ""
        return [machine, f"[{colour}]{state}[/]", power, heat, job]

    def _nodes(self) -> RenderableType:
        table = Table(expand=True, padding=(0, 1))
        for column in ("node", "link", "lag", "readings", "rejected", "batches held", "freed", "resent"):
            table.add_column(column, justify="left" if column in ("node", "link") else "right")
        for node in self.plant.nodes:
            counters = self.health[node].counters if node in self.health else {}
            link = {True: "[green]online[/]", False: "[red]offline[/]", None: "?"}[self.online.get(node)]
            table.add_row(
                node,
                link,
                self._lag(node),
                f"{counters.get('readings', 0):,.0f}",
                f"{counters.get('rejected_readings', 0):,.0f}",
                f"{sum(counters.get(f'outbox_{lane}', 0) for lane in LANES):,.0f}",
                f"{counters.get('freed', 0):,.0f}",
                f"{counters.get('resent', 0):,.0f}",
            )
        return table

    def _lag(self, node: str) -> str:
        """Plant time since the newest reading that left the node."""
        devices = [device.device for device in self.plant.devices(node)]
        newest = [
            value.at for device in devices if device in self.latest for value in self.latest[device].values.values()
        ]
        return f"{max(0, self.now - max(newest)) / SECOND / 60:.0f} min" if newest else "?"

    def _news(self) -> RenderableType:
        return Panel("\n".join(f"{hour}  {text}" for text, hour in self.news) or "…", title="what happens")

    def _hour(self, at: int) -> str:
        hours = (at - self.start_at) / SECOND / 3600
        return f"{int(hours):02d}:{int(hours * 60) % 60:02d} h"


def utc(at: int) -> datetime:
    """µs since 1970 as a datetime."""
    return datetime.fromtimestamp(at / 1e6, UTC)
