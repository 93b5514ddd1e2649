"""Bytes that nobody can read are counted, and said ever more seldom: no flood of them fills a small disk with lines."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from conftest import eventually
from edge_rig import SITE, EdgeProcess
from paho.mqtt.publish import multiple
from structlog.testing import capture_logs
from test_firmware_service import floor, steps

from messages.broker import Broker
from messages.routes import ACTION, PLAN

FLOOD = 40
LINES = 6
"""The 1st, 2nd, 4th, 8th, 16th, 32nd."""


async def flood(broker: Broker, topic: str) -> None:
    messages: list[Any] = [(topic, b"{%d" % k, 1, False) for k in range(FLOOD)]
    await asyncio.to_thread(multiple, messages, hostname="127.0.0.1", port=broker.port)


async def test_a_simulated_floor_says_the_first_and_then_every_doubling(broker: Broker, tmp_path: Path) -> None:
    async with floor(broker, tmp_path) as (sim, _, clock):
        await steps(clock, 1)
        with capture_logs() as said:
            await flood(broker, ACTION.topic(site="tiny", node="press", device="press-1"))
            await eventually(lambda: sim.counts["bad_messages"] == FLOOD)
    assert [line["bad"] for line in said if line["event"] == "message.bad"] == [1, 2, 4, 8, 16, 32]


async def test_a_node_says_the_first_and_then_every_doubling(broker: Broker, tmp_path: Path) -> None:
    with EdgeProcess(tmp_path / "edge", broker.port) as edge:
        log, topic = edge.folder / "log", PLAN.topic(site=SITE)
        await eventually(lambda: (edge.data / "node.db").exists())
        for _ in range(50):  # until its session is there nobody hears what is published
            await flood(broker, topic)
            if log.read_text().count("edge.bad_message") >= LINES:
                break
            await asyncio.sleep(0.2)
        lines = log.read_text().count("edge.bad_message")
    assert LINES <= lines <= LINES + 6, "of some 40 at least, and of 2,000 at most"
