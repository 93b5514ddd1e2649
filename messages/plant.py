"""One file describes a plant: workshops, machines, cells, meters, products. Firmware, nodes and planner all read it.

    plant = load_plant(Path("firmware_sim/plants/ceramic.toml"))
    plant.devices("firing")          # what the node `firing` hears, with the limits of every metric
    plant.route("b07")               # [("forming", {"forming-1": 3.0, …}), …] hours per able machine

The file is TOML or JSON and is read strictly: a misspelt key is an error that names the cure.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from messages import cells
from messages.circular import Circular
from messages.contracts import External, Id, Metric
from messages.errors import ConfigError, UsageError
from messages.route import check_node

MAX_FILE_BYTES = 8 * 1024 * 1024


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MetricSpec(_Strict):
    """What a metric may look like: the edge cleans by it, simulated sensors live by it."""

    unit: str
    low: float
    high: float
    max_rate_per_s: float | None = Field(None, gt=0, description="fastest plausible change; absent: may jump")
    noise: float = Field(0.0, ge=0, description="standard deviation of the sensor")
    stuck_after_s: float | None = Field(None, gt=0, description="a live sensor never repeats a value for this long")
    counter: bool = Field(False, description="only grows within one boot, e.g. kWh")
    code: bool = Field(False, description="an integer code such as `state`: never averaged or smoothed")
    sum_of: tuple[tuple[Id, Metric], ...] = Field((), description="(device, metric) pairs this meter contains")
    rest_low: float = Field(0.0, description="least load of this meter beyond `sum_of`")
    rest_high: float = Field(0.0, description="greatest load of this meter beyond `sum_of`")


class Device(_Strict):
    """One device of a node and the metrics it measures."""

    device: Id
    node: Id
    kind: Literal["machine", "meter", "cell"]
    workshop: Id
    metrics: dict[Metric, MetricSpec]


class Buffer(_Strict):
    """Places before and behind a machine, beside the one in it; absent: any number."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    in_: int | None = Field(None, ge=1, le=1000, alias="in", description="for parts that wait for it")
    out: int | None = Field(None, ge=0, le=1000, description="for finished parts; one more may stay in the machine")


class Machine(_Strict):
    """One machine; its powers, its heat and how long it takes for each product."""

    id: Id
    node: Id | None = Field(None, description="the node that runs it, where not its workshop's")
    work_kw: float = Field(ge=0)
    idle_kw: float = Field(ge=0)
    preheat_kw: float = Field(ge=0)
    preheat_h: float = Field(ge=0)
    off_kw: float = Field(0.0, ge=0)
    service_h: float | None = Field(None, gt=0, description="working hours between two services; absent: not counted")
    service_cost: float | None = Field(None, ge=0, description="of one service, in the money of the tariff")
    time_h: tuple[float, ...] | dict[External, float] = Field(
        {}, description="hours per product: one per `products` in order, or a table of those it can make"
    )
    buffer: Buffer = Buffer()


class DecidingCell(_Strict):
    """A robot cell that no plan moves: it is told by a model, step by step (`messages.cells`)."""

    id: Id
    node: Id | None = Field(None, description="the node that decides for it, where not its workshop's")
    step_s: float = Field(900.0, gt=0, le=86_400, description="it decides so often, plant time; a multiple of the tick")


class Workshop(_Strict):
    """A place with one node's meters and, where it is a stage of production, machines; or cells that decide."""

    name: Annotated[Id, Field(max_length=26, description="its meter is the device `meter-<name>`")]
    node: Id
    machines: tuple[Machine, ...] = ()
    cells: tuple[DecidingCell, ...] = ()
    carrier: Literal["electricity", "gas"] = "electricity"
    work_degc: float = Field(40.0, description="temperature of its machines at work")
    on_breakdown: Literal["resume", "restart", "scrap"] = "restart"
    base_kw: float = Field(5.0, ge=0, description="electric base load: light, air, pumps")
    water_m3_h: float = Field(0.0, ge=0, description="per working machine, or for the workshop where it has none")


