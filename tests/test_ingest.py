"""Nothing a node handed over is lost or stored twice, whatever breaks; and bad bytes stop nobody."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import beside, eventually
from paho.mqtt.client import MQTTv5
from paho.mqtt.publish import single

from cloud import ingest as ingest_module
from cloud.ingest import STATUS, Ingest
from cloud.ledger import LaneKey, Ledger
from cloud.service import run
from cloud.settings import CloudSettings
from cloud.stores import SqliteStore
from cloud.stores.sqlite import SqliteConnection
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.connect import BrokerSettings
from messages.contracts import Batch, Evicted, LaneStored, PartIdentified, Record, Series, StoredThrough
from messages.errors import BusLost, StoreDown
from messages.message import MAX_BYTES
from messages.route import Route
from messages.routes import BATCH, STORED

T0 = 1_700_000_000_000_000
SECOND = 1_000_000
EPOCH = "0123456789abcdef"


def batch(seq: int, *, floor: int = 0, lane: Any = "live", epoch: str = EPOCH, rows: int = 4, **more: Any) -> Batch:
    one = Series(
        device="kiln-1", metric="power_kw", unit="kW", t0=T0 + seq * 100 * SECOND,
        at=[k * SECOND for k in range(rows)], value=[float(seq)] * rows, quality=192,
    )  # fmt: skip
    return Batch(epoch=epoch, lane=lane, seq=seq, floor=floor, made_at=T0, series=[one], **more)


def received(message: Batch, node: str = "firing", lane: str | None = None) -> Received:
    ids = {"site": "ceramic", "node": node, "lane": lane or message.lane}
    return Received(BATCH.topic(**ids), ids, message, message.encode())


@contextmanager
def opened(path: Path) -> Iterator[tuple[SqliteConnection, Ledger, Ingest]]:
    with SqliteStore(path=path).open() as store:
        ledger = Ledger(store.connection, wall_us=1, path=path)
        yield store, ledger, Ingest(store, ledger, now=lambda: T0)


def lane_of(ledger: Ledger, lane: str = "live", epoch: str = EPOCH) -> tuple[int, tuple[tuple[int, int], ...]]:
    found = ledger.lane(LaneKey("ceramic", "firing", epoch, lane))
    return found.through, found.ranges


# --- the core, without a bus --------------------------------------------------------------------------


def test_repeats_within_and_across_lists_are_stored_once_and_counted(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as (store, ledger, ingest):
        ingest.take([received(batch(n)) for n in (0, 2, 0, 1)])
        ingest.take([received(batch(n)) for n in (2, 3)])
        assert store.count_rows() == store.distinct_rows() == 16
        assert lane_of(ledger) == (3, ())
        assert (ingest.counts.batches, ingest.counts.repeats, ingest.counts.readings) == (4, 2, 16)
    with opened(tmp_path / "s.db") as (store, _, ingest):  # the counters are as durable as what they count
        assert (ingest.counts.batches, ingest.counts.repeats, ingest.counts.last_at) == (4, 2, T0)
        assert json.loads(store.kept(STATUS) or "")["readings"] == 16


def test_equal_numbers_of_another_epoch_are_other_batches(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as (store, ledger, ingest):
        other = batch(7, epoch="feedfeedfeedfeed").model_copy(update={"seq": 0})
        ingest.take([received(batch(0)), received(other)])
        assert store.count_rows() == 8
        assert lane_of(ledger) == lane_of(ledger, epoch="feedfeedfeedfeed") == (0, ())


def test_a_fork_is_kept_and_reported_and_overwrites_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as (store, _, ingest):
        mine, theirs = batch(0), batch(0, rows=2)
        ingest.take([received(mine)])
        ingest.take([received(theirs), received(theirs)])
        assert (store.count_rows(), ingest.counts.forks) == (4, 2)
        assert {(one.kind, one.payload) for one in store.quarantined()} == {("fork", theirs.encode())}
        ingest.take([received(batch(1)), received(batch(1, rows=1))])  # and within one list
        assert (store.count_rows(), ingest.counts.forks) == (8, 3)


def test_an_evicted_hole_does_not_block_and_a_late_batch_from_it_is_still_stored_once(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as (store, ledger, ingest):
        gone = Evicted(at=T0, epoch=EPOCH, lane="live", ranges=[(1, 4)], readings=16)
        ingest.take([received(batch(0)), received(batch(5)), received(batch(0, lane="record", records=[gone]))])
        assert lane_of(ledger) == (5, ())
        before = store.count_rows()
        for _ in range(2):
            ingest.take([received(batch(3))])  # was under way when it was evicted
        assert store.count_rows() == store.distinct_rows() + 4 == before + 4  # the record batch shares seq 0's times


@pytest.mark.parametrize("where", ["append", "quarantine", "write", "keep", "commit"])
def test_a_crash_at_any_point_of_the_commit_means_again_and_again_means_once(tmp_path: Path, where: str) -> None:
    """The exception stands for the power cut: whatever was not committed is gone, and the messages come again."""
    messages = [received(batch(0)), received(batch(1)), received(batch(1), lane="alarm")]
    with opened(tmp_path / "s.db") as (store, ledger, ingest):
        broken: Any = {"write": ledger, "commit": None}.get(where, store)

        def crash(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        if broken is None:
            store.connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
            store.connection.execute(
                "CREATE TABLE child (p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
            )
            store.connection.execute("PRAGMA foreign_keys = ON")
            store.connection.execute(
                "CREATE TEMP TRIGGER fail AFTER INSERT ON batch BEGIN INSERT INTO child VALUES (9); END"
            )
            with pytest.raises(Exception, match="FOREIGN KEY"):
                ingest.take(messages)
        else:
            original = getattr(broken, where)
            setattr(broken, where, crash)
            with pytest.raises(KeyboardInterrupt):
                ingest.take(messages)
            setattr(broken, where, original)
        assert (store.count_rows(), lane_of(ledger), ingest.counts.batches) == (0, (-1, ()), 0)
    with opened(tmp_path / "s.db") as (store, ledger, ingest):
        if broken is None:
            store.connection.execute("DROP TABLE child")
        ingest.take(messages)
        assert (store.count_rows(), store.distinct_rows(), lane_of(ledger)) == (8, 8, (1, ()))
        assert (ingest.counts.batches, ingest.counts.bad_messages, ingest.counts.repeats) == (2, 1, 0)


def test_a_crash_between_store_and_a_ledger_of_its_own_file_loses_and_doubles_nothing(tmp_path: Path) -> None:
    import sqlite3

    def ledger_file() -> Ledger:
        path = tmp_path / "ledger.db"
        return Ledger(sqlite3.connect(path, isolation_level=None), wall_us=1, path=path)

    class Apart(SqliteConnection):
        """A store without transactions, as seen by the ledger: each call is a commit of its own."""

        @contextmanager
        def atomic(self) -> Iterator[None]:
            if sys._getframe(2).f_code.co_name == "_commit":
                yield
            else:
                with super().atomic():
                    yield

    with Apart(SqliteStore(path=tmp_path / "s.db"), read_only=False) as store:
        ledger = ledger_file()
        ingest = Ingest(store, ledger, now=lambda: T0)
        ledger.write = lambda changes: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            ingest.take([received(batch(0)), received(batch(1))])
        assert store.count_rows() == 8  # the store has it, the ledger does not know
        ledger = ledger_file()
        ingest = Ingest(store, ledger, now=lambda: T0)
        ingest.take([received(batch(n)) for n in (1, 0, 2)])
        assert store.count_rows() == store.distinct_rows() == 12
        assert lane_of(ledger) == (2, ())
        assert ingest.counts.repeats == 2


def test_a_lost_ledger_is_rebuilt_from_the_floor_and_the_store_keeps_the_rows_single(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as (store, _, ingest):
        ingest.take([received(batch(n)) for n in range(10)])
        for table in ("ledger_lane", "ledger_digest", "ledger_revision"):
            store.connection.execute(f"DROP TABLE {table}")
    with opened(tmp_path / "s.db") as (store, ledger, ingest):
        ingest.take([received(batch(n, floor=6)) for n in (8, 9, 10)])
        assert lane_of(ledger) == (5, ((8, 10),))
        assert store.count_rows() == store.distinct_rows() == 44
        ingest.take([received(batch(n, floor=6)) for n in (6, 7)])
        assert lane_of(ledger) == (10, ())


def test_random_loss_repetition_and_restarts_end_with_every_row_once(tmp_path: Path) -> None:
    rng = random.Random(7)
    waiting = {n: batch(n) for n in range(60)}
    sent_ever: set[int] = set()
    while waiting:
        with opened(tmp_path / "s.db") as (store, ledger, ingest):
            for _ in range(rng.randint(1, 4)):
                some = rng.sample(sorted(waiting), min(len(waiting), rng.randint(1, 8)))
                old = rng.sample(sorted(sent_ever), min(len(sent_ever), 2))
                ingest.take([received(batch(n)) for n in some + old])
                sent_ever.update(some)
                if rng.random() < 0.7:  # else StoredThrough is lost
                    (told,) = ledger.documents("ceramic", "firing")
                    lane = told.epochs[EPOCH]["live"]
                    for n in list(waiting):
                        if n <= lane.through or any(low <= n <= high for low, high in lane.ranges):
                            del waiting[n]
                if not waiting:
                    break
            assert store.count_rows() == store.distinct_rows() == 4 * len(sent_ever)
    assert sent_ever == set(range(60))


def test_readers_are_woken_with_the_new_records_and_not_for_repeats(tmp_path: Path) -> None:
    woken: list[list[Record]] = []
    with SqliteStore(path=tmp_path / "s.db").open() as store:
        ledger = Ledger(store.connection, wall_us=1, path=tmp_path / "s.db")
        ingest = Ingest(store, ledger, now=lambda: T0, on_stored=lambda records: woken.append(list(records)))
        part = PartIdentified(at=T0, machine="kiln-1", job="b07")
        for _ in range(2):
            ingest.take([received(batch(0, lane="record", records=[part]))])
    assert woken == [[part]]


async def test_a_store_that_is_down_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "RETRY_S", (0.01, 0.02))
    with opened(tmp_path / "s.db") as (store, _, ingest):
        append, tries = store.append, 0

        def sometimes(batches: Any, pushed: Any = None) -> Any:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise StoreDown("disk full")
            return append(batches, pushed)

        store.append = sometimes  # type: ignore[method-assign]
        await ingest.on_batches([received(batch(0))])
        assert (tries, store.count_rows()) == (4, 4)


# --- with a broker ------------------------------------------------------------------------------------


class Node:
    """An edge as ingest sees it: keeps every batch until StoredThrough names it, and sends it again meanwhile."""

    def __init__(self, broker: Broker, name: str = "firing") -> None:
        self.name = name
        self.bus = Bus("127.0.0.1", broker.port, client_id=f"edge-{name}", backoff_s=(0.02, 0.1))
        self.bus.on(STORED, self._on_stored, site="ceramic", node=name)
        self.documents: list[StoredThrough] = []
        self.waiting: dict[int, bytes] = {}

    async def _on_stored(self, one: Received) -> None:
        document: StoredThrough = one.message
        if self.documents and document.revision <= self.documents[-1].revision:
            return
        self.documents.append(document)
        lane = document.epochs.get(EPOCH, {}).get("live", LaneStored(through=-1))
        for seq in list(self.waiting):
            if seq <= lane.through or any(low <= seq <= high for low, high in lane.ranges):
                del self.waiting[seq]

    async def send(self, payload: bytes, lane: str = "live") -> None:
        await self.bus.wait_connected(60)
        await self.bus.publish(BATCH, payload=payload, site="ceramic", node=self.name, lane=lane)

    async def hand_over(self, batches: dict[int, bytes]) -> None:
        """Until everything is stored, sending again what is not."""
        self.waiting.update(batches)
        while self.waiting:
            try:
                await self.bus.wait_connected(60)
                for payload in list(self.waiting.values()):
                    self.bus.publish_nowait(BATCH, payload=payload, site="ceramic", node=self.name, lane="live")
            except BusLost:
                await asyncio.sleep(0.02)
                continue
            for _ in range(50):
                await asyncio.sleep(0.01)
                if not self.waiting:
                    return


def cloud(broker: Broker, tmp_path: Path) -> CloudSettings:
    return CloudSettings(sites=("ceramic",), broker=BrokerSettings(port=broker.port), data=tmp_path / "cloud")


def reader(settings: CloudSettings) -> SqliteConnection:
    return settings.store_file.open(read_only=True)


async def test_a_node_is_told_what_is_stored_and_told_again_when_it_asks_again(broker: Broker, tmp_path: Path) -> None:
    node, settings = Node(broker), cloud(broker, tmp_path)
    async with beside(node.bus.run(), run(settings)):
        await node.hand_over({0: batch(0).encode()})
        first = node.documents[-1]
        assert first.epochs == {EPOCH: {"live": LaneStored(through=0)}}
        await node.send(batch(0).encode())  # as if it had not heard
        await eventually(lambda: node.documents[-1].revision > first.revision)
        assert node.documents[-1].epochs == first.epochs
    with reader(settings) as store:
        assert store.count_rows() == 4


async def test_a_restarted_ingest_says_everything_again_with_a_higher_revision(broker: Broker, tmp_path: Path) -> None:
    node, settings = Node(broker), cloud(broker, tmp_path)
    async with beside(node.bus.run()):
        async with beside(run(settings)):
            await node.hand_over({0: batch(0).encode()})
        said = node.documents[-1]
        async with beside(run(settings)):
            await eventually(lambda: node.documents[-1].revision > said.revision)
        assert node.documents[-1].epochs == said.epochs


async def test_a_broker_that_forgot_what_it_retained_is_told_again(tmp_path: Path) -> None:
    with Broker(directory=tmp_path / "broker", persistence=False) as broker:
        node, settings = Node(broker), cloud(broker, tmp_path)
        async with beside(run(settings)):
            async with beside(node.bus.run()):
                await node.hand_over({0: batch(0).encode()})
            broker.kill()
            broker.start()
            later = Node(broker, "firing")
            async with beside(later.bus.run()):
                await eventually(lambda: later.documents)
                assert later.documents[-1].epochs == {EPOCH: {"live": LaneStored(through=0)}}


async def test_many_batches_make_few_documents_and_the_last_one_is_the_newest(broker: Broker, tmp_path: Path) -> None:
    node, settings = Node(broker), cloud(broker, tmp_path)
    async with beside(node.bus.run(), run(settings)):
        await node.hand_over({0: batch(0).encode()})
        began = asyncio.get_running_loop().time()
        node.documents.clear()
        for n in range(1, 300):
            await node.send(batch(n).encode())
        await eventually(lambda: node.documents and node.documents[-1].epochs[EPOCH]["live"].through == 299)
        took_s = asyncio.get_running_loop().time() - began
        assert len(node.documents) <= took_s / ingest_module.ANNOUNCE_S + 2


BAD: dict[str, Callable[[], bytes]] = {
    "not json": lambda: b"hello",
    "half": lambda: batch(0).encode()[:-20],
    "empty": lambda: b"",
    "not utf-8": lambda: b'{"epoch": "\xff\xfe"}',
    "a list": lambda: b"[1, 2, 3]",
    "deep": lambda: b"[" * 200_000,
    "wrong types": lambda: b'{"epoch": 5, "lane": [], "seq": "x", "floor": null, "made_at": {}}',
    "negative seq": lambda: batch(0).encode().replace(b'"seq":0', b'"seq":-1'),
    "seq beyond 2^53": lambda: batch(0).encode().replace(b'"seq":0', b'"seq":%d' % 2**60),
    "wildcard epoch": lambda: batch(0).encode().replace(EPOCH.encode(), b"+/#"),
}
NUMBERED: dict[str, Callable[[int], bytes]] = {
    "nan": lambda n: batch(n, rows=1).encode().replace(b'"value":[%.1f]' % n, b'"value":[NaN]'),
    "infinite": lambda n: batch(n, rows=1).encode().replace(b'"value":[%.1f]' % n, b'"value":[1e999]'),
    "wildcard device": lambda n: batch(n).encode().replace(b"kiln-1", b"kiln/+/#"),
    "metric with a space": lambda n: batch(n).encode().replace(b"power_kw", b"power kw"),
    "times that go back": lambda n: batch(n, rows=2).encode().replace(b'"at":[0,1000000]', b'"at":[5,1]'),
    "columns of unequal length": lambda n: batch(n, rows=2).encode().replace(b'"at":[0,1000000]', b'"at":[0]'),
}


async def test_bad_bytes_are_quarantined_with_their_reason_and_nothing_dies(broker: Broker, tmp_path: Path) -> None:
    node, settings = Node(broker), cloud(broker, tmp_path)
    odd = Route("odd", "up/batch/{lane}", Batch, qos=1)
    async with beside(node.bus.run(), run(settings)):
        await node.hand_over({0: batch(0).encode()})
        for make in BAD.values():
            await node.send(make())
        for size in (MAX_BYTES + 1, 6 * 2**20):  # larger than our own bus would send; the last is never delivered
            huge = batch(0).encode()[:-1] + b" " * size + b"}"
            where = {"hostname": "127.0.0.1", "port": broker.port, "protocol": MQTTv5}
            topic = BATCH.topic(site="ceramic", node="firing", lane="live")
            await asyncio.to_thread(single, topic, huge, 1, **where)
        await node.send(batch(0).encode(), lane="alarm")  # a lane that contradicts the topic
        await node.send(batch(0).encode(), lane="no-such-lane")
        await node.bus.publish(odd, payload=b"", site="ceramic", node="firing", lane="live")
        await node.hand_over({1: batch(1).encode()})
    with reader(settings) as store:
        kept = store.quarantined(limit=100)
        assert len(kept) == len(BAD) + 4
        assert all(one.kind == "message" and one.reason and one.topic.startswith("shoal/v1/ceramic/") for one in kept)
        assert max(one.size for one in kept) <= 64 * 1024  # the huge ones are cut
        assert (store.count_rows(), json.loads(store.kept(STATUS) or "")["bad_messages"]) == (8, len(BAD) + 4)


async def test_a_broken_batch_with_a_number_is_quarantined_whole_and_frees_its_place(
    broker: Broker, tmp_path: Path
) -> None:
    """A node that sends what we cannot read would else send it for ever, and its lane would stand."""
    node, settings = Node(broker), cloud(broker, tmp_path)
    payloads = {n: make(n) for n, make in enumerate(NUMBERED.values())}
    last = len(payloads)
    payloads[last] = batch(last).encode()
    async with beside(node.bus.run(), run(settings)):
        await asyncio.wait_for(node.hand_over(dict(payloads)), 60)
        for payload in payloads.values():
            await node.send(payload)  # again: neither stored nor quarantined twice
        await node.send(batch(last + 1).encode())
        await eventually(lambda: node.documents[-1].epochs[EPOCH]["live"].through == last + 1)
    with reader(settings) as store:
        kept = store.quarantined(limit=100)
        assert {one.payload for one in kept} == {payloads[n] for n in range(last)}
        assert len(kept) == last
        assert store.count_rows() == store.distinct_rows() == 8


async def test_the_broker_is_killed_with_batches_in_flight_and_all_are_stored_once(
    broker: Broker, tmp_path: Path
) -> None:
    node, settings = Node(broker), cloud(broker, tmp_path)
    async with beside(node.bus.run(), run(settings)):
        handing = asyncio.create_task(node.hand_over({n: batch(n).encode() for n in range(400)}))
        await eventually(lambda: node.documents)
        broker.kill()
        broker.start()
        await asyncio.wait_for(handing, 60)
    with reader(settings) as store:
        assert store.count_rows() == store.distinct_rows() == 1600


async def test_ingest_is_killed_with_batches_in_flight_and_all_are_stored_once(broker: Broker, tmp_path: Path) -> None:
    node, settings = Node(broker), cloud(broker, tmp_path)
    program = (
        "import asyncio, sys\n"
        "from cloud.service import run\n"
        "from cloud.settings import CloudSettings\n"
        "asyncio.run(run(CloudSettings.model_validate_json(sys.argv[1])))\n"
    )

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, settings.model_dump_json(), cwd=Path(__file__).parents[1],
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    process = await start()
    try:
        async with beside(node.bus.run()):
            for kill in range(3):
                handing = asyncio.create_task(
                    node.hand_over({n: batch(n, rows=50).encode() for n in range(300 * kill, 300 * kill + 300)})
                )
                seen = len(node.documents)
                if kill < 2:
                    await eventually(lambda seen=seen: len(node.documents) > seen)  # type: ignore[misc]
                    last = 900 + kill  # however fast it is: this one is on its way
                    node.waiting[last] = batch(last, rows=50).encode()
                    node.bus.publish_nowait(
                        BATCH, payload=node.waiting[last], site="ceramic", node=node.name, lane="live"
                    )
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
                    process = await start()
                await asyncio.wait_for(handing, 60)
    finally:
        process.kill()
        await process.wait()
    with reader(settings) as store:
        assert store.count_rows() == store.distinct_rows() == 902 * 50
        assert json.loads(store.kept(STATUS) or "")["readings"] == 902 * 50


async def test_two_partitions_share_the_nodes_and_neither_takes_the_others(broker: Broker, tmp_path: Path) -> None:
    firing, glazing = Node(broker, "firing"), Node(broker, "glazing")
    parts = [
        CloudSettings(
            sites=("ceramic",),
            broker=BrokerSettings(port=broker.port),
            data=tmp_path / name,
            partition=n,
            nodes=(name,),
        )
        for n, name in enumerate(("firing", "glazing"))
    ]
    async with beside(firing.bus.run(), glazing.bus.run(), *(run(part) for part in parts)):
        await asyncio.gather(*(node.hand_over({n: batch(n).encode() for n in range(3)}) for node in (firing, glazing)))
    for part in parts:
        with reader(part) as store:
            assert [(info.node, len(times)) for info, times in store.times()] == [(part.nodes[0], 12)]
