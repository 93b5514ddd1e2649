"""The cloud's side of releases and the nodes' own, together: what one says the other understands, to the last byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from releasing import INTERFACE, KEY, KEYS, NET, graph, vector

from cloud.canary import CanaryTest
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
from edge.shelf import Shelf
from messages.learning import ModelReport

NODES = ("s1/dry", "s1/humid", "s1/worn")
SECOND = 10**6
LOOK = 64
"""Decisions between two reports."""


class Site:
    """Nodes with disks of their own, and a cloud, all without a bus between them."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder, self.registry, self.now = folder, registry, SECOND
        settings = ReleaseSettings(test=CanaryTest(margin=0.1))
        self.releases = Releases(registry, "cell", settings, key=KEY)
        self.rng = np.random.default_rng(11)
        self.worse: dict[int, float] = {}
        self.trips: set[int] = set()
        self.nodes: dict[str, Models] = {}
        for name in NODES:
            self.start(name)
            self.hear(name, [ModelReport(model="cell", at=self.now, session="00000000")])

    def start(self, name: str) -> None:
        shelf = Shelf(Files(self.folder / name.replace("/", "-")))
        session = f"{self.now:08x}"
        made = Models(shelf, targets={name}, keys=KEYS, session=session, canary=CanarySettings(block=4, washout=1))
        self.nodes[name] = made
        self.hear(name, made.load(self.now))

    def say(self, says: list[Say]) -> None:
        """To the nodes, with the artefacts they ask for; and what they answer back."""
        for say in says:
            models = self.nodes.get(say.node)
            if models is None:
                continue
            reports = models.on_release("cell", say.payload, self.now)
            offered = {artefact.digest: artefact for artefact in say.artefacts}
            for wanted in models.wanted:
                data = self.registry.data(offered[wanted.digest].sha256)
                for number, part in parts(data):
                    reports += models.on_part(wanted.digest, int(number), part.data, self.now)
            self.hear(say.node, reports)

    def hear(self, name: str, reports: list[ModelReport]) -> None:
        for report in reports:
            self.now += SECOND
            told = ModelReport.decode(report.model_copy(update={"at": self.now}).encode())
            self.say(self.releases.on_report(name, told, self.now))

    def release(self, parameters: F32, *, origin: str) -> int:
        """A candidate is made, validated and, if it may, given to its canaries."""
        data = parameters.astype("<f4").tobytes()
        draft = Draft(model="cell", graph=graph(), parameters=data, network=NET, interface=INTERFACE, origin=origin)
        made = self.registry.add(draft, now=self.now, by="shoal")
        self.say(self.releases.on_time(self.now))
        question = self.releases.to_validate()
        assert question is not None
        self.say(self.releases.on_validated(question, answer(question, lambda _: {"mean_return": 1.0}), self.now))
        return made.version

    def work(self, decisions: int = LOOK) -> None:
        """Every node decides, and reports."""
        for name, models in list(self.nodes.items()):
            for _ in range(decisions):
                turn = models.turn("cell")
                assert turn is not None
                version = turn.policy.version
                self.hear(name, models.decided(turn, self.now, trip=version in self.trips))
                models.outcome(turn, 1 + 0.3 * float(self.rng.standard_t(3)) - self.worse.get(version, 0.0), 0.0)
            self.hear(name, [models.report("cell", self.now)])

    def runs(self) -> set[int | None]:
        return {models.report("cell", self.now).running for models in self.nodes.values()}

    def ends(self, version: int, looks: int = 60) -> str:
        """What became of a trial."""
        for _ in range(looks):
            if self.registry.version("cell", version).stage != "canary":
                break
            self.work()
        return self.registry.version("cell", version).stage


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(Registry(tmp_path / "models.db")) as registry:
        made = Site(tmp_path, registry)
        made.release(vector(1), origin="round 1")
        assert made.runs() == {1}
        yield made


def test_an_equal_candidate_goes_to_the_fleet_and_a_worse_one_comes_back(site: Site) -> None:
    equal = site.release(vector(2), origin="round 2")
    assert site.ends(equal) == "fleet" and site.runs() == {equal}
    site.worse = {equal + 1: 0.2}
    worse = site.release(vector(3), origin="round 3")
    assert site.ends(worse) == "rolled_back" and site.runs() == {equal}
    assert "worse" in site.registry.history("cell", worse)[-1].why
    assert all(len(models.report("cell", site.now).arms) >= 1 for models in site.nodes.values())


def test_a_trip_comes_back_at_once(site: Site) -> None:
    site.trips = {2}
    version = site.release(vector(2), origin="round 2")
    assert site.ends(version, looks=1) == "rolled_back" and site.runs() == {1}


def test_what_no_node_would_run_is_back_before_it_decided_anything(site: Site) -> None:
    broken = vector(2)
    broken[3] = np.nan
    version = site.release(broken, origin="round 2")
    assert site.registry.version("cell", version).stage == "rolled_back"
    assert "finite" in site.registry.history("cell", version)[-1].why and site.runs() == {1}


def test_canaries_that_restart_go_on_where_they_were(site: Site) -> None:
    version = site.release(vector(2), origin="round 2")
    trial = site.releases.state.trial
    assert trial is not None
    pairs = []
    for _ in range(3):
        site.work()
        current = site.releases.state.trial
        assert current is not None
        pairs.append(sum(tally.pairs for tally in current.tallies.values()))
        for name in trial.tallies:
            site.start(name)
    assert pairs[0] < pairs[1] < pairs[2]
    assert site.ends(version) == "fleet"


def test_an_operator_takes_the_fleet_back_and_every_node_obeys(site: Site) -> None:
    for version in (2, 3):
        site.release(vector(version), origin=f"round {version}")
        site.registry.wish("cell", "release", version=version, node=None, by="eva", why="it is urgent")
        site.say(site.releases.on_time(site.now))
        assert site.runs() == {version}
    away = site.nodes.pop("s1/dry")
    site.registry.wish("cell", "rollback", version=1, node=None, by="eva", why="too loud")
    site.say(site.releases.on_time(site.now))
    assert site.runs() == {1}
    site.nodes["s1/dry"] = away
    site.say(site.releases.all())  # it is back, and the broker has what it retained
    assert site.runs() == {1}
    site.nodes.clear()
    for name in NODES:
        site.start(name)
    assert site.runs() == {1}
