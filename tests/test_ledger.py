"""The ledger says only what is so, never takes it back, and survives its own loss."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cloud.ledger import DIGESTS, EPOCHS, HELD, Lane, LaneKey, Ledger, Settled, Stored
from cloud.stores import BatchKey
from messages.contracts import MAX_EPOCHS, MAX_RANGES, LaneStored, StoredThrough
from messages.errors import BrokenInvariant

EPOCH = "0123456789abcdef"
LANE = LaneKey("ceramic", "firing", EPOCH, "live")


def connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")  # no power is cut here, only connections
    return connection


def opened(path: Path | str = ":memory:", wall_us: int = 1_000) -> Ledger:
    return Ledger(connect(path), wall_us=wall_us, path=Path(path))


def stored(seq: int, *, floor: int = 0, digest: bytes = b"d", lane: LaneKey = LANE) -> Stored:
    return Stored(BatchKey(*lane, seq), floor, digest)


def take(ledger: Ledger, *batches: Stored, settled: tuple[Settled, ...] = ()) -> None:
    changes = ledger.changes(batches, settled)
    ledger.write(changes)
    ledger.apply(changes)


def said(ledger: Ledger) -> LaneStored:
    return ledger.documents("ceramic", "firing")[-1].epochs[EPOCH]["live"]


def names(lane: LaneStored, below: int) -> set[int]:
    """The seqs below a bound of which this says that they are stored."""
    listed = {seq for low, high in lane.ranges for seq in range(low, min(high + 1, below))}
    return set(range(min(lane.through + 1, below))) | listed


def test_a_lane_in_order_is_one_number() -> None:
    ledger = opened()
    take(ledger, *(stored(seq) for seq in range(5)))
    assert said(ledger) == LaneStored(through=4, ranges=[])


def test_out_of_order_arrival_is_listed_and_the_gap_closes() -> None:
    ledger = opened()
    take(ledger, stored(0), stored(2), stored(3), stored(7))
    assert said(ledger) == LaneStored(through=0, ranges=[(2, 3), (7, 7)])
    take(ledger, stored(1))
    assert said(ledger) == LaneStored(through=3, ranges=[(7, 7)])


def test_a_hole_left_by_eviction_does_not_block_the_lane() -> None:
    ledger = opened()
    take(ledger, stored(0), stored(9))
    take(ledger, stored(10), settled=(Settled(LANE, 1, 6), Settled(LANE, 7, 8)))
    assert said(ledger) == LaneStored(through=10, ranges=[])


def test_a_floor_says_that_nobody_waits_for_what_is_below_it() -> None:
    ledger = opened()
    take(ledger, stored(0), stored(9))
    take(ledger, stored(10, floor=9))
    assert said(ledger) == LaneStored(through=10, ranges=[])
    take(ledger, stored(11, floor=3))  # an older batch, late: nothing moves back
    assert said(ledger).through == 11


def test_a_lost_ledger_is_rebuilt_from_the_floor() -> None:
    ledger = opened()
    take(ledger, stored(41, floor=40))
    assert said(ledger) == LaneStored(through=39, ranges=[(41, 41)])
    take(ledger, stored(40, floor=38))
    assert said(ledger) == LaneStored(through=41, ranges=[])


def test_the_same_again_is_a_repeat_and_other_bytes_are_a_fork() -> None:
    ledger = opened()
    key = BatchKey(*LANE, 3)
    assert ledger.judge(key, b"one") == "new"
    take(ledger, stored(3, digest=b"one"))
    assert (ledger.judge(key, b"one"), ledger.judge(key, b"two")) == ("repeat", "fork")
    assert ledger.judge(BatchKey(*LANE, 4), b"one") == "new"


def test_only_the_store_can_judge_what_was_settled_without_a_digest() -> None:
    """An evicted batch may still be under way: its rows are welcome, and the store knows if it has them."""
    ledger = opened()
    take(ledger, stored(9, floor=9), settled=(Settled(LANE, 12, 14),))
    assert ledger.judge(BatchKey(*LANE, 2), b"x") == ledger.judge(BatchKey(*LANE, 13), b"x") == "new"


def test_digests_are_remembered_for_a_window_of_stated_length() -> None:
    ledger = opened()
    take(ledger, *(stored(seq) for seq in range(DIGESTS)))
    take(ledger, stored(DIGESTS))
    assert ledger.judge(BatchKey(*LANE, 0), b"other") == "new"
    assert ledger.judge(BatchKey(*LANE, 1), b"other") == "fork"


def test_more_holes_than_fit_list_the_lowest_and_the_ledger_stays_bounded() -> None:
    ledger = opened()
    take(ledger, *(stored(2 * n + 1) for n in range(HELD + 10)))
    lane = said(ledger)
    assert lane.ranges == [(2 * n + 1, 2 * n + 1) for n in range(MAX_RANGES)]
    assert len(ledger.lane(LANE).ranges) == HELD
    take(ledger, *(stored(2 * n) for n in range(HELD + 10)))
    take(ledger, *(stored(2 * n + 1) for n in range(HELD, HELD + 10)))  # the forgotten ones come again
    assert said(ledger) == LaneStored(through=2 * HELD + 19, ranges=[])


def test_what_was_written_is_known_after_opening_again_and_unwritten_changes_are_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = opened(path)
    take(ledger, stored(0), stored(2))
    ledger.changes([stored(1)])  # decided, but the power went
    again = opened(path)
    assert said(again) == LaneStored(through=0, ranges=[(2, 2)])
    assert again.judge(BatchKey(*LANE, 2), b"other") == "fork"


def test_revisions_rise_over_restarts_clocks_set_back_and_a_lost_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    last = 0
    for wall_us in (5_000_000, 5_000_001, 1):  # the last start believes it is 1970
        ledger = opened(path, wall_us)
        take(ledger, stored(0))
        for _ in range(3):
            revision = ledger.documents("ceramic", "firing")[-1].revision
            assert revision > last
            last = revision
    path.unlink()
    fresh = opened(path, wall_us=60_000_000)  # a minute later
    assert fresh.documents("ceramic", "firing")[-1].revision > last


def test_documents_speak_of_the_epochs_last_active_and_of_all_that_were_asked_for() -> None:
    ledger = opened()
    epochs = [f"{n:016x}" for n in range(40)]
    for epoch in epochs:
        take(ledger, stored(0, lane=LANE._replace(epoch=epoch)))
    (newest,) = ledger.documents("ceramic", "firing")
    assert set(newest.epochs) == set(epochs[-MAX_EPOCHS:])
    pages = ledger.documents("ceramic", "firing", epochs)
    assert set().union(*(page.epochs for page in pages)) == set(epochs)
    assert set(pages[-1].epochs) == set(newest.epochs)  # what stays retained is what is active
    assert [page.revision for page in pages] == sorted({page.revision for page in pages})


def test_epochs_of_a_node_are_bounded_and_a_forgotten_one_begins_again(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.db")
    epochs = [f"{n:016x}" for n in range(EPOCHS + 5)]
    for epoch in epochs:
        take(ledger, stored(0, lane=LANE._replace(epoch=epoch)), stored(0, lane=LANE._replace(node="other")))
    assert ledger.lane(LANE._replace(epoch=epochs[0])) == Lane()
    assert ledger.lane(LANE._replace(epoch=epochs[-1])).through == 0
    assert ledger.lane(LANE._replace(node="other")).through == 0
    again = opened(tmp_path / "ledger.db")
    assert again.lane(LANE._replace(epoch=epochs[4])) == Lane()
    take(again, stored(7, floor=6, lane=LANE._replace(epoch=epochs[0])))
    assert again.lane(LANE._replace(epoch=epochs[0])).through == 5


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=40))
def test_a_lane_is_the_set_of_its_seqs(spans: list[tuple[int, int]]) -> None:
    lane, model = Lane(), set[int]()
    for low, length in spans:
        lane = lane.having(low, low + length)
        model |= set(range(low, low + length + 1))
        assert {seq for seq in range(60) if lane.settled(seq)} == model
        LaneStored(through=lane.through, ranges=list(lane.ranges[:MAX_RANGES]))  # ascending, apart, or it raises
        assert lane.through == min(set(range(60)) - model) - 1


class LedgerAgainstSets(RuleBasedStateMachine):
    """Batches, floors, evictions and power cuts, against plain sets."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "ledger.db"
        self.db = connect(self.path)
        self.ledger = Ledger(self.db, wall_us=1, path=self.path)
        self.settled: dict[LaneKey, set[int]] = {}
        self.digests: dict[BatchKey, bytes] = {}
        self.revision = 0

    @rule(
        batches=st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from(["live", "record"]), st.integers(0, 25),
                      st.integers(0, 25), st.sampled_from([b"x", b"x", b"y"])),
            max_size=5,
        ),
        evicted=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 25), st.integers(0, 4)), max_size=2),
        power_cut=st.booleans(),
    )  # fmt: skip
    def batches_arrive(
        self,
        batches: list[tuple[str, str, int, int, bytes]],
        evicted: list[tuple[str, int, int]],
        power_cut: bool,
    ) -> None:
        accepted: list[Stored] = []
        for epoch, lane, seq, behind, digest in batches:
            key = BatchKey("s", "n", epoch * 8, lane, seq)
            verdict = self.ledger.judge(key, digest)
            known = self.digests.get(key)
            assert verdict == ("new" if known is None else "repeat" if known == digest else "fork")
            if verdict == "new" and key not in {one.key for one in accepted}:
                accepted.append(Stored(key, max(0, seq - behind), digest))
        settled = [Settled(LaneKey("s", "n", e * 8, "live"), low, low + more) for e, low, more in evicted]
        changes = self.ledger.changes(accepted, settled)
        if power_cut:
            self.db.execute("BEGIN")
            self.ledger.write(changes)
            self.db.close()
            self.open_again()
            return
        self.ledger.write(changes)
        self.ledger.apply(changes)
        for key, floor, digest in accepted:
            self.settled.setdefault(LaneKey(*key[:4]), set()).update(range(floor), [key.seq])
            self.digests[key] = digest
        for name, low, high in settled:
            self.settled.setdefault(name, set()).update(range(low, high + 1))

    @rule()
    def open_again(self) -> None:
        self.db.close()
        self.db = connect(self.path)
        self.ledger = Ledger(self.db, wall_us=1, path=self.path)

    @invariant()
    def it_says_exactly_what_is_settled(self) -> None:
        if not hasattr(self, "ledger"):
            return
        document: StoredThrough = self.ledger.documents("s", "n")[-1]
        assert document.revision > self.revision
        self.revision = document.revision
        spoken = {
            LaneKey("s", "n", epoch, name): names(lane, 64)
            for epoch, lanes in document.epochs.items()
            for name, lane in lanes.items()
        }
        assert spoken == self.settled

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            self.directory.cleanup()


LedgerAgainstSets.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestLedgerAgainstSets = LedgerAgainstSets.TestCase


def test_a_ledger_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.db")
    take(ledger, stored(0))
    broken = Stored(BatchKey(*LANE, 1), 0, object())  # type: ignore[arg-type]
    with pytest.raises((BrokenInvariant, sqlite3.Error)):
        ledger.write(ledger.changes([broken]))
    take(ledger, stored(2))
    assert said(opened(tmp_path / "ledger.db")) == LaneStored(through=0, ranges=[(2, 2)])
