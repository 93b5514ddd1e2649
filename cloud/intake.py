"""What is wanted: orders and forecasts, refused whole with the cure, or kept on disk and in memory.

intake = Intake(plant, book, watch, problem)     # problem(jobs, signals): what would be planned; may not be possible
intake.order(order, first=lambda why: …)         # False: it changes nothing
intake.jobs, intake.signals
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from cloud.planbook import PlanBook
from cloud.standing import done_of
from cloud.watch import Watch
from messages.contracts import Order, OrderedJob, Signal
from messages.errors import BadMessage, UsageError
from messages.plant import Plant

Check = Callable[[Mapping[str, OrderedJob], Mapping[str, Signal]], object]
"""Raises ValidationError for jobs and signals that nobody can plan with."""


@dataclass
class Intake:
    """Open orders and the newest forecasts."""

    plant: Plant
    book: PlanBook
    watch: Watch
    check: Check
    jobs: dict[str, OrderedJob] = field(init=False)
    """of all open orders"""
    signals: dict[str, Signal] = field(init=False)

    def __post_init__(self) -> None:
        self.jobs, self.signals = self.book.jobs(), self.book.signals()

    def order(self, order: Order, *, first: Callable[[str], None]) -> bool:
        """Keep an order; BadMessage says why one cannot be made. `first` is called before it is kept: after a crash
        between the two a plan is made once too often, never once too little."""
        for job in order.jobs:
            try:
                self.plant.route(job.product)
            except UsageError as error:
                raise BadMessage(f"order {order.order!r}, job {job.job!r}: {error}") from None
        self.watch.read()
        begun = {job for job, _ in self.watch.floor.begun}
        if self.book.changes(order, begun=begun) is None:
            return False
        self._close_finished()  # they make room for it
        jobs = self.book.changes(order, begun=begun)
        if jobs is None:
            return False
        try:
            self.check(jobs, self.signals)
        except ValidationError as error:
            raise BadMessage(f"order {order.order!r} cannot be planned: {error.errors()[0]['msg']}") from None
        first(f"order {order.order}")
        self.book.place(order, begun=begun)
        self.jobs = self.book.jobs()
        return True

    def signal(self, signal: Signal, topic: str) -> None:
        """Keep a forecast; an older revision changes nothing."""
        if topic != signal.name:
            raise BadMessage(f"signal {signal.name!r} came on the topic of {topic!r}; correct one")
        try:
            self.check(self.jobs, {**self.signals, signal.name: signal})
        except ValidationError as error:
            raise BadMessage(f"signal {signal.name!r} cannot be used: {error.errors()[0]['msg']}") from None
        if self.book.signal(signal):
            self.signals[signal.name] = signal

    @property
    def all_done(self) -> bool:
        """Nothing of the open orders is left to do."""
        return len(done_of(self.plant, self.jobs, self.watch.floor).jobs) == len(self.jobs)

    def _close_finished(self) -> None:
        """Orders that are done leave the plan when another comes."""
        floor = self.watch.floor
        done = done_of(self.plant, self.jobs, floor).jobs
        for order in self.book.orders():
            if all(job.job in done for job in order.jobs):
                self.book.close_order(order)
                floor.forget(job.job for job in order.jobs)
        self.jobs = self.book.jobs()
