"""Flexible job shops from `.fjs` files, as Brandimarte's and others': `from_fjs(text, path)`.

Jobs and machines are numbered from "1" (also where the file numbers machines from 0), a job's operations from 0. Times
are whole numbers without a unit. Every refusal is a ConfigError that names file, line and cure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from messages.errors import ConfigError


def from_fjs(text: str, path: Path) -> dict[str, Any]:
    """What stands in the file, as the document of a Problem."""
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ConfigError(f"{path}: empty; line 1 is `jobs machines`")
    number, head = lines[0]
    if len(head) < 2:
        raise ConfigError(f"{path}:{number}: line 1 is `jobs machines`, found {' '.join(head)!r}")
    count, machines = (_whole(token, path, number) for token in head[:2])
    if len(lines) - 1 != count:
        raise ConfigError(f"{path}: {count} jobs announced, {len(lines) - 1} lines of jobs found; correct one")
    rows = [(number, _fjs_job(tokens, path, number)) for number, tokens in lines[1:]]
    seen = [machine for _, steps in rows for step in steps for machine in step]
    base = 0 if 0 in seen else 1
    for number, steps in rows:
        for step in steps:
            for machine in step:
                if machine - base >= machines:
                    last = machines - 1 + base
                    raise ConfigError(f"{path}:{number}: machine {machine} is unknown; they run from {base} to {last}")
    return {
        "name": path.stem,
        "time_unit": "",
        "tick_s": 1.0,
        "machines": [{"id": str(m + 1)} for m in range(machines)],
        "jobs": [
            {
                "id": str(j + 1),
                "operations": [
                    {"op": k, "alternatives": {str(m - base + 1): time for m, time in step.items()}}
                    for k, step in enumerate(steps)
                ],
            }
            for j, (_, steps) in enumerate(rows)
        ],
    }


def _fjs_job(tokens: Sequence[str], path: Path, number: int) -> list[dict[int, int]]:
    values = [_whole(token, path, number) for token in tokens]
    position = 0

    def take(what: str) -> int:
        nonlocal position
        if position == len(values):
            raise ConfigError(f"{path}:{number}: the line ends where {what} should stand; complete it")
        position += 1
        return values[position - 1]

    steps = []
    for k in range(take("the number of operations")):
        step: dict[int, int] = {}
        for _ in range(take(f"the number of machines of operation {k}")):
            machine = take(f"a machine of operation {k}")
            if machine in step:
                raise ConfigError(f"{path}:{number}: operation {k} names machine {machine} twice; drop one")
            step[machine] = take(f"the time of operation {k} on machine {machine}")
        if not step:
            raise ConfigError(f"{path}:{number}: operation {k} has no machine; give it one")
        steps.append(step)
    if not steps:
        raise ConfigError(f"{path}:{number}: a job without operations; drop it")
    if position < len(values):
        raise ConfigError(f"{path}:{number}: {len(values) - position} numbers too many at the end; drop them")
    return steps


def _whole(token: str, path: Path, number: int) -> int:
    try:
        value = float(token)
    except ValueError:
        raise ConfigError(f"{path}:{number}: {token!r} is not a number; write a whole one") from None
    if not isfinite(value) or value != int(value):
        raise ConfigError(
            f"{path}:{number}: {token} is off the grid; times and numbers here are whole: round it, or scale all times"
        )
    if value < 0 or value > 10**12:
        raise ConfigError(f"{path}:{number}: {token} is out of range; use 0 to 1e12")
    return int(value)
