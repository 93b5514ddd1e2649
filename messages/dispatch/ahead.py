"""What was awarded before its part was ready, so that a machine or a vehicle has its turn for it, and may not come.

    ahead.entered(task); ahead.loosen("T1")     # its part's way is in doubt
    for job in ahead.adrift:
        for task in not_coming(book.ops(job), works): …withdraw it
    ahead.settle()

Bound: jobs with such an award, until they leave the book.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from messages.dispatch.task import Task


class Ahead:
    """Of one book."""

    def __init__(self) -> None:
        self._jobs: dict[str, None] = {}
        self._adrift: dict[str, None] = {}  # those of them whose part may not come as was foreseen

    def entered(self, task: Task) -> None:
        """It has come to its state."""
        if task.ahead and task.state in ("awarded", "held"):
            self._jobs[task.job] = None
        elif task.state in ("open", "unknown"):
            self.loosen(task.job)

    def loosen(self, job: str) -> None:
        """See whether its part still comes."""
        if job in self._jobs:
            self._adrift[job] = None

    @property
    def adrift(self) -> list[str]:
        """Jobs to be looked at."""
        return list(self._adrift)

    def settle(self) -> None:
        """All have been looked at."""
        self._adrift.clear()

    def forget(self, job: str) -> None:
        """It has left the book."""
        self._jobs.pop(job, None)


def not_coming(ops: Iterable[Task], works: Callable[[str], bool]) -> Iterator[Task]:
    """Awards of a job whose part does not come as was foreseen, as somebody before it is away or broken, or nobody has
    it: it would keep others waiting behind it. `works`: whether a machine is sound, and its node there."""
    comes = True
    for task in ops:
        if task.state in ("awarded", "held") and not comes:
            yield task
        if task.state in ("awarded", "held", "working") and not task.withdrawn:
            comes = comes and works(task.machine or "")
        elif task.state != "done":
            comes = False
