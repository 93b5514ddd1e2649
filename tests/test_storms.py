"""Outbox and ledger together in bad times: restarts without end, long outages, a ledger that is lost half-way."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cloud.ledger import EPOCHS, LaneKey, Ledger, Settled, Stored
from cloud.stores import BatchKey
from edge.disk import Disk
from edge.outbox import LANES, Outbox
from messages.contracts import Batch, Evicted, Lane, Series

NOW = 1_750_000_000_000_000
SLOT = 10_000_000
ME = ("s1", "press-4")


def series(at: int) -> Series:
    return Series(device="kiln-1", metric="power_kw", unit="kW", t0=at, at=[0], value=[1.0], quality=192)


class Cloud:
    """A store and the real ledger."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, int], Batch] = {}
        self.lose_ledger()

    def lose_ledger(self) -> None:
        self.ledger = Ledger(sqlite3.connect(":memory:", isolation_level=None), wall_us=1, path=Path("ledger"))

    def take(self, payload: bytes) -> str:
        batch = Batch.decode(payload)
        key = BatchKey(*ME, batch.epoch, batch.lane, batch.seq)
        digest = hashlib.sha256(payload).digest()[:16]
        if self.ledger.judge(key, digest) == "new":
            self.stored[batch.epoch, batch.lane, batch.seq] = batch
            settled = [
                Settled(LaneKey(*ME, one.epoch, one.lane), low, high)
                for one in batch.records
                if isinstance(one, Evicted)
                for low, high in one.ranges
            ]
            changes = self.ledger.changes([Stored(key, batch.floor, digest)], settled)
            self.ledger.write(changes)
            self.ledger.apply(changes)
        return batch.epoch

    def readings(self) -> int:
        evicted = (one for batch in self.stored.values() for one in batch.records if isinstance(one, Evicted))
        return sum(batch.readings for batch in self.stored.values()) + sum(one.readings for one in evicted)


def hand_over(outbox: Outbox, cloud: Cloud, *, window: int, rng: random.Random, lose_ledger_at: int = -1) -> int:
    """As the uplink does, one window of every stream at a time; how many rounds it took."""
    rounds, idle = 0, 0
    while not outbox.empty:
        if rounds == lose_ledger_at:
            cloud.lose_ledger()
        rounds += 1
        before = sum(outbox.held.values())
        reach: dict[tuple[str, Lane], int] = {}
        for lane in LANES:
            for epoch in (outbox.epoch, outbox.oldest_epoch(lane)):
                if epoch is not None:
                    out = outbox.pending(lane, epoch, limit=window)
                    reach[epoch, lane] = out[-1].seq if out else -1
        with outbox.disk.transaction():
            for (epoch, lane), seq in reach.items():
                outbox.mark_out(epoch, lane, seq)
            outbox.tell(reach)
            outbox.note_out()
        batches = [
            held
            for (epoch, lane), seq in sorted(reach.items(), key=lambda one: LANES.index(one[0][1]))
            for held in outbox.pending(lane, epoch, limit=window)
            if held.seq <= max(seq, 0) or lane == "record"
        ]
        heard = {cloud.take(held.payload) for held in batches if rng.random() < 0.9}  # a broker may lose some
        with outbox.disk.transaction():
            for document in cloud.ledger.documents(*ME, heard):
                outbox.free(document)
        idle = idle + 1 if sum(outbox.held.values()) >= before else 0
        assert idle < 20, "it is stuck"
    return rounds


@pytest.mark.parametrize("lose_ledger_at", [-1, 7])
@pytest.mark.parametrize("lane", ["live", "backlog"])
def test_a_history_thinned_into_hundreds_of_holes_is_handed_over(
    tmp_path: Path, lane: Lane, lose_ledger_at: int
) -> None:
    disk = Disk.open(tmp_path)
    outbox = Outbox.open(disk, budget_bytes=120_000)
    for n in range(0, 5_000, 50):
        with disk.transaction():
            for at in range(n, n + 50):
                outbox.put(lane, made_at=NOW + at * SLOT, series=[series(NOW + at * SLOT)])
    holes = disk.db.execute("SELECT COUNT(*) FROM evicted").fetchone()[0]
    assert holes > 100
    disk.close()
    disk = Disk.open(tmp_path)  # it is an earlier epoch, so no newer batch tells its floor
    outbox = Outbox.open(disk, budget_bytes=120_000)
    cloud = Cloud()
    hand_over(outbox, cloud, window=8, rng=random.Random(1), lose_ledger_at=lose_ledger_at)
    assert cloud.readings() == 5_000
    disk.close()


@pytest.mark.parametrize("budget", [40_000, 1 << 24])
def test_more_restarts_than_a_ledger_remembers_epochs_lose_nothing(tmp_path: Path, budget: int) -> None:
    rng = random.Random(2)
    made = 0
    for start in range(2 * EPOCHS):
        disk = Disk.open(tmp_path)
        outbox = Outbox.open(disk, budget_bytes=budget)
        with disk.transaction():
            for n in range(rng.randint(0, 6)):
                at = NOW + (start * 10 + n) * SLOT
                outbox.put(rng.choice(("live", "backlog", "record")), made_at=at, series=[series(at)])
                made += 1
        disk.close()
    disk = Disk.open(tmp_path)
    outbox = Outbox.open(disk, budget_bytes=budget)
    assert len(disk.state("out") or b"") < 100_000
    cloud = Cloud()
    hand_over(outbox, cloud, window=8, rng=rng)
    assert cloud.readings() == made
    disk.close()
    disk = Disk.open(tmp_path)
    Outbox.open(disk, budget_bytes=budget)
    assert disk.db.execute("SELECT COUNT(*) FROM epochs").fetchone() == (1,), "what is empty is forgotten"
    disk.close()


def test_memory_does_not_grow_with_what_is_held_or_evicted(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from edge.disk import Disk
from edge.outbox import Outbox
from messages.contracts import Series
disk = Disk.open(Path(sys.argv[1]))
outbox = Outbox.open(disk, budget_bytes=int(sys.argv[2]))
one = Series(device="d", metric="m", unit="kW", t0=1, at=[0], value=[1.0], quality=192)
def put(batches, first):
    with disk.transaction():
        for n in range(first, first + batches):
            outbox.put("backlog", made_at=n * 1_000_000, series=[one])
put(2_000, 0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for first in range(2_000, 26_000, 2_000):
    put(2_000, first)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, outbox.counts.evicted)
"""
    for budget, evicts in ((300_000, True), (1 << 30, False)):
        folder = tmp_path / str(budget)
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(budget)],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        grown_kb, evicted = map(int, done.stdout.split())
        assert (evicted > 20_000) is evicts
        assert grown_kb < 8_000
