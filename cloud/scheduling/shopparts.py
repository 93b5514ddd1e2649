"""Parts of a shop, each worked out from the problem: lots, set-up tables, curves, dead ends, what the past comes to.

`cloud.scheduling.shop` puts them together; dimensions as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from messages.curve import CURVES, Curve
from messages.errors import UsageError
from messages.gaps import works
from messages.openjobs import OpenJob
from messages.problem import Machine, Operation, Problem, Window

Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FAR = 2**60
"""A time after all times; twice it still fits 64 bits."""
MAX_SETUP_CELLS = 50_000_000
"""Set-up tables of so many cells in all (machines with one table share it) fit into memory."""


class Lots:
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


def setups(problem: Problem, families: dict[str, int]) -> tuple[Indices, Ints]:
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


def curves(problem: Problem, carriers: list[str]) -> dict[str, Any]:
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


def fixed(
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


def powered_since(problem: Problem, machine: Machine) -> int:
    """Until when it is powered before anything new; its gap before the first new work begins there."""
    done = [one.end for one in problem.past.get(machine.id, ()) if one.end > one.start]
    warm = [] if machine.warm_from is None else [max(machine.warm_from, problem.start_floor)]
    return max([*done, *warm], default=-1)


def crews_at_work(problem: Problem, crews: list[str]) -> Ints:
    """(P, 4) crew, people, start, end of what of history goes on after planning begins."""
    rows = [
        (c, max(problem.operation[one.job, one.op].crew.get(crew, 0) for one in work.members), work.start, work.end)
        for line in works(problem, problem.history if crews else ()).values()
        for work in line
        if work.end > problem.start_floor
        for c, crew in enumerate(crews)
    ]
    return np.array(rows, np.int64).reshape(-1, 4)


def work_kw(own: Floats, machine: Indices, ways: Sequence[Mapping[str, int]], rules: Sequence[Operation]) -> Floats:
    """(A,) kW of work: that of the machine, `own` by machine, unless the operation says otherwise."""
    found = own[machine]
    a = 0
    for way, rule in zip(ways, rules, strict=True):
        if rule.work_kw:
            for k, name in enumerate(way):
                found[a + k] = rule.work_kw.get(name, found[a + k])
        a += len(way)
    return found


def crew_need(rules: Sequence[Operation], crews: Sequence[str]) -> Indices:
    """(O, C) people."""
    need = np.zeros((len(rules), len(crews)), np.int32)
    for o, rule in enumerate(rules if crews else ()):
        for crew, people in rule.crew.items():
            need[o, crews.index(crew)] = people
    return need


def dead_ends(problem: Problem, jobs: Sequence[OpenJob], alternatives: int) -> Bools:
    """(A,) machines from which the next operation of the job cannot be reached within its greatest wait."""
    if all(one.wait_max is None for one in problem.operation.values()):
        return np.zeros(alternatives, np.bool_)
    dead: list[bool] = []
    for job in jobs:
        rows: list[list[bool]] = []
        after: tuple[Operation, Mapping[str, int], list[bool]] | None = None
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
    problem: Problem,
    one: Operation,
    a: str,
    ticks: int,
    after: Operation,
    machines: Mapping[str, int],
    dead: list[bool],
) -> bool:
    most = after.wait_max or 0
    for (b, long), is_dead in zip(machines.items(), dead, strict=True):
        again = problem.machine[b].setup.get(one.family, {}).get(after.family, 0) if a == b and ticks and long else 0
        if not is_dead and max(again, problem.transport.between(a, b)) <= most:
            return False
    return True


def carrying(problem: Problem, machines: dict[str, int]) -> Ints:
    """(M, M) ticks."""
    ticks = np.zeros((len(machines), len(machines)), np.int64)
    for before, row in problem.transport.ticks.items():
        for after, there in row.items():
            if before != after:
                ticks[machines[before], machines[after]] = there
    return ticks


def joined(windows: Iterable[Window]) -> list[tuple[int, int]]:
    """The same times without overlaps, in order."""
    found: list[tuple[int, int]] = []
    for start, end in sorted((one.start, one.end) for one in windows):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
