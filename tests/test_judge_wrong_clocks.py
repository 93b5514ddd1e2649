"""Machines whose clocks were wrong: what they say of work done then is bounded, and ends nobody who judges."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import eventually
from test_swarm_terms import T0, Site, running, site

from cloud.reign import Reign
from cloud.stores import BatchKey, StoredBatch
from cloud.swarm import Swarm
from messages.broker import Broker
from messages.clock import SECOND
from messages.contracts import Batch, Finished, Interrupted, Order, OrderedJob, Record
from messages.dispatch.monitoring import LONGEST_RUN_S, MOST_WORKED_S, Monitor
from messages.dispatch.task import Task
from messages.dispatch.tenders import Tenders
from messages.negotiation import Agenda, Authority, Award, Held
from messages.pace import PATIENT
from messages.routes import ORDER

NOW = 1_790_000_000 * SECOND
LAST = 2**53 - 1
ME = Authority(3, "0000000a")


def finished(at: int, started_at: int, machine: str = "m") -> Finished:
    return Finished(at=at, machine=machine, job="j", op=0, started_at=started_at)


def book_of(*, tags: bool = True) -> Tenders:
    book = Tenders(ME, site="s", judge="cloud", machines={"m": "n", "m2": "n"}, tags=tags, now=NOW)
    book.reckon_with(keeps=["m"], scraps=["m2"])
    for op in range(2):
        book.add(Task(job="j", op=op, seconds={"m": 60.0, "m2": 60.0}))
    return book


def begin(book: Tenders) -> None:
    book.begin(NOW)
    book.on_time(NOW)
    book.on_presence("n", True)
    book.on_agenda("n", Agenda(term=ME.term, session=ME.session, revision=1, at=NOW))


def held(machine: str, state: str) -> Held:
    until = NOW + round(PATIENT.lease_s * SECOND)
    return Held.model_validate(
        {"job": "j", "op": 0, "machine": machine, "counter": 5, "state": state, "at": NOW, "valid_until": until}
    )


def test_work_that_would_have_lasted_since_1970_is_not_counted_and_the_rest_is() -> None:
    book, monitor = book_of(), Monitor({"m": "n", "m2": "n"})
    for _ in range(3):
        monitor.on_record(finished(NOW, 30 * SECOND))
    monitor.on_record(finished(NOW, NOW + SECOND))
    monitor.on_record(finished(NOW, NOW - 90 * SECOND))
    for _ in range(round(MOST_WORKED_S / LONGEST_RUN_S) + 1):
        monitor.on_record(finished(NOW, NOW - round(LONGEST_RUN_S) * SECOND, "m2"))
    view = monitor.view(book, batons={}, now=NOW)
    assert view is not None
    assert [view.machines[name].worked_s for name in ("m", "m2")] == [90.0, MOST_WORKED_S]


@pytest.mark.parametrize("known", [True, False], ids=["while it judges", "before it begins"])
def test_work_interrupted_at_the_end_of_all_time_is_tendered_again_soon(known: bool) -> None:
    book = book_of()
    record = Interrupted(at=LAST, machine="m", job="j", op=0, started_at=NOW)
    if known:
        begin(book)
    book.on_agenda("n", Agenda(term=ME.term, session=ME.session, revision=2, at=NOW, awards=[held("m", "started")]))
    book.on_record(record)
    task = book.tasks["j", 0]
    assert task.state == "open"
    assert task.not_sooner <= NOW + round((PATIENT.renew_s + PATIENT.retry_s) * SECOND)


def test_what_follows_from_a_record_of_the_end_of_all_time_can_be_said_and_is_said_again() -> None:
    book = book_of()
    begin(book)
    book.cancel(("j", 1), NOW)  # it is put aside where its part lies: at `m`, whose places are counted
    sends = book.on_record(finished(LAST, NOW))
    at = NOW + round((PATIENT.renew_s + PATIENT.repeat_s) * SECOND)
    awards = [send.message for send in [*sends, *book.on_time(at)] if send.what == "award"]
    assert awards and all(one.valid_until < NOW + 2 * round(PATIENT.lease_s * SECOND) for one in awards)


def test_where_a_breakdown_at_the_end_of_all_time_destroys_a_part_what_follows_is_asked_back_again_and_again() -> None:
    book = book_of()
    begin(book)
    both = [held("m2", "started"), held("m", "held").model_copy(update={"op": 1, "ahead": 1})]
    book.on_agenda("n", Agenda(term=ME.term, session=ME.session, revision=2, at=NOW, awards=both))
    sends = book.on_record(Interrupted(at=LAST, machine="m2", job="j", op=0, started_at=NOW))
    later = book.on_time(NOW + round((PATIENT.renew_s + PATIENT.repeat_s) * SECOND))
    for some in (sends, later):
        [award] = [send.message.body for send in some if send.what == "award"]
        assert isinstance(award, Award) and (award.op, award.machine, award.cancelled) == (1, None, True)


def hand_over(plant: Site, *records: Record) -> None:
    batch = Batch(epoch="0" * 16, lane="record", seq=0, floor=0, made_at=T0, records=list(records))
    plant.store.append([StoredBatch(BatchKey("s1", "cell-1", "0" * 16, "record", 0), batch)])


async def test_the_judge_goes_on_and_begins_again_where_a_machine_began_its_work_in_1970(
    broker: Broker, tmp_path: Path
) -> None:
    async with site(broker, tmp_path) as plant:
        order = Order(order="o1", placed_at=T0, jobs=[OrderedJob(job="a-1", product="a")])
        async with running(plant.judge("first")) as judge:
            reign = await reigning(plant, judge, 1)
            await plant.bus.publish(ORDER, order, site="s1")
            await eventually(lambda: ("a-1", 0) in reign.book.tasks)
            hand_over(plant, Finished(at=T0, machine="lathe-1", job="a-1", op=0, started_at=30 * SECOND))
            assert await worked_s(reign) == 0
        async with running(plant.judge("first")) as judge:
            assert await worked_s(await reigning(plant, judge, 2)) == 0


async def reigning(plant: Site, judge: Swarm, term: int) -> Reign:
    await plant.begun(judge, term)
    reign = judge.reign
    assert reign is not None
    await eventually(lambda: reign.bus.connected.is_set())
    return reign


async def worked_s(reign: Reign) -> float:
    """As the view has it that says that the work was done."""
    await eventually(lambda: reign.monitor.said is not None and "done" in reign.monitor.said.tasks)
    assert reign.monitor.said is not None
    return reign.monitor.said.machines["lathe-1"].worked_s
