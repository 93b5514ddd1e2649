"""Takes back what a cloud said to its nodes, before an older copy of its store is put in place.

    words = take_back(settings.broker, settings.sites, settings.nodes)      # how many; the cloud must not run

The broker retains the last StoredThrough of every node. A node that was away hears it when it is back, and frees what
it lists: from an older copy of the store that may be missing. Once it is cleared, that node sends again what it holds,
and is told anew. BusLost, with the cure, when the broker cannot be reached or refuses; twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from messages.bus import Bus, Received
from messages.connect import BrokerSettings, bus_to
from messages.errors import BadMessage, BusLost
from messages.routes import STORED

CONNECT_S = 10.0
"""So long the broker may take to be there."""
QUIET_S = 1.0
"""What is retained has come when nothing came for so long."""
LOOK_S = 60.0
"""Longest look, whatever still comes."""


def take_back(broker: BrokerSettings, sites: Sequence[str], nodes: Sequence[str] = ()) -> int:
    """Clear `down/stored` of the nodes of these sites (no nodes: of all); how many there were."""
    bus = bus_to(broker, "shoal-restore", session_expiry_s=0)
    try:
        return asyncio.run(_cleared(bus, sites, nodes))
    except BusLost as error:
        raise BusLost(
            f"cannot take back at the broker what this cloud said to its nodes ({error}): start the broker or correct "
            "[broker], then run this again; if there will be no such broker, --without-broker. Nothing was replaced"
        ) from None


async def _cleared(bus: Bus, sites: Sequence[str], nodes: Sequence[str]) -> int:
    loop = asyncio.get_running_loop()
    found: set[tuple[str, str]] = set()
    news = asyncio.Event()

    def hear(ids: dict[str, str]) -> None:
        found.add((ids["site"], ids["node"]))
        news.set()

    async def on_stored(received: Received) -> None:
        hear(received.ids)

    async def on_bad(topic: str, _payload: bytes, _reason: str) -> None:
        with suppress(BadMessage):  # the word of another version, which nodes may understand
            hear(STORED.ids(topic))

    for site in sites:
        if not nodes:
            bus.on(STORED, on_stored, site=site)
        for node in nodes:
            bus.on(STORED, on_stored, site=site, node=node)
    bus.on_bad(on_bad)
    running = asyncio.create_task(bus.run())
    try:
        await bus.wait_connected(CONNECT_S)
        until = loop.time() + LOOK_S
        with suppress(TimeoutError):
            while loop.time() < until:
                async with asyncio.timeout(QUIET_S):
                    await news.wait()
                news.clear()
        if not bus.connected.is_set():
            raise BusLost("the connection went")
        for site, node in sorted(found):
            await bus.clear(STORED, site=site, node=node)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return len(found)
