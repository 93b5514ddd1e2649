"""Planning again after disturbances: how fast, how much worse than starting afresh, how nervous.

    python benchmarks/schedule_replan.py [--quick] [--sequences 1000]

The ceramic line (60 operations) runs by a plan; at random times a machine breaks down, an order is needed sooner, or
one more comes in, one to three times a day. Each time `replan` has `BUDGET_S` with one thread; two processes take the
sequences in turn, so two threads in all are at work. Every plan is checked by `violations`, which holds history
untouched. In a sample of the sequences the same problem is solved afresh for 60 s (by the same engine, from nothing),
and the makespans are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO)]

from cloud.scheduling import Budget, CpSat, Goal  # noqa: E402
from cloud.scheduling.replan import Again, replan  # noqa: E402
from cloud.scheduling.whatif import Add, Change, Down, Rush, apply, freeze  # noqa: E402
from messages.instances import load_problem  # noqa: E402
from messages.judge import violations  # noqa: E402
from messages.plan import Plan  # noqa: E402
from messages.problem import Problem  # noqa: E402

BUDGET_S = 0.5
AFRESH_S = 60.0
WORKERS, IN_TURN = 2, 4
"""Processes, of one thread each; sequences handed over at a time."""
GOAL = Goal(("makespan", "energy"))


@dataclass(frozen=True)
class Row:
    """One disturbance and what was made of it."""

    took_s: float
    valid: bool
    moved: float
    shift_h: float
    gained: float
    worse: float | None


def change_of(problem: Problem, now: int, rng: np.random.Generator) -> Change:
    """A breakdown of 2 to 16 h in six cases of ten; else an order is needed sooner, or one more comes in."""
    kind = rng.random()
    if kind < 0.6:
        machine = problem.machines[int(rng.integers(len(problem.machines)))].id
        return Down(machine, now, now + int(rng.integers(4, 33)))
    job = problem.jobs[int(rng.integers(len(problem.jobs)))]
    if kind < 0.8:
        return Rush(job.id, now + int(rng.integers(20, 60)))
    return Add((job.model_copy(update={"id": f"{job.id}+{now}", "release": now, "due": None}),))


def disturbed(problem: Problem, plan: Plan, seed: int, stay: float) -> Iterator[tuple[Problem, Again, float]]:
    """One sequence: each problem, what was planned again, and how long that took from problem to plan, s."""
    rng = np.random.default_rng(seed)
    now = 0
    for _ in range(int(rng.integers(1, 4))):
        now += int(rng.integers(2, 17))
        if now >= plan.objectives["makespan"]:
            return
        problem = apply(freeze(problem, plan, now), change_of(problem, now, rng))
        began = time.perf_counter()
        again = replan(problem, plan, goal=GOAL, budget=Budget(BUDGET_S, workers=1), stay=stay, seed=seed)
        yield problem, again, time.perf_counter() - began
        plan = again.plan


def ready(problem: Problem, plan: Plan) -> None:
    """A new process reads its kernels before anything is timed."""
    next(disturbed(problem, plan, 0, 0.02))


def sequence(problem: Problem, plan: Plan, sample: int, afresh_s: float, seed: int) -> list[Row]:
    """One sequence; the first disturbance of every `sample`-th is solved afresh too."""
    rows = []
    for step, (one, again, seconds) in enumerate(disturbed(problem, plan, seed, 0.02)):
        worse = None
        if step == 0 and seed % sample == 0:
            afresh = CpSat().solve(one, goal=Goal(), budget=Budget(afresh_s, workers=1), seed=seed)
            worse = again.plan.objectives["makespan"] / afresh.objective["makespan"] - 1
        gained = 1 - again.plan.objectives["makespan"] / again.repaired.objectives["makespan"]
        valid = not violations(one, again.plan)
        rows.append(Row(seconds, valid, again.moved, one.in_unit(again.shift), gained, worse))
    return rows


def figures(quick: bool, data: Path, sequences: int = 1000) -> Iterator[dict[str, object]]:
    """One line per figure; `data` is not needed."""
    problem = load_problem(REPO / "examples" / "ceramic.json")
    plan = CpSat().solve(problem, goal=GOAL, budget=Budget(5 if quick else 20), seed=1).plans[0]
    sequences = 8 if quick else sequences
    next(disturbed(problem, plan, 0, 0.02))  # kernels are compiled
    one = partial(sequence, problem, plan, max(1, sequences // 25), 5.0 if quick else AFRESH_S)
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), initializer=ready, initargs=(problem, plan)) as pool:
        rows = [row for some in pool.map(one, range(sequences), chunksize=IN_TURN) for row in some]
    took, faults = [row.took_s for row in rows], sum(not row.valid for row in rows)
    moved, shift, gained = ([getattr(row, name) for row in rows] for name in ("moved", "shift_h", "gained"))
    worse = [row.worse for row in rows if row.worse is not None]
    note = f"{len(took)} disturbances in {sequences} sequences, {BUDGET_S} s and one thread each"
    yield _figure("replan_time_max", max(took), "s", 1.0, max(took) <= 1.0, note)
    yield _figure("replan_time_p50", float(np.median(took)), "s", None, None, note)
    yield _figure("replan_faults", faults, "plans", 0, faults == 0, "violations, a touched history among them")
    mean = float(np.mean(worse))
    compared = f"makespan against {AFRESH_S if not quick else 5:g} s of CP-SAT from nothing, {len(worse)} problems"
    yield _figure("replan_worse_mean", 100 * mean, "%", 5.0, mean <= 0.05, compared)
    yield _figure("replan_worse_max", 100 * max(worse), "%", None, None, compared)
    yield _figure("replan_shorter_than_repair", 100 * float(np.mean(gained)), "%", None, None, "mean, of the makespan")
    yield _figure("replan_moved", 100 * float(np.mean(moved)), "%", None, None, "share of released operations moved")
    yield _figure("replan_shift", float(np.mean(shift)), "h", None, None, "mean change of a released start")


def _figure(name: str, value: float, unit: str, target: object, holds: bool | None, note: str) -> dict[str, object]:
    return {"figure": name, "value": round(value, 4), "unit": unit, "target": target, "holds": holds, "note": note}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--sequences", type=int, default=1000)
    options = parser.parse_args()
    for line in figures(options.quick, REPO, options.sequences):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
