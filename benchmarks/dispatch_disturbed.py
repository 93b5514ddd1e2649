"""The swarm disturbed, in simulation: random sequences of all that can befall it, an hour without the cloud, speed.

    python benchmarks/dispatch_disturbed.py [--quick]

Every sequence is a plant (the published cell with two vehicles and places before its machines, or the ceramic plant), a
scenario drawn from its seed, and rates at which messages are lost, doubled, late and overtaken. Lost, twice, histories
and deadlocks are the words of `shoal.swarm.check`, which reads what machines and vehicles did.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from messages.contracts import OrderedJob  # noqa: E402
from messages.dispatch.judge import ByRule  # noqa: E402
from messages.instances import load_problem  # noqa: E402
from messages.plant import load_plant  # noqa: E402
from messages.workshop import plant_of  # noqa: E402
from shoal.swarm.disturb import Happening, Scenario, drawn  # noqa: E402
from shoal.swarm.outcome import T0, Outcome, Swarm  # noqa: E402
from shoal.swarm.sim import simulate  # noqa: E402

SEQUENCES = 1_000
CERAMIC_EVERY = 10
"""One sequence in so many is of the ceramic plant, which takes a day and a half of plant time."""
SPANS_S = {"cell": 480.0, "ceramic": 100_000.0}
RULES = ("fifo", "sjf", "ljf", "eq11", "greedy")
MILLION = 1_000_000
FAULTS = {
    "lost": "was not done",
    "executed twice": "was done",
    "histories incomplete": "history of",
    "deadlocks": "nothing moved",
}
"""Figure → the words by which the check tells of it."""


def figures(quick: bool) -> Iterator[dict[str, Any]]:
    """Every figure."""
    yield from _sequences(8 if quick else SEQUENCES)
    yield from _hour_without_cloud(quick)
    yield from _speed(5_000 if quick else MILLION)


def _sequences(count: int) -> Iterator[dict[str, Any]]:
    found, losses, quiet = list[Outcome](), list[float](), dict[str, float]()
    broken: list[str] = []
    for seed in range(1, count + 1):
        swarm, name = _sequence(seed)
        outcome = simulate(swarm)
        key = f"{name} {outcome.swarm.judge.model_dump()['kind']}"
        if key not in quiet:
            quiet[key] = simulate(replace(swarm, scenario=Scenario())).figures.makespan_s
        losses.append(100 * (outcome.figures.makespan_s / quiet[key] - 1))
        broken += [f"seed {seed}: {fault}" for fault in outcome.faults]
        found.append(replace(outcome, runs=(), carries=()))
    note = f"sequences of seeds 1 to {count}; " + ("; ".join(broken[:5]) or "no promise broken")
    yield _line("disturbance sequences", count, "", target=SEQUENCES, note=note)
    yield _line("disturbances", sum(len(one.troubles) for one in found), "", note="beside messages gone astray")
    yield _line("tasks", sum(one.messages.get("award", 0) for one in found), "awards")
    for figure, words in FAULTS.items():
        hits = sum(words in fault and ("times" in fault or figure != "executed twice") for fault in broken)
        yield _line(figure, hits, "", target=0, holds=hits == 0)
    other = sum(not any(words in fault for words in FAULTS.values()) for fault in broken)
    yield _line("other promises broken", other, "", target=0, holds=other == 0, note="vehicles, places, order")
    losses.sort()
    yield _line("makespan loss, median", round(losses[len(losses) // 2], 1), "%", note="against the same undisturbed")
    events, cpu_s = sum(one.events for one in found), sum(one.cpu_s for one in found)
    yield _line("events per second of CPU, disturbed", round(events / max(cpu_s, 1e-9)), "1/s")


def _hour_without_cloud(quick: bool) -> Iterator[dict[str, Any]]:
    swarm = _ceramic(ByRule(kind="fifo"), batches=6 if quick else 15)
    base = simulate(swarm)
    half_s = base.figures.makespan_s / 2
    cut = Scenario(happenings=(Happening(kind="cloud", at_s=half_s, lasts_s=3600.0),))
    for figure, delegates in (("with delegates", None), ("without delegates", ())):
        outcome = simulate(replace(swarm, scenario=cut, delegates=delegates))
        loss = 100 * (outcome.figures.makespan_s / base.figures.makespan_s - 1)
        note = f"ceramic plant, cut at half time; {outcome.troubles[0].answer}"
        yield _line(f"makespan loss, an hour without cloud, {figure}", round(loss, 2), "%", note=note)


def _speed(events: int) -> Iterator[dict[str, Any]]:
    """So many orders of the cell, one after the other, that there are so many events."""
    plant, jobs = _cell()
    many = tuple(
        OrderedJob(job=f"{job.job}-{n}", product=job.product, release_at=T0 + n * 600_000_000)
        for n in range(max(1, events // 700))
        for job in jobs
    )
    outcome = simulate(Swarm(plant, many, ByRule(kind="fifo")), most_events=events)
    per = outcome.cpu_s / max(1, outcome.events)
    yield _line("events per second of CPU", round(1 / per), "1/s", note=f"{outcome.events} events, {len(many)} jobs")
    yield _line(
        "CPU of a million events", round(per * MILLION, 1), "s", target=60, holds=per * MILLION <= 60,
        note="floor, nodes, judge and all messages" + ("" if events >= MILLION else "; projected"),
    )  # fmt: skip


def _sequence(seed: int) -> tuple[Swarm, str]:
    rng = random.Random(seed)
    name = "ceramic" if seed % CERAMIC_EVERY == 0 else "cell"
    judge = ByRule.model_validate({"kind": rng.choice(RULES)})
    swarm = _ceramic(judge, batches=8) if name == "ceramic" else Swarm(*_cell(), judge)
    most = {"breakdown": 4, "rush": 2, "cancel": 2, "node": 3, "judge": 2, "rival": 2, "cloud": 1}
    counts = {kind: rng.randint(0, count) for kind, count in most.items()}
    happenings = drawn(counts, swarm.plant, swarm.jobs, span_s=SPANS_S[name], seed=seed)
    scenario = Scenario(
        happenings=happenings,
        lose=rng.choice((0.0, 0.02, 0.1)),
        double=rng.choice((0.0, 0.1, 0.3)),
        delay=rng.choice((0.0, 0.5, 5.0)),
        reorder=rng.choice((0.0, 0.1, 0.3)),
    )
    return replace(swarm, scenario=scenario, seed=seed, sigma=rng.choice((0.0, 0.1))), name


def _cell() -> tuple[Any, tuple[OrderedJob, ...]]:
    plant, jobs = plant_of(load_problem(REPO / "examples" / "workshop_vehicles.json"), t0=T0)
    return plant, tuple(jobs)


def _ceramic(judge: ByRule, *, batches: int) -> Swarm:
    plant = load_plant(REPO / "firmware_sim" / "plants" / "ceramic.toml")
    return Swarm(plant, tuple(OrderedJob(job=name, product=name) for name in plant.products[:batches]), judge)


def _line(figure: str, value: float, unit: str, **more: Any) -> dict[str, Any]:
    return {"figure": figure, "value": value, "unit": unit, **more}


if __name__ == "__main__":
    import json

    for line in figures("--quick" in sys.argv):
        print(json.dumps(line), flush=True)
