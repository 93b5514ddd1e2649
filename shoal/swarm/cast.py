"""The agents on a simulated stage: nodes that crash and come back, seats of judges, and what each of them sends.

The agents are those of `edge` and `messages.dispatch`; here is only what their services do around them: what is heard
goes in, what they say goes out, and the time they want to be woken is heeded. What an agent has decided is on its disk
with its state, so a crash loses what is under way and what was not heard, nothing else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from edge.bidding import Bidding
from edge.delegate import Standing
from edge.executor import Executor, Out
from messages.clock import SECOND
from messages.contracts import MachineEvent, OrderedJob, Record
from messages.dispatch.agent import Dispatcher
from messages.dispatch.delegating import Delegating
from messages.dispatch.judge import ByRule
from messages.dispatch.judge import Judge as Judging
from messages.dispatch.task import Send, Task
from messages.dispatch.tenders import Tenders
from messages.dispatch.words import Words
from messages.dispatch.workpieces import Workpieces
from messages.negotiation import Agenda, Authority, AwardAck, Bid, JudgeInForce
from shoal.swarm.world import JUDGE, NODE, Alarm

if TYPE_CHECKING:
    from shoal.swarm.stage import Stage

QUIET = 10
"""Where no delegate listens, a node says what it holds again after so many times of those that it has for delegates."""
QUEUED = 1_000
"""Messages a broker keeps for a client that is away; what comes then is dropped."""


Said = tuple[str, str, Any]
"""Plane (cloud or site), kind, message."""


class Node:
    """One edge node: the executor of its machines, its bids, and records that wait for the uplink."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.name = stage, name
        self.executor = Executor(stage.plant, name)
        self.bidding = Bidding(self.executor, dict(stage.swarm.signals))
        self.up = True
        self.events: deque[tuple[str, MachineEvent]] = deque()
        self.records: deque[Record] = deque()
        self.missed: deque[Said] = deque(maxlen=QUEUED)
        self.alarm = Alarm(stage.world, NODE, self._on_time)
        self.standing = Standing(me=name, nodes=stage.plant.nodes, pace=stage.pace)
        self.link = 1
        self.again_us = round(stage.pace.agenda_s * SECOND) * (1 if stage.peers else QUIET)
        self._kept: dict[str, bytes] = {}
        self._said: dict[str, tuple[Any, ...]] = {}
        self._said_at = stage.world.now

    # --- what comes ----------------------------------------------------------------------------------

    def hear(self, said: Said) -> None:
        """A message of a judge, from the cloud's broker or the site's."""
        plane, kind, message = said
        if not self.up or (self.stage.cut and plane == "cloud"):
            self.missed.append(said)
            return
        now = self.stage.world.now
        out = Out()
        if kind == "award":
            out = self.executor.on_award(message, now)
        elif kind == "cleared":
            self.executor.awards.confirmed(message)
        elif kind == "delegation":
            self.standing.on_delegation(message, now)
        elif kind == "offer":
            bid = self.bidding.bid(message, now)
            if bid is not None:
                self.stage.to_judges("bid", self.name, bid, plane)
        else:
            self.standing.on_judge(message, now, cloud=plane == "cloud")
        self._do(out, plane)
        if kind == "judge" and message.body.authority < self.standing.obeyed:
            self._say_agenda(again=True)  # whoever spoke learns from it that there is a higher one

    def hear_peer(self, said: tuple[str, Agenda]) -> None:
        """What another node of the site says it holds."""
        if self.up:
            self.standing.on_agenda(*said, self.stage.world.now)
            if self.standing.obeyed != self.executor.awards.authority:
                self._do(Out())

    def see(self, machine: str, events: list[MachineEvent]) -> None:
        """What a machine says; while the node is away the machine keeps it."""
        self.events += ((machine, event) for event in events)
        if self.up:
            self._take_events()

    def crash(self) -> None:
        """All that is not on the disk is gone."""
        self.up = False
        self.alarm.set(None)
        self.executor = Executor(self.stage.plant, self.name, self.executor.snapshot())
        self.bidding = Bidding(self.executor, dict(self.stage.swarm.signals))
        self._kept |= self.standing.changed()
        self.standing = Standing(me=self.name, nodes=self.stage.plant.nodes, pace=self.stage.pace, kept=self._kept)
        self.link += 1
        self._said = {}
        self.stage.host_is_away(self.name)

    def wake(self) -> None:
        """Back from the disk: machines are asked again, brokers hand over what they kept."""
        self.up = True
        self._do(self.executor.on_connect(self.stage.world.now))
        self._take_events()
        self.reconnect()

    def reconnect(self) -> None:
        """The cloud is there again."""
        if not self.up or self.stage.cut:
            return
        self.stage.presence(self.name)
        self._said.pop("cloud", None)
        missed, self.missed = list(self.missed), deque(maxlen=QUEUED)
        for said in missed:
            self.hear(said)
        for said in self.stage.retained(self.name):
            self.hear(said)
        self._say_agenda()
        self._uplink()

    # --- private -------------------------------------------------------------------------------------

    def _on_time(self) -> None:
        if not self.up:
            return
        now = self.stage.world.now
        if now - self._said_at >= self.again_us:
            self._say_agenda(again=True)
        self._do(self.executor.on_time(now))
        if self.stage.peers and self.standing.may_begin(now):
            self.stage.delegate(self)

    def _take_events(self) -> None:
        now = self.stage.world.now
        while self.events:
            device, event = self.events.popleft()
            self._do(self.executor.on_events(device, [event], now))

    def _do(self, out: Out, plane: str = "cloud") -> None:
        stage = self.stage
        self.standing.on_time(stage.world.now, self.link)
        self.standing.obey(self.executor.awards.authority)
        self.executor.awards.obey(self.standing.obeyed)
        if out.records:
            self.records += out.records
            self._uplink()
        for ack in out.award_acks:
            stage.to_judges("ack", self.name, ack, plane)
        for device, action in out.actions:
            stage.act(device, action)
        self._say_agenda()
        due = self.executor.next_due(stage.world.now)
        times = [due, self._said_at + self.again_us if self.executor.awards.session else None]
        self.alarm.set(min((at for at in times if at is not None), default=None))

    def _say_agenda(self, *, again: bool = False) -> None:
        """To cloud and site, where it is news."""
        awards, standing, now = self.executor.awards, self.standing, self.stage.world.now
        down = tuple(name for name, machine in self.executor.machines.items() if machine.state == "down")
        held = (awards.term, awards.session, awards.revision, standing.until, standing.ready, down)
        planes = [plane for plane in ("cloud", "site") if again or self._said.get(plane) != held]
        planes = [plane for plane in planes if self.stage.is_open(plane)]
        self._said_at = now if again else self._said_at
        agenda = self.bidding.agenda(now) if planes else None
        if agenda is not None:
            agenda = agenda.model_copy(update={"judge_until": standing.until, "delegate": standing.ready})
            for plane in planes:
                self._said[plane], self._said_at = held, now
                self.stage.say_agenda(self.name, agenda, plane)

    def _uplink(self) -> None:
        """Records leave the disk when the store has them: none is lost, none comes twice."""
        while self.records and self.up and not self.stage.cut:
            self.stage.store(self.records.popleft())


