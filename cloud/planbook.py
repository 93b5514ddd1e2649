"""What the planner must not forget: orders, every plan it published, the counter. One SQLite file, FULL.

An order is on disk before its message is acknowledged, a plan before it is published; so a crash means that the
same plan is published again, never that a counter is used twice. The last `KEPT_PLANS` plans stay for audit.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from cloud.book import M
from cloud.orderbook import OrderBook
from messages.contracts import Envelope, PlanInForce

InForce = Envelope[PlanInForce]

KEPT_PLANS = 1_000


@dataclass(frozen=True)
class Kept:
    """A plan as it was published, and what made the planner plan."""

    envelope: InForce
    answers_disturbance: bool


class PlanBook(OrderBook):
    """Orders and plans on disk."""

    TABLES = (
        "CREATE TABLE IF NOT EXISTS plan(counter INTEGER PRIMARY KEY, revision INTEGER NOT NULL, "
        "disturbance INTEGER NOT NULL, document BLOB NOT NULL);"
    )

    def keep(self, envelope: InForce, *, answers_disturbance: bool, state: BaseModel) -> None:
        """Keep a plan before it is published, and with it what the planner must know after a restart."""
        with self.together():
            self._db.execute(
                "INSERT INTO plan VALUES(?, ?, ?, ?)",
                (envelope.counter, envelope.body.plan.revision, int(answers_disturbance), envelope.encode()),
            )
            self._db.execute(
                "DELETE FROM plan WHERE counter NOT IN (SELECT counter FROM plan ORDER BY counter DESC LIMIT ?)",
                (KEPT_PLANS,),
            )
            self.keep_state(state)

    def keep_state(self, state: BaseModel) -> None:
        """Keep what the planner must know after a restart."""
        self._db.execute("INSERT OR REPLACE INTO state VALUES('planner', ?)", (state.model_dump_json().encode(),))

    def in_force(self) -> InForce | None:
        """The plan last kept."""
        row = self._db.execute("SELECT counter, document FROM plan ORDER BY counter DESC LIMIT 1").fetchone()
        return self.whole(InForce, row[1], table="plan", row=row[0]) if row else None

    def state(self, kind: type[M]) -> M:
        """What was kept beside the plan last kept; a new one if nothing was."""
        row = self._db.execute("SELECT document FROM state WHERE name='planner'").fetchone()
        return self.whole(kind, row[0], table="state", row="planner") if row else kind()

    def history(self) -> list[Kept]:
        """Every plan kept, oldest first."""
        rows = self._db.execute("SELECT counter, document, disturbance FROM plan ORDER BY counter")
        return [
            Kept(self.whole(InForce, document, table="plan", row=counter), bool(flag))
            for counter, document, flag in rows
        ]
