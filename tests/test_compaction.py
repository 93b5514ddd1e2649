"""Merged, cut or expired: the rows of the embedded store stay the same rows, each seen once."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import eventually
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloud.stores import BatchKey, Query, SqliteStore, StoredBatch
from cloud.stores.chunks import Column, decode, encode, join, pack
from cloud.stores.compact import FULL, STEP_CHUNKS, STEP_ROWS, pieces
from cloud.stores.packed import pack_floats, pack_ints, unpack_floats, unpack_ints
from cloud.stores.sqlite import SqliteConnection
from messages.contracts import Batch, Gap, PartIdentified, Series
from messages.errors import ConfigError, StoreError
from messages.quality import GOOD, UNCERTAIN, Why

EPOCH = "0123456789abcdef"
SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND
T0 = 1_699_920_000_000_000  # midnight
assert T0 % DAY == 0

Row = tuple[str, int, bytes, int, bytes]


def series(start: int, n: int, *, device: str = "kiln-1", step: int = SECOND, **more: Any) -> Series:
    fields: dict[str, Any] = {"value": [round(50 + (start // step + k) % 97 / 7, 3) for k in range(n)], **more}
    return Series(
        device=device, metric="power_kw", t0=start, at=[k * step for k in range(n)],
        **{"unit": "kW", "quality": GOOD, **fields},
    )  # fmt: skip


def batch(seq: int, *parts: Series, made_at: int = T0, records: Sequence[Any] = ()) -> StoredBatch:
    made = Batch(epoch=EPOCH, lane="live", seq=seq, floor=0, made_at=made_at, series=list(parts), records=list(records))
    return StoredBatch(BatchKey("ceramic", "firing", EPOCH, "live", seq), made)


def rows(store: SqliteConnection, **more: Any) -> list[Row]:
    """Everything a reader can tell of the rows, to the bit; of equal times in any order."""
    answer = store.query(Query("power_kw", **more))
    devices = [answer.series[which].device for which in answer.which]
    values, raw = answer.values.view("V8"), answer.raw.view("V8")
    return sorted(
        (device, int(at), bytes(value), int(quality), bytes(said))
        for device, at, value, quality, said in zip(devices, answer.times, values, answer.quality, raw, strict=True)
    )


def tables(store: SqliteConnection) -> tuple[list[int], list[int]]:
    """Rows of each landed and of each packed chunk."""
    return tuple(  # type: ignore[return-value]
        [n for (n,) in store.connection.execute(f"SELECT rows FROM {name} ORDER BY t_min")]
        for name in ("chunk", "packed")
    )


@pytest.fixture
def kept(tmp_path: Path) -> SqliteStore:
    return SqliteStore(path=tmp_path / "store.db")


@pytest.fixture
def store(kept: SqliteStore) -> Iterator[SqliteConnection]:
    with kept.open() as opened:
        yield opened


# --- numbers in few bytes -------------------------------------------------------------------------------

decimals = st.builds(lambda n, k: n / 10**k, st.integers(-(10**7), 10**7), st.integers(0, 6))
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(decimals | st.sampled_from([0.0, -0.0]), min_size=1, max_size=80)
    | st.lists(decimals | floats, min_size=1, max_size=80)
    | st.lists(st.floats(width=32), min_size=1, max_size=80)
)
@example([1.5, 2.25] * 40 + [1e308, -0.0, 5e-324])
@example([float("nan"), float("inf"), -float("inf")])
def test_floats_come_back_to_the_bit(values: list[float]) -> None:
    given_ = np.array(values)
    blob = b"before" + pack_floats(given_) + b"after"
    back, end = unpack_floats(blob, 6, len(values))
    assert back.tobytes() == given_.tobytes()
    assert blob[end:] == b"after"


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=50), st.integers(1, 40))
@example([0, 2**53], 1)
@example([-(2**53), 2**53], 30)
def test_integers_come_back(numbers: list[int], times: int) -> None:
    given_ = np.array(numbers * times, np.int64)
    back, _ = unpack_ints(pack_ints(given_), 0, len(given_))
    assert back.tolist() == given_.tolist()


def test_what_usual_sensors_say_takes_one_or_two_bytes() -> None:
    rng = np.random.default_rng(1)
    seconds = np.arange(FULL) * SECOND + T0
    none = np.empty(0, np.int64), np.empty(0)

    def size(values: Any, times: Any = seconds, quality: Any = np.full(FULL, GOOD, np.int32)) -> float:
        column = Column(times, np.asarray(values, float), quality, *none)
        blob = pack(column)
        assert decode(blob).values.tobytes() == column.values.tobytes()
        assert decode(blob).times.tolist() == times.tolist()
        return len(blob) / FULL

    noisy = np.round(rng.normal(50, 5, FULL), 3)
    assert size(noisy) < 2.1
    assert size(np.round(rng.normal(50, 0.5, FULL), 1)) < 1.1
    assert size(np.repeat([0.0, 1.0, 3.0], FULL // 3)) < 0.05
    odd = noisy.copy()
    odd[::50] = np.median(noisy) / 3  # what cleaning put in place of a spike need not be a decimal
    assert size(odd) < 2.4
    marked = np.where(rng.random(FULL) < 0.02, np.int32(UNCERTAIN | Why.SPIKE), np.int32(GOOD)).astype(np.int32)
    assert size(noisy, quality=marked) < 2.3
    gaps = np.cumsum(np.where(rng.random(FULL) < 0.01, 2, 1)) * SECOND + T0
    assert size(noisy, times=gaps) < 2.2
    assert size(rng.normal(50, 5, FULL)) < 8.1  # noise to the last bit stays as it is


def test_a_damaged_packed_chunk_is_said_to_be_damaged() -> None:
    column = decode(encode(series(T0, 100, quality=[GOOD, UNCERTAIN] * 50, raw={3: None}))[0])
    blob = pack(column)
    assert decode(blob).replaced.tolist() == [3]
    for end in range(0, len(blob) - 1, 7):
        with pytest.raises(StoreError, match="restore the store"):
            decode(blob[:end])


# --- merging ------------------------------------------------------------------------------------------------

some_series = st.builds(
    lambda device, start, gaps, seed: (device, start, gaps, seed),
    st.sampled_from(["a", "b"]),
    st.one_of(st.integers(0, 3 * DAY), st.integers(DAY - 90 * SECOND, DAY + 90 * SECOND)),
    st.lists(st.sampled_from([1, 1000, SECOND, 2 * SECOND, HOUR, 30 * HOUR]), max_size=6)
    | st.integers(1, 1200).map(lambda n: [SECOND] * n),
    st.integers(0, 2**16),
)


def made(device: str, start: int, gaps: list[int], seed: int) -> Series:
    rng = np.random.default_rng(seed)
    n = len(gaps) + 1
    value = np.round(rng.normal(5, 1, n), 2) if seed % 3 else rng.normal(5, 1, n)
    raw = {int(k): None if seed % 2 else float(k) for k in np.flatnonzero(rng.random(n) < 0.1)}
    quality: Any = GOOD if seed % 5 else [GOOD if good else UNCERTAIN | Why.SPIKE for good in rng.random(n) < 0.9]
    return Series(
        device=device, metric="power_kw", unit="kW", t0=T0 + start, at=np.cumsum([0, *gaps]).tolist(),
        value=value.tolist(), quality=quality, raw=raw,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(some_series, min_size=1, max_size=8), min_size=1, max_size=5), st.booleans())
def test_whatever_lands_and_is_merged_in_between_the_same_rows_are_answered(
    rounds: list[list[Any]], everything: bool
) -> None:
    expected: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, SqliteStore(path=Path(folder) / "store.db").open() as store:
        _land_and_merge(store, rounds, everything, expected)


def _land_and_merge(store: SqliteConnection, rounds: list[list[Any]], everything: bool, expected: list[Row]) -> None:
    for number, some in enumerate(rounds):
        parts = [made(*one) for one in some]
        store.append([batch(number, *parts)])
        for one in parts:
            column = decode(encode(one)[0])
            said = column.values.copy()
            said[column.replaced] = column.raw
            expected += [
                (one.device, int(at), bytes(value), int(quality), bytes(raw))
                for at, value, quality, raw in zip(
                    column.times, column.values.view("V8"), column.quality, said.view("V8"), strict=True
                )
            ]
        assert sum(store.compact(everything=everything)) <= store.count_rows()
        assert rows(store) == sorted(expected)
        assert store.count_rows() == len(expected)


@given(st.lists(some_series, min_size=1, max_size=6))
def test_pieces_are_the_column_cut_at_midnight_and_of_bounded_size(some: list[Any]) -> None:
    column = join([decode(encode(made(*one))[0]) for one in some])
    cut = list(pieces(column))
    together = join(cut)
    for name in ("times", "values", "quality", "replaced", "raw"):
        assert getattr(together, name).tobytes() == getattr(column, name).tobytes()
    assert all(one.times[0] // DAY == one.times[-1] // DAY and 0 < len(one) < 2 * FULL for one in cut)


def test_an_hour_in_small_chunks_becomes_one_and_the_rest_waits(store: SqliteConnection) -> None:
    store.append([batch(n, series(T0 + n * 100 * SECOND, 100)) for n in range(40)])
    before = rows(store)
    assert sum(store.compact()) == 4_000
    assert tables(store) == ([], [4_000])
    store.append([batch(40, series(T0 + 2 * HOUR, 100))])
    assert sum(store.compact()) == 0  # not worth it yet
    assert tables(store) == ([100], [4_000])
    assert rows(store)[:4000] == before
    minutes = store.query(Query("power_kw", every_s=60, agg="count"))
    assert (int(minutes.values.sum()), len(minutes)) == (4_100, 69)


def test_few_rows_at_a_time_are_merged_again_and_again_but_each_row_seldom(store: SqliteConnection) -> None:
    merged = 0
    for n in range(720):
        store.append([batch(n, series(T0 + n * 60 * SECOND, 1))])
        merged += sum(store.compact())
    landed, packed = tables(store)
    assert sum(landed) + sum(packed) == 720
    assert (len(landed) <= 72, len(packed) <= 6) == (True, True), (landed, packed)
    assert merged <= 720  # landed rows count once each


def test_late_rows_in_hours_long_merged_are_merged_too(store: SqliteConnection) -> None:
    store.append([batch(n, series(T0 + n * 200 * SECOND, 100, step=2 * SECOND)) for n in range(72)])
    assert sum(store.compact()) == 7_200
    late = [batch(100 + n, series(T0 + n * 100 * SECOND + SECOND, 50, step=2 * SECOND)) for n in range(60)]
    store.append(late)
    before = rows(store)
    assert sum(store.compact()) == 3_000
    assert rows(store) == before
    assert [at for _, at, *_ in rows(store, start=T0 + HOUR, end=T0 + HOUR + 4 * SECOND)] == [
        T0 + HOUR + k * SECOND for k in range(4)
    ]
    again = store.append(late)
    assert not any(again.new)
    assert store.count_rows() == store.distinct_rows() == 10_200


def test_a_reader_sees_every_row_once_between_any_two_steps(kept: SqliteStore) -> None:
    with kept.open() as writer, kept.open(read_only=True) as reader:
        for device in ("a", "b", "c"):
            writer.append([
                batch(1000 * ord(device) + n, series(T0 + n * 100 * SECOND, 100, device=device)) for n in range(900)
            ])  # fmt: skip
        before = rows(reader)
        assert len(before) == 270_000
        steps = 0
        for merged in writer.compact():
            steps += 1
            assert merged <= STEP_ROWS
            assert reader.count_rows() == 270_000 + steps - 1
            one = reader.query(Query("power_kw", device="abc"[steps % 3]))
            assert len(one) == len(np.unique(one.times)) == 90_000
            writer.append([batch(steps, series(T0 + 30 * DAY + steps * HOUR, 1, device="d"))])  # ingest goes on
        assert steps >= 3 * 900 // STEP_CHUNKS
        assert rows(reader, end=T0 + 20 * DAY) == before
        landed, packed = tables(writer)
        assert landed.count(1) == steps  # what came meanwhile waits, and less than 36 chunks of each device
        assert len(landed) - steps < 3 * 36
        assert sum(n < FULL for n in packed) <= 3 * 2  # what midnight cut off


def test_a_step_that_fails_leaves_everything_and_is_done_later(kept: SqliteStore) -> None:
    with kept.open() as store:
        store.append([batch(n, series(T0 + n * 100 * SECOND, 100)) for n in range(40)])
        with pytest.raises(RuntimeError), store.atomic():
            assert sum(store.compact()) == 4_000
            raise RuntimeError("power cut")
        assert tables(store) == ([100] * 40, [])
        assert sum(store.compact()) == 4_000
    with kept.open() as store:
        assert tables(store) == ([], [4_000])


def test_what_landed_before_a_restart_is_merged_after_it(kept: SqliteStore) -> None:
    with kept.open() as store:
        store.append([batch(n, series(T0 + n * 100 * SECOND, 100)) for n in range(40)])
    with kept.open() as store:
        assert sum(store.compact()) == 4_000


async def test_a_running_store_merges_by_itself_also_after_its_file_was_held_by_another(
    kept: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with kept.open() as store, closing(sqlite3.connect(kept.path, isolation_level=None)) as other:
        store.connection.execute("PRAGMA busy_timeout = 10")
        store.append([batch(n, series(T0 + n * 100 * SECOND, 100)) for n in range(40)])
        other.execute("BEGIN IMMEDIATE")
        running = asyncio.create_task(store.run())
        said = ""

        def complained() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return "store.not_compacted" in said

        await eventually(complained)
        assert tables(store)[1] == []
        other.execute("ROLLBACK")
        await eventually(lambda: tables(store) == ([], [4_000]))
        running.cancel()


def test_room_is_used_again(store: SqliteConnection) -> None:
    def pages() -> int:
        return int(store.connection.execute("PRAGMA page_count").fetchone()[0])

    def day(n: int) -> None:
        for k in range(0, 400, 40):
            store.append([
                batch(n * 1000 + k + one, series(T0 + n * DAY + (k + one) * 100 * SECOND, 100)) for one in range(40)
            ])  # fmt: skip
            list(store.compact())

    day(0)
    first = pages()
    for n in range(1, 6):
        day(n)
    assert pages() - first < 5 * 40_000 * 2.6 / 4096 + 50  # as packed; what landed took up the room it left


def test_a_damaged_chunk_is_left_as_it_is_and_the_others_are_merged(
    store: SqliteConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    for device in ("bad", "good"):
        store.append([
            batch(len(device) * 100 + n, series(T0 + n * 100 * SECOND, 100, device=device)) for n in range(40)
        ])  # fmt: skip
    store.connection.execute("UPDATE chunk SET data = x'00' WHERE id = 7")
    assert sum(store.compact()) == 4_000
    assert sum(store.compact(everything=True)) == 0
    assert tables(store) == ([100] * 40, [4_000])
    with pytest.raises(StoreError, match="restore"):
        store.query(Query("power_kw", device="bad"))


def test_a_writer_killed_while_it_merges_leaves_the_same_rows(kept: SqliteStore) -> None:
    with kept.open() as store:
        for first in (0, 250):
            store.append([
                batch(n, *(series(T0 + n * 100 * SECOND, 100, device=d) for d in "abcd"))
                for n in range(first, first + 250)
            ])  # fmt: skip
        before = rows(store)
        total = store.count_rows()
    program = f"""
