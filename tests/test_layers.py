"""Imports point inwards, and an edge node carries nothing it does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "messages": {"messages"},
    "edge": {"edge", "messages"},
    "cloud": {"cloud", "messages"},
    "firmware_sim": {"firmware_sim", "messages"},
    "shoal": {"shoal", "messages", "edge", "cloud", "firmware_sim"},
}
MQTT = {"paho", "aiomqtt"}
FIRMWARE_MQTT = {"firmware_sim"}
"""Beside `messages`, only firmware knows MQTT."""


def imported(path: Path) -> Iterator[str]:
    """Top-level names of everything `path` imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_inwards(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported(path)
        if name in MAY_IMPORT and name not in MAY_IMPORT[package]
    ]
    assert not wrong


def test_only_messages_and_firmware_know_mqtt() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in sorted(MAY_IMPORT.keys() - {"messages"} - FIRMWARE_MQTT)
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in imported(path)
        if name in MQTT
    ]
    assert not wrong


def test_an_edge_node_loads_no_solver_no_plots_and_no_second_mqtt_client() -> None:
    code = (
        "import sys, shoal.__main__, messages.logs, messages.process, edge.service\n"
        "heavy = {'ortools', 'numba', 'plotly', 'pandas', 'aiomqtt', 'rich', 'pygments', 'cloud', 'firmware_sim'}\n"
        "print(*sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["cloud.service", "shoal.swarm.command"])
def test_a_cloud_that_plans_nothing_and_the_help_of_a_command_load_no_solver(module: str) -> None:
    look = f"import {module}, sys; print(sorted({{'numba', 'ortools'}} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"
