"""Machine code ahead of need: what a solver compiles, or reads from the cache, on a few jobs of the problem itself.

    warm(problem, goal=Goal(("makespan", "energy"), front=True))

On a computer that has not run it before this takes as long as compiling does, afterwards a second or less.
"""

from __future__ import annotations

from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.portfolio import Portfolio
from cloud.scheduling.seam import Budget, Goal, Strategy
from messages.problem import Problem

JOBS, EVALUATIONS, SECONDS = 3, 16, 60.0
"""How little is solved, and the most it may take beside compiling."""


def warm(problem: Problem, *, goal: Goal | None = None, solver: Strategy | None = None) -> None:
    """What `solver` (none: the portfolio) needs for this problem and goal is compiled. CP-SAT needs nothing."""
    if isinstance(solver, CpSat):
        return
    few = problem.jobs[:JOBS]
    past = tuple(one for one in problem.history if one.job in {job.id for job in few})
    small = Problem.model_validate({**dict(problem), "jobs": few, "history": past, "limits": {}})
    wish = goal or Goal()
    budget = Budget(SECONDS, EVALUATIONS, 1)
    (solver or Portfolio()).solve(small, goal=Goal(wish.order, front=wish.front), budget=budget)
