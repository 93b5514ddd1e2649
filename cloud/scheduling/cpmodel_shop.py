"""The exact model's set-ups, batches and crews.

Set-ups: on a machine that has them, the operations that lead form a circuit; an arc says which family was before, and
so how long the set-up is. Batches: of the operations that start together the first in the file leads, the others join
it; the leader's choice says how long the batch takes and at which power. Crews: a cumulative resource each.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud.scheduling.shop import FAR

if TYPE_CHECKING:
    from cloud.scheduling.cpmodel import Choice, Model, Task


@dataclass(frozen=True)
class Options:
    """What the operations of a problem can meet on their machines."""

    families: list[set[int]]  # (M,) that a machine may have done last
    mates: dict[tuple[int, int], list[tuple[int, int, float]]]  # (machine, family) → operation, ticks, kW


@dataclass
class ShopLines:
    """Variables of arcs and of who joins whose batch."""

    arcs: dict[int, dict[tuple[int, int], Any]] = field(default_factory=dict)  # machine → (before, after), -1: nobody
    joins: dict[tuple[int, int, int], Any] = field(default_factory=dict)  # (machine, leader, member)


def prepared(model: Model) -> Options:
    """What `lead_options` looks up."""
    shop = model.shop
    families: list[set[int]] = [{int(one)} for one in shop.machine_family]
    mates: dict[tuple[int, int], list[tuple[int, int, float]]] = defaultdict(list)
    for o in range(len(shop.op_job)):
        f = int(shop.family[o])
        for a in range(shop.alt_first[o], shop.alt_first[o + 1]):
            m, ticks = int(shop.alt_machine[a]), int(shop.alt_ticks[a])
            if ticks and (model.keep is None or model.keep.machine[o] in (-1, m)):
                families[m].add(f)
                if shop.batch[m] > 1:
                    mates[m, f].append((o, ticks, float(shop.alt_kw[a])))
    return Options(families, mates)


def lead_options(model: Model, o: int, a: int, low: int, high: int) -> list[Choice]:
    """All ways to do operation `o` by its alternative `a`, starting from step `low` to `high`."""
    from cloud.scheduling.cpmodel import Choice

    shop = model.shop
    m, own, kw = int(shop.alt_machine[a]), int(shop.alt_ticks[a]), float(shop.alt_kw[a])
    if not own:
        return [Choice(m, -1, 0, 0, 0.0, False, None)]
    f = int(shop.family[o])
    setups = {0}
    if shop.setup_table[m] >= 0:
        table = shop.setup[shop.setup_table[m]]
        setups = {int(table[before, f]) for before in model.options.families[m]}
    lead = {(own, kw)}
    joined: set[int] = set()
    if shop.batch[m] > 1:
        others = [one for one in model.options.mates[m, f] if _fit(model, m, o, one[0])]
        lengths = {own, *(ticks for one, ticks, _ in others if one > o and ticks > own)}
        powers = {kw, *(other for one, _, other in others if one > o and other > kw)}
        lead = {(ticks, power) for ticks in lengths for power in powers}
        # a batch is as long as its longest, whichever member that is
        joined = {max(own, ticks) for _, ticks, _ in others} if any(one < o for one, *_ in others) else set()
    found = []
    for stretch in range(shop.stretch_first[m], shop.stretch_first[m + 1]):
        ready = model.steps(shop.stretch_ready[stretch])
        end = model.horizon if shop.stretch_end[stretch] >= FAR else model.steps(shop.stretch_end[stretch])
        for ticks, power in sorted(lead):
            if max(low, ready) + ticks // model.grain <= end and ready <= high:
                found += [
                    Choice(m, stretch, ticks // model.grain, setup // model.grain, power, False, None)
                    for setup in sorted(setups)
                ]
        found += [
            Choice(m, stretch, ticks // model.grain, 0, kw, True, None)
            for ticks in sorted(joined)
            if max(low, ready) + ticks // model.grain <= end and ready <= high
        ]
    return found


def _fit(model: Model, m: int, o: int, other: int) -> bool:
    shop = model.shop
    return bool(shop.op_job[o] != shop.op_job[other] and shop.size[o] + shop.size[other] <= shop.batch[m])


def add_shop(model: Model) -> ShopLines:
    """Batches, set-ups and crews of all operations."""
    lines, pairs = ShopLines(), 0
    for m in range(len(model.by_machine)):
        model.look()
        leads: dict[int, tuple[Task, list[Choice]]] = {}
        for task, way in model.leads(m):
            leads.setdefault(task.o, (task, []))[1].append(way)
        if model.shop.batch[m] > 1:
            pairs += _batches(model, m, leads, lines)
        if model.shop.setup_table[m] >= 0:
            pairs += _circuit(model, m, leads, lines)
    _too_many(pairs)
    _crews(model, lines)
    return lines


def _too_many(pairs: int) -> None:
    from cloud.scheduling.cpmodel import PAIRS, TooLarge

    if pairs > PAIRS:
        raise TooLarge(
            f"more than {PAIRS} pairs of operations on machines with set-ups or batches are too many for an exact "
            "model; use the portfolio, or a part of the orders"
        )


def _batches(model: Model, m: int, leads: dict[int, tuple[Task, list[Choice]]], lines: ShopLines) -> int:
    cp, shop, count = model.cp, model.shop, 0
    joining: dict[int, tuple[Task, list[Choice]]] = {}
    for task, way in model.by_machine[m]:
        if way.joins:
            joining.setdefault(task.o, (task, []))[1].append(way)
    joined_by: dict[int, list[Any]] = defaultdict(list)
    own = {o: (ticks, kw) for (where, _), mates in model.options.mates.items() if where == m for o, ticks, kw in mates}
    for o, (task, ways) in leads.items():
        model.look()
        members: dict[int, Any] = {}
        for other, (member, _) in joining.items():
            if other <= o or shop.family[o] != shop.family[other] or not _fit(model, m, o, other):
                continue
            count += 1
            _too_many(count)
            join = members[other] = cp.new_bool_var("")
            lines.joins[m, o, other] = join
            joined_by[other].append(join)
            cp.add(member.start == task.start).only_enforce_if(join)
            cp.add(member.end == task.end).only_enforce_if(join)
            cp.add_bool_or([~join, *(way.chosen for way in ways if way.kw >= own[other][1])])
        for way in ways:
            longer, stronger = way.size > own[o][0] // model.grain, way.kw > own[o][1]
            if longer:
                same = [join for other, join in members.items() if own[other][0] // model.grain == way.size]
                cp.add_bool_or([~way.chosen, *same])
            if stronger:
                same = [join for other, join in members.items() if own[other][1] == way.kw]
                cp.add_bool_or([~way.chosen, *same])
        if members:
            places = sum(int(shop.size[other]) * join for other, join in members.items())
            cp.add(places + int(shop.size[o]) <= int(shop.batch[m]))
    for other, (_, ways) in joining.items():
        cp.add(sum(joined_by[other]) == sum(way.chosen for way in ways))
    return count


def _circuit(model: Model, m: int, leads: dict[int, tuple[Task, list[Choice]]], lines: ShopLines) -> int:
    cp, shop = model.cp, model.shop
    if not leads:
        return 0
    _too_many(len(leads) ** 2)
    table = shop.setup[shop.setup_table[m]] // model.grain
    order = list(leads)
    arcs: list[tuple[int, int, Any]] = []
    by_setup: dict[tuple[int, int], list[Any]] = defaultdict(list)
    found = lines.arcs.setdefault(m, {})
    empty = cp.new_bool_var("")
    arcs.append((0, 0, empty))
    for j, o in enumerate(order):
        model.look()
        task, ways = leads[o]
        here = cp.new_bool_var("") if len(ways) > 1 else ways[0].chosen
        if len(ways) > 1:
            cp.add(sum(way.chosen for way in ways) == here)
        arcs.append((j + 1, j + 1, ~here))
        cp.add_implication(here, ~empty)
        first, last = cp.new_bool_var(""), cp.new_bool_var("")
        arcs += [(0, j + 1, first), (j + 1, 0, last)]
        found[-1, o] = first
        found[o, -1] = last
        by_setup[o, int(table[shop.machine_family[m], shop.family[o]])].append(first)
        for i, before in enumerate(order):
            if i == j or (shop.op_job[before] == shop.op_job[o] and before > o):
                continue
            arc = found[before, o] = cp.new_bool_var("")
            setup = int(table[shop.family[before], shop.family[o]])
            arcs.append((i + 1, j + 1, arc))
            by_setup[o, setup].append(arc)
            cp.add(task.start >= leads[before][0].end + setup).only_enforce_if(arc)
        for setup in {way.setup for way in ways} | {setup for one, setup in by_setup if one == o}:
            cp.add(sum(by_setup[o, setup]) == sum(way.chosen for way in ways if way.setup == setup))
    cp.add_circuit(arcs)
    return len(order) ** 2


def _crews(model: Model, lines: ShopLines) -> None:
    shop = model.shop
    for c, people in enumerate(shop.crew_count.tolist()):
        need_of = shop.crew_need[:, c].tolist()
        at: dict[tuple[int, int], Any] = {}  # (machine, leader) → people, where others who need more may join
        for (m, leader, member), join in lines.joins.items():
            if need_of[member] > need_of[leader]:
                need = at.setdefault((m, leader), model.cp.new_int_var(need_of[leader], people, ""))
                model.cp.add(need >= need_of[member]).only_enforce_if(join)
        intervals, needs = [], []
        for m in range(len(model.by_machine)):
            for task, way in model.leads(m):
                need = at.get((m, task.o), need_of[task.o])
                if not isinstance(need, int) or need:
                    intervals.append(way.interval)
                    needs.append(need)
        if not intervals:
            continue
        for start, end, need in _crew_before(model, c, people):
            intervals.append(model.cp.new_fixed_size_interval_var(start, end - start, ""))
            needs.append(need)
        model.cp.add_cumulative(intervals, needs, people)


def _crew_before(model: Model, c: int, people: int) -> list[tuple[int, int, int]]:
    """(start, end, people) in steps of what history still needs; never more than there are."""
    rows = [row for row in model.shop.crew_past.tolist() if row[0] == c and row[3] > model.origin]
    edges = sorted({model.origin, *(row[3] for row in rows)})
    found = []
    for start, end in pairwise(edges):
        need = min(people, sum(row[1] for row in rows if row[3] > start and row[2] < end))
        if need:
            found.append((int(np.floor_divide(start - model.origin, model.grain)), model.steps(end), need))
    return found
