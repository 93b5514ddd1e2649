"""The scheduling agent of a site: opens tasks as parts get ready, tenders them, lets a judge decide, awards.

    agent = Dispatcher(plant, book, judge=ByRule(kind="fifo"), t0=t0)
    agent.add(jobs); sends = agent.on_record(record) + agent.on_tick(now)

Pure: what comes in are bids, acknowledgements and agendas (`agent.book`), records and the plant time; what comes out is
to be sent. Every open task is tendered at once, so that bids are there when the judge wants to award it; only what must
begin now is awarded, the rest may be thought over when something has happened. A fenced agent sends nothing.

It goes on after a restart from the tasks of its book and its orders: the shell writes the tasks named in
`book.changed`, and the orders of `add`, to the disk before it sends. All else is said again by the nodes.

What came is remembered for judges that reckon with more of the like (`messages.dispatch.outlook`): orders that were
not announced ahead, from the begin of this agent on.

Bound: a decision looks at `look` jobs (`messages.dispatch.situation`), and knows the last `CAME` that came. A job that
is over stays in the book until `forget`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from messages.circular import MARK
from messages.clock import SECOND
from messages.contracts import OrderedJob, Record, Signal
from messages.dispatch.calendar import Calendar
from messages.dispatch.components import Components
from messages.dispatch.course import Courses
from messages.dispatch.decode import Choice, Weights
from messages.dispatch.ground import Ground
from messages.dispatch.judge import Decision, Judge
from messages.dispatch.shop import Work
from messages.dispatch.situation import LOOK, situation
from messages.dispatch.state import State
from messages.dispatch.task import Send, Task
from messages.dispatch.tenders import Tenders
from messages.dispatch.turns import Question, carry_out
from messages.negotiation import MAX_OPEN, OpenJob
from messages.plant import Plant

CAME = 64
"""Jobs that came, remembered."""


@dataclass
class Dispatcher:
    """One site's scheduling agent. `t0`: tick 0 of its clock, µs. `jobs`: orders known from before, over or not; their
    tasks may be in the book already."""

    plant: Plant
    book: Tenders
    judge: Judge
    t0: int
    weights: Weights = field(default_factory=Weights)
    seed: int = 0
    ahead: int = 0
    """Ticks: what must begin within them is awarded too, so that awards are there in time."""
    look: int = LOOK
    jobs: dict[str, OrderedJob] = field(default_factory=dict)
    signals: dict[str, Signal] = field(default_factory=dict)
    decisions: int = 0
    stuck: tuple[str, ...] = ()
    """Jobs whose parts block each other in every order, by the last decision: somebody must clear a machine."""
    components: Components | None = None
    """where the plant takes things apart and builds from what it recovers"""
    prior: Sequence[Choice] = ()
    """a plan made elsewhere: one more sequence for the judge to begin with"""
    begun_itself: list[OrderedJob] = field(default_factory=list)
    """jobs the plant began itself; whoever tells others of them takes them out"""
    _left: dict[str, OrderedJob] = field(default_factory=dict)
    _released: Calendar[str] = field(default_factory=Calendar)
    _memory: Sequence[Choice] = ()
    _looked: int = -1
    _again_at: int | None = None
    _said_at: int | None = None
    _courses: Courses = field(default_factory=Courses)
    _ground: tuple[tuple[int, ...], Ground] | None = None
    _new: list[OrderedJob] = field(default_factory=list)
    """Heard of since the last decision."""
    _came: deque[Work] = field(default_factory=lambda: deque(maxlen=CAME))

    def __post_init__(self) -> None:
        machines = self.plant.machines
        self.book.reckon_with(
            keeps=(name for name, (_, one) in machines.items() if one.buffer.out is not None),
            scraps=(name for name, (shop, _) in machines.items() if shop.on_breakdown == "scrap"),
        )
        if self.plant.circular is not None:
            self.components = Components(self.plant, self.book)
            own = self.components.own_jobs()
            self.begun_itself += own
            self.add(own)
        self.add(list(self.jobs.values()))

    def add(self, jobs: Iterable[OrderedJob]) -> list[Send]:
        """Orders: their tasks wait for their parts. One that is known gets the due date said last."""
        sends: list[Send] = []
        for job in jobs:
            route = self.plant.route(job.product)
            known = self.jobs.get(job.job)
            if known is None:
                self._new = [*self._new, job][-CAME:]
            self.jobs[job.job] = self._left[job.job] = job
            if self.components is not None:
                self.components.inventory.add(job)
            for op, (_, able) in enumerate(route):
                seconds = {machine: hours * 3600 for machine, hours in able.items()}
                last = op == len(route) - 1
                sends += self.book.add(Task(job=job.job, op=op, seconds=seconds, due_at=job.due_at, last=last))
            if known is not None and known != job:
                self.book.due(job.job, job.due_at)
            self.book.progressed[job.job] = None
        return sends

    def cancel(self, jobs: Iterable[str], now: int, why: str = "cancelled") -> list[Send]:
        """What works is finished; the rest is nobody's, as soon as who holds it says so, and ends as cancelled."""
        sends: list[Send] = []
        for job in jobs:
            for task in self.book.ops(job):
                sends += self.book.cancel(task.key, now, why)
        return sends

    def adopt(self, jobs: Iterable[OpenJob], now: int) -> list[Send]:
        """Begin where another judge was: what it knew to be done is done. Agendas tell what has happened since."""
        sends: list[Send] = []
        for one in jobs:
            if self.components is not None:
                self.components.inventory.learn(one.job, done=one.done, supplied=one.supplied)
            order = OrderedJob(job=one.job, product=one.product, release_at=one.release_at, due_at=one.due_at)
            sends += self.add([order])
            sends += self.book.done_until(one.job, one.done, machine=one.place, at=one.ready_at)
        return sends

    def open_jobs(self) -> list[OpenJob]:
        """Every job that is not over, as a delegate needs it; of more than `MAX_OPEN`, the first due."""
        self._progress()
        found = []
        for name, job in self._left.items():
            done = [task for task in self.book.ops(name) if task.state == "done"]
            if any(task.cancelled for task in self.book.ops(name)):
                continue
            found.append(
                OpenJob(
                    job=name,
                    product=job.product,
                    release_at=job.release_at,
                    due_at=job.due_at,
                    done=len(done),
                    place=done[-1].machine if done else None,
                    ready_at=(done[-1].ended_at or 0) if done else 0,
                    supplied=self.components is not None and self.components.inventory.is_supplied(name),
                )
            )
        if len(found) > MAX_OPEN:
            found = sorted(found, key=lambda one: (one.due_at is None, one.due_at or 0))[:MAX_OPEN]
        return found

    def forget(self, job: str) -> None:
        """A job that is over leaves the book."""
        if job not in self._left:
            self.jobs.pop(job, None)
            self.book.forget(job)

    def on_record(self, record: Record) -> list[Send]:
        """What a machine did."""
        if self.components is not None:
            self.components.inventory.on_record(record)
        return self.book.on_record(record)

    def on_signal(self, signal: Signal) -> None:
        """A forecast. Where carbon counts, what waits for a cleaner hour is thought over."""
        self.signals[signal.name] = signal
        if self.weights.carbon:
            self._looked = -1

    def on_tick(self, now: int) -> list[Send]:
        """What is due: who judges, awards to say again, tenders, awards."""
        sends = self.on_time(now)
        question = self.question(now)
        return sends if question is None else sends + self.on_decision(question, self.ask(question), now)

    def on_time(self, now: int) -> list[Send]:
        """What is due without a decision."""
        if self.book.fenced:
            return []
        sends: list[Send] = []
        if self._is_to_renew(now):
            self._said_at = now
            sends += self.book.begin(now)
        sends += self.book.on_time(now)
        sends += self._supply(now)
        self._progress()
        for job in self._released.pop(now):
            sends += self._open(job, now)
        return sends + self.offers(now)

    def offers(self, now: int) -> list[Send]:
        """Tenders of all that is open and has rested, once every node that is there obeys: before that bids would only
        grow old. Whoever is not called with every message calls this when an agenda or a presence has come."""
        if not self.book.established:
            return []
        return [send for key in self.book.offerable() for send in self.book.offer(key, now)]

    def next_due(self, now: int) -> int | None:
        """When `on_tick` must be called if nothing comes before; None: never. What is due already is due `now`."""
        if self.book.fenced:
            return None
        if self._said_at is None or self._is_to_renew(now) or self.book.progressed or self._is_asked(now):
            return now
        if self.components is not None and self.components.is_due(now):
            return now
        times = [self.book.next_due(), self._released.next(), self._said_at + self._renew_us]
        if self._may_award and self.book.established:
            times.append(self._again_at)
        return max(now, min(at for at in times if at is not None))

    def question(self, now: int) -> Question | None:
        """What a judge must decide now; None: nothing can be awarded, or nothing has happened since it was asked."""
        if self.book.fenced or not self._is_asked(now):
            return None
        self._looked = self.book.version
        is_due = self._again_at is not None and now >= self._again_at
        if is_due:
            self._again_at = None
        if not (is_due and self.book.tags) and not self.book.ready(now):
            return None
        state, first = self._situation(now)
        self.decisions += 1
        return Question(state, first, self.seed + self.decisions, self._memory, self.prior)

    def outlook(self, now: int) -> State:
        """What a judge would see now, for whoever plans ahead."""
        return self._situation(now)[0]

    def ask(self, question: Question) -> Decision:
        """The judge's answer. Touches nothing of this agent that changes, so another thread may wait for it."""
        return self.judge.decide(
            question.state,
            self.weights,
            seed=question.seed,
            memory=question.memory,
            plan=question.prior,
            ahead=self.ahead,
        )

    def on_decision(self, question: Question, decision: Decision, now: int) -> list[Send]:
        """Award what was decided, except where something has happened since the judge was asked."""
        self.stuck = decision.stuck
        ground = self._seen()
        self._again_at = None if decision.again_at is None else ground.at(decision.again_at)
        given = carry_out(self.book, question, decision, ground, now)
        self._memory = (*given.left, *decision.memory)
        is_more = bool(given.sends) and len(self._left) > self.look and self.book.any_ready  # than was looked at
        if given.forced or is_more:
            self._again_at = now
        return given.sends

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        self._progress()
        return not self._left

    @property
    def notices(self) -> dict[str, str]:
        """Jobs that do not go on, and why; nodes nobody heard of are `node …`."""
        found = {task.job: task.why for task in self.book.of("open", "unknown") if task.why}
        found |= {task.job: task.why for task in self.book.of("working") if task.why and not task.cancelled}
        found |= {task.job: task.why for task in self.book.of("awarded", "held") if task.withdrawn}
        if self.components is not None:
            found |= self.components.waiting()
        found |= self.book.twice
        found |= dict.fromkeys(self.stuck, "its part and others block each other: clear a machine")
        return found | {f"node {node}": "has not said that it obeys this judge" for node in self.book.silent}

    @property
    def own_jobs(self) -> list[str]:
        """Jobs in the book that the plant began itself."""
        return [] if self.components is None else [job.job for job in self.components.own_jobs()]

    # --- private -------------------------------------------------------------------------------------

    def _progress(self) -> None:
        """What came to an end: jobs that are over, and those whose next operation may be opened."""
        for job in list(self.book.progressed):
            tasks = self.book.ops(job)
            if not tasks or all(task.over for task in tasks):
                self._left.pop(job, None)
                if self.components is not None and any(task.cancelled for task in tasks):
                    self.components.inventory.drop(job)
            elif job in self._left:
                self._released.put(job, self._left[job].release_at or 0)
        self.book.progressed.clear()

    def _supply(self, now: int) -> list[Send]:
        """Jobs whose components have come; those the plant begins itself because something is short."""
        if self.components is None:
            return []
        gone, begun, supplied = self.components.look(now)
        sends = self.cancel(gone, now, "what it needs can no longer come") + self.add(begun)
        self.begun_itself += begun
        for job in supplied:
            if job in self._left:
                self._released.put(job, self._left[job].release_at or 0)
        return sends

    def _is_to_renew(self, now: int) -> bool:
        """Also when the clock was set back: the word said last is good for long, but others hear no more of it."""
        return self._said_at is None or not self._said_at <= now < self._said_at + self._renew_us

    @property
    def _renew_us(self) -> int:
        return round(self.book.pace.renew_s * SECOND)

    def _judged(self) -> Mapping[str, OrderedJob]:
        """Jobs the judge looks at: not those that wait for components."""
        parts = self.components
        return self._left if parts is None else {job: one for job, one in self._left.items() if parts.may_begin(job)}

    def _open(self, job: str, now: int) -> list[Send]:
        for task in self.book.ops(job):
            if task.state == "done":
                continue
            if task.op == 0 and self.components is not None and not self.components.may_begin(job):
                return []  # it is looked at again when they are there
            if task.state == "waiting":
                self.book.open(task.key)
                return self.book.offer(task.key, now) if self.book.established else []
            break
        return []

    @property
    def _may_award(self) -> bool:
        """Whether something could be awarded; where parts have tags, also what is not tendered yet."""
        return self.book.any_ready or self.book.tags

    def _is_asked(self, now: int) -> bool:
        if not self._may_award or not self.book.established:
            return False
        is_due = self._again_at is not None and now >= self._again_at
        if not self.book.any_ready:
            return is_due
        return is_due or self._looked != self.book.version

    def _situation(self, now: int) -> tuple[State, dict[str, int]]:
        ground = self._seen()
        for job in self._new:
            announced = job.release_at is not None and job.release_at > now
            if not announced and (self.components is None or MARK not in job.job):
                due = None if job.due_at is None else ground.tick(job.due_at)
                came = Work(ground.steps(job.product), max(0, ground.tick(now)), due, ground.begins_at(job.product))
                self._came.append(came)
        self._new = []
        return situation(
            ground, self._judged(), self.book, now=now, look=self.look, courses=self._courses, came=tuple(self._came)
        )

    def _seen(self) -> Ground:
        revisions = tuple(signal.revision for _, signal in sorted(self.signals.items()))
        if self._ground is None or self._ground[0] != revisions:
            self._ground = (revisions, Ground(self.plant, self.t0, dict(self.signals)))
        return self._ground[1]
