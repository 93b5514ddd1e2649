"""The whole product in one run: processes, kills, breakdown, replans, and the verdict."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from messages.carbon import day_of_carbon
from messages.errors import UsageError
from messages.observe import observe
from messages.plant import load_plant
from messages.routes import SIGNAL
from shoal.demo import CERAMIC, MARK, _broker_dies, claimed, demo
from shoal.stage import Stage
from shoal.view import View


def shoal(*arguments: str, cwd: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout_s
    )


@pytest.mark.timeout(900)
def test_the_plant_plans_itself_breaks_down_plans_again_and_loses_nothing(tmp_path: Path) -> None:
    done = shoal("demo", "--json", "--out", str(tmp_path / "run"), cwd=tmp_path, timeout_s=840)
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
    with pytest.raises(UsageError, match="choose another --out"), claimed(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").exists()
    run = tmp_path / "run"
    with claimed(run):
        (run / "old").write_text("x")
        (run / "older").mkdir()
    with claimed(run):
        assert [path.name for path in run.iterdir()] == [MARK]


def test_two_demos_never_share_a_directory(tmp_path: Path) -> None:
    with claimed(tmp_path / "run") as run:
        (run / "truth.jsonl").write_text("x")
        done = shoal("demo", "--json", "--out", str(run), cwd=tmp_path, timeout_s=60)
        assert done.returncode == 2 and "--out" in done.stderr and len(done.stderr.splitlines()) == 1
        assert (run / "truth.jsonl").read_text() == "x"


def test_a_place_that_cannot_be_written_is_said_and_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="choose another --out"), claimed(out):
            pass


def test_without_mosquitto_nothing_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with claimed(tmp_path / "run") as run:
        (run / "report.html").write_text("the run before")
    monkeypatch.setattr("messages.broker._PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="mosquitto is not installed"):
        demo(out=run)
    assert (run / "report.html").exists()


@pytest.mark.parametrize("sure", ["demo.log", "mosquitto.conf", "cloud.toml", "truth.jsonl"])
def test_ctrl_c_ends_every_process_with_one_line(tmp_path: Path, sure: str) -> None:
    """At four moments: before the broker, while it starts, while the processes start, while the plant runs."""
    run = tmp_path / "run"
    started = subprocess.Popen(
        [sys.executable, "-m", "shoal", "demo", "--json", "--out", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(run.rglob(sure)) and time.monotonic() < deadline and started.poll() is None:
            time.sleep(0.005)
        for _ in range(3):  # the impatient press it again
            started.send_signal(signal.SIGINT)
            time.sleep(0.05)
        out, err = started.communicate(timeout=120)
    finally:
        started.kill()
    assert (started.returncode, out, err.strip()) == (1, "", "stopped; all processes ended")
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True).stdout == ""


async def test_the_carbon_signal_is_there_again_after_the_broker_was_killed(tmp_path: Path) -> None:
    plant = load_plant(CERAMIC)
    carbon = day_of_carbon(0)
    async with Stage(tmp_path, plant, 0, lambda port, clock: {}) as stage:
        async with observe(stage.broker.host, stage.broker.port, retry_s=0.1) as watcher:
            tell = partial(watcher.publish, SIGNAL, carbon, site=plant.site, signal=carbon.name)
            await tell()
            await _broker_dies(stage, View(plant, 0), tell)
            async with asyncio.timeout(60):
                seen = await anext(watcher.messages(SIGNAL, site=plant.site))
        assert seen.retained and seen.message == carbon
