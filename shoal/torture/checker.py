"""What became of each reading, judged by the oracle alone: produced = stored + rejected with a reason + counted gaps.

    verdict = check(oracle_files, store, plant)
    verdict.holds, verdict.lost, verdict.offenders

The store's rows and records are the accused, not the witnesses: a record covers only what the oracle says can be
covered.

- **Gap**: its bursts must be ones a device produced that keeps nothing, its readings must be theirs, no two gaps may
  name one burst, and none of these readings may be a row.
- **Rejected**: whole bursts only where the oracle meant them to be (`malformed`, `unknown_device`), to the reading;
  columns nobody can read (`unit`, `unknown_metric`) to the reading; `duplicate` for nothing but the same value at the
  same time once more; any other reason must match readings of this very series that have no row.
- **Row**: at the time the device stated, with the value it sent. Another time needs the quality bit `TIME` (and is at
  most `MOVED_US` later), another unit `UNIT`, and a value that cleaning replaced needs a bit that says why, and must
  carry what was sent as `raw`.

What is left over is *lost* (no row, no account), *duplicate* (a second row of one reading), *corrupt* (a row that
differs), or *unexplained* (a row nobody produced, a record that accounts for too much).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloud.stores import Query, Store
from firmware_sim.faults import OTHER_UNITS
from messages.contracts import Evicted, Gap, Rejected
from messages.plant import Plant
from messages.quality import Why
from shoal.torture.oracle import ROWS, Produced, read

Times = NDArray[np.int64]
Values = NDArray[np.float64]
Key = tuple[str, str]
"""device, metric"""

MOVED_US = 1_000
SHOWN = 20
"""Offenders that are named; all are counted."""
PAGE = 10_000
REPLACED = int(Why.MISSING | Why.RANGE | Why.SPIKE | Why.RATE)
RELATIVE = 1e-9
"""A converted value may differ by so much."""


class Offender(NamedTuple):
    """One reading that is not as it should be."""

    what: str
    device: str
    metric: str
    at: int
    seq: int | None
    detail: str

    def __str__(self) -> str:
        seq = "" if self.seq is None else f" burst {self.seq}"
        return f"{self.what}: {self.device} {self.metric} at {self.at}{seq}: {self.detail}"


@dataclass
class Verdict:
    """Counts of readings."""

    produced: int = 0
    stored: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """reason → readings"""
    gaps: int = 0
    gaps_cooperative: int = 0
    """of these, of devices that keep what they send: must be none"""
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    unexplained: int = 0
    moved: int = 0
    converted: int = 0
    replaced: int = 0
    offenders: list[Offender] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Exactly once, to the reading and to the value."""
        wrong = self.lost + self.duplicates + self.corrupt + self.unexplained + self.gaps_cooperative
        return wrong == 0 and self.produced == self.stored + sum(self.rejected.values()) + self.gaps

    def accuse(self, *offender: str | int | None) -> None:
        """Name one, while there is room."""
        if len(self.offenders) < SHOWN:
            self.offenders.append(Offender(*offender))  # type: ignore[arg-type]


@dataclass
class _Series:
    """What one series was sent, in pieces; NaN is null."""

    times: list[Times] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    seqs: list[Times] = field(default_factory=list)
    converted: list[NDArray[np.bool_]] = field(default_factory=list)


@dataclass
class _Books:
    """Records by what they account for."""

    metrics: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(device, metric, reason) → readings"""
    bursts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(device, reason) → readings of whole bursts"""
    gaps: list[Gap] = field(default_factory=list)
    evicted: int = 0


