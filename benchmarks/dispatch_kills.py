"""Swarms over real brokers whose processes are killed, and a cloud that is cut off for an hour.

    python benchmarks/dispatch_kills.py [--quick] [--runs 50] [--first 1]

Every run is a small plant (three nodes of two machines, seven jobs of three steps, one of them a rush order) as real
processes over two Mosquittos, in accelerated time (`shoal/swarm/over_bus.py`). Drawn from its seed: a breakdown, the
rush order, a cancelled order; SIGKILLs of two nodes and of the judge, which come back with what is on their disks after
2 to 40 minutes of plant time; and a SIGKILL of a broker, which forgets what it retained: the site's or the cloud's in
passing, or the cloud's for 40 to 90 minutes. What was done is read from the simulated floor's own truth: lost are tasks
that were not done and of which nobody says why. Histories are the batons as they are on the bus at the end; each must
tell every run of its part.

Cut off: the cloud's broker is away for an hour of plant time, half an hour after the begin, and the cloud lives. The
loss is the makespan against the same orders undisturbed, by the median of as many pairs as are told. An hour is bridged
by what was awarded already; so the same again for most of the run, with nodes that judge meanwhile and without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from shoal.swarm.kills import Trial, Verdict, calm, cut_off, drawn, verdict_of  # noqa: E402
from shoal.swarm.outcome import Outcome  # noqa: E402
from shoal.swarm.over_bus import over_bus  # noqa: E402

RUNS, QUICK = 50, 2
PAIRS = 5
LONG = {"at_s": 600.0, "lasts_s": 9000.0}
"""A cut over most of the run, s."""


def figures(quick: bool, runs: int | None = None, first: int = 1) -> Iterator[dict[str, Any]]:
    """One dictionary per figure."""
    yield from _killed(runs or (QUICK if quick else RUNS), first)
    yield from _cut(1 if quick else PAIRS, first)


def _killed(runs: int, first: int) -> Iterator[dict[str, Any]]:
    total, kills, took_s, whole = Verdict(), 0, [], 0
    for seed in range(first, first + runs):
        trial, began = drawn(seed), time.monotonic()
        outcome = _run(trial)
        verdict = verdict_of(outcome)
        took_s.append(time.monotonic() - began)
        total, kills, whole = total + verdict, kills + len(trial.kills), whole + outcome.holds
        for fault in outcome.faults:
            print(f"seed {seed}: {fault}", file=sys.stderr, flush=True)
    note = (
        f"{total.tasks} tasks: {total.done} done, {total.cancelled} cancelled, {total.unknown} unknown; "
        f"{kills} SIGKILLs, {total.interrupted} works interrupted, {total.again} tenders repeated; "
        f"{statistics.median(took_s):.0f} s per run"
    )
    for name, count in (("lost", total.lost), ("twice", total.twice), ("broken_promises", total.faults)):
        yield {
            "figure": f"kills_{name}",
            "value": count,
            "unit": "tasks" if name != "broken_promises" else "faults",
            "target": "0",
            "holds": count == 0,
            "note": note if name == "lost" else f"{runs} runs from seed {first}",
        }
    yield {
        "figure": "kills_runs_that_hold",
        "value": whole,
        "unit": "runs",
        "target": f"{runs}",
        "holds": whole == runs,
        "note": "every task once or said why not, histories complete, machines with one thing at a time",
    }


def _cut(pairs: int, first: int) -> Iterator[dict[str, Any]]:
    seeds = range(first, first + pairs)
    calms = [_run(calm(seed)) for seed in seeds]
    kinds: dict[str, dict[str, Any]] = {
        "an_hour": {},
        "most_of_it": LONG,
        "most_of_it_without_delegates": LONG | {"delegates": False},
    }
    for name, how in kinds.items():
        losses, meanwhile, broken = [], 0, 0
        for seed, undisturbed in zip(seeds, calms, strict=True):
            cut = _run(cut_off(seed, **how))
            losses.append(100 * (cut.figures.makespan_s / undisturbed.figures.makespan_s - 1))
            [trouble] = cut.troubles
            until = trouble.at + cut.swarm.scenario.happenings[0].lasts_us
            meanwhile += sum(trouble.at <= run.start < until for run in cut.runs)
            faults = (*undisturbed.faults, *cut.faults)
            broken += len(faults)
            for fault in faults:
                print(f"cut off for {name}, seed {seed}: {fault}", file=sys.stderr, flush=True)
        yield {
            "figure": f"cut_off_{name}_makespan_loss",
            "value": round(statistics.median(losses), 1),
            "unit": "%",
            "target": "stated",
            "holds": broken == 0,
            "note": f"median of {pairs}, each {', '.join(f'{loss:.1f}' for loss in losses)}; {broken} broken promises",
        }
        yield {
            "figure": f"cut_off_{name}_works_begun",
            "value": round(meanwhile / pairs, 1),
            "unit": "operations per run",
            "target": "> 0" if how.get("delegates", True) else "stated",
            "holds": meanwhile > 0 or not how.get("delegates", True),
            "note": "begun while the cloud was away, of 18",
        }


def _run(trial: Trial) -> Outcome:
    return over_bus(trial.swarm, kills=trial.kills)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two runs and one pair, under two minutes")
    parser.add_argument("--runs", type=int, help="with kills")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    options = parser.parse_args()
    for line in figures(options.quick, options.runs, options.first):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
