"""The registry: a version is there with its bytes and its history, or not at all; bounded; two processes at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cloud.registry import OPEN_WISHES, Registry
from cloud.versions import Draft, Event, Told
from messages.errors import BrokenInvariant, UsageError
from messages.learning import Artefact, Feature, Interface

ROOT = Path(__file__).resolve().parent.parent
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"])


class Nothing(BaseModel):
    """A state that says nothing."""


def candidate(
    vector: bytes, *, graph: bytes = b"graph", model: str = "cell", origin: str = "round 1", parent: int | None = None
) -> Draft:
    return Draft(model=model, graph=graph, parameters=vector, interface=FACE, origin=origin, parent=parent)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with closing(Registry(tmp_path / "models.db", keep=3)) as made:
        yield made


def blobs(registry: Registry) -> int:
    return int(registry._db.execute("SELECT count(*) FROM artefact").fetchone()[0])


def test_a_version_comes_back_as_it_was_put_in_after_the_file_was_closed(tmp_path: Path) -> None:
    with closing(Registry(tmp_path / "models.db")) as registry:
        made = registry.add(candidate(b"one"), now=5, by="shoal", why="round 1 closed")
    with closing(Registry(tmp_path / "models.db")) as registry:
        assert registry.version("cell", 1) == made
        assert (made.version, made.made_at, made.stage) == (1, 5, "candidate")
        assert made.parameters is not None
        assert registry.data(made.parameters.sha256) == b"one" and registry.data(made.graph.sha256) == b"graph"
        assert registry.history("cell") == [Event(5, "cell", 1, "candidate", "shoal", "round 1 closed")]


def test_the_same_bytes_are_there_once_and_the_same_candidate_is_the_same_version(registry: Registry) -> None:
    first = registry.add(candidate(b"one"), now=1, by="shoal")
    assert registry.add(candidate(b"one"), now=2, by="shoal") == first
    second = registry.add(candidate(b"one", origin="round 2"), now=3, by="shoal")
    assert second.version == 2 and blobs(registry) == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20))
def test_old_versions_go_with_their_bytes_but_not_what_runs_nor_its_parent(steps: list[tuple[int, bool]]) -> None:
    with closing(Registry(Path(":memory:"), keep=3)) as registry:
        needed: set[int] = set()
        parents: dict[int, int | None] = {}
        numbers = []
        for vector, need in steps:
            before = {one.version for one in registry.versions("cell")}
            parent = max(needed, default=None)
            one = candidate(b"%d" % vector, origin=f"round {len(numbers)}", parent=parent)
            number = registry.add(one, now=1, by="shoal").version
            parents[number] = parent
            numbers.append(number)
            there = {one.version for one in registry.versions("cell")}
            stay = set(numbers[-3:]) | needed | {parents[one] for one in needed}
            assert there == (before | {number}) & stay
            assert blobs(registry) == 1 + len({one.parameters for one in registry.versions("cell")})
            if need:
                needed = {number}
                registry.keep_state("cell", Nothing(), needed=needed)
        assert numbers == sorted(set(numbers))


def test_a_number_is_never_used_again(registry: Registry) -> None:
    for number in range(1, 9):
        assert registry.add(candidate(b"%d" % number, origin=f"round {number}"), now=1, by="shoal").version == number
    assert [one.version for one in registry.versions("cell")] == [6, 7, 8]


def test_bytes_that_rotted_are_noticed(registry: Registry) -> None:
    made = registry.add(candidate(b"one"), now=1, by="shoal")
    registry._db.execute("UPDATE artefact SET data = ? WHERE sha256 = ?", (b"graPh", made.graph.sha256))
    with pytest.raises(BrokenInvariant, match="damaged"):
        registry.data(made.graph.sha256)
    with pytest.raises(BrokenInvariant, match="missing"):
        registry.data(Artefact.of(b"never").sha256)


def test_metrics_and_stage_change_together_with_a_line_of_history(registry: Registry) -> None:
    made = registry.add(candidate(b"one"), now=1, by="shoal")
    registry.mark(made, "validated", now=2, by="shoal", why="good", metrics={"mean_return": 3.5})
    registry.mark(registry.version("cell", 1), "fleet", now=3, by="eva", why="now", metrics={})
    found = registry.version("cell", 1)
    assert (found.stage, found.metrics) == ("fleet", {"mean_return": 3.5})
    assert [(one.what, one.by) for one in registry.history("cell", 1)] == [
        ("candidate", "shoal"), ("validated", "shoal"), ("fleet", "eva")
    ]  # fmt: skip
    assert [one.what for one in registry.history("cell", limit=1)] == ["fleet"]


def test_what_fails_half_way_leaves_nothing_behind(registry: Registry) -> None:
    with pytest.raises(RuntimeError), registry.together():
        registry.add(candidate(b"one"), now=1, by="shoal")
        raise RuntimeError
    assert registry.versions("cell") == [] and blobs(registry) == 0 and registry.history("cell") == []


_ADDER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_registry import Registry, candidate
registry = Registry(Path(sys.argv[1]), keep=4)
number = registry.newest("cell")
print("ready", flush=True)
while True:
    number += 1
    registry.add(candidate(bytes([number % 256]) * 200_000, origin=f"round {{number}}"), now=number, by="shoal")
    print(number, flush=True)
"""


