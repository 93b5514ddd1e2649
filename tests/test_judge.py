"""The judge against slow references that look at every tick: measures, rules, gaps, curves."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import ALL, problems, random_shop, some_plan

from messages.curve import Curve
from messages.gaps import machine_states, moves
from messages.judge import KEY, missing, objective, violations
from messages.openjobs import open_jobs
from messages.plan import Assignment, Plan
from messages.problem import Job, Machine, Operation, Power, Problem

THOROUGH = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def whole(problem: Problem, new: list[Assignment]) -> Plan:
    """With states and moves, in no helpful order."""
    every = (*new, *problem.history)
    return Plan(assignments=every, machine_states=machine_states(problem, every), moves=moves(problem, every))


# --- measures -----------------------------------------------------------------------------------------


def by_ticks(problem: Problem, plan: Plan) -> dict[str, float]:
    """Every measure, one tick after the other."""
    load: dict[tuple[str, int], float] = defaultdict(float)
    drawn: dict[tuple[str, int, int], dict[str, float]] = defaultdict(dict)
    for one in plan.assignments:
        machine = problem.machine[one.machine]
        step = problem.operation[one.job, one.op]
        kw = step.work_kw.get(one.machine, machine.power_kw.work)
        for tick in range(one.start, one.end):
            batch = f"{one.start} {one.end} {step.family}" if machine.batch > 1 else f"{one.job} {one.op} {one.start}"
            known = drawn[machine.carrier, problem.machines.index(machine), tick]
            known[batch] = max(kw, known.get(batch, 0.0))
    for (carrier, _, tick), each in drawn.items():
        load[carrier, tick] += sum(each.values())
    for state in plan.machine_states:
        machine = problem.machine[state.machine]
        for tick in range(state.start, state.end):
            load[machine.carrier, tick] += 0 if state.state == "work" else getattr(machine.power_kw, state.state)
    for move in plan.moves:
        for tick in range(move.start, move.end):
            load[problem.transport.carrier, tick] += problem.transport.power_kw
    hours = problem.tick_s / 3600
    found = {"energy_kwh": sum(load.values()) * hours, "carbon_kg": 0.0, "cost": 0.0, "peak_kw": 0.0, "exported": 0.0}
    ticks = [tick for _, tick in load]
    carriers = {carrier for carrier, _ in load} | set(problem.base_load) | set(problem.generation)
    for carrier in carriers:
        for tick in range(min([0, *ticks]), max([problem.horizon or 0, *(tick + 1 for tick in ticks)])):
            inside = problem.horizon is not None and 0 <= tick < problem.horizon
            at = {
                kind: value_at(getattr(problem, kind)[carrier], tick) if carrier in getattr(problem, kind) else 0.0
                for kind in ("carbon", "tariff", "generation", "base_load")
            }
            net = load[carrier, tick] + (at["base_load"] if inside else 0.0) - at["generation"]
            found["carbon_kg"] += max(0.0, net) * at["carbon"] * hours
            found["cost"] += max(0.0, net) * at["tariff"] * hours
            found["exported"] += max(0.0, -net) * hours if inside else 0.0
            if carrier == "electricity":
                found["peak_kw"] = max(found["peak_kw"], net)
    found["ledger_kg"] = found["carbon_kg"] - problem.capture_kg - problem.export_kg_per_kwh * found["exported"]
    late: dict[str, list[int]] = defaultdict(list)
    for job in problem.jobs:
        ends = [one.end for one in plan.assignments if one.job == job.id]
        if job.due is not None and ends:
            late[job.part_of or "job " + job.id].append(max(0, max(ends) - job.due))
    return found | {
        "makespan": max((one.end for one in plan.assignments), default=0),
        "tardiness": sum(max(each) for each in late.values()),
    }


def value_at(curve: Curve, tick: int) -> float:
    if curve.periodic:
        while tick < curve.start:
            tick += curve.step * len(curve.values)
        while tick >= curve.end:
            tick -= curve.step * len(curve.values)
    for k, value in enumerate(curve.values):
        if tick < curve.start + (k + 1) * curve.step:
            return value
    return curve.values[-1]


@THOROUGH
@given(problem=problems(), seed=st.integers(0, 9))
def test_every_measure_is_what_adding_up_tick_by_tick_gives(problem: Problem, seed: int) -> None:
    plan = whole(problem, some_plan(problem, seed))
    found, slow = objective(problem, plan), by_ticks(problem, plan)
    for key in KEY.values():
        if key in found:
            assert found[key] == pytest.approx(slow[key], rel=1e-9, abs=1e-9), key
    assert set(KEY.values()) - set(found) == {KEY[one] for one in KEY if missing(problem, one)}
    assert found.get("exported_kwh", 0.0) == pytest.approx(
        slow["exported"] if problem.generation else 0.0, rel=1e-9, abs=1e-9
    )
    assert objective(problem, Plan(assignments=plan.assignments)) == found
    by_carrier = [value for name, value in found.items() if name.startswith("energy_kwh_")]
    assert sum(by_carrier) == pytest.approx(found["energy_kwh"])


@settings(THOROUGH, max_examples=40)
@given(problem=problems(), factor=st.integers(2, 5))
def test_a_finer_tick_changes_no_measure_and_no_rule(problem: Problem, factor: int) -> None:
    new = some_plan(problem)
    finer = problem.finer(factor)
    scaled = [one.model_copy(update={"start": one.start * factor, "end": one.end * factor}) for one in new]
    found, fine = objective(problem, whole(problem, new)), objective(finer, whole(finer, scaled))
    assert set(found) == set(fine)
    for key, value in found.items():
        scale = factor if key in ("makespan", "tardiness") else 1
        assert fine[key] == pytest.approx(value * scale, rel=1e-9, abs=1e-9), key
    resumed = {one.machine for one in problem.history if one.interrupted}  # a share of whole ticks, rounded up
    if all(problem.machine[one].on_breakdown != "resume" for one in resumed):
        assert violations(finer, whole(finer, scaled)) == []


@settings(THOROUGH, max_examples=40)
@given(problem=problems())
def test_a_problem_with_everything_travels_unchanged_and_keeps_its_hash(problem: Problem) -> None:
    again = Problem.decode(problem.encode())
    assert again == problem
    assert again.sha256 == problem.sha256
    assert Problem.model_validate(problem.model_dump(exclude_defaults=True)).sha256 == problem.sha256


CURVES = st.builds(
    Curve,
    start=st.integers(-20, 20),
    step=st.integers(1, 7),
    values=st.lists(st.integers(-5, 9), min_size=1, max_size=6).map(tuple),
    periodic=st.booleans(),
)


@given(curve=CURVES, start=st.integers(-60, 60), length=st.integers(0, 90))
def test_a_curve_is_what_it_is_at_every_tick(curve: Curve, start: int, length: int) -> None:
    ticks = range(start, start + length)
    assert [curve.at(tick) for tick in ticks] == [value_at(curve, tick) for tick in ticks]
    assert curve.over(start, start + length) == pytest.approx(sum(value_at(curve, tick) for tick in ticks))
    pieces = list(curve.pieces(start, start + length))
    assert [value for at, until, value in pieces for _ in range(at, until)] == [curve.at(tick) for tick in ticks]


# --- rules --------------------------------------------------------------------------------------------


@THOROUGH
@given(problem=problems(), seed=st.integers(0, 9), at_random=st.randoms(use_true_random=False))
def test_a_plan_that_can_be_carried_out_has_no_violation_whatever_its_gaps_are(
    problem: Problem, seed: int, at_random: Random
) -> None:
    new = some_plan(problem, seed)
    assert violations(problem, whole(problem, new)) == []
    every = (*problem.history, *new)
    off = {(one.job, one.op) for one in new if at_random.random() < 0.5}
    assert violations(problem, Plan(assignments=every, machine_states=machine_states(problem, every, off))) == []
    assert violations(problem, Plan(assignments=every)) == []


class _Floor:
    """Can it be done? Every operation paints the ticks it takes on its machine, and every rule looks at ticks."""

    def __init__(self, problem: Problem, new: list[Assignment]) -> None:
        self.problem, self.new = problem, new
        self.paint: dict[tuple[str, int], list[Assignment]] = defaultdict(list)
        for one in (*problem.history, *new):
            for tick in range(one.start, one.end):
                self.paint[one.machine, tick].append(one)

    def sound(self) -> bool:
        return self.complete() and self.in_order() and self.alone() and all(self.ready(one) for one in self.new)

    def complete(self) -> bool:
        todo = {(job.id, step.op): step.alternatives for job in open_jobs(self.problem) for step in job.operations}
        for one in self.new:
            ticks = todo[one.job, one.op][one.machine]
            if ticks and self.problem.machine[one.machine].batch > 1:
                ticks = max(todo[x.job, x.op][x.machine] for x in self.new if self.together(x, one))
            if one.end - one.start != ticks:
                return False
        return self.problem.horizon is None or all(one.end <= self.problem.horizon for one in self.new)

    def together(self, one: Assignment, other: Assignment) -> bool:
        family = self.problem.operation[one.job, one.op].family
        same = (one.machine, one.start) == (other.machine, other.start)
        return same and family == self.problem.operation[other.job, other.op].family

    def in_order(self) -> bool:
        for job in open_jobs(self.problem):
            past = [one for one in self.problem.history if one.job == job.id]
            before = max(past, key=lambda one: (one.end, one.start), default=None)
            for step in job.operations:
                (one,) = (x for x in self.new if (x.job, x.op) == (step.job, step.op))
                rule = self.problem.operation[step.job, step.op]
                if one.start < job.ready:
                    return False
                if before is not None:
                    row = self.problem.transport.ticks.get(before.machine, {})
                    lag = 0 if before.machine == one.machine else row.get(one.machine, 0)
                    wait = one.start - before.end
                    if wait < max(lag, rule.wait_min) or (rule.wait_max is not None and wait > rule.wait_max):
                        return False
                before = one
        return True

    def alone(self) -> bool:
        past = set(self.problem.history)
        for (name, tick), those in self.paint.items():
            fresh = [one for one in those if one not in past]
            shut = [one for one in self.problem.machine[name].unavailable if one.start <= tick < one.end]
            if fresh and (len(fresh) < len(those) or shut):
                return False
            sizes = sum(self.problem.operation[one.job, one.op].size for one in fresh)
            if len(fresh) > 1 and sizes > self.problem.machine[name].batch:
                return False
            if any(not self.together(one, fresh[0]) for one in fresh):
                return False
        return True

    def setup(self, one: Assignment) -> int:
        """Ticks of set-up before this operation, by looking back for what stood there."""
        machine = self.problem.machine[one.machine]
        family = machine.family
        for tick in range(one.start - 1, -1, -1):
            if those := self.paint[one.machine, tick]:
                last = max(those, key=lambda x: (x.end, x.start, x.job, x.op))
                family = self.problem.operation[last.job, last.op].family
                break
        return machine.setup.get(family, {}).get(self.problem.operation[one.job, one.op].family, 0)

    def ready(self, one: Assignment) -> bool:
        """Set-up, preheating or warmth, and people, for work that is not empty."""
        if one.start == one.end:
            return True
        machine, now, begin = self.problem.machine[one.machine], self.problem.now, one.start - self.setup(one)
        for tick in range(begin, one.start):
            if self.paint[one.machine, tick] or any(w.start <= tick < w.end for w in machine.unavailable):
                return False
        if now is not None and begin < now:
            return False
        return self.warm(machine, begin) and self.people(one, begin)

    def broken(self, machine: Machine, tick: int) -> bool:
        return any(w.reason == "breakdown" and w.start <= tick < w.end for w in machine.unavailable)

    def warm(self, machine: Machine, begin: int) -> bool:
        now, heat = self.problem.now, range(begin - machine.preheat, begin)
        busy = any(self.paint[machine.id, tick] or self.broken(machine, tick) for tick in heat)
        if not busy and (now is None or heat.start >= now or not heat):
            return True
        known = None if machine.warm_from is None else max(machine.warm_from, now or 0)
        if known is not None and (begin == known or (now is None and begin <= 0)):
            return True
        for tick in range(begin - 1, -1, -1):  # idle since then?
            if self.paint[machine.id, tick]:
                return now is None or tick + 1 >= now
            if self.broken(machine, tick):
                return False
            if tick == known:
                return True
        return False

    def people(self, one: Assignment, begin: int) -> bool:
        for crew, there in self.problem.crews.items():
            if not self.problem.operation[one.job, one.op].crew.get(crew, 0):
                continue
            for tick in range(begin, one.end):
                needed: dict[object, int] = {}
                for other in (*self.problem.history, *self.new):
                    start = other.start if other in self.problem.history else other.start - self.setup(other)
                    if other.start < other.end and start <= tick < other.end:
                        batched = self.problem.machine[other.machine].batch > 1
                        family = self.problem.operation[other.job, other.op].family
                        key = (other.machine, other.start, other.end, family) if batched else other
                        people = self.problem.operation[other.job, other.op].crew.get(crew, 0)
                        needed[key] = max(people, needed.get(key, 0))
                if sum(needed.values()) > there:
                    return False
        return True


def elsewhere(problem: Problem, new: list[Assignment], dice: Random) -> list[Assignment]:
    """An operation or two put to another time, machine or length; together with others, often."""
    changed = list(new)
    for _ in range(dice.randint(1, 2)) if new else ():
        place = dice.randrange(len(changed))
        one = changed[place]
        able = problem.operation[one.job, one.op].alternatives
        machine = dice.choice(sorted(able))
        length = dice.choice([one.end - one.start, able[machine]])
        start = max(0, one.start + dice.randint(-6, 4))
        start = dice.choice([start, *(other.start for other in changed if other.machine == machine)])
        changed[place] = one.model_copy(update={"machine": machine, "start": start, "end": start + length})
    return changed


def test_what_the_judge_refuses_is_what_cannot_be_done() -> None:
    """Sound plans with an operation or two put elsewhere: most cannot be carried out, some still can."""
    sound = refused = 0
    for seed in range(220):
        dice = Random(seed)
        problem = random_shop(seed, 1 + seed % 4, dice.randint(1, 3), longest=5)
        new = some_plan(problem, seed)
        for _ in range(5):
            changed = elsewhere(problem, new, dice)
            found = violations(problem, Plan(assignments=(*problem.history, *changed)))
            assert (found == []) == _Floor(problem, changed).sound(), (seed, found)
            sound, refused = sound + (not found), refused + bool(found)
    assert min(sound, refused) > 200


# --- gaps ---------------------------------------------------------------------------------------------


@settings(THOROUGH, max_examples=40)
@given(problem=problems(most_jobs=2, features=ALL - {"curves"}), seed=st.integers(0, 9))
def test_no_other_choice_in_the_gaps_needs_less_energy_than_the_gap_rule(problem: Problem, seed: int) -> None:
    new = some_plan(problem, seed)
    every = (*problem.history, *new)
    least = objective(problem, Plan(assignments=every))["energy_kwh"]
    keys = [(one.job, one.op) for one in new]
    for count in range(len(keys) + 1):
        for off in combinations(keys, count):
            states = machine_states(problem, every, off)
            assert objective(problem, Plan(assignments=every, machine_states=states))["energy_kwh"] >= least - 1e-9


def test_ten_thousand_operations_are_judged_in_a_second_or_two() -> None:
    """CPU time; a bound that only a slow algorithm breaks."""
    import time

    problem = random_shop(1, 5000, 100, {"curves", "setup", "tardiness", "transport"})
    ends: dict[str, int] = defaultdict(int)
    made = []
    for job in problem.jobs:
        clock = 0
        for step in job.operations:
            machine, ticks = next(iter(step.alternatives.items()))
            start = max(clock, ends[machine] + 3)
            clock = ends[machine] = start + ticks
            made.append(Assignment(job=job.id, op=step.op, machine=machine, start=start, end=clock))
    assert len(made) > 9_500
    plan = whole(problem, made)
    began = time.process_time()
    objective(problem, plan)
    assert time.process_time() - began < 5


def test_a_measure_that_the_file_says_nothing_about_is_named_with_its_cure() -> None:
    step = (Operation(op=0, alternatives={"m": 1}),)
    bare = Problem(machines=(Machine(id="m", power_kw=Power(work=5)),), jobs=(Job(id="a", operations=step),))
    assert {one for one in KEY if missing(bare, one)} == {"carbon", "cost", "ledger"}
    assert "`carbon`" in missing(bare, "ledger")
    assert "`tariff`" in missing(bare, "cost")
