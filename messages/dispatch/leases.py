"""What time brings to tasks that were given: awards said again or withdrawn, leases that end, work that is overdue.

    sends = leases.at_due(task, now)            # when `Due` says so
    leases.orphaned(task)                       # from the disk: its machine may be in the plant no more

A lease ends, and with it what a node may begin. Who was heard of since, and has it not, has lost it. Of a node that is
away nobody knows: where a part's tag tells what was done to it (`tags`, the last fence: a node reads it before it
begins) the end of the lease is enough; elsewhere the task is *unknown* until the node is back. A machine that is not in
the plant is its node's where that says so; of a task that lies at one nobody speaks of, the end of its lease is waited
for, too: it is *unknown* until then, and for good where it had begun or parts have no tags. `why` says so.
"""

from __future__ import annotations

from datetime import UTC, datetime

from messages.clock import SECOND
from messages.dispatch.awarding import Awarding
from messages.dispatch.due import Due
from messages.dispatch.ledger import Ledger
from messages.dispatch.losses import Losses
from messages.dispatch.nodes import Nodes
from messages.dispatch.task import GIVEN, Send, Task
from messages.dispatch.term import Term
from messages.pace import Pace


class Leases:
    """Of one book."""

    def __init__(
        self, ledger: Ledger, nodes: Nodes, due: Due, term: Term, awarding: Awarding, losses: Losses, pace: Pace
    ) -> None:
        self._ledger, self._nodes, self._due, self._term = ledger, nodes, due, term
        self._awarding, self._losses, self._overdue_s = awarding, losses, pace.overdue_s

    def at_due(self, task: Task, now: int) -> list[Send]:
        """What is due for a task that somebody has, if it is."""
        if task.state == "working":
            self._at_overdue(task, now)
            return []
        if task.state not in GIVEN:
            return []
        if now >= self._due.lease_over(task) and (sends := self._at_end(task, now)):
            return sends
        if task.state == "awarded" and not task.withdrawn and now >= self._due.silent(task):
            return self._awarding.withdraw(task, now, "its node does not answer")
        if task.state in GIVEN and self._due.is_answer_due(task) and now >= self._due.repeat(task):
            task.sent_at = now
            return self._awarding.say_again(task)
        return []

    def orphaned(self, task: Task) -> None:
        """Its machine may have been taken out of the plant while the book lay on the disk: of it nobody hears."""
        if task.machine is None or task.machine in self._nodes.node_of or task.state not in (*GIVEN, "working"):
            return
        cure = "put the machine back into the plant, or cancel the job"
        given = f"it was begun on {task.machine}" if task.begun else f"{task.machine} has it until its lease ends"
        task.why = f"{given}, and that machine is not in the plant: {cure}"
        self._ledger.enter(task, "unknown")

    def _at_overdue(self, task: Task, now: int) -> None:
        overdue = self._due.overdue(task)
        if overdue is None or now < overdue:
            return
        if not self._nodes.is_there(task.machine):
            task.why = f"{task.machine} should have finished, and its node is away"
            self._ledger.enter(task, "unknown")
        elif not task.why:
            end = datetime.fromtimestamp(overdue / SECOND - self._overdue_s, UTC).isoformat(timespec="seconds")
            task.why = f"{task.machine} should have finished at {end}: is it still at work?"
            self._ledger.touch(task.key)

    def _at_end(self, task: Task, now: int) -> list[Send]:
        node = self._nodes.of(task.machine)
        if task.machine == task.clearing:  # it gives nothing to begin
            if task.state != "unknown" and not self._nodes.is_online(node):
                task.why = f"cancelled; {node}, which is away, has to put its part aside at {task.machine}"
                self._ledger.enter(task, "unknown")
            return []
        said = self._nodes.agendas.get(node)
        if node == "":
            if (self._term.tags or task.cancelled) and not task.begun:
                why = f"it was not begun in time on {task.machine}, which is not in the plant"
                self._losses.again(task, now, why)
        elif said is not None and said.at >= max(task.lease, task.began_at or 0):
            if task.key not in self._nodes.listed(node):
                self._losses.again(task, now, "it was not begun in time")
        elif self._nodes.is_online(node):
            return self._awarding.withdraw(task, now, "it was not begun in time")
        elif task.state != "unknown":
            if self._term.tags and not task.cancelled:  # nobody waits for what is cancelled: then rather know
                self._losses.again(task, now, f"it was not begun in time, and {node} is away")
            else:
                task.why = f"{node} is away and may have begun it"
                self._ledger.enter(task, "unknown")
        return []
