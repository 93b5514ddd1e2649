"""A round of learning together beside Flower's: time, processor and memory, and one client that sends NaN.

    python benchmarks/flower.py --flower …/flower/bin/python [--nodes 4] [--rounds 3] [--turns 3] [--quick]

Flower lives in an environment of its own, as its dependencies and ours exclude each other:

    python3 -m venv flower && flower/bin/pip install 'flwr>=1.42' numpy

(Where an index is behind and has not what 1.42 asks of `certifi` and `uv`, which nothing here uses: install what
`flwr<1.42` asks for, then `pip install --no-deps flwr==1.42.0`.) The path may also be in SHOAL_BENCH_FLOWER.

Same machine, same run, in turns: their SuperLink and SuperNodes as their deployment guide starts them, our broker,
`shoal cloud` and `shoal edge`; the same vector, float32 both ways; nothing is learned. Their round lasts from one model
to the next, ours from its opening on the bus to its closing; ours are a second apart, as the cloud looks at the time so
often, and that second's processor time counts as the round's. CPU: all processes, per round. Memory of a node: its
processes and what they start, looked at once a second, the middle and the most; resident (RSS), as it would be on
computers of their own, and proportional (PSS), where what is the same in all is counted once. Our nodes hold a learner,
a decision runtime and an outbox. In the last turn one client more (theirs: one of the nodes) sends NaN.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _flower import Federation, Gauge
from _learners import Learners

from messages.cells import NETWORK


@dataclass
class Measured:
    """Of one side, over all turns."""

    took_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """per round, one for each turn"""
    pss: list[float] = field(default_factory=list)
    """MB per node, one for each look"""
    rss: list[float] = field(default_factory=list)


class Looks:
    """Looks at the memory of nodes once a second, and keeps the processor time of the first and the last look."""

    def __init__(self, into: Measured, nodes: Gauge, all_of_it: Gauge, count: int) -> None:
        self.into, self.nodes, self.all, self.count = into, nodes, all_of_it, count
        self.at = 0.0

    def __call__(self) -> None:
        if time.monotonic() - self.at < 1:
            return
        self.at = time.monotonic()
        pss, rss = self.nodes.mb()
        self.into.pss.append(pss / self.count)
        self.into.rss.append(rss / self.count)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower", type=Path, default=os.environ.get("SHOAL_BENCH_FLOWER"), help="its Python")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="of theirs in a turn; ours are three times as many")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="three nodes, one turn of one round")
    args = parser.parse_args()
    if args.flower is None or not (Path(args.flower).parent / "flower-superlink").exists():
        parser.error("give --flower, the Python of an environment with flwr; --help says how it is made")
    if args.quick:
        args.nodes, args.rounds, args.turns = 3, 1, 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what Flower started ends with us
    for figure in compare(Path(args.flower), args.nodes, args.rounds, args.turns):
        print(json.dumps(figure), flush=True)


def line(figure: str, value: float, unit: str, note: str = "") -> dict[str, object]:
    return {"figure": figure, "value": round(value, 3), "unit": unit, "note": note}


def compare(python: Path, nodes: int, rounds: int, turns: int) -> Iterator[dict[str, object]]:
    theirs, ours = Measured(), Measured()
    broken: list[dict[str, object]] = []
    for turn in range(turns):
        last = turn == turns - 1
        with Federation(python, nodes=nodes, parameters=NETWORK.size) as them:
            looks = Looks(theirs, them.of_nodes, them.all, nodes)
            began, found = them.all.cpu_s(), them.rounds(rounds, look=looks)
            theirs.took_s += [one["took_s"] for one in found]
            theirs.cpu_s.append((them.all.cpu_s() - began) / rounds)
            if last:
                (one,) = them.rounds(1, broken="node-0")
                note = f"FedAvg of {nodes}, one of which sends NaN; the model of the round has numbers: {one['finite']}"
                broken.append(line("Flower: rounds whose model is NaN", float(not one["finite"]), "of 1", note))
        with Learners(nodes=nodes) as us:
            us.rounds(1)
            looks = Looks(ours, us.of_nodes, us.all, nodes)
            began, found = us.all.cpu_s(), us.rounds(3 * rounds, skip=0, look=looks)
            ours.took_s += [one["took_s"] for one in found]
            ours.cpu_s.append((us.all.cpu_s() - began) / (3 * rounds))
    with Learners(nodes=nodes - 1, broken=1) as us:
        found = us.rounds(3, skip=0)
    named = sum(why.startswith(("not_finite", "quarantined")) for one in found for why in one["refused"].values())
    made = sum(one["made"] for one in found)
    note = f"{nodes - 1} and it; versions made: {made}; {found[0]['refused']}; then {found[-1]['refused']}"
    broken.append(line("ours: rounds that refused what had NaN and named its node", float(named), "of 3", note))
    yield from _figures(python, theirs, ours, nodes)
    yield from broken


def _figures(python: Path, theirs: Measured, ours: Measured, nodes: int) -> Iterator[dict[str, object]]:
    version = subprocess.run(
        [str(python), "-c", "import importlib.metadata as m; print(m.version('flwr'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    sides = ((f"Flower {version}", theirs), ("ours", ours))
    for name, one in sides:
        note = f"{min(one.took_s):.3f} to {max(one.took_s):.3f} s, {len(one.took_s)} rounds of {nodes} nodes"
        yield line(f"no-op round, {name}", statistics.median(one.took_s), "s", f"{note}, {NETWORK.size} float32")
        yield line(f"processor time of a round, {name}", statistics.median(one.cpu_s), "s", f"{nodes} nodes and server")
        for what, values in (("RSS", one.rss), ("PSS", one.pss)):
            note = f"most {max(values):.0f}, {len(values)} looks"
            yield line(f"memory of a node, {what}, {name}", statistics.median(values), "MB", note)
    yield line(
        "rounds of ours in the time of one of theirs",
        statistics.median(theirs.took_s) / statistics.median(ours.took_s),
        "times",
    )


if __name__ == "__main__":
    main()
