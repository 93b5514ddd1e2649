"""The whole product in one run: processes, kills, breakdown, replans, and the verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from messages.errors import UsageError
from shoal.demo import MARK, fresh


def shoal(*arguments: str, cwd: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout_s
    )


@pytest.mark.timeout(300)
def test_the_plant_plans_itself_breaks_down_plans_again_and_loses_nothing(tmp_path: Path) -> None:
    done = shoal("demo", "--json", "--out", str(tmp_path / "run"), cwd=tmp_path, timeout_s=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["lost"] == found["duplicated"] == 0
    accounted = found["readings_stored"] + found["rejected"] + found["gaps"] + found["evicted"] + found["quarantined"]
    assert found["readings_produced"] == accounted > 200_000
    assert found["batches_done"] == 15 and found["replans"] >= 1 and found["violations"] == []
    assert 27.0 <= found["makespan_planned_h"] <= found["makespan_actual_h"] < 60
    assert abs(found["energy_kwh"] / found["energy_planned_kwh"] - 1) < 0.2
    assert found["carbon_kg"] > 0
    page = (tmp_path / "run" / "report.html").read_text()
    for wanted in ("The first plan and what was done", "Power by workshop", "Cleaning", "is killed (SIGKILL)"):
        assert wanted in page
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True).stdout
    assert left == "", "every process has ended"

    asked = shoal(
        "query", "power_kw", "--device", "firing-1", "--every", "1h", "--format", "json",
        "--store", str(tmp_path / "run" / "cloud" / "shoal.db"), cwd=tmp_path, timeout_s=60,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert len(asked.stdout.splitlines()) > 24


def test_the_demo_never_overwrites_what_is_no_run_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="choose another --out"):
        fresh(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    run = tmp_path / "run"
    (fresh(run) / "old").write_text("x")
    assert [path.name for path in fresh(run).iterdir()] == [MARK]
