"""What could not be stored, in the store's own tables: bounded, the oldest go first, and what goes is counted.

    dropped = put_aside(db, Entry(...), room_mb=64)     # in the caller's transaction; never the entry itself

Promise: the bytes used are counted in the transaction that adds or drops them, so that the entry just written is kept
whatever else goes. Bound: `quarantine_mb`, at least what the largest message takes.
"""

from __future__ import annotations

import sqlite3
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from cloud.stores.seam import QuarantineKind
from messages.errors import UsageError
from messages.message import MAX_BYTES

ENTRY_BYTES = 256
"""What an entry costs beside its payload, about."""
LEAST_MB = MAX_BYTES // 2**20
"""The largest payload."""


class Entry(NamedTuple):
    """One thing that is not stored as rows, and why."""

    at: int
    kind: QuarantineKind
    topic: str
    reason: str
    readings: int
    payload: bytes


def put_aside(db: sqlite3.Connection, entry: Entry, *, room_mb: float) -> int:
    """Keep `entry`; returns how many older ones went for it."""
    done = db.execute(
        "INSERT INTO quarantine (at, kind, topic, reason, readings, size, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*entry[:5], len(entry.payload), entry.payload),
    )
    count(db, "quarantined_readings", entry.readings)
    used = count(db, "quarantine_bytes", len(entry.payload) + ENTRY_BYTES)
    dropped = 0
    while used > room_mb * 2**20:
        oldest, size = db.execute("SELECT id, size FROM quarantine ORDER BY id LIMIT 1").fetchone()
        if oldest == done.lastrowid:
            count(db, "quarantine_bytes", size + ENTRY_BYTES - used)  # right again, whatever a former version left
            break
        db.execute("DELETE FROM quarantine WHERE id = ?", (oldest,))
        used = count(db, "quarantine_bytes", -size - ENTRY_BYTES)
        dropped += 1
    if dropped:
        count(db, "quarantine_dropped", dropped)
    return dropped


def forget(db: sqlite3.Connection, first: int, end: int, before: int) -> None:
    """Drop the entries numbered first to end, end outside, that are older than `before`."""
    gone = db.execute(
        "DELETE FROM quarantine WHERE id >= ? AND id < ? AND at < ? RETURNING size", (first, end, before)
    ).fetchall()
    count(db, "quarantine_bytes", -sum(size + ENTRY_BYTES for (size,) in gone))


def count(db: sqlite3.Connection, name: str, more: int) -> int:
    """The counter `name`, after `more` were added."""
    done = db.execute(
        "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n RETURNING n",
        (name, more),
    )
    return int(done.fetchall()[0][0])


def _enough(megabytes: float) -> float:
    if megabytes < LEAST_MB:
        raise UsageError(f"quarantine_mb = {megabytes:g}: give at least {LEAST_MB}, what one message may hold (4 MiB)")
    return megabytes


QuarantineMb = Annotated[float, AfterValidator(_enough)]
"""A setting: room of the quarantine."""
