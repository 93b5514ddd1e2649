"""`shoal schedule` as people script it: files, choices, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from messages.instances import load_problem, plan_from_document
from messages.judge import objective, violations
from shoal.gantt import Bar, gantt_figure
from shoal.schedule import schedule

REPO = Path(__file__).parent.parent
CERAMIC = REPO / "examples" / "ceramic.json"

app = typer.Typer()
app.command("schedule")(schedule)


@app.command()
def other() -> None:
    """A second command, so that typer keeps the first one's name."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Six batches of the ceramic line through two stages: a front of 8 plans, proved within a second."""
    data = json.loads(CERAMIC.read_text())
    data["stages"] = [data["stages"][0], data["stages"][3]]
    for stage in data["stages"]:
        stage["machines"] = stage["machines"][:2]
        for machine in stage["machines"]:
            machine["time_h"] = machine["time_h"][:6]
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(data))
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["schedule", *map(str, arguments)])


def checked(path: Path, document: Any) -> dict[str, Any]:
    """The file's plan, judged again from the file alone."""
    problem = load_problem(path)
    plan = plan_from_document(problem, document)
    assert violations(problem, plan) == []
    values = objective(problem, plan)
    assert document["objectives"]["makespan"] == problem.in_unit(values["makespan"])
    assert document["objectives"]["energy"] == pytest.approx(values["energy_kwh"])
    return dict(document["objectives"])


