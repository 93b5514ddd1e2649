"""The tasks of a judge's book: where each stands, what has changed, and when something is due.

    ledger.insert(task)                         # as it is: new, or from the disk
    ledger.enter(task, "open")                  # the only way to another state
    ledger.touch(task.key)                      # its fields have changed
    ledger.look_again(task.key)                 # who is there has changed, which may settle what was due

`changed`, `moved` and `progressed` tell three readers what to look at; each takes out what it has seen. `version` rises
whenever a judge might decide otherwise. Nothing is forgotten before `forget`.
"""

from __future__ import annotations

from messages.dispatch.ahead import Ahead
from messages.dispatch.due import Due
from messages.dispatch.index import Index
from messages.dispatch.nodes import Nodes
from messages.dispatch.task import GIVEN, Key, State, Task


class Ledger:
    """Of one book."""

    def __init__(self, nodes: Nodes, due: Due) -> None:
        self._nodes, self._due, self._index = nodes, due, Index()
        self.tasks = self._index.tasks
        self.changed: set[Key] = set()
        """Tasks to be written to the disk (or, where no longer in `tasks`, removed) before anything is sent."""
        self.moved: set[str] = set()
        """Jobs of which a task changed."""
        self.progressed: dict[str, None] = {}
        """Jobs of which a task was added or is over."""
        self.ahead = Ahead()
        self.version = 0

    # --- what stands where -----------------------------------------------------------------------------

    def of(self, *states: State) -> list[Task]:
        """Tasks in these states."""
        return self._index.of(*states)

    def ops(self, job: str) -> list[Task]:
        """Tasks of a job in the order in which they were added."""
        return self._index.ops(job)

    def at(self, node: str) -> list[Key]:
        """What a node was given or works on."""
        return self._index.at(node)

    def before(self, task: Task) -> Task | None:
        """The operation before it."""
        return self.tasks.get((task.job, task.op - 1))

    @property
    def ready(self) -> dict[Key, None]:
        """Tendered, with bids to decide on."""
        return self._index.ready

    @property
    def offerable(self) -> dict[Key, None]:
        """Open, and rested."""
        return self._index.offerable

    # --- what changes ------------------------------------------------------------------------------------

    def rouse(self) -> None:
        """A judge might decide otherwise."""
        self.version += 1

    def touch(self, key: Key) -> None:
        """It has changed."""
        self.changed.add(key)
        self.moved.add(key[0])

    def insert(self, task: Task) -> None:
        """A task that is not in the book."""
        self._index.add(task)
        self.progressed[task.job] = None
        self._place(task, task.state)

    def enter(self, task: Task, state: State, *, rouse: bool = True) -> None:
        """It comes to this state, or stays in it with other fields; `rouse`: a judge might decide otherwise."""
        self._place(task, state)
        if task.over:
            self.progressed[task.job] = None
        self.ahead.entered(task)
        self.touch(task.key)
        if rouse:
            self.rouse()

    def forget(self, job: str) -> list[Key]:
        """A job leaves the book; the keys its tasks had."""
        keys = self._index.remove(job)
        for key in keys:
            self.touch(key)
        self.progressed.pop(job, None)
        self.ahead.forget(job)
        return keys

    def _place(self, task: Task, state: State) -> None:
        there = task.machine is not None and state in (*GIVEN, "working")
        self._index.enter(task, state, node=self._nodes.of(task.machine) if there else None)
        self.look_again(task.key)

    # --- what is due ---------------------------------------------------------------------------------------

    def look_again(self, key: Key) -> None:
        """Something was heard that may settle what was due."""
        self._index.due.put(key, min(self._times(key), default=None))

    def rest(self, key: Key, until: int) -> None:
        """Nothing is due before; an open one is not offered."""
        self._index.offerable.pop(key, None)
        self._index.due.put(key, until)

    def due(self, now: int) -> list[Task]:
        """Tasks of which something is due; `carry_on` follows for each."""
        return [self.tasks[key] for key in self._index.due.pop(now)]

    def carry_on(self, key: Key, now: int) -> None:
        """What was due has been seen to: what comes after it."""
        self._index.due.put(key, min((at for at in self._times(key) if at > now), default=None))

    def next_due(self) -> int | None:
        """When something is due; None: never."""
        return self._index.due.next()

    def _times(self, key: Key) -> list[int]:
        return self._due.times(self.tasks[key], ready=key in self._index.ready)
