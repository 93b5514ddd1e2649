"""What a run came to: read from the store, the planner's book and the simulator's truth, after all have stopped.

    outcome = outcome_of(files, plant, carbon, ordered(plant), seconds=41.0)
    outcome.good, outcome.failures          # the verdict, and everything that speaks against it

What had to be made is what was ordered, not what the planner believes was ordered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cloud.planbook import InForce, Kept, PlanBook
from cloud.stores import Query, SqliteStore, Store, StoreSettings
from firmware_sim.settings import Variation
from firmware_sim.truth import read_truth
from messages.carbon import emissions_kg
from messages.clock import SECOND
from messages.contracts import OrderedJob, Signal
from messages.floor import Floor, Segment
from messages.judge import violations
from messages.plan import Assignment, Plan
from messages.plant import Plant, meter_of
from messages.problem import Job, Machine, Operation, Problem, Window
from messages.quality import GOOD, GRADE_MASK
from shoal.audit import Audit, audit
from shoal.gantt import Band, Bar, gantt_figure
from shoal.report import Section, cleaning_figure, power_figure, write_report

HOUR = 3600 * SECOND
CLEANED = "temperature_degc"
"""The metric that shows what cleaning does."""
SPREAD = Variation().limit
"""How far a measured duration may stray from the nominal one, as a share of it: what the simulator allows itself."""
FOR_EVER = 2**53
ROUNDING = SECOND
"""µs by which a measured duration may stray besides: firmware times are rounded to seconds."""
Column = NDArray[Any]


@dataclass(frozen=True)
class Files:
    """Where a run keeps what it leaves."""

    directory: Path
    telemetry: StoreSettings = field(default_factory=SqliteStore)
    """the cloud's store; what it keeps in files lies below `cloud`"""

    @property
    def truth(self) -> Path:
        return self.directory / "truth.jsonl"

    @property
    def cloud(self) -> Path:
        return self.directory / "cloud"

    @property
    def store(self) -> StoreSettings:
        return self.telemetry.below(self.cloud)

    @property
    def book(self) -> Path:
        return self.cloud / "planner.db"

    @property
    def report(self) -> Path:
        return self.directory / "report.html"


