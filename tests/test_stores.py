"""Every store keeps the same promises: one suite, parametrised over all of them."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cloud.stores import BatchKey, Influx1Store, Influx2Store, Query, SqliteStore, Store, StoredBatch, StoreSettings
from cloud.stores.chunks import cut, decode, encode, join
from cloud.stores.sqlite import SqliteConnection
from cloud.stores.windows import merge, windows
from messages.contracts import Batch, Gap, PartIdentified, Rejected, Series
from messages.errors import BadRows, ConfigError, StoreDown, StoreError, UsageError
from messages.message import MAX_BYTES
from messages.quality import GOOD, UNCERTAIN, Why

T0 = 1_700_000_000_000_000
SECOND = 1_000_000
EPOCH = "0123456789abcdef"


def series(
    device: str = "kiln-1",
    metric: str = "power_kw",
    *,
    start: int = T0,
    values: tuple[float, ...] = (1.0, 2.0, 3.0),
    step: int = SECOND,
    **more: Any,
) -> Series:
    fields: dict[str, Any] = {"unit": "kW", "quality": GOOD, **more}
    return Series(
        device=device, metric=metric, t0=start, at=[k * step for k in range(len(values))], value=list(values), **fields
    )


def batch(
    seq: int, *parts: Series, node: str = "firing", records: tuple[Any, ...] = (), lane: Any = "live"
) -> StoredBatch:
    made = Batch(epoch=EPOCH, lane=lane, seq=seq, floor=0, made_at=T0 + seq, series=list(parts), records=list(records))
    return StoredBatch(BatchKey("ceramic", node, EPOCH, lane, seq), made)


STORES: dict[str, Any] = {"sqlite": SqliteStore, "influx1": Influx1Store}
UNTESTABLE = {Influx2Store}
"""No InfluxDB 2 is packaged where this runs: what can be tested of it is in test_influx.py."""


def test_every_store_of_the_union_is_in_this_suite() -> None:
    kinds = {get_args(kind)[0] for kind in get_args(get_args(StoreSettings)[0])}
    assert kinds == set(STORES.values()) | UNTESTABLE


@pytest.fixture(params=sorted(STORES))
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "store.db"
    if request.param == "sqlite":
        return SqliteStore(path=path)
    influx = request.getfixturevalue("influx")
    database = f"t{uuid.uuid4().hex}"
    influx.query(f'CREATE DATABASE "{database}"')
    return Influx1Store(path=path, url=influx.url, database=database)


@pytest.fixture
def embedded(tmp_path: Path) -> SqliteStore:
    return SqliteStore(path=tmp_path / "store.db")


@pytest.fixture
def store(settings: Any) -> Iterator[SqliteConnection]:
    with settings.open() as opened:
        yield opened


# --- writing ------------------------------------------------------------------------------------------


def test_the_same_batch_twice_is_one_batch_even_within_one_append(store: Store) -> None:
    one, two = batch(0, series()), batch(1, series(start=T0 + 10 * SECOND))
    assert store.append([one, two, one]).new == (True, True, False)
    assert store.append([two]).new == (False,)
    assert store.count_rows() == store.distinct_rows() == 6


def test_equal_sequence_numbers_of_two_nodes_are_two_batches(store: Store) -> None:
    assert store.append([batch(0, series()), batch(0, series(), node="glazing")]).new == (True, True)
    assert store.count_rows() == 6


def test_what_was_confirmed_is_there_after_opening_again(settings: Any) -> None:
    with settings.open() as store:
        store.append([batch(0, series())])
    with settings.open() as store:
        assert store.append([batch(0, series()), batch(1, series(start=T0 + 60 * SECOND))]).new == (False, True)
        assert store.count_rows() == 6


def test_an_atomic_step_that_fails_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(RuntimeError), store.atomic():
        store.append([batch(0, series(), records=(PartIdentified(at=T0, machine="kiln-1", job="b01"),))])
        store.keep("note", "half")
        raise RuntimeError("power cut")
    assert (store.count_rows(), store.records(), store.series(), store.kept("note")) == (0, [], [], None)
    assert store.append([batch(0, series())]).new == (True,)  # the dictionary forgot what never came to be
    assert [len(times) for _, times in store.times()] == [3]


def test_a_series_that_changes_its_unit_goes_to_quarantine_and_the_rest_is_stored(store: Store) -> None:
    store.append([batch(0, series())])
    done = store.append([batch(1, series(start=T0 + 60 * SECOND, unit="W"), series(metric="temp_degc", unit="degC"))])
    assert (done.new, done.readings, done.quarantined) == ((True,), 3, 3)
    (kept,) = store.quarantined()
    assert (kept.kind, kept.readings) == ("rows", 3)
    assert "'W'" in kept.reason and "'kW'" in kept.reason
    assert Series.decode(kept.payload).unit == "W"
    assert store.quarantined_rows() == 3
    assert store.append([batch(1, series())]).new == (False,)


def test_rows_outside_of_time_or_with_impossible_quality_go_to_quarantine(store: Store) -> None:
    bad = [
        Series(device="a", metric="m", unit="x", t0=5, at=[-10, 0], value=[1, 2], quality=GOOD),
        Series(device="a", metric="m", unit="x", t0=2**53 - 1, at=[0, 5], value=[1, 2], quality=GOOD),
        Series(device="a", metric="m", unit="x", t0=T0, at=[0, 5], value=[1, 2], quality=2**40),
        Series(device="a", metric="m", unit="x", t0=T0, at=[0, 5], value=[1, 2], quality=[-1, GOOD]),
    ]
    done = store.append([batch(0, *bad)])
    assert (done.readings, done.quarantined, store.count_rows()) == (0, 8, 0)


def test_the_number_of_series_is_bounded_and_known_series_go_on(settings: Any) -> None:
    with settings.model_copy(update={"max_series": 2}).open() as store:
        store.append([batch(0, *(series(device=f"d{k}") for k in range(5)))])
        assert (len(store.series()), store.quarantined_rows()) == (2, 9)
        assert store.append([batch(1, series(device="d1", start=T0 + 60 * SECOND))]).readings == 3
        assert "max_series" in store.quarantined()[0].reason


def test_the_quarantine_is_bounded_and_the_oldest_go_first(settings: Any) -> None:
    with settings.model_copy(update={"quarantine_mb": 4}).open() as store, capture_logs() as said:
        for k in range(50):
            store.quarantine(at=T0 + k, kind="message", topic="t", reason=str(k), payload=b"x" * 400_000)
        kept = store.quarantined(limit=100)
        assert [one.reason for one in kept] == [str(k) for k in range(49, 39, -1)]
        assert store.quarantine_dropped() == 40
        assert [one["event"] for one in said] == ["store.quarantine_full"]


def test_the_entry_just_written_is_never_the_one_that_goes(settings: Any) -> None:
    """The largest payload and what its entry costs beside it are more than the least room."""
    with settings.model_copy(update={"quarantine_mb": 4}).open() as store:
        for reason in ("first", "second"):
            store.quarantine(at=T0, kind="message", topic="t", reason=reason, payload=b"x" * MAX_BYTES)
            assert [one.reason for one in store.quarantined()] == [reason]
        store.quarantine(at=T0, kind="message", topic="t", reason="small", payload=b"x")
        assert [one.reason for one in store.quarantined()] == ["small"]
        assert store.quarantine_dropped() == 2
        store.connection.execute("UPDATE counter SET n = 1000000000 WHERE name = 'quarantine_bytes'")
        for reason in ("a count gone wrong", "is right again"):
            store.quarantine(at=T0, kind="message", topic="t", reason=reason, payload=b"x")
        assert [one.reason for one in store.quarantined()] == ["is right again", "a count gone wrong"]


def test_room_for_less_than_one_message_is_refused(tmp_path: Path) -> None:
    for kind in (SqliteStore, Influx1Store, Influx2Store):
        with pytest.raises(UsageError, match=r"quarantine_mb = 3\.9: give at least 4.*4 MiB"):
            kind(path=tmp_path / "s.db", quarantine_mb=3.9)


def test_retention_drops_what_is_older_and_nothing_else(embedded: SqliteStore) -> None:
    day = 86_400 * SECOND
    with embedded.model_copy(update={"retention_days": 1.0}).open() as store:
        store.append([batch(0, series(), records=(PartIdentified(at=T0, machine="kiln-1", job="b01"),))])
        store.append([batch(1, series(start=T0 + day))])
        assert sum(store.expire(T0)) == 0
        assert sum(store.expire(T0 + day + 10 * SECOND)) == 3
        assert (store.count_rows(), store.records()) == (3, [])
        assert [times.tolist() for _, times in store.times()] == [[T0 + day + k * SECOND for k in range(3)]]
    with embedded.open() as store:
        assert sum(store.expire(T0 + 10_000 * day)) == 0  # 0 days: for ever


# --- records ------------------------------------------------------------------------------------------


def test_records_come_in_the_order_of_storage_and_a_cursor_survives_a_restart(settings: Any) -> None:
    def part(n: int) -> PartIdentified:
        return PartIdentified(at=T0, machine="kiln-1", job=f"b{n:02}")

    with settings.open() as store:
        store.append([batch(1, records=(part(0), part(1)), lane="record"), batch(0, records=(part(2),), lane="record")])
        first = store.records(limit=2)
        assert [row.record.job for row in first] == ["b00", "b01"]  # type: ignore[union-attr]
        assert [row.key for row in first] == [f"{EPOCH}/record/1/0", f"{EPOCH}/record/1/1"]
        cursor = first[-1].cursor
    with settings.open() as store:
        store.append([batch(2, records=(part(3), Gap(at=T0, device="d", boot="ab" * 4, bursts=(1, 2), readings=7)))])
        rows = store.records(after=cursor)
        assert [(row.site, row.node, row.record.kind) for row in rows] == [
            ("ceramic", "firing", "part"),
            ("ceramic", "firing", "part"),
            ("ceramic", "firing", "gap"),
        ]
        assert [row.cursor for row in store.records(kinds=["gap"])] == [rows[-1].cursor]
        assert [row.cursor for row in store.records(limit=2, newest=True)] == [row.cursor for row in rows[-2:]]


def test_a_record_of_a_newer_peer_is_kept_as_it_came(store: Store) -> None:
    text = Batch.decode(
        b'{"epoch":"0123456789abcdef","lane":"record","seq":0,"floor":0,"made_at":1,'
        b'"records":[{"kind":"welded","at":5,"seam_mm":12.5}]}'
    )
    store.append([StoredBatch(BatchKey("ceramic", "firing", EPOCH, "record", 0), text)])
    (row,) = store.records()
    assert row.record.model_dump() == {"kind": "welded", "at": 5, "seam_mm": 12.5}


def test_readings_without_a_row_are_summed_by_reason(store: Store) -> None:
    def rejected(reason: str, n: int) -> Rejected:
        return Rejected(at=T0, device="kiln-1", metric="power_kw", reason=reason, readings=n)

    store.append([
        batch(0, records=(rejected("duplicate", 3), rejected("no_value", 1), rejected("duplicate", 4))),
        batch(1, records=(Gap(at=T0, device="d", boot="ab" * 4, bursts=(1, 2), readings=7),)),
    ])  # fmt: skip
    assert store.sums() == {
        "rejected": {"duplicate": 7, "no_value": 1}, "gap": {"gap": 7}, "evicted": {"evicted": 0},
    }  # fmt: skip


# --- queries ------------------------------------------------------------------------------------------


def test_a_query_answers_by_series_and_time_whatever_the_order_of_arrival(store: Store) -> None:
    late, early = series(start=T0 + 10 * SECOND, values=(4.0, 5.0)), series(values=(1.0, 2.0))
    other = series(device="kiln-0", values=(9.0,), quality=UNCERTAIN | Why.SPIKE, raw={0: 99.0})
    store.append([batch(0, late), batch(1, early, other), batch(2, series(metric="gas_m3", unit="m3"))])
    answer = store.query(Query("power_kw"))
    assert [info.device for info in answer.series] == ["kiln-0", "kiln-1"]
    assert answer.which.tolist() == [0, 1, 1, 1, 1]
    assert answer.values.tolist() == [9.0, 1.0, 2.0, 4.0, 5.0]
    assert answer.quality[0] == UNCERTAIN | Why.SPIKE
    assert answer.raw.tolist() == [99.0, 1.0, 2.0, 4.0, 5.0]
    store.append(
        [batch(3, series(metric="flow", values=(7.0, 8.0), quality=[GOOD, UNCERTAIN | Why.MISSING], raw={1: None}))]
    )
    assert np.isnan(store.query(Query("flow")).raw).tolist() == [False, True]
    some = store.query(Query("power_kw", device="kiln-1", start=T0 + SECOND, end=T0 + 11 * SECOND))
    assert some.values.tolist() == [2.0, 4.0]  # start inside, end outside
    assert len(store.query(Query("power_kw", node="glazing"))) == 0
    assert len(store.query(Query("no_such_metric", every_s=60))) == 0


def test_windows_have_every_aggregate_and_show_their_worst_quality(store: Store) -> None:
    minute = T0 // (60 * SECOND) * 60 * SECOND
    marked = series(start=minute, values=(4.0, 1.0, 7.0), quality=[GOOD, UNCERTAIN | Why.SPIKE, GOOD | Why.LATE])
    store.append([batch(0, marked), batch(1, series(start=minute + 60 * SECOND, values=(5.0,)))])
    got = {
        agg: store.query(Query("power_kw", every_s=60, agg=agg)).values.tolist()  # type: ignore[arg-type]
        for agg in ("mean", "min", "max", "last", "sum", "count")
    }
    assert got == {
        "mean": [4.0, 5.0], "min": [1.0, 5.0], "max": [7.0, 5.0], "last": [7.0, 5.0], "sum": [12.0, 5.0],
        "count": [3.0, 1.0],
    }  # fmt: skip
    answer = store.query(Query("power_kw", every_s=60))
    assert answer.times.tolist() == [minute, minute + 60 * SECOND]
    assert answer.quality.tolist() == [UNCERTAIN | Why.SPIKE | Why.LATE, GOOD]


def test_a_reader_sees_what_is_committed_while_the_writer_goes_on(settings: Any) -> None:
    with settings.open() as writer, settings.open(read_only=True) as reader:
        writer.append([batch(0, series())])
        assert reader.count_rows() == 3
        with writer.atomic():
            writer.append([batch(1, series(start=T0 + 60 * SECOND))])
            if settings.kind == "sqlite":  # elsewhere rows are there first, and keys, records and ledger follow
                assert reader.count_rows() == 3
                assert reader.query(Query("power_kw")).values.tolist() == [1.0, 2.0, 3.0]
        assert reader.count_rows() == 6


def test_the_embedded_store_waits_for_the_disk_at_every_commit(tmp_path: Path) -> None:
    """A killed process cannot show this, only a power cut could."""
    with SqliteStore(path=tmp_path / "store.db").open() as store:
        pragma = {name: store.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in
                  ("journal_mode", "synchronous")}  # fmt: skip
    assert pragma == {"journal_mode": "wal", "synchronous": 2}


# --- misuse -------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_why(settings: Any) -> None:
    with settings.open(), pytest.raises(UsageError, match="another process"):
        settings.open()
    with settings.open():  # and the lock goes with its holder
        pass


def test_no_store_and_foreign_files_are_errors_that_name_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store at"):
        SqliteStore(path=tmp_path / "none.db").open(read_only=True)
    (tmp_path / "empty.db").touch()
    with pytest.raises(UsageError, match="try again"):
        SqliteStore(path=tmp_path / "empty.db").open(read_only=True)
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to look at " * 100)
    with pytest.raises(ConfigError, match="check the file"):
        SqliteStore(path=text).open()
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(ConfigError, match="not a Shoal store"):
        SqliteStore(path=foreign).open()


def test_a_full_disk_is_waited_out_not_died_of(embedded: SqliteStore) -> None:
    with embedded.open() as store:
        store.append([batch(0, series())])
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        big = [batch(n, series(start=T0 + n * 10**10, values=tuple(map(math.sin, range(5000))))) for n in range(1, 9)]
        with pytest.raises(StoreDown, match="full"):
            store.append(big)
        store.connection.execute("PRAGMA max_page_count = 1000000")
        assert all(store.append(big).new)
        assert store.count_rows() == store.distinct_rows() == 3 + 40_000


def test_a_writer_killed_in_the_middle_keeps_what_it_confirmed(settings: Any) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_stores import *
from pydantic import TypeAdapter
with TypeAdapter(StoreSettings).validate_json({settings.model_dump_json()!r}).open() as store:
    for seq in range(100_000):
        store.append([batch(seq, series(start=T0 + seq * 10 * SECOND))])
        print(seq, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert writer.stdout is not None
    for _ in range(30):
        confirmed = int(writer.stdout.readline())
    writer.kill()
    rest = writer.stdout.read().split()
    writer.wait()
    confirmed = max([confirmed, *(int(line) for line in rest if line.isdigit())])
    with settings.open() as store:  # the lock went with the process
        assert store.count_rows() == store.distinct_rows() >= 3 * (confirmed + 1)
        again = store.append([batch(seq, series(start=T0 + seq * 10 * SECOND)) for seq in range(confirmed + 1)])
        assert not any(again.new)


# --- chunks and windows -------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def any_series(draw: st.DrawFn) -> Series:
    n = draw(st.integers(1, 30))
    even = draw(st.booleans())
    if even:
        step, first = draw(st.integers(1, 2**40)), draw(st.integers(-(10**6), 10**6))
        at = [first + k * step for k in range(n)]
    else:
        at = sorted(draw(st.lists(st.integers(-(10**6), draw(st.sampled_from([10**8, 2**50]))), min_size=n,
                                  max_size=n, unique=True)))  # fmt: skip
    one = draw(st.booleans())
    quality = st.integers(0, 2**31 - 1)
    return Series(
        device="d",
        metric="m",
        unit="kW",
        t0=draw(st.integers(10**6, 2**51)),
        at=at,
        value=draw(st.lists(finite, min_size=n, max_size=n)),
        quality=draw(quality) if one else draw(st.lists(quality, min_size=n, max_size=n)),
        raw=draw(st.dictionaries(st.integers(0, n - 1), st.none() | finite, max_size=n)),
    )


@given(any_series())
def test_a_chunk_gives_back_every_bit_of_its_readings(one: Series) -> None:
    blob, first, last = encode(one)
    column = decode(blob)
    times = [one.t0 + at for at in one.at]
    assert (column.times.tolist(), first, last) == (times, times[0], times[-1])
    assert column.values.tolist() == one.value
    assert column.quality.tolist() == ([one.quality] * len(times) if isinstance(one.quality, int) else one.quality)
    said = {int(k): None if math.isnan(v) else v for k, v in zip(column.replaced, column.raw.tolist(), strict=True)}
    assert said == one.raw


@given(st.binary(max_size=200), any_series(), st.integers(0, 300))
def test_a_damaged_chunk_is_an_error_not_a_crash(junk: bytes, one: Series, length: int) -> None:
    for blob in (junk, encode(one)[0][:length]):
        try:
            decode(blob)
        except StoreError as error:
            assert "chunk" in str(error)


@given(st.lists(any_series(), max_size=4), st.integers(0, 2**52), st.integers(0, 2**52))
def test_joined_and_cut_columns_are_the_sorted_rows(parts: list[Series], start: int, end: int) -> None:
    rows = [
        (one.t0 + at, value, one.raw.get(k, "kept"))
        for one in parts
        for k, (at, value) in enumerate(zip(one.at, one.value, strict=True))
    ]
    rows = [row for row in sorted(rows, key=lambda row: row[0]) if start <= row[0] < end]
    column = cut(join([decode(encode(one)[0]) for one in parts]), start, end)
    assert column.times.tolist() == [row[0] for row in rows]
    assert column.values.tolist() == [row[1] for row in rows]
    said = dict(zip(column.replaced.tolist(), column.raw.tolist(), strict=True))
    for place, (_, _, raw) in enumerate(rows):
        assert (place in said) == (raw != "kept")
        if raw is None:
            assert math.isnan(said[place])
        elif raw != "kept":
            assert said[place] == raw


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(-1000, 1000), st.sampled_from([0, 64, 192, 64 | 1024])),
             min_size=1, max_size=60),
    st.integers(1, 700),
    st.integers(0, 60),
)  # fmt: skip
def test_windows_merged_from_slices_equal_windows_of_the_whole(
    rows: list[tuple[int, int, int]], every: int, at: int
) -> None:
    rows.sort(key=lambda row: row[0])

    def column(some: list[tuple[int, int, int]]) -> Any:
        empty = np.empty(0)
        return join([])if not some else type(join([]))(
            np.array([row[0] for row in some]), np.array([float(row[1]) for row in some]),
            np.array([row[2] for row in some], np.int32), empty.astype(np.int64), empty,
        )  # fmt: skip

    merged = merge([windows(column(rows[:at]), every), windows(column(rows[at:]), every)])
    by_window: dict[int, list[tuple[int, int, int]]] = {}
    for row in rows:
        by_window.setdefault(row[0] // every * every, []).append(row)
    assert merged.start.tolist() == sorted(by_window)
    for k, start in enumerate(sorted(by_window)):
        inside = by_window[start]
        values = [value for _, value, _ in inside]
        assert (merged.count[k], merged.total[k]) == (len(inside), sum(values))
        assert (merged.low[k], merged.high[k], merged.last[k]) == (min(values), max(values), values[-1])
        assert merged.quality[k] & 0xC0 == min(q & 0xC0 for _, _, q in inside)


def test_an_impossible_series_is_refused_before_anything_is_written() -> None:
    with pytest.raises(BadRows, match="1970"):
        encode(Series(device="d", metric="m", unit="x", t0=0, at=[-1], value=[0], quality=0))
