"""From a sensor's message to the action: a real `shoal edge`, a real Mosquitto, a version of 18,821 parameters.

    python benchmarks/agent.py [--quick]

One cell; its next sample follows 10 to 40 ms after the answer. Milliseconds from handing the burst to the client until
the action came back, both by way of the broker, in the process that plays the cell. The peer is asked in turns with
the node in the same run: a bare paho client that sends back the bytes it hears (`_echo.py`). What the node adds is its
own work: decode, decide, judge, encode. Phases:

idle       nothing else is done
training   a round of optimiser steps on batches of 32 is under way all the time, in the node's worker thread
slow disk  the same, and readings wait a second on their way to the disk; a checkpoint of the learner every second

`decision_cpu` is what a node computes for one, here without a broker: decode the burst, take its values, let the
version propose, judge, encode the action. All processes share the cores of one computer: where it is busy with other
things, the peer says by how much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from cloud.graphs import graph_of  # noqa: E402
from cloud.saying import parts  # noqa: E402
from edge.agent import Agent, Newest  # noqa: E402
from edge.cells import cells_of  # noqa: E402
from edge.files import Files  # noqa: E402
from edge.learning import LearningSettings  # noqa: E402
from edge.models import Models  # noqa: E402
from edge.shelf import Shelf  # noqa: E402
from messages.broker import Broker  # noqa: E402
from messages.bus import Bus, Received  # noqa: E402
from messages.cells import ACTIONS, DID, EARNED, EMITTED, HIGH, INTERFACE, METRICS, NETWORK, UNITS  # noqa: E402
from messages.contracts import Batch, Burst, Envelope, Health, LaneStored, StoredThrough  # noqa: E402
from messages.initial import initial  # noqa: E402
from messages.learning import Artefact, ModelReport, Release, Round, Training  # noqa: E402
from messages.plant import Plant  # noqa: E402
from messages.routes import (  # noqa: E402
    ACTION,
    ARTEFACT,
    BATCH,
    BURST,
    HEALTH,
    MODEL,
    MODEL_REPORT,
    ROUND,
    STORED,
    TAKEN,
)
from messages.signing import SigningKey, public_key, sign  # noqa: E402

SITE, NODE, CELL, ECHO = "bench", "north", "robot-1", "echo"
STEP_S = 3600
SECOND = 1_000_000
TARGET_MS = 10.0
KEY = SigningKey.from_seed(bytes(32))
PLANT = f"""
site = "{SITE}"
tick_s = {STEP_S}
products = []
[[workshops]]
name = "north"
node = "{NODE}"
[[workshops.cells]]
id = "{CELL}"
step_s = {STEP_S}
"""
UNIT = dict(zip(METRICS, UNITS, strict=True)) | {EARNED: "money", EMITTED: "kg", DID: "code"}
PHASES = ("idle", "training", "slow_disk")


class Said:
    """What a cell says, sample by sample."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.seq = 0

    def burst(self, at: int) -> bytes:
        """The next sample."""
        values = dict(zip(METRICS, (self.rng.random(len(METRICS)) * HIGH).round(4).tolist(), strict=True))
        values |= {EARNED: float(self.seq), EMITTED: self.seq / 10, DID: float(self.seq % len(ACTIONS))}
        self.seq += 1
        return Burst(
            boot="b001b001",
            seq=self.seq - 1,
            first=(self.seq - 1) * len(values),
            t0=at,
            at=[0],
            columns={metric: [value] for metric, value in values.items()},
            units=UNIT,
        ).encode()


