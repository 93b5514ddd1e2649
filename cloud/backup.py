"""Backup and restore of a cloud process: its databases and every file its settings name, in one consistent copy.

    manifest = back_up(settings, Path("monday.tar"), config=Path("cloud.toml"), now=datetime.now(UTC), shoal="1.0")
    with opened(Path("monday.tar")) as backup:
        restore(backup, settings, force=False)

`back_up` runs beside the cloud. Each database is copied as of one moment (the ledger is inside the store's file, so
both are of the same one); those of planner and judge and a separate ledger come before the store, which therefore has
all they speak of. Files keep their rights; the copy itself is readable by its owner alone, as it holds keys and
passwords. A directory or `.tar` appears under its name when it is complete and on the disk, or not at all.

`restore` refuses while a process writes the store and, unless forced, to replace anything that differs. Everything is
copied beside its place and checked against its sha256 before the first file is moved; the store moves last, and cannot
be opened before it has (`.restoring` stands beside it): a restore that was cut off is run again. Between the two,
`before` runs: what must be done while no cloud writes, and whose failure leaves every file as it was.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from cloud.settings import KEY_FILE, CloudSettings
from cloud.stores.file import RESTORING, lock_beside
from messages.connect import BrokerSettings
from messages.errors import BadMessage, StoreError, UsageError
from messages.message import Message

FORMAT = 1
"""Version of the manifest."""
MANIFEST = "manifest.json"
CONFIG = "config"
"""Role of the settings file."""
STORE = "store"
BOOKS = ("planner", "judge", "rounds", "nodes", "models", "ledger")
"""Databases beside the store that a cloud may have, by the names of their files."""

_BLOCK = 1 << 20
_SIDE = ("-wal", "-shm")
_REPLACED = ".replaced"


class Saved(Message):
    """One file of a backup."""

    role: str = Field(
        description="what it is: store, planner, judge, rounds, nodes, models, ledger, config, cloud.key, or the "
        "key that names it: broker.ca"
    )
    name: str = Field(pattern=r"^[a-z0-9_][a-z0-9_.-]{0,99}$", description="its name in the backup")
    kind: Literal["database", "file"]
    came_from: str = Field(description="where it was, for people")
    bytes: int = Field(ge=0)
    mode: int = Field(ge=0, le=0o777, description="its rights")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Message):
    """What a backup holds."""

    format: int
    shoal: str = Field(description="version that made it")
    began_at: str = Field(description="UTC; what was stored later is not in it")
    sites: list[str]
    files: list[Saved]


@dataclass(frozen=True)
class Backup:
    """An opened backup."""

    path: Path
    manifest: Manifest
    _tar: tarfile.TarFile | None = None

    def read(self, name: str) -> IO[bytes]:
        """The bytes of one of its files."""
        return _member(self.path, self._tar, name)

    def text(self, role: str) -> str | None:
        """A small text file of that role, checked."""
        for one in self.manifest.files:
            if one.role == role and one.bytes <= _BLOCK:
                with self.read(one.name) as source:
                    data = source.read()
                if hashlib.sha256(data).hexdigest() != one.sha256:
                    raise StoreError(f"{self.path}: {one.name} is damaged (its sha256 differs): use another backup")
                return data.decode()
        return None


def back_up(settings: CloudSettings, to: Path, *, config: Path | None, now: datetime, shoal: str) -> Manifest:
    """Copy everything to `to`, a directory or a `.tar`, which must not exist yet."""
    if to.exists():
        raise UsageError(f"{to} exists: name a new file or directory, as in backup-{now:%Y-%m-%d}.tar")
    store = settings.store_file.path
    if not store.is_file():
        raise UsageError(f"no store at {store}: name the settings of a cloud that has run, with --config")
    partial = to.with_name(f".{to.name}.partial")
    packed = partial.with_name(partial.name + ".tar")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a backup that was cut off
        partial.mkdir(parents=True, mode=0o700)
        files = [_save(role, path, partial) for role, path in _places(settings, config).items() if path.is_file()]
        manifest = Manifest(
            format=FORMAT, shoal=shoal, began_at=now.isoformat(), sites=list(settings.sites), files=files
        )
        with _private(partial / MANIFEST) as out:
            out.write(manifest.model_dump_json(indent=1).encode() + b"\n")
        if to.suffix == ".tar":
            with _private(packed) as out, tarfile.open(fileobj=out, mode="w") as tar:
                for name in (MANIFEST, *(one.name for one in files)):
                    tar.add(partial / name, name)
            packed.rename(to)
        else:
            _sync(partial)
            partial.rename(to)
        _sync(to.parent)
    except OSError as error:
        raise StoreError(f"cannot write the backup {to} ({error}): check the path, its rights and its room") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        packed.unlink(missing_ok=True)
    return manifest


@contextmanager
def opened(path: Path) -> Iterator[Backup]:
    """The backup at `path`; UsageError when there is none that this version reads."""
    with ExitStack() as open_files:
        try:
            tar = open_files.enter_context(tarfile.open(path)) if path.is_file() else None
            with _member(path, tar, MANIFEST) as source:
                manifest = Manifest.decode(source.read(4 * _BLOCK))
        except (OSError, tarfile.TarError, BadMessage) as error:
            raise UsageError(f"{path} is no backup ({error}): name what `shoal backup` made") from None
        if manifest.format != FORMAT:
            raise UsageError(f"{path} is a backup of format {manifest.format}: use a newer Shoal")
        yield Backup(path, manifest, tar)


def restore(
    backup: Backup,
    settings: CloudSettings,
    *,
    force: bool,
    before: Callable[[BrokerSettings], None] | None = None,
) -> tuple[list[Path], list[str]]:
    """Put everything back; the paths that were written, and the roles these settings name no place for.

    `before(broker)` is called when all is ready to be moved, with certificates where they are then.
    """
    places = _places(settings, None)
    files = sorted((one for one in backup.manifest.files if one.role in places), key=lambda one: one.role == STORE)
    skipped = [one.role for one in backup.manifest.files if one.role not in places and one.role != CONFIG]
    if not any(one.role == STORE for one in files):
        raise UsageError(f"{backup.path} holds no store: use another backup")
    with closing(lock_beside(places[STORE])):
        changed = [one for one in files if one.kind == "database" or not _is(places[one.role], one)]
        there = [str(places[one.role]) for one in changed if places[one.role].exists()]
        if there and not force:
            raise UsageError(
                f"{', '.join(there)} would be replaced: move it away, or add --force to lose what it holds"
            )
        staged = {places[one.role]: one for one in changed}
        try:
            for target, one in staged.items():
                _stage(backup, one, target)
            if before is not None:
                before(_with_staged(settings.broker, staged))
            _exchange(list(staged))
        except OSError as error:
            raise StoreError(f"cannot restore ({error}); nothing was changed: check rights and room") from None
        finally:
            for target in staged:
                _beside(target, RESTORING).unlink(missing_ok=True)
    return list(staged), skipped


# -- private -------------------------------------------------------------------------------------------------


def _places(settings: CloudSettings, config: Path | None) -> dict[str, Path]:
    """Role → file, in the order in which they are copied: what speaks of the store before the store."""
    places = {name: settings.data / f"{name}.db" for name in BOOKS}
    places[STORE] = settings.store_file.path
    places[KEY_FILE] = settings.data / KEY_FILE
    places |= dict(_named(settings, ()))
    return places if config is None else {**places, CONFIG: config}


def _named(settings: BaseModel, above: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Every file that a key names: certificates, keys, the plant."""
    for name in type(settings).model_fields:
        value, key = getattr(settings, name), (*above, name)
        if isinstance(value, BaseModel):
            yield from _named(value, key)
        elif isinstance(value, Path) and key not in (("data",), ("store", "path")):
            yield ".".join(key), value


