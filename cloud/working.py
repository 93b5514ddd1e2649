"""Work in a thread that nobody has to wait for: it is told to end when its answer is not wanted any more.

    found = await in_thread(lambda: alternatives(problem, first, before, settings, stop), stop)

Cancelled, the call sets `stop`, waits `PATIENCE_S` at most and leaves a thread that has not ended by then behind; it is
a daemon, so it keeps no process alive. (The threads of `asyncio.to_thread` are waited for at the end of a process,
however long they take: compiling a kernel looks at no event.)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 2.0
"""A thread that was told to end is waited for so long."""
LOOK_S = 0.25
"""`look` is called this often while the thread works."""


async def in_thread(work: Callable[[], T], stop: threading.Event, *, look: Callable[[], None] | None = None) -> T:
    """What `work` returns or raises; meanwhile `look` may see to it that `stop` is set."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    made: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(work())
        except BaseException as error:
            failed.append(error)  # raised again by who waits
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="planner", daemon=True).start()
    try:
        while not await _within(LOOK_S, ended):
            if look is not None:
                look()
    except BaseException:
        stop.set()
        await _within(PATIENCE_S, ended)
        raise
    if failed:
        raise failed[0]
    return made[0]


async def _within(seconds: float, ended: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended.wait()
    return ended.is_set()
