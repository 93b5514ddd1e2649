"""Where a run ends at the latest, whatever goes astray: a bound of plant time, one of events, and what was left.

    limit = Limit(plant, scenario, start); limit.expect(jobs)
    if limit.passed(now, events): fault = limit.fault(now, jobs, chronicle, excused, events=events)

The bound of plant time: from the last happening, or the last release of an order, all tasks one after the other, and
for each of them three leases, as long as a run may stand still. Where it is slower than that, messages fare so badly
that no end can be promised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from messages.circular import number_of
from messages.clock import SECOND
from messages.contracts import OrderedJob
from messages.pace import pace_of
from messages.plant import Plant
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.disturb import Scenario
from shoal.swarm.outcome import Key

AWAY = ("breakdown", "node", "judge", "cloud")
"""What is away for as long as it lasts."""
EVENTS_PER_TASK = 20_000
"""Of a simulation: a storm needs some 1,500 of them."""
OWN = 1_000
"""Jobs that the plant begins itself make a run longer, up to so many."""
PATIENCE = 3
"""Nothing moves for so many leases, and the longest rest of a part: it never will."""
NAMED = 12
"""Jobs that are named of those that are left."""


class Limit:
    """Of one run. `latest`: µs of plant time; `events`: how many."""

    def __init__(self, plant: Plant, scenario: Scenario, start: int) -> None:
        self.plant, self.start = plant, start
        self.lease_us = round(pace_of(plant).lease_s * SECOND)
        rests = [step.wait_s for steps in plant.routes.values() for step in steps]
        self.patience_us = PATIENCE * self.lease_us + round(max(rests, default=0.0) * SECOND)
        over = (one.at_us + (one.lasts_us if one.kind in AWAY else 0) for one in scenario.happenings)
        self.quiet_until = start + max(over, default=0)
        """Until then there is a reason to stand still: something is to happen, or away, or an order cannot begin."""
        self._happenings = len(scenario.happenings)
        self.latest = self.events = 0
        self.expect(())

    def expect(self, jobs: Iterable[OrderedJob]) -> None:
        """All there are; again when more have come."""
        own, tasks, work_us = 0, 0, 0
        for job in jobs:
            own += number_of(job.job) is not None
            if own > OWN and number_of(job.job) is not None:
                continue
            self.quiet_until = max(self.quiet_until, job.release_at or 0)
            route = self.plant.route(job.product)
            tasks += len(route)
            work_us += round(sum(max(able.values()) for _, able in route) * 3600 * SECOND)
            work_us += round(sum(step.wait_s for step in self.plant.routes.get(job.product, ())) * SECOND)
        self.latest = self.quiet_until + work_us + (tasks + 1) * PATIENCE * self.lease_us
        self.events = EVENTS_PER_TASK * (tasks + self._happenings + 1)

    def passed(self, now: int, events: int = 0) -> bool:
        """Whether it is to end here."""
        return now > self.latest or events > self.events

    def fault(
        self, now: int, jobs: Sequence[OrderedJob], chronicle: Chronicle, excused: Collection[Key], *, events: int = 0
    ) -> str | None:
        """In one line: where it was stopped, by which bound, and what was left. None: nothing was, it only waited for
        what was yet to befall it."""
        left = self._left(jobs, chronicle, excused)
        if not left:
            return None
        latest_s, now_s = ((at - self.start) / SECOND for at in (self.latest, now))
        bound = (
            f"{latest_s:,.0f} s of plant time: all work one after the other, and {PATIENCE} leases of "
            f"{self.lease_us / SECOND:,.0f} s for each task"
            if now > self.latest
            else f"{self.events:,} events of the simulation"
        )
        at = f"{now_s:,.0f} s" + (f" and {events:,} events" if events else "")
        return f"stopped after {at}; the limit is {bound}. Left: {left}"

    def _left(self, jobs: Sequence[OrderedJob], chronicle: Chronicle, excused: Collection[Key]) -> str:
        over = {(run.job, run.op) for run in chronicle.runs if not run.interrupted} | set(excused)
        steps = {job.job: range(len(self.plant.route(job.product))) for job in jobs}
        open_ = {name: [op for op in ops if (name, op) not in over] for name, ops in steps.items()}
        left = [f"{name} op {', '.join(map(str, ops))}" for name, ops in open_.items() if ops]
        more = f"; and {len(left) - NAMED} more jobs" if len(left) > NAMED else ""
        return "; ".join(left[:NAMED]) + more
