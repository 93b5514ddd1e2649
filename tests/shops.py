"""Random problems, small and nasty for hypothesis, of any size from a seed; each can be planned.

    @given(problem=problems())                                         everything at once
    @given(problem=problems(features={"transport", "wait_min"}))       only what a solver knows
    random_shop(seed=1, jobs=100, machines=10, features=ALL)           without hypothesis
    some_plan(problem, seed=1)                                         any plan that can be carried out

Nasty: zero lengths, ties, due dates in the past, broken and closed times, overlapping history, idle dearer than work.
Plannable: maximum waits are never shorter than what must happen meanwhile, and the horizon is never in the way.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from hypothesis import strategies as st

from messages.curve import Curve
from messages.gaps import set_up_for
from messages.openjobs import OpenJob, open_jobs
from messages.plan import Assignment
from messages.problem import Job, Machine, Operation, Power, Problem, Transport, Window

ALL = frozenset(
    {
        *("calendars", "breakdowns", "history", "transport", "setup", "wait_min", "wait_max", "batch", "crews"),
        *("curves", "generation", "lots", "tardiness", "operation_power"),
    }
)
CARRIERS = ("electricity", "gas")
FAMILIES = ("", "red", "blue")
T = TypeVar("T")


class Impatience(threading.Event):
    """Asks to stop at the n-th look, wherever in the run that is and however fast the machine."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


class Dice(Protocol):
    """Where choices come from; of `one_of` the first is the plainest."""

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        ...

    def one_of(self, choices: Sequence[T]) -> T:
        """One of them."""
        ...


@st.composite
def problems(draw: st.DrawFn, *, most_jobs: int = 3, features: Collection[str] = ALL) -> Problem:
    """At most 3 machines, `most_jobs` jobs of at most 3 operations of at most 5 ticks."""

    class Drawn:
        def between(self, low: int, high: int) -> int:
            return draw(st.integers(low, high))

        def one_of(self, choices: Sequence[T]) -> T:
            return draw(st.sampled_from(choices))

    dice = Drawn()
    return _Shop(dice, features, jobs=dice.between(0, most_jobs), machines=dice.between(1, 3)).problem()


def random_shop(
    seed: int, jobs: int, machines: int, features: Collection[str] = ALL, *, operations: int = 3, longest: int = 20
) -> Problem:
    """`jobs` of 1 to `operations` operations of at most `longest` ticks, each on at most three machines."""
    rng = np.random.default_rng(seed)

    class Rolled:
        def between(self, low: int, high: int) -> int:
            return int(rng.integers(low, high + 1))

        def one_of(self, choices: Sequence[T]) -> T:
            return choices[int(rng.integers(len(choices)))]

    return _Shop(Rolled(), features, jobs=jobs, machines=machines, operations=operations, longest=longest).problem()


def some_plan(problem: Problem, seed: int = 0) -> list[Assignment]:
    """New assignments that can be carried out, with gaps, batches and detours: job after job behind what stands there.

    For small problems: it looks at every tick.
    """
    rng = np.random.default_rng(seed)
    foreman = _Foreman(problem, rng)
    jobs = list(open_jobs(problem))
    rng.shuffle(jobs)  # type: ignore[arg-type]
    for job in jobs:
        foreman.plan(job)
    return foreman.made


