"""Machine code: compiled ahead of need, and once for all integers that kernels hand to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.core import event, types

from cloud.scheduling import Budget, Goal, Portfolio, warm
from cloud.scheduling.compiled import compiled
from messages.curve import Curve
from messages.problem import Job, Machine, Operation, Power, Problem


@compiled
def _called(value: int) -> int:
    return value + 1


@compiled
def _calling(narrow: Any) -> int:
    return _called(0) + _called(7) + _called(narrow[0]) + _called(len(narrow))


@pytest.mark.parametrize(
    "goal", [Goal(("makespan",)), Goal(("makespan", "energy", "carbon"), front=True)], ids=["makespan", "a swept front"]
)
def test_after_getting_ready_a_search_compiles_nothing(goal: Goal) -> None:
    jobs = tuple(
        Job(id=str(j), operations=tuple(Operation(op=k, alternatives={"a": 2 + j, "b": 3 + k}) for k in range(3)))
        for j in range(6)
    )
    day = Curve(step=5, values=(0.4, 0.1), periodic=True)
    power = Power(work=10, idle=2, preheat=5)
    machines = (Machine(id="a", power_kw=power, preheat=1), Machine(id="b", power_kw=power))
    problem = Problem(machines=machines, jobs=jobs, carbon={"electricity": day})
    warm(problem, goal=goal, solver=Portfolio())
    with event.install_recorder("numba:compile") as compiling:
        result = Portfolio().solve(problem, goal=goal, budget=Budget(600, evaluations=2_000, workers=1))
    assert result.plans
    assert not compiling.buffer, {str(data["dispatcher"]) for _, data in _data(compiling)}


def _data(recorder: Any) -> list[tuple[float, dict[str, Any]]]:
    return [(at, one.data) for at, one in recorder.buffer]


def test_what_kernels_call_is_compiled_once_whatever_integers_it_is_called_with() -> None:
    assert _calling(np.array([3], np.int32)) == 1 + 8 + 4 + 2
    called: Any = _called
    assert called.signatures in ([(types.int64,)], [])  # none: the caller came from the cache
