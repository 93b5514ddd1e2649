"""`shoal swarm`: what it prints, what it writes, how it ends."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from messages.clock import SECOND
from messages.contracts import OrderedJob
from messages.errors import ShoalError, UsageError
from messages.plant import load_plant
from shoal.__main__ import app
from shoal.swarm.disturb import STORM, WIRE, parse
from shoal.swarm.outcome import Carry, Down, Look, Run, Swarm
from shoal.swarm.picture import Picture, Piece, draw, line
from shoal.swarm.setting import judge_of, swarm_of, weights_of

REPO = Path(__file__).parent.parent
LAG = str(REPO / "examples" / "workshop_lag.json")
CERAMIC = load_plant(REPO / "firmware_sim" / "plants" / "ceramic.toml")


def test_a_quiet_run_ends_with_its_figures_a_report_and_every_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["swarm", LAG, "--judge", "fifo", "--disturb", "breakdown", "--json", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["holds"] and found["done"] == 28 and found["disturbances"][0]["kind"] == "breakdown"
    assert json.loads((tmp_path / "out" / "outcome.json").read_text())["makespan_s"] == found["makespan_s"]
    assert len(json.loads((tmp_path / "out" / "runs.json").read_text())) >= 28
    page = (tmp_path / "out" / "report.html").read_text()
    assert "lathe-1" in page and "What machines and vehicles did" in page


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--judge", "fifoo"], "did you mean 'fifo'"),
        (["--judge", "fifo", "--budget", "1"], "leave --budget"),
        (["--budget", "1", "--iterations", "5"], "give one of them"),
        (["--budget", "0"], "above 0"),
        (["--weights", "makespn=1"], "did you mean 'makespan'"),
        (["--weights", "makespan=much"], "makespan=1"),
        (["--weights", "makespan=0"], "more than 0"),
        (["--disturb", "stom"], "did you mean 'storm'"),
        (["--over", "air"], "sim or bus"),
        (["--disturb", "breakdown:0.4"], "a whole number"),
        (["--disturb", "storm:0.5"], "a whole number"),
        (["--disturb", "lose:1"], "lose = 1: a share of the messages: 0 or more, and less than 1"),
        (["--disturb", "delay:3601"], "0 to 3600"),
        (["--disturb", ","], "a word is missing"),
        (["--disturb", "node,,judge"], "as in breakdown:2,lose:0.1"),
        (["--disturb", "breakdown:"], "after the colon comes a number"),
        (["--disturb", "lose:0.1,lose:0.2"], "name each kind once"),
        (["--disturb", "LOSE:0.1"], "did you mean 'lose'"),
        (["--disturb", "storm:999"], "give smaller numbers"),
        (["--disturb", "day.yaml"], "named .toml or .json"),
        (["--disturb", "day.toml"], "No such file"),
        (["--weights", ","], "as in makespan=1,waiting=8"),
        (["--weights", "energy=1"], "states no power of machines"),
        (["--weights", "makespan=1,carbon=1"], "states no carbon per kWh"),
        (["--weights", "makespan=1,makespan=2"], "name each measure once"),
        (["--out", "/dev/null/x"], "cannot be written"),
        (["--out", ""], "name a page"),
        (["--speed", "2", "--quiet"], "nobody looks on"),
    ],
)
def test_wrong_usage_is_answered_with_its_cure_before_anything_runs(words: list[str], cure: str) -> None:
    result = CliRunner().invoke(app, ["swarm", LAG, *words])
    assert isinstance(result.exception, UsageError)  # the front door makes exit code 2 of it
    assert cure in str(result.exception)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("lose = 1", "lose = 1: a share"),
        ('lose = "much"', "such as 0.1"),
        ("loose = 0.1", "did you mean 'lose'"),
        ("happenings = 1", "happenings = [{kind"),
        ("[[happenings]]\nat_s = 1", "happening 1: it needs `kind`, one of breakdown"),
        ("[[happenings]]\nkind = 'brakdown'\nat_s = 1", "happening 1: kind = 'brakdown': no such disturbance; did you"),
        ("[[happenings]]\nkind = 'judge'\nat_s = 1\n[[happenings]]\nkind = 'judge'\nat_s = -1", "happening 2: at_s"),
        ("[[happenings]]\nkind = 'breakdown'\nat_s = 1\nmachine = 'M 1'", "1-32 of a-z"),
        ("happenings = [\n" + "{kind = 'judge', at_s = 1},\n" * 1001 + "]", "at most 1000; leave some out"),
        ("lose", "is no TOML"),
        ("lose = '\udcff'", "UTF-8"),
    ],
)
def test_what_is_wrong_in_a_scenario_file_is_said_in_its_own_words(text: str, cure: str, tmp_path: Path) -> None:
    file = tmp_path / "day.toml"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    result = CliRunner().invoke(app, ["swarm", LAG, "--judge", "fifo", "--disturb", str(file)])
    assert isinstance(result.exception, UsageError)
    assert cure in str(result.exception) and str(file) in str(result.exception)
    assert "Input should" not in str(result.exception)


@pytest.mark.parametrize("said", ["lose:0.1", "storm,delay", "rival"])
def test_over_a_bus_what_only_happens_in_simulation_is_refused_before_anything_is_made(
    said: str, tmp_path: Path
) -> None:
    words = ["--judge", "fifo", "--over", "bus", "--disturb", said, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["swarm", LAG, *words])
    assert isinstance(result.exception, UsageError)
    assert "breakdown, rush, cancel, node, judge, cloud, and storm" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_storm_over_a_bus_is_everything_that_can_happen_there() -> None:
    def kinds(over: str) -> set[str]:
        judge = judge_of("fifo")
        swarm, _ = swarm_of(Path(LAG), judge, weights_of(""), disturb="storm", over=over)
        return {one.kind for one in swarm.scenario.happenings} | {
            kind for kind in WIRE if getattr(swarm.scenario, kind)
        }

    assert kinds("sim") == set(STORM)
    assert kinds("bus") == {"breakdown", "rush", "cancel", "node", "judge", "cloud"}


@pytest.mark.parametrize("said", ["lose:1", ","])
def test_wrong_words_end_with_exit_code_two_and_no_traceback(said: str) -> None:
    command = [sys.executable, "-m", "shoal", "swarm", LAG, "--judge", "fifo", "--disturb", said]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "--disturb" in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(app, ["swarm", "nowhere.json", "--judge", "fifo"])
    assert isinstance(result.exception, UsageError) and "nowhere.json" in str(result.exception)


def test_where_the_report_cannot_be_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    result = CliRunner().invoke(app, ["swarm", LAG, "--judge", "fifo", "--out", str(tmp_path / "taken.html")])
    assert isinstance(result.exception, UsageError) and "is a directory" in str(result.exception)
    result = CliRunner().invoke(app, ["swarm", "nowhere.json", "--out", str(tmp_path / "made.html")])
    assert isinstance(result.exception, UsageError) and "nowhere.json" in str(result.exception)
    assert [one.name for one in tmp_path.iterdir()] == ["taken.html"]  # a run that never began leaves no page


def test_a_report_that_cannot_be_written_at_the_end_is_a_failure_and_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").mkdir()
    result = CliRunner().invoke(app, ["swarm", LAG, "--judge", "fifo", "--quiet", "--out", str(tmp_path)])
    assert isinstance(result.exception, ShoalError) and not isinstance(result.exception, UsageError)
    assert "name another place" in str(result.exception)
    assert "verdict" in result.output  # the figures were said before
    assert {one.name for one in tmp_path.iterdir()} == {"outcome.json", "report.html"}


def test_drawn_happenings_need_someone_to_befall() -> None:
    with pytest.raises(UsageError, match="there are no orders"):
        parse("cancel", CERAMIC, [], span_s=100, seed=1)
    assert parse("breakdown", CERAMIC, [], span_s=100, seed=1).happenings


def test_a_drawn_rush_order_takes_a_name_that_is_free() -> None:
    jobs = [OrderedJob(job="rush-1", product="b01")]
    found = parse("rush:2", CERAMIC, jobs, span_s=100, seed=1).happenings
    assert {one.job for one in found} == {"rush-2", "rush-3"}


def test_weights_that_are_not_named_count_nothing() -> None:
    assert (weights_of("waiting=8").makespan, weights_of("waiting=8").waiting) == (0.0, 8.0)
    assert weights_of("").makespan == 1.0


def test_a_row_shows_work_breakdowns_and_now() -> None:
    text = line([Piece(0, 50, "b01", "on #111111"), Piece(50, 70, "broken", "on red")], 90, 0, 100, 20)
    assert "b01" in text.plain and "brok" in text.plain and text.plain[18] == "│"


def test_the_picture_has_a_row_for_every_machine_and_tells_what_happened() -> None:
    start = Swarm.start
    look = Look(
        now=start + 50 * SECOND,
        runs=(Run("firing-1", "b01", 3, start, start + 40 * SECOND),),
        carries=(Carry(0, "b01", "raw", "firing-1", start, start, start + SECOND),),
        downs=(Down("firing-1", start + 45 * SECOND, start + 90 * SECOND),),
        troubles=(),
        tasks={"done": 1, "open": 2},
        judge="cloud",
    )
    console = Console(width=100, height=60, record=True)
    console.print(draw(look, CERAMIC, start=start, until=start + 100 * SECOND, width=100, height=60))
    text = console.export_text()
    assert all(name in text for name in CERAMIC.machines) and "b01" in text and "judge: cloud" in text


def test_a_picture_is_drawn_no_more_than_five_times_a_second_and_keeps_pace() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    swarm = Swarm(CERAMIC, (OrderedJob(job="b01", product="b01"),), judge_of("fifo"))
    picture = Picture(Console(quiet=True), swarm, 100.0, speed=10.0, monotonic=lambda: now[0], sleep=sleep)
    look = Look(now=swarm.start, runs=(), carries=(), downs=(), troubles=(), tasks={})
    drawn = 0
    for second in range(1, 101):
        if picture.wants(swarm.start + second * SECOND):
            picture.look(replace(look, now=swarm.start + second * SECOND))
            drawn += 1
    assert now[0] == pytest.approx(10.0) and drawn <= 51


@pytest.mark.parametrize("words", [["--quiet"], ["--json"]])
def test_on_a_full_disk_one_line_says_so(words: list[str]) -> None:
    command = [sys.executable, "-m", "shoal", "swarm", LAG, "--judge", "fifo", *words]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "shoal: no room is left on the disk of standard output, or a file it writes: make room, or write elsewhere"
    ]


@pytest.mark.parametrize("how", ["TemporaryFile", "report.write"])
def test_where_the_report_finds_no_room_it_is_a_failure_and_not_wrong_usage(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"shoal.swarm.command.{how}", full)
    result = CliRunner().invoke(app, ["swarm", LAG, "--judge", "fifo", "--quiet", "--out", str(tmp_path)])
    assert isinstance(result.exception, OSError)  # the front door says it in one line, and ends with code 1
    assert result.exception.errno == errno.ENOSPC and str(tmp_path) in str(result.exception.filename)
    assert list(tmp_path.iterdir()) == []
