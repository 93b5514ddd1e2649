"""What ingest costs per reading: decode, store and commit of batches of 4 metrics × 100 samples from 250 nodes.

    python benchmarks/ingest.py [--quick] [--dir DIRECTORY]

The peer writes the same rows into the same kind of file, one row per reading, in the same commits. One JSON line
per figure; the disk is that of `--dir` (default: the system's temporary directory).
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cloud.ingest import Ingest
from cloud.ledger import Ledger
from cloud.stores import Query, SqliteStore
from messages.contracts import Batch, Series
from messages.message import Message
from messages.routes import BATCH

NODES, METRICS, SAMPLES = 250, 4, 100
PER_BATCH = METRICS * SAMPLES
T0 = 1_700_000_000_000_000
TARGET_US = 0.35
"""CPU that a prototype of this path took on a machine of this kind."""


def payload(node: int, seq: int, rng: random.Random) -> tuple[str, bytes]:
    start = T0 + seq * SAMPLES * 1_000_000
    at = [k * 1_000_000 for k in range(SAMPLES)]
    series = [
        Series(
            device=f"machine-{node}", metric=f"metric_{k}", unit="kW", t0=start, at=at,
            value=[round(rng.gauss(50, 5), 3) for _ in at], quality=192,
        )
        for k in range(METRICS)
    ]  # fmt: skip
    batch = Batch(epoch="0123456789abcdef", lane="live", seq=seq, floor=max(0, seq - 4), made_at=start, series=series)
    return f"node-{node}", batch.encode()


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def figure(name: str, value: float, unit: str, **more: object) -> None:
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **more}), flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--dir", type=Path, help="measure the disk of this directory")
    args = parser.parse_args()
    commits, per_commit = (16 if args.quick else 100), 64
    rng = random.Random(1)
    sent = [payload(k % NODES, k // NODES, rng) for k in range(commits * per_commit)]
    readings = len(sent) * PER_BATCH
    from messages.bus import Received

    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        path = Path(directory) / "store.db"
        decode_s = take_s = 0.0
        cpu = time.process_time()
        with SqliteStore(path=path).open() as store:
            ingest = Ingest(store, Ledger(store.connection, wall_us=1, path=path), now=lambda: T0)
            for first in range(0, len(sent), per_commit):
                received: list[Received] = []

                def decode(some: list[tuple[str, bytes]], into: list[Received]) -> None:
                    for node, data in some:
                        message: Message = BATCH.message.decode(data)
                        ids = {"site": "bench", "node": node, "lane": "live"}
                        into.append(Received(BATCH.topic(**ids), ids, message, data))

                decode_s += timed(lambda f=first, r=received: decode(sent[f : f + per_commit], r))
                take_s += timed(lambda r=received: ingest.take(r))
            cpu = time.process_time() - cpu
            assert store.count_rows() == readings
            hour = timed(lambda: store.query(Query("metric_0", device="machine-7")))
            means = timed(lambda: store.query(Query("metric_1", every_s=60)))
            rows_of_means = readings // METRICS
        size = path.stat().st_size

        rows = sqlite3.connect(Path(directory) / "rows.db", isolation_level=None)
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute("PRAGMA synchronous = FULL")
        rows.execute("CREATE TABLE reading (series INTEGER, at INTEGER, value REAL, quality INTEGER, "
                     "PRIMARY KEY (series, at)) WITHOUT ROWID")  # fmt: skip
        peer_s = 0.0
        peer_readings = 0
        for first in range(0, min(len(sent), 10 * per_commit), per_commit):
            batches = [(node, Batch.decode(data)) for node, data in sent[first : first + per_commit]]

            def write(some: list[tuple[str, Batch]]) -> None:
                rows.execute("BEGIN")
                rows.executemany(
                    "INSERT OR IGNORE INTO reading VALUES (?, ?, ?, ?)",
                    (
                        (hash((node, one.metric)), one.t0 + at, value, one.quality)
                        for node, batch in some
                        for one in batch.series
                        for at, value in zip(one.at, one.value, strict=True)
                    ),
                )
                rows.execute("COMMIT")

            peer_s += timed(lambda some=batches: write(some))
            peer_readings += len(batches) * PER_BATCH
        rows.close()

    store_us, peer_us = take_s / readings * 1e6, peer_s / peer_readings * 1e6
    total_us = (decode_s + take_s) / readings * 1e6
    note = f"{METRICS} metrics x {SAMPLES} samples per batch, {per_commit} batches per commit, synchronous=FULL"
    figure("ingest_us_per_reading", total_us, "us", note=note)
    figure("ingest_readings_per_s", readings / (decode_s + take_s), "1/s", note="one process, decode included")
    cpu_us = cpu / readings * 1e6
    figure("ingest_cpu_us_per_reading", cpu_us, "us", target=TARGET_US, holds=cpu_us <= TARGET_US)
    figure("decode_us_per_reading", decode_s / readings * 1e6, "us")
    figure(
        "store_and_ledger_us_per_reading", store_us, "us", target=peer_us, holds=store_us <= peer_us,
        peer="one row per reading in SQLite, same commits", ratio=round(peer_us / store_us, 2),
    )  # fmt: skip
    figure("bytes_per_reading", size / readings, "B", note="as landed, before any compaction")
    figure("read_one_series_ms", hour * 1e3, "ms", note=f"{len(sent) // NODES * SAMPLES} readings or so")
    figure("one_minute_means_us_per_reading", means / rows_of_means * 1e6, "us")


if __name__ == "__main__":
    main()
