"""The options of `shoal schedule`, read and checked before anything is searched: every refusal names the cure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from messages.checks import beyond_solvers
from messages.errors import ConfigError, UsageError
from messages.instances import plan_from_document
from messages.judge import missing, objective
from messages.plan import Measure, Plan
from messages.problem import TIMES, UNIT_S, Problem

MEASURES: tuple[Measure, ...] = ("makespan", "energy", "carbon", "cost", "tardiness", "peak", "ledger")
SIGNED: tuple[Measure, ...] = ("cost", "ledger")
"""May be limited to less than nothing: earnings, and a carbon-negative plan."""
MAX_PLAN_BYTES = 64 * 1024 * 1024
"""Largest plan file read."""


@dataclass(frozen=True)
class Wanted:
    """What is searched for, and how long."""

    measures: tuple[Measure, ...] = ("makespan",)
    budget_s: float = 10.0
    evaluations: int | None = None
    workers: int = 2
    seed: int = 1
    solver: str = ""
    weights: Mapping[Measure, float] | None = None
    lex: bool = False
    many: bool = False
    """A front is to be shown or written."""
    replicas: int = 1
    ray: str | None = None

    @property
    def front(self) -> bool:
        """Whether to search for a front: `--lex` alone asks for one plan."""
        return len(self.measures) > 1 and (self.many or not self.lex)


def wanted(
    objectives: str,
    budget: str,
    *,
    evaluations: int | None,
    workers: int,
    seed: int,
    solver: str,
    weights: str | None,
    lex: bool,
    many: bool,
    replicas: int = 1,
    ray: str | None = None,
) -> Wanted:
    """The options as given; UsageError names the first that is wrong."""
    found = measures(objectives)
    if lex and weights is not None:
        raise UsageError("--lex and --weights: choose by one of them")
    if weights is not None and len(found) < 2:
        raise UsageError("--weights: they choose from a front; give several --objectives")
    return Wanted(
        found,
        seconds(budget),
        evaluations,
        workers,
        seed,
        solver,
        None if weights is None else _weights(weights, found),
        lex,
        many,
        replicas,
        ray,
    )


def measures(text: str) -> tuple[Measure, ...]:
    """`makespan,energy`."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MEASURES:
            raise UsageError(f"--objectives {name or '(nothing)'}: not available; there are {', '.join(MEASURES)}")
    if len(set(names)) != len(names):
        raise UsageError("--objectives: each one once")
    return tuple(names)  # type: ignore[arg-type]


def seconds(text: str) -> float:
    """`10` or `10s`."""
    try:
        value = float(text.strip().removesuffix("s"))
    except ValueError:
        raise UsageError(f"--budget {text}: give seconds, such as 10") from None
    if not (math.isfinite(value) and 0 < value <= 1e6):
        raise UsageError(f"--budget {text}: give more than 0 and at most 1000000 seconds")
    return value


def lacking(problem: Problem, measure: Measure) -> str:
    """Why a file gives no such measure, and the cure; "" when it does."""
    if measure == "tardiness" and problem.jobs and all(job.due is None for job in problem.jobs):
        return "no job has a due date, so there is no tardiness; add `due` or leave it out"
    powered = any(any(machine.power_kw.model_dump().values()) for machine in problem.machines)
    powered = powered or any(any(step.work_kw.values()) for step in problem.operation.values())
    if measure in ("energy", "peak") and problem.jobs and not powered:
        return f"no machine has a power, so there is no {measure}; add powers or leave it out"
    return missing(problem, measure)


def check(problem: Problem, file: Path, names: Sequence[Measure]) -> None:
    """Whether solvers know what the file states, and it says enough for these measures."""
    if reason := beyond_solvers(problem):
        raise UsageError(f"{file}: {reason}")
    for name in names:
        reason = lacking(problem, name)
        if reason:
            raise UsageError(f"{file}: {name}: {reason}")


def limits(texts: Sequence[str], problem: Problem) -> dict[Measure, float]:
    """`makespan=48` in the unit of the file, `ledger=0` in kg; times in ticks come back."""
    found: dict[Measure, float] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.partition("="))
        if name not in MEASURES or not equals:
            raise UsageError(f"--limit {text}: give NAME=VALUE, the name one of {', '.join(MEASURES)}")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (value < 0 and name not in SIGNED):
            raise UsageError(f"--limit {text}: {number or 'nothing'} is no limit; give a number from 0 on")
        if name in found:
            raise UsageError(f"--limit {name}: given twice; give it once")
        if name in TIMES:
            value = float(math.floor(value * UNIT_S[problem.time_unit] / problem.tick_s + 1e-9))
        found[name] = value
    return found


def split_into(texts: Sequence[str]) -> dict[str, int]:
    """`JOB=LOTS`."""
    found: dict[str, int] = {}
    for text in texts:
        name, equals, count = text.rpartition("=")
        if not equals or not name or not count.strip().isdecimal():
            raise UsageError(f"--split {text}: give JOB=LOTS, such as 17=3")
        if name in found:
            raise UsageError(f"--split {name}: given twice; give it once")
        found[name] = int(count)
    return found


def ticks(problem: Problem, text: str, where: str) -> int:
    """`12h`, `30min`, `90s`, or a number of the file's unit."""
    units = sorted((unit for unit in UNIT_S if unit), key=len, reverse=True)
    unit = next((one for one in units if text.strip().endswith(one)), "")
    try:
        value = float(text.strip().removesuffix(unit))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{where} {text}: give a time from 0 on, such as 12{problem.time_unit or 'h'}")
    exact = value * UNIT_S[unit or problem.time_unit] / problem.tick_s
    if abs(exact - round(exact)) > 1e-9:
        raise UsageError(f"{where} {text}: is off the grid of {problem.tick_s:g} s per tick; give a multiple of it")
    return round(exact)


