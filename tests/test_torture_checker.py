"""The checker of `shoal torture` passes what is right, and every single wrong reading is found and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.stores import BatchKey, SqliteStore, StoredBatch
from cloud.stores.sqlite import SqliteConnection
from edge.memory import REMEMBERED
from messages.contracts import Batch, Gap, PartIdentified, Record, Rejected, Series, StateChanged
from messages.quality import BAD, GOOD, UNCERTAIN, Why
from shoal.torture.cast import PLANT, SITE
from shoal.torture.checker import check
from shoal.torture.oracle import Column, Oracle, Produced
from shoal.torture.verdict import Verdict

BOOT = "0a1b2c3d"
T0 = 1_700_000_000_000_000
STEP = 10_000
MACHINE, METER = "press-1", "meter-press"
KEPT = (1.5, 2.5, None, 4.5)


def burst(seq: int = 0, device: str = MACHINE, fate: str = "rows", **columns: Column) -> Produced:
    """Four samples; power is 1.5, 2.5, null, 4.5 kW unless said otherwise."""
    at = [T0 + (4 * seq + n) * STEP for n in range(4)]
    return Produced(device, "press", BOOT, seq, fate, at, columns or {"power_kw": ("kW", list(KEPT))})


Row = tuple[int, float, float | None, int]
"""place in the burst's samples (or µs beyond 1,000), value, what the sensor said, quality"""
GOOD_ROWS: list[Row] = [
    (0, 1.5, 1.5, GOOD), (1, 2.5, 2.5, GOOD), (2, 3.5, None, UNCERTAIN | Why.MISSING), (3, 4.5, 4.5, GOOD),
]  # fmt: skip


def series(rows: list[Row], one: Produced, metric: str = "power_kw", unit: str = "kW", late_us: int = 0) -> Series:
    """Rows of one burst as the store gets them."""
    at = [one.at[place] - T0 + late_us for place, *_ in rows]
    raw = {n: said for n, (_, value, said, _) in enumerate(rows) if said != value}
    values, quality = [row[1] for row in rows], [int(row[3]) for row in rows]
    return Series(device=one.device, metric=metric, unit=unit, t0=T0, at=at, value=values, quality=quality, raw=raw)


class Judge:
    """An oracle, a store, and the verdict on them."""

    def __init__(self, folder: Path, store: SqliteConnection) -> None:
        self.folder, self.store, self.seq = folder, store, 0

    def stored(self, *found: Series, records: tuple[Record, ...] = ()) -> None:
        key = BatchKey(SITE, "press", "0123456789abcdef", "live", self.seq)
        batch = Batch(
            epoch=key.epoch, lane="live", seq=self.seq, floor=0, made_at=T0, series=list(found), records=list(records)
        )
        self.store.append([StoredBatch(key, batch)])
        self.seq += 1

    def of(self, *bursts: Produced) -> Verdict:
        path = self.folder / "oracle.jsonl"
        with path.open("wb") as file:
            oracle = Oracle(file)
            for one in bursts:
                oracle.write(one)
        return check([path], self.store, PLANT, forgetful=(METER,))


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    with SqliteStore(path=tmp_path / "store.db").open() as store:
        yield Judge(tmp_path, store)


def rejected(reason: str, readings: int, metric: str | None = "power_kw", device: str = MACHINE) -> Rejected:
    return Rejected(at=T0, device=device, metric=metric, reason=reason, readings=readings)


def gap(device: str, first: int, last: int, readings: int) -> Gap:
    return Gap(at=T0, device=device, boot=BOOT, bursts=(first, last), readings=readings)


def test_what_is_stored_once_with_its_value_and_time_holds(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()))
    verdict = judge.of(burst())
    assert verdict.holds and (verdict.produced, verdict.stored, verdict.replaced) == (4, 4, 1), verdict.offenders


def test_a_missing_row_is_lost_and_named(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS[1:], burst()))
    verdict = judge.of(burst())
    assert (verdict.lost, verdict.holds) == (1, False)
    assert f"lost: press-1 power_kw at {T0} burst 0: 1.5" in str(verdict.offenders[0])


def test_a_second_row_of_a_reading_is_a_duplicate_at_its_time_and_beside_it(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()))
    judge.stored(series(GOOD_ROWS[:1], burst()))
    assert judge.of(burst()).duplicates == 1
    judge.stored(series([(1, 2.5, 2.5, UNCERTAIN | Why.TIME)], burst(), late_us=1))
    verdict = judge.of(burst())
    assert (verdict.duplicates, verdict.lost, verdict.corrupt, verdict.holds) == (2, 0, 0, False)


