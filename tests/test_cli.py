"""The `shoal` command: quick, honest exit codes, one clear line when something is wrong."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from edge.settings import EdgeSettings
from messages.broker import Broker
from messages.errors import BrokenInvariant, BusLost, ConfigError, UsageError
from messages.logs import configure, get_logger
from messages.observe import observe
from messages.probe import Found, probe
from messages.process import report
from messages.routes import HEALTH, ROUTES
from messages.settings import load
from shoal.__main__ import LAZY, ORDER
from shoal.doctor import clock, disk, judge_broker, python_version, roles
from shoal.watch import TOPICS, Floor, check_filter, line

ROOT = Path(__file__).resolve().parent.parent


def shoal(*args: str, hide: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the command; `hide` is a package that is not installed."""
    code = f"import sys; sys.modules.update(dict.fromkeys({hide.split()!r})); import shoal.__main__ as m; m.main()"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=environ, capture_output=True, text=True, timeout=timeout
    )


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_help_lists_every_command_and_loads_none() -> None:
    code = (
        "import sys; sys.argv = ['shoal', '--help']\n"
        "import shoal.__main__ as m\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted({'ortools', 'plotly', 'numpy', 'aiomqtt', 'cloud', 'edge'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert all(f" {name} " in done.stdout for name in ORDER)
    assert done.stdout.strip().endswith("LOADED")


def test_help_answers_at_once_because_it_loads_little() -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(len(sys.modules), file=sys.stderr));"
        "import shoal.__main__ as m; m.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert int(done.stderr) < 450  # 324 in 0.15 s; numpy or pydantic alone would be beyond it


