"""Who judges: one of two judges of the cloud stands by, a delegate is taken over from, terms only rise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from conftest import eventually
from swarm_rig import PLANT

from cloud import prior, reading, swarm
from cloud.settings import SwarmSettings
from cloud.stores import BatchKey, SqliteStore, StoredBatch
from cloud.swarm import Swarm
from cloud.swarmbook import SwarmBook
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import SECOND, OnTick, Phase
from messages.contracts import Batch, Envelope, Finished, Order, OrderedJob
from messages.dispatch.awaiting import longer
from messages.dispatch.judge import ByRule
from messages.errors import BadMessage, BrokenInvariant, UsageError
from messages.negotiation import LAST_TERM, Agenda, JudgeInForce
from messages.pace import pace_of
from messages.plant import load_plant
from messages.routes import AGENDA, JUDGE, ORDER

T0 = 1_750_000_000 * SECOND
MINUTE = 60 * SECOND


class Clock:
    """Plant time as the test says it."""

    def __init__(self) -> None:
        self.at, self.ticks = T0, 0

    def now(self) -> int:
        return self.at

    async def drive(self, on_tick: OnTick, *, phase: Phase, every_s: float = 1.0) -> None:
        while True:
            await on_tick(self.at)
            self.ticks += 1
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(swarm: Swarm) -> AsyncIterator[Swarm]:
    task = asyncio.ensure_future(swarm.run())
    try:
        yield swarm
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Site:
    """A site's broker, its time, and who says what there."""

    def __init__(self, broker: Broker, where: Path, stack: AsyncExitStack) -> None:
        (where / "plant.toml").write_text(PLANT)
        self.plant, self.where, self.stack = load_plant(where / "plant.toml"), where, stack
        self.renew_us = round(pace_of(self.plant).renew_s * SECOND)
        self.clock, self.port = Clock(), broker.port
        self.bus = Bus("127.0.0.1", broker.port, client_id="watcher", session_expiry_s=0)
        self.bus.on(JUDGE, self._on_judge, site="s1")
        self.store = stack.enter_context(SqliteStore(path=where / "store.db").open())
        self.words: list[Envelope[JudgeInForce]] = []

    async def _on_judge(self, received: Received) -> None:
        self.words.append(received.message)

    def judge(self, name: str, *, prior_s: float = 0.0, accelerated: bool = False) -> Swarm:
        book = self.stack.enter_context(closing(SwarmBook(self.where / f"{name}.db")))

        def connect(client_id: str, keep: bool) -> Bus:
            return Bus("127.0.0.1", self.port, client_id=client_id, session_expiry_s=600 if keep else 0)

        settings = SwarmSettings(judge=ByRule(kind="fifo"), prior_s=prior_s)
        clock = self.clock
        return Swarm(settings, self.plant, book, self.store, connect, clock, accelerated=accelerated, compile=False)

    async def begun(self, swarm: Swarm, term: int) -> None:
        await eventually(lambda: swarm.reign is not None and swarm.reign.authority.term == term)
        await eventually(lambda: self.words and self.words[-1].body.term == term)
        assert swarm.reign is not None
        assert self.words[-1].body.session == swarm.reign.authority.session


