"""The simulated power cut keeps what was synced, whatever else happens, and may lose anything that was not."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.errors import UsageError
from shoal.torture.powercut import BLOCK, WRITEBACK_S, Change, Disk, Power, find_strace, replay


def strace_trouble() -> str:
    try:
        find_strace()
    except UsageError as error:
        return str(error)
    return ""


needs_strace = pytest.mark.skipif(bool(strace_trouble()), reason=strace_trouble())

WRITES = st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.binary(min_size=1, max_size=2 * BLOCK)), max_size=6)


def written(changes: list[tuple[int, bytes]], content: bytes = b"") -> bytes:
    """The obvious way."""
    for offset, data in changes:
        content = content.ljust(offset, b"\0")
        content = content[:offset] + data + content[offset + len(data) :]
    return content


@given(WRITES, WRITES, st.integers(0, 99))
def test_what_was_synced_survives_where_nothing_later_touched_it(
    synced: list[tuple[int, bytes]], later: list[tuple[int, bytes]], seed: int
) -> None:
    disk = Disk()
    for offset, data in synced:
        disk.change(Change(1.0, offset, data))
    disk.sync()
    for offset, data in later:
        disk.change(Change(1.0, offset, data))
    found, sure = disk.after_cut(1.0, random.Random(seed)), written(synced)
    touched = {place for offset, data in later for place in range(offset, offset + len(data))}
    assert len(found) >= len(sure)
    assert all(found[place] == sure[place] for place in range(len(sure)) if place not in touched)


def test_what_was_not_synced_survives_by_chance_block_by_block_in_any_order() -> None:
    disk = Disk()
    for n in range(8):
        disk.change(Change(1.0, n * BLOCK, b"x" * BLOCK))
    kept = [disk.after_cut(1.0, random.Random(seed)).ljust(8 * BLOCK, b"\0")[::BLOCK] for seed in range(50)]
    assert len(set(kept)) > 40 and any(b"\0x" in one for one in kept), "a later write without an earlier one"
    disk = Disk(bytearray(b"." * 2 * BLOCK))
    disk.change(Change(1.0, 0, b"x" * 2 * BLOCK))
    halves = {disk.after_cut(1.0, random.Random(seed))[::BLOCK] for seed in range(50)}
    assert halves == {b"..", b"x.", b".x", b"xx"}, "a write of two blocks may be there by half"


def test_the_kernel_writes_back_what_is_old_and_truncations_wait_like_writes() -> None:
    disk = Disk()
    disk.change(Change(1.0, 0, b"old"))
    disk.change(Change(1.0 + 2 * WRITEBACK_S, 3, b"new"))
    disk.change(Change(1.0 + 2 * WRITEBACK_S, 1, None))
    found = {disk.after_cut(1.0 + 2 * WRITEBACK_S, random.Random(seed)) for seed in range(50)}
    assert found == {b"old", b"oldnew", b"o"}


def _line(at: float, call: str, result: str = "0", thread: int = 7) -> str:
    return f"{thread} {at:.6f} {call} = {result}"


def _hex(text: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text)


FILE = f"3<{_hex(b'/d/a.db')}>"


def test_a_trace_is_read_with_threads_in_between_failures_and_a_call_cut_short() -> None:
    disks, there = {"/d/a.db": Disk()}, set[str]()
    lines = [
        _line(1, f'openat(AT_FDCWD<{_hex(b"/d")}>, "{_hex(b"/d/a.db")}", O_RDWR|O_CREAT, 0644)', f"{FILE}"),
        _line(2, f'pwrite64({FILE}, "{_hex(b"one,")}", 4, 0)', "4"),
        f'8 3.0 pwrite64({FILE}, "{_hex(b"two,")}", 4, 4 <unfinished ...>',
        _line(4, f"fdatasync({FILE})", "-1 EIO (Input/output error)"),
        "8 5.0 <... pwrite64 resumed>) = 4",
        _line(6, f"fdatasync({FILE})"),
        _line(7, f'pwrite64({FILE}, "{_hex(b"three")}", 5, 8)', "2"),
        f'7 8.0 pwrite64({FILE}, "{_hex(b"four")}", 4, 13) = ?',
        "7 9.0 +++ killed by SIGKILL +++",
    ]
    replay(lines, disks, there)
    disk = disks["/d/a.db"]
    assert there == {"/d/a.db"} and bytes(disk.content) == b"one,two,"
    assert [(change.offset, change.data) for change in disk.pending] == [(8, b"th"), (13, b"four")]


PROGRAM = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for word in ("journal_mode = WAL", "wal_autocheckpoint = 20", f"synchronous = {sys.argv[2]}"):
    db.execute(f"PRAGMA {word}")
db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, text TEXT)")
first = db.execute("SELECT COALESCE(MAX(n), -1) + 1 FROM t").fetchone()[0]
for n in range(first, first + 60):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 300))
    db.execute("COMMIT")
    print(n, flush=True)
os.kill(os.getpid(), 9)
"""


def committed_and_found(folder: Path, synchronous: str, seed: int) -> tuple[int, int]:
    """(rows SQLite said it had committed, rows found) after three power cuts; -1: the file is damaged."""
    path = (folder / f"{synchronous}-{seed}.db").resolve()
    power = Power((path, path.with_name(path.name + "-wal")), folder / "trace", random.Random(seed))
    committed = found = 0
    for _ in range(3):
        process = subprocess.Popen(
            power.watched([sys.executable, "-c", PROGRAM, str(path), synchronous]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        said = process.communicate()[0].split()
        if not said:  # it could not even begin on what the cut before had left
            return committed, -1
        committed = int(said[-1]) + 1
        power.cut(process.pid)
        try:
            connection = sqlite3.connect(path)
            found = connection.execute("SELECT COUNT(*) FROM t").fetchone()[0]
            connection.close()
        except sqlite3.DatabaseError:
            return committed, -1
        if found != committed:
            break
    return committed, found


@needs_strace
def test_sqlite_keeps_its_word_with_full_and_cannot_without(tmp_path: Path) -> None:
    for seed in range(3):
        committed, found = committed_and_found(tmp_path, "FULL", seed)
        assert found == committed == 180
    without = [committed_and_found(tmp_path, "OFF", seed) for seed in range(3)]
    assert all(found < committed for committed, found in without), without


def test_without_strace_or_the_right_to_use_it_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt-get install strace"):
        Power((), tmp_path / "trace", random.Random(1))
    (tmp_path / "strace").write_text("#!/bin/sh\necho 'strace: ptrace(PTRACE_SEIZE): not permitted' >&2; exit 1\n")
    (tmp_path / "strace").chmod(0o755)
    with pytest.raises(UsageError, match=r"not permitted.*leave --power-cuts out"):
        find_strace()