def test_a_duplicate_does_not_hide_a_loss(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS[:2], burst()))
    judge.stored(series(GOOD_ROWS[:2], burst()))
    verdict = judge.of(burst())
    assert verdict.produced == verdict.stored and (verdict.duplicates, verdict.lost) == (2, 2)


@pytest.mark.parametrize(
    "row",
    [
        (0, 1.5000001, 1.5000001, GOOD),
        (0, 1.5, None, UNCERTAIN | Why.MISSING),
        (0, 7.0, 1.5, GOOD),
        (0, 1.5, 1.5, GOOD | Why.UNIT),
    ],
    ids=["another value", "a null that was none", "replaced, nobody knows why", "converted, but from what"],
)
def test_a_row_that_differs_is_corrupt(judge: Judge, row: Row) -> None:
    judge.stored(series([row, *GOOD_ROWS[1:]], burst()))
    verdict = judge.of(burst())
    assert (verdict.corrupt, verdict.lost, verdict.holds) == (1, 0, False)


def test_a_row_that_was_moved_must_say_so_and_may_not_go_far(judge: Judge) -> None:
    judge.stored(series([(0, 1.5, 1.5, GOOD)], burst(), late_us=1), series(GOOD_ROWS[1:], burst(1)))
    verdict = judge.of(replace(burst(), at=[T0, *burst(1).at[1:]]))
    assert (verdict.corrupt, verdict.moved) == (1, 1)


def test_a_row_nobody_produced_is_unexplained(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()), series(GOOD_ROWS[:1], burst(9)))
    verdict = judge.of(burst())
    assert (verdict.unexplained, verdict.lost, verdict.holds) == (1, 0, False)
    judge.stored(series([(0, 1.0, 1.0, GOOD)], burst(), metric="temperature_degc", unit="degC"))
    assert judge.of(burst()).unexplained == 2


@pytest.mark.parametrize(
    ("record", "holds"),
    [
        (rejected("too_late", 1), False),
        (rejected("clock", 1), False),
        (rejected("no_value", 1), False),
        (rejected("out_of_range", 1), False),
        (rejected("duplicate", 1), False),
        (rejected("malformed", 1, metric=None), False),
        (gap(MACHINE, 0, 0, 1), False),
    ],
    ids=[
        "nothing newer",
        "a sound clock",
        "no null",
        "inside",
        "no repeat",
        "not malformed",
        "not a gap",
    ],
)
def test_no_rejection_and_no_gap_that_does_not_fit_covers_a_missing_row(
    judge: Judge, record: Record, holds: bool
) -> None:
    judge.stored(series(GOOD_ROWS[1:], burst()), records=(record,))
    assert judge.of(burst()).holds is holds


@pytest.mark.parametrize("reason", ["too_late", "clock"])
def test_a_total_loss_is_not_excused_by_saying_that_all_came_too_late(judge: Judge, reason: str) -> None:
    judge.stored(records=(rejected(reason, 4 * 50),))
    verdict = judge.of(*[burst(seq, power_kw=("kW", [1.5, 2.5, 3.5, 4.5])) for seq in range(50)])
    assert (verdict.lost, verdict.holds) == (200, False)
    assert (verdict.rejected[reason], verdict.unexplained) == (200, 200)


OLD = Produced(MACHINE, "press", BOOT, 9, "rows", [T0 - STEP], {"power_kw": ("kW", [9.5])})
"""A burst whose only sample is older than all before."""


def told_late(judge: Judge, newer: int, *records: Record) -> Verdict:
    """`OLD` after so many newer readings of its series, which are stored."""
    at = [T0 + n * STEP for n in range(newer)]
    first = replace(burst(), at=at, columns={"power_kw": ("kW", [1.5] * newer)})
    judge.stored(series([(n, 1.5, 1.5, GOOD) for n in range(newer)], first), records=records)
    return judge.of(first, OLD)


def test_too_late_is_what_a_device_said_after_more_newer_readings_than_a_node_remembers(judge: Judge) -> None:
    assert told_late(judge, REMEMBERED + 1, rejected("too_late", 1)).holds


@pytest.mark.parametrize(
    ("newer", "record"),
    [
        (REMEMBERED, rejected("too_late", 1)),
        (REMEMBERED + 1, rejected("too_late", 2)),
        (REMEMBERED + 1, rejected("too_late", 1, metric="state")),
        (REMEMBERED + 1, rejected("too_late", 1, device="press-2")),
    ],
    ids=["it could be placed", "one too many", "other metric", "other device"],
)
def test_too_late_covers_only_what_could_not_be_placed_in_that_very_series(
    judge: Judge, newer: int, record: Record
) -> None:
    assert not told_late(judge, newer, record).holds


