"""A node under fire on the bus: whatever is said of learning, by whoever, it decides on, and takes what is sound."""

from __future__ import annotations

import random
import time
from pathlib import Path

from agent_rig import NODE, SITE, LiveCell, Teacher, asked, plant_file, released, settings_of, vector, wanting
from conftest import eventually
from test_agent_live import NodeProcess, decided, running

from edge.settings import EdgeSettings
from messages.broker import Broker
from messages.learning import Artefact
from messages.routes import ARTEFACT, MODEL, ROUND
from messages.signing import SigningKey, sign

STRANGER = SigningKey.from_seed(b"s" * 32)


async def test_garbage_strangers_replays_and_broken_parts_neither_stop_nor_change_a_node(
    tmp_path: Path, broker: Broker
) -> None:
    folder, rng = tmp_path / "node", random.Random(7)
    plant_file(folder, step_s=3600.0)
    settings = EdgeSettings.model_validate(settings_of(folder, broker.port, explore=0.0))
    cell, teacher = LiveCell(broker.port), Teacher(broker.port)
    now = time.time_ns() // 1000
    async with running(cell, teacher):
        with NodeProcess(folder, settings) as node:
            await teacher.release(1, wanting("reroute"), counter=5)
            await eventually(lambda: teacher.reports and teacher.reports[-1].running == 1)

            async def say_release(payload: bytes) -> None:
                await teacher.bus.publish(MODEL, payload=payload, site=SITE, node=NODE, model="cell")

            good, artefacts = released(2, wanting("service"), counter=9)
            old, _ = released(3, wanting("service"), counter=4)
            elsewhere = good.model_copy(update={"target": f"{SITE}/south"})
            whole = sign(good, teacher.key, name="cloud")
            for payload in (
                b"", b"{}", b"\xff" * 100, b"[" * 100_000, rng.randbytes(300_000), whole[:-30], whole + b" ",
                sign(good, STRANGER, name="cloud"), sign(good, STRANGER, name="stranger"),
                sign(old, teacher.key, name="cloud"), sign(elsewhere, teacher.key, name="cloud"),
                sign(asked(9, vector(1), now=now), teacher.key, name="cloud"),
            ):  # fmt: skip
                await say_release(payload)
                await teacher.bus.publish(ROUND, payload=payload, site=SITE)
            await teacher.say(asked(3, vector(1), now=now), key=STRANGER)
            await teacher.say(asked(3, vector(1), now=now - 10**14))
            await decided(cell, 2)
            await say_release(whole)
            for digest in (Artefact.of(data).digest for data in artefacts):
                for part, data in (
                    ("0", b""),
                    ("0", b"x"),
                    ("7", b"x"),
                    ("x", b"x"),
                    ("9" * 32, b"x"),
                    ("0", bytes(9)),
                ):
                    await teacher.bus.publish(ARTEFACT, payload=data, site=SITE, digest=digest, part=part)
            await eventually(lambda: any(one.counter == 9 and one.refused for one in teacher.reports))
            await eventually(lambda: teacher.health.get("rounds_refused", 0) >= 1)
            await decided(cell, 2)
            assert {action.kind for action in cell.actions} == {"reroute"}
            assert teacher.reports[-1].running == 1
            await teacher.release(2, wanting("service"), counter=10)
            await eventually(lambda: teacher.reports[-1].running == 2)
            await decided(cell, 2)
            assert cell.actions[-1].kind == "service"
            assert node.process.poll() is None
    assert "Traceback" not in (folder / "log").read_text()
