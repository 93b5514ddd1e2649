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
from collections.abc import Collection, Mapping
from dataclasses import replace

from messages.contracts import OrderedJob
from messages.dispatch.course import FOR_EVER, Courses, Seen, ends_at, stands
from messages.dispatch.ground import Ground
from messages.dispatch.judge import Decision
from messages.dispatch.shop import Shop, Shut, Station, Work
from messages.dispatch.state import Machine, State, Vehicle, begin
from messages.dispatch.task import GIVEN, Key, Task
from messages.dispatch.tenders import Tenders
from messages.dispatch.told import Told

LOOK = 200
UNKNOWN_REPAIR_S = 4 * 3600
"""A breakdown without a repair time is reckoned with for this long, again and again."""


def situation(
    ground: Ground,
    jobs: Mapping[str, OrderedJob],
    book: Tenders,
    *,
    now: int,
    look: int = LOOK,
    courses: Courses | None = None,
    came: tuple[Work, ...] = (),
) -> tuple[State, dict[str, int]]:
    """The state at `now`, and of each job in it the number of its first operation there; `courses` are those of the
    looks before, `came` what came unannounced (`Shop.came`)."""
    tick_now = max(0, ground.tick(now))
    limited = any(one.limit is not None for one in ground.stations.values())
    if courses is None:
        courses = Courses()
    else:
        courses.refresh(ground, book)
    chosen = _chosen(jobs, book, look, limited)
    seen = {name: courses.of(jobs[name], ground, book, tick_now) for name in chosen}
    works = {name: one.work for name, one in seen.items() if one.work.steps}
    machines = set(ground.stations)
    if len(chosen) < len(jobs):
        machines = {name for work in works.values() for step in work.steps for name in step.ticks}
        for task in book.of(*GIVEN):  # what others hold of these machines
            if task.machine in machines and task.job not in seen and task.job in jobs:
                one = seen[task.job] = courses.of(jobs[task.job], ground, book, tick_now)
                works[task.job] = replace(one.work, steps=one.work.steps[:1])
        works = {name: works[name] for name in jobs if name in works}
    shop = _shop(ground, works, book, machines, tick_now, came)
    state = begin(shop, tick_now)
    for name, machine in state.machines.items():
        _warm(machine, book.machines[name], shop.machines[name], ground, tick_now)
    for task in book.of("working", "unknown"):
        if task.begun and task.machine in state.machines:
            machine = state.machines[task.machine]
            machine.free = machine.ended = max(machine.free, ends_at(ground, task, tick_now))
            state.last = max(state.last, machine.free)
    for number, (at, place) in book.vehicles.items():
        if number < len(state.vehicles):
            state.vehicles[number] = Vehicle(place, ground.after(at))
    if limited:
        seen |= {name: courses.of(job, ground, book, tick_now) for name, job in jobs.items() if name not in seen}
        _lay(state, seen, book)
    first = {name: seen[name].course.first for name in works}
    for task in sorted(book.of(*GIVEN), key=lambda task: task.counter):
        if task.job in first and first[task.job] + state.jobs[task.job].next == task.op and stands(task):
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


def _shop(
    ground: Ground,
    works: Mapping[str, Work],
    book: Tenders,
    machines: set[str],
    tick_now: int,
    came: tuple[Work, ...],
) -> Shop:
    layout = ground.plant.layout
    stations = ground.stations
    if len(machines) < len(stations):
        used = machines | {name for work in works.values() for step in work.steps for name in step.ticks}
        stations = {name: one for name, one in stations.items() if name in used}
    if any(book.machines.is_down(name) for name in stations):
        stations = {name: _station(one, book.machines[name], ground, tick_now) for name, one in stations.items()}
    return Shop(
        machines=stations,
        jobs=works,
        ticks=ground.ways,
        vehicles=layout.vehicles if layout else None,
        home=(layout.home or "") if layout else "",
        loading=ground.ticks(layout.loading_s) if layout else 0,
        unloading=ground.ticks(layout.unloading_s) if layout else 0,
        carry_kw=layout.power_kw if layout else 0.0,
        hour_ticks=3600 / ground.plant.tick_s,
        carbon=ground.carbon,
        came=came,
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


def _lay(state: State, seen: Mapping[str, Seen], book: Tenders) -> None:
    """Parts that lie, or will, where they were last worked on, and whose way on is not decided."""
    for name, (_, course, _) in seen.items():
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
