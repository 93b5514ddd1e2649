"""Settings of the simulated machines: which plant, which broker, what varies, what breaks, which sensors lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from messages.connect import BrokerSettings
from messages.contracts import External, Id, Micros
from messages.errors import ConfigError
from messages.plant import Plant, load_plant, near
from messages.settings import Section, Settings

Rate = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Between = tuple[Positive, Positive]


class Variation(Section):
    """How far an operation's real time strays from its nominal one: a lognormal factor, cut off at ± `limit`."""

    sigma: float = Field(0.02, ge=0, lt=1, description="standard deviation of the factor's logarithm; 0: none")
    limit: float = Field(0.10, ge=0, lt=1, description="largest deviation of the factor from 1")


class Breakdown(Section):
    """One breakdown: of `machine` at its time, or of the `workshop` machine with most work left, once one works."""

    machine: Id | None = Field(None, description="this machine breaks, whatever it does")
    workshop: Id | None = Field(None, description="at the first moment from then on when one of its machines works")
    at_h: float | None = Field(None, ge=0, description="hours after the start of plant time")
    at_s: float | None = Field(None, ge=0, description="or seconds after it")
    repair_h: float = Field(gt=0, description="hours until it runs again")

    @model_validator(mode="after")
    def _one_of(self) -> Breakdown:
        if (self.machine is None) == (self.workshop is None):
            raise ValueError("give machine or workshop, one of the two")
        if (self.at_h is None) == (self.at_s is None):
            raise ValueError("give at_h or at_s, one of the two")
        return self

    @property
    def at_us(self) -> int:
        """µs after the start."""
        return round((self.at_s if self.at_s is not None else (self.at_h or 0) * 3600) * 1_000_000)


class Faults(Section):
    """How often each fault begins. Rates are per reading (a cell) unless said otherwise; 0 switches a kind off."""

    missing: Rate = Field(0, description="the sensor gives no value (null)")
    spike: Rate = Field(0, description="a lone outlier inside the measuring range")
    out_of_range: Rate = Field(0, description="a value no such sensor can measure")
    stuck: Rate = Field(0, description="the value freezes for `stuck_s`")
    drift: Rate = Field(0, description="the value strays, linearly, for `drift_s`, then jumps back")
    wrong_unit: Rate = Field(0, description="per column of a burst: reported in another unit, labelled as such")
    duplicate: Rate = Field(0, description="per burst: one sample is in it twice")
    duplicate_burst: Rate = Field(0, description="per burst: it is sent twice")
    out_of_order: Rate = Field(0, description="per burst: two neighbouring samples change places")
    out_of_order_burst: Rate = Field(0, description="per burst: it is sent after its successor")
    clock_skew_s: dict[Id, float] = Field({}, description="device → seconds its clock is ahead (negative: behind)")
    spike_sigmas: Between | None = Field(
        None,
        description="size of a spike, standard deviations of the metric's noise, log-uniform between these; absent, or "
        "where there is no noise: a quarter to half of the measuring range",
    )
    beyond_share: Between | None = Field(
        None,
        description="how far out of range, as a share of the measuring range, log-uniform between these; absent: a "
        "quarter to a half; concerns neither codes nor counters",
    )
    stuck_s: float = Field(2400, gt=0, description="how long a sensor stays stuck, s")
    stuck_to_s: float | None = Field(
        None, gt=0, description="if given, how long is drawn evenly between `stuck_s` and this"
    )
    drift_s: float = Field(3600, gt=0, description="how long a drift lasts, s")
    drift_share: float = Field(0.2, gt=0, le=1, description="where a drift ends, as a share of the measuring range")
    devices: tuple[Id, ...] = Field((), description="only these devices are at fault; empty: all")


class Ordered(Section):
    """One batch of an order."""

    job: External = Field(description="its name, and the tag of its part")
    product: External | None = Field(None, description="absent: the job's name is its product")
    release_h: float | None = Field(None, ge=0, description="hours after the start before which it must not begin")
    due_h: float | None = Field(None, ge=0, description="hours after the start when it should be done")


