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
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from messages.broker import Broker
from messages.clock import ClockService
from messages.plant import Plant
from messages.settings import Settings, describe
from shoal.processes import ProcessFailed, end, how_it_ended, last_words, start

START_S = 30.0
"""Real time within which every process must take part."""

Result = TypeVar("Result")


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
        try:
            await in_thread(self.broker.start)
            await self.clock.__aenter__()
            self.settings = dict(self.cast(self.broker.port, f"{self.clock.host}:{self.clock.port}"))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await in_thread(partial(end, *self.processes.values()))
            await self.clock.__aexit__()
        finally:
            await in_thread(self.broker.stop)

    async def up(self) -> None:
        """Start every process and wait until all take part; ProcessFailed if one does not."""
        for name in self.settings:
            self.start(name)
        waiting = asyncio.create_task(self.clock.gather(set(self.settings), timeout_s=START_S))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=0.1)
                self.check()
            waiting.result()
        except TimeoutError:
            missing = ", ".join(sorted(set(self.settings) - self.clock.members))
            raise ProcessFailed(f"not ready after {START_S:g} s: {missing}; see the logs in {self.directory}") from None
        finally:
            waiting.cancel()

    def start(self, name: str) -> None:
        """Start a process (again) with its settings file."""
        command, settings = self.settings[name]
        path = self.directory / f"{name}.toml"
        path.write_text(describe(settings), encoding="utf-8")
        full = [sys.executable, "-m", "shoal", command, "--config", str(path)]
        self.processes[name] = start(full, self.log_of(name))
        self.expected_dead.discard(name)

    def kill(self, name: str) -> None:
        """SIGKILL, as a power cut would."""
        self.expected_dead.add(name)
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name: str) -> int:
        """SIGTERM, then its exit code."""
        self.expected_dead.add(name)
        return end(self.processes[name])[0]

    async def step(self) -> None:
        """One tick of plant time, all together."""
        await self.clock.step(to=self.clock.now + self.plant.tick_us)
        self.check()

    def check(self) -> None:
        """ProcessFailed if a process ended that should run, or gave the clock no answer."""
        for name, process in self.processes.items():
            if process.poll() is not None and name not in self.expected_dead:
                log = self.log_of(name)
                raise ProcessFailed(f"{name} {how_it_ended(process.returncode)}; its log: {log}{last_words(log)}")
        if self.clock.put_out:
            silent = list(dict.fromkeys(self.clock.put_out))
            log = self.log_of(silent[0])
            raise ProcessFailed(
                f"{', '.join(silent)} gave the clock no answer for {self.clock.patience_s:g} s "
                f"of real time and no longer takes part; its log: {log}{last_words(log)}"
            )

    def log_of(self, name: str) -> Path:
        """Where a process logs."""
        return self.directory / f"{name}.log"


async def in_thread(blocking: Callable[[], Result]) -> Result:
    """Run `blocking` in a thread and wait for its end, also when cancelled: a thread cannot be stopped half way."""
    running = asyncio.ensure_future(asyncio.to_thread(blocking))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
