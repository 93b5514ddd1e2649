"""The exact model in CP-SAT: choice of machine, order, start, and what each machine does in its gaps.

Times are divided by their greatest common divisor and counted from the first tick that may be planned. Per machine
and stretch between breakdowns: `idle = span − load − off`, where `off` are optional intervals long enough to pay; so
energy is linear. Redundant lines that make it fast: per machine `Cmax ≥ Σ assigned durations` (between the least head
and tail), and per set of like machines a cumulative resource.

Dimensions: ticks of the problem are T, model steps are S = (T − origin) / grain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import ceil, gcd
from typing import Any

from ortools.sat.python import cp_model

from cloud.scheduling.availability import Stretch, closed, stretches
from messages.plan import Assignment
from messages.problem import Machine, Measure, OpenJob, OpenOperation, Problem, open_jobs

LIKE_SETS = 12
"""Cumulative lines are drawn for at most this many different machine sets."""
DECIMALS = 10**6
"""Powers are exact to this fraction of a kW."""

Key = tuple[str, int]


@dataclass
class _Choice:
    """One operation on one machine within one stretch."""

    machine: str
    stretch: int
    size: int
    chosen: Any
    interval: Any = None


@dataclass
class _Task:
    job: str
    op: int
    start: Any
    end: Any
    interval: Any
    head: int
    tail: int
    choices: list[_Choice] = field(default_factory=list)


def grain(problem: Problem, *, tardiness: bool) -> int:
    """Ticks per model step: divides all durations and every time that matters.

    Between fixed events the cost of a gap is concave in its length (idling and being off are two lines), so some
    best plan lies on this grain even if preheating does not; where preheating draws less than idling it is not
    concave, and preheating joins in.
    """
    origin = problem.start_floor
    jobs = open_jobs(problem)
    times = [ticks for job in jobs for step in job.operations for ticks in step.alternatives.values()]
    times += [job.ready - origin for job in jobs]
    if tardiness:
        times += [abs(job.due - origin) for job in jobs if job.due is not None]
    for machine in problem.machines:
        for stretch in stretches(problem, machine):
            marks = (stretch.ready, stretch.end, stretch.warm)
            times += [abs(mark - origin) for mark in marks if mark is not None]
        for window in closed(machine):
            times += [abs(window.start - origin), abs(window.end - origin)]
        power = machine.power_kw
        if power.preheat < max(power.idle, power.off):
            times.append(machine.preheat)
    return reduce(gcd, times, 0) or 1


class Model:
    """`horizon` in ticks bounds everything; `energy` builds the gap model."""

    def __init__(
        self, problem: Problem, *, horizon: int, energy: bool, tardiness: bool, redundant: bool = True
    ) -> None:
        self.problem = problem
        self.jobs = open_jobs(problem)
        self.redundant = redundant
        self.lines = {machine.id: stretches(problem, machine) for machine in problem.machines}
        self.origin = problem.start_floor
        self.grain = grain(problem, tardiness=tardiness)
        self.horizon = max(0, (horizon - self.origin) // self.grain)
        self.cp = cp_model.CpModel()
        self.tasks: dict[Key, _Task] = {}
        self.makespan = self.cp.new_int_var(0, self.horizon, "makespan")
        self._offs: dict[tuple[str, int], list[tuple[Any, Any, Any]]] = {}
        self._spans: dict[tuple[str, int], tuple[Any, Any, Any]] = {}
        self.kwh_per_unit = 0.0
        self._measures: dict[Measure, Any] = {"makespan": self.makespan}
        for job in self.jobs:
            self._job(job)
        self._machines()
        if redundant:
            self._loads()
            self._like_machines()
        if energy:
            self._measures["energy"] = self._energy()
        if tardiness:
            self._measures["tardiness"] = self._tardiness()

    # --- what solvers ask for -------------------------------------------------------------------

    def minimise(self, measure: Measure) -> None:
        """Make this measure the objective."""
        self.cp.minimize(self._measures[measure])

    def limit(self, measure: Measure, value: float) -> None:
        """The measure may not exceed `value` (ticks, or kWh of the part that is planned)."""
        if measure == "makespan":
            self.cp.add(self.makespan <= int((value - self.origin) // self.grain))
        elif measure == "tardiness":
            self.cp.add(self._measures["tardiness"] <= int(value // self.grain))
        else:
            units = int(value / self.kwh_per_unit + 1e-6) if self.kwh_per_unit else 0
            self.cp.add(self._measures["energy"] <= units)

    def floor(self, measure: Measure, value: float) -> None:
        """The measure is known to be at least `value` (ticks, or kWh of the part that is planned)."""
        if measure == "energy":
            units = ceil(value / self.kwh_per_unit - 1e-6) if self.kwh_per_unit else 0
        else:
            units = -(-int(value - (self.origin if measure == "makespan" else 0)) // self.grain)
        self.cp.add(self._measures[measure] >= units)

    def natural(self, measure: Measure, units: float) -> float:
        """A value of the objective in ticks or kWh (of the part that is planned)."""
        if measure == "makespan":
            return self.origin + self.grain * units
        return units * (self.grain if measure == "tardiness" else self.kwh_per_unit)

    def hint(self, assignments: Iterable[Assignment]) -> None:
        """Begin the search at these assignments; those of history or off the grain are passed over."""
        spans: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        latest = 0
        for one in assignments:
            task = self.tasks.get((one.job, one.op))
            start, rest = divmod(one.start - self.origin, self.grain)
            if task is None or one.interrupted or one.start < self.origin or rest:
                continue
            for choice in task.choices:
                stretch = self.lines[one.machine][choice.stretch] if choice.machine == one.machine else None
                here = stretch is not None and one.start >= stretch.start
                here = here and (stretch is None or stretch.end is None or one.end <= stretch.end)
                self.cp.add_hint(choice.chosen, here)
                if here:
                    self.cp.add_hint(task.start, start)
                    self.cp.add_hint(task.end, start + choice.size)
                    latest = max(latest, start + choice.size)
                    if choice.size:
                        spans[choice.machine, choice.stretch].append((start, start + choice.size))
        self.cp.add_hint(self.makespan, min(latest, self.horizon))
        for key, (first, last, used) in self._spans.items():
            self._hint_gaps(key, first, last, used, sorted(spans.get(key, ())))

    def _hint_gaps(
        self, key: tuple[str, int], first: Any, last: Any, used: Any, work: Sequence[tuple[int, int]]
    ) -> None:
        machine, stretch = self.problem.machine[key[0]], self.lines[key[0]][key[1]]
        self.cp.add_hint(used, bool(work))
        if not work:
            return
        begin = work[0][0] if stretch.warm is None else (stretch.warm - self.origin) // self.grain
        self.cp.add_hint(first, begin)
        self.cp.add_hint(last, work[-1][1])
        if key not in self._offs:
            return
        least = self._least_off(machine)
        edges = [begin, *(tick for span in work for tick in span)]
        gaps = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if b - a >= least]
        for slot, (start, size, present) in enumerate(self._offs[key]):
            taken = slot < len(gaps)
            self.cp.add_hint(present, taken)
            self.cp.add_hint(size, gaps[slot][1] - gaps[slot][0] if taken else 0)
            if taken:
                self.cp.add_hint(start, gaps[slot][0])

    def assignments(self, solver: cp_model.CpSolver) -> list[Assignment]:
        """The new assignments of the best solution."""
        made = []
        for task in self.tasks.values():
            choice = next(one for one in task.choices if solver.boolean_value(one.chosen))
            start = self.origin + self.grain * solver.value(task.start)
            made.append(
                Assignment(
                    job=task.job,
                    op=task.op,
                    machine=choice.machine,
                    start=start,
                    end=start + self.grain * choice.size,
                )
            )
        return made

    # --- building -------------------------------------------------------------------------------

    def _steps(self, ticks: int) -> int:
        return max(0, (ticks - self.origin) // self.grain)

    def _job(self, job: OpenJob) -> None:
        least = [min(step.alternatives.values()) // self.grain for step in job.operations]
        most = [max(step.alternatives.values()) // self.grain for step in job.operations]
        ready = self._steps(job.ready)
        before = None
        for k, step in enumerate(job.operations):
            task = self._task(step, ready + sum(least[:k]), sum(least[k + 1 :]), least[k], most[k])
            if before is not None:
                self.cp.add(task.start >= before.end)
            before = task
        if before is not None:
            self.cp.add(self.makespan >= before.end)

    def _task(self, step: OpenOperation, head: int, tail: int, least: int, most: int) -> _Task:
        # A head beyond the horizon means that no plan keeps the limits; an empty domain says so to the solver.
        cp, name = self.cp, f"{step.job}/{step.op}"
        top = self.horizon - tail
        start = cp.new_int_var_from_domain(_span(head, top - least), f"start {name}")
        end = cp.new_int_var_from_domain(_span(head + least, top), f"end {name}")
        size = cp.new_int_var(least, most, f"size {name}")
        task = _Task(step.job, step.op, start, end, cp.new_interval_var(start, size, end, name), head, tail)
        for machine, ticks in step.alternatives.items():
            for index, stretch in enumerate(self.lines[machine] if ticks else self.lines[machine][:1]):
                task.choices.append(self._choice(task, machine, index, stretch, ticks // self.grain, name))
        cp.add_exactly_one([one.chosen for one in task.choices])
        cp.add(size == sum(one.size * one.chosen for one in task.choices))
        self.tasks[step.job, step.op] = task
        return task

    def _choice(self, task: _Task, machine: str, index: int, stretch: Stretch, size: int, name: str) -> _Choice:
        cp = self.cp
        chosen = cp.new_bool_var(f"{name} on {machine}/{index}")
        choice = _Choice(machine, index, size, chosen)
        if size:
            choice.interval = cp.new_optional_fixed_size_interval_var(
                task.start, size, chosen, f"{name} at {machine}/{index}"
            )
            if self._steps(stretch.ready) > task.head:
                cp.add(task.start >= self._steps(stretch.ready)).only_enforce_if(chosen)
            if stretch.end is not None:
                cp.add(task.start + size <= self._steps(stretch.end)).only_enforce_if(chosen)
        return choice

    def _on(self, machine: str, stretch: int | None = None) -> list[tuple[_Task, _Choice]]:
        """Work with a length that may be on this machine."""
        return [
            (task, choice)
            for task in self.tasks.values()
            for choice in task.choices
            if choice.machine == machine and choice.size and (stretch is None or choice.stretch == stretch)
        ]

    def _machines(self) -> None:
        for machine in self.problem.machines:
            intervals = [choice.interval for _, choice in self._on(machine.id)]
            for window in closed(machine):
                start, end = self._steps(window.start), self._steps(window.end)
                if end > start:
                    intervals.append(self.cp.new_fixed_size_interval_var(start, end - start, "closed"))
            if intervals:
                self.cp.add_no_overlap(intervals)

    def _loads(self) -> None:
        """Per machine: the least head, its load, and the least tail fit below the makespan."""
        for machine in self.problem.machines:
            on = self._on(machine.id)
            if on:
                head, tail = min(task.head for task, _ in on), min(task.tail for task, _ in on)
                self.cp.add(self.makespan >= head + tail + sum(choice.size * choice.chosen for _, choice in on))

    def _like_machines(self) -> None:
        """Per set of machines: what can go nowhere else needs no more of them than there are."""
        able = {
            key: frozenset(choice.machine for choice in task.choices)
            for key, task in self.tasks.items()
            if all(choice.size for choice in task.choices)
        }
        sets = sorted({one for one in able.values() if len(one) > 1}, key=sorted)
        if len(sets) > LIKE_SETS:
            return
        for one in sets:
            inside = [self.tasks[key].interval for key, machines in able.items() if machines <= one]
            if len(inside) > len(one):
                self.cp.add_cumulative(inside, [1] * len(inside), len(one))

    # --- energy ---------------------------------------------------------------------------------

    def _least_off(self, machine: Machine) -> int:
        """The shortest gap (steps) in which being off needs less than idling, not shorter than preheating."""
        power = machine.power_kw
        even = (power.preheat - power.off) * machine.preheat / (power.idle - power.off)
        return max(1, ceil(machine.preheat / self.grain), int(even / self.grain * (1 - 1e-12)) + 1)

    def _energy(self) -> Any:
        terms: list[tuple[float, Any]] = []  # (kW·ticks per unit of the variable, variable)
        for task in self.tasks.values():
            for choice in task.choices:
                kw = self.problem.work_kw(task.job, task.op, choice.machine)
                terms.append((kw * choice.size * self.grain, choice.chosen))
        for machine in self.problem.machines:
            for index, stretch in enumerate(self.lines[machine.id]):
                on = self._on(machine.id, index)
                if on:
                    terms += self._span_energy(machine, index, stretch, on)
        scale = next(
            (s for s in _powers(DECIMALS) if all(abs(c * s - round(c * s)) < 1e-7 * s for c, _ in terms)),
            DECIMALS,
        )
        whole = [(round(coefficient * scale), variable) for coefficient, variable in terms]
        common = reduce(gcd, (abs(coefficient) for coefficient, _ in whole), 0) or 1
        self.kwh_per_unit = common / scale * self.problem.tick_s / 3600
        total = sum(coefficient // common * variable for coefficient, variable in whole if coefficient)
        top = sum(coefficient // common * self.horizon for coefficient, _ in whole if coefficient > 0)
        energy = self.cp.new_int_var(0, max(top, 1), "energy")
        self.cp.add(energy == total)
        return energy

    def _span_energy(
        self, machine: Machine, index: int, stretch: Stretch, on: list[tuple[_Task, _Choice]]
    ) -> list[tuple[float, Any]]:
        """Preheating, idling and being off from the machine's first to its last work in this stretch."""
        cp, power, name = self.cp, machine.power_kw, f"{machine.id}/{index}"
        used = cp.new_bool_var(f"used {name}")
        last = cp.new_int_var(0, self.horizon, f"last {name}")
        if stretch.warm is None:
            first = cp.new_int_var(0, self.horizon, f"first {name}")
        else:
            warm = min(self._steps(stretch.warm), self.horizon)
            first = cp.new_int_var(warm, warm, f"first {name}")
        cp.add(last >= first)
        for task, choice in on:
            cp.add_implication(choice.chosen, used)
            cp.add(first <= task.start).only_enforce_if(choice.chosen)
            cp.add(last >= task.start + choice.size).only_enforce_if(choice.chosen)
        cp.add_bool_or([choice.chosen for _, choice in on]).only_enforce_if(used)
        cp.add(last == first).only_enforce_if(~used)
        self._spans[machine.id, index] = (first, last, used)
        load = [(choice.size, choice.chosen) for _, choice in on]
        terms: list[tuple[float, Any]] = []
        if stretch.warm is None:
            terms.append((power.preheat * machine.preheat, used))
        idle = power.idle * self.grain
        terms += [(idle, last), (-idle, first), *((-idle * size, chosen) for size, chosen in load)]
        sizes = self._off_slots(machine, index, first, last, on)
        for size, present in sizes:
            terms.append(((power.preheat - power.off) * machine.preheat, present))
            terms.append(((power.off - power.idle) * self.grain, size))
        cp.add(last - first >= sum(s * c for s, c in load) + sum(size for size, _ in sizes))
        return terms

    def _off_slots(
        self, machine: Machine, index: int, first: Any, last: Any, on: list[tuple[_Task, _Choice]]
    ) -> list[tuple[Any, Any]]:
        """Optional intervals in which the machine is off, as many as could ever pay."""
        cp, power, name = self.cp, machine.power_kw, f"{machine.id}/{index}"
        if power.idle <= power.off:
            return []
        least = self._least_off(machine)
        shortest = min(choice.size for _, choice in on)
        warm = self.lines[machine.id][index].warm is not None
        room = self.horizon if warm else self.horizon - shortest
        count = min(len(on) - (not warm), room // (least + shortest))
        slots: list[tuple[Any, Any, Any]] = []
        intervals = [choice.interval for _, choice in on]
        for slot in range(count):
            start = cp.new_int_var(0, self.horizon, f"off {name}/{slot}")
            size = cp.new_int_var(0, self.horizon, f"off size {name}/{slot}")
            end = cp.new_int_var(0, self.horizon, f"off end {name}/{slot}")
            present = cp.new_bool_var(f"off? {name}/{slot}")
            intervals.append(cp.new_optional_interval_var(start, size, end, present, f"off {name}/{slot}"))
            cp.add(size >= least).only_enforce_if(present)
            cp.add(size == 0).only_enforce_if(~present)
            cp.add(start >= first).only_enforce_if(present)
            cp.add(end <= last - shortest).only_enforce_if(present)
            if slots:
                before_start, before_size, before_present = slots[-1]
                cp.add_implication(present, before_present)
                cp.add(start >= before_start + before_size + shortest).only_enforce_if(present)
            slots.append((start, size, present))
        if slots:
            cp.add_no_overlap(intervals)
            self._offs[machine.id, index] = slots
        return [(size, present) for _, size, present in slots]

    def _tardiness(self) -> Any:
        late = []
        for job in self.jobs:
            if job.due is not None:
                end = self.tasks[job.id, job.operations[-1].op].end
                due = (job.due - self.origin) // self.grain
                one = self.cp.new_int_var(0, max(0, self.horizon - due), f"late {job.id}")
                self.cp.add(one >= end - due)
                late.append(one)
        return sum(late) if late else self.cp.new_constant(0)


def _span(low: int, high: int) -> cp_model.Domain:
    return cp_model.Domain(low, high) if low <= high else cp_model.Domain.from_values([])


def _powers(top: int) -> Iterable[int]:
    scale = 1
    while scale <= top:
        yield scale
        scale *= 10