class Floor(Said):
    """The cell and the cloud of this benchmark, on one connection."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.bus = Bus("127.0.0.1", port, client_id="floor", session_expiry_s=0)
        self.bus.on(ACTION, self._on_action, site=SITE)
        self.bus.on(TAKEN, self._on_taken, site=SITE)
        self.bus.on(BATCH, self._on_batch, site=SITE)
        self.bus.on(HEALTH, self._on_health, site=SITE)
        self.bus.on(MODEL_REPORT, self._on_report, site=SITE)
        # What comes back as an action of the echo is no action: it is told by its topic alone.
        self.bus.on_bad(self._on_bad)
        self.taken = self.revision = 0
        self.stored: dict[str, dict[str, LaneStored]] = {}
        self.answered = asyncio.Event()
        self.at = 0.0
        self.health: dict[str, float] = {}
        self.running: int | None = None

    async def _on_action(self, received: Received) -> None:
        self._answer()

    async def _on_bad(self, topic: str, payload: bytes, why: str) -> None:
        self._answer()

    def _answer(self) -> None:
        self.at = time.perf_counter()
        self.answered.set()

    async def _on_taken(self, received: Received) -> None:
        self.taken = max(self.taken, received.message.ranges[-1][1])

    async def _on_batch(self, received: Received) -> None:
        """As a store that confirms what it has."""
        batch: Batch = received.message
        self.stored.setdefault(batch.epoch, {})[batch.lane] = LaneStored(through=batch.seq)
        self.revision += 1
        self.bus.publish_nowait(STORED, StoredThrough(revision=self.revision, epochs=self.stored), site=SITE, node=NODE)

    async def _on_health(self, received: Received) -> None:
        health: Health = received.message
        self.health = health.counters

    async def _on_report(self, received: Received) -> None:
        report: ModelReport = received.message
        self.running = report.running

    async def asked(self, device: str, payload: bytes) -> float:
        """Milliseconds until the answer."""
        self.answered.clear()
        begin = time.perf_counter()
        self.bus.publish_nowait(BURST, payload=payload, site=SITE, node=NODE, device=device)
        async with asyncio.timeout(30):
            await self.answered.wait()
        return (self.at - begin) * 1000

    async def artefact(self, data: bytes) -> None:
        """Its parts."""
        for number, part in parts(data):
            await self.bus.publish(ARTEFACT, part, site=SITE, digest=Artefact.of(data).digest, part=number)

    async def release(self, theta: bytes, version: int = 1) -> None:
        """To the fleet."""
        graph = graph_of(NETWORK)
        for data in (graph, theta):
            await self.artefact(data)
        payload = released(graph, theta, version)
        await self.bus.publish(MODEL, payload=payload, site=SITE, node=NODE, model="cell")

    async def open(self, theta: bytes) -> None:
        """A round that takes longer than this benchmark."""
        await self.artefact(theta)
        now = _now()
        body = Round(
            model="cell", round=1, base_version=0, base=Artefact.of(theta), network=NETWORK, interface=INTERFACE,
            shared=NETWORK.shared, training=Training(steps=1_000_000), opened_at=now, deadline=now + STEP_S * SECOND,
        )  # fmt: skip
        envelope = Envelope[Round](key="cell", target=f"{SITE}/all", counter=2, valid_until=2**52, body=body)
        await self.bus.publish(ROUND, payload=sign(envelope, KEY, name="cloud"), site=SITE)


async def measure(samples: int) -> Iterator[dict[str, Any]]:
    """All phases, each with a node of its own."""
    found: list[dict[str, Any]] = [_decision_cpu()]
    for phase in PHASES:
        with tempfile.TemporaryDirectory() as folder, Broker() as broker:
            found += await _phase(phase, samples, Path(folder), broker.port)
    return iter(found)


async def _phase(phase: str, samples: int, folder: Path, port: int) -> list[dict[str, Any]]:
    floor, theta = Floor(port), initial(NETWORK, np.random.default_rng(2)).astype("<f4").tobytes()
    rng = random.Random(3)
    slow = phase == "slow_disk"
    async with _running(floor):
        with _node(folder, port, commit_s=1.0 if slow else 0.02, checkpoint_s=1.0 if slow else 300.0) as node:
            await _until(lambda: "learner_steps" in floor.health)
            await floor.release(theta)
            await _until(lambda: floor.running == 1)
            past = _now() - 200 * STEP_S * SECOND  # what it did before: learned from, and too late to decide
            for k in range(100):
                await floor.bus.publish(BURST, payload=floor.burst(past + k * STEP_S * SECOND), **_OF_CELL)
            await _until(lambda: floor.health["transitions"] >= 99)
            if phase != "idle":
                await floor.open(theta)
                await _until(lambda: floor.health["learner_steps"] > 300)
            with _echo(port) as ready:
                assert ready
                ours, theirs, held = [], [], 0
                began, cpu = time.perf_counter(), _cpu_s(node)
                steps = floor.health["learner_steps"]
                for n in range(samples + 20):
                    one = await floor.asked(CELL, floor.burst(_now()))
                    held += floor.taken < floor.seq - 1
                    await asyncio.sleep(rng.uniform(0.01, 0.04))
                    other = await floor.asked(ECHO, floor.burst(_now()))
                    floor.seq -= 1  # that one was nobody's
                    await asyncio.sleep(rng.uniform(0.01, 0.04))
                    if n >= 20:
                        ours.append(one)
                        theirs.append(other)
                took = time.perf_counter() - began
                spent = _cpu_s(node) - cpu
            await _until(lambda before=floor.health: floor.health is not before)
            made = floor.health["learner_steps"] - steps
    return _figures(phase, ours, theirs, spent / (samples + 20), made / took, held)


def _decision_cpu(count: int = 2_000) -> dict[str, Any]:
    """Processor time of one decision."""
    plant = Plant.model_validate(tomllib.loads(PLANT))
    (cell,) = cells_of(plant, NODE, LearningSettings())
    graph, theta = graph_of(NETWORK), initial(NETWORK, np.random.default_rng(2)).astype("<f4").tobytes()
    with tempfile.TemporaryDirectory() as folder:
        keys = {"cloud": public_key(KEY.public)}
        models = Models(Shelf(Files(Path(folder))), targets={f"{SITE}/{NODE}"}, keys=keys, session="00000000")
        models.on_release("cell", released(graph, theta), _now())
        for data in (graph, theta):
            models.on_part(Artefact.of(data).digest, 0, data, _now())
    chance = np.random.default_rng(1)
    agent = Agent(cell, models, Newest(plant.devices(NODE)), 0.0, 0.0, chance, session="0" * 16)
    floor, first = Said(), _now()
    bursts = [(at := first + k * STEP_S * SECOND, floor.burst(at)) for k in range(count)]
    began = time.process_time()
    for at, payload in bursts:
        action = agent.on_burst(Burst.decode(payload), at).action
        assert action is not None
        action.encode()
    us = (time.process_time() - began) / count * 1e6
    began = time.process_time()
    for _, payload in bursts:
        Burst.decode(payload)
    decode_us = (time.process_time() - began) / count * 1e6
    return {
        "figure": "decision_cpu",
        "value": round(us, 1),
        "unit": "us",
        "target": "stated",
        "holds": True,
        "note": f"{count} decisions, a network of {NETWORK.size} parameters; {decode_us:.0f} us of it decode the burst",
    }


def released(graph: bytes, theta: bytes, version: int = 1) -> bytes:
    """To the fleet: what goes out."""
    body = Release(
        model="cell", version=version, stage="fleet", interface=INTERFACE, network=NETWORK,
        graph=Artefact.of(graph), parameters=Artefact.of(theta), made_at=1,
    )  # fmt: skip
    envelope = Envelope[Release](key="cell", target=f"{SITE}/{NODE}", counter=version, valid_until=2**52, body=body)
    return sign(envelope, KEY, name="cloud")


def _figures(
    phase: str, ours: list[float], theirs: list[float], cpu_s: float, steps_per_s: float, held: int
) -> list[dict[str, Any]]:
    p99, peer = (float(np.percentile(one, 99)) for one in (ours, theirs))
    middle, peer_middle = (float(np.percentile(one, 50)) for one in (ours, theirs))
    said = f"p50 {middle:.2f} against {peer_middle:.2f}, worst {max(ours):.1f} against {max(theirs):.1f} ms"
    more = {
        "idle": f"cpu of the node {cpu_s * 1000:.2f} ms per decision and its keeping",
        "training": f"{steps_per_s:,.0f} optimiser steps a second beside it",
        "slow_disk": f"{held} of {len(ours) + 20} actions came before the disk had their readings; "
        f"{steps_per_s:,.0f} optimiser steps a second",
    }
    return [
        {
            "figure": f"sensor_to_action_p99_{phase}",
            "value": round(p99, 2),
            "unit": "ms",
            "target": TARGET_MS,
            "holds": p99 <= TARGET_MS,
            "peer": round(peer, 2),
            "ratio": round(p99 / peer, 2),
            "note": f"{len(ours)} decisions; peer: bare echo; {said}; {more[phase]}",
        },
        {
            "figure": f"sensor_to_action_p50_{phase}",
            "value": round(middle, 2),
            "unit": "ms",
            "target": "stated",
            "holds": True,
            "peer": round(peer_middle, 2),
            "ratio": round(middle / peer_middle, 2),
        },
    ]


_OF_CELL = {"site": SITE, "node": NODE, "device": CELL}


@asynccontextmanager
async def _running(floor: Floor) -> AsyncIterator[None]:
    task = asyncio.create_task(floor.bus.run())
    try:
        await floor.bus.wait_connected(30)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def _node(folder: Path, port: int, *, commit_s: float, checkpoint_s: float) -> Iterator[psutil.Process]:
    (folder / "plant.toml").write_text(PLANT)
    (folder / "node.toml").write_text(
        f'site = "{SITE}"\nnode = "{NODE}"\nplant = "{folder / "plant.toml"}"\ndata = "{folder / "data"}"\n'
        f"health_s = 0.5\ncommit_s = {commit_s}\n[local]\nport = {port}\n"
        f'[learning]\nexplore = 0.0\ncheckpoint_s = {checkpoint_s}\nkeys = {{ cloud = "{KEY.public}" }}\n'
    )
    command = [sys.executable, "-m", "shoal", "edge", "--config", str(folder / "node.toml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=REPO, stdout=log, stderr=log) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


@contextmanager
def _echo(port: int) -> Iterator[bytes]:
    topics = (route.topic(site=SITE, node=NODE, device=ECHO) for route in (BURST, ACTION))
    command = [sys.executable, str(REPO / "benchmarks" / "_echo.py"), str(port), *topics]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline()
        finally:
            process.kill()


async def _until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - it is looked at from outside
            await asyncio.sleep(0.02)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _now() -> int:
    return time.time_ns() // 1000


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    args = parser.parse_args()
    for figure in asyncio.run(measure(150 if args.quick else 2_000)):
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
