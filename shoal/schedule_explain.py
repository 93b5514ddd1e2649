"""`shoal schedule --explain` in words: what binds, what a shorter plan costs, why orders are late, what limits leave.

The same rows go to the terminal and into the report; nothing is found out here (`cloud.scheduling.explain`, `.relax`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from cloud.scheduling.explain import Explanation, Late
from cloud.scheduling.pieces import Piece
from cloud.scheduling.relax import Price, Relaxed, Unmet
from messages.problem import Problem
from shoal.report import Section
from shoal.schedule_figures import said, shown, unit_of

MOST_LATE = 20
"""Late orders told one by one; of more the latest."""
WORDS = {
    "begin": "the plan begins",
    "release": "released",
    "now": "now: nothing begins earlier",
    "history": "done or running already",
    "work": "work",
    "setup": "set-up",
    "transport": "on its way",
    "wait": "must wait",
    "queue": "waits: the machine works for others",
    "closed": "machine closed",
    "breakdown": "machine broken down",
    "preheat": "machine heats up",
    "crew": "waits for the crew",
    "batch": "waits for its batch",
    "held": "held back",
    "cheap": "waits for cheap hours",
    "clean": "waits for clean hours",
    "short": "does not fit before closing",
}


def told(problem: Problem, found: Explanation, price: Price | None) -> list[Section]:
    """What binds, machine by machine, the price of less, late orders, limits."""
    sections = [_critical(problem, found), _machines(problem, found)]
    if price is not None:
        sections.append(Section("Price of a shorter plan", price_told(problem, price)))
    if any(job.due is not None for job in problem.jobs):
        sections.append(_late(problem, found.late))
    if found.limits:
        sections.append(_limits(problem, found))
    return sections


def price_told(problem: Problem, price: Price) -> list[str]:
    """What the next shorter plan costs, or that there is none."""
    to = said(problem, "makespan", max(0, price.to))
    if not price.values:
        if price.proved:
            return [f"It cannot end by {to}: proved."]
        return [f"No plan that ends by {to} was found in {price.seconds:g} s; that there is none was not proved."]
    lines = [f"Ending by {to} at the latest (least {price.measure} within each; {_sure(price)}):"]
    for name, (before, after) in price.values.items():
        if before != after:
            change = f"{shown(problem, name, after - before):+,.6g} {unit_of(problem, name)}".rstrip()
            lines.append(f"{name}: {change} ({said(problem, name, before)} → {said(problem, name, after)})")
    if len(lines) == 1:
        lines.append("it costs nothing: every measure stays")
    return lines


def unmet_told(problem: Problem, found: Relaxed, *, proved: bool = False) -> list[str]:
    """By how much limits that no plan keeps are missed, and what would meet them; `proved`: no plan keeps them all."""
    lines = []
    for one in found.unmet:
        lines.append(_missed(problem, one, proved and len(found.unmet) == 1))
        if one.least is not None:
            cure = f"--limit {one.measure}={shown(problem, one.measure, one.least):.10g}"
            lines.append(f"  {cure} would do{_or_capture(problem, one)}")
        elif one.alone is not None and len(found.unmet) > 1:
            lines.append("  relax another limit: with all the others no plan was found")
    return lines


def lines(sections: Sequence[Section]) -> list[str]:
    """For a terminal."""
    found = []
    for section in sections:
        found.append(f"\n{section.title}")
        found += [f"  {line}" for line in section.text]
        if section.rows:
            width = [max(len(row[k]) for row in section.rows) for k in range(len(section.rows[0]))]
            for row in section.rows:
                found.append("  " + "  ".join(cell.ljust(width[k]) for k, cell in enumerate(row)).rstrip())
    return found


def _sure(price: Price) -> str:
    return "both proved" if price.proved else f"best found in {price.seconds:g} s"


def _missed(problem: Problem, one: Unmet, proved: bool) -> str:
    limit = said(problem, one.measure, one.limit)
    if one.least is not None:
        proved = proved or (one.bound is not None and one.bound > one.limit)
        over = said(problem, one.measure, one.least - one.limit)
        sure = "proved that it cannot be kept" if proved else "not proved"
        return f"{one.measure} <= {limit} is missed by {over}: the least found is {_value(problem, one)} ({sure})"
    if one.alone is not None:
        alone = said(problem, one.measure, one.alone)
        return f"{one.measure} <= {limit}: alone it could be {alone}, together with the other limits no plan was found"
    return f"{one.measure} <= {limit}: no plan was found at all; allow more time"


def _value(problem: Problem, one: Unmet) -> str:
    return said(problem, one.measure, one.least or 0.0)


def _or_capture(problem: Problem, one: Unmet) -> str:
    if one.measure != "ledger" or one.least is None:
        return ""
    return f", or {one.least - one.limit:,.6g} kg more `capture_kg` (or as much less carbon by generation on site)"


def _critical(problem: Problem, found: Explanation) -> Section:
    chain = found.critical
    if not chain:
        return Section("What binds: the critical path", ["nothing is planned"])
    spent: dict[str, int] = {}
    for one in chain:
        spent[one.kind] = spent.get(one.kind, 0) + one.end - one.start
    parts = [
        f"{WORDS[kind]} {said(problem, 'makespan', ticks)}"
        for kind, ticks in sorted(spent.items(), key=lambda item: -item[1])
        if ticks
    ]
    text = [f"The end at {said(problem, 'makespan', chain[-1].end)} follows from: {'; '.join(parts)}."]
    return Section("What binds: the critical path", text, [_HEAD, *(_row(problem, one) for one in chain)])


_HEAD = ("from", "to", "what", "job", "operation", "machine", "why")


def _row(problem: Problem, one: Piece) -> tuple[str, ...]:
    start, end = (f"{problem.in_unit(at):g}" for at in (one.start, one.end))
    name = problem.operation[one.job, one.op].name if (one.job, one.op) in problem.operation else ""
    step = f"{one.op} {name}".rstrip() if one.machine else ""
    return (start, end, WORDS[one.kind], one.job, step, one.machine, one.note)


def _machines(problem: Problem, found: Explanation) -> Section:
    used = [one for one in found.machines if one.work + one.setup]
    if not used:
        return Section("Machines", ["none works"])
    top = used[0]
    ties = [one for one in used if one.work + one.setup == top.work + top.setup]
    named = {one.machine for one in ties}
    on_path = sum(
        one.end - one.start for one in found.critical if one.machine in named and one.kind in ("work", "setup")
    )
    each = "each " if len(ties) > 1 else ""
    text = [
        f"Bottleneck: {_and([one.machine for one in ties])}, {each}at work or set up for "
        f"{said(problem, 'makespan', top.work + top.setup)}, {top.utilisation:.1%} of the time until the end; "
        f"{said(problem, 'makespan', on_path)} of that lie on the critical path."
    ]
    early = sum(one.early for one in used)
    if early:
        text.append(f"Before time 0 machines preheat or are set up for {said(problem, 'makespan', early)}: counted.")
    rows: list[tuple[str, ...]] = [("machine", "work", "set-up", "idle", "preheat", "utilisation")]
    for one in used:
        times = (f"{problem.in_unit(ticks):g}" for ticks in (one.work, one.setup, one.idle, one.preheat))
        rows.append((one.machine, *times, f"{one.utilisation:.1%}"))
    return Section("Machines", text, rows)


def _and(names: Sequence[str]) -> str:
    """At most ten by name."""
    if len(names) > 10:
        return f"{', '.join(names[:10])} and {len(names) - 10} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _late(problem: Problem, late: Sequence[Late]) -> Section:
    if not late:
        return Section("Late orders", ["none"])
    text = [f"{len(late)} late, the latest first." + (f" {MOST_LATE} are told." if len(late) > MOST_LATE else "")]
    for one in late[:MOST_LATE]:
        lot = f" (its lot {one.job})" if one.job != one.order else ""
        text.append(
            f"{one.order}{lot}: {said(problem, 'makespan', one.late)} late, due {said(problem, 'makespan', one.due)}, "
            f"ends {said(problem, 'makespan', one.end)}; {_alone(problem, one)}. {_why(problem, one)}"
        )
    rows = [_HEAD, *(_row(problem, piece) for one in late[:MOST_LATE] for piece in _merged(one.story))]
    return Section("Late orders", text, rows)


def _alone(problem: Problem, one: Late) -> str:
    if one.alone is None:
        return "it is done already"
    left = one.alone - one.due
    if left > 0:
        return f"alone in the shop it would still be {said(problem, 'makespan', left)} late"
    return f"alone in the shop it would be ready at {said(problem, 'makespan', one.alone)}"


def _why(problem: Problem, one: Late) -> str:
    parts = [
        f"{WORDS[kind]}{f' ({machine})' if machine else ''} {said(problem, 'makespan', ticks)}"
        for (kind, machine), ticks in list(one.waited().items())[:4]
    ]
    longest = one.longest
    if longest is not None:
        parts.append(f"longest step {longest.op} on {longest.machine} {_length(problem, longest)}")
    if one.story[0].start:
        parts.insert(0, f"released at {said(problem, 'makespan', one.story[0].start)}")
    return "; ".join(parts) + "."


def _length(problem: Problem, piece: Piece) -> str:
    return said(problem, "makespan", piece.end - piece.start)


def _merged(story: Sequence[Piece]) -> list[Piece]:
    """Waiting for several others on one machine is one row."""
    found = []
    for _, those in groupby(story, key=lambda one: (one.kind, one.machine, one.op)):
        group = list(those)
        first = group[0]
        note = first.note if len(group) == 1 else f"{first.note} and {len(group) - 1} more"
        found.append(Piece(first.kind, first.start, group[-1].end, first.job, first.op, first.machine, note))
    return found


def _limits(problem: Problem, found: Explanation) -> Section:
    rows: list[tuple[str, ...]] = [("limit", "plan", "at most", "left", "")]
    for one in found.limits:
        values = (said(problem, one.measure, value) for value in (one.value, one.limit, one.spare))
        rows.append((one.measure, *values, "exceeded" if one.spare < -1e-6 else "binds" if one.binds else ""))
    return Section("Limits", (), rows)
