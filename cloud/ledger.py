"""What the store holds of every node, epoch and lane: the ground for StoredThrough, which alone frees an outbox.

    changes = ledger.changes([Stored(key, floor=…, digest=…)], evicted=[…])   # pure: decides, changes nothing
    with store.atomic():                                                     # one commit where the store can
        store.append(batches)
        ledger.write(changes)
    ledger.apply(changes)                                                    # after the commit, never before
    for document in ledger.documents("ceramic", "firing"): ...               # what may be said to the node

Promises: a seq is *settled* when it was stored, when the node's own `floor` passed it (freed or evicted
there) or when an Evicted record names it; nothing settled is ever unsettled; holes do not block. Of a stored
seq the digest is remembered (the last `DIGESTS` per lane): the same again is a repeat, other bytes are a fork.
A lost ledger is rebuilt from the `floor` of the batches that arrive, and the store's idempotence keeps the rows
right. Bounds: `EPOCHS` per node (the least active is forgotten, and rebuilt likewise when it speaks again),
`HELD` ranges per lane (the highest is forgotten: the node sends it again).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from cloud.stores.seam import BatchKey
from cloud.stores.sqlite import sqlite_errors
from messages.contracts import MAX_EPOCHS, MAX_RANGES, LaneStored, StoredThrough

Verdict = Literal["new", "repeat", "fork"]

DIGESTS = 1024
"""Seqs of a lane whose digest is remembered."""
EPOCHS = 64
"""Epochs remembered of a node; a StoredThrough speaks of MAX_EPOCHS of them."""
HELD = 1024
"""Ranges remembered of a lane; a StoredThrough lists the lowest MAX_RANGES."""
_REVISIONS = 10_000
"""Revisions reserved on disk at a time, so that saying something costs no commit."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger_lane (site TEXT, node TEXT, epoch TEXT, lane TEXT, through INTEGER, ranges TEXT,
                                        floor INTEGER, active INTEGER, PRIMARY KEY (site, node, epoch, lane));
