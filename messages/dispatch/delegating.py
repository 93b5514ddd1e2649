"""What delegates are told of the open jobs and of what is in stock, when that has changed. Pure.

    delegating = Delegating(agent)
    delegating.stir()                           # a task of the book has changed
    delegation = delegating.news(now)           # None: nothing to say now
    delegating.again()                          # a broker may have lost what it retained

Looked at `Pace.delegate_s` apart at most, and only after something has changed: of many jobs that costs. A revision is
the plant time at which it was said, or one more than the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from messages.clock import SECOND
from messages.dispatch.agent import Dispatcher
from messages.negotiation import Delegation


@dataclass
class Delegating:
    """One judge's word to its delegates."""

    agent: Dispatcher
    said: Delegation | None = None
    looks: int = 0
    """How often the open jobs were looked at."""
    _stirred: bool = True
    _stock_at: int = -1
    _looked_at: int | None = None
    _again: bool = False

    def stir(self) -> None:
        """A task has changed, perhaps only its bids."""
        self._stirred = True

    def again(self) -> None:
        """Whatever was said is to be said once more, now."""
        self._again = True

    def news(self, now: int) -> Delegation | None:
        """What to tell now."""
        agent, parts = self.agent, self.agent.components
        stock = parts.inventory if parts is not None else None
        rest_us = round(agent.book.pace.delegate_s * SECOND)
        if not self._again:
            if self._looked_at is not None and now < self._looked_at + rest_us:
                return None
            if not self._stirred and (stock is None or stock.version == self._stock_at):
                return None
        self._stirred, self._looked_at, self._stock_at = False, now, stock.version if stock is not None else -1
        self.looks += 1
        jobs, known, again = agent.open_jobs(), self.said, self._again
        left, begun = (stock.left_by_others(), stock.begun()) if stock is not None else ({}, {})
        self._again = False
        if known is not None and (known.jobs, known.stock, known.begun) == (jobs, left, begun) and not again:
            return None
        term, session = agent.book.authority
        self.said = Delegation(
            term=term,
            session=session,
            revision=now if known is None else max(now, known.revision + 1),
            at=now,
            jobs=jobs,
            stock=left,
            begun=begun,
        )
        return self.said
