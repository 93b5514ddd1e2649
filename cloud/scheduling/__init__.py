"""Solvers: alternatives behind one seam. The union `Solver` is the registry; adding one is a class and one word here.

Dispatch(rule="fifo").solve(problem).plans[0]
CpSat(workers=2).solve(problem, budget_s=10, goal=Goal(("makespan", "energy")))
front(problem, measures=("makespan", "energy"), budget_s=60).plans
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cloud.scheduling.cpsat import CpSat, plan_with_energy
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.front import front
from cloud.scheduling.seam import KEY, MEASURES, Event, Goal, Measure, Result

__all__ = [
    "KEY",
    "MEASURES",
    "CpSat",
    "Dispatch",
    "Event",
    "Goal",
    "Measure",
    "Result",
    "Solver",
    "front",
    "plan_with_energy",
]

Solver = Annotated[Dispatch | CpSat, Field(discriminator="kind")]
