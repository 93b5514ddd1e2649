"""A row of the cloud's books that does not hold what was written is named: file, table and row, and the cure."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from learning_rig import CLOUD, settings
from test_early_reports import FACE
from test_models_cli import shoal

from cloud.book import Book
from cloud.full_disk import Room
from cloud.planbook import PlanBook
from cloud.quarantine import GateState
from cloud.registry import FILE, Registry
from cloud.releases import Releases
from cloud.retained_artefacts import RetainedArtefacts
from cloud.roster import Roster
from cloud.roundbook import RoundBook
from cloud.site_learning import FILES, NODES_FILE, ROUNDS_FILE, SiteLearning
from cloud.swarmbook import SwarmBook
from cloud.trials import ReleaseSettings
from cloud.versions import Draft
from messages.errors import UsageError


def roster(path: Path) -> Roster:
    return Roster(path, told={}, enrol="first")


def draft(graph: bytes = b"graph") -> Draft:
    return Draft(model="cell", graph=graph, interface=FACE, origin="a file")


def released(book: Any) -> object:
    return Releases(book, "cell", ReleaseSettings(), key=CLOUD)


READ: list[tuple[Callable[[Path], Book], str, str, str, Callable[[Any], object]]] = [
    (RoundBook, "state", "rounds", "INSERT INTO state VALUES('rounds', ?)", lambda book: book.state()),
    (RoundBook, "state", "base", "INSERT INTO state VALUES('base', ?)", lambda book: book.base()),
    (RoundBook, "state", "closing", "INSERT INTO state VALUES('closing', ?)", lambda book: book.closing()),
    (RoundBook, "state", "closing", "INSERT INTO state VALUES('closing_base', ?)", lambda book: book.closing()),
    (
        *(RoundBook, "arrival", "7 north"),
        "INSERT INTO arrival VALUES(7, 'north', 1, 'd', 0, ?, '', '')",
        lambda book: book.arrivals(),
    ),
    (RoundBook, "closed", "7", "INSERT INTO closed VALUES(7, ?)", lambda book: book.history()),
    (
        *(Registry, "version", "cell 3"),
        "INSERT INTO version VALUES('cell', 3, ?, '', NULL)",
        lambda book: book.versions("cell"),
    ),
    (
        *(Registry, "version", "cell 3"),
        "INSERT INTO version VALUES('cell', 3, ?, '', NULL)",
        lambda book: book.version("cell", 3),
    ),
    (Registry, "told", "cell s1/north", "INSERT INTO told VALUES('cell', 's1/north', ?, x'')", released),
    (Registry, "model", "cell", "INSERT INTO model VALUES('cell', 1, ?, '[]')", released),
    (
        *(Registry, "model", "cell"),
        "INSERT INTO model VALUES('cell', 1, NULL, ?)",
        lambda book: book.add(draft(), now=1, by="ann"),
    ),
    (roster, "node", "north", "INSERT INTO node VALUES('north', ?, 1)", lambda book: None),
    (RetainedArtefacts, "shown", "{it", "INSERT INTO shown VALUES(1, ?, 9, 0)", lambda book: book.old([])),
    (PlanBook, "plan", "7", "INSERT INTO plan VALUES(7, 1, 0, ?)", lambda book: book.in_force()),
    (PlanBook, "plan", "7", "INSERT INTO plan VALUES(7, 1, 0, ?)", lambda book: book.history()),
    (PlanBook, "state", "planner", "INSERT INTO state VALUES('planner', ?)", lambda book: book.state(GateState)),
    (PlanBook, "placed", "batch-7", "INSERT INTO placed VALUES('batch-7', ?)", lambda book: book.orders()),
    (PlanBook, "signal", "carbon", "INSERT INTO signal VALUES('carbon', 1, ?)", lambda book: book.signals()),
    (SwarmBook, "state", "judge", "INSERT INTO state VALUES('judge', ?)", lambda book: book.state()),
    (SwarmBook, "task", "b07 2", "INSERT INTO task VALUES('b07', 2, ?)", lambda book: book.tasks()),
    (SwarmBook, "baton", "b07", "INSERT INTO baton VALUES(1, 'b07', ?)", lambda book: book.batons()),
]


IDS = [f"{one[0].__name__}.{one[1]} {k}" for k, one in enumerate(READ)]


@pytest.mark.parametrize("garbage", ["{it", "\x00\x00\x00", '["a"]'])
@pytest.mark.parametrize(
    ("made", "table", "row", "insert", "read"),
    READ,
    ids=[f"{one[0].__name__}.{one[1]} {k}" for k, one in enumerate(READ)],
)
def test_it_is_named_with_the_cure(
    tmp_path: Path,
    made: Callable[[Path], Book],
    table: str,
    row: str,
    insert: str,
    read: Callable[[Any], object],
    garbage: str,
) -> None:
    path = tmp_path / "book.db"
    made(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(insert, (garbage if table in ("shown", "node") else garbage.encode(),))
    row = garbage if table == "shown" else row
    with pytest.raises(UsageError) as raised, closing(made(path)) as book:
        read(book)
    said = str(raised.value)
    assert said.startswith(f"{path}: table {table}, row {row!r}: damaged (") and "restore a backup" in said, said


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        (ROUNDS_FILE, "UPDATE state SET document = x'7b' WHERE name = 'rounds'"),
        (FILE, "UPDATE version SET document = x'7b'"),
        (FILE, "UPDATE model SET state = x'7b'"),
        (NODES_FILE, "INSERT INTO node VALUES('north', 'no key', 1)"),
    ],
)
def test_a_cloud_that_learns_does_not_begin_with_it_and_says_which_file(tmp_path: Path, file: str, spoil: str) -> None:
    def begun() -> SiteLearning:
        return SiteLearning(settings(tmp_path), site="s1", data=tmp_path, key=CLOUD)

    with closing(begun()) as core:
        core.on_time(1)
        core.on_time(2)
    with closing(sqlite3.connect(tmp_path / file, isolation_level=None)) as db:
        db.execute(spoil)
    with pytest.raises(UsageError, match=rf"{file}: table \w+, row .*restore a backup"), closing(begun()) as core:
        core.on_time(3)
        list(core.questions())


def test_the_command_line_says_it_in_a_line(tmp_path: Path) -> None:
    with closing(Registry(tmp_path / FILE)) as registry:
        registry.add(draft(), now=1, by="ann")
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as db:
        db.execute("UPDATE version SET document = x'7b'")
    done = shoal("list", "--data", str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{FILE}: table version, row 'cell 1': damaged" in done.stderr and "restore a backup" in done.stderr


@pytest.mark.parametrize("file", FILES)
async def test_a_file_that_breaks_while_the_cloud_runs_ends_it_and_is_named(tmp_path: Path, file: str) -> None:
    """The pages of one of three files, not its rows; which one SQLite does not say."""
    for one in FILES:
        with closing(sqlite3.connect(tmp_path / one, isolation_level=None)) as db:
            db.execute("CREATE TABLE other(document BLOB)")
            db.execute("INSERT INTO other VALUES(zeroblob(50000))")
    with (tmp_path / file).open("r+b") as opened:
        opened.seek(4_096)
        opened.write(bytes(range(256)) * 16 * 6)

    async def once() -> None:
        for one in FILES:
            with closing(sqlite3.connect(tmp_path / one)) as db:
                db.execute("SELECT * FROM other").fetchall()

    with pytest.raises(UsageError) as raised:
        await Room("learning", tmp_path, FILES).run(once)
    assert str(raised.value).startswith(f"{tmp_path / file}: damaged (") and "restore a backup" in str(raised.value)
