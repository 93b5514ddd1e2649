"""What speaks against the machine states of a plan: work that nothing rests on, holes, states that cannot be.

All work covered and nothing twice; every set-up right before its work, and no other; a full preheating right before
work or set-up on a cold machine; broken down where it is broken and only there; from the first state to the last no
hole, since what is not said would cost nothing. What lies before `now` is exempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from messages.gaps import Work
from messages.plan import MachineState
from messages.problem import Machine, Problem

POWERED = ("work", "idle", "preheat", "setup")


def state_faults(
    problem: Problem, machine: Machine, works: Sequence[Work], states: Sequence[MachineState]
) -> list[str]:
    """What is wrong with one machine's `states`, given what it does (`messages.gaps.works`)."""
    line = sorted((one for one in states if one.end > one.start), key=lambda one: (one.start, one.end))
    begin = problem.now
    found = []
    done = _merged([(one.start, one.end) for one in works], begin)
    shown = _merged([(one.start, one.end) for one in line if one.state == "work"], begin)
    if shown != done:
        found.append(f"{machine.id}: its work states {shown} are not its operations {done}")
    found += _setups(problem, machine, works, line)
    before: MachineState | None = None
    for one in line:
        if before is not None and one.start < before.end and (begin is None or before.end > begin):
            found.append(f"{machine.id}: {before.state} and {one.state} overlap at {one.start}")
        if before is not None and one.start > before.end and (begin is None or before.end >= begin):
            found.append(f"{machine.id}: nothing is said of {before.end}..{one.start}; say idle or off")
        if begin is None or one.end > begin:
            found += _rests_on(problem, machine, before, one)
        before = one
    return found


def _setups(problem: Problem, machine: Machine, works: Sequence[Work], line: Sequence[MachineState]) -> list[str]:
    """Every set-up in its place, and no other; those of history are exempt."""
    begin = problem.now
    due = Counter((one.ready, one.start) for one in works if one.setup and (begin is None or one.start > begin))
    stated = Counter(
        (one.start, one.end) for one in line if one.state == "setup" and (begin is None or one.end > begin)
    )
    return [
        f"{machine.id}: setup {start}..{end}: {text}"
        for those, text in (
            (stated - due, "no work after it needs it so; leave it out or let it end where its work starts"),
            (due - stated, "the work after it needs it; add it"),
        )
        for start, end in those.elements()
    ]


def _rests_on(problem: Problem, machine: Machine, before: MachineState | None, one: MachineState) -> list[str]:
    """Whether a state may follow the one before it, and may be where it is."""
    found: list[str] = []
    if one.state == "preheat" and problem.now is not None and one.end == machine.warm_from:
        return found  # the problem says so
    if one.state in POWERED:
        found += [
            f"{_where(one)}: it is broken down {window.start}..{window.end}"
            for window in machine.unavailable
            if window.reason == "breakdown"
            and one.start < window.end
            and window.start < one.end
            and not _running(problem, machine, one)
        ]
    if one.state in ("off", "down"):
        return found + _broken(problem, machine, one)
    if _preheating(problem, machine) and one.start < (machine.warm_from or 0):
        return [*found, f"{_where(one)}: the machine is being preheated until {machine.warm_from}; begin then"]
    if one.state == "preheat":
        if one.end - one.start != machine.preheat:
            found.append(f"{_where(one)}: preheating takes {machine.preheat}")
        if problem.now is not None and one.start < problem.now:
            found.append(f"{_where(one)}: cannot have begun before now ({problem.now})")
        return found
    if machine.preheat == 0 or _warm_anyway(problem, machine, one):
        return found
    past = problem.now is not None and one.start <= problem.now  # what a plan says of the past warms nothing
    if past or before is None or before.end < one.start or before.state not in POWERED:
        found.append(f"{_where(one)}: the machine is cold; preheat it right before for {machine.preheat}")
    return found


def _where(one: MachineState) -> str:
    return f"{one.machine}: {one.state} {one.start}..{one.end}"


def _preheating(problem: Problem, machine: Machine) -> bool:
    """Under way as planning begins; nobody can change that."""
    return problem.now is not None and machine.warm_from is not None and machine.warm_from > problem.now


def _broken(problem: Problem, machine: Machine, one: MachineState) -> list[str]:
    """Down in breakdowns and only there, as far as it is not past."""
    start = one.start if problem.now is None else max(one.start, problem.now)
    broken = _merged(
        [(max(w.start, start), min(w.end, one.end)) for w in machine.unavailable if w.reason == "breakdown"], None
    )
    if one.state == "off":
        return [f"{_where(one)}: it is broken down {low}..{high}; say down there" for low, high in broken]
    if broken != [(start, one.end)]:
        return [f"{_where(one)}: it is broken down in {broken} only; say off elsewhere"]
    return []


def _running(problem: Problem, machine: Machine, one: MachineState) -> bool:
    """The state covers history, which is exempt."""
    return one.state == "work" and any(
        past.start < one.end and one.start < past.end for past in problem.past.get(machine.id, ())
    )


def _warm_anyway(problem: Problem, machine: Machine, one: MachineState) -> bool:
    """Warm by what happened before this plan: it worked across `now`, or is known to be warm when this begins."""
    if _running(problem, machine, one):
        return True
    now = problem.start_floor
    since = machine.warm_from
    if since is not None and one.start <= max(now, since) and (problem.now is None or since <= one.start):
        return True  # in a fresh plan it is warm before tick 0 as well
    if problem.now is None:
        return False
    ends = [past.end for past in problem.past.get(machine.id, ()) if past.end > past.start]
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
