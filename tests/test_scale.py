"""What the judges and the arrays of a shop are held to: the plain way of working it out, and growth that is linear."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import problems, random_shop, some_plan

from cloud.scheduling.largekernel import play, tournament
from cloud.scheduling.seam import judged
from cloud.scheduling.shop import FAR, WORK, shop_of
from messages.gaps import Work, set_up_for, works
from messages.judge import draws, violations
from messages.openjobs import open_jobs
from messages.plan import Assignment, Plan
from messages.problem import Problem
from messages.uncollected import uncollected


def plain_works(problem: Problem, machine: str, assignments: list[Assignment]) -> list[Work]:
    """One machine's works, by looking through everything again and again."""
    rule = problem.machine[machine]
    family = {(job.id, step.op): step.family for job in problem.jobs for step in job.operations}
    groups: list[list[Assignment]] = []
    for one in (each for each in assignments if each.machine == machine and each.end > each.start):
        alike = (one.start, one.end, family[one.job, one.op])
        for group in groups:
            if rule.batch > 1 and (group[0].start, group[0].end, family[group[0].job, group[0].op]) == alike:
                group.append(one)
                break
        else:
            groups.append([one])
    groups.sort(key=lambda group: (group[0].start, group[0].end, group[0].job, group[0].op))
    found: list[Work] = []
    for group in groups:
        last = max(found, key=lambda one: (one.end, one.start, found.index(one)), default=None)
        before = last.family if last else rule.family
        own = family[group[0].job, group[0].op]
        ticks = rule.setup.get(before, {}).get(own, 0)
        found.append(Work(group[0].start, group[0].end, own, ticks, tuple(group)))
    return found


@settings(max_examples=80)
@given(problem=problems(), seed=st.integers(0, 99))
def test_works_powers_and_families_are_those_of_the_plain_way(problem: Problem, seed: int) -> None:
    plan = judged(problem, some_plan(problem, seed), solver="plain")
    lines = works(problem, plan.assignments)
    for machine in problem.machines:
        assert lines.get(machine.id, []) == plain_works(problem, machine.id, list(plan.assignments))
    done = {one.id: plain_works(problem, one.id, list(problem.history)) for one in problem.machines}
    for machine in problem.machines:
        last = max(done[machine.id], key=lambda one: (one.end, one.start), default=None)
        assert set_up_for(problem)[machine.id] == (last.family if last else machine.family)
    drawn = [
        (problem.machine[name].carrier, kw, work.start, work.end)
        for name, line in lines.items()
        for work in line
        if (kw := max(problem.work_kw(one.job, one.op, name) for one in work.members))
    ]
    assert list(draws(problem, plan))[: len(drawn)] == drawn


@settings(max_examples=80)
@given(problem=problems())
def test_the_arrays_of_a_shop_are_those_of_the_plain_way(problem: Problem) -> None:
    shop, names = shop_of(problem)
    rows = [
        (name, ticks, problem.work_kw(job.id, step.op, name))
        for job in open_jobs(problem)
        for step in job.operations
        for name, ticks in step.alternatives.items()
    ]
    shown = zip(
        (names.machines[m] for m in shop.alt_machine), shop.alt_ticks.tolist(), shop.alt_kw.tolist(), strict=True
    )
    assert rows == list(shown)
    steps = [problem.operation[key] for key in names.operations]
    assert shop.wait_max.tolist() == [FAR if one.wait_max is None else one.wait_max for one in steps]
    assert shop.wait_min.tolist() == [one.wait_min for one in steps]
    assert shop.size.tolist() == [one.size for one in steps]
    assert shop.crew_need.tolist() == [[one.crew.get(crew, 0) for crew in problem.crews] for one in steps]
    assert shop.power[:, WORK].tolist() == [one.power_kw.work for one in problem.machines]
    assert len(shop.alt_dead) == len(shop.alt_machine)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 9))))
def test_the_tournament_knows_the_first_of_those_that_wake_soonest(
    begin: list[int], changes: list[tuple[int, int]]
) -> None:
    wake = np.full(len(begin), FAR, np.int64)
    least = tournament(len(wake))
    for m, tick in [*enumerate(begin), *((m % len(begin), tick) for m, tick in changes)]:
        wake[m] = tick
        play(wake, least, m)
        assert least[1] == wake.argmin()


def looked_at(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often anything of an assignment is read while a plan is checked: a count, and so no matter of speed."""
    reads = 0
    plan = Plan(assignments=tuple(some_plan(problem)))

    def counted(self: Assignment, name: str) -> object:
        nonlocal reads
        reads += 1
        return object.__getattribute__(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Assignment, "__getattribute__", counted)
        assert violations(problem, plan) == []
    return reads


def test_checking_a_plan_of_ten_times_the_work_takes_ten_times_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = {"setup", "transport", "curves"}
    small, large = (random_shop(3, jobs=30 * n, machines=4 * n, features=features) for n in (1, 10))
    sizes = [len(one.operation) for one in (small, large)]
    looks = [looked_at(one, monkeypatch) for one in (small, large)]
    assert looks[1] / looks[0] < 1.3 * sizes[1] / sizes[0]


def test_the_collector_is_off_while_something_large_is_made_and_on_afterwards_even_if_it_fails() -> None:
    inside, may_end = threading.Event(), threading.Event()

    @uncollected
    def long() -> bool:
        inside.set()
        return may_end.wait(30) and gc.isenabled()

    @uncollected
    def fails() -> None:
        assert not gc.isenabled()
        raise ValueError("as it should")

    assert gc.isenabled()
    kept: list[bool] = []
    other = threading.Thread(target=lambda: kept.append(long()))
    other.start()
    inside.wait(30)
    with pytest.raises(ValueError, match="as it should"):
        fails()
    assert not gc.isenabled()  # the other is still at it
    may_end.set()
    other.join(30)
    assert kept == [False]
    assert gc.isenabled()


def test_who_has_switched_the_collector_off_finds_it_off() -> None:
    gc.disable()
    try:
        uncollected(lambda: None)()
        assert not gc.isenabled()
    finally:
        gc.enable()
