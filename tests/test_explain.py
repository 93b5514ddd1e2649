"""What binds a plan: chains without holes back to what nobody can change, the busiest machine, late orders and why."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import problems, some_plan

from cloud.scheduling.explain import REASONS, Explanation, explain
from cloud.scheduling.held import Held
from cloud.scheduling.pieces import Run
from cloud.scheduling.seam import judged
from messages.curve import Curve
from messages.judge import violations
from messages.openjobs import open_jobs
from messages.plan import Assignment, Plan
from messages.problem import Job, Machine, Operation, Power, Problem, Transport, Window
from shoal.schedule_explain import told

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def serial(problem: Problem, gap: int = 0) -> Plan:
    """One operation after another, far enough apart for every wait, way, set-up and preheating to be kept somewhere."""
    at = max([problem.start_floor, *(one.end for one in problem.history)], default=0)
    new = []
    for job in open_jobs(problem):
        for step in job.operations:
            machine, ticks = min(step.alternatives.items(), key=lambda item: (item[1], item[0]))
            at = max(at, job.ready) + gap
            new.append(Assignment(job=step.job, op=step.op, machine=machine, start=at, end=at + ticks))
            at += ticks
    return judged(problem, new, solver="by hand")


def without_holes(problem: Problem, found: Explanation, plan: Plan) -> None:
    chain = found.critical
    if not plan.assignments:
        assert chain == ()
        return
    assert chain[0].kind in REASONS
    assert chain[-1].end == max(one.end for one in plan.assignments)
    for story in (chain, *(late.story for late in found.late)):
        for before, after in pairwise(story):
            assert before.end == after.start, (before, after)
        assert all(one.end > one.start or one.kind in (*REASONS, "work") for one in story)
    begin = chain[0]
    job = next(one for one in problem.jobs if one.id == begin.job)
    if begin.kind == "release":
        assert begin.start <= job.release
    elif begin.kind in ("now", "begin"):
        assert begin.start <= problem.start_floor
    else:
        assert any(one.start == begin.start and one.machine == begin.machine for one in problem.history)
    for late in found.late:
        assert late.late > 0 and late.story[-1].end == late.end
        if late.alone is not None and not violations(problem, plan):
            assert late.alone <= late.end
            assert late.story[0].start <= next(one for one in problem.jobs if one.id == late.job).release


@QUICK
@given(problem=problems(), gap=st.integers(0, 9), data=st.data())
def test_whatever_the_plan_its_chains_have_no_hole_back_to_a_reason(
    problem: Problem, gap: int, data: st.DataObject
) -> None:
    sound = judged(problem, some_plan(problem, gap), solver="any")
    assert violations(problem, sound) == []
    without_holes(problem, explain(problem, sound), sound)
    plan = serial(problem, gap)
    without_holes(problem, explain(problem, plan), plan)
    past = set(problem.history)
    moved = tuple(
        one if one in past else one.model_copy(update={"start": one.start + by, "end": one.end + by})
        for one in plan.assignments
        for by in [data.draw(st.integers(-min(3, one.start), 3))]
    )
    torn = plan.model_copy(update={"assignments": moved, "machine_states": ()})
    without_holes(problem, explain(problem, torn), torn)
    explain(problem, plan.model_copy(update={"assignments": moved[1:]}))


def kinds(found: Explanation) -> list[tuple[str, int, int]]:
    return [(one.kind, one.start, one.end) for one in found.critical]


def plan_of(problem: Problem, *work: tuple[str, int, str, int, int]) -> Plan:
    new = [Assignment(job=j, op=k, machine=m, start=a, end=b) for j, k, m, a, b in work]
    return judged(problem, new, solver="by hand")


def two_steps(**more: object) -> Problem:
    """Job a on m then n, job b on m: 2 + 3 and 4 ticks."""
    step = [Operation(op=0, alternatives={"m": 2}), Operation(op=1, alternatives={"n": 3}, wait_min=1)]
    document: dict[str, object] = {
        "machines": (Machine(id="m"), Machine(id="n")),
        "jobs": (
            Job(id="a", operations=tuple(step), due=6),
            Job(id="b", operations=(Operation(op=0, alternatives={"m": 4}),), due=3),
        ),
    }
    return Problem(**(document | more))


def test_the_chain_tells_queue_way_and_wait() -> None:
    problem = two_steps(transport=Transport(ticks={"m": {"n": 2}}))
    plan = plan_of(problem, ("b", 0, "m", 0, 4), ("a", 0, "m", 4, 6), ("a", 1, "n", 8, 11))
    found = explain(problem, plan)
    assert kinds(found) == [("begin", 0, 0), ("work", 0, 4), ("work", 4, 6), ("transport", 6, 8), ("work", 8, 11)]
    assert [one.job for one in found.critical] == ["b", "b", "a", "a", "a"]
    assert (found.machines[0].machine, found.machines[0].work, found.machines[0].span) == ("m", 6, 11)
    assert found.machines[0].utilisation == pytest.approx(6 / 11)
    late, other = found.late
    assert (late.job, late.late, late.alone, other.job, other.late) == ("a", 5, 7, "b", 1)
    assert late.waited() == {("queue", "m"): 4, ("transport", "n"): 2}
    assert late.longest is not None and late.longest.op == 1
    short = two_steps()
    plan = plan_of(short, ("a", 0, "m", 0, 2), ("b", 0, "m", 2, 6), ("a", 1, "n", 3, 6))
    assert kinds(explain(short, plan))[-2:] == [("wait", 2, 3), ("work", 3, 6)]


def test_the_chain_tells_a_closed_night_a_breakdown_and_a_set_up() -> None:
    night = Machine(id="m", unavailable=(Window(start=3, end=9),), setup={"": {"red": 2}})
    job = Job(id="a", operations=(Operation(op=0, alternatives={"m": 2}, family="red"),), release=1)
    problem = Problem(machines=(night,), jobs=(job,))
    plan = plan_of(problem, ("a", 0, "m", 11, 13))
    assert kinds(explain(problem, plan)) == [
        ("release", 1, 1),
        ("short", 1, 3),  # two hours of set-up and two of work do not fit before the night
        ("closed", 3, 9),
        ("setup", 9, 11),
        ("work", 11, 13),
    ]
    broken = Machine(id="m", unavailable=(Window(start=2, end=9, reason="breakdown"),), preheat=2)
    problem = Problem(machines=(broken,), jobs=(Job(id="a", operations=(Operation(op=0, alternatives={"m": 3}),)),))
    plan = plan_of(problem, ("a", 0, "m", 12, 15))
    found = explain(problem, plan).critical
    assert [one.kind for one in found] == ["begin", "short", "breakdown", "held", "work"]
    assert [(one.start, one.end) for one in found] == [(0, 0), (0, 2), (2, 11), (11, 12), (12, 15)]


def test_the_chain_goes_through_the_crew_that_was_busy_and_says_what_holds_a_step_back() -> None:
    step = {"alternatives": {"m": 2, "n": 3}, "crew": {"fitters": 1}}
    jobs = tuple(Job(id=name, operations=(Operation(op=0, **step),)) for name in "ab")
    problem = Problem(machines=(Machine(id="m"), Machine(id="n")), jobs=jobs, crews={"fitters": 1})
    plan = plan_of(problem, ("a", 0, "m", 0, 2), ("b", 0, "n", 2, 5))
    found = explain(problem, plan).critical
    assert [(one.kind, one.job) for one in found] == [("begin", "a"), ("work", "a"), ("work", "b")]
    steps = (Operation(op=0, alternatives={"m": 2}), Operation(op=1, alternatives={"n": 2}, wait_max=0))
    night = Machine(id="n", unavailable=(Window(start=0, end=8),))
    problem = Problem(machines=(Machine(id="m"), night), jobs=(Job(id="a", operations=steps),))
    plan = plan_of(problem, ("a", 0, "m", 6, 8), ("a", 1, "n", 8, 10))
    held = [one for one in explain(problem, plan).critical if one.kind == "held"]
    assert [(one.start, one.end) for one in held] == [(0, 6)] and "must begin soon" in held[0].note


def test_a_batch_waits_for_its_last_member() -> None:
    kiln = Machine(id="kiln", batch=2)
    steps = (Operation(op=0, alternatives={"m": 3}), Operation(op=1, alternatives={"kiln": 4}))
    jobs = (Job(id="a", operations=steps), Job(id="b", operations=steps[1:], due=5))
    problem = Problem(machines=(Machine(id="m"), kiln), jobs=jobs)
    plan = plan_of(problem, ("a", 0, "m", 0, 3), ("a", 1, "kiln", 3, 7), ("b", 1, "kiln", 3, 7))
    found = explain(problem, plan)
    assert [(one.kind, one.start, one.end) for one in found.critical] == [
        ("begin", 0, 0),
        ("work", 0, 3),
        ("work", 3, 7),
    ]
    assert "batch" in found.critical[-1].note
    assert (found.late[0].late, found.late[0].alone) == (2, 4)
    assert found.late[0].waited() == {("batch", "kiln"): 3}


def test_limits_say_what_they_leave_and_which_binds() -> None:
    flat = {"electricity": Curve(step=10, values=(1.0,))}
    problem = two_steps(carbon=flat, limits={"makespan": 7})
    plan = plan_of(problem, ("a", 0, "m", 0, 2), ("b", 0, "m", 2, 6), ("a", 1, "n", 3, 6))
    kept = {one.measure: one for one in explain(problem, plan, {"tardiness": 3}).limits}
    assert (kept["makespan"].spare, kept["makespan"].binds) == (1, False)
    assert (kept["tardiness"].spare, kept["tardiness"].binds) == (0, True)


def powered(**more: object) -> Problem:
    """Two ticks of work at 10 kW, idling at 1 kW, a tick of preheating at 1 kW."""
    step = (Operation(op=0, alternatives={"m": 2}),)
    machine = Machine(id="m", preheat=1, power_kw=Power(work=10, idle=1, preheat=1))
    document: dict[str, object] = {"machines": (machine,), "jobs": (Job(id="a", operations=step),), "tick_s": 3600}
    return Problem(**(document | more))


DEAR = {"electricity": Curve(step=4, values=(0.5, 0.1), periodic=True)}


@pytest.mark.parametrize(
    ("curves", "kind"),
    [({"tariff": DEAR}, "cheap"), ({"carbon": DEAR}, "clean"), ({}, "held")],
)
def test_waiting_for_cheap_or_clean_hours_is_said_where_sooner_costs_more(curves: dict[str, object], kind: str) -> None:
    problem = powered(**curves)
    found = explain(problem, plan_of(problem, ("a", 0, "m", 5, 7))).critical
    assert [(one.kind, one.start, one.end) for one in found] == [("begin", 0, 0), (kind, 0, 5), ("work", 5, 7)]
    if curves:
        assert "begun at 0" in found[1].note and next(iter(curves)).replace("tariff", "cost") in found[1].note
    else:
        assert "sooner would cost nothing" in found[1].note


def test_waiting_is_not_for_cheap_hours_where_one_sooner_begin_costs_no_more() -> None:
    problem = powered(tariff={"electricity": Curve(step=4, values=(0.5, 0.1, 0.1))})
    found = explain(problem, plan_of(problem, ("a", 0, "m", 8, 10))).critical
    assert found[1].kind == "held" and "sooner would cost nothing" in found[1].note


def test_waiting_that_saves_idling_is_told_in_kilowatt_hours_and_not_as_cheap_hours() -> None:
    step = (Operation(op=0, alternatives={"m": 2}),)
    jobs = (Job(id="a", operations=step), Job(id="b", operations=step, release=9))
    machine = Machine(id="m", preheat=9, power_kw=Power(work=1, idle=50, preheat=60))
    problem = powered(jobs=jobs, machines=(machine,), tariff={"electricity": Curve(step=100, values=(0.2,))})
    plan = plan_of(problem, ("a", 0, "m", 7, 9), ("b", 0, "m", 9, 11))
    found = next(one for one in explain(problem, plan).critical if one.kind not in ("work", "begin"))
    assert found.kind == "held" and "energy +" in found.note and " kWh" in found.note


def test_waiting_for_a_limit_names_the_limit() -> None:
    base = {"electricity": Curve(step=5, values=(95, 0))}
    problem = powered(base_load=base, horizon=10)
    plan = plan_of(problem, ("a", 0, "m", 5, 7))
    found = explain(problem, plan, {"peak": 100.0}).critical[1]
    assert found.kind == "held" and "peak would be 105" in found.note


def test_waits_are_looked_into_as_long_as_few_operations_were_judged() -> None:
    problem = powered(tariff=DEAR)
    plan = plan_of(problem, ("a", 0, "m", 5, 7))
    run = Run(plan.assignments, start=5, end=7, setup=0, before=None)
    asked = [Held(problem, plan, most=most) for most in (15, 16, 1_000)]
    assert [[one.why(run, begin)[0] for begin in (0, 1)] for one in asked] == [
        ["held", "held"],
        ["cheap", "held"],
        ["cheap", "cheap"],
    ]


def test_machines_that_do_equally_much_are_bottlenecks_together_and_early_preheating_counts() -> None:
    machines = tuple(Machine(id=name, preheat=2, power_kw=Power(preheat=1)) for name in "mn")
    jobs = tuple(Job(id=name, operations=(Operation(op=0, alternatives={name: 4}),)) for name in "mn")
    problem = Problem(machines=machines, jobs=jobs)
    found = explain(problem, plan_of(problem, ("m", 0, "m", 0, 4), ("n", 0, "n", 0, 4)))
    assert [(one.work, one.preheat, one.early, one.utilisation) for one in found.machines] == [(4, 2, 2, 1.0)] * 2
    text = " ".join(line for section in told(problem, found, None) for line in section.text)
    assert "Bottleneck: m and n, each at work or set up for 4" in text and "Before time 0" in text
