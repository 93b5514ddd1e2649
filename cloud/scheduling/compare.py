"""Two plans side by side: what each costs, which operations moved, how nervous the change is.

    found = compare(problem, old, new)
    found.values["makespan"]      # (54.0, 56.0)
    found.moved                   # operations on another machine or at another time, the farthest first
    found.share_moved             # of the operations that both plan and that are not history

Pure. Operations that only one of the plans has (a job came in or was finished) are told apart, not counted as moved.
"""

from __future__ import annotations

from dataclasses import dataclass

from messages.judge import objective
from messages.plan import Assignment, Plan
from messages.problem import Problem

Key = tuple[str, int]


@dataclass(frozen=True)
class Moved:
    """One operation in both plans."""

    job: str
    op: int
    machines: tuple[str, str]
    starts: tuple[int, int]

    @property
    def shift(self) -> int:
        """Ticks later, negative: earlier."""
        return self.starts[1] - self.starts[0]


@dataclass(frozen=True)
class Comparison:
    """From the first plan to the second; times in ticks."""

    values: dict[str, tuple[float, float]]
    moved: tuple[Moved, ...]
    same: int
    """Operations both plan on one machine at one time."""
    only_first: tuple[Key, ...]
    only_second: tuple[Key, ...]

    @property
    def share_moved(self) -> float:
        """Nervousness: 0 nothing moved, 1 everything."""
        both = len(self.moved) + self.same
        return len(self.moved) / both if both else 0.0

    @property
    def share_elsewhere(self) -> float:
        """Of all operations both plan, those on another machine."""
        both = len(self.moved) + self.same
        return sum(one.machines[0] != one.machines[1] for one in self.moved) / both if both else 0.0

    @property
    def mean_shift(self) -> float:
        """Mean ticks, earlier or later, over all operations both plan."""
        both = len(self.moved) + self.same
        return sum(abs(one.shift) for one in self.moved) / both if both else 0.0


def compare(problem: Problem, first: Plan, second: Plan, *, before: Problem | None = None) -> Comparison:
    """What `second` changes; `before` is the problem of the first plan, where it is another."""
    own = objective(before or problem, first)
    other = objective(problem, second)
    past = {(one.job, one.op) for one in problem.history if not one.interrupted}
    a, b = _future(first, past), _future(second, past)
    moved, same = [], 0
    for key in a.keys() & b.keys():
        one, two = a[key], b[key]
        if (one.machine, one.start) == (two.machine, two.start):
            same += 1
        else:
            moved.append(Moved(*key, (one.machine, two.machine), (one.start, two.start)))
    moved.sort(key=lambda one: (-abs(one.shift), one.starts[1], one.job, one.op))
    return Comparison(
        {name: (own[name], other[name]) for name in other if name in own},
        tuple(moved),
        same,
        tuple(sorted(a.keys() - b.keys())),
        tuple(sorted(b.keys() - a.keys())),
    )


def _future(plan: Plan, past: set[Key]) -> dict[Key, Assignment]:
    return {(one.job, one.op): one for one in plan.assignments if not one.interrupted and (one.job, one.op) not in past}
