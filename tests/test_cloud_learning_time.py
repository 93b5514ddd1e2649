"""In lock step the learning cloud hears nobody before it knows what time it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from conftest import eventually
from learning_rig import CLOUD, always, settings

from cloud.learning import Learning
from messages.broker import Broker
from messages.bus import Bus
from messages.clock import SECOND, ClockService, LockStepClock

T0 = 1_800_000_000 * SECOND


async def test_what_waits_for_a_cloud_that_was_away_is_heard_when_the_time_is_known(
    broker: Broker, tmp_path: Path
) -> None:
    """A trial that ended at time 0 would be followed by releases that are no longer valid when they are said."""
    async with ClockService(start=T0) as service:
        time = LockStepClock("127.0.0.1", service.port, name="learning")
        bus = Bus(broker.host, broker.port, client_id="shoal-learning-s1", backoff_s=(0.05, 0.2))
        times: list[int] = []

        async def connected() -> None:
            times.append(time.now())

        bus.on_connect(connected)
        learning = Learning(
            settings(tmp_path), site="s1", data=tmp_path, key=CLOUD, bus=bus, now=time.now, simulate=always(1.0),
            accelerated=True,
        )  # fmt: skip
        running = asyncio.create_task(learning.run(time))
        try:
            await service.gather({"learning"}, timeout_s=60)
            other = Bus(broker.host, broker.port, client_id="other", session_expiry_s=0)
            looking = asyncio.create_task(other.run())
            await other.wait_connected(30)  # whoever does not wait for the time is connected by now, too
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            await service.step(to=T0 + SECOND)
            await eventually(lambda: times)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert times[0] == T0 + SECOND
