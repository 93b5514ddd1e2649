"""What rounds must not forget: the open round and what came for it, the base, the gate's memory. One SQLite file, FULL.

    book = RoundBook(path)
    with book.together():                      # one commit for all that a batch of messages brought
        book.arrived(Arrival(…))
    book.close_with(state, vector)             # what it made; a crash from here on makes the very same of it
    book.end(state, base=vector)               # the round is closed

Bounds: one arrival per node of the round that is open or comes next; the last `KEPT_ROUNDS` rounds as they were closed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from cloud.book import Book
from cloud.quarantine import GateState
from messages.errors import BrokenInvariant
from messages.learning import Round
from messages.updates import Vector

KEPT_ROUNDS = 500


class RoundsState(BaseModel):
    """Everything but the base vector and the arrivals."""

    current: Round | None = None
    """open, or the one closed last"""
    previous: Round | None = None
    """the one before it"""
    expected: list[str] = []
    base_version: int = 0
    least: int = 0
    """the next round has at least this number"""
    gate: GateState = GateState()


@dataclass(frozen=True)
class Arrival:
    """What a node sent for a round. `payload` is absent where the update was refused: `reason` and `evidence` say why.

    `round`: what it counts in; an update of the round before has `late`.
    """

    node: str
    round: int
    at: int
    digest: str
    late: bool = False
    payload: bytes | None = None
    reason: str = ""
    evidence: str = ""


class RoundBook(Book):
    """The file of one model's rounds."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            """
            CREATE TABLE IF NOT EXISTS state(name TEXT PRIMARY KEY, document BLOB NOT NULL);
            CREATE TABLE IF NOT EXISTS arrival(round INTEGER NOT NULL, node TEXT NOT NULL, at INTEGER NOT NULL,
                                               digest TEXT NOT NULL, late INTEGER NOT NULL, payload BLOB,
                                               reason TEXT NOT NULL, evidence TEXT NOT NULL, PRIMARY KEY(round, node));
            CREATE TABLE IF NOT EXISTS closed(round INTEGER PRIMARY KEY, document BLOB NOT NULL);
            """,
        )

    def state(self) -> RoundsState:
        """As it was left."""
        row = self._db.execute("SELECT document FROM state WHERE name='rounds'").fetchone()
        return self.whole(RoundsState, row[0], table="state", row="rounds") if row else RoundsState()

    def base(self) -> Vector | None:
        """The vector rounds begin with, (P,); absent before the first one. UsageError if its bytes are broken."""
        row = self._db.execute("SELECT document FROM state WHERE name='base'").fetchone()
        return self._vector("base", row[0]) if row else None

    def keep(self, state: RoundsState, *, base: Vector | None = None) -> None:
        """The state, and another base."""
        with self.together():
            self._put("rounds", state.model_dump_json().encode())
            if base is not None:
                self._put("base", _with_digest(base))

    def close_with(self, state: RoundsState, base: Vector) -> None:
        """What the open round is about to end with, before anybody else knows."""
        with self.together():
            self._put("closing", state.model_dump_json().encode())
            self._put("closing_base", _with_digest(base))

    def closing(self) -> tuple[RoundsState, Vector] | None:
        """The same, if the round did not end since."""
        found = dict(self._db.execute("SELECT name, document FROM state WHERE name IN ('closing', 'closing_base')"))
        if not found:
            return None
        state = self.whole(RoundsState, found.get("closing"), table="state", row="closing")
        return state, self._vector("closing_base", found.get("closing_base", b""))

    def end(self, state: RoundsState, *, base: Vector | None) -> None:
        """The round of `state` is closed: what came for it is forgotten, what came of it is kept."""
        closed = state.current
        if closed is None or closed.closed is None:
            raise BrokenInvariant("a round ends when it is closed")
        with self.together():
            self.keep(state, base=base)
            self._db.execute("DELETE FROM state WHERE name IN ('closing', 'closing_base')")
            self._db.execute("DELETE FROM arrival WHERE round <= ?", (closed.round,))
            self._db.execute("INSERT OR REPLACE INTO closed VALUES(?, ?)", (closed.round, closed.encode()))
            self._db.execute("DELETE FROM closed WHERE round <= ?", (closed.round - KEPT_ROUNDS,))

    def arrived(self, one: Arrival) -> None:
        """Keep what a node sent; what it sent before for that round is replaced."""
        self._db.execute(
            "INSERT OR REPLACE INTO arrival VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            (one.round, one.node, one.at, one.digest, int(one.late), one.payload, one.reason, one.evidence),
        )

    def changed(self, node: str, round: int, reason: str, evidence: str) -> None:
        """What a node sent besides what counts."""
        self._db.execute(
            "UPDATE arrival SET reason=?, evidence=? WHERE round=? AND node=?", (reason, evidence, round, node)
        )

    def arrivals(self) -> list[Arrival]:
        """Everything that came and is not yet counted, in the order in which it came. UsageError if it is damaged."""
        rows = self._db.execute(
            "SELECT node, round, at, digest, late, payload, reason, evidence FROM arrival ORDER BY rowid"
        )
        found = [Arrival(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6], row[7]) for row in rows]
        for one in found:
            if one.payload is not None and hashlib.sha256(one.payload).hexdigest() != one.digest:
                raise self.damaged("arrival", f"{one.round} {one.node}", "the update is not the one that came")
        return found

    def history(self, last: int = KEPT_ROUNDS) -> list[Round]:
        """Closed rounds, oldest first."""
        rows = self._db.execute("SELECT round, document FROM closed ORDER BY round DESC LIMIT ?", (last,)).fetchall()
        return [self.whole(Round, document, table="closed", row=number) for number, document in reversed(rows)]

    def _vector(self, name: str, kept: bytes) -> Vector:
        data, digest = kept[:-32], kept[-32:]
        if hashlib.sha256(data).digest() != digest or len(data) % 4:
            raise self.damaged("state", name, "the vector is not what was written")
        return np.frombuffer(data, "<f4").astype(np.float32)

    def _put(self, name: str, document: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO state VALUES(?, ?)", (name, document))


def _with_digest(base: Vector) -> bytes:
    data = base.astype("<f4").tobytes()
    return data + hashlib.sha256(data).digest()
