"""What came of a swarm, for people: the table on the terminal, one HTML page, one JSON object.

rows(outcome); write(Path("swarm.html"), outcome); document(outcome)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]
from rich.table import Table

from messages.clock import SECOND
from shoal.gantt import Bar, gantt_figure
from shoal.report import Section, write_report
from shoal.swarm.outcome import Figures, Outcome
from shoal.swarm.picture import clock
from shoal.swarm.setting import plant_size

DEFINITIONS = (
    "Makespan: from the begin to the end of the last operation. Waiting: of a job, from its release or the end of its "
    "step before to the begin of each step in which its part is not carried; the mean over jobs. Utilisation: working "
    "time of a machine over the makespan, the mean over machines. Messages per award: offers, bids, awards and their "
    "acknowledgements. Runs are those of the machines, not what an agent says.",
)


def rows(outcome: Outcome) -> list[tuple[str, str]]:
    """The figures, in words."""
    one, jobs = outcome.figures, {run.job for run in outcome.runs}
    done = sum(not run.interrupted and not run.running for run in outcome.runs)
    found = [
        ("plant", f"{outcome.swarm.plant.site}: {plant_size(outcome.swarm.plant)}, {len(jobs)} jobs"),
        ("judge", f"{judge_name(outcome)}, over {'a broker' if outcome.over == 'bus' else 'the simulation'}"),
        ("makespan", said_s(one.makespan_s)),
        ("mean waiting", said_s(one.waiting_s)),
        ("mean utilisation", f"{100 * one.utilisation:.1f} %"),
        ("energy", f"{one.energy_kwh:,.1f} kWh" if one.energy_kwh else "no powers are stated"),
        ("carbon", "no forecast is stated" if one.carbon_kg is None else f"{one.carbon_kg:,.1f} kg CO2e"),
    ]
    if any(job.due_at for job in outcome.swarm.jobs):
        found.append(("mean tardiness", said_s(one.tardiness_s)))
    awards = outcome.messages.get("award", 0)
    found += [
        ("operations done", f"{done}" + (f", {len(outcome.excused)} excused" if outcome.excused else "")),
        ("messages per award", f"{outcome.messages_per_award:.1f} ({awards} awards)"),
        *([("decisions", f"{outcome.decisions}")] if outcome.decisions is not None else []),
        ("took", f"{outcome.wall_s:.1f} s, {outcome.cpu_s:.1f} s of CPU, {outcome.events} events"),
        ("verdict", verdict(outcome)),
    ]
    return found


def verdict(outcome: Outcome) -> str:
    """In one sentence."""
    if outcome.holds:
        excused = f", {len(outcome.excused)} reported why not" if outcome.excused else ""
        return f"holds: every task was done once{excused}, all histories are complete, nothing stood still"
    more = f" (and {len(outcome.faults) - 1} more)" if len(outcome.faults) > 1 else ""
    return f"broken: {outcome.faults[0]}{more}"


def judge_name(outcome: Outcome) -> str:
    """The judge and its budget."""
    judge = outcome.swarm.judge.model_dump()
    if judge["kind"] != "mcts":
        return str(judge["kind"])
    count = judge.get("iterations")
    return f"mcts, {count} iterations per decision" if count else f"mcts, {judge['seconds']:g} s per decision"


def said_s(seconds: float) -> str:
    """Seconds, and hours where there are many."""
    return f"{seconds:,.1f} s" + (f" ({seconds / 3600:.2f} h)" if seconds >= 7200 else "")


def troubles(outcome: Outcome) -> list[list[str]]:
    """Disturbances as a table."""
    start = outcome.swarm.start
    return [
        ["when", "what", "whom", "what was done about it"],
        *([clock(one.at - start), one.kind, one.what, one.answer] for one in outcome.troubles),
    ]


def compared(others: Mapping[str, Figures], outcome: Outcome) -> list[list[str]]:
    """The same course judged by others, who are simulated; where it itself was not, that is said."""
    own, name, mark = outcome.figures, judge_name(outcome), ", simulated" if outcome.over == "bus" else ""
    stated = bool(own.energy_kwh)  # else the plant states no powers
    energy = ["energy"] if stated else []
    found = [["judge", "makespan", "mean waiting", "utilisation", *energy, "makespan against it"]]
    for judge, one in {name: own, **{f"{judge}{mark}": one for judge, one in others.items()}}.items():
        change = 100 * (one.makespan_s / own.makespan_s - 1) if own.makespan_s else 0.0
        found.append(
            [
                judge,
                said_s(one.makespan_s),
                said_s(one.waiting_s),
                f"{100 * one.utilisation:.1f} %",
                *([f"{one.energy_kwh:,.1f} kWh"] if stated else []),
                "" if judge == name else f"{change:+.1f} %",
            ]
        )
    return found


def document(outcome: Outcome, others: Mapping[str, Figures]) -> dict[str, Any]:
    """What a program may want to read."""
    one, start = outcome.figures, outcome.swarm.start
    return {
        "plant": outcome.swarm.plant.site,
        "judge": outcome.swarm.judge.model_dump(),
        "over": outcome.over,
        "seed": outcome.swarm.seed,
        **_figures(one),
        "tardiness_s": one.tardiness_s,
        "done": sum(not run.interrupted and not run.running for run in outcome.runs),
        "excused": {f"{job} {op}": why for (job, op), why in sorted(outcome.excused.items())},
        "messages": dict(sorted(outcome.messages.items())),
        "messages_per_award": outcome.messages_per_award,
        "decisions": outcome.decisions,
        "events": outcome.events,
        "cpu_s": outcome.cpu_s,
        "wall_s": outcome.wall_s,
        "disturbances": [
            {"at_s": (one.at - start) / SECOND, "kind": one.kind, "what": one.what, "answer": one.answer}
            for one in outcome.troubles
        ],
        "compare_over": "sim",
        "compare": {name: _figures(other) for name, other in others.items()},
        "holds": outcome.holds,
        "faults": list(outcome.faults),
    }


def runs(outcome: Outcome) -> list[dict[str, Any]]:
    """Every run of every machine, times in seconds after the begin."""
    start = outcome.swarm.start
    return [
        {
            "machine": run.machine,
            "job": run.job,
            "op": run.op,
            "start_s": (run.start - start) / SECOND,
            "end_s": (run.end - start) / SECOND,
            "interrupted": run.interrupted,
        }
        for run in sorted(outcome.runs, key=lambda run: (run.start, run.machine))
    ]


def write(path: Path, outcome: Outcome, others: Mapping[str, Figures]) -> None:
    """One HTML page that opens anywhere."""
    sections = [Section("What the words mean", DEFINITIONS)]
    if outcome.troubles:
        sections.insert(0, Section("Disturbances", (), troubles(outcome)))
    if others:
        table = compared(others, outcome)
        sections.insert(0, Section("The same course, judged by others", (), table))
    if outcome.excused:
        listed = [
            ["task", "why it was not done"],
            *([f"{job} op {op}", why] for (job, op), why in outcome.excused.items()),
        ]
        sections.append(Section("Not done, and why", (), listed))
    write_report(
        path,
        title=f"Swarm of {outcome.swarm.plant.site}: {said_s(outcome.figures.makespan_s)}",
        figures=[gantt(outcome)],
        tables=[rows(outcome)],
        notes=outcome.faults,
        sections=sections,
    )


def gantt(outcome: Outcome) -> go.Figure:
    """Machines and vehicles as rows, breakdowns red, disturbances as lines."""
    span_s = outcome.figures.makespan_s
    unit, per = ("h", 3600 * SECOND) if span_s >= 7200 else ("s", SECOND)
    start, plant = outcome.swarm.start, outcome.swarm.plant

    def at(us: int) -> float:
        return round((us - start) / per, 4)

    bars = [
        Bar(run.machine, run.job, run.op, at(run.start), at(run.end), "interrupted" if run.interrupted else "")
        for run in outcome.runs
    ]
    vehicles = [f"vehicle {n + 1}" for n in range(plant.layout.vehicles or 0)] if plant.layout else []
    bars += [
        Bar(f"vehicle {one.vehicle + 1}", one.job, 0, at(one.loads), at(one.arrives), f"{one.from_} → {one.to}")
        for one in outcome.carries
        if one.vehicle >= 0
    ]
    machines = [*plant.machines, *vehicles]
    figure = gantt_figure(bars, machines=machines, unit=unit, title="What machines and vehicles did")
    row = {name: n for n, name in enumerate(machines)}
    figure.add_bar(
        orientation="h",
        base=[at(one.start) for one in outcome.downs],
        x=[at(one.end) - at(one.start) for one in outcome.downs],
        y=[row[one.machine] for one in outcome.downs],
        width=0.9,
        marker={"color": "#d62728", "opacity": 0.55, "line": {"width": 0}},
        name="broken",
        hovertext=[f"{one.machine} is broken<br>{at(one.start)} … {at(one.end)}" for one in outcome.downs],
        hoverinfo="text",
    )
    for one in outcome.troubles:
        if one.kind != "breakdown":
            figure.add_vline(
                x=at(one.at),
                line={"color": "#d62728", "width": 1, "dash": "dot"},
                annotation_text=f"{one.kind} {one.what}".strip(),
                annotation_font_size=10,
                annotation_textangle=-90,
            )
    return figure


def _figures(one: Figures) -> dict[str, Any]:
    return {
        "makespan_s": one.makespan_s,
        "waiting_s": one.waiting_s,
        "utilisation": one.utilisation,
        "energy_kwh": one.energy_kwh,
        "carbon_kg": one.carbon_kg,
    }


def table_of(lines: Sequence[Sequence[str]], title: str) -> Table:
    """A rich table with a head."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for cell in lines[0]:
        table.add_column(cell)
    for line in lines[1:]:
        table.add_row(*line)
    return table