@dataclass(frozen=True)
class Outcome:
    """The figures of a run."""

    audit: Audit
    jobs: int
    jobs_done: int
    makespan_planned_h: float
    makespan_actual_h: float
    energy_planned_kwh: float
    energy_kwh: float
    carbon_kg: float
    replans: int
    faults: tuple[str, ...]
    """what the executed plan violates"""
    seconds: float
    given_up: str = ""
    """why the run was ended before all was made"""

    @property
    def good(self) -> bool:
        """Something was made and measured; nothing lost, nothing twice, every batch made, by the rules."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Everything that speaks against the run, in words for people."""
        audit = self.audit
        found = [self.given_up] if self.given_up else []
        if self.jobs < 1:
            found.append("nothing was ordered")
        elif self.jobs_done != self.jobs:
            found.append(f"{self.jobs_done} of {self.jobs} batches made")
        found += audit.failures
        if self.faults:
            found.append(f"the executed plan breaks {len(self.faults)} rules, the first: {self.faults[0]}")
        return tuple(found)

    def as_json(self) -> dict[str, float | int | bool | list[str]]:
        """The last line of `shoal demo --json`."""
        return {
            **self.audit.as_json(),
            "batches_done": self.jobs_done,
            "makespan_planned_h": round(self.makespan_planned_h, 3),
            "makespan_actual_h": round(self.makespan_actual_h, 3),
            "energy_planned_kwh": round(self.energy_planned_kwh, 1),
            "energy_kwh": round(self.energy_kwh, 1),
            "carbon_kg": round(self.carbon_kg, 1),
            "replans": self.replans,
            "violations": list(self.faults),
            "failures": list(self.failures),
            "seconds": round(self.seconds, 1),
        }

    def table(self) -> list[tuple[str, str]]:
        """The same for people."""
        return [
            *self.audit.table(),
            ("batches made", f"{self.jobs_done} of {self.jobs}"),
            ("makespan planned → actual", f"{self.makespan_planned_h:.1f} h → {self.makespan_actual_h:.1f} h"),
            ("energy planned → metered", f"{self.energy_planned_kwh:,.0f} kWh → {self.energy_kwh:,.0f} kWh"),
            ("carbon (simulated grid)", f"{self.carbon_kg:,.0f} kg CO2e"),
            ("plans that answered a disturbance", str(self.replans)),
            ("rules the executed plan breaks", str(len(self.faults))),
            ("real time", f"{self.seconds:.0f} s"),
        ]

    def show(self, console: Console) -> None:
        """The report in the terminal."""
        table = Table(title="what it came to", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, value in self.table():
            table.add_row(name, value)
        console.print(table)
        for fault in self.faults[:5]:
            console.print(fault, style="red", markup=False)


def floor_of(store: Store, site: str) -> Floor:
    """The floor's whole history, from its records."""
    floor, cursor = Floor(), 0
    while rows := store.records(after=cursor, limit=1_000):
        for row in rows:
            if row.site == site:
                floor.apply(row.record)
            cursor = row.cursor
    return floor


def ordered(plant: Plant) -> dict[str, OrderedJob]:
    """What the simulated ERP orders unless told otherwise: one batch of every product, named after it."""
    return {product: OrderedJob(job=product, product=product) for product in plant.products}


def outcome_of(
    files: Files,
    plant: Plant,
    carbon: Signal,
    jobs: Mapping[str, OrderedJob],
    *,
    seconds: float,
    given_up: str = "",
) -> Outcome:
    """Measure a run that has stopped; `jobs` is what was ordered."""
    book = PlanBook(files.book)
    try:
        plans = book.history()
    finally:
        book.close()
    with files.store.open(read_only=True) as store:
        found = audit(files.truth, store)
        floor = floor_of(store, plant.site)
        energy, kilograms = energy_and_carbon(store, plant, carbon)
    done = {(one.job, one.op) for one in floor.segments if not one.interrupted}
    finished = [
        job for job, wanted in jobs.items() if all((job, op) in done for op in range(len(plant.route(wanted.product))))
    ]
    first = first_solved(plans)
    return Outcome(
        audit=found,
        jobs=len(jobs),
        jobs_done=len(finished),
        makespan_planned_h=_span_h(first) if first else 0.0,
        makespan_actual_h=actual_span_h(floor.segments),
        energy_planned_kwh=first.body.plan.objectives.get("energy_kwh", 0.0) if first else 0.0,
        energy_kwh=energy,
        carbon_kg=kilograms,
        replans=sum(one.answers_disturbance for one in plans),
        faults=tuple(executed_violations(plant, jobs, floor)),
        seconds=seconds,
        given_up=given_up,
    )


def first_solved(plans: Sequence[Kept]) -> InForce | None:
    """The plan the run began with: the last that answered no disturbance before the first that did."""
    chosen = None
    for one in plans:
        if one.answers_disturbance:
            break
        chosen = one.envelope
    return chosen


def executed_violations(
    plant: Plant, jobs: Mapping[str, OrderedJob], floor: Floor, *, spread: float = SPREAD
) -> list[str]:
    """What the floor's own history breaks of the rules a plan is judged by.

    By the plan's own judge, with the times operations really took: every operation once, on an able machine, in order,
    after release, no two at once, none while broken down. Besides: each took its nominal time within `spread` and
    ROUNDING, began in a warm machine, and the part had the time to get there.
    """
    history = sorted(floor.segments, key=lambda one: (one.start, one.end or 0))
    return [
        *_against_the_rules(plant, jobs, floor, _counting(plant, history)),
        *_interrupted_overlaps(history),
        *_durations(plant, jobs, history, spread),
        *_cold_starts(plant, floor, history),
        *_hasty_transport(plant, history),
    ]


def _against_the_rules(
    plant: Plant, jobs: Mapping[str, OrderedJob], floor: Floor, whole: Sequence[Segment]
) -> list[str]:
    """The judge of plans, in seconds from the first start, without preheating (see `_cold_starts`)."""
    began = min((one.start for one in floor.segments), default=0)

    def second(at: int) -> int:
        return max(0, (at - began) // SECOND)

    took = {(one.job, one.op, one.machine): second(one.end or 0) - second(one.start) for one in whole}
    problem = Problem(
        time_unit="s",
        tick_s=1.0,
        machines=tuple(Machine(id=name, unavailable=_downs(floor, name, second)) for name in plant.machines),
        jobs=tuple(
            Job(
                id=job,
                release=second(wanted.release_at) if wanted.release_at else 0,
                operations=tuple(
                    Operation(
                        op=index,
                        alternatives={machine: took.get((job, index, machine), 0) for machine in able},
                    )
                    for index, (_, able) in enumerate(plant.route(wanted.product))
                ),
            )
            for job, wanted in jobs.items()
        ),
    )
    plan = Plan(
        assignments=tuple(
            Assignment(job=one.job, op=one.op, machine=one.machine, start=second(one.start), end=second(one.end or 0))
            for one in whole
        )
    )
    return violations(problem, plan)


def _counting(plant: Plant, history: Sequence[Segment]) -> list[Segment]:
    """Operations that were completed, without those of a part that was scrapped later."""
    lost: dict[str, int] = {}
    for one in history:
        if one.interrupted and _policy(plant, one.machine) == "scrap":
            lost[one.job] = one.end or one.start
    return [one for one in history if not one.interrupted and one.end is not None and one.start >= lost.get(one.job, 0)]


def _durations(
    plant: Plant, jobs: Mapping[str, OrderedJob], history: Sequence[Segment], spread: float
) -> Iterator[str]:
    """Operations that took much more or less than their nominal time; what was resumed counts as a whole."""
    earlier: dict[tuple[str, int, str], int] = {}
    for one in history:
        wanted = jobs.get(one.job)
        route = plant.route(wanted.product) if wanted else []
        if one.op >= len(route) or one.machine not in route[one.op][1] or one.end is None:
            continue  # the judge has said so
        key = (one.job, one.op, one.machine)
        nominal = route[one.op][1][one.machine] * HOUR
        took = one.end - one.start + earlier.get(key, 0)
        if one.interrupted and _policy(plant, one.machine) == "resume":
            earlier[key] = took
        too_long = took > nominal * (1 + spread) + ROUNDING
        too_short = not one.interrupted and took < nominal * (1 - spread) - ROUNDING
        if too_long or too_short:
            yield f"{_named(one)} took {took / HOUR:.4f} h, nominal are {nominal / HOUR:g} h ± {spread:.0%}"


def _cold_starts(plant: Plant, floor: Floor, history: Sequence[Segment]) -> Iterator[str]:
    """Operations that began in a machine that had not been preheated in full since it was last off or down."""
    for name, (_, spec) in plant.machines.items():
        if not spec.preheat_h:
            continue
        warm_at = _warm_spans(floor.states_of(name), round(spec.preheat_h * HOUR))
        for one in history:
            if one.machine == name and not any(low <= one.start < high for low, high in warm_at):
                yield f"{_named(one)} began in a cold machine; it needs {spec.preheat_h:g} h of preheating right before"


def _warm_spans(states: Sequence[tuple[int, str]], preheat: int) -> list[tuple[int, int]]:
    """From when to when a machine was warm, by the states it entered; preheating is over when another state says so."""
    spans: list[tuple[int, int]] = []
    heating: int | None = None
    since: int | None = None
    for at, state in states:
        if state == "preheat":
            if since is None and heating is None:
                heating = at
        elif state in ("idle", "work", "setup"):
            if since is None and heating is not None and at - heating >= preheat - ROUNDING:
                since = at
            heating = None
        else:
            if since is not None:
                spans.append((since, at))
            heating = since = None
    return spans if since is None else [*spans, (since, FOR_EVER)]


def _hasty_transport(plant: Plant, history: Sequence[Segment]) -> Iterator[str]:
    """Parts that were at work on another machine sooner than transport takes."""
    before: dict[str, Segment] = {}
    for one in history:
        last = before.get(one.job)
        if last and last.machine != one.machine:
            gap, layout = one.start - (last.end or last.start), plant.layout
            least_s = (layout.carried_s(last.machine, one.machine) or 0.0) if layout else plant.transport_s
            if gap < least_s * SECOND - ROUNDING:
                yield (
                    f"{_named(one)} began {gap / SECOND:g} s after it left {last.machine}; "
                    f"transport takes {least_s:g} s"
                )
        before[one.job] = one


def _policy(plant: Plant, machine: str) -> str:
    return plant.machines[machine][0].on_breakdown if machine in plant.machines else "restart"


def _named(one: Segment) -> str:
    return f"{one.machine}: job {one.job} op {one.op}"


def _interrupted_overlaps(segments: Sequence[Segment]) -> list[str]:
    faults = []
    for one in segments:
        for other in segments:
            clash = other.machine == one.machine and other is not one and one.interrupted
            if clash and one.start < (other.end or 0) and other.start < (one.end or 0):
                faults.append(f"{one.machine}: interrupted job {one.job} overlaps job {other.job}")
    return faults


def _downs(floor: Floor, machine: str, second: object) -> tuple[Window, ...]:
    found = []
    since: int | None = None
    assert callable(second)
    for at, state in [*floor.states_of(machine), (FOR_EVER, "off")]:
        if state == "down":
            since = at if since is None else since  # said again, it is the same one
        elif since is not None:
            start, end = second(since), min(second(at), 10**11)
            if start < end:
                found.append(Window(start=start, end=end, reason="breakdown"))
            since = None
    return tuple(found)


def _span_h(envelope: InForce) -> float:
    plan = envelope.body.plan
    begin = min((one.start for one in plan.assignments), default=0)
    end = max((one.end for one in plan.assignments), default=0)
    return (end - begin) * envelope.body.tick_s / 3600


def actual_span_h(segments: Sequence[Segment]) -> float:
    """From the first begin to the last end."""
    begin = min((one.start for one in segments), default=0)
    return (max((one.end or 0 for one in segments), default=begin) - begin) / HOUR


def energy_and_carbon(store: Store, plant: Plant, carbon: Signal) -> tuple[float, float]:
    """kWh by the machines' counters, and what they emitted, hour by hour."""
    energy = kilograms = 0.0
    for machine, (workshop, _) in plant.machines.items():
        hourly = Query("energy_kwh", site=plant.site, device=machine, every_s=3600.0, agg="last")
        lows, lasts = store.query(replace(hourly, agg="min")), store.query(hourly)
        if not len(lasts):
            continue
        ends = lasts.values
        begins = np.concatenate([lows.values[:1], ends[:-1]])
        hours = list(zip(lasts.times.tolist(), (ends - begins).tolist(), strict=True))
        energy += float(ends[-1] - lows.values[0])
        kilograms += emissions_kg(hours, carbon, workshop.carrier)
    return energy, kilograms


# --- pictures -----------------------------------------------------------------------------------


class Tabled(Protocol):
    """What came of a run, as rows for people."""

    def table(self) -> list[tuple[str, str]]:
        """Name and value."""
        ...


def write_outcome(
    files: Files,
    plant: Plant,
    outcome: Tabled,
    incidents: Sequence[tuple[str, str]],
    *,
    also: Sequence[go.Figure] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """The HTML report; returns its path. Where nobody planned it shows what was done. `also`: further figures."""
    plans: Sequence[Kept] = ()
    if files.book.exists():
        with closing(PlanBook(files.book)) as book:
            plans = book.history()
    with files.store.open(read_only=True) as store:
        floor = floor_of(store, plant.site)
        figures = [gantt_of(plans, plant, floor), power_figure(_power(store, plant)), _cleaning(files, store, plant)]
    write_report(
        files.report,
        title=f"Shoal: one run of the {plant.site} plant",
        tables=[outcome.table(), incidents],
        figures=[*figures, *also],
        sections=sections,
        notes=[
            "Machines, sensors, their faults and the grid's carbon intensity are simulated; broker, nodes, cloud and "
            "store are the real programs.",
            "Makespan counts from the start of the first operation to the end of the last.",
            f"Energy is that of the {len(plant.machines)} machines; written {time.strftime('%Y-%m-%d %H:%M')} local.",
        ],
    )
    return files.report


def gantt_of(plans: Sequence[Kept], plant: Plant, floor: Floor) -> go.Figure:
    """What the first plan wanted above what was done, in hours from the first plan's tick 0."""
    first = first_solved(plans)
    t0 = (first.body.plan.t0 or 0) if first else min((one.start for one in floor.segments), default=0)
    planned = []
    if first:
        hours = first.body.tick_s / 3600
        planned = [
            Bar(one.machine, one.job, one.op, one.start * hours, one.end * hours) for one in first.body.plan.assignments
        ]
    actual = [
        Bar(
            one.machine,
            one.job,
            one.op,
            (one.start - t0) / HOUR,
            ((one.end or one.start) - t0) / HOUR,
            "interrupted" if one.interrupted else "",
        )
        for one in floor.segments
    ]
    last = max((one.end or 0 for one in floor.segments), default=t0)
    bands = []
    for machine in plant.machines:
        entered = floor.states_of(machine)
        until_next = [at for at, _ in entered[1:]] + [last]
        for (at, state), until in zip(entered, until_next, strict=False):
            if state != "off" and until > at:
                bands.append(Band(machine, state, (at - t0) / HOUR, (until - t0) / HOUR))
    title = "The first plan and what was done" if plans else "What was done"
    return gantt_figure(planned, actual, states=bands, machines=list(plant.machines), title=title)


def _power(store: Store, plant: Plant) -> dict[str, tuple[Column, Column]]:
    """Ten-minute means of every workshop's meters, gas as the power it carries."""
    curves = {}
    for workshop in plant.workshops:
        for metric, kw_per_unit, name in (
            ("electricity_kw", 1.0, workshop.name),
            ("gas_m3_h", plant.gas_kwh_per_m3, f"{workshop.name} (gas)"),
        ):
            answer = store.query(
                Query(metric, site=plant.site, device=meter_of(workshop.name), every_s=600.0, agg="mean")
            )
            if len(answer):
                curves[name] = (answer.times, answer.values * kw_per_unit)
    return curves


def _cleaning(files: Files, store: Store, plant: Plant) -> go.Figure:
    """The temperature in which most had to be cleaned, as sent and as stored."""
    touched: dict[str, int] = {}
    for machine in plant.machines:
        quality = store.query(Query(CLEANED, site=plant.site, device=machine)).quality
        touched[machine] = int(np.count_nonzero((quality & GRADE_MASK) != GOOD))
    machine = max(touched, key=lambda name: touched[name])
    unit = next(device for device in plant.devices() if device.device == machine).metrics[CLEANED].unit
    answer = store.query(Query(CLEANED, site=plant.site, device=machine))
    times: list[int] = []
    values: list[float] = []
    for one in read_truth(files.truth):
        if one.device == machine and one.burst.units.get(CLEANED) == unit:
            for at, value in zip(one.burst.at, one.burst.columns[CLEANED], strict=True):
                if value is not None:
                    times.append(one.burst.t0 + at)
                    values.append(value)
    return cleaning_figure(
        f"{CLEANED} of {machine}, {touched[machine]} values not good",
        unit,
        (np.asarray(times, np.int64), np.asarray(values)),
        (answer.times, answer.values),
    )
