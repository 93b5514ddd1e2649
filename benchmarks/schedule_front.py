"""The ceramic line: how soon 27 h is proved, what a foreman's rule makes of it, what its exact front costs.

    python benchmarks/schedule_front.py [--quick] [--seed 1]

One JSON line per figure. The peer is CP-SAT on the same model without the redundant load and stage lines, in the
same run and with the same threads. `--quick` leaves the exact front out. Times are of the wall from the parsed problem
to the judged plan; `cpu_s` beside them says what they cost on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from cloud.scheduling import Budget, CpSat, Dispatch, Goal, front  # noqa: E402
from messages.instances import load_problem  # noqa: E402
from messages.judge import violations  # noqa: E402

PEER_S = 30.0
FRONT_S = 120.0
WORKERS = 2


def figures(quick: bool, data: Path | None = None, seed: int = 1) -> Iterator[dict[str, Any]]:
    """One dictionary per figure; `data` is not needed."""
    problem = load_problem(REPO / "examples" / "ceramic.json")
    rule = Dispatch().solve(problem)
    fifo_h = problem.in_unit(rule.objective["makespan"])
    yield _figure("ceramic_fifo_makespan", fifo_h, "h", "33", fifo_h == 33)

    ten = Budget(10, workers=WORKERS)
    began = time.process_time()
    ours = CpSat().solve(problem, budget=ten, seed=seed)
    cpu_s = time.process_time() - began
    plain = CpSat(redundant=False).solve(problem, budget=Budget(PEER_S, workers=WORKERS), seed=seed)
    best_h = problem.in_unit(ours.objective["makespan"])
    ratio = round(fifo_h / best_h, 3)
    yield _figure("ceramic_makespan", best_h, "h", "27", best_h == 27, peer=fifo_h, ratio=ratio, note="FIFO")
    yield _figure(
        "ceramic_time_to_proof",
        round(ours.runtime_s, 2),
        "s",
        "< 2, proved",
        ours.status == "optimal" and ours.runtime_s < 2,
        peer=round(plain.runtime_s, 2),
        ratio=round(plain.runtime_s / ours.runtime_s, 1),
        cpu_s=round(cpu_s, 2),
        note=f"CP-SAT without the redundant lines: {plain.status}",
    )
    spare = CpSat().solve(problem, goal=Goal(("makespan", "energy")), budget=ten, seed=seed)
    kgce, plain_kgce = spare.objective["energy_kgce"], ours.objective["energy_kgce"]
    yield _figure(
        "ceramic_energy_at_least_makespan",
        round(kgce, 1),
        "kgce",
        "<= 3910 in 10 s",
        kgce <= 3910 and spare.objective["makespan"] == ours.objective["makespan"],
        peer=round(plain_kgce, 1),
        ratio=round(plain_kgce / kgce, 3),
        note=f"makespan alone; {spare.status}",
    )
    if quick:
        return
    began = time.process_time()
    found = front(problem, measures=("makespan", "energy"), budget=Budget(FRONT_S, workers=WORKERS), seed=seed)
    valid = all(violations(problem, plan) == [] for plan in found.plans)
    whole = sum(problem.in_unit(plan.objectives["makespan"]) % 1 == 0 for plan in found.plans)
    yield _figure(
        "ceramic_front_points",
        whole,
        "plans",
        f"19 that end at whole hours, all proved in {FRONT_S:g} s",
        whole == 19 and found.status == "optimal" and valid,
        seconds=round(found.runtime_s, 1),
        cpu_s=round(time.process_time() - began, 1),
        note=f"{found.status}; {len(found.plans) - whole} more end at half hours, since preheating takes one",
    )


def _figure(name: str, value: float, unit: str, target: str, holds: bool, **more: object) -> dict[str, Any]:
    return {"figure": name, "value": value, "unit": unit, "target": target, "holds": holds, **more}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: without the exact front")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for line in figures(options.quick, seed=options.seed):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
