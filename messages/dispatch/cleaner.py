"""Work that could begin now waits for a cleaner hour, where carbon weighs more than the time it takes.

    later = cleaner(state, sequence, awards, worth_of(state, weights))     # None: nothing gains by waiting
    later.floors                                                           # job → its next step begins no earlier

A schedule begins everything as soon as it can. Where carbon counts and its forecast falls, that is not always best. So
what would be awarded now is tried later: all of it together, all that is open together, then each job by itself, at the
hours at which the forecast over its work is lower than at any hour before. Whatever a wait costs is counted like any
wait: makespan, waiting, tardiness, machines that idle or cool down. A job that waits keeps its place in the order, or
goes behind those that do not, whichever is better. Nothing is promised to anybody: what waits is not awarded, and is
thought over when something happens.

Bounds: `HORIZON_H` ahead, `HOURS` of them a job and `JOBS` jobs a decision; others begin at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple, TypeAlias

from messages.curve import Curve
from messages.dispatch.decode import Choice, Weights, decode, measures
from messages.dispatch.state import Bid, State

HORIZON_H = 24
HOURS = 8
LOOKS = 96
"""Hours of a forecast that are looked at; of a finer one, every second, third … step."""
JOBS = 16
GAIN = 1e-6
"""Share of the value by which a wait must gain: equal hours are not waited for."""

Worth: TypeAlias = Callable[[Mapping[str, int], Sequence[Choice]], float]
"""What a sequence comes to where jobs' next steps begin no earlier than stated; smaller is better."""


class Later(NamedTuple):
    """What waits, in which order all is done then, and what that is worth."""

    floors: Mapping[str, int]
    sequence: tuple[Choice, ...]
    value: float


def varies(state: State) -> bool:
    """Whether carbon of what machines draw changes with time: only then can waiting gain."""
    carriers = {station.carrier for station in state.shop.machines.values()}
    return any(len(set(curve.values)) > 1 for name, curve in state.shop.carbon.items() if name in carriers)


def raised(state: State, floors: Mapping[str, int]) -> State:
    """The same, with parts that come no sooner; what they wait until then is counted."""
    found = state.copy()
    for job, floor in floors.items():
        more = max(0, floor - state.since(job))
        part = found.jobs[job]
        found.jobs[job] = replace(part, ready=part.ready + more, waited=part.waited + more)
    return found


def worth_of(state: State, weights: Weights) -> Worth:
    """`Worth` in plain Python."""
    return lambda floors, sequence: measures(decode(raised(state, floors), sequence)).value(weights)


def cleaner(
    state: State, sequence: Sequence[Choice], awards: Iterable[Bid], worth: Worth, *, until: float | None = None
) -> Later | None:
    """What of `awards`, the begin of `sequence`, gains by waiting; `until`, on the monotonic clock: best so far."""
    first = dict[str, Bid]()
    for bid in awards:
        first.setdefault(bid.job, bid)
    hours = {job: _hours(state, bid) for job, bid in list(first.items())[:JOBS]}
    together = _spread(sorted({tick for ticks in hours.values() for tick in ticks}))
    if not together:
        return None
    best = begun = Later({}, tuple(sequence), worth({}, sequence))
    whole = [(jobs, tick) for tick in together for jobs in (list(hours), list(state.open()))]
    single = [([job], tick) for job, ticks in hours.items() for tick in (state.now, *ticks)]
    for n, (jobs, tick) in enumerate(whole + single):
        if until is not None and time.monotonic() >= until:
            break
        kept = {} if n < len(whole) else best.floors
        wanted = {**kept, **dict.fromkeys(jobs, tick)}
        floors = {job: tick for job, tick in wanted.items() if tick > max(state.now, state.since(job))}
        for order in dict.fromkeys((tuple(sequence), _behind(sequence, floors))):
            value = worth(floors, order)
            if value < best.value - GAIN * abs(begun.value):
                best = Later(floors, order, value)
    return best if best.floors else None


def _hours(state: State, bid: Bid) -> list[int]:
    """Ticks from which on its work is cleaner than at any sooner one."""
    curve = (
        state.shop.carbon.get(state.shop.machines[bid.machine].carrier) if bid.machine in state.shop.machines else None
    )
    length = bid.end - bid.start
    if curve is None or not length:
        return []
    found, least = list[int](), curve.over(bid.start, bid.end)
    for tick in _begins(curve, bid.start, bid.start + round(HORIZON_H * state.shop.hour_ticks), length):
        kg = curve.over(tick, tick + length)
        if kg < least * (1 - GAIN):
            found.append(tick - bid.carried)
            least = kg
    return _spread(found)


def _begins(curve: Curve, after: int, until: int, length: int) -> list[int]:
    """Where a step function over `length` ticks can be least: where a step begins, or `length` before one ends."""
    steps = [begin for begin, _, _ in curve.pieces(after, until)]
    steps = steps[:: -(-len(steps) // LOOKS)]
    return sorted({tick for begin in steps for tick in (begin, begin - length) if after < tick})


def _spread(ticks: Sequence[int]) -> list[int]:
    """At most `HOURS` of them, the last and cleanest among them."""
    if len(ticks) <= HOURS:
        return list(ticks)
    return [ticks[round((n + 1) * len(ticks) / HOURS) - 1] for n in range(HOURS)]


def _behind(sequence: Sequence[Choice], floors: Mapping[str, int]) -> tuple[Choice, ...]:
    """Jobs that wait go behind those that do not, the longest last."""
    return tuple(sorted(sequence, key=lambda choice: floors.get(choice[0], -inf)))
