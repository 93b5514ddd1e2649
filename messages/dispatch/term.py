"""One judge's term on its site: since when, whether it still judges, and who has said that he obeys.

    term = Term(authority, nodes=["cell-1", "cell-2"], tags=True, pace=pace)
    term.begin(now)
    term.hear("cell-1", agenda.authority, there=True)   # of whom it obeys, or that it came or went
    term.established                                    # every node that is there obeys: awards may be made

A higher judge fences this one for good. Tasks that a node which never answered may hold by an earlier judge's award
wait until the longest lease has ended, where parts have tags; elsewhere until it has answered.
"""

from __future__ import annotations

from collections.abc import Iterable

from messages.clock import SECOND
from messages.dispatch.task import Task
from messages.negotiation import Authority
from messages.pace import Pace


class Term:
    """Of one judge."""

    def __init__(self, authority: Authority, *, nodes: Iterable[str], tags: bool, pace: Pace, now: int = 0) -> None:
        self.authority, self.tags = authority, tags
        self.fenced = False
        self.began_at: int | None = None
        self._now = now  # the judge's own time, as it was heard last; 0: nobody has said it yet
        self._lease_us, self._renew_us = round(pace.lease_s * SECOND), round(pace.renew_s * SECOND)
        self._nodes = frozenset(nodes)
        self._strangers = set(self._nodes)  # nodes that have not said that they obey
        self._silent: set[str] = set()  # those of them that are there
        self._surely_at: int | None = None  # when no older lease runs any more

    def begin(self, now: int) -> bool:
        """It judges from now on; whether it had not begun before."""
        self._now = now
        if self.began_at is not None:
            return False
        self.began_at, self._surely_at = now, now + self._lease_us
        return True

    def on_authority(self, other: Authority) -> None:
        """Somebody judges, or obeys somebody who does."""
        self.fenced |= other > self.authority

    def hear(self, node: str, obeys: Authority | None, *, there: bool) -> bool:
        """Whom a node said it obeys, and whether it is there; whether that settles, or unsettles, something."""
        strange = node in self._nodes and obeys != self.authority
        (self._strangers.add if strange else self._strangers.discard)(node)
        silent = strange and there
        if silent == (node in self._silent):
            return False
        (self._silent.add if silent else self._silent.discard)(node)
        return True

    @property
    def established(self) -> bool:
        """Whether every node that is there has said that it obeys this judge."""
        return not self._silent and not self.fenced and self.began_at is not None

    @property
    def silent(self) -> tuple[str, ...]:
        """Nodes that are there and have not said yet that they obey."""
        return tuple(sorted(self._silent))

    def may_be_held(self, task: Task, able: Iterable[str | None], now: int) -> bool:
        """Whether one of the `able` nodes that never answered this judge may hold the task by an earlier judge's award;
        also of a task that an older book says is elsewhere: another judge may have awarded it since."""
        if not self._strangers or task.settled == self.authority.session or self.began_at is None:
            return False
        if self.tags and now >= self.began_at + self._lease_us:
            return False
        return any(node in self._strangers for node in able)

    @property
    def now(self) -> int:
        """The judge's own time, as it was said last."""
        return self._now

    def on_time(self, now: int) -> bool:
        """It is `now`; whether that was the end of the last lease of an earlier judge."""
        self._now = now
        if self.fenced or self._surely_at is None or now < self._surely_at:
            return False
        self._surely_at = None
        return True

    def next_due(self) -> int | None:
        """When `on_time` must be called; None: never."""
        return self._surely_at

    def heard(self, at: int) -> int:
        """When it was heard, at the latest, that something happened `at` by a clock that may be ahead of this judge's,
        which was told the time within the last renewal of its word."""
        return min(at, self._now + self._renew_us) if self._now else at