def check(oracle: Iterable[Path], store: Store, plant: Plant, *, forgetful: Sequence[str] = ()) -> Verdict:
    """Judge what `store` holds by what the `oracle` files say was produced."""
    bursts = [burst for path in oracle for burst in read(path)]
    verdict = Verdict(produced=sum(burst.readings for burst in bursts))
    books = _read_books(store, verdict)
    gone = _judge_gaps(bursts, books.gaps, forgetful, verdict)
    sent = _sound(bursts, gone, plant, books, verdict)
    _judge_whole(bursts, books, verdict)
    seen: set[Key] = set()
    for key in sorted(sent.keys() | {(info.device, info.metric) for info in store.series()}):
        seen.add(key)
        _judge_series(key, sent.get(key, _Series()), store, books, verdict)
    for (device, metric, reason), readings in books.metrics.items():
        if readings:
            verdict.unexplained += readings
            verdict.accuse("unexplained", device, metric, 0, None, f"{readings} rejected as {reason} too many")
    if books.evicted or store.quarantined_rows():
        verdict.unexplained += books.evicted + store.quarantined_rows()
        detail = f"{books.evicted} evicted, {store.quarantined_rows()} quarantined"
        verdict.accuse("unexplained", "-", "-", 0, None, detail)
    return verdict


# --- records --------------------------------------------------------------------------------------------------


def _read_books(store: Store, verdict: Verdict) -> _Books:
    books, cursor = _Books(), 0
    while page := store.records(after=cursor, limit=PAGE, kinds=("rejected", "gap", "evicted")):
        for row in page:
            cursor = row.cursor
            match row.record:
                case Rejected() as record:
                    verdict.rejected[record.reason] += record.readings
                    if record.metric is None:
                        books.bursts[record.device, record.reason] += record.readings
                    else:
                        books.metrics[record.device, record.metric, record.reason] += record.readings
                case Gap() as record:
                    verdict.gaps += record.readings
                    books.gaps.append(record)
                case Evicted() as record:
                    books.evicted += record.readings
    return books


def _judge_gaps(
    bursts: list[Produced], gaps: list[Gap], forgetful: Sequence[str], verdict: Verdict
) -> set[tuple[str, str, int]]:
    """(device, boot, seq) of the bursts that gaps account for."""
    readings = {(one.device, one.boot, one.seq): one.readings for one in bursts}
    gone: set[tuple[str, str, int]] = set()
    for gap in gaps:
        low, high = gap.bursts
        names = [(gap.device, gap.boot, seq) for seq in range(low, high + 1)]
        meant = sum(readings.get(name, 0) for name in names)
        again = sum(name in gone for name in names)
        if gap.readings != meant or again:
            verdict.unexplained += abs(gap.readings - meant) or gap.readings
            detail = f"a gap of bursts {low}-{high} says {gap.readings} readings, meant {meant}; {again} had one"
            verdict.accuse("unexplained", gap.device, "-", gap.at, low, detail)
        if gap.device not in forgetful:
            verdict.gaps_cooperative += gap.readings
            detail = f"a gap of {gap.readings} readings, but this device keeps its bursts until they are taken"
            verdict.accuse("gap", gap.device, "-", gap.at, low, detail)
        gone.update(names)
    return gone


def _judge_whole(bursts: list[Produced], books: _Books, verdict: Verdict) -> None:
    """Bursts that had to be refused as a whole, and those that were."""
    meant: Counter[tuple[str, str]] = Counter()
    for one in bursts:
        if one.fate != ROWS:
            meant[one.device, one.fate] += one.readings
    for device, reason in sorted(meant.keys() | books.bursts.keys()):
        less = meant[device, reason] - books.bursts[device, reason]
        if less > 0:
            verdict.lost += less
            verdict.accuse("lost", device, "-", 0, None, f"{less} readings should have been rejected as {reason}")
        elif less < 0:
            verdict.unexplained -= less
            verdict.accuse("unexplained", device, "-", 0, None, f"{-less} readings too many rejected as {reason}")


