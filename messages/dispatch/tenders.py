"""The judge's book: every task from waiting to done, what was offered, bid, awarded, acknowledged and begun.

    book = Tenders(judge, site="s1", judge="cloud", machines={"lathe-1": "cell-1", …})
    book.add(Task(job="T1", op=0, seconds={"lathe-1": 12.0}))
    book.open(("T1", 0)); sends = book.offer(("T1", 0), now)  # then on_bid … ready() … award() … on_ack … on_record

Pure: methods take what came and the plant time, return what to send, and leave the names of changed tasks in `changed`,
so that the shell writes them to the disk before it sends. Whatever comes twice, late, out of order or from a fenced
judge changes nothing. A task is tendered again when its award is refused or withdrawn, when its work was interrupted,
or when its lease has ended and its node has said since that it does not have it. Of a node that is away nobody knows:
where a part's tag tells what was done to it (`tags`, the last fence: a node reads it before it begins) the end of the
lease is enough; elsewhere the task is *unknown* until the node is back.

A judge that begins awards nothing until every node that is there has said (`Agenda`) that it obeys this term and what
it holds; tasks that an absent node may hold wait until the longest lease has ended. Agendas alone make a book complete:
what comes before an operation that was begun or done is done; what comes before one that was awarded, too, but for as
many operations as its award says.

A task may be opened before its part is ready (`open_ahead`) and awarded while the operation before it is somebody's,
so that a machine or a vehicle has its turn for it. When that operation's machine breaks, its node goes, or it is
nobody's again, whatever was awarded ahead of it is withdrawn.

A machine that is not in the plant is its node's where that says so. Of a task that lies at one nobody speaks of, the
end of its lease is waited for; it is *unknown* until then, and for good where it had begun or parts have no tags.

An award is withdrawn when its machine breaks and another could do the work, when its node does not answer, when its
lease has ended, and when nobody wants it any more (`cancel`). It is somebody else's only after the node's
acknowledgement, or as at the lease's end. What has begun is finished.

Where places behind a machine are counted (`keeps`), a cancelled job ends only when the machine where its part lies has
been told to put it aside: by a withdrawal, too; while its node stays away the task is *unknown*. A part that broke with
its machine (`scraps`) takes its job with it.

Bounds: awards and withdrawals are repeated `Pace.repeat_s` apart while their node is there; a task refused or
unanswered rests `Pace.retry_s`. Where bids came too late for their round, answers are awaited longer from then on, up
to `PATIENT.offer_s` for bids and in proportion for the rest, and half as long after `PROMPT` rounds all answered.
Nothing is forgotten before `forget` is called for a job that is done. A bid, an acknowledgement, a record costs the
same however many tasks there are, an agenda as many steps as it has entries, `on_time` as many as are due. Call it at
`next_due`; calling it earlier does no harm.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import get_args

from messages.clock import SECOND
from messages.contracts import Envelope, Finished, Interrupted, Record, Started, StateChanged
from messages.dispatch.calendar import Calendar
from messages.dispatch.task import Carried, Key, Send, State, Task
from messages.dispatch.told import Machines, able
from messages.negotiation import (
    MAX_DELEGATES,
    Agenda,
    Authority,
    Award,
    AwardAck,
    Bid,
    Held,
    JudgeInForce,
    Offer,
    task_of,
)
from messages.pace import PATIENT, Pace

__all__ = ["Carried", "Key", "Send", "State", "Task", "Tenders"]

TERM_COUNTERS = 2**24
"""Counters of one term: those of a later term are higher, whatever was lost."""

PROMPT = 8
"""After so many rounds that all have answered in time, answers are awaited half as long, if they were awaited longer:
one that comes late then makes it as long again."""
MAX_MISSED = 4_096
"""Rounds and nodes that did not answer them in time which are remembered; what comes of an earlier one is no news."""
MAX_FOREIGN = 1_000
"""Machines beyond those of the plant that nodes may speak of; of more nobody is told anything."""

GIVEN: tuple[State, ...] = ("awarded", "held", "unknown")
"""States in which a node has, or may have, a task's award."""


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
        pace: Pace = PATIENT,
        tasks: Iterable[Task] = (),
    ) -> None:
        self.authority, self.site, self.judge, self.node_of = authority, site, judge, dict(machines)
        self.delegates, self.tags = list(delegates)[:MAX_DELEGATES], tags
        self.pace = pace
        self.lease_us, self._skew_us = _us(pace.lease_s), _us(pace.skew_s)
        self.tasks: dict[Key, Task] = {}
        self.machines = Machines()
        self.keeps: frozenset[str] = frozenset()
        """Machines behind which places are counted: a finished part takes one until it is fetched or put aside."""
        self.scraps: frozenset[str] = frozenset()
        """Machines whose breakdown destroys the part at work."""
        self.vehicles: dict[int, tuple[int, str]] = {}
        """Vehicle → when it came, and where, with what it was last foreseen to carry."""
        self.changed: set[Key] = set()
        """Tasks to be written to the disk (or, where no longer in `tasks`, removed) before anything is sent; the shell
        empties it."""
        self.moved: set[str] = set()
        """Jobs of which a task changed; who keeps what he saw of jobs takes them out."""
        self.progressed: dict[str, None] = {}
        """Jobs of which a task was added or is over; whoever opens tasks takes them out."""
        self.version = 0
        """Rises whenever a judge might decide otherwise."""
        self.twice: dict[str, str] = {}
        """Jobs of which an operation was done more than once, and by whom."""
        self.fenced = False
        self._now = 0  # the judge's own time, as it was heard last
        self.began_at: int | None = None
        self.agendas: dict[str, Agenda] = {}
        self.online: dict[str, bool] = {}
        self._planned = len(self.node_of)
        self._nodes = set(self.node_of.values())
        self._strangers = set(self._nodes)  # nodes that have not said that they obey
        self._silent: set[str] = set()  # those of them that are there
        self._surely_at: int | None = None  # when no older lease runs any more
        self._listed: dict[str, dict[Key, Held]] = {}
        self._of: dict[State, dict[Key, None]] = {state: {} for state in get_args(State)}
        self._ops: dict[str, dict[int, None]] = {}
        self._at: dict[str, dict[Key, None]] = {}  # node → what it was given or works on
        self._where: dict[Key, str] = {}
        self._ready: dict[Key, None] = {}
        self._offerable: dict[Key, None] = {}
        self._due: Calendar[Key] = Calendar()
        self._ahead: dict[str, None] = {}  # jobs of which something was awarded before its part was ready
        self._adrift: dict[str, None] = {}  # those of them whose part may not come as was foreseen
        self._counter = authority.term * TERM_COUNTERS
        self._slow = 1.0  # so many times as long as its pace says answers are awaited: bids came late
        self._prompt = 0  # rounds since then in which all answered in time
        self._waited: dict[Key, float] = {}  # so many times as long in the round of each task
        self._missed: dict[tuple[Key, str, int], float] = {}  # the same of rounds a node had not answered
        for task in tasks:
            self._keep_bids(task, self.node_of)
            self._insert(task)
            self._if_unknown(task)
            self._counter = max(self._counter, task.counter)
            if task.twice:
                self.twice[task.job] = task.why
            if task.carried and (task.begun or task.state == "done"):
                self._carried(task)

    # --- who judges --------------------------------------------------------------------------------

    def begin(self, now: int) -> list[Send]:
        """Say who judges from now on."""
        self._now = now
        if self.began_at is None:
            self.began_at, self._surely_at = now, now + self.lease_us
            self.version += 1
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
        return not self._silent and not self.fenced and self.began_at is not None

    @property
    def silent(self) -> tuple[str, ...]:
        """Nodes that are there and have not said yet that they obey this judge: it awards nothing until they do."""
        return tuple(sorted(self._silent))

    def may_be_held(self, task: Task, now: int) -> bool:
        """Whether an able node that never answered this judge may hold the task by an earlier judge's award; also of
        a task that an older book says is elsewhere: another judge may have awarded it since."""
        if not self._strangers or task.settled == self.authority.session or self.began_at is None:
            return False
        if self.tags and now >= self.began_at + self.lease_us:
            return False
        return any(self.node_of.get(machine) in self._strangers for machine in task.seconds)

    # --- tasks ---------------------------------------------------------------------------------------

    def add(self, task: Task) -> list[Send]:
        """A task to be done once it is opened; one that is known already stays as it is, but for the machines that can
        do it. What agendas said of it before counts."""
        if (known := self.tasks.get(task.key)) is not None:
            if known.seconds != task.seconds and not known.over:
                known.seconds = dict(task.seconds)
                self._keep_bids(known, known.seconds)
                self._enter(known, known.state)
            return []
        self._insert(task)
        self._stir(task.key)
        sends: list[Send] = []
        for node, listed in self._listed.items():
            if (one := listed.get(task.key)) is not None:
                sends += self._on_listed(task, one, self.agendas[node].at)
        return sends

    def open(self, key: Key) -> None:
        """Its part is ready for it."""
        task = self.tasks[key]
        if task.state == "waiting":
            self._enter(task, "open")

    def open_ahead(self, key: Key) -> bool:
        """Its part is not ready, but somebody is at it, or will soon be; False: it is not so, or it is open already.

        Without tags a node could begin it on a part that lies before its machine for the operation before.
        """
        task, before = self.tasks.get(key), self.tasks.get((key[0], key[1] - 1))
        if task is None or before is None or task.state != "waiting" or not self.tags or task.cancelled:
            return False
        if before.state not in ("tendered", "awarded", "held", "working"):
            return False
        self._enter(task, "open", stir=False)
        return True

    def done_until(self, job: str, count: int, *, machine: str | None, at: int) -> list[Send]:
        """Somebody knows that its first operations are done, the last of them on `machine`."""
        task = self.tasks.get((job, count - 1))
        if task is None or task.state == "done":
            return []
        sends = self._let_go(task, machine or "")
        task.machine, task.ended_at = machine, at
        self._enter(task, "done")
        return sends + self._done_before(task.key)

    def forget(self, job: str) -> None:
        """A job that is done leaves the book."""
        for op in self._ops.pop(job, ()):
            key = (job, op)
            task = self.tasks.pop(key)
            self._of[task.state].pop(key, None)
            self._leave(key)
            self._ready.pop(key, None)
            self._offerable.pop(key, None)
            self._due.put(key, None)
            self._waited.pop(key, None)
            self._stir(key)
        self.progressed.pop(job, None)
        self._ahead.pop(job, None)
        self.twice.pop(job, None)

    def ops(self, job: str) -> list[Task]:
        """Tasks of a job in the order in which they were added."""
        return [self.tasks[job, op] for op in self._ops.get(job, ())]

    def of(self, *states: State) -> list[Task]:
        """Tasks in these states."""
        return [self.tasks[key] for state in states for key in self._of[state]]

    def offerable(self) -> list[Key]:
        """Open tasks that have rested, as `on_time` found them."""
        return list(self._offerable)

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
            task.not_sooner, task.why = now + _us(self.pace.retry_s), "no able node is there"
            self._offerable.pop(key, None)
            self._due.put(key, task.not_sooner)
            self._stir(key)
            return []
        for node in task.asked:
            self._missed[key, node, task.round] = self._waited.get(key, 1.0)
        while len(self._missed) > MAX_MISSED:
            del self._missed[next(iter(self._missed))]
        self._waited[key] = self._slow
        task.round += 1
        task.deadline, task.asked = now + self._slowly_us(self.pace.offer_s), sorted(by_node)
        task.bids, task.declined, task.good_until = {}, {}, {}
        self._enter(task, "tendered", stir=False)
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
        if task is None or bid.authority != self.authority:
            return
        if bid.round < task.round:  # it was tendered again before its answer could be there
            self._late(node, bid, task.round)
        if task.state != "tendered" or bid.round != task.round:
            return
        if node not in task.asked:
            return
        task.asked.remove(node)
        task.declined.update({name: why for name, why in bid.declined.items() if self.node_of.get(name) == node})
        for one in bid.bids:
            if self.node_of.get(one.machine) != node or one.machine not in task.seconds:
                continue
            if bid.valid_until <= self._now:
                task.declined[one.machine] = f"its bid was old when it came: is the clock of {node} right?"
                continue
            task.bids[one.machine], task.good_until[one.machine] = one, bid.valid_until
        self._stir(task.key)
        if not task.asked:
            self._in_time(task)
        if not task.asked or task.key in self._ready:
            self._enter(task, "tendered", stir=bool(task.bids))

    @property
    def any_ready(self) -> bool:
        """Whether there are bids to decide on."""
        return bool(self._ready)

    def ready(self, now: int) -> list[Task]:
        """Tasks that can be awarded now: bids are in, or the time for them is over."""
        return [self.tasks[key] for key in self._ready if self.is_ready(key, now)]

    def is_ready(self, key: Key, now: int) -> bool:
        """Whether it can be awarded now."""
        task = self.tasks.get(key)
        if task is None or key not in self._ready or now >= max(task.good_until.values(), default=0):
            return False
        return self.established(now) and not self.may_be_held(task, now)

    def is_coming(self, key: Key, now: int, *, unasked: bool) -> bool:
        """Whether it is soon known if it can be awarded: bids are awaited, or (`unasked`) its part is at work or will
        be."""
        task = self.tasks.get(key)
        if task is None or self.may_be_held(task, now):
            return False
        if task.state == "waiting" and unasked:
            before = self.tasks.get((task.job, task.op - 1))
            return before is not None and (before.state == "working" or before.state in GIVEN)
        return task.state == "tendered" and bool(task.asked) and now < task.deadline

    def award(
        self, key: Key, machine: str, now: int, *, not_before: int = 0, carried: Carried | None = None
    ) -> list[Send]:
        """Give it to a machine that has bid; `carried`: how its part is to come there."""
        task = self.tasks[key]
        if task.state != "tendered" or now >= task.good_until.get(machine, 0) or not self.established(now):
            return []
        task.machine, task.counter, task.sent_at, task.awarded_at = machine, self._next(task), now, now
        task.not_before, task.lease, task.carried, task.why = not_before, now + self.lease_us, carried, ""
        task.settled, task.ahead = self.authority.session, len(self._before(task))
        counted = machine in self.keeps or carried is None
        task.fetch_at = None if counted or carried is None else carried.departs_at
        self._enter(task, "awarded", stir=False)
        return self._award(task)

    def withdraw(self, key: Key, now: int, why: str) -> list[Send]:
        """Ask for an award back. It is open again when its node has acknowledged that, unless work has begun."""
        task = self.tasks[key]
        if self.fenced or task.state not in GIVEN or task.begun or task.machine is None or task.withdrawn:
            return []
        task.counter, task.withdrawn, task.sent_at, task.why = self._next(task), True, now, why
        self._loosen(task.job)
        self._enter(task, task.state, stir=False)
        return self._award(task, withdrawn_from=task.machine)

    def cancel(self, key: Key, now: int, why: str = "cancelled") -> list[Send]:
        """Nobody wants it any more: it ends as cancelled, unless it has begun."""
        task = self.tasks[key]
        if task.over or task.cancelled:
            return []
        task.cancelled = True
        self._stir(key)
        if task.state in ("waiting", "open", "tendered"):
            task.why = why
            self._nobodys(task, now)
            return []
        if task.machine not in self.node_of and (task.begun or now >= task.lease + self._skew_us):
            self._again(task, now, why)  # no machine of the plant works on it, and nobody waits for it
            return []
        return self.withdraw(key, now, why)

    def on_ack(self, node: str, ack: AwardAck, now: int) -> None:
        """What the node made of an award or a withdrawal."""
        task = self.tasks.get((ack.job, ack.op))
        if task is None:
            return
        without = ack.counter if ack.accepted else ack.held
        if ack.state == "none" and without is not None and without > task.let_go.get(node, -1):
            task.let_go[node] = without  # whoever asked: what it said it held under lower counters is past
            self._stir(task.key)
        if task.machine is None or self.node_of.get(task.machine) != node:
            return
        if ack.counter != task.counter or task.state not in GIVEN:
            return
        if ack.session is not None and (ack.term, ack.session) != self.authority:
            return  # rivals of one term may use the same counters
        self._counter = max(self._counter, ack.held or 0)
        if ack.state == "finished":
            self._ended(task.key, task.machine, ack.at, None)
        elif ack.state == "started":
            self._began(task.key, task.machine, ack.at)
        elif ack.accepted and task.withdrawn:
            self._again(task, now, task.why, rest_us=0)
        elif ack.accepted:
            task.listed, task.listed_at = task.counter, ack.at
            self._enter(task, "held" if task.state == "awarded" else task.state, stir=False)
        elif ack.state == "held" or task.withdrawn:  # it has it, or it may begin any moment: asked until that is known
            task.counter, task.withdrawn, task.why = self._next(task), True, ack.reason or task.why
            self._enter(task, task.state, stir=False)
        else:
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
                return self._interrupted(record)
            case StateChanged():
                if self.machines.on_state(record, self._heard(record.at)):
                    self.version += 1
                if record.state == "down":
                    return self._take_from(record.machine, self._heard(record.at))
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
        self.version += known is None or known.authority != agenda.authority or self._is_aside(known, agenda)
        self._hear(node)
        at = self._heard(agenda.at)
        if self.machines.on_agenda(agenda, at):
            self.version += 1
        sends: list[Send] = []
        listed = self._listed[node] = {
            (one.job, one.op): one
            for one in agenda.awards
            if one.state == "finished" or self.node_of.get(one.machine, node) == node
        }
        for key, one in listed.items():
            if (task := self.tasks.get(key)) is not None:
                self._learn(one.machine, node)
                sends += self._on_listed(task, one, agenda.at)
        for key in list(self._at.get(node, ())):
            if key not in listed:
                sends += self._on_unlisted(self.tasks[key], agenda.at)
            self._look_again(key)
        for machine in agenda.down:
            sends += self._take_from(machine, at)
        return sends

    def is_gone(self, job: str, op: int, machine: str) -> bool:
        """Whether the part that waits for `op` lies no more behind the machine of the operation before, as its node
        says: it was put aside, or fetched by an award that was withdrawn since."""
        said, before = self.agendas.get(self.node_of.get(machine, "")), self.tasks.get((job, op - 1))
        output = said.outputs.get(machine) if said is not None else None
        if output is None or before is None or before.ended_at is None:
            return False
        return before.ended_at <= output.at and job not in output.jobs

    def _is_aside(self, known: Agenda, agenda: Agenda) -> bool:
        """Whether a part left a counted place without anybody having decided where it goes."""
        for machine, output in agenda.outputs.items():
            before = known.outputs.get(machine)
            for job in set(before.jobs if before is not None else ()).difference(output.jobs):
                task = next((one for one in self.ops(job) if one.state != "done"), None)
                if task is not None and task.state in ("waiting", "open", "tendered"):
                    return True
        return False

    def on_presence(self, node: str, online: bool) -> None:
        """A node came or went."""
        if self.online.get(node) != online:
            self.online[node] = online
            self.version += 1
            self._hear(node)
            for key in self._at.get(node, ()):
                self._look_again(key)
                if not online:
                    self._loosen(key[0])

    def is_there(self, machine: str) -> bool:
        """Whether the node of a machine is online."""
        return self.online.get(self.node_of.get(machine, ""), False)

    @property
    def away(self) -> frozenset[str]:
        """Nodes that are not online."""
        return frozenset(node for node in self._nodes if not self.online.get(node, False))

    @property
    def all_there(self) -> bool:
        """Whether no node is away."""
        return all(self.online.get(node, False) for node in self._nodes)

    def on_time(self, now: int) -> list[Send]:
        """What time brings: awards said again, leases that ended, bids that grew old, work that is overdue."""
        self._now = now
        if self.fenced:
            return []
        if self._surely_at is not None and now >= self._surely_at:
            self._surely_at = None
            self.version += 1
        sends = self._take_ahead(now)
        for key in self._due.pop(now):
            task = self.tasks[key]
            sends += self._at_due(task, now)
            later = [at for at in self._times(task) if at > now]
            self._due.put(key, min(later, default=None))
        return sends

    def next_due(self) -> int | None:
        """When `on_time` must be called if nothing else happens; None: never."""
        if self.fenced:
            return None
        if self._adrift:
            return 0
        return min((at for at in (self._due.next(), self._surely_at) if at is not None), default=None)

    def on_connect(self) -> list[Send]:
        """After a reconnect the broker may have lost what it retained: every award in force once more."""
        return [send for task in self.of("awarded", "held") for send in self._said(task)]

    # --- what time brings ----------------------------------------------------------------------------

    def _times(self, task: Task) -> list[int]:
        """When something is due for a task, if nothing happens before."""
        if task.state == "open":
            return [task.not_sooner]
        if task.state == "tendered":
            if not task.asked and not task.bids:
                return [0]
            return [min(task.good_until.values())] if task.key in self._ready else [task.deadline]
        if task.state == "working":
            overdue = self._overdue_at(task)
            return [] if overdue is None or (self.is_there(task.machine or "") and task.why) else [overdue]
        if task.state not in GIVEN:
            return []
        times = [task.lease + self._skew_us]
        if task.state == "awarded" and not task.withdrawn:
            times.append(task.awarded_at + self._slowly_us(self.pace.silent_s))
        if (task.state == "awarded" or task.withdrawn) and self.is_there(task.machine or ""):
            times.append(task.sent_at + self._slowly_us(self.pace.repeat_s))
        return times

    def _at_due(self, task: Task, now: int) -> list[Send]:
        if task.state == "open" and now >= task.not_sooner:
            self._offerable[task.key] = None
        elif task.state == "tendered" and (not task.asked or now >= task.deadline):
            self._at_deadline(task, now)
        elif task.state == "working":
            overdue = self._overdue_at(task)
            if overdue is not None and now >= overdue and not self.is_there(task.machine or ""):
                task.why = f"{task.machine} should have finished, and its node is away"
                self._enter(task, "unknown")
            elif overdue is not None and now >= overdue and not task.why:
                end = datetime.fromtimestamp(overdue / SECOND - self.pace.overdue_s, UTC).isoformat(timespec="seconds")
                task.why = f"{task.machine} should have finished at {end}: is it still at work?"
                self._stir(task.key)
        elif task.state in GIVEN:
            if now >= task.lease + self._skew_us and (sends := self._at_lease_end(task, now)):
                return sends
            if (
                task.state == "awarded"
                and not task.withdrawn
                and now >= task.awarded_at + self._slowly_us(self.pace.silent_s)
            ):
                return self.withdraw(task.key, now, "its node does not answer")
            asked = task.state == "awarded" or (task.state in GIVEN and task.withdrawn)
            if (
                asked
                and self.is_there(task.machine or "")
                and now >= task.sent_at + self._slowly_us(self.pace.repeat_s)
            ):
                task.sent_at = now
                return self._said(task)
        return []

    def _at_deadline(self, task: Task, now: int) -> None:
        old = [name for name, until in task.good_until.items() if until <= now]
        for name in old:
            del task.bids[name], task.good_until[name]
        if task.bids:
            if task.key not in self._ready or old:
                self._ready[task.key] = None
                self._stir(task.key)
                self.version += 1
            return
        declined = "; ".join(f"{name}: {text}" for name, text in sorted(task.declined.items()))
        task.why = declined or ("bids grew old before an award" if old else "nobody bid")
        began = min(now, task.deadline) if old else now  # bids that were good for long need no rest
        task.not_sooner = max(now, began + _us(self.pace.retry_s))
        self._enter(task, "open")
        if task.not_sooner <= now:
            self._offerable[task.key] = None

    def _at_lease_end(self, task: Task, now: int) -> list[Send]:
        node = self.node_of.get(task.machine or "", "")
        if task.machine == task.clearing:  # it gives nothing to begin
            if task.state != "unknown" and not self.online.get(node, False):
                task.why = f"cancelled; {node}, which is away, has to put its part aside at {task.machine}"
                self._enter(task, "unknown")
            return []
        said = self.agendas.get(node)
        if node == "":
            if (self.tags or task.cancelled) and not task.begun:
                self._again(task, now, f"it was not begun in time on {task.machine}, which is not in the plant")
        elif said is not None and said.at >= max(task.lease, task.began_at or 0):
            if task.key not in self._listed[node]:
                self._again(task, now, "it was not begun in time")
        elif self.online.get(node, False):
            return self.withdraw(task.key, now, "it was not begun in time")
        elif task.state != "unknown":
            if self.tags and not task.cancelled:  # nobody waits for what is cancelled: then rather know
                self._again(task, now, f"it was not begun in time, and {node} is away")
            else:
                task.why = f"{node} is away and may have begun it"
                self._enter(task, "unknown")
        return []

    def _overdue_at(self, task: Task) -> int | None:
        if task.began_at is None or task.machine is None:
            return None
        return task.began_at + round((task.seconds.get(task.machine, 0.0) + self.pace.overdue_s) * SECOND)

    def _look_again(self, key: Key) -> None:
        """Something was heard that may settle what was due."""
        self._due.put(key, min(self._times(self.tasks[key]), default=None))

    def _take_ahead(self, now: int) -> list[Send]:
        """What was awarded before its part was ready, and whose part does not come as was foreseen, is withdrawn: it
        would keep others waiting behind it."""
        sends: list[Send] = []
        for job in self._adrift:
            comes = True
            for task in self.ops(job):
                if task.state in ("awarded", "held") and not comes:
                    sends += self.withdraw(task.key, now, "its part does not come as was foreseen")
                if task.state in ("awarded", "held", "working") and not task.withdrawn:
                    machine = task.machine or ""
                    comes = comes and self.is_there(machine) and not self.machines.is_down(machine)
                elif task.state != "done":
                    comes = False
        self._adrift.clear()
        return sends

    def _loosen(self, job: str) -> None:
        """See whether its part still comes."""
        if job in self._ahead:
            self._adrift[job] = None

    def _before(self, task: Task) -> list[Task]:
        """Operations just before it that are not done."""
        found: list[Task] = []
        while (before := self.tasks.get((task.job, task.op - 1 - len(found)))) is not None and before.state != "done":
            found.append(before)
        return found

    # --- what is heard -------------------------------------------------------------------------------

    def _hear(self, node: str) -> None:
        said = self.agendas.get(node)
        strange = node in self._nodes and (said is None or said.authority != self.authority)
        (self._strangers.add if strange else self._strangers.discard)(node)
        silent = strange and self.online.get(node, False)
        if silent != (node in self._silent):
            (self._silent.add if silent else self._silent.discard)(node)
            self.version += 1

    def _heard(self, at: int) -> int:
        """When it was heard, at the latest, that something happened `at` by a clock that may be ahead of this judge's,
        which was told the time within the last renewal of its word."""
        return min(at, self._now + _us(self.pace.renew_s)) if self._now else at

    def _on_listed(self, task: Task, one: Held, at: int) -> list[Send]:
        sends: list[Send] = []
        if one.state == "finished":
            return self._ended(task.key, one.machine, one.at, None)
        node = self.node_of.get(one.machine, "")
        if one.state == "held" and one.counter <= task.let_go.get(node, -1):
            return []  # it was said before it let go
        if one.state == "held" and task.state in ("working", "done"):
            return [] if node == self.node_of.get(task.machine or "") else self._take_back(task, one.machine)
        if task.state == "done":
            return []
        if one.state == "started":
            sends = self._began(task.key, one.machine, one.at)
            if task.state == "working" and task.machine == one.machine:
                task.counter = max(task.counter, one.counter)
                task.listed, task.listed_at = task.counter, at
        elif one.counter >= task.counter or task.state not in GIVEN:  # else: `_elsewhere`, when nobody else has it
            sends = self._holds(task, one, at)
        return sends

    def _holds(self, task: Task, one: Held, at: int) -> list[Send]:
        """Its node says so, whoever awarded it."""
        sends: list[Send] = []
        news = task.state != "held" or (task.machine, task.counter) != (one.machine, one.counter)
        task.machine, task.counter, task.lease = one.machine, one.counter, one.valid_until
        task.ahead = one.ahead
        task.listed, task.listed_at, task.began_at = one.counter, at, None
        if news:
            task.withdrawn = False
            self._enter(task, "held")
            sends = self._done_before((task.job, task.op - one.ahead))
        if task.cancelled:
            sends += self.withdraw(task.key, self._heard(at), "cancelled")
        return sends

    def _elsewhere(self, task: Task, but: str) -> list[tuple[str, Held]]:
        """Other nodes that say they hold it, by awards they have not let go since; the latest award first."""
        found = []
        for node in {self.node_of.get(machine, "") for machine in task.seconds} - {but}:
            one = self._listed.get(node, {}).get(task.key)
            if one is not None and one.state == "held" and one.counter > task.let_go.get(node, -1):
                found.append((node, one))
        return sorted(found, key=lambda pair: (-pair[1].counter, pair[0]))

    def _on_unlisted(self, task: Task, at: int) -> list[Send]:
        """Its node said once that it has it, and does not any more: it is nobody's."""
        sends: list[Send] = []
        if task.counter and task.listed == task.counter and at > task.listed_at:
            if task.begun:
                task.lost[task.machine or ""] = max(task.lost.get(task.machine or "", -1), at)
                sends = self._scrapped(task, task.machine, at)
                self._again(task, at, task.why if task.cancelled else "interrupted: its node has it no more")
            else:
                self._again(task, at, "its node gave it up")
        return sends

    def _interrupted(self, record: Interrupted) -> list[Send]:
        task = self.tasks.get((record.job, record.op))
        if task is None or task.over or record.at <= task.lost.get(record.machine, -1):
            return []
        task.lost[record.machine] = record.at
        self._stir(task.key)
        sends = self._scrapped(task, record.machine, record.at)
        since = task.began_at or 0 if task.begun else max(task.awarded_at - self._skew_us, task.listed_at)
        if task.machine == record.machine and record.at >= since:  # else it tells of work before that
            self._again(task, record.at, task.why if task.cancelled else "interrupted: the machine broke down")
        return sends

    def _scrapped(self, task: Task, machine: str | None, at: int) -> list[Send]:
        """Where a breakdown destroys the part, its job ends."""
        if machine not in self.scraps:
            return []
        why = f"scrapped: {machine} broke down at work on op {task.op}"
        sends = [send for one in self.ops(task.job) for send in self.cancel(one.key, at, why)]
        task.why = why
        return sends

    def _take_from(self, machine: str, now: int) -> list[Send]:
        """It is broken: what it holds may be done elsewhere, if anybody could."""
        if self.began_at is None or self.fenced:
            return []
        sends: list[Send] = []
        for key in list(self._at.get(self.node_of.get(machine, ""), ())):
            task = self.tasks[key]
            if task.machine == machine:
                self._loosen(task.job)
            if task.machine == machine and task.state in ("awarded", "held"):
                others = able(task.seconds, self.machines, but=machine)
                if any(self.is_there(name) for name in others):
                    sends += self.withdraw(key, now, f"{machine} broke down")
        return sends

    def _began(self, key: Key, machine: str, at: int) -> list[Send]:
        task = self.tasks.get(key)
        if task is None or task.state == "done" or at <= task.lost.get(machine, -1):
            return []
        if task.state == "working" and task.machine == machine:
            if at < (task.began_at or 0):
                task.began_at = at
                self._stir(key)
            return []
        foreseen = task.state in ("awarded", "held") and task.machine == machine
        sends = self._let_go(task, machine)
        task.machine, task.began_at, task.withdrawn = machine, at, False
        task.why = task.why if task.cancelled else ""
        self._carried(task)
        self._enter(task, "working", stir=not foreseen)
        return sends + self._done_before(key)

    def _ended(self, key: Key, machine: str, at: int, began_at: int | None) -> list[Send]:
        task = self.tasks.get(key)
        if task is None:
            return []
        self.machines.on_ended(machine, self._heard(at))
        if task.state == "done":
            self._if_twice(task, machine, at, began_at)
            if task.ended_at is None or at < task.ended_at or (began_at is not None and began_at != task.began_at):
                task.machine, task.ended_at = machine, at
                task.began_at = began_at if began_at is not None else task.began_at
                self._stir(key)
            return []
        sends = self._let_go(task, machine)
        task.machine, task.ended_at, task.withdrawn, task.why = machine, at, False, ""
        task.began_at = began_at if began_at is not None else task.began_at
        self._carried(task)
        self._enter(task, "done")
        after = self.tasks.get((task.job, task.op + 1))
        if after is not None and after.state == "cancelled":
            self._nobodys(after, at)
        return sends + self._done_before(key)

    def _if_twice(self, task: Task, machine: str, at: int, began_at: int | None) -> None:
        """Say so where what is told of a task that is done is another run of it than the one known."""
        if task.ended_at is None or task.machine is None:
            return
        apart = None not in (began_at, task.began_at) and (
            (began_at or 0) >= task.ended_at or at <= (task.began_at or 0)
        )
        if task.twice or not (machine != task.machine or apart):
            return
        task.twice, task.why = True, f"done twice: by {task.machine} and by {machine}; look which part is the good one"
        self.twice[task.job] = task.why
        self._stir(task.key)
        self.version += 1

    def _done_before(self, key: Key) -> list[Send]:
        """Who began or did an operation knew that those before it were done."""
        sends: list[Send] = []
        for op in range(key[1] - 1, -1, -1):
            task = self.tasks.get((key[0], op))
            if task is None or task.state == "done":
                break
            sends += self._let_go(task, "")
            self._enter(task, "done")
        return sends

    def _let_go(self, task: Task, machine: str) -> list[Send]:
        """Another machine has it after all: whoever holds it may forget it."""
        sends: list[Send] = []
        for _, one in self._elsewhere(task, self.node_of.get(machine, "")):
            if one.machine != task.machine:
                sends += self._take_back(task, one.machine)
        if task.state in ("awarded", "held") and task.machine not in (None, machine):
            sends += self._take_back(task, task.machine or "")
            task.counter = self._counter
        return sends

    def _take_back(self, task: Task, machine: str) -> list[Send]:
        return [] if self.fenced else self._award(task, withdrawn_from=machine, counter=self._next(task))

    def _again(self, task: Task, now: int, why: str, *, rest_us: int | None = None) -> None:
        """Nobody's again."""
        if task.carried and task.carried.departs_at <= now:
            self._carried(task)
        left = self.node_of.get(task.machine or "", "")
        task.why, task.machine, task.began_at, task.carried = why, None, None, None
        task.withdrawn, task.listed = False, 0
        task.not_sooner = self._heard(now) + (_us(self.pace.retry_s) if rest_us is None else rest_us)
        for node, one in self._elsewhere(task, left):
            if not self.tags or now < one.valid_until or self.online.get(node, False):
                self._holds(task, one, self.agendas[node].at)
                return
        if task.cancelled:
            self._nobodys(task, now)
        else:
            self._enter(task, "open")

    def _nobodys(self, task: Task, now: int) -> None:
        """Cancelled: it ends, once whoever may have its part at an output that counts knows that nobody fetches it."""
        before = self.tasks.get((task.job, task.op - 1))
        at = before.machine if before is not None and before.state == "done" else None
        if at not in self.keeps or task.clearing == at:
            self._enter(task, "cancelled")
            return
        task.machine = task.clearing = at
        task.counter, task.withdrawn = self._next(task), True
        task.lease, task.sent_at = now + self.lease_us, now - self._slowly_us(self.pace.repeat_s)
        self._enter(task, "held")

    def _if_unknown(self, task: Task) -> None:
        """Its machine may have been taken out of the plant while the book lay on the disk: of it nobody hears."""
        if task.machine is None or task.machine in self.node_of or task.state not in (*GIVEN, "working"):
            return
        cure = "put the machine back into the plant, or cancel the job"
        given = f"it was begun on {task.machine}" if task.begun else f"{task.machine} has it until its lease ends"
        task.why = f"{given}, and that machine is not in the plant: {cure}"
        self._enter(task, "unknown")

    @staticmethod
    def _keep_bids(task: Task, machines: Container[str]) -> None:
        for name in [name for name in task.bids if name not in machines or name not in task.good_until]:
            del task.bids[name]
        task.good_until = {name: task.good_until[name] for name in task.bids}

    def _learn(self, machine: str, node: str) -> None:
        """A node with a newer plant than this judge's has machines this one has not heard of."""
        if machine not in self.node_of and len(self.node_of) < MAX_FOREIGN + self._planned:
            self.node_of[machine] = node

    # --- where everything stands ---------------------------------------------------------------------

    def _insert(self, task: Task) -> None:
        self.tasks[task.key] = task
        self._ops.setdefault(task.job, {})[task.op] = None
        self.progressed[task.job] = None
        self._index(task)

    def _enter(self, task: Task, state: State, *, stir: bool = True) -> None:
        self._of[task.state].pop(task.key, None)
        task.state = state
        self._index(task)
        if task.over:
            self.progressed[task.job] = None
        if task.ahead and state in ("awarded", "held"):
            self._ahead[task.job] = None
        elif state in ("open", "unknown"):
            self._loosen(task.job)
        self._stir(task.key)
        self.version += stir

    def _index(self, task: Task) -> None:
        key = task.key
        self._of[task.state][key] = None
        self._leave(key)
        if task.machine is not None and task.state in (*GIVEN, "working"):
            node = self._where[key] = self.node_of.get(task.machine, "")
            self._at.setdefault(node, {})[key] = None
        if task.state != "open":
            self._offerable.pop(key, None)
        if task.state == "tendered" and task.bids and not task.asked:
            self._ready[key] = None
        elif task.state != "tendered" or not task.bids:
            self._ready.pop(key, None)
        self._due.put(key, min(self._times(task), default=None))

    def _stir(self, key: Key) -> None:
        """It has changed."""
        self.changed.add(key)
        self.moved.add(key[0])

    def _leave(self, key: Key) -> None:
        if (node := self._where.pop(key, None)) is not None:
            self._at[node].pop(key, None)

    def _carried(self, task: Task) -> None:
        """The vehicle that brought it is where the part is."""
        if task.carried and task.carried.vehicle >= 0 and task.machine is not None:
            came = self.vehicles.get(task.carried.vehicle, (-1, ""))
            self.vehicles[task.carried.vehicle] = max(came, (task.carried.arrives_at, task.machine))

    def _late(self, node: str, bid: Bid, now_in: int) -> None:
        """It answers a round that is over, and had not answered it: answers need longer than was waited then."""
        waited = self._missed.pop(((bid.job, bid.op), node, bid.round), None)
        if waited is not None:
            most = max(1.0, PATIENT.offer_s / self.pace.offer_s)
            self._slow, self._prompt = min(most, max(self._slow, 2.0 * waited * (1 + now_in - bid.round))), 0

    def _in_time(self, task: Task) -> None:
        """All have answered; rounds that were offered before patience was last changed tell nothing."""
        if self._slow > 1 and self._waited.get(task.key) == self._slow:
            self._prompt += 1
            if self._prompt >= PROMPT:
                self._slow, self._prompt = max(1.0, self._slow / 2), 0

    def _slowly_us(self, seconds: float) -> int:
        return _us(self._slow * seconds)

    def _next(self, task: Task) -> int:
        self._counter = max(self._counter, task.counter) + 1
        return self._counter

    def _said(self, task: Task) -> list[Send]:
        return self._award(task, withdrawn_from=task.machine if task.withdrawn else None)

    def _award(self, task: Task, *, withdrawn_from: str | None = None, counter: int | None = None) -> list[Send]:
        machine = withdrawn_from or task.machine or ""
        node = self.node_of.get(machine)
        if node is None:
            return []  # nobody knows where to send it: the award ends with its lease
        body = Award(
            term=self.authority.term,
            session=self.authority.session,
            job=task.job,
            op=task.op,
            round=task.round,
            machine=None if withdrawn_from else machine,
            not_before=task.not_before,
            seconds=task.seconds.get(machine, 0.0),
            last=task.last,
            ahead=0 if withdrawn_from else task.ahead,
            fetch_at=None if withdrawn_from else task.fetch_at,
            cancelled=task.cancelled and withdrawn_from is not None,
        )
        envelope = Envelope[Award](
            key=task_of(task.job, task.op),
            target=f"{self.site}/{node}",
            counter=task.counter if counter is None else counter,
            valid_until=task.lease,
            body=body,
        )
        return [Send("award", node, envelope.key, envelope)]


def _us(seconds: float) -> int:
    return round(seconds * SECOND)