CREATE TABLE IF NOT EXISTS ledger_digest (site TEXT, node TEXT, epoch TEXT, lane TEXT, seq INTEGER, digest BLOB,
                                          PRIMARY KEY (site, node, epoch, lane, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger_revision (one INTEGER PRIMARY KEY CHECK (one = 1), reserved INTEGER);
"""


class LaneKey(NamedTuple):
    """One sequence of batches."""

    site: str
    node: str
    epoch: str
    lane: str


class Stored(NamedTuple):
    """A batch that is, or is about to be, in the store."""

    key: BatchKey
    floor: int
    digest: bytes


class Settled(NamedTuple):
    """Seqs nobody waits for any more, first and last inside."""

    lane: LaneKey
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Lane:
    """All seqs ≤ `through` are settled, and those in `ranges`, which ascend, lie above and do not touch."""

    through: int = -1
    ranges: tuple[tuple[int, int], ...] = ()
    floor: int = 0
    active: int = 0

    def settled(self, seq: int) -> bool:
        """Whether nobody waits for `seq`."""
        return seq <= self.through or any(low <= seq <= high for low, high in self.ranges)

    def having(self, low: int, high: int) -> Lane:
        """This lane with low…high settled too."""
        if high <= self.through:
            return self
        through, apart = self.through, []
        for first, last in self.ranges:
            if last < low - 1 or first > high + 1:
                apart.append((first, last))
            else:
                low, high = min(low, first), max(high, last)
        if low <= through + 1:
            through = high
        else:
            apart.append((low, high))
            apart.sort()
        return replace(self, through=through, ranges=tuple(apart[:HELD]))

    def above(self, floor: int) -> Lane:
        """This lane as its node describes it: whatever is below `floor` was freed or evicted there."""
        if floor <= self.floor:
            return self
        return replace(self.having(0, floor - 1), floor=floor)


@dataclass(frozen=True)
class Changes:
    """A step of the ledger, decided but not yet written."""

    lanes: dict[LaneKey, Lane] = field(default_factory=dict)
    digests: list[tuple[LaneKey, int, bytes]] = field(default_factory=list)
    forgotten: list[LaneKey] = field(default_factory=list)

    @property
    def nodes(self) -> set[tuple[str, str]]:
        """(site, node) whose StoredThrough changed."""
        return {key[:2] for key in self.lanes}


def read_lanes(connection: sqlite3.Connection) -> dict[LaneKey, Lane]:
    """The ledger as it is on disk; empty where none was ever opened."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger_lane'").fetchone():
        return {}
    rows = connection.execute("SELECT site, node, epoch, lane, through, ranges, floor, active FROM ledger_lane")
    return {
        LaneKey(*row[:4]): Lane(row[4], tuple((low, high) for low, high in json.loads(row[5])), *row[6:])
        for row in rows
    }


class Ledger:
    """The lanes in memory, their tables on disk. One writer."""

    def __init__(self, connection: sqlite3.Connection, *, wall_us: int, path: Path) -> None:
        """`wall_us`, the wall clock, only lifts revisions above those of a ledger that was lost or restored."""
        self._db, self._path = connection, path
        with sqlite_errors(path):
            connection.executescript(_SCHEMA)
            self._lanes = read_lanes(connection)
            reserved = connection.execute("SELECT max(reserved) FROM ledger_revision").fetchone()[0] or 0
        self._epochs: dict[tuple[str, str], dict[str, int]] = {}  # node → epoch → when it was last active
        self._index(self._lanes)
        self._active = max((lane.active for lane in self._lanes.values()), default=0)
        self._revision = self._reserved = max(reserved, wall_us)

    def lane(self, key: LaneKey) -> Lane:
        """What is settled of one lane."""
        return self._lanes.get(key, Lane())

    @property
    def nodes(self) -> set[tuple[str, str]]:
        """Every (site, node) that ever spoke."""
        return set(self._epochs)

    def judge(self, key: BatchKey, digest: bytes) -> Verdict:
        """`new` unless the digest of this seq is remembered: only the store knows older ones."""
        if not self.lane(LaneKey(*key[:4])).settled(key.seq):
            return "new"
        with sqlite_errors(self._path):
            known = self._db.execute(
                "SELECT digest FROM ledger_digest WHERE (site, node, epoch, lane, seq) = (?, ?, ?, ?, ?)", key
            ).fetchone()
        if known is None:
            return "new"
        return "repeat" if known[0] == digest else "fork"

    def changes(self, stored: Iterable[Stored], settled: Iterable[Settled] = ()) -> Changes:
        """What the ledger becomes once these are stored or settled."""
        lanes: dict[LaneKey, Lane] = {}
        digests: list[tuple[LaneKey, int, bytes]] = []
        active = self._active + 1
        for key, floor, digest in stored:
            name = LaneKey(*key[:4])
            lane = lanes.get(name) or self.lane(name)
            lanes[name] = replace(lane.above(floor).having(key.seq, key.seq), active=active)
            digests.append((name, key.seq, digest))
        for name, low, high in settled:
            lane = lanes.get(name) or self.lane(name)
            lanes[name] = replace(lane.having(low, high), active=max(lane.active, 1))
        return Changes(lanes, digests, self._too_many(lanes))

    def all_of(self, site: str, node: str) -> Changes:
        """The ledger without this node."""
        return Changes(forgotten=[key for key in self._lanes if key[:2] == (site, node)])

    def write(self, changes: Changes) -> None:
        """Put `changes` into the tables: part of the open transaction, else one of its own."""
        db, own = self._db, not self._db.in_transaction
        with sqlite_errors(self._path):
            if own:
                db.execute("BEGIN IMMEDIATE")
            try:
                self._write(changes)
                if own:
                    db.execute("COMMIT")
            except BaseException:
                if own and db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def apply(self, changes: Changes) -> None:
        """Take over `changes` once they are committed."""
        self._lanes.update(changes.lanes)
        self._index(changes.lanes)
        for key in changes.forgotten:
            self._lanes.pop(key, None)
            self._epochs.get(key[:2], {}).pop(key.epoch, None)
            if not self._epochs.get(key[:2], True):
                del self._epochs[key[:2]]
        self._active += 1

    def documents(self, site: str, node: str, epochs: Iterable[str] = ()) -> list[StoredThrough]:
        """What may be said to a node: the newest last, about the epochs last active; before it, where `epochs`
        are more than fit, documents about the others, so that every one of them is spoken of."""
        known = self._epochs.get((site, node), {})
        by_activity = sorted(known, key=lambda epoch: known[epoch], reverse=True)
        others = [epoch for epoch in by_activity[MAX_EPOCHS:] if epoch in set(epochs)]
        pages = [others[at : at + MAX_EPOCHS] for at in range(0, len(others), MAX_EPOCHS)]
        return [self._document(site, node, page) for page in [*pages, by_activity[:MAX_EPOCHS]]]

    # -- private --------------------------------------------------------------------------------------

    def _document(self, site: str, node: str, epochs: Sequence[str]) -> StoredThrough:
        said: dict[str, dict[str, LaneStored]] = {}
        for epoch in epochs:
            for name in ("alarm", "record", "live", "backlog"):
                lane = self._lanes.get(LaneKey(site, node, epoch, name))
                if lane is not None:
                    said.setdefault(epoch, {})[name] = LaneStored(
                        through=lane.through, ranges=list(lane.ranges[:MAX_RANGES])
                    )
        return StoredThrough(revision=self._next_revision(), epochs=said)

    def _next_revision(self) -> int:
        if self._revision >= self._reserved:
            reserved = self._revision + _REVISIONS
            with sqlite_errors(self._path):
                self._db.execute("INSERT OR REPLACE INTO ledger_revision VALUES (1, ?)", (reserved,))
            self._reserved = reserved
        self._revision += 1
        return self._revision

    def _write(self, changes: Changes) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO ledger_lane VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*key, lane.through, json.dumps(lane.ranges), lane.floor, lane.active)
                for key, lane in changes.lanes.items()
            ],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO ledger_digest VALUES (?, ?, ?, ?, ?, ?)",
            [(*key, seq, digest) for key, seq, digest in changes.digests],
        )
        newest: dict[LaneKey, int] = {}
        for key, seq, _ in changes.digests:
            newest[key] = max(seq, newest.get(key, 0))
        old = [(*key, seq - DIGESTS) for key, seq in newest.items() if seq >= DIGESTS]
        name = "(site, node, epoch, lane) = (?, ?, ?, ?)"
        self._db.executemany(f"DELETE FROM ledger_digest WHERE {name} AND seq <= ?", old)
        for table in ("ledger_lane", "ledger_digest"):
            self._db.executemany(f"DELETE FROM {table} WHERE {name}", changes.forgotten)

    def _index(self, lanes: dict[LaneKey, Lane]) -> None:
        for key, lane in lanes.items():
            epochs = self._epochs.setdefault(key[:2], {})
            epochs[key.epoch] = max(lane.active, epochs.get(key.epoch, 0))

    def _too_many(self, lanes: dict[LaneKey, Lane]) -> list[LaneKey]:
        """Lanes of the least active epochs, where a node has more than EPOCHS; those of this step stay."""
        touched: dict[tuple[str, str], set[str]] = {}
        for key in lanes:
            touched.setdefault(key[:2], set()).add(key.epoch)
        forgotten: list[LaneKey] = []
        for node, epochs in touched.items():
            known = self._epochs.get(node, {})
            too_many = len(known.keys() | epochs) - EPOCHS
            if too_many > 0:
                idle = sorted((epoch for epoch in known if epoch not in epochs), key=lambda epoch: known[epoch])
                gone = set(idle[:too_many])
                forgotten += [key for key in self._lanes if key[:2] == node and key.epoch in gone]
        return forgotten
