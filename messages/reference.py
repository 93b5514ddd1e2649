"""Serial schedule generation in plain Python: what the compiled decoders are held to, and what an edge node can run.

    new, faults = schedule(problem, order=["2", "1", "1"], choice={("1", 0): "kiln"})

The k-th occurrence of a job in `order` is its k-th open operation. Each goes to its chosen machine, else to the one
that completes it earliest (ties: less energy, then the first in the file), behind what stands there already, or with
`active` into the first gap that holds it. On machines that batch, an operation joins the first batch it is ready for,
if family, size and ticks fit; and a batch begins later or lasts longer for it while nothing that follows is placed, if
the operation gains at least what all of the batch lose together. Operations tied by a greatest wait are placed
together; when the wait is missed, their predecessor begins later, at most `TRIES` times per operation, then all of them
are put behind everything else. A fault is a wait that was missed even so, or an end after the horizon.

Slow and obvious: it looks at everything that is placed whenever it places something. Hundreds of operations, no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from messages.gaps import set_up_for, works
from messages.openjobs import OpenOperation, open_jobs
from messages.plan import Assignment
from messages.problem import Machine, Operation, Problem

TRIES = 64
NEVER = -(2**60)


@dataclass
class _Placed:
    """One operation; of a batch, `end` is that of the longest, which came first."""

    job: str
    op: int
    rule: Operation
    machine: str
    start: int
    end: int
    ticks: int
    """On that machine; 0: it occupies nothing."""
    members: list[_Placed] = field(default_factory=list)
    """Of the batch it leads, itself first."""
    leader: _Placed | None = None
    was: tuple[int, int] = (0, 0)
    """Start and end of the batch it joined, before it did."""


def schedule(
    problem: Problem,
    order: Sequence[str],
    choice: Mapping[tuple[str, int], str] | None = None,
    *,
    active: bool = False,
) -> tuple[list[Assignment], int]:
    """The new assignments of an order, in the order of the file; and how many faults, 0: a plan."""
    floor = _Floor(problem, choice or {}, active)
    faults, occurrences = 0, dict.fromkeys(floor.jobs, 0)
    for job in order:
        k = occurrences[job]
        occurrences[job] += 1
        if (job, floor.jobs[job][k].op) not in floor.placed:
            faults += floor.chain(job, k)
    made = []
    for job, steps in floor.jobs.items():
        for step in steps:
            one = floor.placed[job, step.op]
            faults += problem.horizon is not None and one.end > problem.horizon
            made.append(Assignment(job=job, op=step.op, machine=one.machine, start=one.start, end=one.end))
    return made, faults


class _Floor:
    """What is placed so far."""

    def __init__(self, problem: Problem, choice: Mapping[tuple[str, int], str], active: bool) -> None:
        self.problem, self.choice, self.active = problem, choice, active
        todo = open_jobs(problem)
        self.jobs = {job.id: job.operations for job in todo}
        self.ready = {job.id: job.ready for job in todo}
        self.left = {one.job: one for one in sorted(problem.history, key=lambda one: (one.end, one.start))}
        self.placed: dict[tuple[str, int], _Placed] = {}
        self.lines: dict[str, list[_Placed]] = {one.id: [] for one in problem.machines}
        self.family = set_up_for(problem)
        self.low: dict[tuple[str, int], int] = {}
        self.away: _Placed | None = None
        """The batch whose people are not counted, while somewhere else is looked for."""
        done = works(problem, problem.history)
        self.past = {name: [one for one in line if one.end > problem.start_floor] for name, line in done.items()}
        self.last_end = {name: max(one.end for one in line) for name, line in done.items()}

    # --- chains -------------------------------------------------------------------------------------

    def chain(self, job: str, first: int) -> int:
        """Place operation `first` and all that greatest waits tie to it; how many were missed."""
        steps = self.jobs[job]
        last = first
        while last + 1 < len(steps) and self._rule(steps[last + 1]).wait_max is not None:
            last += 1
        tries, late, faults, k = 0, False, 0, first
        while k <= last:
            step = steps[k]
            one = self._best(job, k)
            most = self._rule(step).wait_max
            before = self.placed[job, steps[k - 1].op] if k > 0 else None
            missed = before is not None and most is not None and one.start - most > before.end
            if missed and before is not None and most is not None and k > first and tries <= TRIES * (last - first + 1):
                tries += 1
                k -= 1
                self.low[job, steps[k].op] = before.start + one.start - most - before.end
                self._take_away(before)
                if tries == TRIES * (last - first + 1) and not late:
                    late, tries = True, 0
                    while k > first:
                        k -= 1
                        self._take_away(self.placed[job, steps[k].op])
                    for tied in steps[first : last + 1]:
                        self.low.pop((job, tied.op), None)
                    self.low[job, steps[first].op] = self._everything_ends()
                continue
            faults += missed
            self._put(one)
            k += 1
        return faults

    def _everything_ends(self) -> int:
        times = [self.problem.start_floor]
        for machine in self.problem.machines:
            times += [one.end for one in self.lines[machine.id]]
            times += [one.end for one in machine.unavailable if one.reason == "closed"]
            times.append(self._stretches(machine)[-1][2])
        times += [end for _, _, end in self._people_at_work()]
        return max(times)

    # --- one operation ------------------------------------------------------------------------------

    def _rule(self, step: OpenOperation) -> Operation:
        return self.problem.operation[step.job, step.op]

    def _best(self, job: str, k: int) -> _Placed:
        step = self.jobs[job][k]
        able = [name for name in step.alternatives if self._leads_on(job, k, name)]
        chosen = self.choice.get((job, step.op))
        if chosen is not None and (chosen in able or not self._chained()):
            return self._found(job, k, chosen)
        found = [self._found(job, k, name) for name in able or step.alternatives]
        return min(
            found, key=lambda one: (one.end, self.problem.work_kw(job, step.op, one.machine) * one.ticks)
        )  # the first of equals

    def _chained(self) -> bool:
        return any(self._rule(step).wait_max is not None for steps in self.jobs.values() for step in steps)

    def _leads_on(self, job: str, k: int, name: str) -> bool:
        """Whether greatest waits leave this machine at all: reached in time, and with a way on."""
        step = self.jobs[job][k]
        if k > 0 and self._rule(step).wait_max is not None:
            before = self.placed[job, self.jobs[job][k - 1].op]
            if not self._in_time(before.rule, before.machine, before.ticks, step, name):
                return False
        return name not in self._dead_ends(job, k)

    def _in_time(self, before: Operation, at: str, ticks: int, step: OpenOperation, name: str) -> bool:
        most, again = self._rule(step).wait_max or 0, 0
        if at == name and ticks and step.alternatives[name]:
            again = self._setup(name, before.family, self._rule(step).family)
        return max(again, self.problem.transport.between(at, name)) <= most

    def _dead_ends(self, job: str, k: int) -> set[str]:
        """Machines from which operation k + 1 cannot be reached in time; none if that is all of them."""
        steps = self.jobs[job]
        if k + 1 == len(steps) or self._rule(steps[k + 1]).wait_max is None:
            return set()
        step, dead = steps[k], self._dead_ends(job, k + 1)
        on = [name for name in steps[k + 1].alternatives if name not in dead]
        mine = {
            name
            for name, ticks in step.alternatives.items()
            if not any(self._in_time(self._rule(step), name, ticks, steps[k + 1], after) for after in on)
        }
        return set() if len(mine) == len(step.alternatives) else mine

    def _found(self, job: str, k: int, name: str) -> _Placed:
        """Where operation k of the job would go on this machine."""
        step = self.jobs[job][k]
        rule, ticks = self._rule(step), step.alternatives[name]
        ready = self._ready(job, k, name)
        one = _Placed(job, step.op, rule, name, ready, ready + ticks, ticks)
        if not ticks:
            return one
        batches = self.lines[name] if self.problem.machine[name].batch > 1 else []
        for batch in batches:
            if batch.start >= ready and self._joins(rule, ticks, batch):
                one.start, one.end, one.leader = batch.start, batch.end, batch
                break
        else:
            one.start = self._alone(one, ready)
            one.end = one.start + ticks
        for batch in batches:
            if batch.end > ready and self._fits(rule, batch):
                start, end = self._held(one, batch, ready)
                if end < one.end and one.end - end >= len(batch.members) * (end - batch.end):
                    one.start, one.end, one.leader = start, end, batch
                    break
        return one

    def _alone(self, one: _Placed, ready: int) -> int:
        """Its start in no batch."""
        name, family, ticks = one.machine, one.rule.family, one.ticks
        line = self.lines[name]
        for place in range(len(line)) if self.active else ():
            following = line[place]
            if following.start - self._setup_before(following) <= ready:
                continue
            limit = following.start - self._setup(name, family, following.rule.family)
            start = self._behind(one, line[place - 1] if place else None, ready)
            if start + ticks <= limit and limit - ticks >= ready and self._setup_can_begin(following, limit):
                return start
        return self._behind(one, line[-1] if line else None, ready)

    def _held(self, one: _Placed, batch: _Placed, ready: int) -> tuple[int, int]:
        """When the batch could begin and end with this one in it; never, if it has to stay as it is."""
        never = (2**60, 2**60)
        line, ticks = self.lines[one.machine], max(one.ticks, batch.end - batch.start)
        if any(self._followed(each) for each in batch.members):
            return never
        crew = _most([one.rule, *(each.rule for each in batch.members)])
        whole = replace(one, rule=one.rule.model_copy(update={"crew": crew}), ticks=ticks)
        place = next(i for i, each in enumerate(line) if each is batch)
        self.away = batch
        start = self._behind(whole, line[place - 1] if place else None, max(ready, batch.start))
        self.away = None
        after = line[place + 1] if place + 1 < len(line) else None
        if after is not None and start + ticks > after.start - self._setup_before(after):
            return never
        if self.problem.horizon is not None and start + ticks > self.problem.horizon:
            return never
        if any(start > self._latest(each) for each in batch.members):
            return never
        return start, start + ticks

    def _place(self, one: _Placed) -> int:
        return next(k for k, step in enumerate(self.jobs[one.job]) if step.op == one.op)

    def _followed(self, one: _Placed) -> bool:
        """Whether what follows it in its job is placed already."""
        following = self.jobs[one.job][self._place(one) + 1 :]
        return any((step.job, step.op) in self.placed for step in following)

    def _latest(self, one: _Placed) -> int:
        """The latest start its greatest wait leaves."""
        k, before = self._place(one), self.left.get(one.job)
        if one.rule.wait_max is None or (k == 0 and before is None):
            return 2**60
        end = self.placed[one.job, self.jobs[one.job][k - 1].op].end if k or before is None else before.end
        return end + one.rule.wait_max

    def _ready(self, job: str, k: int, name: str) -> int:
        step = self.jobs[job][k]
        ready = max(self.low.get((job, step.op), NEVER), self.ready[job])
        before: _Placed | Assignment | None = self.left.get(job)
        if k > 0:
            before = self.placed[job, self.jobs[job][k - 1].op]
        if before is not None:
            carried = self.problem.transport.between(before.machine, name)
            ready = max(ready, before.end + max(self._rule(step).wait_min, carried))
        return ready

    def _fits(self, rule: Operation, batch: _Placed) -> bool:
        places = sum(one.rule.size for one in batch.members)
        return rule.family == batch.rule.family and places + rule.size <= self.problem.machine[batch.machine].batch

    def _joins(self, rule: Operation, ticks: int, batch: _Placed) -> bool:
        if not self._fits(rule, batch) or ticks > batch.end - batch.start:
            return False
        needed = {crew: max(one.rule.crew.get(crew, 0) for one in batch.members) for crew in self.problem.crews}
        more = {crew: people - needed[crew] for crew, people in rule.crew.items() if people > needed[crew]}
        return self._short_until(more, batch.start - self._setup_before(batch), batch.end) is None

    def _behind(self, one: _Placed, prev: _Placed | None, ready: int) -> int:
        """The earliest start behind `prev`."""
        machine = self.problem.machine[one.machine]
        after = NEVER if prev is None else prev.end
        setup = self._setup(one.machine, prev.rule.family if prev else self.family[one.machine], one.rule.family)
        for begin, end, warm in self._stretches(machine):
            anyhow = self.problem.now is None and begin == 0  # set up before tick 0
            start = max(ready, warm, max(after, NEVER if anyhow else warm) + setup)
            start = self._open_from(machine, one.rule, start, setup, one.ticks)
            if end is None or start + one.ticks <= end:
                return start
        raise AssertionError("the last stretch is open")

    def _open_from(self, machine: Machine, rule: Operation, start: int, setup: int, ticks: int) -> int:
        while True:
            ends = [
                one.end
                for one in machine.unavailable
                if one.reason == "closed" and start - setup < one.end and one.start < start + ticks
            ]
            short = self._short_until(rule.crew, start - setup, start + ticks)
            if not ends and short is None:
                return start
            start = min([*ends, *([] if short is None else [short])]) + setup

    def _stretches(self, machine: Machine) -> list[tuple[int, int | None, int]]:
        """(from, until, work can begin at) between breakdowns."""
        problem, now = self.problem, self.problem.start_floor
        last = self.last_end.get(machine.id, -1)
        begin = max(now, last) if problem.now is not None else 0
        warm = [last] if problem.now is not None and last >= now else []
        if machine.warm_from is not None:
            warm.append(max(machine.warm_from, now))
        ready = max(warm) if warm else (now + machine.preheat if problem.now is not None else 0)
        found: list[tuple[int, int | None, int]] = []
        for window in sorted(machine.unavailable, key=lambda one: one.start):
            if window.reason == "breakdown" and window.end > begin:
                if window.start > begin:
                    found.append((begin, window.start, ready))
                begin, ready = window.end, window.end + machine.preheat
        return [*found, (begin, None, ready)]

    def _setup(self, name: str, before: str, after: str) -> int:
        return self.problem.machine[name].setup.get(before, {}).get(after, 0)

    def _setup_before(self, one: _Placed) -> int:
        line = self.lines[one.machine]
        place = next(i for i, other in enumerate(line) if other is one)
        before = line[place - 1].rule.family if place else self.family[one.machine]
        return self._setup(one.machine, before, one.rule.family)

    def _setup_can_begin(self, one: _Placed, ready: int) -> bool:
        """Whether the set-up of what is placed already may begin at `ready` instead."""
        old = one.start - self._setup_before(one)
        if ready == old or self.problem.crews:
            return ready == old
        machine = self.problem.machine[one.machine]
        shut = [window for window in machine.unavailable if window.reason == "closed"]
        if ready > old:
            return True
        if any(window.start < one.start and ready < window.end for window in shut):
            return False
        begin, _, warm = [line for line in self._stretches(machine) if line[0] <= one.start][-1]
        return (self.problem.now is None and begin == 0) or ready >= warm

    # --- crews --------------------------------------------------------------------------------------

    def _people_at_work(self) -> list[tuple[dict[str, int], int, int]]:
        """(people of each crew, from, until) of everything that needs some."""
        spans = []
        for line in self.past.values():
            for work in line:
                rules = [self.problem.operation[one.job, one.op] for one in work.members]
                spans.append((_most(rules), work.start, work.end))
        for placed in self.lines.values():
            for one in placed:
                if one is self.away:
                    continue
                spans.append((_most([each.rule for each in one.members]), one.start - self._setup_before(one), one.end))
        return [span for span in spans if span[0]]

    def _short_until(self, needed: Mapping[str, int], begin: int, end: int) -> int | None:
        """None if the crews have the people for all of this time, else a time before which they cannot."""
        spans = self._people_at_work() if needed else []
        marks = sorted({begin, *(start for _, start, _ in spans), *(until for _, _, until in spans)})
        for mark, following in zip(marks, [*marks[1:], None], strict=True):
            if mark >= end or following is None or following <= begin:
                continue
            for crew, people in needed.items():
                busy = sum(those.get(crew, 0) for those, start, until in spans if start <= mark < until)
                if busy + people > self.problem.crews[crew]:
                    return following
        return None

    # --- placing ------------------------------------------------------------------------------------

    def _put(self, one: _Placed) -> None:
        self.placed[one.job, one.op] = one
        if not one.ticks:
            return
        if one.leader is not None:
            one.was = (one.leader.start, one.leader.end)
            one.leader.members.append(one)
            _hold(one.leader, one.start, one.end)
            return
        one.members.append(one)
        line = self.lines[one.machine]
        line.append(one)
        line.sort(key=lambda each: each.start)

    def _take_away(self, one: _Placed) -> None:
        del self.placed[one.job, one.op]
        if one.leader is not None:
            one.leader.members = [each for each in one.leader.members if each is not one]
            _hold(one.leader, *one.was)
        elif one.ticks:
            self.lines[one.machine] = [each for each in self.lines[one.machine] if each is not one]


def _hold(batch: _Placed, start: int, end: int) -> None:
    for one in batch.members:
        one.start, one.end = start, end


def _most(rules: Sequence[Operation]) -> dict[str, int]:
    found: dict[str, int] = {}
    for rule in rules:
        for crew, people in rule.crew.items():
            found[crew] = max(people, found.get(crew, 0))
    return found
