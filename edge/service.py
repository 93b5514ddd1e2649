"""One edge node: which message goes to which function, and its loops. Nothing else.

    raise SystemExit(run_until_stopped(run(settings)))

What must survive is on the disk before it is acknowledged: to be stopped and to lose power are alike.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Coroutine
from contextlib import closing
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from edge.cleaning import Cleaner
from edge.decoding import Decoder
from edge.delegate import KEYS, Standing
from edge.disk import Disk
from edge.executor import Executor
from edge.foreign import Foreign
from edge.intake import Intake
from edge.latest import LatestValues
from edge.mapping import Mapping
from edge.node import Node
from edge.outbox import Outbox
from edge.peers import Peers
from edge.retire import Forgotten, end_session, hand_over, mark_retired, refuse_retired, resumable, take_back, unmark
from edge.settings import EdgeSettings
from edge.uplink import Freshness, Uplink, Windows
from messages.bus import Bus, Will
from messages.clock import Clock, clock_from
from messages.connect import SESSION_S, BrokerSettings, bus_to
from messages.contracts import Capability, DeviceCapability, Presence
from messages.errors import UsageError
from messages.logs import get_logger
from messages.pace import pace_of
from messages.plant import Device, Plant
from messages.routes import (
    AWARD,
    BURST,
    DELEGATION,
    JUDGE,
    OFFER,
    PLAN,
    PRESENCE,
    SIGNAL,
    STORED,
)

log = get_logger("edge")


async def run(settings: EdgeSettings) -> None:
    """Sense, keep, hand over, execute, until cancelled."""
    plant = settings.read_plant()
    # In lock step everybody waits for everybody: there is no time to spare.
    with closing(Disk.open(settings.data, commit_s=0.0 if settings.clock else settings.commit_s)) as disk:
        await _run(settings, plant, disk)


async def drain(settings: EdgeSettings) -> None:
    """Hand over what a disk still holds, beside the node that took its place; ends when it is empty."""
    plant = settings.read_plant()
    with closing(_disk_there(settings)) as disk:
        name = f"{settings.site}-{settings.node}-drain-{secrets.token_hex(4)}"
        node = _without_machines(settings, plant, disk, bus_to(settings.cloud_broker, name, session_expiry_s=0))
        with resumable(node):
            async with asyncio.TaskGroup() as tg:
                running = tg.create_task(node.cloud.run(), name="cloud")
                await hand_over(node)
                running.cancel()
        log.info("edge.drained", batches=node.outbox.counts.freed, data=str(settings.data))


async def retire(settings: EdgeSettings) -> None:
    """Hand over everything, take back what this node retained at brokers, and mark its disk; ends when that is done."""
    plant = settings.read_plant()
    with closing(_disk_there(settings)) as disk:
        mark_retired(disk, time.time_ns() // 1000)
        [(broker, name), *others] = _sessions(settings)
        forgotten = Forgotten()
        node = _without_machines(settings, plant, disk, bus_to(broker, name, session_expiry_s=0), forgotten)
        with resumable(node):
            async with asyncio.TaskGroup() as tg:
                running = tg.create_task(node.cloud.run(), name="cloud")
                await hand_over(node)
                await take_back(node, forgotten)
                running.cancel()
            for broker, name in others:
                await end_session(bus_to(broker, name, session_expiry_s=0), site=settings.site, node=settings.node)
        log.info("edge.retired", batches=node.outbox.counts.freed, data=str(settings.data))


async def unretire(settings: EdgeSettings) -> None:
    """Take the mark of `retire` away."""
    with closing(_disk_there(settings)) as disk:
        log.info("edge.unretired" if unmark(disk) else "edge.was_not_retired", data=str(settings.data))


def _disk_there(settings: EdgeSettings) -> Disk:
    """The disk of a node that ran; a folder misspelt or not mounted must not pass for one that is empty."""
    if not (settings.data / "node.db").is_file():
        raise UsageError(
            f"data={str(settings.data)!r} holds no node.db: mount the disk that is meant, or correct `data`; "
            "nothing was handed over, and nothing was made"
        )
    return Disk.open(settings.data)


async def _run(settings: EdgeSettings, plant: Plant, disk: Disk) -> None:
    refuse_retired(disk, settings.data)
    me = {"site": settings.site, "node": settings.node}
    session = secrets.token_hex(8)
    clock = clock_from(settings.clock, name=settings.node)
    will = (PRESENCE.topic(**me), Presence(online=False, session=session).encode())
    local, cloud, site_bus = _buses(settings, will)
    mapping = settings.read_mapping(plant)
    devices = _devices(settings, plant)
    with disk.damage_named():
        node = _node(settings, plant, devices, disk, clock, session, local, cloud, site_bus)

    local.on(BURST, node.on_bursts, batch=True, site=settings.site, node=settings.node)
    cloud.on(STORED, node.uplink.on_stored, site=settings.site, node=settings.node)
    cloud.on(PLAN, node.on_plan, site=settings.site)
    cloud.on(JUDGE, node.on_judge, site=settings.site)
    cloud.on(DELEGATION, node.on_delegation, site=settings.site, node=settings.node)
    cloud.on(SIGNAL, node.on_signal, site=settings.site)
    cloud.on(OFFER, node.on_offer, site=settings.site, node=settings.node)
    cloud.on(AWARD, node.on_award, on_cleared=node.on_award_cleared, site=settings.site, node=settings.node)
    peers = Peers(node, plant, judge=settings.judge, tags=settings.tags)
    peers.listen()
    node.also.append(peers.counters)
    local.on_bad(node.on_bad)
    cloud.on_bad(node.on_bad)
    local.on_connect(node.on_local_connect)
    cloud.on_connect(node.on_cloud_connect)
    cloud.on_connect(node.uplink.on_connect)

    hearers = _foreign(settings, mapping, devices, node)

    log.info("edge.started", epoch=node.outbox.epoch, inbox=node.intake.waiting, outbox=sum(node.outbox.held.values()))
    async with asyncio.TaskGroup() as tg:
        tg.create_task(local.run(), name="local")
        tg.create_task(cloud.run(), name="cloud")
        tg.create_task(site_bus.run(), name="site")
        tg.create_task(node.process(), name="process")
        tg.create_task(node.uplink.run(), name="uplink")
        tg.create_task(node.settle(), name="settle")
        tg.create_task(node.say_latest(), name="latest")
        tg.create_task(node.say_health(), name="health")
        tg.create_task(peers.run(), name="peers")
        tg.create_task(_keep_time(settings, clock, node, peers), name="clock")
        for hearer in hearers:
            tg.create_task(hearer, name="foreign")


async def _keep_time(settings: EdgeSettings, clock: Clock, node: Node, peers: Peers) -> None:
    if settings.clock:
        await node.local.wait_connected()  # whoever takes part in the lock step is ready

    async def on_tick(now: int) -> None:
        await node.on_tick(now)
        await peers.on_tick(now)

    await clock.drive(on_tick, phase="node")


def _buses(settings: EdgeSettings, will: Will) -> tuple[Bus, Bus, Bus]:
    """To machines, the cloud and other nodes; also to one broker three, so that none waits behind another's.

    What the cloud says is retained, so nothing waits for us while we are away: an old word of a store that was
    restored from an older copy meanwhile would free what that one lacks. Nor does what other nodes say: it would
    make them seem to be there.
    """
    (broker, name), local, *_ = _sessions(settings)
    site = bus_to(settings.local, f"{settings.site}-{settings.node}-site", session_expiry_s=0)
    return bus_to(*local), bus_to(broker, name, will, session_expiry_s=0), site


def _sessions(settings: EdgeSettings) -> list[tuple[BrokerSettings, str]]:
    """Brokers and client ids under which they keep a session for this node; the cloud's first."""
    name = f"{settings.site}-{settings.node}"
    foreign = [(settings.local, f"{name}-{kind}") for kind in ("timed", "untimed")] if settings.mapping else []
    return [(settings.cloud_broker, f"{name}-uplink"), (settings.local, f"{name}-local"), *foreign]