class OrderSpec(Section):
    """An order of the feed that stands in for an ERP."""

    order: External = Field(description="its number")
    at_h: float = Field(0, ge=0, description="hours after the start when it is placed")
    jobs: tuple[Ordered, ...] = Field(min_length=1, max_length=1_000, description="its batches")


class Likeness(Section):
    """Which simulated cell a cell of the plant is: `firmware_sim.cell.cell_of(number, heterogeneity)`."""

    number: int | None = Field(None, ge=0, lt=2**31, description="of the fleet's cells; absent: its place in the plant")
    heterogeneity: float = Field(0.0, ge=0, le=3, description="how far cells differ; 0: all are alike")


class SimSettings(Settings):
    """Everything the simulated machines of one site need."""

    env_prefix: ClassVar[str] = "SHOAL_SIM_"

    plant: Path = Field(description="plant file, TOML or JSON")
    broker: BrokerSettings = Field(BrokerSettings(), description="the site's MQTT broker")
    clock: str | None = Field(None, description="host:port of a lock-step clock; absent: real time")
    start: Micros | None = Field(None, description="plant time of hour 0, µs since 1970 UTC; absent: the first tick")
    seed: int = Field(1, ge=0, description="of everything random but the boot ids")
    variation: Variation = Field(Variation(), description="how far real operation times stray from nominal ones")
    scenario: tuple[Breakdown, ...] = Field((), description="what breaks, and when")
    faults: Faults = Field(Faults(), description="what the sensors do wrong, and how often")
    cells: dict[Id, Likeness] = Field({}, description="cell → what it is like; cells not named are alike")
    order_feed: bool = Field(True, description="publish orders")
    orders: tuple[OrderSpec, ...] = Field(
        (), description="empty: one order with one job per product that is ordered, named after it"
    )
    forgetful: tuple[Id, ...] = Field((), description="devices that forget a burst once sent; their gaps are counted")
    max_held: int = Field(24, ge=1, le=1_000, description="bursts a device keeps until they are taken")
    patience_s: float = Field(0.25, ge=0, description="real time a lock-step tick waits for bursts to be taken")
    hold_s: float = Field(
        30, ge=0, description="real time a lock-step tick stands still for a full device; then it cuts no new burst"
    )
    resend_s: float = Field(2, gt=0, description="real time until an untaken burst is sent again; doubles up to 30 s")
    truth: Path | None = Field(None, description="append what was sent, and the truth about it, to this file (JSONL)")
    truth_max_mb: int = Field(4096, gt=0, description="beyond it nothing more is written, and the summary says so")
    summary: Path | None = Field(None, description="counters (JSON); absent: beside the truth file, if there is one")

    @model_validator(mode="after")
    def _orders_differ(self) -> SimSettings:
        names = [one.order for one in self.orders]
        if len(set(names)) < len(names):
            raise ValueError("orders: two have one name; give each its own")
        return self

    def read_plant(self) -> Plant:
        """The plant to simulate; ConfigError where file and settings disagree."""
        plant = load_plant(self.plant)
        self.check_against(plant)
        return plant

    def check_against(self, plant: Plant) -> None:
        """ConfigError naming the cure where these settings speak of what the plant does not have."""
        devices = [device.device for device in plant.devices()]
        workshops = [workshop.name for workshop in plant.workshops if workshop.machines]
        for what, names, known in (
            ("scenario.machine", [one.machine for one in self.scenario if one.machine], list(plant.machines)),
            ("scenario.workshop", [one.workshop for one in self.scenario if one.workshop], workshops),
            ("cells", list(self.cells), list(plant.cells)),
            ("forgetful", list(self.forgetful), devices),
            ("faults.clock_skew_s", list(self.faults.clock_skew_s), devices),
            ("faults.devices", list(self.faults.devices), devices),
            ("orders.jobs", [one.product or one.job for o in self.orders for one in o.jobs], list(plant.products)),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(f"{what}: plant {plant.site!r} has no {name!r}{near(name, known)}")
