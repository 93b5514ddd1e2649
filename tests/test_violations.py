"""Every check fires on a planted fault, and none on a sound plan; a slow reference that looks at every tick agrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.judge import energy_minimal_states, violations
from messages.plan import Assignment, MachineState, Move, Plan
from messages.problem import Job, Machine, Operation, Power, Problem, Window

POWER = Power(work=9, idle=2, preheat=3)


def at(job: str, op: int, machine: str, start: int, end: int, **more: Any) -> Assignment:
    return Assignment(job=job, op=op, machine=machine, start=start, end=end, **more)


def state(name: str, start: int, end: int, machine: str = "m") -> MachineState:
    return MachineState.model_validate({"machine": machine, "state": name, "start": start, "end": end})


PROBLEM = Problem(
    machines=(
        Machine(id="m", preheat=2, power_kw=POWER, unavailable=(Window(start=20, end=30),)),
        Machine(id="n", preheat=2, power_kw=POWER, unavailable=(Window(start=40, end=44, reason="breakdown"),)),
    ),
    jobs=(
        Job(
            id="a",
            operations=(
                Operation(op=0, alternatives={"m": 4, "n": 5}),
                Operation(op=1, alternatives={"n": 3}),
                Operation(op=2, alternatives={"m": 0}),
            ),
        ),
        Job(id="b", release=3, operations=(Operation(op=0, alternatives={"m": 4, "n": 5}),)),
    ),
)
SOUND = (at("a", 0, "m", 0, 4), at("a", 1, "n", 4, 7), at("a", 2, "m", 7, 7), at("b", 0, "m", 5, 9))
STATES = (
    state("preheat", -2, 0),
    state("work", 0, 4),
    state("idle", 4, 5),
    state("work", 5, 9),
    state("preheat", 2, 4, "n"),
    state("work", 4, 7, "n"),
)


def plan(*work: Assignment, **more: Any) -> Plan:
    return Plan(assignments=work or SOUND, **more)


def moved(index: int, **changes: Any) -> Plan:
    return plan(*(one.model_copy(update=changes) if i == index else one for i, one in enumerate(SOUND)))


def test_a_sound_plan_has_no_violation_with_and_without_states() -> None:
    assert violations(PROBLEM, plan(problem_sha256=PROBLEM.sha256)) == []
    assert violations(PROBLEM, plan(machine_states=STATES)) == []
    assert energy_minimal_states(PROBLEM, SOUND) == STATES


FAULTS: dict[str, Callable[[], Plan]] = {
    "answers problem": lambda: plan(problem_sha256="0" * 64),
    "not planned": lambda: plan(*SOUND[:-1]),
    "planned 2 times": lambda: plan(*SOUND, at("b", 0, "m", 30, 34)),
    "not in the problem": lambda: plan(*SOUND, at("c", 0, "m", 30, 34)),
    "cannot do it": lambda: moved(1, machine="m"),
    "lasts 5, needs 4": lambda: moved(3, end=10),
    "lasts 4, needs 5": lambda: moved(3, machine="n", start=50, end=54),
    "the end of its predecessor": lambda: moved(1, start=3, end=6),
    "its release": lambda: moved(3, start=2, end=6),
    "overlap": lambda: moved(3, start=3, end=7),
    "(closed)": lambda: moved(3, start=18, end=22),
    "(breakdown)": lambda: moved(3, machine="n", start=38, end=43),
    "only history": lambda: moved(3, interrupted=True),
    "move of job 'a' from m to n 4..4: follows from no operations": lambda: plan(
        moves=(Move.model_validate({"job": "a", "from": "m", "to": "n", "start": 4, "end": 4}),)
    ),
    "no machine 'x'": lambda: plan(machine_states=(*STATES, state("idle", 0, 1, "x"))),
    "are not its operations": lambda: plan(machine_states=tuple(one for one in STATES if one.start != 5)),
    "work and idle overlap": lambda: plan(machine_states=(*STATES, state("idle", 8, 10))),
    "is cold": lambda: plan(machine_states=STATES[1:]),
    "m: work 5..9: the machine is cold": lambda: plan(machine_states=(*STATES[:2], state("off", 4, 5), *STATES[3:])),
    "preheating takes 2": lambda: plan(machine_states=(state("preheat", -1, 0), *STATES[1:])),
    "n: work 4..7: the machine is cold": lambda: plan(
        machine_states=(*STATES[:4], state("preheat", 1, 3, "n"), *STATES[5:])
    ),
    "it is broken down 40..44": lambda: plan(machine_states=(*STATES, state("idle", 7, 41, "n"))),
}


@pytest.mark.parametrize("text", FAULTS)
def test_each_planted_fault_is_found_and_named(text: str) -> None:
    assert any(text in found for found in violations(PROBLEM, FAULTS[text]()))


def test_touching_operations_and_zero_lengths_inside_others_do_not_conflict() -> None:
    assert violations(PROBLEM, moved(3, start=4, end=8)) == []
    assert violations(PROBLEM, plan(*SOUND[:2], at("a", 2, "m", 25, 25), SOUND[3])) == []
    assert violations(PROBLEM, plan(*SOUND[:2], at("a", 2, "m", 8, 8), SOUND[3])) == []


REPLAN = Problem(
    machines=(
        Machine(id="m", preheat=2, power_kw=POWER),
        Machine(id="n", preheat=2, power_kw=POWER, unavailable=(Window(start=5, end=9, reason="breakdown"),)),
    ),
    jobs=(
        Job(id="a", operations=(Operation(op=0, alternatives={"m": 4}), Operation(op=1, alternatives={"m": 3}))),
        Job(id="b", operations=(Operation(op=0, alternatives={"n": 4, "m": 4}),)),
    ),
    now=5,
    history=(at("a", 0, "m", 0, 6), at("b", 0, "n", 3, 5, interrupted=True)),
)


def test_history_is_exempt_but_must_stand_in_the_plan_as_it_was() -> None:
    after = (at("a", 1, "m", 6, 9), at("b", 0, "n", 11, 15))
    assert violations(REPLAN, plan(*REPLAN.history, *after)) == []
    changed = (REPLAN.history[0].model_copy(update={"end": 5}), REPLAN.history[1])
    assert any("history changed" in one for one in violations(REPLAN, plan(*changed, *after)))
    again = (*REPLAN.history, *after, at("a", 0, "m", 20, 24))
    assert any("history has done it" in one for one in violations(REPLAN, plan(*again)))


@pytest.mark.parametrize(
    ("after", "text"),
    [
        ((at("a", 1, "m", 5, 8), at("b", 0, "n", 11, 15)), "starts before 6"),
        ((at("a", 1, "m", 6, 9), at("b", 0, "n", 10, 14)), "broken down"),
        ((at("a", 1, "m", 6, 9), at("b", 0, "n", 8, 12)), "not available 5..9"),
        ((at("a", 1, "m", 9, 12), at("b", 0, "m", 5, 9)), "overlap"),
    ],
)
def test_a_new_plan_keeps_clear_of_running_work_repair_and_cold_machines(
    after: tuple[Assignment, ...], text: str
) -> None:
    assert any(text in one for one in violations(REPLAN, plan(*REPLAN.history, *after)))


def test_a_cold_machine_cannot_have_been_preheated_before_now_but_a_warm_one_works_at_once() -> None:
    step = (Operation(op=0, alternatives={"m": 4}),)
    cold = Problem(machines=(Machine(id="m", preheat=2),), jobs=(Job(id="a", operations=step),), now=10)
    assert any("before now" in one for one in violations(cold, plan(at("a", 0, "m", 11, 15))))
    assert violations(cold, plan(at("a", 0, "m", 12, 16))) == []
    warm = cold.model_copy(update={"machines": (Machine(id="m", preheat=2, warm_from=7),)})
    assert violations(warm, plan(at("a", 0, "m", 10, 14))) == []
    assert violations(warm, plan(at("a", 0, "m", 13, 17))) == []


SMALL = Problem(
    machines=(
        Machine(id="m", unavailable=(Window(start=6, end=8),)),
        Machine(id="n"),
    ),
    jobs=tuple(
        Job(
            id=name,
            release=release,
            operations=(
                Operation(op=0, alternatives={"m": 2, "n": 3}),
                Operation(op=1, alternatives={"m": 1, "n": 0}),
            ),
        )
        for name, release in (("a", 0), ("b", 2))
    ),
)


def sound_by_ticks(work: tuple[Assignment, ...]) -> bool:
    """The slow reference: every operation paints its ticks; nothing may be painted twice or in a closed tick."""
    painted: set[tuple[str, int]] = set()
    for one in work:
        step = SMALL.operation[one.job, one.op]
        if one.end - one.start != step.alternatives[one.machine]:
            return False
        for tick in range(one.start, one.end):
            if (one.machine, tick) in painted or (one.machine == "m" and 6 <= tick < 8):
                return False
            painted.add((one.machine, tick))
    ends = {(one.job, one.op): one.end for one in work}
    starts = {(one.job, one.op): one.start for one in work}
    return all(starts[job.id, 0] >= job.release and starts[job.id, 1] >= ends[job.id, 0] for job in SMALL.jobs)


@given(
    st.lists(
        st.tuples(st.sampled_from("mn"), st.integers(0, 11), st.sampled_from([None, None, None, 0, 1, 2, 3])),
        min_size=4,
        max_size=4,
    )
)
def test_the_checker_agrees_with_one_that_looks_at_every_tick(
    drawn: list[tuple[str, int, int | None]],
) -> None:
    keys = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    work = tuple(
        at(
            job,
            op,
            machine,
            start,
            start + (SMALL.operation[job, op].alternatives[machine] if size is None else size),
        )
        for (job, op), (machine, start, size) in zip(keys, drawn, strict=True)
    )
    assert (violations(SMALL, plan(*work)) == []) == sound_by_ticks(work)
