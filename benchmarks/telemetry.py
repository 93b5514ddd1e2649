"""How much telemetry one small machine carries: device → broker → edge → broker → store, everything on this computer.

    python benchmarks/telemetry.py [--quick] [--seconds 60] [--only sqlite:4x100 …] [--rate R] [--dir DIRECTORY]

Real processes: a private Mosquitto, `shoal edge`, `shoal cloud`, InfluxDB 1.x where it is the store, and one process
of 250 devices (noisy doubles, faults, bursts sent again; `_site.py`). Cleaning and latest values are on. The devices
send what a case offers, or as fast as `Taken` lets them: overload stays with them, and the largest queue of the broker
is shown. A rate counts from the first burst until the last reading was in the store. Ages are seen from outside: when a
reader of the store first finds rows of a probed device, against the time of their last sample. In the same run the
limit (a raw paho subscriber that only counts the same bursts) and the peer a user would write (`_peer.py`). A case is
STORE:METRICSxSAMPLES, per message. One JSON line per figure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import psutil
from _site import METRICS, NODE, SITE, device
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTProtocolVersion

from cloud.settings import CloudSettings
from cloud.stores import Query
from messages.broker import Broker
from messages.settings import load
from shoal.torture.influx import Influx
from shoal.torture.stage import wait_for_port

HERE = Path(__file__).parent
DEVICES = 250
PEER_RATIO = 4.0
PROBED = 7
"""Device whose rows are looked for in the store."""
SETTLE_S = 120.0
QUEUED_MB = 64.0
"""What may wait in the broker under overload: the windows of the devices and of the uplink, and not more."""
DROPPED, QUEUED = "$SYS/broker/publish/messages/dropped", "$SYS/broker/store/messages/bytes"


@dataclass(frozen=True)
class Case:
    """One shape of message into one store."""

    store: str
    metrics: int
    samples: int
    target: float | None
    rate: float = 0.0
    """Readings/s offered; 0: as many as `Taken` allows."""
    overload: bool = False
    """As many as `Taken` allows, and more than the node can: who holds what is too much?"""

    @property
    def name(self) -> str:
        return f"{self.store}_{self.metrics}x{self.samples}{'_overload' if self.overload else ''}"

    @property
    def cells(self) -> int:
        return self.metrics * self.samples


CASES = [
    Case("sqlite", 4, 100, 800_000, rate=850_000),
    Case("sqlite", 4, 100, None, overload=True),
    Case("sqlite", 4, 10, 130_000, rate=150_000),
    Case("sqlite", 1, 1, None),
    Case("influx1", 4, 100, 250_000, rate=350_000),
]


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    """One line of the answer."""
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
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT)


def shoal(folder: Path, name: str, toml: str, *more: str) -> subprocess.Popen[bytes]:
    """`shoal edge` or `shoal cloud` with these settings."""
    (folder / f"{name}.toml").write_text(toml)
    return start(folder, name, sys.executable, "-m", "shoal", name, "--config", str(folder / f"{name}.toml"), *more)


def said(folder: Path, name: str, process: subprocess.Popen[bytes], word: str, within_s: float = 20.0) -> None:
    """Wait until a process has logged `word`."""
    until = time.monotonic() + within_s
    while word not in (text := (folder / f"{name}.log").read_text()):
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"{name}: {text[-2000:]}")
        time.sleep(0.05)


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


class Ages(threading.Thread):
    """Looks into the store again and again, as a dashboard would: how old is the newest row when it is first seen?"""

    def __init__(self, settings: CloudSettings, every_s: float) -> None:
        super().__init__(daemon=True)
        self.settings, self.every_s = settings, every_s
        self.ages_s, self.done = list[float](), threading.Event()

    def run(self) -> None:
        with self.settings.store_file.open(read_only=True) as store:
            newest = time.time_ns() // 1000
            while not self.done.wait(self.every_s):
                found = store.query(Query("power_kw", device=device(PROBED), start=newest + 1))
                if len(found):
                    newest = int(found.times[-1])
                    self.ages_s.append(time.time() - newest / 1e6)


class Watch:
    """What the broker says of itself, every second."""

    def __init__(self, port: int) -> None:
        self.dropped = self.most_queued = 0
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="watch", protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_message = self._said
        self.client.connect("127.0.0.1", port)
        self.client.subscribe([(DROPPED, 0), (QUEUED, 0)])
        self.client.loop_start()

    def _said(self, _c: Client, _u: object, message: MQTTMessage) -> None:
        value = int(message.payload)
        if message.topic == DROPPED:
            self.dropped = value
        else:
            self.most_queued = max(self.most_queued, value)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Meter:
    """Processor time and memory of several processes."""

    def __init__(self, **pids: int) -> None:
        self.processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.rss_mb: dict[str, list[float]] = {name: [] for name in pids}

    def cpu_s(self) -> dict[str, float]:
        used = {name: process.cpu_times() for name, process in self.processes.items()}
        return {name: times.user + times.system for name, times in used.items()}

    def look(self) -> None:
        for name, process in self.processes.items():
            self.rss_mb[name].append(process.memory_info().rss / 1e6)


def site(folder: Path, port: int, case: Case, *more: str) -> subprocess.Popen[bytes]:
    return start(
        folder, "site", sys.executable, str(HERE / "_site.py"), "--port", str(port), "--devices", str(DEVICES),
        "--metrics", str(case.metrics), "--samples", str(case.samples), *more,
    )  # fmt: skip


def last_line(folder: Path, name: str) -> dict[str, Any]:
    text = (folder / f"{name}.log").read_text()
    try:
        found = json.loads(text.strip().splitlines()[-1])
        return dict(found)
    except (IndexError, ValueError):
        raise SystemExit(f"{name}: {text[-2000:]}") from None


def committed(settings: CloudSettings) -> int:
    """Readings the cloud has committed, and those it was told were rejected: cheap to ask again and again."""
    with settings.store_file.open(read_only=True) as store:
        counted = json.loads(store.kept("ingest") or "{}")
        return int(counted.get("readings", 0)) + sum(store.sums().get("rejected", {}).values())


def accounted(settings: CloudSettings) -> tuple[int, int]:
    """Rows in the store, counted there, and readings it was told were rejected."""
    with settings.store_file.open(read_only=True) as store:
        return store.count_rows(), sum(store.sums().get("rejected", {}).values())


def ours(folder: Path, case: Case, *, rate: float, seconds: float, credit: int) -> dict[str, Any]:
    """One case, end to end."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(directory=folder / "broker", extra="sys_interval 1"))
        pids: dict[str, int] = {}
        mqtt = f"port = {broker.port}\n"
        cloud_toml = f'sites = ["{SITE}"]\ndata = "{folder / "cloud"}"\n[broker]\n{mqtt}'
        if case.store == "influx1":
            influx = Influx(folder / "influx")
            server = start(folder, "influxd", *influx.command())
            stack.enter_context(running(server))
            pids["influxd"] = server.pid
            cloud_toml += "[store]\n" + "".join(f'{key} = "{value}"\n' for key, value in influx.settings.items())
            (folder / "cloud.toml").write_text(cloud_toml)
            command = [sys.executable, "-m", "shoal", "cloud", "--config", str(folder / "cloud.toml"), "--init-store"]
            influx.prepare(command)
        plant = plant_file(folder)
        edge_toml = f'site = "{SITE}"\nnode = "{NODE}"\nplant = "{plant}"\ndata = "{folder / "edge"}"\n[local]\n{mqtt}'
        cloud, edge = shoal(folder, "cloud", cloud_toml), shoal(folder, "edge", edge_toml)
        stack.enter_context(running(edge, cloud))
        said(folder, "edge", edge, "bus.connected")
        said(folder, "cloud", cloud, "bus.connected")
        settings = load(CloudSettings, folder / "cloud.toml")
        watch, ages = Watch(broker.port), Ages(settings, 0.02 if case.store == "sqlite" else 0.25)
        stack.callback(watch.stop)
        ages.start()
        assert broker.pid is not None
        devices = site(folder, broker.port, case, "--rate", str(rate), "--seconds", str(seconds),
                       "--credit", str(credit))  # fmt: skip
        stack.enter_context(running(devices))
        meter = Meter(site=devices.pid, broker=broker.pid, edge=edge.pid, cloud=cloud.pid, **pids)
        cpu = before = meter.cpu_s()
        while devices.poll() is None:
            try:
                cpu = meter.cpu_s()
                meter.look()
            except psutil.Error:
                break
            time.sleep(0.25)
        produced = last_line(folder, "site")
        until = time.monotonic() + SETTLE_S
        while committed(settings) < produced["readings"] and time.monotonic() < until:
            time.sleep(0.1)
        took = time.monotonic() - produced["began"]
        cpu = {**cpu, **{name: value for name, value in meter_rest(meter).items() if name != "site"}}
        rows, rejected = accounted(settings)
        ages.done.set()
        ages.join()
        time.sleep(1.1)  # the broker's last word
    return {
        "produced": produced["readings"],
        "took_s": took,
        "lost": produced["readings"] - rows - rejected,
        "rejected": rejected,
        "cpu_us": {name: (cpu[name] - before[name]) / produced["readings"] * 1e6 for name in before},
        "rss_mb": meter.rss_mb,
        "ages_s": sorted(ages.ages_s),
        "dropped": watch.dropped,
        "queued_mb": watch.most_queued / 1e6,
    }


