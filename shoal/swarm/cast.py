"""The agents on a simulated stage: nodes that crash and come back, seats of judges, and what each of them sends.

The agents are those of `edge` and `messages.dispatch`; here is only what their services do around them: what is heard
goes in, what they say goes out, and the time they want to be woken is heeded. What an agent has decided is on its disk
with its state, so a crash loses what is under way and what was not heard, nothing else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from edge.bidding import Bidding
from edge.executor import Executor, Out
from messages.contracts import MachineEvent, OrderedJob, Record
from messages.dispatch.agent import Dispatcher
from messages.dispatch.tenders import Send, Task, Tenders
from messages.dispatch.workpieces import Workpieces
from messages.negotiation import Agenda, Authority, AwardAck, Bid, JudgeInForce
from shoal.swarm.disturb import SECOND
from shoal.swarm.world import JUDGE, NODE, Alarm

if TYPE_CHECKING:
    from shoal.swarm.stage import Stage

AGENDA_S = 600
"""A node says what it holds again after this much plant time, also where nothing has changed."""
QUEUED = 1_000
"""Messages a broker keeps for a client that is away; what comes then is dropped."""
OFFER_S = 30
"""Plant time in which bids are awaited."""


class Node:
    """One edge node: the executor of its machines, its bids, and records that wait for the uplink."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.name = stage, name
        self.executor = Executor(stage.plant, name)
        self.bidding = Bidding(self.executor, dict(stage.swarm.signals))
        self.up = True
        self.events: deque[tuple[str, MachineEvent]] = deque()
        self.records: deque[Record] = deque()
        self.missed: deque[tuple[str, Any]] = deque(maxlen=QUEUED)
        self.alarm = Alarm(stage.world, NODE, self._on_time)
        self._said: tuple[int, str, int, tuple[str, ...]] = (0, "", 0, ())
        self._said_at = stage.world.now

    # --- what comes ----------------------------------------------------------------------------------

    def hear(self, said: tuple[str, Any]) -> None:
        """A message of a judge."""
        if not self.up or self.stage.cut:
            self.missed.append(said)
            return
        kind, message = said
        now = self.stage.world.now
        out = Out()
        if kind == "award":
            out = self.executor.on_award(message, now)
        elif kind == "offer":
            bid = self.bidding.bid(message, now)
            if bid is not None:
                self.stage.to_judges("bid", self.name, bid)
        else:
            self.executor.awards.obey(message.authority)
        self._do(out)

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
        missed, self.missed = list(self.missed), deque(maxlen=QUEUED)
        for said in missed:
            self.hear(said)
        for said in self.stage.retained(self.name):
            self.hear(said)
        self._say_agenda(again=True)
        self._uplink()

    # --- private -------------------------------------------------------------------------------------

    def _on_time(self) -> None:
        if not self.up:
            return
        now = self.stage.world.now
        if now - self._said_at >= AGENDA_S * SECOND:
            self._say_agenda(again=True)
        self._do(self.executor.on_time(now))

    def _take_events(self) -> None:
        now = self.stage.world.now
        while self.events:
            device, event = self.events.popleft()
            self._do(self.executor.on_events(device, [event], now))

    def _do(self, out: Out) -> None:
        stage = self.stage
        if out.records:
            self.records += out.records
            self._uplink()
        for ack in out.award_acks:
            stage.to_judges("ack", self.name, ack)
        for device, action in out.actions:
            stage.act(device, action)
        self._say_agenda()
        again_at = self._said_at + AGENDA_S * SECOND if self.executor.awards.session else None
        due = self.executor.next_due(stage.world.now)
        self.alarm.set(min((at for at in (again_at, due) if at is not None), default=None))

    def _say_agenda(self, *, again: bool = False) -> None:
        awards = self.executor.awards
        down = tuple(name for name, machine in self.executor.machines.items() if machine.state == "down")
        held = (awards.term, awards.session, awards.revision, down)
        if not again and held == self._said:
            return
        agenda = self.bidding.agenda(self.stage.world.now)
        self._said_at = self.stage.world.now
        if agenda is not None and not self.stage.cut:
            self._said = held
            self.stage.say_agenda(self.name, agenda)

    def _uplink(self) -> None:
        """Records leave the disk when the store has them: none is lost, none comes twice."""
        while self.records and self.up and not self.stage.cut:
            self.stage.store(self.records.popleft())


class Seat:
    """One judge: its dispatcher and what its disk has."""

    def __init__(self, stage: Stage, name: str, authority: Authority, tasks: list[Task]) -> None:
        self.stage, self.name = stage, name
        swarm = stage.swarm
        self.book = Tenders(
            authority,
            site=swarm.plant.site,
            judge="cloud",
            machines={machine: swarm.plant.node_of(machine) for machine in swarm.plant.machines},
            delegates=swarm.plant.nodes if swarm.delegates is None else swarm.delegates,
            offer_s=OFFER_S,
            tasks=tasks,
        )
        self.agent = Dispatcher(swarm.plant, self.book, swarm.judge, swarm.start, swarm.weights, swarm.seed)
        self.agent.signals = dict(swarm.signals)
        self.pieces = Workpieces(first_revision=authority.term << 24)
        self.alive = True
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
        self._send(self.agent.on_tick(now))
        self.pieces.add(self.agent.begun_itself)
        self.stage.begun_itself(self.agent.begun_itself)
        self.agent.begun_itself.clear()
        self.stage.hand_on(self.pieces.news(self.book.tasks, self.book.changed, now))
        self.book.changed.clear()
        if self.book.fenced:
            self.stage.fenced(self)
        else:
            self.alarm.set(self.agent.next_due(now))

    def _send(self, sends: list[Send]) -> None:
        for send in sends:
            self.stage.to_nodes(self, send)
