"""Problems and plans, from files and into files, exactly.

    problem = load_problem("examples/ceramic.json")
    problem_text(problem)                          # the same problem as JSON, in ticks
    plan_document(problem, plan)                   # as `plan.json` holds it; plan_from_document reads it back
    waves(problem, count=3, every=24, due=36)      # the same orders three times, a day apart

Four kinds of file, told apart by what is in them:

    *.fjs                 a flexible job shop (`messages.fjs`)
    JSON with "stages"    a flow shop in hours, minutes or seconds (`messages.stages`)
    JSON with "tasks"     a workshop as published, under one of its readings (`messages.readings`)
    JSON with "jobs"      a `Problem` as it travels: integer ticks of `tick_s` seconds

Every refusal is a ConfigError that names file, place and cure. What nobody reads may only be text, such as `about`:
anything else is taken for a misspelt word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from pydantic import BaseModel, ValidationError

from messages.checks import missing
from messages.errors import ConfigError, UsageError
from messages.fjs import from_fjs
from messages.measures import KEY
from messages.plan import Plan
from messages.problem import TIMES, Problem, Window
from messages.readings import Reading, read_workshop
from messages.refusals import refused
from messages.stages import from_stages, refuse_unknown
from messages.uncollected import uncollected

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Largest instance file read."""


@uncollected
def load_problem(path: Path | str, *, reading: Reading = "vehicles") -> Problem:
    """The problem in a file; ConfigError names file, place and cure. `reading`: of a workshop with "tasks"."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; split the instance")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a text file") from None
    if path.suffix.lower() == ".fjs":
        return _checked(from_fjs(text, path), path)
    try:
        data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=partial(_object, path=path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error}); give a problem in JSON or an .fjs file") from None
    if isinstance(data, dict) and "stages" in data:
        return _checked(from_stages(data, path), path, stages=data)
    if isinstance(data, dict) and "jobs" in data:
        _refuse_unknown(Problem, data, "", path)
        return _checked(data, path)
    if isinstance(data, dict) and "tasks" in data:
        return read_workshop(data, path, reading)
    raise ConfigError(
        f'{path}: neither "stages" (flow shop) nor "jobs" (a problem in ticks) nor "tasks" (a workshop) is in it'
    )


def problem_text(problem: Problem) -> str:
    """The problem as JSON that `load_problem` reads back unchanged: defaults left out, one machine or job per line."""
    document = {"schema": problem.schema_} | problem.model_dump(mode="json", exclude_defaults=True)

    def shown(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n ]"
        return json.dumps(value, ensure_ascii=False)

    document |= {key: document.get(key, []) for key in ("machines", "jobs")}
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {shown(value)}" for key, value in document.items()) + "\n}\n"


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
    if plan.bound is not None and plan.bound_of in TIMES:
        document["bound"] = problem.in_unit(plan.bound)
    return document


def objectives_in_unit(problem: Problem, values: Mapping[str, float]) -> dict[str, float]:
    """Objectives for people: times in the unit, and each measure by the name it is asked for (`energy`, `carbon`, …)
    beside the one with its unit, as far as the problem gives it."""
    shown = {name: problem.in_unit(value) if name in TIMES else value for name, value in values.items()}
    for measure, key in KEY.items():
        if key in shown and not missing(problem, measure):
            shown[measure] = shown[key]
    return shown


def plan_from_document(problem: Problem, document: Mapping[str, Any]) -> Plan:
    """The plan in a `plan.json` document; ConfigError if it is none or lies off the problem's grid.

    What it was said to cost is not read: `messages.judge` says that anew.
    """
    try:
        ticked = {
            key: [
                {**one, **{end: _ticks(problem, one[end], f"{key}[{index}].{end}") for end in ("start", "end")}}
                for index, one in enumerate(document.get(key, []))
            ]
            for key in ("assignments", "machine_states", "moves")
        }
        kept = ("problem_sha256", "t0", "revision", "solver", "status", "runtime_s", "bound", "bound_of")
        found = {key: document[key] for key in kept if document.get(key) is not None}
        if "bound" in found and found.get("bound_of", "makespan") in TIMES:
            found["bound"] = float(_ticks(problem, found["bound"], "bound"))
        return Plan.model_validate(found | ticked)
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"plan: {_explain(error)}") from None


def waves(
    problem: Problem,
    *,
    count: int,
    every: float,
    due: float | None = None,
    shifts: Mapping[str, tuple[float, float]] | None = None,
    day: float = 24,
    days: int = 14,
) -> Problem:
    """The orders of `problem` `count` times, `every` so often: what a line gets day after day. Times in its unit.

    due     each order is due so long after its release
    shifts  machine or operation name → (from, until) within each `day`: those machines are closed outside, `days` long

    >>> from messages.problem import Job, Machine, Operation
    >>> one = Job(id="1", operations=(Operation(op=0, alternatives={"m": 1}),))
    >>> hours = Problem(time_unit="h", tick_s=3600, machines=(Machine(id="m"),), jobs=(one,))
    >>> twice = waves(hours, count=2, every=24, due=30, shifts={"m": (6, 22)}, days=1)
    >>> [(job.id, job.release, job.due) for job in twice.jobs]
    [('1.1', 0, 30), ('2.1', 24, 54)]
    >>> [(window.start, window.end) for window in twice.machines[0].unavailable]
    [(0, 6), (22, 24)]
    """
    step, allowed = problem.ticks(every, "every"), None if due is None else problem.ticks(due, "due")
    jobs = []
    for wave in range(count):
        for job in problem.jobs:
            release = job.release + wave * step
            later = job.due if job.due is None else job.due + wave * step
            change: dict[str, Any] = {"id": f"{wave + 1}.{job.id}", "release": release}
            change["due"] = later if allowed is None else release + allowed
            change["part_of"] = f"{wave + 1}.{job.part_of}" if job.part_of else ""
            jobs.append(job.model_copy(update=change))
    closed: dict[str, list[Window]] = {machine.id: list(machine.unavailable) for machine in problem.machines}
    length = problem.ticks(day, "day")
    for name, (begin, end) in (shifts or {}).items():
        opens, closes = problem.ticks(begin, f"shifts.{name}"), problem.ticks(end, f"shifts.{name}")
        if not 0 <= opens < closes <= length:
            raise UsageError(f"shifts.{name}: {begin} to {end} is no part of a day of {day}; give from and until in it")
        named = {m for one in problem.operation.values() if one.name == name for m in one.alternatives}
        meant = named or {name} & set(closed)
        if not meant:
            raise UsageError(f"shifts: no machine or operation is called {name!r}; correct the name")
        edges = [0, *(d * length + edge for d in range(days) for edge in (opens, closes)), days * length]
        for machine in meant:
            closed[machine] += [
                Window(start=start, end=end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end
            ]
    machines = [one.model_copy(update={"unavailable": tuple(closed[one.id])}) for one in problem.machines]
    document = problem.model_dump(exclude={"schema_", "machines", "jobs"})
    return Problem.model_validate(document | {"machines": machines, "jobs": jobs})


def _ticks(problem: Problem, value: Any, where: str) -> int:
    """Ticks of a time that `plan_document` wrote: a third of an hour is a whole number of ticks of 20 minutes, and no
    finite decimal."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
        nearest = round(value / problem.in_unit(1))
        if problem.in_unit(nearest) == value:
            return nearest
    return problem.ticks(value, where)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number; write a finite one")


