"""What the embedded store takes and how fast it answers: a day of 1 Hz readings of 16 machines x 4 metrics.

    python benchmarks/store.py [--quick] [--dir DIRECTORY]

The readings (5.5 million; `--quick`: of six hours) are appended as a node hands them over, batches of one machine with
about 100 samples per metric, 64 batches per commit, then merged. The peer keeps one row per reading in SQLite, the same
commits, its primary key the series and the time. One JSON line per figure; times are medians of several runs in this
process, CPU where it says so. The disk is that of `--dir` (default: the system's temporary directory).
"""

from __future__ import annotations

import argparse
import gc
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from cloud.stores import BatchKey, Query, SqliteStore, StoredBatch
from cloud.stores.sqlite import SqliteConnection
from messages.contracts import Batch, Series

MACHINES = 16
METRICS = {
    "power_kw": ("kW", 3),
    "temperature_degc": ("degC", 2),
    "vibration_mm_s": ("mm/s", 3),
    "energy_kwh": ("kWh", 3),
}
"""Unit and decimals."""
SAMPLES, PER_COMMIT = 100, 64
SECOND, HOUR = 1_000_000, 3_600_000_000
T0 = 1_699_920_000_000_000
GOOD, SPIKE = 192, 66
HOUR_MS, DAY_S, LAND_US = 10.0, 0.5, 0.2


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="six hours of readings: under a minute")
    parser.add_argument("--dir", type=Path, help="measure the disk of this directory")
    args = parser.parse_args()
    hours = 6 if args.quick else 24
    gc.freeze()
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        ours, theirs = Path(directory) / "store.db", Path(directory) / "rows.db"
        with SqliteStore(path=ours).open() as store, rows_peer(theirs) as peer:
            landed_cpu, peer_cpu, readings = load(store, peer, hours)
            flush(store.connection)
            flush(peer)
            landed_bytes = ours.stat().st_size
            before = queries(ours, hours)
            merge(store, readings)
            flush(store.connection)
            after = queries(ours, hours)
            against = peer_queries(peer, hours)
            data = store.connection.execute(
                "SELECT (SELECT coalesce(sum(length(data)), 0) FROM chunk) + (SELECT sum(length(data)) FROM packed)"
            ).fetchone()[0]
            packed = Path(directory) / "packed.db"
            store.connection.execute("VACUUM INTO ?", (str(packed),))
        size = packed.stat().st_size
        peer_size = theirs.stat().st_size
    row = "one row per reading in SQLite, same commits"
    note = f"{hours} h of 1 Hz, {MACHINES} machines x {len(METRICS)} metrics = {readings:,} readings"
    land, peer_land = landed_cpu / readings * 1e6, peer_cpu / readings * 1e6
    figure(
        "append_cpu_us_per_reading", land, "us", LAND_US, peer=row, against=peer_land, note=f"{note}; commits included"
    )
    figure("bytes_per_reading_landed", landed_bytes / readings, "B", note="the file before anything is merged")
    figure(
        "bytes_per_reading", size / readings, "B", peer=row, against=peer_size / readings,
        note=f"the file once all is merged and its free pages are gone; of it chunks {data / readings:.2f} B",
    )  # fmt: skip
    for name, got in (("landed", before), ("merged", after)):
        figure(f"one_hour_of_one_series_ms_{name}", got[0] * 1e3, "ms", HOUR_MS, peer=row, against=against[0] * 1e3)
        figure(
            f"minute_means_of_16_series_s_{name}", got[1], "s", DAY_S, peer=row, against=against[1],
            note=f"{hours} h of each",
        )  # fmt: skip


def load(store: SqliteConnection, peer: sqlite3.Connection, hours: int) -> tuple[float, float, int]:
    """Append everything to both; CPU seconds of each, and how many readings."""
    ours = theirs = 0.0
    readings = 0
    waiting: list[StoredBatch] = []

    def commit() -> None:
        nonlocal ours, theirs, readings
        began = time.process_time()
        store.append(waiting)
        between = time.process_time()
        peer.execute("BEGIN")
        for one in waiting:
            for metric, part in enumerate(one.batch.series):
                number = int(part.device[1:]) * len(METRICS) + metric
                quality = [part.quality] * len(part.at) if isinstance(part.quality, int) else part.quality
                peer.executemany(
                    "INSERT OR IGNORE INTO reading VALUES (?, ?, ?, ?)",
                    ((number, part.t0 + at, v, q) for at, v, q in zip(part.at, part.value, quality, strict=True)),
                )
        peer.execute("COMMIT")
        ours, theirs = ours + between - began, theirs + time.process_time() - between
        readings += sum(one.batch.readings for one in waiting)
        waiting.clear()

    for one in batches(hours):
        waiting.append(one)
        if len(waiting) == PER_COMMIT:
            commit()
    if waiting:
        commit()
    return ours, theirs, readings


