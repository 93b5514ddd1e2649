"""Every check fires on a planted fault, and none on a sound plan; a slow reference that looks at every tick agrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.curve import Curve
from messages.gaps import machine_states, moves
from messages.judge import energy_minimal_states, objective, violations
from messages.plan import Assignment, MachineState, Move, Plan
from messages.problem import Job, Machine, Operation, Power, Problem, Transport, Window

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


SHOP = Problem(
    machines=(
        Machine(
            id="m",
            power_kw=Power(work=9, idle=2, off=1, setup=4),
            preheat=1,
            setup={"": {"red": 2}, "red": {"blue": 3}},
            unavailable=(Window(start=30, end=32), Window(start=50, end=60, reason="breakdown")),
        ),
        Machine(id="kiln", power_kw=Power(work=100), batch=3),
    ),
    jobs=(
        Job(
            id="a",
            due=20,
            operations=(
                Operation(op=0, alternatives={"m": 4}, family="red", crew={"fitters": 1}),
                Operation(op=1, alternatives={"kiln": 6}, wait_min=5, wait_max=9, size=2),
                Operation(op=2, alternatives={"m": 0}),
            ),
        ),
        Job(
            id="b",
            operations=(
                Operation(op=0, alternatives={"m": 2}, family="blue", crew={"fitters": 2}),
                Operation(op=1, alternatives={"kiln": 4}),
            ),
        ),
    ),
    transport=Transport(ticks={"m": {"kiln": 3}, "kiln": {"m": 2}}, power_kw=5),
    crews={"fitters": 2},
    horizon=48,
    limits={"peak": 120, "tardiness": 4},
)
DONE = (at("a", 0, "m", 0, 4), at("b", 0, "m", 7, 9), at("a", 1, "kiln", 12, 18), at("b", 1, "kiln", 12, 18))
DONE = (*DONE, at("a", 2, "m", 20, 20))
SHOP_STATES = (
    state("preheat", -3, -2),
    state("setup", -2, 0),
    state("work", 0, 4),
    state("setup", 4, 7),
    state("work", 7, 9),
    state("work", 12, 18, "kiln"),
)
SHOP_MOVES = tuple(
    Move(job=job, from_=a, to=b, start=start, end=end)
    for job, a, b, start, end in (("a", "m", "kiln", 4, 7), ("b", "m", "kiln", 9, 12), ("a", "kiln", "m", 18, 20))
)


def done(index: int, **changes: Any) -> Plan:
    return Plan(assignments=tuple(x.model_copy(update=changes) if i == index else x for i, x in enumerate(DONE)))


def stated(*states: MachineState) -> Plan:
    return Plan(assignments=DONE, machine_states=states)


def limited(**limits: float) -> Problem:
    return SHOP.model_copy(update={"limits": limits})


def test_a_sound_plan_of_a_shop_with_everything_has_no_violation() -> None:
    assert machine_states(SHOP, DONE) == SHOP_STATES
    assert moves(SHOP, DONE) == SHOP_MOVES
    assert violations(SHOP, Plan(assignments=DONE, machine_states=SHOP_STATES, moves=SHOP_MOVES)) == []
    assert violations(SHOP, Plan(assignments=DONE)) == []


SHOP_FAULTS: dict[str, Callable[[], Plan]] = {
    "op 2 on m 19..19: starts before 20 (its predecessor on kiln ends at 18, carrying takes 2)": lambda: done(
        4, start=19, end=19
    ),
    "job 'a' op 1 on kiln 8..14: starts before 9 (its predecessor on m ends at 4, wait_min is 5)": lambda: done(
        2, start=8, end=14
    ),
    "job 'a' op 1 on kiln 14..20: starts after 13 (its predecessor on m ends at 4, wait_max is 9)": lambda: done(
        2, start=14, end=20
    ),
    "job 'b' op 1 on kiln 12..16: lasts 4, needs 6": lambda: done(3, end=16),
    "job 'a' op 1 on kiln 12..18 and job 'b' op 1 on kiln 13..17 overlap": lambda: done(3, start=13, end=17),
    "its set-up for 'blue' takes 3, but m is free from 4 only; start at 7": lambda: done(1, start=6, end=8),
    "job 'b' op 0 on m 34..36 (set up from 31): m is not available 30..32 (closed)": lambda: done(1, start=34, end=36),
    "job 'b' op 1 on kiln 45..49: ends after the horizon (48); plan it earlier or raise it": lambda: done(
        3, start=45, end=49
    ),
    "m: setup 4..7: the work after it needs it; add it": lambda: stated(
        *SHOP_STATES[:3], state("idle", 4, 7), *SHOP_STATES[4:]
    ),
    "m: setup 5..7: no work after it needs it so": lambda: stated(
        *SHOP_STATES[:3], state("idle", 4, 5), state("setup", 5, 7), *SHOP_STATES[4:]
    ),
    "m: setup -2..0: the machine is cold": lambda: stated(*SHOP_STATES[1:]),
    "m: nothing is said of 4..7; say idle or off": lambda: stated(*SHOP_STATES[:3], *SHOP_STATES[4:]),
    "move of job 'a' from m to kiln 4..7: is missing; add it": lambda: Plan(assignments=DONE, moves=SHOP_MOVES[1:]),
    "move of job 'a' from m to kiln 5..8: follows from no operations; leave it out": lambda: Plan(
        assignments=DONE, moves=(SHOP_MOVES[0].model_copy(update={"start": 5, "end": 8}), *SHOP_MOVES[1:])
    ),
    "limits.tardiness: tardiness is 5 ticks, 1 more than 4; start late orders earlier, or raise": lambda: done(
        4, start=25, end=25
    ),
}


@pytest.mark.parametrize("text", SHOP_FAULTS)
def test_each_planted_fault_of_the_shop_is_found_with_its_cure(text: str) -> None:
    found = violations(SHOP, SHOP_FAULTS[text]())
    assert any(text in one for one in found), found


def kiln_jobs(*families: str, size: int = 1) -> Problem:
    steps = [Operation(op=0, alternatives={"kiln": 4}, family=name, size=size) for name in families]
    jobs = tuple(Job(id=str(j), operations=(step,)) for j, step in enumerate(steps))
    return Problem(machines=(Machine(id="kiln", batch=3),), jobs=jobs, now=0)


def test_a_batch_is_of_one_family_and_fits_and_nothing_joins_one_that_history_has_begun() -> None:
    together = tuple(at(str(j), 0, "kiln", 2, 6) for j in range(2))
    assert violations(kiln_jobs("red", "red"), Plan(assignments=together)) == []
    (apart,) = violations(kiln_jobs("red", "blue"), Plan(assignments=together))
    assert apart == "job '0' op 0 on kiln 2..6 and job '1' op 0 on kiln 2..6 overlap"
    (full,) = violations(kiln_jobs("red", "red", size=2), Plan(assignments=together))
    assert full == "batch of jobs '0', '1' on kiln 2..6: takes 4 places, kiln has 3; plan two batches"
    running = at("0", 0, "kiln", 0, 4)
    begun = kiln_jobs("red", "red").model_copy(update={"history": (running,)})
    assert any("nothing may join" in one for one in violations(begun, plan(running, at("1", 0, "kiln", 0, 4))))
    assert violations(begun, plan(running, at("1", 0, "kiln", 4, 8))) == []


def test_people_set_up_and_work_but_never_more_than_there_are_and_a_batch_needs_them_once() -> None:
    table = {"": {"red": 2}}
    step = {"family": "red", "crew": {"fitters": 2}}
    problem = Problem(
        machines=(Machine(id="m", setup=table), Machine(id="n"), Machine(id="kiln", batch=2)),
        jobs=(
            Job(id="a", operations=(Operation(op=0, alternatives={"m": 3, "kiln": 3}, **step),)),
            Job(id="b", operations=(Operation(op=0, alternatives={"n": 3, "kiln": 3}, **step),)),
        ),
        crews={"fitters": 3},
    )
    assert violations(problem, plan(at("a", 0, "m", 5, 8), at("b", 0, "n", 0, 3))) == []
    (found,) = violations(problem, plan(at("a", 0, "m", 5, 8), at("b", 0, "n", 1, 4)))
    assert found.startswith("crew 'fitters': 4 people are needed at 3, there are 3; move job 'a' op 0 on m 5..8")
    assert violations(problem, plan(at("a", 0, "kiln", 0, 3), at("b", 0, "kiln", 0, 3))) == []


def test_two_machines_cannot_have_the_one_fitter_at_once_but_one_after_the_other() -> None:
    steps = (Operation(op=0, alternatives={"m": 3, "n": 3}, crew={"fitters": 1}),)
    jobs = tuple(Job(id=name, operations=steps) for name in "ab")
    problem = Problem(machines=(Machine(id="m"), Machine(id="n")), jobs=jobs, crews={"fitters": 1})
    assert violations(problem, plan(at("a", 0, "m", 0, 3), at("b", 0, "n", 3, 6))) == []
    (found,) = violations(problem, plan(at("a", 0, "m", 0, 3), at("b", 0, "n", 2, 5)))
    assert "2 people are needed at 2, there are 1" in found


def test_in_a_fresh_plan_the_first_set_up_may_lie_before_0_and_a_warm_machine_was_warm_then() -> None:
    step = (Operation(op=0, alternatives={"m": 2}, family="red"),)
    machine = Machine(id="m", preheat=2, setup={"": {"red": 3}}, power_kw=Power(work=9, setup=4, preheat=5))
    cold = Problem(machines=(machine,), jobs=(Job(id="a", operations=step),), tick_s=3600)
    work = (at("a", 0, "m", 1, 3),)
    assert [(one.state, one.start, one.end) for one in machine_states(cold, work)] == [
        ("preheat", -4, -2),
        ("setup", -2, 1),
        ("work", 1, 3),
    ]
    warm = cold.model_copy(update={"machines": (machine.model_copy(update={"warm_from": 0}),)})
    assert [(one.state, one.start, one.end) for one in machine_states(warm, work)] == [("setup", -2, 1), ("work", 1, 3)]
    for problem, kwh in ((cold, 2 * 5 + 3 * 4 + 2 * 9), (warm, 3 * 4 + 2 * 9)):
        assert violations(problem, plan(*work)) == []
        assert objective(problem, plan(*work))["energy_kwh"] == kwh


def test_a_set_up_cannot_have_begun_before_now_and_history_says_what_the_machine_stands_for() -> None:
    step = {"alternatives": {"m": 2}}
    problem = Problem(
        machines=(Machine(id="m", setup={"": {"red": 1}, "red": {"blue": 3}}),),
        jobs=(
            Job(id="a", operations=(Operation(op=0, family="red", **step),)),
            Job(id="b", operations=(Operation(op=0, family="blue", **step),)),
        ),
        now=5,
        history=(at("a", 0, "m", 2, 4),),
    )
    assert violations(problem, plan(*problem.history, at("b", 0, "m", 8, 10))) == []
    (found,) = violations(problem, plan(*problem.history, at("b", 0, "m", 7, 9)))
    assert "its set-up for 'blue' takes 3 and cannot have begun before now (5); start at 8" in found


def test_states_say_down_where_it_is_broken_and_nowhere_else() -> None:
    """Else a plan could call a dear state by the name of a cheap one."""
    work = (*SOUND[:2], SOUND[2], at("b", 0, "n", 50, 55))
    states = energy_minimal_states(PROBLEM, work)
    assert violations(PROBLEM, plan(*work, machine_states=states)) == []
    assert [one.state for one in states if one.machine == "n"] == ["preheat", "work", "off", "down", "off", *HOT]
    off = [one for one in states if one.machine == "m"]
    off += [*(one for one in states if one.machine == "n" and one.state in ("work", "preheat"))]
    all_off = (*off, state("off", 7, 48, "n"))
    all_down = (*off, state("down", 7, 48, "n"))
    assert any(
        "broken down 40..44; say down" in one for one in violations(PROBLEM, plan(*work, machine_states=all_off))
    )
    assert any("say off elsewhere" in one for one in violations(PROBLEM, plan(*work, machine_states=all_down)))


HOT = ("preheat", "work")


@pytest.mark.parametrize(
    ("measure", "limit", "text"),
    [
        ("makespan", 19, "makespan is 20 ticks, 1 more than 19; use faster machines"),
        ("energy", 0, "energy_kwh is "),
        ("peak", 95, "peak_kw is 100, 5 more than 95; do less at once, or raise the limit"),
    ],
)
def test_a_limit_that_is_passed_is_named_with_by_how_much(measure: str, limit: float, text: str) -> None:
    (found,) = violations(limited(**{measure: limit}), Plan(assignments=DONE))
    assert found.startswith(f"limits.{measure}: {text}")


def test_a_ledger_that_cannot_be_kept_says_by_how_much() -> None:
    document = SHOP.model_dump(exclude={"schema_", "limits"}) | {
        "carbon": {"electricity": Curve(step=1, values=(0.5,), periodic=True)},
        "capture_kg": 1.0,
        "tick_s": 3600,
    }
    problem = Problem.model_validate(document)
    kg = 0.5 * (6 * 9 + 5 * 4 + 6 * 100 + 8 * 5)  # work on m, set-ups, the kiln once, carried
    assert objective(problem, Plan(assignments=DONE))["ledger_kg"] == kg - 1
    tight = Problem.model_validate(document | {"limits": {"ledger": 0}})
    (found,) = violations(tight, Plan(assignments=DONE))
    assert found == (
        f"limits.ledger: ledger_kg is {kg - 1:g}, {kg - 1:g} more than 0; "
        "emit less, capture or export more, or raise the limit"
    )
    assert violations(Problem.model_validate(document | {"limits": {"ledger": kg - 1}}), Plan(assignments=DONE)) == []


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
