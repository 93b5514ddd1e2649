"""Two plans side by side, and plans frozen where they stand with one thing changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import ALL, problems, some_plan

from cloud.scheduling import Dispatch
from cloud.scheduling.compare import compare
from cloud.scheduling.seam import judged
from cloud.scheduling.whatif import Add, Down, Rush, apply, freeze
from messages.errors import UsageError
from messages.instances import load_problem
from messages.judge import objective, violations
from messages.openjobs import open_jobs
from messages.plan import Assignment, Plan
from messages.problem import Job, Machine, Operation, Power, Problem

CERAMIC = Path(__file__).parent.parent / "examples" / "ceramic.json"
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def by_rule(problem: Problem) -> Plan:
    result = Dispatch().solve(problem)
    assert result.plans, result.reason
    return result.plans[0]


@pytest.fixture(scope="module")
def ceramic() -> Problem:
    return load_problem(CERAMIC)


def test_a_plan_compared_with_itself_moved_nothing(ceramic: Problem) -> None:
    plan = by_rule(ceramic)
    found = compare(ceramic, plan, plan)
    assert (found.moved, found.share_moved, found.mean_shift) == ((), 0.0, 0.0)
    assert found.same == 60
    assert all(a == b for a, b in found.values.values())


def test_moved_operations_are_told_with_machine_and_time() -> None:
    jobs = tuple(Job(id=name, operations=(Operation(op=0, alternatives={"m": 2, "n": 2}),)) for name in "abc")
    problem = Problem(machines=(Machine(id="m"), Machine(id="n")), jobs=jobs)

    def plan(*starts: tuple[str, str, int]) -> Plan:
        return judged(
            problem,
            [Assignment(job=j, op=0, machine=m, start=at, end=at + 2) for j, m, at in starts],
            solver="by hand",
        )

    found = compare(
        problem, plan(("a", "m", 0), ("b", "m", 2), ("c", "n", 0)), plan(("a", "m", 0), ("b", "n", 3), ("c", "n", 1))
    )
    assert [(one.job, one.machines, one.shift) for one in found.moved] == [("c", ("n", "n"), 1), ("b", ("m", "n"), 1)]
    assert found.share_moved == pytest.approx(2 / 3)
    assert found.share_elsewhere == pytest.approx(1 / 3)
    assert found.mean_shift == pytest.approx(2 / 3)
    assert found.values["makespan"] == (4, 5)
    assert compare(problem, Plan(), plan(("a", "m", 0))).only_second == (("a", 0),)


@QUICK
@given(problem=problems(), seed=st.integers(0, 99), later=st.integers(0, 30))
def test_what_is_left_of_a_frozen_plan_is_still_a_plan(problem: Problem, seed: int, later: int) -> None:
    plan = judged(problem, some_plan(problem, seed), solver="any")
    assert violations(problem, plan) == []
    before = problem.model_dump_json(), plan.model_dump_json()
    now = problem.start_floor + later
    frozen = freeze(problem, plan, now)
    assert (problem.model_dump_json(), plan.model_dump_json()) == before
    assert set(frozen.history) <= set(plan.assignments)
    if any(one.state == "setup" and one.start < now < one.end for one in plan.machine_states):
        return  # it is begun again
    again = plan.model_copy(update={"problem_sha256": frozen.sha256})
    assert violations(frozen, again) == []
    assert objective(frozen, again) == pytest.approx(objective(problem, plan))
    anew = judged(frozen, some_plan(frozen, seed), solver="any")
    assert violations(frozen, anew) == []
    assert set(frozen.history) <= set(anew.assignments)


@QUICK
@given(problem=problems(features=ALL - {"wait_max"}), seed=st.integers(0, 99), later=st.integers(0, 15), data=st.data())
def test_a_breakdown_leaves_a_problem_that_can_be_planned(
    problem: Problem, seed: int, later: int, data: st.DataObject
) -> None:
    frozen = freeze(problem, judged(problem, some_plan(problem, seed), solver="any"), problem.start_floor + later)
    now = frozen.start_floor
    start = data.draw(st.integers(0, now + 5))
    down = Down(data.draw(st.sampled_from([one.id for one in problem.machines])), start, now + start + 1)
    broken = apply(frozen, down)
    assert violations(broken, judged(broken, some_plan(broken, seed), solver="any")) == []
    for one in set(broken.history) - set(problem.history):
        if one.machine == down.machine and one.end > one.start:
            assert one.end <= down.start or one.start >= down.end


def test_a_running_operation_is_cut_short_and_what_its_job_did_after_was_not_done() -> None:
    steps = (Operation(op=0, alternatives={"m": 4}), Operation(op=1, alternatives={"n": 4}))
    problem = Problem(
        machines=(Machine(id="m", on_breakdown="resume", power_kw=Power(work=1)), Machine(id="n")),
        jobs=(Job(id="a", operations=steps), Job(id="b", operations=steps[:1])),
    )
    work = [("a", 0, "m", 0, 4), ("a", 1, "n", 4, 8), ("b", 0, "m", 4, 8)]
    plan = judged(
        problem, [Assignment(job=j, op=k, machine=m, start=a, end=e) for j, k, m, a, e in work], solver="by hand"
    )
    frozen = freeze(problem, plan, now=6)
    broken = apply(frozen, Down("m", 3, 10))
    assert [(one.job, one.op, one.start, one.end, one.interrupted) for one in broken.history] == [("a", 0, 0, 3, True)]
    assert [(job.id, [step.alternatives for step in job.operations]) for job in open_jobs(broken)] == [
        ("a", [{"m": 1}, {"n": 4}]),
        ("b", [{"m": 4}]),
    ]
    plan = by_rule(broken)
    assert violations(broken, plan) == []
    assert min(one.start for one in plan.assignments if one.machine == "m" and not one.interrupted) >= 10


def test_rush_orders_and_more_jobs_change_only_what_they_name(ceramic: Problem) -> None:
    frozen = freeze(ceramic, by_rule(ceramic), now=10)
    rushed = apply(frozen, Rush("7", due=40))
    assert [job.due for job in rushed.jobs if job.id == "7"] == [40]
    assert [job for job in rushed.jobs if job.id != "7"] == [job for job in frozen.jobs if job.id != "7"]
    more = apply(frozen, Add((ceramic.jobs[0].model_copy(update={"id": "16", "release": 10}),)))
    assert len(more.jobs) == 16
    assert violations(more, by_rule(more)) == []


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (Down("kiln-9", 10, 20), "there are forming-1"),
        (Down("firing-1", 20, 20), "correct the times"),
        (Down("firing-1", 2, 5), "over before now"),
        (Rush("99", 20), "correct the id"),
        (Add((Job(id="1", operations=(Operation(op=0, alternatives={"firing-1": 2}),)),)), "another id"),
    ],
)
def test_a_change_that_cannot_be_names_the_cure(ceramic: Problem, change: Down | Rush | Add, cure: str) -> None:
    with pytest.raises(UsageError, match=cure):
        apply(freeze(ceramic, by_rule(ceramic), now=10), change)


def test_the_past_of_a_frozen_problem_stays(ceramic: Problem) -> None:
    plan = by_rule(ceramic)
    frozen = freeze(ceramic, plan, now=20)
    with pytest.raises(UsageError, match="cannot be changed"):
        freeze(frozen, plan, now=10)
    with pytest.raises(UsageError, match="give a newer one"):
        freeze(frozen, plan.model_copy(update={"assignments": plan.assignments[5:]}), now=30)
