"""What a disk holds after a power cut, without cutting any power: the writes and syncs of a process are recorded.

    power = Power((data / "node.db", data / "node.db-wal"), directory / "press.trace", random.Random(7))
    process = Popen(power.watched(command)) … kill it …
    power.cut(process.pid)              # the files are now as a disk would have them

`strace` records every write, truncation, sync, creation and removal of the named files, with the bytes. A file after
the cut is what it was at the start of the process, and

- every change that a later fdatasync or fsync of that file covered, and every change older than `WRITEBACK_S`, because
  the kernel writes back what nobody asked it to;
- of the other changes, per block of 4 kB by chance (seeded) none or some, in no order: a later one may be there
  without an earlier one, and half of a write that spans blocks.

SQLite's shared-memory index (`-shm`) is gone, as it is after a power cut. Limits: disks are honest (what was synced is
there), blocks are whole (no torn sectors), a file that was synced once has its name, and renaming is not known here:
SQLite does not rename.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from messages.errors import BrokenInvariant, UsageError

BLOCK = 4096
WRITEBACK_S = 2.0
"""Older changes are on the disk anyway. Linux takes 5 to 30 s; the shorter, the kinder to who does not sync."""
CALLS = "pwrite64,write,fdatasync,fsync,ftruncate,unlink,openat"
TRACE_S = 10.0
"""The recorder has this long to write its end after the process is gone."""


def find_strace() -> str:
    """Where strace is; UsageError naming the cure when it is not installed, or may not look at processes here."""
    program = shutil.which("strace")
    if program is None:
        raise UsageError("strace is not installed, and power cuts need it: sudo apt-get install strace")
    tried = subprocess.run([program, "-o", "/dev/null", "true"], capture_output=True, text=True)
    if tried.returncode:
        why = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UsageError(f"strace may not trace processes here ({why}): allow ptrace, or leave --power-cuts out")
    return program


class Change(NamedTuple):
    """One thing done to a file: `data` written at `offset`, or (data None) cut to `offset` bytes."""

    at: float
    offset: int
    data: bytes | None


@dataclass
class Disk:
    """One file: what surely is on the disk, and what was done to it since."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        self.pending.append(change)

    def sync(self) -> None:
        """Everything done so far is on the disk."""
        for change in self.pending:
            _apply(self.content, change)
        self.pending.clear()

    def after_cut(self, now: float, rng: random.Random) -> bytes:
        """The content after a power cut at time `now`."""
        content = bytearray(self.content)
        for change in self.pending:
            if change.at < now - WRITEBACK_S:
                _apply(content, change)
                continue
            if change.data is None:
                if rng.random() < 0.5:
                    _apply(content, change)
                continue
            for start, part in _blocks(change.offset, change.data):
                if rng.random() < 0.5:
                    _apply(content, Change(change.at, start, part))
        return bytes(content)


@dataclass
class Power:
    """The power of one process. `start` of the process: `watched`; its end: `cut`."""

    files: Sequence[Path]
    trace: Path
    rng: random.Random
    strace: str = field(default_factory=find_strace)
    cuts: int = 0
    unsure: int = 0
    """Changes that were not sure to survive, over all cuts."""
    _before: dict[Path, bytes] = field(default_factory=dict)

    def watched(self, command: Sequence[str]) -> list[str]:
        """The command under `strace`, which is no ancestor of it: whoever starts this has the process itself."""
        self.trace.unlink(missing_ok=True)
        self._before = {path: path.read_bytes() for path in self.files if path.exists()}
        paths = [word for path in self.files for word in ("-P", str(path))]
        shown = ["-ttt", "-xx", "-s", str(1 << 24), "-e", f"trace={CALLS}"]
        return [self.strace, "-D", "-f", "-q", "-y", "--seccomp-bpf", *shown, *paths, "-o", str(self.trace), *command]

    def cut(self, pid: int) -> None:
        """The process is gone: leave in its files what a power cut would."""
        lines = self._read_trace(pid)
        disks = {str(path): Disk(bytearray(self._before.get(path, b""))) for path in self.files}
        there = {str(path) for path in self._before}
        replay(lines, disks, there)
        now = max([0.0, *(change.at for disk in disks.values() for change in disk.pending)])
        for path in self.files:
            disk = disks[str(path)]
            self.unsure += len(disk.pending)
            if str(path) in there:
                path.write_bytes(disk.after_cut(now, self.rng))
            else:
                path.unlink(missing_ok=True)
            path.with_name(path.name + "-shm").unlink(missing_ok=True)
        self.cuts += 1

    def _read_trace(self, pid: int) -> list[str]:
        deadline = time.monotonic() + TRACE_S
        while time.monotonic() < deadline:
            if self.trace.exists() and re.search(rf"^{pid} .*\+\+\+ (killed by|exited with)", _tail(self.trace), re.M):
                return self.trace.read_text(encoding="ascii").splitlines()
            time.sleep(0.02)
        raise BrokenInvariant(f"{self.trace} does not end though its process did")


