"""The problem says what it means, refuses what it cannot mean, and counts energy as the plant would."""

from __future__ import annotations

import hashlib
import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from shops import problems

from messages.curve import Curve
from messages.dispatch.decode import Weights
from messages.dispatch.rules import RULES, run
from messages.dispatch.state import state_from
from messages.errors import UsageError
from messages.instances import load_problem
from messages.judge import energy_minimal_states, objective, violations
from messages.openjobs import open_jobs
from messages.plan import Assignment, MachineState, Plan
from messages.problem import Job, Machine, Operation, Power, Problem, Transport, Window
from tests.logistics import problem_like

EXAMPLES = Path(__file__).parent.parent / "examples"


def kiln(**changes: object) -> Machine:
    power = Power(work=100, idle=10, preheat=30, off=1)
    return Machine(**{"id": "kiln", "carrier": "gas", "power_kw": power, "preheat": 2, **changes})


def one_job(machine: Machine, *, now: int | None = None, history: tuple[Assignment, ...] = ()) -> Problem:
    steps = (Operation(op=0, alternatives={machine.id: 4}), Operation(op=1, alternatives={machine.id: 3}))
    return Problem(machines=(machine,), jobs=(Job(id="a", operations=steps),), tick_s=3600, now=now, history=history)


def at(op: int, start: int, end: int, *, interrupted: bool = False) -> Assignment:
    return Assignment(job="a", op=op, machine="kiln", start=start, end=end, interrupted=interrupted)


def test_a_problem_travels_unchanged_and_its_hash_depends_on_its_content_only() -> None:
    problem = one_job(kiln(unavailable=(Window(start=3, end=5),)))
    again = Problem.decode(problem.encode())
    assert again == problem
    assert again.sha256 == problem.sha256
    assert one_job(kiln(preheat=1)).sha256 != problem.sha256


