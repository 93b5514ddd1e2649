"""What was dropped at the disk budget, and how the store comes to know: the table `evicted`.

    gone.note(epoch, lane, [(seq, readings), …], at)          # same transaction as the drop
    for ranges in gone.ripe(epoch, lane, below): …            # seal them as an Evicted record, then
    gone.carried(ranges, carrier_epoch, carrier_seq)          # on the disk until the store has that record

A range is *told* once an Evicted record of the lane `record` holds it. It is told when its turn comes, not before:
when no batch that still has to be sent lies below it. So neighbours dropped one after the other become one range, no
record is made that a later one contradicts, and the store never has to remember more holes of a lane than the uplink's
window has batches, however finely the history was thinned. When the batch that tells is itself dropped, its ranges
are told again. Bounds: untold ranges of a lane are fewer than its batches held, as between any two of those is one
at most (what the store freed in between, within the window, may part one into two); a record has MAX_RECORDS ranges.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from messages.contracts import MAX_RECORDS, Lane

ALL = 2**53


class Hole(NamedTuple):
    """Batches `low` to `high`, dropped, with so many readings; the last of them at that plant time, µs."""

    low: int
    high: int
    readings: int
    at: int


@dataclass
class Gone:
    """All methods are for the thread that owns the disk; changes happen inside a transaction."""

    db: sqlite3.Connection
    untold: set[tuple[str, Lane]] = field(default_factory=set)
    """(epoch, lane) with ranges that are not told."""

    def __post_init__(self) -> None:
        self.untold.update(self.db.execute("SELECT DISTINCT epoch, lane FROM evicted WHERE carrier_seq IS NULL"))

    def any(self) -> bool:
        """Whether the store does not know of something yet."""
        return self.db.execute("SELECT 1 FROM evicted LIMIT 1").fetchone() is not None

    def note(self, epoch: str, lane: Lane, batches: Sequence[tuple[int, int]], at: int) -> None:
        """These (seq, readings) are dropped."""
        for low, high, readings in _runs(sorted(batches)):
            before = self.db.execute(
                "SELECT low, high, readings FROM evicted WHERE epoch = ? AND lane = ? AND low < ? "
                "AND carrier_seq IS NULL ORDER BY low DESC LIMIT 1",
                (epoch, lane, low),
            ).fetchone()
            after = self.db.execute(
                "SELECT high, readings FROM evicted WHERE epoch = ? AND lane = ? AND low = ? AND carrier_seq IS NULL",
                (epoch, lane, high + 1),
            ).fetchone()
            if after is not None:
                self.db.execute("DELETE FROM evicted WHERE epoch = ? AND lane = ? AND low = ?", (epoch, lane, high + 1))
                high, readings = after[0], readings + after[1]
            if before is not None and before[1] == low - 1:
                low, readings = before[0], readings + before[2]
            self.db.execute(
                "INSERT OR REPLACE INTO evicted VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                (epoch, lane, low, high, readings, at),
            )
        self.untold.add((epoch, lane))

    def ripe(self, epoch: str, lane: Lane, below: int | None) -> Iterator[list[Hole]]:
        """Untold ranges below that seq (None: all), as many at a time as fit into one record."""
        rows = self.db.execute(
            "SELECT low, high, readings, at FROM evicted WHERE epoch = ? AND lane = ? AND low < ? "
            "AND carrier_seq IS NULL ORDER BY low",
            (epoch, lane, ALL if below is None else below),
        ).fetchall()
        for start in range(0, len(rows), MAX_RECORDS):
            yield [Hole(*row) for row in rows[start : start + MAX_RECORDS]]

    def carried(self, epoch: str, lane: Lane, holes: Sequence[Hole], carrier: tuple[str, int]) -> None:
        """These ranges are told by that batch of lane `record`."""
        self.db.executemany(
            "UPDATE evicted SET carrier_epoch = ?, carrier_seq = ? WHERE epoch = ? AND lane = ? AND low = ?",
            [(*carrier, epoch, lane, hole.low) for hole in holes],
        )
        left = "SELECT 1 FROM evicted WHERE epoch = ? AND lane = ? AND carrier_seq IS NULL LIMIT 1"
        if self.db.execute(left, (epoch, lane)).fetchone() is None:
            self.untold.discard((epoch, lane))

    def confirmed(self, carrier_epoch: str, low: int, high: int) -> None:
        """The store has these batches of lane `record`, and with them what they tell."""
        self.db.execute(
            "DELETE FROM evicted WHERE carrier_epoch = ? AND carrier_seq BETWEEN ? AND ?", (carrier_epoch, low, high)
        )

    def silenced(self, carrier_epoch: str, seqs: Sequence[int]) -> None:
        """These batches of lane `record` are dropped themselves: what they told must be told again."""
        for seq in seqs:
            where = "carrier_epoch = ? AND carrier_seq = ?"
            found = self.db.execute(f"SELECT DISTINCT epoch, lane FROM evicted WHERE {where}", (carrier_epoch, seq))
            self.untold.update(found.fetchall())
            self.db.execute(
                f"UPDATE evicted SET carrier_epoch = NULL, carrier_seq = NULL WHERE {where}", (carrier_epoch, seq)
            )


def _runs(batches: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(seq, readings), ascending, as ranges with the sum of their readings."""
    low = high = readings = -1
    for seq, rows in batches:
        if low >= 0 and seq == high + 1:
            high, readings = seq, readings + rows
            continue
        if low >= 0:
            yield low, high, readings
        low = high = seq
        readings = rows
    if low >= 0:
        yield low, high, readings
