"""What nodes answer to awards and withdrawals: accepted, refused, begun, done; each answer counts for its own number.

    answers.on_ack("cell-1", ack, now)

Whatever a node says it has let go of is kept (`let_go`), whoever asked. The rest counts only as an answer to what this
judge said last to the machine that has the task: rivals of one term may use the same numbers.
"""

from __future__ import annotations

from messages.dispatch.awarding import Awarding
from messages.dispatch.deeds import Deeds
from messages.dispatch.ledger import Ledger
from messages.dispatch.losses import Losses
from messages.dispatch.nodes import Nodes
from messages.dispatch.task import GIVEN, Task
from messages.dispatch.term import Term
from messages.negotiation import AwardAck


class Answers:
    """Of one book."""

    def __init__(
        self, ledger: Ledger, nodes: Nodes, term: Term, awarding: Awarding, deeds: Deeds, losses: Losses
    ) -> None:
        self._ledger, self._nodes, self._term = ledger, nodes, term
        self._awarding, self._deeds, self._losses = awarding, deeds, losses

    def on_ack(self, node: str, ack: AwardAck, now: int) -> None:
        """What the node made of an award or a withdrawal."""
        task = self._ledger.tasks.get((ack.job, ack.op))
        if task is None:
            return
        without = ack.counter if ack.accepted else ack.held
        if ack.state == "none" and without is not None and without > task.let_go.get(node, -1):
            task.let_go[node] = without  # whoever asked: what it said it held under lower counters is past
            self._ledger.touch(task.key)
        if task.machine is None or not self._is_to(node, ack, task):
            return
        self._awarding.used(ack.held or 0)
        if ack.state == "finished":
            self._deeds.ended(task.key, task.machine, ack.at, None)
        elif ack.state == "started":
            self._deeds.began(task.key, task.machine, ack.at)
        elif ack.accepted and task.withdrawn:
            self._losses.again(task, now, task.why, rest=False)
        elif ack.accepted:
            task.listed, task.listed_at = task.counter, ack.at
            self._ledger.enter(task, "held" if task.state == "awarded" else task.state, rouse=False)
        elif ack.state == "held" or task.withdrawn:  # it has it, or it may begin any moment: asked until that is known
            self._awarding.to_be_withdrawn(task, ack.reason or task.why)
        else:
            self._losses.again(task, now, ack.reason or "refused")

    def _is_to(self, node: str, ack: AwardAck, task: Task) -> bool:
        """Whether it answers what this judge said last."""
        if self._nodes.node_of.get(task.machine or "") != node or ack.counter != task.counter:
            return False
        return task.state in GIVEN and (ack.session is None or (ack.term, ack.session) == self._term.authority)
