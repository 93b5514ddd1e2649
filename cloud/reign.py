"""One term of a judge on the bus: what is heard changes the book, the book goes to the disk, then it is said.

    reign = Reign(settings, plant, disk, store, bus, authority, judge, now=clock.now)
    await reign.catch_up()                      # with the records that are there
    await reign.run()                           # until a higher judge is heard of
    await reign.on_tick(now)                    # beside it: time has come to `now`

Between a message and its commit nothing is awaited, so every step is whole; its QoS 1 message is acknowledged after
the commit. Bids alone are not written for themselves: a judge that begins again asks again. The judge thinks in a
thread, on a state of its own; what has changed meanwhile is not awarded. Where plant time waits for us, a tick lasts
until nothing is under way that needs no plant time, `SETTLE_S` at most.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import structlog

from cloud.ahead import Ahead
from cloud.reading import Reading
from cloud.retained import Retained
from cloud.settings import SwarmSettings
from cloud.stores import Store
from cloud.swarmbook import SwarmBook, Told
from cloud.voice import Voice
from cloud.wanted import Wanted
from messages.bus import Bus, Received
from messages.clock import SECOND
from messages.contracts import Envelope, Order, Presence, Record, Signal
from messages.dispatch.agent import Dispatcher
from messages.dispatch.decode import Weights
from messages.dispatch.delegating import Delegating
from messages.dispatch.judge import Judge
from messages.dispatch.monitoring import Monitor
from messages.dispatch.settle import SETTLE_S, awaits_answers, awaits_bids, settle
from messages.dispatch.task import Send
from messages.dispatch.tenders import Tenders
from messages.dispatch.words import Words
from messages.dispatch.workpieces import Workpieces
from messages.errors import BadMessage
from messages.negotiation import (
    Agenda,
    Authority,
    Award,
    AwardAck,
    Bid,
    JudgeInForce,
    Offer,
    Workpiece,
    task_of,
)
from messages.plant import Plant
from messages.route import topic_id
from messages.routes import (
    AGENDA,
    AWARD,
    AWARD_ACK,
    BID,
    DELEGATION,
    JUDGE,
    OFFER,
    ORDER,
    PRESENCE,
    SHOP,
    SIGNAL,
    WORKPIECE,
)

log = structlog.get_logger("judge")

SHOP_S = 1.0
"""The view of the shop is said this often (real time)."""
NOBODY = Authority(0, "")


@dataclass
class Reign:
    """One site's judge for one term. What must survive is in `disk` and the store; `now` is plant time."""

    settings: SwarmSettings
    plant: Plant
    disk: SwarmBook
    store: Store
    bus: Bus
    authority: Authority
    judge: Judge
    now: Callable[[], int]
    accelerated: bool = False
    """plant time waits for us"""
    counts: Counter[str] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    heard: Authority = NOBODY
    """the highest of others"""
    rival: Envelope[JudgeInForce] | None = None
    """the word of the cloud's judge that fenced this one, if one did"""

    def __post_init__(self) -> None:
        settings, plant, now = self.settings, self.plant, self.now()
        machines = {machine: plant.node_of(machine) for machine in plant.machines}
        self.delegates = [*(plant.nodes if settings.delegates is None else settings.delegates)]
        self.book = Tenders(
            self.authority,
            site=plant.site,
            judge="cloud",
            machines=machines,
            delegates=self.delegates,
            tags=settings.tags,
            pace=settings.pace(plant),
            tasks=self.disk.tasks(),
            now=now,
            late_us=self.disk.state().late_us,
        )
        t0 = self.disk.state().t0
        if t0 is None:
            t0 = now // plant.tick_us * plant.tick_us
            self.disk.remember(t0=t0)
        self.agent = Dispatcher(
            plant,
            self.book,
            self.judge,
            t0,
            weights=Weights(**settings.weights.model_dump()),
            seed=settings.seed,
            ahead=round(settings.ahead_s / plant.tick_s),
            signals=self.disk.signals(),
        )
        self.words = Words(plant.site, self.authority, self.book.pace)
        self.delegating = Delegating(self.agent)
        self.ahead = Ahead(self.agent, settings.prior_s, settings.seed, self.now, self.counts)
        self.ahead.ordered.set()
        self.pieces = Workpieces()
        self.monitor = Monitor(machines)
        self.retained = Retained(self.disk.told())
        self.voice = Voice(self.bus, plant.site)
        self.reading = Reading(self.store, self.disk, plant.site, self.agent, self._on_record)
        self.wanted = Wanted(plant, self.disk, self.agent, self.pieces, self.reading)
        self._sessions: dict[str, str] = {}
        self._wake, self._news, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._thinking = asyncio.Lock()
        self._commit(self.wanted.begin(now))

    def listen(self) -> None:
        """Handlers, before `run`."""
        bus, site = self.bus, self.plant.site
        bus.on(JUDGE, self.on_judge, site=site)
        bus.on(PRESENCE, self.on_presences, batch=True, site=site)
        bus.on(AGENDA, self.on_agendas, batch=True, site=site)
        bus.on(BID, self.on_bids, batch=True, site=site)
        bus.on(AWARD_ACK, self.on_acks, batch=True, site=site)
        bus.on(ORDER, self.on_order, site=site)
        bus.on(SIGNAL, self.on_signal, site=site)
        bus.on_bad(self.on_bad)
        bus.on_connect(self.on_connect)

    async def run(self) -> None:
        """Judge until a higher one is heard of."""
        async with asyncio.TaskGroup() as tg:
            loops = [self.bus.run(), self.voice.run(), self._think_for_ever(), self._show_for_ever()]
            if self.settings.prior_s:
                loops.append(self.ahead.run())
            tasks = [tg.create_task(loop) for loop in loops]
            await self._over.wait()
            for task in tasks:
                task.cancel()

    # --- what comes in -------------------------------------------------------------------------------

    async def on_bids(self, received: list[Received]) -> None:
        """What machines promise."""
        for one in received:
            self.book.on_bid(one.ids["node"], cast(Bid, one.message))
        self._stir()

    async def on_acks(self, received: list[Received]) -> None:
        """What nodes made of awards and withdrawals."""
        now = self.now()
        for one in received:
            ack: AwardAck = one.message
            self.counts["acknowledged" if ack.accepted else "refused"] += 1
            self.retained.on_ack(one.ids["node"], (ack.job, ack.op), ack.counter)
            self.book.on_ack(one.ids["node"], ack, now)
        self._commit([])

    async def on_agendas(self, received: list[Received]) -> None:
        """What nodes hold, and whom they obey."""
        sends: list[Send] = []
        for one in received:
            agenda: Agenda = one.message
            self.heard = max(self.heard, agenda.authority)
            sends += self.book.on_agenda(one.ids["node"], agenda)
            self.pieces.on_agenda(agenda)
        self._commit(sends + self.agent.offers(self.now()))
        for one in received:
            self._confirm(one.ids["node"], cast(Agenda, one.message))

    def _confirm(self, node: str, agenda: Agenda) -> None:
        """A node says what it did until its award is cleared. It may have missed that, or a delegate awarded it."""
        for one in agenda.awards:
            key = one.job, one.op
            task = self.book.tasks.get(key)
            known = task.state == "done" if task is not None else self.disk.is_closed(one.job)
            if one.state == "finished" and known and not self.retained.has(node, key):
                self.voice.clear(AWARD, node=node, task=task_of(*key))

    async def on_presences(self, received: list[Received]) -> None:
        """Nodes come and go. The will of a session that has been followed by another says nothing any more."""
        for one in received:
            node, presence = one.ids["node"], cast(Presence, one.message)
            if presence.online:
                self._sessions[node] = presence.session
            elif self._sessions.get(node, presence.session) != presence.session:
                continue
            self.book.on_presence(node, presence.online)
        self._commit(self.agent.offers(self.now()))

    async def on_judge(self, received: Received) -> None:
        """Who else says that he judges."""
        word = cast(Envelope[JudgeInForce], received.message)
        other = word.body
        if other.authority == self.authority:
            return
        self.heard = max(self.heard, other.authority)
        self.book.on_judge(other)
        if self.book.fenced and other.judge == self.book.judge:
            self.rival = word
        self._commit([])

    async def on_order(self, received: Received) -> None:
        """Work to be done, on the disk when this returns; BadMessage says why it cannot be."""
        order, now = cast(Order, received.message), self.now()
        with self.disk.together():
            self.wanted.make_room(order, now)
            self._commit([])
        with self.disk.together():
            taken = self.wanted.order(order, now)
            self._commit(taken or [])
        if taken is not None:
            if order.placed_at < self.agent.t0:  # this book is younger: what was done of it is in the store
                self.reading.again(job.job for job in order.jobs)
                self._look_anew()
            self.ahead.ordered.set()
            log.info("order.placed", order=order.order, revision=order.revision, jobs=len(order.jobs))

    async def on_signal(self, received: Received) -> None:
        """A forecast, for the next decision."""
        signal: Signal = received.message
        if received.ids["signal"] != signal.name:
            raise BadMessage(
                f"signal {signal.name!r} came on the topic of {received.ids['signal']!r}; correct one of them"
            )
        if self.disk.signal(signal):
            self.agent.on_signal(signal)

    async def on_bad(self, topic: str, payload: bytes, reason: str) -> None:
        """What nobody can act on: said, counted, acknowledged."""
        self.counts["bad"] += 1
        log.warning("judge.refused", topic=topic[:200], reason=reason[:500], bad=self.counts["bad"])

    async def on_connect(self) -> None:
        """A broker may have lost what it retained: its owner says it again."""
        if self.words.said:
            self._say(self.book.begin(self.now()))
        self._say(self.book.on_connect())
        self.retained.again()
        for baton in (*self.disk.batons(), *self.pieces.batons()):
            self._say_baton(baton)
        self.delegating.again()
        self._commit([], every=True)

    # --- time ----------------------------------------------------------------------------------------

    async def on_tick(self, now: int) -> None:
        """What is due, and a decision if one is called for."""
        if self._over.is_set():
            return
        await self.catch_up()
        if self._over.is_set():
            return
        with self.disk.together():
            if self.book.late_us != self.disk.state().late_us:
                self.disk.remember(late_us=self.book.late_us)
            sends = self.agent.on_time(now)
            self.wanted.close(now)
            self._commit(sends, every=True)
        self._delegate(now)
        if self.accelerated:
            await settle(lambda: not self._over.is_set() and awaits_bids(self.book), self._news)
        await self._think()
        if self.accelerated:
            await settle(lambda: not self._over.is_set() and awaits_answers(self.book), self._news)
            await self.voice.said(SETTLE_S)

    async def catch_up(self) -> None:
        """All records that are new. Where they are many, others have their turn in between and nothing is decided."""
        if not self._read():
            return
        async with self._thinking:
            more = True
            while more and not self._over.is_set():
                await asyncio.sleep(0)
                more = self._read()

    def _read(self) -> bool:
        """The next records; whether there may be more."""
        sends, more = self.reading.some()
        self._commit(sends)
        return more

    def _on_record(self, record: Record, new: bool) -> list[Send]:
        self.pieces.on_record(record)
        self.monitor.on_record(record)
        return self.agent.on_record(record) if new else self.book.on_record(record)

    def _look_anew(self) -> None:
        """What is read again would count twice in the view."""
        self.monitor = Monitor(self.book.nodes.node_of, first_revision=self.monitor.revision)

    # --- deciding ------------------------------------------------------------------------------------

    async def _think_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._think()

    async def _think(self) -> None:
        async with self._thinking:
            question = self.agent.question(self.now())
            if question is None:
                return
            began = time.perf_counter()
            decision = await asyncio.to_thread(self.agent.ask, question)
            took_ms = (time.perf_counter() - began) * 1e3
            self.slowest_ms = max(self.slowest_ms, took_ms)
            self.counts["decisions"] += 1
            self.counts["decided_us"] += round(took_ms * 1e3)
            self._commit(self.agent.on_decision(question, decision, self.now()))

    # --- to the disk, then to the bus ----------------------------------------------------------------

    def _commit(self, sends: Iterable[Send], *, every: bool = False) -> None:
        """All that changed in one commit, and in the queue what follows from it. `every`: also what time made of what
        the broker retains."""
        book, sends = self.book, list(sends)
        changed, now = sorted(book.changed), self.now()
        book.changed.clear()
        if changed:
            self.delegating.stir()
        begun, self.agent.begun_itself = self.agent.begun_itself, []
        self.pieces.add(begun)
        if self.reading.again_of(job.job for job in begun):
            self._look_anew()
        told = [self.retained.tell(send) for send in sends if send.what == "award"]
        closed, self.wanted.closed = self.wanted.closed, []
        if changed or told or closed:
            with self.disk.together():
                self.disk.keep(
                    [book.tasks[key] for key in changed if key in book.tasks],
                    gone=[key for key in changed if key not in book.tasks],
                    told=told,
                )
                self.disk.keep_batons(closed)
        self._say(sends)
        for baton in self.pieces.news(book.tasks, changed, now):
            self._say_baton(baton)
        for one in self.retained.over(book, now, None if every else changed):
            self.voice.clear(AWARD, then=partial(self._cleared, one), node=one.node, task=one.task)
        if closed:
            for job in self.disk.old_batons():
                self.voice.latest(WORKPIECE, None, then=partial(self.disk.drop_baton, job), workpiece=topic_id(job))
        self._stir()

    def _stir(self) -> None:
        """Something was heard."""
        if self.book.fenced:
            self._over.set()
        self._wake.set()
        self._news.set()

    def _say(self, sends: Iterable[Send]) -> None:
        for send in sends:
            if self.book.fenced:
                return
            if send.what == "judge":
                self.voice.say(JUDGE, self.words.next(cast(JudgeInForce, send.message), self.book.late_us))
            elif send.what == "offer":
                offer = cast(Offer, send.message)
                self.counts["tendered" if offer.round == 1 else "tendered_again"] += 1
                left_s = None if self.accelerated else 1 + max(0, offer.deadline - self.now()) // SECOND
                self.voice.say(OFFER, offer, expiry_s=left_s, node=send.node, task=send.task)
            else:
                envelope = cast(Envelope[Award], send.message)
                self.counts["withdrawn" if envelope.body.machine is None else "awarded"] += 1
                self.voice.say(AWARD, envelope, node=send.node, task=send.task)

    def _say_baton(self, baton: Workpiece) -> None:
        self.voice.latest(WORKPIECE, baton, workpiece=topic_id(baton.job))

    def _cleared(self, told: Told) -> None:
        self.retained.gone(told)
        self.disk.cleared([told])

    def _delegate(self, now: int) -> None:
        delegation = self.delegating.news(now) if self.delegates else None
        if delegation is not None:
            for node in self.delegates:
                self.voice.latest(DELEGATION, delegation, node=node)

    async def _show_for_ever(self) -> None:
        """The view of the shop, when it has changed."""
        while True:
            view = self.monitor.view(
                self.book,
                batons=self.pieces.states(),
                now=self.now(),
                stuck=self.agent.stuck,
                inventory=self.agent.components.inventory.stock() if self.agent.components is not None else None,
            )
            if view is not None:
                self.voice.latest(SHOP, view)
            await asyncio.sleep(SHOP_S)
