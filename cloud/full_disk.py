"""One service of the cloud on a disk that may fill: it waits alone, and begins again when there is room.

    room = Room("judge", data, ("judge.db",))
    await room.run(once)                # `once`: opens its files, runs until cancelled, closes them
    room.counters()

Everything of that service is let go of when its disk takes nothing more: what was not committed was neither said nor
acknowledged, so it begins from what is on the disk as after a crash. Nothing else of the cloud ends. A file whose pages
are damaged does end it, with a UsageError that names the file. Bounds: it tries
again after `FULL_S` of real time, doubling up to `FULL_MOST_S`; from the start after a run that was longer than that.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from cloud.book import no_room
from messages.errors import UsageError

E = TypeVar("E", bound=sqlite3.Error)

FULL_S, FULL_MOST_S = 5.0, 300.0
"""Real time after which a service tries again on a disk that was full, doubling, at most."""

log = structlog.get_logger("cloud")


@dataclass
class Room:
    """Of one service. `what`: its name in the log; `data`: the folder whose disk it is; `files`: its own in there."""

    what: str
    data: Path
    files: tuple[str, ...] = ()
    times: int = 0
    """how often its disk was full"""

    def counters(self) -> dict[str, float]:
        """For the observer."""
        return {f"{self.what}_disk_full": float(self.times)}

    async def run(self, once: Callable[[], Awaitable[None]]) -> None:
        """Until it ends by itself, or by another error."""
        wait_s = FULL_S
        while True:
            full, began = "", time.monotonic()
            try:
                await once()
            except* sqlite3.DatabaseError as group:
                if all(_is_damage(error) for error in _leaves(group)):
                    raise damaged(self.data, self.files, str(next(_leaves(group)))) from None
                if not all(no_room(error) for error in _leaves(group)):
                    raise
                full = str(next(_leaves(group)))
            if not full:
                return
            if time.monotonic() - began > FULL_MOST_S:
                wait_s = FULL_S
            self.times += 1
            log.error(
                f"{self.what}.disk_full",
                why=full,
                data=str(self.data),
                cure=f"make room; the {self.what} tries again, everything else goes on",
                again_s=wait_s,
            )
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, FULL_MOST_S)


def damaged(data: Path, files: Iterable[str], why: str) -> UsageError:
    """Which of the files it is; each is read once, as SQLite does not say."""
    paths = [data / name for name in files if (data / name).is_file()]
    found = [str(path) for path in paths if not _sound(path)] or [str(data)]
    return UsageError(f"{', '.join(found)}: damaged ({why}); stop the cloud and restore a backup (shoal restore)")


def _sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as db:
            return [row[0] for row in db.execute("PRAGMA quick_check(1)")] == ["ok"]
    except sqlite3.DatabaseError:
        return False


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT


def _leaves(group: BaseExceptionGroup[E]) -> Iterator[E]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one
