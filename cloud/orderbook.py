"""What is wanted, on disk: open orders, names that are taken, forecasts. One SQLite file, WAL, FULL.

    book = OrderBook(path)                  # PlanBook and SwarmBook keep more in the same file
    book.place(order, begun={"b07"})        # False: it changes nothing; BadMessage: it contradicts what is there
    with book.together(): …                 # one commit

An order is on disk before its message is acknowledged.
"""

from __future__ import annotations

from pathlib import Path

from cloud.book import Book
from messages.contracts import Order, OrderedJob, Signal
from messages.errors import BadMessage

KEPT_JOBS = 100_000
"""Names of finished jobs remembered, so that no later order uses one again; then the oldest are forgotten."""
MAX_JOBS = 1_000
"""Jobs of all open orders together; an order beyond that is refused."""
MAX_SIGNALS = 100
"""Signals kept; further names are refused."""


class OrderBook(Book):
    """Orders and forecasts on disk."""

    TABLES = ""
    """What else is in the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            f"""
            CREATE TABLE IF NOT EXISTS placed(id TEXT PRIMARY KEY, document BLOB NOT NULL);
            CREATE TABLE IF NOT EXISTS done(job TEXT PRIMARY KEY, part_of TEXT NOT NULL, revision INTEGER NOT NULL);
            CREATE INDEX IF NOT EXISTS done_order ON done(part_of);
            CREATE TABLE IF NOT EXISTS state(name TEXT PRIMARY KEY, document BLOB NOT NULL);
            CREATE TABLE IF NOT EXISTS signal(name TEXT PRIMARY KEY, revision INTEGER NOT NULL, document BLOB NOT NULL);
            {self.TABLES}
            """,
        )

    def orders(self) -> list[Order]:
        """Open orders, oldest first."""
        rows = self._db.execute("SELECT id, document FROM placed ORDER BY rowid")
        return [self.whole(Order, document, table="placed", row=name) for name, document in rows]

    def jobs(self) -> dict[str, OrderedJob]:
        """Jobs of all open orders, by id, in the order they were placed."""
        return {job.job: job for order in self.orders() for job in order.jobs}

    def place(self, order: Order, *, begun: set[str]) -> bool:
        """Keep an order; False if it changes nothing. BadMessage if it contradicts what is there, or what was.

        A higher revision replaces the order's jobs, except that a job that has begun cannot be taken out or
        changed; one without jobs withdraws the order. A job's name is its identity for ever.
        """
        old = self.changes(order, begun=begun)
        if old is None:
            return False
        if order.jobs:
            self._db.execute(
                "INSERT INTO placed VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET document=excluded.document",
                (order.order, order.encode()),
            )
        else:
            self._db.execute("DELETE FROM placed WHERE id=?", (order.order,))
        return True

    def changes(self, order: Order, *, begun: set[str]) -> dict[str, OrderedJob] | None:
        """The open jobs as they would be with this order; None if it changes nothing. BadMessage as `place`."""
        name = order.order
        before = {one.order: one for one in self.orders()}
        old = before.get(name)
        row = self._db.execute("SELECT max(revision) FROM done WHERE part_of=?", (name,)).fetchone()
        if (old and order.revision <= old.revision) or (row[0] is not None and order.revision <= row[0]):
            return None
        if row[0] is not None:
            raise BadMessage(f"order {name!r} is done; place what is wanted now under another name")
        if not old and not order.jobs:
            raise BadMessage(f"order {name!r} has no jobs; name what is to be made")
        others = {job.job: one.order for one in before.values() if one.order != name for job in one.jobs}
        names = [job.job for job in order.jobs]
        for job in names:
            earlier = self._db.execute("SELECT part_of FROM done WHERE job=?", (job,)).fetchone()
            owner = others.get(job) or (earlier[0] if earlier else None)
            if owner:
                raise BadMessage(f"order {name!r}: job {job!r} belongs to order {owner!r}; rename it")
        if len(set(names)) != len(names):
            raise BadMessage(f"order {name!r}: a job is named twice; job names are unique")
        if len(others) + len(names) > MAX_JOBS:
            raise BadMessage(f"order {name!r}: more than {MAX_JOBS} open jobs; finish some first")
        if old:
            stay = {job.job: job.product for job in old.jobs if job.job in begun}
            new = {job.job: job.product for job in order.jobs}
            lost = [job for job, product in stay.items() if new.get(job) != product]
            if lost:
                raise BadMessage(f"order {name!r}: job {lost[0]!r} has begun; keep it with its product")
        return {job.job: job for one in {**before, name: order}.values() for job in one.jobs}

    def is_closed(self, job: str) -> bool:
        """Whether a job is done and its order closed."""
        return self._db.execute("SELECT 1 FROM done WHERE job=?", (job,)).fetchone() is not None

    def close_order(self, order: Order) -> None:
        """An order is done: the plan need not carry it any longer, its jobs' names stay taken."""
        with self.together():
            self._db.execute("DELETE FROM placed WHERE id=?", (order.order,))
            self._db.executemany(
                "INSERT OR REPLACE INTO done VALUES(?, ?, ?)",
                [(job.job, order.order, order.revision) for job in order.jobs],
            )
            self._db.execute("DELETE FROM done WHERE rowid <= (SELECT max(rowid) FROM done) - ?", (KEPT_JOBS,))

    def signal(self, signal: Signal) -> bool:
        """Keep a signal; False if this or a newer revision is there, or MAX_SIGNALS others are."""
        (others,) = self._db.execute("SELECT count(*) FROM signal WHERE name<>?", (signal.name,)).fetchone()
        if others >= MAX_SIGNALS:
            return False
        changed = self._db.execute(
            "INSERT INTO signal VALUES(?, ?, ?) ON CONFLICT(name) DO UPDATE SET revision=excluded.revision, "
            "document=excluded.document WHERE excluded.revision > revision",
            (signal.name, signal.revision, signal.encode()),
        )
        return changed.rowcount > 0

    def signals(self) -> dict[str, Signal]:
        """The newest of every signal, by name."""
        rows = self._db.execute("SELECT name, document FROM signal")
        return {name: self.whole(Signal, document, table="signal", row=name) for name, document in rows}
