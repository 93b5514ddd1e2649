"""A plan of the whole as a beginning for the judge: solvers see far, judges decide when it counts.

    agent.prior = prior(agent.outlook(now), Budget(5))

What is open becomes a problem of machines and times; vehicles and buffers are left to the judge, who takes the plan's
order and machines for one more sequence to begin with, and is never worse for it.
"""

from __future__ import annotations

from cloud.scheduling import Budget, Goal, Portfolio
from messages.dispatch.decode import Choice
from messages.dispatch.state import State
from messages.plan import Assignment
from messages.problem import Job, Machine, Operation, Problem, Window


def prior(state: State, budget: Budget, *, seed: int = 0) -> tuple[Choice, ...]:
    """Choices in the order of the best plan found (least makespan); () where nothing is open or no plan was found."""
    problem = problem_of(state)
    done = {one.job for one in problem.history}
    if len(problem.jobs) == len(done):
        return ()
    result = Portfolio().solve(problem, goal=Goal(), budget=budget, seed=seed)
    rows = [(one.start, one.op, one.job, one.machine) for plan in result.plans[:1] for one in plan.assignments]
    return tuple((job, machine) for _, _, job, machine in sorted(rows) if job not in done)


def problem_of(state: State) -> Problem:
    """What is open, as a problem: a machine that is busy runs a job of its own until it is free."""
    shop = state.shop
    busy = {name: one.free for name, one in state.machines.items() if one.free > state.now}
    own = [
        Job(id=f"busy {name}", operations=(Operation(op=0, alternatives={name: free}),)) for name, free in busy.items()
    ]
    jobs = []
    for name in state.open():
        part = state.jobs[name]
        operations = tuple(
            Operation(op=op, alternatives=dict(step.ticks), wait_min=step.lag if op > part.next else 0)
            for op, step in enumerate(shop.route[name])
            if op >= part.next and set(step.ticks) <= set(state.machines)  # to be brought to a store is no work
        )
        if operations:
            jobs.append(Job(id=name, release=max(state.now, state.since(name)), operations=operations))
    return Problem(
        machines=tuple(
            Machine(
                id=name, unavailable=tuple(Window(start=one.start, end=one.end) for one in shop.machines[name].shut)
            )
            for name in state.machines
        ),
        jobs=(*own, *jobs),
        now=state.now,
        history=tuple(
            Assignment(job=f"busy {name}", op=0, machine=name, start=0, end=free) for name, free in busy.items()
        ),
    )
