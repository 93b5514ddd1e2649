"""What became of each reading, judged by the oracle alone: produced = stored + rejected with a reason + counted gaps.

    verdict = check(oracle_files, store, plant)
    verdict.holds, verdict.lost, verdict.offenders

The store's rows and records are the accused, not the witnesses: a record covers only what the oracle says can be
covered.

- **Gap**: its bursts must be ones a device produced that keeps nothing, its readings must be theirs, no two gaps may
  name one burst, and none of these readings may be a row.
- **Rejected**: whole bursts only where the oracle meant them to be (`malformed`, `unknown_device`), to the reading;
  columns nobody can read (`unit`, `unknown_metric`) to the reading; `duplicate` for nothing but the same value at the
  same time once more; `no_value` for nulls, `out_of_range` for such values, `clock` for times no clock may state, all
  of this very series and without a row. `too_late` only where the oracle has so many newer readings of the series in
  earlier bursts that a node may have forgotten what was there (see `series.forgotten`).
- **Row**: at the time the device stated, with the value it sent. Another time needs the quality bit `TIME` (and is at
  most `MOVED_US` later), another unit `UNIT`, and a value that cleaning replaced needs a bit that says why, and must
  carry what was sent as `raw`.
- **Event**: one record that says the same (see `events`).

What is left over is *lost* (no row, no account), *duplicate* (a second row of one reading), *corrupt* (a row that
differs), or *unexplained* (a row nobody produced, a record that accounts for too much).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cloud.stores import Query, Store
from edge.ordering import LAST_TIME
from firmware_sim.faults import OTHER_UNITS
from messages.contracts import Evicted, Gap, Record, Rejected
from messages.plant import MetricSpec, Plant
from shoal.torture import events
from shoal.torture.oracle import ROWS, Produced, read
from shoal.torture.series import Key, Left, Missing, Rows, Sent, forgotten, judge
from shoal.torture.verdict import SHOWN, TIME_REASONS, Verdict

PAGE = 10_000
"""Records read from the store at once."""


@dataclass
class _Books:
    """Records by what they account for."""

    metrics: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(device, metric, reason) → readings"""
    bursts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(device, reason) → readings of whole bursts"""
    gaps: list[Gap] = field(default_factory=list)
    evicted: int = 0
    others: list[Record] = field(default_factory=list)
    """of events"""

    def take(self, key: Key, reason: str, most: int) -> int:
        """Use up to `most` readings rejected of this series for this reason."""
        name = (*key, reason)
        used = min(most, self.metrics[name])
        self.metrics[name] -= used
        return used


def check(oracle: Iterable[Path], store: Store, plant: Plant, *, forgetful: Sequence[str] = ()) -> Verdict:
    """Judge what `store` holds by what the `oracle` files say was produced."""
    bursts = [burst for path in oracle for burst in read(path)]
    verdict = Verdict(produced=sum(burst.readings for burst in bursts))
    books = _read_books(store, verdict)
    gone = _judge_gaps(bursts, books.gaps, forgetful, verdict)
    sent = _sound(bursts, gone, plant, books, verdict)
    _judge_whole(bursts, books, verdict)
    events.settle(bursts, gone, books.others, verdict)
    specs = {(one.device, metric): spec for one in plant.devices() for metric, spec in one.metrics.items()}
    for key in sorted(sent.keys() | {(info.device, info.metric) for info in store.series()}):
        left = judge(key, sent.get(key, Sent()), _rows(key, store), verdict)
        _settle(key, sent.get(key, Sent()), left, specs.get(key), books, verdict)
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
    while page := store.records(after=cursor, limit=PAGE):
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
                case record:
                    books.others.append(record)
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
) -> dict[Key, Sent]:
    """What had to become rows, by series, in the plant's units. Columns nobody can read are settled here."""
    known = {device.device: device.metrics for device in plant.devices()}
    sent: defaultdict[Key, Sent] = defaultdict(Sent)
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


def _rows(key: Key, store: Store) -> Rows:
    answer = store.query(Query(device=key[0], metric=key[1]))
    order = np.argsort(answer.times, kind="stable")
    return Rows(answer.times[order], answer.raw[order], answer.values[order], answer.quality[order].astype(np.int64))


def _settle(key: Key, sent: Sent, left: Left, spec: MetricSpec | None, books: _Books, verdict: Verdict) -> None:
    """Repeats must have been rejected as such, and what is missing for a reason that fits; what is left is lost."""
    reasons = _reasons(spec, forgotten(sent) if books.metrics[*key, "too_late"] else {})
    repeats = left.repeats[books.take(key, "duplicate", len(left.repeats)) :]
    missing = left.missing
    for reason, fits in reasons.items():
        if reason in TIME_REASONS:
            repeats = _without(repeats, fits, key, reason, books)
        missing = _without(missing, fits, key, reason, books)
    verdict.lost += len(repeats) + len(missing)
    for one in missing[:SHOWN]:
        verdict.accuse("lost", *key, one.at, one.seq, f"{one.value!r} was sent: no row, no account")
    if repeats:
        verdict.accuse("lost", *key, 0, None, f"{len(repeats)} repeats were not rejected as duplicates")


def _without(
    missing: list[Missing], fits: Callable[[Missing], bool], key: Key, reason: str, books: _Books
) -> list[Missing]:
    """What is left when those of which this reason may be said are accounted for by readings rejected for it."""
    able = [place for place, one in enumerate(missing) if fits(one)]
    gone = set(able[: books.take(key, reason, len(able))])
    return [one for place, one in enumerate(missing) if place not in gone]


def _reasons(spec: MetricSpec | None, floors: dict[int, int]) -> dict[str, Callable[[Missing], bool]]:
    """Reasons of cleaning, and the readings they may be said of."""
    return {
        "no_value": lambda one: one.value != one.value,
        "out_of_range": lambda one: spec is not None and _impossible(one.value, spec),
        "too_late": lambda one: one.at <= floors.get(one.seq, -1),
        "clock": lambda one: not 0 <= one.at <= LAST_TIME,
    }


def _impossible(value: float, spec: MetricSpec) -> bool:
    return not spec.low <= value <= spec.high or (spec.code and value % 1 != 0)
