"""Dispatching rules: the plan a foreman makes, in milliseconds.

The next operation is chosen by the rule and goes to the machine that completes it earliest (ties: the first in the
file), behind what stands there already. FIFO takes the operation that has waited longest; the other rules take, of
those that could begin next, the one they prefer. Plain Python: 10,000 operations take about a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from cloud.scheduling.availability import Stretch, closed, stretches
from cloud.scheduling.seam import KEY, Budget, Exchange, Goal, Result, Strategy, judged
from messages.plan import Assignment, Plan
from messages.problem import OpenJob, OpenOperation, Problem, open_jobs

Rule = Literal["fifo", "spt", "lpt", "mwkr", "lwkr", "edd"]
FAR = 10**15


class Dispatch(Strategy):
    """A rule with earliest completion: first in first out, shortest or longest time, most or least work, due date."""

    kind: Literal["dispatch"] = "dispatch"
    rule: Rule = Field(default="fifo", description="fifo, spt, lpt, mwkr, lwkr or edd")

    def solve(
        self,
        problem: Problem,
        *,
        goal: Goal | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        start: Plan | None = None,
        exchange: Exchange | None = None,
    ) -> Result:
        """One plan; budget, seed and start are not needed."""
        run = exchange or Exchange(problem, goal or Goal(), budget or Budget())
        new = dispatched(problem, self.rule)
        plan = judged(problem, new, solver=self.rule, runtime_s=run.elapsed_s)
        if not run.goal.within(problem, plan.objectives):
            limits = {**problem.limits, **run.goal.limits}
            over = [name for name, limit in limits.items() if plan.objectives[KEY[name]] > limit]
            reason = f"rule {self.rule} does not keep the limit of {', '.join(over)}; use cpsat"
            return Result(reason=reason, runtime_s=run.elapsed_s, history=tuple(run.events))
        run.offer(plan)
        return Result((plan,), plan.objectives, None, "feasible", run.elapsed_s, tuple(run.events), evaluations=1)


def dispatched(problem: Problem, rule: Rule) -> list[Assignment]:
    """New assignments by `rule`, in the order they were decided."""
    lines = {machine.id: _Line(problem, machine.id) for machine in problem.machines}
    jobs = open_jobs(problem)
    prefer = _PREFER[rule]
    ready = [job.ready for job in jobs]
    following = [0] * len(jobs)
    heap = [(job.ready, prefer(job, 0), j) for j, job in enumerate(jobs)]
    heapq.heapify(heap)
    made = []
    while heap:
        when, rank, j = heapq.heappop(heap)
        job = jobs[j]
        step = job.operations[following[j]]
        begin, end, machine = _earliest(lines, step, ready[j])
        if rule != "fifo" and begin > when:
            heapq.heappush(heap, (begin, rank, j))  # begins only ever grow, so the top is right when it is current
            continue
        if end > begin:
            lines[machine].free = end
        made.append(Assignment(job=step.job, op=step.op, machine=machine, start=begin, end=end))
        ready[j] = end
        following[j] += 1
        if following[j] < len(job.operations):
            heapq.heappush(heap, (end, prefer(job, following[j]), j))
    return made


def _work(step: OpenOperation) -> float:
    return sum(step.alternatives.values()) / len(step.alternatives)


def _left(job: OpenJob, k: int) -> float:
    return sum(_work(step) for step in job.operations[k:])


_PREFER: dict[Rule, Callable[[OpenJob, int], float]] = {
    "fifo": lambda job, k: 0.0,
    "spt": lambda job, k: _work(job.operations[k]),
    "lpt": lambda job, k: -_work(job.operations[k]),
    "mwkr": lambda job, k: -_left(job, k),
    "lwkr": _left,
    "edd": lambda job, k: float(FAR if job.due is None else job.due),
}


class _Line:
    """One machine's end of the queue."""

    def __init__(self, problem: Problem, machine: str) -> None:
        self.stretches: list[Stretch] = stretches(problem, problem.machine[machine])
        self.closed = [(one.start, one.end) for one in closed(problem.machine[machine])]
        self.free = 0

    def begin(self, ready: int, ticks: int) -> int:
        """The earliest start of `ticks` of work behind the queue."""
        for stretch in self.stretches:
            begin = max(ready, self.free, stretch.ready)
            for start, end in self.closed:
                if begin < end and start < begin + ticks:
                    begin = end
            if stretch.end is None or begin + ticks <= stretch.end:
                return begin
        raise AssertionError("the last stretch is open")


def _earliest(lines: dict[str, _Line], step: OpenOperation, ready: int) -> tuple[int, int, str]:
    best: tuple[int, int, str] | None = None
    for machine, ticks in step.alternatives.items():
        begin = lines[machine].begin(ready, ticks) if ticks else ready
        if best is None or begin + ticks < best[1]:
            best = (begin, begin + ticks, machine)
    if best is None:
        raise AssertionError("an operation has at least one machine")
    return best
