"""A plan and a front as tables: for the terminal, for the report, as CSV for a spreadsheet.

    plan_section(problem, plan, most=40)        # operation by operation, in order of start
    plan_csv(problem, plan)                     # the same and more, for a spreadsheet
    front_section(problem, plans, ("makespan", "energy"), chosen=plans[2], proved=True)

Times are of the file's unit; where the plan says when tick 0 is (`t0`), calendar dates of this computer's time zone
stand beside them.
"""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise

from cloud.scheduling.seam import KEY, NEAR
from messages.gaps import machine_states, works
from messages.plan import MachineState, Measure, Plan
from messages.problem import Problem
from shoal.report import Section
from shoal.schedule_figures import axis, said, shown

SHOWN = 40
"""Operations shown on a terminal unless all are asked for."""
MOST_PLANS = 200
"""Plans of a front that are listed; the file of --front holds all."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One operation in ticks, with what its machine did right before."""

    job: str
    op: int
    name: str
    machine: str
    start: int
    end: int
    setup: int
    """Ticks of set-up right before its start."""
    before: str
    """off: the machine was off and is preheated for it; idle: it waited powered; "": neither."""
    note: str


def plan_rows(problem: Problem, plan: Plan) -> list[Row]:
    """In order of start."""
    past = set(problem.history)
    setups, before = {}, {}
    states: dict[str, list[MachineState]] = {}
    for state in sorted(plan.machine_states or machine_states(problem, plan.assignments), key=lambda one: one.start):
        states.setdefault(state.machine, []).append(state)
    for machine, line in works(problem, plan.assignments).items():
        mine = states.get(machine, [])
        starts = [one.start for one in mine]
        for last, work in pairwise((None, *line)):
            assert work is not None
            gap = slice(0 if last is None else bisect_left(starts, last.end), bisect_left(starts, work.ready))
            seen = {one.state for one in mine[gap] if one.start < one.end <= work.ready}
            for one in work.members:
                setups[one] = work.setup
                before[one] = "off" if seen & {"off", "preheat"} else "idle" if "idle" in seen else ""
    found = [
        Row(
            one.job,
            one.op,
            step.name if (step := problem.operation.get((one.job, one.op))) else "",
            one.machine,
            one.start,
            one.end,
            setups.get(one, 0),
            before.get(one, ""),
            "interrupted" if one.interrupted else "begun before now" if one in past else "",
        )
        for one in plan.assignments
    ]
    return sorted(found, key=lambda row: (row.start, row.end, row.machine, row.job, row.op))


def plan_section(problem: Problem, plan: Plan, *, most: int | None = None) -> Section:
    """Columns that would be empty throughout are left out."""
    rows = plan_rows(problem, plan)
    unit = f" ({problem.time_unit})" if problem.time_unit else ""
    dates = plan.t0 is not None
    table: list[tuple[str, ...]] = [("job", "operation", "machine", f"start{unit}", f"end{unit}")]
    if dates:
        zone = at(problem, plan, 0).strftime("%Z")
        table[0] += (f"start ({zone})", f"end ({zone})")
    table[0] += (f"set-up{unit}", "before", "")
    for row in rows[:most]:
        cells = (row.job, f"{row.op} {row.name}".rstrip(), row.machine, *(_time(problem, tick) for tick in _ends(row)))
        if dates:
            cells += tuple(f"{at(problem, plan, tick):%a %d %b %Y %H:%M}" for tick in _ends(row))
        table.append((*cells, _time(problem, row.setup) if row.setup else "", row.before, row.note))
    kept = [k for k in range(len(table[0])) if k < 5 or any(row[k] for row in table[1:])]
    text = ["before: what the machine did right before (off: it is preheated for the operation)"] * any(
        row.before for row in rows[:most]
    )
    if most is not None and len(rows) > most:
        text.append(f"the first {most} of {len(rows)} operations; --table shows all, --csv FILE writes them")
    return Section("Plan", text, [tuple(row[k] for k in kept) for row in table])


def plan_csv(problem: Problem, plan: Plan) -> str:
    """Always the same columns, but for the dates: those stand there when the plan says when tick 0 is."""
    unit = f"_{problem.time_unit}" if problem.time_unit else ""
    dates = ("start_at", "end_at") if plan.t0 is not None else ()
    out = StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        ("job", "operation", "name", "machine", f"start{unit}", f"end{unit}", *dates, f"setup{unit}", "before", "note")
    )
    for row in plan_rows(problem, plan):
        times = [problem.in_unit(tick) for tick in _ends(row)]
        when = [at(problem, plan, tick).isoformat(timespec="seconds") for tick in _ends(row)] if dates else []
        setup = problem.in_unit(row.setup)
        table.writerow((row.job, row.op, row.name, row.machine, *times, *when, setup, row.before, row.note))
    return out.getvalue()


def front_section(
    problem: Problem, plans: Sequence[Plan], measures: Sequence[Measure], chosen: Plan | None, *, proved: bool
) -> Section:
    """Numbered as `--take` counts them.

    proved  that every plan of it is one no other can beat
    """
    rows: list[tuple[str, ...]] = [("plan", *(axis(problem, name) for name in measures), "status", "")]
    for number, plan in enumerate(plans[:MOST_PLANS], 1):
        values = (f"{shown(problem, name, plan.objectives[KEY[name]]):,.8g}" for name in measures)
        mark = "◀ taken" if plan is chosen else ""
        rows.append((str(number), *values, _status(plan, measures, proved=proved), mark))
    text = ["--take N takes another; of a front written by --front: --plan front.json --take N"]
    if len(plans) > MOST_PLANS:
        text.append(f"the first {MOST_PLANS} of {len(plans)}")
    return Section(f"Front: {len(plans)} plan{'s' * (len(plans) != 1)} that no other found beats", text, rows)


def gap(problem: Problem, plan: Plan, measure: Measure) -> str:
    """How far a plan can be from the best there is; "" where nothing was proved of this measure."""
    if plan.bound is None or plan.bound_of != measure:
        return ""
    value = plan.objectives[KEY[measure]]
    if _is_least(plan, measure):
        return "proved: none is less"
    bound = said(problem, measure, plan.bound)
    if plan.bound > 0:
        return f"at most {(value - plan.bound) / plan.bound:.2%} above the least there can be: {bound} is proved"
    return f"at most {said(problem, measure, value - plan.bound)} above the least there can be: {bound} is proved"


def at(problem: Problem, plan: Plan, ticks: int) -> datetime:
    """In this computer's time zone."""
    assert plan.t0 is not None
    return (EPOCH + timedelta(microseconds=plan.t0 + round(ticks * problem.tick_s * 1e6))).astimezone()


def _status(plan: Plan, measures: Sequence[Measure], *, proved: bool) -> str:
    if proved:
        return "proved"
    name = plan.bound_of
    return f"least {name} proved" if name in measures and _is_least(plan, name) else "not proved"


def _is_least(plan: Plan, measure: Measure) -> bool:
    """Whether what is proved of this measure says that none is less."""
    value = plan.objectives[KEY[measure]]
    return plan.bound is not None and value <= plan.bound + NEAR * max(1.0, abs(value))


def _ends(row: Row) -> tuple[int, int]:
    return row.start, row.end


def _time(problem: Problem, ticks: int) -> str:
    return f"{problem.in_unit(ticks):.10g}"
