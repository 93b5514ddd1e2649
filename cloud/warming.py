"""Kernels are compiled by a child process while the planner starts: it fills the cache on disk, the planner reads it.

A thread that compiles cannot be stopped and holds the interpreter's lock; a process can be killed and has its own.
When all is in the cache already no process is started. When the child fails or takes longer than `MOST_S`, that is
said in the log, and the planner compiles what it needs when it needs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from cloud.scheduling.ready import READY, is_warm
from messages.plan import Measure
from messages.problem import Problem

log = structlog.get_logger("planner")

MOST_S = 300.0
"""A child that is not through by then is killed."""
CHILD = "from cloud.scheduling.ready import main; main()"


async def make_ready(problem: Problem, measures: Sequence[Measure], ready: Callable[[], None]) -> None:
    """Call `ready` as soon as plans for such problems need no compiling any more; return when all is compiled."""
    if await asyncio.to_thread(is_warm, measures):
        log.info("kernels.ready", why="compiled before")
        ready()
        return
    began = time.monotonic()
    log.info("kernels.compiling", why="the first start on this computer; the first plan waits for it")
    try:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
            start_new_session=True,  # Ctrl-C is for us to hear
        )
    except OSError as error:
        log.warning("kernels.not_compiled", why=str(error), then="they are when the first plan needs them")
        return
    last = b""
    try:
        async with asyncio.timeout(MOST_S):
            assert child.stdin and child.stdout
            asked = {"problem": problem.model_dump(mode="json"), "measures": list(measures)}
            with suppress(ConnectionError):  # it died: its last words say why
                child.stdin.write(json.dumps(asked).encode())
                await child.stdin.drain()
                child.stdin.close()
            while line := await child.stdout.readline():
                if line.strip() == READY.encode():
                    log.info("kernels.ready", took_s=round(time.monotonic() - began, 1))
                    ready()
                last = line.strip() or last
            code = await child.wait()
    except TimeoutError:
        code, last = 1, f"not through after {MOST_S:g} s".encode()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if code:
        log.warning(
            "kernels.not_compiled", why=last.decode(errors="replace")[:500], then="they are when a plan needs them"
        )
        return
    log.info("kernels.compiled", took_s=round(time.monotonic() - began, 1))
