"""What speaks against the works of machines: two at once, batches that are none, set-ups without room, closed times,
too few people.

    queue_faults(problem, works(problem, assignments), fresh)

`fresh` has the `id` of every assignment that is new; what has happened is exempt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from messages.gaps import Work
from messages.plan import Assignment
from messages.problem import Problem


def queue_faults(problem: Problem, lines: Mapping[str, Sequence[Work]], fresh: Collection[int]) -> list[str]:
    """What is wrong with what machines do, `lines` being by machine."""
    found = [fault for line in lines.values() for fault in _overlaps(problem, line, fresh)]
    if not found:  # else set-ups would only repeat it
        found = [fault for name, line in lines.items() for fault in _setups(problem, name, line, fresh)]
    found += [fault for name, line in lines.items() for fault in _calendar(problem, name, line, fresh)]
    return found + [fault for crew in problem.crews for fault in _crew(problem, crew, lines, fresh)]


def name_of(one: Assignment) -> str:
    """An assignment, for people."""
    return f"job {one.job!r} op {one.op} on {one.machine} {one.start}..{one.end}"


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


def _crew(problem: Problem, crew: str, lines: Mapping[str, Sequence[Work]], fresh: Collection[int]) -> list[str]:
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


def _work_name(work: Work) -> str:
    first = work.members[0]
    if len(work.members) == 1:
        return name_of(first)
    jobs = ", ".join(repr(one.job) for one in work.members)
    return f"batch of jobs {jobs} on {first.machine} {work.start}..{work.end}"
