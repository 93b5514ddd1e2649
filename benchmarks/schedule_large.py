"""Large shops: time to the first plan, the share of rules' gap to the load bound that is closed, PyJobShop beside it.

    python benchmarks/schedule_large.py [--quick] [--seconds 60] [--seeds 1,2,3]

Shops are drawn by `_shops.random_shop` (1000 jobs x 10 operations on 100 machines, 3 alternatives, +-50 % speeds). The
bound is the load bound of `cloud.scheduling.bounds` (any prices of machine time prove it); rules are FIFO, SPT, LPT,
MWKR and LWKR with earliest completion, the best of them. Closed is (rule - plan) / (rule - bound). The first plan is
timed in a new process, imports done, from the parsed problem to the judged plan, with compiled kernels in their cache.
PyJobShop (CP-SAT) gets the same seconds and the same two threads after us; its time to build the model is not counted.
The ratio is our makespan to its.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from _shops import random_shop

from cloud.scheduling import Budget, Dispatch
from cloud.scheduling.large import Large
from messages.judge import violations
from messages.problem import Problem

HERE = Path(__file__).parent
FULL = {"jobs": 1000, "operations": 10, "machines": 100}
SMALL = {"jobs": 200, "operations": 10, "machines": 20}
RULES = ("fifo", "spt", "lpt", "mwkr", "lwkr")
WORKERS = 2
FIRST = """
import sys, time, json
sys.path.insert(0, sys.argv[1])
from _shops import random_shop
from cloud.scheduling import Budget
from cloud.scheduling.large import Large
from messages.problem import Problem
problem = Problem.model_validate_json(random_shop(int(sys.argv[2]), **json.loads(sys.argv[3])).model_dump_json())
for again in (problem, problem.model_copy()):
    began, cpu = time.perf_counter(), time.process_time()
    result = Large().solve(again, budget=Budget(seconds=0, workers=1), seed=1)
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu, result.objective["makespan"]]))
"""


def figures(
    quick: bool, data: Path | None = None, *, seconds: float = 60.0, seeds: tuple[int, ...] = (1,)
) -> Iterator[dict]:
    """The figures of this part. `data` is not needed."""
    size = SMALL if quick else FULL
    seconds = min(seconds, 10.0) if quick else seconds
    name = "{jobs} x {operations} on {machines}".format(**size)
    yield from first_plans(size, name, seeds)
    for seed in seeds:
        yield from closed(random_shop(seed, **size), f"{name}, seed {seed}", seconds)


def first_plans(size: dict[str, int], name: str, seeds: tuple[int, ...]) -> Iterator[dict]:
    """In new processes; once before, so that kernels are compiled."""
    rows = []
    for seed in (seeds[0], *seeds):
        words = [sys.executable, "-c", FIRST, str(HERE), str(seed), json.dumps(size)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=HERE.parent)
        rows.append([json.loads(line) for line in done.stdout.splitlines()])
    (wall, cpu, value), (again, again_cpu, _) = max(rows[1:], key=lambda row: row[0][0])
    note = (
        f"CPU {cpu:.2f} s; in a process that has solved before {again:.2f} s, CPU {again_cpu:.2f} s; makespan {value:g}"
    )
    yield figure(f"first plan, {name}", round(wall, 3), "s", 1.0, wall < 1.0, note=note)


def closed(problem: Problem, name: str, seconds: float) -> Iterator[dict]:
    """How far we come, and PyJobShop after us."""
    began = time.perf_counter()
    by_rule = {rule: Dispatch(rule=rule).solve(problem).plans[0].objectives["makespan"] for rule in RULES}
    rules_s = time.perf_counter() - began
    rule = min(by_rule, key=lambda one: by_rule[one])
    result = Large().solve(problem, budget=Budget(seconds=seconds, workers=WORKERS), seed=1)
    plan = result.plans[0]
    if violations(problem, plan):
        raise SystemExit(f"the plan cannot be carried out: {violations(problem, plan)[:3]}")
    ours, bound, best = plan.objectives["makespan"], float(result.bound or 0.0), by_rule[rule]
    peer, theirs = pyjobshop(problem, seconds)

    def share(makespan: float) -> float:
        return (best - makespan) / (best - bound)

    yield figure(
        f"best rule above the load bound, {name}",
        round(100 * (best / bound - 1), 2),
        "%",
        note=f"{rule} {best:g}, bound {bound:g}; all rules {rules_s:.1f} s",
    )
    way = [(event.at_s, event.value) for event in result.history if event.kind == "incumbent"]
    early = ", ".join(
        f"{100 * share(value):.1f} % at {at:.1f} s" for at, value in (way[0], way[len(way) // 2], way[-1])
    )
    more = {}
    if theirs is not None:
        peer += f", makespan {theirs:g}: {100 * share(theirs):.1f} %"
        more = {"ratio": round(ours / theirs, 4)}
    yield figure(
        f"closed of rule - bound in {seconds:g} s, {name}",
        round(100 * share(ours), 2),
        "%",
        50.0,
        share(ours) >= 0.5,
        note=f"makespan {ours:g}; {early}; {result.evaluations / result.runtime_s:.0f} plans/s on {WORKERS} threads",
        peer=peer,
        **more,
    )


def pyjobshop(problem: Problem, seconds: float) -> tuple[str, float | None]:
    """(what PyJobShop with CP-SAT did, its makespan or None)."""
    try:
        from pyjobshop import Model
    except ImportError:
        return "PyJobShop is not installed", None
    model = Model()
    machines = {machine.id: model.add_machine(name=machine.id) for machine in problem.machines}
    for job in problem.jobs:
        before = None
        own = model.add_job(name=job.id)
        for step in job.operations:
            task = model.add_task(job=own, name=f"{job.id}/{step.op}")
            for machine, ticks in step.alternatives.items():
                model.add_mode(task, machines[machine], duration=ticks)
            if before is not None:
                model.add_end_before_start(before, task)
            before = task
    result = model.solve(solver="ortools", time_limit=seconds, num_workers=WORKERS, display=False)
    did = f"PyJobShop, {result.runtime:.0f} s, {WORKERS} threads: {result.status.value}"
    if result.status.value not in ("Optimal", "Feasible"):
        return f"{did}, no plan found", None
    return did, float(result.objective)


def figure(name: str, value: float, unit: str, target: float | None = None, holds: bool | None = None, **more) -> dict:
    return {"figure": name, "value": value, "unit": unit, "target": target, "holds": holds, **more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the shop and 10 s")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", default="1", help="of the shops, 1,2,3")
    asked = parser.parse_args()
    seeds = tuple(int(seed) for seed in asked.seeds.split(","))
    for one in figures(asked.quick, None, seconds=asked.seconds, seeds=seeds):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
