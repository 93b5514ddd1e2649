"""`shoal schedule` as people script it: files, choices, exit codes, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from shops import random_shop, some_plan
from typer.testing import CliRunner

from cloud.scheduling import Goal, Result
from cloud.scheduling.seam import KEY, judged
from messages.curve import Curve
from messages.gaps import works
from messages.instances import load_problem, plan_from_document, problem_text
from messages.judge import objective, violations
from messages.plan import Assignment, Measure
from messages.problem import Job, Machine, Operation, Power, Problem
from shoal.gantt import Bar, gantt_figure
from shoal.schedule import schedule
from shoal.schedule_table import gap, plan_rows
from shoal.schedule_ties import sooner

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
    assert (document["status"], document["bound"]) == ("optimal", 27.0)
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
    for text in ("Plan", "Pareto front", "Convergence", "preheat"):
        assert text in page


def test_a_plan_is_taken_from_a_front_searched_or_written_before(tmp_path: Path, tiny: Path) -> None:
    out, front, page = tmp_path / "plan.json", tmp_path / "front.json", tmp_path / "r.html"
    both = ("--objectives", "makespan,energy")
    result = run(tiny, *both, "--budget", "20", "--front", front, "--out", out, "--take", 3, "--report", page)
    assert result.exit_code == 0, result.output
    plans = json.loads(front.read_text())
    assert json.loads(out.read_text()) == plans[2]
    assert "Front: 8 plans" in result.output and result.output.count("proved") >= 8
    assert re.search(r"^  3 .* taken$", result.output, re.M), result.output
    assert "8 plans; 3 is taken" in page.read_text()
    result = run(tiny, "--plan", front, "--take", 5, *both, "--out", out, "--report", page)
    assert result.exit_code == 0, result.output
    again = json.loads(out.read_text())
    assert {**again, "runtime_s": 0} == {**plans[4], "runtime_s": 0}
    assert re.search(r"^  5 .* taken$", result.output, re.M) and "8 plans; 5 is taken" in page.read_text()
    checked(tiny, again)
    result = run(tiny, "--plan", front, "--take", 5)
    assert re.search(r"plan +makespan \(h\) +energy \(kWh\)", result.output), "a front says what it is a front of"
    frozen = ("--plan", front, "--take", 5, "--what-if", "down forming-1 2h 3h", *both, "--budget", "1")
    result = run(tiny, *frozen, "--weights", "0.5,0.5")
    assert result.exit_code == 0, result.output
    for arguments, text in (
        (("--plan", front, "--take", 9), "give a number from 1 to 8"),
        (("--plan", front, "--explain"), "--take N, N from 1 to 8"),
        (("--start", front), "a front of 8 plans"),
        (("--plan", out, "--take", 2), "holds one plan"),
    ):
        result = run(tiny, *arguments)
        assert result.exit_code == 2 and text in " ".join(result.output.split()), result.output
    front.unlink()
    result = run(tiny, *both, "--budget", "20", "--front", front, "--take", 99)
    assert result.exit_code == 2 and "give a number from 1 to 8" in " ".join(result.output.split())
    assert len(json.loads(front.read_text())) == 8, "a wrong number loses nothing of the search"


def test_a_plan_is_a_table_for_people_and_for_spreadsheets(tmp_path: Path) -> None:
    table, out, tabled = tmp_path / "plan.csv", tmp_path / "plan.json", tmp_path / "out.csv"
    begins = ("--begins", "2026-11-23T06:00:00+00:00")
    result = run(CERAMIC, "--solver", "fifo", "--csv", table, "--out", out, *begins)
    assert result.exit_code == 0, result.output
    assert "2026" in result.output and "the first 40 of 60 operations" in result.output
    with table.open() as file:
        rows = list(csv.DictReader(file))
    plan = json.loads(out.read_text())
    told = {(one["job"], one["operation"], one["machine"], float(one["start_h"]), float(one["end_h"])) for one in rows}
    kept = {(one["job"], str(one["op"]), one["machine"], one["start"], one["end"]) for one in plan["assignments"]}
    assert told == kept and len(rows) == 60
    zero = datetime(2026, 11, 23, 6, tzinfo=UTC)
    assert all(
        datetime.fromisoformat(one[f"{end}_at"]) == zero + timedelta(hours=float(one[f"{end}_h"]))
        for one in rows
        for end in ("start", "end")
    )
    first = {one["machine"]: one["before"] for one in reversed(rows)}
    assert set(first.values()) == {"off"}, "every machine is preheated for its first operation"
    result = run(CERAMIC, "--plan", out, "--table")
    assert result.exit_code == 0 and "2026" in result.output, "plan.json keeps when time 0 is"
    assert len(re.findall(r"^  \d+ +[0-3] ", result.output, re.M)) == 60
    assert run(CERAMIC, "--plan", out, "--take", 1, "--out", tabled).exit_code == 0
    assert tabled.read_text() == table.read_text()


def test_set_ups_and_what_the_machine_did_before_stand_in_the_table() -> None:
    machine = Machine(id="m", preheat=1, setup={"": {"red": 2}, "red": {"blue": 3}}, power_kw=Power(work=1, idle=1))
    jobs = tuple(
        Job(id=name, operations=(Operation(op=0, alternatives={"m": 4}, family=family),))
        for name, family in (("a", "red"), ("b", "blue"))
    )
    problem = Problem(machines=(machine,), jobs=jobs)
    work = (("a", 2, 6), ("b", 11, 15))
    plan = judged(problem, [Assignment(job=j, op=0, machine="m", start=s, end=e) for j, s, e in work], solver="hand")
    assert violations(problem, plan) == []
    rows = [(row.job, row.setup, row.before) for row in plan_rows(problem, plan)]
    assert rows[0] == ("a", 2, "off") and rows[1][:2] == ("b", 3) and rows[1][2] in ("off", "idle")


def test_what_the_machine_did_before_is_what_it_did_in_the_gap() -> None:
    for seed in range(20):
        problem = random_shop(seed, jobs=6, machines=3)
        plan = judged(problem, some_plan(problem, seed), solver="hand")
        rows = {(row.job, row.op, row.start): row.before for row in plan_rows(problem, plan)}
        for machine, line in works(problem, plan.assignments).items():
            for n, work in enumerate(line):
                since = line[n - 1].end if n else -1000
                gap = {
                    one.state
                    for one in plan.machine_states
                    if one.machine == machine and since <= one.start and one.end <= work.ready
                }
                told = "off" if gap & {"off", "preheat"} else "idle" if "idle" in gap else ""
                assert all(rows[one.job, one.op, one.start] == told for one in work.members)


def test_the_gap_to_what_is_proved_stands_beside_the_value() -> None:
    problem = Problem(
        machines=(Machine(id="m"),), jobs=(Job(id="a", operations=(Operation(op=0, alternatives={"m": 4}),)),)
    )
    new = [Assignment(job="a", op=0, machine="m", start=1, end=5)]
    plan = judged(problem, new, solver="hand", status="feasible", bound=4.0)
    assert gap(problem, plan, "makespan") == "at most 25.00% above the least there can be: 4 s is proved"
    assert gap(problem, plan, "energy") == ""
    assert gap(problem, plan.model_copy(update={"bound": 5.0}), "makespan") == "proved: none is less"


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
        (("--objectives", "joy"), "there are makespan, energy, carbon"),
        (("--objectives", "carbon"), "add `carbon`"),
        (("--objectives", "makespan,cost"), "add `tariff`"),
        (("--limit", "ledger=0"), "add `carbon`"),
        (("--limit", "makespan"), "NAME=VALUE"),
        (("--limit", "joy=3"), "NAME=VALUE"),
        (("--limit", "makespan=soon"), "no limit"),
        (("--limit", "makespan=-1"), "from 0 on"),
        (("--limit", "makespan=30", "--limit", "makespan=31"), "once"),
        (("--max-evaluations", "0"), "max-evaluations"),
        (("--solver", "fifo:speed"), "KEY=VALUE"),
        (("--solver", "cpsat:speed=3"), "speed: unknown; correct the setting, cpsat has redundant, slice_s"),
        (("--solver", "fifo:speed=3"), "speed: unknown; correct the setting, fifo has none"),
        (("--solver", "cpsat:slice_s=-1"), "correct the setting"),
        (("--split", "1"), "JOB=LOTS"),
        (("--split", "99=2"), "correct the id"),
        (("--split", "1=0"), "give 1 to"),
        (("--start", "/nowhere.json"), "cannot be read"),
        (("--plan", "/nowhere.json"), "--start"),
        (("--plan", "/nowhere.json", "--explain"), "cannot be read"),
        (("--what-if", "down firing-1 1h 2h"), "--plan"),
        (("--now", "3h"), "--what-if"),
        (("--out", CERAMIC), "the problem stands there"),
        (("--out", "/dev/null", "--csv", "/dev/../dev/null"), "writes there too"),
        (("--plan", "/nowhere.json", "--table", "--out", "/dev/null"), "with --take N that plan is written"),
        (("--compare", "a.json", "b.json", "--begins", "2026-11-23"), "about two"),
        (("--compare", "/nowhere.json", "/nowhere.json"), "cannot be read"),
        (("--compare", "a", "b", "--explain"), "leave"),
        (("--compare", "a", "b", "--out", "c.json"), "--out: --compare makes no plan"),
        (("--compare", "a", "b", "--front", "c.json"), "--front: --compare makes no plan"),
        (("--plan", "a", "--explain", "--out", "c.json"), "--out: nothing is searched"),
        (("--plan", "a", "--explain", "--front", "c.json"), "--front: nothing is searched"),
        (("--problem-out", "c.json"), "--what-if or --split"),
        (("--stay", "0.1"), "it belongs to --what-if"),
        (("--plan", "a", "--what-if", "down firing-1 1h 2h", "--stay", "-1"), "from 0"),
        (("--plan", "a", "--what-if", "down firing-1 1h 2h", "--stay", "1", "--solver", "fifo"), "leave --solver"),
        (("--objectives", ""), "not available"),
        (("--objectives", "makespan,makespan"), "each one once"),
        (("--objectives", "tardiness"), "due date"),
        (("--budget", "soon"), "seconds"),
        (("--budget", "-3"), "more than 0"),
        (("--budget", "nan"), "more than 0"),
        (("--solver", "magic"), "use one of"),
        (("--workers", "0"), "workers"),
        (("--weights", "1"), "several --objectives"),
        (("--objectives", "makespan,energy", "--weights", "1"), "one number per objective"),
        (("--objectives", "makespan,energy", "--weights", "0,0"), "more than 0"),
        (("--objectives", "makespan,energy", "--weights", "cost=1"), "not among"),
        (("--objectives", "makespan,energy", "--weights", "1,1", "--lex"), "one of them"),
        (("--out", "/nowhere/at/all/plan.json"), "does not exist"),
        (("--report", "/proc/no.html"), "cannot be written"),
        (("--out", "/tmp/one.json", "--csv", "/tmp/one.json"), "writes there too"),
        (("--begins", "soon"), "such as 2026-11-23T06:00"),
        (("--take", "3"), "several --objectives"),
        (("--take", "0"), "numbered from 1"),
        (("--objectives", "makespan,energy", "--take", "1", "--lex"), "leave --lex"),
        (("--compare", "a", "b", "--table"), "show one plan"),
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


def interrupted(arguments: list[object], *, at: bytes) -> tuple[int, bytes]:
    """The command on a terminal of its own, Ctrl-C when it has shown `at`: (exit code, what it showed)."""
    code = (
        "import shoal.__main__ as m; run = m.app\n"
        "m.app = lambda **how: (print('begun', flush=True), run(**how))\n"
        "m.main()"
    )
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "schedule", *map(str, arguments)],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), "TERM": "xterm", "COLUMNS": "200"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown, sent, deadline = b"", False, time.monotonic() + 300  # machine code may have to be made first
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1.0)[0]:
                try:
                    piece = os.read(terminal, 65536)
                except OSError:  # closed at the other end
                    break
                if not piece:
                    break
                shown += piece
            if not sent and at in shown:
                process.send_signal(signal.SIGINT)
                sent = True
        return process.wait(timeout=60), shown
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_ctrl_c_returns_the_best_so_far(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    arguments = [CERAMIC, "--objectives", "energy,makespan", "--budget", "100", "--out", out]
    code, shown = interrupted(arguments, at=b"incumbent")
    assert code == 0, shown
    checked(CERAMIC, json.loads(out.read_text()))


@pytest.mark.parametrize("at", [b"begun", b"getting ready"])
def test_ctrl_c_before_the_search_ends_with_130_and_one_line(tmp_path: Path, at: bytes) -> None:
    out = tmp_path / "plan.json"
    code, shown = interrupted([CERAMIC, "--budget", "100", "--out", out], at=at)
    assert b"Traceback" not in shown, shown
    if code == 0:  # the search had begun, or was over, before the signal came
        checked(CERAMIC, json.loads(out.read_text()))
        return
    assert code == 130, shown
    assert not out.exists()


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """The ceramic line by rule: 33 h."""
    path = tmp_path / "fifo.json"
    assert run(CERAMIC, "--solver", "fifo", "--out", path).exit_code == 0
    return path


def test_explain_tells_the_path_the_bottleneck_and_the_price_of_less(tmp_path: Path, planned: Path) -> None:
    report = tmp_path / "why.html"
    result = run(CERAMIC, "--plan", planned, "--explain", "--budget", "2", "--report", report)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for wanted in (
        "The end at 33 h follows from: work 33 h.",
        "Bottleneck: firing-4, at work or set up for 25 h, 75.8%",
        "Ending by 32 h",
    ):
        assert wanted in text
    assert "the plan begins" in text
    page = report.read_text()
    assert "critical path" in page and "Bottleneck" in page


def test_a_plan_that_cannot_be_shorter_is_said_to_be_proved(tmp_path: Path, tiny: Path) -> None:
    result = run(tiny, "--explain", "--budget", "10")
    assert result.exit_code == 0, result.output
    assert re.search(r"It cannot end by [0-9.]+ h: proved", " ".join(result.output.split()))


def test_late_orders_are_told_with_the_chain_that_makes_them_late(tmp_path: Path) -> None:
    data = json.loads(CERAMIC.read_text())
    data["due_h"] = [12 + j for j in range(15)]
    path, plan = tmp_path / "due.json", tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    assert run(path, "--solver", "fifo", "--out", plan).exit_code == 0
    result = run(path, "--plan", plan, "--explain", "--objectives", "tardiness", "--budget", "1")
    text = " ".join(result.output.split())
    assert re.search(r"\d+ late, the latest first", text)
    assert "waits: the machine works for others" in text and "alone in the shop" in text and "longest step" in text


def test_a_limit_that_cannot_be_kept_ends_with_1_and_says_by_how_much_and_what_would_do(tiny: Path) -> None:
    best = run(tiny, "--budget", "10")
    shortest = float(re.search(r"makespan +([0-9.]+) h", best.output)[1])  # type: ignore[index]
    result = run(tiny, "--limit", f"makespan={shortest - 2}", "--budget", "10")
    assert result.exit_code == 1, result.output
    text = " ".join(result.output.split())
    assert f"makespan <= {shortest - 2:g} h is missed by 2 h" in text
    assert "proved that it cannot be kept" in text
    assert f"--limit makespan={shortest:g} would do" in text
    assert run(tiny, "--limit", f"makespan={shortest:g}", "--budget", "10").exit_code == 0


def test_a_solver_that_refuses_says_why_and_ends_with_1() -> None:
    result = run(CERAMIC, "--solver", "lpt", "--limit", "makespan=28", "--budget", "1")
    assert result.exit_code in (0, 1), result.output  # another solver may find one while it looks for what would do
    assert "rule lpt does not keep the limit of makespan" in " ".join(result.output.split())


@pytest.mark.parametrize(("measure", "end"), [("energy", 4), ("tardiness", 4), ("carbon", 8)])
def test_of_plans_equal_in_the_one_measure_the_sooner_counts(measure: Measure, end: int) -> None:
    draws = Power(work=3)
    steps = tuple(Operation(op=k, alternatives={machine: 2}) for k, machine in enumerate("mn"))
    problem = Problem(
        machines=(Machine(id="m", power_kw=draws), Machine(id="n", power_kw=draws)),
        jobs=(Job(id="1", due=20, operations=steps),),
        carbon={"electricity": Curve(step=4, values=(0.3, 0.2), periodic=True)},
    )
    late = [Assignment(job="1", op=k, machine=m, start=at, end=at + 2) for k, m, at in ((0, "m", 4), (1, "n", 14))]
    plan = judged(problem, late, solver="late", status="optimal", bound=0.0)
    found = sooner(problem, Goal((measure,)), Result((plan,), plan.objectives)).plans[0]
    assert violations(problem, found) == []
    assert found.objectives["makespan"] == end
    assert found.objectives[KEY[measure]] == pytest.approx(plan.objectives[KEY[measure]])
    assert (found.status, found.bound) == ("optimal", 0.0)


def test_a_solver_that_knows_no_crews_is_wrong_usage_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    data = json.loads(CERAMIC.read_text())
    data["crews"] = {"fitters": 2}
    data["stages"][0]["crew"] = {"fitters": 1}
    path = tmp_path / "crews.json"
    path.write_text(json.dumps(data))
    result = run(path, "--solver", "tabu", "--budget", "1")
    assert result.exit_code == 2, result.output
    assert re.search(r"shoal: --solver tabu: knows no .*crews.*use", " ".join(result.output.split()))


def test_a_curve_that_ends_before_the_plan_is_said_to_have_been_held(tmp_path: Path, tiny: Path) -> None:
    data = json.loads(tiny.read_text())
    curve = {"start_h": 0, "step_h": 1, "values": [0.5, 0.25]}
    data["tariff"], data["carbon"] = {"electricity": curve}, {"electricity": curve | {"periodic": True}}
    path, plan = tmp_path / "short.json", tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    for arguments in (("--solver", "fifo", "--out", plan), ("--compare", plan, plan)):
        result = run(path, *arguments)
        assert result.exit_code == 0, result.output
        text = " ".join(result.stderr.split())
        assert "warning: tariff.electricity ends at 2 h" in text
        assert "from 2 h on its last value, 0.25, was held" in text
        assert "carbon.electricity" not in text


def test_two_plans_are_compared_in_words_and_pictures(tmp_path: Path, planned: Path) -> None:
    other, report = tmp_path / "spt.json", tmp_path / "both.html"
    assert run(CERAMIC, "--solver", "spt", "--out", other).exit_code == 0
    result = run(CERAMIC, "--compare", planned, other, "--report", report)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert re.search(r"makespan 33 h 30 h -3 h", text)
    assert re.search(r"\d+ of 60 operations moved", text)
    assert report.read_text().count("plotly-graph-div") == 3
    same = " ".join(run(CERAMIC, "--compare", planned, planned).output.split())
    assert "0 of 60 operations moved (0.0%)" in same


def test_what_if_freezes_what_has_begun_and_leaves_every_file_as_it_was(tmp_path: Path, planned: Path) -> None:
    out, before = tmp_path / "new.json", (planned.read_bytes(), CERAMIC.read_bytes())
    result = run(
        CERAMIC,
        "--plan",
        planned,
        "--what-if",
        "down firing-4 10h 14h",
        "--out",
        out,
        "--budget",
        "2",
        "--solver",
        "fifo",
    )
    assert result.exit_code == 0, result.output
    assert (planned.read_bytes(), CERAMIC.read_bytes()) == before
    old, new = (json.loads(path.read_text())["assignments"] for path in (planned, out))
    begun = [one for one in old if one["start"] < 10 and not (one["machine"] == "firing-4" and one["end"] > 10)]
    assert all(one in new for one in begun)
    assert not [one for one in new if one["machine"] == "firing-4" and one["start"] < 14 and one["end"] > 10]
    assert "operations moved" in result.output


def test_what_if_knows_rush_orders_and_new_jobs(tmp_path: Path, planned: Path) -> None:
    jobs, out = tmp_path / "jobs.json", tmp_path / "new.json"
    jobs.write_text(json.dumps([{"id": "16", "like": "3", "due": 40}]))
    common = (CERAMIC, "--plan", planned, "--now", "12h", "--budget", "3", "--out", out)
    result = run(*common, "--what-if", f"add {jobs}", "--what-if", "rush 10 due 24h")
    assert result.exit_code == 0, result.output
    work = json.loads(out.read_text())["assignments"]
    assert len([one for one in work if one["job"] == "16"]) == 4
    assert min(one["start"] for one in work if one["job"] == "16") >= 12
    assert "Only what if has 4: operations of job 16" in " ".join(result.output.split())
    assert "tardiness" in result.output


def test_a_changed_problem_is_written_loads_again_and_compares_as_the_what_if_did(
    tmp_path: Path, planned: Path
) -> None:
    jobs, new, changed = tmp_path / "jobs.json", tmp_path / "new.json", tmp_path / "changed.json"
    jobs.write_text(json.dumps([{"id": "16", "like": "3"}]))
    change = ("--what-if", f"add {jobs}", "--what-if", "down firing-4 12h 15h", "--solver", "fifo")
    result = run(CERAMIC, "--plan", planned, *change, "--out", new, "--problem-out", changed)
    assert result.exit_code == 0, result.output
    told = re.search(r"\d+ of \d+ operations moved .* over all of them", " ".join(result.output.split()))
    assert told
    problem = load_problem(changed)
    assert problem.now == 12 * problem.ticks(1, "") and json.loads(new.read_text())["problem_sha256"] == problem.sha256
    checked(changed, json.loads(new.read_text()))
    result = run(CERAMIC, "--compare", planned, new)
    assert result.exit_code == 2 and "--problem-out" in result.output
    result = run(changed, "--compare", planned, new)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert told[0] in text and f"{planned}: made for another problem than FILE; counted as FILE counts" in text
    assert "does not hold" not in text


def test_lots_that_take_too_long_together_are_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    steps = (Operation(op=0, alternatives={"m": 1}),)
    long = Problem(machines=(Machine(id="m", preheat=6 * 10**11),), jobs=(Job(id="1", operations=steps),))
    path.write_text(problem_text(long))
    result = run(path, "--split", "1=2")
    assert result.exit_code == 2 and "beyond tick" in result.output, result.output


def test_lots_are_a_problem_that_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "lots.json"
    assert run(CERAMIC, "--split", "3=2", "--solver", "fifo", "--problem-out", path).exit_code == 0
    assert [job.id for job in load_problem(path).jobs if job.part_of == "3"] == ["3/1", "3/2"]


def test_a_what_if_moves_no_more_than_pays(tmp_path: Path, planned: Path) -> None:
    out = tmp_path / "new.json"
    machine = {(one["job"], one["op"]): one["machine"] for one in json.loads(planned.read_text())["assignments"]}

    def moved(stay: str) -> int:
        change = ("--what-if", "down firing-4 10h 14h", "--stay", stay, "--out", out)
        result = run(CERAMIC, "--plan", planned, *change, "--max-evaluations", 3000)
        assert result.exit_code == 0, result.output
        assert "to another machine, at --stay" in " ".join(result.output.split())
        work = [one for one in json.loads(out.read_text())["assignments"] if not one.get("interrupted")]
        return sum(one["machine"] != machine[one["job"], one["op"]] for one in work)

    assert moved("1000") == 0 < moved("0")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("burn firing-1", "not understood"),
        ("down firing-9 1h 2h", "there are forming-1"),
        ("down firing-1 3h 2h", "correct the times"),
        ("down firing-1 x 2h", "give a time"),
        ("down firing-1 1.1h 2h", "off the grid"),
        ("rush 99 due 20h", "correct the id"),
        ("add none.json", "cannot be read"),
    ],
)
def test_a_what_if_that_cannot_be_ends_with_2_and_names_the_cure(planned: Path, change: str, text: str) -> None:
    result = run(CERAMIC, "--plan", planned, "--what-if", change, "--now", "1h")
    assert result.exit_code == 2, result.output
    assert text in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("3", "no jobs"),
        ("[3]", "a job is an object"),
        ('[{"id": "16", "like": "77"}]', "correct the id"),
        ('[{"id": "3", "like": "3"}]', "another id"),
        ('[{"id": "16"}]', "operations"),
        ('[{"id": "16", "like": "3", "colour": "red"}]', "colour"),
        ('[{"id": "16", "like": "3", "due": "soon"}]', "correct the job"),
        ('[{"id": "16", "operations": [{"op": 0}]}]', "alternatives"),
        ('[{"id": "16", "operations": [{"op": 0, "alternatives": {"kiln": 2}}]}]', "not in `machines`"),
        ('[{"id": "16", "operations": [{"op": 0, "alternatives": {"firing-1": -2}}]}]', "correct the job"),
    ],
)
def test_a_file_of_jobs_that_makes_no_sense_ends_with_2(
    tmp_path: Path, planned: Path, document: str, text: str
) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(document)
    result = run(CERAMIC, "--plan", planned, "--what-if", f"add {path}", "--now", "1h")
    assert result.exit_code == 2, result.output
    assert text in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("[]", "no plan"),
        ("{", "not valid JSON"),
        ('{"assignments": [{"job": "99", "op": 0, "machine": "firing-1", "start": 0, "end": 1}]}', "made for it"),
        ('{"assignments": [{"job": "1", "op": 0, "machine": "forming-1", "start": 0.1, "end": 1}]}', "off the grid"),
        ('{"assignments": 3}', "plan"),
        (
            '{"assignments": [], "machine_states": [{"machine": "x", "state": "idle", "start": 0, "end": 1}]}',
            "made for it",
        ),
    ],
)
def test_a_plan_file_that_makes_no_sense_ends_with_2(tmp_path: Path, document: str, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(document)
    for options in (("--plan", path, "--explain"), ("--compare", path, path), ("--start", path)):
        result = run(CERAMIC, *options)
        assert result.exit_code == 2, result.output
        assert text in " ".join(result.output.split())


def test_a_plan_that_breaks_rules_is_explained_all_the_same(tmp_path: Path, planned: Path) -> None:
    document = json.loads(planned.read_text())
    for one in document["assignments"][:20]:
        one["start"], one["end"] = one["start"] + 1, one["end"] + 1
    del document["machine_states"]
    path = tmp_path / "torn.json"
    path.write_text(json.dumps(document))
    result = run(CERAMIC, "--plan", path, "--explain")
    assert result.exit_code == 0, result.output
    assert "does not hold" in result.output and "critical path" in result.output


def test_an_order_in_lots_is_planned_lot_by_lot(tmp_path: Path) -> None:
    out = tmp_path / "lots.json"
    result = run(CERAMIC, "--split", "10=2", "--solver", "fifo", "--out", out, "--max-evaluations", "100")
    assert result.exit_code == 0, result.output
    jobs = {one["job"] for one in json.loads(out.read_text())["assignments"]}
    assert {"10/1", "10/2"} <= jobs and "10" not in jobs


def test_a_search_begins_with_the_plan_it_is_given(tmp_path: Path, tiny: Path) -> None:
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    assert run(tiny, "--out", first, "--budget", "10").exit_code == 0
    assert run(tiny, "--start", first, "--out", again, "--budget", "0.05").exit_code == 0
    values = [json.loads(path.read_text())["objectives"]["makespan"] for path in (first, again)]
    assert values[1] <= values[0]


def test_a_gantt_of_planned_against_actual_takes_times_of_the_calendar() -> None:
    def bar(start: int, end: int) -> Bar:
        day = datetime(2026, 1, 1, tzinfo=UTC)
        return Bar("kiln", "7", 0, day.replace(hour=start), day.replace(hour=end))

    figure = gantt_figure([bar(1, 3)], [bar(2, 5)], machines=["kiln"])
    planned, actual = figure.data
    assert (planned.name, actual.name) == ("planned", "actual")
    assert planned.x[0] == 2 * 3600 * 1000
    assert figure.layout.xaxis.type == "date"
