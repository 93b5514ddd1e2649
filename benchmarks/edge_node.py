"""What one edge node needs: start, memory and processor at 1,000 readings/s, and the most it takes in.

    python benchmarks/edge_node.py [--quick] [--minutes 10] [--python PYTHON] [--dir DIRECTORY]

A real `shoal edge` process on a private Mosquitto: 10 devices send 1 s bursts of 4 metrics × 25 samples, and
send again what was not `Taken`; a small store confirms batches. Then as many bursts as the node takes, for some
seconds. The peer is the usual logger: subscribe, decode JSON, one SQLite row per reading, one commit per message
(same bursts, same disk, synchronous=FULL); it neither cleans nor hands on. One JSON line per figure.
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import psutil
from _logger import start_logger

from messages.broker import Broker
from messages.bus import Bus, Received
from messages.contracts import Batch, Burst, Evicted, Health, Presence, StoredThrough, Taken
from messages.errors import BusLost
from messages.routes import BATCH, BURST, HEALTH, PRESENCE, STORED, TAKEN

SITE, NODE = "bench", "node"
DEVICES, METRICS, SAMPLES = 10, 4, 25
PER_BURST = METRICS * SAMPLES
RSS_MB, START_S = 90.0, 2.0
CREDIT = 4
"""Bursts a device keeps out while it sends as fast as it may."""


class Devices:
    """Bursts on time or on credit, kept until taken."""

    def __init__(self, port: int) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="devices", send_window=5000)
        self.bus.on(TAKEN, self._on_taken, batch=True, site=SITE)
        self.held: dict[tuple[str, int], tuple[bytes, float]] = {}
        self.seqs = [0] * DEVICES
        self.sent_readings = 0
        self.room = asyncio.Event()

    def send(self, n: int) -> None:
        device, seq = f"m{n:02}", self.seqs[n]
        self.seqs[n] += 1
        burst = Burst(
            boot=f"{n:08x}",
            seq=seq,
            floor=min((s for d, s in self.held if d == device), default=seq),
            first=seq * PER_BURST,
            t0=time.time_ns() // 1000 - 1_000_000,
            at=[k * 1_000_000 // SAMPLES for k in range(SAMPLES)],
            columns={
                "power_kw": [100 + math.sin(seq + k / 9) for k in range(SAMPLES)],
                "temperature_degc": [40 + math.sin(seq / 50 + k / 999) for k in range(SAMPLES)],
                "energy_kwh": [seq * 0.25 + k * 0.01 for k in range(SAMPLES)],
                "state": [3.0] * SAMPLES,
            },
            units={"power_kw": "kW", "temperature_degc": "degC", "energy_kwh": "kWh", "state": "code"},
        )
        self.held[device, seq] = (burst.encode(), time.monotonic())
        self.sent_readings += PER_BURST
        self._publish(device, seq)

    def _publish(self, device: str, seq: int) -> None:
        payload, _ = self.held[device, seq]
        self.held[device, seq] = (payload, time.monotonic())
        with contextlib.suppress(BusLost):
            done = self.bus.publish_nowait(BURST, payload=payload, site=SITE, node=NODE, device=device)
            done.add_done_callback(lambda one: one.cancelled() or one.exception())

    def again(self) -> None:
        for (device, seq), (_, sent) in list(self.held.items()):
            if time.monotonic() - sent > 3:
                self._publish(device, seq)

    async def on_time(self, seconds: float) -> None:
        begun = time.monotonic()
        tick = 0
        while tick < seconds:
            for n in range(DEVICES):
                self.send(n)
                await asyncio.sleep(max(0.0, begun + tick + (n + 1) / DEVICES - time.monotonic()))
            tick += 1
            self.again()

    async def on_credit(self, seconds: float) -> int:
        until = time.monotonic() + seconds
        before = self.sent_readings
        while time.monotonic() < until:
            for n in range(DEVICES):
                while sum(1 for device, _ in self.held if device == f"m{n:02}") < CREDIT:
                    self.send(n)
            self.room.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.room.wait(), 1)
            self.again()
        return self.sent_readings - before

    async def _on_taken(self, received: list[Received]) -> None:
        for one in received:
            taken: Taken = one.message
            for low, high in taken.ranges:
                for seq in range(low, high + 1):
                    self.held.pop((one.ids["device"], seq), None)
        self.room.set()


class Store:
    """Confirms what it hears; keeps counts, not rows."""

    def __init__(self, port: int) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="store")
        self.bus.on(BATCH, self._on_batches, batch=True, site=SITE)
        self.bus.on(HEALTH, self._on_health, site=SITE)
        self.bus.on(PRESENCE, self._on_presence, site=SITE)
        self.online = asyncio.Event()
        self.through: dict[str, dict[str, int]] = {}
        self.readings = 0
        self.ages_s: list[float] = []
        self.health: dict[str, float] = {}
        self.rejected = 0
        self.revision = 0

    async def _on_batches(self, received: list[Received]) -> None:
        now = time.time_ns() // 1000
        for one in received:
            batch: Batch = one.message
            lanes = self.through.setdefault(batch.epoch, {})
            if batch.seq != lanes.get(batch.lane, -1) + 1:
                continue  # a repeat; in this run nothing is evicted, so seqs come in order
            lanes[batch.lane] = batch.seq
            self.readings += batch.readings
            self.rejected += sum(getattr(record, "readings", 0) for record in batch.records)
            assert not any(isinstance(record, Evicted) for record in batch.records)
            self.ages_s += [(now - series.t0 - series.at[-1]) / 1e6 for series in batch.series]
        self.revision += 1
        stored = StoredThrough.model_validate(
            {
                "revision": self.revision,
                "epochs": {
                    epoch: {lane: {"through": through} for lane, through in lanes.items()}
                    for epoch, lanes in self.through.items()
                },
            }
        )
        with contextlib.suppress(BusLost):
            await self.bus.publish(STORED, stored, site=SITE, node=NODE)

    async def _on_presence(self, received: Received) -> None:
        message: Presence = received.message
        if message.online:
            self.online.set()

    async def _on_health(self, received: Received) -> None:
        message: Health = received.message
        self.health = message.counters


def plant_file(folder: Path) -> Path:
    lines = ['site = "bench"', 'products = ["p"]', "[[workshops]]", 'name = "shop"', 'node = "node"']
    for n in range(DEVICES):
        lines += ["[[workshops.machines]]", f'id = "m{n:02}"', "work_kw = 100", "idle_kw = 5", "preheat_kw = 10"]
        lines += ["preheat_h = 1", "time_h = [1]"]
    (folder / "plant.toml").write_text("\n".join(lines) + "\n")
    return folder / "plant.toml"


def start_edge(folder: Path, port: int, python: str | None = None) -> subprocess.Popen[bytes]:
    settings = [
        f'site = "{SITE}"',
        f'node = "{NODE}"',
        f'plant = "{plant_file(folder)}"',
        f'data = "{folder / "data"}"',
    ]
    (folder / "node.toml").write_text("\n".join([*settings, "health_s = 1.0", "[local]", f"port = {port}"]) + "\n")
    with (folder / "edge.log").open("wb") as log:
        return subprocess.Popen(
            [python or sys.executable, "-m", "shoal", "edge", "--config", str(folder / "node.toml")],
            cwd=Path(__file__).parents[1],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def watch_rss(process: psutil.Process, peak: list[float]) -> None:
    while True:
        peak[0] = max(peak[0], process.memory_info().rss / 1e6)
        await asyncio.sleep(0.5)


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **more}), flush=True)


async def measure(seconds: float, burst_s: float, folder: Path, python: str | None = None) -> None:
    with Broker(directory=folder / "broker") as broker:
        store, devices = Store(broker.port), Devices(broker.port)
        tasks = [asyncio.create_task(store.bus.run()), asyncio.create_task(devices.bus.run())]
        await store.bus.wait_connected(10)
        await devices.bus.wait_connected(10)
        begun = time.monotonic()
        edge = start_edge(folder, broker.port, python)
        try:
            process = psutil.Process(edge.pid)
            while not store.online.is_set():
                await asyncio.sleep(0.005)
                if edge.poll() is not None:
                    raise SystemExit(f"the edge ended: {(folder / 'edge.log').read_text()[-2000:]}")
            start_s = time.monotonic() - begun
            peak = [0.0]
            tasks.append(asyncio.create_task(watch_rss(process, peak)))

            before = cpu_s(process)
            began = time.monotonic()
            await devices.on_time(seconds)
            took = time.monotonic() - began
            cpu = cpu_s(process) - before
            sent = devices.sent_readings
            await settled(devices, store)
            ages = sorted(store.ages_s)
            rss = peak[0]

            before = cpu_s(process)
            began = time.monotonic()
            many = await devices.on_credit(burst_s)
            await settled(devices, store)
            fast_s = time.monotonic() - began
            fast_cpu = cpu_s(process) - before
            lost = devices.sent_readings - store.readings - store.rejected
            resent = store.health.get("resent", 0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            edge.terminate()
            edge.wait(10)
        peer_us = await peer(broker, folder, min(burst_s, 10.0))

    shape = f"{DEVICES} devices, bursts of {METRICS} x {SAMPLES} readings"
    ours_us = fast_cpu / many * 1e6
    figure(
        "edge_start_s",
        start_s,
        "s",
        target=START_S,
        holds=start_s <= START_S,
        note="`shoal edge` until its presence is heard",
    )
    figure(
        "edge_rss_mb", rss, "MB", target=RSS_MB, holds=rss <= RSS_MB, note=f"peak over {took:.0f} s at 1,000 readings/s"
    )
    figure("edge_readings_per_s", sent / took, "1/s", target=1000, holds=sent / took >= 990, note=shape)
    figure("edge_cpu_share", cpu / took, "cores", note="at 1,000 readings/s, 10 bursts/s")
    figure("edge_age_p50_ms", ages[len(ages) // 2] * 1e3, "ms", note="last sample of a series until the store heard it")
    figure("edge_age_p99_ms", ages[int(len(ages) * 0.99)] * 1e3, "ms")
    figure(
        "edge_max_readings_per_s",
        many / fast_s,
        "1/s",
        note=f"{CREDIT} bursts of credit per device; all processes here",
    )
    figure("edge_rss_full_speed_mb", peak[0], "MB")
    figure(
        "edge_cpu_us_per_reading", ours_us, "us", target=peer_us, holds=ours_us <= peer_us,
        peer="subscribe, decode, one row per reading, commit per message; no cleaning, no hand-over",
        ratio=round(peer_us / ours_us, 2), note="at full speed: intake, cleaning, outbox, uplink",
    )  # fmt: skip
    figure("edge_lost", lost, "readings", target=0, holds=lost == 0)
    figure("edge_resent_batches", resent, "batches")


async def settled(devices: Devices, store: Store, timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while devices.held or store.readings + store.rejected < devices.sent_readings:
        if time.monotonic() > until:
            raise SystemExit(
                f"not settled: {len(devices.held)} bursts held, {store.readings} of {devices.sent_readings}"
            )
        devices.again()
        await asyncio.sleep(0.02)


async def peer(broker: Broker, folder: Path, seconds: float) -> float:
    """Processor µs per reading of the plain logger, fed at a pace it can keep."""
    logger = start_logger(broker.port, folder / "peer.db")
    devices = Devices(broker.port)
    devices.bus = Bus("127.0.0.1", broker.port, client_id="peer-devices")
    running = asyncio.create_task(devices.bus.run())
    try:
        await devices.bus.wait_connected(10)
        await asyncio.sleep(1.0)  # it has no way to say that it has subscribed
        process = psutil.Process(logger.pid)
        before = cpu_s(process)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for n in range(DEVICES):
                devices.send(n)
            devices.held.clear()
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        return (cpu_s(process) - before) / devices.sent_readings * 1e6
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        logger.kill()
        logger.wait()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--minutes", type=float, default=10.0, help="at 1,000 readings/s, when not quick")
    parser.add_argument("--python", help="interpreter of the node, e.g. of an environment with only the edge extra")
    parser.add_argument("--dir", type=Path, help="measure the disk of this directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        asyncio.run(
            measure(20 if args.quick else args.minutes * 60, 6 if args.quick else 20, Path(folder), args.python)
        )


if __name__ == "__main__":
    main()
