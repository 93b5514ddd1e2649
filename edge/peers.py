"""The peer plane of one node: it obeys a delegate as it does the cloud, and is the delegate when its turn comes.

    peers = Peers(node, plant, judge=ByRule(kind="greedy"), tags=True)
    peers.listen(); …; await peers.on_tick(now)      # and peers.run() as a task

When is decided by `delegate.py`, what by the scheduling agent of `messages.dispatch`; here is what they send and hear.
What a delegate says comes back to it over the bus, so its own machines are asked, awarded and heard like all others.
An authority is on this node's disk before it is spoken with. The judge thinks in a thread, one question at a time. One
offer asks all nodes. What is sent may be lost: the agent says it again.

Bounds: what is retained (the delegate's word, awards of tasks not done) is cleared when the task is done or this node
is fenced, what it left before a restart too; offers name `MAX_MACHINES` machines, several where there are more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from messages.bus import Received
from messages.clock import LockStepClock
from messages.contracts import Envelope
from messages.dispatch.agent import Dispatcher
from messages.dispatch.judge import Judge
from messages.dispatch.settle import awaits_answers, awaits_bids, settle
from messages.dispatch.task import Key, Send
from messages.dispatch.tenders import Tenders
from messages.dispatch.words import Words
from messages.errors import BusLost
from messages.logs import get_logger
from messages.message import Message
from messages.negotiation import MAX_MACHINES, Award, JudgeInForce, Offer, task_of
from messages.plant import Plant
from messages.route import Route
from messages.routes import PEER_ACK, PEER_AGENDA, PEER_AWARD, PEER_BID, PEER_JUDGE, PEER_OFFER

if TYPE_CHECKING:
    from edge.node import Node

log = get_logger("edge")


class Peers:
    """One node's part in the peer plane."""

    def __init__(self, node: Node, plant: Plant, *, judge: Judge, tags: bool) -> None:
        self.node, self.plant, self.judge, self.tags = node, plant, judge, tags
        self.standing, self.bus = node.standing, node.site_bus
        self.agent: Dispatcher | None = None
        self.awards = 0
        """Awards made, in all terms."""
        self._since = 0
        self._words: Words | None = None
        self._names: Mapping[str, Key] = {}
        self._retained: set[str] = set()
        self._word_retained = False
        self._turn = asyncio.Lock()
        self._news, self._heard = asyncio.Event(), asyncio.Event()

    def listen(self) -> None:
        """Handlers, before the bus runs: every node obeys delegates, one that may be one hears the answers too."""
        bus, site = self.bus, self.node.site
        bus.on(PEER_JUDGE, self.on_judge, site=site)
        bus.on(PEER_OFFER, self.node.on_peer_offer, site=site)
        bus.on(PEER_AWARD, self.on_award, site=site)
        if self.standing.able:
            bus.on(PEER_AGENDA, self.on_agenda, site=site)
            bus.on(PEER_BID, self.on_bid, site=site)
            bus.on(PEER_ACK, self.on_ack, site=site)
        bus.on_bad(self.node.on_bad)
        bus.on_connect(self.node.on_site_connect)
        bus.on_connect(self.on_connect)

    # --- what is heard -------------------------------------------------------------------------------

    async def on_agenda(self, received: Received) -> None:
        """What a node holds and hears."""
        now = await self.node.now()
        name, agenda = received.ids["node"], received.message
        self.standing.on_agenda(name, agenda, now, retained=received.retained)
        await self.node.commit(now)
        if self.agent is not None and name in self.standing.agendas:
            self._say(self.agent.book.on_agenda(name, agenda), now)
            self._stir()

    async def on_bid(self, received: Received) -> None:
        """A node's answer to an offer of ours, or of somebody else, which the book does not know."""
        if self.agent is not None:
            self.agent.book.on_bid(received.ids["node"], received.message)
            self._stir()

    async def on_ack(self, received: Received) -> None:
        """A node's answer to an award."""
        if self.agent is not None:
            self.agent.book.on_ack(received.ids["node"], received.message, await self.node.now())
            self._stir()

    async def on_judge(self, received: Received) -> None:
        """A delegate's word, our own among them: obeyed as the cloud's is. One in another's name is nobody's."""
        speaker = received.ids["node"]
        if speaker == received.message.body.judge:
            self._word_retained |= speaker == self.node.node
            await self.node.on_peer_judge(received)
            self._stir()

    async def on_award(self, received: Received) -> None:
        """A delegate's award; it concerns the node it is addressed to."""
        if received.ids["node"] == self.node.node:
            self._retained.add(received.ids["task"])
        if received.message.target == f"{self.node.site}/{self.node.node}":
            await self.node.on_peer_award(received)

    async def on_connect(self) -> None:
        """The broker may have lost what it retained."""
        if self.agent is not None:
            self._say(self.agent.book.on_connect(), self.node.clock.now())

    # --- what is done --------------------------------------------------------------------------------

    async def on_tick(self, now: int) -> None:
        """Begin, go on, or stop; returns when the judge has answered.

        Where plant time waits for us, so do we for what needs none: bids and answers of nodes that are there.
        """
        await self._step(now)
        if isinstance(self.node.clock, LockStepClock) and self.agent is not None:
            await self._settle(awaits_bids)
            await self._step(now)
            await self._settle(awaits_answers)

    async def run(self) -> None:
        """Go on whenever something was heard, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._step(await self.node.now())

    def counters(self) -> dict[str, float]:
        """For health."""
        return {
            "judging": float(self.standing.judging is not None),
            "judging_since": float(self._since if self.standing.judging is not None else 0),
            "judging_begun": float(self.standing.begun),
            "judging_fenced": float(self.standing.fenced),
            "judging_awards": float(self.awards),
        }

    # --- private -------------------------------------------------------------------------------------

    def _stir(self) -> None:
        """Something was heard."""
        self._news.set()
        self._heard.set()

    async def _settle(self, awaits: Callable[[Tenders], bool]) -> None:
        await settle(lambda: (agent := self.agent) is not None and self._is_ours() and awaits(agent.book), self._heard)

    async def _step(self, now: int) -> None:
        async with self._turn:
            await self._judge(now)

    async def _judge(self, now: int) -> None:
        self.standing.on_time(now, self.bus.counts.connects if self.bus.connected.is_set() else -1)
        if self.standing.may_begin(now):
            await self._begin(now)
        if not self._is_ours():
            if self.agent is not None:
                term, by = self.agent.book.authority.term, self.standing.obeyed
                log.warning("edge.fenced", term=term, by_term=by.term, by_session=by.session, awards=self.awards)
            self.agent = None
        agent = self.agent
        if agent is not None:
            for name in self.plant.nodes:
                agent.book.on_presence(name, self.standing.is_there(name))
            self._say(agent.on_time(now), now)
            agent.book.changed.clear()  # agendas are its memory
            await self.node.commit(now)  # its word
            question = agent.question(now) if self._is_ours() else None
            if question is not None:
                decision = await asyncio.to_thread(agent.ask, question)
                if self._is_ours():
                    self._say(agent.on_decision(question, decision, self.node.clock.now()), self.node.clock.now())
        self._tidy()

    def _is_ours(self) -> bool:
        """Whether this node judges, by this agent's authority."""
        return self.agent is not None and self.standing.judging == self.agent.book.authority

    async def _begin(self, now: int) -> None:
        delegation = self.standing.delegation
        assert delegation is not None
        authority = self.standing.begin(self.node.session)
        await self.node.commit(now)  # nobody hears of a term that a restart would not remember
        if self.standing.judging != authority:
            return
        book = Tenders(
            authority,
            site=self.node.site,
            judge=self.node.node,
            machines={machine: self.plant.node_of(machine) for machine in self.plant.machines},
            delegates=self.standing.delegates,
            tags=self.tags,
            pace=self.node.executor.pace,
            now=now,
            late_us=self.standing.late_us,
        )
        agent = Dispatcher(self.plant, book, self.judge, now, signals=self.node.bidding.signals)
        jobs = [job for job in delegation.jobs if job.product in self.plant.products]
        self.agent, self._since = agent, now
        self._words = Words(self.node.site, authority, book.pace)
        if agent.components is not None:
            agent.components.inventory.begin_at(delegation.stock, delegation.begun)
        self._say(agent.adopt(jobs, now), now)
        for name, agenda in self.standing.agendas.items():
            self._say(book.on_agenda(name, agenda), now)
        self._names = {task_of(*key): key for key in book.tasks}
        there = sum(self.standing.is_there(name) for name in self.plant.nodes)
        log.warning("edge.judging", term=authority.term, jobs=len(jobs), nodes=there, judge=type(self.judge).__name__)

    def _say(self, sends: Iterable[Send], now: int) -> None:
        for route, level, message in _merged(sends):
            if isinstance(message, JudgeInForce) and self._words is not None:
                late_us = self.agent.book.late_us if self.agent is not None else 0
                message = self._words.next(message, late_us)
                self.standing.on_judge(message, now, cloud=False)
                self._word_retained = True
            elif isinstance(message, Envelope) and isinstance(message.body, Award):
                self._retained.add(level["task"])
                self.awards += message.body.machine is not None
            self.node.send(self.bus, route, message, **level)

    def _tidy(self) -> None:
        """Take back what is retained and no longer so; what cannot be sent now is at the next look."""
        gone = sorted(name for name in self._retained if self._is_over(name))
        try:
            if self._word_retained and self.agent is None:
                self._clear(PEER_JUDGE)
                self._word_retained = False
            for name in gone:
                self._clear(PEER_AWARD, task=name)
                self._retained.remove(name)
        except BusLost:
            return

    def _clear(self, route: Route, **level: str) -> None:
        ids = {"site": self.node.site, "node": self.node.node, **level}
        answer = self.bus.publish_nowait(route, None, expiry_s=None, payload=b"", **ids)
        answer.add_done_callback(_look)

    def _is_over(self, name: str) -> bool:
        if self.agent is None or name not in self._names:
            return True
        task = self.agent.book.tasks.get(self._names[name])
        return task is None or task.over


def _merged(sends: Iterable[Send]) -> list[tuple[Route, dict[str, str], Message]]:
    """What goes out: offers of one round of one task to several nodes are one, as far as it may name all machines."""
    found: list[tuple[Route, dict[str, str], Message]] = []
    open_at: dict[tuple[str, int], int] = {}
    for send in sends:
        message = send.message
        if not isinstance(message, Offer):
            route, level = (PEER_JUDGE, {}) if send.what == "judge" else (PEER_AWARD, {"task": send.task})
            found.append((route, level, message))
            continue
        at = open_at.get((send.task, message.round))
        before = found[at][2] if at is not None else None
        if isinstance(before, Offer) and len(before.seconds) + len(message.seconds) <= MAX_MACHINES:
            both = {"seconds": before.seconds | message.seconds, "arrives_at": before.arrives_at | message.arrives_at}
            found[at] = (PEER_OFFER, {"task": send.task}, before.model_copy(update=both))  # type: ignore[index]
        else:
            open_at[send.task, message.round] = len(found)
            found.append((PEER_OFFER, {"task": send.task}, message))
    return found


def _look(answer: asyncio.Future[None]) -> None:
    if not answer.cancelled():
        answer.exception()  # lost with its connection: what the broker then still has is cleared when it comes back
