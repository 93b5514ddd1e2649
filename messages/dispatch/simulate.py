"""A shop run to its end by a judge that knows only what one can know: simulation in jumps from event to event.

    outcome = simulate(Course(foreseen=shop, actual=shop), judge, Weights(), seed=1)
    outcome.measures, outcome.bids

Jobs are known from their release on; how long a step takes, when it has ended; a breakdown, when it begins, and how
long it lasts, when it is over. Until then durations are those foreseen; what is overdue is thought to need another
tenth of that. The judge is asked whenever something has happened, or it said so itself. What it awarded stays awarded,
in that order and with that vehicle, and begins as soon as everything before it allows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from messages.dispatch.decode import Choice, Measures, Schedule, Weights, measures
from messages.dispatch.judge import Judge
from messages.dispatch.shop import Shop, Shut, Work
from messages.dispatch.state import Bid, begin
from messages.errors import UsageError


@dataclass(frozen=True)
class Course:
    """What is foreseen, and what comes: the same shop with other ticks, and with breakdowns."""

    foreseen: Shop
    actual: Shop
    repair: int = 1  # ticks that a breakdown is thought to last


@dataclass(frozen=True)
class Outcome:
    """What came to be."""

    bids: tuple[Bid, ...]  # the actual times of every award, in order of award
    measures: Measures
    decide_s: tuple[float, ...] = field(compare=False)  # how long each decision took


@dataclass(frozen=True, slots=True)
class _Award:
    at: int
    bid: Bid


def simulate(course: Course, judge: Judge, weights: Weights | None = None, *, seed: int = 0) -> Outcome:
    """Until everything is done; UsageError when parts block each other for good."""
    awards: list[_Award] = []
    memory: tuple[Choice, ...] = ()
    took: list[float] = []
    now: int | None = min((work.release for work in course.actual.jobs.values()), default=None)
    while now is not None:
        done = _replayed(course.actual, awards, now)
        state = _replayed(_known(course, done, now), awards, now).end
        began = time.perf_counter()
        decision = judge.decide(state, weights, seed=seed + len(took), memory=memory)
        took.append(time.perf_counter() - began)
        memory = decision.memory
        awards += [_Award(now, bid) for bid in decision.awards]
        if decision.stuck:
            raise UsageError(f"jobs {', '.join(decision.stuck)} block each other: clear a machine by hand")
        now = _next_event(course, _replayed(course.actual, awards, now), now, decision.again_at)
    last = _replayed(course.actual, awards, 0)
    return Outcome(last.bids, measures(last), tuple(took))


def _replayed(shop: Shop, awards: Sequence[_Award], now: int) -> Schedule:
    """What the awards come to in `shop`, each made when it was; `end` is the state at `now`."""
    first = begin(shop)
    state, bids = first.copy(), []
    for award in awards:
        state.now = award.at
        vehicle = None if award.bid.vehicle < 0 else award.bid.vehicle
        bids.append(state.bid(award.bid.job, award.bid.machine, vehicle))
        state.take(bids[-1])
    state.now = now
    return Schedule(first, state, tuple(bids))


def _known(course: Course, done: Schedule, now: int) -> Shop:
    """The shop as one knows it at `now`; `done` is what the awards really come to."""
    begun = {(bid.job, bid.op): bid for bid in done.bids if bid.start <= now}
    came = (
        replace(work, release=course.actual.jobs[name].release)
        for name, work in course.foreseen.jobs.items()
        if course.actual.jobs[name].release <= now
    )
    return replace(
        course.foreseen,
        machines={
            name: replace(
                station, shut=_shut_known(station.shut, course.actual.machines[name].shut, course.repair, now)
            )
            for name, station in course.foreseen.machines.items()
        },
        jobs={
            name: _work_known(
                work, course.actual.jobs[name], [begun.get((name, op)) for op in range(len(work.steps))], now
            )
            for name, work in course.foreseen.jobs.items()
            if course.actual.jobs[name].release <= now
        },
        came=tuple(sorted(came, key=lambda work: work.release)),
    )


def _shut_known(foreseen: Sequence[Shut], actual: Sequence[Shut], repair: int, now: int) -> tuple[Shut, ...]:
    closed = [shut for shut in foreseen if not shut.broken]
    broken = [shut for shut in actual if shut.broken and shut.start <= now]
    told = [shut if shut.end <= now else replace(shut, end=_foreseen(shut.start, repair, now)) for shut in broken]
    return tuple(sorted((*closed, *told), key=lambda shut: shut.start))


def _work_known(foreseen: Work, actual: Work, begun: Sequence[Bid | None], now: int) -> Work:
    steps = []
    for step, really, bid in zip(foreseen.steps, actual.steps, begun, strict=True):
        if bid is None:
            steps.append(step)
            continue
        known = really.ticks[bid.machine]
        if bid.end > now:
            known = _foreseen(bid.start, step.ticks[bid.machine], now) - bid.start
        steps.append(replace(step, ticks={**step.ticks, bid.machine: known}))
    return replace(foreseen, steps=tuple(steps), release=actual.release)


def _foreseen(start: int, ticks: int, now: int) -> int:
    """The end of what goes on at `now`."""
    return start + ticks if start + ticks > now else now + 1 + ticks // 10


def _next_event(course: Course, done: Schedule, now: int, again_at: int | None) -> int | None:
    """When something will be known that is not known now; None: all is awarded."""
    ahead = [work.release for work in course.actual.jobs.values() if work.release > now]
    if not ahead and again_at is None:
        return None
    ends = [bid.end for bid in done.bids if bid.end > now]
    repairs = [
        at
        for one in course.actual.machines.values()
        for shut in one.shut
        if shut.broken
        for at in (shut.start, shut.end)
    ]
    own = [] if again_at is None else [again_at]
    return min((*ahead, *ends, *(at for at in repairs if at > now), *own))
