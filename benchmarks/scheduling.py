"""The scheduling engine against its peers: every figure of every part, one JSON line each.

    python benchmarks/scheduling.py [--quick] [--only makespan,pareto,…] [--data DIR]

Parts, each a program of its own (`benchmarks/schedule_<part>.py`):

    kernel    evaluations per second, growth with the number of operations, cold start
    makespan  mk01 to mk15 beside PyJobShop and plain CP-SAT
    front     the exact makespan × energy front of the ceramic line
    pareto    fronts in 10 s beside pymoo's NSGA-II and the paper's grey wolves
    ablation  what tunnelling is worth in annealing
    carbon    start times by the carbon of the hour, against a proved bound
    large     1,000 jobs on 100 machines beside PyJobShop
    replan    after breakdowns: how fast, how much worse than starting afresh, how nervous

Peers run in the same process and time as ours, with two threads in all. `--data` holds the public instances.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

PARTS = ("kernel", "makespan", "front", "pareto", "ablation", "carbon", "large", "replan")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some seconds per part, fewer seeds")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data", help="public instances")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        parser.error(f"--only {unknown[0]}: unknown; there are {', '.join(PARTS)}")
    for part in wanted:
        module = importlib.import_module(f"schedule_{part}")
        for line in module.figures(options.quick, options.data):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
