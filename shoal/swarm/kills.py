"""Swarms over real brokers whose processes are killed: small, drawn from a seed, checked against what really happened.

    trial = drawn(seed=7)
    verdict = verdict_of(over_bus(trial.swarm, directory, kills=trial.kills))

Every trial has a breakdown, a rush order, a cancelled order, SIGKILLs of two nodes and of the judge, and of one broker,
which forgets what it retained: the site's or the cloud's in passing, or the cloud's for 40 to 90 minutes, so that
delegates judge. Times are drawn; what is under way when a process dies is a matter of real time, so a seed gives the
same trial but not the same course.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

from messages.contracts import OrderedJob
from messages.dispatch.judge import ByRule
from messages.plant import Plant
from shoal.swarm import disturb
from shoal.swarm.disturb import Happening, Scenario
from shoal.swarm.incidents import Kill
from shoal.swarm.outcome import Outcome, Swarm

SPAN_S = 3 * 3600.0
"""Plant time in which things happen; about as long as an undisturbed run."""
JOBS = 6
PRODUCTS = 3


@dataclass(frozen=True)
class Trial:
    """A swarm and what is killed."""

    swarm: Swarm
    kills: tuple[Kill, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of the tasks of one or more runs."""

    runs: int = 0
    tasks: int = 0
    done: int = 0
    cancelled: int = 0
    unknown: int = 0
    """Not done, and said so."""
    lost: int = 0
    twice: int = 0
    interrupted: int = 0
    again: int = 0
    """Tenders beyond the first of a task."""
    faults: int = 0
    """Of any kind: also histories that are not complete, machines that did two things at once."""

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


def plant_of(rng: random.Random) -> Plant:
    """Three nodes of two machines each; three steps, each on both machines of one node."""
    products = [f"p{n}" for n in range(PRODUCTS)]
    names = ("cut", "mill", "grind")

    def machine(name: str) -> dict[str, object]:
        minutes = {product: rng.randint(20, 45) for product in products}
        times = {product: minute / 60 for product, minute in minutes.items()}
        return {"id": name, "work_kw": 20, "idle_kw": 3, "preheat_kw": 15, "preheat_h": 5 / 60, "time_h": times}

    workshops = [
        {"name": name, "node": name, "machines": [machine(f"{name}-1"), machine(f"{name}-2")]} for name in names
    ]
    return Plant.model_validate({"site": "trial", "products": products, "workshops": workshops})


def swarm_of(seed: int, scenario: Scenario | None = None) -> Swarm:
    """Six jobs on the small plant, awarded in the order in which parts wait."""
    rng = random.Random(seed)
    plant = plant_of(rng)
    jobs = tuple(OrderedJob(job=f"b{n:02}", product=rng.choice(plant.products)) for n in range(1, JOBS + 1))
    judge = ByRule(kind="fifo")
    return Swarm(plant, jobs, judge, scenario=scenario or Scenario(), seed=seed, sigma=0.05)


def drawn(seed: int) -> Trial:
    """A trial."""
    plain = swarm_of(seed)
    counts = {"breakdown": 1, "rush": 1, "cancel": 1}
    happenings = disturb.drawn(counts, plain.plant, plain.jobs, span_s=SPAN_S, seed=seed)
    rng = random.Random(f"kills {seed}")
    nodes = rng.sample(plain.plant.nodes, 2)
    kills = [Kill(_when(rng), node, 60.0 * rng.randint(2, 40)) for node in nodes]
    kills.append(Kill(_when(rng), "judge", 60.0 * rng.randint(2, 40)))
    who, lasts_s = rng.choice((("broker", 0.0), ("uplink", 0.0), ("uplink", 60.0 * rng.randint(40, 90))))
    kills.append(Kill(_when(rng), who, lasts_s))
    return Trial(swarm_of(seed, Scenario(happenings=happenings)), tuple(sorted(kills, key=lambda one: one.at_s)))


def calm(seed: int) -> Trial:
    """The same swarm, undisturbed."""
    return Trial(swarm_of(seed), ())


def cut_off(seed: int, *, at_s: float = 1800.0, lasts_s: float = 3600.0, delegates: bool = True) -> Trial:
    """The cloud is cut off for an hour in the middle of the work: its broker is gone, it lives."""
    cut = Happening(kind="cloud", at_s=at_s, lasts_s=lasts_s)
    swarm = swarm_of(seed, Scenario(happenings=(cut,)))
    return Trial(swarm if delegates else replace(swarm, delegates=()), ())


def verdict_of(outcome: Outcome) -> Verdict:
    """Counted from what machines really did."""
    done = Counter((run.job, run.op) for run in outcome.runs if not run.interrupted and not run.running)
    wanted = {(job, op) for job, steps in _ordered(outcome).items() for op in range(steps)}
    missing = wanted - done.keys()
    said = {key: why for key, why in outcome.excused.items() if key in missing}
    cancelled = sum(why.startswith("cancelled") for why in said.values())
    return Verdict(
        runs=1,
        tasks=len(wanted),
        done=len(wanted & done.keys()),
        cancelled=cancelled,
        unknown=len(said) - cancelled,
        lost=len(missing - said.keys()),
        twice=sum(count - 1 for count in done.values()),
        interrupted=sum(run.interrupted for run in outcome.runs),
        again=outcome.messages.get("again", 0),
        faults=len(outcome.faults),
    )


def _when(rng: random.Random) -> float:
    return round(rng.uniform(0.05, 0.8) * SPAN_S, 3)


def _ordered(outcome: Outcome) -> dict[str, int]:
    """Every job that was ordered, and how many steps it has."""
    plant = outcome.swarm.plant
    rushed = {
        one.job: one.product or one.job
        for one in outcome.swarm.scenario.happenings
        if one.kind == "rush" and one.job is not None
    }
    products = {job.job: job.product for job in outcome.swarm.jobs} | rushed
    return {job: len(plant.route(product)) for job, product in products.items()}
