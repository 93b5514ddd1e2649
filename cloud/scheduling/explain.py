"""Why a plan is as it is: what binds it, which machine is the bottleneck, which orders are late and why.

    found = explain(problem, plan)
    found.critical      # pieces without a hole from a reason (release, now, ...) to the last end
    found.machines      # load, idle time and utilisation, the busiest first
    found.late          # late orders: their own story piece by piece, and when they would end alone in the shop
    found.limits        # what the limits leave

Pure: nothing is solved here (what an hour less costs: `cloud.scheduling.relax`). Why the plan begins something later
than it could is found out by judging it begun sooner, some seconds at most (`cloud.scheduling.held`). A plan that
breaks rules is explained too, as far as its times make sense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloud.scheduling.held import PLAIN, Held
from cloud.scheduling.pieces import Kind, Piece, Run, timelines
from cloud.scheduling.seam import KEY, NEAR
from messages.judge import objective
from messages.openjobs import OpenOperation, open_jobs
from messages.plan import Assignment, Measure, Plan
from messages.problem import TIMES, Problem

REASONS = ("begin", "release", "now", "history")
"""Kinds a chain may start with: what no plan can change."""


@dataclass(frozen=True)
class Load:
    """What one machine does until the end of the plan, in ticks: from `now`, in a fresh plan from its first preheating
    or set-up, which may lie before 0."""

    machine: str
    work: int
    setup: int
    idle: int
    preheat: int
    span: int
    early: int = 0
    """Ticks of preheating and set-up before 0; part of those above."""

    @property
    def utilisation(self) -> float:
        """Share of the time until the plan's end in which it works or is set up."""
        return (self.work + self.setup) / self.span if self.span else 0.0


@dataclass(frozen=True)
class Late:
    """A late order, told by the lot that ends last."""

    order: str
    job: str
    due: int
    end: int
    alone: int | None
    """When it would end at best alone in the shop; None: it has been done already."""
    story: tuple[Piece, ...]

    @property
    def late(self) -> int:
        """Ticks."""
        return self.end - self.due

    @property
    def longest(self) -> Piece | None:
        """Its longest step."""
        return max((one for one in self.story if one.kind == "work"), key=lambda one: one.end - one.start, default=None)

    def waited(self) -> dict[tuple[Kind, str], int]:
        """(why, on which machine) → ticks in which it did not get on, the most first."""
        found: dict[tuple[Kind, str], int] = {}
        for one in self.story:
            if one.kind not in ("work", "history") and one.end > one.start:
                found[one.kind, one.machine] = found.get((one.kind, one.machine), 0) + one.end - one.start
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Kept:
    """A limit and what the plan has; times in ticks."""

    measure: Measure
    value: float
    limit: float

    @property
    def spare(self) -> float:
        """Negative: exceeded."""
        return self.limit - self.value

    @property
    def binds(self) -> bool:
        """Used up to less than a tick, other measures up to one in a thousand."""
        return self.spare < (1.0 if self.measure in TIMES else max(NEAR, 1e-3 * abs(self.limit)))


@dataclass(frozen=True)
class Explanation:
    """What `explain` found."""

    critical: tuple[Piece, ...]
    machines: tuple[Load, ...]
    late: tuple[Late, ...]
    limits: tuple[Kept, ...]


def explain(problem: Problem, plan: Plan, limits: Mapping[Measure, float] | None = None) -> Explanation:
    """What binds `plan`; `limits` hold beside those of the problem."""
    web = _Web(problem, plan, limits)
    values = objective(problem, plan)
    every = {**problem.limits, **(limits or {})}
    return Explanation(
        critical=tuple(web.chain()),
        machines=tuple(web.loads()),
        late=tuple(web.late()),
        limits=tuple(Kept(name, values[KEY[name]], limit) for name, limit in every.items() if KEY[name] in values),
    )


@dataclass(frozen=True)
class _Cause:
    """Something that allows a start from `ready` on, not sooner."""

    ready: int
    before: Assignment | None = None
    """What had to end; none: the reason is where the chain begins."""
    reason: Kind = "begin"
    by_job: bool = False
    by_crew: bool = False


