"""What the demo and torture have in common of the processes they start: how one begins and ends, what it last said."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from messages.errors import ShoalError
from messages.process import die_with_parent

STOP_S = 10.0
"""Processes that were told to end are killed after so long."""


class ProcessFailed(ShoalError):
    """A process that should run does not, or fell silent; the text names its log."""


def start(command: Sequence[str], log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start it; what it says is added to `log`. It ends with the thread that started it, however that ends."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            preexec_fn=die_with_parent(signal.SIGKILL),
            start_new_session=True,  # Ctrl-C in the terminal is for whoever starts it, and ends it in order
        )


def end(*processes: subprocess.Popen[bytes]) -> list[int]:
    """SIGTERM to all of them, after STOP_S SIGKILL; their exit codes."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    return [process.wait() for process in processes]


def how_it_ended(code: int) -> str:
    """`ended with code 1`, `was killed (SIGKILL)`."""
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed ({signal.Signals(-code).name})"
    return f"was killed (signal {-code})"


def last_words(log: Path) -> str:
    """` (last words)`: the last line of a log that is no routine; empty if there is none."""
    lines = log.read_text(errors="replace").splitlines()[-50:] if log.exists() else []
    words = [line for line in lines if line and (line[0] != "{" or '"level": "error"' in line)]
    return f" ({words[-1][:500]})" if words else ""
