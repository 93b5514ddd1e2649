"""Releases: canaries judged rightly, beside a t-test that is looked at again; and what no node may ever take up.

    python benchmarks/releases.py [--quick] [--only PART]

Canaries decide in blocks of 20 decisions, of which the first 4 do not count, in pairs thrown by a coin, and report
every 8 pairs; `cloud.canary` decides at every report, with the settings that are the default. Rewards (mean 1):

heavy   a slow part (autoregressive, 0.98 a decision, standard deviation 0.5) and a t distribution of 3 degrees (0.85)
rare    the same slow part, and once in 50 decisions a loss with a Pareto tail of index 2.1, of infinite kurtosis
cell    the disassembly cell of the simulator under a rule, decided in turns by the node's own `edge.arms`: what one
        version leaves to the next block is in it. Its worse release waits in every third decision.

An equal candidate lives twice: by the policy as it is, and *strictly*: never let through, watched for `LIFE` pairs. The
peer is what is often done: a one-sided t-test of the same pairs at the 1 % level after every report.

flips     every bit of a small release and of an update, flipped
kills     a node is killed, or its power cut, at every step of taking up a release
onnx      hostile graphs: refused, nothing opened, little memory
at_once   a candidate that trips or answers with no number makes how many such decisions
validation  how often the simulation refuses an equal candidate, and how often a worse one passes
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the simulation that validates has it
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from _release_parts import PARTS  # noqa: E402

from cloud.canary import CanaryTest, Tally, decide, tally_of  # noqa: E402
from cloud.registry import Registry  # noqa: E402
from cloud.releases import Releases  # noqa: E402
from cloud.trials import ReleaseSettings  # noqa: E402
from cloud.validation import answer  # noqa: E402
from cloud.versions import Draft  # noqa: E402
from edge.arms import Arms, CanarySettings  # noqa: E402
from firmware_sim.cell import REROUTE, SERVICE, WAIT, A, B, Cell, cell_of  # noqa: E402
from messages.learning import Feature, Interface, ModelReport, Paired  # noqa: E402
from messages.signing import SigningKey  # noqa: E402

CANARIES = 4
LOOK = 8
"""Pairs of a node between two reports."""
COUNTED, BLOCK = 16, 20
PER_PAIR = 2 * BLOCK
LIFE = 4_000
"""Pairs of all canaries, of a strict life."""
CAUGHT = {"heavy": 10_000, "rare": 24_000, "cell": 16_000}
"""Decisions of all canaries within which a release that is a fifth worse is to be found."""
TEST = CanaryTest()
STRICT = CanaryTest(beta=1e-300)
"""Nothing is ever as good."""
T_LIMIT = -2.326


def line(figure, value, unit, target=None, holds=None, **more):
    print(json.dumps({"figure": figure, "value": value, "unit": unit, "target": target, "holds": holds, **more}))


class Life(NamedTuple):
    """What one trial came to: pairs of all canaries at the first decision, of the policy and of the strict test, and
    when the t-test called the candidate worse."""

    decision: str
    pairs: int
    strict: bool
    peeked: bool


Look = dict[str, tuple[Paired, float]]
"""What each canary said, and the incumbent's mean there."""


def lived(looks: Iterator[Look], *, whole: bool) -> Life:
    """One trial; `whole`: watched to its end, whatever was decided."""
    tallies = {str(node): Tally() for node in range(CANARIES)}
    decision, pairs, strict, peeked = "go_on", 0, False, False
    for look in looks:
        for node, (paired, level) in look.items():
            tallies[node] = tally_of(tallies[node], paired, level=level, session="a")
        if decision == "go_on":
            pairs = sum(one.pairs for one in tallies.values())
            decision = decide(tallies, TEST)
        strict = strict or decide(tallies, STRICT) == "worse"
        peeked = peeked or t_test(tallies.values()) < T_LIMIT
        if decision != "go_on" and not whole:
            break
    return Life(decision, pairs, strict, peeked)


def t_test(tallies: Iterable[Tally]) -> float:
    """t of all pairs together."""
    count, mean, m2 = 0, 0.0, 0.0
    for one in tallies:
        off = one.mean - mean
        m2 += one.m2 + off**2 * count * one.pairs / (count + one.pairs)
        count += one.pairs
        mean += off * one.pairs / count
    return mean / math.sqrt(m2 / (count - 1) / count)


