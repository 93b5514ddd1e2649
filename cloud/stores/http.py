"""A few kept-alive HTTP connections to one server, for threads; nothing is retried but a connection gone stale.

    with Http("http://127.0.0.1:8086", timeout_s=10) as http:
        reply = http.post("/write?db=shoal", body)
        with http.stream("/query?…") as lines: ...

Promises: what cannot be answered is StoreDown, with what to do about it; `close` ends requests under way. Bounds:
as many connections as threads that ask at once; `timeout_s` for every wait on the socket, `ERROR_BYTES` of an error.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from messages.errors import StoreDown, UsageError

ERROR_BYTES = 64 * 1024
"""Of an answer that is not streamed, so much is read; then its connection is given up."""


class NotConnected(StoreDown):
    """Nobody listens there: the server has seen nothing of the request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    status: int
    text: str
    retry_after_s: float = 0.0
    build: str = ""
    """`X-Influxdb-Build`: InfluxDB from 1.4 on names itself in every answer, what only speaks its protocol does not"""


class Http:
    """Thread-safe."""

    def __init__(
        self, url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None, again: bool = True
    ) -> None:
        """`again`: a request may be said twice, so one on a connection that had gone stale is said on a new one."""
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._host, self._secure, self._base = parts.hostname or "", parts.scheme == "https", parts.path.rstrip("/")
        self._port = parts.port or (443 if self._secure else 80)
        self._timeout_s, self._headers = timeout_s, dict(headers or {})
        self._tls = ssl.create_default_context() if self._secure else None
        self._again = again
        self._pool = _Pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every connection, also those in use."""
        self._pool.close()

    def post(self, path: str, body: bytes, content_type: str = "text/plain; charset=utf-8") -> Reply:
        """The answer, read whole."""
        return self.request("POST", path, body, content_type)

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Reply:
        """The answer, read whole."""
        with self._asked(method, path, body, content_type) as (link, answer):
            text = answer.read(ERROR_BYTES)
            if not answer.isclosed():
                link.close()
            build = answer.getheader("X-Influxdb-Build") or ""
            return Reply(answer.status, text.decode("utf-8", "replace"), _retry_after_s(answer), build)

    @contextmanager
    def stream(self, method: str, path: str, body: bytes, content_type: str) -> Iterator[Iterator[bytes] | Reply]:
        """The lines of a good answer as they come; a Reply for any other."""
        with self._asked(method, path, body, content_type) as (link, answer):
            try:
                if answer.status != 200:
                    text = answer.read(ERROR_BYTES).decode("utf-8", "replace")
                    yield Reply(answer.status, text, _retry_after_s(answer))
                else:
                    yield iter(answer.readline, b"")
            finally:
                if not answer.isclosed():
                    link.close()

    @contextmanager
    def _asked(
        self, method: str, path: str, body: bytes | None, content_type: str
    ) -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
        headers = self._headers | ({"Content-Type": content_type} if content_type else {})
        link = self._pool.take()
        try:
            if link is None:
                link = self._connect()
                response = self._ask(link, method, path, body, headers)
            else:
                try:
                    response = self._ask(link, method, path, body, headers)
                except (ConnectionError, http.client.BadStatusLine):
                    if not self._again:
                        raise
                    # The server had closed this connection while it was idle.
                    link = self._connect()
                    response = self._ask(link, method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise StoreDown(self._why(error)) from None
        try:
            yield link, response
        except (OSError, http.client.HTTPException) as error:
            self._pool.drop(link)
            raise StoreDown(self._why(error)) from None
        except BaseException:
            self._pool.drop(link)
            raise
        if link.sock is None:
            self._pool.drop(link)
        else:
            self._pool.give(link)

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            link: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        else:
            link = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            link.connect()
        except OSError as error:
            raise NotConnected(self._why(error)) from None
        link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pool.used(link)
        return link

    def _ask(
        self,
        link: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        try:
            link.request(method, self._base + path, body, dict(headers))
            return link.getresponse()
        except BaseException:
            self._pool.drop(link)
            raise

    def _why(self, error: Exception) -> str:
        said = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            said = f"no answer within {self._timeout_s:g} s"
        if isinstance(error, ssl.SSLError):
            return f"{self.url}: {said}: correct the certificate or the url; trying again"
        return f"{self.url} is not reachable ({said}): start the server or correct the url; trying again"


@dataclass
class _Pool:
    """Connections at rest and in use."""

    idle: list[http.client.HTTPConnection] = field(default_factory=list)
    busy: set[http.client.HTTPConnection] = field(default_factory=set)
    closed: bool = False
    lock: Lock = field(default_factory=Lock)

    def take(self) -> http.client.HTTPConnection | None:
        with self.lock:
            if not self.idle:
                return None
            link = self.idle.pop()
            self.busy.add(link)
            return link

    def used(self, link: http.client.HTTPConnection) -> None:
        with self.lock:
            if self.closed:
                link.close()
                raise ConnectionError("closed by us")
            self.busy.add(link)

    def give(self, link: http.client.HTTPConnection) -> None:
        with self.lock:
            self.busy.discard(link)
            if self.closed:
                link.close()
            else:
                self.idle.append(link)

    def drop(self, link: http.client.HTTPConnection) -> None:
        with self.lock:
            self.busy.discard(link)
        link.close()

    def close(self) -> None:
        with self.lock:
            self.closed = True
            for link in self.busy:
                with suppress(OSError, AttributeError):  # wakes the thread that waits on it
                    link.sock.shutdown(socket.SHUT_RDWR)
            for link in self.idle:
                link.close()
            self.idle.clear()


def checked_url(url: str) -> str:
    """`url` without a trailing slash; UsageError where it names no server, or carries a password."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine or parts.query or parts.fragment:
        raise UsageError("url: give http://host:port or https://host:port")
    if parts.username is not None or parts.password is not None:
        raise UsageError("url: leave user and password out of it; they have keys of their own, which are never printed")
    return url.rstrip("/")


def _retry_after_s(answer: http.client.HTTPResponse) -> float:
    """Seconds of a `Retry-After`; its form as a date is left aside, as wall clocks order nothing here."""
    said = answer.getheader("Retry-After") or ""
    return float(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0.0