class _Web:
    """A plan with its neighbours: before in the job, before on the machine, before with the crew."""

    def __init__(self, problem: Problem, plan: Plan, limits: Mapping[Measure, float] | None = None) -> None:
        self.problem = problem
        self.held = Held(problem, plan, limits)
        able = {key: step.alternatives for key, step in problem.operation.items()}
        self.work = [one for one in plan.assignments if one.machine in able.get((one.job, one.op), ())]
        past = set(problem.history)
        self.new = {(one.job, one.op): one for one in self.work if one not in past}
        self.lines = timelines(problem, self.work, plan.machine_states)
        self.run_of = {one: run for line in self.lines.values() for run in line.runs for one in run.members}
        self.last = {one.job: one for one in sorted(problem.history, key=lambda one: (one.end, one.start))}
        self.jobs = {job.id: job for job in problem.jobs}
        self.open = {job.id: job for job in open_jobs(problem)}
        self.crews: dict[str, list[tuple[int, Assignment, int]]] = {}
        for one in self.run_of:
            for crew, people in problem.operation[one.job, one.op].crew.items():
                self.crews.setdefault(crew, []).append((self.run_of[one].begin, one, people))
        self.before: dict[tuple[str, int], Assignment] = {}
        self.after: dict[tuple[str, int], Assignment] = {}
        for job in self.open.values():
            previous: Assignment | None = self.last.get(job.id)
            for step in job.operations:
                if previous is not None:
                    self.before[step.job, step.op] = previous
                planned = self.new.get((step.job, step.op))
                if planned is not None and previous is not None:
                    self.after[previous.job, previous.op] = planned
                previous = planned or previous

    # --- the critical path ----------------------------------------------------------------------

    def chain(self) -> list[Piece]:
        """From the operation that ends last back to a reason, no tick left out; in time order."""

        def last(one: Assignment) -> tuple[int, bool, int]:
            return one.end, self.new.get((one.job, one.op)) == one, one.start

        at: Assignment | None = max(self.work, key=last, default=None)
        found: list[Piece] = []
        while at is not None:
            at = self._back(at, found)
        return found[::-1]

    def _back(self, one: Assignment, found: list[Piece]) -> Assignment | None:
        """Put the way to the end of `one` into `found`, latest first; the operation to go on with."""
        where = (one.job, one.op, one.machine)
        if self.new.get((one.job, one.op)) != one:
            found.append(Piece("history", one.start, one.end, *where))
            return None
        run = self._run(one)
        others = ", ".join(other.job for other in run.members if other != one)
        found.append(Piece("work", one.start, one.end, *where, f"in one batch with {others}" if others else ""))
        causes = [(other, cause) for other in run.members for cause in self._causes(other, run)]
        mine, cause = max(causes, key=lambda pair: pair[1].ready)
        where = (mine.job, mine.op, mine.machine)
        at = cause.ready if cause.before is None or cause.by_job else cause.before.end
        begin = max(at, run.begin)
        if begin < one.start:
            found.append(Piece("setup", begin, one.start, *where))
        found += self._barred(at, begin, run, mine)[::-1]
        if cause.before is None:
            found.append(Piece(cause.reason, at, at, *where))
        elif cause.by_job:
            there = min(at, cause.before.end + self.problem.transport.between(cause.before.machine, mine.machine))
            if there < at:
                found.append(Piece("wait", there, at, *where))
            if cause.before.end < there:
                found.append(Piece("transport", cause.before.end, there, *where))
        return cause.before

    def _run(self, one: Assignment) -> Run:
        """Operations without length stand alone."""
        return self.run_of.get(one) or Run((one,), one.start, one.end, 0, None)

    def _causes(self, one: Assignment, run: Run) -> list[_Cause]:
        """What it waited for, as far as that ended in time; of two that end together the first one counts."""
        causes = []
        before = self.before.get((one.job, one.op))
        if before is not None and before.end <= run.start:
            causes.append(_Cause(min(before.end + self._lag(before, one), run.start), before, by_job=True))
        if run.before is not None and run.before.end <= run.begin:
            causes.append(_Cause(run.before.end + run.setup, run.before))
        freed = self._crew_before(one, run)
        if freed is not None:
            causes.append(_Cause(run.start, freed, by_crew=True))
        release, floor = self.jobs[one.job].release, self.problem.start_floor
        reason: Kind = "release" if release > floor else "now" if self.problem.now is not None else "begin"
        return [*causes, _Cause(min(max(release, floor), run.start), reason=reason)]

    def _lag(self, before: Assignment, one: Assignment) -> int:
        """From the end of the job's operation before to the earliest start of this one."""
        first = self.jobs[one.job].operations[0].op == one.op
        wait = 0 if first else self.problem.operation[one.job, one.op].wait_min
        return max(self.problem.transport.between(before.machine, one.machine), wait)

    def _crew_before(self, one: Assignment, run: Run) -> Assignment | None:
        """Who had the people it needed right before it began."""
        for crew, need in self.problem.operation[one.job, one.op].crew.items():
            there = [row for row in self.crews.get(crew, ()) if row[0] < run.begin <= row[1].end]
            freed = [who for _, who, _ in there if who.end == run.begin]
            if freed and sum(people for *_, people in there) + need > self.problem.crews[crew]:
                return freed[0]
        return None

    def _barred(self, start: int, end: int, run: Run, one: Assignment) -> list[Piece]:
        """Closed, broken, heating or held, between `start` and `end`; what is held gets its reason."""
        found = []
        for piece in self.lines[one.machine].barred(start, end, run, one) if run.end > run.start else ():
            kind, note = (piece.kind, piece.note) if piece.kind != "held" else self._why_held(run, piece)
            found.append(Piece(kind, piece.start, piece.end, piece.job, piece.op, piece.machine, note))
        if run.end == run.start and end > start:
            found.append(Piece("held", start, end, one.job, one.op, one.machine, self._soon(run) or PLAIN))
        return found

    def _why_held(self, run: Run, piece: Piece) -> tuple[Kind, str]:
        soon = self._soon(run)
        if soon:
            return "held", soon
        if piece.end != run.begin:
            return "held", PLAIN
        return self.held.why(run, piece.start)

    def _soon(self, run: Run) -> str:
        for one in run.members:
            after = self.after.get((one.job, one.op))
            most = self.problem.operation[after.job, after.op].wait_max if after is not None else None
            if after is not None and most is not None and after.start - most == run.end:
                return f"operation {after.op} must begin soon after its end"
        return ""

    # --- machines -------------------------------------------------------------------------------

    def loads(self) -> list[Load]:
        """Busiest first; machines without work last."""
        floor = self.problem.start_floor
        end = max((one.end for one in self.work), default=floor)
        found = []
        for name, line in self.lines.items():
            begin = floor if self.problem.now is not None else min([floor, *(one.start for one in line.states)])
            state, early = line.ticks(begin, end), line.ticks(begin, floor)
            work, setup, idle, preheat = (state.get(one, 0) for one in ("work", "setup", "idle", "preheat"))
            span = max(0, end - floor) + early.get("setup", 0)
            before = early.get("preheat", 0) + early.get("setup", 0)
            found.append(Load(name, work, setup, idle, preheat, span, before))
        return sorted(found, key=lambda one: -(one.work + one.setup))

    # --- late orders ----------------------------------------------------------------------------

    def late(self) -> list[Late]:
        """The latest first."""
        ends: dict[str, int] = {}
        for one in self.work:
            ends[one.job] = max(one.end, ends.get(one.job, 0))
        orders: dict[str, tuple[int, str, int]] = {}
        for job in self.problem.jobs:
            if job.due is not None and job.id in ends:
                last = (ends[job.id], job.id, job.due)
                orders[job.part_of or job.id] = max(last, orders.get(job.part_of or job.id, last))
        found = [
            Late(order, job, due, end, self._alone(job), tuple(self._story(job)))
            for order, (end, job, due) in orders.items()
            if end > due
        ]
        return sorted(found, key=lambda one: -one.late)

    def _alone(self, job_id: str) -> int | None:
        """Its earliest end with every machine to itself, set up already (longest waits are not looked at)."""
        job = self.open.get(job_id)
        if job is None:
            return None
        last = self.last.get(job_id)
        at: dict[str | None, int] = {last.machine if last else None: last.end if last else job.ready}
        for step in job.operations:
            reached: dict[str | None, int] = {}
            for name, ticks in step.alternatives.items():
                there = min(end + self._way(before, name, step) for before, end in at.items())
                begin = max(job.ready, there)
                reached[name] = (self.lines[name].fit(begin, ticks) if ticks else begin) + ticks
            at = reached
        return min(at.values())

    def _way(self, before: str | None, machine: str, step: OpenOperation) -> int:
        first = self.jobs[step.job].operations[0].op == step.op
        wait = 0 if first else self.problem.operation[step.job, step.op].wait_min
        return max(self.problem.transport.between(before, machine), wait)

    def _story(self, job_id: str) -> list[Piece]:
        """What became of it from its release to its end, no tick left out."""
        mine = sorted((one for one in self.work if one.job == job_id), key=lambda one: (one.start, one.end, one.op))
        at = min(self.jobs[job_id].release, mine[0].start)
        found = [Piece("release", at, at, job_id)]
        before: Assignment | None = None
        for one in mine:
            past = self.new.get((one.job, one.op)) != one
            if not past:
                found += self._waiting(one, before, at)
            begin = at if past else max(at, one.start)
            if one.end > begin:
                found.append(Piece("history" if past else "work", begin, one.end, one.job, one.op, one.machine))
            at, before = max(at, one.end), one
        return found

    def _waiting(self, one: Assignment, before: Assignment | None, at: int) -> list[Piece]:
        """Why nothing happened to the job from `at` to the start of `one`."""
        where = (one.job, one.op, one.machine)
        found: list[Piece] = []

        def until(kind: Kind, end: int, note: str = "") -> None:
            nonlocal at
            if min(end, one.start) > at:
                found.append(Piece(kind, at, min(end, one.start), *where, note))
                at = min(end, one.start)

        if before is not None:
            there = at + self.problem.transport.between(before.machine, one.machine)
            ready = at + self._lag(before, one)
            until("transport", there)
            until("wait", ready)
        if self.open[one.job].ready > self.jobs[one.job].release and before is None:
            until("now", self.open[one.job].ready)
        run = self._run(one)
        for other in self.lines[one.machine].runs if run.end > run.start else ():
            if other.begin < run.begin and other.end > at:
                found += self._barred(at, min(max(at, other.begin), one.start), run, one)
                at = max(at, min(other.begin, one.start))
                until("queue", other.end, f"job {other.members[0].job} operation {other.members[0].op}")
        if self._crew_before(one, run) is not None:
            until("crew", run.begin)
        for mate in (member for member in run.members if member != one):
            came = self.before.get((mate.job, mate.op))
            full = self.jobs[mate.job].release if came is None else came.end + self._lag(came, mate)
            until("batch", min(full, run.begin), f"job {mate.job}")
        if at < run.begin:
            found += self._barred(at, run.begin, run, one)
            at = run.begin
        until("setup", one.start)
        return found
