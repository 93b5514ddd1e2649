"""What a judge looks at: the floor as records tell it, what is awarded already, what was bid, who is there. Pure.

    state, first = situation(plant, jobs, floor, book, t0=t0, now=now)
    decision = judge.decide(state, weights)
    wanted(decision, first)                    # [(("b07", 1), "press-4"), …] in the order of the awards

The shop is that of `messages.dispatch`: what is left of every job. A task that has bids takes as long as they say, on
the machines that bid; other tasks take their nominal time. Machines whose node is away are left out where others can
do the work. Awards that have not begun stand at the end of their machines' queues, in the order of their counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from messages.contracts import OrderedJob, Signal
from messages.dispatch.judge import Decision
from messages.dispatch.shop import Shop, Step, Work, shop_from
from messages.dispatch.state import State, begin
from messages.dispatch.tenders import Key, Task, Tenders
from messages.floor import Floor, problem_of
from messages.openjobs import open_jobs
from messages.plant import Plant


def situation(
    plant: Plant,
    jobs: Mapping[str, OrderedJob],
    floor: Floor,
    book: Tenders,
    *,
    t0: int,
    now: int,
    signals: Mapping[str, Signal] | None = None,
) -> tuple[State, dict[str, int]]:
    """The state at `now`, and of each job that is not done the number of its first operation in that state."""
    problem = problem_of(plant, jobs, floor, t0=t0, now=now, signals=signals)
    tick_now = problem.now or 0
    first = {job.id: job.operations[0].op for job in open_jobs(problem) if job.operations}
    state = begin(_as_bid(shop_from(problem), first, book, plant.tick_us), tick_now)
    for one in problem.history:
        if one.end > tick_now and not one.interrupted:
            machine = state.machines[one.machine]
            machine.free, machine.ended = max(machine.free, one.end), one.end
    for spec in problem.machines:
        if spec.warm_from is not None and state.machines[spec.id].ended is None:
            state.machines[spec.id].ended = max(spec.warm_from, tick_now)
    awarded = [task for task in book.tasks.values() if task.state in ("awarded", "held", "unknown")]
    for task in sorted(awarded, key=lambda task: task.counter):
        part = state.jobs.get(task.job)
        if part is None or task.machine is None or first[task.job] + part.next != task.op:
            continue  # its records are ahead of the book, or behind
        if task.machine in state.shop.route[task.job][part.next].ticks:
            state.take(state.bid(task.job, task.machine))
    return state, first


def wanted(decision: Decision, first: Mapping[str, int]) -> list[tuple[Key, str]]:
    """The tasks a decision awards, and to which machines."""
    return [((bid.job, first[bid.job] + bid.op), bid.machine) for bid in decision.awards]


def _as_bid(shop: Shop, first: Mapping[str, int], book: Tenders, grid: int) -> Shop:
    jobs = {}
    for name, work in shop.jobs.items():
        steps = tuple(
            _step(step, book.tasks.get((name, first[name] + n)), book, grid) for n, step in enumerate(work.steps)
        )
        jobs[name] = Work(steps, work.release, work.due, work.at)
    return replace(shop, jobs=jobs)


def _step(step: Step, task: Task | None, book: Tenders, grid: int) -> Step:
    if task is not None and task.state == "tendered" and task.bids:
        ticks = {
            name: max(1, -(-(bid.end_at - bid.start_at) // grid))
            for name, bid in task.bids.items()
            if name in step.ticks
        }
    elif task is not None and task.machine is not None and task.state in ("awarded", "held", "unknown"):
        ticks = dict(step.ticks)
    else:
        ticks = {name: ticks for name, ticks in step.ticks.items() if book.is_there(name)}
    return replace(step, ticks=ticks or step.ticks)
