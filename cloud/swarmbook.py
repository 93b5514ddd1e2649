"""What the judge must not forget: its term, orders, tasks, which awards the broker retains. One SQLite file, WAL, FULL.

    book = SwarmBook(data / "judge.db")
    book.begin(term, session)                               # on the disk before anybody hears of it
    book.keep(tasks, gone=[("b07", 0)], told=[…])           # one commit for all that one step changed

What follows from a change is sent after its commit; so after a crash a judge finds every award it may have made.
Bounds: tasks of open orders only (at most `MAX_JOBS` jobs), the batons of the last `KEPT_BATONS` jobs that ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from pydantic import BaseModel

from cloud.orderbook import OrderBook
from messages.contracts import OrderedJob
from messages.dispatch.task import Key, Task
from messages.inventory import Kept
from messages.negotiation import Workpiece

KEPT_BATONS = 1_000
"""Batons of jobs that ended; older ones are read from the store's records."""


OWN_SESSIONS = 64
"""Terms of one judge's disk of which it knows that they were its own; a word of an earlier one is another judge's."""


class JudgeState(BaseModel):
    """What one judge leaves to the next."""

    term: int = 0
    session: str = ""
    sessions: list[str] = []
    """its own, the last `OWN_SESSIONS`: the word of one of them may be what the broker retains"""
    late_us: int = 0
    """how much later than the pace says answers came"""
    t0: int | None = None
    """tick 0 of the judge's clock, µs"""
    cursor: int = 0
    """records of the store up to here are of jobs that are no longer of interest"""
    since: dict[str, int] = {}
    """job → records up to here are not of it; of one that is not named, up to `cursor`"""
    stock: Kept | None = None
    """components as they were when a job last left the book"""
    counted: int = 0
    """records of the store up to here are in `stock`"""
    cancelled: list[OrderedJob] = []
    """jobs that nobody wants any more and that have not left the book: a node may still hold them"""


class Told(NamedTuple):
    """What the broker retains for a node about a task: an award, or its withdrawal."""

    node: str
    task: str
    job: str
    op: int
    counter: int
    until: int
    withdrawn: bool

    @property
    def key(self) -> Key:
        """Job and operation."""
        return self.job, self.op


class SwarmBook(OrderBook):
    """One judge's file."""

    TABLES = """
        CREATE TABLE IF NOT EXISTS task(job TEXT NOT NULL, op INTEGER NOT NULL, document BLOB NOT NULL,
                                        PRIMARY KEY(job, op));
        CREATE TABLE IF NOT EXISTS told(node TEXT NOT NULL, task TEXT NOT NULL, job TEXT NOT NULL, op INTEGER NOT NULL,
                                        counter INTEGER NOT NULL, until INTEGER NOT NULL, withdrawn INTEGER NOT NULL,
                                        PRIMARY KEY(node, task));
        CREATE TABLE IF NOT EXISTS baton(place INTEGER PRIMARY KEY, job TEXT NOT NULL UNIQUE, document BLOB NOT NULL);
    """

    def state(self) -> JudgeState:
        """What the judge before left."""
        row = self._db.execute("SELECT document FROM state WHERE name='judge'").fetchone()
        return self.whole(JudgeState, row[0], table="state", row="judge") if row else JudgeState()

    def remember(self, **facts: object) -> JudgeState:
        """Other facts, kept now."""
        state = self.state().model_copy(update=facts)
        self._db.execute("INSERT OR REPLACE INTO state VALUES('judge', ?)", (state.model_dump_json().encode(),))
        return state

    def tasks(self) -> list[Task]:
        """Every task: jobs in the order in which they came, the operations of each in theirs."""
        rows = self._db.execute("SELECT job, op, document FROM task ORDER BY min(rowid) OVER (PARTITION BY job), op")
        return [self.whole(Task, document, table="task", row=f"{job} {op}") for job, op, document in rows]

    def told(self) -> list[Told]:
        """What the broker retains, as far as we had it done."""
        rows = self._db.execute("SELECT node, task, job, op, counter, until, withdrawn FROM told")
        return [Told(*row)._replace(withdrawn=bool(row[6])) for row in rows]

    def keep(self, tasks: Iterable[Task], *, gone: Iterable[Key] = (), told: Iterable[Told] = ()) -> None:
        """Tasks as they are now, tasks that left, and what is about to be retained."""
        with self.together():
            self._db.executemany(
                "INSERT INTO task VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET document=excluded.document",
                [(task.job, task.op, task.model_dump_json(exclude_defaults=True).encode()) for task in tasks],
            )
            self._db.executemany("DELETE FROM task WHERE job=? AND op=?", list(gone))
            self._db.executemany("INSERT OR REPLACE INTO told VALUES(?, ?, ?, ?, ?, ?, ?)", list(told))

    def cleared(self, told: Iterable[Told]) -> None:
        """The broker retains these no more; one that was said again meanwhile stays."""
        with self.together():
            self._db.executemany(
                "DELETE FROM told WHERE node=? AND task=? AND counter=?",
                [(one.node, one.task, one.counter) for one in told],
            )

    def cancel(self, jobs: Iterable[OrderedJob]) -> None:
        """Nobody wants these any more."""
        state = self.state()
        if wanted := list(jobs):
            self.remember(cancelled=[*state.cancelled, *wanted])

    def forget_cancelled(self, jobs: Collection[str]) -> None:
        """Nobody can begin these any more; their names stay taken."""
        with self.together():
            self.remember(cancelled=[job for job in self.state().cancelled if job.job not in jobs])
            self._db.executemany("INSERT OR REPLACE INTO done VALUES(?, ?, -1)", [(job, "(withdrawn)") for job in jobs])

    def batons(self) -> list[Workpiece]:
        """Of jobs that ended, oldest first."""
        rows = self._db.execute("SELECT job, document FROM baton ORDER BY place")
        return [self.whole(Workpiece, document, table="baton", row=job) for job, document in rows]

    def keep_batons(self, batons: Iterable[Workpiece]) -> None:
        """Batons of jobs that ended."""
        with self.together():
            self._db.executemany(
                "INSERT OR REPLACE INTO baton(job, document) VALUES(?, ?)",
                [(baton.job, baton.encode()) for baton in batons],
            )

    def old_batons(self) -> list[str]:
        """Jobs whose batons nobody needs to retain any more."""
        rows = self._db.execute("SELECT job FROM baton ORDER BY place DESC LIMIT -1 OFFSET ?", (KEPT_BATONS,))
        return [job for (job,) in rows]

    def drop_baton(self, job: str) -> None:
        """The broker has it no more."""
        self._db.execute("DELETE FROM baton WHERE job=?", (job,))