import sys
from pathlib import Path
from cloud.stores import SqliteStore
with SqliteStore(path=Path({str(kept.path)!r})).open() as store:
    for rows in store.compact():
        print(rows, flush=True)
        sys.stdin.readline()
"""
    for kill_after in (1, 3):
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        assert child.stdin is not None and child.stdout is not None
        seen = []
        for _ in range(kill_after):  # it is let into the next step and no further, however fast it is
            seen.append(int(child.stdout.readline() or 0))
            child.stdin.write(b"\n")
            child.stdin.flush()
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.stdin.close()
        child.stdout.close()
        assert sum(seen) > 0
        with kept.open(read_only=True) as reader:
            assert reader.count_rows() == total
            assert rows(reader) == before
    with kept.open() as store:
        landed, packed = tables(store)
        assert landed and packed  # it was in the middle
        list(store.compact())
        assert rows(store) == before
        assert not any(store.append([batch(n, series(T0, 1)) for n in range(500)]).new)


# --- retention ----------------------------------------------------------------------------------------------


def test_retention_cuts_packed_chunks_and_nothing_older_is_ever_answered(kept: SqliteStore) -> None:
    with kept.model_copy(update={"retention_days": 1.0}).open() as store:
        store.append([batch(n, series(T0 + n * 100 * SECOND, 100)) for n in range(72)])
        list(store.compact())
        now = T0 + DAY + HOUR + 30 * SECOND
        steps = store.expire(now)
        assert next(steps) == 0  # written down, nothing dropped yet: and nothing older is answered any more
        with kept.open(read_only=True) as reader:
            assert rows(reader)[0][1] == T0 + HOUR + 30 * SECOND
            assert next(reader.times())[1][0] == T0 + HOUR + 30 * SECOND
        assert sum(steps) == 3_630
        assert store.count_rows() == len(rows(store)) == store.distinct_rows() == 3_570
        assert sum(store.expire(now)) == 0
        late = [batch(100, series(T0 + 10 * SECOND, 5)), batch(101, series(T0 + HOUR + 25 * SECOND, 10, device="k2"))]
        done = store.append(late)  # too old; half of it
        assert (done.new, done.readings, store.count_rows()) == ((True, True), 5, 3_575)
        assert [row[1] for row in rows(store, device="k2")] == [T0 + HOUR + k * SECOND for k in range(30, 35)]
        assert store.append(late).new == (False, False)
        assert sum(store.expire(now)) == 0
        assert sum(store.expire(T0 + 40 * DAY)) == 3_575
        assert tables(store) == ([], [])


def test_retention_switched_off_answers_what_is_still_there(kept: SqliteStore) -> None:
    with kept.model_copy(update={"retention_days": 1.0}).open() as store:
        store.append([batch(0, series(T0, 10))])
        next(store.expire(T0 + DAY + 5 * SECOND))
        assert len(rows(store)) == 5
    with kept.open() as store:
        assert sum(store.expire(T0 + DAY + 5 * SECOND)) == 0
        assert len(rows(store)) == 10


def test_a_key_outlives_every_row_and_record_of_its_batch(kept: SqliteStore) -> None:
    """A node without a clock made the batch in 1970, its rows and records are of today."""
    with kept.model_copy(update={"retention_days": 1.0}).open() as store:
        odd = batch(0, series(T0, 10), made_at=5)
        told = batch(1, made_at=5, records=[PartIdentified(at=T0, machine="kiln-1", job="b01")])
        store.append([odd, told])
        list(store.expire(T0 + DAY))
        assert store.append([odd, told]).new == (False, False)
        assert (len(rows(store)), len(store.records())) == (10, 1)
        list(store.expire(T0 + DAY + HOUR))
        assert (rows(store), store.records()) == ([], [])
        assert store.append([odd]).new == (True,)  # its key went with its rows
        assert rows(store) == []  # and so it is of no consequence


def test_a_batch_that_comes_again_after_the_retention_brings_nothing_back(kept: SqliteStore) -> None:
    with kept.model_copy(update={"retention_days": 1.0}).open() as store:
        gap = Gap(at=T0, device="kiln-1", boot=EPOCH, bursts=(1, 2), readings=7)
        young = PartIdentified(at=T0 + 5 * DAY, machine="kiln-1", job="b01")
        odd = series(T0, 10, unit="W")  # it was put aside, and was counted then
        sent = [batch(0, series(T0, 10)), batch(1, records=[gap]), batch(2, odd)]
        store.append(sent)
        assert (store.sums()["gap"], store.quarantined_rows()) == ({"gap": 7}, 10)
        steps = store.expire(T0 + 5 * DAY)
        next(steps)
        assert (store.records(), store.sums()["gap"]) == ([], {"gap": 0})  # at once, as rows
        list(steps)
        assert store.append(sent).new == (True, True, True)
        assert (store.count_rows(), store.records(), store.sums()["gap"]) == (0, [], {"gap": 0})
        assert store.quarantined_rows() == 10
        assert store.append(sent).new == (False, False, False)
        store.append([batch(3, records=[gap, young])])
        assert [one.key for one in store.records()] == [f"{EPOCH}/live/3/1"]  # a record keeps its place


def test_what_is_put_aside_while_retention_empties_a_full_quarantine_is_kept(kept: SqliteStore) -> None:
    with kept.model_copy(update={"retention_days": 1.0, "quarantine_mb": 4}).open() as store:

        def put(n: int, at: int, size: int) -> None:
            store.quarantine(at=at, kind="message", topic="t", reason=str(n), payload=b"x" * size)

        for n in range(10):
            put(n, T0, 400_000)
        for _ in store.expire(T0 + 10 * DAY):
            if not store.quarantined():
                break
        put(10, T0 + 10 * DAY, 1_000_000)
        put(11, T0 + 10 * DAY, 1_000_000)
        assert [one.reason for one in store.quarantined()] == ["11", "10"]
        assert store.quarantine_dropped() == 0  # what is too old went, nothing went for want of room


# --- versions -----------------------------------------------------------------------------------------------

FORMER = """
CREATE TABLE stream (id INTEGER PRIMARY KEY, site TEXT, node TEXT, epoch TEXT, lane TEXT,
                     UNIQUE (site, node, epoch, lane));
