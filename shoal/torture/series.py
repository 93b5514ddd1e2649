"""The rows of one series against what was sent: every row explained, every reading found or missing.

    left = judge(key, sent, rows, verdict)      # what has no row: to be accounted for by rejections

Pure, and vectorised for the many readings that are as they should be; only times with several readings, or with another
number of rows than one, are looked at singly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.memory import REMEMBERED
from messages.quality import Why
from shoal.torture.verdict import Verdict

Times = NDArray[np.int64]
Values = NDArray[np.float64]
Bools = NDArray[np.bool_]
Key = tuple[str, str]
"""device, metric"""

MOVED_US = 1_000
REPLACED = int(Why.MISSING | Why.RANGE | Why.SPIKE | Why.RATE)
RELATIVE = 1e-9
"""A converted value may differ by so much."""


@dataclass
class Sent:
    """What one series was sent, in pieces; NaN is null."""

    times: list[Times] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    seqs: list[Times] = field(default_factory=list)
    converted: list[Bools] = field(default_factory=list)


class Rows(NamedTuple):
    """What the store holds of one series, by time."""

    times: Times
    raw: Values
    value: Values
    quality: Times


class Missing(NamedTuple):
    """A reading without a row."""

    at: int
    seq: int
    value: float


@dataclass
class Left:
    """What has no row."""

    repeats: list[Missing] = field(default_factory=list)
    """the same value at the same time once more: rightly so"""
    missing: list[Missing] = field(default_factory=list)


def judge(key: Key, sent: Sent, rows: Rows, verdict: Verdict) -> Left:
    """Compare; duplicates, corrupt and unexplained rows go to `verdict`, what has no row is returned."""
    verdict.stored += len(rows.times)
    if not sent.times:
        if len(rows.times):
            verdict.unexplained += len(rows.times)
            detail = f"{len(rows.times)} rows of a series nobody sent"
            verdict.accuse("unexplained", *key, int(rows.times[0]), None, detail)
        return Left()
    order = np.argsort(np.concatenate(sent.times), kind="stable")
    times, values = np.concatenate(sent.times)[order], np.concatenate(sent.values)[order]
    seqs, converted = np.concatenate(sent.seqs)[order], np.concatenate(sent.converted)[order]
    at, first, counts = np.unique(times, return_index=True, return_counts=True)
    place = np.searchsorted(at, rows.times, side="right") - 1
    known = (place >= 0) & (rows.times - at[np.maximum(place, 0)] <= MOVED_US)
    for index in np.flatnonzero(~known).tolist():
        verdict.unexplained += 1
        verdict.accuse("unexplained", *key, int(rows.times[index]), None, f"a row of {rows.raw[index]}: no such time")
    rows = Rows(rows.times[known], rows.raw[known], rows.value[known], rows.quality[known])
    place = place[known]
    _judge_quality(key, rows, rows.times != at[place], verdict)

    held = np.bincount(place, minlength=len(at))
    plain = (counts == 1) & (held == 1)
    meant, changed = values[first[place]], converted[first[place]]
    unflagged = changed != ((rows.quality & int(Why.UNIT)) != 0)
    verdict.converted += int(np.count_nonzero(plain[place] & changed))
    for index in np.flatnonzero(plain[place] & (unflagged | ~same(rows.raw, meant, changed))).tolist():
        verdict.corrupt += 1
        detail = f"{float(rows.raw[index])!r} stored, {float(meant[index])!r} sent"
        verdict.accuse("corrupt", *key, int(rows.times[index]), int(seqs[first[place[index]]]), detail)

    left, begins = Left(), np.concatenate(([0], np.cumsum(held)))
    for group in np.flatnonzero(~plain).tolist():
        cells = slice(first[group], first[group] + counts[group])
        stored = rows.raw[begins[group] : begins[group + 1]]  # rows are sorted by time, so by group
        time, seq = int(at[group]), int(seqs[first[group]])
        different = _different(values[cells])
        left.repeats += [Missing(time, seq, different[0])] * (int(counts[group]) - len(different))
        absent = _match(key, time, seq, different, stored, bool(converted[cells].any()), verdict)
        left.missing += [Missing(time, seq, value) for value in absent]
    return left


def forgotten(sent: Sent) -> dict[int, int]:
    """Burst → the newest time that a node had to forget before it, if it took all bursts as they were cut.

    A node knows the last `REMEMBERED` times of a series; it may refuse as too late what is not newer than the one
    before them. Bursts that come in another order are no excuse: it keeps room for `MAX_GAPS` missing stretches, which
    are more than the bursts a device of ours holds.
    """
    floors: dict[int, int] = {}
    newest = np.empty(0, np.int64)
    for times, seqs in zip(sent.times, sent.seqs, strict=True):
        if len(newest) > REMEMBERED and len(seqs):
            floors[int(seqs[0])] = int(newest[0])
        newest = np.unique(np.concatenate((newest, times)))[-REMEMBERED - 1 :]
    return floors


def same(raw: Values, meant: Values, converted: Bools) -> Bools:
    """Equal to the bit, or nearly where a unit was converted; a null is a null."""
    close = np.abs(raw - meant) <= RELATIVE * np.maximum(1.0, np.abs(meant))
    return np.asarray((raw == meant) | (converted & close) | (np.isnan(raw) & np.isnan(meant)), np.bool_)


def _judge_quality(key: Key, rows: Rows, moved: Bools, verdict: Verdict) -> None:
    """Every difference between a row and what was said must be one its quality names."""
    replaced = ~((rows.raw == rows.value) | (np.isnan(rows.raw) & np.isnan(rows.value)))
    verdict.moved += int(np.count_nonzero(moved))
    verdict.replaced += int(np.count_nonzero(replaced))
    for bad, bit, text in ((moved, int(Why.TIME), "moved in time"), (replaced, REPLACED, "replaced")):
        for index in np.flatnonzero(bad & ((rows.quality & bit) == 0)).tolist():
            verdict.corrupt += 1
            verdict.accuse("corrupt", *key, int(rows.times[index]), None, f"{text}, and its quality does not say why")


def _different(sent: Values) -> list[float]:
    """The different values of one time, in the order sent."""
    different: list[float] = []
    for value in sent.tolist():
        # A null at a time that has a value already says nothing new; a null that came first stands for itself.
        if not ((value != value and different) or value in different):
            different.append(value)
    return different


def _match(
    key: Key, at: int, seq: int, different: list[float], stored: Values, converted: bool, verdict: Verdict
) -> list[float]:
    """Give each row of one time the value it has; the values without a row."""
    absent = list(different)
    for raw in stored.tolist():
        alike = [one for one in different if same(np.array([raw]), np.array([one]), np.array([converted]))[0]]
        free = [one for one in alike if any(one is other for other in absent)]
        if free:
            absent = [one for one in absent if one is not free[0]]
        elif alike:
            verdict.duplicates += 1
            verdict.accuse("duplicate", *key, at, seq, f"{raw!r} is stored again")
        else:
            verdict.corrupt += 1
            verdict.accuse("corrupt", *key, at, seq, f"{raw!r} stored, {different} sent")
    return absent
