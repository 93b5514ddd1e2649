"""Settings of one edge node. Environment variables `SHOAL_EDGE_…` override the file, `__` goes into a table.

site = "ceramic"
node = "firing"
plant = "ceramic.toml"

[local]
host = "127.0.0.1"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from edge.decoding import Decoder
from edge.eviction import Eviction, Thin
from edge.learning import LearningSettings
from edge.mapping import Mapping
from messages.connect import BrokerSettings
from messages.contracts import Id
from messages.dispatch.judge import ByRule, PlainJudge
from messages.errors import ConfigError, UsageError
from messages.plant import Plant, load_plant
from messages.route import check_node
from messages.settings import Settings, load


def _node(name: str) -> str:
    try:
        return check_node(name)
    except UsageError as error:
        raise ValueError(str(error)) from None


class EdgeSettings(Settings):
    """Everything one edge node needs."""

    env_prefix: ClassVar[str] = "SHOAL_EDGE_"

    site: Id = Field(description="site this node belongs to, as the plant file names it")
    node: Annotated[Id, AfterValidator(_node)] = Field(description="name of this node in the plant file")
    plant: Path = Field(description="plant file, TOML or JSON")
    data: Path = Field(Path("edge-data"), description="this node's own folder; what it must not lose is here")
    mapping: Path | None = Field(None, description="mapping file of foreign topics (Tasmota, Shelly, …); absent: none")
    clock: str | None = Field(None, description="host:port of a lock-step clock; absent: real time")

    budget_mb: float = Field(2048.0, gt=0, le=1e6, description="outbox on the disk, MB; beyond it the policy evicts")
    eviction: Eviction = Field(Thin(), description="which batches of readings go first at that budget: thin, oldest")
    commit_s: float = Field(0.02, ge=0, le=10, description="readings may wait so long to share a commit, s")
    batch_kb: float = Field(256.0, ge=16, le=2048, description="largest batch, kB")
    inbox_mb: float = Field(16.0, gt=0, le=1e5, description="raw bursts waiting to be cleaned, MB; then devices wait")
    window: int = Field(128, ge=1, le=200, description="batches out and unconfirmed per lane, at most")
    window_kb: float = Field(8192.0, gt=0, le=1e6, description="bytes out and unconfirmed per lane, at most, kB")
    slow_window: int = Field(32, ge=1, le=200, description="the same for backlog and earlier epochs, batches")
    slow_window_kb: float = Field(4096.0, gt=0, le=1e6, description="the same for backlog and earlier epochs, kB")
    resend_first_s: float = Field(2.0, gt=0, description="silence of the store before batches go out again, s")
    resend_most_s: float = Field(60.0, gt=0, description="to which that doubles, s")
    backlog_after_s: float = Field(30.0, gt=0, description="live data unconfirmed so long: new data is backlog, s")
    gap_grace_s: float = Field(10.0, ge=0, description="a missing burst may still come for this long, s, real time")
    rejected_per_min: int = Field(20, ge=0, le=10_000, description="refused messages recorded singly per minute")
    latest_s: float = Field(1.0, ge=1.0, description="between two `latest` messages of a device, s, real time")
    health_s: float = Field(5.0, gt=0, description="between two `health` messages, s, real time")

    delegate: bool = Field(True, description="may judge while the cloud is away, if the cloud's word names this node")
    judge: PlainJudge = Field(ByRule(kind="greedy"), description="how it judges then: a rule, or mcts in plain Python")
    tags: bool = Field(
        True, description="parts tell what was done to them (`part_identified.op`), as the judge is told"
    )

    learning: LearningSettings | None = Field(
        None, description="present: this node decides for its cells by models, and learns; absent: none of it is loaded"
    )

    local: BrokerSettings = Field(BrokerSettings(), description="the site's broker: machines are here")
    uplink: BrokerSettings | None = Field(None, description="the cloud's broker; absent: the local one serves both")

    @model_validator(mode="after")
    def _sound(self) -> EdgeSettings:
        if self.resend_most_s < self.resend_first_s:
            raise ValueError("resend_most_s is below resend_first_s")
        if self.budget_mb * 1e6 < 4 * self.batch_kb * 1e3:
            raise ValueError("budget_mb holds fewer than four batches of batch_kb: give more, or smaller batches")
        return self

    def read_plant(self) -> Plant:
        """The plant this node belongs to; ConfigError or UsageError where file and settings disagree."""
        plant = load_plant(self.plant)
        if plant.site != self.site:
            raise ConfigError(f"site={self.site!r}, but {self.plant} describes {plant.site!r}: correct one of the two")
        plant.devices(self.node)  # a UsageError here names the nodes there are
        self.read_mapping(plant)
        if self.learning is not None:
            from edge.cells import cells_of  # where nothing is learned nothing of it is loaded

            cells_of(plant, self.node, self.learning)
        return plant

    def facts(self) -> list[str]:
        """What `--check` says beside the settings."""
        plant = self.read_plant()
        if self.learning is None:
            return []
        from edge import cells

        return cells.facts(self, plant, self.learning)

    def read_mapping(self, plant: Plant) -> Mapping | None:
        """The foreign topics of this node; ConfigError where file and plant disagree."""
        if self.mapping is None:
            return None
        mapping = load(Mapping, self.mapping, {})
        try:
            Decoder(mapping, plant.devices(self.node) + mapping.devices(plant, self.node))
        except ConfigError as error:
            raise ConfigError(f"{self.mapping}: {error}") from None
        return mapping

    @property
    def cloud_broker(self) -> BrokerSettings:
        """Where batches go."""
        return self.uplink or self.local