def test_a_clock_reason_covers_only_times_that_no_clock_may_state(judge: Judge) -> None:
    wrong = replace(burst(), at=[-1, *burst().at[1:]])
    judge.stored(series(GOOD_ROWS[1:], burst()), records=(rejected("clock", 1),))
    assert judge.of(wrong).holds
    assert judge.of(burst()).lost == 1


def test_a_reason_that_judges_the_value_covers_only_such_values(judge: Judge) -> None:
    rows = [GOOD_ROWS[1], GOOD_ROWS[3]]
    judge.stored(series(rows, burst()), records=(rejected("no_value", 1), rejected("out_of_range", 1)))
    assert judge.of(burst(power_kw=("kW", [-7.0, 2.5, None, 4.5]))).holds
    assert judge.of(burst(power_kw=("kW", [7.0, 2.5, None, 4.5]))).lost == 1


def repeated(value: float | None) -> Produced:
    """The first sample once more, with this value."""
    one = burst()
    return replace(one, at=[T0, *one.at], columns={"power_kw": ("kW", [1.5, value, *KEPT[1:]])})


def test_a_repeat_must_be_rejected_as_duplicate_and_a_second_value_stored_beside(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()))
    assert judge.of(repeated(1.5)).lost == judge.of(repeated(None)).lost == judge.of(repeated(1.6)).lost == 1
    judge.stored(records=(rejected("duplicate", 1),))
    assert judge.of(repeated(1.5)).holds and judge.of(repeated(None)).holds
    assert judge.of(repeated(1.6)).lost == 1, "another value is no repeat"


def test_a_second_value_beside_the_first_holds_when_its_row_says_that_it_was_moved(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()))
    judge.stored(series([(0, 1.6, 1.6, UNCERTAIN | Why.TIME)], burst(), late_us=1))
    assert judge.of(repeated(1.6)).holds


def test_another_unit_is_converted_and_its_rows_say_so(judge: Judge) -> None:
    sent = burst(power_kw=("W", [1500.0, 2500.0, None, 4500.0]))
    flagged: list[Row] = [(place, value, said, why | Why.UNIT) for place, value, said, why in GOOD_ROWS]
    judge.stored(series(flagged, sent))
    verdict = judge.of(sent)
    assert verdict.holds and verdict.converted == 4
    assert judge.of(burst(power_kw=("W", [1500.0, 2500.0, None, 4501.0]))).corrupt == 1


@pytest.mark.parametrize(
    ("column", "metric", "reason"),
    [(("furlong", [1.0] * 4), "power_kw", "unit"), (("1", [1.0] * 4), "mood", "unknown_metric")],
)
def test_columns_nobody_can_read_are_rejected_to_the_reading(
    judge: Judge, column: Column, metric: str, reason: str
) -> None:
    sent = burst(**{metric: column})
    assert judge.of(sent).lost == 4
    judge.stored(records=(rejected(reason, 4, metric=metric),))
    assert judge.of(sent).holds
    judge.stored(records=(rejected(reason, 1, metric=metric),))
    assert judge.of(sent).unexplained == 1


def test_bursts_meant_to_be_refused_are_rejected_whole_and_no_others(judge: Judge) -> None:
    judge.stored(records=(rejected("malformed", 4, metric=None),))
    assert judge.of(burst(fate="malformed")).holds
    assert judge.of(burst(fate="unknown_device")).lost == 4
    assert judge.of(burst()).lost == 4
    judge.stored(series(GOOD_ROWS, burst()))
    assert judge.of(burst(fate="malformed")).unexplained == 4


def test_gaps_count_what_a_device_that_keeps_nothing_lost_and_only_once(judge: Judge) -> None:
    bursts = [burst(seq, METER, electricity_kw=("kW", [1.0, 2.0, 3.0, 4.0])) for seq in range(3)]
    rows: list[Row] = [(n, n + 1.0, n + 1.0, GOOD) for n in range(4)]
    judge.stored(series(rows, bursts[0], metric="electricity_kw"), series(rows, bursts[2], metric="electricity_kw"))
    assert judge.of(*bursts).lost == 4
    judge.stored(records=(gap(METER, 1, 1, 4),))
    verdict = judge.of(*bursts)
    assert verdict.holds and verdict.gaps == 4
    judge.stored(records=(gap(METER, 1, 1, 4),))
    assert judge.of(*bursts).unexplained == 4


def _too_small(judge: Judge) -> None:
    judge.stored(records=(gap(METER, 0, 0, 3),))


def _a_row_as_well(judge: Judge) -> None:
    one = burst(device=METER)
    judge.stored(series([(0, 1.0, 1.0, GOOD)], one, metric="electricity_kw"), records=(gap(METER, 0, 0, 4),))


