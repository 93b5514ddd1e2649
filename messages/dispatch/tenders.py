"""The judge's book: every task from waiting to done, what was offered, bid, awarded, acknowledged and begun.

    book = Tenders(judge, machines={"lathe-1": "cell-1", …})
    book.add(Task(job="T1", op=0, seconds={"lathe-1": 12.0}), now)
    sends = book.offer(["T1", 0], now)                       # then on_bid … ready() … award() … on_ack … on_record

Pure: methods take what came and the plant time, return what to send, and leave the names of changed tasks in `changed`,
so that the shell writes them to the disk before it sends. Whatever comes twice, late, out of order or from a fenced
judge changes nothing. A task is tendered again when its award is refused, when its work was interrupted, or when its
lease has ended and its node has said since that it does not have it. Of a node that is away nobody knows: where a
part's tag tells what was done to it (`tags`, the last fence: a node reads it before it begins) the end of the lease is
enough; elsewhere the task is *unknown* until the node is back.

A judge that begins awards nothing until every node that is there has said (`Agenda`) that it obeys this term and what
it holds; tasks that an absent node may hold wait until the longest lease has ended.

Bounds: offers are repeated `REPEAT_S` apart; a task refused or unanswered rests `RETRY_S`; nothing is forgotten before
`forget` is called for a job that is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from messages.clock import SECOND
from messages.contracts import Envelope, Finished, Interrupted, Record, Started
from messages.message import Message
from messages.negotiation import (
    Agenda,
    Authority,
    Award,
    AwardAck,
    Bid,
    JudgeInForce,
    MachineBid,
    Offer,
    task_of,
)

Key = tuple[str, int]
State = Literal["waiting", "open", "tendered", "awarded", "held", "working", "done", "unknown"]

OFFER_S = 30
"""Plant time in which bids are awaited; sooner if every able node has answered."""
LEASE_S = 4 * 3600
"""The time an award gives to begin."""
REPEAT_S = 60
"""An award nobody acknowledged is sent again after this much plant time."""
SKEW_S = 5
"""A node's clock may be this far behind the judge's: so much later an award counts as not begun."""
RETRY_S = 60
"""After a refusal, or a round without bids, a task rests this long."""
OVERDUE_S = 1800
"""Work that should have ended this long ago on a node that is away is called unknown."""
TERM_COUNTERS = 2**24
"""Counters of one term: those of a later term are higher, whatever was lost."""


class Task(BaseModel):
    """One operation of one job in the judge's book."""

    job: str
    op: int
    seconds: dict[str, float] = Field(description="able machine → nominal working time")
    due_at: int | None = None
    state: State = "waiting"
    round: int = 0
    deadline: int = 0
    asked: list[str] = Field([], description="nodes that were offered it in this round")
    bids: dict[str, MachineBid] = {}
    valid_until: int = Field(0, description="of the bids")
    declined: dict[str, str] = {}
    machine: str | None = None
    counter: int = 0
    lease: int = 0
    sent_at: int = 0
    not_before: int = 0
    not_sooner: int = Field(0, description="no offer before")
    began_at: int | None = None
    ended_at: int | None = None
    lost_at: int = Field(-1, description="its work was last interrupted then: what began earlier is past")
    why: str = ""

    @property
    def key(self) -> Key:
        """Job and operation."""
        return self.job, self.op


@dataclass(frozen=True)
class Send:
    """One message to one node; to `all` of the site where node is empty."""

    what: Literal["judge", "offer", "award"]
    node: str
    task: str
    message: Message


