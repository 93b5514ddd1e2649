"""What the planner must not forget: orders, every plan it published, the counter. One SQLite file, FULL.

An order is on disk before its message is acknowledged, a plan before it is published; so a crash means that the
same plan is published again, never that a counter is used twice. The last `KEPT_PLANS` plans stay for audit.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from messages.contracts import Envelope, Order, OrderedJob, PlanInForce, Signal
from messages.errors import BadMessage, UsageError

InForce = Envelope[PlanInForce]

KEPT_PLANS = 1_000
MAX_JOBS = 1_000
"""Jobs of all open orders together; an order beyond that is refused."""
MAX_SIGNALS = 100
"""Signals kept; further names are refused."""
SCHEMA = 1


@dataclass(frozen=True)
class Kept:
    """A plan as it was published, and what made the planner plan."""

    envelope: InForce
    answers_disturbance: bool


class PlanBook:
    """Orders and plans on disk."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise UsageError(f"{path}: written by a newer Shoal (schema {version}); start that one, or move the file")
        self._db.executescript(
            f"""
            CREATE TABLE IF NOT EXISTS placed(id TEXT PRIMARY KEY, document BLOB NOT NULL);
            CREATE TABLE IF NOT EXISTS plan(counter INTEGER PRIMARY KEY, revision INTEGER NOT NULL,
                                            disturbance INTEGER NOT NULL, document BLOB NOT NULL);
            CREATE TABLE IF NOT EXISTS signal(name TEXT PRIMARY KEY, revision INTEGER NOT NULL, document BLOB NOT NULL);
            PRAGMA user_version={SCHEMA};
            """
        )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def orders(self) -> list[Order]:
        """Open orders, oldest first."""
        rows = self._db.execute("SELECT document FROM placed ORDER BY rowid")
        return [Order.model_validate_json(document) for (document,) in rows]

    def jobs(self) -> dict[str, OrderedJob]:
        """Jobs of all open orders, by id, in the order they were placed."""
        return {job.job: job for order in self.orders() for job in order.jobs}

    def place(self, order: Order, *, begun: set[str]) -> bool:
        """Keep an order; False if it changes nothing. BadMessage if it contradicts what is there.

        A higher revision replaces the order's jobs, except that a job that has begun cannot be taken out or changed.
        """
        before = {one.order: one for one in self.orders()}
        old = before.get(order.order)
        if old and order.revision <= old.revision:
            return False
        others = {job.job: one.order for one in before.values() if one.order != order.order for job in one.jobs}
        names = [job.job for job in order.jobs]
        for name in names:
            if name in others:
                raise BadMessage(f"order {order.order!r}: job {name!r} belongs to order {others[name]!r}; rename it")
        if len(set(names)) != len(names):
            raise BadMessage(f"order {order.order!r}: a job is named twice; job names are unique")
        if len(others) + len(names) > MAX_JOBS:
            raise BadMessage(f"order {order.order!r}: more than {MAX_JOBS} open jobs; finish some first")
        if old:
            stay = {job.job: job.product for job in old.jobs if job.job in begun}
            new = {job.job: job.product for job in order.jobs}
            lost = [name for name, product in stay.items() if new.get(name) != product]
            if lost:
                raise BadMessage(f"order {order.order!r}: job {lost[0]!r} has begun; keep it with its product")
        self._db.execute(
            "INSERT INTO placed VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET document=excluded.document",
            (order.order, order.encode()),
        )
        return True

    def close_order(self, order: str) -> None:
        """An order is done: the plan need not carry it any longer."""
        self._db.execute("DELETE FROM placed WHERE id=?", (order,))

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
        return {name: Signal.model_validate_json(document) for name, document in rows}

    def keep(self, envelope: InForce, *, answers_disturbance: bool) -> None:
        """Keep a plan before it is published."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(
            "INSERT INTO plan VALUES(?, ?, ?, ?)",
            (envelope.counter, envelope.body.plan.revision, int(answers_disturbance), envelope.encode()),
        )
        self._db.execute("DELETE FROM plan WHERE counter <= ?", (envelope.counter - KEPT_PLANS,))
        self._db.execute("COMMIT")

    def in_force(self) -> InForce | None:
        """The plan last kept."""
        row = self._db.execute("SELECT document FROM plan ORDER BY counter DESC LIMIT 1").fetchone()
        return InForce.model_validate_json(row[0]) if row else None

    def replans(self) -> int:
        """Revisions that answered a disturbance."""
        (count,) = self._db.execute("SELECT count(DISTINCT revision) FROM plan WHERE disturbance").fetchone()
        return int(count)

    def history(self) -> list[Kept]:
        """Every plan kept, oldest first."""
        rows = self._db.execute("SELECT document, disturbance FROM plan ORDER BY counter")
        return [Kept(InForce.model_validate_json(document), bool(flag)) for document, flag in rows]
