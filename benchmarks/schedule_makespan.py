"""mk01 to mk15 of Brandimarte: our makespan beside PyJobShop's and plain CP-SAT's, same seconds, two threads in all.

    python benchmarks/schedule_makespan.py [--quick] [--data DIR] [--solver portfolio] [--seconds 10] [--seeds 5]

DIR/brandimarte holds mk01.fjs to mk15.fjs and best_known.csv. The clock of each runs from the parsed problem to the
returned plan, building its model included; our kernels are compiled before. Each gets every seed in turn: ours, then
PyJobShop, then, for the first seed, OR-Tools CP-SAT on the textbook model (an optional interval per alternative,
no overlap per machine).
The gap is that of the mean over the seeds to the best known. Every plan of ours passes `violations`.

Iterations per second of tabu search alone are measured on random shops of 100 to 10,000 operations, in CPU time.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from _shops import random_shop  # noqa: E402
from ortools.sat.python import cp_model  # noqa: E402

from cloud.scheduling import Budget  # noqa: E402
from cloud.scheduling.shop import shop_of  # noqa: E402
from cloud.scheduling.tabu import Tabu  # noqa: E402
from messages.instances import load_problem  # noqa: E402
from messages.judge import violations  # noqa: E402
from messages.problem import Problem  # noqa: E402

WORKERS, PLAIN_SEEDS = 2, 1
NAMES = tuple(f"mk{n:02d}" for n in range(1, 16))
QUICK = ("mk01", "mk06", "mk10")
MOST = {"mk06": 58.0, "mk10": 198.0}
"""Medians that must not be exceeded."""
SIZES = ((10, 10), (100, 10), (1000, 10))
SPEED_S = 1.0


def figures(
    quick: bool, data: Path, *, solver: str = "portfolio", seconds: float = 10.0, seeds: int = 5
) -> Iterator[dict[str, Any]]:
    """One dictionary per figure."""
    names, seconds, seeds = (QUICK, 2.0, 1) if quick else (NAMES, seconds, seeds)
    folder = data / "brandimarte"
    with (folder / "best_known.csv").open(encoding="utf-8") as file:
        known = {row["instance"]: float(row["best_known_ub"]) for row in csv.DictReader(file)}
    _ours(load_problem(folder / "mk01.fjs"), solver, 0.1, 1)  # compiles
    gaps: dict[str, tuple[float, float, float]] = {}
    for name in names:
        problem, best = load_problem(folder / f"{name}.fjs"), known[name]
        ours, theirs, plain = [], [], []
        for seed in range(1, seeds + 1):
            ours.append(_ours(problem, solver, seconds, seed))
            theirs.append(_pyjobshop(problem, seconds, seed))
            if seed <= PLAIN_SEEDS:
                plain.append(_plain(problem, seconds, seed))
        gaps[name] = (_gap(ours, best), _gap(theirs, best), _gap(plain, best))
        target = min(MOST.get(name, float("inf")), median(theirs))
        yield {
            "figure": f"makespan_{name}",
            "value": median(ours),
            "unit": "ticks",
            "target": f"<= {target:g}",
            "holds": median(ours) <= target,
            "peer": median(theirs),
            "ratio": round(median(theirs) / median(ours), 4),
            "note": f"{solver}, best known {best:g}; {seeds} seeds {_row(ours)}, PyJobShop {_row(theirs)}, "
            f"plain CP-SAT {_row(plain)}; {seconds:g} s, {WORKERS} threads",
        }
    classic = [gaps[name] for name in names if name <= "mk10"]
    own, peer, exact = (mean(column) for column in zip(*classic, strict=True))
    yield {
        "figure": "makespan_mean_gap",
        "value": round(own, 3),
        "unit": "%",
        "target": "<= 0.5",
        "holds": own <= 0.5,
        "peer": round(peer, 3),
        "ratio": round(peer / own, 2) if own else None,
        "note": f"mk01 to mk10 to the best known, {len(classic)} instances; plain CP-SAT {exact:.2f} %",
    }
    yield from _speed(quick)


def _gap(found: list[float], best: float) -> float:
    return 100 * (mean(found) / best - 1)


def _row(found: list[float]) -> str:
    return " ".join(f"{one:g}" for one in found)


def _ours(problem: Problem, solver: str, seconds: float, seed: int) -> float:
    if solver == "tabu":
        result = Tabu().solve(problem, budget=Budget(seconds, workers=1), seed=seed)
    else:
        from cloud.scheduling.portfolio import Portfolio

        result = Portfolio().solve(problem, budget=Budget(seconds, workers=WORKERS), seed=seed)
    faults = violations(problem, result.plans[0])
    if faults:
        raise SystemExit(f"{solver} made a plan that cannot be carried out: {faults[0]}")
    return result.objective["makespan"]


def _pyjobshop(problem: Problem, seconds: float, seed: int) -> float:
    from pyjobshop import Model

    began = time.perf_counter()
    model = Model()
    machines = {machine.id: model.add_machine(name=machine.id) for machine in problem.machines}
    for job in problem.jobs:
        whole, before = model.add_job(), None
        for step in job.operations:
            task = model.add_task(job=whole)
            for name, ticks in step.alternatives.items():
                model.add_mode(task, machines[name], ticks)
            if before is not None:
                model.add_end_before_start(before, task)
            before = task
    model.set_objective(weight_makespan=1)
    left = seconds - (time.perf_counter() - began)
    return float(model.solve(time_limit=left, display=False, num_workers=WORKERS, random_seed=seed).objective)


def _plain(problem: Problem, seconds: float, seed: int) -> float:
    began = time.perf_counter()
    model = cp_model.CpModel()
    horizon = sum(max(step.alternatives.values()) for job in problem.jobs for step in job.operations)
    lines: dict[str, list[cp_model.IntervalVar]] = {machine.id: [] for machine in problem.machines}
    makespan = model.new_int_var(0, horizon, "")
    for job in problem.jobs:
        before: cp_model.LinearExprT = 0
        for step in job.operations:
            start, end = model.new_int_var(0, horizon, ""), model.new_int_var(0, horizon, "")
            chosen = []
            for name, ticks in step.alternatives.items():
                here = model.new_bool_var("")
                lines[name].append(model.new_optional_interval_var(start, ticks, end, here, ""))
                chosen.append(here)
            model.add_exactly_one(chosen)
            model.add(start >= before)
            before = end
        model.add(makespan >= before)
    for line in lines.values():
        model.add_no_overlap(line)
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers, solver.parameters.random_seed = WORKERS, seed
    solver.parameters.max_time_in_seconds = max(0.1, seconds - (time.perf_counter() - began))
    status = solver.solve(model)
    return solver.objective_value if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) else float("inf")


def _speed(quick: bool) -> Iterator[dict[str, Any]]:
    for jobs, machines in SIZES[:2] if quick else SIZES:
        shop, _ = shop_of(random_shop(1, jobs=jobs, operations=10, machines=machines * (1 + jobs // 100)))
        tabu = Tabu()
        state = tabu.begin(shop, seed=1)
        tabu.step(state, 10)
        before, began_s = state.iteration, time.process_time()
        while time.process_time() < began_s + SPEED_S:
            tabu.step(state, 50)
        rate = (state.iteration - before) / (time.process_time() - began_s)
        yield {
            "figure": f"tabu_iterations_{shop.operations}",
            "value": round(rate),
            "unit": "1/s per core",
            "target": "stated",
            "holds": True,
            "note": f"{jobs} jobs x 10 operations on {len(shop.preheat)} machines, 3 alternatives",
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three instances, one seed, 2 s")
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data", help="where brandimarte/ is")
    parser.add_argument("--solver", choices=("tabu", "portfolio"), default="portfolio", help="tabu: one thread")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    asked = {"solver": options.solver, "seconds": options.seconds, "seeds": options.seeds}
    for one in figures(options.quick, options.data, **asked):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
