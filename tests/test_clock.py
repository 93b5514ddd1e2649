"""The lock step: phases in order, whoever works holds time, the dead and the silent are left out."""

from __future__ import annotations

import asyncio

import pytest

from messages.clock import SECOND, ClockService, LockStepClock, OnTick, Phase, WallClock, clock_from
from messages.errors import BrokenInvariant, UsageError


def member(service: ClockService, name: str, phase: Phase, on_tick: OnTick) -> asyncio.Task[None]:
    clock = LockStepClock(service.host, service.port, name=name)
    return asyncio.create_task(clock.drive(on_tick, phase=phase))


async def test_machines_come_before_nodes_and_nodes_before_the_cloud_and_a_slow_one_holds_time() -> None:
    seen: list[tuple[str, int]] = []

    def noting(name: str, pause_s: float) -> OnTick:
        async def on_tick(now: int) -> None:
            await asyncio.sleep(pause_s)
            seen.append((name, now))

        return on_tick

    async with ClockService(start=0) as service:
        tasks = [
            member(service, "planner", "cloud", noting("planner", 0)),
            member(service, "node", "node", noting("node", 0.02)),
            member(service, "sim", "machine", noting("sim", 0.05)),
        ]
        await service.gather({"planner", "node", "sim"}, timeout_s=60)
        await service.step(to=SECOND)
        await service.step(to=2 * SECOND)
        assert seen == [(who, at * SECOND) for at in (1, 2) for who in ("sim", "node", "planner")]
        for task in tasks:
            task.cancel()


async def test_a_dead_member_is_left_out_and_may_come_back() -> None:
    async def nothing(now: int) -> None:
        return

    async with ClockService(start=0) as service:
        first = member(service, "node", "node", nothing)
        await service.gather({"node"}, timeout_s=60)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        async with asyncio.timeout(60):
            await service.step(to=SECOND)
        assert service.members == frozenset()
        again = member(service, "node", "node", nothing)
        await service.gather({"node"}, timeout_s=60)
        again.cancel()


async def test_a_silent_member_is_put_out_after_the_patience() -> None:
    async def stuck(now: int) -> None:
        await asyncio.Event().wait()

    async with ClockService(start=0, patience_s=0.1) as service:
        task = member(service, "stuck", "node", stuck)
        await service.gather({"stuck"}, timeout_s=60)
        async with asyncio.timeout(60):
            await service.step(to=SECOND)
        assert service.put_out == ["stuck"]
        task.cancel()


async def test_strangers_and_noise_do_not_disturb_the_clock() -> None:
    async with ClockService(start=0) as service:
        for noise in (b"GET / HTTP/1.1\r\n", b'{"name": "x", "phase": "nowhere"}\n', b"\xff\n", b"[]\n"):
            _, writer = await asyncio.open_connection(service.host, service.port)
            writer.write(noise)
            await writer.drain()
            writer.close()
        async with asyncio.timeout(60):
            await service.step(to=SECOND)
        assert service.members == frozenset()


async def test_a_lost_clock_ends_the_process_and_a_missing_one_is_named() -> None:
    async def nothing(now: int) -> None:
        return

    async with ClockService(start=0) as service:
        task = member(service, "node", "node", nothing)
        await service.gather({"node"}, timeout_s=60)
    with pytest.raises(BrokenInvariant, match="clock service"):
        await task
    with pytest.raises(UsageError, match="no clock service"):
        await LockStepClock(service.host, service.port, name="late").drive(nothing, phase="node")


async def test_plant_time_does_not_run_backwards() -> None:
    async with ClockService(start=SECOND) as service:
        with pytest.raises(UsageError, match="backwards"):
            await service.step(to=0)


def test_a_clock_address_is_checked() -> None:
    assert isinstance(clock_from(None, name="x"), WallClock)
    assert isinstance(clock_from("127.0.0.1:99", name="x"), LockStepClock)
    for bad in ("127.0.0.1", ":1", "host:port"):
        with pytest.raises(UsageError, match="host:port"):
            clock_from(bad, name="x")
