"""A full disk under who judges or plans: telemetry goes on, and so does he when there is room; nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import beside, eventually
from full_disk_rig import FullDisk
from swarm_rig import PLANT

from cloud.full_disk import Room
from cloud.orderbook import OrderBook
from cloud.service import run
from cloud.settings import CloudSettings, SwarmSettings
from messages.broker import Broker
from messages.bus import Bus
from messages.clock import SECOND
from messages.connect import BrokerSettings
from messages.contracts import Signal
from messages.dispatch.judge import ByRule
from messages.errors import UsageError
from messages.routes import SIGNAL

T0 = 1_750_000_000 * SECOND


def error_of(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("file", "swarm", "who"),
    [("judge.db", SwarmSettings(judge=ByRule(kind="fifo")), "judge"), ("planner.db", None, "planner")],
)
async def test_on_a_full_disk_who_decides_waits_alone_and_takes_what_came_meanwhile_when_there_is_room(
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    swarm: SwarmSettings | None,
    who: str,
) -> None:
    disk = FullDisk(OrderBook, monkeypatch)
    (tmp_path / "plant.toml").write_text(PLANT)
    data = tmp_path / "cloud"
    address = BrokerSettings(port=broker.port)
    cloud = CloudSettings(sites=("s1",), data=data, broker=address, plant=tmp_path / "plant.toml", swarm=swarm)
    values = [round(n / 7, 6) for n in range(5_000)]
    signal = Signal(name="carbon", revision=1, unit="kg/kWh", start=T0, step_s=3600.0, values=values)
    bus = Bus("127.0.0.1", broker.port, client_id="forecaster", session_expiry_s=0)
    async with beside(asyncio.ensure_future(bus.run())):
        await bus.wait_connected(20)
        await bus.publish(SIGNAL, signal, site="s1", signal="carbon")
        process = asyncio.ensure_future(run(cloud))
        async with beside(process):
            await eventually(lambda: disk.opened >= 3, what="it tries again")
            assert not process.done() and f"{who}.disk_full" in capsys.readouterr().out
            disk.full = False
            await eventually(lambda: signals(data / file) == ["carbon"])


def signals(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return [name for (name,) in database.execute("SELECT name FROM signal")]


async def test_only_a_disk_that_takes_nothing_more_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.full_disk.FULL_S", 0.0)
    full, broken = error_of(sqlite3.SQLITE_FULL), error_of(sqlite3.SQLITE_CORRUPT)
    room, left = Room("judge", tmp_path), [full, ExceptionGroup("two", [full, ExceptionGroup("one", [full])])]

    async def once() -> None:
        if left:
            raise left.pop(0)

    await room.run(once)
    assert room.counters() == {"judge_disk_full": 2.0}
    for error in (broken, ExceptionGroup("two", [full, broken]), UsageError("name the cure")):
        left.append(error)  # type: ignore[arg-type]
        with pytest.raises(ExceptionGroup if isinstance(error, ExceptionGroup) else UsageError):
            await room.run(once)
    assert room.times == 2
