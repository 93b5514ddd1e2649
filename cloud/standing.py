"""How things stand: what of the orders is done, and the progress that people and dashboards see.

Pure: values in, values out; times in µs of plant time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloud.monitor import deviation, planned_energy_kwh
from messages.contracts import OrderedJob, PlanInForce, Progress
from messages.floor import Floor
from messages.plant import Plant


@dataclass(frozen=True)
class Done:
    """Of the open orders: operations that are done, and jobs of which all are."""

    operations: int
    jobs: frozenset[str]


def done_of(plant: Plant, jobs: Mapping[str, OrderedJob], floor: Floor) -> Done:
    """An operation whose successor has begun counts as done, whatever records are missing."""
    begun, furthest = floor.begun, floor.furthest()
    operations, whole = 0, set()
    for job, ordered in jobs.items():
        steps = len(plant.route(ordered.product))
        last = furthest.get(job, -1)
        ended = last >= 0 and begun[job, last].end is not None
        done = last + 1 if ended else max(last, 0)
        operations += done
        if done == steps:
            whole.add(job)
    return Done(operations, frozenset(whole))


def progress_of(
    body: PlanInForce,
    plant: Plant,
    jobs: Mapping[str, OrderedJob],
    floor: Floor,
    now: int,
    *,
    replans: int,
    planned_at: int,
    energy_before_kwh: float,
    metered_kwh: float,
) -> Progress:
    """How the floor does against the plan in force."""
    found, done = deviation(body, floor, now), done_of(plant, jobs, floor)
    return Progress(
        at=now,
        revision=body.plan.revision,
        why=body.why,
        solver=body.plan.solver,
        replans=replans,
        operations_done=done.operations,
        operations=sum(len(plant.route(job.product)) for job in jobs.values()),
        jobs_done=len(done.jobs),
        jobs=len(jobs),
        planned_end=found.planned_end,
        expected_end=found.expected_end,
        late_s=found.late_s,
        energy_planned_kwh=round(energy_before_kwh + planned_energy_kwh(body, plant, planned_at, now), 3),
        energy_metered_kwh=round(metered_kwh, 3),
        down=floor.down,
    )


def same_news(one: Progress, other: Progress | None) -> bool:
    """Whether two say the same but for the time."""
    return other is not None and one.model_copy(update={"at": other.at}) == other
