"""Plan against floor: how late, how much energy, and whether that is reason to plan again.

Pure: values in, values out; times in µs of plant time.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from messages.contracts import PlanInForce
from messages.floor import SECOND, Floor, Key
from messages.plant import Plant


@dataclass(frozen=True)
class Deviation:
    """The plan in force against what the floor shows."""

    late_s: float = 0.0
    latest: Key | None = None
    planned_end: int | None = None

    @property
    def expected_end(self) -> int | None:
        """The planned end moved by the greatest delay: right when the delay is on the critical path, else too late."""
        return None if self.planned_end is None else self.planned_end + round(self.late_s * SECOND)


def deviation(body: PlanInForce, floor: Floor, now: int) -> Deviation:
    """The greatest delay of any operation of the plan that is not done.

    A running operation is late by what it overruns its planned end, counted from when it can end at the earliest;
    one that has not begun, by what its planned start has passed.
    """
    begun, furthest = floor.begun, floor.furthest()
    grid = body.tick_s * SECOND
    t0 = body.plan.t0 or 0
    late_us, latest, end = 0, None, None
    for one in body.plan.assignments:
        planned_start, planned_end = t0 + round(one.start * grid), t0 + round(one.end * grid)
        end = planned_end if end is None else max(end, planned_end)
        if one.interrupted or one.op < furthest.get(one.job, -1):
            continue
        segment = begun.get((one.job, one.op))
        if segment is None:
            late = now - planned_start
        elif segment.end is None:
            late = max(now, segment.start + (planned_end - planned_start)) - planned_end
        else:
            continue
        if late > late_us:
            late_us, latest = late, (one.job, one.op)
    return Deviation(late_us / SECOND, latest, end)


def elsewhere(body: PlanInForce, floor: Floor) -> Key | None:
    """An operation that began on another machine than the plan means to start it on."""
    begun, runs, grid, t0 = floor.begun, floor.runs(), body.tick_s * SECOND, body.plan.t0 or 0
    for one in body.plan.assignments:
        key = (one.job, one.op)
        if key in begun and not one.interrupted and t0 + round(one.start * grid) >= body.frozen_until:
            ran_on = {run.machine for run in runs.get(one.job, ()) if run.op == one.op}
            if one.machine not in ran_on:
                return key
    return None


def planned_energy_kwh(body: PlanInForce, plant: Plant, since: int, until: int) -> float:
    """kWh the plan's machine states draw between two times: Σ kW(state) · h."""
    grid = body.tick_s * SECOND
    t0 = body.plan.t0 or 0
    total = 0.0
    for one in body.plan.machine_states:
        if one.machine not in plant.machines:
            continue
        machine = plant.machines[one.machine][1]
        kw = {"work": machine.work_kw, "idle": machine.idle_kw, "preheat": machine.preheat_kw, "off": machine.off_kw}
        start, end = max(since, t0 + round(one.start * grid)), min(until, t0 + round(one.end * grid))
        if end > start:
            total += kw.get(one.state, 0.0) * (end - start) / SECOND / 3600
    return total


@dataclass(frozen=True)
class Tolerance:
    """When to plan again."""

    late_s: float = 2700.0
    pause_s: float = 3600.0


def reason_to_replan(
    body: PlanInForce | None,
    floor: Floor,
    now: int,
    *,
    planned_at: int,
    planned_down: Mapping[str, int | None],
    tolerance: Tolerance,
    claimed: Container[Key] = (),
) -> str | None:
    """Why a new plan is wanted, in words for people; None: the plan in force stands.

    planned_at    when the plan in force was made
    planned_down  machines it knew to be down, with the repair time it assumed
    claimed       operations a node says it began, of which no record has come yet
    """
    if body is None:
        return None
    for machine in floor.down:
        repair_at = floor.machines[machine].repair_at
        if machine not in planned_down:
            return f"{machine} broke down"
        if repair_at is not None and planned_down[machine] != repair_at:
            return f"{machine} is expected back at another time"
        if (
            repair_at is not None
            and now > repair_at + tolerance.late_s * SECOND
            and now > planned_at + _pause(tolerance)
        ):
            return f"{machine} is not back yet"
    for machine, repair_at in planned_down.items():
        early = repair_at is None or (repair_at - floor.machines[machine].since) > tolerance.late_s * SECOND
        if machine not in floor.down and early:
            return f"{machine} is back early"
    begun, furthest = floor.begun, floor.furthest()
    for job, op in body.started:
        if (job, op) not in begun and op >= furthest.get(job, -1) and (job, op) not in claimed:
            return f"job {job} operation {op} was interrupted"
    if now >= planned_at + _pause(tolerance):
        found = deviation(body, floor, now)
        if found.late_s > tolerance.late_s and found.latest:
            job, op = found.latest
            return f"job {job} operation {op} is {found.late_s / 60:.0f} min late"
    return None


def _pause(tolerance: Tolerance) -> int:
    return round(tolerance.pause_s * SECOND)
