"""A federation of Flower on this machine: one SuperLink and some SuperNodes, as its deployment guide starts them.

    with Federation(Path("…/bin/python"), nodes=4, parameters=18_821) as theirs:
        rounds = theirs.rounds(3)                 # [{"round": 1, "took_s": 6.4, "finite": True}, …]
        theirs.cpu_s(); theirs.node_mb()

Processes are its own choice: a SuperNode, its SuperExec, and a ClientApp for every message. No TLS, no telemetry, no
installing of dependencies at run time; logs are beside the app, in a folder of this process that goes with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from messages.broker import free_port
from messages.process import die_with_parent

UP_S, ROUND_S = 120.0, 180.0
"""Waited for at most: a federation, a round."""
APP = """
[project]
name = "noop"
version = "1.0.0"
description = "rounds in which nothing is learned"
license = "Apache-2.0"
dependencies = ["flwr>=1.42"]

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"

[tool.flwr.app.config]
rounds = 1
nodes = 1
parameters = 1
broken = ""
out = ""
"""
HERE = """
[superlink]
default = "here"

[superlink.here]
address = "127.0.0.1:{port}"
insecure = true
"""


class Gauge:
    """What processes and all that they started use."""

    def __init__(self, roots: list[int]) -> None:
        self.roots = roots

    def tree(self) -> list[psutil.Process]:
        """Those that are there now."""
        found: dict[int, psutil.Process] = {}
        for root in self.roots:
            try:
                one = psutil.Process(root)
                found |= {child.pid: child for child in [one, *one.children(recursive=True)]}
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def cpu_s(self) -> float:
        """Since they began; of those that have ended and were waited for as well."""
        total = 0.0
        for one in self.tree():
            try:
                total += sum(one.cpu_times()[:4])  # own and of children, user and system
            except psutil.Error:
                continue
        return total

    def mb(self) -> tuple[float, float]:
        """Proportional and resident set size together, MB."""
        pss = rss = 0
        for one in self.tree():
            try:
                found = one.memory_full_info()
            except psutil.Error:
                continue
            pss, rss = pss + found.pss, rss + found.rss
        return pss / 1e6, rss / 1e6


class Federation:
    """While the `with` lasts."""

    def __init__(self, python: Path, *, nodes: int, parameters: int) -> None:
        self.bin = python.absolute().parent
        self.nodes, self.parameters = nodes, parameters
        self.folder = Path(tempfile.mkdtemp(prefix="flower-"))
        self.runs = 0
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
        }

    def __enter__(self) -> Self:
        (self.folder / "home").mkdir()
        (self.folder / "app").mkdir()
        (self.folder / "home" / "config.toml").write_text(HERE.format(port=self.port))
        (self.folder / "app" / "pyproject.toml").write_text(APP)
        shutil.copy(Path(__file__).with_name("_flower_app.py"), self.folder / "app" / "app.py")
        here = ("--insecure", "--host", "127.0.0.1")
        self._start("flower-superlink", *here, "--port", str(self.port), "--disable-runtime-dependency-installation")
        self._until(lambda: "Application startup complete" in self._log(0) or "Uvicorn running" in self._log(0))
        link = f"127.0.0.1:{self.port}"
        for k in range(self.nodes):
            own = ("--port", str(free_port()), "--node-config", f'name="node-{k}"')
            self._start("flower-supernode", *here, "--superlink", link, *own)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        left = Gauge([one.pid for one in self.processes]).tree()
        for one in self.processes:
            one.terminate()
        _, alive = psutil.wait_procs(left, timeout=10)
        for one in alive:
            one.kill()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def all(self) -> Gauge:
        """SuperLink and nodes."""
        return Gauge([one.pid for one in self.processes])

    @property
    def of_nodes(self) -> Gauge:
        """Nodes alone."""
        return Gauge([one.pid for one in self.processes[1:]])

    def begin(self, rounds: int, *, broken: str = "") -> Path:
        """A run; the file its lines come to."""
        self.runs += 1
        out = self.folder / f"run-{self.runs}.jsonl"
        out.touch()
        given = f'rounds={rounds} nodes={self.nodes} parameters={self.parameters} broken="{broken}" out="{out}"'
        command = [str(self.bin / "flwr"), "run", str(self.folder / "app"), "here", "--run-config", given]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=UP_S, check=False)
        if done.returncode:
            raise RuntimeError(f"flwr run: {done.stdout[-2000:]} {done.stderr[-2000:]}")
        return out

    def rounds(self, count: int, *, broken: str = "", look: Callable[[], object] | None = None) -> list[dict[str, Any]]:
        """So many rounds, without the start; `look()` is called four times a second meanwhile."""
        out = self.begin(count, broken=broken)
        until = time.monotonic() + UP_S + count * ROUND_S
        while len(lines := out.read_text().splitlines()) < count + 1:
            if time.monotonic() > until:
                raise RuntimeError(f"Flower made {max(0, len(lines) - 1)} of {count} rounds; {self._log(0)[-2000:]}")
            if look is not None and lines:
                look()
            time.sleep(0.25)
        return [json.loads(line) for line in lines[1 : count + 1]]

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{len(self.processes)}.log").open("ab") as out:
            process = subprocess.Popen(
                [str(self.bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment,
                preexec_fn=die_with_parent(signal.SIGKILL),
                start_new_session=True,
            )
        self.processes.append(process)

    def _log(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text(errors="replace")

    def _until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + UP_S
        while not holds():
            if time.monotonic() > until or any(one.poll() is not None for one in self.processes):
                raise RuntimeError(f"Flower did not start: {self._log(0)[-2000:]}")
            time.sleep(0.25)
