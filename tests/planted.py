"""`shoal` with one fault planted, for the tests of the checker: `python tests/planted.py FAULT COMMAND --config FILE`.

The faults are put over the product when the process starts; the product has no switch for them. They sit where a
promise is kept, and nowhere else:

early      acknowledged before it is committed: what is said to be committed is, `LATE_S` later
unsynced   SQLite is told `synchronous=OFF`: committed, but on no disk
mute       ingest says nothing in the first seconds of its life, as if its words were lost: nodes send all again
no-dedupe  ingest takes every batch for a new one
no-key     the store's table of batches has no key
"""

from __future__ import annotations

import re
import sqlite3
import sys
import threading
import time
from typing import Any

LATE_S = 1.0
MUTE_S = 2.5


class Late(sqlite3.Connection):
    """A COMMIT returns at once; transactions are left open, joined with the next, and committed `LATE_S` later."""

    lock = threading.RLock()
    wanted = False
    """Whether its user is inside a transaction."""
    since = 0.0

    @property
    def in_transaction(self) -> bool:
        return self.wanted

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        word = sql.split(None, 1)[0].upper()
        if word not in ("BEGIN", "COMMIT", "ROLLBACK"):
            return super().execute(sql, *more)
        with self.lock:
            self.wanted = word == "BEGIN"
            if word == "BEGIN" and not super().in_transaction:
                self.since = time.monotonic()
                threading.Timer(LATE_S, self.flush).start()
            elif word == "BEGIN" or (word == "COMMIT" and time.monotonic() - self.since < LATE_S):
                sql = "SELECT 1"
            return super().execute(sql)

    def flush(self) -> None:
        with self.lock:
            if self.wanted:
                threading.Timer(0.01, self.flush).start()
            elif super().in_transaction:
                super().execute("COMMIT")


class Unsynced(sqlite3.Connection):
    """`synchronous=FULL` is heard as OFF."""

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        return super().execute(re.sub(r"(?i)(synchronous\s*=\s*)FULL", r"\1OFF", sql), *more)


class Keyless(sqlite3.Connection):
    """The table of batches is made without its key: INSERT OR IGNORE has nothing to ignore."""

    def executescript(self, script: str) -> sqlite3.Cursor:
        key = r"(CREATE TABLE batch \([^;]*?), PRIMARY KEY \(stream, seq\)\) WITHOUT ROWID"
        without = re.sub(key, r"\1)", script)
        assert without != script or "CREATE TABLE batch" not in script, "the key is not where it was: plant this anew"
        return super().executescript(without)


def connections_are(kind: type[sqlite3.Connection]) -> None:
    """Every SQLite connection of the process from now on."""
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, **{**kwargs, "factory": kind})  # type: ignore[assignment]


def mute() -> None:
    """StoredThrough does not leave."""
    from messages.bus import Bus

    publish, until = Bus.publish, time.monotonic() + MUTE_S

    async def silent(self: Bus, route: Any, *args: Any, **more: Any) -> None:
        if route.name != "stored" or time.monotonic() > until:
            await publish(self, route, *args, **more)

    Bus.publish = silent  # type: ignore[method-assign, assignment]


def no_dedupe() -> None:
    """What the ledger remembers is not asked."""
    from cloud.ledger import Ledger

    assert Ledger.judge, "batches are judged elsewhere: plant this anew"
    Ledger.judge = lambda self, key, digest: "new"  # type: ignore[method-assign]


FAULTS = {
    "early": lambda: connections_are(Late),
    "unsynced": lambda: connections_are(Unsynced),
    "no-key": lambda: connections_are(Keyless),
    "mute": mute,
    "no-dedupe": no_dedupe,
}


def main() -> None:
    """Plant the faults (joined by +), then be `shoal`."""
    for name in sys.argv.pop(1).split("+"):
        FAULTS[name]()
    from shoal.__main__ import main as shoal

    shoal()


if __name__ == "__main__":
    main()
