"""The same cells over a real broker, once: do messages do to them what the simulation says?

    figures = over_bus(seconds=30, cells=6)

Three parties on a private Mosquitto, with the product's bus and contracts. *Cells* send a `Burst` with all they measure
every 100 ms, each at a time of its own, and take `Action`s. The *controller* answers each burst by the rule, safety
(`edge.safety`) and one action per arm. Of every two cells with the same products one gets its actions at once: that is
the edge. For the other a *relay* holds each action back as the line says, in order, with the very luck that the
simulation draws, and then passes it on: that is the cloud.

Plant time goes in ticks of 10 ms, never faster than real time (`pace_s`). A tick waits for the actions that by the
line count from it on: a message slower than that makes the plant stand, not err, and is counted. So every step must go
as simulated, whatever the machine; how quick messages really were is a figure of its own.
Bounds: the seconds asked for; each arm's actions of the slowest latency wait in the relay; a message that does not come
within `LATEST_S` ends the run.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Any

import numpy as np

from edge.safety import Limits, Past, judge
from edge.safety import Scene as Known
from firmware_sim.two_arms import TICK_S, WORDS, ArmsSpec, Scene
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import SECOND
from messages.contracts import Action, Burst
from messages.errors import ShoalError
from messages.logs import configure
from messages.routes import ACTION, BURST
from shoal.experiments.latency_cells import COLUMNS, HALVES, NEAR, SITE, Floor, place_of
from shoal.experiments.remote import (
    CLOUD,
    EDGE,
    PERIOD,
    VALID_S,
    Case,
    Log,
    Rule,
    simulate,
)

DISTANT = "distant"
"""Where the relay takes actions from."""
LIMITS = Limits(safe="hold", actions=WORDS, changes=1_000, per_s=1.0)
READY_S = 10.0


class Controller:
    """Rule, safety, action: the same for all, wherever it is thought to be."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._rule = Rule([ArmsSpec()], [Case(EDGE).allowed_s])
        self._past: dict[str, Past] = {}
        bus.on(BURST, self.on_burst, site=SITE, node=NEAR)

    async def on_burst(self, received: Received) -> None:
        """Both arms get a word."""
        burst: Burst = received.message
        cell = received.ids["device"].removeprefix("cell-")
        known = np.array([[burst.columns[name][0] for name in COLUMNS]], np.float64)
        scene = Scene(known[:, 0:2], known[:, 2:4] > 0, known[:, 4:6] > 0, known[:, 6].astype(np.int64), known[:, 7])
        for arm, word in enumerate(self._rule.decide(scene)[0]):
            device = f"arm-{cell}-{arm}"
            verdict = judge(
                LIMITS, self._past.get(device, Past()), WORDS[word], Known(burst.t0, device, None, burst.t0, {})
            )
            self._past[device] = verdict.past
            action = Action(id=str(burst.seq), kind=verdict.action, valid_until=burst.t0 + round(VALID_S * SECOND))
            node = NEAR if cell.endswith(f"-{HALVES.index('edge')}") else DISTANT
            self.bus.publish_nowait(ACTION, action, site=SITE, node=node, device=device)


class Relay:
    """A line with latency: what comes is held back until it may be there, in order, and passed on."""

    def __init__(self, bus: Bus, floor: Floor) -> None:
        self.bus, self.floor = bus, floor
        self._held: dict[tuple[int, int], deque[tuple[int, str, bytes]]] = {}
        floor.on_tick = self.pass_on
        bus.on(ACTION, self.on_action, site=SITE, node=DISTANT)

    async def on_action(self, received: Received) -> None:
        """Keep it."""
        pair, _, arm = place_of(received.ids["device"])
        due = int(self.floor.pairs[pair].due[HALVES.index("cloud"), int(received.message.id), arm])
        self._held.setdefault((pair, arm), deque()).append((due, received.ids["device"], received.payload))

        self.pass_on(pair, self.floor.pairs[pair].next)  # it may have come so late that a tick waits for it

    def pass_on(self, pair: int, until: int) -> None:
        """What counts in tick `until`."""
        for arm in range(2):
            held = self._held.get((pair, arm))
            while held and held[0][0] <= until:
                _, device, payload = held.popleft()
                self.bus.publish_nowait(ACTION, payload=payload, site=SITE, node=NEAR, device=device)