def shop(step: dict[str, object], **job: object) -> dict[str, object]:
    """Two jobs of two operations; `step` changes the second of the first job."""
    first = {"op": 0, "alternatives": {"m": 1}, **({"wait_min": job.pop("wait_min")} if "wait_min" in job else {})}
    second = {"op": 1, "alternatives": {"m": 1}, **step}
    other = {"id": "2", "part_of": job.get("part_of", ""), "operations": [{"op": 0, "alternatives": {"m": 1}}]}
    jobs = [{"id": "1", "operations": [first, second], **job}, other]
    return {"machines": [{"id": "m"}], "crews": {"fitters": 2}, "jobs": jobs}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"jobs": [{"id": "1", "operations": [{"op": 0, "alternatives": {"x": 1}}]}]}, "machine 'x'"),
        ({"machines": [{"id": "m"}, {"id": "m"}]}, "twice"),
        ({"machines": [{"id": "m", "preheat": -1}]}, "greater than or equal to 0"),
        ({"jobs": [{"id": "1", "operations": []}]}, "at least 1 item"),
        ({"jobs": [{"id": "1", "operations": [{"op": 0, "alternatives": {}}]}]}, "at least 1 item"),
        ({"machines": [{"id": "m", "unavailable": [{"start": 3, "end": 3}]}]}, "empty"),
        ({"machines": [{"id": "m", "warm_from": 3}]}, "warm_from"),
        ({"machines": [{"id": "m", "power_kw": {"work": float("nan")}}]}, "work"),
        ({"history": [{"job": "1", "op": 0, "machine": "m", "start": 0, "end": 1}]}, "now"),
        (
            {
                "machines": [{"id": "m", "preheat": 2, "warm_from": 6}],
                "now": 5,
                "jobs": [{"id": "1", "operations": [{"op": 0, "alternatives": {"m": 5}}]}],
                "history": [{"job": "1", "op": 0, "machine": "m", "start": 0, "end": 5}],
            },
            "preheating to 6 began at 4",
        ),
        ({"transport": {"ticks": {"m": {"x": 1}}}}, "transport.ticks: there is no place 'm'; add it"),
        (shop({"crew": {"fitters": 3}}), r"jobs.1.operations.1.crew: needs 3 of 'fitters', there are 2; add them"),
        (shop({"crew": {"welders": 1}}), "needs 1 of 'welders', there are 0"),
        (shop({"wait_min": 3, "wait_max": 2}), "wait_max 2 is less than wait_min 3; correct one"),
        (shop({"op": 0}), "jobs.1.operations: 0 stands there twice"),  # else it would come before itself
        (shop({"size": 2}), r"jobs.1.operations.1.size: 2 does not fit 'm'; raise its `batch`"),
        (shop({}, part_of="o", due=3), "jobs.2.due: the lots of order 'o' have one due date; correct one"),
        (shop({}, wait_min=-1), "wait_min"),
        (shop({"alternatives": {"m": 2.5}}), "alternatives"),
        ({"carbon": {"gas": {"step": 1, "values": [1, -1]}}}, r"carbon.gas.values: -1.0 is negative; only a tariff"),
        ({"carbon": {"gas": {"step": 1, "values": [1]}}, "horizon": 2}, "carbon.gas: ends at 1, before the horizon"),
        (
            {"tariff": {"gas": {"step": 9, "start": 1, "values": [1]}}, "horizon": 8},
            "begins at 1, after 0; give earlier",
        ),
        ({"capture_kg": 1}, "horizon: base load, exports and capture count over a fixed time; state `horizon`"),
        ({"now": 5, "horizon": 4}, r"horizon: 4 lies before now \(5\); raise it"),
        ({"limits": {"cost": 1}}, "limits.cost: no energy carrier has a tariff; add `tariff`"),
        ({"limits": {"ledger": 1}}, "limits.ledger: no energy carrier has a carbon curve; add `carbon`"),
        ({"limits": {"energy": -1}}, "limits.energy"),
        (shop({"alternatives": {"m": 10**12 - 1}}), r"jobs.1.operations.1: 999999999999 ticks; .* larger tick"),
        (shop({"wait_min": 10**12 - 2}), "jobs.1.operations.1: .* could end at 1000000000001, beyond tick 10{12};"),
        (shop({}, release=10**12 - 2), "jobs.1.release: 999999999998 ticks; .* correct it"),
        (
            shop({}) | {"machines": [{"id": "m", "unavailable": [{"start": 9, "end": 10**12 - 2}]}]},
            "machines.m.unavailable: ",
        ),
        (shop({}) | {"machines": [{"id": "m", "preheat": 4 * 10**11}]}, "could end at 1200000000003"),
        (shop({}) | {"machines": [{"id": "m", "setup": {"": {"red": 4 * 10**11}}}]}, "end at 1200000000003"),
        (shop({}) | {"transport": {"stores": ["m"]}}, "'m' stands there twice"),
        (shop({}) | {"transport": {"stores": ["raw", "raw"]}}, "'raw' stands there twice"),
        (shop({}) | {"transport": {"vehicles": 2}}, "transport.home: vehicles begin somewhere; name a machine"),
        (shop({}) | {"transport": {"vehicles": 0, "home": "m"}}, "transport.vehicles"),
        (shop({}) | {"transport": {"home": "yard"}}, "transport.home: there is no place 'yard'; add it to"),
        (shop({}) | {"transport": {"finished": "m"}}, "transport.finished: there is no store 'm'; add it to"),
        (shop({}) | {"transport": {"loading": -1}}, "transport.loading"),
        (shop({}, at="yard"), "jobs.1.at: there is no place 'yard'; add it to"),
        (shop({}) | {"machines": [{"id": "m", "buffer": {"in": 0}}]}, "machines.0.buffer.in"),
        (shop({}) | {"machines": [{"id": "m", "buffer": {"out": -1}}]}, "machines.0.buffer.out"),
        (shop({}) | {"machines": [{"id": "m", "buffer": {"policy": "hold"}}]}, "who holds needs a place"),
        (shop({}) | {"machines": [{"id": "m", "buffer": {"out": 0, "policy": "hold"}}]}, "state `out`, 1 or more"),
        (shop({}) | {"transport": {"loading": 4 * 10**11}}, "could end at 1200000000003"),
        (
            shop({}) | {"machines": [{"id": "m"}, {"id": "n"}], "transport": {"ticks": {"m": {"n": 10**12 - 2}}}},
            "could end at 1000000000001",
        ),
    ],
)
def test_a_problem_that_cannot_be_is_refused_with_its_place(document: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        Problem.model_validate(document)


def test_times_that_just_fit_are_taken_and_judged() -> None:
    problem = Problem.model_validate(shop({"alternatives": {"m": 10**12 - 2}}))
    work = [("1", 0, 0, 1), ("2", 0, 1, 2), ("1", 1, 2, 10**12)]
    done = tuple(Assignment(job=job, op=op, machine="m", start=start, end=end) for job, op, start, end in work)
    assert violations(problem, Plan(assignments=done)) == []
    assert objective(problem, Plan(assignments=done))["makespan"] == 10**12


@pytest.mark.parametrize(
    ("past", "place"),
    [
        (at(7, 0, 4), "not in `jobs`"),
        (at(0, 12, 14), "after now"),
        (at(1, 0, 3), "add what is missing"),
    ],
)
def test_history_that_cannot_have_been_is_refused(past: Assignment, place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        one_job(kiln(), now=10, history=(past,))


def test_times_convert_exactly_and_off_the_grid_is_an_error_that_names_the_place() -> None:
    problem = Problem(tick_s=1800, time_unit="h")
    assert problem.ticks(13.5, "x") == 27
    assert problem.in_unit(27) == 13.5
    with pytest.raises(UsageError, match=r"jobs\.3\.release.*off the grid"):
        problem.ticks(0.3, "jobs.3.release")


@given(st.integers(1, 50), st.integers(0, 10**6))
def test_a_finer_tick_changes_no_time_of_the_plant(factor: int, ticks: int) -> None:
    problem = one_job(kiln(unavailable=(Window(start=3, end=5),))).finer(factor)
    assert problem.tick_s * factor == pytest.approx(3600)
    assert problem.machine["kiln"].preheat == 2 * factor
    assert problem.machine["kiln"].unavailable[0].end == 5 * factor
    assert problem.operation["a", 0].alternatives["kiln"] == 4 * factor


@pytest.mark.parametrize(
    ("policy", "left"),
    [("restart", [(0, 4), (1, 3)]), ("resume", [(0, 1), (1, 3)]), ("scrap", [(0, 4), (1, 3)])],
)
def test_an_interrupted_operation_leaves_what_its_policy_says(policy: str, left: list[tuple[int, int]]) -> None:
    problem = one_job(kiln(on_breakdown=policy), now=5, history=(at(0, 1, 4, interrupted=True),))
    (job,) = open_jobs(problem)
    assert [(step.op, step.alternatives["kiln"]) for step in job.operations] == left
    assert job.ready == 5


def test_scrapping_a_later_operation_makes_the_whole_job_again_and_resuming_only_the_rest() -> None:
    past = (at(0, 0, 4), at(1, 4, 6, interrupted=True))
    (scrapped,) = open_jobs(one_job(kiln(on_breakdown="scrap"), now=6, history=past))
    (resumed,) = open_jobs(one_job(kiln(on_breakdown="resume"), now=6, history=past))
    assert [step.op for step in scrapped.operations] == [0, 1]
    assert [(step.op, step.alternatives["kiln"]) for step in resumed.operations] == [(1, 1)]


def test_running_work_is_done_with_and_holds_its_job_until_it_ends() -> None:
    (job,) = open_jobs(one_job(kiln(), now=2, history=(at(0, 0, 4),)))
    assert [step.op for step in job.operations] == [1]
    assert job.ready == 4


def test_energy_counts_preheating_work_and_the_cheaper_way_through_a_gap() -> None:
    problem = one_job(kiln())
    short = objective(problem, Plan(assignments=(at(0, 0, 4), at(1, 6, 9))))
    long = objective(problem, Plan(assignments=(at(0, 0, 4), at(1, 24, 27))))
    assert short["energy_kwh"] == 2 * 30 + 7 * 100 + 2 * 10
    assert long["energy_kwh"] == 2 * 30 + 7 * 100 + (18 * 1 + 2 * 30)
    assert long["energy_kwh_gas"] == long["energy_kwh"]
    assert long["energy_kgce"] == pytest.approx(long["energy_kwh"] * 0.1229)
    assert (short["makespan"], long["makespan"]) == (9, 27)


def test_stated_states_are_judged_as_stated_even_where_others_need_less() -> None:
    problem = one_job(kiln())
    rule = energy_minimal_states(problem, (at(0, 0, 4), at(1, 24, 27)))
    idle = tuple(one for one in rule if one.start < 4 or one.start >= 24)
    idle += (MachineState(machine="kiln", state="idle", start=4, end=24),)
    plan = Plan(assignments=(at(0, 0, 4), at(1, 24, 27)), machine_states=idle)
    assert objective(problem, plan)["energy_kwh"] == 2 * 30 + 7 * 100 + 20 * 10


def test_a_tie_goes_to_idling() -> None:
    machine = kiln(power_kw=Power(work=1, idle=10, preheat=30))
    states = energy_minimal_states(one_job(machine), (at(0, 0, 4), at(1, 10, 13)))
    assert [one.state for one in states] == ["preheat", "work", "idle", "work"]


def test_a_breakdown_cools_the_machine_and_a_warm_one_needs_no_preheating() -> None:
    broken = one_job(kiln(unavailable=(Window(start=5, end=7, reason="breakdown"),)))
    states = energy_minimal_states(broken, (at(0, 0, 4), at(1, 10, 13)))
    assert [(one.state, one.start, one.end) for one in states] == [
        ("preheat", -2, 0),
        ("work", 0, 4),
        ("off", 4, 5),
        ("down", 5, 7),
        ("off", 7, 8),
        ("preheat", 8, 10),
        ("work", 10, 13),
    ]
    warm = one_job(kiln(warm_from=0))
    assert energy_minimal_states(warm, (at(0, 1, 5), at(1, 5, 8)))[0].state == "idle"


def test_an_unused_machine_and_zero_length_work_draw_nothing() -> None:
    problem = Problem(
        machines=(kiln(), kiln(id="spare")),
        jobs=(Job(id="a", operations=(Operation(op=0, alternatives={"kiln": 0}),)),),
    )
    found = objective(problem, Plan(assignments=(at(0, 5, 5),)))
    assert found["energy_kwh"] == 0
    assert found["makespan"] == 5


def test_no_orders_cost_nothing() -> None:
    assert objective(Problem(), Plan()) == {
        "makespan": 0,
        "tardiness": 0,
        "energy_kwh": 0,
        "energy_kgce": 0,
        "peak_kw": 0,
    }


def test_tardiness_counts_each_late_job_and_no_early_one() -> None:
    step = (Operation(op=0, alternatives={"kiln": 1}),)
    problem = Problem(
        machines=(kiln(),),
        jobs=(Job(id="a", operations=step, due=3), Job(id="b", operations=step, due=9)),
    )
    ends = (at(0, 4, 5), Assignment(job="b", op=0, machine="kiln", start=5, end=6))
    assert objective(problem, Plan(assignments=ends))["tardiness"] == 2


def test_lots_of_one_order_are_late_together_by_their_last() -> None:
    step = (Operation(op=0, alternatives={"kiln": 1}),)
    lots = tuple(Job(id=name, operations=step, due=3, part_of="o") for name in "ab")
    problem = Problem(machines=(kiln(),), jobs=(*lots, Job(id="c", operations=step, due=3)))
    ends = tuple(Assignment(job=j, op=0, machine="kiln", start=s, end=s + 1) for j, s in (("a", 3), ("b", 5), ("c", 4)))
    assert objective(problem, Plan(assignments=ends))["tardiness"] == 3 + 2


def test_what_is_generated_is_not_drawn_and_what_nobody_needs_is_exported() -> None:
    """4 h of 100 kW at 0.5 kg, 30 kW of base load, 80 kW of sun from hour 2 on, over 6 hours."""
    problem = Problem(
        machines=(Machine(id="kiln", power_kw=Power(work=100)),),
        jobs=(Job(id="a", operations=(Operation(op=0, alternatives={"kiln": 4}),)),),
        tick_s=3600,
        horizon=6,
        carbon={"electricity": Curve(step=6, values=(0.5,))},
        tariff={"electricity": Curve(step=1, values=(1, 2, 3, -4, 5, 6))},
        generation={"electricity": Curve(step=2, values=(0, 80, 80))},
        base_load={"electricity": Curve(step=6, values=(30,))},
        capture_kg=10,
        export_kg_per_kwh=0.1,
    )
    found = objective(problem, Plan(assignments=(at(0, 0, 4),)))
    assert (found["energy_kwh"], found["peak_kw"]) == (400, 130)
    assert found["carbon_kg"] == 0.5 * (130 + 130 + 50 + 50)
    assert found["cost"] == 130 * 1 + 130 * 2 + 50 * 3 - 50 * 4
    assert found["exported_kwh"] == 50 + 50
    assert found["ledger_kg"] == found["carbon_kg"] - 10 - 0.1 * 100


def test_a_batch_draws_once_and_what_is_carried_draws_while_it_is_under_way() -> None:
    steps = (Operation(op=0, alternatives={"kiln": 4}, work_kw={"kiln": 60}), Operation(op=1, alternatives={"saw": 1}))
    problem = Problem(
        machines=(kiln(batch=2, preheat=0), Machine(id="saw", power_kw=Power(work=7))),
        jobs=tuple(Job(id=name, operations=steps[: 1 + (name == "a")]) for name in "ab"),
        tick_s=3600,
        transport=Transport(ticks={"kiln": {"saw": 3}}, power_kw=2, carrier="diesel"),
    )
    both = (at(0, 0, 4), at(0, 0, 4).model_copy(update={"job": "b"}))
    plan = Plan(assignments=(*both, Assignment(job="a", op=1, machine="saw", start=9, end=10)))
    found = objective(problem, plan)
    carriers = [found[f"energy_kwh_{carrier}"] for carrier in ("gas", "electricity", "diesel")]
    assert carriers == [4 * 60, 7, 3 * 2]
    assert found["energy_kwh"] == sum(carriers)


def test_a_curve_too_fine_for_the_time_of_a_plan_is_refused_rather_than_summed_for_minutes() -> None:
    problem = one_job(kiln()).model_copy(update={"carbon": {"gas": Curve(step=1, values=(0, 1), periodic=True)}})
    with pytest.raises(UsageError, match=r"carbon.gas: the plan spans \d+ of its steps.*longer step"):
        objective(problem, Plan(assignments=(at(0, 0, 4), at(1, 10**11, 10**11 + 3))))


@given(
    gaps=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    preheat=st.integers(0, 4),
    idle=st.integers(0, 9),
    heat=st.integers(0, 20),
    off=st.integers(0, 3),
)
def test_the_gap_rule_needs_no_more_than_any_other_choice_tick_by_tick(
    gaps: list[int], preheat: int, idle: int, heat: int, off: int
) -> None:
    """The slow reference tries idling or being off in every gap and adds up every tick by itself."""
    machine = kiln(preheat=preheat, power_kw=Power(work=7, idle=idle, preheat=heat, off=off))
    steps = tuple(Operation(op=k, alternatives={"kiln": 1}) for k in range(len(gaps) + 1))
    problem = Problem(machines=(machine,), jobs=(Job(id="a", operations=steps),), tick_s=3600)
    work, clock = [at(0, 0, 1)], 1
    for k, gap in enumerate(gaps, 1):
        work.append(at(k, clock + gap, clock + gap + 1))
        clock += gap + 1
    least = min(
        sum(_gap_kwh(gap, way, machine) for gap, way in zip(gaps, ways, strict=True))
        for ways in product(("idle", "off"), repeat=len(gaps))
    )
    expected = preheat * heat + 7 * len(work) + least
    assert objective(problem, Plan(assignments=tuple(work)))["energy_kwh"] == pytest.approx(expected)


def _gap_kwh(gap: int, way: str, machine: Machine) -> float:
    if way == "idle" or gap < machine.preheat:
        return sum(machine.power_kw.idle for _ in range(gap))
    return sum(
        machine.power_kw.preheat if tick >= gap - machine.preheat else machine.power_kw.off for tick in range(gap)
    )


@pytest.mark.parametrize(
    ("machine", "cure"),
    [
        ({"preheat": 2, "warm_from": 13}, "it has not begun"),
        ({"preheat": 0, "warm_from": 11}, "it has not begun"),
        (
            {"preheat": 3, "warm_from": 12, "unavailable": [{"start": 11, "end": 14, "reason": "breakdown"}]},
            "does not preheat",
        ),
    ],
)
def test_a_machine_that_cannot_be_preheating_now_is_refused(machine: dict[str, object], cure: str) -> None:
    with pytest.raises(ValidationError, match=cure):
        Problem.model_validate({"machines": [{"id": "m", **machine}], "now": 10})


def test_nothing_begins_on_a_machine_that_is_being_preheated() -> None:
    step = Operation(op=0, alternatives={"m": 2})
    machine = Machine(id="m", preheat=4, warm_from=12, power_kw=Power(work=5, preheat=3))
    problem = Problem(machines=(machine,), jobs=(Job(id="1", operations=(step,)),), now=10)
    on_time = Plan(assignments=(Assignment(job="1", op=0, machine="m", start=12, end=14),))
    assert violations(problem, on_time) == []
    early = Plan(assignments=(Assignment(job="1", op=0, machine="m", start=11, end=13),))
    assert any("preheated until 12" in one or "cold" in one for one in violations(problem, early))


def test_a_copy_with_changes_has_its_own_hash_and_look_ups_and_leaves_those_of_the_original() -> None:
    problem = one_job(kiln())
    known = (problem.sha256, problem.machine, problem.operation, problem.past, problem.apart_kw)
    other = Machine(id="other")
    changed = problem.model_copy(update={"machines": (*problem.machines, other), "jobs": (), "name": "changed"})
    assert changed.machine == {**problem.machine, "other": other}
    assert changed.operation == {} != problem.operation
    assert changed.sha256 == Problem.model_validate(changed.model_dump()).sha256 != problem.sha256
    assert problem.model_copy() == problem.model_copy(deep=True) == problem  # by their fields
    assert problem.model_copy().sha256 == problem.sha256
    assert (problem.sha256, problem.machine, problem.operation, problem.past, problem.apart_kw) == known


@given(problem=problems())
def test_the_hash_is_that_of_the_whole_canonical_document(problem: Problem) -> None:
    document = problem.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert problem.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_what_a_problem_does_not_use_leaves_its_hash_alone() -> None:
    known = {
        "ceramic.json": "653b44c94aeb9448f0fa95f64b53c750f3734ae4dc377a866c27eb41edcae13a",
        "ceramic_waves.json": "605e75bfb43088693c1784e2d4251d182fde47b0b775e00b6e5435353af5ef1c",
    }
    assert {name: load_problem(EXAMPLES / name).sha256 for name in known} == known, "kept plans name them"


@pytest.mark.parametrize(
    "change",
    [
        {"transport": {"stores": ["raw"]}},
        {"transport": {"vehicles": 1, "home": "m"}},
        {"transport": {"loading": 1}},
        {"transport": {"unloading": 1}},
        {"machines": [{"id": "m", "buffer": {"in": 2}}]},
        {"machines": [{"id": "m", "buffer": {"out": 0}}]},
        {"jobs": [{"id": "1", "at": "m", "operations": [{"op": 0, "alternatives": {"m": 1}}]}]},
    ],
)
def test_logistics_are_content_travel_and_are_said_in_words(change: dict[str, object]) -> None:
    plain = Problem.model_validate(shop({}))
    changed = Problem.model_validate(shop({}) | change)
    assert not plain.logistics and len(changed.logistics) == 1
    assert changed.sha256 != plain.sha256 and Problem.decode(changed.encode()) == changed


@pytest.mark.parametrize("seed", range(20))
def test_a_finer_tick_changes_no_move_and_no_place(seed: int) -> None:
    problem = problem_like(seed)
    coarse = run(state_from(problem), RULES["fifo"], Weights()).bids
    fine = run(state_from(problem.finer(3)), RULES["fifo"], Weights()).bids
    times = [(bid.job, bid.machine, bid.vehicle, 3 * bid.loads, 3 * bid.arrives, 3 * bid.end) for bid in coarse]
    assert [(bid.job, bid.machine, bid.vehicle, bid.loads, bid.arrives, bid.end) for bid in fine] == times
