"""What a service of the cloud must not forget: one SQLite file, WAL, FULL, with a schema's number.

    class OrderBook(Book): …
    with book.together(): …                    # one commit for all inside, or nothing of it

Tables are there with one commit or not at all; ones that a later part of the same schema adds are added when the file
is opened. A file of a newer Shoal is refused, and so is one that is no such file. Two processes may open it: one waits
`BUSY_S` for the other's commit. A full disk is sqlite3.OperationalError, of which `no_room` tells. What a row holds is
read by `whole`: damage is a UsageError that names file, table and row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from messages.errors import UsageError

SCHEMA = 1
BUSY_S = 10.0

M = TypeVar("M", bound=BaseModel)


def no_room(error: sqlite3.Error) -> bool:
    """Is it the disk that is full, or does not write?"""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Book:
    """One file."""

    def __init__(self, path: Path, tables: str) -> None:
        """`tables`: statements that make what is not there. UsageError names the cure."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
        except (OSError, sqlite3.OperationalError) as error:
            raise UsageError(
                f"{path}: cannot be opened or made ({error}); name a folder that this user may write"
            ) from None
        try:
            (schema,) = self._db.execute("PRAGMA user_version").fetchone()
            if schema > SCHEMA:
                raise UsageError(
                    f"{path}: written by a newer Shoal (schema {schema}); start that one, or move the file"
                )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            new = f"BEGIN IMMEDIATE; {tables} PRAGMA user_version={SCHEMA}; COMMIT;"
            self._db.executescript(tables if schema == SCHEMA else new)
        except sqlite3.DatabaseError as error:
            self._db.close()
            if no_room(error):
                raise
            raise UsageError(
                f"{path}: cannot be read as a file of Shoal ({error}); let this user write it; if it is damaged or "
                "another program's, move it away, or restore a backup"
            ) from None
        except UsageError:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def whole(self, kind: type[M], document: object, *, table: str, row: object) -> M:
        """What a row of `table` holds; UsageError if its bytes are not what was written."""
        try:
            return kind.model_validate_json(document if isinstance(document, bytes | str) else b"")
        except ValidationError as error:
            raise self.damaged(
                table, row, str(error.errors(include_url=False, include_input=False)[0]["msg"])
            ) from None

    def damaged(self, table: str, row: object, why: str) -> UsageError:
        """To be raised where a row does not hold what was written there."""
        return UsageError(
            f"{self._path}: table {table}, row {str(row)[:100]!r}: damaged ({why[:200]}); stop whoever uses the file "
            "and restore a backup (shoal restore)"
        )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written inside is on the disk with one commit, or not at all."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise
