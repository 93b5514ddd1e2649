"""Where each job has got to, what is left of it, and what was seen of that when it last changed.

    courses = Courses()
    courses.refresh(ground, book)              # before each look: forgets of what has changed
    seen = courses.of(job, ground, book, tick_now=20)
    seen.course.first, seen.work.steps

A look costs as much as has changed since the one before, not as much as is open. One `Courses` looks at one book, whose
`moved` it takes. Bound: one entry per job of the book.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from messages.contracts import OrderedJob
from messages.dispatch.ground import Ground
from messages.dispatch.shop import Step, Work
from messages.dispatch.task import GIVEN, Task
from messages.dispatch.tenders import Tenders
from messages.negotiation import MachineBid

FOR_EVER = 2**62


class Course(NamedTuple):
    """Where a job has got to."""

    first: int  # the first operation that is neither done nor at work
    task: Task | None  # it
    at: str  # where the part lies, or will when the work on it ends
    ready: int
    until: int  # the last tick at which this is so, if nothing changes: work is not overdue before


class Seen(NamedTuple):
    """What was seen of a job."""

    job: OrderedJob
    course: Course
    work: Work


class Courses:
    """Of one book."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._ground: Ground | None = None
        self._away: frozenset[str] = frozenset()

    def refresh(self, ground: Ground, book: Tenders) -> None:
        """Forget what may be otherwise now."""
        away = book.nodes.away
        if ground is not self._ground or away != self._away:
            self._seen.clear()
        self._ground, self._away = ground, away
        for name in book.moved:
            self._seen.pop(name, None)
        book.moved.clear()

    def of(self, job: OrderedJob, ground: Ground, book: Tenders, tick_now: int) -> Seen:
        """What is to be seen of it at this tick; ticks do not go back between two looks."""
        seen = self._seen.get(job.job)
        if seen is None or seen.job is not job or seen.course.until < tick_now:
            where = course(ground, job, book.ops(job.job), tick_now)
            seen = self._seen[job.job] = Seen(job, where, _work(ground, job, where, book))
        return seen


def course(ground: Ground, job: OrderedJob, tasks: Iterable[Task], tick_now: int) -> Course:
    """Of a job with these tasks."""
    at, ready = ground.begins_at(job.product), max(0, ground.after(job.release_at)) if job.release_at else 0
    first, until = 0, FOR_EVER
    for task in tasks:
        begun = task.begun
        if task.state != "done" and not begun:
            return Course(first, task, at, ready, until)
        first = task.op + 1
        at = task.machine or ""
        if begun:
            ends = ends_at(ground, task, tick_now)
            ready, until = max(ready, ends), min(until, ends - 1)
        elif task.ended_at is not None:
            ready = max(ready, ground.after(task.ended_at))
    return Course(first, None, at, ready, until)


def stands(task: Task) -> bool:
    """Whether its machine is reckoned to begin it."""
    return task.state in GIVEN and not task.begun and not task.withdrawn and task.machine is not None


def ends_at(ground: Ground, task: Task, tick_now: int) -> int:
    """When work in progress is foreseen to end."""
    seconds = task.seconds.get(task.machine or "", 0.0)
    return max(ground.after((task.began_at or 0) + round(seconds * 1e6)), tick_now + 1)


def _work(ground: Ground, job: OrderedJob, one: Course, book: Tenders) -> Work:
    """What is left of a job; of one that is cancelled, what a machine holds of it."""
    route = ground.steps(job.product)[one.first :]
    due = None if job.due_at is None else ground.tick(job.due_at)
    if one.task is None or not route or (one.task.cancelled and not stands(one.task)):
        return Work((), one.ready, due, one.at)
    route = route[:1] if one.task.cancelled else route
    if not book.nodes.all_there:
        route = tuple(_there(step, book) for step in route)
    if one.task.state == "tendered" and one.task.bids:
        route = (_as_bid(route[0], one.task, ground), *route[1:])
    elif stands(one.task):
        route = (ground.steps(job.product)[one.first], *route[1:])
    return Work(route, one.ready, due, one.at)


def _there(step: Step, book: Tenders) -> Step:
    there = {name: ticks for name, ticks in step.ticks.items() if book.nodes.is_there(name)}
    return step if not there or len(there) == len(step.ticks) else replace(step, ticks=there)


def _as_bid(step: Step, task: Task, ground: Ground) -> Step:
    ticks = {
        name: max(1, ground.ticks((bid.end_at - bid.start_at) / 1e6))
        for name, bid in _in_turn(task.bids)
        if name in step.ticks
    }
    return replace(step, ticks=ticks) if ticks else step


def _in_turn(bids: Mapping[str, MachineBid]) -> list[tuple[str, MachineBid]]:
    """By cost, where all have said one, and wear; as they came where these are alike."""
    priced = all(bid.cost is not None for bid in bids.values())
    return sorted(bids.items(), key=lambda one: ((one[1].cost or 0.0) if priced else 0.0, one[1].wear or 0.0))
