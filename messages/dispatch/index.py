"""Where every task of a judge's book stands: by its state, its job, the node that has it, and when something is due.

    index.add(task)
    index.enter(task, "open", node=None)                # the only way a task's state changes; then say when it is due
    index.of("open"), index.ops("T1"), index.at("cell-1")

Every question costs as much as its answer is long.
"""

from __future__ import annotations

from typing import get_args

from messages.dispatch.calendar import Calendar
from messages.dispatch.task import Key, State, Task


class Index:
    """All tasks of one book."""

    def __init__(self) -> None:
        self.tasks: dict[Key, Task] = {}
        self.ready: dict[Key, None] = {}
        """tendered, with bids to decide on"""
        self.offerable: dict[Key, None] = {}
        """open, and rested"""
        self.due: Calendar[Key] = Calendar()
        self._of: dict[State, dict[Key, None]] = {state: {} for state in get_args(State)}
        self._ops: dict[str, dict[int, None]] = {}
        self._at: dict[str, dict[Key, None]] = {}
        self._node: dict[Key, str] = {}

    def of(self, *states: State) -> list[Task]:
        """Tasks in these states."""
        return [self.tasks[key] for state in states for key in self._of[state]]

    def ops(self, job: str) -> list[Task]:
        """Tasks of a job in the order in which they were added."""
        return [self.tasks[job, op] for op in self._ops.get(job, ())]

    def at(self, node: str) -> list[Key]:
        """What a node was given or works on."""
        return list(self._at.get(node, ()))

    def add(self, task: Task) -> None:
        """A new task; `enter` follows."""
        self.tasks[task.key] = task
        self._ops.setdefault(task.job, {})[task.op] = None

    def enter(self, task: Task, state: State, *, node: str | None) -> None:
        """It is in this state; `node` has it, if any has."""
        key = task.key
        self._of[task.state].pop(key, None)
        task.state = state
        self._of[state][key] = None
        self._leave(key)
        if node is not None:
            self._node[key] = node
            self._at.setdefault(node, {})[key] = None
        if state != "open":
            self.offerable.pop(key, None)
        if state == "tendered" and task.bids and not task.asked:
            self.ready[key] = None
        elif state != "tendered" or not task.bids:
            self.ready.pop(key, None)

    def remove(self, job: str) -> list[Key]:
        """A job leaves the book; the keys its tasks had."""
        keys = [(job, op) for op in self._ops.pop(job, ())]
        for key in keys:
            self._of[self.tasks.pop(key).state].pop(key, None)
            self._leave(key)
            self.ready.pop(key, None)
            self.offerable.pop(key, None)
            self.due.put(key, None)
        return keys

    def _leave(self, key: Key) -> None:
        if (node := self._node.pop(key, None)) is not None:
            self._at[node].pop(key, None)