@asynccontextmanager
async def site(broker: Broker, where: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        found = Site(broker, where, stack)
        hearing = asyncio.ensure_future(found.bus.run())
        try:
            await found.bus.wait_connected(20)
            yield found
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


async def test_a_second_judge_stands_by_until_the_word_of_the_first_has_run_out(broker: Broker, tmp_path: Path) -> None:
    async with site(broker, tmp_path) as plant:
        first, second = plant.judge("first"), plant.judge("second")
        async with running(first):
            await plant.begun(first, 1)
            async with running(second):
                await eventually(lambda: second.rival is not None)
                for _ in range(2):  # longer than one word is good for
                    plant.clock.at += 2 * plant.renew_us
                    await eventually(lambda: plant.words[-1].body.at == plant.clock.at, what="the word is renewed")
                    await eventually(lambda: second.rival is not None and second.rival.body.at == plant.clock.at)
                assert (second.terms, second.counters()["judge_stands_by"]) == (0, 1.0)
                assert {word.body.term for word in plant.words} == {1}
        async with running(second := plant.judge("second")):
            await eventually(lambda: second.rival is not None)
            plant.clock.at = plant.words[-1].valid_until
            await plant.begun(second, 2)
            assert [word.counter for word in plant.words] == sorted({word.counter for word in plant.words})
            async with running(again := plant.judge("first")):
                await eventually(lambda: again.rival is not None, what="what it was before gives it no right")
                assert second.reign is not None


async def test_a_judge_that_starts_again_waits_for_nobody(broker: Broker, tmp_path: Path) -> None:
    async with site(broker, tmp_path) as plant:
        for term in (1, 2, 3):
            async with running(plant.judge("first")) as judge:
                await plant.begun(judge, term)


async def test_a_judge_killed_again_and_again_before_its_first_word_does_not_stand_by_for_itself(
    broker: Broker, tmp_path: Path
) -> None:
    async with site(broker, tmp_path) as plant:
        async with running(judge := plant.judge("first")):
            await plant.begun(judge, 1)
        for _ in range(3):
            plant.judge("first")._begin()  # the term is on the disk, and nobody has heard of it
        async with running(judge := plant.judge("first")):
            await plant.begun(judge, 5)


async def test_plant_time_does_not_wait_for_a_judge_whose_broker_is_away(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "HOLD_S", 3600.0)
    monkeypatch.setattr(swarm, "CONNECT_S", 0.1)
    async with site(broker, tmp_path) as plant:
        await asyncio.to_thread(broker.kill)
        async with running(plant.judge("first", accelerated=True)) as judge:
            await eventually(lambda: plant.clock.ticks > 5)
            assert judge.reign is None
            await asyncio.to_thread(broker.start)
            await plant.begun(judge, 1)


async def test_a_delegate_is_taken_over_from_after_a_pause_and_another_judge_of_the_cloud_is_not(
    broker: Broker, tmp_path: Path
) -> None:
    async with site(broker, tmp_path) as plant, running(plant.judge("first")) as judge:
        await plant.begun(judge, 1)
        agenda = Agenda(term=7, session="0" * 16, revision=1, at=plant.clock.at)
        await plant.bus.publish(AGENDA, agenda, site="s1", node="cell-1")
        await eventually(lambda: judge.reign is None, what="it is fenced")
        assert judge.terms == 1
        plant.clock.at += plant.renew_us
        await plant.begun(judge, 8)
        assert judge.reign is not None
        assert judge.reign.book.late_us == judge.disk.state().late_us == longer(0, pace_of(plant.plant)) > 0

        body = JudgeInForce(term=20, session="0" * 16, judge="cloud", at=plant.clock.at)
        until = plant.clock.at + 30 * MINUTE
        word = Envelope[JudgeInForce](key="judge", target="s1/all", counter=2**30, valid_until=until, body=body)
        await plant.bus.publish(JUDGE, word, site="s1")
        await eventually(lambda: judge.rival is not None, what="it stands by")
        plant.clock.at = until
        await plant.begun(judge, 21)


async def test_above_the_highest_term_no_judge_begins_and_it_is_said_what_to_do(broker: Broker, tmp_path: Path) -> None:
    async with site(broker, tmp_path) as plant:
        agenda = Agenda(term=LAST_TERM, session="0" * 16, revision=1, at=plant.clock.at)
        await plant.bus.publish(AGENDA, agenda, site="s1", node="cell-1")
        with pytest.raises(ExceptionGroup) as failed:
            await asyncio.wait_for(plant.judge("first").run(), 20)
        (cause,) = failed.value.exceptions
        assert isinstance(cause, UsageError) and "clear the retained messages" in str(cause)


async def test_a_judge_without_its_disk_learns_from_the_store_what_was_done_of_an_older_order(
    broker: Broker, tmp_path: Path
) -> None:
    async with site(broker, tmp_path) as plant:
        done = Finished(at=T0 - MINUTE, machine="lathe-1", job="a-1", op=0, started_at=T0 - 31 * MINUTE)
        batch = Batch(epoch="0" * 16, lane="record", seq=0, floor=0, made_at=T0, records=[done])
        plant.store.append([StoredBatch(BatchKey("s1", "cell-1", "0" * 16, "record", 0), batch)])
        async with running(plant.judge("first")) as judge:
            await plant.begun(judge, 1)
            order = Order(order="o1", placed_at=T0 - 60 * MINUTE, jobs=[OrderedJob(job="a-1", product="a")])
            await eventually(lambda: judge.reign is not None and judge.reign.bus.connected.is_set())
            await plant.bus.publish(ORDER, order, site="s1")
            await eventually(lambda: judge.reign is not None and ("a-1", 0) in judge.reign.book.tasks)
            assert judge.reign is not None
            book = judge.reign.book
            await eventually(lambda: [task.state for task in book.ops("a-1")] == ["done", "open"])


async def test_where_many_records_are_read_others_have_their_turn_in_between(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_AT_ONCE", 2)
    async with site(broker, tmp_path) as plant:
        records = [
            Finished(at=T0 - MINUTE, machine="lathe-1", job=f"x-{k}", op=0, started_at=T0 - 31 * MINUTE)
            for k in range(9)
        ]
        batch = Batch(epoch="0" * 16, lane="record", seq=0, floor=0, made_at=T0, records=records)
        plant.store.append([StoredBatch(BatchKey("s1", "cell-1", "0" * 16, "record", 0), batch)])
        async with running(plant.judge("first")) as judge:
            await plant.begun(judge, 1)
            assert judge.reign is not None
            place, seen = judge.reign.reading, set()
            assert place.cursor == 9, "before it judges it has read them all"
            place.again([])
            catching_up = asyncio.ensure_future(judge.reign.catch_up())
            while not catching_up.done():
                await asyncio.sleep(0)
                seen.add(place.cursor)
            assert len(seen & {2, 4, 6, 8}) >= 2 and place.cursor == 9  # a tick may read, too


async def test_a_judge_that_begins_again_reads_from_where_its_oldest_open_job_came(
    broker: Broker, tmp_path: Path
) -> None:
    async with site(broker, tmp_path) as plant:

        async def place(judge: Swarm, *jobs: str) -> None:
            order = Order(
                order=f"order {jobs[0]}", placed_at=plant.clock.at, jobs=[OrderedJob(job=j, product="a") for j in jobs]
            )
            await plant.bus.publish(ORDER, order, site="s1")
            await eventually(lambda: judge.reign is not None and all(j in judge.reign.agent.jobs for j in jobs))

        def done(seq: int, *jobs: str) -> None:
            at = plant.clock.at
            records = [
                Finished(at=at, machine=machine, job=job, op=op, started_at=at - MINUTE)
                for job in jobs
                for op, machine in enumerate(("lathe-1", "oven-1"))
            ]
            batch = Batch(epoch="0" * 16, lane="record", seq=seq, floor=0, made_at=at, records=records)
            plant.store.append([StoredBatch(BatchKey("s1", "cell-1", "0" * 16, "record", seq), batch)])

        def read(judge: Swarm) -> int:
            return judge.reign.reading.cursor if judge.reign is not None else -1

        async with running(plant.judge("first")) as judge:
            await plant.begun(judge, 1)
            await eventually(lambda: judge.reign is not None and judge.reign.bus.connected.is_set())
            await place(judge, "a-1")
            done(0, "a-1", *(f"x-{k}" for k in range(100)))
            await eventually(lambda: read(judge) == 202)
            await place(judge, "a-2")
            await place(judge, "a-3")
            done(1, "a-2")
            await eventually(lambda: read(judge) == 204)
            reign = judge.reign

            def left_later() -> bool:
                plant.clock.at += 60 * MINUTE
                return reign is not None and set(reign.agent.jobs) == {"a-3"}

            await eventually(left_later, what="what ended leaves the book after a while")
        with closing(SwarmBook(plant.where / "first.db")) as book:
            assert book.state().cursor == 202, "an order is open, and what was before it is of no interest"
        async with running(plant.judge("first")) as judge:
            await plant.begun(judge, 2)
            done(2, "a-3")
            await eventually(lambda: judge.reign is not None and judge.reign.book.tasks["a-3", 1].state == "done")
            assert read(judge) == 206


async def test_a_plan_ahead_that_fails_ends_nobody(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [BrokenInvariant("a plan that cannot be carried out"), ValueError("no problem")]

    def fails(*_: object, **__: object) -> None:
        raise failures.pop()

    monkeypatch.setattr(prior, "prior", fails)
    async with site(broker, tmp_path) as plant, running(plant.judge("first", prior_s=1.0)) as judge:
        await plant.begun(judge, 1)
        await eventually(lambda: judge.counters().get("judge_not_planned_ahead") == 1.0)
        order = Order(order="o1", placed_at=T0, jobs=[OrderedJob(job="a-1", product="a")])
        await eventually(lambda: judge.reign is not None and judge.reign.bus.connected.is_set())
        await plant.bus.publish(ORDER, order, site="s1")
        await eventually(lambda: judge.counters().get("judge_not_planned_ahead") == 2.0, what="it tries again")
        assert (judge.terms, len(failures)) == (1, 0)


async def test_an_order_is_on_the_disk_when_it_was_taken_and_an_impossible_one_is_refused(
    broker: Broker, tmp_path: Path
) -> None:
    async with site(broker, tmp_path) as plant:
        async with running(plant.judge("first")) as judge:
            await plant.begun(judge, 1)
            await eventually(lambda: judge.reign is not None and judge.reign.bus.connected.is_set())
            for name, job, product in (("o1", "a-1", "a"), ("o2", "x", "no such product"), ("o3", "a-1", "b")):
                order = Order(order=name, placed_at=T0, jobs=[OrderedJob(job=job, product=product)])
                await plant.bus.publish(ORDER, order, site="s1")
            await eventually(lambda: judge.counters().get("judge_bad") == 2.0)
        async with running(plant.judge("first")) as judge:
            await plant.begun(judge, 2)
            assert judge.reign is not None
            assert {key: task.state for key, task in judge.reign.book.tasks.items()} == {
                ("a-1", 0): "open",
                ("a-1", 1): "waiting",
            }
            changed = Order(order="o1", revision=1, placed_at=T0, jobs=[OrderedJob(job="a-1", product="b")])
            with pytest.raises(BadMessage, match="keeps its product"):
                judge.reign.wanted.order(changed, T0)
