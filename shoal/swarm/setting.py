"""From a file and the words of the command line to a swarm: which plant, which orders, who judges, what counts.

swarm, span_s = swarm_of(Path("workshop.json"), judge_of("mcts", iterations=100), weights_of("makespan=1,waiting=8"))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from messages.carbon import day_of_carbon
from messages.clock import SECOND
from messages.contracts import OrderedJob, Signal
from messages.dispatch.decode import Measures, Weights, measures
from messages.dispatch.judge import Judge
from messages.dispatch.rules import RULES, run
from messages.dispatch.shop import shop_from
from messages.dispatch.state import begin
from messages.errors import UsageError
from messages.floor import Floor, problem_of
from messages.instances import load_problem
from messages.plant import Plant, load_plant, near
from messages.problem import Problem
from messages.workshop import plant_of
from shoal.swarm.disturb import parse
from shoal.swarm.outcome import T0, Swarm

RULE_NAMES = tuple(RULES)
JUDGES = (*RULE_NAMES, "mcts")


def judge_of(name: str, *, seconds: float | None = None, iterations: int | None = None) -> Judge:
    """A judge by name; UsageError names the cure."""
    if name not in JUDGES:
        raise UsageError(f"--judge {name}: no such judge{near(name, JUDGES)}")
    if name != "mcts" and (seconds is not None or iterations is not None):
        raise UsageError(f"--judge {name} is a rule and needs no time: leave --budget and --iterations out")
    if seconds is not None and iterations is not None:
        raise UsageError("--budget and --iterations: give one of them")
    if seconds is not None and not 0 < seconds <= 3600:
        raise UsageError(f"--budget {seconds:g}: seconds per decision, above 0 and at most 3600")
    from cloud.dispatch import ByRule, Mcts  # loads the kernels and their compiler: not for help, nor wrong words

    if name != "mcts":
        return ByRule.model_validate({"kind": name})
    return Mcts(seconds=0.1 if seconds is None else seconds, iterations=iterations)


def weights_of(text: str) -> Weights:
    """`makespan=1,waiting=8`: what is not named counts nothing."""
    if not text:
        return Weights()
    named = set[str]()
    names = [field.name for field in fields(Weights)]
    found = dict.fromkeys(names, 0.0)
    for word in text.split(","):
        name, _, number = word.strip().partition("=")
        if not name:
            raise UsageError(f"--weights {text!r}: a word is missing; give measures, as in makespan=1,waiting=8")
        if name in named:
            raise UsageError(f"--weights {text}: {name} is there twice; name each measure once")
        named.add(name)
        if name not in names:
            raise UsageError(f"--weights {word!r}: no such measure{near(name, names)}")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] < 1e9:
            raise UsageError(f"--weights {word!r}: give a number, 0 or more, such as {name}=1")
    if not any(found.values()):
        raise UsageError(f"--weights {text}: one of them must be more than 0")
    return Weights(**found)


def swarm_of(
    file: Path,
    judge: Judge,
    weights: Weights,
    *,
    disturb: str = "",
    seed: int = 1,
    sigma: float = 0.0,
    machines_per_node: int = 2,
    over: str = "sim",
) -> tuple[Swarm, float]:
    """The swarm of a file, and how long it takes by rule when nothing is disturbed, s."""
    if _is_plant(file):
        plant = load_plant(file)
        jobs = tuple(OrderedJob(job=product, product=product) for product in plant.ordered)
        signals: Mapping[str, Signal] = {"carbon": day_of_carbon(T0)}
        problem = problem_of(plant, {job.job: job for job in jobs}, Floor(), t0=T0, now=T0, signals=signals)
    else:
        problem = load_problem(file)
        plant, orders = plant_of(problem, t0=T0, machines_per_node=machines_per_node)
        jobs, signals = tuple(orders), _signals(problem)
    span_s, by_rule = _by_rule(problem)
    _refuse_idle(weights, by_rule, file)
    swarm = Swarm(plant, jobs, judge, weights, signals=signals, seed=seed, sigma=sigma)
    return replace(swarm, scenario=parse(disturb, plant, jobs, span_s=span_s, seed=seed, over=over)), span_s


def _is_plant(file: Path) -> bool:
    """A plant has workshops, a problem has jobs."""
    if file.suffix == ".toml":
        return True
    if file.suffix != ".json":
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # whoever loads the problem says what is wrong
    return isinstance(found, dict) and "workshops" in found


def _by_rule(problem: Problem) -> tuple[float, Measures]:
    """How long it takes, s, and what it is worth, when nothing is disturbed."""
    found = measures(run(begin(shop_from(problem)), RULES["fifo"], Weights(energy=1.0, carbon=1.0)))
    return max(1.0, found.makespan * problem.tick_s), found


def _refuse_idle(weights: Weights, by_rule: Measures, file: Path) -> None:
    """UsageError where a measure has a weight that is 0 whatever is decided."""
    states = {"energy": (by_rule.energy_kwh, "power of machines"), "carbon": (by_rule.carbon_kg, "carbon per kWh")}
    for name, (worth, what) in states.items():
        if getattr(weights, name) and not worth:
            raise UsageError(f"--weights {name}: {file} states no {what}, so it counts nothing; state it, or leave "
                             f"{name} out")  # fmt: skip


def _signals(problem: Problem) -> dict[str, Signal]:
    """What a kWh emits and costs, as far as the problem says."""
    found = {}
    for name, curves in (("carbon", problem.carbon), ("tariff", problem.tariff)):
        curve = curves.get("electricity")
        if curve is not None:
            step_s = curve.step * problem.tick_s
            start = T0 + round(curve.start * problem.tick_s * SECOND)
            values = list(curve.values)
            found[name] = Signal(
                name=name, revision=1, unit="kg/kWh" if name == "carbon" else "1/kWh", start=start,
                step_s=max(1.0, step_s), values=values,
            )  # fmt: skip
    return found


def plant_size(plant: Plant) -> str:
    """In words."""
    machines, nodes = len(plant.machines), len(plant.nodes)
    vehicles = plant.layout.vehicles if plant.layout and plant.layout.vehicles else 0
    return f"{machines} machines, {nodes} nodes" + (f", {vehicles} vehicles" if vehicles else "")
