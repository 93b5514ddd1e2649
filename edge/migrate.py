"""The tables of a node's file, and how the file of an older version becomes one of this version.

    migrate(connection, version)          # from `version` to SCHEMA, in one transaction; nothing to do: nothing done

One step per version, in order, never changed once released. All steps and the new number in `user_version` are one
transaction: whatever happens in between, power cut or full disk, the file is what it was, whole, and the next start
tries again; so no copy of it is needed, and none is made. Batches keep epoch, lane, number and bytes: the store sees no
difference. There is no way back: an older version refuses the file and names the cure.

1 → 2  Batches have a `grade`, the turn in which they go at the disk budget (`eviction.py`), and the index by it takes
       the place of the one by age. Those made before have the lowest: under pressure they go first, oldest first, as
       they did. Nothing of a batch is rewritten, so that a full outbox needs no second one beside it. Evicted ranges
       are told when their turn comes (`gone.py`), so they know when they were dropped; of those told already, that is
       when the batch that tells of them was made.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

SCHEMA = 2
"""Version of the tables, in `user_version`."""

TABLES = """
CREATE TABLE inbox   (id INTEGER PRIMARY KEY, device TEXT NOT NULL, payload BLOB NOT NULL, readings INTEGER NOT NULL);
CREATE TABLE heard   (device TEXT NOT NULL, boot TEXT NOT NULL, nth INTEGER NOT NULL, state TEXT NOT NULL,
                      PRIMARY KEY (device, boot)) WITHOUT ROWID;
CREATE TABLE refused (device TEXT NOT NULL, reason TEXT NOT NULL, messages INTEGER NOT NULL, readings INTEGER NOT NULL,
                      at INTEGER NOT NULL, sample TEXT, PRIMARY KEY (device, reason)) WITHOUT ROWID;
CREATE TABLE epochs  (nth INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE);
CREATE TABLE lanes   (epoch TEXT NOT NULL, lane TEXT NOT NULL, next_seq INTEGER NOT NULL,
                      PRIMARY KEY (epoch, lane)) WITHOUT ROWID;
CREATE TABLE outbox  (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL,
                      readings INTEGER NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL,
                      grade INTEGER NOT NULL DEFAULT 0, UNIQUE (epoch, lane, seq));
CREATE INDEX outbox_turn ON outbox (lane, grade, id, epoch, seq, readings, bytes);
CREATE TABLE evicted (epoch TEXT NOT NULL, lane TEXT NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
                      readings INTEGER NOT NULL, at INTEGER NOT NULL, carrier_epoch TEXT, carrier_seq INTEGER,
                      PRIMARY KEY (epoch, lane, low)) WITHOUT ROWID;
CREATE INDEX evicted_carrier ON evicted (carrier_epoch, carrier_seq);
CREATE TABLE state   (key TEXT PRIMARY KEY, blob BLOB NOT NULL) WITHOUT ROWID;
"""


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables of `version` to SCHEMA, wholly or not at all."""
    if version == SCHEMA:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[version - 1 :]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _to_2(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE outbox ADD COLUMN grade INTEGER NOT NULL DEFAULT 0")
    connection.execute("DROP INDEX outbox_lane")
    connection.execute("CREATE INDEX outbox_turn ON outbox (lane, grade, id, epoch, seq, readings, bytes)")
    connection.execute("ALTER TABLE evicted RENAME TO evicted_1")
    connection.execute(
        """CREATE TABLE evicted (epoch TEXT NOT NULL, lane TEXT NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
                      readings INTEGER NOT NULL, at INTEGER NOT NULL, carrier_epoch TEXT, carrier_seq INTEGER,
                      PRIMARY KEY (epoch, lane, low)) WITHOUT ROWID"""
    )
    connection.execute("CREATE INDEX evicted_carrier ON evicted (carrier_epoch, carrier_seq)")
    told = connection.execute("SELECT DISTINCT carrier_epoch, carrier_seq FROM evicted_1").fetchall()
    for epoch, seq in told:
        row = connection.execute(
            "SELECT payload FROM outbox WHERE epoch = ? AND lane = 'record' AND seq = ?", (epoch, seq)
        ).fetchone()
        at = 0 if row is None else int(json.loads(row[0])["made_at"])
        connection.execute(
            "INSERT INTO evicted SELECT epoch, lane, low, high, readings, ?, carrier_epoch, carrier_seq FROM evicted_1 "
            "WHERE carrier_epoch IS ? AND carrier_seq IS ?",
            (at, epoch, seq),
        )
    connection.execute("DROP TABLE evicted_1")


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_to_2,)
"""The n-th leads from version n to n + 1."""
