"""How far a judge has read the records of its store, and where the next one must begin.

    reading = Reading(store, disk, site, agent, take)
    sends, more = reading.some()            # the next records, each told to `take`
    reading.keep()                          # when orders have left the book

Every job of the book has its place in the store: where reading was when it came. What lies before the first of them is
of no interest any more. Components are counted once: which records are in the inventory that is on the disk is kept
with it, and what is read again changes it no more. Bounds: `READ_AT_ONCE` records at a time; a judge that begins again
reads what was stored since the oldest job that is still in its book came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cloud.stores import Store, StoredRecord
from cloud.swarmbook import SwarmBook
from messages.circular import number_of
from messages.contracts import Record
from messages.dispatch.agent import Dispatcher
from messages.dispatch.task import Send

READ_AT_ONCE = 1_000


@dataclass
class Reading:
    """One judge's place in the records of its site. `take(record, new)`: what follows from one; not `new`: the
    inventory has it."""

    store: Store
    disk: SwarmBook
    site: str
    agent: Dispatcher
    take: Callable[[Record, bool], list[Send]]
    cursor: int = 0
    """records read so far"""
    _counted: int = 0
    _since: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Where the judge before must have begun again, at the latest."""
        state = self.disk.state()
        self.cursor, self._since = state.cursor, dict(state.since)
        inventory = self.agent.components.inventory if self.agent.components is not None else None
        if inventory is not None and state.stock is not None:
            inventory.restore(state.stock)
            self._counted = state.counted

    def add(self, jobs: Iterable[str]) -> None:
        """These are in the book from here on; one that was there keeps its place."""
        for job in jobs:
            self._since.setdefault(job, self.cursor)

    def again(self, jobs: Iterable[str]) -> None:
        """Of these something may have been stored before they came: from the first record on, once more."""
        self.cursor = 0
        self._since.update(dict.fromkeys(jobs, 0))
        self.keep()

    def again_of(self, jobs: Iterable[str]) -> bool:
        """Jobs that the plant began itself are in the book. Some were read of before: whether to read that again."""
        before = self.cursor
        self.add(jobs := list(jobs))
        self.cursor = min([before, *(self._since[job] for job in jobs)])
        return self.cursor < before

    def keep(self) -> None:
        """To the disk: whoever begins again reads from where the oldest job of the book came."""
        components = self.agent.components
        there = {*self.agent.jobs, *(components.inventory.live() if components is not None else ())}
        self._since = {job: at for job, at in self._since.items() if job in there}
        facts: dict[str, object] = {"cursor": min(self._since.values(), default=self.cursor), "since": self._since}
        if components is not None:
            facts |= {"stock": components.inventory.kept(), "counted": self._counted}
        self.disk.remember(**facts)

    def some(self) -> tuple[list[Send], bool]:
        """What follows from the next records, `READ_AT_ONCE` at most; whether there may be more."""
        sends: list[Send] = []
        rows = self.store.records(after=self.cursor, limit=READ_AT_ONCE)
        for row in rows:
            if row.site == self.site:
                self._note(row)
                sends += self.take(row.record, row.cursor > self._counted)
        if rows:
            self.cursor = rows[-1].cursor
            self._counted = max(self._counted, self.cursor)
        return sends, len(rows) == READ_AT_ONCE

    def _note(self, row: StoredRecord) -> None:
        """A job of the plant's own may be heard of before it is in the book."""
        job = getattr(row.record, "job", None)
        if self.agent.components is not None and job is not None and job not in self._since and number_of(job):
            self._since[job] = row.cursor - 1
