"""Settings of one cloud process: which sites, which broker, where things are kept."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from cloud.stores import SqliteStore, StoreSettings, VictoriaMirror
from messages.connect import BrokerSettings
from messages.contracts import Id
from messages.errors import UsageError
from messages.plan import Measure
from messages.plant import Plant, load_plant
from messages.settings import Section, Settings


class PlannerSettings(Section):
    """How the planner plans."""

    budget_s: float = Field(5.0, gt=0, le=3600, description="time box of the solver, real seconds")
    seed: int = Field(1, ge=0, description="of the solver")
    workers: int = Field(2, ge=1, le=256, description="threads of the solver")
    objectives: tuple[Measure, ...] = Field(
        ("makespan", "energy"),
        min_length=1,
        max_length=7,
        description="the front is about these; the first counts most, until an operator chooses otherwise",
    )
    stay: float = Field(
        0.02, ge=0, le=100, description="price of moving all released work, as a share of the first objective"
    )
    ray: str | None = Field(None, description="host:port of a Ray cluster that solves; absent: this machine")
    lease_s: float = Field(14_400.0, gt=0, description="a plan authorises starts for this long (plant time); renewed")
    late_s: float = Field(2_700.0, gt=0, description="an operation later than this makes the planner plan again")
    skew_s: float = Field(60.0, ge=0, description="nodes' clocks may differ by this much when a lease ends")
    pause_s: float = Field(3_600.0, ge=0, description="least time between two plans that answer lateness")


class CloudSettings(Settings):
    """Everything the cloud process needs."""

    env_prefix: ClassVar[str] = "SHOAL_CLOUD_"

    # --- the bus and time ---
    sites: tuple[Id, ...] = Field(min_length=1, description="sites whose nodes hand over to this process")
    broker: BrokerSettings = Field(BrokerSettings(), description="the cloud's MQTT broker")
    clock: str | None = Field(None, description="host:port of a lock-step clock; absent: real time")
    data: Path = Field(Path("cloud-data"), description="directory for everything that is kept")
    plant: Path | None = Field(None, description="plant file, TOML or JSON; absent: telemetry only, nothing is planned")

    # --- ingest and store ---
    store: StoreSettings = Field(SqliteStore(), description="where telemetry and records go")
    mirrors: tuple[VictoriaMirror, ...] = Field(
        (), max_length=4, description="written to beside the store, best effort"
    )
    partition: int = Field(0, ge=0, le=999, description="of ingest: names the MQTT session, so one process at a time")
    nodes: tuple[Id, ...] = Field((), description="only these nodes, whole, are this partition's; empty: all")

    # --- planning ---
    planner: PlannerSettings = Field(PlannerSettings(), description="how it is planned")

    @field_validator("store", mode="before")
    @classmethod
    def _no_mirror(cls, given: object) -> object:
        if isinstance(given, VictoriaMirror) or (isinstance(given, dict) and given.get("kind") == "victoria"):
            raise UsageError(
                "store: VictoriaMetrics may lose or double rows, so it must not free an outbox: "
                "put it under [[mirrors]], beside a store of kind sqlite, influx1 or influx2"
            )
        return given

    def read_plant(self) -> Plant | None:
        """The plant to plan, if any; ConfigError or UsageError where file and settings disagree."""
        if self.plant is None:
            return None
        plant = load_plant(self.plant)
        if plant.site not in self.sites:
            raise UsageError(f"plant: {self.plant} describes site {plant.site!r}, which is not in sites; add it there")
        return plant

    @property
    def store_file(self) -> StoreSettings:
        """The store, with its file below `data`."""
        return self.store.below(self.data)
