"""Problems from files and plans into files, exactly: `load_problem(path)`, `plan_document(problem, plan)`.

Three kinds of file, told apart by what is in them:

    *.fjs                 a flexible job shop; jobs and machines are numbered from "1", a job's operations from 0
    JSON with "stages"    a flow shop with powers, in hours, minutes or seconds (see examples/ceramic.json)
    JSON with "jobs"      a `Problem` as it travels: integer ticks of `tick_s` seconds

Every refusal is a ConfigError that names file, place and cure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce
from math import gcd, isfinite
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

from messages.errors import ConfigError
from messages.plan import Plan
from messages.problem import UNIT_S, Job, Machine, Operation, Power, Problem

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Largest instance file read."""
TIMED = ("makespan", "tardiness")
"""Objectives that are times: ticks in a Plan, the time unit in a file."""


def load_problem(path: Path | str) -> Problem:
    """The problem in a file; ConfigError names file, place and cure."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; split the instance")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a text file") from None
    if path.suffix.lower() == ".fjs":
        return _from_fjs(text, path)
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error}); give a problem in JSON or an .fjs file") from None
    if isinstance(data, dict) and "stages" in data:
        return _from_flow_shop(data, path)
    if isinstance(data, dict) and "jobs" in data:
        return _checked(data, path)
    if isinstance(data, dict) and "tasks" in data:
        raise ConfigError(
            f"{path}: a workshop with transport and buffers cannot be planned; supported are an .fjs file, "
            'JSON with "stages" (flow shop) and JSON with "jobs" (a problem in ticks)'
        )
    raise ConfigError(f'{path}: neither "stages" (flow shop) nor "jobs" (a problem in ticks) is in it')


def plan_document(problem: Problem, plan: Plan) -> dict[str, Any]:
    """A plan as `plan.json` holds it: times in the problem's unit, objectives by name (energy in kWh)."""
    document = plan.model_dump(mode="json", exclude_none=True)
    document |= {"problem": problem.name, "time_unit": problem.time_unit, "moves": document.get("moves", [])}
    for one in (*document["assignments"], *document["machine_states"], *document["moves"]):
        one["start"], one["end"] = problem.in_unit(one["start"]), problem.in_unit(one["end"])
    for one in document["assignments"]:
        if not one["interrupted"]:
            del one["interrupted"]
    document["objectives"] = objectives_in_unit(problem, plan.objectives)
    for corner in ("ideal", "nadir"):
        if corner in document:
            document[corner] = objectives_in_unit(problem, document[corner])
    document["bound"] = plan.bound
    if plan.bound is not None and plan.bound_of in TIMED:
        document["bound"] = problem.in_unit(plan.bound)
    return document


def objectives_in_unit(problem: Problem, values: Mapping[str, float]) -> dict[str, float]:
    """Objectives for people: times in the unit, and `energy` beside `energy_kwh`."""
    shown = {name: problem.in_unit(value) if name in TIMED else value for name, value in values.items()}
    if "energy_kwh" in shown:
        shown["energy"] = shown["energy_kwh"]
    return shown


def plan_from_document(problem: Problem, document: Mapping[str, Any]) -> Plan:
    """The plan in a `plan.json` document; ConfigError if it is none or lies off the problem's grid."""
    try:
        ticked = {
            key: [
                {
                    **one,
                    "start": problem.ticks(one["start"], f"{key}[{index}].start"),
                    "end": problem.ticks(one["end"], f"{key}[{index}].end"),
                }
                for index, one in enumerate(document.get(key, []))
            ]
            for key in ("assignments", "machine_states", "moves")
        }
        kept = {key: document[key] for key in ("problem_sha256", "t0", "revision", "solver") if key in document}
        return Plan.model_validate({**kept, **ticked})
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"plan: {_explain(error)}") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number; write a finite one")


def _checked(data: Mapping[str, Any], path: Path) -> Problem:
    try:
        return Problem.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "int_from_float":
        return f"{place}: {first['input']} is off the grid; times here are whole ticks, choose a smaller tick_s"
    text = first["msg"].removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


# --- flow shops -----------------------------------------------------------------------------------


def _from_flow_shop(data: Mapping[str, Any], path: Path) -> Problem:
    unit = data.get("time_unit", "h")
    if unit not in ("h", "min", "s"):
        raise ConfigError(f'{path}: time_unit: {unit!r} is unknown; use "h", "min" or "s"')
    reader = _FlowShop(path, unit)
    reader.read(data)
    return reader.problem(data)