@pytest.mark.parametrize("plant", [_too_small, _a_row_as_well])
def test_a_gap_that_says_other_than_the_oracle_is_unexplained(judge: Judge, plant: Callable[[Judge], None]) -> None:
    plant(judge)
    verdict = judge.of(burst(device=METER, electricity_kw=("kW", [1.0, 2.0, 3.0, 4.0])))
    assert verdict.unexplained == 1 and not verdict.holds


def test_a_device_that_keeps_its_bursts_has_no_gaps(judge: Judge) -> None:
    judge.stored(records=(gap(MACHINE, 0, 0, 4),))
    verdict = judge.of(burst())
    assert (verdict.gaps_cooperative, verdict.lost, verdict.holds) == (4, 0, False)


def test_a_replaced_value_keeps_what_the_sensor_said(judge: Judge) -> None:
    rows: list[Row] = [(0, 2.0, 1.5, BAD | Why.RANGE), *GOOD_ROWS[1:]]
    judge.stored(series(rows, burst()))
    assert judge.of(burst()).holds
    assert judge.of(burst(power_kw=("kW", [1.6, *KEPT[1:]]))).corrupt == 1


EVENTS = [(T0, "part", "tag-1"), (T0 + 1, "state", "step_2"), (T0 + 2, "state", f"down {T0 + 9}")]
RECORDS: tuple[Record, ...] = (
    PartIdentified(at=T0, machine=MACHINE, job="tag-1"),
    StateChanged(at=T0 + 1, machine=MACHINE, state="step_2"),
    StateChanged(at=T0 + 2, machine=MACHINE, state="down", repair_at=T0 + 9),
)


def eventful(fate: str = "rows") -> Produced:
    return replace(burst(fate=fate), events=EVENTS)


def test_every_event_is_recorded_once(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()), records=RECORDS)
    verdict = judge.of(eventful())
    assert verdict.holds and (verdict.events, verdict.events_stored) == (3, 3), verdict.offenders


def test_an_event_without_a_record_is_lost_and_named(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()), records=RECORDS[1:])
    verdict = judge.of(eventful())
    assert (verdict.lost, verdict.holds) == (1, False)
    assert f"lost: press-1 part at {T0} burst 0: 'tag-1' happened" in str(verdict.offenders[0])


@pytest.mark.parametrize("record", RECORDS)
def test_a_second_record_of_an_event_is_a_duplicate(judge: Judge, record: Record) -> None:
    judge.stored(series(GOOD_ROWS, burst()), records=(*RECORDS, record))
    verdict = judge.of(eventful())
    assert (verdict.duplicates, verdict.holds) == (1, False)


@pytest.mark.parametrize("change", [{"at": T0 + 5}, {"repair_at": None}, {"state": "off"}])
def test_a_record_that_differs_from_its_event_is_corrupt(judge: Judge, change: dict[str, object]) -> None:
    judge.stored(series(GOOD_ROWS, burst()), records=(*RECORDS[:2], RECORDS[2].model_copy(update=change)))
    verdict = judge.of(eventful())
    assert (verdict.corrupt, verdict.lost, verdict.holds) == (1, 0, False)


def test_a_record_of_what_nobody_said_is_unexplained(judge: Judge) -> None:
    judge.stored(series(GOOD_ROWS, burst()), records=(*RECORDS, PartIdentified(at=T0, machine="press-2", job="tag-1")))
    verdict = judge.of(eventful())
    assert (verdict.unexplained, verdict.holds) == (1, False)


def test_events_of_a_refused_burst_have_no_records(judge: Judge) -> None:
    judge.stored(records=(rejected("malformed", 4, metric=None),))
    verdict = judge.of(eventful(fate="malformed"))
    assert verdict.holds and verdict.events_refused == 3
    judge.stored(records=RECORDS[:1])
    assert judge.of(eventful(fate="malformed")).unexplained == 1


def test_events_of_a_burst_within_a_gap_have_no_records(judge: Judge) -> None:
    early, late = (burst(seq, METER, electricity_kw=("kW", [1.0, 2.0, 3.0, 4.0])) for seq in (0, 2))
    rows: list[Row] = [(n, n + 1.0, n + 1.0, GOOD) for n in range(4)]
    gone = replace(burst(1, METER, electricity_kw=("kW", [1.0] * 4)), events=EVENTS)
    judge.stored(*[series(rows, one, metric="electricity_kw") for one in (early, late)], records=(gap(METER, 1, 1, 4),))
    verdict = judge.of(early, gone, late)
    assert verdict.holds and verdict.events_gaps == 3
