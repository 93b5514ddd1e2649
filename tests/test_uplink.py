"""The uplink: what the store has not confirmed goes out again, within bounds, and new data does not wait for old."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from conftest import eventually
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edge.disk import Disk
from edge.outbox import Outbox
from edge.uplink import Freshness, Uplink, Window, Windows
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.contracts import Batch, Evicted, LaneStored, Series, StoredThrough
from messages.routes import BATCH, STORED

NOW = 1_750_000_000_000_000
ME = {"site": "s1", "node": "press-4"}


def series(rows: int = 3) -> Series:
    return Series(
        device="ram", metric="power_kw", unit="kW", t0=NOW, at=list(range(rows)), value=[1.0] * rows, quality=192
    )


def put(disk: Disk, outbox: Outbox, lane: str, count: int, rows: int = 3) -> None:
    with disk.transaction():
        for _ in range(count):
            outbox.put(lane, made_at=NOW, series=[series(rows)])  # type: ignore[arg-type]


class Listener:
    """Hears batches and speaks for a store when told to."""

    def __init__(self, port: int) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="listener", backoff_s=(0.05, 0.2))
        self.bus.on(BATCH, self.on_batch, site="s1")
        self.heard: list[tuple[str, str, int]] = []
        self.batches: list[Batch] = []

    def evicted(self) -> list[Evicted]:
        return [one for batch in self.batches for one in batch.records if isinstance(one, Evicted)]

    async def on_batch(self, received: Received) -> None:
        batch: Batch = received.message
        self.batches.append(batch)
        self.heard.append((batch.epoch, batch.lane, batch.seq))

    async def say(self, epoch: str, lane: str, through: int) -> None:
        stored = StoredThrough.model_validate({"revision": 1, "epochs": {epoch: {lane: LaneStored(through=through)}}})
        await self.bus.publish(STORED, stored, **ME)  # type: ignore[arg-type]


class Rig:
    """An uplink on a real broker, in this process, with windows small enough to see."""

    def __init__(self, folder: Path, port: int, windows: Windows) -> None:
        self.disk = Disk.open(folder)
        self.outbox = Outbox.open(self.disk, budget_bytes=1 << 26)
        self.bus = Bus("127.0.0.1", port, client_id="edge", backoff_s=(0.05, 0.2))
        self.uplink = Uplink(
            self.disk, self.outbox, self.bus, site="s1", node="press-4", windows=windows, rng=random.Random(1)
        )
        self.bus.on(STORED, self.uplink.on_stored, site="s1", node="press-4")
        self.bus.on_connect(self.uplink.on_connect)
        self.listener = Listener(port)

    async def __aenter__(self) -> Rig:
        self.tasks = [asyncio.create_task(self.listener.bus.run())]
        await self.listener.bus.wait_connected(60)
        self.tasks += [asyncio.create_task(self.bus.run()), asyncio.create_task(self.uplink.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.disk.close()


async def test_no_more_is_out_than_the_window_and_what_is_stored_makes_room(tmp_path: Path, broker: Broker) -> None:
    rig = Rig(tmp_path / "edge", broker.port, Windows(batches=4, first_s=0.2, most_s=0.4))
    put(rig.disk, rig.outbox, "live", 10)
    epoch = rig.outbox.epoch
    async with rig:
        await eventually(lambda: rig.uplink.counts.resent >= 8, what="twice more, as the store is silent")
        assert {seq for _, _, seq in rig.listener.heard} == {0, 1, 2, 3}
        assert rig.bus.counts.reconnects == 0
        await rig.listener.say(epoch, "live", 1)
        await eventually(lambda: (epoch, "live", 5) in rig.listener.heard)
        assert (epoch, "live", 6) not in rig.listener.heard
        await rig.listener.say(epoch, "live", 9)
        await eventually(lambda: rig.outbox.held["live"] == 0)


async def test_after_a_reconnect_everything_out_goes_out_again_at_once(tmp_path: Path, broker: Broker) -> None:
    rig = Rig(tmp_path / "edge", broker.port, Windows(batches=4, first_s=600, most_s=600))
    put(rig.disk, rig.outbox, "record", 2)
    async with rig:
        await eventually(lambda: len(rig.listener.heard) == 2)
        broker.kill()
        broker.start()
        await rig.bus.wait_connected(60)
        # The listener may return later than the edge: what it misses is what a PUBACK does not promise.
        await eventually(lambda: rig.uplink.counts.resent == 2)


async def test_new_batches_do_not_wait_for_an_earlier_epoch_or_the_backlog(tmp_path: Path, broker: Broker) -> None:
    disk = Disk.open(tmp_path / "edge")
    earlier = Outbox.open(disk, budget_bytes=1 << 26)
    put(disk, earlier, "live", 50)
    put(disk, earlier, "backlog", 50)
    disk.close()
    rig = Rig(tmp_path / "edge", broker.port, Windows(batches=4, slow_batches=2, first_s=600, most_s=600))
    put(rig.disk, rig.outbox, "live", 1)
    put(rig.disk, rig.outbox, "alarm", 1)
    async with rig:
        await eventually(lambda: len(rig.listener.heard) == 6)
        epoch = rig.outbox.epoch
        assert rig.listener.heard == [
            (epoch, "alarm", 0),
            (epoch, "live", 0),
            (earlier.epoch, "live", 0),
            (earlier.epoch, "live", 1),
            (earlier.epoch, "backlog", 0),
            (earlier.epoch, "backlog", 1),
        ]
        for through in range(0, 50, 2):
            await rig.listener.say(earlier.epoch, "live", through + 1)
        await eventually(lambda: rig.outbox.held["live"] == 1)


async def test_what_was_evicted_is_told_before_the_batches_that_follow_it(tmp_path: Path, broker: Broker) -> None:
    rig = Rig(tmp_path / "edge", broker.port, Windows(slow_batches=4, first_s=600, most_s=600))
    with rig.disk.transaction():
        for n in range(400):
            rig.outbox.put("backlog", made_at=NOW + n * 10_000_000, series=[series()])
        rig.outbox.budget_bytes = rig.outbox.bytes // 3
        rig.outbox.put("backlog", made_at=NOW + 4_000_000_000, series=[series()])
    made, epoch = 401, rig.outbox.epoch
    held = rig.outbox.held["backlog"]
    assert held < 200 and rig.outbox.held["record"] == 0
    async with rig:
        settled, records, count = -1, -1, 0
        while any(rig.outbox.held.values()):
            before = count
            await eventually(lambda: len(rig.listener.heard) > before or not any(rig.outbox.held.values()))  # noqa: B023
            count = len(rig.listener.heard)
            for batch in rig.listener.batches[:count]:
                if batch.lane == "backlog":
                    settled = max(settled, batch.seq)
                else:
                    records = max(records, batch.seq)
            told = {seq for one in rig.listener.evicted() for low, high in one.ranges for seq in range(low, high + 1)}
            there = {seq for _, lane, seq in rig.listener.heard if lane == "backlog"}
            assert set(range(settled + 1)) <= told | there, "a store that hears them in this order sees no hole"
            await rig.listener.say(epoch, "backlog", settled)
            await rig.listener.say(epoch, "record", records)
        assert len(told) + len(there) == made and not told & there
        assert sum(one.readings for one in rig.listener.evicted()) == 3 * len(told)
        await eventually(lambda: rig.outbox.empty)


async def test_few_large_batches_are_out_at_once(tmp_path: Path, broker: Broker) -> None:
    rig = Rig(tmp_path / "edge", broker.port, Windows(batches=30, bytes=10_000, first_s=600, most_s=600))
    put(rig.disk, rig.outbox, "live", 10, rows=1_000)
    async with rig:
        await eventually(lambda: len(rig.listener.heard) == 2)
        await rig.listener.say(rig.outbox.epoch, "live", 1)
        await eventually(lambda: len(rig.listener.heard) == 4)


async def test_a_store_that_claims_another_disks_batches_is_logged_and_frees_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    rig = Rig(tmp_path / "edge", broker.port, Windows())
    put(rig.disk, rig.outbox, "live", 2)
    with capture_logs() as said:
        async with rig:
            await rig.bus.wait_connected(60)
            await rig.listener.say(rig.outbox.epoch, "live", 7)
            # The count rises in the disk's thread, the log line follows in the loop's.
            await eventually(lambda: any(one["event"] == "uplink.foreign_store" for one in said))
            assert rig.outbox.counts.foreign == 1
            assert rig.outbox.held["live"] == 2


async def test_a_batch_the_broker_finds_too_large_is_kept_and_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "broker", extra="max_packet_size 20000") as broker:
        rig = Rig(tmp_path / "edge", broker.port, Windows(first_s=0.1, most_s=0.2))
        put(rig.disk, rig.outbox, "live", 1, rows=4_000)
        put(rig.disk, rig.outbox, "live", 1)
        async with rig:
            await eventually(lambda: (rig.outbox.epoch, "live", 1) in rig.listener.heard)
            await eventually(lambda: rig.uplink.counts.resent >= 2)
            assert rig.outbox.held["live"] == 2


def test_patience_doubles_to_its_limit_and_any_progress_restores_it() -> None:
    window = Window(batches=4, bytes=1_000, patience_s=2.0, most_s=60.0, quiet_since=0.0)
    assert window.due_at() is None, "nothing is out"
    waits, now = [], 0.0
    for _ in range(8):
        window.sent(0, 10, now)
        window.sent(1, 10, now)
        due = window.due_at()
        assert due is not None
        waits.append(due - now)
        now = due
        window.begin_anew(now, 1.0)
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    window.sent(0, 10, now)
    window.sent(1, 10, now)
    assert not window.keep_only({0, 1}, now, 2.0)
    assert window.keep_only({1}, now + 5, 2.0)
    assert window.due_at() == now + 5 + 2.0
    window.unacknowledged = 1
    assert window.due_at() is None, "a slow link is not a silent store"


@given(sizes=st.lists(st.integers(1, 500), max_size=40))
def test_a_window_never_holds_more_than_its_bounds_and_one_large_batch_always_fits(sizes: list[int]) -> None:
    window = Window(batches=8, bytes=300, patience_s=1.0, most_s=1.0)
    for seq, size in enumerate(sizes):
        if window.room() <= 0:
            assert window.out
            window.keep_only(set(list(window.out)[1:]), 0.0, 1.0)
            continue
        window.sent(seq, size, 0.0)
        assert len(window.out) <= 8
        assert len(window.out) == 1 or sum(window.out.values()) - size < 300


def _fill(window: Window, seq: int, now: float) -> int:
    while window.room() > 0:
        window.sent(seq, 100_000, now)
        seq += 1
    return seq


def test_a_window_widens_while_the_store_is_quick_and_narrows_when_what_is_out_waits() -> None:
    window = Window(batches=10_000, bytes=8 << 20, patience_s=2.0, most_s=60.0)
    seq, now, widths = 0, 0.0, []
    for waits_s in (0.2, 0.2, 0.2, 0.2, 1.5, 3.0, 3.0, 3.0, 3.0, 0.2):
        seq = _fill(window, seq, now)
        widths.append(window.allowed >> 20)
        now += waits_s
        assert window.keep_only(set(), now, 2.0)
    assert widths == [1, 2, 4, 8, 8, 8, 4, 2, 1, 1]  # between quick and slow it stays; never below where it began


def test_a_window_that_was_not_full_does_not_widen() -> None:
    window = Window(batches=100, bytes=8 << 20, patience_s=2.0, most_s=60.0)
    assert window.room() > 0
    window.sent(0, 10, 0.0)
    window.keep_only(set(), 0.01, 2.0)
    assert window.allowed == 1 << 20


def test_readings_become_backlog_when_live_ones_are_unconfirmed_too_long_and_live_again_after() -> None:
    freshness = Freshness(30.0)
    for second in range(31):
        assert not freshness.behind(0, float(second))
        freshness.sealed(second, float(second))
    assert freshness.behind(0, 31.0)
    assert freshness.behind(0, 500.0), "nothing was confirmed"
    assert not freshness.behind(25, 40.0), "what is out is younger than that"
    assert freshness.behind(25, 60.0)
    assert not freshness.behind(None, 60.0), "all of it is stored"
    assert len(freshness._sealed) == 0
