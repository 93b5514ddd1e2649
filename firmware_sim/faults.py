"""Sensors that lie, at rates that can be dialled, and what they did to which cell.

    liar = Liar(device, faults, rng)
    sent = liar.distort(at, healthy)         # healthy: metric → values a sound sensor would give
    sent.columns, sent.units, sent.at        # what goes out
    sent.labels["power_kw"]["spike"]         # indices of cells that are a spike, for scoring

A label marks only cells that a sound sensor would have sent differently, each with one cause (a wrong unit
comes on top and concerns a whole column). Codes and counters get only the
faults that make sense for them. All random choices come from `rng`, in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from firmware_sim.settings import Faults
from firmware_sim.signals import Floats, Ints
from messages.plant import Device, MetricSpec

SECOND = 1_000_000
CELL_KINDS = ("missing", "spike", "out_of_range", "stuck", "drift")
DECIMALS = 4

OTHER_UNITS: dict[str, tuple[str, float, float]] = {
    "kW": ("W", 1000.0, 0.0),
    "kWh": ("Wh", 1000.0, 0.0),
    "degC": ("degF", 1.8, 32.0),
    "m3/h": ("l/min", 1000 / 60, 0.0),
    "m3": ("l", 1000.0, 0.0),
}
"""unit → (the other unit, factor, offset): sent = value · factor + offset."""


@dataclass
class Sent:
    """One burst's samples as they go out. `picked[i]` is the sample that stands at place i."""

    at: Ints
    columns: dict[str, list[float | None]]
    units: dict[str, str]
    picked: Ints
    labels: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    order: dict[str, list[int]] = field(default_factory=dict)
    send_twice: bool = False
    send_after_next: bool = False


@dataclass(slots=True)
class _Spell:
    """A stuck value or a drift in progress on one metric."""

    begins: int
    ends: int
    amount: float


