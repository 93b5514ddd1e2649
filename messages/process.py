"""The life of a process: start the root task, stop it by cancelling, end with an honest exit code.

    raise SystemExit(run_until_stopped(edge.service.run(settings)))

SIGTERM and SIGINT cancel the root task; `finally` blocks run; the exit code is 0. A second Ctrl-C does not
wait for them. A deliberate error is one line on stderr: exit 2 when the user can correct it (UsageError),
else 1. A BrokenInvariant is logged as well, with its traceback. Any other exception is a defect of ours: one line on
stderr that says so, the traceback in the log, exit 1.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from messages.errors import BrokenInvariant, ShoalError, UsageError
from messages.logs import get_logger

GC_THRESHOLD = (50_000, 20, 100)
"""Containers made before Python looks for cycles. Messages are many lists without cycles: at the default of 700 a node
at full speed spends a tenth of its time looking through them in vain. What this may leave uncollected for a while is
some MB."""

DONE, FAILED, WRONG_USAGE = 0, 1, 2
"""Exit codes of every command and process."""


def run_until_stopped(main: Coroutine[Any, Any, object]) -> int:
    """Run `main` until it ends, fails or is told to stop; returns the exit code."""
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.set_threshold(*GC_THRESHOLD)
    try:
        return asyncio.run(_supervise(main))
    except KeyboardInterrupt:  # the second Ctrl-C
        return FAILED
    except ModuleNotFoundError:  # an extra that is not installed: the command line knows its name
        raise
    except Exception as error:
        return report(error)


def report(error: BaseException) -> int:
    """Say deliberate errors, one line each, on stderr; returns the exit code. Anything else is a `defect`."""
    leaves = list(_leaves(error))
    ours = [leaf for leaf in leaves if isinstance(leaf, ShoalError)]
    if len(ours) < len(leaves):
        return defect(next(leaf for leaf in leaves if not isinstance(leaf, ShoalError)))
    for broken in (leaf for leaf in ours if isinstance(leaf, BrokenInvariant)):
        get_logger().error("process.broken_invariant", why=str(broken), exc_info=broken)
    for line in dict.fromkeys(str(leaf) or type(leaf).__name__ for leaf in ours):
        print(f"shoal: {line}", file=sys.stderr)
    return WRONG_USAGE if ours and all(isinstance(leaf, UsageError) for leaf in ours) else FAILED


def defect(error: BaseException) -> int:
    """Say that Shoal itself is at fault, in one line; the traceback goes to the log. Returns the exit code."""
    get_logger().error("process.defect", error=repr(error)[:500], exc_info=error)
    what = (str(error).splitlines() or [""])[0][:300]
    print(f"shoal: a defect in Shoal: {type(error).__name__}: {what}; please report it with the log", file=sys.stderr)
    return FAILED


def die_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` for subprocess.Popen: the kernel sends `how` to the child when its parent is gone.

    None where the kernel cannot (Linux only). The parent is the thread that starts the child: it must stay alive.
    libc is loaded here, before the fork, because a child of a threaded process must not load anything.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent, number = os.getpid(), int(how)

    def child() -> None:
        prctl(1, number)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it went between fork and prctl, and nobody would tell
            os._exit(FAILED)

    return child


async def _supervise(main: Coroutine[Any, Any, object]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main, name="root")
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        loop.remove_signal_handler(signal.SIGINT)  # the next Ctrl-C interrupts at once
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not told:  # cancelled by itself: a bug, not a stop
            raise
    return DONE


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
