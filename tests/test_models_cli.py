"""`shoal models`: what is kept and runs, in words and for programs; an operator's wish reaches the running cloud."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloud.registry import FILE, Registry
from cloud.releases import Releases
from cloud.trials import ReleaseSettings
from cloud.validation import answer
from cloud.versions import Draft
from messages.contracts import Envelope
from messages.learning import Feature, Interface, ModelReport, Release
from messages.signing import SigningKey
from shoal.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"])
NODES = ("s1/dry", "s1/humid")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def shoal(*args: str) -> Done:
    """As `python -m shoal models …` would; see the last test."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["shoal", "models", *args])
        patch.setenv("COLUMNS", "250")
        patch.setenv("TERM", "dumb")
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def core(registry: Registry) -> Releases:
    return Releases(registry, "cell", ReleaseSettings(canaries=1), key=SigningKey.from_seed(bytes(32)))


def step(releases: Releases, now: int) -> None:
    for node in NODES:
        said = {say.node: Envelope[Release].decode(say.payload) for say in releases.all()}
        told = said.get(node)
        running = told.body.version if told and told.body.stage == "fleet" else None
        report = ModelReport(
            model="cell", at=now, session="0" * 16, counter=told.counter if told else 0, running=running
        )
        releases.on_report(node, report, now)
    releases.on_time(now)
    question = releases.to_validate()
    if question is not None:
        releases.on_validated(question, answer(question, lambda one: {"mean_return": one.version}), now)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Version 1 is the fleet's, 2 is tried on one node, 3 waits."""
    with closing(Registry(tmp_path / FILE)) as registry:
        releases = core(registry)
        for number in (1, 2, 3):
            draft = Draft(model="cell", graph=b"%d" % number, interface=FACE, origin=f"round {number}")
            registry.add(draft, now=number, by="shoal")
            for now in range(4):
                step(releases, 10 * number + now)
    return tmp_path


@contextmanager
def running_cloud(data: Path) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        with closing(Registry(data / FILE)) as registry:
            releases, now = core(registry), 1000
            while not stop.wait(0.01):
                now += 1
                step(releases, now)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_list_says_what_is_kept_and_where_it_runs(data: Path) -> None:
    found = json.loads(shoal("list", "--data", str(data), "--json").stdout)
    assert [(one["version"], one["stage"], one["fleet"]) for one in found] == [
        (1, "fleet", True), (2, "canary", False), (3, "candidate", False)
    ]  # fmt: skip
    assert sorted(found[0]["nodes"] + found[1]["nodes"]) == list(NODES)
    text = shoal("list", "--data", str(data)).stdout
    assert "round 2" in text and "mean_return 2" in text and found[1]["nodes"][0] in text


def test_show_and_history_tell_a_version_from_its_beginning(data: Path) -> None:
    found = json.loads(shoal("show", "cell", "2", "--data", str(data), "--json").stdout)
    assert found["trial"] == {"against": 1, "pairs": 0, "decisions": 0} and found["metrics"] == {"mean_return": 2}
    assert [event["what"] for event in found["history"]] == ["candidate", "validated", "canary"]
    text = shoal("show", "cell", "2", "--data", str(data)).stdout
    assert found["graph"]["sha256"] in text and "beside version 1" in text
    events = json.loads(shoal("history", "cell", "--data", str(data), "--json").stdout)
    assert [(event["version"], event["what"]) for event in events][-1] == (3, "candidate")
    assert "beside version 1" in shoal("history", "cell", "2", "--data", str(data)).stdout


def test_a_wish_is_done_by_the_running_cloud_and_is_history(data: Path) -> None:
    with running_cloud(data):
        done = shoal("release", "cell", "3", "--by", "eva", "--why", "it is urgent", "--data", str(data))
        assert (done.returncode, done.stdout) == (0, "cell: release done\n")
        pinned = shoal("pin", "cell", "1", "--node", "s1/dry", "--why", "test bench", "--data", str(data))
        assert pinned.returncode == 0
        refused = shoal("unpin", "cell", "--node", "s1/humid", "--why", "none", "--data", str(data))
        assert refused.returncode == 1 and "pinned are: s1/dry" in refused.stderr
        back = shoal("rollback", "cell", "--by", "eva", "--why", "too loud", "--data", str(data))
        assert back.returncode == 0
    with closing(Registry(data / FILE)) as registry:
        lines = {(event.version, event.what, event.by, event.why) for event in registry.history("cell")}
        assert {(3, "fleet", "eva", "it is urgent"), (3, "rolled_back", "eva", "too loud")} <= lines
        assert {told.version for told in registry.told("cell").values()} == {1}


