"""An opened InfluxDB store: the series in InfluxDB, all else in a local SQLite file.

The local file is a `SqliteStore` without rows: keys of batches, records in order, dictionary of series, quarantine,
kept documents, counters and the ledger. `push` writes the points, from threads, before anything of the batches is in
the file; `append` then commits the rest. A crash between the two means *again*, and the same points again are the
same points. Records are copied to measurement `event`, and observations to theirs, after the commit, for dashboards.

Bounds: bodies of `BODY_LINES` to `BODY_LINES` + one series, `connections` at a time; `MAX_ROWS` per answer;
`MOST_SEEN` observations waiting, the oldest go first. Retention of the series is InfluxDB's own.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Literal, Protocol

import numpy as np

from cloud.stores.chunks import Times
from cloud.stores.http import Reply
from cloud.stores.influx_query import answer, count_of, times_of
from cloud.stores.influxql import InfluxQl
from cloud.stores.lines import Writer, check, event, observation
from cloud.stores.posting import Refused, settle
from cloud.stores.seam import Answer, Appended, Observation, Pushed, Query, SeriesInfo, StoredBatch
from cloud.stores.sqlite import SqliteConnection, SqliteStore
from messages.contracts import Series
from messages.errors import BadRows, StoreDown
from messages.logs import get_logger

BODY_LINES = 5_000
"""A body is full at so many lines: 0.4 MB, 15 ms of one of InfluxDB's cores."""
MOST_SEEN = 20_000
"""Observations waiting for InfluxDB; then the oldest go."""
EVENTS_AT_ONCE = 1_000
EVENTS = "influx events"
"""Name under which the cursor of the copied records is kept."""
PAUSE_S = 0.5
"""Between two rounds of events and observations; longer and longer, to `LONGEST_S`, while InfluxDB is down."""
LONGEST_S = 30.0

log = get_logger("store")

Precision = Literal["u", "n"]


