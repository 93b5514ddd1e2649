"""`shoal cloud` as it is started: it ends when it is told to, whatever it computes."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import psutil
from conftest import eventually

from cloud.settings import KEY_FILE
from messages.broker import Broker
from messages.signing import SigningKey

ROOT = Path(__file__).resolve().parent.parent


async def test_a_cloud_that_is_told_to_end_leaves_no_simulation_behind(broker: Broker, tmp_path: Path) -> None:
    """Its first version is simulated for hours, if it is let."""
    config = tmp_path / "cloud.toml"
    config.write_text(
        f'sites = ["s1"]\ndata = "{tmp_path}"\n[broker]\nport = {broker.port}\n'
        "[learning.simulation]\nknown_days = 365\nadapt_steps = 100000\nmost_s = 3600\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal", "cloud", "--config", str(config)), cwd=ROOT
    )
    try:
        whole = psutil.Process(process.pid)
        children = await eventually(lambda: whole.children(), what="a simulation")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    await eventually(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    assert SigningKey.at(tmp_path / KEY_FILE).public, "its key is kept"
