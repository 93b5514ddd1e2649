"""The floor as its records tell it: what ran where, what runs, which machines are down.

Pure: `Floor.apply(record)` folds records; everything else reads. Records come exactly once (the store has one per
key) but not always in order: batches that were sent again, and lanes, overtake each other. So what counts is `at`.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from messages.carbon import GAS_KG_PER_KWH, curve_of
from messages.contracts import (
    Finished,
    Interrupted,
    OrderedJob,
    Record,
    Signal,
    Started,
    StateChanged,
)
from messages.curve import Curve
from messages.plan import Assignment
from messages.plant import Plant
from messages.problem import Job, Machine, Operation, Power, Problem, Window

SECOND = 1_000_000
UNKNOWN_REPAIR_S = 4 * 3600.0
"""A breakdown without a repair time is planned around for this long, again and again."""
OVERDUE_TICKS = 1
"""A running operation that should have ended is expected to end this much from now."""

Key = tuple[str, int]


@dataclass(frozen=True)
class Segment:
    """One run of an operation on a machine; `end` None: it runs."""

    job: str
    op: int
    machine: str
    start: int
    end: int | None = None
    interrupted: bool = False
    energy_kwh: float | None = None


@dataclass(frozen=True)
class MachineNow:
    """State of a machine since when, and when a broken one is expected back."""

    state: str = "off"
    since: int = 0
    repair_at: int | None = None


@dataclass
class Floor:
    """History and present of a site, times in µs of plant time."""

    segments: list[Segment] = field(default_factory=list)
    running: dict[str, Segment] = field(default_factory=dict)
    machines: dict[str, MachineNow] = field(default_factory=dict)
    states: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        """Take one record in."""
        match record:
            case Started():
                ended = any(self._is(one, record) and one.start == record.at for one in self.segments)
                if not ended:  # else its end overtook it
                    self.running[record.machine] = Segment(record.job, record.op, record.machine, record.at)
            case Finished() | Interrupted():
                running = self.running.get(record.machine)
                if running and self._is(running, record):
                    del self.running[record.machine]
                segment = Segment(
                    record.job,
                    record.op,
                    record.machine,
                    min(record.started_at, record.at),
                    record.at,
                    interrupted=isinstance(record, Interrupted),
                    energy_kwh=record.energy_kwh,
                )
                self.segments.append(segment)
            case StateChanged():
                self._enter(record)

    @staticmethod
    def _is(segment: Segment, record: Started | Finished | Interrupted) -> bool:
        return (segment.machine, segment.job, segment.op) == (record.machine, record.job, record.op)

    def _enter(self, record: StateChanged) -> None:
        before = self.machines.get(record.machine, MachineNow())
        if record.at < before.since:  # overtaken: it belongs to the past only
            self._remember(record)
            return
        self._remember(record)
        if before.state != record.state or (record.repair_at is not None and before.repair_at != record.repair_at):
            self.machines[record.machine] = MachineNow(record.state, record.at, record.repair_at)

    def _remember(self, record: StateChanged) -> None:
        bisect.insort(self.states.setdefault(record.machine, []), (record.at, record.state), key=lambda one: one[0])

    def states_of(self, machine: str) -> list[tuple[int, str]]:
        """When a machine entered which state, as far as records tell; a state said again is no change."""
        found: list[tuple[int, str]] = []
        for at, state in self.states.get(machine, ()):
            if not found or found[-1][1] != state:
                found.append((at, state))
        return found

    @property
    def begun(self) -> dict[Key, Segment]:
        """Operations that run or are done, by key."""
        done = {(one.job, one.op): one for one in self.segments if not one.interrupted}
        return done | {(one.job, one.op): one for one in self.running.values()}

    @property
    def down(self) -> list[str]:
        """Machines that are broken down."""
        return sorted(machine for machine, now in self.machines.items() if now.state == "down")

    def runs(self) -> dict[str, list[Segment]]:
        """Every run of every job's operations, ended or not."""
        found: dict[str, list[Segment]] = {}
        for one in (*self.segments, *self.running.values()):
            found.setdefault(one.job, []).append(one)
        return found

    def furthest(self) -> dict[str, int]:
        """Job → the last of its operations that has begun; all before it are done, whatever records are missing."""
        found: dict[str, int] = {}
        for job, op in self.begun:
            found[job] = max(op, found.get(job, -1))
        return found

    def forget(self, jobs: Iterable[str]) -> None:
        """Drop the history of jobs that are no longer of interest, and machine states from before all others."""
        gone = set(jobs)
        self.segments = [one for one in self.segments if one.job not in gone]
        oldest = min((one.start for one in (*self.segments, *self.running.values())), default=None)
        for entered in self.states.values():
            keep = len(entered) - 1 if oldest is None else bisect.bisect_left(entered, (oldest, ""))
            del entered[: max(0, keep - 1)]


