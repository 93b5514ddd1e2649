"""The ends of a node as commands: hand a disk over, retire the node, take that back. Their steps are in `edge.retire`.

    await drain(settings)          # beside the node that took its place; ends when the disk is empty
    await retire(settings)         # everything handed over and taken back, and the disk marked
    await unretire(settings)

A disk is opened where one was; none is made here.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import closing

from edge.assembly import devices_of, node_of, sessions
from edge.disk import Disk
from edge.node import Node
from edge.retire import Forgotten, end_session, hand_over, mark_retired, resumable, take_back, unmark
from edge.settings import EdgeSettings
from messages.bus import Bus
from messages.clock import clock_from
from messages.connect import bus_to
from messages.errors import UsageError
from messages.logs import get_logger
from messages.plant import Plant
from messages.routes import STORED

log = get_logger("edge")


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
        [(broker, name), *others] = sessions(settings)
        forgotten = Forgotten()
        node = _without_machines(settings, plant, disk, bus_to(broker, name, session_expiry_s=0), forgotten)
        with resumable(node):
            async with asyncio.TaskGroup() as tg:
                running = tg.create_task(node.cloud.run(), name="cloud")
                await hand_over(node)
                await take_back(node, forgotten, models=_models(settings, plant))
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


def _without_machines(
    settings: EdgeSettings, plant: Plant, disk: Disk, cloud: Bus, forgotten: Forgotten | None = None
) -> Node:
    """A node that only hands over: it hears no machine, and what it would tell one is not sent."""
    clock, session = clock_from(None, name=settings.node), secrets.token_hex(8)
    nobody = bus_to(settings.local, f"{settings.site}-{settings.node}-nobody")  # never connected
    with disk.damage_named():
        node = node_of(settings, plant, devices_of(settings, plant), disk, clock, session, nobody, cloud, nobody)
    cloud.on(STORED, node.uplink.on_stored, on_cleared=forgotten, site=settings.site, node=settings.node)
    cloud.on_connect(node.uplink.on_connect)
    return node


def _models(settings: EdgeSettings, plant: Plant) -> list[str]:
    """Models this node says something of."""
    if settings.learning is None:
        return []
    from edge.cells import cells_of

    return [cell.model for cell in cells_of(plant, settings.node, settings.learning)]
