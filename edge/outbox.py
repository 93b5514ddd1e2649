"""Store and forward: what a node hands to the cloud stays on its disk until the store has it.

    outbox = Outbox.open(disk, budget_bytes=64 << 20)
    with disk.transaction():
        outbox.put("live", series=cleaned, made_at=now)        # numbered, encoded: these bytes never change
    for held in outbox.pending("live", outbox.epoch, limit=32): ...   # to look is not to take
    with disk.transaction():
        outbox.free(stored)                                     # only what the *store* has is forgotten

Lanes `alarm`, `record`, `live`, `backlog` have one sequence each per epoch; an epoch is minted at every open,
and older batches keep theirs. At the budget the oldest of `backlog` go first, then of `live`, `record` and
last of `alarm`; what went is an `Evicted` record of the same transaction, and stays on the disk until the
store has that record, even when the batch that carried it is itself evicted. A batch that was published may be in
the store although nobody said so: evicted, it would count twice. So those `mark_out` named, in this life of the
process or an earlier one, go last, when nothing else of any lane is left; they are few, the uplink's windows.
Bounds: `budget_bytes` of payloads; a batch `batch_bytes`, 4,096 series or 1,000 records.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

from edge.disk import Disk
from messages.contracts import MAX_RECORDS, MAX_SERIES, Batch, Evicted, Lane, LaneStored, Record, Series, StoredThrough
from messages.errors import BrokenInvariant

LANES: tuple[Lane, ...] = get_args(Lane)
EVICTION_ORDER: tuple[Lane, ...] = ("backlog", "live", "record", "alarm")
BATCH_BYTES = 256 * 1024
ROW_BYTES = 96
"""What a batch costs the disk beyond its payload, roughly; counts against the budget."""
OUT_AHEAD = 8
"""Numbers noted on the disk ahead of those published, so that publishing seldom costs a commit; after a restart so
many more than were out may be spared."""
EVICT_SHARE, EVICT_MOST = 0.05, 8 << 20
"""Part of the budget cleared at a time, and at most so many bytes: a full disk must neither evict (and record it)
at every batch, nor keep everyone waiting while it does."""


@dataclass(frozen=True)
class Held:
    """One batch as it lies in the outbox."""

    epoch: str
    lane: Lane
    seq: int
    payload: bytes
    readings: int


@dataclass
class Counts:
    """Since the outbox was opened."""

    batches: int = 0
    readings: int = 0
    freed: int = 0
    freed_readings: int = 0
    evicted: int = 0
    evicted_readings: int = 0
    foreign: int = 0
    """Lanes of a StoredThrough that claimed what was never made."""


@dataclass
class Outbox:
    """All methods but the counters are for the thread that owns the disk; changes happen inside a transaction."""

    disk: Disk
    epoch: str
    budget_bytes: int
    batch_bytes: int = BATCH_BYTES
    counts: Counts = field(default_factory=Counts)
    bytes: int = 0
    held: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    older: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    """Of `held`, batches of earlier epochs."""
    _out: dict[tuple[str, str], int] = field(default_factory=dict)
    """(epoch, lane) → highest seq that was published, or may have been by an earlier process."""
    _noted: dict[tuple[str, str], int] = field(default_factory=dict)
    """The same as it stands on the disk."""

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        budget_bytes: int,
        batch_bytes: int = BATCH_BYTES,
        mint: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> Outbox:
        """Begin a new epoch, durably, before anything can be numbered in it."""
        outbox = cls(disk, mint(), budget_bytes, batch_bytes)
        with disk.transaction():
            if disk.db.execute("SELECT 1 FROM epochs WHERE epoch = ?", (outbox.epoch,)).fetchone():
                raise BrokenInvariant(f"epoch {outbox.epoch} was minted twice; the source of randomness is broken")
            # Epochs with nothing left are forgotten: no StoredThrough of theirs can free anything any more.
            disk.db.execute("DELETE FROM epochs WHERE epoch NOT IN (SELECT DISTINCT epoch FROM outbox)")
            disk.db.execute("DELETE FROM lanes WHERE epoch NOT IN (SELECT epoch FROM epochs)")
            disk.db.execute("INSERT INTO epochs (epoch) VALUES (?)", (outbox.epoch,))
            kept = {epoch for (epoch,) in disk.db.execute("SELECT epoch FROM epochs").fetchall()}
            for epoch, lane, seq in json.loads(disk.state("out") or b"[]"):
                if epoch in kept:
                    outbox._out[epoch, lane] = outbox._noted[epoch, lane] = seq
        for lane, batches, size in disk.db.execute(
            "SELECT lane, COUNT(*), SUM(bytes) FROM outbox GROUP BY lane"
        ).fetchall():
            outbox.held[lane] = outbox.older[lane] = batches
            outbox.bytes += size + ROW_BYTES * batches
        return outbox

    def put(
        self, lane: Lane, *, made_at: int, series: Iterable[Series] = (), records: Iterable[Record] = ()
    ) -> list[int]:
        """Number, encode and keep these as one batch or more; their seqs. Evicts when over the budget."""
        seqs = []
        for group in _groups(list(series), list(records), self.batch_bytes):
            seqs.append(self._seal(lane, made_at, *group))
        if seqs and self.bytes > self.budget_bytes:
            self._evict(made_at)
        return seqs

    def free(self, stored: StoredThrough) -> int:
        """Forget what the store says it has, by exact epoch; how many batches went. Saying it again changes nothing.

        A lane that claims a seq never made here speaks of another disk: it frees nothing and is counted.
        """
        gone = 0
        for epoch, lanes in stored.epochs.items():
            if not self.disk.db.execute("SELECT 1 FROM epochs WHERE epoch = ?", (epoch,)).fetchone():
                continue
            for lane, what in lanes.items():
                if max([what.through, *(high for _, high in what.ranges)]) >= self._next_seq(epoch, lane):
                    self.counts.foreign += 1
                else:
                    gone += self._free_lane(epoch, lane, what)
        return gone

    def mark_out(self, epoch: str, lane: Lane, seq: int) -> None:
        """This batch, and those before it, are about to be published; inside a transaction."""
        if seq <= self._out.get((epoch, lane), -1):
            return
        self._out[epoch, lane] = seq
        if seq > self._noted.get((epoch, lane), -1):
            self._noted[epoch, lane] = seq + OUT_AHEAD
            self.disk.keep("out", json.dumps([[*key, top] for key, top in self._noted.items()]).encode())

    def pending(self, lane: Lane, epoch: str, *, after: int = -1, limit: int) -> list[Held]:
        """The oldest batches held of this epoch and lane above `after`, oldest first."""
        rows = self.disk.db.execute(
            "SELECT seq, payload, readings FROM outbox WHERE epoch = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT ?",
            (epoch, lane, after, limit),
        )
        return [Held(epoch, lane, seq, bytes(payload), readings) for seq, payload, readings in rows]

    def present(self, lane: Lane, epoch: str, seqs: Iterable[int]) -> set[int]:
        """Which of these seqs are still held."""
        return {
            seq
            for seq in seqs
            if self.disk.db.execute(
                "SELECT 1 FROM outbox WHERE epoch = ? AND lane = ? AND seq = ?", (epoch, lane, seq)
            ).fetchone()
        }

    def oldest(self, lane: Lane) -> int | None:
        """The oldest seq of this epoch still held in this lane."""
        row = self.disk.db.execute(
            "SELECT MIN(seq) FROM outbox WHERE epoch = ? AND lane = ?", (self.epoch, lane)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def oldest_epoch(self, lane: Lane) -> str | None:
        """The oldest earlier epoch that still has batches in this lane."""
        row = self.disk.db.execute(
            "SELECT epoch FROM outbox WHERE lane = ? AND epoch <> ? ORDER BY id LIMIT 1", (lane, self.epoch)
        ).fetchone()
        return None if row is None else str(row[0])

    # --- private ------------------------------------------------------------------------------------

    def _next_seq(self, epoch: str, lane: Lane) -> int:
        row = self.disk.db.execute("SELECT next_seq FROM lanes WHERE epoch = ? AND lane = ?", (epoch, lane)).fetchone()
        return 0 if row is None else int(row[0])

    def _seal(self, lane: Lane, made_at: int, series: list[Series], records: list[Record]) -> int:
        seq = self._next_seq(self.epoch, lane)
        oldest = self.oldest(lane)
        batch = Batch(
            epoch=self.epoch,
            lane=lane,
            seq=seq,
            floor=seq if oldest is None else oldest,
            made_at=made_at,
            series=series,
            records=records,
        )
        payload = batch.encode()
        self.disk.db.execute(
            "INSERT INTO outbox (epoch, lane, seq, readings, bytes, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (self.epoch, lane, seq, batch.readings, len(payload), payload),
        )
        self.disk.db.execute("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?)", (self.epoch, lane, seq + 1))
        self.bytes += len(payload) + ROW_BYTES
        self.held[lane] += 1
        self.counts.batches += 1
        self.counts.readings += batch.readings
        return seq

    def _free_lane(self, epoch: str, lane: Lane, what: LaneStored) -> int:
        gone = 0
        for low, high in [(0, what.through), *what.ranges]:
            if high < low:
                continue
            batches, readings = self._drop("epoch = ? AND lane = ? AND seq BETWEEN ? AND ?", (epoch, lane, low, high))
            gone += batches
            self.counts.freed += batches
            self.counts.freed_readings += readings
            if lane == "record":
                self.disk.db.execute(
                    "DELETE FROM evicted WHERE carrier_epoch = ? AND carrier_seq BETWEEN ? AND ?", (epoch, low, high)
                )
        return gone

    def _drop(self, where: str, values: Sequence[object]) -> tuple[int, int]:
        """Delete batches and keep the sums right: how many, with how many readings."""
        batches = readings = 0
        for epoch, lane, number, size, rows in self.disk.db.execute(
            f"SELECT epoch, lane, COUNT(*), SUM(bytes), SUM(readings) FROM outbox WHERE {where} GROUP BY epoch, lane",
            values,
        ).fetchall():
            batches += number
            readings += rows
            self.bytes -= size + ROW_BYTES * number
            self.held[lane] -= number
            if epoch != self.epoch:
                self.older[lane] -= number
        if batches:
            self.disk.db.execute(f"DELETE FROM outbox WHERE {where}", values)
        return batches, readings

    def _evict(self, now: int) -> None:
        target = self.budget_bytes - min(int(self.budget_bytes * EVICT_SHARE), EVICT_MOST)
        for spare_out in (True, False):
            for lane in EVICTION_ORDER:
                after = -1
                while self.bytes > target and (oldest := self._oldest(lane, after)):
                    after = oldest[-1][0]
                    for number, epoch, seq, readings in oldest:
                        if self.bytes <= target:
                            break
                        if not (spare_out and seq <= self._out.get((epoch, lane), -1)):
                            self._evict_one(lane, number, epoch, seq, readings)
        self._tell_evicted(now)

    def _oldest(self, lane: Lane, after: int) -> list[tuple[int, str, int, int]]:
        return self.disk.db.execute(
            "SELECT id, epoch, seq, readings FROM outbox WHERE lane = ? AND id > ? ORDER BY id LIMIT 256", (lane, after)
        ).fetchall()

    def _evict_one(self, lane: Lane, number: int, epoch: str, seq: int, readings: int) -> None:
        self._drop("id = ?", (number,))
        self.counts.evicted += 1
        self.counts.evicted_readings += readings
        self.disk.db.execute(
            "INSERT INTO evicted VALUES (?, ?, ?, ?, ?, NULL, NULL)", (epoch, lane, seq, seq, readings)
        )
        if lane == "record":  # what it told of earlier evictions must be told again
            self.disk.db.execute(
                "UPDATE evicted SET carrier_epoch = NULL, carrier_seq = NULL "
                "WHERE carrier_epoch = ? AND carrier_seq = ?",
                (epoch, seq),
            )

    def _tell_evicted(self, now: int) -> None:
        """Seal an Evicted record for every evicted range that no held batch tells of, merged where they touch."""
        found: dict[tuple[str, Lane], list[tuple[int, int, int]]] = {}
        for epoch, lane, low, high, readings in self.disk.db.execute(
            "SELECT epoch, lane, low, high, readings FROM evicted WHERE carrier_seq IS NULL ORDER BY epoch, lane, low"
        ).fetchall():
            spans = found.setdefault((epoch, lane), [])
            if spans and spans[-1][1] + 1 == low:
                low, readings = spans[-1][0], spans[-1][2] + readings
                spans.pop()
            spans.append((low, high, readings))
        self.disk.db.execute("DELETE FROM evicted WHERE carrier_seq IS NULL")
        for (epoch, lane), spans in found.items():
            for start in range(0, len(spans), MAX_RECORDS):
                part = spans[start : start + MAX_RECORDS]
                record = Evicted(
                    at=now,
                    epoch=epoch,
                    lane=lane,
                    ranges=[(low, high) for low, high, _ in part],
                    readings=sum(readings for _, _, readings in part),
                )
                carrier = self._seal("record", now, [], [record])
                self.disk.db.executemany(
                    "INSERT INTO evicted VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(epoch, lane, low, high, readings, self.epoch, carrier) for low, high, readings in part],
                )


def _groups(
    series: list[Series], records: list[Record], batch_bytes: int
) -> Iterator[tuple[list[Series], list[Record]]]:
    """Parts that each fit a batch, in order: by the contract's numbers and by an upper bound of their bytes."""
    pieces: list[tuple[int, Series | None, Record | None]] = []
    for one in series:
        pieces += [(_series_bytes(piece), piece, None) for piece in _pieces(one, batch_bytes)]
    pieces += [(len(record.model_dump_json()), None, record) for record in records]
    held: list[Series] = []
    kept: list[Record] = []
    size = 0
    for cost, piece, record in pieces:
        if (held or kept) and (size + cost > batch_bytes - 300 or len(held) >= MAX_SERIES or len(kept) >= MAX_RECORDS):
            yield held, kept
            held, kept, size = [], [], 0
        if piece is not None:
            held.append(piece)
        if record is not None:
            kept.append(record)
        size += cost + 1
    if held or kept:
        yield held, kept


_ROW = 17 + 25 + 7 + 3
"""Longest offset, float, quality and their commas."""
_RAW = 9 + 25 + 2


def _series_bytes(series: Series) -> int:
    return 300 + _ROW * len(series.at) + _RAW * len(series.raw)


def _pieces(series: Series, batch_bytes: int) -> Iterator[Series]:
    """The series itself, or cut by rows where it alone would burst a batch."""
    if _series_bytes(series) <= batch_bytes - 300:
        yield series
        return
    rows = max(1, (batch_bytes - 600) // (_ROW + _RAW))
    for start in range(0, len(series.at), rows):
        stop = start + rows
        quality = series.quality if isinstance(series.quality, int) else series.quality[start:stop]
        yield series.model_copy(
            update={
                "at": series.at[start:stop],
                "value": series.value[start:stop],
                "quality": quality,
                "raw": {index - start: raw for index, raw in series.raw.items() if start <= index < stop},
            }
        )
