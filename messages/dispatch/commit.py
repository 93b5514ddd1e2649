"""Late commitment: of a whole schedule, only what must be begun now is awarded; the rest may be thought over.

    awards, again_at = due(schedule, now)

What must be begun takes with it whatever the schedule has earlier on the same machine, the same vehicle or of the same
job, and what makes room for it in an out-buffer. So what is left decodes, after the awards, to the very same schedule,
and an order without faults stays one: parts cannot block each other for good, whatever happens to the times.
"""

from __future__ import annotations

from typing import NamedTuple

from messages.dispatch.decode import Choice, Schedule
from messages.dispatch.state import Bid


class Committed(NamedTuple):
    """What is awarded, in order, and what is not yet."""

    awards: tuple[Bid, ...]
    again_at: int | None  # when the rest must be begun first; None: nothing is left that could be awarded
    rest: tuple[Choice, ...]
    stuck: tuple[str, ...]  # jobs of awards that are blocked, in the order of the schedule


def committed(schedule: Schedule, until: int) -> Committed:
    """What must be begun by `until`, of what comes before the first that is blocked."""
    bids = schedule.bids
    first = next((n for n, bid in enumerate(bids) if bid.blocked), len(bids))
    awards, again_at = due(Schedule(schedule.begin, schedule.end, bids[:first]), until)
    made = set(awards)
    rest = tuple((bid.job, bid.machine) for bid in bids if bid not in made)
    return Committed(awards, again_at, rest, tuple(bid.job for bid in bids if bid.blocked))


def due(schedule: Schedule, now: int) -> tuple[tuple[Bid, ...], int | None]:
    """What to award by `now`, in order; and when the rest must be begun first, None: nothing is left."""
    shop = schedule.begin.shop
    held = {job: part.holds for job, part in schedule.begin.jobs.items()}
    from_buffer: list[bool] = []  # of each bid, whether it makes room in the out-buffer of the machine it comes from
    for bid in schedule.bids:
        from_buffer.append(held[bid.job])
        held[bid.job] = bid.machine in shop.machines and shop.machines[bid.machine].limit is not None
    taken: list[Bid] = []
    again: int | None = None
    machines, jobs, vehicles = set[str](), set[str](), set[int]()
    for bid, makes_room in zip(reversed(schedule.bids), reversed(from_buffer), strict=True):
        wanted = (
            bid.must_begin <= now
            or bid.job in jobs
            or bid.machine in machines
            or bid.vehicle in vehicles
            or (makes_room and bid.came_from in machines)
        )
        if wanted:
            taken.append(bid)
            jobs.add(bid.job)
            if bid.machine in shop.machines:
                machines.add(bid.machine)
            if bid.vehicle >= 0:
                vehicles.add(bid.vehicle)
        elif again is None or bid.must_begin < again:
            again = bid.must_begin
    return tuple(reversed(taken)), again
