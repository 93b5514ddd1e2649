"""One call of CP-SAT, as every solver here makes it: how time counts, how it is stopped, its solution as a plan."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ortools.sat.python import cp_model

from cloud.scheduling.cpmodel import Model
from cloud.scheduling.seam import Exchange, judged
from cloud.scheduling.shop import Names, Shop, assignments_of
from messages.plan import Plan
from messages.problem import Problem

LEAST_SLICE_S = 0.05
READING = 0.3
"""CP-SAT needs this part of the time it took to make a model only to read it, and hears nothing meanwhile."""
EXIT_S = 10.0
"""At the end of the interpreter searches of daemon threads are waited for so long."""
EVALUATION = 1e-4
"""Deterministic seconds of CP-SAT that count as one evaluation."""


def plan_from(
    problem: Problem,
    shop: Shop,
    names: Names,
    model: Model,
    solver: cp_model.CpSolver | cp_model.CpSolverSolutionCallback,
    name: str,
) -> Plan:
    """The judged plan of a solution; where no hour matters machines do in gaps what needs least energy."""
    draft = model.draft(solver)
    made = assignments_of(shop, names, draft)
    off = None
    if model.timed:
        off = {key for key, is_off in zip(names.operations, draft.off.tolist(), strict=True) if is_off}
    return judged(problem, made, solver=name, off=off)


def exact_solver(seed: int) -> cp_model.CpSolver:
    """One worker that proves sums over machines soonest: the full relaxation, and lower bounds first."""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed % 2**31
    solver.parameters.linearization_level = 2
    solver.parameters.use_objective_lb_search = True
    solver.parameters.catch_sigint_signal = False
    return solver


def is_too_late(left_s: float, made_s: float) -> bool:
    """Whether a model that took `made_s` to make cannot even be read in the time left."""
    return left_s < READING * made_s


@contextmanager
def stopping(solver: cp_model.CpSolver, run: Exchange) -> Iterator[None]:
    """While inside, an interruption ends the search; said again until it heard, as it may not have begun yet.

    Where the interpreter ends meanwhile (the caller is a daemon thread) the search ends first, and none begins: native
    threads that are still there then take the process down with "terminate called without an active exception".
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            if run.interrupted:
                solver.stop_search()

    _AT_WORK.enter(solver)
    watcher = threading.Thread(target=watch, name="stop-cpsat", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        _AT_WORK.leave(solver)


class _AtWork:
    """The searches of this process that are under way."""

    def __init__(self) -> None:
        self._lock, self._ending = threading.Lock(), False
        self._solvers: list[cp_model.CpSolver] = []
        atexit.register(self._end)

    def enter(self, solver: cp_model.CpSolver) -> None:
        with self._lock:
            if not self._ending:
                self._solvers.append(solver)
                return
        threading.Event().wait()  # for the end, which is near

    def leave(self, solver: cp_model.CpSolver) -> None:
        with self._lock:
            self._solvers.remove(solver)

    def _end(self) -> None:
        until_s = time.monotonic() + EXIT_S
        with self._lock:
            self._ending = True
        while self._solvers and time.monotonic() < until_s:
            for one in tuple(self._solvers):
                one.stop_search()
            time.sleep(0.02)


_AT_WORK = _AtWork()