def _object(pairs: list[tuple[str, Any]], *, path: Path) -> dict[str, Any]:
    """An object of a file: of a word that stands there twice JSON would keep the last in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        words = [key for key, _ in pairs]
        twice = next(key for key in found if words.count(key) > 1)
        near = f" (the one with {', '.join(map(repr, list(found)[:4]))})"
        raise ConfigError(f"{path}: {twice!r} stands twice in one object{near}; keep one of them")
    return found


def _refuse_unknown(model: type[BaseModel], data: Any, where: str, path: Path) -> None:
    """A word that this model does not know, at any depth: it would be ignored, and the plan be wrong."""
    if not isinstance(data, dict):
        return  # the model says so itself
    words = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    refuse_unknown(data, words, where, path)
    for word, annotation in words.items():
        for place, inner, value in _models(annotation, data.get(word)):
            _refuse_unknown(inner, value, f"{where}{word}{place}.", path)


def _models(annotation: Any, value: Any, place: str = "") -> Iterator[tuple[str, type[BaseModel], Any]]:
    """What of `value` is to be a model, where it stands, and which."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield place, annotation, value
    elif get_origin(annotation) is tuple and isinstance(value, list):
        for k, one in enumerate(value):
            yield from _models(get_args(annotation)[0], one, f"{place}[{k}]")
    elif get_origin(annotation) is dict and isinstance(value, dict):
        for key, one in value.items():
            yield from _models(get_args(annotation)[1], one, f"{place}.{key}")


def _checked(data: Mapping[str, Any], path: Path, stages: Mapping[str, Any] | None = None) -> Problem:
    try:
        return Problem.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {refused(error, data, stages=stages, unit=data.get('time_unit', 'h'))}") from None


def _explain(error: Exception) -> str:
    return refused(error, None) if isinstance(error, ValidationError) else str(error)
