"""The workpiece agent: every job is a baton that carries its full history, from its order until it is done.

    agent = Workpieces()
    agent.add(jobs); agent.on_record(record); agent.on_agenda(agenda)
    batons = agent.news(book.tasks, book.changed, now)       # those that changed, once each

Pure. Steps come from records of the store and from agendas, whichever are there first; the same run told twice, or by
both, is one step, and what nobody told is no step. State and next operation are those of the judge's book. A baton's
revision is the plant time at which it was said, or one more than the last: whoever judges later says higher ones, so
that readers may ignore what is lower.
Bounds: jobs until `forget`; per job the last `MAX_STEPS` steps and as many operations as its route has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from messages.contracts import Finished, Interrupted, OrderedJob, PartIdentified, Record, Started
from messages.dispatch.task import Key, Task
from messages.negotiation import MAX_STEPS, Agenda, Step, Workpiece

BatonState = Literal["waiting", "tendered", "awarded", "working", "done", "unknown", "cancelled"]

STATES: dict[str, BatonState] = {
    "waiting": "waiting",
    "open": "waiting",
    "tendered": "tendered",
    "awarded": "awarded",
    "held": "awarded",
    "working": "working",
    "unknown": "unknown",
    "cancelled": "cancelled",
}
"""State of a baton by that of its next task; `done` ones are behind it."""

MAX_WHY = 500
"""Characters of the reason why a workpiece does not go on."""

Run = tuple[int, str, int]
"""Operation, machine, begin: what makes a run itself."""


@dataclass
class _Piece:
    """One workpiece."""

    job: OrderedJob
    steps: dict[Run, Step] = field(default_factory=dict)
    seen: tuple[int, str] | None = None
    """when and where its tag was last read"""
    cancelled: bool = False
    said: Workpiece | None = None


class Workpieces:
    """All workpieces of a site, by job."""

    def __init__(self) -> None:
        self._pieces: dict[str, _Piece] = {}
        self._dirty: dict[str, None] = {}

    def add(self, jobs: Iterable[OrderedJob]) -> None:
        """Ordered: they begin their life as batons."""
        for job in jobs:
            if job.job in self._pieces:
                self._pieces[job.job].job = job
            else:
                self._pieces[job.job] = _Piece(job)
            self._dirty[job.job] = None

    def cancel(self, jobs: Iterable[str]) -> None:
        """Nobody wants them any more; what runs ends."""
        for job in jobs:
            if job in self._pieces:
                self._pieces[job].cancelled = True
                self._dirty[job] = None

    def forget(self, jobs: Iterable[str]) -> None:
        """They ended, and their last baton was said."""
        for job in jobs:
            self._pieces.pop(job, None)
            self._dirty.pop(job, None)

    def on_record(self, record: Record) -> None:
        """What a machine did; the same record again changes nothing, and order does not matter."""
        match record:
            case Started():
                self._step(record.job, Step(op=record.op, machine=record.machine, start_at=record.at))
            case Finished() | Interrupted():
                step = Step(
                    op=record.op,
                    machine=record.machine,
                    start_at=min(record.started_at, record.at),
                    end_at=record.at,
                    interrupted=isinstance(record, Interrupted),
                    energy_kwh=record.energy_kwh,
                )
                self._step(record.job, step)
            case PartIdentified():
                piece = self._pieces.get(record.job)
                if piece is not None and (piece.seen is None or piece.seen < (record.at, record.machine)):
                    piece.seen = (record.at, record.machine)
                    self._dirty[record.job] = None

    def on_agenda(self, agenda: Agenda) -> None:
        """What a node holds: work it began, and the end of work whose begin is known."""
        for one in agenda.awards:
            if one.state == "started":
                self._step(one.job, Step(op=one.op, machine=one.machine, start_at=one.at))
            elif one.state == "finished" and one.job in self._pieces:
                steps = self._pieces[one.job].steps
                running = [step for run, step in steps.items() if run[:2] == (one.op, one.machine)]
                last = max(running, key=lambda step: step.start_at, default=None)
                if last is not None and last.end_at is None and last.start_at <= one.at:
                    self._step(one.job, last.model_copy(update={"end_at": one.at}))

    def is_whole(self, job: str, tasks: Mapping[Key, Task]) -> bool:
        """Whether everything that was done to it is told, or as much as a baton holds."""
        piece = self._pieces.get(job)
        if piece is None or len(piece.steps) >= MAX_STEPS:
            return True
        ended = {step.op for step in piece.steps.values() if step.end_at is not None and not step.interrupted}
        return all(task.op in ended for task in _tasks_of(job, tasks) if task.state == "done")

    def states(self) -> dict[str, int]:
        """State → how many batons were last said to be in it."""
        found: dict[str, int] = {}
        for piece in self._pieces.values():
            if piece.said is not None:
                found[piece.said.state] = found.get(piece.said.state, 0) + 1
        return found

    def batons(self) -> list[Workpiece]:
        """Each as it was last said."""
        return [piece.said for piece in self._pieces.values() if piece.said is not None]

    def news(self, tasks: Mapping[Key, Task], changed: Collection[Key], now: int) -> list[Workpiece]:
        """Batons that are not as they were last said."""
        jobs = {**self._dirty, **dict.fromkeys(job for job, _ in changed)}
        self._dirty = {}
        found: list[Workpiece] = []
        for job in jobs:
            piece = self._pieces.get(job)
            if piece is None:
                continue
            baton = _baton(piece, tasks)
            same = {"revision": baton.revision, "at": baton.at}
            if piece.said is None or piece.said.model_copy(update=same) != baton:
                said = 0 if piece.said is None else piece.said.revision
                piece.said = baton.model_copy(update={"revision": max(said + 1, now), "at": now})
                found.append(piece.said)
        return found

    def _step(self, job: str, step: Step) -> None:
        piece = self._pieces.get(job)
        if piece is None:
            return
        steps, run = piece.steps, (step.op, step.machine, step.start_at)
        known = steps.get(run)
        if known == step or (known is not None and step.end_at is None):
            return
        if known is None and step.end_at is not None:
            step = _begun(steps, step)
            run = (step.op, step.machine, step.start_at)
        steps[run] = step
        if len(steps) > MAX_STEPS:
            del steps[min(steps, key=lambda one: one[2])]
        self._dirty[job] = None


def _begun(steps: Mapping[Run, Step], step: Step) -> Step:
    """The end of a run whose begin its node no longer knew (it says that of the end): the begin that was heard."""
    if step.start_at != step.end_at:
        return step
    mine = [one for run, one in steps.items() if run[:2] == (step.op, step.machine)]
    last = max((one for one in mine if one.end_at in (None, step.end_at)), key=lambda one: one.start_at, default=None)
    return step if last is None else step.model_copy(update={"start_at": min(last.start_at, step.start_at)})


def _baton(piece: _Piece, tasks: Mapping[Key, Task]) -> Workpiece:
    steps = sorted(piece.steps.values(), key=lambda step: (step.start_at, step.op, step.machine))
    mine = _tasks_of(piece.job.job, tasks)
    following = next((task for task in mine if task.state != "done"), None)
    state: BatonState = "done" if mine else "waiting"
    if following is not None:
        state = STATES.get(following.state, "waiting")
    if piece.cancelled and state in ("waiting", "tendered"):
        state = "cancelled"  # what a machine may hold or do is still under way
    last = steps[-1] if steps else None
    place = last.machine if last else None
    if piece.seen is not None and (last is None or piece.seen[0] >= last.start_at):
        place = piece.seen[1]
    return Workpiece(
        job=piece.job.job,
        revision=0,
        at=0,
        product=piece.job.product,
        state=state,
        place=place,
        op=following.op if following is not None and state != "cancelled" else None,
        steps=steps,
        why=(following.why[:MAX_WHY] or None) if following is not None and state in ("unknown", "cancelled") else None,
    )


def _tasks_of(job: str, tasks: Mapping[Key, Task]) -> list[Task]:
    found: list[Task] = []
    while (task := tasks.get((job, len(found)))) is not None:
        found.append(task)
    return found
