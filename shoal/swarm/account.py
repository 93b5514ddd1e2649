"""What came of a run, by what really happened and what the agents say of it: the same for simulation and broker.

outcome = account(swarm, "sim", jobs=jobs, chronicle=chronicle, batons=batons, …, ended=now)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from messages.clock import SECOND
from messages.contracts import OrderedJob
from messages.negotiation import Workpiece
from messages.pace import pace_of
from shoal.swarm.answers import Reign, answered
from shoal.swarm.check import History, check
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.disturb import Happening
from shoal.swarm.figures import figures
from shoal.swarm.outcome import Key, Outcome, Swarm, Trouble


def account(
    swarm: Swarm,
    over: Literal["sim", "bus"],
    *,
    jobs: Sequence[OrderedJob],
    chronicle: Chronicle,
    batons: Iterable[Workpiece],
    troubles: Iterable[tuple[Trouble, Happening | None]],
    reigns: Sequence[Reign],
    excused: Mapping[Key, str],
    messages: Mapping[str, int],
    ended: int,
) -> Outcome:
    """`jobs`: all there were, those that the plant began itself among them. A trouble without a happening is told and
    nothing is expected of the swarm. `excused`: tasks of which somebody says why they are not done."""
    plant, start = swarm.plant, swarm.start
    machines = {machine: plant.node_of(machine) for machine in plant.machines}
    told, batons = list(troubles), tuple(batons)
    asked = [(trouble, one) for trouble, one in told if one is not None]
    done = {(run.job, run.op) for run in chronicle.runs if not run.interrupted}
    excused = {key: why for key, why in excused.items() if key not in done}
    found = answered(asked, chronicle, jobs, reigns, excused, machines)
    return Outcome(
        swarm=swarm,
        over=over,
        ended_at=ended,
        figures=figures(plant, jobs, chronicle, start=start, signal=swarm.signals.get("carbon")),
        runs=chronicle.all_runs(),
        carries=tuple(chronicle.carries),
        downs=chronicle.all_downs(),
        troubles=tuple(
            sorted([*found, *(trouble for trouble, one in told if one is None)], key=lambda trouble: trouble.at)
        ),
        messages=dict(messages),
        excused=excused,
        batons=batons,
        faults=check(
            plant,
            jobs,
            chronicle,
            excused=excused,
            history=history_of(batons),
            waiting=list(_reasons(swarm, jobs, chronicle)),
            longest_s=pace_of(plant).lease_s,
            start=start,
            ended=ended,
        ),
    )


def _reasons(swarm: Swarm, jobs: Sequence[OrderedJob], chronicle: Chronicle) -> Iterator[tuple[int, int]]:
    """Spans in which there is a reason to stand still."""
    for one in swarm.scenario.happenings:  # machines, nodes, judges or the cloud are away
        yield swarm.start + one.at_us, swarm.start + one.at_us + one.lasts_us
    product = {job.job: job.product for job in jobs}
    for job in jobs:  # an order may not begin yet
        if job.release_at is not None:
            yield swarm.start, job.release_at
    for run in chronicle.runs:  # a part rests before its next step
        steps = swarm.plant.routes.get(product.get(run.job, ""), ())
        if run.op + 1 < len(steps):
            yield run.end, run.end + round(steps[run.op + 1].wait_s * SECOND)


def excuses(
    keys: Iterable[Key], batons: Mapping[str, Workpiece], *, cancelled: Collection[str], own: Collection[str]
) -> Iterator[tuple[Key, str]]:
    """What batons say of tasks that are not done. `cancelled`: jobs somebody cancelled; `own`: that the plant began
    itself. What a baton calls done, or what comes before what it knows nothing of, it excuses nobody from."""
    for key in keys:
        baton = batons.get(key[0])
        if key[0] in cancelled:
            yield key, "cancelled"
        elif baton is not None and baton.state == "cancelled" and key[0] in own:
            yield key, f"cancelled: {baton.why}"
        elif baton is not None and baton.state == "unknown" and baton.op is not None and key[1] >= baton.op:
            yield key, f"unknown: {baton.why}"


def history_of(batons: Iterable[Workpiece]) -> History:
    """Every operation as its workpiece tells it."""
    return {
        (baton.job, step.op): (step.machine, step.start_at, step.end_at)
        for baton in batons
        for step in baton.steps
        if step.end_at is not None and not step.interrupted
    }
