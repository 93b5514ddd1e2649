"""What tests of a deciding node share: a plant with a cell, a cell that plays its protocol, a cloud that teaches."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from cloud.graphs import graph_of
from cloud.saying import parts
from edge.policy import F32
from messages.bus import Bus, Received
from messages.cells import ACTIONS, DID, EARNED, EMITTED, HIGH, INTERFACE, METRICS, UNITS
from messages.contracts import Action, Burst, Capability, Envelope, Health, Taken
from messages.initial import initial
from messages.learning import Artefact, Closed, ModelReport, Release, Round, Training, Update
from messages.network import Network
from messages.routes import (
    ACTION,
    ARTEFACT,
    BURST,
    CAPABILITY,
    HEALTH,
    MODEL,
    MODEL_REPORT,
    ROUND,
    TAKEN,
    UPDATE,
)
from messages.signing import SigningKey, sign

SITE, NODE, CELL = "reman", "north", "robot-1"
SECOND = 1_000_000
T0 = 1_750_000_000_000_000
KEY = SigningKey.from_seed(bytes(range(32)))
NET = Network(inputs=len(METRICS), hidden=(16, 16), outputs=len(ACTIONS))
UNIT = dict(zip(METRICS, UNITS, strict=True)) | {EARNED: "money", EMITTED: "kg", DID: "code"}

PLANT = """
site = "reman"
tick_s = {tick_s}
sample_s = {tick_s}
burst_s = {tick_s}
products = []

[[workshops]]
name = "north"
node = "north"

