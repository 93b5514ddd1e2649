"""What nodes say they hold, begun or finished: facts to the book, whoever awarded them.

    sends = holdings.on_listed(task, held, at)  # one entry of an agenda said at `at`
    holdings.holds(task, held, at)              # a task that came to nothing is somebody else's who lists it

The greater number counts; what was said before a node let go of a task changes nothing. Who holds a task another works
on, or has done, is told to forget it.

Of a task it writes who has its award by his own word: `machine`, `counter`, `lease`, `ahead`, `listed`, `listed_at`.
"""

from __future__ import annotations

from messages.dispatch.awarding import Awarding
from messages.dispatch.deeds import Deeds
from messages.dispatch.ledger import Ledger
from messages.dispatch.nodes import Nodes
from messages.dispatch.task import GIVEN, Send, Task
from messages.dispatch.term import Term
from messages.negotiation import Held


class Holdings:
    """Of one book."""

    def __init__(self, ledger: Ledger, nodes: Nodes, term: Term, awarding: Awarding, deeds: Deeds) -> None:
        self._ledger, self._nodes, self._term = ledger, nodes, term
        self._awarding, self._deeds = awarding, deeds

    def on_listed(self, task: Task, one: Held, at: int) -> list[Send]:
        """Its node says what has become of it there."""
        if one.state == "finished":
            return self._deeds.ended(task.key, one.machine, one.at, None)
        node = self._nodes.of(one.machine)
        if one.state == "held" and one.counter <= task.let_go.get(node, -1):
            return []  # it was said before it let go
        if one.state == "held" and task.state in ("working", "done"):
            is_its = node == self._nodes.node_of.get(task.machine or "")
            return [] if is_its else self._awarding.take_back(task, one.machine)
        if task.state == "done":
            return []
        if one.state == "started":
            sends = self._deeds.began(task.key, one.machine, one.at)
            if task.state == "working" and task.machine == one.machine:
                task.counter = max(task.counter, one.counter)
                task.listed, task.listed_at = task.counter, at
            return sends
        if one.counter >= task.counter or task.state not in GIVEN:  # else it is told when nobody else has it
            return self.holds(task, one, at)
        return []

    def holds(self, task: Task, one: Held, at: int) -> list[Send]:
        """Its node says so, whoever awarded it."""
        sends: list[Send] = []
        news = task.state != "held" or (task.machine, task.counter) != (one.machine, one.counter)
        task.machine, task.counter, task.lease = one.machine, one.counter, one.valid_until
        task.ahead = one.ahead
        task.listed, task.listed_at, task.began_at = one.counter, at, None
        if news:
            task.withdrawn = False
            self._ledger.enter(task, "held")
            sends = self._deeds.done_before((task.job, task.op - one.ahead))
        if task.cancelled:
            sends += self._awarding.withdraw(task, self._term.heard(at), "cancelled")
        return sends
