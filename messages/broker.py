"""A private Mosquitto on the loopback interface, for tests, the demo and the doctor.

    with Broker() as broker:            # its own directory and a free port
        ...                             # mqtt://127.0.0.1:{broker.port}
        broker.kill()                   # SIGKILL, as a power cut would
        broker.start()                  # same port, same persistence

It never outlives the process that started it: it dies with its parent on Linux, and is stopped at exit
elsewhere. Queues are finite and large: Mosquitto drops QoS 1 beyond `max_queued_messages` after acknowledging.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from messages.errors import ShoalError, UsageError
from messages.process import die_with_parent

QUEUED_MESSAGES = 200_000
"""Messages one offline client may have waiting at the broker."""

AUTOSAVE_S = 10
"""Seconds between snapshots of retained messages and sessions."""

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")
_HOST = "127.0.0.1"
_START_S = 10.0
_PORT_TRIES = 5
_PORTS = range(20_000, 32_000)
_DRAWN = 1_000


class BrokerFailed(ShoalError):
    """Mosquitto started and went again; the text carries what it said."""


def find_mosquitto() -> Path:
    """Where mosquitto is; UsageError naming the cure when it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise UsageError(
            "mosquitto is not installed: sudo apt-get install mosquitto (Debian, Ubuntu, Raspberry Pi OS), "
            "sudo dnf install mosquitto (Fedora) or brew install mosquitto (macOS)"
        )
    return Path(found)


def free_port(ports: range = _PORTS) -> int:
    """A port of 127.0.0.1 at which nobody listens now, below those that Linux gives to connections.

    One of those could be taken by a connection while its server restarts; and a client that keeps dialling it
    meanwhile could meet itself. UsageError where `_DRAWN` in a row cannot be had.
    """
    why: OSError | None = None
    for _ in range(_DRAWN):
        port = random.SystemRandom().choice(ports)
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError as error:
                why = error
                continue
            return port
    raise UsageError(f"no port of {_HOST} from {ports[0]} to {ports[-1]} can be had ({why}); end servers there")


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
        return True
    return False


class Broker:
    """One mosquitto process, its configuration and its persistence directory."""

    def __init__(
        self,
        port: int | None = None,
        directory: Path | None = None,
        *,
        persistence: bool = True,
        acl: str | None = None,
        passwords: Mapping[str, str] | None = None,
        extra: str = "",
    ) -> None:
        """`port` None chooses a free one; `directory` None makes a temporary one, removed by `stop`.

        `acl` is the text of an access file; `passwords` the users who may connect (then nobody else may).
        """
        self._wanted_port = port
        self._port = port
        self._directory = directory
        self._temporary = directory is None
        self._persistence = persistence
        self._acl = acl
        self._passwords = passwords
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return _HOST

    @property
    def port(self) -> int:
        """The port, known once started, and kept over kill and start."""
        if self._port is None:
            raise UsageError("the broker has no port before start()")
        return self._port

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def directory(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="shoal-broker-"))
        return self._directory

    @property
    def log_file(self) -> Path:
        return self.directory / "mosquitto.log"

    def start(self) -> Self:
        """Start and return when it accepts connections. UsageError: not installed, port in use."""
        if self.running:
            return self
        program = find_mosquitto()
        for attempt in range(_PORT_TRIES):
            chosen = self._port is None
            port = self._port if self._port is not None else free_port()
            if not chosen and self._wanted_port is not None:
                _refuse_taken(port)
            try:
                self._launch(program, port)
            except BrokerFailed:
                # Between choosing a free port and binding it another process may have taken it.
                if not chosen or attempt == _PORT_TRIES - 1 or not _in_use(port):
                    raise
                continue
            self._port = port
            break
        return self

    def stop(self) -> None:
        """SIGTERM (it saves its persistence), wait, and remove a directory of our own making. Safe to repeat."""
        self._end(signal.SIGTERM)
        if self._temporary and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def shut_down(self) -> None:
        """SIGTERM and keep the directory: what was persistent is there after `start`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what Mosquitto had not written is gone."""
        self._end(signal.SIGKILL)

    def said(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return self.log_file.read_text(errors="replace")[-2000:]
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # -- private --------------------------------------------------------------------------------------

    def _launch(self, program: Path, port: int) -> None:
        config = self._write_config(program, port)
        with self.log_file.open("ab") as out:
            self._process = process = subprocess.Popen(
                [str(program), "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        atexit.register(self._end, signal.SIGTERM)
        deadline = time.monotonic() + _START_S
        while True:
            if process.poll() is not None:
                self._process = None
                raise BrokerFailed(f"mosquitto ended at start (port {port}): {self.said().strip()[-500:]}")
            if answers(port):
                return
            if time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                raise BrokerFailed(f"mosquitto did not accept connections within {_START_S:g} s: {self.said()[-500:]}")
            time.sleep(0.01)

    def _write_config(self, program: Path, port: int) -> Path:
        here = self.directory
        here.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listener {port} {_HOST}",
            "set_tcp_nodelay true",
            f"max_queued_messages {QUEUED_MESSAGES}",
            "max_queued_bytes 0",
            "max_inflight_messages 1000",
            f"max_packet_size {8 * 1024 * 1024}",
            "connection_messages false",
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        if self._persistence:
            lines += [
                "persistence true",
                f"persistence_location {here}/",
                # A snapshot of everything, written while nothing else is served: after every change it costs
                # nine tenths of the throughput and still loses messages at SIGKILL. Our promise is the outbox.
                f"autosave_interval {AUTOSAVE_S}",
            ]
        if os.geteuid() == 0:
            lines.append("user root")  # else it becomes `mosquitto`, who cannot write this directory
        if self._acl is not None:
            (here / "acl").write_text(self._acl)
            lines.append(f"acl_file {here / 'acl'}")
        if self._passwords is None:
            lines.append("allow_anonymous true")
        else:
            lines += ["allow_anonymous false", f"password_file {self._write_passwords(program)}"]
        config = here / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n" + self._extra + "\n")
        for name in ("acl", "passwords", "mosquitto.conf"):
            with contextlib.suppress(FileNotFoundError):
                (here / name).chmod(0o600)
        return config

    def _write_passwords(self, program: Path) -> Path:
        """Plain text first, then hashed in place by mosquitto's own tool."""
        file = self.directory / "passwords"
        file.touch(mode=0o600)
        file.write_text("".join(f"{user}:{word}\n" for user, word in (self._passwords or {}).items()))
        path = os.pathsep.join([str(program.parent), os.environ.get("PATH", ""), "/usr/bin"])
        tool = shutil.which("mosquitto_passwd", path=path)
        if tool is None:
            raise UsageError("mosquitto_passwd is missing: it comes with the mosquitto package")
        subprocess.run([tool, "-U", str(file)], check=True, capture_output=True)
        return file

    def _end(self, how: signal.Signals) -> None:
        atexit.unregister(self._end)
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a stopped process would not hear SIGTERM
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return True
        return False


def _refuse_taken(port: int) -> None:
    if _in_use(port):
        raise UsageError(f"port {port} is in use: stop what listens there, or choose another port")