class Liar:
    """The faults of one device's sensors."""

    def __init__(self, device: Device, faults: Faults, rng: np.random.Generator) -> None:
        self.device, self.faults, self.rng = device, faults, rng
        at_fault = not faults.devices or device.device in faults.devices
        self._rates = {kind: float(getattr(faults, kind)) if at_fault else 0.0 for kind in CELL_KINDS}
        self._cells = any(self._rates.values())
        self._share = 1.0 if at_fault else 0.0
        self._spells: dict[tuple[str, str], _Spell] = {}

    def distort(self, at: Ints, healthy: dict[str, Floats]) -> Sent:
        """Values as sent, in the order sent."""
        n = len(at)
        sent = Sent(at, {}, {}, np.arange(n))
        values = {metric: column.copy() for metric, column in healthy.items()}
        if self._cells and n:
            for metric, column in values.items():
                self._distort_cells(metric, at, healthy[metric], column, sent)
        for metric, column in values.items():
            sent.units[metric] = self.device.metrics[metric].unit
            if n and self._chance(self.faults.wrong_unit):
                self._convert(metric, column, sent)
        self._disorder(sent)
        for metric, column in values.items():
            rounded = np.round(column[sent.picked], DECIMALS)
            cells: list[float | None] = rounded.tolist()
            if np.isnan(rounded).any():
                cells = [None if value != value else value for value in cells]
            sent.columns[metric] = cells
        return sent

    # --- private ----------------------------------------------------------------------------------

    def _chance(self, rate: float) -> bool:
        return rate > 0 and bool(self.rng.random() < rate * self._share)

    def _distort_cells(self, metric: str, at: Ints, healthy: Floats, column: Floats, sent: Sent) -> None:
        spec = self.device.metrics[metric]
        draw = self.rng.random(len(at))
        floor = 0.0
        hits: dict[str, Ints] = {}
        for kind in CELL_KINDS:
            rate = self._rates[kind]
            if _applies(kind, spec):
                hits[kind] = np.nonzero((draw >= floor) & (draw < floor + rate))[0]
            floor += rate
        marks: dict[str, Ints] = {}
        for kind in ("drift", "stuck"):
            if kind in hits:
                marks[kind] = self._spell(kind, metric, at, column, hits[kind])
        if "stuck" in marks and "drift" in marks:
            marks["drift"] = np.setdiff1d(marks["drift"], marks["stuck"])
        for kind in ("spike", "out_of_range", "missing"):
            if kind in hits and len(hits[kind]):
                self._lone(kind, spec, column, hits[kind])
                marks = {other: np.setdiff1d(where, hits[kind]) for other, where in marks.items()}
                marks[kind] = hits[kind]
        for kind, where in marks.items():
            changed = where[np.round(column[where], DECIMALS) != np.round(healthy[where], DECIMALS)]
            if len(changed):
                sent.labels.setdefault(metric, {})[kind] = changed.tolist()

    def _spell(self, kind: str, metric: str, at: Ints, column: Floats, begins: Ints) -> Ints:
        """Apply the spell that is on, or begins here; the indices it covers."""
        spec, key = self.device.metrics[metric], (kind, metric)
        spell = self._spells.get(key)
        if spell is None and len(begins):
            index = int(begins[0])
            lasts_s = self.faults.stuck_s if kind == "stuck" else self.faults.drift_s
            if kind == "stuck" and self.faults.stuck_to_s is not None:
                lasts_s = self.rng.uniform(lasts_s, self.faults.stuck_to_s)
            amount = float(column[index])
            if kind == "drift":
                amount = self.faults.drift_share * (spec.high - spec.low) * self.rng.choice((-1.0, 1.0))
            spell = self._spells[key] = _Spell(int(at[index]), int(at[index] + lasts_s * SECOND), amount)
        if spell is None:
            return np.empty(0, np.int64)
        where = np.nonzero((at >= spell.begins) & (at < spell.ends))[0]
        if kind == "stuck":
            column[where] = spell.amount
        else:
            strayed = column[where] + spell.amount * (at[where] - spell.begins) / (spell.ends - spell.begins)
            column[where] = np.clip(strayed, spec.low, spec.high)
        if len(at) and at[-1] >= spell.ends:
            del self._spells[key]
        return where

    def _lone(self, kind: str, spec: MetricSpec, column: Floats, where: Ints) -> None:
        if kind == "missing":
            column[where] = np.nan
            return
        size, sign = self._shares(kind, spec, len(where)), self.rng.choice((-1.0, 1.0), len(where))
        if kind == "spike":
            # A counter's range says nothing about its size. Elsewhere half a range fits above or below any value.
            scale = 100 + column[where] if spec.counter else spec.high - spec.low
            up = column[where] + size * scale
            down = column[where] - size * scale
            column[where] = np.where((sign > 0) & (up <= spec.high) | (down < spec.low), up, down)
        elif spec.code:
            column[where] = spec.high + 1 + np.floor(size * 10)
        elif spec.counter:
            column[where] = spec.low - size * 100
        else:
            scale = spec.high - spec.low
            column[where] = np.where(sign > 0, spec.high + size * scale, spec.low - size * scale)

    def _shares(self, kind: str, spec: MetricSpec, count: int) -> Floats:
        """Sizes of lone faults, as shares of the measuring range (or what stands for it)."""
        limits, width = self.faults.beyond_share, 1.0
        if kind == "spike":
            limits, width = self.faults.spike_sigmas, (spec.high - spec.low) / (spec.noise or 1.0)
            limits = limits if spec.noise > 0 else None
        if limits is None or spec.code or spec.counter:
            return self.rng.uniform(0.25, 0.5, count)
        low, high = (float(np.log(limit)) for limit in limits)
        return np.exp(self.rng.uniform(low, high, count)) / width

    def _convert(self, metric: str, column: Floats, sent: Sent) -> None:
        other = OTHER_UNITS.get(self.device.metrics[metric].unit)
        if other is None:
            return
        unit, factor, offset = other
        column *= factor
        column += offset
        sent.units[metric] = unit
        sent.labels.setdefault(metric, {})["wrong_unit"] = list(range(len(column)))

    def _disorder(self, sent: Sent) -> None:
        """Repeat one sample, swap two neighbours; move the labels along."""
        n = len(sent.at)
        order = sent.picked
        if n and self._chance(self.faults.duplicate):
            index = int(self.rng.integers(n))
            order = np.insert(order, index + 1, index)
            sent.order["duplicate"] = [index + 1]
        if len(order) > 1 and self._chance(self.faults.out_of_order):
            index = int(self.rng.integers(len(order) - 1))
            order = order.copy()
            order[[index, index + 1]] = order[[index + 1, index]]
            if order[index] != order[index + 1]:
                sent.order["out_of_order"] = [index + 1]
                sent.order = {
                    kind: _swapped(where, index) if kind == "duplicate" else where for kind, where in sent.order.items()
                }
        sent.send_twice = bool(n) and self._chance(self.faults.duplicate_burst)
        sent.send_after_next = bool(n) and self._chance(self.faults.out_of_order_burst)
        if order is sent.picked:
            return
        sent.picked, sent.at = order, sent.at[order]
        sent.labels = {
            metric: {kind: np.nonzero(np.isin(order, where))[0].tolist() for kind, where in kinds.items()}
            for metric, kinds in sent.labels.items()
        }


def _applies(kind: str, spec: MetricSpec) -> bool:
    if spec.code:
        return kind in ("missing", "out_of_range")
    return kind != "drift" if spec.counter else True


def _swapped(where: list[int], index: int) -> list[int]:
    return [{index: index + 1, index + 1: index}.get(place, place) for place in where]
