"""Peers behind the seam of judges: CP-SAT and tabu search, asked anew at every event with the same seconds as ours.

They know no vehicles, buffers, closings, lags or energy: generated workshops have none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ortools.sat.python import cp_model

from cloud.prior import problem_of
from cloud.scheduling.shop import shop_of
from cloud.scheduling.tabu import Tabu
from messages.dispatch.decode import Choice, Weights, decode, measures
from messages.dispatch.judge import Judge
from messages.dispatch.rules import RULES, run
from messages.dispatch.state import State
from messages.dispatch.tree import Found

SCALE = 1000
"""Weights in CP-SAT's whole numbers."""


@dataclass(frozen=True)
class Exact:
    """What CP-SAT found."""

    sequence: tuple[Choice, ...]
    value: float
    bound: float


def exact(
    state: State, weights: Weights, seconds: float, *, hint: Sequence[Choice], workers: int = 1, seed: int = 0
) -> Exact:
    """The best schedule from `state` on: the textbook model (an optional interval per alternative, no overlap per
    machine, the load of every machine within the makespan), begun with `hint`. Modelling counts as time."""
    began = time.perf_counter()
    hinted = {(bid.job, bid.op): bid for bid in decode(state, hint).bids}
    far = max(state.last, state.now, *(part.ready for part in state.jobs.values()))
    far += sum(
        max(step.ticks.values()) for job in state.open() for step in state.shop.route[job][state.jobs[job].next :]
    )
    model = cp_model.CpModel()
    makespan = model.new_int_var(state.last, far, "")
    lines: dict[str, list[cp_model.IntervalVar]] = {name: [] for name in state.machines}
    loads: dict[str, list[cp_model.LinearExprT]] = {name: [] for name in state.machines}
    starts: dict[tuple[str, int], tuple[cp_model.IntVar, list[tuple[str, cp_model.IntVar]]]] = {}
    waits: list[cp_model.LinearExprT] = []
    for job in state.open():
        part = state.jobs[job]
        before: cp_model.LinearExprT = part.ready
        for op in range(part.next, len(state.shop.route[job])):
            start, end = model.new_int_var(max(state.now, part.ready), far, ""), model.new_int_var(0, far, "")
            chosen = []
            for name, ticks in state.shop.route[job][op].ticks.items():
                here = model.new_bool_var("")
                lines[name].append(model.new_optional_interval_var(start, ticks, end, here, ""))
                loads[name].append(ticks * here)
                model.add(start >= state.machines[name].free).only_enforce_if(here)
                model.add_hint(here, hinted[job, op].machine == name)
                chosen.append((name, here))
            model.add_exactly_one([here for _, here in chosen])
            model.add(start >= before)
            model.add_hint(start, hinted[job, op].start)
            waits.append(start - before)
            starts[job, op], before = (start, chosen), end
        model.add(makespan >= before)
    for name, line in lines.items():
        model.add_no_overlap(line)
        model.add(makespan >= max(state.now, state.machines[name].free) + sum(loads[name]))
    jobs = max(1, len(state.jobs))
    model.minimize(
        round(SCALE * weights.makespan) * makespan
        + round(SCALE * weights.waiting / jobs) * cp_model.LinearExpr.sum(waits)
    )
    solver = cp_model.CpSolver()
    solver.parameters.num_workers, solver.parameters.random_seed = workers, seed
    solver.parameters.max_time_in_seconds = max(0.001, seconds - (time.perf_counter() - began))
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Exact(tuple(hint), measures(decode(state, hint)).value(weights), 0.0)
    rows = sorted(
        (solver.value(start), op, job, next(name for name, here in chosen if solver.value(here)))
        for (job, op), (start, chosen) in starts.items()
    )
    sequence = tuple((job, machine) for _, _, job, machine in rows)
    return Exact(sequence, measures(decode(state, sequence)).value(weights), solver.best_objective_bound / SCALE)


class RollingExact(Judge):
    """CP-SAT from the best rule or the memory on, with one thread."""

    kind: Literal["cpsat"] = "cpsat"
    seconds: float = 0.1

    def plan(self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int) -> Found:
        """The best of what it found and what it began with."""
        began = time.perf_counter()
        first = _best(state, weights, seeds)
        if not first.sequence:
            return first
        left = self.seconds - (time.perf_counter() - began)
        found = exact(state, weights, left, hint=first.sequence, seed=seed)
        return Found(found.sequence, found.value, 1) if found.value < first.value else first


class RollingTabu(Judge):
    """Our own tabu search, which minimises the makespan alone, with one thread."""

    kind: Literal["tabu"] = "tabu"
    seconds: float = 0.1

    def plan(self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int) -> Found:
        """Its best plan, or what it began with where that is no longer."""
        began = time.perf_counter()
        first = _best(state, Weights(), seeds)
        if not first.sequence:
            return first
        shop, names = shop_of(problem_of(state))
        search = Tabu()
        inner = search.step(search.begin(shop, seed), 1)
        while not inner.done and time.perf_counter() - began < self.seconds:
            search.step(inner, 20)
        draft = inner.draft()
        rows = sorted(
            (start, op, job, names.machines[m])
            for (job, op), m, start in zip(names.operations, draft.machine.tolist(), draft.start.tolist(), strict=True)
        )
        sequence = tuple((job, machine) for _, _, job, machine in rows)
        value = measures(decode(state, sequence)).value(Weights())
        return Found(sequence, value, 1) if value < first.value else first


def _best(state: State, weights: Weights, seeds: Iterable[Sequence[Choice]]) -> Found:
    schedules = [*(decode(state, one) for one in seeds), *(run(state, rule, weights) for rule in RULES.values())]
    value, _, best = min((measures(one).value(weights), n, one) for n, one in enumerate(schedules))
    return Found(best.sequence, value, 0)