def meter_rest(meter: Meter) -> dict[str, float]:
    """Processor time of those that still run: the devices have ended."""
    found = {}
    for name, process in meter.processes.items():
        try:
            times = process.cpu_times()
            found[name] = times.user + times.system
        except psutil.Error:
            continue
    return found


def report(case: Case, result: dict[str, Any]) -> float:
    """The lines of one case; its rate."""
    name = f"telemetry_{case.name}"
    rate = float(result["produced"] / result["took_s"])
    more: dict[str, Any] = {} if case.target is None else {"target": case.target, "holds": rate >= case.target}
    figure(f"{name}_readings_per_s", rate, "1/s", **more,
           note=f"{result['produced']} readings in {result['took_s']:.1f} s, until the last was in the store; "
                f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
    for stage, value in result["cpu_us"].items():
        figure(f"{name}_{stage}_us_per_reading", value, "us", note="processor time")
    figure(f"{name}_total_us_per_reading", sum(result["cpu_us"].values()), "us", note="processor time of all processes")
    ages = result["ages_s"]
    if ages:
        figure(f"{name}_age_p50_ms", ages[len(ages) // 2] * 1e3, "ms", note="sample taken until seen in the store")
        figure(f"{name}_age_p99_ms", ages[int(len(ages) * 0.99)] * 1e3, "ms", note=f"{len(ages)} looks that found news")
    for stage, values in result["rss_mb"].items():
        half = max(values[: len(values) // 2], default=0.0)
        figure(f"{name}_{stage}_rss_mb", max(values, default=0.0), "MB", note=f"peak; {half:.0f} in the first half")
    queued, lost, dropped = result["queued_mb"], result["lost"], result["dropped"]
    figure(f"{name}_broker_queue_mb", queued, "MB", target=QUEUED_MB, holds=queued <= QUEUED_MB, note="largest")
    figure(f"{name}_broker_dropped", dropped, "messages", target=0, holds=dropped == 0)
    figure(f"{name}_lost", lost, "readings", target=0, holds=lost == 0,
           note=f"produced = stored + rejected with a reason ({result['rejected']})")  # fmt: skip
    return rate


def other(kind: str, folder: Path, case: Case, *, seconds: float, rate: float) -> float:
    """Readings/s of the limit or a peer, fed faster than it can take."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(directory=folder / "broker"))
        store = str(folder / "peer.db")
        if kind == "influx1":
            influx = Influx(folder / "influx")
            stack.enter_context(running(start(folder, "influxd", *influx.command())))
            wait_for_port(influx.port)
            store = str(influx.settings["url"])
        peer = start(folder, kind, sys.executable, str(HERE / "_peer.py"), kind, "--port", str(broker.port),
                     "--seconds", str(seconds), "--per-burst", str(case.cells), "--store", store)  # fmt: skip
        stack.enter_context(running(peer))
        said(folder, kind, peer, "ready")
        feeder = site(folder, broker.port, case, "--plain", "--rate", str(rate), "--seconds", str(seconds + 3),
                      "--drain-s", "0")  # fmt: skip
        stack.enter_context(running(feeder))
        peer.wait(seconds + 60)
        result = last_line(folder, kind)
    return float(result["readings"] / result["took_s"])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--seconds", type=float, default=60.0, help="of traffic of the large messages")
    parser.add_argument("--only", nargs="*", default=[], help="cases, such as sqlite:4x100; default: all")
    parser.add_argument("--rate", type=float, default=0.0, help="readings/s offered; 0: as fast as `Taken` allows")
    parser.add_argument("--credit", type=int, default=4, help="bursts a device may have out")
    parser.add_argument("--no-peers", action="store_true", help="neither limit nor peers")
    parser.add_argument("--dir", type=Path, help="measure the disk of this directory")
    args = parser.parse_args()
    cases = [parse(text) for text in args.only] or CASES
    few_s = 3.0 if args.quick else 10.0
    limits: dict[int, float] = {}
    for case in cases:
        if case.store == "influx1" and not shutil.which("influxd"):
            print("influxd is not installed: its cases are left out", file=sys.stderr)
            continue
        seconds = 5.0 if args.quick else args.seconds if case.target else args.seconds / 3
        with fresh(args.dir) as folder:
            rate = report(case, ours(folder, case, rate=args.rate or case.rate, seconds=seconds, credit=args.credit))
        if args.no_peers or case.overload:
            continue
        name = f"telemetry_{case.name}"
        if case.cells not in limits:
            with fresh(args.dir) as folder:
                limits[case.cells] = other("count", folder, case, seconds=few_s, rate=0.0)
        limit = limits[case.cells]
        figure(f"{name}_limit", limit, "1/s", ratio=round(rate / limit, 3),
               note="a raw paho subscriber that only counts the same bursts; ratio: ours to it")  # fmt: skip
        with fresh(args.dir) as folder:
            guess = other(case.store, folder, case, seconds=2.0, rate=limit / 2)
        with fresh(args.dir) as folder:  # fed a little faster than it can: who feeds needs processor time as well
            peer = other(case.store, folder, case, seconds=few_s, rate=1.2 * guess)
        bar = {"target": PEER_RATIO, "holds": rate / peer >= PEER_RATIO} if case.store == "influx1" else {}
        figure(f"{name}_against_peer", rate / peer, "ratio", **bar,
               peer=f"aiomqtt, a write per message; no cleaning, no dedupe: {peer:.0f} readings/s",
               ratio=round(rate / peer, 2))  # fmt: skip


@contextmanager
def fresh(where: Path | None) -> Iterator[Path]:
    """A directory of its own for one run."""
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


def parse(text: str) -> Case:
    """A case by name; those with a bar keep it."""
    store, _, shape = text.partition(":")
    metrics, _, samples = shape.partition("x")
    if store not in ("sqlite", "influx1") or not (metrics.isdigit() and samples.isdigit()):
        raise SystemExit(f"{text}: a case is STORE:METRICSxSAMPLES, such as sqlite:4x100 or influx1:4x10")
    if not 1 <= int(metrics) <= len(METRICS):
        raise SystemExit(f"{text}: 1 to {len(METRICS)} metrics")
    known = {(case.store, case.metrics, case.samples): case for case in CASES if not case.overload}
    return known.get((store, int(metrics), int(samples)), Case(store, int(metrics), int(samples), None))


if __name__ == "__main__":
    main()
