"""How fast a judge looks ahead: decodes and iterations per second of one core, and how long a decision takes.

    python benchmarks/dispatch_speed.py [--quick]

A rollout decode is one whole sequence of a workshop (`_workshops.workshop`) from the state of now to makespan and mean
waiting, state copied. An iteration is selection, rollout and backpropagation. CPU time, best of three. A decision is
`Mcts(seconds=0.08).decide`, the reading of the state and the choice of awards included, wall time, along a whole shop
of 24 jobs; the plain judge is asked for 100 iterations at the first decision.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

import numpy as np  # noqa: E402
from _rollouts import rollouts  # noqa: E402
from _workshops import workshop  # noqa: E402

import messages.dispatch.judge  # noqa: E402
from cloud.dispatch import Mcts, look_ahead, warm  # noqa: E402
from cloud.dispatch.floor import board_of, draft_of, floor_of, packed_board, packed_floor, weights_of  # noqa: E402
from messages.dispatch.decode import Weights  # noqa: E402
from messages.dispatch.rules import RULES, run  # noqa: E402
from messages.dispatch.simulate import Course, simulate  # noqa: E402
from messages.dispatch.state import State, begin  # noqa: E402

SIZES = (6, 12, 24)
WEIGHTS = Weights(waiting=0.5)
BUDGET_S = 0.08


def figures(quick: bool) -> Iterator[dict[str, Any]]:
    """One dictionary per figure."""
    count = 20_000 if quick else 200_000
    warm()
    for jobs in SIZES:
        state = begin(workshop(1, jobs=jobs))
        rate = _decodes(state, count)
        yield {
            "figure": f"rollout_decodes_{jobs}_jobs",
            "value": round(rate),
            "unit": "1/s per core",
            "target": ">= 200000" if jobs == 12 else "stated",
            "holds": jobs != 12 or rate >= 200_000,
            "note": f"{3 * jobs} operations",
        }
        rate = max(_iterations(state, count // 4) for _ in range(3))
        yield {
            "figure": f"search_iterations_{jobs}_jobs",
            "value": round(rate),
            "unit": "1/s per core",
            "target": "stated",
            "holds": True,
            "note": f"{3 * jobs} operations, tree and rules included",
        }
    shop = workshop(1, jobs=24)
    took = simulate(Course(shop, shop), Mcts(seconds=0.005 if quick else BUDGET_S), WEIGHTS).decide_s
    p50, p99 = 1000 * np.percentile(took, [50, 99])
    yield {
        "figure": "decision_p99_24_jobs",
        "value": round(float(p99), 1),
        "unit": "ms",
        "target": "<= 25" if quick else "<= 100",
        "holds": bool(p99 <= (25 if quick else 100)),
        "note": f"budget {5 if quick else 1000 * BUDGET_S:g} ms, p50 {p50:.1f} ms, {len(took)} decisions",
    }
    began = time.process_time()
    messages.dispatch.judge.Mcts(iterations=100).decide(begin(shop), WEIGHTS)
    yield {
        "figure": "plain_decision_100_iterations_24_jobs",
        "value": round(1000 * (time.process_time() - began), 1),
        "unit": "ms CPU",
        "target": "stated",
        "holds": True,
        "note": "plain Python, 72 operations",
    }


def _decodes(state: State, count: int) -> float:
    floor, names = floor_of(state.shop)
    order, alt = draft_of(floor, names, state, run(state, RULES["fifo"], WEIGHTS).sequence)
    made = np.zeros((len(alt), 5), np.int64)
    boards = [packed_board(board_of(floor, names, state)) for _ in range(2)]
    asked = (packed_floor(floor), *boards, order, alt, made, weights_of(WEIGHTS))
    rollouts(*asked, 1)
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        rollouts(*asked, count)
        best = max(best, count / (time.process_time() - began))
    return best


def _iterations(state: State, count: int) -> float:
    began = time.process_time()
    look_ahead(state, WEIGHTS, count, seed=1)
    return count / (time.process_time() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the decodes, 5 ms per decision")
    for one in figures(parser.parse_args().quick):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
