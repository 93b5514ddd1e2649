"""What a graph can make a node do: nothing is opened, nothing is sent, and the memory it takes is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def test_the_runtime_keeps_no_diary_at_home_and_sends_none(tmp_path: Path) -> None:
    """Its builds for Linux do, from 1.29 on, unless they are told: a database, and its rows to its maker."""
    code = """if True:
        from edge.policy import Policy
        import onnxruntime
        from tests.releasing import INTERFACE
        from tests.hostile import model
        policy = Policy.of(INTERFACE, model().SerializeToString())
        print(policy.engine, policy.choose({}, 0, device="cell").action)
    """
    told = {key: text for key, text in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    env = {**told, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["onnxruntime", "None"], done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