class Tenders:
    """One judge's book of one site."""

    def __init__(
        self,
        authority: Authority,
        *,
        site: str,
        judge: str,
        machines: Mapping[str, str],
        delegates: Iterable[str] = (),
        tags: bool = True,
        lease_s: float = LEASE_S,
        offer_s: float = OFFER_S,
        tasks: Iterable[Task] = (),
    ) -> None:
        self.authority, self.site, self.judge, self.node_of = authority, site, judge, dict(machines)
        self.delegates, self.tags = list(delegates), tags
        self.lease_us, self.offer_us = round(lease_s * SECOND), round(offer_s * SECOND)
        self.tasks: dict[Key, Task] = {task.key: task for task in tasks}
        self.changed: set[Key] = set()
        self.version = 0
        """Rises whenever a judge might decide otherwise."""
        self.fenced = False
        self.began_at: int | None = None
        self.agendas: dict[str, Agenda] = {}
        self.online: dict[str, bool] = {}
        self._counter = authority.term * TERM_COUNTERS

    # --- who judges --------------------------------------------------------------------------------

    def begin(self, now: int) -> list[Send]:
        """Say who judges from now on."""
        self.began_at = now if self.began_at is None else self.began_at
        body = JudgeInForce(
            term=self.authority.term,
            session=self.authority.session,
            judge=self.judge,
            at=now,
            delegates=self.delegates,
        )
        return [Send("judge", "", "", body)]

    def on_judge(self, other: JudgeInForce) -> None:
        """Hear of a judge: a higher one fences this one for good; it may begin again only with a term of its own."""
        if other.authority > self.authority:
            self.fenced = True

    def established(self, now: int) -> bool:
        """Whether every node that is there has said that it obeys this judge."""
        there = [node for node in set(self.node_of.values()) if self.online.get(node, False)]
        obeyed = all(node in self.agendas and self.agendas[node].authority == self.authority for node in there)
        return obeyed and not self.fenced and self.began_at is not None

    def may_be_held(self, task: Task, now: int) -> bool:
        """Whether an able node that never answered this judge may hold the task by an earlier judge's award."""
        if task.counter or self.began_at is None or (self.tags and now >= self.began_at + self.lease_us):
            return False
        nodes = {self.node_of[machine] for machine in task.seconds if machine in self.node_of}
        return any(node not in self.agendas or self.agendas[node].authority != self.authority for node in nodes)

    # --- tasks ---------------------------------------------------------------------------------------

    def add(self, task: Task) -> None:
        """A task to be done once it is opened; one that is known already stays as it is."""
        if task.key not in self.tasks:
            self.tasks[task.key] = task
            self.changed.add(task.key)

    def open(self, key: Key) -> None:
        """Its part is ready for it."""
        task = self.tasks[key]
        if task.state == "waiting":
            self._enter(task, "open")

    def forget(self, job: str) -> None:
        """A job that is done leaves the book."""
        for key in [key for key in self.tasks if key[0] == job]:
            del self.tasks[key]
            self.changed.add(key)

    def offer(self, key: Key, now: int, arrives_at: Mapping[str, int] | None = None) -> list[Send]:
        """Ask every able node that is there."""
        task = self.tasks[key]
        if task.state not in ("open", "tendered") or self.fenced or now < task.not_sooner:
            return []
        by_node: dict[str, dict[str, float]] = {}
        for machine, seconds in task.seconds.items():
            node = self.node_of.get(machine)
            if node is not None and self.online.get(node, False):
                by_node.setdefault(node, {})[machine] = seconds
        if not by_node:
            task.not_sooner, task.why = now + RETRY_S * SECOND, "no able node is there"
            self.changed.add(key)
            return []
        task.round += 1
        task.deadline, task.asked = now + self.offer_us, sorted(by_node)
        task.bids, task.declined, task.valid_until = {}, {}, 0
        self._enter(task, "tendered")
        there = arrives_at or {}
        return [
            Send(
                "offer",
                node,
                task_of(*key),
                Offer(
                    term=self.authority.term,
                    session=self.authority.session,
                    job=task.job,
                    op=task.op,
                    round=task.round,
                    deadline=task.deadline,
                    seconds=seconds,
                    arrives_at={name: there[name] for name in seconds if name in there},
                    due_at=task.due_at,
                ),
            )
            for node, seconds in by_node.items()
        ]

    def on_bid(self, node: str, bid: Bid) -> None:
        """Take a bid of this round in, once; of another round, judge or node it changes nothing."""
        task = self.tasks.get((bid.job, bid.op))
        if task is None or task.state != "tendered" or bid.round != task.round or bid.authority != self.authority:
            return
        if node not in task.asked:
            return
        task.asked.remove(node)
        for one in bid.bids:
            if self.node_of.get(one.machine) == node and one.machine in task.seconds:
                task.bids[one.machine] = one
        task.declined.update({name: why for name, why in bid.declined.items() if self.node_of.get(name) == node})
        task.valid_until = min(task.valid_until, bid.valid_until) if task.valid_until else bid.valid_until
        self.version += 1
        self.changed.add(task.key)

    def ready(self, now: int) -> list[Task]:
        """Tasks that can be awarded now: bids are in, or the time for them is over."""
        if not self.established(now):
            return []
        return [
            task
            for task in self.tasks.values()
            if task.state == "tendered"
            and task.bids
            and now < task.valid_until
            and (not task.asked or now >= task.deadline)
            and not self.may_be_held(task, now)
        ]

    def award(self, key: Key, machine: str, now: int, *, not_before: int = 0) -> list[Send]:
        """Give it to a machine that has bid."""
        task = self.tasks[key]
        if task.state != "tendered" or machine not in task.bids or not self.established(now):
            return []
        task.machine, task.counter, task.sent_at = machine, self._next(task), now
        task.not_before, task.lease = not_before, now + self.lease_us
        self._enter(task, "awarded")
        return [self._award(task)]

    def on_ack(self, node: str, ack: AwardAck, now: int) -> None:
        """What the node made of an award."""
        task = self.tasks.get((ack.job, ack.op))
        if task is None or task.machine is None or self.node_of.get(task.machine) != node:
            return
        if ack.counter != task.counter:
            return
        if ack.accepted:
            if task.state == "awarded":
                self._enter(task, "held")
        elif task.state in ("awarded", "held"):
            if ack.state in ("started", "finished") or ack.held is not None:
                self._counter = max(self._counter, ack.held or 0)
            self._again(task, now, ack.reason or "refused")

    def on_record(self, record: Record) -> list[Send]:
        """What a machine did, as its node tells it: facts count whoever awarded them.

        Records may overtake each other. Another machine that holds the task meanwhile is told to let it go.
        """
        match record:
            case Started():
                return self._began((record.job, record.op), record.machine, record.at)
            case Finished():
                return self._ended((record.job, record.op), record.machine, record.at, record.started_at)
            case Interrupted():
                task = self.tasks.get((record.job, record.op))
                if task is not None and task.state != "done" and record.at > task.lost_at:
                    task.lost_at = record.at
                    if task.machine in (None, record.machine):
                        self._again(task, record.at, "interrupted: the machine broke down")
        return []

    def on_agenda(self, node: str, agenda: Agenda) -> list[Send]:
        """What a node holds: facts to this book, whoever awarded them. An older one than known changes nothing."""
        known = self.agendas.get(node)
        if known is not None and (agenda.authority, agenda.revision, agenda.at) <= (
            known.authority,
            known.revision,
            known.at,
        ):
            return []
        if agenda.authority > self.authority:
            self.fenced = True
        self.agendas[node] = agenda
        sends: list[Send] = []
        for one in agenda.awards:
            task = self.tasks.get((one.job, one.op))
            if task is None or task.state == "done":
                continue
            if one.state == "finished":
                sends += self._ended(task.key, one.machine, one.at, None)
            elif one.state == "started":
                sends += self._began(task.key, one.machine, one.at)
            elif one.counter >= task.counter and task.state != "working":
                task.machine, task.counter, task.lease = one.machine, one.counter, one.valid_until
                self._enter(task, "held")
        return sends

    def on_presence(self, node: str, online: bool) -> None:
        """A node came or went."""
        if self.online.get(node) != online:
            self.online[node] = online
            self.version += 1

    def is_there(self, machine: str) -> bool:
        """Whether the node of a machine is online."""
        return self.online.get(self.node_of.get(machine, ""), False)

    def on_time(self, now: int) -> list[Send]:
        """What time brings: awards said again, leases that ended, bids that grew old, work that is overdue."""
        if self.fenced:
            return []
        sends: list[Send] = []
        for task in list(self.tasks.values()):
            if task.state in ("awarded", "held", "unknown") and now >= task.lease + SKEW_S * SECOND:
                self._at_lease_end(task, now)
            elif task.state == "awarded" and now - task.sent_at >= REPEAT_S * SECOND:
                task.sent_at = now
                sends.append(self._award(task))
            elif task.state == "tendered" and now >= task.deadline and (not task.bids or now >= task.valid_until):
                why = "; ".join(f"{name}: {text}" for name, text in sorted(task.declined.items())) or "nobody bid"
                self._enter(task, "open")
                task.not_sooner = now if task.bids else now + RETRY_S * SECOND
                task.why = why
            elif task.state == "working" and self._is_overdue(task, now):
                self._enter(task, "unknown")
                task.why = f"{task.machine} should have finished, and its node is away"
        return sends

    def _at_lease_end(self, task: Task, now: int) -> None:
        node = self.node_of.get(task.machine or "", "")
        said = self.agendas.get(node)
        if said is not None and said.at >= max(task.lease, task.began_at or 0):
            if not any((one.job, one.op) == task.key for one in said.awards):
                self._again(task, now, "it was not begun in time")
        elif task.state != "unknown" and not self.online.get(node, False):
            if self.tags:
                self._again(task, now, f"it was not begun in time, and {node} is away")
            else:
                task.why = f"{node} is away and may have begun it"
                self._enter(task, "unknown")

    def on_connect(self) -> list[Send]:
        """After a reconnect the broker may have lost what it retained: every award in force once more."""
        return [self._award(task) for task in self.tasks.values() if task.state in ("awarded", "held")]

    # --- private -------------------------------------------------------------------------------------

    def _enter(self, task: Task, state: State) -> None:
        task.state = state
        self.changed.add(task.key)
        self.version += 1

    def _began(self, key: Key, machine: str, at: int) -> list[Send]:
        task = self.tasks.get(key)
        if task is None or task.state == "done" or at <= task.lost_at:
            return []
        sends = self._let_go(task, machine)
        task.machine, task.began_at = machine, at
        self._enter(task, "working")
        return sends

    def _ended(self, key: Key, machine: str, at: int, began_at: int | None) -> list[Send]:
        task = self.tasks.get(key)
        if task is None or task.state == "done":
            return []
        sends = self._let_go(task, machine)
        task.machine, task.ended_at = machine, at
        task.began_at = began_at if began_at is not None else task.began_at
        self._enter(task, "done")
        return sends

    def _let_go(self, task: Task, machine: str) -> list[Send]:
        """Another machine has it after all: whoever holds it may forget it."""
        if task.state not in ("awarded", "held") or task.machine in (None, machine):
            return []
        other = task.machine or ""
        task.counter = self._next(task)
        return [self._award(task, withdrawn_from=other)]

    def _again(self, task: Task, now: int, why: str) -> None:
        """Nobody's again."""
        task.why = why
        task.machine, task.began_at = None, None
        task.not_sooner = now + RETRY_S * SECOND
        self._enter(task, "open")

    def _is_overdue(self, task: Task, now: int) -> bool:
        node = self.node_of.get(task.machine or "")
        if task.began_at is None or task.machine is None or (node is not None and self.online.get(node, False)):
            return False
        return now >= task.began_at + round(task.seconds.get(task.machine, 0.0) * SECOND) + OVERDUE_S * SECOND

    def _next(self, task: Task) -> int:
        self._counter = max(self._counter, task.counter) + 1
        return self._counter

    def _award(self, task: Task, *, withdrawn_from: str | None = None) -> Send:
        machine = withdrawn_from or task.machine or ""
        node = self.node_of[machine]
        body = Award(
            term=self.authority.term,
            session=self.authority.session,
            job=task.job,
            op=task.op,
            round=task.round,
            machine=None if withdrawn_from else machine,
            not_before=task.not_before,
            seconds=task.seconds[machine],
        )
        envelope = Envelope[Award](
            key=task_of(task.job, task.op),
            target=f"{self.site}/{node}",
            counter=task.counter,
            valid_until=task.lease,
            body=body,
        )
        return Send("award", node, envelope.key, envelope)
