"""A store that is down for an hour, scaled: how the backlog drains when it is back, how old live data is, what is lost.

    python benchmarks/store_outage.py [--quick] [--only influx1] [--rate 10000] [--seconds 60] [--dir DIRECTORY]

Real processes: a private Mosquitto, `shoal edge`, `shoal cloud`, InfluxDB 1.x where it is the store, and devices that
send at `--rate` readings/s all the time (`_site.py`). Then the store is killed for `--seconds`: influxd, or for the
embedded store the cloud process that has it. The hour is scaled to that, and with it the time after which a node
numbers new data as backlog (30 s of the hour). Ages are seen from outside: how old the newest row is, at ten looks a
second, the time between two bursts included. One JSON line per figure:

    {"figure": "outage_influx1_backlog_rate", "value": 6.3, "unit": "x live", "target": 5.0, "holds": true, "note": "…"}

`figure` begins with outage_influx1_ or outage_sqlite_; `target`, `holds` and `note` where there is one. Of each store:
backlog_rate (from the moment the store is back until the node holds no backlog, what live data took subtracted),
waited_s (of that, until the first commit), live_fresh_after_s, live_age_p50_s, live_age_max_s, lost, and of the
embedded store duplicated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from _site import METRICS, NODE, SITE, device
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTProtocolVersion

from cloud.ingest import STATUS
from cloud.settings import CloudSettings
from cloud.stores import Query, SqliteStore
from messages.broker import Broker
from messages.errors import StoreDown, UsageError
from messages.settings import load
from shoal.torture.influx import Influx
from shoal.torture.stage import wait_for_port

HERE = Path(__file__).parent
DEVICES, SAMPLES = 25, 50
BEFORE_S, PROBED = 5.0, 7
BACKLOG_AFTER_S = 30.0
HOUR_S = 3600.0
BACKLOG_RATE, LIVE_S = 5.0, 2.0
"""What is wanted: backlog alone drains at so many times the live rate, while live data stays younger than that."""
PATIENCE_S = 120.0
LOOK_S = 0.1


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    """One line of the answer."""
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **more}), flush=True)


@dataclass
class Process:
    """A program that can be killed and started again; what it says is in a log."""

    command: list[str]
    log: Path
    running: subprocess.Popen[bytes] | None = None
    before: int = 0
    """characters it had said when it was killed last"""

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.running = subprocess.Popen(self.command, cwd=HERE.parent, stdout=out, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        assert self.running is not None
        self.running.kill()
        self.running.wait()
        self.before = len(self.log.read_text())

    def said(self, word: str, within_s: float = 20.0) -> None:
        """Wait until it has said `word`, since it was killed if it was."""
        until = time.monotonic() + within_s
        while word not in (text := self.log.read_text()[self.before :]):
            if self.running is None or self.running.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{self.log.name}: {text[-2000:]}")
            time.sleep(0.05)


@contextmanager
def started(*processes: Process) -> Iterator[None]:
    """Run them, and end them in the reverse order."""
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in reversed(processes):
            if process.running is not None:
                process.running.terminate()
                try:
                    process.running.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()


@dataclass
class Looks:
    """The store as a dashboard sees it."""

    settings: CloudSettings
    ages_s: list[tuple[float, float]] = field(default_factory=list)
    """when (monotonic), and how old the newest row was"""
    newest: int = 0

    def age(self) -> None:
        """Look at the newest row of one device."""
        try:
            with self.settings.store_file.open(read_only=True) as store:
                since = max(self.newest + 1, time.time_ns() // 1000 - 3_600_000_000)
                found = store.query(Query("power_kw", device=device(PROBED), start=since, every_s=0.05, agg="last"))
        except (StoreDown, UsageError):
            return
        if len(found):
            self.newest = int(found.times[-1])
        if self.newest:
            self.ages_s.append((time.monotonic(), time.time() - self.newest / 1e6))

    def committed(self) -> int:
        """Readings that ingest has committed, rejected ones included: cheaper than counting rows."""
        with self.settings.store_file.open(read_only=True) as store:
            return int(json.loads(store.kept(STATUS) or "{}").get("readings", 0)) + sum(
                store.sums()["rejected"].values()
            )

    def duplicated(self) -> int | None:
        """Rows that are there twice; None where the store collapses equal points by itself."""
        if not isinstance(self.settings.store_file, SqliteStore):
            return None
        with self.settings.store_file.open(read_only=True) as store:
            return store.count_rows() - store.distinct_rows()

    def accounted(self) -> tuple[int, int]:
        """Rows, and readings that were rejected with a reason."""
        with self.settings.store_file.open(read_only=True) as store:
            return store.count_rows(), sum(store.sums()["rejected"].values())


class Backlog:
    """How many batches the node holds as backlog, by its own word."""

    def __init__(self, port: int) -> None:
        self.batches = 0
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="looker", protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_message = self._said
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(f"shoal/v1/{SITE}/{NODE}/up/health")
        self.client.loop_start()

    def _said(self, _c: Client, _u: object, message: MQTTMessage) -> None:
        self.batches = int(json.loads(message.payload)["counters"]["outbox_backlog"])

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def plant_file(folder: Path) -> Path:
    """A plant of nothing but machines of 100 kW."""
    lines = [f'site = "{SITE}"', 'products = ["p"]', "[[workshops]]", 'name = "shop"', f'node = "{NODE}"']
    for n in range(DEVICES):
        lines += ["[[workshops.machines]]", f'id = "{device(n)}"', "work_kw = 100", "idle_kw = 5", "preheat_kw = 10",
                  "preheat_h = 1", "time_h = [1]"]  # fmt: skip
    (folder / "plant.toml").write_text("\n".join(lines) + "\n")
    return folder / "plant.toml"


def outage(kind: str, folder: Path, *, rate: float, down_s: float) -> None:
    """One store, one outage, its figures."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(directory=folder / "broker"))
        mqtt = f"port = {broker.port}\n"
        cloud_toml = f'sites = ["{SITE}"]\ndata = "{folder / "cloud"}"\n[broker]\n{mqtt}'
        shoal = [sys.executable, "-m", "shoal"]
        config = str(folder / "cloud.toml")
        cloud = Process([*shoal, "cloud", "--config", config], folder / "cloud.log")
        victim = cloud
        if kind == "influx1":
            influx = Influx(folder / "influx")
            cloud_toml += "[store]\n" + "".join(f'{key} = "{value}"\n' for key, value in influx.settings.items())
            victim = Process(influx.command(), folder / "influxd.log")
            stack.enter_context(started(victim))
            wait_for_port(influx.port)
        (folder / "cloud.toml").write_text(cloud_toml)
        subprocess.run([*shoal, "cloud", "--init-store", "--config", config], check=True, stdout=subprocess.DEVNULL)
        (folder / "edge.toml").write_text(
            f'site = "{SITE}"\nnode = "{NODE}"\nplant = "{plant_file(folder)}"\ndata = "{folder / "edge"}"\n'
            f"health_s = 0.2\nbacklog_after_s = {BACKLOG_AFTER_S * down_s / HOUR_S}\n[local]\n{mqtt}"
        )
        edge = Process([*shoal, "edge", "--config", str(folder / "edge.toml")], folder / "edge.log")
        stack.enter_context(started(cloud, edge))
        edge.said("bus.connected")
        cloud.said("bus.connected")
        looks = Looks(load(CloudSettings, folder / "cloud.toml"))
        backlog = Backlog(broker.port)
        stack.callback(backlog.stop)
        seconds = BEFORE_S + down_s * 1.6 + 10
        devices = Process(
            [sys.executable, str(HERE / "_site.py"), "--port", str(broker.port), "--devices", str(DEVICES), "--samples",
             str(SAMPLES), "--rate", str(rate), "--seconds", str(seconds), "--credit", "8"], folder / "site.log",
        )  # fmt: skip
        stack.enter_context(started(devices))
        began = time.monotonic()
        while time.monotonic() < began + BEFORE_S:
            looks.age()
            time.sleep(LOOK_S)
        victim.kill()
        time.sleep(down_s)
        victim.start()
        if kind == "influx1":
            wait_for_port(influx.port)
        else:
            victim.said("bus.connected")
        begun = back = time.monotonic()
        first, drained = looks.committed(), None
        while drained is None and time.monotonic() < back + PATIENCE_S:
            assert victim.running is not None
            if victim.running.poll() is not None:  # its port was somebody's for a moment
                victim.start()
            looks.age()
            time.sleep(LOOK_S)
            stored, now = looks.committed(), time.monotonic()
            if stored == first:
                begun = now  # ingest has not tried again yet: it waits up to five seconds
            elif not backlog.batches:
                drained = now
        assert devices.running is not None
        devices.running.wait(seconds + 60)
        produced = json.loads(devices.log.read_text().strip().splitlines()[-1])["readings"]
        until = time.monotonic() + PATIENCE_S
        while sum(looks.accounted()) < produced and time.monotonic() < until:
            time.sleep(0.2)
        rows, rejected = looks.accounted()
        duplicated = looks.duplicated()
    report(kind, looks, Drain(rate, down_s, back, begun, drained, stored - first))
    lost = produced - rows - rejected
    more = "" if duplicated is not None else "; equal points collapse there, so one sent twice does not show"
    figure(f"outage_{kind}_lost", lost, "readings", target=0, holds=lost == 0,
           note=f"produced = stored + rejected with a reason ({rejected}); negative: doubled{more}")  # fmt: skip
    if duplicated is not None:
        figure(f"outage_{kind}_duplicated", duplicated, "rows", target=0, holds=duplicated == 0,
               note="rows less distinct series and times: no doubled row makes up for a lost one")  # fmt: skip