def _devices(settings: EdgeSettings, plant: Plant) -> tuple[Device, ...]:
    mapping = settings.read_mapping(plant)
    return plant.devices(settings.node) + (mapping.devices(plant, settings.node) if mapping else ())


def _without_machines(
    settings: EdgeSettings, plant: Plant, disk: Disk, cloud: Bus, forgotten: Forgotten | None = None
) -> Node:
    """A node that only hands over: it hears no machine, and what it would tell one is not sent."""
    clock, session = clock_from(None, name=settings.node), secrets.token_hex(8)
    nobody = bus_to(settings.local, f"{settings.site}-{settings.node}-nobody")  # never connected
    with disk.damage_named():
        node = _node(settings, plant, _devices(settings, plant), disk, clock, session, nobody, cloud, nobody)
    cloud.on(STORED, node.uplink.on_stored, on_cleared=forgotten, site=settings.site, node=settings.node)
    cloud.on_connect(node.uplink.on_connect)
    return node


def _foreign(
    settings: EdgeSettings, mapping: Mapping | None, devices: tuple[Device, ...], node: Node
) -> list[Coroutine[None, None, None]]:
    """What hears the topics of the mapping file: connections of their own, so that nobody waits for them.

    A message that says its time may wait at the broker while this node is away; another is soon worth nothing.
    """
    if mapping is None:
        return []
    decoder = Decoder(mapping, devices)
    foreign = Foreign(decoder, node.intake, node.take_in, node.clock, every_s=mapping.every_s)
    buses = []
    for timed in (True, False):
        if filters := mapping.filters(timed=timed):
            name = f"{settings.site}-{settings.node}-{'timed' if timed else 'untimed'}"
            bus = bus_to(settings.local, name, session_expiry_s=SESSION_S if timed else mapping.wait_s)
            bus.on_raw(filters, partial(foreign.on_messages, bus))
            buses.append(bus)
    dropped = lambda: {"mapped_dropped": float(sum(bus.counts.dropped for bus in buses))}  # noqa: E731
    node.also += [foreign.counters, dropped]
    return [foreign.watch(), *(bus.run() for bus in buses)]


def _node(
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
        capability=_capability(disk, devices, clock.now()),
        inbox_bytes=int(settings.inbox_mb * 1e6),
        health_s=settings.health_s,
    )


def _capability(disk: Disk, devices: tuple[Device, ...], now: int) -> Capability:
    """What we are, with a revision that rises whenever it changes, also when the disk is new."""
    body = {
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
