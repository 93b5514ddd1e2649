"""How much telemetry one small machine carries: device → broker → edge → broker → store, everything on this computer.

    python benchmarks/telemetry.py [--quick] [--seconds 60] [--store sqlite|influx1] [--shape 4x100] [--rate R]

Real processes: a private Mosquitto, `shoal edge`, `shoal cloud` and one process of 250 devices (noisy doubles, faults,
bursts sent again; `_site.py`). Cleaning and latest values are on. The devices send as fast as `Taken` lets them, so
overload stays with them. Ages are seen from outside: when a reader of the store first finds rows of a probed device,
against the time of their last sample. In the same run the limit (a raw paho subscriber that only counts the same
bursts) and the peer a user would write (`_peer.py`). One JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import psutil
from _site import METRICS, NODE, SITE, device

from cloud.stores import SqliteStore
from messages.broker import Broker

HERE = Path(__file__).parent
DEVICES = 250
TARGETS = {("sqlite", "4x100"): 800_000, ("influx1", "4x100"): 250_000, ("sqlite", "4x10"): 130_000}
PEER_RATIO = 4.0
PROBED = 7
"""Device whose rows are looked for in the store."""


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **more}), flush=True)


def plant_file(folder: Path) -> Path:
    lines = [f'site = "{SITE}"', 'products = ["p"]', "[[workshops]]", 'name = "shop"', f'node = "{NODE}"']
    for n in range(DEVICES):
        lines += ["[[workshops.machines]]", f'id = "{device(n)}"', "work_kw = 100", "idle_kw = 5", "preheat_kw = 10"]
        lines += ["preheat_h = 1", "time_h = [1]"]
    (folder / "plant.toml").write_text("\n".join(lines) + "\n")
    return folder / "plant.toml"


def start(folder: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
    """One process; what it says is in `name`.log."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, *command], cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT)


def start_edge(folder: Path, port: int) -> subprocess.Popen[bytes]:
    text = f'site = "{SITE}"\nnode = "{NODE}"\nplant = "{plant_file(folder)}"\ndata = "{folder / "edge"}"\n'
    (folder / "edge.toml").write_text(f"{text}[local]\nport = {port}\n")
    return start(folder, "edge", "-m", "shoal", "edge", "--config", str(folder / "edge.toml"))


def start_cloud(folder: Path, port: int, store: str) -> subprocess.Popen[bytes]:
    text = f'sites = ["{SITE}"]\ndata = "{folder / "cloud"}"\n[broker]\nport = {port}\n{store}'
    (folder / "cloud.toml").write_text(text)
    return start(folder, "cloud", "-m", "shoal", "cloud", "--config", str(folder / "cloud.toml"))


class Ages(threading.Thread):
    """Looks at the store again and again, as a dashboard would: how old is the newest row when it is first seen?"""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path, self.ages_s, self.done = path, list[float](), threading.Event()

    def run(self) -> None:
        while not self.path.exists() and not self.done.is_set():
            time.sleep(0.05)
        db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=5)
        newest = 0
        while not self.done.wait(0.02):
            row = db.execute(
                "SELECT MAX(t_max) FROM chunk WHERE series = (SELECT id FROM series WHERE device = ? AND metric = ?)",
                (device(PROBED), "power_kw"),
            ).fetchone()
            if row[0] and row[0] > newest:
                newest = row[0]
                self.ages_s.append(time.time() - newest / 1e6)
        db.close()


class Meter:
    """Processor time and memory of several processes."""

    def __init__(self, **pids: int) -> None:
        self.processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.peak_mb = dict.fromkeys(pids, 0.0)

    def cpu_s(self) -> dict[str, float]:
        used = {name: process.cpu_times() for name, process in self.processes.items()}
        return {name: times.user + times.system for name, times in used.items()}

    def look(self) -> None:
        for name, process in self.processes.items():
            self.peak_mb[name] = max(self.peak_mb[name], process.memory_info().rss / 1e6)


def accounted(path: Path) -> tuple[int, int]:
    """Rows in the store, and readings it was told were rejected."""
    with SqliteStore(path=path).open(read_only=True) as store:
        return store.count_rows(), sum(store.sums().get("rejected", {}).values())


