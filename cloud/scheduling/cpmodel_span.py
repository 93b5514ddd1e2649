"""Energy where no hour costs more than another: per machine and stretch, `idle = span − load − off`.

`off` are optional intervals long enough to pay, so energy is linear; and with it everything that is a constant price
on a carrier's energy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud.scheduling.cpmodel import Choice, Model, Task, Term, least_off
from cloud.scheduling.shop import FAR
from messages.plan import Measure

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

Draw = tuple[int, float, Any]
"""Carrier, kW · ticks per unit of the variable, variable."""


class Spans:
    """All draws of the planned part, without saying when they are."""

    def __init__(self, model: Model) -> None:
        self.model, self.draws = model, list[Draw]()
        self.offs: dict[int, list[tuple[Any, Any, Any]]] = {}
        self.spans: dict[int, tuple[Any, Any, Any]] = {}
        shop = model.shop
        for m in range(len(model.by_machine)):
            model.look()
            cold: list[tuple[int, Any, Any, Any]] = []
            for stretch in range(shop.stretch_first[m], shop.stretch_first[m + 1]):
                on = model.leads(m, stretch)
                if on:
                    self._span(m, stretch, on)
                    cold.append((stretch, *self.spans[stretch]))
            if cold and (shop.power[m, 3] or shop.power[m, 5]):
                self._between(m, cold)
        for _, ticks, _, literal in model.moves:
            self._draw(shop.transport_carrier, shop.transport_kw * ticks, literal)

    def terms(self, measure: Measure) -> list[Term]:
        """The measure as a sum over variables; what the past comes to is in `Model.fixed`."""
        problem, hours = self.model.problem, self.model.problem.tick_s / 3600
        prices = {"energy": None, "cost": problem.tariff}.get(measure, problem.carbon)
        price = [
            1.0 if prices is None else prices[k].values[0] if k in prices else 0.0 for k in self.model.names.carriers
        ]
        return [(kw_ticks * price[k] * hours, variable) for k, kw_ticks, variable in self.draws]

    def is_off(self, task: Task, choice: Choice, solver: cp_model.CpSolver | cp_model.CpSolverSolutionCallback) -> bool:
        """Not asked: energy alone decides."""
        return False

    def _draw(self, carrier: int, kw_ticks: float, variable: Any) -> None:
        if kw_ticks:
            self.draws.append((int(carrier), kw_ticks, variable))

    def _span(self, m: int, stretch: int, on: list[tuple[Task, Choice]]) -> None:
        """Preheating, idling and being off from the machine's first to its last work in this stretch."""
        model, cp, shop = self.model, self.model.cp, self.model.shop
        step, carrier = model.grain, int(shop.carrier[m])
        _, idle, preheat, off, setup, _ = shop.power[m].tolist()
        warm, ticks = int(shop.stretch_warm[stretch]), int(shop.preheat[m])
        used, last = cp.new_bool_var(""), cp.new_int_var(0, model.horizon, "")
        early = max((way.setup for _, way in on), default=0)
        if warm < 0:
            first = cp.new_int_var(-early, model.horizon, "")
        else:
            begin = min(model.steps(warm), model.horizon)  # warm at 0 is warm before 0, for a set-up there
            first = cp.new_int_var(begin - early if model.problem.now is None else begin, begin, "")
        cp.add(last >= first)
        for task, way in on:
            cp.add_implication(way.chosen, used)
            cp.add(first <= task.start - way.setup).only_enforce_if(way.chosen)
            cp.add(last >= task.start + way.size).only_enforce_if(way.chosen)
            self._draw(carrier, way.kw * way.size * step, way.chosen)
            self._draw(carrier, setup * way.setup * step, way.chosen)
        cp.add_bool_or([way.chosen for _, way in on]).only_enforce_if(used)
        cp.add(last == first).only_enforce_if(~used)
        if shop.stretch_end[stretch] >= FAR and not early:  # what LP sees of a machine that is used at all
            room = model.horizon - min(task.head for task, _ in on) - min(task.tail for task, _ in on)
            cp.add(sum(way.size * way.chosen for _, way in on) <= max(0, room) * used)
        self.spans[stretch] = (first, last, used)
        if warm < 0:
            self._draw(carrier, preheat * ticks, used)
        slots = self._off_slots(m, stretch, first, last, on)
        gaps = last - first - sum((way.size + way.setup) * way.chosen for _, way in on)
        gaps -= sum(size for _, size, _ in slots)
        cp.add(gaps >= 0)
        self._draw(carrier, idle * step, gaps)
        for _, size, present in slots:
            self._draw(carrier, (preheat - off) * ticks, present)
            self._draw(carrier, off * step, size)

    def _off_slots(
        self, m: int, stretch: int, first: Any, last: Any, on: list[tuple[Task, Choice]]
    ) -> list[tuple[Any, Any, Any]]:
        """Optional intervals in which the machine is off, as many as could ever pay."""
        model, cp = self.model, self.model.cp
        least = least_off(model.shop, m, model.grain)
        if least is None:
            return []
        shortest = min(way.size for _, way in on)
        early = max(way.setup for _, way in on)
        warm = model.shop.stretch_warm[stretch] >= 0
        room = model.horizon + early if warm else model.horizon + early - shortest
        tasks = len({task.o for task, _ in on})
        count = min(tasks - (not warm), room // (least + shortest))
        slots: list[tuple[Any, Any, Any]] = []
        intervals = [way.interval for _, way in on]
        for _ in range(count):
            start = cp.new_int_var(0, model.horizon, "")
            size = cp.new_int_var(0, model.horizon, "")
            end = cp.new_int_var(0, model.horizon, "")
            present = cp.new_bool_var("")
            intervals.append(cp.new_optional_interval_var(start, size, end, present, ""))
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
            self.offs[stretch] = slots
        return slots

    def _between(self, m: int, spans: list[tuple[int, Any, Any, Any]]) -> None:
        """Off and down from one stretch's last work, or the past's, to the preheating of the next that is used."""
        model, shop = self.model, self.model.shop
        _, _, _, off, _, down = shop.power[m].tolist()
        carrier, step, ticks = int(shop.carrier[m]), model.grain, int(shop.preheat[m])
        since = int(shop.machine_since[m])
        powered = since >= 0
        for place, (stretch, first, last, used) in enumerate(spans):
            on, warm = model.leads(m, stretch), shop.stretch_warm[stretch] >= 0
            if not warm:
                self._tight([(task.start - way.setup, way.chosen) for task, way in on], first, used)
            self._tight([(task.start + way.size, way.chosen) for task, way in on], last, used)
            before = [one[3] for one in spans[:place]]
            if not warm and (before or powered):
                after = used if powered else self._both(used, self._any(before))
                self._draw(carrier, off * step, self._where(after, first))
                self._draw(carrier, -off * ticks, after)
            later = [one[3] for one in spans[place + 1 :]]
            if later:
                goes_on = self._any(later) if warm else self._both(used, self._any(later))
                self._draw(carrier, -off * step, self._where(goes_on, last))
        if powered and shop.stretch_warm[spans[0][0]] < 0:
            self._draw(carrier, off * (model.origin - since), self._any([one[3] for one in spans]))
        self._broken(m, spans, powered, since, off, down)

    def _broken(
        self, m: int, spans: list[tuple[int, Any, Any, Any]], powered: bool, since: int, off: float, down: float
    ) -> None:
        """A breakdown between work and work draws `down` instead of `off`; the past's part begins at `since`."""
        model, shop = self.model, self.model.shop
        carrier = int(shop.carrier[m])
        for w in range(shop.down_first[m], shop.down_first[m + 1]):
            start, end = int(shop.down_start[w]), int(shop.down_end[w])
            if powered:
                start = max(start, since)
            elif end <= model.origin:
                continue
            before = [one[3] for one in spans if shop.stretch_end[one[0]] < FAR and shop.stretch_end[one[0]] <= start]
            after = [one[3] for one in spans if shop.stretch_start[one[0]] >= end]
            if end > start and after and (powered or before):
                there = self._any(after) if powered else self._both(self._any(before), self._any(after))
                self._draw(carrier, (down - off) * (end - start), there)

    def _where(self, literal: Any, value: Any) -> Any:
        """The value where the literal holds, else 0."""
        cp = self.model.cp
        one = cp.new_int_var(0, self.model.horizon, "")
        cp.add(one == value).only_enforce_if(literal)
        cp.add(one == 0).only_enforce_if(~literal)
        return one

    def _tight(self, ends: list[tuple[Any, Any]], extreme: Any, used: Any) -> None:
        """Some chosen one of these reaches the extreme."""
        cp, reached = self.model.cp, []
        for value, chosen in ends:
            here = cp.new_bool_var("")
            cp.add_implication(here, chosen)
            cp.add(extreme == value).only_enforce_if(here)
            reached.append(here)
        cp.add_bool_or([*reached, ~used])

    def _any(self, literals: list[Any]) -> Any:
        if len(literals) == 1:
            return literals[0]
        one = self.model.cp.new_bool_var("")
        self.model.cp.add_max_equality(one, literals)
        return one

    def _both(self, a: Any, b: Any) -> Any:
        cp, one = self.model.cp, self.model.cp.new_bool_var("")
        cp.add_bool_or(~a, ~b, one)
        cp.add_implication(one, a)
        cp.add_implication(one, b)
        return one
