"""An order in lots: the same work, planned piece by piece, late together."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import problems

from cloud.scheduling import Dispatch
from cloud.scheduling.lots import joined, orders, split
from cloud.scheduling.seam import judged
from messages.errors import UsageError
from messages.judge import objective, violations
from messages.plan import Assignment
from messages.problem import Job, Machine, Operation, Problem

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = frozenset({"calendars", "breakdowns", "lots", "tardiness", "operation_power"})


def line(due: int | None = None) -> Problem:
    """One order through two machines, 5 and 7 ticks."""
    steps = (
        Operation(op=0, alternatives={"m": 5}, family="red"),
        Operation(op=1, alternatives={"n": 7}, size=2, wait_min=1, crew={"fitters": 1}),
    )
    machines = (Machine(id="m", setup={"": {"red": 1}}), Machine(id="n", batch=2))
    return Problem(machines=machines, jobs=(Job(id="a", operations=steps, due=due),), crews={"fitters": 1})


def test_lots_share_the_ticks_and_keep_family_crew_and_waits() -> None:
    smaller = split(line(due=9), {"a": 2})
    assert [(job.id, job.part_of, job.due) for job in smaller.jobs] == [("a/1", "a", 9), ("a/2", "a", 9)]
    first, second = smaller.jobs[0].operations
    assert (first.alternatives, first.family) == ({"m": 3}, "red")
    assert (second.alternatives, second.size, second.wait_min, second.crew) == ({"n": 4}, 1, 1, {"fitters": 1})


@QUICK
@given(problem=problems(), lots=st.integers(1, 5))
def test_lots_together_never_take_less_than_the_whole(problem: Problem, lots: int) -> None:
    begun = {one.job for one in problem.history}
    smaller = split(problem, {job.id: lots for job in problem.jobs if job.id not in begun})
    order_of = orders(smaller)
    assert set(order_of.values()) == set(orders(problem).values())
    for job in problem.jobs:
        mine = [one for one in smaller.jobs if one.id == job.id or one.id.startswith(f"{job.id}/")]
        for step in job.operations:
            for machine, whole in step.alternatives.items():
                shares = [smaller.operation[one.id, step.op].alternatives[machine] for one in mine]
                assert whole <= sum(shares) < whole + len(shares)


@QUICK
@given(problem=problems(features=PLAIN), lots=st.integers(2, 4))
def test_a_plan_in_lots_holds_and_is_late_by_its_last_lot(problem: Problem, lots: int) -> None:
    smaller = split(problem, {job.id: lots for job in problem.jobs})
    plan = Dispatch().solve(smaller).plans[0]
    assert violations(smaller, plan) == []
    ends: dict[str, int] = {}
    for one in joined(smaller, plan):
        ends[one.order] = max(one.end, ends.get(one.order, 0))
    due = {order: job.due for job in smaller.jobs for order in [orders(smaller)[job.id]]}
    late = sum(max(0, end - at) for order, end in ends.items() if (at := due[order]) is not None)
    assert objective(smaller, plan)["tardiness"] == late


def test_lots_overlap_and_are_shown_as_one_order() -> None:
    smaller = split(line(), {"a": 2})
    work = [("a/1", 0, "m", 1, 4), ("a/2", 0, "m", 4, 7), ("a/1", 1, "n", 5, 9), ("a/2", 1, "n", 9, 13)]
    plan = judged(
        smaller, [Assignment(job=j, op=k, machine=m, start=a, end=e) for j, k, m, a, e in work], solver="by hand"
    )
    assert violations(smaller, plan) == []
    first, second = joined(smaller, plan)
    assert (first.order, first.op, first.lots, first.machines, first.start, first.end) == ("a", 0, 2, ("m",), 1, 7)
    assert (second.op, second.start, second.end) == (1, 5, 13)


@pytest.mark.parametrize(
    ("lots", "cure"), [({"b": 2}, "correct the id"), ({"a": 0}, "give 1 to"), ({"a": 1000}, "give 1 to")]
)
def test_what_cannot_be_split_is_refused_with_the_cure(lots: dict[str, int], cure: str) -> None:
    with pytest.raises(UsageError, match=cure):
        split(line(), lots)


def test_a_job_that_has_begun_or_a_name_that_is_taken_is_refused() -> None:
    begun = line().model_copy(update={"now": 5, "history": (Assignment(job="a", op=0, machine="m", start=0, end=5),)})
    with pytest.raises(UsageError, match="has begun"):
        split(begun, {"a": 2})
    step = (Operation(op=0, alternatives={"m": 5}),)
    named = Problem(machines=(Machine(id="m"),), jobs=(Job(id="a", operations=step), Job(id="a/2", operations=step)))
    with pytest.raises(UsageError, match="rename"):
        split(named, {"a": 2})