def _save(role: str, path: Path, folder: Path) -> Saved:
    database = role in (*BOOKS, STORE)
    name = f"{role}.db" if database else re.sub(r"[^a-z0-9_.-]", "_", f"{role}-{path.name}".lower())[:100]
    copy = folder / name
    if database:
        _copy_database(path, copy)
        with copy.open("rb") as source:
            sha256, size = _digest(source), copy.stat().st_size
            os.fsync(source.fileno())
    else:
        with path.open("rb") as source, _private(copy) as out:
            sha256 = _digest(source, out)
            size = out.tell()
    return Saved(
        role=role, name=name, kind="database" if database else "file", came_from=str(path.absolute()), bytes=size,
        mode=path.stat().st_mode & 0o777, sha256=sha256,
    )  # fmt: skip


def _copy_database(path: Path, copy: Path) -> None:
    """As of one moment, without its free pages; who writes it goes on, and its log grows until this is done."""
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=30)) as db:
            db.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.Error as error:
        raise StoreError(
            f"cannot copy {path} ({error}): is it a database, and is there room at {copy.parent}?"
        ) from None


def _stage(backup: Backup, one: Saved, target: Path) -> None:
    """A checked copy beside its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(target, RESTORING)
    staged.unlink(missing_ok=True)
    with backup.read(one.name) as source, _private(staged) as out:
        if _digest(source, out) != one.sha256:
            raise StoreError(f"{backup.path}: {one.name} is damaged (its sha256 differs); nothing was changed")
    staged.chmod(one.mode)


def _with_staged(broker: BrokerSettings, staged: Container[Path]) -> BrokerSettings:
    """With certificates and key of the backup, which are not in their places yet."""
    named = {name: getattr(broker, name) for name in ("ca", "cert", "key")}
    return broker.model_copy(
        update={name: _beside(path, RESTORING) for name, path in named.items() if path is not None and path in staged}
    )


def _exchange(targets: list[Path]) -> None:
    """Move what is there away, and what is staged in; when that fails, back again."""
    moved: list[tuple[Path, Path]] = []
    try:
        for target in targets:
            for side in ("", *_SIDE):  # the log of the former database must never meet the new one
                there = _beside(target, side)
                if there.exists():
                    there.rename(_beside(target, _REPLACED + side))
                    moved.append((_beside(target, _REPLACED + side), there))
            _beside(target, RESTORING).rename(target)
            moved.append((target, _beside(target, RESTORING)))
            _sync(target.parent)
    except BaseException:
        for now, before in reversed(moved):
            with suppress(OSError):
                now.rename(before)
        raise
    for now, _ in moved:
        if _REPLACED in now.name:
            now.unlink()


def _is(path: Path, one: Saved) -> bool:
    if not path.is_file() or path.stat().st_size != one.bytes:
        return False
    with path.open("rb") as source:
        return _digest(source) == one.sha256


def _member(path: Path, tar: tarfile.TarFile | None, name: str) -> IO[bytes]:
    if tar is None:
        return (path / name).open("rb")
    with suppress(KeyError):
        if found := tar.extractfile(name):
            return found
    raise FileNotFoundError(f"{name} is not in {path}")


def _digest(source: IO[bytes], out: IO[bytes] | None = None) -> str:
    """The sha256 of what is read, and written where `out` is given."""
    sha256 = hashlib.sha256()
    while block := source.read(_BLOCK):
        sha256.update(block)
        if out is not None:
            out.write(block)
    return sha256.hexdigest()


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that only its owner reads, on the disk at the end."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sync(folder: Path) -> None:
    """Renames in it survive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