def _sound(
    bursts: list[Produced], gone: set[tuple[str, str, int]], plant: Plant, books: _Books, verdict: Verdict
) -> dict[Key, _Series]:
    """What had to become rows, by series, in the plant's units. Columns nobody can read are settled here."""
    known = {device.device: device.metrics for device in plant.devices()}
    sent: defaultdict[Key, _Series] = defaultdict(_Series)
    unreadable: Counter[tuple[str, str, str]] = Counter()
    for one in bursts:
        if one.fate != ROWS or (one.device, one.boot, one.seq) in gone:
            continue
        times = np.array(one.at, np.int64)
        for metric, (unit, column) in one.columns.items():
            spec = known[one.device].get(metric)
            change = _conversion(unit, spec.unit) if spec is not None else None
            if spec is None or change is None:
                unreadable[one.device, metric, "unknown_metric" if spec is None else "unit"] += len(times)
                continue
            factor, offset = change
            series = sent[one.device, metric]
            series.times.append(times)
            series.values.append((np.array(column, np.float64) - offset) / factor)
            series.seqs.append(np.full(len(times), one.seq))
            series.converted.append(np.full(len(times), unit != spec.unit))
    for key, readings in unreadable.items():
        less = readings - books.metrics[key]
        if less > 0:
            verdict.lost += less
            verdict.accuse("lost", *key[:2], 0, None, f"{less} readings should have been rejected as {key[2]}")
        books.metrics[key] = max(0, -less)
    return sent


def _conversion(unit: str, wanted: str) -> tuple[float, float] | None:
    """(factor, offset) by which the simulator made `unit` of `wanted`: sent = value · factor + offset."""
    if unit == wanted:
        return 1.0, 0.0
    other, factor, offset = OTHER_UNITS.get(wanted, ("", 0.0, 0.0))
    return (factor, offset) if unit == other else None


# --- rows -----------------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    times: Times
    raw: Values
    value: Values
    why: Times


def _judge_series(key: Key, sent: _Series, store: Store, books: _Books, verdict: Verdict) -> None:
    rows = _rows(key, store)
    verdict.stored += len(rows.times)
    if not sent.times:
        if len(rows.times):
            verdict.unexplained += len(rows.times)
            detail = f"{len(rows.times)} rows of a series nobody sent"
            verdict.accuse("unexplained", *key, int(rows.times[0]), None, detail)
        return
    times, values, seqs = np.concatenate(sent.times), np.concatenate(sent.values), np.concatenate(sent.seqs)
    converted = np.concatenate(sent.converted)
    order = np.argsort(times, kind="stable")
    times, values, seqs, converted = times[order], values[order], seqs[order], converted[order]
    at, first, counts = np.unique(times, return_index=True, return_counts=True)
    place = np.searchsorted(at, rows.times, side="right") - 1
    known = (place >= 0) & (rows.times - at[np.maximum(place, 0)] <= MOVED_US)
    for index in np.flatnonzero(~known).tolist():
        verdict.unexplained += 1
        verdict.accuse("unexplained", *key, int(rows.times[index]), None, f"a row of {rows.raw[index]}: no such time")
    held = np.bincount(place[known], minlength=len(at))
    _judge_quality(key, rows, known, place, at, verdict)

    plain = (counts == 1) & (held == 1)
    here = known & plain[np.maximum(place, 0)]
    meant = values[first[np.maximum(place, 0)]]
    changed = converted[first[np.maximum(place, 0)]]
    verdict.converted += int(np.count_nonzero(here & changed))
    wrong = here & ~_same(rows.raw, meant, changed)
    wrong |= here & (changed != ((rows.why & int(Why.UNIT)) != 0))
    for index in np.flatnonzero(wrong).tolist():
        seq, sent_value = int(seqs[first[place[index]]]), float(meant[index])
        verdict.corrupt += 1
        verdict.accuse("corrupt", *key, int(rows.times[index]), seq, f"{rows.raw[index]!r} stored, {sent_value!r} sent")

    repeats = missing = 0
    gone: list[int] = []
    for group in np.flatnonzero(~plain).tolist():
        cells = slice(first[group], first[group] + counts[group])
        stored = rows.raw[known & (place == group)] if held[group] else np.empty(0)
        again, absent = _judge_group(key, int(at[group]), int(seqs[first[group]]), values[cells], stored,
                                     bool(converted[cells].any()), verdict)  # fmt: skip
        repeats += again
        missing += absent
        gone += [int(first[group])] * absent
    shown = [(int(times[cell]), int(seqs[cell]), float(values[cell])) for cell in gone[:SHOWN]]
    _settle(key, repeats, missing, shown, books, verdict)


