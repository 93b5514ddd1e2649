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
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.scheduling.availability import closed, stretches
from cloud.scheduling.seam import judged
from messages.curve import CURVES, Curve
from messages.errors import UsageError
from messages.gaps import set_up_for, works
from messages.judge import draws
from messages.openjobs import OpenJob, open_jobs
from messages.plan import Assignment, Plan, Status
from messages.problem import Machine, Operation, Problem, Window

Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FAR = 2**60
"""A time after all times; twice it still fits 64 bits."""
CARBON, TARIFF, GENERATION, BASE_LOAD = range(4)
"""Kinds of curves, in the order of `messages.problem.CURVES`."""
WORK, IDLE, PREHEAT, OFF, SETUP, DOWN = range(6)
"""Columns of `power`."""
MAX_SETUP_CELLS = 50_000_000
"""Set-up tables of so many cells in all (machines with one table share it) fit into memory."""


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
    steps = [(job, step, problem.operation[step.job, step.op]) for job in jobs for step in job.operations]
    families = _numbered(
        ["", *(machine.family for machine in problem.machines), *(one.family for one in problem.operation.values())]
        + [name for machine in problem.machines for row in machine.setup.items() for name in (row[0], *row[1])]
    )
    crews = list(problem.crews)
    lots = _Lots(problem, [job.id for job in jobs])
    last = {past.job: past for past in sorted(problem.history, key=lambda one: (one.end, one.start))}
    setup_of, setup = _setups(problem, families)
    lines = [stretches(problem, machine) for machine in problem.machines]
    shut = [_joined(closed(machine)) for machine in problem.machines]
    down = [_joined(one for one in machine.unavailable if one.reason == "breakdown") for machine in problem.machines]
    flat = [one for line in lines for one in line]
    curves = _curves(problem, carriers)
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
            alt_first=_bounds(len(step.alternatives) for _, step, _ in steps),
            alt_machine=_indices(machines[name] for _, step, _ in steps for name in step.alternatives),
            alt_ticks=_ints(ticks for _, step, _ in steps for ticks in step.alternatives.values()),
            alt_kw=_floats(
                problem.work_kw(step.job, step.op, name) for _, step, _ in steps for name in step.alternatives
            ),
            alt_dead=_dead_ends(problem, jobs),
            wait_min=_ints(one.wait_min for _, _, one in steps),
            wait_max=_ints(FAR if one.wait_max is None else one.wait_max for _, _, one in steps),
            family=_indices(families[one.family] for _, _, one in steps),
            size=_indices(one.size for _, _, one in steps),
            crew_need=np.array([[one.crew.get(crew, 0) for crew in crews] for _, _, one in steps], np.int32).reshape(
                len(steps), len(crews)
            ),
            crew_count=_indices(problem.crews.values()),
            crew_past=_crews_at_work(problem, crews),
            power=np.array([_powers(machine) for machine in problem.machines], np.float64).reshape(-1, 6),
            preheat=_ints(machine.preheat for machine in problem.machines),
            carrier=_indices(carrier_of[machine.carrier] for machine in problem.machines),
            batch=_indices(machine.batch for machine in problem.machines),
            machine_family=_indices(families[set_up_for(problem, machine)] for machine in problem.machines),
            setup_table=setup_of,
            setup=setup,
            transport=_carrying(problem, machines),
            transport_kw=problem.transport.power_kw,
            transport_carrier=carrier_of[problem.transport.carrier],
            stretch_first=_bounds(len(line) for line in lines),
            stretch_start=_ints(one.start for one in flat),
            stretch_end=_ints(FAR if one.end is None else one.end for one in flat),
            stretch_ready=_ints(one.ready for one in flat),
            stretch_warm=_ints(-1 if one.warm is None else one.warm for one in flat),
            stretch_setup=_ints(-FAR if fresh and one.start == 0 else one.ready for one in flat),
            machine_since=_ints(_powered_since(problem, machine) for machine in problem.machines),
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
            fixed_kg=_fixed(problem, past, problem.carbon, carriers),
            fixed_cost=_fixed(problem, past, problem.tariff, carriers),
        ),
        Names(
            tuple((step.job, step.op) for _, step, _ in steps),
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


class _Lots:
    """Jobs by order."""

    def __init__(self, problem: Problem, open_ids: list[str]) -> None:
        self.due: list[int] = []
        self.past: list[int] = []
        self.of_job: list[int] = []
        self.past_tardiness = 0
        ended: dict[str, int] = {}
        for one in problem.history:
            ended[one.job] = max(one.end, ended.get(one.job, 0))
        is_open, number = set(open_ids), dict[str, int]()
        groups: dict[str, list[str]] = {}
        for job in problem.jobs:
            groups.setdefault(job.part_of or f"\n{job.id}", []).append(job.id)
        dues = {job.id: job.due for job in problem.jobs}
        for ids in groups.values():
            due = dues[ids[0]]
            done = max((ended.get(one, 0) for one in ids if one not in is_open), default=0)
            if not is_open.intersection(ids):
                self.past_tardiness += 0 if due is None else max(0, done - due)
                continue
            number.update(dict.fromkeys(ids, len(self.due)))
            self.due.append(FAR if due is None else due)
            self.past.append(done)
        self.of_job = [number[one] for one in open_ids]


def _setups(problem: Problem, families: dict[str, int]) -> tuple[Indices, Ints]:
    """(M,) the table of each machine, and the tables; machines with equal ones share it."""
    known: dict[str, int] = {}
    tables: list[dict[str, dict[str, int]]] = []
    of = []
    for machine in problem.machines:
        key = repr(sorted((a, sorted(row.items())) for a, row in machine.setup.items() if any(row.values())))
        if key == "[]":
            of.append(-1)
            continue
        if key not in known:
            known[key] = len(tables)
            tables.append(machine.setup)
        of.append(known[key])
    cells = len(tables) * len(families) ** 2
    if cells > MAX_SETUP_CELLS:
        raise UsageError(
            f"set-up tables of {len(families)} families for {len(tables)} kinds of machines are too large "
            f"({cells} cells, at most {MAX_SETUP_CELLS}); join families that need no set-up between them"
        )
    setup = np.zeros((len(tables), len(families), len(families)), np.int64)
    for t, table in enumerate(tables):
        for before, row in table.items():
            for after, ticks in row.items():
                setup[t, families[before], families[after]] = ticks
    return np.array(of, np.int32), setup


def _curves(problem: Problem, carriers: list[str]) -> dict[str, Any]:
    shape = (len(CURVES), len(carriers))
    first, count = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    start, step, periodic = np.zeros(shape, np.int64), np.ones(shape, np.int64), np.zeros(shape, np.bool_)
    values: list[float] = []
    sums: list[float] = []
    for c, kind in enumerate(CURVES):
        for carrier, curve in getattr(problem, kind).items():
            k = carriers.index(carrier)
            first[c, k], count[c, k] = len(values), len(curve.values)
            start[c, k], step[c, k], periodic[c, k] = curve.start, curve.step, curve.periodic
            values += curve.values
            sums += (
                curve.step * (total - value)
                for total, value in zip(accumulate(curve.values), curve.values, strict=True)
            )
    return {
        "curve_first": first,
        "curve_count": count,
        "curve_start": start,
        "curve_step": step,
        "curve_periodic": periodic,
        "curve_value": np.array(values, np.float64),
        "curve_sum": np.array(sums, np.float64),
    }


def _fixed(
    problem: Problem, past: list[tuple[str, float, int, int]], price: dict[str, Curve], carriers: list[str]
) -> Floats:
    """(K,) what the past and the base load come to at `price` per kWh, had nothing been generated."""
    fixed = np.zeros(len(carriers))
    for carrier, kw, start, end in past:
        if carrier in price:
            fixed[carriers.index(carrier)] += kw * price[carrier].over(start, end)
    for carrier, load in problem.base_load.items():
        if carrier in price:
            pieces = load.pieces(0, problem.horizon or 0)
            fixed[carriers.index(carrier)] += sum(kw * price[carrier].over(start, end) for start, end, kw in pieces)
    return fixed * (problem.tick_s / 3600)


def _powered_since(problem: Problem, machine: Machine) -> int:
    """Until when it is powered before anything new; its gap before the first new work begins there."""
    done = [one.end for one in problem.history if one.machine == machine.id and one.end > one.start]
    warm = [] if machine.warm_from is None else [max(machine.warm_from, problem.start_floor)]
    return max([*done, *warm], default=-1)


def _crews_at_work(problem: Problem, crews: list[str]) -> Ints:
    """(P, 4) crew, people, start, end of what of history goes on after planning begins."""
    rows = [
        (c, max(problem.operation[one.job, one.op].crew.get(crew, 0) for one in work.members), work.start, work.end)
        for line in works(problem, problem.history if crews else ()).values()
        for work in line
        if work.end > problem.start_floor
        for c, crew in enumerate(crews)
    ]
    return np.array(rows, np.int64).reshape(-1, 4)


def _dead_ends(problem: Problem, jobs: tuple[OpenJob, ...]) -> Bools:
    """(A,) machines from which the next operation of the job cannot be reached within its greatest wait."""
    dead: list[bool] = []
    for job in jobs:
        rows: list[list[bool]] = []
        after: tuple[Operation, dict[str, int], list[bool]] | None = None
        for step in reversed(job.operations):
            one = problem.operation[step.job, step.op]
            row = [False] * len(step.alternatives)
            if after is not None and after[0].wait_max is not None:
                row = [_dead(problem, one, a, ticks, *after) for a, ticks in step.alternatives.items()]
                if all(row):
                    row = [False] * len(row)  # nothing helps; the kernels say so when they get there
            rows.append(row)
            after = (one, step.alternatives, row)
        dead += [flag for row in reversed(rows) for flag in row]
    return np.array(dead, np.bool_)


def _dead(
    problem: Problem, one: Operation, a: str, ticks: int, after: Operation, machines: dict[str, int], dead: list[bool]
) -> bool:
    most = after.wait_max or 0
    for (b, long), is_dead in zip(machines.items(), dead, strict=True):
        again = problem.machine[b].setup.get(one.family, {}).get(after.family, 0) if a == b and ticks and long else 0
        if not is_dead and max(again, problem.transport.between(a, b)) <= most:
            return False
    return True


def _carrying(problem: Problem, machines: dict[str, int]) -> Ints:
    """(M, M) ticks."""
    ticks = np.zeros((len(machines), len(machines)), np.int64)
    for before, row in problem.transport.ticks.items():
        for after, there in row.items():
            if before != after:
                ticks[machines[before], machines[after]] = there
    return ticks


def _joined(windows: Iterable[Window]) -> list[tuple[int, int]]:
    """The same times without overlaps, in order."""
    found: list[tuple[int, int]] = []
    for start, end in sorted((one.start, one.end) for one in windows):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _powers(machine: Machine) -> tuple[float, ...]:
    power = machine.power_kw
    return (power.work, power.idle, power.preheat, power.off, power.setup, power.down)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _bounds(counts: Iterable[int]) -> Indices:
    return np.cumsum([0, *counts]).astype(np.int32)


def _ints(values: Iterable[int]) -> Ints:
    return np.array(list(values), np.int64)


def _indices(values: Iterable[int]) -> Indices:
    return np.array(list(values), np.int32)


def _floats(values: Iterable[float]) -> Floats:
    return np.array(list(values), np.float64)