def replay(lines: Iterable[str], disks: dict[str, Disk], there: set[str]) -> None:
    """Do to `disks` (by path) what the lines of a trace tell; `there` are the files that exist."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, rest = line.split(None, 1)
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
            continue
        resumed = _RESUMED.match(rest)
        if resumed:
            # A call counts from its end on, with what it was given at its beginning.
            rest = begun.pop(thread, "") + rest[resumed.end() :]
        call = _CALL.match(rest)
        if call:
            result = -2 if call["result"] == "?" else int(call["result"], 0)  # ?: it was killed in the call
            _replay_one(float(call["at"]), call["name"], call["given"], result, disks, there)
    # What was begun and never ended may have happened, too: as a pending change.
    for rest in begun.values():
        call = _BEGUN.match(rest)
        if call and call["name"] in ("pwrite64", "write"):
            _replay_one(float(call["at"]), call["name"], call["given"], -2, disks, there)


def _replay_one(at: float, name: str, given: str, result: int, disks: dict[str, Disk], there: set[str]) -> None:
    if result == -1:
        return
    if name == "openat":
        path = _text(given.split(", ")[1])
        if path in disks and "O_CREAT" in given:
            there.add(path)
        return
    if name == "unlink":
        path = _text(given)
        if path in disks:
            there.discard(path)
            disks[path] = Disk()
        return
    opened = _OPENED.match(given)
    disk = disks.get(_text(opened["path"])) if opened else None
    if opened is None or disk is None:
        return
    rest = opened["rest"]
    if name in ("fdatasync", "fsync"):
        if result == 0:
            disk.sync()
    elif name == "ftruncate":
        disk.change(Change(at, int(rest), None))
    elif name == "pwrite64":
        data, size, offset = rest.rsplit(", ", 2)
        written = int(size) if result == -2 else result
        disk.change(Change(at, int(offset), _bytes(data)[:written]))
    elif name == "write":
        raise BrokenInvariant("a database file was written without an offset: this recorder does not know where")


def _apply(content: bytearray, change: Change) -> None:
    if change.data is None:
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    end = change.offset + len(change.data)
    if end > len(content):
        content.extend(bytes(end - len(content)))
    content[change.offset : end] = change.data


def _blocks(offset: int, data: bytes) -> Iterable[tuple[int, bytes]]:
    """A write in parts that each lie in one block."""
    start = offset
    while start < offset + len(data):
        end = min(offset + len(data), (start // BLOCK + 1) * BLOCK)
        yield start, data[start - offset : end - offset]
        start = end


def _tail(path: Path, size: int = 4000) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode("ascii", "replace")


def _bytes(quoted: str) -> bytes:
    return bytes.fromhex(quoted.strip().strip('"').replace("\\x", ""))


def _text(quoted: str) -> str:
    return _bytes(quoted).decode()


_CALL = re.compile(r"(?P<at>[\d.]+) (?P<name>\w+)\((?P<given>.*)\)\s+= (?P<result>-?\w+|\?)", re.DOTALL)
_BEGUN = re.compile(r"(?P<at>[\d.]+) (?P<name>\w+)\((?P<given>.*)$", re.DOTALL)
_RESUMED = re.compile(r"[\d.]+ <\.\.\. \w+ resumed>")
_OPENED = re.compile(r"\d+<(?P<path>[^>]*)>(?:, (?P<rest>.*))?$", re.DOTALL)
