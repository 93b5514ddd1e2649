"""What dashboards see of nodes, signals and the plan gets to the store, and what is stored gets to the mirror."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from conftest import beside, eventually
from servers import Victoria
from test_ingest import EPOCH, Node, batch

from cloud.service import run
from cloud.settings import CloudSettings
from cloud.stores import VictoriaMirror
from messages.broker import Broker
from messages.connect import BrokerSettings
from messages.contracts import Batch, Health, Progress, Series, Signal
from messages.errors import StoreDown
from messages.routes import HEALTH, PROGRESS, SIGNAL


async def test_the_newest_health_signal_and_progress_are_kept_and_ingest_tells_of_itself(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.observer.ROUND_S", 0.05)
    settings = CloudSettings(sites=("ceramic",), broker=BrokerSettings(port=broker.port), data=tmp_path / "cloud")
    node = Node(broker)
    async with beside(node.bus.run(), run(settings)):
        await node.hand_over({0: batch(0).encode()})
        bus = node.bus
        for bursts in (1.0, 2.0):
            await bus.publish(
                HEALTH, Health(at=5, session="ab" * 4, counters={"bursts": bursts}), site="ceramic", node="firing"
            )
        carbon = Signal(name="carbon", revision=1, unit="g/kWh", start=7_000_000, step_s=60, values=[200.0, 210.0])
        await bus.publish(SIGNAL, carbon, site="ceramic", signal="carbon")
        done = Progress(
            at=9, revision=3, replans=1, operations_done=4, operations=9, jobs_done=1, jobs=3, down=["kiln-1"]
        )
        await bus.publish(PROGRESS, done, site="ceramic")
        with settings.store_file.open(read_only=True) as store:

            def kept(name: str) -> dict[str, float]:
                return json.loads(store.kept(name) or "{}")  # type: ignore[no-any-return]

            await eventually(lambda: kept("health/ceramic/firing") == {"at": 5, "bursts": 2.0})
            await eventually(lambda: kept("signal/ceramic/carbon") == {"at": 67_000_000, "value": 210.0})
            await eventually(lambda: kept("progress/ceramic").get("machines_down") == 1.0)
            await eventually(lambda: kept("health/ceramic/cloud").get("batches") == 1.0)
            own = kept("health/ceramic/cloud")
            assert {"repeats", "store_waits", "mirror_dropped"} <= own.keys() and "last_at" not in own


async def test_what_is_stored_is_mirrored_once_though_it_is_handed_over_twice(broker: Broker, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000 * 1000 - 60_000_000
    one = Series(device="kiln-1", metric="power_kw", unit="kW", t0=now, at=[0, 1000], value=[1.0, 2.0], quality=192)
    payload = Batch(epoch=EPOCH, lane="live", seq=0, floor=0, made_at=now, series=[one]).encode()
    node = Node(broker)
    with Victoria(tmp_path / "vm") as victoria:
        settings = CloudSettings(
            sites=("ceramic",), broker=BrokerSettings(port=broker.port), data=tmp_path / "cloud",
            mirrors=(VictoriaMirror(url=victoria.url),),
        )  # fmt: skip
        async with beside(node.bus.run(), run(settings)):
            for _ in range(2):
                await node.hand_over({0: payload})
                await node.send(payload)
            found = await eventually(lambda: victoria.series("power_kw_value"))
            await asyncio.sleep(0.1)
            assert found == victoria.series("power_kw_value")
        assert [row["values"] for row in found] == [[1.0, 2.0]]


async def test_a_store_that_does_not_take_observations_costs_only_them(tmp_path: Path) -> None:
    from test_ingest import opened

    from cloud.observer import Observer

    with opened(tmp_path / "s.db") as (store, _, ingest):
        observer = Observer(store, ingest, now=lambda: 1)
        observer._sites = ("ceramic",)

        def down(_: object) -> None:
            raise StoreDown("disk full")

        store.observe, observe = down, store.observe  # type: ignore[method-assign]
        observer.hand_over()
        store.observe = observe  # type: ignore[method-assign]
        observer.hand_over()
        assert json.loads(store.kept("health/ceramic/cloud") or "{}")["batches"] == 0
