"""A candidate that does what it must not: how many decisions does it make until it is taken back?

A cloud with its registry and four nodes with their files, as in the product but for the bus. Version 2 runs as a canary
beside version 1 on all of them, and in a part of all states wants an action that is locked there, or answers with what
is not a number. Its first such decision on any node is its last: the node takes it back before the next one, its report
ends the trial in the cloud, and the others get version 1 back. Sensors that fall silent or tell nonsense meanwhile are
no fault of a candidate: safety takes the safe action, and nothing else happens.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from cloud.registry import Registry
from cloud.releases import Releases
from cloud.saying import Say, parts
from cloud.trials import ReleaseSettings
from cloud.validation import answer
from cloud.versions import Draft
from edge.arms import CanarySettings
from edge.files import Files
from edge.models import Models
from edge.policy import F32
from edge.safety import Interlock, Limits, Past, Scene, judge
from edge.shelf import Shelf
from messages.learning import ModelReport
from tests.releasing import INTERFACE, KEY, KEYS, NET, graph, wanting

Fault = Literal["trip", "non-finite", "none"]
NODES = tuple(f"s1/n{k}" for k in range(4))
SECOND = 1_000_000
LIMITS = Limits(actions=("work",), interlocks=(Interlock(action="work", metric="heat", above=8.0),))
OFTEN = 0.03
"""Share of states in which the fault shows."""


@dataclass
class Ended:
    """One trial."""

    decisions: int = 0
    """of the candidate, to its first fault"""
    faults: int = 0
    after: int = 0
    """decisions of the candidate after its first fault, on all nodes"""
    unsafe: int = 0
    """actions that went out although heat was too high, or not known"""
    silent: int = 0
    """decisions in which a sensor was silent, or told what is no number"""
    stage: str = ""


@dataclass
class Plant:
    """Cloud and nodes; `now` is plant time."""

    releases: Releases
    registry: Registry
    nodes: dict[str, Models]
    rng: np.random.Generator
    now: int = SECOND
    pasts: dict[str, Past] = field(default_factory=dict)

    def say(self, says: list[Say]) -> None:
        """To the nodes, and what they answer back."""
        for say in says:
            models = self.nodes[say.node]
            reports = models.on_release("cell", say.payload, self.now)
            for artefact in say.artefacts:
                for number, part in parts(self.registry.data(artefact.sha256)):
                    reports += models.on_part(artefact.digest, int(number), part.data, self.now)
            self.hear(say.node, reports)

    def hear(self, name: str, reports: list[ModelReport]) -> None:
        """To the cloud."""
        for report in reports:
            self.now += SECOND
            self.say(self.releases.on_report(name, report.model_copy(update={"at": self.now}), self.now))

    def release(self, theta: F32, origin: str) -> int:
        """A version goes out to its canaries; the first one to all."""
        draft = Draft(
            model="cell", graph=graph(), parameters=theta.astype("<f4").tobytes(), network=NET, interface=INTERFACE,
            origin=origin,
        )  # fmt: skip
        version = self.registry.add(draft, now=self.now, by="shoal").version
        self.say(self.releases.on_time(self.now))
        question = self.releases.to_validate()
        assert question is not None
        self.say(self.releases.on_validated(question, answer(question, lambda _: {"mean_return": 1.0}), self.now))
        return version


def ended(fault: Fault, seed: int, *, silent: float, most: int) -> Ended:
    """One trial over `most` decisions; `silent`: share of them in which a sensor is."""
    with tempfile.TemporaryDirectory() as name, closing(Registry(Path(name) / "models.db")) as registry:
        nodes = {node: _node(Path(name) / node.replace("/", "-"), node, seed) for node in NODES}
        releases = Releases(registry, "cell", ReleaseSettings(canaries=len(NODES)), key=KEY)
        plant = Plant(releases, registry, nodes, np.random.default_rng(seed))
        for node in NODES:
            plant.hear(node, [ModelReport(model="cell", at=plant.now, session="00000000")])
        plant.release(wanting(0), "round 1")
        candidate, found = plant.release(OVERFLOWING if fault == "non-finite" else wanting(1), "round 2"), Ended()
        for _ in range(most // len(NODES)):
            for node in NODES:
                _decide(plant, node, candidate, found, fault, silent)
        found.stage = registry.version("cell", candidate).stage
        return found


def _overflowing() -> F32:
    """Wants to work, and its answer is too large to be a number where the middle feature alone is small."""
    theta = wanting(1)
    body = theta[: NET.slices[0].stop].reshape(3, 4)
    body[:, 0], body[:, 1] = (2e38, -2e38, 0), (0, -2e38, 2e38)
    theta[NET.slices[2].start :][:4] = 1, 0, 1, 0
    return theta


OVERFLOWING = _overflowing()


def _node(folder: Path, name: str, seed: int) -> Models:
    turns = CanarySettings(block=4, washout=1)
    return Models(Shelf(Files(folder)), targets={name}, keys=KEYS, session="00000000", canary=turns, seed=seed)


def _decide(plant: Plant, node: str, candidate: int, found: Ended, fault: Fault, silent: float) -> None:
    models, rng = plant.nodes[node], plant.rng
    plant.now += SECOND
    shows = fault != "none" and rng.random() < OFTEN
    values = {one.metric: float(rng.uniform(4, 6)) for one in INTERFACE.features} | {"heat": 5.0}
    if shows:
        values.update({"heat": 9.0} if fault == "trip" else dict(zip(values, (10.0, 0.0, 10.0), strict=False)))
    latest = {("press", metric): (plant.now, value) for metric, value in values.items()}
    if rng.random() < silent:
        found.silent += 1
        whose = "press", str(rng.choice(list(values)))
        way = rng.integers(3)
        if way == 0:
            del latest[whose]
        else:
            latest[whose] = (plant.now - 3600 * SECOND, values[whose[1]]) if way == 1 else (plant.now, float("nan"))
    turn = models.turn("cell")
    assert turn is not None
    with np.errstate(all="ignore"):
        choice = turn.policy.choose(latest, plant.now, device="press")
    scene = Scene(now=plant.now, device="press", state=None, state_at=0, latest=latest)
    verdict = judge(LIMITS, plant.pasts.get(node, Past()), choice.action, scene)
    plant.pasts[node] = verdict.past
    at, heat = latest.get(("press", "heat"), (0, 0.0))
    found.unsafe += verdict.action == "work" and not (at == plant.now and heat <= 8.0)
    if turn.policy.version == candidate:
        found.decisions += not found.faults
        found.after += bool(found.faults)
        found.faults += verdict.trip or turn.policy.non_finite > turn.non_finite
    plant.hear(node, models.decided(turn, plant.now, trip=verdict.trip))
    models.outcome(turn, float(rng.normal(1, 0.3)), 0.0)
