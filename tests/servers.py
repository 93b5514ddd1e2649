"""Real stores for tests: InfluxDB 1.x and VictoriaMetrics on free loopback ports, in directories of the test.

    with Influx(tmp_path / "influx") as influx:
        influx.url; influx.kill(); influx.start()          # same port, same data

They die with the process that started them, and are killed when the `with` ends.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from messages.process import die_with_parent

HOST = "127.0.0.1"
START_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """One process of a store."""

    program = ""
    health = "/health"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> Self:
        found = shutil.which(self.program)
        assert found, f"{self.program} is not installed: `make test` installs it"
        with (self.directory / "log").open("ab") as out:
            self.process = subprocess.Popen(
                [found, *self.command()], stdout=out, stderr=subprocess.STDOUT, cwd=self.directory,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, f"{self.program} ended: {self.said()}"
            try:
                with urlopen(self.url + self.health, timeout=1):
                    return self
            except (URLError, OSError):
                assert time.monotonic() < deadline, f"{self.program} does not answer: {self.said()}"
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a power cut would (but for the disk's cache)."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def hang(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def said(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def get(self, path: str, **query: str) -> Any:
        with urlopen(f"{self.url}{path}?{urlencode(query)}", timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def post(self, path: str, body: str) -> int:
        try:
            with urlopen(f"{self.url}{path}", data=body.encode(), timeout=20) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Influx(Server):
    """influxd 1.x, as Debian ships it."""

    program = "influxd"
    health = "/ping"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.auth = False

    def command(self) -> list[str]:
        file = self.directory / "influxdb.conf"
        file.write_text(f"""
reporting-disabled = true
bind-address = "{HOST}:{free_port()}"
[meta]
  dir = "{self.directory}/meta"
[data]
  dir = "{self.directory}/data"
  wal-dir = "{self.directory}/wal"
  query-log-enabled = false
[http]
  bind-address = "{HOST}:{self.port}"
  auth-enabled = {str(self.auth).lower()}
  log-enabled = false
[monitor]
  store-enabled = false
[logging]
  level = "warn"
""")
        return ["-config", str(file)]

    def query(self, text: str, database: str = "shoal") -> list[dict[str, Any]]:
        """The series of the first answer, as the server tells them; also for statements."""
        body = urlencode({"db": database, "epoch": "n", "q": text}).encode()
        with urlopen(f"{self.url}/query", data=body, timeout=20) as answer:
            result = json.loads(answer.read())["results"][0]
        assert "error" not in result, result
        return list(result.get("series", []))


class Victoria(Server):
    """VictoriaMetrics, single node."""

    program = "victoria-metrics"

    def command(self) -> list[str]:
        return [
            f"-storageDataPath={self.directory}/data", f"-httpListenAddr={HOST}:{self.port}", "-retentionPeriod=100y",
            "-search.latencyOffset=0s", "-memory.allowedBytes=200MB", "-loggerLevel=ERROR",
        ]  # fmt: skip

    def series(self, match: str) -> list[dict[str, Any]]:
        """What `/api/v1/export` says: metric, values, timestamps (ms)."""
        query = urlencode({"match[]": match, "reduce_mem_usage": "1"})
        with urlopen(f"{self.url}/internal/force_flush", timeout=20):
            pass
        with urlopen(f"{self.url}/api/v1/export?{query}", timeout=20) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]
