"""From records to a problem: whatever has happened on the floor, it can be planned on, and the past stays."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.monitor import Tolerance, deviation, planned_energy_kwh, reason_to_replan
from cloud.scheduling import Budget, CpSat, Dispatch, Goal
from messages.carbon import day_of_carbon, emissions_kg
from messages.contracts import Finished, Interrupted, OrderedJob, PlanInForce, Record, Signal, Started, StateChanged
from messages.floor import Floor, Segment, problem_of
from messages.judge import objective, violations
from messages.plan import Plan
from messages.plant import Plant, load_plant
from messages.problem import Problem

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
T0 = 1_700_000_000 * SECOND // HOUR * HOUR
PLANT = load_plant(Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml")
JOBS = {name: OrderedJob(job=name, product=name) for name in PLANT.products}


def in_force(problem: Problem, plan: Plan) -> PlanInForce:
    return PlanInForce(plan=plan.model_copy(update={"t0": T0, "revision": 1}), tick_s=problem.tick_s, frozen_until=T0)


def replayed(plant: Plant, problem: Problem, plan: Plan, until: int, rng: random.Random) -> list[Record]:
    """Records of carrying a plan out, every operation up to 10 % longer, until a time at which one machine breaks."""
    free: dict[str, int] = {}
    ready: dict[str, int] = {}
    told: list[Record] = []
    running: list[tuple[str, str, int, int]] = []
    for one in sorted(plan.assignments, key=lambda one: (one.start, one.end)):
        took = round((one.end - one.start) * problem.tick_s * SECOND * rng.uniform(0.95, 1.1))
        start = max(
            T0 + round(one.start * problem.tick_s) * SECOND, free.get(one.machine, 0), ready.get(one.job, 0)
        ) + rng.randrange(300 * SECOND)
        free[one.machine] = ready[one.job] = start + took
        if start >= until:
            continue
        told.append(Started(at=start, machine=one.machine, job=one.job, op=one.op, plan_revision=1))
        if start + took < until:
            told.append(Finished(at=start + took, machine=one.machine, job=one.job, op=one.op, started_at=start))
            told.append(StateChanged(at=start + took, machine=one.machine, state="idle"))
        else:
            running.append((one.machine, one.job, one.op, start))
    if running:
        machine, job, op, start = rng.choice(running)
        told.append(Interrupted(at=until, machine=machine, job=job, op=op, started_at=start))
        told.append(StateChanged(at=until, machine=machine, state="down", repair_at=until + rng.randrange(8) * HOUR))
    return sorted(told, key=lambda record: record.at)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(0, 33 * 60), st.integers(0, 30))
def test_after_any_breakdown_at_any_time_there_is_a_plan_and_the_past_is_untouched(
    seed: int, minute: int, answer_min: int
) -> None:
    rng = random.Random(seed)
    fresh = problem_of(PLANT, JOBS, Floor(), t0=T0, now=T0)
    plan = Dispatch().solve(fresh).plans[0]
    floor = Floor()
    for record in replayed(PLANT, fresh, plan, T0 + minute * MINUTE, rng):
        floor.apply(record)
    problem = problem_of(PLANT, JOBS, floor, t0=T0, now=T0 + (minute + answer_min) * MINUTE)
    again = Dispatch().solve(problem).plans[0]
    assert violations(problem, again) == []
    assert set(problem.history) <= set(again.assignments)
    done = {(one.job, one.op) for one in again.assignments if not one.interrupted}
    assert done == {(job, op) for job in JOBS for op in range(4)}


def test_the_solver_answers_a_breakdown_better_than_the_rule_and_as_validly() -> None:
    fresh = problem_of(PLANT, JOBS, Floor(), t0=T0, now=T0, signals={"carbon": day_of_carbon(T0)})
    plan = Dispatch().solve(fresh).plans[0]
    floor = Floor()
    for record in replayed(PLANT, fresh, plan, T0 + 15 * HOUR, random.Random(7)):
        floor.apply(record)
    problem = problem_of(PLANT, JOBS, floor, t0=T0, now=T0 + 15 * HOUR, signals={"carbon": day_of_carbon(T0)})
    rule = Dispatch().solve(problem).plans[0]
    better = CpSat().solve(problem, goal=Goal(("makespan", "energy")), budget=Budget(2), seed=1, start=rule).plans[0]
    assert violations(problem, better) == []
    assert objective(problem, better)["makespan"] <= objective(problem, rule)["makespan"]
    assert objective(problem, better)["carbon_kg"] > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(60, 33 * 60))
def test_the_order_in_which_records_arrive_does_not_matter(seed: int, minute: int) -> None:
    rng = random.Random(seed)
    fresh = problem_of(PLANT, JOBS, Floor(), t0=T0, now=T0)
    told = replayed(PLANT, fresh, Dispatch().solve(fresh).plans[0], T0 + minute * MINUTE, rng)
    orderly, shuffled = Floor(), Floor()
    for record in told:
        orderly.apply(record)
    # Batches overtake each other within a short while: an end may come before its beginning.
    for record in sorted(told, key=lambda record: record.at + rng.randrange(30 * MINUTE)):
        shuffled.apply(record)
    assert set(shuffled.segments) == set(orderly.segments)
    assert shuffled.running == orderly.running
    assert {name: now.state for name, now in shuffled.machines.items()} == {
        name: now.state for name, now in orderly.machines.items()
    }


def test_a_floor_without_orders_is_an_empty_plan() -> None:
    problem = problem_of(PLANT, {}, Floor(), t0=T0, now=T0)
    assert Dispatch().solve(problem).plans[0].assignments == ()


def test_carbon_of_a_plan_is_that_of_its_energy_hour_by_hour() -> None:
    signal = day_of_carbon(T0)
    problem = problem_of(PLANT, JOBS, Floor(), t0=T0, now=T0, signals={"carbon": signal})
    plan = Dispatch().solve(problem).plans[0]
    measured = objective(problem, plan)
    body = in_force(problem, plan)
    pieces: dict[str, list[tuple[int, float]]] = {"electricity": [], "gas": []}
    for carrier in pieces:
        part = PLANT.model_copy(
            update={"workshops": tuple(w for w in PLANT.workshops if w.machines and w.carrier == carrier)}
        )
        for quarter in range(4 * 60):
            since = T0 + quarter * 15 * MINUTE
            kwh = planned_energy_kwh(body, Plant.model_construct(**dict(part)), since, since + 15 * MINUTE)
            pieces[carrier].append((since, kwh))
    total = sum(kwh for hours in pieces.values() for _, kwh in hours)
    assert total == pytest.approx(measured["energy_kwh"], rel=1e-9)
    carbon = sum(emissions_kg(hours, signal, carrier) for carrier, hours in pieces.items())
    assert carbon == pytest.approx(measured["carbon_kg"], rel=1e-6)


def test_lateness_is_that_of_the_latest_operation_not_done() -> None:
    problem = problem_of(PLANT, JOBS, Floor(), t0=T0, now=T0)
    plan = Dispatch().solve(problem).plans[0]
    body = in_force(problem, plan)
    first = min(plan.assignments, key=lambda one: one.start)
    begins = T0 + round(first.start * 60) * SECOND
    floor = Floor()
    assert deviation(body, floor, begins).late_s == 0
    assert deviation(body, floor, begins + HOUR).late_s == 3600
    floor.running = {
        one.machine: Segment(one.job, one.op, one.machine, T0 + one.start * MINUTE)
        for one in plan.assignments
        if one.start == first.start
    }
    assert deviation(body, floor, begins + 10 * MINUTE).late_s == 0
    ends = T0 + first.end * MINUTE
    found = deviation(body, floor, ends + 5 * MINUTE)
    assert found.late_s >= 300 and found.expected_end == (found.planned_end or 0) + round(found.late_s * SECOND)


def test_reasons_to_plan_again_are_a_breakdown_a_return_at_another_time_and_lateness_with_pauses() -> None:
    problem = problem_of(PLANT, JOBS, Floor(), t0=T0, now=T0)
    body = in_force(problem, Dispatch().solve(problem).plans[0])
    floor = Floor()

    def reason(now: int, known: dict[str, int | None] | None = None, planned_at: int = T0) -> str | None:
        return reason_to_replan(
            body, floor, now, planned_at=planned_at, planned_down=known or {}, tolerance=Tolerance(2700, 3600)
        )

    assert reason(T0) is None
    assert "late" in (reason(T0 + 3 * HOUR) or "")
    assert reason(T0 + 3 * HOUR, planned_at=T0 + 3 * HOUR) is None, "a pause between plans that answer lateness"
    floor.apply(StateChanged(at=T0, machine="firing-1", state="down", repair_at=T0 + HOUR))
    assert reason(T0) == "firing-1 broke down"
    assert reason(T0, {"firing-1": T0 + HOUR}) is None
    assert "another time" in (reason(T0, {"firing-1": T0 + 2 * HOUR}) or "")
    assert "not back" in (reason(T0 + 2 * HOUR, {"firing-1": T0 + HOUR}, planned_at=T0 + MINUTE) or "")
    floor.apply(StateChanged(at=T0 + 10 * MINUTE, machine="firing-1", state="off"))
    assert "back early" in (reason(T0 + 10 * MINUTE, {"firing-1": T0 + 9 * HOUR}) or "")
    assert reason(T0 + 10 * MINUTE, {"firing-1": T0 + 20 * MINUTE}) is None


def test_a_tariff_and_what_the_sun_gives_become_part_of_the_problem() -> None:
    hours = {"revision": 1, "unit": "", "start": T0, "step_s": 3600.0}
    signals = {
        "tariff": Signal(name="tariff", values=[0.1, 0.3], **hours),
        "generation": Signal(name="generation", values=[0.0, 50.0], **hours),
    }
    problem = problem_of(PLANT, JOBS, Floor(), t0=T0, now=T0, signals=signals)
    assert problem.tariff["electricity"].at(round(3600 / PLANT.tick_s)) == 0.3
    assert problem.generation["electricity"].values == (0.0, 50.0)
    assert problem.carbon == {}
    plan = Dispatch().solve(problem).plans[0]
    sunny = objective(problem, plan)["cost"]
    assert sunny < objective(problem.model_copy(update={"generation": {}}), plan)["cost"]
