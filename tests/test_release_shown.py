"""What a node never takes up, and what it gives up at once: the parts of `benchmarks/releases.py`, made small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

from _release_flips import Flips, on_the_disk, on_the_way  # noqa: E402
from _release_kills import CASES, Ends, cut  # noqa: E402
from _release_trips import Fault, ended  # noqa: E402


def test_no_byte_of_a_release_or_of_an_update_can_be_flipped_on_its_way() -> None:
    found = {one.what: one for one in on_the_way(8)}
    assert found.keys() >= {"document", "graph", "parameters", "update, float16"}
    assert all(one == Flips(one.what, one.size, one.size, 0) for one in found.values()), found


def test_no_flipped_byte_on_the_disk_ever_decides() -> None:
    found = list(on_the_disk(160))
    assert sum(one.flips for one in found) > 100 and not any(one.taken for one in found), found


def test_a_node_killed_at_any_step_has_the_old_release_or_the_new_one_and_takes_it_again() -> None:
    """Real processes, real files, SIGKILL: one step in twelve; the benchmark does them all."""
    command = [sys.executable, str(BENCHMARKS / "releases.py"), "--quick", "--only", "kills"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    lines = {one["figure"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert all(one["holds"] for one in lines.values()), lines
    ways = lines["sigkill_mixed"]["ways"]
    assert ways["old"] > 10 and ways["new"] > 2, ways


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_power_cut_leaves_the_old_release_or_the_new_one(case: object) -> None:
    found: Ends = cut(case, 4, 2)  # type: ignore[arg-type]
    assert found.found.keys() == {"old", "new"}, found


@pytest.mark.parametrize("fault", ["trip", "non-finite"])
def test_the_first_fault_of_a_candidate_is_its_last_decision_anywhere(fault: Fault) -> None:
    found = ended(fault, 1, silent=0.1, most=1_000)
    assert (found.faults, found.after, found.unsafe, found.stage) == (1, 0, 0, "rolled_back")
    assert found.decisions > 10


def test_a_sensor_that_falls_silent_is_no_fault_of_a_candidate() -> None:
    found = ended("none", 1, silent=0.5, most=1_000)
    assert (found.faults, found.unsafe, found.stage) == (0, 0, "canary")
    assert found.silent > 400 and found.decisions > 400