CREATE TABLE batch (stream INTEGER, seq INTEGER, at INTEGER, PRIMARY KEY (stream, seq)) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, site TEXT, node TEXT, device TEXT, metric TEXT, unit TEXT,
                     UNIQUE (metric, device, site, node));
CREATE TABLE chunk (id INTEGER PRIMARY KEY, series INTEGER, stream INTEGER, seq INTEGER,
                    t_min INTEGER, t_max INTEGER, rows INTEGER, data BLOB);
CREATE INDEX chunk_time ON chunk (series, t_max, t_min, rows);
CREATE TABLE record (id INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER, seq INTEGER, place INTEGER,
                     kind TEXT, at INTEGER, body TEXT);
CREATE INDEX record_kind ON record (kind, id);
CREATE TABLE quarantine (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER, kind TEXT, topic TEXT, reason TEXT,
                         readings INTEGER, size INTEGER, payload BLOB);
CREATE TABLE kept (name TEXT PRIMARY KEY, text TEXT);
CREATE TABLE counter (name TEXT PRIMARY KEY, n INTEGER);
PRAGMA application_id = 1397247820;
PRAGMA user_version = 1;
"""
"""Version 1, as it was released."""

LANDED = bytes.fromhex(
    "01050000" "03000000" "0020bf77110a0600" "40420f0000000000"
    "000000000000f03f" "0000000000000040" "0000000000000840" "c0000000"
)  # fmt: skip
"""A chunk of version 1: three readings a second apart from T0, 1.0, 2.0, 3.0, all good."""


def test_a_store_of_the_former_version_is_brought_up_to_date_where_it_lies(kept: SqliteStore) -> None:
    with sqlite3.connect(kept.path) as old:
        old.executescript(FORMER)
        old.execute("INSERT INTO stream VALUES (1, 'ceramic', 'firing', ?, 'live')", (EPOCH,))
        old.execute("INSERT INTO series VALUES (1, 'ceramic', 'firing', 'kiln-1', 'power_kw', 'kW')")
        for seq in range(100):
            blob, first, last = LANDED, T0, T0 + 2 * SECOND
            if seq:
                blob, first, last = encode(series(T0 + seq * 100 * SECOND, 100))
            old.execute("INSERT INTO batch VALUES (1, ?, ?)", (seq, T0))
            n = len(decode(blob))
            old.execute("INSERT INTO chunk VALUES (NULL, 1, 1, ?, ?, ?, ?, ?)", (seq, first, last, n, blob))
        old.execute("INSERT INTO kept VALUES ('note', 'here')")
    old.close()
    with pytest.raises(ConfigError, match="start this version of `shoal cloud` on it once"):
        kept.open(read_only=True)
    with kept.open() as store:
        assert store.kept("note") == "here"
        before = rows(store)
        assert len(before) == store.count_rows() == 9_903
        assert [(at - T0, np.frombuffer(value)[0]) for _, at, value, *_ in before[:3]] == [
            (0, 1.0), (SECOND, 2.0), (2 * SECOND, 3.0),
        ]  # fmt: skip
        assert store.append([batch(0, series(T0, 3)), batch(100, series(T0 + DAY, 1))]).new == (False, True)
        assert sum(store.compact()) == 9_904
        assert rows(store, end=T0 + DAY) == before
    with kept.open(read_only=True) as reader:
        assert rows(reader, end=T0 + DAY) == before


def test_a_store_of_a_later_version_is_refused(kept: SqliteStore) -> None:
    with kept.open() as store:
        store.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="use a newer Shoal"):
        kept.open()