def test_the_ceramic_line_is_proved_to_take_27_hours(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = run(CERAMIC, "--objectives", "makespan", "--budget", "20", "--seed", 1, "--out", out)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert checked(CERAMIC, document)["makespan"] == 27.0
    assert (document["status"], document["bound"], document["solver"]) == ("optimal", 27.0, "cpsat")
    assert {"machine_states", "moves", "runtime_s", "schema", "problem_sha256"} <= set(document)
    assert {(one["job"], one["op"]) for one in document["assignments"]} == {
        (str(job), op) for job in range(1, 16) for op in range(4)
    }
    assert "27 h" in result.output


def test_a_rule_is_a_solver_too(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    assert run(CERAMIC, "--solver", "fifo", "--out", out).exit_code == 0
    assert checked(CERAMIC, json.loads(out.read_text()))["makespan"] == 33.0


def test_several_objectives_give_a_front_a_choice_and_a_report(tmp_path: Path, tiny: Path) -> None:
    out, front, report = tmp_path / "plan.json", tmp_path / "front.json", tmp_path / "r.html"
    objectives = ("--objectives", "makespan,energy", "--budget", "20s", "--front", front, "--out", out)
    result = run(tiny, *objectives, "--report", report)
    assert result.exit_code == 0, result.output
    plans = json.loads(front.read_text())
    values = [checked(tiny, plan) for plan in plans]
    spans, energies = [one["makespan"] for one in values], [one["energy"] for one in values]
    assert len(plans) == 8
    assert spans == sorted(set(spans))
    assert energies == sorted(set(energies), reverse=True)
    chosen = json.loads(out.read_text())
    assert chosen["ideal"]["makespan"] == spans[0]
    assert chosen["nadir"]["energy"] == energies[0]

    def regret(one: dict[str, float]) -> float:
        return max(
            (one[name] - chosen["ideal"][name]) / (chosen["nadir"][name] - chosen["ideal"][name])
            for name in ("makespan", "energy")
        )

    assert regret(chosen["objectives"]) == pytest.approx(min(map(regret, values)))
    page = report.read_text()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"<script[^>]+src=", page), "the report must open without a network"
    for text in ("Plan", "Front", "Convergence", "preheat"):
        assert text in page


def test_lex_takes_the_first_objective_first_and_weights_choose_an_end(tmp_path: Path, tiny: Path) -> None:
    out = tmp_path / "plan.json"
    common = (tiny, "--objectives", "makespan,energy", "--out", out)
    assert run(*common, "--lex", "--budget", "20").exit_code == 0
    first = checked(tiny, json.loads(out.read_text()))
    assert run(*common, "--weights", "makespan=1,energy=0", "--budget", "20").exit_code == 0
    document = json.loads(out.read_text())
    assert document["objectives"]["makespan"] == document["ideal"]["makespan"] == first["makespan"]
    assert document["objectives"]["energy"] == document["nadir"]["energy"] == first["energy"]
    assert run(*common, "--weights", "0,1", "--budget", "20").exit_code == 0
    document = json.loads(out.read_text())
    assert document["objectives"]["energy"] == document["ideal"]["energy"] < first["energy"]


def test_an_fjs_file_is_planned_in_its_own_numbers(tmp_path: Path) -> None:
    path, out = tmp_path / "t.fjs", tmp_path / "plan.json"
    path.write_text("2 2\n2  2 1 3 2 4  1 2 2\n1  1 2 6\n")
    assert run(path, "--out", out, "--budget", "5").exit_code == 0
    document = json.loads(out.read_text())
    assert document["objectives"]["makespan"] == 8.0
    assert {(one["job"], one["op"]) for one in document["assignments"]} == {("1", 0), ("1", 1), ("2", 0)}
    assert {one["machine"] for one in document["assignments"]} <= {"1", "2"}


def test_no_orders_are_a_plan_without_work(tmp_path: Path) -> None:
    path, out, front = tmp_path / "none.json", tmp_path / "plan.json", tmp_path / "front.json"
    path.write_text('{"jobs": [], "machines": []}')
    assert run(path, "--objectives", "makespan,energy", "--out", out, "--front", front).exit_code == 0
    assert json.loads(out.read_text())["assignments"] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--objectives", "carbon"), "there are makespan, energy, tardiness"),
        (("--objectives", "makespan,cost"), "cost: not available"),
        (("--objectives", ""), "not available"),
        (("--objectives", "makespan,makespan"), "each one once"),
        (("--objectives", "tardiness"), "due date"),
        (("--budget", "soon"), "seconds"),
        (("--budget", "-3"), "more than 0"),
        (("--budget", "nan"), "more than 0"),
        (("--solver", "magic"), "cpsat, fifo"),
        (("--workers", "0"), "workers"),
        (("--weights", "1"), "several --objectives"),
        (("--objectives", "makespan,energy", "--weights", "1"), "one number per objective"),
        (("--objectives", "makespan,energy", "--weights", "0,0"), "more than 0"),
        (("--objectives", "makespan,energy", "--weights", "cost=1"), "not among"),
        (("--objectives", "makespan,energy", "--weights", "1,1", "--lex"), "one of them"),
        (("--out", "/nowhere/at/all/plan.json"), "does not exist"),
        (("--out", "/"), "is a folder"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_cure(arguments: tuple[str, ...], text: str) -> None:
    result = run(CERAMIC, *arguments)
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


def test_a_broken_file_ends_with_2_and_an_fjs_file_has_no_energy(tmp_path: Path) -> None:
    bad, plain = tmp_path / "bad.json", tmp_path / "t.fjs"
    bad.write_text('{"stages": 3}')
    plain.write_text("1 1\n1 1 1 3\n")
    assert run(bad).exit_code == 2
    assert run(tmp_path / "none.json").exit_code == 2
    result = run(plain, "--objectives", "makespan,energy")
    assert result.exit_code == 2
    assert "no machine has a power" in " ".join(result.output.split())


def test_ctrl_c_returns_the_best_so_far(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    code = "import typer; from shoal.schedule import schedule; typer.run(schedule)"
    arguments = [CERAMIC, "--objectives", "energy,makespan", "--budget", "100", "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 30
        while not _solving(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    checked(CERAMIC, json.loads(out.read_text()))


def _solving(pid: int) -> bool:
    """The main thread, the solving one, its watcher and the solver's own: more than the interpreter starts with."""
    return len(list(Path(f"/proc/{pid}/task").iterdir())) >= 4


def test_a_gantt_of_planned_against_actual_takes_times_of_the_calendar() -> None:
    def bar(start: int, end: int) -> Bar:
        day = datetime(2026, 1, 1, tzinfo=UTC)
        return Bar("kiln", "7", 0, day.replace(hour=start), day.replace(hour=end))

    figure = gantt_figure([bar(1, 3)], [bar(2, 5)], machines=["kiln"])
    planned, actual = figure.data
    assert (planned.name, actual.name) == ("planned", "actual")
    assert planned.x[0] == 2 * 3600 * 1000
    assert figure.layout.xaxis.type == "date"
