"""The swarm disturbed, in simulation: random sequences of all that can befall it, without the cloud, speed.

    python benchmarks/dispatch_disturbed.py [--quick] [--workers N]

Every sequence is a plant (a small workshop of its own: three to six machines with places before and sometimes behind
them, one or two vehicles, four to eight jobs; or the ceramic plant), a judge (a rule, or in every fifth sequence tree
search) that in three of four relies on the tags of parts, a scenario drawn from its seed, and rates at which messages
are lost, doubled, late and overtaken. Lost, twice, histories and deadlocks are the words of `shoal.swarm.check`, which
reads what machines and vehicles did. Makespans are compared with those of the same swarm undisturbed.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from cloud.dispatch import ByRule, Mcts, warm  # noqa: E402
from messages.contracts import OrderedJob  # noqa: E402
from messages.dispatch.judge import Judge  # noqa: E402
from messages.errors import BrokenInvariant  # noqa: E402
from messages.plant import load_plant  # noqa: E402
from messages.problem import Problem  # noqa: E402
from messages.workshop import plant_of  # noqa: E402
from shoal.swarm.disturb import Happening, Scenario, drawn  # noqa: E402
from shoal.swarm.outcome import T0, Swarm  # noqa: E402
from shoal.swarm.sim import simulate  # noqa: E402
from shoal.swarm.stage import Stage  # noqa: E402

SEQUENCES = 1_000
MCTS_EVERY = 5
"""One sequence in so many is judged by tree search, the others by a rule that is drawn."""
ITERATIONS = 20
"""Of tree search, per decision: its repetitions and its awards ahead are looked at here, not how good it is."""
WITHOUT_TAGS_EVERY = 4
"""In one sequence in so many judges do not rely on the tags of parts."""
CERAMIC_EVERY = 20
"""One sequence in so many is of the ceramic plant, which takes a day and a half of plant time."""
RULES = ("fifo", "sjf", "ljf", "eq11", "greedy")
MOST = {"breakdown": 4, "rush": 2, "cancel": 2, "node": 3, "judge": 2, "rival": 2, "cloud": 1}
"""Disturbances of a kind in one sequence, at most."""
MOST_EVENTS = 1_000_000
"""A sequence that is not over by then has lost what is not done."""
MILLION = 1_000_000
LARGER = 49_000
"""Events of a larger workshop, of which the cost of a million is reckoned."""
ORDER_EVERY_S = 6.0
FAULTS = {
    "lost": ("was not done",),
    "executed twice": ("was done", " times"),
    "histories incomplete": ("history of",),
    "deadlocks": ("nothing moved",),
}
"""Figure → the words by which the check tells of it."""
CERAMIC = load_plant(REPO / "firmware_sim" / "plants" / "ceramic.toml")


@dataclass(frozen=True)
class Row:
    """What is counted of one sequence."""

    seed: int
    kinds: tuple[str, ...]
    done: int
    cancelled: int
    unknown: int
    faults: tuple[str, ...]
    loss: float
    """makespan over that of the same swarm undisturbed"""
    events: int
    cpu_s: float


def figures(quick: bool, workers: int = 1) -> Iterator[dict[str, Any]]:
    """Every figure."""
    warm()
    yield from _sequences(8 if quick else SEQUENCES, workers)
    yield from _without_cloud(quick)
    yield from _speed(quick)


def _sequences(count: int, workers: int) -> Iterator[dict[str, Any]]:
    rows = list[Row]()
    for row in _rows(range(1, count + 1), workers):
        rows.append(row)
        for fault in row.faults:
            print(f"seed {row.seed}: {fault}", file=sys.stderr, flush=True)
    broken = [f"seed {row.seed}: {fault}" for row in rows for fault in row.faults]
    note = f"sequences of seeds 1 to {count}; " + ("; ".join(broken[:5]) or "no promise broken")
    yield _line("disturbance sequences", count, "", target=SEQUENCES, note=note)
    yield _line("judged by tree search", sum(row.seed % MCTS_EVERY == 1 for row in rows), "sequences")
    yield _line("without tags", sum(row.seed % WITHOUT_TAGS_EVERY == 2 for row in rows), "sequences")
    kinds = Counter(kind for row in rows for kind in row.kinds)
    for kind in MOST:
        yield _line(f"disturbances: {kind}", kinds[kind], "", note="beside messages lost, doubled, late, overtaken")
    yield _line("tasks done", sum(row.done for row in rows), "")
    yield _line("tasks cancelled", sum(row.cancelled for row in rows), "")
    yield _line("tasks unknown", sum(row.unknown for row in rows), "", note="at the end, and it is said why")
    for figure, words in FAULTS.items():
        hits = sum(all(word in fault for word in words) for fault in broken)
        yield _line(figure, hits, "", target=0, holds=hits == 0)
    other = sum(not any(all(word in fault for word in words) for words in FAULTS.values()) for fault in broken)
    yield _line("other promises broken", other, "", target=0, holds=other == 0, note="vehicles, places, order")
    losses = sorted(100 * (row.loss - 1) for row in rows)
    for name, at in (("median", 0.5), ("p90", 0.9), ("p99", 0.99)):
        value = round(losses[int(at * (len(losses) - 1))], 1)
        yield _line(f"makespan loss, {name}", value, "%", note="against the same undisturbed")
    ruled = [row for row in rows if row.seed % MCTS_EVERY != 1]
    events, cpu_s = sum(row.events for row in ruled), sum(row.cpu_s for row in ruled)
    million_s = MILLION * cpu_s / max(1, events)
    yield _line(
        "CPU of a million events", round(million_s, 1), "s", target=60, holds=million_s <= 60,
        note=f"{events} events of the sequences judged by rules; floor, nodes, judge and all messages",
    )  # fmt: skip


def _rows(seeds: Iterable[int], workers: int) -> Iterator[Row]:
    """In the order of the seeds, whoever is done first."""
    if workers == 1:
        yield from map(sequence, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(sequence, seeds, chunksize=4)


def sequence(seed: int) -> Row:
    """One sequence, run to its end."""
    swarm, base_s = drawn_swarm(seed)
    kinds = tuple(one.kind for one in swarm.scenario.happenings)
    try:
        outcome = simulate(swarm, most_events=MOST_EVENTS)
    except BrokenInvariant as error:
        return Row(seed, kinds, 0, 0, 0, (f"stopped: {error}",), 1.0, 0, 0.0)
    unknown = sum(why.startswith("unknown") for why in outcome.excused.values())
    return Row(
        seed=seed,
        kinds=kinds,
        done=sum(not run.interrupted for run in outcome.runs),
        cancelled=len(outcome.excused) - unknown,
        unknown=unknown,
        faults=outcome.faults,
        loss=outcome.figures.makespan_s / base_s,
        events=outcome.events,
        cpu_s=outcome.cpu_s,
    )


def drawn_swarm(seed: int) -> tuple[Swarm, float]:
    """The swarm of a sequence, and its makespan undisturbed, s."""
    rng = random.Random(seed)
    rule, sigma = rng.choice(RULES), rng.choice((0.0, 0.1))
    judge = Mcts(iterations=ITERATIONS) if seed % MCTS_EVERY == 1 else ByRule.model_validate({"kind": rule})
    if seed % CERAMIC_EVERY == 0:
        swarm = _ceramic(judge, batches=5)
    else:
        swarm = Swarm(*workshop(rng, machines=rng.randint(3, 6), jobs=rng.randint(4, 8)), judge)
    swarm = replace(swarm, seed=seed, sigma=sigma, tags=seed % WITHOUT_TAGS_EVERY != 2)
    base_s = simulate(swarm).figures.makespan_s
    counts = {kind: rng.randint(0, most) for kind, most in MOST.items()}
    scenario = Scenario(
        happenings=drawn(counts, swarm.plant, swarm.jobs, span_s=base_s, seed=seed),
        lose=rng.choice((0.0, 0.02, 0.1)),
        double=rng.choice((0.0, 0.1, 0.3)),
        delay=rng.choice((0.0, 0.5, 5.0)),
        reorder=rng.choice((0.0, 0.1, 0.3)),
    )
    return replace(swarm, scenario=scenario), base_s


def workshop(
    rng: random.Random, *, machines: int, jobs: int, vehicles: int | None = None
) -> tuple[Any, tuple[OrderedJob, ...]]:
    """A workshop: routes of two or three steps of 10 to 40 s, each on one to three machines; parts lie in a store."""
    names = [f"m{n + 1}" for n in range(machines)]
    places = ["store", "dock", *names]
    limits = rng.random() < 0.5  # whether places behind machines count
    specs = []
    for name in names:
        buffer: dict[str, int] = {"in": rng.randint(1, 3)}
        if limits:
            buffer["out"] = rng.randint(1, 2)
        specs.append({"id": name, "buffer": buffer})
    routes = []
    for _ in range(min(jobs, 12)):  # products
        first = [rng.sample(names, min(len(names), rng.randint(1, 3))) for _ in range(rng.randint(2, 3))]
        routes.append([{name: rng.randint(100, 400) for name in able} for able in first])
    orders = []
    for n in range(jobs):
        route = routes[n % len(routes)]
        steps = [{"op": op, "alternatives": able} for op, able in enumerate(route)]
        orders.append({"id": f"j{n + 1}", "at": "store", "operations": steps})
    ways = {one: {other: rng.randint(50, 200) for other in places if other != one} for one in places}
    problem = Problem.model_validate(
        {
            "schema": "shoal/problem/1",
            "name": "a workshop",
            "tick_s": 0.1,
            "machines": specs,
            "jobs": orders,
            "transport": {
                "ticks": ways,
                "stores": ["store", "dock"],
                "vehicles": vehicles or rng.randint(1, 2),
                "home": "dock",
                "loading": 20,
                "unloading": 20,
            },
        }
    )
    plant, ordered = plant_of(problem, t0=T0)
    return plant, tuple(ordered)


def _without_cloud(quick: bool) -> Iterator[dict[str, Any]]:
    """An hour is bridged by what was awarded already; most of a run is not, and delegates must judge."""
    seeds = range(1, 2 if quick else 11)
    swarms = [_ceramic(ByRule(kind="fifo"), batches=6 if quick else 15) for _ in seeds]
    swarms = [replace(swarm, seed=seed, sigma=0.1) for swarm, seed in zip(swarms, seeds, strict=True)]
    bases_s = [simulate(swarm).figures.makespan_s for swarm in swarms]
    faults, answers = list[str](), set[str]()
    for cut, figure in ((_an_hour, "an hour without cloud"), (_most_of_it, "without cloud from 10 to 90 %")):
        for who, delegates in (("with delegates", None), ("without delegates", ())):
            losses, ended = list[float](), 0
            for swarm, base_s in zip(swarms, bases_s, strict=True):
                scenario = Scenario(happenings=(cut(swarm.seed, base_s),))
                outcome = simulate(replace(swarm, scenario=scenario, delegates=delegates))
                losses.append(100 * (outcome.figures.makespan_s / base_s - 1))
                ended += sum(_is_within(scenario.happenings[0], run.end - swarm.start) for run in outcome.runs)
                faults += outcome.faults
                answers.add(outcome.troubles[0].answer.split(";")[0])
            note = f"ceramic plant, {len(losses)} seeds: {min(losses):.2f} to {max(losses):.2f} %; "
            note += f"{ended / len(losses):.1f} operations ended meanwhile"
            yield _line(f"makespan loss, {figure}, {who}", round(statistics.fmean(losses), 2), "%", note=note)
    told = ", ".join(sorted(answers))
    yield _line("promises broken, without cloud", len(faults), "", target=0, holds=not faults, note=told)


def _is_within(one: Happening, at_us: int) -> bool:
    return one.at_us <= at_us < one.at_us + one.lasts_us


def _an_hour(seed: int, base_s: float) -> Happening:
    at_s = random.Random(seed).uniform(0.3, 0.7) * base_s
    return Happening(kind="cloud", at_s=at_s, lasts_s=3600.0)


def _most_of_it(_: int, base_s: float) -> Happening:
    return Happening(kind="cloud", at_s=0.1 * base_s, lasts_s=0.8 * base_s)


def _speed(quick: bool) -> Iterator[dict[str, Any]]:
    """A larger workshop by rule, undisturbed, in which an order comes every few seconds: what an event costs."""
    count = LARGER // 10 if quick else LARGER
    plant, first = workshop(random.Random(1), machines=20, jobs=12, vehicles=10)
    products = [first[n % len(first)].product for n in range(count // 50)]
    orders = tuple(
        Happening(kind="rush", at_s=ORDER_EVERY_S * n, lasts_s=3600.0, job=f"r{n}", product=product)
        for n, product in enumerate(products, 1)
    )
    stage = Stage(Swarm(plant, first, ByRule(kind="fifo"), scenario=Scenario(happenings=orders)))
    stage.run(most_events=count)
    tasks = stage.seats[0].book.of("tendered", "awarded", "held", "working")
    events, jobs = stage.world.events, len({task.job for task in tasks})
    note = f"{events} events, extrapolated; {stage.chronicle.done} tasks done, {jobs} jobs open"
    yield _line("CPU of a million events, 20 machines", round(MILLION * stage.cpu_s / events, 1), "s", note=note)


def _ceramic(judge: Judge, *, batches: int) -> Swarm:
    return Swarm(CERAMIC, tuple(OrderedJob(job=name, product=name) for name in CERAMIC.products[:batches]), judge)


def _line(figure: str, value: float, unit: str, **more: Any) -> dict[str, Any]:
    return {"figure": figure, "value": value, "unit": unit, **more}


if __name__ == "__main__":
    import argparse
    import json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--workers", type=int, default=1, help="processes for the sequences")
    words = parser.parse_args()
    for line in figures(words.quick, max(1, words.workers)):
        print(json.dumps(line), flush=True)
