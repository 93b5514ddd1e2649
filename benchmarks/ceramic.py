"""The ceramic line: how soon 27 h is proved, what a foreman's rule makes of it, what its exact front costs.

    python benchmarks/ceramic.py [--quick] [--file examples/ceramic.json] [--workers 2] [--seed 1]

One JSON line per figure. The peer is CP-SAT on the same model without the redundant load and stage lines, in the
same run and with the same threads. `--quick` leaves the exact front out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from cloud.scheduling import Budget, CpSat, Dispatch, front, plan_with_energy  # noqa: E402
from messages.instances import load_problem  # noqa: E402

PEER_S = 30.0
FRONT_S = 240.0


def figure(name: str, value: float, unit: str, target: str, holds: bool, **more: object) -> None:
    """Print one figure."""
    line = {"figure": name, "value": value, "unit": unit, "target": target, "holds": holds, **more}
    print(json.dumps(line), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: without the exact front")
    parser.add_argument("--file", type=Path, default=REPO / "examples" / "ceramic.json")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    problem = load_problem(options.file)

    rule = Dispatch().solve(problem)
    fifo_h = problem.in_unit(rule.objective["makespan"])
    figure("ceramic_fifo_makespan", fifo_h, "h", "33", fifo_h == 33)

    ten = Budget(10, workers=options.workers)
    ours = CpSat().solve(problem, budget=ten, seed=options.seed)
    longer = Budget(PEER_S, workers=options.workers)
    plain = CpSat(redundant=False).solve(problem, budget=longer, seed=options.seed)
    best_h = problem.in_unit(ours.objective["makespan"])
    figure(
        "ceramic_makespan", best_h, "h", "27", best_h == 27, peer=fifo_h, ratio=round(fifo_h / best_h, 3), note="FIFO"
    )
    proved = ours.status == "optimal"
    figure(
        "ceramic_time_to_proof",
        round(ours.runtime_s, 2),
        "s",
        "< 5, proved",
        proved and ours.runtime_s < 5,
        peer=round(plain.runtime_s, 2),
        ratio=round(plain.runtime_s / ours.runtime_s, 1),
        note=f"CP-SAT without the redundant lines: {plain.status}",
    )
    spare = plan_with_energy(problem, budget=ten, seed=options.seed)
    kgce, plain_kgce = spare.objective["energy_kgce"], ours.objective["energy_kgce"]
    figure(
        "ceramic_energy_at_least_makespan",
        round(kgce, 1),
        "kgce",
        "<= 3910 in 10 s",
        kgce <= 3910 and spare.objective["makespan"] == ours.objective["makespan"],
        peer=round(plain_kgce, 1),
        ratio=round(plain_kgce / kgce, 3),
        note=f"makespan alone; {spare.status}",
    )
    if options.quick:
        return
    found = front(
        problem,
        measures=("makespan", "energy"),
        budget=Budget(FRONT_S, workers=options.workers),
        seed=options.seed,
    )
    figure(
        "ceramic_front_points",
        len(found.plans),
        "plans",
        "19, all proved",
        len(found.plans) == 19 and found.status == "optimal",
        note=f"{found.status} in {found.runtime_s:.0f} s",
    )


if __name__ == "__main__":
    main()