def test_without_a_cloud_a_wish_stays_and_says_so(data: Path) -> None:
    waited = shoal("rollback", "cell", "--why", "noise", "--data", str(data), "--wait", "0.2")
    assert waited.returncode == 1 and "is the cloud running" in waited.stderr
    left = shoal("rollback", "cell", "--why", "noise", "--data", str(data), "--wait", "0")
    assert left.returncode == 0 and "left for the cloud" in left.stdout
    with closing(Registry(data / FILE)) as registry:
        assert len(registry.wishes("cell")) == 2
        step(core(registry), 1000)
        assert registry.wishes("cell") == [] and registry.version("cell", 2).stage == "rolled_back"


@pytest.mark.parametrize(
    ("args", "cure"),
    [
        (["release", "cell", "9", "--why", "x"], "kept are 1, 2, 3"),
        (["rollback", "dell", "--why", "x"], "there are: cell"),
        (["rollback", "cell", "--why", " "], "say the reason"),
        (["show", "cell", "0"], "VERSION"),
        (["rollback", "cell"], "Missing option '--why'"),
    ],
)
def test_what_cannot_be_is_said_with_its_cure_and_exit_code_2(data: Path, args: list[str], cure: str) -> None:
    done = shoal(*args, "--data", str(data))
    assert done.returncode == 2 and cure in done.stderr and "Traceback" not in done.stderr


LONG, SURROGATE = "x" * 5_000, "\udcff"
"""What a shell may hand over: more than a file's name may have, and bytes that are no UTF-8."""


@pytest.mark.parametrize(
    ("args", "cure"),
    [
        (["show", "cell", "9" * 30], "VERSION"),
        (["show", "cell", str(2**53 - 1)], "kept are 1, 2, 3"),
        (["show", "cell", "--", "-5"], "VERSION"),
        (["show", "no/such\nmodel", "1"], "there are: cell"),
        (["show", SURROGATE, "1"], "there are: cell"),
        (["history", "cell", "9" * 30], "VERSION"),
        (["history", "cell", "--limit", "9" * 30], "--limit"),
        (["pin", "cell", "1", "--node", "nowhere", "--why", "x"], "use 1-32 of a-z"),
        (["pin", "cell", "1", "--node", "s1/a/b", "--why", "x"], "use 1-32 of a-z"),
        (["pin", "cell", "1", "--node", "s1/no\nde", "--why", "x"], "use 1-32 of a-z"),
        (["unpin", "cell", "--node", "/", "--why", "x"], "use 1-32 of a-z"),
        (["release", "cell", "1", "--why", LONG], "at most 500 printable"),
        (["release", "cell", "1", "--why", SURROGATE], "at most 500 printable"),
        (["release", "cell", "1", "--why", "x", "--by", "a\nb"], "at most 500 printable"),
        (["release", "cell", "1", "--why", "x", "--by", ""], "say who"),
        (["release", "cell", "1", "--why", "x", "--wait", "nan"], "--wait"),
    ],
)
def test_whatever_is_asked_for_is_refused_with_its_cure_and_leaves_no_wish(
    data: Path, args: list[str], cure: str
) -> None:
    done = shoal(*args[:1], "--data", str(data), *args[1:])
    assert done.returncode == 2 and cure in done.stderr and "defect" not in done.stderr, done.stderr
    with closing(Registry(data / FILE)) as registry:
        assert registry.wishes("cell") == []


def spoilt(where: Path, how: str) -> Path:
    """A data directory that is none."""
    data = where / how
    if how == "long":
        return where / LONG
    if how == "a file":
        data.write_text("x")
        return data
    if how == "nobody's":
        return Path("/proc/none")  # no file can be made there, whoever one is
    data.mkdir()
    if how == "no database":
        (data / FILE).write_bytes(b"no database" * 1_000)
    elif how == "another program's":
        with closing(sqlite3.connect(data / FILE)) as db:
            db.execute("CREATE TABLE version(name TEXT)")
            db.commit()
    elif how == "a folder":
        (data / FILE).mkdir()
    elif how == "damaged":
        with closing(Registry(data / FILE)) as registry:
            registry.add(Draft(model="cell", graph=bytes(9_000), interface=FACE, origin="x"), now=1, by="shoal")
        with (data / FILE).open("r+b") as file:
            file.seek(4_096)
            file.write(bytes(range(256)) * 16 * 6)
    return data


