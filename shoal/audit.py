"""Produced against stored: nothing lost, nothing twice. The simulator's truth file is the oracle, outside the system.

    audit(truth_file, store).lost == 0

A reading is accounted for when it is a row, or was rejected with a reason, or was counted as a gap before intake, or
was evicted or quarantined with a record. Books are kept per series, so that what is counted in one place never covers
what is missing in another:

- every produced time of a series has as many rows as it had different values; more are duplicates, fewer must be
  covered by rejections or quarantine of that series, then of that device (with its gaps), then of its node
  (evictions), then by what the quarantine held and has forgotten;
- a rejection as `duplicate` covers nothing but a repeat: the same time and value once more, or a null at a known time;
- a row whose time was never produced is a stranger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.stores import Store
from firmware_sim.truth import TrueBurst, read_truth
from messages.contracts import Evicted, Gap, Rejected, Series

Times = NDArray[np.int64]
Values = NDArray[np.float64]
Counts = NDArray[np.int64]
Key = tuple[str, str]
"""device, metric"""
MOVED_US = 1_000
"""A reading whose time was taken is stored up to this much later (it must be unique in its series)."""
PAGE = 10_000
"""Records read from the store at once."""
QUARANTINED = 100_000
"""Entries of the quarantine that are looked into for their series; what older ones held has no known place."""


@dataclass(frozen=True)
class Audit:
    """Counts of readings."""

    produced: int
    stored: int
    rejected: int
    gaps: int
    evicted: int
    quarantined: int
    duplicated: int
    """rows beyond the different values of their produced time"""
    strangers: int
    unexplained: int
    """readings without a row that no count of their own series, device, node or the quarantine covers"""

    @property
    def accepted(self) -> int:
        """Readings that reached a node's disk: they are rows, or a record says why not."""
        return self.stored + self.rejected + self.evicted + self.quarantined

    @property
    def lost(self) -> int:
        """Readings produced that nothing accounts for."""
        return max(self.produced - self.accepted - self.gaps, self.unexplained)

    @property
    def holds(self) -> bool:
        """Produced = stored + rejected with reason + counted gaps, to the reading."""
        return (
            self.lost == 0
            and self.duplicated == 0
            and self.strangers == 0
            and self.produced == self.accepted + self.gaps
        )

    @property
    def failures(self) -> list[str]:
        """Why a run is not good, as far as readings go."""
        if self.produced < 1:
            return ["no reading was produced"]
        if self.holds:
            return []
        return [
            f"{self.lost:,} readings lost, {self.duplicated:,} duplicated, {self.strangers:,} never produced; "
            f"{self.produced:,} produced, {self.accepted + self.gaps:,} accounted for"
        ]

    def as_json(self) -> dict[str, int]:
        """What `shoal demo --json` says of readings, for any plant."""
        return {
            "readings_produced": self.produced,
            "readings_accepted": self.accepted,
            "readings_stored": self.stored,
            "rejected": self.rejected,
            "gaps": self.gaps,
            "evicted": self.evicted,
            "quarantined": self.quarantined,
            "lost": self.lost,
            "duplicated": self.duplicated + self.strangers,
        }

    def table(self) -> list[tuple[str, str]]:
        """The same for people."""
        return [
            ("readings produced", f"{self.produced:,}"),
            ("readings stored", f"{self.stored:,}"),
            ("rejected, with the reason", f"{self.rejected:,}"),
            ("gaps, counted", f"{self.gaps:,}"),
            ("lost", f"{self.lost:,}"),
            ("duplicated", f"{self.duplicated + self.strangers:,}"),
        ]


@dataclass
class _Sent:
    """What one series was sent."""

    times: list[Times]
    values: list[Values]


@dataclass
class _Books:
    """What the records account for, at the closest place they name."""

    repeats: Counter[Key]
    series: Counter[Key]
    device: Counter[str]
    node: Counter[str]
    rejected: int = 0
    gaps: int = 0
    evicted: int = 0
    quarantined: int = 0
    anywhere: int = 0
    """quarantined, of a series that is no longer known"""


