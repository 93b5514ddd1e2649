"""What was dispatched, as a plan of the problem: judged by the problem, not by those who dispatched it.

schedule = decode(state_from(problem), sequence)
plan = plan_of(problem, schedule.bids, solver="mcts")
violations(problem, plan)                              # []
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from messages.dispatch.state import Bid
from messages.gaps import machine_states, moves
from messages.measures import objective
from messages.openjobs import open_jobs
from messages.plan import Assignment, Move, Plan
from messages.problem import Problem


def plan_of(problem: Problem, bids: Iterable[Bid], *, solver: str = "") -> Plan:
    """History and the awards `bids` of the shop made of `problem` (`shop_from`), with states, moves and objectives.

    Vehicle 0 of the shop is vehicle "1" of the plan. Without logistics, moves follow from the operations.
    """
    steps = {job.id: job.operations for job in open_jobs(problem)}
    made, carried = list[Assignment](), list[Move]()
    for bid in bids:
        if bid.op < len(steps[bid.job]):
            op = steps[bid.job][bid.op].op
            made.append(Assignment(job=bid.job, op=op, machine=bid.machine, start=bid.start, end=bid.end))
        if bid.came_from:
            vehicle = str(bid.vehicle + 1) if bid.vehicle >= 0 else None
            way = {"job": bid.job, "from": bid.came_from, "to": bid.machine, "vehicle": vehicle}
            carried.append(Move.model_validate(way | {"start": bid.loads, "end": bid.arrives}))
    assignments = tuple(sorted((*problem.history, *made), key=attrgetter("start", "end", "machine", "job", "op")))
    plan = Plan(
        problem_sha256=problem.sha256,
        assignments=assignments,
        machine_states=machine_states(problem, assignments),
        moves=tuple(sorted(carried, key=attrgetter("start"))) if problem.logistics else moves(problem, assignments),
        solver=solver,
        status="feasible",
    )
    return plan.model_copy(update={"objectives": objective(problem, plan)})