@pytest.mark.parametrize(
    "how", ["a file", "a folder", "another program's", "damaged", "long", "no database", "nobody's"]
)
def test_a_data_directory_that_is_none_is_said_with_its_cure(tmp_path: Path, how: str) -> None:
    data = spoilt(tmp_path, how)
    face = tmp_path / "face.toml"
    face.write_text('actions = ["a", "b"]\n[[features]]\nmetric = "x"\nlow = 0\nhigh = 1\n')
    adds = ["import", str(onnx_file(tmp_path / "d.onnx")), "--model", "detector", "--interface", str(face)]
    for args in (["list"], ["show", "cell", "1"], adds):
        done = shoal(*args, "--data", str(data))
        cured = any(cure in done.stderr for cure in ("--data", "backup", "a folder that this user may write"))
        assert done.returncode == 2 and cured and "defect" not in done.stderr, done.stderr


def test_a_file_with_a_name_that_cannot_be_kept_is_to_be_renamed(tmp_path: Path) -> None:
    face = tmp_path / "face.toml"
    face.write_text('actions = ["a", "b"]\n[[features]]\nmetric = "x"\nlow = 0\nhigh = 1\n')
    file = onnx_file(tmp_path / "na\nme.onnx")
    done = shoal("import", str(file), "--model", "d", "--interface", str(face), "--data", str(tmp_path / "cloud"))
    assert done.returncode == 2 and "rename it" in done.stderr and not (tmp_path / "cloud").exists()


def test_another_directory_is_not_made_by_looking_at_it(tmp_path: Path) -> None:
    done = shoal("list", "--data", str(tmp_path / "none"))
    assert done.returncode == 2 and "--data" in done.stderr and not (tmp_path / "none").exists()


def onnx_file(path: Path, *, inputs: int = 1) -> Path:
    weight = numpy_helper.from_array(np.zeros((inputs, 2), np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["state", "weight"], ["values"])],
        "detector",
        [helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, inputs])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


def test_any_onnx_file_with_an_interface_becomes_a_version(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "detector.onnx")
    (tmp_path / "face.toml").write_text(
        'actions = ["pass", "stop"]\n[[features]]\nmetric = "vibration"\nlow = 0\nhigh = 9\n'
    )
    args = ["import", str(file), "--model", "detector", "--interface", str(tmp_path / "face.toml")]
    data = ["--data", str(tmp_path / "cloud")]
    made = json.loads(shoal(*args, *data, "--by", "eva", "--json").stdout)
    assert (made["model"], made["version"], made["stage"], made["origin"]) == (
        "detector", 1, "candidate", "detector.onnx"
    )  # fmt: skip
    with closing(Registry(tmp_path / "cloud" / FILE)) as registry:
        assert registry.data(made["graph"]["sha256"]) == file.read_bytes()
        assert registry.version("detector", 1).interface.actions == ["pass", "stop"]


@pytest.mark.parametrize(
    ("text", "inputs", "cure"),
    [
        ("actions = [", 1, "[[features]]"),
        ('actions = ["a"]', 1, "features: Field required"),
        ('actions = ["a", "b"]\n[[features]]\nmetric = "x"\nlow = 0\nhigh = 1\n', 2, "inputs must be"),
    ],
)
def test_an_import_that_no_node_would_run_is_refused_by_name(tmp_path: Path, text: str, inputs: int, cure: str) -> None:
    file = onnx_file(tmp_path / "detector.onnx", inputs=inputs)
    (tmp_path / "face.toml").write_text(text)
    done = shoal(
        "import", str(file), "--model", "d", "--interface", str(tmp_path / "face.toml"), "--data", str(tmp_path)
    )
    assert done.returncode == 2 and cure in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / FILE).exists()


def test_the_command_line_is_the_same_from_a_shell(data: Path) -> None:
    command = [sys.executable, "-m", "shoal", "models", "history", "cell", "--data", str(data), "--json"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout == shoal(*command[4:]).stdout
