"""Independent solves side by side: the same results here and on a Ray cluster, in the order of the tasks."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cloud.scheduling import Budget, CpSat, Dispatch, Goal, Result, executor
from cloud.scheduling.executor import Local, OnRay, Task, merged
from messages.errors import UsageError
from messages.judge import violations
from messages.problem import Job, Machine, Operation, Problem


def shop(jobs: int) -> Problem:
    return Problem(
        machines=(Machine(id="a"), Machine(id="b")),
        jobs=tuple(
            Job(
                id=str(j),
                operations=tuple(Operation(op=k, alternatives={"a": 2 + j, "b": 5 - k}) for k in range(3)),
            )
            for j in range(jobs)
        ),
    )


TASKS = [Task(Dispatch(rule="spt"), shop(n), Goal(), Budget(1.0, workers=1)) for n in (1, 4, 2)]


def test_results_come_in_the_order_of_the_tasks() -> None:
    results = Local(at_once=2).run(TASKS)
    for task, result in zip(TASKS, results, strict=True):
        assert violations(task.problem, result.plans[0]) == []
        assert result.objective == Dispatch(rule="spt").solve(task.problem).objective


def test_of_several_runs_the_best_plan_counts_and_the_highest_bound() -> None:
    rules = ("lpt", "spt", "fifo")
    results = [Dispatch(rule=rule).solve(shop(6)) for rule in rules]
    results[1] = replace(results[1], bound=3.0)
    best = merged(results, Goal())
    assert best.objective["makespan"] == min(one.objective["makespan"] for one in results)
    assert (best.bound, best.status, len(best.plans)) == (3.0, "feasible", 1)
    front = merged(results, Goal(("makespan", "energy"), front=True))
    assert front.plans
    nothing = merged([Result(reason="a"), Result(reason="b", status="infeasible")], Goal())
    assert (nothing.plans, nothing.status, nothing.reason) == ((), "infeasible", "b")


def test_stopping_ends_local_tasks_with_their_best_so_far() -> None:
    stop = threading.Event()
    stop.set()
    long = [Task(CpSat(), shop(5), Goal(), Budget(60.0, workers=1), seed=seed) for seed in range(3)]
    assert all(one.plans for one in Local(at_once=2).run(long, stop))


without_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray has no package for this machine or Python"
)


def test_a_cluster_that_is_not_there_is_named_with_the_cure() -> None:
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(UsageError, match=r"shoal\[ray\]"):
            OnRay(address="127.0.0.1:1").run(TASKS)
        return
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:1"):
        OnRay(address="127.0.0.1:1").run(TASKS)


@without_ray
def test_two_workers_of_a_local_ray_find_the_same() -> None:
    here = [one.objective for one in Local().run(TASKS)]
    assert [one.objective for one in OnRay(address="local", cpus=2).run(TASKS)] == here


@pytest.fixture(scope="module")
def cluster() -> Iterator[OnRay]:
    """Two workers of a local Ray, connected for as long as the tests of this module need them."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    yield OnRay()
    ray.shutdown()


@without_ray
def test_a_solve_wider_than_any_machine_of_the_cluster_is_refused_with_the_cure(cluster: OnRay) -> None:
    wide = replace(TASKS[0], budget=Budget(1.0, workers=3))
    with pytest.raises(UsageError, match=r"3 workers.* more than 2 processors; allow at most 2"):
        cluster.run([TASKS[1], wide])


@without_ray
def test_a_cluster_that_is_busy_with_other_work_is_given_up_after_a_stated_time(
    cluster: OnRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    @ray.remote(num_cpus=2)
    def busy() -> None:
        threading.Event().wait()

    hog = busy.remote()
    monkeypatch.setattr(executor, "SLACK_S", 0.5)
    with pytest.raises(UsageError, match=r"3 of 3 solves .* not done after 3\.5 s; .* add machines"):
        cluster.run(TASKS)
    ray.cancel(hog, force=True)


@without_ray
def test_stopping_gives_up_what_the_cluster_has_not_finished(cluster: OnRay) -> None:
    stop = threading.Event()
    stop.set()
    long = [Task(CpSat(), shop(5), Goal(), Budget(600.0, workers=2), seed=seed) for seed in range(2)]
    assert {one.reason for one in cluster.run(long, stop)} == {"stopped before the cluster had answered"}


@without_ray
def test_an_error_of_a_solve_there_is_the_error_here(cluster: OnRay) -> None:
    nothing: Any = None
    with pytest.raises(AttributeError, match="NoneType"):
        cluster.run([replace(TASKS[0], problem=nothing)])