class Stage(_Strict):
    """One step of a product's own route."""

    name: str = Field("", max_length=128)
    time_h: dict[Id, float] = Field(min_length=1, description="able machine → hours")
    kw: dict[Id, float] = Field(default_factory=dict, description="able machine → kW of this work, if not its own")
    wait_s: float = Field(0.0, ge=0, description="least time from the end of the step before")


class Layout(_Strict):
    """Places and the ways between them. Places are machines and `stores`; a way that is not stated takes no time."""

    ways_s: dict[Id, dict[Id, float]] = Field(description="from place → to place → seconds of driving")
    stores: tuple[Id, ...] = Field((), description="places that are no machines")
    at: dict[External, Id] = Field(
        {}, description="product → where its parts lie at first; absent: brought from nowhere"
    )
    vehicles: int | None = Field(None, ge=1, le=1000, description="absent: any number, carrying is a mere delay")
    home: Id | None = Field(None, description="where vehicles begin; needed when there are any")
    loading_s: float = Field(0.0, ge=0)
    unloading_s: float = Field(0.0, ge=0)
    power_kw: float = Field(0.0, ge=0, description="drawn while a part is carried")

    def carried_s(self, before: str | None, after: str) -> float | None:
        """From the begin of loading to the end of unloading; None: handed on directly, no vehicle is needed."""
        way = None if before is None or before == after else self.ways_s.get(before, {}).get(after)
        return None if way is None else self.loading_s + way + self.unloading_s

    def empty_s(self, before: str, after: str) -> float:
        """Driving without a part."""
        return 0.0 if before == after else self.ways_s.get(before, {}).get(after, 0.0)


