"""Machine code ahead of need: what a solver compiles, or reads from the cache, on a few jobs of the problem itself.

    warm(problem, goal=Goal(("makespan", "energy"), front=True))
    warm_planner(problem, ("makespan", "energy"))       # and what planning again and shops of any size need

On a computer that has not run it before this takes as long as compiling does, afterwards a second or less. Where two
kinds of search are wanted, a process beside this one compiles for the second, since compiling holds the interpreter.
A planner has it done by a process of its own (`main`), which fills the cache on disk and can be killed at any moment.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.core.registry import cpu_target

from cloud.scheduling.cast import rules_for
from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.large import Large
from cloud.scheduling.portfolio import Portfolio
from cloud.scheduling.replan import replan
from cloud.scheduling.replankernel import steps
from cloud.scheduling.seam import Budget, Goal, Strategy
from cloud.scheduling.shiftfront import PRICED
from cloud.scheduling.shifting import Shift
from cloud.scheduling.shiftkernel import refine
from messages.plan import Measure
from messages.problem import Problem

JOBS, EVALUATIONS, SECONDS = 3, 16, 600.0
"""How little is solved; the most it may take, compiling included."""
SWEEP = 3_000
"""Evaluations after which a front for which hours count has used all its searches."""
SHIFT = "from cloud.scheduling.ready import compile_shift; compile_shift()"
READY = "ready"
"""What `main` says as soon as a planner of a usual shop has all it needs; then it sees to very large ones."""


def warm(problem: Problem, *, goal: Goal | None = None, solver: Strategy | None = None) -> None:
    """What `solver` (none: the portfolio) needs for this problem and goal is compiled. CP-SAT needs nothing."""
    if isinstance(solver, CpSat):
        return
    wish, small = goal or Goal(), _small(problem)
    wish = Goal(wish.order, front=wish.front)
    by_portfolio = solver is None or isinstance(solver, Portfolio)
    swept = by_portfolio and wish.front and bool(set(wish.order) & set(PRICED))
    with _compiled_aside(small, wish) if swept and not _is_cached(refine) else nullcontext():
        (solver or Portfolio()).solve(small, goal=wish, budget=Budget(SECONDS, EVALUATIONS, 1))
    if swept:
        Portfolio().solve(small, goal=wish, budget=Budget(SECONDS, SWEEP, 1))


def compile_shift() -> None:
    """Read a problem and measures from standard input and compile what `Shift` needs for the priced ones."""
    asked = json.load(sys.stdin)
    priced = tuple(one for one in asked["measures"] if one in PRICED)
    Shift().solve(
        Problem.model_validate(asked["problem"]), goal=Goal(priced[:1]), budget=Budget(SECONDS, SWEEP // 10, 1)
    )


@contextmanager
def _compiled_aside(problem: Problem, goal: Goal) -> Iterator[None]:
    """A process that compiles for `Shift` meanwhile. If it fails, that is compiled here when it is needed."""
    asked = json.dumps({"problem": problem.model_dump(mode="json"), "measures": goal.order})
    path = os.pathsep.join(one for one in sys.path if one)
    child = subprocess.Popen(
        [sys.executable, "-c", SHIFT],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for us to hear
        text=True,
    )
    atexit.register(child.kill)  # we may be left before it is through
    try:
        assert child.stdin
        with suppress(OSError), child.stdin as pipe:
            pipe.write(asked)
        yield
        child.wait(SECONDS)
    except subprocess.TimeoutExpired:
        pass  # a slow computer: the rest is compiled here
    finally:
        child.kill()
        child.wait()
        atexit.unregister(child.kill)


def _is_cached(kernel: Any) -> bool:
    return Path(kernel._cache._cache_file._index_path).exists()


def warm_planner(problem: Problem, measures: Sequence[Measure]) -> Iterator[str]:
    """Everything a planner needs for such problems, in the order of need; yields what is ready."""
    small, budget = _small(problem), Budget(SECONDS, EVALUATIONS, 1)
    before = [Dispatch(rule=rule).solve(small).plans[0] for rule in rules_for(small)]
    replan(small, before[0], goal=Goal(tuple(measures)), budget=budget)
    warm(problem, goal=Goal(tuple(measures), front=len(measures) > 1))
    yield READY
    Large().solve(small, goal=Goal(tuple(measures)), budget=budget)


def is_warm(measures: Sequence[Measure]) -> bool:
    """Whether `main` was through with these measures, for this very code and processor, in the cache that is used."""
    with suppress(OSError):
        return _mark().read_text(encoding="utf-8") == _code(measures)
    return False


def main() -> None:
    """Read a problem and measures from standard input, warm them, and leave a mark in the cache."""
    asked = json.load(sys.stdin)
    for ready in warm_planner(Problem.model_validate(asked["problem"]), asked["measures"]):
        print(ready, flush=True)
    with suppress(OSError):  # then it is done again the next time
        _mark().write_text(_code(asked["measures"]), encoding="utf-8")


def _small(problem: Problem) -> Problem:
    few = problem.jobs[:JOBS]
    past = tuple(one for one in problem.history if one.job in {job.id for job in few})
    return Problem.model_validate({**dict(problem), "jobs": few, "history": past, "limits": {}})


def _mark() -> Path:
    """Beside the machine code, so that it goes when that goes."""
    kernel: Any = steps
    return Path(kernel._cache.cache_path) / "planner.warm"


def _code(measures: Sequence[Measure]) -> str:
    """Changes with whatever machine code depends on."""
    here = Path(__file__).parent
    sources = [one.read_bytes() for one in sorted(here.glob("*.py"))]
    target: Any = cpu_target
    processor = target.target_context.codegen().magic_tuple()
    facts = (numba.__version__, platform.python_version(), processor, tuple(measures), str(here))
    return sha256(repr((facts, sources)).encode()).hexdigest()
