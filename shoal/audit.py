"""Produced against stored: nothing lost, nothing twice. The simulator's truth file is the oracle, outside the system.

    audit(truth_file, store).lost == 0

A reading is accounted for when it is a row, or was rejected with a reason, or was counted as a gap before intake, or
was evicted or quarantined with a record. Rows are compared by (device, metric, time): a produced time that is no row
must be covered by a count, a row whose time was never produced is a stranger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.stores import Store
from firmware_sim.truth import TrueBurst, read_truth

Times = NDArray[np.int64]
MOVED_US = 1_000
"""A reading whose time was taken is stored up to this much later (it must be unique in its series)."""


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
    strangers: int
    unexplained: int
    """produced times that are no row, beyond what the counts cover"""

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


def audit(truth: Path | Iterable[TrueBurst], store: Store) -> Audit:
    """Compare what the devices sent with what the store holds."""
    sent: dict[tuple[str, str], list[Times]] = {}
    produced = 0
    for one in read_truth(truth) if isinstance(truth, Path) else truth:
        times = one.burst.t0 + np.asarray(one.burst.at, np.int64)
        produced += one.burst.readings
        for metric in one.burst.columns:
            sent.setdefault((one.device, metric), []).append(times)
    sums = {kind: sum(reasons.values()) for kind, reasons in store.sums().items()}
    rejected, gaps, evicted = (sums.get(kind, 0) for kind in ("rejected", "gap", "evicted"))
    quarantined = store.quarantined_rows()
    missing, strangers = 0, 0
    rows = {(info.device, info.metric): times for info, times in store.times()}
    for key in sent.keys() | rows.keys():
        ours = np.sort(np.concatenate(sent.get(key, [np.empty(0, np.int64)])))
        kept = np.sort(rows.get(key, np.empty(0, np.int64)))
        missing += _without_row(np.unique(ours), kept)
        strangers += _without_source(kept, ours)
    return Audit(
        produced=produced,
        stored=store.count_rows(),
        rejected=rejected,
        gaps=gaps,
        evicted=evicted,
        quarantined=quarantined,
        duplicated=store.count_rows() - store.distinct_rows(),
        strangers=strangers,
        unexplained=max(0, missing - rejected - gaps - evicted - quarantined),
    )


def _without_row(produced: Times, rows: Times) -> int:
    """Produced times with no row at them or within MOVED_US after. Both ascend."""
    if not len(rows):
        return len(produced)
    place = np.searchsorted(rows, produced)
    following = rows[np.minimum(place, len(rows) - 1)]
    return int(np.count_nonzero((place == len(rows)) | (following - produced > MOVED_US)))


def _without_source(rows: Times, produced: Times) -> int:
    """Rows that do not lie at a produced time or within MOVED_US after one. Both ascend."""
    if not len(produced):
        return len(rows)
    place = np.searchsorted(produced, rows, side="right") - 1
    before = produced[np.maximum(place, 0)]
    return int(np.count_nonzero((place < 0) | (rows - before > MOVED_US)))
