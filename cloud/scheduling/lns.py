"""Large neighbourhood search: CP-SAT makes a part of a plan anew, again and again, for every measure and feature.

    Lns().solve(problem, goal=Goal(("carbon",)), budget=Budget(seconds=10), exchange=exchange)

Neighbourhoods: a window of time, some machines, random jobs. What is not in it keeps its machine, and its start, or
its place in the order where only times and energy count (then starts may move). The size of each kind grows when it
was solved at once and shrinks when time ran out. One worker, one thread; a slice takes a few to 300 ms.

With `Budget.evaluations` slices count deterministic time as CP-SAT does (`EVALUATION` each, at least one per operation,
as making the model looks at all of them), so a seed gives one result unless the seconds are spent first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from ortools.sat.python import cp_model
from pydantic import Field

from cloud.scheduling.cpmodel import Keep, Model, TooLarge, on_grid
from cloud.scheduling.cpmodel_hint import hint
from cloud.scheduling.cpsat import CpSat, Search
from cloud.scheduling.cpsolver import EVALUATION, LEAST_SLICE_S, plan_from, stopping
from cloud.scheduling.seam import KEY, NEAR, Exchange, Result, Strategy, nothing_to_do
from cloud.scheduling.shop import Draft, draft_of, durations
from messages.judge import violations
from messages.plan import Measure, Plan
from messages.problem import Problem

KINDS = ("window", "machines", "jobs")
SLICE_S = 0.3
LEAST, MOST = 2, 400
"""Operations made anew at once."""
FIRST = 12
ORDERED = 2_000
"""Up to this many operations the others may move as well; of larger plans they stay where they are."""


class Lns(Strategy):
    """Large neighbourhood search with CP-SAT."""

    kind: Literal["lns"] = "lns"
    slice_s: float = Field(default=SLICE_S, gt=0, le=60, description="most seconds for one neighbourhood")

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """A better plan than `start`, the exchange's best or a rule's."""
        state = self.begin(problem, run, seed, start)
        if isinstance(state, Result):
            return state
        alone = run.budget.evaluations is not None
        while state.search.best is not None and not run.over:
            if state.stuck >= state.patience or (alone and state.left_s(run) <= 0):
                break
            self.step(state, 1)
        best = state.search.best
        reason = "" if best is not None else "lns: no plan to begin with keeps the limits; give it a start"
        status: Literal["feasible", "unknown"] = "feasible" if best is not None else "unknown"
        plans = () if best is None else (best,)
        values = {} if best is None else best.objectives
        return Result(plans, values, None, status, run.elapsed_s, tuple(run.events), reason, state.evaluations)

    def begin(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> State | Result:
        """The state of a search, or why there is none."""
        search = Search(CpSat(), problem, run, seed)
        search.prepare()
        if not search.names.operations:
            return nothing_to_do(problem, run, "lns")
        search.first(start)
        return State(search, np.random.default_rng(seed), size=len(search.names.operations))

    def step(self, state: State, n: int) -> None:
        """Solve `n` neighbourhoods; better plans go to the exchange at once."""
        search, run = state.search, state.search.exchange
        for _ in range(n):
            if run.budget.evaluations is None:
                search.adopt()
            if search.best is None:
                return
            kind = KINDS[state.done % len(KINDS)]
            solved, better = self._neighbour(state, kind)
            state.done += 1
            state.spent_s += EVALUATION * state.size
            state.stuck = 0 if better else state.stuck + 1
            scale = 1.25 if solved else 0.8
            state.sizes[kind] = min(max(state.sizes[kind] * scale, LEAST), MOST, max(state.size, LEAST))

    def _neighbour(self, state: State, kind: str) -> tuple[bool, bool]:
        """Whether it was solved to the end, and whether that was better."""
        search, run = state.search, state.search.exchange
        best = search.best
        if best is None:
            return False, False
        draft = draft_of(search.shop, search.names, best)
        free = _free(state, draft, kind, max(LEAST, round(state.sizes[kind])))
        for weights, limits in _stages(search, best):
            try:
                model = self._model(state, draft, free, weights, limits)
            except TooLarge:
                return False, False
            value = sum(weight * best.objectives[KEY[one]] for one, weight in weights.items())
            model.cut(value - NEAR * max(1.0, abs(value)))
            hint(model, draft)
            solver = cp_model.CpSolver()
            parameters = solver.parameters
            parameters.num_workers = 1
            parameters.random_seed = int(state.rng.integers(2**31 - 1))
            parameters.cp_model_probing_level = 0
            parameters.catch_sigint_signal = False
            if run.budget.evaluations is not None:
                parameters.max_deterministic_time = max(EVALUATION, min(self.slice_s, state.left_s(run)))
                parameters.max_time_in_seconds = max(LEAST_SLICE_S, run.left_s)
            else:
                parameters.max_time_in_seconds = max(LEAST_SLICE_S, min(self.slice_s, run.left_s))
            with stopping(solver, run):
                status = solver.solve(model.cp)
            state.spent_s += solver.response_proto.deterministic_time
            if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
                plan = plan_from(search.problem, search.shop, search.names, model, solver, "lns")
                before = search.best
                if not violations(search.problem, plan):
                    search.offer(plan)
                if search.best is not before:
                    return status == cp_model.OPTIMAL, True
            if status not in (cp_model.OPTIMAL, cp_model.INFEASIBLE):
                return False, False
        return True, False

    def _model(
        self, state: State, draft: Draft, free: set[int], weights: dict[Measure, float], limits: Mapping[Measure, float]
    ) -> Model:
        """The exact model with all but `free` kept."""
        search = state.search
        shop, names = search.shop, {*weights, *limits}
        machine = draft.machine.tolist()
        start = draft.start.tolist()
        order: list[tuple[int, int]] = []
        movable = not on_grid(search.problem, names) and state.size <= ORDERED and not bool((shop.batch > 1).any())
        lines: dict[int, list[int]] = {}
        if movable:
            for o in np.argsort(draft.start, kind="stable").tolist():
                if o not in free and _ticks(state, draft)[o]:
                    lines.setdefault(machine[o], []).append(o)
            order = [pair for line in lines.values() for pair in pairwise(line)]
        for o in range(state.size):
            if o in free:
                machine[o] = start[o] = -1
            elif movable:
                start[o] = -1
        latest = int((draft.start + _ticks(state, draft)).max())
        reach = latest if "makespan" in weights else latest + (latest - shop.floor) // 4
        horizon = int(min(limits.get("makespan", reach), max(reach, latest)))
        return search.model(names, limits, horizon, weights=weights, keep=Keep(machine, start, order))


@dataclass
class State:
    """A search on its way."""

    search: Search
    rng: np.random.Generator
    size: int
    done: int = 0
    stuck: int = 0
    spent_s: float = 0.0
    sizes: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, float(FIRST)))

    @property
    def evaluations(self) -> int:
        """What was spent, as `Budget.evaluations` counts."""
        return round(self.spent_s / EVALUATION)

    def left_s(self, run: Exchange) -> float:
        """Deterministic seconds left of the evaluations."""
        return (run.budget.evaluations or 0) * EVALUATION - self.spent_s

    @property
    def patience(self) -> int:
        """Neighbourhoods in a row without anything better after which a small plan is as good as it gets."""
        return 10_000 if self.size > LEAST else 3


def _ticks(state: State, draft: Draft) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return durations(state.search.shop, draft)


def _stages(search: Search, best: Plan) -> list[tuple[dict[Measure, float], dict[Measure, float]]]:
    """What to minimise within which limits: each measure of the goal in turn, without losing those before it."""
    goal, limits = search.exchange.goal, dict(search.limits)
    if goal.weights is not None:
        return [({one: goal.weights[one] for one in goal.order}, limits)]
    stages = []
    for measure in goal.order:
        stages.append(({measure: 1.0}, dict(limits)))
        limits[measure] = min(best.objectives[KEY[measure]], limits.get(measure, float("inf")))
    return stages


def _free(state: State, draft: Draft, kind: str, count: int) -> set[int]:
    """The operations to be made anew, about `count`."""
    shop, rng = state.search.shop, state.rng
    if count >= state.size:
        return set(range(state.size))
    if kind == "window":
        place = int(rng.integers(state.size))
        order = np.argsort(draft.start + rng.random(state.size), kind="stable")
        low = max(0, min(place - count // 2, state.size - count))
        return set(order[low : low + count].tolist())
    if kind == "machines":
        chosen: set[int] = set()
        for m in rng.permutation(len(shop.preheat)).tolist():
            on = np.flatnonzero(draft.machine == m)
            if len(on) > count - len(chosen):
                at = int(rng.integers(len(on)))
                line = on[np.argsort(draft.start[on], kind="stable")]
                low = max(0, min(at, len(line) - (count - len(chosen))))
                chosen.update(line[low : low + count - len(chosen)].tolist())
                return chosen
            chosen.update(on.tolist())
        return chosen
    chosen = set()
    for j in rng.permutation(len(shop.job_ready)).tolist():
        chosen.update(range(int(shop.job_first[j]), int(shop.job_first[j + 1])))
        if len(chosen) >= count:
            break
    return chosen
