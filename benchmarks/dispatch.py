"""The judges of the swarm against rules, peers and what is best known: every figure of every part, one JSON line each.

    python benchmarks/dispatch.py [--quick] [--only static,online,carbon,speed,bus,kills]

Parts, each a program of its own (`benchmarks/dispatch_<part>.py`):

    static  the published cell under three readings of its transport; generated workshops against the best known
    online  unknown arrivals, uncertain durations, breakdowns: against rules, rolling CP-SAT and rolling tabu search
    carbon  work that may wait for a cleaner hour, beside work that may not
    disturbed  breakdowns, crashes, rival judges, messages astray, an hour without cloud: in simulation
    speed   decodes and iterations per second, time per decision
    bus     negotiations over a real broker with up to 1,000 machine agents
    kills   real processes killed while they work, and a cloud that is cut off
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

PARTS = ("static", "online", "carbon", "speed", "bus", "kills", "disturbed")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some seconds per part, few shops")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        parser.error(f"--only {unknown[0]}: unknown; there are {', '.join(PARTS)}")
    for part in wanted:
        for line in importlib.import_module(f"dispatch_{part}").figures(options.quick):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
