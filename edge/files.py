"""A folder whose files are whole: written aside, on the disk, and only then under their name.

    files = Files(Path("data/models"))
    files.put("index.json", data)       # after a power cut at any instant: the old bytes or these, never a mixture
    files.get("index.json")             # None: there is no such file, or it cannot be read
    files.drop(keep={"index.json"})     # everything else goes

The steps are methods of their own (`write`, `sync`, `rename`, `sync_folder`), so that a test can cut the power between
any two of them. A full disk is a StoreDown, as everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from messages.errors import ConfigError, StoreDown

ASIDE = ".new"


class Files:
    """Plain files of one folder; names have no slashes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, data: bytes) -> None:
        """Returns when they are on the disk under this name."""
        try:
            self.make()
            self.write(name + ASIDE, data)
            self.sync(name + ASIDE)
            self.rename(name + ASIDE, name)
            self.sync_folder()
        except PermissionError as error:
            raise ConfigError(
                f"{self.folder} cannot be written ({error}); give the node a folder it may write"
            ) from None
        except OSError as error:
            raise StoreDown(f"{self.folder / name}: {error.strerror}; make room on that disk") from error

    def get(self, name: str) -> bytes | None:
        """What is there."""
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            return None

    def drop(self, *, keep: Collection[str]) -> None:
        """Remove every other file; one that cannot be removed stays until the next time."""
        for name in self.names():
            if name not in keep:
                self.remove(name)

    def names(self) -> list[str]:
        """All there are."""
        return sorted(one.name for one in self.folder.iterdir()) if self.folder.is_dir() else []

    def make(self) -> None:
        """The folder is there."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Not yet surely on the disk."""
        (self.folder / name).write_bytes(data)

    def sync(self, name: str) -> None:
        """Its bytes are on the disk."""
        _fsync(self.folder / name, os.O_RDWR)

    def rename(self, name: str, to: str) -> None:
        """In place of what was there."""
        (self.folder / name).replace(self.folder / to)

    def sync_folder(self) -> None:
        """The names are on the disk."""
        _fsync(self.folder, os.O_RDONLY)

    def remove(self, name: str) -> None:
        """Forget a file."""
        (self.folder / name).unlink(missing_ok=True)


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