@dataclass(frozen=True)
class Drain:
    """How it went; times are monotonic."""

    rate: float
    down_s: float
    back: float
    begun: float
    drained: float | None
    readings: int


def report(kind: str, looks: Looks, drain: Drain) -> None:
    """The lines of one outage."""
    name = f"outage_{kind}"
    note = f"{drain.rate:.0f} readings/s live, down for {drain.down_s:g} s, which stand for an hour"
    if drain.drained is None:
        figure(f"{name}_backlog_rate", 0, "x live", target=BACKLOG_RATE, holds=False, note=f"not drained; {note}")
        return
    took_s = drain.drained - drain.back
    rate = (drain.readings / took_s - drain.rate) / drain.rate
    figure(f"{name}_backlog_rate", rate, "x live", target=BACKLOG_RATE, holds=rate >= BACKLOG_RATE,
           note=f"{drain.readings} readings in {took_s:.1f} s from its return, less the live ones; {note}")  # fmt: skip
    figure(f"{name}_waited_s", drain.begun - drain.back, "s", note="of that, until the first commit")
    after = [(at, age) for at, age in looks.ages_s if drain.begun <= at <= drain.drained]
    fresh = next((at for at, age in after if age < LIVE_S), None)
    if fresh is None:
        figure(f"{name}_live_age_max_s", max(age for _, age in after), "s", target=LIVE_S, holds=False)
        return
    figure(
        f"{name}_live_fresh_after_s", fresh - drain.begun, "s", note="newest row younger than 2 s for the first time"
    )
    ages = sorted(age for at, age in after if at >= fresh)
    figure(f"{name}_live_age_p50_s", ages[len(ages) // 2], "s", note=f"from then, while it drained: {len(ages)} looks")
    figure(f"{name}_live_age_max_s", ages[-1], "s", target=LIVE_S, holds=ages[-1] < LIVE_S, note="the same")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: InfluxDB only, 15 s for the hour")
    parser.add_argument("--only", choices=["influx1", "sqlite"], help="this store")
    parser.add_argument("--rate", type=float, default=10_000.0, help="readings/s")
    parser.add_argument("--seconds", type=float, help="the store is down so long (default 60)")
    parser.add_argument("--dir", type=Path, help="work on the disk of this directory")
    args = parser.parse_args()
    kinds = [args.only] if args.only else ["influx1"] if args.quick else ["influx1", "sqlite"]
    for kind in kinds:
        folder = Path(tempfile.mkdtemp(prefix="shoal-outage-", dir=args.dir))
        try:
            outage(kind, folder, rate=args.rate, down_s=args.seconds or (15.0 if args.quick else 60.0))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    assert len(METRICS) == 4
    main()
