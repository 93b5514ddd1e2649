"""The outbox: what reached the disk leaves it only because the store has it, or with a record that says so."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.disk import Disk
from edge.migrate import SCHEMA
from edge.outbox import LANES, Outbox
from edge.patience import ENOUGH
from messages.contracts import Batch, Evicted, Lane, LaneStored, Other, PartIdentified, Record, Series, StoredThrough
from messages.errors import BrokenInvariant, ConfigError, StoreDown

NOW = 1_750_000_000_000_000

Key = tuple[str, Any, int]
"""Epoch, lane, seq."""


def series(rows: int = 3, *, device: str = "kiln-1", metric: str = "power_kw", value: float = 1.25) -> Series:
    return Series(
        device=device, metric=metric, unit="kW", t0=NOW, at=list(range(rows)), value=[value] * rows, quality=192
    )


def record(job: str = "b01") -> Record:
    return PartIdentified(at=NOW, machine="kiln-1", job=job)


def stored(epoch: str, lane: str, through: int, *ranges: tuple[int, int]) -> StoredThrough:
    return StoredThrough.model_validate(
        {"revision": 1, "epochs": {epoch: {lane: LaneStored(through=through, ranges=list(ranges))}}}
    )


def open_outbox(folder: Path, budget: int = 1 << 20, **more: Any) -> tuple[Disk, Outbox]:
    disk = Disk.open(folder)
    return disk, Outbox.open(disk, budget_bytes=budget, **more)


def contents(outbox: Outbox) -> dict[Key, bytes]:
    rows = outbox.disk.db.execute("SELECT epoch, lane, seq, payload FROM outbox")
    return {(epoch, lane, seq): bytes(payload) for epoch, lane, seq, payload in rows}


def noted(outbox: Outbox) -> list[Any]:
    """The table of evicted ranges: epoch, lane, low, high, readings, (carrier epoch, carrier seq)."""
    rows = outbox.disk.db.execute("SELECT epoch, lane, low, high, readings, carrier_epoch, carrier_seq FROM evicted")
    return [(*row[:5], row[5:]) for row in rows]


def untold(outbox: Outbox) -> set[Key]:
    return {
        (epoch, lane, seq)
        for epoch, lane, low, high, _, carrier in noted(outbox)
        if carrier[1] is None
        for seq in range(low, high + 1)
    }


def evictions(held: dict[Key, bytes]) -> list[Evicted]:
    return [one for payload in held.values() for one in Batch.decode(payload).records if isinstance(one, Evicted)]


def tell_all(outbox: Outbox) -> None:
    """As an uplink does that has everything out."""
    with outbox.disk.transaction():
        outbox.tell(dict.fromkeys(outbox.gone.untold, 2**52))


def power_cut(disk: Disk, folder: Path) -> None:
    """What is in the files now, mid-transaction or not, is what the next start finds in `folder`."""
    folder.mkdir()
    for path in disk.path.parent.glob("node.db*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, folder / path.name)


class OutboxUnderPowerCuts(RuleBasedStateMachine):
    """Against a plain dict of what may still be asked for, with cuts in and between transactions."""

    @initialize(budget=st.sampled_from([3_000, 6_000, 1 << 20]))
    def begin(self, budget: int) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.starts = itertools.count()
        self.epochs = itertools.count(1)
        self.budget = budget
        self.model: dict[Key, bytes] = {}
        self.ever: dict[Key, bytes] = {}
        self.owed: set[Key] = set()  # evicted, and the store does not know yet
        self.out: set[Key] = set()  # ever published
        self.known: list[str] = []
        self.made_readings = self.freed_readings = self.evicted_readings = 0
        self.now = NOW
        self.disk = Disk.open(self.root / f"start-{next(self.starts)}")
        self.open()

    def open(self) -> None:
        self.outbox = Outbox.open(self.disk, budget_bytes=self.budget, mint=lambda: f"{next(self.epochs):016x}")
        self.known.append(self.outbox.epoch)

    def put(self, lane: Lane, rows: int, records: int) -> None:
        self.now += 1
        before = contents(self.outbox)
        self.outbox.put(
            lane,
            made_at=self.now,
            series=[series(rows)] if rows else [],
            records=[record(f"j{n}") for n in range(records)],
        )
        self.pending = (before, contents(self.outbox))

    def spared(self, held: dict[Key, bytes]) -> set[Key]:
        """What may be in the store already; after a restart a few more than were out."""
        return {key for key in held if key[2] <= self.outbox._out.get(key[:2], -1)}

    def committed(self) -> None:
        before, after = self.pending
        for key, payload in after.items():
            assert self.ever.setdefault(key, payload) == payload, f"two payloads for {key}"
        gone = set(before) - set(after)
        spared = self.spared(before)
        assert self.out & set(before) <= spared
        if gone & spared:
            assert set(before) & set(after) <= spared, "something else could have gone"
        self.owed |= gone
        self.model = after

    @staticmethod
    def told_by(held: dict[Key, bytes]) -> set[Key]:
        told = set()
        for (_, lane, _), payload in held.items():
            if lane == "record":
                for one in Batch.decode(payload).records:
                    if isinstance(one, Evicted):
                        for low, high in one.ranges:
                            told |= {(one.epoch, one.lane, seq) for seq in range(low, high + 1)}
        return told

    @rule(lane=st.sampled_from(LANES), rows=st.integers(0, 12), records=st.integers(1, 3))
    def keep(self, lane: Lane, rows: int, records: int) -> None:
        with self.disk.transaction():
            self.put(lane, rows, records)
        self.made_readings += rows
        self.committed()

    @rule(lane=st.sampled_from(LANES), rows=st.integers(1, 12))
    def cut_while_writing(self, lane: Lane, rows: int) -> None:
        folder = self.root / f"start-{next(self.starts)}"
        try:
            with self.disk.transaction():
                self.put(lane, rows, 1)
                power_cut(self.disk, folder)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        self.disk.close()
        self.disk = Disk.open(folder)
        self.open()

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def the_uplink_publishes(self, data: st.DataObject) -> None:
        epoch, lane, _ = data.draw(st.sampled_from(sorted(self.model)))
        held = sorted(key for key in self.model if key[:2] == (epoch, lane))[:3]
        reach = {(epoch, lane): held[-1][2]}
        before = contents(self.outbox)
        told = self.told_by(before)
        with self.disk.transaction():
            self.outbox.mark_out(epoch, lane, held[-1][2])
            self.out |= set(held)
            asked = self.outbox.has_to_tell(reach)
            assert bool(self.outbox.tell(reach)) == asked
            self.outbox.note_out()
        self.pending = (before, contents(self.outbox))
        self.committed()
        left = untold(self.outbox)
        following = [key for key in self.model if key[:2] == (epoch, lane) and key[2] > held[-1][2]]
        if self.told_by(self.model) >= told:  # else there was no room even for what tells
            assert not {key for key in left if key[:2] == (epoch, lane) and key < min(following, default=("~",))}

    @rule()
    def cut_between(self) -> None:
        folder = self.root / f"start-{next(self.starts)}"
        power_cut(self.disk, folder)
        self.disk.close()
        self.disk = Disk.open(folder)
        self.open()

    @rule()
    def stop_and_start(self) -> None:
        self.disk.close()
        self.disk = Disk.open(self.disk.path.parent)
        self.open()

    @rule(data=st.data())
    def the_store_confirms(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from([*self.known, "ffffffffffffffff"]))
        lane = data.draw(st.sampled_from(LANES))
        made = [key[2] for key in self.ever if key[:2] == (epoch, lane)]
        top = max(made, default=-1)
        through = data.draw(st.integers(-1, top + 2))
        ranges = []
        if through + 2 <= top + 1 and data.draw(st.booleans()):
            low = data.draw(st.integers(through + 2, top + 1))
            ranges = [(low, data.draw(st.integers(low, top + 1)))]
        claims = max([through, *(high for _, high in ranges)])
        with self.disk.transaction():
            gone = self.outbox.free(stored(epoch, lane, through, *ranges))
        said = set(range(through + 1)).union(*(range(low, high + 1) for low, high in ranges))
        if claims <= top:
            expected = {key for key in self.model if key[:2] == (epoch, lane) and key[2] in said}
        else:
            expected = set()
        assert gone == len(expected)
        # What a confirmed record tells, the store knows.
        confirmed = {key: self.model.pop(key) for key in expected}
        self.owed -= self.told_by(confirmed)
        self.freed_readings += sum(Batch.decode(payload).readings for payload in confirmed.values())
        self.evicted_readings += sum(one.readings for one in evictions(confirmed))

    @precondition(lambda self: hasattr(self, "disk"))
    @invariant()
    def every_reading_is_held_or_freed_or_told_as_evicted_exactly_once(self) -> None:
        held = contents(self.outbox)
        carried = {(carrier[0], "record", carrier[1]) for *_, carrier in noted(self.outbox) if carrier[1] is not None}
        live = {key: payload for key, payload in held.items() if key in carried}  # others tell what is told again
        evicted = sum(one.readings for one in evictions(live)) + self.evicted_readings
        evicted += sum(readings for *_, readings, carrier in noted(self.outbox) if carrier[1] is None)
        kept = sum(Batch.decode(payload).readings for payload in held.values())
        assert self.made_readings == kept + self.freed_readings + evicted

    @precondition(lambda self: hasattr(self, "disk"))
    @invariant()
    def nothing_is_missing_and_the_sums_are_right(self) -> None:
        held = contents(self.outbox)
        assert held == self.model
        assert self.owed <= self.told_by(held) | untold(self.outbox), "evicted, and nothing on the disk says so"
        assert self.outbox.bytes <= self.budget or held.keys() <= self.spared(held), "over the budget for nothing"
        assert self.outbox.empty == (not held and not untold(self.outbox))
        assert self.outbox.bytes == sum(len(payload) + 96 for payload in held.values())
        for lane in LANES:
            assert self.outbox.held[lane] == sum(key[1] == lane for key in held)
            older = [epoch for epoch in self.known[:-1] if any(key[:2] == (epoch, lane) for key in held)]
            assert self.outbox.oldest_epoch(lane) == (older[0] if older else None)
        for (epoch, of, seq), payload in held.items():
            batch = Batch.decode(payload)
            assert (batch.epoch, batch.lane, batch.seq) == (epoch, of, seq)

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.disk.close()
            shutil.rmtree(self.root)


OutboxUnderPowerCuts.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestOutboxUnderPowerCuts = OutboxUnderPowerCuts.TestCase


def test_an_eviction_is_told_until_the_store_has_the_record_even_when_its_carrier_is_evicted(tmp_path: Path) -> None:
    disk, outbox = open_outbox(tmp_path, budget=8_000)
    with disk.transaction():
        for _ in range(40):
            outbox.put("live", made_at=NOW, series=[series(40)])
        for _ in range(100):
            outbox.put("record", made_at=NOW, records=[record("x" * 100)])
    assert outbox.counts.evicted > 40
    tell_all(outbox)
    told = OutboxUnderPowerCuts.told_by(contents(outbox)) | untold(outbox)
    assert {(outbox.epoch, "live", seq) for seq in range(40)} <= told
    assert {key for key in told if key[1] == "record"}, "the record lane was thinned as well"
    while outbox.gone.untold:  # to make room for what tells, more may go
        tell_all(outbox)
        with disk.transaction():
            outbox.free(stored(outbox.epoch, "record", outbox._next_seq(outbox.epoch, "record") - 1))
    assert disk.db.execute("SELECT COUNT(*) FROM evicted").fetchone() == (0,), "confirmed, so remembered no longer"
    disk.close()


def test_confirming_one_eviction_record_does_not_silence_another(tmp_path: Path) -> None:
    disk, outbox = open_outbox(tmp_path, budget=8_000)

    def fill(lane: Lane, batches: int, **what: Any) -> None:
        for _ in range(batches):
            with disk.transaction():
                outbox.put(lane, made_at=NOW, **what)

    fill("live", 30, series=[series(40)])
    tell_all(outbox)
    fill("live", 30, series=[series(40)])
    tell_all(outbox)
    carriers = [seq for (_, lane, seq) in sorted(contents(outbox)) if lane == "record"]
    assert len(carriers) >= 2
    with disk.transaction():
        outbox.free(stored(outbox.epoch, "record", carriers[0]))
    owed = OutboxUnderPowerCuts.told_by(contents(outbox))
    assert owed
    fill("alarm", 60, records=[record("x" * 100)])  # every other lane has to make room, the carriers too
    held = contents(outbox)
    assert not any((outbox.epoch, "record", seq) in held for seq in carriers)
    assert owed <= OutboxUnderPowerCuts.told_by(held) | untold(outbox)
    tell_all(outbox)
    assert owed <= OutboxUnderPowerCuts.told_by(contents(outbox)) | untold(outbox)
    disk.close()


def test_backlog_goes_first_then_live_then_records_and_alarms_last(tmp_path: Path) -> None:
    disk, outbox = open_outbox(tmp_path, budget=1 << 20)
    with disk.transaction():
        for lane in ("alarm", "record", "live", "backlog"):
            for _ in range(10):
                outbox.put(lane, made_at=NOW, records=[Other(at=NOW, kind="note", text="x" * 500)])
    order = []
    for budget in range(outbox.bytes, 2_000, -500):
        outbox.budget_bytes = budget
        before = dict(outbox.held)
        with disk.transaction():
            outbox.put("alarm", made_at=NOW, records=[record()])
        order += [lane for lane in LANES if outbox.held[lane] < before[lane]]
    firsts = list(dict.fromkeys(order))
    assert firsts[:2] == ["backlog", "live"]
    assert firsts[-1] == "alarm"
    disk.close()


@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_out_and_unconfirmed_goes_last_also_after_a_restart(tmp_path: Path, restarts: bool) -> None:
    disk, outbox = open_outbox(tmp_path, budget=30_000)
    first = outbox.epoch
    with disk.transaction():
        for lane in ("live", "backlog"):
            outbox.put(lane, made_at=NOW, series=[series()])
            outbox.put(lane, made_at=NOW, series=[series()])
        assert outbox.mark_out(first, "live", 1) and outbox.mark_out(first, "backlog", 0)
        outbox.note_out()
        assert not outbox.mark_out(first, "live", 1), "it is on the disk already"
    if restarts:
        disk.close()
        disk, outbox = open_outbox(tmp_path, budget=30_000)
    with disk.transaction():
        for _ in range(400):
            outbox.put("live", made_at=NOW, series=[series()])
    assert outbox.counts.evicted > 200
    kept = {
        key for key in contents(outbox) if key[0] == first and key[1:] in {("live", 0), ("live", 1), ("backlog", 0)}
    }
    assert len(kept) == 3, "all that may be in the store is still here"
    with disk.transaction():
        outbox.budget_bytes = 600
        outbox.put("live", made_at=NOW, series=[series()])
    assert (first, "backlog", 0) not in contents(outbox), "nothing else was left"
    disk.close()


def test_a_store_that_claims_what_was_never_made_frees_nothing(tmp_path: Path) -> None:
    disk, outbox = open_outbox(tmp_path)
    with disk.transaction():
        outbox.put("live", made_at=NOW, series=[series()])
        assert outbox.free(stored(outbox.epoch, "live", 7)) == 0
        assert outbox.free(stored(outbox.epoch, "live", -1, (1, 2))) == 0
    assert outbox.counts.foreign == 2
    assert outbox.held["live"] == 1
    disk.close()


def test_a_fresh_disk_is_not_freed_by_what_the_store_says_of_the_old_one(tmp_path: Path) -> None:
    old_disk, old = open_outbox(tmp_path / "old")
    with old_disk.transaction():
        for _ in range(5):
            old.put("live", made_at=NOW, series=[series()])
    word = stored(old.epoch, "live", 4)
    old_disk.close()
    disk, fresh = open_outbox(tmp_path / "fresh")
    with disk.transaction():
        for _ in range(5):
            fresh.put("live", made_at=NOW, series=[series()])
        assert fresh.free(word) == 0
    assert fresh.held["live"] == 5
    disk.close()


def test_floor_is_the_oldest_seq_still_held_and_a_long_series_is_cut_to_fit(tmp_path: Path) -> None:
    disk, outbox = open_outbox(tmp_path, budget=64 << 20, batch_bytes=20_000)
    with disk.transaction():
        seqs = outbox.put(
            "live",
            made_at=NOW,
            series=[
                Series(
                    device="kiln-1",
                    metric="power_kw",
                    unit="kW",
                    t0=NOW,
                    at=[10**12 * n for n in range(2_000)],
                    value=[n / 3 for n in range(2_000)],
                    quality=[16_576] * 2_000,
                    raw={n: n / 7 for n in range(0, 2_000, 3)},
                )
            ],
        )
        outbox.free(stored(outbox.epoch, "live", 1))
        last = outbox.put("live", made_at=NOW, series=[series()])
    batches = [Batch.decode(held.payload) for held in outbox.pending("live", outbox.epoch, limit=1_000)]
    assert len(seqs) > 2 and all(len(payload) <= 20_000 for payload in contents(outbox).values())
    assert batches[-1].seq == last[0] and batches[-1].floor == 2
    rows = [row for batch in batches[:-1] for one in batch.series for row in zip(one.at, one.value, strict=True)]
    assert rows == [(10**12 * n, n / 3) for n in range(2_000)][-len(rows) :]
    raws = {one.at[index]: raw for batch in batches[:-1] for one in batch.series for index, raw in one.raw.items()}
    assert all(raw == at / 10**12 / 7 for at, raw in raws.items()) and len(raws) > 300
    disk.close()


def test_two_processes_cannot_open_one_disk_and_the_error_names_the_cure(tmp_path: Path) -> None:
    disk = Disk.open(tmp_path / "node")
    script = f"from pathlib import Path; from edge.disk import Disk; Disk.open(Path({str(tmp_path / 'node')!r}))"
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"in use by process {os.getpid()}: stop it, or give this node its own folder" in second.stderr
    disk.close()
    third = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr


def test_a_file_of_a_newer_version_or_a_broken_one_is_refused_with_the_cure(tmp_path: Path) -> None:
    Disk.open(tmp_path).close()
    db = sqlite3.connect(tmp_path / "node.db")
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    with pytest.raises(ConfigError, match=r"newer version .* install that version again"):
        Disk.open(tmp_path)
    (tmp_path / "node.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(ConfigError, match="move it away to begin with an empty one"):
        Disk.open(tmp_path)


def test_a_disk_whose_transaction_failed_is_of_no_more_use_until_reopened(tmp_path: Path) -> None:
    disk, outbox = open_outbox(tmp_path)
    disk.db.execute("PRAGMA max_page_count = 40")
    with pytest.raises(StoreDown, match="Free some space"):
        for _ in range(100):
            with disk.transaction():
                outbox.put("live", made_at=NOW, series=[series(200)])
    with pytest.raises(StoreDown, match="Free some space"), disk.transaction():
        pass
    disk.close()
    again, outbox = open_outbox(tmp_path)
    assert outbox.held["live"] > 3
    again.close()


async def test_jobs_that_wait_together_commit_together_and_a_failing_one_fails_its_group(tmp_path: Path) -> None:
    disk = Disk.open(tmp_path)
    await asyncio.gather(*(disk.write(lambda n=n: disk.keep(f"k{n}", b"v")) for n in range(200)))  # type: ignore[misc]
    assert disk.commits < 100
    with pytest.raises(ZeroDivisionError):
        await disk.write(lambda: 1 // 0)
    with pytest.raises(BrokenInvariant):
        await disk.write(lambda: None)
    disk.close()
    again = Disk.open(tmp_path)
    assert again.state("k199") == b"v" and again.state("nothing") is None
    again.close()


async def test_a_lone_job_does_not_wait_and_those_that_follow_share_a_commit(tmp_path: Path) -> None:
    disk = Disk.open(tmp_path, commit_s=2.0)

    async def soon(n: int, size: int = 10) -> float:
        begun = time.monotonic()
        await disk.write_soon(lambda: disk.keep(f"k{n}", b"v"), size=size)
        return time.monotonic() - begun

    assert await soon(0) < 1.5
    before = disk.commits
    waited = await asyncio.gather(*(soon(n) for n in range(1, 30)))
    assert disk.commits == before + 1 and min(waited) > 0.5
    late = asyncio.create_task(soon(30))
    await asyncio.sleep(0)
    begun = time.monotonic()
    await disk.write(lambda: disk.keep("now", b"v"))
    await late
    assert time.monotonic() - begun < 1.5 and disk.commits == before + 2, "what is urgent takes along what waits"
    assert await soon(31, size=ENOUGH) < 1.5, "much is written at once"
    waiting = asyncio.create_task(soon(32))
    await asyncio.sleep(0)
    assert await disk.read(lambda: disk.state("k31")) == b"v"
    assert not waiting.done() and await disk.read(lambda: disk.state("k32")) is None
    disk.close()
    await asyncio.sleep(0)
    again = Disk.open(tmp_path)
    assert again.state("k32") == b"v", "what waited is committed at a stop"
    again.close()


async def test_a_commit_without_changes_is_not_counted_and_a_failing_read_harms_nobody(tmp_path: Path) -> None:
    disk = Disk.open(tmp_path)
    before = disk.commits
    await disk.write(lambda: None)
    assert disk.commits == before
    with pytest.raises(ZeroDivisionError):
        await disk.read(lambda: 1 // 0)
    await disk.write(lambda: disk.keep("k", b"v"))
    assert disk.commits == before + 1
    disk.close()
