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
from messages.dispatch.judge import Judge
from messages.dispatch.situation import situation, wanted
from messages.dispatch.tenders import Key, Send, Task, Tenders
from messages.floor import SECOND, Floor
from messages.plant import Plant

RENEW_S = 600
"""Who judges is said again after this much plant time; `valid_until` is three times as far."""


@dataclass
class Dispatcher:
    """One site's scheduling agent. `t0`: tick 0 of its clock, µs."""

    plant: Plant
    book: Tenders
    judge: Judge
    t0: int
    weights: Weights = field(default_factory=Weights)
    seed: int = 0
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
        return sends + self._decide(now)

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

    def _decide(self, now: int) -> list[Send]:
        """Ask the judge when something can be awarded, and something has happened or it is time to begin something."""
        ready = frozenset(task.key for task in self.book.ready(now))
        seen = (self.book.version, self._records, ready)
        if not ready or (seen == self._looked and (self._again_at is None or now < self._again_at)):
            return []
        left = {name: job for name, job in self.jobs.items() if not self._is_done(name)}
        state, first = situation(self.plant, left, self.floor, self.book, t0=self.t0, now=now, signals=self.signals)
        self.decisions += 1
        decision = self.judge.decide(state, self.weights, seed=self.seed + self.decisions, memory=self._memory)
        self._memory = decision.memory
        grid = self.plant.tick_us
        self._again_at = None if decision.again_at is None else self.t0 + decision.again_at * grid
        sends: list[Send] = []
        for key, machine in wanted(decision, first):
            if key in ready:
                sends += self.book.award(key, machine, now)
        self._looked = (self.book.version, self._records, frozenset(task.key for task in self.book.ready(now)))
        return sends

    def _is_done(self, job: str) -> bool:
        count = len(self.plant.route(self.jobs[job].product))
        return all(self.book.tasks[job, op].state == "done" for op in range(count))
