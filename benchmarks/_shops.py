"""Shops for benchmarks, drawn from published generators: one seed and the same arguments give the same shop everywhere.

random_shop(1, jobs=1000, operations=10, machines=100, alternatives=3, spread=0.5)
"""

from __future__ import annotations

import numpy as np

from messages.problem import Job, Machine, Operation, Problem


def random_shop(
    seed: int,
    *,
    jobs: int = 1000,
    operations: int = 10,
    machines: int = 100,
    alternatives: int = 3,
    spread: float = 0.5,
    shortest: float = 10.0,
    longest: float = 100.0,
) -> Problem:
    """A flexible job shop of unrelated machines, everything uniform and independent.

    Each operation has a base time in [shortest, longest) and `alternatives` different machines out of all; on each of
    them it takes base · factor ticks, rounded, at least 1, the factor in [1 - spread, 1 + spread) being drawn per
    operation and machine. No releases, due dates or powers. Drawn by numpy's PCG64 in this order, each in one call:
    base times (jobs, operations), machines by the least of random keys (jobs, operations, machines), factors.
    """
    rng = np.random.default_rng(seed)
    base = rng.uniform(shortest, longest, (jobs, operations))
    keys = rng.random((jobs, operations, machines), dtype=np.float32)
    able = np.argsort(keys, axis=2, kind="stable")[:, :, :alternatives]
    factor = rng.uniform(1 - spread, 1 + spread, (jobs, operations, alternatives))
    ticks = np.maximum(1, np.rint(base[:, :, None] * factor)).astype(np.int64)
    names = [f"m{m:03d}" for m in range(machines)]
    return Problem(
        name=f"random {jobs} x {operations} on {machines}, {alternatives} alternatives, +-{spread:.0%}, seed {seed}",
        machines=tuple(Machine(id=name) for name in names),
        jobs=tuple(
            Job(
                id=str(j),
                operations=tuple(
                    Operation(
                        op=k,
                        alternatives={
                            names[m]: t for m, t in zip(able[j, k].tolist(), ticks[j, k].tolist(), strict=True)
                        },
                    )
                    for k in range(operations)
                ),
            )
            for j in range(jobs)
        ),
    )
