"""What waiting for a cleaner hour gains: the judge as it is beside one that begins everything as soon as it can.

    python benchmarks/dispatch_carbon.py [--quick] [--shops 40] [--iterations 2000]

Workshops (`_workshops.workshop`) of 6 and 12 jobs, their ticks taken as a tenth of a minute: operations of 12 to 170
minutes that draw 5, 15 or 40 kW, in a grid whose carbon swings between 0.15 and 0.45 kg/kWh once a day, from an hour
drawn per shop on. Both judges minimise makespan + weight x carbon with the same iterations per decision, and run each
shop to its end. A value below 100 % is the share of the other's that is left; 95 % bootstrap intervals over shops.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from _figures import ratio_interval  # noqa: E402
from _workshops import workshop  # noqa: E402

from cloud.dispatch import Mcts  # noqa: E402
from messages.curve import Curve  # noqa: E402
from messages.dispatch.check import faults  # noqa: E402
from messages.dispatch.cleaner import Later  # noqa: E402
from messages.dispatch.decode import Measures, Weights  # noqa: E402
from messages.dispatch.shop import Shop  # noqa: E402
from messages.dispatch.simulate import Course, simulate  # noqa: E402
from messages.dispatch.state import Bid, State  # noqa: E402

HOUR = 600
"""Ticks."""
WEIGHTS = (10.0, 50.0, 250.0)
"""Ticks that a kg is worth: 1, 5 and 25 minutes."""


class AtOnce(Mcts):
    """The same, and nothing waits."""

    def later(self, state: State, weights: Weights, sequence: Sequence[Any], awards: Sequence[Bid]) -> Later | None:
        """Nothing."""
        return None


def electric(seed: int, jobs: int) -> Shop:
    """A workshop that draws power."""
    rng, shop = np.random.default_rng([seed, 1]), workshop(seed, jobs=jobs)
    works = {}
    for name, work in shop.jobs.items():
        draws = [float(kw) for kw in rng.choice([5.0, 15.0, 40.0], len(work.steps))]
        steps = (replace(step, kw=dict.fromkeys(step.ticks, kw)) for step, kw in zip(work.steps, draws, strict=True))
        works[name] = replace(work, steps=tuple(steps))
    first = int(rng.integers(24))
    values = tuple(round(0.30 + 0.15 * math.cos(math.pi * (first + hour) / 12), 4) for hour in range(24))
    grid = Curve(step=HOUR, values=values, periodic=True)
    return replace(shop, jobs=works, hour_ticks=float(HOUR), carbon={"electricity": grid})


def figures(quick: bool, *, shops: int = 40, iterations: int = 2_000) -> Iterator[dict[str, Any]]:
    """One dictionary per figure."""
    if quick:
        shops = 4
    for jobs in (6, 12):
        for weight in WEIGHTS:
            yield _compared(jobs, Weights(carbon=weight), shops, iterations)


def _compared(jobs: int, weights: Weights, shops: int, iterations: int) -> dict[str, Any]:
    waits, begins = list[Measures](), list[Measures]()
    for seed in range(shops):
        shop = electric(seed, jobs)
        waits.append(_run(shop, Mcts(iterations=iterations), weights))
        begins.append(_run(shop, AtOnce(iterations=iterations), weights))
    share, low, high = ratio_interval(*([one.value(weights) for one in side] for side in (waits, begins)))
    carbon, *_ = ratio_interval(*([one.carbon_kg for one in side] for side in (waits, begins)))
    makespan, *_ = ratio_interval(*([float(one.makespan) for one in side] for side in (waits, begins)))
    return {
        "figure": f"waiting_for_carbon_{jobs}_jobs_weight_{weights.carbon:g}",
        "value": round(share, 1),
        "unit": "%",
        "target": "<= 100",
        "holds": share <= 100,
        "note": f"95 % interval {low:.1f} to {high:.1f}; {shops} shops; carbon {carbon:.1f} %, "
        f"makespan {makespan:.1f} %",
    }


def _run(shop: Shop, judge: Mcts, weights: Weights) -> Measures:
    outcome = simulate(Course(shop, shop), judge, weights, seed=1)
    if found := faults(shop, outcome.bids):
        raise SystemExit(f"{judge!r} made a schedule that cannot be carried out: {found[0]}")
    return outcome.measures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 shops of each size")
    parser.add_argument("--shops", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=2_000, help="per decision")
    options = parser.parse_args()
    for one in figures(options.quick, shops=options.shops, iterations=options.iterations):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
