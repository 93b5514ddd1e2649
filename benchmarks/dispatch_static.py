"""Dispatching with everything known: the published cell, and generated workshops against the best that is known.

    python benchmarks/dispatch_static.py [--quick] [--cell] [--shops 100] [--iterations 20000] [--reference 10]

The cell (`_workshops.readings`): makespan, mean waiting and mean utilisation (as `messages.dispatch.decode` defines
them) of every judge under three readings of its transport. Tree search minimises makespan + 0.1 mean waiting and must
reach the proved optimum of the makespan.

Workshops (`_workshops.workshop`) of 6, 12 and 24 jobs: the judge runs the shop to its end with so many iterations per
decision. Its share of what is to be gained is Σ(FIFO - judge) / Σ(FIFO - best known) over the shops, with a 95 %
bootstrap interval. Best known: the least of the judge's and that of CP-SAT, begun with the judge's, after `--reference`
seconds with two threads; how much of it CP-SAT's bound proves is stated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from _figures import ratio_interval  # noqa: E402
from _rolling import exact  # noqa: E402
from _workshops import OPTIMA_S, TICK_S, readings, workshop  # noqa: E402

from cloud.dispatch import ByRule, Mcts  # noqa: E402
from messages.dispatch.check import faults  # noqa: E402
from messages.dispatch.decode import Weights  # noqa: E402
from messages.dispatch.judge import Judge  # noqa: E402
from messages.dispatch.rules import RULES  # noqa: E402
from messages.dispatch.shop import Shop  # noqa: E402
from messages.dispatch.simulate import Course, Outcome, simulate  # noqa: E402
from messages.dispatch.state import begin  # noqa: E402

SIZES = (6, 12, 24)
CELL_ITERATIONS = 2_000
CELL_WEIGHTS = Weights(waiting=0.1)


def figures(
    quick: bool, *, cell: bool = False, shops: int = 100, iterations: int = 20_000, reference_s: float = 10.0
) -> Iterator[dict[str, Any]]:
    """One dictionary per figure."""
    if quick:
        shops, iterations, reference_s = 3, 10_000, 2.0
    yield from _cell()
    for jobs in () if cell else SIZES:
        yield from _generated(jobs, shops, iterations, reference_s)


def _cell() -> Iterator[dict[str, Any]]:
    judges: list[Judge] = [*_rules().values(), Mcts(iterations=CELL_ITERATIONS)]
    for number, (reading, shop) in enumerate(readings().items(), 1):
        for judge in judges:
            outcome = _run(shop, judge, CELL_WEIGHTS)
            found = outcome.measures
            best = OPTIMA_S[reading]
            searched = isinstance(judge, Mcts)
            yield {
                "figure": f"cell_reading_{number}_{judge.model_dump()['kind']}",
                "value": round(found.makespan * TICK_S, 1),
                "unit": "s",
                "target": f"= {best}" if searched else "stated",
                "holds": not searched or abs(found.makespan * TICK_S - best) < 1e-6,
                "note": f"{reading}; mean waiting {found.waiting * TICK_S:.1f} s, "
                f"mean utilisation {100 * found.utilisation:.1f} %",
            }


def _generated(jobs: int, shops: int, iterations: int, reference_s: float) -> Iterator[dict[str, Any]]:
    gained, possible, bounds, worse, proved = [], [], [], 0, 0
    by_rule: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(shops):
        shop = workshop(seed, jobs=jobs)
        values = {name: _run(shop, judge).measures.makespan for name, judge in _rules().items()}
        outcome = _run(shop, Mcts(iterations=iterations))
        ours = outcome.measures.makespan
        sequence = [(bid.job, bid.machine) for bid in sorted(outcome.bids, key=lambda bid: (bid.start, bid.op))]
        reference = exact(begin(shop), Weights(), reference_s, hint=sequence, workers=2)
        best = min(ours, reference.value)
        gained.append(values["fifo"] - ours)
        possible.append(values["fifo"] - best)
        bounds.append(reference.bound / best)
        proved += reference.bound >= best - 0.5
        worse += ours > min(values.values())
        for name, value in values.items():
            by_rule[name].append(value / best)
    share, low, high = ratio_interval(gained, possible)
    rules = ", ".join(f"{name} +{100 * (sum(of) / len(of) - 1):.1f} %" for name, of in by_rule.items())
    yield {
        "figure": f"static_share_{jobs}_jobs",
        "value": round(share, 1),
        "unit": "%",
        "target": ">= 90",
        "holds": share >= 90,
        "note": f"95 % interval {low:.1f} to {high:.1f}; {shops} shops, {iterations} iterations per decision; best "
        f"known proved optimal in {proved}, CP-SAT's bound is {100 * sum(bounds) / len(bounds):.1f} % of it; "
        f"rules above it: {rules}",
    }
    yield {
        "figure": f"static_worse_than_a_rule_{jobs}_jobs",
        "value": worse,
        "unit": "shops",
        "target": "= 0",
        "holds": worse == 0,
        "note": f"of {shops}",
    }


def _rules() -> dict[str, ByRule]:
    return {name: ByRule.model_validate({"kind": name}) for name in RULES}


def _run(shop: Shop, judge: Judge, weights: Weights | None = None) -> Outcome:
    outcome = simulate(Course(shop, shop), judge, weights or Weights(), seed=1)
    if found := faults(shop, outcome.bids):
        raise SystemExit(f"{judge!r} made a schedule that cannot be carried out: {found[0]}")
    return outcome


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 shops of each size, 10,000 iterations")
    parser.add_argument("--cell", action="store_true", help="the published cell alone")
    parser.add_argument("--shops", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20_000, help="per decision")
    parser.add_argument("--reference", type=float, default=10.0, help="seconds of CP-SAT per shop, two threads")
    options = parser.parse_args()
    asked = {"shops": options.shops, "iterations": options.iterations, "reference_s": options.reference}
    for one in figures(options.quick, cell=options.cell, **asked):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
