"""What a judge looks at: from the plant and the book alone, what is left, where parts are, what machines are busy with.

    state, first = situation(Ground(plant, t0), jobs, book, now=now)
    decision = judge.decide(state, weights)
    wanted(decision, first)                    # [(("b07", 1), "press-4"), …] in the order of the awards

Work in progress stands as its machine's busy time; its part is ready at the end that is foreseen (one tick from now
when that has gone by). A task that has bids takes as long as they say, on the machines that bid; other tasks take their
nominal time. Machines whose node is away are left out where others can do the work. Awards that have not begun stand at
the end of their machines' queues, in the order of their counters; a part that is on its way arrives as was foreseen.
Of two machines that a judge finds equal it takes that which bid the lower cost, then the less worn.

Bound: `look` jobs are looked at, those that could be awarded now first, of these the first due, then the one that has
waited longest; where out-buffers are limited, parts on the floor come before those that are not. Of other jobs only
what they hold of the machines in question counts, and no machine beyond these.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from messages.contracts import OrderedJob
from messages.dispatch.ground import Ground
from messages.dispatch.judge import Decision
from messages.dispatch.shop import Shop, Shut, Station, Step, Work
from messages.dispatch.state import Machine, State, Vehicle, begin
from messages.dispatch.task import Key, Task
from messages.dispatch.tenders import GIVEN, Tenders
from messages.dispatch.told import Told
from messages.negotiation import MachineBid

LOOK = 200
UNKNOWN_REPAIR_S = 4 * 3600
"""A breakdown without a repair time is reckoned with for this long, again and again."""
FOR_EVER = 2**62


class _Course(NamedTuple):
    """Where a job has got to."""

    first: int  # the first operation that is neither done nor at work
    task: Task | None  # it
    at: str  # where the part lies, or will when the work on it ends
    ready: int


def situation(
    ground: Ground, jobs: Mapping[str, OrderedJob], book: Tenders, *, now: int, look: int = LOOK
) -> tuple[State, dict[str, int]]:
    """The state at `now`, and of each job in it the number of its first operation there."""
    tick_now = max(0, ground.tick(now))
    limited = any(one.limit is not None for one in ground.stations.values())
    chosen = _chosen(jobs, book, look, limited)
    courses = {name: _course(ground, jobs[name], book.ops(name), tick_now) for name in chosen}
    works = {name: work for name, one in courses.items() if (work := _work(ground, jobs[name], one, book)).steps}
    machines = {name for work in works.values() for step in work.steps for name in step.ticks}
    if len(chosen) == len(jobs):
        machines = set(ground.stations)
    for task in book.of(*GIVEN):  # what others hold of these machines
        if task.machine in machines and task.job not in courses and task.job in jobs:
            courses[task.job] = _course(ground, jobs[task.job], book.ops(task.job), tick_now)
            work = _work(ground, jobs[task.job], courses[task.job], book)
            works[task.job] = replace(work, steps=work.steps[:1])
    shop = _shop(ground, {name: works[name] for name in jobs if name in works}, book, machines, tick_now)
    state = begin(shop, tick_now)
    for name, machine in state.machines.items():
        _warm(machine, book.machines[name], shop.machines[name], ground, tick_now)
    for task in book.of("working", "unknown"):
        if task.begun and task.machine in state.machines:
            machine = state.machines[task.machine]
            machine.free = machine.ended = max(machine.free, _ends(ground, task, tick_now))
            state.last = max(state.last, machine.free)
    for number, (at, place) in book.vehicles.items():
        if number < len(state.vehicles):
            state.vehicles[number] = Vehicle(place, ground.after(at))
    if limited:
        _lay(state, {**{name: _course(ground, jobs[name], book.ops(name), tick_now) for name in jobs}, **courses}, book)
    first = {name: one.first for name, one in courses.items() if name in works}
    for task in sorted(book.of(*GIVEN), key=lambda task: task.counter):
        if task.job in first and first[task.job] + state.jobs[task.job].next == task.op and _stands(task):
            _replay(state, task, ground)
    return state, first


def wanted(decision: Decision, first: Mapping[str, int]) -> list[tuple[Key, str]]:
    """The tasks a decision awards, and to which machines."""
    return [((bid.job, first[bid.job] + bid.op), bid.machine) for bid in decision.awards]


def _chosen(jobs: Mapping[str, OrderedJob], book: Tenders, look: int, limited: bool) -> Collection[str]:
    if len(jobs) <= look:
        return jobs
    offered = {task.job: task.deadline for task in book.of("tendered")}

    def rank(name: str) -> tuple[bool, bool, int, int]:
        due, first = jobs[name].due_at, book.tasks.get((name, 0))
        on_floor = limited and first is not None and first.state not in ("waiting", "open", "tendered")
        return not on_floor, name not in offered, FOR_EVER if due is None else due, offered.get(name, 0)

    return heapq.nsmallest(look, jobs, key=rank)


def _course(ground: Ground, job: OrderedJob, tasks: Iterable[Task], tick_now: int) -> _Course:
    at, ready = ground.begins_at(job.product), max(0, ground.after(job.release_at)) if job.release_at else 0
    first = 0
    for task in tasks:
        if task.state != "done" and not task.begun:
            return _Course(first, task, at, ready)
        first = task.op + 1
        at = task.machine or ""
        if task.begun:
            ready = max(ready, _ends(ground, task, tick_now))
        elif task.ended_at is not None:
            ready = max(ready, ground.after(task.ended_at))
    return _Course(first, None, at, ready)


def _work(ground: Ground, job: OrderedJob, course: _Course, book: Tenders) -> Work:
    """What is left of a job; of one that is cancelled, what a machine holds of it."""
    route = ground.steps(job.product)[course.first :]
    due = None if job.due_at is None else ground.tick(job.due_at)
    if course.task is None or not route or (course.task.cancelled and not _stands(course.task)):
        return Work((), course.ready, due, course.at)
    route = route[:1] if course.task.cancelled else route
    if not book.all_there:
        route = tuple(_there(step, book) for step in route)
    if course.task.state == "tendered" and course.task.bids:
        route = (_as_bid(route[0], course.task, ground), *route[1:])
    elif _stands(course.task):
        route = (ground.steps(job.product)[course.first], *route[1:])
    return Work(route, course.ready, due, course.at)


def _there(step: Step, book: Tenders) -> Step:
    there = {name: ticks for name, ticks in step.ticks.items() if book.is_there(name)}
    return step if not there or len(there) == len(step.ticks) else replace(step, ticks=there)


def _as_bid(step: Step, task: Task, ground: Ground) -> Step:
    ticks = {
        name: max(1, ground.ticks((bid.end_at - bid.start_at) / 1e6))
        for name, bid in _in_turn(task.bids)
        if name in step.ticks
    }
    return replace(step, ticks=ticks) if ticks else step


def _in_turn(bids: Mapping[str, MachineBid]) -> list[tuple[str, MachineBid]]:
    """By cost, where all have said one, and wear; as they came where these are alike."""
    priced = all(bid.cost is not None for bid in bids.values())
    return sorted(bids.items(), key=lambda one: ((one[1].cost or 0.0) if priced else 0.0, one[1].wear or 0.0))


def _stands(task: Task) -> bool:
    """Whether its machine is reckoned to begin it."""
    return task.state in GIVEN and not task.begun and not task.withdrawn and task.machine is not None


def _shop(ground: Ground, works: Mapping[str, Work], book: Tenders, machines: set[str], tick_now: int) -> Shop:
    layout = ground.plant.layout
    used = {name for work in works.values() for step in work.steps for name in step.ticks} | machines
    return Shop(
        machines={
            name: _station(one, book.machines[name], ground, tick_now)
            for name, one in ground.stations.items()
            if name in used
        },
        jobs=works,
        ticks=ground.ways,
        vehicles=layout.vehicles if layout else None,
        home=(layout.home or "") if layout else "",
        loading=ground.ticks(layout.loading_s) if layout else 0,
        unloading=ground.ticks(layout.unloading_s) if layout else 0,
        carry_kw=layout.power_kw if layout else 0.0,
        hour_ticks=3600 / ground.plant.tick_s,
        carbon=ground.carbon,
    )


def _station(station: Station, told: Told, ground: Ground, tick_now: int) -> Station:
    if not told.down:
        return station
    if told.repair_at is None:
        back = tick_now + ground.ticks(UNKNOWN_REPAIR_S)
    else:
        back = max(tick_now + 1, ground.after(told.repair_at))
    return replace(station, shut=(Shut(tick_now, back, broken=True),))


def _warm(machine: Machine, told: Told, station: Station, ground: Ground, tick_now: int) -> None:
    machine.free = max(0, ground.after(told.busy_until)) if told.busy_until else 0
    if told.heat == "warm":
        machine.ended = max(machine.free, tick_now)
    elif told.heat == "heating":
        machine.free = machine.ended = max(machine.free, tick_now, ground.after(told.since) + station.preheat)


def _ends(ground: Ground, task: Task, tick_now: int) -> int:
    """When work in progress is foreseen to end."""
    seconds = task.seconds.get(task.machine or "", 0.0)
    return max(ground.after((task.began_at or 0) + round(seconds * 1e6)), tick_now + 1)


def _lay(state: State, courses: Mapping[str, _Course], book: Tenders) -> None:
    """Parts that lie, or will, where they were last worked on, and whose way on is not decided."""
    for name, course in courses.items():
        station = state.shop.machines.get(course.at)
        if station is not None and station.limit is not None and course.task is not None:
            if book.is_gone(name, course.first, course.at):
                continue
            state.machines[course.at].kept += 1
            if name in state.jobs:
                state.jobs[name].holds = True


def _replay(state: State, task: Task, ground: Ground) -> None:
    machine, part = task.machine or "", state.jobs[task.job]
    step = state.shop.route[task.job][part.next]
    if machine not in step.ticks:
        return
    carried = task.carried
    if carried is not None and ground.tick(carried.departs_at) < state.now:
        if part.holds:
            before = state.machines[part.at]
            before.kept, part.holds = before.kept - 1, False
            most = (state.shop.machines[part.at].limit or 0) + 1
            leaves = sorted((*before.leaves, ground.after(carried.leaves_at)), reverse=True)
            before.leaves = tuple(leaves[:most])
        arrives = ground.after(carried.arrives_at)
        if 0 <= carried.vehicle < len(state.vehicles):
            state.vehicles[carried.vehicle] = Vehicle(machine, arrives)
        part.at, part.ready = machine, arrives - step.lag
    foreseen = -1 if carried is None else carried.vehicle
    state.take(state.bid(task.job, machine, foreseen if 0 <= foreseen < len(state.vehicles) else None))
