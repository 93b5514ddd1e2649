"""What a round of learning together costs the cloud, and what hostile nodes can do to it. One JSON line per figure.

    python benchmarks/federation.py [--quick] [--part speed|hostile|honest|first|codecs]...

speed    1,000 updates of the published network (18,692 parameters, all of them sent, float16), signed by 1,000 nodes.
         On arrival: signature, decoding, checks, by the cloud's `Gate` and `Probe` on one core. At the close:
         finiteness and norms with FedAvg alone, then every aggregator, then a close as `Rounds` does it, with the tests
         beside each other. CPU time of all threads, the best of several, is what is judged: wall time, in the note, is
         less on a computer that is free and has more cores, and says nothing of one that is busy.
hostile  20 cells, 6 of them hostile, that learn together as the product has it (heterogeneity 0.3): return per decision
         of the honest cells, as `_hostile.py` judges it, against the same seeds without attack; who was named; honest
         cells that were accused while others attacked. Three seeds of 16 rounds of 100 optimiser steps and a day; in
         the first one nobody has the experience to answer. 11 min CPU. `--quick`: one seed of 5 rounds, where returns
         say little, and two attacks.
honest   The same cells with nobody hostile: how many are accused in 100 rounds, at heterogeneity 0.3 and 1.5. 3 min
         CPU; `--quick`: 10 rounds.
first    The first round with answers, if one day of experience is asked for and if it is the default, 12 fleets at
         each heterogeneity, six cells of each with a reward that is turned round: how many are told by their first
         update, and how many honest ones are accused, there and in as many fleets where nobody is hostile. 2 min CPU;
         `--quick`: 2 fleets.
codecs   The same cells, eight of them and nobody hostile: bytes of an update as it goes over the wire (signature and
         header with it), what the codec changes of a delta, and the return after 11 rounds against float32, paired
         over 20 seeds, with its 95 % interval by bootstrap. 5 min CPU; `--quick`: 2 seeds of 4 rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _figures import mean_interval
from _hostile import ATTACKS, CELLS, HOSTILE, Fleet, Outcome, mean

from cloud.aggregation import ClippedMean, Krum, Mean, Median, Strategy, TrimmedMean
from cloud.gate import Gate, GateSettings, Taken
from cloud.learning_settings import RoundSettings
from cloud.probe import Probe
from cloud.quarantine import GateState
from cloud.roundbook import RoundBook
from cloud.rounds import Candidate, Rounds
from firmware_sim.cell import DAY
from messages.cells import NETWORK
from messages.learning import Feature, Interface, Training, Update, UpdateHead
from messages.network import Network
from messages.signing import SigningKey, public_key
from messages.updates import CODECS, signed

NODES = 1_000
NET = Network(inputs=12, hidden=(128, 128), outputs=4)
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)] * 12, actions=["a", "b", "c", "d"])
SECOND = 1_000_000
ARRIVAL_MS, CLOSE_MS, ROBUST_MS = 0.5, 20.0, 500.0
ROUNDS = RoundSettings(training=Training(steps=100))
"""As the product has them, but shorter: a cell works no more than a day between two."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this one (again: more)")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="of `hostile`, only this one")
    parser.add_argument("--seeds", nargs="+", type=int, help="of `hostile`")
    args = parser.parse_args()
    for part in args.part or PARTS:
        figures = hostile(args.quick, args.attack, args.seeds) if part == "hostile" else PARTS[part](args.quick)
        for figure in figures:
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
        gate, now, probe = Gate(GateSettings(), keys), 1_002 * SECOND, Probe.of(NET, base, NET.size)

        def arrive() -> None:
            for name, payload in zip(names, payloads, strict=True):
                taken = gate.judge(name, Update.decode(payload), asked, now=now)
                assert isinstance(taken, Taken)
                probe.along(taken.delta)

        wall, cpu = timed(arrive, times)
        note = f"wall {wall / NODES:.3f} ms; {len(payloads[0])} bytes each, of {4 * NET.size}"
        yield line("signature, decoding and checks of an update", cpu / NODES, "ms", "<= 0.5", cpu / NODES <= 0.5, note)
        came = [(name, 1, Update.decode(payload)) for name, payload in zip(names, payloads, strict=True)]
        batches = [came[at : at + 64] for at in range(0, NODES, 64)]
        wall, cpu = timed(lambda: [rounds.on_updates(batch, now) for batch in batches], 1)
        yield line(
            "the same and on the disk, 64 a commit, all of them first ones",
            cpu / NODES,
            "ms",
            note=f"wall {wall / NODES:.3f} ms",
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
            "close of 1,000: gate beside each other and FedAvg", cpu, "ms", "<= 20", cpu <= 20, f"wall {wall:.1f} ms"
        )
        wall, cpu = timed(lambda: rounds.on_time(asked.deadline), 1)
        assert rounds.current and rounds.current.closed and len(rounds.current.closed.taken) == NODES
        yield line("close of a round as it is done, disk and all", cpu, "ms", note=f"wall {wall:.1f} ms")


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
            cpu,
            "ms",
            f"<= {target:g}" if target else None,
            cpu <= target if target else None,
            f"wall {wall:.1f} ms",
        )


def _number(candidate: Candidate) -> int:
    return candidate.round


# --- hostile ------------------------------------------------------------------------------------------


