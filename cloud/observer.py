"""What dashboards want to see beside the series: health of nodes and of ingest, signals, progress of the plan.

    observer = Observer(store, ingest, now=clock.now)
    observer.listen(bus, settings.sites, settings.nodes)
    await observer.run()                            # hands the newest to the store, for ever

Best effort: nothing here is part of the promise. Between two rounds only the newest of each node, signal and
plan is held; a store that does not take it loses that round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict

from cloud.ingest import Ingest
from cloud.stores import Observation, Store
from messages.bus import Bus, Received
from messages.contracts import Health, Progress, Signal
from messages.errors import StoreDown
from messages.logs import get_logger
from messages.routes import HEALTH, PROGRESS, SIGNAL

ROUND_S = 5.0
"""Real time between two rounds."""
MOST_SEEN = 20_000
"""Nodes, signals and plans held between two rounds; further ones wait for the next."""
MOST_FIELDS = 256
"""Counters kept of one health message: the first by name."""

log = get_logger("observer")

Seen = tuple[str, ...]


class Observer:
    """Collects, and hands over what is newest."""

    def __init__(self, store: Store, ingest: Ingest, *, now: Callable[[], int], name: str = "cloud") -> None:
        """`name` stands for this process where others have their node."""
        self._store, self._ingest, self._now, self._name = store, ingest, now, name
        self._seen: dict[Seen, list[Observation]] = {}
        self._sites: Sequence[str] = ()
        self.also: Callable[[], dict[str, float]] = dict
        """Counters of others in this process."""

    def listen(self, bus: Bus, sites: Sequence[str], nodes: Sequence[str] = ()) -> None:
        """Subscribe; before `bus.run`."""
        self._sites = sites
        for site in sites:
            if not nodes:
                bus.on(HEALTH, self.on_health, site=site)
            for node in nodes:
                bus.on(HEALTH, self.on_health, site=site, node=node)
            bus.on(SIGNAL, self.on_signal, site=site)
            bus.on(PROGRESS, self.on_progress, site=site)

    async def on_health(self, received: Received) -> None:
        """Counters of a node."""
        health: Health = received.message
        site, node = received.ids["site"], received.ids["node"]
        fields = {name: health.counters[name] for name in sorted(health.counters)[:MOST_FIELDS]}
        self._keep([Observation("health", health.at, (("site", site), ("node", node)), fields)])

    async def on_signal(self, received: Received) -> None:
        """A forecast: one point per step."""
        signal: Signal = received.message
        tags = (("site", received.ids["site"]), ("name", signal.name))
        step = round(signal.step_s * 1e6)
        self._keep(
            [
                Observation("signal", signal.start + k * step, tags, {"value": value})
                for k, value in enumerate(signal.values)
            ]
        )

    async def on_progress(self, received: Received) -> None:
        """The floor against the plan."""
        seen: Progress = received.message
        names = ("revision", "replans", "operations", "operations_done", "jobs", "jobs_done", "late_s",
                 "energy_planned_kwh", "energy_metered_kwh")  # fmt: skip
        fields = {name: float(getattr(seen, name)) for name in names} | {"machines_down": float(len(seen.down))}
        self._keep([Observation("progress", seen.at, (("site", received.ids["site"]),), fields)])

    async def run(self) -> None:
        """Hand over every ROUND_S."""
        while True:
            await asyncio.sleep(ROUND_S)
            self.hand_over()

    def hand_over(self) -> None:
        """Give the store what was seen since the last round, and ingest's own counters."""
        own = self._own()
        for site in self._sites:
            self._keep([Observation("health", self._now(), (("site", site), ("node", self._name)), own)])
        seen, self._seen = self._seen, {}
        try:
            self._store.observe([one for some in seen.values() for one in some])
        except StoreDown as error:
            log.warning("observer.dropped", observations=len(seen), error=str(error))

    # -- private --------------------------------------------------------------------------------------

    def _keep(self, some: list[Observation]) -> None:
        key = (some[0].measurement, *(value for _, value in some[0].tags))
        if key in self._seen or len(self._seen) < MOST_SEEN:
            self._seen[key] = some

    def _own(self) -> dict[str, float]:
        counts = {name: float(n) for name, n in asdict(self._ingest.counts).items() if name != "last_at"}
        ages = sorted(self._ingest.ages_s)
        self._ingest.ages_s.clear()
        if ages:
            counts |= {"age_p50_s": ages[len(ages) // 2], "age_p99_s": ages[len(ages) * 99 // 100]}
        dropped = sum(mirror.dropped for mirror in self._ingest.mirrors)
        return counts | {"store_waits": float(self._ingest.waits), "mirror_dropped": float(dropped)} | self.also()
