"""What an edge node writes to its disk in a day, and how long a memory card bears it.

    python benchmarks/disk_writes.py [--quick] [--seconds N] [--dir FOLDER_ON_THE_DISK_TO_MEASURE]

Eight real nodes at once on one private broker: 1,000 readings/s (10 devices, each second a burst of 4 metrics × 25
samples) and 10 readings/s (10 devices, every ten seconds a burst of 1 × 10), each with `commit_s` of 0, 0.05, 1 and
5 s. A small store confirms what they hand over. Counted are the bytes the process gave to the disk (`write_bytes` of
/proc/PID/io: write-ahead log, checkpoints, all pages whole) and its commits, then scaled to a day. Not counted: the
journal of the file system, and what the card itself moves about. The folder must be on a real disk: memory file systems
count nothing. The peer is the usual logger: one SQLite row per reading, one commit per message, same durability; it
neither cleans nor hands on. The endurance of the card is an assumption (`--endurance-tb`). One JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from _logger import start_logger

from messages.broker import Broker
from messages.bus import Bus, Received
from messages.contracts import Batch, Burst, Health, StoredThrough
from messages.errors import BusLost
from messages.routes import BATCH, BURST, HEALTH, STORED

SITE = "bench"
DEVICES = 10
WARM_S = 6.0
DAY_S = 86_400.0


@dataclass(frozen=True)
class Load:
    """What the machines of one node send."""

    name: str
    every_s: float
    metrics: tuple[str, ...]
    samples: int

    @property
    def per_s(self) -> float:
        return DEVICES * len(self.metrics) * self.samples / self.every_s


LOADS = (
    Load("fast", 1.0, ("power_kw", "temperature_degc", "energy_kwh", "state"), 25),
    Load("slow", 10.0, ("power_kw",), 10),
)
COMMITS_S = (0.0, 0.05, 1.0, 5.0)
UNITS = {"power_kw": "kW", "temperature_degc": "degC", "energy_kwh": "kWh", "state": "code"}


@dataclass
class Measured:
    """One process and what it wrote."""

    load: Load
    commit_s: float | None
    node: str
    process: subprocess.Popen[bytes]
    commits: float = 0.0
    before: tuple[float, float] = (0.0, 0.0)
    after: tuple[float, float] = (0.0, 0.0)

    def written(self) -> float:
        found = dict(line.split(": ") for line in Path(f"/proc/{self.process.pid}/io").read_text().splitlines())
        return float(found["write_bytes"]) - float(found["cancelled_write_bytes"])

    def mark(self) -> tuple[float, float]:
        return self.written(), self.commits


class Machines:
    """Bursts on time, spread over the interval; what a node takes is not asked for again in so short a time."""

    def __init__(self, port: int, nodes: list[tuple[str, Load]]) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="machines", send_window=20_000)
        self.nodes = nodes
        self.seqs: dict[tuple[str, int], int] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tg:
            tg.create_task(self.bus.run())
            for load in LOADS:
                for n in range(DEVICES):
                    tg.create_task(self._speak(load, n))

    async def _speak(self, load: Load, n: int) -> None:
        await self.bus.wait_connected()
        begun = time.monotonic() + load.every_s * n / DEVICES
        while True:
            await asyncio.sleep(max(0.0, begun - time.monotonic()))
            begun += load.every_s
            for node, of in self.nodes:
                if of is load:
                    self._send(node, load, n)

    def _send(self, node: str, load: Load, n: int) -> None:
        seq = self.seqs.get((node, n), 0)
        self.seqs[node, n] = seq + 1
        step = int(load.every_s * 1e6 / load.samples)
        values = {
            "power_kw": [100 + math.sin(seq + k / 9) for k in range(load.samples)],
            "temperature_degc": [40 + math.sin(seq / 50 + k / 999) for k in range(load.samples)],
            "energy_kwh": [seq * 0.25 + k * 0.01 for k in range(load.samples)],
            "state": [3.0] * load.samples,
        }
        burst = Burst(
            boot=f"{n:08x}",
            seq=seq,
            floor=seq,
            first=seq * len(load.metrics) * load.samples,
            t0=time.time_ns() // 1000 - int(load.every_s * 1e6),
            at=[k * step for k in range(load.samples)],
            columns={metric: values[metric] for metric in load.metrics},
            units={metric: UNITS[metric] for metric in load.metrics},
        )
        with contextlib.suppress(BusLost):
            done = self.bus.publish_nowait(BURST, burst, site=SITE, node=node, device=f"m{n:02}")
            done.add_done_callback(lambda one: one.cancelled() or one.exception())


class Store:
    """Confirms every batch, for all nodes, at most twenty times a second each as the real one does."""

    def __init__(self, port: int) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="store")
        self.bus.on(BATCH, self._on_batches, batch=True, site=SITE)
        self.bus.on(HEALTH, self._on_health, site=SITE)
        self.through: dict[str, dict[str, dict[str, int]]] = {}
        self.health: dict[str, dict[str, float]] = {}
        self.revision = 0
        self.news: set[str] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tg:
            tg.create_task(self.bus.run())
            tg.create_task(self._say())

    async def _on_batches(self, received: list[Received]) -> None:
        for one in received:
            batch: Batch = one.message
            lanes = self.through.setdefault(one.ids["node"], {}).setdefault(batch.epoch, {})
            lanes[batch.lane] = max(batch.seq, lanes.get(batch.lane, -1))
            self.news.add(one.ids["node"])

    async def _on_health(self, received: Received) -> None:
        message: Health = received.message
        self.health[received.ids["node"]] = message.counters

    async def _say(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            news, self.news = self.news, set()
            for node in news:
                self.revision += 1
                epochs = {
                    epoch: {lane: {"through": through} for lane, through in lanes.items()}
                    for epoch, lanes in self.through[node].items()
                }
                stored = StoredThrough.model_validate({"revision": self.revision, "epochs": epochs})
                with contextlib.suppress(BusLost):
                    await self.bus.publish(STORED, stored, site=SITE, node=node)


def start_edge(folder: Path, port: int, node: str, commit_s: float) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    plant = folder / "plant.toml"
    lines = ['site = "bench"', 'products = ["p"]', "[[workshops]]", 'name = "shop"', f'node = "{node}"']
    for n in range(DEVICES):
        lines += ["[[workshops.machines]]", f'id = "m{n:02}"', "work_kw = 100", "idle_kw = 5", "preheat_kw = 10"]
        lines += ["preheat_h = 1", "time_h = [1]"]
    plant.write_text("\n".join(lines) + "\n")
    settings = [f'site = "{SITE}"', f'node = "{node}"', f'plant = "{plant}"', f'data = "{folder / "data"}"']
    settings += [f"commit_s = {commit_s}", "resend_first_s = 10.0", "health_s = 0.5", "[local]", f"port = {port}"]
    (folder / "node.toml").write_text("\n".join(settings) + "\n")
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "shoal", "edge", "--config", str(folder / "node.toml")],
            cwd=Path(__file__).parents[1],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **more}), flush=True)


async def measure(seconds: float, folder: Path, endurance_tb: float) -> None:
    with Broker(directory=folder / "broker") as broker:
        names = [(f"{load.name}-{n}", load, commit_s) for load in LOADS for n, commit_s in enumerate(COMMITS_S)]
        found = [
            Measured(load, commit_s, node, start_edge(folder / node, broker.port, node, commit_s))
            for node, load, commit_s in names
        ]
        for load in LOADS:
            peer = start_logger(broker.port, folder / f"{load.name}.db", f"{load.name}-0")
            found.append(Measured(load, None, f"{load.name}-peer", peer))
        store, machines = Store(broker.port), Machines(broker.port, [(node, load) for node, load, _ in names])
        tasks = [asyncio.create_task(store.run()), asyncio.create_task(machines.run())]
        try:
            while len(store.health) < len(names):
                await asyncio.sleep(0.1)
                for task in tasks:
                    if task.done():
                        task.result()
            await asyncio.sleep(WARM_S)
            begun = time.monotonic()
            for one in found:
                one.commits = store.health.get(one.node, {}).get("commits", 0.0)
                one.before = one.mark()
            await asyncio.sleep(seconds)
            took = time.monotonic() - begun
            for one in found:
                one.commits = store.health.get(one.node, {}).get("commits", 0.0)
                one.after = one.mark()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in found:
                one.process.terminate()
            for one in found:
                one.process.wait(20)
    report(found, took, endurance_tb)


def report(found: list[Measured], took: float, endurance_tb: float) -> None:
    peers = {one.load.name: one for one in found if one.commit_s is None}
    for one in found:
        if one.commit_s is None:
            continue
        peer = peers[one.load.name]
        per_day = (one.after[0] - one.before[0]) / took * DAY_S
        peer_day = (peer.after[0] - peer.before[0]) / took * DAY_S
        commits = (one.after[1] - one.before[1]) / took * DAY_S
        name = f"disk_{one.load.name}_commit_{one.commit_s:g}_s"
        shape = f"{one.load.per_s:g} readings/s"
        figure(f"{name}_commits_per_day", commits, "1/d", note=shape)
        figure(
            f"{name}_mb_per_day", per_day / 1e6, "MB/d", peer="one row per reading, a commit per message",
            ratio=round(peer_day / per_day, 2) if per_day else 0.0, note=shape,
        )  # fmt: skip
        figure(
            f"{name}_card_years", endurance_tb * 1e12 / per_day / 365 if per_day else math.inf, "a",
            note=f"until {endurance_tb:g} TB are written, which is an assumption about the card",
        )  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--seconds", type=float, default=120.0, help="measured, when not quick")
    parser.add_argument("--endurance-tb", type=float, default=30.0, help="what the card bears, TB written")
    parser.add_argument("--dir", type=Path, help="measure the disk of this directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        asyncio.run(measure(30.0 if args.quick else args.seconds, Path(folder), args.endurance_tb))


if __name__ == "__main__":
    main()
