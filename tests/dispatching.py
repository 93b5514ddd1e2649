"""Random shops to dispatch, small and nasty, of any kind from a seed; and their decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from messages.curve import Curve
from messages.dispatch.decode import Choice
from messages.dispatch.shop import Shop, Shut, Station, Step, Work
from messages.dispatch.state import Machine, Part, State, Vehicle, begin


def shop_like(seed: int, *, jobs: int = 4, detours: bool = True) -> Shop:
    """Up to 4 machines and `jobs` jobs of up to 4 steps; vehicles, stores, buffers, closings, breakdowns, all at times.

    Parts may block each other for good in some orders. Without `detours` every way is stated, and none is longer than
    by a third place.
    """
    rng = np.random.default_rng(seed)
    machines = [f"m{n}" for n in range(rng.integers(1, 5))]
    places = [*machines, "raw", "done"]
    carried = rng.random() < 0.7

    def some(chance: float, low: int, high: int) -> int | None:
        return int(rng.integers(low, high)) if rng.random() < chance else None

    def station() -> Station:
        out = some(0.4, 0, 3)
        at, shut = 0, []
        while rng.random() < 0.3:
            at += int(rng.integers(0, 30))
            shut.append(Shut(at, at + int(rng.integers(1, 10)), bool(rng.random() < 0.5)))
            at = shut[-1].end
        kw = rng.uniform(0, 9, 3)
        return Station(
            buffer_in=some(0.4, 1, 3),
            buffer_out=out,
            hold=bool(out and rng.random() < 0.5),
            shut=tuple(shut),
            preheat=some(0.2, 1, 6) or 0,
            idle_kw=float(kw[0]),
            preheat_kw=float(kw[1]),
            off_kw=float(kw[2] / 9),
            carrier=str(rng.choice(["electricity", "gas"])),
        )

    def step() -> Step:
        able = rng.permutation(machines)[: rng.integers(1, len(machines) + 1)]
        ticks = {str(name): int(rng.integers(0 if rng.random() < 0.1 else 1, 20)) for name in able}
        return Step(ticks, {name: float(rng.uniform(1, 20)) for name in ticks}, some(0.2, 0, 5) or 0)

    def work() -> Work:
        return Work(
            tuple(step() for _ in range(rng.integers(1, 5))),
            release=some(0.4, 0, 30) or 0,
            due=some(0.5, 0, 80),
            at="raw" if carried and rng.random() < 0.7 else "",
        )

    ways = {
        before: {after: int(rng.integers(0, 12)) for after in places if after != before and rng.random() < 0.9}
        for before in places
    }
    if not detours:
        ways = {a: {b: abs(n - k) for k, b in enumerate(places) if n != k} for n, a in enumerate(places)}
    curve = Curve(start=int(rng.integers(-9, 9)), step=7, values=(0.2, 0.5, 0.1), periodic=bool(rng.random() < 0.5))
    return Shop(
        machines={name: station() for name in machines},
        jobs={f"j{n}": work() for n in range(rng.integers(1, jobs + 1))},
        ticks=ways if carried else {},
        vehicles=some(0.6, 1, 4) if carried else None,
        home=str(rng.choice(places)) if carried else "",
        loading=int(rng.integers(0, 3)),
        unloading=int(rng.integers(0, 3)),
        finished="done" if carried and rng.random() < 0.4 else "",
        carry_kw=float(rng.uniform(0, 2)),
        carbon={"electricity": curve},
    )


def some_sequence(state: State, seed: int) -> list[Choice]:
    """Any order of everything that is open, on any machines."""
    rng = np.random.default_rng(seed)
    left = {job: list(state.shop.route[job][state.jobs[job].next :]) for job in state.open()}
    found = []
    while left:
        job = str(rng.choice(list(left)))
        found.append((job, str(rng.choice(list(left[job].pop(0).ticks)))))
        left = {name: steps for name, steps in left.items() if steps}
    return found


def some_state(shop: Shop, seed: int) -> State:
    """Somewhere in the middle: some awards are made, time has passed, a machine and a vehicle are late."""
    rng = np.random.default_rng(seed)
    state = begin(shop)
    for job, machine in some_sequence(state, seed)[: rng.integers(0, 8)]:
        bid = state.bid(job, machine)
        if not bid.blocked:
            state.take(bid)
        else:
            break
    state.now = int(rng.integers(0, 40))
    for machine in state.machines.values():
        machine.free += int(rng.integers(0, 5)) * int(rng.integers(0, 2))
    return state


def plain(state: State) -> tuple[Mapping[str, Machine], Mapping[str, Part], list[Vehicle], int, int]:
    """What makes two states equal."""
    return state.machines, state.jobs, state.vehicles, state.last, state.faults


def with_ticks(shop: Shop, ticks: Mapping[tuple[str, int], int]) -> Shop:
    """The same with other lengths of some steps (job, op) on every machine where they have any."""
    jobs = {
        name: replace(
            work,
            steps=tuple(
                replace(step, ticks={m: ticks.get((name, op), old) if old else 0 for m, old in step.ticks.items()})
                for op, step in enumerate(work.steps)
            ),
        )
        for name, work in shop.jobs.items()
    }
    return replace(shop, jobs=jobs)
