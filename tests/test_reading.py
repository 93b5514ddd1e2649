"""A judge's place in its records: what was read again counts once, and nothing of a job in the book is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import cloud.reading
import messages.inventory
from cloud.reading import Reading
from cloud.stores import BatchKey, SqliteStore, Store, StoredBatch
from cloud.swarmbook import SwarmBook
from cloud.wanted import MISSING_S, Wanted
from messages.clock import SECOND
from messages.contracts import Batch, Finished, Order, OrderedJob, Record
from messages.dispatch.agent import Dispatcher
from messages.dispatch.judge import ByRule
from messages.dispatch.task import Send
from messages.dispatch.tenders import Tenders
from messages.dispatch.workpieces import Workpieces
from messages.inventory import Balance
from messages.negotiation import Agenda, Authority
from messages.plant import Plant, load_plant

T0 = 1_767_225_600_000_000
HOUR = 3_600 * SECOND
PLANT = load_plant(Path(__file__).parent.parent / "firmware_sim" / "plants" / "remanufacturing.toml")


class Judge:
    """One term: what it read, and what is in stock by that."""

    def __init__(self, store: Store, disk: SwarmBook, plant: Plant = PLANT) -> None:
        machines = {machine: plant.node_of(machine) for machine in plant.machines}
        book = Tenders(Authority(1, "00000000"), site=plant.site, judge="cloud", machines=machines, tasks=disk.tasks())
        self.agent = Dispatcher(plant, book, ByRule(kind="fifo"), T0)
        self.heard: list[Record] = []
        self.pieces = Workpieces()
        self.reading = Reading(store, disk, plant.site, self.agent, self._take)
        self.reading.begin()

    def order(self, *jobs: str) -> None:
        self.agent.add([OrderedJob(job=job, product=job.rpartition("-")[0]) for job in jobs])
        self.reading.add(jobs)

    def read(self) -> Balance:
        more = True
        while more:
            _, more = self.reading.some()
        return self.balance

    @property
    def balance(self) -> Balance:
        assert self.agent.components is not None
        return self.agent.components.inventory.balance()

    def _take(self, record: Record, new: bool) -> list[Send]:
        self.heard.append(record)
        self.pieces.on_record(record)
        return self.agent.on_record(record) if new else self.agent.book.on_record(record)


class Records:
    """A store that batches come to."""

    def __init__(self, store: Store) -> None:
        self.store, self.seq = store, 0

    def finished(self, job: str, op: int = 0, **recovered: int) -> None:
        record = Finished(at=T0 + 2, machine="cell-1", job=job, op=op, started_at=T0 + 1, recovered=recovered or None)
        batch = Batch(epoch="0" * 16, lane="record", seq=self.seq, floor=0, made_at=T0, records=[record])
        key = BatchKey(PLANT.site, "disassembly", "0" * 16, "record", self.seq)
        self.seq += 1
        self.store.append([StoredBatch(key, batch)])


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with SqliteStore(path=tmp_path / "store.db").open() as store:
        yield Records(store)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SwarmBook]:
    with closing(SwarmBook(tmp_path / "judge.db")) as book:
        yield book


def test_components_that_were_counted_are_not_counted_again_however_many_jobs_ended_since(
    records: Records, disk: SwarmBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages.inventory, "REMEMBERED", 2)
    monkeypatch.setattr(cloud.reading, "READ_AT_ONCE", 3)
    judge = Judge(records.store, disk)
    judge.order("alternator-1")  # stays open all the time: everything after it is read again
    for number in range(1, 8):
        records.finished(f"strip-alternator~{number}", **{"worn-rotor": 1, "housing": 1, "bearing": 2})
    before = judge.read()
    assert before.consumed["alternator-core"] == 7
    judge.reading.keep()
    records.finished("strip-alternator~8", **{"worn-rotor": 1, "housing": 0, "bearing": 1})

    again = Judge(records.store, disk)
    again.order("alternator-1")
    after = again.read()
    assert len(again.heard) == 8, "its history is read again"
    assert after.consumed["alternator-core"] == 8
    assert after.recovered == {"worn-rotor": 8, "housing": 7, "bearing": 15}


def test_what_was_read_after_the_stock_was_kept_is_not_lost_to_it(records: Records, disk: SwarmBook) -> None:
    judge = Judge(records.store, disk)
    judge.order("alternator-1")
    judge.reading.keep()
    records.finished("strip-alternator~1", bearing=2)
    before = judge.read()
    assert Judge(records.store, disk).read() == before  # it crashed without another word
    assert disk.state().cursor == 0


def test_a_job_of_the_plant_s_own_that_others_began_is_read_of_again_when_it_is_in_the_book(
    records: Records, disk: SwarmBook
) -> None:
    judge = Judge(records.store, disk)
    for number in range(3):
        records.finished(f"unknown-{number}")
    records.finished("refurbish-rotor~1")  # of two operations: it is under way
    judge.read()
    judge.reading.keep()
    assert disk.state().cursor == 3, "whoever begins again hears of it"
    heard = len(judge.heard)
    judge.agent.add([OrderedJob(job="refurbish-rotor~1", product="refurbish-rotor")])
    before = judge.balance
    assert judge.reading.again_of(["refurbish-rotor~1"])
    assert judge.read() == before
    assert len(judge.heard) == heard + 1
    assert not judge.reading.again_of(["strip-starter~1"]), "of one begun now nothing was read"


def test_a_job_with_a_past_is_read_of_from_the_first_record_on(records: Records, disk: SwarmBook) -> None:
    for number in range(3):
        records.finished(f"unknown-{number}")
    judge = Judge(records.store, disk)
    judge.read()
    judge.order("starter-1")
    judge.reading.again(["starter-1"])
    assert disk.state().cursor == 0
    judge.read()
    assert len(judge.heard) == 6
    judge.reading.keep()
    assert disk.state().cursor == 0, "as long as it is in the book"
    for op in range(len(PLANT.route("starter"))):
        records.finished("starter-1", op)
    judge.read()
    assert judge.agent.done
    judge.agent.forget("starter-1")
    judge.reading.keep()
    assert disk.state().cursor == judge.reading.cursor == 3 + len(PLANT.route("starter"))


def test_an_order_stays_in_the_book_until_the_records_of_what_was_done_have_come(
    records: Records, disk: SwarmBook
) -> None:
    def placed(name: str) -> tuple[Judge, Wanted]:
        judge = Judge(records.store, disk)
        wanted = Wanted(PLANT, disk, judge.agent, judge.pieces, judge.reading)
        job = OrderedJob(job=name, product="starter")
        assert wanted.order(Order(order=name, placed_at=T0, jobs=[job]), T0) is not None
        steps = len(PLANT.route("starter"))
        judge.agent.book.done_until(name, steps, machine="bench", at=T0)  # an agenda said so, its records are under way
        assert judge.agent.done
        return judge, wanted

    judge, wanted = placed("starter-1")
    wanted.close(T0)
    wanted.close(T0 + 24 * HOUR)
    assert "starter-1" in judge.agent.jobs
    for op in range(len(PLANT.route("starter"))):
        records.finished("starter-1", op)
    judge.read()
    wanted.close(T0 + 25 * HOUR)
    assert not judge.agent.jobs

    judge, wanted = placed("starter-2")
    wanted.close(T0)
    wanted.close(T0 + MISSING_S * SECOND)
    assert not judge.agent.jobs, "what never comes is not waited for for ever"


def test_a_cancelled_order_stays_in_the_book_until_every_node_that_could_have_done_it_was_heard_of(
    records: Records, disk: SwarmBook
) -> None:
    judge = Judge(records.store, disk)
    wanted = Wanted(PLANT, disk, judge.agent, judge.pieces, judge.reading)
    book, job = judge.agent.book, OrderedJob(job="starter-1", product="starter")
    wanted.order(Order(order="starter-1", placed_at=T0, jobs=[job]), T0)
    wanted.order(Order(order="starter-1", revision=1, placed_at=T0, jobs=[]), T0)
    assert judge.agent.done, "nobody holds it as far as this judge knows"
    for hour in range(3):
        wanted.close(T0 + hour * HOUR)
    assert "starter-1" in judge.agent.jobs, "its nodes are away: a delegate may have awarded it"

    for authority in (Authority(0, "ffffffff"), book.authority):  # back, but not heard of under this judge yet; then so
        for node in PLANT.nodes:
            book.on_presence(node, True)
            term, session = authority
            book.on_agenda(node, Agenda(term=term, session=session, revision=1, at=T0))
        wanted.close(T0 + (6 if authority < book.authority else 7) * HOUR // 2)
        assert "starter-1" in judge.agent.jobs, "records of what was done have an hour to come"
    for op in range(len(PLANT.route("starter"))):
        records.finished("starter-1", op)
    judge.read()
    judge.pieces.news(book.tasks, list(book.tasks), T0)
    wanted.close(T0 + 5 * HOUR)
    [baton] = wanted.closed
    assert (baton.state, len(baton.steps)) == ("done", len(PLANT.route("starter")))


def test_a_cancelled_order_whose_nodes_never_come_leaves_the_book_after_a_week(
    records: Records, disk: SwarmBook
) -> None:
    judge = Judge(records.store, disk)
    wanted = Wanted(PLANT, disk, judge.agent, judge.pieces, judge.reading)
    job = OrderedJob(job="starter-1", product="starter")
    wanted.order(Order(order="starter-1", placed_at=T0, jobs=[job]), T0)
    wanted.order(Order(order="starter-1", revision=1, placed_at=T0, jobs=[]), T0)
    assert judge.agent.done
    wanted.close(T0)
    wanted.close(T0 + MISSING_S * SECOND - 60 * SECOND)
    assert "starter-1" in judge.agent.jobs
    wanted.close(T0 + MISSING_S * SECOND)
    assert not judge.agent.jobs
