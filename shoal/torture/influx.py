"""A private InfluxDB 1.x for one run: a victim of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from messages.broker import free_port
from messages.errors import UsageError
from shoal.processes import ProcessFailed
from shoal.torture.stage import wait_for_port

_CONFIG = """reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{here}/meta"
[data]
  dir = "{here}/data"
  wal-dir = "{here}/wal"
  index-version = "tsi1"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = {auth}
  log-enabled = false
[logging]
  level = "warn"
"""


def configured(directory: Path, port: int, *, auth: bool = False) -> Path:
    """The configuration file of an influxd 1.x that keeps all it has in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "influxdb.conf"
    text = _CONFIG.format(here=directory, port=port, rpc=free_port(), auth=str(auth).lower())
    file.write_text(text, encoding="utf-8")
    return file


class Influx:
    """Its directory and port; the stage owns the process."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()

    def command(self) -> list[str]:
        """How to start it; UsageError when it is not installed."""
        program = shutil.which("influxd")
        if program is None:
            cure = "sudo apt-get install influxdb (Debian, Raspberry Pi OS), or --store sqlite"
            raise UsageError(f"influxd is not installed: {cure}")
        return [program, "run", "-config", str(configured(self.directory, self.port))]

    @property
    def settings(self) -> dict[str, object]:
        """The cloud's `[store]`."""
        return {"kind": "influx1", "url": f"http://127.0.0.1:{self.port}"}

    def prepare(self, init: Sequence[str]) -> None:
        """Wait until it answers, then let `shoal cloud --init-store` (`init`) make the database."""
        if not wait_for_port(self.port):
            raise ProcessFailed(f"influxd does not answer on port {self.port}; its log is beside {self.directory}")
        done = subprocess.run(init, capture_output=True, text=True)
        if done.returncode:
            raise ProcessFailed(f"the store could not be set up: {done.stderr.strip()[-500:]}")