def hostile(
    quick: bool, chosen: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> Iterator[dict[str, object]]:
    rounds = 5 if quick else 16
    seeds = seeds or ((11,) if quick else (201, 202, 203))
    attacks = chosen or (["turned", "reward"] if quick else list(ATTACKS))

    worth: dict[str, float] = {}

    def fleets(attack: str | None) -> list[Outcome]:
        found = (Fleet(ROUNDS, heterogeneity=0.3, seed=seed, attack=attack, known=worth) for seed in seeds)
        return [one.learn(rounds) for one in found]

    clean = fleets(None)
    untrained = mean([one.untrained for one in clean])
    note = f"a decision, seeds {', '.join(map(str, seeds))}; of what all began with {untrained:.2f}"
    yield line("return without attack", mean([one.honest_return for one in clean]), "money", note=note)
    yield _accused(
        "honest cells accused in 100 rounds, without attack", [len(one.accused_honest) for one in clean], rounds
    )
    accused = []
    for attack in attacks:
        found = fleets(attack)
        accused += [len(one.accused_honest) for one in found]
        yield _against(clean, found, attack, judged=not quick)
    yield _accused("honest cells accused in 100 rounds, while others attack", accused, rounds)


def honest(quick: bool) -> Iterator[dict[str, object]]:
    rounds = 10 if quick else 100
    for heterogeneity in (0.3, 1.5):
        one = Fleet(ROUNDS, heterogeneity=heterogeneity, seed=101).learn(rounds, judged=False)
        yield _accused(
            f"honest cells accused in 100 rounds, heterogeneity {heterogeneity}", [len(one.accused_honest)], rounds
        )


def first(quick: bool) -> Iterator[dict[str, object]]:
    seeds = range(11, 13) if quick else range(301, 313)
    for experience in (DAY, ROUNDS.experience):
        settings = ROUNDS.model_copy(update={"experience": experience})
        for heterogeneity in (0.3, 1.5):
            named = accused = all_of_them = 0
            for seed in seeds:
                for attack in (None, "reward"):
                    fleet = Fleet(settings, heterogeneity=heterogeneity, seed=seed, attack=attack)
                    found = fleet.learn(-(-experience // DAY), judged=False)
                    named, accused = named + len(found.named), accused + len(found.accused_honest)
                    all_of_them += len(found.named) == HOSTILE
            hostile, honest = HOSTILE * len(seeds), (2 * CELLS - HOSTILE) * len(seeds)
            note = f"{named} of {hostile}, all six in {all_of_them} of {len(seeds)} fleets"
            note += f"; honest cells accused: {accused} of {honest}"
            what = f"experience of {experience}, heterogeneity {heterogeneity}"
            yield line(f"rewards turned round told by first updates, {what}", 100 * named / hostile, "%", note=note)


def _accused(figure: str, accused: Sequence[int], rounds: int) -> dict[str, object]:
    """`accused`: how often, in each fleet of so many rounds."""
    every = rounds * len(accused)
    share = 100 * sum(accused) / every
    return line(figure, share, "per 100 rounds", "<= 1", share <= 1, f"{sum(accused)} in {every} rounds of 20 cells")


def _against(clean: list[Outcome], found: list[Outcome], attack: str, *, judged: bool) -> dict[str, object]:
    without, with_it = (mean([one.honest_return for one in outcomes]) for outcomes in (clean, found))
    loss = 100 * (without - with_it) / abs(without)
    each = [100 * (a.honest_return - b.honest_return) / a.honest_return for a, b in zip(clean, found, strict=True)]
    named = [len(one.named) for one in found]
    after = [one.all_quarantined for one in found]
    wanted = ATTACKS[attack].found and judged
    note = f"{with_it:.2f} against {without:.2f} a decision; by seed " + ", ".join(f"{one:.1f}" for one in each)
    target, holds = "<= 5, 6 of 6 named", loss <= 5 and min(named) == HOSTILE
    return {
        **line(f"loss of return, {attack}", loss, "%", target if wanted else None, holds if wanted else None, note),
        "named": min(named),
        "of": HOSTILE,
        "as": sorted({why for one in found for whys in one.named.values() for why in whys}),
        "all_in_quarantine_after_round": max(one for one in after if one) if all(after) else None,
        "honest_accused": sum(len(one.accused_honest) for one in found),
    }


# --- codecs -------------------------------------------------------------------------------------------


def codecs(quick: bool) -> Iterator[dict[str, object]]:
    rounds, seeds = (4, range(11, 13)) if quick else (11, range(201, 221))
    came: dict[str, list[Outcome]] = {codec: [] for codec in CODECS}
    for seed in seeds:
        for codec in CODECS:
            settings = ROUNDS.model_copy(update={"codec": codec})
            came[codec].append(Fleet(settings, heterogeneity=0.3, seed=seed, cells=8).learn(rounds))
    plain = came["float32"]
    shared = NETWORK.size if ROUNDS.whole else NETWORK.shared
    whole = mean([one.update_bytes for one in plain])
    for codec, found in came.items():
        sent = mean([one.update_bytes for one in found])
        note = f"{100 * sent / whole:.1f} % of float32; {shared} of {NETWORK.size} numbers are shared"
        yield line(f"an update on the wire, {codec}", sent, "bytes per node and round", note=note)
        yield line(f"error of a delta, {codec}", 100 * mean([one.error for one in found]), "% of its norm")
        if found is plain:
            yield line("return with float32", mean([one.honest_return for one in plain]), "money", note="a decision")
            continue
        pairs = zip(plain, found, strict=True)
        loss, low, high = mean_interval([100 * (a.honest_return - b.honest_return) / a.honest_return for a, b in pairs])
        note = f"95 % {low:.2f} to {high:.2f}; {len(found)} seeds of {rounds} rounds"
        yield line(f"loss of return against float32, {codec}", loss, "%", note=note)


PARTS: dict[str, Callable[[bool], Iterator[dict[str, object]]]] = {
    "speed": speed,
    "hostile": hostile,
    "honest": honest,
    "first": first,
    "codecs": codecs,
}

if __name__ == "__main__":
    main()