class Seat:
    """One judge: its dispatcher and what its disk has. `host`: of a delegate, the node that judges."""

    def __init__(
        self, stage: Stage, name: str, authority: Authority, tasks: list[Task], host: Node | None = None
    ) -> None:
        self.stage, self.name, self.host = stage, name, host
        self.plane = "site" if host else "cloud"
        swarm = stage.swarm
        judging: Judging = swarm.judge
        if host is not None and not isinstance(judging, ByRule):
            judging = ByRule(kind="greedy")
        self.book = Tenders(
            authority,
            site=swarm.plant.site,
            judge=host.name if host else "cloud",
            machines={machine: swarm.plant.node_of(machine) for machine in swarm.plant.machines},
            delegates=stage.delegates,
            tags=swarm.tags,
            pace=stage.pace,
            tasks=tasks,
            now=stage.world.now,
            late_us=host.standing.late_us if host else stage.late_us,
        )
        self.agent = Dispatcher(swarm.plant, self.book, judging, swarm.start, swarm.weights, swarm.seed)
        self.agent.signals = dict(swarm.signals)
        self.pieces = Workpieces()
        self.alive = True
        self.delegating = Delegating(self.agent)
        self.words = Words(swarm.plant.site, authority, stage.pace)
        self.alarm = Alarm(stage.world, JUDGE, self._tick)

    def begin(self) -> None:
        """Read what the store, the brokers and the nodes have said before."""
        for job in self.stage.jobs:
            self.add(job)
        for record in self.stage.stored:
            self.record(record)
        for node, agenda in self.stage.agendas.items():
            self.hear((node, agenda))
        for node, online in self.stage.online.items():
            self.book.on_presence(node, online)
        for name in self.stage.cancelled:
            self.cancel(name)
        self.alarm.set(self.stage.world.now)

    def adopt(self, standing: Standing) -> None:
        """A delegate begins with the jobs it was told of and with what all nodes say they hold."""
        now, delegation = self.stage.world.now, standing.delegation
        if self.agent.components is not None and delegation is not None:
            self.agent.components.inventory.begin_at(delegation.stock, delegation.begun)
        self._send(self.agent.adopt(delegation.jobs if delegation else [], now))
        for node, agenda in standing.agendas.items():
            self._send(self.book.on_agenda(node, agenda))
        self.alarm.set(now)

    @property
    def disk(self) -> list[Task]:
        """What a new judge on this disk begins with."""
        return [task.model_copy(deep=True) for task in self.book.tasks.values()]

    def hear(self, said: tuple[str, Any]) -> None:
        """A message of a node, or of another judge."""
        if not self.alive:
            return
        node, message = said
        now = self.stage.world.now
        if isinstance(message, Bid):
            self.book.on_bid(node, message)
        elif isinstance(message, AwardAck):
            self.book.on_ack(node, message, now)
        elif isinstance(message, Agenda):
            self.pieces.on_agenda(message)
            self._send(self.book.on_agenda(node, message))
        elif isinstance(message, JudgeInForce):
            self.book.on_judge(message)
        else:
            return
        self.alarm.set(now)

    def record(self, record: Record) -> None:
        """What the store was told."""
        if self.alive:
            self.pieces.on_record(record)
            self._send(self.agent.on_record(record))
            self.alarm.set(self.stage.world.now)

    def presence(self, node: str, online: bool) -> None:
        """A node came or went."""
        if self.alive:
            self.book.on_presence(node, online)
            self.alarm.set(self.stage.world.now)

    def add(self, job: OrderedJob) -> None:
        """An order."""
        if self.alive:
            self.pieces.add([job])
            self._send(self.agent.add([job]))
            self.alarm.set(self.stage.world.now)

    def cancel(self, job: str) -> None:
        """An order is taken back."""
        if self.alive:
            self.pieces.cancel([job])
            self._send(self.agent.cancel([job], self.stage.world.now))
            self.alarm.set(self.stage.world.now)

    def end(self) -> None:
        """It crashes, or is fenced."""
        self.alive = False
        self.alarm.set(None)

    def _tick(self) -> None:
        if not self.alive:
            return
        now = self.stage.world.now
        if self.host is not None:
            if self.host.standing.judging != self.book.authority:
                self.stage.fenced(self)
                return
            for node in self.stage.plant.nodes:
                self.book.on_presence(node, self.host.standing.is_there(node))
        self._send(self.agent.on_tick(now))
        self.pieces.add(self.agent.begun_itself)
        self.stage.begun_itself(self.agent.begun_itself)
        self.agent.begun_itself.clear()
        self.stage.hand_on(self.pieces.news(self.book.tasks, self.book.changed, now))
        if self.book.changed:
            self.delegating.stir()
            self.book.changed.clear()
        if self.book.fenced:
            self.stage.fenced(self)
        else:
            self._delegate(now)
            self.alarm.set(self.agent.next_due(now))

    def _delegate(self, now: int) -> None:
        """Tell the delegates which jobs are open, where that has changed."""
        delegation = self.delegating.news(now) if self.stage.peers and self.host is None else None
        if delegation is not None:
            self.stage.tell_delegates(delegation)

    def _send(self, sends: list[Send]) -> None:
        for send in sends:
            if isinstance(send.message, JudgeInForce):
                word = self.words.next(send.message, self.book.late_us)
                if self.host is not None:
                    self.host.standing.on_judge(word, self.stage.world.now, cloud=False)
                self.stage.say_word(self, word)
            else:
                self.stage.to_node(self, send)
