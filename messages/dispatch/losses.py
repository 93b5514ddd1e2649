"""What came to nothing: awards refused or given up, work interrupted, machines broken, orders cancelled.

    losses.again(task, now, "refused")          # nobody's, or another's who says he holds it; else it is tendered again
    sends = losses.cancel(task, now, "cancelled")
    sends = losses.interrupted(record); sends = losses.broke("lathe-1", now)

An award is withdrawn when its machine breaks and another could do the work, and when nobody wants it any more; it is
somebody else's only after the node's acknowledgement, or as at the lease's end. A cancelled task ends once nobody can
begin it any more; what has begun is finished. Where a breakdown destroys the part
(`scraps`), its job ends. A task that is tendered again rests first, so that a node that refuses is not asked at once.

Of a task it writes that nobody has it: `machine`, `began_at`, `carried`, `withdrawn`, `listed`, `not_sooner`, `lost`,
`cancelled`, and `why`.
"""

from __future__ import annotations

from messages.clock import SECOND
from messages.contracts import Interrupted
from messages.dispatch.ahead import not_coming
from messages.dispatch.awarding import Awarding
from messages.dispatch.deeds import Deeds
from messages.dispatch.holdings import Holdings
from messages.dispatch.ledger import Ledger
from messages.dispatch.nodes import Nodes
from messages.dispatch.task import Send, Task
from messages.dispatch.term import Term
from messages.dispatch.told import Machines, able
from messages.pace import Pace


class Losses:
    """Of one book."""

    def __init__(
        self,
        ledger: Ledger,
        nodes: Nodes,
        machines: Machines,
        term: Term,
        awarding: Awarding,
        deeds: Deeds,
        holdings: Holdings,
        pace: Pace,
    ) -> None:
        self._ledger, self._nodes, self._machines, self._term = ledger, nodes, machines, term
        self._awarding, self._deeds, self._holdings = awarding, deeds, holdings
        self._retry_us, self._skew_us = round(pace.retry_s * SECOND), round(pace.skew_s * SECOND)
        self.scraps: frozenset[str] = frozenset()
        """Machines whose breakdown destroys the part at work."""

    def again(self, task: Task, now: int, why: str, *, rest: bool = True) -> None:
        """Nobody's again; `now`: also as a record or an agenda tells it."""
        now = self._term.heard(now)
        if task.carried and task.carried.departs_at <= now:
            self._deeds.brought(task)
        left = self._nodes.of(task.machine)
        task.why, task.machine, task.began_at, task.carried = why, None, None, None
        task.withdrawn, task.listed = False, 0
        task.not_sooner = now + (self._retry_us if rest else 0)
        for node, one in self._nodes.elsewhere(task, but=left):
            if not self._term.tags or now < one.valid_until or self._nodes.is_online(node):
                self._holdings.holds(task, one, self._nodes.agendas[node].at)  # what is to be said is said when due
                return
        if task.cancelled:
            self._awarding.end(task, now)
        else:
            self._ledger.enter(task, "open")

    def cancel(self, task: Task, now: int, why: str) -> list[Send]:
        """Nobody wants it any more: it ends as cancelled, unless it has begun."""
        if task.over or task.cancelled:
            return []
        now = self._term.heard(now)
        task.cancelled = True
        self._ledger.touch(task.key)
        if task.state in ("waiting", "open", "tendered"):
            task.why = why
            self._awarding.end(task, now)
            return []
        if task.machine not in self._nodes.node_of and (task.begun or now >= task.lease + self._skew_us):
            self.again(task, now, why)  # no machine of the plant works on it, and nobody waits for it
            return []
        return self._awarding.withdraw(task, now, why)

    def interrupted(self, record: Interrupted) -> list[Send]:
        """A machine broke down at work."""
        task = self._ledger.tasks.get((record.job, record.op))
        if task is None or task.over or record.at <= task.lost.get(record.machine, -1):
            return []
        task.lost[record.machine] = record.at
        self._ledger.touch(task.key)
        sends = self._scrapped(task, record.machine, record.at)
        since = task.began_at or 0 if task.begun else max(task.awarded_at - self._skew_us, task.listed_at)
        if task.machine == record.machine and record.at >= since:  # else it tells of work before that
            self.again(task, record.at, task.why if task.cancelled else "interrupted: the machine broke down")
        return sends

    def unlisted(self, task: Task, at: int) -> list[Send]:
        """Its node, of which it was known to have it, does not name it any more: it is nobody's."""
        if not task.counter or task.listed != task.counter or at <= task.listed_at:
            return []
        if not task.begun:
            self.again(task, at, "its node gave it up")
            return []
        task.lost[task.machine or ""] = max(task.lost.get(task.machine or "", -1), at)
        sends = self._scrapped(task, task.machine, at)
        self.again(task, at, task.why if task.cancelled else "interrupted: its node has it no more")
        return sends

    def broke(self, machine: str, now: int) -> list[Send]:
        """A machine is broken: what it holds may be done elsewhere, if anybody could."""
        if self._term.began_at is None or self._term.fenced:
            return []
        sends: list[Send] = []
        for key in self._ledger.at(self._nodes.of(machine)):
            task = self._ledger.tasks[key]
            if task.machine != machine:
                continue
            self._ledger.ahead.loosen(task.job)
            others = able(task.seconds, self._machines, but=machine)
            if task.state in ("awarded", "held") and any(self._nodes.is_there(name) for name in others):
                sends += self._awarding.withdraw(task, now, f"{machine} broke down")
        return sends

    def adrift(self, now: int) -> list[Send]:
        """What was awarded ahead of a part that does not come is withdrawn."""
        sends: list[Send] = []
        for job in self._ledger.ahead.adrift:
            for task in not_coming(self._ledger.ops(job), self._works):
                sends += self._awarding.withdraw(task, now, "its part does not come as was foreseen")
        self._ledger.ahead.settle()
        return sends

    def _works(self, machine: str) -> bool:
        return self._nodes.is_there(machine) and not self._machines.is_down(machine)

    def _scrapped(self, task: Task, machine: str | None, at: int) -> list[Send]:
        """Where a breakdown destroys the part, its job ends."""
        if machine not in self.scraps:
            return []
        why = f"scrapped: {machine} broke down at work on op {task.op}"
        sends = [send for one in self._ledger.ops(task.job) for send in self.cancel(one, at, why)]
        task.why = why
        return sends
