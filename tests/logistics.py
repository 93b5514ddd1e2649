"""Random problems with vehicles, buffers and stores, small and nasty, of any kind from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from messages.problem import Problem


def problem_like(seed: int, *, cold: bool = True) -> Problem:
    """Up to 4 machines and 5 jobs of up to 4 steps; parts may block each other in some orders. Not `cold`: no machine
    is preheated."""
    rng = np.random.default_rng(seed)
    machines = [f"m{n}" for n in range(rng.integers(1, 5))]
    places = [*machines, "raw", "done"]

    def some(chance: float, low: int, high: int) -> int | None:
        return int(rng.integers(low, high)) if rng.random() < chance else None

    def machine(name: str) -> dict[str, Any]:
        out = some(0.5, 0, 3)
        at, shut = 0, []
        while rng.random() < 0.3:
            at += int(rng.integers(0, 30))
            shut.append(
                {"start": at, "end": at + int(rng.integers(1, 10)), "reason": str(rng.choice(["closed", "breakdown"]))}
            )
            at = int(shut[-1]["end"])
        hold = bool(out and rng.random() < 0.5)
        return {
            "id": name,
            "buffer": {"in": some(0.5, 1, 3), "out": out, "policy": "hold" if hold else "block"},
            "unavailable": shut,
            "preheat": (some(0.3, 1, 6) or 0) if cold else 0,
            "power_kw": dict(zip(("work", "idle", "preheat"), rng.uniform(0, 9, 3).tolist(), strict=True)),
        }

    def job(number: int) -> dict[str, Any]:
        steps: list[dict[str, Any]] = []
        for op in range(rng.integers(1, 5)):
            able = rng.permutation(machines)[: rng.integers(1, len(machines) + 1)]
            ticks = {str(name): int(rng.integers(0 if rng.random() < 0.1 else 1, 20)) for name in able}
            steps.append({"op": 10 * op, "alternatives": ticks, "wait_min": (some(0.2, 0, 5) or 0) if op else 0})
        at = str(rng.choice(["raw", *machines])) if rng.random() < 0.7 else ""
        return {
            "id": f"j{number}",
            "operations": steps,
            "release": some(0.4, 0, 30) or 0,
            "due": some(0.5, 0, 80),
            "at": at,
        }

    ways = {
        before: {after: int(rng.integers(0, 12)) for after in places if after != before and rng.random() < 0.8}
        for before in places
    }
    return Problem.model_validate(
        {
            "machines": [machine(name) for name in machines],
            "jobs": [job(number) for number in range(rng.integers(1, 6))],
            "transport": {
                "ticks": ways,
                "stores": ["raw", "done"],
                "vehicles": some(0.7, 1, 4),
                "home": str(rng.choice(places)),
                "loading": int(rng.integers(0, 3)),
                "unloading": int(rng.integers(0, 3)),
                "finished": "done" if rng.random() < 0.4 else "",
                "power_kw": float(rng.uniform(0, 2)),
            },
        }
    )
