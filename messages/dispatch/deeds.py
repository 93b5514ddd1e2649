"""What machines did, whoever awarded it: a task is begun, done, and by that all that comes before it is done.

    sends = deeds.began(("T1", 0), "lathe-1", at)
    sends = deeds.ended(("T1", 0), "lathe-1", at, began_at)
    deeds.vehicles                              # vehicle → when it came, and where

Deeds may be told late, twice and out of order; the earliest end and the run it belongs to count. Another machine that
holds the task meanwhile is told to let it go. A second run of a task that is done is kept in `twice`.

Of a task it writes what belongs to its work: `machine`, `began_at`, `ended_at`, `twice`, and that nothing of an award
is left (`withdrawn`, `why`).
"""

from __future__ import annotations

from messages.dispatch.awarding import Awarding
from messages.dispatch.ledger import Ledger
from messages.dispatch.task import Key, Send, Task
from messages.dispatch.term import Term
from messages.dispatch.told import Machines


class Deeds:
    """Of one book."""

    def __init__(self, ledger: Ledger, term: Term, awarding: Awarding, machines: Machines) -> None:
        self._ledger, self._term, self._awarding, self._machines = ledger, term, awarding, machines
        self.vehicles: dict[int, tuple[int, str]] = {}
        """Vehicle → when it came, and where, with what it was last foreseen to carry."""
        self.twice: dict[str, str] = {}
        """Jobs of which an operation was done more than once, and by whom."""

    def began(self, key: Key, machine: str, at: int) -> list[Send]:
        """A machine works on it."""
        task = self._ledger.tasks.get(key)
        if task is None or task.state == "done" or at <= task.lost.get(machine, -1):
            return []
        if task.state == "working" and task.machine == machine:
            if at < (task.began_at or 0):
                task.began_at = at
                self._ledger.touch(key)
            return []
        foreseen = task.state in ("awarded", "held") and task.machine == machine
        sends = self._awarding.release(task, machine)
        task.machine, task.began_at, task.withdrawn = machine, at, False
        task.why = task.why if task.cancelled else ""
        self.brought(task)
        self._ledger.enter(task, "working", rouse=not foreseen)
        return sends + self.done_before(key)

    def ended(self, key: Key, machine: str, at: int, began_at: int | None) -> list[Send]:
        """A machine has done it; `began_at`: None where that is not told."""
        task = self._ledger.tasks.get(key)
        if task is None:
            return []
        self._machines.on_ended(machine, self._term.heard(at))
        if task.state == "done":
            self._if_twice(task, machine, at, began_at)
            if task.ended_at is None or at < task.ended_at or (began_at is not None and began_at != task.began_at):
                task.machine, task.ended_at = machine, at
                task.began_at = began_at if began_at is not None else task.began_at
                self._ledger.touch(key)
            return []
        sends = self._awarding.release(task, machine)
        task.machine, task.ended_at, task.withdrawn, task.why = machine, at, False, ""
        task.began_at = began_at if began_at is not None else task.began_at
        self.brought(task)
        self._ledger.enter(task, "done")
        after = self._ledger.tasks.get((task.job, task.op + 1))
        if after is not None and after.state == "cancelled":
            self._awarding.end(after, at)
        return sends + self.done_before(key)

    def done_until(self, job: str, count: int, *, machine: str | None, at: int) -> list[Send]:
        """Somebody knows that its first operations are done, the last of them on `machine`."""
        task = self._ledger.tasks.get((job, count - 1))
        if task is None or task.state == "done":
            return []
        sends = self._awarding.release(task, machine or "")
        task.machine, task.ended_at = machine, at
        self._ledger.enter(task, "done")
        return sends + self.done_before(task.key)

    def done_before(self, key: Key) -> list[Send]:
        """Who began or did an operation knew that those before it were done."""
        sends: list[Send] = []
        for op in range(key[1] - 1, -1, -1):
            task = self._ledger.tasks.get((key[0], op))
            if task is None or task.state == "done":
                break
            sends += self._awarding.release(task, "")
            self._ledger.enter(task, "done")
        return sends

    def recall(self, task: Task) -> None:
        """A task comes from the disk."""
        if task.twice:
            self.twice[task.job] = task.why
        if task.begun or task.state == "done":
            self.brought(task)

    def brought(self, task: Task) -> None:
        """The vehicle that brought it is where the part is."""
        if task.carried and task.carried.vehicle >= 0 and task.machine is not None:
            came = self.vehicles.get(task.carried.vehicle, (-1, ""))
            self.vehicles[task.carried.vehicle] = max(came, (task.carried.arrives_at, task.machine))

    def _if_twice(self, task: Task, machine: str, at: int, began_at: int | None) -> None:
        """Say so where what is told of a task that is done is another run of it than the one known."""
        if task.ended_at is None or task.machine is None:
            return
        apart = None not in (began_at, task.began_at) and (
            (began_at or 0) >= task.ended_at or at <= (task.began_at or 0)
        )
        if task.twice or not (machine != task.machine or apart):
            return
        task.twice, task.why = True, f"done twice: by {task.machine} and by {machine}; look which part is the good one"
        self.twice[task.job] = task.why
        self._ledger.touch(task.key)
        self._ledger.rouse()
