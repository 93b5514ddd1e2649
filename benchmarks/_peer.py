"""What the telemetry benchmark compares with: the same bursts, broker and QoS, other programs behind them.

    python benchmarks/_peer.py count   --port 1883 --seconds 10                  # the limit: raw paho, only counts
    python benchmarks/_peer.py sqlite  --port 1883 --seconds 10 --store peer.db  # aiomqtt, a row per reading
    python benchmarks/_peer.py influx1 --port 1883 --seconds 10 --store http://127.0.0.1:8086

From its first message on it works for so long, then prints {"readings", "took_s", "cpu_s"} and ends. The last two are
what a user would write: aiomqtt, `json.loads`, one commit or one write per message, for InfluxDB with influxdb-client
(Point, synchronous; only the path of its request is changed, as InfluxDB 1.6 has no /api/v2/write). They do not keep
what arrives before it is acknowledged, nor clean it, nor dedupe.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from typing import Any

TOPIC = "shoal/v1/+/+/raw/+"
Write = Callable[[str, dict[str, Any]], None]


class Clock:
    """From the first message on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began, self.readings = seconds, 0.0, 0

    def took(self) -> float:
        if not self.began:
            self.began, self.cpu = time.monotonic(), time.process_time()
        return time.monotonic() - self.began

    def report(self) -> None:
        print(json.dumps({"readings": self.readings, "took_s": self.took(), "cpu_s": time.process_time() - self.cpu}))


def count(port: int, clock: Clock, per_burst: int) -> None:
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTProtocolVersion

    client = Client(CallbackAPIVersion.VERSION2, client_id="counter", protocol=MQTTProtocolVersion.MQTTv5)

    def on_message(_c: Client, _u: object, message: MQTTMessage) -> None:
        if clock.took() >= clock.seconds:
            client.disconnect()
        clock.readings += per_burst

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe(TOPIC, qos=1)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.loop_forever()


def sqlite_writer(path: str) -> Write:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE reading (device TEXT, metric TEXT, at INTEGER, value REAL, "
               "PRIMARY KEY (device, metric, at)) WITHOUT ROWID")  # fmt: skip

    def write(device: str, burst: dict[str, Any]) -> None:
        db.execute("BEGIN")
        for metric, column in burst["columns"].items():
            db.executemany(
                "INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)",
                [(device, metric, burst["t0"] + at, value) for at, value in zip(burst["at"], column, strict=True)],
            )
        db.execute("COMMIT")

    return write


def influx_writer(url: str) -> Write:
    from influxdb_client import InfluxDBClient, Point, WritePrecision
    from influxdb_client.client.write_api import SYNCHRONOUS

    client = InfluxDBClient(url=url, token="none", org="none")
    plain = client.api_client.call_api

    def old_path(path: str, method: str, _ids: object, query: object, *rest: Any, **more: Any) -> Any:
        return plain("/write", method, {}, [("db", "peer"), ("precision", "u")], *rest, **more)

    client.api_client.call_api = old_path  # InfluxDB 1.6 has no /api/v2/write; all else is the client's own
    api = client.write_api(write_options=SYNCHRONOUS)

    def write(device: str, burst: dict[str, Any]) -> None:
        points = [
            Point(metric).tag("device", device).field("value", value).time(burst["t0"] + at, WritePrecision.US)
            for metric, column in burst["columns"].items()
            for at, value in zip(burst["at"], column, strict=True)
            if value is not None
        ]
        api.write(bucket="peer", record=points, write_precision=WritePrecision.US)

    request = urllib.request.Request(f"{url}/query?q=CREATE+DATABASE+peer", method="POST")
    urllib.request.urlopen(request, timeout=30).read()
    return write


async def user(port: int, clock: Clock, write: Write) -> None:
    import aiomqtt

    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(TOPIC, qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            if clock.took() >= clock.seconds:
                return
            burst = json.loads(bytes(message.payload))  # type: ignore[arg-type]
            write(str(message.topic).split("/")[5], burst)
            clock.readings += len(burst["at"]) * len(burst["columns"])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["count", "sqlite", "influx1"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-burst", type=int, default=400)
    parser.add_argument("--store", default="")
    args = parser.parse_args()
    clock = Clock(args.seconds)
    if args.kind == "count":
        count(args.port, clock, args.per_burst)
    else:
        writer = sqlite_writer(args.store) if args.kind == "sqlite" else influx_writer(args.store)
        asyncio.run(user(args.port, clock, writer))
    clock.report()


if __name__ == "__main__":
    main()
