"""What a round of learning together costs the cloud, and what hostile nodes can do to it. One JSON line per figure.

    python benchmarks/federation.py [--quick] [--part speed|hostile]...

speed    1,000 updates of the published network (18,692 parameters, all of them sent, float16), signed by 1,000 nodes.
         On arrival: signature, decoding, checks, by the cloud's `Gate` on one core. At the close: finiteness and norms
         with FedAvg alone, then every aggregator, then a close as `Rounds` does it, with the tests beside each other.
         Best of several; `cpu` in the note is the CPU time of the same run, all threads.
hostile  20 cells, 6 of them hostile, that learn together with the product's trainer, gate and rounds (shared body,
         local heads; heterogeneity 0.3): mean return per decision of the honest cells, decided greedily on days nobody
         learned from, against the same seeds without attack; who was named; and honest cells that were accused, also
         at heterogeneity 1.5. Three seeds of 20 rounds; `--quick`: one of 4, where returns say little, and two attacks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _hostile import ATTACKS, Fleet, Outcome

from cloud.aggregation import ClippedMean, Krum, Mean, Median, Strategy, TrimmedMean
from cloud.gate import Gate, GateSettings, Taken
from cloud.quarantine import GateState
from cloud.roundbook import RoundBook
from cloud.rounds import Candidate, Rounds, RoundSettings
from messages.learning import Feature, Interface, Update, UpdateHead
from messages.network import Network
from messages.signing import SigningKey, public_key
from messages.updates import signed

NODES = 1_000
NET = Network(inputs=12, hidden=(128, 128), outputs=4)
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)] * 12, actions=["a", "b", "c", "d"])
SECOND = 1_000_000
ARRIVAL_MS, CLOSE_MS, ROBUST_MS = 0.5, 20.0, 500.0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--part", action="append", choices=["speed", "hostile"], help="only this one (again: more)")
    args = parser.parse_args()
    for part in args.part or ["speed", "hostile"]:
        for figure in speed(args.quick) if part == "speed" else hostile(args.quick):
            print(json.dumps(figure), flush=True)


def line(figure: str, value: float, unit: str, target: str | None = None, holds: bool | None = None, note: str = ""):
    return {"figure": figure, "value": round(value, 3), "unit": unit, "target": target, "holds": holds, "note": note}


# --- speed --------------------------------------------------------------------------------------------


def timed(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Least wall and CPU time, ms."""
    wall, cpu = [], []
    for _ in range(times):
        began, began_cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return 1e3 * min(wall), 1e3 * min(cpu)


def speed(quick: bool) -> Iterator[dict[str, object]]:
    names = [f"node-{k}" for k in range(NODES)]
    secret = [SigningKey.from_seed(k.to_bytes(32, "big")) for k in range(NODES)]
    keys = {name: public_key(key.public) for name, key in zip(names, secret, strict=True)}
    rng = np.random.default_rng(1)
    base = rng.normal(0, 0.1, NET.size).astype(np.float32)
    common = rng.normal(0, 0.01, NET.size)
    times = 2 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        settings = RoundSettings(whole=True, aggregate=Mean())
        rounds = Rounds(settings, RoundBook(Path(folder) / "rounds.db"), keys=keys, register=_number)
        rounds.rebase(base, version=0)
        asked = rounds.open(1_000 * SECOND, network=NET, interface=FACE)
        head = UpdateHead(
            model=asked.model,
            round=asked.round,
            base=asked.base.sha256,
            at=1_001 * SECOND,
            codec="float16",
            samples=1_000,
        )
        payloads = [
            signed(head, (common + rng.normal(0, 0.01, NET.size)).astype("f4"), key, name=name).encode()
            for name, key in zip(names, secret, strict=True)
        ]
        gate, now = Gate(GateSettings(), keys), 1_002 * SECOND

        def arrive() -> None:
            for name, payload in zip(names, payloads, strict=True):
                assert isinstance(gate.judge(name, Update.decode(payload), asked, now=now), Taken)

        wall, cpu = timed(arrive, times)
        note = f"cpu {cpu / NODES:.3f} ms; {len(payloads[0])} bytes each, of {4 * NET.size}"
        yield line(
            "signature, decoding and checks of an update", wall / NODES, "ms", "<= 0.5", wall / NODES <= 0.5, note
        )
        came = [(name, 1, Update.decode(payload)) for name, payload in zip(names, payloads, strict=True)]
        batches = [came[at : at + 64] for at in range(0, NODES, 64)]
        wall, cpu = timed(lambda: [rounds.on_updates(batch, now) for batch in batches], 1)
        yield line(
            "the same and on the disk, 64 a commit", wall / NODES, "ms", note=f"cpu {cpu / NODES:.3f} ms of one core"
        )
        taken = [gate.judge(*one[::2], asked, now=now) for one in came]
        updates = np.array([one.delta for one in taken], np.float32)
        lengths = np.array([one.length for one in taken], np.float32)
        yield from aggregators(updates, times)
        state = GateState()

        def close() -> None:
            sifted, _ = gate.sift(state, round=1, steps=500, names=names, updates=updates, lengths=lengths)
            assert sifted.kept.all()
            Mean()(updates, np.ones(NODES, np.float32))

        wall, cpu = timed(close, times)
        yield line(
            "close of 1,000: gate beside each other and FedAvg", wall, "ms", "<= 20", wall <= 20, f"cpu {cpu:.1f} ms"
        )
        wall, cpu = timed(lambda: rounds.on_time(asked.deadline), 1)
        assert rounds.current and rounds.current.closed and len(rounds.current.closed.taken) == NODES
        yield line("close of a round as it is done, disk and all", wall, "ms", note=f"cpu {cpu:.1f} ms")


