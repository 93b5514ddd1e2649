"""Everything that speaks against a plan, in words for people. Written apart from every solver.

Complete: every open operation once, on an able machine, for as long as it takes, after release, `now`, its predecessor,
the way from there and its waits, and by the horizon; no two at once on a machine but a batch of one family that fits
and ends together; set-ups with room before their work; nothing in a closed or broken time; no more people than there
are; history as it was; moves and machine states that follow from all this (`messages.timeline`); with logistics, moves
that vehicles and buffers allow (`messages.carrying`); limits kept.

History itself is exempt: what happened has happened. Without `machine_states` or `moves` those of `messages.gaps`
apply, and the same checks run on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from messages.carrying import carry_faults
from messages.gaps import energy_minimal_states, moves, works
from messages.measures import KEY, objective
from messages.openjobs import OpenJob, open_jobs
from messages.plan import Assignment, MachineState, Measure, Move, Plan
from messages.problem import TIMES, Problem
from messages.queues import name_of, queue_faults
from messages.timeline import state_faults
from messages.uncollected import uncollected

NEAR = 1e-6
"""Share of a limit by which rounding may pass it."""
CURE: dict[Measure, str] = {
    "makespan": "use faster machines or more of them, or raise the limit",
    "tardiness": "start late orders earlier, or raise the limit",
    "energy": "use machines that need less, or raise the limit",
    "carbon": "work in cleaner hours or on machines that need less, or raise the limit",
    "cost": "work in cheaper hours or on machines that need less, or raise the limit",
    "peak": "do less at once, or raise the limit",
    "ledger": "emit less, capture or export more, or raise the limit",
}


@uncollected
def violations(problem: Problem, plan: Plan) -> list[str]:
    """What is wrong with `plan`, [] if nothing is."""
    found = _other_problem(problem, plan)
    known, faults = _known(problem, plan)
    found += faults
    found += _history(problem, known)
    new = _new(problem, known)
    found += _operations(problem, new)
    lines = works(problem, known)
    found += queue_faults(problem, lines, {id(one) for one in new})
    if found:
        return found  # states of a plan that is wrong in itself would only repeat it
    by_machine: dict[str, list[MachineState]] = {machine.id: [] for machine in problem.machines}
    for one in plan.machine_states or energy_minimal_states(problem, known):
        if one.machine in by_machine:
            by_machine[one.machine].append(one)
        else:
            found.append(f"machine state: no machine {one.machine!r}")
    for machine in problem.machines:
        line = lines.get(machine.id, [])
        found += state_faults(problem, machine, line, by_machine[machine.id])
    found += carry_faults(problem, plan.moves, new) if problem.logistics else _moves(problem, plan, known)
    return found or _limits(problem, plan)


def _other_problem(problem: Problem, plan: Plan) -> list[str]:
    if plan.problem_sha256 and plan.problem_sha256 != problem.sha256:
        return [f"plan answers problem {plan.problem_sha256[:12]}…, not {problem.sha256[:12]}…"]
    return []


def _known(problem: Problem, plan: Plan) -> tuple[list[Assignment], list[str]]:
    known, faults = [], []
    for one in plan.assignments:
        step = problem.operation.get((one.job, one.op))
        if step is None:
            faults.append(f"job {one.job!r} op {one.op}: not in the problem")
        elif one.machine not in step.alternatives:
            faults.append(f"{name_of(one)}: this machine cannot do it")
        else:
            known.append(one)
    return known, faults


def _history(problem: Problem, known: Sequence[Assignment]) -> list[str]:
    planned = Counter(known) if problem.history else Counter[Assignment]()
    return [
        f"history changed: {name_of(past)} is missing or altered"
        for past, times in Counter(problem.history).items()
        if planned[past] < times
    ]


def _new(problem: Problem, known: Sequence[Assignment]) -> Sequence[Assignment]:
    """Assignments that are not history."""
    if not problem.history:
        return known
    left = Counter(problem.history)
    new = []
    for one in known:
        if left[one] > 0:
            left[one] -= 1
        else:
            new.append(one)
    return new


def _operations(problem: Problem, new: Sequence[Assignment]) -> list[str]:
    """Once each, for as long as it takes, in order, neither too early nor too late."""
    found = []
    planned: dict[tuple[str, int], Assignment] = {}
    again: Counter[tuple[str, int]] = Counter()
    for one in new:
        key = one.job, one.op
        if key in planned:
            again[key] += 1
        else:
            planned[key] = one
    todo = open_jobs(problem)
    batches, longest = _longest(problem, new, todo)
    last = {past.job: past for past in sorted(problem.history, key=lambda one: (one.end, one.start))}
    rules, horizon = problem.operation, problem.horizon
    carries = bool(problem.transport.ticks) and not problem.logistics  # else `messages.carrying` sees to it
    for job in todo:
        ready, why = job.ready, "its release, `now` or its history"
        before = last.get(job.id)
        for job_id, op, alternatives in job.operations:
            key = job_id, op
            chosen = planned.pop(key, None)
            if chosen is None:
                found.append(f"job {job_id!r} op {op}: not planned")
                continue
            one, rule = chosen, rules[key]
            if again and key in again:
                found.append(f"job {job_id!r} op {op}: planned {again[key] + 1} times")
            if one.interrupted:
                found.append(f"{name_of(one)}: only history can be interrupted")
            start, end, needs = one.start, one.end, alternatives[one.machine]
            if needs and one.machine in batches:
                needs = longest[one.machine, start, rule.family]
            if end - start != needs:
                found.append(f"{name_of(one)}: lasts {end - start}, needs {needs}")
            if horizon is not None and end > horizon:
                found.append(f"{name_of(one)}: ends after the horizon ({horizon}); plan it earlier or raise it")
            if start < ready:
                found.append(f"{name_of(one)}: starts before {ready} ({why})")
            elif before is not None and (carries or rule.wait_min or rule.wait_max is not None):
                found += _lag(problem, before, one)
            ready, why, before = max(ready, end), "the end of its predecessor", one
    for job_id, op in planned:
        found.append(f"job {job_id!r} op {op}: planned again, but history has done it")
    return found


def _longest(
    problem: Problem, new: Sequence[Assignment], todo: Sequence[OpenJob]
) -> tuple[set[str], dict[tuple[str, int, str], int]]:
    """The machines that batch; and ticks of every batch on them (machine, start, family): those of its longest."""
    batches = {machine.id for machine in problem.machines if machine.batch > 1}
    found: dict[tuple[str, int, str], int] = {}
    if batches:
        ticks = {(step.job, step.op): step.alternatives for job in todo for step in job.operations}
        for one in new:
            if one.machine in batches:
                place = one.machine, one.start, problem.operation[one.job, one.op].family
                found[place] = max(found.get(place, 0), ticks.get((one.job, one.op), {}).get(one.machine, 0))
    return batches, found


def _lag(problem: Problem, before: Assignment, one: Assignment) -> list[str]:
    """Carried here, and waited for neither too little nor too much."""
    step = problem.operation[one.job, one.op]
    carried = 0 if problem.logistics else problem.transport.between(before.machine, one.machine)
    at = f"its predecessor on {before.machine} ends at {before.end}"
    if one.start < before.end + carried:
        return [f"{name_of(one)}: starts before {before.end + carried} ({at}, carrying takes {carried})"]
    if one.start < before.end + step.wait_min:
        return [f"{name_of(one)}: starts before {before.end + step.wait_min} ({at}, wait_min is {step.wait_min})"]
    if step.wait_max is not None and one.start > before.end + step.wait_max:
        return [f"{name_of(one)}: starts after {before.end + step.wait_max} ({at}, wait_max is {step.wait_max})"]
    return []


def _moves(problem: Problem, plan: Plan, known: Sequence[Assignment]) -> list[str]:
    """Stated moves are those that follow from the operations; what began before `now` is exempt."""
    if not plan.moves:
        return []

    def counted(those: Sequence[Move]) -> Counter[tuple[str, str, str, int, int]]:
        return Counter(
            (one.job, one.from_, one.to, one.start, one.end)
            for one in those
            if problem.now is None or one.start >= problem.now
        )

    stated, due = counted(plan.moves), counted(moves(problem, known))
    found = []
    for these, text in (
        (stated - due, "follows from no operations; leave it out"),
        (due - stated, "is missing; add it"),
    ):
        for job, before, after, start, end in these.elements():
            found.append(f"move of job {job!r} from {before} to {after} {start}..{end}: {text}")
    return found


def _limits(problem: Problem, plan: Plan) -> list[str]:
    """Limits of the problem, and by how much they are passed."""
    if not problem.limits:
        return []
    values, found = objective(problem, plan), []
    for measure, limit in problem.limits.items():
        value = values[KEY[measure]]
        if value > limit + NEAR * max(1.0, abs(limit)):
            unit = " ticks" if measure in TIMES else ""
            over = f"{KEY[measure]} is {value:g}{unit}, {value - limit:g} more than {limit:g}"
            found.append(f"limits.{measure}: {over}; {CURE[measure]}")
    return found
