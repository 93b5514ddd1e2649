"""The cells of the experiment over a real broker: ticks, bursts out, actions in. They stand where a message is missing.

    floor = Floor(bus, cells=6, seconds=30, pace_s=0.01)
    await floor.run()

A *pair* are two cells with the same products, of which one is told at once and the other as the line says. An action
counts from the tick on that the simulation's luck gives it, in order: `Pair.complete` says whether all that count now
have come. Bounds: the seconds asked for; a message that does not come within `LATEST_S` ends the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import numpy as np

from firmware_sim.two_arms import HOLD, I64, TICK_S, WORDS, ArmsSpec, Stream, TwoArms
from messages.bus import Bus, Received
from messages.clock import SECOND
from messages.contracts import Action, Burst
from messages.errors import ShoalError
from messages.routes import ACTION, BURST
from shoal.experiments.remote import CLOUD, EDGE, PERIOD, Latency, luck_of, products_of

SITE = "experiment"
NEAR = "cells"
"""Where actions are for the cells."""
HALVES = ("edge", "cloud")
EPOCH_US = 1_700_000_000 * SECOND
TICK_US = round(TICK_S * SECOND)
COLUMNS = ("at_a", "at_b", "holding_a", "holding_b", "busy_a", "busy_b", "turn", "seam")
LATEST_S = 20.0
LOOK_S = 0.001
"""Between two looks whether it has come."""

OnTick = Callable[[int, int], None]


class Pair:
    """Two cells with the same products, the edge's and the cloud's, and what they were told."""

    def __init__(self, seed: int, latency: Latency, *, seconds: float, begins: int) -> None:
        spec = ArmsSpec()
        products = products_of(spec, seed, seconds)
        self.begins = begins
        """the tick of the floor at which these begin, so that not all speak at once"""
        self.cells = TwoArms([spec, spec], Stream.joined([products, products]))
        self.cells.log = []
        self.next = 0
        """the tick that comes"""
        self.due = np.stack([_due(EDGE, seed, seconds), _due(latency, seed, seconds)])
        """(halves, decisions, arms) the tick from which an action counts, by the line"""
        self.counted: list[tuple[int, int, int, int]] = []
        """(half, arm, number of the action, tick from which it did count)"""
        self._number = np.full((2, 2), -1, np.int64)
        self._word = np.full((2, 2), HOLD, np.int64)
        self._until = np.zeros((2, 2), np.int64)
        self._fresh = np.zeros((2, 2), np.bool_)

    def told(self, half: int, arm: int, action: Action) -> None:
        """In force from the next tick on, if it is the newest."""
        number = int(action.id)
        self.counted.append((half, arm, number, self.next))
        if number > self._number[half, arm]:
            self._number[half, arm], self._word[half, arm] = number, WORDS.index(action.kind)
            self._until[half, arm] = action.valid_until
            self._fresh[half, arm] = True

    @property
    def complete(self) -> bool:
        """Whether all actions have come that count in the tick that comes."""
        return bool(((self.due <= self.next).sum(axis=1) <= self._number + 1).all())

    def step(self) -> None:
        """10 ms."""
        void = self._until < _time_us(self.next)
        self.cells.step(np.where(void, HOLD, self._word), self._fresh & ~void)
        self._fresh[:] = False
        self.next += 1

    def bursts(self, tick: int) -> Iterator[Burst]:
        """What each of the two measures now."""
        scene = self.cells.read()
        table = np.column_stack([scene.at, scene.holding, scene.busy, scene.turn, scene.seam])
        number = tick // PERIOD
        for half, row in enumerate(table.tolist()):
            yield Burst(
                boot=f"{half:08x}",
                seq=number,
                first=number * len(COLUMNS),
                t0=_time_us(tick),
                at=[0],
                columns={name: [value] for name, value in zip(COLUMNS, row, strict=True)},
                units=dict.fromkeys(COLUMNS, "1"),
            )


class Floor:
    """The cells: ticks, bursts out, actions in."""

    def __init__(self, bus: Bus, *, cells: int, seconds: float, pace_s: float) -> None:
        self.bus, self.ticks, self.pace_s = bus, round(seconds / TICK_S), pace_s
        self.pairs = [Pair(seed, CLOUD, seconds=seconds, begins=seed * PERIOD // cells) for seed in range(cells)]
        self.answers_s: list[float] = []
        """from a burst to the action made of it, at the edge's cells; four per pair and period"""
        self.busy_s = 0.0
        """processor time of this process over the run"""
        self.waited = 0
        """ticks that waited for a message"""
        self.on_tick: OnTick = lambda pair, until: None
        self._sent_s: dict[tuple[int, int], float] = {}
        bus.on(ACTION, self.on_action, site=SITE, node=NEAR)

    async def on_action(self, received: Received) -> None:
        """To the arm it is for."""
        pair, half, arm = place_of(received.ids["device"])
        if half == HALVES.index("edge"):
            self.answers_s.append(time.monotonic() - self._sent_s[pair, int(received.message.id)])
        self.pairs[pair].told(half, arm, received.message)

    async def run(self) -> None:
        """Until the time of all is over."""
        due, busy_s = time.monotonic(), time.process_time()
        for now in range(self.ticks + PERIOD):
            await self._wait()
            for number, pair in enumerate(self.pairs):
                tick = now - pair.begins
                if 0 <= tick < self.ticks:
                    if tick % PERIOD == 0:
                        self._sent_s[number, tick // PERIOD] = time.monotonic()
                        for half, burst in enumerate(pair.bursts(tick)):
                            device = f"cell-{number}-{half}"
                            self.bus.publish_nowait(BURST, burst, site=SITE, node=NEAR, device=device)
                    self.on_tick(number, tick + 1)  # which has this one to get there
                    pair.step()
            due = max(due + self.pace_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
        self.busy_s = time.process_time() - busy_s

    async def _wait(self) -> None:
        """For what counts from now on."""
        since = time.monotonic()
        waited = False
        while not all(pair.complete for pair in self.pairs if pair.next < self.ticks):
            waited = True
            if time.monotonic() - since > LATEST_S:
                raise ShoalError(
                    f"an action did not come within {LATEST_S:g} s: the broker or this machine stands still"
                )
            await asyncio.sleep(LOOK_S)
        self.waited += waited


def place_of(device: str) -> tuple[int, int, int]:
    """Pair, half, arm."""
    _, pair, half, arm = device.split("-")
    return int(pair), int(half), int(arm)


def _due(latency: Latency, seed: int, seconds: float) -> I64:
    """(decisions, arms) the tick from which each action counts, order kept."""
    luck = luck_of(seed, round(seconds / TICK_S) // PERIOD)
    late = np.where(luck < latency.rate, latency.spike_ms, latency.base_ms) / 1000 / TICK_S
    sent = PERIOD * np.arange(len(luck))[:, None]
    due: I64 = np.maximum.accumulate(np.rint(late).astype(np.int64) + sent, axis=0)
    return due


def _time_us(tick: int) -> int:
    return EPOCH_US + tick * TICK_US
