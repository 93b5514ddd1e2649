"""Workshops for benchmarks: the published cell under three readings of its transport, and a generator of others.

readings()["one transport per task on one of 2 vehicles"]
workshop(seed, jobs=12)
"""

from __future__ import annotations

import numpy as np

from messages.dispatch.shop import Shop, Station, Step, Work

TICK_S = 0.1
HOUR_TICKS = 3600 / TICK_S
GROUPS = ("turning", "milling", "engraving")
ROUTES = {
    "a": (("milling", 12.3), ("turning", 15.6), ("engraving", 13.3)),
    "b": (("turning", 20.0), ("milling", 5.3)),
    "c": (("engraving", 10.6), ("milling", 7.3)),
}
"""Seconds."""
TASKS = tuple(
    (order, route) for order, routes in {"01": "aabcb", "02": "accc", "03": "cac"}.items() for route in routes
)
"""(order, route) of T1 to T12."""
TRIP_S = {"01": 70.0, "02": 75.0, "03": 80.0}
MACHINES = tuple(f"{group}-{n}" for group in GROUPS for n in (1, 2))
OPTIMA_S = {
    "transport occupies the machine of the first operation": 288.4,
    "one transport per task on one of 2 vehicles": 462.9,
    "a lag before every operation": 283.5,
}
"""Makespans of the published cell that CP-SAT proves, by reading."""
LOADING_S = UNLOADING_S = 10.0
CELL = "cell"
"""Where vehicles wait; it and the machines are one place, as far as vehicles go."""


def readings() -> dict[str, Shop]:
    """The cell (table 1 of doi:10.11959/j.issn.2096-3750.2025.00468: 12 tasks, 28 operations; 70, 75 and 80 s of
    transport and set-up for a task of order 01, 02 and 03), in ticks of 0.1 s, under the three readings of `OPTIMA_S`.

    With vehicles the trip is written out: out of the cell to the raw store of the order, 10 s of loading, back to the
    machine, 10 s of unloading; 25, 27.5 or 30 s each way; 2 places before every machine. Within the cell robots hand
    parts on. The third reading has no vehicles: every operation begins so long after its predecessor (the first after
    the release) at the earliest.
    """
    trip = {order: _ticks(seconds) for order, seconds in TRIP_S.items()}
    one_way = {order: (ticks - _ticks(LOADING_S + UNLOADING_S)) // 2 for order, ticks in trip.items()}

    def jobs(first: bool = False, lag: bool = False, raw: bool = False) -> dict[str, Work]:
        made = {}
        for task, (order, route) in enumerate(TASKS, 1):
            steps = []
            for n, (group, seconds) in enumerate(ROUTES[route]):
                ticks = _ticks(seconds) + (trip[order] if first and n == 0 else 0)
                steps.append(Step({f"{group}-{k}": ticks for k in (1, 2)}, lag=trip[order] if lag else 0))
            made[f"T{task}"] = Work(tuple(steps), at=f"raw-{order}" if raw else "")
        return made

    occupying, carried, lagging = OPTIMA_S
    ways: dict[str, dict[str, int]] = {}
    for place in (CELL, *MACHINES):
        for order, ticks in one_way.items():
            ways.setdefault(place, {})[f"raw-{order}"] = ticks
            ways.setdefault(f"raw-{order}", {})[place] = ticks
    plain = {name: Station() for name in MACHINES}
    buffered = {name: Station(buffer_in=2) for name in MACHINES}
    return {
        occupying: Shop(plain, jobs(first=True), hour_ticks=HOUR_TICKS),
        carried: Shop(
            buffered,
            jobs(raw=True),
            ticks=ways,
            vehicles=2,
            home=CELL,
            loading=_ticks(LOADING_S),
            unloading=_ticks(UNLOADING_S),
            hour_ticks=HOUR_TICKS,
        ),
        lagging: Shop(plain, jobs(lag=True), hour_ticks=HOUR_TICKS),
    }


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


def _ticks(seconds: float) -> int:
    return round(seconds / TICK_S)
