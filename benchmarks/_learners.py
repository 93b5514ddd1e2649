"""Rounds of ours on this machine: a Mosquitto, `shoal cloud` that opens rounds, and `shoal edge` processes that learn.

    with Learners(nodes=4) as ours:
        rounds = ours.rounds(10)                  # [{"round": 7, "took_s": 0.05, "taken": 4, "refused": {}}, …]
        ours.all.cpu_s(); ours.of_nodes.mb()

The network is that of a robot cell (12-128-128-5), all of it shared, as float32; no optimiser steps, so that only the
round itself is measured. Everything else is as it is delivered: signed both ways, every update on the disk before it is
answered, versions registered, simulated and released. A round is timed where an integrator would hear it: from its
opening on the bus to its closing. Nodes that are `broken` are no processes of ours: they sign NaN and send it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from _flower import Gauge

from messages.broker import Broker
from messages.bus import Bus, Received
from messages.cells import NETWORK
from messages.contracts import Capability, Presence
from messages.learning import Round, UpdateHead
from messages.routes import CAPABILITY, PRESENCE, ROUND, UPDATE
from messages.signing import SigningKey
from messages.updates import signed
from shoal.processes import end, start

SITE = "s1"
ROUND_S = 120.0
PLANT = """
site = "s1"
tick_s = 60
sample_s = 60
burst_s = 60
products = []
"""
WORKSHOP = """
[[workshops]]
name = "{node}"
node = "{node}"

[[workshops.cells]]
id = "robot-{node}"
step_s = 900
"""
CLOUD = """
sites = ["s1"]
data = "{folder}/cloud"

[broker]
port = {port}

[learning]
enrol = "first"
pause_s = 0

[learning.rounds]
quorum = 2
deadline_s = 60
codec = "float32"
whole = true
training = {{ steps = 0 }}
gate = {{ strikes = 3 }}

[learning.simulation]
cells = [9001]
known_days = 1
days = 1
"""
EDGE = """
site = "s1"
node = "{node}"
plant = "{folder}/plant.toml"
data = "{folder}/{node}"

[local]
port = {port}

[learning.keys]
cloud = "{key}"
"""


class Learners:
    """While the `with` lasts."""

    def __init__(self, *, nodes: int, broken: int = 0) -> None:
        self.names = [f"node-{k}" for k in range(nodes)]
        self.broken = [f"node-{nodes + k}" for k in range(broken)]
        self.folder = Path(tempfile.mkdtemp(prefix="learners-"))
        self.broker = Broker()

    def __enter__(self) -> Self:
        self.broker.start()
        folder, port = self.folder, self.broker.port
        key = SigningKey.at(folder / "cloud" / "cloud.key").public
        plant = PLANT + "".join(WORKSHOP.format(node=node) for node in [*self.names, *self.broken])
        (folder / "plant.toml").write_text(plant)
        (folder / "cloud.toml").write_text(CLOUD.format(folder=folder, port=port))
        self.processes = []
        for node in self.names:
            (folder / f"{node}.toml").write_text(EDGE.format(folder=folder, port=port, node=node, key=key))
            self.processes.append(self._shoal("edge", node))
        self.processes.append(self._shoal("cloud", "cloud"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        end(*self.processes)
        self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def all(self) -> Gauge:
        """Broker, cloud and nodes."""
        return Gauge([self.broker.pid, *(one.pid for one in self.processes)])

    @property
    def of_nodes(self) -> Gauge:
        """Nodes alone."""
        return Gauge([one.pid for one in self.processes[:-1]])

    def rounds(self, count: int, *, skip: int = 2, look: Callable[[], object] | None = None) -> list[dict[str, Any]]:
        """So many rounds that everybody took part in, after the first `skip` of those."""
        return asyncio.run(self._rounds(count, skip, look))

    async def _rounds(self, count: int, skip: int, look: Callable[[], object] | None) -> list[dict[str, Any]]:
        ear = Ear(self.broker, len(self.names) + len(self.broken))
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [group.create_task(ear.bus.run())]
            tasks += [group.create_task(Broken(self.broker, name).bus.run()) for name in self.broken]
            until = time.monotonic() + ROUND_S + count * 10
            while len(ear.found) < skip + count:
                if time.monotonic() > until:
                    raise RuntimeError(f"{len(ear.found)} of {skip + count} rounds; {self._last()}")
                await asyncio.sleep(0.25)
                if look is not None and len(ear.found) >= skip:
                    look()
            for task in tasks:
                task.cancel()
        return ear.found[skip : skip + count]

    def _shoal(self, what: str, name: str) -> Any:
        command = [sys.executable, "-m", "shoal", what, "--config", str(self.folder / f"{name}.toml")]
        return start(command, self.folder / f"{name}.log", cwd=Path(__file__).parents[1])

    def _last(self) -> str:
        return "; ".join(path.read_text()[-500:] for path in sorted(self.folder.glob("*.log")))


class Ear:
    """When rounds opened and closed, as the bus says it."""

    def __init__(self, broker: Broker, nodes: int) -> None:
        self.nodes = nodes
        self.opened: dict[int, float] = {}
        self.found: list[dict[str, Any]] = []
        """closed rounds that everybody was heard in"""
        self.bus = Bus(broker.host, broker.port, client_id="ear", session_expiry_s=0)
        self.bus.on(ROUND, self._on_round, site=SITE)

    async def _on_round(self, received: Received) -> None:
        asked: Round = received.message.body
        now = time.monotonic()
        if asked.closed is None:
            self.opened.setdefault(asked.round, now)
        elif asked.round in self.opened and len(asked.closed.taken) + len(asked.closed.refused) == self.nodes:
            took = now - self.opened.pop(asked.round)
            closed = asked.closed
            finite = closed.version is not None
            self.found.append(
                {
                    "round": asked.round,
                    "took_s": took,
                    "taken": sorted(closed.taken),
                    "refused": dict(closed.refused),
                    "quarantined": list(closed.quarantined),
                    "made": finite,
                }
            )


class Broken:
    """A node that answers every round with NaN, well signed."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.name, self.key = name, SigningKey.from_seed(name.encode().ljust(32, b"."))
        self.bus = Bus(broker.host, broker.port, client_id=f"broken-{name}", session_expiry_s=0)
        self.bus.on(ROUND, self._on_round, site=SITE)
        self.bus.on_connect(self._hello)

    async def _hello(self) -> None:
        shown = Capability(revision=1, software="broken", devices=[], public_key=self.key.public)
        await self.bus.publish(CAPABILITY, shown, site=SITE, node=self.name)
        await self.bus.publish(
            PRESENCE, Presence(online=True, session="0" * 8, at=time.time_ns() // 1000), site=SITE, node=self.name
        )

    async def _on_round(self, received: Received) -> None:
        asked: Round = received.message.body
        if asked.closed is not None:
            return
        head = UpdateHead(
            model=asked.model,
            round=asked.round,
            base=asked.base.sha256,
            at=time.time_ns() // 1000,
            codec=asked.codec,
            samples=100,
        )
        update = signed(head, np.full(NETWORK.size, np.nan, np.float32), self.key, name=self.name)
        await self.bus.publish(UPDATE, update, site=SITE, node=self.name, round=str(asked.round))
