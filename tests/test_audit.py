"""The checker behind the demo's verdict: it passes what is right and fails on every planted fault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.stores import BatchKey, SqliteStore, StoredBatch
from cloud.stores.sqlite import SqliteConnection
from firmware_sim.truth import TrueBurst
from messages.contracts import Batch, Burst, Evicted, Gap, Record, Rejected, Series
from shoal.audit import audit

T0 = 1_700_000_000_000_000
SECOND = 1_000_000
HOUR = 3600 * SECOND
EPOCH = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteConnection]:
    with SqliteStore(path=tmp_path / "store.db").open() as opened:
        yield opened


def sent(seq: int, samples: int = 4, device: str = "kiln-1") -> TrueBurst:
    """Burst `seq` of a device: two metrics, `samples` each."""
    at = [k * SECOND for k in range(samples)]
    burst = Burst(
        boot="0a1b2c3d",
        seq=seq,
        first=seq * samples * 2,
        t0=T0 + seq * 60 * SECOND,
        at=at,
        columns={"power_kw": [1.0] * samples, "state": [3.0] * samples},
        units={"power_kw": "kW", "state": "code"},
    )
    return TrueBurst(device, "firing", burst, {}, {}, {}, 0, 1, False)


def stored(
    store: SqliteConnection,
    seq: int,
    *bursts: TrueBurst,
    skip: int = 0,
    shift: int = 0,
    records: tuple[Record, ...] = (),
) -> None:
    """Batch `seq` with the rows of these bursts, less the first `skip` of each column, times moved by `shift`."""
    series = [
        Series(
            device=one.device,
            metric=metric,
            unit=one.burst.units[metric],
            t0=one.burst.t0 + shift,
            at=one.burst.at[skip:],
            value=[value or 0.0 for value in column[skip:]],
            quality=192,
        )
        for one in bursts
        for metric, column in one.burst.columns.items()
    ]
    batch = Batch(epoch=EPOCH, lane="live", seq=seq, floor=0, made_at=T0, series=series, records=list(records))
    store.append([StoredBatch(BatchKey("s1", "firing", EPOCH, "live", seq), batch)])


def test_what_is_stored_once_and_whole_holds(store: SqliteConnection) -> None:
    bursts = [sent(0), sent(1)]
    stored(store, 0, *bursts)
    stored(store, 0, *bursts)  # the same batch again is the same batch
    found = audit(bursts, store)
    assert found.holds and (found.produced, found.stored, found.lost, found.duplicated) == (16, 16, 0, 0)


def test_a_missing_reading_is_lost_unless_a_record_counts_it(store: SqliteConnection) -> None:
    bursts = [sent(0), sent(1)]
    stored(store, 0, bursts[0])
    stored(store, 1, bursts[1], skip=1)
    found = audit(bursts, store)
    assert not found.holds and found.lost == 2
    stored(store, 2, records=(Rejected(at=T0, device="kiln-1", reason="no_value", readings=2),))
    assert audit(bursts, store).holds


@pytest.mark.parametrize(
    "record",
    [
        Gap(at=T0, device="kiln-1", boot="0a1b2c3d", bursts=(1, 1), readings=8),
        Rejected(at=T0, device="kiln-1", reason="unit", readings=8),
        Evicted(at=T0, epoch=EPOCH, lane="live", ranges=[(7, 7)], readings=8),
    ],
)
def test_every_kind_of_account_counts_once(store: SqliteConnection, record: Record) -> None:
    bursts = [sent(0), sent(1)]
    stored(store, 0, bursts[0], records=(record,))
    assert audit(bursts, store).holds


def test_an_account_of_more_than_is_missing_does_not_hold(store: SqliteConnection) -> None:
    bursts = [sent(0)]
    stored(store, 0, *bursts, records=(Rejected(at=T0, device="kiln-1", reason="unit", readings=1),))
    assert not audit(bursts, store).holds


def test_a_row_stored_twice_under_another_number_is_a_duplicate(store: SqliteConnection) -> None:
    bursts = [sent(0)]
    stored(store, 0, *bursts)
    stored(store, 1, *bursts)
    found = audit(bursts, store)
    assert found.duplicated == 8 and not found.holds


def test_a_duplicate_does_not_hide_a_loss(store: SqliteConnection) -> None:
    bursts = [sent(0), sent(1)]
    stored(store, 0, bursts[0])
    stored(store, 1, bursts[0])
    found = audit(bursts, store)
    assert (found.stored, found.produced) == (16, 16)
    assert (found.lost, found.duplicated) == (8, 8)


def test_a_row_nobody_produced_is_a_stranger_but_a_moved_time_is_not(store: SqliteConnection) -> None:
    bursts = [sent(0)]
    stored(store, 0, *bursts, shift=30 * SECOND)
    found = audit(bursts, store)
    assert (found.strangers, found.lost, found.holds) == (8, 8, False)


def test_a_time_moved_to_keep_it_unique_is_still_the_same_reading(store: SqliteConnection) -> None:
    bursts = [sent(0)]
    stored(store, 0, *bursts, shift=1)
    assert audit(bursts, store).holds


def doubled(burst: TrueBurst, value: float = 1.0) -> TrueBurst:
    """The burst with its last sample of power once more, and the state with it."""
    b = burst.burst
    columns = {metric: [*column, column[-1] if metric == "state" else value] for metric, column in b.columns.items()}
    return replace(burst, burst=b.model_copy(update={"at": [*b.at, b.at[-1]], "columns": columns}))


def rejected(metric: str | None, reason: str, readings: int, device: str = "kiln-1") -> Rejected:
    return Rejected(at=T0, device=device, metric=metric, reason=reason, readings=readings)


@pytest.mark.parametrize(
    "record",
    [
        rejected("state", "no_value", 1),
        rejected("power_kw", "duplicate", 1),
        rejected("power_kw", "no_value", 1, device="kiln-2"),
        rejected(None, "unit", 1, device="kiln-2"),
        Gap(at=T0, device="kiln-2", boot="0a1b2c3d", bursts=(1, 1), readings=1),
    ],
    ids=["of another metric", "as the repeat it was not", "of another device", "of all of it", "its gap"],
)
def test_a_count_somewhere_else_does_not_hide_a_lost_reading(store: SqliteConnection, record: Record) -> None:
    whole, cut, other = sent(0), sent(1), sent(0, device="kiln-2")
    stored(store, 0, whole, other)
    power = cut.burst.columns["power_kw"][1:]
    stored(
        store, 1, replace(cut, burst=cut.burst.model_copy(update={"columns": {"state": cut.burst.columns["state"]}}))
    )
    rows = Series(
        device="kiln-1", metric="power_kw", unit="kW", t0=cut.burst.t0, at=cut.burst.at[1:],
        value=[value or 0.0 for value in power], quality=192,
    )  # fmt: skip
    batch = Batch(epoch=EPOCH, lane="live", seq=2, floor=0, made_at=T0, series=[rows], records=[record])
    store.append([StoredBatch(BatchKey("s1", "firing", EPOCH, "live", 2), batch)])
    found = audit([whole, cut, other], store)
    assert found.produced == found.accepted + found.gaps, "the sums alone see nothing"
    assert (found.unexplained, found.lost, found.holds) == (1, 1, False)


def test_a_repeat_is_covered_by_a_rejection_as_duplicate_and_by_nothing_less(store: SqliteConnection) -> None:
    burst = sent(0)
    stored(store, 0, burst)
    assert audit([doubled(burst)], store).lost == 2
    stored(store, 1, records=(rejected("power_kw", "duplicate", 2),))
    found = audit([doubled(burst)], store)
    assert found.produced == found.accepted and found.unexplained == 1 and not found.holds


def test_repeats_rejected_as_duplicates_series_by_series_hold(store: SqliteConnection) -> None:
    burst = sent(0)
    stored(store, 0, burst, records=(rejected("power_kw", "duplicate", 1), rejected("state", "duplicate", 1)))
    assert audit([doubled(burst)], store).holds


def test_a_second_value_at_a_time_must_have_a_row_of_its_own(store: SqliteConnection) -> None:
    burst = sent(0)
    stored(store, 0, burst, records=(rejected("power_kw", "duplicate", 1), rejected("state", "duplicate", 1)))
    found = audit([doubled(burst, value=2.0)], store)
    assert found.produced == found.accepted and found.lost == 1


def test_a_repeat_stored_beside_its_reading_is_a_duplicate(store: SqliteConnection) -> None:
    burst = sent(0)
    stored(store, 0, burst)
    stored(store, 1, burst, shift=1)
    found = audit([burst], store)
    assert (found.duplicated, found.strangers, found.holds) == (8, 0, False)


def test_rows_in_quarantine_cover_their_own_series_only(tmp_path: Path) -> None:
    first, second = sent(0), sent(0, device="kiln-2")
    with SqliteStore(path=tmp_path / "small.db", max_series=2).open() as small:
        stored(small, 0, first)
        stored(small, 1, second)
        assert audit([first, second], small).holds
        assert audit([first, sent(0, device="kiln-3")], small).lost == 8


def test_a_demo_s_worth_of_readings_is_audited_in_about_the_time_it_took_to_store(store: SqliteConnection) -> None:
    bursts = [sent(seq, samples=2_000, device=f"kiln-{seq % 4}") for seq in range(88)]
    bursts = [replace(one, burst=one.burst.model_copy(update={"t0": T0 + k * HOUR})) for k, one in enumerate(bursts)]
    begun = time.process_time()
    for seq, one in enumerate(bursts):
        stored(store, seq, one)
    between = time.process_time()
    found = audit(bursts, store)
    assert found.produced == 352_000 and found.holds
    assert time.process_time() - between < 5 * (between - begun)  # half of it, usually
