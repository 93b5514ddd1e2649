"""Real stores for tests: InfluxDB 1.x and VictoriaMetrics on free loopback ports, in directories of the test;
and a proxy that breaks the way to them.

    with Influx(tmp_path / "influx") as influx:
        influx.url; influx.kill(); influx.start()          # same port, same data

They die with the process that started them, and are killed when the `with` ends.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from messages.broker import free_port
from shoal.processes import start
from shoal.torture.influx import configured

HOST = "127.0.0.1"
START_S = 60.0


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
        self.process = start([found, *self.command()], self.directory / "log", cwd=self.directory)
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
        return ["-config", str(configured(self.directory, self.port, auth=self.auth))]

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


@dataclass
class Fault:
    """What a `Proxy` does with the next requests."""

    answer: tuple[int, str, dict[str, str]] | None = None
    """status, body and headers, instead of asking the server"""
    after: bool = False
    """ask the server first, then answer so: it was done, and is said not to be"""
    read: int | None = None
    """read so many bytes of the body, then reset"""
    cut: int | None = None
    """send so many bytes of the server's answer, then reset"""
    delay_s: float = 0.0
    times: int = 1
    on: str = "/"
    """only requests whose path begins so"""


class Proxy:
    """Stands before a server and misbehaves as told, for so many requests; counts them."""

    def __init__(self, server: Server) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, int, dict[str, str]]] = []
        """path, bytes of the body, headers"""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Silent."""

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                proxy.requests.append((self.path, length, dict(self.headers)))
                fault = next((one for one in proxy.faults if one.times > 0 and self.path.startswith(one.on)), None)
                if fault is None:
                    fault = Fault()
                fault.times -= 1
                if fault.read is not None:
                    self.rfile.read(min(fault.read, length))
                    self.reset()
                    return
                body = self.rfile.read(length)
                time.sleep(fault.delay_s)
                if fault.answer is not None and not fault.after:
                    self.reply(*fault.answer)
                    return
                link = HTTPConnection(HOST, server.port, timeout=30)
                try:
                    names = ("Content-Type", "Authorization")
                    keep = {name: self.headers[name] for name in names if name in self.headers}
                    link.request(self.command, self.path, body, keep)
                    answer = link.getresponse()
                    said = answer.read()
                except OSError:
                    self.reset()
                    return
                finally:
                    link.close()
                if fault.cut is not None:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    self.wfile.write(b"%x\r\n" % len(said) + said[: fault.cut])
                    self.reset()
                elif fault.answer is not None:
                    self.reply(*fault.answer)
                else:
                    named = {name: value for name, value in answer.getheaders() if name.startswith("X-Influxdb")}
                    self.reply(answer.status, said.decode(), named)

            do_GET = do_POST = do_PATCH = handle_any

            def reply(self, status: int, text: str, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    if not (status == 204 and name == "Content-Length"):
                        self.send_header(name, value)
                self.end_headers()
                if status != 204:
                    self.wfile.write(text.encode())

            def reset(self) -> None:
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Connections that go are what this is for."""

        self._server = Quiet((HOST, 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    def fault(self, **fault: Any) -> None:
        self.faults.append(Fault(**fault))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
