"""What every store promises, and the words its callers use.

    with settings.open() as store:
        pushed = await store.push(batches)            # what can be in no transaction: rows of a store elsewhere
        with store.atomic():                          # one commit, with whatever shares store.connection
            appended = store.append(batches, pushed)  # idempotent by (site, node, epoch, lane, seq)
        for record in store.records(after=cursor):    # strict order of storage: a cursor survives restarts
            cursor = record.cursor
        answer = store.query(Query(metric="power_kw", device="firing-1", every_s=600, agg="mean"))

`push` may take long and holds nothing up; `append` without it pushes itself, and waits. `append` returns after
the rows are where `durable_on_ack` says they are. A row that can never be stored goes to quarantine with its
reason and counts as stored: an outbox must not wait for it. StoreDown means nothing was decided, try again;
BrokenInvariant means stop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cloud.stores.chunks import Qualities, Times, Values
from messages.contracts import Batch, Record

Aggregate = Literal["mean", "min", "max", "last", "sum", "count"]
QuarantineKind = Literal["message", "rows", "fork"]
"""message: undecodable; rows: a series the store cannot take; fork: another batch under a seq already stored."""


class BatchKey(NamedTuple):
    """What makes a batch itself."""

    site: str
    node: str
    epoch: str
    lane: str
    seq: int


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch on its way into the store."""

    key: BatchKey
    batch: Batch


@dataclass(frozen=True, slots=True)
class Appended:
    """What one `append` did. `new` says per batch, in order, whether it was not there before."""

    new: tuple[bool, ...]
    readings: int = 0
    records: int = 0
    quarantined: int = 0
    """readings that went to quarantine instead"""


class StoredRecord(NamedTuple):
    """A record and its place in the order of storage."""

    cursor: int
    site: str
    node: str
    key: str
    """`epoch/lane/seq/place`: the same for ever, to act once on it"""
    record: Record


class SeriesInfo(NamedTuple):
    """One line of the series dictionary."""

    site: str
    node: str
    device: str
    metric: str
    unit: str


class Quarantined(NamedTuple):
    """One thing that was not stored as rows, and why."""

    id: int
    at: int
    kind: QuarantineKind
    topic: str
    reason: str
    readings: int
    size: int
    payload: bytes


@dataclass(frozen=True)
class Query:
    """Readings of one metric; absent means all. Times are µs since 1970 UTC, `start` inside, `end` outside.

    With `every_s`, windows of that length counted from 1970 (so ten minutes begin at :00, :10, …), each with
    its aggregate, its number of readings, its worst grade and all its reasons; empty windows are left out.
    """

    metric: str
    site: str | None = None
    node: str | None = None
    device: str | None = None
    start: int | None = None
    end: int | None = None
    every_s: float | None = None
    agg: Aggregate = "mean"


@dataclass(frozen=True)
class Answer:
    """Columns of n rows, by series, then by time."""

    series: tuple[SeriesInfo, ...]
    which: NDArray[np.int32]
    """(n,) index into `series`"""
    times: Times
    """(n,) µs; with windows: where the window begins"""
    values: Values
    quality: Qualities
    count: NDArray[np.int64]
    """(n,) readings behind each row"""
    raw: Values
    """(n,) what the sensor said: the value, unless cleaning replaced it; NaN: it said nothing. Windows: the value"""

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class Observation:
    """Numbers for dashboards, of one thing at one time: best effort, no part of any promise."""

    measurement: Literal["health", "signal", "progress"]
    at: int
    tags: tuple[tuple[str, str], ...]
    """name → value: site, and node or name"""
    fields: dict[str, float]


@dataclass(frozen=True)
class Pushed:
    """What `push` did, for the `append` of the same batches; each store has its own."""


class Mirror(Protocol):
    """Takes what is stored elsewhere too: best effort, bounded, never waited for."""

    dropped: int
    """readings, since the start"""

    def offer(self, batches: Sequence[StoredBatch]) -> None:
        """Take or drop, at once."""
        ...


class RecordSource(Protocol):
    """What the planner and the monitor need of a store."""

    def records(
        self, after: int = 0, limit: int = 1000, kinds: Sequence[str] | None = None, newest: bool = False
    ) -> list[StoredRecord]:
        """Records stored after cursor `after`, oldest first; `newest`: the last `limit` of them."""
        ...


class Store(RecordSource, Protocol):
    """An opened store. One thread at a time; open another to read beside a writer."""

    durable_on_ack: bool
    """what `append` (in `atomic`: its end) confirmed survives a power cut"""
    idempotent: bool
    """the same batch twice is one batch"""

    @property
    def connection(self) -> sqlite3.Connection | None:
        """A ledger may keep its tables here, to be committed with the rows; None: no transactions."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def atomic(self) -> AbstractContextManager[None]:
        """All or nothing until its end, where the store can; else each call is on its own."""
        ...

    async def push(self, batches: Sequence[StoredBatch]) -> Pushed | None:
        """Write what can be in no transaction, idempotently, before `append` of the same batches. StoreDown: again."""
        ...

    def append(self, batches: Sequence[StoredBatch], pushed: Pushed | None = None) -> Appended:
        """Store what is not there yet; without `pushed` it pushes first, and waits for that."""
        ...

    def observe(self, seen: Sequence[Observation]) -> None:
        """Take numbers for dashboards; never waits, may drop them."""
        ...

    async def run(self) -> None:
        """What the store does beside its calls, until cancelled."""
        ...

    def quarantine(self, *, at: int, kind: QuarantineKind, topic: str, reason: str, payload: bytes) -> None:
        """Keep a message that is not to be stored as rows. Bounded: the oldest go first."""
        ...

    def query(self, query: Query) -> Answer:
        """Readings or their aggregates; UsageError when too many are asked for at once."""
        ...

    def series(self) -> list[SeriesInfo]:
        """The series dictionary."""
        ...

    def quarantined(self, limit: int = 100) -> list[Quarantined]:
        """The newest entries of the quarantine, newest first."""
        ...

    def times(self) -> Iterator[tuple[SeriesInfo, Times]]:
        """Every series with the times of all its rows: what an audit compares with what was produced."""
        ...

    def count_rows(self) -> int:
        """Rows of all series."""
        ...

    def distinct_rows(self) -> int:
        """Distinct (series, time); duplicates are `count_rows() - distinct_rows()`."""
        ...

    def quarantined_rows(self) -> int:
        """Readings that are in quarantine instead of in a series, since the store was made."""
        ...

    def quarantine_dropped(self) -> int:
        """Entries of the quarantine that went to make room for younger ones, since the store was made."""
        ...

    def sums(self) -> dict[str, dict[str, int]]:
        """Readings that are accounted for without a row: {"rejected": {reason: n}, "gap": …, "evicted": …}."""
        ...

    def expire(self, now: int) -> Iterator[int]:
        """Drop what is older than the retention; yields rows dropped after each short step."""
        ...

    def keep(self, name: str, text: str) -> None:
        """Keep a small named document (status, a planner's state); committed with `atomic`, else at once."""
        ...

    def kept(self, name: str) -> str | None:
        """The document kept under `name`."""
        ...
