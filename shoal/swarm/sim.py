"""A swarm in simulation, from the first order to the verdict.

outcome = simulate(Swarm(plant, jobs, ByRule(kind="fifo")))
assert outcome.holds, outcome.faults
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from shoal.swarm.account import account
from shoal.swarm.outcome import Key, Outcome, Swarm, Trouble, Watch
from shoal.swarm.stage import Stage


def simulate(swarm: Swarm, watch: Watch | None = None, *, most_events: int | None = None) -> Outcome:
    """Run it to its end; `watch` is shown the floor now and then."""
    stage = Stage(swarm)
    stage.run(watch, most_events=most_events)
    return outcome_of(stage)


def outcome_of(stage: Stage) -> Outcome:
    """What came of it."""
    excused = dict(_excused(stage))
    outcome = account(
        stage.swarm,
        "sim",
        jobs=stage.jobs,
        chronicle=stage.chronicle,
        batons=stage.batons.values(),
        troubles=[*stage.troubles, *((one, None) for one in _not_reached(stage))],
        reigns=stage.reigns,
        excused=excused,
        messages=stage.wire.counts,
        ended=stage.world.now,
    )
    now, events = stage.world.now, stage.world.events
    stopped = stage.limit.fault(now, stage.jobs, stage.chronicle, excused, events=events) if stage.stopped else None
    return replace(
        outcome,
        faults=(*((stopped,) if stopped else ()), *outcome.faults),
        events=events,
        decisions=stage.decisions + sum(seat.agent.decisions for seat in stage.seats if seat.alive),
        cpu_s=stage.cpu_s,
        wall_s=stage.wall_s,
    )


def _not_reached(stage: Stage) -> Iterator[Trouble]:
    """What was to happen after the run had ended."""
    for one in Counter(stage.swarm.scenario.happenings) - Counter(one for _, one in stage.troubles):
        yield Trouble(stage.swarm.start + one.at_us, one.kind, one.what, "not reached: the run ended before")


def _excused(stage: Stage) -> Iterator[tuple[Key, str]]:
    """Tasks that nobody wants any more, or of which the judge says why they are not done."""
    for seat in stage.seats:
        for key, task in seat.book.tasks.items() if seat.alive else ():
            if task.state in ("cancelled", "unknown"):
                yield key, f"{task.state}: {task.why}" if task.why else task.state
    for job in stage.jobs:
        if job.job in stage.cancelled:
            for op in range(len(stage.plant.route(job.product))):
                yield (job.job, op), "cancelled"
