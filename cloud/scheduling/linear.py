"""A linear program, solved in a process of its own: HiGHS hears no interruption, a process can be ended at any time.

    program = Program()
    x = program.variable(cost=2.0)
    program.row([(1.0, x)], 0.5, 1.0)
    solve(program, seconds=10, over=lambda: False)     # (1.0, "")

`solve` returns within `LOOK_S` of `over` turning true, and leaves nothing running behind; the process ends itself
`GRACE_S` after its time, whatever becomes of this one. Starting it takes about 0.3 s.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

LOOK_S = 0.02
GRACE_S = 2.0


@dataclass
class Program:
    """Minimise the sum of cost times variable, while every row is within its bounds."""

    low: array[float] = field(default_factory=lambda: array("d"))
    high: array[float] = field(default_factory=lambda: array("d"))
    cost: array[float] = field(default_factory=lambda: array("d"))
    row_low: array[float] = field(default_factory=lambda: array("d"))
    row_high: array[float] = field(default_factory=lambda: array("d"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    columns: array[int] = field(default_factory=lambda: array("q"))
    factors: array[float] = field(default_factory=lambda: array("d"))

    def variable(self, cost: float, low: float = 0.0, high: float = 1.0) -> int:
        """A new variable."""
        self.cost.append(cost)
        self.low.append(low)
        self.high.append(high)
        return len(self.cost) - 1

    def row(self, terms: Iterable[tuple[float, int]], low: float, high: float) -> None:
        """low <= sum of factor times variable <= high."""
        by_column: dict[int, float] = {}
        for factor, column in terms:
            by_column[column] = by_column.get(column, 0.0) + factor
        place = len(self.row_low)
        for column in sorted(by_column):
            self.rows.append(place)
            self.columns.append(column)
            self.factors.append(by_column[column])
        self.row_low.append(low)
        self.row_high.append(high)


def solve(program: Program, *, seconds: float, over: Callable[[], bool]) -> tuple[float | None, str]:
    """The least value; or None and why there is none."""
    # -P: the files beside this one are no modules of the process, whatever they are called
    command = [sys.executable, "-P", str(Path(__file__).resolve()), f"{seconds:.3f}"]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as told:
        np.savez(given, **{name: np.array(one) for name, one in vars(program).items()})  # type: ignore[arg-type]
        given.seek(0)
        try:  # a session of its own, as Ctrl-C is ours to hear
            process = subprocess.Popen(
                command, stdin=given, stdout=told, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            return None, f"no process could be started for the linear program: {error}"
        try:
            while process.poll() is None:
                if over():
                    return None, "there was no time to solve the linear program"
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_S)
        finally:
            process.kill()
            process.wait()
        told.seek(0)
        said = told.read()
    word, _, value = said.decode().strip().partition(" ")
    if word == "optimal":
        return float(value), ""
    return None, f"the linear program was not solved: {word or 'its process ended early'}"


def _main(given: BinaryIO) -> str:
    """In the process: read the arrays, solve, and say how it ended."""
    from ortools.math_opt import model_pb2  # type: ignore[import-untyped]
    from ortools.math_opt.python import mathopt  # type: ignore[import-untyped]

    with np.load(given) as arrays:
        columns, rows = len(arrays["low"]), len(arrays["row_low"])
        model = model_pb2.ModelProto()
        model.variables.ids.extend(range(columns))
        model.variables.lower_bounds.extend(arrays["low"].tolist())
        model.variables.upper_bounds.extend(arrays["high"].tolist())
        model.variables.integers.extend([False] * columns)
        priced = np.flatnonzero(arrays["cost"])
        model.objective.linear_coefficients.ids.extend(priced.tolist())
        model.objective.linear_coefficients.values.extend(arrays["cost"][priced].tolist())
        model.linear_constraints.ids.extend(range(rows))
        model.linear_constraints.lower_bounds.extend(arrays["row_low"].tolist())
        model.linear_constraints.upper_bounds.extend(arrays["row_high"].tolist())
        kept = np.flatnonzero(arrays["factors"])
        model.linear_constraint_matrix.row_ids.extend(arrays["rows"][kept].tolist())
        model.linear_constraint_matrix.column_ids.extend(arrays["columns"][kept].tolist())
        model.linear_constraint_matrix.coefficients.extend(arrays["factors"][kept].tolist())
    settings = mathopt.SolveParameters(lp_algorithm=mathopt.LPAlgorithm.BARRIER)
    found = mathopt.solve(mathopt.Model.from_model_proto(model), mathopt.SolverType.HIGHS, params=settings)
    reason = found.termination.reason.name.lower()
    return f"{reason} {found.objective_value()!r}" if reason == "optimal" else reason


if __name__ == "__main__":
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]) + GRACE_S)  # whose end is the end of the process
    print(_main(sys.stdin.buffer))