def batches(hours: int) -> Iterator[StoredBatch]:
    """What the nodes hand over, in the order of time; two of a hundred series have a spike replaced."""
    rng = np.random.default_rng(1)
    at = [k * SECOND for k in range(SAMPLES)]
    energy = np.zeros(MACHINES)
    for seq in range(hours * 3600 // SAMPLES):
        start = T0 + seq * SAMPLES * SECOND
        seconds = seq * SAMPLES + np.arange(SAMPLES)
        for machine in range(MACHINES):
            power = 50 + 20 * np.sin(seconds / 900 + machine) + rng.normal(0, 2, SAMPLES)
            columns = {
                "power_kw": power,
                "temperature_degc": 180 + 15 * np.sin(seconds / 4000 + machine) + rng.normal(0, 0.2, SAMPLES),
                "vibration_mm_s": np.abs(rng.normal(2.5, 0.6, SAMPLES)),
                "energy_kwh": energy[machine] + np.cumsum(np.abs(power)) / 3600,
            }
            energy[machine] = columns["energy_kwh"][-1]
            parts = []
            for metric, (unit, places) in METRICS.items():
                values = np.round(columns[metric], places).tolist()
                spiky = rng.random() < 0.02
                quality: int | list[int] = [GOOD] * 50 + [SPIKE] + [GOOD] * 49 if spiky else GOOD
                parts.append(Series(
                    device=f"m{machine}", metric=metric, unit=unit, t0=start, at=at, value=values,
                    quality=quality, raw={50: 999.0} if spiky else {},
                ))  # fmt: skip
            batch = Batch(epoch="0123456789abcdef", lane="live", seq=seq, floor=0, made_at=start, series=parts)
            yield StoredBatch(BatchKey("bench", f"n{machine}", batch.epoch, "live", seq), batch)


def merge(store: SqliteConnection, readings: int) -> None:
    """Merge everything, and say what it took."""
    rows, longest, steps = 0, 0.0, 0
    cpu, began = time.process_time(), time.perf_counter()
    for merged in store.compact(everything=True):
        now = time.perf_counter()
        longest, began, steps, rows = max(longest, now - began), now, steps + 1, rows + merged
    cpu = time.process_time() - cpu
    assert rows == readings == store.count_rows()
    figure("merge_cpu_us_per_reading", cpu / readings * 1e6, "us", note=f"{steps} steps")
    figure("longest_step_of_merging_ms", longest * 1e3, "ms", note="what ingest waits for at most; the disk included")


def queries(path: Path, hours: int) -> tuple[float, float]:
    """Seconds of an hour of one series, and of the minutes of one metric of every machine; read beside the writer."""
    middle = T0 + hours // 2 * HOUR + 17 * 60 * SECOND
    with SqliteStore(path=path).open(read_only=True) as reader:
        hour = Query("power_kw", device="m7", start=middle, end=middle + HOUR)
        minutes = Query("power_kw", every_s=60, start=T0, end=T0 + hours * HOUR)
        assert len(reader.query(hour)) == 3600
        assert len(reader.query(minutes)) == MACHINES * hours * 60
        return median(lambda: reader.query(hour), 15), median(lambda: reader.query(minutes), 5)


def rows_peer(path: Path) -> sqlite3.Connection:
    """One row per reading."""
    peer = sqlite3.connect(path, isolation_level=None)
    peer.execute("PRAGMA journal_mode = WAL")
    peer.execute("PRAGMA synchronous = FULL")
    peer.execute(
        "CREATE TABLE reading (series INTEGER, at INTEGER, value REAL, quality INTEGER, PRIMARY KEY (series, at)) "
        "WITHOUT ROWID"
    )
    return peer


def peer_queries(peer: sqlite3.Connection, hours: int) -> tuple[float, float]:
    """The same of the peer, into numpy columns as well."""
    middle = T0 + hours // 2 * HOUR + 17 * 60 * SECOND

    def hour() -> object:
        found = peer.execute(
            "SELECT at, value, quality FROM reading WHERE series = ? AND at >= ? AND at < ?",
            (7 * len(METRICS), middle, middle + HOUR),
        )
        return [np.array(column) for column in zip(*found, strict=True)]

    def minutes() -> object:
        found: list[tuple[object, ...]] = []
        for machine in range(MACHINES):
            found += peer.execute(
                "SELECT series, at / 60000000, avg(value), min(quality), count(*) FROM reading "
                "WHERE series = ? AND at >= ? AND at < ? GROUP BY 2",
                (machine * len(METRICS), T0, T0 + hours * HOUR),
            )
        return [np.array(column) for column in zip(*found, strict=True)]

    return median(hour, 5), median(minutes, 3)


def flush(connection: sqlite3.Connection) -> None:
    """Bring the write-ahead log into the file."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def median(work: Callable[[], object], times: int) -> float:
    """Wall seconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def figure(
    name: str,
    value: float,
    unit: str,
    target: float | None = None,
    *,
    peer: str = "",
    against: float = 0,
    note: str = "",
) -> None:
    """Print one JSON line; every figure is better when it is smaller."""
    said: dict[str, object] = {"figure": name, "value": round(value, 4), "unit": unit}
    if target is not None:
        said |= {"target": target, "holds": value <= target}
    if peer:
        said |= {"peer": peer, "ratio": round(against / value, 2)}
    if note:
        said["note"] = note
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
