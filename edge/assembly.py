"""A node put together from its settings: its devices, its connections, what it says it can do. Nothing runs yet.

    local, cloud, site = buses(settings, will)
    node = node_of(settings, plant, devices_of(settings, plant), disk, clock, session, local, cloud, site)

Who this node is for brokers (`sessions`) is here, too, so that whoever ends it ends all of it.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edge.cleaning import Cleaner
from edge.delegate import KEYS, Standing
from edge.disk import Disk
from edge.executor import Executor
from edge.intake import Intake
from edge.latest import LatestValues
from edge.node import Node
from edge.outbox import Outbox
from edge.settings import EdgeSettings
from edge.uplink import Freshness, Uplink, Windows
from messages.bus import Bus, Will
from messages.clock import Clock
from messages.connect import BrokerSettings, bus_to
from messages.contracts import Capability, DeviceCapability
from messages.pace import pace_of
from messages.plant import Device, Plant


def buses(settings: EdgeSettings, will: Will) -> tuple[Bus, Bus, Bus]:
    """To machines, the cloud and other nodes; also to one broker three, so that none waits behind another's.

    What the cloud says is retained, so nothing waits for us while we are away: an old word of a store that was
    restored from an older copy meanwhile would free what that one lacks. Nor does what other nodes say: it would
    make them seem to be there.
    """
    (broker, name), local, *_ = sessions(settings)
    site = bus_to(settings.local, f"{settings.site}-{settings.node}-site", session_expiry_s=0)
    return bus_to(*local), bus_to(broker, name, will, session_expiry_s=0), site


def sessions(settings: EdgeSettings) -> list[tuple[BrokerSettings, str]]:
    """Brokers and client ids under which they keep a session for this node; the cloud's first."""
    name = f"{settings.site}-{settings.node}"
    foreign = [(settings.local, f"{name}-{kind}") for kind in ("timed", "untimed")] if settings.mapping else []
    return [(settings.cloud_broker, f"{name}-uplink"), (settings.local, f"{name}-local"), *foreign]


def devices_of(settings: EdgeSettings, plant: Plant) -> tuple[Device, ...]:
    """What this node hears: of the plant file, and of the mapping."""
    mapping = settings.read_mapping(plant)
    return plant.devices(settings.node) + (mapping.devices(plant, settings.node) if mapping else ())


def node_of(
    settings: EdgeSettings,
    plant: Plant,
    devices: tuple[Device, ...],
    disk: Disk,
    clock: Clock,
    session: str,
    local: Bus,
    cloud: Bus,
    site_bus: Bus,
) -> Node:
    """Its state as the disk has it; the buses need not run."""
    budget = int(settings.budget_mb * 1e6)
    outbox = Outbox.open(
        disk, budget_bytes=budget, batch_bytes=int(settings.batch_kb * 1e3), eviction=settings.eviction
    )
    intake = Intake.open(
        disk,
        outbox,
        devices=[device.device for device in devices],
        grace_s=settings.gap_grace_s,
        samples=settings.rejected_per_min,
    )
    windows = Windows(
        batches=settings.window,
        # All eight streams together stay below half the budget: what is out is not to be evicted.
        bytes=min(int(settings.window_kb * 1e3), budget // 16),
        slow_batches=settings.slow_window,
        slow_bytes=min(int(settings.slow_window_kb * 1e3), budget // 16),
        first_s=settings.resend_first_s + settings.commit_s,  # the store's word may wait so long to be written
        most_s=settings.resend_most_s + settings.commit_s,
    )
    kept = disk.state("executor")
    executor = Executor(plant, settings.node, kept)
    if kept is None:  # what is said from a new disk is later than all that was said from the one before
        executor.awards.revision = clock.now()
    return Node(
        site=settings.site,
        node=settings.node,
        session=session,
        clock=clock,
        disk=disk,
        outbox=outbox,
        intake=intake,
        cleaner=Cleaner(devices, disk.state("cleaner")),
        rebuild=lambda state: Cleaner(devices, state),
        executor=executor,
        standing=Standing(
            pace=pace_of(plant),
            me=settings.node,
            nodes=plant.nodes,
            able=settings.delegate,
            kept={key: kept for key in KEYS if (kept := disk.state(key)) is not None},
            obeyed=executor.awards.authority,
        ),
        latest=LatestValues(settings.latest_s),
        uplink=Uplink(disk, outbox, cloud, site=settings.site, node=settings.node, windows=windows),
        freshness=Freshness(settings.backlog_after_s),
        local=local,
        cloud=cloud,
        site_bus=site_bus,
        capability=_capability(disk, devices, clock.now(), _public_key(settings)),
        inbox_bytes=int(settings.inbox_mb * 1e6),
        health_s=settings.health_s,
    )


def _public_key(settings: EdgeSettings) -> str | None:
    if settings.learning is None:
        return None
    from edge.cells import key_of

    return key_of(settings).public


def _capability(disk: Disk, devices: tuple[Device, ...], now: int, public_key: str | None) -> Capability:
    """What we are, with a revision that rises whenever it changes, also when the disk is new."""
    body: dict[str, Any] = {
        "software": _software(),
        "devices": [
            DeviceCapability(
                device=device.device,
                kind=device.kind,
                metrics={metric: spec.unit for metric, spec in device.metrics.items()},
                stage=device.workshop if device.kind == "machine" else None,
            ).model_dump()
            for device in devices
        ],
    }
    if public_key is not None:
        body["public_key"] = public_key
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    known = json.loads(disk.state("capability") or b"{}")
    revision = int(known.get("revision", 0))
    if known.get("digest") != digest:
        revision = max(revision + 1, now)
        with disk.transaction():
            disk.keep("capability", json.dumps({"revision": revision, "digest": digest}).encode())
    return Capability.model_validate({**body, "revision": revision})


def _software() -> str:
    try:
        return f"shoal {version('shoal')}"
    except PackageNotFoundError:
        return "shoal (not installed as a package)"