class Plant(_Strict):
    """A site: its workshops in the order of production, and its products."""

    site: Id
    about: str = ""
    tick_s: float = Field(60, gt=0, le=86_400, description="grid of planned times, s")
    sample_s: float = Field(30.0, ge=0.001, le=86_400, description="interval of samples, s")
    burst_s: float = Field(300.0, gt=0, le=86_400, description="interval of bursts, s; at least sample_s")
    ambient_degc: float = 20.0
    transport_s: float = Field(120.0, ge=0, description="from a call until the part is identified at the machine")
    gas_kwh_per_m3: float = Field(10.0, gt=0)
    products: tuple[External, ...] = ()
    routes: dict[External, tuple[Stage, ...]] = Field(
        {}, description="product → its steps, where they are not those of the workshops in their order"
    )
    layout: Layout | None = Field(
        None, description="where carrying takes different times, or vehicles; else transport_s"
    )
    circular: Circular | None = Field(None, description="what is taken apart, recovered and built from")
    workshops: tuple[Workshop, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sound(self) -> Plant:
        names: set[str] = set()
        for workshop in self.workshops:
            parts: list[Machine | DecidingCell] = [*workshop.machines, *workshop.cells]
            for node in (workshop.node, *(part.node for part in parts if part.node)):
                check_node(node)
            for name in (meter_of(workshop.name), *(part.id for part in parts)):
                if name in names:
                    raise ValueError(f"device {name!r} is there twice; ids are unique in a plant, meters included")
                names.add(name)
            for machine in workshop.machines:
                self._check_times(machine)
                if machine.service_cost is not None and machine.service_h is None:
                    raise ValueError(f"machine {machine.id!r}: service_cost says what a service costs; give service_h")
        if self.sample_s > self.burst_s:
            raise ValueError(
                f"burst_s = {self.burst_s} is shorter than sample_s = {self.sample_s}; a burst has samples"
            )
        workshops = [workshop.name for workshop in self.workshops]
        if len(set(workshops)) != len(workshops):
            raise ValueError("two workshops have one name")
        if len(set(self.products)) != len(self.products):
            raise ValueError("two products have one name")
        if abs(self.tick_s * 1e6 - self.tick_us) > 1e-6:
            raise ValueError(f"tick_s = {self.tick_s} is not a whole number of microseconds")
        for _, cell in self.cells.values():
            self._check_step(cell)
        self._check_routes()
        self._check_layout()
        self._check_circular()
        for product in self.products:
            if not self.route(product):
                raise ValueError(
                    f"product {product!r}: no workshop has machines; give it `machines`, or, for a plant of cells "
                    "alone, no products"
                )
            for stage, able in self.route(product):
                if not able:
                    raise ValueError(f"product {product!r}: no machine of {stage!r} can make it")
        return self

    def _check_step(self, cell: DecidingCell) -> None:
        ticks = cell.step_s / self.tick_s
        if ticks < 1 - 1e-9 or abs(ticks - round(ticks)) > 1e-9:
            nearest = max(1, round(ticks)) * self.tick_s
            raise ValueError(
                f"cell {cell.id!r}: step_s = {cell.step_s:g} is not a whole number of {self.tick_s:g} s ticks; "
                f"give {nearest:g}, or a shorter tick_s"
            )

    def _check_times(self, machine: Machine) -> None:
        if isinstance(machine.time_h, dict):
            for product in machine.time_h:
                if product not in self.products:
                    raise ValueError(f"machine {machine.id!r}: no product {product!r}{near(product, self.products)}")
            times = list(machine.time_h.values())
        else:
            if len(machine.time_h) != len(self.products):
                raise ValueError(
                    f"machine {machine.id!r}: {len(machine.time_h)} times for {len(self.products)} products; "
                    "give one each, or a table {product = hours}"
                )
            times = list(machine.time_h)
        self._check_hours([*times, machine.preheat_h], f"machine {machine.id!r}")

    def _check_hours(self, hours: Iterable[float], where: str) -> None:
        for one in hours:
            ticks = one * 3600 / self.tick_s
            if one < 0 or abs(ticks - round(ticks)) > 1e-6:
                raise ValueError(f"{where}: {one} h is not a whole number of {self.tick_s:g} s ticks")

    def _check_routes(self) -> None:
        for product, steps in self.routes.items():
            if product not in self.products:
                raise ValueError(f"routes: no product {product!r}{near(product, self.products)}")
            if not steps:
                raise ValueError(f"routes.{product}: no step; give one at least")
            for step in steps:
                for name in (*step.time_h, *step.kw):
                    if name not in self.machines:
                        raise ValueError(f"routes.{product}: no machine {name!r}{near(name, self.machines)}")
                self._check_hours(step.time_h.values(), f"routes.{product}")

    def _check_layout(self) -> None:
        if self.layout is None:
            return
        places = {*self.machines, *self.layout.stores}
        named = {name for before, ways in self.layout.ways_s.items() for name in (before, *ways)}
        for name in (*named, *self.layout.at.values(), *((self.layout.home,) if self.layout.home else ())):
            if name not in places:
                raise ValueError(f"layout: no place {name!r}{near(name, places)}; add it to `stores`")
        for product in self.layout.at:
            if product not in self.products:
                raise ValueError(f"layout.at: no product {product!r}{near(product, self.products)}")
        if self.layout.vehicles is not None and self.layout.home is None:
            raise ValueError("layout: vehicles begin somewhere; give `home`")

    def _check_circular(self) -> None:
        if self.circular is not None:
            able = {product: {name for _, able in self.route(product) for name in able} for product in self.products}
            scrapping = {name for name, (workshop, _) in self.machines.items() if workshop.on_breakdown == "scrap"}
            self.circular.check(able, scrapping)

    @cached_property
    def ordered(self) -> tuple[str, ...]:
        """Products that are ordered; those that only bring components the plant begins itself."""
        brings = self.circular.recovers if self.circular else {}
        return tuple(product for product in self.products if product not in brings)

    @property
    def tick_us(self) -> int:
        """The grid of planned times, µs."""
        return round(self.tick_s * 1e6)

    def route(self, product: str) -> list[tuple[str, dict[str, float]]]:
        """Stages of `product` in order, each with the hours of every able machine."""
        if product not in self.products:
            raise UsageError(f"no product {product!r}{near(product, self.products)}")
        if product in self.routes:
            return [(step.name, dict(step.time_h)) for step in self.routes[product]]
        index = self.products.index(product)
        steps = []
        for workshop in self.workshops:
            if not workshop.machines:
                continue
            able: dict[str, float] = {}
            for machine in workshop.machines:
                if isinstance(machine.time_h, dict):
                    if product in machine.time_h:
                        able[machine.id] = machine.time_h[product]
                else:
                    able[machine.id] = machine.time_h[index]
            steps.append((workshop.name, able))
        return steps

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Node names, in order of first appearance."""
        found: dict[str, None] = {}
        for workshop in self.workshops:
            found[workshop.node] = None
            found.update(dict.fromkeys(machine.node for machine in workshop.machines if machine.node))
            found.update(dict.fromkeys(cell.node for cell in workshop.cells if cell.node))
        return tuple(found)

    @cached_property
    def machines(self) -> dict[str, tuple[Workshop, Machine]]:
        """Every machine by id, with its workshop."""
        return {machine.id: (workshop, machine) for workshop in self.workshops for machine in workshop.machines}

    @cached_property
    def cells(self) -> dict[str, tuple[Workshop, DecidingCell]]:
        """Every cell that decides by a model, by id, with its workshop."""
        return {cell.id: (workshop, cell) for workshop in self.workshops for cell in workshop.cells}

    def node_of(self, machine: str) -> str:
        """The node that runs this machine."""
        workshop, spec = self.machines[machine]
        return spec.node or workshop.node

    def devices(self, node: str | None = None) -> tuple[Device, ...]:
        """All devices (of `node`): each machine, each cell, and one meter `meter-<workshop>` per workshop."""
        if node is not None and node not in self.nodes:
            raise UsageError(f"plant {self.site!r} has no node {node!r}{near(node, self.nodes)}")
        return tuple(device for device in self._devices if node in (None, device.node))

    @cached_property
    def _devices(self) -> tuple[Device, ...]:
        found = []
        for workshop in self.workshops:
            for machine in workshop.machines:
                found.append(self._machine_device(workshop, machine))
            for cell in workshop.cells:
                found.append(_cell_device(workshop, cell))
            found.append(self._meter_device(workshop))
        return tuple(found)

    def _machine_device(self, workshop: Workshop, machine: Machine) -> Device:
        top_kw = max(machine.work_kw, machine.idle_kw, machine.preheat_kw, machine.off_kw)
        span = max(workshop.work_degc - self.ambient_degc, 5.0)
        heating_s = max(machine.preheat_h * 3600, 600.0)
        return Device(
            device=machine.id,
            node=machine.node or workshop.node,
            kind="machine",
            workshop=workshop.name,
            metrics={
                "power_kw": MetricSpec(unit="kW", low=0, high=1.5 * top_kw + 1, noise=0.01 * top_kw),
                "temperature_degc": MetricSpec(
                    unit="degC",
                    low=-20,
                    high=workshop.work_degc + 0.3 * span,
                    noise=0.002 * span,
                    max_rate_per_s=8 * span / heating_s,
                    stuck_after_s=1200,
                ),
                "energy_kwh": MetricSpec(unit="kWh", low=0, high=1e9, counter=True),
                "state": MetricSpec(unit="code", low=0, high=5, code=True),
            },
        )

    def _meter_device(self, workshop: Workshop) -> Device:
        apart = any(machine.node not in (None, workshop.node) for machine in workshop.machines)
        parts = () if apart else tuple((machine.id, "power_kw") for machine in workshop.machines)
        top_kw = sum(max(m.work_kw, m.idle_kw, m.preheat_kw) for m in workshop.machines)
        electric = workshop.carrier == "electricity"
        rest_kw = (0.9 * workshop.base_kw, 1.1 * workshop.base_kw + 0.5)
        metrics = {
            "electricity_kw": MetricSpec(
                unit="kW",
                low=0,
                high=1.5 * (workshop.base_kw + (top_kw if electric else 0)) + 1,
                noise=0.005 * (workshop.base_kw + (top_kw if electric else 0)),
                sum_of=parts if electric else (),
                rest_low=rest_kw[0],
                rest_high=rest_kw[1],
            ),
            "electricity_kwh": MetricSpec(unit="kWh", low=0, high=1e9, counter=True),
        }
        if workshop.water_m3_h:
            water = workshop.water_m3_h * max(1, len(workshop.machines))
            metrics["water_m3_h"] = MetricSpec(unit="m3/h", low=0, high=1.5 * water, noise=0.01 * water)
        if not electric:
            metrics["gas_m3_h"] = MetricSpec(
                unit="m3/h",
                low=0,
                high=1.5 * top_kw / self.gas_kwh_per_m3,
                noise=0.005 * top_kw / self.gas_kwh_per_m3,
            )
            metrics["gas_m3"] = MetricSpec(unit="m3", low=0, high=1e9, counter=True)
        return Device(
            device=meter_of(workshop.name),
            node=workshop.node,
            kind="meter",
            workshop=workshop.name,
            metrics=metrics,
        )


def _cell_device(workshop: Workshop, cell: DecidingCell) -> Device:
    state = {
        metric: MetricSpec(unit=unit, low=0, high=high)
        for metric, unit, high in zip(cells.METRICS, cells.UNITS, cells.HIGH, strict=True)
    }
    return Device(
        device=cell.id,
        node=cell.node or workshop.node,
        kind="cell",
        workshop=workshop.name,
        metrics={
            **state,
            cells.EARNED: MetricSpec(unit="money", low=-1e9, high=1e9, max_rate_per_s=cells.MOST_EARNED / cell.step_s),
            cells.EMITTED: MetricSpec(
                unit="kg", low=0, high=1e9, counter=True, max_rate_per_s=cells.MOST_EMITTED_KG / cell.step_s
            ),
            cells.DID: MetricSpec(unit="code", low=0, high=len(cells.ACTIONS) - 1, code=True),
        },
    )


def meter_of(workshop: str) -> str:
    """The device id of a workshop's meter."""
    return f"meter-{workshop}"


PlantPath = Annotated[Path, Field(description="plant file, TOML or JSON")]


def load_plant(path: Path) -> Plant:
    """Read a plant file; ConfigError names file, place and cure."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; a plant file is not that long")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a plant file ({error})") from None
    try:
        data: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return Plant.model_validate(data)
    except (ValidationError, UsageError) as error:
        raise ConfigError(f"{path}: {explain(error, Plant)}") from None


def explain(error: Exception, model: type[BaseModel]) -> str:
    """The first complaint of a validation error, with its place and a nearby key where one was misspelt."""
    if not isinstance(error, ValidationError):
        return str(error)
    # A misspelt key also leaves the right one missing: the misspelling is the cause, so it goes first.
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{place}: no such key{near(str(first['loc'][-1]), _all_keys(model))}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def near(word: str, known: Any) -> str:
    """`; did you mean 'x'?`, `; there are: …` or nothing, to end an error text."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(names[:12])}" if names else ""


def _all_keys(model: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    todo: list[type[BaseModel]] = [model]
    for current in todo:
        for name, info in current.model_fields.items():
            keys.append(name)
            for argument in (info.annotation, *getattr(info.annotation, "__args__", ())):
                if isinstance(argument, type) and issubclass(argument, BaseModel) and argument not in todo:
                    todo.append(argument)
    return list(dict.fromkeys(keys))
