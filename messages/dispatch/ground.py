"""What of a plant does not change while work is awarded: its machines, ways and routes in ticks.

    ground = Ground(plant, t0, signals)
    ground.steps("b07")        # what a part of this product needs, in order
    ground.tick(now)

Where a plant has no layout, bringing a part to a machine takes `transport_s` from anywhere, without a vehicle; at first
it lies `OUTSIDE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from messages.carbon import GAS_KG_PER_KWH, curve_of
from messages.contracts import Signal
from messages.curve import Curve
from messages.dispatch.shop import Station, Step
from messages.plant import Plant

OUTSIDE = "(outside)"
"""No machine can have this name."""


@dataclass
class Ground:
    """One plant; tick 0 is at `t0`, µs."""

    plant: Plant
    t0: int
    signals: Mapping[str, Signal] = field(default_factory=dict)
    _steps: dict[str, tuple[Step, ...]] = field(default_factory=dict)

    @cached_property
    def tick_us(self) -> int:
        """µs of a tick."""
        return self.plant.tick_us

    def tick(self, at: int) -> int:
        """The tick that has begun by then."""
        return (at - self.t0) // self.tick_us

    def after(self, at: int) -> int:
        """The first tick that begins no earlier."""
        return -((self.t0 - at) // self.tick_us)

    def at(self, tick: int) -> int:
        """When a tick begins, µs."""
        return self.t0 + tick * self.tick_us

    def ticks(self, seconds: float) -> int:
        """So many ticks that they suffice."""
        return -(-round(seconds * 1e6) // self.tick_us)

    def steps(self, product: str) -> tuple[Step, ...]:
        """Its route, in nominal times."""
        if product not in self._steps:
            own = self.plant.routes.get(product)
            self._steps[product] = tuple(
                Step(
                    {name: max(1, self.ticks(hours * 3600)) for name, hours in able.items()},
                    {name: (own[n].kw if own else {}).get(name, self.plant.machines[name][1].work_kw) for name in able},
                    self.ticks(own[n].wait_s) if own else 0,
                )
                for n, (_, able) in enumerate(self.plant.route(product))
            )
        return self._steps[product]

    @cached_property
    def stations(self) -> dict[str, Station]:
        """Every machine, as if none ever broke."""
        return {
            name: Station(
                buffer_in=one.buffer.in_,
                buffer_out=one.buffer.out,
                preheat=self.ticks(one.preheat_h * 3600),
                idle_kw=one.idle_kw,
                preheat_kw=one.preheat_kw,
                off_kw=one.off_kw,
                carrier=workshop.carrier,
            )
            for name, (workshop, one) in self.plant.machines.items()
        }

    @cached_property
    def ways(self) -> dict[str, dict[str, int]]:
        """From place to place, without loading and unloading."""
        layout = self.plant.layout
        if layout is None:
            row = dict.fromkeys(self.plant.machines, self.ticks(self.plant.transport_s))
            return dict.fromkeys((*self.plant.machines, OUTSIDE), row) if self.plant.transport_s else {}
        return {before: {after: self.ticks(way) for after, way in row.items()} for before, row in layout.ways_s.items()}

    def begins_at(self, product: str) -> str:
        """Where its parts lie at first."""
        layout = self.plant.layout
        return OUTSIDE if layout is None else layout.at.get(product, "")

    @cached_property
    def carbon(self) -> dict[str, Curve]:
        """Carrier → kg CO2e per kWh, where there is a forecast; gas emits the same at any hour."""
        curve = curve_of(self.signals.get("carbon"), self.t0, self.plant.tick_us)
        return {} if curve is None else {"electricity": curve, "gas": Curve(step=1, values=(GAS_KG_PER_KWH,))}