@contextmanager
def running(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def dropped(port: int) -> int:
    """What the broker says it dropped."""

    async def ask() -> int:
        import aiomqtt

        async with aiomqtt.Client("127.0.0.1", port) as client:
            await client.subscribe("$SYS/broker/publish/messages/dropped")
            async for message in client.messages:
                return int(bytes(message.payload))  # type: ignore[arg-type]
        return -1

    return asyncio.run(ask())


def ours(folder: Path, shape: tuple[int, int], *, rate: float, seconds: float, credit: int) -> dict[str, Any]:
    with Broker(directory=folder / "broker") as broker:
        edge, cloud = start_edge(folder, broker.port), start_cloud(folder, broker.port, "")
        ages = Ages(folder / "cloud" / "shoal.db")
        ages.start()
        with running(edge, cloud):
            time.sleep(3.0)
            for name, process in (("edge", edge), ("cloud", cloud)):
                if process.poll() is not None:
                    raise SystemExit((folder / f"{name}.log").read_text()[-2000:])
            assert broker.pid is not None
            devices = site(folder, broker.port, shape, "--rate", str(rate), "--seconds", str(seconds),
                           "--credit", str(credit))  # fmt: skip
            meter = Meter(site=devices.pid, broker=broker.pid, edge=edge.pid, cloud=cloud.pid)
            before, began = meter.cpu_s(), time.monotonic()
            marks = []
            while devices.poll() is None:
                try:
                    cpu = meter.cpu_s()
                except psutil.Error:
                    break
                meter.look()
                marks.append((time.monotonic() - began, cpu))
                time.sleep(0.25)
            text = (folder / "site.log").read_text().strip().splitlines()
            try:
                produced = json.loads(text[-1])
            except (IndexError, ValueError):
                raise SystemExit("\n".join(text)[-2000:]) from None
            path = folder / "cloud" / "shoal.db"
            until = time.monotonic() + 30
            while sum(accounted(path)) < produced["readings"] and time.monotonic() < until:
                time.sleep(0.1)
            took = time.monotonic() - began
            rows, rejected = accounted(path)
            ages.done.set()
            lost = produced["readings"] - rows - rejected
            end = marks[-1][1]
            broker_dropped = dropped(broker.port)
    return {
        "produced": produced,
        "took_s": took,
        "rows": rows,
        "rejected": rejected,
        "lost": lost,
        "cpu": {name: (end[name] - before[name]) / produced["readings"] * 1e6 for name in end},
        "peak_mb": meter.peak_mb,
        "ages": sorted(ages.ages_s),
        "dropped": broker_dropped,
    }


def site(folder: Path, port: int, shape: tuple[int, int], *more: str) -> subprocess.Popen[bytes]:
    return start(
        folder, "site", str(HERE / "_site.py"), "--port", str(port), "--devices", str(DEVICES),
        "--metrics", str(shape[0]), "--samples", str(shape[1]), *more,
    )  # fmt: skip


def other(kind: str, folder: Path, shape: tuple[int, int], *, seconds: float, rate: float, store: str = "") -> float:
    """Readings/s of the limit or a peer, fed faster than it can."""
    with Broker(directory=folder / "broker") as broker:
        command = [str(HERE / "_peer.py"), kind, "--port", str(broker.port), "--seconds", str(seconds)]
        peer = start(folder, kind, *command, "--per-burst", str(shape[0] * shape[1]), "--store", store)
        time.sleep(2.0)
        feeder = site(folder, broker.port, shape, "--plain", "--rate", str(rate), "--seconds", str(seconds + 3),
                      "--drain-s", "0")  # fmt: skip
        with running(peer, feeder):
            peer.wait(seconds + 60)
        try:
            result = json.loads((folder / f"{kind}.log").read_text().strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise SystemExit((folder / f"{kind}.log").read_text()[-2000:]) from None
    return float(result["readings"] / result["took_s"])


def report(name: str, shape: str, result: dict[str, Any], target: float | None) -> float:
    rate = result["produced"]["readings"] / result["took_s"]
    more: dict[str, Any] = {} if target is None else {"target": target, "holds": rate >= target}
    cpu = result["cpu"]
    figure(f"{name}_readings_per_s", rate, "1/s", **more, note=f"{shape}, until all was in the store: "
           f"{result['took_s']:.1f} s, {result['produced']['readings']} readings")  # fmt: skip
    for stage, value in cpu.items():
        figure(f"{name}_{stage}_us_per_reading", value, "us", note="processor time")
    figure(f"{name}_total_us_per_reading", sum(cpu.values()), "us", note="processor time of all processes")
    ages = result["ages"]
    if ages:
        figure(f"{name}_age_p50_ms", ages[len(ages) // 2] * 1e3, "ms", note="sample taken until seen in the store")
        figure(f"{name}_age_p99_ms", ages[int(len(ages) * 0.99)] * 1e3, "ms", note=f"{len(ages)} looks that found news")
    for stage, value in result["peak_mb"].items():
        figure(f"{name}_{stage}_rss_mb", value, "MB", note="peak")
    figure(f"{name}_lost", result["lost"], "readings", target=0, holds=result["lost"] == 0)
    figure(f"{name}_broker_dropped", result["dropped"], "messages", target=0, holds=result["dropped"] == 0)
    return float(rate)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--seconds", type=float, default=60.0, help="of traffic per shape")
    parser.add_argument("--store", choices=["sqlite", "influx1"], default="sqlite")
    parser.add_argument("--shape", default="4x100", help="metrics x samples per message")
    parser.add_argument("--rate", type=float, default=0.0, help="readings/s offered; 0: as fast as `Taken` allows")
    parser.add_argument("--credit", type=int, default=2, help="bursts a device may have out")
    parser.add_argument("--dir", type=Path, help="measure the disk of this directory")
    args = parser.parse_args()
    metrics, samples = (int(part) for part in args.shape.split("x"))
    if not 1 <= metrics <= len(METRICS):
        raise SystemExit(f"--shape: 1 to {len(METRICS)} metrics")
    shape = (metrics, samples)
    seconds = 8.0 if args.quick else args.seconds
    few = 4.0 if args.quick else 10.0
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        result = ours(Path(folder), shape, rate=args.rate, seconds=seconds, credit=args.credit)
        rate = report(f"telemetry_{args.store}", args.shape, result, TARGETS.get((args.store, args.shape)))
        limit = other("count", Path(folder), shape, seconds=few, rate=0.0)
        figure("telemetry_limit_readings_per_s", limit, "1/s", ratio=round(rate / limit, 3),
               note="a raw paho subscriber that only counts the same bursts; ratio: ours to it")  # fmt: skip
        peer = other(args.store, Path(folder), shape, seconds=few, rate=limit, store=str(Path(folder) / "peer.db"))
        figure(f"telemetry_{args.store}_vs_peer", rate / peer, "ratio", target=PEER_RATIO,
               holds=rate / peer >= PEER_RATIO,
               peer=f"aiomqtt, json, a row per reading, one commit per message: {peer:.0f} readings/s",
               ratio=round(rate / peer, 2))  # fmt: skip


if __name__ == "__main__":
    main()
