"""Dispatching when nobody knows what comes: tree search against rules, and against peers with the same time per event.

    python benchmarks/dispatch_online.py [--quick] [--shops 100] [--seconds 0.05]

A shop is a workshop of 24 jobs (`_workshops.workshop`) of which 6 are there at first and the others come with
exponential gaps of 35 s, known when they come; every operation takes its foreseen time × U[0.8, 1.2), known when it has
ended; every machine breaks down after exponential times of 900 s for U[30, 120) s, and 75 s are foreseen. Drawn by
numpy's PCG64. What was begun goes on after the repair. All judges see the same shops (paired).

One weighting throughout, chosen on shops 200 to 329: makespan + 9 × mean waiting. Tree search must be better than
every rule in both measures, and not worse in the weighted sum than CP-SAT (which minimises the same, begun with the
best rule or its own last plan) and tabu search (which minimises the makespan alone), each with the same seconds per
event and one thread: the mean paired difference in percent of the peer's, with its 95 % bootstrap interval. With
foresight: the best that compiled search finds when it knows everything, 300,000 iterations: a best known, no optimum.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

import numpy as np  # noqa: E402
from _figures import mean_interval, ratio_interval  # noqa: E402
from _rolling import RollingExact, RollingTabu  # noqa: E402
from _workshops import TICK_S, workshop  # noqa: E402

from cloud.dispatch import ByRule, Mcts, look_ahead, warm  # noqa: E402
from messages.dispatch.check import faults  # noqa: E402
from messages.dispatch.decode import Weights, decode, measures  # noqa: E402
from messages.dispatch.judge import Judge  # noqa: E402
from messages.dispatch.rules import RULES  # noqa: E402
from messages.dispatch.shop import Shop, Shut, Step  # noqa: E402
from messages.dispatch.simulate import Course, Outcome, simulate  # noqa: E402
from messages.dispatch.state import begin  # noqa: E402

JOBS, AT_FIRST = 24, 6
GAP_S, SPREAD = 35.0, 0.2
BETWEEN_S, REPAIR_S = 900.0, (30.0, 120.0)
WEIGHTS = Weights(makespan=1.0, waiting=9.0)
FORESIGHT = 300_000


def course(seed: int, jobs: int = JOBS) -> Course:
    """What is foreseen of one shop, and what comes."""
    shop = workshop(seed, jobs=jobs)
    rng = np.random.default_rng((seed, 1))
    gaps = rng.exponential(GAP_S / TICK_S, jobs)
    release = np.rint(np.where(np.arange(jobs) < AT_FIRST, 0, gaps).cumsum()).astype(int).tolist()
    factor = rng.uniform(1 - SPREAD, 1 + SPREAD, (jobs, 3))
    foreseen = replace(
        shop, jobs={name: replace(work, release=release[j]) for j, (name, work) in enumerate(shop.jobs.items())}
    )
    horizon = release[-1] + jobs * 1000

    def broken() -> tuple[Shut, ...]:
        shut, at = [], 0
        while True:
            at += max(1, round(rng.exponential(BETWEEN_S / TICK_S)))
            if at > horizon:
                return tuple(shut)
            shut.append(Shut(at, at + round(rng.uniform(*REPAIR_S) / TICK_S), broken=True))
            at = shut[-1].end

    def really(step: Step, by: float) -> Step:
        return replace(step, ticks={name: max(1, round(ticks * by)) for name, ticks in step.ticks.items()})

    actual = replace(
        foreseen,
        machines={name: replace(one, shut=broken()) for name, one in foreseen.machines.items()},
        jobs={
            name: replace(work, steps=tuple(really(step, by) for step, by in zip(work.steps, factor[j], strict=True)))
            for j, (name, work) in enumerate(foreseen.jobs.items())
        },
    )
    return Course(foreseen, actual, repair=round(sum(REPAIR_S) / 2 / TICK_S))


def figures(quick: bool, *, shops: int = 100, seconds: float = 0.05) -> Iterator[dict[str, Any]]:
    """One dictionary per figure."""
    if quick:
        shops, seconds = 2, 0.01
    warm()
    judges: dict[str, Judge] = {
        "mcts": Mcts(seconds=seconds),
        **{name: ByRule.model_validate({"kind": name}) for name in RULES},
        "cpsat": RollingExact(seconds=seconds),
        "tabu": RollingTabu(seconds=seconds),
    }
    simulate(course(0, 2), judges["tabu"], WEIGHTS)  # compiles
    makespan: dict[str, list[float]] = {name: [] for name in judges}
    waiting: dict[str, list[float]] = {name: [] for name in judges}
    foresight: list[float] = []
    took: list[float] = []
    for seed in range(shops):
        one = course(seed)
        for name, judge in judges.items():
            outcome = _run(one, judge, seed)
            makespan[name].append(outcome.measures.makespan * TICK_S)
            waiting[name].append(outcome.measures.waiting * TICK_S)
            took += outcome.decide_s if name == "mcts" else ()
        foresight.append(_with_foresight(one.actual, seed) * TICK_S)
    both = {
        name: [a + WEIGHTS.waiting * b for a, b in zip(makespan[name], waiting[name], strict=True)] for name in judges
    }
    for name in RULES:
        for measure, of in (("makespan", makespan), ("waiting", waiting)):
            yield _against(f"online_{measure}_against_{name}", of["mcts"], of[name], below=0.0, shops=shops)
    for name in ("cpsat", "tabu"):
        yield _against(f"online_sum_against_{name}", both["mcts"], both[name], below=None, shops=shops)
        yield _against(f"online_makespan_against_{name}", makespan["mcts"], makespan[name], below=100.0, shops=shops)
    gained = [a - b for a, b in zip(both["fifo"], both["mcts"], strict=True)]
    share, low, high = ratio_interval(gained, [a - b for a, b in zip(both["fifo"], foresight, strict=True)])
    yield {
        "figure": "online_share_of_foresight",
        "value": round(share, 1),
        "unit": "%",
        "target": "stated",
        "holds": True,
        "note": f"Σ(FIFO - mcts) / Σ(FIFO - best known with foresight), 95 % interval {low:.1f} to {high:.1f}; "
        f"{shops} shops, {seconds:g} s per event, {len(took) / shops:.0f} decisions per shop",
    }


def _against(figure: str, ours: list[float], theirs: list[float], *, below: float | None, shops: int) -> dict[str, Any]:
    """`below`: what the upper end of the interval must be under; None: the lower end must not be above 0."""
    rises = [100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True)]
    rise, low, high = mean_interval(rises)
    wins = sum(a < b for a, b in zip(ours, theirs, strict=True))
    return {
        "figure": figure,
        "value": round(rise, 2),
        "unit": "%",
        "target": {None: "not significantly worse", 0.0: "< 0", 100.0: "stated"}[below],
        "holds": low <= 0 if below is None else high < below,
        "note": f"95 % interval {low:.2f} to {high:.2f}; mean {sum(ours) / shops:.1f} s, theirs "
        f"{sum(theirs) / shops:.1f} s; less in {wins} of {shops}",
    }


def _with_foresight(actual: Shop, seed: int) -> float:
    state = begin(actual)
    found = look_ahead(state, WEIGHTS, FORESIGHT, seed=seed)
    return measures(decode(state, found.sequence)).value(WEIGHTS)


def _run(one: Course, judge: Judge, seed: int) -> Outcome:
    outcome = simulate(one, judge, WEIGHTS, seed=seed)
    if found := faults(one.actual, outcome.bids):
        raise SystemExit(f"{judge!r} made a schedule that cannot be carried out: {found[0]}")
    return outcome


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 shops, 10 ms per event")
    parser.add_argument("--shops", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.05, help="per event, of every judge that searches")
    options = parser.parse_args()
    for one in figures(options.quick, shops=options.shops, seconds=options.seconds):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
