"""The ONNX runtime is large and slow to load: only what needs it loads it, where releases are taken up, and once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="no wheel for this processor (32-bit ARM): there is nothing to load")

ROOT = Path(__file__).resolve().parent.parent
BEGIN = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder
from pathlib import Path

class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("asked for:", threading.current_thread().name, os.environ.get("ORT_DISABLE_TELEMETRY"))

sys.meta_path.insert(0, Watch())
from tests import releasing
from tests.hostile import model as plain
from edge.files import Files

bare = dict(network=None, code=plain().SerializeToString())

models = releasing.node(Files(Path(sys.argv[1])))
worker = ThreadPoolExecutor(1, thread_name_prefix="learning")

def take_up(version, **facts):
    release = releasing.Released(version, counter=version, **facts)
    report = worker.submit(release.to, models).result()
    assert report.running == version or facts.get("stage") == "canary", report

def decide():
    for now in range(20):
        turn = models.turn("cell")
        latest = {("press", metric): (now, 1.0) for metric in ("wear", "stock", "carbon")}
        assert turn.policy.choose(latest, now, device="press").action
        models.decided(turn, now, trip=False)
"""


def lines(folder: Path, code: str) -> list[str]:
    """What a process of its own says of who asked for the runtime."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + textwrap.dedent(code), str(folder)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [line.removeprefix("asked for: ") for line in done.stdout.splitlines() if line.startswith("asked for: ")]


def test_the_runtime_is_loaded_where_a_release_needs_it_never_by_a_decision_and_once(tmp_path: Path) -> None:
    """A process each: the first release, what follows after a restart, and a graph alone after one more."""
    compared = ["learning_0 1"]
    assert lines(tmp_path, "take_up(1); decide(); take_up(2); decide()") == compared
    again = """
    decide(); take_up(3); take_up(4, stage='canary'); decide()
    print('asked for: nobody so far')
    take_up(5, **bare); decide()
    """
    assert lines(tmp_path, again) == ["nobody so far", *compared]
    assert lines(tmp_path, "print('asked for: begins'); decide()") == ["MainThread 1", "begins"]