@pytest.mark.parametrize("name", ORDER)
def test_every_command_explains_itself(name: str) -> None:
    done = shoal(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: shoal" in done.stdout and "--help" in done.stdout


def test_every_lazy_command_is_listed() -> None:
    assert set(LAZY) <= set(ORDER)


@pytest.mark.parametrize(
    ("args", "hide", "cure"),
    [
        (
            ["schedule", str(ROOT / "examples" / "ceramic.json")],
            "ortools ortools.sat ortools.sat.python",
            "pip install 'shoal[cloud]'",
        ),
        (["watch"], "aiomqtt", "pip install 'shoal[tools]'"),
        (["demo"], "plotly ortools aiomqtt", "pip install 'shoal[all]'"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(args: list[str], hide: str, cure: str) -> None:
    done = shoal(*args, hide=hide)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert cure in done.stderr


@pytest.mark.parametrize(
    "args",
    [["wach"], ["edge"], ["watch", "--port", "0"], ["edge", "--config", "none.toml"], ["watch", "a/#/b"]],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_no_traceback(args: list[str]) -> None:
    done = shoal(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


CONFIGS = {
    "sim": f'plant = "{ROOT}/firmware_sim/plants/ceramic.toml"\n',
    "edge": f'site = "ceramic"\nnode = "firing"\nplant = "{ROOT}/firmware_sim/plants/ceramic.toml"\n',
    "cloud": 'sites = ["s1"]\n',
}


@pytest.mark.parametrize("process", CONFIGS)
def test_check_prints_the_effective_settings_and_they_load_again(process: str, tmp_path: Path) -> None:
    config = tmp_path / "in.toml"
    config.write_text(CONFIGS[process])
    done = shoal(process, "--config", str(config), "--check")
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again.toml"
    again.write_text(done.stdout)
    repeated = shoal(process, "--config", str(again), "--check")
    assert repeated.returncode == 0
    assert tomllib.loads(repeated.stdout) == tomllib.loads(done.stdout)


@pytest.mark.parametrize("process", CONFIGS)
def test_a_typo_in_a_settings_file_or_variable_ends_with_2_and_a_suggestion(
    process: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "in.toml"
    config.write_text("clok = 'x'\n" + CONFIGS[process])
    done = shoal(process, "--config", str(config), "--check")
    assert done.returncode == 2
    assert "clok: unknown key; did you mean clock?" in done.stderr
    config.write_text(CONFIGS[process])
    monkeypatch.setenv(f"SHOAL_{process.upper()}_CLOK", "x")
    done = shoal(process, "--config", str(config), "--check")
    assert done.returncode == 2
    assert f"SHOAL_{process.upper()}_CLOCK?" in done.stderr


def test_topics_are_lines_in_a_pipe() -> None:
    lines = shoal("topics").stdout.splitlines()
    assert [row.split("\t")[0] for row in lines] == ["/".join(route.levels) for route in ROUTES]


# --- watch --------------------------------------------------------------------------------------------------


async def test_watch_prints_one_line_per_message_and_ends_when_told(broker: Broker) -> None:
    command = [sys.executable, "-m", "shoal", "watch", "--lines", "--port", str(broker.port), "-n", "3"]
    watcher = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert watcher.stdout is not None
    reading = asyncio.create_task(watcher.stdout.read())
    async with asyncio.timeout(30), observe(broker.host, broker.port) as machine:
        while not reading.done():
            await machine.publish(HEALTH, payload=b'{"n": 1}', site="s1", node="press-4")
            await asyncio.wait([reading], timeout=0.05)
        assert await watcher.wait() == 0
    lines = reading.result().decode().splitlines()
    topic = HEALTH.topic(site="s1", node="press-4")
    assert len(lines) == 3
    assert all(row.split(" ", 1)[1] == f'{topic} {{"n": 1}}' for row in lines)


def test_watch_without_a_broker_says_how_to_get_one() -> None:
    done = shoal("watch", "--port", str(unused_port()))
    assert done.returncode == 2
    assert "start one with `mosquitto -p" in done.stderr


def test_a_line_of_watch_never_carries_control_characters_to_the_terminal() -> None:
    assert line("a/b", b"\x1b[2Jgone\n", 0.25) == r"00:00:00.250 a/b \x1b[2Jgone\n"
    assert line("a/b", b"\xff\xfe", 0.0) == "00:00:00.000 a/b <2 bytes>"


def test_the_floor_forgets_the_topic_that_is_silent_for_longest() -> None:
    floor = Floor()
    for number in range(TOPICS):
        floor.hear(f"t/{number}", b"", retained=False, now_s=float(number))
    floor.hear("t/0", b"again", retained=False, now_s=9_999.0)
    floor.hear("t/new", b"", retained=False, now_s=10_000.0)
    assert len(floor.topics) == TOPICS
    assert "t/0" in floor.topics and "t/1" not in floor.topics


def test_a_rate_is_messages_per_second_and_falls_in_silence() -> None:
    floor = Floor()
    for number in range(11):
        floor.hear("t", b"", retained=False, now_s=number / 10)
    assert floor.topics["t"].rate_hz(now_s=1.0) == pytest.approx(10.0)
    assert floor.topics["t"].rate_hz(now_s=10.0) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["", "a/#/b", "a/b+", "#a", "a/\0"])
def test_a_broken_topic_filter_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="topic filter"):
        check_filter(name)


# --- doctor -------------------------------------------------------------------------------------------------


def test_the_doctor_finds_a_machine_that_runs_the_demo_fit() -> None:
    done = shoal("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["ok"], found
    assert done.returncode == 0
    assert {"python", "mosquitto", "broker", "disk", "fsync", "clock"} <= {one["what"] for one in found["findings"]}


def test_the_doctor_fails_without_the_broker_it_was_told_of(tmp_path: Path) -> None:
    done = shoal("doctor", "--host", "127.0.0.1", "--port", str(unused_port()), "--data", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "start one with" in " ".join(done.stdout.split())
    assert "mkdir -p" in " ".join(done.stdout.split())


def test_the_probe_counts_what_a_small_queue_drops() -> None:
    with Broker(extra="max_queued_messages 100\n") as small:
        found = probe(small.host, small.port)
    assert found.sent > 1000
    assert 0 < found.kept < found.sent
    assert found.retains
    finding = judge_broker(found, "here")
    assert (finding.state, "max_queued_messages 200000" in finding.cure) == ("fail", True)


def test_the_probe_leaves_no_session_and_no_retained_message(broker: Broker) -> None:
    assert probe(broker.host, broker.port).kept == probe(broker.host, broker.port).sent

    async def retained() -> int:
        count = 0
        async with observe(broker.host, broker.port) as watcher:
            try:
                async with asyncio.timeout(0.5):
                    async for seen in watcher.messages("shoal/v1/doctor/#"):
                        count += bool(seen.payload)
            except TimeoutError:
                return count
        return count

    assert asyncio.run(retained()) == 0


def test_a_broker_is_judged_by_what_it_did() -> None:
    good = Found(sent=9, kept=9, retains=True, round_trip_s=0.001, receive_maximum=20, max_packet_bytes=None)
    assert judge_broker(good, "x").state == "ok"
    for change in ({"kept": 0}, {"kept": 8}, {"retains": False}):
        assert judge_broker(Found(**{**vars(good), **change}), "x").state == "fail"
    assert judge_broker(Found(**{**vars(good), "max_packet_bytes": 1000}), "x").state == "warn"


def test_the_doctor_names_a_cure_for_everything_that_is_wrong(tmp_path: Path) -> None:
    wrong = [
        python_version((3, 10, 2), bits=64),
        python_version((3, 11, 2), bits=32),
        clock(0.0, None),
        clock(time.time(), False),
        *disk(tmp_path / "none"),
        *roles(lambda package: False),
    ]
    assert all(finding.state != "ok" and finding.cure for finding in wrong)
    assert all(finding.state == "ok" for finding in roles(lambda package: True))


# --- process and logs ---------------------------------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What an edge process would log; afterwards logging is as other tests expect it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure("edge", stream=stream, site="s1", node="press-4")
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


LIFE = """
    import asyncio, sys
    from messages.errors import *
    from messages.process import run_until_stopped

    async def life():
        try:
            print("up", flush=True)
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            print("put away", flush=True)

    sys.exit(run_until_stopped(life()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_runs_the_finally_blocks_and_ends_with_0(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LIFE)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "put away\n", "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("node.toml: site: required"), 2, "shoal: node.toml: site: required\n"),
        (BusLost("gone"), 1, "shoal: gone\n"),
        (ExceptionGroup("tasks", [BusLost("gone"), ExceptionGroup("more", [BusLost("gone")])]), 1, "shoal: gone\n"),
        (ExceptionGroup("tasks", [BusLost("gone"), UsageError("port in use")]), 1, "shoal: gone\nshoal: port in use\n"),
    ],
)
def test_deliberate_errors_are_one_line_each_and_an_honest_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr().err == said


def test_a_defect_of_ours_is_one_line_that_says_so_and_its_traceback_is_in_the_log(
    logged: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(ExceptionGroup("tasks", [BusLost("gone"), ZeroDivisionError("by 0")])) == 1
    assert capsys.readouterr().err.startswith("shoal: a defect in Shoal: ZeroDivisionError: by 0")
    said = json.loads(logged.getvalue())
    assert (said["event"], said["level"]) == ("process.defect", "error") and "ZeroDivisionError" in said["exception"]


@pytest.mark.parametrize(
    ("process", "settings"),
    [
        ("sim", "plant = 'bad.toml'"),
        ("edge", "plant = 'bad.toml'\nsite = 'ceramic'\nnode = 'firing'"),
        ("cloud", "plant = 'bad.toml'\nsites = ['ceramic']"),
        ("edge", "plant = 'good.toml'\nsite = 'ceramic'\nnode = 'fireing'"),
        ("cloud", "plant = 'good.toml'\nsites = ['elsewhere']"),
    ],
)
def test_check_reads_the_plant_too(tmp_path: Path, process: str, settings: str) -> None:
    good = (ROOT / "firmware_sim" / "plants" / "ceramic.toml").read_text()
    (tmp_path / "good.toml").write_text(good)
    (tmp_path / "bad.toml").write_text(good.replace("work_kw", "wrok_kw", 1))
    for name in ("good", "bad"):
        settings = settings.replace(f"'{name}.toml'", f"'{tmp_path / name}.toml'")
    (tmp_path / "process.toml").write_text(settings)
    done = shoal(process, "--config", str(tmp_path / "process.toml"), "--check")
    assert done.returncode == 2 and done.stderr.startswith("shoal: ") and "Traceback" not in done.stderr


def test_a_variable_of_a_misspelt_process_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean SHOAL_EDGE_"):
        load(EdgeSettings, None, {"SHOAL_EDEG_LOCAL__PORT": "1"})
    with pytest.raises(ConfigError, match="site"):
        load(EdgeSettings, None, {"SHOAL_PASSWORD": "x", "SHOAL_CLOUD_DATA": "y"})


def test_a_port_named_to_the_doctor_is_the_one_it_looks_at() -> None:
    done = shoal("doctor", "--port", str(unused_port()), "--json")
    assert done.returncode == 1 and "127.0.0.1" in done.stdout


def test_a_broken_invariant_is_logged_with_its_traceback(logged: io.StringIO) -> None:
    try:
        raise BrokenInvariant("freed what nobody stored")
    except BrokenInvariant as error:
        assert report(error) == 1
    said = json.loads(logged.getvalue())
    assert (said["event"], said["level"]) == ("process.broken_invariant", "error")
    assert "BrokenInvariant: freed what nobody stored" in said["exception"]


def test_every_log_line_is_json_and_says_who_speaks(logged: io.StringIO) -> None:
    get_logger().info("round.closed", round=7, loss=float("nan"), nested={"x": [float("inf")]})
    get_logger().debug("not.said")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    ours, foreign = (json.loads(row, parse_constant=pytest.fail) for row in logged.getvalue().splitlines())
    assert {"process": "edge", "site": "s1", "node": "press-4"}.items() <= ours.items()
    assert (ours["event"], ours["round"], ours["loss"], ours["nested"]) == ("round.closed", 7, "nan", {"x": ["inf"]})
    assert (foreign["event"], foreign["logger"], foreign["node"]) == ("slow callback", "asyncio", "press-4")
