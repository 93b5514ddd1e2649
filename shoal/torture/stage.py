"""The processes of one run: start, freeze, kill, start again. A broker without any configuration.

    with Stage(directory) as stage:
        stage.start("press"); stage.freeze("press"); stage.kill("press")

`launch` says how a service is started: `shoal` itself, or what a test puts in its place. Mosquitto runs as its
package has it, `mosquitto -p PORT`: local only, 1,000 queued messages per client, nothing on the disk. Every process
has its log in the directory and ends with the stage, however that ends. With `power` (see `powercut`) the death of a
service is a power cut of its disk.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from messages.broker import answers, find_mosquitto, free_port
from messages.settings import Settings, describe
from shoal.processes import ProcessFailed, end, how_it_ended, last_words, start
from shoal.torture.powercut import Power

BROKER, INGEST, STORE = "broker", "ingest", "store"
START_S = 20.0

Launch = Callable[[str, str], Sequence[str]]
"""(name of the process, subcommand of `shoal`) → the command, to which `--config FILE` is added"""


def plain(_name: str, command: str) -> Sequence[str]:
    """`shoal` as it is."""
    return [sys.executable, "-m", "shoal", command]


@dataclass
class Stage:
    """Processes by name."""

    directory: Path
    launch: Launch = plain
    power: Mapping[str, Power] = field(default_factory=dict)
    """Name → whose files are lost like in a power cut when it is killed."""
    broker_port: int = field(default_factory=free_port)
    commands: dict[str, list[str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    """Killed on purpose, and not started again."""

    def __enter__(self) -> Self:
        self.commands[BROKER] = [str(find_mosquitto()), "-p", str(self.broker_port)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def service(self, name: str, command: str, settings: Settings) -> None:
        """A process of `shoal` with its settings file."""
        path = self.directory / f"{name}.toml"
        path.write_text(describe(settings), encoding="utf-8")
        self.commands[name] = [*self.launch(name, command), "--config", str(path)]

    def start(self, name: str) -> None:
        """Start a process (again)."""
        command = self.commands[name]
        if name in self.power:
            command = self.power[name].watched(command)
        self.processes[name] = start(command, self.log_of(name), cwd=self.directory)
        self.dead.discard(name)

    def freeze(self, name: str) -> None:
        """SIGSTOP: it does nothing more, and does not know it."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.processes[name].send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        """SIGKILL; where it has `power`, its disk holds what a power cut would leave."""
        self.dead.add(name)
        process = self.processes[name]
        process.kill()
        process.wait()
        if name in self.power:
            self.power[name].cut(process.pid)

    def stop(self, name: str) -> int:
        """SIGTERM, and its exit code."""
        self.dead.add(name)
        return end(self.processes[name])[0]

    def check(self) -> None:
        """ProcessFailed if one ended by itself."""
        for name, process in self.processes.items():
            if name not in self.dead and process.poll() is not None:
                log = self.log_of(name)
                raise ProcessFailed(f"{name} {how_it_ended(process.returncode)}; its log: {log}{last_words(log)}")

    def log_of(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def wait_for_port(port: int, timeout_s: float = START_S) -> bool:
    """Whether somebody accepts connections there in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answers(port):
            return True
        time.sleep(0.02)
    return False
