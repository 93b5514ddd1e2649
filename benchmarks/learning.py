"""What learning is worth at one cell, and how fast a node learns and decides. One JSON line per figure.

    python benchmarks/learning.py [--quick] [--part learns|speed|decision]... [--jobs N]

learns    The default cell under its default limit of carbon, judged on days nobody saw, the same for all; money a
          day, kg against the limit; violation = what the mean is above the limit, in percent of it. Rules written by
          hand (`_cell_rules.py` says which, and what makes one the best of them: days of training do), the rule that
          a search finds, and the learner, five seeds, greedily. Then what could be had: by who knows the odds of the
          cell but not its future (`_cell_odds.py`, about the best without foresight), and by foresight (an upper
          bound, `_foresight.py`, on the first of those episodes). Intervals: 95 %, bootstrap over seeds and episodes
          of ten days, paired by episode.
speed     An optimiser step, batch 32, against torch in turns; without torch installed only ours.
decision  A decision by the policy of a node against `session.run` of onnxruntime, in turns.

`--quick`: two minutes; what is learned then says little. `--jobs`: processes, for `learns` alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: its threads would share one small product
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _cell_fast import EPISODE, drawn
from _cell_learner import Course, Learned, greedy, learned
from _cell_odds import within
from _cell_rules import TRAINING, Days, by_hand, played, searched
from _foresight import joint
from _step_speed import decisions, steps

from firmware_sim.cell import Cell, CellSpec

SPEC = CellSpec()
SEEDS = (0, 1, 2, 3, 4)
UNSEEN = [(7, k) for k in range(60)]
"""Episodes to judge by."""
TRIAL = [(6, k) for k in range(12)]
"""The same for `--quick`: looking at these spoils nothing."""
FORESEEN = 20
"""of them the bound is computed for"""
MARGIN, VIOLATION = 10.0, 2.0
RESAMPLES = 4_000


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes; says little")
    parser.add_argument("--part", action="append", choices=["learns", "speed", "decision"], help="only this one")
    parser.add_argument("--jobs", type=int, default=1, help="processes of `learns`")
    args = parser.parse_args()
    for part in args.part or ["learns", "speed", "decision"]:
        if part == "learns":
            for figure in learns(args.quick, args.jobs):
                print(json.dumps(figure), flush=True)
            continue
        target = "≥ 3" if part == "speed" else "≤ 1.5"
        for name, value, unit, holds, note in (steps if part == "speed" else decisions)(args.quick):
            print(json.dumps(line(name, value, unit, target if holds is not None else None, holds, note)), flush=True)


def line(figure: str, value: float, unit: str, target: str | None = None, holds: bool | None = None, note: str = ""):
    return {"figure": figure, "value": round(value, 3), "unit": unit, "target": target, "holds": holds, "note": note}


def learns(quick: bool, jobs: int) -> Iterator[dict[str, object]]:
    """Rules, learners, and what could be had."""
    course = Course(days=200) if quick else Course()
    unseen = TRIAL if quick else UNSEEN
    foreseen = 2 if quick else FORESEEN
    with ProcessPoolExecutor(jobs) as pool:
        most = pool.submit(_foreseen, unseen[:foreseen])
        odds = pool.submit(_by_odds, unseen)
        found = pool.submit(searched, SPEC, np.random.default_rng((4, 0)), effort=0.1 if quick else 1.0)
        minds = [pool.submit(learned, SPEC, seed=seed, course=course) for seed in (SEEDS[:1] if quick else SEEDS)]
        hand = [(rule, played(SPEC, rule.rule, unseen)) for rule in by_hand(SPEC)]
        for rule, days in hand:
            yield _arm(f"rule by hand: {rule.name}", days, f"{rule.money:.0f} on days of training")
        best, base = max(hand, key=lambda one: one[0].money)
        rule = found.result()
        other = played(SPEC, rule.rule, unseen)
        yield _arm("rule found by search", other, f"{rule.money:.0f} on days of training, {rule.days:,} simulated days")
        learners = []
        for seed, one in zip(SEEDS, minds, strict=False):
            mind: Learned = one.result()
            learners.append(played(SPEC, greedy(mind.theta), unseen))
            yield _arm(f"learner, seed {seed}", learners[-1], f"{mind.days:,} days, price {mind.multiplier:.2f} a kg")
        bound, price = most.result()
        plan_price, plan = odds.result()
    yield _arm("by who knows the odds", plan, f"{plan_price:.2f} a kg")
    yield _margin("learner against the best rule by hand", learners, base, f"that is: {best.name}", MARGIN)
    yield _margin("learner against the rule found by search", learners, other)
    yield _margin("who knows the odds against the best rule by hand", [plan], base, "what is there to be had")
    yield _margin("learner against who knows the odds", learners, plan)
    yield _kept(learners, base)
    yield line("bound by foresight", bound, "money/day", note=f"{foreseen * EPISODE} of those days; {price:.2f} a kg")
    for who, arms in (("best rule by hand", [base]), ("who knows the odds", [plan]), ("learner", learners)):
        share = 100 * np.mean([days.money[:foreseen].mean() for days in arms]) / bound
        kg = np.mean([days.kg[:foreseen].mean() for days in arms])
        yield line(f"share of the bound, {who}", float(share), "%", note=f"the same days; {kg:.1f} kg a day")


def violation(days: Days) -> float:
    """Percent of the limit by which the mean day is above it."""
    return 100 * max(0.0, float(days.kg.mean()) / SPEC.limit_kg - 1)


def _by_odds(unseen: list[tuple[int, int]]) -> tuple[float, Days]:
    training = drawn(SPEC, [(1, k) for k in range(TRAINING)])
    price, days = within(SPEC, training, drawn(SPEC, unseen))
    return price, Days(*days)


def _foreseen(episodes: list[tuple[int, int]]) -> tuple[float, float]:
    """Money a day, and the price of carbon it was found at."""
    chances = [Cell(SPEC, np.random.default_rng(one), days=EPISODE).chance for one in episodes]
    money, price = joint(SPEC, chances, EPISODE)
    return money / (len(episodes) * EPISODE), price


def _arm(who: str, days: Days, note: str) -> dict[str, object]:
    low, high = _interval([days.money.mean(axis=1)])
    above = 100 * float((days.kg > SPEC.limit_kg).mean())
    kg = f"{days.kg.mean():.1f} kg a day, limit {SPEC.limit_kg:g}: violation {violation(days):.2f} %"
    what = f"95 %: {low:.0f} to {high:.0f}; {kg}; {above:.0f} % of days above it; {note}"
    return line(who, float(days.money.mean()), "money/day", note=what)


def _margin(
    what: str, arms: list[Days], against: Days, note: str = "", target: float | None = None
) -> dict[str, object]:
    """Paired by episode; seeds and episodes are both drawn again."""
    base = against.money.mean(axis=1)
    margin = 100 * (float(np.mean([days.money.mean() for days in arms])) / float(base.mean()) - 1)
    low, high = _interval([days.money.mean(axis=1) for days in arms], base)
    note = f"95 %: {low:.1f} to {high:.1f}; {base.size * EPISODE} days; mean of {len(arms)}{note and '; '}{note}"
    if target is None:
        return line(what, margin, "%", note=note)
    return line(what, margin, "%", f"≥ {target:g}", margin >= target, note)


def _kept(learners: list[Days], rule: Days) -> dict[str, object]:
    mean, worst = (float(of([violation(days) for days in learners])) for of in (np.mean, max))
    note = f"mean of the seeds; the worst {worst:.2f} %, the best rule by hand {violation(rule):.2f} %"
    return line("violation of the limit, learner", mean, "%", f"≤ {VIOLATION:g}", mean <= VIOLATION, note)


def _interval(arms: list[np.ndarray], base: np.ndarray | None = None) -> tuple[float, float]:
    """Of the mean over arms and episodes; with `base`, of what it is above it in percent."""
    rng, money = np.random.default_rng(1), np.stack(arms)
    found = []
    for _ in range(RESAMPLES):
        episodes = rng.integers(money.shape[1], size=money.shape[1])
        drawn = money[rng.integers(len(money), size=len(money))][:, episodes].mean()
        found.append(drawn if base is None else 100 * (drawn / base[episodes].mean() - 1))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
