"""One edge node: which message goes to which function, and its loops. Nothing else.

    raise SystemExit(run_until_stopped(run(settings)))

What must survive is on the disk before it is acknowledged: to be stopped and to lose power are alike.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from edge.assembly import buses, devices_of, node_of
from edge.decoding import Decoder
from edge.disk import Disk
from edge.foreign import Foreign
from edge.mapping import Mapping
from edge.node import Node
from edge.peers import Peers
from edge.retire import refuse_retired
from edge.settings import EdgeSettings
from messages.clock import Clock, clock_from
from messages.connect import SESSION_S, bus_to
from messages.contracts import Presence
from messages.logs import get_logger
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

if TYPE_CHECKING:
    from edge.agents import Agents

log = get_logger("edge")


async def run(settings: EdgeSettings) -> None:
    """Sense, keep, hand over, execute, until cancelled."""
    plant = settings.read_plant()
    # In lock step everybody waits for everybody: there is no time to spare.
    with closing(Disk.open(settings.data, commit_s=0.0 if settings.clock else settings.commit_s)) as disk:
        await _run(settings, plant, disk)


async def _run(settings: EdgeSettings, plant: Plant, disk: Disk) -> None:
    refuse_retired(disk, settings.data)
    me = {"site": settings.site, "node": settings.node}
    session = secrets.token_hex(8)
    clock = clock_from(settings.clock, name=settings.node)
    will = (PRESENCE.topic(**me), Presence(online=False, session=session).encode())
    local, cloud, site_bus = buses(settings, will)
    mapping = settings.read_mapping(plant)
    devices = devices_of(settings, plant)
    with disk.damage_named():
        node = node_of(settings, plant, devices, disk, clock, session, local, cloud, site_bus)

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
    agents = _agents(settings, plant, node)
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
        if agents is not None:
            tg.create_task(agents.run(), name="agents")
        tg.create_task(_keep_time(settings, clock, node, peers, agents), name="clock")
        for hearer in hearers:
            tg.create_task(hearer, name="foreign")


async def _keep_time(settings: EdgeSettings, clock: Clock, node: Node, peers: Peers, agents: Agents | None) -> None:
    if settings.clock:
        await node.local.wait_connected()  # whoever takes part in the lock step is ready
        if agents is not None:
            await agents.cloud.wait_connected()

    async def on_tick(now: int) -> None:
        await node.on_tick(now)
        await peers.on_tick(now)
        if agents is not None:
            await agents.on_tick(now)

    await clock.drive(on_tick, phase="node")


def _agents(settings: EdgeSettings, plant: Plant, node: Node) -> Agents | None:
    """Who decides for cells, where this node does; only then is anything of it loaded."""
    if settings.learning is None:
        return None
    from edge.cells import agents_of

    agents = agents_of(settings, plant, settings.learning, node)
    agents.listen()
    node.first.append(agents.on_bursts)
    node.also.append(agents.counters)
    return agents


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
