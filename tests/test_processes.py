"""Child processes end together: who hears SIGTERM by itself, who does not is killed, and how it went is told."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import eventually

from shoal import processes
from shoal.processes import end, how_it_ended, last_words, start

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
OBEDIENT = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3));"
    "print('ready', flush=True); time.sleep(60)"
)


async def ready(log: Path, code: str) -> subprocess.Popen[bytes]:
    process = start([sys.executable, "-c", code], log)
    await eventually(lambda: "ready" in log.read_text())
    return process


async def test_all_are_told_at_once_and_the_deaf_share_one_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_S", 2.0)
    codes = (DEAF, DEAF, DEAF, OBEDIENT)
    children = [await ready(tmp_path / f"{n}.log", code) for n, code in enumerate(codes)]
    began = time.monotonic()
    assert end(*children) == [-9, -9, -9, 3], "the last was told although the first are deaf"
    assert time.monotonic() - began < 5.5, "not one patience for each"
    assert end(*children) == [-9, -9, -9, 3], "to end what has ended does nothing"


def test_it_is_told_how_a_process_ended_and_what_it_said_last(tmp_path: Path) -> None:
    assert [how_it_ended(code) for code in (1, -9, -99)] == [
        "ended with code 1",
        "was killed (SIGKILL)",
        "was killed (signal 99)",
    ]
    log = tmp_path / "log"
    assert last_words(log) == ""
    log.write_text('shoal: the disk is full\n{"level": "info", "event": "routine"}\n')
    assert last_words(log) == " (shoal: the disk is full)"
