"""Independent solves side by side: on this machine, or on a Ray cluster.

    tasks = [Task(Portfolio(), problem, goal, Budget(10), seed=seed) for seed in range(4)]
    results = Local(at_once=2).run(tasks)
    results = OnRay(address="10.0.0.5:6379").run(tasks)

Points of a front, replicas with different seeds, sites, what-if questions: whatever knows nothing of each other.
Results come in the order of the tasks. A task that fails is raised, after the others were told to end; once `stop` is
set local tasks end with their best so far, and what a cluster has not finished is given up.

Nobody waits for a cluster for ever: a task that wants more processors than any of its machines has is refused, and so
is a cluster that needs `SLACK_S` more than all budgets one after another.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloud.scheduling.front import non_dominated
from cloud.scheduling.seam import KEY, Budget, Exchange, Goal, Result, Strategy
from messages.errors import UsageError
from messages.plan import Plan, Status
from messages.problem import Problem

MAX_TASKS = 10_000
"""Of one call; more are refused."""
LOOK_S = 0.2
"""Whether to stop is looked up so often while a cluster works."""
KNOCK_S = 5.0
"""A cluster that does not answer for so long is not there."""
SLACK_S = 120.0
"""For starting workers there, loading code and compiling kernels: a cluster may take so much beside the budgets."""


@dataclass(frozen=True)
class Task:
    """One solve; everything it needs travels with it."""

    solver: Strategy
    problem: Problem
    goal: Goal
    budget: Budget
    seed: int = 0
    start: Plan | None = None

    def run(self, stop: threading.Event | None = None) -> Result:
        """Solve it here."""
        run = Exchange(self.problem, self.goal, self.budget, stop=stop)
        return self.solver.solve(self.problem, seed=self.seed, start=self.start, exchange=run)


class _Place(BaseModel):
    """Settings of an executor: frozen and strict."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Local(_Place):
    """Threads of this process: compiled kernels and CP-SAT run without the GIL."""

    kind: Literal["local"] = "local"
    at_once: int = Field(default=2, ge=1, le=256, description="solves at a time; each has its own `workers` on top")

    def run(self, tasks: Sequence[Task], stop: threading.Event | None = None) -> list[Result]:
        """The results, in order."""
        _few(tasks)
        stop = stop or threading.Event()
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="solve") as pool:
            futures = [pool.submit(task.run, stop) for task in tasks]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                return [future.result() for future in futures]
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


class OnRay(_Place):
    """A Ray cluster on which the same version of shoal is installed."""

    kind: Literal["ray"] = "ray"
    address: str = Field(default="auto", min_length=1, description='"host:port"; "local" starts one on this machine')
    cpus: int | None = Field(default=None, ge=1, le=1024, description='processors of a "local" one; none: all')

    def run(self, tasks: Sequence[Task], stop: threading.Event | None = None) -> list[Result]:
        """The results, in order. A cluster that this process is connected to already is used as it is."""
        _few(tasks)
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            try:
                _knock(self.address)
                ray.init(
                    address=self.address,
                    num_cpus=self.cpus if self.address == "local" else None,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="warning",
                )
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(f"ray: {self.address} does not answer ({error}); start a cluster there") from None
        try:
            _wide_enough(ray, tasks)
            return _gathered(ray, tasks, stop or threading.Event(), self.address)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(
                f"ray: the cluster at {self.address} failed ({lines[-1][:300]}); look at its logs"
            ) from None
        finally:
            if ours:
                ray.shutdown()


Executor = Annotated[Local | OnRay, Field(discriminator="kind")]


def executor_of(address: str | None, *, at_once: int) -> Local | OnRay:
    """This machine without an address, else the cluster there."""
    return OnRay(address=address) if address else Local(at_once=at_once)


def merged(results: Sequence[Result], goal: Goal) -> Result:
    """The best plan of several runs of one problem and goal, or their common front; the highest bound of all."""
    plans = [plan for result in results for plan in result.plans]
    bounds = [result.bound for result in results if result.bound is not None]
    bound = max(bounds, default=None)
    took = max((result.runtime_s for result in results), default=0.0)
    evaluations = sum(result.evaluations for result in results)
    if not plans:
        proved = next((result for result in results if result.status == "infeasible"), None)
        reason = proved.reason if proved else "; ".join(dict.fromkeys(one.reason for one in results if one.reason))
        status: Status = "infeasible" if proved else "unknown"
        refused = bool(results) and all(one.refused for one in results)
        return Result((), {}, bound, status, took, (), reason, evaluations, refused)
    status = "optimal" if any(result.status == "optimal" for result in results) else "feasible"
    if goal.front:
        plans = non_dominated(plans, goal.order)
        plans.sort(key=lambda plan: [plan.objectives[KEY[name]] for name in goal.order])
    else:
        best = plans[0]
        for plan in plans[1:]:
            best = plan if goal.better(plan.objectives, best.objectives) else best
        plans = [best]
    history = tuple(event for result in results for event in result.history)
    return Result(tuple(plans), plans[0].objectives, bound, status, took, history, "", evaluations)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("ray is not installed; install it with `pip install 'shoal[ray]'`") from None
    return ray


def _gathered(ray: Any, tasks: Sequence[Task], stop: threading.Event, address: str) -> list[Result]:
    """What the cluster finds. An error in a task itself is raised as it was there."""
    solve = ray.remote(max_retries=1)(Task.run)
    pending = [solve.options(num_cpus=task.budget.workers).remote(task) for task in tasks]
    most_s = sum(task.budget.seconds for task in tasks) + SLACK_S
    waiting, until = pending, time.monotonic() + most_s
    try:
        while waiting and not stop.is_set():
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=LOOK_S)
            if waiting and time.monotonic() > until:
                raise UsageError(
                    f"ray: {len(waiting)} of {len(tasks)} solves at {address} were not done after {most_s:g} s; "
                    "its processors are busy with other work: add machines, or ask for less"
                )
    finally:
        for one in waiting:
            ray.cancel(one)
    lost = Result(reason="stopped before the cluster had answered")
    return [lost if one in waiting else ray.get(one) for one in pending]


def _wide_enough(ray: Any, tasks: Sequence[Task]) -> None:
    """Ray keeps a task that no machine can take waiting for ever."""
    widest = int(max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0))
    wanted = max((task.budget.workers for task in tasks), default=0)
    if wanted > widest:
        raise UsageError(
            f"ray: a solve with {wanted} workers, but no machine of the cluster has more than {widest} processors; "
            f"allow at most {widest} workers, or add a larger machine"
        )


def _knock(address: str) -> None:
    """Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def _few(tasks: Sequence[Task]) -> None:
    if len(tasks) > MAX_TASKS:
        raise UsageError(f"{len(tasks)} solves at once, at most {MAX_TASKS}; run them in parts")
