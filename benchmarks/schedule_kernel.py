"""Compiled kernels: evaluations per second, how they grow, time to the first plan, and what compiling costs.

    python benchmarks/schedule_kernel.py [--quick]

One evaluation of the ceramic line is all of it: random keys to an order, every operation to the machine that completes
it earliest, idle or off in every gap, makespan and energy. `shifted` moves operations right as well, and reads energy
again. CPU time of one thread, best of five runs. Larger shops are drawn by `_shops.random_shop`; growth is the exponent
of time in the number of operations between the smallest and the largest. Cold: in a new process with an empty cache.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _shops import random_shop

from cloud.scheduling.compiled import compiled
from cloud.scheduling.decode import key_order, shift_right
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.evaluate import evaluate
from cloud.scheduling.measure import packed, scratch_of
from cloud.scheduling.shop import shop_of
from messages.instances import load_problem

HERE = Path(__file__).parent
CERAMIC = HERE.parent / "examples" / "ceramic.json"
TARGET = 200_000
COMPILE = """
import sys, time
began, cpu = time.perf_counter(), time.process_time()
from cloud.scheduling.dispatch import Dispatch
from messages.instances import load_problem
problem = load_problem(sys.argv[1])
from cloud.scheduling.decode import decode, decode_active, shift_right
from cloud.scheduling.evaluate import evaluate
from cloud.scheduling.measure import measures, packed, scratch_of
from cloud.scheduling.shop import draft_of, shop_of
import numpy as np
imported, imported_cpu = time.perf_counter() - began, time.process_time() - cpu
plan = Dispatch().solve(problem).plans[0]
shop, names = shop_of(problem)
draft, one, room = draft_of(shop, names, plan), packed(shop), scratch_of(shop)
order, choice = shop.op_job.copy(), np.full(shop.operations, -1, np.int32)
measures(shop, draft.machine, draft.start, draft.off)
decode(one, room, order, choice, draft.machine, draft.start)
decode_active(one, room, order, choice, draft.machine, draft.start)
evaluate(one, room, order, choice, draft.machine, draft.start, np.zeros(3))
shift_right(one, room, draft.machine, draft.start, 10**9)
print([imported, imported_cpu, time.perf_counter() - began, time.process_time() - cpu])
"""


def figures(quick: bool, data: Path | None = None) -> Iterator[dict]:
    """The figures of this part. `data` is not needed."""
    yield from ceramic(200 if quick else 1000)
    yield from larger((100, 1_000, 10_000) if quick else (100, 1_000, 10_000, 100_000))
    yield from compiling()


def ceramic(count: int) -> Iterator[dict]:
    """Sixty operations."""
    shop, _ = shop_of(load_problem(CERAMIC))
    keys = np.random.default_rng(1).random((count, shop.operations))
    for name, shifted in (("evaluations", False), ("evaluations, shifted", True)):
        rate = _rate(shop, keys, 50, shifted)
        target = None if shifted else TARGET
        yield figure(f"kernel {name}, ceramic, 60 operations", round(rate), "1/s per core", target)


def larger(sizes: tuple[int, ...]) -> Iterator[dict]:
    """Ten operations a job, ten jobs a machine, from 100 operations on."""
    took, first = [], []
    for size in sizes:
        machines = min(100, max(10, size // 100))
        problem = random_shop(1, jobs=size // 10, operations=10, machines=machines)
        began = time.process_time()
        result = Dispatch().solve(problem)
        first.append(time.process_time() - began)
        shop, _ = shop_of(problem)
        keys = np.random.default_rng(1).random((max(2, 20_000 // size), size))
        rate = _rate(shop, keys, 1, False)
        took.append(1 / rate)
        yield figure(f"kernel evaluations, {size} operations", round(rate, 1), "1/s per core")
        note = f"fifo, from the parsed problem to the judged plan, CPU; makespan {result.objective['makespan']:g}"
        yield figure(f"first plan, {size} operations", round(first[-1], 4), "s", note=note)
    span = math.log(sizes[-1] / sizes[0])
    growth = math.log(took[-1] / took[0]) / span
    yield figure("kernel growth: time of an evaluation ~ operations ^", round(growth, 2), "", note=f"{sizes}")
    growth = math.log(first[-1] / first[0]) / span
    yield figure("first plan growth: time ~ operations ^", round(growth, 2), "", note=f"{sizes}")


def compiling() -> Iterator[dict]:
    """In new processes: first without a cache, then with it."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (_child(cache) for _ in range(2))
    what = "all kernels of rules, decoding, measures and shifting"
    note = f"{what}, with imports and first calls; CPU {cold[3]:.1f} s"
    yield figure("kernels compiled in a new process", round(cold[2], 2), "s", 30, note=note)
    note = f"{what}, from the cache, with imports ({warm[0]:.2f} s) and first calls; CPU {warm[3]:.2f} s"
    yield figure("kernels loaded in a new process", round(warm[2], 2), "s", note=note)


def figure(name: str, value: float, unit: str, target: float | None = None, *, note: str = "") -> dict:
    """One line of output; a rate holds from its target on, a time up to it."""
    holds = None if target is None else value >= target if unit.startswith("1/s") else value <= target
    return {"figure": name, "value": value, "unit": unit, "target": target, "holds": holds, "note": note}


@compiled
def _judge_all(shop: Any, scratch: Any, keys: Any, rounds: int, shifted: bool) -> float:
    """The least energy of the orders that these keys stand for."""
    operations = keys.shape[1]
    order, choice = np.empty(operations, np.int32), np.full(operations, -1, np.int32)
    machine, start, out = np.empty(operations, np.int32), np.empty(operations, np.int64), np.empty(3)
    least = np.inf
    for _ in range(rounds):
        for k in range(len(keys)):
            key_order(keys[k], shop.job_first, order)
            evaluate(shop, scratch, order, choice, machine, start, out)
            energy = out[2]
            if shifted:
                energy -= shift_right(shop, scratch, machine, start, int(out[0]))
            least = min(least, energy)
    return least


def _rate(shop: Any, keys: Any, rounds: int, shifted: bool) -> float:
    one, room = packed(shop), scratch_of(shop)
    _judge_all(one, room, keys[:1], 1, shifted)

    def once() -> None:
        _judge_all(one, room, keys, rounds, shifted)

    return len(keys) * rounds / min(_cpu(once) for _ in range(5))


def _cpu(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return max(time.process_time() - began, 1e-9)


def _child(cache: str) -> list[float]:
    words = [sys.executable, "-c", COMPILE, str(CERAMIC)]
    env = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=HERE.parent, env=env)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    for line in figures(parser.parse_args().quick):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
