"""From a decision to awards: each in its turn, and nothing where something has happened since the judge was asked.

    given = carry_out(book, question, decision, ground, now)
    given.sends; given.left                     # what was decided and not awarded, for the judge's memory

What can soon be awarded and cannot yet keeps its turn: nothing is awarded before it to its machine, of its job, where
its part makes room, or that needs a vehicle if it does: they serve calls in their order. Out of their order, awards
come to something else than was decided, and may block each other for good. What waits for its part alone is tendered
at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from messages.dispatch.decode import Choice
from messages.dispatch.ground import Ground
from messages.dispatch.judge import Decision
from messages.dispatch.situation import wanted
from messages.dispatch.state import Bid, State
from messages.dispatch.task import Carried, Send
from messages.dispatch.tenders import Tenders


@dataclass(frozen=True)
class Question:
    """What a judge is asked to decide: nothing in it changes any more."""

    state: State
    first: Mapping[str, int]
    """job → number of its first operation in the state"""
    seed: int
    memory: Sequence[Choice]
    prior: Sequence[Choice] = ()


@dataclass(frozen=True)
class Given:
    """What came of a decision."""

    sends: list[Send]
    left: list[Choice]
    """Decided, and not awarded."""
    forced: bool = False
    """All parts blocked each other, and one of them was awarded all the same: others need not be blocked any more."""


def carry_out(book: Tenders, question: Question, decision: Decision, ground: Ground, now: int) -> Given:
    """Award what was decided, as far as it still can be."""
    stations = question.state.shop.machines
    sends: list[Send] = []
    left: list[Choice] = []
    limited = any(one.limit is not None for one in stations.values())
    jobs, machines, called = dict[str, bool](), set[str](), False  # left out, and whether to keep its turn
    for bid, (key, machine) in zip(decision.awards, wanted(decision, question.first), strict=True):
        in_turn = bid.job not in jobs and machine not in machines and not (called and bid.vehicle >= 0)
        given: list[Send] = []
        if in_turn and book.is_ready(key, now):
            given = book.award(key, machine, now, carried=_carried(bid, ground))
        if given:
            sends += given
            continue
        if book.open_ahead(key):
            sends += book.offer(key, now)
        left.append((bid.job, machine))
        is_coming = book.is_coming(key, now, unasked=limited)
        jobs[bid.job] = jobs.get(bid.job, not in_turn) or is_coming
        if jobs[bid.job]:
            machines.add(machine)
            called |= bid.vehicle >= 0
            if bid.came_from in stations and stations[bid.came_from].limit is not None:
                machines.add(bid.came_from)
    if decision.stuck and decision.schedule.bids[0].blocked:
        forced = _force(book, question, decision, ground, now)
        if forced is not None:
            return Given(sends + forced, left, forced=True)
    return Given(sends, left)


def _force(book: Tenders, question: Question, decision: Decision, ground: Ground, now: int) -> list[Send] | None:
    """All parts block each other and nothing is at work: one of them is awarded all the same, one at an output first,
    so that its place gets free. Its machine begins when it can, or the award ends unbegun. None: there is none."""
    if book.of("working", "awarded", "held"):
        return None
    held = question.state.jobs
    for bid in sorted(decision.schedule.bids, key=lambda bid: not held[bid.job].holds):
        key = (bid.job, question.first[bid.job] + bid.op)
        if bid.blocked and book.is_ready(key, now):
            return book.award(key, bid.machine, now, carried=_carried(bid, ground))
    return None


def _carried(bid: Bid, ground: Ground) -> Carried | None:
    """What was foreseen of the way of a part that is carried."""
    if not bid.carried:
        return None
    return Carried(
        vehicle=bid.vehicle,
        departs_at=ground.at(bid.departs),
        leaves_at=ground.at(bid.leaves),
        arrives_at=ground.at(bid.arrives),
    )
