"""Fronts of the ceramic line: ours, pymoo's NSGA-II with our compiled decoder, and the paper's grey wolves.

    python benchmarks/schedule_pareto.py [--quick] [--seconds 10] [--seeds 10]

Each gets the same seconds and two threads. NSGA-II: keys for order and machines (half of them by earliest completion),
100 individuals, simulated binary crossover and polynomial mutation, two halves of a generation in two threads, plans
shifted right by our kernel. The paper's wolves: two packs. Ours is what a user gets: the portfolio, asked for a front.

makespan × energy is held against the exact front, proved in the same run (some 20 s with two threads; with --quick
against the best of all). It has 22 points: 19 end at whole hours, three at half hours. The waves with carbon as third
measure are held against the best of all three. Hypervolume: ideal and nadir of the reference, corner (1.1, …), as a
share of the reference's own. IGD+: normalised likewise, less is better.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as MooProblem
from pymoo.indicators.hv import HV
from pymoo.indicators.igd_plus import IGDPlus
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.optimize import minimize
from pymoo.termination.max_time import TimeBasedTermination

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from _keys import measured  # noqa: E402

from cloud.scheduling import Portfolio  # noqa: E402
from cloud.scheduling.front import front  # noqa: E402
from cloud.scheduling.gwo import GreyWolf  # noqa: E402
from cloud.scheduling.packed import packed, scratch_of  # noqa: E402
from cloud.scheduling.seam import KEY, MEASURES, Budget, Exchange, Goal  # noqa: E402
from cloud.scheduling.searchkernel import Rule, room_of, trial_of  # noqa: E402
from cloud.scheduling.shop import shop_of  # noqa: E402
from messages.instances import load_problem  # noqa: E402
from messages.judge import violations  # noqa: E402
from messages.plan import Measure  # noqa: E402
from messages.problem import Problem  # noqa: E402

EXACT_S = 300.0
NEAR = 0.002
Points = np.ndarray  # (points, measures)
Solve = Callable[[Problem, tuple[Measure, ...], float, int], Points]


def figures(quick: bool, data: Path | None = None, *, seconds: float = 10.0, seeds: int = 10) -> Iterator[dict]:
    """The figures of this part. `data` is not needed."""
    if quick:
        seconds, seeds = 3.0, 1
    solvers: dict[str, Solve] = {"ours": portfolio, "nsga2": nsga2, "paper": paper}
    ceramic = load_problem(REPO / "examples" / "ceramic.json")
    two: tuple[Measure, ...] = ("makespan", "energy")
    exact = None if quick else exact_front(ceramic, two)
    yield from compared("ceramic", ceramic, two, exact, solvers, seconds, seeds)
    waves = load_problem(REPO / "examples" / "ceramic_waves.json")
    yield from compared("waves", waves, ("makespan", "energy", "carbon"), None, solvers, seconds, seeds)


def compared(
    name: str, problem: Problem, measures: tuple[Measure, ...], reference: Points | None, solvers: dict[str, Solve],
    seconds: float, seeds: int,
) -> Iterator[dict]:  # fmt: skip
    """All solvers on all seeds."""
    warm = Budget(60.0, evaluations=5_000, workers=1)
    Portfolio().solve(problem, goal=Goal(measures, front=True), budget=warm)
    for solve in solvers.values():
        solve(problem, measures, 1.0, 0)  # compiled, imported
    found = {
        who: [solve(problem, measures, seconds, seed) for seed in range(1, seeds + 1)] for who, solve in solvers.items()
    }
    union = reference if reference is not None else best_of([one for fronts in found.values() for one in fronts])
    low, width = union.min(axis=0), np.ptp(union, axis=0)
    width[width == 0] = 1.0
    volume, distance = HV(np.full(len(low), 1.1)), IGDPlus((union - low) / width)
    whole = float(volume((union - low) / width))
    shares = {who: [float(volume((one - low) / width)) / whole for one in fronts] for who, fronts in found.items()}
    igd = {who: [float(distance((one - low) / width)) for one in fronts] for who, fronts in found.items()}
    of = "the exact front" if reference is not None else "the best of all"
    note = f"{seeds} seeds, {seconds:g} s, 2 threads, against {of} ({len(union)} points)"
    if reference is not None:
        hour = round(3600 / problem.tick_s)
        whole_hours = union[union[:, 0] % hour == 0]
        for points, name_of, target in ((whole_hours, "whole_hour_points", 15), (union, "points", None)):
            hits = {who: [near(one, points) for one in fronts] for who, fronts in found.items()}
            mid = median(hits["ours"])
            yield {
                "figure": f"pareto_{name}_{name_of}", "value": mid, "unit": f"of {len(points)} within 0.2 %",
                "target": "none" if target is None else f">= {target}", "holds": target is None or mid >= target,
                "peer": median(hits["nsga2"]),
                "note": f"{note}; each seed: {hits['ours']}, paper's wolves {median(hits['paper'])}",
            }  # fmt: skip
    share = median(shares["ours"])
    least = 0.95 if reference is not None else max(median(shares["nsga2"]), median(shares["paper"]))
    yield {
        "figure": f"pareto_{name}_hypervolume", "value": round(share, 4), "unit": "of the reference's",
        "target": f">= {least:.4g}", "holds": share >= least, "peer": round(median(shares["nsga2"]), 4),
        "ratio": round(share / median(shares["nsga2"]), 3) if median(shares["nsga2"]) else None,
        "note": f"{note}; paper's wolves {median(shares['paper']):.4f}",
    }  # fmt: skip
    for peer in ("nsga2", "paper"):
        wins = sum(a < b for a, b in zip(igd["ours"], igd[peer], strict=True))
        yield {
            "figure": f"pareto_{name}_igd_plus_against_{peer}", "value": wins, "unit": "seeds won",
            "target": str(seeds), "holds": wins == seeds, "peer": round(median(igd[peer]), 5),
            "ratio": round(median(igd[peer]) / max(1e-9, median(igd["ours"])), 1),
            "note": f"{note}; median IGD+ ours {median(igd['ours']):.5f}",
        }  # fmt: skip


def portfolio(problem: Problem, measures: tuple[Measure, ...], seconds: float, seed: int) -> Points:
    """What a user gets."""
    goal, budget = Goal(measures, front=True), Budget(seconds, workers=2)
    return of_plans(problem, Portfolio().solve(problem, goal=goal, budget=budget, seed=seed).plans, measures)


def paper(problem: Problem, measures: tuple[Measure, ...], seconds: float, seed: int) -> Points:
    """Two packs as published."""
    run = Exchange(problem, Goal(measures, front=True), Budget(seconds, workers=2))
    with ThreadPoolExecutor(2) as threads:
        for part in (0, 1):
            own = run.slice(seconds, workers=1)
            threads.submit(GreyWolf(variant="paper").solve, problem, seed=2 * seed + part, exchange=own)
    return of_plans(problem, run.front, measures)


class _Keys(MooProblem):
    """Random keys for pymoo; two threads share each generation."""

    def __init__(self, problem: Problem, measures: tuple[Measure, ...]) -> None:
        self.shop, self.names = shop_of(problem)
        self.packed = packed(self.shop)
        self.places = [MEASURES.index(one) for one in measures]
        wanted = sum(1 << k for k in self.places)
        weight = np.zeros(7)
        weight[self.places] = 1.0
        self.rule = Rule(weight, np.full(7, np.inf), np.zeros(7), wanted, wanted >= 8, True)
        self.rooms = [(scratch_of(self.shop), room_of(self.shop), trial_of(self.shop)) for _ in range(2)]
        self.threads = ThreadPoolExecutor(2)
        super().__init__(n_var=2 * self.shop.operations, n_obj=len(measures), xl=0.0, xu=1.0)

    def _evaluate(self, x: Points, out: dict, *_: object, **__: object) -> None:
        values = np.zeros((len(x), 7))
        half = len(x) // 2
        parts = [slice(0, half), slice(half, len(x))]
        jobs = [
            self.threads.submit(
                measured, self.packed, scratch, room, self.rule, trial, np.ascontiguousarray(x[part]), values[part]
            )
            for part, (scratch, room, trial) in zip(parts, self.rooms, strict=True)
        ]
        for job in jobs:
            job.result()
        out["F"] = values[:, self.places]


def nsga2(problem: Problem, measures: tuple[Measure, ...], seconds: float, seed: int) -> Points:
    """pymoo's NSGA-II."""
    began = time.monotonic()
    keys = _Keys(problem, measures)
    algorithm = NSGA2(pop_size=100, crossover=SBX(prob=0.9, eta=10), mutation=PM(eta=15))
    left = TimeBasedTermination(max(0.1, seconds - (time.monotonic() - began)))
    result = minimize(keys, algorithm, left, seed=seed, verbose=False)
    keys.threads.shutdown()
    return np.atleast_2d(result.F)


