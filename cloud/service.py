"""The cloud process: which message goes to which function, and the loops. Nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.full_disk import Room
from cloud.ingest import Ingest
from cloud.learning_settings import LearningSettings
from cloud.ledger import Ledger
from cloud.observer import Observer
from cloud.planbook import PlanBook
from cloud.retired import Retired
from cloud.settings import KEY_FILE, CloudSettings, SwarmSettings
from cloud.stores import Store
from cloud.swarm import Swarm
from cloud.swarmbook import SwarmBook
from messages.bus import Bus
from messages.clock import Clock, clock_from
from messages.connect import SESSION_S, bus_to
from messages.errors import StoreDown, UsageError
from messages.logs import get_logger
from messages.plant import Plant
from messages.routes import BATCH, CHOICE, ORDER, PLAN_ACK, SIGNAL

if TYPE_CHECKING:
    from cloud.validation import Simulate

TIDY_S = 86_400.0
"""Real time between two rounds of retention."""
TIDY_AGAIN_S = 60.0
"""The same after one that a store that is down cut short."""

SERIES_ARE = "series are in"
"""Name under which the store's file keeps where its series are."""

log = get_logger("cloud")


async def run(settings: CloudSettings, simulate: Simulate | None = None) -> None:
    """Take in what the nodes hand over, until cancelled. `simulate` says how well a version of a model does."""
    plant = settings.read_plant()
    clock = clock_from(settings.clock, name="cloud")
    with ExitStack() as opened:
        store = opened.enter_context(settings.store_file.open())
        know_again(store, settings)
        ledger = opened.enter_context(opened_ledger(settings, store))
        mirrors = [opened.enter_context(mirror.open()) for mirror in settings.mirrors]
        bus = bus_to(settings.broker, client_id=f"shoal-ingest-{settings.partition}")
        ingest = Ingest(store, ledger, now=clock.now, mirrors=mirrors)
        name = f"cloud-{settings.partition}" if settings.partition else "cloud"
        observer = Observer(store, ingest, now=clock.now, name=name)
        listen(bus, ingest, settings)
        Retired(ledger, bus, ingest).listen(settings.sites, settings.nodes)
        observer.listen(bus, settings.sites, settings.nodes)
        async with asyncio.TaskGroup() as tg:
            tg.create_task(bus.run(), name="bus")
            tg.create_task(ingest.announce(bus), name="announce")
            tg.create_task(tidy(store, clock), name="tidy")
            tg.create_task(store.run(), name="store")
            tg.create_task(observer.run(), name="observer")
            if settings.learning is not None:
                tg.create_task(learn(settings, settings.learning, simulate, observer), name="learning")
            if plant is not None and settings.swarm is not None:
                tg.create_task(award(settings, settings.swarm, plant, clock, observer), name="judge")
            elif plant is not None:
                tg.create_task(plan(settings, plant, clock, observer), name="planner")
            else:
                tg.create_task(clock.drive(on_tick, phase="cloud"), name="clock")


def know_again(store: Store, settings: CloudSettings) -> None:
    """The same file goes with the same kind of store: another one would hide what was stored, and its ledger would
    keep nodes from sending it again. Another address is said, as it may be the same server by a new name."""
    kind = settings.store.kind
    place = {
        key: str(getattr(settings.store, key)) for key in ("url", "database", "bucket") if hasattr(settings.store, key)
    }
    before = json.loads(store.kept(SERIES_ARE) or "null")
    if before is not None and before["kind"] != kind:
        raise UsageError(
            f"the series of {settings.store_file.path} are in a store of kind {before['kind']!r}, the settings say "
            f"{kind!r}: set the former kind again, or give the new store a `path` of its own; what is there stays there"
        )
    if before is not None and before["place"] != place:
        log.warning("cloud.store_moved", was=before["place"], now=place, why="series stored before are looked for here")
    if before is None or before["place"] != place:
        store.keep(SERIES_ARE, json.dumps({"kind": kind, "place": place}))


async def on_tick(now: int) -> None:
    """Without a planner nothing waits for plant time, but the clock must be heard to be told."""


async def plan(settings: CloudSettings, plant: Plant, clock: Clock, observer: Observer) -> None:
    """Plan one site: orders, signals and acknowledgements come in, time makes it look."""
    place_kernels(Path(__file__).parent / "scheduling", settings.data, os.environ)
    from cloud.planner import Planner  # solvers and their compiler take seconds to load: telemetry alone need not wait

    async def once() -> None:
        bus = bus_to(settings.broker, client_id=f"shoal-planner-{plant.site}")
        with closing(PlanBook(settings.data / "planner.db")) as book, settings.store_file.open(read_only=True) as store:
            planner = Planner(
                settings.planner, plant, book, store, bus, now=clock.now, accelerated=settings.clock is not None
            )
            bus.on(ORDER, planner.on_order, site=plant.site)
            bus.on(SIGNAL, planner.on_signal, site=plant.site)
            bus.on(PLAN_ACK, planner.on_ack, site=plant.site)
            bus.on(CHOICE, planner.on_choice, site=plant.site)
            bus.on_bad(planner.on_bad)
            bus.on_connect(planner.republish)
            async with asyncio.TaskGroup() as tg:
                tg.create_task(planner.get_ready(), name="kernels")
                tg.create_task(bus.run(), name="planner bus")
                tg.create_task(clock.drive(planner.on_tick, phase="cloud"), name="clock")

    room = Room("planner", settings.data, ("planner.db",))
    also(observer, room.counters)
    await room.run(once)


