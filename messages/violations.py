"""Everything that speaks against a plan, in words for people. Written apart from every solver.

Complete: every open operation once, on an able machine, for as long as it takes, after release, `now`, its predecessor,
the way from there and its waits, and by the horizon; no two at once on a machine but a batch of one family that fits
and ends together; set-ups with room before their work; nothing in a closed or broken time; no more people than there
are; history as it was; moves and machine states that follow from all this (`messages.timeline`); limits kept.

History itself is exempt: what happened has happened. Without `machine_states` or `moves` those of `messages.gaps`
apply, and the same checks run on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from messages.gaps import Work, energy_minimal_states, moves, works
from messages.measures import KEY, objective
from messages.openjobs import open_jobs
from messages.plan import Assignment, MachineState, Measure, Move, Plan
from messages.problem import TIMES, Problem
from messages.timeline import state_faults

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


def violations(problem: Problem, plan: Plan) -> list[str]:
    """What is wrong with `plan`, [] if nothing is."""
    found = _other_problem(problem, plan)
    known, faults = _known(problem, plan)
    found += faults
    found += _history(problem, known)
    new = _new(problem, known)
    found += _operations(problem, new)
    lines, fresh = works(problem, known), {id(one) for one in new}
    faults = [fault for line in lines.values() for fault in _overlaps(problem, line, fresh)]
    if not faults:  # else set-ups would only repeat it
        faults = [fault for name, line in lines.items() for fault in _setups(problem, name, line, fresh)]
    found += faults
    found += [fault for name, line in lines.items() for fault in _calendar(problem, name, line, fresh)]
    found += [fault for crew in problem.crews for fault in _crew(problem, crew, lines, fresh)]
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
    found += _moves(problem, plan, known)
    return found or _limits(problem, plan)


def _name(one: Assignment) -> str:
    return f"job {one.job!r} op {one.op} on {one.machine} {one.start}..{one.end}"


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
            faults.append(f"{_name(one)}: this machine cannot do it")
        else:
            known.append(one)
    return known, faults


def _history(problem: Problem, known: Sequence[Assignment]) -> list[str]:
    planned = Counter(known)
    return [
        f"history changed: {_name(past)} is missing or altered"
        for past, times in Counter(problem.history).items()
        if planned[past] < times
    ]


def _new(problem: Problem, known: Sequence[Assignment]) -> list[Assignment]:
    """Assignments that are not history."""
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
    by_key: dict[tuple[str, int], list[Assignment]] = {}
    for one in new:
        by_key.setdefault((one.job, one.op), []).append(one)
    todo = open_jobs(problem)
    longest = _longest(
        problem, by_key, {(step.job, step.op): step.alternatives for job in todo for step in job.operations}
    )
    last = {past.job: past for past in sorted(problem.history, key=lambda one: (one.end, one.start))}
    for job in todo:
        ready, why = job.ready, "its release, `now` or its history"
        before = last.get(job.id)
        for step in job.operations:
            planned = by_key.pop((step.job, step.op), [])
            if not planned:
                found.append(f"job {step.job!r} op {step.op}: not planned")
                continue
            if len(planned) > 1:
                found.append(f"job {step.job!r} op {step.op}: planned {len(planned)} times")
            one = planned[0]
            if one.interrupted:
                found.append(f"{_name(one)}: only history can be interrupted")
            needs = step.alternatives[one.machine]
            if needs:
                needs = longest[_together(problem, one)]
            if one.end - one.start != needs:
                found.append(f"{_name(one)}: lasts {one.end - one.start}, needs {needs}")
            if problem.horizon is not None and one.end > problem.horizon:
                found.append(f"{_name(one)}: ends after the horizon ({problem.horizon}); plan it earlier or raise it")
            if one.start < ready:
                found.append(f"{_name(one)}: starts before {ready} ({why})")
            elif before is not None:
                found += _lag(problem, before, one)
            ready, why, before = max(ready, one.end), "the end of its predecessor", one
    for job_id, op in by_key:
        found.append(f"job {job_id!r} op {op}: planned again, but history has done it")
    return found


def _together(problem: Problem, one: Assignment) -> tuple[object, ...]:
    """The same for all operations of one batch."""
    if problem.machine[one.machine].batch == 1:
        return one.job, one.op
    return one.machine, one.start, problem.operation[one.job, one.op].family


def _longest(
    problem: Problem, planned: dict[tuple[str, int], list[Assignment]], ticks: dict[tuple[str, int], dict[str, int]]
) -> dict[tuple[object, ...], int]:
    """Ticks of every batch: those of its longest operation."""
    found: dict[tuple[object, ...], int] = {}
    for key, those in planned.items():
        for one in those:
            place = _together(problem, one)
            found[place] = max(found.get(place, 0), ticks.get(key, {}).get(one.machine, 0))
    return found


def _lag(problem: Problem, before: Assignment, one: Assignment) -> list[str]:
    """Carried here, and waited for neither too little nor too much."""
    step = problem.operation[one.job, one.op]
    carried = problem.transport.between(before.machine, one.machine)
    at = f"its predecessor on {before.machine} ends at {before.end}"
    if one.start < before.end + carried:
        return [f"{_name(one)}: starts before {before.end + carried} ({at}, carrying takes {carried})"]
    if one.start < before.end + step.wait_min:
        return [f"{_name(one)}: starts before {before.end + step.wait_min} ({at}, wait_min is {step.wait_min})"]
    if step.wait_max is not None and one.start > before.end + step.wait_max:
        return [f"{_name(one)}: starts after {before.end + step.wait_max} ({at}, wait_max is {step.wait_max})"]
    return []


def _overlaps(problem: Problem, line: Sequence[Work], fresh: Collection[int]) -> list[str]:
    """Two at once on one machine, or a batch that is none; two of history are exempt."""
    found = []
    last: Work | None = None  # the one that ends last so far
    last_new: Work | None = None
    for one in line:
        is_new = any(id(member) in fresh for member in one.members)
        if is_new and len(one.members) > 1:
            found += _batch(problem, one, fresh)
        rival = last if is_new else last_new
        if rival is not None and one.start < rival.end:
            found.append(f"{_work_name(rival)} and {_work_name(one)} overlap")
        if last is None or one.end > last.end:
            last = one
        if is_new and (last_new is None or one.end > last_new.end):
            last_new = one
    return found


def _batch(problem: Problem, work: Work, fresh: Collection[int]) -> list[str]:
    found = []
    machine = problem.machine[work.members[0].machine]
    if any(id(member) not in fresh for member in work.members):
        found.append(f"{_work_name(work)}: history has begun it, so nothing may join; plan it after {work.end}")
    places = sum(problem.operation[one.job, one.op].size for one in work.members)
    if places > machine.batch:
        found.append(f"{_work_name(work)}: takes {places} places, {machine.id} has {machine.batch}; plan two batches")
    return found


def _setups(problem: Problem, name: str, line: Sequence[Work], fresh: Collection[int]) -> list[str]:
    """Room for every set-up: after what stood there before, and after `now`."""
    found = []
    free: Work | None = None
    for one in line:
        if one.setup and any(id(member) in fresh for member in one.members):
            what = f"{_work_name(one)}: its set-up for {one.family!r} takes {one.setup}"
            if free is not None and one.ready < free.end:
                found.append(f"{what}, but {name} is free from {free.end} only; start at {free.end + one.setup}")
            if problem.now is not None and one.ready < problem.now:
                found.append(
                    f"{what} and cannot have begun before now ({problem.now}); start at {problem.now + one.setup}"
                )
        if free is None or one.end > free.end:
            free = one
    return found


def _calendar(problem: Problem, name: str, line: Sequence[Work], fresh: Collection[int]) -> list[str]:
    """Neither work nor set-up in a closed or broken time."""
    windows = problem.machine[name].unavailable
    return [
        f"{_work_name(one)}{f' (set up from {one.ready})' if one.setup else ''}: {name} is not available "
        f"{window.start}..{window.end} ({window.reason})"
        for one in line
        for window in windows
        if one.ready < window.end and window.start < one.end and any(id(member) in fresh for member in one.members)
    ]


def _crew(problem: Problem, crew: str, lines: dict[str, list[Work]], fresh: Collection[int]) -> list[str]:
    """Where more people of `crew` are needed than there are; a batch needs those of its most demanding operation.

    History may have been short of people; it is a fault where something new needs them.
    """
    changes: list[tuple[int, int, int, str]] = []
    for line in lines.values():
        for one in line:
            people = max(problem.operation[each.job, each.op].crew.get(crew, 0) for each in one.members)
            if people:
                new = any(id(member) in fresh for member in one.members)
                begin = one.ready if new else one.start
                changes += [(one.end, -people, -new, ""), (begin, people, int(new), _work_name(one))]
    found, needed, running_new = [], 0, 0
    for at, people, newly, who in sorted(changes):
        needed, running_new = needed + people, running_new + newly
        if people > 0 and running_new and needed > problem.crews[crew]:
            found.append(
                f"crew {crew!r}: {needed} people are needed at {at}, there are {problem.crews[crew]}; "
                f"move {who} to a later time or add people"
            )
    return found


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


def _work_name(work: Work) -> str:
    first = work.members[0]
    if len(work.members) == 1:
        return _name(first)
    jobs = ", ".join(repr(one.job) for one in work.members)
    return f"batch of jobs {jobs} on {first.machine} {work.start}..{work.end}"
