"""Workshops for benchmarks: the published cell under three readings of its transport, and a generator of others.

readings()["one transport per task on one of 2 vehicles"]
workshop(seed, jobs=12)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from messages.dispatch.shop import Shop, Station, Step, Work, shop_from
from messages.instances import load_problem

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

TICK_S = 0.1
HOUR_TICKS = 3600 / TICK_S
GROUPS = ("turning", "milling", "engraving")
MACHINES = tuple(f"{group}-{n}" for group in GROUPS for n in (1, 2))
OPTIMA_S = {
    "transport occupies the machine of the first operation": 288.4,
    "one transport per task on one of 2 vehicles": 462.9,
    "a lag before every operation": 283.5,
}
"""Makespans of the published cell that CP-SAT proves, by reading."""
FILES = {
    "transport occupies the machine of the first operation": "workshop_occupying.json",
    "one transport per task on one of 2 vehicles": "workshop_vehicles.json",
    "a lag before every operation": "workshop_lag.json",
}


def readings() -> dict[str, Shop]:
    """The cell (table 1 of doi:10.11959/j.issn.2096-3750.2025.00468: 12 tasks, 28 operations) under the three readings
    of its transport, as `examples/` writes them out."""
    return {reading: shop_from(load_problem(EXAMPLES / file)) for reading, file in FILES.items()}


def workshop(seed: int, *, jobs: int) -> Shop:
    """Unrelated machines: 3 groups of 2, every job once through each group in an order of its own.

    An operation has a base time from U[20, 100) s and takes base × a factor from U[0.6, 1.7) of its own on each machine
    of its group, in ticks of 0.1 s, rounded. Drawn by numpy's PCG64 in this order, each in one call: base times
    (jobs, 3), factors (jobs, 3, 2), routes by the order of random keys (jobs, 3).
    """
    rng = np.random.default_rng(seed)
    base = rng.uniform(20, 100, (jobs, 3))
    factor = rng.uniform(0.6, 1.7, (jobs, 3, 2))
    routes = np.argsort(rng.random((jobs, 3)), axis=1, kind="stable")
    ticks = np.rint(base[:, :, None] * factor / TICK_S).astype(int)
    return Shop(
        machines={name: Station() for name in MACHINES},
        jobs={
            f"j{j:02d}": Work(
                tuple(
                    Step({MACHINES[2 * group + k]: int(ticks[j, n, k]) for k in range(2)})
                    for n, group in enumerate(routes[j].tolist())
                )
            )
            for j in range(jobs)
        },
        hour_ticks=HOUR_TICKS,
    )
