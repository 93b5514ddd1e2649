"""`shoal doctor`: is this machine fit, and if not, what is the cure?

Every check gives a Finding: what was looked at, how it is, what was seen, and the cure. Exit code 1 when
something essential fails. Without --host a private broker is started for a moment and probed; with it, the
broker there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from messages.broker import Broker, find_mosquitto
from messages.errors import ShoalError, UsageError
from messages.probe import Found, probe

State = Literal["ok", "warn", "fail"]

ROLES = {
    "edge": ("numpy",),
    "sim": ("numpy",),
    "cloud": ("numpy", "ortools"),
    "tools": ("aiomqtt", "plotly"),
}
"""Extra → packages it must bring."""

MIN_FREE_BYTES = 200_000_000
GOOD_FREE_BYTES = 2_000_000_000
SLOW_FSYNC_S = 0.05
"""Above this a group commit per burst holds intake up."""

_BUILT = 1_735_689_600  # 2025-01-01: no clock that is right says less


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    state: State
    seen: str
    cure: str = ""


def doctor(
    host: Annotated[str | None, typer.Option(help="broker to probe [default: a private one]")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="of that broker [default: 1883]")] = None,
    username: Annotated[str | None, typer.Option(help="at the broker; the password is in SHOAL_PASSWORD")] = None,
    data: Annotated[Path, typer.Option(help="directory where data will be kept")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="findings as one JSON document")] = False,
) -> None:
    """Check this machine and the broker; name the cure for what is wrong."""
    if host is None and (port is not None or username is not None):
        host = "127.0.0.1"  # whoever names a port or a user means a broker that is there
    findings = list(examine(host, port or 1883, username, os.environ.get("SHOAL_PASSWORD"), data))
    good = all(finding.state != "fail" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": good, "findings": [asdict(finding) for finding in findings]}, ensure_ascii=False))
    else:
        _show(findings)
    raise typer.Exit(0 if good else 1)


def examine(host: str | None, port: int, username: str | None, password: str | None, data: Path) -> Iterator[Finding]:
    """All findings, in the order in which one would mend things."""
    yield python_version(sys.version_info[:3], bits=struct.calcsize("P") * 8)
    yield from roles(lambda package: importlib.util.find_spec(package) is not None)
    yield mosquitto(essential=host is None)
    yield broker(host, port, username, password)
    yield from disk(data)
    yield clock(time.time(), _synchronised())


def python_version(version: tuple[int, ...], bits: int) -> Finding:
    """3.11 or newer, on 64 bits."""
    seen = f"{'.'.join(map(str, version))}, {bits} bit, {platform.machine()}"
    if version < (3, 11):
        return Finding("python", "fail", seen, "install Python 3.11 or newer")
    if bits != 64:
        return Finding("python", "warn", seen, "the cloud role needs a 64-bit system; an edge node runs here")
    return Finding("python", "ok", seen)


def roles(installed: Callable[[str], bool]) -> Iterator[Finding]:
    """Which roles this environment can play; none is essential by itself."""
    for role, packages in ROLES.items():
        missing = [package for package in packages if not installed(package)]
        if missing:
            yield Finding(f"role {role}", "warn", f"{', '.join(missing)} missing", f"pip install 'shoal[{role}]'")
        else:
            yield Finding(f"role {role}", "ok", ", ".join(packages))


def mosquitto(*, essential: bool) -> Finding:
    """Installed, and version 2; essential where no other broker was named."""
    bad: State = "fail" if essential else "warn"
    try:
        path = find_mosquitto()
    except UsageError as error:
        return Finding("mosquitto", bad, "not installed", str(error).partition(": ")[2])
    said = subprocess.run([path, "-h"], capture_output=True, text=True, timeout=10, check=False).stdout
    match = re.search(r"version (\d+(?:\.\d+)+)", said)
    if match is None or int(match[1].split(".")[0]) < 2:
        return Finding("mosquitto", bad, match[0] if match else f"{path}: no version", "install Mosquitto 2.0 or newer")
    return Finding("mosquitto", "ok", f"{match[1]} ({path})")


def broker(host: str | None, port: int, username: str | None, password: str | None) -> Finding:
    """The broker queues for absent clients, keeps retained messages and speaks MQTT 5."""
    try:
        private = Broker() if host is None else None
        with private or nullcontext():
            at_host, at_port = (host or "", port) if private is None else (private.host, private.port)
            found = probe(at_host, at_port, username=username, password=password)
    except ShoalError as error:
        return Finding("broker", "fail", "no use", str(error))
    return judge_broker(found, "private" if host is None else f"{host}:{port}")


def judge_broker(found: Found, where: str) -> Finding:
    """From what the broker did to what it means."""
    seen = f"{where}: kept {found.kept} of {found.sent} for an absent client, {found.round_trip_s * 1e3:.1f} ms"
    if found.kept == 0:
        return Finding("broker", "fail", seen, "it queues nothing: set max_queued_messages 200000 (0 drops all)")
    if found.kept < found.sent:
        return Finding("broker", "fail", seen, "acknowledged messages were dropped: set max_queued_messages 200000")
    if not found.retains:
        return Finding("broker", "fail", seen, "it forgets retained messages: set retain_available true")
    if found.max_packet_bytes is not None and found.max_packet_bytes < 4 * 1024 * 1024:
        cure = "set max_packet_size 4194304 or more, or large batches are refused"
        return Finding("broker", "warn", f"{seen}, packets up to {found.max_packet_bytes} bytes", cure)
    return Finding("broker", "ok", seen)


def disk(data: Path) -> Iterator[Finding]:
    """May we write there, is there room, and how long until it is safe?"""
    place = data.resolve()
    if not place.is_dir():
        yield Finding("disk", "fail", f"{place}: no such directory", f"mkdir -p {place}, or give another with --data")
        return
    free = shutil.disk_usage(place).free
    seen = f"{place}: {free / 1e9:.1f} GB free"
    if free < GOOD_FREE_BYTES:
        yield Finding("disk", "fail" if free < MIN_FREE_BYTES else "warn", seen, "make room, or give another --data")
    else:
        yield Finding("disk", "ok", seen)
    try:
        took_s = fsync_s(place)
    except OSError as error:
        cure = f"let the user {os.geteuid()} write there, or give another with --data"
        yield Finding("fsync", "fail", f"{place}: {error.strerror}", cure)
        return
    slow = took_s > SLOW_FSYNC_S
    cure = "use an SSD or a better card: every commit waits this long" if slow else ""
    yield Finding("fsync", "warn" if slow else "ok", f"{took_s * 1e3:.2f} ms per commit", cure)


def fsync_s(place: Path, times: int = 15) -> float:
    """Median time until 4 kB are on the disk."""
    took: list[float] = []
    with tempfile.TemporaryFile(dir=place) as file:
        for _ in range(times):
            file.write(b"\0" * 4096)
            started_s = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - started_s)
    return statistics.median(took)


def clock(now_s: float, synchronised: bool | None) -> Finding:
    """Plausible, and kept by a time server where we can tell."""
    seen = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < _BUILT:
        return Finding("clock", "fail", seen, "set the clock: sudo timedatectl set-ntp true (a Pi has no battery)")
    if synchronised is False:
        return Finding("clock", "warn", f"{seen}, not synchronised", "sudo timedatectl set-ntp true")
    return Finding("clock", "ok", seen + (", synchronised" if synchronised else ""))


def _synchronised() -> bool | None:
    """What systemd says about the time server; None when it cannot be asked."""
    program = shutil.which("timedatectl")
    if program is None or not Path("/run/systemd/system").is_dir():
        return None
    command = [program, "show", "--property=NTPSynchronized", "--value"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except subprocess.TimeoutExpired:
        return None
    return {"yes": True, "no": False}.get(said)


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "", "seen", "cure", box=None, pad_edge=False)
    style = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for finding in findings:
        state = f"[{style[finding.state]}]{finding.state}[/]"
        table.add_row(finding.what, state, *(text.replace("[", "\\[") for text in (finding.seen, finding.cure)))
    Console().print(table)
