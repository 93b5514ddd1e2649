"""The SQLite file of the embedded store: its tables and their versions, opening, one writer, errors in our words.

A file of the former version is brought up to date when its writer opens it: tables are added, no row is touched, so
it takes no time however large the file. A reader asks for that to be done first. Files of others are refused.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from urllib.parse import quote

from messages.errors import BrokenInvariant, ConfigError, StoreDown, UsageError

VERSION = 2
APPLICATION = 0x53484F4C  # "SHOL": tells our files from other SQLite files

RESTORING = ".restoring"
"""Ends the name of a copy that is about to take a file's place."""

_PACKED = """
CREATE TABLE packed (id INTEGER PRIMARY KEY, series INTEGER, t_min INTEGER, t_max INTEGER, rows INTEGER, data BLOB);
CREATE INDEX packed_time ON packed (series, t_max, t_min, rows);
"""
_SCHEMA = f"""
CREATE TABLE stream (id INTEGER PRIMARY KEY, site TEXT, node TEXT, epoch TEXT, lane TEXT,
                     UNIQUE (site, node, epoch, lane));
CREATE TABLE batch (stream INTEGER, seq INTEGER, at INTEGER, PRIMARY KEY (stream, seq)) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, site TEXT, node TEXT, device TEXT, metric TEXT, unit TEXT,
                     UNIQUE (metric, device, site, node));
CREATE TABLE chunk (id INTEGER PRIMARY KEY, series INTEGER, stream INTEGER, seq INTEGER,
                    t_min INTEGER, t_max INTEGER, rows INTEGER, data BLOB);
CREATE INDEX chunk_time ON chunk (series, t_max, t_min, rows);
CREATE TABLE record (id INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER, seq INTEGER, place INTEGER,
                     kind TEXT, at INTEGER, body TEXT);
CREATE INDEX record_kind ON record (kind, id);
CREATE TABLE quarantine (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER, kind TEXT, topic TEXT, reason TEXT,
                         readings INTEGER, size INTEGER, payload BLOB);
CREATE TABLE kept (name TEXT PRIMARY KEY, text TEXT);
CREATE TABLE counter (name TEXT PRIMARY KEY, n INTEGER);{_PACKED}
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
_UPGRADES = {1: f"{_PACKED} PRAGMA user_version = 2;"}
"""From a version to the next."""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """The file, made or brought up to date unless `read_only`; the error names the cure."""
    if read_only and path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file: name the file the cloud writes, such as cloud-data/shoal.db")
    if path.with_name(path.name + RESTORING).exists():
        raise UsageError(f"a restore of {path} was cut off: run the same `shoal restore` again, with --force")
    if read_only and not path.is_file():
        raise UsageError(f"no store at {path}: name the file the cloud writes, or start `shoal cloud` first")
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            isolation_level=None,
            timeout=10,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise UsageError(f"cannot open the store {path} ({error}): check the path and its rights") from None
    try:
        connection.execute("PRAGMA busy_timeout = 10000")
        ours = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: 16 MB between checkpoints
            connection.execute("PRAGMA secure_delete = OFF")  # what was merged need not be overwritten
            if (ours, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
                ours, version = APPLICATION, VERSION
            while ours == APPLICATION and version in _UPGRADES:
                connection.executescript(f"BEGIN IMMEDIATE; {_UPGRADES[version]} COMMIT;")
                version += 1
        if read_only and (ours, version) == (0, 0) and not path.stat().st_size:
            raise UsageError(f"the store {path} is empty: the cloud has just begun it; try again")
        if ours != APPLICATION:
            raise ConfigError(f"{path} is not a Shoal store: name another file")
        if version in _UPGRADES:
            raise ConfigError(f"{path} is a store of version {version}: start this version of `shoal cloud` on it once")
        if version != VERSION:
            raise ConfigError(f"{path} is a store of version {version}, this Shoal reads {VERSION}: use a newer Shoal")
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"cannot use {path} as a store ({error}): check the file and its rights") from None
    except BaseException:
        connection.close()
        raise
    return connection


def lock_beside(path: Path) -> TextIOWrapper:
    """Two writers would each believe their own dictionary; a second one is refused."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        raise UsageError(f"cannot write beside the store {path} ({error.strerror}): check the path") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise UsageError(f"another process writes the store {path}: stop it, or use another file") from None
    return lock


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """What SQLite raises, in our words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreDown(f"the store {path} does not take this now ({error}): check the disk; trying again") from error
    except sqlite3.DatabaseError as error:
        raise BrokenInvariant(f"the store {path} is damaged ({error}): restore it from a copy") from error
