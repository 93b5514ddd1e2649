"""What is wanted of a judge: orders placed, changed and withdrawn, and what leaves the book when it has ended.

    wanted = Wanted(plant, disk, agent, pieces, reading)
    sends = wanted.order(order, now)            # BadMessage says why one cannot be taken
    wanted.close(now); wanted.closed            # last batons of what has left

An order replaces an earlier revision of itself as far as that has not begun. A job keeps its product; its name is its
identity for ever, also when it was cancelled. An order leaves the book `KEEP_S` after its last job ended and all that
was done to it is told: the records of it have come, and of what was cancelled every node that could have done it (by
the word of a delegate, perhaps) has been heard of. `MISSING_S` after its end it leaves at the latest; or sooner when
another order needs its room.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cloud.orderbook import MAX_JOBS
from cloud.reading import Reading
from cloud.swarmbook import SwarmBook
from messages.circular import number_of
from messages.clock import SECOND
from messages.contracts import Order
from messages.dispatch.agent import Dispatcher
from messages.dispatch.task import Send
from messages.dispatch.workpieces import Workpieces
from messages.errors import BadMessage, UsageError
from messages.negotiation import Workpiece
from messages.plant import Plant

KEEP_S = 3_600
"""Plant time."""
MISSING_S = 7 * 86_400
"""Plant time that a node may be away with its records."""
CLOSE_EVERY_S = 60


@dataclass
class Wanted:
    """Open orders of one site."""

    plant: Plant
    disk: SwarmBook
    agent: Dispatcher
    pieces: Workpieces
    reading: Reading
    closed: list[Workpiece] = field(default_factory=list)
    """last batons of what has left the book; whoever keeps them takes them out"""
    _looked_at: int = -(10**18)
    _since: dict[str, tuple[int, int]] = field(default_factory=dict)
    """what has ended → since when, and since when all of it is told"""

    def begin(self, now: int) -> list[Send]:
        """What is on the disk: open orders, and what a judge before was told to cancel."""
        jobs = self.disk.jobs()
        self.reading.begin()
        left = {task.job for task in self.agent.book.tasks.values()} - jobs.keys()
        cancelled = [job for job in self.disk.state().cancelled if job.job in left]
        self.reading.add([*jobs, *left])
        self.pieces.add([*jobs.values(), *cancelled])
        self.pieces.cancel(job.job for job in cancelled)
        sends = self.agent.add([*jobs.values(), *cancelled])
        return sends + self.agent.cancel([job.job for job in cancelled], now)

    def make_room(self, order: Order, now: int) -> None:
        """What has ended need not stay where more is wanted than there is room for."""
        if len(self.agent.jobs) + len(order.jobs) > MAX_JOBS:
            self.close(now, at_once=True)

    def order(self, order: Order, now: int) -> list[Send] | None:
        """Keep an order; what follows is to be sent. None: it changes nothing."""
        for job in order.jobs:
            try:
                self.plant.route(job.product)
            except UsageError as error:
                raise BadMessage(f"order {order.order!r}, job {job.job!r}: {error}") from None
            if self.plant.circular is not None and number_of(job.job):
                raise BadMessage(f"order {order.order!r}: {job.job!r} is how the plant names its own jobs; rename it")
        before = self.disk.jobs()
        begun = self._begun() if order.jobs else set()  # withdrawn: what works is finished, and then no more is done
        after = self.disk.changes(order, begun=begun)
        if after is None:
            return None
        for name, job in after.items():
            if name in before and before[name].product != job.product:
                raise BadMessage(
                    f"order {order.order!r}: job {name!r} keeps its product; give the new one another name"
                )
        self.disk.place(order, begun=begun)
        gone = [job for name, job in before.items() if name not in after]
        self.disk.cancel(gone)
        self.pieces.add(after.values())
        self.pieces.cancel(job.job for job in gone)
        sends = self.agent.add(after.values()) + self.agent.cancel([job.job for job in gone], now)
        self.reading.add(after)
        if not before:
            self.reading.keep()  # what is stored from here on is of this order
        return sends

    def close(self, now: int, *, at_once: bool = False) -> None:
        """What has ended leaves, looked at every `CLOSE_EVERY_S` of plant time."""
        if not at_once and now < self._looked_at + CLOSE_EVERY_S * SECOND:
            return
        self._looked_at = now
        before = len(self.closed)
        for order in self.disk.orders():
            names = [job.job for job in order.jobs]
            if self._ended(order.order, names, now, at_once=at_once):
                self.disk.close_order(order)
                self._forget(names)
        for name in self.agent.own_jobs:  # nobody ordered them: each leaves by itself
            if self._ended(f"own {name}", [name], now, at_once=at_once):
                self._forget([name])
        cancelled = [job.job for job in self.disk.state().cancelled]
        gone = [job for job in cancelled if self._ended(f"cancelled {job}", [job], now, at_once=at_once)]
        if gone:
            self.disk.forget_cancelled(gone)
            self._forget(gone)
        if len(self.closed) > before:
            self.reading.keep()

    def _ended(self, name: str, jobs: list[str], now: int, *, at_once: bool) -> bool:
        book = self.agent.book
        if not all(task.over for job in jobs for task in book.ops(job)):
            self._since.pop(name, None)
            return False
        if at_once:
            return True
        ended, told = self._since.get(name, (now, now))
        if not all(self._is_told(job) for job in jobs):
            told = now
        self._since[name] = ended, told
        return now >= min(told + KEEP_S * SECOND, ended + MISSING_S * SECOND)

    def _is_told(self, job: str) -> bool:
        """Whether all that was done to it is known."""
        book = self.agent.book
        if not self.pieces.is_whole(job, book.tasks):
            return False
        able = {machine for task in book.ops(job) if task.state == "cancelled" for machine in task.seconds}
        return all(self._is_heard(machine) for machine in able)

    def _is_heard(self, machine: str) -> bool:
        """Whether its node is there and has said, under this judge, what it did under others."""
        book = self.agent.book
        said = book.nodes.agendas.get(book.nodes.node_of[machine])
        return book.nodes.is_there(machine) and said is not None and said.authority == book.authority

    def _forget(self, jobs: list[str]) -> None:
        said = {baton.job: baton for baton in self.pieces.batons()}
        self.closed += [said[job] for job in jobs if job in said]
        self.pieces.forget(jobs)
        for job in jobs:
            self.agent.forget(job)

    def _begun(self) -> set[str]:
        tasks = self.agent.book.tasks.values()
        return {task.job for task in tasks if task.begun or task.state == "done"}
