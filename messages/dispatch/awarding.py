"""Awards and withdrawals: who is given a task, who is asked to let it go, and under which number.

    sends = awarding.award(task, "lathe-1", now)
    sends = awarding.withdraw(task, now, "lathe-1 broke down")     # open again when its node has acknowledged that
    sends = awarding.say_again(task)                               # the same once more: the same number

Every award and every withdrawal has a number above all before it; those of a later term are higher whatever was lost.
A withdrawal ends nothing by itself. A fenced judge sends none.

Where places behind a machine are counted (`keeps`), a cancelled job ends only when the machine where its part lies has
been told to put it aside: by a withdrawal, too.

Of a task it writes what belongs to its award: `machine`, `counter`, `withdrawn`, `clearing`, `lease`, `sent_at`,
`awarded_at`, `not_before`, `carried`, `fetch_at`, `ahead`, `settled`, and `why`.
"""

from __future__ import annotations

from messages.clock import SECOND
from messages.dispatch.awaiting import Awaiting
from messages.dispatch.ledger import Ledger
from messages.dispatch.nodes import Nodes
from messages.dispatch.out import award_to
from messages.dispatch.task import GIVEN, Carried, Send, Task
from messages.dispatch.term import Term
from messages.pace import Pace

TERM_COUNTERS = 2**24
"""Numbers of one term."""


class Awarding:
    """Of one book. `site`: whose nodes are told."""

    def __init__(self, ledger: Ledger, nodes: Nodes, term: Term, awaiting: Awaiting, pace: Pace, *, site: str) -> None:
        self._ledger, self._nodes, self._term, self._awaiting, self._site = ledger, nodes, term, awaiting, site
        self._pace, self.lease_us = pace, round(pace.lease_s * SECOND)
        self.keeps: frozenset[str] = frozenset()
        """Machines behind which places are counted: a finished part takes one until it is fetched or put aside."""
        self._counter = term.authority.term * TERM_COUNTERS

    def used(self, counter: int) -> None:
        """Somebody knows of this number: the next is above it."""
        self._counter = max(self._counter, counter)

    def award(self, task: Task, machine: str, now: int, *, not_before: int, carried: Carried | None) -> list[Send]:
        """Give a tendered task to a machine; `carried`: how its part is to come there."""
        task.machine, task.counter, task.sent_at, task.awarded_at = machine, self._next(task), now, now
        task.not_before, task.lease, task.carried, task.why = not_before, now + self.lease_us, carried, ""
        task.settled, task.ahead = self._term.authority.session, self._undone_before(task)
        counted = machine in self.keeps or carried is None
        task.fetch_at = None if counted or carried is None else carried.departs_at
        self._ledger.enter(task, "awarded", rouse=False)
        return self._say(task, machine, task.counter)

    def withdraw(self, task: Task, now: int, why: str) -> list[Send]:
        """Ask for it back, unless work has begun."""
        if self._term.fenced or task.state not in GIVEN or task.begun or task.machine is None or task.withdrawn:
            return []
        task.sent_at = self._term.heard(now)
        self.to_be_withdrawn(task, why)
        self._ledger.ahead.loosen(task.job)
        return self.say_again(task)

    def to_be_withdrawn(self, task: Task, why: str) -> None:
        """A withdrawal that is said when the one before it would have been said again."""
        task.counter, task.withdrawn, task.why = self._next(task), True, why
        self._ledger.enter(task, task.state, rouse=False)

    def say_again(self, task: Task) -> list[Send]:
        """An award, or a withdrawal, as it was said."""
        return self._say(task, task.machine or "", task.counter, withdrawn=task.withdrawn)

    def take_back(self, task: Task, machine: str) -> list[Send]:
        """Tell a machine that holds it beside the one that has it to forget it."""
        return [] if self._term.fenced else self._say(task, machine, self._next(task), withdrawn=True)

    def release(self, task: Task, machine: str) -> list[Send]:
        """`machine` has it after all, or it is done (empty): whoever else holds it is told to forget it."""
        sends: list[Send] = []
        for _, one in self._nodes.elsewhere(task, but=self._nodes.of(machine)):
            if one.machine != task.machine:
                sends += self.take_back(task, one.machine)
        if task.state in ("awarded", "held") and task.machine not in (None, machine):
            sends += self.take_back(task, task.machine or "")
            task.counter = self._counter
        return sends

    def end(self, task: Task, now: int) -> None:
        """Cancelled and nobody's: it ends, once whoever may have its part at an output that counts knows that nobody
        fetches it."""
        before = self._ledger.before(task)
        at = before.machine if before is not None and before.state == "done" else None
        if at not in self.keeps or task.clearing == at:
            self._ledger.enter(task, "cancelled")
            return
        now = self._term.heard(now)
        task.machine = task.clearing = at
        task.counter, task.withdrawn = self._next(task), True
        task.lease, task.sent_at = now + self.lease_us, now - self._awaiting.us(self._pace.repeat_s)
        self._ledger.enter(task, "held")

    def _next(self, task: Task) -> int:
        """A number above all before it."""
        self._counter = max(self._counter, task.counter) + 1
        return self._counter

    def _undone_before(self, task: Task) -> int:
        """How many operations just before it are not done."""
        count, before = 0, self._ledger.before(task)
        while before is not None and before.state != "done":
            count, before = count + 1, self._ledger.before(before)
        return count

    def _say(self, task: Task, machine: str, counter: int, *, withdrawn: bool = False) -> list[Send]:
        node = self._nodes.node_of.get(machine)
        if node is None:
            return []  # nobody knows where to send it: the award ends with its lease
        return [award_to((self._site, node), task, machine, self._term.authority, counter=counter, withdrawn=withdrawn)]
