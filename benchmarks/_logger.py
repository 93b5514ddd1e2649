"""The usual logger, as a peer: subscribe, decode JSON, one SQLite row per reading, one commit per message.

    python benchmarks/_logger.py 1883 readings.db [NODE]     # all nodes, or this one

The disk is as sure as an edge node's (synchronous=FULL); it neither cleans nor hands on.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTProtocolVersion


def start_logger(port: int, file: Path, node: str = "+") -> subprocess.Popen[bytes]:
    """A process of its own; it cannot say when it has subscribed."""
    return subprocess.Popen([sys.executable, __file__, str(port), str(file), node])


def main(port: str, file: str, node: str = "+") -> None:
    """Log until killed."""
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE reading (device TEXT, metric TEXT, at INTEGER, value REAL)")

    def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
        burst = json.loads(message.payload)
        device = message.topic.split("/")[5]
        db.execute("BEGIN")
        for metric, column in burst["columns"].items():
            rows = [(device, metric, burst["t0"] + at, value) for at, value in zip(burst["at"], column, strict=True)]
            db.executemany("INSERT INTO reading VALUES (?, ?, ?, ?)", rows)
        db.execute("COMMIT")

    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = on_message
    client.connect("127.0.0.1", int(port))
    client.subscribe(f"shoal/v1/+/{node}/raw/+", qos=1)
    client.loop_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
