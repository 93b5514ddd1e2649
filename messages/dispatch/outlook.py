"""What may come yet: whatever a plan would begin now is held against sampled futures before it is begun.

    wide = widened(state)                                        # None: nothing is thought of the future
    sequence = settled(state, weights, plan, wide, partial(come_to, wide), seed=1)

A plan for the jobs that are there is made as if no other ever came. Where jobs come unannounced (`Shop.came`), that is
wrong at every turn: machines are filled with what newcomers then wait for. So each award that could be made now is
tried in futures, the same for all: in each, work takes up to a fifth more or less than foreseen, and jobs like those
that came go on coming at the rate at which they came, or come no more (the more likely the longer none has come).
After the award a future goes on in one of two ways, whichever is better on average: all by the rule `sjf`, newcomers
too; or as the plan says, newcomers last. The best award stands, and the next is looked for, until nothing that is left
could begin. Awards that begin soon are tried as well: a machine may wait for a part, and a part for a machine.

Before `LEAST` jobs came one by one nothing is thought of the future, and the plan stands; so it does when none has come
for so long that others hardly will (`OVER`): then what is known is all there is, and its makespan counts. No breakdowns
are foreseen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log

from messages.dispatch.decode import Choice, Schedule, Weights, decode, measures
from messages.dispatch.rules import run, sjf
from messages.dispatch.shop import Step, Work
from messages.dispatch.state import Bid, Part, State
from messages.dispatch.tree import Dice

FUTURES, BLOCK = 64, 8
"""At most, and how many between two looks at the clock."""
LEAST = 2
"""Jobs that came after the first, before a rate is thought of."""
OVER = 0.2
"""When it is less likely than this that jobs still come, the plan stands."""
MOST = 16
"""Newcomers in one future: no more than that, and each is like another one of the last so many that came."""
SPREAD = 200
"""Thousandths by which work may take longer or shorter."""
SOON = 0.6
"""An award may begin so much of its own work from now on to be tried."""
TRIED = 24
"""Awards to choose from, those that begin first."""


@dataclass(frozen=True, slots=True)
class Future:
    """One of what may come."""

    comes: tuple[int, ...]  # of each newcomer there is room for, its release; -1: it does not come
    thousandths: tuple[tuple[int, ...], ...]  # of every step of every job, how long it takes of what is foreseen
    weights: Weights  # with means over the jobs that are there or come


@dataclass(frozen=True, slots=True)
class Wide:
    """A state with room for newcomers: the last jobs of its shop, done as long as they have not come."""

    state: State
    newcomers: tuple[str, ...]
    rate: float  # of coming, per tick, while they come
    still: float  # how likely it is that they still do
    more: float  # and after each one, that another will


Tried = Callable[[Sequence[Choice], Sequence[Future]], float]
"""The sum over futures of what a sequence comes to when all that it leaves open follows by `sjf`."""


def widened(state: State) -> Wide | None:
    """None: nothing can be thought of the future, or nothing is left to decide."""
    came = sorted(one.release for one in state.shop.came if one.release <= state.now)
    count = sum(release > came[0] for release in came)
    if count < LEAST or next(state.open(), None) is None:
        return None
    shop = state.shop
    able = [one for one in shop.came if all(name in shop.machines for step in one.steps for name in step.ticks)]
    again = {f"{n} again": one for n, one in enumerate(able[-MOST:])}
    if not again or not again.keys().isdisjoint(shop.jobs):
        return None
    wide = replace(shop, jobs={**shop.jobs, **again})
    rate = count / (came[-1] - came[0])
    quiet, going_on = exp(-rate * (state.now - came[-1])), count / (count + 1)
    still = going_on * quiet / (going_on * quiet + 1 - going_on)
    if still < OVER:
        return None
    parts = {name: Part(len(wide.route[name]), work.at) for name, work in again.items()}
    return Wide(
        replace(state.copy(), shop=wide, jobs={**state.copy().jobs, **parts}),
        tuple(again),
        rate,
        still,
        (count + 1) / (count + 2),
    )


def settled(
    state: State,
    weights: Weights,
    plan: Sequence[Choice],
    wide: Wide,
    tried: Tried,
    *,
    seed: int = 0,
    until: float | None = None,
) -> tuple[Choice, ...]:
    """The sequence that begins with what is to be awarded now, and goes on as `plan` does. `until`: on the monotonic
    clock; what is not looked at by then begins as planned, but the first award is held against a block of futures."""
    planned = decode(state, plan)
    drawn = futures(wide, weights, planned.end.last, seed)
    board, fixed, rest = state.copy(), list[Choice](), list(planned.sequence)
    began = now = time.monotonic() if until is not None else 0.0
    while (until is None or now <= max(began, until)) and (awards := _awards(board, rest)):
        half = None if until is None else (now + until) / 2
        best = awards[0] if len(awards) == 1 else _best(awards, fixed, rest, drawn, tried, half)
        fixed.append(best)
        rest.remove(next(one for one in rest if one[0] == best[0]))
        board.take(board.bid(*best))
        now = time.monotonic() if until is not None else 0.0
    sequence = (*fixed, *rest)
    return planned.sequence if decode(state, sequence).faults else sequence


def futures(wide: Wide, weights: Weights, until: int, seed: int) -> list[Future]:
    """`FUTURES` of them; nobody comes later than `until`, when all that is known would be done."""
    state, found, dice = wide.state, list[Future](), Dice(seed)
    first = len(state.jobs) - len(wide.newcomers)
    for _ in range(FUTURES):
        comes = [-1] * len(wide.newcomers)
        at, likely, left = float(state.now), wide.still, list(range(len(comes)))
        while left and _share(dice) < likely:
            at -= log(1.0 - _share(dice)) / wide.rate
            if at > until:
                break
            comes[left.pop(dice.below(len(left)))] = round(at)
            likely = wide.more
        there = first + len(comes) - comes.count(-1)
        rows = []
        for n, (job, part) in enumerate(state.jobs.items()):
            steps = len(state.shop.route[job])
            open_from = part.next if n < first else 0 if comes[n - first] >= 0 else steps
            rows.append(
                (*([1000] * open_from), *(1000 - SPREAD + dice.below(2 * SPREAD + 1) for _ in range(steps - open_from)))
            )
        # `measures` takes means over every job of the state, those that do not come as well
        share = len(state.jobs) / there
        scaled = replace(weights, waiting=weights.waiting * share, tardiness=weights.tardiness * share)
        found.append(Future(tuple(comes), tuple(rows), scaled))
    return found


def come_to(wide: Wide, sequence: Sequence[Choice], futures: Sequence[Future]) -> float:
    """`Tried` in plain Python."""
    total = 0.0
    for future in futures:
        begun = _begun(wide, future)
        first = decode(begun, sequence)
        then = run(first.end, sjf, future.weights)
        total += measures(Schedule(begun, then.end, (*first.bids, *then.bids))).value(future.weights)
    return total


def _awards(board: State, rest: Sequence[Choice]) -> list[Choice]:
    """What could be awarded now, that of the plan first; nothing if nothing would have to begin."""
    now, bids = board.now, list[Bid]()
    for job in board.open():
        for bid in board.bids(job):
            if not bid.blocked and bid.must_begin - now <= SOON * (bid.end - bid.start):
                bids.append(bid)
    if all(bid.must_begin > now for bid in bids):
        return []
    planned = dict[str, str](reversed(rest))
    bids.sort(key=lambda bid: (bid.must_begin, planned[bid.job] != bid.machine))
    return [(bid.job, bid.machine) for bid in bids[:TRIED]]


def _best(
    awards: Sequence[Choice],
    fixed: Sequence[Choice],
    rest: Sequence[Choice],
    drawn: Sequence[Future],
    tried: Tried,
    until: float | None,
) -> Choice:
    ways = []
    for award in awards:
        n = next(n for n, (job, _) in enumerate(rest) if job == award[0])
        by_rule = (*fixed, award)
        ways += [(award, by_rule), (award, (*by_rule, *rest[:n], *rest[n + 1 :]))]
    sums = [0.0] * len(ways)
    for n in range(0, len(drawn), BLOCK):
        for k, (_, sequence) in enumerate(ways):
            sums[k] += tried(sequence, drawn[n : n + BLOCK])
        if until is not None and time.monotonic() >= until:
            break
    return ways[min(range(len(ways)), key=sums.__getitem__)][0]


def _begun(wide: Wide, future: Future) -> State:
    """The state with which a future begins."""
    state = wide.state.copy()
    jobs = dict[str, Work]()
    for (name, work), thousandths in zip(state.shop.jobs.items(), future.thousandths, strict=True):
        steps = (_longer(step, by) for step, by in zip(work.steps, thousandths, strict=False))
        jobs[name] = replace(work, steps=tuple(steps))
    for name, release in zip(wide.newcomers, future.comes, strict=True):
        if release >= 0:
            work = jobs[name]
            due_at = None if work.due is None else work.due - work.release + release
            jobs[name] = replace(work, release=release, due=due_at)
            state.jobs[name] = Part(at=work.at, ready=release)
    state.shop = replace(state.shop, jobs=jobs)
    return state


def _longer(step: Step, thousandths: int) -> Step:
    return replace(step, ticks={name: longer(ticks, thousandths) for name, ticks in step.ticks.items()})


def longer(ticks: int, thousandths: int) -> int:
    """What is no work stays none."""
    return max(1, ticks * thousandths // 1000) if ticks else 0


def _share(dice: Dice) -> float:
    """From 0 to 1, 1 excluded."""
    return dice.below(1 << 30) / (1 << 30)
