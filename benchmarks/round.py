"""A round of learning together in which nothing is learned: what the way costs. Real Mosquitto, real `shoal cloud`.

    python benchmarks/round.py [--nodes 100] [--rounds 20] [--codec float16] [--quick]

A round lasts from the message that opens it until the message that closes it, both as a client hears them that does
nothing else. In between every node heard it, checked its signature, took over a base of 18,821 parameters and sent a
signed update, and the cloud checked and kept every one, averaged them, made a version and wrote it down. The nodes are
sessions of one process (`_round_nodes.py`); cloud, broker and nodes share the cores of one computer. CPU: of the cloud
and of all nodes, per round, what lies between rounds included. Bytes: payloads a node sends and hears in a round; the
artefacts of releases are not counted, as none is released.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from messages.broker import Broker  # noqa: E402
from messages.bus import Bus, Received  # noqa: E402
from messages.learning import Round  # noqa: E402
from messages.logs import configure  # noqa: E402
from messages.routes import ROUND, UPDATE  # noqa: E402
from messages.signing import SigningKey  # noqa: E402

SITE = "bench"
TARGET_S = 1.0
MOST_S = 300.0
SETTINGS = """
sites = ["{site}"]
data = "{data}"
[broker]
port = {port}
[learning]
enrol = "first"
pause_s = 0.5
[learning.rounds]
quorum = {nodes}
deadline_s = 60
codec = "{codec}"
training = {{ steps = 0 }}
[learning.releases]
named = ["{site}/nobody"]        # versions are made, and go nowhere
[learning.releases.validation]
score = "mean_return"
[learning.simulation]            # as little as can be: it is not what is measured
cells = [1]
known_days = 1
adapt_steps = 0
days = 1
"""


class Watcher:
    """What the bus says of rounds, and when."""

    def __init__(self, port: int) -> None:
        self.opened: dict[int, float] = {}
        self.closed: dict[int, tuple[float, Round]] = {}
        self.said: dict[int, int] = {}
        """bytes of the two messages"""
        self.sent: list[int] = []
        """bytes of updates"""
        self.bus = Bus("127.0.0.1", port, client_id="watcher", session_expiry_s=0)
        self.bus.on(ROUND, self.on_round, site=SITE)

    async def on_round(self, received: Received) -> None:
        body: Round = received.message.body
        self.said[body.round] = self.said.get(body.round, 0) + len(received.payload)
        if body.closed is None:
            self.opened.setdefault(body.round, time.monotonic())
        else:
            self.closed.setdefault(body.round, (time.monotonic(), body))


class Weigher:
    """Bytes of updates, heard once the rounds that count are over."""

    def __init__(self, port: int) -> None:
        self.sizes: list[int] = []
        self.bus = Bus("127.0.0.1", port, client_id="weigher", session_expiry_s=0)
        self.bus.on(UPDATE, self.on_update, site=SITE)

    async def on_update(self, received: Received) -> None:
        self.sizes.append(len(received.payload))


async def measure(folder: Path, port: int, nodes: int, rounds: int, codec: str) -> dict[str, Any]:
    """Rounds as they went, the first two not counted."""
    config, data = folder / "cloud.toml", folder / "data"
    config.write_text(SETTINGS.format(site=SITE, data=data, port=port, nodes=nodes, codec=codec))
    public = SigningKey.at(data / "cloud.key").public
    watcher, weigher = Watcher(port), Weigher(port)
    watching = asyncio.create_task(watcher.bus.run())
    await watcher.bus.wait_connected(20)
    with (
        process(folder / "cloud.log", "-m", "shoal", "cloud", "--config", str(config)) as cloud,
        process(
            folder / "nodes.log", str(REPO / "benchmarks/_round_nodes.py"), str(port), str(nodes), public
        ) as learners,
    ):
        first, last = 3, rounds + 2
        await until(lambda: len(watcher.closed) >= 2, cloud, learners)
        before = [cpu(one) for one in (cloud, learners)]
        await until(lambda: last in watcher.closed, cloud, learners)
        after = [cpu(one) for one in (cloud, learners)]
        weighing = asyncio.create_task(weigher.bus.run())
        await until(lambda: len(weigher.sizes) >= nodes, cloud, learners)
        weighing.cancel()
    watching.cancel()
    done = [watcher.closed[number] for number in range(first, last + 1)]
    took = [at - watcher.opened[body.round] for at, body in done]
    return {
        "took": took,
        "taken": [len(body.closed.taken) for _, body in done if body.closed],
        "late": sum(len(body.closed.late) for _, body in done if body.closed),
        "up": weigher.sizes[0],
        "down": max(watcher.said[number] for number in range(first, last + 1)) + done[0][1].base.size,
        "cpu": [(b - a) / rounds for a, b in zip(before, after, strict=True)],
    }


@contextmanager
def process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of the processes, ended with the block."""
    with log.open("wb") as out:
        child = subprocess.Popen([sys.executable, *command], cwd=REPO, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield child
        finally:
            child.terminate()
            child.wait()


async def until(condition: Any, *children: subprocess.Popen[bytes]) -> None:
    """Wait, as long as everybody runs."""
    end = time.monotonic() + MOST_S
    while not condition():
        if any(child.poll() is not None for child in children) or time.monotonic() > end:
            raise SystemExit("a process ended, or the rounds take too long; run it with --keep and look at its log")
        await asyncio.sleep(0.02)


def cpu(child: subprocess.Popen[bytes]) -> float:
    """Processor time so far, s."""
    used = psutil.Process(child.pid).cpu_times()
    return float(used.user + used.system)


def say(figure: str, value: float, unit: str, **more: Any) -> None:
    print(json.dumps({"figure": figure, "value": value, "unit": unit, **more}), flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--nodes", type=int, default=100)
    asked.add_argument("--rounds", type=int, default=20)
    asked.add_argument("--codec", default="float16", choices=["float32", "float16", "int8"])
    asked.add_argument("--quick", action="store_true", help="5 rounds")
    asked.add_argument("--keep", type=Path, help="settings, data and logs stay in this folder")
    given = asked.parse_args()
    rounds = 5 if given.quick else given.rounds
    configure("bench", level="warning", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as place, Broker() as broker:
        folder = given.keep or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(measure(folder, broker.port, given.nodes, rounds, given.codec))
    took = np.array(found["took"])
    middle, most = float(np.median(took)), float(took.max())
    note = (
        f"{given.nodes} nodes, {rounds} rounds, {given.codec}; fewest taken {min(found['taken'])}, late {found['late']}"
    )
    say("round.noop.p50", round(middle, 3), "s", target=TARGET_S, holds=middle <= TARGET_S, note=note)
    say("round.noop.max", round(most, 3), "s", target=TARGET_S, holds=most <= TARGET_S, note="slowest round")
    say("round.bytes.up", found["up"], "B", note=f"one node, one round, {given.codec}")
    say("round.bytes.down", found["down"], "B", note="one node, one round: base, opening and closing message")
    say("round.cpu.cloud", round(found["cpu"][0], 3), "s", note="per round, pauses included")
    say("round.cpu.node", round(1e3 * found["cpu"][1] / given.nodes, 2), "ms", note="per round and node")


if __name__ == "__main__":
    main()