[[workshops.cells]]
id = "robot-1"
step_s = {step_s}
"""


def plant_file(folder: Path, *, step_s: float = 900.0, tick_s: float = 300.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plant.toml"
    path.write_text(PLANT.format(step_s=step_s, tick_s=tick_s))
    return path


def settings_of(folder: Path, port: int, **learning: Any) -> dict[str, Any]:
    """Of a node that learns, as its file has them."""
    given = {key: learning.pop(key) for key in ("clock", "uplink", "commit_s") if key in learning}
    return {
        "site": SITE,
        "node": NODE,
        "plant": str(folder / "plant.toml"),
        "data": str(folder / "data"),
        "health_s": 0.2,
        "local": {"port": port},
        "learning": {
            "keys": {"cloud": KEY.public},
            "hidden": list(NET.hidden),
            "learner": {"batch": 4, "remembered": 200},
            "adapt_steps": 5,
            "canary": {"block": 2, "washout": 0},
            **learning,
        },
        **given,
    }


class TinyCell:
    """A cell that plays its protocol: what it does pays its number, and emits a tenth of that."""

    def __init__(self, *, boot: str = "b001b001", step_us: int = 900 * SECOND) -> None:
        self.boot, self.step_us = boot, step_us
        self.seq = self.readings = 0
        self.earned = self.emitted = 0.0
        self.rng = np.random.default_rng(5)
        self.did: list[int] = []
        self.missed = 0
        self.actions: list[Action] = []
        """as they came"""
        self._next: Action | None = None

    def on_action(self, action: Action) -> None:
        self.actions.append(action)
        self._next = action

    def burst(self, at: int, **spoilt: float | None) -> Burst:
        """The step that ends at `at`, done, and what came of it; `spoilt`: what the sensors say instead."""
        action, self._next = self._next, None
        kind = "wait"
        if action is not None and action.valid_until >= at:
            kind = action.kind
        else:
            self.missed += self.seq > 0
        self.did.append(ACTIONS.index(kind))
        if self.seq:
            self.earned += self.did[-1]
            self.emitted += self.did[-1] / 10
        state = self.rng.random(len(METRICS)) * HIGH
        values = dict(zip(METRICS, state.round(4).tolist(), strict=True))
        values |= {EARNED: self.earned, EMITTED: self.emitted, DID: float(self.did[-1])}
        burst = Burst(
            boot=self.boot,
            seq=self.seq,
            floor=self.seq,
            first=self.readings,
            t0=at,
            at=[0],
            columns={metric: [value] for metric, value in (values | spoilt).items()},
            units=UNIT,
        )
        self.seq += 1
        self.readings += burst.readings
        return burst


class LiveCell(TinyCell):
    """The same on the bus."""

    def __init__(self, port: int, **facts: Any) -> None:
        super().__init__(**facts)
        self.bus = Bus("127.0.0.1", port, client_id="robot", backoff_s=(0.05, 0.2), session_expiry_s=0)
        self.bus.on(ACTION, self._on_action, site=SITE, node=NODE, device=CELL)
        self.bus.on(TAKEN, self._on_taken, site=SITE, node=NODE, device=CELL)
        self.taken: set[int] = set()
        self.news = asyncio.Event()

    async def _on_action(self, received: Received) -> None:
        self.on_action(received.message)
        self.news.set()

    async def _on_taken(self, received: Received) -> None:
        taken: Taken = received.message
        for low, high in taken.ranges:
            self.taken |= set(range(low, high + 1))
        self.news.set()

    async def send(self, burst: Burst) -> None:
        await self.bus.publish(BURST, burst, site=SITE, node=NODE, device=CELL)

    async def step(self, at: int, **spoilt: float | None) -> None:
        """One step: done, said, and taken by the node."""
        burst = self.burst(at, **spoilt)
        await self.send(burst)
        async with asyncio.timeout(30):
            while burst.seq not in self.taken:
                self.news.clear()
                await self.news.wait()


class Teacher:
    """What the cloud says of learning, and what it hears."""

    def __init__(self, port: int, *, key: SigningKey = KEY) -> None:
        self.key = key
        self.bus = Bus("127.0.0.1", port, client_id="teacher", backoff_s=(0.05, 0.2), session_expiry_s=0)
        self.bus.on(UPDATE, self._on_update, site=SITE)
        self.bus.on(MODEL_REPORT, self._on_report, on_cleared=self._on_cleared, site=SITE, node=NODE)
        self.bus.on(CAPABILITY, self._on_capability, site=SITE, node=NODE)
        self.bus.on(HEALTH, self._on_health, site=SITE, node=NODE)
        self.updates: list[Update] = []
        self.reports: list[ModelReport] = []
        self.signed: list[bytes] = []
        """the bytes they came in"""
        self.cleared: list[str] = []
        """models of which nothing is said any more"""
        self.capability: Capability | None = None
        self.health: dict[str, float] = {}

    async def _on_update(self, received: Received) -> None:
        self.updates.append(received.message)

    async def _on_report(self, received: Received) -> None:
        self.reports.append(received.message)
        self.signed.append(received.payload)

    async def _on_cleared(self, ids: dict[str, str]) -> None:
        self.cleared.append(ids["model"])

    async def _on_capability(self, received: Received) -> None:
        self.capability = received.message

    async def _on_health(self, received: Received) -> None:
        health: Health = received.message
        self.health = health.counters

    async def artefact(self, data: bytes) -> None:
        digest = Artefact.of(data).digest
        for number, part in parts(data):
            await self.bus.publish(ARTEFACT, part, site=SITE, digest=digest, part=number)

    async def say(self, envelope: Envelope[Round], *, key: SigningKey | None = None) -> None:
        payload = sign(envelope, key or self.key, name="cloud")
        await self.bus.publish(ROUND, payload=payload, site=SITE)

    async def release(self, version: int, theta: F32, *, counter: int, **facts: Any) -> None:
        envelope, artefacts = released(version, theta, counter=counter, **facts)
        for data in artefacts:
            await self.artefact(data)
        payload = sign(envelope, self.key, name="cloud")
        await self.bus.publish(MODEL, payload=payload, site=SITE, node=NODE, model="cell")


def asked(
    number: int, base: F32, *, now: int, counter: int | None = None, closed: bool = False, steps: int = 20
) -> Envelope[Round]:
    """A round that is opened, or closed, at `now`."""
    body = Round(
        model="cell",
        round=number,
        base_version=number - 1,
        base=Artefact.of(base.astype("<f4").tobytes()),
        network=NET,
        interface=INTERFACE,
        shared=NET.shared,
        training=Training(steps=steps),
        codec="float32",
        opened_at=now,
        deadline=now + 10_000 * SECOND,
        closed=Closed(at=now) if closed else None,
    )
    return Envelope[Round](
        key="cell",
        target=f"{SITE}/all",
        counter=2 * number + closed if counter is None else counter,
        valid_until=now + 100_000 * SECOND,
        body=body,
    )


def released(
    version: int, theta: F32, *, counter: int, stage: str = "fleet", shared: int = 0
) -> tuple[Envelope[Release], list[bytes]]:
    artefacts = [graph_of(NET), theta.astype("<f4").tobytes()]
    body = Release(
        model="cell",
        version=version,
        stage=stage,
        interface=INTERFACE,
        network=NET,
        shared=shared,
        graph=Artefact.of(artefacts[0]),
        parameters=Artefact.of(artefacts[1]),
        made_at=1,
    )
    envelope = Envelope[Release](key="cell", target=f"{SITE}/{NODE}", counter=counter, valid_until=2**52, body=body)
    return envelope, artefacts


def vector(seed: int) -> F32:
    return initial(NET, np.random.default_rng(seed))


def wanting(action: str) -> F32:
    """A vector that always decides so."""
    theta = np.zeros(NET.size, np.float32)
    theta[NET.size - NET.outputs + ACTIONS.index(action)] = 1
    return theta