def of_plans(problem: Problem, plans: object, measures: tuple[Measure, ...]) -> Points:
    """Their values; each is checked."""
    rows = []
    for plan in plans:
        if violations(problem, plan):
            raise AssertionError(f"{plan.solver}: {violations(problem, plan)[:3]}")
        rows.append([plan.objectives[KEY[one]] for one in measures])
    return np.array(rows)


def near(found: Points, exact: Points) -> int:
    """Exact points that are reached within 0.2 % of the second measure."""
    return sum(bool(((found[:, 0] <= x + 1e-9) & (found[:, 1] <= y * (1 + NEAR))).any()) for x, y in exact.tolist())


def best_of(fronts: list[Points]) -> Points:
    """The union of fronts, without what is beaten."""
    rows = np.unique(np.round(np.vstack(fronts), 6), axis=0)
    beaten = [bool(((rows <= row).all(axis=1) & (rows < row).any(axis=1)).any()) for row in rows]
    return rows[~np.array(beaten)]


def exact_front(problem: Problem, measures: tuple[Measure, ...]) -> Points:
    """The proved front."""
    result = front(problem, measures=measures, budget=Budget(EXACT_S, workers=2))
    if result.status != "optimal":
        raise AssertionError(f"the front was not proved in {EXACT_S:g} s: {result.reason}")
    return of_plans(problem, result.plans, measures)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 seed, 3 s")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for line in figures(options.quick, seconds=options.seconds, seeds=options.seeds):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
