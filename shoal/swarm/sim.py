"""A swarm in simulation, from the first order to the verdict.

outcome = simulate(Swarm(plant, jobs, ByRule(kind="fifo")))
assert outcome.holds, outcome.faults
"""

from __future__ import annotations

from collections.abc import Iterator

from shoal.swarm.answers import answered
from shoal.swarm.check import History, Span, check
from shoal.swarm.figures import figures
from shoal.swarm.outcome import Key, Outcome, Swarm, Watch
from shoal.swarm.stage import Stage


def simulate(swarm: Swarm, watch: Watch | None = None, *, most_events: int | None = None) -> Outcome:
    """Run it to its end; `watch` is shown the floor now and then."""
    stage = Stage(swarm)
    stage.run(watch, most_events=most_events)
    return outcome_of(stage)


def outcome_of(stage: Stage) -> Outcome:
    """What came of it."""
    swarm, chronicle = stage.swarm, stage.chronicle
    excused = dict(_excused(stage))
    done = {(run.job, run.op) for run in chronicle.runs if not run.interrupted}
    return Outcome(
        swarm=swarm,
        over="sim",
        ended_at=stage.world.now,
        figures=figures(swarm.plant, stage.jobs, chronicle, start=swarm.start, signal=swarm.signals.get("carbon")),
        runs=chronicle.all_runs(),
        carries=tuple(chronicle.carries),
        downs=chronicle.all_downs(),
        troubles=answered(
            stage.troubles,
            chronicle,
            stage.jobs,
            stage.reigns,
            excused,
            {machine: swarm.plant.node_of(machine) for machine in swarm.plant.machines},
        ),
        messages=dict(stage.wire.counts),
        excused={key: why for key, why in excused.items() if key not in done},
        faults=check(
            swarm.plant,
            stage.jobs,
            chronicle,
            excused=excused,
            history=_history(stage),
            waiting=list(_waiting(stage)),
            longest_s=stage.pace.lease_s,
            start=swarm.start,
            ended=stage.world.now,
        ),
        events=stage.world.events,
        decisions=stage.decisions + sum(seat.agent.decisions for seat in stage.seats if seat.alive),
        cpu_s=stage.cpu_s,
        wall_s=stage.wall_s,
    )


def _history(stage: Stage) -> History:
    """Every operation as its workpiece tells it."""
    return {
        (baton.job, step.op): (step.machine, step.start_at, step.end_at)
        for baton in stage.batons.values()
        for step in baton.steps
        if step.end_at is not None and not step.interrupted
    }


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


def _waiting(stage: Stage) -> Iterator[Span]:
    """When machines, nodes, judges or the cloud were away."""
    for one in stage.swarm.scenario.happenings:
        at = stage.swarm.start + one.at_us
        yield at, at + one.lasts_us