class _FlowShop:
    """Times of a stage file, collected first, because the tick is their greatest common divisor."""

    def __init__(self, path: Path, unit: Literal["h", "min", "s"]) -> None:
        self.path = path
        self.unit: Literal["h", "min", "s"] = unit
        self.machines: list[dict[str, Any]] = []
        self.stages: list[tuple[str, list[tuple[str, list[Fraction]]]]] = []
        self.jobs = 0

    def read(self, data: Mapping[str, Any]) -> None:
        stages = self._list(data, "stages", "stages")
        for s, stage in enumerate(stages):
            where = f"stages[{s}]"
            rows: list[tuple[str, list[Fraction]]] = []
            for m, machine in enumerate(self._list(stage, "machines", f"{where}.machines")):
                rows.append(self._machine(machine, f"{where}.machines[{m}]", stage.get("carrier", "electricity")))
            if not rows:
                raise ConfigError(f"{self.path}: {where}.machines: a stage needs a machine; add one or drop it")
            self.stages.append((str(stage.get("name", s)), rows))
        counts = {len(times) for _, rows in self.stages for _, times in rows}
        if len(counts) > 1:
            raise ConfigError(
                f"{self.path}: time_{self.unit}: lists of {sorted(counts)} entries; give one time per job everywhere"
            )
        self.jobs = counts.pop() if counts else 0

    def _machine(self, machine: Any, where: str, carrier: Any) -> tuple[str, list[Fraction]]:
        if not isinstance(machine, dict) or not isinstance(machine.get("id"), str):
            raise ConfigError(f'{self.path}: {where}: a machine is an object with a text "id"')
        key = f"time_{self.unit}"
        times = [
            self._time(value, f"{where}.{key}[{j}]")
            for j, value in enumerate(self._list(machine, key, f"{where}.{key}"))
        ]
        kw = {state: machine.get(f"{state}_kw", 0.0) for state in ("work", "idle", "preheat", "off", "setup", "down")}
        self.machines.append(
            {
                "id": machine["id"],
                "carrier": machine.get("carrier", carrier),
                "power_kw": kw,
                "preheat": self._time(machine.get(f"preheat_{self.unit}", 0), f"{where}.preheat_{self.unit}"),
                "warm": machine.get("initial_state"),
                "where": where,
            }
        )
        return machine["id"], times

    def problem(self, data: Mapping[str, Any]) -> Problem:
        ids = self._job_ids(data)
        releases = self._per_job(data, "release")
        dues = self._per_job(data, "due")
        used = [time for _, rows in self.stages for _, times in rows for time in times]
        used += [machine["preheat"] for machine in self.machines]
        used += [time for time in (*releases, *dues) if time is not None]
        tick = _common_divisor(used) or Fraction(UNIT_S[self.unit])

        def ticks(time: Fraction | None) -> int | None:
            return None if time is None else int(time / tick)

        initial = data.get("initial_state", "off")
        machines = []
        for machine in self.machines:
            state = machine.pop("warm") or initial
            where = machine.pop("where")
            if state not in ("off", "idle"):
                raise ConfigError(f'{self.path}: {where}: initial_state {state!r} is unknown; use "off" or "idle"')
            machine["preheat"] = ticks(machine["preheat"])
            machines.append(machine | ({"warm_from": 0} if state == "idle" else {}))
        jobs = [
            {
                "id": ids[j],
                "release": ticks(releases[j]) or 0,
                "due": ticks(dues[j]),
                "operations": [
                    {"op": s, "name": name, "alternatives": {machine: ticks(times[j]) for machine, times in rows}}
                    for s, (name, rows) in enumerate(self.stages)
                ],
            }
            for j in range(self.jobs)
        ]
        document = {
            "name": str(data.get("name", self.path.stem)),
            "time_unit": self.unit,
            "tick_s": float(tick),
            "machines": machines,
            "jobs": jobs,
        }
        if "kgce_per_kwh" in data:
            document["kgce_per_kwh"] = data["kgce_per_kwh"]
        return _checked(document, self.path)

    def _job_ids(self, data: Mapping[str, Any]) -> list[str]:
        if "job_ids" not in data:
            return [str(j + 1) for j in range(self.jobs)]
        ids = [str(one) for one in self._list(data, "job_ids", "job_ids")]
        if len(ids) != self.jobs:
            raise ConfigError(f"{self.path}: job_ids: {len(ids)} ids for {self.jobs} jobs; give one each")
        return ids

    def _per_job(self, data: Mapping[str, Any], what: str) -> list[Fraction | None]:
        key = f"{what}_{self.unit}"
        if key not in data:
            return [None] * self.jobs
        values = self._list(data, key, key)
        if len(values) != self.jobs:
            raise ConfigError(f"{self.path}: {key}: {len(values)} times for {self.jobs} jobs; give one each")
        return [None if one is None else self._time(one, f"{key}[{j}]") for j, one in enumerate(values)]

    def _list(self, data: Any, key: str, where: str) -> list[Any]:
        found = data.get(key) if isinstance(data, dict) else None
        if not isinstance(found, list):
            raise ConfigError(f"{self.path}: {where}: a list is missing here; add it")
        return found

    def _time(self, value: Any, where: str) -> Fraction:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise ConfigError(f"{self.path}: {where}: {value!r} is not a time; write a number of {self.unit}")
        if value < 0:
            raise ConfigError(f"{self.path}: {where}: {value} is negative; times start at 0")
        seconds = Fraction(str(value)) * UNIT_S[self.unit]
        if seconds.denominator > 1000:
            raise ConfigError(
                f"{self.path}: {where}: {value} {self.unit} is off the grid of 1 ms; round it to whole milliseconds"
            )
        return seconds


def _common_divisor(times: Sequence[Fraction]) -> Fraction | None:
    """The greatest tick (s) that divides every time; None if all are 0. Times are whole milliseconds."""
    common = reduce(gcd, (int(time * 1000) for time in times), 0)
    return Fraction(common, 1000) if common else None


# --- flexible job shops -----------------------------------------------------------------------------


def _from_fjs(text: str, path: Path) -> Problem:
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
    return _checked(
        {
            "name": path.stem,
            "time_unit": "",
            "tick_s": 1.0,
            "machines": [Machine(id=str(m + 1), power_kw=Power()) for m in range(machines)],
            "jobs": [
                Job(
                    id=str(j + 1),
                    operations=tuple(
                        Operation(op=k, alternatives={str(m - base + 1): time for m, time in step.items()})
                        for k, step in enumerate(steps)
                    ),
                )
                for j, (_, steps) in enumerate(rows)
            ],
        },
        path,
    )


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
        raise ConfigError(f"{path}:{number}: {token!r} is not a number") from None
    if not isfinite(value) or value != int(value):
        raise ConfigError(f"{path}:{number}: {token} is off the grid; times and numbers here are whole")
    if value < 0 or value > 10**12:
        raise ConfigError(f"{path}:{number}: {token} is out of range; use 0 to 1e12")
    return int(value)