def _rows(key: Key, store: Store) -> _Rows:
    answer = store.query(Query(device=key[0], metric=key[1]))
    order = np.argsort(answer.times, kind="stable")
    return _Rows(answer.times[order], answer.raw[order], answer.values[order], answer.quality[order].astype(np.int64))


def _judge_quality(key: Key, rows: _Rows, known: NDArray[np.bool_], place: Times, at: Times, verdict: Verdict) -> None:
    """Every difference between a row and what was said must be one its quality names."""
    moved = known & (rows.times != at[np.maximum(place, 0)])
    replaced = ~((rows.raw == rows.value) | (np.isnan(rows.raw) & np.isnan(rows.value)))
    verdict.moved += int(np.count_nonzero(moved))
    verdict.replaced += int(np.count_nonzero(replaced))
    for bad, bit, text in ((moved, int(Why.TIME), "moved in time"), (replaced, REPLACED, "replaced")):
        for index in np.flatnonzero(bad & ((rows.why & bit) == 0)).tolist():
            verdict.corrupt += 1
            verdict.accuse("corrupt", *key, int(rows.times[index]), None, f"{text}, and its quality does not say why")


def _judge_group(
    key: Key, at: int, seq: int, sent: Values, stored: Values, converted: bool, verdict: Verdict
) -> tuple[int, int]:
    """All that was sent and stored of one time: (repeats, values without a row)."""
    different: list[float] = []
    for value in sent.tolist():
        # A null at a time that has a value already says nothing new; a null that came first stands for itself.
        if (value != value and different) or value in different:
            continue
        different.append(value)
    absent = list(different)
    for raw in stored.tolist():
        found = [one for one in absent if _same(np.array([raw]), np.array([one]), np.array([converted]))[0]]
        if found:
            absent.remove(found[0])
        elif any(_same(np.array([raw]), np.array([one]), np.array([converted]))[0] for one in different):
            verdict.duplicates += 1
            verdict.accuse("duplicate", *key, at, seq, f"{raw!r} is stored again")
        else:
            verdict.corrupt += 1
            verdict.accuse("corrupt", *key, at, seq, f"{raw!r} stored, {different} sent")
    return len(sent) - len(different), len(absent)


def _settle(
    key: Key, repeats: int, missing: int, shown: list[tuple[int, int, float]], books: _Books, verdict: Verdict
) -> None:
    """Repeats must have been rejected as such, and what is missing as anything else; what is left is lost."""
    device, metric = key
    duplicate = (device, metric, "duplicate")
    covered = min(repeats, books.metrics[duplicate])
    books.metrics[duplicate] -= covered
    left = repeats - covered
    for name in [name for name in books.metrics if name[:2] == key and name[2] not in ("duplicate", "unit")]:
        used = min(left + missing, books.metrics[name])
        books.metrics[name] -= used
        from_left = min(left, used)
        left -= from_left
        missing -= used - from_left
    if left + missing:
        verdict.lost += left + missing
        for at, seq, value in shown or [(0, -1, float("nan"))]:
            verdict.accuse("lost", device, metric, at, seq, f"{value!r} was sent: no row, no account")


def _same(raw: Values, meant: Values, converted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Equal to the bit, or nearly where a unit was converted; a null is a null."""
    close = np.abs(raw - meant) <= RELATIVE * np.maximum(1.0, np.abs(meant))
    return np.asarray((raw == meant) | (converted & close) | (np.isnan(raw) & np.isnan(meant)), np.bool_)