class _Shop:
    """One problem, put together choice by choice."""

    def __init__(
        self, dice: Dice, features: Collection[str], *, jobs: int, machines: int, operations: int = 3, longest: int = 5
    ) -> None:
        unknown = set(features) - ALL
        if unknown:
            raise ValueError(f"features {sorted(unknown)} are unknown; there are {sorted(ALL)}")
        self.dice, self.has = dice, set(features)
        self.jobs, self.operations, self.longest = jobs, operations, longest
        self.ids = [f"m{m}" for m in range(machines)]
        self.now = dice.one_of([None, None, 0, 7]) if "history" in self.has else None
        self.crews = {"fitters": dice.between(1, 2)} if "crews" in self.has else {}

    def problem(self) -> Problem:
        dice = self.dice
        machines = [self._machine(name) for name in self.ids]
        transport = self._transport()
        self.setup_max = max((t for one in machines for row in one["setup"].values() for t in row.values()), default=0)
        self.carry_max = max((t for row in transport.ticks.values() for t in row.values()), default=0)
        batch = {one["id"]: one["batch"] for one in machines}
        history: list[Assignment] = []
        orders = {name: self._due() for name in "AB"} if "lots" in self.has else {}
        jobs = [self._job(str(j), batch, orders, history) for j in range(self.jobs)]
        for one in machines:
            if self._at_work(one, history):
                one["warm_from"] = None
        document: dict[str, Any] = {"machines": [Machine(**one) for one in machines], "jobs": jobs}
        document |= {"now": self.now, "history": history, "tick_s": dice.one_of([3600, 60, 900])}
        document |= {"transport": transport, "crews": self.crews}
        if "generation" in self.has:
            document["horizon"] = self._ample(machines, jobs, history)
            document["export_kg_per_kwh"] = dice.one_of([0.0, 0.2])
            document["capture_kg"] = dice.one_of([0.0, 1.5])
        span = document.get("horizon", 40)
        for kind, values in (("carbon", [0, 0.4, 0.1, 0.9]), ("tariff", [0, 0.3, -0.1, 0.5])):
            if "curves" in self.has:
                document[kind] = {carrier: self._curve(values, span) for carrier in self._some(CARRIERS)}
        for kind, values in (("generation", [0, 5, 20, 2.5]), ("base_load", [0, 4, 7.5])):
            if "generation" in self.has:
                document[kind] = {carrier: self._curve(values, span) for carrier in self._some(CARRIERS)}
        return Problem(**document)

    def _some(self, choices: Sequence[T]) -> list[T]:
        """A part of them, maybe all, maybe none."""
        return [one for one in choices if self.dice.between(0, 2)]

    def _machine(self, name: str) -> dict[str, Any]:
        dice = self.dice
        reasons = [*["closed"] * ("calendars" in self.has), *["breakdown"] * ("breakdowns" in self.has)]
        windows = []
        for _ in range(dice.between(0, 2) if reasons else 0):
            start = dice.between(0, 12)
            windows.append(Window(start=start, end=start + dice.between(1, 6), reason=dice.one_of(reasons)))
        warm = dice.one_of([None, 0] if self.now is None else [None, 0, 3, 7, 9])
        setup = {}
        if "setup" in self.has:
            setup = {
                a: {b: dice.between(0, 3) for b in FAMILIES if a != b or dice.between(0, 3) == 3} for a in FAMILIES
            }
        return {
            "id": name,
            "carrier": dice.one_of(CARRIERS) if self.has & {"curves", "generation"} else CARRIERS[0],
            "preheat": dice.between(0, 3),
            "power_kw": Power(
                work=dice.between(0, 20),
                idle=dice.one_of([0, 1, 2.5, 8]),
                preheat=dice.one_of([0, 3, 12]),
                off=dice.one_of([0, 0, 1]),
                setup=dice.one_of([0, 2, 5]),
                down=dice.one_of([0, 0, 0.5]),
            ),
            "unavailable": tuple(windows),
            "warm_from": warm,
            "on_breakdown": dice.one_of(["resume", "restart", "scrap"]),
            "setup": setup,
            "family": dice.one_of(FAMILIES) if "setup" in self.has else "",
            "batch": dice.between(1, 3) if "batch" in self.has else 1,
        }

    def _transport(self) -> Transport:
        if "transport" not in self.has:
            return Transport()
        ticks = {a: {b: self.dice.between(0, 4) for b in self.ids if a != b} for a in self.ids}
        return Transport(ticks=ticks, power_kw=self.dice.one_of([0, 3]), carrier=self.dice.one_of(CARRIERS))

    def _due(self) -> int | None:
        return self.dice.one_of([None, 0, 3, 8, 15, 30]) if "tardiness" in self.has else None

    def _job(self, name: str, batch: dict[str, int], orders: dict[str, int | None], history: list[Assignment]) -> Job:
        dice = self.dice
        part_of = dice.one_of(["", *orders])
        steps = [self._step(k, batch) for k in range(dice.between(1, self.operations))]
        if self.now is not None and dice.between(0, 1):
            machine = dice.one_of(sorted(steps[0]["alternatives"]))
            start, cut = dice.between(0, self.now), bool(dice.between(0, 1))
            end = dice.between(start, self.now if cut else self.now + 4)
            history.append(Assignment(job=name, op=0, machine=machine, start=start, end=end, interrupted=cut))
            for step in steps[1:2]:
                step["wait_max"] = None  # it may be too late already
        return Job(
            id=name,
            operations=tuple(Operation(**step) for step in steps),
            release=dice.between(0, 5),
            due=orders[part_of] if part_of else self._due(),
            part_of=part_of,
        )

    def _step(self, k: int, batch: dict[str, int]) -> dict[str, Any]:
        dice = self.dice
        able = sorted({dice.one_of(self.ids) for _ in range(dice.between(1, 3))})
        step: dict[str, Any] = {"op": k, "alternatives": {m: dice.between(0, self.longest) for m in able}}
        if self.has & {"setup", "batch"}:
            step["family"] = dice.one_of(FAMILIES)
        if "batch" in self.has:
            step["size"] = dice.between(1, min(batch[m] for m in able))
        if "operation_power" in self.has:
            step["work_kw"] = {m: dice.one_of([0, 6, 25]) for m in self._some(able)}
        for crew, people in self.crews.items():
            if needed := dice.between(0, people):
                step["crew"] = {crew: needed}
        if k and "wait_min" in self.has:
            step["wait_min"] = dice.one_of([0, 0, 2, 5])
        if k and "wait_max" in self.has and dice.between(0, 1):
            needed = max(self.setup_max, self.carry_max, step.get("wait_min", 0))
            step["wait_max"] = needed + dice.between(0, 3)
        return step

    def _at_work(self, machine: dict[str, Any], history: Sequence[Assignment]) -> bool:
        """Said to be preheating at `now` though it cannot be: there is no such plant."""
        warm = machine["warm_from"] or 0
        begun = warm - machine["preheat"]
        if self.now is None or warm <= self.now:
            return False
        broken = [one for one in machine["unavailable"] if one.reason == "breakdown"]
        return (
            begun > self.now
            or any(one.start < warm and begun < one.end for one in broken)
            or any(one.end > begun for one in history if one.machine == machine["id"])
        )

    def _ample(self, machines: Sequence[dict[str, Any]], jobs: Sequence[Job], history: Sequence[Assignment]) -> int:
        """A horizon by which everything can be done even one after another."""
        steps = [step for job in jobs for step in job.operations]
        most = self.setup_max + self.carry_max + max((one["preheat"] for one in machines), default=0)
        work = sum(max(step.alternatives.values()) + step.wait_min + most for step in steps)
        return 60 + 2 * work + max((one.end for one in history), default=0)

    def _curve(self, values: Sequence[float], span: int) -> Curve:
        dice = self.dice
        periodic = bool(dice.between(0, 1))
        start = dice.one_of([0, -5])
        chosen = tuple(dice.one_of(values) for _ in range(dice.between(1, 4)))
        short = dice.one_of([1, 3, 7])
        return Curve(
            start=start,
            step=short if periodic else max(short, -(-(span - start) // len(chosen))),
            values=chosen,
            periodic=periodic,
        )


class _Foreman:
    """Puts job after job behind what stands there."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self.problem, self.rng = problem, rng
        self.made: list[Assignment] = []
        self.family = set_up_for(problem)
        self.free: dict[str, int] = {}
        self.people: dict[tuple[str, int], int] = {}
        for past in problem.history:
            if past.end > past.start:
                self.free[past.machine] = max(past.end, self.free.get(past.machine, 0))
                self._busy(problem.operation[past.job, past.op], past.start, past.end)
        windows = [window.end for one in problem.machines for window in one.unavailable]
        self.calm = max([problem.start_floor, *windows, *(one.end for one in problem.history)])

    def plan(self, job: OpenJob) -> None:
        """All of the job; later where a greatest wait cannot be kept, at last behind everything."""
        late = [0, 1, 3, 6, 10, 15, max([self.calm, *self.free.values()]) + 20]
        for delay in late:
            kept = (list(self.made), dict(self.family), dict(self.free), dict(self.people))
            if self._try(job, delay):
                return
            self.made, self.family, self.free, self.people = kept
        raise AssertionError(f"job {job.id!r} fits nowhere")

    def _try(self, job: OpenJob, delay: int) -> bool:
        past = [one for one in self.problem.history if one.job == job.id]
        before = max(past, key=lambda one: (one.end, one.start)) if past else None
        earliest = job.ready + delay
        for step in job.operations:
            rule = self.problem.operation[step.job, step.op]
            name = str(self.rng.choice(sorted(step.alternatives)))
            latest = 10**9
            if before is not None:
                carried = self.problem.transport.between(before.machine, name)
                latest = 10**9 if rule.wait_max is None else before.end + rule.wait_max
                earliest = max(earliest, before.end + max(carried, rule.wait_min))
            earliest = min(earliest + int(self.rng.integers(0, 4)), max(earliest, latest))
            start, end = self._place(rule, name, step.alternatives[name], earliest)
            if start > latest:
                return False
            before = Assignment(job=step.job, op=step.op, machine=name, start=start, end=end)
            self.made.append(before)
            earliest = end
        return True

    def _place(self, rule: Operation, name: str, ticks: int, earliest: int) -> tuple[int, int]:
        machine = self.problem.machine[name]
        if not ticks:
            return earliest, earliest
        for one in self.made if machine.batch > 1 and self.rng.random() < 0.8 else ():
            if (
                one.machine == name
                and one.start >= earliest
                and ticks <= one.end - one.start
                and self._joins(rule, one)
            ):
                return one.start, one.end
        setup = machine.setup.get(self.family[name], {}).get(rule.family, 0)
        start = earliest
        while not self._fits(machine, rule, start - setup, start + ticks):
            start += 1
        self._busy(rule, start - setup, start + ticks)
        self.free[name], self.family[name] = start + ticks, rule.family
        return start, start + ticks

    def _joins(self, rule: Operation, one: Assignment) -> bool:
        operation = self.problem.operation
        same = [
            x for x in self.made if x.machine == one.machine and x.start == one.start and x.end == one.end > x.start
        ]
        sizes = sum(operation[x.job, x.op].size for x in same)
        return (
            operation[one.job, one.op].family == rule.family
            and sizes + rule.size <= self.problem.machine[one.machine].batch
            and all(people <= operation[one.job, one.op].crew.get(crew, 0) for crew, people in rule.crew.items())
        )

    def _fits(self, machine: Machine, rule: Operation, ready: int, end: int) -> bool:
        now, broken = self.problem.now, [one for one in machine.unavailable if one.reason == "breakdown"]
        if any(one.start < end and ready < one.end for one in machine.unavailable):
            return False
        for crew, people in rule.crew.items():
            if any(self.people.get((crew, t), 0) + people > self.problem.crews[crew] for t in range(ready, end)):
                return False
        free = self.free.get(machine.id)
        if ready < max(-(10**9) if now is None else now, -(10**9) if free is None else free):
            return False
        warm = [free] if free is not None and (now is None or free >= now) else []
        if machine.warm_from is not None:
            warm.append(max(machine.warm_from, self.problem.start_floor))
        if warm and (ready >= max(warm) or now is None):
            if not any(one.start < ready and max(warm) < one.end for one in broken):
                return True
        elif warm:
            return False
        heat = ready - machine.preheat
        floor = max([-(10**9) if now is None else now, *warm, *([] if free is None else [free])])
        return heat >= floor and not any(one.start < ready and heat < one.end for one in broken)

    def _busy(self, rule: Operation, start: int, end: int) -> None:
        for crew, people in rule.crew.items():
            for tick in range(start, end):
                self.people[crew, tick] = self.people.get((crew, tick), 0) + people
