"""Does tunnelling pay? Quantum-inspired annealing beside plain and replica-exchange annealing, equal evaluations.

    python benchmarks/schedule_ablation.py [--quick] [--evaluations 300000] [--seeds 8] [--data ../shared/data]

Each mode of `Annealing` gets the same evaluations, plans at once and seeds, on the ceramic line (makespan; energy;
energy with the makespan within 35 h) and on mk01 … mk10 where the data is there (makespan). For every
instance and seed the relative difference of the final values is one pair; a two-sided Wilcoxon signed-rank test over
the instances' mean differences says whether it could be chance. Tunnelling pays if the mean difference is in its favour
and p < 0.05.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from cloud.scheduling.annealing import Annealing, Mode  # noqa: E402
from cloud.scheduling.seam import KEY, Budget, Goal  # noqa: E402
from messages.instances import load_problem  # noqa: E402
from messages.problem import Problem  # noqa: E402

OTHERS: tuple[Mode, ...] = ("exchange", "plain")


def figures(quick: bool, data: Path | None = None, *, evaluations: int = 300_000, seeds: int = 8) -> Iterator[dict]:
    """The figures of this part."""
    if quick:
        evaluations, seeds = 20_000, 2
    values: dict[Mode, list[list[float]]] = {"quantum": [], "exchange": [], "plain": []}
    names = []
    for name, problem, goal in cases(data):
        names.append(name)
        for mode, rows in values.items():
            rows.append([solved(problem, goal, mode, evaluations, seed) for seed in range(1, seeds + 1)])
    quantum = np.array(values["quantum"])
    for other in OTHERS:
        theirs = np.array(values[other])
        loss = ((quantum - theirs) / theirs).mean(axis=1)  # of each case; below 0 tunnelling is better
        p = float(wilcoxon(loss).pvalue) if np.any(loss) else 1.0
        each = ", ".join(f"{name} {100 * one:+.2f}" for name, one in zip(names, loss, strict=True))
        yield {
            "figure": f"tunnelling_against_{other}", "value": round(100 * float(loss.mean()), 3),
            "unit": "% of the goal's value, less is better", "target": "< 0 with p < 0.05",
            "holds": bool(loss.mean() < 0 and p < 0.05),
            "note": f"p = {p:.3f} (Wilcoxon, {len(names)} cases, {seeds} seeds, {evaluations} evaluations); {each}",
        }  # fmt: skip
    exchange, plain = np.array(values["exchange"]), np.array(values["plain"])
    loss = ((exchange - plain) / plain).mean(axis=1)
    p = float(wilcoxon(loss).pvalue) if np.any(loss) else 1.0
    yield {
        "figure": "exchange_against_plain", "value": round(100 * float(loss.mean()), 3),
        "unit": "% of the goal's value, less is better", "target": "< 0 with p < 0.05",
        "holds": bool(loss.mean() < 0 and p < 0.05), "note": f"p = {p:.3f}",
    }  # fmt: skip


def cases(data: Path | None) -> Iterator[tuple[str, Problem, Goal]]:
    """(name, problem, goal)"""
    ceramic = load_problem(REPO / "examples" / "ceramic.json")
    yield "ceramic makespan", ceramic, Goal(("makespan",))
    yield "ceramic energy", ceramic, Goal(("energy",))
    yield "ceramic energy within 35 h", ceramic, Goal(("energy",), limits={"makespan": 70})
    for file in sorted(data.rglob("*mk*.fjs")) if data else []:
        if file.stem.lower()[-4:] <= "mk10":
            yield file.stem, load_problem(file), Goal(("makespan",))


def solved(problem: Problem, goal: Goal, mode: Mode, evaluations: int, seed: int) -> float:
    """The final value of one run; without a plan within the limits, that of the first rule's plan."""
    budget = Budget(seconds=1e9, evaluations=evaluations, workers=1)
    found = Annealing(mode=mode).solve(problem, goal=goal, budget=budget, seed=seed)
    if not found.plans:
        found = Annealing(mode=mode).solve(problem, goal=Goal(goal.order), budget=Budget(evaluations=16), seed=seed)
    return found.objective[KEY[goal.order[0]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--evaluations", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--data", type=Path, default=None, help="folder with Brandimarte's instances")
    options = parser.parse_args()
    for line in figures(options.quick, options.data, evaluations=options.evaluations, seeds=options.seeds):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
