"""The judge's book: every task from waiting to done, what was offered, bid, awarded, acknowledged and begun.

    book = Tenders(judge, site="s1", judge="cloud", machines={"lathe-1": "cell-1", …})
    book.add(Task(job="T1", op=0, seconds={"lathe-1": 12.0}))
    book.open(("T1", 0)); sends = book.offer(("T1", 0), now)  # then on_bid … ready() … award() … on_ack … on_record

Pure: methods take what came and the plant time, return what to send, and leave the names of changed tasks in `changed`,
so that the shell writes them to the disk before it sends. Whatever comes twice, late, out of order or from a fenced
judge changes nothing. A task is tendered again when its award is refused or withdrawn, when its work was interrupted,
or when its lease has ended and its node has said since that it does not have it. What has begun is finished.

A judge that begins awards nothing until every node that is there has said (`Agenda`) that it obeys this term and what
it holds. Agendas alone make a book complete: what comes before an operation that was begun or done is done; what comes
before one that was awarded, too, but for as many operations as its award says.

This file says to which part each message goes, and in which order. Every part has one idea, says what of a task it
writes, and uses those it was given when it was made, never the book:

    term        who judges, and who obeys               awarding    awards, withdrawals, their numbers
    nodes       who is there, what each says it has     deeds       what machines did
    awaiting    how long answers are awaited            holdings    what nodes say they hold
    due         when something is due                   losses      refused, broken, cancelled: again, or ended
    ledger      where each task stands, what changed    answers     what nodes answer to awards
    tendering   offers, bids, rounds                    leases      leases that end, work that is overdue

Bounds: awards and withdrawals are repeated `Pace.repeat_s` apart while their node is there. Nothing is forgotten before
`forget` is called for a job that is done. A bid, an acknowledgement, a record costs the same however many tasks there
are, an agenda as many steps as it has entries, `on_time` as many as are due. Call it at `next_due`; calling it earlier
does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from messages.contracts import Finished, Interrupted, Record, Started, StateChanged
from messages.dispatch.answers import Answers
from messages.dispatch.awaiting import Awaiting
from messages.dispatch.awarding import Awarding
from messages.dispatch.deeds import Deeds
from messages.dispatch.due import Due
from messages.dispatch.holdings import Holdings
from messages.dispatch.leases import Leases
from messages.dispatch.ledger import Ledger
from messages.dispatch.losses import Losses
from messages.dispatch.nodes import Nodes
from messages.dispatch.outputs import is_gone, put_aside
from messages.dispatch.task import Carried, Key, Send, State, Task
from messages.dispatch.tendering import Tendering
from messages.dispatch.term import Term
from messages.dispatch.told import Machines
from messages.negotiation import MAX_DELEGATES, Agenda, Authority, AwardAck, Bid, JudgeInForce
from messages.pace import PATIENT, Pace


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
        now: int = 0,
        late_us: int = 0,
    ) -> None:
        """`now`: plant time, by which times that are read before the term begins are bounded; 0: not known.
        `late_us`: of messages, as the judge before this one left it."""
        self.authority, self.judge, self.tags, self.pace = authority, judge, tags, pace
        self.delegates = list(delegates)[:MAX_DELEGATES]
        self.machines = Machines()
        """What is known of each."""
        self.nodes = nodes = Nodes(machines)
        """Who is there, and what each says it holds; to be read, not written."""
        self._term = term = Term(authority, nodes=nodes.planned, tags=tags, pace=pace, now=now)
        self._awaiting = awaiting = Awaiting(pace, late_us)
        due = Due(pace, awaiting, nodes)
        self._ledger = ledger = Ledger(nodes, due)
        self._tendering = Tendering(ledger, nodes, term, awaiting, pace)
        self._awarding = awarding = Awarding(ledger, nodes, term, awaiting, pace, site=site)
        self._deeds = deeds = Deeds(ledger, term, awarding, self.machines)
        self._holdings = holdings = Holdings(ledger, nodes, term, awarding, deeds)
        self._losses = losses = Losses(ledger, nodes, self.machines, term, awarding, deeds, holdings, pace)
        self._answers = Answers(ledger, nodes, term, awarding, deeds, losses)
        self._leases = Leases(ledger, nodes, due, term, awarding, losses, pace)
        self.tasks: Mapping[Key, Task] = ledger.tasks
        self.changed = ledger.changed
        """Tasks to be written to the disk (or, where no longer in `tasks`, removed) before anything is sent; the shell
        empties it."""
        self.moved = ledger.moved
        """Jobs of which a task changed; who keeps what he saw of jobs takes them out."""
        self.progressed = ledger.progressed
        """Jobs of which a task was added or is over; whoever opens tasks takes them out."""
        self.twice: Mapping[str, str] = deeds.twice
        """Jobs of which an operation was done more than once, and by whom."""
        self.vehicles: Mapping[int, tuple[int, str]] = deeds.vehicles
        """Vehicle → when it came, and where, with what it was last foreseen to carry."""
        for task in tasks:
            self._recall(task)

    def reckon_with(self, *, keeps: Iterable[str] = (), scraps: Iterable[str] = ()) -> None:
        """Machines behind which places are counted, and those whose breakdown destroys the part at work."""
        self._awarding.keeps, self._losses.scraps = frozenset(keeps), frozenset(scraps)

    def ops(self, job: str) -> list[Task]:
        """Tasks of a job in the order in which they were added."""
        return self._ledger.ops(job)

    def of(self, *states: State) -> list[Task]:
        """Tasks in these states."""
        return self._ledger.of(*states)

    @property
    def version(self) -> int:
        """Rises whenever a judge might decide otherwise."""
        return self._ledger.version

    @property
    def late_us(self) -> int:
        """How much later than the pace says answers come: its word is good for so much longer."""
        return self._awaiting.late_us

    # --- who judges, who is there ----------------------------------------------------------------------

    def begin(self, now: int) -> list[Send]:
        """Say who judges from now on."""
        if self._term.begin(now):
            self._ledger.rouse()
        term, session = self.authority
        body = JudgeInForce(term=term, session=session, judge=self.judge, at=now, delegates=self.delegates)
        return [Send("judge", "", "", body)]

    def on_judge(self, other: JudgeInForce) -> None:
        """Hear of a judge: a higher one fences this one for good; it may begin again only with a term of its own."""
        self._term.on_authority(other.authority)

    @property
    def fenced(self) -> bool:
        """Whether a higher judge was heard of: this one sends nothing any more."""
        return self._term.fenced

    @property
    def established(self) -> bool:
        """Whether every node that is there has said that it obeys this judge: it awards nothing until they do."""
        return self._term.established

    @property
    def silent(self) -> tuple[str, ...]:
        """Nodes that are there and have not said yet that they obey this judge."""
        return self._term.silent

    def is_gone(self, job: str, op: int, machine: str) -> bool:
        """Whether the part that waits for `op` lies no more behind the machine of the operation before."""
        said = self.nodes.agendas.get(self.nodes.of(machine))
        return is_gone(job, self.tasks.get((job, op - 1)), said, machine)

    # --- tasks come and go -------------------------------------------------------------------------------

    def add(self, task: Task) -> list[Send]:
        """A task to be done once it is opened; one that is known already stays as it is, but for the machines that can
        do it. What agendas said of it before counts."""
        if (known := self.tasks.get(task.key)) is not None:
            if known.seconds != task.seconds and not known.over:
                known.seconds = dict(task.seconds)
                self._tendering.keep_bids(known, known.seconds)
                self._ledger.enter(known, known.state)
            return []
        self._ledger.insert(task)
        self._ledger.touch(task.key)
        said = self.nodes.lists_of(task.key)
        return [send for one, at in said for send in self._holdings.on_listed(task, one, at)]

    def due(self, job: str, due_at: int | None) -> None:
        """A job is due at another time than was said before."""
        for task in self.ops(job):
            task.due_at = due_at
            self._ledger.touch(task.key)
        self._ledger.rouse()

    def done_until(self, job: str, count: int, *, machine: str | None, at: int) -> list[Send]:
        """Somebody knows that its first operations are done, the last of them on `machine`."""
        return self._deeds.done_until(job, count, machine=machine, at=at)

    def cancel(self, key: Key, now: int, why: str = "cancelled") -> list[Send]:
        """Nobody wants it any more: it ends as cancelled, unless it has begun."""
        return self._losses.cancel(self._ledger.tasks[key], now, why)

    def forget(self, job: str) -> None:
        """A job that is done leaves the book."""
        for key in self._ledger.forget(job):
            self._awaiting.forget(key)
        self._deeds.twice.pop(job, None)

    # --- offers, bids, awards ------------------------------------------------------------------------------

    def open(self, key: Key) -> None:
        """Its part is ready for it."""
        self._tendering.open(key)

    def open_ahead(self, key: Key) -> bool:
        """Its part is not ready, but somebody is at it, or will soon be; False: it is not so, or it is open already."""
        return self._tendering.open_ahead(key)

    def offerable(self) -> list[Key]:
        """Open tasks that have rested, as `on_time` found them."""
        return list(self._ledger.offerable)

    def offer(self, key: Key, now: int, arrives_at: Mapping[str, int] | None = None) -> list[Send]:
        """Ask every able node that is there."""
        return self._tendering.offer(key, now, arrives_at)

    def on_bid(self, node: str, bid: Bid) -> None:
        """Take a bid of this round in, once; of another round, judge or node it changes nothing."""
        self._tendering.on_bid(node, bid)

    @property
    def any_ready(self) -> bool:
        """Whether there are bids to decide on."""
        return bool(self._ledger.ready)

    def ready(self, now: int) -> list[Task]:
        """Tasks that can be awarded now: bids are in, or the time for them is over."""
        return self._tendering.ready(now)

    def is_ready(self, key: Key, now: int) -> bool:
        """Whether it can be awarded now."""
        return self._tendering.is_ready(key, now)

    def is_coming(self, key: Key, now: int, *, unasked: bool) -> bool:
        """Whether it is soon known if it can be awarded: bids are awaited, or (`unasked`) its part is at work or will
        be."""
        return self._tendering.is_coming(key, now, unasked=unasked)

    def award(
        self, key: Key, machine: str, now: int, *, not_before: int = 0, carried: Carried | None = None
    ) -> list[Send]:
        """Give it to a machine that has bid; `carried`: how its part is to come there."""
        task = self.tasks[key]
        if not self._tendering.is_good(task, machine, now):
            return []
        return self._awarding.award(task, machine, now, not_before=not_before, carried=carried)

    def withdraw(self, key: Key, now: int, why: str) -> list[Send]:
        """Ask for an award back. It is open again when its node has acknowledged that, unless work has begun."""
        return self._awarding.withdraw(self.tasks[key], now, why)

    # --- what is heard ---------------------------------------------------------------------------------------

    def on_ack(self, node: str, ack: AwardAck, now: int) -> None:
        """What the node made of an award or a withdrawal."""
        self._answers.on_ack(node, ack, now)

    def on_record(self, record: Record) -> list[Send]:
        """What a machine did, as its node tells it: facts count whoever awarded them. They may overtake each other."""
        match record:
            case Started():
                return self._deeds.began((record.job, record.op), record.machine, record.at)
            case Finished():
                return self._deeds.ended((record.job, record.op), record.machine, record.at, record.started_at)
            case Interrupted():
                return self._losses.interrupted(record)
            case StateChanged():
                at = self._term.heard(record.at)
                if self.machines.on_state(record, at):
                    self._ledger.rouse()
                return self._losses.broke(record.machine, at) if record.state == "down" else []
        return []

    def on_agenda(self, node: str, agenda: Agenda) -> list[Send]:
        """What a node holds: facts to this book, whoever awarded them. An older one than known changes nothing."""
        known = self.nodes.agendas.get(node)
        if not self.nodes.on_agenda(node, agenda):
            return []
        self._term.on_authority(agenda.authority)
        if known is None or known.authority != agenda.authority or self._is_aside(known, agenda):
            self._ledger.rouse()
        self._hear(node)
        at = self._term.heard(agenda.at)
        if self.machines.on_agenda(agenda, at):
            self._ledger.rouse()
        sends: list[Send] = []
        listed = self.nodes.listed(node)
        for key, one in listed.items():
            if (task := self.tasks.get(key)) is not None:
                self.nodes.learn(one.machine, node)
                sends += self._holdings.on_listed(task, one, agenda.at)
        for key in self._ledger.at(node):
            if key not in listed:
                sends += self._losses.unlisted(self.tasks[key], agenda.at)
            self._ledger.look_again(key)
        for machine in agenda.down:
            sends += self._losses.broke(machine, at)
        return sends

    def on_presence(self, node: str, online: bool) -> None:
        """A node came or went."""
        if not self.nodes.on_presence(node, online):
            return
        self._ledger.rouse()
        self._hear(node)
        for key in self._ledger.at(node):
            self._ledger.look_again(key)
            if not online:
                self._ledger.ahead.loosen(key[0])

    def on_connect(self) -> list[Send]:
        """After a reconnect the broker may have lost what it retained: every award in force once more."""
        return [send for task in self.of("awarded", "held") for send in self._awarding.say_again(task)]

    # --- what time brings --------------------------------------------------------------------------------------

    def on_time(self, now: int) -> list[Send]:
        """What time brings: awards said again, leases that ended, bids that grew old, work that is overdue."""
        if self._term.on_time(now):
            self._ledger.rouse()
        if self.fenced:
            return []
        sends = self._losses.adrift(now)
        for task in self._ledger.due(now):
            self._tendering.at_due(task, now)
            sends += self._leases.at_due(task, now)
            self._ledger.carry_on(task.key, now)
        return sends

    def next_due(self) -> int | None:
        """When `on_time` must be called if nothing else happens; None: never."""
        if self.fenced:
            return None
        if self._ledger.ahead.adrift:
            return 0
        return min((at for at in (self._ledger.next_due(), self._term.next_due()) if at is not None), default=None)

    # --- private -----------------------------------------------------------------------------------------------

    def _recall(self, task: Task) -> None:
        """A task comes from the disk."""
        self._tendering.keep_bids(task, self.nodes.node_of)
        self._ledger.insert(task)
        self._leases.orphaned(task)
        self._awarding.used(task.counter)
        self._deeds.recall(task)

    def _hear(self, node: str) -> None:
        """Whether it obeys, and is there, may be otherwise now."""
        said = self.nodes.agendas.get(node)
        if self._term.hear(node, said.authority if said else None, there=self.nodes.is_online(node)):
            self._ledger.rouse()

    def _is_aside(self, known: Agenda, agenda: Agenda) -> bool:
        """Whether a part left a counted place without anybody having decided where it goes."""
        for job in put_aside(known, agenda):
            task = next((one for one in self.ops(job) if one.state != "done"), None)
            if task is not None and task.state in ("waiting", "open", "tendered"):
                return True
        return False