def read_plan(problem: Problem, path: Path, take: int | None = None) -> Plan:
    """The plan in a `plan.json`, judged by this problem, or that number of a front; ConfigError names file and cure."""
    plans, _ = read_plans(problem, path)
    return plans[taken(path, len(plans), take)]


def taken(path: Path, count: int, take: int | None) -> int:
    """The place among `count` plans of a file that `--take` names; UsageError if it names none."""
    if take is None and count > 1:
        raise UsageError(
            f"{path}: a front of {count} plans; take one: --plan {path} --take N, N from 1 to {count} "
            "(with --out it is a file of its own, for --start and --compare)"
        )
    if take is not None and not 1 <= take <= count:
        many = f"the file holds {count} plans; give a number from 1 to {count}"
        raise UsageError(f"--take {take}: {path}: {many if count > 1 else 'the file holds one plan; give 1'}")
    return (take or 1) - 1


def read_plans(problem: Problem, path: Path) -> tuple[list[Plan], tuple[Measure, ...]]:
    """The plan that `--out` wrote, or the front that `--front` wrote, judged by this problem; and of which measures the
    file says that it is a front, if it does."""
    document = read_json(path)
    many = isinstance(document, list) and bool(document)
    documents = document if many else [document]
    plans = [_plan(problem, f"{path}[{k}]" if many else path, one) for k, one in enumerate(documents)]
    ideal = documents[0].get("ideal")
    named = tuple(name for name in ideal if name in MEASURES) if many and isinstance(ideal, dict) else ()
    return plans, named


def _plan(problem: Problem, path: Path | str, document: Any) -> Plan:
    if not isinstance(document, dict) or "assignments" not in document:
        raise ConfigError(f"{path}: no plan; give a plan.json as --out writes it, or a front.json as --front does")
    try:
        plan = plan_from_document(problem, document)
    except UsageError as error:
        raise ConfigError(f"{path}: {error}") from None
    for one in plan.assignments:
        step = problem.operation.get((one.job, one.op))
        if step is None or one.machine not in step.alternatives:
            raise ConfigError(
                f"{path}: job {one.job!r} op {one.op} on {one.machine!r} is not in the problem; give a plan made for it"
            )
    strangers = {one.machine for one in plan.machine_states} - set(problem.machine)
    if strangers:
        raise ConfigError(f"{path}: machine {min(strangers)!r} is not in the problem; give a plan made for it")
    return plan.model_copy(update={"objectives": objective(problem, plan)})


def read_json(path: Path) -> Any:
    """What is in a JSON file of ours; ConfigError names file and cure."""
    try:
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_PLAN_BYTES} bytes; give a smaller file")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a file that can") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error}); write it again with --out") from None


def writable(source: Path, *named: tuple[str, Path | None]) -> None:
    """Before searching: a result that cannot be written is a search for nothing. `named`: (option, file); `source`,
    the problem, is not written over."""
    taken: dict[Path, str] = {}
    for option, path in named:
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{option} {path}: is a folder; name a file")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: its folder does not exist; create {path.absolute().parent}")
        if path.resolve() == source.resolve():
            raise UsageError(f"{option} {path}: the problem stands there; name another file")
        other = taken.setdefault(path.resolve(), option)
        if other != option:
            raise UsageError(f"{option} {path}: {other} writes there too; name another file")
        if path.exists() and not path.is_file():  # a pipe or a device: looking would already write
            continue
        new = not path.exists()
        try:
            path.open("ab").close()
        except OSError as error:
            raise UsageError(f"{option} {path}: cannot be written ({error.strerror}); name another place") from None
        if new:
            path.unlink(missing_ok=True)


def begins(text: str | None) -> int | None:
    """UTC microseconds of a date such as 2026-11-23T06:00; without a zone it is this computer's."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.strip())
        since = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"--begins {text}: give a date and time such as 2026-11-23T06:00") from None
    if not 1970 < at.year < 2500:
        raise UsageError(f"--begins {text}: give a year from 1971 to 2499")
    return since // timedelta(microseconds=1)


def _weights(text: str, measures: tuple[Measure, ...]) -> dict[Measure, float]:
    parts = [part.strip() for part in text.split(",")]
    named = ["=" in part for part in parts]
    try:
        if all(named):
            pairs = [(part.split("=", 1)[0].strip(), float(part.split("=", 1)[1])) for part in parts]
        elif not any(named) and len(parts) == len(measures):
            pairs = [(name, float(part)) for name, part in zip(measures, parts, strict=True)]
        else:
            raise ValueError
    except ValueError:
        example = ",".join(f"{name}=1" for name in measures)
        raise UsageError(f"--weights {text}: give one number per objective, such as {example}") from None
    found: dict[Measure, float] = {}
    for name, value in pairs:
        if name not in measures:
            raise UsageError(f"--weights {name}: not among --objectives {','.join(measures)}")
        if not (math.isfinite(value) and value >= 0) or name in found:
            raise UsageError(f"--weights {text}: every weight is a number from 0 on, each objective once")
        found[name] = value
    if not any(found.values()):
        raise UsageError(f"--weights {text}: one of them must be more than 0")
    return found