class Points(Protocol):
    """Where lines are written; several threads at a time."""

    def post(self, body: bytes, precision: Precision) -> Reply:
        """The answer; StoreDown: there was none."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class PushedPoints(Pushed):
    """What InfluxDB took of the batches: all but these."""

    refused: dict[tuple[int, int], list[tuple[list[int] | None, str]]] = field(default_factory=dict)
    """(batch, series), by their places → rows (None: all) and why"""


@dataclass
class _Body:
    """Series that are written in one request."""

    parts: list[tuple[int, int, tuple[str, str], Series]] = field(default_factory=list)
    """batch and series by place, site and node, series"""
    lines: int = 0


class InfluxConnection(SqliteConnection):
    """An opened Influx1Store or Influx2Store."""

    durable_on_ack = True
    idempotent = True

    def __init__(
        self, local: SqliteStore, points: Points, ql: InfluxQl, *, connections: int, init: str, read_only: bool
    ) -> None:
        super().__init__(local, read_only=read_only)
        self._points, self._ql, self._init = points, ql, init
        self._threads = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="influx")
        self._observed: deque[Observation] = deque(maxlen=MOST_SEEN)
        self._news = asyncio.Event()
        self._rng = random.Random()
        self.not_shown = 0
        """events and observations that InfluxDB refused"""

    def close(self) -> None:
        """End writes under way and close the file; what was confirmed is in both."""
        self._points.close()
        self._ql.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        super().close()

    # -- writing --------------------------------------------------------------------------------------

    async def push(self, batches: Sequence[StoredBatch]) -> PushedPoints:
        """Write the points of the batches that are not in the file. StoreDown: some may be written; push all again."""
        refused, bodies = self._plan(batches)
        loop, failed = asyncio.get_running_loop(), Event()
        writes = [loop.run_in_executor(self._threads, self._write, body, failed) for body in bodies]
        done = await asyncio.gather(*writes, return_exceptions=True)
        return self._pushed(refused, bodies, done)

    def append(self, batches: Sequence[StoredBatch], pushed: Pushed | None = None) -> Appended:
        """Commit keys, records and the dictionary of what is pushed; without `pushed`, push first."""
        if not isinstance(pushed, PushedPoints):
            refused, bodies = self._plan(batches)
            failed = Event()
            waiting = [self._threads.submit(self._write, body, failed) for body in bodies]
            pushed = self._pushed(refused, bodies, [one.exception() or one.result() for one in waiting])
        readings = bad = 0
        with self.atomic():
            kept = super().append([_without_rows(one) for one in batches])
            for number, (one, new) in enumerate(zip(batches, kept.new, strict=True)):
                for place, series in enumerate(one.batch.series if new else ()):
                    aside = 0
                    for rows, why in pushed.refused.get((number, place), ()):
                        aside += self._refuse(one, series, rows, why)
                    if aside < len(series.at):
                        self._series_id(one.key, series)
                    bad += aside
                    readings += len(series.at) - aside
        if kept.records:
            self._news.set()
        return Appended(kept.new, readings, kept.records, bad)

    def observe(self, seen: Sequence[Observation]) -> None:
        """Written soon, while InfluxDB is up."""
        self._observed.extend(seen)
        self._news.set()

    async def run(self) -> None:
        """Copy records and observations to where dashboards see them, for ever; nobody waits for it."""
        pause_s = PAUSE_S
        while True:
            try:
                more = await self._show()
                pause_s = PAUSE_S
            except StoreDown as error:
                if pause_s == PAUSE_S:
                    log.warning("store.events_wait", error=str(error))
                pause_s = min(2 * pause_s, LONGEST_S)
                more = True
            await asyncio.sleep(self._rng.uniform(0.5, 1.0) * pause_s)
            if not more:
                await self._news.wait()

    # -- reading --------------------------------------------------------------------------------------

    def query(self, query: Query) -> Answer:
        """Readings or their windows, by series, then by time, of the series in the dictionary."""
        return answer(self._ql, query, [info for _, info in self._find_series(query)])

    def times(self) -> Iterator[tuple[SeriesInfo, Times]]:
        """Every series with the times of all its rows, ascending."""
        for info in self.series():
            yield info, times_of(self._ql, info)

    def count_rows(self) -> int:
        """Rows of all series of the dictionary."""
        by_metric: dict[str, list[SeriesInfo]] = {}
        for info in self.series():
            by_metric.setdefault(info.metric, []).append(info)
        return sum(count_of(self._ql, metric, infos) for metric, infos in by_metric.items())

    def distinct_rows(self) -> int:
        """As many: of equal times of a series InfluxDB keeps one."""
        return self.count_rows()

    # -- private --------------------------------------------------------------------------------------

    def _plan(
        self, batches: Sequence[StoredBatch]
    ) -> tuple[dict[tuple[int, int], list[tuple[None, str]]], list[_Body]]:
        """What is to be written, in bodies; and the series that no store would take, with the reason."""
        refused: dict[tuple[int, int], list[tuple[None, str]]] = {}
        bodies = [_Body()]
        units: dict[tuple[str, str, str, str], str] = {}
        seen = set()
        for number, one in enumerate(batches):
            if one.key in seen or self._has(one):
                continue
            seen.add(one.key)
            place = (one.key.site, one.key.node)
            for k, series in enumerate(one.batch.series):
                try:
                    self._fits(place, series, units)
                    check(series)
                except BadRows as error:
                    refused[number, k] = [(None, str(error))]
                    continue
                if bodies[-1].lines >= BODY_LINES:
                    bodies.append(_Body())
                bodies[-1].parts.append((number, k, place, series))
                bodies[-1].lines += len(series.at)
        return refused, bodies if bodies[0].parts else []

    def _has(self, one: StoredBatch) -> bool:
        stream = self._streams.get(one.key[:4])
        if stream is None:
            return False
        return bool(self._all("SELECT 1 FROM batch WHERE (stream, seq) = (?, ?)", (stream, one.key.seq)))

    def _fits(self, place: tuple[str, str], series: Series, units: dict[tuple[str, str, str, str], str]) -> None:
        """BadRows where the dictionary has no room for a new series, or has it in another unit."""
        name = (*place, series.device, series.metric)
        known = self._series.get(name)
        unit = known[1] if known is not None else units.get(name)
        if unit is None:
            if len(self._series) + len(units) >= self.settings.max_series:
                raise BadRows(f"a new series beyond max_series={self.settings.max_series}: raise it if it is right")
            unit = units[name] = series.unit
        if unit != series.unit:
            raise BadRows(f"in {series.unit!r}, but the series is in {unit!r}")

    def _write(self, body: _Body, failed: Event) -> list[Refused]:
        """In a thread: make the lines, and post them until each is settled; not once another body has `failed`."""
        if failed.is_set():
            raise StoreDown("another write of the same push failed: trying again")
        writer = Writer()
        text = b"".join([writer.series(place, series) for _, _, place, series in body.parts])
        try:
            return settle(partial(self._points.post, precision="u"), text, init=self._init)
        except StoreDown:
            failed.set()
            raise

    def _pushed(
        self,
        refused: dict[tuple[int, int], list[tuple[None, str]]],
        bodies: Sequence[_Body],
        done: Sequence[list[Refused] | BaseException],
    ) -> PushedPoints:
        """All is settled, or an error is raised."""
        found: dict[tuple[int, int], list[tuple[list[int] | None, str]]] = {key: [*why] for key, why in refused.items()}
        for body, result in zip(bodies, done, strict=True):
            if isinstance(result, BaseException):
                raise result  # the first is the one that failed by itself: bodies are begun in order
            if not result:
                continue
            starts = np.cumsum([0, *(len(series.at) for *_, series in body.parts)])
            for first, end, why in result:
                for k in range(int(np.searchsorted(starts, first, "right")) - 1, len(body.parts)):
                    low, high = max(first, int(starts[k])), min(end, int(starts[k + 1]))
                    if low >= high:
                        break
                    rows = list(range(low - int(starts[k]), high - int(starts[k])))
                    aside = found.setdefault(body.parts[k][:2], [])
                    if aside and aside[-1][1] == why and aside[-1][0] is not None:  # halves of one series
                        aside[-1][0].extend(rows)
                    else:
                        aside.append((rows, why))
        return PushedPoints(found)

    def _refuse(self, one: StoredBatch, series: Series, rows: list[int] | None, why: str) -> int:
        bad = series if rows is None or len(rows) == len(series.at) else _some(series, rows)
        self._put_aside(
            at=one.batch.made_at,
            kind="rows",
            topic="/".join(map(str, one.key)),
            reason=f"{series.device} {series.metric}: {why}",
            readings=len(bad.at),
            payload=bad.encode(),
        )
        return len(bad.at)

    async def _show(self) -> bool:
        """Write one page of events and all observations; returns whether more waits. StoreDown: later again."""
        self._news.clear()
        cursor = int(self.kept(EVENTS) or 0)
        records = self.records(after=cursor, limit=EVENTS_AT_ONCE)
        seen = list(self._observed)
        loop = asyncio.get_running_loop()
        shown: tuple[tuple[bytes, Precision], ...] = (
            ("".join(map(event, records)).encode(), "n"),
            ("".join(map(observation, seen)).encode(), "u"),
        )
        for text, precision in shown:
            post = partial(self._points.post, precision=precision)
            refused = await loop.run_in_executor(self._threads, partial(settle, post, text, init=self._init))
            if refused:
                self.not_shown += sum(end - first for first, end, _ in refused)
                log.warning("store.not_shown", why=refused[0].reason, since_start=self.not_shown)
        for _ in range(min(len(seen), len(self._observed))):
            self._observed.popleft()
        if records:
            self.keep(EVENTS, str(records[-1].cursor))
        return len(records) == EVENTS_AT_ONCE


def _without_rows(one: StoredBatch) -> StoredBatch:
    """What the local file keeps of a batch: its key is needed as long as its newest row."""
    newest = max([one.batch.made_at, *(series.t0 + series.at[-1] for series in one.batch.series)])
    return StoredBatch(one.key, one.batch.model_copy(update={"series": [], "made_at": newest}))


def _some(series: Series, rows: list[int]) -> Series:
    """These rows of `series`."""
    quality = series.quality if isinstance(series.quality, int) else [series.quality[row] for row in rows]
    return Series(
        device=series.device,
        metric=series.metric,
        unit=series.unit,
        t0=series.t0,
        at=[series.at[row] for row in rows],
        value=[series.value[row] for row in rows],
        quality=quality,
        raw={k: series.raw[row] for k, row in enumerate(rows) if row in series.raw},
    )
