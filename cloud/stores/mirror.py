"""A mirror: what is stored is written to VictoriaMetrics too, best effort, and never frees an outbox.

    with settings.open() as mirror:            # VictoriaMirror
        mirror.offer(batches)                  # takes or drops, at once

VictoriaMetrics confirms before it is on its disk, and the same batch twice is every value twice: it may not be the
store. So each batch is offered once, after its commit, and each row is sent at most once: where it is unknown
whether a request arrived, its rows are dropped rather than doubled; only while nobody listens they wait. Bounds:
`queue_readings` wait in memory, then new ones are dropped; drops are counted and logged, at most every `SAY_AGAIN_S`.
Its series are `<metric>_value`, `<metric>_quality` and `<metric>_raw` with labels site, node and device, in ms.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Annotated, Literal, Self
from urllib.parse import urlencode

from pydantic import AfterValidator, Field

from cloud.stores.http import Http, NotConnected, checked_url
from cloud.stores.lines import Writer, check
from cloud.stores.seam import StoredBatch
from messages.errors import BadRows, StoreDown
from messages.logs import get_logger
from messages.settings import Section

BODY_READINGS = 10_000
RETRY_S = (0.5, 15.0)
"""First and longest wait while nobody listens."""
SAY_AGAIN_S = 60.0

log = get_logger("mirror")


class VictoriaMirror(Section):
    """VictoriaMetrics beside the store."""

    kind: Literal["victoria"] = Field("victoria", description="VictoriaMetrics")
    url: Annotated[str, AfterValidator(checked_url)] = Field(
        "http://127.0.0.1:8428", description="http(s)://host:port of VictoriaMetrics"
    )
    queue_readings: int = Field(500_000, ge=1_000, description="may wait in memory; then new ones are dropped")
    timeout_s: float = Field(10.0, gt=0, le=300, description="no answer for so long: those rows are dropped")

    def open(self) -> OpenMirror:
        """Start its thread when entered; VictoriaMetrics may be down."""
        return OpenMirror(self)


class OpenMirror:
    """One thread that sends what was offered."""

    def __init__(self, settings: VictoriaMirror) -> None:
        self._settings = settings
        self._http = Http(settings.url, timeout_s=settings.timeout_s, again=False)
        self._waiting: deque[StoredBatch] = deque()
        self._readings = 0
        """waiting, or being sent"""
        self._sending = 0
        self._changed = Condition()
        self._stop = Event()
        self._thread = Thread(target=self._send_for_ever, name="mirror", daemon=True)
        self._said_at = -SAY_AGAIN_S
        self.sent = 0
        """readings that VictoriaMetrics said it took"""
        self.dropped = 0
        """readings that were not sent, or of which it is not known"""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify()
        self._http.close()
        self._thread.join()

    def offer(self, batches: Sequence[StoredBatch]) -> None:
        """Take what there is room for."""
        full = 0
        with self._changed:
            for one in batches:
                readings = one.batch.readings
                if readings and self._readings + readings <= self._settings.queue_readings:
                    self._waiting.append(one)
                    self._readings += readings
                else:
                    full += readings
            self._changed.notify()
        if full:
            self._drop(full, f"{self._settings.queue_readings} readings wait for it already")

    def _send_for_ever(self) -> None:
        wait_s = RETRY_S[0]
        body, readings = b"", 0
        while not self._stop.is_set():
            if not readings:
                body, readings = self._next()
                continue
            try:
                path = "/write?" + urlencode({"precision": "u"})
                reply = self._http.post(path, body)
                if not 200 <= reply.status < 300:
                    raise StoreDown(f"{self._settings.url} answers {reply.status}: {reply.text[:200]}")
                self.sent += readings
                wait_s = RETRY_S[0]
                readings = self._settled()
            except NotConnected:
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, RETRY_S[1])
            except StoreDown as error:
                self._drop(readings, str(error))
                readings = self._settled()
                self._stop.wait(RETRY_S[0])

    def _next(self) -> tuple[bytes, int]:
        """A body of what waits, and its readings; waits for some."""
        batches: list[StoredBatch] = []
        readings = 0
        with self._changed:
            while not self._waiting and not self._stop.is_set():
                self._changed.wait()
            while self._waiting and readings < BODY_READINGS:
                batches.append(self._waiting.popleft())
                readings += batches[-1].batch.readings
            self._sending = readings
        writer, parts, bad = Writer(), [], 0
        for one in batches:
            for series in one.batch.series:
                try:
                    check(series)
                except BadRows:  # the store has them in quarantine
                    bad += len(series.at)
                    continue
                parts.append(writer.series((one.key.site, one.key.node), series))
        if readings == bad:
            self._settled()
        return b"".join(parts), readings - bad

    def _settled(self) -> int:
        """What was being sent no longer takes room."""
        with self._changed:
            self._readings -= self._sending
            self._sending = 0
        return 0

    def _drop(self, readings: int, why: str) -> None:
        self.dropped += readings
        if time.monotonic() - self._said_at >= SAY_AGAIN_S:
            self._said_at = time.monotonic()
            log.warning("mirror.dropped", readings=readings, since_start=self.dropped, why=why)
