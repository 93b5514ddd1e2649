"""Everything that speaks against a plan, in words for people. Written apart from every solver.

Complete: every open operation once, on an able machine, for as long as it takes, after release, `now` and its
predecessor; no two at once on a machine, none in a closed or broken time; history as it was; and machine states that
work can rest on: all work covered, nothing twice, a full preheating right before work on a cold machine.

History itself is exempt: what happened has happened. Without `machine_states` the gap rule applies, and the same
checks run on its states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from messages.gaps import energy_minimal_states
from messages.plan import Assignment, MachineState, Plan
from messages.problem import Machine, Problem, open_jobs

POWERED = ("work", "idle", "preheat", "setup")


def violations(problem: Problem, plan: Plan) -> list[str]:
    """What is wrong with `plan`, [] if nothing is."""
    found = _other_problem(problem, plan)
    known, faults = _known(problem, plan)
    found += faults
    found += _history(problem, known)
    new = _new(problem, known)
    found += _operations(problem, new)
    found += _overlaps(problem, known, new)
    found += _calendar(problem, new)
    if found:
        return found  # states of a plan that is wrong in itself would only repeat it
    states = plan.machine_states or energy_minimal_states(problem, known)
    for machine in problem.machines:
        mine = [one for one in states if one.machine == machine.id]
        found += _states(problem, machine, known, mine)
    found += [f"machine state: no machine {one.machine!r}" for one in states if one.machine not in problem.machine]
    found += [f"move of job {one.job!r}: this problem knows no transport" for one in plan.moves]
    return found


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
    """Once each, for as long as it takes, in order, not too early."""
    found = []
    by_key: dict[tuple[str, int], list[Assignment]] = {}
    for one in new:
        by_key.setdefault((one.job, one.op), []).append(one)
    for job in open_jobs(problem):
        ready, before = job.ready, "its release, `now` or its history"
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
            if one.end - one.start != needs:
                found.append(f"{_name(one)}: lasts {one.end - one.start}, needs {needs}")
            if one.start < ready:
                found.append(f"{_name(one)}: starts before {ready} ({before})")
            ready, before = max(ready, one.end), "the end of its predecessor"
    for job_id, op in by_key:
        found.append(f"job {job_id!r} op {op}: planned again, but history has done it")
    return found


def _overlaps(problem: Problem, known: Sequence[Assignment], new: Sequence[Assignment]) -> list[str]:
    """Two at once on one machine; two of history are exempt, and zero-length operations conflict with nothing."""
    found = []
    future = set(new)
    lines: dict[str, list[Assignment]] = {}
    for one in known:
        if one.end > one.start:
            lines.setdefault(one.machine, []).append(one)
    for line in lines.values():
        line.sort(key=lambda one: (one.start, one.end))
        last: Assignment | None = None  # the one that ends last so far
        last_new: Assignment | None = None
        for one in line:
            rival = last if one in future else last_new
            if rival is not None and one.start < rival.end:
                found.append(f"{_name(rival)} and {_name(one)} overlap")
            if last is None or one.end > last.end:
                last = one
            if one in future and (last_new is None or one.end > last_new.end):
                last_new = one
    return found


def _calendar(problem: Problem, new: Sequence[Assignment]) -> list[str]:
    return [
        f"{_name(one)}: {one.machine} is not available {window.start}..{window.end} ({window.reason})"
        for one in new
        for window in problem.machine[one.machine].unavailable
        if one.start < window.end and window.start < one.end and one.start < one.end
    ]


def _states(
    problem: Problem, machine: Machine, known: Iterable[Assignment], states: Sequence[MachineState]
) -> list[str]:
    """The machine's own time line; what lies wholly before `now` is exempt."""
    line = sorted((one for one in states if one.end > one.start), key=lambda one: (one.start, one.end))
    begin = problem.now
    found = []
    works = sorted(
        (one.start, one.end)
        for one in known
        if one.machine == machine.id and one.end > one.start and (begin is None or one.end > begin)
    )
    shown = _merged([(one.start, one.end) for one in line if one.state == "work"], begin)
    if shown != _merged(works, begin):
        found.append(f"{machine.id}: its work states {shown} are not its operations {_merged(works, begin)}")
    before: MachineState | None = None
    for one in line:
        if before is not None and one.start < before.end and (begin is None or before.end > begin):
            found.append(f"{machine.id}: {before.state} and {one.state} overlap at {one.start}")
        if begin is None or one.end > begin:
            found += _rests_on(problem, machine, before, one)
        before = one
    return found


def _rests_on(problem: Problem, machine: Machine, before: MachineState | None, one: MachineState) -> list[str]:
    """Whether a state may follow the one before it, and may be where it is."""
    where = f"{machine.id}: {one.state} {one.start}..{one.end}"
    found = []
    if one.state in POWERED:
        found += [
            f"{where}: it is broken down {window.start}..{window.end}"
            for window in machine.unavailable
            if window.reason == "breakdown"
            and one.start < window.end
            and window.start < one.end
            and not _running(problem, machine, one)
        ]
    if one.state == "preheat":
        if problem.now is not None and one.start < problem.now and one.end == machine.warm_from:
            return found  # it is under way
        if one.end - one.start != machine.preheat:
            found.append(f"{where}: preheating takes {machine.preheat}")
        if problem.now is not None and one.start < problem.now:
            found.append(f"{where}: cannot have begun before now ({problem.now})")
        return found
    if one.state in ("off", "down") or machine.preheat == 0 or _warm_anyway(problem, machine, one):
        return found
    past = problem.now is not None and one.start <= problem.now  # what a plan says of the past warms nothing
    if past or before is None or before.end < one.start or before.state not in POWERED:
        found.append(f"{where}: the machine is cold; preheat it right before for {machine.preheat}")
    return found


def _running(problem: Problem, machine: Machine, one: MachineState) -> bool:
    """The state covers history, which is exempt."""
    return one.state == "work" and any(
        past.machine == machine.id and past.start < one.end and one.start < past.end for past in problem.history
    )


def _warm_anyway(problem: Problem, machine: Machine, one: MachineState) -> bool:
    """Warm by what happened before this plan: it worked across `now`, or is known to be warm when this begins."""
    if _running(problem, machine, one):
        return True
    now = problem.start_floor
    if machine.warm_from is not None and machine.warm_from <= one.start <= max(now, machine.warm_from):
        return True
    if problem.now is None:
        return False
    ends = [past.end for past in problem.history if past.machine == machine.id]
    return any(end >= now and end == one.start for end in ends)


def _merged(spans: Sequence[tuple[int, int]], begin: int | None) -> list[tuple[int, int]]:
    """Touching spans joined, and what lies before `begin` cut away."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        low = start if begin is None else max(start, begin)
        if end <= low:
            continue
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((low, end))
    return joined
