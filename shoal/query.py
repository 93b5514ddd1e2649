"""`shoal query`: readings, records, series, quarantine and counters, read from the store beside its writer.

    shoal query power_kw --device firing-1 --since 2h --every 10m --agg mean
    shoal query records --kind finished --format json
    shoal query series | quarantine | status

Times are UTC. A table goes to people (at most `--limit` rows), `csv` and `json` go to programs, whole unless
`--limit` is given. JSON is one array of objects; times in it are ISO 8601.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cloud.ingest import STATUS
from cloud.ledger import read_lanes
from cloud.settings import CloudSettings
from cloud.stores import Aggregate, Query, SqliteStore, Store, StoreSettings
from messages.contracts import KINDS
from messages.errors import UsageError
from messages.quality import grade, reasons
from messages.settings import load

TABLE_ROWS = 100
"""Rows of a table unless `--limit` says otherwise."""
WHOLE = 10_000_000
"""Rows of csv and json unless `--limit` says otherwise."""

VIEWS = ("records", "series", "quarantine", "status")

Row = dict[str, Any]


class Format(Enum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class Agg(Enum):
    """What one window says."""

    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    LAST = "last"
    SUM = "sum"
    COUNT = "count"


def query(
    what: Annotated[str, typer.Argument(help="a metric, or one of: records, series, quarantine, status")],
    device: Annotated[str | None, typer.Option(help="only this device")] = None,
    node: Annotated[str | None, typer.Option(help="only this node")] = None,
    site: Annotated[str | None, typer.Option(help="only this site")] = None,
    since: Annotated[str | None, typer.Option(help="from then on: 2h (ago), or 2026-05-01T06:00Z")] = None,
    until: Annotated[str | None, typer.Option(help="before then: 30m (ago), or a time")] = None,
    every: Annotated[str | None, typer.Option(help="windows of this length: 30s, 10m, 1h, 1d")] = None,
    agg: Annotated[Agg, typer.Option(help="of each window")] = Agg.MEAN,
    kind: Annotated[list[str] | None, typer.Option(help="of records; may be repeated")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many rows, the newest")] = None,
    output: Annotated[Format, typer.Option("--format", help="table, csv or json")] = Format.TABLE,
    store: Annotated[Path | None, typer.Option(metavar="FILE", help="the store's file")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="the cloud's settings")] = None,
) -> None:
    """Read telemetry and records back from the store, also while it is written.

    Without --store and --config the store of a cloud with default settings, below the current directory, is read.
    """
    if kind and what != "records":
        raise UsageError("--kind is for `shoal query records`")
    if every and what in VIEWS:
        raise UsageError(f"--every is for metrics, not for {what}")
    rows_wanted = limit or (TABLE_ROWS if output is Format.TABLE else WHOLE)
    now = time.time_ns() // 1000
    start, end = moment(since, now, "--since"), moment(until, now, "--until")
    if start is not None and end is not None and start >= end:
        raise UsageError(f"--since {since} is not before --until {until}: nothing lies between; exchange them")
    for unknown in set(kind or ()) - set(KINDS):
        _say(f"no record is of kind {unknown!r} in this version{_guess(unknown, KINDS)}")
    with _settings(store, config).open(read_only=True) as opened:
        rows: Iterable[Row]
        all_rows = 0
        if what == "status":
            rows = _status(opened)
        elif what == "series":
            rows = [info._asdict() for info in opened.series()[: limit or WHOLE]]
        elif what == "quarantine":
            rows = _quarantine(opened, rows_wanted)
        elif what == "records":
            rows = _records(opened, kind, (site, node), (start, end), rows_wanted)
        else:
            every_s = None if every is None else duration_s(every, "--every")
            aggregate: Aggregate = agg.value
            asked = Query(what, site, node, device, start, end, every_s, aggregate)
            _refuse_unknown(opened, asked)
            rows, all_rows = _readings(opened, asked, rows_wanted)
    _print(rows, output, what)
    if all_rows > rows_wanted:
        _say(f"the newest {rows_wanted:,} of {all_rows:,} rows; more with --limit, fewer with --every")


def duration_s(text: str, option: str) -> float:
    """Seconds of `90s`, `10m`, `2h`, `1d`.

    >>> duration_s("10m", "--every")
    600.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)", text.strip())
    if not match or float(match[1]) == 0:
        raise UsageError(f"{option} {text}: give a number and s, m, h or d, as in 10m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


def moment(text: str | None, now: int, option: str) -> int | None:
    """µs since 1970 of `2h` (ago), of `now`, or of an ISO time, UTC unless it says otherwise."""
    if text is None:
        return None
    if text.strip() == "now":
        return now
    if re.fullmatch(r"[\d.]+\s*[smhd]", text.strip()):
        return now - round(duration_s(text, option) * 1e6)
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{option} {text}: give a length of time (2h, 30m) or a time (2026-05-01T06:00Z)") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1e6)


def iso(at: int) -> str:
    """A time as people and programs read it.

    >>> iso(1_700_000_000_250_000)
    '2023-11-14T22:13:20.250Z'
    """
    seconds, micros = divmod(at, 1_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return whole + (f".{micros:06}".removesuffix("000") if micros else "") + "Z"


# --- what is asked ------------------------------------------------------------------------------------


def _settings(store: Path | None, config: Path | None) -> StoreSettings:
    if store is not None and config is not None:
        raise UsageError("give --store or --config, not both")
    if config is not None:
        return load(CloudSettings, config).store_file
    return SqliteStore(path=store) if store is not None else SqliteStore().below(Path("cloud-data"))


def _refuse_unknown(store: Store, asked: Query) -> None:
    """A misspelt name is an error; a name that has no readings in the asked time is not."""
    series = [info for info in store.series() if info.metric == asked.metric]
    if not series:
        known = sorted({info.metric for info in store.series()})
        raise UsageError(f"no metric {asked.metric!r} in the store{_guess(asked.metric, [*known, *VIEWS])}")
    for name in ("site", "node", "device"):
        wanted = getattr(asked, name)
        if wanted is None:
            continue
        found = sorted({getattr(info, name) for info in series})
        series = [info for info in series if getattr(info, name) == wanted]
        if not series:
            raise UsageError(f"no {name} {wanted!r} with {asked.metric}{_guess(wanted, found)}")


def _readings(store: Store, asked: Query, limit: int) -> tuple[Iterator[Row], int]:
    answer = store.query(asked)
    if not len(answer):
        _say("no readings in that time; leave out --since and --until to see all there are")
    newest_rows = sorted(answer.times.argsort(kind="stable")[-limit:]) if len(answer) > limit else range(len(answer))

    def rows() -> Iterator[Row]:
        for k in newest_rows:
            info, quality, raw = answer.series[answer.which[k]], int(answer.quality[k]), float(answer.raw[k])
            row: Row = {
                "time": iso(int(answer.times[k])),
                "site": info.site,
                "node": info.node,
                "device": info.device,
                "metric": info.metric,
                "value": float(answer.values[k]),
                "unit": "" if asked.every_s is not None and asked.agg == "count" else info.unit,
                "quality": grade(quality),
                "reasons": " ".join(reasons(quality)),
            }
            if asked.every_s is None:
                row["raw"] = None if math.isnan(raw) else raw
            else:
                row["count"] = int(answer.count[k])
            yield row

    return rows(), len(answer)


def _dated(body: Row) -> Row:
    """Times of a record as people read them."""
    return {
        name: iso(value) if name.endswith("_at") and isinstance(value, int) else value for name, value in body.items()
    }


def _records(
    store: Store,
    kinds: Sequence[str] | None,
    place: tuple[str | None, str | None],
    between: tuple[int | None, int | None],
    limit: int,
) -> list[Row]:
    """The newest that match, in the order of storage."""
    site, node = place
    start, end = between
    found: list[Row] = []
    cursor, step = 0, 10_000
    while rows := store.records(after=cursor, limit=step, kinds=kinds):
        cursor = rows[-1].cursor
        for one in rows:
            at = one.record.at
            if (site and one.site != site) or (node and one.node != node):
                continue
            if (start is not None and at < start) or (end is not None and at >= end):
                continue
            body = one.record.model_dump(mode="json", exclude_none=True, exclude={"at", "kind"})
            found.append(
                {"time": iso(at), "site": one.site, "node": one.node, "kind": one.record.kind, **_dated(body)}
                | {"key": one.key}
            )
        del found[:-limit]
    return found


def _quarantine(store: Store, limit: int) -> list[Row]:
    return [
        {
            "time": iso(one.at),
            "kind": one.kind,
            "where": one.topic,
            "reason": one.reason,
            "readings": one.readings,
            "bytes": one.size,
            "payload": one.payload[:120].decode("utf-8", "replace"),
        }
        for one in reversed(store.quarantined(limit))
    ]


def _status(store: Store) -> list[Row]:
    counts: dict[str, Any] = json.loads(store.kept(STATUS) or "{}")
    last = counts.pop("last_at", 0)
    rows: list[Row] = [{"name": f"ingest {name.replace('_', ' ')}", "value": n} for name, n in counts.items()]
    rows += [
        {"name": "last batch at", "value": iso(last) if last else "never"},
        {"name": "rows", "value": store.count_rows()},
        {"name": "series", "value": len(store.series())},
        {"name": "readings in quarantine", "value": store.quarantined_rows()},
        {"name": "quarantine_dropped", "value": store.quarantine_dropped()},
    ]
    for kind, by_reason in store.sums().items():
        rows += [
            {"name": f"readings {kind}" + (f" ({why})" if why != kind else ""), "value": n}
            for why, n in by_reason.items()
        ]
    if store.connection is not None:
        for key, lane in sorted(read_lanes(store.connection).items()):
            holes = f", and {len(lane.ranges)} ranges above" if lane.ranges else ""
            rows.append({"name": "stored of " + "/".join(key), "value": f"through {lane.through}{holes}"})
    return rows


# --- how it is printed --------------------------------------------------------------------------------


def _print(rows: Iterable[Row], output: Format, what: str) -> None:
    if output is Format.JSON:
        _json(rows)
        return
    rows = iter(rows)
    first = list(islice(rows, 1000))  # records differ in their fields: the columns are those of the first thousand
    columns = list(dict.fromkeys(name for row in first for name in row))
    if output is Format.CSV:
        writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for chunk in (first, rows):
            writer.writerows(chunk)
        return
    if not first:
        _say(f"no {what}" if what in VIEWS else "nothing to show")
        return
    table = Table(*columns, box=None, header_style="bold")
    for name, column in zip(columns, table.columns, strict=True):
        column.justify = "right" if name in ("value", "count", "readings", "bytes") and what != "status" else "left"
        column.overflow = "fold"
    for chunk in (first, rows):
        for row in chunk:
            table.add_row(*(_cell(row.get(name, "")) for name in columns))
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False).print(table)


def _json(rows: Iterable[Row]) -> None:
    """One array, a row at a time: memory does not grow with the answer."""
    sys.stdout.write("[")
    for n, row in enumerate(rows):
        sys.stdout.write(("," if n else "") + "\n" + json.dumps(row, ensure_ascii=False))
    sys.stdout.write("\n]\n")


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print(f"shoal: {text}", file=sys.stderr)


def _guess(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    some = ", ".join(known[:20])
    return f"; known: {some}" + (", …" if len(known) > 20 else "")
