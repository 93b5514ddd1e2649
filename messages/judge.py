"""The judge of plans: what one costs, and whether it can be carried out; both apart from every solver.

    objective(problem, plan)     {"makespan": 54.0, "tardiness": 0.0, "energy_kwh": 31780.0, "peak_kw": 810.0, …}
    violations(problem, plan)    [] when nothing speaks against it
    missing(problem, "carbon")   what a file must say before its plans can be judged so; "" when it says it

`messages.measures` defines every measure, `messages.violations` every rule, `messages.gaps` what follows from the
operations alone. Compiled kernels are tested against this plain Python.
"""

from __future__ import annotations

from messages.checks import missing
from messages.gaps import energy_minimal_states
from messages.measures import KEY, draws, objective
from messages.violations import violations

__all__ = ["KEY", "draws", "energy_minimal_states", "missing", "objective", "violations"]
