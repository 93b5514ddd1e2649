"""The scheduling agent of a site: opens tasks as parts get ready, tenders them, lets a judge decide, awards.

    agent = Dispatcher(plant, book, judge=ByRule(kind="fifo"), t0=t0)
    agent.add(jobs, now); sends = agent.on_record(record) + agent.on_tick(now)

Pure: what comes in are bids, acknowledgements and agendas (`agent.book`), records and the plant time; what comes out is
to be sent. Every open task is tendered at once, so that bids are there when the judge wants to award it; only what must
begin now is awarded, the rest may be thought over when something has happened. A fenced agent sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from messages.contracts import OrderedJob, Record, Signal
from messages.dispatch.decode import Choice, Weights
from messages.dispatch.judge import Decision, Judge
from messages.dispatch.situation import situation, wanted
from messages.dispatch.state import State
from messages.dispatch.tenders import Key, Send, Task, Tenders
from messages.floor import SECOND, Floor
from messages.plant import Plant

RENEW_S = 600
"""Who judges is said again after this much plant time; `valid_until` is three times as far."""


@dataclass(frozen=True)
class Question:
    """What a judge is asked to decide: nothing in it changes any more."""

    state: State
    first: Mapping[str, int]
    """job → number of its first operation in the state"""
    ready: frozenset[Key]
    seed: int
    memory: Sequence[Choice]


@dataclass
class Dispatcher:
    """One site's scheduling agent. `t0`: tick 0 of its clock, µs."""

    plant: Plant
    book: Tenders
    judge: Judge
    t0: int
    weights: Weights = field(default_factory=Weights)
    seed: int = 0
    ahead: int = 0
    """Ticks: what must begin within them is awarded too, so that awards are there in time."""
    floor: Floor = field(default_factory=Floor)
    jobs: dict[str, OrderedJob] = field(default_factory=dict)
    signals: dict[str, Signal] = field(default_factory=dict)
    decisions: int = 0
    _memory: Sequence[Choice] = ()
    _looked: tuple[int, int, frozenset[Key]] = (-1, -1, frozenset())
    _again_at: int | None = None
    _records: int = 0
    _said_at: int | None = None

    def add(self, jobs: Iterable[OrderedJob]) -> None:
        """Orders: their tasks wait for their parts."""
        for job in jobs:
            self.jobs[job.job] = job
            due = job.due_at
            for op, (_, able) in enumerate(self.plant.route(job.product)):
                seconds = {machine: hours * 3600 for machine, hours in able.items()}
                self.book.add(Task(job=job.job, op=op, seconds=seconds, due_at=due))

    def on_record(self, record: Record) -> list[Send]:
        """What a machine did."""
        self._records += 1
        self.floor.apply(record)
        return self.book.on_record(record)

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
        if self._said_at is None or now >= self._said_at + RENEW_S * SECOND:
            self._said_at = now
            sends += self.book.begin(now)
        self._open(now)
        sends += self.book.on_time(now)
        for task in list(self.book.tasks.values()):
            if task.state == "open":
                sends += self.book.offer(task.key, now)
        return sends

    def question(self, now: int) -> Question | None:
        """What a judge must decide now; None: nothing can be awarded, or nothing has happened since it was asked."""
        if self.book.fenced:
            return None
        ready = frozenset(task.key for task in self.book.ready(now))
        seen = (self.book.version, self._records, ready)
        if not ready or (seen == self._looked and (self._again_at is None or now < self._again_at)):
            return None
        self._looked = seen
        left = {name: job for name, job in self.jobs.items() if not self._is_done(name)}
        state, first = situation(self.plant, left, self.floor, self.book, t0=self.t0, now=now, signals=self.signals)
        self.decisions += 1
        return Question(state, first, ready, self.seed + self.decisions, self._memory)

    def ask(self, question: Question) -> Decision:
        """The judge's answer. Touches nothing of this agent that changes, so another thread may wait for it."""
        return self.judge.decide(
            question.state, self.weights, seed=question.seed, memory=question.memory, ahead=self.ahead
        )

    def on_decision(self, question: Question, decision: Decision, now: int) -> list[Send]:
        """Award what was decided, except where something has happened since the judge was asked."""
        unchanged = self._looked == (self.book.version, self._records, question.ready)
        self._memory = decision.memory
        self._again_at = None if decision.again_at is None else self.t0 + decision.again_at * self.plant.tick_us
        ready = {task.key for task in self.book.ready(now)} & question.ready
        sends: list[Send] = []
        for key, machine in wanted(decision, question.first):
            if key in ready:
                sends += self.book.award(key, machine, now)
        if unchanged:  # what it said it knows; what came meanwhile is worth another question
            still = frozenset(task.key for task in self.book.ready(now))
            self._looked = (self.book.version, self._records, still)
        return sends

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return all(task.state == "done" for task in self.book.tasks.values())

    # --- private -------------------------------------------------------------------------------------

    def _open(self, now: int) -> None:
        tasks: Mapping[tuple[str, int], Task] = self.book.tasks
        for (job, op), task in tasks.items():
            if task.state == "waiting":
                before, release = tasks.get((job, op - 1)), self.jobs[job].release_at or 0
                if (before is None or before.state == "done") and now >= release:
                    self.book.open((job, op))

    def _is_done(self, job: str) -> bool:
        count = len(self.plant.route(self.jobs[job].product))
        return all(self.book.tasks[job, op].state == "done" for op in range(count))
