"""Plans with vehicles and buffers: what was dispatched can be carried out, and what cannot is found by both judges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloud.dispatch import Mcts
from cloud.scheduling import Budget, Solver
from messages.dispatch.check import faults
from messages.dispatch.decode import Schedule, Weights, decode, measures
from messages.dispatch.planned import plan_of
from messages.dispatch.rules import RULES, run
from messages.dispatch.shop import shop_from
from messages.dispatch.simulate import Course, simulate
from messages.dispatch.state import Bid, state_from
from messages.instances import load_problem, plan_document, plan_from_document
from messages.judge import objective, violations
from messages.plan import Assignment, Move, Plan
from messages.problem import Buffer, Problem
from shoal.schedule import schedule
from tests.dispatching import some_sequence
from tests.logistics import problem_like

EXAMPLES = Path(__file__).parent.parent / "examples"
SEEDS = st.integers(0, 10**9)
QUICK = settings(max_examples=150, deadline=None)


def by_rule(problem: Problem, seed: int) -> Schedule:
    return run(state_from(problem), RULES[sorted(RULES)[seed % len(RULES)]], Weights())


@QUICK
@given(seed=SEEDS)
def test_what_was_dispatched_is_a_plan_that_nothing_speaks_against(seed: int) -> None:
    problem = problem_like(seed)
    state = state_from(problem)
    for found in (by_rule(problem, seed), decode(state, some_sequence(state, seed))):
        assume(not found.faults)
        plan = plan_of(problem, found.bids)
        assert violations(problem, plan) == []
        assert plan.objectives["makespan"] == measures(found).makespan


@QUICK
@given(seed=SEEDS, share=st.floats(0, 1))
def test_planning_anew_from_the_middle_is_a_plan_as_well(seed: int, share: float) -> None:
    problem = problem_like(seed)
    schedule = by_rule(problem, seed)
    assume(not schedule.faults)
    now = round(share * schedule.end.last)
    done = [one for one in plan_of(problem, schedule.bids).assignments if one.start < now]
    later = replan(problem, now, done)
    again = by_rule(later, seed)
    assume(not again.faults)
    assert violations(later, plan_of(later, again.bids)) == []


def replan(problem: Problem, now: int, history: list[Assignment]) -> Problem:
    """The problem as it is at `now`; machines that had worked before are cold."""
    return Problem.model_validate(problem.model_dump() | {"now": now, "history": history})


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS)
def test_both_judges_count_the_same_parts_before_and_behind_machines(seed: int) -> None:
    problem = problem_like(seed, cold=False)
    no_places = [machine.model_copy(update={"buffer": Buffer()}) for machine in problem.machines]
    bids = by_rule(problem.model_copy(update={"machines": tuple(no_places)}), seed).bids
    seen = [
        one if one.came_from else replace(one, loads=one.start, leaves=one.start, arrives=one.start) for one in bids
    ]
    found = violations(problem, plan_of(problem, bids))
    assert bool(found) == bool(faults(shop_from(problem), seen)), (found, faults(shop_from(problem), seen))


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS)
def test_a_planted_fault_is_found_by_both_judges_or_is_none(seed: int) -> None:
    problem = problem_like(seed, cold=False)
    shop = shop_from(problem)
    schedule = by_rule(problem, seed)
    assume(not schedule.faults)
    wrong = spoilt(problem, list(schedule.bids), np.random.default_rng(seed))
    found = violations(problem, plan_of(problem, wrong))
    assert bool(found) == bool(faults(shop, wrong)), (found, faults(shop, wrong))


def spoilt(problem: Problem, bids: list[Bid], rng: np.random.Generator) -> list[Bid]:
    """One award with other times, or another vehicle. What a plan does not state (when a part from nowhere arrives;
    that the way to the store of finished parts is a step) is as it would be judged."""
    at = int(rng.integers(len(bids)))
    bid, by = bids[at], int(rng.integers(1, 9)) * (-1 if rng.random() < 0.7 else 1)
    kind = rng.choice(["all", "work", "way", "longer", "vehicle"])
    if kind in ("all", "way"):
        bid = replace(bid, loads=bid.loads + by, leaves=bid.leaves + by, arrives=bid.arrives + by)
    if kind in ("all", "work"):
        bid = replace(bid, start=bid.start + by, end=bid.end + by)
    if kind == "longer":
        bid = replace(bid, end=max(bid.start, bid.end + by))
    if kind == "vehicle" and bid.vehicle >= 0:
        bid = replace(bid, vehicle=int(rng.integers(0, problem.transport.vehicles or 1)))
    assume(min(bid.loads, bid.start) >= 0)
    bids[at] = bid if bid.machine in problem.machine else replace(bid, start=bid.arrives, end=bid.arrives)
    return [
        one if one.came_from else replace(one, loads=one.start, leaves=one.start, arrives=one.start) for one in bids
    ]


PLACES: dict[str, Any] = {
    "machines": [{"id": "a", "buffer": {"in": 1, "out": 0}}, {"id": "b", "buffer": {"in": 1}}],
    "jobs": [
        {
            "id": name,
            "at": "raw",
            "operations": [{"op": 0, "alternatives": {"a": 4}}, {"op": 1, "alternatives": {"b": 2}, "wait_min": 1}],
        }
        for name in ("1", "2", "3")
    ],
    "transport": {
        "ticks": {"raw": {"a": 3}, "a": {"b": 2, "raw": 3}, "b": {"raw": 4}},
        "stores": ["raw"],
        "vehicles": 1,
        "home": "a",
        "loading": 1,
        "unloading": 1,
        "power_kw": 2.0,
    },
}
"""A vehicle needs 3 from home to the store, 5 to bring a part to a, 4 from there to b."""
WAYS = ((3, "1", "raw", "a"), (13, "1", "a", "b"), (21, "2", "raw", "a"), (31, "2", "a", "b"))
"""Begin of loading, job, from, to; 4 from b to the store."""
WORK = {("1", 0): 8, ("1", 1): 17, ("2", 0): 26, ("2", 1): 35, ("3", 0): 44, ("3", 1): 53}
LATE = ((39, "3", "raw", "a"), (49, "3", "a", "b"))


def told(
    problem: Problem | None = None,
    *,
    ways: Sequence[tuple[int, str, str, str]] = (*WAYS, *LATE),
    work: Mapping[tuple[str, int], int] = WORK,
    vehicle: str | None = "1",
) -> Plan:
    """A plan of `PLACES`."""
    problem = problem or Problem.model_validate(PLACES)
    made = []
    for start, job, before, after in ways:
        end = start + (problem.transport.carried(before, after) or 0)
        way = {"job": job, "from": before, "to": after, "vehicle": vehicle, "start": start, "end": end}
        made.append(Move.model_validate(way))
    done = []
    for (job, op), start in work.items():
        machine, ticks = next(iter(problem.operation[job, op].alternatives.items()))
        done.append(Assignment(job=job, op=op, machine=machine, start=start, end=start + ticks))
    return Plan(assignments=tuple(done), moves=tuple(made))


def test_a_plan_that_a_vehicle_and_buffers_allow_is_in_order_and_carrying_draws_power() -> None:
    problem = Problem.model_validate(PLACES)
    assert violations(problem, told()) == []
    assert objective(problem, told())["energy_kwh"] == pytest.approx((3 * 5 + 3 * 4) * 2.0 / 3600)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ways": (*WAYS[1:], *LATE)}, "its part lies at 'raw'; state the move to 'a'"),
        ({"ways": ((2, "1", "raw", "a"), *WAYS[1:], *LATE)}, "vehicle 1 can be there at 3"),
        ({"ways": (*WAYS[:2], (20, *WAYS[2][1:]), WAYS[3], *LATE)}, "vehicle 1 can be there at 21"),
        ({"ways": (WAYS[0], (12, *WAYS[1][1:]), *WAYS[2:], *LATE)}, "its part is free at 13"),
        ({"ways": (*WAYS, *LATE, (60, "1", "b", "raw"))}, "no operation needs it"),
        ({"work": {**WORK, ("1", 1): 16}}, "starts at 16, but its part arrives at 17"),
        ({"vehicle": "2"}, "by vehicle '2'; they are 1 to 1"),
        ({"vehicle": None}, "by vehicle None"),
    ],
)
def test_what_a_vehicle_cannot_do_is_said_in_words(change: dict[str, Any], words: str) -> None:
    found = violations(Problem.model_validate(PLACES), told(**change))
    assert any(words in one for one in found), found


def test_more_parts_than_places_before_a_machine_are_found() -> None:
    problem = Problem.model_validate(PLACES | {"transport": PLACES["transport"] | {"vehicles": 3}})
    soon = tuple((3, job, "raw", "a") for job in "123")
    plan = told(problem, ways=soon, work=WORK)
    by_each = [move.model_copy(update={"vehicle": move.job}) for move in plan.moves]
    found = violations(problem, plan.model_copy(update={"moves": tuple(by_each)}))
    assert "a: 2 parts wait before it at 8, there are 1 places" in found


def test_a_machine_that_cannot_get_rid_of_its_part_does_not_begin_another() -> None:
    problem = Problem.model_validate(PLACES | {"transport": PLACES["transport"] | {"vehicles": 2}})
    plan = told(problem, ways=(WAYS[0], (13, "2", "raw", "a"), (24, "1", "a", "b"), (32, "2", "a", "b"), *LATE))
    second = [move.model_copy(update={"vehicle": "2"}) if move.job == "2" else move for move in plan.moves]
    work = {("1", 0): 8, ("2", 0): 25, ("1", 1): 28, ("2", 1): 36, ("3", 0): 44, ("3", 1): 53}
    fine = told(problem, work=work).model_copy(update={"moves": tuple(second)})
    assert violations(problem, fine) == []
    early = told(problem, work=work | {("2", 0): 24}).model_copy(update={"moves": tuple(second)})
    assert violations(problem, early) == ["a: job '2' starts at 24 when 1 finished parts are there, places for 0"], (
        "at 24 the part is being loaded, at 25 it is gone"
    )


def test_moves_of_the_past_are_exempt_and_tell_nothing() -> None:
    began = {"now": 9, "history": [{"job": "1", "op": 0, "machine": "a", "start": 8, "end": 12}]}
    problem = Problem.model_validate(PLACES | began)
    assert violations(problem, told()) == []
    without = told(ways=(*WAYS[1:], *LATE))
    assert violations(problem, without) == []
    past = told(ways=(WAYS[0], (5, "1", "a", "b"), *WAYS[2:], *LATE))
    assert violations(problem, past) == ["job '1' op 1: its part lies at 'a'; state the move to 'b'"]


def test_bringing_a_part_to_the_store_of_finished_ones_ends_its_job() -> None:
    done = PLACES | {"transport": PLACES["transport"] | {"finished": "raw", "vehicles": None}}
    problem = Problem.model_validate(done | {"jobs": [PLACES["jobs"][0] | {"due": 20}]})
    schedule = run(state_from(problem), RULES["fifo"], Weights())
    plan = plan_of(problem, schedule.bids)
    assert violations(problem, plan) == []
    assert (plan.objectives["makespan"], plan.objectives["tardiness"]) == (22, 2)
    assert [(one.from_, one.to, one.end) for one in plan.moves] == [("raw", "a", 5), ("a", "b", 14), ("b", "raw", 22)]
    lacking = plan.model_copy(update={"moves": plan.moves[:2]})
    assert violations(problem, lacking) == ["job '1': its part is done at 'b'; state the move to 'raw'"]


def test_a_shop_goes_on_from_where_history_left_it() -> None:
    began = {
        "now": 9,
        "machines": [{"id": "a", "buffer": {"out": 0}, "preheat": 2}, {"id": "b", "preheat": 2, "warm_from": 10}],
        "history": [{"job": "1", "op": 0, "machine": "a", "start": 8, "end": 12}],
    }
    state = state_from(Problem.model_validate(PLACES | began))
    part, busy, heating = state.jobs["1"], state.machines["a"], state.machines["b"]
    assert (part.at, part.ready, part.holds, state.now) == ("a", 12, True, 9)
    assert (busy.free, busy.ended, busy.kept) == (12, 12, 1)
    assert (heating.free, heating.ended) == (10, 10)
    assert state.bid("2", "a").blocked, "nobody has said yet when the finished part goes"
    assert (state.jobs["2"].at, [one.at for one in state.vehicles]) == ("raw", ["a"])


def test_a_piece_that_was_scrapped_begins_where_parts_begin() -> None:
    scrap = {"id": "a", "on_breakdown": "scrap", "unavailable": [{"start": 9, "end": 20, "reason": "breakdown"}]}
    began = {
        "now": 9,
        "machines": [scrap, {"id": "b"}],
        "history": [{"job": "1", "op": 0, "machine": "a", "start": 8, "end": 9, "interrupted": True}],
    }
    problem = Problem.model_validate(PLACES | began)
    schedule = by_rule(problem, 1)
    assert next(bid for bid in schedule.bids if bid.job == "1").came_from == "raw"
    assert violations(problem, plan_of(problem, schedule.bids)) == []


def test_a_machine_is_preheated_again_after_it_was_broken() -> None:
    problem = Problem.model_validate(
        {
            "machines": [
                {"id": "a", "preheat": 3, "unavailable": [{"start": 5, "end": 7, "reason": "breakdown"}]},
            ],
            "jobs": [{"id": "1", "operations": [{"op": 0, "alternatives": {"a": 4}}]}],
        }
    )
    bids = by_rule(problem, 0).bids
    assert [(bid.start, bid.end) for bid in bids] == [(10, 14)]
    assert violations(problem, plan_of(problem, bids)) == []


@pytest.mark.parametrize(("reading", "seconds"), [("occupying", 288.4), ("vehicles", 462.9), ("lag", 283.5)])
def test_the_published_workshop_run_by_tree_search_is_a_plan_of_the_least_makespan(
    reading: str, seconds: float
) -> None:
    problem = load_problem(EXAMPLES / f"workshop_{reading}.json")
    shop = shop_from(problem)
    outcome = simulate(Course(shop, shop), Mcts(iterations=2000), Weights(waiting=0.1), seed=1)
    plan = plan_of(problem, outcome.bids, solver="mcts")
    assert violations(problem, plan) == []
    assert problem.in_unit(plan.objectives["makespan"]) == seconds
    assert plan_from_document(problem, json.loads(json.dumps(plan_document(problem, plan)))).moves == plan.moves


@pytest.mark.parametrize("solver", [kind() for kind in get_args(get_args(Solver)[0])], ids=lambda one: one.kind)
def test_solvers_refuse_what_they_do_not_know_and_name_what_does(solver: Solver) -> None:
    result = solver.solve(Problem.model_validate(PLACES), budget=Budget(600, evaluations=100, workers=1))
    assert result.refused and not result.plans
    assert result.reason.startswith("solvers know no vehicles, no buffers") and "shoal swarm" in result.reason


def test_the_command_that_solves_names_the_command_that_dispatches() -> None:
    app = typer.Typer()
    app.command()(schedule)
    done = CliRunner().invoke(app, [str(EXAMPLES / "workshop.json")])
    assert done.exit_code == 2 and "use `shoal swarm FILE`" in " ".join(done.output.split())
