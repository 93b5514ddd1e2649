"""The end of a node, or of its disk: hand over what is left, take back what was left at the brokers, and stay away.

    with resumable(node):
        await hand_over(node)                   # returns when the store has, and knows, all there ever was
        await take_back(node)                   # the node's retained messages are gone
    refuse_retired(disk, settings.data)         # at every ordinary start

A disk that was found again hands over under a client id of its own, beside the node that took its place: its epochs
are its own, so neither frees what the other holds. Nothing is taken in meanwhile and no machine is told anything;
bursts that had reached the disk are cleaned and handed over, because their devices forgot them.
A node that retires puts a mark on its disk first: from then on it is not started by mistake. Whatever interrupts it,
the same command goes on where it was. Last it clears its presence: the cloud then forgets what it said to the node.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.disk import Disk
from edge.node import Node
from messages.bus import Bus
from messages.errors import BusLost, ConfigError, ShoalError
from messages.logs import get_logger
from messages.routes import AGENDA, CAPABILITY, LATEST, MODEL_REPORT, PEER_AGENDA, PRESENCE

LOOK_S = 0.2
SAY_S = 2.0
"""So often it says what is left."""
ANSWER_S = 15.0
"""So long a retired node waits for the cloud to take back its word as well."""
SESSION_WAIT_S = 5.0
_KEY = "retired"
_SETTLE_S = 3_600.0

log = get_logger("edge")


def refuse_retired(disk: Disk, folder: Path) -> None:
    """ConfigError when the node of this disk was retired, or is about to be."""
    mark = disk.state(_KEY)
    if mark is not None:
        raise ConfigError(
            f"data={str(folder)!r}: this node was retired, and is not started by mistake. If it is to work again, "
            "`shoal edge --unretire` with the same settings takes the mark away; a new node needs a folder of its own"
        )


def mark_retired(disk: Disk, now: int) -> None:
    """From now on this disk is not started in the ordinary way."""
    if disk.state(_KEY) is None:
        with disk.transaction():
            disk.keep(_KEY, json.dumps({"at": now}).encode())


def unmark(disk: Disk) -> bool:
    """Take the mark away; whether there was one."""
    with disk.transaction():
        return disk.db.execute("DELETE FROM state WHERE key = ?", (_KEY,)).rowcount > 0


@contextmanager
def resumable(node: Node) -> Iterator[None]:
    """ShoalError, and so an honest exit code, when this is interrupted before its end."""
    try:
        yield
    except asyncio.CancelledError:
        left = f"{_left(node)} are left on this disk"
        raise ShoalError(f"interrupted: {left}; the same command goes on from here") from None


async def hand_over(node: Node) -> None:
    """Clean what is in the inbox, and send until nothing is left."""
    await _flush(node)
    tasks = [asyncio.create_task(node.process()), asyncio.create_task(node.uplink.run())]
    watch = asyncio.create_task(_until_empty(node))
    try:
        await asyncio.wait([watch, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for done in [*tasks, watch]:
            if done.done():
                await done  # raises what ended it
    finally:
        for task in [watch, *tasks]:
            task.cancel()
        await asyncio.gather(watch, *tasks, return_exceptions=True)


class Forgotten:
    """Hears that the cloud took back its StoredThrough: `bus.on(STORED, …, on_cleared=forgotten)`."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    async def __call__(self, ids: dict[str, str]) -> None:
        self.heard.set()


async def take_back(node: Node, forgotten: Forgotten, *, models: Collection[str] = ()) -> None:
    """Clear what this node retained at the cloud's broker; its presence last, as that is what the cloud goes by."""
    me, bus = {"site": node.site, "node": node.node}, node.cloud
    rows = await node.disk.read(lambda: node.disk.db.execute("SELECT DISTINCT device FROM heard").fetchall())
    devices = node.intake.devices | {device for (device,) in rows}
    forgotten.heard.clear()
    while True:
        await bus.wait_connected()
        with suppress(BusLost):  # then from the beginning: to clear twice changes nothing
            for device in sorted(devices):
                await bus.clear(LATEST, **me, device=device)
            for model in models:
                await bus.clear(MODEL_REPORT, **me, model=model)
            await bus.clear(CAPABILITY, **me)
            for agenda in (AGENDA, PEER_AGENDA):  # else every judge would hear for ever what it held
                await bus.clear(agenda, **me)
            await bus.clear(PRESENCE, **me)
            break
        await asyncio.sleep(LOOK_S)
    log.info("edge.taken_back", devices=len(devices), presence=True, capability=True)
    try:
        async with asyncio.timeout(ANSWER_S):
            await forgotten.heard.wait()
    except TimeoutError:
        cure = "it does so as soon as it is there again: nothing is left to do here"
        log.warning("edge.not_forgotten", why="the cloud has not taken back down/stored yet", cure=cure)


async def end_session(bus: Bus, *, site: str, node: str) -> None:
    """Make a broker forget the session of this client id, made to end when it goes, and what the node told others of
    its site; not for ever if it is not there."""
    running = asyncio.create_task(bus.run())
    try:
        await bus.wait_connected(SESSION_WAIT_S)
        await bus.clear(PEER_AGENDA, site=site, node=node)
    except BusLost as error:
        log.warning("edge.session_stays", why=str(error), cure="it ends by itself, a week after it was last used")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _flush(node: Node) -> None:
    """Gaps whose grace is over and refusals that were held back: nobody else will tell them."""
    now = node.clock.now()
    for monotonic_s in (_SETTLE_S, 3 * _SETTLE_S):  # holes are noted, then lost
        await node.intake.settle(now, monotonic_s=node.monotonic() + monotonic_s)


async def _until_empty(node: Node) -> None:
    said = -SAY_S
    while True:
        if not node.intake.waiting and await node.disk.read(lambda: node.outbox.empty):
            return
        if node.monotonic() - said >= SAY_S:
            said = node.monotonic()
            log.info(
                "edge.handing_over",
                left=_left(node),
                connected=node.cloud.connected.is_set(),
                stored_said=node.uplink.counts.stored_said,
            )
        await asyncio.sleep(LOOK_S)


def _left(node: Node) -> str:
    return f"{node.intake.waiting} bursts, {sum(node.outbox.held.values())} batches"