def audit(truth: Path | Iterable[TrueBurst], store: Store) -> Audit:
    """Compare what the devices sent with what the store holds."""
    sent: dict[Key, _Sent] = {}
    node_of: dict[str, str] = {}
    produced = 0
    for one in read_truth(truth) if isinstance(truth, Path) else truth:
        times = one.burst.t0 + np.asarray(one.burst.at, np.int64)
        produced += one.burst.readings
        node_of[one.device] = one.node
        for metric, column in one.burst.columns.items():
            series = sent.setdefault((one.device, metric), _Sent([], []))
            series.times.append(times)
            series.values.append(np.array(column, np.float64))  # None becomes NaN
    books = _books(store, set(node_of))
    rows: dict[Key, list[Times]] = {}
    for info, kept in store.times():
        rows.setdefault((info.device, info.metric), []).append(kept)
    stored = strangers = duplicated = 0
    open_of_device: Counter[str] = Counter()
    for key in sent.keys() | rows.keys():
        held = np.concatenate(rows.get(key, [np.empty(0, np.int64)]))
        at, different, repeats = _different(sent.get(key))
        found, strange = _rows_at(at, held)
        stored += len(held)
        strangers += strange
        duplicated += int(np.maximum(found - different, 0).sum())
        missing = int(np.maximum(different - found, 0).sum()) + max(0, repeats - books.repeats[key])
        open_of_device[key[0]] += max(0, missing - books.series[key])
    open_of_node: Counter[str] = Counter()
    for device, count in open_of_device.items():
        open_of_node[node_of.get(device, "")] += max(0, count - books.device[device])
    still_open = sum(max(0, count - books.node[node]) for node, count in open_of_node.items())
    return Audit(
        produced=produced,
        stored=stored,
        rejected=books.rejected,
        gaps=books.gaps,
        evicted=books.evicted,
        quarantined=books.quarantined,
        duplicated=duplicated,
        strangers=strangers,
        unexplained=max(0, still_open - books.anywhere),
    )


def _books(store: Store, devices: set[str]) -> _Books:
    books, cursor = _Books(Counter(), Counter(), Counter(), Counter()), 0
    while page := store.records(after=cursor, limit=PAGE, kinds=("rejected", "gap", "evicted")):
        for row in page:
            cursor = row.cursor
            match row.record:
                case Rejected() as record:
                    books.rejected += record.readings
                    if record.reason == "duplicate":
                        if record.metric is not None:
                            books.repeats[record.device, record.metric] += record.readings
                    elif record.metric is not None:
                        books.series[record.device, record.metric] += record.readings
                    elif record.device in devices:
                        books.device[record.device] += record.readings
                    else:  # a node that refuses very much sums up under a name that is no device's
                        books.node[row.node] += record.readings
                case Gap() as record:
                    books.gaps += record.readings
                    books.device[record.device] += record.readings
                case Evicted() as record:
                    books.evicted += record.readings
                    books.node[row.node] += record.readings
    books.quarantined = books.anywhere = store.quarantined_rows()
    for entry in store.quarantined(limit=QUARANTINED):
        if entry.kind == "rows":
            series = Series.decode(entry.payload)
            books.series[series.device, series.metric] += entry.readings
            books.anywhere -= entry.readings
    return books


def _different(sent: _Sent | None) -> tuple[Times, Counts, int]:
    """Produced times, ascending; how many different values each had; and how many readings were repeats."""
    if sent is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), 0
    times, values = np.concatenate(sent.times), np.concatenate(sent.values)
    order = np.argsort(times, kind="stable")
    at, first, counts = np.unique(times[order], return_index=True, return_counts=True)
    different = np.ones(len(at), np.int64)
    for place in np.flatnonzero(counts > 1).tolist():
        here = values[order[first[place] : first[place] + counts[place]]].tolist()
        known = {value for value in here if value == value}
        # A null at a time that has a value already says nothing new; a null that came first stands for itself.
        different[place] = len(known) + (here[0] != here[0])
    return at, different, len(times) - int(different.sum())


def _rows_at(at: Times, rows: Times) -> tuple[Counts, int]:
    """Rows per produced time (at it or within MOVED_US after), and how many rows belong to none."""
    if not len(at):
        return np.zeros(0, np.int64), len(rows)
    place = np.searchsorted(at, rows, side="right") - 1
    known = (place >= 0) & (rows - at[np.maximum(place, 0)] <= MOVED_US)
    return np.bincount(place[known], minlength=len(at)).astype(np.int64), int(np.count_nonzero(~known))
