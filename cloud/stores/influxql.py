"""Questions in InfluxQL, which InfluxDB 1.x, 2.x (DBRP mapping) and 3 Core answer, and their answers in columns.

    ql = InfluxQl(http, database="shoal")
    for tags, columns in ql.ask('SELECT "value" FROM "power_kw" GROUP BY "device"', most=1_000_000): ...
    ql.tell('CREATE DATABASE "shoal"')                     # statements that change something

Answers are streamed in chunks; more than `most` rows are a UsageError before they are all in memory. Times are µs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

from pydantic_core import from_json

from cloud.stores.http import Http, Reply
from cloud.stores.posting import failure
from messages.errors import StoreDown, StoreError, StoreRefused, UsageError

CHUNK_ROWS = 10_000


class Piece(NamedTuple):
    """Some rows of one series of an answer; those of one series come together, in order."""

    tags: dict[str, str]
    columns: list[str]
    rows: list[list[Any]]


class InfluxQl:
    """The `/query` of one database."""

    def __init__(self, http: Http, database: str, *, init: str) -> None:
        self._http, self._database, self._init = http, database, init

    def close(self) -> None:
        """End questions under way."""
        self._http.close()

    def ask(self, query: str, *, most: int) -> Iterator[Piece]:
        """The pieces of the answer to one SELECT or SHOW."""
        path = "/query?" + urlencode(
            {"db": self._database, "epoch": "u", "chunked": "true", "chunk_size": str(CHUNK_ROWS)}
        )
        body = urlencode({"q": query}).encode()
        rows = 0
        with self._http.stream("POST", path, body, "application/x-www-form-urlencoded") as lines:
            if isinstance(lines, Reply):
                raise failure(lines, self._init)
            for line in lines:
                for piece in _pieces(_object(line), self._init):
                    rows += len(piece.rows)
                    if rows > most:
                        raise UsageError(f"more than {most:,} rows: ask for (longer) windows or less time")
                    yield piece

    def tell(self, statement: str) -> list[Piece]:
        """Carry out one statement; StoreRefused says why it was not."""
        body = urlencode({"q": statement}).encode()
        reply = self._http.post("/query", body, "application/x-www-form-urlencoded")
        if reply.status != 200:
            raise failure(reply, self._init)
        return list(_pieces(_object(reply.text.encode()), self._init))


def name(text: str) -> str:
    """A measurement, tag, field or database as InfluxQL wants it.

    >>> name('a "b"')
    '"a \\\\"b\\\\""'
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def string(text: str) -> str:
    """A tag's value as InfluxQL wants it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = from_json(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StoreDown(f"the store's answer breaks off or is no JSON ({line[:80]!r}): trying again")
    return found


def _pieces(answer: dict[str, Any], init: str) -> Iterator[Piece]:
    for result in [answer, *answer.get("results", [])]:
        error = result.get("error")
        if error is not None:
            if "not found" in error or "authoriz" in error or "authentication" in error:
                raise StoreRefused(f"the store says {error!r}: make the database with {init}, or correct the settings")
            if "timeout" in error or "engine is closed" in error or "shutdown" in error:
                raise StoreDown(f"the store says {error!r}: trying again")
            raise StoreError(f"the store refuses the question: {error}")
        for series in result.get("series", []):
            yield Piece(series.get("tags", {}), series["columns"], series.get("values", []))