def over_bus(*, seconds: float, cells: int = 6) -> list[dict[str, Any]]:
    """The figures, those of the simulation beside them. ShoalError if the broker cannot be had, or a party fails."""
    configure("experiment", level="warning", stream=sys.stderr)
    with Broker(persistence=False) as broker:
        floor, took_s = asyncio.run(run(broker, seconds=seconds, cells=cells, pace_s=TICK_S))
    return figures(floor, seconds=seconds, took_s=took_s)


async def run(broker: Broker, *, seconds: float, cells: int, pace_s: float) -> tuple[Floor, float]:
    """All three parties until the time of the cells is over; the cells, and the real seconds."""
    buses = [Bus(broker.host, broker.port, client_id=f"experiment-{name}") for name in ("floor", "rule", "relay")]
    floor = Floor(buses[0], cells=cells, seconds=seconds, pace_s=pace_s)
    Controller(buses[1])
    Relay(buses[2], floor)
    parties = [asyncio.create_task(bus.run()) for bus in buses]
    try:
        for bus in buses:
            await bus.wait_connected(READY_S)
        began = time.monotonic()
        run = asyncio.create_task(floor.run())
        await asyncio.wait([run, *parties], return_when=asyncio.FIRST_COMPLETED)
        took_s = time.monotonic() - began
        run.cancel()
        failed = [one.exception() for one in (run, *parties) if one.done() and not one.cancelled() and one.exception()]
        if failed:
            raise ShoalError(f"over the bus: {failed[0]}") from failed[0]
    finally:
        for party in parties:
            party.cancel()
        await asyncio.gather(*parties, return_exceptions=True)
    return floor, took_s


def figures(floor: Floor, *, seconds: float, took_s: float) -> list[dict[str, Any]]:
    """What came of it beside what the simulation says of the same seeds."""
    cells = len(floor.pairs)
    log: Log = []
    simulated = simulate([Case(EDGE), Case(CLOUD)], seeds=range(cells), duration_s=seconds, log=log)
    wanted = {(row % cells, row // cells, seam): kept for row, seam, kept in log}
    real = {
        (number, half, seam): kept
        for number, pair in enumerate(floor.pairs)
        for half, seam, kept in pair.cells.log or []
    }
    found = []
    for half, name in enumerate(HALVES):
        mine = [key for key in real.keys() | wanted.keys() if key[1] == half]
        same = sum(real.get(key) == wanted.get(key) for key in mine)
        missed = sum(int(pair.cells.missed[half]) for pair in floor.pairs)
        passed = sum(int(pair.cells.passed[half]) for pair in floor.pairs)
        beside = f"simulated {100 * simulated.missed[half].sum() / simulated.passed[half].sum():.1f} %"
        found += [
            _figure(f"{name}: missed steps over the bus", 100 * missed / passed, "%", f"{passed} steps; {beside}"),
            _figure(f"{name}: steps that went as simulated", 100 * same / len(mine), "%", f"{same} of {len(mine)}"),
        ]
    ticks = floor.ticks + PERIOD
    actions = sum(len(pair.counted) for pair in floor.pairs)
    answers = 1000 * np.array(floor.answers_s)
    note = f"{len(answers)} actions: broker, rule, safety, broker"
    return [
        *found,
        _figure("burst to action over the bus, p50", float(np.percentile(answers, 50)), "ms", note),
        _figure("burst to action over the bus, p99", float(np.percentile(answers, 99)), "ms", note),
        _figure("processor time per action", 1000 * floor.busy_s / actions, "ms", "cells, rule, relay: all of it"),
        _figure("ticks that waited for a message", 100 * floor.waited / ticks, "%", "a quiet machine: hardly any"),
        _figure("real time of a second of the plant", took_s / (ticks * TICK_S), "s", "above 1: a busy machine"),
    ]


def _figure(name: str, value: float, unit: str, note: str) -> dict[str, Any]:
    return {"figure": name, "value": round(float(value), 3), "unit": unit, "note": note, "over": "bus"}
