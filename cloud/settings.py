"""Settings of one cloud process: which sites, which broker, where things are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from cloud.learning_settings import LearningSettings
from cloud.stores import SqliteStore, StoreSettings, VictoriaMirror
from messages.connect import BrokerSettings
from messages.contracts import Id
from messages.dispatch.judge import Mcts, PlainJudge
from messages.errors import UsageError
from messages.pace import Pace, pace_of
from messages.plan import Measure
from messages.plant import Plant, load_plant
from messages.settings import Section, Settings

KEY_FILE = "cloud.key"
"""In the data directory: what rounds and releases are signed with."""


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


class SwarmWeights(Section):
    """What a judge minimises: the weighted sum of these; times in ticks of the plant."""

    makespan: float = Field(1.0, ge=0, description="end of the last operation")
    waiting: float = Field(0.0, ge=0, description="mean time in which nothing happens to a part")
    tardiness: float = Field(0.0, ge=0, description="time by which orders are late, summed")
    energy: float = Field(0.0, ge=0, description="kWh")
    carbon: float = Field(0.0, ge=0, description="kg CO2e")

    @model_validator(mode="after")
    def _something_counts(self) -> SwarmWeights:
        if not any(self.model_dump().values()):
            raise ValueError("all are 0, so every award would be as good as any other; give one more than 0")
        return self


class SwarmSettings(Section):
    """How work is awarded, one task at a time. The judges are those of `messages.dispatch`, compiled where that can be
    done (`cloud.dispatch`), which is why none of them is loaded here."""

    judge: PlainJudge = Field(Mcts(seconds=0.1), description="who decides: a rule by its kind, or a tree search")
    weights: SwarmWeights = Field(SwarmWeights(), description="what counts")
    delegates: tuple[Id, ...] | None = Field(
        None, max_length=64, description="nodes that judge while this process is away, in order; absent: all nodes"
    )
    lease_s: float | None = Field(
        None,
        gt=0,
        description="work begins within this time of its award (plant time); absent: by how long it takes",
    )
    offer_s: float | None = Field(
        None, gt=0, description="bids are awaited for this long (plant time); absent: by how long work takes"
    )
    tags: bool = Field(True, description="parts carry tags that tell how many operations were done")
    prior_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="a solver plans so long (real s) whenever orders change: the judge begins with it",
    )
    ahead_s: float = Field(
        0.0,
        ge=0,
        description="awards are made so long before they must begin (plant time): the way to a node takes time",
    )
    seed: int = Field(1, ge=0, description="of the judge")

    def pace(self, plant: Plant) -> Pace:
        """The plant's own, with what is said here."""
        said = {name: value for name in ("lease_s", "offer_s") if (value := getattr(self, name)) is not None}
        return replace(pace_of(plant), **said)


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
    swarm: SwarmSettings | None = Field(
        None, description="present: tasks are awarded to machines one by one, and nothing is planned"
    )

    # --- learning ---
    learning: LearningSettings | None = Field(
        None, description="present: nodes learn together, and versions of models are released to them"
    )

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
        if self.plant is None and self.swarm is not None:
            raise UsageError("swarm: whoever awards work must know the machines; give `plant`")
        if self.plant is None:
            return None
        plant = load_plant(self.plant)
        if plant.site not in self.sites:
            raise UsageError(f"plant: {self.plant} describes site {plant.site!r}, which is not in sites; add it there")
        strangers = [node for node in (self.swarm.delegates or () if self.swarm else ()) if node not in plant.nodes]
        if strangers:
            raise UsageError(
                f"swarm.delegates: the plant has no node {strangers[0]!r}; there are: {', '.join(plant.nodes)}"
            )
        return plant

    def learns_at(self, learning: LearningSettings) -> str:
        """The site whose nodes learn; UsageError where that is not said."""
        plant = self.read_plant()
        site = learning.site or (plant.site if plant is not None else self.sites[0])
        if site not in self.sites or (learning.site is None and plant is None and len(self.sites) > 1):
            raise UsageError(f"learning.site: name one of sites ({', '.join(self.sites)})")
        return site

    def facts(self) -> list[str]:
        """What `--check` says beside the settings: what learns, and the key that nodes have to be told."""
        if self.learning is None:
            return []
        from messages.signing import SigningKey

        site, face = self.learns_at(self.learning), self.learning.read_interface()
        network = self.learning.network(face)
        shared = network.size if self.learning.rounds.whole else network.shared
        key = SigningKey.at(self.data / KEY_FILE).public
        return [
            f"learning: model {self.learning.model} of site {site}, {len(face.features)} features, "
            f"{len(face.actions)} actions, {network.size} parameters, {shared} of them shared",
            f'public key of this cloud: {key}; every node is told it: [learning.keys] cloud = "{key}"',
        ]

    @property
    def store_file(self) -> StoreSettings:
        """The store, with its file below `data`."""
        return self.store.below(self.data)
