"""When something is due for a task if nothing happens before: a rest, a deadline, an answer, a lease, an end of work.

    due = Due(pace, awaiting, nodes)
    due.times(task, ready=False)                # none: it waits for somebody's word

Pure: looks at a task and at who is there, and changes nothing.
"""

from __future__ import annotations

from messages.clock import SECOND
from messages.dispatch.awaiting import Awaiting
from messages.dispatch.nodes import Nodes
from messages.dispatch.task import GIVEN, Task
from messages.pace import Pace


class Due:
    """By the pace of a plant and the patience of its judge."""

    def __init__(self, pace: Pace, awaiting: Awaiting, nodes: Nodes) -> None:
        self._pace, self._awaiting, self._nodes = pace, awaiting, nodes
        self._skew_us = round(pace.skew_s * SECOND)

    def times(self, task: Task, *, ready: bool) -> list[int]:
        """All that is due; `ready`: there are bids to decide on."""
        if task.state == "open":
            return [task.not_sooner]
        if task.state == "tendered":
            if not task.asked and not task.bids:
                return [0]
            return [min(task.good_until.values())] if ready else [task.deadline]
        if task.state == "working":
            overdue = self.overdue(task)
            return [] if overdue is None or (self._nodes.is_there(task.machine) and task.why) else [overdue]
        if task.state not in GIVEN:
            return []
        times = [self.lease_over(task)]
        if task.state == "awarded" and not task.withdrawn:
            times.append(self.silent(task))
        if self.is_answer_due(task):
            times.append(self.repeat(task))
        return times

    def is_answer_due(self, task: Task) -> bool:
        """Whether its node, which is there, has yet to say what it made of an award or a withdrawal."""
        return (task.state == "awarded" or task.withdrawn) and self._nodes.is_there(task.machine)

    def repeat(self, task: Task) -> int:
        """When an award or a withdrawal nobody answered is said again."""
        return task.sent_at + self._awaiting.us(self._pace.repeat_s)

    def silent(self, task: Task) -> int:
        """When an award nobody answered is withdrawn."""
        return task.awarded_at + self._awaiting.us(self._pace.silent_s)

    def lease_over(self, task: Task) -> int:
        """When nobody may begin it any more, by whatever clock."""
        return task.lease + self._skew_us

    def overdue(self, task: Task) -> int | None:
        """When work has lasted so long that something must be wrong; None: it has not begun."""
        if task.began_at is None or task.machine is None:
            return None
        return task.began_at + round((task.seconds.get(task.machine, 0.0) + self._pace.overdue_s) * SECOND)
