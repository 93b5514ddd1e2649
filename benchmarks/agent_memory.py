"""What a node with a learning cell holds in memory: a real `shoal edge`, a real Mosquitto, 18,821 parameters.

    python benchmarks/agent_memory.py [--quick]

Resident memory of the node's process, each time after 30 decisions: before anything was released; after the first
release, whose graph was never compared with its network on this node, which takes the ONNX runtime; and after a restart
and a second release of the same graph, which does not. `--quick` is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
from agent import CELL, NETWORK, Floor, _node, _now, _running, _until

from messages.broker import Broker
from messages.initial import initial

DECISIONS = 30


async def measure() -> AsyncIterator[dict[str, Any]]:
    """Each figure when it is there."""
    theta = [initial(NETWORK, np.random.default_rng(seed)).astype("<f4").tobytes() for seed in (1, 2)]
    with tempfile.TemporaryDirectory() as name, Broker() as broker:
        folder, floor = Path(name), Floor(broker.port)
        async with _running(floor):
            with _node(folder, broker.port, commit_s=0.02, checkpoint_s=300.0) as node:
                await _until(lambda: "learner_steps" in floor.health)
                yield await _figure("before_a_release", floor, node)
                await floor.release(theta[0])
                await _until(lambda: floor.running == 1)
                yield await _figure("after_the_first_release", floor, node)
            floor.health = {}
            with _node(folder, broker.port, commit_s=0.02, checkpoint_s=300.0) as node:
                await _until(lambda: "learner_steps" in floor.health)
                await floor.release(theta[1], version=2)
                await _until(lambda: floor.running == 2)
                yield await _figure("after_a_restart_and_a_release", floor, node)


async def _figure(name: str, floor: Floor, node: psutil.Process) -> dict[str, Any]:
    for _ in range(DECISIONS):
        await floor.asked(CELL, floor.burst(_now()))
    loaded = any("onnxruntime" in one.path for one in node.memory_maps())
    return {
        "figure": f"edge_rss_{name}",
        "value": round(node.memory_info().rss / 1e6, 1),
        "unit": "MB",
        "target": "stated",
        "holds": True,
        "note": f"one cell, {DECISIONS} decisions before; the ONNX runtime is {'' if loaded else 'not '}loaded",
    }


async def _run() -> None:
    async for figure in measure():
        print(json.dumps(figure), flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    parser.parse_args()
    asyncio.run(_run())


if __name__ == "__main__":
    main()
