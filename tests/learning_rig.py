"""A cloud that learns, on a real bus, and nodes that are small scripts around the product's own trainer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
from conftest import beside

from cloud.learning import Learning
from cloud.learning_settings import LearningSettings
from cloud.versions import Version
from edge.gathering import Gathering
from edge.learner import Learner, LearnerSettings, remember
from edge.training import Trainer
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import OnTick, Phase, WallClock
from messages.contracts import Capability, Envelope, Presence
from messages.errors import BusLost
from messages.learning import Arm, Artefact, ModelReport, Paired, Release, Round, Update
from messages.network import Network
from messages.routes import ARTEFACT, CAPABILITY, MODEL, MODEL_REPORT, PRESENCE, ROUND, UPDATE
from messages.signing import SigningKey, public_key, sign, verify
from messages.updates import delta_of, signed

NET = Network(inputs=3, hidden=(8,), outputs=2)
CLOUD = SigningKey.from_seed(bytes([200]) * 32)
FACE = 'actions = ["wait", "work"]\n' + "".join(
    f'[[features]]\nmetric = "{name}"\nlow = 0\nhigh = 1\n' for name in ("wear", "stock", "carbon")
)


def key_of(name: str) -> SigningKey:
    return SigningKey.from_seed(name.encode().ljust(32, b".")[:32])


def settings(where: Path, **given: Any) -> LearningSettings:
    """Rounds without pauses, of a small network; nodes' keys are those of their names."""
    where.mkdir(parents=True, exist_ok=True)
    face = where / "face.toml"
    face.write_text(FACE)
    rounds = {"quorum": 2, "deadline_s": 20, "experience": 0, "training": {"steps": 20}, **given.pop("rounds", {})}
    facts = {"interface": face, "hidden": (8,), "pause_s": 0.0, "rounds": rounds, "enrol": "first", **given}
    return LearningSettings.model_validate(facts)


class Heard:
    """Everything the cloud says, as an integrator hears it."""

    def __init__(self, broker: Broker) -> None:
        self.rounds: list[Envelope[Round]] = []
        self.releases: list[tuple[str, Envelope[Release]]] = []
        self.parts: dict[tuple[str, str], bytes] = {}
        """what is retained"""
        self.bus = Bus(broker.host, broker.port, client_id="heard", session_expiry_s=0, backoff_s=(0.05, 0.2))
        self.bus.on(ROUND, self._round, site="s1")
        self.bus.on(MODEL, self._release, site="s1")
        self.bus.on(ARTEFACT, self._part, on_cleared=self._cleared, site="s1")

    async def _round(self, received: Received) -> None:
        assert verify(received.payload, {"cloud": public_key(CLOUD.public)}) == "cloud"
        self.rounds.append(received.message)

    async def _release(self, received: Received) -> None:
        assert verify(received.payload, {"cloud": public_key(CLOUD.public)}) == "cloud"
        self.releases.append((received.ids["node"], received.message))

    async def _part(self, received: Received) -> None:
        self.parts[received.ids["digest"], received.ids["part"]] = received.payload

    async def _cleared(self, ids: dict[str, str]) -> None:
        self.parts.pop((ids["digest"], ids["part"]), None)

    @property
    def closed(self) -> list[Round]:
        """Closed rounds, each once, in the order in which they were said."""
        found = {one.body.round: one.body for one in self.rounds if one.body.closed is not None}
        return list(found.values())


