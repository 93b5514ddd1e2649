"""Foreign messages: what one costs, from bytes to the inbox. One JSON line per figure, CPU time of this process.

    python benchmarks/mapping.py [--quick]

Decoding is by kind of payload, as in `examples/mappings`; taking in is decoding, bursts, and the commit on this disk
(SQLite, synchronous=FULL), 100 devices whose messages come in lists as the node gathers them. The peer is what a user
would write: `json.loads`, the fields by hand, one row per reading in SQLite, the same messages per commit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.decoding import Decoder
from edge.disk import Disk
from edge.foreign import Foreign
from edge.intake import Intake
from edge.mapping import Mapping
from edge.outbox import Outbox
from messages.bus import Bus, Received
from messages.clock import WallClock
from messages.settings import load

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "mappings"
NOW = 1_768_467_600_000_000
KINDS = ("tasmota", "shelly", "zigbee2mqtt", "plain", "vendor")
"""Files in examples/mappings; the first of their messages is decoded."""


def line(figure, value, unit, **more):
    print(json.dumps({"figure": figure, "value": round(value, 2), "unit": unit, "target": None, "holds": None, **more}))


def decoding(count):
    for name in KINDS:
        mapping = load(Mapping, EXAMPLES / f"{name}.toml", {})
        decoder = Decoder(mapping, mapping.declared("n"))
        lines = [one for one in (EXAMPLES / f"{name}.txt").read_text().splitlines() if not one.startswith("#")]
        topic, _, payload = lines[0].partition(" ")
        while not decoder.hears(topic):
            level, _, payload = payload.partition(" ")
            topic = f"{topic} {level}"
        data = payload.encode()
        readings = sum(one.readings for one in decoder.decode(topic, data, arrived_us=NOW).samples)
        begun = time.process_time()
        for _ in range(count):
            decoder.decode(topic, data, arrived_us=NOW)
        us = (time.process_time() - begun) / count * 1e6
        line(f"decode_{name}", us, "us/message", note=f"{readings} readings, {len(data)} bytes")


def messages(devices, rounds, first):
    """(topic, payload): each device once a round, four metrics, a time of its own."""
    for n in range(first, first + rounds):
        for d in range(devices):
            energy = {"Power": 1000 + n % 50, "Total": n / 1000, "Voltage": 230 + d % 3, "Current": 4.5}
            yield f"tele/plug-{d}/SENSOR", json.dumps({"Time": NOW / 1e6 + n, "ENERGY": energy}).encode()


async def taking_in(folder, lists, per_list):
    devices = 100
    limits = {"low": 0, "high": 1e6}
    metrics = {"power_kw": "kW", "energy_kwh": "kWh", "voltage_v": "V", "current_a": "A"}
    paths = {"power_kw": ("Power", "W"), "energy_kwh": ("Total", "kWh"), "voltage_v": ("Voltage", "V")}
    values = [
        {"path": f"ENERGY.{path}", "metric": metric, "unit": unit}
        for metric, (path, unit) in {**paths, "current_a": ("Current", "A")}.items()
    ]
    mapping = Mapping.model_validate(
        {
            "every_s": 0,
            "device": [
                {
                    "device": f"plug-{d}",
                    "metrics": {metric: {"unit": unit, **limits} for metric, unit in metrics.items()},
                }
                for d in range(devices)
            ],
            "map": [{"topic": "tele/{d}/SENSOR", "time": {"path": "Time", "format": "unix_s"}, "value": values}],
        }
    )
    with closing(Disk.open(folder)) as disk:
        outbox = Outbox.open(disk, budget_bytes=10**9, batch_bytes=256_000)
        intake = Intake.open(disk, outbox, devices=[f"plug-{d}" for d in range(devices)])

        async def take_in(job):
            return await disk.write(lambda: job(NOW))

        foreign = Foreign(Decoder(mapping, mapping.declared("n")), intake, take_in, WallClock(), every_s=0)
        stream = messages(devices, lists * per_list // devices + 1, 0)
        waiting = [
            [Received(topic, {}, None, payload) for topic, payload in (next(stream) for _ in range(per_list))]
            for _ in range(lists)
        ]
        bus = Bus("127.0.0.1", 1883, client_id="none")  # where nothing waits
        begun = time.process_time()
        for received in waiting:
            await foreign.on_messages(bus, received)
        spent = time.process_time() - begun
        assert foreign.counts.readings == intake.counts.readings == 4 * lists * per_list
    return spent / (lists * per_list) * 1e6


def by_hand(folder, lists, per_list):
    """What a user would write."""
    folder.mkdir()
    db = sqlite3.connect(folder / "peer.db", isolation_level=None)
    db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
    db.execute("CREATE TABLE readings (device TEXT, metric TEXT, at INTEGER, value REAL)")
    stream = list(messages(100, lists * per_list // 100 + 1, 0))
    begun = time.process_time()
    for n in range(lists):
        db.execute("BEGIN")
        for topic, payload in stream[n * per_list : (n + 1) * per_list]:
            body = json.loads(payload)
            at, energy, device = round(body["Time"] * 1e6), body["ENERGY"], topic.split("/")[1]
            rows = [
                (device, "power_kw", at, energy["Power"] / 1000),
                (device, "energy_kwh", at, energy["Total"]),
                (device, "voltage_v", at, energy["Voltage"]),
                (device, "current_a", at, energy["Current"]),
            ]
            db.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)
        db.execute("COMMIT")
    spent = time.process_time() - begun
    db.close()
    return spent / (lists * per_list) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    quick = parser.parse_args().quick
    decoding(2_000 if quick else 20_000)
    with tempfile.TemporaryDirectory() as folder:
        for per_list in (1, 100, 1_000):
            lists = max(1, (2_000 if quick else 10_000) // per_list)
            ours = asyncio.run(taking_in(Path(folder) / f"ours-{per_list}", lists, per_list))
            peer = by_hand(Path(folder) / f"peer-{per_list}", lists, per_list)
            note = f"4 readings each, {per_list} per commit, no MQTT, no cleaning; the peer checks and numbers nothing"
            line(f"take_in_{per_list}", ours, "us/message", peer=round(peer, 2), ratio=round(ours / peer, 2), note=note)


if __name__ == "__main__":
    main()