async def award(settings: CloudSettings, wanted: SwarmSettings, plant: Plant, clock: Clock, observer: Observer) -> None:
    """Award the work of one site, task by task, instead of planning it."""
    place_kernels(Path(__file__).parent / "dispatch", settings.data, os.environ)
    counters: Callable[[], dict[str, float]] = dict

    def connect(client_id: str, keep: bool) -> Bus:
        return bus_to(settings.broker, client_id, session_expiry_s=SESSION_S if keep else 0)

    async def once() -> None:
        nonlocal counters
        with closing(SwarmBook(settings.data / "judge.db")) as book, settings.store_file.open(read_only=True) as store:
            swarm = Swarm(wanted, plant, book, store, connect, clock, accelerated=settings.clock is not None)
            counters = swarm.counters
            await swarm.run()

    room = Room("judge", settings.data, ("judge.db",))
    also(observer, lambda: {**counters(), **room.counters()})
    await room.run(once)


async def learn(
    settings: CloudSettings, wanted: LearningSettings, simulate: Simulate | None, observer: Observer
) -> None:
    """Have the nodes of one site learn together, and release what they learned to them."""
    from cloud.learning import Learning, nobody  # where nobody learns nothing of it is loaded
    from cloud.site_learning import FILES
    from messages.signing import SigningKey

    site = settings.learns_at(wanted)
    counters: Callable[[], dict[str, float]] = dict

    async def once() -> None:
        nonlocal counters
        clock = clock_from(settings.clock, name="learning")
        learning = Learning(
            wanted,
            site=site,
            data=settings.data,
            key=SigningKey.at(settings.data / KEY_FILE),
            bus=bus_to(settings.broker, client_id=f"shoal-learning-{site}"),
            now=clock.now,
            simulate=simulate or nobody,
            accelerated=settings.clock is not None,
        )
        counters = learning.counters
        await learning.run(clock)

    room = Room("learning", settings.data, FILES)
    also(observer, lambda: {**counters(), **room.counters()})
    await room.run(once)


def also(observer: Observer, counters: Callable[[], dict[str, float]]) -> None:
    """The observer hands over these counters as well."""
    before = observer.also
    observer.also = lambda: {**before(), **counters()}


def place_kernels(source: Path, data: Path, environ: MutableMapping[str, str]) -> None:
    """Machine code is kept beside its source, or else with our data: a service may have no home. Numba reads where
    when it is imported, and refuses to be without a place."""
    if not os.access(source, os.W_OK):
        environ.setdefault("NUMBA_CACHE_DIR", str(data.absolute() / "kernels"))


async def tidy(store: Store, clock: Clock) -> None:
    """Apply the retention at the start and daily, in short steps between which everything else goes on."""
    while True:
        rest_s = TIDY_S
        try:
            for _ in store.expire(clock.now()):
                await asyncio.sleep(0)
        except StoreDown as error:
            log.warning("store.not_expired", error=str(error))
            rest_s = TIDY_AGAIN_S
        await asyncio.sleep(rest_s)


@contextmanager
def opened_ledger(settings: CloudSettings, store: Store) -> Iterator[Ledger]:
    """The ledger: in the store's own file where that has transactions, else in one of its own."""
    if not (store.durable_on_ack and store.idempotent):
        raise UsageError(
            f"store kind={settings.store.kind!r} may lose or double rows, so it must not free an outbox: "
            "use it beside another store"
        )
    wall_us = time.time_ns() // 1000
    if store.connection is not None:
        yield Ledger(store.connection, wall_us=wall_us, path=settings.store_file.path)
        return
    settings.data.mkdir(parents=True, exist_ok=True)
    path = settings.data / "ledger.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        yield Ledger(connection, wall_us=wall_us, path=path)


def listen(bus: Bus, ingest: Ingest, settings: CloudSettings) -> None:
    """Hear the nodes of this partition; before `bus.run`, as a resumed session delivers at once."""
    for site in settings.sites:
        if not settings.nodes:
            bus.on(BATCH, ingest.on_batches, batch=True, site=site)
        for node in settings.nodes:
            bus.on(BATCH, ingest.on_batches, batch=True, site=site, node=node)
    bus.on_bad(ingest.on_bad)
    bus.on_connect(ingest.on_connect)