def aggregators(updates: np.ndarray, times: int) -> Iterator[dict[str, object]]:
    weights = np.ones(len(updates), np.float32)
    targets: list[tuple[Strategy, float | None]] = [
        (Mean(), CLOSE_MS),
        (ClippedMean(), None),
        (Median(), ROBUST_MS),
        (TrimmedMean(), ROBUST_MS),
        (Krum(), None),
    ]
    for aggregate, target in targets:
        wall, cpu = timed(lambda aggregate=aggregate: aggregate(updates, weights), times)
        yield line(
            f"finiteness, norms and {aggregate.kind} of 1,000",  # type: ignore[attr-defined]
            wall,
            "ms",
            f"<= {target:g}" if target else None,
            wall <= target if target else None,
            f"cpu {cpu:.1f} ms",
        )


def _number(candidate: Candidate) -> int:
    return candidate.round


# --- hostile ------------------------------------------------------------------------------------------


def hostile(quick: bool) -> Iterator[dict[str, object]]:
    rounds, steps, seeds = (4, 40, (1,)) if quick else (20, 150, (1, 2, 3))
    attacks = ("turned", "reward") if quick else tuple(ATTACKS)

    def fleets(heterogeneity: float, attack: str | None) -> list[Outcome]:
        return [Fleet(heterogeneity=heterogeneity, seed=seed, attack=attack).learn(rounds, steps) for seed in seeds]

    clean = fleets(0.3, None)
    yield _accused(clean, rounds, 0.3)
    for attack in attacks:
        yield from _against(clean, fleets(0.3, attack), attack, judged=not quick)
    yield _accused(fleets(1.5, None), rounds, 1.5)


def _accused(found: list[Outcome], rounds: int, heterogeneity: float) -> dict[str, object]:
    accused = sum(len(one.accused_honest) for one in found)
    share = 100 * accused / (rounds * len(found))
    return line(
        f"honest cells accused in 100 rounds, heterogeneity {heterogeneity}",
        share,
        "per 100 rounds",
        "<= 1",
        share <= 1,
        f"{accused} in {rounds * len(found)} rounds of 20 cells",
    )


def _against(clean: list[Outcome], found: list[Outcome], attack: str, *, judged: bool) -> Iterator[dict[str, object]]:
    without, with_it = (float(np.mean([one.honest_return for one in outcomes])) for outcomes in (clean, found))
    loss = 100 * (without - with_it) / abs(without)
    wanted = ATTACKS[attack].found
    accused = sum(len(one.accused_honest) for one in found)
    note = f"{with_it:.2f} against {without:.2f} a decision; honest cells accused: {accused}"
    judged = judged and wanted
    yield line(f"loss of return, {attack}", loss, "%", "<= 5" if judged else None, loss <= 5 if judged else None, note)
    named = min(len(one.named) for one in found)
    reasons = sorted({why for one in found for whys in one.named.values() for why in whys})
    after = [one.all_quarantined for one in found if one.all_quarantined]
    yield line(
        f"hostile nodes named, {attack}",
        named,
        "of 6, the least of all seeds",
        "6" if wanted else None,
        named == 6 if wanted else None,
        "; ".join(reasons + [f"all in quarantine after round {max(after, default=0)}"] * (len(after) == len(found))),
    )


if __name__ == "__main__":
    main()
