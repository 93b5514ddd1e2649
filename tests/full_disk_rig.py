"""A disk without room for one kind of file: SQLite refuses every page more, as it does on a real one.

disk = FullDisk(OrderBook, monkeypatch)    # who waits for room looks again after a tenth of a second
disk.opened                                # how often the file was opened
disk.full = False                          # room for what is opened from now on
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Protocol

import pytest


class _File(Protocol):
    """What keeps its state in SQLite."""

    _db: sqlite3.Connection

    def __init__(self, path: Path) -> None: ...


class FullDisk:
    """Of every `kind` opened while `full`."""

    def __init__(self, kind: type[_File], monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.opened = True, 0
        begin = kind.__init__

        def open_(file: _File, path: Path) -> None:
            begin(file, path)
            self.opened += 1
            if self.full:
                (pages,) = file._db.execute("PRAGMA page_count").fetchone()
                file._db.execute(f"PRAGMA max_page_count = {pages}")

        monkeypatch.setattr(kind, "__init__", open_)
        monkeypatch.setattr("cloud.full_disk.FULL_S", 0.1)
