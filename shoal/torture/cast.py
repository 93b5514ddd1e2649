"""Who plays: a small plant with two nodes, the processes that serve it, and the devices that feed it.

Devices of every kind: machines that keep their bursts, two of which tell of events, meters that keep nothing, a machine
whose clock is ahead, one the plant file does not know. Everything here is a setting that users have too; the broker has
none at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloud.settings import CloudSettings
from edge.settings import EdgeSettings
from firmware_sim.settings import Faults
from messages.connect import BrokerSettings
from messages.plant import Plant
from messages.settings import Settings
from shoal.torture.producer import ProducerSettings

SITE = "torture"
NODES = ("press", "oven")
FORGETFUL = ("meter-press", "meter-oven")
TELLERS = ("press-1", "oven-1")
STRANGER = "ghost-1"
SUMMING = NODES[1]
"""The node that hears the stranger records refusals as nodes do unless told otherwise: few singly, the rest in sums."""
FAULTS = Faults(
    missing=0.003,
    spike=0.002,
    out_of_range=0.001,
    stuck=0.0002,
    drift=0.0001,
    wrong_unit=0.01,
    duplicate=0.03,
    duplicate_burst=0.02,
    out_of_order=0.02,
    out_of_order_burst=0.02,
    stuck_s=1.0,
    drift_s=2.0,
    clock_skew_s={"press-3": 300.0},
)
_MACHINE = {"work_kw": 40.0, "idle_kw": 4.0, "preheat_kw": 20.0, "preheat_h": 1.0, "time_h": (1.0,)}
PLANT = Plant.model_validate(
    {
        "site": SITE,
        "about": "two nodes for `shoal torture`",
        "sample_s": 0.01,
        "burst_s": 0.25,
        "products": ("brick",),
        "workshops": [
            {
                "name": name,
                "node": name,
                "machines": [{"id": f"{name}-{n}", **_MACHINE} for n in (1, 2, 3)],
                "work_degc": degc,
            }
            for name, degc in zip(NODES, (40.0, 900.0), strict=True)
        ],
    }
)


@dataclass(frozen=True)
class Traffic:
    """How much the devices say: 25 samples of four metrics, four times a second, unless told otherwise."""

    sample_s: float = 0.01
    burst_s: float = 0.25


@dataclass(frozen=True)
class Files:
    """Where everything of a run is."""

    directory: Path

    @classmethod
    def made(cls, directory: Path) -> Files:
        """In `directory`, which is made where it is not there."""
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory.resolve())

    @property
    def plant(self) -> Path:
        return self.directory / "plant.json"

    @property
    def cloud(self) -> Path:
        return self.directory / "cloud"

    def data(self, node: str) -> Path:
        """An edge node's own folder."""
        return self.directory / f"edge-{node}"

    def oracle(self, node: str) -> Path:
        """What a producer writes before it sends."""
        return self.directory / f"oracle-{node}.jsonl"

    def status(self, node: str) -> Path:
        """What a producer says about itself."""
        return self.directory / f"producer-{node}.status.json"


def services(
    files: Files, port: int, store: Mapping[str, object], *, grace_s: float
) -> dict[str, tuple[str, Settings]]:
    """Name → (subcommand of `shoal`, settings) of the system under test."""
    broker = BrokerSettings(port=port)
    cast: dict[str, tuple[str, Settings]] = {
        node: (
            "edge",
            EdgeSettings(
                site=SITE,
                node=node,
                plant=files.plant,
                data=files.data(node),
                local=broker,
                gap_grace_s=grace_s,
                **({} if node == SUMMING else {"rejected_per_min": 10_000}),
                resend_first_s=1.0,
                resend_most_s=8.0,
                health_s=0.5,
            ),
        )
        for node in NODES
    }
    settings = {"sites": (SITE,), "broker": broker, "data": files.cloud, "store": dict(store)}
    cast["ingest"] = ("cloud", CloudSettings.model_validate(settings))
    return cast


def producers(files: Files, port: int, seed: int, traffic: Traffic) -> dict[str, ProducerSettings]:
    """Node → the settings of its devices."""
    return {
        node: ProducerSettings(
            plant=files.plant,
            site=SITE,
            node=node,
            port=port,
            oracle=files.oracle(node),
            status=files.status(node),
            seed=seed,
            sample_s=traffic.sample_s,
            burst_s=traffic.burst_s,
            faults=FAULTS,
            second_value=0.02,
            strange_unit=0.01,
            strange_metric=0.01,
            malformed=0.01,
            event=0.5,
            tellers=tuple(name for name in TELLERS if name.startswith(node)),
            forgetful=tuple(name for name in FORGETFUL if name.endswith(node)),
            strangers=(STRANGER,) if node == NODES[1] else (),
        )
        for node in NODES
    }
