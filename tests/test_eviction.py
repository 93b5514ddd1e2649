"""At the disk budget: a coarser but complete history, told to the store in its turn, at a bounded cost."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.disk import Disk
from edge.eviction import Eviction, Oldest, Thin, meetings_won
from edge.outbox import LANES, ROW_BYTES, Outbox
from messages.contracts import MAX_RANGES, Batch, Evicted, LaneStored, Series, StoredThrough

NOW = 1_750_000_000_000_000
SECOND = 1_000_000


def series(at: int, device: str = "kiln-1") -> Series:
    return Series(device=device, metric="power_kw", unit="kW", t0=at, at=[0], value=[1.0], quality=192)


def fill(outbox: Outbox, batches: int, *, lane: str = "backlog", begin: int = 0, every_s: int = 10) -> None:
    """One batch per slot."""
    with outbox.disk.transaction():
        for n in range(begin, begin + batches):
            at = NOW + n * every_s * SECOND
            outbox.put(lane, made_at=at, series=[series(at)])  # type: ignore[arg-type]


def times(outbox: Outbox, lane: str = "backlog") -> list[int]:
    rows = outbox.disk.db.execute("SELECT payload FROM outbox WHERE lane = ? ORDER BY id", (lane,))
    return [Batch.decode(payload).made_at for (payload,) in rows]


def opened(folder: Path, budget: int, eviction: Eviction | None = None) -> Outbox:
    return Outbox.open(Disk.open(folder), budget_bytes=budget, eviction=eviction)


@given(block=st.integers(0, 2**50), n=st.integers(0, 8))
def test_of_every_two_to_the_n_slots_exactly_one_is_worth_n(block: int, n: int) -> None:
    first = block << n
    assert sum(meetings_won(slot) >= n for slot in range(first, first + 2**n)) == 1


@pytest.mark.parametrize("period", range(2, 25))
def test_a_device_that_speaks_every_so_many_slots_is_thinned_like_the_others(period: int) -> None:
    for phase in range(period):
        kept = sum(meetings_won(slot) >= 2 for slot in range(phase, 4_000 * period, period))
        assert 0.2 < kept / 4_000 < 0.3, "one in four, whatever its rhythm"


@pytest.mark.parametrize("rounds", [2, 5, 12])
def test_a_long_outage_leaves_a_coarser_history_of_all_of_it_and_never_a_hole(tmp_path: Path, rounds: int) -> None:
    outbox = opened(tmp_path, 60_000)
    fill(outbox, 100)
    per_batch = outbox.bytes / 100
    whole = int(60_000 / per_batch)
    made = whole * rounds
    fill(outbox, made - 100, begin=100)
    kept = times(outbox)
    assert 0.9 * whole <= len(kept) <= whole
    slots = [(at - NOW) // (10 * SECOND) for at in kept]
    stride = 2 ** (made // whole).bit_length()  # what this much thinning comes to
    widest = max(b - a for a, b in pairwise([0, *slots, made]))
    assert widest <= 2 * stride, f"a hole of {widest} slots, though one of {stride} could be kept"
    outbox.disk.close()


def test_the_other_policy_keeps_the_newest_in_full(tmp_path: Path) -> None:
    outbox = opened(tmp_path, 60_000, Oldest())
    fill(outbox, 1_000)
    slots = [(at - NOW) // (10 * SECOND) for at in times(outbox)]
    assert slots == list(range(1_000 - len(slots), 1_000)) and len(slots) > 100
    outbox.disk.close()


def test_what_was_made_in_one_slot_stays_or_goes_together(tmp_path: Path) -> None:
    outbox = opened(tmp_path, 60_000)
    with outbox.disk.transaction():
        for n in range(2_000):
            at = NOW + n * SECOND
            outbox.put("backlog", made_at=at, series=[series(at)])
    per_slot: dict[int, int] = {}
    for at in times(outbox):
        per_slot[at // (10 * SECOND)] = per_slot.get(at // (10 * SECOND), 0) + 1
    assert len(per_slot) > 10
    assert sum(count < 10 for count in per_slot.values()) <= 3, "only where it began, where it ends, and the next to go"
    outbox.disk.close()


def test_many_evictions_become_few_ranges_and_few_records(tmp_path: Path) -> None:
    outbox = opened(tmp_path, 60_000)
    for n in range(0, 4_000, 20):
        fill(outbox, 20, begin=n)
    held = outbox.held["backlog"]
    ranges = outbox.disk.db.execute("SELECT COUNT(*) FROM evicted").fetchone()[0]
    assert 0 < ranges <= held + 1, "one between two batches that are held, at most"
    assert outbox.held["record"] == 0, "nothing is said before its turn"
    with outbox.disk.transaction():
        outbox.tell({(outbox.epoch, "backlog"): 2**52})
    assert outbox.held["record"] == 1
    [told] = [
        record
        for held in outbox.pending("record", outbox.epoch, limit=10)
        for record in Batch.decode(held.payload).records
        if isinstance(record, Evicted)
    ]
    untold = outbox.disk.db.execute("SELECT COALESCE(SUM(readings), 0) FROM evicted WHERE carrier_seq IS NULL")
    made_room = untold.fetchone()[0]  # for the record itself
    assert told.readings + made_room == outbox.counts.evicted_readings == 4_000 - outbox.held["backlog"]
    outbox.disk.close()


def test_the_store_never_has_to_remember_more_holes_than_the_window_has_batches(tmp_path: Path) -> None:
    outbox = opened(tmp_path, 60_000)
    fill(outbox, 3_000)
    while batches := outbox.pending("backlog", outbox.epoch, limit=8):
        after = batches[-1].seq
        with outbox.disk.transaction():
            outbox.mark_out(outbox.epoch, "backlog", after)
            outbox.tell({(outbox.epoch, "backlog"): after})
            told = outbox.disk.db.execute("SELECT COUNT(*) FROM evicted WHERE carrier_seq IS NOT NULL").fetchone()[0]
            assert told <= 8 + 1 <= MAX_RANGES
            settled = {lane: LaneStored(through=outbox._next_seq(outbox.epoch, lane) - 1) for lane in ("record",)}
            settled["backlog"] = LaneStored(through=after)
            outbox.free(StoredThrough.model_validate({"revision": 1, "epochs": {outbox.epoch: settled}}))
    with outbox.disk.transaction():
        outbox.tell({})
        last = LaneStored(through=outbox._next_seq(outbox.epoch, "record") - 1)
        outbox.free(StoredThrough.model_validate({"revision": 2, "epochs": {outbox.epoch: {"record": last}}}))
    assert outbox.empty
    outbox.disk.close()


def test_an_eviction_costs_the_same_however_much_is_held(tmp_path: Path) -> None:
    def cost_s(batches: int) -> float:
        outbox = opened(tmp_path / str(batches), 1 << 40)
        fill(outbox, batches, every_s=1)
        outbox.budget_bytes = outbox.bytes
        before = outbox.counts.evicted
        begun = time.process_time()
        for n in range(20):
            fill(outbox, 100, begin=batches + 100 * n, every_s=1)
        took = time.process_time() - begun
        assert outbox.counts.evicted > before
        outbox.disk.close()
        return took

    few, many = cost_s(500), cost_s(20_000)
    assert many < 6 * few + 0.2, "not in proportion to what is held"


@pytest.mark.parametrize("eviction", [Thin(), Thin(slot_s=3600), Oldest()], ids=["thin", "wide", "oldest"])
@given(
    puts=st.lists(st.tuples(st.sampled_from(LANES), st.integers(1, 5), st.integers(-50, 500)), min_size=1, max_size=60),
    budget=st.integers(1_500, 12_000),
)
def test_whatever_the_policy_the_budget_is_kept_and_every_reading_is_held_or_noted(
    tmp_path_factory: pytest.TempPathFactory, eviction: Eviction, puts: list[tuple[str, int, int]], budget: int
) -> None:
    outbox = opened(tmp_path_factory.mktemp("outbox"), budget, eviction)
    made, now = 0, NOW
    for lane, batches, step_s in puts:
        now += step_s * SECOND  # clocks may go back
        with outbox.disk.transaction():
            for _ in range(batches):
                outbox.put(lane, made_at=now, series=[series(now)])  # type: ignore[arg-type]
        made += batches
        assert outbox.bytes <= budget
        held, size = outbox.disk.db.execute("SELECT SUM(readings), SUM(bytes + ?) FROM outbox", (ROW_BYTES,)).fetchone()
        gone = outbox.disk.db.execute("SELECT SUM(readings) FROM evicted").fetchone()[0]
        assert made == (held or 0) + (gone or 0)
        assert outbox.bytes == (size or 0)
    if outbox.disk.db.execute("SELECT 1 FROM evicted WHERE lane = 'alarm'").fetchone():
        others = outbox.disk.db.execute("SELECT COUNT(*) FROM outbox WHERE lane <> 'alarm'").fetchone()[0]
        assert others <= sum(batches for lane, batches, _ in puts[-5:] if lane != "alarm") + 5, "alarms go last"
    outbox.disk.close()
