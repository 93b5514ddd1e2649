"""A plan as a hint for the exact model: every variable that follows from it at once.

What a draft says is told choice by choice; a start off the model's grid, or before it, is passed over.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from cloud.scheduling.cpmodel import Choice, Model, Task, least_off
from cloud.scheduling.cpmodel_grid import Grid
from cloud.scheduling.cpmodel_span import Spans
from cloud.scheduling.shop import FAR, Draft


def hint(model: Model, draft: Draft) -> None:
    """Begin the search at `draft`."""
    model.cp.clear_hints()  # type: ignore[no-untyped-call]
    told = _choices(model, draft)
    latest = 0
    for task in model.tasks:
        found = told.get(task.o)
        if found is None:
            continue
        way, start = found
        model.cp.add_hint(task.start, start)
        latest = max(latest, start + way.size)
        for one in task.choices:
            if len(task.choices) > 1:
                model.cp.add_hint(one.chosen, one is way)
        if len({one.size for one in task.choices}) > 1:
            model.cp.add_hint(task.end, start + way.size)
    model.cp.add_hint(model.makespan, min(latest, model.horizon))
    _shop_lines(model, told)
    if isinstance(model.energy, Spans):
        _spans(model, model.energy, told)
    elif isinstance(model.energy, Grid):
        _grid(model, model.energy, told, draft)


Told = dict[int, tuple[Choice, int]]


def _choices(model: Model, draft: Draft) -> Told:
    """Operation → the choice that the draft means, and its start in steps."""
    shop, told = model.shop, Told()
    lines: dict[int, list[tuple[int, Task]]] = defaultdict(list)
    for task in model.tasks:
        start, rest = divmod(int(draft.start[task.o]) - model.origin, model.grain)
        if rest or start < 0:
            continue
        m = int(draft.machine[task.o])
        free = next((way for way in task.choices if way.machine == m and not way.size), None)
        if free is not None:
            told[task.o] = (free, start)
        else:
            lines[m].append((start, task))
    for m, line in lines.items():
        line.sort(key=lambda one: (one[0], one[1].o))
        before = int(shop.machine_family[m])
        place = 0
        while place < len(line):
            start = line[place][0]
            together = [task for at, task in line[place:] if at == start] if shop.batch[m] > 1 else [line[place][1]]
            place += len(together)
            family = int(shop.family[together[0].o])
            setup = int(shop.setup[shop.setup_table[m], before, family]) if shop.setup_table[m] >= 0 else 0
            before = family
            _batch(model, m, start, setup // model.grain, together, told)
    return told


def _batch(model: Model, m: int, start: int, setup: int, together: list[Task], told: Told) -> None:
    at = model.origin + start * model.grain
    own = [min((way.size for way in task.choices if way.machine == m), default=0) for task in together]
    kws = [min((way.kw for way in task.choices if way.machine == m), default=0.0) for task in together]
    for place, task in enumerate(together):
        for way in task.choices:
            if way.machine != m or way.size != max(own) or way.joins != (place > 0):
                continue
            if not way.joins and (way.setup != setup or way.kw != max(kws)):
                continue
            end = model.shop.stretch_end[way.stretch]
            if model.shop.stretch_start[way.stretch] <= at and (end >= FAR or at < end):
                told[task.o] = (way, start)
                break


def _shop_lines(model: Model, told: Told) -> None:
    lines = model.shop_lines
    for (m, leader, member), literal in lines.joins.items():
        a, b = told.get(leader), told.get(member)
        if a and b:
            both = a[0].machine == m and b[0].machine == m and b[0].joins and not a[0].joins
            model.cp.add_hint(literal, both and a[1] == b[1])
    for m, arcs in lines.arcs.items():
        line = [-1, *_order(told, m), -1]
        real = set(pairwise(line))
        for pair, literal in arcs.items():
            model.cp.add_hint(literal, pair in real)


def _order(told: Told, m: int) -> list[int]:
    here = [(start, o) for o, (way, start) in told.items() if way.machine == m and way.size and not way.joins]
    return [o for _, o in sorted(here)]


def _spans(model: Model, spans: Spans, told: Told) -> None:
    for m in range(len(model.by_machine)):
        for stretch in range(model.shop.stretch_first[m], model.shop.stretch_first[m + 1]):
            if stretch not in spans.spans:
                continue
            work = [
                (told[o][1] - told[o][0].setup, told[o][1] + told[o][0].size)
                for o in _order(told, m)
                if told[o][0].stretch == stretch
            ]
            first, last, used = spans.spans[stretch]
            model.cp.add_hint(used, bool(work))
            if not work:
                continue
            warm = int(model.shop.stretch_warm[stretch])
            begin = work[0][0] if warm < 0 else min(model.steps(warm), work[0][0])
            model.cp.add_hint(first, begin)
            model.cp.add_hint(last, work[-1][1])
            least = least_off(model.shop, m, model.grain)
            if stretch in spans.offs and least is not None:
                edges = [begin, *(tick for span in work for tick in span)]
                gaps = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if b - a >= least]
                for slot, (start, size, present) in enumerate(spans.offs[stretch]):
                    taken = slot < len(gaps)
                    model.cp.add_hint(present, taken)
                    model.cp.add_hint(size, gaps[slot][1] - gaps[slot][0] if taken else 0)
                    if taken:
                        model.cp.add_hint(start, gaps[slot][0])


def _grid(model: Model, grid: Grid, told: Told, draft: Draft) -> None:
    for task in model.tasks:
        found = told.get(task.o)
        for place, way in enumerate(task.choices):
            literals = grid.starts[task.o, place]
            if found is not None and len(literals) > 1:
                for t, literal in literals.items():
                    model.cp.add_hint(literal, way is found[0] and t == found[1])
    for m, line in enumerate(grid.lines):
        heated, idle = set[int](), set[int]()
        heat = int(model.shop.preheat[m]) // model.grain
        since: int | None = None
        first = int(model.shop.stretch_first[m])
        if model.shop.stretch_warm[first] >= 0:
            since = model.steps(model.shop.stretch_warm[first])
        stretch: int | None = first if since is not None else None
        for o in _order(told, m):
            way, start = told[o]
            begin = start - way.setup
            if since is None or way.stretch != stretch or (draft.off[o] and begin - since >= heat):
                heated.add(begin - heat)
            else:
                idle.update(range(since, begin))
            since, stretch = start + way.size, way.stretch
        for t, literal in line.preheats.items():
            model.cp.add_hint(literal, t in heated)
        for t, literal in line.idles.items():
            model.cp.add_hint(literal, t in idle)
