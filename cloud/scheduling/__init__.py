"""Solvers: alternatives behind one seam. The union `Solver` is the registry; adding one is a class and one word here.

Dispatch(rule="fifo").solve(problem).plans[0]
CpSat().solve(problem, goal=Goal(("makespan", "energy")), budget=Budget(seconds=10, workers=2))
front(problem, measures=("makespan", "energy"), budget=Budget(60)).plans
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cloud.scheduling.annealing import Annealing
from cloud.scheduling.cpsat import CpSat
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.front import front
from cloud.scheduling.gwo import GreyWolf
from cloud.scheduling.large import Large
from cloud.scheduling.lns import Lns
from cloud.scheduling.portfolio import Portfolio
from cloud.scheduling.ready import warm
from cloud.scheduling.seam import KEY, MEASURES, Budget, Event, Exchange, Goal, Result
from cloud.scheduling.shifting import Shift
from cloud.scheduling.tabu import Tabu

__all__ = [
    "KEY",
    "MEASURES",
    "Annealing",
    "Budget",
    "CpSat",
    "Dispatch",
    "Event",
    "Exchange",
    "Goal",
    "GreyWolf",
    "Large",
    "Lns",
    "Portfolio",
    "Result",
    "Shift",
    "Solver",
    "Tabu",
    "front",
    "warm",
]

Solver = Annotated[
    Portfolio | Dispatch | CpSat | Lns | Tabu | Large | Shift | Annealing | GreyWolf, Field(discriminator="kind")
]
