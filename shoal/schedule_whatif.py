"""`--what-if`: what a change is, in words, and the frozen problem with it.

    down MACHINE FROM TO        a machine is broken: "down kiln-1 10h 14h"
    rush JOB due TIME           a job or order must be ready by then: "rush 7 due 20h"
    add FILE                    more jobs: "add jobs.json"

Times are in the unit of the file unless they say h, min or s. A file of jobs is a list (or {"jobs": [...]}) of
`{"id": "16", "like": "3"}`, which does what job 3 does, or `{"id": "16", "operations": [{"op": 0, "alternatives":
{"kiln-1": 4}}]}`; `release` (else now) and `due` as well as all ticks there are in the unit of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cloud.scheduling.whatif import Add, Change, Down, Rush, apply, freeze
from messages.errors import ConfigError, UsageError
from messages.plan import Measure, Plan
from messages.problem import Job, Operation, Problem
from shoal.schedule_options import read_json, ticks

USAGE = '"down MACHINE FROM TO", "rush JOB due TIME" or "add FILE"'


def changed(problem: Problem, plan: Plan, texts: Sequence[str], now: str | None) -> tuple[Problem, tuple[Change, ...]]:
    """The plan frozen at `now` (else where the earliest change begins), and all changes made to it."""
    at = None if now is None else ticks(problem, now, "--now")
    changes = [_read(problem, text) for text in texts]
    if at is None:
        begins = [one.start for one in changes if isinstance(one, Down)]
        if not begins:
            raise UsageError("--now: say when it is, such as --now 12h; what has begun by then is frozen")
        at = max(min(begins), problem.start_floor)
    made = tuple(_released(one, at) for one in changes)
    try:
        found = freeze(problem, plan, at)
    except ValidationError as error:
        raise UsageError(f"--now: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    for text, change in zip(texts, made, strict=True):
        try:
            found = apply(found, change)
        except ValidationError as error:
            raise UsageError(f"--what-if {text!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        except UsageError as error:
            raise UsageError(f"--what-if {text!r}: {error}") from None
    return found, made


def order(changes: Sequence[Change], measures: tuple[Measure, ...]) -> tuple[Measure, ...]:
    """What to minimise: a rush order comes first, so lateness does."""
    rush = any(isinstance(one, Rush) for one in changes)
    return ("tardiness", *(one for one in measures if one != "tardiness")) if rush else measures


def _read(problem: Problem, text: str) -> Change:
    words = text.split()
    where = f"--what-if {text!r}:"
    if len(words) == 4 and words[0] == "down":
        return Down(words[1], ticks(problem, words[2], where), ticks(problem, words[3], where))
    if len(words) == 4 and words[0] == "rush" and words[2] == "due":
        return Rush(words[1], ticks(problem, words[3], where))
    if len(words) >= 2 and words[0] == "add":
        return Add(_jobs(problem, Path(text.split(maxsplit=1)[1])))
    raise UsageError(f"{where} not understood; give {USAGE}")


def _jobs(problem: Problem, path: Path) -> tuple[Job, ...]:
    document = read_json(path)
    rows = document.get("jobs") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: no jobs; give a list of them, or an object with a list `jobs`")
    return tuple(_job(problem, row, f"{path}: jobs[{k}]") for k, row in enumerate(rows))


def _job(problem: Problem, row: Any, where: str) -> Job:
    if not isinstance(row, dict):
        raise ConfigError(f'{where}: a job is an object such as {{"id": "16", "like": "3"}}')
    own = {key: value for key, value in row.items() if key != "like"}
    try:
        for key in ("release", "due"):
            if own.get(key) is not None:
                own[key] = problem.ticks(own[key], f"{where}.{key}")
        if "like" in row:
            model = next((job for job in problem.jobs if job.id == row["like"]), None)
            if model is None:
                raise ConfigError(f"{where}.like: there is no job {row['like']!r}; correct the id")
            own["operations"] = model.operations
        else:
            own["operations"] = [_step(problem, step, where) for step in own.get("operations") or ()]
        unknown = own.keys() - Job.model_fields.keys()
        if unknown:
            raise ConfigError(f"{where}: {min(unknown)!r} is unknown; there are like, {', '.join(Job.model_fields)}")
        own.setdefault("release", 0)
        job = Job.model_validate(own)
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"{type(error).__name__} {error}"
        place = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else ""
        raise ConfigError(f"{where}{'.' + place if place else ''}: {text}; correct the job") from None
    return job


def _step(problem: Problem, step: Any, where: str) -> Operation:
    """Times of the unit into ticks."""
    own = dict(step)
    own["alternatives"] = {
        machine: problem.ticks(time, f"{where}.{machine}") for machine, time in dict(own["alternatives"]).items()
    }
    for key in ("wait_min", "wait_max"):
        if own.get(key) is not None:
            own[key] = problem.ticks(own[key], f"{where}.{key}")
    return Operation.model_validate(own)


def _released(change: Change, now: int) -> Change:
    """Jobs that come in now are not there earlier."""
    if not isinstance(change, Add):
        return change
    return Add(tuple(job.model_copy(update={"release": max(job.release, now)}) for job in change.jobs))