def problem_of(
    plant: Plant,
    jobs: Mapping[str, OrderedJob],
    floor: Floor,
    *,
    t0: int,
    now: int,
    signals: Mapping[str, Signal] | None = None,
) -> Problem:
    """The planning problem at `now`: all of `jobs`, their history, every machine as it is, the carbon forecast.

    Tick 0 is at `t0` (µs); times of the past are rounded down to ticks, so their order stays. The signal `carbon` is
    the grid's; gas emits the same at any hour.
    """
    grid = plant.tick_us
    tick_now = max(0, (now - t0) // grid)

    def tick(at: int) -> int:
        return max(0, (at - t0) // grid)

    problem_jobs = tuple(
        Job(
            id=job.job,
            release=tick(job.release_at + grid - 1) if job.release_at else 0,
            due=tick(job.due_at) if job.due_at else None,
            operations=tuple(
                Operation(
                    op=index,
                    name=stage,
                    alternatives={machine: round(hours * 3600 / plant.tick_s) for machine, hours in able.items()},
                )
                for index, (stage, able) in enumerate(plant.route(job.product))
            ),
        )
        for job in jobs.values()
    )
    runs = floor.runs()
    history = [one for job in problem_jobs for one in _history(job, runs.get(job.id, []), tick, tick_now)]
    return Problem(
        name=plant.site,
        time_unit="h",
        tick_s=plant.tick_s,
        machines=tuple(_machine(plant, name, floor, tick_now, tick, history) for name in plant.machines),
        jobs=problem_jobs,
        now=tick_now,
        history=tuple(sorted(history, key=lambda one: (one.start, one.end, one.machine))),
        **_site(signals or {}, t0, grid),
    )


def _history(job: Job, runs: Sequence[Segment], tick: Callable[[int], int], tick_now: int) -> Iterator[Assignment]:
    """One job's past as a problem can take it: its first operations, each done once, then perhaps one that runs.

    Records may be missing (a node is cut off, or behind) or double (a defect worth a log line elsewhere). An operation
    whose successor has begun is done, whatever is not yet known of it; of two runs the one that ended first counts.
    """
    runs = [one for one in runs if one.op < len(job.operations) and one.machine in job.operations[one.op].alternatives]
    begun: dict[int, Segment] = {}
    for one in sorted(runs, key=lambda one: (one.end is None, one.end or 0, one.start)):
        if one.interrupted:
            start = min(tick(one.start), tick_now)
            end = max(start, min(tick(one.end or one.start), tick_now))
            yield _assignment(job, one, start, end, interrupted=True)
        else:
            begun.setdefault(one.op, one)
    last = max(begun, default=-1)
    for op in range(last + 1):
        run = begun.get(op)
        following = min((tick(begun[later].start) for later in begun if later > op), default=None)
        if run is None:
            at = min(following or 0, tick_now)
            yield Assignment(job=job.id, op=op, machine=next(iter(job.operations[op].alternatives)), start=at, end=at)
            continue
        start = min(tick(run.start), tick_now)
        if run.end is not None:
            end = max(start, min(tick(run.end), tick_now))
        elif following is not None:
            end = max(start, min(following, tick_now))
        else:
            end = max(tick_now + OVERDUE_TICKS, start + job.operations[op].alternatives[run.machine])
        yield _assignment(job, run, start, end)


def _assignment(job: Job, run: Segment, start: int, end: int, *, interrupted: bool = False) -> Assignment:
    return Assignment(job=job.id, op=run.op, machine=run.machine, start=start, end=end, interrupted=interrupted)


def _site(signals: Mapping[str, Signal], t0: int, grid: int) -> dict[str, dict[str, Curve]]:
    """What the signals `carbon`, `tariff` and `generation` say of electricity; gas emits the same at any hour."""
    kinds = ("carbon", "tariff", "generation")
    curves = {kind: {"electricity": curve} for kind in kinds if (curve := curve_of(signals.get(kind), t0, grid))}
    if "carbon" in curves:
        curves["carbon"]["gas"] = Curve(step=1, values=(GAS_KG_PER_KWH,))
    return curves


def _machine(
    plant: Plant, name: str, floor: Floor, tick_now: int, tick: Callable[[int], int], history: Sequence[Assignment]
) -> Machine:
    workshop, spec = plant.machines[name]
    now = floor.machines.get(name, MachineNow())
    preheat = round(spec.preheat_h * 3600 / plant.tick_s)
    warm_from: int | None = None
    unavailable: tuple[Window, ...] = ()
    if now.state == "idle":
        warm_from = min(tick(now.since), tick_now)
    elif now.state == "preheat":
        worked = max((one.end for one in history if one.machine == name), default=0)
        warm_from = max(tick(now.since), worked) + preheat
    elif now.state == "down":
        back = tick(now.repair_at) if now.repair_at else 0
        if back <= tick_now:
            back = tick_now + round(UNKNOWN_REPAIR_S / plant.tick_s) if now.repair_at is None else tick_now + 1
        unavailable = (Window(start=min(tick(now.since), tick_now), end=back, reason="breakdown"),)
    return Machine(
        id=name,
        carrier=workshop.carrier,
        power_kw=Power(work=spec.work_kw, idle=spec.idle_kw, preheat=spec.preheat_kw, off=spec.off_kw),
        preheat=preheat,
        unavailable=unavailable,
        warm_from=warm_from,
        on_breakdown=workshop.on_breakdown,
    )
