"""Tell a plant how clean its electricity will be: publish the signal `carbon`. Put your own forecast into `forecast`.

    SITE=ceramic python examples/carbon_signal.py

Once, and again every hour and after every reconnect; the broker keeps the newest for whoever asks later. A signal has
a start, a step and values in kg CO2e per kWh; a higher revision replaces a lower one. The user needs the right to write
signals: `role.operator` of the access rules. MQTT_HOST, MQTT_PORT, MQTT_USERNAME and MQTT_PASSWORD say where and who.
"""

from __future__ import annotations

import asyncio
import os
import time

from messages.bus import Bus
from messages.carbon import day_of_carbon
from messages.clock import SECOND
from messages.contracts import Signal
from messages.errors import BusLost
from messages.process import run_until_stopped
from messages.routes import SIGNAL

EVERY_S = 3600.0
HOUR = 3600 * SECOND


def forecast(now: int) -> Signal:
    """Hour by hour from yesterday's midnight (UTC), five days: made up, cheap at noon and dear at night."""
    midnight = (now // (24 * HOUR) - 1) * 24 * HOUR
    return day_of_carbon(midnight, days=5).model_copy(update={"revision": now // SECOND})


async def main(site: str, host: str, port: int, username: str | None, password: str | None) -> None:
    bus = Bus(host, port, client_id=f"carbon-{site}", username=username, password=password)

    async def tell() -> None:
        await bus.publish(SIGNAL, forecast(time.time_ns() // 1000), site=site, signal="carbon")

    bus.on_connect(tell)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bus.run())
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await tell()
            except BusLost:
                continue  # told again after the reconnect


if __name__ == "__main__":
    env = os.environ
    raise SystemExit(
        run_until_stopped(
            main(
                env.get("SITE", "ceramic"),
                env.get("MQTT_HOST", "127.0.0.1"),
                int(env.get("MQTT_PORT", "1883")),
                env.get("MQTT_USERNAME"),
                env.get("MQTT_PASSWORD"),
            )
        )
    )