def test_killed_at_any_moment_every_version_is_whole_and_none_that_was_confirmed_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "models.db"
    code = _ADDER.format(tests=str(ROOT / "tests"))
    confirmed = 0
    for after in (1, 2, 5, 3):
        adder = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert adder.stdout is not None
        assert adder.stdout.readline() == "ready\n"
        for _ in range(after):
            confirmed = int(adder.stdout.readline())
        adder.send_signal(signal.SIGKILL)
        confirmed = max([confirmed, *(int(line) for line in adder.stdout.read().split())])
        adder.wait()
        adder.stdout.close()
        with closing(Registry(path, keep=4)) as registry:
            versions = registry.versions("cell")
            assert versions[-1].version in (confirmed, confirmed + 1) and len(versions) <= 4
            for one in versions:
                assert [registry.data(part.sha256) for part in one.artefacts]
                assert registry.history("cell", one.version)
            assert blobs(registry) == 1 + len(versions)


def test_two_processes_see_each_others_wishes_and_answers(tmp_path: Path) -> None:
    with closing(Registry(tmp_path / "m.db")) as cloud, closing(Registry(tmp_path / "m.db")) as operator:
        number = operator.wish("cell", "pin", version=3, node="s1/dry", by="eva", why="a test")
        [wish] = cloud.wishes("cell")
        assert (wish.kind, wish.version, wish.node, wish.by, wish.why) == ("pin", 3, "s1/dry", "eva", "a test")
        assert operator.answered(number) is None and cloud.wishes("other") == []
        cloud.answer(wish.id, "done")
        assert operator.answered(number) == "done" and cloud.wishes("cell") == []


def test_wishes_that_nobody_takes_up_are_refused_after_a_hundred(registry: Registry) -> None:
    for _ in range(OPEN_WISHES):
        registry.wish("cell", "rollback", version=None, node=None, by="eva", why="")
    with pytest.raises(UsageError, match="is it running"):
        registry.wish("cell", "rollback", version=None, node=None, by="eva", why="")


def test_what_a_node_was_told_stays_byte_for_byte(registry: Registry) -> None:
    told = Told(node="s1/dry", version=1, stage="fleet", counter=7, until=9, instead_of=2, payload=bytes(range(256)))
    registry.tell("cell", told)
    assert registry.told("cell") == {"s1/dry": told}
    registry.untell("cell", "s1/dry")
    assert registry.told("cell") == {}


def test_history_is_bounded_per_model(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.registry.EVENTS", 5)
    for at in range(9):
        registry.note(Event(at, "cell", 1, "fleet", "shoal", ""))
        registry.note(Event(at, "other", 1, "fleet", "shoal", ""))
    assert [one.at for one in registry.history("cell")] == [4, 5, 6, 7, 8]


def test_a_file_that_is_none_and_one_of_a_newer_shoal_are_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data"):
        Registry(tmp_path / "none.db", make=False)
    (tmp_path / "text.db").write_bytes(b"no database, but long enough to be looked at" * 30)
    with pytest.raises(UsageError, match="restore a backup"):
        Registry(tmp_path / "text.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="newer Shoal"):
        Registry(tmp_path / "new.db")


def test_a_version_that_is_not_kept_is_refused_by_naming_those_that_are(registry: Registry) -> None:
    with pytest.raises(UsageError, match="no model 'cell'"):
        registry.version("cell", 1)
    registry.add(candidate(b"one"), now=1, by="shoal")
    with pytest.raises(UsageError, match="kept are 1"):
        registry.version("cell", 2)
