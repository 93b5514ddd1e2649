"""A whole plant on one computer: private broker, lock-step clock, simulator, edge nodes and cloud as processes.

    async with Stage(directory, plant, start_at, cast) as stage:
        await stage.up()                          # all processes run and take part in the clock
        await stage.step()                        # one tick of plant time
        stage.kill("drying"); stage.start("drying")

Every process has its own settings file and log in `directory`, so that anyone can look, or start one by hand.
All of them end with the stage, also when it is killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from messages.broker import Broker
from messages.clock import SECOND, ClockService
from messages.errors import ShoalError
from messages.plant import Plant
from messages.settings import Settings, describe

START_S = 30.0
"""Real time within which every process must take part."""
STOP_S = 10.0
"""Real time a process has to end by itself before it is killed."""


class ProcessFailed(ShoalError):
    """A process of the stage ended by itself; the text carries the end of its log."""


@dataclass
class Stage:
    """Processes by name: `sim`, one per edge node, `cloud`; and the broker."""

    directory: Path
    plant: Plant
    start_at: int
    cast: Callable[[int, str], Mapping[str, tuple[str, Settings]]]
    """(port of the broker, address of the clock) → name → (subcommand, settings)"""
    broker: Broker = field(init=False)
    clock: ClockService = field(init=False)
    settings: dict[str, tuple[str, Settings]] = field(default_factory=dict, init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)
    expected_dead: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.broker = Broker(directory=self.directory / "broker")
        self.clock = ClockService(start=self.start_at)

    async def __aenter__(self) -> Stage:
        self.directory.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.broker.start)
        await self.clock.__aenter__()
        self.settings = dict(self.cast(self.broker.port, f"{self.clock.host}:{self.clock.port}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            await asyncio.to_thread(_end, process)
        await self.clock.__aexit__()
        await asyncio.to_thread(self.broker.stop)

    async def up(self) -> None:
        """Start every process and wait until all take part; ProcessFailed if one does not."""
        for name in self.settings:
            self.start(name)
        waiting = asyncio.create_task(self.clock.gather(set(self.settings), timeout_s=START_S))
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=0.1)
            self.check()
        try:
            waiting.result()
        except TimeoutError:
            missing = ", ".join(sorted(set(self.settings) - self.clock.members))
            raise ProcessFailed(f"not ready after {START_S:g} s: {missing}; see the logs in {self.directory}") from None

    def start(self, name: str) -> None:
        """Start a process (again) with its settings file."""
        command, settings = self.settings[name]
        path = self.directory / f"{name}.toml"
        path.write_text(describe(settings), encoding="utf-8")
        with (self.directory / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "shoal", command, "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
            )
        self.expected_dead.discard(name)

    def kill(self, name: str) -> None:
        """SIGKILL, as a power cut would."""
        self.expected_dead.add(name)
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name: str) -> int:
        """SIGTERM, then its exit code."""
        self.expected_dead.add(name)
        self.processes[name].terminate()
        return _end(self.processes[name])

    async def step(self) -> None:
        """One tick of plant time, all together."""
        await self.clock.step(to=self.clock.now + self.plant.tick_s * SECOND)
        self.check()

    def check(self) -> None:
        """ProcessFailed if a process ended that should run."""
        for name, process in self.processes.items():
            if process.poll() is not None and name not in self.expected_dead:
                raise ProcessFailed(f"{name} ended with code {process.returncode}: {self.said(name)}")

    def said(self, name: str, characters: int = 800) -> str:
        """The end of a process's log."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace")[-characters:].strip() if path.exists() else ""


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _die_with_parent() -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    return ask
