"""A problem as flat arrays, for compiled kernels; and a plan as three of them.

    shop, names = shop_of(problem)
    draft = draft_of(shop, names, plan)          # machine, start, off of every open operation
    plan = plan_of(problem, names, draft, solver="tabu")

Dimensions: J open jobs, O open operations (job after job, in order), A alternatives (operation after operation), M
machines, F families (0: none), C crews, K carriers, S stretches (`cloud.scheduling.availability`), W closed windows,
H draws of the past. `FAR` stands for never. Times are ticks (int64), powers kW (float64), indices int32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from cloud.scheduling import shopparts as parts
from cloud.scheduling.availability import closed, stretches
from cloud.scheduling.seam import judged
from cloud.scheduling.shopparts import FAR as FAR
from cloud.scheduling.shopparts import Bools as Bools
from cloud.scheduling.shopparts import Floats as Floats
from cloud.scheduling.shopparts import Indices as Indices
from cloud.scheduling.shopparts import Ints as Ints
from messages.curve import CURVES
from messages.gaps import set_up_for
from messages.judge import draws
from messages.openjobs import open_jobs
from messages.plan import Assignment, Plan, Status
from messages.problem import Machine, Problem
from messages.uncollected import uncollected

CARBON, TARIFF, GENERATION, BASE_LOAD = range(4)
"""Kinds of curves, in the order of `messages.problem.CURVES`."""
WORK, IDLE, PREHEAT, OFF, SETUP, DOWN = range(6)
"""Columns of `power`."""


class Shop(NamedTuple):
    """One problem. Never written to."""

    # jobs
    job_first: Indices  # (J + 1,) its operations
    job_ready: Ints  # (J,) earliest begin of its first open operation, but for waits and transport
    job_due: Ints  # (J,) FAR: none
    job_lot: Indices  # (J,) its order: lots of one order share it (L orders), and are late together
    lot_due: Ints  # (L,) FAR: none
    lot_past: Ints  # (L,) when the last of its finished lots ended, 0: none did
    job_left: Ints  # (J,) when its last operation of the past ended, -1: none did
    job_at: Indices  # (J,) machine of that operation, -1: nowhere yet
    # operations
    op_job: Indices  # (O,)
    alt_first: Indices  # (O + 1,)
    alt_machine: Indices  # (A,)
    alt_ticks: Ints  # (A,) 0: needs no powered machine and conflicts with nothing
    alt_kw: Floats  # (A,) while it works there
    alt_dead: Bools  # (A,) taken, the greatest wait of an operation after it can never be kept
    wait_min: Ints  # (O,)
    wait_max: Ints  # (O,) FAR: any
    family: Indices  # (O,)
    size: Indices  # (O,) places in a batch
    crew_need: Indices  # (O, C)
    crew_count: Indices  # (C,)
    crew_past: Ints  # (P, 4) crew, people, start, end of what runs as planning begins
    # machines
    power: Floats  # (M, 6)
    preheat: Ints  # (M,)
    carrier: Indices  # (M,)
    batch: Indices  # (M,)
    machine_family: Indices  # (M,) what it is set up for as planning begins
    setup_table: Indices  # (M,) -1: none
    setup: Ints  # (tables, F, F) ticks from family to family
    transport: Ints  # (M, M) ticks
    transport_kw: float
    transport_carrier: int
    stretch_first: Indices  # (M + 1,)
    stretch_start: Ints  # (S,)
    stretch_end: Ints  # (S,) FAR: the last one
    stretch_ready: Ints  # (S,) first tick of work there, when cold: preheated
    stretch_warm: Ints  # (S,) powered since, -1: cold, so its first work is preheated for
    stretch_setup: Ints  # (S,) earliest begin of a set-up there, -FAR: any, a fresh plan may begin before tick 0
    machine_since: Ints  # (M,) powered up to here by history or known to be warm, -1: neither
    down_first: Indices  # (M + 1,)
    down_start: Ints  # (D,) breakdowns, joined and in order
    down_end: Ints  # (D,)
    closed_first: Indices  # (M + 1,)
    closed_start: Ints  # (W,)
    closed_end: Ints  # (W,)
    # the site
    curve_first: Indices  # (4, K) place in `curve_value`
    curve_count: Indices  # (4, K) values, 0: there is no curve
    curve_start: Ints  # (4, K)
    curve_step: Ints  # (4, K)
    curve_periodic: Bools  # (4, K)
    curve_value: Floats  # all values, kind after kind
    curve_sum: Floats  # of each value: the integral of its curve up to where it begins, in values · ticks
    electricity: int  # carrier of the peak, -1: none
    capture_kg: float
    export_kg_per_kwh: float
    kgce_per_kwh: float
    hour_ticks: float  # ticks per hour
    floor: int  # nothing new begins earlier
    horizon: int  # FAR: none
    # the past, which counts in every measure
    past_makespan: int
    past_tardiness: int  # of orders that are finished
    past_carrier: Indices  # (H,)
    past_kw: Floats  # (H,)
    past_start: Ints  # (H,)
    past_end: Ints  # (H,)
    fixed_kwh: float  # energy of the past
    fixed_kg: Floats  # (K,) carbon of the past and of the base load, had nothing been generated
    fixed_cost: Floats  # (K,)

    @property
    def operations(self) -> int:
        """O."""
        return len(self.op_job)


@dataclass(frozen=True)
class Names:
    """What the numbers of a shop stand for."""

    operations: tuple[tuple[str, int], ...]  # (job, op)
    machines: tuple[str, ...]
    jobs: tuple[str, ...]
    carriers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Draft:
    """A plan of the open operations; what machines do in gaps follows from `off`."""

    machine: Indices  # (O,)
    start: Ints  # (O,)
    off: Bools  # (O,) before this operation its machine is off and preheated again; no meaning where it must or cannot


@uncollected
def shop_of(problem: Problem) -> tuple[Shop, Names]:
    """The arrays of `problem`."""
    jobs = open_jobs(problem)
    machines = {machine.id: m for m, machine in enumerate(problem.machines)}
    carriers = sorted(
        {machine.carrier for machine in problem.machines}
        | {problem.transport.carrier}
        | {carrier for kind in CURVES for carrier in getattr(problem, kind)}
    )
    carrier_of = {carrier: k for k, carrier in enumerate(carriers)}
    fresh = problem.now is None
    keys = [(step.job, step.op) for job in jobs for step in job.operations]
    ways = [step.alternatives for job in jobs for step in job.operations]
    rules = [problem.operation[key] for key in keys]
    alt_machine = np.fromiter(map(machines.__getitem__, chain.from_iterable(ways)), np.int32)
    power = np.array([_powers(machine) for machine in problem.machines], np.float64).reshape(-1, 6)
    families = _numbered(
        ["", *(machine.family for machine in problem.machines), *(one.family for one in problem.operation.values())]
        + [name for machine in problem.machines for row in machine.setup.items() for name in (row[0], *row[1])]
    )
    crews = list(problem.crews)
    lots = parts.Lots(problem, [job.id for job in jobs])
    last = {past.job: past for past in sorted(problem.history, key=lambda one: (one.end, one.start))}
    setup_of, setup = parts.setups(problem, families)
    lines = [stretches(problem, machine) for machine in problem.machines]
    shut = [parts.joined(closed(machine)) for machine in problem.machines]
    down = [
        parts.joined(one for one in machine.unavailable if one.reason == "breakdown") for machine in problem.machines
    ]
    flat = [one for line in lines for one in line]
    curves = parts.curves(problem, carriers)
    past = list(draws(problem, judged(problem, (), solver="")))
    return (
        Shop(
            job_first=_bounds(len(job.operations) for job in jobs),
            job_ready=_ints(job.ready for job in jobs),
            job_due=_ints(FAR if job.due is None else job.due for job in jobs),
            job_lot=_indices(lots.of_job),
            lot_due=_ints(lots.due),
            lot_past=_ints(lots.past),
            job_left=_ints(last[job.id].end if job.id in last else -1 for job in jobs),
            job_at=_indices(machines[last[job.id].machine] if job.id in last else -1 for job in jobs),
            op_job=_indices(j for j, job in enumerate(jobs) for _ in job.operations),
            alt_first=_bounds(map(len, ways)),
            alt_machine=alt_machine,
            alt_ticks=np.fromiter(chain.from_iterable(way.values() for way in ways), np.int64),
            alt_kw=parts.work_kw(power[:, WORK], alt_machine, ways, rules),
            alt_dead=parts.dead_ends(problem, jobs, len(alt_machine)),
            wait_min=_ints(one.wait_min for one in rules),
            wait_max=_ints(FAR if one.wait_max is None else one.wait_max for one in rules),
            family=_indices(families[one.family] for one in rules),
            size=_indices(one.size for one in rules),
            crew_need=parts.crew_need(rules, crews),
            crew_count=_indices(problem.crews.values()),
            crew_past=parts.crews_at_work(problem, crews),
            power=power,
            preheat=_ints(machine.preheat for machine in problem.machines),
            carrier=_indices(carrier_of[machine.carrier] for machine in problem.machines),
            batch=_indices(machine.batch for machine in problem.machines),
            machine_family=_indices(families[family] for family in set_up_for(problem).values()),
            setup_table=setup_of,
            setup=setup,
            transport=parts.carrying(problem, machines),
            transport_kw=problem.transport.power_kw,
            transport_carrier=carrier_of[problem.transport.carrier],
            stretch_first=_bounds(len(line) for line in lines),
            stretch_start=_ints(one.start for one in flat),
            stretch_end=_ints(FAR if one.end is None else one.end for one in flat),
            stretch_ready=_ints(one.ready for one in flat),
            stretch_warm=_ints(-1 if one.warm is None else one.warm for one in flat),
            stretch_setup=_ints(-FAR if fresh and one.start == 0 else one.ready for one in flat),
            machine_since=_ints(parts.powered_since(problem, machine) for machine in problem.machines),
            down_first=_bounds(len(line) for line in down),
            down_start=_ints(start for line in down for start, _ in line),
            down_end=_ints(end for line in down for _, end in line),
            closed_first=_bounds(len(line) for line in shut),
            closed_start=_ints(start for line in shut for start, _ in line),
            closed_end=_ints(end for line in shut for _, end in line),
            **curves,
            electricity=carrier_of.get("electricity", -1),
            capture_kg=problem.capture_kg,
            export_kg_per_kwh=problem.export_kg_per_kwh,
            kgce_per_kwh=problem.kgce_per_kwh,
            hour_ticks=3600 / problem.tick_s,
            floor=problem.start_floor,
            horizon=FAR if problem.horizon is None else problem.horizon,
            past_makespan=max((one.end for one in problem.history), default=0),
            past_tardiness=lots.past_tardiness,
            past_carrier=_indices(carrier_of[carrier] for carrier, *_ in past),
            past_kw=_floats(kw for _, kw, *_ in past),
            past_start=_ints(start for *_, start, _ in past),
            past_end=_ints(end for *_, end in past),
            fixed_kwh=sum(kw * (end - start) for _, kw, start, end in past) * problem.tick_s / 3600,
            fixed_kg=parts.fixed(problem, past, problem.carbon, carriers),
            fixed_cost=parts.fixed(problem, past, problem.tariff, carriers),
        ),
        Names(
            tuple(keys),
            tuple(machines),
            tuple(job.id for job in jobs),
            tuple(carriers),
        ),
    )


def draft_of(shop: Shop, names: Names, plan: Plan) -> Draft:
    """The open operations of a plan that has them all (see `violations`); ValueError names one that is missing."""
    place = {key: o for o, key in enumerate(names.operations)}
    machines = {machine: m for m, machine in enumerate(names.machines)}
    draft = Draft(np.full(len(place), -1, np.int32), np.zeros(len(place), np.int64), np.zeros(len(place), np.bool_))
    cold = ("preheat", "off", "down")  # without preheating it comes straight from being off
    heated = {(one.machine, one.end) for one in plan.machine_states if one.state in cold}
    setups = {(one.machine, one.end): one.start for one in plan.machine_states if one.state == "setup"}
    for one in plan.assignments:
        o = place.get((one.job, one.op))
        if o is not None and not one.interrupted:
            draft.machine[o], draft.start[o] = machines[one.machine], one.start
            ready = setups.get((one.machine, one.start), one.start)
            draft.off[o] = (one.machine, ready) in heated
    missing = (draft.machine < 0).nonzero()[0]
    if len(missing):
        raise ValueError(f"the plan lacks job {names.operations[missing[0]][0]!r} op {names.operations[missing[0]][1]}")
    return draft


def plan_of(
    problem: Problem,
    shop: Shop,
    names: Names,
    draft: Draft,
    *,
    solver: str,
    status: Status = "feasible",
    bound: float | None = None,
    runtime_s: float = 0.0,
) -> Plan:
    """The whole plan of `draft`, judged by `messages.judge`."""
    made = assignments_of(shop, names, draft)
    off = {key for key, is_off in zip(names.operations, draft.off.tolist(), strict=True) if is_off}
    return judged(problem, made, solver=solver, status=status, bound=bound, runtime_s=runtime_s, off=off)


@uncollected
def assignments_of(shop: Shop, names: Names, draft: Draft) -> list[Assignment]:
    """The open operations of `draft`, new to the problem."""
    ends = draft.start + durations(shop, draft)
    return [
        Assignment(job=job, op=op, machine=names.machines[m], start=start, end=end)
        for (job, op), m, start, end in zip(
            names.operations, draft.machine.tolist(), draft.start.tolist(), ends.tolist(), strict=True
        )
    ]


def draft_from(shop: Shop, names: Names, start: Plan | None) -> Draft | None:
    """`start` where it has every open operation on a machine that can do it."""
    if start is None:
        return None
    able = {
        (key, names.machines[m])
        for o, key in enumerate(names.operations)
        for m in shop.alt_machine[shop.alt_first[o] : shop.alt_first[o + 1]].tolist()
    }
    there = {(one.job, one.op) for one in start.assignments if ((one.job, one.op), one.machine) in able}
    return draft_of(shop, names, start) if there.issuperset(names.operations) else None


def alternatives_of(shop: Shop, machine: Indices) -> Indices:
    """(O,) the alternative of each operation on its `machine` (O,); fewer where a machine cannot do its operation."""
    of = np.repeat(np.arange(shop.operations), np.diff(shop.alt_first))
    return np.asarray((shop.alt_machine == machine[of]).nonzero()[0], np.int32)


def durations(shop: Shop, draft: Draft) -> Ints:
    """(O,) ticks of each operation on its machine; of a batch, those of its longest."""
    ticks: Ints = shop.alt_ticks[alternatives_of(shop, draft.machine)].copy()
    if (shop.batch > 1).any():
        together: dict[tuple[int, int], list[int]] = {}
        for o, (m, start) in enumerate(zip(draft.machine.tolist(), draft.start.tolist(), strict=True)):
            if shop.batch[m] > 1 and ticks[o]:
                together.setdefault((m, start), []).append(o)
        for batch in together.values():
            ticks[batch] = ticks[batch].max()
    return ticks


def _powers(machine: Machine) -> tuple[float, ...]:
    power = machine.power_kw
    return (power.work, power.idle, power.preheat, power.off, power.setup, power.down)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _bounds(counts: Iterable[int]) -> Indices:
    return np.cumsum([0, *counts]).astype(np.int32)


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)


def _indices(values: Iterable[int]) -> Indices:
    return np.fromiter(values, np.int32)


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, np.float64)
