"""What a run is worth, from what machines and vehicles really did.

Makespan: from the begin to the end of the last operation. Waiting: of a job, from its release (or the end of its step
before), after the lag, to the begin of each step in which its part is not carried; the mean over jobs. Utilisation:
working time of a machine over the makespan, the mean over machines. Tardiness: the mean over jobs with a due date.
Energy: of the machines in all their states up to the makespan, and of vehicles that carry. Carbon: that energy by the
forecast of its hours, gas by its own factor; none where there is no forecast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from edge.bidding import integral
from messages.carbon import GAS_KG_PER_KWH
from messages.clock import SECOND
from messages.contracts import OrderedJob, Signal
from messages.plant import Plant
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.outcome import Figures, Run


def figures(
    plant: Plant,
    jobs: Iterable[OrderedJob],
    chronicle: Chronicle,
    *,
    start: int,
    signal: Signal | None = None,
) -> Figures:
    """Of all that was ordered."""
    orders, runs = list(jobs), chronicle.runs
    by_job: dict[str, list[Run]] = {}
    worked: dict[str, int] = dict.fromkeys(plant.machines, 0)
    last = start
    for run in runs:
        by_job.setdefault(run.job, []).append(run)
        worked[run.machine] += run.end - run.start
        if not run.interrupted:
            last = max(last, run.end)
    waits, lates = [], []
    for job in orders:
        mine = sorted(by_job.get(job.job, ()), key=lambda run: run.start)
        if mine:
            waits.append(_waited(plant, job, mine, start))
            if job.due_at is not None:
                lates.append(max(0, mine[-1].end - job.due_at))
    span = max(1, last - start)
    kwh, kg = _energy(plant, orders, chronicle, (start, last), signal)
    return Figures(
        makespan_s=(last - start) / SECOND,
        waiting_s=sum(waits) / max(1, len(waits)) / SECOND,
        utilisation=sum(min(1.0, us / span) for us in worked.values()) / max(1, len(worked)),
        energy_kwh=kwh,
        carbon_kg=kg,
        tardiness_s=sum(lates) / max(1, len(lates)) / SECOND,
    )


def _waited(plant: Plant, job: OrderedJob, runs: list[Run], start: int) -> int:
    layout = plant.layout
    at = layout.at.get(job.product) if layout else None
    since, waited = max(start, job.release_at or start), 0
    steps = plant.routes.get(job.product, ())
    for run in runs:
        if layout is not None:
            carried_s = layout.carried_s(at, run.machine) or 0.0
        else:
            carried_s = 0.0 if at == run.machine else plant.transport_s
        lag_s = steps[run.op].wait_s if steps and run.op else 0.0
        waited += max(0, run.start - since - round((carried_s + lag_s) * SECOND))
        since, at = run.end, run.machine
    return waited


def _energy(
    plant: Plant, jobs: list[OrderedJob], chronicle: Chronicle, span: tuple[int, int], signal: Signal | None
) -> tuple[float, float | None]:
    total, kg = 0.0, 0.0
    for machine, begin, end, kw in _drawn(plant, jobs, chronicle, span):
        begin, end = max(begin, span[0]), min(end, span[1])
        if end <= begin or not kw:
            continue
        kwh = kw * (end - begin) / (3600 * SECOND)
        total += kwh
        if machine in plant.machines and plant.machines[machine][0].carrier == "gas":
            kg += kwh * GAS_KG_PER_KWH
        elif signal is not None:
            kg += kw * integral(signal, begin, end)
    return total, None if signal is None else kg


def _drawn(
    plant: Plant, jobs: list[OrderedJob], chronicle: Chronicle, span: tuple[int, int]
) -> Iterator[tuple[str, int, int, float]]:
    """Machine (or no name: a vehicle), from, until, kW."""
    own = {product: {(n, name): kw for n, step in enumerate(steps) for name, kw in step.kw.items()}
           for product, steps in plant.routes.items()}  # fmt: skip
    product = {job.job: job.product for job in jobs}
    for run in chronicle.all_runs():
        kw = plant.machines[run.machine][1].work_kw
        yield run.machine, run.start, run.end, own.get(product.get(run.job, ""), {}).get((run.op, run.machine), kw)
    for name, (_, spec) in plant.machines.items():
        kws = {"idle": spec.idle_kw, "preheat": spec.preheat_kw, "off": spec.off_kw}
        entered = [(span[0], "off"), *chronicle.states.get(name, ()), (span[1], "off")]
        for (at, state), (until, _) in pairwise(entered):
            yield name, at, until, kws.get(state, 0.0)
    if plant.layout is not None and plant.layout.power_kw:
        for carry in chronicle.carries:
            yield "", carry.loads, carry.arrives, plant.layout.power_kw