class Node:
    """One that learns from chance, and runs what it is told. `spoil` changes what it learned before it is signed."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        *,
        spoil: Callable[[np.ndarray], np.ndarray] | None = None,
        worth: Callable[[int], float] = lambda version: 1.0,
        key: SigningKey | None = None,
        now: Callable[[], int] = WallClock().now,
    ) -> None:
        self.name, self.spoil, self.worth, self.key = name, spoil, worth, key or key_of(name)
        self.now = now
        seed = sum(name.encode())
        self.rng = np.random.default_rng(seed)
        learner = Learner.fresh(NET, LearnerSettings(remembered=200), self.rng)
        for _ in range(100):
            before, after = self.rng.random((2, NET.inputs), np.float32)
            remember(learner, before, int(self.rng.integers(2)), float(before[0]), 0.1, after)
        self.sent: list[Update] = []
        self.trainer = Trainer("cell", learner, self.key, name=name, rng=self.rng, keep=self.sent.append)
        self.gathering = Gathering()
        self.wanted: Round | None = None
        self.runs: int | None = None
        self.pairs = 0
        self.numbers = itertools.count(time.time_ns() // 1_000)
        self.bus = Bus(broker.host, broker.port, client_id=f"node-{name}", backoff_s=(0.05, 0.2))
        here = {"site": "s1", "node": name}
        self.bus.on(ROUND, self._on_round, site="s1")
        self.bus.on(ARTEFACT, self._on_part, site="s1")
        self.bus.on(MODEL, self._on_release, **here)  # type: ignore[arg-type]
        self.bus.on_connect(self._hello)

    async def _hello(self) -> None:
        here = {"site": "s1", "node": self.name}
        shown = Capability(revision=1, software="test", devices=[], public_key=self.key.public)
        await self.bus.publish(CAPABILITY, shown, **here)  # type: ignore[arg-type]
        await self.bus.publish(PRESENCE, Presence(online=True, session="0" * 8, at=1), **here)  # type: ignore[arg-type]
        await self.report()

    async def _on_round(self, received: Received) -> None:
        verify(received.payload, {"cloud": public_key(CLOUD.public)})
        asked: Round = received.message.body
        now = self.now()
        self.wanted = asked if self.trainer.wants(asked, now) else None
        if self.wanted is not None:
            self.gathering.want(asked.base)
            await self._gathered(asked.base, None)
        else:
            await self._send(self.trainer.on_round(asked, None, now))

    async def _on_part(self, received: Received) -> None:
        self._parts = {**getattr(self, "_parts", {}), (received.ids["digest"], received.ids["part"]): received.payload}
        if self.wanted is not None:
            await self._gathered(self.wanted.base, received.ids["digest"])

    async def _gathered(self, base: Artefact, digest: str | None) -> None:
        """A network of the test is one part; it may come before the round does, or after it."""
        part = getattr(self, "_parts", {}).get((base.digest, "0"))
        whole = self.gathering.on_part(base.digest, 0, part) if part is not None else None
        if whole is None or self.wanted is None:
            return
        asked, self.wanted = self.wanted, None
        now = self.now()
        await self._send(self.trainer.on_round(asked, whole, now))
        await self._send(self.trainer.work(1_000, now))

    async def _send(self, update: Update | None) -> None:
        if update is None:
            return
        if self.spoil is not None:
            update = signed(update.head, self.spoil(delta_of(update)), self.key, name=self.name)
        here = {"site": "s1", "node": self.name, "round": str(update.head.round)}
        with contextlib.suppress(BusLost):
            await self.bus.publish(UPDATE, update, **here)  # type: ignore[arg-type]

    async def _on_release(self, received: Received) -> None:
        envelope: Envelope[Release] = received.message
        body = envelope.body
        lower = self.runs is not None and body.version < self.runs and body.instead_of != self.runs
        if not lower and body.stage == "fleet":
            self.runs, self.pairs = body.version, 0
            await self.report(envelope.counter)
        elif not lower and self.runs is not None:
            for _ in range(40):  # a canary: so many reports, of pairs each
                self.pairs += 50
                await self.report(envelope.counter, trial=body.version)
                await asyncio.sleep(0.01)

    async def report(self, counter: int = 0, *, trial: int | None = None) -> None:
        arms, pairs = [], []
        if self.runs is not None:
            arms = [Arm(version=self.runs, decisions=10 * self.pairs, blocks=self.pairs, mean=self.worth(self.runs))]
        if trial is not None and self.runs is not None:
            n, gain = self.pairs, self.worth(trial) - self.worth(self.runs)
            arms.append(Arm(version=trial, decisions=10 * n, blocks=n, mean=self.worth(trial)))
            pairs = [Paired(version=trial, against=self.runs, pairs=n, mean=gain, m2=0.01 * n)]
        said = ModelReport(
            model="cell",
            at=self.now(),
            session="0" * 8,
            counter=counter,
            running=self.runs,
            arms=arms,
            pairs=pairs,
            seq=next(self.numbers),
        )
        here = {"site": "s1", "node": self.name, "model": "cell"}
        with contextlib.suppress(BusLost):
            await self.bus.publish(MODEL_REPORT, payload=sign(said, self.key, name=self.name), **here)


class Quick(WallClock):
    """Real time, looked at twenty times a second."""

    async def drive(self, on_tick: OnTick, *, phase: Phase, every_s: float = 0.05) -> None:
        await super().drive(on_tick, phase=phase, every_s=every_s)


def always(value: float) -> Callable[[Version], Mapping[str, float]]:
    return lambda version: {"mean_return": value}


def running(*services: Any) -> AbstractAsyncContextManager[None]:
    """Buses, nodes and clouds run beside the test; what one of them raises is raised there."""
    return beside(*(_run(one) for one in services))


async def _run(one: Any) -> None:
    if isinstance(one, Learning):
        await one.run(Quick())
    else:
        await (one if isinstance(one, Bus) else one.bus).run()


def bus_of(port: int, kind: type[Bus] = Bus) -> Bus:
    return kind("127.0.0.1", port, client_id="shoal-learning-s1", backoff_s=(0.05, 0.2))


def cloud(broker: Broker, where: Path, wanted: LearningSettings, **given: Any) -> Learning:
    return Learning(
        wanted,
        site="s1",
        data=where,
        key=CLOUD,
        bus=given.pop("bus", None) or bus_of(broker.port),
        now=given.pop("now", WallClock().now),
        simulate=given.pop("simulate", always(1.0)),
        **given,
    )
