"""What happens: the floor as its records and its nodes tell it, and whether the plan in force still stands.

watch = Watch(store, settings, out, site="s1")
watch.read()
watch.disturbed(now), watch.forecast(now, signals)     # why a new plan is wanted, or None
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cloud.monitor import Tolerance, elsewhere, reason_to_replan
from cloud.planning import speaks_of
from cloud.released import Released
from cloud.settings import PlannerSettings
from cloud.stores import Store
from messages.contracts import Signal
from messages.floor import SECOND, Floor, Key

READ_AT_ONCE = 1_000
"""Records read per step; a longer backlog is read in several."""
CLAIM_S = 2 * 3600.0
"""An operation a node said it began, of which no record comes for this long (plant time), may be planned again."""


@dataclass
class Watch:
    """The floor of one site against what was released."""

    store: Store
    settings: PlannerSettings
    out: Released
    site: str
    floor: Floor = field(default_factory=Floor)
    claims: dict[Key, int] = field(init=False)
    """operations that nodes said they began, and of which no record has come, with when they said so"""
    _cursor: int = 0

    def __post_init__(self) -> None:
        self.claims = {(job, op): at for job, op, at in self.out.state.claims}

    def read(self) -> None:
        """Take in the records that are new."""
        while rows := self.store.records(after=self._cursor, limit=READ_AT_ONCE):
            for row in rows:
                if row.site == self.site:
                    self.floor.apply(row.record)
                self._cursor = row.cursor

    def claim(self, keys: Iterable[Key], now: int) -> None:
        """A node says it began these."""
        self.claims |= {key: now for key in keys if key not in self.floor.begun}
        self._keep()

    def disturbed(self, now: int) -> str | None:
        """What happened on the floor that the plan in force does not provide for."""
        begun, body = self.floor.begun, self.out.body
        found = elsewhere(body, self.floor) if body else None
        for key, at in list(self.claims.items()):
            if key in begun or now > at + CLAIM_S * SECOND:
                del self.claims[key]  # if its start ran out unanswered, it may be planned again
                self._keep()
                found = key if key in begun else found
        if found:
            return f"job {found[0]} operation {found[1]} had begun elsewhere than planned"
        return reason_to_replan(
            body,
            self.floor,
            now,
            planned_at=self.out.state.planned_at,
            planned_down=self.out.state.planned_down,
            tolerance=Tolerance(self.settings.late_s, self.settings.pause_s),
            claimed=self.claims,
        )

    def forecast(self, now: int, signals: Mapping[str, Signal]) -> str | None:
        """A forecast that came after the plan in force, and says something about an objective."""
        if (body := self.out.body) and now >= self.out.state.planned_at + self.settings.pause_s * SECOND:
            for name, signal in signals.items():
                if body.signals.get(name) != signal.revision and speaks_of(name, self.settings):
                    return f"signal {name} revision {signal.revision}"
        return None

    def _keep(self) -> None:
        """With the next plan: a claim that is lost before was never published."""
        self.out.change(claims=[(job, op, at) for (job, op), at in self.claims.items()])