def sums(kind: str, lives: int, pairs: int, worse: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per life, canary and look: sum of differences, of their squares; and the mean reward per life and canary."""
    rng = np.random.default_rng((seed, len(kind)))
    shape, keep = (lives, CANARIES), 0.98
    slow, looks = rng.standard_normal(shape), pairs // LOOK
    total, squares, level = np.zeros((looks, *shape)), np.zeros((looks, *shape)), np.zeros(shape)
    for look in range(looks):
        for _ in range(LOOK):
            halves = []
            for _ in range(2):
                mean = np.zeros(shape)
                for step in range(BLOCK):
                    slow = keep * slow + math.sqrt(1 - keep**2) * rng.standard_normal(shape)
                    if step >= BLOCK - COUNTED:
                        mean += 1 + 0.5 * slow + noise(kind, rng, shape)
                halves.append(mean / COUNTED)
            coin = np.where(rng.random(shape) < 0.5, 1, -1)
            difference = coin * (halves[1] - halves[0]) - worse
            total[look] += difference
            squares[look] += difference**2
            level += (halves[0] + halves[1]) / (2 * pairs)
    return total.cumsum(axis=0), squares.cumsum(axis=0), level


def noise(kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Of one decision, mean 0."""
    if kind == "heavy":
        return 0.85 * rng.standard_t(3, shape) / math.sqrt(3)
    hit = rng.random(shape) < 0.02
    return np.where(hit, -4 * (1 + rng.pareto(2.1, shape)), 0) + 0.02 * 4 * (1 + 1 / 1.1)


def simulated(kind: str, lives: int, pairs: int, worse: float, seed: int) -> Iterator[Iterator[Look]]:
    """Every life, look by look."""
    total, squares, level = sums(kind, lives, pairs, worse, seed)

    def looks(life: int) -> Iterator[Look]:
        for look in range(len(total)):
            count, found = LOOK * (look + 1), {}
            for node in range(CANARIES):
                mean = total[look, life, node] / count
                m2 = max(0.0, squares[look, life, node] - count * mean**2)
                said = Paired(version=2, against=1, pairs=count, mean=mean, m2=m2)
                found[str(node)] = said, float(level[life, node])
            yield found

    return (looks(life) for life in range(lives))


def rule(cell: Cell) -> int:
    """What a foreman would do."""
    a, b, components, materials, _, wear, *_ = cell.values()
    if wear > 0.45:
        return SERVICE
    if materials > 40:
        return REROUTE
    if a and components < 12:
        return A
    return B if b else A if a else WAIT


def on_cells(lives: int, pairs: int, lazy: float, seed: int) -> Iterator[Iterator[Look]]:
    """Simulated cells whose nodes keep their arms themselves; the candidate waits in a share of its decisions."""

    def looks(life: int) -> Iterator[Look]:
        rng = np.random.default_rng((seed, life))
        cells = [
            Cell(cell_of(node, 0.3), np.random.default_rng((seed, life, node)), days=10) for node in range(CANARIES)
        ]
        arms = [
            Arms(CanarySettings(block=BLOCK, washout=BLOCK - COUNTED), seed=int(rng.integers(2**31))) for _ in cells
        ]
        for one in arms:
            one.enter([1, 2])
        for _ in range(pairs // LOOK):
            found = {}
            for node, (cell, arm) in enumerate(zip(cells, arms, strict=True)):
                for _ in range(LOOK * PER_PAIR):
                    turn = arm.turn()
                    idle = turn.version == 2 and rng.random() < lazy
                    arm.outcome(turn, *cell.step(WAIT if idle else rule(cell)))
                [level] = [one.mean for one in arm.report() if one.version == 1]
                found[str(node)] = arm.paired()[-1], level
            yield found

    return (looks(life) for life in range(lives))


def worth(lazy: float, steps: int) -> float:
    """Mean reward of one version alone, over the cells."""
    found = []
    for node in range(CANARIES):
        cell, rng = Cell(cell_of(node, 0.3), np.random.default_rng((99, node)), days=10), np.random.default_rng(node)
        rewards = [cell.step(WAIT if rng.random() < lazy else rule(cell))[0] for _ in range(steps)]
        found.append(np.mean(rewards))
    return float(np.mean(found))


def false_rollbacks(name: str, lives: Iterator[Iterator[Look]], life: int) -> None:
    """Of equal versions."""
    found = [lived(one, whole=True) for one in lives]
    of = f"{len(found)} trials of equal versions, {CANARIES} canaries"
    ways = dict(Counter(one.decision for one in found))
    share = 100 * sum(one.decision == "worse" for one in found) / len(found)
    line(f"{name}: false rollbacks", round(share, 2), "%", "<= 1", share <= 1, note=f"{of}; decided: {ways}")
    strict = 100 * sum(one.strict for one in found) / len(found)
    peer = 100 * sum(one.peeked for one in found) / len(found)
    note = f"the same, never let through, watched for {life} pairs"
    ratio = round(strict / peer, 3) if peer else None
    more = {"peer": f"t-test at 1 % after every report: {peer:.1f} %", "ratio": ratio, "note": note}
    line(f"{name}: false rollbacks, strictly", round(strict, 2), "%", "<= 1", strict <= 1, **more)
    through = [one.pairs for one in found if one.decision == "as_good"]
    if through:
        middle, most = (PER_PAIR * np.percentile(through, at) for at in (50, 99))
        note = f"99 %: {most:,.0f}; at most {100 * TEST.margin:.0f} % worse, at {100 * TEST.beta:.0f} %"
        line(f"{name}: decisions until an equal one is let through, median", round(middle), "decisions", note=note)


def worse_found(name: str, lives: Iterator[Iterator[Look]], note: str) -> None:
    """Of releases that are a fifth worse."""
    within = CAUGHT[name]
    found = [lived(one, whole=False) for one in lives]
    caught = [one.pairs * PER_PAIR for one in found if one.decision == "worse"]
    share = 100 * sum(at <= within for at in caught) / len(found)
    figure = f"{name}: a fifth worse, found within {within:,} decisions"
    line(figure, round(share, 2), "%", ">= 99", share >= 99, note=f"{len(found)} trials, {CANARIES} canaries; {note}")
    let = 100 * sum(one.decision == "as_good" for one in found) / len(found)
    line(f"{name}: a fifth worse, let through", round(let, 2), "%", "<= 1", let <= 1)
    if caught:
        middle, most = np.percentile(caught, [50, 99])
        line(f"{name}: decisions until it is found, 99 %", round(most), "decisions", note=f"median {middle:,.0f}")


def handling(nodes: int) -> None:
    """What the core costs."""
    tally = {str(k): Tally(pairs=100, mean=-0.01, m2=10, spread=0.4, level=1) for k in range(CANARIES)}
    began = time.process_time()
    for _ in range(1_000):
        decide(tally, TEST)
    line("a decision on a trial", round(1e3 * (time.process_time() - began), 1), "us CPU", note=f"{CANARIES} canaries")
    face = Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"])
    with tempfile.TemporaryDirectory() as folder, closing(Registry(Path(folder) / "models.db")) as registry:
        releases = Releases(registry, "cell", ReleaseSettings(), key=SigningKey.from_seed(bytes(32)))
        for node in range(nodes):
            report = ModelReport(model="cell", at=1, session="0" * 16)
            releases.on_report(f"s1/n{node}", report, 1)
        began = time.process_time()
        vector = np.zeros(18_821, "<f4").tobytes()
        registry.add(
            Draft(model="cell", graph=b"graph", parameters=vector, interface=face, origin="round 1"), now=1, by=""
        )
        line("a version of 18,821 parameters is kept", round(1e3 * (time.process_time() - began), 2), "ms CPU")
        releases.on_time(1)
        question = releases.to_validate()
        assert question is not None
        began = time.process_time()
        says = releases.on_validated(question, answer(question, lambda _: {"mean_return": 1.0}), 2)
        took = 1e6 * (time.process_time() - began) / len(says)
        line("a signed release per node, on the disk", round(took), "us CPU", note=f"{len(says)} nodes at once")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer and shorter lives")
    parser.add_argument("--only", choices=("heavy", "rare", "cell", "core", *PARTS), help="one part")
    args = parser.parse_args()
    lives, life, few = (200, 1_280, 6) if args.quick else (1_000, LIFE, 60)
    for seed, kind in enumerate(("heavy", "rare")):
        if args.only in (None, kind):
            false_rollbacks(kind, simulated(kind, lives, life // CANARIES, 0.0, 10 + seed), life)
            worse_found(kind, simulated(kind, lives, 1_280 // CANARIES, 0.2, 20 + seed), "mean reward 1, 0.2 less")
    if args.only in (None, "cell"):
        lazy, steps = 0.34, 20_000 if args.quick else 100_000
        less = 1 - worth(lazy, steps) / worth(0.0, steps)
        false_rollbacks("cell", on_cells(few // 2, life // CANARIES // 2, 0.0, 30), life // 2)
        worse_found("cell", on_cells(few, life // CANARIES, lazy, 40), f"alone it earns {100 * less:.0f} % less")
    if args.only in (None, "core"):
        handling(100 if args.quick else 1_000)
    for name, part in PARTS.items():
        if args.only in (None, name):
            for one in part(args.quick):
                print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
