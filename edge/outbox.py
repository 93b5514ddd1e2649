"""Store and forward: what a node hands to the cloud stays on its disk until the store has it.

    outbox = Outbox.open(disk, budget_bytes=64 << 20)
    with disk.transaction():
        outbox.put("live", series=cleaned, made_at=now)        # numbered, encoded: these bytes never change
    for held in outbox.pending("live", outbox.epoch, limit=32): ...   # to look is not to take
    with disk.transaction():
        outbox.free(stored)                                     # only what the *store* has is forgotten

Lanes `alarm`, `record`, `live`, `backlog` have one sequence each per epoch; an epoch is minted at every open,
and older batches keep theirs. At the budget the policy (`eviction.py`) decides which batches of `backlog` go, then
of `live`; then the oldest of `record` and last of `alarm`. What went is noted in the same transaction and told in
an `Evicted` record when its turn comes (`gone.py`): it stays on the disk until the store has that record, even when
the batch that carried it is itself evicted. A batch that was published may be in the store although nobody said so:
evicted, it would count twice. So those `mark_out` named, in this life of the process or an earlier one, go last,
when nothing else of any lane is left; they are few, the uplink's windows.
Bounds: `budget_bytes` of payloads; a batch `batch_bytes`, 4,096 series or 1,000 records.
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from edge.disk import Disk
from edge.eviction import EVICTION_ORDER, Eviction, Thin
from edge.gone import Gone
from edge.portions import portions
from messages.contracts import Batch, Evicted, Lane, LaneStored, Record, Series, StoredThrough
from messages.errors import BrokenInvariant

LANES: tuple[Lane, ...] = get_args(Lane)
GRADED: tuple[Lane, ...] = ("backlog", "live")
"""Lanes in which the policy decides; the others go oldest first."""
BATCH_BYTES = 256 * 1024
ROW_BYTES = 96
"""What a batch costs the disk beyond its payload, roughly; counts against the budget."""
OUT_AHEAD = 32
"""Numbers noted on the disk ahead of those published, so that publishing seldom costs a commit; after a restart so
many more than were out may be spared."""
EVICT_SHARE, EVICT_MOST = 0.05, 1 << 20
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
    eviction: Eviction = field(default_factory=Thin)
    counts: Counts = field(default_factory=Counts)
    bytes: int = 0
    held: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    _each: dict[tuple[str, str], int] = field(default_factory=dict)
    """(epoch, lane) → batches held, where there are any; epochs in the order in which they were minted."""
    _out: dict[tuple[str, str], int] = field(default_factory=dict)
    """(epoch, lane) → highest seq that was published, or may have been by an earlier process."""
    _noted: dict[tuple[str, str], int] = field(default_factory=dict)
    """The same as it stands on the disk."""

    def __post_init__(self) -> None:
        self.gone = Gone(self.disk.db)

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        budget_bytes: int,
        batch_bytes: int = BATCH_BYTES,
        eviction: Eviction | None = None,
        mint: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> Outbox:
        """Begin a new epoch, durably, before anything can be numbered in it."""
        outbox = cls(disk, mint(), budget_bytes, batch_bytes, eviction or Thin())
        with disk.transaction():
            if disk.db.execute("SELECT 1 FROM epochs WHERE epoch = ?", (outbox.epoch,)).fetchone():
                raise BrokenInvariant(f"epoch {outbox.epoch} was minted twice; the source of randomness is broken")
            # Epochs with nothing left are forgotten: no StoredThrough of theirs can free anything any more.
            disk.db.execute(
                "DELETE FROM epochs WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.epoch = epochs.epoch)"
            )
            disk.db.execute("DELETE FROM lanes WHERE epoch NOT IN (SELECT epoch FROM epochs)")
            disk.db.execute("INSERT INTO epochs (epoch) VALUES (?)", (outbox.epoch,))
            epochs = [epoch for (epoch,) in disk.db.execute("SELECT epoch FROM epochs ORDER BY nth").fetchall()]
            for epoch, lane, seq in json.loads(disk.state("out") or b"[]"):
                if epoch in epochs:
                    outbox._out[epoch, lane] = outbox._noted[epoch, lane] = seq
        rows = disk.db.execute("SELECT epoch, lane, COUNT(*) FROM outbox GROUP BY epoch, lane").fetchall()
        counts = {(epoch, lane): batches for epoch, lane, batches in rows}
        outbox._each = {
            (epoch, lane): counts[epoch, lane] for epoch in epochs for lane in LANES if (epoch, lane) in counts
        }
        for lane, batches, size in disk.db.execute(
            "SELECT lane, COUNT(*), SUM(bytes) FROM outbox GROUP BY lane"
        ).fetchall():
            outbox.held[lane] = batches
            outbox.bytes += size + ROW_BYTES * batches
        return outbox

    def put(
        self, lane: Lane, *, made_at: int, series: Iterable[Series] = (), records: Iterable[Record] = ()
    ) -> list[int]:
        """Number, encode and keep these as one batch or more; their seqs. Evicts when over the budget."""
        seqs = []
        for group in portions(list(series), list(records), self.batch_bytes):
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

    def tell(self, after: Mapping[tuple[str, Lane], int]) -> int:
        """Make records of what was evicted, where its turn has come; inside a transaction. How many batches of them.

        `after`: of each stream that is being sent, the highest seq that is out.
        """
        made = at = 0
        for epoch, lane in self._ripe(after):
            for holes in self.gone.ripe(epoch, lane, self._next_held(epoch, lane, after.get((epoch, lane), -1))):
                at = max(hole.at for hole in holes)
                record = Evicted(
                    at=at,
                    epoch=epoch,
                    lane=lane,
                    ranges=_merged([(hole.low, hole.high) for hole in holes]),
                    readings=sum(hole.readings for hole in holes),
                )
                self.gone.carried(epoch, lane, holes, (self.epoch, self._seal("record", at, [], [record])))
                made += 1
        if made and self.bytes > self.budget_bytes:
            self._evict(at)
        return made

    def has_to_tell(self, after: Mapping[tuple[str, Lane], int]) -> bool:
        """Whether `tell` would make something."""
        return any(
            next(self.gone.ripe(epoch, lane, self._next_held(epoch, lane, after.get((epoch, lane), -1))), None)
            for epoch, lane in self._ripe(after)
        )

    def mark_out(self, epoch: str, lane: Lane, seq: int) -> bool:
        """This batch, and those before it, are about to be published; whether `note_out` has to be called first."""
        self._out[epoch, lane] = max(seq, self._out.get((epoch, lane), -1))
        return self._out[epoch, lane] > self._noted.get((epoch, lane), -1)

    def note_out(self) -> None:
        """Put on the disk what is out; inside a transaction."""
        for key, seq in self._out.items():
            if seq > self._noted.get(key, -1):
                self._noted[key] = seq + OUT_AHEAD
        self.disk.keep("out", json.dumps([[*key, top] for key, top in self._noted.items()]).encode())

    @property
    def empty(self) -> bool:
        """Whether the store has, and knows, all there ever was; in the disk's thread."""
        return not self._each and not self.gone.any()

    def pending(self, lane: Lane, epoch: str, *, after: int = -1, limit: int) -> list[Held]:
        """The oldest batches held of this epoch and lane above `after`, oldest first."""
        rows = self.disk.db.execute(
            "SELECT seq, payload, readings FROM outbox WHERE epoch = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT ?",
            (epoch, lane, after, limit),
        )
        return [Held(epoch, lane, seq, bytes(payload), readings) for seq, payload, readings in rows]

    def present(self, lane: Lane, epoch: str, seqs: Iterable[int]) -> set[int]:
        """Which of these seqs are still held."""
        wanted = set(seqs)
        if not wanted:
            return wanted
        rows = self.disk.db.execute(
            "SELECT seq FROM outbox WHERE epoch = ? AND lane = ? AND seq BETWEEN ? AND ?",
            (epoch, lane, min(wanted), max(wanted)),
        )
        return wanted & {seq for (seq,) in rows}

    def oldest(self, lane: Lane) -> int | None:
        """The oldest seq of this epoch still held in this lane."""
        row = self.disk.db.execute(
            "SELECT MIN(seq) FROM outbox WHERE epoch = ? AND lane = ?", (self.epoch, lane)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def oldest_epoch(self, lane: Lane) -> str | None:
        """The oldest earlier epoch that still has batches in this lane."""
        return next((epoch for epoch, held in self._each if held == lane and epoch != self.epoch), None)

    # --- private ------------------------------------------------------------------------------------

    def _next_seq(self, epoch: str, lane: Lane) -> int:
        row = self.disk.db.execute("SELECT next_seq FROM lanes WHERE epoch = ? AND lane = ?", (epoch, lane)).fetchone()
        return 0 if row is None else int(row[0])

    def _seal(self, lane: Lane, made_at: int, series: list[Series], records: list[Record]) -> int:
        seq = self._next_seq(self.epoch, lane)
        oldest = self.oldest(lane)
        batch = Batch.model_construct(  # cleaned series and our own records: checked where they were made
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
            "INSERT INTO outbox (epoch, lane, seq, readings, bytes, payload, grade) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.epoch, lane, seq, batch.readings, len(payload), payload, self._grade(lane, made_at)),
        )
        self.disk.db.execute("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?)", (self.epoch, lane, seq + 1))
        self.bytes += len(payload) + ROW_BYTES
        self.held[lane] += 1
        self._each[self.epoch, lane] = self._each.get((self.epoch, lane), 0) + 1
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
                self.gone.confirmed(epoch, low, high)
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
            self._left(epoch, lane, number, size)
        if batches:
            self.disk.db.execute(f"DELETE FROM outbox WHERE {where}", values)
        return batches, readings

    def _left(self, epoch: str, lane: Lane, batches: int, size: int) -> None:
        self.bytes -= size + ROW_BYTES * batches
        self.held[lane] -= batches
        self._each[epoch, lane] -= batches
        if not self._each[epoch, lane]:
            del self._each[epoch, lane]

    def _grade(self, lane: Lane, made_at: int) -> int:
        return self.eviction.grade(made_at) if lane in GRADED else 0

    def _ripe(self, after: Mapping[tuple[str, Lane], int]) -> list[tuple[str, Lane]]:
        """Of what is not told: the streams that are being sent, and those of which nothing is left to send."""
        return sorted(key for key in self.gone.untold if key in after or key not in self._each)

    def _next_held(self, epoch: str, lane: Lane, after: int) -> int | None:
        row = self.disk.db.execute(
            "SELECT MIN(seq) FROM outbox WHERE epoch = ? AND lane = ? AND seq > ?", (epoch, lane, after)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def _evict(self, now: int) -> None:
        target = self.budget_bytes - min(int(self.budget_bytes * EVICT_SHARE), EVICT_MOST)
        for spare_out in (True, False):
            for lane in EVICTION_ORDER:
                turn = (-1, -1)
                while self.bytes > target and (page := self._next_to_go(lane, turn)):
                    turn = page[-1][:2]
                    self._evict_page(lane, page, target, now, spare_out=spare_out)

    def _next_to_go(self, lane: Lane, turn: tuple[int, int]) -> list[tuple[int, int, str, int, int, int]]:
        return self.disk.db.execute(
            "SELECT grade, id, epoch, seq, readings, bytes FROM outbox WHERE lane = ? AND (grade, id) > (?, ?) "
            "ORDER BY grade, id LIMIT 256",
            (lane, *turn),
        ).fetchall()

    def _evict_page(
        self,
        lane: Lane,
        page: Sequence[tuple[int, int, str, int, int, int]],
        target: int,
        now: int,
        *,
        spare_out: bool,
    ) -> None:
        going: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for _, number, epoch, seq, readings, size in page:
            if self.bytes <= target:
                break
            if spare_out and seq <= self._out.get((epoch, lane), -1):
                continue
            self.disk.db.execute("DELETE FROM outbox WHERE id = ?", (number,))
            self._left(epoch, lane, 1, size)
            self.counts.evicted += 1
            self.counts.evicted_readings += readings
            going[epoch].append((seq, readings))
        for epoch, batches in going.items():
            self.gone.note(epoch, lane, batches, now)
            if lane == "record":
                self.gone.silenced(epoch, [seq for seq, _ in batches])


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges, joined where they touch."""
    joined: list[tuple[int, int]] = []
    for low, high in ranges:
        if joined and joined[-1][1] + 1 == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined
