"""A cloud that is killed at a step of its own, as by a power cut: `python learning_dies.py DIRECTORY PORT STEP`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from learning_rig import CLOUD, Quick, always, bus_of, settings

from cloud.learning import Learning
from cloud.rounds import Rounds
from messages.bus import Bus
from messages.clock import WallClock
from messages.routes import ROUND


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Mute(Bus):
    """Dies instead of saying that a round was closed."""

    async def publish(self, route: Any, *given: Any, payload: bytes | None = None, **ids: Any) -> None:
        if route is ROUND and b'"closed":{' in (payload or b""):
            die()
        await super().publish(route, *given, payload=payload, **ids)


def main(where: Path, port: int, step: str) -> None:
    if step == "registered":  # the version is in the registry, the round does not know
        register = Rounds.__init__

        def dying(self: Rounds, *given: Any, **named: Any) -> None:
            real = named["register"]
            register(self, *given, **{**named, "register": lambda made: die(real(made))})

        Rounds.__init__ = dying  # type: ignore[method-assign]
    learning = Learning(
        settings(where, pause_s=3600.0),
        site="s1",
        data=where,
        key=CLOUD,
        bus=bus_of(port, Mute if step == "closed" else Bus),
        now=WallClock().now,
        simulate=always(1.0),
    )
    asyncio.run(learning.run(Quick()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
